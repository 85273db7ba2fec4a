//! What is left out of a seed: operations of users and faults, by number, so that a failing seed can be made small.
//!
//! Owns the numbers and their text. Invariants: leaving something out changes no choice that the seed makes about
//! anything else; an empty mask leaves a seed as it is.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use instep_fs::sim::SimConfig;

use crate::faults::{Clock, Line, Plan, Policy, Round};

/// The first number of a fault; below are users' operations in the order in which they are due.
pub(crate) const FAULTS: u32 = 10_000;
/// The first number after the last fault.
pub(crate) const END: u32 = FAULTS + 700;

const CRASH: u32 = FAULTS;
const MISHAP: u32 = FAULTS + 100;
const TROUBLE: u32 = FAULTS + 200;
const ERRORS: u32 = FAULTS + 300;
const LINE: u32 = FAULTS + 310;
const DISK: u32 = FAULTS + 320;
const CLOCK: u32 = FAULTS + 330;
const POLICY: u32 = FAULTS + 340;
const LATE: u32 = FAULTS + 350;
const BETWEEN: u32 = FAULTS + 351;
const LAST_MACHINE: u32 = FAULTS + 352;

/// What is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mask {
    /// The numbers of what is left out.
    pub dropped: BTreeSet<u32>,
    /// Sessions under faults, where they are not as many as the seed wants.
    pub rounds: Option<usize>,
}

impl Mask {
    fn has(&self, number: u32) -> bool {
        self.dropped.contains(&number)
    }

    /// Whether an operation of a user is left out.
    pub(crate) fn drops_act(&self, act: u64) -> bool {
        u32::try_from(act).is_ok_and(|n| n < FAULTS && self.has(n))
    }

    /// What is left of a round.
    pub(crate) fn round(&self, n: usize, round: Round) -> Round {
        let n = n as u32;
        Round {
            crash: round.crash.filter(|_| !self.has(CRASH + n)),
            mishap: round.mishap.filter(|_| !self.has(MISHAP + n)),
            ..round
        }
    }

    /// What is left of a plan.
    pub(crate) fn plan(&self, plan: Plan) -> Plan {
        let mut plan = plan;
        let numbered = |from: u32| (0..).map(move |n| self.has(from + n));
        let mut out = numbered(TROUBLE);
        plan.troubles.retain(|_| out.next() != Some(true));
        for (out, errors) in numbered(ERRORS).zip(&mut plan.errors) {
            *errors &= !out;
        }
        for (_, line) in numbered(LINE).zip(&mut plan.lines).filter(|(out, _)| *out) {
            *line = Line { rate: 0 };
        }
        for (_, disk) in numbered(DISK).zip(&mut plan.disks).filter(|(out, _)| *out) {
            *disk = SimConfig::ext4(disk.seed);
        }
        for (_, clock) in numbered(CLOCK)
            .zip(&mut plan.clocks)
            .filter(|(out, _)| *out)
        {
            *clock = Clock {
                skew_ns: 0,
                drift_ppm: 0,
            };
        }
        for (_, policy) in numbered(POLICY)
            .zip(&mut plan.policies)
            .filter(|(out, _)| *out)
        {
            *policy = None;
        }
        if self.has(LATE) {
            plan.join_round = 0;
        }
        if self.has(BETWEEN) {
            plan.between_calls = 0;
        }
        if self.has(LAST_MACHINE) {
            without_last(&mut plan);
        }
        plan
    }

    /// As the program takes it: what comes after the seed.
    pub fn arguments(&self) -> String {
        let dropped = (!self.dropped.is_empty()).then(|| format!(" --without {self}"));
        let rounds = self.rounds.map(|rounds| format!(" --rounds {rounds}"));
        dropped.into_iter().chain(rounds).collect()
    }
}

fn without_last(plan: &mut Plan) {
    let left = plan.disks.len() - 1;
    plan.disks.truncate(left);
    plan.errors.truncate(left);
    plan.lines.truncate(left);
    plan.clocks.truncate(left);
    for policy in &mut plan.policies {
        *policy = policy.filter(|p| !matches!(p, Policy::Prefer(machine) if *machine >= left));
    }
    for round in &mut plan.rounds {
        round.mishap = round.mishap.filter(|(machine, _)| *machine < left);
    }
}

/// Numbers and ranges: `3,7-12`.
impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = self.dropped.iter().copied().peekable();
        let mut comma = "";
        while let Some(first) = left.next() {
            let mut last = first;
            while left.next_if_eq(&(last + 1)).is_some() {
                last += 1;
            }
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
            comma = ",";
        }
        Ok(())
    }
}

/// Why a text is no mask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskError(String);

impl fmt::Display for MaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a number or range below {END}: {:?}", self.0)
    }
}

impl std::error::Error for MaskError {}

impl FromStr for Mask {
    type Err = MaskError;

    fn from_str(text: &str) -> Result<Self, MaskError> {
        let mut dropped = BTreeSet::new();
        for part in text.split(',') {
            let bad = || MaskError(part.to_owned());
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first: u32 = first.parse().map_err(|_| bad())?;
            let last: u32 = last.parse().map_err(|_| bad())?;
            if first > last || last >= END {
                return Err(bad());
            }
            dropped.extend(first..=last);
        }
        Ok(Self {
            dropped,
            rounds: None,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

    use super::*;
    use instep_testkit::prng::Prng;

    #[test]
    fn a_mask_is_not_what_it_was_written_as() {
        for text in ["3", "3,7-12", "0-1,10000,10350-10352"] {
            assert_eq!(text.parse::<Mask>().unwrap().to_string(), text);
        }
        for text in ["", "x", "3,", "9-7", "1-", "99999999999", "10700"] {
            assert!(text.parse::<Mask>().is_err(), "{text}");
        }
        let mask = Mask {
            rounds: Some(2),
            ..Mask::default()
        };
        assert_eq!(mask.arguments(), " --rounds 2");
    }

    #[test]
    fn a_fault_that_is_left_out_strikes() {
        let all: Mask = format!("{FAULTS}-{}", END - 1).parse().unwrap();
        for seed in 0..50 {
            let whole = Plan::new(&mut Prng::new(seed));
            let plan = all.plan(whole.clone());
            assert_eq!(plan.disks.len() + 1, whole.disks.len());
            assert!(plan.troubles.is_empty() && !plan.errors.contains(&true));
            assert!(plan.lines.iter().all(|l| l.rate == 0));
            let left = plan
                .rounds
                .iter()
                .enumerate()
                .map(|(n, r)| all.round(n, *r));
            assert!(
                left.into_iter()
                    .all(|r| r.crash.is_none() && r.mishap.is_none())
            );
            let same = Mask::default().plan(whole.clone());
            assert_eq!(format!("{same:?}"), format!("{whole:?}"));
        }
    }
}
