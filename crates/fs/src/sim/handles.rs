//! Open directories and files, leases and locks, as the engine holds them.
//!
//! Owns the open counts: a handle counts in its inode until it is dropped. Every method is one system call:
//! the hook runs before it, it is counted, it can fail by injection, and it fails for ever once the machine
//! has crashed or the process has been killed.

use std::sync::Arc;

use instep_core::path::Name;
use instep_core::time::Mtime;
use rustix::io::Errno;

use super::SimFs;
use super::durable::{Body, NodeId};
use super::file::{SimFile, SimLockFile};
use super::tree::{Holder, Sys, World, no};
use super::watch::Signal;
use crate::api::{Error, Kind, Profile, Result, Stat};
use crate::dir::Space;

/// One open inode.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) fs: SimFs,
    pub(super) id: NodeId,
    pub(super) epoch: u64,
    pub(super) write: bool,
    /// The name it was opened by.
    pub(super) place: Option<(NodeId, Box<[u8]>)>,
}

impl Handle {
    /// Counts an opening of `id`; the inode must be there.
    pub(super) fn open(
        fs: &SimFs,
        world: &mut World,
        id: NodeId,
        write: bool,
        place: Option<(NodeId, Box<[u8]>)>,
    ) -> Sys<Self> {
        let node = world.node_mut(id)?;
        node.opens += 1;
        node.writers += u32::from(write);
        Ok(Self {
            fs: fs.clone(),
            id,
            epoch: world.epoch,
            write,
            place,
        })
    }

    pub(super) fn call<T>(
        &self,
        op: &'static str,
        attempt: impl FnOnce() -> String,
        run: impl FnOnce(&mut World) -> Sys<T>,
    ) -> Result<T> {
        self.fs.call(self.epoch, op, attempt, run)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut world = self.fs.lock();
        if world.alive(self.epoch).is_err() {
            return;
        }
        if self.write {
            world.emit_node(self.id, self.place.as_ref(), Signal::CloseWrite);
        }
        if let Ok(node) = world.node_mut(self.id) {
            node.opens -= 1;
            node.writers -= u32::from(self.write);
        }
        world.release(self.id);
    }
}

/// An open directory of the simulated file system.
#[derive(Debug, Clone)]
pub struct SimDir(Arc<Handle>);

impl SimDir {
    pub(super) fn open(fs: &SimFs, world: &mut World, id: NodeId) -> Sys<Self> {
        Ok(Self(Arc::new(Handle::open(fs, world, id, false, None)?)))
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.0
    }

    /// The machine it belongs to.
    pub fn fs(&self) -> &SimFs {
        &self.0.fs
    }

    /// Runs `run` on this directory and `name`.
    pub(super) fn on<T>(
        &self,
        op: &'static str,
        verb: &str,
        name: Name<'_>,
        run: impl FnOnce(&mut World, NodeId, &[u8]) -> Sys<T>,
    ) -> Result<T> {
        self.0.call(
            op,
            || format!("{verb} {name:?}"),
            |world| run(world, self.0.id, name.as_bytes()),
        )
    }

    fn both(
        &self,
        op: &'static str,
        verb: &str,
        name: Name<'_>,
        (to, to_name): (&Self, Name<'_>),
        run: impl FnOnce(&mut World, (NodeId, &[u8]), (NodeId, &[u8])) -> Sys<()>,
    ) -> Result<()> {
        let attempt = || format!("{verb} {name:?} and {to_name:?}");
        self.0.call(op, attempt, |world| {
            if !self.0.fs.is_same(&to.0.fs) {
                return Err(no(Errno::XDEV));
            }
            world.alive(to.0.epoch)?;
            run(
                world,
                (self.0.id, name.as_bytes()),
                (to.0.id, to_name.as_bytes()),
            )
        })
    }

    fn file(
        &self,
        world: &mut World,
        id: NodeId,
        write: bool,
        name: Option<&[u8]>,
    ) -> Sys<SimFile> {
        let place = name.map(|n| (self.0.id, n.into()));
        Ok(SimFile::new(Handle::open(
            &self.0.fs, world, id, write, place,
        )?))
    }

    /// Opens a directory in this one; never through a link or across a mount.
    pub fn open_dir(&self, name: Name<'_>) -> Result<Self> {
        self.on("open_dir", "open directory", name, |world, dir, name| {
            let id = world.ask(dir, name)?.ok_or(no(Errno::NOENT))?;
            let node = world.node(id)?;
            match node.kind() {
                Kind::Link => Err(no(Errno::LOOP)),
                Kind::Dir if node.inode.mount => Err(no(Errno::XDEV)),
                Kind::Dir if node.denied => Err(no(Errno::ACCESS)),
                Kind::Dir => Self::open(&self.0.fs, world, id),
                Kind::File | Kind::Special => Err(no(Errno::NOTDIR)),
            }
        })
    }

    /// Visits the names, in byte order, with the kind of each.
    ///
    /// A change between two chunks is seen or missed as on a real file system.
    pub fn list(&self, visit: &mut dyn FnMut(&[u8], Option<Kind>)) -> Result<()> {
        self.walk("list", &mut |name, kind| {
            visit(name, Some(kind));
            Ok(())
        })
    }

    /// Visits the names with a stat of each; a name that has vanished in between is skipped.
    pub fn list_stat(&self, visit: &mut dyn FnMut(&[u8], Result<Stat>)) -> Result<()> {
        self.walk("list_stat", &mut |name, _| {
            let attempt = || format!("examine \"{}\"", name.escape_ascii());
            let stat = self.0.call("list_stat_entry", attempt, |world| {
                let id = world.find(self.0.id, name)?;
                id.map(|id| world.stat(id)).transpose()
            });
            match stat {
                Ok(None) => Ok(()),
                Ok(Some(stat)) => {
                    visit(name, Ok(stat));
                    Ok(())
                }
                Err(e) if e.kind() == crate::ErrorKind::Crashed => Err(e),
                Err(e) => {
                    visit(name, Err(e));
                    Ok(())
                }
            }
        })
    }

    fn walk(
        &self,
        op: &'static str,
        visit: &mut dyn FnMut(&[u8], Kind) -> Result<()>,
    ) -> Result<()> {
        let mut after: Option<Box<[u8]>> = None;
        loop {
            let read = self.0.call(
                op,
                || "list directory".to_owned(),
                |world| chunk_of(world, self.0.id, after.as_deref()),
            );
            if read.as_ref().map_or(true, Vec::is_empty) {
                let complete = read.is_ok();
                self.0.fs.lock().account_listing(self.0.id, complete);
            }
            let chunk = read?;
            for (name, kind) in &chunk {
                visit(name, *kind)?;
            }
            match chunk.into_iter().next_back() {
                Some((name, _)) => after = Some(name),
                None => return Ok(()),
            }
        }
    }

    /// What `name` is; `None` when there is no such name.
    pub fn stat(&self, name: Name<'_>) -> Result<Option<Stat>> {
        self.on("stat", "examine", name, |world, dir, name| {
            let id = world.ask(dir, name)?;
            id.map(|id| world.stat(id)).transpose()
        })
    }

    /// What this directory is.
    pub fn stat_self(&self) -> Result<Stat> {
        self.0.call(
            "stat_self",
            || "examine directory".to_owned(),
            |world| world.stat(self.0.id),
        )
    }

    /// Opens a regular file for reading.
    pub fn open_file(&self, name: Name<'_>) -> Result<SimFile> {
        self.on("open_file", "open file", name, |world, dir, name| {
            let id = world.lookup(dir, name)?;
            let node = world.node(id)?;
            match node.kind() {
                Kind::File if node.denied => Err(no(Errno::ACCESS)),
                Kind::File => self.file(world, id, false, Some(name)),
                Kind::Dir => Err(no(Errno::ISDIR)),
                Kind::Link | Kind::Special => Err(no(Errno::LOOP)),
            }
        })
    }

    /// The target of a symbolic link.
    pub fn read_link(&self, name: Name<'_>) -> Result<Vec<u8>> {
        self.on(
            "read_link",
            "read link",
            name,
            |world, dir, name| match &world.node(world.lookup(dir, name)?)?.inode.body {
                Body::Link(target) => Ok(target.to_vec()),
                _ => Err(no(Errno::INVAL)),
            },
        )
    }

    /// A file without a name.
    pub fn create_unnamed(&self, mode: u32) -> Result<SimFile> {
        self.0.call(
            "create_unnamed",
            || "create unnamed file".to_owned(),
            |world| {
                if !world.cfg.unnamed_files {
                    return Err(no(Errno::OPNOTSUPP));
                }
                let id = world.make(Body::File(super::content::Content::default()), mode)?;
                world.node_mut(id)?.unnamed = true;
                self.file(world, id, true, None)
            },
        )
    }

    /// Gives an unnamed file its name.
    pub fn publish(&self, file: &SimFile, name: Name<'_>) -> Result<()> {
        self.on("publish", "publish file as", name, |world, dir, name| {
            if !self.0.fs.is_same(&file.handle().fs) {
                return Err(no(Errno::XDEV));
            }
            world.alive(file.handle().epoch)?;
            let node = world.node(file.handle().id)?;
            if node.names.is_empty() && !node.unnamed {
                return Err(no(Errno::NOENT));
            }
            world.link(dir, name, file.handle().id)
        })
    }

    /// Creates a file that must not be there yet.
    pub fn create_file(&self, name: Name<'_>, mode: u32) -> Result<SimFile> {
        self.on("create_file", "create file", name, |world, dir, name| {
            let id = world.create(
                dir,
                name,
                Body::File(super::content::Content::default()),
                mode,
            )?;
            self.file(world, id, true, Some(name))
        })
    }

    /// Creates a directory.
    pub fn make_dir(&self, name: Name<'_>, mode: u32) -> Result<()> {
        self.on("make_dir", "create directory", name, |world, dir, name| {
            let body = Body::Dir {
                entries: std::collections::BTreeMap::new(),
                parent: None,
            };
            world.create(dir, name, body, mode).map(drop)
        })
    }

    /// Creates a symbolic link.
    pub fn make_link(&self, name: Name<'_>, target: &[u8]) -> Result<()> {
        self.on("make_link", "create link", name, |world, dir, name| {
            if target.is_empty() {
                return Err(no(Errno::NOENT));
            }
            if target.len() > instep_core::limits::LINK_TARGET_BYTES_MAX - 1 {
                return Err(no(Errno::NAMETOOLONG));
            }
            world
                .create(dir, name, Body::Link(target.into()), 0o777)
                .map(drop)
        })
    }

    /// Moves a name to one that is free.
    pub fn rename_noreplace(&self, name: Name<'_>, to: &Self, to_name: Name<'_>) -> Result<()> {
        self.both(
            "rename_noreplace",
            "rename",
            name,
            (to, to_name),
            |world, from, to| {
                if !world.cfg.noreplace {
                    return Err(no(Errno::INVAL));
                }
                world.rename(from, to, false)
            },
        )
    }

    /// Swaps what two names refer to.
    pub fn exchange(&self, name: Name<'_>, to: &Self, to_name: Name<'_>) -> Result<()> {
        self.both(
            "exchange",
            "exchange",
            name,
            (to, to_name),
            |world, from, to| {
                if !world.cfg.exchange {
                    return Err(no(Errno::INVAL));
                }
                world.exchange(from, to)
            },
        )
    }

    /// Gives a file a further name.
    pub fn hard_link(&self, name: Name<'_>, to: &Self, to_name: Name<'_>) -> Result<()> {
        self.both(
            "hard_link",
            "link",
            name,
            (to, to_name),
            |world, (dir, name), (to, to_name)| {
                if !world.cfg.hard_links {
                    return Err(no(Errno::PERM));
                }
                let id = world.lookup(dir, name)?;
                world.link(to, to_name, id)
            },
        )
    }

    /// Moves a name over another; only for file systems that cannot exchange.
    pub fn rename_over(&self, name: Name<'_>, to: &Self, to_name: Name<'_>) -> Result<()> {
        self.both(
            "rename_over",
            "rename over",
            name,
            (to, to_name),
            |world, from, to| world.rename(from, to, true),
        )
    }

    /// Removes a name that is not a directory.
    pub fn remove_file(&self, name: Name<'_>) -> Result<()> {
        self.on("remove_file", "remove file", name, World::unlink)
    }

    /// Removes an empty directory.
    pub fn remove_dir(&self, name: Name<'_>) -> Result<()> {
        self.on("remove_dir", "remove directory", name, World::rmdir)
    }

    /// Sets the mode of a file or directory.
    pub fn set_mode(&self, name: Name<'_>, mode: u32) -> Result<()> {
        self.on("set_mode", "set mode of", name, |world, dir, name| {
            let id = world.lookup(dir, name)?;
            if matches!(world.node(id)?.kind(), Kind::Link | Kind::Special) {
                return Err(no(Errno::LOOP));
            }
            world.set_mode(id, mode)?;
            world.emit_one(dir, name, Signal::Attrib, Some(id));
            Ok(())
        })
    }

    /// Sets the modification time of whatever the name is.
    pub fn set_mtime(&self, name: Name<'_>, mtime: Mtime) -> Result<()> {
        self.on("set_mtime", "set time of", name, |world, dir, name| {
            let id = world.lookup(dir, name)?;
            world.set_mtime(id, mtime)?;
            world.emit_one(dir, name, Signal::Attrib, Some(id));
            Ok(())
        })
    }

    /// Makes the names in this directory durable.
    pub fn sync(&self) -> Result<()> {
        self.0.call(
            "sync",
            || "sync directory".to_owned(),
            |world| {
                world.disk.sync_dir(self.0.id);
                Ok(())
            },
        )
    }

    /// Makes everything on the file system durable.
    pub fn sync_fs(&self) -> Result<()> {
        let attempt = || "sync file system".to_owned();
        self.0.fs.call_or(
            self.0.epoch,
            "sync_fs",
            attempt,
            |world| {
                world.sync_all();
                Ok(())
            },
            |world| world.disk.lose_some(&mut world.rng),
        )
    }

    /// What is left.
    pub fn free_space(&self) -> Result<Space> {
        self.0.call(
            "free_space",
            || "ask for free space".to_owned(),
            |world| {
                let (bytes, inodes) = world.room();
                Ok(Space { bytes, inodes })
            },
        )
    }

    /// Whether nothing can be changed now.
    pub fn is_read_only(&self) -> Result<bool> {
        self.0.call(
            "is_read_only",
            || "ask about file system".to_owned(),
            |world| Ok(world.cfg.read_only),
        )
    }

    /// What this file system can do; known without probing.
    pub fn profile(&self, scratch: Option<&Self>) -> Result<Profile> {
        let probes = if scratch.is_some() { "probe" } else { "judge" };
        self.0.call(
            "profile",
            || format!("{probes} file system"),
            |world| {
                let cfg = &world.cfg;
                Ok(Profile {
                    fs_type: cfg.fs_type.clone(),
                    exchange: cfg.exchange,
                    unnamed_files: cfg.unnamed_files,
                    leases: cfg.leases,
                    reflink: cfg.reflink,
                    events_reliable: cfg.event_loss_per_mille == 0,
                    read_only: cfg.read_only,
                    case_sensitive: cfg.case_sensitive,
                    modes: cfg.modes,
                    xattrs: cfg.xattrs,
                    mtime_granularity_ns: cfg.mtime_granularity_ns,
                    tick_ns: if cfg.multigrain {
                        0
                    } else {
                        cfg.tick_ns.max(cfg.mtime_granularity_ns)
                    },
                    fs_id: cfg.dev,
                })
            },
        )
    }

    /// Takes an advisory lock on a file, made if need be; `None` while somebody else holds it.
    pub fn try_lock(&self, name: Name<'_>) -> Result<Option<SimLockFile>> {
        self.on("try_lock", "lock", name, |world, dir, name| {
            let id = match world.find(dir, name)? {
                Some(id) => id,
                None => world.create(
                    dir,
                    name,
                    Body::File(super::content::Content::default()),
                    0o600,
                )?,
            };
            if world.node(id)?.kind() != Kind::File {
                return Err(no(Errno::LOOP));
            }
            if world.node(id)?.lock.is_some() {
                return Ok(None);
            }
            let token = world.token();
            world.node_mut(id)?.lock = Some(Holder::Engine(token));
            Ok(Some(SimLockFile {
                file: self.file(world, id, true, Some(name))?,
                token,
            }))
        })
    }
}

/// One piece of a listing: the names after `after`.
fn chunk_of(world: &World, dir: NodeId, after: Option<&[u8]>) -> Sys<Vec<(Box<[u8]>, Kind)>> {
    use std::ops::Bound;
    world.check_linked(dir)?;
    let node = world.node(dir)?;
    if node.denied {
        return Err(no(Errno::ACCESS));
    }
    let entries = node.inode.entries().ok_or(no(Errno::NOTDIR))?;
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let chunk = entries
        .range::<[u8], _>((from, Bound::Unbounded))
        .take(world.cfg.list_chunk.max(1));
    chunk
        .map(|(name, id)| Ok((name.clone(), world.node(*id)?.kind())))
        .collect()
}

/// An error for an attempt of the simulator's own.
pub(super) fn failed(attempt: String, errno: i32) -> Error {
    Error::new(attempt, errno)
}
