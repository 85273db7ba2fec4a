//! The small files of ours: what they are called, and how they are read and replaced.
//!
//! Owns the names of the files in our directory and the one way to write them. Invariant: such a file has
//! its old text or its new text, also after a power cut. What they say is decided by whoever has them:
//! `marker`, `lock`, `evidence`. Nothing here makes or removes a directory.

use instep_core::path::{Name, RESERVED};
use instep_fs::small_file::{self, Replacing};
use instep_fs::{Dir, Result};
use instep_replica::Step;
use instep_replica::env::Env;

use crate::tree::ours;

/// The marker's name in our directory.
pub(super) const MARKER: &str = "marker.json";
/// The lock's name in our directory.
pub(super) const LOCK: &str = "lock";
/// The name of the first share's index.
pub(super) const INDEX: &str = "index.db";

/// Bytes read of one small file of ours.
const OWN_FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What our directory in a root is called.
pub(super) fn reserved() -> Name<'static> {
    Name::new(RESERVED).expect("our own name is legal")
}

/// Reads a small file of ours.
pub(super) fn read_text(dir: &Dir, file: &str) -> Option<String> {
    let bytes = small_file::read(dir, ours(file), OWN_FILE_BYTES_MAX).ok()?;
    String::from_utf8(bytes).ok()
}

/// Replaces a small file of ours, durably.
pub(super) fn write_text(env: &dyn Env, dir: &Dir, file: &str, text: &str) -> Result<()> {
    let draft = format!("{file}.new");
    let reached = |how| {
        env.reach(match how {
            Replacing::Drafted => Step::FileDrafted,
            Replacing::Named => Step::FileReplaced,
        });
    };
    small_file::replace(dir, ours(file), ours(&draft), text.as_bytes(), reached)
}
