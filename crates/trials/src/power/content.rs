//! What users write: bytes that tell which version they are, and whether all of it is there.
//!
//! Invariant: a version's bytes follow from its number and its length alone, so nobody has to keep them.

use instep_testkit::prng::Prng;

/// The number of a version. No two versions of a trial have the same.
pub type Token = u64;

const HEAD: usize = "<<token 0123456789abcdef>> 01234567\n".len();

/// The bytes of a version; never fewer than its head.
pub fn content(token: Token, len: usize) -> Vec<u8> {
    let len = len.max(HEAD);
    let mut bytes = format!("<<token {token:016x}>> {len:08x}\n").into_bytes();
    bytes.extend(Prng::new(token).bytes(len - HEAD));
    bytes
}

/// What the bytes of a file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seen {
    /// All of a version.
    Whole(Token),
    /// The beginning of a version, with or without zeros behind.
    Part(Token),
    /// No byte at all.
    Empty,
    /// Zeros alone.
    Zeros,
    /// What no user wrote.
    Foreign,
}

/// Tells what bytes are.
pub fn classify(bytes: &[u8]) -> Seen {
    if bytes.is_empty() {
        return Seen::Empty;
    }
    if bytes.iter().all(|b| *b == 0) {
        return Seen::Zeros;
    }
    let Some((token, len)) = head(bytes) else {
        return Seen::Foreign;
    };
    let whole = content(token, len);
    if bytes == whole {
        return Seen::Whole(token);
    }
    let same = bytes.iter().zip(&whole).take_while(|(a, b)| a == b).count();
    let rest_is_zero = bytes[same..].iter().all(|b| *b == 0);
    if bytes.len() <= whole.len() && rest_is_zero {
        Seen::Part(token)
    } else {
        Seen::Foreign
    }
}

fn head(bytes: &[u8]) -> Option<(Token, usize)> {
    let text = std::str::from_utf8(bytes.get(..HEAD)?).ok()?;
    let (token, len) = text.strip_prefix("<<token ")?.split_once(">> ")?;
    let token = Token::from_str_radix(token, 16).ok()?;
    let len = usize::from_str_radix(len.trim_end(), 16).ok()?;
    Some((token, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_is_not_whole_is_not_taken_for_whole() {
        let whole = content(7, 5000);
        assert_eq!(whole.len(), 5000);
        assert_eq!(classify(&whole), Seen::Whole(7));
        assert_eq!(classify(&whole[..4096]), Seen::Part(7));
        let mut torn = whole.clone();
        torn[512..].fill(0);
        assert_eq!(classify(&torn), Seen::Part(7));
        torn[4096..].copy_from_slice(&whole[4096..]);
        assert_eq!(classify(&torn), Seen::Foreign);
        assert_eq!(classify(&[]), Seen::Empty);
        assert_eq!(classify(&[0; 5000]), Seen::Zeros);
        assert_eq!(classify(&[&whole[..], b"x"].concat()), Seen::Foreign);
    }
}
