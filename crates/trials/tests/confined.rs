//! What the real program asks of the system while it changes trees.

#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
#![allow(clippy::print_stdout, reason = "the numbers are what it is run for")]

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use instep_testkit::needs::Need;
use instep_testkit::scratch::Scratch;
use instep_trials::confined::Verdict;
use instep_trials::image::{Image, Kind};
use instep_trials::namespace::alone;
use instep_trials::program::{Program, until};
use rustix::fs::{XattrFlags, setxattr};
use rustix::process::Signal;

const EXE: &str = env!("CARGO_BIN_EXE_instep-steps");
const PATIENCE: Duration = Duration::from_mins(1);
/// Calls that the sessions below must come to, or they show nothing.
const MET: [&str; 9] = [
    "openat",
    "openat2",
    "statx",
    "linkat",
    "mkdirat",
    "symlinkat",
    "renameat2",
    "unlinkat",
    "utimensat",
];

struct Sessions<'a> {
    program: Program,
    roots: [&'a Path; 2],
    trace: PathBuf,
    seen: String,
}

impl Sessions<'_> {
    /// One run to its end, with conflicts or without.
    fn call(&mut self, words: &[&str], roots: &[usize]) {
        let mut args: Vec<PathBuf> = words.iter().map(PathBuf::from).collect();
        args.extend(roots.iter().map(|r| self.roots[*r].to_owned()));
        let done = self.program.traced(&self.trace).call(&args).unwrap();
        assert!([0, 4].contains(&done.code), "{words:?}: {done:?}");
        self.seen += &fs::read_to_string(&self.trace).unwrap();
    }

    fn sync(&mut self) {
        self.call(&["sync", "--once", "--owner", "--xattr"], &[0, 1]);
    }

    fn live(&mut self) {
        let mut args: Vec<PathBuf> = ["sync", "--owner", "--xattr"].map(PathBuf::from).into();
        args.extend(self.roots.map(Path::to_owned));
        let live = self.program.traced(&self.trace).live(&args).unwrap();
        let said = || live.said();
        until("it watches", PATIENCE, || Ok(said()?.contains("watching"))).unwrap();
        let [a, b] = self.roots;
        fs::create_dir_all(a.join("live/deep")).unwrap();
        fs::write(a.join("live/deep/f"), "live").unwrap();
        fs::write(b.join("f"), "changed in a live session").unwrap();
        let text = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
        until("both came", PATIENCE, || {
            let came = text(b.join("live/deep/f")) == "live";
            Ok(came && text(a.join("f")).ends_with("session"))
        })
        .unwrap();
        live.signal_traced(Signal::INT).unwrap();
        live.ended(PATIENCE).unwrap();
        self.seen += &fs::read_to_string(&self.trace).unwrap();
    }
}

/// Something of every kind.
fn make(root: &Path) {
    fs::create_dir_all(root.join("d/e")).unwrap();
    for path in ["f", "gone", "moved", "d/g", "d/e/h", "kind", "both"] {
        fs::write(root.join(path), path).unwrap();
    }
    symlink("d/g", root.join("l")).unwrap();
}

/// Changes of every kind, at both sides.
fn change(a: &Path, b: &Path) {
    fs::write(a.join("f"), "replaced").unwrap();
    fs::write(a.join("both"), "one").unwrap();
    fs::write(b.join("both"), "the other").unwrap();
    fs::remove_file(b.join("gone")).unwrap();
    fs::rename(a.join("moved"), a.join("d/e/moved")).unwrap();
    fs::set_permissions(a.join("d/g"), Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(a.join("d"), Permissions::from_mode(0o700)).unwrap();
    let time = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let file = File::options().write(true).open(b.join("d/e/h")).unwrap();
    file.set_modified(time).unwrap();
    let flags = XattrFlags::empty();
    setxattr(a.join("d/g"), "user.note", b"text", flags).unwrap();
    fs::remove_file(a.join("kind")).unwrap();
    fs::create_dir_all(a.join("kind/inside")).unwrap();
    fs::remove_file(b.join("l")).unwrap();
    symlink("f", b.join("l")).unwrap();
}

#[test]
fn a_call_on_the_tree_names_a_path() {
    let test = "confined::a_call_on_the_tree_names_a_path";
    alone(test, EXE, &[Need::Loop, Need::Strace], || {
        let scratch = Scratch::new().unwrap();
        let disk = Image::new(scratch.path(), "disk", Kind::Ext4, 64).unwrap();
        let at = fs::canonicalize(disk.at()).unwrap();
        let (a, b) = (at.join("tree-a"), at.join("tree-b"));
        make(&a);
        fs::create_dir(&b).unwrap();
        let here = scratch.path();
        let mut sessions = Sessions {
            program: Program::new(&here.join("home"), &here.join("run")).unwrap(),
            roots: [&a, &b],
            trace: here.join("trace"),
            seen: String::new(),
        };
        sessions.sync();
        change(&a, &b);
        sessions.sync();
        sessions.live();
        fs::remove_dir_all(a.join("d/e")).unwrap();
        sessions.sync();
        sessions.call(&["conflicts", "list"], &[0]);
        sessions.call(&["conflicts", "resolve", "--all", "--keep", "newest"], &[0]);
        sessions.call(&["trash", "list"], &[1]);
        sessions.call(&["trash", "restore", "d/e/h"], &[1]);
        sessions.call(&["verify"], &[0]);
        sessions.call(&["doctor"], &[0, 1]);
        sessions.sync();
        sessions.call(&["trash", "empty", "--older-than", "1ms"], &[1]);
        sessions.call(&["mirror", "--once"], &[0, 1]);
        let roots = [a.to_str().unwrap(), b.to_str().unwrap()];
        let verdict = Verdict::of(&sessions.seen, &roots);
        println!(
            "{} calls on trees: {:?}\nexceptions: {:#?}",
            verdict.calls(),
            verdict.confined,
            verdict.excused
        );
        assert_eq!(verdict.broken, [""; 0]);
        for call in MET {
            assert!(
                verdict.confined.contains_key(call),
                "no session does {call}"
            );
        }
        assert!(verdict.calls() > 1000, "{}", verdict.calls());
    });
}
