//! Machines and clocks, and what happens between two calls of the engine.
//!
//! All machines belong to one process, as local folders do: it is killed as a whole, and the power goes for
//! all. Opening is in `machines`, dying in `deaths`, what befalls a root while nobody runs in `mishaps`, what
//! makes life hard for a while in `troubles`. Invariant: time passes only here, by calls and by waiting.

mod deaths;
mod gaps;
mod locks;
mod machines;
mod mishaps;
mod troubles;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use instep_core::id::ReplicaId;
use instep_core::policy::Role;
use instep_engine::session::Handle;
use instep_fs::sim::SimFs;
use instep_store::MemoryDisk;
use instep_testkit::prng::Prng;

use crate::checkers;
use crate::counts::Counts;
use crate::eye::Eye;
use crate::faults::{Clock, Crash, Line, Plan, Round, Sizes, Trouble};
use crate::ledger::{Ledger, Seen, seen};
use crate::mask::Mask;
use crate::rare;
use crate::users::Users;
use deaths::Life;
use gaps::Gap;
use machines::Identity;
pub(crate) use machines::Opened;
use troubles::Running;

/// 2026-01-01 00:00:00 UTC, where simulated clocks start.
const START_NS: i64 = 1_767_225_600 * 1_000_000_000;
/// What one call costs.
const CALL_NS: u64 = 7_000;
/// Calls and glances at the clock in one session before it counts as going round in circles.
const FUEL: u64 = 400_000;
/// Waits of a live session, after the users are done with it, before it is stopped.
const WAITS: u64 = 25;
/// The time that must have passed then: whoever was out of reach is tried again every second or two.
const QUIET_NS: u64 = 12_000_000_000;

/// What changes while a seed runs.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) disks: Vec<SimFs>,
    identities: Vec<Identity>,
    last_tag: u8,
    /// Roots as they were backed up.
    backups: Vec<SimFs>,
    pub(crate) indexes: Vec<MemoryDisk>,
    pub(crate) users: Users,
    pub(crate) ledger: Ledger,
    pub(crate) trace: Vec<String>,
    rng: Prng,
    between_calls: usize,
    users_sync: bool,
    /// Operations that users may still do in this round.
    ops: u64,
    crash: Option<Crash>,
    life: Life,
    calls: u64,
    waits: u64,
    /// When a user acted last.
    acted_ns: u64,
    /// The session goes on until it is stopped.
    live: bool,
    /// The last process died; the next one has things to make good.
    died: bool,
    /// It is making them good: what users do meanwhile may be about things that it does not know yet.
    recovering: bool,
    /// After a power cut nobody has looked at all disks yet.
    dark: bool,
    /// Somebody has no memory of what was there, and cannot tell what users took away meanwhile.
    forgetful: bool,
    boot: u64,
    handle: Option<Handle>,
    /// What may happen to machines for a while, and how often.
    may_happen: (Vec<Trouble>, usize),
    troubles: Vec<Running>,
    gap: Gap,
    lines: Vec<Line>,
    sizes: Sizes,
    pub(crate) counts: Counts,
}

impl State {
    /// A live session had a good while after the last act of a user.
    pub(crate) fn is_quiet(&self, now_ns: u64) -> bool {
        let long = self.waits > WAITS && now_ns >= self.acted_ns + QUIET_NS;
        self.life == Life::Alive && self.ops == 0 && long
    }

    /// The power was cut at least once.
    pub(crate) fn is_cut(&self) -> bool {
        self.boot > 1
    }

    /// The last process died, or some replica has still to make good what a death left.
    pub(crate) fn has_died(&self) -> bool {
        self.died || self.forgetful
    }

    /// How many take part.
    pub(crate) fn taking_part(&self) -> usize {
        self.identities.iter().filter(|who| who.joined).count()
    }

    /// The disks of those who take part, in order.
    pub(crate) fn joined(&self) -> Vec<SimFs> {
        let all = self.disks.iter().zip(&self.identities);
        all.filter(|(_, who)| who.joined)
            .map(|(fs, _)| fs.clone())
            .collect()
    }
}

/// The machines of one seed.
pub(crate) struct World {
    state: Mutex<State>,
    /// Nanoseconds since the start; one clock, read with each machine's error.
    elapsed_ns: AtomicU64,
    fuel: AtomicU64,
    clocks: Vec<Clock>,
    /// By how much each machine's clock has jumped.
    jumped_ns: Vec<AtomicI64>,
    /// Whose root is away.
    away: Vec<AtomicBool>,
    eye: Arc<Eye>,
    mask: Mask,
    /// Sessions under faults that have begun.
    rounds: AtomicU64,
    seed: u64,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

impl World {
    /// Machines with empty roots.
    pub(crate) fn new(seed: u64, plan: &Plan, mask: &Mask, eye: Eye, rng: &mut Prng) -> Arc<Self> {
        let disks: Vec<SimFs> = plan.disks.iter().map(|c| SimFs::new(c.clone())).collect();
        let identities = Identity::all(plan);
        for (i, (fs, clock)) in disks.iter().zip(&plan.clocks).enumerate() {
            fs.set_now(START_NS + clock.skew_ns);
            if identities[i].role != Role::Source {
                machines::make_ours(fs);
            }
        }
        Arc::new(Self {
            state: Mutex::new(State {
                indexes: disks.iter().map(|_| MemoryDisk::new()).collect(),
                disks,
                identities,
                last_tag: 16,
                backups: Vec::new(),
                users: Users::new(plan.errors.contains(&true)),
                ledger: Ledger::default(),
                trace: Vec::new(),
                rng: rng.fork(),
                between_calls: plan.between_calls,
                users_sync: plan.users_sync,
                ops: 0,
                crash: None,
                life: Life::Alive,
                calls: 0,
                waits: 0,
                acted_ns: 0,
                live: false,
                died: false,
                recovering: false,
                dark: false,
                forgetful: false,
                boot: 1,
                handle: None,
                may_happen: (plan.troubles.clone(), plan.trouble_rate),
                troubles: Vec::new(),
                gap: Gap::default(),
                lines: plan.lines.clone(),
                sizes: plan.sizes,
                counts: Counts::default(),
            }),
            elapsed_ns: AtomicU64::new(0),
            fuel: AtomicU64::new(FUEL),
            clocks: plan.clocks.clone(),
            jumped_ns: plan.clocks.iter().map(|_| AtomicI64::new(0)).collect(),
            away: plan.clocks.iter().map(|_| AtomicBool::new(false)).collect(),
            eye: Arc::new(eye),
            mask: mask.clone(),
            rounds: AtomicU64::new(0),
            seed,
        })
    }

    /// What is left out of the seed.
    pub(crate) fn mask(&self) -> &Mask {
        &self.mask
    }

    /// A session under faults begins.
    pub(crate) fn begins(&self, round: usize) {
        self.rounds.store(round as u64 + 1, Ordering::Relaxed);
    }

    /// Sessions under faults that have begun.
    pub(crate) fn rounds(&self) -> usize {
        self.rounds.load(Ordering::Relaxed) as usize
    }

    /// Watches every replica.
    pub(crate) fn eye(&self) -> &Arc<Eye> {
        &self.eye
    }

    /// What changes.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes into the trace.
    pub(crate) fn note(&self, line: String) {
        self.state().trace.push(line);
    }

    fn wall_ns(&self, machine: usize) -> i64 {
        let Clock { skew_ns, drift_ppm } = self.clocks[machine];
        let jumped_ns = self.jumped_ns[machine].load(Ordering::Relaxed);
        let elapsed_ns = self.elapsed_ns.load(Ordering::Relaxed) as i64;
        START_NS + skew_ns + jumped_ns + elapsed_ns + elapsed_ns / 1_000_000 * drift_ppm
    }

    fn pass(&self, ns: u64) {
        self.elapsed_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// Nanoseconds since the start.
    pub(crate) fn elapsed_ns(&self) -> u64 {
        self.elapsed_ns.load(Ordering::Relaxed)
    }

    /// Users are not done with this session: things may go wrong.
    pub(crate) fn is_loaded(&self) -> bool {
        let state = self.state();
        state.ops > 0 && state.life == Life::Alive
    }

    /// A machine's root is there to be changed, and is not read-only now.
    pub(crate) fn can_change(&self, machine: usize) -> bool {
        let state = self.state();
        let mut read_only = false;
        state.disks[machine].configure(|c| read_only = c.read_only);
        !read_only && state.identities[machine].role != Role::Source
    }

    /// Something went wrong on a machine.
    pub(crate) fn strike(&self, machine: usize, what: &'static str) {
        let mut state = self.state();
        state.counts.strike(what);
        state
            .trace
            .push(format!("          {what}: machine {machine}"));
    }

    /// An answer takes long; users do not wait for it.
    pub(crate) fn delay(&self, ms: u64) {
        self.pass(ms * 1_000_000);
        let mut state = self.state();
        for _ in 0..state.rng.below(3) {
            self.user_acts(&mut state);
        }
    }

    fn burn(&self) {
        let left = self
            .fuel
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |f| f.checked_sub(1));
        assert!(left.is_ok(), "the session goes round in circles");
    }

    fn set_clocks(&self, state: &State) {
        for (i, fs) in state.disks.iter().enumerate() {
            fs.set_now(self.wall_ns(i));
        }
    }

    /// Lets a user act, if any is left to do so.
    fn user_acts(&self, state: &mut State) -> bool {
        if state.ops == 0 || state.life == Life::Dead {
            return false;
        }
        (state.ops, state.waits) = (state.ops - 1, 0);
        state.acted_ns = self.elapsed_ns();
        self.act(state);
        true
    }

    /// A user acts when a machine is about to carry out a call.
    fn act_before(&self, state: &mut State, machine: usize, op: &str) {
        let fs = state.disks[machine].clone();
        let before = Gap::is_open(&fs, op).then(|| seen(&fs));
        self.user_acts(state);
        if let Some(before) = before {
            state.gap.acted(machine, &before, seen(&fs));
        }
    }

    fn act(&self, state: &mut State) {
        // Each act draws from a sequence of its own, so that leaving one out does not change the others.
        let number = state.counts.acts;
        if self.mask.drops_act(number) {
            state.counts.acts += 1;
            return;
        }
        let own = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let rng = &mut Prng::new(self.seed.rotate_left(32) ^ own);
        self.set_clocks(state);
        troubles::lift_limits(state);
        let State {
            disks,
            users,
            ledger,
            users_sync,
            dark,
            counts,
            ..
        } = &mut *state;
        let before = dark.then(|| disks.iter().map(seen).collect::<Vec<Seen>>());
        let done = if self.eye.cells().is_some() && rng.chance(1, 8) {
            counts.acts += 1;
            rare::act(disks, rng)
        } else {
            users.act(disks, *users_sync, ledger, counts, rng)
        };
        // Users may do something to what a power cut left before anybody could see what it is.
        for (fs, before) in disks.iter().zip(before.unwrap_or_default()) {
            ledger.allow_changed(&before, &seen(fs));
        }
        troubles::impose_limits(state);
        state.trace.push(format!(
            "{:>9} user #{number} {done}",
            self.elapsed_ns.load(Ordering::Relaxed) / 1000
        ));
    }

    /// Users act while no process runs.
    pub(crate) fn users_act(&self, count: u64) {
        let mut state = self.state();
        for _ in 0..count {
            self.pass(1_000_000 * (1 + state.rng.below(900) as u64));
            self.act(&mut state);
        }
    }

    /// Programs that are saving finish.
    pub(crate) fn users_finish(&self) {
        let mut state = self.state();
        self.set_clocks(&state);
        finish(&mut state);
    }

    /// Before every call of the engine on a machine.
    fn before_call(&self, machine: usize, op: &str) {
        self.burn();
        self.pass(CALL_NS);
        let mut state = self.state();
        self.pass(troubles::delay(&state, machine));
        state.disks[machine].set_now(self.wall_ns(machine));
        state.calls += 1;
        let State {
            gap, disks, ledger, ..
        } = &mut *state;
        gap.close(disks, ledger);
        match state.life {
            Life::Alive if state.crash.is_some_and(|c| c.after_calls <= state.calls) => {
                deaths::strike(&mut state, &format!("{machine}: {op}"));
            }
            Life::IndexDead => deaths::kill_disks(&mut state),
            Life::Alive => {
                self.troubles(&mut state);
                let chance = state.between_calls;
                if state.rng.chance(chance, 1000) {
                    self.act_before(&mut state, machine, op);
                }
            }
            Life::Dead => {}
        }
    }

    fn wait(&self, timeout: Duration) {
        self.burn();
        self.pass(timeout.as_nanos() as u64);
        let mut state = self.state();
        self.set_clocks(&state);
        if state.rng.chance(2, 3) && self.user_acts(&mut state) {
            return;
        }
        if state.live && state.ops == 0 && state.waits == 0 {
            finish(&mut state);
            self.end_troubles(&mut state, |_| true);
        }
        state.waits += 1;
        let quiet = state.live && state.is_quiet(self.elapsed_ns());
        if quiet && self.outlive_locks(&state) {
            // What they held is looked at now, and has its quiet while.
            state.waits = 0;
            state.acted_ns = self.elapsed_ns();
            return;
        }
        if (quiet || state.life == Life::Dead)
            && let Some(handle) = state.handle.clone()
        {
            drop(state);
            handle.stop();
        }
    }

    /// Begins a session: so many operations may interrupt it, and so it may end.
    pub(crate) fn begin_round(self: &Arc<Self>, round: Round, live: bool) {
        let mut state = self.state();
        (state.ops, state.crash, state.live) = (round.ops, round.crash, live);
        (state.life, state.calls, state.waits) = (Life::Alive, 0, 0);
        state.users.linked = state.disks.iter().any(checkers::has_hard_links);
        self.fuel.store(FUEL, Ordering::Relaxed);
        for (i, fs) in state.disks.iter().enumerate() {
            let world = Arc::downgrade(self);
            fs.set_hook(Box::new(move |_, op| {
                if let Some(world) = world.upgrade() {
                    world.before_call(i, op);
                }
            }));
        }
    }

    /// The running session, so that a death can end it.
    pub(crate) fn running(&self, handle: Handle) {
        self.state().handle = Some(handle);
    }

    /// Ends a session, and does to the disks what its death meant for them. Returns the operations that
    /// users did not get to do.
    pub(crate) fn end_round(&self) -> u64 {
        let mut state = self.state();
        state.handle = None;
        self.end_troubles(&mut state, |_| true);
        state.disks.iter().for_each(|fs| {
            fs.clear_hook();
            fs.clear_faults();
        });
        if state.life == Life::IndexDead {
            deaths::kill_disks(&mut state);
        }
        if state.life == Life::Dead {
            deaths::bury(&mut state);
        }
        if state.forgetful {
            deaths::died(&mut state);
        }
        if std::mem::take(&mut state.recovering) {
            deaths::died(&mut state);
            state.dark &= state.died;
        }
        state.life = Life::Alive;
        std::mem::take(&mut state.ops)
    }

    /// Everything that was counted.
    pub(crate) fn counts(&self) -> Counts {
        let state = self.state();
        let mut counts = state.counts.clone();
        state.disks.iter().for_each(|fs| counts.collect(fs));
        counts
    }

    /// The last machine takes part from now on.
    pub(crate) fn join(&self) {
        if let Some(last) = self.state().identities.last_mut() {
            last.joined = true;
        }
    }

    /// The id of a machine's replica, as settings name it.
    pub(crate) fn id(&self, machine: usize) -> String {
        ReplicaId([self.state().identities[machine].id; 16]).to_string()
    }

    /// Which boot this is.
    pub(crate) fn boot(&self) -> u64 {
        self.state().boot
    }
}

/// Programs that are saving finish.
fn finish(state: &mut State) {
    let State {
        disks,
        users,
        ledger,
        ..
    } = &mut *state;
    users.finish(disks, ledger);
}
