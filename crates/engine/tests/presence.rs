//! Replicas that go away, take no changes or cannot be read while a session runs: nothing is deleted anywhere,
//! the others go on, and they come back by themselves. Time is scripted, so nothing here waits.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use instep_core::id::ShareId;
use instep_core::path::RelPath;
use instep_core::plan::{Code, Problem};
use instep_engine::report::{Event, Monitor, State};
use instep_engine::session::End;
use instep_engine::{Session, SessionOptions};
use instep_replica::env::{Env, StepEnv};
use instep_replica::memory::MemoryReplica;
use instep_replica::{Replica, Waker};

type Step = Box<dyn FnOnce() + Send>;

/// Whoever rests here lets time pass, and what was written down for that time happens.
#[derive(Default)]
struct Script {
    inner: StepEnv,
    now_ns: AtomicU64,
    steps: Mutex<VecDeque<(u64, Step)>>,
}

impl Env for Script {
    fn wall_ns(&self) -> i64 {
        self.inner.wall_ns()
    }

    fn monotonic_ns(&self) -> u64 {
        self.now_ns.load(Ordering::SeqCst)
    }

    fn sleep_ms(&self, ms: u64) {
        self.now_ns.fetch_add(ms * 1_000_000, Ordering::SeqCst);
    }

    fn wait(&self, _: &Waker, timeout: Duration) {
        let mut steps = self.steps.lock().unwrap();
        let next_ns = steps.front().map_or(u64::MAX, |s| s.0);
        let until = self.monotonic_ns() + timeout.as_nanos() as u64;
        self.now_ns.store(
            until.min(next_ns.max(self.monotonic_ns())),
            Ordering::SeqCst,
        );
        let step = (next_ns <= until).then(|| steps.pop_front()).flatten();
        drop(steps);
        if let Some((_, step)) = step {
            step();
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

    /// Work aside is done when the engine rests: not before it has planned everything else.
    fn spawn(&self, _: &str, work: Box<dyn FnOnce() + Send>) {
        let now = self.monotonic_ns();
        self.steps.lock().unwrap().push_front((now, work));
    }
}

type Scanned = Box<dyn FnMut(usize) + Send>;

/// What a session said, and something to be done when it has looked.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<Event>>>, Arc<Mutex<Option<Scanned>>>);

impl Monitor for Heard {
    fn event(&mut self, event: Event) {
        if let (Event::Scanned { replica, .. }, Some(act)) = (&event, &mut *self.1.lock().unwrap())
        {
            act(*replica);
        }
        self.0.lock().unwrap().push(event);
    }
}

impl Heard {
    fn states(&self, of: usize) -> Vec<State> {
        let state = |e: &Event| match e {
            Event::Replica { replica, state, .. } if *replica == of => Some(*state),
            _ => None,
        };
        self.0.lock().unwrap().iter().filter_map(state).collect()
    }

    fn problems(&self) -> Vec<(usize, Problem, bool)> {
        let problem = |e: &Event| match e {
            Event::Problem {
                replica,
                problem,
                open,
            } => Some((*replica, problem.clone(), *open)),
            _ => None,
        };
        self.0.lock().unwrap().iter().filter_map(problem).collect()
    }
}

/// Three replicas in memory, and what happens to them.
struct World {
    env: Arc<Script>,
    replicas: Vec<Arc<MemoryReplica>>,
    heard: Heard,
}

fn p(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).unwrap()
}

impl World {
    fn new() -> Self {
        let env = Arc::new(Script::default());
        let replica = |label| {
            Arc::new(MemoryReplica::new(
                label,
                ShareId([1; 16]),
                env.clone() as Arc<dyn Env>,
            ))
        };
        let world = Self {
            replicas: ["A", "B", "C"].map(replica).into(),
            env: env.clone(),
            heard: Heard::default(),
        };
        for name in ["a", "d/b", "d/c"] {
            world.replicas[0]
                .user_write(&p(name), name.as_bytes())
                .unwrap();
        }
        world
    }

    /// At an instant, in milliseconds after the start.
    fn at(&self, ms: u64, act: impl FnOnce([&MemoryReplica; 3]) + Send + 'static) {
        let replicas = self.replicas.clone();
        let step: Step = Box::new(move || act([&replicas[0], &replicas[1], &replicas[2]]));
        self.env
            .steps
            .lock()
            .unwrap()
            .push_back((ms * 1_000_000, step));
    }

    /// Runs a session until nothing is written down any more.
    fn run(&self) -> End {
        let replicas = self
            .replicas
            .iter()
            .map(|r| r.clone() as Arc<dyn Replica>)
            .collect();
        let monitor = Box::new(self.heard.clone());
        let options = SessionOptions::default();
        let env = self.env.clone() as Arc<dyn Env>;
        let mut session = Session::start(env, replicas, options, monitor).unwrap();
        let handle = session.handle();
        let last = self.env.steps.lock().unwrap().back().map_or(0, |s| s.0);
        let stop: Step = Box::new(move || handle.stop());
        self.env.steps.lock().unwrap().push_back((last + 1, stop));
        session.run().unwrap()
    }

    fn is_in_step(&self) -> bool {
        let trees: Vec<_> = self.replicas.iter().map(|r| r.tree()).collect();
        trees.windows(2).all(|w| w[0] == w[1])
    }
}

fn has(replica: &MemoryReplica, path: &str) -> bool {
    replica.tree().contains_key(&p(path))
}

#[test]
fn a_root_that_vanishes_without_an_event_is_noticed_and_comes_back() {
    let world = World::new();
    world.at(500, |[_, b, _]| {
        b.set_gone(true);
        // The kernel says nothing about an unmount.
        b.take_hints();
    });
    world.at(2500, |[a, _, _]| a.user_write(&p("new"), b"new").unwrap());
    world.at(4000, |[a, b, c]| {
        assert!(has(c, "new"), "the others did not go on");
        assert!(has(a, "d/b") && has(c, "d/b"), "something was deleted");
        b.set_gone(false);
        b.take_hints();
    });
    world.at(7000, |_| {});
    let end = world.run();
    assert_eq!(world.heard.states(1), [State::Offline, State::Scanning]);
    assert_eq!(end.state, State::InSync);
    assert!(world.is_in_step());
}

#[test]
fn a_replica_that_becomes_read_only_pauses_and_goes_on_by_itself() {
    let world = World::new();
    world.at(500, |[a, b, _]| {
        b.set_read_only(true);
        a.user_write(&p("new"), b"new").unwrap();
        a.user_remove(&p("a")).unwrap();
    });
    world.at(4000, |[_, b, c]| {
        assert!(has(c, "new") && !has(c, "a"), "the others did not go on");
        assert!(has(b, "a"), "a read-only replica was changed");
        b.set_read_only(false);
    });
    world.at(8000, |_| {});
    let end = world.run();
    assert_eq!(world.heard.states(1), [State::Paused, State::Scanning]);
    assert_eq!(
        world.heard.problems(),
        [],
        "it is no difficulty of any path"
    );
    assert_eq!(end.state, State::InSync);
    assert!(world.is_in_step());
}

#[test]
fn a_read_only_replica_does_not_keep_a_single_pass_from_its_end() {
    let world = World::new();
    world.replicas[1].set_read_only(true);
    let replicas = world
        .replicas
        .iter()
        .map(|r| r.clone() as Arc<dyn Replica>)
        .collect();
    let options = SessionOptions {
        once: true,
        ..SessionOptions::default()
    };
    let monitor = Box::new(world.heard.clone());
    let env = world.env.clone() as Arc<dyn Env>;
    let end = Session::start(env, replicas, options, monitor)
        .unwrap()
        .run()
        .unwrap();
    assert_eq!(end.state, State::Paused);
    assert!(has(&world.replicas[2], "d/c"));
    assert!(!has(&world.replicas[1], "d/c"));
}

#[test]
fn a_file_that_changes_before_it_is_brought_is_no_problem() {
    let world = World::new();
    let (a, mut once) = (world.replicas[0].clone(), true);
    let save: Scanned = Box::new(move |replica| {
        if replica == 0 && std::mem::take(&mut once) {
            a.user_write(&p("a"), b"saved again").unwrap();
        }
    });
    *world.heard.1.lock().unwrap() = Some(save);
    world.at(2000, |[_, b, _]| {
        assert_eq!(b.user_read(&p("a")).unwrap(), b"saved again");
    });
    world.run();
    assert_eq!(world.heard.problems(), []);
}

#[test]
fn a_folder_that_cannot_be_read_keeps_what_is_known_of_it_and_is_looked_at_again() {
    let world = World::new();
    world.at(500, |[_, b, _]| {
        b.set_unreadable(&p("d"), true);
        b.user_write(&p("d/unseen"), b"unseen").unwrap();
        b.lose_hints();
    });
    world.at(3000, |[a, b, c]| {
        assert!(has(a, "d/b") && has(c, "d/c"), "something was deleted");
        assert!(!has(a, "d/unseen"));
        b.set_unreadable(&p("d"), false);
    });
    world.at(12_000, |_| {});
    let end = world.run();
    let heard = world.heard.problems();
    let of = |open| heard.iter().filter(|(_, _, o)| *o == open).count();
    assert!(
        heard
            .iter()
            .all(|(i, p, _)| (*i, p.code) == (1, Code::Unreadable)),
        "{heard:?}"
    );
    assert_eq!(
        (of(true), of(false)),
        (1, 1),
        "it is opened and closed once: {heard:?}"
    );
    assert_eq!(end.problems, []);
    assert!(world.is_in_step());
}

#[test]
fn a_file_without_room_waits_while_others_go_on_and_is_reported_once() {
    let world = World::new();
    world.at(500, |[a, b, _]| {
        b.set_room(Some(100));
        a.user_write(&p("big"), &[7; 1000]).unwrap();
        a.user_write(&p("small"), b"small").unwrap();
    });
    // Everything is looked at meanwhile: that says nothing about the room.
    world.at(2000, |[_, b, _]| b.lose_hints());
    world.at(14_000, |[_, b, c]| {
        assert!(has(b, "small") && has(c, "big") && !has(b, "big"));
        b.set_room(None);
    });
    world.at(24_000, |_| {});
    world.run();
    let heard: Vec<_> = world
        .heard
        .problems()
        .into_iter()
        .map(|(_, p, o)| (p.code, o))
        .collect();
    assert_eq!(heard, [(Code::NoSpace, true), (Code::NoSpace, false)]);
    assert!(world.is_in_step());
}

#[test]
fn two_big_files_of_equal_content_arrive_both() {
    let world = World::new();
    let big = vec![7; 9 * 1024 * 1024];
    world.at(500, move |[a, _, _]| {
        a.user_write(&p("big"), &big).unwrap();
        a.user_write(&p("copy"), &big).unwrap();
    });
    world.at(3000, |[_, b, c]| {
        assert!(has(b, "big") && has(c, "big"));
        assert!(has(b, "copy") && has(c, "copy"), "only one of them arrived");
    });
    world.run();
    assert!(world.is_in_step());
}

#[test]
fn every_single_change_reports_its_progress() {
    let world = World::new();
    for n in 0..50 {
        let save = move |[a, _, _]: [&MemoryReplica; 3]| a.user_write(&p("a"), &[n]).unwrap();
        world.at(500 + 20 * u64::from(n), save);
    }
    world.run();
    let heard = world.heard.0.lock().unwrap();
    let told = heard.iter().filter(|e| matches!(e, Event::Progress(_)));
    assert!(told.count() <= 4);
}

#[test]
fn what_came_back_with_other_content_while_its_deletion_is_held_stays_unseen() {
    let world = World::new();
    for n in 0..100 {
        let path = p(&format!("many/{n}"));
        world.replicas[0].user_write(&path, b"one of many").unwrap();
    }
    world.at(20_000, |[a, _, _]| a.user_remove(&p("many")).unwrap());
    world.at(30_000, |[a, b, _]| {
        assert!(has(b, "many/7"), "nothing was held");
        a.user_write(&p("many/7"), b"another").unwrap();
        // The kernel loses the event.
        a.take_hints();
    });
    world.at(40_000, |[_, b, c]| {
        for other in [b, c] {
            assert_eq!(other.user_read(&p("many/7")).unwrap(), b"another");
            assert!(has(other, "many/8"), "what is held was deleted");
        }
    });
    assert_eq!(world.run().state, State::Held);
}
