//! Absences settle: what comes back at once was never gone.

use instep_core::plan::Outcome;
use instep_core::version::Kind;
use instep_fs::sim::{Save, SimConfig};
use instep_local::Settings;
use instep_replica::conformance::User as _;
use instep_replica::look::Found;
use instep_replica::{HintSet, Look, Replica, Scope};

use super::acts::{look, observe, record, row};
use crate::support::p;
use crate::support::sim::Sim;

fn pass(sim: &Sim, ms: u64) {
    sim.fs().advance(ms.cast_signed() * 1_000_000);
}

fn with_files(names: &[&str]) -> Sim {
    let sim = Sim::new(SimConfig::ext4(1));
    for name in names {
        sim.write(&p(name), name.as_bytes()).unwrap();
    }
    observe(sim.replica(), &|ms| pass(&sim, ms));
    sim
}

fn absent(look: &Look) -> Vec<String> {
    let gone = look
        .findings
        .iter()
        .filter(|f| matches!(f.found, Found::Absent { .. }));
    gone.map(|f| f.path.to_string()).collect()
}

#[test]
fn a_file_counts_as_deleted_while_it_is_only_replaced() {
    let sim = with_files(&["f"]);
    let before = row(sim.replica(), &p("f"));
    sim.remove(&p("f")).unwrap();
    let first = look(sim.replica());
    assert_eq!(absent(&first), [""; 0]);
    assert_eq!(
        first.again.first().map(|(path, _)| path.to_string()),
        Some("f".into())
    );
    record(sim.replica(), &first);
    pass(&sim, 100);
    sim.write(&p("f"), b"f").unwrap();
    let second = observe(sim.replica(), &|ms| pass(&sim, ms));
    assert_eq!(absent(&second), [""; 0]);
    let after = row(sim.replica(), &p("f"));
    assert!(
        after
            .present()
            .is_some_and(|v| v.content == before.present().unwrap().content)
    );
    assert!(!after.entry.siblings().iter().any(|(_, v)| v.is_tomb()));
}

#[test]
fn a_deletion_is_never_passed_on() {
    let sim = with_files(&["f", "d/a", "d/b"]);
    sim.remove(&p("f")).unwrap();
    sim.remove(&p("d")).unwrap();
    let waiting = look(sim.replica());
    assert_eq!(absent(&waiting), [""; 0]);
    pass(&sim, Settings::default().settle_ms + 1);
    assert_eq!(absent(&look(sim.replica())), ["d", "d/a", "d/b", "f"]);
}

#[test]
fn a_reappearance_does_not_start_the_time_anew() {
    let sim = with_files(&["f"]);
    let settle = Settings::default().settle_ms;
    sim.remove(&p("f")).unwrap();
    look(sim.replica());
    pass(&sim, settle - 50);
    sim.write(&p("f"), b"f").unwrap();
    observe(sim.replica(), &|ms| pass(&sim, ms));
    sim.remove(&p("f")).unwrap();
    look(sim.replica());
    pass(&sim, 60);
    assert_eq!(
        absent(&look(sim.replica())),
        [""; 0],
        "missed for 60 ms only"
    );
    pass(&sim, settle);
    assert_eq!(absent(&look(sim.replica())), ["f"]);
}

#[test]
fn a_burst_of_deletions_waits_for_ever() {
    let names: Vec<String> = (0..40).map(|n| format!("f{n:02}")).collect();
    let sim = with_files(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let mut passed_on = None;
    for (n, name) in names.iter().enumerate() {
        sim.remove(&p(name)).unwrap();
        let found = look(sim.replica());
        if !absent(&found).is_empty() {
            passed_on.get_or_insert(n);
        }
        pass(&sim, 100);
    }
    let first = passed_on.expect("not before the end of the burst");
    assert!(
        first >= 3,
        "at the {first}th, although more came every 100 ms"
    );
}

#[test]
fn a_file_that_became_a_directory_hides_in_the_absence() {
    let sim = with_files(&["x", "d/inside"]);
    sim.remove(&p("x")).unwrap();
    sim.mkdir(&p("x")).unwrap();
    sim.remove(&p("d")).unwrap();
    sim.write(&p("d"), b"a file now").unwrap();
    observe(sim.replica(), &|ms| pass(&sim, ms));
    let kind = |path: &str| row(sim.replica(), &p(path)).present().map(|v| v.kind);
    assert_eq!(
        (kind("x"), kind("d"), kind("d/inside")),
        (Some(Kind::Dir), Some(Kind::File), None)
    );
}

#[test]
fn a_look_at_one_place_settles_another() {
    let sim = with_files(&["a", "b"]);
    sim.remove(&p("a")).unwrap();
    look(sim.replica());
    pass(&sim, 5000);
    let only = |path: &str| Scope::Some {
        paths: [p(path)].into(),
        trees: [].into(),
    };
    let elsewhere = sim.replica().look(&only("b")).unwrap();
    assert!(elsewhere.findings.is_empty(), "{elsewhere:?}");
    assert_eq!(absent(&sim.replica().look(&only("a")).unwrap()), ["a"]);
}

#[test]
fn a_directory_that_was_made_anew_hides_what_went_with_the_old_one() {
    let sim = with_files(&["d/a", "d/b"]);
    sim.rename(&p("d"), &p("elsewhere")).unwrap();
    sim.mkdir(&p("d")).unwrap();
    sim.write(&p("d/b"), b"new").unwrap();
    let scope = Scope::Some {
        paths: [p("d")].into(),
        trees: std::collections::BTreeSet::new(),
    };
    let hinted = || sim.replica().look(&scope).unwrap();
    hinted();
    pass(&sim, Settings::default().settle_ms + 1);
    assert_eq!(absent(&hinted()), ["d/a"]);
}

#[test]
fn a_chmod_of_a_directory_that_stands_for_its_contents_is_forgotten() {
    let sim = with_files(&[]);
    let arrives = super::acts::incoming(sim.replica(), &p("d/f"), Some(b"f"), 1);
    let given = super::acts::Given::of(&[b"f"]);
    sim.replica().apply(&[arrives], &given).unwrap();
    assert!(row(sim.replica(), &p("d")).is_derived_dir());
    sim.chmod(&p("d"), 0o700).unwrap();
    observe(sim.replica(), &|ms| pass(&sim, ms));
    let after = row(sim.replica(), &p("d"));
    assert!(
        after
            .present()
            .is_some_and(|v| v.kind == Kind::Dir && v.mode == 0o700)
    );
}

#[test]
fn a_file_that_waits_for_an_absence_asks_for_looks_without_rest() {
    let sim = with_files(&["d"]);
    let arrives = super::acts::incoming(sim.replica(), &p("d/f"), Some(b"f"), 1);
    let given = super::acts::Given::of(&[b"f"]);
    sim.remove(&p("d")).unwrap();
    look(sim.replica());
    sim.replica().take_hints();
    let outcomes = sim.replica().apply(&[arrives], &given).unwrap();
    assert_eq!(outcomes, [Outcome::Superseded]);
    assert_eq!(sim.replica().take_hints(), HintSet::default());
}

#[test]
fn a_directory_stands_on_for_what_its_user_took_away() {
    let sim = with_files(&[]);
    let arrives = super::acts::incoming(sim.replica(), &p("d/e/f"), Some(b"f"), 1);
    let given = super::acts::Given::of(&[b"f"]);
    sim.replica().apply(&[arrives], &given).unwrap();
    sim.remove(&p("d/e/f")).unwrap();
    observe(sim.replica(), &|ms| pass(&sim, ms));
    assert!(sim.fs().stat("d").is_err());
    for dir in ["d", "d/e"] {
        assert_eq!(row(sim.replica(), &p(dir)).print, None, "{dir}");
    }
}

#[test]
fn the_first_part_of_a_large_deletion_passes_the_brake() {
    let names: Vec<String> = (0..600).map(|n| format!("f{n:03}")).collect();
    let sim = with_files(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let settings = Settings::default();
    let mut took = 0;
    // It goes on for longer than a burst of a few files may.
    for part in names.chunks(60) {
        for name in part {
            sim.remove(&p(name)).unwrap();
        }
        let passed_on = absent(&look(sim.replica()));
        assert_eq!(passed_on, [""; 0], "after {took} ms");
        pass(&sim, settings.settle_ms - 50);
        took += settings.settle_ms - 50;
    }
    assert!(took > settings.settle_max_ms);
    pass(&sim, settings.settle_max_ms);
    assert_eq!(absent(&look(sim.replica())).len(), names.len());
}

#[test]
fn the_first_part_of_a_large_deletion_passes_the_brake_where_nobody_watches() {
    let names: Vec<String> = (0..200).map(|n| format!("d{}/f{n:03}", n / 100)).collect();
    let sim = with_files(&names.iter().map(String::as_str).collect::<Vec<_>>());
    sim.remove(&p("d0")).unwrap();
    assert_eq!(absent(&look(sim.replica())), [""; 0]);
    pass(&sim, Settings::default().settle_max_ms);
    sim.remove(&p("d1")).unwrap();
    // What was missed is looked at again before the next poll finds the rest.
    let again = Scope::Some {
        paths: [p("d0")].into(),
        trees: [].into(),
    };
    assert_eq!(absent(&sim.replica().look(&again).unwrap()), [""; 0]);
    pass(&sim, Settings::default().settle_max_ms);
    assert_eq!(
        absent(&sim.replica().look(&again).unwrap()).len(),
        names.len() + 2
    );
}

#[test]
fn what_was_missed_once_makes_every_later_burst_an_old_one() {
    let sim = with_files(&["d/a", "d/b", "x", "y"]);
    let settings = Settings::default();
    // The outermost path that is missed changes while the burst goes on.
    for path in ["d/a", "d"] {
        sim.remove(&p(path)).unwrap();
        observe_once(&sim);
    }
    pass(&sim, settings.settle_ms);
    assert_eq!(absent(&look(sim.replica())), ["d", "d/a", "d/b"]);
    observe(sim.replica(), &|ms| pass(&sim, ms));
    pass(&sim, 10 * settings.settle_max_ms);
    sim.remove(&p("x")).unwrap();
    observe_once(&sim);
    pass(&sim, settings.settle_ms);
    sim.remove(&p("y")).unwrap();
    assert_eq!(absent(&look(sim.replica())), [""; 0], "the burst is young");
}

fn observe_once(sim: &Sim) {
    let found = look(sim.replica());
    record(sim.replica(), &found);
}

#[test]
fn what_is_put_into_a_directory_that_was_made_anew_is_never_seen() {
    let config = SimConfig {
        ino_reuse: true,
        ..SimConfig::ext4(1)
    };
    let sim = Sim::with_watch(config, true);
    sim.write(&p("d/old"), b"old").unwrap();
    let waker = instep_replica::Waker::default();
    sim.replica().watch(waker).unwrap();
    observe(sim.replica(), &|ms| pass(&sim, ms));
    sim.replica().take_hints();
    let ino = row(sim.replica(), &p("d")).print.map(|p| p.ino);
    sim.remove(&p("d")).unwrap();
    sim.mkdir(&p("d")).unwrap();
    sim.write(&p("d/new"), b"new").unwrap();
    let hints = sim.replica().take_hints();
    let scope = Scope::Some {
        paths: hints.paths,
        trees: hints.trees,
    };
    let found = sim.replica().look(&scope).unwrap();
    let has = |path: &str| found.findings.iter().any(|f| f.path == p(path));
    assert!(has("d/new"), "{found:?}");
    record(sim.replica(), &found);
    assert_eq!(row(sim.replica(), &p("d")).print.map(|p| p.ino), ino);
    sim.write(&p("d/later"), b"later").unwrap();
    assert!(sim.replica().take_hints().paths.contains(&p("d/later")));
}

#[test]
fn a_directory_that_an_arriving_file_brings_back_hides_what_left_with_the_old_one() {
    let sim = Sim::with_watch(SimConfig::ext4(1), true);
    sim.write(&p("d/a"), b"a").unwrap();
    let waker = instep_replica::Waker::default();
    sim.replica().watch(waker).unwrap();
    observe(sim.replica(), &|ms| pass(&sim, ms));
    sim.replica().take_hints();
    sim.rename(&p("d"), &p("elsewhere")).unwrap();
    let arrives = super::acts::incoming(sim.replica(), &p("d/c"), Some(b"c"), 1);
    let given = super::acts::Given::of(&[b"c"]);
    sim.replica().apply(&[arrives], &given).unwrap();
    let mut missed = false;
    for _ in 0..3 {
        let hints = sim.replica().take_hints();
        let scope = Scope::Some {
            paths: hints.paths,
            trees: hints.trees,
        };
        let found = sim.replica().look(&scope).unwrap();
        missed |= absent(&found).contains(&"d/a".to_owned());
        for (path, _) in &found.again {
            missed |= *path == p("d/a");
        }
        record(sim.replica(), &found);
    }
    assert!(missed, "nothing leads to it any more");
}

#[test]
fn a_hint_at_a_part_of_a_large_deletion_lets_that_part_pass() {
    let names: Vec<String> = (0..400).map(|n| format!("d{}/f{n:03}", n / 100)).collect();
    let sim = with_files(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let settings = Settings::default();
    for dir in ["d0", "d1", "d2"] {
        sim.remove(&p(dir)).unwrap();
        assert_eq!(absent(&look(sim.replica())), [""; 0]);
        pass(&sim, settings.settle_max_ms / 2);
    }
    let part = Scope::Some {
        paths: [p("d0/f001")].into(),
        trees: [].into(),
    };
    assert_eq!(absent(&sim.replica().look(&part).unwrap()), [""; 0]);
    pass(&sim, settings.settle_max_ms);
    assert_eq!(absent(&look(sim.replica())).len(), 303);
}

#[test]
fn a_file_that_is_written_without_end_waits_without_a_word() {
    let sim = with_files(&["f"]);
    let writer = sim.fs().user_open_write("f").unwrap();
    sim.fs().user_write(&writer, 0, b"half").unwrap();
    let codes = |look: &Look| look.problems.iter().map(|p| p.code).collect::<Vec<_>>();
    let first = look(sim.replica());
    assert!(
        first.again.len() == 1 && codes(&first).is_empty(),
        "{first:?}"
    );
    let mut last = first;
    for _ in 0..12 {
        pass(&sim, last.again[0].1);
        last = look(sim.replica());
    }
    assert_eq!(codes(&last), [instep_core::plan::Code::Changing]);
    assert_eq!(last.again.len(), 1, "it is tried again");
    sim.fs().user_close(writer).unwrap();
    let closed = look(sim.replica());
    assert!(
        codes(&closed).is_empty() && closed.findings.len() == 1,
        "{closed:?}"
    );
}

/// Looks at these paths, and later at what each look asks for.
fn follow(sim: &Sim, paths: &[&str], recorded: &dyn Fn()) {
    let mut paths: std::collections::BTreeSet<_> = paths.iter().map(|path| p(path)).collect();
    for _ in 0..6 {
        let trees = sim.replica().take_hints().trees;
        let found = sim.replica().look(&Scope::Some { paths, trees }).unwrap();
        sim.fs().clear_hook();
        record(sim.replica(), &found);
        recorded();
        paths = found.again.into_iter().map(|(path, _)| path).collect();
        pass(sim, Settings::default().settle_ms + 1);
    }
}

#[test]
fn what_was_in_a_directory_is_never_missed_if_a_file_takes_its_name_during_the_look() {
    let mut saved = true;
    let mut calls = 0_u32;
    while std::mem::take(&mut saved) {
        let sim = with_files(&["d/e/g"]);
        sim.rename(&p("d"), &p("elsewhere")).unwrap();
        sim.mkdir(&p("d")).unwrap();
        let mut left = calls;
        sim.fs().set_hook(Box::new(move |fs, _| {
            if left == 0 {
                fs.write_file("d/e", b"a file now", Save::InPlace).unwrap();
            }
            left = left.wrapping_sub(1);
        }));
        follow(&sim, &["d", "d/e", "d/e/g"], &|| {
            let [taken, below] = ["d/e", "d/e/g"].map(|at| row(sim.replica(), &p(at)));
            let is_file = taken.is_file_or_link();
            assert!(
                !is_file || below.print.is_none(),
                "saved before call {calls}"
            );
        });
        saved = sim.fs().stat("d/e").is_ok();
        let below = row(sim.replica(), &p("d/e/g"));
        let is_deleted = below.on_disk().is_some_and(|v| v.kind == Kind::Tomb);
        assert!(is_deleted, "saved before call {calls}: {below:?}");
        let is_file = row(sim.replica(), &p("d/e")).is_file_or_link();
        assert_eq!(is_file, saved, "saved before call {calls}");
        calls += 1;
    }
    assert!(calls > 8, "the look took {calls} calls");
}
