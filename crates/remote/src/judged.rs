//! Contents that are hashed while they are read, and which of them came out wrong.
//!
//! Owns the list of those. Invariant: it says nothing of a content that was not read from its beginning to its end.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};

use instep_chunk::Hasher;
use instep_core::id::ContentId;
use instep_replica::Content;

/// Contents of which it is remembered.
const WRONG_MAX: usize = 1024;

/// Contents that came out wrong: they are not taken from there again.
#[derive(Debug, Default)]
pub(crate) struct Wrong(Mutex<BTreeSet<ContentId>>);

impl Wrong {
    pub(crate) fn has(&self, content: ContentId) -> bool {
        let wrong = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        wrong.contains(&content)
    }

    pub(crate) fn add(&self, content: ContentId) {
        let mut wrong = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if wrong.len() >= WRONG_MAX {
            wrong.clear();
        }
        wrong.insert(content);
    }
}

/// A content that is judged when it was read.
pub(crate) struct Judged {
    inner: Box<dyn Content>,
    id: ContentId,
    wrong: Arc<Wrong>,
    hasher: Hasher,
    hashed: u64,
}

impl Judged {
    pub(crate) fn new(inner: Box<dyn Content>, id: ContentId, wrong: &Arc<Wrong>) -> Self {
        Self {
            inner,
            id,
            wrong: Arc::clone(wrong),
            hasher: Hasher::new(),
            hashed: 0,
        }
    }
}

impl Content for Judged {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read_at(offset, into)?;
        if offset == self.hashed && n > 0 {
            self.hasher.update(&into[..n]);
            self.hashed += n as u64;
            if self.hashed == self.size() && self.hasher.finish() != self.id {
                self.wrong.add(self.id);
            }
        }
        Ok(n)
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.as_fd()
    }

    fn unchanged(&self) -> bool {
        self.inner.unchanged()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use instep_chunk::content_id;
    use instep_replica::content::Bytes;

    use super::*;

    #[test]
    fn a_content_that_is_what_it_says_counts_as_wrong_or_another_does_not() {
        let wrong = Arc::new(Wrong::default());
        let right = content_id(b"abcdef");
        let read = |bytes: &[u8], most: usize| {
            let mut judged = Judged::new(Box::new(Bytes(bytes.to_vec())), right, &wrong);
            let mut at = 0;
            while at < most {
                at += judged.read_at(at as u64, &mut [0; 2]).unwrap();
            }
        };
        read(b"abcdef", 6);
        read(b"abcdeg", 4);
        assert!(!wrong.has(right), "right, or not read to its end");
        read(b"abcdeg", 6);
        assert!(wrong.has(right));
    }
}
