//! Leases and locks.

#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use super::*;

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
fn an_error_that_tells_of_a_writer_is_taken_for_another() {
    let (fs, root) = machine();
    fs.write_file("f", "x", Save::InPlace).unwrap();
    let file = root.open_file(n("f")).unwrap();
    fs.fail_next("read_lease", 1, Errno::AGAIN.raw_os_error());
    assert!(file.read_lease().unwrap().is_none());
    assert!(file.read_lease().unwrap().is_some());
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
    let root = fs.sim_root();
    assert!(
        root.try_lock(n("lock")).unwrap().is_none(),
        "the other process lives on"
    );
    fs.user_unlock("lock").unwrap();
    assert!(root.try_lock(n("lock")).unwrap().is_some());
}
