//! Times as data: what the file system records, and the instants that order concurrent versions.
//! Reading a clock is somebody else's business; here a time is only ever compared.

use crate::limits::CLOCK_AHEAD_MAX_NS;

/// A modification time as file systems keep it: any second, nanoseconds below one second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mtime {
    /// Seconds since 1970, negative before.
    pub secs: i64,
    /// Nanoseconds within the second, below 1,000,000,000.
    pub nanos: u32,
}

impl Mtime {
    /// From nanoseconds since 1970.
    pub fn from_nanos(ns: i64) -> Self {
        Self {
            secs: ns.div_euclid(1_000_000_000),
            nanos: ns.rem_euclid(1_000_000_000) as u32,
        }
    }

    /// Nanoseconds since 1970; `None` beyond the years 1677 to 2262.
    pub fn nanos_since_epoch(self) -> Option<i64> {
        self.secs
            .checked_mul(1_000_000_000)?
            .checked_add(i64::from(self.nanos))
    }
}

/// An instant of a hybrid logical clock, in nanoseconds since 1970.
pub type Hlc = i64;

const YEAR_1980_NS: i64 = 315_532_800 * 1_000_000_000;

/// The instant that orders a version among concurrent ones, fixed once by the actor that mints it.
///
/// The earlier of modification time and clock, because tools that copy set old times on purpose; the clock
/// alone when the modification time is absurd (before 1980, or ahead of the clock by more than two
/// minutes), because a wrong future time would win for ever.
pub fn effective_time(mtime: Mtime, hlc: Hlc) -> Hlc {
    match mtime.nanos_since_epoch() {
        Some(ns) if ns >= YEAR_1980_NS && ns <= hlc.saturating_add(CLOCK_AHEAD_MAX_NS) => {
            ns.min(hlc)
        }
        _ => hlc,
    }
}

/// The next instant of a hybrid logical clock: later than `last`, and not before the wall clock.
pub fn tick(last: Hlc, wall_ns: i64) -> Hlc {
    wall_ns.max(last.saturating_add(1))
}

/// What a clock becomes when it hears of a remote instant: never more than two minutes ahead of the wall.
pub fn adopt(last: Hlc, remote: Hlc, wall_ns: i64) -> Hlc {
    last.max(remote.min(wall_ns.saturating_add(CLOCK_AHEAD_MAX_NS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_modification_times_do_not_win() {
        let now = 1_800_000_000 * 1_000_000_000;
        let at = |secs| Mtime { secs, nanos: 0 };
        for (mtime, want) in [
            (at(1_700_000_000), 1_700_000_000 * 1_000_000_000),
            (at(1_800_000_060), now),
            (at(1_800_000_121), now),
            (at(-1), now),
            (at(0), now),
            (at(1 << 33), now),
            (at(i64::MAX), now),
        ] {
            assert_eq!(effective_time(mtime, now), want, "{mtime:?}");
        }
    }

    #[test]
    fn nanoseconds_before_1970_survive() {
        assert_eq!(
            Mtime::from_nanos(-1),
            Mtime {
                secs: -1,
                nanos: 999_999_999
            }
        );
        assert_eq!(Mtime::from_nanos(-1).nanos_since_epoch(), Some(-1));
    }
}
