//! What was deleted and created on one replica lately, so that a disaster in parts is seen as one.
//!
//! Deletions count net of the creations that went with them. Invariant: parts that follow each other within
//! ten seconds are one burst, however long passing them on takes.

use std::collections::VecDeque;

/// Deletions that follow each other within this time are one burst.
const BURST_NS: u64 = 10_000_000_000;
/// A burst is remembered for this long.
const REMEMBERED_NS: u64 = 120_000_000_000;

/// One look's part.
#[derive(Debug, Clone, Copy)]
struct Part {
    at_ns: u64,
    net_deletes: u64,
    creates: u64,
}

/// The parts of late, in order of time.
#[derive(Debug, Default)]
pub(crate) struct Burst(VecDeque<Part>);

impl Burst {
    /// Takes note of what is passed on now.
    pub(crate) fn note(&mut self, at_ns: u64, net_deletes: u64, creates: u64) {
        let is_old = |p: &Part| at_ns.saturating_sub(p.at_ns) > REMEMBERED_NS;
        while self.0.front().is_some_and(is_old) {
            self.0.pop_front();
        }
        if net_deletes + creates > 0 {
            self.0.push_back(Part {
                at_ns,
                net_deletes,
                creates,
            });
        }
    }

    /// Net deletions of the burst that goes on at that time.
    pub(crate) fn deletes(&self, now_ns: u64) -> u64 {
        let (mut deletes, mut next_ns) = (0, now_ns);
        for part in self.0.iter().rev().filter(|p| p.net_deletes > 0) {
            if next_ns.saturating_sub(part.at_ns) > BURST_NS {
                break;
            }
            deletes += part.net_deletes;
            next_ns = part.at_ns;
        }
        deletes
    }

    /// Creations since a time.
    pub(crate) fn creates_since(&self, since_ns: u64) -> u64 {
        let late = self.0.iter().filter(|p| p.at_ns >= since_ns);
        late.map(|p| p.creates).sum()
    }

    /// What was noted since a time has been passed on only now.
    pub(crate) fn passed_on(&mut self, since_ns: u64, now_ns: u64) {
        let late = self.0.iter_mut().rev();
        late.take_while(|p| p.at_ns >= since_ns)
            .for_each(|p| p.at_ns = now_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn noted(parts: &[(u64, u64, u64)]) -> Burst {
        let mut burst = Burst::default();
        for (at, deletes, creates) in parts {
            burst.note(at * S, *deletes, *creates);
        }
        burst
    }

    #[test]
    fn a_slow_disaster_passes_in_small_parts() {
        let burst = noted(&[(0, 100, 0), (8, 100, 0), (16, 100, 0)]);
        assert_eq!(burst.deletes(20 * S), 300);
    }

    #[test]
    fn deletions_of_this_morning_count_against_those_of_now() {
        let burst = noted(&[(0, 100, 0), (11, 50, 0)]);
        assert_eq!(burst.deletes(12 * S), 50);
        assert_eq!(burst.deletes(22 * S), 0);
        let endless: Vec<(u64, u64, u64)> = (0..100).map(|n| (n * 9, 10, 0)).collect();
        assert!(noted(&endless).deletes(900 * S) <= 140);
    }

    #[test]
    fn passing_on_one_part_makes_the_next_a_burst_of_its_own() {
        let mut burst = noted(&[(0, 5, 0), (100, 18_000, 7)]);
        burst.passed_on(100 * S, 111 * S);
        assert_eq!(burst.deletes(120 * S), 18_000);
        assert_eq!(burst.creates_since(105 * S), 7);
    }

    #[test]
    fn creations_end_a_burst_of_deletions() {
        let burst = noted(&[(0, 100, 0), (8, 0, 500), (9, 100, 0)]);
        assert_eq!(burst.deletes(10 * S), 200);
        assert_eq!(burst.creates_since(8 * S), 500);
        assert_eq!(burst.creates_since(9 * S), 0);
    }
}
