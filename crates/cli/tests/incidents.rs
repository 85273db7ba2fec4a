//! What other synchronizers lost files by, done to the real program: the ledger of incidents and the catalogue of
//! faults, as far as no lower test has them. `docs/testing.md` says which is which.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

mod support;

use std::fs::{self, File, FileTimes};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use instep_testkit::cli::Cli;
use instep_testkit::compare::assert_same;
use support::{assert_untouched, has, live, program, put, see_files, stop, until};

/// One pass over these folders.
fn sync(cli: &Cli, dirs: &[&str]) {
    let args = ["sync", "--once"].iter().chain(dirs);
    let out = cli.run(&args.collect::<Vec<_>>());
    assert!([0, 4].contains(&out.code()), "{out}");
}

fn same(cli: &Cli, dirs: &[&str]) {
    let roots: Vec<_> = dirs.iter().map(|d| cli.home().join(d)).collect();
    assert_same(&roots.iter().map(AsRef::as_ref).collect::<Vec<&Path>>());
}

fn copy(from: &Path, to: &Path) {
    let mut cp = Command::new("cp");
    assert!(cp.arg("-a").arg(from).arg(to).status().unwrap().success());
}

fn set_time(path: &Path, seconds: i64) {
    let since = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 {
        SystemTime::UNIX_EPOCH - since
    } else {
        SystemTime::UNIX_EPOCH + since
    };
    let file = File::options().write(true).open(path).unwrap();
    file.set_times(FileTimes::new().set_modified(time)).unwrap();
}

#[test]
fn a_root_that_became_a_link_counts_as_emptied() {
    let cli = program();
    put(&cli, "a/x", "one");
    put(&cli, "a/d/y", "two");
    sync(&cli, &["a", "b"]);
    let before = see_files(&cli.home().join("b"));
    fs::create_dir(cli.home().join("elsewhere")).unwrap();
    fs::rename(cli.home().join("a"), cli.home().join("real")).unwrap();
    let root = cli.home().join("a");
    symlink("nowhere", &root).unwrap();
    let out = cli.run(&["sync", "--once", "a", "b"]);
    assert_ne!(out.code(), 0, "a link to nothing is no folder\n{out}");
    assert_untouched(&before, &see_files(&cli.home().join("b")));
    // A link to another folder names that folder, which is not the member that it replaced.
    fs::remove_file(&root).unwrap();
    symlink("elsewhere", &root).unwrap();
    cli.run(&["sync", "--once", "a", "b"]);
    assert_untouched(&before, &see_files(&cli.home().join("b")));
    fs::remove_file(&root).unwrap();
    fs::rename(cli.home().join("real"), &root).unwrap();
    sync(&cli, &["a", "b"]);
    assert_untouched(&before, &see_files(&cli.home().join("b")));
}

#[test]
fn a_root_that_becomes_a_link_while_it_is_watched_counts_as_emptied() {
    let cli = program();
    put(&cli, "a/x", "one");
    put(&cli, "elsewhere/z", "not ours");
    sync(&cli, &["a", "b"]);
    let session = live(&cli, &["sync", "a", "b"]);
    fs::rename(cli.home().join("a"), cli.home().join("real")).unwrap();
    symlink("elsewhere", cli.home().join("a")).unwrap();
    until("the root is told to be away", || {
        cli.run(&["status", "b"]).stdout.contains("offline")
    });
    put(&cli, "b/x", "edited meanwhile");
    assert!(has(&cli, "real/x", "one") && has(&cli, "elsewhere/z", "not ours"));
    fs::remove_file(cli.home().join("a")).unwrap();
    fs::rename(cli.home().join("real"), cli.home().join("a")).unwrap();
    until("the root is back in step", || {
        has(&cli, "a/x", "edited meanwhile")
    });
    stop(session);
    assert!(!cli.home().join("elsewhere/x").exists());
}

/// Folders with `keep/` and `going/`; then `going` becomes a link to `keep` in `a`.
fn a_directory_becomes_a_link(first: &str) {
    let cli = program();
    put(&cli, "a/keep/f", "kept");
    put(&cli, "a/going/f", "goes");
    put(&cli, "a/going/g", "goes too");
    sync(&cli, &["a", "b"]);
    fs::remove_dir_all(cli.home().join("a/going")).unwrap();
    symlink("keep", cli.home().join("a/going")).unwrap();
    let second = if first == "a" { "b" } else { "a" };
    sync(&cli, &[first, second]);
    sync(&cli, &[first, second]);
    for root in ["a", "b"] {
        assert!(has(&cli, &format!("{root}/keep/f"), "kept"), "{root}");
        let link = fs::read_link(cli.home().join(root).join("going"));
        assert_eq!(link.unwrap(), Path::new("keep"), "{root}");
    }
    same(&cli, &["a", "b"]);
}

#[test]
fn what_is_behind_a_link_is_deleted_with_the_directory_that_the_link_replaced() {
    a_directory_becomes_a_link("a");
    a_directory_becomes_a_link("b");
}

#[test]
fn a_folder_that_was_away_for_long_brings_back_what_was_deleted() {
    let cli = program();
    put(&cli, "a/old", "deleted while c is away");
    put(&cli, "a/edited", "one");
    sync(&cli, &["a", "b"]);
    fs::create_dir(cli.home().join("c")).unwrap();
    sync(&cli, &["a", "b", "c"]);
    fs::remove_file(cli.home().join("a/old")).unwrap();
    for n in 0..5 {
        put(&cli, "a/edited", &format!("edit {n}"));
        sync(&cli, &["a", "b"]);
    }
    sync(&cli, &["c", "b", "a"]);
    same(&cli, &["a", "b", "c"]);
    assert!(!cli.home().join("a/old").exists());
    assert!(has(&cli, "c/edited", "edit 4"));
}

#[test]
fn an_odd_modification_time_is_synchronized_again_and_again() {
    let cli = program();
    let times = [-1, 0, 1 << 31, 1 << 33, 4_102_444_800];
    for (n, time) in times.iter().enumerate() {
        put(&cli, &format!("a/{n}"), "text");
        set_time(&cli.home().join(format!("a/{n}")), *time);
    }
    sync(&cli, &["a", "b"]);
    same(&cli, &["a", "b"]);
    let before = [
        see_files(&cli.home().join("a")),
        see_files(&cli.home().join("b")),
    ];
    for _ in 0..2 {
        sync(&cli, &["a", "b"]);
    }
    assert_untouched(&before[0], &see_files(&cli.home().join("a")));
    assert_untouched(&before[1], &see_files(&cli.home().join("b")));
    put(&cli, "b/1", "edited");
    sync(&cli, &["a", "b"]);
    assert!(
        has(&cli, "a/1", "edited"),
        "an edit of today wins over any time"
    );
}

#[test]
fn a_session_that_was_suspended_misses_what_happened_meanwhile() {
    let cli = program();
    put(&cli, "a/x", "one");
    let session = live(&cli, &["sync", "a", "b"]);
    session.signal("STOP");
    for n in 0..50 {
        put(&cli, &format!("a/new/{n}"), "made while it was stopped");
    }
    put(&cli, "b/x", "edited while it was stopped");
    // A lease that it held must not keep anybody waiting; the write above has returned.
    session.signal("CONT");
    until("all is there", || {
        (0..50).all(|n| has(&cli, &format!("b/new/{n}"), "made while it was stopped"))
            && has(&cli, "a/x", "edited while it was stopped")
    });
    stop(session);
}

#[test]
fn a_rewrite_that_sets_the_time_back_is_missed() {
    let cli = program();
    put(&cli, "a/x", "before");
    sync(&cli, &["a", "b"]);
    let time = fs::metadata(cli.home().join("a/x")).unwrap().mtime();
    let nanos = fs::metadata(cli.home().join("a/x")).unwrap().mtime_nsec();
    put(&cli, "a/x", "behind");
    let back =
        SystemTime::UNIX_EPOCH + Duration::new(time.unsigned_abs(), u32::try_from(nanos).unwrap());
    let file = File::options()
        .write(true)
        .open(cli.home().join("a/x"))
        .unwrap();
    file.set_times(FileTimes::new().set_modified(back)).unwrap();
    drop(file);
    sync(&cli, &["a", "b"]);
    assert!(has(&cli, "b/x", "behind"));
}

#[test]
fn a_hard_link_makes_an_edit_through_the_other_name_go_unnoticed() {
    let cli = program();
    put(&cli, "a/one", "text");
    fs::hard_link(cli.home().join("a/one"), cli.home().join("a/two")).unwrap();
    sync(&cli, &["a", "b"]);
    same(&cli, &["a", "b"]);
    put(&cli, "a/two", "through the other name");
    sync(&cli, &["a", "b"]);
    for name in ["a/one", "a/two", "b/one", "b/two"] {
        assert!(has(&cli, name, "through the other name"), "{name}");
    }
    put(&cli, "b/one", "apart");
    sync(&cli, &["a", "b"]);
    assert!(has(&cli, "a/one", "apart") && has(&cli, "a/two", "through the other name"));
}

#[test]
fn a_pipe_or_a_socket_blocks_a_session_or_is_replaced() {
    let cli = program();
    let pipe = cli.home().join("a/pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let _socket = std::os::unix::net::UnixListener::bind(cli.home().join("a/socket")).unwrap();
    put(&cli, "a/x", "one");
    put(&cli, "b/pipe", "a file of this name");
    let out = cli.run(&["sync", "--once", "a", "b"]);
    assert_ne!(out.code(), 0, "the clash is told\n{out}");
    assert!(has(&cli, "b/x", "one"), "the rest goes on\n{out}");
    assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
    assert!(has(&cli, "b/pipe", "a file of this name"));
    assert!(!cli.home().join("b/socket").exists());
}

#[test]
fn a_long_file_with_holes_fills_the_other_disk() {
    const LENGTH: u64 = 5 << 30;
    let cli = program();
    let mut file = File::create(cli.home().join("a/sparse")).unwrap();
    file.set_len(LENGTH).unwrap();
    file.seek(SeekFrom::Start(LENGTH / 2)).unwrap();
    file.write_all(b"in the middle").unwrap();
    drop(file);
    sync(&cli, &["a", "b"]);
    let other = cli.home().join("b/sparse");
    let meta = fs::metadata(&other).unwrap();
    assert_eq!(meta.len(), LENGTH);
    let on_disk = meta.blocks() * 512;
    assert!(on_disk < 1 << 20, "{on_disk} bytes on disk");
    let mut read = File::open(&other).unwrap();
    read.seek(SeekFrom::Start(LENGTH / 2)).unwrap();
    let mut bytes = [0; 13];
    read.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"in the middle");
}

#[test]
fn a_folder_that_was_restored_with_its_index_takes_back_what_others_did_since() {
    let cli = program();
    put(&cli, "a/edited", "yesterday");
    put(&cli, "a/deleted", "yesterday");
    sync(&cli, &["a", "b"]);
    copy(&cli.home().join("a"), &cli.home().join("snapshot"));
    put(&cli, "a/edited", "today");
    put(&cli, "a/new", "today");
    fs::remove_file(cli.home().join("b/deleted")).unwrap();
    sync(&cli, &["a", "b"]);
    // As a snapshot of the whole folder brings it back: files, marker and index of yesterday, under the same path.
    fs::remove_dir_all(cli.home().join("a")).unwrap();
    copy(&cli.home().join("snapshot"), &cli.home().join("a"));
    fs::remove_dir_all(cli.home().join("snapshot")).unwrap();
    put(&cli, "a/made after the restore", "new");
    sync(&cli, &["a", "b"]);
    sync(&cli, &["a", "b"]);
    same(&cli, &["a", "b"]);
    assert!(has(&cli, "b/edited", "today") && has(&cli, "b/new", "today"));
    assert!(has(&cli, "b/made after the restore", "new"));
    assert!(!cli.home().join("b/deleted").exists());
}
