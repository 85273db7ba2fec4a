//! Doubt after a power cut: a file may be there whose data and row are both lost.
//!
//! Owns the note that there was a power cut, from recovery until everything has been looked at. Invariant:
//! what is minted in doubt gives way to what others have, and never destroys it. Nothing on disk is touched.

use instep_core::conflict::is_copy_of_other;
use instep_core::entry::Entry;
use instep_core::id::{ContentId, Dot};
use instep_core::path::RelPath;
use instep_core::policy::Role;
use instep_core::row::Row;
use instep_core::time::Mtime;
use instep_core::version::{Kind, Version};
use instep_replica::Result;
use instep_replica::look::Found;
use instep_store::{Durability, Table};

use super::remedy::unseen;
use crate::index::{Index, store_error};
use crate::replica::LocalReplica;

/// Set from a power cut until a look at everything is on record: the time of the start after it, and the last epoch that
/// was durable then.
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

/// Whether data may be lost that is still seen until the machine starts again.
pub fn is_unsure(index: &mut Index) -> Result<bool> {
    Ok(index.meta(UNSURE)?.is_some())
}

/// The last epoch that surely is durable.
pub(super) fn sure_epoch(index: &mut Index) -> Result<u32> {
    let unsure = index.meta(UNSURE)?.and_then(|b| b.try_into().ok());
    let unsure = unsure.map_or(u32::MAX, u32::from_be_bytes);
    Ok(index.durable_epoch().min(unsure))
}

/// Everything since the last sure epoch was held against the disk.
pub(super) fn is_sure(index: &mut Index) -> Result<()> {
    forget(index, UNSURE)
}

/// There was a power cut, or nobody knows whether there was one; the power came back at `now_ns`.
pub(super) fn begin(index: &mut Index, now_ns: i64) -> Result<()> {
    let mut noted = now_ns.to_be_bytes().to_vec();
    noted.extend(index.durable_epoch().to_be_bytes());
    index.put_meta(DOUBT, &noted)
}

/// The index that would know is gone: there may have been a power cut, and the disk may have lost what the cache
/// goes on showing until the next one, and says so only once.
pub fn begin_blind(index: &mut Index, now_ns: i64) -> Result<()> {
    begin(index, now_ns)?;
    unsure(index)
}

/// A look at everything is recorded, and nothing was left out: what is found from now on came later.
pub fn looked(index: &mut Index) -> Result<()> {
    forget(index, DOUBT)
}

fn forget(index: &mut Index, key: &[u8]) -> Result<()> {
    index
        .store()
        .remove_record(Table::Meta, key)
        .map_err(|e| store_error("write the index", e))
}

/// Files may be there whose data a power cut took.
#[derive(Debug, Clone, Copy)]
pub struct Doubt {
    /// When the power came back: what was written later is not in doubt.
    since: Mtime,
    /// What rows of later epochs tell of was held against the disk when the power was back, or has come since. Whatever
    /// became of it is no power cut's doing.
    epoch: u32,
}

impl Doubt {
    /// The doubt that there is, if there is any.
    pub fn of(index: &mut Index) -> Result<Option<Self>> {
        let noted = index.meta(DOUBT)?;
        Ok(noted.map(|bytes| {
            let since = bytes.first_chunk().map_or(0, |b| i64::from_be_bytes(*b));
            let epoch = bytes.last_chunk().filter(|_| bytes.len() == 12);
            Self {
                since: Mtime::from_nanos(since),
                epoch: epoch.map_or(u32::MAX, |b| u32::from_be_bytes(*b)),
            }
        }))
    }

    /// The row that a finding is held against. Where a file is empty or all zeros that held more before the power cut,
    /// what is there stands beside what was known, except at a mirror's source, which alone decides.
    pub fn basis(self, replica: &LocalReplica, row: &Row, found: &Found) -> Row {
        let Found::Present {
            kind: Kind::File,
            content,
            size,
            mtime,
            ..
        } = found
        else {
            return row.clone();
        };
        let held = row.present().filter(|v| v.kind == Kind::File);
        let held = held.filter(|_| row.epoch <= self.epoch);
        let emptied = held.is_some_and(|v| v.size > *size || v.content != zeros(v.size));
        let is_lost = emptied && *content == zeros(*size) && *mtime <= self.since;
        if is_lost && replica.settings.role != Role::Source {
            unseen(row)
        } else {
            row.clone()
        }
    }

    /// A file that nobody knew of may be what is left of one that was being written: if it is empty or all zeros, or
    /// the copy of a loser and not what its name says. A copy has a name before anything of it is sure to last, so
    /// that its row and its intent may be gone. What is minted for it gives way to anything that others have at the
    /// path.
    pub fn age(self, path: &RelPath, basis: &Row, found: &Found, new: &mut Row) {
        let Found::Present {
            kind: Kind::File,
            content,
            size,
            mtime,
            ..
        } = found
        else {
            return;
        };
        let torn_copy = || *mtime <= self.since && is_copy_of_other(path, *content);
        let minted = new.shown.filter(|d| basis.entry.get(*d).is_none());
        let unknown = minted.filter(|_| basis.present().is_none());
        let Some(minted) = unknown.filter(|_| *content == zeros(*size) || torn_copy()) else {
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
