//! Who sends next: classes by deficit round robin, 16:8:3:1, and inside a class whoever has least left.
//!
//! Pure; time is given. Invariants: nobody starves (what waited long is served as more urgent, and big contents have a
//! tenth of the connection whatever else there is); what is urgent never waits for more than one frame.

use std::time::Duration;

use crate::frame::Class;
use crate::limits;

/// Bytes that a class of weight one may send in a round.
const QUANTUM: i64 = 16 * 1024;
const WEIGHTS: [i64; 4] = [16, 8, 3, 1];
/// One in so many bytes is kept for big contents.
const BULK_SHARE: u64 = 10;
/// After so many bytes the share of big contents is counted anew, half of the past forgotten.
const MEMORY: u64 = 16 * 1024 * 1024;

/// Something that could send now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    pub(crate) stream: u32,
    pub(crate) class: Class,
    /// Bytes until it is done.
    pub(crate) remaining: u64,
    /// When it was last served, or came.
    pub(crate) since: Duration,
}

impl Candidate {
    /// As urgent as it is after the time that it waited.
    fn lane(&self, now: Duration) -> usize {
        let waited = now.saturating_sub(self.since).as_secs() / limits::AGING.as_secs();
        (self.class as usize).saturating_sub(waited as usize)
    }
}

/// The state of the round.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    deficit: [i64; 4],
    turn: usize,
    sent: u64,
    sent_bulk: u64,
}

impl Lanes {
    /// Chooses, and says as which class it is served.
    pub(crate) fn pick(&mut self, all: &[Candidate], now: Duration) -> Option<(u32, usize)> {
        let mut lanes: [Option<&Candidate>; 4] = [None; 4];
        let mut bulk: Option<&Candidate> = None;
        for candidate in all {
            let least = |best: &mut Option<&Candidate>| {
                best.is_none_or(|b| {
                    (candidate.remaining, candidate.stream) < (b.remaining, b.stream)
                })
            };
            let lane = &mut lanes[candidate.lane(now)];
            if least(lane) {
                *lane = Some(candidate);
            }
            if candidate.class == Class::Bulk && least(&mut bulk) {
                bulk = Some(candidate);
            }
        }
        let Some(bulk) = bulk else {
            (self.sent, self.sent_bulk) = (0, 0);
            return self.round(&lanes);
        };
        if self.sent_bulk * BULK_SHARE < self.sent {
            return Some((bulk.stream, Class::Bulk as usize));
        }
        self.round(&lanes)
    }

    fn round(&mut self, lanes: &[Option<&Candidate>; 4]) -> Option<(u32, usize)> {
        if lanes.iter().all(Option::is_none) {
            self.deficit = [0; 4];
            return None;
        }
        loop {
            let lane = self.turn;
            match lanes[lane] {
                Some(next) if self.deficit[lane] > 0 => return Some((next.stream, lane)),
                Some(_) => {}
                // Whoever has nothing to send saves nothing up.
                None => self.deficit[lane] = self.deficit[lane].min(0),
            }
            self.turn = (lane + 1) % 4;
            if lanes[self.turn].is_some() {
                self.deficit[self.turn] += WEIGHTS[self.turn] * QUANTUM;
            }
        }
    }

    /// Counts what was sent.
    pub(crate) fn spent(&mut self, lane: usize, class: Class, bytes: usize) {
        // What was served out of turn is not held against a class for ever.
        let least = -(limits::FRAME_BYTES_MAX as i64);
        self.deficit[lane] = (self.deficit[lane] - bytes as i64).max(least);
        self.sent += bytes as u64;
        if class == Class::Bulk {
            self.sent_bulk += bytes as u64;
        }
        if self.sent > MEMORY {
            (self.sent, self.sent_bulk) = (self.sent / 2, self.sent_bulk / 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidate(stream: u32, class: Class, remaining: u64) -> Candidate {
        Candidate {
            stream,
            class,
            remaining,
            since: Duration::ZERO,
        }
    }

    /// Sends frames of one size while everybody has something to send; bytes by class.
    fn busy(classes: &[Class], frame: usize, frames: usize) -> [usize; 4] {
        let mut lanes = Lanes::default();
        let all: Vec<Candidate> = classes
            .iter()
            .enumerate()
            .map(|(at, class)| candidate(at as u32, *class, 1 << 40))
            .collect();
        let mut sent = [0; 4];
        for _ in 0..frames {
            let Some((stream, lane)) = lanes.pick(&all, Duration::ZERO) else {
                panic!("somebody could have sent")
            };
            let class = classes[stream as usize];
            lanes.spent(lane, class, frame);
            sent[class as usize] += frame;
        }
        sent
    }

    #[test]
    fn classes_share_by_weight_and_big_contents_keep_a_tenth() {
        for frame in [16 * 1024, 64 * 1024, 1024 * 1024] {
            let sent = busy(&Class::ALL, frame, 20_000);
            let all: usize = sent.iter().sum();
            let percent = sent.map(|n| n * 100 / all);
            assert!((10..=13).contains(&percent[3]), "{percent:?}");
            assert!((50..=55).contains(&percent[0]), "{percent:?}");
            assert!((24..=28).contains(&percent[1]), "{percent:?}");
            assert!((8..=11).contains(&percent[2]), "{percent:?}");
        }
    }

    #[test]
    fn whoever_is_alone_has_everything() {
        for class in Class::ALL {
            assert_eq!(busy(&[class], 1000, 50)[class as usize], 50_000);
        }
    }

    #[test]
    fn the_shortest_goes_first_within_a_class() {
        let mut lanes = Lanes::default();
        let all = [
            candidate(1, Class::File, 900),
            candidate(3, Class::File, 10),
            candidate(5, Class::File, 500),
        ];
        let first = lanes.pick(&all, Duration::ZERO);
        assert_eq!(first.map(|(stream, _)| stream), Some(3));
    }

    #[test]
    fn something_small_waits_for_one_frame_of_something_big_at_most() {
        let mut lanes = Lanes::default();
        let big = candidate(1, Class::Bulk, 1 << 40);
        for _ in 0..1000 {
            let picked = lanes.pick(&[big], Duration::ZERO);
            assert_eq!(picked, Some((1, 3)));
            lanes.spent(3, Class::Bulk, 1 << 20);
        }
        let small = candidate(3, Class::Interactive, 100);
        let picked = lanes.pick(&[big, small], Duration::ZERO);
        assert_eq!(picked.map(|(stream, _)| stream), Some(3));
    }

    #[test]
    fn what_waited_long_is_served_before_what_is_shorter() {
        let mut lanes = Lanes::default();
        let now = Duration::from_secs(100);
        let short = |stream| Candidate {
            since: now,
            ..candidate(stream, Class::File, 10)
        };
        let long = candidate(1, Class::File, 1 << 20);
        let all = [long, short(3)];
        let mut picked = Vec::new();
        for _ in 0..40 {
            if let Some((stream, lane)) = lanes.pick(&all, now) {
                lanes.spent(lane, Class::File, 16 * 1024);
                picked.push(stream);
            }
        }
        assert!(picked.contains(&1));
        assert!(picked.iter().filter(|s| **s == 1).count() > picked.len() / 2);
    }

    proptest! {
        #[test]
        fn somebody_is_picked_while_anybody_can_send(
            picks in prop::collection::vec((0..4usize, 1..2_000_000u64, 1..1_048_576usize), 1..200)
        ) {
            let mut lanes = Lanes::default();
            for (at, (class, remaining, bytes)) in picks.iter().enumerate() {
                let now = Duration::from_secs(at as u64);
                let all = [candidate(7, Class::ALL[*class], *remaining)];
                let (stream, lane) = lanes.pick(&all, now).unwrap_or((0, 0));
                prop_assert_eq!(stream, 7);
                lanes.spent(lane, Class::ALL[*class], *bytes);
            }
            prop_assert_eq!(lanes.pick(&[], Duration::ZERO), None);
        }
    }
}
