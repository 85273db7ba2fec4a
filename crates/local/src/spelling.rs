//! Names on file systems that take several spellings for one name.
//!
//! Such a file system finds `a` when asked for `A`, so that what it finds says nothing of whether `A` is
//! there. Only a listing tells. Owns that question; changes nothing, and asks nothing where every spelling is
//! a name of its own.

use std::collections::BTreeSet;

use instep_core::path::RelPath;
use instep_fs::Dir;

use crate::replica::LocalReplica;
use crate::tree;

/// The names of one directory as they are spelled; none where that need not be asked.
pub(crate) struct Spelled(Option<BTreeSet<Box<[u8]>>>);

impl Spelled {
    /// Lists a directory, if its file system may answer to other spellings. What cannot be listed has no name.
    pub(crate) fn of(replica: &LocalReplica, dir: &Dir) -> Self {
        if replica.profile.case_sensitive {
            return Self(None);
        }
        let mut names = BTreeSet::new();
        let listed = dir.list(&mut |name, _| {
            names.insert(name.into());
        });
        if listed.is_err() {
            names.clear();
        }
        Self(Some(names))
    }

    /// Whether a name is there in just this spelling, as far as spelling goes.
    pub(crate) fn has(&self, name: &[u8]) -> bool {
        self.0.as_ref().is_none_or(|names| names.contains(name))
    }
}

/// Whether every name of a path that is there is spelled as in the path.
pub(crate) fn is_spelled(replica: &LocalReplica, path: &RelPath) -> bool {
    if replica.profile.case_sensitive {
        return true;
    }
    let mut at = RelPath::root();
    for name in path.components() {
        let Ok(dir) = tree::open(&replica.root, &at) else {
            return true;
        };
        let is_there = matches!(dir.stat(name), Ok(Some(_)));
        if is_there && !Spelled::of(replica, &dir).has(name.as_bytes()) {
            return false;
        }
        at = at.join(name);
    }
    true
}
