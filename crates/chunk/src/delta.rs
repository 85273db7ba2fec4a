//! What changed inside a stretch of a file, where one machine has the old bytes and the other the new ones.
//!
//! Owns the byte form of a delta. Whoever has the old bytes cuts them small ([`crate::cut::MICRO`]) and sends
//! [`fingerprints`]; whoever has the new ones answers with a [`delta`]: what of the old to repeat, and the bytes
//! that are new; the first applies it ([`patch`]). Invariant: fingerprints are hints. Two different pieces may have
//! the same one, so that the result counts only after its chunks were hashed and compared with their ids.
//! Work and memory are bounded by the sizes that the caller allows, whatever the other side sends.

use std::collections::BTreeMap;

use instep_core::codec::{DecodeError, Reader, put_bytes, put_u64};

use crate::cut::MICRO;

/// Bytes of old content that are offered at a time, at most.
pub const BASE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Fingerprints of that, at most.
pub const FINGERPRINTS_MAX: usize = BASE_BYTES_MAX / MICRO.min() + 1;

/// The first eight bytes of the BLAKE3 of a small piece.
pub type Fingerprint = [u8; 8];

/// Repeat pieces of the old bytes: the first's number and how many follow.
const SAME: u64 = 0;
/// New bytes follow, counted.
const NEW: u64 = 1;

/// What the old bytes are made of, in order.
pub fn fingerprints(old: &[u8]) -> Vec<Fingerprint> {
    pieces(old).map(fingerprint).collect()
}

/// How the new bytes are made of the old ones, of which the fingerprints are known.
///
/// ```
/// use instep_chunk::delta::{delta, fingerprints, patch};
///
/// let old: Vec<u8> = (0..20_000u32).flat_map(|n| (n * n).to_le_bytes()).collect();
/// let mut new = old.clone();
/// new.insert(30_000, 7);
/// let told = delta(&new, &fingerprints(&old));
/// assert!(told.len() < 9_000);
/// assert_eq!(patch(&old, &told, new.len()), Ok(new));
/// ```
pub fn delta(new: &[u8], old: &[Fingerprint]) -> Vec<u8> {
    let mut first: BTreeMap<Fingerprint, usize> = BTreeMap::new();
    for (i, print) in old.iter().enumerate() {
        first.entry(*print).or_insert(i);
    }
    let mut out = Out::default();
    for piece in pieces(new) {
        let print = fingerprint(piece);
        let next = out.same.map(|(from, count)| from + count);
        if next.is_some_and(|next| old.get(next) == Some(&print)) {
            out.go_on();
        } else if let Some(from) = first.get(&print) {
            out.end();
            out.same = Some((*from, 1));
        } else {
            out.end_same();
            out.new.extend_from_slice(piece);
        }
    }
    out.end();
    out.bytes
}

/// The new bytes, exactly `size` of them, which the caller has bounded.
pub fn patch(old: &[u8], delta: &[u8], size: usize) -> Result<Vec<u8>, DecodeError> {
    let pieces: Vec<&[u8]> = pieces(old).collect();
    let mut r = Reader::new(delta);
    let mut new = Vec::with_capacity(size);
    let mut add = |bytes: &[u8]| {
        if size - new.len() < bytes.len() {
            return Err(DecodeError::TooBig);
        }
        new.extend_from_slice(bytes);
        Ok(())
    };
    while !r.is_empty() {
        match r.u64()? {
            SAME => {
                let from = r.count(pieces.len())?;
                let count = r.count(pieces.len() - from)?;
                for piece in &pieces[from..from + count] {
                    add(piece)?;
                }
            }
            NEW => add(r.bytes(size)?)?,
            _ => return Err(DecodeError::Invalid),
        }
    }
    if new.len() == size {
        Ok(new)
    } else {
        Err(DecodeError::Short)
    }
}

/// A delta that is being written: what is not yet in its bytes.
#[derive(Default)]
struct Out {
    bytes: Vec<u8>,
    same: Option<(usize, usize)>,
    new: Vec<u8>,
}

impl Out {
    fn go_on(&mut self) {
        if let Some((_, count)) = &mut self.same {
            *count += 1;
        }
    }

    fn end(&mut self) {
        self.end_same();
        if !self.new.is_empty() {
            put_u64(&mut self.bytes, NEW);
            put_bytes(&mut self.bytes, &self.new);
            self.new.clear();
        }
    }

    fn end_same(&mut self) {
        if let Some((from, count)) = self.same.take() {
            put_u64(&mut self.bytes, SAME);
            put_u64(&mut self.bytes, from as u64);
            put_u64(&mut self.bytes, count as u64);
        }
    }
}

fn pieces(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    MICRO.lengths(bytes).map(move |length| {
        let (piece, others) = rest.split_at(length);
        rest = others;
        piece
    })
}

fn fingerprint(piece: &[u8]) -> Fingerprint {
    let mut out = [0; 8];
    out.copy_from_slice(&blake3::hash(piece).as_bytes()[..8]);
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;
    use crate::cut::tests::noise;

    fn told(old: &[u8], new: &[u8]) -> usize {
        let delta = delta(new, &fingerprints(old));
        assert_eq!(patch(old, &delta, new.len()).unwrap(), new);
        delta.len()
    }

    #[test]
    fn a_byte_in_a_chunk_costs_the_chunk() {
        let old = noise(100_000, 5);
        for at in [0, 1, 20_000, 50_000, 99_999] {
            let mut overwritten = old.clone();
            overwritten[at] ^= 1;
            let mut inserted = old.clone();
            inserted.insert(at, 9);
            let mut removed = old.clone();
            removed.remove(at);
            for new in [overwritten, inserted, removed] {
                let bytes = told(&old, &new);
                assert!(bytes <= 3 * MICRO.max(), "{bytes} bytes for one at {at}");
            }
        }
        assert!(told(&old, &old) <= 4, "nothing changed");
        assert!(told(&old, &[old.clone(), noise(10, 6)].concat()) <= MICRO.max() + 16);
    }

    #[test]
    fn what_is_empty_or_repeats_itself_comes_out_otherwise() {
        let old = noise(30_000, 7);
        let twice = old.repeat(2);
        assert!(told(&old, &twice) < 2 * MICRO.max());
        told(&twice, &old);
        told(&[], &old);
        told(&old, &[]);
        told(&[], &[]);
        told(&vec![0; 50_000], &vec![0; 70_000]);
    }

    #[test]
    fn a_delta_that_lies_makes_more_than_was_allowed() {
        let old = noise(30_000, 8);
        let delta = |parts: &[u64]| {
            let mut out = Vec::new();
            parts.iter().for_each(|n| put_u64(&mut out, *n));
            out
        };
        let n = pieces(&old).count() as u64;
        let refused = |bytes: &[u8], why| assert_eq!(patch(&old, bytes, 30_000), Err(why));
        refused(&delta(&[SAME, n + 1, 1]), DecodeError::TooBig);
        refused(&delta(&[SAME, 0, n + 1]), DecodeError::TooBig);
        refused(&delta(&[SAME, 0, n, SAME, 0, n]), DecodeError::TooBig);
        refused(&delta(&[SAME, 0, n - 1]), DecodeError::Short);
        refused(&delta(&[NEW, 40_000]), DecodeError::TooBig);
        refused(&delta(&[NEW, 5, 1]), DecodeError::Short);
        refused(&delta(&[2]), DecodeError::Invalid);
        assert_eq!(patch(&[], &delta(&[SAME, 0, 0]), 0), Ok(Vec::new()));
    }
}
