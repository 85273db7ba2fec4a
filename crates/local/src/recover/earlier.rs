//! What was at a path since the last barrier: a power cut may bring back any of it.
//!
//! A version names only the last few contents before it. Owns what else is known of that: what intents tell, and what
//! was written down when versions forgot it. Invariant: all of it was here before what the row of its path tells of.

use std::collections::HashMap;

use instep_core::id::ContentId;
use instep_core::path::RelPath;
use instep_core::row::Row;
use instep_core::time::Mtime;
use instep_core::version::{Kind, Version};

use super::classify::is_time_of;
use super::intent::Intended;
use super::on_disk::OnDisk;
use crate::draft;
use crate::lately::{Lately, Was};
use crate::replica::LocalReplica;

/// What was at paths before their rows became what they are.
#[derive(Debug, Default)]
pub(super) struct Earlier {
    contents: HashMap<RelPath, Vec<Was>>,
    /// The files that were brought in the open epoch: of each a part may be there.
    brought: HashMap<RelPath, Vec<Version>>,
}

impl Earlier {
    /// What the intents of the open epoch took from paths and brought to them, and what versions forgot in it.
    pub(super) fn of(intents: &[Intended], lately: &Lately) -> Self {
        let lists = lately.all();
        let mut all: HashMap<RelPath, Vec<Was>> = lists
            .map(|(path, ids)| (path.clone(), ids.to_vec()))
            .collect();
        let mut brought: HashMap<RelPath, Vec<Version>> = HashMap::new();
        for intended in intents {
            let wanted = intended.entry.get_shown(intended.shown);
            let wanted = wanted.filter(|v| !v.is_tomb());
            if let Some(file) = wanted.filter(|v| v.kind == Kind::File) {
                let there = brought.entry(intended.path.clone()).or_default();
                there.push(file.clone());
            }
            let there = all.entry(intended.path.clone()).or_default();
            let contents = intended.old.into_iter().chain(wanted.map(|v| v.content));
            there.extend(contents.map(|content| Was {
                content,
                until_ns: i64::MAX,
            }));
        }
        Self {
            contents: all,
            brought,
        }
    }

    /// Whether a file with this content, whose inode or name changed last at this time, is one that was at the path.
    pub(super) fn had(&self, path: &RelPath, content: ContentId, ctime: Mtime) -> bool {
        let at_ns = ctime.nanos_since_epoch().unwrap_or(i64::MAX);
        let is_it = |was: &Was| was.content == content && at_ns <= was.until_ns;
        self.contents
            .get(path)
            .is_some_and(|all| all.iter().any(is_it))
    }

    /// Whether a file may be a part of one that was brought to the path, whatever took its place since. `row` is that of
    /// the path.
    pub(super) fn has_part(
        &self,
        replica: &LocalReplica,
        path: &RelPath,
        row: Option<&Row>,
        seen: &OnDisk,
    ) -> bool {
        let OnDisk::Something {
            kind: Kind::File,
            size,
            mtime,
            print,
            ..
        } = *seen
        else {
            return false;
        };
        let is_marked = draft::is_marked(&replica.profile);
        let is_it = |v: &Version| {
            size <= v.size
                && (is_time_of(mtime, v.mtime) || is_marked && draft::is_left(v, row, print))
        };
        self.brought
            .get(path)
            .is_some_and(|all| all.iter().any(is_it))
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
