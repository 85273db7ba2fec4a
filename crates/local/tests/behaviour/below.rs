//! A directory goes a moment after its user emptied it: what they removed is missed all the same.

use instep_core::path::RelPath;
use instep_core::plan::{Action, Outcome};
use instep_core::version::Version;
use instep_fs::sim::SimConfig;
use instep_replica::Replica;
use instep_replica::conformance::User as _;

use super::acts::{Given, before, incoming, look, observe, row};
use crate::support::p;
use crate::support::sim::Sim;

const THEIRS: &[u8] = b"a file that takes the place of a directory";

fn watch(sim: &Sim) {
    observe(sim.replica(), &|ms| {
        sim.fs().advance(ms.cast_signed() * 1_000_000);
    });
}

/// A machine on which a directory with two files is known.
fn known() -> Sim {
    let sim = Sim::new(SimConfig::ext4(1));
    for name in ["d/a", "d/b"] {
        sim.write(&p(name), name.as_bytes()).unwrap();
    }
    watch(&sim);
    sim
}

fn apply(sim: &Sim, actions: &[Action]) -> Vec<Outcome> {
    sim.replica()
        .apply(actions, &Given::of(&[THEIRS, b"d/a", b"d/b"]))
        .unwrap()
}

fn deletion(sim: &Sim, path: &RelPath, n: u64) -> Action {
    incoming(sim.replica(), path, None, n)
}

/// Whether the index says that a path was deleted, after looks that nothing led to it.
fn is_known_deleted(sim: &Sim, path: &RelPath) -> bool {
    watch(sim);
    let row = row(sim.replica(), path);
    row.print.is_none() && row.on_disk().is_some_and(Version::is_tomb)
}

#[test]
fn a_file_that_a_user_removed_just_before_its_directory_went_is_there_for_ever() {
    for takes_all in [false, true] {
        let sim = known();
        let actions = ["d/a", "d/b", "d"].map(p);
        let actions: Vec<Action> = actions
            .iter()
            .zip(1..)
            .map(|(path, n)| deletion(&sim, path, n))
            .collect();
        sim.remove(&p(if takes_all { "d" } else { "d/a" })).unwrap();
        let outcomes = apply(&sim, &actions);
        assert_eq!(outcomes[0], Outcome::Superseded, "the user was first");
        assert_ne!(
            outcomes[2],
            Outcome::Done,
            "the directory leads to the file"
        );
        assert!(is_known_deleted(&sim, &p("d/a")));
        let rest = ["d/b", "d"].map(|path| deletion(&sim, &p(path), 9));
        apply(&sim, &rest);
        assert!(look(sim.replica()).findings.is_empty());
        assert!(
            ["d/b", "d"]
                .iter()
                .all(|path| is_known_deleted(&sim, &p(path)))
        );
    }
}

#[test]
fn a_file_that_a_user_removed_just_before_another_took_its_directorys_name_is_there_for_ever() {
    let sim = known();
    let mut file = incoming(sim.replica(), &p("d"), Some(THEIRS), 3);
    let other = deletion(&sim, &p("d/b"), 2);
    sim.remove(&p("d/a")).unwrap();
    let outcomes = apply(&sim, &[other, file.clone()]);
    assert_eq!(outcomes, [Outcome::Done, Outcome::Busy]);
    assert!(is_known_deleted(&sim, &p("d/a")));
    file.before = before(&row(sim.replica(), &p("d")));
    assert_eq!(apply(&sim, &[file]), [Outcome::Done]);
}

#[test]
fn a_file_that_a_user_removed_just_before_the_last_other_went_is_there_for_ever() {
    let sim = Sim::new(SimConfig::ext4(1));
    let come =
        ["d/a", "d/b"].map(|name| incoming(sim.replica(), &p(name), Some(name.as_bytes()), 1));
    assert_eq!(apply(&sim, &come), [Outcome::Done, Outcome::Done]);
    assert!(row(sim.replica(), &p("d")).is_derived_dir());
    sim.remove(&p("d/a")).unwrap();
    let goes = deletion(&sim, &p("d/b"), 2);
    assert_eq!(apply(&sim, &[goes]), [Outcome::Done]);
    assert!(is_known_deleted(&sim, &p("d/a")));
    assert_eq!(row(sim.replica(), &p("d")).print, None, "nothing is in it");
}
