//! What was displaced is kept for as long as was said, and not for ever. Time is scripted.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use instep_core::id::ShareId;
use instep_core::path::RelPath;
use instep_engine::report::{Event, Monitor};
use instep_engine::{Handle, Session, SessionOptions};
use instep_replica::env::{Env, StepEnv};
use instep_replica::memory::MemoryReplica;
use instep_replica::{Book, Replica, Waker};

const DAY: u64 = 24 * 3_600_000_000_000;

/// Two clocks that move when somebody waits, or is told to; then it calls whom it was given.
#[derive(Default)]
struct Clocks {
    inner: StepEnv,
    wall_ns: AtomicI64,
    monotonic_ns: AtomicU64,
    end: Mutex<Option<(u64, Handle)>>,
}

impl Clocks {
    fn advance(&self, ns: u64) {
        self.monotonic_ns.fetch_add(ns, Ordering::SeqCst);
        self.wall_ns.fetch_add(ns.cast_signed(), Ordering::SeqCst);
    }
}

impl Env for Clocks {
    fn wall_ns(&self) -> i64 {
        1_750_000_000_000_000_000 + self.wall_ns.fetch_add(1000, Ordering::SeqCst)
    }
    fn monotonic_ns(&self) -> u64 {
        self.monotonic_ns.load(Ordering::SeqCst)
    }
    fn sleep_ms(&self, ms: u64) {
        self.advance(ms * 1_000_000);
    }
    fn wait(&self, _: &Waker, timeout: Duration) {
        self.advance(timeout.as_nanos() as u64);
        let end = self.end.lock().unwrap();
        if let Some((_, handle)) = end.as_ref().filter(|(at, _)| *at <= self.monotonic_ns()) {
            handle.stop();
        }
    }
    fn random(&self) -> [u8; 16] {
        self.inner.random()
    }
    fn workers(&self) -> usize {
        1
    }
    fn boot_id(&self) -> String {
        self.inner.boot_id()
    }
    fn spawn(&self, _: &str, work: Box<dyn FnOnce() + Send>) {
        work();
    }
}

/// Counts what was destroyed.
#[derive(Clone, Default)]
struct Purged(Arc<AtomicU64>);

impl Monitor for Purged {
    fn event(&mut self, event: Event) {
        if let Event::Purged { objects, .. } = event {
            self.0.fetch_add(objects, Ordering::SeqCst);
        }
    }
}

struct World {
    env: Arc<Clocks>,
    replicas: Vec<Arc<MemoryReplica>>,
}

impl World {
    /// Two replicas; B has in its trash what was deleted on A.
    fn new() -> Self {
        let env = Arc::new(Clocks::default());
        let open = |name: &&str| {
            let env = env.clone() as Arc<dyn Env>;
            Arc::new(MemoryReplica::new(name, ShareId([1; 16]), env))
        };
        let replicas: Vec<_> = ["A", "B"].iter().map(open).collect();
        let world = Self { env, replicas };
        let path = RelPath::new(b"f").unwrap();
        world.replicas[0].user_write(&path, b"one").unwrap();
        world.once();
        world.replicas[0].user_remove(&path).unwrap();
        world.once();
        assert_eq!(world.kept(), 1);
        world
    }

    fn session(&self, once: bool) -> (Session, Purged) {
        let heard = Purged::default();
        let all = self.replicas.iter().map(|r| r.clone() as Arc<dyn Replica>);
        let options = SessionOptions {
            once,
            keep_trash: Some(Duration::from_hours(24 * 3)),
            ..SessionOptions::default()
        };
        let env = self.env.clone() as Arc<dyn Env>;
        let session = Session::start(env, all.collect(), options, Box::new(heard.clone()));
        (session.unwrap(), heard)
    }

    /// How many objects a single pass destroys.
    fn once(&self) -> u64 {
        let (mut session, heard) = self.session(true);
        session.run().unwrap();
        heard.0.load(Ordering::SeqCst)
    }

    fn kept(&self) -> usize {
        self.replicas[1].records(Book::Trash).unwrap().len()
    }
}

#[test]
fn what_was_displaced_long_ago_is_kept_for_ever() {
    let world = World::new();
    world.env.advance(2 * DAY);
    assert_eq!(world.once(), 0);
    world.env.advance(2 * DAY);
    assert_eq!(world.once(), 0, "too young at the check before");
    assert_eq!(world.kept(), 1);
    world.env.advance(DAY);
    assert_eq!(world.once(), 1);
    assert_eq!(world.kept(), 0);
}

#[test]
fn a_clock_that_jumps_ahead_destroys_what_was_displaced_yesterday() {
    let world = World::new();
    world.env.advance(DAY);
    let ten_years = (3650 * DAY).cast_signed();
    world.env.wall_ns.fetch_add(ten_years, Ordering::SeqCst);
    assert_eq!(world.once(), 0);
    world.env.wall_ns.fetch_sub(ten_years, Ordering::SeqCst);
    assert_eq!(world.once(), 0);
    assert_eq!(world.kept(), 1);
}

#[test]
fn a_session_that_runs_for_months_never_empties_its_trash() {
    let world = World::new();
    let (mut session, heard) = world.session(false);
    let end = world.env.monotonic_ns() + 6 * DAY;
    *world.env.end.lock().unwrap() = Some((end, session.handle()));
    session.run().unwrap();
    assert_eq!(heard.0.load(Ordering::SeqCst), 1);
    assert_eq!(world.kept(), 0);
}

#[test]
fn a_preview_destroys_something() {
    let world = World::new();
    world.env.advance(40 * DAY);
    assert_eq!(world.once(), 0);
    world.env.advance(40 * DAY);
    let (mut session, heard) = world.session(true);
    session.preview().unwrap();
    drop(session);
    assert_eq!((heard.0.load(Ordering::SeqCst), world.kept()), (0, 1));
}
