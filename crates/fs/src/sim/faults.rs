//! What goes wrong, and when: the generator of chance, injected errors, the scheduled crash, call counts.
//!
//! Owns no file system state. Invariant: with one seed and one order of calls, the same calls fail.

use std::collections::BTreeMap;

use instep_core::fnv;

use crate::api::ERRNO_CRASHED;

/// A small generator (splitmix64): every choice the simulator makes comes from one of these.
#[derive(Debug, Clone)]
pub(super) struct Rng(u64);

impl Rng {
    /// A generator with its own sequence for each seed.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed ^ 0x5851_f42d_4c95_7f2d)
    }

    /// The next 64 bits.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; zero when `n` is zero.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        if n == 0 {
            0
        } else {
            ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
        }
    }

    /// True in `per_mille` of 1000 cases. Draws nothing where the answer is certain.
    pub(super) fn chance(&mut self, per_mille: u32) -> bool {
        match per_mille {
            0 => false,
            1000.. => true,
            _ => self.below(1000) < u64::from(per_mille),
        }
    }
}

/// One kind of injected error.
#[derive(Debug, Clone)]
struct Fault {
    op: &'static str,
    per_mille: u32,
    errno: i32,
    /// How many more times it may strike.
    left: u64,
    /// The call has its effect, and reports failure all the same.
    after: bool,
}

/// Why a call does not go its normal way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It does.
    Proceed,
    /// It fails with this number and has no effect.
    Fail(i32),
    /// It has its effect and fails with this number.
    FailAfter(i32),
}

/// Injected errors, the scheduled crash, and the count of calls.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults {
    list: Vec<Fault>,
    counts: BTreeMap<&'static str, u64>,
    total: u64,
    history: u64,
    crash_at: Option<u64>,
    met: Misfortunes,
}

/// What went wrong on a machine so far, counted as it struck.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Misfortunes {
    /// Calls that an injected error struck.
    pub errors: u64,
    /// Events that were lost without a trace.
    pub lost: u64,
    /// Queues of events that overflowed.
    pub overflows: u64,
}

impl Faults {
    pub(super) fn add(
        &mut self,
        op: &'static str,
        per_mille: u32,
        errno: i32,
        left: u64,
        after: bool,
    ) {
        self.list.push(Fault {
            op,
            per_mille,
            errno,
            left,
            after,
        });
    }

    pub(super) fn end_last(&mut self, op: &str) {
        if let Some(at) = self.list.iter().rposition(|f| f.op == op) {
            self.list.remove(at);
        }
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
    }

    /// The `calls`-th call from now and everything after it finds the machine crashed.
    pub(super) fn crash_after(&mut self, calls: u64) {
        self.crash_at = Some(self.total + calls.max(1));
    }

    pub(super) fn cancel_crash(&mut self) {
        self.crash_at = None;
    }

    pub(super) fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn met(&self) -> Misfortunes {
        self.met
    }

    pub(super) fn met_mut(&mut self) -> &mut Misfortunes {
        &mut self.met
    }

    pub(super) fn history(&self) -> u64 {
        self.history
    }

    /// Adds how a call ended to the history.
    pub(super) fn note(&mut self, op: &str, errno: i32) {
        let history = fnv::add(self.history, op.as_bytes());
        self.history = fnv::add(history, &errno.to_le_bytes());
    }

    pub(super) fn reset_counts(&mut self) {
        self.counts.clear();
    }

    /// Counts a call and decides how it goes. `Fail(ERRNO_CRASHED)` when the scheduled crash is reached.
    pub(super) fn enter(&mut self, op: &'static str, rng: &mut Rng) -> Verdict {
        self.total += 1;
        *self.counts.entry(op).or_default() += 1;
        if self.crash_at.is_some_and(|at| self.total >= at) {
            return Verdict::Fail(ERRNO_CRASHED);
        }
        for fault in self
            .list
            .iter_mut()
            .filter(|f| f.left > 0 && (f.op == op || f.op == "*"))
        {
            if rng.chance(fault.per_mille) {
                fault.left -= 1;
                self.met.errors += 1;
                let errno = fault.errno;
                return if fault.after {
                    Verdict::FailAfter(errno)
                } else {
                    Verdict::Fail(errno)
                };
            }
        }
        Verdict::Proceed
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn chance_follows_its_rate() {
        let mut rng = Rng::new(1);
        let hits = (0..10_000).filter(|_| rng.chance(250)).count();
        assert!((2_300..2_700).contains(&hits), "{hits}");
        assert!((0..1000).all(|_| rng.below(7) < 7));
    }

    #[test]
    fn a_fault_strikes_its_own_operation_and_only_as_often_as_told() {
        let mut rng = Rng::new(1);
        let mut f = Faults::default();
        f.add("read_at", 1000, 5, 2, false);
        assert_eq!(f.enter("stat", &mut rng), Verdict::Proceed);
        assert_eq!(f.enter("read_at", &mut rng), Verdict::Fail(5));
        assert_eq!(f.enter("read_at", &mut rng), Verdict::Fail(5));
        assert_eq!(f.enter("read_at", &mut rng), Verdict::Proceed);
        assert_eq!(f.counts().get("read_at"), Some(&3));
    }

    #[test]
    fn the_scheduled_call_and_all_later_ones_crash() {
        let mut rng = Rng::new(1);
        let mut f = Faults::default();
        f.crash_after(2);
        assert_eq!(f.enter("a", &mut rng), Verdict::Proceed);
        assert_eq!(f.enter("a", &mut rng), Verdict::Fail(ERRNO_CRASHED));
        assert_eq!(f.enter("b", &mut rng), Verdict::Fail(ERRNO_CRASHED));
    }
}
