//! What the tests of a local replica share: environments whose time can be moved, users who edit a tree
//! without asking, and replicas on a real directory and on the simulated file system.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

pub(crate) mod real;
pub(crate) mod sim;

use std::io;

use instep_core::path::RelPath;

/// A path from a literal.
pub(crate) fn p(path: &str) -> RelPath {
    RelPath::new(path.as_bytes()).unwrap()
}

/// A failure of one of our own calls, as the user of the suite sees it.
pub(crate) fn from_fs(e: instep_fs::Error) -> io::Error {
    if e.kind() == instep_fs::ErrorKind::Crashed {
        return io::Error::other(e);
    }
    io::Error::from_raw_os_error(e.errno)
}
