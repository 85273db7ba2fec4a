//! What can go wrong with durable metadata, sorted by what the caller can do about it.
//!
//! Nothing here hides damage: whatever cannot be read back exactly is [`StoreError::Corrupt`].

use std::io;

use instep_core::path::RelPath;

/// Shorthand of this crate.
pub type Result<T> = core::result::Result<T, StoreError>;

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Stored bytes are damaged, or nobody writes them so.
    #[error("the index is damaged: {what}")]
    Corrupt {
        /// Which part, and how it shows.
        what: String,
    },
    /// A newer program wrote the index.
    #[error("the index has format {found}, this program knows formats up to {known}")]
    NewerFormat {
        /// The format on disk.
        found: u32,
        /// The newest format this program reads.
        known: u32,
    },
    /// The file is a database, but not an index.
    #[error("the file is not an index: application id {found:#x}")]
    NotAnIndex {
        /// What the file says it is.
        found: u32,
    },
    /// There is no index where one must be.
    #[error("there is no index")]
    Missing,
    /// Another process or handle is writing.
    #[error("{attempt}: another process is writing the index")]
    Busy {
        /// What was attempted.
        attempt: &'static str,
    },
    /// The disk or the quota is full.
    #[error("{attempt}: no space left for the index")]
    NoSpace {
        /// What was attempted.
        attempt: &'static str,
    },
    /// The index, its directory or its file system cannot be written.
    #[error("{attempt}: the index cannot be written")]
    ReadOnly {
        /// What was attempted.
        attempt: &'static str,
    },
    /// An earlier write of the open transaction failed.
    #[error("{attempt}: an earlier change failed, so the changes must be rolled back first")]
    RollbackNeeded {
        /// What was attempted.
        attempt: &'static str,
    },
    /// An earlier flush failed; the kernel may have dropped what it could not write.
    #[error("{attempt}: an earlier flush of the index failed, so it must be opened again")]
    FlushFailed {
        /// What was attempted.
        attempt: &'static str,
    },
    /// A row with more siblings or actors than can be read back. Nothing was changed.
    #[error("{path} has too many concurrent versions for the index")]
    TooBig {
        /// Which path.
        path: RelPath,
    },
    /// The simulated machine under this handle died.
    #[error("{attempt}: the handle belongs to a dead process")]
    Dead {
        /// What was attempted.
        attempt: &'static str,
    },
    /// A failure that a test asked for.
    #[error("{attempt}: failed as arranged")]
    Arranged {
        /// What was attempted.
        attempt: &'static str,
    },
    /// The compiled-in `SQLite` has a known defect that loses data.
    #[error("sqlite {found} is too old, {needed} is needed")]
    OldSqlite {
        /// What is linked.
        found: &'static str,
        /// The oldest that is accepted.
        needed: &'static str,
    },
    /// The file system refused.
    #[error("{attempt}")]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The database refused for a reason that has no name here.
    #[error("{attempt}")]
    Sqlite {
        /// What was attempted.
        attempt: &'static str,
        /// Why it failed.
        source: rusqlite::Error,
    },
}

/// What a caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Move the index aside and rejoin.
    Corrupt,
    /// Install a newer program.
    Newer,
    /// Create one, or find out where it went.
    Missing,
    /// Try again later.
    Busy,
    /// Free some space, then roll back and try again.
    NoSpace,
    /// Pause this replica.
    ReadOnly,
    /// Roll back.
    Rollback,
    /// Drop the handle and open again.
    Reopen,
    /// Tell a person.
    Other,
}

impl StoreError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Corrupt { .. } | Self::NotAnIndex { .. } => ErrorKind::Corrupt,
            Self::NewerFormat { .. } => ErrorKind::Newer,
            Self::Missing => ErrorKind::Missing,
            Self::Busy { .. } => ErrorKind::Busy,
            Self::NoSpace { .. } => ErrorKind::NoSpace,
            Self::ReadOnly { .. } => ErrorKind::ReadOnly,
            Self::RollbackNeeded { .. } => ErrorKind::Rollback,
            Self::FlushFailed { .. } | Self::Dead { .. } => ErrorKind::Reopen,
            Self::TooBig { .. }
            | Self::Arranged { .. }
            | Self::OldSqlite { .. }
            | Self::Io { .. }
            | Self::Sqlite { .. } => ErrorKind::Other,
        }
    }

    pub(crate) fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt { what: what.into() }
    }

    /// Sorts a database error.
    pub(crate) fn of_sqlite(attempt: &'static str, source: rusqlite::Error) -> Self {
        use rusqlite::ffi;
        match &source {
            rusqlite::Error::SqliteFailure(e, text) => match e.code {
                _ if e.extended_code == ffi::SQLITE_IOERR_SHORT_READ => {
                    Self::corrupt(format!("{attempt}: the file ends too early"))
                }
                rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase => {
                    let text = text.as_deref().unwrap_or("malformed");
                    Self::corrupt(format!("{attempt}: {text}"))
                }
                // A number in the file's head that no SQLite writes: an error like any other to SQLite.
                rusqlite::ErrorCode::Unknown
                    if text.as_deref() == Some("unsupported file format") =>
                {
                    Self::corrupt(format!("{attempt}: unsupported file format"))
                }
                rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked => {
                    Self::Busy { attempt }
                }
                rusqlite::ErrorCode::DiskFull => Self::NoSpace { attempt },
                rusqlite::ErrorCode::ReadOnly | rusqlite::ErrorCode::PermissionDenied => {
                    Self::ReadOnly { attempt }
                }
                _ => Self::Sqlite { attempt, source },
            },
            // Strict tables cannot hold another type, so only damage shows one.
            rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::FromSqlConversionFailure(..) => {
                Self::corrupt(format!("{attempt}: {source}"))
            }
            _ => Self::Sqlite { attempt, source },
        }
    }

    /// Sorts a file system error.
    pub(crate) fn of_io(attempt: &'static str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { attempt },
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                Self::ReadOnly { attempt }
            }
            _ => Self::Io { attempt, source },
        }
    }
}
