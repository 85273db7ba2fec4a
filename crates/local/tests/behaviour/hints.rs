//! Following hints alone, as a live session does for an hour between two full looks: nothing stays unseen.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use instep_core::path::RelPath;
use instep_core::plan::Outcome;
use instep_fs::sim::{SimConfig, SimFs};
use instep_replica::conformance::User as _;
use instep_replica::{Replica, Scope};

use super::acts::{Given, incoming, observe, record, row};
use super::modes::directory;
use crate::support::p;
use crate::support::sim::Sim;

/// A machine that watches and has seen these files.
fn watching(names: &[&str]) -> Sim {
    let sim = Sim::with_watch(SimConfig::ext4(1), true);
    for name in names {
        sim.write(&p(name), name.as_bytes()).unwrap();
    }
    sim.replica()
        .watch(instep_replica::Waker::default())
        .unwrap();
    observe(sim.replica(), &|ms| pass(&sim.fs(), ms));
    sim.replica().take_hints();
    sim
}

fn pass(fs: &SimFs, ms: u64) {
    fs.advance(ms.cast_signed() * 1_000_000);
}

/// Looks where hints point, and again where it is told to, until there is nothing more.
fn follow(sim: &Sim) {
    let mut again: BTreeSet<RelPath> = BTreeSet::new();
    for _ in 0..50 {
        let hints = sim.replica().take_hints();
        assert!(!hints.lost, "every hint is needed here");
        let mut paths = hints.paths;
        paths.append(&mut again);
        if paths.is_empty() && hints.trees.is_empty() {
            return;
        }
        let trees = hints.trees;
        let look = sim.replica().look(&Scope::Some { paths, trees }).unwrap();
        again.extend(look.again.iter().map(|(path, _)| path.clone()));
        pass(
            &sim.fs(),
            look.again.iter().map(|(_, ms)| *ms).max().unwrap_or(0),
        );
        record(sim.replica(), &look);
    }
    panic!("hints never come to an end");
}

fn knows(sim: &Sim, path: &str) -> bool {
    row(sim.replica(), &p(path)).present().is_some()
}

/// On many file systems it even gets the same inode number.
#[test]
fn what_is_in_a_directory_made_again_at_once_is_never_seen() {
    let sim = watching(&["d/old"]);
    let ino = sim.fs().stat("d").unwrap().ino;
    sim.remove(&p("d")).unwrap();
    sim.mkdir(&p("d")).unwrap();
    assert_eq!(sim.fs().stat("d").unwrap().ino, ino);
    sim.write(&p("d/early"), b"x").unwrap();
    follow(&sim);
    assert!(knows(&sim, "d/early") && !knows(&sim, "d/old"));
    sim.write(&p("d/late"), b"x").unwrap();
    follow(&sim);
    assert!(knows(&sim, "d/late"));
}

#[test]
fn what_was_in_a_directory_that_was_missed_for_a_moment_is_never_missed() {
    let sim = watching(&["d/a", "d/sub/b"]);
    sim.remove(&p("d")).unwrap();
    let missed = sim.replica().look(&Scope::Everything).unwrap();
    assert_eq!(missed.again.len(), 1);
    record(sim.replica(), &missed);
    sim.mkdir(&p("d")).unwrap();
    sim.replica().take_hints();
    let due = Scope::Some {
        paths: [p("d")].into(),
        trees: BTreeSet::new(),
    };
    record(sim.replica(), &sim.replica().look(&due).unwrap());
    follow(&sim);
    assert!(knows(&sim, "d") && !knows(&sim, "d/a") && !knows(&sim, "d/sub/b"));
}

/// The event of the file may come before that of the directory, and the session may end between the two.
#[test]
fn what_was_in_a_directory_that_only_its_file_led_to_is_never_missed() {
    let sim = watching(&["d/old"]);
    sim.remove(&p("d")).unwrap();
    observe(sim.replica(), &|ms| pass(&sim.fs(), ms));
    sim.replica().take_hints();
    sim.write(&p("d/new"), b"x").unwrap();
    let file_alone = Scope::Some {
        paths: [p("d/new")].into(),
        trees: BTreeSet::new(),
    };
    record(sim.replica(), &sim.replica().look(&file_alone).unwrap());
    assert!(knows(&sim, "d/new") && knows(&sim, "d"));
    sim.remove(&p("d")).unwrap();
    observe(sim.replica(), &|ms| pass(&sim.fs(), ms));
    assert!(!knows(&sim, "d/new") && !knows(&sim, "d"));
}

/// A file arrives for a directory that a user renamed a moment ago.
#[test]
fn what_left_with_a_directory_that_we_made_again_is_never_missed() {
    let sim = watching(&["d/a"]);
    sim.rename(&p("d"), &p("e")).unwrap();
    let action = incoming(sim.replica(), &p("d/new"), Some(b"new"), 1);
    let outcomes = sim
        .replica()
        .apply(&[action], &Given::of(&[b"new"]))
        .unwrap();
    assert_eq!(outcomes, [Outcome::Done]);
    follow(&sim);
    assert!(knows(&sim, "d/new") && knows(&sim, "e/a") && !knows(&sim, "d/a"));
}

/// The directory cannot be opened, or listed, right after it was made and before it is watched.
#[test]
fn what_came_into_a_directory_while_we_made_it_is_never_seen() {
    for fails in ["open_dir", "list"] {
        let sim = watching(&["a"]);
        let done = AtomicBool::new(false);
        sim.fs().set_hook(Box::new(move |fs, op| {
            if op == "open_dir" && fs.exists("d") && !done.swap(true, Ordering::SeqCst) {
                fs.symlink(b"a", "d/early").unwrap();
                fs.fail_next(fails, 1, 5);
            }
        }));
        let action = directory(&sim, 0o755);
        let outcomes = sim.replica().apply(&[action], &Given::default()).unwrap();
        sim.fs().clear_hook();
        assert_eq!(outcomes, [Outcome::Done]);
        follow(&sim);
        assert!(knows(&sim, "d/early"), "where {fails} fails");
    }
}

/// Something happens before one call of a look, and then never again; whether the look had so many calls.
fn looks_while(sim: &Sim, scope: &Scope, at: usize, act: fn(&SimFs)) -> bool {
    let happened = Arc::new(AtomicBool::new(false));
    let (told, mut left) = (happened.clone(), at);
    sim.fs().set_hook(Box::new(move |fs, _| {
        if left == 0 && !told.swap(true, Ordering::SeqCst) {
            act(fs);
        }
        left = left.saturating_sub(1);
    }));
    let look = sim.replica().look(scope).unwrap();
    sim.fs().clear_hook();
    record(sim.replica(), &look);
    happened.load(Ordering::SeqCst)
}

#[test]
fn a_directory_that_vanishes_while_it_is_first_seen_is_never_missed() {
    for at in 0.. {
        let sim = Sim::new(SimConfig::ext4(1));
        sim.mkdir(&p("d/e/g")).unwrap();
        let vanishes = |fs: &SimFs| fs.remove_all("d/e/g").unwrap();
        if !looks_while(&sim, &Scope::Everything, at, vanishes) {
            assert!(at > 5, "{at} calls");
            return;
        }
        observe(sim.replica(), &|ms| pass(&sim.fs(), ms));
        assert!(!knows(&sim, "d/e/g"), "before call {at}");
    }
}

#[test]
fn what_a_directory_had_that_is_made_again_while_it_is_looked_at_is_never_missed() {
    for at in 0.. {
        let sim = watching(&["d/e/a", "d/e/g/b", "d/b"]);
        sim.remove(&p("d")).unwrap();
        sim.mkdir(&p("d")).unwrap();
        let hints = sim.replica().take_hints();
        let scope = Scope::Some {
            paths: hints.paths,
            trees: hints.trees,
        };
        let comes_back = |fs: &SimFs| fs.mkdir_all("d/e").unwrap();
        if !looks_while(&sim, &scope, at, comes_back) {
            assert!(at > 5, "{at} calls");
            return;
        }
        pass(&sim.fs(), 5000);
        follow(&sim);
        observe(sim.replica(), &|ms| pass(&sim.fs(), ms));
        for gone in ["d/b", "d/e/a", "d/e/g", "d/e/g/b"] {
            assert!(!knows(&sim, gone), "{gone}, before call {at}");
        }
        assert!(knows(&sim, "d/e"), "before call {at}");
    }
}
