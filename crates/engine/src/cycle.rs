//! One turn of the wheel: hints, look, record, reconcile, apply.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;

use instep_core::path::RelPath;
use instep_core::policy::Role;
use instep_core::row::Row;
use instep_core::version::Kind;
use instep_replica::{Finding, Found, HintSet, Look, Scope};

use crate::problems::is_unseen;
use crate::report::Event;
use crate::session::{Session, SessionError, Slot};

impl Session {
    /// Does what can be done now. Returns whether anything was.
    pub(crate) fn cycle(&mut self) -> Result<bool, SessionError> {
        self.seat_newcomers();
        self.see_to_places();
        let held = self.recheck_holds_when_due();
        self.collect_arrivals();
        self.collect_checked();
        self.collect_due();
        self.look_at_problems();
        let began_ns = self.env.monotonic_ns();
        // Before the first look everywhere, what was found there is found once more by that.
        let mut looks = if self.met { held } else { Vec::new() };
        let mut worked = !looks.is_empty();
        let mut hinted: BTreeSet<RelPath> = BTreeSet::new();
        for i in 0..self.slots.len() {
            if let Some(scope) = self.scope(i, &mut hinted) {
                worked = true;
                if let Some(look) = self.look(i, &scope) {
                    looks.push((i, look));
                }
            }
        }
        self.read_on(&mut looks);
        if !self.met && !looks.is_empty() {
            self.met = true;
            self.first_meeting(&looks)?;
        }
        self.rejoining_last(&mut looks);
        let mut looks = VecDeque::from(looks);
        while let Some((i, look)) = looks.pop_front() {
            let moved = self.take_in(i, look, looks.make_contiguous());
            hinted.retain(|p| !moved.iter().any(|m| p.is_within(m)));
        }
        // Whatever was hinted is compared, because a hint may be all that is left of a surprise.
        self.dirty.extend(hinted);
        if std::mem::take(&mut self.compare_all) {
            self.compare_rows();
        }
        if !self.dirty.is_empty() {
            worked = true;
            self.unsettle();
            self.reconcile_dirty();
            self.settle_conflicts();
        }
        self.passed_on(began_ns);
        self.forget_done();
        Ok(worked)
    }

    /// Where to look on a replica now, if anywhere. What was hinted is added, also where that is everywhere: what is
    /// to be planned again comes as a hint.
    fn scope(&mut self, i: usize, hinted: &mut BTreeSet<RelPath>) -> Option<Scope> {
        let now = self.env.monotonic_ns();
        let slot = &mut self.slots[i];
        if !slot.online() {
            return None;
        }
        let fresh = slot.replica.take_hints();
        slot.hints.extend(fresh);
        if slot.next_poll_ns <= now {
            slot.look_everywhere = true;
        }
        if let Some(piece) = slot.rest.take()
            && !slot.look_everywhere
        {
            return Some(Scope::Rest(piece));
        }
        let hints = std::mem::take(&mut slot.hints);
        hinted.extend(hints.paths.iter().cloned());
        if hints.books {
            self.join_books(i);
        }
        let slot = &mut self.slots[i];
        if hints.root || hints.lost {
            slot.look_everywhere |= hints.lost;
            if let Err(e) = slot.replica.guard() {
                self.replica_failed(i, &e);
                return None;
            }
        }
        let slot = &mut self.slots[i];
        if std::mem::take(&mut slot.look_everywhere) {
            return Some(Scope::Everything);
        }
        let HintSet {
            paths, mut trees, ..
        } = hints;
        // What could not be looked at may have changed below, too.
        let unseen = |p: &&RelPath| self.problems.get(&(i, (*p).clone())).is_some_and(is_unseen);
        trees.extend(paths.iter().filter(unseen).cloned());
        if paths.is_empty() && trees.is_empty() {
            None
        } else {
            Some(Scope::Some { paths, trees })
        }
    }

    fn look(&mut self, i: usize, scope: &Scope) -> Option<Look> {
        if *scope == Scope::Everything {
            self.monitor.event(Event::ScanStarted { replica: i });
        }
        let look = match self.slots[i].replica.look(scope) {
            Ok(look) => look,
            Err(e) => {
                self.replica_failed(i, &e);
                return None;
            }
        };
        if *scope == Scope::Everything {
            self.schedule_poll(i);
            self.monitor.event(Event::Scanned {
                replica: i,
                totals: look.totals,
                changes: look.findings.len() as u64,
            });
            self.scanned(i);
            self.close_over(i, &look, |_| true);
        } else if let Scope::Some { paths, trees } = scope {
            self.close_seen(i, paths, trees, &look);
        }
        Some(look)
    }

    /// Takes in what one replica found: moves first, then the brake, then the record. Returns the subtrees
    /// that are equal everywhere already. `others` are looks of this turn that were not taken in yet.
    fn take_in(&mut self, i: usize, mut look: Look, others: &[(usize, Look)]) -> Vec<RelPath> {
        // They stay in the look: the replica must know what it has not seen.
        for problem in &look.problems {
            self.told(i, problem.clone());
        }
        for (path, delay_ms) in std::mem::take(&mut look.again) {
            // What is held is looked at for the hold, which would make each other wait for ever.
            if !self.is_held(i, &path) {
                self.look_again(path, i, delay_ms);
            }
        }
        // Its content is being hashed; it is not forgotten if nobody says when that is done.
        for path in std::mem::take(&mut look.unhashed) {
            self.look_again(path, i, 250);
        }
        if look.rules_changed {
            self.slots.iter_mut().for_each(|s| s.look_everywhere = true);
        }
        self.recognise(i, &mut look);
        self.withhold_damage(i, &mut look);
        self.brake(i, &mut look);
        let moves = if self.slots[i].role == Role::Target {
            Vec::new()
        } else {
            self.early_moves(i, &look, others)
        };
        let refreshed_only = look
            .findings
            .iter()
            .all(|f| matches!(f.found, Found::Refreshed { .. }));
        if !refreshed_only {
            self.unsettle();
        }
        match self.slots[i].replica.record(&look, &self.share) {
            Ok(changed) => {
                if !changed.is_empty() {
                    self.touched(i);
                }
                let done = self.pass_on_moves(i, &moves);
                self.dirty.extend(
                    changed
                        .into_iter()
                        .filter(|p| !done.iter().any(|m| p.is_within(m))),
                );
                self.slots[i].totals = look.totals;
                self.slots[i].rest = look.rest;
                done
            }
            Err(e) => {
                self.replica_failed(i, &e);
                Vec::new()
            }
        }
    }

    /// A large tree is read in pieces, each passed on before the next is read. Where two replicas have
    /// something at the same path, what both have must be known first: then everything is read now.
    fn read_on(&mut self, looks: &mut [(usize, Look)]) {
        let present = |look: &Look| -> BTreeSet<RelPath> {
            let seen =
                |f: &&Finding| matches!(f.found, Found::Present { kind, .. } if kind != Kind::Dir);
            let read = look.findings.iter().filter(seen).map(|f| f.path.clone());
            read.chain(look.unread.iter().map(|(p, _)| p.clone()))
                .collect()
        };
        if !looks.iter().any(|(_, l)| l.rest.is_some()) {
            return;
        }
        let mut seen: BTreeSet<RelPath> = BTreeSet::new();
        let mut overlap = self.slots.iter().any(|s| s.replica.is_rejoining());
        for (_, look) in looks.iter() {
            let here = present(look);
            overlap |= here.iter().any(|p| seen.contains(p));
            seen.extend(here);
        }
        for (i, look) in looks.iter_mut().filter(|_| overlap) {
            while let Some(piece) = look.rest.take() {
                look.unread.clear();
                match self.slots[*i].replica.look(&Scope::Rest(piece)) {
                    Ok(rest) => append(look, rest),
                    Err(e) => self.replica_failed(*i, &e),
                }
            }
        }
    }

    /// What is due now is looked at, or planned again.
    fn collect_due(&mut self) {
        let now = self.env.monotonic_ns();
        let due: Vec<RelPath> = self
            .later
            .iter()
            .filter(|(_, l)| l.due_ns <= now)
            .map(|(p, _)| p.clone())
            .collect();
        for path in due {
            let Some(later) = self.later.get_mut(&path) else {
                continue;
            };
            let replica = later.replica;
            // It stays listed, with its count, until it succeeds; it is due again only if somebody says so.
            later.due_ns = u64::MAX;
            for (i, slot) in self.slots.iter_mut().enumerate() {
                if replica.is_none_or(|r| r == i) {
                    slot.hints.add_path(path.clone());
                }
            }
        }
    }

    /// What was due, was tried, and did not fail again, is over, unless the try is still under way.
    pub(crate) fn forget_done(&mut self) {
        let awaited: BTreeSet<&RelPath> = self.in_flight.values().flatten().collect();
        self.later
            .retain(|p, l| l.due_ns != u64::MAX || awaited.contains(p));
    }

    /// Every path on which rows differ becomes dirty. Rows come in the same order from every replica.
    pub(crate) fn compare_rows(&mut self) {
        // Whoever is observed says itself where it differs, but for a mirror's source: what it has not is an extra.
        let counts = |s: &Slot| s.is_ours() || s.online() && s.role == Role::Source;
        let online: Vec<usize> = (0..self.slots.len())
            .filter(|i| counts(&self.slots[*i]))
            .collect();
        // Of each path: the first replica's hash, how many have it, whether all are alike.
        let mut seen: BTreeMap<RelPath, (u64, usize, bool)> = BTreeMap::new();
        let mut failed = Vec::new();
        for i in &online {
            // What bits a file has elsewhere is not told.
            let modes = self.slots[*i].replica.capabilities().modes && self.slots[*i].is_ours();
            let result = self.slots[*i]
                .replica
                .subtree(&RelPath::root(), &mut |path, row| {
                    let hash = row_hash(&row);
                    let known = seen.entry(path).or_insert((hash, 0, true));
                    known.1 += 1;
                    known.2 &= known.0 == hash && !is_unsettled(&row) && !is_contested(&row);
                    known.2 &= !modes || has_its_mode(&row);
                    ControlFlow::Continue(())
                });
            if let Err(e) = result {
                failed.push((*i, e));
            }
        }
        let n = online.len();
        self.dirty.extend(
            seen.into_iter()
                .filter(|(_, (_, count, alike))| *count != n || !alike)
                .map(|(p, _)| p),
        );
        for (i, e) in failed {
            self.replica_failed(i, &e);
        }
    }
}

/// What may have to change although all replicas say the same of it: it should be there and is not, and
/// nothing says why (all may have lost it at once); or it stands for what is below it, which may have gone while
/// somebody could not be read.
fn is_unsettled(row: &Row) -> bool {
    let alive = |(_, v): &(instep_core::id::Dot, instep_core::version::Version)| !v.is_tomb();
    let is_wanting = row.shown.is_none()
        && row.print.is_none()
        && row.held.is_none()
        && row.entry.siblings().iter().any(alive);
    is_wanting || row.is_derived_dir()
}

/// What is there has the permissions of its version. A power cut may have taken a change of them that all know of.
fn has_its_mode(row: &Row) -> bool {
    let version = row.present().filter(|v| v.kind != Kind::Link);
    version
        .zip(row.print)
        .is_none_or(|(v, print)| v.mode == print.mode)
}

/// What is known of it may call for something beside it, which all may lack: a death may have come in between.
fn is_contested(row: &Row) -> bool {
    row.entry.siblings().len() > 1
}

/// A hash of what must be equal between replicas: what is known, and which of it is on disk.
fn row_hash(row: &Row) -> u64 {
    let mut bytes = Vec::with_capacity(128);
    instep_core::codec::put_entry(&mut bytes, &row.entry);
    // Which of them, too: one may still show a directory where all know of the file that takes its name.
    if let Some(dot) = row.shown {
        bytes.extend_from_slice(&dot.actor.0);
        bytes.extend_from_slice(&dot.counter.to_be_bytes());
    }
    instep_core::fnv::hash(&bytes)
}

fn append(look: &mut Look, rest: Look) {
    look.findings.extend(rest.findings);
    look.findings.sort_by(|a, b| a.path.cmp(&b.path));
    look.problems.extend(rest.problems);
    look.again.extend(rest.again);
    look.unhashed.extend(rest.unhashed);
    look.rest = rest.rest;
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use std::sync::Arc;

    use instep_replica::env::StepEnv;

    use super::*;

    #[test]
    fn what_is_to_be_planned_again_is_forgotten_when_everything_is_looked_at() {
        for everywhere in [false, true] {
            let env = Arc::new(StepEnv::default());
            let mut session = Session::of_two(&env);
            session.cycle().unwrap();
            let path = RelPath::new(b"d").unwrap();
            session.made_on_first(&path);
            session.retry(path.clone(), None, 1);
            env.advance(1_000_000);
            for slot in &mut session.slots {
                slot.look_everywhere = everywhere;
            }
            session.cycle().unwrap();
            let brought = session.slots[1].replica.row(&path).unwrap();
            assert!(
                brought.is_some_and(|r| r.is_dir()),
                "everywhere: {everywhere}"
            );
        }
    }

    #[test]
    fn a_path_that_is_tried_for_another_reason_is_never_looked_at() {
        let env = Arc::new(StepEnv::default());
        let mut session = Session::of_two(&env);
        let path = RelPath::new(b"a").unwrap();
        // Something else is planned every second, and this path with it, a moment before it is due.
        for _ in 0..5 {
            session.retry(path.clone(), None, 1000);
            env.advance(900_000_000);
            session.collect_due();
            if session.slots.iter().all(|s| s.hints.paths.contains(&path)) {
                return;
            }
        }
        panic!("each try puts off the look that would end them");
    }
}
