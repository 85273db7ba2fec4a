//! `verify`: a byte that changed by itself is found, waits, and is repaired or accepted as its user says.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

mod support;

use std::fs;

use instep_testkit::cli::Cli;
use support::{flip, has, json, live, program, put, stop, until};

/// `a` and `b` with `x` and `y`, of which `b/x` has decayed and was found.
fn decayed() -> Cli {
    let cli = program();
    put(&cli, "a/x", "a text that matters");
    put(&cli, "a/y", "another");
    cli.run(&["sync", "--once", "a", "b"]).expect(0);
    cli.run(&["verify", "a", "b"]).expect(0);
    flip(&cli.home().join("b/x"));
    cli
}

#[test]
fn a_flipped_byte_is_found_and_the_good_copy_is_named() {
    let cli = decayed();
    let out = cli.run(&["verify", "a"]).expect(11);
    let line = out.stdout.lines().find(|l| l.contains('x')).unwrap();
    assert!(line.starts_with("B: x "), "{out}");
    assert!(line.contains("good copy on A"), "{out}");
    let data = json(&cli, &["verify", "--json", "b"], 11);
    assert_eq!(data["damage"][0]["path"], "x", "{data}");
    assert_eq!(data["damage"][0]["replica"], "B", "{data}");
    assert_eq!(data["damage"][0]["good_on"][0], "A", "{data}");
    assert_eq!(data["damage"].as_array().unwrap().len(), 1, "{data}");
    assert_eq!(data["files"], 4, "{data}");
    let one = json(&cli, &["verify", "--json", "a/y"], 0);
    assert_eq!(one["files"], 2, "{one}");
}

#[test]
fn damage_is_neither_passed_on_nor_replaced_until_somebody_decides() {
    let cli = decayed();
    cli.run(&["verify", "b"]).expect(11);
    let bad = fs::read(cli.home().join("b/x")).unwrap();
    let status = cli.run(&["status", "b"]).expect(11);
    assert!(status.stdout.contains("1 file damaged (E2303)"), "{status}");
    let why = cli.run(&["why", "b/x"]).expect(0);
    assert!(why.stdout.contains("E2303"), "{why}");
    let sync = cli.run(&["sync", "--once", "a", "b"]).expect(11);
    assert!(
        sync.stderr.contains("E2303") || sync.stdout.contains("E2303"),
        "{sync}"
    );
    assert!(has(&cli, "a/x", "a text that matters"));
    put(&cli, "a/x", "a newer text");
    put(&cli, "a/y", "a newer one");
    cli.run(&["sync", "--once", "a", "b"]).expect(11);
    assert!(has(&cli, "b/y", "a newer one"));
    assert_eq!(fs::read(cli.home().join("b/x")).unwrap(), bad);
}

#[test]
fn a_repair_puts_the_good_bytes_back_and_keeps_the_others() {
    let cli = decayed();
    let bad = fs::read_to_string(cli.home().join("b/x")).unwrap();
    cli.run(&["verify", "--repair", "b"]).expect(0);
    assert!(has(&cli, "b/x", "a text that matters"));
    cli.run(&["verify", "a", "b"]).expect(0);
    cli.run(&["sync", "--once", "a", "b"]).expect(0);
    assert!(has(&cli, "a/x", "a text that matters"));
    cli.run(&["trash", "restore", "x", "--to", "bad", "b"])
        .expect(0);
    until("the bad bytes are back", || has(&cli, "b/bad", &bad));
}

#[test]
fn without_another_folder_the_trash_has_the_good_copy() {
    let cli = decayed();
    put(
        &cli,
        "a/x",
        "newer: now the text that matters is in the trash",
    );
    // What b lost is kept there, and decays in the trash too.
    fs::remove_file(cli.home().join("b/x")).unwrap();
    put(&cli, "b/x", "a text that matters");
    cli.run(&["sync", "--once", "a", "b"]).expect(0);
    let kept = |dir: &str| {
        let names = fs::read_dir(cli.home().join(dir)).unwrap();
        names.map(|e| e.unwrap().path()).next()
    };
    let trash = kept("b/.instep/trash").or_else(|| kept("b/.instep/versions"));
    cli.run(&["verify", "b"]).expect(0);
    flip(&trash.unwrap());
    let data = json(&cli, &["verify", "--json", "b"], 11);
    assert_eq!(data["kept_damage"][0]["path"], "x", "{data}");
    assert_eq!(data["kept_damage"][0]["replica"], "B", "{data}");
    assert_eq!(data["damage"].as_array().unwrap().len(), 0, "{data}");
}

#[test]
fn a_running_session_knows_damage_and_carries_decisions_out() {
    let cli = decayed();
    let bad = fs::read_to_string(cli.home().join("b/x")).unwrap();
    cli.run(&["verify", "b"]).expect(11);
    let session = live(&cli, &["sync", "a", "b"]);
    let status = cli.run(&["status", "--json", "b"]).expect(11);
    assert!(status.stdout.contains("E2303"), "{status}");
    assert!(has(&cli, "a/x", "a text that matters"));
    cli.run(&["verify", "--accept", "b/x"]).expect(0);
    until("the bytes are accepted", || has(&cli, "a/x", &bad));
    cli.run(&["status", "b"]).expect(0);
    stop(session);
}

#[test]
fn a_sample_is_the_same_in_every_folder_and_says_what_it_covered() {
    let cli = program();
    for n in 0..200 {
        put(&cli, &format!("a/many/{n}"), &format!("text {n}"));
    }
    cli.run(&["sync", "--once", "a", "b"]).expect(0);
    let sample = |seed: &str| {
        let args = ["verify", "--json", "--sample", "10%", "--seed", seed, "a"];
        json(&cli, &args, 0)
    };
    let (one, again) = (sample("1"), sample("1"));
    assert_eq!(one, again);
    assert_eq!(one["files_of"], 400, "{one}");
    let read = one["files"].as_u64().unwrap();
    assert!(read > 0 && read < 200 && read.is_multiple_of(2), "{one}");
    assert_eq!(one["differing"], 0, "{one}");
    let text = cli.run(&["verify", "--sample", "10%", "a"]).expect(0);
    assert!(
        text.stdout
            .contains("a sample of 10 % of 400 files, seed 0"),
        "{text}"
    );
    cli.run(&["verify", "--sample", "0", "a"]).expect(2);
}
