//! Recognising moves: something is gone in one place and an identical object is in another.
//!
//! An inode number alone says nothing, because file systems use it again at once. An object counts as the
//! same only if its whole fingerprint is (a directory's contents keep theirs when the directory is
//! renamed), or if it has the same inode and the same content.

use std::collections::{BTreeMap, BTreeSet};

use instep_core::path::RelPath;
use instep_core::row::Row;
use instep_core::version::{Kind, Version};
use instep_replica::Look;
use instep_replica::look::{Finding, Found, Move};

use crate::attributes;
use crate::print::print;
use crate::scan::{self, Candidate, Gone};

/// What is gone, by inode number.
pub type ByInode = BTreeMap<u64, Vec<usize>>;

/// Where objects may have been, by their identity.
pub fn by_inode(gone: &[Gone]) -> ByInode {
    let mut by_ino = ByInode::new();
    for (i, g) in gone.iter().enumerate() {
        if let Some(print) = g.row.print {
            by_ino.entry(print.ino).or_default().push(i);
        }
    }
    by_ino
}

/// Takes candidates out whose whole fingerprint is known from a place that they left: their content need
/// not be read.
pub fn split(
    gone: &[Gone],
    by_ino: &ByInode,
    candidates: Vec<Candidate>,
) -> (Vec<Finding>, Vec<Candidate>) {
    if gone.is_empty() {
        return (Vec::new(), candidates);
    }
    let mut known = Vec::new();
    let mut unknown = Vec::new();
    for c in candidates {
        let seen = print(&c.stat);
        let same = by_ino
            .get(&c.stat.ino)
            .into_iter()
            .flatten()
            .map(|i| &gone[*i])
            .filter(|g| g.row.print == Some(seen) && g.path != c.path)
            .find_map(|g| {
                g.row
                    .present()
                    .filter(|v| v.kind == Kind::File)
                    .map(|v| (g, v))
            });
        let Some((g, v)) = same else {
            unknown.push(c);
            continue;
        };
        let mut found = scan::present(Kind::File, v.content, &c.stat, Box::default(), false);
        if let Found::Present {
            moved_from,
            attributes,
            ..
        } = &mut found
        {
            *moved_from = Some(g.path.clone());
            *attributes = g.row.seen.as_ref().map(|s| Box::new(s.attributes.clone()));
        }
        known.push(Finding {
            path: c.path,
            found,
        });
    }
    (known, unknown)
}

/// Marks findings that came from somewhere else, and lists the outermost moves. Returns the old paths whose
/// absence is certain: those of renamed directories. A single file that was renamed away may come back
/// under its old name in a moment, because many programs save like that; its absence settles like any
/// other.
pub fn detect(gone: &[Gone], by_ino: &ByInode, look: &mut Look) -> BTreeSet<RelPath> {
    if gone.is_empty() {
        return BTreeSet::new();
    }
    look.findings.sort_by(|a, b| a.path.cmp(&b.path));
    let mut to_from: BTreeMap<RelPath, RelPath> = BTreeMap::new();
    let mut dirs: BTreeSet<RelPath> = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for finding in &mut look.findings {
        let Found::Present {
            kind,
            content,
            print,
            attributes,
            moved_from,
            ..
        } = &mut finding.found
        else {
            continue;
        };
        let same = by_ino
            .get(&print.ino)
            .into_iter()
            .flatten()
            .map(|i| &gone[*i])
            .find(|g| {
                !taken.contains(&g.path)
                    && g.path != finding.path
                    && g.row
                        .present()
                        .is_some_and(|v| v.kind == *kind && v.content == *content)
            });
        if let Some(g) = same {
            taken.insert(g.path.clone());
            attributes::inherit(attributes, &g.row, *kind);
            *moved_from = Some(g.path.clone());
            to_from.insert(finding.path.clone(), g.path.clone());
            if *kind == Kind::Dir {
                dirs.insert(g.path.clone());
            }
        }
    }
    look.moves = outermost(gone, &to_from, look);
    let in_dir = |p: &RelPath| {
        let mut up = Some(p.clone());
        while let Some(at) = up {
            if dirs.contains(&at) {
                return true;
            }
            up = at.parent();
        }
        false
    };
    taken.retain(|p| in_dir(p));
    certain(gone, taken)
}

/// Of what left, that from which nothing was left behind: an inode number that another directory got at once
/// must not take the name away from what is still missed below it.
fn certain(gone: &[Gone], mut left: BTreeSet<RelPath>) -> BTreeSet<RelPath> {
    let missed: Vec<&RelPath> = gone
        .iter()
        .map(|g| &g.path)
        .filter(|p| !left.contains(*p))
        .collect();
    for path in missed {
        let mut up = path.parent();
        while let Some(dir) = up {
            left.remove(&dir);
            up = dir.parent();
        }
    }
    left
}

/// Whether permissions and time are what they were before the move: a rename alone brings no others.
fn is_dressed_alike(row: &Row, found: &Found) -> bool {
    let Found::Present {
        kind, mode, mtime, ..
    } = found
    else {
        return false;
    };
    let same_mode = *kind == Kind::Link || row.print.is_some_and(|p| p.mode == *mode);
    let same_time = |v: &Version| *kind == Kind::Dir || v.mtime == *mtime;
    same_mode && attributes::is_alike(row, found) && row.present().is_some_and(same_time)
}

/// What lies at or below a path is one run in tree order.
fn run<T>(sorted: &[T], top: &RelPath, path: impl Fn(&T) -> &RelPath) -> std::ops::Range<usize> {
    let start = sorted.partition_point(|t| path(t) < top);
    let len = sorted[start..].partition_point(|t| path(t).is_within(top));
    start..start + len
}

fn outermost(gone: &[Gone], to_from: &BTreeMap<RelPath, RelPath>, look: &Look) -> Vec<Move> {
    let mut moves: Vec<Move> = Vec::new();
    for (to, from) in to_from {
        let inside = |m: &Move| to.rebase(&m.to, &m.from).as_ref() == Some(from);
        if moves
            .last()
            .is_some_and(|m| to.is_within(&m.to) && inside(m))
        {
            continue;
        }
        let left = &gone[run(gone, from, |g| &g.path)];
        let below_to = &look.findings[run(&look.findings, to, |f| &f.path)];
        let whole = left.len() == below_to.len()
            && below_to.iter().all(|f| {
                let old = f.path.rebase(to, from);
                let source = old
                    .as_ref()
                    .and_then(|old| left.binary_search_by(|g| g.path.cmp(old)).ok());
                old.as_ref() == to_from.get(&f.path)
                    && source.is_some_and(|i| is_dressed_alike(&left[i].row, &f.found))
            });
        moves.push(Move {
            from: from.clone(),
            to: to.clone(),
            whole,
        });
    }
    moves
}
