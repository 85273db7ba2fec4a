//! The part of a row that is told to others.
//!
//! Owns which part that is. Invariant: two replicas that are in step tell the same bytes of every path, so inode
//! numbers, change times and epochs, which mean nothing elsewhere, are left out, and bits that a file system may not
//! keep.

use instep_core::codec::DecodeError;
use instep_core::limits;
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
    if row == told(&row) && !is_forged(&row) {
        Ok(row)
    } else {
        Err(DecodeError::Invalid)
    }
}

/// Whether a change is named that nobody can have come to. The context covers what the siblings name.
fn is_forged(row: &Row) -> bool {
    let named = row.entry.ctx().iter().chain(row.shown);
    named
        .into_iter()
        .any(|dot| dot.counter > limits::COUNTER_MAX)
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use instep_core::entry::Entry;
    use instep_core::id::{ActorId, Dot};
    use instep_core::version::{Kind, Version};

    use super::*;

    fn dot(counter: u64) -> Dot {
        let actor = ActorId([7; 8]);
        Dot { actor, counter }
    }

    fn row(counter: u64) -> Row {
        let version = Version::bare(Kind::Dir);
        Row {
            entry: Entry::first(dot(counter), version),
            shown: Some(dot(counter)),
            ..Row::default()
        }
    }

    #[test]
    fn a_counter_that_nobody_can_have_come_to_is_taken_in() {
        let most = row(limits::COUNTER_MAX);
        assert_eq!(decode(&encode(&most).unwrap()), Ok(most));
        for counter in [limits::COUNTER_MAX + 1, u64::MAX] {
            let forged = encode(&row(counter)).unwrap();
            assert_eq!(decode(&forged), Err(DecodeError::Invalid));
            let shown = Some(dot(counter));
            let forged = encode(&Row { shown, ..row(1) }).unwrap();
            assert_eq!(decode(&forged), Err(DecodeError::Invalid));
        }
    }
}
