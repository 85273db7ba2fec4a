//! What the two ends of a connection say to each other about one share.

use instep_core::path::RelPath;
use instep_replica::Book;

use crate::digest::Prefix;

/// Rows of one message.
pub const ROWS_MAX: usize = 4096;
/// Bytes of one message, about.
pub const BYTES_MAX: usize = 768 * 1024;
/// Contents up to this size travel with their row.
pub const INLINE_MAX: u64 = 64 * 1024;

/// What is told of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Where.
    pub path: RelPath,
    /// The bytes of its row ([`crate::told`]); none where the sender has no row any more.
    pub row: Option<Vec<u8>>,
    /// The content of what is shown, where it is small and new.
    pub inline: Option<Vec<u8>>,
}

/// A part of everything, and how it is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Which.
    pub node: Prefix,
    /// All its rows; otherwise the digests of its children.
    pub rows: bool,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Say {
    /// What is told of some paths, in the order in which it is to be taken in.
    Rows(Vec<Said>),
    /// What was told of these paths is what the sender of this has, too: paths and the digests of their rows.
    Same(Vec<(RelPath, u128)>),
    /// The digests of a node's children.
    Digests {
        /// The node.
        node: Prefix,
        /// One for each child.
        children: Vec<u128>,
        /// How many rows the sender has in all.
        rows: u64,
    },
    /// These are wanted.
    Wanted(Vec<Part>),
    /// All rows of these nodes were told: what was not told is not there.
    Complete(Vec<Prefix>),
    /// The sender has nothing left to do for what it was told in so many messages with rows.
    Rest {
        /// How many.
        heard: u64,
    },
    /// What is written in a book; nothing, where that was taken out.
    Record {
        /// Which book.
        book: Book,
        /// Under which key.
        key: String,
        /// What.
        body: Option<String>,
    },
}
