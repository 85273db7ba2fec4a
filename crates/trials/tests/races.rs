//! Somebody exchanges the parts of a path for links that lead out of the root while a live session changes what is below.

#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
#![allow(clippy::print_stdout, reason = "the numbers are what it is run for")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use instep_testkit::needs::Need;
use instep_testkit::prng::Prng;
use instep_testkit::scratch::Scratch;
use instep_trials::image::{Image, Kind, run};
use instep_trials::namespace::alone;
use instep_trials::program::{Program, until};
use instep_trials::races::Part;
use instep_trials::races::attacker::Flip;
use instep_trials::races::cell::{Cell, Count, Grounds};
use instep_trials::races::ground::{Ground, SOMEBODY};
use instep_trials::races::operation::{Call, Came, Operation};
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

/// A disk on which every access to what is outside leaves a trace.
fn strict_disk(scratch: &Scratch) -> Image {
    let disk = Image::new(scratch.path(), "disk", Kind::Ext4, 128).unwrap();
    let options = ["-o", "remount,strictatime"].map(OsStr::new);
    run("mount", options.into_iter().chain([disk.at().as_os_str()])).unwrap();
    disk
}

/// All cells of one kind of operation, so many calls in each.
fn row(grounds: &mut Grounds, operation: Operation, times: u64) -> Count {
    let mut sum = Count::default();
    for (i, part) in Part::ALL.into_iter().enumerate() {
        let mut said = Vec::new();
        for user in [None, Some(SOMEBODY)] {
            if user.is_some() && !part.is_open() {
                continue;
            }
            for (j, flip) in Flip::ALL.into_iter().enumerate() {
                let name = operation.name();
                let cell = Cell {
                    part,
                    flip,
                    user,
                    name,
                    times,
                    seed: (i * 9 + j) as u64,
                };
                let count = grounds.play(cell, &|ground| operation.prepare(ground));
                let count = count.unwrap_or_else(|e| panic!("{operation:?}, {cell:?}: {e}"));
                assert_eq!(count.escapes, [""; 0], "{operation:?}, {cell:?}");
                assert!(count.flips >= count.tried, "{operation:?}, {cell:?}");
                let who = if user.is_some() {
                    " by another user"
                } else {
                    ""
                };
                said.push(format!("{flip:?}{who} {} of {}", count.done, count.tried));
                sum.add(count);
            }
        }
        let path = part.path(operation.name());
        println!("{operation:?}, {path}: {}", said.join(", "));
    }
    sum
}

fn matrix(times: u64) {
    let scratch = Scratch::new().unwrap();
    let disk = strict_disk(&scratch);
    let mut grounds = Grounds::new(disk.at());
    let (mut all, started) = (Count::default(), Instant::now());
    for operation in Operation::ALL {
        let sum = row(&mut grounds, operation, times);
        println!(
            "{operation:?}: {} of {} done, {} exchanges, {} grounds given up, 0 escapes, after {:?}",
            sum.done,
            sum.tried,
            sum.flips,
            sum.renewed,
            started.elapsed()
        );
        all.add(sum);
    }
    println!(
        "{} operations, {} exchanges, 0 escapes",
        all.tried, all.flips
    );
}

#[test]
fn an_operation_is_led_out_of_the_root_by_an_exchanged_part() {
    let test = "races::an_operation_is_led_out_of_the_root_by_an_exchanged_part";
    alone(test, EXE, &[Need::Loop], || matrix(2));
}

#[test]
fn an_operation_that_nobody_races_does_nothing() {
    let test = "races::an_operation_that_nobody_races_does_nothing";
    alone(test, EXE, &[Need::Loop], || {
        let scratch = Scratch::new().unwrap();
        let disk = strict_disk(&scratch);
        let mut ground = Ground::new(&disk.at().join("ground")).unwrap();
        for operation in Operation::ALL.into_iter().chain(Operation::ALL) {
            let attacker = ground.attacker(Part::Last, operation.name(), None).unwrap();
            ground.put_right(&attacker).unwrap();
            let call = operation.prepare(&mut ground).unwrap();
            let came = call.make(&mut ground).unwrap();
            assert_eq!(came, Came::Done, "{operation:?}");
        }
        assert_eq!(ground.escapes().unwrap(), [""; 0]);
    });
}

/// What goes by path, and looks at each part before.
fn looked_at(root: &Path) -> io::Result<PathBuf> {
    let mut path = root.to_owned();
    for part in ["1", "2", "3", "f"] {
        path.push(part);
        if fs::symlink_metadata(&path)?.is_symlink() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
    }
    Ok(path)
}

/// One operation of a program that goes by path.
type ByPath = fn(&Path) -> io::Result<()>;
const BY_PATH: [(&str, ByPath); 10] = [
    ("write", |root| fs::write(looked_at(root)?, "x")),
    ("create", |root| {
        fs::write(looked_at(root)?.with_file_name("made"), "x")
    }),
    ("remove", |root| fs::remove_file(looked_at(root)?)),
    ("chmod", |root| {
        fs::set_permissions(looked_at(root)?, Permissions::from_mode(0o600))
    }),
    ("utimes", |root| {
        File::open(looked_at(root)?)?.set_modified(UNIX_EPOCH)
    }),
    ("chown", |root| chown(looked_at(root)?, Some(1), Some(1))),
    ("rename", |root| {
        looked_at(root).and_then(|f| fs::rename(&f, f.with_file_name("to")))
    }),
    ("mkdir", |root| {
        fs::create_dir(looked_at(root)?.with_file_name("sub"))
    }),
    ("read", |root| fs::read(looked_at(root)?).map(drop)),
    ("list", |root| {
        let all = fs::read_dir(looked_at(root)?.with_file_name(""))?;
        all.for_each(drop);
        Ok(())
    }),
];

#[test]
fn a_program_that_goes_by_path_is_not_found_out() {
    let test = "races::a_program_that_goes_by_path_is_not_found_out";
    alone(test, EXE, &[Need::Loop], || {
        let scratch = Scratch::new().unwrap();
        let disk = strict_disk(&scratch);
        let mut grounds = Grounds::new(disk.at());
        for (i, (what, act)) in BY_PATH.into_iter().enumerate() {
            let part = ["1", "1/2", "1/2/3"][i % 3];
            let cell = Cell {
                part: Part::Dir(part),
                flip: Flip::Link,
                user: None,
                name: "f",
                times: 50,
                seed: i as u64,
            };
            let prepare = |ground: &mut Ground| {
                fs::write(ground.root().join("1/2/3/f"), "inside")?;
                Ok(Call::ByPath(act))
            };
            let mut sum = Count::default();
            while sum.escapes.is_empty() {
                assert!(sum.tried < 50_000, "{what} below {part} is not found out");
                sum.add(grounds.play(cell, &prepare).unwrap());
            }
            println!("{what} below {part}: found out within {} calls", sum.tried);
            grounds.leave().unwrap();
        }
    });
}

/// `cargo xtask trials races --operations N`: so many acts for each part and kind.
#[test]
#[ignore = "long: cargo xtask trials races --operations N"]
fn many_exchanges_lead_the_session_out_of_its_root() {
    let test = "races::many_exchanges_lead_the_session_out_of_its_root";
    alone(test, EXE, &[Need::Loop], || {
        all(times(3000));
    });
}

fn times(unless_told: u64) -> u64 {
    let told = std::env::var("INSTEP_RACES_OPERATIONS").ok();
    told.map_or(unless_told, |text| text.parse().unwrap())
}

/// `cargo xtask trials races --operations N`: so many calls in each cell.
#[test]
#[ignore = "long: cargo xtask trials races --operations N"]
fn many_operations_are_led_out_of_the_root() {
    let test = "races::many_operations_are_led_out_of_the_root";
    alone(test, EXE, &[Need::Loop], || matrix(times(100)));
}
