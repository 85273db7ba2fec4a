//! Where content is cut: boundaries that the bytes themselves decide.
//!
//! Owns the two sets of sizes: [`CHUNKS`] for what is listed and stored, [`MICRO`] for what is compared inside a
//! chunk that changed. A boundary depends only on the 64 bytes before it and on how far the last one is, so that an
//! insertion moves the boundaries around it and no others. Invariant: the sizes and the table never change; other
//! ones would be another scheme with a number of its own, because two machines compare what they cut.
//!
//! Source: W. Xia et al., "The Design of Fast Content-Defined Chunking for Data Deduplication Based Storage
//! Systems", IEEE TPDS 31 (2020): a gear hash, no test before the smallest size, and normalised chunking (level 2):
//! a boundary is four times rarer than nominal before the nominal size and four times more frequent after it.

/// The scheme of [`CHUNKS`] and [`MICRO`], which goes with everything that was cut by it.
pub const SCHEME: u8 = 1;

/// Chunks: 16, 64 and 256 KiB.
pub const CHUNKS: Cutter = Cutter::new(16 * 1024, 64 * 1024, 256 * 1024);
/// What is compared inside a chunk: 0.5, 2 and 8 KiB.
pub const MICRO: Cutter = Cutter::new(512, 2 * 1024, 8 * 1024);

/// By how many bits the test is harder before the nominal size, and easier after it.
const NORMAL_BITS: u32 = 2;

/// Cuts bytes into chunks of certain sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cutter {
    min: usize,
    nominal: usize,
    max: usize,
    before: u64,
    after: u64,
}

impl Cutter {
    const fn new(min: usize, nominal: usize, max: usize) -> Self {
        let bits = nominal.ilog2();
        Self {
            min,
            nominal,
            max,
            before: top_bits(bits + NORMAL_BITS),
            after: top_bits(bits - NORMAL_BITS),
        }
    }

    /// Bytes of the shortest chunk, but for the last one of a file.
    pub const fn min(&self) -> usize {
        self.min
    }

    /// Bytes of the longest chunk.
    pub const fn max(&self) -> usize {
        self.max
    }

    /// Bytes of the first chunk of `bytes`, which either reach to the end of the file or are at least
    /// [`Cutter::max`]; zero only where there are none.
    ///
    /// ```
    /// use instep_chunk::cut::MICRO;
    ///
    /// let bytes = [7; 20_000];
    /// assert_eq!(MICRO.first(&bytes), 8192, "nothing to be cut at");
    /// assert_eq!(MICRO.first(&bytes[..300]), 300);
    /// ```
    pub fn first(&self, bytes: &[u8]) -> usize {
        let end = bytes.len().min(self.max);
        let nominal = end.min(self.nominal);
        let mut at = self.min.min(end);
        let mut hash = 0;
        for (mask, until) in [(self.before, nominal), (self.after, end)] {
            // No boundary test may need an index check: this loop is what cutting costs.
            for byte in &bytes[at.min(until)..until] {
                hash = u64::wrapping_shl(hash, 1).wrapping_add(GEAR[*byte as usize]);
                at += 1;
                if hash & mask == 0 {
                    return at;
                }
            }
        }
        end
    }

    /// The lengths of all chunks of a file that is in memory, in order.
    pub fn lengths<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = usize> + use<'a> {
        let cutter = *self;
        let mut rest = bytes;
        std::iter::from_fn(move || {
            let length = cutter.first(rest);
            rest = &rest[length..];
            (length > 0).then_some(length)
        })
    }
}

/// The highest bits, which depend on the most bytes.
const fn top_bits(count: u32) -> u64 {
    u64::MAX << (u64::BITS - count)
}

/// A random number for each byte: the numbers of SplitMix64 from zero on.
static GEAR: [u64; 256] = gear();

const fn gear() -> [u64; 256] {
    let mut table = [0; 256];
    let mut state = 0u64;
    let mut i = 0;
    while i < table.len() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        table[i] = z ^ (z >> 31);
        i += 1;
    }
    table
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
pub(crate) mod tests {
    use super::*;

    /// Bytes of a linear congruential generator: random enough to be cut, the same everywhere.
    pub(crate) fn noise(count: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        };
        (0..count).map(|_| next()).collect()
    }

    fn ends(cutter: &Cutter, bytes: &[u8]) -> Vec<usize> {
        let mut end = 0;
        let add = |length| {
            end += length;
            end
        };
        cutter.lengths(bytes).map(add).collect()
    }

    #[test]
    fn two_machines_of_different_versions_cut_the_same_file_elsewhere() {
        let bytes = noise(600_000, 1);
        let lengths: Vec<usize> = CHUNKS.lengths(&bytes).collect();
        let golden = [
            89029, 34063, 28020, 78136, 111_668, 75010, 79626, 79167, 25281,
        ];
        assert_eq!(lengths, golden);
        let lengths: Vec<usize> = MICRO.lengths(&bytes[..16_384]).collect();
        assert_eq!(lengths, [3002, 2145, 2680, 851, 2186, 3750, 652, 1118]);
    }

    #[test]
    fn a_chunk_is_shorter_or_longer_than_allowed() {
        let bytes = noise(8 << 20, 2);
        for cutter in [CHUNKS, MICRO] {
            let lengths: Vec<usize> = cutter.lengths(&bytes).collect();
            let (last, others) = lengths.split_last().unwrap();
            assert!(
                *last <= cutter.max && others.iter().all(|l| (cutter.min..=cutter.max).contains(l))
            );
            assert_eq!(lengths.iter().sum::<usize>(), bytes.len());
            let mean = bytes.len() / lengths.len();
            assert!(
                (cutter.nominal..cutter.nominal * 3 / 2).contains(&mean),
                "mean {mean}"
            );
        }
    }

    #[test]
    fn an_insertion_moves_boundaries_far_away() {
        let bytes = noise(4 << 20, 3);
        for cutter in [CHUNKS, MICRO] {
            let at = bytes.len() / 2;
            let mut longer = bytes.clone();
            longer.insert(at, 0);
            let (old, new) = (ends(&cutter, &bytes), ends(&cutter, &longer));
            let before = |e: &&usize| **e <= at;
            let same: Vec<_> = old.iter().filter(before).collect();
            assert_eq!(same, new.iter().filter(before).collect::<Vec<_>>());
            let after = |e: &&usize| **e > at + 5 * cutter.max;
            let moved: Vec<usize> = old.iter().filter(after).map(|e| e + 1).collect();
            let found: Vec<usize> = new
                .iter()
                .filter(|e| **e > at + 5 * cutter.max + 1)
                .copied()
                .collect();
            assert_eq!(moved, found);
        }
    }

    #[test]
    fn a_window_that_ends_within_the_file_cuts_elsewhere() {
        let bytes = noise(2 << 20, 4);
        let mut at = 0;
        for length in CHUNKS.lengths(&bytes) {
            let window = &bytes[at..bytes.len().min(at + CHUNKS.max)];
            assert_eq!(CHUNKS.first(window), length);
            at += length;
        }
    }
}
