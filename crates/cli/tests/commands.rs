//! The commands about folders that exist: with a session that holds them, and without.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

mod support;

use std::fs;
use std::os::unix::fs::symlink;

use instep_testkit::cli::Cli;
use serde_json::Value;
use support::{assert_refused, assert_untouched, has, json, live, program, put, see, stop, until};

/// Many files, all equal in `a` and `b`.
fn many(cli: &Cli) {
    for n in 0..80 {
        put(cli, &format!("a/many/{n}"), &format!("text {n}"));
    }
    put(cli, "a/other", "other");
    cli.run(&["sync", "--once", "a", "b"]).expect(0);
}

fn count(cli: &Cli, dir: &str) -> usize {
    fs::read_dir(cli.home().join(dir)).map_or(0, Iterator::count)
}

#[test]
fn plans_create_and_change_nothing_anywhere() {
    let cli = program();
    put(&cli, "a/x", "one");
    put(&cli, "b/y", "two");
    let plans = [
        &["plan", "a", "b"][..],
        &["plan", "--json", "a", "b"],
        &["sync", "-n", "a", "b"],
        &["sync", "-n", "--create", "a", "b", "new"],
        &["mirror", "-n", "a", "b"],
    ];
    for args in plans {
        let before = see(cli.home());
        let out = cli.run(args);
        // A folder that is still to be made cannot be planned for.
        assert!(out.code() == 0 || args.contains(&"new"), "{args:?}\n{out}");
        assert_untouched(&before, &see(cli.home()));
    }
    cli.run(&["sync", "--once", "a", "b"]).expect(0);
    put(&cli, "a/x", "changed");
    fs::remove_file(cli.home().join("b/y")).unwrap();
    for args in plans {
        let before = see(cli.home());
        cli.run(args);
        assert_untouched(&before, &see(cli.home()));
    }
}

#[test]
fn a_plan_says_what_a_session_then_does() {
    let cli = program();
    put(&cli, "a/x", "one");
    put(&cli, "c/y", "two");
    let plan = json(&cli, &["plan", "--json", "a", "b", "c"], 0);
    assert!(
        plan.to_string().contains("\"x\"") && plan.to_string().contains("\"y\""),
        "{plan}"
    );
    cli.run(&["plan", "--detailed-exitcode", "a", "b", "c"])
        .expect(10);
    cli.run(&["sync", "--once", "a", "b", "c"]).expect(0);
    cli.run(&["plan", "--detailed-exitcode", "a", "b", "c"])
        .expect(0);
    for dir in ["a", "b", "c"] {
        assert!(has(&cli, &format!("{dir}/x"), "one") && has(&cli, &format!("{dir}/y"), "two"));
    }
}

#[test]
fn explain_has_a_page_for_every_code_it_lists() {
    let cli = program();
    let list = cli.run(&["explain"]).expect(0);
    let codes: Vec<&str> = list
        .stdout
        .split_whitespace()
        .filter(|w| w.starts_with('E'))
        .collect();
    assert!(codes.len() > 30, "{list}");
    for code in codes
        .iter()
        .filter(|c| c.len() == 5 && c[1..].parse::<u16>().is_ok())
    {
        let page = cli.run(&["explain", code]).expect(0);
        assert!(page.stdout.contains(code), "{page}");
        assert!(page.stdout.lines().count() > 2, "{page}");
    }
    assert_refused(cli.run(&["explain", "E9999"]), "E1022", 2);
}

#[test]
fn what_was_displaced_is_listed_restored_sized_and_destroyed_without_a_session() {
    let cli = program();
    put(&cli, "a/x", "one");
    put(&cli, "a/dir/y", "two");
    cli.run(&["sync", "--once", "a", "b"]).expect(0);
    fs::remove_dir_all(cli.home().join("a/dir")).unwrap();
    put(&cli, "a/x", "one, edited");
    cli.run(&["sync", "--once", "a", "b"]).expect(0);
    let listed = cli.run(&["trash", "list", "b"]).expect(0).stdout;
    assert!(listed.contains("dir/y") && listed.contains('x'), "{listed}");
    let sized = json(&cli, &["trash", "size", "--json", "b"], 0);
    assert!(sized.to_string().contains("\"objects\":2"), "{sized}");
    let before = see(&cli.home().join("b"));
    cli.run(&["trash", "restore", "-n", "dir", "b"]).expect(0);
    assert_untouched(&before, &see(&cli.home().join("b")));
    cli.run(&["trash", "restore", "dir", "b"]).expect(0);
    assert!(has(&cli, "b/dir/y", "two") && has(&cli, "a/dir/y", "two"));
    cli.run(&["trash", "restore", "x", "--to", "x.old", "b"])
        .expect(0);
    assert!(has(&cli, "a/x.old", "one") && has(&cli, "a/x", "one, edited"));
    assert_refused(cli.run(&["trash", "restore", "never", "b"]), "E1013", 2);
    fs::remove_file(cli.home().join("a/x.old")).unwrap();
    cli.run(&["sync", "--once", "a", "b"]).expect(0);
    cli.run(&["trash", "empty", "--older-than", "1h", "a", "b"])
        .expect(0);
    assert!(cli.run(&["trash", "b"]).expect(0).stdout.contains("x.old"));
    cli.run(&["trash", "empty", "a", "b"]).expect(0);
    assert!(!cli.run(&["trash", "b"]).expect(0).stdout.contains("x.old"));
}

#[test]
fn the_trash_of_a_running_session_is_listed_restored_and_destroyed() {
    let cli = program();
    put(&cli, "a/x", "one");
    let session = live(&cli, &["sync", "a", "b"]);
    until("b/x is there", || has(&cli, "b/x", "one"));
    fs::remove_file(cli.home().join("a/x")).unwrap();
    until("b/x is gone", || !cli.home().join("b/x").exists());
    until("it is listed", || {
        cli.run(&["trash", "a"]).stdout.contains('x')
    });
    cli.run(&["trash", "restore", "x", "a"]).expect(0);
    until("it is back", || {
        has(&cli, "a/x", "one") && has(&cli, "b/x", "one")
    });
    fs::remove_file(cli.home().join("b/x")).unwrap();
    until("a/x is gone", || !cli.home().join("a/x").exists());
    until("it is listed", || {
        cli.run(&["trash", "list", "a"]).stdout.contains('x')
    });
    cli.run(&["trash", "empty", "a"]).expect(0);
    assert!(
        json(&cli, &["trash", "--json", "a"], 0)
            .as_array()
            .unwrap()
            .is_empty()
    );
    stop(session);
}

/// The id of the only hold.
fn hold(cli: &Cli) -> String {
    let data = json(cli, &["holds", "--json", "a"], 5);
    assert_eq!(data.as_array().unwrap().len(), 1, "{data}");
    data[0]["id"].as_str().unwrap().to_owned()
}

#[test]
fn held_deletions_are_shown_undone_and_let_through_without_a_session() {
    let cli = program();
    many(&cli);
    fs::remove_dir_all(cli.home().join("a/many")).unwrap();
    let run = cli.run(&["sync", "--once", "a", "b"]).expect(5);
    assert!(
        run.stdout.contains("HELD") && run.stdout.contains("holds approve"),
        "{run}"
    );
    assert_eq!(count(&cli, "b/many"), 80);
    let id = hold(&cli);
    let shown = cli.run(&["holds", "show", &id, "b"]).expect(5);
    assert!(shown.stdout.contains("many/10"), "{shown}");
    let all = cli.run(&["holds", "show", "-v", &id, "b"]).expect(5);
    assert!(
        (0..80).all(|n| all.stdout.contains(&format!("many/{n}\n"))),
        "{all}"
    );
    assert_eq!(
        cli.run(&["holds", "list", "b"])
            .expect(5)
            .stdout
            .matches(&id)
            .count(),
        1
    );
    assert_refused(cli.run(&["holds", "approve", "zz", "a"]), "E1013", 2);
    cli.run(&["holds", "reject", &id, "a"]).expect(0);
    assert_eq!((count(&cli, "a/many"), count(&cli, "b/many")), (80, 80));
    cli.run(&["holds", "a"]).expect(0);
    fs::remove_dir_all(cli.home().join("b/many")).unwrap();
    cli.run(&["sync", "--once", "a", "b"]).expect(5);
    cli.run(&["holds", "approve", &hold(&cli)[..4], "b"])
        .expect(0);
    assert!(!cli.home().join("a/many").exists());
    assert!(has(&cli, "a/other", "other"));
    cli.run(&["sync", "--once", "a", "b"]).expect(0);
}

#[test]
fn a_running_session_shows_its_hold_and_carries_the_decision_out() {
    let cli = program();
    many(&cli);
    let session = live(&cli, &["sync", "a", "b"]);
    for approve in [false, true] {
        fs::remove_dir_all(cli.home().join("a/many")).unwrap();
        until("it is held", || cli.run(&["status", "b"]).code() == 5);
        put(&cli, "b/meanwhile", if approve { "two" } else { "one" });
        let text = if approve { "two" } else { "one" };
        until("edits go on", || has(&cli, "a/meanwhile", text));
        assert_eq!(count(&cli, "b/many"), 80);
        let id = hold(&cli);
        let word = if approve { "approve" } else { "reject" };
        cli.run(&["holds", word, &id, "b"]).expect(0);
        let left = if approve { 0 } else { 80 };
        until("it is decided", || {
            count(&cli, "a/many") == left && count(&cli, "b/many") == left
        });
        until("nothing is held", || cli.run(&["holds", "a"]).code() == 0);
    }
    let out = stop(session);
    assert!(out.stdout.contains("HELD"), "{out}");
}

#[test]
fn why_and_log_tell_the_story_of_a_path() {
    let cli = program();
    put(&cli, "a/x", "one");
    cli.run(&["sync", "--once", "a", "b"]).expect(0);
    put(&cli, "b/x", "two");
    cli.run(&["sync", "--once", "a", "b"]).expect(0);
    let why = cli.run(&["why", "a/x"]).expect(0);
    assert!(
        why.stdout.contains('A') && why.stdout.contains('B'),
        "{why}"
    );
    let log = cli.run(&["log", "a"]).expect(0);
    assert!(log.stdout.contains('x'), "{log}");
    assert_refused(cli.run(&["why", "elsewhere"]), "E1019", 2);
}

/// The ids of the open conflicts.
fn conflicts(cli: &Cli, root: &str) -> Vec<String> {
    let out = cli.run(&["conflicts", "--json", root]);
    let document: Value = serde_json::from_str(&out.stdout).unwrap();
    let all = document["data"].as_array().unwrap();
    all.iter()
        .map(|c| c["id"].as_str().unwrap().to_owned())
        .collect()
}

fn disagree(cli: &Cli, names: &[&str]) {
    for name in names {
        put(cli, &format!("a/{name}"), &format!("{name} from a"));
        put(cli, &format!("b/{name}"), &format!("{name} from b, later"));
    }
}

#[test]
fn conflicts_are_listed_shown_and_settled_one_by_one_without_a_session() {
    let cli = program();
    disagree(&cli, &["x", "y", "z"]);
    cli.run(&["sync", "--once", "a", "b"]).expect(4);
    let ids = conflicts(&cli, "b");
    assert_eq!(ids.len(), 3);
    for id in &ids {
        let shown = cli.run(&["conflicts", "show", id, "a"]).expect(0);
        assert!(
            shown.stdout.contains("from a") || shown.stdout.contains('A'),
            "{shown}"
        );
    }
    assert_refused(
        cli.run(&["conflicts", "resolve", "zz", "--keep", "A", "a"]),
        "E1013",
        2,
    );
    cli.run(&["conflicts", "resolve", &ids[0], "--keep", "newest", "a"])
        .expect(0);
    cli.run(&["conflicts", "resolve", &ids[1], "--keep", "both", "b"])
        .expect(0);
    assert_eq!(conflicts(&cli, "a").len(), 1);
    let names = count(&cli, "a");
    assert_eq!(
        names, 5,
        "three paths, one copy beside, and our own directory"
    );
    cli.run(&["conflicts", "resolve", &ids[2], "--keep", "A", "b"])
        .expect(0);
    cli.run(&["conflicts", "a"]).expect(0);
    cli.run(&["sync", "--once", "a", "b"]).expect(0);
    let settled = cli.run(&["conflicts", "--all", "a"]);
    assert!(settled.stdout.lines().count() >= 3, "{settled}");
    instep_testkit::compare::assert_same(&[&cli.home().join("a"), &cli.home().join("b")]);
}

#[test]
fn a_running_session_settles_conflicts() {
    let cli = program();
    disagree(&cli, &["x", "y"]);
    let session = live(&cli, &["sync", "a", "b"]);
    until("both are noted", || conflicts(&cli, "a").len() == 2);
    let ids = conflicts(&cli, "b");
    cli.run(&["conflicts", "resolve", &ids[0], "--keep", "A", "b"])
        .expect(0);
    until("one is left", || conflicts(&cli, "a").len() == 1);
    cli.run(&["conflicts", "resolve", "--all", "--keep", "A", "a"])
        .expect(0);
    until("a has won", || {
        has(&cli, "b/x", "x from a") && has(&cli, "b/y", "y from a")
    });
    until("none is left", || cli.run(&["status", "a"]).code() == 0);
    stop(session);
}

#[test]
fn ignore_says_which_rule_decides() {
    let cli = program();
    put(
        &cli,
        ".config/instep/config.toml",
        "defaults.ignore = [\"*.iso\", \"@os-litter\"]\n",
    );
    put(&cli, "a/.instepignore", "secret\n!kept.iso\n");
    put(&cli, "a/secret", "x");
    put(&cli, "a/x.iso", "x");
    put(&cli, "a/kept.iso", "x");
    put(&cli, "a/.DS_Store", "x");
    put(&cli, "a/plain", "x");
    cli.run(&["sync", "--once", "a", "b"]).expect(0);
    let tested = cli
        .run(&[
            "ignore",
            "test",
            "a/secret",
            "a/x.iso",
            "a/kept.iso",
            "a/.DS_Store",
            "a/plain",
        ])
        .expect(0);
    for line in tested.stdout.lines() {
        let (path, rest) = line.split_once(' ').unwrap();
        let synchronized = rest.contains("synchronized");
        let at_b = path.replacen("a/", "b/", 1);
        assert_eq!(cli.home().join(at_b).exists(), synchronized, "{line}");
    }
    assert!(tested.stdout.contains(".instepignore:1"), "{tested}");
    let list = cli.run(&["ignore", "list"]).expect(0);
    assert!(
        list.stdout.contains("*.iso") && list.stdout.contains("os-litter"),
        "{list}"
    );
}

#[test]
fn a_folder_that_is_forgotten_keeps_its_files_and_is_in_no_share() {
    let cli = program();
    put(&cli, "a/x", "one");
    cli.run(&["sync", "--once", "a", "b"]).expect(0);
    let session = live(&cli, &["sync", "a", "b"]);
    assert_refused(cli.run(&["forget", "b"]), "E1006", 8);
    stop(session);
    cli.run(&["forget", "b"]).expect(0);
    assert_refused(cli.run(&["status", "b"]), "E1020", 2);
    assert!(
        cli.run(&["status", "a"])
            .expect(0)
            .stdout
            .contains("forgotten")
    );
    assert!(has(&cli, "b/x", "one") && cli.home().join("b/.instep").exists());
    put(&cli, "a/x", "two");
    let again = cli.run(&["sync", "--once", "a", "b"]).expect(0);
    assert!(
        again.stdout.lines().nth(1).unwrap().starts_with("B  b"),
        "{again}"
    );
    cli.run(&["forget", "--purge", "b"]).expect(0);
    assert!(has(&cli, "b/x", "two") && !cli.home().join("b/.instep").exists());
    assert_refused(cli.run(&["status", "b"]), "E1020", 2);
    cli.run(&["forget", "--purge", "a"]).expect(0);
    assert_eq!((count(&cli, "a"), count(&cli, "b")), (1, 1));
}

#[test]
fn a_file_edited_while_it_was_ignored_is_in_conflict_with_itself() {
    for edited in ["a", "b"] {
        let cli = program();
        put(&cli, "a/notes", "one");
        put(&cli, "a/both", "one");
        cli.run(&["sync", "--once", "a", "b"]).expect(0);
        put(&cli, "a/.instepignore", "notes\nboth\n");
        cli.run(&["sync", "--once", "a", "b"]).expect(0);
        put(&cli, &format!("{edited}/notes"), "edited");
        put(&cli, "a/both", "here");
        put(&cli, "b/both", "there");
        cli.run(&["sync", "--once", "a", "b"]).expect(0);
        assert!(!has(&cli, "a/notes", "edited") || !has(&cli, "b/notes", "edited"));
        fs::remove_file(cli.home().join("a/.instepignore")).unwrap();
        // What was edited on both sides is a conflict, and nothing else.
        cli.run(&["sync", "--once", "a", "b"]).expect(4);
        assert!(has(&cli, "a/notes", "edited") && has(&cli, "b/notes", "edited"));
        let listed = cli.run(&["conflicts", "a"]).expect(4).stdout;
        assert!(
            listed.contains("both") && !listed.contains("notes"),
            "{listed}"
        );
    }
}

#[test]
fn a_plan_of_a_restored_or_damaged_index_deletes_what_a_session_would_bring_back() {
    for harm in ["restored", "damaged", "copied"] {
        let cli = program();
        put(&cli, "a/x", "one");
        put(&cli, "a/y", "two");
        cli.run(&["sync", "--once", "a", "b"]).expect(0);
        let index = cli.home().join("b/.instep/index.db");
        let old = fs::read(&index).unwrap();
        cli.run(&["sync", "--once", "a", "b"]).expect(0);
        let mut name = "b";
        match harm {
            "restored" => fs::write(&index, old).unwrap(),
            "damaged" => fs::write(&index, "not an index").unwrap(),
            _ => {
                let copy = std::process::Command::new("cp")
                    .args(["-a", "b", "c"])
                    .current_dir(cli.home())
                    .status();
                assert!(copy.unwrap().success());
                name = "c";
            }
        }
        fs::remove_file(cli.home().join(name).join("x")).unwrap();
        let before = see(&cli.home().join(name));
        let plan = cli.run(&["plan", "a", name]).expect(0).stdout;
        assert_untouched(&before, &see(&cli.home().join(name)));
        assert!(
            plan.contains("copy") && !plan.contains("trash"),
            "{harm}: {plan}"
        );
        cli.run(&["sync", "--once", "a", name]).expect(0);
        assert!(has(&cli, &format!("{name}/x"), "one"), "{harm}");
    }
}

#[test]
fn a_name_that_acts_on_a_terminal_is_printed_as_it_is() {
    let cli = program();
    put(&cli, "a/x\u{1b}[31m\ny", "one");
    cli.run(&["sync", "--once", "a", "b"]).expect(0);
    let name = "a/x\u{1b}[31m\ny";
    for args in [
        &["why", name][..],
        &["ignore", "test", name],
        &["log", name],
        &["sync", "--once", "a", "missing\u{1b}[31m"],
        &["status", "missing\u{1b}[31m"],
    ] {
        let said = cli.run(args);
        let all = format!("{}{}", said.stdout, said.stderr);
        assert!(!all.contains('\u{1b}'), "{args:?}: {all:?}");
        assert!(all.contains("\\u{1b}"), "{args:?}: {all:?}");
    }
}

#[test]
fn why_promises_that_the_next_sync_brings_what_is_held() {
    let cli = program();
    put(&cli, "a/x", "one");
    put(&cli, "a/.instepignore", "skipped\n");
    put(&cli, "a/skipped", "one");
    symlink("/etc/passwd", cli.home().join("a/out")).unwrap();
    cli.run(&["sync", "--once", "a", "b"]);
    let said = cli.run(&["why", "a/out"]).expect(0).stdout;
    assert!(
        said.contains("E2111") && !said.contains("the next sync"),
        "{said}"
    );
    let said = cli.run(&["why", "a"]).expect(0).stdout;
    assert!(!said.contains("never synchronized"), "{said}");
    let said = assert_refused(cli.run(&["sync", "--once", "", "a"]), "E1000", 2);
    assert!(said.stderr.contains("empty"), "{said}");
}

#[test]
fn how_a_conflict_was_settled_is_told_in_the_words_of_the_program() {
    let cli = program();
    disagree(&cli, &["f", "g"]);
    cli.run(&["sync", "--once", "--policy", "keep-both", "a", "b"]);
    disagree(&cli, &["h"]);
    cli.run(&["sync", "--once", "--prefer", "B", "a", "b"]);
    cli.run(&["conflicts", "resolve", "--all", "--keep", "A", "a"])
        .expect(0);
    let all = json(&cli, &["conflicts", "--all", "a", "--json"], 0).to_string();
    assert!(all.contains("\"resolved\":\"A\""), "{all}");
    for code in ["KeepBoth", "Newest", "Prefer(", "replica("] {
        assert!(!all.contains(code), "{all}");
    }
}

#[test]
fn a_session_with_a_hold_never_settles() {
    let cli = program();
    for n in 0..120 {
        put(&cli, &format!("a/{n}"), "x");
    }
    cli.run(&["sync", "--once", "a", "b"]).expect(0);
    for n in 0..120 {
        fs::remove_file(cli.home().join(format!("a/{n}"))).unwrap();
    }
    cli.run(&["sync", "--once", "a", "b"]).expect(5);
    let session = cli.spawn(&["sync", "a", "b"]);
    until("nothing waits but for a decision", || {
        let said = cli.run(&["status", "--json", "a"]).stdout;
        let said: Value = serde_json::from_str(&said).unwrap_or_default();
        let summary = &said["data"][0]["summary"];
        summary["holds"] == 1 && summary["waiting"] == 0
    });
    cli.run(&["holds", "reject", &hold(&cli), "a"]).expect(0);
    until("all are back", || count(&cli, "a") == 121);
    stop(session);
}

#[test]
fn a_conflict_that_waits_for_a_person_is_told_as_won_by_the_newest() {
    let cli = program();
    cli.run(&["sync", "--once", "--policy", "manual", "a", "b"])
        .expect(0);
    disagree(&cli, &["f"]);
    let said = cli.run(&["sync", "--once", "a", "b"]).expect(4).stdout;
    assert!(
        said.contains("until one is chosen") && !said.contains("newest"),
        "{said}"
    );
    let said = cli.run(&["why", "a/f"]).expect(0).stdout;
    assert!(
        said.contains("until one is chosen") && !said.contains("next sync"),
        "{said}"
    );
    let said = cli.run(&["conflicts", "a"]).expect(4).stdout;
    assert!(said.contains("its own") && !said.contains('?'), "{said}");
    let ids = conflicts(&cli, "a");
    let said = cli
        .run(&["conflicts", "show", &ids[0], "a"])
        .expect(0)
        .stdout;
    assert!(!said.contains("--keep its own"), "{said}");
    // One that was kept twice is no conflict of two contents.
    put(&cli, "a/same", "x");
    put(&cli, "b/same", "x");
    cli.run(&["sync", "--once", "a", "b"]).expect(4);
    let said = cli.run(&["why", "a/same"]).expect(0).stdout;
    assert!(!said.contains("beside each other"), "{said}");
}
