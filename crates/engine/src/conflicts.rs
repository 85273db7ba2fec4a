//! Conflicts: noted on every replica when a version loses, open until a person settles them.
//!
//! Owns the books of conflicts, and in memory the keys of those that are open. Invariant: while a session runs
//! nobody else writes these books, so they are read only when a replica is met or comes back; then whoever
//! knows less is told, because settled anywhere is settled everywhere.

use std::collections::BTreeMap;

use instep_core::attributes;
use instep_core::entry::Entry;
use instep_core::id::{ContentId, Dot};
use instep_core::path::RelPath;
use instep_core::plan::{self, Action, Code, Problem};
use instep_core::policy::{ConflictPolicy, Role};
use instep_core::reconcile::{self, Decision};
use instep_core::version::Kind;
use instep_core::view::view;
use instep_replica::records::{ConflictRecord, hex, path_from_hex};
use instep_replica::{Book, Error, Step};

use crate::command::{Answer, Keep};
use crate::plan::{Pass, Rows};
use crate::report::Event;
use crate::session::Session;

/// Why a conflict cannot be settled as asked.
struct Refusal {
    code: u16,
    why: String,
}

impl Refusal {
    fn content_missing() -> Self {
        Self {
            code: 2115,
            why: "the loser's content is not here".into(),
        }
    }
}

impl Session {
    /// Notes the losers of a view, where they are not noted yet.
    pub(crate) fn note_conflicts(&mut self, path: &RelPath, decision: &Decision, _rows: &Rows) {
        let winner = decision.view.dot();
        for loser in &decision.view.losers {
            let Some(version) = decision.entry.get(*loser) else {
                continue;
            };
            let key = loser.to_string();
            let record = ConflictRecord {
                path: path.to_string(),
                path_hex: hex(path.as_bytes()),
                loser: key.clone(),
                winner: winner.map(|d| d.to_string()).unwrap_or_default(),
                content: version.content.to_string(),
                kind: instep_core::conflict::kind_word(version.kind),
                size: version.size,
                mode: version.mode,
                te: version.te,
                winner_te: decision.entry.get_shown(winner).map_or(0, |v| v.te),
                policy: self.policy_word(version.policy_epoch),
                noticed_ns: self.env.wall_ns(),
                resolved: None,
                resolved_ns: None,
            };
            self.note_conflict(path, &key, &record, *loser, winner, version.content);
        }
    }

    /// What lost a conflict that nobody has settled is not thrown away with the trash, although somebody has
    /// written something else since: a person may still want it.
    pub(crate) fn keep_open_loser(&self, action: &mut Action, rows: &Rows) {
        let shown = rows.get(action.replica).and_then(Option::as_ref);
        let shown = shown.and_then(|row| row.shown);
        if action.keep == plan::Keep::Trash
            && let Some(dot) = shown
            && self.open_conflicts.contains(&dot.to_string())
        {
            action.keep = plan::Keep::Version(dot);
        }
    }

    /// Two replicas claim one dot for different contents: a copied or rolled-back root that went unnoticed.
    /// Both contents are kept; a person should know.
    pub(crate) fn note_reuse(&mut self, path: &RelPath, rows: &Rows) {
        let known: Vec<(usize, &Entry)> = rows
            .iter()
            .enumerate()
            .filter_map(|(i, row)| Some((i, &row.as_ref()?.entry)))
            .collect();
        let reused = known.iter().enumerate().find_map(|(n, (i, entry))| {
            let mut before = known[..n].iter();
            before.find_map(|(_, other)| Some((*i, entry.reused(other)?)))
        });
        // What a mirror's target has superseded is put back to it, which its knowledge outlives; nobody takes it over.
        let speaks = |(i, _): &(usize, &Entry)| self.slots[*i].role != Role::Target;
        let speaking: Vec<(usize, &Entry)> = known.iter().copied().filter(speaks).collect();
        let contradicting = speaking.iter().enumerate().find_map(|(n, (i, entry))| {
            let mut before = speaking[..n].iter();
            before.find_map(|(j, other)| entry.contradicts(other).then_some((*i, *j)))
        });
        if let Some((i, j)) = contradicting {
            let (one, two) = (self.label(i), self.label(j));
            let detail = format!(
                "{one} and {two} each claim to have superseded what the other has; both are kept"
            );
            let (path, code) = (path.clone(), Code::Contradiction);
            self.open_problem(i, Problem { path, code, detail });
        }
        if let Some((i, dot)) = reused {
            let detail = format!("two different contents have the dot {dot}; both are kept");
            let (path, code) = (path.clone(), Code::DotReused);
            self.open_problem(i, Problem { path, code, detail });
        }
    }

    /// The policy of an epoch as a person types it.
    fn policy_word(&self, epoch: u32) -> String {
        match self.share.policies.at(epoch) {
            ConflictPolicy::Newest => "newest".to_owned(),
            ConflictPolicy::KeepBoth => "keep-both".to_owned(),
            ConflictPolicy::Manual => "manual".to_owned(),
            ConflictPolicy::Prefer(actors) => {
                let label = actors.iter().find_map(|a| self.share.record.label_of(*a));
                format!("prefer {}", label.unwrap_or("a replica that left"))
            }
        }
    }

    fn note_conflict(
        &mut self,
        path: &RelPath,
        key: &str,
        record: &ConflictRecord,
        loser: Dot,
        winner: Option<Dot>,
        content: ContentId,
    ) {
        let mut known: Option<String> = None;
        let mut missing = Vec::new();
        for (i, slot) in self.slots.iter().enumerate().filter(|(_, s)| s.online()) {
            match slot.replica.read_record(Book::Conflicts, key) {
                Ok(Some(body)) => known = Some(body),
                Ok(None) if slot.is_ours() => missing.push(i),
                Ok(None) | Err(_) => {}
            }
        }
        if missing.is_empty() {
            return;
        }
        let is_new = known.is_none();
        let body = known.unwrap_or_else(|| serde_json::to_string(record).unwrap_or_default());
        for i in missing {
            if let Err(e) = self.slots[i]
                .replica
                .write_record(Book::Conflicts, key, Some(&body))
            {
                self.replica_failed(i, &e);
            }
            self.env.reach(Step::ConflictNoted);
        }
        if is_new {
            self.open_conflicts.insert(key.to_owned());
            self.monitor.event(Event::Conflict {
                path: path.clone(),
                loser,
                winner,
                content,
            });
        }
    }

    /// Joins the books of all replicas, and completes those that lack something.
    pub(crate) fn load_conflicts(&mut self) -> Result<(), (usize, Error)> {
        let mut books = Vec::new();
        let mut joined: BTreeMap<String, String> = BTreeMap::new();
        for (i, slot) in self.slots.iter().enumerate().filter(|(_, s)| s.online()) {
            let book = slot.replica.records(Book::Conflicts).map_err(|e| (i, e))?;
            for (key, body) in &book {
                let known = joined.entry(key.clone()).or_insert_with(|| body.clone());
                if known != body && standing(known) < standing(body) {
                    known.clone_from(body);
                }
            }
            if slot.is_ours() {
                books.push((i, book.into_iter().collect::<BTreeMap<_, _>>()));
            }
        }
        for (i, book) in books {
            let lacks = |key: &str, body: &str| {
                let mine = book.get(key);
                mine.is_none_or(|mine| mine != body && standing(mine) < standing(body))
            };
            for (key, body) in joined.iter().filter(|(key, body)| lacks(key, body)) {
                self.slots[i]
                    .replica
                    .write_record(Book::Conflicts, key, Some(body))
                    .map_err(|e| (i, e))?;
            }
        }
        joined.retain(|_, body| standing(body) == Standing::Open);
        self.open_conflicts = joined.into_keys().collect();
        Ok(())
    }

    /// Open conflicts that an id means, by the loser's dot; all of them when none is given.
    fn conflicts(&self, id: Option<&str>) -> Vec<(String, ConflictRecord)> {
        let keys = matching(self.open_conflicts.iter(), id);
        let online = || self.slots.iter().filter(|s| s.online());
        let body = |key: &str| {
            online().find_map(|s| s.replica.read_record(Book::Conflicts, key).ok().flatten())
        };
        keys.into_iter()
            .filter_map(|key| Some((key.clone(), serde_json::from_str(&body(key)?).ok()?)))
            .collect()
    }

    /// Settles one conflict, or all.
    pub(crate) fn resolve(&mut self, id: Option<&str>, keep: &Keep) -> Answer {
        let matching = self.conflicts(id);
        match (id, matching.len()) {
            (Some(id), 0) => {
                return Answer::Refused {
                    code: 1013,
                    why: format!("there is no open conflict {id}"),
                };
            }
            (Some(id), n) if n > 1 => {
                return Answer::Refused {
                    code: 1014,
                    why: format!("{id} stands for {n} conflicts"),
                };
            }
            _ => {}
        }
        if let Keep::Replica(name) = keep
            && !self.is_known_name(name)
        {
            return Answer::Refused {
                code: 1012,
                why: format!("no replica is called {name}"),
            };
        }
        let mut done = 0;
        for (key, record) in matching {
            if let Err(Refusal { code, why }) = self.resolve_one(&key, &record, keep) {
                return Answer::Refused { code, why };
            }
            done += 1;
        }
        Answer::Done(done)
    }

    fn is_known_name(&self, name: &str) -> bool {
        self.share
            .record
            .members
            .iter()
            .any(|(id, m)| m.label == name || id.starts_with(name))
    }

    fn resolve_one(
        &mut self,
        key: &str,
        record: &ConflictRecord,
        keep: &Keep,
    ) -> Result<(), Refusal> {
        let refuse = |why: String| Refusal { code: 1013, why };
        let loser: Dot = key
            .parse()
            .map_err(|_| refuse(format!("damaged conflict record {key}")))?;
        let path = path_from_hex(&record.path_hex).ok_or_else(|| refuse("damaged path".into()))?;
        let by_loser = match keep {
            Keep::Replica(name) => {
                let label = self
                    .share
                    .record
                    .label_of(loser.actor)
                    .unwrap_or_default()
                    .to_owned();
                let id = self
                    .share
                    .record
                    .members
                    .iter()
                    .find(|(_, m)| m.label == label);
                label == *name || id.is_some_and(|(id, _)| id.starts_with(name.as_str()))
            }
            Keep::Newest => record.te > record.winner_te,
            Keep::Both => false,
        };
        if *keep == Keep::Both {
            self.place_beside(&path, loser, record)?;
        } else if by_loser {
            self.place_at(&path, loser, record)?;
        } else {
            self.settle_winner(&path)?;
        }
        self.settle_when_known(path, loser, record, keep);
        Ok(())
    }

    /// The loser's version, from an entry or rebuilt from its record.
    fn loser_version(
        &mut self,
        path: &RelPath,
        loser: Dot,
        record: &ConflictRecord,
    ) -> Option<instep_core::version::Version> {
        let rows = self.rows_at(path);
        if let Some(v) = rows.iter().flatten().find_map(|r| r.entry.get(loser)) {
            return Some(v.clone());
        }
        if record.kind == "link" {
            return None;
        }
        Some(instep_core::version::Version {
            content: record.content.parse().ok()?,
            size: record.size,
            mode: record.mode,
            mtime: instep_core::time::Mtime::from_nanos(record.te),
            te: record.te,
            mode_te: record.te,
            ..instep_core::version::Version::bare(Kind::File)
        })
    }

    /// A decision by a person: a version that has seen everything, on all replicas.
    fn place_at(
        &mut self,
        path: &RelPath,
        loser: Dot,
        record: &ConflictRecord,
    ) -> Result<(), Refusal> {
        let mut version = self
            .loser_version(path, loser, record)
            .ok_or_else(Refusal::content_missing)?;
        let rows = self.rows_at(path);
        let known = reconcile::merged(&self.sides(&rows), &Entry::default());
        let here = view(&known, &self.share.policies)
            .dot()
            .and_then(|d| known.get(d).cloned());
        version.prev = here
            .iter()
            .map(|v| v.content)
            .filter(|c| *c != version.content)
            .collect();
        self.mint_decision(path, &known, version)
    }

    /// The winner stays; its version now supersedes the losers.
    fn settle_winner(&mut self, path: &RelPath) -> Result<(), Refusal> {
        let rows = self.rows_at(path);
        let known = reconcile::merged(&self.sides(&rows), &Entry::default());
        if known.siblings().len() < 2 {
            return Ok(());
        }
        let policies = instep_core::policy::Policies::default();
        let dot = view(&known, &self.share.policies)
            .dot()
            .or_else(|| view(&known, &policies).dot());
        let Some(version) = dot.and_then(|d| known.get(d).cloned()) else {
            return Ok(());
        };
        self.mint_decision(path, &known, version)
    }

    fn mint_decision(
        &mut self,
        path: &RelPath,
        known: &Entry,
        mut version: instep_core::version::Version,
    ) -> Result<(), Refusal> {
        let writer = self
            .slots
            .iter()
            .position(|s| s.is_ours() && s.replica.capabilities().writable);
        let Some(i) = writer else {
            return Err(Refusal {
                code: 2107,
                why: "no replica can be written now".into(),
            });
        };
        let dot = self.slots[i].replica.mint().map_err(|e| Refusal {
            code: 2201,
            why: e.chain(),
        })?;
        // What counts of attributes does not depend on whose content was chosen.
        let said = attributes::said(known, version.kind).to_sayings();
        version.attributes = said.or(version.attributes);
        let decided = known.record(dot, version);
        self.resolutions.insert(path.clone(), decided);
        self.dirty.insert(path.clone());
        self.dirty_below(path);
        Ok(())
    }

    fn place_beside(
        &mut self,
        path: &RelPath,
        loser: Dot,
        record: &ConflictRecord,
    ) -> Result<(), Refusal> {
        let version = self
            .loser_version(path, loser, record)
            .ok_or_else(Refusal::content_missing)?;
        let beside = instep_core::conflict::copy_path(path, loser, &version)
            .ok_or_else(Refusal::content_missing)?;
        let dot = instep_core::conflict::derived_dot(loser);
        let entry = Entry::first(dot, instep_core::conflict::copy_version(&version));
        self.resolutions.insert(beside.clone(), entry);
        self.dirty.insert(beside);
        self.settle_winner(path)
    }

    /// What resolutions add to a reconciliation.
    pub(crate) fn add_resolutions(&self, pass: &mut Pass) {
        for (path, entry) in &self.resolutions {
            pass.add_known(path.clone(), entry);
        }
    }
}

/// What a record says, by how much it says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// It cannot be read.
    Unknown,
    /// Nobody has settled it.
    Open,
    /// It is settled.
    Settled,
}

fn standing(body: &str) -> Standing {
    match serde_json::from_str::<ConflictRecord>(body) {
        Err(_) => Standing::Unknown,
        Ok(record) if record.resolved.is_none() => Standing::Open,
        Ok(_) => Standing::Settled,
    }
}

/// The conflicts that an id means: the one it names exactly, else all that it is the start of.
fn matching<'a>(open: impl Iterator<Item = &'a String>, id: Option<&str>) -> Vec<&'a String> {
    let Some(id) = id else { return open.collect() };
    let starts = |key: &&String| key.starts_with(id) || short(key).starts_with(id);
    let all: Vec<&String> = open.filter(starts).collect();
    let is_exact = |key: &&&String| **key == id || short(key) == id;
    match all.iter().find(is_exact) {
        Some(exact) => vec![*exact],
        None => all,
    }
}

/// How a conflict is named to people: `c` and the first digits of its dot's hash-like actor and counter.
pub(crate) fn short(key: &str) -> String {
    let (actor, counter) = key.split_once(':').unwrap_or((key, ""));
    format!("{}{counter}", &actor[actor.len().saturating_sub(4)..])
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;

    fn found(id: &str) -> Vec<String> {
        let keys = [
            "010203040506aabb:1",
            "010203040506aabb:12",
            "010203040506aabb:13",
        ];
        let open = keys.map(str::to_owned);
        matching(open.iter(), Some(id))
            .into_iter()
            .cloned()
            .collect()
    }

    #[test]
    fn a_whole_id_means_one_conflict_although_longer_ids_begin_with_it() {
        assert_eq!(found("aabb1"), ["010203040506aabb:1"]);
        assert_eq!(found("010203040506aabb:1"), ["010203040506aabb:1"]);
        assert_eq!(found("aabb").len(), 3);
        assert_eq!(found("aabb12"), ["010203040506aabb:12"]);
        assert!(found("ffff").is_empty());
    }
}
