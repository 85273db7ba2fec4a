//! What was displaced and cannot be judged at that moment: it waits, and is what it turns out to be.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use instep_chunk::content_id;
use instep_core::limits;
use instep_core::plan::{Keep, Outcome};
use instep_fs::sim::{Save, SimConfig};
use instep_replica::{Replica, Scope};
use instep_store::Table;

use super::acts::{Given, incoming, row};
use super::aftermath::{MINE, NEW, OLD, objects, records, settled, watch};
use crate::support::p;
use crate::support::sim::Sim;

/// `EMFILE`.
const TOO_MANY: i32 = 24;
/// `EIO`.
const BROKEN: i32 = 5;

/// What happens at an installation.
#[derive(Clone, Copy)]
struct Case {
    /// The file goes away, and nothing takes its place.
    deletes: bool,
    /// What was there lost a conflict.
    loses: bool,
    /// A user saves a file of their own at the last moment.
    saves: bool,
    /// Calls of this kind fail from the exchange on.
    fails: (&'static str, i32),
}

fn installed(config: SimConfig, case: Case) -> Sim {
    let sim = settled(config);
    let mut action = incoming(sim.replica(), &p("f"), (!case.deletes).then_some(NEW), 1);
    if case.loses {
        action.keep = Keep::Version(row(sim.replica(), &p("f")).shown.unwrap());
    }
    let displaces = if case.deletes {
        "rename_noreplace"
    } else {
        "exchange"
    };
    let seen = Arc::new(AtomicU32::new(0));
    let displaced = seen.clone();
    sim.fs().set_hook(Box::new(move |fs, called| {
        if called == displaces && displaced.fetch_add(1, Ordering::Relaxed) == 0 && case.saves {
            fs.write_file("f", MINE, Save::ByRename).unwrap();
        } else if called != displaces && displaced.load(Ordering::Relaxed) == 1 {
            displaced.store(2, Ordering::Relaxed);
            fs.inject(case.fails.0, 1000, case.fails.1);
        }
    }));
    let given = Given::of(&[NEW]);
    let outcomes = sim.replica().apply(&[action], &given).unwrap();
    sim.fs().clear_hook();
    assert_eq!(outcomes, [Outcome::Done]);
    assert!(seen.load(Ordering::Relaxed) > 1, "nothing was displaced");
    sim
}

fn cases(saves: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    for fails in [
        ("stat", BROKEN),
        ("open_file", TOO_MANY),
        ("read_at", BROKEN),
    ] {
        for (deletes, loses) in [(false, false), (true, false), (false, true)] {
            cases.push(Case {
                deletes,
                loses,
                saves,
                fails,
            });
        }
    }
    cases
}

/// The save is a loser that nobody throws away, and known beside what took its place.
fn is_known_as_a_save(sim: &Sim, case: &Case) {
    let stored = records(sim, Table::Stored);
    let mine = content_id(MINE);
    let [record] = stored.values().collect::<Vec<_>>()[..] else {
        panic!("{stored:?}, calls of {} failed", case.fails.0);
    };
    assert_eq!(
        (record.content.as_str(), record.unjudged),
        (&*mine.to_string(), false)
    );
    let entry = row(sim.replica(), &p("f")).entry;
    let found = entry.siblings().iter().find(|(_, v)| v.content == mine);
    let dot = found.map(|(dot, _)| dot.to_string());
    assert!(dot.is_some() && record.loser == dot, "{entry:?}");
    assert!(
        !entry
            .siblings()
            .iter()
            .any(|(_, v)| !v.is_tomb() && v.content == content_id(OLD))
    );
    assert!(sim.replica().open(&p("f"), mine).unwrap().is_some());
    assert_eq!(objects(sim, ".instep/versions").len(), 1);
    assert!(objects(sim, ".instep/staging").is_empty());
}

#[test]
fn a_save_that_cannot_be_read_when_it_is_displaced_is_put_away_as_superseded() {
    for config in [
        SimConfig::ext4(1),
        SimConfig {
            leases: false,
            ..SimConfig::ext4(2)
        },
    ] {
        for case in cases(true) {
            for dies in [false, true] {
                let mut sim = installed(config.clone(), case);
                let kept = |sim: &Sim| sim.fs().snapshot().values().any(|n| n.content == MINE);
                assert!(kept(&sim));
                sim.replica().barrier().unwrap();
                assert!(
                    objects(&sim, ".instep/trash").is_empty(),
                    "it was not judged"
                );
                sim.fs().clear_faults();
                if dies {
                    sim.kill();
                }
                let hinted = sim.replica().take_hints().paths;
                assert!(hinted.contains(&p("f")), "nobody compares the path");
                sim.replica().barrier().unwrap();
                is_known_as_a_save(&sim, &case);
                sim.replica().close().unwrap();
                sim.open();
                is_known_as_a_save(&sim, &case);
            }
        }
    }
}

#[test]
fn what_was_superseded_becomes_a_conflict_because_a_look_at_it_failed() {
    for case in cases(false) {
        let sim = installed(
            SimConfig {
                leases: false,
                ..SimConfig::ext4(3)
            },
            case,
        );
        let before = row(sim.replica(), &p("f")).entry;
        sim.fs().clear_faults();
        sim.replica().take_hints();
        watch(&sim);
        sim.replica().barrier().unwrap();
        assert_eq!(
            row(sim.replica(), &p("f")).entry,
            before,
            "something was minted"
        );
        let tables = [Table::Trash, Table::Stored].map(|table| records(&sim, table).len());
        assert_eq!(tables, [usize::from(!case.loses), usize::from(case.loses)]);
        assert!(objects(&sim, ".instep/staging").is_empty());
        assert!(
            sim.replica()
                .open(&p("f"), content_id(OLD))
                .unwrap()
                .is_some()
        );
    }
}

#[test]
fn a_path_counts_as_in_sync_while_what_was_displaced_there_waits_to_be_judged() {
    let case = cases(true)[0];
    let sim = installed(SimConfig::ext4(4), case);
    let scope = Scope::Some {
        paths: [p("f")].into(),
        trees: [].into(),
    };
    let waits = |sim: &Sim| {
        sim.replica().take_hints();
        let look = sim.replica().look(&scope).unwrap();
        look.again.iter().any(|(path, _)| *path == p("f"))
    };
    assert!(waits(&sim));
    sim.fs().clear_faults();
    assert!(!waits(&sim));
}

#[test]
fn what_cannot_be_judged_for_long_goes_to_the_trash() {
    let case = cases(true)[0];
    let sim = installed(SimConfig::ext4(5), case);
    sim.replica().take_hints();
    assert!(records(&sim, Table::Trash).values().all(|r| r.unjudged));
    let ms = i64::try_from(limits::UNJUDGED_MS).unwrap();
    sim.fs().advance(ms * 1_000_000);
    sim.replica().take_hints();
    sim.fs().clear_faults();
    sim.replica().barrier().unwrap();
    assert!(records(&sim, Table::Trash).is_empty());
    let stored = records(&sim, Table::Stored);
    assert!(
        stored.len() == 1 && stored.values().all(|r| !r.unjudged),
        "{stored:?}"
    );
    sim.replica().purge(i64::MAX).unwrap();
    let kept = objects(&sim, ".instep/versions");
    let bytes = kept
        .iter()
        .map(|key| sim.fs().read(format!(".instep/versions/{key}")).unwrap());
    assert_eq!(bytes.collect::<Vec<_>>(), [MINE]);
}

/// Before each call of an installation in turn, a user makes a directory of the file.
#[test]
fn a_directory_that_a_user_makes_of_a_file_goes_to_the_trash_with_what_is_in_it() {
    for deletes in [false, true] {
        for at in 0.. {
            let sim = settled(SimConfig::ext4(6));
            let action = incoming(sim.replica(), &p("f"), (!deletes).then_some(NEW), 1);
            let ran = Arc::new(AtomicU32::new(0));
            let runs = ran.clone();
            sim.fs().set_hook(Box::new(move |fs, _| {
                if runs.fetch_add(1, Ordering::Relaxed) == at {
                    let _gone_already = fs.remove_all("f");
                    fs.mkdir_all("f").unwrap();
                    fs.write_file("f/g", MINE, Save::ByRename).unwrap();
                }
            }));
            let given = Given::of(&[NEW]);
            let outcomes = sim.replica().apply(&[action], &given).unwrap();
            sim.fs().clear_hook();
            if ran.load(Ordering::Relaxed) <= at {
                assert_eq!(outcomes, [Outcome::Done], "all {at} calls have been tried");
                break;
            }
            let seen = sim.fs().read("f/g").ok();
            assert_eq!(
                seen.as_deref(),
                Some(MINE),
                "before call {at}, {outcomes:?}"
            );
        }
    }
}

/// A directory that has something in it goes back to its name, over what a user saved there meanwhile.
#[test]
fn what_is_saved_over_a_file_that_is_taken_back_is_unlinked() {
    for how in [Save::ByRename, Save::InPlace] {
        let sim = settled(SimConfig::ext4(7));
        sim.fs().mkdir_all("d").unwrap();
        watch(&sim);
        let action = incoming(sim.replica(), &p("d"), Some(NEW), 1);
        let mut exchanges = 0;
        sim.fs().set_hook(Box::new(move |fs, called| {
            if called == "exchange" {
                exchanges += 1;
                match exchanges {
                    1 => fs.write_file("d/g", OLD, Save::ByRename).unwrap(),
                    _ => fs.write_file("d", MINE, how).unwrap(),
                }
            }
        }));
        let given = Given::of(&[NEW]);
        let outcomes = sim.replica().apply(&[action], &given).unwrap();
        sim.fs().clear_hook();
        assert_ne!(outcomes, [Outcome::Done]);
        assert_eq!(sim.fs().read("d/g").unwrap(), OLD);
        sim.replica().barrier().unwrap();
        let stored = records(&sim, Table::Stored);
        let contents = stored.values().map(|r| r.content.clone());
        assert_eq!(contents.collect::<Vec<_>>(), [content_id(MINE).to_string()]);
        assert!(
            sim.replica()
                .open(&p("d"), content_id(MINE))
                .unwrap()
                .is_some()
        );
    }
}

/// The index fails at each call in turn while the root is opened, and is well again when it is opened next.
#[test]
fn a_save_that_waits_is_taken_for_litter_when_its_record_cannot_be_read() {
    for at in 1.. {
        let case = cases(true)[0];
        let mut sim = installed(SimConfig::ext4(8), case);
        sim.fs().clear_faults();
        sim.replica = None;
        sim.fs().kill();
        sim.disk.kill();
        sim.disk.fail_after(at);
        let opened = sim.try_open().is_ok();
        sim.disk.heal();
        sim.replica = None;
        sim.fs().kill();
        sim.disk.kill();
        sim.open();
        sim.replica().take_hints();
        sim.replica().barrier().unwrap();
        is_known_as_a_save(&sim, &case);
        if opened {
            assert!(at > 10, "{at} calls");
            return;
        }
    }
}
