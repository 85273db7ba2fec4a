//! A file whose bytes changed behind everybody's back waits for a person: nobody gets them, and nobody replaces
//! them.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::sync::Arc;

use instep_core::id::ShareId;
use instep_core::path::RelPath;
use instep_core::plan::Code;
use instep_engine::command::{Answer, Command};
use instep_engine::report::Silent;
use instep_engine::session::End;
use instep_engine::{Session, SessionOptions};
use instep_replica::env::{Env, StepEnv};
use instep_replica::memory::MemoryReplica;
use instep_replica::{Book, Replica};

fn p(path: &str) -> RelPath {
    RelPath::new(path.as_bytes()).unwrap()
}

struct World {
    env: Arc<StepEnv>,
    replicas: Vec<Arc<MemoryReplica>>,
}

impl World {
    /// Two replicas with `x` and `d/y`.
    fn new() -> Self {
        let env = Arc::new(StepEnv::default());
        let open =
            |label| MemoryReplica::new(label, ShareId([1; 16]), env.clone() as Arc<dyn Env>).into();
        let replicas: Vec<Arc<MemoryReplica>> = ["A", "B"].map(open).into();
        let world = Self { env, replicas };
        world.write(0, "x", "good");
        world.write(0, "d/y", "other");
        world.sync();
        world
    }

    fn write(&self, i: usize, path: &str, text: &str) {
        let written = self.replicas[i].user_write(&p(path), text.as_bytes());
        written.unwrap();
    }

    fn text(&self, i: usize, path: &str) -> String {
        let bytes = self.replicas[i].user_read(&p(path)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn session(&self, once: bool) -> Session {
        let all = self.replicas.iter().map(|r| r.clone() as Arc<dyn Replica>);
        let options = SessionOptions {
            once,
            ..SessionOptions::default()
        };
        let env: Arc<dyn Env> = self.env.clone();
        Session::start(env, all.collect(), options, Box::new(Silent)).unwrap()
    }

    fn sync(&self) -> End {
        self.session(true).run().unwrap()
    }

    fn ask(&self, command: Command) -> Answer {
        let mut session = self.session(false);
        let handle = session.handle();
        let asking = std::thread::spawn(move || {
            let answer = handle.request(command).unwrap();
            handle.stop();
            answer
        });
        session.run().unwrap();
        asking.join().unwrap()
    }

    /// `x` of B decays, and is found.
    fn decayed() -> Self {
        let world = Self::new();
        world.replicas[1].decay(&p("x")).unwrap();
        assert_eq!(world.ask(check(&["x", "d/y"])), Answer::Done(1));
        world
    }

    fn conflicts(&self) -> usize {
        self.replicas[0].records(Book::Conflicts).unwrap().len()
    }
}

/// Whether a path of B waits for a decision.
fn is_listed(end: &End, path: &str) -> bool {
    let of_path = end
        .problems
        .iter()
        .filter(|(i, q)| *i == 1 && q.path == p(path));
    of_path.into_iter().any(|(_, q)| q.code == Code::Damaged)
}

fn check(paths: &[&str]) -> Command {
    let paths = paths.iter().map(|path| p(path)).collect();
    Command::Check { replica: 1, paths }
}

#[test]
fn decay_is_neither_passed_on_nor_replaced_and_the_next_session_knows_it() {
    let world = World::decayed();
    let bad = world.text(1, "x");
    assert_ne!(bad, "good");
    // A fingerprint that moves makes a look read the file; its bytes are still nobody's change.
    world.replicas[1].user_chmod(&p("x"), 0o600).unwrap();
    assert!(is_listed(&world.sync(), "x"));
    assert_eq!(world.text(0, "x"), "good");
    // What the others do goes everywhere but there.
    world.write(0, "x", "newer");
    world.write(0, "d/y", "newer");
    assert!(is_listed(&world.sync(), "x"));
    assert_eq!(
        (world.text(1, "x"), world.text(1, "d/y")),
        (bad, "newer".into())
    );
    world.replicas[0].user_remove(&p("x")).unwrap();
    assert!(is_listed(&world.sync(), "x"));
    assert!(!world.text(1, "x").is_empty());
}

#[test]
fn a_repair_takes_the_good_copy_and_keeps_the_bad_bytes() {
    let world = World::decayed();
    let bad = world.text(1, "x");
    let repair = Command::Repair {
        replica: 1,
        path: p("x"),
    };
    assert_eq!(world.ask(repair.clone()), Answer::Done(1));
    assert_eq!(world.text(1, "x"), "good");
    let found = instep_chunk::content_id(bad.as_bytes());
    assert!(world.replicas[1].open(&p("x"), found).unwrap().is_some());
    let end = world.sync();
    assert!(end.problems.is_empty(), "{:?}", end.problems);
    assert_eq!((world.text(0, "x"), world.conflicts()), ("good".into(), 0));
    // There is nothing to be repaired any more.
    assert_eq!(world.ask(repair), Answer::Done(0));
}

#[test]
fn where_every_copy_decayed_nothing_is_repaired() {
    let world = World::decayed();
    world.replicas[0].decay(&p("x")).unwrap();
    let repair = Command::Repair {
        replica: 1,
        path: p("x"),
    };
    let Answer::Refused { code, .. } = world.ask(repair) else {
        panic!("repaired from nothing");
    };
    assert_eq!(code, Code::ContentMissing as u16);
    let end = world.sync();
    assert_eq!(end.problems.len(), 2, "{:?}", end.problems);
}

#[test]
fn bytes_that_are_accepted_are_a_change_like_any_other() {
    let world = World::decayed();
    let bad = world.text(1, "x");
    let accept = Command::Accept {
        replica: 1,
        path: p("x"),
    };
    assert_eq!(world.ask(accept), Answer::Done(1));
    let end = world.sync();
    assert!(end.problems.is_empty(), "{:?}", end.problems);
    assert_eq!((world.text(0, "x"), world.conflicts()), (bad, 0));
    let good = instep_chunk::content_id(b"good");
    assert!(world.replicas[0].open(&p("x"), good).unwrap().is_some());
}

#[test]
fn a_save_over_a_damaged_file_is_passed_on() {
    let world = World::decayed();
    world.write(1, "x", "saved over it");
    let end = world.sync();
    assert!(end.problems.is_empty(), "{:?}", end.problems);
    assert_eq!(world.text(0, "x"), "saved over it");
}

#[test]
fn a_damaged_file_that_is_moved_stays_damaged() {
    let world = World::decayed();
    let bad = world.text(1, "x");
    world.replicas[1].user_rename(&p("x"), &p("d/z")).unwrap();
    assert!(is_listed(&world.sync(), "d/z"));
    assert!(is_listed(&world.sync(), "d/z"));
    assert_eq!(
        (world.text(0, "d/z"), world.text(1, "d/z")),
        ("good".into(), bad)
    );
    assert_eq!(world.text(0, "x"), "");
}

#[test]
fn a_user_who_puts_the_bytes_right_has_decided() {
    let world = World::decayed();
    world.write(1, "x", "good");
    let end = world.sync();
    assert!(end.problems.is_empty(), "{:?}", end.problems);
    assert_eq!(
        (world.text(0, "x"), world.text(1, "x")),
        ("good".into(), "good".into())
    );
}
