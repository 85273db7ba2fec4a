//! Whose store it is: moved, copied, restored, lost.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

mod support;

use std::fs;

use instep_core::id::ShareId;
use instep_hub::{Collected, HubOptions, HubReplica};
use instep_replica::env::Env;
use instep_replica::{Book, ErrorKind, Replica};

use support::real::{Real, copy};
use support::{bring, p, random, read};

/// A hub with a copy of its stores of yesterday, closed.
fn with_yesterday() -> (Real, std::path::PathBuf) {
    let mut real = Real::new();
    bring(real.hub().as_ref(), &p("a"), 1, Some(b"yesterday"));
    real.hub().close().unwrap();
    real.kill();
    let yesterday = real.scratch.path().join("yesterday");
    copy(&real.home(), &yesterday);
    (real, yesterday)
}

fn put_back(real: &Real, yesterday: &std::path::Path, file: &str) {
    for suffix in ["-wal", "-shm"] {
        let _there_or_not = fs::remove_file(real.home().join(format!("{file}{suffix}")));
    }
    fs::copy(yesterday.join(file), real.home().join(file)).unwrap();
}

#[test]
fn a_store_of_yesterday_passes_for_todays() {
    let (mut real, yesterday) = with_yesterday();
    real.open();
    assert!(!real.hub().is_rejoining(), "nothing happened to it");
    let (id, actor) = (real.hub().id(), real.hub().actor());
    let today = random(3, 100_000);
    bring(real.hub().as_ref(), &p("a"), 2, Some(&today));
    let dot = real.hub().mint().unwrap();
    real.hub().close().unwrap();
    real.kill();
    put_back(&real, &yesterday, "index.db");
    put_back(&real, &yesterday, "contents.db");
    real.open();
    let hub = real.hub();
    assert!(hub.is_rejoining(), "it went back in time unnoticed");
    assert_eq!(hub.id(), id);
    assert_ne!(hub.actor(), actor, "dots of today would be minted again");
    assert_ne!(hub.mint().unwrap(), dot);
    assert_eq!(
        read(hub.as_ref(), b"yesterday").unwrap().unwrap(),
        b"yesterday"
    );
    // What the others bring makes it whole again.
    bring(hub.as_ref(), &p("a"), 2, Some(&today));
    hub.rejoined().unwrap();
    hub.close().unwrap();
    real.open();
    assert!(!real.hub().is_rejoining());
}

/// It ran for weeks without being opened again, and was copied while it did.
#[test]
fn a_copy_of_a_running_hub_passes_for_it() {
    let mut real = Real::new();
    bring(real.hub().as_ref(), &p("a"), 1, Some(b"yesterday"));
    real.hub().barrier().unwrap();
    let yesterday = real.scratch.path().join("yesterday");
    copy(&real.home(), &yesterday);
    real.env.sleep_ms(24 * 3600 * 1000);
    bring(real.hub().as_ref(), &p("a"), 2, Some(b"today"));
    real.hub().barrier().unwrap();
    real.kill();
    put_back(&real, &yesterday, "index.db");
    fs::copy(
        yesterday.join("index.db-wal"),
        real.home().join("index.db-wal"),
    )
    .unwrap();
    real.open();
    assert!(real.hub().is_rejoining());
}

#[test]
fn contents_of_yesterday_are_shown_as_todays() {
    let (mut real, yesterday) = with_yesterday();
    real.open();
    let today = random(3, 200_000);
    bring(real.hub().as_ref(), &p("big"), 2, Some(&today));
    bring(real.hub().as_ref(), &p("small"), 3, Some(b"small"));
    real.hub().close().unwrap();
    real.kill();
    put_back(&real, &yesterday, "contents.db");
    real.open();
    let hub = real.hub();
    let row = |path: &str| hub.row(&p(path)).unwrap().unwrap();
    assert!(row("big").present().is_none(), "nobody knows its chunks");
    assert!(
        !row("big").entry.is_empty(),
        "and that it is there is known"
    );
    assert!(row("small").present().is_some() && row("a").present().is_some());
    assert_eq!(read(hub.as_ref(), b"small").unwrap().unwrap(), b"small");
    assert!(hub.verify(&|| false).unwrap().flaws.is_empty());
}

#[test]
fn a_damaged_store_is_emptied_silently() {
    let (mut real, _) = with_yesterday();
    fs::write(real.home().join("index.db"), vec![7; 50_000]).unwrap();
    real.open();
    assert!(real.hub().is_rejoining());
    assert!(real.home().join("index.db.aside-0").exists());
    assert!(real.hub().row(&p("a")).unwrap().is_none());
    assert!(read(real.hub().as_ref(), b"yesterday").unwrap().is_some());
}

#[test]
fn a_hub_that_lost_its_marker_forgets_everything() {
    let (mut real, _) = with_yesterday();
    fs::remove_file(real.home().join("hub.json")).unwrap();
    assert_eq!(real.try_open().map(drop).unwrap_err().kind, ErrorKind::Gone);
    let again = HubReplica::create(&real.home(), real.env.clone(), real.options()).unwrap();
    assert!(again.is_rejoining());
    assert_eq!(again.collect().unwrap(), Collected::default());
    assert_eq!(read(&again, b"yesterday").unwrap().unwrap(), b"yesterday");
    assert!(again.row(&p("a")).unwrap().unwrap().present().is_some());
    drop(again);
    real.open();
    assert!(real.hub().is_rejoining(), "nobody has told it everything");
}

#[test]
fn a_copied_hub_is_taken_for_the_original() {
    let (mut real, _) = with_yesterday();
    real.open();
    let (id, actor) = (real.hub().id(), real.hub().actor());
    let copied = real.scratch.path().join("data/copied");
    copy(&real.home(), &copied);
    let second = HubReplica::open(&copied, real.env.clone(), real.options()).unwrap();
    assert!(second.is_rejoining());
    assert_ne!(second.id(), id);
    assert_ne!(second.actor(), actor);
}

#[test]
fn a_moved_hub_is_somebody_else() {
    let (mut real, _) = with_yesterday();
    real.open();
    let id = real.hub().id();
    real.kill();
    let moved = real.scratch.path().join("data/moved");
    copy(&real.home(), &moved);
    fs::remove_dir_all(real.home()).unwrap();
    let second = HubReplica::open(&moved, real.env.clone(), real.options()).unwrap();
    assert_eq!(second.id(), id);
    assert!(second.is_rejoining(), "it may be an old copy");
}

/// The directory was away, and another one that is the same has its place: a disk was mounted anew.
#[test]
fn a_hub_that_comes_back_stays_away() {
    let (mut real, _) = with_yesterday();
    real.open();
    let aside = real.scratch.path().join("aside");
    fs::rename(real.home(), &aside).unwrap();
    assert_eq!(real.hub().guard().unwrap_err().kind, ErrorKind::Gone);
    assert!(real.hub().renew().is_err(), "nothing is there");
    copy(&aside, &real.home());
    assert_eq!(real.hub().guard().unwrap_err().kind, ErrorKind::Gone);
    let again = real.hub().renew().unwrap().unwrap();
    again.guard().unwrap();
    assert_eq!(again.id(), real.hub().id());
    fs::remove_dir_all(real.home()).unwrap();
    fs::rename(&aside, real.home()).unwrap();
    real.hub().guard().unwrap();
    assert!(real.hub().renew().unwrap().is_none());
}

#[test]
fn another_share_or_no_hub_is_opened() {
    let (real, _) = with_yesterday();
    let other = HubOptions {
        share: ShareId([8; 16]),
        ..real.options()
    };
    assert!(HubReplica::open(&real.home(), real.env.clone(), other).is_err());
    let empty = real.scratch.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let none = HubReplica::open(&empty, real.env.clone(), real.options());
    assert_eq!(none.map(drop).unwrap_err().kind, ErrorKind::Gone);
}

#[test]
fn what_the_hub_knows_of_itself_is_in_a_book() {
    let real = Real::new();
    let hub = real.hub();
    hub.write_record(Book::Share, "counter", Some("{}"))
        .unwrap();
    assert_eq!(
        hub.records(Book::Share).unwrap(),
        [("counter".into(), "{}".into())]
    );
    let one = hub.mint().unwrap();
    let two = hub.mint().unwrap();
    assert!(two.counter == one.counter + 1);
}
