//! Folders of several machines that meet at a hub. Each machine is a home of its own on this one.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

mod support;

use std::fs;

use instep_testkit::cli::{Cli, Running};
use instep_testkit::compare::assert_same;
use support::sshd::free_port;
use support::{assert_refused, has, program, put, until};

/// A hub that runs.
struct Hub {
    cli: Cli,
    address: String,
    running: Option<Running>,
}

/// An address that nothing listens at.
fn free() -> String {
    format!("127.0.0.1:{}", free_port())
}

impl Hub {
    fn start(more: &[&str]) -> Self {
        let mut hub = Self {
            cli: program(),
            address: free(),
            running: None,
        };
        hub.run(more);
        hub
    }

    fn run(&mut self, more: &[&str]) {
        let mut args = vec!["serve", "--data", "data", "--listen", &self.address];
        args.extend(more);
        self.running = Some(self.cli.spawn(&args));
        until("the hub answers", || {
            self.cli.run(&["share", "ls", "--data", "data"]).code() == 0
        });
    }

    fn kill(&mut self) {
        let running = self.running.take().unwrap();
        running.signal("KILL");
        running.wait();
    }

    /// A code that gives something.
    fn invite(&self, what: &[&str]) -> String {
        let args = [&["share", "invite", "--data", "data"], what].concat();
        self.cli.run(&args).expect(0).stdout
    }

    /// A machine that has its folder `a` in a new share.
    fn first(&self) -> (Cli, Running) {
        let cli = program();
        put(&cli, "code", &self.invite(&["--admin"]));
        let add = [
            "share",
            "add",
            "team",
            "a",
            "--hub",
            &self.address,
            "--token-file",
            "code",
        ];
        put(&cli, "a/one", "1");
        let running = cli.spawn(&add);
        until("the share is there", || {
            self.cli
                .run(&["share", "ls", "--data", "data"])
                .stdout
                .contains("team")
        });
        (cli, running)
    }

    /// A machine whose folder `b` takes part.
    fn joins(&self, role: &str) -> (Cli, Running) {
        let cli = program();
        put(&cli, "code", &self.invite(&["team", "--role", role]));
        let join = [
            "join",
            &self.address,
            "--to",
            "b",
            "--token-file",
            "code",
            "--name",
            role,
        ];
        let running = cli.spawn(&join);
        until("what is there has come", || has(&cli, "b/one", "1"));
        (cli, running)
    }
}

#[test]
fn what_one_machine_writes_arrives_at_another_through_a_hub_that_dies_meanwhile() {
    let mut hub = Hub::start(&[]);
    let (ada, live) = hub.first();
    let (bo, also_live) = hub.joins("write");
    put(&bo, "b/deep/two", "2");
    until("it came back", || has(&ada, "a/deep/two", "2"));
    hub.kill();
    put(&ada, "a/one", "one more");
    fs::remove_file(bo.home().join("b/deep/two")).unwrap();
    hub.run(&[]);
    until("the edit went through", || has(&bo, "b/one", "one more"));
    until("the deletion too", || {
        !ada.home().join("a/deep/two").exists()
    });
    let verified = hub
        .cli
        .run(&["share", "verify", "team", "--data", "data"])
        .expect(0);
    assert!(verified.stdout.contains("read"), "{verified}");
    drop((live, also_live));
    assert_same(&[&ada.home().join("a"), &bo.home().join("b")]);
}

#[test]
fn whoever_may_only_read_changes_nothing_for_others() {
    let hub = Hub::start(&[]);
    let (ada, _live) = hub.first();
    let (reader, session) = hub.joins("read");
    put(&reader, "b/one", "mine");
    put(&reader, "b/extra", "x");
    put(&ada, "a/two", "2");
    until("it still receives", || has(&reader, "b/two", "2"));
    session.signal("INT");
    let said = session.wait().expect(130).stdout;
    assert!(said.contains("may read only"), "{said}");
    assert!(has(&ada, "a/one", "1") && !ada.home().join("a/extra").exists());
    let out = reader.run(&["share", "invite", "team", "--hub", &hub.address]);
    assert_refused(out, "E1070", 7);
}

#[test]
fn a_device_that_was_revoked_is_out_at_once_and_stays_out() {
    let hub = Hub::start(&[]);
    let (ada, _live) = hub.first();
    let (bo, _session) = hub.joins("write");
    let revoke = ["share", "revoke", "write", "--hub", &hub.address];
    ada.run(&revoke).expect(0);
    // It is out of the book first, and its connection ends then.
    until("it is gone", || {
        let shares = hub.cli.run(&["share", "ls", "--data", "data"]);
        shares.code() == 0 && !shares.stdout.contains("write")
    });
    put(&bo, "b/late", "x");
    put(&ada, "a/after", "y");
    until("others go on", || {
        hub.cli
            .run(&["share", "ls", "--data", "data"])
            .stdout
            .contains("ada@")
    });
    let out = bo.run(&["share", "ls", "--hub", &hub.address]);
    assert_refused(out, "E1048", 7);
    assert!(!ada.home().join("a/late").exists() && !bo.home().join("b/after").exists());
}

#[test]
fn a_code_is_good_for_one_guess() {
    let hub = Hub::start(&[]);
    let (_ada, _live) = hub.first();
    let code = hub.invite(&["team"]);
    let cli = program();
    let (number, words) = code.trim().split_once('-').unwrap();
    let turned: Vec<&str> = words.rsplit('-').collect();
    let wrong = format!("{number}-{}\n", turned.join("-"));
    let join = ["join", &hub.address, "--to", "b"];
    let guess = |code: &str| cli.run_with(&join, code.as_bytes());
    assert_refused(guess("not a code\n"), "E1075", 7);
    if wrong != code {
        assert_refused(guess(&wrong), "E1075", 7);
        let out = assert_refused(guess(&code), "E1075", 7);
        assert!(out.stderr.contains("expired or was used"), "{out}");
    }
    assert_refused(guess(""), "E1076", 2);
    assert!(!cli.home().join("b/one").exists());
}

#[test]
fn a_hub_with_another_key_than_before_is_not_spoken_to() {
    let mut hub = Hub::start(&[]);
    let (ada, _live) = hub.first();
    hub.kill();
    fs::rename(hub.cli.home().join("data"), hub.cli.home().join("old")).unwrap();
    hub.run(&[]);
    let out = ada.run(&["share", "ls", "--hub", &hub.address]);
    let out = assert_refused(out, "E1049", 7);
    assert!(
        out.stderr.contains("expected") && out.stderr.contains("found"),
        "{out}"
    );
    let nobody = ada.run(&["share", "ls", "--hub", &free()]);
    assert_refused(nobody, "E1074", 7);
    let nowhere = ada.run_with(&["join", &free()], b"1-acid-acid-acid\n");
    assert_refused(nowhere, "E1040", 6);
}

#[test]
fn three_machines_in_a_line_need_no_hub_that_is_nobodys() {
    let first = Hub::start(&["--folder", "team=a"]);
    put(&first.cli, "a/one", "1");
    let follow = |of: &Hub| {
        let cli = program();
        put(&cli, "code", &of.invite(&["team"]));
        put(&cli, "a/own", "same name, another text");
        let mut hub = Hub {
            cli,
            address: free(),
            running: None,
        };
        let joins = [
            "--folder",
            "team=a",
            "--join",
            &of.address,
            "--token-file",
            "code",
        ];
        hub.run(&joins);
        hub
    };
    let second = follow(&first);
    let third = follow(&second);
    until("it went down the line", || has(&third.cli, "a/one", "1"));
    put(&third.cli, "a/back", "from the end");
    until("and up", || has(&first.cli, "a/back", "from the end"));
    fs::remove_file(first.cli.home().join("a/one")).unwrap();
    until("also what is gone", || {
        !third.cli.home().join("a/one").exists()
    });
    let folders = [&first, &second, &third].map(|hub| hub.cli.home().join("a"));
    until("all have the same", || {
        folders.iter().all(|folder| folder.join("own").exists())
    });
    assert_same(&[&folders[0], &folders[1], &folders[2]]);
}
