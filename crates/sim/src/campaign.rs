//! Many seeds on a few threads: counting, running some of them twice, and sorting what failed.
//!
//! Owns no clock and prints nothing. Invariant: what is found does not depend on the number of threads, but
//! for the order in which it is found; failures are handed back in the order of their seeds.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::counts::Counts;
use crate::coverage::Cells;
use crate::seed::{Failure, Report, cover, run};

/// Of so many seeds one is run twice.
const TWICE: u64 = 100;
/// Seeds that are named for each broken promise.
const NAMED: usize = 5;

/// Which seeds, and on how many threads.
#[derive(Debug, Clone, Copy)]
pub struct Campaign {
    /// The first seed.
    pub from: u64,
    /// How many.
    pub count: u64,
    /// Threads; each seed is run on one of them from start to end.
    pub threads: usize,
}

/// What became of a campaign.
#[derive(Debug, Default)]
pub struct Tally {
    /// Seeds that were run.
    pub seeds: u64,
    /// Of these, run twice.
    pub twice: u64,
    /// What happened in the first run of each seed.
    pub counts: Counts,
    /// What failed, by seed.
    pub failures: Vec<Failure>,
}

impl Campaign {
    /// Runs the seeds. `progress` hears of each that is done, on any of the threads: how many are, and how this
    /// one failed, if it did.
    pub fn run(&self, progress: &(impl Fn(u64, Option<&Failure>) + Sync)) -> Tally {
        self.run_with(&run, progress)
    }

    /// Counts the decisions that the seeds meet.
    pub fn cover(&self) -> Cells {
        let next = AtomicU64::new(0);
        let all = Mutex::new(Cells::default());
        let work = || {
            loop {
                let done = next.fetch_add(1, Ordering::Relaxed);
                if done >= self.count {
                    return;
                }
                let cells = cover(self.from.wrapping_add(done));
                all.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .add(&cells);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                scope.spawn(work);
            }
        });
        all.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn run_with(
        &self,
        one: &Seed<'_>,
        progress: &(impl Fn(u64, Option<&Failure>) + Sync),
    ) -> Tally {
        let next = AtomicU64::new(0);
        let tally = Mutex::new(Tally::default());
        let work = || {
            loop {
                let done = next.fetch_add(1, Ordering::Relaxed);
                if done >= self.count {
                    return;
                }
                let seed = self.from.wrapping_add(done);
                let first = one(seed);
                let second = seed.is_multiple_of(TWICE).then(|| one(seed));
                let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                let before = tally.failures.len();
                tally.add(first, second);
                progress(tally.seeds, tally.failures.get(before));
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                scope.spawn(work);
            }
        });
        let mut tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
        tally.failures.sort_by_key(|f| f.seed);
        tally
    }
}

type Verdict = Result<Report, Box<Failure>>;
type Seed<'a> = dyn Fn(u64) -> Verdict + Sync + 'a;

fn digest(verdict: &Verdict) -> u64 {
    match verdict {
        Ok(report) => report.digest,
        Err(failure) => failure.digest,
    }
}

impl Tally {
    fn add(&mut self, first: Verdict, second: Option<Verdict>) {
        self.seeds += 1;
        self.twice += u64::from(second.is_some());
        let differs = second.filter(|second| digest(second) != digest(&first));
        let differs = differs.map(|second| {
            let (one, two) = (digest(&first), digest(&second));
            format!("not deterministic: {one:016x}, then {two:016x}")
        });
        match first {
            Ok(report) => {
                self.counts.add(&report.counts);
                if let Some(line) = differs {
                    self.failures.push(Failure {
                        broken: vec![line],
                        ..Failure::of(report)
                    });
                }
            }
            Err(mut failure) => {
                self.counts.add(&failure.counts);
                failure.broken.extend(differs);
                self.failures.push(*failure);
            }
        }
    }

    /// The broken promises, each with how many seeds broke it and the first of them.
    pub fn by_promise(&self) -> BTreeMap<String, (usize, Vec<u64>)> {
        let mut out: BTreeMap<String, (usize, Vec<u64>)> = BTreeMap::new();
        for failure in &self.failures {
            let (count, seeds) = out.entry(failure.promise()).or_default();
            *count += 1;
            if seeds.len() < NAMED {
                seeds.push(failure.seed);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(seed: u64, digest: u64) -> Report {
        Report {
            seed,
            digest,
            profile: "sim".to_owned(),
            rounds: 3,
            trace: Vec::new(),
            counts: Counts {
                calls: 10,
                ..Counts::default()
            },
        }
    }

    #[test]
    fn a_seed_that_takes_two_courses_is_not_noticed() {
        let runs = AtomicU64::new(0);
        let one = |seed| Ok(report(seed, runs.fetch_add(1, Ordering::Relaxed)));
        let campaign = Campaign {
            from: 95,
            count: 10,
            threads: 1,
        };
        let tally = campaign.run_with(&one, &|_, _| ());
        assert_eq!((tally.seeds, tally.twice, tally.counts.calls), (10, 1, 100));
        let seeds: Vec<u64> = tally.failures.iter().map(|f| f.seed).collect();
        assert_eq!(seeds, [100]);
        let grouped = tally.by_promise();
        assert_eq!(grouped.get("not deterministic"), Some(&(1, vec![100])));
    }

    #[test]
    fn failures_are_not_sorted_by_the_promise_that_they_break() {
        let one = |seed: u64| {
            let mut failure = Failure::of(report(seed, 1));
            failure.broken = if seed.is_multiple_of(2) {
                vec![
                    "live and in sync, but:".to_owned(),
                    format!("I2: trees differ {seed}"),
                ]
            } else {
                vec![format!("panic: {seed}")]
            };
            Err(Box::new(failure))
        };
        let campaign = Campaign {
            from: 1,
            count: 20,
            threads: 2,
        };
        let told = AtomicU64::new(0);
        let tally = campaign.run_with(&one, &|_, failure| {
            told.fetch_add(u64::from(failure.is_some()), Ordering::Relaxed);
        });
        assert_eq!(told.into_inner(), 20, "each is told when it fails");
        let grouped = tally.by_promise();
        assert_eq!(grouped.get("I2"), Some(&(10, vec![2, 4, 6, 8, 10])));
        assert_eq!(grouped.get("panic"), Some(&(10, vec![1, 3, 5, 7, 9])));
        assert_eq!(grouped.len(), 2);
    }
}
