//! What the tests of the program share: a home, waiting for things to become so, and everything that can be
//! seen of a directory.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod sshd;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use instep_testkit::cli::{Cli, Output, Running};

/// The program with a home that has empty folders `a` and `b`.
pub(crate) fn program() -> Cli {
    let cli = Cli::at(env!("CARGO_BIN_EXE_instep")).unwrap();
    fs::set_permissions(cli.home().join("run"), fs::Permissions::from_mode(0o700)).unwrap();
    for dir in ["a", "b"] {
        fs::create_dir(cli.home().join(dir)).unwrap();
    }
    cli
}

/// Waits until something is so; fails loudly when it never is.
pub(crate) fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Writes a file below the home.
pub(crate) fn put(cli: &Cli, path: &str, text: &str) {
    let path = cli.home().join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Whether a file below the home has this text.
pub(crate) fn has(cli: &Cli, path: &str, text: &str) -> bool {
    fs::read_to_string(cli.home().join(path)).is_ok_and(|found| found == text)
}

/// Starts a session and waits until it answers.
pub(crate) fn live(cli: &Cli, args: &[&str]) -> Running {
    let running = cli.spawn(args);
    let root = args.last();
    until("the session answers", || {
        let status = cli.run(&["status", root.unwrap()]);
        status.stdout.contains("running for")
    });
    running
}

/// Ends a session as a user would.
pub(crate) fn stop(running: Running) -> Output {
    running.signal("INT");
    running.wait().expect(130)
}

/// What there is at one path: inode, mode, owner, size, times of content and of inode, and the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    inode: u64,
    mode: u32,
    owner: u32,
    size: u64,
    changed: (i64, i64),
    touched: (i64, i64),
    text: Vec<u8>,
}

/// Everything at and below a directory.
pub(crate) fn see(top: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut all = BTreeMap::new();
    let mut left = vec![top.to_path_buf()];
    while let Some(path) = left.pop() {
        let m = fs::symlink_metadata(&path).unwrap();
        let mut text = Vec::new();
        if m.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        } else if m.is_file() {
            text = fs::read(&path).unwrap();
        }
        let seen = Seen {
            inode: m.ino(),
            mode: m.mode(),
            owner: m.uid(),
            size: m.size(),
            changed: (m.mtime(), m.mtime_nsec()),
            touched: (m.ctime(), m.ctime_nsec()),
            text,
        };
        all.insert(path, seen);
    }
    all
}

/// Only what a user has there: our own directory is left out, and so is the top, whose times it moves.
pub(crate) fn see_files(top: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut all = see(top);
    let ours = top.join(".instep");
    all.retain(|path, _| path != top && !path.starts_with(&ours));
    all
}

/// Panics naming the paths that differ.
#[track_caller]
pub(crate) fn assert_untouched(before: &BTreeMap<PathBuf, Seen>, after: &BTreeMap<PathBuf, Seen>) {
    let paths = before.keys().chain(after.keys());
    let differing: Vec<&PathBuf> = paths.filter(|p| before.get(*p) != after.get(*p)).collect();
    assert!(differing.is_empty(), "created or changed: {differing:?}");
}

/// An error in its five parts with this code, on standard error, and this exit code.
#[track_caller]
pub(crate) fn assert_refused(output: Output, code: &str, exit: i32) -> Output {
    let output = output.expect(exit);
    let said = &output.stderr;
    assert!(said.contains(&format!("error[{code}]: ")), "{output}");
    for part in ["  why     ", "  effect  ", "  do      "] {
        assert!(said.contains(part), "no line with {part:?}\n{output}");
    }
    let more = format!("  more    instep explain {code}\n");
    assert!(said.contains(&more), "{output}");
    output
}

/// The program as a user whom permissions stop: the one who runs the tests, or nobody where that is root.
pub(crate) struct Plain {
    /// Its home.
    pub(crate) cli: Cli,
    prefix: Vec<String>,
}

impl Plain {
    /// With a home that has empty folders `a` and `b`.
    pub(crate) fn new() -> Self {
        if !rustix::process::geteuid().is_root() {
            return Self {
                cli: program(),
                prefix: Vec::new(),
            };
        }
        let cli = Cli::at("setpriv").unwrap();
        let bin = cli.home().join("instep");
        fs::copy(env!("CARGO_BIN_EXE_instep"), &bin).unwrap();
        fs::set_permissions(cli.home().join("run"), fs::Permissions::from_mode(0o700)).unwrap();
        for dir in ["a", "b"] {
            fs::create_dir(cli.home().join(dir)).unwrap();
        }
        let user = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
        let mut prefix: Vec<String> = user.map(str::to_owned).to_vec();
        prefix.push(bin.to_str().unwrap().to_owned());
        Self { cli, prefix }
    }

    /// Gives everything in the home to the user.
    pub(crate) fn own(&self) {
        if !self.prefix.is_empty() {
            let status = Command::new("chown")
                .args(["-R", "65534:65534"])
                .arg(self.cli.home())
                .status();
            assert!(status.unwrap().success());
        }
    }

    /// Runs it.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        let mut all: Vec<&str> = self.prefix.iter().map(String::as_str).collect();
        all.extend(args);
        self.cli.run(&all)
    }
}

/// Changes one byte and keeps size and modification time, as nearly as a program can do what a bad disk does.
pub(crate) fn flip(path: &Path) {
    let before = fs::metadata(path).unwrap();
    let mut bytes = fs::read(path).unwrap();
    bytes[3] ^= 0x10;
    fs::write(path, bytes).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
    assert_eq!(
        before.mtime_nsec(),
        fs::metadata(path).unwrap().mtime_nsec()
    );
}

/// The `data` of a document.
#[track_caller]
pub(crate) fn json(cli: &Cli, args: &[&str], code: i32) -> serde_json::Value {
    let out = cli.run(args).expect(code);
    let document: serde_json::Value = serde_json::from_str(&out.stdout).unwrap();
    assert_eq!(document["v"], 1, "{out}");
    document["data"].clone()
}
