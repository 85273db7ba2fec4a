//! The durable metadata of one replica: what it knows about each path, and its journals.
//!
//! One contract, [`IndexStore`], and two implementations: [`SqliteStore`] keeps everything in one `SQLite`
//! database inside the replica's own directory, [`MemoryStore`] keeps it on a [`MemoryDisk`] that can be
//! killed, cut from power and rolled back at will.
//!
//! Invariants, the same for both:
//! 1. Everything between two commits becomes visible to a later opening together, or not at all.
//! 2. What was committed with [`Durability::Power`], and everything committed before it, is never lost.
//! 3. After a power cut the state is one that was committed: no commit without those before it.
//! 4. Damage is an error, [`StoreError::Corrupt`], never a missing row: unknown must not look like absent.
//!
//! This crate decides nothing: it neither merges entries nor knows what a record means.
#![forbid(unsafe_code)]

use std::ops::ControlFlow;

use instep_core::path::{Name, RelPath};
use instep_core::row::Row;

pub mod check;
pub mod error;
pub mod memory;
pub mod row_codec;
mod seal;
pub mod sqlite;

pub use check::{Problem, Report, check_rows};
pub use error::{ErrorKind, Result, StoreError};
pub use memory::{MemoryDisk, MemoryStore, Snapshot};
pub use sqlite::{OpenMode, SqliteStore, sqlite_versions};

/// A named set of records: small bodies under keys, both opaque to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Identity, counters, clock: what the replica knows about itself.
    Meta,
    /// What is about to be done on disk, so that a crash can be told from an edit.
    Intent,
    /// Open conflicts.
    Conflict,
    /// The version store: what is kept there and why.
    Stored,
    /// What the trash holds.
    Trash,
    /// Paths and bursts that are held, with the reason.
    Hold,
    /// What happened, oldest first.
    Log,
}

impl Table {
    /// Every table, in a fixed order.
    pub const ALL: [Self; 7] = [
        Self::Meta,
        Self::Intent,
        Self::Conflict,
        Self::Stored,
        Self::Trash,
        Self::Hold,
        Self::Log,
    ];
}

/// What a commit survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// The death of the process. Costs no disk flush.
    Process,
    /// Loss of power.
    Power,
}

/// A visitor of paths with their rows.
pub type RowVisitor<'v> = dyn FnMut(RelPath, Row) -> ControlFlow<()> + 'v;

/// A visitor of records: key, then body.
pub type RecordVisitor<'v> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'v;

/// The durable metadata of one replica.
///
/// Reads see the writes of this handle that are not yet committed. When a write fails, the open
/// transaction can no longer be committed: only [`rollback`](Self::rollback) makes the handle usable, so
/// that half of a group of changes never becomes visible.
pub trait IndexStore: Send {
    /// What is recorded about a path; `None` when nothing is.
    fn get(&mut self, path: &RelPath) -> Result<Option<Row>>;

    /// The direct children of a directory, in order of their names' bytes.
    fn children(&mut self, dir: &RelPath, visit: &mut dyn FnMut(Name<'_>, Row)) -> Result<()>;

    /// Everything below a directory, not the directory itself, in storage order: by the bytes of the
    /// containing directory's path, then by name. Stops when the visitor breaks.
    fn subtree(&mut self, dir: &RelPath, visit: &mut RowVisitor<'_>) -> Result<()>;

    /// Records a row, replacing the one before.
    fn put(&mut self, path: &RelPath, row: &Row) -> Result<()>;

    /// Forgets a row. Nothing happens when there is none.
    fn remove(&mut self, path: &RelPath) -> Result<()>;

    /// The digest recorded for a directory.
    fn digest(&mut self, dir: &RelPath) -> Result<Option<[u8; 16]>>;

    /// Records a directory's digest, or forgets it.
    fn put_digest(&mut self, dir: &RelPath, digest: Option<[u8; 16]>) -> Result<()>;

    /// Every digest, in order of the directories' bytes.
    fn digests(&mut self, visit: &mut dyn FnMut(RelPath, [u8; 16])) -> Result<()>;

    /// The body of one record.
    fn record(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// Writes a record, replacing the one before.
    fn put_record(&mut self, table: Table, key: &[u8], body: &[u8]) -> Result<()>;

    /// Forgets a record. Nothing happens when there is none.
    fn remove_record(&mut self, table: Table, key: &[u8]) -> Result<()>;

    /// Every record of a table in order of the keys' bytes, until the visitor breaks.
    fn records(&mut self, table: Table, visit: &mut RecordVisitor<'_>) -> Result<()>;

    /// As [`records`](Self::records), greatest key first: for the log, whose keys grow.
    fn records_rev(&mut self, table: Table, visit: &mut RecordVisitor<'_>) -> Result<()>;

    /// Makes everything since the last commit permanent, atomically.
    ///
    /// With nothing to write this does nothing, except that [`Durability::Power`] still flushes earlier
    /// commits that were only [`Durability::Process`].
    fn commit(&mut self, durability: Durability) -> Result<()>;

    /// Undoes everything since the last commit.
    fn rollback(&mut self) -> Result<()>;

    /// Whether something was written since the last commit.
    fn is_dirty(&self) -> bool;
}

/// Where a path's row is kept: the containing directory's bytes and the name. The root, which has no
/// name, is kept under two empty strings.
fn key_of(path: &RelPath) -> (&[u8], &[u8]) {
    path.split_bytes().unwrap_or((&[], &[]))
}

/// The first and the first-no-longer directory key strictly below `dir`: a slash is followed by `0` in
/// byte order. `None` for the root, below which every other key lies.
fn below(dir: &RelPath) -> Option<(Vec<u8>, Vec<u8>)> {
    if dir.is_root() {
        return None;
    }
    Some((
        [dir.as_bytes(), b"/"].concat(),
        [dir.as_bytes(), b"0"].concat(),
    ))
}
