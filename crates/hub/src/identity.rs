//! Whose a store is, and whether it is the newest one.
//!
//! Owns the marker in a hub's directory and what is remembered of it outside: where it was, what identified the place,
//! and how old its stores were. Both stores have a generation, which grows at each opening and from time to time while
//! changes happen. Invariant: a store that is older than what is remembered, or in another place, is noticed before
//! anything is done with it. What follows from that is decided in `open`.

use std::path::{Path, PathBuf};

use instep_core::id::{ReplicaId, ShareId};
use instep_fs::small_file::{self, Replacing};
use instep_fs::{Dir, ErrorKind as FsErrorKind, place};
use instep_replica::Result;
use instep_replica::Step;
use instep_replica::env::Env;
use instep_replica::error::{Error, ErrorKind};
use instep_store::{Durability, IndexStore, Table};
use serde::{Deserialize, Serialize};

use crate::chunks::ours;
use crate::index::store_error;

const MARKER: &str = "hub.json";
const FORMAT: u32 = 1;
/// Where hubs are remembered in the user's state directory.
const HUBS: &str = "hubs";
const KEY_GENERATION: &[u8] = b"generation";
/// Bytes of a small file of ours.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What a failed call means to the whole replica.
pub(crate) fn fs_error(attempt: &str, e: instep_fs::Error) -> Error {
    let kind = match e.kind() {
        FsErrorKind::ReadOnly => ErrorKind::ReadOnly,
        FsErrorKind::NoSpace => ErrorKind::NoSpace,
        FsErrorKind::Denied => ErrorKind::Denied,
        FsErrorKind::Crashed => ErrorKind::Crashed,
        FsErrorKind::Absent => ErrorKind::Gone,
        _ => ErrorKind::Other,
    };
    Error::because(kind, attempt.to_owned(), e)
}

fn read_text(dir: &Dir, name: &str) -> Option<String> {
    let bytes = small_file::read(dir, ours(name), FILE_BYTES_MAX).ok()?;
    String::from_utf8(bytes).ok()
}

/// Replaces a small file of ours, durably.
fn write_text(env: &dyn Env, dir: &Dir, name: &str, text: &str) -> instep_fs::Result<()> {
    let draft = format!("{name}.new");
    let reached = |how| {
        env.reach(match how {
            Replacing::Drafted => Step::FileDrafted,
            Replacing::Named => Step::FileReplaced,
        });
    };
    small_file::replace(dir, ours(name), ours(&draft), text.as_bytes(), reached)
}

/// What identifies the place that a hub lives in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Evidence {
    fs_id: u64,
    ino: u64,
    btime: (i64, u32),
}

impl Evidence {
    /// Of an open directory.
    pub(crate) fn of(home: &Dir) -> Result<Self> {
        let stat = home.stat_self();
        let stat = stat.map_err(|e| fs_error("examine the hub's directory", e))?;
        let profile = home.profile(None);
        let profile = profile.map_err(|e| fs_error("examine the hub's file system", e))?;
        Ok(Self {
            fs_id: profile.fs_id,
            ino: stat.ino,
            btime: (stat.btime.secs, stat.btime.nanos),
        })
    }
}

/// What a hub's directory says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Marker {
    format: u32,
    replica: String,
    share: String,
    evidence: Evidence,
}

impl Marker {
    /// Of a replica of a share in a place.
    pub(crate) fn new(replica: ReplicaId, share: ShareId, evidence: &Evidence) -> Self {
        Self {
            format: FORMAT,
            replica: replica.to_string(),
            share: share.to_string(),
            evidence: evidence.clone(),
        }
    }

    /// The marker in a directory; none if there is none.
    pub(crate) fn of(home: &Dir) -> Result<Option<Self>> {
        let Some(text) = read_text(home, MARKER) else {
            return Ok(None);
        };
        let marker: Self = serde_json::from_str(&text)
            .map_err(|e| Error::because(ErrorKind::Damaged, "read the hub's marker", e))?;
        if marker.format > FORMAT {
            return Err(Error::new(ErrorKind::NewerFormat, "read the hub's marker"));
        }
        Ok(Some(marker))
    }

    /// Writes it, durably.
    pub(crate) fn write(&self, env: &dyn Env, home: &Dir) -> Result<()> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| Error::because(ErrorKind::Other, "write the hub's marker", e))?;
        write_text(env, home, MARKER, &text).map_err(|e| fs_error("write the hub's marker", e))?;
        env.reach(Step::MarkerWritten);
        Ok(())
    }

    /// Whose it is.
    pub(crate) fn replica(&self) -> Option<ReplicaId> {
        self.replica.parse().ok()
    }

    /// Of which share.
    pub(crate) fn share(&self) -> Option<ShareId> {
        self.share.parse().ok()
    }

    /// Whether the directory at a path is still the one of this replica.
    pub(crate) fn is_at(path: &Path, home: &Dir) -> core::result::Result<(), String> {
        let there = place::open_root(path).and_then(|dir| dir.stat_self());
        let there = there.map_err(|e| e.to_string())?;
        let open = home.stat_self().map_err(|e| e.to_string())?;
        if (there.dev, there.ino) != (open.dev, open.ino) {
            return Err(format!("{} is another directory now", path.display()));
        }
        Ok(())
    }
}

/// What the evidence says about a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is where it was.
    Same,
    /// The original is present: this is a copy of it.
    Copied,
    /// The original is gone: this is it, in another place, or restored.
    Moved,
}

/// What is remembered of a hub outside its directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Remembered {
    path: PathBuf,
    evidence: Evidence,
    generation: u64,
}

/// The memory of one hub in the user's state directory.
#[derive(Debug)]
pub(crate) struct Witness {
    memory: Dir,
    path: PathBuf,
    evidence: Evidence,
}

impl Witness {
    /// Opens the memory for the hub in a place.
    pub(crate) fn open(state_dir: &Path, path: &Path, evidence: Evidence) -> Result<Self> {
        let hubs = state_dir.join(HUBS);
        place::create_dir_all(&hubs, 0o700).map_err(|e| fs_error("make the state directory", e))?;
        let memory = place::open_root(&hubs);
        Ok(Self {
            memory: memory.map_err(|e| fs_error("open the state directory", e))?,
            path: path.to_path_buf(),
            evidence,
        })
    }

    fn remembered(&self, id: ReplicaId) -> Option<Remembered> {
        serde_json::from_str(&read_text(&self.memory, &format!("{id}.json"))?).ok()
    }

    /// Compares what a marker says with where it was found.
    pub(crate) fn judge(&self, marker: &Marker) -> Verdict {
        if marker.evidence == self.evidence {
            return Verdict::Same;
        }
        let known = marker.replica().and_then(|id| self.remembered(id));
        let original = known.filter(|r| r.path != self.path).and_then(|r| {
            let there = place::open_root(&r.path).ok()?;
            let same = Marker::of(&there).ok()??.replica == marker.replica;
            (same && Evidence::of(&there).ok()? == r.evidence).then_some(())
        });
        original.map_or(Verdict::Moved, |()| Verdict::Copied)
    }

    /// Whether a store is the newest that this hub had. One that never was a hub's is not.
    pub(crate) fn is_current(&self, id: ReplicaId, store: &mut dyn IndexStore) -> Result<bool> {
        let known = self.remembered(id).map_or(1, |r| r.generation);
        Ok(generation(store)? >= known)
    }

    /// Makes these stores the newest ones, and remembers that.
    pub(crate) fn note(
        &self,
        env: &dyn Env,
        id: ReplicaId,
        stores: [&mut dyn IndexStore; 2],
    ) -> Result<()> {
        let mut next = self.remembered(id).map_or(0, |r| r.generation);
        let [contents, index] = stores;
        for store in [&mut *contents, &mut *index] {
            next = next.max(generation(store)?);
        }
        next += 1;
        for store in [contents, index] {
            let body = next.to_string();
            store
                .put_record(Table::Meta, KEY_GENERATION, body.as_bytes())
                .and_then(|()| store.commit(Durability::Power))
                .map_err(|e| store_error("write the generation", e))?;
        }
        env.reach(Step::Generation);
        let record = Remembered {
            path: self.path.clone(),
            evidence: self.evidence.clone(),
            generation: next,
        };
        let text = serde_json::to_string_pretty(&record)
            .map_err(|e| Error::because(ErrorKind::Other, "remember the hub", e))?;
        write_text(env, &self.memory, &format!("{id}.json"), &text)
            .map_err(|e| fs_error("remember the hub", e))?;
        env.reach(Step::Evidence);
        Ok(())
    }
}

fn generation(store: &mut dyn IndexStore) -> Result<u64> {
    let body = store.record(Table::Meta, KEY_GENERATION);
    let body = body.map_err(|e| store_error("read the generation", e))?;
    let text = body.and_then(|b| String::from_utf8(b).ok());
    Ok(text.and_then(|t| t.parse().ok()).unwrap_or(0))
}
