//! The file that a root's index is in: its name for each share, and how it is opened.
//!
//! Owns what happens to an index that cannot be used: it is moved aside and stays there until a person
//! deletes it. Invariant: opening to look writes nothing, and opening in earnest never empties an index
//! silently. Whether an index may be believed is not decided here: see `evidence`.

use std::ops::ControlFlow;
use std::sync::Arc;

use instep_core::id::{ActorId, ShareId};
use instep_core::path::RelPath;
use instep_fs::{Dir, ErrorKind as FsErrorKind, place};
use instep_replica::env::Env;
use instep_replica::{ErrorKind, Result, Step};
use instep_store::{IndexStore, MemoryDisk, OpenMode, SqliteStore, Table};

use super::files::INDEX;
use super::marker::{Marker, MembershipKind};
use crate::index::{Index, store_error};
use crate::tree::ours;

/// What the index of a share is called, in a root with this marker.
pub(super) fn file_name(share: ShareId, marker: Option<&Marker>) -> String {
    // The first share that a root joined has the plain name.
    let plain = marker.is_none_or(|m| m.is_only_in(share));
    let kept = marker.and_then(|m| m.part(share));
    match (plain, kept.map(|p| p.kind)) {
        (true, _) | (_, Some(MembershipKind::Sync)) => INDEX.to_owned(),
        _ => format!("{INDEX}-{}", share.short()),
    }
}

/// The index in a file, made if it is missing, and whether a damaged one had to be moved aside.
pub(super) fn open(env: &Arc<dyn Env>, base: &Dir, file: &str) -> Result<(Index, bool)> {
    let path = place::fd_path(base, file);
    let fresh = fresh_actor(env.as_ref());
    let ready = |mut index: Index| {
        index.tell(env);
        env.reach(Step::IndexOpened);
        index
    };
    let open = || SqliteStore::open(&path, OpenMode::Create);
    match open() {
        Ok(store) => match Index::open(Box::new(store), fresh) {
            Ok(index) => return Ok((ready(index), false)),
            Err(e) if e.kind == ErrorKind::Damaged => {}
            Err(e) => return Err(e),
        },
        Err(e) if e.kind() == instep_store::ErrorKind::Corrupt => {}
        Err(e) => return Err(store_error("open the index", e)),
    }
    set_aside(env.as_ref(), base, file);
    let store = open().map_err(|e| store_error("open the index", e))?;
    Ok((ready(Index::open(Box::new(store), fresh)?), true))
}

/// The store in a file, to be read only, if there is one.
pub(super) fn read(base: &Dir, file: &str) -> Result<Option<Box<dyn IndexStore>>> {
    let path = place::fd_path(base, file);
    match SqliteStore::open(&path, OpenMode::ReadOnly) {
        Ok(store) => Ok(Some(Box::new(store))),
        Err(e) if e.kind() == instep_store::ErrorKind::Missing => Ok(None),
        Err(e) => Err(store_error("open the index", e)),
    }
}

/// An actor that nobody was before.
pub(crate) fn fresh_actor(env: &dyn Env) -> ActorId {
    let random = env.random();
    let mut out = [0; 8];
    out.copy_from_slice(&random[..8]);
    ActorId(out)
}

/// Everything of a store, in memory, so that nothing is written anywhere.
pub(super) fn copy_to_memory(from: Option<Box<dyn IndexStore>>) -> Result<Box<dyn IndexStore>> {
    let mut to = MemoryDisk::new().open();
    let Some(mut from) = from else {
        return Ok(Box::new(to));
    };
    let fail = |e| store_error("copy the index", e);
    let mut rows = Vec::new();
    if let Some(row) = from.get(&RelPath::root()).map_err(fail)? {
        rows.push((RelPath::root(), row));
    }
    from.subtree(&RelPath::root(), &mut |p, r| {
        rows.push((p, r));
        ControlFlow::Continue(())
    })
    .map_err(fail)?;
    for (path, row) in rows {
        to.put(&path, &row).map_err(fail)?;
    }
    for table in Table::ALL {
        let mut records = Vec::new();
        from.records(table, &mut |k, b| {
            records.push((k.to_vec(), b.to_vec()));
            ControlFlow::Continue(())
        })
        .map_err(fail)?;
        for (key, body) in records {
            to.put_record(table, &key, &body).map_err(fail)?;
        }
    }
    Ok(Box::new(to))
}

/// Moves an index aside, with its companions. It stays in our directory until a person deletes it.
pub(super) fn set_aside(env: &dyn Env, base: &Dir, file: &str) {
    for suffix in ["", "-wal", "-shm"] {
        let from = format!("{file}{suffix}");
        for n in 0..100 {
            let to = format!("{file}.aside-{n}{suffix}");
            match base.rename_noreplace(ours(&from), base, ours(&to)) {
                Err(e) if e.kind() == FsErrorKind::Taken => {}
                Ok(()) => {
                    env.reach(Step::IndexAside);
                    break;
                }
                // Absent is fine; anything else shows when the new index is opened.
                _ => break,
            }
        }
    }
}
