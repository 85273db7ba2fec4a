//! Where a replica shows big contents: what it has already need not come from far away once more.
//!
//! Owns what was noted when rows were read for another reason. Invariant: what it says is a hint; whoever goes by it looks
//! whether it is still so. Its memory is bounded: beyond that, some are not known.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use instep_core::id::ContentId;
use instep_core::path::RelPath;
use instep_core::row::Row;
use instep_core::version::Kind;

/// Smaller contents are not noted.
pub const BYTES_MIN: u64 = 256 * 1024;
/// Contents that are known at a time.
const CONTENTS_MAX: usize = 100_000;

/// Paths by content.
#[derive(Debug, Default)]
pub struct Whereabouts(Mutex<BTreeMap<ContentId, RelPath>>);

impl Whereabouts {
    /// Takes note of a row that was read.
    pub fn note(&self, path: &RelPath, row: &Row) {
        let Some(shown) = row.present() else {
            return;
        };
        if shown.kind != Kind::File || shown.size < BYTES_MIN {
            return;
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < CONTENTS_MAX || known.contains_key(&shown.content) {
            known.insert(shown.content, path.clone());
        }
    }

    /// Where a content was shown.
    pub fn of(&self, content: ContentId) -> Option<RelPath> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&content).cloned()
    }

    /// It is not there any more.
    pub fn forget(&self, content: ContentId) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(&content);
    }
}
