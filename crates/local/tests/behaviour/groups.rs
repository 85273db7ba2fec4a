//! What belongs together is taken together, and only when nobody is at work on it.

use std::fs;
use std::os::unix::fs::{FileExt as _, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use instep_core::plan::Outcome;
use instep_core::row::Held;
use instep_fs::sim::SimConfig;
use instep_replica::conformance::User as _;
use instep_replica::look::Found;
use instep_replica::{Look, Replica};

use super::acts::{Given, incoming, look, observe, record, row};
use crate::support::p;
use crate::support::real::Real;
use crate::support::sim::Sim;

fn database(filling: u8) -> Vec<u8> {
    let mut bytes = vec![filling; 4096];
    bytes[..16].copy_from_slice(b"SQLite format 3\0");
    bytes
}

fn found(look: &Look) -> Vec<String> {
    let here = |f: &Found| !matches!(f, Found::Refreshed { .. } | Found::Held(_));
    look.findings
        .iter()
        .filter(|f| here(&f.found))
        .map(|f| f.path.to_string())
        .collect()
}

fn waits(look: &Look, path: &str) -> bool {
    look.again.iter().any(|(again, _)| *again == p(path))
}

#[test]
fn a_database_is_taken_without_its_log_while_somebody_writes_that() {
    let real = Real::new();
    real.user.write(&p("x.db"), &database(1)).unwrap();
    real.user.write(&p("x.db-wal"), b"log").unwrap();
    let writer = fs::OpenOptions::new()
        .write(true)
        .open(real.root.join("x.db-wal"))
        .unwrap();
    let busy = look(real.replica());
    assert_eq!(found(&busy), [""; 0]);
    assert!(waits(&busy, "x.db") && waits(&busy, "x.db-wal"));
    writer.write_at(b"LOG", 0).unwrap();
    drop(writer);
    assert_eq!(found(&look(real.replica())), ["x.db", "x.db-wal"]);
}

#[test]
fn a_log_that_was_taken_in_lingers_beside_the_new_database() {
    let real = Real::new();
    real.user.write(&p("x.db"), &database(1)).unwrap();
    real.user.write(&p("x.db-wal"), b"log").unwrap();
    observe(real.replica(), &|ms| real.env.pass_ms(ms));
    real.user.write(&p("x.db"), &database(2)).unwrap();
    real.user.remove(&p("x.db-wal")).unwrap();
    assert_eq!(
        found(&look(real.replica())),
        ["x.db", "x.db-wal"],
        "in one look, unsettled"
    );
}

#[test]
fn an_incoming_log_arrives_although_its_database_is_in_use() {
    let real = Real::new();
    real.user.write(&p("x.db"), &database(1)).unwrap();
    observe(real.replica(), &|ms| real.env.pass_ms(ms));
    let writer = fs::OpenOptions::new()
        .write(true)
        .open(real.root.join("x.db"))
        .unwrap();
    let new = database(2);
    let actions = [
        incoming(real.replica(), &p("x.db"), Some(&new), 1),
        incoming(real.replica(), &p("x.db-wal"), Some(b"log"), 2),
    ];
    let given = Given::of(&[&new, b"log"]);
    let outcomes = real.replica().apply(&actions, &given).unwrap();
    assert_eq!(outcomes, [Outcome::Busy, Outcome::Busy]);
    drop(writer);
    let outcomes = real.replica().apply(&actions, &given).unwrap();
    assert_eq!(outcomes, [Outcome::Done, Outcome::Done]);
    assert_eq!(real.user.read(&p("x.db-wal")).unwrap(), b"log");
}

#[test]
fn the_shared_memory_of_a_database_is_synchronized() {
    let real = Real::new();
    real.user.write(&p("x.db"), &database(1)).unwrap();
    real.user.write(&p("x.db-shm"), &[0; 512]).unwrap();
    real.user.write(&p("plain-shm"), b"of no database").unwrap();
    observe(real.replica(), &|ms| real.env.pass_ms(ms));
    assert_eq!(
        row(real.replica(), &p("x.db-shm")).held,
        Some(Held::Ignored)
    );
    assert!(row(real.replica(), &p("plain-shm")).present().is_some());
}

#[test]
fn a_document_is_passed_on_while_it_is_being_edited() {
    let real = Real::new();
    real.user.write(&p(".~lock.a.odt#"), b",ada,host;").unwrap();
    real.user.write(&p("a.odt"), b"half").unwrap();
    let busy = look(real.replica());
    assert_eq!(found(&busy), [".~lock.a.odt#"]);
    assert!(waits(&busy, "a.odt"));
    record(real.replica(), &busy);
    let lock = fs::File::options()
        .write(true)
        .open(real.root.join(".~lock.a.odt#"))
        .unwrap();
    lock.set_modified(SystemTime::now() - Duration::from_secs(601))
        .unwrap();
    drop(lock);
    let left_behind = look(real.replica());
    assert_eq!(found(&left_behind), [".~lock.a.odt#", "a.odt"]);
    real.user.write(&p(".~lock.a.odt#"), b",ada,host;").unwrap();
    assert!(waits(&look(real.replica()), "a.odt"));
    real.user.remove(&p(".~lock.a.odt#")).unwrap();
    assert_eq!(found(&look(real.replica())), ["a.odt"]);
}

#[test]
fn a_document_waits_for_a_lock_that_no_program_made() {
    let real = Real::new();
    real.user.write(&p("d/a"), b"a").unwrap();
    fs::create_dir(real.root.join("d/.~lock.a#")).unwrap();
    real.user.write(&p("b"), b"b").unwrap();
    symlink("host", real.root.join(".~lock.b#")).unwrap();
    let seen = look(real.replica());
    assert!(!waits(&seen, "d/a"), "a directory is a lock");
    assert!(!waits(&seen, "b"), "a link is a lock");
    assert!(found(&seen).contains(&"b".to_owned()));
}

#[test]
fn a_lock_from_a_clock_that_is_ahead_holds_a_document_until_that_day() {
    let real = Real::new();
    real.user.write(&p(".~lock.a.odt#"), b",ada,host;").unwrap();
    real.user.write(&p("a.odt"), b"done").unwrap();
    let lock = fs::File::options()
        .write(true)
        .open(real.root.join(".~lock.a.odt#"))
        .unwrap();
    lock.set_modified(SystemTime::now() + Duration::from_hours(24))
        .unwrap();
    drop(lock);
    assert_eq!(found(&look(real.replica())), [".~lock.a.odt#", "a.odt"]);
}

#[test]
fn a_repository_is_passed_on_while_git_is_at_work() {
    let real = Real::new();
    real.user
        .write(&p("r/.git/HEAD"), b"ref: refs/heads/main")
        .unwrap();
    observe(real.replica(), &|ms| real.env.pass_ms(ms));
    real.user.write(&p("r/.git/index.lock"), b"").unwrap();
    real.user
        .write(&p("r/.git/HEAD"), b"ref: refs/heads/topic")
        .unwrap();
    real.user.write(&p("r/a"), b"a").unwrap();
    let busy = look(real.replica());
    assert_eq!(found(&busy), ["r/a"]);
    assert!(waits(&busy, "r/.git/HEAD"));
    record(real.replica(), &busy);
    let action = incoming(real.replica(), &p("r/.git/description"), Some(b"x"), 1);
    let outcomes = real
        .replica()
        .apply(&[action], &Given::of(&[b"x"]))
        .unwrap();
    assert_eq!(outcomes, [Outcome::Busy]);
    real.user.remove(&p("r/.git/index.lock")).unwrap();
    assert_eq!(found(&look(real.replica())), ["r/.git/HEAD"]);
}

#[test]
fn a_document_is_passed_on_because_its_lock_could_not_be_examined() {
    for (written, lock) in [
        ("d/a.odt", "d/.~lock.a.odt#"),
        ("d/.git/HEAD", "d/.git/index.lock"),
    ] {
        for nth in 0.. {
            let sim = Sim::new(SimConfig::ext4(1));
            sim.write(&p(lock), b"").unwrap();
            sim.write(&p(written), b"half").unwrap();
            let calls = Arc::new(AtomicU32::new(0));
            let counted = calls.clone();
            sim.fs().set_hook(Box::new(move |fs, op| {
                if op == "stat" && counted.fetch_add(1, Ordering::SeqCst) == nth {
                    fs.fail_next("stat", 1, 5);
                }
            }));
            let look = look(sim.replica());
            assert!(waits(&look, written), "{written}, call {nth}: {look:?}");
            assert!(!found(&look).contains(&written.to_owned()));
            if calls.load(Ordering::SeqCst) <= nth {
                assert!(nth > 0, "{lock} is never asked for");
                break;
            }
        }
    }
}
