//! Objects in the trash and the version store that no record lists: a kill came between the rename that
//! displaced them and the commit that would have said so, or the index that listed them is lost. They are found
//! again when the root is opened, because one of them may be the only copy of a version. So may what a power cut
//! left of one whose record is ahead of it.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use instep_core::id::ContentId;
use instep_core::path::Name;
use instep_core::plan::Keep;
use instep_core::version::Kind;
use instep_fs::{Dir, Stat};
use instep_replica::records::path_from_hex;
use instep_replica::{Result, Step};
use instep_store::Table;

use crate::index::store_error;
use crate::recover::{Intended, content, displaced_by};
use crate::replica::LocalReplica;
use crate::trash::{self, Displaced};

/// Set while something may be kept without a record because it could not be read.
const UNREAD: &[u8] = b"unlisted";

/// Lists what could not be read when it was looked for.
pub(crate) fn again(replica: &LocalReplica) -> Result<()> {
    let unread = replica.index().meta(UNREAD)?.is_some();
    if unread {
        return unlisted(replica, &[]);
    }
    Ok(())
}

/// Lists what is kept without a record.
pub(crate) fn unlisted(replica: &LocalReplica, intents: &[Intended]) -> Result<()> {
    let Some(ours) = replica.ours() else {
        return Ok(());
    };
    let mut is_unread = false;
    for (table, dir) in [(Table::Trash, &ours.trash), (Table::Stored, &ours.versions)] {
        let listed = keys(replica, table)?;
        let mut unlisted: Vec<(Vec<u8>, Stat)> = Vec::new();
        let read = dir.list_stat(&mut |name, stat| match stat {
            Ok(stat) if !listed.contains(name) => unlisted.push((name.to_vec(), stat)),
            Ok(_) => {}
            Err(_) => is_unread = true,
        });
        is_unread |= read.is_err();
        for (name, stat) in unlisted {
            let (Ok(key), Ok(name)) = (std::str::from_utf8(&name), Name::new(&name)) else {
                continue;
            };
            match examine(dir, name, &stat) {
                Ok(None) => {}
                Ok(Some((kind, id))) => {
                    let mut index = replica.index();
                    let (path, lost) = displaced_by(&mut index, intents, id)?;
                    let what = Displaced {
                        keep: lost.map_or(Keep::Trash, Keep::Version),
                        ..Displaced::interrupted(path, kind, id, stat.size)
                    };
                    trash::note_in(replica, &mut index, table, key, &what)?;
                    replica.env.reach(Step::Relisted);
                }
                Err(_) => is_unread = true,
            }
        }
    }
    // It stays where it is and is looked for again when the root is opened next.
    let mut index = replica.index();
    if is_unread {
        return index.put_meta(UNREAD, b"1");
    }
    let removed = index.store().remove_record(Table::Meta, UNREAD);
    removed.map_err(|e| store_error("write the index", e))
}

/// Records newer than the last epoch that surely is durable may tell of bytes that a power cut took, where
/// older ones are left: an object is listed as what it is.
pub(crate) fn ahead(replica: &LocalReplica, durable: u32) -> Result<()> {
    let Some(ours) = replica.ours() else {
        return Ok(());
    };
    for (table, dir) in [(Table::Trash, &ours.trash), (Table::Stored, &ours.versions)] {
        let records = trash::records(&mut replica.index(), table)?;
        for (key, record) in records.into_iter().filter(|(_, r)| r.epoch > durable) {
            let name = crate::tree::ours(&key);
            let Ok(Some(stat)) = dir.stat(name) else {
                continue;
            };
            let Ok(Some((kind, id))) = content(dir, name, &stat) else {
                continue;
            };
            if kind == Kind::Dir || id.to_string() == record.content {
                continue;
            }
            let path = path_from_hex(&record.path_hex);
            let what = Displaced::interrupted(path.as_ref(), kind, id, stat.size);
            trash::note_in(replica, &mut replica.index(), table, &key, &what)?;
            replica.env.reach(Step::Relisted);
        }
    }
    Ok(())
}

fn keys(replica: &LocalReplica, table: Table) -> Result<BTreeSet<Vec<u8>>> {
    let mut keys = BTreeSet::new();
    replica
        .index()
        .store()
        .records(table, &mut |key, _| {
            keys.insert(key.to_vec());
            ControlFlow::Continue(())
        })
        .map_err(|e| store_error("read the trash", e))?;
    Ok(keys)
}

/// What an object is, if it is one that is listed.
fn examine(dir: &Dir, name: Name<'_>, stat: &Stat) -> instep_fs::Result<Option<(Kind, ContentId)>> {
    if stat.kind == instep_fs::Kind::Dir {
        return Ok(None);
    }
    content(dir, name, stat)
}
