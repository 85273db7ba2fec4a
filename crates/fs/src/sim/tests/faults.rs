//! The hook, injected errors, counts, and one history for one seed.

#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::sync::{Arc, Mutex};

use super::*;

#[test]
fn the_user_can_act_between_any_two_calls() {
    let (fs, root) = machine();
    fs.write_file("f", "1", Save::InPlace).unwrap();
    let ops = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&ops);
    fs.set_hook(Box::new(move |fs, op| {
        seen.lock().unwrap().push(op.to_owned());
        if op == "exchange" {
            fs.append("f", "2").unwrap();
            let again = fs.sim_root();
            again.stat(n("f")).unwrap();
        }
    }));
    put(&root, "s", b"new");
    root.exchange(n("s"), &root, n("f")).unwrap();
    fs.clear_hook();
    assert_eq!(read(&root, "s"), b"12");
    assert_eq!(
        *ops.lock().unwrap(),
        ["create_file", "write_all_at", "exchange"]
    );
}

#[test]
fn a_listing_misses_what_moves_behind_it() {
    let (fs, root) = machine();
    fs.configure(|c| c.list_chunk = 2);
    for name in ["a", "b", "c", "d"] {
        fs.write_file(name, "", Save::InPlace).unwrap();
    }
    let mut calls = 0;
    fs.set_hook(Box::new(move |fs, op| {
        calls += u32::from(op == "list");
        if calls == 2 {
            fs.rename("d", "a0").unwrap();
            calls += 1;
        }
    }));
    assert_eq!(names(&root), ["a", "b", "c"]);
}

#[test]
fn a_name_that_vanishes_before_its_stat_is_skipped() {
    let (fs, root) = machine();
    for name in ["a", "b"] {
        fs.write_file(name, "", Save::InPlace).unwrap();
    }
    fs.set_hook(Box::new(|fs, op| {
        if op == "list_stat_entry" && fs.exists("b") {
            fs.remove("b").unwrap();
        }
    }));
    let mut seen = Vec::new();
    root.list_stat(&mut |name, stat| seen.push((name.to_vec(), stat.is_ok())))
        .unwrap();
    assert_eq!(seen, [(b"a".to_vec(), true)]);
}

#[test]
fn injected_errors_strike_and_end() {
    let (fs, root) = machine();
    put(&root, "f", b"x");
    fs.inject("list", 1000, Errno::IO.raw_os_error());
    assert_eq!(kind_of(root.list(&mut |_, _| ())), ErrorKind::Io);
    fs.clear_faults();
    assert_eq!(names(&root), ["f"]);
    fs.fail_after_effect("rename_noreplace", Errno::IO.raw_os_error());
    assert_eq!(
        kind_of(root.rename_noreplace(n("f"), &root, n("g"))),
        ErrorKind::Io
    );
    assert_eq!(names(&root), ["g"], "it happened all the same");
    fs.fail_after_effect("open_file", Errno::IO.raw_os_error());
    assert_eq!(kind_of(root.open_file(n("g"))), ErrorKind::Io);
    assert_eq!(fs.stat("g").unwrap().nlink, 1);
}

#[test]
fn calls_are_counted_and_the_users_are_not() {
    let (fs, root) = machine();
    fs.write_file("f", "x", Save::ByRename).unwrap();
    root.stat(n("f")).unwrap();
    root.list_stat(&mut |_, _| ()).unwrap();
    let counts: Vec<_> = fs.count_calls().into_iter().collect();
    assert_eq!(
        counts,
        [("list_stat", 2), ("list_stat_entry", 1), ("stat", 1)]
    );
    fs.reset_calls();
    assert!(fs.count_calls().is_empty());
    assert_eq!(fs.total_calls(), 4);
}

#[test]
fn one_seed_gives_one_history() {
    let run = |seed: u64| {
        let fs = SimFs::new(SimConfig {
            event_delay_ns: 1000,
            ..SimConfig::adversarial(seed)
        });
        let root = fs.sim_root();
        fs.inject("write_all_at", 300, Errno::IO.raw_os_error());
        for i in 0..40 {
            let name = format!("f{i}");
            let file = root.create_file(n(&name), 0o644).unwrap();
            if file.write_all_at(0, &[i; 700]).is_ok() && i % 3 == 0 {
                file.sync_data().unwrap();
            }
            if i % 7 == 0 {
                root.sync().unwrap();
            }
        }
        (fs.snapshot(), fs.crash(seed).snapshot(), fs.history())
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3).1, run(4).1);
    assert_ne!(run(3).2, run(4).2);
}

#[test]
fn a_swarm_differs_from_seed_to_seed_and_repeats() {
    let run = |seed: u64| {
        let (fs, root) = machine();
        fs.swarm(seed);
        (0..400)
            .map(|i| {
                let name = format!("f{i}");
                let made = root.create_file(n(&name), 0o644).map_err(|e| e.errno);
                made.and_then(|f| f.write_all_at(0, b"x").map_err(|e| e.errno))
                    .err()
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(run(1), run(1));
    let failing = (0..20)
        .filter(|seed| run(*seed).iter().any(Option::is_some))
        .count();
    assert!((5..20).contains(&failing), "{failing}");
}

#[test]
fn a_failed_listing_may_have_shown_some_names() {
    let (fs, root) = machine();
    fs.configure(|c| c.list_chunk = 1);
    for name in ["a", "b"] {
        fs.write_file(name, "", Save::InPlace).unwrap();
    }
    let mut calls = 0;
    fs.set_hook(Box::new(move |fs, _| {
        calls += 1;
        if calls == 2 {
            fs.fail_next("list", 1, Errno::IO.raw_os_error());
        }
    }));
    let mut seen = 0;
    assert_eq!(kind_of(root.list(&mut |_, _| seen += 1)), ErrorKind::Io);
    assert_eq!(seen, 1);
}

#[test]
fn a_crash_inside_any_call_of_a_protocol_leaves_a_machine_that_starts() {
    let protocol = |root: &SimDir| -> Result<()> {
        let file = root.create_unnamed(0o600)?;
        file.write_all_at(0, b"new")?;
        file.sync_data()?;
        root.publish(&file, n("staged"))?;
        root.exchange(n("staged"), root, n("f"))?;
        root.sync()?;
        root.remove_file(n("staged"))?;
        root.sync()
    };
    for cfg in all_models() {
        let model = cfg.crash_model;
        for (at, seed) in (1..=9).flat_map(|at| (0..20).map(move |seed| (at, seed))) {
            let fs = SimFs::new(cfg.clone());
            let root = fs.sim_root();
            put_durably(&root, "f", b"old");
            fs.crash_after(at);
            let done = protocol(&root);
            assert_eq!(done.is_ok(), at == 9, "{model:?} {at}");
            let content = fs.crash(seed).read("f").unwrap();
            assert!(
                content == b"old" || content == b"new",
                "{model:?} {at} {seed}"
            );
            assert!(at <= 6 || content == b"new", "{model:?} {at} {seed}");
        }
    }
}

#[test]
fn a_process_can_die_just_before_any_call() {
    let (fs, root) = machine();
    fs.write_file("f", "old", Save::InPlace).unwrap();
    put(&root, "s", b"new");
    fs.set_hook(Box::new(|fs, op| {
        if op == "exchange" {
            fs.kill();
        }
    }));
    assert_eq!(
        kind_of(root.exchange(n("s"), &root, n("f"))),
        ErrorKind::Crashed
    );
    fs.set_hook(Box::new(|fs, _| {
        fs.clear_hook();
        fs.append("f", "!").unwrap();
    }));
    let root = fs.sim_root();
    assert_eq!(
        read(&root, "f"),
        b"old!",
        "a hook that ended itself runs once"
    );
    fs.set_hook(Box::new(|fs, _| drop(fs.crash(1))));
    assert_eq!(kind_of(root.stat_self()), ErrorKind::Crashed);
}
