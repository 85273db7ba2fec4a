//! What a seed switches on: a random choice of fault classes at random rates, so that no class hides
//! another. Decides nothing later: a plan is a value.

use instep_fs::sim::SimConfig;
use instep_testkit::prng::Prng;

/// How a process ends before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Death {
    /// The process is killed; disks stay.
    Kill,
    /// The power is cut; disks lose what was not durable.
    PowerCut,
}

/// One death: after how many calls of the engine, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Crash {
    /// Calls of the engine in that round before it.
    pub(crate) after_calls: u64,
    /// How.
    pub(crate) how: Death,
    /// The index dies one call before the disk does: the last call had its effect and nobody knows.
    pub(crate) index_first: bool,
}

/// Everything that a seed decides before it starts.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Operations of users, all together.
    pub(crate) user_ops: u64,
    /// Of 1000 calls of the engine, how many are preceded by a user's operation.
    pub(crate) between_calls: usize,
    /// Sessions under faults; each with its death, if any.
    pub(crate) rounds: Vec<Option<Crash>>,
    /// Whether errors are injected into each machine's calls.
    pub(crate) errors: Vec<bool>,
    /// Users' saves reach the disk at once, as programs that call `fsync` see to.
    pub(crate) users_sync: bool,
    /// Differences between the machines' clocks, nanoseconds.
    pub(crate) skew_ns: Vec<i64>,
    /// What the machines' file systems are like.
    pub(crate) disks: Vec<SimConfig>,
}

impl Plan {
    /// What the seed chooses.
    pub(crate) fn new(rng: &mut Prng) -> Self {
        let machines = if rng.chance(1, 4) { 2 } else { 3 };
        let deaths = [0, 0, 1, 1, 2][rng.below(5)];
        let count = deaths + 1 + rng.below(2);
        let power = rng.chance(1, 2);
        let mut rounds: Vec<Option<Crash>> = (0..count).map(|_| None).collect();
        for round in rounds.iter_mut().take(deaths) {
            *round = Some(Crash {
                after_calls: 1 + [20, 80, 200, 600][rng.below(4)].min(rng.below(700)) as u64,
                how: if power && rng.chance(2, 3) {
                    Death::PowerCut
                } else {
                    Death::Kill
                },
                index_first: rng.chance(1, 2),
            });
        }
        if rng.chance(1, 2) {
            rounds.reverse();
        }
        let with_errors = rng.chance(1, 4);
        let loss = rng.chance(1, 4);
        let disks = (0..machines).map(|_| disk(rng, loss)).collect();
        Self {
            user_ops: 8 + rng.below(14) as u64,
            between_calls: [0, 5, 20, 60][rng.below(4)],
            rounds,
            errors: (0..machines)
                .map(|_| with_errors && rng.chance(1, 2))
                .collect(),
            users_sync: rng.chance(1, 3),
            skew_ns: (0..machines).map(|_| skew(rng)).collect(),
            disks,
        }
    }
}

impl Plan {
    /// Events may be lost without a trace, so that only looking everywhere finds what happened.
    pub(crate) fn is_deaf(&self) -> bool {
        self.disks.iter().any(|d| d.event_loss_per_mille > 0)
    }
}

fn skew(rng: &mut Prng) -> i64 {
    let ms = [0, 0, 7, 1500, 90_000, 3_600_000][rng.below(6)];
    if rng.chance(1, 2) {
        -ms * 1_000_000
    } else {
        ms * 1_000_000
    }
}

fn disk(rng: &mut Prng, loss: bool) -> SimConfig {
    let seed = rng.next_u64();
    let mut config = match rng.below(5) {
        0 => SimConfig::ext4(seed),
        1 => SimConfig::xfs(seed),
        2 => SimConfig::btrfs(seed),
        _ => SimConfig::adversarial(seed),
    };
    config.leases_block = rng.chance(1, 3);
    config.exchange = !rng.chance(1, 12);
    config.unnamed_files = !rng.chance(1, 8);
    config.leases = !rng.chance(1, 12);
    config.multigrain = !rng.chance(1, 6);
    config.list_chunk = [1, 2, 64][rng.below(3)];
    if rng.chance(1, 3) {
        config.event_delay_ns = 3_000_000;
    }
    if loss {
        config.event_loss_per_mille = [0, 50, 500][rng.below(3)];
        config.event_queue = [4, 16, 16_384][rng.below(3)];
    }
    config
}
