//! The vocabulary and its byte forms: entries, names, identities, times, and what is decided from them.

use std::collections::BTreeMap;

use instep_core::attributes::Carried;
use instep_core::codec::{self, DecodeError, Reader};
use instep_core::conflict;
use instep_core::entry::Entry;
use instep_core::group;
use instep_core::id::{ActorId, ContentId, Dot, ReplicaId};
use instep_core::path::{Name, NameError, RelPath};
use instep_core::policy::{ConflictPolicy, Policies, Role};
use instep_core::reconcile::{self, Side, is_safe_link, reconcile};
use instep_core::row::Row;
use instep_core::time;
use instep_core::view::{view, view_above};

use crate::feed::Feed;

/// Bytes of an entry: read, written again, and looked at.
pub(super) fn entry(bytes: &[u8]) -> String {
    let mut reader = Reader::new(bytes);
    let read = codec::entry(&mut reader).and_then(|entry| reader.finish().map(|()| entry));
    let entry = match read {
        Ok(entry) => entry,
        Err(e) => return refused(e),
    };
    let mut out = Vec::new();
    codec::put_entry(&mut out, &entry);
    assert_eq!(out, bytes, "an entry has one form");
    assert!(entry.siblings().iter().all(|(d, _)| entry.ctx().covers(*d)));
    assert_eq!(entry.is_empty(), entry.ctx().is_empty());
    format!("{} siblings", entry.siblings().len().min(4))
}

/// Bytes of attributes, and of one version.
pub(super) fn attributes(bytes: &[u8]) -> String {
    let Some((which, bytes)) = bytes.split_first() else {
        return "nothing".into();
    };
    let mut reader = Reader::new(bytes);
    let mut out = Vec::new();
    let read = if which & 1 == 0 {
        codec::attributes(&mut reader).map(|read| codec::put_attributes(&mut out, &read))
    } else {
        codec::version(&mut reader).map(|read| codec::put_version(&mut out, &read))
    };
    match read.and_then(|()| reader.finish()) {
        Ok(()) => {
            assert_eq!(out, bytes, "there is one form");
            "read".into()
        }
        Err(e) => refused(e),
    }
}

pub(super) fn refused(e: DecodeError) -> String {
    e.to_string()
}

/// Several entries of one path, some of which nobody honest made, told to everybody in every order.
pub(super) fn merge(bytes: &[u8]) -> String {
    let mut feed = Feed::new(bytes);
    let entries = [feed.entry(), feed.entry(), feed.entry()];
    let [a, b, c] = &entries;
    assert_eq!(
        a.merge(b),
        b.merge(a),
        "whose turn it is makes a difference"
    );
    assert_eq!(a.merge(a), *a, "to hear oneself makes a difference");
    let both = a.merge(b);
    assert_eq!(both.merge(b), both, "to hear twice makes a difference");
    let all = agreed([both.merge(c), b.merge(c).merge(a), c.merge(a).merge(b)]);
    // What was there before everything has no event of its own, and yields to any other of its kind.
    let events = entries.iter().flat_map(Entry::siblings);
    for (_, version) in events.filter(|(dot, _)| dot.counter > 0) {
        let superseded = entries.iter().any(|e| {
            let dots = entries.iter().flat_map(Entry::siblings);
            let mine = dots.filter(|(_, v)| v == version).map(|(d, _)| *d);
            // Where a dot was used twice, or nobody gives way, it goes on under another.
            let mut mine = mine.flat_map(|d| [d, conflict::reused_dot(d, version)]);
            mine.any(|d| e.ctx().covers(d) && e.get(d).is_none())
        });
        let kept = all.siblings().iter().any(|(_, v)| v.same_content(version));
        assert!(
            kept || superseded,
            "a version is gone: {version:?} of {entries:#?}"
        );
    }
    format!(
        "{} siblings, {:?}",
        all.siblings().len().min(5),
        a.relation(b)
    )
}

/// What all know when everybody has told everybody a few times.
fn agreed(mut know: [Entry; 3]) -> Entry {
    for _ in 0..4 {
        let [a, b, c] = &know;
        if a == b && b == c {
            return know[0].clone();
        }
        know = [
            a.merge(b).merge(c),
            b.merge(c).merge(a),
            c.merge(a).merge(b),
        ];
    }
    panic!("they never agree: {know:#?}");
}

const POLICIES: [fn() -> ConflictPolicy; 4] = [
    || ConflictPolicy::Newest,
    || ConflictPolicy::KeepBoth,
    || ConflictPolicy::Prefer([ActorId([1; 8])].into()),
    || ConflictPolicy::Manual,
];

/// Rows of one path on three replicas, whatever they say: what they show, and what is to be done.
pub(super) fn plan(bytes: &[u8]) -> String {
    let mut feed = Feed::new(bytes);
    let policies = Policies(BTreeMap::from([(0, POLICIES[feed.below(4)]())]));
    let path = feed.path();
    let rows: Vec<Row> = (0..3).map(|_| feed.row()).collect();
    let how = feed.number(2);
    let roles = [Role::Both, Role::Both, Role::Source, Role::Target];
    let side = |(i, row)| Side {
        row: Some(row),
        role: roles[usize::from(how >> (2 * i) & 3 == 3) * 3],
        writable: how >> 6 & 1 == 0,
        modes: how >> 7 & 1 == 0,
        covered: how >> 8 & 1 == 1,
        carried: Carried::default(),
    };
    let sides: Vec<Side<'_>> = rows.iter().enumerate().map(side).collect();
    let decision = reconcile(&path, &sides, &feed.entry(), how >> 9 & 1 == 1, &policies);
    let known = &decision.entry;
    for dot in decision.view.dot().iter().chain(&decision.view.losers) {
        assert!(
            known.get(*dot).is_some(),
            "{dot:?} is shown, and nobody knows it"
        );
    }
    for action in &decision.actions {
        assert!(action.replica < sides.len() && action.path == path);
        assert!(
            sides[action.replica].writable,
            "an action where nothing can be written"
        );
    }
    let mut actions = decision.actions.clone();
    reconcile::order(&mut actions);
    assert_eq!(actions.len(), decision.actions.len());
    let _homes = reconcile::home(&path, known, &policies);
    let _moved = reconcile::moved_out(&path, &feed.path(), known, &policies);
    assert_eq!(view(known, &policies), view_above(known, false, &policies));
    format!(
        "{:?}, {} actions, {} blocked",
        std::mem::discriminant(&decision.view.shown),
        decision.actions.len(),
        decision.blocked.len()
    )
}

/// Bytes of a name and of a path.
pub(super) fn path(bytes: &[u8]) -> String {
    let name = Name::new(bytes);
    let path = match RelPath::new(bytes) {
        Ok(path) => path,
        Err(e) => {
            assert!(name.is_err(), "a name that is no path");
            return format!("{e:?}");
        }
    };
    assert_eq!(path.as_bytes(), bytes);
    assert_eq!(
        RelPath::from_peer(bytes) == Err(NameError::Reserved),
        path.is_reserved()
    );
    let components: Vec<&[u8]> = path.components().map(Name::as_bytes).collect();
    assert_eq!(components.join(&b'/'), bytes);
    assert_eq!(components.len(), path.depth());
    assert!(components.iter().all(|c| Name::new(c).is_ok()));
    assert_eq!(name.is_ok(), components.len() == 1);
    if let Some((dir, last)) = path.split() {
        assert_eq!(dir.join(last), path);
        assert!(path.is_within(&dir) && !dir.is_within(&path));
        assert_eq!(
            path.rebase(&dir, &RelPath::root()).map(|p| p.depth()),
            Some(1)
        );
    }
    super::assert_harmless(&path.to_string());
    assert_eq!(path.to_string(), path.clone().to_string());
    format!(
        "depth {}, reserved {}",
        path.depth().min(3),
        path.is_reserved()
    )
}

/// Text of identities and of events.
pub(super) fn identity(bytes: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return "no text".into();
    };
    let mut read = Vec::new();
    if let Ok(id) = text.parse::<ReplicaId>() {
        assert_eq!(id.to_string(), text.to_lowercase());
        read.push("replica");
    }
    if let Ok(id) = text.parse::<ContentId>() {
        assert_eq!(id.to_string(), text.to_lowercase());
        read.push("content");
    }
    if let Ok(dot) = text.parse::<Dot>() {
        assert_eq!(dot.to_string().parse(), Ok(dot));
        read.push("event");
    }
    read.join(", ")
}

/// The name of a loser beside its path: a name, in the same directory, that does not grow.
pub(super) fn conflict_name(bytes: &[u8]) -> String {
    let mut feed = Feed::new(bytes);
    let (dot, version) = (feed.dot(), feed.version());
    let Ok(path) = RelPath::new(feed.rest()) else {
        return "no path".into();
    };
    let Some(copy) = conflict::copy_path(&path, dot, &version) else {
        return "no copy".into();
    };
    assert_eq!(copy.parent(), path.parent());
    assert!(RelPath::new(copy.as_bytes()).is_ok());
    let again = conflict::copy_path(&copy, dot, &version).expect("a copy has a name");
    // A name that was cut may be cut elsewhere the second time; it never grows.
    assert!(again.as_bytes().len() <= copy.as_bytes().len());
    let derived = conflict::derived_dot(dot);
    assert_ne!(derived, conflict::end_dot(dot, &copy));
    format!("{} bytes", copy.as_bytes().len() / 64)
}

/// Where a link points, read without looking.
pub(super) fn link(bytes: &[u8]) -> String {
    let mut feed = Feed::new(bytes);
    let (path, target) = (feed.path(), feed.rest());
    if path.is_root() {
        return "the root is no link".into();
    }
    let is_safe = is_safe_link(&path, target);
    // Slowly: a stack of names, which a link from inside may never empty.
    let mut stack: Vec<&[u8]> = path.components().map(Name::as_bytes).collect();
    stack.pop();
    let mut leaves = false;
    for part in target.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => leaves |= stack.pop().is_none(),
            name => stack.push(name),
        }
    }
    let slow = !target.is_empty() && target[0] != b'/' && !leaves;
    assert_eq!(is_safe, slow, "{path} to {}", target.escape_ascii());
    format!("safe {is_safe}")
}

/// Which files belong together, by their names alone.
pub(super) fn group(bytes: &[u8]) -> String {
    let Ok(path) = RelPath::new(bytes) else {
        return "no path".into();
    };
    let database = group::database(&path);
    if let Some(database) = &database {
        assert!(group::companions(database).any(|c| c == path));
        assert!(group::members(database).contains(&path));
    }
    let git = group::git_dir(&path);
    if let Some(git) = &git {
        assert!(path.is_within(git));
        let _object = group::is_git_object(git, &path);
    }
    format!("database {}, git {}", database.is_some(), git.is_some())
}

/// Times that no clock shows.
pub(super) fn time(bytes: &[u8]) -> String {
    let mut feed = Feed::new(bytes);
    let (mtime, last, wall, remote) =
        (feed.mtime(), feed.instant(), feed.instant(), feed.instant());
    let te = time::effective_time(mtime, last);
    assert!(
        te <= last,
        "a version is not newer than the clock that minted it"
    );
    assert!(time::tick(last, wall) >= last);
    assert!(time::adopt(last, remote, wall) >= last);
    let back = time::Mtime::from_nanos(last).nanos_since_epoch();
    assert!(back.is_none_or(|ns| ns == last));
    let (_, month, day) = conflict::civil(last / 86_400_000_000_000);
    assert!((1..=12).contains(&month) && (1..=31).contains(&day));
    format!("{}", te == last)
}

/// Entries to begin with.
pub(super) fn entry_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for n in 0..12_u8 {
        let script: Vec<u8> = (0..120)
            .map(|i: u8| i.wrapping_mul(31).wrapping_add(n * 7))
            .collect();
        let mut feed = Feed::new(&script);
        let entry = feed.entry();
        let mut out = Vec::new();
        codec::put_entry(&mut out, &entry);
        seeds.push(out);
    }
    seeds.dedup();
    seeds
}

/// Attributes and versions to begin with.
pub(super) fn attributes_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for n in 0..6_u8 {
        let script: Vec<u8> = (0..90).map(|i: u8| i.wrapping_mul(n + 1)).collect();
        let mut out = vec![n & 1];
        let mut feed = Feed::new(&script);
        if n & 1 == 0 {
            codec::put_attributes(&mut out, &feed.attributes());
        } else {
            codec::put_version(&mut out, &feed.version());
        }
        seeds.push(out);
    }
    seeds
}

/// Bytes of every kind, for targets that take values out of them.
pub(super) fn any_seeds() -> Vec<Vec<u8>> {
    let one = |n: u8| {
        (0..160)
            .map(|i: u8| i.wrapping_mul(n).wrapping_add(n >> 1))
            .collect()
    };
    (0..10).map(|n| one(n * 13 + 1)).collect()
}

/// Paths and targets of links to begin with.
pub(super) fn path_seeds() -> Vec<Vec<u8>> {
    let texts: [&[u8]; 9] = [
        b"a",
        b"d/a.txt",
        b".instep/x",
        b"d//a",
        b"../a",
        b"a.conflict-20240301-aabbcc-ababab.txt",
        b"x/.git/objects/ab/cd",
        b"app.db-wal",
        "d/\u{202e}txt.\u{1b}[2J\u{9b}\u{61c}".as_bytes(),
    ];
    texts.into_iter().map(<[u8]>::to_vec).collect()
}

/// Identities to begin with.
pub(super) fn identity_seeds() -> Vec<Vec<u8>> {
    let dot = Dot {
        actor: ActorId([7; 8]),
        counter: 12,
    };
    let texts = [
        ReplicaId([0xab; 16]).to_string(),
        ContentId([1; 32]).to_string(),
        dot.to_string(),
        format!("{}:{}", dot.actor, u64::MAX),
    ];
    texts.into_iter().map(String::into_bytes).collect()
}
