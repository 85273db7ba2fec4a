//! The guard of an open root: it is where it was, is what it was, and has its marker.
//!
//! Owns the answer to one question, asked before anything is believed to be absent. Invariant: everything is
//! found anew through the path, as a user would; what is open already proves nothing. Nothing is written.

use std::path::PathBuf;

use instep_fs::place;

use super::files::{MARKER, read_text, reserved};
use crate::replica::RootGuard;

/// What a root was when it was opened.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) path: PathBuf,
    pub(super) ino: u64,
    pub(super) dev: u64,
    pub(super) replica: String,
    /// Our directory is in the root.
    pub(super) inside: bool,
}

impl RootGuard for Guard {
    fn check(&self) -> core::result::Result<(), String> {
        let at = self.path.display();
        let root =
            place::open_root(&self.path).map_err(|e| format!("the root {at} is not there: {e}"))?;
        let stat = root
            .stat_self()
            .map_err(|e| format!("the root {at} cannot be examined: {e}"))?;
        if (stat.ino, stat.dev) != (self.ino, self.dev) {
            return Err(format!("another directory or file system is at {at}"));
        }
        if self.inside {
            let dir = root
                .open_dir(reserved())
                .map_err(|_| format!("{at} has lost its marker"))?;
            let marker = read_text(&dir, MARKER).unwrap_or_default();
            if !marker.contains(&self.replica) {
                return Err(format!("{at} has lost its marker"));
            }
        }
        Ok(())
    }
}
