//! Which directory is which replica: copies, moves, lost and old indexes, missing markers.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use instep_core::id::ReplicaId;
use instep_local::LocalReplica;
use instep_replica::env::Env;
use instep_replica::records::ShareRecord;
use instep_replica::{Book, ErrorKind, Replica, Scope, ShareState, Step};
use instep_testkit::scratch::Scratch;

use crate::support::p;
use crate::support::real::{Real, RealEnv, SHARE, options};

/// As `cp -a` copies a root, with everything of ours in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status()
        .unwrap();
    assert!(done.success());
}

pub(crate) fn open(root: &Path, state_dir: &Path) -> LocalReplica {
    LocalReplica::open(RealEnv::new(), options(root, state_dir)).unwrap()
}

fn record(replica: &LocalReplica) {
    let look = replica.look(&Scope::Everything).unwrap();
    let share = ShareState::new(SHARE, ShareRecord::default());
    replica.record(&look, &share).unwrap();
}

fn id_of(root: &Path, state_dir: &Path) -> ReplicaId {
    let replica = open(root, state_dir);
    replica.close().unwrap();
    replica.id()
}

fn index_files(root: &Path) -> Vec<std::path::PathBuf> {
    let of_index = |p: &std::path::PathBuf| {
        p.file_name()
            .is_some_and(|n| n.to_string_lossy().starts_with("index.db"))
    };
    let all = std::fs::read_dir(root.join(".instep")).unwrap();
    all.map(|e| e.unwrap().path()).filter(of_index).collect()
}

/// Removes the index of a root.
pub(crate) fn lose_index(root: &Path) {
    let files = index_files(root);
    assert!(!files.is_empty());
    for file in files {
        std::fs::remove_file(file).unwrap();
    }
}

#[test]
fn a_copy_takes_part_under_the_name_of_its_original() {
    let mut real = Real::new();
    let original = real.replica.take().unwrap();
    original.close().unwrap();
    let id = original.id();
    drop(original);
    let twin = real.scratch.path().join("twin");
    copy(&real.root, &twin);
    let copied = open(&twin, &real.state_dir());
    assert_ne!(copied.id(), id);
    assert!(copied.is_rejoining());
    assert!(copied.describe().new);
    drop(copied);
    let again = open(&real.root, &real.state_dir());
    assert_eq!(again.id(), id);
    assert!(!again.is_rejoining());
}

#[test]
fn a_copy_stays_itself_when_it_is_opened_again() {
    let mut real = Real::new();
    real.replica = None;
    let twin = real.scratch.path().join("twin");
    copy(&real.root, &twin);
    let id = id_of(&twin, &real.state_dir());
    assert_eq!(id_of(&twin, &real.state_dir()), id);
}

#[test]
fn a_moved_root_becomes_another() {
    let mut real = Real::new();
    std::fs::write(real.root.join("f"), "x").unwrap();
    record(real.replica());
    let id = real.replica().id();
    let actor = real.replica().actor();
    real.replica().close().unwrap();
    real.replica = None;
    let elsewhere = real.scratch.path().join("elsewhere");
    std::fs::rename(&real.root, &elsewhere).unwrap();
    let moved = open(&elsewhere, &real.state_dir());
    assert_eq!((moved.id(), moved.actor()), (id, actor));
    assert!(!moved.is_rejoining());
    assert!(moved.look(&Scope::Everything).unwrap().findings.is_empty());
}

#[test]
fn a_root_restored_elsewhere_keeps_its_name_and_trusts_no_old_index() {
    let mut real = Real::new();
    let (id, actor) = (real.replica().id(), real.replica().actor());
    real.replica().close().unwrap();
    real.replica = None;
    let elsewhere = real.scratch.path().join("elsewhere");
    copy(&real.root, &elsewhere);
    std::fs::remove_dir_all(&real.root).unwrap();
    let restored = open(&elsewhere, &real.state_dir());
    assert_eq!(restored.id(), id);
    assert_ne!(restored.actor(), actor);
    assert!(restored.is_rejoining());
}

#[test]
fn a_deleted_index_goes_unnoticed() {
    let mut real = Real::new();
    let (id, actor) = (real.replica().id(), real.replica().actor());
    real.replica().close().unwrap();
    real.replica = None;
    lose_index(&real.root);
    real.open();
    assert_eq!(real.replica().id(), id);
    assert_ne!(
        real.replica().actor(),
        actor,
        "dots of the old history could be minted again"
    );
    assert!(real.replica().is_rejoining());
    real.replica = None;
    real.open();
    assert!(
        real.replica().is_rejoining(),
        "forgotten before anybody was met"
    );
}

/// Whoever knew whether the disk had lost something is gone with everything of ours.
#[test]
fn a_root_that_lost_all_that_is_ours_trusts_its_disk_like_a_new_one() {
    let mut real = Real::new();
    let is_unsure = |real: &Real| {
        let note = real.replica().read_record(Book::Share, "unsure");
        note.unwrap().is_some()
    };
    assert!(!is_unsure(&real));
    real.replica().close().unwrap();
    real.replica = None;
    std::fs::remove_dir_all(real.root.join(".instep")).unwrap();
    real.open();
    assert!(is_unsure(&real));
}

/// A power cut may take the index together with what files held.
#[test]
fn an_emptied_file_beats_the_others_where_the_index_was_lost_with_it() {
    let mut real = Real::new();
    real.replica().close().unwrap();
    real.replica = None;
    std::fs::write(real.root.join("emptied"), "").unwrap();
    std::fs::write(real.root.join("zeroed"), [0; 5000]).unwrap();
    std::fs::write(real.root.join("whole"), "content").unwrap();
    lose_index(&real.root);
    real.open();
    record(real.replica());
    let te = |name: &str| {
        let row = real.replica().row(&p(name)).unwrap().unwrap();
        row.present().unwrap().te
    };
    assert_eq!((te("emptied"), te("zeroed")), (0, 0));
    assert!(te("whole") > 0);
}

#[test]
fn an_index_restored_from_an_older_copy_goes_unnoticed() {
    let mut real = Real::new();
    record(real.replica());
    real.replica().close().unwrap();
    real.replica = None;
    let kept: Vec<_> = index_files(&real.root)
        .into_iter()
        .map(|f| (f.clone(), std::fs::read(&f).unwrap()))
        .collect();
    std::fs::write(real.root.join("f"), "x").unwrap();
    real.open();
    record(real.replica());
    let actor = real.replica().actor();
    real.replica().close().unwrap();
    real.replica = None;
    lose_index(&real.root);
    for (file, bytes) in kept {
        std::fs::write(file, bytes).unwrap();
    }
    real.open();
    assert!(real.replica().is_rejoining());
    assert_ne!(real.replica().actor(), actor);
}

#[test]
fn a_root_without_its_marker_counts_as_emptied() {
    let real = Real::new();
    std::fs::write(real.root.join("f"), "x").unwrap();
    record(real.replica());
    let marker = real.root.join(".instep/marker.json");
    let aside = real.scratch.path().join("marker");
    std::fs::rename(&marker, &aside).unwrap();
    std::fs::remove_file(real.root.join("f")).unwrap();
    let kind = |e: instep_replica::Error| e.kind;
    assert_eq!(real.replica().guard().map_err(kind), Err(ErrorKind::Gone));
    assert_eq!(
        real.replica().look(&Scope::Everything).map_err(kind),
        Err(ErrorKind::Gone)
    );
    std::fs::rename(&aside, &marker).unwrap();
    real.replica().guard().unwrap();
}

#[test]
fn a_root_that_was_deleted_and_made_again_counts_as_emptied() {
    let real = Real::new();
    std::fs::write(real.root.join("f"), "x").unwrap();
    record(real.replica());
    std::fs::remove_dir_all(&real.root).unwrap();
    assert_eq!(real.replica().guard().unwrap_err().kind, ErrorKind::Gone);
    std::fs::create_dir(&real.root).unwrap();
    assert_eq!(real.replica().guard().unwrap_err().kind, ErrorKind::Gone);
}

#[test]
fn a_root_is_opened_by_two() {
    let real = Real::new();
    let second = LocalReplica::open(real.env.clone(), real.options());
    let error = second.map(drop).unwrap_err();
    assert_eq!(error.kind, ErrorKind::InUse);
    assert!(
        error
            .chain()
            .contains(&format!("pid {}", std::process::id())),
        "{}",
        error.chain()
    );
    let shared: Arc<dyn Replica> =
        Arc::new(open(&real.scratch.dir("other").unwrap(), &real.state_dir()));
    assert_ne!(shared.id(), real.replica().id());
}

#[test]
fn a_preview_leaves_traces() {
    let mut real = Real::new();
    std::fs::write(real.root.join("f"), "x").unwrap();
    record(real.replica());
    real.replica().close().unwrap();
    real.replica = None;
    std::fs::write(real.root.join("g"), "y").unwrap();
    let stamp = |p: &Path| std::fs::metadata(p).unwrap().modified().unwrap();
    let before: Vec<_> = index_files(&real.root)
        .iter()
        .map(|f| (f.clone(), stamp(f)))
        .collect();
    let fresh = real.scratch.dir("fresh").unwrap();
    for root in [&real.root, &fresh] {
        let mut preview = real.options();
        (preview.path, preview.preview) = (root.clone(), true);
        let replica = LocalReplica::open(real.env.clone(), preview).unwrap();
        record(&replica);
    }
    let after: Vec<_> = index_files(&real.root)
        .iter()
        .map(|f| (f.clone(), stamp(f)))
        .collect();
    assert_eq!(after, before);
    assert!(std::fs::read_dir(&fresh).unwrap().next().is_none());
}

#[test]
fn a_root_that_is_deleted_gives_no_hint() {
    let real = Real::new();
    std::fs::write(real.root.join("f"), "x").unwrap();
    let waker = instep_replica::Waker::default();
    assert_eq!(real.replica().watch(waker.clone()).unwrap(), []);
    record(real.replica());
    real.replica().take_hints();
    std::fs::remove_dir_all(&real.root).unwrap();
    let mut all = instep_replica::HintSet::default();
    for _ in 0..500 {
        all.extend(real.replica().take_hints());
        if all.root {
            break;
        }
        waker.wait(std::time::Duration::from_millis(20));
    }
    assert!(all.root, "nobody looks whether it is still there: {all:?}");
    assert_eq!(real.replica().guard().unwrap_err().kind, ErrorKind::Gone);
}

#[test]
fn a_root_is_closed_for_ever_by_a_death_in_its_first_moment() {
    let scratch = Scratch::new().unwrap();
    let (root, state) = (scratch.path().join("root"), scratch.path().join("state"));
    std::fs::create_dir_all(root.join(".instep")).unwrap();
    std::fs::write(root.join(".instep/.gitignore.new"), "*\n").unwrap();
    let seen = instep_local::root::inspect(&root, &state).unwrap();
    assert_eq!(seen.foreign, None);
    id_of(&root, &state);
}

/// A world whose process dies when the marker is written.
struct Dying(Arc<RealEnv>);

impl Env for Dying {
    fn wall_ns(&self) -> i64 {
        self.0.wall_ns()
    }
    fn monotonic_ns(&self) -> u64 {
        self.0.monotonic_ns()
    }
    fn sleep_ms(&self, ms: u64) {
        self.0.sleep_ms(ms);
    }
    fn random(&self) -> [u8; 16] {
        self.0.random()
    }
    fn workers(&self) -> usize {
        self.0.workers()
    }
    fn boot_id(&self) -> String {
        self.0.boot_id()
    }
    fn spawn(&self, name: &str, work: Box<dyn FnOnce() + Send>) {
        self.0.spawn(name, work);
    }
    fn reach(&self, step: Step) {
        assert_ne!(step, Step::MarkerWritten, "the process dies here");
    }
}

#[test]
fn a_copy_that_dies_while_it_joins_takes_what_it_has_for_new() {
    let scratch = Scratch::new().unwrap();
    let (root, state) = (scratch.path().join("root"), scratch.path().join("state"));
    let copied = scratch.path().join("copied");
    std::fs::create_dir(&root).unwrap();
    id_of(&root, &state);
    copy(&root, &copied);
    let joins = || LocalReplica::open(Arc::new(Dying(RealEnv::new())), options(&copied, &state));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(joins)).is_err());
    assert!(open(&copied, &state).is_rejoining());
}
