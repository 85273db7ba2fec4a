//! The bytes of one simulated file: sparse, and cheap to clone.
//!
//! Owns blocks of 4 KiB, shared between clones, so that a reflink and a crash image copy no bytes.
//! Invariant: no block lies at or beyond the length, and a block holds no byte beyond it; whatever is not
//! in a block reads as zero. Knows nothing of durability.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of a block: the grain of holes and of allocated space.
pub(super) const BLOCK: u64 = 4096;

/// A file's bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    len: u64,
    blocks: BTreeMap<u64, Arc<Vec<u8>>>,
}

impl Content {
    /// The size of the file.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes allocated: whole blocks, holes not counted.
    pub(super) fn allocated(&self) -> u64 {
        self.blocks.len() as u64 * BLOCK
    }

    /// Bytes that a write of `len` bytes at `offset` would newly allocate.
    pub(super) fn growth(&self, offset: u64, len: u64) -> u64 {
        if len == 0 {
            return 0;
        }
        let (first, last) = (offset / BLOCK, (offset + len - 1) / BLOCK);
        (last - first + 1 - self.blocks.range(first..=last).count() as u64) * BLOCK
    }

    /// Fills `buf` from `offset`; the number of bytes before the end of the file.
    pub(super) fn read_at(&self, offset: u64, buf: &mut [u8]) -> usize {
        let count = self.len.saturating_sub(offset).min(buf.len() as u64) as usize;
        let buf = &mut buf[..count];
        buf.fill(0);
        if count == 0 {
            return 0;
        }
        let end = offset + count as u64;
        for (index, block) in self.blocks.range(offset / BLOCK..=(end - 1) / BLOCK) {
            let at = index * BLOCK;
            let (from, to) = (offset.max(at), end.min(at + block.len() as u64));
            if from < to {
                buf[(from - offset) as usize..(to - offset) as usize]
                    .copy_from_slice(&block[(from - at) as usize..(to - at) as usize]);
            }
        }
        count
    }

    /// Writes `data` at `offset`, extending the file where needed.
    pub(super) fn write_at(&mut self, offset: u64, data: &[u8]) {
        let mut at = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let within = (at % BLOCK) as usize;
            let count = rest.len().min(BLOCK as usize - within);
            let block = Arc::make_mut(self.blocks.entry(at / BLOCK).or_default());
            if block.len() < within + count {
                block.resize(within + count, 0);
            }
            block[within..within + count].copy_from_slice(&rest[..count]);
            at += count as u64;
            rest = &rest[count..];
        }
        self.len = self.len.max(at);
    }

    /// Cuts the file, or extends it with a hole.
    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            drop(self.blocks.split_off(&len.div_ceil(BLOCK)));
            if let Some(last) = self.blocks.get_mut(&(len / BLOCK)) {
                Arc::make_mut(last).truncate((len % BLOCK) as usize);
            }
        }
        self.len = len;
    }

    /// The next range with allocated blocks at or after `offset`; `None` when only a hole follows.
    pub(super) fn next_data(&self, offset: u64) -> Option<(u64, u64)> {
        let mut blocks = self.blocks.range(offset / BLOCK..).map(|(index, _)| *index);
        let first = blocks.next()?;
        let mut end = first + 1;
        for index in blocks {
            if index != end {
                break;
            }
            end += 1;
        }
        let start = offset.max(first * BLOCK);
        (start < self.len).then(|| (start, (end * BLOCK).min(self.len)))
    }

    /// All bytes, holes as zeros.
    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut out = vec![0; self.len as usize];
        self.read_at(0, &mut out);
        out
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn bytes_cut_off_do_not_come_back() {
        let mut c = Content::default();
        c.write_at(0, &[7; 5000]);
        c.set_len(4100);
        c.set_len(9000);
        let v = c.to_vec();
        assert_eq!(v.len(), 9000);
        assert!(v[..4100].iter().all(|b| *b == 7));
        assert!(v[4100..].iter().all(|b| *b == 0));
        c.set_len(4096);
        assert_eq!(c.allocated(), BLOCK);
    }

    #[test]
    fn holes_are_found_and_cost_no_space() {
        let mut c = Content::default();
        c.set_len(1 << 40);
        assert_eq!((c.allocated(), c.next_data(0)), (0, None));
        c.write_at(3 * BLOCK + 10, b"xyz");
        assert_eq!(c.next_data(0), Some((3 * BLOCK, 4 * BLOCK)));
        assert_eq!(c.next_data(3 * BLOCK + 5), Some((3 * BLOCK + 5, 4 * BLOCK)));
        assert_eq!(c.next_data(4 * BLOCK), None);
        assert_eq!(c.growth(2 * BLOCK, 3 * BLOCK), 2 * BLOCK);
        let mut buf = [1; 6];
        assert_eq!(c.read_at(3 * BLOCK + 8, &mut buf), 6);
        assert_eq!(&buf, b"\0\0xyz\0");
    }

    #[test]
    fn a_clone_does_not_see_later_writes() {
        let mut a = Content::default();
        a.write_at(0, b"old");
        let b = a.clone();
        a.write_at(0, b"new");
        assert_eq!((a.to_vec(), b.to_vec()), (b"new".to_vec(), b"old".to_vec()));
    }
}
