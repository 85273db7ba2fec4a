//! The database on a real disk: crashes, damage, other formats, other processes.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

mod support;

use std::fs::{self, OpenOptions};
use std::io::{BufReader, Write as _};
use std::ops::ControlFlow;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use instep_core::path::RelPath;
use instep_store::{
    Durability, ErrorKind, IndexStore, OpenMode, SqliteStore, StoreError, Table, check_rows,
};
use support::{path, scanned};

fn numbered(n: u64) -> RelPath {
    path(&format!(
        "projects/year-{:04}/module-{:03}/file-{n:07}.txt",
        n / 5000,
        n / 50 % 100
    ))
}

fn fresh() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("index.db");
    (dir, file)
}

fn filled(file: &Path, rows: u64) -> SqliteStore {
    let mut store = SqliteStore::open(file, OpenMode::Create).unwrap();
    for n in 0..rows {
        store.put(&numbered(n), &scanned(n)).unwrap();
    }
    store.commit(Durability::Power).unwrap();
    store
}

fn count(store: &mut dyn IndexStore) -> u64 {
    let mut rows = 0;
    store
        .subtree(&RelPath::root(), &mut |_, _| {
            rows += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    rows
}

#[test]
fn a_missing_or_emptied_index_is_not_taken_for_a_new_one() {
    let (_dir, file) = fresh();
    for mode in [OpenMode::Existing, OpenMode::ReadOnly] {
        assert!(matches!(
            SqliteStore::open(&file, mode),
            Err(StoreError::Missing)
        ));
        assert!(!file.exists());
    }
    fs::write(&file, b"").unwrap();
    for mode in [OpenMode::Existing, OpenMode::ReadOnly] {
        let e = SqliteStore::open(&file, mode).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Corrupt, "{e}");
    }
}

#[test]
fn only_the_owner_can_read_an_index() {
    let (dir, file) = fresh();
    let _store = filled(&file, 1);
    for entry in fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(
            entry.metadata().unwrap().mode() & 0o777,
            0o600,
            "{:?}",
            entry.path()
        );
    }
}

#[test]
fn an_index_opens_through_its_directorys_descriptor() {
    let (dir, file) = fresh();
    drop(filled(&file, 3));
    let fd = fs::File::open(dir.path()).unwrap();
    let through = PathBuf::from(format!("/proc/self/fd/{}/index.db", fd.as_raw_fd()));
    let mut store = SqliteStore::open(&through, OpenMode::Existing).unwrap();
    store.remove(&numbered(0)).unwrap();
    store.commit(Durability::Power).unwrap();
    drop(store);
    assert_eq!(
        count(&mut SqliteStore::open(&file, OpenMode::ReadOnly).unwrap()),
        2
    );
}

/// What somebody put into a directory, and what is there afterwards.
struct Bait(PathBuf);

impl Bait {
    const NAMES: [&str; 4] = [
        "index.db",
        "index.db-journal",
        "index.db-shm",
        "index.db-wal",
    ];

    fn lay(at: PathBuf) -> Self {
        fs::create_dir(&at).unwrap();
        for name in Self::NAMES {
            fs::write(at.join(name), "of somebody else").unwrap();
        }
        Self(at)
    }

    fn untouched(&self) -> bool {
        let names = fs::read_dir(&self.0).unwrap().count();
        let same = |n| fs::read(self.0.join(n)).is_ok_and(|b| b == b"of somebody else");
        names == 4 && Self::NAMES.into_iter().all(same)
    }
}

#[test]
fn an_index_is_led_to_where_a_link_took_the_place_of_its_directory() {
    let top = tempfile::tempdir().unwrap();
    let [here, moved] = ["here", "moved"].map(|n| top.path().join(n));
    let bait = Bait::lay(top.path().join("bait"));
    fs::create_dir(&here).unwrap();
    let mut store = filled(&here.join("index.db"), 3);
    fs::rename(&here, &moved).unwrap();
    std::os::unix::fs::symlink(&bait.0, &here).unwrap();
    for i in 0..3 {
        store.remove(&numbered(i)).unwrap();
        store.commit(Durability::Power).unwrap();
    }
    let mut reader = SqliteStore::open(&moved.join("index.db"), OpenMode::ReadOnly).unwrap();
    assert_eq!(count(&mut reader), 0);
    // A reader that goes last leaves the log behind.
    drop(reader);
    drop(store);
    assert!(bait.untouched());
    assert_eq!(fs::read_dir(&moved).unwrap().count(), 1);
}

#[test]
fn the_last_of_two_connections_goes_by_a_number_that_now_means_something_else() {
    let top = tempfile::tempdir().unwrap();
    let bait = Bait::lay(top.path().join("bait"));
    let here = top.path().join("here");
    fs::create_dir(&here).unwrap();
    let first = filled(&here.join("index.db"), 3);
    let mut second = SqliteStore::open(&here.join("index.db"), OpenMode::Existing).unwrap();
    drop(first);
    // Whatever number is free now is that of the bait.
    let free: Vec<_> = (0..64).map(|_| fs::File::open(&bait.0).unwrap()).collect();
    assert_eq!(count(&mut second), 3);
    drop(second);
    drop(free);
    assert!(bait.untouched());
    assert_eq!(fs::read_dir(&here).unwrap().count(), 1);
}

#[test]
fn a_newer_format_and_foreign_files_are_refused() {
    let (_dir, file) = fresh();
    drop(filled(&file, 1));
    let set = |name: &str, value: i64| {
        rusqlite::Connection::open(&file)
            .unwrap()
            .pragma_update(None, name, value)
            .unwrap();
    };
    set("user_version", 2);
    let refused = SqliteStore::open(&file, OpenMode::Existing);
    assert!(matches!(
        refused,
        Err(StoreError::NewerFormat { found: 2, known: 1 })
    ));
    set("user_version", 0);
    let refused = SqliteStore::open(&file, OpenMode::Existing);
    assert!(matches!(refused, Err(StoreError::Corrupt { .. })));
    set("application_id", 5);
    let refused = SqliteStore::open(&file, OpenMode::Create);
    assert!(matches!(refused, Err(StoreError::NotAnIndex { found: 5 })));
    fs::write(&file, b"a letter to somebody\n".repeat(500)).unwrap();
    let refused = SqliteStore::open(&file, OpenMode::Create);
    assert!(matches!(refused, Err(StoreError::Corrupt { .. })));
}

#[test]
fn a_trigger_that_somebody_planted_is_refused() {
    let (_dir, file) = fresh();
    drop(filled(&file, 1));
    rusqlite::Connection::open(&file)
        .unwrap()
        .execute_batch("CREATE TRIGGER t AFTER INSERT ON meta BEGIN DELETE FROM entry; END")
        .unwrap();
    let refused = SqliteStore::open(&file, OpenMode::Existing);
    assert!(matches!(refused, Err(StoreError::Corrupt { .. })));
}

#[test]
fn a_link_in_the_place_of_the_index_is_refused() {
    let (dir, file) = fresh();
    let elsewhere = dir.path().join("elsewhere.db");
    drop(filled(&elsewhere, 1));
    std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
    for mode in [OpenMode::Create, OpenMode::Existing, OpenMode::ReadOnly] {
        assert!(matches!(
            SqliteStore::open(&file, mode),
            Err(StoreError::Corrupt { .. })
        ));
    }
}

#[test]
fn writing_through_a_reader_is_refused() {
    let (_dir, file) = fresh();
    drop(filled(&file, 1));
    let mut reader = SqliteStore::open(&file, OpenMode::ReadOnly).unwrap();
    let refused = reader.put(&path("a"), &scanned(1));
    assert!(matches!(refused, Err(StoreError::ReadOnly { .. })));
    assert!(!reader.is_dirty());
    reader.commit(Durability::Power).unwrap();
}

#[test]
fn a_full_disk_leaves_the_last_commit_and_no_half_of_the_next() {
    let (_dir, file) = fresh();
    drop(filled(&file, 10));
    let pages: i64 = {
        let conn = rusqlite::Connection::open(&file).unwrap();
        conn.pragma_query_value(None, "page_count", |r| r.get(0))
            .unwrap()
    };
    let mut store = SqliteStore::open(&file, OpenMode::Existing).unwrap();
    store.limit_pages(pages as u32 + 2).unwrap();
    let failed = (10..10_000)
        .find_map(|n| store.put(&numbered(n), &scanned(n)).err())
        .unwrap();
    assert_eq!(failed.kind(), ErrorKind::NoSpace, "{failed}");
    assert_eq!(
        store.commit(Durability::Process).unwrap_err().kind(),
        ErrorKind::Rollback
    );
    assert_eq!(
        store.put(&path("a"), &scanned(1)).unwrap_err().kind(),
        ErrorKind::Rollback
    );
    store.rollback().unwrap();
    assert!(!store.is_dirty());
    assert_eq!(count(&mut store), 10);
    store.put(&numbered(10), &scanned(10)).unwrap();
    store.commit(Durability::Power).unwrap();
    assert_eq!(count(&mut store), 11);
}

/// Whatever byte is damaged, an answer is right, or an error that says "damaged". Never a panic, never a
/// row that nobody wrote.
#[test]
fn damaged_pages_are_errors_and_not_absent_rows() {
    let (dir, file) = fresh();
    drop(filled(&file, 400));
    let sound = fs::read(&file).unwrap();
    let copy = dir.path().join("copy.db");
    let mut noticed = 0;
    let mut seed = 0x1234_5678_u64;
    for round in 0..300 {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let at = (seed >> 20) as usize % sound.len();
        let mut bytes = sound.clone();
        match round % 3 {
            0 => bytes[at] ^= 1 << (seed % 8),
            1 => bytes[at / 4096 * 4096..][..4096].fill(0),
            _ => bytes.truncate(at),
        }
        for suffix in ["", "-wal", "-shm"] {
            // Nothing to remove in the first round.
            fs::remove_file(dir.path().join(format!("copy.db{suffix}"))).ok();
        }
        fs::write(&copy, &bytes).unwrap();
        let outcome = SqliteStore::open(&copy, OpenMode::Existing).and_then(|mut store| {
            let report = store.check()?;
            let (mut rows, mut sound) = (0, true);
            store.subtree(&RelPath::root(), &mut |p, row| {
                sound &= p == numbered(rows) && row == scanned(rows);
                rows += 1;
                ControlFlow::Continue(())
            })?;
            Ok((report, sound && rows == 400))
        });
        match outcome {
            Ok((report, sound)) => {
                assert!(sound || !report.is_clean(), "round {round}, byte {at}");
                noticed += u32::from(!report.is_clean());
            }
            Err(e) => {
                assert!(
                    matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::Newer),
                    "round {round}, byte {at}: {e:?}"
                );
                noticed += 1;
            }
        }
    }
    assert!(noticed > 230, "only {noticed} of 300 damages were noticed");
}

#[test]
fn a_damaged_row_is_named() {
    let (_dir, file) = fresh();
    drop(filled(&file, 1));
    let conn = rusqlite::Connection::open(&file).unwrap();
    conn.execute("UPDATE entry SET body = substr(body, 1, 20)", [])
        .unwrap();
    drop(conn);
    let mut store = SqliteStore::open(&file, OpenMode::Existing).unwrap();
    let e = store.get(&numbered(0)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Corrupt);
    assert!(e.to_string().contains("file-0000000.txt"), "{e}");
}

#[test]
fn a_log_torn_at_any_byte_ends_with_a_whole_commit() {
    let (dir, file) = fresh();
    let mut store = SqliteStore::open(&file, OpenMode::Create).unwrap();
    store.commit(Durability::Power).unwrap();
    for n in 0..20 {
        store.put(&numbered(2 * n), &scanned(n)).unwrap();
        store.put(&numbered(2 * n + 1), &scanned(n)).unwrap();
        store.commit(Durability::Process).unwrap();
    }
    let (db, log) = (
        fs::read(&file).unwrap(),
        fs::read(dir.path().join("index.db-wal")).unwrap(),
    );
    // Creation takes one commit of the log; tear only what came after it.
    let mut counts = Vec::new();
    for cut in (log.len() / 2..=log.len()).step_by(997) {
        let torn = dir.path().join(format!("torn-{cut}.db"));
        fs::write(&torn, &db).unwrap();
        fs::write(dir.path().join(format!("torn-{cut}.db-wal")), &log[..cut]).unwrap();
        let mut store = SqliteStore::open(&torn, OpenMode::Existing).unwrap();
        let rows = count(&mut store);
        assert_eq!(rows % 2, 0, "half of a commit after {cut} bytes");
        assert_eq!(check_rows(&mut store).unwrap().rows, rows);
        counts.push(rows);
    }
    assert!(counts.is_sorted() && counts[0] < 40, "{counts:?}");
}

#[test]
fn a_durable_commit_leaves_nothing_of_the_log_unflushed() {
    let (_dir, file) = fresh();
    let mut store = filled(&file, 10);
    assert!(!store.is_unflushed());
    store.put(&path("a"), &scanned(1)).unwrap();
    store.commit(Durability::Process).unwrap();
    assert!(store.is_unflushed());
    store.commit(Durability::Process).unwrap();
    assert!(store.is_unflushed());
    store.commit(Durability::Power).unwrap();
    assert!(!store.is_unflushed());
}

#[test]
fn a_row_takes_less_than_200_bytes_on_disk() {
    let (_dir, file) = fresh();
    drop(filled(&file, 100_000));
    let size = fs::metadata(&file).unwrap().len();
    assert!(size < 200 * 100_000, "{} bytes a row", size / 100_000);
    assert!(
        !file.with_extension("db-wal").exists(),
        "the last handle puts the log away"
    );
}

#[test]
fn the_log_does_not_grow_without_bound() {
    let (dir, file) = fresh();
    let mut store = SqliteStore::open(&file, OpenMode::Create).unwrap();
    for round in 0..200 {
        for n in 0..500 {
            store.put(&numbered(n), &scanned(n + round)).unwrap();
        }
        store.commit(Durability::Process).unwrap();
    }
    let log = fs::metadata(dir.path().join("index.db-wal")).unwrap().len();
    assert!(log < 24 << 20, "{log} bytes");
}

// --- other processes: this binary again, running one of the ignored tests below.

const FILE: &str = "INSTEP_STORE_TEST_FILE";

fn child(test: &str, file: &Path) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            test,
            "--exact",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(FILE, file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    (child, out)
}

/// Reads until the child says it is ready; the test harness prints lines of its own before.
fn await_line(out: &mut impl std::io::BufRead, wanted: &str) -> String {
    let mut line = String::new();
    loop {
        line.clear();
        assert_ne!(
            out.read_line(&mut line).unwrap(),
            0,
            "the child ended before {wanted:?}"
        );
        if let Some(at) = line.find(wanted) {
            return line[at + wanted.len()..].trim().to_owned();
        }
    }
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{text}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

fn block_until_told() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
}

fn file_of_parent() -> PathBuf {
    PathBuf::from(std::env::var_os(FILE).unwrap())
}

#[test]
#[ignore = "runs only as the child of a_killed_writer_leaves_its_last_commit"]
fn child_writes_without_end() {
    let mut store = SqliteStore::open(&file_of_parent(), OpenMode::Create).unwrap();
    for n in 0..7 {
        store.put(&numbered(n), &scanned(n)).unwrap();
        store
            .put_record(Table::Intent, &n.to_be_bytes(), b"x")
            .unwrap();
        store.commit(Durability::Process).unwrap();
    }
    // More than the page cache holds, so that uncommitted pages are already in the log.
    for n in 7..40_000 {
        store.put(&numbered(n), &scanned(n)).unwrap();
    }
    say("in the middle");
    block_until_told();
}

#[test]
fn a_killed_writer_leaves_its_last_commit() {
    let (_dir, file) = fresh();
    let (mut child, mut out) = child("child_writes_without_end", &file);
    await_line(&mut out, "in the middle");
    let mut reader = SqliteStore::open(&file, OpenMode::ReadOnly).unwrap();
    assert_eq!(count(&mut reader), 7);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(count(&mut reader), 7);
    drop(reader);
    let mut store = SqliteStore::open(&file, OpenMode::Existing).unwrap();
    let report = store.check().unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.rows, 7);
    assert_eq!(
        store.record(Table::Intent, &6_u64.to_be_bytes()).unwrap(),
        Some(b"x".to_vec())
    );
    store.put(&numbered(7), &scanned(7)).unwrap();
    store.commit(Durability::Power).unwrap();
}

#[test]
#[ignore = "runs only as the child of other_processes_read_while_one_writes"]
fn child_reads_again_and_again() {
    let mut store = SqliteStore::open(&file_of_parent(), OpenMode::ReadOnly).unwrap();
    say("open");
    loop {
        let mut request = String::new();
        if std::io::stdin().read_line(&mut request).unwrap() == 0 {
            return;
        }
        say(&format!("rows {}", count(&mut store)));
    }
}

#[test]
fn other_processes_read_while_one_writes() {
    let (_dir, file) = fresh();
    let mut store = filled(&file, 10);
    let mut readers: Vec<_> = (0..2)
        .map(|_| child("child_reads_again_and_again", &file))
        .collect();
    for (_, out) in &mut readers {
        await_line(out, "open");
    }
    for n in 10..20 {
        store.put(&numbered(n), &scanned(n)).unwrap();
        for (reader, out) in &mut readers {
            reader.stdin.as_mut().unwrap().write_all(b"?\n").unwrap();
            assert_eq!(
                await_line(out, "rows "),
                n.to_string(),
                "nothing uncommitted is seen"
            );
        }
        store.commit(Durability::Process).unwrap();
    }
    for (mut reader, mut out) in readers {
        reader.stdin.as_mut().unwrap().write_all(b"?\n").unwrap();
        assert_eq!(await_line(&mut out, "rows "), "20");
        drop(reader.stdin.take());
        assert!(reader.wait().unwrap().success());
    }
}

#[test]
fn a_second_writer_is_told_that_the_index_is_busy() {
    let (_dir, file) = fresh();
    let mut one = filled(&file, 1);
    let mut two = SqliteStore::open(&file, OpenMode::Existing).unwrap();
    two.set_patience(std::time::Duration::ZERO).unwrap();
    one.put(&path("a"), &scanned(1)).unwrap();
    assert_eq!(
        two.put(&path("b"), &scanned(2)).unwrap_err().kind(),
        ErrorKind::Busy
    );
    assert!(!two.is_dirty());
    one.commit(Durability::Process).unwrap();
    two.put(&path("b"), &scanned(2)).unwrap();
    two.commit(Durability::Process).unwrap();
    assert_eq!(count(&mut one), 3);
}

#[test]
fn a_zeroed_header_is_damage() {
    let (_dir, file) = fresh();
    drop(filled(&file, 5));
    OpenOptions::new()
        .write(true)
        .open(&file)
        .unwrap()
        .write_all_at(&[0; 100], 0)
        .unwrap();
    for mode in [OpenMode::Create, OpenMode::Existing, OpenMode::ReadOnly] {
        let e = SqliteStore::open(&file, mode).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Corrupt, "{e:?}");
    }
}

#[test]
fn a_flipped_bit_in_the_head_is_taken_for_a_difficulty_that_passes() {
    let (_dir, file) = fresh();
    drop(filled(&file, 1));
    let mut bytes = fs::read(&file).unwrap();
    // The format of the tables' description: 4 in every file that SQLite writes.
    bytes[47] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let e = SqliteStore::open(&file, OpenMode::Existing).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Corrupt, "{e}");
}

#[test]
fn an_index_that_was_taken_away_or_replaced_is_noticed() {
    let (dir, file) = fresh();
    let store = filled(&file, 5);
    assert!(store.is_still_at(&file));
    let aside = dir.path().join("aside.db");
    fs::rename(&file, &aside).unwrap();
    assert!(!store.is_still_at(&file));
    fs::copy(&aside, &file).unwrap();
    assert!(!store.is_still_at(&file));
}
