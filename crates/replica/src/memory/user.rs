//! The user's side of a replica in memory: edits that the replica knows nothing of until it looks.
//!
//! Each call behaves as the system call of that name would, sets times from the injected clock and leaves
//! hints as a watcher would. It never touches the index.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};

use instep_core::path::RelPath;
use instep_core::time::Mtime;

use super::tree::Object;
use super::{MemoryReplica, State};

impl MemoryReplica {
    fn edit<T>(
        &self,
        paths: &[&RelPath],
        act: impl FnOnce(&mut State, Mtime) -> Result<T>,
    ) -> Result<T> {
        let now = Mtime::from_nanos(self.env.wall_ns());
        let mut state = self.lock();
        let done = act(&mut state, now)?;
        if state.waker.is_some() {
            for path in paths {
                state.hints.add_path((*path).clone());
            }
        }
        state.wake();
        Ok(done)
    }

    /// Writes a file, making it (and its parents) if needed, in place if it is there.
    pub fn user_write(&self, path: &RelPath, bytes: &[u8]) -> Result<()> {
        self.make_parents(path)?;
        self.edit(&[path], |state, now| {
            match state.tree.get(path).map(|n| &n.object) {
                Some(Object::File { .. }) => state.tree.change(path, |object| {
                    if let Object::File {
                        bytes: old, mtime, ..
                    } = object
                    {
                        *old = bytes.to_vec();
                        *mtime = now;
                    }
                }),
                Some(_) => Err(ErrorKind::AlreadyExists.into()),
                None => {
                    let file = Object::File {
                        bytes: bytes.to_vec(),
                        mode: 0o644,
                        mtime: now,
                    };
                    state.tree.create(path, file)
                }
            }
        })
    }

    /// Flips a bit of a file behind everybody's back, as a bad disk does: nothing else tells of it.
    pub fn decay(&self, path: &RelPath) -> Result<()> {
        self.lock().tree.decay(path)
    }

    /// Makes a directory, and its parents if needed.
    pub fn user_mkdir(&self, path: &RelPath) -> Result<()> {
        self.make_parents(path)?;
        self.edit(&[path], |state, _| {
            state.tree.create(path, Object::Dir { mode: 0o755 })
        })
    }

    /// Makes a symbolic link, and its parents if needed.
    pub fn user_link(&self, path: &RelPath, target: &[u8]) -> Result<()> {
        self.make_parents(path)?;
        let target = target.to_vec();
        self.edit(&[path], |state, mtime| {
            state.tree.create(path, Object::Link { target, mtime })
        })
    }

    /// Makes a special file, and its parents if needed.
    pub fn user_special(&self, path: &RelPath) -> Result<()> {
        self.make_parents(path)?;
        self.edit(&[path], |state, _| state.tree.create(path, Object::Special))
    }

    /// Removes an object with everything below it.
    pub fn user_remove(&self, path: &RelPath) -> Result<()> {
        self.edit(&[path], |state, _| {
            let below: Vec<RelPath> = state.tree.below(path).map(|(p, _)| p.clone()).collect();
            for p in below.iter().rev() {
                state.tree.take(p)?;
            }
            state.tree.take(path).map(drop)
        })
    }

    /// Renames an object with everything below it; a file or link at the target is replaced.
    pub fn user_rename(&self, from: &RelPath, to: &RelPath) -> Result<()> {
        self.make_parents(to)?;
        self.edit(&[from, to], |state, _| {
            if state.tree.get(from).is_none() {
                return Err(ErrorKind::NotFound.into());
            }
            if state.tree.get(to).is_some_and(|n| !n.object.is_dir()) && from != to {
                state.tree.take(to)?;
            }
            state.tree.rename(from, to)
        })
    }

    /// Sets permission bits.
    pub fn user_chmod(&self, path: &RelPath, mode: u16) -> Result<()> {
        self.edit(&[path], |state, _| {
            state.tree.change(path, |object| match object {
                Object::File { mode: old, .. } | Object::Dir { mode: old } => *old = mode & 0o777,
                Object::Link { .. } | Object::Special => {}
            })
        })
    }

    /// Sets the modification time of a file or link.
    pub fn user_touch(&self, path: &RelPath, mtime: Mtime) -> Result<()> {
        self.edit(&[path], |state, _| {
            state.tree.change(path, |object| match object {
                Object::File { mtime: old, .. } | Object::Link { mtime: old, .. } => *old = mtime,
                Object::Dir { .. } | Object::Special => {}
            })
        })
    }

    /// The bytes of a file.
    pub fn user_read(&self, path: &RelPath) -> Result<Vec<u8>> {
        match self.lock().tree.get(path).map(|n| &n.object) {
            Some(Object::File { bytes, .. }) => Ok(bytes.clone()),
            Some(_) => Err(Error::from(ErrorKind::InvalidInput)),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    /// Everything that is there now.
    pub fn tree(&self) -> BTreeMap<RelPath, Object> {
        self.lock()
            .tree
            .iter()
            .map(|(p, n)| (p.clone(), n.object.clone()))
            .collect()
    }

    fn make_parents(&self, path: &RelPath) -> Result<()> {
        let Some(parent) = path.parent().filter(|p| !p.is_root()) else {
            return Ok(());
        };
        let there = self.lock().tree.get(&parent).map(|n| n.object.is_dir());
        match there {
            Some(true) => Ok(()),
            Some(false) => Err(ErrorKind::NotADirectory.into()),
            None => self.user_mkdir(&parent),
        }
    }
}
