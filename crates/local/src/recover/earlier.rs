//! What was at a path since the last barrier: a power cut may bring back any of it.
//!
//! A version names only the last few contents before it. Owns what else is known of that: what intents tell, and what
//! was written down when versions forgot it. Invariant: all of it was here before what the row of its path tells of.

use std::collections::HashMap;

use instep_core::id::ContentId;
use instep_core::path::RelPath;
use instep_core::time::Mtime;

use super::intent::Intended;
use crate::lately::{Lately, Was};

/// The contents that were at paths before their rows became what they are.
#[derive(Debug, Default)]
pub(super) struct Earlier(HashMap<RelPath, Vec<Was>>);

impl Earlier {
    /// What the intents of the open epoch took from paths and brought to them, and what versions forgot in it.
    pub(super) fn of(intents: &[Intended], lately: &Lately) -> Self {
        let lists = lately.all();
        let mut all: HashMap<RelPath, Vec<Was>> = lists
            .map(|(path, ids)| (path.clone(), ids.to_vec()))
            .collect();
        for intended in intents {
            let brought = intended.entry.get_shown(intended.shown);
            let brought = brought.filter(|v| !v.is_tomb()).map(|v| v.content);
            let there = all.entry(intended.path.clone()).or_default();
            let contents = intended.old.into_iter().chain(brought);
            there.extend(contents.map(|content| Was {
                content,
                until_ns: i64::MAX,
            }));
        }
        Self(all)
    }

    /// Whether a file with this content, whose inode or name changed last at this time, is one that was at the path.
    pub(super) fn had(&self, path: &RelPath, content: ContentId, ctime: Mtime) -> bool {
        let at_ns = ctime.nanos_since_epoch().unwrap_or(i64::MAX);
        let is_it = |was: &Was| was.content == content && at_ns <= was.until_ns;
        self.0.get(path).is_some_and(|all| all.iter().any(is_it))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use instep_store::MemoryDisk;

    use super::*;
    use crate::lately::tests::{id, version};

    #[test]
    fn an_earlier_file_that_a_user_moved_back_is_taken_for_what_the_disk_went_back_to() {
        let path = RelPath::new(b"f").unwrap();
        let mut store = MemoryDisk::new().open();
        let mut lately = Lately::default();
        let (was, now) = (version(1, &[0]), version(2, &[1]));
        let mut note = |was, now, at| lately.note(&mut store, &path, was, now, at);
        note(&was, &now, 1000).unwrap();
        let later = Earlier::of(&[], &lately);
        let had = |ns| later.had(&path, id(0), Mtime::from_nanos(ns));
        assert!(had(999), "what was there before is forgotten");
        assert!(
            !had(1001),
            "its name or its inode changed after it was gone"
        );
        assert!(!later.had(&path, id(7), Mtime::from_nanos(999)));
    }
}
