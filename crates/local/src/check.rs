//! Reading content again: files at their paths, and what is kept in the trash and the version store.
//!
//! Owns which files count as damaged here. Invariant: a file is called decayed only if it stood still while it
//! was read, nobody had it open for writing, and the index still said the same of it afterwards. Nothing is
//! written.

use std::collections::BTreeSet;
use std::sync::Mutex;

use instep_core::id::ContentId;
use instep_core::path::{Name, RelPath};
use instep_core::plan::{Code, Problem};
use instep_core::row::Row;
use instep_core::version::Kind;
use instep_fs::{Dir, ErrorKind, File, Stat};
use instep_replica::records::{DamageRecord, TrashRecord, path_from_hex};
use instep_replica::{Checked, Result};
use instep_store::Table;

use crate::content::{Hashed, hash_file};
use crate::index::store_error;
use crate::print::{hash_bytes, print};
use crate::replica::{LocalReplica, locked};
use crate::scan;
use crate::tree::{self, ours};

/// The paths of files whose content is not to be passed on, as the records say: read when first asked for.
#[derive(Debug, Default)]
pub(crate) struct Damaged(Mutex<Option<BTreeSet<RelPath>>>);

impl Damaged {
    /// Whether a file is listed as damaged.
    pub(crate) fn has(&self, replica: &LocalReplica, path: &RelPath) -> bool {
        if let Some(known) = &*locked(&self.0) {
            return known.contains(path);
        }
        // Records that cannot be read now are asked for again.
        let Ok(records) = DamageRecord::all(replica) else {
            return false;
        };
        let known: BTreeSet<RelPath> = records.into_keys().collect();
        let is_listed = known.contains(path);
        *locked(&self.0) = Some(known);
        is_listed
    }

    /// The records changed.
    pub(crate) fn forget(&self) {
        locked(&self.0).take();
    }
}

/// Reads the file at a path again.
pub(crate) fn file(replica: &LocalReplica, path: &RelPath) -> Result<Checked> {
    let row = replica.index().get(path)?;
    let is_here = |r: &Row| r.held.is_none() && r.present().is_some_and(|v| v.kind == Kind::File);
    let Some((row, (parent, name))) = row.filter(is_here).zip(path.split()) else {
        return Ok(Checked::Nothing);
    };
    let opened = tree::open(&replica.root, &parent)
        .and_then(|dir| dir.open_file(name))
        .and_then(|file| file.stat().map(|stat| (file, stat)));
    let (file, stat) = match opened {
        Ok(opened) => opened,
        Err(e) => return Ok(unopened(path, &e)),
    };
    let read = read(replica, path, &row, &file, &stat);
    // Whoever has the index may have put something else there meanwhile.
    let is_same = replica.index().get(path)?.as_ref() == Some(&row);
    Ok(if is_same { read } else { Checked::Busy })
}

fn read(replica: &LocalReplica, path: &RelPath, row: &Row, file: &File, stat: &Stat) -> Checked {
    let (Some(print_then), Some(recorded)) = (row.print, row.present()) else {
        return Checked::Nothing;
    };
    let touched = print(stat) != print_then;
    let looks_same = print_then.ino == stat.ino
        && stat.kind == instep_fs::Kind::File
        && (stat.size, stat.mtime) == (recorded.size, recorded.mtime);
    if touched && !looks_same {
        return Checked::Changed;
    }
    if replica.profile.leases && matches!(file.read_lease(), Ok(None)) {
        return Checked::Busy;
    }
    match hash_file(file, stat, false, &mut Vec::new()) {
        Ok(Hashed::Changing) => Checked::Busy,
        Ok(Hashed::Content { id, .. }) if id == recorded.content => Checked::Sound(stat.size),
        Ok(Hashed::Content { id, .. }) => {
            let found = scan::present(Kind::File, id, stat, Box::default(), false);
            let found = Box::new(found);
            Checked::Decayed { found, touched }
        }
        Err(e) => unreadable(path, &e),
    }
}

fn unopened(path: &RelPath, e: &instep_fs::Error) -> Checked {
    match e.kind() {
        ErrorKind::Absent | ErrorKind::OtherKind => Checked::Changed,
        _ => unreadable(path, e),
    }
}

fn unreadable(path: &RelPath, e: &instep_fs::Error) -> Checked {
    Checked::Unreadable(Problem {
        path: path.clone(),
        code: Code::Unreadable,
        detail: e.to_string(),
    })
}

/// Reads what is kept under a key again.
pub(crate) fn kept(replica: &LocalReplica, key: &str) -> Result<Checked> {
    let Some((dir, record)) = kept_as(replica, key)? else {
        return Ok(Checked::Nothing);
    };
    let content = record.content.parse::<ContentId>().ok();
    let content = content.filter(|c| *c != ContentId::NONE && record.kind == "file");
    let (Some(content), Some(path)) = (content, path_from_hex(&record.path_hex)) else {
        return Ok(Checked::Nothing);
    };
    let opened = dir.open_file(ours(key));
    let (file, stat) = match opened.and_then(|file| file.stat().map(|stat| (file, stat))) {
        Ok(opened) => opened,
        Err(e) => return Ok(unreadable(&path, &e)),
    };
    Ok(match hash_file(&file, &stat, false, &mut Vec::new()) {
        Ok(Hashed::Changing) => Checked::Busy,
        Ok(Hashed::Content { id, .. }) if id == content => Checked::Sound(stat.size),
        Ok(Hashed::Content { id, .. }) => {
            let found = scan::present(Kind::File, id, &stat, Box::default(), false);
            let (found, touched) = (Box::new(found), false);
            Checked::Decayed { found, touched }
        }
        Err(e) => unreadable(&path, &e),
    })
}

fn kept_as(replica: &LocalReplica, key: &str) -> Result<Option<(Dir, TrashRecord)>> {
    let Some(dirs) = replica.ours() else {
        return Ok(None);
    };
    // A record under a key that is no name was not written here.
    if Name::new(key.as_bytes()).is_err() {
        return Ok(None);
    }
    for (table, dir) in [(Table::Trash, &dirs.trash), (Table::Stored, &dirs.versions)] {
        let body = replica.index().store().record(table, key.as_bytes());
        let body = body.map_err(|e| store_error("read the trash", e))?;
        if let Some(record) = body.and_then(|b| serde_json::from_slice(&b).ok()) {
            return Ok(Some((dir.clone(), record)));
        }
    }
    Ok(None)
}

/// Files of one directory, both drawn by the seed.
pub(crate) fn sample(replica: &LocalReplica, seed: u64, count: usize) -> Result<Vec<RelPath>> {
    let mut index = replica.index();
    let Some(dir) = index.some_dir(seed) else {
        return Ok(Vec::new());
    };
    let mut drawn: BTreeSet<(u64, RelPath)> = BTreeSet::new();
    index.children(&dir, &mut |name, row| {
        if row.present().is_some_and(|v| v.kind == Kind::File) {
            drawn.insert((hash_bytes(name.as_bytes(), seed), dir.join(name)));
            if drawn.len() > count {
                drawn.pop_last();
            }
        }
    })?;
    Ok(drawn.into_iter().map(|(_, path)| path).collect())
}
