//! Who is listened to before it is known who it is: how many at a time, and not those who failed too often.
//!
//! Pure; time is given. Invariant: what is remembered of strangers is bounded.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::limits;

#[derive(Debug, Clone, Copy, Default)]
struct Record {
    /// Sockets that are open now.
    open: usize,
    failures: u32,
    /// When the count of failures began.
    since: Duration,
    /// Not listened to until then.
    silent_until: Duration,
    /// How long the last silence was.
    silence: Duration,
}

/// What is known of strangers.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    open: usize,
    addresses: BTreeMap<IpAddr, Record>,
}

impl Gate {
    /// Whether a new socket is listened to. If so, [`Gate::leave`] follows.
    pub(crate) fn enter(&mut self, from: IpAddr, now: Duration) -> bool {
        let from = network(from);
        if self.open >= limits::STRANGERS_MAX {
            return false;
        }
        if self.addresses.len() >= limits::ADDRESSES_MAX && !self.addresses.contains_key(&from) {
            self.forget(now);
        }
        let record = self.addresses.entry(from).or_default();
        if record.open >= limits::STRANGERS_PER_ADDRESS_MAX || now < record.silent_until {
            return false;
        }
        record.open += 1;
        self.open += 1;
        true
    }

    /// A socket is not a stranger's any more.
    pub(crate) fn leave(&mut self, from: IpAddr, now: Duration, failed: bool) {
        let from = network(from);
        self.open = self.open.saturating_sub(1);
        let Some(record) = self.addresses.get_mut(&from) else {
            return;
        };
        record.open = record.open.saturating_sub(1);
        if failed {
            record.fail(now);
        } else if record.failures == 0 && record.open == 0 {
            self.addresses.remove(&from);
        }
    }

    /// A failure after the socket was not a stranger's any more: a wrong code.
    pub(crate) fn fail(&mut self, from: IpAddr, now: Duration) {
        if self.addresses.len() >= limits::ADDRESSES_MAX {
            self.forget(now);
        }
        self.addresses.entry(network(from)).or_default().fail(now);
    }

    /// Makes room: those first of whom nothing has to be remembered, then the one whose failures are oldest.
    fn forget(&mut self, now: Duration) {
        self.addresses.retain(|_, r| r.open > 0 || !r.is_past(now));
        let idle = self.addresses.iter().filter(|(_, r)| r.open == 0);
        let mut oldest: Vec<_> = idle.map(|(a, r)| (r.silent_until, r.since, *a)).collect();
        if self.addresses.len() < limits::ADDRESSES_MAX {
            return;
        }
        // Many at once, so that a flood does not make each newcomer search.
        oldest.sort_unstable();
        for (_, _, address) in oldest.iter().take(limits::ADDRESSES_MAX / 8) {
            self.addresses.remove(address);
        }
    }
}

impl Record {
    fn fail(&mut self, now: Duration) {
        if now.saturating_sub(self.since) > limits::FAILURE_PERIOD {
            self.since = now;
            self.failures = 0;
        }
        // Good behaviour for as long as the last silence and the period is a fresh start.
        if now.saturating_sub(self.silent_until) > self.silence + limits::FAILURE_PERIOD {
            self.silence = Duration::ZERO;
        }
        self.failures += 1;
        if self.failures >= limits::FAILURES_MAX {
            self.silence = (self.silence * 2).clamp(limits::FAILURE_PERIOD, limits::SILENCE_MAX);
            self.silent_until = now + self.silence;
            self.failures = 0;
        }
    }

    fn is_past(&self, now: Duration) -> bool {
        now >= self.silent_until + self.silence
            && now.saturating_sub(self.since) > limits::FAILURE_PERIOD
    }
}

/// Whoever has one IPv6 address has the whole network around it.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => {
                let [a, b, c, d, ..] = v6.segments();
                IpAddr::from([a, b, c, d, 0, 0, 0, 0])
            }
        },
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn one_address_has_four_sockets_and_all_have_sixty_four() {
        let mut gate = Gate::default();
        for _ in 0..4 {
            assert!(gate.enter(address(1), at(0)));
        }
        assert!(!gate.enter(address(1), at(0)));
        for n in 2..62 {
            assert!(gate.enter(address(n), at(0)));
        }
        assert!(!gate.enter(address(99), at(0)));
        gate.leave(address(1), at(1), false);
        assert!(gate.enter(address(99), at(1)));
    }

    #[test]
    fn five_failures_silence_an_address_and_the_next_five_for_longer() {
        let mut gate = Gate::default();
        let fail = |gate: &mut Gate, now| {
            assert!(gate.enter(address(1), now));
            gate.leave(address(1), now, true);
        };
        for n in 0..5 {
            fail(&mut gate, at(n));
        }
        assert!(!gate.enter(address(1), at(5)));
        assert!(!gate.enter(address(1), at(63)));
        assert!(gate.enter(address(2), at(5)));
        for n in 0..5 {
            fail(&mut gate, at(65 + n));
        }
        assert!(!gate.enter(address(1), at(69 + 119)));
        assert!(gate.enter(address(1), at(69 + 121)));
    }

    #[test]
    fn few_failures_in_a_long_time_silence_nobody() {
        let mut gate = Gate::default();
        for n in 0..50 {
            assert!(gate.enter(address(1), at(n * 20)));
            gate.leave(address(1), at(n * 20), true);
        }
    }

    #[test]
    fn neighbours_in_an_ipv6_network_count_as_one() {
        let mut gate = Gate::default();
        let near = |n: u16| IpAddr::from([0x2001, 0xdb8, 1, 2, 0, 0, 0, n]);
        for n in 0..4 {
            assert!(gate.enter(near(n), at(0)));
        }
        assert!(!gate.enter(near(9), at(0)));
    }

    #[test]
    fn a_flood_of_addresses_is_not_remembered_for_ever() {
        let mut gate = Gate::default();
        for n in 0..20_000 {
            let now = Duration::from_millis(u64::from(n));
            assert!(gate.enter(address(n), now));
            gate.leave(address(n), now, true);
        }
        assert!(gate.addresses.len() <= limits::ADDRESSES_MAX);
    }
}
