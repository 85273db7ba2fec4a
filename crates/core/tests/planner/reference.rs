//! The decision tables once more, written from their text alone, slowly: events with all that their authors
//! had seen as plain sets, every path compared with every other, again and again until nothing is new.

use std::collections::{BTreeMap, BTreeSet};

use instep_core::conflict;
use instep_core::id::{ActorId, ContentId, Dot};
use instep_core::path::RelPath;
use instep_core::version::Kind;

use crate::world::Event;

/// What everybody must show, and which versions with content are not at their path.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) tree: BTreeMap<RelPath, (Kind, ContentId)>,
    pub(crate) losers: BTreeSet<(RelPath, ContentId)>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) prefer: Option<ActorId>,
    pub(crate) keep_both: bool,
}

struct Choice<'a> {
    winner: &'a Event,
    losers: Vec<&'a Event>,
    /// A preferred replica's own version.
    is_preferred: bool,
}

pub(crate) fn outcome(events: &[Event], rules: Rules) -> Outcome {
    let mut events = events.to_vec();
    loop {
        let new = called_into_being(&events, rules);
        if new.is_empty() {
            return shown(&events, rules);
        }
        events.extend(new);
    }
}

fn paths(events: &[Event]) -> BTreeSet<&RelPath> {
    events.iter().map(|e| &e.path).collect()
}

fn is_content(e: &Event) -> bool {
    matches!(e.version.kind, Kind::File | Kind::Link)
}

fn is_tomb(e: &Event) -> bool {
    e.version.kind == Kind::Tomb
}

fn what(e: &Event) -> (Kind, ContentId) {
    (e.version.kind, e.version.content)
}

/// The order of concurrent versions: time, content, event.
fn k(e: &Event) -> (i64, ContentId, Dot) {
    (e.version.te, e.version.content, e.dot)
}

/// The events at a path that nobody has seen who wrote there later.
fn live<'a>(events: &'a [Event], path: &RelPath) -> Vec<&'a Event> {
    let here: Vec<&Event> = events.iter().filter(|e| e.path == *path).collect();
    let is_seen = |e: &&Event| here.iter().any(|o| o.seen.contains(&e.dot));
    here.iter().copied().filter(|e| !is_seen(e)).collect()
}

/// Whether an event changed only metadata of what a concurrent one deleted or edited.
fn gives_way(e: &Event, to: &Event) -> bool {
    let (mine, theirs) = (&e.version, &to.version);
    let is_older = theirs.prev.contains(&mine.content) && !mine.prev.contains(&theirs.content);
    let is_same = theirs.content == mine.content;
    let gives_way = if is_tomb(to) {
        !is_tomb(e) && (is_same || is_older)
    } else {
        !is_same && is_older
    };
    mine.meta_only && gives_way
}

/// Table C.
fn choose<'a>(events: &'a [Event], path: &RelPath, rules: Rules) -> Choice<'a> {
    let all = live(events, path);
    let mut left: Vec<&Event> = all.clone();
    left.retain(|e| !all.iter().any(|o| gives_way(e, o)));
    if left.is_empty() {
        left = all;
    }
    let own = left
        .iter()
        .copied()
        .filter(|e| Some(e.dot.actor) == rules.prefer);
    let preferred = own.max_by_key(|e| k(e));
    if !preferred.is_some_and(is_tomb) && left.iter().any(|e| !is_tomb(e)) {
        left.retain(|e| !is_tomb(e));
    }
    let dir = left
        .iter()
        .copied()
        .filter(|e| e.version.kind == Kind::Dir)
        .max_by_key(|e| k(e));
    let newest = left.iter().copied().max_by_key(|e| k(e)).unwrap();
    let winner = preferred.or(dir).unwrap_or(newest);
    // Of equal versions it makes no difference which is shown, except for its time.
    let is_same = left.iter().all(|e| what(e) == what(newest));
    let winner = if is_same { newest } else { winner };
    let mut losers: BTreeMap<(Kind, ContentId), &Event> = BTreeMap::new();
    for e in left
        .iter()
        .filter(|e| is_content(e) && what(e) != what(winner))
    {
        let last = losers.entry(what(e)).or_insert(e);
        *last = if last.dot < e.dot { e } else { last };
    }
    Choice {
        winner,
        losers: losers.into_values().collect(),
        is_preferred: Some(winner.dot.actor) == rules.prefer,
    }
}

/// Table D: something is at a path below.
fn is_alive_below(events: &[Event], dir: &RelPath, rules: Rules) -> bool {
    let below = paths(events)
        .into_iter()
        .filter(|p| *p != dir && p.is_within(dir));
    below
        .into_iter()
        .any(|p| !is_tomb(choose(events, p, rules).winner))
}

/// Entries that must exist because of what is known, and do not yet.
fn called_into_being(events: &[Event], rules: Rules) -> Vec<Event> {
    let mut new = Vec::new();
    for path in paths(events) {
        let choice = choose(events, path, rules);
        let stands = is_content(choice.winner) && is_alive_below(events, path, rules);
        if stands && choice.is_preferred {
            make_room(events, path, rules, &mut new);
            continue;
        }
        if choice.winner.version.kind == Kind::Dir || rules.keep_both || stands {
            let lost = choice.losers.iter().copied();
            let lost = lost.chain(Some(choice.winner).filter(|_| stands));
            new.extend(lost.filter_map(|e| copy(e, name_beside(path, e))));
        }
        if is_content(choice.winner) && !stands {
            let here = live(events, path).into_iter();
            let dirs = here.filter(|e| e.version.kind == Kind::Dir);
            let dir = dirs.max_by_key(|e| (e.version.te, e.dot));
            let room = conflict::room_path(path).unwrap();
            new.extend(dir.map(|d| moved(d, room)));
        }
    }
    let is_known = |e: &Event| events.iter().any(|o| (&o.path, o.dot) == (&e.path, e.dot));
    new.retain(|e| !is_known(e));
    new
}

fn name_beside(path: &RelPath, e: &Event) -> Option<RelPath> {
    conflict::copy_path(path, e.dot, &e.version)
}

fn copy(e: &Event, path: Option<RelPath>) -> Option<Event> {
    path.map(|path| Event {
        dot: conflict::derived_dot(e.dot),
        path,
        version: conflict::copy_version(&e.version),
        seen: BTreeSet::new(),
    })
}

fn moved(e: &Event, path: RelPath) -> Event {
    Event {
        dot: conflict::moved_dot(e.dot, &path),
        path,
        version: conflict::copy_version(&e.version),
        seen: BTreeSet::new(),
    }
}

/// X's file keeps the name: what is alive below goes to a directory beside it.
fn make_room(events: &[Event], top: &RelPath, rules: Rules, new: &mut Vec<Event>) {
    let home = conflict::room_path(top).unwrap();
    for path in paths(events)
        .into_iter()
        .filter(|p| *p != top && p.is_within(top))
    {
        let choice = choose(events, path, rules);
        if is_tomb(choice.winner) {
            continue;
        }
        let to = path.rebase(top, &home).unwrap();
        let seen: BTreeSet<Dot> = events
            .iter()
            .filter(|o| o.path == *path)
            .map(|o| o.dot)
            .collect();
        // What lost loses there again, unless it is an entry of its own beside the winner.
        let is_beside = choice.winner.version.kind == Kind::Dir || rules.keep_both;
        let losers = choice.losers.iter().filter(|_| !is_beside);
        for e in losers.copied().chain([choice.winner]) {
            new.push(Event {
                dot: conflict::end_dot(e.dot, &to),
                path: path.clone(),
                version: conflict::end_version(&e.version, &to),
                seen: seen.clone(),
            });
            new.push(moved(e, to.clone()));
        }
    }
}

fn shown(events: &[Event], rules: Rules) -> Outcome {
    let mut out = Outcome::default();
    let mut lose = |e: &Event| out.losers.insert((e.path.clone(), e.version.content));
    let mut tree = BTreeMap::new();
    for path in paths(events) {
        let choice = choose(events, path, rules);
        choice.losers.iter().for_each(|e| {
            lose(e);
        });
        if is_alive_below(events, path, rules) {
            tree.insert(path.clone(), (Kind::Dir, ContentId::NONE));
            if is_content(choice.winner) {
                lose(choice.winner);
            }
        } else if !is_tomb(choice.winner) {
            tree.insert(path.clone(), what(choice.winner));
        }
    }
    // Directories of which nothing is known stand for what is in them.
    for path in tree.keys().cloned().collect::<Vec<_>>() {
        let mut dir = path.parent().filter(|d| !d.is_root());
        while let Some(d) = dir {
            dir = d.parent().filter(|d| !d.is_root());
            tree.entry(d).or_insert((Kind::Dir, ContentId::NONE));
        }
    }
    Outcome { tree, ..out }
}
