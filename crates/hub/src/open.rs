//! Opening a directory as a hub's copy of a share.
//!
//! Owns the order of opening: the directory is locked, identity is judged, the stores are opened and made to fit the
//! verdict, the marker is written, and only then is the hub remembered and begun. Invariant: one process at a time has
//! a directory; a store that is damaged is moved aside and never emptied silently.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use instep_core::id::{ActorId, ReplicaId, ShareId};
use instep_fs::{Dir, ErrorKind as FsErrorKind, LockFile, place};
use instep_replica::Result;
use instep_replica::Step;
use instep_replica::env::Env;
use instep_replica::error::{Error, ErrorKind};
use instep_store::{IndexStore, OpenMode, SqliteStore};

use crate::chunks::ours;
use crate::identity::{Evidence, Marker, Verdict, Witness, fs_error};
use crate::index::store_error;
use crate::replica::{HubReplica, Parts};
use crate::retention::Retention;

const LOCK: &str = "lock";
const INDEX: &str = "index.db";
const CONTENTS: &str = "contents.db";
/// Whoever only asks who has the lock has it for a moment.
const LOCK_TRIES: u32 = 50;

/// How to open a hub's copy of a share.
#[derive(Debug, Clone)]
pub struct HubOptions {
    /// The name in messages.
    pub label: String,
    /// The share; a directory of another one is refused.
    pub share: ShareId,
    /// The user's state directory, where hubs are remembered.
    pub state_dir: PathBuf,
    /// How long what was shown stays reachable.
    pub retention: Retention,
    /// What this process is, for whoever finds the directory locked: its command line.
    pub command: String,
}

/// An actor that nobody was before.
pub(crate) fn fresh_actor(env: &dyn Env) -> ActorId {
    let mut out = [0; 8];
    out.copy_from_slice(&env.random()[..8]);
    ActorId(out)
}

impl HubReplica {
    /// Makes a directory that is missing or empty a hub's copy of a share, or opens the one that is there.
    pub fn create(path: &Path, env: Arc<dyn Env>, options: HubOptions) -> Result<Self> {
        place::create_dir_all(path, 0o700).map_err(|e| fs_error("make the hub's directory", e))?;
        Opener::new(path, env, options)?.open(true)
    }

    /// Opens the directory that [`HubReplica::create`] made.
    pub fn open(path: &Path, env: Arc<dyn Env>, options: HubOptions) -> Result<Self> {
        Opener::new(path, env, options)?.open(false)
    }
}

struct Opener {
    path: PathBuf,
    home: Dir,
    env: Arc<dyn Env>,
    options: HubOptions,
}

/// A store that was opened, and whether a damaged one had to be moved aside.
type Opened = (Box<dyn IndexStore>, bool);

impl Opener {
    fn new(path: &Path, env: Arc<dyn Env>, options: HubOptions) -> Result<Self> {
        let path = place::canonical(path).map_err(|e| fs_error("find the hub's directory", e))?;
        let home = place::open_root(&path);
        Ok(Self {
            home: home.map_err(|e| fs_error("open the hub's directory", e))?,
            path,
            env,
            options,
        })
    }

    fn open(self, create: bool) -> Result<HubReplica> {
        let lock = self.lock()?;
        self.env.reach(Step::Locked);
        let marker = self.marker(create)?;
        let has_index = self.home.stat(ours(INDEX)).map(|s| s.is_some());
        let has_index = has_index.map_err(|e| fs_error("examine the hub's directory", e))?;
        let evidence = Evidence::of(&self.home)?;
        let witness = Witness::open(&self.options.state_dir, &self.path, evidence.clone())?;
        let verdict = marker.as_ref().map(|m| witness.judge(m));
        let id = marker.as_ref().and_then(Marker::replica);
        let id = id.filter(|_| verdict != Some(Verdict::Copied));
        let id = id.unwrap_or_else(|| ReplicaId(self.env.random()));
        let (mut index, lost_index) = self.store(INDEX)?;
        let (mut contents, lost_contents) = self.store(CONTENTS)?;
        self.env.reach(Step::IndexOpened);
        // With stores and without a marker it is somebody who does not know who it is, and forgets nothing.
        let is_new = marker.is_none() && !has_index;
        let is_nameless = marker.is_none();
        let is_old = !witness.is_current(id, index.as_mut())?;
        let is_elsewhere = verdict.is_some_and(|v| v != Verdict::Same);
        let is_rejoining = !is_new && (is_nameless || is_old || lost_index || is_elsewhere);
        let is_unsure = lost_contents || !witness.is_current(id, contents.as_mut())?;
        let guarded = (self.path.clone(), self.home.clone());
        let parts = Parts {
            id,
            share: self.options.share,
            label: self.options.label.clone(),
            location: self.path.display().to_string(),
            home: self.home.clone(),
            index,
            contents,
            is_new,
            is_rejoining,
            is_unsure: is_unsure && !is_new,
            retention: self.options.retention,
            guard: Box::new(move || Marker::is_at(&guarded.0, &guarded.1)),
        };
        let mut hub = HubReplica::assemble(Arc::clone(&self.env), parts)?;
        hub.begin()?;
        Marker::new(id, self.options.share, &evidence).write(self.env.as_ref(), &self.home)?;
        hub.is_witnessed_by(witness, lock, (self.path, self.options))?;
        Ok(hub)
    }

    /// What the directory says of itself.
    fn marker(&self, create: bool) -> Result<Option<Marker>> {
        let at = self.path.display();
        if let Some(marker) = Marker::of(&self.home)? {
            if marker.share() != Some(self.options.share) {
                let attempt = format!("{at} is a hub's copy of another share");
                return Err(Error::new(ErrorKind::Other, attempt));
            }
            return Ok(Some(marker));
        }
        if !create {
            let attempt = format!("{at} has no marker of a hub");
            return Err(Error::new(ErrorKind::Gone, attempt));
        }
        Ok(None)
    }

    fn lock(&self) -> Result<LockFile> {
        for n in 1..=LOCK_TRIES {
            let lock = self.home.try_lock(ours(LOCK));
            if let Some(lock) = lock.map_err(|e| fs_error("lock the hub", e))? {
                let text = format!("pid {}: {}", std::process::id(), self.options.command);
                let written = lock.write_text(&text);
                written.map_err(|e| fs_error("lock the hub", e))?;
                return Ok(lock);
            }
            if n < LOCK_TRIES {
                place::pause(Duration::from_millis(10));
            }
        }
        let attempt = format!("{} is held by another process", self.path.display());
        Err(Error::new(ErrorKind::InUse, attempt))
    }

    fn store(&self, file: &str) -> Result<Opened> {
        let open = || SqliteStore::open(&place::fd_path(&self.home, file), OpenMode::Create);
        let failed = |e| store_error("open the hub's stores", e);
        match open() {
            Ok(store) => Ok((Box::new(store), false)),
            Err(e) if e.kind() == instep_store::ErrorKind::Corrupt => {
                self.set_aside(file);
                Ok((Box::new(open().map_err(failed)?), true))
            }
            Err(e) => Err(failed(e)),
        }
    }

    /// Moves a store aside with its companions. It stays until a person deletes it.
    fn set_aside(&self, file: &str) {
        for suffix in ["", "-wal", "-shm"] {
            let from = format!("{file}{suffix}");
            for n in 0..100 {
                let to = format!("{file}.aside-{n}{suffix}");
                match self
                    .home
                    .rename_noreplace(ours(&from), &self.home, ours(&to))
                {
                    Err(e) if e.kind() == FsErrorKind::Taken => {}
                    Ok(()) => {
                        self.env.reach(Step::IndexAside);
                        break;
                    }
                    // Absent is fine; anything else shows when the new store is opened.
                    _ => break,
                }
            }
        }
    }
}
