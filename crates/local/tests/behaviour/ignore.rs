//! Ignore rules: nested files, the master list, and what happens when they change.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use instep_core::plan::{Code, Problem};
use instep_core::row::Held;
use instep_fs::sim::SimConfig;
use instep_local::IgnoreOptions;
use instep_replica::conformance::User as _;
use instep_replica::{Look, Replica, Scope, Waker};

use super::acts::{Given, incoming, look, observe, record, row};
use crate::support::p;
use crate::support::real::Real;
use crate::support::sim::Sim;

fn paths(look: &Look) -> Vec<String> {
    look.findings.iter().map(|f| f.path.to_string()).collect()
}

fn write(real: &Real, path: &str, text: &str) {
    let at = real.root.join(path);
    fs::create_dir_all(at.parent().unwrap()).unwrap();
    fs::write(at, text).unwrap();
}

fn settle(real: &Real) -> Look {
    observe(real.replica(), &|ms| real.env.pass_ms(ms))
}

fn master(patterns: &[&str]) -> IgnoreOptions {
    let master = patterns.iter().map(|s| (*s).to_owned()).collect();
    IgnoreOptions {
        master,
        ..IgnoreOptions::default()
    }
}

#[test]
fn a_nested_ignore_file_rules_outside_its_directory() {
    let real = Real::new();
    write(&real, "a/.instepignore", "*.log\n/only-here\n");
    write(&real, "a/deep/.instepignore", "!kept.log\n");
    for path in [
        "x.log",
        "a/x.log",
        "a/deep/x.log",
        "a/deep/kept.log",
        "a/only-here",
        "a/deep/only-here",
    ] {
        write(&real, path, "text");
    }
    let found = paths(&look(real.replica()));
    let want = [
        "a",
        "a/.instepignore",
        "a/deep",
        "a/deep/.instepignore",
        "a/deep/kept.log",
        "a/deep/only-here",
        "x.log",
    ];
    assert_eq!(found, want);
    settle(&real);
    assert_eq!(paths(&look(real.replica())), [""; 0]);
}

#[test]
fn a_file_that_is_newly_ignored_is_deleted_elsewhere() {
    let real = Real::new();
    write(&real, "d/f.log", "text");
    write(&real, "d/kept", "text");
    settle(&real);
    let before = row(real.replica(), &p("d/f.log"));
    write(&real, "d/.instepignore", "*.log\n");
    settle(&real);
    let ignored = row(real.replica(), &p("d/f.log"));
    assert_eq!((ignored.held, ignored.print), (Some(Held::Ignored), None));
    assert_eq!(ignored.entry, before.entry, "no tombstone");
    fs::remove_file(real.root.join("d/f.log")).unwrap();
    settle(&real);
    assert_eq!(
        row(real.replica(), &p("d/f.log")).entry,
        before.entry,
        "not even when it is deleted"
    );
}

#[test]
fn what_is_no_longer_ignored_is_a_conflict() {
    let real = Real::new();
    write(&real, "f.log", "text");
    settle(&real);
    let before = row(real.replica(), &p("f.log"));
    write(&real, ".instepignore", "*.log\n");
    settle(&real);
    write(&real, ".instepignore", "\n");
    settle(&real);
    let after = row(real.replica(), &p("f.log"));
    assert_eq!(
        (after.entry, after.shown, after.held),
        (before.entry, before.shown, None)
    );
    assert!(after.print.is_some());
}

#[test]
fn what_was_deleted_while_it_was_ignored_never_comes_again() {
    let real = Real::new();
    write(&real, "f.log", "text");
    settle(&real);
    let before = row(real.replica(), &p("f.log"));
    real.replica().set_ignore(&master(&["*.log"]));
    settle(&real);
    fs::remove_file(real.root.join("f.log")).unwrap();
    settle(&real);
    real.replica().set_ignore(&master(&[]));
    settle(&real);
    let free = row(real.replica(), &p("f.log"));
    assert_eq!(
        free.entry, before.entry,
        "nobody deleted it here as long as it counted"
    );
    assert_eq!(
        (free.held, free.shown, free.print),
        (None, None, None),
        "it is to be brought again"
    );
}

#[test]
fn rules_that_were_exchanged_change_nothing() {
    let real = Real::new();
    write(&real, "target/big", "text");
    write(&real, "src/small", "text");
    real.replica().set_ignore(&master(&["/target/"]));
    assert!(
        real.replica().take_hints().lost,
        "everything is to be looked at"
    );
    let first = settle(&real);
    assert!(
        row(real.replica(), &p("target/big")).entry.is_empty(),
        "{first:?}"
    );
    real.replica().set_ignore(&master(&["/target/"]));
    assert!(
        real.replica().take_hints().is_empty(),
        "the same rules once more"
    );
    real.replica().set_ignore(&master(&["/src/"]));
    settle(&real);
    assert!(row(real.replica(), &p("target/big")).present().is_some());
    assert_eq!(
        row(real.replica(), &p("src/small")).held,
        Some(Held::Ignored)
    );
}

#[test]
fn what_is_ignored_here_is_brought_here() {
    let real = Real::new();
    real.replica().set_ignore(&master(&["*.log"]));
    settle(&real);
    let action = incoming(real.replica(), &p("d/f.log"), Some(b"theirs"), 1);
    real.replica()
        .apply(&[action], &Given::of(&[b"theirs"]))
        .unwrap();
    assert!(!real.root.join("d/f.log").exists());
    let known = row(real.replica(), &p("d/f.log"));
    assert_eq!(
        (known.held, known.entry.siblings().len()),
        (Some(Held::Ignored), 1)
    );
    real.replica().set_ignore(&master(&[]));
    settle(&real);
    assert_eq!(
        row(real.replica(), &p("d/f.log")).held,
        None,
        "now it is wanted"
    );
}

#[test]
fn a_change_of_rules_is_never_heard_of_because_one_answer_was_lost() {
    let real = Real::new();
    settle(&real);
    real.replica().set_ignore(&master(&["*.log"]));
    assert!(look(real.replica()).rules_changed);
    let again = look(real.replica());
    assert!(again.rules_changed, "the first answer was lost");
    // Another change comes before the answer is recorded.
    real.replica().set_ignore(&master(&["*.txt"]));
    record(real.replica(), &again);
    let third = look(real.replica());
    assert!(third.rules_changed, "the answer was of the change before");
    record(real.replica(), &third);
    assert!(!look(real.replica()).rules_changed);
}

/// One call of the first look of a session fails: it may be the one that is to read the rules.
#[test]
fn what_is_ignored_is_sent_because_the_rules_could_not_be_read() {
    for (op, again) in [("stat", false), ("open_file", false), ("read_at", true)] {
        let mut unread = 0;
        for nth in 0.. {
            let mut sim = Sim::with_watch(SimConfig::ext4(1), true);
            sim.write(&p("d/.instepignore"), b"secret\n").unwrap();
            sim.write(&p("d/kept"), b"kept").unwrap();
            sim.write(&p("d/sub/secret"), b"old").unwrap();
            let observe = |sim: &Sim| {
                observe(sim.replica(), &|ms| {
                    sim.fs().advance(ms.cast_signed() * 1_000_000);
                })
            };
            if again {
                observe(&sim);
                sim.kill();
            }
            sim.replica().watch(Waker::default()).unwrap();
            sim.write(&p("d/secret"), b"new").unwrap();
            let calls = Arc::new(AtomicU32::new(0));
            let counted = calls.clone();
            sim.fs().set_hook(Box::new(move |fs, called| {
                if called == op && counted.fetch_add(1, Ordering::SeqCst) == nth {
                    fs.fail_next(op, 1, 5);
                }
            }));
            let hinted = Scope::Some {
                paths: [p("d/sub/secret"), p("d/sub"), p("d/secret")].into(),
                trees: [].into(),
            };
            for scope in [Scope::Everything, hinted] {
                let look = sim.replica().look(&scope).unwrap();
                let is_unread = |it: &Problem| it.path == p("d") && it.code == Code::Unreadable;
                unread += u32::from(look.problems.iter().any(is_unread));
                record(sim.replica(), &look);
                for secret in ["d/secret", "d/sub/secret"] {
                    let known = row(sim.replica(), &p(secret));
                    assert!(known.present().is_none(), "{op} {nth} fails: {secret}");
                }
            }
            let is_over = calls.load(Ordering::SeqCst) <= nth;
            sim.fs().clear_hook();
            observe(&sim);
            assert!(row(sim.replica(), &p("d/kept")).present().is_some());
            if is_over {
                break;
            }
        }
        assert!(unread >= 2, "a failing {op} is told of, by each look");
    }
}
