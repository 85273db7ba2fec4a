//! Whether content looks random: the sign of compression, and of a ransomware's encryption.
//!
//! Order-0 Shannon entropy of the first 4 KiB, of which random bytes measure 7.95 bits. It costs one table
//! look-up per byte and decides nothing by itself: only a burst of files that turn from structured to random
//! is held (see `core::limits`).

/// Bytes that are counted; later ones are ignored.
pub const PROBE_BYTES: u64 = 4 * 1024;
/// Below this many bytes even random content cannot be told from structured content.
pub const PROBE_BYTES_MIN: u64 = 1024;
/// Bits per byte above which content looks random. Machine code has about 6.3, base64 has 6, 1 KiB of
/// random bytes measures 7.8.
pub const HIGH_BITS: f64 = 7.5;

/// Counts bytes as they pass by.
#[derive(Debug, Clone)]
pub struct Entropy {
    counts: [u32; 256],
    seen: u64,
}

impl Default for Entropy {
    fn default() -> Self {
        Self {
            counts: [0; 256],
            seen: 0,
        }
    }
}

impl Entropy {
    /// Of bytes that are all there.
    pub fn of(bytes: &[u8]) -> Self {
        let mut probe = Self::default();
        probe.update(bytes);
        probe
    }

    /// The next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let room = (PROBE_BYTES - self.seen).min(bytes.len() as u64);
        for b in &bytes[..room as usize] {
            self.counts[usize::from(*b)] += 1;
        }
        self.seen += room;
    }

    /// Bits per byte, from 0 (all the same) to 8 (all equally frequent).
    pub fn bits(&self) -> f64 {
        let total = self.seen as f64;
        self.counts
            .iter()
            .filter(|n| **n > 0)
            .map(|n| {
                let p = f64::from(*n) / total;
                -p * p.log2()
            })
            .sum()
    }

    /// Whether the content looks compressed or encrypted.
    pub fn is_high(&self) -> bool {
        self.seen >= PROBE_BYTES_MIN && self.bits() > HIGH_BITS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Xorshift64 (Marsaglia 2003): random enough for a histogram.
    fn noise(len: usize) -> Vec<u8> {
        let mut x = 0x9e37_79b9_7f4a_7c15_u64;
        (0..len)
            .map(|_| {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                (x >> 32) as u8
            })
            .collect()
    }

    #[test]
    fn random_bytes_look_random() {
        for len in [1024, 4096, 100_000] {
            assert!(Entropy::of(&noise(len)).is_high(), "{len} bytes");
        }
    }

    #[test]
    fn text_tables_and_tiny_files_do_not_look_random() {
        let text = b"the quick brown fox jumps over the lazy dog. ".repeat(100);
        let numbers: Vec<u8> = (0..20_000_u32).flat_map(u32::to_le_bytes).collect();
        let base64: Vec<u8> = noise(5000).iter().map(|b| b'0' + b % 64).collect();
        for bytes in [&text[..], &numbers, &base64, &noise(1023), b"", b"a"] {
            assert!(!Entropy::of(bytes).is_high(), "{} bytes", bytes.len());
        }
    }

    #[test]
    fn only_the_first_4_kib_count() {
        let mut bytes = vec![0; PROBE_BYTES as usize];
        bytes.extend(noise(1 << 20));
        assert!(!Entropy::of(&bytes).is_high());
    }
}
