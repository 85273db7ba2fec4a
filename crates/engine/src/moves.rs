//! Moves of directories as one action: one rename on each of the others, with the rows that go with it.
//!
//! Owns which moves are passed on like this, by what is known before the mover records them. Invariant: nothing is
//! renamed before the mover's rows of it are at hand, so that whoever renames is told in the next breath. If we die in
//! between, a disk has moved and its index does not know: it finds the move by itself, and the versions that it mints
//! are equal in content.

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

/// A move that some replicas can carry out as it is.
pub(crate) struct Early {
    from: RelPath,
    to: RelPath,
    kind: Kind,
    replicas: Vec<usize>,
    noticed_ns: u64,
}

impl Session {
    /// What was renamed as a whole on this replica, and may be renamed on others once it is recorded here.
    pub(crate) fn early_moves(
        &self,
        source: usize,
        look: &Look,
        others: &[(usize, Look)],
    ) -> Vec<Early> {
        let noticed_ns = self.env.monotonic_ns();
        let mut early = Vec::new();
        for m in look.moves.iter().filter(|m| m.whole) {
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
            if kind != Some(Kind::Dir) || !self.is_quiet(m, others) {
                continue;
            }
            let can = |i: &usize| *i != source && self.can_move(*i, source, m);
            let replicas: Vec<usize> = (0..self.slots.len()).filter(can).collect();
            if !replicas.is_empty() {
                early.push(Early {
                    from: m.from.clone(),
                    to: m.to.clone(),
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

    /// Renames on the others what the mover has recorded, and tells their indexes so. Returns the subtrees that are
    /// done with.
    pub(crate) fn pass_on_moves(&mut self, source: usize, early: &[Early]) -> Vec<RelPath> {
        let mut done = Vec::new();
        for m in early {
            let Some(entries) = self.rows_of_move(source, m) else {
                continue;
            };
            let wanted = m.replicas.iter().copied();
            let moved: Vec<usize> = wanted.filter(|i| self.move_on(*i, m, &entries)).collect();
            if moved.is_empty() {
                continue;
            }
            if (0..self.slots.len()).all(|i| i == source || moved.contains(&i)) {
                self.revisit_above_moved(&m.from);
                done.push(m.from.clone());
                done.push(m.to.clone());
            }
            let now = self.env.monotonic_ns();
            self.summary.changes += moved.len() as u64;
            let change = Change {
                kind: ChangeKind::Move,
                object: m.kind,
                path: m.to.clone(),
                from_path: Some(m.from.clone()),
                from: source,
                to: moved,
                size: 0,
                lag_ns: now.saturating_sub(m.noticed_ns),
            };
            self.log_change(&change, 0);
            self.monitor.event(Event::Changed(change));
        }
        done
    }

    /// Renames on one replica and tells its index. Whether both was done.
    fn move_on(&mut self, i: usize, m: &Early, entries: &[(RelPath, Row)]) -> bool {
        if !self.slots[i].online() {
            return false;
        }
        let replica = &self.slots[i].replica;
        let moved = match replica.rename(&m.from, &m.to) {
            Ok(Outcome::Done) => replica.adopt_move(&m.from, &m.to, entries),
            Ok(_) => return false,
            Err(e) => Err(e),
        };
        self.touched(i);
        moved.map_err(|e| self.replica_failed(i, &e)).is_ok()
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
    use std::sync::atomic::{AtomicBool, Ordering};

    use instep_core::id::ShareId;
    use instep_core::plan::Action;
    use instep_replica::env::{Env, StepEnv};
    use instep_replica::memory::MemoryReplica;
    use instep_replica::{Book, Error, ErrorKind, Replica, Result, ShareState, Sources};

    use super::*;
    use crate::report::Silent;
    use crate::session::SessionOptions;

    /// A replica that is cut off as soon as it has recorded a move, before anybody can ask what it recorded.
    struct Cut {
        inner: Arc<MemoryReplica>,
        is_cut: AtomicBool,
    }

    impl Cut {
        fn answer<T>(&self, answer: impl FnOnce() -> Result<T>) -> Result<T> {
            if self.is_cut.load(Ordering::SeqCst) {
                return Err(Error::new(ErrorKind::Other, "ask over a line that is cut"));
            }
            answer()
        }
    }

    impl Replica for Cut {
        instep_replica::hand_on!(
            inner:
            id actor share describe capabilities watch take_hints look children open stage
            is_staged adopt_move mint restore purge barrier read_record write_record
        );

        fn guard(&self) -> Result<()> {
            self.answer(|| self.inner.guard())
        }
        fn record(&self, look: &Look, share: &ShareState) -> Result<Vec<RelPath>> {
            let changed = self.inner.record(look, share)?;
            self.is_cut
                .fetch_or(!look.moves.is_empty(), Ordering::SeqCst);
            Ok(changed)
        }
        fn row(&self, path: &RelPath) -> Result<Option<Row>> {
            self.answer(|| self.inner.row(path))
        }
        fn subtree(
            &self,
            top: &RelPath,
            visit: &mut dyn FnMut(RelPath, Row) -> ControlFlow<()>,
        ) -> Result<()> {
            self.answer(|| self.inner.subtree(top, visit))
        }
        fn apply(&self, actions: &[Action], sources: &dyn Sources) -> Result<Vec<Outcome>> {
            self.answer(|| self.inner.apply(actions, sources))
        }
        fn rename(&self, from: &RelPath, to: &RelPath) -> Result<Outcome> {
            Replica::rename(&*self.inner, from, to)
        }
        fn records(&self, book: Book) -> Result<Vec<(String, String)>> {
            self.inner.records(book)
        }
    }

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

    #[test]
    fn a_directory_that_was_moved_back_stays_where_others_were_made_to_move_it() {
        let env = Arc::new(StepEnv::default());
        let clock = Arc::clone(&env) as Arc<dyn Env>;
        let open = |label| MemoryReplica::new(label, ShareId([1; 16]), Arc::clone(&clock));
        let [a, b] = ["A", "B"].map(|label| Arc::new(open(label)));
        let cut = Arc::new(Cut {
            inner: Arc::clone(&a),
            is_cut: AtomicBool::new(false),
        });
        let replicas: Vec<Arc<dyn Replica>> = vec![cut.clone(), b.clone()];
        let options = SessionOptions::default();
        let mut session =
            Session::start(Arc::clone(&clock), replicas, options, Box::new(Silent)).unwrap();
        let mut turns = || {
            for _ in 0..40 {
                for slot in &mut session.slots {
                    slot.look_everywhere = true;
                }
                session.cycle().unwrap();
                env.advance(1_000_000_000);
            }
        };
        let (old, new) = (p("old"), p("new"));
        a.user_write(&p("old/f"), b"bytes").unwrap();
        turns();
        assert!(b.tree().contains_key(&p("old/f")));
        a.user_rename(&old, &new).unwrap();
        turns();
        assert!(cut.is_cut.load(Ordering::SeqCst), "no move was recorded");
        a.user_rename(&new, &old).unwrap();
        cut.is_cut.store(false, Ordering::SeqCst);
        turns();
        for replica in [&a, &b] {
            let paths: Vec<RelPath> = replica.tree().into_keys().collect();
            assert_eq!(paths, [old.clone(), p("old/f")]);
        }
    }
}
