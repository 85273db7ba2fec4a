//! Names that the file system takes for others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use instep_core::plan::{Code, Outcome};
use instep_fs::sim::SimConfig;
use instep_replica::conformance::User as _;
use instep_replica::look::Found;
use instep_replica::{Replica, Scope};

use super::acts::{Given, incoming, observe, record, row};
use crate::support::p;
use crate::support::sim::Sim;

/// A file system that folds case, with `readme` and `docs/a` on it.
fn folding() -> Sim {
    let sim = Sim::new(SimConfig {
        case_sensitive: false,
        ..SimConfig::ext4(1)
    });
    sim.write(&p("readme"), b"small letters").unwrap();
    sim.write(&p("docs/a"), b"a").unwrap();
    observe(sim.replica(), &|ms| {
        sim.fs().advance(ms.cast_signed() * 1_000_000);
    });
    sim
}

fn code(outcome: &Outcome) -> Option<Code> {
    match outcome {
        Outcome::Blocked(problem) => Some(problem.code),
        _ => None,
    }
}

#[test]
fn a_name_that_clashes_is_tried_for_ever_without_a_word() {
    let sim = folding();
    let given = Given::of(&[b"great letters", b"in another directory"]);
    for (path, bytes) in [
        ("README", &b"great letters"[..]),
        ("Docs/x", b"in another directory"),
    ] {
        let action = incoming(sim.replica(), &p(path), Some(bytes), 1);
        let outcomes = sim.replica().apply(&[action], &given).unwrap();
        assert_eq!(
            code(&outcomes[0]),
            Some(Code::NameClash),
            "{path}: {outcomes:?}"
        );
    }
    assert_eq!(sim.read(&p("readme")).unwrap(), b"small letters");
}

#[test]
fn a_name_that_clashes_is_found_although_nobody_made_it() {
    let sim = folding();
    let hinted = Scope::Some {
        paths: [p("README"), p("Docs/a"), p("Docs")].into(),
        trees: [].into(),
    };
    let found = sim.replica().look(&hinted).unwrap();
    let is_present = |f: &instep_replica::Finding| matches!(f.found, Found::Present { .. });
    assert!(!found.findings.iter().any(is_present), "{found:?}");
    let known = Scope::Some {
        paths: [p("readme"), p("docs/a")].into(),
        trees: [].into(),
    };
    let found = sim.replica().look(&known).unwrap();
    assert!(
        found.findings.is_empty() && found.again.is_empty(),
        "{found:?}"
    );
    assert!(row(sim.replica(), &p("docs/a")).present().is_some());
}

/// Only a listing tells whether a name is there in this spelling.
#[test]
fn what_could_not_be_listed_is_deleted_where_case_is_folded() {
    for nth in 0.. {
        let sim = folding();
        let calls = Arc::new(AtomicU32::new(0));
        let counted = calls.clone();
        sim.fs().set_hook(Box::new(move |fs, op| {
            if op == "list" && counted.fetch_add(1, Ordering::SeqCst) == nth {
                fs.fail_next("list", u64::MAX, 5);
            }
        }));
        let hinted = Scope::Some {
            paths: [p("readme"), p("docs/a")].into(),
            trees: [].into(),
        };
        // An absence counts when it is still one after a while.
        for _ in 0..2 {
            let look = sim.replica().look(&hinted).unwrap();
            assert!(look.findings.is_empty(), "listing {nth} fails: {look:?}");
            sim.fs().advance(1_000_000_000);
            record(sim.replica(), &look);
        }
        sim.fs().clear_hook();
        let action = incoming(sim.replica(), &p("docs/b"), Some(b"b"), 1);
        let outcomes = sim.replica().apply(&[action], &Given::of(&[b"b"])).unwrap();
        let is_listed = calls.load(Ordering::SeqCst) <= nth;
        let expected = (!is_listed).then_some(Code::Unwritable);
        assert_eq!(code(&outcomes[0]), expected, "{outcomes:?}");
        if is_listed {
            assert!(nth > 3, "the listings were to fail one after the other");
            return;
        }
    }
}
