//! A session: replicas of one share, kept equal until everything is done or somebody says stop.
//!
//! Owns what must be remembered between two cycles: where to look, what is dirty, what is retried, what is
//! held. Everything else is in the replicas. Loses nothing when it dies: it is rebuilt by looking.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use instep_core::id::{ContentId, ShareId};
use instep_core::path::RelPath;
use instep_core::plan::{Code, Problem};
use instep_core::policy::Role;
use instep_replica::env::Env;
use instep_replica::records::{DamageRecord, Member, PolicyRecord, ShareRecord};
use instep_replica::{Book, Checked, Error, HintSet, Replica, ShareState, Step, Totals, Waker};

use crate::burst::Burst;
use crate::checks::{CheckOptions, Checks};
use crate::command::{Answer, Command};
use crate::holds::Hold;
use crate::report::{Event, Monitor, State, Summary};
use crate::settlement::Settlement;
use crate::sizes::Sizes;

/// What a user chose for a session.
#[derive(Debug, Clone, Default)]
pub struct SessionOptions {
    /// Stop when everything is done.
    pub once: bool,
    /// Policy for conflicts that arise from now on.
    pub policy: Option<PolicyRecord>,
    /// One way: the first replica is the source.
    pub mirror: bool,
    /// A mirror may empty its targets.
    pub allow_empty: bool,
    /// How often replicas without hints are looked at; the engine chooses when none is given.
    pub poll: Option<Duration>,
    /// Changes are listed one by one in the log up to this many a cycle.
    pub log_lines: usize,
    /// How long what was displaced is kept; for ever when none is given.
    pub keep_trash: Option<Duration>,
    /// How much is done in one go.
    pub sizes: Sizes,
    /// How often files are read again, and what the replicas know is compared, while the session is live.
    pub checks: CheckOptions,
}

/// Why a session cannot run.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// A mirror's source is empty and its targets are not.
    #[error("the source is empty and a target is not")]
    EmptySource,
    /// No replica can be used.
    #[error("no replica can be used")]
    Replica(#[from] Error),
    /// Fewer than two replicas.
    #[error("a session needs at least two replicas")]
    TooFew,
}

/// A session's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Counts at the end.
    pub summary: Summary,
    /// It was told to stop.
    pub stopped: bool,
    /// The worst state of any replica.
    pub state: State,
    /// Problems at the end.
    pub problems: Vec<(usize, Problem)>,
}

/// One replica in the session.
pub(crate) struct Slot {
    pub(crate) replica: Arc<dyn Replica>,
    pub(crate) role: Role,
    pub(crate) state: State,
    pub(crate) why: String,
    pub(crate) hints: HintSet,
    pub(crate) look_everywhere: bool,
    /// The last look left files unread: the number of the next piece.
    pub(crate) rest: Option<u64>,
    pub(crate) next_poll_ns: u64,
    pub(crate) next_try_ns: u64,
    pub(crate) next_guard_ns: u64,
    /// It failed as a whole, and is not back yet.
    pub(crate) failed: bool,
    pub(crate) totals: Totals,
    pub(crate) touched_ns: Option<u64>,
    /// What was deleted and created on it lately.
    pub(crate) burst: Burst,
}

pub(crate) type Request = (Command, mpsc::Sender<Answer>);

#[derive(Default)]
pub(crate) struct Inbox {
    pub(crate) requests: Mutex<VecDeque<Request>>,
    pub(crate) stop: AtomicBool,
    /// Contents that a transfer brought (or failed to), and to which replica.
    pub(crate) arrived: Mutex<Vec<(usize, ContentId, instep_core::plan::Outcome)>>,
    /// Files that were read again and are not what was recorded.
    pub(crate) checked: Mutex<Vec<(usize, RelPath, Checked)>>,
    /// Replicas that join.
    pub(crate) newcomers: Mutex<Vec<Arc<dyn Replica>>>,
}

/// Talks to a running session from another thread.
#[derive(Clone)]
pub struct Handle {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) waker: Waker,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handle")
    }
}

impl Handle {
    /// Asks, and waits for the answer; `None` when the session has ended.
    pub fn request(&self, command: Command) -> Option<Answer> {
        let (send, receive) = mpsc::channel();
        let mut requests = self
            .inbox
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        requests.push_back((command, send));
        drop(requests);
        self.waker.wake();
        receive.recv().ok()
    }

    /// Finishes the epoch and stops.
    pub fn stop(&self) {
        self.inbox.stop.store(true, Ordering::SeqCst);
        self.waker.wake();
    }
}

/// A session.
pub struct Session {
    pub(crate) env: Arc<dyn Env>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) share: ShareState,
    pub(crate) options: SessionOptions,
    pub(crate) monitor: Box<dyn Monitor>,
    pub(crate) waker: Waker,
    pub(crate) inbox: Arc<Inbox>,
    /// Paths whose rows may differ between replicas.
    pub(crate) dirty: BTreeSet<RelPath>,
    /// Paths to be looked at (on that replica, or planned on all) at a later time.
    pub(crate) later: BTreeMap<RelPath, Later>,
    pub(crate) problems: BTreeMap<(usize, RelPath), Problem>,
    /// Files whose content changed although nobody wrote them, as noted on their replicas.
    pub(crate) damaged: BTreeMap<(usize, RelPath), DamageRecord>,
    /// Paths that wait for a name above them.
    pub(crate) covered: BTreeSet<RelPath>,
    /// Paths that wait for a person, with the one above each that a preferred file gets then.
    pub(crate) asked: BTreeMap<RelPath, RelPath>,
    /// What is called for beside other paths, and by which.
    pub(crate) called: BTreeMap<RelPath, BTreeSet<RelPath>>,
    pub(crate) holds: Vec<Hold>,
    /// Contents that are being brought, to which replica, and the paths that wait for them.
    pub(crate) in_flight: BTreeMap<(usize, ContentId), BTreeSet<RelPath>>,
    pub(crate) compare_all: bool,
    pub(crate) started_ns: u64,
    pub(crate) summary: Summary,
    pub(crate) settled: bool,
    /// Some replica's record says that nothing is pending between them.
    pub(crate) marked: bool,
    pub(crate) seq: u64,
    pub(crate) met: bool,
    /// Decisions of a person that wait for the next reconciliation.
    pub(crate) resolutions: BTreeMap<RelPath, instep_core::entry::Entry>,
    /// Conflicts that were decided by those.
    pub(crate) settlements: Vec<Settlement>,
    pub(crate) next_hold_check_ns: u64,
    /// It worked on the replicas, so they are closed when it ends.
    pub(crate) ran: bool,
    pub(crate) next_problem_look_ns: u64,
    /// The keys of conflicts that nobody has settled yet.
    pub(crate) open_conflicts: BTreeSet<String>,
    /// When progress was told last.
    pub(crate) progress_ns: u64,
    /// When upkeep is due; not before the first settling.
    pub(crate) next_upkeep_ns: Option<u64>,
    pub(crate) checks: Checks,
    /// It plans for everybody and changes nothing.
    pub(crate) foretells: bool,
}

/// Something to be done at a later time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Later {
    pub(crate) due_ns: u64,
    pub(crate) delay_ms: u64,
    pub(crate) tries: u32,
    /// Look at it on this replica; on all when none.
    pub(crate) replica: Option<usize>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("share", &self.share.id)
            .finish_non_exhaustive()
    }
}

/// Between two looks at a replica without hints, when nothing else is said.
const POLL: Duration = Duration::from_secs(2);
/// Between two full looks at a replica with hints: bounds how stale a lost event can leave us.
const RESCAN: Duration = Duration::from_hours(1);
/// How long after the last change the barrier comes, when nothing else happens.
const BARRIER_NS: u64 = 200_000_000;

impl Session {
    /// Brings replicas together. They must all be of the same share.
    pub fn start(
        env: Arc<dyn Env>,
        replicas: Vec<Arc<dyn Replica>>,
        options: SessionOptions,
        monitor: Box<dyn Monitor>,
    ) -> Result<Self, SessionError> {
        let Some(first) = replicas.first() else {
            return Err(SessionError::TooFew);
        };
        let id = first.share();
        let slots: Vec<Slot> = replicas.into_iter().map(slot).collect();
        let started_ns = env.monotonic_ns();
        let mut session = Self {
            share: ShareState::new(id, ShareRecord::default()),
            env,
            slots,
            options,
            monitor,
            waker: Waker::default(),
            inbox: Arc::default(),
            dirty: BTreeSet::new(),
            later: BTreeMap::new(),
            problems: BTreeMap::new(),
            damaged: BTreeMap::new(),
            covered: BTreeSet::new(),
            asked: BTreeMap::new(),
            called: BTreeMap::new(),
            holds: Vec::new(),
            in_flight: BTreeMap::new(),
            compare_all: false,
            started_ns,
            summary: Summary::default(),
            settled: false,
            marked: false,
            seq: 0,
            met: false,
            resolutions: BTreeMap::new(),
            settlements: Vec::new(),
            next_hold_check_ns: 0,
            ran: false,
            next_problem_look_ns: 0,
            open_conflicts: BTreeSet::new(),
            progress_ns: 0,
            next_upkeep_ns: None,
            checks: Checks::default(),
            foretells: false,
        };
        session.agree(id)?;
        session.load_conflicts().map_err(|(_, e)| e)?;
        session.load_holds()?;
        (0..session.slots.len()).try_for_each(|i| session.load_damage(i))?;
        let named = |s: &Slot| (s.replica.id(), s.replica.describe());
        let replicas = session.slots.iter().map(named).collect();
        session.monitor.event(Event::Opened {
            share: id,
            replicas,
        });
        Ok(session)
    }

    /// To talk to the session while it runs.
    pub fn handle(&self) -> Handle {
        Handle {
            inbox: self.inbox.clone(),
            waker: self.waker.clone(),
        }
    }

    /// What all replicas agree on.
    pub fn share(&self) -> &ShareState {
        &self.share
    }

    /// Joins what the replicas know of the share, adds who is new, and tells everybody.
    pub(crate) fn agree(&mut self, id: ShareId) -> Result<(), Error> {
        self.join_share(id)?;
        self.read_marks()
    }

    /// Joins what the replicas know of the share.
    fn join_share(&mut self, id: ShareId) -> Result<(), Error> {
        let mut record = ShareRecord::default();
        let mut known = Vec::new();
        for slot in self.slots.iter().filter(|s| s.online()) {
            let text = slot.replica.read_record(Book::Share, "share")?;
            let theirs: ShareRecord = text
                .as_deref()
                .and_then(|t| serde_json::from_str(t).ok())
                .unwrap_or_default();
            record.merge(&theirs);
            known.push(theirs);
        }
        for slot in &self.slots {
            let described = slot.replica.describe();
            let member = record
                .members
                .entry(slot.replica.id().to_string())
                .or_insert_with(|| Member {
                    label: described.label.clone(),
                    location: described.location.clone(),
                    actors: Vec::new(),
                    gone: false,
                });
            let actor = slot.replica.actor().to_string();
            if !member.actors.contains(&actor) {
                member.actors.push(actor);
            }
            member.label = described.label;
            member.location = described.location;
            member.gone = false;
        }
        let newest = record.policies.values().next_back().cloned();
        if let Some(policy) = self.options.policy.clone()
            && newest.as_ref() != Some(&policy)
        {
            let epoch = record.policies.keys().next_back().map_or(1, |e| e + 1);
            record.policies.insert(epoch, policy);
        }
        let text = serde_json::to_string(&record).unwrap_or_default();
        for (slot, theirs) in self.slots.iter().filter(|s| s.online()).zip(&known) {
            if *theirs != record && slot.is_ours() {
                slot.replica
                    .write_record(Book::Share, "share", Some(&text))?;
                self.env.reach(Step::ShareAgreed);
            }
        }
        self.share = ShareState::new(id, record);
        Ok(())
    }

    /// What is written at the far end changed: whoever is here learns of it.
    pub(crate) fn join_books(&mut self, i: usize) {
        if let Err(e) = self.join_share(self.share.id) {
            return self.replica_failed(i, &e);
        }
        if let Err((j, e)) = self.load_conflicts() {
            self.replica_failed(j, &e);
        }
    }

    fn read_marks(&mut self) -> Result<(), Error> {
        // Anything that was left undone is found by comparing all rows, unless all say they are settled.
        let mut marks = self
            .slots
            .iter()
            .filter(|s| s.is_ours())
            .map(|s| s.replica.read_record(Book::Share, "settled"));
        let first = marks.next().transpose()?.flatten();
        self.marked = first.is_some();
        self.compare_all = first.is_none();
        for mark in marks {
            let mark = mark?;
            self.marked |= mark.is_some();
            self.compare_all |= mark != first;
        }
        Ok(())
    }

    /// Runs until everything is done (`once`), or until told to stop.
    pub fn run(&mut self) -> Result<End, SessionError> {
        self.ran = true;
        if !self.options.once {
            self.watch_all();
        }
        let result = self.turn_until_done();
        // Whatever was done must survive, also when the session ends by an error.
        self.barrier();
        let stopped = result?;
        if !self.options.once || self.settled || self.is_idle() {
            self.mark_settled();
        }
        self.refresh_summary();
        Ok(End {
            summary: self.summary.clone(),
            stopped,
            state: self.worst(),
            problems: self
                .problems
                .iter()
                .map(|((r, _), p)| (*r, p.clone()))
                .collect(),
        })
    }

    fn watch_all(&mut self) {
        (0..self.slots.len()).for_each(|i| self.watch(i));
    }

    pub(crate) fn watch(&mut self, i: usize) {
        match self.slots[i].replica.watch(self.waker.clone()) {
            Ok(problems) => problems.into_iter().for_each(|p| self.open_problem(i, p)),
            Err(e) => self.replica_failed(i, &e),
        }
    }

    fn turn_until_done(&mut self) -> Result<bool, SessionError> {
        loop {
            if self.inbox.stop.load(Ordering::SeqCst) {
                self.refuse_requests();
                return Ok(true);
            }
            self.serve_requests();
            let worked = self.cycle()?;
            if worked {
                continue;
            }
            if self.options.once && self.is_done() {
                self.settle();
                return Ok(false);
            }
            self.rest();
        }
    }

    /// Nothing is left to do, here or at the far end of a connection.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_at_rest() && self.slots.iter().all(Slot::is_resting)
    }

    /// Nothing is left that we could do.
    fn is_at_rest(&self) -> bool {
        self.dirty.is_empty()
            && self.later.is_empty()
            && self.in_flight.is_empty()
            && self.slots.iter().all(Slot::is_looked_at)
            && !self.slots.iter().any(Slot::is_behind)
    }

    /// Nothing is left that we could do, or what is left was tried often enough, as whoever waits for it knows.
    fn is_at_its_end(&self) -> bool {
        let patience = 40;
        // What keeps changing is a problem, and nobody knows for how long.
        let changes = |p: &RelPath| {
            let of_path = self.problems.iter().filter(|((_, at), _)| at == p);
            of_path.into_iter().any(|(_, p)| p.code == Code::Changing)
        };
        let is_hopeless = |(p, l): (&RelPath, &Later)| {
            l.tries > patience || l.delay_ms >= 5000 || (l.delay_ms >= 1000 && changes(p))
        };
        let hopeless = self.later.iter().all(is_hopeless);
        self.dirty.is_empty()
            && self.in_flight.is_empty()
            && hopeless
            && self.slots.iter().all(Slot::is_looked_at)
            && !self.slots.iter().any(|s| self.is_hopefully_behind(s))
    }

    /// With `once`: idle, or what is left was tried often enough.
    fn is_done(&self) -> bool {
        self.is_at_its_end() && self.slots.iter().all(Slot::is_resting)
    }

    /// Waits for hints, requests, or the next thing that is due.
    fn rest(&mut self) {
        let now = self.env.monotonic_ns();
        let barrier_due = self
            .slots
            .iter()
            .filter_map(|s| s.touched_ns)
            .min()
            .map(|t| t + BARRIER_NS);
        if barrier_due.is_some_and(|due| due <= now) {
            self.barrier();
        }
        if self.is_at_its_end() {
            let observed = self.slots.iter().filter(|s| s.is_observed());
            observed.for_each(|s| s.replica.rest());
        }
        if self.is_idle() {
            self.settle();
        }
        self.upkeep_when_due();
        self.check_when_due();
        if !self.dirty.is_empty() {
            return;
        }
        let due = self
            .later
            .values()
            .map(|l| l.due_ns)
            .chain(barrier_due.filter(|d| *d > now))
            .chain(
                self.slots
                    .iter()
                    .filter(|s| s.online())
                    .map(|s| s.next_poll_ns),
            )
            .chain(self.slots.iter().map(Slot::attention_ns))
            .chain(self.problem_look_due())
            .min()
            .unwrap_or(now + crate::presence::RETRY_NS);
        let wait = due.saturating_sub(now).clamp(200_000, 60_000_000_000);
        self.env.wait(&self.waker, Duration::from_nanos(wait));
    }

    /// Says once that everything is in step, with the counts.
    fn settle(&mut self) {
        if !self.settled {
            self.settled = true;
            self.mark_settled();
            self.refresh_summary();
            self.monitor.event(Event::Settled(self.summary.clone()));
            self.begin_upkeep();
        }
    }

    /// Remembers on every replica that nothing is pending between them.
    fn mark_settled(&mut self) {
        let clean = self.is_idle()
            && self.holds.is_empty()
            && self.problems.is_empty()
            && self.covered.is_empty()
            && self.asked.is_empty()
            && !self.slots.iter().any(|s| s.failed || s.only_read());
        let mark = instep_replica::records::hex(&self.env.random());
        for slot in self.slots.iter().filter(|s| s.is_ours()) {
            // Without the mark the next start compares all rows: slower, not wrong.
            let _slower = slot
                .replica
                .write_record(Book::Share, "settled", clean.then_some(&mark));
            self.env.reach(Step::Settled);
        }
        self.marked = clean;
        if clean {
            self.end_rejoining();
        }
    }

    /// Something is pending from now on; a mark that an earlier session left must not hide it.
    pub(crate) fn unsettle(&mut self) {
        self.settled = false;
        if std::mem::take(&mut self.marked) {
            for slot in self.slots.iter().filter(|s| s.is_ours()) {
                let _slower = slot.replica.write_record(Book::Share, "settled", None);
                self.env.reach(Step::Settled);
            }
        }
    }

    /// Makes what was done survive a power cut.
    pub(crate) fn barrier(&mut self) {
        for i in 0..self.slots.len() {
            if self.slots[i].touched_ns.take().is_none() || !self.slots[i].is_ours() {
                continue;
            }
            if let Err(e) = self.slots[i].replica.barrier() {
                self.replica_failed(i, &e);
            }
            // The modes of directories are set now.
            for problem in self.slots[i].replica.take_problems() {
                self.told(i, problem);
            }
        }
    }

    pub(crate) fn touched(&mut self, i: usize) {
        let now = self.env.monotonic_ns();
        self.slots[i].touched_ns.get_or_insert(now);
    }

    /// When a replica without hints is looked at again; with hints, when everything is looked at anyway.
    pub(crate) fn schedule_poll(&mut self, i: usize) {
        let hints = self.slots[i].replica.capabilities().hints;
        let every = match self.options.poll {
            Some(poll) => poll,
            None if hints => RESCAN,
            None => POLL,
        };
        self.slots[i].next_poll_ns = self.env.monotonic_ns() + every.as_nanos() as u64;
    }

    /// Looks at a path again after exactly this time: the replica knows how long to wait.
    pub(crate) fn look_again(&mut self, path: RelPath, replica: usize, delay_ms: u64) {
        let tries = self.later.get(&path).map_or(0, |l| l.tries + 1);
        self.due_in(path, Some(replica), delay_ms, tries);
    }

    /// Tries a path again, after a longer time each time.
    pub(crate) fn retry(&mut self, path: RelPath, replica: Option<usize>, delay_ms: u64) {
        let old = self.later.get(&path);
        let tries = old.map_or(0, |l| l.tries + 1);
        let delay_ms = delay_ms.max(old.map_or(0, |l| (l.delay_ms * 2).min(1000)));
        self.due_in(path, replica, delay_ms, tries);
    }

    fn due_in(&mut self, path: RelPath, replica: Option<usize>, delay_ms: u64, tries: u32) {
        let due_ns = self.env.monotonic_ns() + delay_ms * 1_000_000;
        let old = self.later.get(&path);
        // What is tried again and again for another reason would never be looked at if each try put that off.
        let due_ns = old.map_or(due_ns, |l| due_ns.min(l.due_ns));
        let other = old.is_some_and(|l| l.replica != replica);
        let replica = if other { None } else { replica };
        self.later.insert(
            path,
            Later {
                due_ns,
                delay_ms,
                tries,
                replica,
            },
        );
    }

    /// The worst state of any replica.
    pub(crate) fn worst(&self) -> State {
        let has = |s: State| self.slots.iter().any(|x| x.state == s);
        if !self.holds.is_empty() {
            State::Held
        } else if !self.problems.is_empty() {
            State::Problem
        } else if has(State::Paused) {
            State::Paused
        } else if has(State::Offline) {
            State::Offline
        } else if self.is_idle() {
            State::InSync
        } else {
            State::Syncing
        }
    }

    pub(crate) fn refresh_summary(&mut self) {
        let totals = self
            .slots
            .iter()
            .map(|s| s.replica.sums().unwrap_or(s.totals))
            .max_by_key(|t| (t.files, t.bytes));
        self.summary.totals = totals.unwrap_or_default();
        self.summary.conflicts = self.open_conflicts.len() as u64;
        self.summary.holds = self.holds.len() as u64;
        self.summary.problems = self.problems.len() as u64;
        self.summary.waiting = (self.dirty.len() + self.later.len()) as u64;
        self.summary.took_ns = self.env.monotonic_ns().saturating_sub(self.started_ns);
    }

    pub(crate) fn label(&self, i: usize) -> String {
        self.slots[i].replica.describe().label
    }
}

pub(crate) fn slot(replica: Arc<dyn Replica>) -> Slot {
    let role = replica.describe().role;
    Slot {
        role,
        replica,
        state: State::Scanning,
        why: String::new(),
        hints: HintSet::default(),
        look_everywhere: true,
        rest: None,
        next_poll_ns: u64::MAX,
        next_try_ns: 0,
        next_guard_ns: 0,
        failed: false,
        totals: Totals::default(),
        touched_ns: None,
        burst: Burst::default(),
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // What a panic left half done must not be taken for closed: recovery sees to it.
        if std::thread::panicking() {
            return;
        }
        for slot in self.slots.iter().filter(|s| self.ran && s.online()) {
            // What was not closed is recovered when it is opened next.
            let _recovered_later = slot.replica.close();
        }
    }
}

#[cfg(test)]
impl Session {
    /// A session of two empty replicas in memory that has not begun.
    pub(crate) fn of_two(env: &Arc<instep_replica::env::StepEnv>) -> Self {
        let env = Arc::clone(env) as Arc<dyn Env>;
        let replica = |label: &str| {
            let made = instep_replica::memory::MemoryReplica::new(
                label,
                ShareId([1; 16]),
                Arc::clone(&env),
            );
            Arc::new(made) as Arc<dyn Replica>
        };
        let replicas = ["A", "B"].map(replica).into();
        let monitor = Box::new(crate::report::Silent);
        Self::start(
            Arc::clone(&env),
            replicas,
            SessionOptions::default(),
            monitor,
        )
        .expect("replicas in memory do not fail")
    }

    /// Makes a directory on the first replica that only that one knows of, as an action would.
    pub(crate) fn made_on_first(&self, path: &RelPath) -> instep_core::entry::Entry {
        use instep_core::plan::{Action, Goal, Keep, Precondition};
        let dot = instep_core::id::Dot {
            actor: instep_core::id::ActorId([7; 8]),
            counter: 1,
        };
        let dir = instep_core::version::Version {
            mode: 0o755,
            te: 1,
            mode_te: 1,
            ..instep_core::version::Version::bare(instep_core::version::Kind::Dir)
        };
        let entry = instep_core::entry::Entry::first(dot, dir);
        let action = Action {
            replica: 0,
            path: path.clone(),
            before: Precondition::Absent,
            goal: Goal::Dir { mode: 0o755 },
            keep: Keep::Trash,
            entry: entry.clone(),
            shown: Some(dot),
        };
        let sources = instep_replica::content::NoSources;
        let done = self.slots[0].replica.apply(&[action], &sources);
        done.expect("replicas in memory do not fail");
        entry
    }
}
