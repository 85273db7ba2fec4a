//! Contents that came along with their rows, until the engine takes them.
//!
//! Owns how many bytes wait at most; what does not fit is fetched when it is needed. Whoever opens verifies: what lies
//! here is what somebody sent under this name.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use instep_core::id::ContentId;
use instep_core::path::RelPath;
use instep_replica::content::Bytes;
use instep_replica::{Content, Result};

use crate::observed::{AtHand, Bringer};

/// Bytes that wait at most.
pub const BYTES_MAX: usize = 16 * 1024 * 1024;

#[derive(Default)]
struct Waiting {
    contents: VecDeque<(ContentId, Vec<u8>)>,
    bytes: usize,
}

/// What came along, and whoever brings the rest.
pub struct Shelf {
    waiting: Mutex<Waiting>,
    rest: Arc<dyn Bringer>,
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shelf({} bytes)", self.lock().bytes)
    }
}

impl Shelf {
    /// An empty one in front of somebody who brings.
    pub fn new(rest: Arc<dyn Bringer>) -> Self {
        Self {
            waiting: Mutex::default(),
            rest,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a content until it is opened; the oldest make room.
    pub fn keep(&self, id: ContentId, bytes: Vec<u8>) {
        let mut waiting = self.lock();
        waiting.bytes += bytes.len();
        waiting.contents.push_back((id, bytes));
        while waiting.bytes > BYTES_MAX
            && let Some((_, oldest)) = waiting.contents.pop_front()
        {
            waiting.bytes -= oldest.len();
        }
    }

    /// Several replicas here may want it, one after another: it stays until it is crowded out.
    fn find(&self, id: ContentId) -> Option<Vec<u8>> {
        let waiting = self.lock();
        let found = waiting.contents.iter().rev().find(|(of, _)| *of == id);
        found.map(|(_, bytes)| bytes.clone())
    }
}

impl Bringer for Shelf {
    fn open(
        &self,
        path: &RelPath,
        content: ContentId,
        size: u64,
    ) -> Result<Option<Box<dyn Content>>> {
        match self.find(content) {
            Some(bytes) => Ok(Some(Box::new(Bytes(bytes)))),
            None => self.rest.open(path, content, size),
        }
    }

    fn open_beside(
        &self,
        path: &RelPath,
        content: ContentId,
        size: u64,
        here: AtHand,
    ) -> Result<Option<Box<dyn Content>>> {
        match self.find(content) {
            Some(bytes) => Ok(Some(Box::new(Bytes(bytes)))),
            None => self.rest.open_beside(path, content, size, here),
        }
    }

    fn prefetch_beside(&self, wanted: &[(RelPath, ContentId, u64)]) {
        self.rest.prefetch_beside(wanted);
    }

    fn prefetch(&self, wanted: &[(RelPath, ContentId, u64)]) {
        let missing: Vec<_> = {
            let waiting = self.lock();
            let is_here = |id: ContentId| waiting.contents.iter().any(|(of, _)| *of == id);
            let missing = wanted.iter().filter(|(_, id, _)| !is_here(*id));
            missing.cloned().collect()
        };
        if !missing.is_empty() {
            self.rest.prefetch(&missing);
        }
    }
}
