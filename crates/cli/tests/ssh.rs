//! Folders on another machine, through a real ssh server.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

mod support;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;

use instep_testkit::compare::assert_same;
use instep_testkit::needs::{self, Need};
use support::sshd::{Sshd, kill};
use support::{assert_refused, assert_untouched, has, program, put, see, until};

fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn two_folders_meet_over_ssh_and_the_program_is_brought_there_once() {
    let name = "ssh::two_folders_meet_over_ssh_and_the_program_is_brought_there_once";
    if !needs::met(name, &[Need::Sshd]) {
        return;
    }
    let sshd = Sshd::start("");
    let cli = sshd.reached_by(program());
    put(&cli, "a/here", "one");
    put(&cli, "a/deep/er/x", "two");
    sshd.put("b/there", "three");
    // An older version does not matter.
    sshd.put(
        ".local/share/instep/agents/0123/instep",
        "#!/bin/sh\nexit 1\n",
    );
    let out = cli.run(&["sync", "--once", "a", "nas:b"]).expect(0);
    assert_same(&[&cli.home().join("a"), &sshd.home().join("b")]);
    assert!(sshd.has("b/deep/er/x", "two") && has(&cli, "a/there", "three"));
    assert!(out.stdout.contains("instep was brought there"), "{out}");
    let there = out.stdout.lines().nth(1).unwrap();
    assert!(there.starts_with("B  nas:b   1 file"), "{out}");
    // With the directories.
    assert!(out.stdout.contains("4 only on A, 1 only on B"), "{out}");
    let kept: Vec<_> = fs::read_dir(sshd.agents())
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.file_name() != Some(OsStr::new("0123")))
        .collect();
    let [kept] = kept.as_slice() else {
        panic!("{kept:?}")
    };
    assert_eq!((mode(&sshd.agents()), mode(kept)), (0o700, 0o700));
    assert_eq!(kept.file_name().unwrap().len(), 64);
    put(&cli, "a/here", "four");
    fs::remove_file(sshd.home().join("b/there")).unwrap();
    let out = cli.run(&["sync", "--once", "a", "nas:b"]).expect(0);
    assert!(!out.stdout.contains("brought"), "{out}");
    assert!(sshd.has("b/here", "four") && !cli.home().join("a/there").exists());
    until("the program there has ended", || sshd.running().is_empty());
}

#[test]
fn a_live_session_survives_the_death_of_the_program_there_and_of_the_server() {
    let name = "ssh::a_live_session_survives_the_death_of_the_program_there_and_of_the_server";
    if !needs::met(name, &[Need::Sshd]) {
        return;
    }
    let mut sshd = Sshd::start("");
    let cli = sshd.reached_by(program());
    put(&cli, "a/x", "one");
    let session = cli.spawn(&["sync", "a", "nas:b"]);
    until("b/x is there", || sshd.has("b/x", "one"));
    sshd.put("b/y", "two");
    until("a/y is here", || has(&cli, "a/y", "two"));
    let before = sshd.running();
    assert_eq!(before.len(), 1);
    before.into_iter().for_each(kill);
    put(&cli, "a/x", "three");
    until("b/x is the new one", || sshd.has("b/x", "three"));
    sshd.put("b/y", "four");
    until("a/y is the new one", || has(&cli, "a/y", "four"));
    sshd.end();
    put(&cli, "a/x", "five");
    sshd.put("b/y", "six");
    sshd.begin();
    until("b/x is the newest one", || sshd.has("b/x", "five"));
    until("a/y is the newest one", || has(&cli, "a/y", "six"));
    session.signal("INT");
    let out = session.wait().expect(130);
    assert!(!out.stderr.contains("Connection refused"), "{out}");
    assert_same(&[&cli.home().join("a"), &sshd.home().join("b")]);
    until("the program there has ended", || sshd.running().is_empty());
}

#[test]
fn the_program_there_outlives_whoever_started_it() {
    let name = "ssh::the_program_there_outlives_whoever_started_it";
    if !needs::met(name, &[Need::Sshd]) {
        return;
    }
    let sshd = Sshd::start("");
    let cli = sshd.reached_by(program());
    put(&cli, "a/x", "one");
    let session = cli.spawn(&["sync", "a", "nas:b"]);
    until("b/x is there", || sshd.has("b/x", "one"));
    session.signal("KILL");
    session.wait();
    until("the program there has ended", || sshd.running().is_empty());
    put(&cli, "a/x", "two");
    cli.run(&["sync", "--once", "a", "nas:b"]).expect(0);
    assert!(sshd.has("b/x", "two"));
}

#[test]
fn what_a_login_shell_prints_spoils_the_link() {
    let name = "ssh::what_a_login_shell_prints_spoils_the_link";
    if !needs::met(name, &[Need::Sshd]) {
        return;
    }
    let shell = "ForceCommand echo 'Welcome to nas!'; echo 'you have mail' >&2; eval \"$SSH_ORIGINAL_COMMAND\"";
    let sshd = Sshd::start(shell);
    let cli = sshd.reached_by(program());
    put(&cli, "a/x", "one");
    let out = cli.run(&["sync", "--once", "a", "nas:b"]).expect(0);
    assert!(sshd.has("b/x", "one"));
    assert!(out.stderr.contains("you have mail"), "{out}");
    let sshd = Sshd::start("ForceCommand echo This account is closed.; exit 1");
    let cli = sshd.reached_by(program());
    let out = cli.run(&["sync", "--once", "a", "nas:b"]);
    assert_refused(out, "E1043", 6);
}

#[test]
fn where_ours_cannot_run_the_installed_one_takes_part_or_what_is_missing_is_said() {
    let name = "ssh::where_ours_cannot_run_the_installed_one_takes_part_or_what_is_missing_is_said";
    if !needs::met(name, &[Need::Sshd]) {
        return;
    }
    let sshd = Sshd::start("");
    let cli = sshd.reached_by(program());
    sshd.install("uname", "#!/bin/sh\necho Linux armv7l\n");
    let sync = ["sync", "--once", "a", "nas:b"];
    let out = assert_refused(cli.run(&sync), "E1053", 6);
    assert!(out.stderr.contains("nas is Linux armv7l"), "{out}");
    sshd.install(
        "instep",
        "#!/bin/sh\necho \"error: unrecognized subcommand '$1'\" >&2\necho 'Usage: instep' >&2\nexit 2\n",
    );
    assert_refused(cli.run(&sync), "E1050", 12);
    let ours = format!("#!/bin/sh\nexec {} \"$@\"\n", env!("CARGO_BIN_EXE_instep"));
    sshd.install("instep", &ours);
    put(&cli, "a/x", "one");
    cli.run(&sync).expect(0);
    assert!(sshd.has("b/x", "one"));
    assert!(
        !sshd.agents().exists(),
        "nothing is brought where it cannot run"
    );
}

#[test]
fn a_machine_that_is_away_or_refuses_is_not_told_apart() {
    let name = "ssh::a_machine_that_is_away_or_refuses_is_not_told_apart";
    if !needs::met(name, &[Need::Sshd]) {
        return;
    }
    let mut sshd = Sshd::start("");
    let cli = sshd.reached_by(program());
    let sync = ["sync", "--once", "a", "nas:b"];
    sshd.admit("other");
    assert_refused(cli.run(&sync), "E1048", 7);
    sshd.admit("key");
    sshd.know("other");
    let out = assert_refused(cli.run(&sync), "E1049", 7);
    assert!(out.stderr.contains("it shows SHA256:"), "{out}");
    sshd.know("host");
    let out = cli.run(&["sync", "--once", "a", "nas:none"]);
    assert_refused(out, "E1004", 2);
    sshd.end();
    assert_refused(cli.run(&sync), "E1046", 6);
    let cli = cli.env("INSTEP_SSH", "/nonexistent/ssh");
    assert_refused(cli.run(&sync), "E1045", 1);
    assert_eq!(fs::read_dir(cli.home().join("a")).unwrap().count(), 0);
}

#[test]
fn a_path_is_read_by_a_shell() {
    let name = "ssh::a_path_is_read_by_a_shell";
    if !needs::met(name, &[Need::Sshd]) {
        return;
    }
    let sshd = Sshd::start("");
    let names: [&[u8]; 6] = [
        b"with space",
        b"it's \"quoted\"",
        b"-dash",
        b"$(touch gone);`touch gone`|x&",
        b"caf\xe9\xff",
        b"new\nline",
    ];
    for (n, dir) in names.into_iter().enumerate() {
        let cli = sshd.reached_by(program());
        let dir = OsStr::from_bytes(dir);
        fs::create_dir(sshd.home().join(dir)).unwrap();
        put(&cli, "a/x", &n.to_string());
        let mut there = OsString::from("nas:");
        there.push(dir);
        let args = [OsStr::new("sync"), OsStr::new("--once"), OsStr::new("a")];
        let mut args: Vec<&OsStr> = args.into();
        args.push(&there);
        cli.run(&args).expect(0);
        let found = fs::read_to_string(sshd.home().join(dir).join("x"));
        assert_eq!(found.unwrap(), n.to_string(), "{}", dir.display());
    }
    assert!(!sshd.home().join("gone").exists());
    let cli = sshd.reached_by(program());
    for (host, code) in [
        ("-oProxyCommand=touch gone:b", "E1025"),
        ("-lroot:b", "E1026"),
    ] {
        let out = cli.run(&["sync", "--once", "--", "a", host]);
        assert_refused(out, code, 2);
    }
    assert!(!cli.home().join("gone").exists());
}

#[test]
fn a_mirror_over_ssh_empties_or_leaves_something_behind() {
    let name = "ssh::a_mirror_over_ssh_empties_or_leaves_something_behind";
    if !needs::met(name, &[Need::Sshd]) {
        return;
    }
    let sshd = Sshd::start("");
    let cli = sshd.reached_by(program());
    sshd.put("b/extra", "only there");
    let mirror = ["mirror", "--once", "a", "nas:b"];
    assert_refused(cli.run(&mirror), "E1008", 2);
    assert!(sshd.has("b/extra", "only there"));
    put(&cli, "a/x", "one");
    cli.run(&mirror).expect(0);
    assert!(sshd.has("b/x", "one") && !sshd.home().join("b/extra").exists());
    sshd.put("b/x", "changed there");
    cli.run(&mirror).expect(0);
    assert!(sshd.has("b/x", "one") && has(&cli, "a/x", "one"));
}

#[test]
fn a_difficulty_there_is_shown_there_alone() {
    let name = "ssh::a_difficulty_there_is_shown_there_alone";
    if !needs::met(name, &[Need::Sshd]) {
        return;
    }
    // No file there can become as large as the one that is to come.
    let sshd = Sshd::start("ForceCommand ulimit -f 8192; eval \"$SSH_ORIGINAL_COMMAND\"");
    sshd.install("uname", "#!/bin/sh\necho Linux armv7l\n");
    let ours = format!("#!/bin/sh\nexec {} \"$@\"\n", env!("CARGO_BIN_EXE_instep"));
    sshd.install("instep", &ours);
    let cli = sshd.reached_by(program());
    put(&cli, "a/small", "one");
    put(&cli, "a/large", &"x".repeat(20_000_000));
    let out = cli.run(&["sync", "--once", "a", "nas:b"]);
    assert!(
        out.stdout.contains("large") && out.stdout.contains("E21"),
        "{out}"
    );
    assert!(out.code() == 3 || out.code() == 13, "{out}");
    assert!(sshd.has("b/small", "one") && !sshd.home().join("b/large").exists());
    put(&cli, "a/large", "it fits now");
    cli.run(&["sync", "--once", "a", "nas:b"]).expect(0);
    assert!(sshd.has("b/large", "it fits now"));
}

#[test]
fn a_folder_that_a_session_there_holds_is_refused_or_written_twice() {
    let name = "ssh::a_folder_that_a_session_there_holds_is_refused_or_written_twice";
    if !needs::met(name, &[Need::Sshd]) {
        return;
    }
    let sshd = Sshd::start("");
    let cli = sshd.reached_by(program());
    sshd.put("b/there", "one");
    sshd.dir("c");
    let there = sshd.session(&["sync", "b", "c"]);
    until("c/there is there", || sshd.has("c/there", "one"));
    put(&cli, "a/here", "two");
    let out = cli.run(&["sync", "--once", "a", "nas:b"]).expect(0);
    assert!(
        has(&cli, "a/there", "one") && sshd.has("b/here", "two"),
        "{out}"
    );
    until("c/here is there", || sshd.has("c/here", "two"));
    let session = cli.spawn(&["sync", "a", "nas:b"]);
    sshd.put("c/from c", "three");
    until("a/from c is here", || has(&cli, "a/from c", "three"));
    put(&cli, "a/from a", "four");
    until("c/from a is there", || sshd.has("c/from a", "four"));
    // Its session ends: the program there goes on by itself, and is met again by the next one.
    there.signal("INT");
    there.wait().expect(130);
    sshd.put("b/alone", "five");
    until("a/alone is here", || has(&cli, "a/alone", "five"));
    // A second caller takes part beside the first.
    let other = sshd.reached_by(program());
    put(&other, "a/second", "six");
    other.run(&["sync", "--once", "a", "nas:b"]).expect(0);
    assert!(has(&other, "a/alone", "five") && sshd.has("b/second", "six"));
    until("a/second is here", || has(&cli, "a/second", "six"));
    session.signal("INT");
    session.wait().expect(130);
    until("the program there has ended", || sshd.running().is_empty());
    let mirror = sshd.session(&["mirror", "b", "c"]);
    until("the mirror runs", || {
        sshd.run(&["status", "c"]).stdout.contains("running for")
    });
    // One that goes one way takes nobody in.
    assert_refused(cli.run(&["sync", "--once", "a", "nas:c"]), "E1006", 8);
    drop(mirror);
}

#[test]
fn a_plan_creates_something_or_leaves_the_other_machine_out() {
    let name = "ssh::a_plan_creates_something_or_leaves_the_other_machine_out";
    if !needs::met(name, &[Need::Sshd]) {
        return;
    }
    let sshd = Sshd::start("");
    let cli = sshd.reached_by(program());
    put(&cli, "a/here", "one");
    sshd.put("b/there", "three");
    // Brings the program, which is kept.
    assert_refused(cli.run(&["plan", "a", "nas:none"]), "E1004", 2);
    let before = (see(&cli.home().join("a")), see(&sshd.home().join("b")));
    let plan = |expected: &[&str], missing: &str| {
        let out = cli.run(&["plan", "a", "nas:b"]).expect(0);
        for line in expected {
            assert!(out.stdout.contains(line), "{line}\n{out}");
        }
        assert!(!out.stdout.contains(missing), "{missing}\n{out}");
    };
    plan(&["copy A to B", "copy B to A", "here", "there"], "update");
    let out = cli.run(&["sync", "-n", "a", "nas:b"]).expect(0);
    assert!(out.stdout.contains("copy A to B"), "{out}");
    assert_untouched(&before.0, &see(&cli.home().join("a")));
    assert_untouched(&before.1, &see(&sshd.home().join("b")));
    assert!(!sshd.home().join(".local/state").exists());
    cli.run(&["sync", "--once", "a", "nas:b"]).expect(0);
    put(&cli, "a/here", "changed");
    fs::remove_file(sshd.home().join("b/there")).unwrap();
    plan(&["update A to B", "trash on A"], "copy");
    let held = sshd.session(&["sync", "b", "c", "--create"]);
    until("c is there", || sshd.has("c/here", "one"));
    plan(&["update A to B", "trash on A"], "copy");
    assert!(sshd.has("b/here", "one") && has(&cli, "a/there", "three"));
    drop(held);
    let out = cli.run(&["mirror", "-n", "a", "nas:b"]).expect(0);
    assert!(out.stdout.contains("update A to B"), "{out}");
    until("the program there has ended", || sshd.running().is_empty());
}
