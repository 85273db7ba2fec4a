//! A large tree is read in pieces, and what one piece leaves is not forgotten by the next.

use std::collections::BTreeSet;

use instep_core::path::RelPath;
use instep_core::plan::Outcome;
use instep_fs::sim::SimConfig;
use instep_replica::conformance::User as _;
use instep_replica::look::Found;
use instep_replica::{Look, Replica, Scope};

use super::acts::{Given, incoming, look, observe, record, row};
use crate::support::p;
use crate::support::sim::Sim;

/// More files than are read at once, all in one directory.
fn large() -> (Sim, BTreeSet<RelPath>) {
    let sim = Sim::new(SimConfig::ext4(1));
    let paths: BTreeSet<RelPath> = (0..2500).map(|n| p(&format!("d/f{n:04}"))).collect();
    for path in &paths {
        sim.write(path, path.as_bytes()).unwrap();
    }
    (sim, paths)
}

fn files(look: &Look) -> impl Iterator<Item = RelPath> + '_ {
    let is_file = |f: &&instep_replica::Finding| {
        let found = &f.found;
        matches!(found, Found::Present { kind, .. } if *kind == instep_core::version::Kind::File)
    };
    look.findings.iter().filter(is_file).map(|f| f.path.clone())
}

#[test]
fn a_look_at_one_place_forgets_the_rest_of_a_large_tree() {
    let (sim, paths) = large();
    let first = look(sim.replica());
    assert!(
        first.rest.is_some(),
        "read at once: {}",
        first.findings.len()
    );
    record(sim.replica(), &first);
    let mut seen: BTreeSet<RelPath> = files(&first).collect();
    let elsewhere = Scope::Some {
        paths: [p("nowhere")].into(),
        trees: [].into(),
    };
    let aside = sim.replica().look(&elsewhere).unwrap();
    assert!(aside.rest.is_some(), "nothing is left, it says");
    let mut piece = aside.rest;
    while seen.len() < paths.len() {
        let scope = Scope::Rest(piece.unwrap());
        let rest = sim.replica().look(&scope).unwrap();
        assert!(
            files(&rest).count() > 0,
            "{} were never read",
            paths.len() - seen.len()
        );
        seen.extend(files(&rest));
        record(sim.replica(), &rest);
        assert_eq!(rest.rest.is_some(), seen.len() < paths.len());
        piece = rest.rest;
    }
    assert_eq!(seen, paths);
}

#[test]
fn a_file_that_was_busy_in_the_first_piece_is_passed_over_after_a_kill() {
    let (mut sim, paths) = large();
    let writer = sim.fs().user_open_write("d/f0000").unwrap();
    for at_once in [false, true] {
        let mut found = look(sim.replica());
        while let Some(piece) = found.rest {
            if !at_once {
                record(sim.replica(), &found);
            }
            let mut rest = sim.replica().look(&Scope::Rest(piece)).unwrap();
            if at_once {
                rest.findings.append(&mut found.findings);
                rest.findings.sort_by(|a, b| a.path.cmp(&b.path));
            }
            found = rest;
        }
        record(sim.replica(), &found);
        sim.kill();
        sim.open();
    }
    sim.fs().user_close(writer).unwrap();
    let found = look(sim.replica());
    assert_eq!(files(&found).collect::<Vec<_>>(), [p("d/f0000")]);
    assert_eq!(paths.len(), 2500);
}

/// Reads on until everything was read, with something done after the first piece; then a file is removed.
fn removed_after(act: impl Fn(&Sim), name: &str) -> Sim {
    let (sim, _) = large();
    let mut found = look(sim.replica());
    record(sim.replica(), &found);
    assert!(found.rest.is_some());
    act(&sim);
    while let Some(piece) = found.rest {
        found = sim.replica().look(&Scope::Rest(piece)).unwrap();
        record(sim.replica(), &found);
    }
    let path = p(name);
    assert!(row(sim.replica(), &path).print.is_some());
    sim.remove(&path).unwrap();
    observe(sim.replica(), &|ms| {
        sim.fs().advance(ms.cast_signed() * 1_000_000);
    });
    sim
}

#[test]
fn what_was_brought_between_two_pieces_can_vanish_unseen() {
    let brought = |sim: &Sim| {
        let action = incoming(sim.replica(), &p("d/new"), Some(b"theirs"), 1);
        let given = Given::of(&[b"theirs"]);
        sim.replica().apply(&[action], &given).unwrap();
    };
    let sim = removed_after(brought, "d/new");
    assert_eq!(row(sim.replica(), &p("d/new")).print, None);
}

#[test]
fn what_was_hinted_between_two_pieces_can_vanish_unseen() {
    let hinted = |sim: &Sim| {
        sim.write(&p("d/new"), b"mine").unwrap();
        let scope = Scope::Some {
            paths: [p("d/new")].into(),
            trees: [].into(),
        };
        sim.fs().advance(5_000_000_000);
        record(sim.replica(), &sim.replica().look(&scope).unwrap());
    };
    let sim = removed_after(hinted, "d/new");
    assert_eq!(row(sim.replica(), &p("d/new")).print, None);
}

/// A file is moved away after it was read, and its directory goes by what others did, or by its user, before that is
/// recorded.
#[test]
fn the_index_tells_for_ever_of_what_was_read_before_its_directory_went() {
    for by_user in [false, true] {
        let sim = Sim::new(SimConfig::ext4(1));
        for n in 0..2500 {
            sim.write(&p(&format!("d/f{n:04}")), b"some").unwrap();
        }
        let (moved, to) = (p("e/moved"), p("d/moved"));
        sim.write(&moved, b"moved").unwrap();
        let mut found = look(sim.replica());
        record(sim.replica(), &found);
        assert!(found.rest.is_some());
        while let Some(piece) = found.rest {
            found = sim.replica().look(&Scope::Rest(piece)).unwrap();
            if found.rest.is_some() {
                record(sim.replica(), &found);
            }
        }
        assert!(files(&found).any(|path| path == moved));
        sim.rename(&moved, &to).unwrap();
        if by_user {
            sim.remove(&p("e")).unwrap();
            let scope = Scope::Some {
                paths: [p("e")].into(),
                trees: [].into(),
            };
            sim.fs().advance(5_000_000_000);
            record(sim.replica(), &sim.replica().look(&scope).unwrap());
        } else {
            let action = incoming(sim.replica(), &p("e"), None, 1);
            let outcomes = sim.replica().apply(&[action], &Given::of(&[])).unwrap();
            assert_eq!(outcomes, [Outcome::Done]);
        }
        record(sim.replica(), &found);
        observe(sim.replica(), &|ms| {
            sim.fs().advance(ms.cast_signed() * 1_000_000);
        });
        assert_eq!(row(sim.replica(), &moved).print, None, "{by_user}");
        assert!(row(sim.replica(), &to).print.is_some(), "{by_user}");
    }
}

#[test]
fn a_piece_whose_answer_was_lost_is_passed_over() {
    let (sim, paths) = large();
    let mut found = look(sim.replica());
    record(sim.replica(), &found);
    while let Some(piece) = found.rest {
        let lost = sim.replica().look(&Scope::Rest(piece)).unwrap();
        found = sim.replica().look(&Scope::Rest(piece)).unwrap();
        assert_eq!(found, lost);
        record(sim.replica(), &found);
    }
    let unknown = paths
        .iter()
        .filter(|path| row(sim.replica(), path).print.is_none());
    assert_eq!(unknown.count(), 0);
}
