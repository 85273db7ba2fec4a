//! The process or the machine dies during a batch: old or new is there, never a mixture, nothing is lost, and
//! nothing that we did is taken for something that a user did.

use std::collections::BTreeSet;

use instep_core::entry::Entry;
use instep_core::id::{ContentId, Dot};
use instep_core::path::RelPath;
use instep_core::plan::{Action, Goal, Outcome, Precondition};
use instep_core::time::Mtime;
use instep_core::version::{Kind, Version};
use instep_fs::sim::SimConfig;
use instep_replica::Replica;
use instep_replica::conformance::User as _;

use super::acts::{Given, OTHER, before, incoming, observe, row};
use crate::support::p;
use crate::support::sim::Sim;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    Process,
    Power,
}

const OLD: &[u8] = b"old content, written by a user long ago";
const NEW: &[u8] = b"new content that comes from another replica, longer than the old one was";

/// A path, and what it has before and after the batch.
type Wanted = (RelPath, Option<&'static [u8]>, Option<&'static [u8]>);

fn wanted() -> [Wanted; 5] {
    [
        (p("over"), Some(OLD), Some(NEW)),
        (p("gone"), Some(OLD), None),
        (p("made"), None, Some(NEW)),
        (p("dir/over"), Some(OLD), Some(NEW)),
        (p("fresh/made"), None, Some(NEW)),
    ]
}

/// A machine with the old state, known, and durable.
fn settled(config: &SimConfig) -> Sim {
    let sim = Sim::new(config.clone());
    for (path, old, _) in wanted() {
        if let Some(bytes) = old {
            sim.write(&path, bytes).unwrap();
        }
    }
    sim.fs().settle();
    observe(sim.replica(), &|ms| {
        sim.fs().advance(ms.cast_signed() * 1_000_000);
    });
    sim.replica().barrier().unwrap();
    sim
}

fn batch(sim: &Sim) -> Vec<Action> {
    let all = wanted().into_iter().enumerate();
    let differs = all.filter(|(_, (path, _, new))| {
        let row = row(sim.replica(), path);
        row.present().map(|v| v.content) != new.map(instep_chunk::content_id)
    });
    differs
        .map(|(n, (path, _, new))| incoming(sim.replica(), &path, new, n as u64 + 1))
        .collect()
}

/// Carries the batch out; an error is what a dead machine gives.
fn carry_out(sim: &Sim) {
    let actions = batch(sim);
    if sim.replica().apply(&actions, &Given::of(&[NEW])).is_ok() {
        let _dead = sim.replica().barrier();
    }
}

fn dots(sim: &Sim) -> BTreeSet<Dot> {
    let rows = wanted()
        .into_iter()
        .map(|(path, ..)| row(sim.replica(), &path));
    rows.flat_map(|r| {
        r.entry
            .siblings()
            .iter()
            .map(|(d, _)| *d)
            .collect::<Vec<_>>()
    })
    .collect()
}

/// What is anywhere on the machine, ours included.
fn contents(sim: &Sim) -> Vec<Vec<u8>> {
    sim.fs()
        .snapshot()
        .into_values()
        .map(|v| v.content)
        .collect()
}

fn check(sim: &Sim, known: &BTreeSet<Dot>, what: &str) {
    let pass = |ms: u64| sim.fs().advance(ms.cast_signed() * 1_000_000);
    for (path, old, new) in wanted() {
        let seen = sim.read(&path).ok();
        let seen = seen.as_deref();
        let waits = seen.is_none() && row(sim.replica(), &path).shown.is_none();
        assert!(
            seen == old || seen == new || waits,
            "{what}: {path} has {seen:?}"
        );
    }
    observe(sim.replica(), &pass);
    let minted: Vec<Dot> = dots(sim)
        .into_iter()
        .filter(|d| d.actor != OTHER && !known.contains(d))
        .collect();
    assert!(
        minted.is_empty(),
        "{what}: taken for a user's change: {minted:?}"
    );
    let olds = wanted().iter().filter(|(_, old, _)| old.is_some()).count();
    let there = contents(sim).iter().filter(|c| **c == OLD).count();
    assert!(
        there >= olds,
        "{what}: {there} of {olds} old contents are left"
    );
    // What was not done is done now, and then nothing is left to do.
    let actions = batch(sim);
    let outcomes = sim.replica().apply(&actions, &Given::of(&[NEW])).unwrap();
    assert!(
        outcomes.iter().all(|o| *o == Outcome::Done),
        "{what}: {outcomes:?} of {actions:?}"
    );
    for (path, _, new) in wanted() {
        assert_eq!(sim.read(&path).ok().as_deref(), new, "{what}: {path}");
    }
    let look = observe(sim.replica(), &pass);
    assert!(look.findings.is_empty(), "{what}: {:?}", look.findings);
}

fn die_at_every_call(config: &SimConfig, death: Death) {
    let whole = settled(config);
    whole.fs().reset_calls();
    let before = whole.fs().total_calls();
    carry_out(&whole);
    let calls = whole.fs().total_calls() - before;
    assert!(calls > 20, "{calls} calls");
    for at in 0..=calls {
        for seed in 0..if death == Death::Power { 3 } else { 1 } {
            let mut sim = settled(config);
            let known = dots(&sim);
            if death == Death::Power {
                sim.fs().crash_after(at);
            }
            let (disk, mut left) = (sim.disk.clone(), at);
            sim.fs().set_hook(Box::new(move |fs, _| {
                if left == 0 {
                    // The index dies at the same instant as everything else.
                    disk.kill();
                    if death == Death::Process {
                        fs.kill();
                    }
                }
                left = left.wrapping_sub(1);
            }));
            carry_out(&sim);
            sim.fs().clear_hook();
            sim.fs().cancel_crash();
            let what = format!(
                "{} {death:?} at call {at} of {calls}, seed {seed}",
                config.fs_type
            );
            match death {
                Death::Power => sim.power_cut(seed),
                Death::Process => sim.kill(),
            }
            check(&sim, &known, &what);
        }
    }
}

#[test]
fn a_process_that_dies_leaves_half_a_batch() {
    for config in [SimConfig::ext4(1), SimConfig::xfs(2)] {
        die_at_every_call(&config, Death::Process);
    }
}

#[test]
fn a_power_cut_leaves_half_a_batch() {
    for config in [SimConfig::ext4(1), SimConfig::xfs(2), SimConfig::btrfs(3)] {
        die_at_every_call(&config, Death::Power);
    }
}

#[test]
fn a_power_cut_leaves_half_a_batch_on_a_disk_that_keeps_no_order() {
    die_at_every_call(&SimConfig::adversarial(4), Death::Power);
}

#[test]
fn a_crash_leaves_half_a_batch_where_replacing_is_weak() {
    die_at_every_call(&weak(5), Death::Process);
    die_at_every_call(&weak(5), Death::Power);
}

fn weak(seed: u64) -> SimConfig {
    SimConfig {
        exchange: false,
        leases: false,
        unnamed_files: false,
        ..SimConfig::ext4(seed)
    }
}

/// What took the place of a file had its name when the batch was on record: nobody but a user takes it away.
#[test]
fn what_a_user_deletes_before_a_death_comes_back_where_replacing_is_weak() {
    let mut sim = settled(&weak(5));
    let outcomes = sim.replica().apply(&batch(&sim), &Given::of(&[NEW]));
    assert!(outcomes.unwrap().iter().all(|o| *o == Outcome::Done));
    for path in ["over", "made"] {
        sim.remove(&p(path)).unwrap();
    }
    sim.kill();
    observe(sim.replica(), &|ms| {
        sim.fs().advance(ms.cast_signed() * 1_000_000);
    });
    for path in ["over", "made"] {
        let row = row(sim.replica(), &p(path));
        assert!(
            row.on_disk().is_some_and(Version::is_tomb),
            "{path}: {row:?}"
        );
    }
}

/// What the index tells of stays as it is when decayed bytes are replaced by those that it tells of.
fn restored(sim: &Sim) -> Action {
    sim.fs().decay("over", 2).unwrap();
    let decayed = instep_chunk::content_id(&sim.read(&p("over")).unwrap());
    let row = row(sim.replica(), &p("over"));
    let version = row.present().unwrap();
    Action {
        goal: Goal::File {
            content: version.content,
            size: version.size,
            mode: version.mode,
            mtime: version.mtime,
        },
        before: match before(&row) {
            Precondition::Unchanged { kind, print, .. } => Precondition::Unchanged {
                kind,
                print,
                content: decayed,
            },
            absent @ Precondition::Absent => absent,
        },
        entry: row.entry.clone(),
        shown: row.shown,
        ..incoming(sim.replica(), &p("over"), Some(OLD), 1)
    }
}

/// The process dies at some call of a repair, and the next one while it recovers.
#[test]
fn a_death_in_a_repair_deletes_the_file_where_replacing_is_weak() {
    let mut missing = 0;
    for (first, second) in (0..12).flat_map(|a| (0..40).map(move |b| (a, b))) {
        let mut sim = settled(&weak(5));
        let known = dots(&sim);
        let kill_at = |sim: &Sim, at: u32| {
            let (disk, mut left) = (sim.disk.clone(), at);
            sim.fs().set_hook(Box::new(move |fs, _| {
                if left == 0 {
                    disk.kill();
                    fs.kill();
                }
                left = left.wrapping_sub(1);
            }));
        };
        let action = restored(&sim);
        kill_at(&sim, first);
        let _dead = sim.replica().apply(&[action], &Given::of(&[OLD]));
        sim.fs().clear_hook();
        if sim.read(&p("over")).is_ok() {
            continue;
        }
        missing += 1;
        sim.fs().kill();
        let (disk, mut left): (_, u32) = (sim.disk.clone(), second);
        sim.fs().set_hook(Box::new(move |_, _| {
            if left == 0 {
                disk.kill();
            }
            left = left.wrapping_sub(1);
        }));
        let _dead = sim.try_open();
        sim.fs().clear_hook();
        sim.kill();
        observe(sim.replica(), &|ms| {
            sim.fs().advance(ms.cast_signed() * 1_000_000);
        });
        assert_eq!(dots(&sim), known, "calls {first} and {second}");
    }
    assert!(missing > 0, "no death came while the name was missing");
}

/// The index may survive a power cut that takes the change of permissions it tells of. What is there may be open in a
/// program by now, and is not touched without a precondition and a lease.
#[test]
fn a_power_cut_takes_permissions_that_the_index_goes_on_telling_of() {
    let mut lost = 0;
    for seed in 0..64 {
        let mut sim = settled(&SimConfig::adversarial(seed));
        let known = dots(&sim);
        for path in ["over", "dir"] {
            sim.chmod(&p(path), 0o700).unwrap();
        }
        observe(sim.replica(), &|ms| {
            sim.fs().advance(ms.cast_signed() * 1_000_000);
        });
        sim.power_cut(seed);
        for path in ["over", "dir"] {
            let row = row(sim.replica(), &p(path));
            let is_told = row.present().unwrap().mode == 0o700;
            let mode = sim.fs().stat(path).unwrap().mode & 0o777;
            lost += usize::from(is_told && mode != 0o700);
            // The next plan gives it what its version tells.
            let seen = row.print.map(|p| u32::from(p.mode));
            assert!(
                !is_told || seen == Some(mode),
                "seed {seed}: {path} has {mode:o}"
            );
        }
        let told = dots(&sim);
        if told != known {
            let look = observe(sim.replica(), &|_| {});
            assert!(look.findings.is_empty(), "seed {seed}: {:?}", look.findings);
        }
    }
    assert!(lost > 0, "no seed took what the index tells of");
}

/// A directory of another, which its owner may not write, and a file in it.
fn closed_dir(sim: &Sim) -> [Action; 2] {
    let file = incoming(sim.replica(), &p("shut/f"), Some(NEW), 1);
    let mut dir = incoming(sim.replica(), &p("shut"), Some(b""), 2);
    let mut version = dir.entry.get_shown(dir.shown).unwrap().clone();
    (version.kind, version.mode) = (Kind::Dir, 0o500);
    (version.content, version.size) = (ContentId::NONE, 0);
    dir.entry = Entry::first(dir.shown.unwrap(), version);
    dir.goal = Goal::Dir { mode: 0o500 };
    [dir, file]
}

#[test]
fn a_directory_that_waited_for_its_contents_is_open_for_ever_after_a_death() {
    let whole = Sim::new(SimConfig::ext4(1));
    whole.fs().reset_calls();
    whole
        .replica()
        .apply(&closed_dir(&whole), &Given::of(&[NEW]))
        .unwrap();
    let calls = whole.fs().total_calls();
    let mut waited = 0;
    for at in 0..=calls {
        let mut sim = Sim::new(SimConfig::ext4(1));
        let (disk, mut left) = (sim.disk.clone(), at);
        let actions = closed_dir(&sim);
        sim.fs().set_hook(Box::new(move |fs, _| {
            if left == 0 {
                disk.kill();
                fs.kill();
            }
            left = left.wrapping_sub(1);
        }));
        let _dead = sim.replica().apply(&actions, &Given::of(&[NEW]));
        sim.fs().clear_hook();
        sim.kill();
        let Ok(stat) = sim.fs().stat("shut") else {
            continue;
        };
        // One that stands for its contents gets its mode from the next plan.
        let row = row(sim.replica(), &p("shut"));
        let is_open = stat.mode & 0o777 != 0o500;
        assert!(!is_open || row.present().is_none(), "call {at} of {calls}");
        waited += usize::from(is_open && row.is_derived_dir());
    }
    assert!(waited > 0, "no death came before the mode");
}

/// What was brought is gone again with everything below it, and nobody looked before the death.
#[test]
fn after_a_death_the_index_tells_of_what_was_deep_below_a_directory_that_is_gone() {
    let mut sim = Sim::new(SimConfig::ext4(1));
    let standing = Action {
        goal: Goal::Dir { mode: 0o755 },
        shown: None,
        ..incoming(sim.replica(), &p("d"), None, 1)
    };
    let file = incoming(sim.replica(), &p("d/e/f"), Some(NEW), 2);
    let outcomes = sim
        .replica()
        .apply(&[standing, file], &Given::of(&[NEW]))
        .unwrap();
    assert_eq!(outcomes, [Outcome::Done, Outcome::Done]);
    sim.remove(&p("d")).unwrap();
    sim.kill();
    for path in ["d", "d/e", "d/e/f"] {
        assert_eq!(row(sim.replica(), &p(path)).print, None, "{path}");
    }
}

/// The process dies before its barrier; the file may have been touched meanwhile, and nobody looked.
#[test]
fn a_touch_before_a_death_is_taken_for_the_time_that_the_file_was_given() {
    let touched = Mtime {
        secs: 1_700_000_000,
        nanos: 0,
    };
    for config in [SimConfig::ext4(1), SimConfig::poor(1)] {
        for user in [None, Some(touched)] {
            let mut sim = Sim::new(config.clone());
            let install = incoming(sim.replica(), &p("f"), Some(NEW), 1);
            let given = install.entry.get_shown(install.shown).unwrap().mtime;
            let outcomes = sim.replica().apply(&[install], &Given::of(&[NEW])).unwrap();
            assert_eq!(outcomes, [Outcome::Done]);
            sim.fs().advance(60_000_000_000);
            if let Some(mtime) = user {
                sim.fs().touch("f", mtime).unwrap();
            }
            sim.kill();
            observe(sim.replica(), &|ms| {
                sim.fs().advance(ms.cast_signed() * 1_000_000);
            });
            let row = row(sim.replica(), &p("f"));
            let shown = row.present().unwrap();
            assert_eq!(shown.mtime, user.unwrap_or(given));
            assert_eq!(row.shown.unwrap().actor == OTHER, user.is_none());
        }
    }
}

/// The process dies before its barrier, and the next one has nothing to do.
#[test]
fn a_clean_end_hides_that_what_an_earlier_process_recorded_is_not_durable() {
    for seed in 0..32 {
        let mut sim = Sim::new(SimConfig::adversarial(seed));
        sim.write(&p("f"), NEW).unwrap();
        let pass = |ms: u64| sim.fs().advance(ms.cast_signed() * 1_000_000);
        observe(sim.replica(), &pass);
        sim.kill();
        assert!(row(sim.replica(), &p("f")).present().is_some());
        sim.replica().close().unwrap();
        sim.power_cut(seed);
        assert_eq!(sim.read(&p("f")).unwrap(), NEW, "seed {seed}");
    }
}

/// A program has the file mapped that was brought before the death: its first store leaves a stamp, and no other does.
#[test]
fn what_is_stored_in_a_mapped_file_after_a_death_is_never_found() {
    const BROUGHT: &[u8] = b"same start, old end";
    const STORED: &[u8] = b"same start, new end";
    let mut sim = Sim::new(SimConfig::ext4(1));
    let file = incoming(sim.replica(), &p("f"), Some(BROUGHT), 1);
    let outcomes = sim.replica().apply(&[file], &Given::of(&[BROUGHT]));
    assert_eq!(outcomes.unwrap(), [Outcome::Done]);
    sim.fs().advance(1_000_000_000);
    let mapped = sim.fs().user_map("f").unwrap();
    sim.fs().user_write(&mapped, 0, &BROUGHT[..11]).unwrap();
    sim.fs().advance(1_000_000_000);
    sim.kill();
    sim.fs().user_write(&mapped, 11, &STORED[11..]).unwrap();
    sim.fs().user_close(mapped).unwrap();
    let pass = |ms: u64| sim.fs().advance(ms.cast_signed() * 1_000_000);
    observe(sim.replica(), &pass);
    let found = row(sim.replica(), &p("f")).present().map(|v| v.content);
    assert_eq!(found, Some(instep_chunk::content_id(STORED)));
}
