//! What the engine can be asked to do while it runs, and what it answers.

use instep_core::path::RelPath;

use crate::report::{State, Summary};

/// How to settle a conflict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// The version by the replica with this label or id.
    Replica(String),
    /// The newest version.
    Newest,
    /// Both: the loser becomes a file beside the path.
    Both,
}

impl Keep {
    /// From what a person types.
    pub fn from_word(word: &str) -> Self {
        match word {
            "newest" => Self::Newest,
            "both" => Self::Both,
            name => Self::Replica(name.to_owned()),
        }
    }

    /// As a person types it.
    pub fn word(&self) -> &str {
        match self {
            Self::Newest => "newest",
            Self::Both => "both",
            Self::Replica(name) => name,
        }
    }
}

/// A request. Carried out between two cycles, on the engine's thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// How things stand.
    Status,
    /// What is planned or waiting at a path.
    Why(RelPath),
    /// Settle one conflict (a loser's dot, or a prefix of its id), or all.
    Resolve {
        /// Which; none means all.
        id: Option<String>,
        /// How.
        keep: Keep,
    },
    /// Let held changes through.
    Approve(String),
    /// Undo held changes where they were made.
    Reject(String),
    /// Bring an object back from a replica's trash.
    Restore {
        /// The replica's place in the session.
        replica: usize,
        /// The trash record's key.
        key: String,
        /// Where to, when not to where it was.
        to: Option<RelPath>,
    },
    /// Destroy what is in the trash (never the last copy of an open conflict).
    EmptyTrash {
        /// Only objects displaced before this instant, nanoseconds since 1970.
        before_ns: i64,
    },
    /// Read files again, and list those whose content changed although nobody wrote them.
    Check {
        /// The replica's place in the session.
        replica: usize,
        /// Which.
        paths: Vec<RelPath>,
    },
    /// Take the bytes of a damaged file for a user's change.
    Accept {
        /// The replica's place in the session.
        replica: usize,
        /// Which.
        path: RelPath,
    },
    /// Put the recorded content of a damaged file back from a good copy.
    Repair {
        /// The replica's place in the session.
        replica: usize,
        /// Which.
        path: RelPath,
    },
    /// Look everywhere again.
    Rescan,
    /// Finish the epoch and stop.
    Stop,
}

/// How one replica stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// Its label.
    pub label: String,
    /// Where it is.
    pub location: String,
    /// Its state.
    pub state: State,
    /// Why, where it is not in sync.
    pub why: String,
    /// What a person should know about how it works here.
    pub notes: Vec<String>,
}

/// How everything stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Each replica.
    pub replicas: Vec<ReplicaStatus>,
    /// The worst of their states.
    pub state: State,
    /// Counts.
    pub summary: Summary,
    /// Paths with problems: replica, path, code, detail.
    pub problems: Vec<(usize, instep_core::plan::Problem)>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Done; how many objects it concerned.
    Done(u64),
    /// How things stand.
    Status(Status),
    /// Lines that explain a path.
    Why(Vec<String>),
    /// It cannot be done: code and one sentence.
    Refused {
        /// The code, as in `explain`.
        code: u16,
        /// Why.
        why: String,
    },
}
