//! A replica at the far end of a connection: the real one, with requests that are refused, replies that are
//! lost, requests that arrive twice, delays, and times when nothing gets through.
//!
//! Owns the state of the line, not the replica. Everything it does follows from the seed. Invariants: a line
//! that is whole changes nothing; hints that were taken and did not arrive are said to be lost; what a reading
//! call showed before the line broke is true.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use instep_core::id::{ContentId, Dot};
use instep_core::path::RelPath;
use instep_core::plan::{Action, Outcome, Problem};
use instep_core::row::Row;
use instep_local::LocalReplica;
use instep_replica::{
    Book, Content, Error, ErrorKind, HintSet, Look, Replica, Result, RowVisitor, Scope, ShareState,
    Sources, Waker,
};
use instep_testkit::prng::Prng;

use crate::eye::Watched;
use crate::faults::Line;
use crate::world::World;

/// How a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Through,
    /// It never arrives.
    Refused,
    /// It is carried out, and nobody hears of it.
    Unanswered,
    /// It is carried out twice: the first reply was lost, and it was sent again.
    Twice,
}

/// The line to one machine.
#[derive(Debug)]
struct Wire {
    world: Arc<World>,
    machine: usize,
    line: Line,
    rng: Mutex<Prng>,
    /// Nothing gets through before this.
    cut_until_ns: AtomicU64,
    hints_lost: AtomicBool,
}

impl Wire {
    fn is_cut(&self) -> bool {
        let until_ns = self.cut_until_ns.load(Ordering::Relaxed);
        self.world.elapsed_ns() < until_ns && self.world.is_loaded()
    }

    /// Decides how a request goes; a delay is over when it has been decided.
    fn way(&self) -> Way {
        if !self.world.is_loaded() {
            return Way::Through;
        }
        if self.is_cut() {
            return Way::Refused;
        }
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        if !rng.chance(self.line.rate, 1000) {
            return Way::Through;
        }
        let (what, lasts_ms) = (rng.below(5), [1, 300, 4_000, 20_000][rng.below(4)]);
        drop(rng);
        let strike = |what| self.world.strike(self.machine, what);
        match what {
            0 => {
                strike("line refused");
                Way::Refused
            }
            1 => {
                strike("reply lost");
                Way::Unanswered
            }
            2 => {
                strike("sent twice");
                Way::Twice
            }
            3 => {
                strike("delay");
                self.world.delay(lasts_ms);
                Way::Through
            }
            _ => {
                strike("partition");
                let until = self.world.elapsed_ns() + lasts_ms * 1_000_000;
                self.cut_until_ns.store(until, Ordering::Relaxed);
                Way::Refused
            }
        }
    }

    fn broken(&self, what: &str) -> Error {
        let attempt = format!("{what} on machine {}: the line is cut", self.machine);
        Error::new(ErrorKind::Other, attempt)
    }

    fn call<T>(&self, what: &str, mut run: impl FnMut() -> Result<T>) -> Result<T> {
        match self.way() {
            Way::Through => run(),
            Way::Refused => Err(self.broken(what)),
            Way::Unanswered => run().and_then(|_| Err(self.broken(what))),
            Way::Twice => run().and_then(|_| run()),
        }
    }

    /// A call that hands over rows one by one: what comes before the line breaks is handed over.
    fn rows(
        &self,
        what: &str,
        visit: RowVisitor<'_>,
        run: impl FnOnce(RowVisitor<'_>) -> Result<()>,
    ) -> Result<()> {
        match self.way() {
            Way::Through | Way::Twice => run(visit),
            Way::Refused => Err(self.broken(what)),
            Way::Unanswered => {
                let mut left = 3;
                run(&mut |path, row| {
                    left -= 1;
                    if left < 0 {
                        return ControlFlow::Break(());
                    }
                    visit(path, row)
                })?;
                Err(self.broken(what))
            }
        }
    }
}

/// A replica as the engine reaches it.
#[derive(Debug)]
pub(crate) struct Link {
    wire: Arc<Wire>,
    inner: Arc<Watched<LocalReplica>>,
    /// The same replica, opened anew.
    successor: OnceLock<Arc<Self>>,
}

impl Link {
    /// Puts a line between the engine and a machine's replica.
    pub(crate) fn new(
        world: Arc<World>,
        machine: usize,
        line: Line,
        rng: Prng,
        inner: Arc<Watched<LocalReplica>>,
    ) -> Self {
        let wire = Wire {
            world,
            machine,
            line,
            rng: Mutex::new(rng),
            cut_until_ns: AtomicU64::new(0),
            hints_lost: AtomicBool::new(false),
        };
        Self {
            wire: Arc::new(wire),
            inner,
            successor: OnceLock::new(),
        }
    }

    /// What is at the far end now.
    pub(crate) fn far_end(&self) -> Arc<Watched<LocalReplica>> {
        match self.successor.get() {
            Some(next) => next.far_end(),
            None => self.inner.clone(),
        }
    }
}

impl Replica for Link {
    instep_replica::hand_on!(
        inner:
        id actor share describe capabilities is_rejoining sums take_problems
    );

    fn guard(&self) -> Result<()> {
        self.wire.call("guard", || self.inner.guard())
    }

    fn renew(&self) -> Result<Option<Arc<dyn Replica>>> {
        let Wire { world, machine, .. } = &*self.wire;
        let can_change = !self.capabilities().writable && world.can_change(*machine);
        if self.wire.is_cut() || !(self.inner.watched().is_broken() || can_change) {
            return Ok(None);
        }
        let anew = match world.reopen(*machine) {
            Ok(anew) => anew,
            Err(why) => return Err(Error::new(ErrorKind::Other, why)),
        };
        let next = Arc::new(Self {
            wire: self.wire.clone(),
            inner: world.watched(*machine, anew),
            successor: OnceLock::new(),
        });
        let _only_once = self.successor.set(next.clone());
        Ok(Some(next))
    }

    fn rejoined(&self) -> Result<()> {
        self.wire
            .call("note the end of rejoining", || self.inner.rejoined())
    }

    fn watch(&self, waker: Waker) -> Result<Vec<Problem>> {
        self.wire.call("watch", || self.inner.watch(waker.clone()))
    }

    fn take_hints(&self) -> HintSet {
        if self.wire.is_cut() {
            return HintSet::default();
        }
        let mut hints = match self.wire.way() {
            Way::Refused => return HintSet::default(),
            Way::Unanswered => {
                let taken = self.inner.take_hints();
                let lost = !taken.is_empty();
                self.wire.hints_lost.fetch_or(lost, Ordering::Relaxed);
                return HintSet::default();
            }
            Way::Through | Way::Twice => self.inner.take_hints(),
        };
        hints.lost |= self.wire.hints_lost.swap(false, Ordering::Relaxed);
        hints
    }

    fn look(&self, scope: &Scope) -> Result<Look> {
        self.wire.call("look", || self.inner.look(scope))
    }

    fn record(&self, look: &Look, share: &ShareState) -> Result<Vec<RelPath>> {
        self.wire.call("record", || self.inner.record(look, share))
    }

    fn row(&self, path: &RelPath) -> Result<Option<Row>> {
        self.wire.call("read a row", || self.inner.row(path))
    }

    fn children(&self, dir: &RelPath, visit: RowVisitor<'_>) -> Result<()> {
        let run = |visit: RowVisitor<'_>| self.inner.children(dir, visit);
        self.wire.rows("read rows", visit, run)
    }

    fn subtree(&self, dir: &RelPath, visit: RowVisitor<'_>) -> Result<()> {
        let run = |visit: RowVisitor<'_>| self.inner.subtree(dir, visit);
        self.wire.rows("read rows", visit, run)
    }

    fn open(&self, path: &RelPath, content: ContentId) -> Result<Option<Box<dyn Content>>> {
        let opened = self
            .wire
            .call("open content", || self.inner.open(path, content))?;
        let wire = &self.wire;
        let carried = |inner| -> Box<dyn Content> {
            if wire.line.rate == 0 {
                return inner;
            }
            Box::new(Carried {
                wire: wire.clone(),
                inner,
            })
        };
        Ok(opened.map(carried))
    }

    fn stage(&self, path: &RelPath, content: ContentId, from: &mut dyn Content) -> Result<Outcome> {
        let run = || self.inner.stage(path, content, from);
        self.wire.call("stage", run)
    }

    fn is_staged(&self, content: ContentId) -> bool {
        !self.wire.is_cut() && self.inner.is_staged(content)
    }

    fn apply(&self, actions: &[Action], sources: &dyn Sources) -> Result<Vec<Outcome>> {
        self.wire
            .call("apply", || self.inner.apply(actions, sources))
    }

    fn rename(&self, from: &RelPath, to: &RelPath) -> Result<Outcome> {
        self.wire.call("rename", || self.inner.rename(from, to))
    }

    fn adopt_move(&self, from: &RelPath, to: &RelPath, entries: &[(RelPath, Row)]) -> Result<()> {
        let run = || self.inner.adopt_move(from, to, entries);
        self.wire.call("adopt a move", run)
    }

    fn mint(&self) -> Result<Dot> {
        self.wire.call("mint", || self.inner.mint())
    }

    fn restore(&self, key: &str, to: Option<&RelPath>) -> Result<RelPath> {
        self.wire.call("restore", || self.inner.restore(key, to))
    }

    fn purge(&self, before_ns: i64) -> Result<u64> {
        self.wire.call("purge", || self.inner.purge(before_ns))
    }

    fn barrier(&self) -> Result<()> {
        self.wire.call("barrier", || self.inner.barrier())
    }

    fn close(&self) -> Result<()> {
        self.wire.call("close", || self.inner.close())
    }

    fn read_record(&self, book: Book, key: &str) -> Result<Option<String>> {
        self.wire
            .call("read a record", || self.inner.read_record(book, key))
    }

    fn write_record(&self, book: Book, key: &str, body: Option<&str>) -> Result<()> {
        let run = || self.inner.write_record(book, key, body);
        self.wire.call("write a record", run)
    }

    fn records(&self, book: Book) -> Result<Vec<(String, String)>> {
        self.wire.call("read records", || self.inner.records(book))
    }
}

/// Content on its way: the line may break at any byte.
struct Carried {
    wire: Arc<Wire>,
    inner: Box<dyn Content>,
}

impl Content for Carried {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
        let half = buf.len().div_ceil(2);
        match self.wire.way() {
            Way::Through => self.inner.read_at(offset, buf),
            // Less than asked is not the end.
            Way::Twice => self.inner.read_at(offset, &mut buf[..half]),
            Way::Refused | Way::Unanswered => Err(std::io::ErrorKind::ConnectionReset.into()),
        }
    }

    fn next_data(&mut self, offset: u64) -> Option<(u64, u64)> {
        self.inner.next_data(offset)
    }

    fn unchanged(&self) -> bool {
        self.inner.unchanged()
    }
}
