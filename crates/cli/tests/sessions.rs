//! A session while it runs: what it prints, what it takes in, and who can reach it.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

mod support;

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};

use instep_testkit::cli::Cli;
use instep_testkit::compare::assert_same;
use serde_json::Value;
use support::{has, live, program, put, stop, until};

#[test]
fn the_first_lines_say_how_much_there_is_and_what_the_first_meeting_does() {
    let cli = program();
    for n in 0..5 {
        put(&cli, &format!("a/{n}"), "12345678");
    }
    put(&cli, "b/only here", "x");
    let out = cli.run(&["sync", "--once", "a", "b"]).expect(0);
    let mut lines = out.stdout.lines();
    let first = lines.next().unwrap();
    assert!(first.starts_with("A  a  5 files"), "{out}");
    assert!(first.contains("40 B"), "{out}");
    assert!(lines.next().unwrap().starts_with("B  b   1 file"), "{out}");
    assert!(out.stdout.contains("Nothing will be deleted."), "{out}");
    assert!(out.stdout.contains("5 only on A, 1 only on B"), "{out}");
    let summary = out
        .stdout
        .lines()
        .find(|l| l.starts_with("in sync"))
        .unwrap();
    assert!(
        summary.contains("2 replicas") && summary.contains("6 files"),
        "{out}"
    );
    let session = live(&cli, &["sync", "a", "b"]);
    put(&cli, "a/live", "12345678");
    until("b/live is there", || has(&cli, "b/live", "12345678"));
    let out = stop(session);
    let change = out.stdout.lines().find(|l| l.contains("live ")).unwrap();
    assert!(change.contains("A → B") && change.contains("8 B"), "{out}");
}

#[test]
fn a_burst_is_told_in_a_few_lines() {
    let cli = program();
    put(&cli, "a/x", "one");
    cli.run(&["sync", "--once", "a", "b"]).expect(0);
    let session = live(&cli, &["sync", "a", "b"]);
    for n in 0..200 {
        put(&cli, &format!("a/burst/{n}"), "text");
    }
    until("all are there", || {
        (0..200).all(|n| has(&cli, &format!("b/burst/{n}"), "text"))
    });
    let out = stop(session);
    let lines = out.stdout.lines().filter(|l| l.contains("A → B")).count();
    assert!((1..60).contains(&lines), "{lines} lines\n{out}");
    assert!(out.stdout.contains("similar (create)"), "{out}");
}

#[test]
fn the_stream_for_programs_is_one_object_per_line_with_its_type_and_number() {
    let cli = program();
    put(&cli, "a/x", "one");
    put(&cli, "b/x", "another");
    let out = cli.run(&["sync", "--once", "--json", "a", "b"]).expect(4);
    let lines: Vec<Value> = out
        .stdout
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    for (n, line) in lines.iter().enumerate() {
        assert_eq!((&line["v"], &line["seq"]), (&1.into(), &n.into()), "{line}");
        assert!(line["ts"].as_str().unwrap().ends_with('Z'), "{line}");
    }
    let types: Vec<&str> = lines.iter().map(|l| l["type"].as_str().unwrap()).collect();
    assert_eq!(types.first(), Some(&"share.opened"));
    assert_eq!(types.last(), Some(&"exit"));
    for wanted in [
        "scan.finished",
        "meeting",
        "conflict.opened",
        "change.applied",
        "settled",
    ] {
        assert!(types.contains(&wanted), "no {wanted}\n{out}");
    }
    let exit = lines.last().unwrap();
    assert_eq!((&exit["code"], &exit["all"][0]), (&4.into(), &4.into()));
    assert_eq!(out.stderr, "");
    let bad = cli.run(&["sync", "--json", "a", "a"]).expect(2);
    let error: Value = serde_json::from_str(&bad.stderr).unwrap();
    assert_eq!(
        (&error["kind"], &error["data"]["code"]),
        (&"error".into(), &"E1001".into())
    );
}

#[test]
fn an_edited_master_list_takes_effect_and_a_bad_one_is_told_and_changes_nothing() {
    let (cli, config) = (program(), ".config/instep/config.toml");
    let said = |text: &str| {
        fs::read_to_string(cli.home().join("said"))
            .unwrap()
            .contains(text)
    };
    put(&cli, config, "defaults.ignore = [\"*.iso\"]\n");
    put(&cli, "a/1.iso", "one");
    put(&cli, "a/1.tmp", "one");
    let sh = Cli::at("/bin/sh").unwrap().env("HOME", cli.home());
    let xdg = format!("export XDG_CONFIG_HOME={}/.config", cli.home().display());
    let home = cli.home().display();
    let program = env!("CARGO_BIN_EXE_instep");
    let session = sh.spawn(&[
        "-c",
        &format!("{xdg}; cd {home}; exec {program} sync a b 2>said"),
    ]);
    until("1.tmp is there", || has(&cli, "b/1.tmp", "one"));
    let tip = "tip: what is deleted or replaced is kept:  instep trash list b";
    until("the tip is given", || said(tip));
    put(&cli, config, "defaults.ignore = [\"*.tmp\"]\n");
    until("1.iso is not ignored any more", || {
        has(&cli, "b/1.iso", "one")
    });
    until("it is told", || said("are in force now"));
    // What is ignored from now on is neither deleted nor carried on.
    put(&cli, "a/1.tmp", "two");
    put(&cli, "a/mark", "one");
    until("the mark is there", || has(&cli, "b/mark", "one"));
    assert!(has(&cli, "b/1.tmp", "one"));
    put(&cli, config, "defaults.ignore = [\"*.iso\"\n");
    until("the mistake is told", || said("error[E1018]"));
    assert!(said(
        "effect  the ignore rules that were read before stay in force"
    ));
    put(&cli, "a/2.tmp", "two");
    put(&cli, "a/2.iso", "two");
    until("2.iso is there", || has(&cli, "b/2.iso", "two"));
    assert!(!cli.home().join("b/2.tmp").exists());
    put(
        &cli,
        config,
        "defaults.ignore = []\ndefaults.trash.days = 3\n",
    );
    until("2.tmp is not ignored any more", || {
        has(&cli, "b/2.tmp", "two")
    });
    until("the rest is told", || {
        said("its other settings take effect when the session starts again")
    });
    stop(session);
}

#[test]
fn a_member_keeps_the_label_it_got_first_until_it_is_given_another() {
    let cli = program();
    fs::create_dir(cli.home().join("c")).unwrap();
    put(&cli, "a/x", "one");
    cli.run(&["sync", "--once", "a", "b"]).expect(0);
    let second = cli.run(&["sync", "--once", "b", "c"]).expect(0);
    assert!(second.stdout.starts_with("B  b"), "{second}");
    assert!(
        second.stdout.lines().nth(1).unwrap().starts_with("C  c"),
        "{second}"
    );
    let plan = cli.run(&["plan", "c", "a"]).expect(0);
    assert!(!plan.stdout.contains("  B"), "{plan}");
    let named = cli.run(&["sync", "--once", "usb=b", "c"]).expect(0);
    assert!(named.stdout.starts_with("usb  b"), "{named}");
    let again = cli.run(&["sync", "--once", "a", "b", "c"]).expect(0);
    let labels: Vec<&str> = again.stdout.lines().take(3).map(|l| &l[..3]).collect();
    assert_eq!(labels, ["A  ", "usb", "C  "], "{again}");
    // A name is what `--keep` means.
    put(&cli, "a/x", "from a");
    put(&cli, "b/x", "from b, later");
    cli.run(&["sync", "--once", "a", "b", "c"]).expect(4);
    cli.run(&["conflicts", "resolve", "--all", "--keep", "A", "c"])
        .expect(0);
    for dir in ["a", "b", "c"] {
        assert!(has(&cli, &format!("{dir}/x"), "from a"), "{dir}");
    }
}

#[test]
fn a_root_that_is_missing_is_offline_in_the_status_of_those_that_are_there() {
    let cli = program();
    fs::create_dir(cli.home().join("c")).unwrap();
    put(&cli, "a/x", "one");
    let session = live(&cli, &["sync", "a", "b", "c"]);
    until("c/x is there", || has(&cli, "c/x", "one"));
    fs::rename(cli.home().join("c"), cli.home().join("elsewhere")).unwrap();
    put(&cli, "a/y", "two");
    until("c is offline", || {
        cli.run(&["status", "a", "b", "c"]).code() == 6
    });
    for args in [
        &["status", "a", "b", "c"][..],
        &["status", "c"],
        &["status", "a"],
    ] {
        let out = cli.run(args).expect(6);
        assert_eq!(out.stdout.matches("running for").count(), 1, "{out}");
        let line = out.stdout.lines().find(|l| l.starts_with('C')).unwrap();
        assert!(line.contains("offline"), "{out}");
    }
    until("the others go on", || has(&cli, "b/y", "two"));
    assert!(has(&cli, "elsewhere/x", "one"));
    fs::rename(cli.home().join("elsewhere"), cli.home().join("c")).unwrap();
    until("c is back", || has(&cli, "c/y", "two"));
    until("all is well", || {
        cli.run(&["status", "a", "b", "c"]).code() == 0
    });
    stop(session);
    fs::rename(cli.home().join("c"), cli.home().join("elsewhere")).unwrap();
    let out = cli.run(&["status", "a", "b", "c"]).expect(6);
    assert!(
        out.stdout.contains("offline") && out.stdout.contains("not running"),
        "{out}"
    );
    cli.run(&["status", "a", "never"]).expect(2);
}

#[test]
fn a_session_is_reached_where_the_runtime_directory_has_a_long_path() {
    let long = format!("run/{}/{}", "x".repeat(120), "y".repeat(120));
    let cli = program();
    let at = cli.home().join(&long);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&at)
        .unwrap();
    let cli = cli.env("XDG_RUNTIME_DIR", &at);
    put(&cli, "a/x", "one");
    let session = live(&cli, &["sync", "a", "b"]);
    until("b/x is there", || has(&cli, "b/x", "one"));
    cli.run(&["status"]).expect(0);
    stop(session);
    assert_eq!(fs::read_dir(at.join("instep")).unwrap().count(), 0);
}

#[test]
fn a_runtime_directory_that_others_can_enter_is_refused() {
    let cli = program();
    let sockets = cli.home().join("run/instep");
    fs::create_dir(&sockets).unwrap();
    fs::set_permissions(&sockets, fs::Permissions::from_mode(0o755)).unwrap();
    support::assert_refused(cli.run(&["sync", "a", "b"]), "E1023", 7);
}

/// The soft limit of open files of a process.
fn open_files(pid: u32) -> u64 {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits
        .lines()
        .find(|l| l.starts_with("Max open files"))
        .unwrap();
    line.split_whitespace().nth(3).unwrap().parse().unwrap()
}

#[test]
fn a_cap_on_open_files_is_kept_and_everything_still_arrives() {
    let cli = program();
    for n in 0..400 {
        put(&cli, &format!("a/{}/{n}", n % 7), &format!("text {n}"));
    }
    let session = live(
        &cli,
        &["sync", "--open-files", "64", "--jobs", "100", "a", "b"],
    );
    assert_eq!(open_files(session.id()), 64);
    until("the last are there", || {
        (0..400).all(|n| has(&cli, &format!("b/{}/{n}", n % 7), &format!("text {n}")))
    });
    cli.run(&["status", "a"]).expect(0);
    stop(session);
    assert_same(&[&cli.home().join("a"), &cli.home().join("b")]);
    for dir in ["c", "d", "e"] {
        fs::create_dir(cli.home().join(dir)).unwrap();
    }
    let args = ["sync", "--open-files", "64", "a", "b", "c", "d", "e"];
    support::assert_refused(cli.run(&args), "E1000", 2);
    assert!(!cli.home().join("c/.instep").exists());
}

#[test]
fn a_lease_that_the_kernel_asks_back_does_not_end_the_session() {
    let cli = program();
    let session = live(&cli, &["sync", "a", "b"]);
    session.signal("IO");
    put(&cli, "a/x", "one");
    until("b/x is there", || has(&cli, "b/x", "one"));
    stop(session);
}

#[test]
fn a_file_above_the_size_limit_of_the_shell_waits_and_the_others_go_on() {
    let sh = Cli::at("/bin/sh").unwrap();
    fs::set_permissions(sh.home().join("run"), fs::Permissions::from_mode(0o700)).unwrap();
    for dir in ["a", "b"] {
        fs::create_dir(sh.home().join(dir)).unwrap();
    }
    put(&sh, "a/large", &"x".repeat(4 << 20));
    put(&sh, "a/small", "one");
    let program = env!("CARGO_BIN_EXE_instep");
    let limited = format!("ulimit -f 4096; exec {program} sync --once a b");
    let out = sh.run(&["-c", &limited]).expect(13);
    assert!(out.stdout.contains("large"), "{out}");
    assert!(has(&sh, "b/small", "one") && !sh.home().join("b/large").exists());
    let free = format!("exec {program} sync --once a b");
    sh.run(&["-c", &free]).expect(0);
    assert_same(&[&sh.home().join("a"), &sh.home().join("b")]);
}

#[test]
fn both_signals_end_a_session_with_their_own_code_and_leave_it_consistent() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let cli = program();
        for n in 0..200 {
            put(&cli, &format!("a/{n}"), "text");
        }
        let session = cli.spawn(&["sync", "a", "b"]);
        until("it has begun", || {
            cli.home().join("b/.instep/lock").exists()
        });
        session.signal(signal);
        session.wait().expect(code);
        cli.run(&["sync", "--once", "a", "b"]).expect(0);
        assert_same(&[&cli.home().join("a"), &cli.home().join("b")]);
    }
}

#[test]
fn modes_are_kept_whatever_the_umask_of_the_shell() {
    let sh = Cli::at("/bin/sh").unwrap();
    fs::set_permissions(sh.home().join("run"), fs::Permissions::from_mode(0o700)).unwrap();
    for dir in ["a", "b"] {
        fs::create_dir(sh.home().join(dir)).unwrap();
    }
    put(&sh, "a/x", "one");
    let mode = |path: &str| {
        fs::metadata(sh.home().join(path))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    fs::set_permissions(sh.home().join("a/x"), fs::Permissions::from_mode(0o776)).unwrap();
    let script = format!(
        "umask 077; exec {} sync --once a b",
        env!("CARGO_BIN_EXE_instep")
    );
    sh.run(&["-c", &script]).expect(0);
    assert_eq!(mode("b/x"), 0o776);
    assert_eq!(
        (mode("a/.instep"), mode(".local/state/instep")),
        (0o700, 0o700)
    );
}
