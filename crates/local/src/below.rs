//! What the index has below a directory that is to go: only the directory's own row leads a look there.
//!
//! Invariant: no row says that something is there below what is no directory. Whoever takes a directory's name away
//! asks here first; what a user removed from it a moment ago is found by the next look, and then the directory goes.

use instep_core::path::RelPath;
use instep_replica::Result;

use crate::replica::LocalReplica;

/// Whether the index has something directly below a directory that did not go. It is looked at.
pub(crate) fn is_left(
    replica: &LocalReplica,
    dir: &RelPath,
    went: impl Fn(&RelPath) -> bool,
) -> Result<bool> {
    let mut left = Vec::new();
    replica.index().children(dir, &mut |name, row| {
        let path = dir.join(name);
        if row.print.is_some() && !went(&path) {
            left.push(path);
        }
    })?;
    let any = !left.is_empty();
    left.into_iter().for_each(|path| replica.hint(path));
    Ok(any)
}
