//! The bytes of one version, wherever they are.

use std::os::fd::BorrowedFd;

use instep_core::id::ContentId;
use instep_core::plan::Action;

/// Bytes that can be read, and perhaps cloned.
///
/// What is read is not guaranteed to be what was asked for: the file may have changed since. Whoever reads
/// hashes and compares.
pub trait Content: Send {
    /// Bytes, as of when it was opened.
    fn size(&self) -> u64;

    /// Reads at an offset; zero at the end.
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> std::io::Result<usize>;

    /// The next range with data at or after `offset`; `None` when only a hole is left.
    fn next_data(&mut self, offset: u64) -> Option<(u64, u64)> {
        (offset < self.size()).then(|| (offset, self.size()))
    }

    /// The open file behind it, for reflinks and in-kernel copies.
    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// The bytes themselves, where they are in memory and were hashed there.
    fn verified(&self) -> Option<(ContentId, &[u8])> {
        None
    }

    /// Whether what was read is still what the file has: false when it changed meanwhile.
    fn unchanged(&self) -> bool {
        true
    }
}

/// Where a replica gets the content of an action that is not staged.
pub trait Sources: Sync {
    /// Opens the content that an action needs, from whoever has it; `None` when nobody reachable does.
    fn open(&self, action: &Action, content: ContentId) -> Option<Box<dyn Content>>;

    /// Opens it from somebody else, after `tried` others (the first by [`Sources::open`]) whose bytes were not
    /// those of this content.
    fn open_other(
        &self,
        _action: &Action,
        _content: ContentId,
        _tried: usize,
    ) -> Option<Box<dyn Content>> {
        None
    }
}

/// No sources: every content must be staged.
#[derive(Debug, Clone, Copy)]
pub struct NoSources;

impl Sources for NoSources {
    fn open(&self, _: &Action, _: ContentId) -> Option<Box<dyn Content>> {
        None
    }
}

/// Bytes in memory.
#[derive(Debug, Clone)]
pub struct Bytes(pub Vec<u8>);

impl Content for Bytes {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
        let tail = self
            .0
            .get(usize::try_from(offset).unwrap_or(usize::MAX)..)
            .unwrap_or(&[]);
        let n = tail.len().min(buf.len());
        buf[..n].copy_from_slice(&tail[..n]);
        Ok(n)
    }
}
