//! `mirror`: one way, exact, and without a trace in the source.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

mod support;

use std::fs;
use std::os::unix::fs::symlink;

use support::{assert_refused, assert_untouched, has, live, program, put, see, stop, until};

#[test]
fn nothing_in_the_source_is_created_or_changed_not_even_a_time_of_an_inode() {
    let cli = program();
    put(&cli, "a/deep/er/x", "one");
    put(&cli, "a/y", "two");
    put(&cli, "b/y", "an edit at the target");
    put(&cli, "b/extra", "extra");
    symlink("y", cli.home().join("a/link")).unwrap();
    let source = cli.home().join("a");
    let before = see(&source);
    cli.run(&["mirror", "-n", "a", "b"]).expect(0);
    cli.run(&["mirror", "--once", "a", "b"]).expect(0);
    assert!(has(&cli, "b/deep/er/x", "one") && has(&cli, "b/y", "two"));
    assert!(!cli.home().join("b/extra").exists());
    put(&cli, "b/y", "another edit");
    cli.run(&["mirror", "--once", "a", "b"]).expect(0);
    assert!(has(&cli, "b/y", "two"));
    let running = live(&cli, &["mirror", "a", "b"]);
    put(&cli, "b/extra", "again");
    until("the extra is gone", || !cli.home().join("b/extra").exists());
    stop(running);
    for command in [&["status", "a"][..], &["verify", "a"], &["log", "a"]] {
        cli.run(command).expect(0);
    }
    assert_untouched(&before, &see(&source));
    let trash = cli.run(&["trash", "list", "b"]).expect(0);
    assert!(
        trash.stdout.contains("extra") && trash.stdout.contains('y'),
        "{trash}"
    );
}

#[test]
fn an_empty_source_is_refused_before_anything_is_opened_or_made() {
    let cli = program();
    put(&cli, "b/x", "one");
    for args in [
        &["mirror", "a", "b"][..],
        &["mirror", "--once", "a", "b"],
        &["mirror", "-n", "a", "b"],
    ] {
        let before = see(cli.home());
        assert_refused(cli.run(args), "E1008", 2);
        assert_untouched(&before, &see(cli.home()));
    }
    // What is never synchronized does not fill it.
    put(&cli, "a/.DS_Store", "litter");
    assert_refused(cli.run(&["mirror", "--once", "a", "b"]), "E1008", 2);
    cli.run(&["mirror", "--once", "--allow-empty", "a", "b"])
        .expect(0);
    assert!(!cli.home().join("b/x").exists());
    let back = cli.run(&["trash", "restore", "x", "b"]).expect(0);
    assert!(has(&cli, "b/x", "one"), "{back}");
}

#[test]
fn a_source_that_was_emptied_since_is_refused_too() {
    let cli = program();
    put(&cli, "a/x", "one");
    cli.run(&["mirror", "--once", "a", "b"]).expect(0);
    fs::remove_file(cli.home().join("a/x")).unwrap();
    let before = see(cli.home());
    assert_refused(cli.run(&["mirror", "--once", "a", "b"]), "E1008", 2);
    assert_untouched(&before, &see(cli.home()));
    assert!(has(&cli, "b/x", "one"));
}

#[test]
fn an_empty_source_and_empty_targets_are_in_order() {
    let cli = program();
    cli.run(&["mirror", "--once", "a", "b"]).expect(0);
    cli.run(&["mirror", "--once", "--create", "a", "made"])
        .expect(0);
    assert!(cli.home().join("made").is_dir());
}

#[test]
fn a_mirror_in_the_other_direction_is_refused() {
    let cli = program();
    put(&cli, "a/x", "one");
    cli.run(&["mirror", "--once", "a", "b"]).expect(0);
    let before = see(cli.home());
    assert_refused(cli.run(&["mirror", "--once", "b", "a"]), "E1027", 2);
    assert_untouched(&before, &see(cli.home()));
}

#[test]
fn a_folder_in_a_share_and_in_a_mirror_forgets_one_for_the_other() {
    let cli = program();
    put(&cli, "a/x", "one");
    put(&cli, "a/y", "two");
    for verb in ["sync", "mirror", "sync", "mirror"] {
        let said = cli.run(&[verb, "--once", "a", "b"]).expect(0);
        assert!(!said.stdout.contains("rejoining"), "{said}");
    }
    // Who remembers notices what was deleted meanwhile.
    fs::remove_file(cli.home().join("b/x")).unwrap();
    cli.run(&["sync", "--once", "a", "b"]).expect(0);
    assert!(!cli.home().join("a/x").exists());
    let ours = fs::read_dir(cli.home().join("b/.instep")).unwrap();
    let names: Vec<_> = ours.map(|e| e.unwrap().file_name()).collect();
    let aside = |n: &std::ffi::OsString| n.to_string_lossy().contains("aside");
    assert!(!names.iter().any(aside), "{names:?}");
}

#[test]
fn a_mirror_whose_index_is_lost_keeps_its_folders_from_being_asked_about() {
    let cli = program();
    put(&cli, "a/x", "one");
    cli.run(&["sync", "--once", "a", "b"]).expect(0);
    cli.run(&["mirror", "--once", "a", "b"]).expect(0);
    let ours = fs::read_dir(cli.home().join("b/.instep")).unwrap();
    for entry in ours.map(|e| e.unwrap()) {
        if entry.file_name().to_string_lossy().starts_with("index.db-") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    for command in [
        &["status", "b"][..],
        &["why", "b/x"],
        &["plan", "a", "b"],
        &["trash", "b"],
    ] {
        cli.run(command).expect(0);
    }
    cli.run(&["mirror", "--once", "a", "b"]).expect(0);
}
