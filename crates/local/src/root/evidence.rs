//! Evidence of identity: whether a marker that was found belongs where it is.
//!
//! Owns the memory of replicas in the user's state directory: where each of them was last, what identified
//! the place, and how old its index was. A copied root, a moved one and a restored index are told apart with
//! it. Invariant: a replica's generation only grows, and an index is trusted only if it is of the newest one.
//! Nothing in a root is written here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use instep_core::id::{ReplicaId, ShareId};
use instep_fs::{Dir, place};
use instep_replica::env::Env;
use instep_replica::{Error, ErrorKind, Result, Step};
use serde::{Deserialize, Serialize};

use super::files::{read_text, reserved, write_text};
use super::marker::Marker;
use crate::index::Index;
use crate::replica::fs_error;
use crate::tree::ours;

/// The directory of replicas in the user's state directory.
const REPLICAS: &str = "replicas";

/// What identifies the place that a replica lives in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub(super) struct Evidence {
    pub(super) fs_id: u64,
    pub(super) root_ino: u64,
    pub(super) state_ino: u64,
    pub(super) state_btime: (i64, u32),
}

/// What the evidence says about a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing was known.
    Unknown,
    /// It is the one that was here before.
    Same,
    /// The original is present: this is a copy of it.
    Copied,
    /// The original is gone: this is it, in another place, or restored.
    Moved,
}

/// What the user's state directory knows about a replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Registered {
    #[serde(with = "super::written::path")]
    path: PathBuf,
    evidence: Evidence,
    /// Of the share that was opened last.
    generation: u64,
    /// By share, because each has an index of its own.
    #[serde(default)]
    generations: BTreeMap<String, u64>,
}

impl Registered {
    fn generation(&self, share: ShareId) -> u64 {
        // A record of before knows one number for all.
        let of_all = self.generations.is_empty().then_some(self.generation);
        let of_share = self.generations.get(&share.to_string()).copied();
        of_share.or(of_all).unwrap_or(0)
    }
}

/// The user's state directory's memory of replicas.
pub(super) struct Registry {
    dir: Dir,
}

impl Registry {
    /// Opens the memory, making it if there is none.
    pub(super) fn open(state_dir: &Path) -> Result<Self> {
        let path = state_dir.join(REPLICAS);
        place::create_dir_all(&path, 0o700).map_err(|e| fs_error("make the state directory", e))?;
        let dir = place::open_root(&path).map_err(|e| fs_error("open the state directory", e))?;
        Ok(Self { dir })
    }

    /// Opens the memory if there is one.
    pub(super) fn existing(state_dir: &Path) -> Option<Self> {
        let dir = place::open_root(&state_dir.join(REPLICAS)).ok()?;
        Some(Self { dir })
    }

    fn read(&self, id: &str) -> Option<Registered> {
        serde_json::from_str(&read_text(&self.dir, &record_name(id))?).ok()
    }

    /// Compares what a marker says with where it was found.
    pub(super) fn judge(
        &self,
        marker: Option<&Marker>,
        evidence: &Evidence,
        path: &Path,
    ) -> Verdict {
        let Some(marker) = marker else {
            return Verdict::Unknown;
        };
        if marker.evidence() == evidence {
            return Verdict::Same;
        }
        let original = self
            .read(marker.replica())
            .filter(|r| r.path != path)
            .and_then(|r| {
                let root = place::open_root(&r.path).ok()?;
                let stat = root.stat_self().ok()?;
                let there = Marker::of(&root.open_dir(reserved()).ok()?)?;
                Some(there.replica() == marker.replica() && stat.ino == r.evidence.root_ino)
            });
        if original == Some(true) {
            Verdict::Copied
        } else {
            Verdict::Moved
        }
    }

    /// Whether an index is the newest that this replica had.
    pub(super) fn is_current(
        &self,
        (id, share): (ReplicaId, ShareId),
        index: &mut Index,
    ) -> Result<bool> {
        let known = self.read(&id.to_string());
        let known = known.map_or(0, |r| r.generation(share));
        Ok(generation(index)? >= known)
    }

    /// Notes where a replica is now, and makes its index the newest one.
    pub(super) fn register(
        &self,
        env: &dyn Env,
        (id, share): (ReplicaId, ShareId),
        path: &Path,
        evidence: Evidence,
        index: &mut Index,
    ) -> Result<()> {
        let known = self.read(&id.to_string());
        let before = known.as_ref().map_or(0, |r| r.generation(share));
        let next = before.max(generation(index)?) + 1;
        let mut generations = known.map(|r| r.generations).unwrap_or_default();
        generations.insert(share.to_string(), next);
        index.put_meta(b"generation", next.to_string().as_bytes())?;
        index.commit(instep_store::Durability::Power)?;
        env.reach(Step::Generation);
        let record = Registered {
            path: path.to_path_buf(),
            evidence,
            generation: next,
            generations,
        };
        let text = serde_json::to_string_pretty(&record)
            .map_err(|e| Error::because(ErrorKind::Other, "register the replica", e))?;
        write_text(env, &self.dir, &record_name(&id.to_string()), &text)
            .map_err(|e| fs_error("register the replica", e))?;
        env.reach(Step::Evidence);
        Ok(())
    }
}

/// The replicas that were last seen at a path, for a root that is not there now.
pub fn known_at(path: &Path, state_dir: &Path) -> Vec<ReplicaId> {
    let Some(registry) = Registry::existing(state_dir) else {
        return Vec::new();
    };
    let mut ids = Vec::new();
    let listed = registry.dir.list(&mut |file, _| {
        let text = String::from_utf8_lossy(file);
        ids.extend(
            text.strip_suffix(".json")
                .and_then(|id| id.parse::<ReplicaId>().ok()),
        );
    });
    if listed.is_err() {
        return Vec::new();
    }
    ids.retain(|id| {
        let record = registry.read(&id.to_string());
        record.is_some_and(|r| r.path == path)
    });
    ids
}

/// Whether what was last seen at a path is on a file system that is not mounted there now: then the directory
/// is the place to mount it, and not the root.
pub fn is_bare_mount_point(path: &Path, state_dir: &Path) -> bool {
    let known = known_at(path, state_dir);
    let profile = place::open_root(path).and_then(|root| root.profile(None));
    let (Some(registry), Ok(profile)) = (Registry::existing(state_dir), profile) else {
        return false;
    };
    let elsewhere = |id: &ReplicaId| {
        let record = registry.read(&id.to_string());
        record.is_some_and(|r| r.evidence.fs_id != profile.fs_id)
    };
    !known.is_empty() && known.iter().all(elsewhere)
}

/// Forgets a replica of which nothing is left that its place could prove.
pub(super) fn unregister(state_dir: &Path, replica: &str) {
    if let Some(registry) = Registry::existing(state_dir) {
        // What stays behind names a replica that nobody is any more.
        let _left = registry.dir.remove_file(ours(&record_name(replica)));
    }
}

fn record_name(id: &str) -> String {
    format!("{id}.json")
}

fn generation(index: &mut Index) -> Result<u64> {
    let text = index
        .meta(b"generation")?
        .and_then(|b| String::from_utf8(b).ok());
    Ok(text.and_then(|t| t.parse().ok()).unwrap_or(0))
}
