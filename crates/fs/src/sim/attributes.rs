//! Owner, group and extended attributes in the simulator.
//!
//! Owns nothing: attributes are part of an inode's metadata, and go the way of modes and times to the
//! durable image. As on Linux, only the super-user gives things away, a file that changes hands loses the
//! bits above its permissions, and links keep no extended attributes.

use std::sync::Arc;

use instep_core::attributes::Xattrs;
use instep_core::path::Name;
use rustix::io::Errno;

use super::SimFs;
use super::durable::{NodeId, Write, XattrMap};
use super::file::SimFile;
use super::handles::SimDir;
use super::tree::{Sys, World, no};
use super::watch::Signal;
use crate::api::{Kind, Party, Result};

impl World {
    fn set_owner(
        &mut self,
        id: NodeId,
        user: Option<u32>,
        group: Option<u32>,
        as_user: u32,
    ) -> Sys<()> {
        self.writable()?;
        let meta = &self.node(id)?.inode.meta;
        let (user, group) = (user.unwrap_or(meta.uid), group.unwrap_or(meta.gid));
        let is_change = (user, group) != (meta.uid, meta.gid);
        if is_change && as_user != 0 {
            return Err(no(Errno::PERM));
        }
        self.changed(id);
        let is_dir = self.node(id)?.kind() == Kind::Dir;
        let meta = &mut self.node_mut(id)?.inode.meta;
        (meta.uid, meta.gid) = (user, group);
        if !is_dir {
            meta.mode &= 0o1777;
        }
        self.note(id, Write::Meta)
    }

    fn xattrs(&self, id: NodeId) -> Sys<Option<Xattrs>> {
        let all = XattrMap::clone(&self.node(id)?.inode.meta.xattrs);
        Ok(Xattrs::new(all))
    }

    fn set_xattr(&mut self, id: NodeId, name: &[u8], value: Option<&[u8]>) -> Sys<()> {
        self.writable()?;
        if !self.cfg.xattrs {
            return Err(no(Errno::OPNOTSUPP));
        }
        let is_link = matches!(self.node(id)?.kind(), Kind::Link | Kind::Special);
        if is_link || !name.starts_with(Xattrs::PREFIX) {
            return Err(no(Errno::PERM));
        }
        self.changed(id);
        let all = Arc::make_mut(&mut self.node_mut(id)?.inode.meta.xattrs);
        match value {
            Some(value) => drop(all.insert(name.into(), value.into())),
            None => drop(all.remove(name)),
        }
        self.note(id, Write::Meta)
    }

    fn account_name(&self, id: u32) -> Option<Vec<u8>> {
        self.cfg.accounts.get(&id).map(|n| n.clone().into_bytes())
    }

    fn account_id(&self, name: &[u8]) -> Option<u32> {
        let mut all = self.cfg.accounts.iter();
        all.find(|(_, n)| n.as_bytes() == name).map(|(id, _)| *id)
    }
}

impl SimFile {
    fn attrib(
        &self,
        op: &'static str,
        verb: &str,
        run: impl FnOnce(&mut World, NodeId) -> Sys<()>,
    ) -> Result<()> {
        self.on(op, verb, |world, id| {
            run(world, id)?;
            world.emit_node(id, self.handle().place.as_ref(), Signal::Attrib);
            Ok(())
        })
    }

    /// Sets owner and group.
    pub fn set_owner(&self, user: Option<u32>, group: Option<u32>) -> Result<()> {
        self.attrib("file_set_owner", "set owner of", |world, id| {
            world.set_owner(id, user, group, world.cfg.uid)
        })
    }

    /// The extended attributes; none when they are more than is carried.
    pub fn xattrs(&self) -> Result<Option<Xattrs>> {
        self.on("file_xattrs", "read extended attributes of", |world, id| {
            world.xattrs(id)
        })
    }

    /// Sets an extended attribute, or removes it.
    pub fn set_xattr(&self, name: &[u8], value: Option<&[u8]>) -> Result<()> {
        let verb = "set extended attribute of";
        self.attrib("file_set_xattr", verb, |world, id| {
            world.set_xattr(id, name, value)
        })
    }
}

impl SimDir {
    /// Sets owner and group of whatever the name is.
    pub fn set_owner(&self, name: Name<'_>, user: Option<u32>, group: Option<u32>) -> Result<()> {
        self.on("set_owner", "set owner of", name, |world, dir, name| {
            let id = world.lookup(dir, name)?;
            world.set_owner(id, user, group, world.cfg.uid)?;
            world.emit_one(dir, name, Signal::Attrib, Some(id));
            Ok(())
        })
    }

    /// This directory's extended attributes.
    pub fn xattrs_self(&self) -> Result<Option<Xattrs>> {
        let attempt = || "read extended attributes of directory".to_owned();
        let handle = self.handle();
        handle.call("xattrs_self", attempt, |world| world.xattrs(handle.id))
    }

    /// Sets one of this directory's extended attributes, or removes it.
    pub fn set_xattr_self(&self, name: &[u8], value: Option<&[u8]>) -> Result<()> {
        let attempt = || "set extended attribute of directory".to_owned();
        let handle = self.handle();
        handle.call("set_xattr_self", attempt, |world| {
            world.set_xattr(handle.id, name, value)?;
            world.emit_node(handle.id, None, Signal::Attrib);
            Ok(())
        })
    }

    /// The name that a user or group has on this machine.
    pub fn account_name(&self, _party: Party, id: u32) -> Option<Vec<u8>> {
        self.fs().lock().account_name(id)
    }

    /// The number that a user or group has on this machine.
    pub fn account_id(&self, _party: Party, name: &[u8]) -> Option<u32> {
        self.fs().lock().account_id(name)
    }

    /// As which user the process under test acts.
    pub fn acting_user(&self) -> u32 {
        self.fs().lock().cfg.uid
    }
}

/// What the user's programs, or an administrator's, do to attributes.
impl SimFs {
    /// Gives something to another user and group, as an administrator.
    pub fn chown(&self, path: impl AsRef<[u8]>, user: u32, group: u32) -> Result<()> {
        let path = path.as_ref();
        self.user("change owner of", path, |world| {
            let id = world.resolve(path)?;
            world.set_owner(id, Some(user), Some(group), 0)?;
            world.emit_node(id, None, Signal::Attrib);
            Ok(())
        })
    }

    /// Sets an extended attribute, or removes it.
    pub fn set_xattr(
        &self,
        path: impl AsRef<[u8]>,
        name: &str,
        value: Option<&[u8]>,
    ) -> Result<()> {
        let path = path.as_ref();
        self.user("set attribute of", path, |world| {
            let id = world.resolve(path)?;
            world.set_xattr(id, name.as_bytes(), value)?;
            world.emit_node(id, None, Signal::Attrib);
            Ok(())
        })
    }

    /// The extended attributes of what is at a path.
    pub fn xattrs(&self, path: impl AsRef<[u8]>) -> Result<Xattrs> {
        let path = path.as_ref();
        self.user("read attributes of", path, |world| {
            Ok(world.xattrs(world.resolve(path)?)?.unwrap_or_default())
        })
    }
}
