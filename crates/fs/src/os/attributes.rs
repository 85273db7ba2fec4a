//! Owner, group and extended attributes of what is open, or of one name.
//!
//! Owns no descriptor. Invariants: nothing follows a link; of extended attributes only those that users may
//! set are seen or changed, so that what guards the system is out of reach here.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use instep_core::attributes::Xattrs;
use instep_core::limits::XATTR_BYTES_MAX;
use instep_core::path::Name;
use rustix::fs::{AtFlags, Gid, Uid, XattrFlags};
use rustix::io::Errno;

use super::{OsDir, OsFile, on, plain};
use crate::api::Result;

/// What suffices nearly always.
const SHORT: usize = 512;
/// The kernel's own limit of a list of names and of a value.
const LONG: usize = 64 * 1024;

/// Bytes that a call puts into a buffer, which is grown once.
fn bytes(get: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut buf = vec![0; SHORT];
    let got = match get(&mut buf) {
        Err(Errno::RANGE) => {
            buf.resize(LONG, 0);
            get(&mut buf)?
        }
        other => other?,
    };
    buf.truncate(got);
    Ok(buf)
}

fn xattrs(fd: BorrowedFd<'_>) -> rustix::io::Result<Option<Xattrs>> {
    let names = match bytes(|buf| rustix::fs::flistxattr(fd, buf)) {
        Ok(names) => names,
        Err(Errno::OPNOTSUPP) => return Ok(Some(Xattrs::default())),
        // The list alone is longer than anything that is carried.
        Err(Errno::TOOBIG) => return Ok(None),
        Err(e) => return Err(e),
    };
    let (mut all, mut total) = (BTreeMap::new(), 0);
    for name in names.split(|b| *b == 0) {
        if !name.starts_with(Xattrs::PREFIX) {
            continue;
        }
        match bytes(|buf| rustix::fs::fgetxattr(fd, name, buf)) {
            Ok(value) => {
                total += name.len() + value.len();
                if total > XATTR_BYTES_MAX {
                    return Ok(None);
                }
                all.insert(name.into(), value.into());
            }
            // Removed since the names were listed.
            Err(Errno::NODATA) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(Xattrs::new(all))
}

fn set_xattr(fd: BorrowedFd<'_>, name: &[u8], value: Option<&[u8]>) -> rustix::io::Result<()> {
    if !name.starts_with(Xattrs::PREFIX) {
        return Err(Errno::PERM);
    }
    match value {
        Some(value) => rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()),
        None => match rustix::fs::fremovexattr(fd, name) {
            Err(Errno::NODATA) => Ok(()),
            other => other,
        },
    }
}

fn ids(user: Option<u32>, group: Option<u32>) -> (Option<Uid>, Option<Gid>) {
    (user.map(Uid::from_raw), group.map(Gid::from_raw))
}

impl OsFile {
    /// See [`crate::File::set_owner`].
    pub(crate) fn set_owner(&self, user: Option<u32>, group: Option<u32>) -> Result<()> {
        let (user, group) = ids(user, group);
        rustix::fs::fchown(self.fd(), user, group).map_err(plain("set owner of open file"))
    }

    /// See [`crate::File::xattrs`].
    pub(crate) fn xattrs(&self) -> Result<Option<Xattrs>> {
        xattrs(self.fd()).map_err(plain("read extended attributes"))
    }

    /// See [`crate::File::set_xattr`].
    pub(crate) fn set_xattr(&self, name: &[u8], value: Option<&[u8]>) -> Result<()> {
        set_xattr(self.fd(), name, value).map_err(plain("set extended attribute"))
    }
}

impl OsDir {
    /// See [`crate::Dir::set_owner`].
    pub(crate) fn set_owner(
        &self,
        name: Name<'_>,
        user: Option<u32>,
        group: Option<u32>,
    ) -> Result<()> {
        let (user, group) = ids(user, group);
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(self.fd(), name.as_bytes(), user, group, flags)
            .map_err(on("set owner of", name))
    }

    /// See [`crate::Dir::xattrs_self`].
    pub(crate) fn xattrs_self(&self) -> Result<Option<Xattrs>> {
        xattrs(self.fd()).map_err(plain("read extended attributes of directory"))
    }

    /// See [`crate::Dir::set_xattr_self`].
    pub(crate) fn set_xattr_self(&self, name: &[u8], value: Option<&[u8]>) -> Result<()> {
        set_xattr(self.fd(), name, value).map_err(plain("set extended attribute of directory"))
    }
}
