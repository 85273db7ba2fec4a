//! A tree in memory with the habits of a file system: inodes, parents that must exist, directories that
//! must be empty to go.
//!
//! Invariant: the parent of each node is a directory node or the root. A node's stamp changes with
//! everything about it but its name, so that equal fingerprints mean that nothing happened.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};

use instep_chunk::content_id;
use instep_core::id::ContentId;
use instep_core::path::RelPath;
use instep_core::row::Print;
use instep_core::time::Mtime;
use instep_core::version::Kind;

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// A regular file.
    File {
        /// Its content.
        bytes: Vec<u8>,
        /// Its permission bits.
        mode: u16,
        /// Its modification time.
        mtime: Mtime,
    },
    /// A directory.
    Dir {
        /// Its permission bits.
        mode: u16,
    },
    /// A symbolic link.
    Link {
        /// Where it points.
        target: Vec<u8>,
        /// Its modification time.
        mtime: Mtime,
    },
    /// A FIFO, socket or device.
    Special,
}

impl Object {
    /// What kind it is; none for what is never synchronized.
    pub fn kind(&self) -> Option<Kind> {
        Some(match self {
            Self::File { .. } => Kind::File,
            Self::Dir { .. } => Kind::Dir,
            Self::Link { .. } => Kind::Link,
            Self::Special => return None,
        })
    }

    /// Its permission bits; zero where they mean nothing.
    pub fn mode(&self) -> u16 {
        match self {
            Self::File { mode, .. } | Self::Dir { mode } => *mode,
            Self::Link { .. } | Self::Special => 0,
        }
    }

    /// Its modification time; the epoch where it means nothing.
    pub fn mtime(&self) -> Mtime {
        match self {
            Self::File { mtime, .. } | Self::Link { mtime, .. } => *mtime,
            Self::Dir { .. } | Self::Special => Mtime::default(),
        }
    }

    /// A file's bytes or a link's target; empty otherwise.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::File { bytes, .. } | Self::Link { target: bytes, .. } => bytes,
            Self::Dir { .. } | Self::Special => &[],
        }
    }

    /// The identity of its content; none for a directory.
    pub fn content(&self) -> ContentId {
        match self {
            Self::File { .. } | Self::Link { .. } => content_id(self.bytes()),
            Self::Dir { .. } | Self::Special => ContentId::NONE,
        }
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        matches!(self, Self::Dir { .. })
    }
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) ino: u64,
    pub(super) stamp: u64,
    pub(super) object: Object,
}

impl Node {
    pub(super) fn print(&self) -> Print {
        Print {
            ino: self.ino,
            hash: self.stamp,
            mode: self.object.mode(),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Tree {
    nodes: BTreeMap<RelPath, Node>,
    stamps: u64,
}

impl Tree {
    pub(super) fn get(&self, path: &RelPath) -> Option<&Node> {
        self.nodes.get(path)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&RelPath, &Node)> {
        self.nodes.iter()
    }

    /// Everything below `dir`, without it.
    pub(super) fn below<'a>(
        &'a self,
        dir: &'a RelPath,
    ) -> impl Iterator<Item = (&'a RelPath, &'a Node)> {
        let from_dir = self.nodes.range(dir.clone()..);
        from_dir
            .skip_while(move |(p, _)| *p == dir)
            .take_while(move |(p, _)| p.is_within(dir))
    }

    fn stamp(&mut self) -> u64 {
        self.stamps += 1;
        self.stamps
    }

    fn check_parent(&self, path: &RelPath) -> Result<()> {
        let parent = path
            .parent()
            .ok_or_else(|| Error::from(ErrorKind::InvalidInput))?;
        match self.nodes.get(&parent) {
            _ if parent.is_root() => Ok(()),
            Some(node) if node.object.is_dir() => Ok(()),
            Some(_) => Err(ErrorKind::NotADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    /// Puts a new object where nothing is.
    pub(super) fn create(&mut self, path: &RelPath, object: Object) -> Result<()> {
        self.check_parent(path)?;
        if self.nodes.contains_key(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let stamp = self.stamp();
        self.nodes.insert(
            path.clone(),
            Node {
                ino: stamp,
                stamp,
                object,
            },
        );
        Ok(())
    }

    /// Changes an object in place: the inode stays.
    pub(super) fn change(&mut self, path: &RelPath, with: impl FnOnce(&mut Object)) -> Result<()> {
        let stamp = self.stamp();
        let node = self
            .nodes
            .get_mut(path)
            .ok_or_else(|| Error::from(ErrorKind::NotFound))?;
        with(&mut node.object);
        node.stamp = stamp;
        Ok(())
    }

    /// Changes a file's bytes and nothing that tells of it.
    pub(super) fn decay(&mut self, path: &RelPath) -> Result<()> {
        let node = self.nodes.get_mut(path);
        match node.map(|n| &mut n.object) {
            Some(Object::File { bytes, .. }) => {
                let last = bytes.last_mut();
                *last.ok_or_else(|| Error::from(ErrorKind::InvalidInput))? ^= 0x10;
                Ok(())
            }
            _ => Err(ErrorKind::NotFound.into()),
        }
    }

    /// Takes one object away; a directory must be empty.
    pub(super) fn take(&mut self, path: &RelPath) -> Result<Node> {
        if self.below(path).next().is_some() {
            return Err(ErrorKind::DirectoryNotEmpty.into());
        }
        self.nodes
            .remove(path)
            .ok_or_else(|| ErrorKind::NotFound.into())
    }

    /// Moves an object with everything below it to where nothing is.
    pub(super) fn rename(&mut self, from: &RelPath, to: &RelPath) -> Result<()> {
        self.check_parent(to)?;
        if self.nodes.contains_key(to) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        if to.is_within(from) {
            return Err(ErrorKind::InvalidInput.into());
        }
        let moving: Vec<RelPath> = self
            .nodes
            .get_key_value(from)
            .into_iter()
            .map(|(p, _)| p.clone())
            .chain(self.below(from).map(|(p, _)| p.clone()))
            .collect();
        if moving.first() != Some(from) {
            return Err(ErrorKind::NotFound.into());
        }
        for path in moving {
            if let (Some(node), Some(new)) = (self.nodes.remove(&path), path.rebase(from, to)) {
                self.nodes.insert(new, node);
            }
        }
        Ok(())
    }
}
