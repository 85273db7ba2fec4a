//! What the far end says of itself to people: how much it has, and which paths have a difficulty there.
//!
//! Invariant: it is shown and decides nothing; and it is bounded, whatever the far end says.

use std::collections::BTreeMap;

use instep_core::path::RelPath;
use instep_core::plan::Problem;
use instep_replica::{Look, Scope, Totals};

/// Difficulties that are listed.
const PROBLEMS_MAX: usize = 10_000;

/// What the far end said of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// How much it has.
    pub(crate) totals: Totals,
    problems: BTreeMap<RelPath, Problem>,
}

impl Report {
    /// A difficulty has come up, or is over.
    pub(crate) fn problem(&mut self, problem: Problem, open: bool) {
        if !open {
            self.problems.remove(&problem.path);
        } else if self.problems.len() < PROBLEMS_MAX {
            self.problems.insert(problem.path.clone(), problem);
        }
    }

    /// Forgets the difficulties; returns where they were.
    pub(crate) fn begin(&mut self) -> Vec<RelPath> {
        std::mem::take(&mut self.problems).into_keys().collect()
    }

    /// As a look at the far end would say it.
    pub(crate) fn look(&self, scope: &Scope) -> Look {
        let is_seen = |path: &RelPath| match scope {
            Scope::Everything => true,
            Scope::Some { paths, trees } => {
                paths.contains(path) || trees.iter().any(|tree| path.is_within(tree))
            }
            Scope::Rest(_) => false,
        };
        let problems = self.problems.values().filter(|p| is_seen(&p.path));
        Look {
            totals: self.totals,
            problems: problems.cloned().collect(),
            ..Look::default()
        }
    }
}
