//! The durable image: what a power cut leaves.
//!
//! Owns, apart from the live tree (the page cache), a base image and every change since that is not yet
//! on the medium: directory operations (each one atomic, a list of name assignments) and, per inode, data
//! writes, sizes and attributes. Invariants: what a sync call promised is in every image; an operation
//! enters an image only if the names it touches are there as it found them, and the image stays a tree.
//! Never reads the live tree.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use instep_core::time::Mtime;

use super::CrashModel;
use super::content::Content;
use super::faults::Rng;
use super::image::{apply_change, apply_sectors, apply_size, apply_write, clip, reachable};

/// Identifies an inode for ever, unlike its number.
pub(super) type NodeId = u64;

/// The attributes of an inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Mtime,
    pub(super) ctime: Mtime,
    pub(super) btime: Mtime,
    /// Shared, because every change of anything keeps a copy.
    pub(super) xattrs: Arc<XattrMap>,
}

/// Extended attributes by name.
pub(super) type XattrMap = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// The names in a directory.
pub(super) type Entries = BTreeMap<Box<[u8]>, NodeId>;

/// What an inode is.
#[derive(Debug, Clone)]
pub(super) enum Body {
    File(Content),
    Dir {
        entries: Entries,
        parent: Option<NodeId>,
    },
    Link(Box<[u8]>),
    Special,
}

/// An inode, live or durable.
#[derive(Debug, Clone)]
pub(super) struct Inode {
    pub(super) ino: u64,
    pub(super) meta: Meta,
    pub(super) body: Body,
    /// Another file system is mounted on this directory.
    pub(super) mount: bool,
}

impl Inode {
    pub(super) fn entries(&self) -> Option<&Entries> {
        if let Body::Dir { entries, .. } = &self.body {
            Some(entries)
        } else {
            None
        }
    }

    pub(super) fn is_dir(&self) -> bool {
        matches!(self.body, Body::Dir { .. })
    }

    pub(super) fn content(&self) -> Option<&Content> {
        if let Body::File(content) = &self.body {
            Some(content)
        } else {
            None
        }
    }

    pub(super) fn content_mut(&mut self) -> Option<&mut Content> {
        if let Body::File(content) = &mut self.body {
            Some(content)
        } else {
            None
        }
    }
}

/// The inodes of an image.
pub(super) type Image = BTreeMap<NodeId, Inode>;

/// One name that changes what it refers to.
#[derive(Debug, Clone)]
pub(super) struct Assign {
    pub(super) dir: NodeId,
    pub(super) name: Box<[u8]>,
    pub(super) was: Option<NodeId>,
    pub(super) now: Option<NodeId>,
}

/// One directory operation.
#[derive(Debug, Clone)]
pub(super) struct Change {
    seq: u64,
    pub(super) time: Mtime,
    pub(super) assigns: Vec<Assign>,
    /// Promised, but not yet folded because a directory above is not durable itself.
    durable: bool,
}

/// One change of an inode.
#[derive(Debug, Clone)]
pub(super) enum Write {
    /// Bytes at an offset.
    Bytes(u64, Box<[u8]>),
    /// A new size.
    Len(u64),
    /// The whole content at once: a reflink.
    Whole(Content),
    /// Attributes only.
    Meta,
}

#[derive(Debug, Clone)]
struct Dirty {
    seq: u64,
    write: Write,
    /// The attributes after this change.
    meta: Meta,
}

/// The base image and what is pending on top of it.
#[derive(Debug, Clone)]
pub(super) struct Durable {
    model: CrashModel,
    lazy_times: bool,
    root: NodeId,
    base: Image,
    /// Inodes that no sync call has reached yet.
    fresh: BTreeSet<NodeId>,
    changes: Vec<Change>,
    dirty: BTreeMap<NodeId, Vec<Dirty>>,
    seq: u64,
}

impl Durable {
    /// An image that is durable as it stands.
    pub(super) fn new(model: CrashModel, lazy_times: bool, root: NodeId, base: Image) -> Self {
        let (fresh, changes, dirty) = (BTreeSet::new(), Vec::new(), BTreeMap::new());
        Self {
            model,
            lazy_times,
            root,
            base,
            fresh,
            changes,
            dirty,
            seq: 0,
        }
    }

    /// Changes what a power cut may leave of whatever is pending.
    pub(super) fn configure(&mut self, model: CrashModel, lazy_times: bool) {
        self.model = model;
        self.lazy_times = lazy_times;
    }

    /// Changes that are not on the medium.
    pub(super) fn pending(&self) -> usize {
        self.changes.len() + self.dirty.values().map(Vec::len).sum::<usize>()
    }

    /// A new inode, without content and, so far, without a name.
    pub(super) fn created(&mut self, id: NodeId, inode: Inode) {
        self.base.insert(id, inode);
        self.fresh.insert(id);
    }

    /// A directory operation has happened.
    pub(super) fn assigned(&mut self, time: Mtime, assigns: Vec<Assign>) {
        self.seq += 1;
        self.changes.push(Change {
            seq: self.seq,
            time,
            assigns,
            durable: false,
        });
    }

    /// An inode has changed.
    pub(super) fn wrote(&mut self, id: NodeId, write: Write, meta: Meta) {
        self.seq += 1;
        self.dirty.entry(id).or_default().push(Dirty {
            seq: self.seq,
            write,
            meta,
        });
    }

    /// `fdatasync`: the content, the size, and the attributes if the size changed.
    pub(super) fn sync_data(&mut self, id: NodeId) {
        let fresh = self.fresh.remove(&id);
        let items = self.dirty.remove(&id).unwrap_or_default();
        let Some(node) = self.base.get_mut(&id) else {
            return;
        };
        let size = node.content().map_or(0, Content::len);
        let mut last_data = None;
        for (at, item) in items.iter().enumerate() {
            if !matches!(item.write, Write::Meta) {
                last_data = Some(at);
                apply_write(node, &item.write);
            }
        }
        let whole = fresh || node.content().is_some_and(|c| c.len() != size);
        let logged = if whole {
            items.len()
        } else {
            last_data.map_or(0, |at| at + 1)
        };
        if (whole || !self.lazy_times)
            && let Some(item) = items[..logged].last()
        {
            node.meta = item.meta.clone();
        }
        let rest: Vec<Dirty> = items[logged..].to_vec();
        if !rest.is_empty() {
            self.dirty.insert(id, rest);
        }
        if whole && matches!(self.model, CrashModel::Ext4 | CrashModel::Xfs) {
            self.commit_journal();
        }
    }

    /// A failed `fdatasync`: the cache is marked clean, the bytes never reach the medium.
    pub(super) fn lose_data(&mut self, id: NodeId) {
        let items = self.dirty.remove(&id).unwrap_or_default();
        let Some(node) = self.base.get_mut(&id) else {
            return;
        };
        for item in &items {
            apply_size(node, &item.write);
            node.meta = item.meta.clone();
        }
    }

    /// A failed `syncfs`: any inode may have lost its bytes.
    pub(super) fn lose_some(&mut self, rng: &mut Rng) {
        let ids: Vec<NodeId> = self.dirty.keys().copied().collect();
        for id in ids {
            if rng.chance(500) {
                self.lose_data(id);
            }
        }
    }

    /// `fsync` of a directory.
    pub(super) fn sync_dir(&mut self, dir: NodeId) {
        match self.model {
            CrashModel::Ext4 | CrashModel::Xfs => self.commit_journal(),
            CrashModel::Adversarial | CrashModel::Btrfs => self.promise(dir),
        }
        self.sync_meta(dir);
    }

    /// `syncfs`: everything. Of the inodes without a name only those in `live` are remembered.
    pub(super) fn sync_all(&mut self, live: impl Fn(NodeId) -> bool) {
        let ids: Vec<NodeId> = self.dirty.keys().copied().collect();
        for id in ids {
            for item in self.dirty.remove(&id).unwrap_or_default() {
                if let Some(node) = self.base.get_mut(&id) {
                    apply_write(node, &item.write);
                    node.meta = item.meta;
                }
            }
        }
        for change in core::mem::take(&mut self.changes) {
            apply_change(&mut self.base, self.root, &change);
        }
        self.fresh.clear();
        let keep = reachable(&self.base, self.root);
        self.base.retain(|id, _| keep.contains(id) || live(*id));
    }

    /// Marks the operations in `dir`, and those they rest on, and folds what can be folded.
    fn promise(&mut self, dir: NodeId) {
        let mut needs = Needs {
            dirs: BTreeSet::from([dir]),
            ..Needs::default()
        };
        for change in self.changes.iter_mut().rev() {
            let moves_dir = moves_dir(&self.base, &change.assigns);
            if !(change.durable || (needs.moves && moves_dir) || needs.want(&change.assigns)) {
                continue;
            }
            needs.moves |= moves_dir;
            needs.extend(&change.assigns, dir, change.durable);
            change.durable = true;
        }
        self.fold();
    }

    fn fold(&mut self) {
        let (base, root) = (&mut self.base, self.root);
        self.changes
            .retain(|change| !(change.durable && apply_change(base, root, change)));
    }

    /// Everything in the journal so far: names, attributes, and sizes that were set explicitly.
    fn commit_journal(&mut self) {
        for change in core::mem::take(&mut self.changes) {
            apply_change(&mut self.base, self.root, &change);
        }
        let ids: Vec<NodeId> = self.dirty.keys().copied().collect();
        for id in ids {
            self.commit_inode(id);
        }
    }

    fn commit_inode(&mut self, id: NodeId) {
        let items = self.dirty.remove(&id).unwrap_or_default();
        let Some(node) = self.base.get_mut(&id) else {
            return;
        };
        let mut kept: Vec<Dirty> = Vec::new();
        for item in items {
            node.meta = item.meta.clone();
            match &item.write {
                Write::Bytes(..) => kept.push(item),
                Write::Len(len) => {
                    for earlier in &mut kept {
                        clip(&mut earlier.write, *len);
                    }
                    apply_write(node, &item.write);
                }
                Write::Whole(_) => {
                    kept.clear();
                    apply_write(node, &item.write);
                }
                Write::Meta => {}
            }
        }
        for item in &mut kept {
            item.meta = node.meta.clone();
        }
        if !kept.is_empty() {
            self.dirty.insert(id, kept);
        }
    }

    fn sync_meta(&mut self, id: NodeId) {
        let Some(node) = self.base.get_mut(&id) else {
            return;
        };
        if node.is_dir() {
            for item in self.dirty.remove(&id).unwrap_or_default() {
                node.meta = item.meta;
            }
        }
    }

    /// What a power cut at this instant leaves: one of the legal images, chosen by `rng`.
    pub(super) fn image(&self, rng: &mut Rng) -> Image {
        let mut image = self.base.clone();
        let last = self.cut(rng);
        let rate = [0, 100, 500, 900, 1000][rng.below(5) as usize];
        for change in &self.changes {
            let chosen = match self.model {
                CrashModel::Adversarial => rng.chance(rate),
                _ => change.seq <= last,
            };
            if change.durable || chosen {
                apply_change(&mut image, self.root, change);
            }
        }
        for (id, items) in &self.dirty {
            if let Some(node) = image.get_mut(id) {
                self.tear(node, items, last, rng);
            }
        }
        let keep = reachable(&image, self.root);
        image.retain(|id, _| keep.contains(id));
        image
    }

    /// The last sequence number of the transaction that made it to the medium.
    fn cut(&self, rng: &mut Rng) -> u64 {
        let dirty = self
            .dirty
            .values()
            .filter_map(|items| items.first())
            .map(|d| d.seq);
        let first = self
            .changes
            .first()
            .map(|c| c.seq)
            .into_iter()
            .chain(dirty)
            .min();
        let first = first.unwrap_or(self.seq).saturating_sub(1);
        match rng.below(4) {
            0 => first,
            1 => self.seq,
            _ => first + rng.below(self.seq - first + 1),
        }
    }

    /// Applies some of an inode's pending changes, as the model allows.
    fn tear(&self, node: &mut Inode, items: &[Dirty], last: u64, rng: &mut Rng) {
        let legal = match self.model {
            CrashModel::Adversarial => items.len(),
            // Blocks may be written before the transaction that would refer to them commits.
            _ => items.iter().take_while(|d| d.seq <= last).count(),
        };
        let items = &items[..legal];
        let fate = match (self.model, rng.below(8)) {
            (_, 0 | 1) => Fate::Old,
            (_, 2 | 3) => Fate::New,
            (CrashModel::Adversarial, 4 | 5) => Fate::Sectors,
            (CrashModel::Btrfs, 4..) => Fate::Old,
            (CrashModel::Ext4, 4..=6) | (_, 6) => Fate::Prefix,
            _ => Fate::SizeOnly,
        };
        let mut reached = 0;
        let count = if fate == Fate::Prefix {
            rng.below(items.len() as u64 + 1) as usize
        } else {
            items.len()
        };
        for (at, item) in items[..count].iter().enumerate() {
            let applied = match fate {
                Fate::Old => false,
                Fate::New | Fate::Prefix => {
                    apply_write(node, &item.write);
                    true
                }
                Fate::SizeOnly => {
                    apply_size(node, &item.write);
                    true
                }
                Fate::Sectors => rng.chance(600) && apply_sectors(node, &item.write, rng),
            };
            if applied && !matches!(item.write, Write::Meta) {
                reached = at + 1;
            }
        }
        let floor = if self.lazy_times { 0 } else { reached };
        let upto = floor + rng.below((items.len() - floor) as u64 + 1) as usize;
        if let Some(item) = items[..upto].last() {
            node.meta = item.meta.clone();
        }
    }
}

/// What becomes of an inode's unsynced changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// None reached the medium.
    Old,
    /// All did.
    New,
    /// The first few did.
    Prefix,
    /// Sizes did, data did not.
    SizeOnly,
    /// Any sectors of any writes did.
    Sectors,
}

/// What earlier operations must be durable for those that are promised.
#[derive(Default)]
struct Needs {
    /// Every operation in these directories.
    dirs: BTreeSet<NodeId>,
    /// Every operation on these names.
    names: BTreeSet<(NodeId, Box<[u8]>)>,
    /// The operations that gave these directories a name.
    made: BTreeSet<NodeId>,
    /// Every move of a directory: one of them may undo a cycle.
    moves: bool,
}

impl Needs {
    fn want(&self, assigns: &[Assign]) -> bool {
        assigns.iter().any(|a| {
            self.dirs.contains(&a.dir)
                || a.now.is_some_and(|id| self.made.contains(&id))
                || self.names.contains(&(a.dir, a.name.clone()))
        })
    }

    fn extend(&mut self, assigns: &[Assign], synced: NodeId, promised_before: bool) {
        for a in assigns {
            self.names.insert((a.dir, a.name.clone()));
            // What leaves a synced directory must arrive; the synced one itself may yet be lost.
            if a.dir != synced && !promised_before {
                self.made.insert(a.dir);
            }
            // A directory can only be removed once everything in it is gone.
            let removed = a.was.filter(|w| !assigns.iter().any(|b| b.now == Some(*w)));
            self.dirs.extend(removed);
        }
    }
}

/// Whether an operation moves a directory, rather than making or removing one.
fn moves_dir(image: &Image, assigns: &[Assign]) -> bool {
    assigns.iter().any(|a| {
        a.now.and_then(|n| image.get(&n)).is_some_and(Inode::is_dir)
            && assigns.iter().any(|b| b.was == a.now)
    })
}
