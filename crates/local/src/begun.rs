//! The beginnings of big contents whose transfer broke off, so that the next one goes on there.
//!
//! Owns files without names: with the process they are gone, and so is what they take of the disk. Invariant: what is
//! kept here is not verified; whoever goes on with it verifies the whole.

use std::collections::VecDeque;
use std::sync::Mutex;

use instep_core::id::ContentId;
use instep_fs::File;
use instep_replica::Content;

use crate::content::{Failed, FileContent};
use crate::replica::locked;

/// Below this it is not worth keeping.
const BYTES_MIN: u64 = 1024 * 1024;
/// Beginnings of so many contents are kept.
const COUNT_MAX: usize = 4;

/// The beginnings, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Begun(Mutex<VecDeque<(ContentId, File)>>);

impl Begun {
    /// A file could not be filled: kept, where the source ended before it should and the rest may follow. Its name is
    /// gone already.
    pub(crate) fn failed(&self, content: ContentId, file: File, why: &Failed) {
        let mut all = locked(&self.0);
        match why {
            Failed::Read(_) => {}
            // What came was not what it should have been.
            Failed::Changed => return all.retain(|(id, _)| *id != content),
            // There may be no room: whoever needs it now comes first.
            Failed::Write(_) => return all.clear(),
        }
        let size = |file: &File| file.stat().map_or(0, |stat| stat.size);
        let bytes = size(&file);
        let known = all.iter().find(|(id, _)| *id == content);
        if bytes < BYTES_MIN || known.is_some_and(|(_, known)| size(known) >= bytes) {
            return;
        }
        all.retain(|(id, _)| *id != content);
        all.push_back((content, file));
        if all.len() > COUNT_MAX {
            all.pop_front();
        }
    }

    /// What there is of a content.
    pub(crate) fn get(&self, content: ContentId) -> Option<Box<dyn Content>> {
        let all = locked(&self.0);
        let (_, file) = all.iter().find(|(id, _)| *id == content)?;
        let stat = file.stat().ok()?;
        Some(Box::new(FileContent::new(file.clone(), stat)))
    }

    /// All of it is here.
    pub(crate) fn forget(&self, content: ContentId) {
        locked(&self.0).retain(|(id, _)| *id != content);
    }
}
