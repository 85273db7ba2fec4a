//! An open file, its lease, and the lock file.
//!
//! Reads and writes carry their offset, so that clones never disturb each other. Never closes a descriptor
//! that somebody may still use.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

use instep_core::time::Mtime;
use rustix::fs::{FileType, FlockOperation, Mode, SeekFrom};
use rustix::io::Errno;

use super::{only_mtime, plain, stat_fd};
use crate::api::{Result, Stat};

/// A file of the real file system.
#[derive(Debug, Clone)]
pub(crate) struct OsFile(Arc<OwnedFd>);

impl From<OwnedFd> for OsFile {
    fn from(fd: OwnedFd) -> Self {
        Self(Arc::new(fd))
    }
}

impl OsFile {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// See [`crate::File::as_fd`].
    #[allow(clippy::unnecessary_wraps, reason = "the simulator has no descriptor")]
    pub(crate) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd())
    }

    /// See [`crate::File::stat`].
    pub(crate) fn stat(&self) -> Result<Stat> {
        stat_fd(self.fd()).map_err(plain("examine open file"))
    }

    /// See [`crate::File::read_at`].
    pub(crate) fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        rustix::io::retry_on_intr(|| rustix::io::pread(self.fd(), &mut *buf, offset))
            .map_err(plain("read"))
    }

    /// See [`crate::File::write_all_at`].
    pub(crate) fn write_all_at(&self, mut offset: u64, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            let written = rustix::io::retry_on_intr(|| rustix::io::pwrite(self.fd(), data, offset))
                .map_err(plain("write"))?;
            if written == 0 {
                return Err(plain("write")(Errno::IO));
            }
            data = &data[written..];
            offset += written as u64;
        }
        Ok(())
    }

    /// See [`crate::File::set_len`].
    pub(crate) fn set_len(&self, len: u64) -> Result<()> {
        rustix::io::retry_on_intr(|| rustix::fs::ftruncate(self.fd(), len))
            .map_err(plain("set length of open file"))
    }

    /// See [`crate::File::set_mode`].
    pub(crate) fn set_mode(&self, mode: u32) -> Result<()> {
        rustix::fs::fchmod(self.fd(), Mode::from_raw_mode(mode))
            .map_err(plain("set mode of open file"))
    }

    /// See [`crate::File::set_mtime`].
    pub(crate) fn set_mtime(&self, mtime: Mtime) -> Result<()> {
        rustix::fs::futimens(self.fd(), &only_mtime(mtime))
            .map_err(plain("set modification time of open file"))
    }

    /// See [`crate::File::sync_data`].
    pub(crate) fn sync_data(&self) -> Result<()> {
        rustix::fs::fdatasync(self.fd()).map_err(plain("sync file"))
    }

    /// See [`crate::File::next_data`].
    pub(crate) fn next_data(&self, offset: u64) -> Result<Option<(u64, u64)>> {
        let start = match rustix::fs::seek(self.fd(), SeekFrom::Data(offset)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(None),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => {
                let size = self.stat()?.size;
                return Ok((offset < size).then_some((offset, size)));
            }
            Err(e) => return Err(plain("look for data")(e)),
        };
        match rustix::fs::seek(self.fd(), SeekFrom::Hole(start)) {
            Ok(end) => Ok(Some((start, end))),
            // The file was cut between the two calls.
            Err(Errno::NXIO) => Ok(None),
            Err(e) => Err(plain("look for holes")(e)),
        }
    }

    /// See [`crate::File::reflink_from`].
    pub(crate) fn reflink_from(&self, source: &Self) -> Result<()> {
        rustix::fs::ioctl_ficlone(self.fd(), source.fd()).map_err(plain("clone file"))
    }

    /// See [`crate::File::reflink_from_fd`].
    pub(crate) fn reflink_from_fd(&self, source: BorrowedFd<'_>) -> Result<()> {
        rustix::fs::ioctl_ficlone(self.fd(), source).map_err(plain("clone file"))
    }

    /// See [`crate::File::copy_range_from`].
    pub(crate) fn copy_range_from(&self, source: &Self, offset: u64, len: u64) -> Result<u64> {
        self.copy_range_from_fd(source.fd(), offset, len)
    }

    /// See [`crate::File::copy_range_from_fd`].
    pub(crate) fn copy_range_from_fd(
        &self,
        source: BorrowedFd<'_>,
        offset: u64,
        len: u64,
    ) -> Result<u64> {
        let (mut from, mut to) = (offset, offset);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        rustix::fs::copy_file_range(source, Some(&mut from), self.fd(), Some(&mut to), len)
            .map(|n| n as u64)
            .map_err(plain("copy range"))
    }

    /// See [`crate::File::start_writeback`].
    pub(crate) fn start_writeback(&self, offset: u64, len: u64) -> Result<()> {
        #[expect(unsafe_code, reason = "rustix has no sync_file_range")]
        // SAFETY: the call takes numbers only, and the descriptor is open while `self` is.
        let code = unsafe {
            libc::sync_file_range(
                self.fd().as_raw_fd(),
                offset as i64,
                len as i64,
                libc::SYNC_FILE_RANGE_WRITE,
            )
        };
        match check(code) {
            Ok(_) | Err(Errno::NOSYS | Errno::INVAL | Errno::SPIPE | Errno::OPNOTSUPP) => Ok(()),
            Err(e) => Err(plain("start writing back")(e)),
        }
    }

    /// See [`crate::File::forget_cache`].
    pub(crate) fn forget_cache(&self, offset: u64, len: u64) {
        let len = std::num::NonZeroU64::new(len);
        // A hint: there is nothing to do about a refusal.
        let _ = rustix::fs::fadvise(self.fd(), offset, len, rustix::fs::Advice::DontNeed);
    }

    /// See [`crate::File::read_lease`].
    pub(crate) fn read_lease(&self) -> Result<Option<OsLease>> {
        match lease(self.fd(), libc::F_SETLEASE, libc::F_RDLCK) {
            Ok(_) => Ok(Some(OsLease(self.clone()))),
            Err(Errno::AGAIN) => Ok(None),
            Err(e) => Err(plain("take read lease")(e)),
        }
    }
}

fn check(code: i32) -> rustix::io::Result<i32> {
    if code >= 0 {
        return Ok(code);
    }
    let number = std::io::Error::last_os_error().raw_os_error();
    Err(number.map_or(Errno::IO, Errno::from_raw_os_error))
}

fn lease(fd: BorrowedFd<'_>, command: i32, kind: i32) -> rustix::io::Result<i32> {
    #[expect(unsafe_code, reason = "rustix has no F_SETLEASE")]
    // SAFETY: both commands take a number, and the borrow keeps the descriptor open.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), command, kind) })
}

/// A read lease on an open file.
#[derive(Debug)]
pub(crate) struct OsLease(OsFile);

impl OsLease {
    /// See [`crate::Lease::broken`].
    pub(crate) fn broken(&self) -> bool {
        // While a break is pending the kernel names what the lease must become.
        lease(self.0.fd(), libc::F_GETLEASE, 0) != Ok(libc::F_RDLCK)
    }
}

impl Drop for OsLease {
    fn drop(&mut self) {
        // Fails only when the kernel has already taken the lease away.
        let _ = lease(self.0.fd(), libc::F_SETLEASE, libc::F_UNLCK);
    }
}

/// A file with an exclusive lock.
#[derive(Debug)]
pub(crate) struct OsLockFile(OsFile);

impl OsLockFile {
    /// Locks, or says that another description of the file holds the lock.
    pub(super) fn take(fd: OwnedFd) -> rustix::io::Result<Option<Self>> {
        if FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) != FileType::RegularFile {
            return Err(Errno::NXIO);
        }
        match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self(OsFile::from(fd)))),
            Err(Errno::AGAIN) => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub(super) fn stat(&self) -> rustix::io::Result<Stat> {
        stat_fd(self.0.fd())
    }

    /// See [`crate::dir::LockFile::read_text`].
    pub(crate) fn read_text(&self) -> Result<String> {
        let mut bytes = Vec::new();
        let mut buf = [0; 4096];
        loop {
            match self.0.read_at(bytes.len() as u64, &mut buf)? {
                0 => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
                n => bytes.extend_from_slice(&buf[..n]),
            }
        }
    }

    /// See [`crate::dir::LockFile::write_text`].
    pub(crate) fn write_text(&self, text: &str) -> Result<()> {
        self.0.set_len(0)?;
        self.0.write_all_at(0, text.as_bytes())
    }
}

impl Drop for OsLockFile {
    fn drop(&mut self) {
        // Explicit, because a child process between fork and exec may still hold the descriptor.
        let _ = rustix::fs::flock(self.0.fd(), FlockOperation::NonBlockingUnlock);
    }
}
