//! Somebody exchanges the parts of a path for others while one operation of a replica is under way.
//!
//! Owns the matrix: each kind of operation, each part of the path below the root and of our own directory, each kind of
//! exchange, each kind of somebody. Invariant: what is outside is looked at through the standard library, and anything
//! that differs there afterwards, however small, is an escape. The replica is driven as the engine drives it, so that
//! thousands of operations fit into seconds.

pub mod attacker;
pub mod canary;
pub mod cell;
pub mod ground;
pub mod operation;
mod order;

/// The parts of a path that are exchanged. The name of the last one depends on the operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A directory of the root, with everything below it.
    Dir(&'static str),
    /// What the operation is about.
    Last,
    /// Our own directory, or one in it.
    Ours(&'static str),
}

impl Part {
    /// All parts.
    pub const ALL: [Self; 8] = [
        Self::Dir("1"),
        Self::Dir("1/2"),
        Self::Dir("1/2/3"),
        Self::Last,
        Self::Ours(".instep"),
        Self::Ours(".instep/staging"),
        Self::Ours(".instep/trash"),
        Self::Ours(".instep/versions"),
    ];

    /// Where it is, below the root, for an operation on this name in the last directory.
    pub fn path(self, name: &str) -> String {
        match self {
            Self::Dir(path) | Self::Ours(path) => path.to_owned(),
            Self::Last => format!("{}/{name}", ground::DIR),
        }
    }

    /// Whether another user who may write in the root, but not in our directory, can exchange it.
    pub fn is_open(self) -> bool {
        !matches!(self, Self::Ours(path) if path.contains('/'))
    }
}
