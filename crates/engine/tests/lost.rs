//! A power cut took a version's bytes from everybody, and what is known of it is still there.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use instep_chunk::content_id;
use instep_core::conflict;
use instep_core::entry::Entry;
use instep_core::id::{ContentId, Dot, ShareId};
use instep_core::path::RelPath;
use instep_core::plan::{Action, Code, Goal, Keep, Outcome, Precondition};
use instep_core::row::Row;
use instep_core::version::{Kind, Version};
use instep_engine::report::{Event, Monitor, State};
use instep_engine::session::End;
use instep_engine::{Session, SessionOptions};
use instep_replica::content::{Content, NoSources, Sources};
use instep_replica::env::{Env, StepEnv};
use instep_replica::memory::MemoryReplica;
use instep_replica::{Book, Finding, Found, Look, Replica, Result, Scope, Waker};

fn p(path: &str) -> RelPath {
    RelPath::new(path.as_bytes()).unwrap()
}

/// Whoever waits lets time pass.
#[derive(Default)]
struct Clock(StepEnv);

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

/// Counts what a person is told.
struct Notices(Arc<Mutex<Vec<u16>>>);

impl Monitor for Notices {
    fn event(&mut self, event: Event) {
        if let Event::Notice { code, .. } = event {
            self.0.lock().unwrap().push(code);
        }
    }
}

/// Its user takes "f" away: before it is looked at, and then that takes a while to settle; or when somebody asks for
/// what is lost.
struct Emptied {
    inner: Arc<MemoryReplica>,
    env: Arc<Clock>,
    settled_ns: u64,
    asked: AtomicBool,
}

impl Replica for Emptied {
    instep_replica::hand_on!(
        inner:
        id actor share describe capabilities guard watch take_hints record row
        children subtree stage is_staged adopt_move mint restore purge barrier
        read_record write_record
    );

    fn look(&self, scope: &Scope) -> Result<Look> {
        let mut look = self.inner.look(scope)?;
        if self.env.monotonic_ns() < self.settled_ns {
            let gone = |f: &Finding| matches!(f.found, Found::Absent { .. });
            let (gone, found) = look.findings.into_iter().partition(gone);
            look.findings = found;
            let gone: Vec<Finding> = gone;
            look.again.extend(gone.into_iter().map(|f| (f.path, 300)));
        }
        Ok(look)
    }
    fn open(&self, path: &RelPath, content: ContentId) -> Result<Option<Box<dyn Content>>> {
        let is_lost = content == content_id(b"second");
        if is_lost && !self.asked.swap(true, Ordering::SeqCst) {
            self.inner.user_remove(&p("f")).unwrap();
        }
        self.inner.open(path, content)
    }
    fn apply(&self, actions: &[Action], sources: &dyn Sources) -> Result<Vec<Outcome>> {
        self.inner.apply(actions, sources)
    }
    fn rename(&self, from: &RelPath, to: &RelPath) -> Result<Outcome> {
        Replica::rename(&*self.inner, from, to)
    }
    fn records(&self, book: Book) -> Result<Vec<(String, String)>> {
        self.inner.records(book)
    }
}

struct World {
    env: Arc<Clock>,
    replicas: Vec<Arc<MemoryReplica>>,
    told: Arc<Mutex<Vec<u16>>>,
}

impl World {
    /// Replicas with "first" at `f`.
    fn new(count: usize) -> Self {
        let env = Arc::new(Clock::default());
        let label = |i: usize| ["A", "B", "C"][i];
        let open =
            |i| MemoryReplica::new(label(i), ShareId([1; 16]), env.clone() as Arc<dyn Env>).into();
        let replicas: Vec<Arc<MemoryReplica>> = (0..count).map(open).collect();
        let told = Arc::default();
        let world = Self {
            env,
            replicas,
            told,
        };
        world.write(0, "f", "first");
        world.sync(&(0..count).collect::<Vec<_>>());
        world
    }

    fn write(&self, i: usize, path: &str, text: &str) {
        self.env.sleep_ms(7);
        let written = self.replicas[i].user_write(&p(path), text.as_bytes());
        written.unwrap();
    }

    fn texts(&self, path: &str) -> Vec<Option<String>> {
        let read = |r: &Arc<MemoryReplica>| r.user_read(&p(path)).ok();
        let all = self.replicas.iter().map(read);
        all.map(|b| b.map(|b| String::from_utf8_lossy(&b).into_owned()))
            .collect()
    }

    fn sync(&self, who: &[usize]) -> End {
        let all = who.iter().map(|i| self.replicas[*i].clone() as _);
        self.bring_together(all.collect())
    }

    fn bring_together(&self, all: Vec<Arc<dyn Replica>>) -> End {
        let options = SessionOptions {
            once: true,
            ..SessionOptions::default()
        };
        let env: Arc<dyn Env> = self.env.clone();
        let told = Box::new(Notices(self.told.clone()));
        let mut session = Session::start(env, all, options, told).unwrap();
        session.run().unwrap()
    }

    fn told(&self) -> Vec<u16> {
        std::mem::take(&mut *self.told.lock().unwrap())
    }

    fn row(&self, i: usize, path: &str) -> Row {
        self.replicas[i].row(&p(path)).unwrap().unwrap_or_default()
    }

    /// What recovery makes of a row whose version a power cut took: what came before it is still on disk.
    fn learns(&self, i: usize, path: &str, dot: Dot, lost: Version) {
        let row = self.row(i, path);
        let known = row.entry.merge(&Entry::first(dot, lost.clone()));
        let known = known.record(dot, lost);
        let (entry, shown) = match row.present() {
            None => (known, None),
            Some(there) => {
                let file = Version {
                    te: 0,
                    mode_te: 0,
                    prev: Vec::new(),
                    ..there.clone()
                };
                let (entry, shown) = known.with_ancestor(dot, file);
                (entry, Some(shown))
            }
        };
        self.knows(i, path, entry, shown);
    }

    /// The row tells something else of what is on disk.
    fn knows(&self, i: usize, path: &str, entry: Entry, shown: Option<Dot>) {
        let row = self.row(i, path);
        let before = match row.present() {
            None => Precondition::Absent,
            Some(there) => Precondition::Unchanged {
                kind: there.kind,
                print: row.print.unwrap(),
                content: there.content,
            },
        };
        let action = Action {
            replica: i,
            path: p(path),
            before,
            goal: Goal::Record,
            keep: Keep::Trash,
            entry,
            shown,
        };
        let done = self.replicas[i].apply(&[action], &NoSources).unwrap();
        assert_eq!(done, [Outcome::Done]);
        self.replicas[i]
            .write_record(Book::Share, "settled", None)
            .unwrap();
    }

    /// What recovery makes of a file that nobody knew of and that is empty.
    fn doubts(&self, i: usize, path: &str) {
        let row = self.row(i, path);
        let doubted = Version {
            te: 0,
            mode_te: 0,
            ..row.present().unwrap().clone()
        };
        let entry = Entry::first(row.shown.unwrap(), doubted);
        self.knows(i, path, entry, row.shown);
    }

    /// A knows of a version of its own whose bytes are nowhere.
    fn loses(&self, path: &str, text: &str) {
        let was = self.row(0, path);
        let actor = self.replicas[0].actor();
        let te = self.env.wall_ns();
        let lost = Version {
            content: content_id(text.as_bytes()),
            size: text.len() as u64,
            mode: 0o644,
            mtime: instep_core::time::Mtime::from_nanos(te),
            te,
            mode_te: te,
            prev: was.present().map(|v| v.content).into_iter().collect(),
            ..Version::bare(Kind::File)
        };
        let counter = self.replicas[0].mint().unwrap().counter;
        self.learns(0, path, Dot { actor, counter }, lost);
    }

    /// A and B know of what C wrote, and C is not there.
    fn only_c_has_the_second(&self) {
        self.write(2, "f", "second");
        self.sync(&[2]);
        let theirs = self.row(2, "f");
        let (dot, version) = theirs.entry.siblings()[0].clone();
        self.learns(0, "f", dot, version);
    }
}

fn all(text: Option<&str>, count: usize) -> Vec<Option<String>> {
    vec![text.map(str::to_owned); count]
}

#[test]
fn what_everybody_still_has_vanishes_for_a_version_that_nobody_has() {
    let world = World::new(3);
    world.loses("f", "second");
    let began_ns = world.env.wall_ns();
    let end = world.sync(&[0, 1, 2]);
    let took_ms = (world.env.wall_ns() - began_ns) / 1_000_000;
    assert_eq!((end.problems, end.state), (vec![], State::InSync));
    assert_eq!(world.texts("f"), all(Some("first"), 3));
    assert_eq!(world.told(), [2121]);
    assert!(took_ms < 1000, "it was tried for {took_ms} ms");
    for i in 0..3 {
        let entry = world.row(i, "f").entry;
        assert_eq!(entry, world.row(0, "f").entry);
        assert!(entry.siblings().iter().all(|(d, _)| d.counter > 0));
    }
    let again = world.sync(&[0, 1, 2]);
    assert_eq!((again.summary.changes, world.told()), (0, vec![]));
    world.write(1, "f", "third");
    world.sync(&[0, 1, 2]);
    assert_eq!(world.texts("f"), all(Some("third"), 3));
    let conflicts = world.replicas[0].records(Book::Conflicts).unwrap();
    assert!(conflicts.is_empty(), "{conflicts:?}");
}

#[test]
fn what_a_user_has_just_taken_away_is_brought_back_for_a_version_that_nobody_has() {
    for is_looked_at in [true, false] {
        let world = World::new(3);
        world.loses("f", "second");
        if is_looked_at {
            world.replicas[1].user_remove(&p("f")).unwrap();
        }
        let emptied = Emptied {
            inner: world.replicas[1].clone(),
            env: world.env.clone(),
            settled_ns: world.env.monotonic_ns() + 300_000_000 * u64::from(is_looked_at),
            asked: AtomicBool::new(is_looked_at),
        };
        let others = [0, 2].map(|i: usize| world.replicas[i].clone() as Arc<dyn Replica>);
        let [a, c] = others;
        let end = world.bring_together(vec![a, Arc::new(emptied), c]);
        assert_eq!((end.problems, end.state), (vec![], State::InSync));
        assert_eq!(world.texts("f"), all(None, 3), "looked at: {is_looked_at}");
        assert_eq!(world.told(), [2121]);
    }
}

#[test]
fn what_a_power_cut_left_empty_becomes_the_newest_that_a_user_wrote() {
    let world = World::new(2);
    world.write(1, "new", "");
    world.sync(&[1]);
    world.doubts(1, "new");
    world.loses("new", "never written out");
    let end = world.sync(&[0, 1]);
    assert_eq!((end.problems, end.state), (vec![], State::InSync));
    assert_eq!(world.told(), [2121]);
    for i in 0..2 {
        let entry = world.row(i, "new").entry;
        assert!(entry.siblings().iter().all(|(_, v)| v.te == 0), "{entry:?}");
    }
    world.write(0, "new", "saved again");
    world.sync(&[0, 1]);
    assert_eq!(world.texts("new"), all(Some("saved again"), 2));
}

#[test]
fn a_path_of_which_nothing_is_left_is_missed_for_ever() {
    let world = World::new(2);
    world.loses("new", "never written out");
    let end = world.sync(&[0, 1]);
    assert_eq!((end.problems, end.state), (vec![], State::InSync));
    assert_eq!(world.told(), [2121]);
    assert_eq!(world.texts("new"), all(None, 2));
    world.write(1, "new", "saved again");
    world.sync(&[0, 1]);
    assert_eq!(world.texts("new"), all(Some("saved again"), 2));
}

#[test]
fn a_version_is_given_up_while_the_one_who_has_it_is_away() {
    let world = World::new(3);
    world.only_c_has_the_second();
    let end = world.sync(&[0, 1]);
    let codes: Vec<Code> = end.problems.iter().map(|(_, q)| q.code).collect();
    assert_eq!(codes, [Code::ContentMissing; 2]);
    assert!(world.told().is_empty());
    assert_eq!(world.texts("f")[..2], all(Some("first"), 2));
    assert_eq!(world.sync(&[0, 1, 2]).problems, []);
    assert_eq!(world.texts("f"), all(Some("second"), 3));
}

#[test]
fn a_save_over_what_is_left_supersedes_a_version_that_its_user_never_saw() {
    for delete in [false, true] {
        let world = World::new(3);
        world.only_c_has_the_second();
        if delete {
            world.replicas[0].user_remove(&p("f")).unwrap();
        } else {
            world.write(0, "f", "third");
        }
        world.sync(&[0]);
        let entry = world.row(0, "f").entry;
        assert_eq!(entry.siblings().len(), 2, "{entry:?}");
        world.sync(&[0, 1, 2]);
        let shown = if delete { "second" } else { "third" };
        assert_eq!(world.texts("f"), all(Some(shown), 3));
        let second = content_id(b"second");
        let kept = world.replicas[2].open(&p("f"), second).unwrap();
        assert!(kept.is_some(), "the version of C is lost");
        let conflicts = world.replicas[0].records(Book::Conflicts).unwrap();
        assert_eq!(conflicts.len(), usize::from(!delete));
    }
}

fn made(world: &World, kind: Kind, content: ContentId) -> Version {
    Version {
        content,
        mode: 0o755,
        te: world.env.wall_ns(),
        ..Version::bare(kind)
    }
}

#[test]
fn the_copy_of_a_loser_that_nobody_has_is_missed_for_ever() {
    let world = World::new(2);
    let dots = [0, 1].map(|i: usize| world.replicas[i].mint().unwrap());
    let loser = Version {
        size: 4,
        ..made(&world, Kind::File, content_id(b"lost"))
    };
    let dir = made(&world, Kind::Dir, ContentId::NONE);
    let copy = conflict::copy_path(&p("both"), dots[1], &loser).unwrap();
    let both = Entry::first(dots[0], dir).merge(&Entry::first(dots[1], loser));
    world.knows(0, "both", both, None);
    let end = world.sync(&[0, 1]);
    assert_eq!((end.problems, end.state), (vec![], State::InSync));
    assert_eq!(world.told(), [2121]);
    for i in 0..2 {
        assert!(world.row(i, "both").present().is_some());
        assert!(world.row(i, &copy.to_string()).present().is_none());
    }
    assert_eq!(world.sync(&[0, 1]).summary.changes, 0);
    assert!(world.told().is_empty());
}

#[test]
fn the_copy_of_a_loser_is_given_up_while_the_one_who_has_it_is_away() {
    let world = World::new(3);
    world.write(2, "both", "theirs");
    world.sync(&[2]);
    let dot = world.replicas[0].mint().unwrap();
    let dir = made(&world, Kind::Dir, ContentId::NONE);
    let theirs = world.row(2, "both").entry;
    let (loser, version) = theirs.siblings()[0].clone();
    let copy = conflict::copy_path(&p("both"), loser, &version).unwrap();
    let both = Entry::first(dot, dir).merge(&theirs);
    world.knows(0, "both", both, None);
    let end = world.sync(&[0, 1]);
    let codes: Vec<Code> = end.problems.iter().map(|(_, q)| q.code).collect();
    assert_eq!(codes, [Code::ContentMissing; 2]);
    assert!(world.told().is_empty());
    assert_eq!(world.sync(&[0, 1, 2]).problems, []);
    assert_eq!(world.texts(&copy.to_string()), all(Some("theirs"), 3));
}

#[test]
fn what_is_known_below_a_file_is_missed_for_ever() {
    let world = World::new(2);
    let dir = made(&world, Kind::Dir, ContentId::NONE);
    let dot = world.replicas[0].mint().unwrap();
    // Of what was a directory, a power cut left the file that was there before, and the row of what was in it.
    world.learns(0, "f/inside", dot, dir);
    let end = world.sync(&[0, 1]);
    assert_eq!((end.problems, end.state), (vec![], State::InSync));
    for replica in &world.replicas {
        let here = |path: &RelPath| replica.row(path).unwrap().unwrap_or_default();
        assert!(here(&p("f/inside")).present().is_some());
        let mut files = 0;
        let count = &mut |_, row: Row| {
            files += usize::from(row.present().is_some_and(|v| v.kind == Kind::File));
            std::ops::ControlFlow::Continue(())
        };
        replica.children(&RelPath::root(), count).unwrap();
        assert_eq!(files, 1, "what was the file is beside it");
    }
}

/// What recovery leaves of a change of permissions that all know of, and that a power cut took from one.
#[test]
fn permissions_that_a_power_cut_took_from_one_stay_different() {
    for dir in [false, true] {
        let world = World::new(2);
        let path = p(if dir { "d" } else { "f" });
        if dir {
            world.replicas[0].user_mkdir(&path).unwrap();
            world.sync(&[0, 1]);
        }
        let row = world.row(1, &path.to_string());
        world.replicas[1].user_chmod(&path, 0o700).unwrap();
        let entries = [(path.clone(), row.clone())];
        world.replicas[1]
            .adopt_move(&path, &path, &entries)
            .unwrap();
        let lost = world.row(1, &path.to_string());
        assert_eq!((&lost.entry, lost.shown), (&row.entry, row.shown));
        assert_eq!(lost.print.map(|p| p.mode), Some(0o700));
        world.replicas[1]
            .write_record(Book::Share, "settled", None)
            .unwrap();
        let end = world.sync(&[0, 1]);
        assert_eq!(end.state, State::InSync);
        let [one, two] = [0, 1].map(|i| world.row(i, &path.to_string()));
        assert_eq!(one.print.map(|p| p.mode), two.print.map(|p| p.mode));
        assert_eq!(two.entry, row.entry, "a user changed it");
    }
}
