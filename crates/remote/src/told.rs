//! The part of a row that is told to others.
//!
//! Owns which part that is. Invariant: two replicas that are in step tell the same bytes of every path, so inode
//! numbers, change times and epochs, which mean nothing elsewhere, are left out, and bits that a file system may not
//! keep.

use instep_core::codec::DecodeError;
use instep_core::path::RelPath;
use instep_core::row::{Print, Row};
use instep_store::row_codec;

/// Something is there; what it looks like is nobody else's business.
const THERE: Print = Print {
    ino: 0,
    hash: 0,
    mode: 0,
};

/// What others learn of a row.
pub fn told(row: &Row) -> Row {
    Row {
        entry: row.entry.clone(),
        shown: row.shown,
        print: row.print.map(|_| THERE),
        seen: None,
        held: row.held,
        epoch: 0,
    }
}

/// Its bytes. A row that cannot be read back is not told: `None`.
pub fn encode(row: &Row) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(128);
    let row = told(row);
    row_codec::fits(&row).then(|| row_codec::put_row(&mut out, &row))?;
    Some(out)
}

/// A row as somebody told it. What nobody would tell of others is refused.
pub fn decode(bytes: &[u8]) -> Result<Row, DecodeError> {
    let row = row_codec::row(bytes)?;
    if row == told(&row) {
        Ok(row)
    } else {
        Err(DecodeError::Invalid)
    }
}

/// A digest of what is told of a path.
pub fn digest(path: &RelPath, bytes: &[u8]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(path.as_bytes().len() as u64).to_le_bytes());
    hasher.update(path.as_bytes());
    hasher.update(bytes);
    let mut out = [0; 16];
    out.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    u128::from_le_bytes(out)
}
