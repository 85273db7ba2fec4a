//! Reaching directories below the root, one component at a time, and our own directory at its top.

use instep_core::path::{Name, RelPath};
use instep_fs::{Dir, ErrorKind, Result};

/// The directories of ours that belong to one root.
#[derive(Debug, Clone)]
pub struct Ours {
    /// `.instep` itself, or the root's place in the user's state directory.
    pub base: Dir,
    /// Files under way. Never seen by a user.
    pub staging: Dir,
    /// What was displaced.
    pub trash: Dir,
    /// Losers of conflicts.
    pub versions: Dir,
}

/// A name that is known to be legal because we chose it.
pub fn ours(name: &str) -> Name<'_> {
    Name::new(name.as_bytes()).expect("names of ours are short and plain")
}

impl Ours {
    /// Opens the directories as they are, making none.
    pub fn existing(base: Dir) -> Result<Self> {
        let sub = |name: &str| base.open_dir(ours(name));
        Ok(Self { staging: sub("staging")?, trash: sub("trash")?, versions: sub("versions")?, base })
    }

    /// Opens the directories, making those that are missing.
    pub fn open(base: Dir) -> Result<Self> {
        let sub = |name: &str| match base.make_dir(ours(name), 0o700) {
            Err(e) if e.kind() != ErrorKind::Taken => Err(e),
            _ => base.open_dir(ours(name)),
        };
        Ok(Self { staging: sub("staging")?, trash: sub("trash")?, versions: sub("versions")?, base })
    }
}

/// Opens the directory at a path, never through a link, never across a mount.
pub fn open(root: &Dir, path: &RelPath) -> Result<Dir> {
    path.components().try_fold(root.clone(), |dir, name| dir.open_dir(name))
}
