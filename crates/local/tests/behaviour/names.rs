//! Names that the file system takes for others.

use instep_core::plan::{Code, Outcome};
use instep_fs::sim::SimConfig;
use instep_replica::conformance::User as _;
use instep_replica::look::Found;
use instep_replica::{Replica, Scope};

use super::acts::{Given, incoming, observe, row};
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
