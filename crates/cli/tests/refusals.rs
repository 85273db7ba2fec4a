//! Every bad input gets a clear error with its code and exit code, and nothing is changed.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use instep_testkit::cli::Cli;
use support::{
    Plain, assert_refused, assert_untouched, has, live, program, put, see, see_files, until,
};

/// Runs a command that must be refused, and compares everything below the home.
#[track_caller]
fn refused_without_a_trace(cli: &Cli, args: &[&str], code: &str, exit: i32) -> String {
    let before = see(cli.home());
    let said = assert_refused(cli.run(args), code, exit);
    assert_untouched(&before, &see(cli.home()));
    said.stderr
}

#[test]
fn the_same_folder_twice_is_refused_however_it_is_spelled() {
    let cli = program();
    put(&cli, "a/x", "one");
    symlink("a", cli.home().join("link")).unwrap();
    for other in ["a", "./a/", "b/../a", "link"] {
        for command in ["sync", "mirror", "plan"] {
            refused_without_a_trace(&cli, &[command, "a", other], "E1001", 2);
        }
    }
    let absolute = cli.home().join("a");
    refused_without_a_trace(
        &cli,
        &["sync", "a", "b", absolute.to_str().unwrap()],
        "E1001",
        2,
    );
    refused_without_a_trace(&cli, &["sync", "--create", "new", "./new"], "E1001", 2);
}

#[test]
fn a_folder_inside_another_is_refused_also_when_it_would_be_made() {
    let cli = program();
    put(&cli, "a/inner/x", "one");
    refused_without_a_trace(&cli, &["sync", "a", "a/inner"], "E1002", 2);
    refused_without_a_trace(&cli, &["sync", "a/inner", "b", "a"], "E1002", 2);
    refused_without_a_trace(&cli, &["mirror", "--create", "a", "a/new/copy"], "E1002", 2);
    refused_without_a_trace(
        &cli,
        &["sync", "--create", "new/copy", "b", "new"],
        "E1002",
        2,
    );
}

#[test]
fn a_file_is_not_a_folder() {
    let cli = program();
    put(&cli, "file", "one");
    refused_without_a_trace(&cli, &["sync", "a", "file"], "E1003", 2);
    refused_without_a_trace(&cli, &["sync", "--create", "a", "file"], "E1003", 2);
    refused_without_a_trace(&cli, &["mirror", "file", "a"], "E1003", 2);
}

#[test]
fn a_missing_folder_is_not_made_unless_asked_for() {
    let cli = program();
    put(&cli, "a/x", "one");
    refused_without_a_trace(&cli, &["sync", "--once", "a", "missing"], "E1004", 2);
    refused_without_a_trace(&cli, &["plan", "a", "missing"], "E1004", 2);
    refused_without_a_trace(
        &cli,
        &["sync", "-n", "--create", "a", "missing"],
        "E1004",
        2,
    );
    // A source is never made: it is a disk that is not mounted, or a mistake.
    refused_without_a_trace(&cli, &["mirror", "--create", "missing", "a"], "E1004", 2);
    cli.run(&["sync", "--once", "--create", "a", "missing"])
        .expect(0);
    assert!(has(&cli, "missing/x", "one"));
}

#[test]
fn a_folder_that_may_not_be_read_is_refused() {
    let plain = Plain::new();
    put(&plain.cli, "a/x", "one");
    plain.own();
    let closed = plain.cli.home().join("b");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    for args in [["sync", "a", "b"], ["mirror", "b", "a"], ["plan", "a", "b"]] {
        let before = see(&plain.cli.home().join("a"));
        assert_refused(plain.run(&args), "E1005", 7);
        assert_untouched(&before, &see(&plain.cli.home().join("a")));
        assert!(!plain.cli.home().join(".local/state/instep").exists());
    }
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(fs::read_dir(&closed).unwrap().count(), 0);
}

#[test]
fn a_folder_that_may_not_be_reached_is_not_said_to_be_missing_or_unknown() {
    let plain = Plain::new();
    put(&plain.cli, "a/x", "one");
    plain.own();
    plain.run(&["sync", "--once", "a", "b"]).expect(0);
    let home = plain.cli.home().to_path_buf();
    let closed = |dir: &str, mode: u32| {
        fs::set_permissions(home.join(dir), fs::Permissions::from_mode(mode)).unwrap();
    };
    fs::create_dir_all(home.join("up/c")).unwrap();
    plain.own();
    for (dir, args) in [
        ("up", &["sync", "a", "up/c"][..]),
        ("up", &["sync", "--create", "a", "up/c"]),
        ("up", &["status", "up/c"]),
        ("b", &["status", "b"]),
        ("b", &["why", "b/x"]),
        ("b/.instep", &["sync", "a", "b"]),
        ("b/.instep", &["status", "b"]),
        ("b/.instep", &["why", "b/x"]),
    ] {
        closed(dir, 0);
        let said = assert_refused(plain.run(args), "E1005", 7);
        closed(dir, 0o700);
        assert!(
            said.stderr.contains("permission denied (errno 13)"),
            "{said}"
        );
    }
    // What cannot be written is named, and nothing is made elsewhere.
    fs::create_dir(home.join("c")).unwrap();
    fs::create_dir(home.join("d")).unwrap();
    plain.own();
    closed("d", 0o555);
    let said = assert_refused(plain.run(&["sync", "--once", "c", "d"]), "E1005", 7);
    closed("d", 0o700);
    assert!(said.stderr.contains("error[E1005]: d"), "{said}");
    assert_eq!(fs::read_dir(home.join("c")).unwrap().count(), 0);
}

#[test]
fn the_place_where_a_disk_is_not_mounted_is_filled_with_a_copy() {
    let cli = program();
    put(&cli, "a/x", "one");
    cli.run(&["sync", "--once", "a", "b"]).expect(0);
    let b = cli.home().join("b");
    fs::remove_dir_all(&b).unwrap();
    fs::create_dir(&b).unwrap();
    // As if what was there were on another disk.
    let known = cli.home().join(".local/state/instep/replicas");
    for file in fs::read_dir(known).unwrap().map(|e| e.unwrap().path()) {
        let text = fs::read_to_string(&file).unwrap();
        let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
        if record["path"].as_str().unwrap().ends_with("/b") {
            record["evidence"]["fs_id"] = 7.into();
            fs::write(&file, record.to_string()).unwrap();
        }
    }
    for args in [
        &["sync", "--once", "a", "b"][..],
        &["plan", "a", "b"],
        &["mirror", "--once", "a", "b"],
    ] {
        let said = assert_refused(cli.run(args), "E1004", 6);
        assert!(said.stderr.contains("b is not mounted"), "{said}");
    }
    assert_eq!(fs::read_dir(&b).unwrap().count(), 0);
    cli.run(&["sync", "--once", "--create", "a", "b"]).expect(0);
    assert!(has(&cli, "b/x", "one"));
}

#[test]
fn a_second_session_on_a_root_names_the_first_and_leaves_it_alone() {
    let cli = program();
    put(&cli, "a/x", "one");
    put(&cli, "c/y", "two");
    let first = live(&cli, &["sync", "a", "b"]);
    until("b/x is there", || has(&cli, "b/x", "one"));
    let before = see(&cli.home().join("c"));
    let said = assert_refused(cli.run(&["sync", "c", "b"]), "E1006", 8);
    let named = format!("held by pid {}: instep sync a b", first.id());
    assert!(said.stderr.contains(&named), "{said}");
    assert_untouched(&before, &see(&cli.home().join("c")));
    put(&cli, "a/later", "three");
    until("the first goes on", || has(&cli, "b/later", "three"));
    support::stop(first);
}

#[test]
fn the_lock_of_a_session_that_was_killed_does_not_count() {
    let cli = program();
    put(&cli, "a/x", "one");
    let first = live(&cli, &["sync", "a", "b"]);
    until("b/x is there", || has(&cli, "b/x", "one"));
    first.signal("KILL");
    first.wait();
    assert!(cli.home().join("a/.instep/lock").exists());
    put(&cli, "a/y", "two");
    cli.run(&["sync", "--once", "a", "b"]).expect(0);
    assert!(has(&cli, "b/y", "two"));
}

/// Overwrites the beginning of every page of an index, as a bad disk would.
fn damage(index: &Path) {
    let mut bytes = fs::read(index).unwrap();
    for page in bytes.chunks_mut(1024) {
        page[..64].fill(0xa5);
    }
    fs::write(index, bytes).unwrap();
}

#[test]
fn a_damaged_index_is_moved_aside_and_what_is_there_is_not_taken_for_new() {
    let cli = program();
    for name in ["kept", "edited", "deleted"] {
        put(&cli, &format!("a/{name}"), name);
    }
    cli.run(&["sync", "--once", "a", "b"]).expect(0);
    damage(&cli.home().join("b/.instep/index.db"));
    put(&cli, "a/edited", "a newer text");
    put(&cli, "a/added", "added");
    let run = cli.run(&["sync", "--once", "a", "b"]).expect(0);
    assert!(!run.stdout.contains("conflict"), "{run}");
    for (name, text) in [
        ("kept", "kept"),
        ("edited", "a newer text"),
        ("deleted", "deleted"),
        ("added", "added"),
    ] {
        assert!(has(&cli, &format!("a/{name}"), text), "a/{name}\n{run}");
        assert!(has(&cli, &format!("b/{name}"), text), "b/{name}\n{run}");
    }
    let ours = fs::read_dir(cli.home().join("b/.instep")).unwrap();
    let aside = ours.filter(|e| {
        let name = e.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with("index.db.aside")
    });
    assert!(aside.count() > 0, "the damaged index was not kept");
    cli.run(&["conflicts", "a"]).expect(0);
    // A reading command refuses one, because it may not move anything.
    damage(&cli.home().join("b/.instep/index.db"));
    let before = see_files(&cli.home().join("b"));
    assert_refused(cli.run(&["verify", "b"]), "E1010", 11);
    assert_untouched(&before, &see_files(&cli.home().join("b")));
}

#[test]
fn an_index_of_a_newer_format_is_refused_and_left_as_it_is() {
    let cli = program();
    put(&cli, "a/x", "one");
    cli.run(&["sync", "--once", "a", "b"]).expect(0);
    let index = cli.home().join("b/.instep/index.db");
    let mut bytes = fs::read(&index).unwrap();
    // Where SQLite keeps `user_version`.
    bytes[60..64].copy_from_slice(&9_999u32.to_be_bytes());
    fs::write(&index, &bytes).unwrap();
    put(&cli, "a/y", "two");
    let before = (
        see_files(&cli.home().join("a")),
        see_files(&cli.home().join("b")),
    );
    assert_refused(cli.run(&["sync", "--once", "a", "b"]), "E1011", 12);
    assert_refused(cli.run(&["plan", "a", "b"]), "E1011", 12);
    fs::create_dir(cli.home().join("new")).unwrap();
    assert_refused(cli.run(&["sync", "--once", "new", "b"]), "E1011", 12);
    assert_eq!(fs::read_dir(cli.home().join("new")).unwrap().count(), 0);
    assert_untouched(&before.0, &see_files(&cli.home().join("a")));
    assert_untouched(&before.1, &see_files(&cli.home().join("b")));
    assert!(fs::read(&index).unwrap() == bytes, "the index was written");
}

#[test]
fn a_name_of_ours_made_by_someone_else_is_refused_and_not_touched() {
    let cli = program();
    put(&cli, "a/x", "one");
    put(&cli, "b/.instep/diary", "mine");
    refused_without_a_trace(&cli, &["sync", "--once", "a", "b"], "E1009", 2);
    refused_without_a_trace(&cli, &["mirror", "--once", "a", "b"], "E1009", 2);
    put(&cli, "c/.instep", "a file");
    refused_without_a_trace(&cli, &["sync", "--once", "a", "c"], "E1009", 2);
    let far = cli.home().join("d");
    fs::create_dir(&far).unwrap();
    symlink("../b", far.join(".instep")).unwrap();
    refused_without_a_trace(&cli, &["sync", "--once", "a", "d"], "E1009", 2);
}

#[test]
fn a_file_that_may_not_be_read_is_a_problem_of_that_path_only() {
    let plain = Plain::new();
    for name in ["one", "secret", "two"] {
        put(&plain.cli, &format!("a/{name}"), name);
    }
    plain.own();
    let secret = plain.cli.home().join("a/secret");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).unwrap();
    let run = plain.run(&["sync", "--once", "a", "b"]).expect(3);
    assert!(
        run.stdout.contains("secret") && run.stdout.contains("E2101"),
        "{run}"
    );
    assert!(has(&plain.cli, "b/one", "one") && has(&plain.cli, "b/two", "two"));
    assert!(!plain.cli.home().join("b/secret").exists());
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    plain.run(&["sync", "--once", "a", "b"]).expect(0);
    assert!(has(&plain.cli, "b/secret", "secret"));
}

#[test]
fn nonsense_on_the_command_line_is_told_in_five_parts() {
    let cli = program();
    for (args, code) in [
        (&["snyc", "a", "b"][..], "E1000"),
        (&["sync", "a"], "E1000"),
        (&["sync", "a", "b", "--poll", "soon"], "E1015"),
        (&["sync", "a", "nas:"], "E1026"),
        (&["conflicts", "resolve", "zz", "--keep", "A", "a"], "E1020"),
        (&["status", "a"], "E1020"),
        (&["explain", "E9999"], "E1022"),
    ] {
        let said = cli.run(args).expect(2);
        assert!(
            said.stderr.contains(&format!("error[{code}]: ")),
            "{args:?}\n{said}"
        );
    }
    assert!(!cli.home().join(".local/state/instep").exists());
}
