//! The state of a root read from end to end, for a person who asks whether all is well.
//!
//! Owns what counts as being left over. Invariant: nothing is made and nothing is changed but by
//! [`close_to_others`]; what cannot be read is said, not passed over.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use instep_core::id::ShareId;
use instep_core::policy::Role;
use instep_fs::{Dir, Profile, Space, place};
use instep_replica::Result;
use instep_replica::records::TrashRecord;
use instep_store::{IndexStore, OpenMode, SqliteStore, Table};

use super::evidence::{Registry, Verdict};
use super::files::reserved;
use super::index_file;
use super::marker::Marker;
use super::site::Site;
use crate::replica::fs_error;
use crate::tree::Ours;

/// Whether a root is where its replica was last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is.
    Same,
    /// It is a copy: it will be another replica.
    Copied,
    /// It was moved, or restored from a backup: its index will not be trusted.
    Moved,
}

/// Objects of ours that are in no book, or whose object is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Left {
    /// How many are in the staging directory.
    pub staged: u64,
    /// Their bytes.
    pub staged_bytes: u64,
    /// How many objects in the trash and the version store no record speaks of.
    pub unlisted: u64,
    /// Of how many records the object is not there.
    pub missing: u64,
    /// How many objects are kept.
    pub kept: u64,
    /// Their bytes.
    pub kept_bytes: u64,
}

/// What was found.
#[derive(Debug)]
pub struct Examination {
    /// What its file system can do, judged without trying.
    pub profile: Profile,
    /// Room that is left.
    pub space: Space,
    /// Where its state is.
    pub base: PathBuf,
    /// The state is in the root.
    pub inside: bool,
    /// Permission bits of the directory with the state, and whose it is.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Whether it is where it was.
    pub standing: Standing,
    /// What is wrong with the index, in words.
    pub index: Vec<String>,
    /// Rows of the index.
    pub rows: u64,
    /// What lies about.
    pub left: Left,
}

/// Reads the state of a root in a share.
pub fn examine(path: &Path, state_dir: &Path, share: ShareId, role: Role) -> Result<Examination> {
    let site = Site::find(path, state_dir)?;
    let inside = role != Role::Source && site.inside().is_some_and(|d| Marker::of(&d).is_some());
    let fail = |e| fs_error("examine .instep", e);
    let base = site
        .state(role)
        .ok_or_else(|| fail(instep_fs::Error::new("find the state of the root", 2)))?;
    let stat = base.stat_self().map_err(fail)?;
    let mut out = Examination {
        profile: site.profile.clone(),
        space: site.root.free_space().map_err(fail)?,
        base: if inside {
            site.path.join(".instep")
        } else {
            site.outside.clone()
        },
        inside,
        mode: stat.mode & 0o777,
        uid: stat.uid,
        standing: Standing::Same,
        index: Vec::new(),
        rows: 0,
        left: Left::default(),
    };
    let marker = Marker::of(&base);
    let registry = Registry::existing(state_dir);
    if let (Some(marker), Some(registry)) = (&marker, registry) {
        let verdict = registry.judge(Some(marker), &site.evidence(&base)?, &site.path);
        out.standing = match verdict {
            Verdict::Same | Verdict::Unknown => Standing::Same,
            Verdict::Copied => Standing::Copied,
            Verdict::Moved => Standing::Moved,
        };
    }
    let file = index_file::file_name(share, marker.as_ref());
    out.read_index(&base, &file);
    Ok(out)
}

impl Examination {
    fn read_index(&mut self, base: &Dir, file: &str) {
        let store = SqliteStore::open(&place::fd_path(base, file), OpenMode::ReadOnly);
        let mut store = match store {
            Ok(store) => store,
            Err(e) => return self.index.push(said(&e)),
        };
        match store.check() {
            Ok(report) => {
                self.rows = report.rows;
                let problems = report.problems.iter().map(ToString::to_string);
                self.index.extend(problems);
            }
            Err(e) => self.index.push(said(&e)),
        }
        if let Ok(dirs) = Ours::existing(base.clone()) {
            self.left = left(&dirs, &mut store);
        }
    }
}

fn said(e: &instep_store::StoreError) -> String {
    let cause = std::error::Error::source(e).map(ToString::to_string);
    cause.map_or_else(|| e.to_string(), |cause| format!("{e}: {cause}"))
}

fn left(dirs: &Ours, store: &mut dyn IndexStore) -> Left {
    let (staged, staged_bytes) = sum(&dirs.staging);
    let mut out = Left {
        staged,
        staged_bytes,
        ..Left::default()
    };
    for (table, dir) in [(Table::Trash, &dirs.trash), (Table::Stored, &dirs.versions)] {
        let mut there = BTreeSet::new();
        let listed = dir.list(&mut |name, _| {
            there.insert(name.to_vec());
        });
        let read = store.records(table, &mut |key, body| {
            out.kept += 1;
            let size = serde_json::from_slice::<TrashRecord>(body).map_or(0, |r| r.size);
            out.kept_bytes = out.kept_bytes.saturating_add(size);
            out.missing += u64::from(!there.remove(key));
            std::ops::ControlFlow::Continue(())
        });
        // What cannot be listed or read tells nothing of what is missing.
        if listed.is_err() || read.is_err() {
            out.missing = 0;
        } else {
            out.unlisted += there.len() as u64;
        }
    }
    out
}

/// How many objects are in a directory of ours, and their bytes.
fn sum(dir: &Dir) -> (u64, u64) {
    let (mut count, mut bytes) = (0, 0);
    let listed = dir.list_stat(&mut |_, stat| {
        count += 1;
        bytes += stat.map_or(0, |s| s.size);
    });
    if listed.is_ok() {
        (count, bytes)
    } else {
        (0, 0)
    }
}

/// Takes the permissions of others from the `.instep` of a root.
pub fn close_to_others(path: &Path) -> Result<()> {
    let root = place::open_root(path).map_err(|e| fs_error("open the root", e))?;
    root.set_mode(reserved(), 0o700)
        .map_err(|e| fs_error("change the mode of .instep", e))
}
