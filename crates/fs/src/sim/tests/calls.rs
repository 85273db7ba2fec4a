//! System calls, their errors, and the times they leave.

#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use super::*;

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
    assert_eq!(
        kind_of(d.list(&mut |_, _| ())),
        ErrorKind::Absent,
        "not an empty listing"
    );
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
    let root = fs.sim_root();
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
    let root = fs.sim_root();
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

#[test]
fn emptying_an_empty_file_is_a_change_all_the_same() {
    let (fs, root) = machine();
    fs.write_file("f", "", Save::InPlace).unwrap();
    let before = root.stat(n("f")).unwrap().unwrap();
    fs.write_file("f", "", Save::InPlace).unwrap();
    let after = root.stat(n("f")).unwrap().unwrap();
    assert!(after.mtime > before.mtime && after.ino == before.ino);
}
