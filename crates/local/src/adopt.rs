//! Taking over a directory that was renamed here at once, because it was renamed elsewhere: its rows move with
//! it, and nothing below it is looked at, read or compared.
//!
//! Invariant: a row says of the new place only what the old row vouched for.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use instep_core::path::RelPath;
use instep_core::row::Row;
use instep_replica::{Result, Step};
use instep_store::Durability;

use crate::index::{Index, store_error};
use crate::print::Digest;
use crate::replica::LocalReplica;

/// The rows at and below a path.
fn rows(index: &mut Index, top: &RelPath) -> Result<BTreeMap<RelPath, Row>> {
    let mut rows = BTreeMap::new();
    if let Some(row) = index.get(top)? {
        rows.insert(top.clone(), row);
    }
    let mut add = |path, row| {
        rows.insert(path, row);
        ControlFlow::Continue(())
    };
    let read = index.store().subtree(top, &mut add);
    read.map_err(|e| store_error("read the index", e))?;
    Ok(rows)
}

/// Gives the rows of what was renamed, and of its old place, what `entries` say of both.
pub(crate) fn adopt_move(
    replica: &LocalReplica,
    from: &RelPath,
    to: &RelPath,
    entries: &[(RelPath, Row)],
) -> Result<()> {
    let mut index = replica.index();
    let epoch = index.epoch();
    let moved = rows(&mut index, from)?;
    let mut there = rows(&mut index, to)?;
    // The sums move along as they are: taking names out one by one would leave those of nothing.
    let digests = take_digests(&mut index, from);
    take_digests(&mut index, to);
    for (path, theirs) in entries {
        let source = path.rebase(to, from).and_then(|p| moved.get(&p));
        let (old, source) = if path.is_within(from) {
            (moved.get(path).cloned(), None)
        } else {
            (there.remove(path), source)
        };
        // Who is told twice has it under its new name already.
        let is_had = |r: &&Row| r.entry == theirs.entry && r.shown == theirs.materialised();
        let had = old.as_ref().filter(|_| !path.is_within(from));
        let source = source.filter(|r| r.print.is_some());
        let source = source.or(had.filter(is_had));
        let print = source.and_then(|r| r.print);
        let is_told = path.is_within(from) || print.is_some();
        let new = Row {
            entry: theirs.entry.clone(),
            shown: theirs.materialised().filter(|_| is_told),
            print,
            seen: source.and_then(|r| r.seen.clone()),
            held: None,
            epoch,
        };
        index.put(path, old.as_ref(), &new)?;
    }
    drop(index);
    // The moved object's own fingerprint may have changed with its name.
    replica.refresh(to, None);
    let mut index = replica.index();
    for (dir, digest) in digests {
        if let Some(new) = dir.rebase(from, to) {
            index.set_digest(&new, Some(digest));
        }
    }
    replica.env.reach(Step::MoveAdopted);
    index.commit(Durability::Process)?;
    drop(index);
    // What a user changed in it just before it moved was told of under its old name.
    replica.hint_tree(to.clone());
    Ok(())
}

/// The digests at and below a directory, which has none afterwards.
fn take_digests(index: &mut Index, top: &RelPath) -> Vec<(RelPath, Digest)> {
    let mut taken = Vec::new();
    for dir in index.digest_dirs(top) {
        taken.extend(index.digest(&dir).map(|digest| (dir.clone(), digest)));
        index.set_digest(&dir, None);
    }
    taken
}
