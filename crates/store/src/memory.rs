//! The store on a simulated medium: the reference for tests, and for every crash a test can think of.
//!
//! Owns the difference between committed (survives the process) and durable (survives power loss).
//! Invariants: the state is always the durable state plus the commits since, in order; a power cut keeps
//! any prefix of those commits; a handle that was open when its process died never does anything again.
//! Never a lock is held while a visitor runs.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use instep_core::path::{Name, RelPath};
use instep_core::row::Row;

use crate::error::{Result, StoreError};
use crate::{Durability, IndexStore, RecordVisitor, RowVisitor, Table, below, key_of, row_codec};

/// Which part of the medium a key belongs to, in the order of [`Key`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Space {
    Entry,
    Digest,
    Record(Table),
}

type Key = (Space, Vec<u8>, Vec<u8>);
type Value = Arc<[u8]>;
type Map = BTreeMap<Key, Value>;
/// Changes by key; `None` removes.
type Changes = BTreeMap<Key, Option<Value>>;

fn apply(map: &mut Map, changes: &Changes) {
    for (key, value) in changes {
        match value {
            Some(v) => map.insert(key.clone(), Arc::clone(v)),
            None => map.remove(key),
        };
    }
}

#[derive(Debug, Default)]
struct Medium {
    durable: Map,
    /// Commits since, oldest first, that a power cut may take.
    commits: Vec<Changes>,
    /// Both together.
    committed: Arc<Map>,
    /// Which handle has the right to write.
    writer: Option<u64>,
    handles: u64,
    /// Counts deaths; handles of an earlier life are dead.
    life: u64,
    /// Calls until everything fails.
    fail_in: Option<u64>,
}

impl Medium {
    fn die(&mut self) {
        self.life += 1;
        self.writer = None;
    }

    fn harden(&mut self) {
        let Self {
            durable, commits, ..
        } = self;
        commits
            .drain(..)
            .for_each(|changes| apply(durable, &changes));
    }
}

/// A medium that stores live on. Clones are the same medium.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<Medium>>);

/// A copy of a medium, as `cp` makes one of an index file.
#[derive(Debug, Clone)]
pub struct Snapshot(Arc<Map>);

impl MemoryDisk {
    /// An empty medium.
    pub fn new() -> Self {
        Self::default()
    }

    /// A handle on what is committed.
    pub fn open(&self) -> MemoryStore {
        let mut medium = self.lock();
        medium.handles += 1;
        MemoryStore {
            disk: self.clone(),
            id: medium.handles,
            life: medium.life,
            pending: Changes::new(),
            broken: false,
        }
    }

    /// The process dies: what was not committed is gone, and its handles are dead.
    pub fn kill(&self) {
        self.lock().die();
    }

    /// Power is cut: the state becomes the durable one plus a prefix of the commits since, which the seed
    /// chooses, and all handles are dead.
    pub fn power_cut(&self, seed: u64) {
        let mut medium = self.lock();
        medium.die();
        let kept = seed % (medium.commits.len() as u64 + 1);
        medium.commits.truncate(kept as usize);
        medium.harden();
        medium.committed = Arc::new(medium.durable.clone());
    }

    /// The `n`-th call of any handle from now on fails, and so does every later one, until
    /// [`heal`](Self::heal). Zero counts as one.
    pub fn fail_after(&self, n: u64) {
        self.lock().fail_in = Some(n.max(1));
    }

    /// Ends what [`fail_after`](Self::fail_after) began.
    pub fn heal(&self) {
        self.lock().fail_in = None;
    }

    /// Copies what is committed.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(Arc::clone(&self.lock().committed))
    }

    /// Puts a copy in place of everything, durably. Handles are dead: their file was replaced.
    pub fn restore(&self, snapshot: &Snapshot) {
        let mut medium = self.lock();
        medium.die();
        medium.commits.clear();
        medium.durable = (*snapshot.0).clone();
        medium.committed = Arc::clone(&snapshot.0);
    }

    /// Commits that a power cut could still take.
    pub fn undurable_commits(&self) -> usize {
        self.lock().commits.len()
    }

    /// The body of a record as a power cut now would be sure to leave it.
    pub fn durable_record(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        let medium = self.lock();
        let body = medium.durable.get(&record_key(table, key));
        body.map(|b| b.to_vec())
    }

    fn lock(&self) -> MutexGuard<'_, Medium> {
        // No invariant spans a panic: each critical section is a few moves.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handle on a [`MemoryDisk`].
#[derive(Debug)]
pub struct MemoryStore {
    disk: MemoryDisk,
    id: u64,
    life: u64,
    pending: Changes,
    broken: bool,
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        self.release();
    }
}

impl MemoryStore {
    /// Whether the handle's process still runs and no failure is arranged for this call.
    fn alive(&self, attempt: &'static str) -> Result<MutexGuard<'_, Medium>> {
        let mut medium = self.disk.lock();
        if medium.life != self.life {
            return Err(StoreError::Dead { attempt });
        }
        match &mut medium.fail_in {
            Some(1) => return Err(StoreError::Arranged { attempt }),
            Some(n) => *n -= 1,
            None => {}
        }
        Ok(medium)
    }

    fn view(&self, attempt: &'static str) -> Result<Arc<Map>> {
        let medium = self.alive(attempt)?;
        if self.broken {
            return Err(StoreError::RollbackNeeded { attempt });
        }
        Ok(Arc::clone(&medium.committed))
    }

    fn release(&self) {
        let mut medium = self.disk.lock();
        if medium.writer == Some(self.id) {
            medium.writer = None;
        }
    }

    fn write(&mut self, key: Key, value: Option<Value>, attempt: &'static str) -> Result<()> {
        if let Err(e) = self.claim(attempt) {
            self.note(&e);
            return Err(e);
        }
        self.pending.insert(key, value);
        Ok(())
    }

    /// As on disk: a transaction that lost one of its writes must not be committed.
    fn note(&mut self, error: &StoreError) {
        self.broken |= matches!(error, StoreError::Arranged { .. });
    }

    fn claim(&self, attempt: &'static str) -> Result<()> {
        let mut medium = self.alive(attempt)?;
        if self.broken {
            return Err(StoreError::RollbackNeeded { attempt });
        }
        match medium.writer {
            Some(id) if id != self.id => Err(StoreError::Busy { attempt }),
            _ => {
                medium.writer = Some(self.id);
                Ok(())
            }
        }
    }

    fn read(&self, key: &Key, attempt: &'static str) -> Result<Option<Value>> {
        let map = self.view(attempt)?;
        Ok(match self.pending.get(key) {
            Some(changed) => changed.clone(),
            None => map.get(key).cloned(),
        })
    }

    /// Everything between the bounds, uncommitted changes included.
    fn range(
        &self,
        bounds: (Bound<Key>, Bound<Key>),
        reverse: bool,
        attempt: &'static str,
        mut each: impl FnMut(&Key, &Value) -> Result<ControlFlow<()>>,
    ) -> Result<ControlFlow<()>> {
        let map = self.view(attempt)?;
        let below = map.range(bounds.clone()).map(|(k, v)| (k, Some(v)));
        let above = self.pending.range(bounds).map(|(k, v)| (k, v.as_ref()));
        if reverse {
            drain(
                below.rev().peekable(),
                above.rev().peekable(),
                |a, b| a > b,
                &mut each,
            )
        } else {
            drain(below.peekable(), above.peekable(), |a, b| a < b, &mut each)
        }
    }

    fn subtree_range(
        &self,
        bounds: (Bound<Key>, Bound<Key>),
        visit: &mut RowVisitor<'_>,
    ) -> Result<ControlFlow<()>> {
        self.range(bounds, false, "read a subtree", |(_, dir, name), body| {
            let path = stored_path(dir)?.join(stored_name(name)?);
            let row = decode(&path, body)?;
            Ok(visit(path, row))
        })
    }

    fn record_range(
        &self,
        table: Table,
        reverse: bool,
        visit: &mut RecordVisitor<'_>,
    ) -> Result<()> {
        let space = Space::Record(table);
        self.range(
            whole(space),
            reverse,
            "read records",
            |(_, key, _), body| Ok(visit(key, body)),
        )
        .map(|_| ())
    }
}

/// Two ordered sequences as one; where both have a key, the upper one counts.
fn drain<'m, A, B>(
    mut lower: Peekable<A>,
    mut upper: Peekable<B>,
    before: impl Fn(&Key, &Key) -> bool,
    each: &mut impl FnMut(&Key, &Value) -> Result<ControlFlow<()>>,
) -> Result<ControlFlow<()>>
where
    A: Iterator<Item = (&'m Key, Option<&'m Value>)>,
    B: Iterator<Item = (&'m Key, Option<&'m Value>)>,
{
    loop {
        let next = match (lower.peek(), upper.peek()) {
            (None, None) => return Ok(ControlFlow::Continue(())),
            (Some((l, _)), Some((u, _))) if l == u => {
                lower.next();
                upper.next()
            }
            (Some((l, _)), Some((u, _))) if before(u, l) => upper.next(),
            (None, Some(_)) => upper.next(),
            (Some(_), _) => lower.next(),
        };
        let Some((key, Some(value))) = next else {
            continue;
        };
        if each(key, value)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
}

/// The bounds of one space: keys in it are at least the empty one, and a NUL never starts a key above it.
fn whole(space: Space) -> (Bound<Key>, Bound<Key>) {
    let next = match space {
        Space::Entry => Some(Space::Digest),
        Space::Digest => Some(Space::Record(Table::ALL[0])),
        Space::Record(t) => Table::ALL
            .iter()
            .find(|next| **next > t)
            .map(|t| Space::Record(*t)),
    };
    let from = Bound::Included((space, Vec::new(), Vec::new()));
    (
        from,
        next.map_or(Bound::Unbounded, |s| {
            Bound::Excluded((s, Vec::new(), Vec::new()))
        }),
    )
}

/// The bounds of a directory's own children, without the root's row, which has an empty name.
fn in_dir(dir: &RelPath) -> (Bound<Key>, Bound<Key>) {
    let mut after = dir.as_bytes().to_vec();
    // The least byte string above the directory's own.
    after.push(0);
    (
        Bound::Excluded((Space::Entry, dir.as_bytes().to_vec(), Vec::new())),
        Bound::Excluded((Space::Entry, after, Vec::new())),
    )
}

fn entry_key(path: &RelPath) -> Key {
    let (dir, name) = key_of(path);
    (Space::Entry, dir.to_vec(), name.to_vec())
}

fn digest_key(dir: &RelPath) -> Key {
    (Space::Digest, dir.as_bytes().to_vec(), Vec::new())
}

fn record_key(table: Table, key: &[u8]) -> Key {
    (Space::Record(table), key.to_vec(), Vec::new())
}

fn decode(what: &dyn std::fmt::Display, body: &[u8]) -> Result<Row> {
    row_codec::row(body).map_err(|e| StoreError::corrupt(format!("the row of {what}: {e}")))
}

fn stored_path(bytes: &[u8]) -> Result<RelPath> {
    RelPath::new(bytes).map_err(|e| StoreError::corrupt(format!("a stored path: {e}")))
}

fn stored_name(bytes: &[u8]) -> Result<Name<'_>> {
    Name::new(bytes).map_err(|e| StoreError::corrupt(format!("a stored name: {e}")))
}

fn digest_of(bytes: &[u8]) -> Result<[u8; 16]> {
    bytes
        .try_into()
        .map_err(|_| StoreError::corrupt("a digest does not have 16 bytes"))
}

impl IndexStore for MemoryStore {
    fn get(&mut self, path: &RelPath) -> Result<Option<Row>> {
        let body = self.read(&entry_key(path), "read a row")?;
        body.map(|b| decode(path, &b)).transpose()
    }

    fn children(&mut self, dir: &RelPath, visit: &mut dyn FnMut(Name<'_>, Row)) -> Result<()> {
        self.range(
            in_dir(dir),
            false,
            "read a directory",
            |(_, _, name), body| {
                let name = stored_name(name)?;
                visit(name, decode(&name, body)?);
                Ok(ControlFlow::Continue(()))
            },
        )
        .map(|_| ())
    }

    fn subtree(&mut self, dir: &RelPath, visit: &mut RowVisitor<'_>) -> Result<()> {
        let Some((from, to)) = below(dir) else {
            let bounds = (in_dir(dir).0, whole(Space::Entry).1);
            return self.subtree_range(bounds, visit).map(|_| ());
        };
        // Other directories lie between a directory's own key and those below it ("d", "d.x", "d/x").
        if self.subtree_range(in_dir(dir), visit)?.is_break() {
            return Ok(());
        }
        let bounds = (
            Bound::Included((Space::Entry, from, Vec::new())),
            Bound::Excluded((Space::Entry, to, Vec::new())),
        );
        self.subtree_range(bounds, visit).map(|_| ())
    }

    fn put(&mut self, path: &RelPath, row: &Row) -> Result<()> {
        if !row_codec::fits(row) {
            return Err(StoreError::TooBig { path: path.clone() });
        }
        let mut body = Vec::new();
        row_codec::put_row(&mut body, row);
        self.write(entry_key(path), Some(body.into()), "write a row")
    }

    fn remove(&mut self, path: &RelPath) -> Result<()> {
        self.write(entry_key(path), None, "remove a row")
    }

    fn digest(&mut self, dir: &RelPath) -> Result<Option<[u8; 16]>> {
        let hash = self.read(&digest_key(dir), "read a digest")?;
        hash.map(|h| digest_of(&h)).transpose()
    }

    fn put_digest(&mut self, dir: &RelPath, digest: Option<[u8; 16]>) -> Result<()> {
        self.write(
            digest_key(dir),
            digest.map(|d| Value::from(&d[..])),
            "write a digest",
        )
    }

    fn digests(&mut self, visit: &mut dyn FnMut(RelPath, [u8; 16])) -> Result<()> {
        self.range(
            whole(Space::Digest),
            false,
            "read the digests",
            |(_, dir, _), hash| {
                visit(stored_path(dir)?, digest_of(hash)?);
                Ok(ControlFlow::Continue(()))
            },
        )
        .map(|_| ())
    }

    fn record(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self
            .read(&record_key(table, key), "read a record")?
            .map(|b| b.to_vec()))
    }

    fn put_record(&mut self, table: Table, key: &[u8], body: &[u8]) -> Result<()> {
        self.write(record_key(table, key), Some(body.into()), "write a record")
    }

    fn remove_record(&mut self, table: Table, key: &[u8]) -> Result<()> {
        self.write(record_key(table, key), None, "remove a record")
    }

    fn records(&mut self, table: Table, visit: &mut RecordVisitor<'_>) -> Result<()> {
        self.record_range(table, false, visit)
    }

    fn records_rev(&mut self, table: Table, visit: &mut RecordVisitor<'_>) -> Result<()> {
        self.record_range(table, true, visit)
    }

    fn commit(&mut self, durability: Durability) -> Result<()> {
        if let Err(e) = self.view("commit") {
            self.note(&e);
            return Err(e);
        }
        let mut medium = self.disk.lock();
        let changes = std::mem::take(&mut self.pending);
        if !changes.is_empty() {
            apply(Arc::make_mut(&mut medium.committed), &changes);
            medium.commits.push(changes);
            medium.writer = None;
        }
        if durability == Durability::Power {
            medium.harden();
        }
        Ok(())
    }

    fn rollback(&mut self) -> Result<()> {
        drop(self.alive("roll back")?);
        self.pending.clear();
        self.broken = false;
        self.release();
        Ok(())
    }

    fn is_dirty(&self) -> bool {
        self.broken || !self.pending.is_empty()
    }
}
