//! What a seed switches on: its machines and modes, and a random choice of fault classes at random rates, so
//! that no class hides another. Decides nothing later: a plan is a value.

use instep_fs::sim::SimConfig;
use instep_replica::Step;
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
    /// A step that it comes at, if the step is reached so often before: then it comes between two steps and not
    /// somewhere in one.
    pub(crate) at: Option<(Step, u64)>,
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

/// One session under faults, and what comes before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Round {
    /// Before it, this happens to this machine.
    pub(crate) mishap: Option<(usize, Mishap)>,
    /// Operations of users while it runs.
    pub(crate) ops: u64,
    /// Operations of users after it, while nobody runs.
    pub(crate) after: u64,
    /// How it ends before its time, if it does.
    pub(crate) crash: Option<Crash>,
}

impl Round {
    /// A session in which nothing happens.
    pub(crate) const PEACE: Self = Self {
        mishap: None,
        ops: 0,
        after: 0,
        crash: None,
    };

    /// A session that dies soon.
    pub(crate) fn early(rng: &mut Prng) -> Self {
        Self {
            mishap: None,
            ops: 4,
            after: rng.below(4) as u64,
            crash: Some(crash(rng, true, true)),
        }
    }
}

/// What makes life hard on a machine for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// There is hardly room on the disk.
    Full,
    /// The disk is mounted read-only.
    ReadOnly,
    /// The root is not where it was.
    Away,
    /// The index cannot be used.
    IndexFails,
    /// Every call takes long.
    Slow,
    /// The queue of events holds hardly any.
    ShortQueue,
    /// Listings fail now and then.
    Unlistable,
    /// The wall clock jumps, and stays.
    Jump,
}

impl Trouble {
    const ALL: [Self; 8] = [
        Self::Full,
        Self::ReadOnly,
        Self::Away,
        Self::IndexFails,
        Self::Slow,
        Self::ShortQueue,
        Self::Unlistable,
        Self::Jump,
    ];

    /// For counting.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::ReadOnly => "read-only",
            Self::Away => "away",
            Self::IndexFails => "index",
            Self::Slow => "slow",
            Self::ShortQueue => "queue",
            Self::Unlistable => "listing",
            Self::Jump => "jump",
        }
    }
}

/// Faults that a seed has at the least.
pub(crate) const FAULTS_MIN: u64 = 5;

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
    /// Operations of users before the first session.
    pub(crate) first_ops: u64,
    /// Of 1000 calls of the engine, how many are preceded by a user's operation.
    pub(crate) between_calls: usize,
    /// Sessions under faults.
    pub(crate) rounds: Vec<Round>,
    /// What may happen to a machine for a while.
    pub(crate) troubles: Vec<Trouble>,
    /// Of 10,000 calls of the engine, how many are preceded by the beginning of trouble.
    pub(crate) trouble_rate: usize,
    /// The lines between the engine and the machines.
    pub(crate) lines: Vec<Line>,
    /// How much the engine and the replicas do in one go.
    pub(crate) sizes: Sizes,
    /// Whether errors are injected into each machine's calls.
    pub(crate) errors: Vec<bool>,
    /// Users' saves reach the disk at once, as programs that call `fsync` see to.
    pub(crate) users_sync: bool,
    /// The machines' clocks.
    pub(crate) clocks: Vec<Clock>,
    /// What the machines' file systems are like.
    pub(crate) disks: Vec<SimConfig>,
}

/// How much the product does in one go, where it can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Counters that are reserved at a time.
    pub(crate) counters: u64,
    /// Files that are read in one piece.
    pub(crate) files: usize,
    /// Bytes of a file from which on it is hashed aside.
    pub(crate) hash_aside_bytes: u64,
    /// What a session does in one go.
    pub(crate) session: instep_engine::sizes::Sizes,
}

/// Each as the product has it, or tiny.
fn sizes(rng: &mut Prng) -> Sizes {
    let ours = instep_engine::sizes::Sizes::default();
    let mut tiny = |small: usize, usual: usize| if rng.chance(1, 4) { small } else { usual };
    Sizes {
        counters: tiny(2, 4096) as u64,
        files: tiny(1, 1000),
        hash_aside_bytes: tiny(1000, 64 << 20) as u64,
        session: instep_engine::sizes::Sizes {
            actions: tiny(3, ours.actions),
            bulk: tiny(1, ours.bulk),
            aside_bytes: tiny(1000, ours.aside_bytes as usize) as u64,
        },
    }
}

/// The line to a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line {
    /// Of 1000 requests, how many do not go their normal way.
    pub(crate) rate: usize,
}

/// How a machine's wall clock is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Clock {
    /// By how much from the start.
    pub(crate) skew_ns: i64,
    /// By how much more after each second, in millionths.
    pub(crate) drift_ppm: i64,
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

fn mishap(rng: &mut Prng, machines: usize) -> (usize, Mishap) {
    let all = [
        Mishap::IndexLost,
        Mishap::StateDeleted,
        Mishap::Restored,
        Mishap::Copied,
    ];
    (rng.below(machines), all[rng.below(all.len())])
}

/// A death within a session; one that comes early is sure to come.
pub(crate) fn crash(rng: &mut Prng, power: bool, early: bool) -> Crash {
    let longest = if early { 60 } else { 1500 };
    let at = rng.chance(1, 4).then(|| {
        let step = Step::ALL[rng.below(Step::ALL.len())];
        (step, 1 + rng.below(3) as u64)
    });
    Crash {
        at,
        after_calls: 1 + [20, 80, 300, 1500][rng.below(4)].min(rng.below(longest)) as u64,
        how: if power && rng.chance(2, 3) {
            Death::PowerCut
        } else {
            Death::Kill
        },
        index_first: rng.chance(1, 2),
    }
}

/// Three to five sessions, some of which die, with at most two mishaps between them.
fn rounds(rng: &mut Prng, machines: usize, power: bool, mishaps: bool) -> Vec<Round> {
    let count = 3 + rng.below(3);
    let rate = [0, 1, 2, 3][rng.below(4)];
    let mut left = if mishaps {
        [0, 0, 1, 1, 2][rng.below(5)]
    } else {
        0
    };
    let mut one = |n: usize| {
        let struck = n > 0 && left > 0 && rng.chance(1, 2);
        left -= usize::from(struck);
        Round {
            mishap: struck.then(|| mishap(rng, machines)),
            ops: 12 + rng.below(20) as u64,
            after: rng.below(9) as u64,
            crash: rng.chance(rate, 3).then(|| crash(rng, power, false)),
        }
    };
    (0..count).map(&mut one).collect()
}

/// A random choice of what may happen for a while; often nothing, so that no class hides another.
fn troubles(rng: &mut Prng) -> Vec<Trouble> {
    let rate = [0, 1, 2, 6][rng.below(4)];
    let all = Trouble::ALL.into_iter();
    all.filter(|_| rng.chance(rate, 8)).collect()
}

impl Plan {
    /// What the seed chooses.
    pub(crate) fn new(rng: &mut Prng) -> Self {
        let machines = [3, 3, 3, 4][rng.below(4)];
        let mirror = rng.chance(1, 6);
        let power = rng.chance(1, 2);
        let rounds = rounds(rng, machines, power, !mirror);
        let with_errors = rng.chance(1, 4);
        let loss = rng.chance(1, 4);
        let disks = (0..machines).map(|_| disk(rng, loss)).collect();
        let joins = !mirror && rng.chance(1, 5);
        let remote = rng.chance(1, 3);
        let policies = [0; 2].map(|_| Policy::any(rng, machines).filter(|_| !mirror));
        Self {
            mirror,
            policies,
            policy_round: rng.below(rounds.len() + 2),
            join_round: if joins {
                rng.below(rounds.len() + 1)
            } else {
                0
            },
            first_ops: 8 + rng.below(24) as u64,
            between_calls: [0, 5, 20, 60][rng.below(4)],
            rounds,
            troubles: troubles(rng),
            trouble_rate: [5, 20, 80][rng.below(3)],
            lines: (0..machines).map(|_| line(rng, remote)).collect(),
            sizes: sizes(rng),
            errors: (0..machines)
                .map(|_| with_errors && rng.chance(1, 2))
                .collect(),
            users_sync: rng.chance(1, 3),
            clocks: (0..machines).map(|_| clock(rng)).collect(),
            disks,
        }
    }

    /// Operations that users still do before the last look, so that every seed has a hundred.
    pub(crate) fn last_ops(done: u64) -> u64 {
        OPS_MIN.saturating_sub(done)
    }
}

/// Operations of users that a seed has at the least.
const OPS_MIN: u64 = 100;

impl Plan {
    /// Conflicts of some round wait for a person.
    pub(crate) fn asks(&self) -> bool {
        self.policies.contains(&Some(Policy::Manual))
    }

    /// What kind of seed it is, for the trace.
    pub(crate) fn headline(&self) -> String {
        let disk = |d: &SimConfig| {
            let knobs = [
                (d.exchange, "exchange"),
                (d.leases, "leases"),
                (d.unnamed_files, "unnamed"),
                (d.multigrain, "multigrain"),
            ];
            let without = knobs.iter().filter(|(has, _)| !has);
            without.fold(d.fs_type.clone(), |text, (_, what)| {
                format!("{text} -{what}")
            })
        };
        let disks: Vec<String> = self.disks.iter().map(disk).collect();
        format!(
            "          {} machines {disks:?}, mirror {}, policies {:?} from {}, last joins in {}, errors {:?}, deaf {}, troubles {:?}, {:?}",
            self.disks.len(),
            self.mirror,
            self.policies,
            self.policy_round,
            self.join_round,
            self.errors,
            self.is_deaf(),
            self.troubles,
            self.sizes
        )
    }

    /// What the file systems are like, for whoever has to find out what is wrong.
    pub(crate) fn profile(&self) -> String {
        let disks: Vec<String> = self.disks.iter().map(described).collect();
        disks.join(", ")
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

fn described(disk: &SimConfig) -> String {
    let lacks = [
        (disk.exchange, "exchange"),
        (disk.unnamed_files, "unnamed files"),
        (disk.leases, "leases"),
        (disk.multigrain, "multigrain times"),
    ];
    let lacks = lacks.iter().filter(|(has, _)| !has);
    let lacks: Vec<String> = lacks.map(|(_, what)| format!(" without {what}")).collect();
    disk.fs_type.clone() + &lacks.concat()
}

fn line(rng: &mut Prng, remote: bool) -> Line {
    let rate = [0, 1, 5, 25][rng.below(4)];
    Line {
        rate: if remote { rate } else { 0 },
    }
}

const MS: i64 = 1_000_000;
const DAY: i64 = 86_400_000 * MS;

fn clock(rng: &mut Prng) -> Clock {
    let ns = [0, 0, 7 * MS, 1500 * MS, 90_000 * MS, DAY / 24, DAY][rng.below(7)];
    Clock {
        skew_ns: if rng.chance(1, 2) { -ns } else { ns },
        drift_ppm: [0, 0, 0, 50, -50, 20_000, -20_000][rng.below(7)],
    }
}

/// By how much a wall clock jumps.
pub(crate) fn jump(rng: &mut Prng) -> i64 {
    let ns = [3 * MS, 2000 * MS, DAY / 24, DAY, 3650 * DAY][rng.below(5)];
    if rng.chance(1, 2) { -ns } else { ns }
}

/// A poor file system, as through FUSE or a network: no leases, no exchange, no links. It tells names, modes
/// and instants apart: what cannot be told apart on one machine cannot be compared with the others.
fn poor(seed: u64) -> SimConfig {
    SimConfig {
        case_sensitive: true,
        modes: true,
        mtime_granularity_ns: 1,
        multigrain: true,
        ..SimConfig::poor(seed)
    }
}

fn disk(rng: &mut Prng, loss: bool) -> SimConfig {
    let seed = rng.next_u64();
    if rng.chance(1, 12) {
        return poor(seed);
    }
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
