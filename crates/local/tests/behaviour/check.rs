//! Reading again: decay is told from changes, and what is listed as damaged is offered to nobody.

use instep_core::path::RelPath;
use instep_fs::sim::{Save, SimConfig};
use instep_replica::conformance::User as _;
use instep_replica::records::{DamageRecord, ShareRecord};
use instep_replica::{Book, Checked, Found, Replica, Scope, ShareState};

use crate::support::p;
use crate::support::real::SHARE;
use crate::support::sim::Sim;

/// A replica that has recorded `d/x` and `d/y`.
fn recorded() -> Sim {
    let sim = Sim::new(SimConfig::ext4(1));
    sim.write(&p("d/x"), b"good").unwrap();
    sim.write(&p("d/y"), b"other").unwrap();
    let look = sim.replica().look(&Scope::Everything).unwrap();
    let share = ShareState::new(SHARE, ShareRecord::default());
    sim.replica().record(&look, &share).unwrap();
    // What the first look read is not at hand any more.
    sim.replica().look(&Scope::Everything).unwrap();
    sim
}

#[test]
fn a_flipped_bit_is_decay_and_no_look_sees_it() {
    let sim = recorded();
    assert_eq!(sim.replica().check(&p("d/x")).unwrap(), Checked::Sound(4));
    sim.fs().decay(b"d/x", 2).unwrap();
    assert!(
        sim.replica()
            .look(&Scope::Everything)
            .unwrap()
            .findings
            .is_empty()
    );
    let checked = sim.replica().check(&p("d/x")).unwrap();
    let Checked::Decayed { found, touched } = checked else {
        panic!("{checked:?}");
    };
    assert!(!touched);
    let bad = instep_chunk::hash::content_id(&sim.read(&p("d/x")).unwrap());
    assert!(matches!(*found, Found::Present { content, .. } if content == bad));
    assert_eq!(sim.replica().check(&p("d/y")).unwrap(), Checked::Sound(5));
}

#[test]
fn a_change_is_no_decay() {
    let sim = recorded();
    sim.fs().advance(1_000_000_000);
    sim.write(&p("d/x"), b"goot").unwrap();
    assert_eq!(sim.replica().check(&p("d/x")).unwrap(), Checked::Changed);
    sim.fs()
        .write_file(b"d/y", b"other", Save::ByRename)
        .unwrap();
    assert_eq!(sim.replica().check(&p("d/y")).unwrap(), Checked::Changed);
    sim.remove(&p("d/y")).unwrap();
    assert_eq!(sim.replica().check(&p("d/y")).unwrap(), Checked::Changed);
    assert_eq!(sim.replica().check(&p("d")).unwrap(), Checked::Nothing);
    assert_eq!(sim.replica().check(&p("no")).unwrap(), Checked::Nothing);
}

#[test]
fn what_is_listed_as_damaged_is_offered_to_nobody() {
    let sim = recorded();
    let good = instep_chunk::hash::content_id(b"good");
    assert!(sim.replica().open(&p("d/x"), good).unwrap().is_some());
    let record = DamageRecord::new(&p("d/x"), good, good, 0);
    let (key, body) = (DamageRecord::key(&p("d/x")), serde_json::to_string(&record));
    let write = |body: Option<&str>| sim.replica().write_record(Book::Share, &key, body);
    write(Some(&body.unwrap())).unwrap();
    assert!(sim.replica().open(&p("d/x"), good).unwrap().is_none());
    write(None).unwrap();
    assert!(sim.replica().open(&p("d/x"), good).unwrap().is_some());
}

#[test]
fn every_file_is_drawn_by_some_seed() {
    let sim = recorded();
    let draw = |seed| sim.replica().sample(seed, 1).unwrap();
    let drawn: std::collections::BTreeSet<RelPath> = (0..200).flat_map(draw).collect();
    assert_eq!(drawn, [p("d/x"), p("d/y")].into());
    assert_eq!(
        sim.replica().sample(7, 9).unwrap(),
        sim.replica().sample(7, 9).unwrap()
    );
}
