//! Replicas that lost their memory, in sessions with others that did not.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use instep_engine::report::Silent;
use instep_engine::{Session, SessionOptions};
use instep_local::LocalReplica;
use instep_replica::Replica;
use instep_testkit::scratch::Scratch;

use super::identity::{copy, lose_index, open};
use crate::support::real::RealEnv;

/// Roots that are brought together now and then.
struct Roots {
    scratch: Scratch,
}

impl Roots {
    fn new() -> Self {
        Self {
            scratch: Scratch::new().unwrap(),
        }
    }

    fn state_dir(&self) -> PathBuf {
        self.scratch.path().join("state")
    }

    fn root(&self, name: &str) -> PathBuf {
        self.scratch.dir(name).unwrap()
    }

    /// Brings roots in step; returns how many conflicts are open then.
    fn sync(&self, roots: &[&Path]) -> u64 {
        let opened: Vec<Arc<LocalReplica>> = roots
            .iter()
            .map(|r| Arc::new(open(r, &self.state_dir())))
            .collect();
        let replicas = opened
            .iter()
            .map(|r| r.clone() as Arc<dyn Replica>)
            .collect();
        let options = SessionOptions {
            once: true,
            ..SessionOptions::default()
        };
        let mut session =
            Session::start(RealEnv::new(), replicas, options, Box::new(Silent)).unwrap();
        let end = session.run().unwrap();
        assert_eq!(end.problems, []);
        assert_eq!(end.summary.waiting, 0, "{end:?}");
        for replica in &opened {
            replica.close().unwrap();
        }
        end.summary.conflicts
    }

    fn is_rejoining(&self, root: &Path) -> bool {
        open(root, &self.state_dir()).is_rejoining()
    }
}

fn read(root: &Path, name: &str) -> Option<String> {
    fs::read_to_string(root.join(name)).ok()
}

/// Two roots in step, with these files.
fn in_step(files: &[&str]) -> (Roots, PathBuf, PathBuf) {
    let roots = Roots::new();
    let (a, b) = (roots.root("a"), roots.root("b"));
    for name in files {
        fs::create_dir_all(a.join(name).parent().unwrap()).unwrap();
        fs::write(a.join(name), format!("{name} as it was")).unwrap();
    }
    assert_eq!(roots.sync(&[&a, &b]), 0);
    (roots, a, b)
}

#[test]
fn a_lost_index_brings_back_what_was_deleted() {
    let (roots, a, b) = in_step(&["kept", "deleted", "edited", "d/deleted"]);
    lose_index(&b);
    fs::remove_file(a.join("deleted")).unwrap();
    fs::remove_dir_all(a.join("d")).unwrap();
    fs::write(a.join("edited"), "as it is now").unwrap();
    assert_eq!(roots.sync(&[&a, &b]), 0, "what is old is no conflict");
    for root in [&a, &b] {
        assert_eq!(read(root, "deleted"), None);
        assert!(!root.join("d").exists());
        assert_eq!(read(root, "edited").unwrap(), "as it is now");
        assert_eq!(read(root, "kept").unwrap(), "kept as it was");
    }
    assert!(!roots.is_rejoining(&b), "it has learnt everything");
}

#[test]
fn an_old_version_with_a_new_time_wins_after_a_lost_index() {
    let (roots, a, b) = in_step(&["f"]);
    fs::write(a.join("f"), "newer").unwrap();
    assert_eq!(roots.sync(&[&a, &b]), 0);
    unpack(&b, "f");
    assert_eq!(roots.sync(&[&b, &a]), 0);
    assert_eq!(
        (read(&a, "f").unwrap(), read(&b, "f").unwrap()),
        ("newer".into(), "newer".into())
    );
}

/// A file of the first state comes back in a root without an index, from a backup that is unpacked just now.
fn unpack(root: &Path, name: &str) {
    lose_index(root);
    fs::write(root.join(name), format!("{name} as it was")).unwrap();
    let later = SystemTime::now() + Duration::from_mins(1);
    let file = fs::File::options().write(true).open(root.join(name));
    file.unwrap().set_modified(later).unwrap();
}

/// Of the contents before it a version remembers as many as there were edits; one more edit is found when they meet.
#[test]
fn an_edit_that_nobody_had_seen_makes_the_others_forget_what_a_lost_index_brings_back() {
    let (roots, a, b) = in_step(&["f"]);
    for n in 0..instep_core::limits::PREVIOUS_MAX {
        fs::write(a.join("f"), format!("edit {n}")).unwrap();
        assert_eq!(roots.sync(&[&a, &b]), 0);
    }
    unpack(&b, "f");
    fs::write(a.join("f"), "the last edit").unwrap();
    assert_eq!(roots.sync(&[&b, &a]), 0);
    for root in [&a, &b] {
        assert_eq!(read(root, "f").unwrap(), "the last edit");
    }
}

#[test]
fn what_nobody_ever_saw_is_lost_with_the_index() {
    let (roots, a, b) = in_step(&["mine", "both", "gone"]);
    fs::remove_file(a.join("gone")).unwrap();
    assert_eq!(roots.sync(&[&a, &b]), 0);
    lose_index(&b);
    fs::write(b.join("mine"), "written while nobody looked").unwrap();
    fs::write(b.join("gone"), "written while it was deleted").unwrap();
    fs::write(b.join("new"), "only here").unwrap();
    fs::write(b.join("both"), "theirs").unwrap();
    std::thread::sleep(Duration::from_millis(20));
    fs::write(a.join("both"), "ours").unwrap();
    let conflicts = roots.sync(&[&a, &b]);
    for root in [&a, &b] {
        assert_eq!(read(root, "mine").unwrap(), "written while nobody looked");
        assert_eq!(read(root, "gone").unwrap(), "written while it was deleted");
        assert_eq!(read(root, "new").unwrap(), "only here");
        assert_eq!(read(root, "both").unwrap(), "ours", "the newer one");
    }
    assert_eq!(conflicts, 2, "of \"mine\" nobody can tell which came first");
    let versions = fs::read_dir(b.join(".instep/versions")).unwrap();
    let kept: Vec<_> = versions
        .map(|v| fs::read_to_string(v.unwrap().path()).unwrap())
        .collect();
    assert_eq!(kept, ["theirs"]);
}

#[test]
fn what_is_missing_after_a_lost_index_counts_as_deleted() {
    let (roots, a, b) = in_step(&["f", "d/g"]);
    lose_index(&b);
    fs::remove_file(b.join("f")).unwrap();
    fs::remove_dir_all(b.join("d")).unwrap();
    assert_eq!(roots.sync(&[&a, &b]), 0);
    for root in [&a, &b] {
        assert_eq!(read(root, "f").unwrap(), "f as it was");
        assert_eq!(read(root, "d/g").unwrap(), "d/g as it was");
    }
}

#[test]
fn a_lost_index_spreads_old_times_and_modes() {
    let (roots, a, b) = in_step(&["f"]);
    lose_index(&b);
    let time = |root: &Path| fs::metadata(root.join("f")).unwrap().modified().unwrap();
    let (then, mode) = (
        time(&a),
        fs::metadata(a.join("f")).unwrap().permissions().mode(),
    );
    fs::set_permissions(b.join("f"), fs::Permissions::from_mode(0o600)).unwrap();
    let file = fs::File::options().write(true).open(b.join("f")).unwrap();
    file.set_modified(then + Duration::from_secs(5)).unwrap();
    drop(file);
    assert_eq!(roots.sync(&[&a, &b]), 0);
    for root in [&a, &b] {
        assert_eq!(time(root), then);
        assert_eq!(
            fs::metadata(root.join("f")).unwrap().permissions().mode(),
            mode
        );
    }
}

#[test]
fn a_copied_root_conflicts_with_its_original() {
    let (roots, a, b) = in_step(&["f", "g"]);
    let twin = roots.scratch.path().join("twin");
    copy(&b, &twin);
    fs::write(a.join("f"), "edited").unwrap();
    fs::remove_file(a.join("g")).unwrap();
    assert_eq!(roots.sync(&[&a, &b, &twin]), 0);
    for root in [&a, &b, &twin] {
        assert_eq!(
            (read(root, "f").unwrap(), read(root, "g")),
            ("edited".into(), None)
        );
    }
    let ids: std::collections::BTreeSet<_> = [&a, &b, &twin]
        .iter()
        .map(|r| open(r, &roots.state_dir()).id())
        .collect();
    assert_eq!(ids.len(), 3);
}
