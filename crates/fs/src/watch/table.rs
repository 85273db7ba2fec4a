//! From one inotify instance's events to hints: which watch is which directory now.
//!
//! A watch knows its parent's watch and its own name, so that renaming a directory moves everything below
//! it at once. Paths are put together only for events. Owns what is known and the hints that nobody has
//! fetched; makes no system call, so that the simulator runs it on the events of its own kernel.
//!
//! Invariant: an event says what was so when it was queued. Whoever adds a watch must therefore have read
//! all events that were queued before: an old one would be taken for news of the new directory.

use std::collections::{BTreeMap, HashMap};

use instep_core::path::{Name, RelPath};
use rustix::fs::inotify::ReadFlags;

use super::{Hint, What};

/// The parent of a root's watch, and of a watch whose parent is not watched.
const NONE: i32 = -1;

#[derive(Debug)]
struct Node {
    parent: i32,
    /// One component; a whole path where the parent is not watched.
    name: Box<[u8]>,
}

/// The watches of one instance, and the hints that their events made.
#[derive(Debug, Default)]
pub(crate) struct Table {
    nodes: HashMap<i32, Node>,
    below: HashMap<(i32, Box<[u8]>), i32>,
    root: Option<i32>,
    /// Directories that left one name and have not yet taken another, by the rename's number.
    moving: HashMap<u32, i32>,
    /// Directories whose name another one has just taken: the other half of an exchange is still to come.
    displaced: HashMap<(i32, Box<[u8]>), i32>,
    batch: Batch,
}

impl Table {
    /// How many watches there are.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether a directory is watched under a path.
    pub(crate) fn is_watched(&self, path: &RelPath) -> bool {
        self.find(path).is_some()
    }

    /// Whether hints wait to be fetched.
    pub(crate) fn has_hints(&self) -> bool {
        !self.batch.hints.is_empty()
    }

    /// The hints so far.
    pub(crate) fn take_hints(&mut self) -> Vec<Hint> {
        std::mem::take(&mut self.batch).hints
    }

    /// Events were lost that nobody will repeat.
    pub(crate) fn lost(&mut self) {
        self.moving.clear();
        self.displaced.clear();
        self.batch.hints.push(Hint::Overflow);
    }

    /// A directory is watched under a path; false when that is known.
    pub(crate) fn added(&mut self, wd: i32, path: &RelPath) -> bool {
        let is_new = self.path(wd).as_ref() != Some(path);
        if is_new {
            self.insert(wd, path);
        }
        is_new
    }

    /// Forgets a path and everything below it; the watches are to be removed.
    pub(crate) fn remove_tree(&mut self, path: &RelPath) -> Vec<i32> {
        self.find(path).map(|top| self.cut(top)).unwrap_or_default()
    }

    /// Everything that was queued has been read: whoever left and did not arrive by now left the root. The
    /// watches are to be removed.
    pub(crate) fn left(&mut self) -> Vec<i32> {
        let tops = std::mem::take(&mut self.moving).into_values();
        tops.flat_map(|top| self.cut(top)).collect()
    }

    /// Takes in one event.
    pub(crate) fn event(&mut self, wd: i32, flags: ReadFlags, cookie: u32, name: &[u8]) {
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            return self.lost();
        }
        if flags.contains(ReadFlags::IGNORED) {
            return self.forget(wd);
        }
        let is_self =
            flags.intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT);
        if is_self {
            if self.root == Some(wd) {
                self.batch.hints.push(Hint::RootGone);
            }
            return;
        }
        let is_dir = flags.contains(ReadFlags::ISDIR);
        if is_dir && !name.is_empty() {
            self.follow(wd, flags, cookie, name);
        }
        let Some(dir) = self.path(wd) else { return };
        let path = match Name::new(name) {
            Ok(name) => dir.join(name),
            Err(_) => dir,
        };
        self.batch.add(path, what(flags, cookie, is_dir));
    }

    /// Keeps the paths of watched directories right when they are renamed.
    fn follow(&mut self, wd: i32, flags: ReadFlags, cookie: u32, name: &[u8]) {
        if flags.contains(ReadFlags::MOVED_FROM) {
            let place = (wd, name.into());
            let displaced = self.displaced.remove(&place);
            if let Some(child) = displaced.or_else(|| self.below.get(&place).copied()) {
                self.moving.insert(cookie, child);
            }
        } else if flags.contains(ReadFlags::MOVED_TO)
            && let Some(child) = self.moving.remove(&cookie)
        {
            self.rename(child, wd, name);
        }
    }

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
        self.displaced.retain(|_, other| *other != wd);
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

    /// Forgets a watched directory and every watched directory below it.
    fn cut(&mut self, top: i32) -> Vec<i32> {
        let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        for (wd, node) in &self.nodes {
            children.entry(node.parent).or_default().push(*wd);
        }
        let mut out = vec![top];
        let mut next = 0;
        while let Some(wd) = out.get(next).copied() {
            next += 1;
            out.extend(children.remove(&wd).into_iter().flatten());
        }
        for wd in &out {
            self.forget(*wd);
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

/// Hints that nobody has fetched; what happens to one path again and again is one hint.
#[derive(Debug, Default)]
struct Batch {
    hints: Vec<Hint>,
    last: HashMap<RelPath, usize>,
}

impl Batch {
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
            old.is_dir |= what.is_dir;
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
