//! When an absence counts: programs that replace a file leave its name empty for a moment, and whoever removes
//! a tree takes a while.
//!
//! Owns what was missed and since when. Everything that is missed is judged together, so that a burst is seen
//! as one: it counts when nothing more was missed for the time to settle, which is longer for a large burst. A
//! burst that goes on counts piece by piece once it is old, and how old it must be grows with its size: the
//! brake must see a disaster as a whole.
//! Invariant: what is missed and has not settled is looked at again; nothing is forgotten but what is back, has
//! settled, or is not in the index any more.

use std::collections::{BTreeMap, BTreeSet};

use instep_core::limits::BRAKE_ENTRIES;
use instep_core::path::RelPath;
use instep_core::version::Kind;
use instep_replica::{Found, Look, Scope};

use crate::replica::{LocalReplica, locked};
use crate::scan::{Gone, Walked};

const MS: u64 = 1_000_000;
/// A burst waits this much longer for each entry of it: several times as long as removing it takes.
const PATIENCE_MS: u64 = 5;
/// No burst waits longer than this.
const PATIENCE_MAX_MS: u64 = 60_000;

/// What is missed: the outermost paths, and when each was first missed.
#[derive(Debug, Default)]
pub(crate) struct Missed {
    since: BTreeMap<RelPath, u64>,
    latest: u64,
    /// How many entries were missed when all were looked at last.
    entries: u64,
}

impl Missed {
    /// They are there again; which of them were missed.
    pub(crate) fn are_back(&mut self, present: &[RelPath]) -> Vec<RelPath> {
        if self.since.is_empty() {
            return Vec::new();
        }
        let back = present.iter().filter(|p| self.since.remove(*p).is_some());
        back.cloned().collect()
    }

    /// Takes note of what is missed now. With `all`, whatever else was missed before is not any more.
    fn note(&mut self, tops: &BTreeSet<&RelPath>, all: bool, now: u64) {
        let mut added = Vec::new();
        for top in tops {
            if self.since.contains_key(*top) {
                continue;
            }
            // A directory whose contents were missed before is missed since then.
            let below = self.take_below(top);
            added.push(((*top).clone(), below.into_iter().min().unwrap_or(now)));
            self.latest = now;
        }
        if all {
            self.since.retain(|path, _| tops.contains(path));
        }
        self.since.extend(added);
    }

    /// Forgets what lies below a path; returns since when it was missed.
    fn take_below(&mut self, top: &RelPath) -> Vec<u64> {
        let after = (std::ops::Bound::Excluded(top), std::ops::Bound::Unbounded);
        let below = self.since.range::<RelPath, _>(after);
        let below: Vec<RelPath> = below
            .map(|(p, _)| p.clone())
            .take_while(|p| p.is_within(top))
            .collect();
        below.iter().filter_map(|p| self.since.remove(p)).collect()
    }
}

/// Of paths in tree order, those that lie below no other.
fn outermost(gone: &[Gone]) -> Vec<&RelPath> {
    let mut tops: Vec<&RelPath> = Vec::new();
    for g in gone {
        if !tops.last().is_some_and(|t| g.path.is_within(t)) {
            tops.push(&g.path);
        }
    }
    tops
}

impl LocalReplica {
    /// The scope with everything that was missed, so that a burst is judged as one; and whether it is. Where no
    /// event tells of the rest of a large burst, only a look at everything does.
    pub(crate) fn with_missed(&self, scope: &Scope) -> (Scope, bool) {
        let missed = locked(&self.missed);
        match scope {
            Scope::Some { paths, trees } if paths.iter().any(|p| missed.since.contains_key(p)) => {
                if self.is_blind() && missed.entries > BRAKE_ENTRIES {
                    return (Scope::Everything, true);
                }
                let mut paths = paths.clone();
                paths.extend(missed.since.keys().cloned());
                let trees = trees.clone();
                (Scope::Some { paths, trees }, true)
            }
            other => (other.clone(), *other == Scope::Everything),
        }
    }

    /// Absences that count now; the others are looked at again. Those that are certain count in any case.
    /// `all` says that everything that was missed was looked at.
    pub(crate) fn settled_absences(
        &self,
        gone: Vec<Gone>,
        certain: &BTreeSet<RelPath>,
        all: bool,
        look: &mut Look,
    ) -> Vec<Gone> {
        let now = self.env.monotonic_ns();
        let mut missed = locked(&self.missed);
        let tops = outermost(&gone)
            .into_iter()
            .filter(|t| !certain.contains(*t));
        let tops: BTreeSet<&RelPath> = tops.collect();
        missed.note(&tops, all, now);
        // A part of what is missed is not judged alone, whatever led to it.
        let is_whole = all || missed.since.len() == tops.len();
        let age = |since: u64| now.saturating_sub(since) / MS;
        let oldest = age(missed.since.values().min().copied().unwrap_or(now));
        look.absent_ms = oldest;
        let entries = gone.len() as u64;
        if all {
            missed.entries = entries;
        }
        let is_large = entries > BRAKE_ENTRIES;
        // Whoever removes much may pause on the way, and what was told of while we looked may be more of it.
        let quiet_ms = if is_large {
            self.settings.settle_max_ms
        } else {
            self.settings.settle_ms
        };
        let is_quiet = age(missed.latest) >= quiet_ms && !(is_large && self.has_hints());
        let delay_ms = quiet_ms.saturating_sub(age(missed.latest)).max(1);
        let is_old = oldest >= self.patience_ms(entries);
        let is_due = |since: u64| is_quiet || (is_old && age(since) >= self.settings.settle_ms);
        let counts = |since: u64| is_whole && is_due(since);
        let mut kept = Vec::new();
        let mut top: Option<(RelPath, bool)> = None;
        // In tree order everything below a path follows it.
        for g in gone {
            if !top.as_ref().is_some_and(|(t, _)| g.path.is_within(t)) {
                let is_sure = certain.contains(&g.path)
                    || missed.since.get(&g.path).is_none_or(|since| counts(*since));
                if is_sure {
                    missed.since.remove(&g.path);
                    missed.take_below(&g.path);
                } else {
                    look.again.push((g.path.clone(), delay_ms));
                }
                top = Some((g.path.clone(), is_sure));
            }
            if certain.contains(&g.path) || top.as_ref().is_some_and(|(_, sure)| *sure) {
                kept.push(g);
            }
        }
        kept
    }

    /// How old a burst of so many entries must be before it counts although it goes on.
    fn patience_ms(&self, entries: u64) -> u64 {
        let least = self.settings.settle_max_ms;
        if entries <= BRAKE_ENTRIES {
            return least;
        }
        (least + entries * PATIENCE_MS).min(least.max(PATIENCE_MAX_MS))
    }

    /// Puts what is missed in tree order. A directory that one look saw both missing and taken by something is not
    /// missed as a whole: what was in it is, and so holds back what took its name. Which of the two came last only
    /// another look tells.
    pub(crate) fn order_missed(&self, walked: &mut Walked, look: &mut Look) {
        walked.gone.sort_by(|a, b| a.path.cmp(&b.path));
        walked.gone.dedup_by(|a, b| a.path == b.path);
        let gone = &walked.gone;
        let is_missed_dir = |p: &RelPath| {
            let at = gone.binary_search_by(|g| g.path.cmp(p));
            at.is_ok_and(|at| gone[at].row.is_dir())
        };
        let taken = walked.present.iter().filter(|p| is_missed_dir(p));
        let taken: BTreeSet<RelPath> = taken.cloned().collect();
        walked.gone.retain(|g| !taken.contains(&g.path));
        let delay_ms = self.settings.settle_ms.max(1);
        look.again.extend(taken.into_iter().map(|p| (p, delay_ms)));
    }

    /// What a directory became is passed on when everything that was in it has settled as gone.
    pub(crate) fn withhold_replaced_dirs(&self, look: &mut Look) {
        let mut above = BTreeSet::new();
        for (path, _) in &look.again {
            let mut up = path.parent();
            while let Some(dir) = up.filter(|d| !above.contains(d)) {
                up = dir.parent();
                above.insert(dir);
            }
        }
        let mut again = Vec::new();
        look.findings.retain(|f| {
            let not_dir =
                |f: &Found| matches!(f, Found::Present { kind, .. } if *kind != Kind::Dir);
            let waits = not_dir(&f.found) && above.contains(&f.path);
            if waits {
                again.push((f.path.clone(), self.settings.settle_ms.max(1)));
            }
            !waits
        });
        look.again.append(&mut again);
    }

    /// A big file that was renamed is passed on as a rename, once its old name has settled as gone.
    pub(crate) fn withhold_big_moves(&self, kept: &[Gone], look: &mut Look) {
        let settled: BTreeSet<&RelPath> = kept.iter().map(|g| &g.path).collect();
        let mut again = Vec::new();
        look.findings.retain(|f| match &f.found {
            Found::Present {
                kind: Kind::File,
                size,
                moved_from: Some(from),
                ..
            } if *size > instep_core::limits::SMALL_FILE_BYTES && !settled.contains(from) => {
                again.push((f.path.clone(), self.settings.settle_ms.max(1)));
                false
            }
            _ => true,
        });
        look.again.append(&mut again);
    }
}
