//! The user's hands: what people and their programs do to the tree, by path, between any two calls of the
//! engine.
//!
//! Owns no state. These methods bypass the hook, the faults and the counts; they produce events and break
//! leases as the real operations do. Links on the way are not followed. After a crash they fail like
//! everything else.

use std::collections::BTreeMap;

use instep_core::path::{Name, RelPath};
use instep_core::time::Mtime;
use rustix::io::Errno;

use super::SimFs;
use super::content::Content;
use super::durable::{Body, NodeId};
use super::handles::failed;
use super::tree::{Holder, Sys, World, no};
use super::watch::Signal;
use crate::api::{ERRNO_CRASHED, Kind, Result, Stat};

/// How a program saves a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Save {
    /// Opens it, cuts it to nothing and writes.
    InPlace,
    /// Writes a new file beside it and renames that over it.
    ByRename,
}

/// A file that a user's program holds open for writing.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UserFd(u64);

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// What it is.
    pub kind: Kind,
    /// The bytes of a file; empty for anything else.
    pub content: Vec<u8>,
    /// The target of a link; empty for anything else.
    pub target: Vec<u8>,
    /// Mode bits.
    pub mode: u32,
    /// Modification time.
    pub mtime: Mtime,
    /// Inode number.
    pub ino: u64,
    /// Number of names.
    pub nlink: u32,
}

/// A file opened for writing by the user.
#[derive(Debug)]
pub(super) struct OpenByUser {
    id: NodeId,
    place: (NodeId, Box<[u8]>),
    mapped: bool,
    /// A mapped page is dirty already: further stores leave no trace.
    stored: bool,
}

/// A write that waits, inside `open`, for a lease to end.
#[derive(Debug)]
pub(super) struct Deferred {
    id: NodeId,
    place: (NodeId, Box<[u8]>),
    act: Act,
}

#[derive(Debug, Clone)]
enum Act {
    Replace(Box<[u8]>),
    Append(Box<[u8]>),
}

impl World {
    pub(super) fn resolve(&self, path: &[u8]) -> Sys<NodeId> {
        let path = RelPath::new(path).map_err(|_| no(Errno::INVAL))?;
        path.components()
            .try_fold(self.root, |dir, name| self.lookup(dir, name.as_bytes()))
    }

    fn resolve_parent<'p>(&self, path: &'p [u8]) -> Sys<(NodeId, &'p [u8])> {
        let at = path.iter().rposition(|b| *b == b'/');
        let (dir, name) = at.map_or((&[][..], path), |at| (&path[..at], &path[at + 1..]));
        Name::new(name).map_err(|_| no(Errno::INVAL))?;
        Ok((self.resolve(dir)?, name))
    }

    fn file_at(&self, path: &[u8]) -> Sys<NodeId> {
        let id = self.resolve(path)?;
        self.node(id)?.inode.content().ok_or(no(Errno::ISDIR))?;
        Ok(id)
    }

    /// What an open for writing does to the leases on a file.
    fn break_leases(&mut self, id: NodeId) -> bool {
        let calls = self.faults.total();
        let Ok(node) = self.node_mut(id) else {
            return false;
        };
        for broken in node.leases.values_mut() {
            broken.get_or_insert(calls);
        }
        !node.leases.is_empty()
    }

    fn act(&mut self, id: NodeId, place: (NodeId, Box<[u8]>), act: Act) -> Sys<()> {
        if self.break_leases(id) && self.cfg.leases_block {
            self.node_mut(id)?.user_opens += 1;
            self.deferred.push(Deferred { id, place, act });
            return Ok(());
        }
        self.act_now(id, &place, act)
    }

    fn act_now(&mut self, id: NodeId, place: &(NodeId, Box<[u8]>), act: Act) -> Sys<()> {
        let len = self
            .node(id)?
            .inode
            .content()
            .ok_or(no(Errno::ISDIR))?
            .len();
        let done = match act {
            Act::Append(bytes) => self.write(id, len, &bytes),
            Act::Replace(bytes) => {
                self.set_len(id, 0)?;
                self.write(id, 0, &bytes)
            }
        };
        self.emit_node(id, Some(place), Signal::Modify);
        self.emit_node(id, Some(place), Signal::CloseWrite);
        done
    }

    /// Lets the writes go on whose lease has ended.
    pub(super) fn run_deferred(&mut self) {
        let by = self.account.by.take();
        for waiting in core::mem::take(&mut self.deferred) {
            if self.node(waiting.id).is_ok_and(|n| !n.leases.is_empty()) {
                self.deferred.push(waiting);
                continue;
            }
            // It opened the file while there was room, and before the disk became read-only.
            let (capacity, read_only) = (self.cfg.capacity_bytes, self.cfg.read_only);
            (self.cfg.capacity_bytes, self.cfg.read_only) = (u64::MAX, false);
            self.act_now(waiting.id, &waiting.place, waiting.act)
                .unwrap_or_default();
            (self.cfg.capacity_bytes, self.cfg.read_only) = (capacity, read_only);
            if let Ok(node) = self.node_mut(waiting.id) {
                node.user_opens -= 1;
            }
            self.release(waiting.id);
        }
        self.account.by = by;
    }

    fn save(&mut self, path: &[u8], bytes: &[u8], how: Save) -> Sys<()> {
        let (dir, name) = self.resolve_parent(path)?;
        let place = (dir, Box::from(name));
        let old = self.find(dir, name)?;
        match (how, old) {
            (Save::InPlace, Some(id)) => self.act(id, place, Act::Replace(bytes.into())),
            (Save::InPlace, None) => {
                let id = self.create(dir, name, Body::File(Content::default()), 0o644)?;
                self.act_now(id, &place, Act::Append(bytes.into()))
            }
            (Save::ByRename, _) => {
                let mode = old
                    .and_then(|id| self.node(id).ok())
                    .map_or(0o644, |n| n.inode.meta.mode);
                let mut beside = name.to_vec();
                beside.truncate(instep_core::limits::NAME_BYTES_MAX - 5);
                beside.extend_from_slice(b".new~");
                let id = self.create(dir, &beside, Body::File(Content::default()), mode)?;
                let wrote =
                    self.act_now(id, &(dir, beside.clone().into()), Act::Append(bytes.into()));
                match wrote.and_then(|()| self.rename((dir, &beside), (dir, name), true)) {
                    Ok(()) => Ok(()),
                    Err(errno) => {
                        self.unlink(dir, &beside)?;
                        Err(errno)
                    }
                }
            }
        }
    }

    fn remove_path(&mut self, path: &[u8], below: bool) -> Sys<()> {
        let (dir, name) = self.resolve_parent(path)?;
        self.remove_entry(dir, name, below)
    }

    fn remove_entry(&mut self, dir: NodeId, name: &[u8], below: bool) -> Sys<()> {
        let id = self.lookup(dir, name)?;
        let names: Option<Vec<Box<[u8]>>> = self
            .node(id)?
            .inode
            .entries()
            .map(|entries| entries.keys().cloned().collect());
        let Some(names) = names else {
            return self.unlink(dir, name);
        };
        if below {
            for child in names {
                self.remove_entry(id, &child, true)?;
            }
        }
        self.rmdir(dir, name)
    }

    fn view(&self, id: NodeId) -> Sys<NodeView> {
        let stat = self.stat_quietly(id)?;
        let body = &self.node(id)?.inode.body;
        Ok(NodeView {
            kind: stat.kind,
            content: if let Body::File(c) = body {
                c.to_vec()
            } else {
                Vec::new()
            },
            target: if let Body::Link(target) = body {
                target.to_vec()
            } else {
                Vec::new()
            },
            mode: stat.mode,
            mtime: stat.mtime,
            ino: stat.ino,
            nlink: stat.nlink,
        })
    }

    fn views(&self) -> Sys<BTreeMap<RelPath, NodeView>> {
        let mut out = BTreeMap::new();
        let mut todo = vec![(RelPath::root(), self.root)];
        while let Some((path, id)) = todo.pop() {
            for (name, child) in self.node(id)?.inode.entries().into_iter().flatten() {
                let below = path.join(Name::new(name).map_err(|_| no(Errno::INVAL))?);
                out.insert(below.clone(), self.view(*child)?);
                todo.push((below, *child));
            }
        }
        Ok(out)
    }

    fn write_by_fd(&mut self, fd: &UserFd, offset: u64, bytes: &[u8]) -> Sys<()> {
        let open = self.user_fds.get(&fd.0).ok_or(no(Errno::BADF))?;
        let (id, place, mapped, silent) = (open.id, open.place.clone(), open.mapped, open.stored);
        let before = self.node(id)?.inode.meta.clone();
        let end = offset + bytes.len() as u64;
        if mapped && end > self.node(id)?.inode.content().map_or(0, Content::len) {
            return Err(no(Errno::FAULT));
        }
        let done = self.write_as(id, offset, bytes, silent.then_some(before));
        if let Some(open) = self.user_fds.get_mut(&fd.0).filter(|_| done.is_ok()) {
            open.stored = mapped;
        }
        if !mapped {
            self.emit_node(id, Some(&place), Signal::Modify);
        }
        done
    }

    fn decay_at(&mut self, path: &[u8], offset: u64) -> Sys<()> {
        let id = self.file_at(path)?;
        let node = self.node(id)?;
        let before = node.inode.meta.clone();
        let mut byte = [0];
        let content = node.inode.content().ok_or(no(Errno::ISDIR))?;
        if content.read_at(offset, &mut byte) == 0 {
            return Err(no(Errno::INVAL));
        }
        self.write_as(id, offset, &[byte[0] ^ 0x10], Some(before))
    }

    fn close_by_user(&mut self, fd: &UserFd) -> Sys<()> {
        let open = self.user_fds.remove(&fd.0).ok_or(no(Errno::BADF))?;
        self.emit_node(open.id, Some(&open.place), Signal::CloseWrite);
        let node = self.node_mut(open.id)?;
        node.user_opens -= 1;
        node.user_writers -= 1;
        self.release(open.id);
        Ok(())
    }

    fn open_by_user(&mut self, path: &[u8], mapped: bool) -> Sys<UserFd> {
        let (dir, name) = self.resolve_parent(path)?;
        let id = match self.find(dir, name)? {
            Some(id) => id,
            None => self.create(dir, name, Body::File(Content::default()), 0o644)?,
        };
        self.node(id)?.inode.content().ok_or(no(Errno::ISDIR))?;
        if self.break_leases(id) && self.cfg.leases_block {
            return Err(no(Errno::AGAIN));
        }
        let node = self.node_mut(id)?;
        node.user_opens += 1;
        node.user_writers += 1;
        let fd = self.token();
        self.user_fds.insert(
            fd,
            OpenByUser {
                id,
                place: (dir, name.into()),
                mapped,
                stored: false,
            },
        );
        Ok(UserFd(fd))
    }
}

impl SimFs {
    pub(super) fn user<T>(
        &self,
        verb: &str,
        path: &[u8],
        run: impl FnOnce(&mut World) -> Sys<T>,
    ) -> Result<T> {
        let mut world = self.lock();
        let done = if world.crashed {
            Err(ERRNO_CRASHED)
        } else {
            run(&mut world)
        };
        drop(world);
        done.map_err(|errno| failed(format!("user: {verb} \"{}\"", path.escape_ascii()), errno))
    }

    /// Flips a bit of a file behind everybody's back, as a bad disk does: nothing else tells of it.
    pub fn decay(&self, path: impl AsRef<[u8]>, offset: u64) -> Result<()> {
        let path = path.as_ref();
        self.user("decay", path, |world| world.decay_at(path, offset))
    }

    /// Saves a file as a program would. In place it goes through a link count, not through a link.
    pub fn write_file(
        &self,
        path: impl AsRef<[u8]>,
        bytes: impl AsRef<[u8]>,
        how: Save,
    ) -> Result<()> {
        let path = path.as_ref();
        self.user("save", path, |world| world.save(path, bytes.as_ref(), how))
    }

    /// Appends to a file, which is created if need be.
    pub fn append(&self, path: impl AsRef<[u8]>, bytes: impl AsRef<[u8]>) -> Result<()> {
        let (path, bytes) = (path.as_ref(), bytes.as_ref());
        self.user("append to", path, |world| {
            let (dir, name) = world.resolve_parent(path)?;
            let id = match world.find(dir, name)? {
                Some(id) => id,
                None => world.create(dir, name, Body::File(Content::default()), 0o644)?,
            };
            world.act(id, (dir, name.into()), Act::Append(bytes.into()))
        })
    }

    /// Removes a file, a link, or an empty directory.
    pub fn remove(&self, path: impl AsRef<[u8]>) -> Result<()> {
        let path = path.as_ref();
        self.user("remove", path, |world| world.remove_path(path, false))
    }

    /// Removes whatever is there and everything below it.
    pub fn remove_all(&self, path: impl AsRef<[u8]>) -> Result<()> {
        let path = path.as_ref();
        self.user("remove all of", path, |world| world.remove_path(path, true))
    }

    /// Creates a directory and those above it.
    pub fn mkdir_all(&self, path: impl AsRef<[u8]>) -> Result<()> {
        let path = path.as_ref();
        self.user("create directory", path, |world| {
            let full = RelPath::new(path).map_err(|_| no(Errno::INVAL))?;
            let mut dir = world.root;
            for name in full.components() {
                let body = Body::Dir {
                    entries: BTreeMap::new(),
                    parent: None,
                };
                dir = match world.find(dir, name.as_bytes())? {
                    Some(id) => id,
                    None => world.create(dir, name.as_bytes(), body, 0o755)?,
                };
            }
            if world.node(dir)?.inode.is_dir() {
                Ok(())
            } else {
                Err(no(Errno::NOTDIR))
            }
        })
    }

    /// Renames, over whatever is at `to`.
    pub fn rename(&self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Result<()> {
        let (from, to) = (from.as_ref(), to.as_ref());
        self.user("rename", from, |world| {
            let source = world.resolve_parent(from)?;
            let target = world.resolve_parent(to)?;
            world.rename(source, target, true)
        })
    }

    /// Swaps two names.
    pub fn swap(&self, a: impl AsRef<[u8]>, b: impl AsRef<[u8]>) -> Result<()> {
        let (a, b) = (a.as_ref(), b.as_ref());
        self.user("swap", a, |world| {
            let one = world.resolve_parent(a)?;
            let two = world.resolve_parent(b)?;
            world.exchange(one, two)
        })
    }

    /// Gives a file a further name.
    pub fn hard_link(&self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Result<()> {
        let (from, to) = (from.as_ref(), to.as_ref());
        self.user("link", from, |world| {
            let id = world.resolve(from)?;
            let (dir, name) = world.resolve_parent(to)?;
            world.link(dir, name, id)
        })
    }

    /// Creates a symbolic link at `path`.
    pub fn symlink(&self, target: impl AsRef<[u8]>, path: impl AsRef<[u8]>) -> Result<()> {
        let path = path.as_ref();
        self.user("create link", path, |world| {
            let (dir, name) = world.resolve_parent(path)?;
            world
                .create(dir, name, Body::Link(target.as_ref().into()), 0o777)
                .map(drop)
        })
    }

    /// Creates a FIFO.
    pub fn special(&self, path: impl AsRef<[u8]>) -> Result<()> {
        let path = path.as_ref();
        self.user("create fifo", path, |world| {
            let (dir, name) = world.resolve_parent(path)?;
            world.create(dir, name, Body::Special, 0o644).map(drop)
        })
    }

    /// Changes mode bits.
    pub fn chmod(&self, path: impl AsRef<[u8]>, mode: u32) -> Result<()> {
        let path = path.as_ref();
        self.user("change mode of", path, |world| {
            let id = world.resolve(path)?;
            world.set_mode(id, mode)?;
            world.emit_node(id, None, Signal::Attrib);
            Ok(())
        })
    }

    /// Sets the modification time.
    pub fn touch(&self, path: impl AsRef<[u8]>, mtime: Mtime) -> Result<()> {
        let path = path.as_ref();
        self.user("touch", path, |world| {
            let id = world.resolve(path)?;
            world.set_mtime(id, mtime)?;
            world.emit_node(id, None, Signal::Attrib);
            Ok(())
        })
    }

    /// The bytes of a file.
    pub fn read(&self, path: impl AsRef<[u8]>) -> Result<Vec<u8>> {
        let path = path.as_ref();
        self.user("read", path, |world| {
            let id = world.file_at(path)?;
            Ok(world.view(id)?.content)
        })
    }

    /// Whether there is such a name.
    pub fn exists(&self, path: impl AsRef<[u8]>) -> bool {
        let path = path.as_ref();
        self.user("look for", path, |world| world.resolve(path))
            .is_ok()
    }

    /// What `stat` says, without the side effect on later time stamps.
    pub fn stat(&self, path: impl AsRef<[u8]>) -> Result<Stat> {
        let path = path.as_ref();
        self.user("examine", path, |world| {
            world.stat_quietly(world.resolve(path)?)
        })
    }

    /// Everything below the root. Works on a crashed machine too: it shows what its users last saw.
    pub fn snapshot(&self) -> BTreeMap<RelPath, NodeView> {
        self.lock().views().unwrap_or_default()
    }

    /// A user's `fsync` of a file, or of the names in a directory.
    pub fn user_sync(&self, path: impl AsRef<[u8]>) -> Result<()> {
        let path = path.as_ref();
        self.user("sync", path, |world| {
            let id = world.resolve(path)?;
            if world.node(id)?.inode.is_dir() {
                world.disk.sync_dir(id);
            } else {
                world.disk.sync_data(id);
            }
            Ok(())
        })
    }

    /// Everything written so far reaches the medium, as it does after a quiet minute.
    pub fn settle(&self) {
        let mut world = self.lock();
        if !world.crashed {
            world.sync_all();
        }
    }

    /// Opens a file for reading and writing, creating it if need be, and keeps it open.
    pub fn user_open_write(&self, path: impl AsRef<[u8]>) -> Result<UserFd> {
        let path = path.as_ref();
        self.user("open", path, |world| world.open_by_user(path, false))
    }

    /// Maps a file for shared writing: stores produce no event until it is unmapped by `user_close`, and
    /// only the first one changes the modification time.
    pub fn user_map(&self, path: impl AsRef<[u8]>) -> Result<UserFd> {
        let path = path.as_ref();
        self.user("map", path, |world| world.open_by_user(path, true))
    }

    /// Writes through an open file.
    pub fn user_write(&self, fd: &UserFd, offset: u64, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.user("write through", b"descriptor", |world| {
            world.write_by_fd(fd, offset, bytes.as_ref())
        })
    }

    /// Cuts or extends an open file.
    pub fn user_truncate(&self, fd: &UserFd, len: u64) -> Result<()> {
        self.user("cut through", b"descriptor", |world| {
            let open = world.user_fds.get(&fd.0).ok_or(no(Errno::BADF))?;
            let (id, place) = (open.id, open.place.clone());
            world.set_len(id, len)?;
            world.emit_node(id, Some(&place), Signal::Modify);
            Ok(())
        })
    }

    /// Closes an open file.
    pub fn user_close(&self, fd: UserFd) -> Result<()> {
        self.user("close", b"descriptor", |world| world.close_by_user(&fd))
    }

    /// Makes a path unreadable, or readable again.
    pub fn deny(&self, path: impl AsRef<[u8]>, denied: bool) -> Result<()> {
        let path = path.as_ref();
        self.user("deny", path, |world| {
            let id = world.resolve(path)?;
            world.node_mut(id)?.denied = denied;
            Ok(())
        })
    }

    /// Mounts another file system on a directory, or unmounts it. What is below stays as it is.
    pub fn mount(&self, path: impl AsRef<[u8]>, mounted: bool) -> Result<()> {
        let path = path.as_ref();
        self.user("mount on", path, |world| {
            let id = world.resolve(path)?;
            world.node_mut(id)?.inode.mount = mounted;
            Ok(())
        })
    }

    /// Takes the advisory lock of a file as another process would; false when it is held.
    pub fn user_lock(&self, path: impl AsRef<[u8]>) -> Result<bool> {
        let path = path.as_ref();
        self.user("lock", path, |world| {
            let id = world.file_at(path)?;
            let node = world.node_mut(id)?;
            let free = node.lock.is_none();
            node.lock = node.lock.or(Some(Holder::User));
            Ok(free)
        })
    }

    /// Ends whatever lock is on a file.
    pub fn user_unlock(&self, path: impl AsRef<[u8]>) -> Result<()> {
        let path = path.as_ref();
        self.user("unlock", path, |world| {
            let id = world.file_at(path)?;
            world.node_mut(id)?.lock = None;
            Ok(())
        })
    }
}
