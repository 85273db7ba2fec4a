//! What two machines tell each other, as plain values.
//!
//! Invariant: paths, entries and identities are validated types; a value that could not have come from an honest peer
//! does not exist here. How they look on the wire is the schema's business (`proto/instep/v1`).
//!
//! Each side says [`Hello`] first. After that both may say anything at any time; the order of one side's messages is
//! kept.

use bytes::Bytes;
use instep_core::entry::Entry;
use instep_core::id::{ActorId, Dot, ReplicaId, ShareId};
use instep_core::path::RelPath;

use crate::limits;

/// Versions of the protocol, from the lowest to the highest that somebody speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// The lowest.
    pub min: u32,
    /// The highest.
    pub max: u32,
}

impl Versions {
    /// What this program speaks.
    pub const OURS: Self = Self {
        min: limits::VERSION_MIN,
        max: limits::VERSION_MAX,
    };

    /// The highest that both speak.
    pub fn common(self, other: Self) -> Option<u32> {
        let version = self.max.min(other.max);
        (version >= self.min.max(other.min)).then_some(version)
    }
}

impl std::fmt::Display for Versions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.min == self.max {
            write!(f, "{}", self.max)
        } else {
            write!(f, "{} to {}", self.min, self.max)
        }
    }
}

/// Who speaks, for which copy of which share, and what both had of each other when they last met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The versions that the sender speaks.
    pub versions: Versions,
    /// The share; zero where it is known by name alone.
    pub share: ShareId,
    /// The share's name, where it is asked for by name; else empty.
    pub share_name: String,
    /// The sender's replica; zero for a hub, which has none.
    pub replica: ReplicaId,
    /// Under whom the sender observes changes now.
    pub actor: ActorId,
    /// The highest counter that it used.
    pub counter: u64,
    /// The head of the chain over its history; zero where there is none.
    pub head: [u8; 32],
    /// What people call the replica.
    pub label: String,
    /// What the replica may do in the share: the stable word for it.
    pub role: String,
    /// The sender's machine, as people write it.
    pub machine: String,
    /// A digest of the receiver's rows as the sender has them; zero where it has none.
    pub mirror: [u8; 32],
    /// The highest counters of the receiver's actors that the sender saw.
    pub knows: Vec<Dot>,
}

impl Hello {
    /// With everything that may be left out left out.
    pub fn new(share: ShareId, replica: ReplicaId, actor: ActorId) -> Self {
        Self {
            versions: Versions::OURS,
            share,
            share_name: String::new(),
            replica,
            actor,
            counter: 0,
            head: [0; 32],
            label: String::new(),
            role: String::new(),
            machine: String::new(),
            mirror: [0; 32],
            knows: Vec::new(),
        }
    }
}

/// What a replica has of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Where.
    pub path: RelPath,
    /// What is known of it.
    pub entry: Entry,
    /// Which sibling is on the sender's disk.
    pub shown: Option<Dot>,
    /// Why the sender knows it and does not have it; zero where it does.
    pub held: u8,
    /// The content of what is shown, where it is small.
    pub inline: Option<Bytes>,
}

/// Rows that changed, in the order in which they are to be taken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rows {
    /// The rows.
    pub rows: Vec<Row>,
    /// Up to where in its sequence the sender has told everything with this.
    pub seq: u64,
}

/// A stretch of paths in the order of a tree walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The first path.
    pub from: RelPath,
    /// The first path that does not belong to it; none at the end of the tree.
    pub to: Option<RelPath>,
}

/// What the sender has in a stretch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeDigest {
    /// The stretch.
    pub range: Range,
    /// How many rows.
    pub count: u64,
    /// A digest over them.
    pub digest: [u8; 32],
}

/// A directory that got another name, with everything below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// Where it was.
    pub from: RelPath,
    /// Where it is.
    pub to: RelPath,
    /// Who observed it.
    pub actor: ActorId,
    /// The counter of the first of the changes that it stands for.
    pub first_counter: u64,
    /// How many they are.
    pub count: u64,
    /// A digest over the rows that were moved, so that the receiver knows whether it has the same.
    pub digest: [u8; 32],
}

/// A record of a replicated table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The table's number.
    pub book: u8,
    /// Which record.
    pub key: String,
    /// What it says; none where it was taken out.
    pub body: Option<String>,
}

/// One message of the exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The first message of each side.
    Hello(Box<Hello>),
    /// The sender will have nothing to do with the receiver, and ends the connection.
    Refused {
        /// Why, in stable words.
        code: String,
        /// Why, for people.
        detail: String,
    },
    /// Rows that changed.
    Rows(Rows),
    /// All rows up to here are durable at the sender of this.
    Seen {
        /// The sequence number of the rows.
        seq: u64,
    },
    /// What the sender has, stretch by stretch.
    Digests(Vec<RangeDigest>),
    /// The stretches whose rows the sender wants.
    Wanted(Vec<Range>),
    /// A directory that got another name.
    Moved(Moved),
    /// A record of a replicated table.
    Record(Record),
    /// What the sender reports to the receiver's user, as JSON.
    Status(String),
    /// Asks for the same number back.
    Ping(u64),
    /// The answer.
    Pong(u64),
    /// The sender ends the connection, and that is in order.
    Bye {
        /// Why, in stable words.
        code: String,
    },
}
