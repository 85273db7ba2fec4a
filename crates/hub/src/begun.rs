//! The beginnings of big contents whose transfer broke off, so that the next one goes on there.
//!
//! Owns which chunks those are; they are in their directory like all others, and stay as long as this process knows of
//! them. Invariant: what is kept here is not verified as a whole; whoever goes on with it does that.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use instep_core::id::ContentId;

use crate::chunks::Chunks;
use crate::manifest::Piece;

/// Below this it is not worth keeping.
const BYTES_MIN: u64 = 1024 * 1024;
/// Beginnings of so many contents are kept.
const COUNT_MAX: usize = 4;

/// The beginnings, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Begun(Mutex<VecDeque<(ContentId, Vec<Piece>)>>);

fn size(pieces: &[Piece]) -> u64 {
    pieces.iter().map(|p| p.length).sum()
}

impl Begun {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(ContentId, Vec<Piece>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The source of a content ended before it should, and the rest may follow.
    pub(crate) fn keep(&self, content: ContentId, pieces: Vec<Piece>) {
        let mut all = self.lock();
        let bytes = size(&pieces);
        let known = all.iter().find(|(id, _)| *id == content);
        if bytes < BYTES_MIN || known.is_some_and(|(_, known)| size(known) >= bytes) {
            return;
        }
        all.retain(|(id, _)| *id != content);
        all.push_back((content, pieces));
        if all.len() > COUNT_MAX {
            all.pop_front();
        }
    }

    /// What there is of a content; nothing if any of it has gone.
    pub(crate) fn get(&self, content: ContentId, chunks: &Chunks) -> Option<Vec<Piece>> {
        let known = |all: &VecDeque<_>| {
            let mut all = all.iter();
            let found: Option<&(ContentId, Vec<Piece>)> = all.find(|(id, _)| *id == content);
            found.map(|(_, pieces)| pieces.clone())
        };
        let pieces = known(&self.lock())?;
        let is_whole = pieces.iter().all(|p| chunks.has(p.id));
        if !is_whole {
            self.forget(content);
        }
        Some(pieces).filter(|_| is_whole)
    }

    /// All of it is here, or it was not what it should have been.
    pub(crate) fn forget(&self, content: ContentId) {
        self.lock().retain(|(id, _)| *id != content);
    }

    /// All chunks that are kept for this.
    pub(crate) fn chunks(&self) -> Vec<ContentId> {
        let all = self.lock();
        let pieces = all.iter().flat_map(|(_, pieces)| pieces);
        pieces.map(|p| p.id).collect()
    }
}
