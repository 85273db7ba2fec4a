//! Doubt after a power cut: a file may be there whose data and row are both lost.
//!
//! Owns the note that there was a power cut, from recovery until everything has been looked at. Invariant:
//! what is minted in doubt gives way to what others have, and never destroys it. Nothing on disk is touched.

use instep_core::entry::Entry;
use instep_core::id::{ContentId, Dot};
use instep_core::row::Row;
use instep_core::version::{Kind, Version};
use instep_replica::Result;
use instep_replica::look::Found;
use instep_store::{Durability, Table};

use crate::index::{Index, store_error};

/// Set from a power cut until the next clean end.
const DOUBT: &[u8] = b"doubt";

/// The last epoch before data was lost in a call that should have made it durable. Later calls that succeed
/// say nothing of that data, so everything since is suspect after a power cut.
const UNSURE: &[u8] = b"unsure";

/// Notes that what was written since the last durable epoch may not reach the disk.
pub fn unsure(index: &mut Index) -> Result<()> {
    if index.meta(UNSURE)?.is_none() {
        let epoch = index.durable_epoch();
        index.put_meta(UNSURE, &epoch.to_be_bytes())?;
    }
    index.commit(Durability::Power)
}

/// The last epoch that surely is durable.
pub(super) fn sure_epoch(index: &mut Index) -> Result<u32> {
    let unsure = index.meta(UNSURE)?.and_then(|b| b.try_into().ok());
    let unsure = unsure.map_or(u32::MAX, u32::from_be_bytes);
    Ok(index.durable_epoch().min(unsure))
}

/// Everything since the last sure epoch was held against the disk.
pub(super) fn is_sure(index: &mut Index) -> Result<()> {
    index
        .store()
        .remove_record(Table::Meta, UNSURE)
        .map_err(|e| store_error("write the index", e))
}

/// A power cut was noticed.
pub(super) fn begin(index: &mut Index) -> Result<()> {
    index.put_meta(DOUBT, b"1")
}

/// Whether files may be there whose data and row a power cut took.
pub fn is_doubtful(index: &mut Index) -> Result<bool> {
    Ok(index.meta(DOUBT)?.is_some())
}

/// Everything that is there has been looked at.
pub fn trusted(index: &mut Index) -> Result<()> {
    index
        .store()
        .remove_record(Table::Meta, DOUBT)
        .map_err(|e| store_error("write the index", e))
}

/// A file that nobody knew of and that is empty or all zeros may be what is left of one that we were
/// bringing. What is minted for it gives way to anything that others have at the path.
pub fn doubt(row: &Row, found: &Found, new: &mut Row) {
    let Found::Present {
        kind: Kind::File,
        content,
        size,
        ..
    } = found
    else {
        return;
    };
    let minted = new.shown.filter(|d| row.entry.get(*d).is_none());
    let Some(minted) = minted.filter(|_| row.present().is_none() && *content == zeros(*size))
    else {
        return;
    };
    let aged = |(dot, version): &(Dot, Version)| {
        let mut version = version.clone();
        if *dot == minted {
            (version.te, version.mode_te) = (0, 0);
        }
        (*dot, version)
    };
    let siblings = new.entry.siblings().iter().map(aged).collect();
    if let Some(entry) = Entry::from_parts(new.entry.ctx().clone(), siblings) {
        new.entry = entry;
    }
}

/// The content of a file whose data never reached the disk.
pub(super) fn zeros(size: u64) -> ContentId {
    const ZEROS: &[u8] = &[0; 64 * 1024];
    let mut hasher = instep_chunk::hash::Hasher::new();
    let mut left = size;
    while left > 0 {
        let n = left.min(ZEROS.len() as u64);
        hasher.update(&ZEROS[..n as usize]);
        left -= n;
    }
    hasher.finish()
}
