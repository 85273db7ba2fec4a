//! Somebody exchanges the parts of a path for links that lead out of the root while a live session changes what is below.

#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
#![allow(clippy::print_stdout, reason = "the numbers are what it is run for")]

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use instep_testkit::needs::Need;
use instep_testkit::prng::Prng;
use instep_testkit::scratch::Scratch;
use instep_trials::image::{Image, Kind};
use instep_trials::namespace::alone;
use instep_trials::program::{Program, until};
use rustix::fs::{CWD, RenameFlags, renameat_with};

const EXE: &str = env!("CARGO_BIN_EXE_instep-steps");
const PATIENCE: Duration = Duration::from_mins(1);
/// In each file outside, and nowhere else.
const CANARY: &str = "canary-that-no-root-may-have";
/// The parts of the path that are exchanged.
const PARTS: [&str; 4] = ["d", "d/e", "d/e/f", "d/e/f/0"];
const KINDS: [&str; 3] = [
    "a link that leads out",
    "another directory",
    "a link, made anew",
];

/// Inode, mode, links, both parts of the change time, content.
type Seen = (u64, u32, u64, i64, i64, Vec<u8>);

/// All that a look from outside can tell of what is outside.
fn outside(canary: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut found = BTreeMap::new();
    let mut todo = vec![canary.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let bytes = if meta.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            Vec::new()
        } else {
            fs::read(&path).unwrap()
        };
        let (ino, mode, links) = (meta.ino(), meta.mode(), meta.nlink());
        let row = (ino, mode, links, meta.ctime(), meta.ctime_nsec(), bytes);
        found.insert(path, row);
    }
    found
}

/// The files of a root, its own included, that have a byte from outside. Links are not followed.
fn leaked(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        } else if meta.is_file() {
            let bytes = fs::read(&path).unwrap();
            let has = |w: &[u8]| w == CANARY.as_bytes();
            if bytes.windows(CANARY.len()).any(has) {
                found.push(path);
            }
        }
    }
    found
}

fn plant(at: &Path) {
    fs::create_dir_all(at.join("d/e/f/sub")).unwrap();
    fs::create_dir_all(at.join("e/f/sub")).unwrap();
    fs::create_dir_all(at.join("f/sub")).unwrap();
    for dir in ["", "sub", "d", "d/e", "d/e/f", "e", "e/f", "f"] {
        fs::create_dir_all(at.join(dir)).unwrap();
        for i in 0..4 {
            fs::write(at.join(dir).join(i.to_string()), CANARY).unwrap();
        }
    }
}

/// Exchanges one part of the path for something else and back, until told to stop.
fn flip(
    root: &Path,
    aside: &Path,
    part: &str,
    kind: &str,
    canary: &Path,
    stop: &AtomicBool,
) -> u64 {
    let (at, other) = (root.join(part), aside.join("other"));
    let led_to = if at.is_dir() {
        canary.to_owned()
    } else {
        canary.join("0")
    };
    match kind {
        "another directory" => fs::create_dir(&other).unwrap(),
        _ => symlink(&led_to, &other).unwrap(),
    }
    let mut flips = 0;
    while !stop.load(Ordering::Acquire) {
        let swapped = renameat_with(CWD, &at, CWD, &other, RenameFlags::EXCHANGE).is_ok();
        if swapped && kind == "a link, made anew" {
            thread::yield_now();
            // What is there may be the session's by now: it is only taken if it is the link.
            if fs::read_link(&at).is_ok_and(|to| to == led_to) {
                let _gone_already = fs::remove_file(&at);
                let _taken = symlink(&led_to, &at);
            }
        }
        flips += u64::from(swapped);
        thread::sleep(Duration::from_micros(200));
    }
    flips
}

/// What the other user does, so that the session does it where the flips are.
fn act(root: &Path, prng: &mut Prng) {
    let dir = root.join("d/e/f");
    let file = dir.join(prng.below(4).to_string());
    let bits = if prng.chance(1, 2) { 0o600 } else { 0o644 };
    // Any of these may fail: the session brings the flips to this root as well.
    let _may_fail = match prng.below(9) {
        0 => fs::remove_file(&file),
        1 => fs::set_permissions(&file, Permissions::from_mode(bits)),
        2 => fs::rename(&file, dir.join(prng.below(4).to_string())),
        3 => fs::create_dir_all(dir.join("sub/deep")),
        4 => fs::remove_dir_all(dir.join("sub")),
        5 => fs::create_dir_all(&dir),
        6 => symlink("0", dir.join("link")),
        _ => fs::create_dir_all(&dir).and_then(|()| fs::write(&file, prng.bytes(300))),
    };
}

/// One part of the path, exchanged for one kind of thing, against so many acts. How often it was exchanged.
fn cell(at: &Path, part: &str, kind: &str, acts: u64, seed: u64) -> u64 {
    let [a, b, canary, aside] = ["a", "b", "canary", "aside"].map(|name| at.join(name));
    plant(&canary);
    fs::create_dir_all(a.join("d/e/f/sub")).unwrap();
    fs::create_dir_all(&b).unwrap();
    fs::create_dir_all(&aside).unwrap();
    for i in 0..4 {
        fs::write(a.join(format!("d/e/f/{i}")), "inside").unwrap();
    }
    let program = Program::new(&at.join("home"), &at.join("run")).unwrap();
    let args = ["sync".as_ref(), a.as_path(), &b];
    let live = program.live(&args).unwrap();
    until("it is there", PATIENCE, || Ok(b.join("d/e/f/3").exists())).unwrap();
    let before = outside(&canary);
    let (stop, flips) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            let swapped = flip(&a, &aside, part, kind, &canary, &stop);
            flips.store(swapped, Ordering::Release);
        });
        let mut prng = Prng::new(seed);
        for _ in 0..acts {
            // The acts of the user must not be led out either.
            let led = PARTS.iter().any(|part| b.join(part).is_symlink());
            if !led {
                act(&b, &mut prng);
            }
            thread::sleep(Duration::from_millis(3));
        }
        stop.store(true, Ordering::Release);
    });
    drop(live);
    assert!(
        outside(&canary) == before,
        "{part}, {kind}: something outside was changed"
    );
    for root in [&a, &b] {
        assert_eq!(leaked(root), [""; 0].map(PathBuf::from), "{part}, {kind}");
    }
    flips.into_inner()
}

fn all(acts: u64) {
    for (i, part) in PARTS.iter().enumerate() {
        for (j, kind) in KINDS.iter().enumerate() {
            let scratch = Scratch::new().unwrap();
            let disk = Image::new(scratch.path(), "disk", Kind::Ext4, 64).unwrap();
            let flips = cell(disk.at(), part, kind, acts, (i * 3 + j) as u64);
            println!("{part} for {kind}: {acts} acts, {flips} flips, 0 escapes");
            assert!(flips > 0, "{part} for {kind}: nothing was exchanged");
        }
    }
}

#[test]
fn an_exchanged_part_of_a_path_leads_the_session_out_of_its_root() {
    let test = "races::an_exchanged_part_of_a_path_leads_the_session_out_of_its_root";
    alone(test, EXE, &[Need::Loop], || all(150));
}

/// `cargo xtask trials races --operations N`: so many acts for each part and kind.
#[test]
#[ignore = "long: cargo xtask trials races --operations N"]
fn many_exchanges_lead_the_session_out_of_its_root() {
    let test = "races::many_exchanges_lead_the_session_out_of_its_root";
    alone(test, EXE, &[Need::Loop], || {
        let acts = std::env::var("INSTEP_RACES_OPERATIONS").ok();
        all(acts.map_or(3000, |text| text.parse().unwrap()));
    });
}
