//! The algebra of entries, against a model that remembers every event and what its author had seen; and
//! the byte form, against bytes from anyone.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::mem::size_of;

use instep_core::attributes::{Account, Owner, Sayings, Xattrs};
use instep_core::codec::{DecodeError, Reader, entry as decode, put_entry, put_u64};
use instep_core::entry::{Context, Entry, Relation};
use instep_core::id::{ActorId, ContentId, Dot};
use instep_core::limits;
use instep_core::path::RelPath;
use instep_core::time::Mtime;
use instep_core::version::{Kind, Version};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

fn file(content: u64) -> Version {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&content.to_le_bytes());
    Version {
        content: ContentId(id),
        size: 1,
        mode: 0o644,
        te: content as i64,
        mode_te: content as i64,
        ..Version::bare(Kind::File)
    }
}

// --- histories

#[derive(Debug, Clone)]
enum Op {
    /// A replica changes the path, seeing everything that it knows.
    Record(usize),
    /// A replica changes the path, seeing what it knew at some earlier moment, or nothing.
    Beside(usize, Option<Index>),
    /// One replica hears from another, perhaps an old message.
    Hear(usize, usize, Index),
}

fn any_op() -> impl Strategy<Value = Op> {
    let replica = || 0..4_usize;
    prop_oneof![
        replica().prop_map(Op::Record),
        (replica(), any::<Option<Index>>()).prop_map(|(r, at)| Op::Beside(r, at)),
        (replica(), replica(), any::<Index>()).prop_map(|(to, from, at)| Op::Hear(to, from, at)),
    ]
}

/// What a replica knows, twice: as an entry, and as the plain set of events.
#[derive(Debug, Clone, Default)]
struct State {
    entry: Entry,
    known: BTreeSet<Dot>,
}

#[derive(Debug, Default)]
struct History {
    /// For each event, what its author had seen.
    seen: BTreeMap<Dot, BTreeSet<Dot>>,
    /// For each replica, every state that it was in; the last is the present one.
    states: [Vec<State>; 4],
}

impl History {
    fn run(ops: &[Op]) -> Self {
        let mut history = Self::default();
        history
            .states
            .iter_mut()
            .for_each(|s| s.push(State::default()));
        for op in ops {
            history.step(op);
        }
        history
    }

    fn step(&mut self, op: &Op) {
        let now = |states: &[State]| states[states.len() - 1].clone();
        let counter = self.seen.len() as u64 + 1;
        let (replica, next) = match op {
            Op::Record(r) => {
                let State { entry, mut known } = now(&self.states[*r]);
                let dot = Dot {
                    actor: ActorId([*r as u8; 8]),
                    counter,
                };
                self.seen.insert(dot, known.clone());
                known.insert(dot);
                (
                    *r,
                    State {
                        entry: entry.record(dot, file(counter)),
                        known,
                    },
                )
            }
            Op::Beside(r, at) => {
                let State { entry, mut known } = now(&self.states[*r]);
                let old = at.map_or_else(State::default, |at| at.get(&self.states[*r]).clone());
                let dot = Dot {
                    actor: ActorId([*r as u8; 8]),
                    counter,
                };
                self.seen.insert(dot, old.known);
                known.insert(dot);
                (
                    *r,
                    State {
                        entry: entry.record_beside(old.entry.ctx(), dot, file(counter)),
                        known,
                    },
                )
            }
            Op::Hear(to, from, at) => {
                let State { entry, mut known } = now(&self.states[*to]);
                let heard = at.get(&self.states[*from]).clone();
                known.extend(heard.known);
                (
                    *to,
                    State {
                        entry: entry.merge(&heard.entry),
                        known,
                    },
                )
            }
        };
        self.states[replica].push(next);
    }

    /// The events that nobody who is known had seen when changing the path.
    fn alive(&self, known: &BTreeSet<Dot>) -> Vec<Dot> {
        let superseded = |d: &Dot| known.iter().any(|k| self.seen[k].contains(d));
        known.iter().copied().filter(|d| !superseded(d)).collect()
    }

    fn all(&self) -> Vec<&State> {
        self.states.iter().flatten().collect()
    }
}

fn dots(entry: &Entry) -> Vec<Dot> {
    entry.siblings().iter().map(|(d, _)| *d).collect()
}

fn encoded(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::new();
    put_entry(&mut out, entry);
    out
}

fn decoded(bytes: &[u8]) -> Result<Entry, DecodeError> {
    let mut r = Reader::new(bytes);
    let entry = decode(&mut r)?;
    r.finish().map(|()| entry)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Neither lost nor resurrected: the siblings are exactly the events that no known event had seen.
    #[test]
    fn siblings_are_the_events_that_nothing_superseded(ops in vec(any_op(), 1..30)) {
        let history = History::run(&ops);
        for state in history.all() {
            prop_assert_eq!(dots(&state.entry), history.alive(&state.known));
            for d in &state.known {
                prop_assert!(state.entry.ctx().covers(*d));
            }
        }
    }

    #[test]
    fn merging_is_associative_commutative_and_idempotent(
        ops in vec(any_op(), 1..30), a: Index, b: Index, c: Index,
    ) {
        let history = History::run(&ops);
        let all = history.all();
        let [a, b, c] = [a, b, c].map(|i| &i.get(&all).entry);
        prop_assert_eq!(a.merge(b), b.merge(a));
        prop_assert_eq!(a.merge(b).merge(c), a.merge(&b.merge(c)));
        prop_assert_eq!(&a.merge(a), a);
        let ab = a.merge(b);
        prop_assert_eq!(&ab.merge(b), &ab);
        prop_assert_eq!(ab.is_empty(), a.is_empty() && b.is_empty());
    }

    #[test]
    fn relations_say_who_knows_more(ops in vec(any_op(), 1..30), a: Index, b: Index) {
        let history = History::run(&ops);
        let all = history.all();
        let [a, b] = [a, b].map(|i| *i.get(&all));
        let want = match (a.known.is_superset(&b.known), b.known.is_superset(&a.known)) {
            (true, true) => Relation::Equal,
            (true, false) => Relation::After,
            (false, true) => Relation::Before,
            (false, false) => Relation::Concurrent,
        };
        prop_assert_eq!(a.entry.relation(&b.entry), want);
    }

    #[test]
    fn a_record_supersedes_everything_its_author_knew(ops in vec(any_op(), 1..30), at: Index) {
        let history = History::run(&ops);
        let before = &at.get(&history.all()).entry;
        let dot = Dot { actor: ActorId([9; 8]), counter: 1 };
        let after = before.record(dot, file(0));
        prop_assert_eq!(dots(&after), [dot]);
        prop_assert_eq!(after.relation(before), Relation::After);
        prop_assert_eq!(after.merge(before), after);
    }

    #[test]
    fn a_change_beside_is_concurrent_with_all_that_was_not_seen(ops in vec(any_op(), 1..30), at: Index) {
        let history = History::run(&ops);
        let before = &at.get(&history.all()).entry;
        let dot = Dot { actor: ActorId([0; 8]), counter: 1_000 };
        let beside = before.record_beside(&Context::default(), dot, file(0));
        let mut want = dots(before);
        want.push(dot);
        want.sort();
        prop_assert_eq!(dots(&beside), want);
        let seen = before.record_beside(before.ctx(), dot, file(0));
        prop_assert_eq!(&seen, &before.record(dot, file(0)));
        // What was put over it is there, whatever its maker had seen.
        for put in dots(before) {
            let beneath = before.record_beneath(Some(put), before.ctx(), dot, file(0));
            let mut both = vec![put, dot];
            both.sort();
            prop_assert_eq!(dots(&beneath), both);
        }
        prop_assert_eq!(&before.record_beneath(None, before.ctx(), dot, file(0)), &seen);
        // The same event once more changes nothing, also after it was superseded.
        prop_assert_eq!(&beside.record_beside(&Context::default(), dot, file(0)), &beside);
        let gone = beside.record(Dot { actor: ActorId([9; 8]), counter: 1 }, file(1));
        prop_assert_eq!(&gone.record_beside(&Context::default(), dot, file(0)), &gone);
    }

    #[test]
    fn everything_that_a_history_makes_survives_its_bytes(ops in vec(any_op(), 1..30)) {
        for state in History::run(&ops).all() {
            let bytes = encoded(&state.entry);
            prop_assert_eq!(&decoded(&bytes).unwrap(), &state.entry);
        }
    }
}

// --- entries and bytes from anyone

fn any_dot() -> impl Strategy<Value = Dot> {
    (0..4_u8, prop_oneof![1..6_u64, 1..=u64::MAX]).prop_map(|(actor, counter)| Dot {
        actor: ActorId([actor; 8]),
        counter,
    })
}

fn any_path() -> impl Strategy<Value = RelPath> {
    vec("[a-zA-Z. é]{0,8}x", 0..4).prop_map(|v| RelPath::new(v.join("/").as_bytes()).unwrap())
}

fn any_attributes() -> impl Strategy<Value = Sayings> {
    let account = || {
        (0..u32::MAX, "[a-z]{0,8}")
            .prop_map(|(id, name)| Account::new(id, name.as_bytes()).unwrap())
    };
    let owner = (account(), account()).prop_map(|(user, group)| Owner { user, group });
    let pairs = vec(("user\\.[a-z]{1,4}", vec(any::<u8>(), 0..9)), 0..4);
    let xattrs = pairs.prop_map(|pairs| {
        let boxed = |(name, value): (String, Vec<u8>)| (name.into_bytes().into(), value.into());
        Xattrs::new(pairs.into_iter().map(boxed).collect()).unwrap()
    });
    let owner = prop::option::of((any::<i64>(), owner));
    let xattrs = prop::option::of((any::<i64>(), xattrs));
    (owner, xattrs).prop_map(|(owner, xattrs)| Sayings { owner, xattrs })
}

fn any_version() -> impl Strategy<Value = Version> {
    let kind = prop::sample::select(vec![Kind::File, Kind::Dir, Kind::Link, Kind::Tomb]);
    let times = (
        any::<i64>(),
        0..1_000_000_000_u32,
        any::<i64>(),
        prop::option::of(any::<i64>()),
    );
    let content = any::<[u8; 32]>();
    let rest = (
        vec(any::<u8>(), 0..20),
        vec(any::<[u8; 32]>(), 0..=limits::PREVIOUS_MAX),
        prop::option::of(any_path()),
        any::<bool>(),
        prop_oneof![Just(0), any::<u32>()],
        prop::option::of(any_attributes()),
    );
    (kind, content, any::<u64>(), 0..=0o777_u16, times, rest).prop_map(
        |(kind, content, size, mode, (secs, nanos, te, mode_te), rest)| {
            let (target, prev, moved, meta_only, policy_epoch, attributes) = rest;
            Version {
                kind,
                content: if kind == Kind::Dir {
                    ContentId::NONE
                } else {
                    ContentId(content)
                },
                size: if kind == Kind::File { size } else { 0 },
                mode,
                mtime: Mtime { secs, nanos },
                te,
                mode_te: mode_te.unwrap_or(te),
                attributes: attributes.map(Box::new),
                target: target.into(),
                prev: prev.into_iter().map(ContentId).collect(),
                moved,
                meta_only,
                policy_epoch,
            }
        },
    )
}

/// Well-formed, but not necessarily from any honest history: contexts and dots as a hostile peer makes them.
fn any_entry() -> impl Strategy<Value = Entry> {
    (vec((any_dot(), any_version()), 0..5), vec(any_dot(), 0..6)).prop_map(|(siblings, ctx)| {
        let siblings: BTreeMap<Dot, Version> = siblings.into_iter().collect();
        if siblings.is_empty() {
            return Entry::default();
        }
        let ctx = ctx.into_iter().chain(siblings.keys().copied()).collect();
        Entry::from_parts(ctx, siblings.into_iter().collect()).unwrap()
    })
}

/// Bytes in memory, without what the allocator adds.
fn retained(entry: &Entry) -> usize {
    let of = |(_, v): &(Dot, Version)| {
        let moved = v.moved.as_ref().map_or(0, |p| p.as_bytes().len());
        let attributes = v.attributes.as_deref().map_or(0, |a| {
            let names = a.owner.iter().flat_map(|(_, o)| [&o.user, &o.group]);
            let xattrs = a.xattrs.iter().flat_map(|(_, x)| x.iter());
            size_of::<Sayings>()
                + names.map(|n| n.name().len()).sum::<usize>()
                + xattrs.map(|(n, v)| n.len() + v.len() + 32).sum::<usize>()
        });
        size_of::<(Dot, Version)>() + v.target.len() + 32 * v.prev.len() + moved + attributes
    };
    entry.siblings().iter().map(of).sum::<usize>() + entry.ctx().iter().len() * size_of::<Dot>()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_entry_survives_its_bytes(entry in any_entry()) {
        prop_assert_eq!(&decoded(&encoded(&entry)).unwrap(), &entry);
    }

    /// Forged entries may contradict each other, but never make a path unknown or unreadable, and two
    /// replicas that merge the same two agree.
    #[test]
    fn forged_entries_merge_to_something_that_can_be_stored(a in any_entry(), b in any_entry()) {
        let merged = a.merge(&b);
        prop_assert_eq!(&merged, &b.merge(&a));
        prop_assert_eq!(&merged.merge(&merged), &merged);
        // Whoever hears of one of them again learns nothing: otherwise two replicas would tell each other
        // the same for ever.
        prop_assert_eq!(&merged.merge(&a), &merged);
        prop_assert_eq!(&b.merge(&merged), &merged);
        prop_assert_eq!(merged.is_empty(), a.is_empty() && b.is_empty());
        prop_assert_eq!(&decoded(&encoded(&merged)).unwrap(), &merged);
    }

    #[test]
    fn bytes_from_anyone_do_no_harm(bytes in vec(any::<u8>(), 0..300)) {
        if let Ok(entry) = decoded(&bytes) {
            prop_assert_eq!(encoded(&entry), bytes);
        }
    }

    /// Damage one byte of something real: it is refused, or is what somebody could have encoded.
    #[test]
    fn there_is_one_byte_form_of_each_entry(entry in any_entry(), at: Index, to: u8, cut: bool) {
        let mut bytes = encoded(&entry);
        let i = at.index(bytes.len());
        if cut {
            bytes.truncate(i);
        } else {
            bytes[i] = to;
        }
        if let Ok(other) = decoded(&bytes) {
            prop_assert!(retained(&other) <= 64 * bytes.len());
            prop_assert_eq!(encoded(&other), bytes);
        }
    }
}

#[test]
fn counts_beyond_what_follows_are_refused_at_once() {
    let counted = |n: u64| {
        let mut bytes = vec![1];
        put_u64(&mut bytes, n);
        bytes
    };
    let siblings_max = 2 * limits::SIBLINGS_MAX as u64;
    assert_eq!(decoded(&counted(siblings_max)), Err(DecodeError::Short));
    assert_eq!(
        decoded(&counted(siblings_max + 1)),
        Err(DecodeError::TooBig)
    );
    assert_eq!(decoded(&counted(u64::MAX)), Err(DecodeError::TooBig));
    // A context alone: nothing is known, so there is nothing to have seen.
    let mut bytes = encoded(&Entry::default());
    assert_eq!(decoded(&bytes), Ok(Entry::default()));
    bytes.pop();
    put_u64(&mut bytes, 1);
    bytes.extend_from_slice(&[7; 8]);
    bytes.push(1);
    assert_eq!(decoded(&bytes), Err(DecodeError::Invalid));
}

/// A version as it was written before there were attributes, byte by byte.
fn plain_bytes() -> Vec<u8> {
    let mut bytes = vec![1, 1];
    bytes.extend_from_slice(&[7; 8]);
    bytes.push(3);
    // Flags, mode 0644, te 5, mtime 2 s.
    bytes.extend_from_slice(&[0, 0xa4, 0x03, 10, 4, 0]);
    bytes.extend_from_slice(&[9; 32]);
    // Size; no context beyond the sibling's own.
    bytes.extend_from_slice(&[8, 0]);
    bytes
}

#[test]
fn a_version_without_attributes_has_the_bytes_that_it_always_had() {
    let bytes = plain_bytes();
    let entry = decoded(&bytes).unwrap();
    let (_, version) = &entry.siblings()[0];
    assert_eq!((version.mode, version.size, version.te), (0o644, 8, 5));
    assert_eq!(version.attributes, None);
    assert_eq!(encoded(&entry), bytes);
}

#[test]
fn attributes_have_one_form_and_nothing_that_guards_the_system_is_read() {
    let mut bytes = plain_bytes();
    let context = bytes.pop().unwrap();
    bytes[13] |= 0x04;
    let at = bytes.len();
    bytes.extend_from_slice(b"\x03\x08\x21\x03www\x00\x00\x0a\x01\x06user.a\x01x");
    bytes.push(context);
    let entry = decoded(&bytes).unwrap();
    let attributes = entry.siblings()[0].1.attributes.as_deref().unwrap();
    let (since, owner) = attributes.owner.as_ref().unwrap();
    assert_eq!(*since, 4);
    assert_eq!((owner.user.id(), owner.user.name()), (33, &b"www"[..]));
    assert_eq!((owner.group.id(), owner.group.name()), (0, &b""[..]));
    let (since, xattrs) = attributes.xattrs.as_ref().unwrap();
    assert_eq!(*since, 5);
    assert_eq!(xattrs.get(b"user.a"), Some(&b"x"[..]));
    assert_eq!(encoded(&entry), bytes);
    let with = |bad: &[u8]| {
        let mut out = bytes[..at].to_vec();
        out.extend_from_slice(bad);
        out.push(0);
        decoded(&out)
    };
    for bad in [
        &b"\x02\x00\x01\x13security.capability\x00"[..],
        b"\x02\x00\x02\x06user.b\x00\x06user.a\x00",
        b"\x01\x00\xff\xff\xff\xff\x0f\x00\x00\x00",
        b"\x04",
    ] {
        assert_eq!(with(bad), Err(DecodeError::Invalid), "{bad:?}");
    }
}

#[test]
fn numbers_have_one_form() {
    let read = |bytes: &[u8]| Reader::new(bytes).u64();
    assert_eq!(read(&[0]), Ok(0));
    assert_eq!(read(&[0x80, 0]), Err(DecodeError::Invalid));
    assert_eq!(read(&[0xff, 0x7f]), Ok(0x3fff));
    assert_eq!(read(&[0xff; 10]), Err(DecodeError::Invalid));
    assert_eq!(read(&[0xff]), Err(DecodeError::Short));
    let mut max = vec![0xff; 9];
    max.push(1);
    assert_eq!(read(&max), Ok(u64::MAX));
}

#[test]
fn one_dot_with_two_contents_loses_one_or_is_resolved_differently() {
    let dot = Dot {
        actor: ActorId([1; 8]),
        counter: 1,
    };
    let (a, b) = (Entry::first(dot, file(1)), Entry::first(dot, file(2)));
    let both = a.merge(&b);
    assert_eq!(both, b.merge(&a));
    let contents: BTreeSet<_> = both.siblings().iter().map(|(_, v)| v.content).collect();
    assert_eq!(contents, [file(1).content, file(2).content].into());
    assert_eq!(both.get(dot), Some(&file(2)));
    // Who hears of either again learns nothing.
    assert_eq!(both.merge(&a), both);
    assert_eq!(b.merge(&both), both);
    let three = both.merge(&Entry::first(dot, file(3)));
    assert_eq!(three, a.merge(&b.merge(&Entry::first(dot, file(3)))));
    assert_eq!(three.siblings().len(), 3);
    // Metadata alone is no reason for an alarm.
    let touched = Entry::first(dot, Version { te: 9, ..file(1) });
    assert_eq!(a.merge(&touched), touched);
    // What was there before all events has no dot of its own.
    let before = |content| Entry::first(Dot::before(ActorId([1; 8])), file(content));
    assert_eq!(before(1).merge(&before(2)), before(2));
}
