//! Files and directories that want one name, under every policy: all replicas agree, and a session ends.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use instep_chunk::content_id;
use instep_core::conflict::{end_version, room_path};
use instep_core::entry::Entry;
use instep_core::id::{ActorId, ContentId, Dot, ShareId};
use instep_core::path::RelPath;
use instep_core::plan::Keep::Trash;
use instep_core::plan::{Action, Code, Goal, Outcome, Precondition};
use instep_core::policy::{Policies, Role};
use instep_core::reconcile::moved_out;
use instep_core::time::Mtime;
use instep_core::version::{Kind, Version};
use instep_engine::report::Silent;
use instep_engine::session::End;
use instep_engine::{Session, SessionOptions};
use instep_replica::content::{Bytes, NoSources};
use instep_replica::env::{Env, StepEnv};
use instep_replica::memory::{MemoryReplica, Object};
use instep_replica::records::PolicyRecord;
use instep_replica::{Book, Content, Replica, Sources, Waker};

/// Whoever waits lets time pass.
struct Clock(StepEnv, AtomicUsize);

impl Env for Clock {
    fn wall_ns(&self) -> i64 {
        self.0.wall_ns()
    }

    fn monotonic_ns(&self) -> u64 {
        self.0.monotonic_ns()
    }

    fn sleep_ms(&self, ms: u64) {
        self.0.sleep_ms(ms);
    }

    fn wait(&self, _: &Waker, timeout: Duration) {
        let waits = self.1.fetch_add(1, Ordering::Relaxed);
        assert!(waits < 10_000, "a session does not end");
        self.sleep_ms(timeout.as_millis() as u64);
    }

    fn random(&self) -> [u8; 16] {
        self.0.random()
    }

    fn workers(&self) -> usize {
        1
    }

    fn boot_id(&self) -> String {
        self.0.boot_id()
    }

    fn spawn(&self, _: &str, work: Box<dyn FnOnce() + Send>) {
        work();
    }
}

fn p(path: &str) -> RelPath {
    RelPath::new(path.as_bytes()).unwrap()
}

struct World {
    env: Arc<Clock>,
    replicas: Vec<Arc<MemoryReplica>>,
    policy: PolicyRecord,
    mirror: bool,
    dice: u64,
}

impl World {
    fn new(policy: PolicyRecord, seed: u64) -> Self {
        let env = Arc::new(Clock(StepEnv::new(seed), AtomicUsize::new(0)));
        let open = |label| {
            let env = env.clone() as Arc<dyn Env>;
            Arc::new(MemoryReplica::new(label, ShareId([1; 16]), env))
        };
        let replicas = ["A", "B", "C"].map(open);
        Self {
            policy: match policy {
                PolicyRecord::Prefer(_) => PolicyRecord::Prefer(replicas[0].id().to_string()),
                other => other,
            },
            replicas: replicas.into(),
            env,
            mirror: false,
            dice: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        }
    }

    /// A mirror whose source knows of a file that it has lost.
    fn mirror(lost: &RelPath) -> Self {
        let world = Self::new(PolicyRecord::Newest, 1);
        let new = |label| {
            let env = world.env.clone() as Arc<dyn Env>;
            MemoryReplica::new(label, ShareId([1; 16]), env)
        };
        let source = new("A");
        know(&source, lost, b"lost");
        Self {
            replicas: vec![
                Arc::new(source.with_role(Role::Source)),
                Arc::new(new("B").with_role(Role::Target)),
            ],
            mirror: true,
            ..world
        }
    }

    /// Xorshift64 (Marsaglia 2003).
    fn roll(&mut self, below: u64) -> usize {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        ((self.dice >> 11) % below) as usize
    }

    fn write(&self, i: usize, path: &str) {
        let text = format!("{path} by {i}");
        self.replicas[i]
            .user_write(&p(path), text.as_bytes())
            .unwrap();
    }

    fn sync(&self, who: &[usize]) -> End {
        let all = who
            .iter()
            .map(|i| self.replicas[*i].clone() as Arc<dyn Replica>);
        let options = SessionOptions {
            once: true,
            policy: Some(self.policy.clone()),
            mirror: self.mirror,
            ..SessionOptions::default()
        };
        let env: Arc<dyn Env> = self.env.clone();
        let began_ns = self.env.wall_ns();
        let mut session = Session::start(env, all.collect(), options, Box::new(Silent)).unwrap();
        let end = session.run().unwrap();
        let took_ms = (self.env.wall_ns() - began_ns) / 1_000_000;
        // Somebody who is not here may be the only one who has a content.
        let missing = end
            .problems
            .iter()
            .any(|(_, p)| p.code == Code::ContentMissing);
        assert!(
            took_ms < 10_000 || (missing && who.len() < 3),
            "it tried again and again for {took_ms} ms: {end:?}"
        );
        end
    }

    /// Files and links with what is in them, directories with nothing.
    fn tree(&self, i: usize) -> Vec<String> {
        let tree = self.replicas[i].tree();
        let line = |(path, object): (&RelPath, &Object)| match object {
            Object::Dir { .. } => format!("{path}/"),
            _ => format!("{path}: {}", String::from_utf8_lossy(object.bytes())),
        };
        tree.iter().map(line).collect()
    }

    fn edit(&mut self, step: u64) {
        const PATHS: [&str; 8] = ["d", "d/a", "d/e", "d/e/a", "e", "e/a", "e/d", "e/d/a"];
        let (who, path) = (self.roll(3), p(PATHS[self.roll(8)]));
        let replica = self.replicas[who].clone();
        self.env.sleep_ms(7);
        match self.roll(6) {
            0 => drop(replica.user_remove(&path)),
            1 | 2 => {
                let is_file = replica.tree().get(&path).is_some_and(|o| !o.is_dir());
                if is_file || self.roll(2) == 0 {
                    drop(replica.user_remove(&path));
                }
                drop(replica.user_mkdir(&path));
            }
            _ => {
                if replica.tree().get(&path).is_some_and(Object::is_dir) && self.roll(2) == 0 {
                    drop(replica.user_remove(&path));
                }
                drop(replica.user_write(&path, format!("step {step}").as_bytes()));
            }
        }
    }
}

/// The first of a world's replicas is preferred; its id is known when it is there.
fn prefer_a() -> PolicyRecord {
    PolicyRecord::Prefer(String::new())
}

#[test]
fn a_preferred_file_does_not_get_the_name_of_a_directory() {
    let world = World::new(prefer_a(), 1);
    world.write(0, "d");
    world.write(1, "d/x");
    world.write(1, "d/e/y");
    world.write(2, "z");
    let end = world.sync(&[0, 1, 2]);
    let tree = world.tree(0);
    let home = tree.iter().find(|l| l.starts_with("d.conflict-")).unwrap();
    let home = home.split([':', '/']).next().unwrap();
    let want = [
        "d: d by 0".to_owned(),
        format!("{home}/"),
        format!("{home}/e/"),
        format!("{home}/e/y: d/e/y by 1"),
        format!("{home}/x: d/x by 1"),
        "z: z by 2".to_owned(),
    ];
    for i in 0..3 {
        assert_eq!(world.tree(i), want, "on {i}");
    }
    assert_eq!(end.problems, []);
    // What has moved is where it is now: deleting the file does not bring it back to its old place.
    world.replicas[2].user_remove(&p("d")).unwrap();
    world.sync(&[0, 1, 2]);
    for i in 0..3 {
        assert_eq!(world.tree(i), want[1..], "on {i}");
    }
}

/// The directories that made room for a file, by the names of all of them.
fn rooms(tree: &[String]) -> BTreeSet<String> {
    let lines = tree.iter().filter(|l| l.starts_with("d.conflict-dir-"));
    lines
        .map(|l| l[..l.find(['/', ':']).unwrap()].to_owned())
        .collect()
}

#[test]
fn what_waits_for_a_person_vanishes_where_a_preferred_file_needs_room() {
    let mut world = World::new(prefer_a(), 1);
    world.write(1, "d/x");
    world.sync(&[1, 2]);
    let dot = Dot {
        actor: world.replicas[0].actor(),
        counter: 1000,
    };
    install(&world.replicas[0], &p("d"), b"preferred", dot);
    // What comes now falls under another policy, and what is there already does not.
    world.policy = PolicyRecord::Manual;
    world.write(1, "d/e/y");
    world.write(2, "d/e");
    for _ in 0..2 {
        world.sync(&[0, 1, 2]);
        assert_eq!(world.tree(0)[0], "d: preferred");
        let shows = |i, line: &str| world.tree(i).contains(&line.to_owned());
        assert!(shows(1, "d/e/y: d/e/y by 1"), "{:?}", world.tree(1));
        assert!(shows(2, "d/e: d/e by 2"), "{:?}", world.tree(2));
    }
    // As soon as nothing waits, there is room.
    world.replicas[2].user_remove(&p("d/e")).unwrap();
    world.sync(&[0, 1, 2]);
    let tree = world.tree(0);
    let room = rooms(&tree).pop_last().unwrap();
    let want = [
        "d: preferred".to_owned(),
        format!("{room}/"),
        format!("{room}/e/"),
        format!("{room}/e/y: d/e/y by 1"),
        format!("{room}/x: d/x by 1"),
    ];
    for i in 0..3 {
        assert_eq!(world.tree(i), want, "on {i}");
    }
}

#[test]
fn every_version_of_a_preferred_file_sends_a_directory_somewhere_else() {
    let world = World::new(prefer_a(), 1);
    world.write(0, "d");
    world.write(1, "d/x");
    world.write(2, "d/y");
    world.sync(&[0, 1]);
    world.replicas[0].user_write(&p("d"), b"again").unwrap();
    world.sync(&[0, 2]);
    world.sync(&[0, 1, 2]);
    for i in 0..3 {
        let tree = world.tree(i);
        let room = rooms(&tree).pop_last().unwrap();
        let want = [
            "d: again".to_owned(),
            format!("{room}/"),
            format!("{room}/x: d/x by 1"),
            format!("{room}/y: d/y by 2"),
        ];
        assert_eq!(tree, want, "on {i}");
    }
}

#[test]
fn a_directory_is_sent_where_the_copy_of_the_file_is_already() {
    let mut world = World::new(PolicyRecord::Newest, 1);
    world.write(0, "d");
    world.write(1, "d/x");
    world.sync(&[0, 1]);
    let copy = world.tree(0).pop().unwrap();
    assert!(copy.ends_with(": d by 0"), "{copy}");
    // The same file again, in a conflict under another policy.
    world.policy = PolicyRecord::Prefer(world.replicas[0].id().to_string());
    world.replicas[0].user_remove(&p("d")).unwrap();
    world.write(0, "d");
    world.write(1, "d/z");
    world.write(2, "d/y");
    world.sync(&[0, 1, 2]);
    for i in 0..3 {
        let tree = world.tree(i);
        let room = rooms(&tree).pop_last().unwrap();
        assert!(tree.contains(&"d: d by 0".to_owned()), "on {i}: {tree:?}");
        assert!(tree.contains(&copy), "on {i}: {tree:?}");
        for line in ["y: d/y by 2", "z: d/z by 1"] {
            assert!(tree.contains(&format!("{room}/{line}")), "on {i}: {tree:?}");
        }
    }
}

#[test]
fn an_old_conflict_is_decided_anew_when_another_policy_applies() {
    let mut world = World::new(PolicyRecord::Newest, 1);
    world.write(0, "d");
    world.write(1, "d/x");
    world.sync(&[0, 1]);
    let before = world.tree(0);
    world.policy = PolicyRecord::Prefer(world.replicas[0].id().to_string());
    world.write(2, "d/y");
    world.sync(&[0, 1, 2]);
    for i in 0..3 {
        let tree = world.tree(i);
        assert!(
            before.iter().all(|line| tree.contains(line)),
            "on {i}: {tree:?}"
        );
    }
}

#[test]
fn nothing_can_make_room_where_a_user_put_a_file() {
    let world = World::new(prefer_a(), 1);
    world.write(0, "d");
    world.write(1, "d/x");
    world.sync(&[0, 1]);
    let room = p(&rooms(&world.tree(0)).pop_last().unwrap());
    world.replicas[1].user_remove(&room).unwrap();
    world.replicas[1].user_write(&room, b"a file").unwrap();
    world.sync(&[0, 1]);
    world.write(2, "d/y");
    let end = world.sync(&[0, 1, 2]);
    assert_eq!((end.problems, end.summary.waiting), (Vec::new(), 0));
    for i in 0..3 {
        let tree = world.tree(i);
        let line = format!("{room}/y: d/y by 2");
        assert!(tree.contains(&line), "on {i}: {tree:?}");
        assert!(tree.iter().any(|l| l.ends_with(": a file")), "{tree:?}");
    }
}

/// Makes a replica know what another one knows of a path, and no more than that.
fn tell(from: &MemoryReplica, to: &MemoryReplica, path: &RelPath) {
    let entry = from.row(path).unwrap().unwrap().entry;
    let own = to.row(path).unwrap().unwrap_or_default();
    let before = own
        .present()
        .zip(own.print)
        .map_or(Precondition::Absent, |(v, print)| Precondition::Unchanged {
            kind: v.kind,
            print,
            content: v.content,
        });
    let action = Action {
        replica: 0,
        path: path.clone(),
        before,
        goal: Goal::Record,
        keep: Trash,
        entry: own.entry.merge(&entry),
        shown: own.shown,
    };
    let done = to.apply(&[action], &Given(b"")).unwrap();
    assert_eq!(done, [Outcome::Done]);
    to.write_record(instep_replica::Book::Share, "settled", None)
        .unwrap();
}

#[test]
fn a_file_waits_for_ever_for_room_that_a_lost_content_takes() {
    let world = World::new(prefer_a(), 1);
    world.sync(&[0, 1, 2]);
    world.write(2, "d/x");
    world.sync(&[2]);
    tell(&world.replicas[2], &world.replicas[1], &p("d/x"));
    world.write(0, "d");
    let end = world.sync(&[0, 1]);
    assert_eq!(world.tree(1)[0], "d: d by 0");
    let missing: BTreeSet<_> = end
        .problems
        .iter()
        .map(|(_, p)| (p.code, &p.path))
        .collect();
    let missing: Vec<_> = missing.into_iter().collect();
    let [(Code::ContentMissing, path)] = missing[..] else {
        panic!("one path lacks its content: {missing:?}")
    };
    assert!(path.to_string().starts_with("d.conflict-dir-"), "{path}");
    assert_eq!(end.summary.waiting, 1, "only for the content: {end:?}");
    // Whoever has the content brings it.
    assert_eq!(world.sync(&[0, 1, 2]).problems, []);
    for i in 0..3 {
        let line = format!("{path}: d/x by 2");
        assert_eq!(world.tree(i).last(), Some(&line), "on {i}");
    }
}

#[test]
fn a_file_waits_for_ever_for_room_in_which_a_lost_content_wins() {
    let world = World::new(prefer_a(), 1);
    world.sync(&[0, 1, 2]);
    world.write(0, "d");
    world.write(1, "d/x");
    world.sync(&[0, 1]);
    let here = world.tree(1);
    world.write(2, "d/x");
    world.sync(&[2]);
    tell(&world.replicas[2], &world.replicas[1], &p("d/x"));
    let end = world.sync(&[0, 1]);
    // What is there already is shown until the winner comes.
    for i in 0..2 {
        assert!(here.iter().all(|line| world.tree(i).contains(line)), "{i}");
    }
    let missing: BTreeSet<&RelPath> = end.problems.iter().map(|(_, p)| &p.path).collect();
    assert!(
        end.problems
            .iter()
            .all(|(_, p)| p.code == Code::ContentMissing)
    );
    assert_eq!((missing.len(), end.summary.waiting), (1, 1), "{end:?}");
    let end = world.sync(&[0, 1, 2]);
    assert_eq!((end.problems, end.summary.conflicts), (Vec::new(), 1));
    for i in 0..3 {
        let tree = world.tree(i);
        assert!(tree[2].ends_with("/x: d/x by 2"), "on {i}: {tree:?}");
    }
}

/// A content that was lost had gone to the room; what goes there now is older.
#[test]
fn a_file_waits_for_ever_for_room_in_which_something_newer_was_lost() {
    let world = World::new(prefer_a(), 1);
    let there = p(&format!("{}/x", room_path(&p("d")).unwrap()));
    let dot = Dot {
        actor: ActorId([7; 8]),
        counter: 1,
    };
    let newer = Version {
        te: i64::MAX,
        ..file(b"lost")
    };
    know_of(&world.replicas[1], &there, Entry::first(dot, newer));
    world.write(0, "d");
    world.write(1, "d/x");
    let end = world.sync(&[0, 1]);
    for i in 0..2 {
        let tree = world.tree(i);
        assert_eq!(tree[0], "d: d by 0", "on {i}: {end:?}");
        let line = format!("{there}: d/x by 1");
        assert!(tree.contains(&line), "on {i}: {tree:?}");
    }
    let missing: BTreeSet<&RelPath> = end.problems.iter().map(|(_, p)| &p.path).collect();
    assert_eq!(missing.into_iter().collect::<Vec<_>>(), [&there]);
    assert_eq!(end.summary.waiting, 1, "{end:?}");
}

/// A directory had made room before a file was found that others have under its name.
#[test]
fn what_lost_to_a_directory_that_made_room_already_is_thrown_away() {
    let world = World::new(prefer_a(), 1);
    world.write(0, "d");
    world.replicas[1].user_mkdir(&p("d/e")).unwrap();
    world.write(2, "d/e");
    (0..3).for_each(|i| drop(world.sync(&[i])));
    let dir = world.replicas[1].row(&p("d/e")).unwrap().unwrap().entry;
    let to = p(&format!("{}/e", room_path(&p("d")).unwrap()));
    let moved = moved_out(&p("d/e"), &to, &dir, &Policies::default());
    know_of(&world.replicas[0], &to, moved.unwrap().0);
    let end = world.sync(&[0, 1, 2]);
    assert_eq!(end.problems, []);
    for i in 0..3 {
        let tree = world.tree(i);
        let kept = tree.iter().filter(|line| line.ends_with(": d/e by 2"));
        assert_eq!(kept.count(), 1, "on {i}: {tree:?}");
        assert_eq!(tree[0], "d: d by 0");
    }
}

/// As before, but nobody has the file's content any more.
#[test]
fn a_file_waits_for_ever_for_a_directory_to_which_a_lost_content_lost() {
    let world = World::new(prefer_a(), 1);
    world.write(0, "d");
    world.replicas[1].user_mkdir(&p("d/e")).unwrap();
    world.sync(&[1]);
    know(&world.replicas[0], &p("d/e"), b"lost");
    let end = world.sync(&[0, 1]);
    for i in 0..2 {
        assert_eq!(world.tree(i)[0], "d: d by 0", "on {i}: {end:?}");
    }
    assert_eq!(end.summary.waiting, 1, "{end:?}");
}

#[test]
fn what_stood_for_a_file_stays_because_somebody_could_not_be_read() {
    let world = World::new(PolicyRecord::Newest, 1);
    world.replicas[0].user_mkdir(&p("d")).unwrap();
    world.sync(&[0, 1, 2]);
    let entry = world.replicas[0].row(&p("d")).unwrap().unwrap().entry;
    let (_, version) = &entry.siblings()[0];
    let dot = Dot {
        actor: ActorId([7; 8]),
        counter: 1,
    };
    let gone = entry.record(dot, end_version(version, &p("e")));
    for i in 0..3 {
        let row = world.replicas[i].row(&p("d")).unwrap().unwrap();
        let before = Precondition::Unchanged {
            kind: Kind::Dir,
            print: row.print.unwrap(),
            content: ContentId::NONE,
        };
        let stands = Action {
            replica: 0,
            path: p("d"),
            before,
            goal: Goal::Record,
            keep: Trash,
            entry: gone.clone(),
            shown: None,
        };
        let done = world.replicas[i].apply(&[stands], &Given(b"")).unwrap();
        assert_eq!(done, [Outcome::Done]);
        world.replicas[i]
            .write_record(Book::Share, "settled", None)
            .unwrap();
    }
    world.sync(&[0, 1, 2]);
    for i in 0..3 {
        assert_eq!(world.tree(i), [""; 0], "on {i}");
    }
}

#[test]
fn who_died_before_a_file_took_the_name_of_a_directory_keeps_the_directory() {
    let world = World::new(prefer_a(), 1);
    world.write(0, "d");
    world.replicas[1].user_mkdir(&p("d")).unwrap();
    world.sync(&[0]);
    world.sync(&[1]);
    tell(&world.replicas[0], &world.replicas[1], &p("d"));
    tell(&world.replicas[1], &world.replicas[0], &p("d"));
    world.sync(&[0, 1]);
    assert_eq!(world.tree(1), world.tree(0));
    assert_eq!(world.tree(1)[0], "d: d by 0");
}

/// The winner of a conflict was deleted by somebody who knew of nothing else. The loser is at its path again,
/// and who wrote it is not here; but its copy beside the path is.
#[test]
fn a_loser_that_comes_back_is_missing_although_its_copy_is_here() {
    let world = World::new(PolicyRecord::Newest, 1);
    world.write(1, "d");
    world.write(2, "d/x");
    world.sync(&[0, 2]);
    world.replicas[2].user_remove(&p("d")).unwrap();
    world.sync(&[0, 1]);
    world.sync(&[0, 2]);
    let text = |i: usize| world.replicas[i].user_read(&p("d")).unwrap();
    assert_eq!((text(0), text(2)), (b"d by 1".to_vec(), b"d by 1".to_vec()));
}

#[test]
fn what_is_below_a_name_that_something_else_has_is_tried_for_ever() {
    let world = World::new(PolicyRecord::Newest, 1);
    world.write(0, "d/x");
    world.write(0, "a");
    world.replicas[1].user_special(&p("d")).unwrap();
    let end = world.sync(&[0, 1, 2]);
    assert_eq!(world.tree(1)[0], "a: a by 0");
    assert!(world.tree(2).contains(&"d/x: d/x by 0".to_owned()));
    let problems: Vec<_> = end
        .problems
        .iter()
        .map(|(i, p)| (*i, p.path.to_string()))
        .collect();
    assert_eq!(problems, [(1, "d".to_owned())]);
    world.replicas[1].user_remove(&p("d")).unwrap();
    let end = world.sync(&[0, 1, 2]);
    assert_eq!(end.problems, []);
    assert_eq!(world.tree(1), world.tree(0));
}

#[test]
fn a_person_is_asked_and_what_is_below_is_tried_for_ever() {
    let world = World::new(PolicyRecord::Manual, 1);
    world.write(0, "d");
    world.write(1, "d/x");
    world.write(2, "a");
    world.sync(&[0, 1, 2]);
    assert_eq!(world.tree(0), ["a: a by 2", "d: d by 0"]);
    assert_eq!(world.tree(1), ["a: a by 2", "d/", "d/x: d/x by 1"]);
    assert_eq!(world.tree(2), ["a: a by 2"]);
    // A user's decision: the directory.
    world.replicas[0].user_remove(&p("d")).unwrap();
    world.sync(&[0, 1, 2]);
    world.write(1, "d/y");
    world.sync(&[0, 1, 2]);
    for i in 0..3 {
        assert_eq!(
            world.tree(i),
            ["a: a by 2", "d/", "d/x: d/x by 1", "d/y: d/y by 1"],
            "on {i}"
        );
    }
}

#[test]
fn a_directory_is_moved_with_what_another_replica_shows_below_it() {
    let world = World::new(PolicyRecord::Manual, 1);
    world.write(0, "d/x");
    world.write(1, "d/x");
    world.sync(&[0, 1]);
    assert_ne!(world.tree(0), world.tree(1));
    world.replicas[1].user_rename(&p("d"), &p("e")).unwrap();
    world.sync(&[0, 1]);
    assert_eq!(world.tree(0), ["e/", "e/x: d/x by 1"]);
    assert_eq!(world.tree(1), world.tree(0));
}

/// The mode comes from whoever changed it last, also where the content comes by a rename.
#[test]
fn a_file_that_moved_where_another_mode_is_newer_differs_in_its_mode() {
    let world = World::new(PolicyRecord::Newest, 1);
    world.write(0, "old");
    world.write(0, "new");
    world.sync(&[0, 1, 2]);
    world.env.sleep_ms(1000);
    for i in [1, 2] {
        world.replicas[i].user_remove(&p("new")).unwrap();
    }
    world.replicas[1].user_rename(&p("old"), &p("new")).unwrap();
    world.sync(&[1]);
    world.env.sleep_ms(1000);
    world.replicas[0].user_chmod(&p("new"), 0o700).unwrap();
    world.sync(&[0, 1]);
    world.sync(&[0, 1, 2]);
    for i in 0..3 {
        let tree = world.replicas[i].tree();
        assert_eq!(world.tree(i), ["new: old by 0"], "on {i}");
        let Object::File { mode, .. } = tree[&p("new")] else {
            panic!("no file on {i}")
        };
        assert_eq!(mode, 0o700, "on {i}");
    }
}

/// Has the bytes that anybody wants.
struct Given(&'static [u8]);

impl Sources for Given {
    fn open(&self, _: &Action, _: ContentId) -> Option<Box<dyn Content>> {
        Some(Box::new(Bytes(self.0.to_vec())))
    }
}

fn file(bytes: &[u8]) -> Version {
    Version {
        content: content_id(bytes),
        size: bytes.len() as u64,
        mode: 0o644,
        mtime: Mtime::from_nanos(1),
        te: 1,
        mode_te: 1,
        ..Version::bare(Kind::File)
    }
}

/// Makes a replica know of a file without having it.
fn know(replica: &MemoryReplica, path: &RelPath, bytes: &[u8]) {
    let dot = Dot {
        actor: ActorId([7; 8]),
        counter: 1,
    };
    know_of(replica, path, Entry::first(dot, file(bytes)));
}

fn know_of(replica: &MemoryReplica, path: &RelPath, entry: Entry) {
    let known = Action {
        replica: 0,
        path: path.clone(),
        before: Precondition::Absent,
        goal: Goal::Record,
        keep: Trash,
        entry,
        shown: None,
    };
    let done = replica.apply(&[known], &Given(b"")).unwrap();
    assert_eq!(done, [Outcome::Done]);
}

#[test]
fn an_empty_file_that_nobody_has_any_more_is_missing() {
    let world = World::new(PolicyRecord::Newest, 1);
    know(&world.replicas[0], &p("x"), b"");
    let end = world.sync(&[0, 1, 2]);
    assert_eq!(end.problems, []);
    for i in 0..3 {
        assert_eq!(world.tree(i), ["x: "], "on {i}");
    }
}

/// Makes a replica have a file under a dot that somebody else chose.
fn install(replica: &MemoryReplica, path: &RelPath, bytes: &'static [u8], dot: Dot) {
    let version = file(bytes);
    let action = Action {
        replica: 0,
        path: path.clone(),
        before: Precondition::Absent,
        goal: Goal::File {
            content: version.content,
            size: version.size,
            mode: version.mode,
            mtime: version.mtime,
        },
        keep: Trash,
        entry: Entry::first(dot, version),
        shown: Some(dot),
    };
    let done = replica.apply(&[action], &Given(bytes)).unwrap();
    assert_eq!(done, [Outcome::Done]);
}

#[test]
fn a_directory_that_only_stood_for_a_file_stays_where_the_file_was_deleted() {
    let world = World::new(PolicyRecord::Newest, 1);
    let dot = Dot {
        actor: ActorId([7; 8]),
        counter: 1,
    };
    install(&world.replicas[1], &p("d/e/x"), b"x", dot);
    world.sync(&[0, 1]);
    assert_eq!(world.tree(0), ["d/", "d/e/", "d/e/x: x"]);
    world.replicas[1].user_remove(&p("d/e/x")).unwrap();
    world.sync(&[0, 1]);
    for i in 0..2 {
        assert_eq!(world.tree(i), [""; 0], "on {i}");
    }
}

#[test]
fn a_directory_that_only_stood_for_another_stays_where_that_moved_away() {
    let world = World::new(PolicyRecord::Newest, 1);
    for path in ["d", "d/e", "h"] {
        world.replicas[0].user_mkdir(&p(path)).unwrap();
    }
    world.sync(&[0, 1, 2]);
    world.replicas[0].user_remove(&p("d")).unwrap();
    world.sync(&[0]);
    world.replicas[1].user_mkdir(&p("d/e/g")).unwrap();
    world.sync(&[0, 1, 2]);
    assert_eq!(world.tree(0), ["d/", "d/e/", "d/e/g/", "h/"]);
    world.replicas[1]
        .user_rename(&p("d/e/g"), &p("h/g"))
        .unwrap();
    world.sync(&[0, 1, 2]);
    for i in 0..3 {
        assert_eq!(world.tree(i), ["h/", "h/g/"], "on {i}");
    }
}

#[test]
fn a_copy_that_a_mirror_shows_beside_a_path_is_taken_for_an_extra() {
    // It has another file above the one that it lost.
    let world = World::mirror(&p("d/x"));
    world.write(0, "d");
    world.replicas[1].user_mkdir(&p("d")).unwrap();
    world.sync(&[0, 1]);
    let tree = world.tree(1);
    let is_copy = |l: &String| l.starts_with("d.conflict-") && l.ends_with(": d by 0");
    assert!(tree.iter().any(is_copy), "{tree:?}");
    world.replicas[1]
        .user_write(&p("d.conflict-mine"), b"an extra")
        .unwrap();
    world.sync(&[0, 1]);
    assert_eq!(world.sync(&[0, 1]).summary.changes, 0);
    assert_eq!(world.tree(1), tree);
}

/// Both contents of a conflict were lost, of which one is to be shown beside the other. What takes the place of
/// a directory is tried last, so that the copy is due before it. Returns the name of the copy.
fn lose_a_file_and_its_copy(world: &World) -> RelPath {
    world.replicas[0].user_mkdir(&p("x")).unwrap();
    world.sync(&[0]);
    let dir = world.replicas[0].row(&p("x")).unwrap().unwrap().entry;
    let by = |actor: u8, bytes: &[u8]| {
        let dot = Dot {
            actor: ActorId([actor; 8]),
            counter: 1,
        };
        let version = Version {
            policy_epoch: 1,
            ..file(bytes)
        };
        dir.record(dot, version)
    };
    let entry = by(7, b"one").merge(&by(8, b"two"));
    know_of(&world.replicas[1], &p("x"), entry);
    let end = world.sync(&[0, 1]);
    let missing: BTreeSet<&RelPath> = end.problems.iter().map(|(_, p)| &p.path).collect();
    assert_eq!((missing.len(), end.problems.len()), (2, 4), "{end:?}");
    assert_eq!(end.summary.waiting, 2, "{end:?}");
    missing
        .into_iter()
        .find(|at| **at != p("x"))
        .unwrap()
        .clone()
}

#[test]
fn a_lost_copy_of_a_lost_file_is_tried_for_ever() {
    let copy = lose_a_file_and_its_copy(&World::new(PolicyRecord::KeepBoth, 1));
    // Now somebody had another file of that name, and deleted it.
    let world = World::new(PolicyRecord::KeepBoth, 1);
    world.replicas[1].user_write(&copy, b"mine").unwrap();
    world.sync(&[1]);
    world.replicas[1].user_remove(&copy).unwrap();
    world.sync(&[1]);
    assert_eq!(lose_a_file_and_its_copy(&world), copy);
}

#[test]
fn one_of_two_contents_that_claim_one_dot_is_lost_without_an_alarm() {
    let world = World::new(PolicyRecord::Newest, 1);
    let dot = Dot {
        actor: world.replicas[0].actor(),
        counter: 9000,
    };
    install(&world.replicas[0], &p("x"), b"one", dot);
    install(&world.replicas[1], &p("x"), b"two", dot);
    let end = world.sync(&[0, 1, 2]);
    let codes: Vec<_> = end.problems.iter().map(|(_, p)| p.code).collect();
    assert_eq!(codes, [Code::DotReused]);
    assert_eq!(end.summary.conflicts, 1);
    assert_eq!(world.tree(2), ["x: two"]);
    let kept = world.replicas[0].open(&p("x"), content_id(b"one")).unwrap();
    assert!(kept.is_some());
}

/// Two replicas have "one" and "two" at `x`, and each says that it has seen, and superseded, what the other has.
fn contradict(one: &MemoryReplica, two: &MemoryReplica) {
    let dot = |r: &MemoryReplica| Dot {
        actor: r.actor(),
        counter: 9000,
    };
    for (replica, text) in [(one, b"one"), (two, b"two")] {
        install(replica, &p("x"), text, dot(replica));
        let row = replica.row(&p("x")).unwrap().unwrap();
        let ctx = [dot(one), dot(two)].into_iter().collect();
        let entry = Entry::from_parts(ctx, row.entry.siblings().to_vec()).unwrap();
        let action = Action {
            replica: 0,
            path: p("x"),
            before: Precondition::Unchanged {
                kind: Kind::File,
                print: row.print.unwrap(),
                content: content_id(text),
            },
            goal: Goal::Record,
            keep: Trash,
            entry,
            shown: row.shown,
        };
        let done = replica.apply(&[action], &NoSources).unwrap();
        assert_eq!(done, [Outcome::Done]);
    }
}

#[test]
fn two_histories_that_contradict_each_other_are_merged_without_an_alarm() {
    let world = World::new(PolicyRecord::Newest, 1);
    contradict(&world.replicas[0], &world.replicas[1]);
    let end = world.sync(&[0, 1, 2]);
    let codes: Vec<_> = end.problems.iter().map(|(_, p)| p.code).collect();
    assert_eq!(codes, [Code::Contradiction]);
    for text in ["one", "two"] {
        let content = content_id(text.as_bytes());
        let kept = (0..3).any(|i| world.replicas[i].open(&p("x"), content).unwrap().is_some());
        assert!(kept, "{text}");
    }
}

#[test]
fn what_a_mirrors_targets_had_of_their_own_alarms_a_person() {
    let world = World::new(PolicyRecord::Newest, 1);
    let roles = [
        ("A", Role::Source),
        ("B", Role::Target),
        ("C", Role::Target),
    ];
    let replicas = roles.map(|(label, role)| {
        let env = world.env.clone() as Arc<dyn Env>;
        MemoryReplica::new(label, ShareId([1; 16]), env)
            .with_role(role)
            .into()
    });
    let world = World {
        replicas: replicas.into(),
        mirror: true,
        ..world
    };
    world.write(0, "x");
    contradict(&world.replicas[1], &world.replicas[2]);
    let end = world.sync(&[0, 1, 2]);
    let mut codes = end.problems.iter().map(|(_, p)| p.code);
    assert!(codes.all(|c| c != Code::Contradiction));
    for i in [1, 2] {
        assert_eq!(world.replicas[i].user_read(&p("x")).unwrap(), b"x by 0");
    }
}

fn run(policy: &PolicyRecord) {
    for seed in 1..=60 {
        let mut world = World::new(policy.clone(), seed);
        for step in 0..14 {
            world.edit(step);
            if world.roll(5) == 0 {
                let pairs = [[0, 1], [1, 2], [0, 2]];
                let pair = pairs[world.roll(3)];
                world.sync(&pair);
            }
        }
        let end = world.sync(&[0, 1, 2]);
        assert_eq!(end.problems, [], "seed {seed}");
        let trees: BTreeSet<_> = (0..3).map(|i| world.tree(i)).collect();
        let can_differ = *policy == PolicyRecord::Manual;
        assert!(can_differ || trees.len() == 1, "seed {seed}: {trees:#?}");
    }
}

#[test]
fn replicas_differ_under_newest() {
    run(&PolicyRecord::Newest);
}

#[test]
fn replicas_differ_under_keep_both() {
    run(&PolicyRecord::KeepBoth);
}

#[test]
fn replicas_differ_under_prefer() {
    run(&prefer_a());
}

#[test]
fn a_session_under_manual_does_not_end() {
    run(&PolicyRecord::Manual);
}
