//! Moves: of files and of whole trees, away and back.

use std::fs;

use instep_core::time::Mtime;
use instep_fs::sim::SimConfig;
use instep_replica::conformance::User as _;
use instep_replica::look::Found;
use instep_replica::{Look, Replica};

use super::acts::{look, observe, row};
use crate::support::p;
use crate::support::real::Real;
use crate::support::sim::Sim;

fn moved(look: &Look) -> usize {
    let from = |f: &Found| {
        matches!(
            f,
            Found::Present {
                moved_from: Some(_),
                ..
            }
        )
    };
    look.findings.iter().filter(|f| from(&f.found)).count()
}

#[test]
fn a_directory_of_a_thousand_files_is_brought_file_by_file() {
    let real = Real::new();
    let pass = |ms| real.env.pass_ms(ms);
    fs::create_dir_all(real.root.join("old/sub")).unwrap();
    for n in 0..1000 {
        let dir = if n % 2 == 0 { "old" } else { "old/sub" };
        fs::write(
            real.root.join(dir).join(format!("{n}")),
            format!("content {n}"),
        )
        .unwrap();
    }
    observe(real.replica(), &pass);
    fs::rename(real.root.join("old"), real.root.join("new")).unwrap();
    let found = look(real.replica());
    assert_eq!(found.moves.len(), 1, "{:?}", found.moves);
    assert_eq!(
        (&found.moves[0].from, &found.moves[0].to),
        (&p("old"), &p("new"))
    );
    assert!(found.moves[0].whole);
    assert_eq!(moved(&found), 1002);
    observe(real.replica(), &pass);
    assert!(
        row(real.replica(), &p("old/0"))
            .on_disk()
            .unwrap()
            .is_tomb()
    );
    assert!(look(real.replica()).findings.is_empty());
    // And back.
    fs::rename(real.root.join("new"), real.root.join("old")).unwrap();
    let back = look(real.replica());
    assert_eq!(back.moves.len(), 1);
    observe(real.replica(), &pass);
    let shown = row(real.replica(), &p("old/sub/999"));
    assert_eq!(
        shown.present().unwrap().content,
        instep_chunk::content_id(b"content 999")
    );
    assert_eq!(shown.entry.siblings().len(), 1);
}

#[test]
fn a_file_that_went_out_and_came_back_counts_as_changed() {
    let real = Real::new();
    let pass = |ms| real.env.pass_ms(ms);
    fs::write(real.root.join("f"), "x").unwrap();
    fs::create_dir(real.root.join("d")).unwrap();
    fs::write(real.root.join("d/g"), "y").unwrap();
    observe(real.replica(), &pass);
    let before = (row(real.replica(), &p("f")), row(real.replica(), &p("d/g")));
    let outside = real.scratch.path().join("outside");
    for name in ["f", "d"] {
        fs::rename(real.root.join(name), &outside).unwrap();
        look(real.replica());
        fs::rename(&outside, real.root.join(name)).unwrap();
    }
    observe(real.replica(), &pass);
    let after = (row(real.replica(), &p("f")), row(real.replica(), &p("d/g")));
    assert_eq!(
        (before.0.entry, before.1.entry),
        (after.0.entry, after.1.entry)
    );
}

#[test]
fn a_move_with_an_edit_inside_counts_as_whole() {
    let real = Real::new();
    let pass = |ms| real.env.pass_ms(ms);
    fs::create_dir(real.root.join("old")).unwrap();
    for name in ["a", "b"] {
        fs::write(real.root.join("old").join(name), name).unwrap();
    }
    observe(real.replica(), &pass);
    fs::rename(real.root.join("old"), real.root.join("new")).unwrap();
    pass(20);
    fs::write(real.root.join("new/a"), "edited meanwhile").unwrap();
    let found = look(real.replica());
    assert!(
        found.moves.iter().all(|m| !m.whole || m.to != p("new")),
        "{:?}",
        found.moves
    );
    observe(real.replica(), &pass);
    let content = row(real.replica(), &p("new/a")).present().unwrap().content;
    assert_eq!(content, instep_chunk::content_id(b"edited meanwhile"));
}

/// Many file systems give the number of an inode to the next one at once.
#[test]
fn a_directory_with_the_inode_number_of_a_deleted_one_hides_what_was_in_that() {
    let sim = Sim::new(SimConfig::ext4(1));
    let pass = |ms: u64| sim.fs().advance(ms.cast_signed() * 1_000_000);
    sim.write(&p("d/e/a"), b"a").unwrap();
    observe(sim.replica(), &pass);
    sim.remove(&p("d/e/a")).unwrap();
    sim.remove(&p("d/e")).unwrap();
    sim.mkdir(&p("new")).unwrap();
    sim.remove(&p("d")).unwrap();
    let first = look(sim.replica());
    super::acts::record(sim.replica(), &first);
    sim.mkdir(&p("d")).unwrap();
    observe(sim.replica(), &pass);
    for path in ["d/e", "d/e/a"] {
        assert!(row(sim.replica(), &p(path)).print.is_none(), "{path}");
    }
}

/// A rename elsewhere would leave the old permissions or time there.
#[test]
fn a_move_with_a_chmod_or_a_touch_inside_counts_as_whole() {
    for change in ["nothing", "chmod", "chmod of a directory", "touch"] {
        let sim = Sim::new(SimConfig::ext4(1));
        let pass = |ms: u64| sim.fs().advance(ms.cast_signed() * 1_000_000);
        for name in ["old/a", "old/sub/b"] {
            sim.write(&p(name), name.as_bytes()).unwrap();
        }
        sim.symlink(&p("old/link"), b"a").unwrap();
        observe(sim.replica(), &pass);
        match change {
            "chmod" => sim.chmod(&p("old/a"), 0o700).unwrap(),
            "chmod of a directory" => sim.chmod(&p("old/sub"), 0o700).unwrap(),
            "touch" => {
                let mtime = Mtime {
                    secs: 1_700_000_000,
                    nanos: 0,
                };
                sim.fs().touch("old/a", mtime).unwrap();
            }
            _ => {}
        }
        sim.rename(&p("old"), &p("new")).unwrap();
        let found = look(sim.replica());
        let whole: Vec<bool> = found.moves.iter().map(|m| m.whole).collect();
        assert_eq!(whole, [change == "nothing"], "{change}: {:?}", found.moves);
        assert_eq!(moved(&found), 5, "{change}");
    }
}

#[test]
fn two_files_that_changed_places_are_confused() {
    let real = Real::new();
    let pass = |ms| real.env.pass_ms(ms);
    let at = |name: &str| real.root.join(name);
    fs::write(at("a"), "one").unwrap();
    fs::write(at("b"), "two").unwrap();
    observe(real.replica(), &pass);
    fs::rename(at("a"), at("t")).unwrap();
    fs::rename(at("b"), at("a")).unwrap();
    fs::rename(at("t"), at("b")).unwrap();
    observe(real.replica(), &pass);
    let content = |path: &str| row(real.replica(), &p(path)).present().unwrap().content;
    assert_eq!(content("a"), instep_chunk::content_id(b"two"));
    assert_eq!(content("b"), instep_chunk::content_id(b"one"));
}

/// File systems hand out the inode number of a deleted file again at once.
#[test]
fn a_new_file_with_an_old_inode_counts_as_moved() {
    let sim = Sim::new(SimConfig::ext4(1));
    let pass = |ms: u64| sim.fs().advance(ms.cast_signed() * 1_000_000);
    sim.write(&p("old"), b"one thing").unwrap();
    observe(sim.replica(), &pass);
    let ino = sim.fs().stat("old").unwrap().ino;
    pass(20);
    sim.remove(&p("old")).unwrap();
    sim.write(&p("new"), b"or another").unwrap();
    assert_eq!(
        sim.fs().stat("new").unwrap().ino,
        ino,
        "the test needs the number again"
    );
    let found = look(sim.replica());
    assert_eq!((moved(&found), found.moves.len()), (0, 0));
    assert_eq!(sim.replica().row(&p("new")).unwrap(), None);
}
