//! The program dies at every labelled step, and nothing is lost, torn, invented or left behind.

#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
#![allow(
    clippy::print_stdout,
    reason = "the numbers are what a long trial is run for"
)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use instep_replica::Step;
use instep_testkit::scratch::Scratch;
use instep_trials::image::{Image, Kind};
use instep_trials::kills::campaign::{self, Extent, Report};
use instep_trials::kills::trial::Place;

/// The program that was built for this test, or the one that a long trial is to keep while others build.
fn exe() -> PathBuf {
    let other = std::env::var_os("INSTEP_TRIALS_BIN");
    other.map_or_else(|| env!("CARGO_BIN_EXE_instep-steps").into(), PathBuf::from)
}

/// A directory in memory where there is one: what survives a kill does not depend on the disk.
fn quick() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        return memory.to_owned();
    }
    std::env::temp_dir()
}

/// Where names cannot change places, which is on none of these file systems.
const WEAKER: &[Step] = &[Step::Aside];
/// Where content is cloned, nothing is brought ahead.
const CLONED: &[Step] = &[Step::StageMade, Step::Staged, Step::Aside];

#[track_caller]
fn judge(report: &Report, on: &Path, never: &[Step]) {
    println!("{}", report.told(on));
    let unreached: Vec<Step> = report.unreached().into_iter().collect();
    assert_eq!(
        unreached, never,
        "steps that no scene comes to, and those that it may not come to"
    );
    assert!(report.trials > 0, "there was no time for any trial");
    assert!(
        report.broken.is_empty(),
        "{} promises broken",
        report.broken.len()
    );
}

#[test]
fn a_death_at_some_step_loses_or_invents_something() {
    let (exe, within) = (exe(), quick());
    let place = Place {
        exe: &exe,
        within: &within,
    };
    let extent = Extent {
        every_scene: false,
        pairs: 10,
        seed: 1,
        at_once: 3,
        time: None,
    };
    judge(&campaign::run(place, extent), &within, WEAKER);
}

/// `INSTEP_KILLS_ONLY="edits exchanged:2 recovered:1"`: one trial again, as a failure printed it.
#[test]
#[ignore = "does again what a failure names"]
fn only() {
    let words = std::env::var("INSTEP_KILLS_ONLY").unwrap_or_default();
    let (exe, within) = (exe(), quick());
    let place = Place {
        exe: &exe,
        within: &within,
    };
    let outcome = campaign::only(place, &words).unwrap_or_else(|e| panic!("{e}"));
    println!("{words}: died {:?}", outcome.died);
}

/// How much a long trial tries, from the environment.
fn asked(name: &str, usual: usize) -> usize {
    let text = std::env::var(name).ok();
    text.map_or(usual, |t| {
        t.parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {t}"))
    })
}

/// Every step in every scene, and pairs, on a file system that is asked for: `memory`, `disk`, `ext4`, `xfs`, `btrfs`.
#[test]
#[ignore = "long: cargo xtask trials kills"]
fn a_death_at_any_step_of_any_scene_loses_or_invents_something() {
    let on = std::env::var("INSTEP_KILLS_ON").unwrap_or_else(|_| "memory".into());
    let minutes = asked("INSTEP_KILLS_MINUTES", 60) as u64;
    let extent = Extent {
        every_scene: std::env::var_os("INSTEP_KILLS_EACH").is_none_or(|each| each != "once"),
        pairs: asked("INSTEP_KILLS_PAIRS", 500),
        seed: asked("INSTEP_KILLS_SEED", 1) as u64,
        at_once: asked("INSTEP_KILLS_AT_ONCE", 3),
        time: Some(Duration::from_secs(60 * minutes)),
    };
    let (exe, scratch) = (exe(), Scratch::new().unwrap());
    let kind = Kind::ALL.into_iter().find(|k| k.name() == on);
    let image = kind.map(|kind| Image::new(scratch.path(), "disk", kind, 1024).unwrap());
    let within = match (&image, on.as_str()) {
        (Some(image), _) => image.at().to_owned(),
        (None, "memory") => quick(),
        (None, "disk") => std::env::temp_dir(),
        (None, other) => panic!("{other} is no file system of these trials"),
    };
    let place = Place {
        exe: &exe,
        within: &within,
    };
    let is_cloned = matches!(kind, Some(Kind::Xfs | Kind::Btrfs));
    let never = if is_cloned { CLONED } else { WEAKER };
    judge(&campaign::run(place, extent), &within, never);
}
