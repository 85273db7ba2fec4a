//! What a session would do, without doing it: the same looks and the same decisions, nothing written.
//!
//! The replicas of a preview are opened so that recording goes to memory only.

use std::ops::ControlFlow;

use instep_core::path::RelPath;
use instep_core::plan::Action;
use instep_core::row::Row;
use instep_replica::{Look, Scope};

use crate::plan::Pass;
use crate::report::{Meeting, State};
use crate::session::{Session, SessionError};

/// What one replica has at a path, compared with what it should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell {
    /// It has the wanted version.
    Has,
    /// It has an older or other version.
    Older,
    /// It has nothing.
    Absent,
    /// It was deleted here.
    Deleted,
    /// Versions diverge, and this is one of them.
    Diverged,
    /// It cannot have it.
    Cannot,
}

/// One line of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Where.
    pub path: RelPath,
    /// What each replica has.
    pub cells: Vec<Cell>,
    /// What is to be done.
    pub actions: Vec<Action>,
    /// The replica whose version wins.
    pub origin: usize,
    /// A version would lose.
    pub conflict: bool,
    /// It would be held back.
    pub held: bool,
}

/// A plan with what a person wants to see of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Preview {
    /// Lines, by path.
    pub lines: Vec<Line>,
    /// What a first meeting will do.
    pub meeting: Option<Meeting>,
    /// Deletions that would be held: how many, of how many.
    pub held: Option<(u64, u64)>,
}

impl Session {
    /// Looks, records (in memory), decides; carries nothing out.
    pub fn preview(&mut self) -> Result<Preview, SessionError> {
        self.preview_with(|| ())
    }

    /// As [`Session::preview`]. Whoever is observed is heard from `meet` on: by then it is known what is here.
    pub fn preview_with(&mut self, meet: impl FnOnce()) -> Result<Preview, SessionError> {
        self.foretells = true;
        let (observed, ours): (Vec<usize>, Vec<usize>) =
            (0..self.slots.len()).partition(|i| self.slots[*i].is_observed());
        let mut out = Preview::default();
        let mut looks = self.looks_everywhere(&ours);
        if observed.is_empty() {
            self.foretell(&looks, &mut out)?;
            self.record_all(looks)?;
        } else {
            self.record_all(looks.clone())?;
            meet();
            looks.extend(self.looks_everywhere(&observed));
            looks.sort_by_key(|(i, _)| *i);
            self.foretell(&looks, &mut out)?;
            observed.iter().for_each(|i| self.differing_is_dirty(*i));
        }
        Ok(self.plan_all(out))
    }

    fn looks_everywhere(&mut self, of: &[usize]) -> Vec<(usize, Look)> {
        let mut looks = Vec::new();
        for i in of {
            match self.slots[*i].replica.look(&Scope::Everything) {
                Ok(look) => {
                    self.slots[*i].state = State::InSync;
                    looks.push((*i, look));
                }
                Err(e) => self.replica_failed(*i, &e),
            }
        }
        looks
    }

    /// What a first meeting will do.
    fn foretell(&mut self, looks: &[(usize, Look)], out: &mut Preview) -> Result<(), SessionError> {
        let new = self.slots.iter().any(|s| s.replica.describe().new);
        out.meeting = new.then(|| self.meeting(looks));
        self.first_meeting(looks)
    }

    fn record_all(&mut self, mut looks: Vec<(usize, Look)>) -> Result<(), SessionError> {
        self.rejoining_last(&mut looks);
        for (i, mut look) in looks {
            for p in std::mem::take(&mut look.problems) {
                self.open_problem(i, p);
            }
            self.recognise(i, &mut look);
            self.brake(i, &mut look);
            let changed = self.slots[i].replica.record(&look, &self.share)?;
            self.dirty.extend(changed);
        }
        Ok(())
    }

    /// What somebody who is observed has otherwise is planned, too.
    fn differing_is_dirty(&mut self, i: usize) {
        let dirty = &mut self.dirty;
        let read = self.slots[i]
            .replica
            .differing(&RelPath::root(), &mut |path, _| {
                dirty.insert(path);
                ControlFlow::Continue(())
            });
        if let Err(e) = read {
            self.replica_failed(i, &e);
        }
    }

    fn plan_all(&mut self, mut out: Preview) -> Preview {
        let mut held_paths = std::collections::BTreeSet::new();
        for hold in &self.holds {
            out.held = Some((hold.paths.len() as u64, hold.total));
            held_paths.extend(hold.paths.iter().cloned());
        }
        self.compare_rows();
        let mut pass = Pass::default();
        self.add_resolutions(&mut pass);
        while let Some(path) = self.dirty.pop_last() {
            if path.is_root() || path.is_reserved() {
                continue;
            }
            let rows = self.rows_at(&path);
            let decision = self.decide(&path, &rows, &mut pass);
            let acts = decision
                .actions
                .iter()
                .any(|a| a.goal != instep_core::plan::Goal::Record);
            if !acts && decision.blocked.is_empty() {
                continue;
            }
            let cells = rows.iter().map(|r| cell(r.as_ref(), &decision)).collect();
            let origin = decision.actions.first().map_or(0, |a| self.origin_of(a));
            out.lines.push(Line {
                held: held_paths.contains(&path),
                path,
                cells,
                origin,
                conflict: !decision.view.losers.is_empty(),
                actions: decision.actions,
            });
        }
        out.lines.reverse();
        out
    }
}

fn cell(row: Option<&Row>, decision: &instep_core::reconcile::Decision) -> Cell {
    let Some(row) = row else { return Cell::Absent };
    if row.held.is_some() {
        return Cell::Cannot;
    }
    let wanted = decision.view.dot().and_then(|d| decision.entry.get(d));
    match (row.on_disk(), wanted) {
        (Some(v), Some(w)) if v.same_content(w) && v.is_tomb() => Cell::Deleted,
        (Some(v), Some(w)) if v.same_content(w) => Cell::Has,
        (Some(v), None) if !v.is_tomb() => Cell::Diverged,
        (Some(v), Some(_)) if !v.is_tomb() => {
            let lost = row.shown.is_some_and(|d| decision.view.losers.contains(&d));
            if lost { Cell::Diverged } else { Cell::Older }
        }
        (Some(_), _) => Cell::Deleted,
        (None, _) => Cell::Absent,
    }
}
