//! What a path shows: a pure function of its sibling set and the share's policies.
//!
//! Looking never mints a dot, so replicas that know the same siblings show the same thing without another
//! word. Order key: `K = (te, content id, dot)`; never the raw clock first by device, never a device id.

use alloc::vec::Vec;

use crate::entry::Entry;
use crate::id::Dot;
use crate::policy::{ConflictPolicy, Policies};
use crate::version::{Kind, Version};

/// What must be at the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// Nothing was ever known here.
    Unknown,
    /// This sibling (a tombstone means: nothing is at the path), with these permission bits.
    Version {
        /// Which sibling.
        dot: Dot,
        /// Its permission bits, unless a concurrent change of mode is newer.
        mode: u16,
    },
    /// A directory that stands only because something below it is alive; no sibling says so.
    Standing,
    /// A person must decide; every replica keeps showing what it shows.
    Frozen,
}

/// What a sibling set amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// What is at the path.
    pub shown: Shown,
    /// Siblings with content that is not at the path: kept in the version store and listed.
    pub losers: Vec<Dot>,
    /// Those of the losers that become entries beside the path.
    pub beside: Vec<Dot>,
}

impl View {
    /// The sibling at the path, if any.
    pub fn dot(&self) -> Option<Dot> {
        match self.shown {
            Shown::Version { dot, .. } => Some(dot),
            Shown::Unknown | Shown::Standing | Shown::Frozen => None,
        }
    }
}

/// The view of an entry, given whether anything below its path is alive: then the path is a directory, and
/// a file or link that would have the name is shown beside it. What is alive cannot be moved away on all
/// replicas at one instant. A file or link of a preferred replica waits until there is room for it; see
/// [`crate::reconcile::home`].
pub fn view_above(entry: &Entry, alive_below: bool, policies: &Policies) -> View {
    let mut view = view(entry, policies);
    if let Some(dot) = view.dot().filter(|_| alive_below)
        && entry.get(dot).is_some_and(has_content)
    {
        if is_preferred(entry, dot, policies) {
            view.shown = Shown::Frozen;
            view.beside.clear();
            return view;
        }
        view.shown = Shown::Standing;
        view.losers.insert(0, dot);
        view.beside.clone_from(&view.losers);
    }
    view
}

/// Whether a sibling is by a replica whose versions are preferred in a conflict at this path.
pub(crate) fn is_preferred(entry: &Entry, dot: Dot, policies: &Policies) -> bool {
    let policy = policies.at(epoch(entry.siblings()));
    matches!(policy, ConflictPolicy::Prefer(actors) if actors.contains(&dot.actor))
}

/// The newest epoch that the siblings know.
fn epoch(siblings: &[(Dot, Version)]) -> u32 {
    let epochs = siblings.iter().map(|(_, v)| v.policy_epoch);
    epochs.max().unwrap_or(0)
}

type Sibling<'a> = &'a (Dot, Version);

/// The view of an entry.
pub fn view(entry: &Entry, policies: &Policies) -> View {
    let siblings = entry.siblings();
    match siblings {
        [] => View {
            shown: Shown::Unknown,
            losers: Vec::new(),
            beside: Vec::new(),
        },
        [one] => View {
            shown: shown(one, siblings),
            losers: Vec::new(),
            beside: Vec::new(),
        },
        many => concurrent(many, policies),
    }
}

fn shown(winner: Sibling<'_>, siblings: &[(Dot, Version)]) -> Shown {
    let mode = siblings
        .iter()
        .filter(|(_, v)| v.kind == winner.1.kind)
        .max_by_key(|(d, v)| (v.mode_te, *d))
        .map_or(winner.1.mode, |(_, v)| v.mode);
    Shown::Version {
        dot: winner.0,
        mode,
    }
}

/// Known on entry: at least two siblings, none of which saw another.
fn concurrent(siblings: &[(Dot, Version)], policies: &Policies) -> View {
    // 1. A change of metadata alone does not compete with a change of content or a deletion.
    let mut rivals: Vec<Sibling<'_>> = siblings
        .iter()
        .filter(|s| !siblings.iter().any(|o| is_vacuous(&s.1, &o.1)))
        .collect();
    if rivals.is_empty() {
        // Changes of metadata to contents that followed each other in a circle: nobody gives way.
        rivals = siblings.iter().collect();
    }
    let policy = policies.at(epoch(siblings));
    let Some(winner) = decided(&rivals, &policy, policies) else {
        let losers = rivals.iter().filter(|s| has_content(&s.1));
        return View {
            shown: Shown::Frozen,
            losers: losers.map(|s| s.0).collect(),
            beside: Vec::new(),
        };
    };
    // 6. Whoever has other content than the winner lost; equal losers are one loser.
    let mut lost: Vec<Sibling<'_>> = Vec::new();
    for s in rivals.iter().rev().copied() {
        let known = lost.iter().any(|l| l.1.same_content(&s.1));
        if has_content(&s.1) && !s.1.same_content(&winner.1) && !known {
            lost.push(s);
        }
    }
    let losers: Vec<Dot> = lost.iter().map(|s| s.0).collect();
    let clash = winner.1.kind == Kind::Dir;
    // What nobody may have written does not become a file that everybody sees.
    let shows = |s: &&Sibling<'_>| (clash || policy == ConflictPolicy::KeepBoth) && s.1.te != 0;
    let beside = lost.iter().filter(shows).map(|s| s.0).collect();
    View {
        shown: shown(winner, siblings),
        losers,
        beside,
    }
}

/// Who wins; none if a person must decide. `policy` is that of the newest epoch.
fn decided<'a>(
    rivals: &[Sibling<'a>],
    policy: &ConflictPolicy,
    policies: &Policies,
) -> Option<Sibling<'a>> {
    // 2. What arose under an earlier policy was decided by it: only who won then competes with what came later.
    let mut epochs: Vec<u32> = rivals.iter().map(|s| s.1.policy_epoch).collect();
    epochs.sort_unstable();
    epochs.dedup();
    let newest = epochs.pop()?;
    let mut standing: Vec<Sibling<'a>> = Vec::new();
    let of = |epoch: u32| {
        let arose = rivals.iter().copied();
        arose.filter(move |s| s.1.policy_epoch == epoch)
    };
    for epoch in epochs {
        standing.extend(of(epoch));
        if let Some(winner) = winner(&standing, &policies.at(epoch)) {
            standing = Vec::from([winner]);
        }
    }
    standing.extend(of(newest));
    winner(&standing, policy)
}

/// Who wins under a policy; none if a person must decide.
fn winner<'a>(rivals: &[Sibling<'a>], policy: &ConflictPolicy) -> Option<Sibling<'a>> {
    // What was minted without an instant (an ancestor, or bytes that a power cut may have torn) only yields:
    // nobody is asked about it, nobody prefers it, and it does not outlive a deletion.
    let dated: Vec<Sibling<'_>> = rivals.iter().copied().filter(|s| s.1.te != 0).collect();
    let weighed = if dated.is_empty() { rivals } else { &dated };
    // 3. A person must decide about anything with content against something else.
    if *policy == ConflictPolicy::Manual && must_ask(weighed) {
        return None;
    }
    let preferred = prefers(policy, weighed);
    // 4. An edit beats a deletion, unless the preferred replica is the one that deleted.
    let is_deleted =
        preferred.map_or_else(|| weighed.iter().all(|s| s.1.is_tomb()), |s| s.1.is_tomb());
    let counts = |s: &&Sibling<'a>| is_deleted || !s.1.is_tomb();
    let newest_of = |kind: Option<Kind>| {
        let some = weighed.iter().filter(counts).copied();
        let some = some.filter(|s| kind.is_none_or(|kind| s.1.kind == kind));
        some.max_by_key(|s| key(s))
    };
    let newest = newest_of(None)?;
    // 5. A directory keeps the name, because its children cannot be moved atomically everywhere; but not
    // against the preferred replica.
    let mut counted = rivals.iter().filter(counts);
    let all_same = counted.all(|s| s.1.same_content(&newest.1));
    match preferred.or_else(|| newest_of(Some(Kind::Dir))) {
        Some(chosen) if !all_same => Some(chosen),
        _ => Some(newest),
    }
}

/// Whether `x` changed only metadata of content that the concurrent `y` edited or deleted.
fn is_vacuous(x: &Version, y: &Version) -> bool {
    let followed = y.prev.contains(&x.content) && !x.prev.contains(&y.content);
    x.meta_only
        && match y.kind {
            Kind::Tomb => !x.is_tomb() && (y.content == x.content || followed),
            Kind::File | Kind::Dir | Kind::Link => y.content != x.content && followed,
        }
}

fn must_ask(rivals: &[Sibling<'_>]) -> bool {
    rivals.iter().any(|s| has_content(&s.1))
        && rivals.iter().any(|s| !s.1.same_content(&rivals[0].1))
}

/// Whether it is something that can be lost.
pub fn has_content(v: &Version) -> bool {
    matches!(v.kind, Kind::File | Kind::Link)
}

fn key(s: Sibling<'_>) -> (i64, crate::id::ContentId, Dot) {
    (s.1.te, s.1.content, s.0)
}

fn prefers<'a>(policy: &ConflictPolicy, rivals: &[Sibling<'a>]) -> Option<Sibling<'a>> {
    let ConflictPolicy::Prefer(actors) = policy else {
        return None;
    };
    rivals
        .iter()
        .copied()
        .filter(|s| actors.contains(&s.0.actor))
        .max_by_key(|s| key(s))
}
