//! Where the disks of machines come from, and what a power cut leaves of them.
//!
//! Invariant: a disk that was cut is another one; the machine goes on with its own. Several trials at a time may have
//! their disks in one ground.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use instep_testkit::prng::Prng;
use rustix::fs::ioctl_ficlone;

use crate::fuse::Mounted;
use crate::fuse::disk::Disks;
use crate::image::{Image, Kind};

/// How the power is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Image files are copied by reference: what reached the device is there, in order.
    Copies,
    /// Any part of what was written since the last flush is missing, down to single sectors.
    Log,
}

/// The store of all disks.
pub struct Ground {
    kind: Of,
    /// Files are called by numbers.
    made: AtomicU64,
}

enum Of {
    Copies(Image),
    Log(Mounted<Disks>, Arc<Disks>),
}

impl Ground {
    /// An empty one below a directory.
    pub fn new(dir: &Path, how: How) -> io::Result<Self> {
        let kind = match how {
            How::Copies => Of::Copies(Image::new(dir, "copies", Kind::Btrfs, 8 << 10)?),
            How::Log => {
                let disks = Arc::new(Disks::default());
                let mounted = Mounted::new(&dir.join("log"), Arc::clone(&disks))?;
                Of::Log(mounted, disks)
            }
        };
        Ok(Self {
            kind,
            made: AtomicU64::new(0),
        })
    }

    /// How the power is cut here.
    pub fn how(&self) -> How {
        match self.kind {
            Of::Copies(_) => How::Copies,
            Of::Log(..) => How::Log,
        }
    }

    fn number(&self) -> u64 {
        self.made.fetch_add(1, Ordering::Relaxed)
    }

    /// A new disk with an empty file system.
    pub fn make(&self, kind: Kind) -> io::Result<PathBuf> {
        match &self.kind {
            Of::Copies(image) => {
                Image::make(image.at(), &format!("disk{}", self.number()), kind, 0)
            }
            Of::Log(mounted, disks) => {
                let file = mounted.at().join(disks.make(kind.least_mib()));
                kind.mkfs(&file)?;
                File::open(&file)?.sync_all()?;
                Ok(file)
            }
        }
    }

    /// What the power cut leaves of a disk.
    pub fn cut(&self, file: &Path, prng: &mut Prng) -> io::Result<PathBuf> {
        match &self.kind {
            Of::Copies(_) => self.copy(file),
            Of::Log(mounted, disks) => {
                let cut = disks.cut(&name(file), prng).ok_or_else(|| missing(file))?;
                Ok(mounted.at().join(cut))
            }
        }
    }

    /// The same disk again.
    pub fn copy(&self, file: &Path) -> io::Result<PathBuf> {
        match &self.kind {
            Of::Copies(image) => {
                let to = image.at().join(format!("copy{}.img", self.number()));
                ioctl_ficlone(File::create_new(&to)?, File::open(file)?)?;
                Ok(to)
            }
            Of::Log(mounted, disks) => {
                let copy = disks.copy(&name(file)).ok_or_else(|| missing(file))?;
                Ok(mounted.at().join(copy))
            }
        }
    }

    /// A disk that is not needed any more.
    pub fn remove(&self, file: &Path) -> io::Result<()> {
        match &self.kind {
            Of::Copies(_) => fs::remove_file(file),
            Of::Log(_, disks) => {
                disks.remove(&name(file));
                Ok(())
            }
        }
    }
}

fn name(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn missing(file: &Path) -> io::Error {
    io::Error::other(format!("there is no disk {}", file.display()))
}
