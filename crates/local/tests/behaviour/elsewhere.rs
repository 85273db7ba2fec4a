//! Directories that users rename while something is done in them: nothing is recorded where it never was.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use instep_core::path::RelPath;
use instep_core::plan::Outcome;
use instep_fs::sim::SimConfig;
use instep_replica::Replica;
use instep_replica::conformance::User as _;

use super::acts::{Given, incoming, observe, row};
use crate::support::p;
use crate::support::sim::Sim;

/// A user renames the directory before every single call, in turn. Had it left before anything was done there, nothing
/// was done at the path, and a deletion of theirs or an edit is not to be known as seen there.
fn renamed_before_each_call(config: &SimConfig, bytes: Option<&[u8]>) {
    let mut early = 0;
    for at in 0.. {
        let sim = Sim::new(config.clone());
        let (replica, path) = (sim.replica(), p("d/f"));
        sim.fs().mkdir_all("d").unwrap();
        sim.write(&path, b"old").unwrap();
        let pass = |ms: u64| sim.fs().advance(ms.cast_signed() * 1_000_000);
        observe(replica, &pass);
        pass(5000);
        let action = incoming(replica, &path, bytes, 1);
        let (ran, is_done) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (mut left, runs, done) = (at, ran.clone(), Arc::<AtomicBool>::clone(&is_done));
        let theirs = bytes.map(<[u8]>::to_vec);
        sim.fs().set_hook(Box::new(move |fs, _| {
            if left == 0 {
                let now = fs.snapshot().remove(&p("d/f")).map(|n| n.content);
                done.store(now == theirs, Ordering::Relaxed);
                fs.rename("d", "h").unwrap();
                runs.store(true, Ordering::Relaxed);
            }
            left -= 1;
        }));
        let known = row(replica, &path).entry;
        let outcome = replica.apply(&[action], &Given::of(&[b"theirs"])).unwrap();
        sim.fs().clear_hook();
        if !ran.load(Ordering::Relaxed) {
            break;
        }
        if is_done.load(Ordering::Relaxed) {
            continue;
        }
        early += 1;
        let moved = sim.read(&p("h/f")).ok();
        assert_eq!(moved.as_deref(), Some(&b"old"[..]), "before call {at}");
        assert_ne!(outcome, [Outcome::Done], "before call {at}");
        assert_eq!(row(replica, &path).entry, known, "before call {at}");
    }
    assert!(early > 3, "only {early} calls before it was done");
}

#[test]
fn what_was_done_in_a_directory_that_a_user_has_renamed_is_recorded_under_its_old_name() {
    let strong = SimConfig::ext4(5);
    let weak = SimConfig {
        exchange: false,
        leases: false,
        unnamed_files: false,
        ..strong.clone()
    };
    for config in [strong, weak] {
        renamed_before_each_call(&config, Some(b"theirs"));
        renamed_before_each_call(&config, None);
    }
}

/// Nothing can go back into a directory that is gone, and what had been displaced is kept like any other.
#[test]
fn what_was_displaced_in_a_directory_that_a_user_then_deletes_is_not_put_in_the_trash() {
    let mut late = 0;
    for at in 0.. {
        let sim = Sim::new(SimConfig::ext4(5));
        let (replica, path) = (sim.replica(), p("d/f"));
        sim.fs().mkdir_all("d").unwrap();
        sim.write(&path, b"old").unwrap();
        let pass = |ms: u64| sim.fs().advance(ms.cast_signed() * 1_000_000);
        observe(replica, &pass);
        pass(5000);
        let action = incoming(replica, &path, Some(b"theirs"), 1);
        let (ran, is_done) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (mut left, runs, done) = (at, ran.clone(), Arc::<AtomicBool>::clone(&is_done));
        sim.fs().set_hook(Box::new(move |fs, _| {
            if left == 0 {
                let now = fs.snapshot().remove(&p("d/f"));
                done.store(now.unwrap().content == b"theirs", Ordering::Relaxed);
                fs.remove("d/f").unwrap();
                fs.remove("d").unwrap();
                runs.store(true, Ordering::Relaxed);
            }
            left -= 1;
        }));
        let outcome = replica.apply(&[action], &Given::of(&[b"theirs"])).unwrap();
        sim.fs().clear_hook();
        if !ran.load(Ordering::Relaxed) {
            break;
        }
        if is_done.load(Ordering::Relaxed) {
            late += 1;
            let all = sim.fs().snapshot();
            let trash = |path: &RelPath| path.as_bytes().starts_with(b".instep/trash/");
            let is_kept = all.iter().any(|(p, n)| trash(p) && n.content == b"old");
            assert!(is_kept, "before call {at}, {outcome:?}");
        }
    }
    assert!(late > 1, "only {late} calls after it was done");
}
