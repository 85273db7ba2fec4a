//! Machines, clocks, and the environment that the engine is given; opening replicas, and dying.
//!
//! All machines belong to one process, as local folders do: it is killed as a whole, and the power goes for
//! all. Invariant: time passes only here, by calls and by waiting.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use instep_core::id::{ActorId, ReplicaId, ShareId};
use instep_core::path::Name;
use instep_core::policy::Role;
use instep_engine::session::Handle;
use instep_fs::Kind;
use instep_fs::sim::{Save, SimFs};
use instep_local::index::Index;
use instep_local::replica::RootGuard;
use instep_local::rules::Rules;
use instep_local::tree::Ours;
use instep_local::{LocalReplica, Parts, Settings};
use instep_replica::Waker;
use instep_replica::env::Env;
use instep_store::MemoryDisk;
use instep_testkit::prng::Prng;

use crate::faults::{Crash, Death, Mishap, Plan};
use crate::ledger::{Ledger, Seen, is_ours, seen};
use crate::users::Users;

/// 2026-01-01 00:00:00 UTC, where simulated clocks start.
const START_NS: i64 = 1_767_225_600 * 1_000_000_000;
/// What one call costs.
const CALL_NS: u64 = 7_000;
/// Calls and glances at the clock in one session before it counts as going round in circles.
const FUEL: u64 = 400_000;
/// Waits of a live session, after the users are done with it, before it is stopped.
const WAITS: u64 = 25;

/// What a death leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    /// The process runs.
    Alive,
    /// Its index is dead already; its next call finds the disk so too.
    IndexDead,
    /// It is dead.
    Dead,
}

/// Who a machine's root is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity {
    /// The replica's id, all bytes alike.
    id: u8,
    /// The actor of a new index.
    actor: u8,
    /// It lost its memory; a new index says so.
    rejoins: bool,
    role: Role,
    /// It takes part.
    joined: bool,
}

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
}

impl State {
    /// A live session had a good while after the last act of a user.
    pub(crate) fn is_quiet(&self) -> bool {
        self.life == Life::Alive && self.ops == 0 && self.waits > WAITS
    }

    /// The power was cut at least once.
    pub(crate) fn is_cut(&self) -> bool {
        self.boot > 1
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
    skew_ns: Vec<i64>,
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
    pub(crate) fn new(seed: u64, plan: &Plan, rng: &mut Prng) -> Arc<Self> {
        let disks: Vec<SimFs> = plan.disks.iter().map(|c| SimFs::new(c.clone())).collect();
        let mut identities = Vec::new();
        for (i, (fs, skew_ns)) in disks.iter().zip(&plan.skew_ns).enumerate() {
            fs.set_now(START_NS + skew_ns);
            let role = match i {
                _ if !plan.mirror => Role::Both,
                0 => Role::Source,
                _ => Role::Target,
            };
            if role != Role::Source {
                make_ours(fs);
            }
            let tag = i as u8 + 1;
            identities.push(Identity {
                id: tag,
                actor: tag,
                rejoins: false,
                role,
                joined: i + 1 < disks.len() || plan.join_round == 0,
            });
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
                live: false,
                died: false,
                recovering: false,
                dark: false,
                forgetful: false,
                boot: 1,
                handle: None,
            }),
            elapsed_ns: AtomicU64::new(0),
            fuel: AtomicU64::new(FUEL),
            skew_ns: plan.skew_ns.clone(),
            seed,
        })
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
        START_NS + self.skew_ns[machine] + self.elapsed_ns.load(Ordering::Relaxed) as i64
    }

    fn pass(&self, ns: u64) {
        self.elapsed_ns.fetch_add(ns, Ordering::Relaxed);
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
        self.act(state);
        true
    }

    fn act(&self, state: &mut State) {
        self.set_clocks(state);
        let State {
            disks,
            users,
            ledger,
            rng,
            users_sync,
            dark,
            ..
        } = &mut *state;
        let before = dark.then(|| disks.iter().map(seen).collect::<Vec<Seen>>());
        let done = users.act(disks, *users_sync, ledger, rng);
        // Users may do something to what a power cut left before anybody could see what it is.
        for (fs, before) in disks.iter().zip(before.unwrap_or_default()) {
            ledger.allow_changed(&before, &seen(fs));
        }
        state.trace.push(format!(
            "{:>9} user {done}",
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
        state.disks[machine].set_now(self.wall_ns(machine));
        state.calls += 1;
        match state.life {
            Life::Alive if state.crash.is_some_and(|c| c.after_calls <= state.calls) => {
                let index_first = state.crash.is_some_and(|c| c.index_first);
                let crash = state.crash;
                state
                    .trace
                    .push(format!("          death before {machine}: {op}: {crash:?}"));
                kill_indexes(&mut state);
                if index_first {
                    state.life = Life::IndexDead;
                } else {
                    kill_disks(&mut state);
                }
            }
            Life::IndexDead => kill_disks(&mut state),
            Life::Alive => {
                let chance = state.between_calls;
                if state.rng.chance(chance, 1000) {
                    self.user_acts(&mut state);
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
        }
        state.waits += 1;
        if (state.live && state.ops == 0 && state.waits > WAITS || state.life == Life::Dead)
            && let Some(handle) = state.handle.clone()
        {
            drop(state);
            handle.stop();
        }
    }

    /// Begins a session: so many operations may interrupt it, and so it may end.
    pub(crate) fn begin_round(self: &Arc<Self>, ops: u64, crash: Option<Crash>, live: bool) {
        let mut state = self.state();
        (state.ops, state.crash, state.live) = (ops, crash, live);
        (state.life, state.calls, state.waits) = (Life::Alive, 0, 0);
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
        state.disks.iter().for_each(|fs| {
            fs.clear_hook();
            fs.clear_faults();
        });
        if state.life == Life::IndexDead {
            kill_disks(&mut state);
        }
        if state.life == Life::Dead {
            state.died = true;
            match state.crash.map(|c| c.how) {
                Some(Death::PowerCut) => start_again(&mut state),
                _ => state.ledger.died(),
            }
        }
        if state.forgetful {
            state.ledger.died();
        }
        if std::mem::take(&mut state.recovering) {
            state.ledger.died();
            state.dark &= state.died;
        }
        state.life = Life::Alive;
        std::mem::take(&mut state.ops)
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

    /// Everybody makes a backup.
    pub(crate) fn back_up(&self) {
        let mut state = self.state();
        state.disks.iter().for_each(SimFs::settle);
        state.backups = state.disks.iter().map(|fs| fs.image(1)).collect();
        let State { users, ledger, .. } = &mut *state;
        users.backed_up(ledger);
    }

    /// Something happens to a root while nobody runs. What only it had is given up.
    pub(crate) fn befall(&self, machine: usize, what: Mishap) {
        let mut state = self.state();
        self.set_clocks(&state);
        finish(&mut state);
        let line = format!("          {what:?} befalls {machine}");
        state.trace.push(line);
        let new_disk = match what {
            Mishap::IndexLost => None,
            Mishap::Restored => state.backups.get(machine).map(|b| b.image(2)),
            Mishap::StateDeleted => {
                let gone = state.disks[machine].remove_all(instep_core::path::RESERVED);
                gone.expect("nobody uses it");
                make_ours(&state.disks[machine]);
                None
            }
            Mishap::Copied => {
                let from = (machine + 1) % state.disks.len();
                let mut config = None;
                state.disks[machine].configure(|c| config = Some(c.clone()));
                let fs = SimFs::new(config.expect("it was called"));
                fs.set_now(self.wall_ns(machine));
                make_ours(&fs);
                copy(&state.disks[from], &fs);
                Some(fs)
            }
        };
        if let Some(fs) = new_disk {
            fs.set_now(self.wall_ns(machine));
            fs.settle();
            state.disks[machine] = fs;
        }
        state.indexes[machine] = MemoryDisk::new();
        state.last_tag += 1;
        let tag = state.last_tag;
        let who = &mut state.identities[machine];
        who.actor = tag;
        who.rejoins = what != Mishap::StateDeleted;
        if matches!(what, Mishap::StateDeleted | Mishap::Copied) {
            who.id = tag;
        }
        state.forgetful = true;
        let State {
            disks,
            ledger,
            dark,
            ..
        } = &mut *state;
        if *dark {
            // With the index went the only one who could tell what a power cut had torn.
            ledger.allow_changed(&Seen::new(), &seen(&disks[machine]));
        }
        ledger.befell(disks);
    }

    /// Everybody has learnt everything.
    pub(crate) fn remembers(&self) {
        self.state().forgetful = false;
    }

    /// Opens the replica of every machine that takes part, in an order that the seed chooses.
    pub(crate) fn open(self: &Arc<Self>) -> Result<Vec<Opened>, String> {
        let (disks, indexes, boot, identities, mut order) = {
            let mut state = self.state();
            if std::mem::take(&mut state.died) {
                state.ledger.died();
                state.recovering = true;
            }
            let mut order: Vec<usize> = (0..state.disks.len()).collect();
            for i in (1..order.len()).rev() {
                let other = state.rng.below(i + 1);
                order.swap(i, other);
            }
            order.retain(|i| state.identities[*i].joined);
            // A mirror's source comes first.
            order.sort_by_key(|i| state.identities[*i].role != Role::Source);
            (
                state.disks.clone(),
                state.indexes.clone(),
                state.boot,
                state.identities.clone(),
                order,
            )
        };
        let open = |machine: usize| {
            let (fs, disk) = (&disks[machine], &indexes[machine]);
            self.open_one(machine, identities[machine], fs, disk, boot)
                .map(|replica| Opened { machine, replica })
                .map_err(|e| format!("open {machine}: {e}"))
        };
        order.drain(..).map(open).collect()
    }

    fn open_one(
        self: &Arc<Self>,
        machine: usize,
        who: Identity,
        fs: &SimFs,
        disk: &MemoryDisk,
        boot: u64,
    ) -> Result<Arc<LocalReplica>, String> {
        let root = fs.root();
        let ours = || root.open_dir(own_name()).and_then(Ours::existing);
        // What must never be written has nothing of ours.
        let ours = (who.role != Role::Source).then(ours).transpose();
        let ours = ours.map_err(|e| e.to_string())?;
        let base = ours.as_ref().map(|o| &o.base);
        let profile = root.profile(base).map_err(|e| e.to_string())?;
        let store = Box::new(disk.open());
        let mut index = Index::open(store, ActorId([who.actor; 8])).map_err(|e| e.chain())?;
        let new = index.high_water() == 0;
        if new && who.rejoins {
            index.set_rejoining(true).map_err(|e| e.chain())?;
        }
        let watched = fs.clone();
        let parts = Parts {
            id: ReplicaId([who.id; 16]),
            share: ShareId([9; 16]),
            root: root.clone(),
            ours,
            profile,
            index,
            rules: Rules::default(),
            settings: Settings {
                label: format!("machine {machine}"),
                role: who.role,
                ..Settings::default()
            },
            new,
            guard: Box::new(InPlace),
            watcher: Box::new(move || Ok(watched.watcher())),
            threaded: false,
        };
        let replica =
            LocalReplica::assemble(self.env(machine, boot), parts).map_err(|e| e.chain())?;
        replica.begin().map_err(|e| e.chain())?;
        Ok(Arc::new(replica))
    }

    /// The environment as one machine's process has it.
    pub(crate) fn env(self: &Arc<Self>, machine: usize, boot: u64) -> Arc<dyn Env> {
        let elapsed = self.elapsed_ns.load(Ordering::Relaxed);
        let rng = Prng::new(self.seed ^ elapsed.rotate_left(20) ^ ((machine as u64) << 8) ^ boot);
        Arc::new(SimEnv {
            world: self.clone(),
            machine,
            boot,
            rng: Mutex::new(rng),
        })
    }

    /// Which boot this is.
    pub(crate) fn boot(&self) -> u64 {
        self.state().boot
    }
}

/// A machine's replica, opened.
#[derive(Debug, Clone)]
pub(crate) struct Opened {
    pub(crate) machine: usize,
    pub(crate) replica: Arc<LocalReplica>,
}

fn make_ours(fs: &SimFs) {
    let made = fs
        .root()
        .make_dir(own_name(), 0o700)
        .and_then(|()| Ours::open(fs.root().open_dir(own_name())?).map(drop));
    made.expect("nothing fails while nobody runs");
    fs.settle();
}

/// As `cp -a` does it.
fn copy(from: &SimFs, to: &SimFs) {
    let nodes = from.snapshot();
    let users = nodes.iter().filter(|(p, _)| !is_ours(p));
    for (path, node) in users {
        let path = path.as_bytes();
        let made = match node.kind {
            Kind::Dir => to.mkdir_all(path),
            Kind::Link => to.symlink(&node.target, path),
            Kind::File | Kind::Special => to.write_file(path, &node.content, Save::InPlace),
        };
        let dressed = made.and_then(|()| match node.kind {
            Kind::Link => Ok(()),
            _ => to.chmod(path, node.mode),
        });
        let dressed = dressed.and_then(|()| match node.kind {
            Kind::Dir => Ok(()),
            _ => to.touch(path, node.mtime),
        });
        dressed.expect("nothing fails while nobody runs");
    }
}

fn own_name() -> Name<'static> {
    Name::new(instep_core::path::RESERVED).expect("a plain name")
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

fn kill_indexes(state: &mut State) {
    let how = state.crash.map(|c| c.how);
    for disk in &state.indexes {
        match how {
            Some(Death::PowerCut) => disk.power_cut(state.rng.next_u64()),
            _ => disk.kill(),
        }
    }
}

fn kill_disks(state: &mut State) {
    state.life = Life::Dead;
    match state.crash.map(|c| c.how) {
        Some(Death::PowerCut) => {
            state.disks = {
                let State { disks, rng, .. } = &mut *state;
                disks
                    .iter()
                    .map(|fs| {
                        let image = fs.crash(rng.next_u64());
                        fs.clear_hook();
                        image
                    })
                    .collect()
            }
        }
        _ => state.disks.iter().for_each(SimFs::kill),
    }
    if let Some(handle) = &state.handle {
        handle.stop();
    }
}

/// The machines start again after a power cut.
fn start_again(state: &mut State) {
    (state.boot, state.dark) = (state.boot + 1, true);
    let State { users, ledger, .. } = &mut *state;
    users.forget(ledger);
    let unsynced = std::mem::take(&mut state.users.unsynced);
    let unsynced: Vec<bool> = (0..state.disks.len())
        .map(|i| unsynced.get(i) == Some(&true))
        .collect();
    state.ledger.power_cut(&state.disks, &unsynced);
}

/// A root that nobody takes away.
#[derive(Debug)]
struct InPlace;

impl RootGuard for InPlace {
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

/// The environment of the engine on one machine.
#[derive(Debug)]
struct SimEnv {
    world: Arc<World>,
    machine: usize,
    boot: u64,
    rng: Mutex<Prng>,
}

impl Env for SimEnv {
    fn wall_ns(&self) -> i64 {
        self.world.wall_ns(self.machine)
    }

    fn monotonic_ns(&self) -> u64 {
        self.world.burn();
        self.world.pass(1000);
        self.world.elapsed_ns.load(Ordering::Relaxed)
    }

    fn sleep_ms(&self, ms: u64) {
        self.world.wait(Duration::from_millis(ms));
    }

    fn wait(&self, _: &Waker, timeout: Duration) {
        self.world.wait(timeout);
    }

    fn random(&self) -> [u8; 16] {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        (u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64())).to_be_bytes()
    }

    fn workers(&self) -> usize {
        1
    }

    fn boot_id(&self) -> String {
        format!("boot {}", self.boot)
    }

    fn spawn(&self, _: &str, work: Box<dyn FnOnce() + Send>) {
        work();
    }
}
