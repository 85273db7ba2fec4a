//! Another boot of the machine, as far as a process can tell.
//!
//! Owns a file with a boot id, mounted over the kernel's in this mount namespace. Invariant: the kernel's own is
//! seen again when this is dropped. Never used outside a namespace of the trial's own.

use std::fs;
use std::io;
use std::path::Path;

use rustix::mount::{UnmountFlags, mount_bind, unmount};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// As long as this is there, processes that start see a boot that there never was before.
#[derive(Debug)]
pub struct Boot(());

impl Boot {
    /// Begins; the file with the id is made in this directory.
    pub fn another(dir: &Path) -> io::Result<Self> {
        let file = dir.join("boot_id");
        fs::write(&file, fs::read("/proc/sys/kernel/random/uuid")?)?;
        mount_bind(&file, BOOT_ID)?;
        Ok(Self(()))
    }
}

impl Drop for Boot {
    fn drop(&mut self) {
        let _gone = unmount(BOOT_ID, UnmountFlags::DETACH);
    }
}
