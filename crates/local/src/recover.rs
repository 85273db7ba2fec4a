//! What is about to be done, written down first; and what to make of a disk after a crash.
//!
//! An intent names, for each path of a batch, the content that is being put there and everything the index
//! will know. It survives the death of the process before the first name exists, and a power cut before the
//! first user file is displaced. After a crash the disk is classified by content:
//!
//! | disk has | meaning | action |
//! |---|---|---|
//! | the new content | done, commit lost | the row is written; no dot is minted |
//! | the old content | not done | nothing; it is planned again |
//! | neither, same boot | a user's edit | the next look mints it |
//! | neither, other boot | torn by a power cut | kept in trash, fetched again; no dot is minted |

use std::collections::BTreeSet;

use instep_core::codec::{self, DecodeError, Reader};
use instep_core::entry::{Entry, Relation};
use instep_core::id::{ActorId, ContentId, Dot};
use instep_core::limits;
use instep_core::path::{Name, RelPath};
use instep_core::plan::{Action, Goal, Keep, Precondition};
use instep_core::row::{Print, Row};
use instep_core::version::{Kind, Version};
use instep_fs::Dir;
use instep_replica::Result;
use instep_replica::look::Found;
use instep_store::{Durability, Table};

use crate::content::{Hashed, hash_file};
use crate::index::{Index, store_error};
use crate::print::print;
use crate::replica::LocalReplica;
use crate::trash::{self, Displaced};
use crate::tree;

/// One path of an intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intended {
    /// Where.
    pub path: RelPath,
    /// What was there; none means nothing.
    pub old: Option<ContentId>,
    /// What the index will know.
    pub entry: Entry,
    /// What is to be there.
    pub shown: Option<Dot>,
}

fn changes_names(action: &Action) -> bool {
    matches!(
        action.goal,
        Goal::File { .. } | Goal::Link { .. } | Goal::Dir { .. } | Goal::Absent
    )
}

/// Writes down what a batch is about to do.
pub fn intend(replica: &LocalReplica, actions: &[Action]) -> Result<()> {
    let intended: Vec<&Action> = actions.iter().filter(|a| changes_names(a)).collect();
    if intended.is_empty() {
        return Ok(());
    }
    let displaces = intended.iter().any(|a| a.before != Precondition::Absent);
    let body = encode(&intended);
    let mut index = replica.index();
    let key = trash::fresh_name(replica);
    index
        .store()
        .put_record(Table::Intent, key.as_bytes(), &body)
        .map_err(|e| store_error("write an intent", e))?;
    index.commit(if displaces {
        Durability::Power
    } else {
        Durability::Process
    })
}

fn encode(actions: &[&Action]) -> Vec<u8> {
    let mut out = Vec::with_capacity(actions.len() * 160);
    codec::put_u64(&mut out, actions.len() as u64);
    for a in actions {
        codec::put_bytes(&mut out, a.path.as_bytes());
        match a.before {
            Precondition::Absent => out.push(0),
            Precondition::Unchanged { content, .. } => {
                out.push(1);
                out.extend_from_slice(&content.0);
            }
        }
        codec::put_entry(&mut out, &a.entry);
        match a.shown {
            None => out.push(0),
            Some(dot) => {
                out.push(1);
                out.extend_from_slice(&dot.actor.0);
                codec::put_u64(&mut out, dot.counter);
            }
        }
    }
    out
}

/// Reads an intent.
pub fn decode(bytes: &[u8]) -> core::result::Result<Vec<Intended>, DecodeError> {
    let mut r = Reader::new(bytes);
    let n = r.count(bytes.len())?;
    let mut out = Vec::with_capacity(n.min(1024));
    for _ in 0..n {
        let path =
            RelPath::new(r.bytes(limits::PATH_BYTES_MAX)?).map_err(|_| DecodeError::Invalid)?;
        let old = match r.u8()? {
            0 => None,
            _ => Some(ContentId(r.array()?)),
        };
        let entry = codec::entry(&mut r)?;
        let shown = match r.u8()? {
            0 => None,
            _ => Some(Dot {
                actor: ActorId(r.array()?),
                counter: r.u64()?,
            }),
        };
        out.push(Intended {
            path,
            old,
            entry,
            shown,
        });
    }
    r.finish()?;
    Ok(out)
}

/// Forgets all intents: the barrier has made what they announced durable.
pub fn fulfilled(index: &mut crate::index::Index) -> Result<()> {
    let mut keys = Vec::new();
    index
        .store()
        .records(Table::Intent, &mut |key, _| {
            keys.push(key.to_vec());
            std::ops::ControlFlow::Continue(())
        })
        .map_err(|e| store_error("read intents", e))?;
    for key in keys {
        index
            .store()
            .remove_record(Table::Intent, &key)
            .map_err(|e| store_error("forget an intent", e))?;
    }
    Ok(())
}

/// Brings index and disk together after the process or the machine died. `other_boot` tells which.
pub fn after_crash(replica: &LocalReplica, other_boot: bool) -> Result<()> {
    let mut all = Vec::new();
    {
        let mut index = replica.index();
        index
            .store()
            .records(Table::Intent, &mut |_, body| {
                all.extend(decode(body).unwrap_or_default());
                std::ops::ControlFlow::Continue(())
            })
            .map_err(|e| store_error("read intents", e))?;
    }
    for intended in &all {
        classify(replica, intended, other_boot)?;
    }
    if other_boot {
        suspects(replica)?;
        replica.index().put_meta(DOUBT, b"1")?;
    }
    orphans(replica)?;
    if other_boot {
        // The copy under way may be the last one now: it is kept, whoever had it before.
        all.iter_mut().for_each(|i| i.entry = Entry::default());
    }
    sweep(replica, &all);
    crate::relist::unlisted(replica, &all)?;
    let mut index = replica.index();
    fulfilled(&mut index)?;
    // Rows may say less than before: nobody may rely on all replicas being in step.
    index
        .store()
        .remove_record(Table::Meta, b"settled")
        .map_err(|e| store_error("write a record", e))?;
    index.commit(Durability::Process)
}

/// Set from a power cut until the next clean end.
const DOUBT: &[u8] = b"doubt";

/// Whether files may be there whose data and row a power cut took.
pub fn is_doubtful(index: &mut Index) -> Result<bool> {
    Ok(index.meta(DOUBT)?.is_some())
}

/// Everything that is there has been looked at.
pub fn trusted(index: &mut Index) -> Result<()> {
    index
        .store()
        .remove_record(Table::Meta, DOUBT)
        .map_err(|e| store_error("write the index", e))
}

/// A file without a row that is empty or all zeros may be what is left of one that we were bringing. What
/// is minted for it gives way to anything that others have at the path.
pub fn doubt(row: &Row, found: &Found, new: &mut Row) {
    let Found::Present {
        kind: Kind::File,
        content,
        size,
        ..
    } = found
    else {
        return;
    };
    let minted = new.shown.filter(|d| row.entry.get(*d).is_none());
    let Some(minted) = minted.filter(|_| row.shown.is_none() && *content == zeros(*size)) else {
        return;
    };
    let aged = |(dot, version): &(Dot, Version)| {
        let mut version = version.clone();
        if *dot == minted {
            (version.te, version.mode_te) = (0, 0);
        }
        (*dot, version)
    };
    let siblings = new.entry.siblings().iter().map(aged).collect();
    if let Some(entry) = Entry::from_parts(new.entry.ctx().clone(), siblings) {
        new.entry = entry;
    }
}

/// What is at a path: nothing, or its kind, content and look.
enum OnDisk {
    Nothing,
    Something {
        kind: Kind,
        content: ContentId,
        print: Print,
        size: u64,
    },
    Unknown,
}

fn on_disk(replica: &LocalReplica, path: &RelPath) -> OnDisk {
    let Some((parent, name)) = path.split() else {
        return OnDisk::Unknown;
    };
    let dir = match tree::open(&replica.root, &parent) {
        Ok(dir) => dir,
        Err(e)
            if matches!(
                e.kind(),
                instep_fs::ErrorKind::Absent | instep_fs::ErrorKind::OtherKind
            ) =>
        {
            return OnDisk::Nothing;
        }
        Err(_) => return OnDisk::Unknown,
    };
    let stat = match dir.stat(name) {
        Ok(Some(stat)) => stat,
        Ok(None) => return OnDisk::Nothing,
        Err(_) => return OnDisk::Unknown,
    };
    let (kind, content) = match stat.kind {
        instep_fs::Kind::Dir => (Kind::Dir, ContentId::NONE),
        instep_fs::Kind::Link => match dir.read_link(name) {
            Ok(target) => (Kind::Link, instep_chunk::hash::content_id(&target)),
            Err(_) => return OnDisk::Unknown,
        },
        instep_fs::Kind::File => {
            let hashed = dir
                .open_file(name)
                .and_then(|f| hash_file(&f, &stat, &mut Vec::new()));
            match hashed {
                Ok(Hashed::Content { id, .. }) => (Kind::File, id),
                _ => return OnDisk::Unknown,
            }
        }
        instep_fs::Kind::Special => return OnDisk::Unknown,
    };
    OnDisk::Something {
        kind,
        content,
        print: print(&stat),
        size: stat.size,
    }
}

fn classify(replica: &LocalReplica, intended: &Intended, other_boot: bool) -> Result<()> {
    let path = &intended.path;
    let want = intended.entry.get_shown(intended.shown);
    let mut index = replica.index();
    let old = index.get(path)?;
    let epoch = index.epoch();
    // The row has moved on since: the intent was carried out, and what a user did after it counts.
    let moved_on = |r: &Row| {
        let relation = r.entry.relation(&intended.entry);
        matches!(relation, Relation::After | Relation::Concurrent)
    };
    if old.as_ref().is_some_and(moved_on) {
        return Ok(());
    }
    let adopted = |print| Row {
        entry: intended.entry.clone(),
        shown: intended.shown,
        print,
        held: None,
        epoch,
    };
    drop(index);
    let new = match on_disk(replica, path) {
        OnDisk::Unknown => return Ok(()),
        OnDisk::Nothing if want.is_none_or(instep_core::version::Version::is_tomb) => adopted(None),
        // A name does not go away when a process dies: a user took it away, and the next look says so.
        // Only where names cannot be exchanged there is a moment without one.
        OnDisk::Nothing if !other_boot && replica.profile.exchange => return Ok(()),
        OnDisk::Nothing => Row {
            shown: None,
            print: None,
            ..old.clone().unwrap_or_default()
        },
        OnDisk::Something {
            kind,
            content,
            print,
            ..
        } if want.is_some_and(|v| v.kind == kind && v.content == content) => {
            adopted(want.map(|v| installed(v, print)))
        }
        OnDisk::Something { content, .. } if intended.old == Some(content) => {
            // The row may have been committed although the name was lost: what is there is the old version.
            let says_new = |r: &Row| r.entry == intended.entry && r.shown == intended.shown;
            let knows_new = old.as_ref().is_some_and(says_new);
            return if knows_new {
                set_aside(replica, path, intended)
            } else {
                Ok(())
            };
        }
        OnDisk::Something { .. } if other_boot => return set_aside(replica, path, intended),
        OnDisk::Something { .. } => return Ok(()),
    };
    let mut index = replica.index();
    index.put(path, old.as_ref(), &new)
}

/// The fingerprint to record of a version that was being installed, given what it looks like. Other
/// permissions than its own are a user's change, which the next look must find; but a directory is open for
/// its owner until its contents are in.
fn installed(version: &Version, seen: Print) -> Print {
    let as_made = match version.kind {
        Kind::Link => true,
        Kind::Dir => seen.mode == version.mode || seen.mode == version.mode | 0o700,
        Kind::File | Kind::Tomb => seen.mode == version.mode,
    };
    if as_made {
        return seen;
    }
    Print {
        mode: version.mode,
        hash: !seen.hash,
        ..seen
    }
}

/// Moves what is at a path to trash and leaves the path to be fetched again.
fn set_aside(replica: &LocalReplica, path: &RelPath, intended: &Intended) -> Result<()> {
    let OnDisk::Something {
        kind,
        content,
        size,
        print,
    } = on_disk(replica, path)
    else {
        return Ok(());
    };
    let Some((parent, name)) = path.split() else {
        return Ok(());
    };
    if kind == Kind::Dir {
        // It stands for what is in it; whether it may stand is decided as for any other.
        let mut index = replica.index();
        let old = index.get(path)?;
        let row = Row {
            entry: intended.entry.clone(),
            shown: None,
            print: Some(print),
            held: None,
            epoch: index.epoch(),
        };
        return index.put(path, old.as_ref(), &row);
    }
    let Ok(dir) = tree::open(&replica.root, &parent) else {
        return Ok(());
    };
    let Ok(key) = trash::put(replica, &dir, name, Keep::Trash) else {
        return Ok(());
    };
    let mut index = replica.index();
    let what = Displaced {
        path: path.clone(),
        kind,
        content,
        size,
        why: "interrupted",
        by: String::new(),
        keep: Keep::Trash,
    };
    trash::note(replica, &mut index, &key, &what)?;
    let old = index.get(path)?;
    let row = Row {
        entry: intended.entry.clone(),
        shown: None,
        print: None,
        held: None,
        epoch: index.epoch(),
    };
    index.put(path, old.as_ref(), &row)
}

/// After a power cut, rows newer than the last durable epoch may be ahead of the disk.
fn suspects(replica: &LocalReplica) -> Result<()> {
    let mut rows = Vec::new();
    {
        let mut index = replica.index();
        let durable = index.durable_epoch();
        index
            .store()
            .subtree(&RelPath::root(), &mut |path, row| {
                if row.epoch > durable {
                    rows.push((path, row));
                }
                std::ops::ControlFlow::Continue(())
            })
            .map_err(|e| store_error("read the index", e))?;
    }
    for (path, row) in rows {
        suspect(replica, &path, &row)?;
    }
    Ok(())
}

/// Rows that say something is below what is no directory: a look never gets there, so nobody else would
/// miss it. What the others know decides whether it is brought again.
fn orphans(replica: &LocalReplica) -> Result<()> {
    let mut dirs = BTreeSet::from([RelPath::root()]);
    let mut tracked = Vec::new();
    let mut index = replica.index();
    index
        .store()
        .subtree(&RelPath::root(), &mut |path, row| {
            if row.print.is_some() {
                if row.is_derived_dir() || row.present().is_some_and(|v| v.kind == Kind::Dir) {
                    dirs.insert(path.clone());
                }
                tracked.push(path);
            }
            std::ops::ControlFlow::Continue(())
        })
        .map_err(|e| store_error("read the index", e))?;
    for path in tracked {
        if path.parent().is_some_and(|dir| dirs.contains(&dir)) {
            continue;
        }
        if let Some(row) = index.get(&path)? {
            let gone = Row {
                shown: None,
                print: None,
                ..row.clone()
            };
            index.put(&path, Some(&row), &gone)?;
        }
    }
    Ok(())
}

fn suspect(replica: &LocalReplica, path: &RelPath, row: &Row) -> Result<()> {
    let Some(version) = row.on_disk() else {
        return Ok(());
    };
    let intended = Intended {
        path: path.clone(),
        old: None,
        entry: row.entry.clone(),
        shown: row.shown,
    };
    match on_disk(replica, path) {
        OnDisk::Unknown => Ok(()),
        // A creation that was lost: fetched again, never taken for a deletion.
        OnDisk::Nothing if !version.is_tomb() => {
            let lost = Row {
                shown: None,
                print: None,
                ..row.clone()
            };
            replica.index().put(path, Some(row), &lost)
        }
        OnDisk::Nothing => Ok(()),
        OnDisk::Something {
            kind,
            content,
            print,
            ..
        } if kind == version.kind && content == version.content => {
            let seen = Row {
                print: dressed(replica, path, row, print),
                ..row.clone()
            };
            replica.index().put(path, Some(row), &seen)
        }
        OnDisk::Something {
            kind: Kind::Dir, ..
        } if version.is_tomb() => set_aside(replica, path, &intended),
        OnDisk::Something { content, size, .. } => {
            let superseded = version.prev.contains(&content) || content == version.content;
            let torn = size < version.size || content == zeros(size);
            if superseded || (torn && !version.is_tomb()) {
                return set_aside(replica, path, &intended);
            }
            // Its fingerprint may be that of the version although the bytes are not: the next look must
            // read it, and what it finds stands beside what is known.
            let unknown = Row {
                shown: None,
                print: None,
                ..row.clone()
            };
            replica.index().put(path, Some(row), &unknown)
        }
    }
}

/// The fingerprint to record of what has the right content. A change of permissions that the power cut took
/// is made again; where that cannot be, the old fingerprint stays, so that the next look finds what is there.
fn dressed(replica: &LocalReplica, path: &RelPath, row: &Row, seen: Print) -> Option<Print> {
    let Some(mode) = row.print.map(|p| p.mode).filter(|m| *m != seen.mode) else {
        return Some(seen);
    };
    let again = || {
        let (parent, name) = path.split().filter(|_| replica.is_writable())?;
        let dir = tree::open(&replica.root, &parent).ok()?;
        let stat = dir.stat(name).ok()?.filter(|s| print(s) == seen)?;
        dir.set_mode(name, stat.mode & 0o7000 | u32::from(mode))
            .ok()?;
        let now = dir.stat(name).ok()??;
        let ours = now.ino == stat.ino && now.size == stat.size && now.mtime == stat.mtime;
        Some(print(&now)).filter(|p| (ours || stat.kind == instep_fs::Kind::Dir) && p.mode == mode)
    };
    again().or(row.print)
}

/// The content of a file whose data never reached the disk.
fn zeros(size: u64) -> ContentId {
    const ZEROS: &[u8] = &[0; 64 * 1024];
    let mut hasher = instep_chunk::hash::Hasher::new();
    let mut left = size;
    while left > 0 {
        let n = left.min(ZEROS.len() as u64);
        hasher.update(&ZEROS[..n as usize]);
        left -= n;
    }
    hasher.finish()
}

/// Clears the staging directory: a displaced file that had not reached its place is kept, the rest was
/// never anybody's.
pub(crate) fn sweep(replica: &LocalReplica, intents: &[Intended]) {
    let Some(dirs) = replica.ours() else { return };
    let mut names: Vec<Vec<u8>> = Vec::new();
    let listed = dirs.staging.list(&mut |name, _| names.push(name.to_vec()));
    if listed.is_err() {
        return;
    }
    for name in names {
        let Ok(name) = Name::new(&name) else {
            continue;
        };
        let Ok(Some(stat)) = dirs.staging.stat(name) else {
            continue;
        };
        if stat.kind == instep_fs::Kind::Dir {
            keep_below(replica, &dirs.staging, name);
            continue;
        }
        keep_or_drop(replica, name, &stat, intents);
    }
}

/// A directory that was displaced with something in it, and could not be given back: files and links are
/// kept, the directories go.
fn keep_below(replica: &LocalReplica, parent: &Dir, name: Name<'_>) {
    let mut names: Vec<Vec<u8>> = Vec::new();
    let Ok(dir) = parent.open_dir(name) else {
        return;
    };
    if dir
        .list(&mut |child, _| names.push(child.to_vec()))
        .is_err()
    {
        return;
    }
    for child in &names {
        let Ok(child) = Name::new(child) else {
            continue;
        };
        match dir.stat(child) {
            Ok(Some(stat)) if stat.kind == instep_fs::Kind::Dir => keep_below(replica, &dir, child),
            // Without a record the object is still in the trash directory, only unlisted.
            Ok(Some(_)) => drop(trash::put(replica, &dir, child, Keep::Trash)),
            _ => {}
        }
    }
    // Whatever could not be moved keeps it standing until the next start.
    let _left_if_full = parent.remove_dir(name);
}

fn keep_or_drop(
    replica: &LocalReplica,
    name: Name<'_>,
    stat: &instep_fs::Stat,
    intents: &[Intended],
) {
    let Some(dirs) = replica.ours() else { return };
    let hashed = match stat.kind {
        instep_fs::Kind::File => dirs
            .staging
            .open_file(name)
            .and_then(|f| hash_file(&f, stat, &mut Vec::new())),
        _ => dirs.staging.read_link(name).map(|t| Hashed::Content {
            id: instep_chunk::hash::content_id(&t),
            high_entropy: false,
        }),
    };
    let Ok(Hashed::Content { id, .. }) = hashed else {
        return;
    };
    // Content that some intent was bringing exists elsewhere; anything else may be a user's only copy.
    let was_brought = intents
        .iter()
        .any(|i| i.entry.siblings().iter().any(|(_, v)| v.content == id));
    let displaced = intents.iter().any(|i| i.old == Some(id));
    if was_brought && !displaced {
        let _litter = dirs.staging.remove_file(name);
        return;
    }
    let path = intents
        .iter()
        .find(|i| i.old == Some(id))
        .map(|i| i.path.clone());
    let what = Displaced {
        path: path.unwrap_or_else(RelPath::root),
        kind: if stat.kind == instep_fs::Kind::Link {
            Kind::Link
        } else {
            Kind::File
        },
        content: id,
        size: stat.size,
        why: "interrupted",
        by: String::new(),
        keep: Keep::Trash,
    };
    if let Ok(key) = trash::put(replica, &dirs.staging, name, Keep::Trash) {
        let mut index = replica.index();
        // Without its record the object is still in the trash directory, only unlisted.
        let _unlisted = trash::note(replica, &mut index, &key, &what);
    }
}
