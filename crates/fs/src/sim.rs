//! The simulated file system: an in-memory tree with a page cache, a durable image, crashes and faults.
//!
//! Owns one machine's file system. The engine holds [`SimDir`], [`SimFile`] and the like, which behave as
//! the real ones; the simulator holds the [`SimFs`], with which it sets the clock, injects errors, acts as
//! the user by path, kills the process, or cuts the power. Invariants: every choice follows from the seed
//! and the order of calls; no wall clock, no thread, no hash order. A hook may run before every call of the
//! engine and act as the user there. Never touches a real file.

mod attributes;
mod audit;
mod config;
mod content;
mod data;
mod durable;
mod faults;
mod file;
mod handles;
mod image;
mod names;
mod tree;
mod user;
mod watch;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use instep_core::path::RelPath;
use rustix::io::Errno;

pub use audit::{Deed, Holdings, NameChange, Object};
pub use config::{CrashModel, SimConfig};
pub use faults::Misfortunes;
pub use file::{SimFile, SimLease, SimLockFile};
pub use handles::SimDir;
pub use user::{NodeView, Save, UserFd};
pub use watch::SimWatcher;

use crate::api::{ERRNO_CRASHED, Error, Result};
use crate::dir::Dir;
use crate::watch::Watcher;
use faults::{Rng, Verdict};
use tree::{Holder, Sys, World, no};

/// The errors that [`SimFs::swarm`] chooses from: what disks, limits and permissions do to each call.
const SWARM: &[(&str, Errno)] = &[
    ("open_dir", Errno::ACCESS),
    ("open_dir", Errno::MFILE),
    ("list", Errno::IO),
    ("list_stat", Errno::IO),
    ("list_stat_entry", Errno::ACCESS),
    ("stat", Errno::IO),
    ("open_file", Errno::ACCESS),
    ("open_file", Errno::MFILE),
    ("read_at", Errno::IO),
    ("create_unnamed", Errno::NOSPC),
    ("create_file", Errno::NOSPC),
    ("write_all_at", Errno::NOSPC),
    ("write_all_at", Errno::IO),
    ("set_mode", Errno::PERM),
    ("publish", Errno::NOSPC),
    ("exchange", Errno::IO),
    ("rename_noreplace", Errno::NOSPC),
    ("remove_file", Errno::BUSY),
    ("read_lease", Errno::AGAIN),
    ("sync", Errno::IO),
    ("sync_data", Errno::IO),
    ("sync_fs", Errno::IO),
    ("watch_add", Errno::NOSPC),
];

type Hook = Box<dyn FnMut(&SimFs, &str) + Send>;

struct Shared {
    world: Mutex<World>,
    hook: Mutex<HookSlot>,
}

/// The hook; empty while it runs.
#[derive(Default)]
struct HookSlot {
    hook: Option<Hook>,
    /// Counts settings, so that a hook replaced or ended while it ran does not come back.
    serial: u64,
}

/// A simulated machine's file system. Clones are the same machine.
#[derive(Clone)]
pub struct SimFs {
    shared: Arc<Shared>,
}

impl fmt::Debug for SimFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFs").finish_non_exhaustive()
    }
}

/// 2026-01-01 00:00:00 UTC: where a simulated clock starts.
const START_NS: i64 = 1_767_225_600 * 1_000_000_000;

impl SimFs {
    /// A machine with an empty root.
    pub fn new(cfg: SimConfig) -> Self {
        Self::from_world(World::empty(cfg, START_NS))
    }

    fn from_world(world: World) -> Self {
        Self {
            shared: Arc::new(Shared {
                world: Mutex::new(world),
                hook: Mutex::default(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.shared
            .world
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// The root directory. On a machine that has crashed every call on it says so.
    pub fn root(&self) -> Dir {
        let mut world = self.lock();
        let root = world.root;
        let opened = SimDir::open(self, &mut world, root);
        drop(world);
        Dir::from_sim(opened.expect("the root is never released"))
    }

    /// A directory by path: how several roots share a machine. Neither counted nor interrupted.
    pub fn dir_at(&self, path: impl AsRef<[u8]>) -> Result<Dir> {
        self.sim_dir_at(path.as_ref()).map(Dir::from_sim)
    }

    fn sim_dir_at(&self, path: &[u8]) -> Result<SimDir> {
        let mut world = self.lock();
        let opened = if world.crashed {
            Err(ERRNO_CRASHED)
        } else {
            open_root(self, &mut world, path)
        };
        drop(world);
        let attempt = || format!("open root \"{}\"", path.escape_ascii());
        opened.map_err(|errno| Error::new(attempt(), errno))
    }

    /// A watcher for the process under test.
    pub fn watcher(&self) -> Watcher {
        Watcher::from_sim(self.new_watcher())
    }

    /// As [`SimFs::watcher`], with what only the simulator can ask.
    pub fn new_watcher(&self) -> SimWatcher {
        SimWatcher::new(self)
    }

    // --- clock

    /// Sets the clock, in nanoseconds since 1970. It may go backwards.
    pub fn set_now(&self, ns: i64) {
        self.lock().set_now(ns);
    }

    /// The clock.
    pub fn now(&self) -> i64 {
        self.lock().now
    }

    /// Moves the clock forward.
    pub fn advance(&self, ns: i64) {
        let mut world = self.lock();
        let then = world.now + ns;
        world.set_now(then);
    }

    /// Changes a knob while the machine runs: room, read-only, loss of events.
    pub fn configure(&self, change: impl FnOnce(&mut SimConfig)) {
        let mut world = self.lock();
        change(&mut world.cfg);
        let (model, lazy) = (world.cfg.crash_model, world.cfg.lazy_times);
        world.disk.configure(model, lazy);
    }

    /// From now on at most this many bytes more can be allocated; as many as one likes when none is given.
    pub fn limit_room(&self, free: Option<u64>) {
        let mut world = self.lock();
        world.cfg.capacity_bytes = free.map_or(1 << 40, |free| world.used + free);
    }

    // --- what goes wrong

    /// From now on, calls of `op` (`*`: every call) fail with `errno` in `per_mille` of 1000 cases.
    pub fn inject(&self, op: &'static str, per_mille: u32, errno: i32) {
        self.lock()
            .faults
            .add(op, per_mille, errno, u64::MAX, false);
    }

    /// The next `times` calls of `op` fail with `errno`.
    pub fn fail_next(&self, op: &'static str, times: u64, errno: i32) {
        self.lock().faults.add(op, 1000, errno, times, false);
    }

    /// The next call of `op` has its effect, and fails with `errno` all the same.
    pub fn fail_after_effect(&self, op: &'static str, errno: i32) {
        self.lock().faults.add(op, 1000, errno, 1, true);
    }

    /// Injects a random choice of errors at random rates, most of them rare: every seed another mix.
    pub fn swarm(&self, seed: u64) {
        let mut rng = Rng::new(seed);
        let mut world = self.lock();
        for (op, errno) in SWARM {
            let (on, rate) = (rng.chance(400), [1, 5, 20, 100][rng.below(4) as usize]);
            if on {
                world.faults.add(op, rate, no(*errno), u64::MAX, false);
            }
        }
    }

    /// Ends what was last injected into calls of `op`.
    pub fn end_fault(&self, op: &str) {
        self.lock().faults.end_last(op);
    }

    /// Ends all injected errors.
    pub fn clear_faults(&self) {
        self.lock().faults.clear();
    }

    /// Runs `hook` before every call of the engine, with the name of the call. It may act as the user and
    /// turn any knob; calls of the engine from inside it run without a hook. It is handed the machine, so
    /// that it need not own one: a hook that does keeps its machine alive for ever.
    pub fn set_hook(&self, hook: Hook) {
        self.replace_hook(Some(hook));
    }

    /// Ends the hook.
    pub fn clear_hook(&self) {
        self.replace_hook(None);
    }

    fn replace_hook(&self, hook: Option<Hook>) {
        let mut slot = self.hook();
        slot.serial += 1;
        let old = core::mem::replace(&mut slot.hook, hook);
        drop(slot);
        drop(old);
    }

    fn hook(&self) -> MutexGuard<'_, HookSlot> {
        self.shared
            .hook
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn run_hook(&self, op: &str) {
        let mut slot = self.hook();
        let (taken, serial) = (slot.hook.take(), slot.serial);
        drop(slot);
        let Some(mut hook) = taken else { return };
        hook(self, op);
        let mut slot = self.hook();
        if slot.serial == serial {
            slot.hook = Some(hook);
        }
    }

    // --- counting

    /// How often each call was made since the last reset, whether it failed or not.
    pub fn count_calls(&self) -> BTreeMap<&'static str, u64> {
        self.lock().faults.counts().clone()
    }

    /// How many calls were made since the machine started.
    pub fn total_calls(&self) -> u64 {
        self.lock().faults.total()
    }

    /// What went wrong so far.
    pub fn misfortunes(&self) -> Misfortunes {
        self.lock().faults.met()
    }

    /// A digest of every call so far and how it ended: equal for two runs that took the same course.
    pub fn history(&self) -> u64 {
        self.lock().faults.history()
    }

    /// Starts counting anew.
    pub fn reset_calls(&self) {
        self.lock().faults.reset_counts();
    }

    // --- the end

    /// Call number `calls` from now, and all later ones, find the machine crashed.
    pub fn crash_after(&self, calls: u64) {
        self.lock().faults.crash_after(calls);
    }

    /// Calls off a crash that has not happened.
    pub fn cancel_crash(&self) {
        self.lock().faults.cancel_crash();
    }

    /// Whether the power is off.
    pub fn has_crashed(&self) -> bool {
        self.lock().crashed
    }

    /// Changes that a power cut could lose.
    pub fn pending(&self) -> usize {
        self.lock().disk.pending()
    }

    /// Cuts the power. The machine stays dead; the result is one that has started from what was left.
    pub fn crash(&self, seed: u64) -> Self {
        self.lock().crashed = true;
        self.image(seed)
    }

    /// What [`SimFs::crash`] would return, while this machine goes on. Faults, hook and counts are not
    /// taken over; clock and configuration are.
    pub fn image(&self, seed: u64) -> Self {
        let world = self.lock();
        let mut rng = Rng::new(seed);
        let image = world.disk.image(&mut rng);
        let cfg = SimConfig {
            seed: rng.next(),
            ..world.cfg.clone()
        };
        Self::from_world(World::from_image(cfg, world.now, world.root, image))
    }

    /// Kills the process under test: its handles, locks, leases and watches are gone, and its unnamed files
    /// with them. The tree stays, durable or not, and so do the user's programs.
    pub fn kill(&self) {
        let mut world = self.lock();
        world.kill();
    }

    // --- one call of the engine

    fn call<T>(
        &self,
        epoch: u64,
        op: &'static str,
        attempt: impl FnOnce() -> String,
        run: impl FnOnce(&mut World) -> Sys<T>,
    ) -> Result<T> {
        self.call_or(epoch, op, attempt, run, |_| ())
    }

    /// As `call`; `failing` is the damage that an injected failure does.
    fn call_or<T>(
        &self,
        epoch: u64,
        op: &'static str,
        attempt: impl FnOnce() -> String,
        run: impl FnOnce(&mut World) -> Sys<T>,
        failing: impl FnOnce(&mut World),
    ) -> Result<T> {
        self.run_hook(op);
        let mut world = self.lock();
        let verdict = world.enter(epoch, op);
        world.account.by = Some(op);
        let mut unwanted = None;
        let done = match verdict {
            Verdict::Proceed => run(&mut world),
            Verdict::Fail(errno) => {
                if errno != ERRNO_CRASHED {
                    failing(&mut world);
                }
                Err(errno)
            }
            Verdict::FailAfter(errno) => {
                unwanted = Some(run(&mut world));
                Err(errno)
            }
        };
        world.account.by = None;
        world
            .faults
            .note(op, done.as_ref().err().copied().unwrap_or(0));
        drop(world);
        // A handle takes the lock when it goes.
        drop(unwanted);
        done.map_err(|errno| Error::new(attempt(), errno))
    }
}

impl World {
    /// Begins a call of the engine.
    fn enter(&mut self, epoch: u64, op: &'static str) -> Verdict {
        if let Err(errno) = self.alive(epoch) {
            return Verdict::Fail(errno);
        }
        let verdict = self.faults.enter(op, &mut self.rng);
        if verdict == Verdict::Fail(ERRNO_CRASHED) {
            self.crashed = true;
        }
        verdict
    }

    fn kill(&mut self) {
        self.epoch += 1;
        self.watchers.clear();
        let ids: Vec<_> = self.nodes.keys().copied().collect();
        for node in self.nodes.values_mut() {
            (node.opens, node.writers) = (0, 0);
            node.leases.clear();
            node.lock = node.lock.filter(|holder| *holder == Holder::User);
        }
        self.run_deferred();
        for id in ids {
            self.release(id);
        }
    }
}

fn open_root(fs: &SimFs, world: &mut World, path: &[u8]) -> Sys<SimDir> {
    let path = RelPath::new(path).map_err(|_| no(Errno::INVAL))?;
    let id = path
        .components()
        .try_fold(world.root, |dir, name| world.lookup(dir, name.as_bytes()))?;
    if !world.node(id)?.inode.is_dir() {
        return Err(no(Errno::NOTDIR));
    }
    SimDir::open(fs, world, id)
}
