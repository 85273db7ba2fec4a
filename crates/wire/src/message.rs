//! What two machines tell each other, as plain values.
//!
//! Invariant: paths, entries and identities are validated types; a value that could not have come from an honest peer
//! does not exist here. How they look on the wire is the schema's business (`proto/instep/v1`).
//!
//! Each side says [`Hello`] first. After that both may say anything at any time; the order of one side's messages is
//! kept.

use bytes::Bytes;
use instep_core::id::{ActorId, Dot, ReplicaId, ShareId};
use instep_core::path::RelPath;

use crate::limits;
use crate::proto::{self, Arrival, ProtoError};

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

/// What a replica tells of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Where.
    pub path: RelPath,
    /// Its row, as in the index; none where the sender has none any more.
    pub row: Option<Bytes>,
    /// The content of what is shown, where it is small and new.
    pub inline: Option<Bytes>,
}

/// A part of all rows: those of paths whose hashes begin with so many hexadecimal digits, and with these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// How many digits; none means all rows.
    pub depth: u8,
    /// The digits.
    pub digits: u16,
}

/// What the sender has in the sixteen parts of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digests {
    /// The part.
    pub node: Node,
    /// A digest for each part of it.
    pub children: Vec<u128>,
    /// How many rows the sender has in all.
    pub rows: u64,
}

/// A part that the sender wants to know of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Which.
    pub node: Node,
    /// All its rows; otherwise the digests of its parts.
    pub rows: bool,
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

impl Message {
    /// The bytes in which it travels.
    pub fn to_bytes(&self) -> Result<Bytes, ProtoError> {
        proto::encode(self)
    }

    /// From bytes of anybody; none for what only a later version says.
    pub fn from_bytes(bytes: &[u8]) -> Result<Option<Self>, ProtoError> {
        Ok(match proto::decode(Bytes::copy_from_slice(bytes))? {
            Arrival::Message(message) => Some(message),
            Arrival::OpenBulk | Arrival::Unknown => None,
        })
    }
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
    /// What the sender tells of some paths, in the order in which it is to be taken in.
    Rows(Vec<Row>),
    /// The sender has the same of these paths as it was told; with the digests of their rows.
    Same(Vec<(RelPath, u128)>),
    /// What the sender has, in parts.
    Digests(Digests),
    /// The parts that the sender wants to know of.
    Wanted(Vec<Part>),
    /// All rows of these parts were told.
    Complete(Vec<Node>),
    /// The sender has nothing left to do for what it was told in so many messages with rows.
    Rest {
        /// How many.
        heard: u64,
    },
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
