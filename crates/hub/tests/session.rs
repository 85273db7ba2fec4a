//! Sessions in which a hub stands between replicas that do not know each other.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use instep_core::path::RelPath;
use instep_engine::command::{Answer, Command};
use instep_engine::report::Silent;
use instep_engine::session::End;
use instep_engine::{Session, SessionOptions};
use instep_replica::env::Env;
use instep_replica::memory::{MemoryReplica, Object};
use instep_replica::{Book, Replica, Scope};

use support::real::{Real, copy};
use support::{SHARE, p, random, read};

/// Two users, and a hub that each of them meets.
struct World {
    real: Real,
    users: [Arc<MemoryReplica>; 2],
}

impl World {
    fn new() -> Self {
        let real = Real::new();
        let user = |label| {
            let env = real.env.clone() as Arc<dyn Env>;
            Arc::new(MemoryReplica::new(label, SHARE, env))
        };
        let users = ["A", "B"].map(user);
        Self { real, users }
    }

    fn session(&self, users: &[usize], once: bool) -> Session {
        let mut all: Vec<Arc<dyn Replica>> = vec![self.real.hub().clone()];
        all.extend(
            users
                .iter()
                .map(|i| self.users[*i].clone() as Arc<dyn Replica>),
        );
        let options = SessionOptions {
            once,
            ..SessionOptions::default()
        };
        let env: Arc<dyn Env> = self.real.env.clone();
        Session::start(env, all, options, Box::new(Silent)).unwrap()
    }

    /// Some users meet the hub, until nothing is left to do.
    fn meet(&self, users: &[usize]) -> End {
        self.session(users, true).run().unwrap()
    }

    fn write(&self, i: usize, path: &str, bytes: &[u8]) {
        self.users[i].user_write(&p(path), bytes).unwrap();
    }

    fn text(&self, i: usize, path: &str) -> Option<Vec<u8>> {
        self.users[i].user_read(&p(path)).ok()
    }

    fn trees(&self) -> [BTreeMap<RelPath, Object>; 2] {
        [self.users[0].tree(), self.users[1].tree()]
    }

    fn is_settled(&self) {
        let look = self.real.hub().look(&Scope::Everything).unwrap();
        assert!(look.findings.is_empty(), "{look:?}");
        assert!(self.real.hub().verify(&|| false).unwrap().flaws.is_empty());
        let [a, b] = self.trees();
        assert_eq!(a, b);
    }
}

#[test]
fn what_one_writes_does_not_reach_another_through_the_hub() {
    let world = World::new();
    let big = random(1, 3_000_000);
    world.write(0, "d/small", b"from A");
    world.write(0, "d/big", &big);
    world.users[0].user_mkdir(&p("hollow")).unwrap();
    world.users[0].user_link(&p("d/link"), b"small").unwrap();
    world.users[0].user_chmod(&p("d/big"), 0o600).unwrap();
    world.meet(&[0]);
    world.meet(&[1]);
    world.is_settled();
    assert_eq!(world.text(1, "d/big"), Some(big));
    world.write(1, "d/small", b"from B");
    world.users[1].user_remove(&p("d/big")).unwrap();
    world.users[1]
        .user_rename(&p("hollow"), &p("d/hollow"))
        .unwrap();
    world.meet(&[1]);
    world.meet(&[0]);
    world.is_settled();
    assert_eq!(world.text(0, "d/small"), Some(b"from B".to_vec()));
    assert_eq!(world.text(0, "d/big"), None);
    assert_eq!(world.meet(&[0, 1]).problems, []);
}

#[test]
fn folders_that_are_not_empty_lose_something_when_they_meet() {
    let world = World::new();
    world.write(0, "x", b"from A");
    world.write(0, "only/a", b"a");
    world.real.env.sleep_ms(5000);
    world.write(1, "x", b"from B, later");
    world.write(1, "only/b", b"b");
    world.meet(&[0]);
    world.meet(&[1]);
    world.meet(&[0]);
    world.is_settled();
    assert_eq!(world.text(0, "x"), Some(b"from B, later".to_vec()));
    assert_eq!(world.text(1, "only/a"), Some(b"a".to_vec()));
    let hub = world.real.hub();
    assert_eq!(hub.records(Book::Conflicts).unwrap().len(), 1);
    assert_eq!(
        hub.purge(i64::MAX).unwrap(),
        0,
        "the loser of an open conflict"
    );
    assert_eq!(read(hub.as_ref(), b"from A").unwrap().unwrap(), b"from A");
}

#[test]
fn a_renamed_directory_is_brought_again() {
    let world = World::new();
    for n in 0..5 {
        world.write(0, &format!("d/sub/{n}"), &random(n, 50_000));
    }
    world.meet(&[0, 1]);
    let before = world.real.chunks();
    world.users[0]
        .user_rename(&p("d"), &p("elsewhere"))
        .unwrap();
    world.meet(&[0, 1]);
    world.is_settled();
    assert_eq!(world.real.chunks(), before);
    assert!(world.text(1, "elsewhere/sub/3").is_some());
    let trash = world.real.hub().records(Book::Trash).unwrap();
    assert_eq!(trash, [], "it was taken apart and put together again");
    let history = world.real.hub().history(&p("elsewhere/sub/3")).unwrap();
    assert_eq!(history.len(), 1);
    assert_eq!(world.real.hub().history(&p("d/sub/3")).unwrap().len(), 2);
}

/// Nobody asked for it: a verification found it, and whoever has the content brings it again.
#[test]
fn what_decayed_on_the_hub_stays_decayed() {
    let world = World::new();
    let big = random(1, 500_000);
    world.write(0, "big", &big);
    world.write(0, "small", b"a few bytes");
    world.meet(&[0]);
    for (file, _) in world.real.chunks() {
        let mut bytes = fs::read(&file).unwrap();
        bytes[0] ^= 1;
        fs::write(&file, bytes).unwrap();
    }
    let hub = world.real.hub();
    let flaws = hub.verify(&|| false).unwrap().flaws;
    assert!(flaws.len() > 4, "{flaws:?}");
    world.meet(&[1]);
    assert_eq!((world.text(1, "big"), world.text(1, "small")), (None, None));
    world.meet(&[0]);
    world.meet(&[1]);
    world.is_settled();
    assert_eq!(world.text(1, "big"), Some(big));
    let history = world.real.hub().history(&p("small")).unwrap();
    assert_eq!(history.len(), 1, "nothing happened to it: {history:?}");
}

#[test]
fn a_hub_of_yesterday_undoes_what_happened_today() {
    let mut world = World::new();
    world.write(0, "edited", b"yesterday");
    world.write(0, "deleted", b"yesterday");
    world.write(0, "d/moved", b"yesterday");
    world.meet(&[0, 1]);
    world.real.hub().close().unwrap();
    world.real.kill();
    let yesterday = world.real.scratch.path().join("yesterday");
    copy(&world.real.home(), &yesterday);
    world.real.open();
    world.write(0, "edited", b"today");
    world.write(0, "new", b"today");
    world.users[0].user_remove(&p("deleted")).unwrap();
    world.users[0].user_rename(&p("d"), &p("e")).unwrap();
    world.meet(&[0, 1]);
    let today = world.trees();
    world.real.hub().close().unwrap();
    world.real.kill();
    for file in ["index.db", "contents.db"] {
        fs::copy(yesterday.join(file), world.real.home().join(file)).unwrap();
    }
    world.real.open();
    assert!(world.real.hub().is_rejoining());
    world.meet(&[0]);
    assert!(!world.real.hub().is_rejoining());
    world.meet(&[1]);
    assert_eq!(world.trees(), today);
    world.is_settled();
}

/// Its disk was lost with everything on it.
#[test]
fn a_new_hub_in_the_place_of_the_old_one_deletes_something() {
    let world = World::new();
    world.write(0, "d/x", b"one");
    world.write(1, "y", b"two");
    world.meet(&[0, 1]);
    let before = world.trees();
    let other = Real::new();
    let world = World {
        real: other,
        users: world.users,
    };
    world.meet(&[1]);
    world.meet(&[0]);
    assert_eq!(world.trees(), before);
    world.is_settled();
    let bytes = read(world.real.hub().as_ref(), b"one").unwrap();
    assert_eq!(bytes.unwrap(), b"one");
}

#[test]
fn a_version_of_the_past_does_not_come_back() {
    let world = World::new();
    world.write(0, "d/x", b"one");
    world.meet(&[0, 1]);
    world.write(1, "d/x", b"two");
    world.meet(&[0, 1]);
    let hub = world.real.hub();
    let first = hub.history(&p("d/x")).unwrap()[0].clone();
    hub.bring_back(&p("d/x"), first.dot).unwrap();
    assert!(hub.bring_back(&p("d"), first.dot).is_err());
    world.meet(&[0, 1]);
    assert_eq!(world.text(0, "d/x"), Some(b"one".to_vec()));
    world.is_settled();
    let history = world.real.hub().history(&p("d/x")).unwrap();
    assert_eq!(history.len(), 3);
    assert_eq!(history[2].dot.actor, world.real.hub().actor());
    world.users[0].user_remove(&p("d")).unwrap();
    world.meet(&[0, 1]);
    world
        .real
        .hub()
        .bring_back(&p("d/x"), history[1].dot)
        .unwrap();
    world.meet(&[0, 1]);
    assert_eq!(world.text(1, "d/x"), Some(b"two".to_vec()));
    world.is_settled();
}

#[test]
fn what_is_brought_back_on_the_hub_stays_there() {
    let world = World::new();
    world.write(0, "d/x", b"one");
    world.meet(&[0, 1]);
    world.users[0].user_remove(&p("d")).unwrap();
    world.meet(&[0, 1]);
    let hub = world.real.hub();
    let (key, _) = hub.records(Book::Trash).unwrap().pop().unwrap();
    let mut session = world.session(&[0, 1], false);
    let handle = session.handle();
    let asking = std::thread::spawn(move || {
        let (replica, to) = (0, None);
        let answer = handle.request(Command::Restore { replica, key, to });
        // Whatever follows from it has happened when this is answered.
        handle.request(Command::Rescan).unwrap();
        handle.stop();
        answer.unwrap()
    });
    session.run().unwrap();
    assert_eq!(asking.join().unwrap(), Answer::Done(1));
    world.meet(&[0, 1]);
    assert_eq!(world.text(0, "d/x"), Some(b"one".to_vec()));
    world.is_settled();
}
