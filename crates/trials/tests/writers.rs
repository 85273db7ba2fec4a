//! No save is lost and no reader sees half of one while the program replaces files under users who save all the time.

#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
#![allow(
    clippy::print_stdout,
    reason = "the numbers are what a long trial is run for"
)]

use std::fs;
use std::path::Path;

use instep_testkit::needs::Need;
use instep_testkit::scratch::Scratch;
use instep_trials::image::{Image, Kind, run};
use instep_trials::namespace::alone;
use instep_trials::writers::hand::Habit;
use instep_trials::writers::storm::{Tally, storm};

const EXE: &str = env!("CARGO_BIN_EXE_instep-steps");
const MIB: u64 = 512;

/// A file system that is there for one storm; `None` is one in memory.
fn on(kind: Option<Kind>, seed: u64, acts: u64) -> Tally {
    let scratch = Scratch::new().unwrap();
    let name = kind.map_or("tmpfs", Kind::name);
    let image = kind.map(|kind| Image::new(scratch.path(), "disk", kind, MIB).unwrap());
    let at = image.as_ref().map_or_else(
        || in_memory(scratch.path()),
        |image| image.at().to_path_buf(),
    );
    let tally = storm(&at, &habits(kind), seed, acts).unwrap();
    println!(
        "{name}, seed {seed}: {} saves, {} that must be somewhere, {} of the other user met, {} reads, {} broken",
        tally.saves,
        tally.live,
        tally.met,
        tally.reads,
        tally.broken.len()
    );
    for line in &tally.broken {
        println!("BROKEN {name} {line}");
    }
    tally
}

/// In memory, stores to a mapping leave the file's times as they are: no look can tell that there was a save.
fn habits(kind: Option<Kind>) -> Vec<Habit> {
    let all = Habit::ALL.into_iter();
    all.filter(|habit| kind.is_some() || *habit != Habit::Map)
        .collect()
}

/// Goes with the namespace.
fn in_memory(dir: &Path) -> std::path::PathBuf {
    let at = dir.join("memory");
    fs::create_dir(&at).unwrap();
    let args = ["-t", "tmpfs", "-o", "size=256m", "none"].map(AsRef::as_ref);
    run("mount", args.into_iter().chain([at.as_os_str()])).unwrap();
    at
}

fn all(seed: u64, acts: u64) {
    let kinds = Kind::ALL.map(Some).into_iter().chain([None]);
    let tallies: Vec<Tally> = kinds.map(|kind| on(kind, seed, acts)).collect();
    for tally in tallies {
        assert_eq!(tally.broken, [""; 0]);
        assert!(
            tally.saves > acts && tally.met > 0 && tally.reads > acts,
            "{tally:?}"
        );
    }
}

#[test]
fn a_save_is_lost_while_the_other_side_replaces_deletes_or_renames_its_file() {
    alone(
        "writers::a_save_is_lost_while_the_other_side_replaces_deletes_or_renames_its_file",
        EXE,
        &[Need::Loop],
        || all(1, 200),
    );
}

fn asked(name: &str, usual: u64) -> u64 {
    let text = std::env::var(format!("INSTEP_WRITERS_{name}")).ok();
    text.map_or(usual, |text| text.parse().unwrap())
}

/// `cargo xtask trials writers --acts N`; `--seed S` begins there, `--rounds R` does it on fresh disks so many times.
#[test]
#[ignore = "long: cargo xtask trials writers --acts N"]
fn many_saves_are_lost() {
    let body = || {
        let (first, acts) = (asked("SEED", 2), asked("ACTS", 5000));
        for seed in first..first + asked("ROUNDS", 1) {
            all(seed, acts);
        }
    };
    alone("writers::many_saves_are_lost", EXE, &[Need::Loop], body);
}
