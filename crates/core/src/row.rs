//! What one replica records about one path: the entry, and what of it is on disk here.
//!
//! Invariant: `shown` names the sibling that was last seen or put at the path on this replica's disk.
//!
//! | `shown` | `print` | meaning |
//! |---|---|---|
//! | a file, directory or link | present | materialised, and this is what it looked like |
//! | a tombstone | none | absent, as it should be |
//! | none | none | known but not materialised here (held, untracked or waiting) |
//! | none | present | a directory that stands only because something below it is alive |
//! | any | none, held as ignored | what was on disk when a rule excluded it; nobody wrote there since but users |

use alloc::boxed::Box;

use crate::attributes::Seen;
use crate::entry::Entry;
use crate::id::Dot;
use crate::version::{Kind, Version};

/// What an object looked like when it was last examined. Compared for equality only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Print {
    /// Inode number, to recognise moves.
    pub ino: u64,
    /// A hash over kind, inode, size, mode, modification and change time.
    pub hash: u64,
    /// Permission bits on disk.
    pub mode: u16,
}

/// Why an entry is known but not materialised on a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Held {
    /// A rule excludes it here.
    Ignored,
    /// A special file (FIFO, socket, device) has the name.
    Special,
    /// A link whose target is absolute or leaves the root.
    UnsafeLink,
    /// Another name that this file system cannot tell apart has the place.
    NameClash,
    /// Another file system is mounted there.
    Mount,
}

/// What one replica records about one path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Row {
    /// What is known.
    pub entry: Entry,
    /// Which sibling is on disk here.
    pub shown: Option<Dot>,
    /// What it looked like.
    pub print: Option<Print>,
    /// Owner and extended attributes on disk here; none where they are not looked at.
    pub seen: Option<Box<Seen>>,
    /// Why it is not materialised.
    pub held: Option<Held>,
    /// The epoch in which the row was written; above the last durable epoch it is suspect after a crash.
    pub epoch: u32,
}

impl Row {
    /// The dot of what is on disk here, tombstones included, as far as we track it.
    pub fn materialised(&self) -> Option<Dot> {
        self.shown.filter(|_| self.held != Some(Held::Ignored))
    }

    /// The version on disk here, tombstones included.
    pub fn on_disk(&self) -> Option<&Version> {
        self.materialised().and_then(|d| self.entry.get(d))
    }

    /// The version on disk, if something is there that we track.
    pub fn present(&self) -> Option<&Version> {
        self.on_disk().filter(|v| !v.is_tomb())
    }

    /// A directory that stands only because something below it is alive.
    pub fn is_derived_dir(&self) -> bool {
        self.shown.is_none() && self.print.is_some()
    }

    /// A directory is there, for itself or for what is below it.
    pub fn is_dir(&self) -> bool {
        self.is_derived_dir() || self.present().is_some_and(|v| v.kind == Kind::Dir)
    }

    /// A file or link is there.
    pub fn is_file_or_link(&self) -> bool {
        self.present().is_some_and(|v| v.kind != Kind::Dir)
    }
}
