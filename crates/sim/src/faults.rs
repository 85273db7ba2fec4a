//! What a seed switches on: its machines and modes, and a random choice of fault classes at random rates, so that no class hides
//! another. Decides nothing later: a plan is a value.

use instep_fs::sim::SimConfig;
use instep_replica::records::PolicyRecord;
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

/// What happens to a root while no process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// Its index cannot be read any more: the same replica, without its memory.
    IndexLost,
    /// Everything of ours in it is deleted: it joins as a new replica.
    StateDeleted,
    /// It is restored from a backup made before the first session, with the index of that day.
    Restored,
    /// It is exchanged for a copy of another machine's root: a new replica that knows nothing yet.
    Copied,
}

/// Everything that a seed decides before it starts.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The first machine is the source of a mirror, and the others its targets.
    pub(crate) mirror: bool,
    /// The policy for conflicts, and another one from some round on.
    pub(crate) policies: [Option<Policy>; 2],
    /// From this round on the second policy is in force.
    pub(crate) policy_round: usize,
    /// The last machine joins in this round.
    pub(crate) join_round: usize,
    /// Before this round, this happens to this machine.
    pub(crate) mishap: Option<(usize, usize, Mishap)>,
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

/// A policy as a seed chooses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    Newest,
    KeepBoth,
    /// Whoever is on this machine wins.
    Prefer(usize),
    Manual,
}

impl Policy {
    fn any(rng: &mut Prng, machines: usize) -> Option<Self> {
        match rng.below(9) {
            0 | 1 => Some(Self::KeepBoth),
            2 => Some(Self::Prefer(rng.below(machines))),
            3 => Some(Self::Manual),
            4 => Some(Self::Newest),
            _ => None,
        }
    }

    /// For the session's options; `id` names a machine's replica.
    pub(crate) fn record(self, id: impl Fn(usize) -> String) -> PolicyRecord {
        match self {
            Self::Newest => PolicyRecord::Newest,
            Self::KeepBoth => PolicyRecord::KeepBoth,
            Self::Prefer(machine) => PolicyRecord::Prefer(id(machine)),
            Self::Manual => PolicyRecord::Manual,
        }
    }
}

fn mishap(rng: &mut Prng, rounds: usize, machines: usize) -> Option<(usize, usize, Mishap)> {
    let all = [
        Mishap::IndexLost,
        Mishap::StateDeleted,
        Mishap::Restored,
        Mishap::Copied,
    ];
    let round = 1 + rng.below(rounds.saturating_sub(1));
    let what = (round, rng.below(machines), all[rng.below(all.len())]);
    (rounds > 1 && rng.chance(1, 4)).then_some(what)
}

impl Plan {
    /// What the seed chooses.
    pub(crate) fn new(rng: &mut Prng) -> Self {
        let machines = [2, 3, 3, 3, 4][rng.below(5)];
        let mirror = rng.chance(1, 6);
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
        let joins = machines > 2 && !mirror && rng.chance(1, 5);
        let mishap = mishap(rng, count, machines).filter(|_| !mirror);
        let policies = [0; 2].map(|_| Policy::any(rng, machines).filter(|_| !mirror));
        Self {
            mirror,
            policies,
            policy_round: rng.below(count + 2),
            join_round: if joins { rng.below(count + 1) } else { 0 },
            mishap,
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
    /// Conflicts of some round wait for a person.
    pub(crate) fn asks(&self) -> bool {
        self.policies.contains(&Some(Policy::Manual))
    }

    /// What kind of seed it is, for the trace.
    pub(crate) fn headline(&self) -> String {
        format!(
            "          {} machines, mirror {}, policies {:?} from {}, last joins in {}, errors {:?}, deaf {}",
            self.disks.len(),
            self.mirror,
            self.policies,
            self.policy_round,
            self.join_round,
            self.errors,
            self.is_deaf()
        )
    }

    /// The policy in force in a round.
    pub(crate) fn policy(&self, round: usize) -> Option<Policy> {
        let [first, second] = self.policies;
        if round < self.policy_round {
            first
        } else {
            second.or(first)
        }
    }

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
