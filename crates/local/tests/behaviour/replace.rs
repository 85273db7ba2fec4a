//! Saves at the very moment at which another's version is installed: every one of them is kept.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};

use instep_chunk::content_id;
use instep_core::entry::Entry;
use instep_core::path::RelPath;
use instep_core::plan::{Action, Goal, Outcome};
use instep_core::time::Mtime;
use instep_core::version::Version;
use instep_fs::sim::{Deed, Save, SimConfig, SimFs};
use instep_local::LocalReplica;
use instep_replica::Replica;
use instep_replica::conformance::User as _;

use super::acts::{Given, incoming, look, observe, row};
use crate::support::p;
use crate::support::real::Real;
use crate::support::sim::Sim;

const THEIR_TIME: Mtime = Mtime {
    secs: 1_600_000_000,
    nanos: 5,
};

/// How a user's program saves a file.
#[derive(Debug, Clone, Copy)]
enum Saves {
    InPlace,
    ByRename,
    /// It appends a little later through a descriptor that it opened early.
    Late,
    /// It removes the file and makes a new one.
    Anew,
}

fn save(root: &Path, how: Saves, bytes: &str) {
    let path = root.join("f");
    match how {
        Saves::InPlace => fs::write(path, bytes).unwrap(),
        Saves::ByRename => {
            fs::write(root.join("f.tmp"), bytes).unwrap();
            fs::rename(root.join("f.tmp"), path).unwrap();
        }
        Saves::Late => {
            use std::io::Write as _;
            let mut file = fs::File::create(path).unwrap();
            let (head, tail) = bytes.split_at(bytes.len() / 2);
            file.write_all(head.as_bytes()).unwrap();
            std::thread::yield_now();
            file.write_all(tail.as_bytes()).unwrap();
        }
        Saves::Anew => {
            let _gone_already = fs::remove_file(&path);
            fs::write(path, bytes).unwrap();
        }
    }
}

/// Whether the content is at the path or kept by the replica.
fn is_kept(replica: &LocalReplica, path: &RelPath, seen: Option<&[u8]>, bytes: &[u8]) -> bool {
    seen == Some(bytes) || replica.open(path, content_id(bytes)).unwrap().is_some()
}

fn duel(parent: &Path, how: Saves) {
    let real = Real::below(parent);
    let (replica, path) = (real.replica(), p("f"));
    let pass = |ms| real.env.pass_ms(ms);
    let mut installed = 0;
    for round in 0..60_u64 {
        fs::write(real.root.join("f"), format!("before round {round}")).unwrap();
        observe(replica, &pass);
        let theirs = format!("theirs in round {round}");
        let mine = format!("mine, saved in round {round}, and of another length");
        let action = incoming(
            replica,
            &path,
            (round % 5 != 4).then_some(theirs.as_bytes()),
            round + 1,
        );
        let start = Barrier::new(2);
        let outcome = std::thread::scope(|scope| {
            let user = scope.spawn(|| {
                start.wait();
                for _ in 0..(round * 37) % 400 {
                    std::hint::spin_loop();
                }
                save(&real.root, how, &mine);
            });
            start.wait();
            let given = Given::of(&[theirs.as_bytes()]);
            let outcome = replica
                .apply(std::slice::from_ref(&action), &given)
                .unwrap();
            user.join().unwrap();
            outcome
        });
        installed += u32::from(outcome == [Outcome::Done]);
        observe(replica, &pass);
        let seen = fs::read(real.root.join("f")).ok();
        assert!(
            is_kept(replica, &path, seen.as_deref(), mine.as_bytes()),
            "{how:?}, round {round}: the save is gone after {outcome:?}"
        );
    }
    assert!(installed <= 60);
    assert!(look(replica).findings.is_empty());
}

#[test]
fn a_save_is_lost_while_another_version_is_installed() {
    for how in [Saves::InPlace, Saves::ByRename, Saves::Late, Saves::Anew] {
        duel(&std::env::temp_dir(), how);
        duel(Path::new("/dev/shm"), how);
    }
}

#[test]
fn a_file_that_is_being_written_is_replaced() {
    let real = Real::new();
    let (replica, path) = (real.replica(), p("f"));
    fs::write(real.root.join("f"), "old").unwrap();
    observe(replica, &|ms| real.env.pass_ms(ms));
    let action = incoming(replica, &path, Some(b"new"), 1);
    let writer = fs::File::options()
        .append(true)
        .open(real.root.join("f"))
        .unwrap();
    let given = Given::of(&[b"new"]);
    assert_eq!(
        replica
            .apply(std::slice::from_ref(&action), &given)
            .unwrap(),
        [Outcome::Busy]
    );
    drop(writer);
    assert_eq!(replica.apply(&[action], &given).unwrap(), [Outcome::Done]);
    assert_eq!(fs::read(real.root.join("f")).unwrap(), b"new");
}

/// A user saves before every single call of an installation, in turn: wherever it falls, it is kept.
fn save_before_each_call(config: &SimConfig, how: Save, bytes: Option<&[u8]>) {
    let mine = b"mine, and of another length";
    for at in 0.. {
        let sim = Sim::new(config.clone());
        let (replica, path) = (sim.replica(), p("f"));
        sim.write(&path, b"old").unwrap();
        let pass = |ms: u64| sim.fs().advance(ms.cast_signed() * 1_000_000);
        observe(replica, &pass);
        pass(5000);
        let action = incoming(replica, &path, bytes, 1);
        let mut left = at;
        sim.fs().set_hook(Box::new(move |fs, _| {
            if left == 0 {
                let _refused = fs.write_file("f", mine, how);
            }
            left -= 1;
        }));
        let outcome = replica.apply(&[action], &Given::of(&[b"theirs"])).unwrap();
        sim.fs().clear_hook();
        let calls = sim.fs().total_calls();
        observe(replica, &pass);
        let seen = sim.read(&path).ok();
        let saved = seen.as_deref() == Some(mine) || is_kept(replica, &path, None, mine);
        let everywhere = sim.fs().snapshot();
        let is_anywhere = everywhere.values().any(|v| v.content == mine);
        if !is_anywhere {
            // The hook never ran: all calls have been tried.
            assert!(at > 3, "{calls} calls");
            return;
        }
        assert!(
            saved,
            "{how:?} before call {at}, {outcome:?}: it is somewhere, but not to be found"
        );
    }
}

/// Another's change of mode and time comes in, and before each single call in turn a user does something.
fn metadata_before_each_call(act: fn(&SimFs), check: fn(&Sim, i32, &[Outcome])) {
    for at in 0.. {
        let sim = Sim::new(SimConfig::ext4(8));
        let (replica, path) = (sim.replica(), p("f"));
        sim.write(&path, b"as it is").unwrap();
        let pass = |ms: u64| sim.fs().advance(ms.cast_signed() * 1_000_000);
        observe(replica, &pass);
        pass(5000);
        let brought = incoming(replica, &path, Some(b"as it is"), 1);
        let goal = Goal::Metadata {
            mode: 0o600,
            mtime: Some(THEIR_TIME),
        };
        let action = Action { goal, ..brought };
        let ran = Arc::new(AtomicBool::new(false));
        let (mut left, runs) = (at, ran.clone());
        sim.fs().set_hook(Box::new(move |fs, _| {
            if left == 0 {
                act(fs);
                runs.store(true, Ordering::Relaxed);
            }
            left -= 1;
        }));
        sim.fs().keep_account();
        let outcome = replica.apply(&[action], &Given::default()).unwrap();
        sim.fs().clear_hook();
        if !ran.load(Ordering::Relaxed) {
            assert_eq!(outcome, [Outcome::Done], "all {at} calls have been tried");
            return;
        }
        check(&sim, at, &outcome);
    }
}

#[test]
fn mode_or_time_of_a_file_that_a_program_has_just_opened_are_changed() {
    let open = |fs: &SimFs| {
        let _open_to_the_end = fs.user_open_write("f").unwrap();
    };
    metadata_before_each_call(open, |sim, at, outcome| {
        let deeds = sim.fs().take_deeds();
        let touched = |d: &&Deed| matches!(d, Deed::InPlace { open: true, .. });
        let touched = deeds.iter().find(touched);
        assert!(
            touched.is_none(),
            "before call {at}: {touched:?}, {outcome:?}"
        );
    });
}

/// A lease that fails as no lease should says nothing of who has the file open.
#[test]
fn a_file_that_is_being_written_is_touched_where_a_lease_fails() {
    let in_place = |fs: &SimFs| {
        let deeds = fs.take_deeds();
        deeds
            .into_iter()
            .find(|d| matches!(d, Deed::InPlace { open: true, .. }))
    };
    for (errno, leased) in [(5, false), (11, false), (12, false), (13, true), (22, true)] {
        let sim = Sim::new(SimConfig::ext4(5));
        sim.write(&p("f"), b"here").unwrap();
        observe(sim.replica(), &|ms| {
            sim.fs().advance(ms.cast_signed() * 1_000_000);
        });
        let mut action = incoming(sim.replica(), &p("f"), Some(b"here"), 1);
        action.goal = Goal::Metadata {
            mode: 0o600,
            mtime: None,
        };
        if !leased {
            let _open_to_the_end = sim.fs().user_open_write("f").unwrap();
        }
        sim.fs().fail_next("read_lease", 1, errno);
        sim.fs().keep_account();
        let outcomes = sim.replica().apply(&[action], &Given::default()).unwrap();
        let touched = in_place(&sim.fs());
        assert!(touched.is_none(), "errno {errno}: {touched:?}");
        assert_eq!(
            outcomes == [Outcome::Done],
            leased,
            "errno {errno}: {outcomes:?}"
        );
    }
}

#[test]
fn what_is_saved_over_a_file_gets_the_mode_and_time_that_were_for_that() {
    let save = |fs: &SimFs| fs.write_file("f", "mine", Save::ByRename).unwrap();
    metadata_before_each_call(save, |sim, at, outcome| {
        let now = &sim.fs().snapshot()[&p("f")];
        assert_eq!(now.content, b"mine");
        assert!(
            now.mtime != THEIR_TIME,
            "before call {at}: another's time, {outcome:?}"
        );
    });
}

/// A user's file takes the name of a directory that is made for what comes below it, before each call in turn.
#[test]
fn a_file_that_takes_the_name_of_a_directory_just_made_is_never_seen() {
    let mine = b"mine, where a directory was to be";
    for at in 0.. {
        let sim = Sim::new(SimConfig::ext4(5));
        let replica = sim.replica();
        let pass = |ms: u64| sim.fs().advance(ms.cast_signed() * 1_000_000);
        observe(replica, &pass);
        let action = incoming(replica, &p("d/f"), Some(b"theirs"), 1);
        let mut left = at;
        sim.fs().set_hook(Box::new(move |fs, _| {
            if left == 0 {
                let _nothing_yet = fs.remove_all("d");
                let _refused = fs.write_file("d", mine, Save::ByRename);
            }
            left -= 1;
        }));
        let given = Given::of(&[b"theirs"]);
        let outcome = replica.apply(&[action], &given).unwrap();
        sim.fs().clear_hook();
        pass(5000);
        observe(replica, &pass);
        if sim.read(&p("d")).ok().as_deref() != Some(mine) {
            // The hook never ran: all calls have been tried.
            assert!(at > 3, "{at} calls");
            return;
        }
        let here = row(replica, &p("d"));
        let seen = here.present().map(|v| v.content);
        assert_eq!(
            seen,
            Some(content_id(mine)),
            "before call {at}, {outcome:?}"
        );
    }
}

#[test]
fn a_save_between_two_calls_is_lost() {
    for how in [Save::InPlace, Save::ByRename] {
        for bytes in [Some(&b"theirs"[..]), None] {
            save_before_each_call(&SimConfig::ext4(3), how, bytes);
            let blocking = SimConfig {
                leases_block: true,
                ..SimConfig::ext4(4)
            };
            save_before_each_call(&blocking, how, bytes);
        }
    }
}

/// A mirror's target put back the source's version, which the target's user had replaced, and the user saves once
/// more before each call in turn.
#[test]
fn what_a_mirror_put_back_over_a_save_is_not_known_to_be_there() {
    let mut surprises = 0;
    for at in 0.. {
        let sim = Sim::new(SimConfig::ext4(6));
        let (replica, path) = (sim.replica(), p("f"));
        let pass = |ms: u64| sim.fs().advance(ms.cast_signed() * 1_000_000);
        let given = Given::of(&[b"theirs"]);
        let brought = incoming(replica, &path, Some(b"theirs"), 1);
        replica
            .apply(std::slice::from_ref(&brought), &given)
            .unwrap();
        sim.write(&path, b"an edit at the target").unwrap();
        observe(replica, &pass);
        pass(5000);
        let known = row(replica, &path).entry.ctx().clone();
        let action = Action {
            entry: Entry::from_parts(known, brought.entry.siblings().to_vec()).unwrap(),
            shown: brought.shown,
            ..incoming(replica, &path, Some(b"theirs"), 1)
        };
        let ran = Arc::new(AtomicBool::new(false));
        let (mut left, runs) = (at, ran.clone());
        sim.fs().set_hook(Box::new(move |fs, _| {
            if left == 0 {
                let _refused = fs.write_file("f", b"a later edit", Save::ByRename);
                runs.store(true, Ordering::Relaxed);
            }
            left -= 1;
        }));
        let outcome = replica.apply(&[action], &given).unwrap();
        sim.fs().clear_hook();
        let here = row(replica, &path);
        assert!(
            here.present().is_some(),
            "before call {at}, {outcome:?}: {here:?}"
        );
        surprises += usize::from(here.entry.siblings().len() > 1);
        if !ran.load(Ordering::Relaxed) {
            break;
        }
    }
    assert!(surprises > 0, "no save fell between two calls");
}

/// Without leases and without an exchange there is a gap, but what was saved is still never lost.
#[test]
fn a_save_is_lost_where_replacing_is_weak() {
    for how in [Save::InPlace, Save::ByRename] {
        let weak = SimConfig {
            exchange: false,
            leases: false,
            unnamed_files: false,
            ..SimConfig::ext4(5)
        };
        save_before_each_call(&weak, how, Some(b"theirs"));
        save_before_each_call(&weak, how, None);
        let no_noreplace = SimConfig {
            noreplace: false,
            ..weak
        };
        save_before_each_call(&no_noreplace, how, Some(b"theirs"));
        save_before_each_call(&no_noreplace, how, None);
    }
}

/// Nobody can be kept from writing: while a file gets another mode or time, or moves, a user saves as many bytes in
/// place before each call in turn.
#[test]
fn a_save_of_the_same_size_is_never_seen_where_there_are_no_leases() {
    let (f, g) = (p("f"), p("g"));
    for (moves, touches) in [(false, false), (false, true), (true, false), (true, true)] {
        for at in 0.. {
            let sim = Sim::new(SimConfig {
                leases: false,
                ..SimConfig::ext4(8)
            });
            let replica = sim.replica();
            sim.write(&f, b"as it is").unwrap();
            let pass = |ms: u64| sim.fs().advance(ms.cast_signed() * 1_000_000);
            observe(replica, &pass);
            pass(5000);
            let had = row(replica, &f).present().unwrap().mtime;
            let mtime = if touches { THEIR_TIME } else { had };
            let to = if moves { &g } else { &f };
            let action = chmod(replica, to, moves.then_some(&f), mtime);
            let (mut left, ran) = (at, Arc::new(AtomicBool::new(false)));
            let runs = ran.clone();
            sim.fs().set_hook(Box::new(move |fs, _| {
                if left == 0 {
                    let at = if fs.snapshot().contains_key(&p("f")) {
                        "f"
                    } else {
                        "g"
                    };
                    fs.write_file(at, "my save!", Save::InPlace).unwrap();
                    runs.store(true, Ordering::Relaxed);
                }
                left -= 1;
            }));
            let outcome = replica.apply(&[action], &Given::default()).unwrap();
            sim.fs().clear_hook();
            pass(5000);
            observe(replica, &pass);
            if !ran.load(Ordering::Relaxed) {
                assert_eq!(outcome, [Outcome::Done], "all {at} calls have been tried");
                break;
            }
            let seen = [&f, &g].map(|path| row(replica, path).present().map(|v| v.content));
            assert!(
                seen.contains(&Some(content_id(b"my save!"))),
                "moves {moves}, touches {touches}, before call {at}: {outcome:?}"
            );
        }
    }
}

/// Another's change of the mode and the time of a file of ours that says "as it is", which may come from another name.
fn chmod(replica: &LocalReplica, to: &RelPath, from: Option<&RelPath>, mtime: Mtime) -> Action {
    let brought = incoming(replica, to, Some(b"as it is"), 1);
    let version = Version {
        mode: 0o600,
        mtime,
        ..brought.entry.get_shown(brought.shown).unwrap().clone()
    };
    let goal = match from {
        Some(from) => Goal::Rename { from: from.clone() },
        None => Goal::Metadata {
            mode: 0o600,
            mtime: Some(mtime),
        },
    };
    let dot = brought.shown.unwrap();
    Action {
        goal,
        entry: row(replica, to).entry.record(dot, version),
        ..brought
    }
}

/// What was below a directory is gone, and the file that takes its name cannot be had yet.
#[test]
fn a_directory_goes_before_the_file_that_is_to_replace_it_is_there() {
    let sim = Sim::new(SimConfig::ext4(1));
    let replica = sim.replica();
    let brought = incoming(replica, &p("d/f"), Some(b"theirs"), 1);
    let given = Given::of(&[b"theirs"]);
    assert_eq!(
        replica.apply(&[brought], &given).unwrap(),
        [Outcome::Done],
        "it does not come"
    );
    assert!(row(replica, &p("d")).is_derived_dir());
    let leaves = incoming(replica, &p("d/f"), None, 2);
    let file = incoming(replica, &p("d"), Some(b"not to be had"), 3);
    let outcomes = replica.apply(&[leaves, file], &given).unwrap();
    assert_eq!(outcomes[0], Outcome::Done);
    assert_ne!(outcomes[1], Outcome::Done);
    assert_eq!(sim.fs().stat("d").unwrap().kind, instep_fs::Kind::Dir);
    assert!(row(replica, &p("d")).is_derived_dir());
}
