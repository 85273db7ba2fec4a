//! What a replica knows about one path: a dotted sibling set with a causal context.
//!
//! Source: dotted version vector sets (Preguiça, Baquero, Almeida, Fonte, Gonçalves, 2012). Merging keeps
//! a sibling if the other side also has it or has never seen its dot, and joins the contexts.
//!
//! Invariants: siblings are sorted by dot, each dot is covered by the context, and an entry with an empty
//! context has no siblings (nothing was ever known).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::id::{ActorId, Dot};
use crate::version::Version;

/// For each actor, the highest counter seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Context(BTreeMap<ActorId, u64>);

impl Context {
    /// Whether the event is known.
    pub fn covers(&self, dot: Dot) -> bool {
        self.0.get(&dot.actor).is_some_and(|c| *c >= dot.counter)
    }

    /// Adds one event.
    pub fn add(&mut self, dot: Dot) {
        let c = self.0.entry(dot.actor).or_default();
        *c = (*c).max(dot.counter);
    }

    /// Adds everything that the other knows.
    pub fn join(&mut self, other: &Self) {
        for (actor, counter) in &other.0 {
            self.add(Dot {
                actor: *actor,
                counter: *counter,
            });
        }
    }

    /// Whether everything the other knows is known here.
    pub fn includes(&self, other: &Self) -> bool {
        other.0.iter().all(|(a, c)| {
            self.covers(Dot {
                actor: *a,
                counter: *c,
            })
        })
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Actors with their highest counters, in order of actor.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Dot> {
        self.0.iter().map(|(a, c)| Dot {
            actor: *a,
            counter: *c,
        })
    }
}

impl FromIterator<Dot> for Context {
    fn from_iter<T: IntoIterator<Item = Dot>>(dots: T) -> Self {
        let mut ctx = Self::default();
        dots.into_iter().for_each(|d| ctx.add(d));
        ctx
    }
}

/// How what one side knows relates to what the other knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// The same siblings and contexts.
    Equal,
    /// The other side has everything of this one, and more.
    Before,
    /// This side has everything of the other, and more.
    After,
    /// Each side has something that the other lacks.
    Concurrent,
}

/// What is known about one path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry {
    ctx: Context,
    siblings: Vec<(Dot, Version)>,
}

impl Entry {
    /// From parts, as decoded. `None` if they break the invariants.
    pub fn from_parts(mut ctx: Context, mut siblings: Vec<(Dot, Version)>) -> Option<Self> {
        siblings.sort_by_key(|(d, _)| *d);
        if siblings.windows(2).any(|w| w[0].0 == w[1].0) || siblings.is_empty() != ctx.is_empty() {
            return None;
        }
        for (dot, _) in &siblings {
            ctx.add(*dot);
        }
        Some(Self { ctx, siblings })
    }

    /// A path on which exactly one event is known.
    pub fn first(dot: Dot, version: Version) -> Self {
        Self::default().record(dot, version)
    }

    /// What is known of other events.
    pub fn ctx(&self) -> &Context {
        &self.ctx
    }

    /// The live siblings, in order of dot. More than one means concurrent changes.
    pub fn siblings(&self) -> &[(Dot, Version)] {
        &self.siblings
    }

    /// The sibling with this dot.
    pub fn get(&self, dot: Dot) -> Option<&Version> {
        self.siblings
            .binary_search_by_key(&dot, |(d, _)| *d)
            .ok()
            .map(|i| &self.siblings[i].1)
    }

    /// The sibling that is on disk, if any is.
    pub fn get_shown(&self, shown: Option<Dot>) -> Option<&Version> {
        shown.and_then(|d| self.get(d))
    }

    /// Whether nothing was ever known here.
    pub fn is_empty(&self) -> bool {
        self.siblings.is_empty()
    }

    /// A user's change, made while seeing all siblings: supersedes every one of them.
    pub fn record(&self, dot: Dot, version: Version) -> Self {
        let mut ctx = self.ctx.clone();
        ctx.add(dot);
        Self {
            ctx,
            siblings: alloc::vec![(dot, version)],
        }
    }

    /// A change made while seeing only what `seen` covers: concurrent with every sibling it had not seen,
    /// also with those of its own actor. An event that is already known changes nothing.
    pub fn record_beside(&self, seen: &Context, dot: Dot, version: Version) -> Self {
        if self.ctx.covers(dot) {
            return self.clone();
        }
        let mut ctx = self.ctx.clone();
        ctx.join(seen);
        ctx.add(dot);
        // Not a merge with an entry of the new event alone: its context would claim, by the new dot's
        // counter, that every earlier event of the same actor had been seen.
        let mut siblings: Vec<_> = self
            .siblings
            .iter()
            .filter(|(d, _)| !seen.covers(*d))
            .cloned()
            .collect();
        siblings.push((dot, version));
        siblings.sort_by_key(|(d, _)| *d);
        Self { ctx, siblings }
    }

    /// What is on disk although more is known: a version that `later` supersedes, and whose own dot is forgotten. It
    /// stands only in the row of the replica that has it, and is gone from whatever that is merged into.
    pub fn with_ancestor(&self, later: Dot, version: Version) -> (Self, Dot) {
        let dot = Dot::before(later.actor);
        let mut entry = self.clone();
        entry.ctx.add(dot);
        entry.siblings.retain(|(d, _)| *d != dot);
        entry.siblings.push((dot, version));
        entry.siblings.sort_by_key(|(d, _)| *d);
        (entry, dot)
    }

    /// A user's change of what is shown: supersedes every sibling, but where an ancestor is shown nothing of what came
    /// after that was seen.
    pub fn record_over(&self, shown: Dot, dot: Dot, version: Version) -> Self {
        if shown.counter > 0 {
            return self.record(dot, version);
        }
        self.record_beside(&Context::from_iter([shown]), dot, version)
    }

    /// A change that was found beneath `put` when that took its place: made while seeing what `seen` covers,
    /// and never while seeing what was put, even if that had been seen before and is there once more.
    pub fn record_beneath(
        &self,
        put: Option<Dot>,
        seen: &Context,
        dot: Dot,
        version: Version,
    ) -> Self {
        let mut entry = self.record_beside(seen, dot, version);
        let stays = |(d, _): &&(Dot, Version)| Some(*d) == put && entry.get(*d).is_none();
        if let Some(there) = self.siblings.iter().find(stays).cloned() {
            entry.siblings.push(there);
            entry.siblings.sort_by_key(|(d, _)| *d);
        }
        entry
    }

    /// Everything that both know. Associative, commutative, idempotent.
    ///
    /// Two things cannot come from honest replicas, and are merged so that nothing is lost and all sides
    /// agree: one dot with two contents (the greater version counts, and the other becomes a sibling under a
    /// dot that all sides find alike), and two entries each of which claims to supersede all of the other
    /// (both stay, under dots that neither has seen: nobody supersedes them by hearing of them again).
    pub fn merge(&self, other: &Self) -> Self {
        if self == other {
            return self.clone();
        }
        if let Some(dot) = self.reused(other) {
            let (one, two) = self.told_apart(other, dot);
            return one.merge(&two);
        }
        let kept = |from: &Self, with: &Self| {
            from.siblings
                .iter()
                .filter(|(d, _)| with.get(*d).is_some() || !with.ctx.covers(*d))
                .cloned()
                .collect::<Vec<_>>()
        };
        let mut siblings = kept(self, other);
        siblings.extend(kept(other, self));
        let mut ctx = self.ctx.clone();
        ctx.join(&other.ctx);
        if siblings.is_empty() {
            let all = self.siblings.iter().chain(&other.siblings);
            siblings.extend(all.map(|(d, v)| (crate::conflict::reused_dot(*d, v), v.clone())));
            siblings.iter().for_each(|(d, _)| ctx.add(*d));
        }
        siblings.sort_by(|a, b| (a.0, &b.1).cmp(&(b.0, &a.1)));
        siblings.dedup_by_key(|(d, _)| *d);
        // What was there before everything of an actor is superseded by anything of that actor.
        siblings.retain(|(d, _)| d.counter > 0 || !ctx.covers(Dot { counter: 1, ..*d }));
        Self { ctx, siblings }
    }

    /// A dot under which both have something, but not the same. Counter zero is no event: what was there
    /// before everything has no dot of its own.
    pub fn reused(&self, other: &Self) -> Option<Dot> {
        let differs = |(d, v): &&(Dot, Version)| {
            d.counter > 0 && other.get(*d).is_some_and(|o| !o.same_content(v))
        };
        self.siblings.iter().find(differs).map(|(d, _)| *d)
    }

    /// Whether each claims to have superseded everything that the other has: no honest histories do.
    pub fn contradicts(&self, other: &Self) -> bool {
        let is_gone = |(d, _): &(Dot, Version), with: &Self| {
            d.counter > 0 && with.get(*d).is_none() && with.ctx.covers(*d)
        };
        !self.is_empty()
            && !other.is_empty()
            && self.siblings.iter().all(|s| is_gone(s, other))
            && other.siblings.iter().all(|s| is_gone(s, self))
    }

    /// Both, with the lesser of the two versions of one dot under another.
    fn told_apart(&self, other: &Self, dot: Dot) -> (Self, Self) {
        let (Some(mine), Some(theirs)) = (self.get(dot), other.get(dot)) else {
            return (self.clone(), other.clone());
        };
        let greater = mine.max(theirs).clone();
        let renamed = |entry: &Self, version: &Version| {
            let mut entry = entry.clone();
            if *version != greater {
                let apart = crate::conflict::reused_dot(dot, version);
                entry.ctx.add(apart);
                entry.siblings.retain(|(d, _)| *d != dot && *d != apart);
                entry.siblings.push((dot, greater.clone()));
                entry.siblings.push((apart, version.clone()));
                entry.siblings.sort_by_key(|(d, _)| *d);
            }
            entry
        };
        (renamed(self, mine), renamed(other, theirs))
    }

    /// How this relates to the other.
    pub fn relation(&self, other: &Self) -> Relation {
        if self == other {
            return Relation::Equal;
        }
        let merged = self.merge(other);
        match (merged == *self, merged == *other) {
            (true, _) => Relation::After,
            (_, true) => Relation::Before,
            _ => Relation::Concurrent,
        }
    }
}
