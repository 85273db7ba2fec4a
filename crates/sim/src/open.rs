//! Seeds whose failures are known and not mended yet.
//!
//! Owns the form of that list: a seed, the promise that it breaks, and what is known of the cause. Invariant: the list
//! excuses nothing else, and a seed of it that keeps its promises is a finding, so that it cannot outlive its defect.

use std::collections::BTreeMap;

use crate::campaign::{Campaign, Tally};

/// The list.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Open(BTreeMap<u64, String>);

impl Open {
    /// Reads a list: one seed a line; what begins with `#` is for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lines = text.lines().map(str::trim).enumerate();
        let lines = lines.filter(|(_, l)| !l.is_empty() && !l.starts_with('#'));
        let mut open = BTreeMap::new();
        for (at, line) in lines {
            let mut words = line.splitn(3, ' ');
            let seed = words.next().and_then(|w| w.parse().ok());
            let promise = words.next();
            let cause = words.next().map(str::trim);
            let (Some(seed), Some(promise), Some(_)) = (seed, promise, cause) else {
                return Err(format!("line {}: not \"SEED PROMISE CAUSE\"", at + 1));
            };
            if open.insert(seed, promise.to_owned()).is_some() {
                return Err(format!("line {}: {seed} is there twice", at + 1));
            }
        }
        Ok(Self(open))
    }

    /// What of a campaign is news: failures that the list does not have, and seeds of it that failed no more.
    pub fn judge(&self, campaign: &Campaign, tally: &Tally) -> Vec<String> {
        let failures = tally.failures.iter();
        let failed: BTreeMap<u64, String> = failures.map(|f| (f.seed, f.promise())).collect();
        let unknown = failed
            .iter()
            .filter(|(seed, promise)| self.0.get(*seed) != Some(*promise));
        let unknown = unknown.map(|(seed, promise)| format!("seed {seed} breaks {promise}"));
        let after = campaign.from.saturating_add(campaign.count);
        let mended = self.0.range(campaign.from..after);
        let mended = mended.filter(|(seed, _)| !failed.contains_key(*seed));
        let mended =
            mended.map(|(seed, _)| format!("seed {seed} fails no more: strike it off the list"));
        unknown.chain(mended).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;
    use crate::seed::Failure;

    fn judged(open: &str, failed: &[(u64, &str)]) -> Vec<String> {
        let failures = failed.iter().map(|(seed, line)| Failure {
            seed: *seed,
            broken: vec![(*line).to_owned()],
            digest: 0,
            profile: String::new(),
            rounds: 0,
            trace: Vec::new(),
            counts: crate::counts::Counts::default(),
        });
        let tally = Tally {
            failures: failures.collect(),
            ..Tally::default()
        };
        let campaign = Campaign {
            from: 1,
            count: 100,
            threads: 1,
        };
        Open::parse(open).unwrap().judge(&campaign, &tally)
    }

    #[test]
    fn a_defect_that_is_new_or_mended_passes_unnoticed() {
        let open = "# head\n7 I2 a directory is missing\n900 I1 out of range\n";
        assert!(judged(open, &[(7, "I2: trees differ")]).is_empty());
        assert_eq!(
            judged(open, &[]),
            ["seed 7 fails no more: strike it off the list"]
        );
        let other = judged(open, &[(7, "I1: lost"), (8, "I2: trees differ")]);
        assert_eq!(other, ["seed 7 breaks I1", "seed 8 breaks I2"]);
    }

    #[test]
    fn a_broken_line_is_passed_over() {
        for bad in ["x I2 cause", "7 I2", "7", "7 I2 one\n7 I3 two"] {
            assert!(Open::parse(bad).is_err(), "{bad}");
        }
    }
}
