//! Listing a directory: complete, or an error.
//!
//! Owns the position of a directory's descriptor, of which there is one for all clones: whoever holds it
//! lists through it, everybody else through a descriptor of their own. Allocates nothing per name.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::TryLockError;

use rustix::fs::{Mode, OFlags, RawDir, RawDirEntry, SeekFrom};
use rustix::io::Errno;

use super::dir::OsDir;
use super::{STAT_FLAGS, STAT_MASK, kind, plain, stat_of};
use crate::api::{Error, Kind, Result, Stat};

/// Bytes of names fetched at a time: a directory of some thousand names in one call.
const BUFFER: usize = 128 * 1024;

thread_local! {
    /// The buffer of this thread, unless a listing on this thread is using it.
    static SPARE: Cell<Option<Box<[MaybeUninit<u8>]>>> = const { Cell::new(None) };
}

/// Visits every entry but `.` and `..`, from the start.
fn entries(fd: BorrowedFd<'_>, visit: &mut dyn FnMut(&RawDirEntry<'_>)) -> rustix::io::Result<()> {
    // Needed for a fresh descriptor too: btrfs and tmpfs fix the end of the listing when the directory is
    // opened, and only a rewind moves it past names that were created since.
    rustix::fs::seek(fd, SeekFrom::Start(0))?;
    let mut buf = SPARE
        .take()
        .unwrap_or_else(|| Box::new_uninit_slice(BUFFER));
    let mut raw = RawDir::new(fd, &mut buf);
    let end = loop {
        match raw.next() {
            None => break Ok(()),
            Some(Err(Errno::INTR)) => {}
            Some(Err(e)) => break Err(e),
            Some(Ok(entry)) => {
                if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                    visit(&entry);
                }
            }
        }
    };
    SPARE.set(Some(buf));
    end
}

impl OsDir {
    fn each(&self, visit: &mut dyn FnMut(&RawDirEntry<'_>)) -> Result<()> {
        let listed = match self.position().try_lock() {
            Ok(_held) => entries(self.fd(), visit),
            Err(TryLockError::Poisoned(_held)) => entries(self.fd(), visit),
            Err(TryLockError::WouldBlock) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                rustix::fs::openat(self.fd(), c".", flags, Mode::empty())
                    .and_then(|own| entries(own.as_fd(), visit))
            }
        };
        listed.map_err(plain("list directory"))
    }

    /// See [`crate::Dir::list`].
    pub(crate) fn list(&self, visit: &mut dyn FnMut(&[u8], Option<Kind>)) -> Result<()> {
        self.each(&mut |entry| visit(entry.file_name().to_bytes(), kind(entry.file_type())))
    }

    /// See [`crate::Dir::list_stat`].
    pub(crate) fn list_stat(&self, visit: &mut dyn FnMut(&[u8], Result<Stat>)) -> Result<()> {
        let fd = self.fd();
        self.each(&mut |entry| {
            let name = entry.file_name();
            match rustix::fs::statx(fd, name, STAT_FLAGS, STAT_MASK) {
                Ok(s) => visit(name.to_bytes(), Ok(stat_of(&s))),
                Err(Errno::NOENT) => {}
                Err(e) => {
                    let shown = instep_core::path::Name::new(name.to_bytes())
                        .map_or_else(|_| "an illegal name".to_owned(), |n| format!("{n:?}"));
                    visit(
                        name.to_bytes(),
                        Err(Error::new(format!("examine {shown}"), e.raw_os_error())),
                    );
                }
            }
        })
    }
}
