//! inotify, used directly: one instance a root, one watch a directory. What its events mean is for the table.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use instep_core::path::RelPath;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags};
use rustix::io::Errno;

use super::Hint;
use super::table::Table;
use crate::api::{Error, Result};
use crate::dir::Dir;
use crate::os::error;

/// Bytes read at once; the kernel's queue holds 16,384 events by default.
const BUFFER: usize = 256 * 1024;

/// One inotify instance.
#[derive(Debug)]
pub(super) struct Inotify {
    fd: OwnedFd,
    wake: OwnedFd,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    table: Table,
    buffer: Vec<MaybeUninit<u8>>,
}

impl Inotify {
    pub(super) fn new() -> Result<Self> {
        let fd = rustix::fs::inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(
            error(|| "start watching (fs.inotify.max_user_instances)".into()),
        )?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(error(|| "start watching".into()))?;
        let state = State {
            table: Table::default(),
            buffer: vec![MaybeUninit::uninit(); BUFFER],
        };
        Ok(Self {
            fd,
            wake,
            state: Mutex::new(state),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches a directory; false when it was watched under this path already.
    pub(super) fn add(&self, dir: &Dir, path: &RelPath) -> Result<bool> {
        let Some(fd) = dir.as_fd() else {
            return Err(Error::new(
                "watch a directory without a descriptor",
                libc::EBADF,
            ));
        };
        let flags = WatchFlags::CREATE
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MODIFY
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE
            | WatchFlags::ATTRIB
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR
            | WatchFlags::EXCL_UNLINK;
        let proc = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let mut state = self.state();
        // Another directory may have had this name: what is queued about it must not be taken for news of
        // the new one.
        if self.read(&mut state).is_err() {
            state.table.lost();
        }
        if state.table.has_hints() {
            // They have left the kernel's queue, so that nothing else wakes who waits for them.
            self.wake();
        }
        let wd = rustix::fs::inotify::add_watch(&self.fd, proc.as_str(), flags).map_err(error(
            || format!("watch \"{path}\" (fs.inotify.max_user_watches)"),
        ))?;
        Ok(state.table.added(wd, path))
    }

    pub(super) fn remove_tree(&self, path: &RelPath) {
        let gone = self.state().table.remove_tree(path);
        self.unwatch(gone);
    }

    fn unwatch(&self, gone: Vec<i32>) {
        for wd in gone {
            // A watch that is gone already is what we want.
            let _gone = rustix::fs::inotify::remove_watch(&self.fd, wd);
        }
    }

    pub(super) fn is_watched(&self, path: &RelPath) -> bool {
        self.state().table.is_watched(path)
    }

    pub(super) fn count(&self) -> u64 {
        self.state().table.len() as u64
    }

    pub(super) fn wake(&self) {
        // It can only fail when it is already awake.
        let _awake = rustix::io::write(&self.wake, &1_u64.to_le_bytes());
    }

    pub(super) fn wait(&self, timeout: Option<Duration>) -> Result<Vec<Hint>> {
        let timeout = timeout.map(|t| Timespec {
            tv_sec: i64::try_from(t.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: t.subsec_nanos().into(),
        });
        let mut fds = [
            PollFd::new(&self.fd, PollFlags::IN),
            PollFd::new(&self.wake, PollFlags::IN),
        ];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(error(|| "wait for changes".into())(e)),
        }
        let mut count = [0; 8];
        let _was_awake = rustix::io::read(&self.wake, &mut count[..]);
        let mut state = self.state();
        self.read(&mut state)?;
        Ok(state.table.take_hints())
    }

    /// Reads everything that is queued.
    fn read(&self, state: &mut State) -> Result<()> {
        let State { table, buffer } = state;
        let mut reader = Reader::new(self.fd.as_fd(), buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event
                        .file_name()
                        .map(std::ffi::CStr::to_bytes)
                        .unwrap_or_default();
                    table.event(event.wd(), event.events(), event.cookie(), name);
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(e) => return Err(error(|| "read changes".into())(e)),
            }
        }
        let left = table.left();
        self.unwatch(left);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;
    use instep_core::path::Name;
    use rustix::fs::inotify::ReadFlags;

    fn p(s: &str) -> RelPath {
        RelPath::new(s.as_bytes()).unwrap()
    }

    fn setup() -> (tempfile::TempDir, Dir, Inotify) {
        let temp = tempfile::tempdir().unwrap();
        let root = crate::place::open_root(temp.path()).unwrap();
        let inotify = Inotify::new().unwrap();
        inotify.add(&root, &RelPath::root()).unwrap();
        (temp, root, inotify)
    }

    fn paths(hints: &[Hint]) -> Vec<String> {
        hints
            .iter()
            .filter_map(|h| match h {
                Hint::Path { path, .. } => Some(path.to_string()),
                Hint::Overflow | Hint::RootGone => None,
            })
            .collect()
    }

    #[test]
    fn a_renamed_directory_keeps_reporting_under_its_new_path() {
        let (temp, root, inotify) = setup();
        std::fs::create_dir_all(temp.path().join("a/b")).unwrap();
        let a = root.open_dir(Name::new(b"a").unwrap()).unwrap();
        let b = a.open_dir(Name::new(b"b").unwrap()).unwrap();
        inotify.add(&a, &p("a")).unwrap();
        inotify.add(&b, &p("a/b")).unwrap();
        inotify.wait(Some(Duration::ZERO)).unwrap();
        std::fs::rename(temp.path().join("a"), temp.path().join("z")).unwrap();
        std::fs::write(temp.path().join("z/b/new"), "x").unwrap();
        let hints = inotify.wait(Some(Duration::from_secs(5))).unwrap();
        assert!(paths(&hints).contains(&"z/b/new".to_owned()), "{hints:?}");
        assert_eq!(inotify.count(), 3);
        std::fs::rename(temp.path().join("z"), temp.path().with_extension("out")).unwrap();
        inotify.wait(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(inotify.count(), 1, "what left the root is not watched");
        std::fs::remove_dir_all(temp.path().with_extension("out")).unwrap();
    }

    #[test]
    fn writing_a_file_is_one_hint_and_waking_returns_empty() {
        let (temp, _root, inotify) = setup();
        std::fs::write(temp.path().join("f"), "x").unwrap();
        let hints = inotify.wait(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(paths(&hints), ["f"]);
        inotify.wake();
        assert!(inotify.wait(None).unwrap().is_empty());
    }

    #[test]
    fn an_undrained_queue_says_that_it_overflowed() {
        let (temp, _root, inotify) = setup();
        let limit: usize = std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        for i in 0..limit / 2 + 10 {
            std::fs::write(temp.path().join(format!("{i}")), "").unwrap();
        }
        let hints = inotify.wait(Some(Duration::from_secs(5))).unwrap();
        assert!(hints.contains(&Hint::Overflow));
    }

    fn open(dir: &Dir, name: &str) -> Dir {
        dir.open_dir(Name::new(name.as_bytes()).unwrap()).unwrap()
    }

    fn soon(inotify: &Inotify) -> Vec<Hint> {
        inotify.wait(Some(Duration::from_secs(5))).unwrap()
    }

    #[test]
    fn what_is_made_in_a_new_directory_goes_unnoticed() {
        let (temp, root, inotify) = setup();
        std::fs::create_dir(temp.path().join("d")).unwrap();
        std::fs::write(temp.path().join("d/early"), "x").unwrap();
        let hints = soon(&inotify);
        assert_eq!(
            paths(&hints),
            ["d"],
            "nobody watches inside yet, so the directory itself is named"
        );
        let is_new_dir =
            |h: &Hint| matches!(h, Hint::Path { what, .. } if what.created && what.is_dir);
        assert!(hints.iter().all(is_new_dir), "{hints:?}");
        let d = open(&root, "d");
        inotify.add(&d, &p("d")).unwrap();
        // Watched first, listed then: whoever comes between the two is in the listing or in a hint.
        let mut listed = Vec::new();
        d.list(&mut |name, _| listed.push(name.to_vec())).unwrap();
        assert_eq!(listed, [b"early"]);
        std::fs::write(temp.path().join("d/late"), "x").unwrap();
        assert_eq!(paths(&soon(&inotify)), ["d/late"]);
    }

    #[test]
    fn a_rename_of_which_only_one_end_is_seen_leaves_a_wrong_path() {
        let (temp, root, inotify) = setup();
        std::fs::create_dir_all(temp.path().join("a")).unwrap();
        std::fs::create_dir_all(temp.path().join("unwatched")).unwrap();
        inotify.add(&open(&root, "a"), &p("a")).unwrap();
        soon(&inotify);
        std::fs::rename(temp.path().join("a"), temp.path().join("unwatched/a")).unwrap();
        assert_eq!(paths(&soon(&inotify)), ["a"]);
        assert_eq!(inotify.count(), 1, "it left, as far as anybody can tell");
        std::fs::write(temp.path().join("unwatched/a/f"), "x").unwrap();
        std::fs::rename(temp.path().join("unwatched/a"), temp.path().join("b")).unwrap();
        std::fs::write(temp.path().join("b/g"), "x").unwrap();
        let hints = soon(&inotify);
        assert_eq!(
            paths(&hints),
            ["b"],
            "what it holds is found by looking, not under its old path"
        );
        inotify.add(&open(&root, "b"), &p("b")).unwrap();
        std::fs::write(temp.path().join("b/h"), "x").unwrap();
        assert_eq!(paths(&soon(&inotify)), ["b/h"]);
    }

    /// The queue was read between the two events of one rename.
    #[test]
    fn a_rename_that_arrives_in_two_pieces_leaves_a_wrong_path() {
        let (temp, root, inotify) = setup();
        std::fs::create_dir_all(temp.path().join("a/sub")).unwrap();
        let a = open(&root, "a");
        inotify.add(&a, &p("a")).unwrap();
        inotify.add(&open(&a, "sub"), &p("a/sub")).unwrap();
        soon(&inotify);
        let root_wd = 1;
        let event = |flags, name: &[u8]| {
            let table = &mut inotify.state().table;
            table.event(root_wd, flags | ReadFlags::ISDIR, 7, name);
            table.take_hints()
        };
        assert_eq!(paths(&event(ReadFlags::MOVED_FROM, b"a")), ["a"]);
        // The end of a drain.
        inotify.wait(Some(Duration::ZERO)).unwrap();
        assert_eq!(inotify.count(), 1);
        assert_eq!(paths(&event(ReadFlags::MOVED_TO, b"b")), ["b"]);
        assert_eq!(
            inotify.count(),
            1,
            "it is watched again by whoever follows the hint"
        );
    }

    #[test]
    fn directories_that_changed_places_report_under_each_others_paths() {
        let (temp, root, inotify) = setup();
        for name in ["a", "b", "b/sub"] {
            std::fs::create_dir_all(temp.path().join(name)).unwrap();
        }
        let (a, b) = (open(&root, "a"), open(&root, "b"));
        inotify.add(&a, &p("a")).unwrap();
        inotify.add(&b, &p("b")).unwrap();
        inotify.add(&open(&b, "sub"), &p("b/sub")).unwrap();
        soon(&inotify);
        let name = |n: &'static str| Name::new(n.as_bytes()).unwrap();
        root.exchange(name("a"), &root, name("b")).unwrap();
        soon(&inotify);
        assert_eq!(inotify.count(), 4);
        std::fs::write(temp.path().join("a/in-a"), "x").unwrap();
        std::fs::write(temp.path().join("b/in-b"), "x").unwrap();
        std::fs::write(temp.path().join("a/sub/deep"), "x").unwrap();
        assert_eq!(paths(&soon(&inotify)), ["a/in-a", "b/in-b", "a/sub/deep"]);
    }

    #[test]
    fn a_directory_that_was_made_anew_passes_for_the_one_that_is_watched() {
        let (temp, root, inotify) = setup();
        std::fs::create_dir(temp.path().join("d")).unwrap();
        inotify.add(&open(&root, "d"), &p("d")).unwrap();
        soon(&inotify);
        assert!(inotify.is_watched(&p("d")));
        std::fs::remove_dir(temp.path().join("d")).unwrap();
        std::fs::create_dir(temp.path().join("d")).unwrap();
        soon(&inotify);
        assert!(!inotify.is_watched(&p("d")));
    }

    /// The events of the directory that left are still queued when the new one is watched.
    #[test]
    fn a_directory_with_the_name_of_one_that_left_reports_under_a_wrong_path() {
        let (temp, root, inotify) = setup();
        let at = |name: &str| temp.path().join(name);
        std::fs::create_dir(at("d")).unwrap();
        inotify.add(&open(&root, "d"), &p("d")).unwrap();
        soon(&inotify);
        std::fs::rename(at("d"), at("e")).unwrap();
        std::fs::create_dir(at("d")).unwrap();
        assert!(inotify.add(&open(&root, "d"), &p("d")).unwrap());
        let arrived = |h: &Hint| matches!(h, Hint::Path { path, what } if *path == p("e") && what.moved_to.is_some());
        assert!(soon(&inotify).iter().any(arrived), "what was read is kept");
        std::fs::write(at("d/in-d"), "x").unwrap();
        std::fs::write(at("e/in-e"), "x").unwrap();
        assert_eq!(paths(&soon(&inotify)), ["d/in-d", "e/in-e"]);
    }

    /// The same where the old one left the root: then its successor must not lose its watch.
    #[test]
    fn a_directory_with_the_name_of_one_that_left_is_not_watched_any_more() {
        let (temp, root, inotify) = setup();
        let at = |name: &str| temp.path().join(name);
        let out = tempfile::tempdir().unwrap();
        for n in 0..3 {
            std::fs::create_dir(at("d")).unwrap();
            if n < 2 {
                std::fs::rename(at("d"), out.path().join(format!("{n}"))).unwrap();
            }
        }
        inotify.add(&open(&root, "d"), &p("d")).unwrap();
        soon(&inotify);
        std::fs::write(at("d/f"), "x").unwrap();
        assert_eq!(paths(&soon(&inotify)), ["d/f"]);
        assert!(
            !inotify.add(&open(&root, "d"), &p("d")).unwrap(),
            "it is known"
        );
    }

    #[test]
    fn a_directory_made_again_under_the_same_inode_number_passes_for_the_old_one() {
        let (temp, root, inotify) = setup();
        std::fs::create_dir(temp.path().join("d")).unwrap();
        inotify.add(&open(&root, "d"), &p("d")).unwrap();
        std::fs::remove_dir(temp.path().join("d")).unwrap();
        std::fs::create_dir(temp.path().join("d")).unwrap();
        assert!(
            inotify.add(&open(&root, "d"), &p("d")).unwrap(),
            "another inode has another watch"
        );
    }

    #[test]
    fn a_directory_that_took_the_name_of_an_empty_one_loses_its_path_when_it_moves_on() {
        let (temp, root, inotify) = setup();
        let at = |name: &str| temp.path().join(name);
        for name in ["a", "b", "c"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        for name in ["a", "b"] {
            inotify.add(&open(&root, name), &p(name)).unwrap();
        }
        soon(&inotify);
        std::fs::rename(at("a"), at("b")).unwrap();
        soon(&inotify);
        std::fs::rename(at("b"), at("c")).unwrap();
        std::fs::write(at("c/f"), "x").unwrap();
        let last = paths(&soon(&inotify)).pop();
        assert_eq!(last.as_deref(), Some("c/f"));
    }

    /// The kernel says nothing of it, so whoever holds a root asks for its number of names now and then.
    #[test]
    fn a_deleted_root_that_is_held_open_keeps_a_name() {
        let (temp, root, inotify) = setup();
        std::fs::remove_dir(temp.path()).unwrap();
        assert_eq!(inotify.wait(Some(Duration::ZERO)).unwrap(), []);
        assert_eq!(root.stat_self().unwrap().nlink, 0);
    }

    #[test]
    fn a_deleted_root_is_reported_once_nobody_has_it_open() {
        let (temp, root, inotify) = setup();
        // An open descriptor keeps the inode, and the kernel reports only its end.
        drop(root);
        std::fs::remove_dir_all(temp.path()).unwrap();
        let hints = inotify.wait(Some(Duration::from_secs(5))).unwrap();
        assert!(hints.contains(&Hint::RootGone), "{hints:?}");
    }
}
