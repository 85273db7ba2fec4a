//! [`LocalReplica`]: a directory on this machine, as the engine sees it.
//!
//! Owns the open root, our directory in it (or elsewhere, for roots that must not be touched), the index,
//! the rules and the watch. The work is done in `scan`, `record`, `apply`, `replace` and `recover`; this
//! file holds what they share and turns the contract's calls into theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use instep_core::id::{ActorId, ContentId, Dot, ReplicaId, ShareId};
use instep_core::path::{Name, RelPath};
use instep_core::plan::{Action, Code, Goal, Outcome, Problem};
use instep_core::policy::Role;
use instep_core::row::{Print, Row};
use instep_core::version::Kind;
use instep_fs::watch::Watcher;
use instep_fs::{Dir, ErrorKind as FsErrorKind, Kind as FsKind, Profile, Stat};
use instep_replica::env::Env;
use instep_replica::records::DamageRecord;
use instep_replica::{
    Book, Capabilities, Checked, Content, Description, Error, ErrorKind, HintSet, Look, Replica,
    Result, RowVisitor, Scope, ShareState, Sources, Step, Totals, Waker,
};
use instep_store::{Durability, Table};

use crate::begun::Begun;
use crate::content::{FileContent, Hashed, fill, hash_file};
use crate::draft;
use crate::index::{Index, store_error};
use crate::observe::{LastLook, Piece};
use crate::print::{Digest, print, unlike};
use crate::reading::Unread;
use crate::root::fresh_actor;
use crate::rules::{IgnoreOptions, Rules};
use crate::settle::Missed;
use crate::tree::{self, Ours, ours};
use crate::watch::Watch;
use crate::{adopt, apply, attributes, check, record, recover, trash, unjudged};

/// What a user may set for one replica.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The name in messages.
    pub label: String,
    /// Where it is, as the user wrote it.
    pub location: String,
    /// What it may do.
    pub role: Role,
    /// An absence counts after this long, unless a burst goes on.
    pub settle_ms: u64,
    /// An absence counts after this long even while more arrive, as long as they are few; many count after this
    /// long without another.
    pub settle_max_ms: u64,
    /// Files above this size are hashed aside while other changes go on.
    pub hash_aside_bytes: u64,
    /// Files read in one piece, each passed on before the next is read.
    pub piece_files: usize,
    /// Never watch; look again and again instead.
    pub poll: bool,
    /// Nothing on disk is changed; what is recorded is forgotten.
    pub preview: bool,
    /// Displaced objects are kept this long.
    pub trash_days: u64,
    /// Carry owner and group.
    pub owner: bool,
    /// Carry extended attributes.
    pub xattrs: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            label: "A".into(),
            location: String::new(),
            role: Role::Both,
            settle_ms: 300,
            settle_max_ms: 2000,
            hash_aside_bytes: 64 * 1024 * 1024,
            piece_files: 1000,
            poll: false,
            preview: false,
            trash_days: instep_core::limits::TRASH_DAYS,
            owner: false,
            xattrs: false,
        }
    }
}

/// Makes the watcher, when watching begins.
pub type MakeWatcher = Box<dyn Fn() -> instep_fs::Result<Watcher> + Send + Sync>;

/// What a replica is put together from.
pub struct Parts {
    /// Its identity.
    pub id: ReplicaId,
    /// Its share.
    pub share: ShareId,
    /// The open root.
    pub root: Dir,
    /// Where staging, trash and versions are; none for a root that is never written.
    pub ours: Option<Ours>,
    /// What the root's file system can do.
    pub profile: Profile,
    /// Its index.
    pub index: Index,
    /// The ignore rules.
    pub rules: Rules,
    /// What the user set.
    pub settings: Settings,
    /// It joined just now.
    pub new: bool,
    /// Verifies that the root is still the one that was opened.
    pub guard: Box<dyn RootGuard>,
    /// Where hints come from.
    pub watcher: MakeWatcher,
    /// Whether the watcher has a thread of its own.
    pub threaded: bool,
}

/// Verifies that a root is still in place.
pub trait RootGuard: Send + Sync + std::fmt::Debug {
    /// `Err` with the reason when it is not.
    fn check(&self) -> core::result::Result<(), String>;
}

/// A big file that is hashed aside.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HashedAside {
    /// What it looked like when that began.
    pub(crate) looks: u64,
    /// The result, when there is one.
    pub(crate) result: Option<crate::content::Hashed>,
    /// It was said that there is one: a file that is gone by then is not asked for again and again.
    pub(crate) told: bool,
}

/// A directory on this machine.
pub struct LocalReplica {
    pub(crate) env: Arc<dyn Env>,
    pub(crate) root: Dir,
    pub(crate) profile: Profile,
    pub(crate) rules: Rules,
    id: ReplicaId,
    share: ShareId,
    actor: Mutex<ActorId>,
    ours: Option<Ours>,
    index: Mutex<Index>,
    pub(crate) settings: Settings,
    capabilities: Capabilities,
    new: bool,
    device: u64,
    guard: Box<dyn RootGuard>,
    make_watcher: MakeWatcher,
    pub(crate) lock: Mutex<Option<instep_fs::LockFile>>,
    /// How to open the root anew; nothing for previews and tests.
    pub(crate) again: Mutex<Option<crate::OpenOptions>>,
    pub(crate) successor: OnceLock<Arc<Self>>,
    /// What the index could not be written for: what it has in memory may be ahead of what it has on disk.
    broken: Mutex<Option<ErrorKind>>,
    /// The file system refused a change although it is not mounted read-only.
    refused: AtomicBool,
    pub(crate) base: Option<Dir>,
    rejoining: AtomicBool,
    threaded: bool,
    watch: OnceLock<Watch>,
    pub(crate) waker: OnceLock<Waker>,
    own_hints: Mutex<HintSet>,
    pub(crate) missed: Mutex<Missed>,
    pub(crate) busy: Mutex<BTreeMap<RelPath, u64>>,
    pub(crate) last: Mutex<LastLook>,
    staged: Mutex<BTreeMap<ContentId, String>>,
    begun: Begun,
    modes_later: Mutex<BTreeMap<RelPath, u16>>,
    pub(crate) hashed_aside: Arc<Mutex<BTreeMap<RelPath, HashedAside>>>,
    pub(crate) noted: Mutex<Vec<Problem>>,
    pub(crate) accounts: Mutex<attributes::Accounts>,
    pub(crate) by_content: Mutex<trash::ByContent>,
    /// What was displaced and has not been moved to where it is kept.
    pub(crate) left: Mutex<Vec<trash::Left>>,
    pub(crate) damaged: check::Damaged,
    next_unwatched_ns: Mutex<u64>,
    pub(crate) kept: Mutex<crate::reading::Kept>,
    pub(crate) unread: Mutex<Unread>,
    pub(crate) piece: Mutex<Piece>,
    pub(crate) ahead: Mutex<Option<crate::reading::Ahead>>,
    /// Bytes brought here since the disk was last told to begin writing.
    unflushed: AtomicU64,
    flushing: Arc<AtomicBool>,
    /// Why such a flush failed; held while anybody syncs, because the system tells only the first who asks.
    flushed: Arc<Mutex<Option<instep_fs::Error>>>,
}

impl std::fmt::Debug for LocalReplica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalReplica")
            .field("id", &self.id)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

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

impl LocalReplica {
    /// Puts a replica together.
    pub fn assemble(env: Arc<dyn Env>, mut parts: Parts) -> Result<Self> {
        let stat = parts
            .root
            .stat_self()
            .map_err(|e| fs_error("examine the root", e))?;
        let p = &parts.profile;
        let preview = parts.settings.preview;
        let writable = (parts.ours.is_some() || preview)
            && !p.read_only
            && parts.settings.role != Role::Source;
        let rejoining = parts.index.is_rejoining()?;
        parts.index.tell(&env);
        let capabilities = Capabilities {
            writable,
            observed: false,
            edited: true,
            hints: p.events_reliable && !parts.settings.poll,
            strong_replace: p.exchange && p.leases,
            reflink: p.reflink,
            modes: p.modes,
            carried: attributes::carried(&parts.settings, p, &parts.root),
            links: true,
            case_sensitive: p.case_sensitive,
        };
        Ok(Self {
            env,
            root: parts.root,
            rules: parts.rules,
            id: parts.id,
            share: parts.share,
            actor: Mutex::new(parts.index.actor()),
            ours: parts.ours,
            index: Mutex::new(parts.index),
            settings: parts.settings,
            capabilities,
            new: parts.new,
            device: stat.dev,
            guard: parts.guard,
            make_watcher: parts.watcher,
            lock: Mutex::default(),
            again: Mutex::default(),
            successor: OnceLock::new(),
            broken: Mutex::default(),
            refused: AtomicBool::new(false),
            base: None,
            rejoining: AtomicBool::new(rejoining),
            threaded: parts.threaded,
            profile: parts.profile,
            watch: OnceLock::new(),
            waker: OnceLock::new(),
            own_hints: Mutex::default(),
            missed: Mutex::default(),
            busy: Mutex::default(),
            last: Mutex::default(),
            staged: Mutex::default(),
            begun: Begun::default(),
            modes_later: Mutex::default(),
            hashed_aside: Arc::default(),
            noted: Mutex::default(),
            accounts: Mutex::default(),
            by_content: Mutex::default(),
            left: Mutex::default(),
            damaged: check::Damaged::default(),
            next_unwatched_ns: Mutex::default(),
            kept: Mutex::default(),
            unread: Mutex::default(),
            piece: Mutex::default(),
            ahead: Mutex::default(),
            unflushed: AtomicU64::new(0),
            flushing: Arc::default(),
            flushed: Arc::default(),
        })
    }

    /// The root is still the one that was opened.
    pub(crate) fn in_place(&self) -> Result<()> {
        self.guard
            .check()
            .map_err(|why| Error::new(ErrorKind::Gone, why))
    }

    /// A replica that can be changed takes changes now: its index is whole and its file system agrees.
    fn takes_changes(&self) -> Result<()> {
        // A write that nobody waited for may have failed; then the index cannot even be read.
        let _noted = self.intact(self.index().meta(b"boot"));
        if let Some(kind) = *locked(&self.broken) {
            let attempt = format!(
                "the index of {} must be opened anew",
                self.settings.location
            );
            return Err(Error::new(kind, attempt));
        }
        if !self.capabilities.writable || self.settings.preview {
            return Ok(());
        }
        if self.root.is_read_only().unwrap_or(false) {
            let attempt = format!("the file system of {} is read-only", self.settings.location);
            return Err(Error::new(ErrorKind::ReadOnly, attempt));
        }
        if self.refused.load(Ordering::SeqCst) {
            self.try_writing()?;
            self.refused.store(false, Ordering::SeqCst);
        }
        Ok(())
    }

    fn try_writing(&self) -> Result<()> {
        let Some(dirs) = self.ours() else {
            return Ok(());
        };
        let name = trash::fresh_name(self);
        let tried = dirs
            .staging
            .create_file(ours(&name), 0o600)
            .and_then(|_| dirs.staging.remove_file(ours(&name)));
        tried.map_err(|e| fs_error("try whether the root can be changed", e))
    }

    /// Notes that a change of the index failed: what is in memory must not be relied on any more.
    pub(crate) fn intact<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(e) = &result
            && e.kind != ErrorKind::Gone
        {
            locked(&self.broken).get_or_insert(e.kind);
        }
        result
    }

    /// Whether a change of the index failed, so that it must be opened anew.
    pub fn is_broken(&self) -> bool {
        locked(&self.broken).is_some()
    }

    /// Gives up the lock and the index, so that another can take them; good for nothing afterwards.
    pub(crate) fn let_go(&self) -> Result<()> {
        locked(&self.broken).get_or_insert(ErrorKind::Gone);
        let empty = Box::new(instep_store::MemoryDisk::new().open());
        let stand_in = Index::open(empty, self.actor())?;
        drop(std::mem::replace(&mut *self.index(), stand_in));
        locked(&self.lock).take();
        Ok(())
    }

    /// Whether it was opened to be changed.
    pub(crate) fn is_writable(&self) -> bool {
        self.capabilities.writable
    }

    /// The index, for one short use.
    pub(crate) fn index(&self) -> MutexGuard<'_, Index> {
        locked(&self.index)
    }

    /// Our directories, if this root has any.
    pub fn ours(&self) -> Option<&Ours> {
        self.ours.as_ref()
    }

    /// The device that the root is on.
    pub(crate) fn device(&self) -> u64 {
        self.device
    }

    /// Adds a hint of our own.
    pub(crate) fn hint(&self, path: RelPath) {
        locked(&self.own_hints).add_path(path);
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }

    /// Adds a hint of our own at a path and everything below it.
    pub(crate) fn hint_tree(&self, path: RelPath) {
        locked(&self.own_hints).trees.insert(path);
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }

    /// Exchanges the master list and the rule packs while everything runs. If that changes a rule, everything
    /// is looked at again.
    pub fn set_ignore(&self, options: &IgnoreOptions) {
        if let Some(again) = &mut *locked(&self.again) {
            again.ignore = options.clone();
        }
        if let Some(successor) = self.successor.get() {
            return successor.set_ignore(options);
        }
        if self.rules.replace(options) {
            locked(&self.own_hints).lost = true;
            if let Some(waker) = self.waker.get() {
                waker.wake();
            }
        }
    }

    /// Remembers a problem for the next look.
    pub(crate) fn note_problem(&self, path: &RelPath, e: &instep_fs::Error) {
        self.note(Problem {
            path: path.clone(),
            code: Code::Unwritable,
            detail: e.to_string(),
        });
    }

    /// As [`Self::note_problem`], of any kind.
    pub(crate) fn note(&self, problem: Problem) {
        locked(&self.noted).push(problem);
    }

    /// Watches a directory, if watching.
    pub(crate) fn watch_dir(&self, dir: &Dir, path: &RelPath) -> instep_fs::Result<()> {
        match self.watch.get() {
            Some(watch) => watch.add(dir, path),
            None => Ok(()),
        }
    }

    /// Whether a directory should be watched and is not.
    pub(crate) fn is_watch_missing(&self, path: &RelPath) -> bool {
        self.watch.get().is_some_and(|watch| !watch.has(path))
    }

    /// Nobody tells it of changes.
    pub(crate) fn is_blind(&self) -> bool {
        self.watch.get().is_none()
    }

    /// Something was told of that nobody has taken yet.
    pub(crate) fn has_hints(&self) -> bool {
        let is_told = |watch: &Watch| watch.has_hints();
        !locked(&self.own_hints).is_empty() || self.watch.get().is_some_and(is_told)
    }

    /// Lets the disk begin with what the next barrier would have to wait for, and has to tell of if it fails.
    fn flush_ahead(&self, actions: &[Action]) {
        const EVERY_BYTES: u64 = 32 * 1024 * 1024;
        let size = |a: &Action| match a.goal {
            Goal::File { size, .. } => size,
            _ => 0,
        };
        let written: u64 = actions.iter().map(size).sum();
        let unflushed = self.unflushed.fetch_add(written, Ordering::Relaxed) + written;
        if unflushed < EVERY_BYTES || self.flushing.swap(true, Ordering::SeqCst) {
            return;
        }
        self.unflushed.store(0, Ordering::Relaxed);
        let root = self.root.clone();
        let (flushing, flushed) = (self.flushing.clone(), self.flushed.clone());
        self.env.spawn(
            "flush",
            Box::new(move || {
                let mut failed = locked(&flushed);
                if let Err(e) = root.sync_fs() {
                    *failed = Some(e);
                }
                drop(failed);
                flushing.store(false, Ordering::SeqCst);
            }),
        );
    }

    /// Stops watching a directory that is gone.
    pub(crate) fn unwatch(&self, path: &RelPath) {
        if let Some(watch) = self.watch.get() {
            watch.remove_tree(path);
        }
    }

    /// A directory that we made is empty, so its digest is known, and it is watched from the start.
    pub(crate) fn made_dir(&self, path: &RelPath) {
        // Without a digest the directory's rows are compared one by one: slower, not wrong.
        let mut digest = Digest::default();
        digest.add(b"/", self.stamp(self.rules.of_dir(path).stamp()));
        let mut index = self.index();
        // A user may have taken away what the index has here; that is still to be found.
        let mut stale = false;
        let read = index.children(path, &mut |_, row| stale |= row.print.is_some());
        let empty = read.is_ok() && !stale;
        index.set_digest(path, empty.then_some(digest));
        drop(index);
        if !empty {
            // The index has the new directory from now on, so no other hint leads to what was in the old one.
            self.hint_tree(path.clone());
        }
        if !self.is_blind() && self.watch_made(path).is_err() {
            // The index has it as empty, and what was put in before the watch was set is told by nobody.
            self.hint_tree(path.clone());
        }
    }

    /// Watches a directory that we made, and hints at what a user put in before the watch was set.
    fn watch_made(&self, path: &RelPath) -> instep_fs::Result<()> {
        let dir = tree::open(&self.root, path)?;
        if self.watch_dir(&dir, path).is_err() {
            // What cannot be watched is looked at every few seconds.
            return Ok(());
        }
        let mut seen = Vec::new();
        dir.list(&mut |name, _| seen.push(name.to_vec()))?;
        let names = seen.iter().filter_map(|n| Name::new(n).ok());
        names.for_each(|name| self.hint(path.join(name)));
        Ok(())
    }

    /// The mode that a directory gets when its contents are in place.
    pub(crate) fn mode_later(&self, path: &RelPath, mode: u16) {
        locked(&self.modes_later).insert(path.clone(), mode);
    }

    /// Whether content waits in the staging directory.
    pub(crate) fn is_staged_file(&self, content: ContentId) -> bool {
        locked(&self.staged).contains_key(&content)
    }

    /// Takes staged content for an action.
    pub(crate) fn take_staged(&self, content: ContentId) -> Option<String> {
        locked(&self.staged).remove(&content)
    }

    /// Makes the directories of a path that are missing, as directories that stand for their contents.
    pub(crate) fn make_parents(&self, path: &RelPath) -> instep_fs::Result<Dir> {
        let mut dir = self.root.clone();
        let mut at = RelPath::root();
        for name in path.components() {
            at = at.join(name);
            dir = match dir.open_dir(name) {
                Ok(next) => next,
                Err(e) if e.kind() == FsErrorKind::Absent => {
                    if self.is_missed(&at) {
                        return Err(e);
                    }
                    match dir.make_dir(name, 0o755) {
                        Err(e) if e.kind() != FsErrorKind::Taken => return Err(e),
                        _ => self.env.reach(Step::ParentMade),
                    }
                    self.made_dir(&at);
                    match dir.stat(name)? {
                        Some(stat) if stat.kind == FsKind::Dir => {
                            self.derived(&at, self.as_made(&dir, &stat, 0o755));
                        }
                        // A user has put something else there: what it is, is for the next look to find out.
                        _ => self.hint(at.clone()),
                    }
                    dir.open_dir(name)?
                }
                Err(e) => return Err(e),
            };
        }
        Ok(dir)
    }

    /// Whether a file or link that should be at a path is missing there, and no look has told of it yet. What takes
    /// the name now would take with it that a user deleted it.
    fn is_missed(&self, path: &RelPath) -> bool {
        let row = self.index().get(path);
        row.map_or(true, |row| row.is_some_and(|r| r.is_file_or_link()))
    }

    /// What may be recorded of a directory that was just made with a mode. Other permissions are a user's
    /// change, which the next look must find; but a default access list takes some from all that is made.
    pub(crate) fn as_made(&self, parent: &Dir, stat: &Stat, mode: u32) -> Print {
        let seen = print(stat);
        if u32::from(seen.mode) == mode || !self.profile.modes || parent.narrows_modes() {
            return seen;
        }
        unlike(seen, mode as u16)
    }

    /// Notes a directory that stands for its contents.
    pub(crate) fn derived(&self, path: &RelPath, print: instep_core::row::Print) {
        let mut index = self.index();
        if let Ok(old) = index.get(path) {
            let row = old.clone().unwrap_or_default();
            let row = Row {
                shown: None,
                print: Some(print),
                seen: None,
                epoch: index.epoch(),
                ..row
            };
            // If this fails, the next look finds a directory that nobody knows, and mints it.
            let _found_again = index.put(path, old.as_ref(), &row);
        }
        drop(index);
        // A user may have taken it away a moment ago; whether it may stand is to be decided again.
        self.hint(path.clone());
    }

    /// Opens for use: recovers from a crash, and notes that this process is at work.
    pub fn begin(&self) -> Result<()> {
        let boot = self.env.boot_id();
        let (is_well, other_boot, is_empty) = {
            let mut index = self.index();
            let last = index.meta(b"boot")?;
            let other_boot = last.as_deref() != Some(boot.as_bytes());
            let clean = index.meta(b"clean")?.is_none_or(|b| b == b"1");
            // A clean end says nothing of data that an earlier call had lost; an empty index has nothing to look for.
            let lost = other_boot && last.is_some() && recover::is_unsure(&mut index)?;
            (clean && !lost, other_boot, last.is_none())
        };
        if !is_well {
            if other_boot {
                self.begin_anew()?;
            }
            recover::after_crash(self, other_boot)?;
            self.index().inherit_unsettled();
        } else {
            // What could not be moved to where it is kept is still there.
            recover::sweep(self, &[], other_boot)?;
            if is_empty {
                // The index that listed what is kept here may be gone; the copies of others, too.
                crate::relist::unlisted(self, &[])?;
            } else {
                crate::relist::again(self)?;
            }
        }
        let mut index = self.index();
        if self.is_rejoining() {
            // The index that knew how it ended is gone.
            recover::begin_blind(&mut index, self.env.wall_ns())?;
        }
        index.put_meta(b"clean", b"0")?;
        index.put_meta(b"boot", boot.as_bytes())?;
        index.commit(Durability::Power)
    }

    /// Makes everything on the file system durable. What users wrote in a root that is never changed counts as that, too.
    pub(crate) fn sync(&self) -> Result<()> {
        if self.settings.preview {
            return Ok(());
        }
        let mut flushed = locked(&self.flushed);
        let synced = self.root.sync_fs();
        let synced = flushed.take().map_or(synced, Err);
        drop(flushed);
        if let Err(e) = synced {
            // If that cannot be noted either, the index is broken, and what follows says so.
            let _noted = self.intact(recover::unsure(&mut self.index()));
            return Err(fs_error("sync the file system", e));
        }
        Ok(())
    }

    /// What was recorded last may be forgotten here and known elsewhere: a new dot of the same actor would
    /// claim to have seen it, and supersede it.
    fn begin_anew(&self) -> Result<()> {
        let actor = fresh_actor(self.env.as_ref());
        self.index().succeed(actor)?;
        *locked(&self.actor) = actor;
        Ok(())
    }

    /// Nobody is at work there any more: the next time it is left alone for a short while again.
    pub(crate) fn is_at_rest(&self, path: &RelPath) {
        locked(&self.busy).remove(path);
    }

    fn table(book: Book) -> Table {
        match book {
            Book::Share => Table::Meta,
            Book::Conflicts => Table::Conflict,
            Book::Holds => Table::Hold,
            Book::Trash => Table::Trash,
            Book::Log => Table::Log,
        }
    }
}

impl Replica for LocalReplica {
    fn id(&self) -> ReplicaId {
        self.id
    }

    fn actor(&self) -> ActorId {
        *locked(&self.actor)
    }

    fn share(&self) -> ShareId {
        self.share
    }

    fn describe(&self) -> Description {
        let mut notes = Vec::new();
        if !self.capabilities.hints {
            notes.push("polling: changes are found by looking, not by events".to_owned());
        }
        if self.capabilities.writable && !self.capabilities.strong_replace {
            notes.push("weaker replace: no leases or no exchange on this file system".to_owned());
        }
        if !self.capabilities.writable && self.settings.role != Role::Source {
            notes.push("read-only: takes no changes until its file system does".to_owned());
        }
        if self.is_rejoining() {
            notes.push(
                "rejoining: its index was lost or older, so the others know better".to_owned(),
            );
        }
        notes.extend(attributes::note(&self.settings, self.capabilities.carried));
        Description {
            label: self.settings.label.clone(),
            location: self.settings.location.clone(),
            fs_type: self.profile.fs_type.clone(),
            role: self.settings.role,
            new: self.new,
            notes,
        }
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn guard(&self) -> Result<()> {
        self.in_place()?;
        self.takes_changes()
    }

    fn renew(&self) -> Result<Option<Arc<dyn Replica>>> {
        crate::root::open_again(self)
    }

    fn is_rejoining(&self) -> bool {
        self.rejoining.load(Ordering::SeqCst)
    }

    fn rejoined(&self) -> Result<()> {
        self.intact(self.index().rejoined())?;
        self.rejoining.store(false, Ordering::SeqCst);
        Ok(())
    }

    fn watch(&self, waker: Waker) -> Result<Vec<Problem>> {
        let _first = self.waker.set(waker.clone());
        if !self.capabilities.hints || self.watch.get().is_some() {
            return Ok(Vec::new());
        }
        match (self.make_watcher)() {
            Ok(watcher) => {
                let watch = Watch::start(watcher, waker, &self.env, self.threaded);
                let _once = self.watch.set(watch);
                Ok(Vec::new())
            }
            Err(e) => Ok(vec![Problem {
                path: RelPath::root(),
                code: Code::WatchLimit,
                detail: e.to_string(),
            }]),
        }
    }

    fn take_hints(&self) -> HintSet {
        unjudged::look(self);
        let mut hints = std::mem::take(&mut *locked(&self.own_hints));
        if let Some(watch) = self.watch.get() {
            hints.extend(watch.take());
            hints.trees.extend(self.unwatched(watch));
        }
        for (path, aside) in locked(&self.hashed_aside).iter_mut() {
            if aside.result.is_some() && !std::mem::replace(&mut aside.told, true) {
                hints.add_path(path.clone());
            }
        }
        hints
    }

    fn look(&self, scope: &Scope) -> Result<Look> {
        self.in_place()?;
        let look = self.observe(scope);
        // The root may have gone while we looked; then nothing that was missed counts.
        self.in_place()?;
        Ok(look)
    }

    fn record(&self, look: &Look, share: &ShareState) -> Result<Vec<RelPath>> {
        self.intact(record::record(self, look, share))
    }

    fn sums(&self) -> Option<Totals> {
        Some(self.index().totals())
    }

    fn row(&self, path: &RelPath) -> Result<Option<Row>> {
        self.index().get(path)
    }

    fn children(&self, dir: &RelPath, visit: RowVisitor<'_>) -> Result<()> {
        let mut go_on = true;
        self.index().children(dir, &mut |name, row| {
            if go_on {
                go_on = visit(dir.join(name), row).is_continue();
            }
        })
    }

    fn subtree(&self, dir: &RelPath, visit: RowVisitor<'_>) -> Result<()> {
        self.index()
            .store()
            .subtree(dir, visit)
            .map_err(|e| store_error("read the index", e))
    }

    fn open(&self, path: &RelPath, content: ContentId) -> Result<Option<Box<dyn Content>>> {
        if let Some(at_hand) = locked(&self.kept).get(content) {
            return Ok(Some(at_hand));
        }
        if let Some(found) = self.open_in_tree(path, content)? {
            return Ok(Some(found));
        }
        if let Some(name) = locked(&self.staged).get(&content).cloned()
            && let Some(dirs) = self.ours()
            && let Ok(file) = dirs.staging.open_file(ours(&name))
            && let Ok(stat) = file.stat()
        {
            return Ok(Some(Box::new(FileContent::new(file, stat))));
        }
        for (dir, key) in trash::find(self, content) {
            let Ok(file) = dir.open_file(ours(&key)) else {
                continue;
            };
            let stat = file
                .stat()
                .map_err(|e| fs_error("examine a kept file", e))?;
            // No fingerprint vouches for what is kept; another replica may have it whole.
            let hashed = hash_file(&file, &stat, false, &mut Vec::new());
            if matches!(hashed, Ok(Hashed::Content { id, .. }) if id == content) {
                return Ok(Some(Box::new(FileContent::new(file, stat))));
            }
        }
        Ok(None)
    }

    fn check(&self, path: &RelPath) -> Result<Checked> {
        check::file(self, path)
    }

    fn check_kept(&self, key: &str) -> Result<Checked> {
        check::kept(self, key)
    }

    fn sample(&self, seed: u64, count: usize) -> Result<Vec<RelPath>> {
        check::sample(self, seed, count)
    }

    fn stage(&self, path: &RelPath, content: ContentId, from: &mut dyn Content) -> Result<Outcome> {
        let Some(dirs) = self.ours() else {
            return Ok(Outcome::Superseded);
        };
        if self.is_staged_file(content) {
            return Ok(Outcome::Done);
        }
        let name = trash::fresh_name(self);
        let mode = draft::mode(&self.profile, 0o600);
        let file = match dirs.staging.create_file(ours(&name), mode) {
            Ok(file) => file,
            Err(e) => return Ok(apply::failed(path, &e)),
        };
        self.env.reach(Step::StageMade);
        let size = from.size();
        match fill(
            &file,
            from,
            content,
            size,
            self.profile.reflink,
            &mut Vec::new(),
        ) {
            Ok(()) => {
                self.env.reach(Step::Staged);
                self.begun.forget(content);
                locked(&self.staged).insert(content, name);
                Ok(Outcome::Done)
            }
            Err(failed) => {
                let _litter = dirs.staging.remove_file(ours(&name));
                self.begun.failed(content, file, &failed);
                Ok(match failed {
                    crate::content::Failed::Write(e) => apply::failed(path, &e),
                    why => apply::bad_source(path, &why),
                })
            }
        }
    }

    fn begun(&self, content: ContentId) -> Option<Box<dyn Content>> {
        self.begun.get(content)
    }

    fn is_staged(&self, content: ContentId) -> bool {
        self.is_staged_file(content)
    }

    fn apply(&self, actions: &[Action], sources: &dyn Sources) -> Result<Vec<Outcome>> {
        self.guard()?;
        let outcomes = self.intact(apply::apply(self, actions, sources))?;
        let refused = |o: &Outcome| matches!(o, Outcome::Blocked(p) if p.code == Code::ReadOnly);
        if outcomes.iter().any(refused) {
            self.refused.store(true, Ordering::SeqCst);
        }
        self.intact(self.set_modes())?;
        self.flush_ahead(actions);
        Ok(outcomes)
    }

    fn take_problems(&self) -> Vec<Problem> {
        std::mem::take(&mut locked(&self.noted))
    }

    fn rename(&self, from: &RelPath, to: &RelPath) -> Result<Outcome> {
        self.guard()?;
        let (Some((from_dir, from_name)), Some((to_dir, to_name))) = (from.split(), to.split())
        else {
            return Ok(Outcome::Superseded);
        };
        // What was brought there is known by its place until it is sure to last.
        if recover::is_intended_within(&mut self.index(), from)? {
            self.barrier()?;
        }
        let expected = self.index().get(from)?.and_then(|r| r.print);
        let rename = || -> instep_fs::Result<Outcome> {
            let source = tree::open(&self.root, &from_dir)?;
            let target = tree::open(&self.root, &to_dir)?;
            match source.stat(from_name)? {
                Some(stat) if expected == Some(print(&stat)) => {}
                _ => return Ok(Outcome::Superseded),
            }
            tree::shift(&source, from_name, &target, to_name)?;
            self.env.reach(Step::MovedEarly);
            Ok(Outcome::Done)
        };
        Ok(rename().unwrap_or_else(|e| apply::failed(to, &e)))
    }

    fn adopt_move(&self, from: &RelPath, to: &RelPath, entries: &[(RelPath, Row)]) -> Result<()> {
        adopt::adopt_move(self, from, to, entries)
    }

    fn mint(&self) -> Result<Dot> {
        self.intact(self.index().mint())
    }

    fn restore(&self, key: &str, to: Option<&RelPath>) -> Result<RelPath> {
        trash::restore(self, key, to)
    }

    fn purge(&self, before_ns: i64) -> Result<u64> {
        trash::purge(self, before_ns)
    }

    fn barrier(&self) -> Result<()> {
        trash::put_left(self);
        if !self.index().needs_barrier() {
            return Ok(());
        }
        self.sync()?;
        self.env.reach(Step::Synced);
        self.intact(recover::fulfilled(&mut self.index()))?;
        self.intact(self.index().epoch_is_durable())
    }

    fn close(&self) -> Result<()> {
        self.barrier()?;
        let closed = |index: &mut Index| {
            index.put_meta(b"clean", b"1")?;
            index.commit(Durability::Power)
        };
        self.intact(closed(&mut self.index()))?;
        self.env.reach(Step::Closed);
        Ok(())
    }

    fn read_record(&self, book: Book, key: &str) -> Result<Option<String>> {
        let body = self
            .index()
            .store()
            .record(Self::table(book), key.as_bytes())
            .map_err(|e| store_error("read a record", e))?;
        Ok(body.and_then(|b| String::from_utf8(b).ok()))
    }

    fn write_record(&self, book: Book, key: &str, body: Option<&str>) -> Result<()> {
        let (table, bytes) = (Self::table(book), key.as_bytes());
        let write = |index: &mut Index| {
            let store = index.store();
            let written = match body {
                Some(body) => store.put_record(table, bytes, body.as_bytes()),
                None => store.remove_record(table, bytes),
            };
            written.map_err(|e| store_error("write a record", e))?;
            index.commit(Durability::Process)
        };
        self.intact(write(&mut self.index()))?;
        if DamageRecord::is_key(key) {
            self.damaged.forget();
        }
        self.env.reach(Step::Record);
        Ok(())
    }

    fn records(&self, book: Book) -> Result<Vec<(String, String)>> {
        let mut out = Vec::new();
        let stored = (book == Book::Trash).then_some(Table::Stored);
        for table in std::iter::once(Self::table(book)).chain(stored) {
            self.index()
                .store()
                .records(table, &mut |key, body| {
                    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
                    out.push((text(key), text(body)));
                    std::ops::ControlFlow::Continue(())
                })
                .map_err(|e| store_error("read records", e))?;
        }
        Ok(out)
    }
}

/// Whether an object is the one that the index has, whatever happened to its name and mode.
fn is_still(row: &Row, stat: &instep_fs::Stat) -> bool {
    let same_ino = row.print.is_some_and(|p| p.ino == stat.ino);
    let version = row.present();
    same_ino
        && match stat.kind {
            instep_fs::Kind::Dir => row.is_dir(),
            instep_fs::Kind::File => version.is_some_and(|v| {
                v.kind == Kind::File && v.size == stat.size && v.mtime == stat.mtime
            }),
            instep_fs::Kind::Link => version.is_some_and(|v| v.kind == Kind::Link),
            instep_fs::Kind::Special => false,
        }
}

impl LocalReplica {
    fn open_in_tree(&self, path: &RelPath, content: ContentId) -> Result<Option<Box<dyn Content>>> {
        let row = self.index().get(path)?;
        let Some(row) = row else { return Ok(None) };
        let matches = row
            .present()
            .is_some_and(|v| v.kind == Kind::File && v.content == content);
        let Some((parent, name)) = path.split().filter(|_| matches) else {
            return Ok(None);
        };
        if self.damaged.has(self, path) {
            return Ok(None);
        }
        let opened = tree::open(&self.root, &parent)
            .and_then(|dir| dir.open_file(name))
            .and_then(|f| f.stat().map(|s| (f, s)));
        match opened {
            // What is there must be what the index vouches for.
            Ok((file, stat)) if Some(print(&stat)) == row.print => {
                Ok(Some(Box::new(FileContent::vouched(file, stat))))
            }
            // A change may have left the stamps as they are, so the bytes have to prove themselves.
            Ok((file, stat)) if row.print.is_some_and(|p| p == unlike(print(&stat), p.mode)) => {
                Ok(Some(Box::new(FileContent::new(file, stat))))
            }
            // Whoever asked asks again after a while, and that is when it is looked at: a program may keep it
            // open for long.
            _ => Ok(None),
        }
    }

    /// Directories that could not be watched are looked at every few seconds. Looking tries to watch them
    /// again, so that they come back here only as long as that fails.
    fn unwatched(&self, watch: &Watch) -> BTreeSet<RelPath> {
        const EVERY_NS: u64 = 5_000_000_000;
        let now = self.env.monotonic_ns();
        let mut next = locked(&self.next_unwatched_ns);
        if *next > now {
            return BTreeSet::new();
        }
        *next = now + EVERY_NS;
        let refused = watch.take_refused();
        let covered = |p: &RelPath| p.parent().is_some_and(|up| refused.contains(&up));
        refused.iter().filter(|p| !covered(p)).cloned().collect()
    }

    /// Gives directories the modes that had to wait for their contents.
    fn set_modes(&self) -> Result<()> {
        let later = std::mem::take(&mut *locked(&self.modes_later));
        for (path, mode) in later.into_iter().rev() {
            let Some((parent, name)) = path.split() else {
                continue;
            };
            let made = self.index().get(&path)?.and_then(|r| r.print);
            let set = tree::open(&self.root, &parent).and_then(|dir| {
                // RACE: a user's change of mode between these two calls is undone.
                let now = dir.stat(name)?.map(|s| print(&s).mode);
                let ours = made.is_some_and(|p| now == Some(p.mode));
                let set = ours.then(|| dir.set_mode(name, u32::from(mode)));
                set.transpose()
            });
            match set {
                Ok(Some(())) => {
                    self.env.reach(Step::DirModeSet);
                    self.refresh(&path, Some(mode));
                }
                // A user has given it another mode meanwhile, which the next look finds.
                Ok(None) => {}
                Err(e) => self.note_problem(&path, &e),
            }
        }
        self.index().commit(Durability::Process)
    }

    /// Takes a fresh fingerprint of one path whose bytes are known. Other permissions than these are a
    /// user's change, which the next look must find.
    pub(crate) fn refresh(&self, path: &RelPath, mode: Option<u16>) {
        let Some((parent, name)) = path.split() else {
            return;
        };
        let stat = tree::open(&self.root, &parent).and_then(|d| d.stat(name));
        let mut index = self.index();
        if let (Ok(Some(stat)), Ok(Some(row))) = (stat, index.get(path))
            && is_still(&row, &stat)
        {
            let seen = print(&stat);
            let expected = mode.or(row.print.map(|p| p.mode));
            if expected != Some(seen.mode) {
                return;
            }
            let new = Row {
                print: Some(seen),
                ..row.clone()
            };
            // A stale fingerprint only costs one more look.
            let _looked_at = index.put(path, Some(&row), &new);
        }
    }
}
