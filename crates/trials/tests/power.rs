//! Power cuts of the real program on ext4, XFS and btrfs.

#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
#![allow(
    clippy::print_stdout,
    reason = "the numbers are what a long trial is run for"
)]

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use instep_testkit::needs::Need;
use instep_testkit::scratch::Scratch;
use instep_trials::image::{Image, Kind};
use instep_trials::namespace::alone;
use instep_trials::power::crew::{Orders, work};
use instep_trials::power::ground::How;
use instep_trials::power::{Plan, Tally, again};
use instep_trials::program::Program;

const EXE: &str = env!("CARGO_BIN_EXE_instep-steps");

/// A few cuts of short sessions, all at a time.
fn few_cuts(how: How, first: u64) {
    let scratch = Scratch::new().unwrap();
    let orders = Orders {
        hands: 4,
        images: u64::MAX,
        keep: None,
    };
    let plan = Plan {
        cuts: 2,
        careful: true,
    };
    let tasks = (first..first + 4).map(|seed| (seed, how, plan));
    let tally = work(scratch.path(), &orders, tasks, |_, _, _| {}).unwrap();
    println!("{}", tally.told());
    assert!(
        tally.violations.is_empty(),
        "more of it: `cargo xtask trials power --images 100`\n{}",
        tally.violations.join("\n")
    );
    assert!(tally.all_images() >= 16, "{tally:?}");
}

#[test]
fn a_power_cut_loses_or_invents_something() {
    let test = "power::a_power_cut_loses_or_invents_something";
    let needs = [Need::Loop, Need::Fuse];
    alone(test, EXE, &needs, || few_cuts(How::Copies, 1));
}

#[test]
fn a_power_cut_that_tears_what_was_not_flushed_loses_or_invents_something() {
    let test = "power::a_power_cut_that_tears_what_was_not_flushed_loses_or_invents_something";
    let needs = [Need::Loop, Need::Fuse];
    alone(test, EXE, &needs, || few_cuts(How::Log, 5));
}

/// The device number of a disk is another one after each start of the machine, and XFS calls itself by it.
#[test]
fn a_root_that_is_on_another_device_today_has_to_be_learnt_again() {
    alone(
        "power::a_root_that_is_on_another_device_today_has_to_be_learnt_again",
        EXE,
        &[Need::Loop],
        || {
            for kind in Kind::ALL {
                let scratch = Scratch::new().unwrap();
                let mut disk = Image::new(scratch.path(), "disk", kind, 0).unwrap();
                let other = scratch.dir("other").unwrap();
                let here = scratch.path();
                let program = Program::new(&here.join("home"), &here.join("run")).unwrap();
                fs::create_dir(disk.at().join("tree")).unwrap();
                fs::write(other.join("f"), "content").unwrap();
                let root = disk.at().join("tree");
                let args = ["sync".as_ref(), "--once".as_ref(), root.as_path(), &other];
                let done = program.call(&args).unwrap();
                assert_eq!(done.code, 0, "{done:?}");
                disk.unmount(false).unwrap();
                // Takes the number that the disk had.
                let first = Image::new(here, "first", Kind::Ext4, 0).unwrap();
                disk.mount().unwrap();
                let done = program.call(&args).unwrap();
                assert_eq!(done.code, 0, "{done:?}");
                let said = done.stdout + &done.stderr;
                assert!(!said.contains("rejoin"), "{kind:?}: {said}");
                drop(first);
            }
        },
    );
}

fn setting(name: &str) -> Option<String> {
    std::env::var(format!("INSTEP_POWER_{name}")).ok()
}

/// Both kinds in turn, unless one is asked for: `--kind copies`, `--kind log`.
fn how(seed: u64) -> How {
    match setting("KIND").as_deref() {
        Some("copies") => How::Copies,
        Some("log") => How::Log,
        _ if seed % 2 == 1 => How::Copies,
        _ => How::Log,
    }
}

/// Users are careful in half of the seeds; in none after `--careless yes`, in all after `--careless no`.
fn is_careful(seed: u64) -> bool {
    match setting("CARELESS").as_deref() {
        Some("no") => true,
        Some(_) => false,
        None => seed % 4 < 2,
    }
}

/// `cargo xtask trials power --images N`; `--seed S` begins there, `--keep DIR` keeps what went wrong, `--hands N` does
/// so many trials at a time.
#[test]
#[ignore = "long: cargo xtask trials power --images N"]
fn many_power_cuts_lose_or_invent_something() {
    let number = |name, usual| setting(name).map_or(usual, |text| text.parse::<u64>().unwrap());
    let body = || {
        let start = Instant::now();
        let orders = Orders {
            hands: usize::try_from(number("HANDS", 4)).unwrap(),
            images: number("IMAGES", 60),
            keep: setting("KEEP").map(PathBuf::from),
        };
        let plan = |seed| Plan {
            cuts: 12,
            careful: is_careful(seed),
        };
        let tasks = (number("SEED", 1)..).map(|seed| (seed, how(seed), plan(seed)));
        let told = |seed: u64, seen: &Tally, all: &Tally| {
            for violation in &seen.violations {
                println!("VIOLATION {violation}");
            }
            println!("seed {seed} until {:?}: {}", start.elapsed(), all.told());
        };
        let scratch = Scratch::new().unwrap();
        let all = work(scratch.path(), &orders, tasks, told).unwrap();
        assert!(all.violations.is_empty(), "{}", all.told());
    };
    alone(
        "power::many_power_cuts_lose_or_invent_something",
        EXE,
        &[Need::Loop, Need::Fuse],
        body,
    );
}

/// `cargo xtask trials power --only DIR` recovers a cut that was kept, which changes its images.
#[test]
#[ignore = "one trial again: cargo xtask trials power --only DIR"]
fn only() {
    let Some(dir) = setting("ONLY") else {
        return;
    };
    alone("power::only", EXE, &[Need::Loop], || {
        let told = again(dir.as_ref()).unwrap();
        println!("{}", told.join("\n"));
        assert_eq!(told.len(), 1);
    });
}
