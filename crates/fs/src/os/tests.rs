//! Every call on real directories: the one for temporary files, and tmpfs.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use instep_core::attributes::Xattrs;
use instep_core::path::Name;
use instep_core::time::Mtime;

use crate::dir::{DirImpl, FileImpl};
use crate::{Dir, ErrorKind, Kind, Party};

fn n(name: &(impl AsRef<[u8]> + ?Sized)) -> Name<'_> {
    Name::new(name.as_ref()).unwrap()
}

fn kind<T: std::fmt::Debug>(result: crate::Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

/// Runs on the file system of temporary files and on tmpfs.
fn everywhere(test: impl Fn(&Dir, &std::path::Path)) {
    crate::place::ignore_lease_signals();
    for place in [std::env::temp_dir(), "/dev/shm".into()] {
        let temp = tempfile::tempdir_in(place).unwrap();
        test(&crate::place::open_root(temp.path()).unwrap(), temp.path());
    }
}

fn put(dir: &Dir, name: &str, data: &[u8]) {
    dir.create_file(n(name), 0o600)
        .unwrap()
        .write_all_at(0, data)
        .unwrap();
}

fn content(dir: &Dir, name: &str) -> Vec<u8> {
    let mut buf = [0; 64];
    let got = dir
        .open_file(n(name))
        .unwrap()
        .read_at(0, &mut buf)
        .unwrap();
    buf[..got].to_vec()
}

#[test]
fn a_link_is_never_followed() {
    everywhere(|dir, path| {
        dir.make_dir(n("d"), 0o700).unwrap();
        put(dir, "f", b"x");
        dir.make_link(n("to-d"), b"d").unwrap();
        dir.make_link(n("to-f"), b"f").unwrap();
        assert_eq!(kind(dir.open_dir(n("to-d"))), ErrorKind::OtherKind);
        assert_eq!(kind(dir.open_dir(n("f"))), ErrorKind::OtherKind);
        assert_eq!(kind(dir.open_file(n("to-f"))), ErrorKind::OtherKind);
        assert_eq!(kind(dir.open_file(n("d"))), ErrorKind::OtherKind);
        assert_eq!(kind(dir.set_mode(n("to-f"), 0o777)), ErrorKind::OtherKind);
        assert_eq!(kind(dir.read_link(n("f"))), ErrorKind::OtherKind);
        assert_eq!(kind(dir.create_file(n("to-f"), 0o600)), ErrorKind::Taken);
        assert_eq!(dir.read_link(n("to-f")).unwrap(), b"f");
        let time = Mtime { secs: -5, nanos: 7 };
        dir.set_mtime(n("to-f"), time).unwrap();
        assert_eq!(dir.stat(n("to-f")).unwrap().unwrap().mtime, time);
        let file = dir.stat(n("f")).unwrap().unwrap();
        assert_ne!(file.mtime, time);
        assert_eq!((file.kind, file.mode, file.size), (Kind::File, 0o600, 1));
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path.join("fifo"),
            rustix::fs::FileType::Fifo,
            0o600.into(),
            0,
        )
        .unwrap();
        assert_eq!(kind(dir.open_file(n("fifo"))), ErrorKind::OtherKind);
        assert_eq!(dir.stat(n("none")).unwrap(), None);
        assert_eq!(kind(dir.open_dir(n("none"))), ErrorKind::Absent);
    });
}

#[test]
fn ten_thousand_names_of_any_bytes_are_all_listed() {
    everywhere(|dir, _| {
        let mut want = vec![vec![0xff; 255], b"a\n\x1b".to_vec()];
        want.extend((0..10_000).map(|i| format!("{i}").into_bytes()));
        for name in &want {
            dir.create_file(n(name), 0o600).unwrap();
        }
        want.sort();
        for _ in 0..2 {
            let (mut got, mut stats) = (Vec::new(), Vec::new());
            dir.list(&mut |name, kind| {
                assert_ne!(kind, Some(Kind::Dir));
                got.push(name.to_vec());
            })
            .unwrap();
            let mut inner = 0;
            dir.list_stat(&mut |name, stat| {
                assert_eq!(stat.unwrap().kind, Kind::File);
                if stats.is_empty() {
                    dir.list(&mut |_, _| inner += 1).unwrap();
                }
                stats.push(name.to_vec());
            })
            .unwrap();
            got.sort();
            stats.sort();
            assert!(got == want && stats == want && inner == want.len());
        }
    });
}

#[test]
fn a_tree_deeper_than_any_path_is_built_and_walked() {
    everywhere(|dir, _| {
        let name = [b'd'; 200];
        let mut stack = vec![dir.clone()];
        for _ in 0..100 {
            let top = stack.last().unwrap();
            top.make_dir(n(&name), 0o700).unwrap();
            let next = top.open_dir(n(&name)).unwrap();
            stack.push(next);
        }
        stack.pop();
        while let Some(dir) = stack.pop() {
            dir.remove_dir(n(&name)).unwrap();
        }
    });
}

#[test]
fn publishing_and_renaming_never_replace_a_name() {
    everywhere(|dir, _| {
        let file = dir.create_unnamed(0o600).unwrap();
        file.write_all_at(0, b"new").unwrap();
        put(dir, "old", b"old");
        assert_eq!(kind(dir.publish(&file, n("old"))), ErrorKind::Taken);
        dir.publish(&file, n("new")).unwrap();
        assert_eq!(
            kind(dir.rename_noreplace(n("new"), dir, n("old"))),
            ErrorKind::Taken
        );
        assert_eq!(
            kind(dir.hard_link(n("new"), dir, n("old"))),
            ErrorKind::Taken
        );
        assert_eq!(
            (content(dir, "old"), content(dir, "new")),
            (b"old".to_vec(), b"new".to_vec())
        );
        dir.make_dir(n("d"), 0o700).unwrap();
        dir.exchange(n("d"), dir, n("old")).unwrap();
        assert_eq!(dir.stat(n("old")).unwrap().unwrap().kind, Kind::Dir);
        assert_eq!(content(dir, "d"), b"old");
        dir.rename_over(n("new"), dir, n("d")).unwrap();
        assert_eq!(content(dir, "d"), b"new");
        dir.sync().unwrap();
    });
}

#[test]
fn a_lease_is_refused_while_somebody_can_write() {
    everywhere(|dir, path| {
        put(dir, "f", b"x");
        let file = dir.open_file(n("f")).unwrap();
        let writer = std::fs::OpenOptions::new()
            .write(true)
            .open(path.join("f"))
            .unwrap();
        assert!(file.read_lease().unwrap().is_none());
        drop(writer);
        let lease = file.read_lease().unwrap().unwrap();
        assert!(!lease.broken());
        let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
        let open = || rustix::fs::open(path.join("f"), flags, 0.into());
        assert_eq!(open().unwrap_err(), rustix::io::Errno::AGAIN);
        assert!(lease.broken());
        drop(lease);
        open().unwrap();
    });
}

#[test]
fn holes_are_skipped_and_a_lock_excludes_a_second_holder() {
    everywhere(|dir, _| {
        let file = dir.create_file(n("f"), 0o600).unwrap();
        file.set_len(1 << 20).unwrap();
        assert_eq!(file.next_data(0).unwrap(), None);
        file.write_all_at(512 << 10, b"x").unwrap();
        let (start, end) = file.next_data(0).unwrap().unwrap();
        assert!(start > 0 && start <= 512 << 10 && end > 512 << 10 && end < 1 << 20);
        assert_eq!(file.next_data(end).unwrap(), None);
        file.start_writeback(0, 1 << 20).unwrap();
        file.sync_data().unwrap();

        let lock = dir.try_lock(n("lock")).unwrap().unwrap();
        lock.write_text("me").unwrap();
        assert!(dir.try_lock(n("lock")).unwrap().is_none());
        assert_eq!(lock.read_text().unwrap(), "me");
        drop(lock);
        assert!(dir.try_lock(n("lock")).unwrap().is_some());
    });
}

#[test]
fn probing_tells_the_truth_and_leaves_nothing_behind() {
    everywhere(|dir, _| {
        let tried = dir.profile(Some(dir)).unwrap();
        assert!(tried.exchange && tried.unnamed_files && tried.leases && tried.case_sensitive);
        assert!(tried.modes && tried.xattrs && !tried.read_only);
        assert_eq!(tried.mtime_granularity_ns, 1);
        let untried = dir.profile(None).unwrap();
        assert_eq!(untried.fs_type, tried.fs_type);
        // What was not tried is taken for an older kernel's.
        assert!(untried.tick_ns >= 2_000_000 && [0, untried.tick_ns].contains(&tried.tick_ns));
        let mut left = 0;
        dir.list(&mut |_, _| left += 1).unwrap();
        assert_eq!(left, 0);
        assert!(dir.free_space().unwrap().bytes > 0);
    });
}

fn one(name: &str, value: &[u8]) -> Xattrs {
    let all = std::collections::BTreeMap::from([(name.as_bytes().into(), value.into())]);
    Xattrs::new(all).unwrap()
}

#[test]
fn attributes_of_users_come_and_go_and_others_are_out_of_reach() {
    everywhere(|dir, _| {
        put(dir, "f", b"x");
        dir.make_dir(n("d"), 0o700).unwrap();
        let (file, sub) = (
            dir.open_file(n("f")).unwrap(),
            dir.open_dir(n("d")).unwrap(),
        );
        assert_eq!(file.xattrs().unwrap(), Some(Xattrs::default()));
        let long = vec![b'v'; 2000];
        file.set_xattr(b"user.a", Some(&long)).unwrap();
        assert_eq!(file.xattrs().unwrap(), Some(one("user.a", &long)));
        let guard = file.set_xattr(b"trusted.a", Some(b"1"));
        assert_eq!(kind(guard), ErrorKind::Denied);
        file.set_xattr(b"user.a", None).unwrap();
        file.set_xattr(b"user.a", None).unwrap();
        assert_eq!(file.xattrs().unwrap(), Some(Xattrs::default()));
        sub.set_xattr_self(b"user.b", Some(b"2")).unwrap();
        assert_eq!(sub.xattrs_self().unwrap(), Some(one("user.b", b"2")));
    });
}

#[test]
fn an_owner_is_set_on_a_link_itself_or_refused() {
    everywhere(|dir, _| {
        put(dir, "f", b"x");
        dir.make_link(n("l"), b"f").unwrap();
        let before = dir.stat(n("f")).unwrap().unwrap();
        let given = dir.set_owner(n("l"), Some(4321), None);
        let (file, link) = (dir.stat(n("f")).unwrap(), dir.stat(n("l")).unwrap());
        assert_eq!(file, Some(before), "the link was followed");
        if dir.acting_user() == 0 {
            given.unwrap();
            assert_eq!(link.unwrap().uid, 4321);
        } else {
            assert_eq!(kind(given), ErrorKind::Denied);
        }
    });
}

#[test]
fn accounts_are_known_by_name_and_number() {
    everywhere(|dir, _| {
        for party in [Party::User, Party::Group] {
            assert_eq!(dir.account_name(party, 0), Some(b"root".to_vec()));
            assert_eq!(dir.account_id(party, b"root"), Some(0));
            assert_eq!(dir.account_id(party, b"nobody-has-this-name"), None);
            assert_eq!(dir.account_name(party, 3_999_999_999), None);
        }
    });
}

#[test]
fn a_mapping_that_can_be_written_goes_unnoticed() {
    everywhere(|dir, path| {
        put(dir, "f", &[b'x'; 4096]);
        let file = dir.open_file(n("f")).unwrap();
        let writer = std::fs::File::options()
            .read(true)
            .write(true)
            .open(path.join("f"))
            .unwrap();
        #[expect(unsafe_code, reason = "the standard library maps no files")]
        // SAFETY: a new mapping at a place that the kernel chooses, of a file that is open.
        let map = unsafe {
            use std::os::fd::AsRawFd as _;
            let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                prot,
                flags,
                writer.as_raw_fd(),
                0,
            )
        };
        assert_ne!(map, libc::MAP_FAILED);
        drop(writer);
        assert!(
            file.read_lease().unwrap().is_none(),
            "only the mapping is left"
        );
        #[expect(unsafe_code, reason = "the standard library maps no files")]
        // SAFETY: exactly what was mapped above, and nothing refers to it.
        let done = unsafe { libc::munmap(map, 4096) };
        assert_eq!(done, 0);
        assert!(file.read_lease().unwrap().is_some());
    });
}

/// The part of the next test that runs in a process of its own.
#[test]
fn holding_a_lock_for_another_process() {
    let Some(place) = std::env::var_os("HOLD_A_LOCK_IN") else {
        return;
    };
    let dir = crate::place::open_root(std::path::Path::new(&place)).unwrap();
    let lock = dir.try_lock(n("lock")).unwrap().unwrap();
    lock.write_text("held").unwrap();
    let mut until_closed = String::new();
    std::io::Read::read_to_string(&mut std::io::stdin(), &mut until_closed).unwrap();
}

#[test]
fn a_lock_of_another_process_is_ignored() {
    let temp = tempfile::tempdir().unwrap();
    let dir = crate::place::open_root(temp.path()).unwrap();
    let mut holder = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "os::tests::holding_a_lock_for_another_process"])
        .env("HOLD_A_LOCK_IN", temp.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let says = || std::fs::read_to_string(temp.path().join("lock")).unwrap_or_default();
    for _ in 0..3000 {
        if says() == "held" {
            break;
        }
        assert!(holder.try_wait().unwrap().is_none(), "it ended early");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(says(), "held");
    assert!(dir.try_lock(n("lock")).unwrap().is_none());
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(
        dir.try_lock(n("lock")).unwrap().is_some(),
        "it died with its process"
    );
}

/// How a file is published where the kernel refuses the short way to the unprivileged.
#[test]
fn a_file_published_by_its_number_replaces_a_name() {
    everywhere(|dir, _| {
        let file = dir.create_unnamed(0o640).unwrap();
        file.write_all_at(0, b"new").unwrap();
        let publish = |name: &'static str| match (&dir.0, &file.0) {
            (DirImpl::Os(at), FileImpl::Os(unnamed)) => at.publish_by_proc(unnamed, n(name)),
            #[cfg(feature = "sim")]
            _ => unreachable!("a real directory holds real files"),
        };
        publish("f").unwrap();
        assert_eq!(content(dir, "f"), b"new");
        assert_eq!(dir.stat(n("f")).unwrap().unwrap().mode, 0o640);
        put(dir, "taken", b"old");
        assert_eq!(publish("taken").unwrap_err(), rustix::io::Errno::EXIST);
        assert_eq!(content(dir, "taken"), b"old");
    });
}

#[test]
fn a_copy_inside_the_kernel_differs_from_its_source() {
    everywhere(|dir, _| {
        let bytes: Vec<u8> = (0..300_000_u32).map(|i| (i / 3) as u8).collect();
        let source = dir.create_file(n("source"), 0o600).unwrap();
        source.write_all_at(0, &bytes).unwrap();
        let copy = dir.create_file(n("copy"), 0o600).unwrap();
        let (mut at, len) = (0, bytes.len() as u64);
        while at < len {
            let copied = copy.copy_range_from(&source, at, len - at).unwrap();
            assert!(copied > 0);
            at += copied;
        }
        assert_eq!(
            copy.copy_range_from(&source, len, 10).unwrap(),
            0,
            "beyond the end"
        );
        let mut back = vec![0; bytes.len() + 1];
        let mut got = 0;
        while let n @ 1.. = copy.read_at(got as u64, &mut back[got..]).unwrap() {
            got += n;
        }
        assert!(back[..got] == bytes, "{got} bytes");
        // A clone is whole or does not happen, as the probe says.
        let clone = dir.create_file(n("clone"), 0o600).unwrap();
        let cloned = clone.reflink_from(&source);
        if dir.profile(Some(dir)).unwrap().reflink {
            cloned.unwrap();
            assert_eq!(clone.stat().unwrap().size, len);
        } else {
            assert_eq!(kind(cloned), ErrorKind::Unsupported);
            assert_eq!(clone.stat().unwrap().size, 0);
        }
    });
}
