//! A check value over every stored body and its key, so that a flipped bit is damage and not a fact.
//!
//! `SQLite` checks its structure, not its contents: without this a damaged content id would travel to every
//! replica as if it were true, and a row under a damaged key would speak for another path. Guards against
//! accidents only; whoever can write the file can write the seal.

/// Bytes that a seal adds.
const SEAL: usize = 4;

/// Adds the seal to a body.
pub(crate) fn close(mut body: Vec<u8>, key: (&[u8], &[u8])) -> Vec<u8> {
    let check = check(key, &body);
    body.extend_from_slice(&check);
    body
}

/// The body without its seal; `None` when it does not fit.
pub(crate) fn open<'b>(sealed: &'b [u8], key: (&[u8], &[u8])) -> Option<&'b [u8]> {
    let (body, seal) = sealed.split_at_checked(sealed.len().checked_sub(SEAL)?)?;
    (check(key, body) == seal).then_some(body)
}

fn check((first, second): (&[u8], &[u8]), body: &[u8]) -> [u8; SEAL] {
    let state = [first, second, body].into_iter().fold(0, absorb);
    ((state ^ (state >> 32)) as u32).to_le_bytes()
}

/// Mixes in a length and the bytes, eight at a time. Each step is invertible for a given word, so that two
/// inputs which differ in one word always end in different states.
fn absorb(state: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let mut state = mix(state ^ bytes.len() as u64);
    for word in words {
        state = mix(state ^ u64::from_le_bytes(*word));
    }
    mix(state ^ u64::from_le_bytes(last))
}

/// Multiplication by an odd constant and a shifted exclusive or, both invertible.
fn mix(x: u64) -> u64 {
    let x = x
        .wrapping_add(0x9e37_79b9_7f4a_7c15)
        .wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^ (x >> 29)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_changed_bit_breaks_the_seal() {
        let key = (&b"dir"[..], &b"name"[..]);
        let sealed = close(b"a body that is longer than two words".to_vec(), key);
        assert_eq!(open(&sealed, key), Some(&sealed[..sealed.len() - SEAL]));
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&damaged, key), None, "bit {bit}");
        }
    }

    #[test]
    fn a_body_under_another_key_is_refused() {
        let sealed = close(b"body".to_vec(), (b"ab", b"c"));
        for key in [
            (&b"a"[..], &b"bc"[..]),
            (b"abc", b""),
            (b"ab", b"d"),
            (b"", b"abc"),
        ] {
            assert_eq!(open(&sealed, key), None, "{key:?}");
        }
        assert_eq!(open(b"abc", (b"", b"")), None);
    }
}
