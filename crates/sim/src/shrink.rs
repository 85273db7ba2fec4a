//! Makes a failing seed small: leaves out sessions, operations and faults as long as the same promise breaks.
//!
//! Delta debugging (Zeller and Hildebrandt, 2002). Prints nothing. Invariant: what is handed back broke the same
//! promise when it was run last.

use crate::mask::{END, FAULTS, Mask};
use crate::seed::{Failure, Report, run_masked};

/// Runs that one seed is worth.
const RUNS: u64 = 3000;

/// A failure made small.
#[derive(Debug)]
pub struct Shrunk {
    /// What is left out.
    pub mask: Mask,
    /// How it fails now.
    pub failure: Failure,
    /// Operations of users that are left.
    pub acts: usize,
    /// How often it was run.
    pub runs: u64,
}

/// Makes a seed small; `None` when it does not fail.
pub fn shrink(seed: u64, mask: &Mask) -> Option<Shrunk> {
    shrink_with(mask, &|mask| run_masked(seed, mask))
}

type Run<'a> = dyn Fn(&Mask) -> Result<Report, Box<Failure>> + 'a;

fn shrink_with(mask: &Mask, run: &Run<'_>) -> Option<Shrunk> {
    let failure = *run(mask).err()?;
    let mut search = Search {
        promise: failure.promise(),
        best: mask.clone(),
        failure,
        runs: 1,
        run,
    };
    search.fewer_rounds();
    search.fewer_items();
    search.fewer_rounds();
    Some(Shrunk {
        acts: search.acts().len(),
        mask: search.best,
        failure: search.failure,
        runs: search.runs,
    })
}

struct Search<'a> {
    promise: String,
    best: Mask,
    failure: Failure,
    runs: u64,
    run: &'a Run<'a>,
}

impl Search<'_> {
    /// Keeps a mask under which the same promise breaks.
    fn keeps(&mut self, mask: Mask) -> bool {
        if self.runs >= RUNS {
            return false;
        }
        self.runs += 1;
        let Err(failure) = (self.run)(&mask) else {
            return false;
        };
        let same = failure.promise() == self.promise;
        if same {
            (self.best, self.failure) = (mask, *failure);
        }
        same
    }

    fn fewer_rounds(&mut self) {
        loop {
            let rounds = self.best.rounds.unwrap_or(self.failure.rounds);
            let fewer = Mask {
                rounds: rounds.checked_sub(1),
                ..self.best.clone()
            };
            // A number at all is needed, so that fewer faults do not mean more sessions.
            if fewer.rounds.is_none() || !self.keeps(fewer) {
                let fixed = Mask {
                    rounds: Some(rounds),
                    ..self.best.clone()
                };
                self.keeps(fixed);
                return;
            }
        }
    }

    fn acts(&self) -> Vec<u32> {
        let acts = u32::try_from(self.failure.counts.acts).unwrap_or(u32::MAX);
        let acts = 0..acts.min(FAULTS);
        acts.filter(|n| !self.best.dropped.contains(n)).collect()
    }

    /// Leaves out ever smaller pieces of what is left, until no single one can be missed.
    fn fewer_items(&mut self) {
        let faults = (FAULTS..END).filter(|n| !self.best.dropped.contains(n));
        let mut left: Vec<u32> = self.acts().into_iter().chain(faults).collect();
        let mut size = left.len().div_ceil(2);
        while size > 0 {
            let mut missed = false;
            for piece in left.clone().chunks(size) {
                let mut mask = self.best.clone();
                mask.dropped.extend(piece);
                if self.keeps(mask) {
                    left.retain(|n| !piece.contains(n));
                    missed = true;
                }
            }
            size = if missed && size == 1 { 1 } else { size / 2 };
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

    use super::*;
    use crate::counts::Counts;

    fn outcome(broken: &str) -> Result<Report, Box<Failure>> {
        let report = Report {
            seed: 1,
            digest: 1,
            profile: String::new(),
            rounds: 4,
            trace: Vec::new(),
            counts: Counts {
                acts: 120,
                ..Counts::default()
            },
        };
        if broken.is_empty() {
            return Ok(report);
        }
        let mut failure = Failure::of(report);
        failure.broken.push(broken.to_owned());
        Err(Box::new(failure))
    }

    #[test]
    fn more_is_kept_than_the_failure_needs() {
        let needed = [7, 40, 41, FAULTS + 100];
        let run = |mask: &Mask| {
            let all = needed.iter().all(|n| !mask.dropped.contains(n));
            outcome(if all && mask.rounds.unwrap_or(4) >= 2 {
                "I2: trees differ"
            } else if mask.dropped.contains(&50) {
                "I1: lost"
            } else {
                ""
            })
        };
        let shrunk = shrink_with(&Mask::default(), &run).unwrap();
        assert_eq!(shrunk.acts, 3);
        assert_eq!(shrunk.mask.rounds, Some(2));
        assert_eq!(shrunk.failure.promise(), "I2");
        assert!(needed.iter().all(|n| !shrunk.mask.dropped.contains(n)));
        assert_eq!(shrunk.mask.dropped.len() as u32, 117 + (END - FAULTS) - 1);
        assert!(shrunk.runs < 400, "{}", shrunk.runs);
    }

    #[test]
    fn a_seed_that_keeps_its_promises_is_made_small() {
        assert!(shrink_with(&Mask::default(), &|_| outcome("")).is_none());
    }
}
