//! What the simulator promises to those who test with it.

#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use instep_core::path::{Name, RelPath};
use instep_core::time::Mtime;
use rustix::io::Errno;

use super::*;
use crate::api::{ErrorKind, Kind};
use crate::watch::Hint;

fn n(name: &str) -> Name<'_> {
    Name::new(name.as_bytes()).unwrap()
}

fn p(path: &str) -> RelPath {
    RelPath::new(path.as_bytes()).unwrap()
}

fn machine() -> (SimFs, SimDir) {
    let fs = SimFs::new(SimConfig::adversarial(1));
    let root = fs.root_dir().unwrap();
    (fs, root)
}

fn all_models() -> [SimConfig; 4] {
    [
        SimConfig::adversarial(1),
        SimConfig::ext4(1),
        SimConfig::xfs(1),
        SimConfig::btrfs(1),
    ]
}

fn put(dir: &SimDir, name: &str, bytes: &[u8]) -> SimFile {
    let file = dir.create_file(n(name), 0o644).unwrap();
    file.write_all_at(0, bytes).unwrap();
    file
}

/// A file that is durable in content and name.
fn put_durably(dir: &SimDir, name: &str, bytes: &[u8]) {
    put(dir, name, bytes).sync_data().unwrap();
    dir.sync().unwrap();
}

fn read(dir: &SimDir, name: &str) -> Vec<u8> {
    let file = dir.open_file(n(name)).unwrap();
    let mut buf = vec![0; file.stat().unwrap().size as usize];
    assert_eq!(file.read_at(0, &mut buf).unwrap(), buf.len());
    buf
}

fn names(dir: &SimDir) -> Vec<String> {
    let mut out = Vec::new();
    dir.list(&mut |name, _| out.push(String::from_utf8_lossy(name).into_owned()))
        .unwrap();
    out
}

fn kind_of<T>(r: Result<T>) -> ErrorKind {
    match r {
        Ok(_) => panic!("a call that must fail has worked"),
        Err(e) => e.kind(),
    }
}

// --- calls

#[test]
fn links_are_never_followed_and_kinds_are_told() {
    let (fs, root) = machine();
    fs.mkdir_all("d").unwrap();
    fs.symlink("d", "l").unwrap();
    fs.special("fifo").unwrap();
    fs.write_file("f", "x", Save::InPlace).unwrap();
    assert_eq!(kind_of(root.open_dir(n("l"))), ErrorKind::OtherKind);
    assert_eq!(kind_of(root.open_dir(n("f"))), ErrorKind::OtherKind);
    assert_eq!(kind_of(root.open_file(n("l"))), ErrorKind::OtherKind);
    assert_eq!(kind_of(root.open_file(n("d"))), ErrorKind::OtherKind);
    assert_eq!(kind_of(root.open_file(n("fifo"))), ErrorKind::OtherKind);
    assert_eq!(kind_of(root.open_file(n("none"))), ErrorKind::Absent);
    assert_eq!(root.read_link(n("l")).unwrap(), b"d");
    assert_eq!(kind_of(root.read_link(n("f"))), ErrorKind::Unsupported);
    let mut seen = Vec::new();
    root.list_stat(&mut |_, stat| seen.push(stat.unwrap().kind))
        .unwrap();
    assert_eq!(seen, [Kind::Dir, Kind::File, Kind::Special, Kind::Link]);
    assert_eq!(root.stat(n("none")).unwrap(), None);
}

#[test]
fn a_taken_name_is_never_replaced_unasked() {
    let (fs, root) = machine();
    fs.write_file("a", "A", Save::InPlace).unwrap();
    fs.write_file("b", "B", Save::InPlace).unwrap();
    assert_eq!(kind_of(root.create_file(n("a"), 0o644)), ErrorKind::Taken);
    assert_eq!(kind_of(root.make_dir(n("a"), 0o755)), ErrorKind::Taken);
    assert_eq!(kind_of(root.make_link(n("a"), b"t")), ErrorKind::Taken);
    assert_eq!(
        kind_of(root.hard_link(n("a"), &root, n("b"))),
        ErrorKind::Taken
    );
    assert_eq!(
        kind_of(root.rename_noreplace(n("a"), &root, n("b"))),
        ErrorKind::Taken
    );
    assert_eq!(
        kind_of(root.rename_noreplace(n("a"), &root, n("a"))),
        ErrorKind::Taken
    );
    let unnamed = root.create_unnamed(0o600).unwrap();
    assert_eq!(kind_of(root.publish(&unnamed, n("a"))), ErrorKind::Taken);
    assert_eq!(
        (read(&root, "a"), read(&root, "b")),
        (b"A".to_vec(), b"B".to_vec())
    );
    root.rename_over(n("a"), &root, n("b")).unwrap();
    assert_eq!(
        (names(&root), read(&root, "b")),
        (vec!["b".to_owned()], b"A".to_vec())
    );
}

#[test]
fn an_exchange_swaps_a_file_and_a_directory() {
    let (fs, root) = machine();
    fs.mkdir_all("d/e").unwrap();
    fs.write_file("f", "F", Save::InPlace).unwrap();
    root.exchange(n("f"), &root, n("d")).unwrap();
    assert_eq!(fs.read("d").unwrap(), b"F");
    assert!(fs.exists("f/e"));
    assert_eq!(
        kind_of(root.exchange(n("f"), &root, n("none"))),
        ErrorKind::Absent
    );
    let f = root.open_dir(n("f")).unwrap();
    assert_eq!(
        kind_of(root.exchange(n("f"), &f, n("e"))),
        ErrorKind::Unsupported
    );
    assert_eq!(
        kind_of(root.rename_noreplace(n("f"), &f, n("x"))),
        ErrorKind::Unsupported
    );
}

#[test]
fn an_unnamed_file_is_seen_only_once_published() {
    let (fs, root) = machine();
    let file = root.create_unnamed(0o640).unwrap();
    file.write_all_at(0, b"data").unwrap();
    assert!(fs.snapshot().is_empty());
    assert_eq!(file.stat().unwrap().nlink, 0);
    root.publish(&file, n("f")).unwrap();
    let view = &fs.snapshot()[&p("f")];
    assert_eq!(
        (view.content.as_slice(), view.mode, view.nlink),
        (&b"data"[..], 0o640, 1)
    );
    let free = root.free_space().unwrap();
    drop(root.create_unnamed(0o600).unwrap());
    assert_eq!(root.free_space().unwrap(), free);
}

#[test]
fn a_removed_file_lives_as_long_as_it_is_open() {
    let (fs, root) = machine();
    fs.write_file("f", "x", Save::InPlace).unwrap();
    let file = root.open_file(n("f")).unwrap();
    let ino = file.stat().unwrap().ino;
    fs.remove("f").unwrap();
    let mut buf = [0];
    assert_eq!(file.read_at(0, &mut buf).unwrap(), 1);
    fs.write_file("g", "y", Save::InPlace).unwrap();
    assert_ne!(fs.stat("g").unwrap().ino, ino);
    drop(file);
    fs.write_file("h", "z", Save::InPlace).unwrap();
    assert_eq!(
        fs.stat("h").unwrap().ino,
        ino,
        "ext4 takes the number again"
    );
    fs.configure(|c| c.ino_reuse = false);
    fs.remove("h").unwrap();
    fs.write_file("i", "z", Save::InPlace).unwrap();
    assert_ne!(fs.stat("i").unwrap().ino, ino);
}

#[test]
fn directories_are_removed_only_when_empty() {
    let (fs, root) = machine();
    fs.mkdir_all("d/e").unwrap();
    assert_eq!(kind_of(root.remove_dir(n("d"))), ErrorKind::Taken);
    assert_eq!(kind_of(root.remove_file(n("d"))), ErrorKind::OtherKind);
    let d = root.open_dir(n("d")).unwrap();
    d.remove_dir(n("e")).unwrap();
    root.remove_dir(n("d")).unwrap();
    assert_eq!(kind_of(d.create_file(n("f"), 0o644)), ErrorKind::Absent);
    assert!(names(&d).is_empty());
}

#[test]
fn a_full_disk_keeps_what_fitted_and_says_so() {
    let (fs, root) = machine();
    fs.configure(|c| c.capacity_bytes = 8192);
    let file = root.create_file(n("f"), 0o644).unwrap();
    assert_eq!(
        kind_of(file.write_all_at(0, &[1; 10_000])),
        ErrorKind::NoSpace
    );
    assert_eq!(file.stat().unwrap().size, 8192);
    assert_eq!(root.free_space().unwrap().bytes, 0);
    assert_eq!(
        kind_of(fs.write_file("g", "x", Save::InPlace)),
        ErrorKind::NoSpace
    );
    file.write_all_at(0, &[2; 8192]).unwrap();
    drop(file);
    root.remove_file(n("f")).unwrap();
    assert_eq!(root.free_space().unwrap().bytes, 8192);
    fs.configure(|c| c.read_only = true);
    assert_eq!(kind_of(root.make_dir(n("d"), 0o755)), ErrorKind::ReadOnly);
}

#[test]
fn a_poor_file_system_refuses_what_it_cannot_do() {
    let fs = SimFs::new(SimConfig::poor(1));
    let root = fs.root_dir().unwrap();
    fs.write_file("File", "x", Save::InPlace).unwrap();
    fs.write_file("other", "x", Save::InPlace).unwrap();
    assert_eq!(
        kind_of(root.exchange(n("File"), &root, n("other"))),
        ErrorKind::Unsupported
    );
    assert_eq!(
        kind_of(root.rename_noreplace(n("File"), &root, n("z"))),
        ErrorKind::Unsupported
    );
    assert_eq!(kind_of(root.create_unnamed(0o600)), ErrorKind::Unsupported);
    assert_eq!(
        kind_of(root.hard_link(n("File"), &root, n("z"))),
        ErrorKind::Denied
    );
    assert_eq!(
        kind_of(root.open_file(n("file")).unwrap().read_lease()),
        ErrorKind::Unsupported
    );
    assert_eq!(
        kind_of(root.create_file(n("FILE"), 0o644)),
        ErrorKind::Taken
    );
    root.set_mode(n("File"), 0o600).unwrap();
    assert_eq!(fs.stat("File").unwrap().mode, 0o644);
    root.set_mtime(
        n("File"),
        Mtime {
            secs: 1_000_000_001,
            nanos: 5,
        },
    )
    .unwrap();
    assert_eq!(
        fs.stat("File").unwrap().mtime,
        Mtime {
            secs: 1_000_000_000,
            nanos: 0
        }
    );
    fs.rename("File", "FILE").unwrap();
    assert_eq!(names(&root), ["FILE", "other"]);
    let profile = root.profile(None).unwrap();
    assert!(!profile.exchange && !profile.leases && !profile.case_sensitive);
}

#[test]
fn another_machine_is_another_device() {
    let (_, a) = machine();
    let (fs, b) = machine();
    fs.write_file("f", "x", Save::InPlace).unwrap();
    assert_eq!(
        kind_of(b.rename_noreplace(n("f"), &a, n("f"))),
        ErrorKind::OtherDevice
    );
    assert_eq!(
        kind_of(b.exchange(n("f"), &a, n("f"))),
        ErrorKind::OtherDevice
    );
    fs.mkdir_all("m").unwrap();
    fs.mount("m", true).unwrap();
    assert_eq!(kind_of(b.open_dir(n("m"))), ErrorKind::OtherDevice);
    let (m, own) = (b.stat(n("m")).unwrap().unwrap(), b.stat_self().unwrap());
    assert!(m.mount_root && m.dev != own.dev);
}

#[test]
fn clones_and_ranges_carry_the_bytes() {
    let fs = SimFs::new(SimConfig::xfs(1));
    let root = fs.root_dir().unwrap();
    let a = put(&root, "a", &[3; 10_000]);
    let b = root.create_file(n("b"), 0o644).unwrap();
    b.reflink_from(&a).unwrap();
    a.write_all_at(0, b"changed").unwrap();
    assert_eq!(read(&root, "b"), [3; 10_000]);
    let c = root.create_file(n("c"), 0o644).unwrap();
    let mut at = 0;
    while at < 10_000 {
        at += c.copy_range_from(&b, at, 10_000 - at).unwrap();
    }
    assert_eq!(read(&root, "c"), [3; 10_000]);
    assert_eq!(c.copy_range_from(&b, 10_000, 5).unwrap(), 0);
    c.set_len(100_000).unwrap();
    assert_eq!(c.next_data(0).unwrap(), Some((0, 12_288)));
    assert_eq!(c.next_data(12_288).unwrap(), None);
    let reader = root.open_file(n("a")).unwrap();
    assert!(reader.write_all_at(0, b"x").is_err());
}

// --- time

#[test]
fn a_rewrite_after_a_look_always_shows_in_the_time() {
    let (fs, root) = machine();
    fs.write_file("f", "a", Save::InPlace).unwrap();
    let first = root.stat(n("f")).unwrap().unwrap().mtime;
    fs.write_file("f", "b", Save::InPlace).unwrap();
    let second = root.stat(n("f")).unwrap().unwrap().mtime;
    assert!(second > first);
    fs.configure(|c| c.multigrain = false);
    fs.write_file("f", "c", Save::InPlace).unwrap();
    assert_eq!(
        fs.stat("f").unwrap().mtime,
        second,
        "an old kernel hides it within a tick"
    );
    fs.advance(4_000_000);
    fs.write_file("f", "d", Save::InPlace).unwrap();
    assert!(fs.stat("f").unwrap().mtime > second);
}

#[test]
fn set_times_and_modes_stay() {
    let (fs, root) = machine();
    let at = Mtime { secs: -5, nanos: 7 };
    let file = put(&root, "f", b"x");
    file.set_mode(0o4755).unwrap();
    file.set_mtime(at).unwrap();
    let stat = fs.stat("f").unwrap();
    assert_eq!((stat.mode, stat.mtime), (0o4755, at));
    root.make_link(n("l"), b"t").unwrap();
    root.set_mtime(n("l"), at).unwrap();
    assert_eq!(fs.stat("l").unwrap().mtime, at);
    assert_eq!(kind_of(root.set_mode(n("l"), 0o600)), ErrorKind::OtherKind);
}

// --- leases and locks

#[test]
fn a_lease_is_refused_while_a_writer_is_open() {
    let (fs, root) = machine();
    fs.write_file("f", "x", Save::InPlace).unwrap();
    let file = root.open_file(n("f")).unwrap();
    let fd = fs.user_open_write("f").unwrap();
    assert!(file.read_lease().unwrap().is_none());
    fs.user_close(fd).unwrap();
    let map = fs.user_map("f").unwrap();
    assert!(file.read_lease().unwrap().is_none());
    fs.user_close(map).unwrap();
    let lease = file.read_lease().unwrap().unwrap();
    assert!(!lease.broken());
    let own = put(&root, "g", b"y");
    assert!(own.read_lease().unwrap().is_none(), "our own writer counts");
}

#[test]
fn a_lease_knows_that_somebody_wrote() {
    let (fs, root) = machine();
    fs.write_file("f", "x", Save::InPlace).unwrap();
    let file = root.open_file(n("f")).unwrap();
    let lease = file.read_lease().unwrap().unwrap();
    fs.write_file("f", "y", Save::ByRename).unwrap();
    assert!(!lease.broken(), "another inode took the name");
    fs.write_file("f", "z", Save::InPlace).unwrap();
    assert!(!lease.broken());
    drop(lease);
    let file = root.open_file(n("f")).unwrap();
    let lease = file.read_lease().unwrap().unwrap();
    fs.append("f", "!").unwrap();
    assert!(lease.broken());
    assert_eq!(fs.read("f").unwrap(), b"z!");
}

#[test]
fn a_save_that_waits_for_the_lease_hits_the_displaced_file() {
    let (fs, root) = machine();
    fs.configure(|c| c.leases_block = true);
    fs.write_file("f", "old", Save::InPlace).unwrap();
    fs.write_file("staged", "new", Save::InPlace).unwrap();
    let file = root.open_file(n("f")).unwrap();
    let lease = file.read_lease().unwrap().unwrap();
    fs.write_file("f", "late", Save::InPlace).unwrap();
    assert_eq!(kind_of(fs.user_open_write("f")), ErrorKind::Busy);
    assert_eq!(fs.read("f").unwrap(), b"old");
    root.exchange(n("staged"), &root, n("f")).unwrap();
    drop(lease);
    assert_eq!(
        (fs.read("f").unwrap(), fs.read("staged").unwrap()),
        (b"new".to_vec(), b"late".to_vec())
    );
}

#[test]
fn a_lock_has_one_holder() {
    let (fs, root) = machine();
    let lock = root.try_lock(n("lock")).unwrap().unwrap();
    lock.write_text("pid 1").unwrap();
    assert_eq!(lock.read_text().unwrap(), "pid 1");
    assert!(root.try_lock(n("lock")).unwrap().is_none());
    assert!(!fs.user_lock("lock").unwrap());
    drop(lock);
    assert!(fs.user_lock("lock").unwrap());
    assert!(root.try_lock(n("lock")).unwrap().is_none());
    fs.kill();
    let root = fs.root_dir().unwrap();
    assert!(
        root.try_lock(n("lock")).unwrap().is_none(),
        "the other process lives on"
    );
    fs.user_unlock("lock").unwrap();
    assert!(root.try_lock(n("lock")).unwrap().is_some());
}

// --- crashes

#[test]
fn synced_data_and_names_survive_every_crash() {
    for cfg in all_models() {
        let model = cfg.crash_model;
        let fs = SimFs::new(cfg);
        let root = fs.root_dir().unwrap();
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
        let root = fs.root_dir().unwrap();
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
        let root = fs.root_dir().unwrap();
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
    let root = fs.root_dir().unwrap();
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
        let root = fs.root_dir().unwrap();
        for name in ["a", "b", "c"] {
            root.make_dir(n(name), 0o755).unwrap();
        }
        let seen: BTreeSet<Vec<String>> = (0..200)
            .map(|seed| names(&fs.image(seed).root_dir().unwrap()))
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
        .map(|seed| names(&fs.image(seed).root_dir().unwrap()))
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
    assert_eq!(kind_of(fs.root_dir()), ErrorKind::Crashed);
    assert!(fs.has_crashed() && !after.has_crashed());
    after.root_dir().unwrap().sync_fs().unwrap();
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
    let root = fs.root_dir().unwrap();
    assert!(root.try_lock(n("lock")).unwrap().is_some());
    assert_eq!(read(&root, "f"), b"cached, not durable");
}

// --- hook, faults, counts

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
            let again = fs.root_dir().unwrap();
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
        let root = fs.root_dir().unwrap();
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
        (fs.snapshot(), fs.crash(seed).snapshot())
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3).1, run(4).1);
}

// --- events

fn hints(w: &SimWatcher) -> Vec<String> {
    let show = |h: Hint| match h {
        Hint::Path { path, what } => {
            let flags = [
                ("created", what.created),
                ("modified", what.modified),
                ("closed", what.closed),
                ("from", what.moved_from.is_some()),
                ("to", what.moved_to.is_some()),
                ("deleted", what.deleted),
                ("attrib", what.attrib),
            ];
            let set: Vec<_> = flags
                .iter()
                .filter(|(_, on)| *on)
                .map(|(name, _)| *name)
                .collect();
            format!("{path} {}", set.join("+"))
        }
        Hint::Overflow => "overflow".to_owned(),
        Hint::RootGone => "root gone".to_owned(),
    };
    w.wait(None).unwrap().into_iter().map(show).collect()
}

fn watched() -> (SimFs, SimDir, SimWatcher) {
    let (fs, root) = machine();
    let watcher = fs.new_watcher();
    watcher.add(&root, &RelPath::root()).unwrap();
    (fs, root, watcher)
}

#[test]
fn saves_are_heard_as_programs_make_them() {
    let (fs, root, w) = watched();
    fs.write_file("f", "x", Save::InPlace).unwrap();
    assert_eq!(hints(&w), ["f created+modified+closed"]);
    fs.write_file("f", "y", Save::ByRename).unwrap();
    assert_eq!(
        hints(&w),
        ["f.new~ created+modified+closed", "f.new~ from", "f to"]
    );
    fs.chmod("f", 0o600).unwrap();
    fs.remove("f").unwrap();
    assert_eq!(hints(&w), ["f deleted+attrib"]);
    let file = root.create_unnamed(0o600).unwrap();
    file.write_all_at(0, b"x").unwrap();
    assert!(hints(&w).is_empty(), "an unnamed file is silent");
    root.publish(&file, n("u")).unwrap();
    assert_eq!(hints(&w), ["u created"]);
}

#[test]
fn an_exchange_is_four_moves_with_two_cookies() {
    let (fs, root, w) = watched();
    fs.write_file("a", "x", Save::InPlace).unwrap();
    fs.write_file("b", "x", Save::InPlace).unwrap();
    hints(&w);
    root.exchange(n("a"), &root, n("b")).unwrap();
    let moves = w.wait(None).unwrap();
    let cookies: Vec<_> = moves
        .iter()
        .map(|h| match h {
            Hint::Path { what, .. } => what.moved_from.or(what.moved_to).unwrap(),
            _ => panic!("{h:?}"),
        })
        .collect();
    assert_eq!(cookies.len(), 4);
    assert!(cookies[0] == cookies[1] && cookies[2] == cookies[3] && cookies[0] != cookies[2]);
}

#[test]
fn stores_to_a_mapping_are_silent_until_it_ends() {
    let (fs, root, w) = watched();
    fs.write_file("f", "0000", Save::InPlace).unwrap();
    let map = fs.user_map("f").unwrap();
    hints(&w);
    let before = root.stat(n("f")).unwrap().unwrap().mtime;
    fs.user_write(&map, 0, "1").unwrap();
    let first = root.stat(n("f")).unwrap().unwrap().mtime;
    fs.user_write(&map, 1, "2").unwrap();
    let second = root.stat(n("f")).unwrap().unwrap().mtime;
    assert!(first > before && second == first);
    assert!(hints(&w).is_empty());
    fs.user_close(map).unwrap();
    assert_eq!(hints(&w), ["f closed"]);
    assert_eq!(fs.read("f").unwrap(), b"1200");
}

#[test]
fn watches_follow_a_directory_that_moves_and_end_when_it_leaves() {
    let (fs, root, w) = watched();
    fs.mkdir_all("d/e").unwrap();
    fs.mkdir_all("out").unwrap();
    let d = root.open_dir(n("d")).unwrap();
    w.add(&d, &p("d")).unwrap();
    w.add(&d.open_dir(n("e")).unwrap(), &p("d/e")).unwrap();
    hints(&w);
    fs.rename("d", "x").unwrap();
    fs.write_file("x/e/f", "", Save::InPlace).unwrap();
    assert_eq!(
        hints(&w),
        ["d from", "x to", "x/e/f created+modified+closed"]
    );
    fs.rename("x", "out/x").unwrap();
    fs.write_file("out/x/f", "", Save::InPlace).unwrap();
    assert_eq!(hints(&w), ["x from"]);
    assert_eq!(w.limits().0, 1);
    w.remove_tree(&RelPath::root()).unwrap();
    assert_eq!(w.limits().0, 0);
}

#[test]
fn exchanged_directories_swap_their_watches() {
    let (fs, root, w) = watched();
    for name in ["a", "b"] {
        fs.mkdir_all(name).unwrap();
        w.add(&root.open_dir(n(name)).unwrap(), &p(name)).unwrap();
    }
    hints(&w);
    fs.swap("a", "b").unwrap();
    fs.write_file("a/f", "", Save::InPlace).unwrap();
    fs.write_file("b/g", "", Save::InPlace).unwrap();
    let seen = hints(&w);
    assert_eq!(
        seen[4..],
        ["a/f created+modified+closed", "b/g created+modified+closed"]
    );
}

#[test]
fn a_full_queue_says_once_that_events_are_missing() {
    let (fs, _root, w) = watched();
    fs.configure(|c| c.event_queue = 3);
    for name in ["a", "b", "c", "d"] {
        fs.write_file(name, "", Save::InPlace).unwrap();
    }
    let seen = hints(&w);
    assert_eq!(seen.iter().filter(|h| *h == "overflow").count(), 1);
    fs.write_file("e", "", Save::InPlace).unwrap();
    assert_eq!(hints(&w), ["e created+modified+closed"]);
}

#[test]
fn late_events_arrive_in_order_and_lost_ones_never() {
    let (fs, _root, w) = watched();
    fs.configure(|c| c.event_delay_ns = 1_000_000);
    let all: Vec<String> = (10..40).map(|i| format!("f{i}")).collect();
    for name in &all {
        fs.mkdir_all(name).unwrap();
    }
    let mut seen = hints(&w);
    assert!(seen.len() < 30);
    fs.advance(1_000_000);
    seen.extend(hints(&w));
    assert_eq!(
        seen,
        all.iter()
            .map(|n| format!("{n} created"))
            .collect::<Vec<_>>()
    );
    fs.configure(|c| c.event_loss_per_mille = 1000);
    fs.write_file("g", "", Save::InPlace).unwrap();
    fs.advance(1_000_000);
    assert!(hints(&w).is_empty());
}

#[test]
fn a_root_that_goes_away_is_told() {
    let (fs, _) = machine();
    fs.mkdir_all("r").unwrap();
    let root = fs.dir_at("r").unwrap();
    let w = fs.new_watcher();
    w.add(&root, &RelPath::root()).unwrap();
    fs.rename("r", "elsewhere").unwrap();
    assert_eq!(hints(&w), ["root gone"]);
    fs.configure(|c| c.max_watches = 1);
    let d = fs.root_dir().unwrap();
    assert_eq!(kind_of(w.add(&d, &p("x"))), ErrorKind::NoSpace);
}

#[test]
fn handles_cross_threads() {
    fn check<T: Send + Sync>() {}
    check::<SimFs>();
    check::<SimDir>();
    check::<SimFile>();
    check::<SimWatcher>();
    check::<SimLease>();
    check::<SimLockFile>();
}
