//! Comparing what replicas know, directory by directory, where nothing should differ.
//!
//! Owns which differences mean nothing: what a rule or a file system keeps from being synchronized somewhere is
//! known differently there. Never decides who is right, and changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use instep_core::codec;
use instep_core::fnv;
use instep_core::id::ContentId;
use instep_core::path::RelPath;
use instep_core::row::Row;
use instep_core::version::Kind;
use instep_replica::{Replica, Result};

/// What comparing one directory showed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Compared {
    /// Paths of which not all know the same.
    pub differing: Vec<RelPath>,
    /// Directories below, to be compared too.
    pub dirs: Vec<RelPath>,
    /// Rows that were read.
    pub rows: u64,
}

/// What is known of one path: the digest of the first that knows it, how many know it, whether all know the same,
/// and whether that must be so.
struct Known {
    digest: u64,
    count: usize,
    alike: bool,
    counts: bool,
}

/// Compares the rows directly in a directory.
pub fn compare(replicas: &[&dyn Replica], dir: &RelPath) -> Result<Compared> {
    let mut out = Compared::default();
    let mut known: BTreeMap<RelPath, Known> = BTreeMap::new();
    let mut dirs = BTreeSet::new();
    let mut bytes = Vec::new();
    for replica in replicas {
        replica.children(dir, &mut |path, row| {
            out.rows += 1;
            bytes.clear();
            codec::put_entry(&mut bytes, &row.entry);
            let digest = fnv::hash(&bytes);
            if was_dir(&row) {
                dirs.insert(path.clone());
            }
            let of_path = known.entry(path).or_insert(Known {
                digest,
                count: 0,
                alike: true,
                counts: true,
            });
            of_path.count += 1;
            of_path.alike &= of_path.digest == digest;
            of_path.counts &= row.held.is_none() && !row.entry.is_empty();
            ControlFlow::Continue(())
        })?;
    }
    out.dirs = dirs.into_iter().collect();
    let n = replicas.len();
    let differs = |k: &Known| k.counts && (!k.alike || k.count != n);
    let differing = known.into_iter().filter(|(_, k)| differs(k));
    out.differing = differing.map(|(path, _)| path).collect();
    Ok(out)
}

/// Whether something may be recorded below: a directory, or what was one.
fn was_dir(row: &Row) -> bool {
    let is_dir = |k: Kind, content: ContentId| {
        k == Kind::Dir || k == Kind::Tomb && content == ContentId::NONE
    };
    row.is_derived_dir()
        || row
            .entry
            .siblings()
            .iter()
            .any(|(_, v)| is_dir(v.kind, v.content))
}
