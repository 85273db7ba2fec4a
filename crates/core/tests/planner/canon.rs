//! When two states are one state: what nothing can tell apart is made equal, and what is left is hashed.
//!
//! Clocks count by their order, counters by theirs at each path. Where a view has called something into
//! being, its dot follows from a counter, and then counters are what they are.

use std::collections::{BTreeMap, BTreeSet};

use instep_core::id::{ActorId, ContentId, Dot};
use instep_core::path::RelPath;
use instep_core::plan::Keep;
use instep_core::version::Version;

use crate::world::{Event, World};

/// Makes what nothing can tell apart equal.
struct Canon<'a> {
    times: Vec<i64>,
    counters: Option<BTreeMap<(&'a RelPath, ActorId), Vec<u64>>>,
    hash: [u64; 2],
}

impl<'a> Canon<'a> {
    /// Folded multiplication, as in wyhash (Wang Yi), twice.
    fn put(&mut self, value: u64) {
        const WITH: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93];
        for (hash, with) in self.hash.iter_mut().zip(WITH) {
            let wide = u128::from((*hash ^ value).wrapping_add(with)) * u128::from(with);
            *hash = (wide >> 64) as u64 ^ wide as u64;
        }
    }

    fn path(&mut self, path: &RelPath) {
        for piece in path.as_bytes().chunks(8) {
            self.put(piece.iter().fold(1, |word, b| word << 8 | u64::from(*b)));
        }
    }

    /// Contents here are one byte again and again.
    fn content(&mut self, content: ContentId) {
        self.put(u64::from(content.0[0]));
    }

    fn time(&mut self, at: i64) {
        let rank = self.times.binary_search(&at).unwrap();
        self.put(rank as u64);
    }

    fn dot(&mut self, path: &'a RelPath, dot: Dot) {
        let counter = match &self.counters {
            Some(of) => of[&(path, dot.actor)].binary_search(&dot.counter).unwrap() as u64,
            None => dot.counter,
        };
        self.put(u64::from_be_bytes(dot.actor.0));
        self.put(counter);
    }

    fn version(&mut self, v: &Version) {
        self.put(v.kind as u64 | u64::from(v.mode) << 8 | u64::from(v.meta_only) << 32);
        self.content(v.content);
        self.put(v.prev.len() as u64);
        v.prev.iter().for_each(|c| self.content(*c));
        self.time(v.te);
        self.time(v.mode_te);
        self.time(v.mtime.secs);
    }
}

fn is_own(world: &World, actor: ActorId) -> bool {
    world.replicas.iter().any(|r| r.actor == actor)
}

/// The events that nobody has seen who wrote there later, and those that views called into being.
pub(crate) fn telling(world: &World) -> Vec<(&Event, bool)> {
    let seen = |e: &Event| {
        let mut others = world.log.iter().filter(|o| o.path == e.path);
        others.any(|o| o.seen.contains(&e.dot))
    };
    let all = world.log.iter().map(|e| (e.as_ref(), seen(e)));
    all.filter(|(e, seen)| !seen || !is_own(world, e.dot.actor))
        .collect()
}

/// A state, as far as it can make a difference.
pub(crate) fn key(world: &World) -> u128 {
    let mut times = vec![0];
    let mut counters: BTreeMap<(&RelPath, ActorId), Vec<u64>> = BTreeMap::new();
    let mut is_plain = true;
    let of_version = |v: &Version| [v.te, v.mode_te, v.mtime.secs];
    let events = telling(world);
    for r in &world.replicas {
        for (path, row) in &r.rows {
            times.extend(row.entry.siblings().iter().flat_map(|(_, v)| of_version(v)));
            for dot in row.entry.ctx().iter() {
                is_plain &= is_own(world, dot.actor);
                counters
                    .entry((path, dot.actor))
                    .or_default()
                    .push(dot.counter);
            }
            for (dot, _) in row.entry.siblings() {
                counters
                    .entry((path, dot.actor))
                    .or_default()
                    .push(dot.counter);
            }
        }
        for (path, dots) in &r.known {
            for dot in dots {
                counters
                    .entry((path, dot.actor))
                    .or_default()
                    .push(dot.counter);
            }
        }
        times.extend(r.disk.values().map(|o| o.mtime.secs));
    }
    for (e, _) in &events {
        times.extend(of_version(&e.version));
        counters
            .entry((&e.path, e.dot.actor))
            .or_default()
            .push(e.dot.counter);
    }
    times.sort_unstable();
    times.dedup();
    counters.values_mut().for_each(|c| {
        c.sort_unstable();
        c.dedup();
    });
    let mut canon = Canon {
        times,
        // A dot that was derived from another says which; then counters are what they are.
        counters: is_plain.then_some(counters),
        hash: [1, 2],
    };
    for r in &world.replicas {
        canon.put(if is_plain { 0 } else { r.counter() });
        for (path, row) in &r.rows {
            canon.path(path);
            canon.put(row.print.map_or(1 << 16, |p| u64::from(p.mode)));
            canon.put(row.entry.ctx().iter().len() as u64);
            row.entry.ctx().iter().for_each(|d| canon.dot(path, d));
            canon.put(row.entry.siblings().len() as u64);
            for (dot, v) in row.entry.siblings() {
                canon.dot(path, *dot);
                canon.version(v);
            }
            canon.put(u64::from(row.shown.is_some()));
            if let Some(dot) = row.shown {
                canon.dot(path, dot);
            }
        }
        canon.put(r.disk.len() as u64);
        for (path, o) in &r.disk {
            canon.path(path);
            canon.put(o.kind as u64 | u64::from(o.print.mode) << 8);
            canon.content(o.content);
            canon.time(o.mtime.secs);
        }
        for (path, dots) in &r.known {
            canon.path(path);
            canon.put(dots.len() as u64);
            dots.iter().for_each(|d| canon.dot(path, *d));
        }
    }
    let mut events = events;
    events.sort_by_key(|(e, _)| (&e.path, e.dot));
    for (e, is_seen) in events {
        canon.path(&e.path);
        canon.put(u64::from(is_seen));
        canon.dot(&e.path, e.dot);
        canon.version(&e.version);
    }
    for (content, is_loser) in kept(world) {
        canon.content(content);
        canon.put(u64::from(is_loser));
    }
    u128::from(canon.hash[0]) << 64 | u128::from(canon.hash[1])
}

/// What was displaced anywhere, and whether as a loser.
pub(crate) fn kept(world: &World) -> BTreeSet<(ContentId, bool)> {
    let all = world.replicas.iter().flat_map(|r| &r.kept);
    all.map(|k| (k.content, matches!(k.keep, Keep::Version(_))))
        .collect()
}
