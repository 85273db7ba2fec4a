//! The inotify model: a bounded queue for each watcher, with overflow, coalescing, delay and loss.
//!
//! Owns queues and watches, not the tree. As in Linux, a watch sticks to an inode, an event carries the
//! watch and a name, and becomes a path only when it is read. What the process makes of events is not
//! modelled: the real table of paths does it.
//! Invariant: a dropped event is followed by an overflow, unless the knob for silent loss took it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use instep_core::path::RelPath;
use rustix::fs::inotify::ReadFlags;
use rustix::io::Errno;

use super::durable::NodeId;
use super::faults::{Misfortunes, Rng};
use super::handles::SimDir;
use super::tree::{Sys, World, no};
use super::{SimConfig, SimFs};
use crate::api::Result;
use crate::watch::Hint;
use crate::watch::table::Table;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    Create,
    Modify,
    CloseWrite,
    MovedFrom,
    MovedTo,
    Delete,
    Attrib,
    DeleteSelf,
    MoveSelf,
    /// The watch has ended.
    Ignored,
    Overflow,
}

/// One event, as the kernel queues it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) dir: NodeId,
    pub(super) name: Box<[u8]>,
    pub(super) signal: Signal,
    pub(super) cookie: u32,
    pub(super) is_dir: bool,
}

/// One inotify instance: the kernel's half, which knows directories by their inodes and never by a name, and
/// the process's half, which is the real one.
#[derive(Debug, Default)]
pub(super) struct WatchState {
    watches: BTreeMap<NodeId, i32>,
    /// Numbers are given out in turn, and never again.
    last_wd: i32,
    queue: VecDeque<Queued>,
    overflowed: bool,
    woken: bool,
    table: Table,
}

/// An event in the kernel's queue.
#[derive(Debug)]
pub(super) struct Queued {
    /// From when on the process may read it.
    visible: i64,
    wd: i32,
    pub(super) event: Event,
}

impl WatchState {
    /// Queues an event if its directory is watched.
    pub(super) fn push(
        &mut self,
        event: &Event,
        cfg: &SimConfig,
        now: i64,
        rng: &mut Rng,
        met: &mut Misfortunes,
    ) {
        let Some(wd) = self.watches.get(&event.dir).copied() else {
            return;
        };
        let overflowed = self.overflowed;
        if rng.chance(cfg.event_loss_per_mille) {
            met.lost += 1;
        } else {
            self.queue_up(wd, event, cfg, now, rng);
        }
        met.overflows += u64::from(self.overflowed && !overflowed);
        if event.signal == Signal::DeleteSelf {
            self.watches.remove(&event.dir);
            self.ignored(wd, event.dir, cfg, now, rng);
        }
    }

    fn queue_up(&mut self, wd: i32, event: &Event, cfg: &SimConfig, now: i64, rng: &mut Rng) {
        let last = self.queue.back();
        if self.overflowed || last.is_some_and(|q| q.wd == wd && q.event == *event) {
            return;
        }
        let earliest = last.map_or(i64::MIN, |q| q.visible);
        let visible = now
            .saturating_add(rng.below(cfg.event_delay_ns.saturating_add(1)) as i64)
            .max(earliest);
        let mut event = event.clone();
        if self.queue.len() >= cfg.event_queue {
            event.signal = Signal::Overflow;
            self.overflowed = true;
        }
        self.queue.push_back(Queued { visible, wd, event });
    }

    fn ignored(&mut self, wd: i32, dir: NodeId, cfg: &SimConfig, now: i64, rng: &mut Rng) {
        let event = Event {
            dir,
            name: Box::default(),
            signal: Signal::Ignored,
            cookie: 0,
            is_dir: false,
        };
        self.queue_up(wd, &event, cfg, now, rng);
    }

    /// The number of a directory's watch, old or new.
    fn watch(&mut self, dir: NodeId) -> i32 {
        let Self {
            watches, last_wd, ..
        } = self;
        *watches.entry(dir).or_insert_with(|| {
            *last_wd += 1;
            *last_wd
        })
    }

    fn unwatch(&mut self, gone: &[i32], cfg: &SimConfig, now: i64, rng: &mut Rng) {
        for wd in gone {
            let dir = self.watches.iter().find(|(_, w)| *w == wd);
            if let Some(dir) = dir.map(|(dir, _)| *dir) {
                self.watches.remove(&dir);
                self.ignored(*wd, dir, cfg, now, rng);
            }
        }
    }

    /// Takes what is visible by now, in order.
    pub(super) fn take(&mut self, now: i64) -> Vec<Queued> {
        let count = self.queue.iter().take_while(|q| q.visible <= now).count();
        let taken: Vec<Queued> = self.queue.drain(..count).collect();
        self.overflowed &= !taken.iter().any(|q| q.event.signal == Signal::Overflow);
        taken
    }

    /// What the process makes of the events that it reads.
    fn read(&mut self, upto: i64, cfg: &SimConfig, now: i64, rng: &mut Rng) {
        for Queued { wd, event, .. } in self.take(upto) {
            self.table
                .event(wd, event.flags(), event.cookie, &event.name);
        }
        let gone = self.table.left();
        self.unwatch(&gone, cfg, now, rng);
    }
}

impl Event {
    fn flags(&self) -> ReadFlags {
        let flag = match self.signal {
            Signal::Create => ReadFlags::CREATE,
            Signal::Modify => ReadFlags::MODIFY,
            Signal::CloseWrite => ReadFlags::CLOSE_WRITE,
            Signal::MovedFrom => ReadFlags::MOVED_FROM,
            Signal::MovedTo => ReadFlags::MOVED_TO,
            Signal::Delete => ReadFlags::DELETE,
            Signal::Attrib => ReadFlags::ATTRIB,
            Signal::DeleteSelf => ReadFlags::DELETE_SELF,
            Signal::MoveSelf => ReadFlags::MOVE_SELF,
            Signal::Ignored => ReadFlags::IGNORED,
            Signal::Overflow => ReadFlags::QUEUE_OVERFLOW,
        };
        if self.is_dir {
            flag | ReadFlags::ISDIR
        } else {
            flag
        }
    }
}

/// The simulated twin of the inotify watcher.
#[derive(Debug)]
pub struct SimWatcher {
    fs: SimFs,
    id: u64,
    epoch: u64,
}

impl SimWatcher {
    pub(super) fn new(fs: &SimFs) -> Self {
        let mut world = fs.lock();
        let (id, epoch) = (world.token(), world.epoch);
        world.watchers.insert(id, WatchState::default());
        drop(world);
        Self {
            fs: fs.clone(),
            id,
            epoch,
        }
    }

    #[cfg(test)]
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Watches `dir`, and reports what happens in it under `path`; false when that is so already. As the real
    /// one does, it reads first what is queued.
    pub fn add(&self, dir: &SimDir, path: &RelPath) -> Result<bool> {
        let node = dir.handle().id;
        self.call("watch_add", &format!("watch \"{path}\""), |world, id| {
            let used: usize = world.watchers.values().map(|w| w.watches.len()).sum();
            let max = world.cfg.max_watches;
            let (now, cfg) = (world.monotonic, &world.cfg);
            let state = world.watchers.get_mut(&id).ok_or(no(Errno::BADF))?;
            state.read(i64::MAX, cfg, now, &mut world.rng);
            if used as u64 >= max && !state.watches.contains_key(&node) {
                return Err(no(Errno::NOSPC));
            }
            let wd = state.watch(node);
            Ok(state.table.added(wd, path))
        })
    }

    /// Stops watching `path` and everything below it.
    pub fn remove_tree(&self, path: &RelPath) -> Result<()> {
        self.call(
            "watch_remove",
            &format!("stop watching \"{path}\""),
            |world, id| {
                let (now, cfg) = (world.monotonic, &world.cfg);
                let state = world.watchers.get_mut(&id).ok_or(no(Errno::BADF))?;
                let gone = state.table.remove_tree(path);
                state.unwatch(&gone, cfg, now, &mut world.rng);
                Ok(())
            },
        )
    }

    /// Whether a directory is watched under `path`.
    pub fn is_watched(&self, path: &RelPath) -> bool {
        let world = self.fs.lock();
        let state = world.watchers.get(&self.id);
        state.is_some_and(|state| state.table.is_watched(path))
    }

    /// What has become visible. Never blocks: virtual time moves only by [`SimFs::set_now`].
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Vec<Hint>> {
        let attempt = match timeout {
            Some(limit) => format!("wait {limit:?} for changes"),
            None => "wait for changes".to_owned(),
        };
        self.call("watch_wait", &attempt, |world, id| {
            let (now, cfg) = (world.monotonic, &world.cfg);
            let state = world.watchers.get_mut(&id).ok_or(no(Errno::BADF))?;
            state.woken = false;
            state.read(now, cfg, now, &mut world.rng);
            Ok(state.table.take_hints())
        })
    }

    /// Makes a wait return; here only noted, because no wait blocks.
    pub fn wake(&self) {
        if let Some(state) = self.fs.lock().watchers.get_mut(&self.id) {
            state.woken = true;
        }
    }

    /// Whether something is to be read, or somebody has called [`SimWatcher::wake`].
    pub fn is_ready(&self) -> bool {
        let world = self.fs.lock();
        let now = world.monotonic;
        world.watchers.get(&self.id).is_some_and(|w| {
            let visible = w.queue.front().is_some_and(|q| q.visible <= now);
            w.woken || w.table.has_hints() || visible
        })
    }

    /// Watches in use by this watcher, and how many the machine allows.
    pub fn limits(&self) -> (u64, u64) {
        let world = self.fs.lock();
        let used = world
            .watchers
            .get(&self.id)
            .map_or(0, |w| w.watches.len() as u64);
        (used, world.cfg.max_watches)
    }

    fn call<T>(
        &self,
        op: &'static str,
        attempt: &str,
        run: impl FnOnce(&mut World, u64) -> Sys<T>,
    ) -> Result<T> {
        self.fs.call(
            self.epoch,
            op,
            || attempt.to_owned(),
            |world| run(world, self.id),
        )
    }
}

impl Drop for SimWatcher {
    fn drop(&mut self) {
        self.fs.lock().watchers.remove(&self.id);
    }
}
