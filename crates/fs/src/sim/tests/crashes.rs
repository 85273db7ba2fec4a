//! What a power cut and a kill leave.

#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::collections::BTreeSet;

use super::*;

#[test]
fn synced_data_and_names_survive_every_crash() {
    for cfg in all_models() {
        let model = cfg.crash_model;
        let fs = SimFs::new(cfg);
        let root = fs.sim_root();
        root.make_dir(n("d"), 0o755).unwrap();
        let d = root.open_dir(n("d")).unwrap();
        let file = d.create_unnamed(0o600).unwrap();
        file.write_all_at(0, &[7; 3000]).unwrap();
        file.set_mode(0o751).unwrap();
        file.sync_data().unwrap();
        d.publish(&file, n("f")).unwrap();
        d.sync().unwrap();
        root.sync().unwrap();
        put(&root, "unsynced", b"junk");
        for seed in 0..200 {
            let after = fs.image(seed);
            let view = after
                .snapshot()
                .remove(&p("d/f"))
                .unwrap_or_else(|| panic!("{model:?} {seed}"));
            assert_eq!(
                (view.content, view.mode),
                (vec![7; 3000], 0o751),
                "{model:?} {seed}"
            );
        }
    }
}

#[test]
fn what_was_synced_as_a_whole_survives_every_crash() {
    for cfg in all_models() {
        let fs = SimFs::new(cfg);
        let root = fs.sim_root();
        fs.mkdir_all("a/b").unwrap();
        fs.write_file("a/b/f", vec![9; 9000], Save::ByRename)
            .unwrap();
        fs.rename("a/b", "c").unwrap();
        fs.chmod("c/f", 0o700).unwrap();
        fs.symlink("t", "l").unwrap();
        root.sync_fs().unwrap();
        assert_eq!(fs.pending(), 0);
        let before = fs.snapshot();
        fs.remove_all("c").unwrap();
        fs.write_file("l2", "x", Save::InPlace).unwrap();
        let mut gone = 0;
        for seed in 0..50 {
            let after = fs.image(seed).snapshot();
            if let Some(view) = after.get(&p("c/f")) {
                assert_eq!(view.content, before[&p("c/f")].content);
            } else {
                gone += 1;
            }
            assert_eq!(after[&p("l")], before[&p("l")]);
        }
        assert!(gone > 0 && gone < 50, "{gone}");
    }
}

/// Contents that `name` has after crashes with many seeds; `None` where it is absent.
fn fates(fs: &SimFs, name: &str) -> BTreeSet<Option<Vec<u8>>> {
    (0..400)
        .map(|seed| fs.image(seed).read(name).ok())
        .collect()
}

#[test]
fn an_unsynced_replacement_is_old_empty_or_torn_although_the_index_is_durable() {
    let (fs, root) = machine();
    put_durably(&root, "f", b"old");
    put(&root, "staged", &[8; 1024]);
    root.exchange(n("staged"), &root, n("f")).unwrap();
    put_durably(&root, "index", b"new");
    let seen = fates(&fs, "f");
    // Syncing the directory made the names durable, not the bytes.
    assert!(!seen.contains(&Some(b"old".to_vec())));
    assert!(seen.contains(&Some(Vec::new())), "empty");
    assert!(seen.contains(&Some(vec![0; 1024])), "zeros");
    assert!(seen.contains(&Some(vec![8; 1024])), "new");
    assert!(
        seen.iter()
            .flatten()
            .any(|v| v.contains(&0) && v.contains(&8)),
        "torn"
    );
}

#[test]
fn an_unsynced_rename_is_undone_although_the_index_elsewhere_is_durable() {
    let (fs, root) = machine();
    fs.mkdir_all("state").unwrap();
    put_durably(&root, "f", b"old");
    let staged = put(&root, "staged", b"new");
    staged.sync_data().unwrap();
    root.sync().unwrap();
    root.exchange(n("staged"), &root, n("f")).unwrap();
    put_durably(&root.open_dir(n("state")).unwrap(), "index", b"new");
    let (old, new) = (Some(b"old".to_vec()), Some(b"new".to_vec()));
    assert_eq!(fates(&fs, "f"), BTreeSet::from([old.clone(), new.clone()]));
    for seed in 0..400 {
        let after = fs.image(seed);
        assert_eq!(after.read("state/index").unwrap(), b"new");
        let both = (after.read("f").ok(), after.read("staged").ok());
        assert!(
            both == (old.clone(), new.clone()) || both == (new.clone(), old.clone()),
            "{both:?}"
        );
    }
}

#[test]
fn ordered_models_commit_the_rename_with_the_index() {
    for cfg in [SimConfig::ext4(1), SimConfig::xfs(1)] {
        let fs = SimFs::new(cfg);
        let root = fs.sim_root();
        fs.mkdir_all("state").unwrap();
        put_durably(&root, "f", b"old");
        put(&root, "staged", b"new");
        root.exchange(n("staged"), &root, n("f")).unwrap();
        put_durably(&root.open_dir(n("state")).unwrap(), "index", b"new");
        let seen = fates(&fs, "f");
        assert!(seen.contains(&Some(b"new".to_vec())));
        assert!(seen.contains(&Some(Vec::new())), "index new, disk empty");
        assert!(!seen.contains(&Some(b"old".to_vec())) && !seen.contains(&None));
    }
}

#[test]
fn btrfs_may_show_old_names_although_the_index_is_durable() {
    let fs = SimFs::new(SimConfig::btrfs(1));
    let root = fs.sim_root();
    fs.mkdir_all("state").unwrap();
    put_durably(&root, "f", b"old");
    put(&root, "staged", b"new");
    root.exchange(n("staged"), &root, n("f")).unwrap();
    put_durably(&root.open_dir(n("state")).unwrap(), "index", b"new");
    assert!(fates(&fs, "f").contains(&Some(b"old".to_vec())));
}

#[test]
fn ordered_models_never_lose_an_earlier_name_and_keep_a_later_one() {
    for cfg in [SimConfig::ext4(1), SimConfig::xfs(1)] {
        let fs = SimFs::new(cfg);
        let root = fs.sim_root();
        for name in ["a", "b", "c"] {
            root.make_dir(n(name), 0o755).unwrap();
        }
        let seen: BTreeSet<Vec<String>> = (0..200)
            .map(|seed| names(&fs.image(seed).sim_root()))
            .collect();
        let prefixes: [&[&str]; 4] = [&[], &["a"], &["a", "b"], &["a", "b", "c"]];
        assert_eq!(
            seen,
            prefixes
                .iter()
                .map(|p| p.iter().map(ToString::to_string).collect())
                .collect()
        );
    }
    let (fs, root) = machine();
    for name in ["a", "b", "c"] {
        root.make_dir(n(name), 0o755).unwrap();
    }
    let seen: BTreeSet<Vec<String>> = (0..400)
        .map(|seed| names(&fs.image(seed).sim_root()))
        .collect();
    assert_eq!(seen.len(), 8, "any subset");
}

#[test]
fn every_image_is_a_tree_after_random_operations() {
    for cfg in all_models() {
        let fs = SimFs::new(cfg);
        let mut rng = Rng::new(5);
        for round in 0..300_u64 {
            let pick =
                |rng: &mut Rng| ["a", "b", "a/x", "b/x", "a/x/y", "c"][rng.below(6) as usize];
            let (one, two) = (pick(&mut rng), pick(&mut rng));
            let done = match rng.below(8) {
                0 => fs.mkdir_all(one),
                1 => fs.write_file(one, round.to_le_bytes(), Save::InPlace),
                2 => fs.write_file(one, round.to_le_bytes(), Save::ByRename),
                3 => fs.rename(one, two),
                4 => fs.swap(one, two),
                5 => fs.remove_all(one),
                6 => fs.hard_link(one, two),
                _ => fs.user_sync(one),
            };
            assert!(done.is_ok() || done.is_err_and(|e| e.kind() != ErrorKind::Io));
            if round % 10 == 0 {
                let after = fs.image(round);
                let world = after.lock();
                let named: usize = world.nodes.values().map(|n| n.names.len()).sum();
                let dirs = world
                    .nodes
                    .values()
                    .filter(|n| n.inode.is_dir() && n.names.len() == 1)
                    .count();
                let all_dirs = world.nodes.values().filter(|n| n.inode.is_dir()).count();
                assert_eq!(
                    dirs + 1,
                    all_dirs,
                    "each directory but the root has one name"
                );
                assert!(named + 1 >= world.nodes.len());
                let inos: BTreeSet<u64> = world.nodes.values().map(|n| n.inode.ino).collect();
                assert_eq!(inos.len(), world.nodes.len(), "numbers are unique");
                for id in world.nodes.keys() {
                    assert!(world.is_below(*id, world.root), "connected");
                }
            }
        }
    }
}

#[test]
fn an_unlink_can_be_durable_before_the_link_that_was_made_first() {
    let (fs, root) = machine();
    root.make_dir(n("trash"), 0o700).unwrap();
    put_durably(&root, "f", b"x");
    let trash = root.open_dir(n("trash")).unwrap();
    root.hard_link(n("f"), &trash, n("t")).unwrap();
    root.remove_file(n("f")).unwrap();
    root.sync().unwrap();
    assert!((0..200).any(|seed| !fs.image(seed).exists("trash/t")));
    trash.sync().unwrap();
    assert!((0..200).all(|seed| fs.image(seed).exists("trash/t")));
}

#[test]
fn a_failed_sync_loses_the_bytes_for_good() {
    let (fs, root) = machine();
    let file = put(&root, "f", b"data");
    root.sync().unwrap();
    fs.fail_next("sync_data", 1, Errno::IO.raw_os_error());
    assert_eq!(kind_of(file.sync_data()), ErrorKind::Io);
    file.sync_data().unwrap();
    root.sync_fs().unwrap();
    assert_eq!(fs.read("f").unwrap(), b"data", "the cache still shows them");
    assert_eq!(fates(&fs, "f"), BTreeSet::from([Some(vec![0; 4])]));
}

#[test]
fn nothing_answers_after_a_crash() {
    let (fs, root) = machine();
    let file = put(&root, "f", b"x");
    let watcher = fs.new_watcher();
    let after = fs.crash(1);
    assert_eq!(kind_of(root.stat_self()), ErrorKind::Crashed);
    assert_eq!(kind_of(file.write_all_at(0, b"y")), ErrorKind::Crashed);
    assert_eq!(kind_of(watcher.wait(None)), ErrorKind::Crashed);
    assert_eq!(
        kind_of(fs.write_file("g", "x", Save::InPlace)),
        ErrorKind::Crashed
    );
    assert_eq!(kind_of(fs.dir_at("")), ErrorKind::Crashed);
    assert!(fs.has_crashed() && !after.has_crashed());
    after.sim_root().sync_fs().unwrap();
}

#[test]
fn the_scheduled_call_never_happens() {
    let (fs, root) = machine();
    fs.crash_after(3);
    root.make_dir(n("a"), 0o755).unwrap();
    root.make_dir(n("b"), 0o755).unwrap();
    assert_eq!(kind_of(root.make_dir(n("c"), 0o755)), ErrorKind::Crashed);
    assert!(fs.has_crashed());
    assert_eq!(kind_of(root.stat_self()), ErrorKind::Crashed);
    assert_eq!(fs.snapshot().len(), 2);
}

#[test]
fn a_killed_process_leaves_the_tree_and_nothing_else() {
    let (fs, root) = machine();
    let file = put(&root, "f", b"cached, not durable");
    let unnamed = root.create_unnamed(0o600).unwrap();
    unnamed.write_all_at(0, &[1; 5000]).unwrap();
    let lock = root.try_lock(n("lock")).unwrap().unwrap();
    let watcher = fs.new_watcher();
    watcher.add(&root, &RelPath::root()).unwrap();
    let room = fs.lock().room();
    fs.kill();
    assert_eq!(kind_of(file.stat()), ErrorKind::Crashed);
    assert_eq!(kind_of(root.stat_self()), ErrorKind::Crashed);
    assert_eq!(kind_of(watcher.wait(None)), ErrorKind::Crashed);
    assert_eq!(fs.read("f").unwrap(), b"cached, not durable");
    assert_eq!(
        fs.lock().room(),
        (room.0 + 8192, room.1 + 1),
        "the unnamed file is gone"
    );
    drop((file, unnamed, lock, watcher, root));
    let root = fs.sim_root();
    assert!(root.try_lock(n("lock")).unwrap().is_some());
    assert_eq!(read(&root, "f"), b"cached, not durable");
}

/// One random operation of a user on a small tree.
fn stir(fs: &SimFs, rng: &mut Rng, paths: &[&str]) {
    let (one, two) = (
        paths[rng.below(paths.len() as u64) as usize],
        paths[rng.below(paths.len() as u64) as usize],
    );
    let bytes = vec![rng.below(256) as u8; rng.below(1500) as usize];
    let done = match rng.below(8) {
        0 => fs.mkdir_all(one),
        1 => fs.write_file(one, bytes, Save::InPlace),
        2 => fs.write_file(one, bytes, Save::ByRename),
        3 | 4 => fs.rename(one, two),
        5 => fs.swap(one, two),
        6 => fs.remove_all(one),
        _ => fs.hard_link(one, two),
    };
    assert!(done.is_ok() || done.is_err_and(|e| e.kind() != ErrorKind::Io));
}

#[test]
fn what_every_single_sync_promised_is_in_every_image() {
    let paths = ["a", "b", "c", "a/x", "b/x", "a/x/y", "b/z", "a/x/y/w"];
    for cfg in all_models() {
        let model = cfg.crash_model;
        for seed in 0..150 {
            let fs = SimFs::new(cfg.clone());
            let mut rng = Rng::new(seed);
            for _ in 0..rng.below(60) {
                stir(&fs, &mut rng, &paths);
                if rng.chance(100) {
                    let some = paths[rng.below(paths.len() as u64) as usize];
                    drop(fs.user_sync(some));
                }
            }
            let live = fs.snapshot();
            let mut all: Vec<String> = live
                .iter()
                .filter(|(_, v)| v.kind != Kind::Special)
                .map(|(p, _)| p.to_string())
                .collect();
            all.push(String::new());
            for at in (1..all.len()).rev() {
                all.swap(at, rng.below(at as u64 + 1) as usize);
            }
            for path in &all {
                fs.user_sync(path).unwrap();
            }
            for cut in 0..4 {
                let after = fs.image(cut).snapshot();
                let show = |s: &std::collections::BTreeMap<RelPath, NodeView>| -> Vec<(RelPath, Kind, Vec<u8>)> {
                    s.iter().map(|(p, v)| (p.clone(), v.kind, v.content.clone())).collect()
                };
                assert_eq!(show(&after), show(&live), "{model:?} seed {seed} cut {cut}");
            }
        }
    }
}

#[test]
fn one_synced_directory_has_its_names_in_every_image() {
    let paths = [
        "a/1", "a/2", "b/1", "b/2", "a/d", "b/d", "a/d/1", "b/d/e", "a/d/e", "c",
    ];
    for cfg in all_models() {
        let model = cfg.crash_model;
        for seed in 0..300 {
            let fs = SimFs::new(cfg.clone());
            let mut rng = Rng::new(seed);
            fs.mkdir_all("a").unwrap();
            fs.mkdir_all("b").unwrap();
            fs.settle();
            for _ in 0..rng.below(40) {
                stir(&fs, &mut rng, &paths);
            }
            fs.user_sync("a").unwrap();
            let listed = |fs: &SimFs| {
                let dir = fs.sim_dir_at(b"a").unwrap();
                let mut out = Vec::new();
                dir.list(&mut |name, kind| out.push((name.to_vec(), kind)))
                    .unwrap();
                out
            };
            let live = listed(&fs);
            for cut in 0..6 {
                assert_eq!(
                    listed(&fs.image(cut)),
                    live,
                    "{model:?} seed {seed} cut {cut}"
                );
            }
        }
    }
}

#[test]
fn a_new_directory_is_lost_unless_its_parent_was_synced() {
    for cfg in [SimConfig::adversarial(1), SimConfig::btrfs(1)] {
        let fs = SimFs::new(cfg);
        let root = fs.sim_root();
        fs.mkdir_all("d").unwrap();
        let d = root.open_dir(n("d")).unwrap();
        put(&d, "f", b"x").sync_data().unwrap();
        d.sync().unwrap();
        let seen: BTreeSet<_> = (0..100)
            .map(|seed| (fs.image(seed).exists("d"), fs.image(seed).read("d/f").ok()))
            .collect();
        assert_eq!(
            seen,
            BTreeSet::from([(false, None), (true, Some(b"x".to_vec()))])
        );
    }
}

#[test]
fn data_that_survives_brings_its_time_unless_times_are_lazy() {
    let run = |lazy: bool| {
        let fs = SimFs::new(SimConfig {
            lazy_times: lazy,
            ..SimConfig::adversarial(1)
        });
        fs.write_file("f", "old", Save::InPlace).unwrap();
        fs.settle();
        let before = fs.stat("f").unwrap().mtime;
        fs.advance(1_000_000_000);
        let fd = fs.user_open_write("f").unwrap();
        fs.user_write(&fd, 0, "new").unwrap();
        (0..300).any(|seed| {
            let after = fs.image(seed);
            after.read("f").unwrap() == b"new" && after.stat("f").unwrap().mtime == before
        })
    };
    assert!(!run(false));
    assert!(run(true));
}

#[test]
fn a_crash_of_the_crashed_machine_is_a_machine_of_its_own() {
    let (fs, root) = machine();
    put_durably(&root, "f", b"x");
    let second = fs.crash(1).crash(2).crash(3);
    assert_eq!(second.read("f").unwrap(), b"x");
    assert_eq!(second.stat("f").unwrap().ino, fs.snapshot()[&p("f")].ino);
    assert_eq!(second.pending(), 0);
}

#[test]
fn a_move_never_swallows_what_it_moves() {
    let (fs, root) = machine();
    fs.mkdir_all("a/s").unwrap();
    fs.write_file("a/f", "kept", Save::InPlace).unwrap();
    fs.settle();
    fs.rename("a/s", "s").unwrap();
    fs.rename("a", "s/a").unwrap();
    for seed in 0..200 {
        let after = fs.image(seed);
        assert!(after.exists("a/f") != after.exists("s/a/f"), "{seed}");
    }
    root.open_dir(n("s")).unwrap().sync().unwrap();
    assert!((0..200).all(|seed| fs.image(seed).exists("s/a/f")));
}

#[test]
fn a_removed_directory_takes_nothing_along_that_had_left_it() {
    let (fs, _root) = machine();
    fs.mkdir_all("d").unwrap();
    fs.write_file("d/f", "kept", Save::InPlace).unwrap();
    fs.settle();
    fs.rename("d/f", "f").unwrap();
    fs.remove("d").unwrap();
    let seen: BTreeSet<_> = (0..200)
        .map(|seed| fs.image(seed))
        .map(|after| (after.exists("d/f"), after.exists("f"), after.exists("d")))
        .collect();
    assert_eq!(
        seen,
        BTreeSet::from([
            (true, false, true),
            (false, true, true),
            (false, true, false)
        ])
    );
}

#[test]
fn a_root_can_be_opened_on_a_dead_machine_and_says_that_it_is_dead() {
    let (fs, _root) = machine();
    fs.root().make_dir(n("d"), 0o755).unwrap();
    fs.dir_at("d").unwrap().make_dir(n("e"), 0o755).unwrap();
    assert!(fs.exists("d/e"));
    assert_eq!(kind_of(fs.dir_at("none")), ErrorKind::Absent);
    let after = fs.crash(0);
    assert_eq!(kind_of(fs.root().stat_self()), ErrorKind::Crashed);
    assert_eq!(after.root().stat_self().unwrap().kind, Kind::Dir);
}
