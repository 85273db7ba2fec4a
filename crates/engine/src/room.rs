//! Names that are taken: what waits below one that keeps its name, and what makes room for another.
//!
//! Below a name that a special file has, or that waits for a person, nothing can be put; such paths are
//! remembered, and planned again when the name is free. What is alive below a file of a preferred replica
//! goes to a directory beside it: it is ended at its old place only when somebody has it at the new one, so
//! that dying in between loses nothing.

use std::collections::BTreeSet;
use std::ops::Bound;

use instep_core::entry::Entry;
use instep_core::id::Dot;
use instep_core::path::RelPath;
use instep_core::plan::{Action, Code, Goal, Precondition, Problem};
use instep_core::policy::ConflictPolicy;
use instep_core::reconcile::{self, Side};
use instep_core::row::Row;
use instep_core::version::{Kind, Version};
use instep_core::view::{Shown, has_content, view, view_above};

use crate::plan::{Pass, Rows};
use crate::session::Session;

/// Something has a name and keeps it.
fn is_taken(problem: &Problem) -> bool {
    matches!(
        problem.code,
        Code::Special | Code::UnsafeLink | Code::NameClash | Code::Mount
    )
}

/// The directories above a path, innermost first, without the root.
fn above(path: &RelPath) -> impl Iterator<Item = RelPath> {
    std::iter::successors(path.parent(), RelPath::parent).filter(|d| !d.is_root())
}

/// Whether any replica has this on disk.
fn is_shown(rows: &Rows, version: &Version) -> bool {
    let mut shown = rows.iter().flatten().filter_map(Row::present);
    shown.any(|here| version.same_content(here))
}

impl Pass {
    /// What is directly in a directory because views call it, or something below it, into being.
    pub(crate) fn derived_in(&self, dir: &RelPath) -> BTreeSet<RelPath> {
        let from = (Bound::Included(dir), Bound::Unbounded);
        let below = self.derived.range::<RelPath, _>(from).map(|(path, _)| path);
        let below = below.take_while(|path| path.is_within(dir));
        let child = |path: &RelPath| {
            let mut up = std::iter::successors(Some(path.clone()), RelPath::parent);
            up.find(|at| at.parent().as_ref() == Some(dir))
        };
        below.filter_map(child).collect()
    }

    /// Whether something below a path was found to be alive.
    pub(crate) fn is_alive_in(&self, dir: &RelPath) -> bool {
        let from = (Bound::Excluded(dir), Bound::Unbounded);
        let below = self.alive.range::<RelPath, _>(from);
        let mut below = below.take_while(|(path, _)| path.is_within(dir));
        below.any(|(_, alive)| *alive)
    }
}

impl Session {
    /// What views called into being and nobody planned yet, and what is above it and no directory: that was
    /// planned without knowing that something would come below it.
    pub(crate) fn not_planned(&mut self, pass: &mut Pass) -> BTreeSet<RelPath> {
        let new = pass.derived.keys();
        let mut more: BTreeSet<RelPath> = new
            .filter(|p| !pass.decided.contains(*p))
            .cloned()
            .collect();
        let mut in_the_way = |dir: &RelPath| {
            let rows = self.rows_at(dir);
            rows.iter().flatten().any(Row::is_file_or_link)
        };
        let dirs: BTreeSet<RelPath> = more.iter().flat_map(above).collect();
        for dir in dirs.into_iter().filter(|d| in_the_way(d)) {
            pass.alive.remove(&dir);
            more.insert(dir);
        }
        more
    }

    fn may_wait(&self) -> bool {
        let waits =
            |p: &ConflictPolicy| matches!(p, ConflictPolicy::Manual | ConflictPolicy::Prefer(_));
        self.share.policies.0.values().any(waits)
    }

    fn known_at(&mut self, path: &RelPath, pass: &Pass) -> (Rows, Entry) {
        let rows = self.rows_at(path);
        let known = reconcile::merged(&self.sides(&rows), &pass.known(path));
        (rows, known)
    }

    /// Marks the replicas on which nothing can be put at a path. Returns whether there are any.
    pub(crate) fn cover(&mut self, path: &RelPath, sides: &mut [Side<'_>], pass: &Pass) -> bool {
        let may_wait = self.may_wait();
        if !may_wait && self.problems.is_empty() {
            return false;
        }
        for dir in above(path) {
            for (i, side) in sides.iter_mut().enumerate() {
                let problem = self.problems.get(&(i, dir.clone()));
                side.covered |= problem.is_some_and(is_taken);
            }
            if !may_wait {
                continue;
            }
            let (rows, known) = self.known_at(&dir, pass);
            let waits = view(&known, &self.share.policies).shown == Shown::Frozen
                || reconcile::home(&dir, &known, &self.share.policies).is_some();
            for (side, row) in sides.iter_mut().zip(&rows) {
                let is_dir = row.as_ref().is_some_and(Row::is_dir);
                side.covered |= waits && !is_dir;
            }
        }
        sides.iter().any(|s| s.covered)
    }

    /// A name is free, or something new has it: what waited below is planned again.
    pub(crate) fn uncover(&mut self, path: &RelPath) {
        let waiting = self.covered.range(path.clone()..);
        let below: Vec<RelPath> = waiting.take_while(|p| p.is_within(path)).cloned().collect();
        for path in below {
            self.covered.remove(&path);
            self.dirty.insert(path);
        }
    }

    /// What was to come to a path did not. If something else than a directory is above it, that is planned again, now
    /// that something below is known to be alive.
    pub(crate) fn revisit_above(&mut self, i: usize, action: &Action, pass: &Pass) {
        if matches!(
            action.goal,
            Goal::Absent | Goal::Record | Goal::Metadata { .. }
        ) {
            return;
        }
        let replica = &self.slots[i].replica;
        let is_taken = |dir: &RelPath| {
            let row = replica.row(dir).ok().flatten();
            row.is_some_and(|r| r.is_file_or_link())
        };
        let taken = above(&action.path).find(is_taken);
        // Once in a pass, because it may have what is below planned again, too.
        let taken = taken.filter(|dir| !pass.decided.contains(dir));
        self.dirty.extend(taken);
    }

    /// Nothing is at a path any more: a directory above it that stood for this alone has its name for nothing.
    pub(crate) fn revisit_parent(&mut self, path: &RelPath, known: &Entry, pass: &Pass) {
        let Some(parent) = path.parent().filter(|p| !p.is_root()) else {
            return;
        };
        if pass.alive.contains_key(&parent) || self.dirty.contains(&parent) {
            return;
        }
        let derived = self.is_derived(&parent);
        // What is there yet may stay for a while: a file that cannot be read, or that a program has open. Its directory
        // cannot go, the replica points at the file, and each would have the other planned for ever.
        let failed = self.later.get(path).is_some_and(|l| l.tries > 0);
        if derived && (known.is_empty() || failed) {
            self.retry(parent, None, 1);
        } else if derived {
            self.dirty.insert(parent);
        }
    }

    /// What moved everywhere before it was recorded is not decided under its old name: the directory above that may
    /// have stood for it alone is.
    pub(crate) fn revisit_above_moved(&mut self, from: &RelPath) {
        let parent = from.parent().filter(|p| !p.is_root());
        let derived = parent.filter(|p| self.is_derived(p));
        self.dirty.extend(derived);
    }

    /// Whether a directory stands somewhere only for what is below it.
    fn is_derived(&self, dir: &RelPath) -> bool {
        self.slots.iter().filter(|s| s.online()).any(|s| {
            let row = s.replica.row(dir).ok().flatten();
            row.is_some_and(|r| r.is_derived_dir())
        })
    }

    /// Adds what follows for a path from a file above it that takes the name of a directory.
    pub(crate) fn give_way(&mut self, path: &RelPath, rows: &Rows, pass: &mut Pass) {
        if !self.may_wait() {
            return;
        }
        for top in above(path) {
            if self.is_frozen(&top, pass) {
                // It stays until a person decides, and so does what is in it.
                return;
            }
            let (_, known) = self.known_at(&top, pass);
            let Some(home) = reconcile::home(&top, &known, &self.share.policies) else {
                continue;
            };
            let Some(new) = path.rebase(&top, &home) else {
                continue;
            };
            let known = reconcile::merged(&self.sides(rows), &pass.known(path));
            let moved = reconcile::moved_out(path, &new, &known, &self.share.policies);
            if let Some((there, here)) = moved {
                if self.has_arrived(&new, &there) && self.is_beside(path, &known) {
                    pass.add_known(path.clone(), &here);
                    continue;
                }
                pass.add_known(new.clone(), &there);
                if !self.is_to_be_had(&new, rows, pass) {
                    let meanwhile = there.siblings().iter().find(|(_, v)| is_shown(rows, v));
                    pass.only_known.insert(new, meanwhile.map(|(dot, _)| *dot));
                }
                self.retry(path.clone(), None, 1);
            }
        }
    }

    /// Whether somebody has on disk what wins at a new place: there already, or where it comes from.
    fn is_to_be_had(&mut self, new: &RelPath, from: &Rows, pass: &Pass) -> bool {
        let (rows, known) = self.known_at(new, pass);
        let winner = view(&known, &self.share.policies).dot();
        let winner = known.get_shown(winner).filter(|v| v.kind == Kind::File);
        winner.is_none_or(|v| is_shown(&rows, v) || is_shown(from, v))
    }

    /// A content that nobody shows may never come: what goes to its place arrives by being known, and whoever has
    /// the content may bring it later. What is there already, or else what comes there and is to be had, is shown
    /// until then. Otherwise what has to make room for others would wait for it for ever.
    pub(crate) fn arrive_unseen(
        &mut self,
        action: &mut Action,
        rows: &Rows,
        meanwhile: Option<Dot>,
    ) {
        let row = rows.get(action.replica).and_then(Option::as_ref);
        let is_free = action.before == Precondition::Absent;
        let shown = row.and_then(|r| r.shown).filter(|_| !is_free);
        let stays = is_free || shown.is_some_and(|dot| action.entry.get(dot).is_some());
        if !stays || !matches!(action.goal, Goal::File { .. }) {
            return;
        }
        (action.goal, action.shown) = (Goal::Record, shown);
        let version = action.entry.get_shown(meanwhile).filter(|_| is_free);
        if let Some(version) = version.filter(|v| has_content(v)) {
            let goal = Goal::of(version, version.mode);
            (action.goal, action.shown) = (goal, meanwhile);
        }
        self.retry(action.path.clone(), None, 1);
    }

    /// What was called for beside another path and nobody knows yet, because its content is missing, is only known
    /// where it is called from; and a mirror's source knows nothing of the copies that its targets show, so that they
    /// look like extras. Whether such a copy is still called for is asked there.
    pub(crate) fn recall_copy(&mut self, path: &RelPath, rows: &Rows, pass: &mut Pass) {
        let called = self.called.remove(path);
        if called.is_none() && !self.options.mirror {
            return;
        }
        let known = reconcile::merged(&self.sides(rows), &Entry::default());
        let mut from = called.unwrap_or_default();
        if self.options.mirror && known.is_empty() {
            let shown = rows.iter().flatten().filter_map(Row::present);
            from.extend(shown.filter_map(|v| v.moved.clone()));
        }
        for at in from {
            let (_, above) = self.known_at(&at, pass);
            let below = self.alive_below(&at, pass);
            let view = view_above(&above, below, &self.share.policies);
            let beside = reconcile::derived(&at, &above, &view).into_iter();
            for (_, copy) in beside.filter(|(copy, _)| copy == path) {
                if !known.ctx().includes(copy.ctx()) {
                    let callers = self.called.entry(path.clone()).or_default();
                    callers.insert(at.clone());
                }
                pass.add_known(path.clone(), &copy);
            }
        }
    }

    /// Whether everything that is called for beside a path is known there: what ends at the path supersedes it.
    fn is_beside(&mut self, path: &RelPath, known: &Entry) -> bool {
        let view = view(known, &self.share.policies);
        let copies = reconcile::derived(path, known, &view);
        let mut copies = copies.into_iter();
        copies.all(|(at, copy)| self.has_arrived(&at, &copy))
    }

    fn has_arrived(&mut self, path: &RelPath, entry: &Entry) -> bool {
        let rows = self.rows_at(path);
        let knows = |known: &Entry| {
            let mut dots = entry.siblings().iter();
            dots.all(|(dot, _)| known.ctx().covers(*dot))
        };
        rows.iter().flatten().any(|row| knows(&row.entry))
    }

    /// A file of a preferred replica waits for room: everything below is to give way. What waits for a person does
    /// not, and the file is planned again when that is decided.
    pub(crate) fn wait_for_room(&mut self, path: &RelPath, known: &Entry, pass: &Pass) {
        if reconcile::home(path, known, &self.share.policies).is_none() {
            return;
        }
        let (mut below, mut there) = (BTreeSet::new(), BTreeSet::new());
        for slot in self.slots.iter().filter(|s| s.online()) {
            let read = slot.rows_below(path, &mut |path, row| {
                if row.print.is_some() {
                    there.insert(path.clone());
                }
                below.insert(path);
                std::ops::ControlFlow::Continue(())
            });
            // Whoever cannot be read goes offline by its next call; when it is back everything is compared.
            let _found_later = read;
        }
        if self.asks_persons() {
            below.retain(|p| self.is_frozen(p, pass));
        } else {
            below.clear();
        }
        if below.is_empty() {
            self.retry(path.clone(), None, 1);
        }
        let asked = below.into_iter().map(|p| (p, path.clone()));
        self.asked.extend(asked);
        self.dirty.extend(there);
    }

    fn is_frozen(&mut self, path: &RelPath, pass: &Pass) -> bool {
        let (_, known) = self.known_at(path, pass);
        view(&known, &self.share.policies).shown == Shown::Frozen
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use std::sync::Arc;

    use instep_replica::env::StepEnv;

    use super::*;

    #[test]
    fn a_directory_is_tried_without_rest_while_a_program_holds_what_is_in_it() {
        let mut session = Session::of_two(&Arc::new(StepEnv::default()));
        let [above, path] = [b"d".as_slice(), b"d/e"].map(|p| RelPath::new(p).unwrap());
        let brought = session.made_on_first(&path);
        let revisits = |session: &mut Session| {
            session.revisit_parent(&path, &brought, &Pass::default());
            session.retry(path.clone(), None, 5);
            session.dirty.remove(&above)
        };
        let at_once: Vec<bool> = (0..5).map(|_| revisits(&mut session)).collect();
        assert_eq!(at_once, [true, true, false, false, false]);
        assert!(session.later.contains_key(&above), "it is forgotten");
    }
}
