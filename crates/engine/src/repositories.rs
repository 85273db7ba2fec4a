//! A `.git` that was changed on several replicas since they were equal is one unit: the newest one's state
//! is what all get, and nobody gets a mixture.
//!
//! Decides only which versions compete: to every file that another replica changed, the winner's is added
//! as the newest. What it displaces is kept as the loser of a conflict; what the winner does not have goes
//! to trash. Objects are never competed for, because they are what their names say. Never touches a disk.

use std::collections::BTreeMap;

use instep_core::entry::Entry;
use instep_core::group;
use instep_core::path::RelPath;
use instep_core::policy::{ConflictPolicy, Role};
use instep_core::reconcile;
use instep_core::row::Row;
use instep_core::version::{Kind, Version};

use crate::plan::{Pass, Rows};
use crate::session::Session;

impl Session {
    /// Lets the newest of each `.git` win as a whole, where several were changed.
    pub(crate) fn whole_repositories(&mut self, pass: &mut Pass) {
        let mut inside: BTreeMap<RelPath, Vec<RelPath>> = BTreeMap::new();
        for path in &self.dirty {
            if let Some(git) = group::git_dir(path)
                && !group::is_git_object(&git, path)
            {
                inside.entry(git).or_default().push(path.clone());
            }
        }
        for paths in inside.into_values() {
            self.whole_repository(&paths, pass);
        }
    }

    fn whole_repository(&mut self, paths: &[RelPath], pass: &mut Pass) {
        let rows = self.rows(paths, false);
        let n = self.slots.len();
        let newest = |i: usize| {
            rows.values()
                .filter_map(|r| self.news(i, r))
                .map(|v| v.te)
                .max()
        };
        let changed: BTreeMap<usize, i64> =
            (0..n).filter_map(|i| newest(i).map(|te| (i, te))).collect();
        let Some((winner, _)) = changed.iter().max_by_key(|(i, te)| (**te, **i)) else {
            return;
        };
        if changed.len() < 2 {
            return;
        }
        // Only whoever writes the winner can speak for it.
        if self.slots[*winner].is_observed() {
            return;
        }
        for (path, rows) in &rows {
            let competes = changed
                .keys()
                .any(|i| i != winner && self.news(*i, rows).is_some());
            if let Some(entry) = competes.then(|| self.winning(*winner, rows)).flatten() {
                pass.add_known(path.clone(), &entry);
            }
        }
    }

    /// What a replica itself made of a path, and another has not heard of.
    fn news<'a>(&self, i: usize, rows: &'a Rows) -> Option<&'a Version> {
        let slot = &self.slots[i];
        let row = rows[i]
            .as_ref()
            .filter(|_| slot.online() && slot.role != Role::Target)?;
        let dot = row
            .materialised()
            .filter(|d| d.actor == slot.replica.actor())?;
        let version = row.entry.get(dot)?;
        let unheard = |j: usize| {
            let unlike = |r: &Row| {
                let same = r.on_disk().is_some_and(|v| v.same_content(version));
                !same && !r.entry.ctx().covers(dot)
            };
            j != i && self.slots[j].online() && rows[j].as_ref().is_none_or(unlike)
        };
        let policy = self.share.policies.at(version.policy_epoch);
        let competes = version.kind != Kind::Dir && policy == ConflictPolicy::Newest;
        (competes && (0..rows.len()).any(unheard)).then_some(version)
    }

    /// What everybody knows of a path when the winner's version of it is the newest.
    fn winning(&mut self, winner: usize, rows: &Rows) -> Option<Entry> {
        let known = reconcile::merged(&self.sides(rows), &Entry::default());
        let newest = known
            .siblings()
            .iter()
            .map(|(_, v)| v)
            .max_by_key(|v| v.te)?
            .clone();
        let row = rows[winner].as_ref();
        let mine = row.and_then(|r| r.on_disk()).filter(|v| !v.is_tomb());
        let dot = match self.slots[winner].replica.mint() {
            Ok(dot) => dot,
            Err(e) => {
                self.replica_failed(winner, &e);
                return None;
            }
        };
        let te = newest.te.saturating_add(1);
        Some(match (mine, row) {
            (Some(mine), Some(row)) => {
                let version = Version {
                    te,
                    meta_only: false,
                    ..mine.clone()
                };
                known.record_beside(row.entry.ctx(), dot, version)
            }
            _ => {
                let (kind, target) = (Kind::Tomb, Box::default());
                let version = Version {
                    kind,
                    te,
                    target,
                    size: 0,
                    mode: 0,
                    moved: None,
                    ..newest
                };
                known.record(dot, version)
            }
        })
    }
}
