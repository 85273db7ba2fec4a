//! A user changes the mode of a directory that is being made: it is a change like any other.

use std::sync::atomic::{AtomicU32, Ordering};

use instep_core::plan::{Action, Goal, Outcome, Precondition};
use instep_core::version::Kind;
use instep_fs::sim::SimConfig;
use instep_replica::Replica;
use instep_replica::conformance::User as _;

use super::acts::{Given, incoming, observe, row};
use crate::support::p;
use crate::support::sim::Sim;

/// Another's directory, with these permission bits.
pub(super) fn directory(sim: &Sim, mode: u16) -> Action {
    let mut action = incoming(sim.replica(), &p("d"), Some(b""), 1);
    let (dot, version) = &action.entry.siblings()[0];
    let (dot, mut version) = (*dot, version.clone());
    (version.kind, version.mode) = (Kind::Dir, mode);
    version.content = instep_core::id::ContentId::NONE;
    version.mtime = instep_core::time::Mtime::default();
    action.entry = instep_core::entry::Entry::first(dot, version);
    assert_eq!(action.before, Precondition::Absent);
    action.goal = Goal::Dir { mode };
    action
}

/// The user does it before this examination of the directory that was made.
fn bring(sim: &Sim, mode: u16, nth: u32, users: u32) {
    let (fs, seen) = (sim.fs(), AtomicU32::new(0));
    fs.set_hook(Box::new(move |fs, op| {
        if op == "stat" && fs.exists("d") && seen.fetch_add(1, Ordering::SeqCst) == nth {
            fs.chmod("d", users).unwrap();
        }
    }));
    let action = directory(sim, mode);
    let outcomes = sim.replica().apply(&[action], &Given::default()).unwrap();
    sim.fs().clear_hook();
    assert_eq!(outcomes, [Outcome::Done]);
}

fn shown(sim: &Sim) -> u16 {
    let fs = sim.fs();
    observe(sim.replica(), &|ms| {
        fs.advance(ms.cast_signed() * 1_000_000);
    });
    row(sim.replica(), &p("d")).present().unwrap().mode
}

#[test]
fn the_mode_that_a_user_gives_a_directory_that_was_just_made_is_taken_for_ours() {
    let sim = Sim::new(SimConfig::ext4(1));
    bring(&sim, 0o755, 0, 0o700);
    assert_eq!(shown(&sim), 0o700);
}

#[test]
fn the_mode_that_a_user_gives_a_directory_before_its_contents_are_in_is_undone() {
    let sim = Sim::new(SimConfig::ext4(1));
    bring(&sim, 0o555, 1, 0o711);
    assert_eq!(sim.fs().stat("d").unwrap().mode & 0o777, 0o711);
    assert_eq!(shown(&sim), 0o711);
}

#[test]
fn a_directory_that_nobody_touches_does_not_get_its_mode() {
    let sim = Sim::new(SimConfig::ext4(1));
    let action = directory(&sim, 0o555);
    let outcomes = sim.replica().apply(&[action], &Given::default()).unwrap();
    assert_eq!(outcomes, [Outcome::Done]);
    assert_eq!(sim.fs().stat("d").unwrap().mode & 0o777, 0o555);
    assert_eq!(shown(&sim), 0o555);
}

/// The user sets the permissions again right after ours were set, to what they were before.
#[test]
fn the_mode_that_a_user_sets_back_at_once_is_taken_for_ours() {
    for dir in [true, false] {
        let sim = Sim::new(SimConfig::ext4(1));
        let fs = sim.fs();
        if dir {
            sim.mkdir(&p("d")).unwrap();
        } else {
            sim.write(&p("d"), b"bytes").unwrap();
        }
        fs.chmod("d", 0o755).unwrap();
        assert_eq!(shown(&sim), 0o755);
        let mut action = incoming(sim.replica(), &p("d"), Some(b"bytes"), 1);
        let (dot, mut version) = action.entry.siblings()[0].clone();
        if let Some(here) = row(sim.replica(), &p("d")).present() {
            version = here.clone();
        }
        version.mode = 0o600;
        let mtime = (!dir).then_some(version.mtime);
        action.entry = action.entry.record(dot, version);
        action.goal = Goal::Metadata { mode: 0o600, mtime };
        let was_set = AtomicU32::new(0);
        fs.set_hook(Box::new(move |fs, op| match op {
            "set_mode" | "file_set_mode" => was_set.store(1, Ordering::SeqCst),
            "stat" if was_set.swap(0, Ordering::SeqCst) == 1 => fs.chmod("d", 0o755).unwrap(),
            _ => {}
        }));
        let outcomes = sim.replica().apply(&[action], &Given::default()).unwrap();
        sim.fs().clear_hook();
        assert_eq!(outcomes, [Outcome::Done]);
        let mode = sim.fs().stat("d").unwrap().mode & 0o777;
        assert_eq!((mode, shown(&sim)), (0o755, 0o755), "a directory: {dir}");
    }
}
