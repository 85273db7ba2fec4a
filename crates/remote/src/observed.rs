//! The replica at the far end, as an engine here sees it: read from its mirror, never written.
//!
//! Owns whether it can be reached, what has changed there since the engine looked, and what is written in its books.
//! Invariant: until the mirror has caught up with the far end the replica is away, so that nothing is concluded from
//! what it does not tell.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use instep_core::id::{ActorId, ContentId, Dot, ReplicaId, ShareId};
use instep_core::path::RelPath;
use instep_core::plan::{Action, Outcome, Problem};
use instep_core::row::Row;
use instep_core::version::Kind;
use instep_replica::{
    Book, Capabilities, Content, Description, Error, ErrorKind, HintSet, Look, Replica, Result,
    RowVisitor, Scope, ShareState, Sources, Totals, Waker,
};

use crate::digest::Prefix;
use crate::judged::{Judged, Wrong};
use crate::manifests::CONTENT_BYTES_MAX;
use crate::mirror::Mirror;
use crate::report::Report;
use crate::whereabouts;

/// Whoever brings contents from the far end while it can be reached.
pub trait Bringer: Send + Sync {
    /// Opens content of this size that the far end has; `None` when it says that it has not.
    fn open(
        &self,
        path: &RelPath,
        content: ContentId,
        size: u64,
    ) -> Result<Option<Box<dyn Content>>>;

    /// As [`Bringer::open`], where a part of it is at hand, or another content that may have much in common with it.
    fn open_beside(
        &self,
        path: &RelPath,
        content: ContentId,
        size: u64,
        _here: AtHand,
    ) -> Result<Option<Box<dyn Content>>> {
        self.open(path, content, size)
    }

    /// These will be opened soon.
    fn prefetch(&self, _wanted: &[(RelPath, ContentId, u64)]) {}

    /// These will be opened soon, each beside another content.
    fn prefetch_beside(&self, _wanted: &[(RelPath, ContentId, u64)]) {}
}

/// What is here of a content, or beside it.
#[derive(Default)]
pub struct AtHand {
    /// Its beginning, not verified.
    pub begun: Option<Box<dyn Content>>,
    /// Another one.
    pub base: Option<Base>,
}

impl std::fmt::Debug for AtHand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let begun = self.begun.as_ref().map_or(0, |begun| begun.size());
        write!(f, "AtHand({begun} bytes, {:?})", self.base)
    }
}

/// A content that is here.
pub struct Base {
    /// Which.
    pub id: ContentId,
    /// Its bytes.
    pub content: Box<dyn Content>,
}

impl std::fmt::Debug for Base {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Base({})", self.id.short())
    }
}

/// Sizes of contents that are put together from others: below it is not worth asking.
const SPLICED_BYTES: RangeInclusive<u64> = 256 * 1024..=CONTENT_BYTES_MAX;
/// Sizes of what they are put together from.
const BASE_BYTES: RangeInclusive<u64> = 64 * 1024..=CONTENT_BYTES_MAX;

/// How the far end introduced itself.
#[derive(Debug, Clone)]
pub struct Introduction {
    /// The replica's identity.
    pub id: ReplicaId,
    /// The actor under which it mints now.
    pub actor: ActorId,
    /// The share.
    pub share: ShareId,
    /// What a person is told about it.
    pub description: Description,
    /// What it keeps: modes, links, case.
    pub capabilities: Capabilities,
}

struct State {
    mirror: Mirror,
    books: BTreeMap<(Book, String), String>,
    actor: ActorId,
    hints: HintSet,
    waker: Option<Waker>,
    /// Who brings contents, once the mirror has caught up.
    bringer: Option<Arc<dyn Bringer>>,
    /// It may only read: what it tells counts for nothing.
    reads_only: bool,
    /// Why it cannot be reached.
    away: String,
    talk: Talk,
    report: Report,
}

/// How far both sides are with what they tell each other, in messages with rows.
#[derive(Debug, Default)]
struct Talk {
    /// That we have said.
    said: u64,
    /// That we have heard, and that the engine here has begun with.
    heard: u64,
    taken: u64,
    /// For which the engine here had nothing left to do; what of that was said.
    rests: Option<u64>,
    rest_said: Option<u64>,
    /// For which the far end has nothing left to do.
    far_rests: Option<u64>,
    /// Who says so.
    mouth: Option<Waker>,
}

impl State {
    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake();
        }
    }
}

/// A replica at the far end of a connection.
pub struct Observed {
    introduction: Introduction,
    state: Mutex<State>,
    /// What was here, but was not what it should have been.
    wrong: Arc<Wrong>,
}

impl std::fmt::Debug for Observed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Observed({})", self.introduction.description.label)
    }
}

impl Observed {
    /// Somebody who was met, and is away until [`Observed::caught_up`]. `ours` is the replica whose changes it is told.
    pub fn new(mut introduction: Introduction, ours: Arc<dyn Replica>) -> Self {
        introduction.capabilities.writable = false;
        introduction.capabilities.observed = true;
        introduction.capabilities.hints = true;
        let state = State {
            mirror: Mirror::new(ours, introduction.description.role),
            books: BTreeMap::new(),
            actor: introduction.actor,
            hints: HintSet::default(),
            waker: None,
            bringer: None,
            reads_only: false,
            away: "it has not told what it has yet".to_owned(),
            talk: Talk::default(),
            report: Report::default(),
        };
        Self {
            introduction,
            state: Mutex::new(state),
            wrong: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It may read and not write: it is told everything, and nothing follows from what it says.
    pub fn listen_to_nothing(&self) {
        self.lock().reads_only = true;
    }

    /// The mirror says all that the far end has.
    pub fn caught_up(&self, bringer: Arc<dyn Bringer>) {
        let mut state = self.lock();
        state.bringer = Some(bringer);
        state.hints.root = true;
        state.wake();
    }

    /// The connection is lost.
    pub fn lost(&self, why: &str) {
        let mut state = self.lock();
        state.bringer = None;
        why.clone_into(&mut state.away);
        state.hints.root = true;
        state.wake();
    }

    /// It mints under another actor from now on.
    pub fn set_actor(&self, actor: ActorId) {
        self.lock().actor = actor;
    }

    /// A connection begins: what was told in an earlier one is forgotten.
    pub fn begin(&self, mouth: Waker) {
        let mut state = self.lock();
        state.mirror.begin();
        state.talk = Talk {
            mouth: Some(mouth),
            ..Talk::default()
        };
        for path in state.report.begin() {
            state.hints.add_path(path);
        }
    }

    /// How much the far end has, as it says.
    pub fn has(&self, totals: Totals) {
        self.lock().report.totals = totals;
    }

    /// The far end has a difficulty with a path, or none any more.
    pub fn troubled(&self, problem: Problem, open: bool) {
        let mut state = self.lock();
        state.hints.add_path(problem.path.clone());
        state.report.problem(problem, open);
        state.wake();
    }

    /// A message with rows is about to be said.
    pub fn say_rows(&self) {
        self.lock().talk.said += 1;
    }

    /// Up to which message we have nothing left to do, if that was not said yet.
    pub fn take_rest(&self) -> Option<u64> {
        let talk = &mut self.lock().talk;
        let rests = talk.rests.filter(|n| talk.rest_said != Some(*n));
        talk.rest_said = talk.rests;
        rests
    }

    /// The far end has nothing left to do for what it was told in so many messages.
    pub fn rests(&self, heard: u64) {
        let mut state = self.lock();
        state.talk.far_rests = Some(heard);
        state.wake();
    }

    /// Rows here are about to change.
    pub fn ours_change<'a>(&self, mut paths: impl Iterator<Item = &'a RelPath>) -> Result<()> {
        let mut state = self.lock();
        paths.try_for_each(|path| state.mirror.ours_changes(path))
    }

    /// Rows here changed: what the far end has of them is not known until it says so.
    pub fn ours_changed<'a>(&self, paths: impl Iterator<Item = &'a RelPath>) {
        let mut state = self.lock();
        if !state.reads_only {
            paths.for_each(|path| state.mirror.ours_changed(path));
        }
    }

    /// The far end has heard of rows of ours and has the same.
    pub fn alike(&self, rows: Vec<(RelPath, u128)>) -> Result<()> {
        let mut state = self.lock();
        for (path, digest) in rows {
            state.mirror.alike(&path, digest)?;
            state.hints.add_path(path);
        }
        state.wake();
        Ok(())
    }

    /// Takes in what the far end tells; returns the paths of which we have the same.
    pub fn tell(&self, rows: Vec<(RelPath, Option<Row>)>) -> Result<Vec<RelPath>> {
        let mut same = Vec::new();
        let mut state = self.lock();
        state.talk.heard += 1;
        for (path, row) in rows {
            let is_same = if state.reads_only {
                state.mirror.is_ours(&path, row.as_ref())?
            } else {
                state.mirror.put(&path, row)?
            };
            if is_same {
                same.push(path.clone());
            }
            state.hints.add_path(path);
        }
        state.wake();
        Ok(same)
    }

    /// All rows of some nodes were told: of what else we have there the far end has nothing.
    pub fn only(&self, nodes: &[Prefix], told: &BTreeSet<RelPath>) -> Result<()> {
        let is_untold = |path: &RelPath| {
            let leaf = Prefix::of(path);
            nodes.iter().any(|node| node.covers(leaf)) && !told.contains(path)
        };
        let mut state = self.lock();
        if state.reads_only {
            return Ok(());
        }
        for path in state.mirror.untold(&is_untold)? {
            state.mirror.put(&path, None)?;
            state.hints.add_path(path);
        }
        state.wake();
        Ok(())
    }

    /// Takes in what is written in its books.
    pub fn write(&self, book: Book, key: &str, body: Option<String>) {
        let mut state = self.lock();
        if state.reads_only {
            return;
        }
        let at = (book, key.to_owned());
        let old = match body.clone() {
            Some(body) => state.books.insert(at, body),
            None => state.books.remove(&at),
        };
        if old != body {
            state.hints.books = true;
            state.wake();
        }
    }

    /// What is here at a path, where a content of this size may have much in common with it.
    fn base(
        &self,
        path: &RelPath,
        content: ContentId,
        size: u64,
    ) -> Option<(Arc<dyn Replica>, ContentId)> {
        if !SPLICED_BYTES.contains(&size) {
            return None;
        }
        let ours = Arc::clone(self.lock().mirror.ours());
        let row = ours.row(path).ok().flatten()?;
        let shown = row.present().filter(|shown| {
            let is_other = shown.kind == Kind::File && shown.content != content;
            is_other && BASE_BYTES.contains(&shown.size)
        })?;
        let id = shown.content;
        Some((ours, id))
    }

    /// A content that is here already, at another path.
    fn twin(&self, content: ContentId, size: u64) -> Option<Box<dyn Content>> {
        if size < whereabouts::BYTES_MIN || self.wrong.has(content) {
            return None;
        }
        let ours = Arc::clone(self.lock().mirror.ours());
        let at = ours.whereabouts(content)?;
        let twin = ours.open(&at, content).ok().flatten()?;
        Some(Box::new(Judged::new(twin, content, &self.wrong)))
    }

    fn open_base(&self, path: &RelPath, content: ContentId, size: u64) -> Option<Base> {
        let (ours, id) = self.base(path, content, size)?;
        let content = ours.open(path, id).ok().flatten()?;
        Some(Base { id, content })
    }

    fn not_ours(&self, what: &str) -> Error {
        let label = &self.introduction.description.label;
        let attempt = format!("cannot {what} {label} from here: it is changed at its own end");
        Error::new(ErrorKind::ReadOnly, attempt)
    }
}

impl Replica for Observed {
    fn id(&self) -> ReplicaId {
        self.introduction.id
    }

    fn actor(&self) -> ActorId {
        self.lock().actor
    }

    fn share(&self) -> ShareId {
        self.introduction.share
    }

    fn describe(&self) -> Description {
        self.introduction.description.clone()
    }

    fn capabilities(&self) -> &Capabilities {
        &self.introduction.capabilities
    }

    fn guard(&self) -> Result<()> {
        let state = self.lock();
        if state.bringer.is_some() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Gone, state.away.clone()))
    }

    fn watch(&self, waker: Waker) -> Result<Vec<Problem>> {
        self.lock().waker = Some(waker);
        Ok(Vec::new())
    }

    fn take_hints(&self) -> HintSet {
        let mut state = self.lock();
        state.talk.taken = state.talk.heard;
        std::mem::take(&mut state.hints)
    }

    fn look(&self, scope: &Scope) -> Result<Look> {
        self.guard()?;
        Ok(self.lock().report.look(scope))
    }

    fn sums(&self) -> Option<Totals> {
        Some(self.lock().report.totals)
    }

    fn record(&self, look: &Look, _: &ShareState) -> Result<Vec<RelPath>> {
        if look.findings.is_empty() {
            Ok(Vec::new())
        } else {
            Err(self.not_ours("record what was found on"))
        }
    }

    fn row(&self, path: &RelPath) -> Result<Option<Row>> {
        self.lock().mirror.row(path)
    }

    fn children(&self, dir: &RelPath, visit: RowVisitor<'_>) -> Result<()> {
        self.lock().mirror.children(dir, visit)
    }

    fn subtree(&self, dir: &RelPath, visit: RowVisitor<'_>) -> Result<()> {
        self.lock().mirror.subtree(dir, visit)
    }

    fn is_alike(&self, path: &RelPath) -> bool {
        self.lock().mirror.is_alike(path)
    }

    fn pending(&self) -> usize {
        self.lock().mirror.pending()
    }

    fn rest(&self) {
        let talk = &mut self.lock().talk;
        if talk.rests.replace(talk.taken) != Some(talk.taken)
            && let Some(mouth) = &talk.mouth
        {
            mouth.wake();
        }
    }

    fn is_at_rest(&self) -> bool {
        let talk = &self.lock().talk;
        talk.far_rests == Some(talk.said)
    }

    fn differing(&self, dir: &RelPath, visit: RowVisitor<'_>) -> Result<()> {
        self.lock().mirror.each_differing(dir, visit);
        Ok(())
    }

    fn open(&self, path: &RelPath, content: ContentId) -> Result<Option<Box<dyn Content>>> {
        let (bringer, row) = {
            let state = self.lock();
            (state.bringer.clone(), state.mirror.row(path)?)
        };
        let Some(bringer) = bringer else {
            return self.guard().map(|()| None);
        };
        // Whatever it may still have, nobody asks for what nobody knows there.
        let versions = row.as_ref().map_or(&[][..], |r| r.entry.siblings());
        let known = versions.iter().find(|(_, v)| v.content == content);
        let Some((_, version)) = known else {
            return Ok(None);
        };
        let size = version.size;
        if let Some(twin) = self.twin(content, size) {
            return Ok(Some(twin));
        }
        let mut here = AtHand::default();
        if size >= *SPLICED_BYTES.start() {
            here.begun = Arc::clone(self.lock().mirror.ours()).begun(content);
            let mut at = [Some(path), version.moved.as_ref()].into_iter().flatten();
            here.base = at.find_map(|at| self.open_base(at, content, size));
        }
        if here.begun.is_some() || here.base.is_some() {
            bringer.open_beside(path, content, size, here)
        } else {
            bringer.open(path, content, size)
        }
    }

    fn prefetch(&self, wanted: &[(RelPath, ContentId, u64)]) {
        let bringer = self.lock().bringer.clone();
        let has_base = |(path, content, size): &&(RelPath, ContentId, u64)| {
            self.base(path, *content, *size).is_some()
        };
        let ours = Arc::clone(self.lock().mirror.ours());
        let is_here = |id: ContentId| !self.wrong.has(id) && ours.whereabouts(id).is_some();
        let wanted: Vec<_> = wanted.iter().filter(|(_, id, _)| !is_here(*id)).collect();
        if let Some(bringer) = bringer {
            let (beside, whole): (Vec<_>, Vec<_>) = wanted.into_iter().partition(has_base);
            bringer.prefetch_beside(&beside.into_iter().cloned().collect::<Vec<_>>());
            bringer.prefetch(&whole.into_iter().cloned().collect::<Vec<_>>());
        }
    }

    fn stage(&self, _: &RelPath, _: ContentId, _: &mut dyn Content) -> Result<Outcome> {
        Err(self.not_ours("bring content to"))
    }

    fn is_staged(&self, _: ContentId) -> bool {
        false
    }

    fn apply(&self, _: &[Action], _: &dyn Sources) -> Result<Vec<Outcome>> {
        Err(self.not_ours("change"))
    }

    fn rename(&self, _: &RelPath, _: &RelPath) -> Result<Outcome> {
        Err(self.not_ours("rename on"))
    }

    fn adopt_move(&self, _: &RelPath, _: &RelPath, _: &[(RelPath, Row)]) -> Result<()> {
        Err(self.not_ours("tell of a move"))
    }

    fn mint(&self) -> Result<Dot> {
        Err(self.not_ours("decide for"))
    }

    fn restore(&self, _: &str, _: Option<&RelPath>) -> Result<RelPath> {
        Err(self.not_ours("restore on"))
    }

    fn purge(&self, _: i64) -> Result<u64> {
        Err(self.not_ours("empty the trash of"))
    }

    fn barrier(&self) -> Result<()> {
        Ok(())
    }

    fn read_record(&self, book: Book, key: &str) -> Result<Option<String>> {
        Ok(self.lock().books.get(&(book, key.to_owned())).cloned())
    }

    fn write_record(&self, _: Book, _: &str, _: Option<&str>) -> Result<()> {
        Err(self.not_ours("write in the books of"))
    }

    fn records(&self, book: Book) -> Result<Vec<(String, String)>> {
        let state = self.lock();
        let of_book = state.books.iter().filter(|((b, _), _)| *b == book);
        Ok(of_book.map(|((_, k), v)| (k.clone(), v.clone())).collect())
    }
}
