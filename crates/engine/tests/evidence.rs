//! Nothing is deleted without evidence: what could not be listed, and whoever cannot be asked, deletes
//! nothing anywhere. The same in a mirror, where what the source does not have is an extra.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use instep_core::id::ShareId;
use instep_core::path::RelPath;
use instep_core::plan::{Action, Goal, Outcome};
use instep_core::policy::Role;
use instep_core::row::Row;
use instep_engine::report::{Event, Monitor};
use instep_engine::{Handle, Session, SessionOptions};
use instep_replica::env::{Env, StepEnv};
use instep_replica::memory::MemoryReplica;
use instep_replica::{Book, Error, ErrorKind, Replica, Result, Sources};

/// Does something when it is told something.
struct Told<F>(F);

impl<F: FnMut(&Event) + Send> Monitor for Told<F> {
    fn event(&mut self, event: Event) {
        self.0(&event);
    }
}

/// A replica that one time does not answer what it has at "old".
struct Silent {
    inner: Arc<MemoryReplica>,
    answers: AtomicUsize,
}

impl Replica for Silent {
    instep_replica::hand_on!(
        inner:
        id actor share describe capabilities guard watch take_hints look record
        children subtree open stage is_staged adopt_move mint restore purge barrier
        read_record write_record
    );

    fn row(&self, path: &RelPath) -> Result<Option<Row>> {
        let asked = usize::from(*path == p("old"));
        if asked > 0 && self.answers.fetch_sub(asked, Ordering::SeqCst) == asked {
            return Err(Error::new(ErrorKind::Other, "read a row"));
        }
        self.inner.row(path)
    }
    fn apply(&self, actions: &[Action], sources: &dyn Sources) -> Result<Vec<Outcome>> {
        let leads_away = |a: &Action| matches!(a.goal, Goal::Rename { .. });
        assert!(!actions.iter().any(leads_away), "old is not to go");
        self.inner.apply(actions, sources)
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

/// Three replicas; where it is a mirror, the first is the source.
struct World {
    env: Arc<StepEnv>,
    replicas: Vec<Arc<MemoryReplica>>,
    mirror: bool,
}

impl World {
    fn new(mirror: bool) -> Self {
        let env = Arc::new(StepEnv::default());
        let open = |(label, role)| {
            let role = if mirror { role } else { Role::Both };
            let replica = MemoryReplica::new(label, ShareId([1; 16]), env.clone() as Arc<dyn Env>);
            Arc::new(replica.with_role(role))
        };
        let roles = [
            ("A", Role::Source),
            ("B", Role::Target),
            ("C", Role::Target),
        ];
        let replicas = roles.map(open).into();
        Self {
            env,
            replicas,
            mirror,
        }
    }

    fn write(&self, i: usize, paths: &[&str]) {
        for path in paths {
            self.replicas[i]
                .user_write(&p(path), path.as_bytes())
                .unwrap();
        }
    }

    /// What a replica has, without directories.
    fn files(&self, i: usize) -> Vec<String> {
        let tree = self.replicas[i].tree();
        let files = tree.iter().filter(|(_, object)| !object.is_dir());
        files.map(|(path, _)| path.to_string()).collect()
    }

    fn session(&self, told: impl FnMut(&Event) + Send + 'static) -> Session {
        let all = self.replicas.iter().map(|r| r.clone() as Arc<dyn Replica>);
        self.session_of(all.collect(), told)
    }

    fn session_of(
        &self,
        all: Vec<Arc<dyn Replica>>,
        told: impl FnMut(&Event) + Send + 'static,
    ) -> Session {
        let options = SessionOptions {
            once: true,
            mirror: self.mirror,
            ..SessionOptions::default()
        };
        let env: Arc<dyn Env> = self.env.clone();
        Session::start(env, all, options, Box::new(Told(told))).unwrap()
    }

    fn sync(&self) {
        self.session(|_| ()).run().unwrap();
    }
}

const TREE: [&str; 5] = ["a", "d/b", "d/e/c", "d/e/f", "g"];

/// P9: wherever a listing is incomplete, no file goes anywhere, whatever is missing below it.
#[test]
fn a_listing_that_failed_deletes_at_or_below_it() {
    for unread in ["a", "d", "d/b", "d/e", "d/e/c"] {
        for who in 0..3 {
            let world = World::new(false);
            world.write(0, &TREE);
            world.sync();
            for gone in ["d/b", "d/e/c", "d/e/f"].map(p) {
                if gone.is_within(&p(unread)) && gone != p(unread) {
                    world.replicas[who].user_remove(&gone).unwrap();
                }
            }
            world.replicas[who].set_unreadable(&p(unread), true);
            world.sync();
            for other in (0..3).filter(|i| *i != who) {
                assert_eq!(world.files(other), TREE, "{unread} unread on {who}");
            }
        }
    }
}

#[test]
fn what_a_mirrors_source_could_not_read_is_an_extra() {
    for unread in ["a", "d", "d/e", "d/e/c"] {
        let world = World::new(true);
        world.write(0, &TREE);
        world.write(1, &TREE);
        world.write(1, &["extra", "d/e/extra"]);
        world.replicas[0].set_unreadable(&p(unread), true);
        world.sync();
        let files = world.files(1);
        let has = |file: &str| files.iter().any(|f| f == file);
        assert!(TREE.into_iter().all(has), "{unread} unread: {files:?}");
        assert!(
            !has("extra"),
            "an extra that the source was asked for stays"
        );
        assert_eq!(has("d/e/extra"), p("d/e/extra").is_within(&p(unread)));
        world.replicas[0].set_unreadable(&p(unread), false);
        world.sync();
        assert_eq!(world.files(1), TREE, "when it was read, extras go");
    }
}

#[test]
fn everything_is_an_extra_once_a_mirrors_source_has_gone() {
    let world = World::new(true);
    world.write(0, &TREE);
    world.sync();
    world.write(1, &["extra"]);
    world.replicas[1].user_write(&p("a"), b"edited").unwrap();
    // It goes after it was looked at and before its rows are read.
    let source = world.replicas[0].clone();
    let mut session = world.session(move |event| {
        if matches!(event, Event::Scanned { replica: 2, .. }) {
            source.set_gone(true);
        }
    });
    session.run().unwrap();
    drop(session);
    assert_eq!(world.files(1), ["a", "d/b", "d/e/c", "d/e/f", "extra", "g"]);
    assert_eq!(world.files(2), TREE);
    world.replicas[0].set_gone(false);
    world.sync();
    assert_eq!(world.files(1), TREE);
    assert_eq!(world.replicas[1].user_read(&p("a")).unwrap(), b"a");
}

/// Somebody moved a file, and a folder that joins has one of its own under the old name.
#[test]
fn a_file_goes_because_a_record_of_it_could_not_be_read_for_a_moment() {
    for answers in 1..5 {
        let mut world = World::new(false);
        let last = world.replicas.pop().unwrap();
        world.write(0, &["old"]);
        world.sync();
        world.replicas[0].user_rename(&p("old"), &p("new")).unwrap();
        world.sync();
        last.user_write(&p("old"), b"old").unwrap();
        let silent = Silent {
            inner: last.clone(),
            answers: AtomicUsize::new(answers),
        };
        let mut all: Vec<Arc<dyn Replica>> = Vec::new();
        all.extend(world.replicas.iter().map(|r| r.clone() as Arc<dyn Replica>));
        all.push(Arc::new(silent));
        let stop = Arc::new(Mutex::new(None::<Handle>));
        let handle = stop.clone();
        let mut session = world.session_of(all, move |event| {
            if let (Event::Replica { .. }, Some(session)) = (event, &*handle.lock().unwrap()) {
                session.stop();
            }
        });
        *stop.lock().unwrap() = Some(session.handle());
        session.run().unwrap();
        drop(session);
        world.replicas.push(last);
        assert!(
            world.files(2).iter().any(|f| f == "old"),
            "{answers} answers"
        );
        world.sync();
        for i in 0..3 {
            assert_eq!(world.files(i), ["new", "old"], "on {i}, {answers} answers");
        }
    }
}
