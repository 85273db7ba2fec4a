//! Versions whose content nobody has any more: what somebody still has takes their place.
//!
//! A power cut may keep what an index tells of a version and take the version's bytes, from every replica at once.
//! Owns when such a version is given up, and for what. Invariant: only when every member of the share is here, has
//! been looked at and has said that it has not got the content; whoever is away may have it. What takes its place
//! has seen it, so that all replicas accept it; two sessions that decide at once make two versions alike. Touches
//! no replica but to mint.

use std::collections::BTreeSet;

use instep_core::conflict;
use instep_core::entry::Entry;
use instep_core::id::{ContentId, Dot};
use instep_core::path::RelPath;
use instep_core::policy::Role;
use instep_core::reconcile;
use instep_core::row::Row;
use instep_core::time::{Mtime, effective_time};
use instep_core::version::{Kind, Version};
use instep_core::view::view;
use instep_replica::{Finding, Found, Scope};

use crate::plan::{CHANGING_TRIES, Pass, Rows};
use crate::problems::is_unseen;
use crate::report::Event;
use crate::session::Session;

/// The code of the notice, as in `explain`.
const GIVEN_UP: u16 = 2121;

impl Session {
    /// Gives up the version at a path whose content could not be had, if nobody has it. Returns whether it is decided
    /// what takes its place, or will be when what somebody did there is on record.
    pub(crate) fn give_up(&mut self, path: &RelPath, content: ContentId) -> bool {
        let Some(rows) = self.rows_of_all(path) else {
            return false;
        };
        // What takes its place may turn out to be lost, too.
        let before = self.resolutions.get(path).cloned();
        let is_decided = before.is_some();
        let called = self.called_for(path, &rows);
        let before = before.unwrap_or_default().merge(&called);
        let known = reconcile::merged(&self.sides(&rows), &before);
        let shown = view(&known, &self.share.policies).dot();
        let shown = shown.and_then(|d| Some((d, known.get(d)?.clone())));
        let is_lost = |(_, v): &(Dot, Version)| v.kind == Kind::File && v.content == content;
        let Some((dot, lost)) = shown.filter(is_lost) else {
            if is_decided {
                self.retry(path.clone(), None, 1);
            }
            return is_decided;
        };
        // What moved to make room waits: what else goes there may not have arrived yet. And whoever wrote under an actor
        // that no member knows may have it.
        if !self.is_of_member(dot) && !self.is_copy_of_member(dot, &lost) {
            return false;
        }
        let at_hand = rows.iter().flatten().any(|r| has(r, content));
        if at_hand || !self.is_nowhere(path, dot, &lost) {
            return false;
        }
        if let Some(delay_ms) = self.awaited(path) {
            let tries = self.later.get(path).map_or(0, |l| l.tries);
            if tries < CHANGING_TRIES {
                self.retry(path.clone(), None, delay_ms);
            }
            return tries < CHANGING_TRIES;
        }
        let Some((decided, what)) = self.instead(path, &rows, &known, dot, &lost) else {
            return false;
        };
        self.resolutions.insert(path.clone(), decided);
        let text = format!("no folder has the last content of {path} any more; {what}");
        let code = GIVEN_UP;
        self.monitor.event(Event::Notice { code, text });
        self.retry(path.clone(), None, 1);
        true
    }

    fn is_of_member(&self, dot: Dot) -> bool {
        self.share.record.label_of(dot.actor).is_some()
    }

    /// It is the copy of a loser that a member wrote, and nobody shows that any more.
    fn is_copy_of_member(&self, dot: Dot, lost: &Version) -> bool {
        let Some(from) = &lost.moved else {
            return false;
        };
        let Some(rows) = self.rows_of_all(from) else {
            return false;
        };
        let known = reconcile::merged(&self.sides(&rows), &Entry::default());
        let mut losers = known.siblings().iter().map(|(d, _)| *d);
        let at_hand = rows.iter().flatten().any(|r| has(r, lost.content));
        !at_hand && losers.any(|d| conflict::derived_dot(d) == dot && self.is_of_member(d))
    }

    /// What other paths call for at this one, and no row tells of.
    fn called_for(&mut self, path: &RelPath, rows: &Rows) -> Entry {
        let mut pass = Pass::default();
        self.recall_copy(path, rows, &mut pass);
        pass.known(path)
    }

    /// The rows of every member of the share, if all are here and have been looked at.
    fn rows_of_all(&self, path: &RelPath) -> Option<Rows> {
        let ready = |i: usize| {
            let slot = &self.slots[i];
            slot.online()
                && slot.role == Role::Both
                && !slot.look_everywhere
                && slot.rest.is_none()
                && !self.is_damaged(i, path)
                && !self.is_held(i, path)
        };
        let here = |id| self.slots.iter().any(|s| s.replica.id() == id);
        let mut members = self.share.members().filter(|(_, m)| !m.gone);
        let mut problems = self.problems.iter();
        let all = self.met
            && members.all(|(id, _)| here(id))
            && (0..self.slots.len()).all(ready)
            && !problems.any(|((_, at), problem)| is_unseen(problem) && path.is_within(at));
        if !all {
            return None;
        }
        let row = |i: usize| self.slots[i].replica.row(path).ok();
        (0..self.slots.len()).map(row).collect()
    }

    /// How long to wait until what somebody has at a path is on record, if it is not. What a user took away a moment
    /// ago has not settled or has not been looked at, and must count before what came earlier is brought back.
    fn awaited(&mut self, path: &RelPath) -> Option<u64> {
        const SOON_MS: u64 = 1;
        let scope = Scope::Some {
            paths: BTreeSet::from([path.clone()]),
            trees: BTreeSet::new(),
        };
        let mut wait = None;
        for i in 0..self.slots.len() {
            let look = match self.slots[i].replica.look(&scope) {
                Ok(look) => look,
                Err(e) => {
                    self.replica_failed(i, &e);
                    wait = wait.max(Some(SOON_MS));
                    continue;
                }
            };
            let here = |at: &RelPath| path.is_within(at);
            let is_new = |f: &Finding| here(&f.path) && !matches!(f.found, Found::Refreshed { .. });
            let is_news = look.findings.iter().any(is_new)
                || look.unhashed.iter().any(here)
                || look.problems.iter().any(|p| here(&p.path) && is_unseen(p));
            let again = look.again.iter().filter(|(at, _)| here(at));
            let settles = again.map(|(_, ms)| *ms).max();
            wait = wait.max(settles).max(is_news.then_some(SOON_MS));
        }
        wait
    }

    /// Every replica says that it has not got this content, at any place where it may be.
    fn is_nowhere(&self, path: &RelPath, dot: Dot, lost: &Version) -> bool {
        let beside = conflict::copy_path(path, dot, lost);
        let places = [Some(path.clone()), lost.moved.clone(), beside];
        let lacks = |at: &RelPath| {
            let mut all = self.slots.iter();
            all.all(|s| matches!(s.replica.open(at, lost.content), Ok(None)))
        };
        places.iter().flatten().all(lacks)
    }

    /// What is known of a path once a version is given up, and what a person is told of that.
    fn instead(
        &self,
        path: &RelPath,
        rows: &Rows,
        known: &Entry,
        dot: Dot,
        lost: &Version,
    ) -> Option<(Entry, &'static str)> {
        let others = known.siblings().iter().filter(|(d, _)| *d != dot);
        let others: Vec<(Dot, Version)> = others.cloned().collect();
        // What was written beside it stands for itself; what nobody may have written stands only for nothing else.
        let without = || {
            let ctx = known.ctx().clone();
            Some((
                Entry::from_parts(ctx, others.clone())?,
                "what else was written there counts",
            ))
        };
        if others.iter().any(|(_, v)| v.te != 0) {
            return without();
        }
        if let Some(older) = self.older(path, rows, lost) {
            let decided = known.record(self.mint_here()?, older);
            return Some((decided, "the newest that is left took its place"));
        }
        if !others.is_empty() {
            return without();
        }
        let tomb = Version {
            kind: Kind::Tomb,
            size: 0,
            mode: 0,
            mtime: Mtime::default(),
            moved: None,
            meta_only: false,
            ..lost.clone()
        };
        Some((
            known.record(self.mint_here()?, tomb),
            "nothing older is left",
        ))
    }

    fn mint_here(&self) -> Option<Dot> {
        let mut writable = self
            .slots
            .iter()
            .filter(|s| s.replica.capabilities().writable);
        writable.next()?.replica.mint().ok()
    }

    /// The newest of what came before, as a version of its own: what was known to come before it, wherever it is; else
    /// the newest that somebody shows.
    fn older(&self, path: &RelPath, rows: &Rows, lost: &Version) -> Option<Version> {
        let written = || rows.iter().flatten().filter(|r| !is_doubted(r));
        let files = || {
            let shown = written().filter_map(Row::present);
            shown.filter(|v| v.kind == Kind::File)
        };
        let before = lost.prev.iter().find_map(|content| {
            let size = self.size_of(path, *content)?;
            let there = files().find(|v| v.content == *content).cloned();
            Some(there.unwrap_or_else(|| Version {
                content: *content,
                size,
                ..lost.clone()
            }))
        });
        let newest = || {
            let held = files().filter(|v| self.size_of(path, v.content).is_some());
            held.max_by_key(|v| (v.mtime, v.content)).cloned()
        };
        let file = before.or_else(newest)?;
        let rest = lost.prev.iter().copied().skip_while(|c| *c != file.content);
        Some(Version {
            mode: lost.mode,
            mode_te: lost.mode_te,
            attributes: lost.attributes.clone(),
            te: effective_time(file.mtime, lost.te),
            prev: rest.skip(1).collect(),
            moved: None,
            meta_only: false,
            policy_epoch: lost.policy_epoch,
            ..file
        })
    }

    /// The size of a content that somebody has.
    fn size_of(&self, path: &RelPath, content: ContentId) -> Option<u64> {
        let open = |s: &crate::session::Slot| s.replica.open(path, content).ok().flatten();
        self.slots.iter().find_map(open).map(|c| c.size())
    }
}

/// Nobody may have written what is shown: a power cut left it empty. An ancestor has no instant either, and is whole.
fn is_doubted(row: &Row) -> bool {
    row.shown.is_some_and(|dot| dot.counter > 0) && row.present().is_some_and(|v| v.te == 0)
}

fn has(row: &Row, content: ContentId) -> bool {
    row.present().is_some_and(|v| v.content == content)
}
