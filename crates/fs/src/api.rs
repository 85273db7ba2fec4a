//! The values that cross this crate's surface: what a stat says, what a file system can do, what failed.

use instep_core::time::Mtime;

/// What a name refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Link,
    /// A FIFO, socket, device, or anything else that is never opened.
    Special,
}

/// What the file system says of one inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: Kind,
    /// Device number; changes where a mount is crossed.
    pub dev: u64,
    /// Inode number; reused by some file systems.
    pub ino: u64,
    /// Bytes.
    pub size: u64,
    /// All mode bits below the kind (`0o7777`).
    pub mode: u32,
    /// Number of names.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Mtime,
    /// Change time. Changes when a name of the inode changes on most file systems.
    pub ctime: Mtime,
    /// Birth time where known, else zero.
    pub btime: Mtime,
    /// 512-byte blocks allocated: fewer than the size needs means holes.
    pub blocks: u64,
    /// A mount is on top of this name (`STATX_ATTR_MOUNT_ROOT`).
    pub mount_root: bool,
}

/// Whose names are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Party {
    /// Users.
    User,
    /// Groups.
    Group,
}

/// One name of a listing, with its stat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListItem {
    /// The name's bytes; validated by the caller with [`instep_core::path::Name`].
    pub name: Vec<u8>,
    /// What it is; an error when the name could be listed but not examined.
    pub stat: Result<Stat>,
}

/// What a root's file system can do, probed once when the root is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// The name of the file system type, as in the mount table: `ext4`, `xfs`, `btrfs`, `tmpfs`, `fuse.x`.
    pub fs_type: String,
    /// `RENAME_EXCHANGE` works.
    pub exchange: bool,
    /// `O_TMPFILE` and `linkat` work.
    pub unnamed_files: bool,
    /// Read leases can be taken on our files.
    pub leases: bool,
    /// `FICLONE` works.
    pub reflink: bool,
    /// inotify reports every change here (not so on network and most FUSE file systems).
    pub events_reliable: bool,
    /// Mounted read-only.
    pub read_only: bool,
    /// Names that differ by case are different names.
    pub case_sensitive: bool,
    /// Permission bits are kept.
    pub modes: bool,
    /// Extended attributes of users are kept.
    pub xattrs: bool,
    /// Modification times are kept to this many nanoseconds.
    pub mtime_granularity_ns: u32,
    /// For so long a change may get the stamp that was there before it, although somebody looked at that; 0
    /// where a look makes the next change get a stamp of its own (Linux 6.13 on the common file systems).
    pub tick_ns: u32,
    /// The file system's identity, from its UUID where it has one: the same after the machine was started again. The
    /// device number where there is nothing better.
    pub fs_id: u64,
}

impl Profile {
    /// A file has the same inode number after the file system was mounted again. FUSE and FAT file systems give
    /// numbers as they come, and of an unknown one nobody knows.
    pub fn keeps_inodes(&self) -> bool {
        let kinds = ["ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs"];
        kinds.contains(&self.fs_type.as_str())
    }

    /// A name that survives a power cut has the permissions and the time that its file was given before it got the
    /// name, because one journal has both. Of an unknown file system nobody knows.
    pub fn keeps_order(&self) -> bool {
        let kinds = ["ext3", "ext4", "xfs", "btrfs", "f2fs", "bcachefs", "zfs"];
        kinds.contains(&self.fs_type.as_str())
    }
}

/// A failed call: what was attempted, on what, and what the system said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{attempt}: {} (errno {errno})", words(*errno))]
pub struct Error {
    /// What was attempted on what, lower case: `open directory "a/b"`.
    pub attempt: String,
    /// The system's error number.
    pub errno: i32,
}

/// What the system calls an error: lower case, and its number only once.
fn words(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    let first = letters.next().map(|c| c.to_lowercase().to_string());
    first.unwrap_or_default() + letters.as_str()
}

/// What a failure means to the caller, apart from its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The name, or a component on the way, is not there (`ENOENT`).
    Absent,
    /// The name is taken (`EEXIST`, `ENOTEMPTY`).
    Taken,
    /// Something else than expected is there: a link where a directory was (`ENOTDIR`, `ELOOP`, `EISDIR`,
    /// `ENXIO` for a socket or device).
    OtherKind,
    /// Not permitted (`EACCES`, `EPERM`).
    Denied,
    /// The file system is mounted read-only (`EROFS`).
    ReadOnly,
    /// No room or quota left (`ENOSPC`, `EDQUOT`, `EFBIG`).
    NoSpace,
    /// Another file system (`EXDEV`).
    OtherDevice,
    /// In use by a writer or a lock holder (`EAGAIN`, `EBUSY`, `ETXTBSY`).
    Busy,
    /// Too many open files or watches (`EMFILE`, `ENFILE`).
    TooMany,
    /// The call, or a flag of it, does not exist here (`ENOSYS`, `EINVAL`, `EOPNOTSUPP`).
    Unsupported,
    /// The simulated machine has crashed; nothing further happens on it.
    Crashed,
    /// Anything else: an input or output error. Says nothing about presence or absence.
    Io,
}

/// The result of a file system call.
pub type Result<T> = core::result::Result<T, Error>;

/// The error number that the simulator uses for [`ErrorKind::Crashed`]; no system uses it.
pub const ERRNO_CRASHED: i32 = 100_000;

impl Error {
    /// An error for an attempt.
    pub fn new(attempt: impl Into<String>, errno: i32) -> Self {
        Self {
            attempt: attempt.into(),
            errno,
        }
    }

    /// What it means.
    pub fn kind(&self) -> ErrorKind {
        use rustix::io::Errno;
        const fn n(e: Errno) -> i32 {
            e.raw_os_error()
        }
        match self.errno {
            ERRNO_CRASHED => ErrorKind::Crashed,
            e if e == n(Errno::NOENT) => ErrorKind::Absent,
            e if e == n(Errno::EXIST) || e == n(Errno::NOTEMPTY) => ErrorKind::Taken,
            e if [Errno::NOTDIR, Errno::LOOP, Errno::ISDIR, Errno::NXIO]
                .iter()
                .any(|x| n(*x) == e) =>
            {
                ErrorKind::OtherKind
            }
            e if e == n(Errno::ACCESS) || e == n(Errno::PERM) => ErrorKind::Denied,
            e if e == n(Errno::ROFS) => ErrorKind::ReadOnly,
            e if [Errno::NOSPC, Errno::DQUOT, Errno::FBIG]
                .iter()
                .any(|x| n(*x) == e) =>
            {
                ErrorKind::NoSpace
            }
            e if e == n(Errno::XDEV) => ErrorKind::OtherDevice,
            e if [Errno::AGAIN, Errno::BUSY, Errno::TXTBSY]
                .iter()
                .any(|x| n(*x) == e) =>
            {
                ErrorKind::Busy
            }
            e if e == n(Errno::MFILE) || e == n(Errno::NFILE) => ErrorKind::TooMany,
            e if [Errno::NOSYS, Errno::INVAL, Errno::OPNOTSUPP]
                .iter()
                .any(|x| n(*x) == e) =>
            {
                ErrorKind::Unsupported
            }
            _ => ErrorKind::Io,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Error;

    #[test]
    fn a_failed_call_is_told_with_its_number_twice() {
        let text = Error::new("open directory \"a/b\"", 13).to_string();
        assert_eq!(text, "open directory \"a/b\": permission denied (errno 13)");
    }
}
