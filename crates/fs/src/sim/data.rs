//! System calls on contents and attributes, and the room they take.
//!
//! Owns nothing: it changes the live tree and notes each change for the durable image. A write that does
//! not fit keeps the part that does.

use instep_core::time::Mtime;
use rustix::io::Errno;

use super::content::{BLOCK, Content};
use super::durable::{Body, Meta, NodeId, Write};
use super::tree::{Sys, World, no};

impl World {
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

    pub(super) fn note(&mut self, id: NodeId, write: Write) -> Sys<()> {
        self.account_change(id, &write);
        let meta = self.node(id)?.inode.meta.clone();
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
}
