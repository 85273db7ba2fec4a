//! A local replica whose changes are told to others.
//!
//! Owns the list of paths whose rows have changed and were not told yet, for each listener. Everything else it hands on
//! to the replica that it wraps. Invariant: a path is listed after its row has changed and before the call that changed
//! it returns, so that nothing that the engine goes by can stay untold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::manifests::Manifests;
use crate::observed::Observed;
use crate::whereabouts::Whereabouts;
use instep_core::id::ContentId;
use instep_core::path::RelPath;
use instep_core::plan::{Action, Outcome};
use instep_core::row::Row;

use instep_replica::{Book, Checked, Look, Replica, Result, ShareState, Sources, Waker, hand_on};

/// Paths above this number are not listed one by one: everything is compared instead.
pub const CHANGES_MAX: usize = 200_000;

/// What a listener has not been told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Paths whose rows have changed.
    pub paths: BTreeSet<RelPath>,
    /// Records that have changed.
    pub records: BTreeSet<(Book, String)>,
    /// More changed than is listed.
    pub lost: bool,
}

impl Changes {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.records.is_empty() && !self.lost
    }

    fn add(&mut self, path: &RelPath) {
        if self.paths.len() < CHANGES_MAX {
            self.paths.insert(path.clone());
        } else {
            self.lost = true;
        }
    }
}

/// Somebody who is told of changes.
struct Told {
    changes: Changes,
    waker: Waker,
    /// What it has of a path that changed here is not known any more.
    listener: Arc<Observed>,
}

/// Lists of what was not told, by listener.
#[derive(Default)]
struct Lists {
    next: u64,
    open: BTreeMap<u64, Told>,
}

/// A replica and whoever listens to it.
pub struct Published {
    inner: Arc<dyn Replica>,
    lists: Arc<Mutex<Lists>>,
    manifests: Arc<Manifests>,
    whereabouts: Arc<Whereabouts>,
}

impl std::fmt::Debug for Published {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Published({})", self.inner.describe().label)
    }
}

/// Somebody who is told. Dropping it ends that.
#[derive(Debug)]
pub struct Subscription {
    number: u64,
    lists: std::sync::Weak<Mutex<Lists>>,
}

impl std::fmt::Debug for Lists {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} listeners", self.open.len())
    }
}

impl Subscription {
    /// What has changed since the last call.
    pub fn take(&self) -> Changes {
        let Some(lists) = self.lists.upgrade() else {
            return Changes::default();
        };
        let mut lists = lists.lock().unwrap_or_else(PoisonError::into_inner);
        let open = lists.open.get_mut(&self.number);
        open.map(|told| std::mem::take(&mut told.changes))
            .unwrap_or_default()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(lists) = self.lists.upgrade() {
            let mut lists = lists.lock().unwrap_or_else(PoisonError::into_inner);
            lists.open.remove(&self.number);
        }
    }
}

impl Published {
    /// Wraps a replica. The engine must be given this one, or its changes go untold.
    pub fn new(inner: Arc<dyn Replica>) -> Self {
        Self {
            inner,
            lists: Arc::default(),
            manifests: Arc::default(),
            whereabouts: Arc::default(),
        }
    }

    /// Manifests of contents that it has.
    pub fn manifests(&self) -> &Arc<Manifests> {
        &self.manifests
    }

    /// Takes note of a row of its that was read.
    pub(crate) fn note(&self, path: &RelPath, row: &Row) {
        self.whereabouts.note(path, row);
    }

    /// Begins to list changes for a listener; `waker` is woken when there are some.
    pub fn subscribe(&self, waker: Waker, listener: &Arc<Observed>) -> Subscription {
        let mut lists = self.lock();
        listener.begin(waker.clone());
        let number = lists.next;
        lists.next += 1;
        let told = Told {
            changes: Changes::default(),
            waker,
            listener: Arc::clone(listener),
        };
        lists.open.insert(number, told);
        Subscription {
            number,
            lists: Arc::downgrade(&self.lists),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn will_change<'a>(&self, paths: impl Iterator<Item = &'a RelPath> + Clone) -> Result<()> {
        let lists = self.lock();
        let mut listeners = lists.open.values().map(|told| &told.listener);
        listeners.try_for_each(|listener| listener.ours_change(paths.clone()))
    }

    fn changed<'a>(&self, paths: impl Iterator<Item = &'a RelPath> + Clone) {
        for told in self.lock().open.values_mut() {
            told.listener.ours_changed(paths.clone());
            paths.clone().for_each(|path| told.changes.add(path));
            told.waker.wake();
        }
    }
}

/// Books that others are told of.
pub fn is_told(book: Book, key: &str) -> bool {
    match book {
        Book::Share => key == "share",
        Book::Conflicts => true,
        Book::Holds | Book::Trash | Book::Log => false,
    }
}

impl Replica for Published {
    hand_on!(inner: id actor share describe capabilities guard is_rejoining watch take_hints look sums row children
        subtree open sample stage begun is_staged take_problems mint restore purge barrier read_record records);

    fn renew(&self) -> Result<Option<Arc<dyn Replica>>> {
        let anew = self.inner.renew()?;
        Ok(anew.map(|inner| {
            let lists = self.lists.clone();
            // It may know other things than before.
            for told in self.lock().open.values_mut() {
                told.changes.lost = true;
                told.waker.wake();
            }
            let manifests = self.manifests.clone();
            let whereabouts = self.whereabouts.clone();
            let anew = Self {
                inner,
                lists,
                manifests,
                whereabouts,
            };
            Arc::new(anew) as Arc<dyn Replica>
        }))
    }

    fn whereabouts(&self, content: ContentId) -> Option<RelPath> {
        let at = self.whereabouts.of(content)?;
        let row = self.inner.row(&at).ok().flatten();
        let is_there = row.is_some_and(|r| r.present().is_some_and(|v| v.content == content));
        if !is_there {
            self.whereabouts.forget(content);
        }
        is_there.then_some(at)
    }

    fn rejoined(&self) -> Result<()> {
        self.inner.rejoined()
    }

    fn record(&self, look: &Look, share: &ShareState) -> Result<Vec<RelPath>> {
        self.will_change(look.findings.iter().map(|f| &f.path))?;
        let changed = self.inner.record(look, share)?;
        // What was only seen anew may show another mode.
        let seen = look.findings.iter().map(|f| &f.path);
        self.changed(changed.iter().chain(seen));
        Ok(changed)
    }

    fn check(&self, path: &RelPath) -> Result<Checked> {
        self.inner.check(path)
    }

    fn check_kept(&self, key: &str) -> Result<Checked> {
        self.inner.check_kept(key)
    }

    fn apply(&self, actions: &[Action], sources: &dyn Sources) -> Result<Vec<Outcome>> {
        self.will_change(actions.iter().map(|a| &a.path))?;
        let outcomes = self.inner.apply(actions, sources);
        // Also after an error some may have been carried out.
        self.changed(actions.iter().map(|a| &a.path));
        outcomes
    }

    fn rename(&self, from: &RelPath, to: &RelPath) -> Result<Outcome> {
        self.inner.rename(from, to)
    }

    fn adopt_move(&self, from: &RelPath, to: &RelPath, entries: &[(RelPath, Row)]) -> Result<()> {
        self.will_change(entries.iter().map(|(path, _)| path))?;
        let adopted = self.inner.adopt_move(from, to, entries);
        self.changed(entries.iter().map(|(path, _)| path));
        adopted
    }

    fn write_record(&self, book: Book, key: &str, body: Option<&str>) -> Result<()> {
        self.inner.write_record(book, key, body)?;
        if is_told(book, key) {
            for told in self.lock().open.values_mut() {
                told.changes.records.insert((book, key.to_owned()));
                told.waker.wake();
            }
        }
        Ok(())
    }

    fn close(&self) -> Result<()> {
        self.inner.close()
    }
}
