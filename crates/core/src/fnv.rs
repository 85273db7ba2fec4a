//! FNV-1a: a small hash that is the same everywhere and for ever. Never for content, which others may choose.
//!
//! Source: Fowler, Noll, Vo (1991), 64 bits.

/// The hash of nothing.
const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

/// The hash of these bytes.
pub fn hash(bytes: &[u8]) -> u64 {
    add(BASIS, bytes)
}

/// A hash that goes on with these bytes.
pub fn add(hash: u64, bytes: &[u8]) -> u64 {
    let step = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(PRIME);
    bytes.iter().fold(hash, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_not_those_of_the_source() {
        assert_eq!(hash(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(hash(b"foobar"), 0x8594_4171_f739_67e8);
        assert_eq!(add(hash(b"foo"), b"bar"), hash(b"foobar"));
    }
}
