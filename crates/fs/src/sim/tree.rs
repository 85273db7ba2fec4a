//! The live tree: what the page cache shows.
//!
//! Owns inodes, names, open counts, leases and locks, and the virtual clock; `names` and `data` change it
//! and pass every change on to the durable image and to the watchers. Invariant: an inode is here exactly as long as it has a name, an open
//! handle, or is the root. Errors are plain system numbers; nothing here knows of handles or of faults.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use instep_core::time::Mtime;
use rustix::io::Errno;

use super::audit::Account;
use super::content::Content;
use super::durable::{Body, Durable, Image, Inode, Meta, NodeId};
use super::faults::{Faults, Rng};
use super::user::{Deferred, OpenByUser};
use super::watch::{Event, Signal, WatchState};
use super::{CrashModel, SimConfig};
use crate::api::{ERRNO_CRASHED, Kind, Stat};

/// What a system call returns.
pub(super) type Sys<T> = core::result::Result<T, i32>;

/// The number of a system error.
pub(super) const fn no(errno: Errno) -> i32 {
    errno.raw_os_error()
}

/// Who holds an advisory lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    /// A handle of the process under test, by its number.
    Engine(u64),
    /// Another program.
    User,
}

/// A live inode.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) inode: Inode,
    /// Where it is named: one place for a directory.
    pub(super) names: BTreeSet<(NodeId, Box<[u8]>)>,
    /// How many of the entries are directories.
    pub(super) subdirs: usize,
    /// Handles of the process under test, and how many of them can write.
    pub(super) opens: u32,
    pub(super) writers: u32,
    /// The same for the user's programs.
    pub(super) user_opens: u32,
    pub(super) user_writers: u32,
    /// Read leases: after how many calls each was broken.
    pub(super) leases: BTreeMap<u64, Option<u64>>,
    /// Who holds the advisory lock.
    pub(super) lock: Option<Holder>,
    /// The time has been looked at since it last changed.
    queried: bool,
    /// Made without a name.
    pub(super) unnamed: bool,
    /// Opening or listing it is refused.
    pub(super) denied: bool,
}

impl Node {
    pub(super) fn new(inode: Inode) -> Self {
        Self {
            inode,
            names: BTreeSet::new(),
            subdirs: 0,
            opens: 0,
            writers: 0,
            user_opens: 0,
            user_writers: 0,
            leases: BTreeMap::new(),
            lock: None,
            queried: false,
            unnamed: false,
            denied: false,
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match self.inode.body {
            Body::File(_) => Kind::File,
            Body::Dir { .. } => Kind::Dir,
            Body::Link(_) => Kind::Link,
            Body::Special => Kind::Special,
        }
    }
}

/// The whole simulated machine, as far as its file system goes.
#[derive(Debug)]
pub(super) struct World {
    pub(super) cfg: SimConfig,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) root: NodeId,
    pub(super) disk: Durable,
    pub(super) rng: Rng,
    pub(super) faults: Faults,
    pub(super) watchers: BTreeMap<u64, WatchState>,
    pub(super) user_fds: BTreeMap<u64, OpenByUser>,
    pub(super) deferred: Vec<Deferred>,
    /// Counts processes: a handle of an earlier one is dead.
    pub(super) epoch: u64,
    pub(super) crashed: bool,
    pub(super) now: i64,
    /// A clock that never goes back, for what waits in queues.
    pub(super) monotonic: i64,
    last_stamp: i64,
    pub(super) next_id: NodeId,
    pub(super) next_ino: u64,
    pub(super) free_inos: Vec<u64>,
    next_token: u64,
    pub(super) used: u64,
    pub(super) account: Account,
}

impl World {
    /// An empty root.
    pub(super) fn empty(cfg: SimConfig, now: i64) -> Self {
        let at = Mtime::from_nanos(now);
        let meta = Meta {
            mode: 0o755,
            uid: cfg.uid,
            gid: cfg.gid,
            mtime: at,
            ctime: at,
            btime: at,
            xattrs: Arc::default(),
        };
        let body = Body::Dir {
            entries: BTreeMap::new(),
            parent: None,
        };
        let root = Inode {
            ino: 2,
            meta,
            body,
            mount: false,
        };
        Self::from_image(cfg, now, 1, Image::from([(1, root)]))
    }

    /// A machine that has just mounted `image`.
    pub(super) fn from_image(cfg: SimConfig, now: i64, root: NodeId, mut image: Image) -> Self {
        let mut used_inos = BTreeSet::new();
        let mut next_ino = image.values().map(|n| n.ino).max().unwrap_or(2) + 1;
        for node in image.values_mut() {
            if !used_inos.insert(node.ino) {
                node.ino = next_ino;
                next_ino += 1;
            }
        }
        let disk = Durable::new(cfg.crash_model, cfg.lazy_times, root, image.clone());
        let mut nodes: BTreeMap<NodeId, Node> = image
            .iter()
            .map(|(id, inode)| (*id, Node::new(inode.clone())))
            .collect();
        for (dir, inode) in &image {
            for (name, child) in inode.entries().into_iter().flatten() {
                let is_dir = image.get(child).is_some_and(Inode::is_dir);
                if let Some(node) = nodes.get_mut(child) {
                    node.names.insert((*dir, name.clone()));
                }
                if let Some(node) = nodes.get_mut(dir) {
                    node.subdirs += usize::from(is_dir);
                }
            }
        }
        let used = image
            .values()
            .filter_map(Inode::content)
            .map(Content::allocated)
            .sum();
        let next_id = image.keys().next_back().copied().unwrap_or(root) + 1;
        let rng = Rng::new(cfg.seed);
        Self {
            cfg,
            nodes,
            root,
            disk,
            rng,
            faults: Faults::default(),
            watchers: BTreeMap::new(),
            user_fds: BTreeMap::new(),
            deferred: Vec::new(),
            epoch: 1,
            crashed: false,
            now,
            monotonic: now,
            last_stamp: i64::MIN,
            next_id,
            next_ino,
            free_inos: Vec::new(),
            next_token: 1,
            used,
            account: Account::default(),
        }
    }

    /// A number never given out before: for leases, locks, cookies, watchers.
    /// Sets the clock. Stamps go back with it, as those of a kernel do whose clock was set.
    pub(super) fn set_now(&mut self, ns: i64) {
        self.monotonic += (ns - self.now).max(0);
        if ns < self.now {
            self.last_stamp = self.last_stamp.min(ns);
        }
        self.now = ns;
    }

    pub(super) fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    pub(super) fn alive(&self, epoch: u64) -> Sys<()> {
        if self.crashed || self.epoch != epoch {
            Err(ERRNO_CRASHED)
        } else {
            Ok(())
        }
    }

    pub(super) fn node(&self, id: NodeId) -> Sys<&Node> {
        self.nodes.get(&id).ok_or(no(Errno::STALE))
    }

    pub(super) fn node_mut(&mut self, id: NodeId) -> Sys<&mut Node> {
        self.nodes.get_mut(&id).ok_or(no(Errno::STALE))
    }

    pub(super) fn writable(&self) -> Sys<()> {
        if self.cfg.read_only {
            Err(no(Errno::ROFS))
        } else {
            Ok(())
        }
    }

    // --- time

    pub(super) fn grain(&self, ns: i64) -> i64 {
        ns - ns.rem_euclid(i64::from(self.cfg.mtime_granularity_ns.max(1)))
    }

    /// The stamp for a change: coarse, unless the last one has been looked at.
    pub(super) fn stamp(&mut self, queried: bool) -> Mtime {
        let tick = i64::from(self.cfg.tick_ns.max(1));
        let coarse = (self.now - self.now.rem_euclid(tick)).max(self.last_stamp);
        let ns = if queried && self.cfg.multigrain {
            self.now.max(self.last_stamp.saturating_add(1))
        } else {
            coarse
        };
        self.last_stamp = self.last_stamp.max(ns);
        Mtime::from_nanos(self.grain(ns))
    }

    fn stamp_of(&mut self, id: NodeId) -> Mtime {
        let queried = self
            .nodes
            .get_mut(&id)
            .is_some_and(|n| core::mem::take(&mut n.queried));
        self.stamp(queried)
    }

    /// Marks data or names as changed now.
    pub(super) fn modified(&mut self, id: NodeId) -> Mtime {
        let at = self.stamp_of(id);
        if let Some(node) = self.nodes.get_mut(&id) {
            node.inode.meta.mtime = at;
            node.inode.meta.ctime = at;
        }
        at
    }

    pub(super) fn changed(&mut self, id: NodeId) {
        let at = self.stamp_of(id);
        if let Some(node) = self.nodes.get_mut(&id) {
            node.inode.meta.ctime = at;
        }
    }

    // --- looking

    /// What `statx` says.
    pub(super) fn stat(&mut self, id: NodeId) -> Sys<Stat> {
        self.node_mut(id)?.queried = true;
        self.stat_quietly(id)
    }

    /// The same without the side effect on time stamps.
    pub(super) fn stat_quietly(&self, id: NodeId) -> Sys<Stat> {
        let node = self.node(id)?;
        let Inode {
            ino,
            meta,
            body,
            mount,
        } = &node.inode;
        let btrfs = self.cfg.crash_model == CrashModel::Btrfs;
        let (size, blocks, nlink) = match body {
            Body::File(c) => (c.len(), c.allocated() / 512, node.names.len()),
            Body::Dir { entries, .. } => (
                entries.len() as u64 * 32,
                0,
                if btrfs { 1 } else { 2 + node.subdirs },
            ),
            Body::Link(target) => (target.len() as u64, 0, node.names.len()),
            Body::Special => (0, 0, node.names.len()),
        };
        Ok(Stat {
            kind: node.kind(),
            dev: if self.within_mount(id) {
                self.cfg.dev + 1
            } else {
                self.cfg.dev
            },
            ino: *ino,
            size,
            mode: meta.mode,
            nlink: nlink as u32,
            uid: meta.uid,
            gid: meta.gid,
            mtime: meta.mtime,
            ctime: meta.ctime,
            btime: meta.btime,
            blocks,
            mount_root: *mount,
        })
    }

    fn within_mount(&self, id: NodeId) -> bool {
        let mut at = Some(id);
        while let Some(node) = at.and_then(|id| self.nodes.get(&id)) {
            if node.inode.mount {
                return true;
            }
            at = node.names.first().map(|(dir, _)| *dir);
        }
        false
    }

    /// What `name` refers to. Folds ASCII case where the file system does.
    pub(super) fn find(&self, dir: NodeId, name: &[u8]) -> Sys<Option<NodeId>> {
        Ok(self.find_entry(dir, name)?.map(|(_, id)| id))
    }

    /// As [`World::find`], with the name as it is stored.
    pub(super) fn find_entry(&self, dir: NodeId, name: &[u8]) -> Sys<Option<(Box<[u8]>, NodeId)>> {
        let entries = self.node(dir)?.inode.entries().ok_or(no(Errno::NOTDIR))?;
        if let Some((stored, id)) = entries.get_key_value(name) {
            return Ok(Some((stored.clone(), *id)));
        }
        if self.cfg.case_sensitive {
            return Ok(None);
        }
        let folded = entries
            .iter()
            .find(|(stored, _)| stored.eq_ignore_ascii_case(name));
        Ok(folded.map(|(stored, id)| (stored.clone(), *id)))
    }

    /// The entry as it is stored, or `ENOENT`.
    pub(super) fn entry(&self, dir: NodeId, name: &[u8]) -> Sys<(Box<[u8]>, NodeId)> {
        self.find_entry(dir, name)?.ok_or(no(Errno::NOENT))
    }

    /// What `name` refers to, or `ENOENT`.
    pub(super) fn lookup(&self, dir: NodeId, name: &[u8]) -> Sys<NodeId> {
        Ok(self.entry(dir, name)?.1)
    }

    // --- events

    /// Reports a change of what is known under its names: data or attributes.
    pub(super) fn emit_node(
        &mut self,
        id: NodeId,
        opened_as: Option<&(NodeId, Box<[u8]>)>,
        signal: Signal,
    ) {
        let Some(node) = self.nodes.get(&id) else {
            return;
        };
        let place = opened_as
            .filter(|p| node.names.contains(*p))
            .or_else(|| node.names.first())
            .cloned();
        if let Some((dir, name)) = place {
            self.emit_one(dir, &name, signal, Some(id));
        }
    }

    pub(super) fn emit_one(
        &mut self,
        dir: NodeId,
        name: &[u8],
        signal: Signal,
        child: Option<NodeId>,
    ) {
        self.emit(Event {
            dir,
            name: name.into(),
            signal,
            cookie: 0,
            is_dir: self.is_dir(child),
        });
    }

    pub(super) fn emit_self(&mut self, dir: NodeId, signal: Signal) {
        self.emit(Event {
            dir,
            name: Box::default(),
            signal,
            cookie: 0,
            is_dir: true,
        });
    }

    pub(super) fn emit_move(&mut self, id: NodeId, from: (NodeId, &[u8]), to: (NodeId, &[u8])) {
        let cookie = self.token() as u32;
        let is_dir = self.is_dir(Some(id));
        for ((dir, name), signal) in [(from, Signal::MovedFrom), (to, Signal::MovedTo)] {
            self.emit(Event {
                dir,
                name: name.into(),
                signal,
                cookie,
                is_dir,
            });
        }
        if is_dir {
            self.emit_self(id, Signal::MoveSelf);
        }
    }

    pub(super) fn is_dir(&self, id: Option<NodeId>) -> bool {
        id.and_then(|id| self.nodes.get(&id))
            .is_some_and(|n| n.inode.is_dir())
    }

    fn emit(&mut self, event: Event) {
        let met = self.faults.met_mut();
        for watcher in self.watchers.values_mut() {
            watcher.push(&event, &self.cfg, self.monotonic, &mut self.rng, met);
        }
    }
}
