//! [`HubReplica`]: a share's copy without a working directory, as the engine sees it.
//!
//! Owns what is shared between calls, and turns the contract's calls into operations on the state. Invariant: what a
//! failed call wrote is taken back before anything else is done. The work is done in the modules it is named for.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use instep_core::attributes::Carried;
use instep_core::id::{ActorId, ContentId, Dot, ReplicaId, ShareId};
use instep_core::path::RelPath;
use instep_core::plan::{Action, Outcome, Problem};
use instep_core::policy::Role;
use instep_core::row::Row;
use instep_fs::{Dir, LockFile};
use instep_replica::env::Env;
use instep_replica::error::{Error, ErrorKind};
use instep_replica::{
    Book, Capabilities, Checked, Content, Description, HintSet, Look, Replica, Result, RowVisitor,
    Scope, ShareState, Sources, Step, Totals, Waker,
};
use instep_store::{Durability, IndexStore};

use crate::begun::Begun;
use crate::chunks::Chunks;
use crate::contents::{Contents, Lack};
use crate::history::Shown;
use crate::identity::{Witness, fs_error};
use crate::index::Index;
use crate::open::{HubOptions, fresh_actor};
use crate::reader::{Damage, Kept};
use crate::retention::Retention;
use crate::state::{State, UNSURE};

/// How often, at most, it is remembered outside how old the stores are.
const WITNESS_NS: u64 = 60 * 1_000_000_000;

/// Verifies that a directory is still in place; `Err` with the reason when it is not.
pub type Guard = Box<dyn Fn() -> core::result::Result<(), String> + Send + Sync>;

/// What a hub's copy is put together from.
pub struct Parts {
    /// Its identity.
    pub id: ReplicaId,
    /// Its share.
    pub share: ShareId,
    /// The name in messages.
    pub label: String,
    /// Where it is.
    pub location: String,
    /// Its open directory.
    pub home: Dir,
    /// The store of rows and books.
    pub index: Box<dyn IndexStore>,
    /// The store of contents and history.
    pub contents: Box<dyn IndexStore>,
    /// It was made just now.
    pub is_new: bool,
    /// Its rows are lost, older than they once were, or of another place.
    pub is_rejoining: bool,
    /// The same of its contents: everything is held against what is here.
    pub is_unsure: bool,
    /// How long what was shown stays reachable.
    pub retention: Retention,
    /// Whether the directory is still in place.
    pub guard: Guard,
}

/// A share's copy without a working directory.
pub struct HubReplica {
    pub(crate) env: Arc<dyn Env>,
    pub(crate) chunks: Arc<Chunks>,
    pub(crate) retention: Retention,
    pub(crate) damage: Arc<Damage>,
    pub(crate) begun: Begun,
    id: ReplicaId,
    share: ShareId,
    actor: Mutex<ActorId>,
    description: Description,
    capabilities: Capabilities,
    home: Dir,
    guard: Guard,
    state: Mutex<State>,
    rejoining: AtomicBool,
    is_unsure: bool,
    hints: Mutex<HintSet>,
    waker: OnceLock<Waker>,
    witness: Option<(Witness, Mutex<u64>)>,
    lock: Option<LockFile>,
    /// How to open the directory anew.
    again: Option<(PathBuf, HubOptions)>,
}

impl std::fmt::Debug for HubReplica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubReplica")
            .field("id", &self.id)
            .field("share", &self.share)
            .field("lock", &self.lock)
            .finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a hub can do: it keeps everything, and nobody else writes it.
fn capabilities() -> Capabilities {
    Capabilities {
        writable: true,
        observed: false,
        edited: false,
        hints: true,
        strong_replace: true,
        reflink: false,
        modes: true,
        // What is said of owners and attributes passes through with the versions.
        carried: Carried::default(),
        links: true,
        case_sensitive: true,
    }
}

impl HubReplica {
    /// Puts a hub's copy together. It is used only after [`HubReplica::begin`].
    pub fn assemble(env: Arc<dyn Env>, parts: Parts) -> Result<Self> {
        let chunks = Chunks::open(&parts.home).map_err(|e| fs_error("open the chunks", e))?;
        let mut index = Index::open(parts.index, fresh_actor(env.as_ref()))?;
        if parts.is_rejoining {
            index.set_rejoining(true)?;
            index.commit(Durability::Power)?;
        }
        let rejoining = index.is_rejoining()?;
        let profile = parts.home.profile(None);
        let profile = profile.map_err(|e| fs_error("examine the hub's file system", e))?;
        let description = Description {
            label: parts.label,
            location: parts.location,
            fs_type: profile.fs_type,
            role: Role::Both,
            new: parts.is_new,
            notes: Vec::new(),
        };
        Ok(Self {
            env,
            chunks: Arc::new(chunks),
            retention: parts.retention,
            damage: Arc::default(),
            begun: Begun::default(),
            id: parts.id,
            share: parts.share,
            actor: Mutex::new(index.actor()),
            description,
            capabilities: capabilities(),
            home: parts.home,
            guard: parts.guard,
            state: Mutex::new(State::open(index, Contents::open(parts.contents)?)?),
            rejoining: AtomicBool::new(rejoining),
            is_unsure: parts.is_unsure || parts.is_rejoining,
            hints: Mutex::default(),
            waker: OnceLock::new(),
            witness: None,
            lock: None,
            again: None,
        })
    }

    /// Opens for use: recovers from a crash, and notes that this process is at work.
    pub fn begin(&self) -> Result<()> {
        let boot = self.env.boot_id();
        let mut state = self.state();
        let last = state.index.meta(b"boot")?;
        // Where the system does not tell one boot from another, each may be another.
        let is_other_boot = last.is_some_and(|last| boot.is_empty() || last != boot.as_bytes());
        let is_clean = state.index.meta(b"clean")?.is_none_or(|b| b == b"1");
        let is_cut = is_other_boot && !is_clean || state.index.meta(UNSURE)?.is_some();
        if is_cut || self.is_unsure {
            // What was recorded last may be forgotten here and known elsewhere: a new dot of the same actor would
            // claim to have seen it.
            let actor = fresh_actor(self.env.as_ref());
            state.index.renew(actor)?;
            *locked(&self.actor) = actor;
            state.recover(&self.chunks, self.is_unsure)?;
            state.index.forget_meta(UNSURE)?;
            state.contents.commit(Durability::Power)?;
            self.env.reach(Step::Recovered);
        }
        state.index.put_meta(b"clean", b"0")?;
        state.index.put_meta(b"boot", boot.as_bytes())?;
        state.commit(Durability::Power)?;
        // Whoever wrote before may have died without a barrier: the next one is also for that.
        state.is_unsettled = !is_clean;
        drop(state);
        self.env.reach(Step::Begun);
        Ok(())
    }

    /// From now on it is remembered outside how old the stores are, and the directory is locked as long as this lives.
    pub(crate) fn is_witnessed_by(
        &mut self,
        witness: Witness,
        lock: LockFile,
        again: (PathBuf, HubOptions),
    ) -> Result<()> {
        self.witness = Some((witness, Mutex::new(0)));
        self.lock = Some(lock);
        self.again = Some(again);
        self.bear_witness()
    }

    fn bear_witness(&self) -> Result<()> {
        let Some((witness, last)) = &self.witness else {
            return Ok(());
        };
        let now = self.env.monotonic_ns();
        let mut last = locked(last);
        if *last != 0 && now.saturating_sub(*last) < WITNESS_NS {
            return Ok(());
        }
        let mut state = self.state();
        let State {
            index, contents, ..
        } = &mut *state;
        let contents: &mut dyn IndexStore = contents.store.as_mut();
        witness.note(self.env.as_ref(), self.id, [contents, index.store()])?;
        *last = now.max(1);
        Ok(())
    }

    /// The state, with the clock as of now.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        let wall_ns = self.env.wall_ns();
        let mut state = locked(&self.state);
        state.wall_ns = state.wall_ns.max(wall_ns);
        state
    }

    /// Hands on what a change of the state gave, and takes the change back if it failed.
    pub(crate) fn intact<T>(&self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            // If that fails, too, nothing that follows can be written.
            let _undone = self.state().undo();
        }
        result
    }

    fn in_place(&self) -> Result<()> {
        (self.guard)().map_err(|why| Error::new(ErrorKind::Gone, why))
    }

    fn writable(&self) -> Result<()> {
        self.in_place()?;
        if let Some(e) = self.chunks.failure() {
            let attempt = format!("{} must be opened anew", self.description.location);
            return Err(fs_error(&attempt, e));
        }
        if self.home.is_read_only().unwrap_or(false) {
            let attempt = format!(
                "the file system of {} is read-only",
                self.description.location
            );
            return Err(Error::new(ErrorKind::ReadOnly, attempt));
        }
        Ok(())
    }

    /// Notes what readers found, and hints at every path that shows it.
    pub(crate) fn take_damage(&self) -> Result<()> {
        let reports = self.damage.take();
        if reports.is_empty() {
            return Ok(());
        }
        let mut state = self.state();
        for (content, lack) in reports {
            let (Lack::Damaged(id) | Lack::Missing(id)) = lack else {
                // It may be readable later.
                continue;
            };
            let is_sound = self.chunks.discard(id);
            let is_sound = is_sound.map_err(|e| fs_error("remove a damaged chunk", e))?;
            if !is_sound && state.contents.get(content)?.is_some() {
                state.contents.set_damaged(content, true)?;
            }
        }
        state.commit(Durability::Process)?;
        let paths = state.showing_damage(&RelPath::root())?;
        drop(state);
        let mut hints = locked(&self.hints);
        paths.into_iter().for_each(|path| hints.add_path(path));
        Ok(())
    }

    fn hint(&self, path: RelPath) {
        locked(&self.hints).add_path(path);
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }

    /// What was shown at a path, oldest first.
    pub fn history(&self, path: &RelPath) -> Result<Vec<Shown>> {
        self.state().contents.history_of(path)
    }

    /// Brings back what a path showed once, as a user would; the next look finds it. What is there now has its place
    /// in history.
    pub fn bring_back(&self, path: &RelPath, dot: Dot) -> Result<()> {
        self.writable()?;
        let bring_back = |state: &mut State| {
            state.bring_back(path, dot)?;
            state.commit(Durability::Process)
        };
        let brought = bring_back(&mut self.state());
        self.intact(brought)?;
        self.hint(path.clone());
        Ok(())
    }

    /// Makes everything durable; whether there was anything.
    fn settle(&self) -> Result<bool> {
        let epoch = {
            let mut state = self.state();
            state.commit(Durability::Process)?;
            if !state.is_unsettled && !self.chunks.is_pending() {
                return Ok(false);
            }
            state.is_unsettled = false;
            // What is brought from now on is not part of what is flushed.
            state.index.end_epoch()
        };
        if let Err(e) = self.chunks.settle() {
            self.state().is_unsure()?;
            return Err(fs_error("make the chunks durable", e));
        }
        self.env.reach(Step::Synced);
        let mut state = self.state();
        state.contents.commit(Durability::Power)?;
        state.index.epoch_is_durable(epoch)?;
        self.env.reach(Step::EpochDurable);
        Ok(true)
    }
}

impl Replica for HubReplica {
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
        let mut description = self.description.clone();
        if self.is_rejoining() {
            let note = "rejoining: its rows were lost or older, so the others know better";
            description.notes.push(note.to_owned());
        }
        description
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn guard(&self) -> Result<()> {
        self.writable()
    }

    fn renew(&self) -> Result<Option<Arc<dyn Replica>>> {
        let again = self.again.as_ref().filter(|_| self.in_place().is_err());
        let Some((path, options)) = again else {
            return Ok(None);
        };
        let again = Self::open(path, Arc::clone(&self.env), options.clone())?;
        // Another hub that has its place is not this one.
        Ok((again.id == self.id).then(|| Arc::new(again) as Arc<dyn Replica>))
    }

    fn is_rejoining(&self) -> bool {
        self.rejoining.load(Ordering::SeqCst)
    }

    fn rejoined(&self) -> Result<()> {
        let rejoined = |state: &mut State| {
            state.index.set_rejoining(false)?;
            state.commit(Durability::Process)
        };
        let done = rejoined(&mut self.state());
        self.intact(done)?;
        self.rejoining.store(false, Ordering::SeqCst);
        Ok(())
    }

    fn watch(&self, waker: Waker) -> Result<Vec<Problem>> {
        let _first = self.waker.set(waker.clone());
        let _first = self.damage.waker.set(waker);
        Ok(Vec::new())
    }

    fn take_hints(&self) -> HintSet {
        // What could not be noted is found again by whoever reads it.
        let noted = self.take_damage();
        let _later = self.intact(noted);
        std::mem::take(&mut *locked(&self.hints))
    }

    fn look(&self, scope: &Scope) -> Result<Look> {
        self.in_place()?;
        let noted = self.take_damage();
        self.intact(noted)?;
        self.state().look(scope)
    }

    fn record(&self, look: &Look, share: &ShareState) -> Result<Vec<RelPath>> {
        let recorded = self.record_all(look, share);
        self.intact(recorded)
    }

    fn sums(&self) -> Option<Totals> {
        Some(self.state().index.totals())
    }

    fn row(&self, path: &RelPath) -> Result<Option<Row>> {
        let row = self.state().index.get(path)?;
        Ok((row != Row::default()).then_some(row))
    }

    fn children(&self, dir: &RelPath, visit: RowVisitor<'_>) -> Result<()> {
        let rows = self.state().index.children(dir)?;
        for (path, row) in rows {
            if visit(path, row).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn subtree(&self, dir: &RelPath, visit: RowVisitor<'_>) -> Result<()> {
        self.state().index.subtree(dir, visit)
    }

    fn open(&self, path: &RelPath, content: ContentId) -> Result<Option<Box<dyn Content>>> {
        if path.is_reserved() || content == ContentId::NONE {
            return Ok(None);
        }
        self.open_content(content)
    }

    fn check(&self, path: &RelPath) -> Result<Checked> {
        let row = self.state().index.get(path)?;
        let file = row.present().filter(|_| row.is_file_or_link());
        match file.filter(|v| v.target.is_empty()) {
            Some(v) => self.read_through(path, v.content),
            None => Ok(Checked::Nothing),
        }
    }

    fn check_kept(&self, key: &str) -> Result<Checked> {
        let kept = self.state().kept(key)?;
        let displaced = kept.and_then(|(_, d)| Some((d.path()?, d.content()?)));
        match displaced {
            Some((path, content)) => self.read_through(&path, content),
            None => Ok(Checked::Nothing),
        }
    }

    fn sample(&self, seed: u64, count: usize) -> Result<Vec<RelPath>> {
        self.state().index.sample(seed, count)
    }

    fn stage(&self, path: &RelPath, content: ContentId, from: &mut dyn Content) -> Result<Outcome> {
        self.writable()?;
        {
            let mut state = self.state();
            if state.contents.has(content)? {
                state.staged.insert(content);
                return Ok(Outcome::Done);
            }
        }
        let brought = self.bring(path, content, from);
        let brought = brought.and_then(|b| self.state().commit_contents().map(|()| b));
        let brought = self.intact(brought)?;
        self.env.reach(Step::Staged);
        Ok(brought.map_or_else(|outcome| outcome, |()| Outcome::Done))
    }

    fn begun(&self, content: ContentId) -> Option<Box<dyn Content>> {
        let pieces = self.begun.get(content, &self.chunks)?;
        let kept = Kept::new(&self.chunks, &self.damage, content, pieces);
        Some(Box::new(kept))
    }

    fn is_staged(&self, content: ContentId) -> bool {
        self.state().staged.contains(&content)
    }

    fn apply(&self, actions: &[Action], sources: &dyn Sources) -> Result<Vec<Outcome>> {
        self.writable()?;
        let done = self.carry_out_all(actions, sources);
        self.intact(done)
    }

    fn rename(&self, from: &RelPath, to: &RelPath) -> Result<Outcome> {
        self.writable()?;
        self.state().rename(from, to)
    }

    fn adopt_move(&self, from: &RelPath, to: &RelPath, entries: &[(RelPath, Row)]) -> Result<()> {
        let adopt = |state: &mut State| {
            state.adopt_move(from, to, entries)?;
            state.commit(Durability::Process)
        };
        let adopted = adopt(&mut self.state());
        self.env.reach(Step::MoveAdopted);
        self.intact(adopted)
    }

    fn mint(&self) -> Result<Dot> {
        let minted = self.state().index.mint();
        self.intact(minted)
    }

    fn restore(&self, key: &str, to: Option<&RelPath>) -> Result<RelPath> {
        self.writable()?;
        let restore = |state: &mut State| {
            let path = state.restore(key, to)?;
            state.commit(Durability::Process)?;
            Ok(path)
        };
        let restored = restore(&mut self.state());
        let path = self.intact(restored)?;
        self.env.reach(Step::Restored);
        self.hint(path.clone());
        Ok(path)
    }

    fn purge(&self, before_ns: i64) -> Result<u64> {
        self.writable()?;
        let purge = |state: &mut State| {
            let gone = state.purge(before_ns)?;
            state.commit(Durability::Process)?;
            Ok(gone)
        };
        let purged = purge(&mut self.state());
        self.intact(purged)
    }

    fn barrier(&self) -> Result<()> {
        let settled = self.settle();
        if self.intact(settled)? {
            // It is tried again after the next one: what has to last does.
            let _later = self.bear_witness();
        }
        Ok(())
    }

    fn close(&self) -> Result<()> {
        self.barrier()?;
        let close = |state: &mut State| {
            state.index.put_meta(b"clean", b"1")?;
            state.commit(Durability::Power)
        };
        let closed = close(&mut self.state());
        self.env.reach(Step::Closed);
        self.intact(closed)
    }

    fn read_record(&self, book: Book, key: &str) -> Result<Option<String>> {
        self.state().read_book(book, key)
    }

    fn write_record(&self, book: Book, key: &str, body: Option<&str>) -> Result<()> {
        let write = |state: &mut State| {
            state.write_book(book, key, body)?;
            state.commit(Durability::Process)
        };
        let written = write(&mut self.state());
        self.env.reach(Step::Record);
        self.intact(written)
    }

    fn records(&self, book: Book) -> Result<Vec<(String, String)>> {
        self.state().book(book)
    }
}
