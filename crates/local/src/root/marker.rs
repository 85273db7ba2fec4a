//! The marker: proof that this is the root, which replica lives in it, and which shares it is in.
//!
//! Owns the marker's format and its changes. Invariant: a root is kept equal in one share only, and a marker
//! names one replica, whatever the shares. Whether a marker that was found may be believed is not decided
//! here: see `evidence`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use instep_core::id::{ReplicaId, ShareId};
use instep_core::policy::Role;
use instep_fs::Dir;
use instep_replica::env::Env;
use instep_replica::{Error, ErrorKind, Replica, Result};
use serde::{Deserialize, Serialize};

use super::evidence::Evidence;
use super::files::{MARKER, read_text, write_text};
use crate::replica::{LocalReplica, fs_error};

/// What a root is in one share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MembershipKind {
    /// Kept equal with others.
    Sync,
    /// Source or target of a mirror.
    Mirror,
}

/// A root's part in one share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// Which share.
    pub share: ShareId,
    /// Who it is in the share.
    pub replica: ReplicaId,
    /// What it may do.
    pub role: Role,
    /// Of which kind.
    pub kind: MembershipKind,
    /// Its name in messages.
    pub label: String,
    /// All members when it was used last: name and place.
    pub members: Vec<(String, PathBuf)>,
}

/// A membership as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    role: String,
    pub(super) kind: MembershipKind,
    label: String,
    #[serde(default, with = "super::written::places")]
    members: Vec<(String, PathBuf)>,
}

impl Part {
    /// A membership whose other members are not known yet.
    pub(super) fn new(role: Role, kind: MembershipKind, label: &str) -> Self {
        Self {
            role: role_text(role).to_owned(),
            kind,
            label: label.to_owned(),
            members: Vec::new(),
        }
    }

    /// Whether the root was only read in the share.
    pub(super) fn is_source(&self) -> bool {
        self.role == role_text(Role::Source)
    }
}

/// What a root says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marker {
    format: u32,
    replica: String,
    evidence: Evidence,
    shares: BTreeMap<String, Part>,
}

impl Marker {
    /// The marker in a directory of ours; none if there is none or it cannot be read.
    pub(super) fn of(dir: &Dir) -> Option<Self> {
        Self::from_text(&read_text(dir, MARKER)?)
    }

    fn from_text(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The marker of a replica that goes on in a share, or joins it: what was known of the share's other
    /// members is kept.
    pub(super) fn joining(
        old: Option<Self>,
        id: ReplicaId,
        evidence: &Evidence,
        share: ShareId,
        part: Part,
    ) -> Self {
        let mut shares = old.map(|m| m.shares).unwrap_or_default();
        let key = share.to_string();
        if part.kind == MembershipKind::Sync {
            // A root is kept equal in one share only; another one replaces it (`--merge-shares`).
            shares.retain(|id, p| p.kind != MembershipKind::Sync || *id == key);
        }
        let members = shares
            .get(&key)
            .map(|p| p.members.clone())
            .unwrap_or_default();
        shares.insert(key, Part { members, ..part });
        Self {
            format: 1,
            replica: id.to_string(),
            evidence: evidence.clone(),
            shares,
        }
    }

    /// Writes the marker into a directory of ours, durably.
    pub(super) fn write(&self, env: &dyn Env, dir: &Dir) -> Result<()> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| Error::because(ErrorKind::Other, "write the marker", e))?;
        write_text(env, dir, MARKER, &text).map_err(|e| fs_error("write the marker", e))
    }

    /// The replica's id as it is written.
    pub(super) fn replica(&self) -> &str {
        &self.replica
    }

    /// The replica, if what is written is an id.
    pub(super) fn id(&self) -> Option<ReplicaId> {
        self.replica.parse().ok()
    }

    /// What identified the place when the marker was written.
    pub(super) fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// The part in a share.
    pub(super) fn part(&self, share: ShareId) -> Option<&Part> {
        self.shares.get(&share.to_string())
    }

    /// Whether it is the marker of a root in no other share than this one.
    pub(super) fn is_only_in(&self, share: ShareId) -> bool {
        let mut others = self.shares.keys().filter(|k| **k != share.to_string());
        others.next().is_none()
    }

    /// Ends the membership in a share; whether there was one.
    pub(super) fn leave(&mut self, share: ShareId) -> bool {
        self.shares.remove(&share.to_string()).is_some()
    }

    /// Whether it is in no share.
    pub(super) fn is_in_no_share(&self) -> bool {
        self.shares.is_empty()
    }

    /// What it says, for whoever asks from outside.
    pub(super) fn memberships(&self, replica: ReplicaId) -> Vec<Membership> {
        let read = |(share, part): (&String, &Part)| {
            Some(Membership {
                share: share.parse().ok()?,
                replica,
                role: role_from(&part.role),
                kind: part.kind,
                label: part.label.clone(),
                members: part.members.clone(),
            })
        };
        self.shares.iter().filter_map(read).collect()
    }
}

/// What the text of a marker says, for whoever has no root to ask: none if it is no marker.
pub fn memberships_in(text: &str) -> Vec<Membership> {
    let marker = Marker::from_text(text);
    let named = marker.and_then(|m| Some((m.id()?, m)));
    named.map_or_else(Vec::new, |(id, marker)| marker.memberships(id))
}

impl LocalReplica {
    /// Remembers in the marker who else is in the share and where, for commands that start from one root.
    pub fn note_members(&self, members: &[(String, PathBuf)]) -> Result<()> {
        let Some(base) = &self.base else {
            return Ok(());
        };
        let Some(mut marker) = Marker::of(base) else {
            return Ok(());
        };
        let key = Replica::share(self).to_string();
        let Some(part) = marker.shares.get_mut(&key) else {
            return Ok(());
        };
        if part.members == members {
            return Ok(());
        }
        part.members = members.to_vec();
        marker.write(self.env.as_ref(), base)
    }
}

fn role_text(role: Role) -> &'static str {
    match role {
        Role::Both => "both",
        Role::Source => "source",
        Role::Target => "target",
    }
}

fn role_from(text: &str) -> Role {
    match text {
        "source" => Role::Source,
        "target" => Role::Target,
        _ => Role::Both,
    }
}
