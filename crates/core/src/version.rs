//! A version: what one user, at one moment, made of one path. Immutable once minted.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::attributes::Sayings;
use crate::id::ContentId;
use crate::path::RelPath;
use crate::time::{Hlc, Mtime};

/// What exists at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link, as a link.
    Link,
    /// Nothing, on purpose: the record of a deletion.
    Tomb,
}

/// One version of a path.
///
/// The order means nothing; it only makes a choice between two versions the same everywhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// What it is.
    pub kind: Kind,
    /// The content's identity. For a tombstone, of the content it removed.
    pub content: ContentId,
    /// Bytes of a file; zero otherwise.
    pub size: u64,
    /// Permission bits, `0o777` at most; zero for links and tombstones.
    pub mode: u16,
    /// When the user last changed it. Meaningless for directories and tombstones.
    pub mtime: Mtime,
    /// Orders concurrent versions; see [`crate::time::effective_time`].
    pub te: Hlc,
    /// When `mode` was last changed, so that a concurrent edit does not undo a chmod.
    pub mode_te: Hlc,
    /// Owner and extended attributes, as far as whoever minted it knew what was said of them.
    pub attributes: Option<Box<Sayings>>,
    /// A link's target; empty otherwise.
    pub target: Box<[u8]>,
    /// Contents that this path had before, newest first, at most [`crate::limits::PREVIOUS_MAX`].
    pub prev: Vec<ContentId>,
    /// Where it was moved from (or, for a tombstone, to): a hint that saves transfer and nothing else.
    pub moved: Option<RelPath>,
    /// Only metadata was changed: the content is the one that the path had before. Such a version neither
    /// saves content from a concurrent deletion nor competes with a concurrent edit.
    pub meta_only: bool,
    /// The share's policy epoch when it was minted; decides under which policy a conflict falls.
    pub policy_epoch: u32,
}

impl Version {
    /// A version of which nothing is known but its kind: no content, no times, no bits, no past.
    pub fn bare(kind: Kind) -> Self {
        Self {
            kind,
            content: ContentId::NONE,
            size: 0,
            mode: 0,
            mtime: Mtime::default(),
            te: 0,
            mode_te: 0,
            attributes: None,
            target: Box::default(),
            prev: Vec::new(),
            moved: None,
            meta_only: false,
            policy_epoch: 0,
        }
    }

    /// Whether both show the same thing to a user, metadata aside.
    pub fn same_content(&self, other: &Self) -> bool {
        self.kind == other.kind && self.content == other.content
    }

    /// Whether it is a tombstone.
    pub fn is_tomb(&self) -> bool {
        self.kind == Kind::Tomb
    }
}
