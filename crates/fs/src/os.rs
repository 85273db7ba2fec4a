//! The Linux implementation of [`crate::dir`].
//!
//! Owns every descriptor below a root. Invariants: each call acts on one name under a directory descriptor;
//! no call follows a link at that name; an error is never turned into absence. Nothing here retries for the
//! caller except `EINTR` and the transient `EAGAIN` of `openat2`.

mod accounts;
mod attributes;
mod dir;
mod file;
mod listing;
mod probe;
#[cfg(test)]
mod tests;

pub(crate) use dir::OsDir;
pub(crate) use file::{OsFile, OsLease, OsLockFile};

use std::fmt::Debug;
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use instep_core::time::Mtime;
use rustix::fs::{
    AtFlags, FileType, Statx, StatxAttributes, StatxFlags, StatxTimestamp, Timespec, Timestamps,
};
use rustix::io::Errno;

use crate::api::{Error, Kind, Stat};

/// Never follow, never mount, never ask a server.
const STAT_FLAGS: AtFlags = AtFlags::SYMLINK_NOFOLLOW
    .union(AtFlags::NO_AUTOMOUNT)
    .union(AtFlags::STATX_DONT_SYNC);
const STAT_MASK: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

/// Turns an error number into an error that says what was attempted on what.
fn on<'a, N: Debug + 'a>(attempt: &'a str, name: N) -> impl FnOnce(Errno) -> Error + 'a {
    move |e| Error::new(format!("{attempt} {name:?}"), e.raw_os_error())
}

/// As [`on`], with the words put together only when they are needed.
pub(crate) fn error(attempt: impl FnOnce() -> String) -> impl FnOnce(Errno) -> Error {
    move |e| Error::new(attempt(), e.raw_os_error())
}

fn plain(attempt: &'static str) -> impl FnOnce(Errno) -> Error {
    move |e| Error::new(attempt, e.raw_os_error())
}

#[inline]
fn time(t: &StatxTimestamp) -> Mtime {
    Mtime {
        secs: t.tv_sec,
        nanos: t.tv_nsec,
    }
}

#[inline]
fn kind(t: FileType) -> Option<Kind> {
    match t {
        FileType::RegularFile => Some(Kind::File),
        FileType::Directory => Some(Kind::Dir),
        FileType::Symlink => Some(Kind::Link),
        FileType::Unknown => None,
        _ => Some(Kind::Special),
    }
}

#[inline]
fn stat_of(s: &Statx) -> Stat {
    let mode = u32::from(s.stx_mode);
    Stat {
        kind: kind(FileType::from_raw_mode(mode)).unwrap_or(Kind::Special),
        dev: rustix::fs::makedev(s.stx_dev_major, s.stx_dev_minor),
        ino: s.stx_ino,
        size: s.stx_size,
        mode: mode & 0o7777,
        nlink: s.stx_nlink,
        uid: s.stx_uid,
        gid: s.stx_gid,
        mtime: time(&s.stx_mtime),
        ctime: time(&s.stx_ctime),
        btime: if s.stx_mask & StatxFlags::BTIME.bits() == 0 {
            Mtime::default()
        } else {
            time(&s.stx_btime)
        },
        blocks: s.stx_blocks,
        mount_root: s.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
    }
}

#[inline]
fn stat_fd(fd: BorrowedFd<'_>) -> rustix::io::Result<Stat> {
    rustix::fs::statx(fd, c"", STAT_FLAGS | AtFlags::EMPTY_PATH, STAT_MASK).map(|s| stat_of(&s))
}

/// Times that set the modification time and leave the access time.
fn only_mtime(mtime: Mtime) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime.secs,
            tv_nsec: mtime.nanos.into(),
        },
    }
}

/// The name under which the kernel lets a descriptor be used as a path; `tail` is appended.
pub(crate) fn with_fd_path<T>(fd: BorrowedFd<'_>, tail: &str, call: impl FnOnce(&[u8]) -> T) -> T {
    let mut buf = [0; 48];
    let mut rest = &mut buf[..];
    write!(rest, "/proc/self/fd/{}{tail}", fd.as_raw_fd())
        .expect("a descriptor number and a short tail fit");
    let left = rest.len();
    call(&buf[..48 - left])
}
