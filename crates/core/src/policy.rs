//! What the user chose: the policy for conflicts, and what each replica may do.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::id::ActorId;

/// Who wins when versions are concurrent. A setting of the share, never of one replica: otherwise two
/// replicas would compute two views of one sibling set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ConflictPolicy {
    /// The newest version is at the path; every loser is kept aside and listed.
    #[default]
    Newest,
    /// The newest version is at the path; every loser becomes a file beside it.
    KeepBoth,
    /// A version by one of these actors (all incarnations of one replica) is at the path.
    Prefer(BTreeSet<ActorId>),
    /// Every replica keeps showing what it shows until a person decides.
    Manual,
}

/// The share's conflict policies by epoch. A conflict falls under the newest epoch among its siblings, so
/// that a change of policy decides later conflicts and leaves the old ones as they are: where a later version
/// joins an old conflict, it competes with the winner of that alone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policies(pub BTreeMap<u32, ConflictPolicy>);

impl Policies {
    /// The policy that a conflict of this epoch falls under.
    pub fn at(&self, epoch: u32) -> ConflictPolicy {
        self.0
            .range(..=epoch)
            .next_back()
            .map(|(_, p)| p.clone())
            .unwrap_or_default()
    }

    /// The newest epoch; versions minted now carry it.
    pub fn epoch(&self) -> u32 {
        self.0.keys().next_back().copied().unwrap_or(0)
    }

    /// The policy in force for new conflicts.
    pub fn current(&self) -> ConflictPolicy {
        self.at(u32::MAX)
    }
}

/// What a replica may do in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// Gives and takes changes.
    #[default]
    Both,
    /// Gives changes only: a mirror's source. Never written.
    Source,
    /// Takes changes only: a mirror's target. Its own edits and extras are displaced to trash.
    Target,
}
