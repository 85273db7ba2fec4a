//! What a look found: differences between a disk and its index, as values.

use std::collections::BTreeSet;

use instep_core::attributes::Attributes;
use instep_core::id::{ContentId, Dot};
use instep_core::path::RelPath;
use instep_core::plan::Problem;
use instep_core::row::{Held, Print};
use instep_core::time::Mtime;
use instep_core::version::Kind;

/// Where to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everywhere.
    Everything,
    /// What a walk left unread: the piece that has this number, as [`Look::rest`] says. Asked for once more it is
    /// the same piece, because the answer may have been lost.
    Rest(u64),
    /// At these paths, and at these directories with everything below them.
    Some {
        /// Single paths.
        paths: BTreeSet<RelPath>,
        /// Directories with everything below.
        trees: BTreeSet<RelPath>,
    },
}

/// What is at a path now, differing from the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing, where the index has something.
    Absent {
        /// What was there.
        was: Kind,
    },
    /// Something.
    Present {
        /// What it is.
        kind: Kind,
        /// Its content (of a link, of its target); none for a directory.
        content: ContentId,
        /// Bytes of a file.
        size: u64,
        /// Permission bits.
        mode: u16,
        /// Modification time.
        mtime: Mtime,
        /// A link's target.
        target: Box<[u8]>,
        /// What it looks like, to notice the next change.
        print: Print,
        /// Owner and extended attributes, as far as they are looked at.
        attributes: Option<Box<Attributes>>,
        /// Where the identical object was before.
        moved_from: Option<RelPath>,
        /// The content looks random now (compressed or encrypted).
        high_entropy: bool,
    },
    /// Only the fingerprint differs: the index is refreshed, no version is minted.
    Refreshed {
        /// What it looks like now.
        print: Print,
    },
    /// It is there but is not synchronized, and says why.
    Held(Held),
    /// It is not there, and that means nothing: the path is to be brought again.
    Forgotten,
    /// On a replica that lost its memory: something that the others have or had. It is recorded as what was
    /// there before everything that they know, so that it neither wins nor is a conflict.
    Ancestor {
        /// The dot under which it is recorded; everybody who knows the path has seen it.
        dot: Dot,
        /// What was found: [`Found::Present`].
        seen: Box<Self>,
    },
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub path: RelPath,
    /// What.
    pub found: Found,
}

/// A directory or file that is now elsewhere, with everything below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Where it was.
    pub from: RelPath,
    /// Where it is.
    pub to: RelPath,
    /// Everything that was below `from` is unchanged below `to`, and nothing else is there.
    pub whole: bool,
}

/// Sums over what a look saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub dirs: u64,
    /// Symbolic links.
    pub links: u64,
    /// Bytes in regular files.
    pub bytes: u64,
}

impl Totals {
    /// Counts one object in.
    pub fn add(&mut self, kind: Kind, size: u64) {
        // Sizes are what a row says, which somebody else may have written.
        let n = self.of(kind);
        *n = n.saturating_add(u64::from(kind != Kind::Tomb));
        let bytes = if kind == Kind::File { size } else { 0 };
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Counts one object out.
    pub fn remove(&mut self, kind: Kind, size: u64) {
        let n = self.of(kind);
        *n = n.saturating_sub(u64::from(kind != Kind::Tomb));
        let bytes = if kind == Kind::File { size } else { 0 };
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    fn of(&mut self, kind: Kind) -> &mut u64 {
        match kind {
            Kind::File | Kind::Tomb => &mut self.files,
            Kind::Dir => &mut self.dirs,
            Kind::Link => &mut self.links,
        }
    }

    /// Objects of every kind.
    pub fn entries(&self) -> u64 {
        let named = self.files.saturating_add(self.dirs);
        named.saturating_add(self.links)
    }
}

/// What a look found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Look {
    /// Differences, by path.
    pub findings: Vec<Finding>,
    /// Moves among them, outermost only.
    pub moves: Vec<Move>,
    /// What could not be looked at, and why.
    pub problems: Vec<Problem>,
    /// Sums over what is there now, as far as this look tells.
    pub totals: Totals,
    /// Sums over what the index had before this look.
    pub known: Totals,
    /// Paths that are being written, or have just gone: look again after this many milliseconds.
    pub again: Vec<(RelPath, u64)>,
    /// For how long the oldest of the absences has been noticed, in milliseconds.
    pub absent_ms: u64,
    /// An ignore file changed: the rules were read again, and everything must be looked at. Each look says so until
    /// one that does is recorded.
    pub rules_changed: bool,
    /// Files that were seen and not yet read, with their sizes: [`Scope::Rest`] reads on.
    pub unread: Vec<(RelPath, u64)>,
    /// There is more to be read: the number of the next piece.
    pub rest: Option<u64>,
    /// Big files that changed and wait for their content to be hashed.
    pub unhashed: Vec<RelPath>,
}
