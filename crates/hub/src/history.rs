//! What was shown at each path, and when.
//!
//! Owns the entries of history: rows of the contents' store, in a directory named as the path, under names that begin
//! with the instant. Invariant: whatever was shown has an entry before anything takes its place, and the entry stays
//! until retention takes it. What is too old is decided in `retention`.

use std::ops::ControlFlow;

use instep_core::entry::Entry;
use instep_core::id::{ActorId, ContentId, Dot};
use instep_core::limits::{PATH_BYTES_MAX, PATH_DEPTH_MAX};
use instep_core::path::RelPath;
use instep_core::row::Row;
use instep_core::version::{Kind, Version};
use instep_replica::Result;
use instep_replica::error::{Error, ErrorKind};

use crate::chunks::ours;
use crate::contents::Contents;
use crate::index::store_error;

/// Bytes of the longest name of an entry, with the slash before it.
const NAME_BYTES: usize = 64;

/// One version that was shown at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Where.
    pub path: RelPath,
    /// Since when, nanoseconds since 1970.
    pub at_ns: i64,
    /// The version's dot; its actor is who made it.
    pub dot: Dot,
    /// The version itself, with its content id; a tombstone says that it was deleted.
    pub version: Version,
    /// In which epoch that was noted.
    pub(crate) epoch: u32,
}

impl Shown {
    /// The content that has to stay for it.
    pub(crate) fn content(&self) -> Option<ContentId> {
        (self.version.kind == Kind::File).then_some(self.version.content)
    }

    fn place(&self) -> RelPath {
        place(&self.path, self.at_ns, self.dot)
    }
}

/// Whether a path is short enough for what is kept of its past.
pub(crate) fn fits(path: &RelPath) -> bool {
    path.as_bytes().len() + NAME_BYTES <= PATH_BYTES_MAX && path.depth() < PATH_DEPTH_MAX
}

/// Where an entry is kept. Instants before 1970 sort before those after it.
fn place(path: &RelPath, at_ns: i64, dot: Dot) -> RelPath {
    let sortable = (at_ns as u64) ^ (1 << 63);
    let name = format!("{sortable:016x}-{}-{:016x}", dot.actor, dot.counter);
    path.join(ours(&name))
}

fn placed(place: &RelPath, row: &Row) -> Option<Shown> {
    let (path, name) = place.split()?;
    let mut parts = std::str::from_utf8(name.as_bytes()).ok()?.split('-');
    let sortable = u64::from_str_radix(parts.next()?, 16).ok()?;
    let actor: ActorId = parts.next()?.parse().ok()?;
    let counter = u64::from_str_radix(parts.next()?, 16).ok()?;
    let dot = Dot { actor, counter };
    Some(Shown {
        path,
        at_ns: (sortable ^ (1 << 63)) as i64,
        dot,
        version: row.entry.get(dot)?.clone(),
        epoch: row.epoch,
    })
}

fn failed(e: instep_store::StoreError) -> Error {
    store_error("read or write the history", e)
}

impl Contents {
    /// Notes that a version is shown from an instant on.
    pub(crate) fn note(
        &mut self,
        path: &RelPath,
        (dot, version): (Dot, &Version),
        at_ns: i64,
        epoch: u32,
    ) -> Result<()> {
        let row = Row {
            entry: Entry::first(dot, version.clone()),
            epoch,
            ..Row::default()
        };
        let put = self.store.put(&place(path, at_ns, dot), &row);
        put.map_err(failed)
    }

    /// What was shown at a path, oldest first.
    pub(crate) fn history_of(&mut self, path: &RelPath) -> Result<Vec<Shown>> {
        let mut out = Vec::new();
        let read = self.store.children(path, &mut |name, row| {
            out.extend(placed(&path.join(name), &row));
        });
        read.map_err(failed)?;
        Ok(out)
    }

    /// Everything that was shown, each path's by itself and oldest first.
    pub(crate) fn each_shown(&mut self, visit: &mut dyn FnMut(Shown)) -> Result<()> {
        let mut lost = false;
        let read = self.store.subtree(&RelPath::root(), &mut |place, row| {
            let shown = placed(&place, &row);
            lost |= shown.is_none();
            shown.into_iter().for_each(&mut *visit);
            ControlFlow::Continue(())
        });
        read.map_err(failed)?;
        if lost {
            let attempt = "read the history: an entry is no version";
            return Err(Error::new(ErrorKind::Damaged, attempt));
        }
        Ok(())
    }

    /// Forgets an entry.
    pub(crate) fn forget_shown(&mut self, shown: &Shown) -> Result<()> {
        self.store.remove(&shown.place()).map_err(failed)
    }
}
