//! A directory descriptor and the calls under it.
//!
//! Owns how a name is opened, made, renamed and removed. Never takes a path, never replaces a name except
//! where the caller asked for exactly that.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use instep_core::path::Name;
use instep_core::time::Mtime;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

use super::file::{OsFile, OsLockFile};
use super::{STAT_FLAGS, STAT_MASK, on, only_mtime, plain, stat_fd, stat_of, with_fd_path};
use crate::api::{Result, Stat};
use crate::dir::Space;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);
/// How often `openat2` may say that a rename elsewhere disturbed it.
const RETRIES: usize = 100;

/// Set once linking by `AT_EMPTY_PATH` was refused and the way through /proc worked.
static LINK_BY_PROC: AtomicBool = AtomicBool::new(false);

/// A directory of the real file system.
#[derive(Debug, Clone)]
pub(crate) struct OsDir(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    fd: OwnedFd,
    position: Mutex<()>,
}

impl From<OwnedFd> for OsDir {
    fn from(fd: OwnedFd) -> Self {
        Self(Arc::new(Inner {
            fd,
            position: Mutex::new(()),
        }))
    }
}

impl OsDir {
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }

    /// Held by whoever lists through the descriptor itself.
    pub(super) fn position(&self) -> &Mutex<()> {
        &self.0.position
    }

    /// See [`crate::Dir::open_dir`].
    pub(crate) fn open_dir(&self, name: Name<'_>) -> Result<Self> {
        let mut left = RETRIES;
        let opened = loop {
            match rustix::fs::openat2(
                self.fd(),
                name.as_bytes(),
                DIRECTORY,
                Mode::empty(),
                BENEATH,
            ) {
                Err(Errno::AGAIN) if left > 0 => left -= 1,
                Err(Errno::INTR) => {}
                Err(Errno::NOSYS) => break self.open_dir_before_openat2(name),
                other => break other,
            }
        };
        opened.map(Self::from).map_err(on("open directory", name))
    }

    /// For kernels without `openat2`: one component cannot escape, so only the mount is left to check.
    pub(super) fn open_dir_before_openat2(&self, name: Name<'_>) -> rustix::io::Result<OwnedFd> {
        let fd = rustix::fs::openat(self.fd(), name.as_bytes(), DIRECTORY, Mode::empty())?;
        let there = stat_fd(fd.as_fd())?;
        if there.mount_root || there.dev != stat_fd(self.fd())?.dev {
            return Err(Errno::XDEV);
        }
        Ok(fd)
    }

    /// See [`crate::Dir::stat`].
    #[inline]
    pub(crate) fn stat(&self, name: Name<'_>) -> Result<Option<Stat>> {
        match rustix::fs::statx(self.fd(), name.as_bytes(), STAT_FLAGS, STAT_MASK) {
            Ok(s) => Ok(Some(stat_of(&s))),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(on("examine", name)(e)),
        }
    }

    /// See [`crate::Dir::stat_self`].
    pub(crate) fn stat_self(&self) -> Result<Stat> {
        stat_fd(self.fd()).map_err(plain("examine directory"))
    }

    /// See [`crate::Dir::open_file`].
    pub(crate) fn open_file(&self, name: Name<'_>) -> Result<OsFile> {
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let open = |flags| rustix::fs::openat(self.fd(), name.as_bytes(), flags, Mode::empty());
        let opened = match open(flags | OFlags::NOATIME) {
            // Only the owner may leave the access time alone.
            Err(Errno::PERM) => open(flags),
            other => other,
        };
        let file =
            opened.and_then(
                |fd| match FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) {
                    FileType::RegularFile => Ok(OsFile::from(fd)),
                    FileType::Directory => Err(Errno::ISDIR),
                    _ => Err(Errno::NXIO),
                },
            );
        file.map_err(on("open file", name))
    }

    /// See [`crate::Dir::read_link`].
    pub(crate) fn read_link(&self, name: Name<'_>) -> Result<Vec<u8>> {
        match rustix::fs::readlinkat(self.fd(), name.as_bytes(), Vec::new()) {
            Ok(target) => Ok(target.into_bytes()),
            // What the call says of anything that is no link.
            Err(Errno::INVAL) => Err(on("read link", name)(Errno::NXIO)),
            Err(e) => Err(on("read link", name)(e)),
        }
    }

    /// See [`crate::Dir::create_unnamed`].
    pub(crate) fn create_unnamed(&self, mode: u32) -> Result<OsFile> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::openat(self.fd(), c".", flags, Mode::from_raw_mode(mode)) {
            Ok(fd) => Ok(OsFile::from(fd)),
            // A kernel that does not know the flag takes the call for an open of the directory.
            Err(Errno::ISDIR) => Err(plain("create unnamed file")(Errno::OPNOTSUPP)),
            Err(e) => Err(plain("create unnamed file")(e)),
        }
    }

    /// See [`crate::Dir::publish`].
    pub(crate) fn publish(&self, file: &OsFile, name: Name<'_>) -> Result<()> {
        if !LINK_BY_PROC.load(Ordering::Relaxed) {
            match rustix::fs::linkat(
                file.fd(),
                c"",
                self.fd(),
                name.as_bytes(),
                AtFlags::EMPTY_PATH,
            ) {
                Ok(()) => return Ok(()),
                // How kernels before 6.10 refuse it to the unprivileged.
                Err(Errno::NOENT | Errno::PERM) => {}
                Err(e) => return Err(on("publish file as", name)(e)),
            }
        }
        self.publish_by_proc(file, name)
            .map_err(on("publish file as", name))?;
        LINK_BY_PROC.store(true, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn publish_by_proc(&self, file: &OsFile, name: Name<'_>) -> rustix::io::Result<()> {
        with_fd_path(file.fd(), "", |path| {
            rustix::fs::linkat(
                rustix::fs::CWD,
                path,
                self.fd(),
                name.as_bytes(),
                AtFlags::SYMLINK_FOLLOW,
            )
        })
    }

    /// See [`crate::Dir::create_file`].
    pub(crate) fn create_file(&self, name: Name<'_>, mode: u32) -> Result<OsFile> {
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(self.fd(), name.as_bytes(), flags, Mode::from_raw_mode(mode))
            .map(OsFile::from)
            .map_err(on("create file", name))
    }

    /// See [`crate::Dir::narrows_modes`].
    pub(crate) fn narrows_modes(&self) -> bool {
        let list = "system.posix_acl_default";
        rustix::fs::fgetxattr(self.fd(), list, &mut [0_u8; 0]).is_ok_and(|size| size > 0)
    }

    /// See [`crate::Dir::make_dir`].
    pub(crate) fn make_dir(&self, name: Name<'_>, mode: u32) -> Result<()> {
        rustix::fs::mkdirat(self.fd(), name.as_bytes(), Mode::from_raw_mode(mode))
            .map_err(on("make directory", name))
    }

    /// See [`crate::Dir::make_link`].
    pub(crate) fn make_link(&self, name: Name<'_>, target: &[u8]) -> Result<()> {
        rustix::fs::symlinkat(target, self.fd(), name.as_bytes()).map_err(on("make link", name))
    }

    fn rename(
        &self,
        name: Name<'_>,
        to: &Self,
        to_name: Name<'_>,
        flags: RenameFlags,
    ) -> rustix::io::Result<()> {
        rustix::fs::renameat_with(
            self.fd(),
            name.as_bytes(),
            to.fd(),
            to_name.as_bytes(),
            flags,
        )
    }

    /// See [`crate::Dir::rename_noreplace`].
    pub(crate) fn rename_noreplace(
        &self,
        name: Name<'_>,
        to: &Self,
        to_name: Name<'_>,
    ) -> Result<()> {
        self.rename(name, to, to_name, RenameFlags::NOREPLACE)
            .map_err(on("rename", (name, to_name)))
    }

    /// See [`crate::Dir::exchange`].
    pub(crate) fn exchange(&self, name: Name<'_>, to: &Self, to_name: Name<'_>) -> Result<()> {
        self.rename(name, to, to_name, RenameFlags::EXCHANGE)
            .map_err(on("exchange", (name, to_name)))
    }

    /// See [`crate::Dir::hard_link`].
    pub(crate) fn hard_link(&self, name: Name<'_>, to: &Self, to_name: Name<'_>) -> Result<()> {
        let no_follow = AtFlags::empty();
        rustix::fs::linkat(
            self.fd(),
            name.as_bytes(),
            to.fd(),
            to_name.as_bytes(),
            no_follow,
        )
        .map_err(on("link", (name, to_name)))
    }

    /// See [`crate::Dir::rename_over`].
    pub(crate) fn rename_over(&self, name: Name<'_>, to: &Self, to_name: Name<'_>) -> Result<()> {
        rustix::fs::renameat(self.fd(), name.as_bytes(), to.fd(), to_name.as_bytes())
            .map_err(on("rename over", (name, to_name)))
    }

    /// See [`crate::Dir::remove_file`].
    pub(crate) fn remove_file(&self, name: Name<'_>) -> Result<()> {
        rustix::fs::unlinkat(self.fd(), name.as_bytes(), AtFlags::empty())
            .map_err(on("remove", name))
    }

    /// See [`crate::Dir::remove_dir`].
    pub(crate) fn remove_dir(&self, name: Name<'_>) -> Result<()> {
        rustix::fs::unlinkat(self.fd(), name.as_bytes(), AtFlags::REMOVEDIR)
            .map_err(on("remove directory", name))
    }

    /// See [`crate::Dir::set_mode`].
    pub(crate) fn set_mode(&self, name: Name<'_>, mode: u32) -> Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let set = || {
            let fd = rustix::fs::openat(self.fd(), name.as_bytes(), flags, Mode::empty())?;
            match FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) {
                FileType::RegularFile | FileType::Directory => {}
                FileType::Symlink => return Err(Errno::LOOP),
                _ => return Err(Errno::NXIO),
            }
            // A descriptor that grants nothing can be changed only by its path.
            with_fd_path(fd.as_fd(), "", |path| {
                rustix::fs::chmod(path, Mode::from_raw_mode(mode))
            })
        };
        set().map_err(on("set mode of", name))
    }

    /// See [`crate::Dir::set_mtime`].
    pub(crate) fn set_mtime(&self, name: Name<'_>, mtime: Mtime) -> Result<()> {
        let times = only_mtime(mtime);
        rustix::fs::utimensat(
            self.fd(),
            name.as_bytes(),
            &times,
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(on("set modification time of", name))
    }

    /// See [`crate::Dir::sync`].
    pub(crate) fn sync(&self) -> Result<()> {
        rustix::fs::fsync(self.fd()).map_err(plain("sync directory"))
    }

    /// See [`crate::Dir::sync_fs`].
    pub(crate) fn sync_fs(&self) -> Result<()> {
        rustix::fs::syncfs(self.fd()).map_err(plain("sync file system"))
    }

    /// See [`crate::Dir::free_space`].
    pub(crate) fn free_space(&self) -> Result<Space> {
        let s = rustix::fs::fstatvfs(self.fd()).map_err(plain("ask for free space"))?;
        let inodes = if s.f_files == 0 { u64::MAX } else { s.f_favail };
        Ok(Space {
            bytes: s.f_bavail.saturating_mul(s.f_frsize),
            inodes,
        })
    }

    /// See [`crate::Dir::is_read_only`].
    pub(crate) fn is_read_only(&self) -> Result<bool> {
        rustix::fs::fstatvfs(self.fd())
            .map(|s| s.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
            .map_err(plain("ask about file system"))
    }

    /// See [`crate::Dir::try_lock`].
    pub(crate) fn try_lock(&self, name: Name<'_>) -> Result<Option<OsLockFile>> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        loop {
            let fd = rustix::fs::openat(
                self.fd(),
                name.as_bytes(),
                flags,
                Mode::from_raw_mode(0o600),
            )
            .map_err(on("open lock", name))?;
            let Some(lock) = OsLockFile::take(fd).map_err(on("lock", name))? else {
                return Ok(None);
            };
            // A lock on a file that lost its name while we waited for it excludes nobody.
            let held = lock.stat().map_err(on("examine lock", name))?;
            if self
                .stat(name)?
                .is_some_and(|s| s.ino == held.ino && s.dev == held.dev)
            {
                return Ok(Some(lock));
            }
        }
    }
}
