//! `doctor`: says what is wrong and how to mend it, changes nothing unless asked, and works beside a session.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;

use instep_testkit::cli::Cli;
use support::{assert_untouched, flip, json, live, program, put, see, stop};

fn synced() -> Cli {
    let cli = program();
    put(&cli, "a/x", "a text that matters");
    put(&cli, "a/d/y", "another");
    cli.run(&["sync", "--once", "a", "b"]).expect(0);
    cli
}

/// What was found, but for what depends on the machine that runs the tests.
fn codes(cli: &Cli, args: &[&str], exit: i32) -> Vec<String> {
    let data = json(cli, args, exit);
    let all = data["findings"].as_array().unwrap();
    let code = |f: &serde_json::Value| f["code"].as_str().map(str::to_owned);
    let machine = ["E2401", "E2402", "E2403", "E2407", "E2408"];
    let found = all.iter().filter_map(code);
    found.filter(|c| !machine.contains(&c.as_str())).collect()
}

#[test]
fn a_healthy_folder_is_well_and_nothing_is_changed() {
    let cli = synced();
    let before = see(cli.home());
    let out = cli.run(&["doctor", "--full", "a"]).expect(0);
    assert!(out.stdout.contains("the folders know the same"), "{out}");
    assert!(
        out.stdout.contains("4 files of 4 files read again"),
        "{out}"
    );
    assert!(out.stdout.contains("its index is whole"), "{out}");
    assert_untouched(&before, &see(cli.home()));
    // Without a folder there is still the machine.
    cli.run(&["doctor"]).expect(0);
}

#[test]
fn it_works_beside_a_session() {
    let cli = synced();
    let session = live(&cli, &["sync", "a", "b"]);
    let out = cli.run(&["doctor", "--full", "a"]).expect(0);
    assert!(
        out.stdout.contains("a session runs, and has no problem"),
        "{out}"
    );
    stop(session);
}

#[test]
fn only_fix_mends_and_only_what_is_safe() {
    let cli = synced();
    let state = cli.home().join("a/.instep");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).unwrap();
    let runtime = cli.home().join("run/instep");
    let socket = runtime.join(format!("{}.sock", "0f".repeat(16)));
    fs::create_dir_all(&runtime).unwrap();
    fs::set_permissions(&runtime, fs::Permissions::from_mode(0o700)).unwrap();
    drop(UnixListener::bind(&socket).unwrap());
    let found = codes(&cli, &["doctor", "--json", "a"], 0);
    assert!(
        found.contains(&"E2405".into()) && found.contains(&"E2406".into()),
        "{found:?}"
    );
    assert!(socket.exists());
    let out = cli.run(&["doctor", "--fix", "a"]).expect(0);
    assert!(out.stdout.contains("2 mended"), "{out}");
    assert!(!socket.exists());
    assert_eq!(
        fs::metadata(&state).unwrap().permissions().mode() & 0o777,
        0o700
    );
    let found = codes(&cli, &["doctor", "--json", "a"], 0);
    assert!(
        !found.contains(&"E2405".into()) && !found.contains(&"E2406".into()),
        "{found:?}"
    );
}

#[test]
fn damage_and_a_missing_folder_decide_the_exit_code() {
    let cli = synced();
    flip(&cli.home().join("b/x"));
    assert_eq!(
        codes(&cli, &["doctor", "--full", "--json", "a"], 11),
        ["E2303"]
    );
    cli.run(&["verify", "b"]).expect(11);
    assert_eq!(codes(&cli, &["doctor", "--json", "a"], 11), ["E2303"]);
    cli.run(&["verify", "--repair", "b"]).expect(0);
    fs::rename(cli.home().join("b"), cli.home().join("c")).unwrap();
    assert_eq!(codes(&cli, &["doctor", "--json", "a"], 6), ["E2201"]);
}

#[test]
fn a_damaged_index_is_found() {
    let cli = synced();
    let index = cli.home().join("b/.instep/index.db");
    let mut bytes = fs::read(&index).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4096].fill(0x5a);
    fs::write(&index, bytes).unwrap();
    let found = codes(&cli, &["doctor", "--json", "b"], 11);
    assert!(found.contains(&"E1010".into()), "{found:?}");
}

#[test]
fn an_index_from_before_is_not_taken_for_a_disagreement() {
    let cli = synced();
    // An index from before, under the mark of now.
    let index = |dir: &str| cli.home().join(dir).join(".instep/index.db");
    let old = fs::read(index("b")).unwrap();
    put(&cli, "a/x", "changed since");
    cli.run(&["sync", "--once", "a", "b"]).expect(0);
    fs::write(index("b"), old).unwrap();
    let data = json(&cli, &["doctor", "--json", "a"], 0);
    assert!(data.to_string().contains("not in step now"), "{data}");
}
