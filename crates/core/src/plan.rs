//! A plan: everything that is to be done on every replica, as a value that can be shown, saved and tested.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::entry::Entry;
use crate::id::{ContentId, Dot};
use crate::path::RelPath;
use crate::row::Print;
use crate::time::Mtime;
use crate::version::{Kind, Version};

/// What must be at a path for an action to run; the replica verifies it immediately before acting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing is there.
    Absent,
    /// What the index recorded is there, unchanged since.
    Unchanged {
        /// Its kind.
        kind: Kind,
        /// What it looked like.
        print: Print,
        /// What it contained.
        content: ContentId,
    },
}

/// What is to be at the path afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Goal {
    /// A file with this content.
    File {
        /// What it contains.
        content: ContentId,
        /// How long it is.
        size: u64,
        /// Its permission bits.
        mode: u16,
        /// Its modification time.
        mtime: Mtime,
    },
    /// A directory.
    Dir {
        /// Its permission bits.
        mode: u16,
    },
    /// A symbolic link.
    Link {
        /// Where it points, verbatim.
        target: Box<[u8]>,
        /// Its modification time.
        mtime: Mtime,
    },
    /// Nothing.
    Absent,
    /// What is there already, with other metadata.
    Metadata {
        /// Its permission bits.
        mode: u16,
        /// Its modification time; none for directories.
        mtime: Option<Mtime>,
    },
    /// What is there already: only the index learns something.
    Record,
    /// The object at `from`, with everything below it, moves here by one rename.
    Rename {
        /// Where it is now.
        from: RelPath,
    },
}

impl Goal {
    /// What shows a version, with these permission bits.
    pub fn of(version: &Version, mode: u16) -> Self {
        match version.kind {
            Kind::File => Self::File {
                content: version.content,
                size: version.size,
                mode,
                mtime: version.mtime,
            },
            Kind::Dir => Self::Dir { mode },
            Kind::Link => Self::Link {
                target: version.target.clone(),
                mtime: version.mtime,
            },
            Kind::Tomb => Self::Absent,
        }
    }
}

/// Where displaced content goes. Nothing is ever unlinked by an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// To the trash: its version is superseded.
    Trash,
    /// To the version store: its version lost a conflict and is listed.
    Version(Dot),
}

/// One step on one replica at one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// The replica's place in the session's list.
    pub replica: usize,
    /// Where.
    pub path: RelPath,
    /// What must be there before.
    pub before: Precondition,
    /// What is to be there afterwards.
    pub goal: Goal,
    /// Where displaced content goes.
    pub keep: Keep,
    /// What the replica knows about the path afterwards.
    pub entry: Entry,
    /// Which sibling is at the path afterwards.
    pub shown: Option<Dot>,
}

impl Action {
    /// Whether a directory that the index knows must be there before.
    pub fn was_dir(&self) -> bool {
        matches!(
            self.before,
            Precondition::Unchanged {
                kind: Kind::Dir,
                ..
            }
        )
    }

    /// Whether a directory makes way for a file or a link, so that what is below has to go first.
    pub fn replaces_dir(&self) -> bool {
        self.was_dir() && matches!(self.goal, Goal::File { .. } | Goal::Link { .. })
    }

    /// Whether a directory is no directory afterwards.
    pub fn ends_dir(&self) -> bool {
        self.replaces_dir() || self.was_dir() && self.goal == Goal::Absent
    }
}

/// What became of one action. Anything but `Done` leaves the path as the user had it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is done and recorded.
    Done,
    /// The precondition no longer holds: look at the path again and plan again.
    Superseded,
    /// Somebody is writing it, or its parent is not there yet: try again later.
    Busy,
    /// It cannot be done for a reason that a person should see.
    Blocked(Problem),
}

/// A difficulty with one path; the rest goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub path: RelPath,
    /// The stable code, as in `explain`.
    pub code: Code,
    /// What was attempted and what the system said.
    pub detail: alloc::string::String,
}

/// Stable codes of problems with a path or a replica. The number is what a user greps for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// A file or directory could not be read.
    Unreadable = 2101,
    /// A name could not be written where it should be.
    Unwritable = 2104,
    /// The replica is on a read-only file system.
    ReadOnly = 2107,
    /// No room, quota or inodes left.
    NoSpace = 2108,
    /// The file is being written; it is retried.
    Changing = 2109,
    /// A special file: never read, never replaced.
    Special = 2110,
    /// A link that is absolute or leaves the root.
    UnsafeLink = 2111,
    /// A directory that should go still holds ignored files.
    Husk = 2112,
    /// Another file system is mounted below the root.
    Mount = 2113,
    /// Names that this file system cannot tell apart.
    NameClash = 2114,
    /// Content of a version is on no replica that is reachable now.
    ContentMissing = 2115,
    /// More concurrent versions than can be kept at one path.
    TooManySiblings = 2116,
    /// A watch could not be set; the directory is looked at by polling.
    WatchLimit = 2117,
    /// A bad line in an ignore file.
    IgnoreSyntax = 2118,
    /// An owner or extended attributes that cannot be kept here; the content is.
    NotKept = 2119,
    /// More extended attributes than are carried.
    TooManyAttributes = 2120,
    /// The root is missing, unmounted, replaced, or lost its marker.
    RootGone = 2201,
    /// Two different contents claim one dot: an integrity alarm.
    DotReused = 2301,
    /// A file has other content than was recorded, although nobody wrote it.
    Damaged = 2303,
    /// Replicas that are in step know different things about a path.
    Drifted = 2304,
    /// Two histories of one path each claim to have superseded the other.
    Contradiction = 2305,
}

impl Code {
    /// Every code, by number.
    pub const ALL: [Self; 21] = [
        Self::Unreadable,
        Self::Unwritable,
        Self::ReadOnly,
        Self::NoSpace,
        Self::Changing,
        Self::Special,
        Self::UnsafeLink,
        Self::Husk,
        Self::Mount,
        Self::NameClash,
        Self::ContentMissing,
        Self::TooManySiblings,
        Self::WatchLimit,
        Self::IgnoreSyntax,
        Self::NotKept,
        Self::TooManyAttributes,
        Self::RootGone,
        Self::DotReused,
        Self::Damaged,
        Self::Drifted,
        Self::Contradiction,
    ];

    /// As users see it: `E2107`.
    pub fn text(self) -> alloc::string::String {
        alloc::format!("E{}", self as u32)
    }
}

/// A plan for any number of replicas.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// What is to be done, in an order that keeps parents before children on the way in and after them on
    /// the way out.
    pub actions: Vec<Action>,
}
