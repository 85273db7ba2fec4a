//! Directories that stood only for their contents go with the last of them.
//!
//! Whoever brought the last of it away: an action, a user, or a process that died before it could see to this.
//! Invariant: only a directory of which no version is alive, and that is empty, is removed.

use std::collections::BTreeSet;

use instep_core::path::RelPath;
use instep_core::row::Row;
use instep_replica::{Result, Step};
use instep_store::Durability;

use crate::below;
use crate::replica::LocalReplica;
use crate::tree;

/// Removes the directories above paths that are gone, as far as nothing is left in them and nothing else is to take
/// their place.
pub(crate) fn above<'a>(
    replica: &LocalReplica,
    gone: impl Iterator<Item = &'a RelPath>,
    stays: impl Fn(&RelPath) -> bool,
) -> Result<()> {
    let mut dirs: BTreeSet<RelPath> = gone.filter_map(RelPath::parent).collect();
    if dirs.is_empty() || !replica.is_writable() || replica.settings.preview {
        return Ok(());
    }
    while let Some(path) = dirs.pop_last() {
        let Some((parent, name)) = path.split().filter(|_| !stays(&path)) else {
            continue;
        };
        let Some(row) = replica.index().get(&path)? else {
            continue;
        };
        if !row.is_derived_dir() || row.entry.siblings().iter().any(|(_, v)| !v.is_tomb()) {
            continue;
        }
        if below::is_left(replica, &path, |_| false)? {
            continue;
        }
        // Where something is left in it, it goes on standing for that.
        if tree::open(&replica.root, &parent)
            .and_then(|dir| dir.remove_dir(name))
            .is_ok()
        {
            replica.env.reach(Step::Pruned);
            replica.unwatch(&path);
            let mut index = replica.index();
            let shown = instep_replica::mint::settled_tomb(&row.entry);
            let gone = Row {
                shown,
                print: None,
                seen: None,
                epoch: index.epoch(),
                ..row.clone()
            };
            index.put(&path, Some(&row), &gone)?;
            dirs.insert(parent);
        }
    }
    replica.index().commit(Durability::Process)
}
