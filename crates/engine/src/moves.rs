//! Moves as one action: the rename first, everywhere, then the bookkeeping.
//!
//! A whole move is passed on before it is recorded, because `rename` is cheap and a person is looking at
//! the folder. If we die in between, every disk has moved and no index knows: each finds the same move by
//! itself, and the versions they mint are equal in content.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use instep_core::path::RelPath;
use instep_core::plan::Outcome;
use instep_core::policy::Role;
use instep_core::row::Row;
use instep_core::version::Kind;
use instep_replica::look::Move;
use instep_replica::{Found, Look};

use crate::report::{Change, ChangeKind, Event};
use crate::session::Session;

/// A move that some replicas have carried out already.
pub(crate) struct Early {
    from: RelPath,
    to: RelPath,
    kind: Kind,
    replicas: Vec<usize>,
    noticed_ns: u64,
}

impl Session {
    /// Renames on the other replicas what was renamed as a whole on this one.
    pub(crate) fn move_early(
        &mut self,
        source: usize,
        look: &Look,
        others: &[(usize, Look)],
    ) -> Vec<Early> {
        let noticed_ns = self.env.monotonic_ns();
        let whole: Vec<Move> = look.moves.iter().filter(|m| m.whole).cloned().collect();
        let mut early = Vec::new();
        for m in whole {
            let kind = look
                .findings
                .iter()
                .find(|f| f.path == m.to)
                .and_then(|f| match &f.found {
                    Found::Present { kind, .. } => Some(*kind),
                    Found::Absent { .. }
                    | Found::Refreshed { .. }
                    | Found::Held(_)
                    | Found::Forgotten
                    | Found::Ancestor { .. } => None,
                });
            // A file is moved by its own action, with its metadata; here only what would be many.
            if kind != Some(Kind::Dir) || !self.is_quiet(&m, others) {
                continue;
            }
            let mut replicas = Vec::new();
            for i in 0..self.slots.len() {
                if i != source && self.can_move(i, source, &m) && self.rename_on(i, &m) {
                    replicas.push(i);
                }
            }
            if !replicas.is_empty() {
                early.push(Early {
                    from: m.from,
                    to: m.to,
                    kind: Kind::Dir,
                    replicas,
                    noticed_ns,
                });
            }
        }
        early
    }

    /// Nothing is pending at or below either end; what others found there was found before the move, and what they
    /// have not read to the end yet may be there. Only the first piece of a walk says what waits, of the others none.
    fn is_quiet(&self, m: &Move, others: &[(usize, Look)]) -> bool {
        let inside = |p: &RelPath| p.is_within(&m.from) || p.is_within(&m.to);
        let found = |l: &Look| {
            let findings = l.findings.iter().map(|f| &f.path);
            findings
                .chain(l.again.iter().map(|(p, _)| p))
                .chain(&l.unhashed)
                .chain(l.unread.iter().map(|(p, _)| p))
                .any(inside)
        };
        let waits_unsaid = |l: &Look| l.rest.is_some() && l.unread.is_empty();
        !others.iter().any(|(_, l)| found(l) || waits_unsaid(l))
            && !self.dirty.iter().any(inside)
            && !self.later.keys().any(inside)
            && !self.problems.keys().any(|(_, p)| inside(p))
            && !self.compare_all
            && self.slots.iter().all(|slot| slot.rest.is_none())
            && !self.holds.iter().any(|h| h.paths.iter().any(inside))
    }

    fn can_move(&self, i: usize, source: usize, m: &Move) -> bool {
        let slot = &self.slots[i];
        let row = |r: usize, p: &RelPath| self.slots[r].replica.row(p).ok().flatten();
        let same_before = match (row(i, &m.from), row(source, &m.from)) {
            (Some(a), Some(b)) => a.entry == b.entry && a.present().is_some(),
            _ => false,
        };
        slot.online()
            && slot.role != Role::Source
            && slot.replica.capabilities().writable
            && same_before
            && self.knows_the_same(i, source, &m.from)
            && row(i, &m.to).is_none_or(|r| r.print.is_none())
    }

    /// Both indexes have the same below a directory, and the same of it on disk: what waits for a person is
    /// shown by each replica as its own.
    fn knows_the_same(&self, one: usize, two: usize, dir: &RelPath) -> bool {
        let read = |r: usize| {
            let mut out = BTreeMap::new();
            let read = self.slots[r].replica.subtree(dir, &mut |path, row| {
                let mode = row.print.map(|p| p.mode);
                out.insert(path, (row.materialised(), mode, row.entry));
                ControlFlow::Continue(())
            });
            read.is_ok().then_some(out)
        };
        read(one).is_some_and(|rows| read(two).as_ref() == Some(&rows))
    }

    fn rename_on(&mut self, i: usize, m: &Move) -> bool {
        match self.slots[i].replica.rename(&m.from, &m.to) {
            Ok(Outcome::Done) => {
                self.touched(i);
                true
            }
            Ok(_) => false,
            Err(e) => {
                self.replica_failed(i, &e);
                false
            }
        }
    }

    /// Tells the indexes of those that moved early what the mover recorded. Returns the subtrees that are
    /// done with.
    pub(crate) fn adopt_moves(&mut self, source: usize, early: &[Early]) -> Vec<RelPath> {
        let mut done = Vec::new();
        for m in early {
            let Some(entries) = self.rows_of_move(source, m) else {
                continue;
            };
            let everywhere = (0..self.slots.len()).all(|i| i == source || m.replicas.contains(&i));
            for i in &m.replicas {
                if let Err(e) = self.slots[*i].replica.adopt_move(&m.from, &m.to, &entries) {
                    self.replica_failed(*i, &e);
                }
            }
            if everywhere {
                self.revisit_above_moved(&m.from);
                done.push(m.from.clone());
                done.push(m.to.clone());
            }
            let now = self.env.monotonic_ns();
            let change = Change {
                kind: ChangeKind::Move,
                object: m.kind,
                path: m.to.clone(),
                from_path: Some(m.from.clone()),
                from: source,
                to: m.replicas.clone(),
                size: 0,
                lag_ns: now.saturating_sub(m.noticed_ns),
            };
            self.summary.changes += m.replicas.len() as u64;
            self.log_change(&change, 0);
            self.monitor.event(Event::Changed(change));
        }
        done
    }

    fn rows_of_move(&mut self, source: usize, m: &Early) -> Option<Vec<(RelPath, Row)>> {
        let mut entries = Vec::new();
        for top in [&m.from, &m.to] {
            let replica = &self.slots[source].replica;
            let result = replica.row(top).and_then(|row| {
                entries.extend(row.map(|r| (top.clone(), r)));
                replica.subtree(top, &mut |path, row| {
                    entries.push((path, row));
                    ControlFlow::Continue(())
                })
            });
            if let Err(e) = result {
                self.replica_failed(source, &e);
                return None;
            }
        }
        Some(entries)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use std::sync::Arc;

    use instep_replica::env::StepEnv;

    use super::*;

    fn p(path: &str) -> RelPath {
        RelPath::new(path.as_bytes()).unwrap()
    }

    #[test]
    fn a_directory_moves_before_what_was_saved_in_it_has_been_read() {
        let moved = Move {
            from: p("old"),
            to: p("new"),
            whole: true,
        };
        let look = |unread: &str| Look {
            unread: vec![(p(unread), 1)],
            rest: Some(1),
            ..Look::default()
        };
        let mut session = Session::of_two(&Arc::new(StepEnv::default()));
        session.compare_all = false;
        assert!(session.is_quiet(&moved, &[]));
        assert!(session.is_quiet(&moved, &[(1, look("else"))]));
        for inside in ["old/f", "new/f"] {
            assert!(!session.is_quiet(&moved, &[(1, look(inside))]), "{inside}");
        }
        // A further piece does not say what is read after it.
        let piece = |rest| Look {
            rest,
            ..Look::default()
        };
        assert!(!session.is_quiet(&moved, &[(1, piece(Some(3)))]));
        assert!(session.is_quiet(&moved, &[(1, piece(None))]));
        // What was found in an earlier turn is read piece by piece.
        session.slots[1].rest = Some(2);
        assert!(!session.is_quiet(&moved, &[]));
    }
}
