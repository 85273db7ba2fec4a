//! Applying changes to an image: whole, in part, or not at all.
//!
//! Owns nothing. Invariant: an operation is applied only if every name is as it found it, and only if the
//! image is still a tree afterwards.

use std::collections::{BTreeMap, BTreeSet};

use super::durable::{Body, Change, Image, Inode, NodeId, Write};
use super::faults::Rng;

/// Bytes that a disk writes all or none of.
const SECTOR: usize = 512;

pub(super) fn apply_write(node: &mut Inode, write: &Write) {
    let Some(content) = node.content_mut() else {
        return;
    };
    match write {
        Write::Bytes(offset, bytes) => content.write_at(*offset, bytes),
        Write::Len(len) => content.set_len(*len),
        Write::Whole(whole) => *content = whole.clone(),
        Write::Meta => {}
    }
}

/// The effect on the size alone; whatever is new reads as zero.
pub(super) fn apply_size(node: &mut Inode, write: &Write) {
    let Some(content) = node.content_mut() else {
        return;
    };
    match write {
        Write::Bytes(offset, bytes) => {
            let end = offset + bytes.len() as u64;
            if end > content.len() {
                content.set_len(end);
            }
        }
        Write::Len(len) => content.set_len(*len),
        Write::Whole(whole) => {
            content.set_len(0);
            content.set_len(whole.len());
        }
        Write::Meta => {}
    }
}

/// A write of which any sectors reached the medium.
pub(super) fn apply_sectors(node: &mut Inode, write: &Write, rng: &mut Rng) -> bool {
    let Write::Bytes(offset, bytes) = write else {
        apply_write(node, write);
        return true;
    };
    if rng.chance(500) {
        apply_size(node, write);
    }
    let Some(content) = node.content_mut() else {
        return false;
    };
    let rate = [250, 500, 900][rng.below(3) as usize];
    let (mut at, end) = (*offset, offset + bytes.len() as u64);
    while at < end {
        let next = (at / SECTOR as u64 + 1) * SECTOR as u64;
        let next = next.min(end);
        if rng.chance(rate) {
            content.write_at(at, &bytes[(at - offset) as usize..(next - offset) as usize]);
        }
        at = next;
    }
    true
}

/// Forgets what a write put beyond a later end of the file.
pub(super) fn clip(write: &mut Write, len: u64) {
    if let Write::Bytes(offset, bytes) = write
        && *offset + bytes.len() as u64 > len
    {
        *bytes = bytes[..len.saturating_sub(*offset) as usize].into();
        *offset = (*offset).min(len);
    }
}

/// Carries out an operation if every name is as it was and the result is a tree; else changes nothing.
pub(super) fn apply_change(image: &mut Image, root: NodeId, change: &Change) -> bool {
    let assigns = &change.assigns;
    let as_found = assigns.iter().all(|a| {
        is_connected(image, root, a.dir)
            && image
                .get(&a.dir)
                .and_then(Inode::entries)
                .is_some_and(|e| e.get(&a.name).copied() == a.was)
            && a.now.is_none_or(|n| image.contains_key(&n))
    });
    let leaves_no_orphans = assigns.iter().filter_map(|a| a.was).all(|w| {
        assigns.iter().any(|a| a.now == Some(w))
            || image
                .get(&w)
                .and_then(Inode::entries)
                .is_none_or(BTreeMap::is_empty)
    });
    if !as_found || !leaves_no_orphans {
        return false;
    }
    for a in assigns {
        put(image, a.dir, &a.name, a.now);
    }
    reparent(image, assigns.iter().map(|a| (a.was, None)));
    reparent(image, assigns.iter().map(|a| (a.now, Some(a.dir))));
    if assigns.iter().all(|a| is_connected(image, root, a.dir)) {
        for a in assigns {
            if let Some(dir) = image.get_mut(&a.dir) {
                dir.meta.mtime = change.time;
                dir.meta.ctime = change.time;
            }
        }
        return true;
    }
    for a in assigns {
        put(image, a.dir, &a.name, a.was);
    }
    reparent(image, assigns.iter().map(|a| (a.now, None)));
    reparent(image, assigns.iter().map(|a| (a.was, Some(a.dir))));
    false
}

fn put(image: &mut Image, dir: NodeId, name: &[u8], now: Option<NodeId>) {
    if let Some(Body::Dir { entries, .. }) = image.get_mut(&dir).map(|n| &mut n.body) {
        match now {
            Some(id) => drop(entries.insert(name.into(), id)),
            None => drop(entries.remove(name)),
        }
    }
}

fn reparent(image: &mut Image, pairs: impl Iterator<Item = (Option<NodeId>, Option<NodeId>)>) {
    for (id, to) in pairs {
        if let Some(Body::Dir { parent, .. }) =
            id.and_then(|id| image.get_mut(&id)).map(|n| &mut n.body)
        {
            *parent = to;
        }
    }
}

/// Whether `dir` hangs below the root.
fn is_connected(image: &Image, root: NodeId, dir: NodeId) -> bool {
    let mut at = dir;
    for _ in 0..=image.len() {
        if at == root {
            return true;
        }
        match image.get(&at).map(|n| &n.body) {
            Some(Body::Dir {
                parent: Some(parent),
                ..
            }) => at = *parent,
            _ => return false,
        }
    }
    false
}

pub(super) fn reachable(image: &Image, root: NodeId) -> BTreeSet<NodeId> {
    let mut seen = BTreeSet::from([root]);
    let mut todo = vec![root];
    while let Some(id) = todo.pop() {
        for child in image
            .get(&id)
            .and_then(Inode::entries)
            .into_iter()
            .flat_map(BTreeMap::values)
        {
            if seen.insert(*child) {
                todo.push(*child);
            }
        }
    }
    seen
}
