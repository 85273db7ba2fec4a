//! Rows that may be ahead of the disk: a power cut kept what the index tells and took what it tells of.
//!
//! Owns the second half of recovery, which needs no intent: every row newer than the last durable epoch is
//! held against the disk, and no row is left below what is no directory. Invariant: what a power cut took is
//! never taken for a deletion or an edit.

use std::collections::BTreeSet;
use std::ops::{ControlFlow, RangeInclusive};

use instep_core::id::ContentId;
use instep_core::path::RelPath;
use instep_core::row::{Print, Row};
use instep_core::time::Mtime;
use instep_core::version::{Kind, Version};
use instep_replica::{Result, Step};

use super::classify::is_kept_time;
use super::doubt::{is_sure, sure_epoch, zeros};
use super::earlier::Earlier;
use super::intent::Intended;
use super::on_disk::{OnDisk, on_disk};
use super::remedy::{Remedy, ancestor, set_aside, unknown, unseen};
use crate::index::store_error;
use crate::replica::LocalReplica;

/// After a power cut, rows newer than the last epoch that surely is durable may be ahead of the disk.
pub(super) fn suspects(replica: &LocalReplica, earlier: &Earlier) -> Result<()> {
    let mut rows = Vec::new();
    {
        let mut index = replica.index();
        let durable = sure_epoch(&mut index)?;
        index
            .store()
            .subtree(&RelPath::root(), &mut |path, row| {
                if row.epoch > durable {
                    rows.push((path, row));
                }
                ControlFlow::Continue(())
            })
            .map_err(|e| store_error("read the index", e))?;
    }
    for (path, row) in rows {
        suspect(replica, path, &row, earlier)?;
        replica.env.reach(Step::Suspected);
    }
    is_sure(&mut replica.index())
}

/// Rows that say something is below what is no directory: a look never gets there, so nobody else would
/// miss it. What the others know decides whether it is brought again.
pub(super) fn orphans(replica: &LocalReplica) -> Result<()> {
    let mut dirs = BTreeSet::from([RelPath::root()]);
    let mut orphans = Vec::new();
    let mut index = replica.index();
    index
        .store()
        .subtree(&RelPath::root(), &mut |path, row| {
            if row.print.is_none() {
                return ControlFlow::Continue(());
            }
            // Each comes after what it is in: a directory that is an orphan makes orphans of all that is below it.
            if path.parent().is_none_or(|dir| !dirs.contains(&dir)) {
                orphans.push((path, row));
            } else if row.is_dir() {
                dirs.insert(path);
            }
            ControlFlow::Continue(())
        })
        .map_err(|e| store_error("read the index", e))?;
    for (path, row) in orphans {
        index.put(&path, Some(&row), &unseen(&row))?;
    }
    Ok(())
}

/// What tells a file that is there from the one that a row tells of.
struct Look {
    /// The number of that file, where files keep it.
    ino: Option<u64>,
    granularity_ns: u32,
    /// It may be a part of a file that was brought to the path earlier.
    part: bool,
    /// When a look of ours noted that the name was gone, and now: a file that changed its name or its inode between
    /// these came there again. A time that is still to come tells of a clock that jumped.
    gone_ns: Option<RangeInclusive<i64>>,
}

impl Look {
    fn of(replica: &LocalReplica, row: &Row, part: bool) -> Result<Self> {
        let gone_ns = noted_gone(replica, row)?;
        let number = row.print.filter(|_| replica.profile.keeps_inodes());
        Ok(Self {
            ino: number.map(|p| p.ino),
            granularity_ns: replica.profile.mtime_granularity_ns,
            part,
            gone_ns,
        })
    }

    /// Whether what has the name was given it after a look had noted that the name was gone: no power cut brought it
    /// back.
    fn came_again(&self, ctime: Mtime) -> bool {
        let gone = self.gone_ns.as_ref().zip(ctime.nanos_since_epoch());
        gone.is_some_and(|(since, at)| since.contains(&at) && at != *since.start())
    }

    /// Whether a file with this time may be the version: its own time, as far as the file system keeps it.
    fn is_time_of(&self, version: &Version, mtime: Mtime) -> bool {
        is_kept_time(self.granularity_ns, version.mtime, mtime)
    }
}

/// The time since a deletion of a user here was noted. A deletion that we brought has the clock of somebody else.
fn noted_gone(replica: &LocalReplica, row: &Row) -> Result<Option<RangeInclusive<i64>>> {
    let dot = row.materialised();
    let tomb = row.on_disk().filter(|v| v.is_tomb());
    let Some((dot, tomb)) = dot.zip(tomb) else {
        return Ok(None);
    };
    let is_ours = replica.index().has_minted_as(dot.actor)?;
    Ok(is_ours.then(|| tomb.te..=replica.env.wall_ns()))
}

fn suspect(replica: &LocalReplica, path: RelPath, row: &Row, earlier: &Earlier) -> Result<()> {
    let Some(version) = row.on_disk() else {
        return Ok(());
    };
    let seen = on_disk(replica, &path);
    let is_missing = matches!(seen, OnDisk::Nothing);
    let part = earlier.has_part(replica, &path, Some(row), &seen);
    let look = Look::of(replica, row, part)?;
    let had = |content, ctime| earlier.had(&path, content, ctime);
    let new = match decide(seen, version, &look, had) {
        Remedy::Leave => return Ok(()),
        Remedy::SetAside => {
            let intended = Intended {
                path,
                old: None,
                entry: row.entry.clone(),
                shown: row.shown,
            };
            return set_aside(replica, &intended, seen);
        }
        Remedy::Unseen if is_missing => unseen(row),
        Remedy::Unseen => unknown(replica, row),
        Remedy::Ancestor(file, print) => ancestor(replica, row, *file, print),
        Remedy::InPlace(print) => Row {
            print: print.map(|seen| seen_again(replica, row, seen)),
            ..row.clone()
        },
    };
    replica.index().put(&path, Some(row), &new)
}

fn decide(
    seen: OnDisk,
    version: &Version,
    look: &Look,
    had: impl Fn(ContentId, Mtime) -> bool,
) -> Remedy {
    let file = seen.file().filter(|_| !version.is_tomb());
    match seen {
        OnDisk::Unknown if version.is_tomb() => Remedy::Leave,
        OnDisk::Unknown => Remedy::Unseen,
        // A creation that was lost: fetched again, never taken for a deletion.
        OnDisk::Nothing if !version.is_tomb() => Remedy::Unseen,
        OnDisk::Nothing => Remedy::Leave,
        OnDisk::Something {
            kind,
            content,
            print,
            ..
        } if kind == version.kind && content == version.content => Remedy::InPlace(Some(print)),
        OnDisk::Something {
            kind: Kind::Dir, ..
        } if version.is_tomb() => Remedy::SetAside,
        OnDisk::Something { ctime, .. } if look.came_again(ctime) => Remedy::Unseen,
        OnDisk::Something {
            content,
            size,
            mtime,
            ctime,
            print,
            ..
        } => {
            let came_before = version.prev.contains(&content) || had(content, ctime);
            if let Some((file, print)) = file.filter(|_| came_before) {
                return Remedy::Ancestor(file, print);
            }
            let superseded = came_before || content == version.content;
            // Shorter and newer is a save that nobody had seen yet; shorter and another file is one that a user
            // moved here; shorter and older is what a user's file was before, because what we bring has its time
            // before it has a name.
            let is_it = look.ino.is_none_or(|ino| ino == print.ino);
            let short = is_it && size < version.size && look.is_time_of(version, mtime);
            let torn = short || content == zeros(size);
            if superseded || look.part || (torn && !version.is_tomb()) {
                return Remedy::SetAside;
            }
            // Its fingerprint may be that of the version although the bytes are not.
            Remedy::Unseen
        }
    }
}

/// The fingerprint to record of what has the right content. Where a power cut took a change of permissions, the next
/// plan makes it again; in a root that takes no changes the old fingerprint stays, so that the next look finds what is
/// there.
fn seen_again(replica: &LocalReplica, row: &Row, seen: Print) -> Print {
    let old = row.print.filter(|p| p.mode != seen.mode);
    old.filter(|_| !replica.is_writable()).unwrap_or(seen)
}
