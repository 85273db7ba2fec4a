//! "Look here": never the truth, only a reason to look.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use instep_core::path::RelPath;

/// Paths above this number are not kept one by one: the whole root is looked at instead.
pub const HINTS_MAX: usize = 200_000;

/// Where something may have changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HintSet {
    /// Single paths: what is there now, not what is below it.
    pub paths: BTreeSet<RelPath>,
    /// Directories to be looked at with everything below them.
    pub trees: BTreeSet<RelPath>,
    /// Hints were lost: look everywhere.
    pub lost: bool,
    /// The root itself went away or changed.
    pub root: bool,
    /// What is written in its books changed at the far end: what all know is to be joined again.
    pub books: bool,
}

impl HintSet {
    /// Whether there is nothing to look at.
    pub fn is_empty(&self) -> bool {
        let nowhere = self.paths.is_empty() && self.trees.is_empty();
        nowhere && !self.lost && !self.root && !self.books
    }

    /// Adds a path; beyond [`HINTS_MAX`] hints are lost, and that is said.
    pub fn add_path(&mut self, path: RelPath) {
        if self.paths.len() < HINTS_MAX {
            self.paths.insert(path);
        } else {
            self.lost = true;
        }
    }

    /// Adds everything of another set.
    pub fn extend(&mut self, other: Self) {
        for path in other.paths {
            self.add_path(path);
        }
        self.trees.extend(other.trees);
        self.lost |= other.lost;
        self.root |= other.root;
        self.books |= other.books;
    }
}

/// Wakes whoever waits for hints, commands or finished transfers. Clones wake the same waiter.
#[derive(Debug, Clone, Default)]
pub struct Waker(Arc<(Mutex<bool>, Condvar)>);

impl Waker {
    /// Wakes the waiter, or lets its next wait return at once.
    pub fn wake(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    /// Waits until woken, at most `timeout`; true when woken.
    pub fn wait(&self, timeout: Duration) -> bool {
        let guard = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut woken, _) = self
            .0
            .1
            .wait_timeout_while(guard, timeout, |woken| !*woken)
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *woken)
    }
}
