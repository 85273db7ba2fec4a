//! From dirty paths to done actions: rows from every replica, the pure decision, execution, outcomes.
//!
//! Paths are taken in tree order and in pieces, so that memory is bounded by a piece. Deletions, and what
//! replaces a directory, wait until everything else is done: nothing leaves one place before it has
//! arrived in the other.

use std::collections::{BTreeMap, BTreeSet};

use instep_core::entry::Entry;
use instep_core::group;
use instep_core::id::{ContentId, Dot};
use instep_core::limits::{ACTORS_MAX, SIBLINGS_MAX};
use instep_core::path::RelPath;
use instep_core::plan::{Action, Code, Goal, Outcome, Precondition, Problem};
use instep_core::policy::{ConflictPolicy, Role};
use instep_core::reconcile::{self, Decision, Side};
use instep_core::row::Row;
use instep_core::version::Kind;
use instep_core::view::{Shown, view, view_above};

use crate::problems::{is_of_action, is_unseen};
use crate::report::{Change, ChangeKind, Event, Progress};
use crate::session::{Session, Slot};
use crate::transfer::Origins;

/// Rows of one path, by replica.
pub(crate) type Rows = Vec<Option<Row>>;

/// A source that changes is tried this often before that counts as a problem.
pub(crate) const CHANGING_TRIES: u32 = 20;
/// Between two reports of progress.
const PROGRESS_NS: u64 = 250_000_000;

/// What one reconciliation remembers across its pieces.
#[derive(Default)]
pub(crate) struct Pass {
    /// Actions that wait for the end.
    last: Vec<Action>,
    /// Whether something below a path is alive.
    pub(crate) alive: BTreeMap<RelPath, bool>,
    /// Entries that views call into being.
    pub(crate) derived: BTreeMap<RelPath, Entry>,
    /// Paths that were decided, with all that is known of them by now.
    pub(crate) decided: BTreeSet<RelPath>,
    /// New places at which nobody shows what wins there, with what is shown until it comes.
    pub(crate) only_known: BTreeMap<RelPath, Option<Dot>>,
    /// Old places that a rename emptied, by replica.
    emptied: BTreeSet<(usize, RelPath)>,
    changes: BTreeMap<RelPath, Change>,
    progress: Progress,
    began_ns: u64,
}

impl Pass {
    /// What is known of a path beyond the replicas' rows.
    pub(crate) fn known(&self, path: &RelPath) -> Entry {
        self.derived.get(path).cloned().unwrap_or_default()
    }

    /// Adds what is known of a path beyond the replicas' rows. What was decided without knowing it is void.
    pub(crate) fn add_known(&mut self, path: RelPath, entry: &Entry) {
        let known = self.known(&path);
        let merged = known.merge(entry);
        if merged != known && self.decided.remove(&path) {
            self.alive.remove(&path);
            self.last.retain(|a| a.path != path);
        }
        self.derived.insert(path, merged);
    }
}

impl Session {
    /// Plans and does everything that is dirty.
    pub(crate) fn reconcile_dirty(&mut self) {
        let mut pass = Pass {
            began_ns: self.env.monotonic_ns(),
            ..Pass::default()
        };
        let bulk = self.dirty.len() >= self.options.sizes.bulk;
        pass.progress.actions_total = self.dirty.len() as u64;
        self.add_resolutions(&mut pass);
        self.whole_repositories(&mut pass);
        loop {
            let piece = self.take_piece();
            if piece.is_empty() {
                let more = self.not_planned(&mut pass);
                if more.is_empty() {
                    break;
                }
                self.dirty = more;
                continue;
            }
            self.reconcile_piece(&piece, bulk, &mut pass);
        }
        let last = std::mem::take(&mut pass.last);
        self.finish(last, &mut pass);
        self.report(pass);
    }

    fn take_piece(&mut self) -> Vec<RelPath> {
        let most = self.options.sizes.actions.max(1);
        if self.dirty.len() <= most {
            return std::mem::take(&mut self.dirty).into_iter().collect();
        }
        let mut piece = Vec::with_capacity(most);
        while piece.len() < most {
            piece.extend(self.dirty.pop_first());
        }
        piece
    }

    fn reconcile_piece(&mut self, piece: &[RelPath], bulk: bool, pass: &mut Pass) {
        let rows = self.rows(piece, bulk);
        let mut now = Vec::new();
        // From the bottom up, so that what is alive below is known when a directory is decided.
        for path in piece.iter().rev() {
            if path.is_root() || path.is_reserved() {
                continue;
            }
            let here = rows.get(path).cloned().unwrap_or_default();
            let decision = self.decide(path, &here, pass);
            self.note(path, &decision, &here, pass);
            if decision.view.shown != Shown::Frozen {
                self.dirty.extend(self.asked.remove(path));
                if !decision.actions.is_empty() && self.asks_persons() {
                    self.dirty_below(path);
                }
            }
            let only_known = pass.only_known.remove(path);
            for mut action in decision.actions {
                if self.is_below_frozen(&action) {
                    continue;
                }
                if let Some(meanwhile) = only_known {
                    self.arrive_unseen(&mut action, &here, meanwhile);
                }
                self.keep_open_loser(&mut action, &here);
                self.prefer_rename(&mut action, &rows, pass);
                // What is beside a database goes before the database changes, or would spoil it.
                let database = group::database(&action.path);
                let is_companion = database.is_some_and(|d| rows.contains_key(&d));
                let waits = action.goal == Goal::Absent && !is_companion || action.replaces_dir();
                if waits {
                    pass.last.push(action);
                } else {
                    now.push(action);
                }
            }
        }
        self.carry_out(now, pass);
    }

    /// Whether conflicts may wait for a person.
    pub(crate) fn asks_persons(&self) -> bool {
        let mut policies = self.share.policies.0.values();
        policies.any(|p| *p == ConflictPolicy::Manual)
    }

    /// What is below a path may have waited for it.
    pub(crate) fn dirty_below(&mut self, path: &RelPath) {
        for slot in self.slots.iter().filter(|s| s.online()) {
            let dirty = &mut self.dirty;
            let read = slot.rows_below(path, &mut |below, _| {
                dirty.insert(below);
                std::ops::ControlFlow::Continue(())
            });
            self.compare_all |= read.is_err();
        }
    }

    /// Whether something else than a directory stays where one would be needed until a person decides.
    fn is_below_frozen(&mut self, action: &Action) -> bool {
        if !self.asks_persons() {
            return false;
        }
        let mut up = action.path.parent();
        while let Some(path) = up.filter(|p| !p.is_root()) {
            let here = self.row_at(action.replica, &path);
            if here.is_some_and(|r| r.is_file_or_link()) {
                let rows = self.rows_at(&path);
                let known = reconcile::merged(&self.sides(&rows), &Entry::default());
                return view_above(&known, true, &self.share.policies).shown == Shown::Frozen;
            }
            up = path.parent();
        }
        false
    }

    /// The rows of each path from every replica that is online.
    pub(crate) fn rows(&mut self, paths: &[RelPath], bulk: bool) -> BTreeMap<RelPath, Rows> {
        let n = self.slots.len();
        let mut out: BTreeMap<RelPath, Rows> =
            paths.iter().map(|p| (p.clone(), vec![None; n])).collect();
        let mut groups: BTreeMap<RelPath, Vec<&RelPath>> = BTreeMap::new();
        for path in paths {
            groups
                .entry(path.parent().unwrap_or_else(RelPath::root))
                .or_default()
                .push(path);
        }
        for i in 0..n {
            if !self.slots[i].online() {
                continue;
            }
            let replica = self.slots[i].replica.clone();
            let observed = self.slots[i].is_observed();
            let echo = self.slots[i].is_echo();
            let read = groups.iter().try_for_each(|(dir, group)| {
                if bulk && group.len() >= 4 && !observed {
                    return replica.children(dir, &mut |path, row| {
                        if let Some(rows) = out.get_mut(&path) {
                            rows[i] = Some(row);
                        }
                        std::ops::ControlFlow::Continue(())
                    });
                }
                let mut telling = group.iter().filter(|path| !echo || !replica.is_alike(path));
                telling.try_for_each(|path| {
                    if let (Some(row), Some(rows)) = (replica.row(path)?, out.get_mut(*path)) {
                        rows[i] = Some(row);
                    }
                    Ok(())
                })
            });
            if let Err(e) = read {
                self.replica_failed(i, &e);
            }
        }
        out
    }

    /// One path's row from every replica that is online. One that cannot be read is so no longer: that its row
    /// is missing says nothing, and it takes no part in what is decided.
    pub(crate) fn rows_at(&mut self, path: &RelPath) -> Rows {
        let all = 0..self.slots.len();
        all.map(|i| self.row_at(i, path)).collect()
    }

    fn row_at(&mut self, i: usize, path: &RelPath) -> Option<Row> {
        let slot = self.slots.get(i).filter(|s| s.online())?;
        if slot.says_nothing_new(path) && !self.foretells {
            return None;
        }
        match slot.replica.row(path) {
            Ok(row) => row,
            Err(e) => {
                self.replica_failed(i, &e);
                None
            }
        }
    }

    pub(crate) fn sides<'a>(&self, rows: &'a [Option<Row>]) -> Vec<Side<'a>> {
        self.slots
            .iter()
            .enumerate()
            .map(|(i, slot)| {
                let can = slot.replica.capabilities();
                Side {
                    row: rows.get(i).and_then(|r| r.as_ref()),
                    role: slot.role,
                    writable: slot.online()
                        && if can.observed {
                            self.foretells
                        } else {
                            can.writable
                        },
                    // What bits a file has elsewhere is not told.
                    modes: can.modes && !can.observed,
                    covered: false,
                    carried: can.carried,
                }
            })
            .collect()
    }

    pub(crate) fn decide(&mut self, path: &RelPath, rows: &Rows, pass: &mut Pass) -> Decision {
        self.give_way(path, rows, pass);
        self.recall_copy(path, rows, pass);
        if !pass.decided.insert(path.clone()) {
            pass.last.retain(|a| a.path != *path);
        }
        let extra = pass.known(path);
        let mut sides = self.sides(rows);
        let known = reconcile::merged(&sides, &extra);
        let shown = view(&known, &self.share.policies)
            .dot()
            .and_then(|d| known.get(d))
            .map(|v| v.kind);
        let is_tomb = shown == Some(Kind::Tomb);
        let is_dir = rows.iter().flatten().any(Row::is_dir);
        let yields = known.is_empty() || shown.is_some_and(|k| k != Kind::Dir);
        let may_be_above = || is_dir || !pass.derived_in(path).is_empty() || pass.is_alive_in(path);
        let alive_below = yields && may_be_above() && self.alive_below(path, pass);
        self.hands_off_damage(path, &mut sides);
        if self.cover(path, &mut sides, pass) {
            self.covered.insert(path.clone());
        } else {
            self.covered.remove(path);
        }
        let mut decision =
            reconcile::reconcile(path, &sides, &extra, alive_below, &self.share.policies);
        if decision.view.shown == Shown::Unknown && self.may_be_at_source(path) {
            decision.actions.clear();
        }
        if alive_below && decision.view.shown == Shown::Frozen {
            self.wait_for_room(path, &decision.entry, pass);
        }
        pass.alive.insert(
            path.clone(),
            !is_tomb && decision.view.shown != Shown::Unknown || alive_below,
        );
        if (is_tomb || known.is_empty()) && !alive_below {
            // A directory above may have stood for this alone.
            self.revisit_parent(path, &known, pass);
        }
        decision
    }

    /// Whether anything below a path is alive on any replica, after merging.
    pub(crate) fn alive_below(&mut self, dir: &RelPath, pass: &mut Pass) -> bool {
        let mut children: BTreeSet<RelPath> = BTreeSet::new();
        let slots = self.slots.iter().enumerate();
        let mut speaking = slots.filter(|(_, s)| s.online() && s.role != Role::Target);
        let failed = speaking.find_map(|(i, slot)| {
            let listed = slot.children_of(dir, &mut |path| {
                children.insert(path);
            });
            listed.err().map(|e| (i, e))
        });
        // A listing that fails must not let anything be deleted; when it is back everything is compared.
        if let Some((i, e)) = failed {
            self.replica_failed(i, &e);
            return true;
        }
        children.extend(pass.derived_in(dir));
        for path in children {
            if let Some(alive) = pass.alive.get(&path) {
                if *alive {
                    return true;
                }
                continue;
            }
            let rows = self.rows_at(&path);
            let known = reconcile::merged(&self.sides(&rows), &pass.known(&path));
            let shown = view(&known, &self.share.policies);
            let tomb = match shown.shown {
                Shown::Unknown => true,
                Shown::Standing | Shown::Frozen => false,
                Shown::Version { dot, .. } => known
                    .get(dot)
                    .is_none_or(instep_core::version::Version::is_tomb),
            };
            let alive = !tomb || self.alive_below(&path, pass);
            pass.alive.insert(path, alive);
            if alive {
                return true;
            }
        }
        false
    }

    /// What a decision says besides its actions: conflicts, entries beside, what is blocked.
    fn note(&mut self, path: &RelPath, decision: &Decision, rows: &Rows, pass: &mut Pass) {
        let blocked: BTreeSet<usize> = decision.blocked.iter().map(|(i, _)| *i).collect();
        for (i, problem) in &decision.blocked {
            self.open_problem(*i, problem.clone());
        }
        for i in 0..self.slots.len() {
            let over = self.problems.get(&(i, path.clone())).is_some_and(|p| {
                matches!(p.code, Code::UnsafeLink | Code::NameClash)
                    || (p.code != Code::Mount && is_of_action(p) && !self.slots[i].is_observed())
            });
            // Where it is tried again, the outcome tells.
            let tried = decision.actions.iter().any(|a| a.replica == i);
            if over && !tried && !blocked.contains(&i) {
                self.close_problem(i, path);
            }
        }
        let too_many = decision.entry.siblings().len() > SIBLINGS_MAX
            || decision.entry.ctx().iter().len() > ACTORS_MAX;
        if too_many {
            let detail = "more concurrent versions than are kept at one path".to_owned();
            self.open_problem(
                0,
                Problem {
                    path: path.clone(),
                    code: Code::TooManySiblings,
                    detail,
                },
            );
        }
        for (beside, entry) in &decision.derived {
            let callers = self.called.entry(beside.clone()).or_default();
            callers.insert(path.clone());
            pass.add_known(beside.clone(), entry);
        }
        self.note_reuse(path, rows);
        if !decision.view.losers.is_empty() {
            self.note_conflicts(path, decision, rows);
        }
    }

    /// A file that is here under the name that it had before moves instead of being copied. `piece` has the rows by
    /// which paths are decided now: what its old place is to get must be known, or both would be done.
    fn prefer_rename(
        &mut self,
        action: &mut Action,
        piece: &BTreeMap<RelPath, Rows>,
        pass: &mut Pass,
    ) {
        let Goal::File { content, mode, .. } = action.goal else {
            return;
        };
        // What moves gets the mode of its version; another's that is newer comes with a copy.
        let version = action.shown.and_then(|d| action.entry.get(d));
        let alike = version.filter(|v| v.mode == mode);
        let from = alike.and_then(|v| v.moved.clone());
        let Some(from) =
            from.filter(|f| action.before == Precondition::Absent && *f != action.path)
        else {
            return;
        };
        let key = (action.replica, from.clone());
        let here = self.slots[action.replica].replica.row(&from).ok().flatten();
        let same = here.as_ref().is_some_and(|r| {
            r.present()
                .is_some_and(|v| v.kind == Kind::File && v.content == content)
        });
        if !same || pass.emptied.contains(&key) || self.is_damaged(action.replica, &from) {
            return;
        }
        // Only if the old place is to be emptied anyway.
        let decided = piece.get(&from).cloned();
        let rows = decided.unwrap_or_else(|| self.rows_at(&from));
        let known = reconcile::merged(&self.sides(&rows), &pass.known(&from));
        let leaves = view(&known, &self.share.policies).dot().is_some_and(|d| {
            known
                .get(d)
                .is_some_and(instep_core::version::Version::is_tomb)
        });
        if leaves {
            pass.emptied.insert(key);
            action.goal = Goal::Rename { from };
        }
    }

    /// Deletions and replaced directories, after everything else.
    fn finish(&mut self, mut last: Vec<Action>, pass: &mut Pass) {
        for action in &mut last {
            if action.goal == Goal::Absent
                && pass
                    .emptied
                    .contains(&(action.replica, action.path.clone()))
            {
                action.goal = Goal::Record;
            }
        }
        self.carry_out(last, pass);
    }

    /// Carries out actions, each replica its own, and takes in what became of them.
    fn carry_out(&mut self, actions: Vec<Action>, pass: &mut Pass) {
        let mut by_replica: BTreeMap<usize, Vec<Action>> = BTreeMap::new();
        let with_companions: BTreeSet<RelPath> = actions
            .iter()
            .filter_map(|a| group::database(&a.path))
            .collect();
        for action in actions {
            if !with_companions.contains(&action.path) && self.send_aside(&action) {
                continue;
            }
            by_replica.entry(action.replica).or_default().push(action);
        }
        for (i, mut actions) in by_replica {
            reconcile::order(&mut actions);
            for piece in actions.chunks(self.options.sizes.actions.max(1)) {
                // What it failed to tell may be what forbids this.
                if self.slots[i].online() {
                    self.apply(i, piece, pass);
                } else {
                    self.dirty_later(piece);
                }
            }
        }
    }

    fn apply(&mut self, i: usize, actions: &[Action], pass: &mut Pass) {
        self.ask_ahead(i, actions);
        let origins = Origins::new(self.origins(), i);
        let result = self.slots[i].replica.apply(actions, &origins);
        let outcomes = match result {
            Ok(outcomes) => outcomes,
            Err(e) => {
                self.dirty_later(actions);
                return self.replica_failed(i, &e);
            }
        };
        self.touched(i);
        for (action, outcome) in actions.iter().zip(outcomes) {
            self.take_outcome(i, action, outcome, pass);
        }
        for problem in self.slots[i].replica.take_problems() {
            self.told(i, problem);
        }
        self.tell_progress(pass);
    }

    /// A pass that is done at once has no progress worth telling.
    fn tell_progress(&mut self, pass: &Pass) {
        let now = self.env.monotonic_ns();
        if now.saturating_sub(self.progress_ns.max(pass.began_ns)) >= PROGRESS_NS {
            self.progress_ns = now;
            self.monitor.event(Event::Progress(pass.progress));
        }
    }

    fn dirty_later(&mut self, actions: &[Action]) {
        for a in actions {
            self.retry(a.path.clone(), None, 1000);
        }
    }

    fn take_outcome(&mut self, i: usize, action: &Action, outcome: Outcome, pass: &mut Pass) {
        pass.progress.actions_done += 1;
        match outcome {
            Outcome::Done => {
                // What is there was not seen by doing something to it.
                let known = self.problems.get(&(i, action.path.clone()));
                if known.is_some_and(|p| is_of_action(p) || !is_unseen(p)) {
                    self.close_problem(i, &action.path);
                }
                self.uncover(&action.path);
                self.count(i, action, pass);
            }
            Outcome::Superseded | Outcome::Busy => {
                let delay_ms = if outcome == Outcome::Busy { 5 } else { 1 };
                self.retry(action.path.clone(), None, delay_ms);
                self.revisit_above(i, action, pass);
            }
            Outcome::Blocked(problem) => {
                let content = match action.goal {
                    Goal::File { content, .. } => Some(content),
                    _ => None,
                };
                self.blocked(i, &action.path, content, problem);
            }
        }
    }

    /// An action could not be carried out now.
    pub(crate) fn blocked(
        &mut self,
        i: usize,
        path: &RelPath,
        content: Option<ContentId>,
        problem: Problem,
    ) {
        if problem.code == Code::ReadOnly {
            // No difficulty of this path: when the replica is back everything is compared.
            let kind = instep_replica::ErrorKind::ReadOnly;
            return self.replica_failed(i, &instep_replica::Error::new(kind, problem.detail));
        }
        let is_missing = problem.code == Code::ContentMissing;
        if is_missing && content.is_some_and(|c| self.is_changing(i, path, c)) {
            return self.retry(path.clone(), None, 5);
        }
        if is_missing && content.is_some_and(|c| self.give_up(path, c)) {
            return;
        }
        let delay_ms = match problem.code {
            Code::NoSpace => 5000,
            Code::ContentMissing => 1000,
            _ => 10_000,
        };
        self.open_problem(i, problem);
        self.retry(path.clone(), None, delay_ms);
    }

    /// Somebody's index has the content that could not be had: its file changes just now, which is for the
    /// next look to find out. Where that look fails, or after many tries, it is a problem after all.
    fn is_changing(&self, target: usize, path: &RelPath, content: ContentId) -> bool {
        let tries = self.later.get(path).map_or(0, |l| l.tries);
        let has = |i: usize, slot: &Slot| {
            let row = slot.replica.row(path).ok().flatten();
            i != target
                && slot.online()
                && !self.problems.contains_key(&(i, path.clone()))
                && row.is_some_and(|r| r.present().is_some_and(|v| v.content == content))
        };
        tries < CHANGING_TRIES && self.slots.iter().enumerate().any(|(i, s)| has(i, s))
    }

    fn count(&mut self, i: usize, action: &Action, pass: &mut Pass) {
        let (kind, size) = match &action.goal {
            Goal::File { size, .. } => (created(action), *size),
            Goal::Dir { .. } | Goal::Link { .. } => (created(action), 0),
            Goal::Absent => (ChangeKind::Delete, 0),
            Goal::Metadata { .. } if has_attributes(action) => (ChangeKind::Attributes, 0),
            Goal::Metadata { .. } => (ChangeKind::Metadata, 0),
            Goal::Rename { .. } => (ChangeKind::Move, 0),
            Goal::Record => return,
        };
        self.summary.changes += 1;
        self.summary.bytes += size;
        pass.progress.bytes_done += size;
        let object = match (&action.goal, action.before) {
            (Goal::Dir { .. }, _) => Kind::Dir,
            (Goal::Link { .. }, _) => Kind::Link,
            (Goal::Absent | Goal::Metadata { .. }, Precondition::Unchanged { kind, .. }) => kind,
            _ => Kind::File,
        };
        let from_path = match &action.goal {
            Goal::Rename { from } => Some(from.clone()),
            _ => None,
        };
        let lag_ns = self.env.monotonic_ns().saturating_sub(pass.began_ns);
        let from = self.origin_of(action);
        let change = pass
            .changes
            .entry(action.path.clone())
            .or_insert_with(|| Change {
                kind,
                object,
                path: action.path.clone(),
                from_path,
                from,
                to: Vec::new(),
                size,
                lag_ns,
            });
        change.to.push(i);
        change.lag_ns = lag_ns;
    }

    /// The replica on which the version arose, as far as the members' actors tell.
    pub(crate) fn origin_of(&self, action: &Action) -> usize {
        let by = action.shown.and_then(|d| {
            let now = |s: &Slot| s.replica.actor() == d.actor;
            if let Some(i) = self.slots.iter().position(now) {
                return Some(i);
            }
            let actor = d.actor.to_string();
            let member = self
                .share
                .record
                .members
                .iter()
                .find(|(_, m)| m.actors.contains(&actor))?;
            self.slots
                .iter()
                .position(|s| s.replica.id().to_string() == *member.0)
        });
        by.unwrap_or(usize::from(action.replica == 0))
    }

    fn report(&mut self, pass: Pass) {
        let many = pass.changes.len().saturating_sub(1) as u64;
        let lines = self.options.log_lines.max(20);
        for (n, change) in pass.changes.into_values().enumerate() {
            if many < lines as u64 {
                self.log_change(&change, 0);
            } else if n == 0 {
                self.log_change(&change, many);
            }
            self.monitor.event(Event::Changed(change));
        }
    }
}

/// Whether the version that an action shows says anything of owner or extended attributes.
fn has_attributes(action: &Action) -> bool {
    let shown = action.entry.get_shown(action.shown);
    shown.is_some_and(|v| v.attributes.is_some())
}

fn created(action: &Action) -> ChangeKind {
    if action.before == Precondition::Absent {
        ChangeKind::Create
    } else {
        ChangeKind::Update
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use std::sync::Arc;

    use instep_core::id::{ActorId, Dot};
    use instep_core::plan::{Keep, Precondition};
    use instep_core::version::Version;
    use instep_replica::Replica;
    use instep_replica::content::NoSources;
    use instep_replica::env::{Env, StepEnv};
    use instep_replica::memory::MemoryReplica;

    use super::*;
    use crate::report::Silent;
    use crate::session::SessionOptions;

    #[test]
    fn a_file_moves_away_from_where_another_is_to_take_its_place() {
        let env = Arc::new(StepEnv::default()) as Arc<dyn Env>;
        let share = instep_core::id::ShareId([1; 16]);
        let made = ["A", "B"].map(|l| Arc::new(MemoryReplica::new(l, share, env.clone())));
        let all = made.clone().map(|r| r as Arc<dyn Replica>);
        let mut session =
            Session::start(env, all.into(), SessionOptions::default(), Box::new(Silent)).unwrap();
        let [old, new] = [b"old", b"new"].map(|p| RelPath::new(p).unwrap());
        made[0].user_write(&old, b"moves").unwrap();
        while session.cycle().unwrap() {}
        let mut rows = session.rows_at(&old);
        let row = rows[0].clone().unwrap();
        let (shown, version) = (row.shown.unwrap(), row.present().unwrap().clone());
        let dot = Dot {
            actor: ActorId([8; 8]),
            counter: 1,
        };
        let arrives = Version {
            moved: Some(old.clone()),
            ..version.clone()
        };
        let tomb = Version {
            kind: Kind::Tomb,
            ..version.clone()
        };
        let edit = Version {
            content: instep_core::id::ContentId([9; 32]),
            ..version
        };
        for (next, is_renamed) in [(edit, false), (tomb, true)] {
            let mut action = Action {
                replica: 0,
                path: new.clone(),
                before: Precondition::Absent,
                goal: Goal::of(&arrives, arrives.mode),
                keep: Keep::Trash,
                entry: Entry::first(shown, arrives.clone()),
                shown: Some(shown),
            };
            rows[1].as_mut().unwrap().entry = row.entry.record(dot, next);
            let piece = BTreeMap::from([(old.clone(), rows.clone())]);
            session.prefer_rename(&mut action, &piece, &mut Pass::default());
            let renamed = Goal::Rename { from: old.clone() };
            assert_eq!(action.goal == renamed, is_renamed);
        }
    }

    #[test]
    fn what_was_decided_first_is_done_as_well_when_a_path_is_decided_again() {
        let mut session = Session::of_two(&Arc::new(StepEnv::default()));
        let path = RelPath::new(b"d").unwrap();
        let made = session.made_on_first(&path);
        let dot = Dot {
            actor: ActorId([8; 8]),
            counter: 1,
        };
        let mut tomb = made.siblings()[0].1.clone();
        tomb.kind = Kind::Tomb;
        let deleted = Action {
            replica: 1,
            path: path.clone(),
            before: Precondition::Absent,
            goal: Goal::Record,
            keep: Keep::Trash,
            entry: made.record(dot, tomb),
            shown: Some(dot),
        };
        let replica = &session.slots[1].replica;
        replica.apply(&[deleted], &NoSources).unwrap();
        let mut pass = Pass::default();
        for _ in 0..2 {
            session.reconcile_piece(std::slice::from_ref(&path), false, &mut pass);
            let waits = pass
                .last
                .iter()
                .map(|a| (a.replica, a.goal == Goal::Absent));
            assert_eq!(waits.collect::<Vec<_>>(), [(0, true)]);
        }
    }
}
