//! What a live session finds by itself when nobody tells it anything. Time is scripted.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use instep_core::entry::Entry;
use instep_core::id::{ActorId, Dot, ShareId};
use instep_core::path::RelPath;
use instep_core::plan::{Action, Code, Goal, Keep, Precondition};
use instep_core::row::Row;
use instep_core::version::Kind;
use instep_engine::checks::CheckOptions;
use instep_engine::report::{Event, Monitor};
use instep_engine::session::End;
use instep_engine::{Handle, Session, SessionOptions, drift};
use instep_replica::content::NoSources;
use instep_replica::env::{Env, StepEnv};
use instep_replica::memory::MemoryReplica;
use instep_replica::{Replica, Waker};

const HOUR: u64 = 3_600_000_000_000;

/// A clock that moves when somebody waits, and calls whom it was given when it is late enough.
#[derive(Default)]
struct Clock {
    inner: StepEnv,
    now_ns: AtomicU64,
    end: Mutex<Option<(u64, Handle)>>,
    waits: AtomicU64,
}

impl Env for Clock {
    fn wall_ns(&self) -> i64 {
        1_750_000_000_000_000_000 + self.now_ns.fetch_add(1000, Ordering::SeqCst).cast_signed()
    }
    fn monotonic_ns(&self) -> u64 {
        self.now_ns.load(Ordering::SeqCst)
    }
    fn sleep_ms(&self, ms: u64) {
        self.now_ns.fetch_add(ms * 1_000_000, Ordering::SeqCst);
    }
    fn wait(&self, _: &Waker, timeout: Duration) {
        self.waits.fetch_add(1, Ordering::SeqCst);
        let ns = u64::try_from(timeout.as_nanos()).unwrap();
        self.now_ns.fetch_add(ns, Ordering::SeqCst);
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

/// Hears the codes of notices.
#[derive(Clone, Default)]
struct Notices(Arc<Mutex<Vec<u16>>>);

impl Monitor for Notices {
    fn event(&mut self, event: Event) {
        if let Event::Notice { code, .. } = event {
            self.0.lock().unwrap().push(code);
        }
    }
}

struct World {
    env: Arc<Clock>,
    replicas: Vec<Arc<MemoryReplica>>,
    heard: Notices,
}

fn p(path: &str) -> RelPath {
    RelPath::new(path.as_bytes()).unwrap()
}

impl World {
    /// Two replicas in step, with some files.
    fn new() -> Self {
        let env = Arc::new(Clock::default());
        let open = |name| {
            let env = env.clone() as Arc<dyn Env>;
            Arc::new(MemoryReplica::new(name, ShareId([1; 16]), env))
        };
        let replicas = ["A", "B"].map(open).into();
        let heard = Notices::default();
        let world = Self {
            env,
            replicas,
            heard,
        };
        for n in 0..8 {
            let path = p(&format!("d{}/f{n}", n % 3));
            world.replicas[0].user_write(&path, b"text").unwrap();
        }
        world.live(0, CheckOptions::default());
        world
    }

    /// A session that goes on for some hours.
    fn live(&self, hours: u64, checks: CheckOptions) -> End {
        let all = self.replicas.iter().map(|r| r.clone() as Arc<dyn Replica>);
        let options = SessionOptions {
            once: hours == 0,
            checks,
            ..SessionOptions::default()
        };
        let env = self.env.clone() as Arc<dyn Env>;
        let monitor = Box::new(self.heard.clone());
        let mut session = Session::start(env, all.collect(), options, monitor).unwrap();
        let end = self.env.monotonic_ns() + hours * HOUR;
        *self.env.end.lock().unwrap() = Some((end, session.handle()));
        session.run().unwrap()
    }

    /// B learns of an event at `d0/f0` that nobody else knows, behind the session's back.
    fn drift(&self) -> Entry {
        let row = self.row(1);
        let unheard = Dot {
            actor: ActorId([9; 8]),
            counter: 4,
        };
        let ctx = row.entry.ctx().iter().chain([unheard]).collect();
        let entry = Entry::from_parts(ctx, row.entry.siblings().to_vec()).unwrap();
        let action = Action {
            replica: 1,
            path: p("d0/f0"),
            before: Precondition::Unchanged {
                kind: Kind::File,
                print: row.print.unwrap(),
                content: row.present().unwrap().content,
            },
            goal: Goal::Record,
            keep: Keep::Trash,
            entry: entry.clone(),
            shown: row.shown,
        };
        self.replicas[1].apply(&[action], &NoSources).unwrap();
        entry
    }

    fn row(&self, i: usize) -> Row {
        self.replicas[i].row(&p("d0/f0")).unwrap().unwrap()
    }
}

const EVERY_HOUR: CheckOptions = CheckOptions {
    audit_every: Some(Duration::from_hours(1)),
    compare_every: Some(Duration::from_hours(1)),
};

#[test]
fn decay_goes_unnoticed_while_a_session_runs() {
    let world = World::new();
    world.replicas[1].decay(&p("d2/f5")).unwrap();
    let end = world.live(100, EVERY_HOUR);
    let codes: Vec<_> = end.problems.iter().map(|(i, q)| (*i, q.code)).collect();
    assert_eq!(codes, [(1, Code::Damaged)]);
}

#[test]
fn a_change_that_nobody_told_of_is_not_found_before_the_next_scan() {
    let world = World::new();
    // The hints of B are lost for good: it never was watched.
    let path = p("d1/f1");
    let scripted = |at: u64| {
        world.replicas[1].user_write(&path, b"changed").unwrap();
        world.replicas[1].take_hints();
        world.live(at, EVERY_HOUR)
    };
    let end = scripted(100);
    assert!(end.problems.is_empty(), "{:?}", end.problems);
    assert_eq!(world.replicas[0].user_read(&path).unwrap(), b"changed");
}

#[test]
fn replicas_in_step_that_know_different_things_drift_in_silence() {
    let world = World::new();
    let entry = world.drift();
    assert_ne!(world.row(0).entry, entry);
    let both: Vec<&dyn Replica> = world.replicas.iter().map(|r| r.as_ref() as _).collect();
    let compared = drift::compare(&both, &p("d0")).unwrap();
    assert_eq!(compared.differing, [p("d0/f0")]);
    let end = world.live(3, EVERY_HOUR);
    assert!(end.problems.is_empty(), "{:?}", end.problems);
    assert_eq!(*world.heard.0.lock().unwrap(), [Code::Drifted as u16]);
    assert_eq!(world.row(0).entry, entry);
    assert!(
        drift::compare(&both, &p("d0"))
            .unwrap()
            .differing
            .is_empty()
    );
}

#[test]
fn checks_keep_an_idle_session_busy() {
    let world = World::new();
    let waits = |checks| {
        let before = world.env.waits.load(Ordering::SeqCst);
        world.live(50, checks);
        world.env.waits.load(Ordering::SeqCst) - before
    };
    let never = CheckOptions {
        audit_every: Some(Duration::from_hours(100_000)),
        compare_every: Some(Duration::from_hours(100_000)),
    };
    assert_eq!(waits(CheckOptions::default()), waits(never));
    assert!(world.heard.0.lock().unwrap().is_empty());
}
