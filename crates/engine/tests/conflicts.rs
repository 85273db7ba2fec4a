//! The books of conflicts: read once, kept complete on every replica, and settled anywhere is settled everywhere.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use instep_core::id::ShareId;
use instep_core::path::RelPath;
use instep_core::plan::{Action, Outcome};
use instep_core::row::Row;
use instep_engine::command::{Answer, Command, Keep};
use instep_engine::report::{Event, Monitor, Summary};
use instep_engine::session::End;
use instep_engine::{Session, SessionOptions};
use instep_replica::env::{Env, StepEnv};
use instep_replica::memory::MemoryReplica;
use instep_replica::records::{ConflictRecord, PolicyRecord, TrashRecord};
use instep_replica::{Book, Error, ErrorKind, Replica, Result, Sources};

/// A replica that counts how often its book of conflicts is read as a whole.
struct Counted {
    inner: Arc<MemoryReplica>,
    read: AtomicUsize,
    /// It dies when a copy is to be made beside something.
    dies_at_copies: Option<Arc<Mutex<Option<instep_engine::Handle>>>>,
}

impl Replica for Counted {
    instep_replica::hand_on!(
        inner:
        id actor share describe capabilities guard watch take_hints look record row
        children subtree open stage is_staged adopt_move mint restore purge barrier
        read_record write_record
    );

    fn records(&self, book: Book) -> Result<Vec<(String, String)>> {
        self.read
            .fetch_add(usize::from(book == Book::Conflicts), Ordering::SeqCst);
        self.inner.records(book)
    }
    fn apply(&self, actions: &[Action], sources: &dyn Sources) -> Result<Vec<Outcome>> {
        let is_copy = |a: &Action| a.path.to_string().contains(".conflict-");
        if let Some(session) = &self.dies_at_copies
            && actions.iter().any(is_copy)
        {
            if let Some(session) = session.lock().unwrap().as_ref() {
                session.stop();
            }
            return Err(Error::new(ErrorKind::Crashed, "apply"));
        }
        self.inner.apply(actions, sources)
    }
    fn rename(&self, from: &RelPath, to: &RelPath) -> Result<Outcome> {
        Replica::rename(&*self.inner, from, to)
    }
}

/// Passes on the counts of every settling, and keeps the rest.
struct Settlings(std::sync::mpsc::Sender<Summary>, Arc<Mutex<Vec<Event>>>);

impl Monitor for Settlings {
    fn event(&mut self, event: Event) {
        match event {
            Event::Settled(summary) => {
                let _unheard = self.0.send(summary);
            }
            other => self.1.lock().unwrap().push(other),
        }
    }
}

struct World {
    env: Arc<dyn Env>,
    replicas: Vec<Arc<MemoryReplica>>,
}

fn p(path: &str) -> RelPath {
    RelPath::new(path.as_bytes()).unwrap()
}

impl World {
    /// Three replicas that were never equal at one path.
    fn diverged() -> Self {
        let env = Arc::new(StepEnv::default()) as Arc<dyn Env>;
        let open = |name: &&str| Arc::new(MemoryReplica::new(name, ShareId([1; 16]), env.clone()));
        let replicas: Vec<_> = ["A", "B", "C"].iter().map(open).collect();
        replicas[0].user_write(&p("f"), b"one").unwrap();
        replicas[1].user_write(&p("f"), b"two").unwrap();
        Self { env, replicas }
    }

    fn once(&self, of: &[usize]) -> End {
        let all = of
            .iter()
            .map(|i| self.replicas[*i].clone() as Arc<dyn Replica>)
            .collect();
        let options = SessionOptions {
            once: true,
            ..SessionOptions::default()
        };
        let monitor = Box::new(instep_engine::report::Silent);
        let mut session = Session::start(self.env.clone(), all, options, monitor).unwrap();
        session.run().unwrap()
    }

    fn noted(&self, i: usize) -> Vec<ConflictRecord> {
        let book = self.replicas[i].records(Book::Conflicts).unwrap();
        book.iter()
            .map(|(_, body)| serde_json::from_str(body).unwrap())
            .collect()
    }
}

#[test]
fn a_conflict_that_was_settled_while_a_replica_was_away_opens_again() {
    let world = World::diverged();
    assert_eq!(world.once(&[0, 1, 2]).summary.conflicts, 1);
    let mut settled = world.noted(0).remove(0);
    settled.resolved = Some("newest".into());
    let body = serde_json::to_string(&settled).unwrap();
    world.replicas[0]
        .write_record(Book::Conflicts, &settled.loser, Some(&body))
        .unwrap();
    // C hears of it by way of B.
    assert_eq!(world.once(&[0, 1]).summary.conflicts, 0);
    assert_eq!(world.once(&[1, 2]).summary.conflicts, 0);
    assert_eq!(world.noted(2), [settled]);
}

#[test]
fn a_conflict_is_unknown_to_who_joins_after_its_path_changed_again() {
    let world = World::diverged();
    world.once(&[0, 1]);
    world.replicas[0].user_write(&p("f"), b"three").unwrap();
    world.once(&[0, 1]);
    world.once(&[0, 2]);
    assert_eq!(world.noted(2), world.noted(0));
    assert_eq!(world.once(&[2, 1]).summary.conflicts, 1);
}

#[test]
fn all_conflicts_are_read_again_whenever_they_are_counted() {
    let world = World::diverged();
    let counted: Vec<_> = world
        .replicas
        .iter()
        .map(|r| {
            Arc::new(Counted {
                inner: r.clone(),
                read: AtomicUsize::new(0),
                dies_at_copies: None,
            })
        })
        .collect();
    let all = counted
        .iter()
        .map(|r| r.clone() as Arc<dyn Replica>)
        .collect();
    let (tell, settled) = std::sync::mpsc::channel();
    let options = SessionOptions::default();
    let heard: Arc<Mutex<Vec<Event>>> = Arc::default();
    let monitor = Box::new(Settlings(tell, heard.clone()));
    let mut session = Session::start(world.env.clone(), all, options, monitor).unwrap();
    let handle = session.handle();
    let asked = std::thread::spawn(move || {
        assert_eq!(settled.recv().unwrap().conflicts, 1);
        let status = |handle: &instep_engine::Handle| match handle.request(Command::Status) {
            Some(Answer::Status(s)) => s.summary.conflicts,
            other => panic!("{other:?}"),
        };
        assert_eq!(status(&handle), 1);
        let resolve = Command::Resolve {
            id: None,
            keep: Keep::Newest,
        };
        assert_eq!(handle.request(resolve), Some(Answer::Done(1)));
        assert_eq!(status(&handle), 0);
        assert_eq!(settled.recv().unwrap().conflicts, 0);
        handle.stop();
    });
    let end = session.run().unwrap();
    asked.join().unwrap();
    assert_eq!(end.summary.conflicts, 0);
    for replica in &counted {
        assert_eq!(replica.read.load(Ordering::SeqCst), 1);
    }
    assert!((0..3).all(|i| world.noted(i)[0].resolved.is_some()));
    let heard = heard.lock().unwrap();
    let settled = |e: &&Event| matches!(e, Event::Resolved { path, keep: Keep::Newest, .. } if *path == p("f"));
    assert_eq!(heard.iter().filter(settled).count(), 1, "{heard:?}");
    let at = |wanted: fn(&Event) -> bool| heard.iter().position(wanted);
    let began = at(|e| matches!(e, Event::ScanStarted { replica: 2 }));
    let ended = at(|e| matches!(e, Event::Scanned { replica: 2, .. }));
    assert!(began.is_some() && began < ended, "{heard:?}");
}

/// Looks at what is known of the path when a conflict is closed; tells when all is in step.
struct AtClose(
    Arc<MemoryReplica>,
    Arc<Mutex<Vec<usize>>>,
    std::sync::mpsc::Sender<()>,
);

impl Monitor for AtClose {
    fn event(&mut self, event: Event) {
        match event {
            Event::Resolved { path, .. } => {
                let row = self.0.row(&path).unwrap().unwrap_or_default();
                let siblings = row.entry.siblings().len();
                self.1.lock().unwrap().push(siblings);
            }
            Event::Settled(_) => drop(self.2.send(())),
            _ => {}
        }
    }
}

#[test]
fn a_death_closes_a_conflict_that_nobody_knows_the_decision_of() {
    let world = World::diverged();
    let all = world.replicas.iter().map(|r| r.clone() as Arc<dyn Replica>);
    let (known, (tell, settled)) = (Arc::default(), std::sync::mpsc::channel());
    let monitor = AtClose(world.replicas[0].clone(), Arc::clone(&known), tell);
    let options = SessionOptions::default();
    let mut session =
        Session::start(world.env.clone(), all.collect(), options, Box::new(monitor)).unwrap();
    let handle = session.handle();
    let asked = std::thread::spawn(move || {
        settled.recv().unwrap();
        let resolve = Command::Resolve {
            id: None,
            keep: Keep::Both,
        };
        assert_eq!(handle.request(resolve), Some(Answer::Done(1)));
        settled.recv().unwrap();
        handle.stop();
    });
    session.run().unwrap();
    asked.join().unwrap();
    assert_eq!(*known.lock().unwrap(), [1]);
    assert!((0..3).all(|i| world.noted(i)[0].resolved.is_some()));
}

#[test]
fn a_copy_that_a_death_came_before_is_never_made() {
    let world = World::diverged();
    let stop: Arc<Mutex<Option<instep_engine::Handle>>> = Arc::default();
    let dies = |r: &Arc<MemoryReplica>| {
        let counted = Counted {
            inner: r.clone(),
            read: AtomicUsize::new(0),
            dies_at_copies: Some(Arc::clone(&stop)),
        };
        Arc::new(counted) as Arc<dyn Replica>
    };
    let options = SessionOptions {
        once: true,
        policy: Some(PolicyRecord::KeepBoth),
        ..SessionOptions::default()
    };
    let monitor = Box::new(instep_engine::report::Silent);
    let all = world.replicas.iter().map(dies).collect();
    let mut session = Session::start(world.env.clone(), all, options, monitor).unwrap();
    *stop.lock().unwrap() = Some(session.handle());
    let _dead = session.run();
    drop(session);
    world.once(&[0, 1, 2]);
    let siblings = |i: usize| world.replicas[i].row(&p("f")).unwrap().unwrap().entry;
    let copies = |i: usize| {
        let mut names = Vec::new();
        let visit = &mut |path: RelPath, row: Row| {
            if row.present().is_some() {
                names.push(path.to_string());
            }
            std::ops::ControlFlow::Continue(())
        };
        world.replicas[i].children(&RelPath::root(), visit).unwrap();
        names.iter().filter(|n| n.contains(".conflict-")).count()
    };
    for i in 0..3 {
        assert_eq!((siblings(i).siblings().len(), copies(i)), (2, 1), "{i}");
    }
}

/// Whoever has the loser has no room for the winner yet, and somebody else writes on.
#[test]
fn a_loser_goes_to_the_trash_because_the_path_was_written_before_it_was_displaced() {
    let mut losers = 0;
    for away in [0, 1] {
        let world = World::diverged();
        world.replicas[away].set_room(Some(0));
        world.once(&[0, 1, 2]);
        let noted = world.noted(2);
        let [record] = noted.as_slice() else {
            panic!("{noted:?}")
        };
        world.replicas[2].user_write(&p("f"), b"three").unwrap();
        world.replicas[away].set_room(None);
        world.once(&[0, 1, 2]);
        assert_eq!(world.replicas[away].user_read(&p("f")).unwrap(), b"three");
        let kept = world.replicas[away].records(Book::Trash).unwrap();
        let kept: Vec<TrashRecord> = kept
            .iter()
            .map(|(_, body)| serde_json::from_str(body).unwrap())
            .collect();
        let own = record
            .loser
            .starts_with(&world.replicas[away].actor().to_string());
        losers += usize::from(own);
        for object in kept.iter().filter(|k| k.content == record.content) {
            assert_eq!(object.loser.as_ref(), Some(&record.loser));
        }
        assert!(
            !own || kept.iter().any(|k| k.content == record.content),
            "{kept:?}"
        );
    }
    assert_eq!(losers, 1);
}
