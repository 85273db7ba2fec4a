//! The brake in use: deletions (or rewrites) that look like a disaster are kept back on the replica where
//! they were noticed, until a person decides or they undo themselves. Everything else keeps flowing.

use std::collections::{BTreeMap, BTreeSet};

use instep_core::group;
use instep_core::path::{Name, RelPath};
use instep_core::policy::Role;
use instep_core::safety;
use instep_replica::records::{HoldKind, HoldRecord, hex, path_from_hex};
use instep_replica::{Book, Error, Found, Look, Scope, Step};

use crate::command::Answer;
use crate::report::Event;
use crate::session::Session;

/// An open hold.
#[derive(Debug, Clone)]
pub(crate) struct Hold {
    pub(crate) id: String,
    pub(crate) replica: usize,
    pub(crate) kind: HoldKind,
    pub(crate) paths: BTreeSet<RelPath>,
    pub(crate) since_ns: i64,
    pub(crate) total: u64,
}

/// Rows of one directory are read together where at least so many are needed.
const TOGETHER: usize = 8;

impl Session {
    /// Holds that were open when the last session ended.
    pub(crate) fn load_holds(&mut self) -> Result<(), Error> {
        for (i, slot) in self.slots.iter().enumerate() {
            for (id, body) in slot.replica.records(Book::Holds)? {
                let Ok(record) = serde_json::from_str::<HoldRecord>(&body) else {
                    continue;
                };
                if record.decision.is_some() {
                    continue;
                }
                self.holds.push(Hold {
                    id,
                    replica: i,
                    kind: record.kind,
                    paths: record
                        .paths_hex
                        .iter()
                        .filter_map(|p| path_from_hex(p))
                        .collect(),
                    since_ns: record.since_ns,
                    total: record.total,
                });
            }
        }
        Ok(())
    }

    /// Takes out of a look what must wait.
    pub(crate) fn brake(&mut self, i: usize, look: &mut Look) {
        if self.slots[i].role == Role::Target {
            return;
        }
        self.absorb(i, look);
        let t = look.known;
        let total = t.entries();
        let left: BTreeSet<RelPath> = moved_away(look);
        let packed = self.packed(i, look);
        let is_delete = |f: &instep_replica::Finding| {
            matches!(f.found, Found::Absent { .. })
                && !left.contains(&f.path)
                && !packed.contains(&f.path)
        };
        let deletes = look.findings.iter().filter(|f| is_delete(f)).count() as u64;
        let now = self.env.monotonic_ns();
        let before = self.slots[i].burst.deletes(now);
        // A program that replaces files makes the new ones a little before it removes the old.
        let since = now.saturating_sub((look.absent_ms + 500) * 1_000_000);
        let created = self.slots[i].burst.creates_since(since);
        let creates = self.creations(i, look);
        let net = deletes.saturating_sub(created + creates);
        let mut held = false;
        if deletes > 0 && safety::holds_deletes(net + before, 0, total + before) {
            let deleted = look.findings.iter().filter(|f| is_delete(f));
            let paths = deleted.map(|f| f.path.clone()).collect();
            look.findings.retain(|f| !is_delete(f));
            self.open_hold(i, HoldKind::Deletes, paths, total + before);
            held = true;
        }
        let passed = if held { 0 } else { net };
        self.slots[i].burst.note(now, passed, creates);
        self.brake_rewrites(i, look, t.files);
    }

    /// What git took out of an object store because a pack has it now: tidying up, not a loss.
    fn packed(&self, i: usize, look: &Look) -> BTreeSet<RelPath> {
        let absent = look
            .findings
            .iter()
            .filter(|f| matches!(f.found, Found::Absent { .. }));
        let objects = absent.filter_map(|f| {
            let git = group::git_dir(&f.path)?;
            group::is_git_object(&git, &f.path).then_some((git, &f.path))
        });
        let mut has_pack: BTreeMap<RelPath, bool> = BTreeMap::new();
        objects
            .filter(|(git, _)| {
                *has_pack
                    .entry(git.clone())
                    .or_insert_with_key(|git| self.has_pack(i, look, git))
            })
            .map(|(_, path)| path.clone())
            .collect()
    }

    /// Whether a `.git` that is still in use has a pack.
    fn has_pack(&self, i: usize, look: &Look, git: &RelPath) -> bool {
        let gone = |p: &RelPath| {
            look.findings
                .iter()
                .any(|f| f.path == *p && matches!(f.found, Found::Absent { .. }))
        };
        let is_pack = |p: &RelPath| p.as_bytes().ends_with(b".pack") && !gone(p);
        let new = |f: &instep_replica::Finding| {
            matches!(f.found, Found::Present { .. }) && f.path.is_within(git) && is_pack(&f.path)
        };
        let Some(head) = Name::new(b"HEAD").ok().map(|n| git.join(n)) else {
            return false;
        };
        let mut found = look.findings.iter().any(new);
        let packs = [&b"objects"[..], b"pack"]
            .into_iter()
            .filter_map(|n| Name::new(n).ok());
        let packs = packs.fold(git.clone(), |at, name| at.join(name));
        let listed = self.slots[i].replica.children(&packs, &mut |path, row| {
            found |= row.present().is_some() && is_pack(&path);
            std::ops::ControlFlow::Continue(())
        });
        listed.is_ok() && found && !gone(&head)
    }

    /// What was noticed since then has been passed on now: the time that takes does not end a burst.
    pub(crate) fn passed_on(&mut self, since_ns: u64) {
        let now = self.env.monotonic_ns();
        let bursts = self.slots.iter_mut().map(|s| &mut s.burst);
        bursts.for_each(|b| b.passed_on(since_ns, now));
    }

    fn brake_rewrites(&mut self, i: usize, look: &mut Look, files: u64) {
        let random = |f: &Found| {
            matches!(
                f,
                Found::Present {
                    high_entropy: true,
                    moved_from: None,
                    ..
                }
            )
        };
        let count = look.findings.iter().filter(|f| random(&f.found)).count() as u64;
        if !safety::holds_rewrites(count, files) {
            return;
        }
        // Only files that were there before and were not random then count.
        let turned: BTreeSet<RelPath> = look
            .findings
            .iter()
            .filter(|f| random(&f.found))
            .filter(|f| self.was_structured(i, &f.path))
            .map(|f| f.path.clone())
            .collect();
        if safety::holds_rewrites(turned.len() as u64, files) {
            look.findings.retain(|f| !turned.contains(&f.path));
            self.open_hold(i, HoldKind::Rewrites, turned, files);
        }
    }

    /// Whether the content that the others still have at a path was not random.
    fn was_structured(&self, i: usize, path: &RelPath) -> bool {
        let row = self.slots[i].replica.row(path).ok().flatten();
        let Some(content) = row.and_then(|r| r.present().map(|v| v.content)) else {
            return false;
        };
        let others = self
            .slots
            .iter()
            .enumerate()
            .filter(|(n, s)| *n != i && s.online());
        for (_, slot) in others {
            let Ok(Some(mut old)) = slot.replica.open(path, content) else {
                continue;
            };
            let mut head = vec![0; instep_chunk::entropy::PROBE_BYTES as usize];
            let n = old.read_at(0, &mut head).unwrap_or(0);
            return !instep_chunk::entropy::Entropy::of(&head[..n]).is_high();
        }
        false
    }

    /// How many findings are of names that were not there and that nothing moved to.
    fn creations(&self, i: usize, look: &Look) -> u64 {
        let came = |f: &&instep_replica::Finding| {
            let found = &f.found;
            matches!(
                found,
                Found::Present {
                    moved_from: None,
                    ..
                }
            )
        };
        let came: Vec<&RelPath> = look.findings.iter().filter(came).map(|f| &f.path).collect();
        let mut known = 0;
        // Findings are in tree order, so names of one directory are mostly neighbours.
        for group in came.chunk_by(|a, b| a.parent() == b.parent()) {
            let Some(dir) = group[0].parent().filter(|_| group.len() >= TOGETHER) else {
                let row = |p: &&&RelPath| self.slots[i].replica.row(p).ok().flatten();
                let was_there = |p: &&&RelPath| row(p).is_some_and(|r| r.present().is_some());
                known += group.iter().filter(was_there).count();
                continue;
            };
            let names: BTreeSet<&RelPath> = group.iter().copied().collect();
            // What cannot be read counts as new: deletions are then held a little later, not lost.
            let _uncounted = self.slots[i].replica.children(&dir, &mut |path, row| {
                known += usize::from(row.present().is_some() && names.contains(&path));
                std::ops::ControlFlow::Continue(())
            });
        }
        (came.len() - known) as u64
    }

    /// While a hold is open on a replica it takes in further deletions there, and lets go of what came back.
    fn absorb(&mut self, i: usize, look: &mut Look) {
        let mut changed = Vec::new();
        for (n, hold) in self.holds.iter_mut().enumerate() {
            if hold.replica != i {
                continue;
            }
            let before = hold.paths.len();
            look.findings.retain(|f| match (&f.found, hold.kind) {
                (Found::Absent { .. }, HoldKind::Deletes) => {
                    hold.paths.insert(f.path.clone());
                    false
                }
                (Found::Present { .. } | Found::Refreshed { .. }, HoldKind::Deletes) => {
                    hold.paths.remove(&f.path);
                    true
                }
                (
                    Found::Present {
                        high_entropy: true, ..
                    },
                    HoldKind::Rewrites,
                ) => !hold.paths.contains(&f.path),
                _ => {
                    hold.paths.remove(&f.path);
                    true
                }
            });
            if hold.paths.len() != before {
                changed.push(n);
            }
        }
        for n in changed.into_iter().rev() {
            self.save_hold(n);
        }
    }

    fn open_hold(&mut self, i: usize, kind: HoldKind, paths: BTreeSet<RelPath>, total: u64) {
        let id = hex(&self.env.random()[..3]);
        let count = paths.len() as u64;
        self.holds.push(Hold {
            id: id.clone(),
            replica: i,
            kind,
            paths,
            since_ns: self.env.wall_ns(),
            total,
        });
        self.save_hold(self.holds.len() - 1);
        self.monitor.event(Event::Hold {
            id,
            replica: i,
            count,
            total,
            kind,
            open: true,
        });
    }

    fn save_hold(&mut self, n: usize) {
        let hold = &self.holds[n];
        let record = HoldRecord {
            kind: hold.kind,
            replica: self.label(hold.replica),
            since_ns: hold.since_ns,
            count: hold.paths.len() as u64,
            total: hold.total,
            paths_hex: hold.paths.iter().map(|p| hex(p.as_bytes())).collect(),
            decision: None,
        };
        let (i, id, done) = (hold.replica, hold.id.clone(), hold.paths.is_empty());
        let body = serde_json::to_string(&record).unwrap_or_default();
        let body = if done { None } else { Some(body.as_str()) };
        if let Err(e) = self.slots[i].replica.write_record(Book::Holds, &id, body) {
            self.replica_failed(i, &e);
        }
        self.env.reach(Step::HoldSaved);
        if done {
            self.end_hold(n);
        }
    }

    fn end_hold(&mut self, n: usize) {
        let hold = self.holds.remove(n);
        self.monitor.event(Event::Hold {
            id: hold.id,
            replica: hold.replica,
            count: hold.paths.len() as u64,
            total: hold.total,
            kind: hold.kind,
            open: false,
        });
    }

    /// Whether a deletion is held back on the replica where it was noticed.
    pub(crate) fn is_held(&self, i: usize, path: &RelPath) -> bool {
        let holds = self.holds.iter();
        let mut here = holds.filter(|h| h.replica == i && h.kind == HoldKind::Deletes);
        here.any(|h| h.paths.contains(path))
    }

    /// Looks at held paths every two seconds while there are any. Gives what else was found there.
    pub(crate) fn recheck_holds_when_due(&mut self) -> Vec<(usize, Look)> {
        let now = self.env.monotonic_ns();
        if self.holds.is_empty() || self.next_hold_check_ns > now {
            return Vec::new();
        }
        self.next_hold_check_ns = now + 2_000_000_000;
        self.recheck_holds()
    }

    /// Looks at held paths again: what came back needs no decision.
    fn recheck_holds(&mut self) -> Vec<(usize, Look)> {
        let mut looks = Vec::new();
        for n in (0..self.holds.len()).rev() {
            let hold = &self.holds[n];
            let (i, paths) = (hold.replica, hold.paths.clone());
            if !self.slots[i].online() || hold.kind != HoldKind::Deletes {
                continue;
            }
            let scope = Scope::Some {
                paths: paths.clone(),
                trees: BTreeSet::new(),
            };
            let Ok(mut look) = self.slots[i].replica.look(&scope) else {
                continue;
            };
            let gone = |p: &RelPath| {
                look.findings
                    .iter()
                    .any(|f| f.path == *p && matches!(f.found, Found::Absent { .. }))
                    || look.again.iter().any(|(a, _)| p.is_within(a))
            };
            let back: Vec<RelPath> = paths.iter().filter(|p| !gone(p)).cloned().collect();
            if !back.is_empty() {
                let hold = &mut self.holds[n];
                back.iter().for_each(|p| {
                    hold.paths.remove(p);
                });
                self.save_hold(n);
            }
            let is_absence = |f: &instep_replica::Finding| matches!(f.found, Found::Absent { .. });
            look.findings.retain(|f| !is_absence(f));
            if !look.findings.is_empty() || !look.problems.is_empty() || look.rules_changed {
                looks.push((i, look));
            }
        }
        looks
    }

    /// A look at paths, repeated until their absence has settled.
    pub(crate) fn settled_look(&self, i: usize, scope: &Scope) -> Result<Look, Error> {
        let replica = &self.slots[i].replica;
        let mut look = replica.look(scope)?;
        for _ in 0..20 {
            let Some(wait_ms) = look.again.iter().map(|(_, ms)| *ms).max() else {
                break;
            };
            self.env.sleep_ms(wait_ms.clamp(1, 500));
            look = replica.look(scope)?;
        }
        Ok(look)
    }

    /// Lets held changes through, or undoes them where they were made.
    pub(crate) fn decide_hold(&mut self, id: &str, approve: bool) -> Answer {
        let matching: Vec<usize> = (0..self.holds.len())
            .filter(|n| self.holds[*n].id.starts_with(id))
            .collect();
        let [n] = matching[..] else {
            let (code, why) = match matching.len() {
                0 => (1013, format!("there is no hold {id}")),
                _ => (1014, format!("{id} stands for several holds")),
            };
            return Answer::Refused { code, why };
        };
        let hold = self.holds[n].clone();
        let i = hold.replica;
        let scope = Scope::Some {
            paths: hold.paths.clone(),
            trees: BTreeSet::new(),
        };
        let look = match self.settled_look(i, &scope) {
            Ok(look) => look,
            Err(e) => {
                return Answer::Refused {
                    code: 2201,
                    why: e.chain(),
                };
            }
        };
        let body = None;
        if let Err(e) = self.slots[i]
            .replica
            .write_record(Book::Holds, &hold.id, body)
        {
            return Answer::Refused {
                code: 2201,
                why: e.chain(),
            };
        }
        self.env.reach(Step::HoldDecided);
        self.end_hold(n);
        let mut decided = look;
        decided.findings.retain(|f| hold.paths.contains(&f.path));
        if !approve {
            for f in &mut decided.findings {
                f.found = Found::Forgotten;
            }
        }
        let count = decided.findings.len() as u64;
        for (path, delay) in std::mem::take(&mut decided.again) {
            self.retry(path, Some(i), delay);
        }
        match self.slots[i].replica.record(&decided, &self.share) {
            Ok(changed) => {
                self.touched(i);
                self.dirty.extend(changed);
                self.dirty.extend(hold.paths);
                Answer::Done(count)
            }
            Err(e) => Answer::Refused {
                code: 2201,
                why: e.chain(),
            },
        }
    }
}

fn moved_away(look: &Look) -> BTreeSet<RelPath> {
    look.findings
        .iter()
        .filter_map(|f| match &f.found {
            Found::Present { moved_from, .. } => moved_from.clone(),
            Found::Absent { .. }
            | Found::Refreshed { .. }
            | Found::Held(_)
            | Found::Forgotten
            | Found::Ancestor { .. } => None,
        })
        .collect()
}
