//! Open files, leases and locks, as the engine holds them.
//!
//! Owns nothing but the handle: what is written goes to the live tree. A lease and a lock last until they
//! are dropped or the process is killed; dropping one lets the user's programs that wait for it go on.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use instep_core::time::Mtime;
use rustix::io::Errno;

use super::durable::NodeId;
use super::handles::Handle;
use super::tree::{Holder, Sys, World, no};
use super::watch::Signal;
use crate::api::{Error, Result, Stat};

/// An open file of the simulated file system.
#[derive(Debug, Clone)]
pub struct SimFile(Arc<Handle>);

impl SimFile {
    pub(super) fn new(handle: Handle) -> Self {
        Self(Arc::new(handle))
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.0
    }

    pub(super) fn on<T>(
        &self,
        op: &'static str,
        verb: &str,
        run: impl FnOnce(&mut World, NodeId) -> Sys<T>,
    ) -> Result<T> {
        self.0
            .call(op, || format!("{verb} file"), |world| run(world, self.0.id))
    }

    fn changing(
        &self,
        op: &'static str,
        verb: &str,
        run: impl FnOnce(&mut World, NodeId) -> Sys<()>,
    ) -> Result<()> {
        self.on(op, verb, |world, id| {
            if !self.0.write {
                return Err(no(Errno::BADF));
            }
            let done = run(world, id);
            // A disk that is full may have taken a part.
            if done.is_ok() || done == Err(no(Errno::NOSPC)) {
                world.emit_node(id, self.0.place.as_ref(), Signal::Modify);
            }
            done
        })
    }

    fn is_same_fs(&self, other: &Self) -> Sys<()> {
        if self.0.fs.is_same(&other.0.fs) {
            Ok(())
        } else {
            Err(no(Errno::XDEV))
        }
    }

    /// What the file is.
    pub fn stat(&self) -> Result<Stat> {
        self.on("file_stat", "examine", World::stat)
    }

    /// Reads at an offset; fewer bytes only at the end.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.on("read_at", "read", |world, id| {
            Ok(world
                .node(id)?
                .inode
                .content()
                .ok_or(no(Errno::ISDIR))?
                .read_at(offset, buf))
        })
    }

    /// Writes all of `data` at an offset.
    pub fn write_all_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.changing("write_all_at", "write", |world, id| {
            world.write(id, offset, data)
        })
    }

    /// Cuts or extends the file.
    pub fn set_len(&self, len: u64) -> Result<()> {
        self.changing("set_len", "set length of", |world, id| {
            world.set_len(id, len)
        })
    }

    /// Sets the mode.
    pub fn set_mode(&self, mode: u32) -> Result<()> {
        self.on("file_set_mode", "set mode of", |world, id| {
            world.set_mode(id, mode)?;
            world.emit_node(id, self.0.place.as_ref(), Signal::Attrib);
            Ok(())
        })
    }

    /// Sets the modification time.
    pub fn set_mtime(&self, mtime: Mtime) -> Result<()> {
        self.on("file_set_mtime", "set time of", |world, id| {
            world.set_mtime(id, mtime)?;
            world.emit_node(id, self.0.place.as_ref(), Signal::Attrib);
            Ok(())
        })
    }

    /// Makes the content durable. A failure loses what was not durable, as on Linux.
    pub fn sync_data(&self) -> Result<()> {
        let id = self.0.id;
        self.0.fs.call_or(
            self.0.epoch,
            "sync_data",
            || "sync file".to_owned(),
            |world| {
                world.disk.sync_data(id);
                Ok(())
            },
            |world| world.disk.lose_data(id),
        )
    }

    /// The next range with data at or after an offset; `None` when only a hole follows.
    pub fn next_data(&self, offset: u64) -> Result<Option<(u64, u64)>> {
        self.on("next_data", "find data of", |world, id| {
            Ok(world
                .node(id)?
                .inode
                .content()
                .ok_or(no(Errno::ISDIR))?
                .next_data(offset))
        })
    }

    /// Takes the content of another file without copying it.
    pub fn reflink_from(&self, source: &Self) -> Result<()> {
        self.changing("reflink_from", "clone into", |world, id| {
            self.is_same_fs(source)?;
            if !world.cfg.reflink {
                return Err(no(Errno::OPNOTSUPP));
            }
            let whole = world
                .node(source.0.id)?
                .inode
                .content()
                .ok_or(no(Errno::ISDIR))?
                .clone();
            world.replace_content(id, whole)
        })
    }

    /// Copies a range between files; may copy less than asked.
    pub fn copy_range_from(&self, source: &Self, offset: u64, len: u64) -> Result<u64> {
        let mut copied = 0;
        self.changing("copy_range_from", "copy into", |world, id| {
            self.is_same_fs(source)?;
            world.alive(source.0.epoch)?;
            let short = world.cfg.short_copies && world.rng.chance(300);
            let len = if short { 1 + world.rng.below(len) } else { len };
            let content = world
                .node(source.0.id)?
                .inode
                .content()
                .ok_or(no(Errno::ISDIR))?;
            let mut buf = vec![0; len.min(content.len().saturating_sub(offset)) as usize];
            copied = content.read_at(offset, &mut buf) as u64;
            world.write(id, offset, &buf)
        })?;
        Ok(copied)
    }

    /// Begins to write a range back; promises nothing.
    pub fn start_writeback(&self, offset: u64, len: u64) -> Result<()> {
        self.on("start_writeback", "write back", |world, id| {
            if offset.checked_add(len).is_none() {
                return Err(no(Errno::INVAL));
            }
            world.node(id).map(drop)
        })
    }

    /// A hint about the page cache, without effect here.
    pub fn forget_cache(&self, offset: u64, len: u64) {
        let _: (u64, u64) = (offset, len);
    }

    /// Takes a read lease; `None` while somebody has the file open for writing.
    pub fn read_lease(&self) -> Result<Option<SimLease>> {
        let taken = self.on("read_lease", "lease", |world, id| {
            if !world.cfg.leases {
                return Err(no(Errno::INVAL));
            }
            let node = world.node(id)?;
            if node.writers + node.user_writers > 0 {
                return Ok(None);
            }
            let token = world.token();
            world.node_mut(id)?.leases.insert(token, None);
            Ok(Some(SimLease {
                file: self.clone(),
                token,
            }))
        });
        // How Linux says that somebody writes, which is all that is known then.
        let is_written = |e: &Error| e.errno == Errno::AGAIN.raw_os_error();
        match taken {
            Err(e) if is_written(&e) => Ok(None),
            taken => taken,
        }
    }

    /// There is no descriptor behind a simulated file.
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// A read lease; ends when dropped.
#[derive(Debug)]
pub struct SimLease {
    file: SimFile,
    token: u64,
}

impl SimLease {
    /// Whether somebody has asked to write since, or the lease is gone.
    pub fn broken(&self) -> bool {
        let handle = &self.file.0;
        let asked = handle.call("lease_broken", String::new, |world| {
            Ok(world
                .node(handle.id)?
                .leases
                .get(&self.token)
                .is_none_or(Option::is_some))
        });
        asked.unwrap_or(true)
    }
}

impl Drop for SimLease {
    fn drop(&mut self) {
        let handle = &self.file.0;
        let mut world = handle.fs.lock();
        if world.alive(handle.epoch).is_ok() {
            if let Ok(node) = world.node_mut(handle.id) {
                node.leases.remove(&self.token);
            }
            world.run_deferred();
        }
    }
}

/// An advisory lock; ends when dropped.
#[derive(Debug)]
pub struct SimLockFile {
    pub(super) file: SimFile,
    pub(super) token: u64,
}

impl SimLockFile {
    /// What the holder has written into the file.
    pub fn read_text(&self) -> Result<String> {
        self.file.on("lock_read", "read lock", |world, id| {
            let content = world.node(id)?.inode.content().ok_or(no(Errno::ISDIR))?;
            Ok(String::from_utf8_lossy(&content.to_vec()).into_owned())
        })
    }

    /// Replaces the text in the file.
    pub fn write_text(&self, text: &str) -> Result<()> {
        self.file.changing("lock_write", "write lock", |world, id| {
            world.set_len(id, 0)?;
            world.write(id, 0, text.as_bytes())
        })
    }
}

impl Drop for SimLockFile {
    fn drop(&mut self) {
        let handle = &self.file.0;
        let mut world = handle.fs.lock();
        if world.alive(handle.epoch).is_ok()
            && let Ok(node) = world.node_mut(handle.id)
            && node.lock == Some(Holder::Engine(self.token))
        {
            node.lock = None;
        }
    }
}
