//! The books that a replica keeps beside its index, and the share's replicated settings.
//!
//! Bodies are JSON objects, so that a newer version can add fields and an older one keeps what it does not
//! know. Keys sort by age where that matters.

use std::collections::{BTreeMap, BTreeSet};

use instep_core::id::{ActorId, ContentId, ReplicaId, ShareId};
use instep_core::path::RelPath;
use instep_core::policy::{ConflictPolicy, Policies};
use serde::{Deserialize, Serialize};

/// A book of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Book {
    /// The share's settings and members: [`ShareRecord`] under `share`.
    Share,
    /// Conflicts by the loser's dot: [`ConflictRecord`].
    Conflicts,
    /// Deletions and rewrites that wait for a person: [`HoldRecord`].
    Holds,
    /// What is in the trash: [`TrashRecord`].
    Trash,
    /// What happened, oldest first: [`LogRecord`].
    Log,
}

/// One member of a share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The name in messages.
    pub label: String,
    /// Where it was last seen.
    pub location: String,
    /// All actors that this replica has minted under, oldest first, in hex.
    pub actors: Vec<String>,
    /// It left; kept so that its dots stay explained.
    #[serde(default)]
    pub gone: bool,
}

/// A conflict policy in a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyRecord {
    /// The newest wins.
    Newest,
    /// Losers become files.
    KeepBoth,
    /// This replica (hex id) wins.
    Prefer(String),
    /// A person decides.
    Manual,
}

/// The share's settings and members, replicated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct ShareRecord {
    /// Policies by epoch.
    pub policies: BTreeMap<u32, PolicyRecord>,
    /// Members by replica id in hex.
    pub members: BTreeMap<String, Member>,
}

impl ShareRecord {
    /// Everything that both records know; for a clash of policies the greater name wins everywhere.
    pub fn merge(&mut self, other: &Self) {
        for (epoch, policy) in &other.policies {
            let mine = self
                .policies
                .entry(*epoch)
                .or_insert_with(|| policy.clone());
            if format!("{policy:?}") > format!("{mine:?}") {
                *mine = policy.clone();
            }
        }
        for (id, member) in &other.members {
            let mine = self
                .members
                .entry(id.clone())
                .or_insert_with(|| member.clone());
            for actor in &member.actors {
                if !mine.actors.contains(actor) {
                    mine.actors.push(actor.clone());
                }
            }
            mine.gone |= member.gone;
        }
    }

    /// The policies with their replicas resolved to actors.
    pub fn policies(&self) -> Policies {
        let actors = |id: &str| -> BTreeSet<ActorId> {
            let member = self.members.get(id);
            member
                .iter()
                .flat_map(|m| &m.actors)
                .filter_map(|a| a.parse().ok())
                .collect()
        };
        Policies(
            self.policies
                .iter()
                .map(|(epoch, p)| {
                    let policy = match p {
                        PolicyRecord::Newest => ConflictPolicy::Newest,
                        PolicyRecord::KeepBoth => ConflictPolicy::KeepBoth,
                        PolicyRecord::Prefer(id) => ConflictPolicy::Prefer(actors(id)),
                        PolicyRecord::Manual => ConflictPolicy::Manual,
                    };
                    (*epoch, policy)
                })
                .collect(),
        )
    }

    /// The label of whoever minted under this actor.
    pub fn label_of(&self, actor: ActorId) -> Option<&str> {
        let text = actor.to_string();
        self.members
            .values()
            .find(|m| m.actors.contains(&text))
            .map(|m| m.label.as_str())
    }
}

/// What all replicas of a session agree on while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareState {
    /// Which share.
    pub id: ShareId,
    /// Its settings and members.
    pub record: ShareRecord,
    /// The policies, resolved.
    pub policies: Policies,
}

impl ShareState {
    /// Resolves a record.
    pub fn new(id: ShareId, record: ShareRecord) -> Self {
        let policies = record.policies();
        Self {
            id,
            record,
            policies,
        }
    }

    /// The record's key and the replica ids of its present members.
    pub fn members(&self) -> impl Iterator<Item = (ReplicaId, &Member)> {
        self.record
            .members
            .iter()
            .filter_map(|(id, m)| Some((id.parse().ok()?, m)))
    }
}

/// A conflict, by the loser's dot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictRecord {
    /// Where, escaped for people.
    pub path: String,
    /// Where, exact bytes in hex.
    pub path_hex: String,
    /// The losing version's dot.
    pub loser: String,
    /// The winning version's dot when it arose.
    pub winner: String,
    /// The loser's content id in hex.
    pub content: String,
    /// The loser's kind: `file` or `link`.
    pub kind: String,
    /// The loser's bytes.
    pub size: u64,
    /// The loser's permission bits.
    pub mode: u16,
    /// The loser's effective time, nanoseconds since 1970.
    pub te: i64,
    /// The winner's effective time, nanoseconds since 1970.
    pub winner_te: i64,
    /// Under which policy it was decided.
    pub policy: String,
    /// When it was noticed, nanoseconds since 1970.
    pub noticed_ns: i64,
    /// How it was resolved; none while it is open.
    #[serde(default)]
    pub resolved: Option<String>,
    /// When it was resolved, nanoseconds since 1970: from then on the loser is as old as trash.
    #[serde(default)]
    pub resolved_ns: Option<i64>,
}

/// What a hold keeps back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HoldKind {
    /// Deletions.
    Deletes,
    /// Rewrites into content that looks random.
    Rewrites,
}

/// A hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldRecord {
    /// What it keeps back.
    pub kind: HoldKind,
    /// On which replica it was noticed.
    pub replica: String,
    /// When, nanoseconds since 1970.
    pub since_ns: i64,
    /// How many entries when it was noticed.
    pub count: u64,
    /// How many entries the share had then.
    pub total: u64,
    /// Held paths, exact bytes in hex.
    pub paths_hex: Vec<String>,
    /// The decision, once taken: `approved` or `rejected`.
    #[serde(default)]
    pub decision: Option<String>,
}

/// One object in the trash or the version store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrashRecord {
    /// Where it was, escaped for people.
    pub path: String,
    /// Where it was, exact bytes in hex.
    pub path_hex: String,
    /// `file`, `directory` or `link`.
    pub kind: String,
    /// Bytes.
    pub size: u64,
    /// When it was displaced, nanoseconds since 1970.
    pub at_ns: i64,
    /// Why: `deleted`, `overwritten`, `moved`, `conflict`.
    pub why: String,
    /// Who superseded it (label), where known.
    pub by: String,
    /// Its content id in hex.
    pub content: String,
    /// Set when it is the loser of a conflict: the loser's dot. Never purged while that is open.
    #[serde(default)]
    pub loser: Option<String>,
    /// The epoch in which this was written: until that is durable, the record may be ahead of the object.
    #[serde(default)]
    pub epoch: u32,
    /// Nobody could say yet whether it is what was there before: it waits in the staging directory, under this name,
    /// for a look that tells, and `content` is what is expected of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unjudged: bool,
}

/// A file whose content changed although nobody wrote it, until a person decides which bytes count. Kept in
/// [`Book::Share`], under [`DamageRecord::key`], on the replica that has the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamageRecord {
    /// Where, escaped for people.
    pub path: String,
    /// Where, exact bytes in hex.
    pub path_hex: String,
    /// The content that was recorded, in hex.
    pub content: String,
    /// The content that was found, in hex.
    pub found: String,
    /// When it was noticed, nanoseconds since 1970.
    pub since_ns: i64,
}

impl DamageRecord {
    const PREFIX: &str = "damage-";

    /// Of a file that has `found` instead of `content`.
    pub fn new(path: &RelPath, content: ContentId, found: ContentId, since_ns: i64) -> Self {
        Self {
            path: path.to_string(),
            path_hex: hex(path.as_bytes()),
            content: content.to_string(),
            found: found.to_string(),
            since_ns,
        }
    }

    /// The same of a file that has another name now.
    pub fn at(&self, path: &RelPath) -> Self {
        Self {
            path: path.to_string(),
            path_hex: hex(path.as_bytes()),
            ..self.clone()
        }
    }

    /// The key under which the record of a path is kept.
    pub fn key(path: &RelPath) -> String {
        format!("{}{}", Self::PREFIX, hex(path.as_bytes()))
    }

    /// Whether a key of [`Book::Share`] is that of such a record.
    pub fn is_key(key: &str) -> bool {
        key.starts_with(Self::PREFIX)
    }

    /// Every such record of a replica, by path.
    pub fn all(replica: &dyn crate::Replica) -> crate::Result<BTreeMap<RelPath, Self>> {
        let records = replica.records(Book::Share)?.into_iter();
        let ours = records.filter(|(key, _)| Self::is_key(key));
        let parsed = ours.filter_map(|(_, body)| serde_json::from_str::<Self>(&body).ok());
        Ok(parsed
            .filter_map(|record| Some((path_from_hex(&record.path_hex)?, record)))
            .collect())
    }
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRecord {
    /// When, nanoseconds since 1970.
    pub at_ns: i64,
    /// `create`, `update`, `delete`, `move`, `metadata`, `conflict`, `hold`, `restore`.
    pub what: String,
    /// Where, escaped for people.
    pub path: String,
    /// Where it came from, for a move.
    #[serde(default)]
    pub from_path: Option<String>,
    /// The replica it came from.
    pub from: String,
    /// The replicas it went to.
    pub to: Vec<String>,
    /// Bytes.
    pub size: u64,
    /// How many similar operations this line stands for besides itself.
    #[serde(default)]
    pub similar: u64,
}

/// Bytes as lower-case hex, as records keep paths.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut out, b| {
        // Writing to a string cannot fail.
        let _ = write!(out, "{b:02x}");
        out
    })
}

/// A path from the hex that a record keeps.
pub fn path_from_hex(text: &str) -> Option<RelPath> {
    let digit = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
    let pairs = text.as_bytes().chunks(2);
    let bytes: Option<Vec<u8>> = pairs
        .map(|p| Some(digit(p[0])? << 4 | digit(*p.get(1)?)?))
        .collect();
    RelPath::new(&bytes?).ok()
}
