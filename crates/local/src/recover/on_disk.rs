//! What is at a path now, by content: the evidence that recovery decides on.
//!
//! Invariant: what cannot be read is unknown, never nothing. A name below what is no directory is nothing. What may
//! change once more without a trace has a fingerprint that nothing has. Reads only.

use instep_core::id::ContentId;
use instep_core::path::{Name, RelPath};
use instep_core::row::Print;
use instep_core::time::Mtime;
use instep_core::version::{Kind, Version};
use instep_fs::{Dir, ErrorKind, Stat};

use crate::content::{Hashed, hash_file};
use crate::print::{print, unlike_any, unstamped_ms};
use crate::replica::LocalReplica;
use crate::tree;

/// What is at a path: nothing, or its kind, content and look.
#[derive(Debug, Clone, Copy)]
pub(super) enum OnDisk {
    /// There is no such name.
    Nothing,
    /// It was read to its end.
    Something {
        kind: Kind,
        content: ContentId,
        print: Print,
        size: u64,
        mtime: Mtime,
        ctime: Mtime,
    },
    /// It cannot be read, or is nothing that is synchronized.
    Unknown,
}

impl OnDisk {
    /// A whole file as a version without an instant, with its fingerprint.
    pub(super) fn file(&self) -> Option<(Box<Version>, Print)> {
        let Self::Something {
            kind: Kind::File,
            content,
            print,
            size,
            mtime,
            ..
        } = self
        else {
            return None;
        };
        let version = Version {
            content: *content,
            size: *size,
            mode: print.mode,
            mtime: *mtime,
            ..Version::bare(Kind::File)
        };
        Some((Box::new(version), *print))
    }
}

/// Looks at a path.
pub(super) fn on_disk(replica: &LocalReplica, path: &RelPath) -> OnDisk {
    let Some((parent, name)) = path.split() else {
        return OnDisk::Unknown;
    };
    let dir = match tree::open(&replica.root, &parent) {
        Ok(dir) => dir,
        Err(e) if matches!(e.kind(), ErrorKind::Absent | ErrorKind::OtherKind) => {
            return OnDisk::Nothing;
        }
        Err(_) => return OnDisk::Unknown,
    };
    let stat = match dir.stat(name) {
        Ok(Some(stat)) => stat,
        Ok(None) => return OnDisk::Nothing,
        Err(_) => return OnDisk::Unknown,
    };
    let print = vouched(replica, &dir, name, &stat);
    match content(&dir, name, &stat) {
        Ok(Some((kind, content))) => OnDisk::Something {
            kind,
            content,
            print,
            size: stat.size,
            mtime: stat.mtime,
            ctime: stat.ctime,
        },
        Ok(None) | Err(_) => OnDisk::Unknown,
    }
}

/// The fingerprint to record of what is going to be read. Whoever has a file open or mapped for writing may have changed
/// it already, and its stamps tell no more of what comes next: then the next look reads it again.
fn vouched(replica: &LocalReplica, dir: &Dir, name: Name<'_>, stat: &Stat) -> Print {
    let seen = print(stat);
    if stat.kind != instep_fs::Kind::File {
        return seen;
    }
    let (now_ns, tick_ns) = (replica.env.wall_ns(), replica.profile.tick_ns);
    let is_unstamped = unstamped_ms(stat, now_ns, tick_ns).is_some();
    let is_written = || {
        let file = dir.open_file(name);
        replica.profile.leases && file.is_ok_and(|f| matches!(f.read_lease(), Ok(None)))
    };
    if is_unstamped || is_written() {
        return unlike_any(seen);
    }
    seen
}

/// The kind and content of an object; none if it is still being written, or nothing that is synchronized.
pub(crate) fn content(
    dir: &Dir,
    name: Name<'_>,
    stat: &Stat,
) -> instep_fs::Result<Option<(Kind, ContentId)>> {
    Ok(match stat.kind {
        instep_fs::Kind::Dir => Some((Kind::Dir, ContentId::NONE)),
        instep_fs::Kind::Link => {
            let target = dir.read_link(name)?;
            Some((Kind::Link, instep_chunk::hash::content_id(&target)))
        }
        instep_fs::Kind::File => {
            let file = dir.open_file(name)?;
            match hash_file(&file, stat, false, &mut Vec::new())? {
                Hashed::Content { id, .. } => Some((Kind::File, id)),
                Hashed::Changing => None,
            }
        }
        instep_fs::Kind::Special => None,
    })
}
