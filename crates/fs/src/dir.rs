//! An open directory and what can be done in it. One name at a time, never a path, never through a link.
//!
//! `Dir` and `File` are cheap to clone (a shared descriptor). Each call goes to Linux or to the simulator;
//! the match is here and nowhere else. Nothing here decides anything.

use std::os::fd::BorrowedFd;

use instep_core::attributes::Xattrs;
use instep_core::path::Name;
use instep_core::time::Mtime;

#[cfg(feature = "sim")]
use crate::api::Error;
use crate::api::{Kind, Party, Profile, Result, Stat};
use crate::os::{OsDir, OsFile, OsLease, OsLockFile};
#[cfg(feature = "sim")]
use crate::sim::{SimDir, SimFile, SimLease, SimLockFile};

/// An open directory.
#[derive(Debug, Clone)]
pub struct Dir(pub(crate) DirImpl);

#[derive(Debug, Clone)]
pub(crate) enum DirImpl {
    Os(OsDir),
    #[cfg(feature = "sim")]
    Sim(SimDir),
}

/// An open regular file.
#[derive(Debug, Clone)]
pub struct File(pub(crate) FileImpl);

#[derive(Debug, Clone)]
pub(crate) enum FileImpl {
    Os(OsFile),
    #[cfg(feature = "sim")]
    Sim(SimFile),
}

/// A read lease: while it holds, an open for writing waits. Dropping it releases it.
#[derive(Debug)]
pub struct Lease(LeaseImpl);

#[derive(Debug)]
enum LeaseImpl {
    Os(OsLease),
    #[cfg(feature = "sim")]
    Sim(SimLease),
}

/// An advisory lock on a file of ours. Dropping it releases it.
#[derive(Debug)]
pub struct LockFile(LockFileImpl);

#[derive(Debug)]
enum LockFileImpl {
    Os(OsLockFile),
    #[cfg(feature = "sim")]
    Sim(SimLockFile),
}

/// What is free on a file system, for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes.
    pub bytes: u64,
    /// Inodes; `u64::MAX` where the file system does not limit them.
    pub inodes: u64,
}

macro_rules! both {
    ($imp:ident, $this:expr, |$a:ident| $call:expr) => {
        match &$this.0 {
            $imp::Os($a) => $call,
            #[cfg(feature = "sim")]
            $imp::Sim($a) => $call,
        }
    };
    ($imp:ident, $this:expr, $other_imp:ident, $other:expr, $attempt:literal, |$a:ident, $b:ident| $call:expr) => {
        match (&$this.0, &$other.0) {
            ($imp::Os($a), $other_imp::Os($b)) => $call,
            #[cfg(feature = "sim")]
            ($imp::Sim($a), $other_imp::Sim($b)) => $call,
            #[cfg(feature = "sim")]
            _ => Err(Error::new($attempt, rustix::io::Errno::XDEV.raw_os_error())),
        }
    };
}

macro_rules! wrap {
    ($outer:ident, $imp:ident, $os:ident, $sim:ident) => {
        impl From<$os> for $outer {
            fn from(inner: $os) -> Self {
                Self($imp::Os(inner))
            }
        }
        #[cfg(feature = "sim")]
        impl From<$sim> for $outer {
            fn from(inner: $sim) -> Self {
                Self($imp::Sim(inner))
            }
        }
    };
}

wrap!(Dir, DirImpl, OsDir, SimDir);
wrap!(File, FileImpl, OsFile, SimFile);
wrap!(Lease, LeaseImpl, OsLease, SimLease);
wrap!(LockFile, LockFileImpl, OsLockFile, SimLockFile);

impl Dir {
    /// The descriptor; `None` in the simulator.
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.0 {
            DirImpl::Os(dir) => Some(dir.fd()),
            #[cfg(feature = "sim")]
            DirImpl::Sim(_) => None,
        }
    }

    /// A directory of the simulator.
    #[cfg(feature = "sim")]
    pub fn from_sim(dir: SimDir) -> Self {
        Self::from(dir)
    }

    /// The simulated directory, where it is one.
    #[cfg(feature = "sim")]
    pub(crate) fn as_sim(&self) -> Option<&SimDir> {
        match &self.0 {
            DirImpl::Os(_) => None,
            DirImpl::Sim(dir) => Some(dir),
        }
    }

    /// Opens a directory in this one. Never follows a link, never crosses a mount (`OtherDevice`).
    pub fn open_dir(&self, name: Name<'_>) -> Result<Self> {
        both!(DirImpl, self, |a| a.open_dir(name).map(Self::from))
    }

    /// Lists the names with a hint of what they are. An error means that the listing is incomplete.
    pub fn list(&self, visit: &mut dyn FnMut(&[u8], Option<Kind>)) -> Result<()> {
        both!(DirImpl, self, |a| a.list(visit))
    }

    /// Lists the names, each with its stat. A name that vanishes meanwhile is left out; an error means
    /// that the listing is incomplete.
    pub fn list_stat(&self, visit: &mut dyn FnMut(&[u8], Result<Stat>)) -> Result<()> {
        both!(DirImpl, self, |a| a.list_stat(visit))
    }

    /// What a name refers to; `None` when it is not there.
    pub fn stat(&self, name: Name<'_>) -> Result<Option<Stat>> {
        both!(DirImpl, self, |a| a.stat(name))
    }

    /// What this directory is.
    pub fn stat_self(&self) -> Result<Stat> {
        both!(DirImpl, self, |a| a.stat_self())
    }

    /// Opens a regular file for reading, and nothing else (`OtherKind`). Never waits for a FIFO.
    pub fn open_file(&self, name: Name<'_>) -> Result<File> {
        both!(DirImpl, self, |a| a.open_file(name).map(File::from))
    }

    /// A symbolic link's target (`OtherKind` when it is none).
    pub fn read_link(&self, name: Name<'_>) -> Result<Vec<u8>> {
        both!(DirImpl, self, |a| a.read_link(name))
    }

    /// Creates a file without a name in this directory, to be written and then published. The mode is
    /// exact when the umask of the process is 0.
    pub fn create_unnamed(&self, mode: u32) -> Result<File> {
        both!(DirImpl, self, |a| a.create_unnamed(mode).map(File::from))
    }

    /// Gives an unnamed file its name; `Taken` when the name exists.
    pub fn publish(&self, file: &File, name: Name<'_>) -> Result<()> {
        both!(
            DirImpl,
            self,
            FileImpl,
            file,
            "publish a file of another machine",
            |a, b| a.publish(b, name)
        )
    }

    /// Creates a file that was not there, for reading and writing.
    pub fn create_file(&self, name: Name<'_>, mode: u32) -> Result<File> {
        both!(DirImpl, self, |a| a.create_file(name, mode).map(File::from))
    }

    /// Whether what is made here gets fewer permissions than were asked for (a default access list).
    pub fn narrows_modes(&self) -> bool {
        match &self.0 {
            DirImpl::Os(dir) => dir.narrows_modes(),
            #[cfg(feature = "sim")]
            DirImpl::Sim(_) => false,
        }
    }

    /// Creates a directory.
    pub fn make_dir(&self, name: Name<'_>, mode: u32) -> Result<()> {
        both!(DirImpl, self, |a| a.make_dir(name, mode))
    }

    /// Creates a symbolic link.
    pub fn make_link(&self, name: Name<'_>, target: &[u8]) -> Result<()> {
        both!(DirImpl, self, |a| a.make_link(name, target))
    }

    /// Renames; `Taken` when the new name exists, `Unsupported` where the file system cannot promise that.
    pub fn rename_noreplace(&self, name: Name<'_>, to: &Self, to_name: Name<'_>) -> Result<()> {
        both!(
            DirImpl,
            self,
            DirImpl,
            to,
            "rename to another machine",
            |a, b| a.rename_noreplace(name, b, to_name)
        )
    }

    /// Swaps what two names refer to, in one step.
    pub fn exchange(&self, name: Name<'_>, to: &Self, to_name: Name<'_>) -> Result<()> {
        both!(
            DirImpl,
            self,
            DirImpl,
            to,
            "exchange with another machine",
            |a, b| a.exchange(name, b, to_name)
        )
    }

    /// Gives a file a second name.
    pub fn hard_link(&self, name: Name<'_>, to: &Self, to_name: Name<'_>) -> Result<()> {
        both!(
            DirImpl,
            self,
            DirImpl,
            to,
            "link to another machine",
            |a, b| a.hard_link(name, b, to_name)
        )
    }

    /// Renames over whatever is there, which is lost: only for file systems without
    /// [`Dir::exchange`], after the caller has kept what is there under another name.
    pub fn rename_over(&self, name: Name<'_>, to: &Self, to_name: Name<'_>) -> Result<()> {
        both!(
            DirImpl,
            self,
            DirImpl,
            to,
            "rename to another machine",
            |a, b| a.rename_over(name, b, to_name)
        )
    }

    /// Removes a name that is not a directory.
    pub fn remove_file(&self, name: Name<'_>) -> Result<()> {
        both!(DirImpl, self, |a| a.remove_file(name))
    }

    /// Removes an empty directory.
    pub fn remove_dir(&self, name: Name<'_>) -> Result<()> {
        both!(DirImpl, self, |a| a.remove_dir(name))
    }

    /// Sets the mode of a file or directory; `OtherKind` for a link or a special file.
    pub fn set_mode(&self, name: Name<'_>, mode: u32) -> Result<()> {
        both!(DirImpl, self, |a| a.set_mode(name, mode))
    }

    /// Sets the modification time, of a link itself too. The access time stays.
    pub fn set_mtime(&self, name: Name<'_>, mtime: Mtime) -> Result<()> {
        both!(DirImpl, self, |a| a.set_mtime(name, mtime))
    }

    /// Sets owner and group of whatever the name is, of a link itself too; none leaves what is there. The
    /// system takes bits above the permissions away from a file that changes hands.
    pub fn set_owner(&self, name: Name<'_>, user: Option<u32>, group: Option<u32>) -> Result<()> {
        both!(DirImpl, self, |a| a.set_owner(name, user, group))
    }

    /// This directory's own extended attributes, as of [`File::xattrs`].
    pub fn xattrs_self(&self) -> Result<Option<Xattrs>> {
        both!(DirImpl, self, |a| a.xattrs_self())
    }

    /// Sets one of this directory's own extended attributes, or removes it.
    pub fn set_xattr_self(&self, name: &[u8], value: Option<&[u8]>) -> Result<()> {
        both!(DirImpl, self, |a| a.set_xattr_self(name, value))
    }

    /// The name that a user or group has on this machine.
    pub fn account_name(&self, party: Party, id: u32) -> Option<Vec<u8>> {
        both!(DirImpl, self, |a| a.account_name(party, id))
    }

    /// The number that a user or group has on this machine.
    pub fn account_id(&self, party: Party, name: &[u8]) -> Option<u32> {
        both!(DirImpl, self, |a| a.account_id(party, name))
    }

    /// As which user this process acts.
    pub fn acting_user(&self) -> u32 {
        both!(DirImpl, self, |a| a.acting_user())
    }

    /// Makes the names in this directory durable.
    pub fn sync(&self) -> Result<()> {
        both!(DirImpl, self, |a| a.sync())
    }

    /// Makes everything on the file system durable.
    pub fn sync_fs(&self) -> Result<()> {
        both!(DirImpl, self, |a| a.sync_fs())
    }

    /// What is free on the file system.
    pub fn free_space(&self) -> Result<Space> {
        both!(DirImpl, self, |a| a.free_space())
    }

    /// Whether the file system takes no changes as it is mounted now.
    pub fn is_read_only(&self) -> Result<bool> {
        both!(DirImpl, self, |a| a.is_read_only())
    }

    /// What the file system can do. With `scratch`, a directory of ours on the same file system, by trying;
    /// without, judged from the type and mount flags, and nothing is created.
    pub fn profile(&self, scratch: Option<&Self>) -> Result<Profile> {
        match (&self.0, scratch.map(|s| &s.0)) {
            (DirImpl::Os(a), Some(DirImpl::Os(b))) => a.profile(Some(b)),
            (DirImpl::Os(a), None) => a.profile(None),
            #[cfg(feature = "sim")]
            (DirImpl::Sim(a), Some(DirImpl::Sim(b))) => a.profile(Some(b)),
            #[cfg(feature = "sim")]
            (DirImpl::Sim(a), None) => a.profile(None),
            #[cfg(feature = "sim")]
            _ => Err(Error::new(
                "probe on another machine",
                rustix::io::Errno::XDEV.raw_os_error(),
            )),
        }
    }

    /// Takes an exclusive lock on a file of that name, created when missing; `None` while another holds it.
    pub fn try_lock(&self, name: Name<'_>) -> Result<Option<LockFile>> {
        both!(DirImpl, self, |a| a
            .try_lock(name)
            .map(|held| held.map(LockFile::from)))
    }
}

impl File {
    /// What the file is now.
    pub fn stat(&self) -> Result<Stat> {
        both!(FileImpl, self, |a| a.stat())
    }

    /// Reads at an offset; 0 only at the end.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        both!(FileImpl, self, |a| a.read_at(offset, buf))
    }

    /// Writes all of `data` at an offset.
    pub fn write_all_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        both!(FileImpl, self, |a| a.write_all_at(offset, data))
    }

    /// Cuts or extends the file.
    pub fn set_len(&self, len: u64) -> Result<()> {
        both!(FileImpl, self, |a| a.set_len(len))
    }

    /// Sets the mode.
    pub fn set_mode(&self, mode: u32) -> Result<()> {
        both!(FileImpl, self, |a| a.set_mode(mode))
    }

    /// Sets the modification time. The access time stays.
    pub fn set_mtime(&self, mtime: Mtime) -> Result<()> {
        both!(FileImpl, self, |a| a.set_mtime(mtime))
    }

    /// Sets owner and group; none leaves what is there.
    pub fn set_owner(&self, user: Option<u32>, group: Option<u32>) -> Result<()> {
        both!(FileImpl, self, |a| a.set_owner(user, group))
    }

    /// The extended attributes that users may set; none when they are more than is carried.
    pub fn xattrs(&self) -> Result<Option<Xattrs>> {
        both!(FileImpl, self, |a| a.xattrs())
    }

    /// Sets an extended attribute, or removes it.
    pub fn set_xattr(&self, name: &[u8], value: Option<&[u8]>) -> Result<()> {
        both!(FileImpl, self, |a| a.set_xattr(name, value))
    }

    /// Makes the content durable. After an error the content is not to be trusted, and a second call
    /// proves nothing.
    pub fn sync_data(&self) -> Result<()> {
        both!(FileImpl, self, |a| a.sync_data())
    }

    /// The start and end of the next data at or after an offset; `None` when only a hole follows. Where holes
    /// are not known, everything is data.
    pub fn next_data(&self, offset: u64) -> Result<Option<(u64, u64)>> {
        both!(FileImpl, self, |a| a.next_data(offset))
    }

    /// Shares the content of another file without copying it.
    pub fn reflink_from(&self, source: &Self) -> Result<()> {
        both!(
            FileImpl,
            self,
            FileImpl,
            source,
            "clone from another machine",
            |a, b| a.reflink_from(b)
        )
    }

    /// As [`File::copy_range_from`], from a bare descriptor. Never in the simulator.
    pub fn copy_range_from_fd(&self, source: BorrowedFd<'_>, offset: u64, len: u64) -> Result<u64> {
        match &self.0 {
            FileImpl::Os(file) => file.copy_range_from_fd(source, offset, len),
            #[cfg(feature = "sim")]
            FileImpl::Sim(_) => Err(Error::new("copy from a descriptor", 95)),
        }
    }

    /// As [`File::reflink_from`], from a bare descriptor. Never in the simulator.
    pub fn reflink_from_fd(&self, source: BorrowedFd<'_>) -> Result<()> {
        match &self.0 {
            FileImpl::Os(file) => file.reflink_from_fd(source),
            #[cfg(feature = "sim")]
            FileImpl::Sim(_) => Err(Error::new("clone a descriptor", 95)),
        }
    }

    /// Copies a range to the same offset inside the kernel; may copy less than asked, 0 at the end.
    pub fn copy_range_from(&self, source: &Self, offset: u64, len: u64) -> Result<u64> {
        both!(
            FileImpl,
            self,
            FileImpl,
            source,
            "copy from another machine",
            |a, b| a.copy_range_from(b, offset, len)
        )
    }

    /// Begins to write a range back to the disk. Promises nothing.
    pub fn start_writeback(&self, offset: u64, len: u64) -> Result<()> {
        both!(FileImpl, self, |a| a.start_writeback(offset, len))
    }

    /// Says that the cached pages of a range are not needed any more. Promises nothing.
    pub fn forget_cache(&self, offset: u64, len: u64) {
        both!(FileImpl, self, |a| a.forget_cache(offset, len));
    }

    /// Takes a read lease; `None` while a writer or a writable mapping exists. One lease per open file at a
    /// time: a second one ends with the first.
    pub fn read_lease(&self) -> Result<Option<Lease>> {
        both!(FileImpl, self, |a| a
            .read_lease()
            .map(|held| held.map(Lease::from)))
    }

    /// The descriptor; `None` in the simulator.
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        both!(FileImpl, self, |a| a.as_fd())
    }
}

impl Lease {
    /// Whether somebody has asked to write since, or the lease is gone.
    pub fn broken(&self) -> bool {
        both!(LeaseImpl, self, |a| a.broken())
    }
}

impl LockFile {
    /// The text in the file.
    pub fn read_text(&self) -> Result<String> {
        both!(LockFileImpl, self, |a| a.read_text())
    }

    /// Replaces the text in the file.
    pub fn write_text(&self, text: &str) -> Result<()> {
        both!(LockFileImpl, self, |a| a.write_text(text))
    }
}
