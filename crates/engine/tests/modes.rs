//! A directory gets its mode when its contents are in, long after it counted as made: what comes in between.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use instep_core::entry::Entry;
use instep_core::id::{ActorId, Dot, ShareId};
use instep_core::path::RelPath;
use instep_core::plan::{Action, Code, Goal, Keep, Outcome, Precondition, Problem};
use instep_core::row::Row;
use instep_core::version::{Kind, Version};
use instep_engine::report::Silent;
use instep_engine::session::End;
use instep_engine::{Session, SessionOptions};
use instep_replica::content::NoSources;
use instep_replica::env::{Env, StepEnv};
use instep_replica::memory::MemoryReplica;
use instep_replica::{Book, Replica, Result, Sources};

fn p(path: &str) -> RelPath {
    RelPath::new(path.as_bytes()).unwrap()
}

/// A replica that fails once to give a directory its mode, when a barrier comes.
struct Late {
    inner: Arc<MemoryReplica>,
    fails: AtomicBool,
    has_failed: AtomicBool,
}

impl Replica for Late {
    instep_replica::hand_on!(
        inner:
        id actor share describe capabilities guard watch take_hints look record row
        children subtree open stage is_staged adopt_move mint restore purge
        read_record write_record
    );

    fn apply(&self, actions: &[Action], sources: &dyn Sources) -> Result<Vec<Outcome>> {
        self.inner.apply(actions, sources)
    }
    fn rename(&self, from: &RelPath, to: &RelPath) -> Result<Outcome> {
        Replica::rename(&*self.inner, from, to)
    }
    fn records(&self, book: Book) -> Result<Vec<(String, String)>> {
        self.inner.records(book)
    }
    fn barrier(&self) -> Result<()> {
        let fails = self.fails.swap(false, Ordering::SeqCst);
        self.has_failed.fetch_or(fails, Ordering::SeqCst);
        self.inner.barrier()
    }
    fn take_problems(&self) -> Vec<Problem> {
        let has_failed = self.has_failed.swap(false, Ordering::SeqCst);
        let problem = has_failed.then(|| Problem {
            path: p("d"),
            code: Code::Unwritable,
            detail: "as arranged".into(),
        });
        problem.into_iter().collect()
    }
}

struct World {
    env: Arc<StepEnv>,
    replicas: [Arc<MemoryReplica>; 2],
}

impl World {
    fn new() -> Self {
        let env = Arc::new(StepEnv::default());
        let open = |label| {
            let env = env.clone() as Arc<dyn Env>;
            Arc::new(MemoryReplica::new(label, ShareId([1; 16]), env))
        };
        let replicas = ["A", "B"].map(open);
        Self { env, replicas }
    }

    fn once(&self, fails: bool) -> End {
        let late = Late {
            inner: self.replicas[0].clone(),
            fails: AtomicBool::new(fails),
            has_failed: AtomicBool::new(false),
        };
        let all: Vec<Arc<dyn Replica>> = vec![Arc::new(late), self.replicas[1].clone()];
        let options = SessionOptions {
            once: true,
            ..SessionOptions::default()
        };
        let env = self.env.clone() as Arc<dyn Env>;
        let mut session = Session::start(env, all, options, Box::new(Silent)).unwrap();
        session.run().unwrap()
    }

    /// Both know of the directory and have it, the first with another mode.
    fn make(&self) {
        let dot = Dot {
            actor: ActorId([7; 8]),
            counter: 1,
        };
        let version = Version {
            mode: 0o500,
            te: 1,
            mode_te: 1,
            ..Version::bare(Kind::Dir)
        };
        for (replica, mode) in self.replicas.iter().zip([0o700, 0o500]) {
            let action = Action {
                replica: 0,
                path: p("d"),
                before: Precondition::Absent,
                goal: Goal::Dir { mode },
                keep: Keep::Trash,
                entry: Entry::first(dot, version.clone()),
                shown: Some(dot),
            };
            assert_eq!(
                replica.apply(&[action], &NoSources).unwrap(),
                [Outcome::Done]
            );
        }
    }

    fn modes(&self) -> [u16; 2] {
        let row = |r: &Arc<MemoryReplica>| -> Row { r.row(&p("d")).unwrap().unwrap() };
        self.replicas.each_ref().map(|r| row(r).print.unwrap().mode)
    }
}

#[test]
fn a_directory_keeps_the_mode_that_it_was_made_with_after_a_death() {
    let world = World::new();
    world.make();
    assert_eq!(world.modes(), [0o700, 0o500]);
    world.once(false);
    assert_eq!(world.modes(), [0o500, 0o500]);
}

#[test]
fn a_directory_that_does_not_get_its_mode_in_the_end_never_gets_it() {
    let world = World::new();
    world.once(false);
    // What was agreed at the end of that session says that nothing has to be compared.
    world.make();
    world.replicas[0].user_write(&p("f"), b"a file").unwrap();
    let end = world.once(true);
    assert_eq!(end.problems.len(), 1, "{end:?}");
    let end = world.once(false);
    assert_eq!(end.problems, []);
    assert_eq!(world.modes(), [0o500, 0o500]);
}
