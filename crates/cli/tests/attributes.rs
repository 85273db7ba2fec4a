//! `--owner` and `--xattr` of the program, on the file system of temporary files.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::time::{Duration, SystemTime};

use instep_core::attributes::Xattrs;
use instep_core::path::Name;
use instep_fs::{File, place};
use instep_testkit::cli::Cli;
use support::{has, live, program, put, stop, until};

fn open(cli: &Cli, dir: &str, name: &str) -> File {
    let root = place::open_root(&cli.home().join(dir)).unwrap();
    root.open_file(Name::new(name.as_bytes()).unwrap()).unwrap()
}

fn tag(cli: &Cli, dir: &str, name: &str, value: Option<&[u8]>) {
    open(cli, dir, name).set_xattr(b"user.tag", value).unwrap();
}

/// The attributes of what [`tag`] was called for, or of what has none.
fn tags(all: &[&[u8]]) -> Option<Xattrs> {
    let all = all
        .iter()
        .map(|v| (b"user.tag".as_slice().into(), (*v).into()));
    Xattrs::new(all.collect())
}

fn owner(cli: &Cli, path: &str) -> (u32, u32) {
    let seen = fs::symlink_metadata(cli.home().join(path)).unwrap();
    (seen.uid(), seen.gid())
}

/// Owner and group that a file can be given here: any for root, else only what it has.
fn another(cli: &Cli) -> (u32, u32) {
    match owner(cli, "a") {
        (0, _) => (4321, 4322),
        own => own,
    }
}

#[test]
fn the_options_for_metadata_do_nothing() {
    let cli = program();
    put(&cli, "a/f", "text");
    put(&cli, "a/d/g", "text");
    let (uid, gid) = another(&cli);
    for path in ["a/f", "a/d", "a/d/g"] {
        chown(cli.home().join(path), Some(uid), Some(gid)).unwrap();
    }
    tag(&cli, "a", "f", Some(b"one"));
    let sync = ["sync", "--once", "--owner", "--xattr", "a", "b"];
    cli.run(&sync).expect(0);
    for path in ["b/f", "b/d", "b/d/g"] {
        assert_eq!(owner(&cli, path), (uid, gid), "{path}");
    }
    assert_eq!(open(&cli, "b", "f").xattrs().unwrap(), tags(&[b"one"]));
    tag(&cli, "b", "f", Some(b"two"));
    let preview = cli.run(&["sync", "-n", "--owner", "--xattr", "a", "b"]);
    assert!(preview.stdout.contains("owner or attributes"), "{preview}");
    assert_eq!(open(&cli, "a", "f").xattrs().unwrap(), tags(&[b"one"]));
    cli.run(&sync).expect(0);
    assert_eq!(open(&cli, "a", "f").xattrs().unwrap(), tags(&[b"two"]));
    let again = cli.run(&sync).expect(0);
    assert!(
        !again.stdout.contains("owner"),
        "it never comes to rest\n{again}"
    );
}

#[test]
fn metadata_travels_although_nobody_asked_for_it() {
    let cli = program();
    put(&cli, "a/f", "text");
    let own = owner(&cli, "a");
    let (uid, gid) = another(&cli);
    chown(cli.home().join("a/f"), Some(uid), Some(gid)).unwrap();
    tag(&cli, "a", "f", Some(b"one"));
    cli.run(&["sync", "--once", "a", "b"]).expect(0);
    assert_eq!(owner(&cli, "b/f"), own);
    assert_eq!(open(&cli, "b", "f").xattrs().unwrap(), tags(&[]));
    tag(&cli, "a", "f", Some(b"two"));
    put(&cli, "b/f", "edited");
    cli.run(&["sync", "--once", "a", "b"]).expect(0);
    assert!(has(&cli, "a/f", "edited"));
    // Asked for at last: what is there counts, without another change.
    put(&cli, "a/g", "text");
    tag(&cli, "a", "g", Some(b"three"));
    cli.run(&["sync", "--once", "a", "b"]).expect(0);
    cli.run(&["sync", "--once", "--xattr", "a", "b"]).expect(0);
    assert_eq!(open(&cli, "a", "g").xattrs().unwrap(), tags(&[b"three"]));
    assert_eq!(open(&cli, "b", "g").xattrs().unwrap(), tags(&[b"three"]));
}

#[test]
fn a_live_session_misses_an_attribute() {
    let cli = program();
    put(&cli, "a/f", "text");
    let session = live(&cli, &["sync", "--owner", "--xattr", "a", "b"]);
    until("b/f is there", || has(&cli, "b/f", "text"));
    tag(&cli, "a", "f", Some(b"one"));
    until("the attribute is there", || {
        open(&cli, "b", "f").xattrs().unwrap() == tags(&[b"one"])
    });
    fs::create_dir(cli.home().join("a/d")).unwrap();
    until("b/d is there", || cli.home().join("b/d").is_dir());
    let (uid, gid) = another(&cli);
    chown(cli.home().join("a/d"), Some(uid), Some(gid)).unwrap();
    until("the owner is there", || owner(&cli, "b/d") == (uid, gid));
    let a = place::open_root(&cli.home().join("a/d")).unwrap();
    let b = place::open_root(&cli.home().join("b/d")).unwrap();
    a.set_xattr_self(b"user.tag", Some(b"dir")).unwrap();
    until("the directory's attribute is there", || {
        b.xattrs_self().unwrap() == tags(&[b"dir"])
    });
    stop(session);
}

#[test]
fn a_read_only_file_arrives_without_its_attributes() {
    let cli = program();
    put(&cli, "a/f", "text");
    tag(&cli, "a", "f", Some(b"one"));
    fs::set_permissions(cli.home().join("a/f"), fs::Permissions::from_mode(0o444)).unwrap();
    cli.run(&["sync", "--once", "--xattr", "a", "b"]).expect(0);
    assert_eq!(open(&cli, "b", "f").xattrs().unwrap(), tags(&[b"one"]));
    let mode = fs::metadata(cli.home().join("b/f")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o444);
}

#[test]
fn a_mirror_keeps_an_owner_that_its_source_does_not_have() {
    let cli = program();
    put(&cli, "a/f", "text");
    let mirror = ["mirror", "--once", "--owner", "--xattr", "a", "b"];
    cli.run(&mirror).expect(0);
    let (uid, gid) = another(&cli);
    chown(cli.home().join("b/f"), Some(uid), Some(gid)).unwrap();
    tag(&cli, "b", "f", Some(b"one"));
    cli.run(&mirror).expect(0);
    assert_eq!(owner(&cli, "b/f"), owner(&cli, "a/f"));
    assert_eq!(open(&cli, "b", "f").xattrs().unwrap(), tags(&[]));
    assert_eq!(open(&cli, "a", "f").xattrs().unwrap(), tags(&[]));
}

#[test]
fn choosing_the_other_content_loses_the_attributes() {
    let cli = program();
    put(&cli, "a/f", "text");
    tag(&cli, "a", "f", Some(b"one"));
    let sync = ["sync", "--once", "--xattr", "A=a", "B=b"];
    cli.run(&sync).expect(0);
    put(&cli, "a/f", "of a");
    let file = fs::File::options()
        .write(true)
        .open(cli.home().join("a/f"))
        .unwrap();
    file.set_modified(SystemTime::now() - Duration::from_mins(1))
        .unwrap();
    drop(file);
    put(&cli, "b/f", "of b, newer");
    cli.run(&sync).expect(4);
    assert!(has(&cli, "a/f", "of b, newer"));
    cli.run(&["conflicts", "resolve", "--all", "--keep", "A", "a"])
        .expect(0);
    cli.run(&sync).expect(0);
    for dir in ["a", "b"] {
        assert!(has(&cli, &format!("{dir}/f"), "of a"), "{dir}");
        assert_eq!(
            open(&cli, dir, "f").xattrs().unwrap(),
            tags(&[b"one"]),
            "{dir}"
        );
    }
}
