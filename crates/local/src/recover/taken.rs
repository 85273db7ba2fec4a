//! What had been displaced when the process died, and no record says so yet: evidence that a batch got as far as that.
//!
//! The object that a row tells of is known by its number and its content. If it is among what we keep, and what was to
//! take its place is not waiting any more, then that had the name, whatever a user did to it since. Reads only.
//! Invariant: in any doubt nothing was displaced. What a user did then stands beside what was brought.

use std::collections::{BTreeMap, BTreeSet};

use instep_core::id::ContentId;
use instep_core::path::{Name, RelPath};
use instep_core::version::{Kind, Version};
use instep_fs::{Dir, Stat};
use instep_replica::Result;

use super::classify::has_moved_on;
use super::intent::Intended;
use super::on_disk::content;
use crate::replica::LocalReplica;
use crate::trash;

/// Paths whose objects we had taken, with what these were.
#[derive(Debug, Default)]
pub(super) struct Taken(BTreeSet<(RelPath, ContentId)>);

/// An object that an intent was to displace, and no other may have.
struct Claim<'a> {
    intended: &'a Intended,
    kind: Kind,
    old: ContentId,
    want: &'a Version,
}

/// What we keep, and no record lists: the number of each, and what it is.
type Kept = Vec<(u64, (Kind, ContentId))>;

impl Taken {
    /// Of all intents of a process that died, while the machine went on.
    pub(super) fn of(replica: &LocalReplica, intents: &[Intended]) -> Result<Self> {
        let claims = claims(replica, intents)?;
        let Some(ours) = replica.ours().filter(|_| !claims.is_empty()) else {
            return Ok(Self::default());
        };
        let sizes: BTreeSet<u64> = claims.values().map(|c| c.want.size).collect();
        let is_claimed = |stat: &Stat| claims.contains_key(&stat.ino);
        let may_wait = |stat: &Stat| {
            is_claimed(stat) || stat.kind != instep_fs::Kind::File || sizes.contains(&stat.size)
        };
        let staged = kept(replica, &ours.staging, may_wait)?;
        let trashed = kept(replica, &ours.trash, is_claimed)?;
        let stored = kept(replica, &ours.versions, is_claimed)?;
        let (Some(staged), Some(trashed), Some(stored)) = (staged, trashed, stored) else {
            return Ok(Self::default());
        };
        let waits = |c: &Claim<'_>| {
            let put = (c.want.kind, c.want.content);
            staged.iter().any(|(_, what)| *what == put)
        };
        let all = || staged.iter().chain(&trashed).chain(&stored);
        let is_ours = |ino: &u64, c: &Claim<'_>| all().any(|k| *k == (*ino, (c.kind, c.old)));
        let taken = claims
            .iter()
            .filter(|(ino, c)| is_ours(ino, c) && !waits(c));
        let taken = taken.map(|(_, c)| (c.intended.path.clone(), c.old));
        Ok(Self(taken.collect()))
    }

    /// Whether what an intent found at its path was taken from there.
    pub(super) fn has(&self, intended: &Intended) -> bool {
        let old = intended.old.map(|old| (intended.path.clone(), old));
        old.is_some_and(|object| self.0.contains(&object))
    }
}

/// What intents were to displace, by its number. What two of them may have displaced says nothing of either. Where names
/// cannot be exchanged, one may have been missing before anything took it, and an object may have two for a moment.
fn claims<'a>(replica: &LocalReplica, intents: &'a [Intended]) -> Result<BTreeMap<u64, Claim<'a>>> {
    let mut claims: BTreeMap<u64, Option<Claim<'a>>> = BTreeMap::new();
    for intended in intents.iter().filter(|_| replica.profile.exchange) {
        let Some(want) = intended.entry.get_shown(intended.shown) else {
            continue;
        };
        let row = replica.index().get(&intended.path)?;
        let row = row.filter(|row| !has_moved_on(row, intended));
        let there = row.and_then(|row| Some((row.print?.ino, row.present()?.clone())));
        let Some((ino, version)) = there.filter(|(_, v)| Some(v.content) == intended.old) else {
            continue;
        };
        let claim = Claim {
            intended,
            kind: version.kind,
            old: version.content,
            want,
        };
        let is_other = |known: &Option<Claim<'_>>| {
            known
                .as_ref()
                .is_none_or(|known| known.intended != intended)
        };
        let is_shared = claims.get(&ino).is_some_and(is_other);
        claims.insert(ino, (!is_shared).then_some(claim));
    }
    let claims = claims.into_iter();
    Ok(claims.filter_map(|(ino, c)| Some((ino, c?))).collect())
}

/// The objects in a directory of ours that no record lists, of those that matter; none if that cannot be told.
fn kept(
    replica: &LocalReplica,
    dir: &Dir,
    matters: impl Fn(&Stat) -> bool,
) -> Result<Option<Kept>> {
    let mut found: Vec<(Vec<u8>, Stat)> = Vec::new();
    let mut is_unread = false;
    let listed = dir.list_stat(&mut |name, stat| match stat {
        Ok(stat) if matters(&stat) => found.push((name.to_vec(), stat)),
        Ok(_) => {}
        Err(_) => is_unread = true,
    });
    if listed.is_err() || is_unread {
        return Ok(None);
    }
    let mut kept = Vec::new();
    for (name, stat) in found {
        let Ok(name) = Name::new(&name) else {
            continue;
        };
        if trash::listed(&mut replica.index(), name)?.is_some() {
            continue;
        }
        let Ok(Some(what)) = content(dir, name, &stat) else {
            return Ok(None);
        };
        kept.push((stat.ino, what));
    }
    Ok(Some(kept))
}
