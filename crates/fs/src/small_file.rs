//! Small files of ours, which are read and replaced as a whole.
//!
//! Invariant: whatever happens in between, the name stands for what was written last or for what was there before, also
//! after a power cut. What they are called and what they say is the business of whoever has them.

use instep_core::path::Name;

use crate::{Dir, ErrorKind, Result};

/// How far a replacement has come, for whoever tries what a death leaves there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replacing {
    /// The new text is durable, under the name of its draft.
    Drafted,
    /// It has the name; that it has it is not durable yet.
    Named,
}

/// The first `most` bytes of a file.
pub fn read(dir: &Dir, name: Name<'_>, most: u64) -> Result<Vec<u8>> {
    let file = dir.open_file(name)?;
    let size = file.stat()?.size.min(most);
    let mut bytes = vec![0; size as usize];
    let mut at = 0;
    while at < bytes.len() {
        match file.read_at(at as u64, &mut bytes[at..])? {
            0 => break,
            n => at += n,
        }
    }
    bytes.truncate(at);
    Ok(bytes)
}

/// Puts bytes in the place of what was there, durably, by way of a draft of another name. One process at a time.
pub fn replace(
    dir: &Dir,
    name: Name<'_>,
    draft: Name<'_>,
    bytes: &[u8],
    reached: impl Fn(Replacing),
) -> Result<()> {
    // What a death left half written is in nobody's way.
    match dir.remove_file(draft) {
        Err(e) if e.kind() != ErrorKind::Absent => return Err(e),
        Ok(()) | Err(_) => {}
    }
    let new = dir.create_file(draft, 0o600)?;
    new.write_all_at(0, bytes)?;
    new.sync_data()?;
    reached(Replacing::Drafted);
    dir.rename_over(draft, dir, name)?;
    reached(Replacing::Named);
    dir.sync()
}
