//! A root that went away and is back otherwise, and who may hold a root.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use instep_core::path::Name;
use instep_fs::place;
use instep_local::LocalReplica;
use instep_local::root::inspect;
use instep_replica::{ErrorKind, Replica};

use super::identity::{copy, open};
use crate::support::real::{Real, RealEnv, options};

#[test]
fn an_empty_folder_in_the_place_of_a_root_is_left_as_it_is() {
    let real = Real::new();
    let aside = real.scratch.path().join("aside");
    fs::rename(&real.root, &aside).unwrap();
    assert!(
        real.replica().renew().unwrap().is_none(),
        "nothing is there"
    );
    fs::create_dir(&real.root).unwrap();
    assert_eq!(real.replica().guard().unwrap_err().kind, ErrorKind::Gone);
    assert!(real.replica().renew().unwrap().is_none());
    assert_eq!(fs::read_dir(&real.root).unwrap().count(), 0);
    fs::remove_dir(&real.root).unwrap();
    fs::rename(&aside, &real.root).unwrap();
    real.replica().guard().unwrap();
    assert!(
        real.replica().renew().unwrap().is_none(),
        "it is in place as it was"
    );
}

#[test]
fn a_root_whose_marker_is_lost_is_gone_until_it_is_back() {
    let real = Real::new();
    let (marker, aside) = (real.root.join(".instep"), real.scratch.path().join("aside"));
    fs::rename(&marker, &aside).unwrap();
    assert_eq!(real.replica().guard().unwrap_err().kind, ErrorKind::Gone);
    assert!(real.replica().renew().unwrap().is_none());
    assert!(!marker.exists(), "it was made again");
    fs::rename(&aside, &marker).unwrap();
    real.replica().guard().unwrap();
}

#[test]
fn a_root_that_is_back_as_another_directory_is_opened_anew() {
    let real = Real::new();
    let aside = real.scratch.path().join("aside");
    fs::rename(&real.root, &aside).unwrap();
    copy(&aside, &real.root);
    let old = real.replica();
    assert_eq!(old.guard().unwrap_err().kind, ErrorKind::Gone);
    let anew = old.renew().unwrap().unwrap();
    assert_eq!((anew.id(), anew.share()), (old.id(), old.share()));
    anew.guard().unwrap();
    assert!(
        anew.is_rejoining(),
        "what was copied may be older than what was known"
    );
    assert!(old.guard().is_err(), "two replicas of one root");
    let second = LocalReplica::open(RealEnv::new(), options(&real.root, &real.state_dir()));
    assert_eq!(second.unwrap_err().kind, ErrorKind::InUse);
}

#[test]
fn a_lock_that_is_held_for_a_moment_is_no_second_session() {
    let mut real = Real::new();
    real.replica = None;
    let (root, state_dir) = (real.root.clone(), real.state_dir());
    let ours = place::open_root(&root.join(".instep")).unwrap();
    let lock = Name::new(b"lock").unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // As those do who ask who holds the root.
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                let held = ours.try_lock(lock).unwrap();
                std::thread::sleep(Duration::from_millis(1));
                drop(held);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let open_often = || (0..20).for_each(|_| drop(open(&root, &state_dir)));
        let opened = std::panic::catch_unwind(open_often);
        done.store(true, Ordering::SeqCst);
        opened.unwrap();
    });
    assert_eq!(inspect(&root, &state_dir).unwrap().holder, None);
}
