//! One seed from start to verdict: rounds under faults, then peace, then the checkers.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use instep_core::fnv;
use instep_core::path::RelPath;
use instep_core::plan::{Code, Problem};
use instep_engine::report::{Event, Monitor, State};
use instep_engine::session::{End, Session, SessionOptions};
use instep_fs::sim::SimFs;
use instep_replica::Replica;
use instep_testkit::prng::Prng;

use crate::checkers::{self, Dots, Known, Terms};
use crate::counts::Counts;
use crate::coverage::{Cells, Survey};
use crate::eye::Eye;
use crate::faults::{FAULTS_MIN, Mishap, Plan, Round};
use crate::mask::Mask;
use crate::rollback::Past;
use crate::world::{Opened, World};

/// Sessions in peace before everything must be in step.
const PATIENCE: usize = 8;

/// What became of a seed that kept all promises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// A digest of everything that happened: equal for equal seeds.
    pub digest: u64,
    /// What the file systems were like.
    pub profile: String,
    /// Sessions under faults.
    pub rounds: usize,
    /// What happened, line by line.
    pub trace: Vec<String>,
    /// What happened, counted.
    pub counts: Counts,
}

/// A seed that broke promises.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// Which, and how.
    pub broken: Vec<String>,
    /// As [`Report::digest`].
    pub digest: u64,
    /// What the file systems were like.
    pub profile: String,
    /// Sessions under faults.
    pub rounds: usize,
    /// What happened, line by line.
    pub trace: Vec<String>,
    /// What happened, counted.
    pub counts: Counts,
}

impl Failure {
    /// A failure that is told by something else than the checkers.
    pub(crate) fn of(report: Report) -> Self {
        Self {
            seed: report.seed,
            broken: Vec::new(),
            digest: report.digest,
            profile: report.profile,
            rounds: report.rounds,
            trace: report.trace,
            counts: report.counts,
        }
    }

    /// The first promise that was broken: `I2`, `panic`, `not deterministic`.
    pub fn promise(&self) -> String {
        let named = |line: &String| {
            let (name, _) = line.split_once(": ")?;
            let number = name
                .strip_prefix('I')
                .is_some_and(|n| n.parse::<u8>().is_ok());
            (number || matches!(name, "panic" | "not deterministic")).then(|| name.to_owned())
        };
        let first = self.broken.iter().find_map(named);
        first.unwrap_or_else(|| "other".to_owned())
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "seed {} on {}", self.seed, self.profile)?;
        self.broken.iter().try_for_each(|b| writeln!(f, "  {b}"))?;
        write!(f, "replay: cargo run -p instep-sim -- --seed {}", self.seed)
    }
}

/// Writes events into the trace.
struct Tracer(Arc<World>);

impl Monitor for Tracer {
    fn event(&mut self, event: Event) {
        if !matches!(
            event,
            Event::Progress(_) | Event::Opened { .. } | Event::Joined { .. } | Event::Settled(_)
        ) {
            self.0.note(format!("          engine {event:?}"));
        }
    }
}

/// Runs one seed.
pub fn run(seed: u64) -> Result<Report, Box<Failure>> {
    run_masked(seed, &Mask::default())
}

/// Runs a seed with what few people do, and counts the decisions that it meets; what comes of it is not judged.
pub fn cover(seed: u64) -> Cells {
    let mut rng = Prng::new(seed);
    let plan = Plan::new(&mut rng);
    let world = World::new(seed, &plan, &Mask::default(), Eye::counting(), &mut rng);
    // A seed that breaks a promise met decisions until then.
    drop(run_in(&world, &plan, seed, &mut rng));
    let cells = world.eye().cells().map(|cells| cells.clone());
    cells.unwrap_or_default()
}

/// Runs what a mask leaves of a seed.
pub fn run_masked(seed: u64, mask: &Mask) -> Result<Report, Box<Failure>> {
    let mut rng = Prng::new(seed);
    let plan = mask.plan(Plan::new(&mut rng));
    let world = World::new(seed, &plan, mask, Eye::default(), &mut rng);
    run_in(&world, &plan, seed, &mut rng)
}

fn run_in(
    world: &Arc<World>,
    plan: &Plan,
    seed: u64,
    rng: &mut Prng,
) -> Result<Report, Box<Failure>> {
    world.note(plan.headline());
    let broken = Mutex::new(Vec::new());
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let found = Course {
            world,
            plan,
            dots: Dots::default(),
            seed,
            round: 0,
            peace: false,
            past: Past::default(),
        }
        .run(rng);
        broken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(found);
    }));
    let mut broken = broken.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Err(panic) = ended {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        broken.push(format!("panic: {}", text.unwrap_or_default()));
    }
    let report = report(seed, plan, world);
    if broken.is_empty() {
        return Ok(report);
    }
    Err(Box::new(Failure {
        broken,
        ..Failure::of(report)
    }))
}

fn report(seed: u64, plan: &Plan, world: &World) -> Report {
    let counts = world.counts();
    let mut state = world.state();
    state.disks.iter().for_each(SimFs::clear_hook);
    let trace = std::mem::take(&mut state.trace);
    let disks = state.disks.iter();
    let history = disks.fold(0, |h: u64, fs| h.rotate_left(9) ^ fs.history());
    let lines = trace.iter();
    let digest = lines.fold(history, |h, line| fnv::add(h, line.as_bytes()));
    Report {
        seed,
        digest,
        counts,
        profile: plan.profile(),
        rounds: world.rounds(),
        trace,
    }
}

/// What one seed goes through.
struct Course<'a> {
    world: &'a Arc<World>,
    plan: &'a Plan,
    dots: Dots,
    seed: u64,
    round: usize,
    /// Faults and users are over.
    peace: bool,
    past: Past,
}

impl Course<'_> {
    fn run(&mut self, rng: &mut Prng) -> Vec<String> {
        let mut broken = self.under_faults(rng);
        if broken.is_empty() {
            broken = self.in_peace(rng);
        }
        broken
    }

    fn under_faults(&mut self, rng: &mut Prng) -> Vec<String> {
        self.world.users_act(self.plan.first_ops);
        let mut left = 0;
        let planned = self.plan.rounds.clone();
        let mut planned = planned.into_iter();
        for n in 0.. {
            // Where too little went wrong so far, processes die until it is enough.
            let enough = match self.world.mask().rounds {
                Some(rounds) if rounds == n => break,
                Some(_) => false,
                None => self.world.counts().struck() >= FAULTS_MIN,
            };
            let Some(round) = planned
                .next()
                .or_else(|| (!enough).then(|| Round::early(rng)))
            else {
                break;
            };
            let round = self.world.mask().round(n, round);
            self.world.begins(n);
            let bad = self.between_rounds(n, round);
            if !bad.is_empty() {
                return bad;
            }
            let round = Round {
                ops: round.ops + left,
                ..round
            };
            let (still_left, bad) = self.one_round(round, rng);
            if !bad.is_empty() {
                return bad;
            }
            left = still_left;
            self.world.users_act(round.after);
        }
        let done = self.world.counts().acts;
        self.world.users_act(Plan::last_ops(done));
        self.world.users_finish();
        Vec::new()
    }

    /// One session under faults. Returns what users did not get to do, and what is broken.
    fn one_round(&mut self, round: Round, rng: &mut Prng) -> (u64, Vec<String>) {
        let once = rng.chance(1, 3);
        self.world.begin_round(round, !once);
        self.inject(self.round as u64);
        let (ended, mut bad) = self.session(once, rng.chance(2, 3));
        let everybody = |all: &[Known]| all.len() == self.world.state().taking_part();
        let whole = ended.as_ref().filter(|(_, all)| everybody(all));
        if let Some((end, all)) = whole.filter(|_| !once) {
            bad.extend(self.in_step(end, all));
        }
        let in_sync = whole.is_some_and(|(end, _)| end.state == State::InSync);
        let left = self.world.end_round();
        if in_sync {
            self.world.remembers();
        }
        (left, bad)
    }

    /// What the seed has in store for a round before it begins.
    fn between_rounds(&mut self, n: usize, round: Round) -> Vec<String> {
        self.round = n;
        if n == 1 {
            self.world.back_up();
        }
        let bad = match round.mishap {
            Some((machine, what)) => self.befall(machine, what),
            None => Vec::new(),
        };
        if self.plan.join_round == n {
            self.world.join();
        }
        bad
    }

    /// Something happens to a root. Where everything was in order before, a session follows in which nobody does
    /// anything else, so that it can be told what comes of it.
    fn befall(&mut self, machine: usize, what: Mishap) -> Vec<String> {
        let state = self.world.state();
        let joined = state.taking_part();
        let known = !state.has_died()
            && self.past.is_of(joined)
            && what != Mishap::StateDeleted
            && machine < joined;
        drop(state);
        self.world.befall(machine, what);
        let disks = self.world.state().joined();
        let before = Past::present(&disks, machine).filter(|_| known);
        let Some(before) = before else {
            return Vec::new();
        };
        let past = std::mem::take(&mut self.past);
        self.world.begin_round(Round::PEACE, false);
        let (_, mut bad) = self.session(true, true);
        self.world.end_round();
        bad.extend(past.taken(&before, &self.world.state().joined()));
        bad
    }

    /// What a live session says of itself when nothing happened for a while must be so, although it was
    /// only told where to look.
    fn in_step(&self, end: &End, all: &[Known]) -> Vec<String> {
        let state = self.world.state();
        if !state.is_quiet(self.world.elapsed_ns()) || self.plan.is_deaf() {
            return Vec::new();
        }
        let disks = state.joined();
        if state.users.linked {
            // No event tells of a write through another name (semantics, F33).
            return Vec::new();
        }
        let real = self.real_problems(&disks, end, all);
        if end.state != State::InSync && !(end.state == State::Problem && real.is_empty()) {
            // What is below a path that waits for a person may be tried again and again.
            let waits = all.iter().any(|k| !k.frozen.is_empty());
            let calm = !self.plan.errors.contains(&true) && !waits;
            let why = || format!("I12: {:?} after a quiet while: {real:?}", end.state);
            return calm.then(why).into_iter().collect();
        }
        let mut bad = checkers::honest(&disks, all);
        let terms = self.terms(state.is_cut());
        bad.extend(checkers::converged(&disks, all, terms));
        if !bad.is_empty() {
            bad.insert(0, "live and in sync, but:".to_owned());
        }
        bad
    }

    fn inject(&self, round: u64) {
        let state = self.world.state();
        for (i, fs) in state
            .disks
            .iter()
            .enumerate()
            .filter(|(i, _)| self.plan.errors[*i])
        {
            fs.swarm(self.seed.wrapping_mul(31) ^ round << 8 ^ i as u64);
        }
    }

    /// Opens everything and runs one session under the eyes of the checkers.
    fn session(&mut self, once: bool, close: bool) -> (Option<(End, Vec<Known>)>, Vec<String>) {
        self.world
            .state()
            .disks
            .iter()
            .for_each(SimFs::keep_account);
        let replicas = match self.world.open() {
            Ok(replicas) => replicas,
            Err(why) => {
                self.world.note(format!("          {why}"));
                return (None, Vec::new());
            }
        };
        self.world.state().counts.sessions += 1;
        let machines: Vec<usize> = replicas.iter().map(|o| o.machine).collect();
        self.world
            .note(format!("          session of machines {machines:?}"));
        let end = self.converse(once, &replicas);
        self.world
            .note(format!("          session once {once}: {end:?}"));
        if close {
            for Opened { replica, .. } in &replicas {
                if let Err(e) = replica.far_end().close() {
                    self.world.note(format!("          close: {}", e.chain()));
                }
            }
        }
        self.survey(&replicas);
        let all = Self::read(&replicas);
        self.past = Past::of(&all);
        drop(replicas);
        let mut bad: Vec<String> = all.iter().flat_map(|k| self.dots.check(k)).collect();
        bad.extend(self.world.eye().broken());
        let state = self.world.state();
        // What trouble left behind is found when the root is opened next.
        let tidy = self.peace && close && end.as_ref().is_ok_and(|e| e.state == State::InSync);
        bad.extend(checkers::let_go(&state.disks, tidy));
        if self.plan.mirror {
            let written = checkers::changes(&state.disks[0]);
            bad.extend(
                (!written.is_empty()).then(|| format!("I18: the source was written: {written:?}")),
            );
        }
        drop(state);
        (end.ok().map(|end| (end, all)), bad)
    }

    /// Runs one session of replicas.
    fn converse(&self, once: bool, replicas: &[Opened]) -> Result<End, String> {
        let policy = self.plan.policy(self.round);
        let options = SessionOptions {
            once,
            policy: policy.map(|p| p.record(|machine| self.world.id(machine))),
            mirror: self.plan.mirror,
            allow_empty: true,
            sizes: self.plan.sizes.session,
            ..SessionOptions::default()
        };
        let env = self.world.env(0, self.world.boot());
        let monitor = Box::new(Tracer(self.world.clone()));
        let as_replicas = replicas
            .iter()
            .map(|o| o.replica.clone() as Arc<dyn Replica>);
        let session = Session::start(env, as_replicas.collect(), options, monitor);
        let mut session = session.map_err(|e| e.to_string())?;
        self.world.running(session.handle());
        session.run().map_err(|e| e.to_string())
    }

    fn survey(&self, replicas: &[Opened]) {
        let Some(mut cells) = self.world.eye().cells() else {
            return;
        };
        let disks = self.world.state().disks.clone();
        let surveys = replicas
            .iter()
            .map(|o| (disks[o.machine].clone(), Survey::of(&*o.replica.far_end())));
        cells.survey(&surveys.collect::<Vec<_>>());
    }

    /// What each machine's replica knows, in the order of machines.
    fn read(replicas: &[Opened]) -> Vec<Known> {
        let mut sorted: Vec<&Opened> = replicas.iter().collect();
        sorted.sort_by_key(|o| o.machine);
        sorted
            .iter()
            .map(|o| checkers::known(&*o.replica.far_end()))
            .collect()
    }

    fn in_peace(&mut self, rng: &mut Prng) -> Vec<String> {
        self.peace = true;
        self.world.join();
        self.round = self.round.max(self.plan.rounds.len());
        let mut quiet: Option<Vec<Known>> = None;
        let mut why = Vec::new();
        for _ in 0..PATIENCE {
            self.world
                .state()
                .disks
                .iter()
                .for_each(instep_fs::sim::SimFs::reset_calls);
            self.world.let_locks_expire();
            self.world.begin_round(Round::PEACE, false);
            let (ended, bad) = self.session(true, rng.chance(3, 4));
            self.world.end_round();
            if !bad.is_empty() {
                return bad;
            }
            let Some((end, all)) = ended else {
                return vec!["I12: no session in peace".into()];
            };
            why = self.unrest(&end, &all);
            if why.is_empty() {
                if let Some(before) = &quiet
                    && *before != all
                {
                    return vec!["I13: a session without work changed an index".into()];
                }
                if quiet.is_some() {
                    return self.verdict(&all);
                }
                quiet = Some(all);
            } else if quiet.is_some() {
                why.insert(0, "I13: work after there was none".into());
                return why;
            }
        }
        why.insert(0, "I12: not in step in the end".into());
        why
    }

    /// What a session did or left undone. A content that a power cut took from everybody stays missed.
    fn unrest(&self, end: &End, all: &[Known]) -> Vec<String> {
        let state = self.world.state();
        let real = self.real_problems(&state.disks, end, all);
        let mut out: Vec<String> = real.iter().map(|p| format!("{p:?}")).collect();
        let paths: BTreeSet<&RelPath> = end.problems.iter().map(|(_, p)| &p.path).collect();
        if end.summary.changes > 0 {
            out.push(format!("{} changes", end.summary.changes));
        }
        let waits = all.iter().any(|k| !k.frozen.is_empty());
        if end.summary.waiting > paths.len() as u64 && !waits {
            out.push(format!("{} wait", end.summary.waiting));
        }
        if !out.is_empty() {
            out.extend(checkers::honest(&state.disks, all));
        }
        for (i, fs) in state.disks.iter().enumerate() {
            let calls = checkers::changes(fs);
            if !calls.is_empty() {
                out.push(format!("machine {i}: {calls:?}"));
            }
        }
        out
    }

    fn terms(&self, cut: bool) -> Terms {
        Terms {
            mirror: self.plan.mirror,
            manual: self.plan.asks(),
            cut,
        }
    }

    /// Problems but for contents that nobody here has and somebody who is away may have.
    fn real_problems(&self, disks: &[SimFs], end: &End, all: &[Known]) -> Vec<(usize, Problem)> {
        let gone = checkers::gone(disks, all, self.plan.mirror);
        let missing = |p: &Problem| p.code == Code::ContentMissing && gone.contains(&p.path);
        let real = end.problems.iter().filter(|(_, p)| !missing(p));
        real.cloned().collect()
    }

    fn verdict(&self, all: &[Known]) -> Vec<String> {
        let state = self.world.state();
        let mirror = self.plan.mirror;
        let mut bad = checkers::converged(&state.disks, all, self.terms(state.is_cut()));
        bad.extend(checkers::honest(&state.disks, all));
        bad.extend(checkers::kept(&state.disks, all, &state.ledger, mirror));
        bad
    }
}
