//! What a watcher hears.

#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use super::*;

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
fn a_store_after_one_that_failed_moves_no_time() {
    let (fs, root, _) = watched();
    fs.write_file("f", "0000", Save::InPlace).unwrap();
    let map = fs.user_map("f").unwrap();
    let before = root.stat(n("f")).unwrap().unwrap().mtime;
    fs.configure(|config| config.read_only = true);
    fs.user_write(&map, 0, "1").unwrap_err();
    fs.configure(|config| config.read_only = false);
    fs.user_write(&map, 1, "2").unwrap();
    assert_eq!(fs.read("f").unwrap(), b"0200");
    assert!(root.stat(n("f")).unwrap().unwrap().mtime > before);
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
    assert_eq!(hints(&w), ["x from"]);
    fs.write_file("out/x/f", "", Save::InPlace).unwrap();
    assert_eq!(hints(&w), Vec::<String>::new());
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
    let root = fs.sim_dir_at(b"r").unwrap();
    let w = fs.new_watcher();
    w.add(&root, &RelPath::root()).unwrap();
    fs.rename("r", "elsewhere").unwrap();
    assert_eq!(hints(&w), ["root gone"]);
    fs.configure(|c| c.max_watches = 1);
    let d = fs.sim_root();
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

#[test]
fn the_engine_uses_it_like_any_other_file_system() {
    let (fs, _root) = machine();
    let (root, watcher) = (fs.root(), fs.watcher());
    watcher.add(&root, &RelPath::root()).unwrap();
    let file = root.create_unnamed(0o600).unwrap();
    file.write_all_at(0, b"new").unwrap();
    file.sync_data().unwrap();
    root.publish(&file, n("staged")).unwrap();
    fs.write_file("f", "old", Save::InPlace).unwrap();
    let lease = root
        .open_file(n("f"))
        .unwrap()
        .read_lease()
        .unwrap()
        .unwrap();
    root.exchange(n("staged"), &root, n("f")).unwrap();
    assert!(!lease.broken());
    root.sync().unwrap();
    assert!(root.try_lock(n("lock")).unwrap().is_some());
    assert_eq!(fs.crash(9).read("f").unwrap(), b"new");
    assert_eq!(kind_of(watcher.wait(None)), ErrorKind::Crashed);
}
