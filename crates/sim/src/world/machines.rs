//! Opening replicas, and the environment that the engine is given on each machine.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use instep_core::id::{ActorId, ReplicaId, ShareId};
use instep_core::path::Name;
use instep_core::policy::Role;
use instep_fs::sim::SimFs;
use instep_local::index::Index;
use instep_local::recover;
use instep_local::replica::RootGuard;
use instep_local::rules::Rules;
use instep_local::tree::Ours;
use instep_local::{LocalReplica, Parts, Settings};
use instep_replica::env::Env;
use instep_replica::{Step, Waker};
use instep_store::MemoryDisk;
use instep_testkit::prng::Prng;

use super::deaths::Life;
use super::{World, deaths};
use crate::eye::Watched;
use crate::faults::Plan;
use crate::link::Link;

/// Who a machine's root is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity {
    /// The replica's id, all bytes alike.
    pub(super) id: u8,
    /// The actor of a new index.
    pub(super) actor: u8,
    /// It lost its memory; a new index says so.
    pub(super) rejoins: bool,
    /// Everything of ours was deleted, and the machine remembers that somebody was there.
    pub(super) follows: bool,
    pub(super) role: Role,
    /// It takes part.
    pub(super) joined: bool,
}

impl Identity {
    /// Who the machines are in the beginning.
    pub(super) fn all(plan: &Plan) -> Vec<Self> {
        let machines = plan.disks.len();
        let one = |i: usize| {
            let role = match i {
                _ if !plan.mirror => Role::Both,
                0 => Role::Source,
                _ => Role::Target,
            };
            let tag = i as u8 + 1;
            Self {
                id: tag,
                actor: tag,
                rejoins: false,
                follows: false,
                role,
                joined: i + 1 < machines || plan.join_round == 0,
            }
        };
        (0..machines).map(one).collect()
    }
}

/// A machine's replica, opened.
#[derive(Debug, Clone)]
pub(crate) struct Opened {
    pub(crate) machine: usize,
    pub(crate) replica: Arc<Link>,
}

impl World {
    /// Opens the replica of every machine that takes part, in an order that the seed chooses.
    pub(crate) fn open(self: &Arc<Self>) -> Result<Vec<Opened>, String> {
        let (disks, indexes, boot, identities, order) = {
            let mut state = self.state();
            if std::mem::take(&mut state.died) {
                deaths::died(&mut state);
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
        let wanted = order.len();
        let mut opened = Vec::new();
        let mut why = Vec::new();
        for machine in order {
            let (fs, disk) = (&disks[machine], &indexes[machine]);
            match self.open_one(machine, identities[machine], fs, disk, boot) {
                Ok(inner) => opened.push(self.linked(machine, inner)),
                Err(e) => why.push(format!("open {machine}: {e}")),
            }
        }
        // Who could not be opened has still to make good what the last death left.
        let mut state = self.state();
        state.died |= state.recovering && opened.len() < wanted;
        drop(state);
        let source = identities[0].role == Role::Source;
        let usable = opened.len() > 1 && (!source || opened[0].machine == 0);
        if !usable {
            return Err(why.join("; "));
        }
        for line in why {
            self.note(format!("          {line}"));
        }
        Ok(opened)
    }

    fn linked(self: &Arc<Self>, machine: usize, inner: Arc<LocalReplica>) -> Opened {
        let mut state = self.state();
        let (line, rng) = (state.lines[machine], state.rng.fork());
        drop(state);
        let inner = self.watched(machine, inner);
        let replica = Arc::new(Link::new(self.clone(), machine, line, rng, inner));
        Opened { machine, replica }
    }

    /// A machine's replica under the eyes of the checkers.
    pub(crate) fn watched(
        &self,
        machine: usize,
        inner: Arc<LocalReplica>,
    ) -> Arc<Watched<LocalReplica>> {
        let state = self.state();
        let (fs, index) = (state.disks[machine].clone(), state.indexes[machine].clone());
        drop(state);
        Arc::new(Watched::new(inner, machine, fs, index, self.eye().clone()))
    }

    /// Opens the replica of a machine anew while its session runs: its index can be used again. A dead process
    /// opens nothing: after a power cut it would take what is left on the disks for what its own boot wrote.
    pub(crate) fn reopen(self: &Arc<Self>, machine: usize) -> Result<Arc<LocalReplica>, String> {
        let mut state = self.state();
        if state.life == Life::IndexDead {
            deaths::kill_disks(&mut state);
        }
        if state.life == Life::Dead {
            return Err("open a replica anew: the process is dead".to_owned());
        }
        // The old one's hands are off it, and what it had not committed is gone.
        state.indexes[machine].kill();
        (state.died, state.recovering) = (true, true);
        deaths::died(&mut state);
        let (fs, disk) = (state.disks[machine].clone(), state.indexes[machine].clone());
        let (who, boot) = (state.identities[machine], state.boot);
        drop(state);
        self.open_one(machine, who, &fs, &disk, boot)
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
        let sizes = self.state().sizes;
        let index = Index::open(store, ActorId([who.actor; 8])).map_err(|e| e.chain())?;
        let mut index = index.with_blocks_of(sizes.counters);
        let new = index.high_water() == 0;
        if new && who.rejoins {
            index.set_rejoining(true).map_err(|e| e.chain())?;
        }
        if new && who.follows {
            recover::unsure(&mut index).map_err(|e| e.chain())?;
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
                piece_files: sizes.files,
                hash_aside_bytes: sizes.hash_aside_bytes,
                ..Settings::default()
            },
            new,
            guard: Box::new(Guard {
                world: self.clone(),
                machine,
            }),
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
}

pub(super) fn make_ours(fs: &SimFs) {
    let made = fs
        .root()
        .make_dir(own_name(), 0o700)
        .and_then(|()| Ours::open(fs.root().open_dir(own_name())?).map(drop));
    made.expect("nothing fails while nobody runs");
    fs.settle();
}

fn own_name() -> Name<'static> {
    Name::new(instep_core::path::RESERVED).expect("a plain name")
}

/// Knows whether a root is away.
#[derive(Debug)]
struct Guard {
    world: Arc<World>,
    machine: usize,
}

impl RootGuard for Guard {
    fn check(&self) -> Result<(), String> {
        if self.world.away[self.machine].load(Ordering::Relaxed) {
            return Err("the root is not where it was".to_owned());
        }
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

    fn reach(&self, step: Step) {
        deaths::reach(&mut self.world.state(), step);
    }
}
