//! The lock of a root: one process at a time has it, and says who it is.
//!
//! Owns the lock file's use and its text, `pid 123: instep sync a b`. Invariant: whoever only asks who holds
//! a root makes no lock file, and holds the lock for a moment at most.

use std::path::Path;
use std::time::Duration;

use instep_fs::{Dir, LockFile, place};
use instep_replica::{Error, ErrorKind, Result};

use super::files::{LOCK, read_text};
use crate::replica::fs_error;
use crate::tree::ours;

/// Takes the lock of the root at a path, for as long as the process uses it, and says in it who has it.
pub(super) fn take(base: &Dir, path: &Path, command: &str) -> Result<LockFile> {
    let lock = patiently(base, 50).map_err(|e| fs_error("lock the root", e))?;
    let lock = lock.ok_or_else(|| is_held(base, path))?;
    let text = format!("pid {}: {command}", std::process::id());
    lock.write_text(&text)
        .map_err(|e| fs_error("lock the root", e))?;
    Ok(lock)
}

/// Takes the lock of the root at a path for one short change; nobody is told.
pub(super) fn take_briefly(base: &Dir, path: &Path) -> Result<LockFile> {
    let lock = base
        .try_lock(ours(LOCK))
        .map_err(|e| fs_error("lock the root", e))?;
    lock.ok_or_else(|| is_held(base, path))
}

/// Who holds the lock, if anybody does. Opens an existing lock file only.
pub(super) fn holder(base: &Dir) -> Option<String> {
    base.stat(ours(LOCK)).ok().flatten()?;
    match patiently(base, 3) {
        Ok(Some(_free)) => None,
        Ok(None) => Some(
            read_text(base, LOCK)
                .filter(|t| !t.is_empty())
                .unwrap_or_else(|| "another process".into()),
        ),
        Err(_) => None,
    }
}

/// Takes the lock. Whoever only asks who holds it has it for a moment, so one refusal proves nothing.
fn patiently(base: &Dir, tries: u32) -> instep_fs::Result<Option<LockFile>> {
    for _ in 1..tries {
        if let Some(lock) = base.try_lock(ours(LOCK))? {
            return Ok(Some(lock));
        }
        place::pause(Duration::from_millis(10));
    }
    base.try_lock(ours(LOCK))
}

fn is_held(base: &Dir, path: &Path) -> Error {
    let holder = read_text(base, LOCK).unwrap_or_default();
    let attempt = format!("{} is held by {}", path.display(), holder.trim());
    Error::new(ErrorKind::InUse, attempt)
}
