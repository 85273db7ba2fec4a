//! What a user had done when the power was cut, and the index does not know of.

use instep_chunk::content_id;
use instep_core::id::{ActorId, Dot};
use instep_core::path::RelPath;
use instep_core::plan::{Action, Goal, Outcome, Precondition};
use instep_core::policy::Role;
use instep_core::time::Mtime;
use instep_core::version::{Kind, Version};
use instep_fs::sim::{Save, SimConfig};
use instep_local::LocalReplica;
use instep_replica::conformance::User as _;
use instep_replica::{Replica as _, Sources as _};
use instep_store::{Durability, IndexStore as _, MemoryDisk, Table};

use super::acts::{Given, OTHER, incoming, observe, row};
use crate::support::p;
use crate::support::sim::Sim;

const MINE: &[u8] = b"made by a user";

fn rest(sim: &Sim) {
    let fs = sim.fs();
    observe(sim.replica(), &|ms| {
        fs.advance(ms.cast_signed() * 1_000_000);
    });
}

#[test]
fn a_directory_that_a_mirrors_user_put_in_the_place_of_a_file_stays_unknown_after_a_power_cut() {
    let mut kept = 0;
    for seed in 0..64 {
        let mut sim = Sim::new(SimConfig::ext4(seed));
        sim.role = Role::Source;
        sim.open();
        sim.write(&p("f"), MINE).unwrap();
        rest(&sim);
        sim.remove(&p("f")).unwrap();
        sim.mkdir(&p("f")).unwrap();
        sim.fs().settle();
        sim.power_cut(seed);
        kept += u32::from(!row(sim.replica(), &p("f")).entry.is_empty());
        rest(&sim);
        let row = row(sim.replica(), &p("f"));
        assert_eq!(
            row.present().map(|v| v.kind),
            Some(Kind::Dir),
            "seed {seed}"
        );
    }
    assert!(kept > 0, "no index ever knew of the file");
}

/// A mirror's source stays as it is, and the power goes once more before anybody has looked.
#[test]
fn a_second_power_cut_makes_what_the_first_one_tore_pass_for_whole_at_a_mirrors_source() {
    let mut torn = 0;
    for seed in 0..64 {
        let mut sim = Sim::new(SimConfig::adversarial(seed));
        sim.role = Role::Source;
        sim.open();
        sim.write(&p("f"), MINE).unwrap();
        rest(&sim);
        sim.power_cut(seed);
        let known = row(sim.replica(), &p("f"));
        sim.power_cut(seed);
        rest(&sim);
        let Ok(left) = sim.read(&p("f")) else {
            continue;
        };
        torn += u32::from(left != MINE && known.present().is_some());
        let row = row(sim.replica(), &p("f"));
        let seen = row.present().map(|v| v.content);
        assert_eq!(seen, Some(content_id(&left)), "seed {seed}: {known:?}");
    }
    assert!(torn > 0, "no index knew more than was left");
}

/// What a power cut took from the index is known to whoever had it before.
#[test]
fn what_is_left_of_a_file_supersedes_what_the_others_know_of_it() {
    let mut torn = 0;
    for seed in 0..64 {
        let mut sim = Sim::new(SimConfig::ext4(seed));
        rest(&sim);
        sim.replica().barrier().unwrap();
        sim.write(&p("f"), MINE).unwrap();
        rest(&sim);
        let told = row(sim.replica(), &p("f")).entry;
        let dot = told.siblings()[0].0;
        sim.power_cut(seed);
        rest(&sim);
        let left = row(sim.replica(), &p("f"));
        let is_torn = left
            .present()
            .is_some_and(|v| v.content != content_id(MINE));
        torn += u32::from(is_torn && left.entry.get(dot).is_none());
        let all = left.entry.merge(&told);
        let is_known = |(d, v): &(Dot, Version)| *d == dot || v.content == content_id(MINE);
        assert!(
            all.siblings().iter().any(is_known),
            "seed {seed}: {left:?} supersedes {told:?}"
        );
    }
    assert!(torn > 0, "no seed lost the row and left a name");
}

/// How often a power cut brought back what was at a path several versions before. Each change is made by `change`.
fn brought_back(texts: [&[u8]; 6], change: impl Fn(&Sim, u64, &[u8])) -> u32 {
    let mut far = 0;
    for seed in 0..64 {
        let mut sim = Sim::new(SimConfig::ext4(seed));
        sim.write(&p("f"), texts[0]).unwrap();
        rest(&sim);
        sim.replica().barrier().unwrap();
        for (n, text) in (1..).zip(&texts[1..]) {
            change(&sim, n, text);
        }
        let known = row(sim.replica(), &p("f")).entry;
        let left = sim.fs().crash(seed).snapshot().remove(&p("f"));
        let left = left.map(|n| n.content).unwrap_or_default();
        sim.power_cut(seed);
        let Some(at) = texts.iter().position(|text| **text == left) else {
            continue;
        };
        // An index that went back as far as the disk sees what users did since.
        if !row(sim.replica(), &p("f"))
            .entry
            .ctx()
            .includes(known.ctx())
        {
            continue;
        }
        rest(&sim);
        let row = row(sim.replica(), &p("f"));
        far += u32::from(at + 3 < texts.len());
        let now = sim.fs().snapshot().remove(&p("f")).map(|n| n.content);
        assert_eq!(now, Some(left), "seed {seed}, {at}");
        let dots = row.entry.siblings().iter().map(|(d, _)| *d);
        let is_new = |d: &Dot| d.counter > 0 && !known.ctx().covers(*d);
        let minted: Vec<Dot> = dots.filter(is_new).collect();
        assert_eq!(minted, [], "seed {seed}, {at}: {row:?}");
    }
    far
}

/// A version names the two contents before it, and a disk may go further back than that.
#[test]
fn what_was_there_several_versions_before_a_power_cut_is_minted_or_put_away_as_torn() {
    let longer: [&[u8]; 6] = [
        b"0",
        b"first",
        b"second",
        b"the third",
        b"the fourth",
        b"the last one",
    ];
    let mut shorter = longer;
    shorter.reverse();
    for texts in [longer, shorter] {
        let brought = |sim: &Sim, n: u64, text: &[u8]| {
            let action = incoming(sim.replica(), &p("f"), Some(text), n);
            let done = sim.replica().apply(&[action], &Given::of(&[text]));
            assert_eq!(done.unwrap(), [Outcome::Done]);
        };
        assert!(brought_back(texts, brought) > 0, "no disk went back far");
        let saved = |sim: &Sim, _: u64, text: &[u8]| {
            sim.write(&p("f"), text).unwrap();
            rest(sim);
        };
        assert!(brought_back(texts, saved) > 0, "no disk went back far");
    }
}

/// How often a shorter and older file that a user had moved over another is in the trash after a power cut, and how
/// often it is what is known.
fn moved_over(config: fn(u64) -> SimConfig) -> (u32, u32) {
    let (mut trashed, mut minted) = (0, 0);
    for seed in 0..64 {
        let mut sim = Sim::new(config(seed));
        sim.write(&p("older"), b"short").unwrap();
        rest(&sim);
        sim.replica().barrier().unwrap();
        sim.fs().advance(5_000_000_000);
        sim.write(&p("f"), MINE).unwrap();
        rest(&sim);
        sim.fs().rename("older", "f").unwrap();
        sim.fs().settle();
        sim.power_cut(seed);
        if row(sim.replica(), &p("f")).entry.is_empty() {
            continue;
        }
        let nodes = sim.fs().snapshot();
        let is_there = nodes.get(&p("f")).is_some_and(|n| n.content == b"short");
        trashed += u32::from(!is_there);
        rest(&sim);
        let row = row(sim.replica(), &p("f"));
        let mine = row
            .present()
            .is_some_and(|v| v.content == content_id(b"short"));
        minted += u32::from(mine);
        assert!(is_there == mine, "seed {seed}: {row:?}");
    }
    (trashed, minted)
}

#[test]
fn an_older_file_that_a_user_moved_over_another_is_taken_for_torn() {
    for config in [SimConfig::ext4, SimConfig::poor] {
        let (trashed, minted) = moved_over(config);
        assert_eq!(trashed, 0);
        assert!(minted > 0, "no index ever knew of the file");
    }
}

/// A user had moved a file away, and moved it back after that was seen. What a power cut brings back has the time that it
/// had before.
#[test]
fn what_a_user_moved_back_goes_to_the_trash_after_a_power_cut() {
    let (mut back, mut gone) = (0, 0);
    for (seed, is_back) in (0..64).flat_map(|seed| [(seed, true), (seed, false)]) {
        let mut sim = Sim::new(SimConfig::btrfs(seed));
        sim.write(&p("f"), MINE).unwrap();
        rest(&sim);
        sim.replica().barrier().unwrap();
        sim.fs().rename("f", "g").unwrap();
        rest(&sim);
        sim.fs().advance(50_000_000);
        if is_back {
            sim.fs().rename("g", "f").unwrap();
            // The simulated disk keeps the time of an inode that was changed, and not that of one that moved.
            sim.fs().chmod("f", 0o644).unwrap();
            sim.fs().settle();
        }
        let left = sim.fs().crash(seed).snapshot();
        sim.power_cut(seed);
        let known = row(sim.replica(), &p("f")).entry;
        let is_ahead = known.siblings().iter().all(|(_, v)| v.is_tomb());
        if !is_ahead || !left.contains_key(&p("f")) {
            continue;
        }
        rest(&sim);
        let seen = row(sim.replica(), &p("f"));
        assert_eq!(seen.present().is_some(), is_back, "seed {seed}: {seen:?}");
        *(if is_back { &mut back } else { &mut gone }) += 1;
    }
    assert!(back > 0, "no index knew that the file had been away");
    assert!(gone > 0, "no disk went back and left the row");
}

/// Whoever brings a file gives it its time before its name: what is older is not part of it.
#[test]
fn a_durable_save_that_nobody_saw_is_taken_for_part_of_the_one_after_it() {
    let mut left = 0;
    for seed in 0..64 {
        let mut sim = Sim::new(SimConfig::ext4(seed));
        sim.write(&p("f"), b"durable").unwrap();
        sim.fs().settle();
        sim.fs().advance(5_000_000);
        sim.write(&p("f"), MINE).unwrap();
        rest(&sim);
        let kept = sim.fs().crash(seed).snapshot().remove(&p("f"));
        sim.power_cut(seed);
        let known = row(sim.replica(), &p("f")).entry;
        let Some((_, lost)) = known.siblings().first() else {
            continue;
        };
        if kept.is_none_or(|n| n.content != b"durable" || n.mtime == lost.mtime) {
            continue;
        }
        left += 1;
        rest(&sim);
        let row = row(sim.replica(), &p("f"));
        let seen = row.present().map(|v| v.content);
        assert_eq!(seen, Some(content_id(b"durable")), "seed {seed}: {row:?}");
    }
    assert!(left > 0, "no power cut took the last save and left its row");
}

/// The bytes of a file that a row vouches for by its fingerprint alone.
fn vouched(sim: &Sim) -> Option<(Vec<u8>, Version)> {
    let version = row(sim.replica(), &p("f")).present()?.clone();
    let mut open = sim.replica().open(&p("f"), version.content).unwrap()?;
    let mut bytes = vec![0; version.size as usize];
    assert_eq!(open.read_at(0, &mut bytes).unwrap(), bytes.len());
    Some((bytes, version))
}

/// Recovery read it once and saw what it is.
#[test]
fn a_torn_file_passes_for_whole_when_it_cannot_be_read_again_after_a_power_cut() {
    let mut torn = 0;
    for seed in 0..64 {
        for (op, nth) in ["stat", "open_file", "read_at"]
            .into_iter()
            .flat_map(|op| (1..4).map(move |nth| (op, nth)))
        {
            let mut sim = Sim::new(SimConfig::ext4(seed));
            rest(&sim);
            sim.write(&p("f"), MINE).unwrap();
            rest(&sim);
            sim.power_cut_and(seed, |fs| {
                let mut calls = 0;
                fs.set_hook(Box::new(move |fs, called| {
                    calls += u32::from(called == op);
                    if called == op && calls == nth {
                        fs.fail_next(op, 1, 5);
                    }
                }));
                torn += u32::from(fs.read("f").is_ok_and(|bytes| bytes != MINE));
            });
            sim.fs().clear_hook();
            sim.fs().clear_faults();
            if let Some((bytes, version)) = vouched(&sim) {
                assert_eq!(
                    version.content,
                    content_id(&bytes),
                    "seed {seed}: {op} {nth}"
                );
            }
        }
    }
    assert!(torn > 0, "no seed tore the file");
}

/// The cache goes on showing what a call that failed has lost, and whoever writes the rest later is told that all is
/// well.
#[test]
fn what_a_failed_sync_lost_is_minted_when_the_session_ended_well_before_the_power_cut() {
    let mut torn = 0;
    for seed in 0..64 {
        let mut sim = Sim::new(SimConfig::ext4(seed));
        rest(&sim);
        let action = incoming(sim.replica(), &p("f"), Some(b"theirs"), 1);
        let done = sim.replica().apply(&[action], &Given::of(&[b"theirs"]));
        assert_eq!(done.unwrap(), [Outcome::Done]);
        sim.fs().fail_next("sync_fs", 1, 5);
        sim.replica().barrier().unwrap_err();
        sim.replica().close().unwrap();
        sim.power_cut(seed);
        let left = sim.fs().snapshot().remove(&p("f")).map(|n| n.content);
        torn += u32::from(left.is_none_or(|bytes| bytes.iter().all(|b| *b == 0)));
        rest(&sim);
        let row = row(sim.replica(), &p("f"));
        let actors: Vec<ActorId> = row.entry.siblings().iter().map(|(d, _)| d.actor).collect();
        assert_eq!(actors, [OTHER], "seed {seed}: {row:?}");
    }
    assert!(torn > 0, "no seed lost the bytes");
}

/// Only the index knew that the disk had lost something, and the new one is told that all is well.
#[test]
fn what_a_failed_sync_lost_passes_for_whole_when_the_index_is_lost_before_the_power_cut() {
    let mut torn = 0;
    for seed in 0..64 {
        let mut sim = Sim::new(SimConfig::ext4(seed));
        sim.write(&p("f"), MINE).unwrap();
        rest(&sim);
        sim.fs().fail_next("sync_fs", 1, 5);
        sim.replica().barrier().unwrap_err();
        sim.lose_index();
        rest(&sim);
        sim.replica().barrier().unwrap();
        sim.replica().close().unwrap();
        sim.power_cut(seed);
        rest(&sim);
        let left = sim.fs().snapshot().remove(&p("f")).map(|n| n.content);
        torn += u32::from(left.as_deref() != Some(MINE));
        let row = row(sim.replica(), &p("f"));
        let shown = row.on_disk().map(|v| v.content);
        let seen = left.map(|bytes| content_id(&bytes));
        assert_eq!(shown, seen, "seed {seed}: {row:?}");
    }
    assert!(torn > 0, "no seed lost the bytes");
}

/// A disk is told to begin early with much that was brought, and loses some of it: whoever asks next is not told.
#[test]
fn bytes_that_were_lost_between_two_barriers_count_as_durable() {
    let theirs = much();
    let sim = Sim::new(SimConfig::ext4(1));
    rest(&sim);
    sim.replica().barrier().unwrap();
    let mut action = incoming(sim.replica(), &p("f"), Some(&theirs), 1);
    let given = Given::of(&[&theirs]);
    let done = sim.replica().apply(std::slice::from_ref(&action), &given);
    assert_eq!(done.unwrap(), [Outcome::Done]);
    action.goal = Goal::File {
        content: content_id(&theirs),
        size: 1 << 30,
        mode: 0o644,
        mtime: Mtime::default(),
    };
    sim.fs().fail_next("sync_fs", 1, 5);
    sim.replica().apply(&[action], &Given::default()).unwrap();
    assert!(sim.replica().barrier().is_err());
    sim.replica().barrier().unwrap();
}

#[test]
fn a_torn_file_stays_in_doubt_when_a_session_ended_before_it_looked() {
    let mut torn = 0;
    for seed in 0..64 {
        let mut sim = Sim::new(SimConfig::ext4(seed));
        rest(&sim);
        sim.write(&p("f"), MINE).unwrap();
        sim.power_cut(seed);
        let left = sim.fs().snapshot().remove(&p("f")).map(|n| n.content);
        if left.is_none_or(|bytes| bytes.iter().any(|b| *b != 0)) {
            continue;
        }
        torn += 1;
        sim.replica().close().unwrap();
        sim.open();
        rest(&sim);
        let te = |sim: &Sim| row(sim.replica(), &p("f")).present().map(|v| v.te);
        assert_eq!(te(&sim), Some(0), "seed {seed}");
        // Once everything was looked at, a new file is a user's.
        sim.write(&p("g"), b"").unwrap();
        rest(&sim);
        let made = row(sim.replica(), &p("g")).present().map(|v| v.te);
        assert!(made.is_some_and(|te| te != 0), "seed {seed}: {made:?}");
    }
    assert!(torn > 0, "no power cut left an empty file");
}

/// The power is back, and an empty file that is older than that takes the place of one that was brought since.
#[test]
fn an_older_empty_file_that_a_user_moves_after_a_power_cut_is_taken_for_torn() {
    for seed in 0..8 {
        let mut sim = Sim::new(SimConfig::ext4(seed));
        rest(&sim);
        sim.write(&p("g"), b"").unwrap();
        rest(&sim);
        sim.replica().barrier().unwrap();
        sim.power_cut(seed);
        let action = incoming(sim.replica(), &p("f"), Some(b"theirs"), 1);
        let done = sim.replica().apply(&[action], &Given::of(&[b"theirs"]));
        assert_eq!(done.unwrap(), [Outcome::Done]);
        sim.rename(&p("g"), &p("f")).unwrap();
        rest(&sim);
        let row = row(sim.replica(), &p("f"));
        let minted = row.entry.siblings().iter();
        let minted: Vec<_> = minted.map(|(d, v)| (d.actor != OTHER, v.size)).collect();
        assert_eq!(minted, [(true, 0)], "seed {seed}: {row:?}");
    }
}

/// Everything was looked at since the power is back, and an empty file that is older than that takes the place of
/// another.
#[test]
fn an_older_empty_file_that_a_user_moves_in_the_session_after_a_power_cut_is_taken_for_torn() {
    let mut sim = Sim::new(SimConfig::ext4(1));
    sim.write(&p("f"), MINE).unwrap();
    sim.write(&p("g"), b"").unwrap();
    rest(&sim);
    sim.fs().settle();
    sim.replica().barrier().unwrap();
    sim.power_cut(1);
    rest(&sim);
    sim.rename(&p("g"), &p("f")).unwrap();
    rest(&sim);
    let row = row(sim.replica(), &p("f"));
    let sizes: Vec<u64> = row.entry.siblings().iter().map(|(_, v)| v.size).collect();
    assert_eq!(sizes, [0], "{row:?}");
}

/// Much enough for a power cut to leave a part of it.
fn much() -> Vec<u8> {
    (0..20_000_u32).flat_map(u32::to_be_bytes).collect()
}

/// How often a power cut leaves a part of a new file, at `at` after `then` was done with it at `f`. What is left is never
/// minted.
fn new_files_cut_off(at: &RelPath, then: fn(&LocalReplica, &RelPath, &RelPath)) -> u32 {
    let named: fn(u64) -> SimConfig = |seed| SimConfig {
        unnamed_files: false,
        ..SimConfig::adversarial(seed)
    };
    let configs = [
        SimConfig::ext4,
        SimConfig::xfs,
        SimConfig::btrfs,
        SimConfig::adversarial,
        named,
    ];
    let torn = configs.map(|config| cut_off(config, at, false, then));
    torn.iter().sum()
}

/// As [`new_files_cut_off`] on one kind of file system; the content may come before the action.
fn cut_off(
    config: fn(u64) -> SimConfig,
    at: &RelPath,
    staged: bool,
    then: fn(&LocalReplica, &RelPath, &RelPath),
) -> u32 {
    let (theirs, mut torn) = (much(), 0);
    let first = p("d/f");
    for seed in 0..64 {
        let mut sim = Sim::new(config(seed));
        sim.mkdir(&p("d")).unwrap();
        rest(&sim);
        sim.replica().barrier().unwrap();
        let action = incoming(sim.replica(), &first, Some(&theirs), 1);
        let given = Given::of(&[&theirs]);
        if staged {
            let content = content_id(&theirs);
            let mut from = given.open(&action, content).unwrap();
            let done = sim.replica().stage(&first, content, from.as_mut());
            assert_eq!(done.unwrap(), Outcome::Done);
        }
        let done = sim.replica().apply(&[action], &given);
        assert_eq!(done.unwrap(), [Outcome::Done]);
        then(sim.replica(), &first, at);
        let fs = sim.fs().crash(seed);
        let left = fs.snapshot().remove(at).map(|n| n.content);
        torn += u32::from(left.is_some_and(|bytes| bytes != theirs));
        sim.power_cut(seed);
        rest(&sim);
        let row = row(sim.replica(), at);
        let mut minted = row.entry.siblings().iter();
        let mut minted = minted.by_ref().filter(|(d, _)| d.actor != OTHER);
        assert!(
            minted.all(|(_, v)| v.is_tomb() || v.content == content_id(&theirs)),
            "seed {seed}: {row:?}"
        );
    }
    torn
}

/// A name lasts before the bytes do, and the row that tells of them may not last at all.
#[test]
fn part_of_a_new_file_that_a_power_cut_left_is_minted_as_a_users_file() {
    let torn = new_files_cut_off(&p("d/f"), |_, _, _| {});
    assert!(torn > 0, "no power cut left a part");
}

#[test]
fn part_of_a_new_file_that_was_staged_before_a_power_cut_is_minted_as_a_users_file() {
    let torn = cut_off(SimConfig::adversarial, &p("d/f"), true, |_, _, _| {});
    assert!(torn > 0, "no power cut left a part");
}

/// What took its place in the same epoch may be gone, too.
#[test]
fn part_of_a_file_that_was_brought_and_gave_way_is_minted_after_a_power_cut() {
    let gone = |replica: &LocalReplica, path: &RelPath, _: &RelPath| {
        let action = incoming(replica, path, None, 2);
        let done = replica.apply(&[action], &Given::default());
        assert_eq!(done.unwrap(), [Outcome::Done]);
    };
    let other = |replica: &LocalReplica, path: &RelPath, _: &RelPath| {
        let mut action = incoming(replica, path, Some(MINE), 2);
        let (dot, mut version) = action.entry.siblings()[0].clone();
        version.mtime.secs += 1000;
        if let Goal::File { mtime, .. } = &mut action.goal {
            *mtime = version.mtime;
        }
        action.entry = action.entry.record(dot, version);
        let done = replica.apply(&[action], &Given::of(&[MINE]));
        assert_eq!(done.unwrap(), [Outcome::Done]);
    };
    let named: fn(u64) -> SimConfig = |seed| SimConfig {
        unnamed_files: false,
        ..SimConfig::adversarial(seed)
    };
    for config in [SimConfig::ext4, SimConfig::adversarial, named] {
        for staged in [false, true] {
            let path = p("d/f");
            let torn = cut_off(config, &path, staged, gone) + cut_off(config, &path, staged, other);
            assert!(torn > 0, "no power cut left a part");
        }
    }
}

/// Of a file system of which nobody knows what it keeps in order.
#[test]
fn a_shorter_save_over_a_new_version_is_put_away_as_part_of_that_after_a_power_cut() {
    let theirs = much();
    for how in [Save::InPlace, Save::ByRename] {
        for seed in 0..16 {
            let mut sim = Sim::new(SimConfig::adversarial(seed));
            sim.write(&p("f"), b"old").unwrap();
            rest(&sim);
            sim.replica().barrier().unwrap();
            let action = incoming(sim.replica(), &p("f"), Some(&theirs), 1);
            let outcomes = sim.replica().apply(&[action], &Given::of(&[&theirs]));
            assert_eq!(outcomes.unwrap(), [Outcome::Done]);
            sim.fs().write_file("f", MINE, how).unwrap();
            sim.fs().settle();
            sim.power_cut(seed);
            rest(&sim);
            let here = row(sim.replica(), &p("f"));
            let here = here.present().map(|v| v.content);
            assert_eq!(here, Some(content_id(MINE)), "{how:?} {seed}");
        }
    }
}

#[test]
fn part_of_a_new_file_that_moved_before_a_power_cut_is_minted_as_a_users_file() {
    let torn = new_files_cut_off(&p("d/g"), |replica, from, to| {
        let known = row(replica, from);
        let action = Action {
            goal: Goal::Rename { from: from.clone() },
            path: to.clone(),
            before: Precondition::Absent,
            entry: known.entry.clone(),
            shown: known.shown,
            ..incoming(replica, to, Some(b""), 1)
        };
        let done = replica.apply(&[action], &Given::default());
        assert_eq!(done.unwrap(), [Outcome::Done]);
    });
    assert!(torn > 0, "no power cut left a part");
}

#[test]
fn part_of_a_new_file_whose_directory_moved_before_a_power_cut_is_minted_as_a_users_file() {
    new_files_cut_off(&p("e/f"), |replica, _, _| {
        let moved = replica.rename(&p("d"), &p("e")).unwrap();
        assert_eq!(moved, Outcome::Done);
    });
}

/// Roots where a power cut left the name of a conflict copy that we were bringing, with some of its bytes, and took the
/// index; and whether they are all of its bytes.
fn copies_cut_off() -> Vec<(Sim, RelPath, bool)> {
    let theirs = much();
    let hash = content_id(&theirs).to_string();
    let copy = p(&format!("c.conflict-20200913-020202-{}.txt", &hash[..6]));
    let cut_off = |seed| {
        let mut sim = Sim::new(SimConfig::adversarial(seed));
        rest(&sim);
        sim.replica().barrier().unwrap();
        let action = incoming(sim.replica(), &copy, Some(&theirs), 1);
        let done = sim.replica().apply(&[action], &Given::of(&[&theirs]));
        assert_eq!(done.unwrap(), [Outcome::Done]);
        sim.disk = MemoryDisk::new();
        let mut rejoins = sim.disk.open();
        rejoins.put_record(Table::Meta, b"rejoining", b"1").unwrap();
        rejoins.commit(Durability::Power).unwrap();
        sim.power_cut(seed);
        let left = sim.fs().snapshot().remove(&copy).map(|n| n.content);
        let left = left.filter(|bytes| bytes.iter().any(|b| *b != 0))?;
        Some((sim, copy.clone(), left == theirs))
    };
    (0..128).filter_map(cut_off).collect()
}

fn instant(sim: &Sim, path: &RelPath) -> Option<i64> {
    row(sim.replica(), path).present().map(|v| v.te)
}

#[test]
fn a_conflict_copy_of_which_a_power_cut_left_a_part_is_minted_as_a_users_file() {
    let all = copies_cut_off();
    assert!(all.iter().any(|c| c.2) && all.iter().any(|c| !c.2));
    for (sim, copy, is_whole) in all {
        rest(&sim);
        assert_eq!(instant(&sim, &copy) != Some(0), is_whole);
    }
}

#[test]
fn what_a_user_saves_to_a_conflict_copy_after_a_power_cut_gives_way_as_torn() {
    for (sim, copy, _) in copies_cut_off() {
        sim.fs().advance(1_000_000_000);
        sim.write(&copy, MINE).unwrap();
        rest(&sim);
        let te = instant(&sim, &copy);
        assert!(te.is_some_and(|te| te != 0), "{te:?}");
    }
}

/// A user had moved an older file, or a link, to where another's version had just been put.
#[test]
fn what_a_user_moved_over_a_new_version_goes_to_the_trash_after_a_power_cut() {
    for is_link in [false, true] {
        for brings in [Some(&b"theirs, which is long"[..]), None] {
            let mut sim = Sim::new(SimConfig::ext4(3));
            let fs = sim.fs();
            fs.write_file("f", b"old", Save::InPlace).unwrap();
            if is_link {
                fs.symlink("somewhere", "g").unwrap();
            } else {
                fs.write_file("g", MINE, Save::InPlace).unwrap();
                let long_ago = Mtime {
                    secs: 1_000,
                    nanos: 0,
                };
                fs.touch("g", long_ago).unwrap();
            }
            fs.settle();
            rest(&sim);
            sim.replica().barrier().unwrap();
            let action = incoming(sim.replica(), &p("f"), brings, 1);
            let given = Given::of(&[b"theirs, which is long"]);
            let outcomes = sim.replica().apply(&[action], &given).unwrap();
            assert_eq!(outcomes, [Outcome::Done]);
            let _gone_already = fs.remove("f");
            fs.rename("g", "f").unwrap();
            fs.settle();
            sim.power_cut(3);
            rest(&sim);
            let seen = row(sim.replica(), &p("f"));
            let here = seen.present().expect("it is still there");
            let want = if is_link { &b"somewhere"[..] } else { MINE };
            assert_eq!(here.content, content_id(want), "{is_link} {brings:?}");
        }
    }
}

/// What is left of a new file after one death and a power cut is never minted as a user's. It gives way at most, where
/// nothing is left.
fn cut_off_again(config: fn(u64) -> SimConfig, die: fn(&mut Sim, u64)) {
    let theirs = much();
    for seed in 0..128 {
        let mut sim = Sim::new(config(seed));
        rest(&sim);
        sim.replica().barrier().unwrap();
        let action = incoming(sim.replica(), &p("f"), Some(&theirs), 1);
        let done = sim.replica().apply(&[action], &Given::of(&[&theirs]));
        assert_eq!(done.unwrap(), [Outcome::Done]);
        die(&mut sim, seed);
        sim.write(&p("g"), MINE).unwrap();
        rest(&sim);
        sim.power_cut(seed + 1);
        rest(&sim);
        let row = row(sim.replica(), &p("f"));
        let mut minted = row.entry.siblings().iter();
        let mut minted = minted.by_ref().filter(|(d, _)| d.actor != OTHER);
        assert!(
            minted.all(|(_, v)| v.is_tomb() || v.te == 0 || v.content == content_id(&theirs)),
            "seed {seed}: {row:?}"
        );
    }
}

#[test]
fn part_of_a_new_file_that_recovery_put_away_is_minted_after_a_second_power_cut() {
    for config in [SimConfig::ext4, SimConfig::adversarial] {
        cut_off_again(config, Sim::power_cut);
    }
}

#[test]
fn part_of_a_new_file_that_a_killed_process_brought_is_minted_after_a_power_cut() {
    for config in [SimConfig::ext4, SimConfig::adversarial] {
        cut_off_again(config, |sim, _| sim.kill());
    }
}
