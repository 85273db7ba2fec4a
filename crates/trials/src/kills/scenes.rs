//! The scenes: what users did before the program was started, and the command that is killed.
//!
//! Invariant: everything that users do is done while no program runs, or while the one that is killed runs, so that what
//! must come out does not depend on where it dies. Together the scenes come to every step.

use std::fs;
use std::io;

use super::stage::Stage;

/// How far a command may have come when it died and was not given again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comes {
    /// It is done again by itself: no death makes a difference.
    Through,
    /// It is done, or as if it had never been given.
    ThroughOrNot,
    /// It is several things, each of which is done or not.
    ThroughInPart,
    /// As before, and what was not done is an open conflict as it was.
    ThroughInDecisions,
}

/// One scene.
#[derive(Debug, Clone, Copy)]
pub struct Scene {
    /// Its name.
    pub name: &'static str,
    /// How many roots there are.
    pub roots: usize,
    /// What happened before.
    pub before: fn(&mut Stage),
    /// What is killed.
    pub command: fn(&Stage) -> Vec<String>,
    /// What users do while it runs. It is stopped when everything is in step.
    pub meanwhile: Option<fn(&mut Stage)>,
    /// What is said to be done again after a death.
    pub again: fn(&Stage) -> Vec<String>,
    /// How far the command may have come.
    pub comes: Comes,
    /// The command destroys what is kept.
    pub destroys: bool,
    /// A machine took what it had shown: names may be missing until they are brought again.
    pub is_torn: bool,
}

const SYNC: Scene = Scene {
    name: "",
    roots: 2,
    before: |_| {},
    command: sync,
    meanwhile: None,
    again: sync,
    comes: Comes::Through,
    destroys: false,
    is_torn: false,
};

/// A scene of a command that a person gives once.
const ORDER: Scene = Scene {
    comes: Comes::ThroughOrNot,
    ..SYNC
};

fn sync(stage: &Stage) -> Vec<String> {
    stage.command(&["sync", "--once"])
}

fn mirror(stage: &Stage) -> Vec<String> {
    stage.command(&["mirror", "--once"])
}

/// All scenes.
pub const SCENES: &[Scene] = &[
    Scene {
        name: "first",
        before: first,
        ..SYNC
    },
    Scene {
        name: "edits",
        before: edits,
        ..SYNC
    },
    Scene {
        name: "deletes",
        before: deletes,
        ..SYNC
    },
    Scene {
        name: "moves",
        before: moves,
        ..SYNC
    },
    Scene {
        name: "kinds",
        before: kinds,
        ..SYNC
    },
    Scene {
        name: "conflicts",
        before: conflicts,
        ..SYNC
    },
    Scene {
        name: "copies",
        before: conflicts,
        command: |s| s.command(&["sync", "--once", "--policy", "keep-both"]),
        again: |s| s.command(&["sync", "--once", "--policy", "keep-both"]),
        ..SYNC
    },
    Scene {
        name: "prune",
        before: prune,
        ..SYNC
    },
    Scene {
        name: "three",
        roots: 3,
        before: three,
        ..SYNC
    },
    Scene {
        name: "join",
        roots: 3,
        before: join,
        ..SYNC
    },
    Scene {
        name: "lost-index",
        before: lost_index,
        ..SYNC
    },
    Scene {
        name: "copied-root",
        roots: 3,
        before: copied_root,
        ..SYNC
    },
    Scene {
        name: "live",
        before: live,
        command: |s| s.command(&["sync"]),
        meanwhile: Some(meanwhile),
        ..SYNC
    },
    Scene {
        name: "mirror",
        before: mirrored,
        command: mirror,
        again: mirror,
        ..SYNC
    },
    Scene {
        name: "hold",
        before: mass_deletion,
        ..SYNC
    },
    Scene {
        name: "approve",
        before: held,
        command: |s| decide(s, "approve"),
        ..ORDER
    },
    Scene {
        name: "reject",
        before: held,
        command: |s| decide(s, "reject"),
        ..ORDER
    },
    Scene {
        name: "resolve",
        before: in_conflict,
        command: |s| resolve(s, "A"),
        comes: Comes::ThroughInDecisions,
        ..ORDER
    },
    Scene {
        name: "resolve-both",
        before: in_conflict,
        command: |s| resolve(s, "both"),
        comes: Comes::ThroughInDecisions,
        ..ORDER
    },
    Scene {
        name: "restore",
        before: trashed,
        command: |s| restore(s, "d"),
        comes: Comes::ThroughInPart,
        ..ORDER
    },
    Scene {
        name: "restore-loser",
        before: in_conflict,
        command: restore_loser,
        comes: Comes::ThroughInPart,
        ..ORDER
    },
    Scene {
        name: "purge",
        before: trashed,
        command: |s| s.command(&["trash", "empty"]),
        destroys: true,
        comes: Comes::ThroughInPart,
        ..ORDER
    },
    Scene {
        name: "forget",
        roots: 3,
        before: three,
        command: |s| forget(s, &[]),
        again: two,
        ..ORDER
    },
    Scene {
        name: "forget-purge",
        roots: 3,
        before: three_in_step,
        command: |s| forget(s, &["--purge"]),
        again: two,
        destroys: true,
        comes: Comes::ThroughInPart,
        ..ORDER
    },
    Scene {
        name: "again-exchanged",
        before: |s| died(s, edits, "exchanged:2"),
        ..SYNC
    },
    Scene {
        name: "again-taken",
        before: |s| died(s, deletes, "taken:2"),
        ..SYNC
    },
    Scene {
        name: "again-trashed",
        before: |s| died(s, edits, "trashed:2"),
        ..SYNC
    },
    Scene {
        name: "again-drafted",
        before: |s| died(s, edits, "draft-dressed:3"),
        ..SYNC
    },
    Scene {
        name: "again-moved",
        before: |s| died(s, moves, "moved-early:1"),
        ..SYNC
    },
    Scene {
        name: "boot-exchanged",
        before: |s| boot(s, edits, "exchanged:2"),
        ..SYNC
    },
    Scene {
        name: "boot-committed",
        before: |s| boot(s, conflicts, "rows-written:1"),
        ..SYNC
    },
    Scene {
        name: "boot-lost-rename",
        before: lost_rename,
        is_torn: true,
        ..SYNC
    },
];

/// A tree with everything that a tree may have.
fn plant(s: &mut Stage, root: usize) {
    for path in [
        "one",
        "two",
        "three",
        "d/four",
        "d/five",
        "d/e/six",
        "d/e/seven",
        "m/x",
        "m/y",
        "m/n/z",
    ] {
        s.put(root, path, 40);
    }
    s.put(root, "middling", 90_000);
    s.put(root, "large", 1_300_000);
    s.put(root, "run", 60);
    s.mode(root, "run", 0o755);
    s.dir(root, "empty/below");
    s.put(root, "shut/file", 50);
    s.mode(root, "shut", 0o555);
    s.link(root, "link", "d/four");
    s.link(root, "dangling", "nowhere");
}

fn base(s: &mut Stage) {
    plant(s, 0);
    s.sync();
}

fn first(s: &mut Stage) {
    plant(s, 0);
    s.put(1, "one", 70);
    s.put(1, "d/four", 30);
    s.put(1, "only-b/file", 45);
    s.link(1, "link", "d/five");
}

fn edits(s: &mut Stage) {
    base(s);
    s.put(0, "one", 200);
    s.save(1, "two", 10);
    s.put(0, "d/four", 3000);
    s.put(1, "middling", 91_000);
    s.save(0, "large", 1_300_001);
    s.touch(1, "three");
    s.mode(0, "run", 0o700);
    s.mode(1, "d/e", 0o700);
    s.delete(0, "link");
    s.link(0, "link", "d/five");
    s.put(0, "new/deep/file", 80);
    s.put(1, "m/new", 81);
}

fn deletes(s: &mut Stage) {
    base(s);
    s.delete(0, "one");
    s.delete(1, "d");
    s.delete(0, "link");
    s.delete(1, "empty");
    s.delete(0, "large");
}

fn moves(s: &mut Stage) {
    base(s);
    s.rename(0, "m", "moved");
    s.rename(1, "one", "uno");
    s.rename(1, "large", "d/large");
    s.rename(0, "d/e", "e");
    s.put(0, "moved/x", 77);
}

fn kinds(s: &mut Stage) {
    base(s);
    s.delete(0, "one");
    s.put(0, "one/inside", 41);
    s.delete(1, "empty");
    s.put(1, "empty", 42);
    s.delete(0, "two");
    s.link(0, "two", "three");
    s.delete(1, "link");
    s.put(1, "link", 43);
    s.delete(0, "m");
    s.link(0, "m", "d");
    s.delete(1, "dangling");
    s.dir(1, "dangling");
    s.delete(0, "run");
    s.dir(0, "run");
}

fn conflicts(s: &mut Stage) {
    base(s);
    for path in ["one", "d/four", "middling"] {
        s.put(0, path, 300);
        s.put(1, path, 301);
    }
    s.put(1, "three", 302);
    s.put(0, "three", 303);
    // An edit against a deletion, and below one.
    s.delete(0, "two");
    s.put(1, "two", 304);
    s.delete(0, "m");
    s.put(1, "m/n/z", 305);
    // Two creations, of one kind and of two.
    s.put(0, "both", 10);
    s.put(1, "both", 20);
    s.put(0, "clash", 11);
    s.put(1, "clash/file", 21);
}

/// Two directories stand only for what was brought back into them; now that goes, too.
fn prune(s: &mut Stage) {
    base(s);
    s.delete(0, "one");
    s.sync();
    s.must(
        &s.command(&["trash", "restore", "one", "--to", "back/in/here"]),
        &[0],
    );
    s.sync();
    s.delete(1, "back/in/here");
}

fn three(s: &mut Stage) {
    base(s);
    s.put(0, "one", 100);
    s.put(1, "two", 101);
    s.put(2, "three", 102);
    s.delete(2, "d/e");
    s.rename(1, "m", "moved");
}

fn three_in_step(s: &mut Stage) {
    base(s);
    s.put(2, "one", 100);
    s.sync();
}

/// Two were in step; a third comes with something of its own.
fn join(s: &mut Stage) {
    plant(s, 0);
    let third = s.roots.pop();
    s.sync();
    s.roots.extend(third);
    s.put(2, "one", 500);
    s.put(2, "d/own", 501);
    s.put(0, "two", 502);
}

fn lost_index(s: &mut Stage) {
    base(s);
    s.put(0, "one", 100);
    s.put(1, "two", 101);
    s.delete(0, "three");
    for file in ["index.db", "index.db-wal", "index.db-shm"] {
        match fs::remove_file(s.at(1, ".instep").join(file)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => panic!("remove {file}: {e}"),
            _ => {}
        }
    }
}

/// The third root was made as a copy of the second, with all that is in it.
fn copied_root(s: &mut Stage) {
    plant(s, 0);
    let third = s.roots.pop().unwrap_or_default();
    s.sync();
    let second = s.roots[1].clone();
    let mut copy = std::process::Command::new("cp");
    let done = copy.arg("-aT").arg(&second).arg(&third).status();
    assert!(done.is_ok_and(|d| d.success()), "cannot copy a root");
    s.roots.push(third);
    s.put(2, "one", 400);
    s.put(0, "two", 401);
}

fn live(s: &mut Stage) {
    base(s);
    s.put(0, "go", 30);
}

fn meanwhile(s: &mut Stage) {
    s.put(0, "huge", 8_500_000);
    s.save(0, "one", 210);
    s.put(1, "d/four", 211);
    s.rename(1, "m", "moved");
    s.delete(0, "three");
}

fn mirrored(s: &mut Stage) {
    plant(s, 0);
    s.must(&mirror(s), &[0]);
    s.put(0, "one", 100);
    s.delete(0, "d/e");
    s.put(1, "two", 101);
    s.put(1, "extra/file", 102);
    s.rename(0, "m", "moved");
}

fn mass_deletion(s: &mut Stage) {
    for n in 0..80 {
        s.put(0, &format!("many/{n}"), 30);
    }
    base(s);
    s.delete(0, "many");
    s.put(1, "one", 90);
}

fn held(s: &mut Stage) {
    mass_deletion(s);
    s.must(&sync(s), &[5]);
}

fn decide(s: &Stage, word: &str) -> Vec<String> {
    let id = s.ids("holds").into_iter().next().unwrap_or_default();
    s.command(&["holds", word, &id])
}

fn in_conflict(s: &mut Stage) {
    conflicts(s);
    s.sync();
}

fn resolve(s: &Stage, keep: &str) -> Vec<String> {
    s.command(&["conflicts", "resolve", "--all", "--keep", keep])
}

/// Something was deleted and edited, and is in the trash.
fn trashed(s: &mut Stage) {
    base(s);
    s.delete(0, "d");
    s.put(1, "one", 300);
    s.sync();
}

fn restore(s: &Stage, what: &str) -> Vec<String> {
    s.command(&["trash", "restore", what])
}

/// The loser of an open conflict, under a name of its own.
fn restore_loser(s: &Stage) -> Vec<String> {
    let losers = s.roots.iter().flat_map(|root| {
        let versions = fs::read_dir(root.join(".instep/versions"));
        versions.into_iter().flatten().flatten()
    });
    let names = losers.map(|e| e.file_name().to_string_lossy().into_owned());
    let id = names.min().unwrap_or_default();
    s.command(&["trash", "restore", &id, "--to", "back/here"])
}

fn forget(s: &Stage, more: &[&str]) -> Vec<String> {
    let words = ["forget"].iter().chain(more).map(|w| (*w).to_owned());
    words.chain(s.typed().pop()).collect()
}

/// The roots that are left.
fn two(s: &Stage) -> Vec<String> {
    let mut args = sync(s);
    args.pop();
    args
}

fn died(s: &mut Stage, before: fn(&mut Stage), at: &str) {
    before(s);
    s.sync_dies(at);
}

/// The machine went down with the process, and took nothing.
fn boot(s: &mut Stage, before: fn(&mut Stage), at: &str) {
    died(s, before, at);
    s.env.push(("INSTEP_BOOT", "another".to_owned()));
}

/// The machine went down with the process, and took renames whose rows are there.
fn lost_rename(s: &mut Stage) {
    base(s);
    let old = fs::read(s.at(1, "one")).unwrap_or_default();
    s.put(0, "one", 200);
    s.put(0, "new", 201);
    s.put(0, "torn", 202);
    s.sync_dies("synced:1");
    s.tear(b"");
    let torn = fs::write(s.at(1, "one"), old).and_then(|()| fs::write(s.at(1, "torn"), ""));
    torn.and_then(|()| fs::remove_file(s.at(1, "new")))
        .unwrap_or_else(|e| panic!("tear: {e}"));
    s.env.push(("INSTEP_BOOT", "another".to_owned()));
}
