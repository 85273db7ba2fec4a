//! The program as a user runs it, on real folders.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

mod support;

use std::fs;

use support::{has, program, until};

#[test]
fn two_folders_become_equal_and_a_plan_creates_nothing() {
    let cli = program();
    fs::write(cli.home().join("a/x"), "one").unwrap();
    let plan = cli
        .run(&["plan", "a", "b", "--detailed-exitcode"])
        .expect(10);
    assert!(plan.stdout.contains("copy A to B"), "{plan}");
    assert!(!cli.home().join("a/.instep").exists() && !cli.home().join("b/.instep").exists());
    assert!(!cli.home().join(".local/state/instep").exists());
    cli.run(&["sync", "--once", "a", "b"]).expect(0);
    assert!(has(&cli, "b/x", "one"));
    cli.run(&["plan", "a", "b", "--detailed-exitcode"])
        .expect(0);
    cli.run(&["verify", "a"]).expect(0);
}

#[test]
fn a_conflict_is_kept_listed_and_settled_by_name() {
    let cli = program();
    fs::write(cli.home().join("a/x"), "from a").unwrap();
    fs::write(cli.home().join("b/x"), "from b, later").unwrap();
    cli.run(&["sync", "--once", "a", "b"]).expect(4);
    let list = cli.run(&["conflicts", "a"]).expect(4);
    assert!(list.stdout.contains('x'), "{list}");
    cli.run(&["conflicts", "resolve", "--all", "--keep", "nobody", "a"])
        .expect(2);
    cli.run(&["conflicts", "resolve", "--all", "--keep", "A", "a"])
        .expect(0);
    assert!(has(&cli, "a/x", "from a") && has(&cli, "b/x", "from a"));
    cli.run(&["conflicts", "a"]).expect(0);
}

#[test]
fn a_live_session_carries_commands_out_and_stops_by_signal() {
    let cli = program();
    fs::write(cli.home().join("a/x"), "one").unwrap();
    let live = cli.spawn(&["sync", "a", "b"]);
    until("b/x is there", || has(&cli, "b/x", "one"));
    until("the session listens", || {
        cli.run(&["status", "a"]).stdout.contains("running for")
    });
    let second = cli.run(&["sync", "a", "b"]).expect(8);
    assert!(second.stderr.contains("E1006"), "{second}");
    fs::remove_file(cli.home().join("a/x")).unwrap();
    until("b/x is gone", || !cli.home().join("b/x").exists());
    cli.run(&["trash", "restore", "x", "a"]).expect(0);
    until("x is back on both", || {
        has(&cli, "a/x", "one") && has(&cli, "b/x", "one")
    });
    live.signal("TERM");
    live.wait().expect(143);
    assert!(
        cli.run(&["status", "a"])
            .expect(0)
            .stdout
            .contains("not running")
    );
    assert_eq!(
        fs::read_dir(cli.home().join("run/instep")).unwrap().count(),
        0
    );
}

#[test]
fn bad_folders_are_refused_and_nothing_is_created() {
    let cli = program();
    fs::create_dir(cli.home().join("a/inner")).unwrap();
    fs::write(cli.home().join("file"), "").unwrap();
    for (roots, code, exit) in [
        (["a", "a"], "E1001", 2),
        (["a", "a/inner"], "E1002", 2),
        (["a", "file"], "E1003", 2),
        (["a", "missing"], "E1004", 2),
        (["a", "nas:"], "E1026", 2),
    ] {
        let refused = cli
            .run(&["sync", "--once", roots[0], roots[1]])
            .expect(exit);
        assert!(refused.stderr.contains(code), "{refused}");
    }
    fs::create_dir(cli.home().join("b/.instep")).unwrap();
    fs::write(cli.home().join("b/.instep/mine"), "").unwrap();
    let foreign = cli.run(&["sync", "--once", "a", "b"]).expect(2);
    assert!(foreign.stderr.contains("E1009"), "{foreign}");
    assert!(!cli.home().join("a/.instep").exists());
    cli.run(&["sync", "--once", "--create", "a", "missing"])
        .expect(0);
    assert!(cli.home().join("missing/inner").is_dir());
}
