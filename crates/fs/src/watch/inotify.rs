//! inotify, used directly: one instance a root, one watch a directory.
//!
//! A watch knows its parent's watch and its own name, so that renaming a directory moves everything below
//! it at once. Paths are put together only for events.

use std::collections::{BTreeMap, HashMap};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use instep_core::path::{Name, RelPath};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use super::{Hint, What};
use crate::api::{Error, Result};
use crate::dir::Dir;
use crate::os::error;

/// Bytes read at once; the kernel's queue holds 16,384 events by default.
const BUFFER: usize = 256 * 1024;

/// The parent of a root's watch, and of a watch whose parent is not watched.
const NONE: i32 = -1;

#[derive(Debug)]
struct Node {
    parent: i32,
    /// One component; a whole path where the parent is not watched.
    name: Box<[u8]>,
}

#[derive(Debug, Default)]
struct Table {
    nodes: HashMap<i32, Node>,
    below: HashMap<(i32, Box<[u8]>), i32>,
    root: Option<i32>,
    /// Directories that left one name and have not yet taken another, by the rename's number.
    moving: HashMap<u32, i32>,
    /// Directories whose name another one has just taken: the other half of an exchange is still to come.
    displaced: HashMap<(i32, Box<[u8]>), i32>,
}

impl Table {
    fn find(&self, path: &RelPath) -> Option<i32> {
        let root = self.root?;
        path.components().try_fold(root, |at, name| {
            self.below.get(&(at, name.as_bytes().into())).copied()
        })
    }

    fn insert(&mut self, wd: i32, path: &RelPath) {
        self.forget(wd);
        let node = match path.split() {
            None => {
                self.root = Some(wd);
                Node {
                    parent: NONE,
                    name: Box::default(),
                }
            }
            Some((dir, name)) => match self.find(&dir) {
                Some(parent) if parent != wd => Node {
                    parent,
                    name: name.as_bytes().into(),
                },
                _ => Node {
                    parent: NONE,
                    name: path.as_bytes().into(),
                },
            },
        };
        self.below.insert((node.parent, node.name.clone()), wd);
        self.nodes.insert(wd, node);
    }

    fn forget(&mut self, wd: i32) {
        if let Some(node) = self.nodes.remove(&wd) {
            let key = (node.parent, node.name);
            if self.below.get(&key) == Some(&wd) {
                self.below.remove(&key);
            }
        }
    }

    fn path(&self, wd: i32) -> Option<RelPath> {
        let mut parts: Vec<&[u8]> = Vec::new();
        let mut at = wd;
        // A chain longer than a path can be would be a circle.
        for _ in 0..=instep_core::limits::PATH_DEPTH_MAX {
            let node = self.nodes.get(&at)?;
            if !node.name.is_empty() {
                parts.push(&node.name);
            }
            if node.parent == NONE {
                parts.reverse();
                return RelPath::new(&parts.join(&b'/')).ok();
            }
            at = node.parent;
        }
        None
    }

    /// A watched directory and every watched directory below it.
    fn subtree(&self, top: i32) -> Vec<i32> {
        let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        for (wd, node) in &self.nodes {
            children.entry(node.parent).or_default().push(*wd);
        }
        let mut out = vec![top];
        let mut next = 0;
        while let Some(wd) = out.get(next).copied() {
            next += 1;
            out.extend(children.get(&wd).into_iter().flatten());
        }
        out
    }

    fn rename(&mut self, wd: i32, parent: i32, name: &[u8]) {
        if let Some(node) = self.nodes.get_mut(&wd) {
            let old = (node.parent, std::mem::replace(&mut node.name, name.into()));
            node.parent = parent;
            if self.below.get(&old) == Some(&wd) {
                self.below.remove(&old);
            }
            if let Some(other) = self.below.insert((parent, name.into()), wd)
                && other != wd
            {
                self.displaced.insert((parent, name.into()), other);
            }
        }
    }
}

/// One inotify instance.
#[derive(Debug)]
pub(super) struct Inotify {
    fd: OwnedFd,
    wake: OwnedFd,
    table: Mutex<Table>,
}

impl Inotify {
    pub(super) fn new() -> Result<Self> {
        let fd = rustix::fs::inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(
            error(|| "start watching (fs.inotify.max_user_instances)".into()),
        )?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(error(|| "start watching".into()))?;
        Ok(Self {
            fd,
            wake,
            table: Mutex::default(),
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, dir: &Dir, path: &RelPath) -> Result<()> {
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
        let mut table = self.table();
        let wd = rustix::fs::inotify::add_watch(&self.fd, proc.as_str(), flags).map_err(error(
            || format!("watch \"{path}\" (fs.inotify.max_user_watches)"),
        ))?;
        if table.path(wd).as_ref() != Some(path) {
            table.insert(wd, path);
        }
        Ok(())
    }

    pub(super) fn remove_tree(&self, path: &RelPath) {
        let mut table = self.table();
        if let Some(top) = table.find(path) {
            self.drop_watches(&mut table, top);
        }
    }

    fn drop_watches(&self, table: &mut Table, top: i32) {
        for wd in table.subtree(top) {
            // A watch that is gone already is what we want.
            let _gone = rustix::fs::inotify::remove_watch(&self.fd, wd);
            table.forget(wd);
        }
    }

    pub(super) fn is_watched(&self, path: &RelPath) -> bool {
        self.table().find(path).is_some()
    }

    pub(super) fn count(&self) -> u64 {
        self.table().nodes.len() as u64
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
        self.drain()
    }

    /// Reads everything that is queued.
    fn drain(&self) -> Result<Vec<Hint>> {
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER];
        let mut reader = Reader::new(self.fd.as_fd(), &mut buffer);
        let mut batch = Batch::default();
        let mut table = self.table();
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event
                        .file_name()
                        .map(std::ffi::CStr::to_bytes)
                        .unwrap_or_default();
                    batch.event(&mut table, event.wd(), event.events(), event.cookie(), name);
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(e) => return Err(error(|| "read changes".into())(e)),
            }
        }
        // Whoever left and did not arrive by now left the root.
        for wd in std::mem::take(&mut table.moving).into_values() {
            self.drop_watches(&mut table, wd);
        }
        Ok(batch.hints)
    }
}

/// Hints of one drain; what happens to one path again and again is one hint.
#[derive(Default)]
struct Batch {
    hints: Vec<Hint>,
    last: HashMap<RelPath, usize>,
}

impl Batch {
    fn event(&mut self, table: &mut Table, wd: i32, flags: ReadFlags, cookie: u32, name: &[u8]) {
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            return self.hints.push(Hint::Overflow);
        }
        if flags.contains(ReadFlags::IGNORED) {
            return table.forget(wd);
        }
        let is_self =
            flags.intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT);
        if is_self {
            if table.root == Some(wd) {
                self.hints.push(Hint::RootGone);
            }
            return;
        }
        let is_dir = flags.contains(ReadFlags::ISDIR);
        if is_dir && !name.is_empty() {
            follow(table, wd, flags, cookie, name);
        }
        let Some(dir) = table.path(wd) else { return };
        let path = match Name::new(name) {
            Ok(name) => dir.join(name),
            Err(_) => dir,
        };
        self.add(path, what(flags, cookie, is_dir));
    }

    fn add(&mut self, path: RelPath, what: What) {
        let moves = what.moved_from.is_some() || what.moved_to.is_some();
        let known = self.last.get(&path).and_then(|at| self.hints.get_mut(*at));
        if let Some(Hint::Path { what: old, .. }) = known
            && !moves
        {
            old.created |= what.created;
            old.modified |= what.modified;
            old.closed |= what.closed;
            old.deleted |= what.deleted;
            old.attrib |= what.attrib;
            return;
        }
        self.last.insert(path.clone(), self.hints.len());
        self.hints.push(Hint::Path { path, what });
    }
}

fn what(flags: ReadFlags, cookie: u32, is_dir: bool) -> What {
    let has = |f| flags.contains(f);
    What {
        created: has(ReadFlags::CREATE),
        modified: has(ReadFlags::MODIFY),
        closed: has(ReadFlags::CLOSE_WRITE),
        moved_from: has(ReadFlags::MOVED_FROM).then_some(cookie),
        moved_to: has(ReadFlags::MOVED_TO).then_some(cookie),
        deleted: has(ReadFlags::DELETE),
        attrib: has(ReadFlags::ATTRIB),
        is_dir,
    }
}

/// Keeps the paths of watched directories right when they are renamed.
fn follow(table: &mut Table, wd: i32, flags: ReadFlags, cookie: u32, name: &[u8]) {
    if flags.contains(ReadFlags::MOVED_FROM) {
        let place = (wd, name.into());
        let displaced = table.displaced.remove(&place);
        if let Some(child) = displaced.or_else(|| table.below.get(&place).copied()) {
            table.moving.insert(cookie, child);
        }
    } else if flags.contains(ReadFlags::MOVED_TO)
        && let Some(child) = table.moving.remove(&cookie)
    {
        table.rename(child, wd, name);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;

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
        let root_wd = inotify.table().root.unwrap();
        let event = |flags, name: &[u8]| {
            let mut batch = Batch::default();
            batch.event(
                &mut inotify.table(),
                root_wd,
                flags | ReadFlags::ISDIR,
                7,
                name,
            );
            batch.hints
        };
        assert_eq!(paths(&event(ReadFlags::MOVED_FROM, b"a")), ["a"]);
        // The end of a drain.
        soon(&inotify);
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
