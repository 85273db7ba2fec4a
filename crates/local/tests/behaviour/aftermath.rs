//! A crash comes later than a batch: what a user did since counts more than the intent, and what was displaced
//! is listed, also where the kill came before the record of it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use instep_chunk::content_id;
use instep_core::entry::Context;
use instep_core::id::ActorId;
use instep_core::plan::{Keep, Outcome};
use instep_core::version::Version;
use instep_fs::sim::{Save, SimConfig};
use instep_replica::conformance::User as _;
use instep_replica::records::{ConflictRecord, TrashRecord};
use instep_replica::{Book, Replica};
use instep_store::{IndexStore as _, MemoryDisk, Table};

use super::acts::{Given, incoming, look, observe, row};
use crate::support::p;
use crate::support::sim::Sim;

/// Who mints for the user of the simulated machine.
const OURS: ActorId = ActorId(*b"simulate");
pub(crate) const OLD: &[u8] = b"old content, written by a user long ago";
pub(crate) const NEW: &[u8] =
    b"new content that comes from another replica, longer than the old one was";
pub(crate) const MINE: &[u8] = b"what a user wrote after that";

/// A file system on which a name that is replaced is absent for a moment.
fn weak() -> SimConfig {
    SimConfig {
        exchange: false,
        leases: false,
        ..SimConfig::ext4(5)
    }
}

pub(crate) fn watch(sim: &Sim) {
    observe(sim.replica(), &|ms| {
        sim.fs().advance(ms.cast_signed() * 1_000_000);
    });
}

/// A machine whose user has the old content at `f`, known and durable.
pub(crate) fn settled(config: SimConfig) -> Sim {
    let sim = Sim::new(config);
    sim.write(&p("f"), OLD).unwrap();
    sim.fs().settle();
    watch(&sim);
    sim.replica().barrier().unwrap();
    sim
}

/// The same, after another's content came in; no barrier has passed, so that the intent is still there.
fn changed(config: SimConfig) -> Sim {
    let sim = settled(config);
    let action = incoming(sim.replica(), &p("f"), Some(NEW), 1);
    let given = Given::of(&[NEW]);
    let outcomes = sim.replica().apply(&[action], &given).unwrap();
    assert_eq!(outcomes, [Outcome::Done]);
    sim
}

#[test]
fn a_deletion_after_an_intent_is_forgotten_when_the_process_is_killed() {
    for config in [SimConfig::ext4(1), SimConfig::xfs(2)] {
        let mut sim = changed(config);
        sim.remove(&p("f")).unwrap();
        sim.kill();
        watch(&sim);
        let row = row(sim.replica(), &p("f"));
        let shown = row.on_disk().map(Version::is_tomb);
        assert_eq!(shown, Some(true), "the path waits: {row:?}");
        assert_eq!(row.shown.unwrap().actor, OURS);
        assert!(look(sim.replica()).findings.is_empty());
    }
}

/// The process is killed between the calls of a batch that brings another's content, in turn for each call at which the
/// index may have died, and a user changes what is there before it starts again.
#[test]
fn what_a_user_did_to_what_was_brought_before_a_death_is_taken_for_a_conflict() {
    let changes: [Option<&[u8]>; 3] = [None, Some(MINE), Some(OLD)];
    let mut met = [0; 2];
    for (change, at) in changes
        .iter()
        .flat_map(|c| (0..24_u64).map(move |at| (c, at)))
    {
        let mut sim = settled(SimConfig::ext4(1));
        let action = incoming(sim.replica(), &p("f"), Some(NEW), 1);
        let theirs = action.shown.unwrap();
        let (disk, mut left) = (sim.disk.clone(), at);
        sim.fs().set_hook(Box::new(move |_, _| {
            if left == 0 {
                disk.kill();
            }
            left = left.wrapping_sub(1);
        }));
        let _dead = sim.replica().apply(&[action], &Given::of(&[NEW]));
        sim.fs().clear_hook();
        let was_brought = sim.read(&p("f")).unwrap() == NEW;
        sim.remove(&p("f")).unwrap();
        if let Some(bytes) = change {
            sim.write(&p("f"), bytes).unwrap();
        }
        sim.fs().settle();
        sim.kill();
        watch(&sim);
        met[usize::from(was_brought)] += 1;
        let row = row(sim.replica(), &p("f"));
        let what = format!("call {at}, {change:?}, brought {was_brought}: {row:?}");
        assert_eq!(row.entry.ctx().covers(theirs), was_brought, "{what}");
        let siblings: Vec<ActorId> = row.entry.siblings().iter().map(|(d, _)| d.actor).collect();
        assert_eq!(siblings, [OURS], "{what}");
        let found = sim.read(&p("f")).ok();
        let shown = row.present().map(|v| v.content);
        assert_eq!(shown, found.map(|bytes| content_id(&bytes)), "{what}");
    }
    assert!(met[0] > 0 && met[1] > 0, "{met:?}");
}

/// Two names of one file are to be replaced, the process is killed at some call of that, and a user removes both.
#[test]
fn what_was_never_brought_counts_as_deleted_because_another_name_of_it_was_replaced() {
    let mut halves = 0;
    for at in 0..40_u64 {
        let mut sim = settled(SimConfig::ext4(1));
        sim.fs().hard_link("f", "g").unwrap();
        sim.fs().settle();
        watch(&sim);
        sim.replica().barrier().unwrap();
        let actions =
            [("f", 1), ("g", 2)].map(|(path, n)| incoming(sim.replica(), &p(path), Some(NEW), n));
        let theirs = actions.clone().map(|a| a.shown.unwrap());
        let (disk, mut left) = (sim.disk.clone(), at);
        sim.fs().set_hook(Box::new(move |fs, _| {
            if left == 0 {
                disk.kill();
                fs.kill();
            }
            left = left.wrapping_sub(1);
        }));
        let _dead = sim.replica().apply(&actions, &Given::of(&[NEW]));
        sim.fs().clear_hook();
        let was_brought = ["f", "g"].map(|path| sim.read(&p(path)).unwrap() == NEW);
        halves += usize::from(was_brought[0] != was_brought[1]);
        sim.remove(&p("f")).unwrap();
        sim.remove(&p("g")).unwrap();
        sim.kill();
        watch(&sim);
        for ((path, theirs), was_brought) in ["f", "g"].into_iter().zip(theirs).zip(was_brought) {
            let row = row(sim.replica(), &p(path));
            assert!(row.on_disk().is_some_and(Version::is_tomb), "{row:?}");
            let is_superseded = row.entry.ctx().covers(theirs);
            assert!(was_brought || !is_superseded, "call {at}, {path}: {row:?}");
        }
    }
    assert!(halves > 0, "it was never half done");
}

/// The process is killed between the calls of a batch that brings a file into a directory that is made for it, in
/// turn for each call at which the index may have died.
#[test]
fn a_deletion_of_what_was_brought_into_a_new_directory_is_forgotten_when_the_process_is_killed() {
    let given = Given::of(&[NEW]);
    let bring = |sim: &Sim| {
        let action = incoming(sim.replica(), &p("d/e/f"), Some(NEW), 1);
        let _dead = sim.replica().apply(&[action], &given);
    };
    let whole = settled(SimConfig::ext4(1));
    whole.fs().reset_calls();
    bring(&whole);
    let mut brought = 0;
    for at in 0..whole.fs().total_calls() {
        let mut sim = settled(SimConfig::ext4(1));
        let (disk, mut left) = (sim.disk.clone(), at);
        sim.fs().set_hook(Box::new(move |_, _| {
            if left == 0 {
                disk.kill();
            }
            left = left.wrapping_sub(1);
        }));
        bring(&sim);
        sim.fs().clear_hook();
        sim.kill();
        if sim.remove(&p("d/e/f")).is_err() {
            continue;
        }
        brought += 1;
        watch(&sim);
        let row = row(sim.replica(), &p("d/e/f"));
        let shown = row.on_disk().map(Version::is_tomb);
        assert_eq!(shown, Some(true), "call {at}: {row:?}");
    }
    assert!(brought > 0, "it was never brought");
}

#[test]
fn a_change_that_was_recorded_after_an_intent_is_undone_when_the_process_is_killed() {
    // The last of them shows what the intent wanted, with dots that the intent knows nothing of.
    let changes: [&[Option<&[u8]>]; 3] = [&[None], &[Some(MINE)], &[Some(MINE), Some(NEW)]];
    for config in [SimConfig::ext4(1), weak()] {
        for change in changes {
            let mut sim = changed(config.clone());
            for bytes in change {
                match bytes {
                    Some(bytes) => sim.write(&p("f"), bytes).unwrap(),
                    None => sim.remove(&p("f")).unwrap(),
                }
                watch(&sim);
            }
            let before = row(sim.replica(), &p("f"));
            assert_eq!(before.shown.unwrap().actor, OURS);
            sim.kill();
            assert_eq!(row(sim.replica(), &p("f")), before, "{change:?}");
            assert!(look(sim.replica()).findings.is_empty(), "{change:?}");
        }
    }
}

/// The batch is on record, and nobody has looked at what the user did since.
#[test]
fn what_a_user_put_back_before_a_death_is_replaced_again() {
    for config in [SimConfig::ext4(1), weak()] {
        let mut sim = changed(config);
        sim.write(&p("f"), OLD).unwrap();
        sim.fs().settle();
        sim.kill();
        watch(&sim);
        let row = row(sim.replica(), &p("f"));
        assert_eq!(row.entry.siblings().len(), 1, "{row:?}");
        assert_eq!(row.shown.unwrap().actor, OURS, "{row:?}");
        assert_eq!(row.present().unwrap().content, content_id(OLD), "{row:?}");
    }
}

#[test]
fn what_a_user_saved_where_a_deletion_was_intended_is_taken_away_after_a_power_cut() {
    for by_rename in [false, true] {
        let mut sim = settled(SimConfig::ext4(1));
        let action = incoming(sim.replica(), &p("f"), None, 1);
        let save = if by_rename {
            Save::ByRename
        } else {
            Save::InPlace
        };
        sim.fs().write_file("f", MINE, save).unwrap();
        let given = Given::of(&[]);
        let outcomes = sim.replica().apply(&[action], &given).unwrap();
        assert_eq!(outcomes, [Outcome::Superseded]);
        sim.fs().settle();
        sim.power_cut(1);
        assert_eq!(sim.read(&p("f")).unwrap(), MINE, "by rename: {by_rename}");
        watch(&sim);
        let known = row(sim.replica(), &p("f"));
        assert!(
            known
                .present()
                .is_some_and(|v| v.content == content_id(MINE))
        );
    }
}

#[test]
fn a_deletion_that_the_index_kept_is_forgotten_after_a_power_cut() {
    let (mut gone, mut back) = (0, 0);
    for seed in 0..256 {
        let mut sim = changed(SimConfig::adversarial(seed));
        sim.remove(&p("f")).unwrap();
        watch(&sim);
        let deleted = row(sim.replica(), &p("f")).shown;
        let is_gone = !sim.fs().image(seed).exists("f");
        sim.power_cut(seed);
        let kept = row(sim.replica(), &p("f"));
        if kept.entry.get(deleted.unwrap()).is_none() {
            continue;
        }
        if is_gone {
            gone += 1;
            assert_eq!(kept.shown, deleted, "seed {seed}: {kept:?}");
        } else {
            // The disk still had what was deleted: that is no creation.
            back += 1;
            assert!(sim.read(&p("f")).is_err(), "seed {seed}: it is back");
        }
        watch(&sim);
        let seen = row(sim.replica(), &p("f"));
        assert_eq!(seen.entry, kept.entry, "seed {seed}: {seen:?}");
    }
    assert!(gone > 0 && back > 0, "{gone} gone, {back} back");
}

/// The names in one of our directories.
pub(crate) fn objects(sim: &Sim, folder: &str) -> Vec<String> {
    let folder = p(folder);
    let all = sim.fs().snapshot().into_keys();
    let within = all.filter(|path| path.parent().as_ref() == Some(&folder));
    within
        .filter_map(|path| Some(String::from_utf8_lossy(path.name()?.as_bytes()).into_owned()))
        .collect()
}

/// The records that are committed, by name of the object.
pub(crate) fn records(sim: &Sim, table: Table) -> BTreeMap<String, TrashRecord> {
    let mut records = BTreeMap::new();
    let read = sim.disk.open().records(table, &mut |key, body| {
        let key = String::from_utf8(key.to_vec()).unwrap();
        records.insert(key, serde_json::from_slice(body).unwrap());
        ControlFlow::Continue(())
    });
    read.unwrap();
    records
}

/// The process is killed after the calls of a batch and before its commit, in turn for each call at which the
/// index may have died. Returns how many objects no record told of.
fn killed_before_the_commit(config: &SimConfig, folder: &str, table: Table) -> usize {
    let mut unlisted = 0;
    let whole = settled(config.clone());
    whole.fs().reset_calls();
    let given = Given::of(&[NEW]);
    let action = incoming(whole.replica(), &p("f"), Some(NEW), 1);
    whole.replica().apply(&[action], &given).unwrap();
    for at in 0..whole.fs().total_calls() {
        let mut sim = settled(config.clone());
        let mut action = incoming(sim.replica(), &p("f"), Some(NEW), 1);
        if table == Table::Stored {
            action.keep = Keep::Version(row(sim.replica(), &p("f")).shown.unwrap());
        }
        let (disk, mut left) = (sim.disk.clone(), at);
        sim.fs().set_hook(Box::new(move |_, _| {
            if left == 0 {
                disk.kill();
            }
            left = left.wrapping_sub(1);
        }));
        let _dead = sim.replica().apply(&[action], &given);
        sim.fs().clear_hook();
        let known = records(&sim, table);
        let there = objects(&sim, folder);
        unlisted += there.iter().filter(|key| !known.contains_key(*key)).count();
        sim.kill();
        let known = records(&sim, table);
        let there = objects(&sim, folder);
        assert!(known.keys().eq(&there), "call {at}: {known:?} of {there:?}");
        for record in known.values() {
            assert_eq!((record.path.as_str(), record.size), ("f", OLD.len() as u64));
            assert_eq!(record.content, content_id(OLD).to_string(), "call {at}");
        }
        let content = sim.replica().open(&p("f"), content_id(OLD)).unwrap();
        assert!(content.is_some(), "call {at}: the old content is not found");
    }
    unlisted
}

#[test]
fn an_object_in_the_trash_has_no_record_after_a_kill_between_rename_and_commit() {
    for config in [SimConfig::ext4(1), weak()] {
        assert!(killed_before_the_commit(&config, ".instep/trash", Table::Trash) > 0);
    }
}

#[test]
fn a_loser_in_the_version_store_has_no_record_after_a_kill_between_rename_and_commit() {
    for config in [SimConfig::ext4(1), weak()] {
        assert!(killed_before_the_commit(&config, ".instep/versions", Table::Stored) > 0);
    }
}

#[test]
fn what_was_displaced_cannot_be_had_any_more_when_the_index_is_lost() {
    for table in [Table::Trash, Table::Stored] {
        let mut sim = settled(SimConfig::ext4(1));
        let mut action = incoming(sim.replica(), &p("f"), Some(NEW), 1);
        if table == Table::Stored {
            action.keep = Keep::Version(row(sim.replica(), &p("f")).shown.unwrap());
        }
        let given = Given::of(&[NEW]);
        let outcomes = sim.replica().apply(&[action], &given).unwrap();
        assert_eq!(outcomes, [Outcome::Done]);
        sim.replica().close().unwrap();
        sim.disk = MemoryDisk::new();
        sim.open();
        let known = records(&sim, table);
        assert_eq!(known.len(), 1, "{known:?}");
        let content = sim.replica().open(&p("f"), content_id(OLD)).unwrap();
        assert!(content.is_some(), "the old content is not found");
    }
}

/// Another's version wins over ours, and the process is killed, or the power cut, before the commit, in turn for each
/// call at which the index may have died.
#[test]
fn what_lost_a_conflict_goes_to_the_trash_after_a_death_before_the_commit() {
    let mut interrupted = 0;
    for cuts in [false, true] {
        for at in 0..24_u64 {
            let mut sim = settled(SimConfig::ext4(1));
            let ours = row(sim.replica(), &p("f"));
            let mut action = incoming(sim.replica(), &p("f"), Some(NEW), 1);
            let (dot, version) = action.entry.siblings()[0].clone();
            action.entry = ours.entry.record_beside(&Context::default(), dot, version);
            action.keep = Keep::Version(ours.shown.unwrap());
            let (disk, mut left) = (sim.disk.clone(), at);
            sim.fs().set_hook(Box::new(move |_, _| {
                if left == 0 {
                    disk.kill();
                }
                left = left.wrapping_sub(1);
            }));
            let _dead = sim.replica().apply(&[action], &Given::of(&[NEW]));
            sim.fs().clear_hook();
            let known = [Table::Stored, Table::Trash].map(|table| records(&sim, table).len());
            if cuts {
                sim.fs().settle();
                sim.power_cut(1);
            } else {
                sim.kill();
            }
            if sim.read(&p("f")).unwrap() != NEW {
                continue;
            }
            interrupted += usize::from(known == [0, 0]);
            let stored = records(&sim, Table::Stored);
            let losers: Vec<_> = stored.values().map(|r| r.loser.clone()).collect();
            assert_eq!(losers, [ours.shown.map(|d| d.to_string())], "call {at}");
            assert!(records(&sim, Table::Trash).is_empty(), "call {at}");
        }
    }
    assert!(interrupted > 2, "{interrupted}");
}

/// It could not be moved to where it is kept, so that it was still in the staging directory.
#[test]
fn the_loser_of_an_open_conflict_goes_to_the_trash_when_the_root_is_opened() {
    for resolved in [None, Some("newest".to_owned())] {
        let mut sim = settled(SimConfig::ext4(1));
        let loser = row(sim.replica(), &p("f")).shown.unwrap();
        let open = resolved.is_none();
        let record = ConflictRecord {
            path: "f".into(),
            path_hex: "66".into(),
            loser: loser.to_string(),
            winner: String::new(),
            content: content_id(b"loser").to_string(),
            kind: "file".into(),
            size: 5,
            mode: 0o644,
            te: 1,
            winner_te: 2,
            policy: "newest".into(),
            noticed_ns: 3,
            resolved,
            resolved_ns: None,
        };
        let body = serde_json::to_string(&record).unwrap();
        let written = sim
            .replica()
            .write_record(Book::Conflicts, &loser.to_string(), Some(&body));
        written.unwrap();
        let stray = ".instep/staging/01767225659175942000-f437ce65db69";
        sim.fs().write_file(stray, b"loser", Save::InPlace).unwrap();
        sim.kill();
        let kept = [Table::Stored, Table::Trash].map(|table| records(&sim, table).len());
        assert_eq!(kept, [usize::from(open), usize::from(!open)]);
        assert_eq!(objects(&sim, ".instep/versions").len(), kept[0]);
    }
}

/// What was displaced had been saved in place, and nothing of that was synced.
#[test]
fn an_object_in_the_trash_is_listed_as_what_a_power_cut_took_of_it() {
    let saved = vec![b's'; OLD.len()];
    let (mut taken, mut kept) = (0, 0);
    for seed in 0..256 {
        let mut sim = settled(SimConfig::adversarial(seed));
        sim.fs().write_file("f", &saved, Save::InPlace).unwrap();
        watch(&sim);
        let action = incoming(sim.replica(), &p("f"), Some(NEW), 1);
        let given = Given::of(&[NEW]);
        let outcomes = sim.replica().apply(&[action], &given).unwrap();
        assert_eq!(outcomes, [Outcome::Done]);
        sim.power_cut(seed);
        for (key, record) in records(&sim, Table::Trash) {
            let Ok(bytes) = sim.fs().read(format!(".instep/trash/{key}")) else {
                continue;
            };
            assert_eq!(
                record.content,
                content_id(&bytes).to_string(),
                "seed {seed}"
            );
            kept += usize::from(bytes == saved);
            taken += usize::from(bytes == OLD);
        }
    }
    assert!(kept > 0 && taken > 0, "{kept} kept, {taken} taken");
}

/// Another's version takes the place of ours, which lost a conflict, and calls of `op` fail from the `nth` on.
fn on_a_full_disk(config: SimConfig, op: &'static str, nth: u32) -> (Sim, Vec<Outcome>) {
    let sim = settled(config);
    let mut action = incoming(sim.replica(), &p("f"), Some(NEW), 1);
    action.keep = Keep::Version(row(sim.replica(), &p("f")).shown.unwrap());
    let mut calls = 0;
    sim.fs().set_hook(Box::new(move |fs, called| {
        if called == op {
            calls += 1;
            if calls == nth {
                fs.inject(op, 1000, 28);
            }
        }
    }));
    let given = Given::of(&[NEW]);
    let outcomes = sim.replica().apply(&[action], &given).unwrap();
    sim.fs().clear_hook();
    (sim, outcomes)
}

/// The old content can be had, and is listed as what lost.
fn is_stored(sim: &Sim) -> bool {
    let known = records(sim, Table::Stored);
    let listed = known
        .values()
        .all(|record| record.loser.is_some() && record.content == content_id(OLD).to_string());
    let content = sim.replica().open(&p("f"), content_id(OLD)).unwrap();
    known.len() == 1 && listed && content.is_some()
}

#[test]
fn a_loser_that_could_not_be_put_away_at_once_is_thrown_into_the_trash() {
    for dies in [false, true] {
        let (mut sim, outcomes) = on_a_full_disk(SimConfig::ext4(1), "rename_noreplace", 1);
        assert_eq!(outcomes, [Outcome::Done]);
        assert!(is_stored(&sim) && objects(&sim, ".instep/versions").is_empty());
        sim.replica().barrier().unwrap();
        assert!(is_stored(&sim) && objects(&sim, ".instep/versions").is_empty());
        sim.fs().clear_faults();
        if dies {
            sim.kill();
        }
        sim.replica().barrier().unwrap();
        assert!(is_stored(&sim), "dies: {dies}");
        assert_eq!(objects(&sim, ".instep/versions").len(), 1, "dies: {dies}");
        assert!(objects(&sim, ".instep/staging").is_empty());
    }
}

#[test]
fn a_file_that_could_not_be_given_back_is_taken_for_a_deletion() {
    let (sim, outcomes) = on_a_full_disk(weak(), "rename_noreplace", 2);
    assert!(
        matches!(outcomes.as_slice(), [Outcome::Blocked(_)]),
        "{outcomes:?}"
    );
    assert!(sim.read(&p("f")).is_err(), "it was given back");
    assert!(is_stored(&sim));
    let before = row(sim.replica(), &p("f"));
    assert_eq!((before.shown, before.print), (None, None));
    watch(&sim);
    assert_eq!(row(sim.replica(), &p("f")), before, "something was minted");
    // As soon as there is room it is brought as any that is not there.
    sim.fs().clear_faults();
    let action = incoming(sim.replica(), &p("f"), Some(NEW), 1);
    let given = Given::of(&[NEW]);
    let outcomes = sim.replica().apply(&[action], &given).unwrap();
    assert_eq!(outcomes, [Outcome::Done]);
    assert_eq!(sim.read(&p("f")).unwrap(), NEW);
    sim.replica().barrier().unwrap();
    assert!(is_stored(&sim));
    assert_eq!(objects(&sim, ".instep/versions").len(), 1);
}
