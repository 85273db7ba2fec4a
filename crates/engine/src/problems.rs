//! Difficulties of paths, as they stand: each is told when it begins and when it is over, once.
//!
//! Owns which look or which outcome says that one is over. Invariant: a look says nothing about an action that
//! is still tried. Never decides what is tried.

use std::collections::BTreeSet;

use instep_core::path::RelPath;
use instep_core::plan::{Code, Problem};
use instep_core::policy::Role;
use instep_replica::Look;

use crate::report::Event;
use crate::session::Session;

/// Between two looks at what could not be looked at.
const UNSEEN_NS: u64 = 5_000_000_000;
/// How many such places are looked at in one go.
const UNSEEN_MAX: usize = 200;

/// Nothing is known of what is there, or below it.
pub(crate) fn is_unseen(problem: &Problem) -> bool {
    matches!(problem.code, Code::Unreadable | Code::Mount)
}

/// An action failed; only its next try tells whether that is over.
pub(crate) fn is_of_action(problem: &Problem) -> bool {
    use Code::{ContentMissing, Husk, Mount, NoSpace, ReadOnly, Unwritable};
    matches!(
        problem.code,
        ContentMissing | Husk | Mount | NoSpace | ReadOnly | Unwritable
    )
}

/// For a person: that the next look or action succeeds does not end it.
fn is_alarm(problem: &Problem) -> bool {
    use Code::{Contradiction, Damaged, DotReused, Drifted};
    matches!(problem.code, Contradiction | Damaged | DotReused | Drifted)
}

impl Session {
    pub(crate) fn open_problem(&mut self, replica: usize, problem: Problem) {
        let key = (replica, problem.path.clone());
        // What else is said of such a path matters less; and a path that was not looked at must be, whatever
        // else is wrong there.
        let is_less = |known: &Problem| {
            let is_seen = !is_unseen(&problem) || is_of_action(&problem);
            !is_alarm(&problem) && (is_alarm(known) || is_unseen(known) && is_seen)
        };
        if self.problems.get(&key).is_some_and(is_less) {
            return;
        }
        if self.problems.get(&key) != Some(&problem) {
            self.problems.insert(key, problem.clone());
            self.monitor.event(Event::Problem {
                replica,
                problem,
                open: true,
            });
        }
    }

    /// What a replica told of by itself. What failed there after it had counted as done is planned again.
    pub(crate) fn told(&mut self, replica: usize, problem: Problem) {
        // What is tried at the far end of a connection is tried there.
        let is_tried_here = is_of_action(&problem) && !self.slots[replica].is_observed();
        if is_tried_here && !is_unseen(&problem) {
            self.retry(problem.path.clone(), None, 1000);
        }
        self.open_problem(replica, problem);
    }

    pub(crate) fn close_problem(&mut self, replica: usize, path: &RelPath) {
        let key = (replica, path.clone());
        if self.problems.get(&key).is_some_and(is_alarm) {
            return;
        }
        self.end_problem(replica, path);
    }

    /// A difficulty is over, whatever it was.
    pub(crate) fn end_problem(&mut self, replica: usize, path: &RelPath) {
        let key = (replica, path.clone());
        if let Some(problem) = self.problems.remove(&key) {
            // What was left alone because of it is decided now.
            self.uncover(path);
            // What else is wrong there was not told while nothing was known of it.
            self.dirty.extend(is_unseen(&problem).then(|| path.clone()));
            self.compare_all |= is_unseen(&problem) && self.slots[replica].role == Role::Source;
            self.monitor.event(Event::Problem {
                replica,
                problem,
                open: false,
            });
        }
    }

    /// Problems at paths that could be looked at now are over: something else may be wrong there.
    pub(crate) fn close_seen(
        &mut self,
        i: usize,
        paths: &BTreeSet<RelPath>,
        trees: &BTreeSet<RelPath>,
        look: &Look,
    ) {
        let above = |p: &RelPath, q: &Problem| is_unseen(q) && p.is_within(&q.path);
        let hidden = |p: &RelPath| look.problems.iter().any(|q| above(p, q));
        let looked_at = |p: &RelPath| paths.contains(p) || trees.iter().any(|t| p.is_within(t));
        self.close_over(i, look, |p| looked_at(p) && !hidden(p));
    }

    /// Problems at these paths are over, except those that the look tells again, and those of actions that are tried
    /// again: only the try can tell.
    pub(crate) fn close_over(&mut self, i: usize, look: &Look, seen: impl Fn(&RelPath) -> bool) {
        let again = |p: &RelPath, problem: &Problem| {
            let same = |q: &Problem| q.path == *p && (q.code == problem.code || is_unseen(q));
            look.problems.iter().any(same)
        };
        let observed = self.slots[i].is_observed();
        let tried = |p: &RelPath| !observed && (self.later.contains_key(p) || self.is_awaited(p));
        let over: Vec<RelPath> = self
            .problems
            .iter()
            .filter(|((r, p), problem)| *r == i && seen(p) && !again(p, problem))
            .filter(|((_, p), problem)| !(is_of_action(problem) && tried(p)))
            .map(|((_, p), _)| p.clone())
            .collect();
        for path in &over {
            if observed {
                // Whoever it is a matter of says so itself.
                self.end_problem(i, path);
            } else {
                self.close_problem(i, path);
            }
        }
    }

    /// What could not be looked at is looked at again now and then: not every cure is an event.
    pub(crate) fn look_at_problems(&mut self) {
        let now = self.env.monotonic_ns();
        if self.problem_look_due().is_none_or(|due| due > now) {
            return;
        }
        self.next_problem_look_ns = now + UNSEEN_NS;
        let unseen = self.problems.iter().filter(|(_, p)| is_unseen(p));
        for ((i, path), _) in unseen.take(UNSEEN_MAX) {
            self.slots[*i].hints.trees.insert(path.clone());
        }
    }

    /// When something that could not be looked at is looked at again, if there is anything.
    pub(crate) fn problem_look_due(&self) -> Option<u64> {
        let any = self.problems.values().any(is_unseen);
        (any && !self.options.once).then_some(self.next_problem_look_ns)
    }

    /// Content for this path is on its way.
    fn is_awaited(&self, path: &RelPath) -> bool {
        self.in_flight.values().any(|paths| paths.contains(path))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use std::sync::Arc;

    use instep_replica::env::StepEnv;

    use super::*;

    #[test]
    fn a_directory_that_could_not_be_listed_is_forgotten_when_an_action_fails_there() {
        let mut session = Session::of_two(&Arc::new(StepEnv::default()));
        let problem = |code| Problem {
            path: RelPath::new(b"d").unwrap(),
            code,
            detail: "as arranged".into(),
        };
        session.open_problem(0, problem(Code::Unreadable));
        session.open_problem(0, problem(Code::Unwritable));
        let listed: Vec<_> = session.problems.values().cloned().collect();
        assert_eq!(listed, [problem(Code::Unreadable)]);
        session.look_at_problems();
        let trees = &session.slots[0].hints.trees;
        assert!(trees.contains(&problem(Code::Unreadable).path));
    }

    #[test]
    fn a_root_that_could_not_be_listed_is_forgotten_when_it_cannot_be_watched() {
        let mut session = Session::of_two(&Arc::new(StepEnv::default()));
        session.slots[0].role = Role::Source;
        session.compare_all = false;
        let problem = |code| Problem {
            path: RelPath::root(),
            code,
            detail: "as arranged".into(),
        };
        let path = RelPath::new(b"extra").unwrap();
        let look = |codes: &[Code]| Look {
            problems: codes.iter().map(|code| problem(*code)).collect(),
            ..Look::default()
        };
        let mut turn = |look: &Look| {
            session.close_seen(
                0,
                &BTreeSet::new(),
                &BTreeSet::from([RelPath::root()]),
                look,
            );
            look.problems
                .iter()
                .for_each(|p| session.told(0, p.clone()));
            let is_compared = std::mem::take(&mut session.compare_all);
            (session.may_be_at_source(&path), is_compared)
        };
        let (unlisted, unwatched) = (Code::Unreadable, Code::WatchLimit);
        assert_eq!(turn(&look(&[unlisted, unwatched])), (true, false));
        assert_eq!(turn(&look(&[unwatched, unlisted])), (true, false));
        assert_eq!(turn(&look(&[unwatched])), (false, true), "it was listed");
        assert_eq!(turn(&look(&[unwatched])), (false, false));
        let listed: Vec<_> = session.problems.values().cloned().collect();
        assert_eq!(listed, [problem(unwatched)]);
    }
}
