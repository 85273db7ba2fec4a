//! The reference implementation of [`Replica`]: a tree, an index and a few maps, and nothing else.
//!
//! Simple before fast: it exists so that the contract has one reading that is obviously right, and so that
//! the engine and the conformance suite have something to be compared with. Whatever it does, a directory
//! on disk must do too. It touches no file system and knows no time but the injected one.
//!
//! ```
//! use std::sync::Arc;
//! use instep_core::{id::ShareId, path::RelPath};
//! use instep_replica::env::StepEnv;
//! use instep_replica::memory::MemoryReplica;
//! use instep_replica::{Replica, Scope, ShareState};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let share = ShareId([1; 16]);
//! let a = MemoryReplica::new("A", share, Arc::new(StepEnv::default()));
//! a.user_write(&RelPath::new(b"notes/today.txt")?, b"hello")?;
//!
//! let look = a.look(&Scope::Everything)?;
//! assert_eq!(look.findings.len(), 2, "the directory and the file");
//! a.record(&look, &ShareState::new(share, Default::default()))?;
//! assert!(a.look(&Scope::Everything)?.findings.is_empty());
//! # Ok(())
//! # }
//! ```

mod act;
mod bin;
mod observe;
mod tree;
mod user;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use instep_chunk::content_id;
use instep_core::attributes::Carried;
use instep_core::id::{ActorId, ContentId, Dot, ReplicaId, ShareId};
use instep_core::path::RelPath;
use instep_core::plan::{Action, Code, Goal, Outcome, Problem};
use instep_core::policy::Role;
use instep_core::row::Row;
use instep_core::time::{Hlc, tick};

use crate::capability::{Capabilities, Description};
use crate::check::Checked;
use crate::content::{Bytes, Content, Sources};
use crate::env::Env;
use crate::error::{Error, ErrorKind};
use crate::hints::{HintSet, Waker};
use crate::look::{Look, Scope};
use crate::mint::{self, Event};
use crate::records::{Book, ShareState};
use crate::{Replica, Result, RowVisitor};

use tree::{Node, Tree};

pub use tree::Object;

/// A replica in memory.
pub struct MemoryReplica {
    id: ReplicaId,
    actor: ActorId,
    share: ShareId,
    description: Description,
    capabilities: Capabilities,
    env: Arc<dyn Env>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tree: Tree,
    index: BTreeMap<RelPath, Row>,
    versions: BTreeMap<Dot, Node>,
    trash: BTreeMap<String, Node>,
    kept_count: u64,
    staged: BTreeMap<ContentId, Vec<u8>>,
    /// What arrived of the content whose transfer broke off last.
    begun: Option<(ContentId, Vec<u8>)>,
    records: BTreeMap<(Book, String), String>,
    counter: u64,
    hlc: Hlc,
    /// The clock as of the call that is under way.
    wall_ns: i64,
    epoch: u32,
    hints: HintSet,
    waker: Option<Waker>,
    ignored: BTreeSet<RelPath>,
    unreadable: BTreeSet<RelPath>,
    room: Option<u64>,
    gone: bool,
    read_only: bool,
}

impl State {
    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake();
        }
    }

    fn rows_below<'a>(&'a self, dir: &'a RelPath) -> impl Iterator<Item = (&'a RelPath, &'a Row)> {
        let rows = self
            .index
            .range(dir.clone()..)
            .skip_while(move |(p, _)| *p == dir);
        rows.take_while(move |(p, _)| p.is_within(dir))
    }

    fn event(&mut self, actor: ActorId, policy_epoch: u32) -> Event {
        self.counter += 1;
        self.hlc = tick(self.hlc, self.wall_ns);
        Event {
            dot: Dot {
                actor,
                counter: self.counter,
            },
            hlc: self.hlc,
            policy_epoch,
        }
    }
}

impl MemoryReplica {
    /// An empty replica of a share, with an identity drawn from `env`.
    pub fn new(label: &str, share: ShareId, env: Arc<dyn Env>) -> Self {
        let id = env.random();
        let mut actor = [0; 8];
        actor.copy_from_slice(&env.random()[..8]);
        Self {
            id: ReplicaId(id),
            actor: ActorId(actor),
            share,
            description: Description {
                label: label.into(),
                location: format!("memory:{label}"),
                fs_type: "memory".into(),
                role: Role::Both,
                new: true,
                notes: Vec::new(),
            },
            capabilities: Capabilities {
                writable: true,
                observed: false,
                edited: true,
                hints: true,
                strong_replace: true,
                reflink: false,
                modes: true,
                carried: Carried::default(),
                links: true,
                case_sensitive: true,
            },
            env,
            state: Mutex::default(),
        }
    }

    /// The same with another role; a source cannot be written.
    #[must_use]
    pub fn with_role(mut self, role: Role) -> Self {
        self.capabilities.writable = role != Role::Source;
        self.description.role = role;
        self
    }

    /// Excludes a path with everything below it, or includes it again. Watchers hear of it.
    pub fn set_ignored(&self, path: &RelPath, ignored: bool) {
        let mut state = self.lock();
        if ignored {
            state.ignored.insert(path.clone());
        } else {
            state.ignored.remove(path);
        }
        state.hints.trees.insert(path.clone());
        state.wake();
    }

    /// Makes a file or a directory's listing unreadable, or readable again.
    pub fn set_unreadable(&self, path: &RelPath, unreadable: bool) {
        let mut state = self.lock();
        if unreadable {
            state.unreadable.insert(path.clone());
        } else {
            state.unreadable.remove(path);
        }
    }

    /// Takes the root away, or brings it back as it was.
    pub fn set_gone(&self, gone: bool) {
        let mut state = self.lock();
        state.gone = gone;
        state.hints.root = true;
        state.wake();
    }

    /// Makes the replica read-only, or writable again.
    pub fn set_read_only(&self, read_only: bool) {
        self.lock().read_only = read_only;
    }

    /// How many more bytes fit; `None` for any number.
    pub fn set_room(&self, room: Option<u64>) {
        self.lock().room = room;
    }

    /// Loses all hints, as an overflowing watcher does.
    pub fn lose_hints(&self) {
        let mut state = self.lock();
        state.hints = HintSet {
            lost: true,
            ..HintSet::default()
        };
        state.wake();
    }

    /// The contents of everything that was displaced and is still kept.
    pub fn displaced(&self) -> Vec<ContentId> {
        let state = self.lock();
        let nodes = state.versions.values().chain(state.trash.values());
        nodes.map(|n| n.object.content()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, for a call that needs the root.
    fn at_root(&self) -> Result<MutexGuard<'_, State>> {
        let wall_ns = self.env.wall_ns();
        let mut state = self.lock();
        if state.gone {
            let attempt = format!("open the root {}", self.description.location);
            return Err(Error::new(ErrorKind::Gone, attempt));
        }
        state.wall_ns = state.wall_ns.max(wall_ns);
        Ok(state)
    }

    fn writable(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.at_root()?;
        if state.read_only || !self.capabilities.writable {
            let attempt = format!("change {}", self.description.location);
            return Err(Error::new(ErrorKind::ReadOnly, attempt));
        }
        Ok(state)
    }

    /// The verified content of a file's goal, without the lock: a source may be any replica, also this one.
    fn fetch(
        &self,
        action: &Action,
        sources: &dyn Sources,
    ) -> Result<core::result::Result<Vec<u8>, Outcome>> {
        let Goal::File { content, .. } = &action.goal else {
            return Ok(Ok(Vec::new()));
        };
        if let Some(bytes) = self.at_root()?.kept(*content) {
            return Ok(Ok(bytes));
        }
        let Some(mut source) = sources.open(action, *content) else {
            let detail = "no reachable replica has the content";
            return Ok(Err(act::blocked(
                &action.path,
                Code::ContentMissing,
                detail,
            )));
        };
        let path = &action.path;
        Ok(verified(path, *content, source.as_mut()).map_err(|(outcome, _)| outcome))
    }

    fn carry_out(&self, action: &Action, sources: &dyn Sources) -> Result<Outcome> {
        if let Some(outcome) = self.writable()?.verdict(action) {
            return Ok(outcome);
        }
        let bytes = match self.fetch(action, sources)? {
            Ok(bytes) => bytes,
            Err(outcome) => return Ok(outcome),
        };
        let mut state = self.writable()?;
        if let Some(outcome) = state.verdict(action) {
            return Ok(outcome);
        }
        if !state.reserve(bytes.len() as u64) {
            return Ok(act::blocked(
                &action.path,
                Code::NoSpace,
                "no room for its content",
            ));
        }
        Ok(state.act(action, bytes))
    }
}

impl State {
    /// Takes room if there is enough.
    fn reserve(&mut self, bytes: u64) -> bool {
        match &mut self.room {
            None => true,
            Some(room) if *room >= bytes => {
                *room -= bytes;
                true
            }
            Some(_) => false,
        }
    }
}

/// The bytes of an object that has some.
fn readable(object: &Object) -> Vec<u8> {
    object.bytes().to_vec()
}

/// Reads to the end; other bytes than those asked for mean that somebody is writing at the source. Where that breaks off,
/// what came goes with the outcome.
fn verified(
    path: &RelPath,
    content: ContentId,
    source: &mut dyn Content,
) -> core::result::Result<Vec<u8>, (Outcome, Option<Vec<u8>>)> {
    let mut bytes = Vec::new();
    let mut buf = vec![0; 64 * 1024];
    loop {
        match source.read_at(bytes.len() as u64, &mut buf) {
            Ok(0) => break,
            Ok(n) => bytes.extend_from_slice(&buf[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => {
                let detail = format!("read the source: {e}");
                let outcome = act::blocked(path, Code::Unreadable, &detail);
                return Err((outcome, Some(bytes)));
            }
        }
    }
    if content_id(&bytes) == content && source.unchanged() {
        Ok(bytes)
    } else {
        Err((Outcome::Busy, None))
    }
}

impl Replica for MemoryReplica {
    fn id(&self) -> ReplicaId {
        self.id
    }

    fn actor(&self) -> ActorId {
        self.actor
    }

    fn share(&self) -> ShareId {
        self.share
    }

    fn describe(&self) -> Description {
        self.description.clone()
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn guard(&self) -> Result<()> {
        let state = self.at_root()?;
        if state.read_only && self.capabilities.writable {
            let attempt = format!("change {}", self.description.location);
            return Err(Error::new(ErrorKind::ReadOnly, attempt));
        }
        Ok(())
    }

    fn watch(&self, waker: Waker) -> Result<Vec<Problem>> {
        self.at_root()?.waker = Some(waker);
        Ok(Vec::new())
    }

    fn take_hints(&self) -> HintSet {
        std::mem::take(&mut self.lock().hints)
    }

    fn look(&self, scope: &Scope) -> Result<Look> {
        Ok(self.at_root()?.look(scope))
    }

    fn record(&self, look: &Look, share: &ShareState) -> Result<Vec<RelPath>> {
        let mut guard = self.at_root()?;
        let state = &mut *guard;
        let mut changed = Vec::new();
        for finding in &look.findings {
            let path = &finding.path;
            let row = state.index.get(path).cloned().unwrap_or_default();
            let moved_to = mint::moved_to(&look.moves, path);
            let policies = &share.policies;
            let mut next = || state.event(self.actor, policies.epoch());
            let (found, to) = (&finding.found, moved_to.as_ref());
            let after = match self.description.role {
                Role::Both => mint::after_unseen(&row, found, to, policies, &mut next),
                Role::Source => mint::after_at_source(&row, found, to, &mut next),
                Role::Target => mint::after(&row, found, to, &mut next),
            };
            if after != row {
                state.put(path, |row| *row = after);
                changed.push(path.clone());
            }
        }
        Ok(changed)
    }

    fn row(&self, path: &RelPath) -> Result<Option<Row>> {
        Ok(self.at_root()?.index.get(path).cloned())
    }

    fn children(&self, dir: &RelPath, visit: RowVisitor<'_>) -> Result<()> {
        visit_all(
            &*self.at_root()?,
            dir,
            |path| path.parent().as_ref() == Some(dir),
            visit,
        );
        Ok(())
    }

    fn subtree(&self, dir: &RelPath, visit: RowVisitor<'_>) -> Result<()> {
        visit_all(&*self.at_root()?, dir, |_| true, visit);
        Ok(())
    }

    fn open(&self, path: &RelPath, content: ContentId) -> Result<Option<Box<dyn Content>>> {
        let state = self.at_root()?;
        let shown = state
            .index
            .get(path)
            .and_then(Row::present)
            .is_some_and(|v| v.content == content);
        let at_path = state
            .tree
            .get(path)
            .filter(|n| shown && n.object.content() == content);
        let bytes = at_path
            .map(|n| readable(&n.object))
            .or_else(|| state.kept(content));
        Ok(bytes.map(|b| Box::new(Bytes(b)) as Box<dyn Content>))
    }

    fn check(&self, path: &RelPath) -> Result<Checked> {
        Ok(self.at_root()?.check(path))
    }

    fn sample(&self, seed: u64, count: usize) -> Result<Vec<RelPath>> {
        let state = self.at_root()?;
        let start = usize::try_from(seed % (state.index.len() as u64).max(1)).unwrap_or(0);
        let paths = state.index.keys();
        Ok(paths.cycle().skip(start).take(count).cloned().collect())
    }

    fn stage(&self, path: &RelPath, content: ContentId, from: &mut dyn Content) -> Result<Outcome> {
        if self.writable()?.staged.contains_key(&content) {
            return Ok(Outcome::Done);
        }
        let bytes = match verified(path, content, from) {
            Ok(bytes) => bytes,
            Err((outcome, begun)) => {
                let begun = begun.map(|bytes| (content, bytes));
                let mut state = self.lock();
                state.begun = begun.or(state.begun.take());
                return Ok(outcome);
            }
        };
        let mut state = self.writable()?;
        if !state.reserve(bytes.len() as u64) {
            return Ok(act::blocked(path, Code::NoSpace, "no room for its content"));
        }
        state.staged.insert(content, bytes);
        state.begun.take_if(|(begun, _)| *begun == content);
        Ok(Outcome::Done)
    }

    fn begun(&self, content: ContentId) -> Option<Box<dyn Content>> {
        let state = self.lock();
        let begun = state.begun.as_ref().filter(|(id, _)| *id == content);
        begun.map(|(_, bytes)| Box::new(Bytes(bytes.clone())) as Box<dyn Content>)
    }

    fn is_staged(&self, content: ContentId) -> bool {
        self.lock().staged.contains_key(&content)
    }

    fn apply(&self, actions: &[Action], sources: &dyn Sources) -> Result<Vec<Outcome>> {
        let outcomes = actions
            .iter()
            .map(|a| self.carry_out(a, sources))
            .collect::<Result<Vec<_>>>()?;
        let mut state = self.lock();
        for (action, outcome) in actions.iter().zip(&outcomes) {
            if let (Goal::File { content, .. }, Outcome::Done) = (&action.goal, outcome) {
                state.staged.remove(content);
            }
        }
        Ok(outcomes)
    }

    fn rename(&self, from: &RelPath, to: &RelPath) -> Result<Outcome> {
        Ok(self.writable()?.rename(from, to))
    }

    fn adopt_move(&self, from: &RelPath, to: &RelPath, entries: &[(RelPath, Row)]) -> Result<()> {
        self.writable()?.adopt_move(from, to, entries);
        Ok(())
    }

    fn mint(&self) -> Result<Dot> {
        Ok(self.at_root()?.event(self.actor, 0).dot)
    }

    fn restore(&self, key: &str, to: Option<&RelPath>) -> Result<RelPath> {
        self.writable()?.restore(key, to)
    }

    fn purge(&self, before_ns: i64) -> Result<u64> {
        Ok(self.writable()?.purge(before_ns))
    }

    fn barrier(&self) -> Result<()> {
        self.at_root()?.epoch += 1;
        Ok(())
    }

    fn read_record(&self, book: Book, key: &str) -> Result<Option<String>> {
        Ok(self.at_root()?.records.get(&(book, key.into())).cloned())
    }

    fn write_record(&self, book: Book, key: &str, body: Option<&str>) -> Result<()> {
        let mut state = self.at_root()?;
        match body {
            Some(body) => state.records.insert((book, key.into()), body.into()),
            None => state.records.remove(&(book, key.into())),
        };
        Ok(())
    }

    fn records(&self, book: Book) -> Result<Vec<(String, String)>> {
        let state = self.at_root()?;
        let of_book = state.records.iter().filter(|((b, _), _)| *b == book);
        Ok(of_book
            .map(|((_, key), body)| (key.clone(), body.clone()))
            .collect())
    }
}

fn visit_all(
    state: &State,
    dir: &RelPath,
    wanted: impl Fn(&RelPath) -> bool,
    visit: RowVisitor<'_>,
) {
    let mut rows: Vec<_> = state.rows_below(dir).filter(|(p, _)| wanted(p)).collect();
    rows.sort_by_key(|(p, _)| p.split_bytes());
    for (path, row) in rows {
        if let ControlFlow::Break(()) = visit(path.clone(), row.clone()) {
            return;
        }
    }
}
