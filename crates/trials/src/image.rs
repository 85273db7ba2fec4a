//! File systems in files: made, mounted, cut off, taken away.
//!
//! Owns the mount and the loop device of each image; both go when it is dropped. Invariant: an image is mounted at most
//! once, at a directory of its own.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What is in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// ext4 with its defaults.
    Ext4,
    /// XFS with its defaults; at least 300 MiB.
    Xfs,
    /// btrfs with its defaults; at least 110 MiB.
    Btrfs,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Ext4, Self::Xfs, Self::Btrfs];

    /// As `mount -t` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// The least MiB that `mkfs` accepts.
    pub fn least_mib(self) -> u64 {
        match self {
            Self::Ext4 => 32,
            Self::Xfs => 300,
            Self::Btrfs => 128,
        }
    }

    /// Makes an empty file system in a file that is there.
    pub fn mkfs(self, image: &Path) -> io::Result<()> {
        let args: &[&str] = match self {
            Self::Ext4 => &["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"],
            Self::Xfs | Self::Btrfs => &["-q", "-f"],
        };
        let program = format!("mkfs.{}", self.name());
        run(
            &program,
            args.iter().map(OsStr::new).chain([image.as_os_str()]),
        )
    }
}

/// One mounted image.
#[derive(Debug)]
pub struct Image {
    file: PathBuf,
    at: PathBuf,
    kind: Kind,
    mounted: bool,
}

impl Image {
    /// Makes `dir/name.img` of so many MiB (sparse) and mounts it at `dir/name`.
    pub fn new(dir: &Path, name: &str, kind: Kind, mib: u64) -> io::Result<Self> {
        let file = Self::make(dir, name, kind, mib)?;
        Self::of(&file, &dir.join(name), kind)
    }

    /// Makes `dir/name.img` and mounts it nowhere.
    pub fn make(dir: &Path, name: &str, kind: Kind, mib: u64) -> io::Result<PathBuf> {
        let file = dir.join(format!("{name}.img"));
        File::create(&file)?.set_len(mib.max(kind.least_mib()) << 20)?;
        kind.mkfs(&file)?;
        Ok(file)
    }

    /// Mounts an image that is there already: a copy of another, as it was at some instant.
    pub fn of(file: &Path, at: &Path, kind: Kind) -> io::Result<Self> {
        fs::create_dir_all(at)?;
        let mut image = Self {
            file: file.to_owned(),
            at: at.to_owned(),
            kind,
            mounted: false,
        };
        image.mount()?;
        Ok(image)
    }

    /// Where it is mounted.
    pub fn at(&self) -> &Path {
        &self.at
    }

    /// The file that it is in.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Mounts it again after [`Image::unmount`].
    pub fn mount(&mut self) -> io::Result<()> {
        // Two images of one XFS have one id, and may be there at the same time.
        let options = match self.kind {
            Kind::Xfs => "loop,nouuid",
            Kind::Ext4 | Kind::Btrfs => "loop",
        };
        let args = ["-t", self.kind.name(), "-o", options].map(OsStr::new);
        let places = [self.file.as_os_str(), self.at.as_os_str()];
        run("mount", args.into_iter().chain(places))?;
        self.mounted = true;
        Ok(())
    }

    /// Takes it away; with `lazily` also while somebody uses it.
    pub fn unmount(&mut self, lazily: bool) -> io::Result<()> {
        if !self.mounted {
            return Ok(());
        }
        let how = lazily.then_some(OsStr::new("-l"));
        run("umount", how.into_iter().chain([self.at.as_os_str()]))?;
        self.mounted = false;
        Ok(())
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // A process that was just killed may still be there for a moment.
        if self.unmount(false).is_err() {
            drop(self.unmount(true));
        }
    }
}

/// Runs a program of the system; what it says belongs to the error.
pub fn run<'a>(program: &str, args: impl IntoIterator<Item = &'a OsStr>) -> io::Result<()> {
    let path = std::env::var("PATH").unwrap_or_default();
    let done = Command::new(program)
        .args(args)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .stdin(Stdio::null())
        .output()?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    Err(io::Error::other(format!("{program}: {}", said.trim())))
}
