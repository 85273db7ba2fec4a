//! The directory that an index is in, held open: the library's paths lead through its descriptor.
//!
//! Invariant: while any connection of this process is open to a file of a directory, there is one descriptor of that
//! directory here, and its number means nothing else. Connections to one file share what the library keeps of it, the
//! path that the first of them came by included, so all of them have to come by the same. Never looks at the file.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// A directory in which an index is open.
#[derive(Debug)]
pub(super) struct Home {
    dir: File,
    identity: (u64, u64),
}

static HOMES: Mutex<Vec<Weak<Home>>> = Mutex::new(Vec::new());

impl Home {
    /// The directory of a file.
    pub(super) fn of(file: &Path) -> io::Result<Arc<Self>> {
        let dir = match file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?,
            _ => File::open(".")?,
        };
        let meta = dir.metadata()?;
        let identity = (meta.dev(), meta.ino());
        let mut homes = HOMES.lock().unwrap_or_else(PoisonError::into_inner);
        homes.retain(|home| home.strong_count() > 0);
        let mut open = homes.iter().filter_map(Weak::upgrade);
        if let Some(home) = open.find(|home| home.identity == identity) {
            return Ok(home);
        }
        let home = Arc::new(Self { dir, identity });
        homes.push(Arc::downgrade(&home));
        Ok(home)
    }

    /// The path of a name in it, good for as long as this is held.
    pub(super) fn path(&self, file: &Path) -> PathBuf {
        let mut path = PathBuf::from(format!("/proc/self/fd/{}", self.dir.as_raw_fd()));
        path.extend(file.file_name());
        path
    }

    /// Makes the names in it durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.dir.sync_all()
    }
}
