//! What was at a path since the last barrier, as far as the version that is there does not remember it.
//!
//! A power cut may bring back anything that was at a path since the last barrier, and a version names only the last
//! few contents before it. Owns the list of the others, on record and in memory. Invariant: a list is committed with
//! the row that makes it necessary, and is forgotten with the barrier that makes the row durable.

use std::collections::HashMap;
use std::ops::ControlFlow;

use instep_core::id::ContentId;
use instep_core::path::RelPath;
use instep_core::version::Version;
use instep_replica::Result;
use instep_store::{IndexStore, StoreError, Table};

use crate::index::store_error;

/// What keys of lists begin with; the path follows.
const KEY: &[u8] = b"lately/";
/// So many contents of one path. Of more the first stays, which the disk had at the barrier, and the last.
const CONTENTS_MAX: usize = 16;

/// The lists of all paths.
#[derive(Debug, Default)]
pub(crate) struct Lately(HashMap<RelPath, Vec<Was>>);

/// A content that was at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Was {
    /// Its identity.
    pub(crate) content: ContentId,
    /// When it was known to be gone: a file that changed its name or its inode later came there again.
    pub(crate) until_ns: i64,
}

impl Was {
    const BYTES: usize = 40;

    fn to_bytes(self) -> Vec<u8> {
        [&self.until_ns.to_be_bytes()[..], &self.content.0].concat()
    }

    fn from_bytes(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let (until_ns, content) = bytes.split_first_chunk()?;
        Some(Self {
            content: ContentId(content.try_into().ok()?),
            until_ns: i64::from_be_bytes(*until_ns),
        })
    }
}

fn failed(e: StoreError) -> instep_replica::Error {
    store_error("write the index", e)
}

fn key(path: &RelPath) -> Vec<u8> {
    [KEY, path.as_bytes()].concat()
}

impl Lately {
    /// Reads what is on record.
    pub(crate) fn read(store: &mut dyn IndexStore) -> Result<Self> {
        let mut lists = HashMap::new();
        let mut add = |key: &[u8], body: &[u8]| {
            let path = key.strip_prefix(KEY).and_then(|p| RelPath::new(p).ok());
            if let Some(path) = path {
                let (all, _) = body.as_chunks::<{ Was::BYTES }>();
                lists.insert(path, all.iter().filter_map(Was::from_bytes).collect());
            }
            ControlFlow::Continue(())
        };
        let read = store.records(Table::Meta, &mut add);
        read.map_err(|e| store_error("read the index", e))?;
        Ok(Self(lists))
    }

    /// Notes what `now` forgets when it takes the place of `was`, which is not durable, at an instant.
    pub(crate) fn note(
        &mut self,
        store: &mut dyn IndexStore,
        path: &RelPath,
        was: &Version,
        now: &Version,
        at_ns: i64,
    ) -> Result<()> {
        let mut all = self.0.get(path).cloned().unwrap_or_default();
        let before = was.prev.iter().rev().chain([&was.content]);
        for id in before.filter(|id| **id != ContentId::NONE) {
            let had = all.iter().any(|w: &Was| w.content == *id);
            if had && *id != was.content {
                continue;
            }
            all.retain(|w| w.content != *id);
            all.push(Was {
                content: *id,
                until_ns: at_ns,
            });
        }
        all.retain(|w| w.content != now.content && !now.prev.contains(&w.content));
        while all.len() > CONTENTS_MAX {
            all.remove(1);
        }
        if all.is_empty() || self.0.get(path) == Some(&all) {
            return Ok(());
        }
        let body: Vec<u8> = all.iter().flat_map(|w| w.to_bytes()).collect();
        self.0.insert(path.clone(), all);
        let put = store.put_record(Table::Meta, &key(path), &body);
        put.map_err(failed)
    }

    /// Everything is durable.
    pub(crate) fn forget(&mut self, store: &mut dyn IndexStore) -> Result<()> {
        let mut all = self.0.drain();
        all.try_for_each(|(path, _)| store.remove_record(Table::Meta, &key(&path)))
            .map_err(failed)
    }

    /// All lists.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&RelPath, &[Was])> {
        self.0.iter().map(|(path, all)| (path, all.as_slice()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
pub(crate) mod tests {

    use instep_core::version::Kind;
    use instep_store::MemoryDisk;

    use super::*;

    pub(crate) fn id(n: u8) -> ContentId {
        ContentId([n + 1; 32])
    }

    pub(crate) fn version(n: u8, prev: &[u8]) -> Version {
        Version {
            content: id(n),
            size: 1,
            mode: 0o644,
            te: 1,
            mode_te: 1,
            prev: prev.iter().map(|n| id(*n)).collect(),
            ..Version::bare(Kind::File)
        }
    }

    fn listed(lately: &Lately) -> Vec<ContentId> {
        let all: Vec<_> = lately.all().collect();
        assert!(all.len() < 2);
        let ids = |was: &[Was]| was.iter().map(|w| w.content).collect();
        all.first().map(|(_, was)| ids(was)).unwrap_or_default()
    }

    #[test]
    fn what_a_version_does_not_remember_is_forgotten_before_the_barrier() {
        let path = RelPath::new(b"dir/f").unwrap();
        let mut store = MemoryDisk::new().open();
        let mut lately = Lately::default();
        let mut last = version(0, &[]);
        for n in 1..40 {
            let prev: Vec<u8> = (0..n).rev().take(2).collect();
            let now = version(n, &prev);
            lately
                .note(&mut store, &path, &last, &now, i64::from(n))
                .unwrap();
            let there = [listed(&lately), now.prev.clone()].concat();
            assert!(there.contains(&id(0)) && there.contains(&id(n - 1)), "{n}");
            assert!(n > 16 || there.len() == usize::from(n), "{n}");
            last = now;
        }
        assert_eq!(listed(&Lately::read(&mut store).unwrap()), listed(&lately));
        lately.forget(&mut store).unwrap();
        assert_eq!(listed(&lately), []);
        assert_eq!(listed(&Lately::read(&mut store).unwrap()), []);
    }

    #[test]
    fn a_file_that_changes_as_often_as_its_version_remembers_is_written_down() {
        let path = RelPath::new(b"f").unwrap();
        let mut store = MemoryDisk::new().open();
        let mut lately = Lately::default();
        let changes = [version(0, &[]), version(1, &[0]), version(2, &[1, 0])];
        for pair in changes.windows(2) {
            lately
                .note(&mut store, &path, &pair[0], &pair[1], 1)
                .unwrap();
        }
        assert_eq!(listed(&lately), []);
    }
}
