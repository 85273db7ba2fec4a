//! Which directory is which replica: markers, memberships, locks, and where the state is kept.
//!
//! A root that takes changes keeps its state in `.instep` at its top. A root that must not be touched (a
//! mirror's source, a read-only file system) keeps it in the user's state directory, found by the
//! identity of the root's inode. The user's state directory also keeps, for every replica, evidence of
//! where it was last, so that a copy can be told from a move, and a restored index from a current one.
//! A root with state inside that cannot be written now is read with a copy of its index in memory, and
//! opened anew as the same replica when it can be written. Where it has no state inside, its outside
//! identity moves in then.
//!
//! Invariant: inspecting and previewing create nothing anywhere.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use instep_core::id::{ActorId, ReplicaId, ShareId};
use instep_core::path::{Name, RESERVED, RelPath};
use instep_core::policy::Role;
use instep_fs::{Dir, ErrorKind as FsErrorKind, LockFile, Profile, Stat, place};
use instep_replica::env::Env;
use instep_replica::{Error, ErrorKind, Replica, Result};
use instep_store::{IndexStore, MemoryDisk, OpenMode, SqliteStore};
use serde::{Deserialize, Serialize};

use crate::index::{Index, store_error};
use crate::replica::{LocalReplica, Parts, RootGuard, Settings, fs_error, locked};
use crate::rules::{IgnoreOptions, Rules};
use crate::tree::{self, Ours, ours};

/// The marker's file name in our directory.
const MARKER: &str = "marker.json";
/// The lock's file name in our directory.
const LOCK: &str = "lock";
/// Bytes read of one small file of ours.
const OWN_FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The index's file name.
const INDEX: &str = "index.db";

/// What a root is in one share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MembershipKind {
    /// Kept equal with others.
    Sync,
    /// Source or target of a mirror.
    Mirror,
}

/// A root's part in one share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// Which share.
    pub share: ShareId,
    /// Who it is in the share.
    pub replica: ReplicaId,
    /// What it may do.
    pub role: Role,
    /// Of which kind.
    pub kind: MembershipKind,
    /// Its name in messages.
    pub label: String,
    /// All members when it was used last: name and place.
    pub members: Vec<(String, PathBuf)>,
}

/// What can be seen of a root without touching it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// Its path without links.
    pub path: PathBuf,
    /// Something is there.
    pub exists: bool,
    /// It is a directory.
    pub is_dir: bool,
    /// A name of ours in it was made by someone else; what exactly.
    pub foreign: Option<String>,
    /// Its shares.
    pub memberships: Vec<Membership>,
    /// Who holds it: `pid 123: instep sync a b`.
    pub holder: Option<String>,
}

/// The share that a root is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShareChoice {
    /// One that some root is in already.
    Existing(ShareId),
    /// One that begins now.
    New(ShareId),
}

impl ShareChoice {
    fn id(self) -> ShareId {
        match self {
            Self::Existing(id) | Self::New(id) => id,
        }
    }
}

/// How to open a root.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// The name in messages.
    pub label: String,
    /// Where it is, as typed.
    pub location: String,
    /// Where it is, without links.
    pub path: PathBuf,
    /// What it may do.
    pub role: Role,
    /// For which share.
    pub share: ShareChoice,
    /// As part of a mirror.
    pub mirror: bool,
    /// Make the directory if it is missing.
    pub create: bool,
    /// Create nothing; keep what is recorded in memory.
    pub preview: bool,
    /// Only read records.
    pub read_only_index: bool,
    /// The user's state directory.
    pub state_dir: PathBuf,
    /// Look again this often instead of watching.
    pub poll: Option<Duration>,
    /// What to leave alone.
    pub ignore: IgnoreOptions,
    /// How long displaced objects are kept.
    pub trash_days: u32,
    /// Keep owner and group.
    pub owner: bool,
    /// Keep extended attributes.
    pub xattr: bool,
    /// What this process is, for whoever finds the root locked: its command line.
    pub command: String,
}

/// What identifies the place that a replica lives in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
struct Evidence {
    fs_id: u64,
    root_ino: u64,
    state_ino: u64,
    state_btime: (i64, u32),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    role: String,
    kind: MembershipKind,
    label: String,
    #[serde(default)]
    members: Vec<(String, PathBuf)>,
}

/// The marker: proof that this is the root, and what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    format: u32,
    replica: String,
    evidence: Evidence,
    shares: BTreeMap<String, Part>,
}

/// What the user's state directory knows about a replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Registered {
    path: PathBuf,
    evidence: Evidence,
    generation: u64,
}

fn name(text: &str) -> Name<'_> {
    ours(text)
}

/// Reads a small file of ours.
fn read_text(dir: &Dir, file: &str) -> Option<String> {
    String::from_utf8(tree::read(dir, name(file), OWN_FILE_BYTES_MAX)?).ok()
}

/// Replaces a small file of ours, durably.
fn write_text(dir: &Dir, file: &str, text: &str) -> instep_fs::Result<()> {
    let temp = format!("{file}.new");
    match dir.remove_file(name(&temp)) {
        Err(e) if e.kind() != FsErrorKind::Absent => return Err(e),
        _ => {}
    }
    let new = dir.create_file(name(&temp), 0o600)?;
    new.write_all_at(0, text.as_bytes())?;
    new.sync_data()?;
    dir.rename_over(name(&temp), dir, name(file))?;
    dir.sync()
}

fn marker_of(dir: &Dir) -> Option<Marker> {
    serde_json::from_str(&read_text(dir, MARKER)?).ok()
}

fn reserved() -> Name<'static> {
    Name::new(RESERVED).expect("our own name is legal")
}

/// Opens a place in the user's state directory, if it is there.
fn state_place(state_dir: &Path, sub: &str) -> Option<Dir> {
    place::open_root(&state_dir.join(sub)).ok()
}

fn outside_key(fs_id: u64, ino: u64) -> String {
    format!("outside/{fs_id:016x}-{ino}")
}

fn role_text(role: Role) -> &'static str {
    match role {
        Role::Both => "both",
        Role::Source => "source",
        Role::Target => "target",
    }
}

fn role_from(text: &str) -> Role {
    match text {
        "source" => Role::Source,
        "target" => Role::Target,
        _ => Role::Both,
    }
}

/// Looks at a root and at what is recorded about it. Creates nothing.
pub fn inspect(path: &Path, state_dir: &Path) -> Result<Inspection> {
    let Ok(full) = place::canonical(path) else {
        let exists = path.symlink_metadata().is_ok();
        return Ok(Inspection {
            path: path.to_path_buf(),
            exists,
            is_dir: false,
            foreign: None,
            memberships: Vec::new(),
            holder: None,
        });
    };
    let mut out = Inspection {
        is_dir: full.is_dir(),
        path: full,
        exists: true,
        foreign: None,
        memberships: Vec::new(),
        holder: None,
    };
    let Ok(root) = place::open_root(&out.path) else {
        return Ok(out);
    };
    match root.stat(reserved()) {
        Ok(Some(stat)) if stat.kind != instep_fs::Kind::Dir => {
            out.foreign = Some("is not a directory".into());
        }
        Ok(Some(_)) => {
            if let Ok(dir) = root.open_dir(reserved()) {
                out.foreign = foreign(&dir);
                add_memberships(&dir, &mut out);
            }
        }
        _ => {}
    }
    let profile = root
        .profile(None)
        .map_err(|e| fs_error("examine the root", e))?;
    let stat = root
        .stat_self()
        .map_err(|e| fs_error("examine the root", e))?;
    if let Some(dir) = state_place(state_dir, &outside_key(profile.fs_id, stat.ino)) {
        add_memberships(&dir, &mut out);
    }
    Ok(out)
}

/// The replicas that were last seen at a path, for a root that is not there now.
pub fn known_at(path: &Path, state_dir: &Path) -> Vec<ReplicaId> {
    let Some(dir) = state_place(state_dir, "replicas") else {
        return Vec::new();
    };
    let mut ids = Vec::new();
    let listed = dir.list(&mut |file, _| {
        let text = String::from_utf8_lossy(file);
        ids.extend(
            text.strip_suffix(".json")
                .and_then(|id| id.parse::<ReplicaId>().ok()),
        );
    });
    if listed.is_err() {
        return Vec::new();
    }
    let was_there = |id: &ReplicaId| {
        let text = read_text(&dir, &format!("{id}.json")).unwrap_or_default();
        serde_json::from_str::<Registered>(&text).is_ok_and(|r| r.path == path)
    };
    ids.retain(was_there);
    ids
}

/// Something in a directory with our name that is not ours.
fn foreign(dir: &Dir) -> Option<String> {
    if marker_of(dir).is_some() {
        return None;
    }
    let mut other = None;
    let listed = dir.list(&mut |n, _| {
        let known = [
            MARKER,
            LOCK,
            INDEX,
            "staging",
            "trash",
            "versions",
            "shares",
            ".gitignore",
        ];
        let text = String::from_utf8_lossy(n);
        let is_ours = known.iter().any(|k| text == *k)
            || text.starts_with(INDEX)
            || text.starts_with(MARKER)
            || text.starts_with("probe-");
        if !is_ours {
            other = Some(format!("contains \"{}\"", text.escape_debug()));
        }
    });
    if listed.is_err() {
        Some("cannot be listed".into())
    } else {
        other
    }
}

fn add_memberships(dir: &Dir, out: &mut Inspection) {
    let Some(marker) = marker_of(dir) else { return };
    let Ok(replica) = marker.replica.parse::<ReplicaId>() else {
        return;
    };
    for (share, part) in &marker.shares {
        let Ok(share) = share.parse::<ShareId>() else {
            continue;
        };
        out.memberships.push(Membership {
            share,
            replica,
            role: role_from(&part.role),
            kind: part.kind,
            label: part.label.clone(),
            members: part.members.clone(),
        });
    }
    if out.holder.is_none() {
        out.holder = holder(dir);
    }
}

/// Takes the lock. Whoever only asks who holds it has it for a moment, so one refusal proves nothing.
fn patiently(dir: &Dir, tries: u32) -> instep_fs::Result<Option<LockFile>> {
    for _ in 1..tries {
        if let Some(lock) = dir.try_lock(name(LOCK))? {
            return Ok(Some(lock));
        }
        place::pause(Duration::from_millis(10));
    }
    dir.try_lock(name(LOCK))
}

/// Who holds the lock, if anybody does. Opens an existing lock file only.
fn holder(dir: &Dir) -> Option<String> {
    dir.stat(name(LOCK)).ok().flatten()?;
    match patiently(dir, 3) {
        Ok(Some(_free)) => None,
        Ok(None) => Some(
            read_text(dir, LOCK)
                .filter(|t| !t.is_empty())
                .unwrap_or_else(|| "another process".into()),
        ),
        Err(_) => None,
    }
}

/// The root is where it was, is what it was, and has its marker.
#[derive(Debug)]
struct Guard {
    path: PathBuf,
    ino: u64,
    dev: u64,
    replica: String,
    /// Our directory is in the root.
    inside: bool,
}

impl RootGuard for Guard {
    fn check(&self) -> core::result::Result<(), String> {
        let at = self.path.display();
        let root =
            place::open_root(&self.path).map_err(|e| format!("the root {at} is not there: {e}"))?;
        let stat = root
            .stat_self()
            .map_err(|e| format!("the root {at} cannot be examined: {e}"))?;
        if (stat.ino, stat.dev) != (self.ino, self.dev) {
            return Err(format!("another directory or file system is at {at}"));
        }
        if self.inside {
            let dir = root
                .open_dir(reserved())
                .map_err(|_| format!("{at} has lost its marker"))?;
            let marker = read_text(&dir, MARKER).unwrap_or_default();
            if !marker.contains(&self.replica) {
                return Err(format!("{at} has lost its marker"));
            }
        }
        Ok(())
    }
}

/// Where a root's state is.
struct Home {
    base: Dir,
    inside: bool,
    lock: Option<LockFile>,
}

impl LocalReplica {
    /// Opens a root as a replica.
    pub fn open(env: Arc<dyn Env>, options: OpenOptions) -> Result<Self> {
        Self::open_as(env, options, None)
    }

    /// Opens a root, if it is that of a certain replica.
    fn open_as(env: Arc<dyn Env>, options: OpenOptions, only: Option<ReplicaId>) -> Result<Self> {
        if options.create && !options.path.exists() {
            place::create_dir_all(&options.path, 0o755)
                .map_err(|e| fs_error("make the root", e))?;
        }
        let opener = Opener::new(env, options)?;
        if only.is_some_and(|id| !opener.is_of(id)) {
            let attempt = format!("{} is not the root that it was", opener.path.display());
            return Err(Error::new(ErrorKind::Gone, attempt));
        }
        if opener.options.preview || opener.options.read_only_index {
            opener.look_only()
        } else {
            opener.in_earnest()
        }
    }

    fn is_root_of(env: &Arc<dyn Env>, options: &OpenOptions, id: ReplicaId) -> bool {
        Opener::new(Arc::clone(env), options.clone()).is_ok_and(|o| o.is_of(id))
    }
}
/// The replica of the same root, opened anew where that gains something: the root is back in its place on
/// another device, its index could not be written, or it can be changed now and could not before.
pub fn open_again(old: &LocalReplica) -> Result<Option<Arc<dyn Replica>>> {
    let options = locked(&old.again).clone();
    let Some(options) = options.map(|o| OpenOptions { create: false, ..o }) else {
        return Ok(None);
    };
    let Ok(root) = place::open_root(&options.path) else {
        return Ok(None);
    };
    let is_same = old.in_place().is_ok();
    let can_change = !root.is_read_only().unwrap_or(true);
    let gains = !is_same || old.is_broken() || (!old.is_writable() && can_change);
    let useful = gains && (options.role != Role::Source || !is_same || old.is_broken());
    if !useful || !LocalReplica::is_root_of(&old.env, &options, old.id()) {
        return Ok(None);
    }
    // A process cannot lock a file twice, nor write one index through two hands.
    old.let_go()?;
    let anew = Arc::new(LocalReplica::open_as(
        Arc::clone(&old.env),
        options,
        Some(old.id()),
    )?);
    let _only_once = old.successor.set(Arc::clone(&anew));
    Ok(Some(anew))
}

struct Opener {
    env: Arc<dyn Env>,
    options: OpenOptions,
    path: PathBuf,
    root: Dir,
    stat: Stat,
    profile: Profile,
}

impl Opener {
    fn new(env: Arc<dyn Env>, options: OpenOptions) -> Result<Self> {
        let path = place::canonical(&options.path).map_err(|e| fs_error("find the root", e))?;
        let root = place::open_root(&path).map_err(|e| fs_error("open the root", e))?;
        let stat = root
            .stat_self()
            .map_err(|e| fs_error("examine the root", e))?;
        let profile = root
            .profile(None)
            .map_err(|e| fs_error("examine the root", e))?;
        Ok(Self {
            env,
            options,
            path,
            root,
            stat,
            profile,
        })
    }

    fn outside(&self) -> PathBuf {
        self.options
            .state_dir
            .join(outside_key(self.profile.fs_id, self.stat.ino))
    }

    fn index_name(share: ShareId, marker: Option<&Marker>) -> String {
        // The first share that a root joined has the plain name.
        let first = marker.and_then(|m| m.shares.keys().next().cloned());
        let plain = marker.is_none_or(|m| m.shares.len() <= 1)
            && first.is_none_or(|f| f == share.to_string());
        let kept = marker.and_then(|m| m.shares.get(&share.to_string()));
        match (plain, kept.map(|p| p.kind)) {
            (true, _) | (_, Some(MembershipKind::Sync)) => INDEX.to_owned(),
            _ => format!("{INDEX}-{}", share.short()),
        }
    }

    /// Opens without creating anything: a copy of the index in memory, or the index read-only.
    fn look_only(self) -> Result<LocalReplica> {
        let inside = self
            .root
            .open_dir(reserved())
            .ok()
            .filter(|d| marker_of(d).is_some());
        let base = match self.options.role {
            Role::Source => place::open_root(&self.outside()).ok(),
            Role::Both | Role::Target => inside.or_else(|| place::open_root(&self.outside()).ok()),
        };
        let marker = base.as_ref().and_then(marker_of);
        let id = marker.as_ref().and_then(|m| m.replica.parse().ok());
        let id = id.unwrap_or_else(|| ReplicaId(self.env.random()));
        let share = self.options.share.id();
        let joined = marker
            .as_ref()
            .is_some_and(|m| m.shares.contains_key(&share.to_string()));
        let mut store: Option<Box<dyn IndexStore>> = None;
        if let Some(base) = base.as_ref().filter(|_| joined) {
            let path = place::fd_path(base, &Self::index_name(share, marker.as_ref()));
            match SqliteStore::open(&path, OpenMode::ReadOnly) {
                Ok(read) => store = Some(Box::new(read)),
                Err(e) => return Err(store_error("open the index", e)),
            }
        }
        let store = match store {
            Some(store) if self.options.read_only_index => store,
            other => copy_to_memory(other)?,
        };
        let index = Index::open(store, fresh_actor(self.env.as_ref()))?;
        let dirs = base.and_then(|b| Ours::existing(b).ok());
        let guard = self.guard(id, false);
        self.assemble(id, dirs, index, !joined, guard, true)
    }

    fn guard(&self, id: ReplicaId, inside: bool) -> Box<dyn RootGuard> {
        Box::new(Guard {
            path: self.path.clone(),
            ino: self.stat.ino,
            dev: self.stat.dev,
            replica: id.to_string(),
            inside,
        })
    }

    fn home(&self) -> Result<Home> {
        let untouchable = self.options.role == Role::Source || self.profile.read_only;
        if !untouchable {
            match self.root.make_dir(reserved(), 0o700) {
                Ok(()) => {}
                Err(e) if e.kind() == FsErrorKind::Taken => {}
                Err(e) if e.kind() == FsErrorKind::ReadOnly => return self.home_outside(),
                Err(e) => return Err(fs_error("make .instep in the root", e)),
            }
            let base = self
                .root
                .open_dir(reserved())
                .map_err(|e| fs_error("open .instep", e))?;
            if let Some(what) = foreign(&base) {
                let attempt = format!(
                    "{}/.instep was made by someone else: it {what}",
                    self.path.display()
                );
                return Err(Error::new(ErrorKind::Denied, attempt));
            }
            if base.stat(name(".gitignore")).is_ok_and(|s| s.is_none()) {
                write_text(&base, ".gitignore", "*\n")
                    .map_err(|e| fs_error("write .instep/.gitignore", e))?;
            }
            return self.locked(base, true);
        }
        self.home_outside()
    }

    fn home_outside(&self) -> Result<Home> {
        let path = self.outside();
        place::create_dir_all(&path, 0o700).map_err(|e| fs_error("make the state directory", e))?;
        let base = place::open_root(&path).map_err(|e| fs_error("open the state directory", e))?;
        self.locked(base, false)
    }

    fn locked(&self, base: Dir, inside: bool) -> Result<Home> {
        let lock = patiently(&base, 50).map_err(|e| fs_error("lock the root", e))?;
        let Some(lock) = lock else {
            let holder = read_text(&base, LOCK).unwrap_or_default();
            let attempt = format!("{} is held by {}", self.path.display(), holder.trim());
            return Err(Error::new(ErrorKind::InUse, attempt));
        };
        let text = format!("pid {}: {}", std::process::id(), self.options.command);
        lock.write_text(&text)
            .map_err(|e| fs_error("lock the root", e))?;
        Ok(Home {
            base,
            inside,
            lock: Some(lock),
        })
    }

    fn evidence(&self, base: &Dir) -> Result<Evidence> {
        let state = base
            .stat_self()
            .map_err(|e| fs_error("examine the state directory", e))?;
        Ok(Evidence {
            fs_id: self.profile.fs_id,
            root_ino: self.stat.ino,
            state_ino: state.ino,
            state_btime: (state.btime.secs, state.btime.nanos),
        })
    }

    fn in_earnest(mut self) -> Result<LocalReplica> {
        let joined = self.joined_inside();
        let home = match (self.profile.read_only, &joined) {
            (true, Some((base, marker))) => return self.only_read(base, marker),
            _ => self.home(),
        };
        let mut home = match (home, &joined) {
            (Err(e), Some((base, marker))) if e.kind == ErrorKind::ReadOnly => {
                return self.only_read(base, marker);
            }
            (home, _) => home?,
        };
        let again = OpenOptions {
            create: false,
            ..self.options.clone()
        };
        let evidence = self.evidence(&home.base)?;
        // What could not be changed before kept its state outside, and is still the same replica.
        let old = marker_of(&home.base);
        let outside = self.kept_outside().filter(|_| home.inside && old.is_none());
        let old = old.or_else(|| outside.as_ref().map(|(_, marker)| marker.clone()));
        let registry = Registry::open(&self.options.state_dir)?;
        let verdict = registry.judge(old.as_ref(), &evidence, &self.path);
        let id = match (&old, verdict) {
            (Some(m), Verdict::Same | Verdict::Moved) => m.replica.parse().ok(),
            _ => None,
        };
        let id = id.unwrap_or_else(|| ReplicaId(self.env.random()));
        let share = self.options.share.id();
        let joined = old
            .as_ref()
            .is_some_and(|m| m.shares.contains_key(&share.to_string()));
        let marker = self.marker(old, id, &evidence, share);
        let file = Self::index_name(share, Some(&marker));
        if verdict != Verdict::Same {
            set_index_aside(&home.base, &file);
        }
        let (index, damaged) = self.open_index(&home.base, &file)?;
        let mut index = index;
        let rejoin = damaged || !registry.is_current(id, &mut index)?;
        if rejoin && !damaged {
            drop(index);
            set_index_aside(&home.base, &file);
            index = self.open_index(&home.base, &file)?.0;
        }
        if rejoin || matches!(verdict, Verdict::Copied | Verdict::Moved) {
            index.set_rejoining(true)?;
        }
        let text = serde_json::to_string_pretty(&marker)
            .map_err(|e| Error::because(ErrorKind::Other, "write the marker", e))?;
        write_text(&home.base, MARKER, &text).map_err(|e| fs_error("write the marker", e))?;
        if let Some((outside, _)) = outside {
            // What stays behind is only looked for where the root has no marker.
            let _stays = outside.remove_file(name(MARKER));
        }
        registry.register(id, &self.path, evidence, &mut index)?;
        let dirs = Ours::open(home.base.clone()).map_err(|e| fs_error("open .instep", e))?;
        self.profile = self
            .root
            .profile(home.inside.then_some(&dirs.base))
            .map_err(|e| fs_error("examine the root", e))?;
        let writable = home.inside.then_some(dirs);
        let guard = self.guard(id, home.inside);
        let lock = home.lock.take();
        let new = !joined || verdict == Verdict::Copied;
        let mut replica = self.assemble(id, writable, index, new, guard, false)?;
        *locked(&replica.lock) = lock;
        *locked(&replica.again) = Some(again);
        replica.base = Some(home.base);
        replica.begin()?;
        Ok(replica)
    }

    /// Opens a root that cannot be changed and whose state is in it: nothing is written there, and what is
    /// recorded is kept in memory under an actor of its own. When it can be changed it is opened anew, and
    /// finds again what it has.
    fn only_read(self, base: &Dir, marker: &Marker) -> Result<LocalReplica> {
        let lock = self.home_outside()?.lock;
        let registry = Registry::open(&self.options.state_dir)?;
        let verdict = registry.judge(Some(marker), &self.evidence(base)?, &self.path);
        let file = Self::index_name(self.options.share.id(), Some(marker));
        let path = place::fd_path(base, &file);
        // An index that cannot be read here is as good as lost: the others know better.
        let store = SqliteStore::open(&path, OpenMode::ReadOnly).ok();
        let is_lost = store.is_none();
        let store = store.map(|s| Box::new(s) as Box<dyn IndexStore>);
        let id: ReplicaId = marker
            .replica
            .parse()
            .map_err(|_| Error::new(ErrorKind::Other, "read the marker"))?;
        let fresh = fresh_actor(self.env.as_ref());
        let mut index = Index::open(copy_to_memory(store)?, fresh)?;
        index.renew(fresh)?;
        if is_lost || verdict != Verdict::Same || !registry.is_current(id, &mut index)? {
            index.set_rejoining(true)?;
        }
        let guard = self.guard(id, true);
        let again = self.options.clone();
        let replica = self.assemble(id, None, index, false, guard, false)?;
        *locked(&replica.lock) = lock;
        *locked(&replica.again) = Some(again);
        Ok(replica)
    }

    /// Our directory in the root and its marker, if it is in the share that it is opened for.
    fn joined_inside(&self) -> Option<(Dir, Marker)> {
        let base = self.root.open_dir(reserved()).ok()?;
        let marker = marker_of(&base)?;
        let joined = marker
            .shares
            .contains_key(&self.options.share.id().to_string());
        (joined && self.options.role != Role::Source).then_some((base, marker))
    }

    /// The state of a root that could not be changed when it joined the share, and its marker.
    fn kept_outside(&self) -> Option<(Dir, Marker)> {
        let base = place::open_root(&self.outside()).ok()?;
        let marker = marker_of(&base)?;
        let part = marker.shares.get(&self.options.share.id().to_string())?;
        let was_changed = part.role != role_text(Role::Source);
        was_changed.then_some((base, marker))
    }

    /// Whether a root is that of a replica: its marker says so, wherever it is kept.
    fn is_of(&self, id: ReplicaId) -> bool {
        let names = |m: Option<Marker>| m.is_some_and(|m| m.replica == id.to_string());
        match self.root.open_dir(reserved()) {
            Ok(base) if self.options.role != Role::Source => names(marker_of(&base)),
            _ => names(
                place::open_root(&self.outside())
                    .ok()
                    .as_ref()
                    .and_then(marker_of),
            ),
        }
    }

    fn marker(
        &self,
        old: Option<Marker>,
        id: ReplicaId,
        evidence: &Evidence,
        share: ShareId,
    ) -> Marker {
        let mut shares = old.map(|m| m.shares).unwrap_or_default();
        let kind = if self.options.mirror {
            MembershipKind::Mirror
        } else {
            MembershipKind::Sync
        };
        if kind == MembershipKind::Sync {
            // A root is kept equal in one share only; another one replaces it (`--merge-shares`).
            shares.retain(|id, p| p.kind != MembershipKind::Sync || *id == share.to_string());
        }
        let members = shares
            .get(&share.to_string())
            .map(|p| p.members.clone())
            .unwrap_or_default();
        shares.insert(
            share.to_string(),
            Part {
                role: role_text(self.options.role).to_owned(),
                kind,
                label: self.options.label.clone(),
                members,
            },
        );
        Marker {
            format: 1,
            replica: id.to_string(),
            evidence: evidence.clone(),
            shares,
        }
    }

    /// The index and whether a damaged one had to be moved aside.
    fn open_index(&self, base: &Dir, file: &str) -> Result<(Index, bool)> {
        let path = place::fd_path(base, file);
        let fresh = fresh_actor(self.env.as_ref());
        let open = || SqliteStore::open(&path, OpenMode::Create);
        match open() {
            Ok(store) => match Index::open(Box::new(store), fresh) {
                Ok(index) => return Ok((index, false)),
                Err(e) if e.kind == ErrorKind::Damaged => {}
                Err(e) => return Err(e),
            },
            Err(e) if e.kind() == instep_store::ErrorKind::Corrupt => {}
            Err(e) => return Err(store_error("open the index", e)),
        }
        set_index_aside(base, file);
        let store = open().map_err(|e| store_error("open the index", e))?;
        Ok((Index::open(Box::new(store), fresh)?, true))
    }

    fn assemble(
        self,
        id: ReplicaId,
        ours: Option<Ours>,
        index: Index,
        new: bool,
        guard: Box<dyn RootGuard>,
        preview: bool,
    ) -> Result<LocalReplica> {
        let settings = Settings {
            label: self.options.label.clone(),
            location: self.options.location.clone(),
            role: self.options.role,
            poll: self.options.poll.is_some(),
            preview,
            settle_ms: if preview {
                0
            } else {
                Settings::default().settle_ms
            },
            trash_days: u64::from(self.options.trash_days),
            ..Settings::default()
        };
        let parts = Parts {
            id,
            share: self.options.share.id(),
            root: self.root,
            ours,
            profile: self.profile,
            index,
            rules: Rules::new(&self.options.ignore),
            settings,
            new,
            guard,
            watcher: Box::new(instep_fs::watch::Watcher::new),
            threaded: true,
        };
        LocalReplica::assemble(self.env, parts)
    }
}

fn fresh_actor(env: &dyn Env) -> ActorId {
    let random = env.random();
    let mut out = [0; 8];
    out.copy_from_slice(&random[..8]);
    ActorId(out)
}

/// Everything of a store, in memory, so that nothing is written anywhere.
fn copy_to_memory(from: Option<Box<dyn IndexStore>>) -> Result<Box<dyn IndexStore>> {
    let mut to = MemoryDisk::new().open();
    let Some(mut from) = from else {
        return Ok(Box::new(to));
    };
    let fail = |e| store_error("copy the index", e);
    let mut rows = Vec::new();
    if let Some(row) = from.get(&RelPath::root()).map_err(fail)? {
        rows.push((RelPath::root(), row));
    }
    from.subtree(&RelPath::root(), &mut |p, r| {
        rows.push((p, r));
        std::ops::ControlFlow::Continue(())
    })
    .map_err(fail)?;
    for (path, row) in rows {
        to.put(&path, &row).map_err(fail)?;
    }
    for table in instep_store::Table::ALL {
        let mut records = Vec::new();
        from.records(table, &mut |k, b| {
            records.push((k.to_vec(), b.to_vec()));
            std::ops::ControlFlow::Continue(())
        })
        .map_err(fail)?;
        for (key, body) in records {
            to.put_record(table, &key, &body).map_err(fail)?;
        }
    }
    Ok(Box::new(to))
}

/// Moves an index aside, with its companions. It stays in our directory until a person deletes it.
fn set_index_aside(base: &Dir, file: &str) {
    for suffix in ["", "-wal", "-shm"] {
        let from = format!("{file}{suffix}");
        for n in 0..100 {
            let to = format!("{file}.aside-{n}{suffix}");
            match base.rename_noreplace(name(&from), base, name(&to)) {
                Err(e) if e.kind() == FsErrorKind::Taken => {}
                // Absent is fine; anything else shows when the new index is opened.
                _ => break,
            }
        }
    }
}

/// What the evidence says about a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Nothing was known.
    Unknown,
    /// It is the one that was here before.
    Same,
    /// The original is present: this is a copy of it.
    Copied,
    /// The original is gone: this is it, in another place, or restored.
    Moved,
}

/// The user's state directory's memory of replicas.
struct Registry {
    dir: Dir,
}

impl Registry {
    fn open(state_dir: &Path) -> Result<Self> {
        let path = state_dir.join("replicas");
        place::create_dir_all(&path, 0o700).map_err(|e| fs_error("make the state directory", e))?;
        let dir = place::open_root(&path).map_err(|e| fs_error("open the state directory", e))?;
        Ok(Self { dir })
    }

    fn read(&self, id: &str) -> Option<Registered> {
        serde_json::from_str(&read_text(&self.dir, &format!("{id}.json"))?).ok()
    }

    fn judge(&self, marker: Option<&Marker>, evidence: &Evidence, path: &Path) -> Verdict {
        let Some(marker) = marker else {
            return Verdict::Unknown;
        };
        if marker.evidence == *evidence {
            return Verdict::Same;
        }
        let original = self
            .read(&marker.replica)
            .filter(|r| r.path != path)
            .and_then(|r| {
                let root = place::open_root(&r.path).ok()?;
                let stat = root.stat_self().ok()?;
                let there = marker_of(&root.open_dir(reserved()).ok()?)?;
                Some(there.replica == marker.replica && stat.ino == r.evidence.root_ino)
            });
        if original == Some(true) {
            Verdict::Copied
        } else {
            Verdict::Moved
        }
    }

    /// Whether an index is the newest that this replica had.
    fn is_current(&self, id: ReplicaId, index: &mut Index) -> Result<bool> {
        let known = self.read(&id.to_string()).map_or(0, |r| r.generation);
        Ok(generation(index)? >= known)
    }

    fn register(
        &self,
        id: ReplicaId,
        path: &Path,
        evidence: Evidence,
        index: &mut Index,
    ) -> Result<()> {
        let next = self
            .read(&id.to_string())
            .map_or(0, |r| r.generation)
            .max(generation(index)?)
            + 1;
        index.put_meta(b"generation", next.to_string().as_bytes())?;
        index.commit(instep_store::Durability::Power)?;
        let record = Registered {
            path: path.to_path_buf(),
            evidence,
            generation: next,
        };
        let text = serde_json::to_string_pretty(&record)
            .map_err(|e| Error::because(ErrorKind::Other, "register the replica", e))?;
        write_text(&self.dir, &format!("{id}.json"), &text)
            .map_err(|e| fs_error("register the replica", e))
    }
}

fn generation(index: &mut Index) -> Result<u64> {
    let text = index
        .meta(b"generation")?
        .and_then(|b| String::from_utf8(b).ok());
    Ok(text.and_then(|t| t.parse().ok()).unwrap_or(0))
}

impl LocalReplica {
    /// Remembers in the marker who else is in the share and where, for commands that start from one root.
    pub fn note_members(&self, members: &[(String, PathBuf)]) -> Result<()> {
        let Some(base) = &self.base else {
            return Ok(());
        };
        let Some(mut marker) = marker_of(base) else {
            return Ok(());
        };
        let key = instep_replica::Replica::share(self).to_string();
        let Some(part) = marker.shares.get_mut(&key) else {
            return Ok(());
        };
        if part.members == members {
            return Ok(());
        }
        part.members = members.to_vec();
        let text = serde_json::to_string_pretty(&marker)
            .map_err(|e| Error::because(ErrorKind::Other, "write the marker", e))?;
        write_text(base, MARKER, &text).map_err(|e| fs_error("write the marker", e))
    }
}

/// Takes a root out of a share. With `purge` everything of ours in it is destroyed, which includes its
/// trash and version store; without, the state stays in place and only the membership ends.
pub fn forget(path: &Path, state_dir: &Path, share: ShareId, purge: bool) -> Result<()> {
    let path = place::canonical(path).map_err(|e| fs_error("find the root", e))?;
    let root = place::open_root(&path).map_err(|e| fs_error("open the root", e))?;
    let stat = root
        .stat_self()
        .map_err(|e| fs_error("examine the root", e))?;
    let profile = root
        .profile(None)
        .map_err(|e| fs_error("examine the root", e))?;
    let inside = root.open_dir(reserved()).ok();
    let outside = state_place(state_dir, &outside_key(profile.fs_id, stat.ino));
    for (base, is_inside) in inside
        .into_iter()
        .map(|d| (d, true))
        .chain(outside.map(|d| (d, false)))
    {
        let Some(mut marker) = marker_of(&base) else {
            continue;
        };
        if marker.shares.remove(&share.to_string()).is_none() {
            continue;
        }
        let lock = base
            .try_lock(name(LOCK))
            .map_err(|e| fs_error("lock the root", e))?;
        if lock.is_none() {
            let holder = read_text(&base, LOCK).unwrap_or_default();
            return Err(Error::new(
                ErrorKind::InUse,
                format!("{} is held by {holder}", path.display()),
            ));
        }
        if purge && marker.shares.is_empty() {
            empty(&base).map_err(|e| fs_error("remove .instep", e))?;
            unregister(state_dir, &marker.replica);
            if is_inside {
                root.remove_dir(reserved())
                    .map_err(|e| fs_error("remove .instep", e))?;
            }
            continue;
        }
        let text = serde_json::to_string_pretty(&marker)
            .map_err(|e| Error::because(ErrorKind::Other, "write the marker", e))?;
        write_text(&base, MARKER, &text).map_err(|e| fs_error("write the marker", e))?;
    }
    Ok(())
}

/// Nothing is left of a replica that its place could prove.
fn unregister(state_dir: &Path, replica: &str) {
    if let Some(dir) = state_place(state_dir, "replicas") {
        // What stays behind names a replica that nobody is any more.
        let _left = dir.remove_file(name(&format!("{replica}.json")));
    }
}

/// Empties a directory of ours: two levels, which is all that we make.
fn empty(dir: &Dir) -> instep_fs::Result<()> {
    let mut all: Vec<(Vec<u8>, bool)> = Vec::new();
    dir.list_stat(&mut |n, s| {
        all.push((n.to_vec(), s.is_ok_and(|s| s.kind == instep_fs::Kind::Dir)));
    })?;
    for (entry, is_dir) in all {
        let Ok(entry) = Name::new(&entry) else {
            continue;
        };
        if is_dir {
            empty(&dir.open_dir(entry)?)?;
            dir.remove_dir(entry)?;
        } else {
            dir.remove_file(entry)?;
        }
    }
    Ok(())
}
