//! Files that are being made: what they look like until they are complete.
//!
//! A file of ours gets its bytes, then its attributes and its time, then its permissions, then its name. Where a power
//! cut may keep the name and not what was said of the file before, a draft has permissions that hardly any user's file
//! has, so that what is left of one is known. Owns these permissions. Invariant: only the owner can open a draft.

use instep_core::row::{Print, Row};
use instep_core::version::{Kind, Version};
use instep_fs::{File, Profile};

/// The permission bits of a draft: a file of any other mode is complete.
const MODE: u16 = 0o700;

/// Drafts are known by their mode here.
pub(crate) fn is_marked(profile: &Profile) -> bool {
    profile.modes && !profile.keeps_order()
}

/// The permission bits to make a draft with, whose own will be `mode`.
pub(crate) fn mode(profile: &Profile, mode: u16) -> u32 {
    u32::from(if is_marked(profile) { MODE } else { mode })
}

/// Gives a draft that has everything else its own permission bits.
pub(crate) fn complete(profile: &Profile, file: &File, own: u16) -> instep_fs::Result<()> {
    if is_marked(profile) {
        file.set_mode(u32::from(own))?;
    }
    Ok(())
}

/// Whether a file of this look, no longer than the version, is what a power cut left of a draft of it, in the place of
/// what `row` tells of.
pub(crate) fn is_left(version: &Version, row: Option<&Row>, seen: Print) -> bool {
    let was_there = row.and_then(|r| r.print).is_some_and(|p| p.mode == MODE);
    seen.mode == MODE && version.kind == Kind::File && version.mode != MODE && !was_there
}
