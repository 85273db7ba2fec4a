//! Names on file systems that take several spellings for one name.
//!
//! Such a file system finds `a` when asked for `A`, so that what it finds says nothing of whether `A` is
//! there. Only a listing tells, and one that fails tells nothing. Owns that question; changes nothing, and asks
//! nothing where every spelling is a name of its own.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;

use instep_core::path::RelPath;
use instep_fs::{Dir, ErrorKind, Result};

use crate::replica::{LocalReplica, locked};

/// The names of one directory as they are spelled; none where that need not be asked.
pub(crate) struct Spelled(Option<BTreeSet<Box<[u8]>>>);

impl Spelled {
    /// Lists a directory, if its file system may answer to other spellings.
    pub(crate) fn of(replica: &LocalReplica, dir: &Dir) -> Result<Self> {
        if replica.profile.case_sensitive {
            return Ok(Self(None));
        }
        let mut names = BTreeSet::new();
        dir.list(&mut |name, _| {
            names.insert(name.into());
        })?;
        Ok(Self(Some(names)))
    }

    /// Whether a name is there in just this spelling, as far as spelling goes.
    pub(crate) fn has(&self, name: &[u8]) -> bool {
        self.0.as_ref().is_none_or(|names| names.contains(name))
    }
}

/// Whether every name of a path that is there is spelled as in the path.
pub(crate) fn is_spelled(replica: &LocalReplica, path: &RelPath) -> Result<bool> {
    if replica.profile.case_sensitive {
        return Ok(true);
    }
    let mut dir = replica.root.clone();
    for name in path.components() {
        if dir.stat(name)?.is_none() {
            return Ok(true);
        }
        if !Spelled::of(replica, &dir)?.has(name.as_bytes()) {
            return Ok(false);
        }
        dir = match dir.open_dir(name) {
            Err(e) if matches!(e.kind(), ErrorKind::Absent | ErrorKind::OtherKind) => {
                return Ok(true);
            }
            opened => opened?,
        };
    }
    Ok(true)
}

/// The names in an open directory, if the names of its own path are spelled as in that.
pub(crate) fn within(replica: &LocalReplica, path: &RelPath, dir: &Dir) -> Result<Option<Spelled>> {
    if !is_spelled(replica, path)? {
        return Ok(None);
    }
    Spelled::of(replica, dir).map(Some)
}

/// Which directories are spelled as in their paths, asked once for each.
#[derive(Default)]
pub(crate) struct SpelledDirs(Mutex<HashMap<RelPath, bool>>);

impl SpelledDirs {
    /// Whether something with another name answers to a path's name in its open directory, or to one above it.
    pub(crate) fn is_clash(
        &self,
        replica: &LocalReplica,
        path: &RelPath,
        dir: &Dir,
    ) -> Result<bool> {
        let Some((parent, name)) = path.split().filter(|_| !replica.profile.case_sensitive) else {
            return Ok(false);
        };
        if dir.stat(name)?.is_some() && !Spelled::of(replica, dir)?.has(name.as_bytes()) {
            return Ok(true);
        }
        let mut known = locked(&self.0);
        let is_spelled = match known.get(&parent) {
            Some(is) => *is,
            None => is_spelled(replica, &parent)?,
        };
        known.insert(parent, is_spelled);
        Ok(!is_spelled)
    }
}
