//! System calls on names: making, linking, removing and moving, each one atomic.
//!
//! Owns nothing: it changes the live tree and notes each operation for the durable image. Invariant: a call
//! that fails has changed nothing.

use std::sync::Arc;

use instep_core::time::Mtime;
use rustix::io::Errno;

use super::CrashModel;
use super::content::Content;
use super::durable::{Assign, Body, Inode, Meta, NodeId};
use super::tree::{Node, Sys, World, no};
use super::watch::Signal;

impl World {
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
            xattrs: Arc::default(),
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
        self.account_names(&assigns);
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
}
