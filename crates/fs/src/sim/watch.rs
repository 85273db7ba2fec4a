//! The inotify model: a bounded queue for each watcher, with overflow, coalescing, delay and loss.
//!
//! Owns queues and watches, not the tree. As in Linux, an event carries a directory and a name, and becomes
//! a path only when it is read; a watch follows its directory when a move is read, not when it happens.
//! Invariant: a dropped event is followed by an overflow, unless the knob for silent loss took it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use instep_core::path::{Name, RelPath};
use rustix::io::Errno;

use super::durable::NodeId;
use super::faults::Rng;
use super::handles::SimDir;
use super::tree::{Sys, World, no};
use super::{SimConfig, SimFs};
use crate::api::Result;
use crate::watch::{Hint, What};

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
    Overflow,
}

/// One event, as the kernel queues it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) dir: NodeId,
    pub(super) name: Box<[u8]>,
    pub(super) signal: Signal,
    pub(super) cookie: u32,
    /// The inode concerned: lets the simulator follow moved watches without doubt.
    pub(super) child: Option<NodeId>,
    pub(super) is_dir: bool,
}

/// Where a watched directory was when last heard of.
#[derive(Debug, Clone)]
struct Watch {
    parent: Option<NodeId>,
    name: Box<[u8]>,
    /// The path, where no watched directory is above.
    path: RelPath,
}

/// One inotify instance.
#[derive(Debug, Default)]
pub(super) struct WatchState {
    watches: BTreeMap<NodeId, Watch>,
    queue: VecDeque<(i64, Event)>,
    overflowed: bool,
    woken: bool,
}

impl WatchState {
    /// Queues an event if its directory is watched.
    pub(super) fn push(&mut self, event: &Event, cfg: &SimConfig, now: i64, rng: &mut Rng) {
        if !self.watches.contains_key(&event.dir)
            || self.overflowed
            || rng.chance(cfg.event_loss_per_mille)
        {
            return;
        }
        if self.queue.back().is_some_and(|(_, last)| last == event) {
            return;
        }
        let earliest = self.queue.back().map_or(i64::MIN, |(at, _)| *at);
        let visible = now
            .saturating_add(rng.below(cfg.event_delay_ns.saturating_add(1)) as i64)
            .max(earliest);
        let mut event = event.clone();
        if self.queue.len() >= cfg.event_queue {
            event.signal = Signal::Overflow;
            self.overflowed = true;
        }
        self.queue.push_back((visible, event));
    }

    fn add(&mut self, dir: NodeId, parent: Option<NodeId>, path: RelPath) {
        let above = path.parent();
        let parent = parent.filter(|p| above.is_some() && self.path_of(*p) == above);
        let name = path.name().map(|n| n.as_bytes().into()).unwrap_or_default();
        self.watches.insert(dir, Watch { parent, name, path });
    }

    fn path_of(&self, dir: NodeId) -> Option<RelPath> {
        let watch = self.watches.get(&dir)?;
        match watch.parent {
            None => Some(watch.path.clone()),
            Some(parent) => Some(self.path_of(parent)?.join(Name::new(&watch.name).ok()?)),
        }
    }

    /// Ends every watch at or below `dir`.
    fn drop_tree(&mut self, dir: NodeId) {
        let mut gone = vec![dir];
        while let Some(id) = gone.pop() {
            self.watches.remove(&id);
            gone.extend(
                self.watches
                    .iter()
                    .filter(|(_, w)| w.parent == Some(id))
                    .map(|(id, _)| *id),
            );
        }
    }

    /// Takes what is visible by now, in order.
    pub(super) fn take(&mut self, now: i64) -> Vec<Event> {
        let count = self.queue.iter().take_while(|(at, _)| *at <= now).count();
        self.queue.drain(..count).map(|(_, event)| event).collect()
    }

    fn read(&mut self, now: i64) -> Vec<Hint> {
        self.woken = false;
        let events = self.take(now);
        let mut hints = Hints::default();
        for (at, event) in events.iter().enumerate() {
            let path = self.path_of(event.dir);
            match event.signal {
                Signal::Overflow => {
                    self.overflowed = false;
                    hints.whole.push(Hint::Overflow);
                }
                Signal::DeleteSelf | Signal::MoveSelf => {
                    if path.is_some_and(|p| p.is_root()) {
                        hints.whole.push(Hint::RootGone);
                    }
                    if event.signal == Signal::DeleteSelf {
                        self.drop_tree(event.dir);
                    }
                }
                _ => {
                    if let Some((path, name)) = path.zip(Name::new(&event.name).ok()) {
                        hints.add(path.join(name), event);
                    }
                    self.follow(event, &events[at..]);
                }
            }
        }
        hints.finish()
    }

    /// Moves or ends the watches of a directory that was renamed.
    fn follow(&mut self, event: &Event, rest: &[Event]) {
        let Some(child) = event
            .child
            .filter(|c| event.is_dir && self.watches.contains_key(c))
        else {
            return;
        };
        match event.signal {
            Signal::MovedFrom => {
                let paired = rest
                    .iter()
                    .any(|e| e.signal == Signal::MovedTo && e.cookie == event.cookie);
                if !paired {
                    self.drop_tree(child);
                }
            }
            Signal::MovedTo => {
                if let Some(watch) = self.watches.get_mut(&child) {
                    watch.parent = Some(event.dir);
                    watch.name.clone_from(&event.name);
                }
            }
            _ => {}
        }
    }
}

/// Hints of one wait, identical places merged.
#[derive(Default)]
struct Hints {
    whole: Vec<Hint>,
    paths: Vec<(RelPath, What)>,
    last: BTreeMap<RelPath, usize>,
}

impl Hints {
    fn add(&mut self, path: RelPath, event: &Event) {
        let mut what = What {
            is_dir: event.is_dir,
            ..What::default()
        };
        match event.signal {
            Signal::Create => what.created = true,
            Signal::Modify => what.modified = true,
            Signal::CloseWrite => what.closed = true,
            Signal::MovedFrom => what.moved_from = Some(event.cookie),
            Signal::MovedTo => what.moved_to = Some(event.cookie),
            Signal::Delete => what.deleted = true,
            Signal::Attrib => what.attrib = true,
            Signal::DeleteSelf | Signal::MoveSelf | Signal::Overflow => return,
        }
        let moves = what.moved_from.is_some() || what.moved_to.is_some();
        if let Some((_, old)) = self.last.get(&path).and_then(|at| self.paths.get_mut(*at))
            && !moves
        {
            old.created |= what.created;
            old.modified |= what.modified;
            old.closed |= what.closed;
            old.deleted |= what.deleted;
            old.attrib |= what.attrib;
            old.is_dir |= what.is_dir;
            return;
        }
        self.last.insert(path.clone(), self.paths.len());
        self.paths.push((path, what));
    }

    fn finish(mut self) -> Vec<Hint> {
        self.whole.dedup();
        let paths = self
            .paths
            .into_iter()
            .map(|(path, what)| Hint::Path { path, what });
        self.whole.into_iter().chain(paths).collect()
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

    /// Watches `dir`, and reports what happens in it under `path`.
    pub fn add(&self, dir: &SimDir, path: &RelPath) -> Result<()> {
        let node = dir.handle().id;
        self.call("watch_add", &format!("watch \"{path}\""), |world, id| {
            let used: usize = world.watchers.values().map(|w| w.watches.len()).sum();
            let parent = world.node(node)?.names.first().map(|(dir, _)| *dir);
            let max = world.cfg.max_watches;
            let state = world.watchers.get_mut(&id).ok_or(no(Errno::BADF))?;
            if used as u64 >= max && !state.watches.contains_key(&node) {
                return Err(no(Errno::NOSPC));
            }
            state.add(node, parent, path.clone());
            Ok(())
        })
    }

    /// Stops watching `path` and everything below it.
    pub fn remove_tree(&self, path: &RelPath) -> Result<()> {
        self.call(
            "watch_remove",
            &format!("stop watching \"{path}\""),
            |world, id| {
                let state = world.watchers.get_mut(&id).ok_or(no(Errno::BADF))?;
                let ids: Vec<NodeId> = state.watches.keys().copied().collect();
                let within = |id: &NodeId| state.path_of(*id).is_some_and(|p| p.is_within(path));
                let gone: Vec<NodeId> = ids.into_iter().filter(within).collect();
                for id in gone {
                    state.watches.remove(&id);
                }
                Ok(())
            },
        )
    }

    /// Whether a directory is watched under `path`.
    pub fn is_watched(&self, path: &RelPath) -> bool {
        let world = self.fs.lock();
        world.watchers.get(&self.id).is_some_and(|state| {
            let at = |id: &NodeId| state.path_of(*id).as_ref() == Some(path);
            state.watches.keys().any(at)
        })
    }

    /// What has become visible. Never blocks: virtual time moves only by [`SimFs::set_now`].
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Vec<Hint>> {
        let attempt = match timeout {
            Some(limit) => format!("wait {limit:?} for changes"),
            None => "wait for changes".to_owned(),
        };
        self.call("watch_wait", &attempt, |world, id| {
            let now = world.now;
            Ok(world
                .watchers
                .get_mut(&id)
                .ok_or(no(Errno::BADF))?
                .read(now))
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
        let now = world.now;
        world
            .watchers
            .get(&self.id)
            .is_some_and(|w| w.woken || w.queue.front().is_some_and(|(at, _)| *at <= now))
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
