//! Content ids: BLAKE3 of all bytes of a file, or of a link's target.
//!
//! Invariant: [`content_id`], [`Hasher`] and [`hash_reader`] agree on every input. Nothing here allocates
//! more than one fixed buffer, so the size of a file never matters.

use std::io::{ErrorKind, Read};

use instep_core::id::ContentId;

use crate::entropy::Entropy;

/// Bytes read at a time: enough for BLAKE3 to use its widest vectors, small enough to stay in the cache.
pub const READ_BYTES: usize = 128 * 1024;

/// The identity of these bytes.
///
/// ```
/// use instep_chunk::{Hasher, content_id};
///
/// let mut hasher = Hasher::new();
/// hasher.update(b"hello ");
/// hasher.update(b"world");
/// assert_eq!(hasher.finish(), content_id(b"hello world"));
/// ```
pub fn content_id(bytes: &[u8]) -> ContentId {
    ContentId(*blake3::hash(bytes).as_bytes())
}

/// Hashes bytes that arrive in pieces.
#[derive(Debug, Clone, Default)]
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// A hasher that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The identity of everything seen so far.
    pub fn finish(&self) -> ContentId {
        ContentId(*self.0.finalize().as_bytes())
    }
}

/// What one pass over the bytes tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hashed {
    /// Their identity.
    pub content: ContentId,
    /// How many there were.
    pub size: u64,
    /// They look compressed or encrypted.
    pub high_entropy: bool,
}

/// Reads to the end and hashes. Interrupted reads are repeated; any other error is passed on.
pub fn hash_reader(reader: &mut dyn Read) -> std::io::Result<Hashed> {
    let mut buf = vec![0; READ_BYTES];
    let mut hasher = Hasher::new();
    let mut entropy = Entropy::default();
    let mut size = 0;
    loop {
        match reader.read(&mut buf) {
            Ok(0) => break,
            Ok(n) => {
                hasher.update(&buf[..n]);
                entropy.update(&buf[..n]);
                size += n as u64;
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(Hashed {
        content: hasher.finish(),
        size,
        high_entropy: entropy.is_high(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;

    /// Gives a few bytes at a time, and an interruption before each piece.
    struct Dribble<'a>(&'a [u8], bool);

    impl Read for Dribble<'_> {
        fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(ErrorKind::Interrupted.into());
            }
            let n = self.0.len().min(buf.len()).min(777);
            buf[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    #[test]
    fn the_id_is_blake3_and_not_something_else() {
        let hex = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(content_id(b"").to_string(), hex);
    }

    #[test]
    fn pieces_do_not_change_the_id() {
        for len in [0, 1, 1023, 1024, 1025, 64 * 1024, READ_BYTES + 1, 300_001] {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 7 / 3) as u8).collect();
            let got = hash_reader(&mut Dribble(&bytes, false)).unwrap();
            assert_eq!(got.content, content_id(&bytes), "{len} bytes");
            assert_eq!(got.size, len as u64);
        }
    }

    #[test]
    fn a_failing_reader_gives_no_id() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                Err(ErrorKind::PermissionDenied.into())
            }
        }
        assert_eq!(
            hash_reader(&mut Broken).unwrap_err().kind(),
            ErrorKind::PermissionDenied
        );
    }
}
