//! The live tree: what the page cache shows, and the system calls on it.
//!
//! Owns inodes, names, open counts, leases and locks, the virtual clock, and passes every change on to the
//! durable image and to the watchers. Invariant: an inode is here exactly as long as it has a name, an open
//! handle, or is the root. Errors are plain system numbers; nothing here knows of handles or of faults.

use std::collections::{BTreeMap, BTreeSet};

use instep_core::time::Mtime;
use rustix::io::Errno;

use super::content::{BLOCK, Content};
use super::durable::{Assign, Body, Durable, Image, Inode, Meta, NodeId, Write};
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
    subdirs: usize,
    /// Handles of the process under test, and how many of them can write.
    pub(super) opens: u32,
    pub(super) writers: u32,
    /// The same for the user's programs.
    pub(super) user_opens: u32,
    pub(super) user_writers: u32,
    /// Read leases: whether each has been broken.
    pub(super) leases: BTreeMap<u64, bool>,
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
    fn new(inode: Inode) -> Self {
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
    last_stamp: i64,
    next_id: NodeId,
    next_ino: u64,
    free_inos: Vec<u64>,
    next_token: u64,
    used: u64,
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
            last_stamp: i64::MIN,
            next_id,
            next_ino,
            free_inos: Vec::new(),
            next_token: 1,
            used,
        }
    }

    /// A number never given out before: for leases, locks, cookies, watchers.
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

    fn writable(&self) -> Sys<()> {
        if self.cfg.read_only {
            Err(no(Errno::ROFS))
        } else {
            Ok(())
        }
    }

    // --- time

    fn grain(&self, ns: i64) -> i64 {
        ns - ns.rem_euclid(i64::from(self.cfg.mtime_granularity_ns.max(1)))
    }

    /// The stamp for a change: coarse, unless the last one has been looked at.
    fn stamp(&mut self, queried: bool) -> Mtime {
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
    fn modified(&mut self, id: NodeId) -> Mtime {
        let at = self.stamp_of(id);
        if let Some(node) = self.nodes.get_mut(&id) {
            node.inode.meta.mtime = at;
            node.inode.meta.ctime = at;
        }
        at
    }

    fn changed(&mut self, id: NodeId) {
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
    fn find_entry(&self, dir: NodeId, name: &[u8]) -> Sys<Option<(Box<[u8]>, NodeId)>> {
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
    fn entry(&self, dir: NodeId, name: &[u8]) -> Sys<(Box<[u8]>, NodeId)> {
        self.find_entry(dir, name)?.ok_or(no(Errno::NOENT))
    }

    /// What `name` refers to, or `ENOENT`.
    pub(super) fn lookup(&self, dir: NodeId, name: &[u8]) -> Sys<NodeId> {
        Ok(self.entry(dir, name)?.1)
    }

    // --- making and naming

    /// An inode without a name.
    pub(super) fn make(&mut self, body: Body, mode: u32) -> Sys<NodeId> {
        self.writable()?;
        if self.nodes.len() as u64 > self.cfg.capacity_inodes {
            return Err(no(Errno::NOSPC));
        }
        let at = self.stamp(false);
        let meta = Meta {
            mode: mode & 0o7777,
            uid: self.cfg.uid,
            gid: self.cfg.gid,
            mtime: at,
            ctime: at,
            btime: at,
        };
        let inode = Inode {
            ino: self.take_ino(),
            meta,
            body,
            mount: false,
        };
        let id = self.next_id;
        self.next_id += 1;
        self.disk.created(id, inode.clone());
        self.nodes.insert(id, Node::new(inode));
        Ok(id)
    }

    fn take_ino(&mut self) -> u64 {
        if self.cfg.ino_reuse
            && let Some(ino) = self.free_inos.pop()
        {
            return ino;
        }
        self.next_ino += 1;
        self.next_ino - 1
    }

    /// A directory that is still part of the tree.
    pub(super) fn check_linked(&self, dir: NodeId) -> Sys<()> {
        let node = self.node(dir)?;
        if !node.inode.is_dir() {
            return Err(no(Errno::NOTDIR));
        }
        if dir != self.root && node.names.is_empty() {
            Err(no(Errno::NOENT))
        } else {
            Ok(())
        }
    }

    /// A directory that can take new names.
    fn check_dir(&self, dir: NodeId) -> Sys<()> {
        self.writable()?;
        self.check_linked(dir)
    }

    /// Refuses a name that is taken.
    pub(super) fn check_free(&self, dir: NodeId, name: &[u8]) -> Sys<()> {
        self.check_dir(dir)?;
        if self.find(dir, name)?.is_some() {
            Err(no(Errno::EXIST))
        } else {
            Ok(())
        }
    }

    /// Makes an inode under a new name.
    pub(super) fn create(
        &mut self,
        dir: NodeId,
        name: &[u8],
        body: Body,
        mode: u32,
    ) -> Sys<NodeId> {
        self.check_free(dir, name)?;
        let id = self.make(body, mode)?;
        self.name(dir, name, id);
        Ok(id)
    }

    /// Gives an inode a further name.
    pub(super) fn link(&mut self, dir: NodeId, name: &[u8], id: NodeId) -> Sys<()> {
        self.check_free(dir, name)?;
        if self.node(id)?.inode.is_dir() {
            return Err(no(Errno::PERM));
        }
        self.changed(id);
        self.name(dir, name, id);
        Ok(())
    }

    fn name(&mut self, dir: NodeId, name: &[u8], id: NodeId) {
        self.assign(vec![Assign {
            dir,
            name: name.into(),
            was: None,
            now: Some(id),
        }]);
        self.emit_one(dir, name, Signal::Create, Some(id));
    }

    /// Applies one atomic directory operation to the live tree and notes it for the durable one.
    fn assign(&mut self, assigns: Vec<Assign>) {
        for a in &assigns {
            if let Some(node) = a.was.and_then(|id| self.nodes.get_mut(&id)) {
                node.names.remove(&(a.dir, a.name.clone()));
            }
        }
        let mut at = Mtime::default();
        for a in &assigns {
            let (gone, new) = (self.is_dir(a.was), self.is_dir(a.now));
            if let Some(dir) = self.nodes.get_mut(&a.dir) {
                dir.subdirs = dir.subdirs + usize::from(new) - usize::from(gone);
            }
            if let Some(Body::Dir { entries, .. }) =
                self.nodes.get_mut(&a.dir).map(|n| &mut n.inode.body)
            {
                match a.now {
                    Some(id) => drop(entries.insert(a.name.clone(), id)),
                    None => drop(entries.remove(&a.name)),
                }
            }
            if let Some(node) = a.now.and_then(|id| self.nodes.get_mut(&id)) {
                node.names.insert((a.dir, a.name.clone()));
                if let Body::Dir { parent, .. } = &mut node.inode.body {
                    *parent = Some(a.dir);
                }
            }
            at = self.modified(a.dir);
        }
        self.disk.assigned(at, assigns);
    }

    // --- removing

    /// Removes the name of anything but a directory.
    pub(super) fn unlink(&mut self, dir: NodeId, name: &[u8]) -> Sys<()> {
        self.writable()?;
        let (name, id) = self.entry(dir, name)?;
        if self.node(id)?.inode.is_dir() {
            return Err(no(Errno::ISDIR));
        }
        self.changed(id);
        self.remove(dir, name, id);
        Ok(())
    }

    /// Removes an empty directory.
    pub(super) fn rmdir(&mut self, dir: NodeId, name: &[u8]) -> Sys<()> {
        self.writable()?;
        let (name, id) = self.entry(dir, name)?;
        let node = self.node(id)?;
        let entries = node.inode.entries().ok_or(no(Errno::NOTDIR))?;
        if node.inode.mount {
            return Err(no(Errno::BUSY));
        }
        if !entries.is_empty() {
            return Err(no(Errno::NOTEMPTY));
        }
        self.remove(dir, name, id);
        Ok(())
    }

    fn remove(&mut self, dir: NodeId, name: Box<[u8]>, id: NodeId) {
        self.emit_one(dir, &name, Signal::Delete, Some(id));
        self.assign(vec![Assign {
            dir,
            name,
            was: Some(id),
            now: None,
        }]);
        self.release(id);
    }

    /// Frees an inode that nothing refers to.
    pub(super) fn release(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get(&id) else {
            return;
        };
        if id == self.root || !node.names.is_empty() {
            return;
        }
        if node.opens > 0 || node.user_opens > 0 {
            return;
        }
        if node.inode.is_dir() {
            self.emit_self(id, Signal::DeleteSelf);
        }
        if let Some(node) = self.nodes.remove(&id) {
            self.used -= node.inode.content().map_or(0, Content::allocated);
            self.free_inos.push(node.inode.ino);
        }
    }

    // --- moving

    /// `renameat2` without flags (`replace`) or with `RENAME_NOREPLACE`.
    pub(super) fn rename(
        &mut self,
        (dir, name): (NodeId, &[u8]),
        (to, to_name): (NodeId, &[u8]),
        replace: bool,
    ) -> Sys<()> {
        self.check_dir(to)?;
        let (name, id) = self.entry(dir, name)?;
        let target = self.find_entry(to, to_name)?;
        // Renaming to another case of the same name is a change where case is folded.
        let same_entry = target
            .as_ref()
            .is_some_and(|(n, t)| *t == id && dir == to && *n == name);
        if target.is_some() && !replace && !same_entry {
            return Err(no(Errno::EXIST));
        }
        if same_entry && *name == *to_name {
            return if replace {
                Ok(())
            } else {
                Err(no(Errno::EXIST))
            };
        }
        self.check_move(id, to)?;
        let displaced = target.filter(|_| !same_entry);
        if let Some((_, over)) = &displaced {
            if *over == id {
                return Ok(());
            }
            if self.is_below(dir, *over) {
                return Err(no(Errno::NOTEMPTY));
            }
            self.check_replace(id, *over)?;
        }
        let to_stored = displaced
            .as_ref()
            .map_or_else(|| to_name.into(), |(n, _)| n.clone());
        let over = displaced.map(|(_, over)| over);
        self.changed(id);
        let assigns = vec![
            Assign {
                dir,
                name: name.clone(),
                was: Some(id),
                now: None,
            },
            Assign {
                dir: to,
                name: to_stored.clone(),
                was: over,
                now: Some(id),
            },
        ];
        self.assign(assigns);
        self.emit_move(id, (dir, &name), (to, &to_stored));
        if let Some(over) = over {
            self.changed(over);
            self.release(over);
        }
        Ok(())
    }

    fn check_move(&self, id: NodeId, to: NodeId) -> Sys<()> {
        let node = self.node(id)?;
        if node.inode.mount {
            return Err(no(Errno::BUSY));
        }
        if node.inode.is_dir() && self.is_below(to, id) {
            return Err(no(Errno::INVAL));
        }
        Ok(())
    }

    fn check_replace(&self, id: NodeId, over: NodeId) -> Sys<()> {
        let (node, over) = (self.node(id)?, self.node(over)?);
        match (node.inode.is_dir(), over.inode.entries()) {
            (false, Some(_)) => Err(no(Errno::ISDIR)),
            (true, None) => Err(no(Errno::NOTDIR)),
            (true, Some(entries)) if !entries.is_empty() => Err(no(Errno::NOTEMPTY)),
            _ => Ok(()),
        }
    }

    /// Whether `id` is `above` or lies below it.
    pub(super) fn is_below(&self, id: NodeId, above: NodeId) -> bool {
        let mut at = Some(id);
        while let Some(id) = at {
            if id == above {
                return true;
            }
            at = self
                .nodes
                .get(&id)
                .and_then(|n| n.names.first())
                .map(|(dir, _)| *dir);
        }
        false
    }

    /// `RENAME_EXCHANGE`.
    pub(super) fn exchange(
        &mut self,
        (dir, name): (NodeId, &[u8]),
        (to, to_name): (NodeId, &[u8]),
    ) -> Sys<()> {
        self.check_dir(dir)?;
        self.check_dir(to)?;
        let (name, id) = self.entry(dir, name)?;
        let (to_name, other) = self.entry(to, to_name)?;
        if id == other {
            return Ok(());
        }
        self.check_move(id, to)?;
        self.check_move(other, dir)?;
        if self.cfg.crash_model != CrashModel::Xfs {
            self.changed(id);
            self.changed(other);
        }
        let assigns = vec![
            Assign {
                dir,
                name: name.clone(),
                was: Some(id),
                now: Some(other),
            },
            Assign {
                dir: to,
                name: to_name.clone(),
                was: Some(other),
                now: Some(id),
            },
        ];
        self.assign(assigns);
        self.emit_move(id, (dir, &name), (to, &to_name));
        self.emit_move(other, (to, &to_name), (dir, &name));
        Ok(())
    }

    // --- contents and attributes

    /// Writes as much as there is room for; `ENOSPC` when that is not all.
    pub(super) fn write(&mut self, id: NodeId, offset: u64, data: &[u8]) -> Sys<()> {
        self.write_as(id, offset, data, None)
    }

    /// As [`World::write`]; with `keep` the attributes stay as they are given.
    pub(super) fn write_as(
        &mut self,
        id: NodeId,
        offset: u64,
        data: &[u8],
        keep: Option<Meta>,
    ) -> Sys<()> {
        self.writable()?;
        if data.is_empty() {
            return Ok(());
        }
        if offset
            .checked_add(data.len() as u64)
            .is_none_or(|end| end > i64::MAX as u64)
        {
            return Err(no(Errno::FBIG));
        }
        let room = self.cfg.capacity_bytes.saturating_sub(self.used);
        let content = self.node(id)?.inode.content().ok_or(no(Errno::ISDIR))?;
        let mut fits = data.len();
        while content.growth(offset, fits as u64) > room {
            let end = offset + fits as u64 - 1;
            fits = (end - end % BLOCK).saturating_sub(offset) as usize;
        }
        if fits > 0 {
            match keep {
                Some(meta) => self.node_mut(id)?.inode.meta = meta,
                None => drop(self.modified(id)),
            }
            self.write_fitting(id, offset, &data[..fits])?;
        }
        if fits == data.len() {
            Ok(())
        } else {
            Err(no(Errno::NOSPC))
        }
    }

    fn write_fitting(&mut self, id: NodeId, offset: u64, data: &[u8]) -> Sys<()> {
        let content = self
            .node_mut(id)?
            .inode
            .content_mut()
            .ok_or(no(Errno::ISDIR))?;
        let before = content.allocated();
        content.write_at(offset, data);
        let grown = content.allocated() - before;
        self.used += grown;
        self.note(id, Write::Bytes(offset, data.into()))
    }

    /// Cuts or extends a file.
    pub(super) fn set_len(&mut self, id: NodeId, len: u64) -> Sys<()> {
        self.writable()?;
        if len > i64::MAX as u64 {
            return Err(no(Errno::FBIG));
        }
        self.node(id)?.inode.content().ok_or(no(Errno::ISDIR))?;
        self.modified(id);
        let content = self
            .node_mut(id)?
            .inode
            .content_mut()
            .ok_or(no(Errno::ISDIR))?;
        let before = content.allocated();
        content.set_len(len);
        let freed = before - content.allocated();
        self.used -= freed;
        self.note(id, Write::Len(len))
    }

    /// Replaces the content by a reflink of another file's.
    pub(super) fn replace_content(&mut self, id: NodeId, whole: Content) -> Sys<()> {
        self.writable()?;
        let before = self
            .node(id)?
            .inode
            .content()
            .ok_or(no(Errno::ISDIR))?
            .allocated();
        let after = self.used - before + whole.allocated();
        if after > self.cfg.capacity_bytes {
            return Err(no(Errno::NOSPC));
        }
        self.used = after;
        self.modified(id);
        self.node_mut(id)?.inode.body = Body::File(whole.clone());
        self.note(id, Write::Whole(whole))
    }

    pub(super) fn set_mode(&mut self, id: NodeId, mode: u32) -> Sys<()> {
        self.writable()?;
        self.changed(id);
        if self.cfg.modes {
            self.node_mut(id)?.inode.meta.mode = mode & 0o7777;
        }
        self.note(id, Write::Meta)
    }

    pub(super) fn set_mtime(&mut self, id: NodeId, mtime: Mtime) -> Sys<()> {
        self.writable()?;
        self.changed(id);
        let kept = mtime
            .nanos_since_epoch()
            .map_or(mtime, |ns| Mtime::from_nanos(self.grain(ns)));
        self.node_mut(id)?.inode.meta.mtime = kept;
        self.note(id, Write::Meta)
    }

    fn note(&mut self, id: NodeId, write: Write) -> Sys<()> {
        let meta = self.node(id)?.inode.meta;
        self.disk.wrote(id, write, meta);
        Ok(())
    }

    pub(super) fn sync_all(&mut self) {
        let nodes = &self.nodes;
        self.disk.sync_all(|id| nodes.contains_key(&id));
    }

    /// Bytes and inodes left.
    pub(super) fn room(&self) -> (u64, u64) {
        let inodes = self
            .cfg
            .capacity_inodes
            .saturating_sub(self.nodes.len() as u64 - 1);
        (self.cfg.capacity_bytes.saturating_sub(self.used), inodes)
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
            child,
            is_dir: self.is_dir(child),
        });
    }

    fn emit_self(&mut self, dir: NodeId, signal: Signal) {
        self.emit(Event {
            dir,
            name: Box::default(),
            signal,
            cookie: 0,
            child: None,
            is_dir: true,
        });
    }

    fn emit_move(&mut self, id: NodeId, from: (NodeId, &[u8]), to: (NodeId, &[u8])) {
        let cookie = self.token() as u32;
        let (child, is_dir) = (Some(id), self.is_dir(Some(id)));
        for ((dir, name), signal) in [(from, Signal::MovedFrom), (to, Signal::MovedTo)] {
            self.emit(Event {
                dir,
                name: name.into(),
                signal,
                cookie,
                child,
                is_dir,
            });
        }
        if is_dir {
            self.emit_self(id, Signal::MoveSelf);
        }
    }

    fn is_dir(&self, id: Option<NodeId>) -> bool {
        id.and_then(|id| self.nodes.get(&id))
            .is_some_and(|n| n.inode.is_dir())
    }

    fn emit(&mut self, event: Event) {
        for watcher in self.watchers.values_mut() {
            watcher.push(&event, &self.cfg, self.now, &mut self.rng);
        }
    }
}
