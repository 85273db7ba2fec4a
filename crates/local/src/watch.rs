//! From the kernel's events to hints.
//!
//! A thread does nothing but drain the event queue, so that it overflows as late as possible. Watches are
//! set by the scanner, on each directory before it is listed.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use instep_core::path::{RESERVED, RelPath};
use instep_fs::watch::{Hint, Watcher};
use instep_replica::env::Env;
use instep_replica::{HintSet, Waker};

/// Watching one root.
#[derive(Debug)]
pub struct Watch {
    watcher: Arc<Watcher>,
    hints: Arc<Mutex<HintSet>>,
    refused: Mutex<BTreeSet<RelPath>>,
    threaded: bool,
}

impl Watch {
    /// Starts to collect hints; `spawn` runs the draining thread, where there is one.
    pub fn start(watcher: Watcher, waker: Waker, env: &Arc<dyn Env>, threaded: bool) -> Self {
        let watcher = Arc::new(watcher);
        let hints = Arc::new(Mutex::new(HintSet::default()));
        if threaded {
            let (w, h) = (Arc::downgrade(&watcher), hints.clone());
            let own = env.clone();
            env.spawn(
                "watch",
                Box::new(move || drain(&w, &h, &waker, own.as_ref())),
            );
        }
        Self {
            watcher,
            hints,
            refused: Mutex::default(),
            threaded,
        }
    }

    /// Watches one directory.
    pub fn add(&self, dir: &instep_fs::Dir, path: &RelPath) -> instep_fs::Result<()> {
        let result = self.watcher.add(dir, path);
        if result.is_err() {
            self.refused
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(path.clone());
        }
        result
    }

    /// Stops watching a directory and everything below it.
    pub fn remove_tree(&self, path: &RelPath) {
        self.watcher.remove_tree(path);
    }

    /// Whether a directory is watched under a path.
    pub fn has(&self, path: &RelPath) -> bool {
        self.watcher.is_watched(path)
    }

    /// Directories that could not be watched; each is asked for once, and comes back when it is refused
    /// again.
    pub fn take_refused(&self) -> BTreeSet<RelPath> {
        std::mem::take(&mut *self.refused.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether there are hints that were not taken.
    pub fn has_hints(&self) -> bool {
        let hints = self.hints.lock().unwrap_or_else(PoisonError::into_inner);
        !hints.is_empty()
    }

    /// The hints so far.
    pub fn take(&self) -> HintSet {
        if !self.threaded
            && let Ok(hints) = self.watcher.wait(Some(std::time::Duration::ZERO))
        {
            collect(
                hints,
                &mut self.hints.lock().unwrap_or_else(PoisonError::into_inner),
            );
        }
        std::mem::take(&mut *self.hints.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.watcher.wake();
    }
}

/// Drains until the watch is dropped.
fn drain(watcher: &std::sync::Weak<Watcher>, hints: &Mutex<HintSet>, waker: &Waker, env: &dyn Env) {
    while let Some(w) = watcher.upgrade() {
        let batch = w.wait(Some(std::time::Duration::from_mins(1)));
        drop(w);
        let mut set = hints.lock().unwrap_or_else(PoisonError::into_inner);
        match batch {
            Ok(batch) if batch.is_empty() => continue,
            Ok(batch) => collect(batch, &mut set),
            Err(_) => set.lost = true,
        }
        let failed = set.lost && set.paths.is_empty();
        drop(set);
        waker.wake();
        if failed {
            // A queue that cannot be read must not be asked in a tight loop.
            env.sleep_ms(100);
        }
    }
}

fn collect(batch: Vec<Hint>, set: &mut HintSet) {
    for hint in batch {
        match hint {
            Hint::Path { path, what } => {
                if path
                    .components()
                    .next()
                    .is_some_and(|n| n.as_bytes() == RESERVED)
                {
                    set.root |= path.depth() == 1;
                } else {
                    if what.is_dir && what.moved_to.is_some() {
                        // The halves of a rename may be read apart, and then nothing in it is watched.
                        set.trees.insert(path.clone());
                    }
                    set.add_path(path);
                }
            }
            Hint::Overflow => set.lost = true,
            Hint::RootGone => set.root = true,
        }
    }
}

/// Why a directory is looked at instead of watched, and what to do about it.
pub(crate) fn refused(errno: i32) -> String {
    let limit = instep_fs::place::watch_limit();
    format!(
        "some directories are looked at every few seconds instead of watched (errno {errno}); \
         to raise the limit: sudo sysctl fs.inotify.max_user_watches={}",
        (limit * 2).max(524_288)
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;
    use instep_fs::watch::What;

    #[test]
    fn a_directory_that_arrived_is_never_watched_again() {
        let path = RelPath::new(b"d").unwrap();
        let arrived = What {
            moved_to: Some(7),
            is_dir: true,
            ..What::default()
        };
        let mut set = HintSet::default();
        collect(
            vec![Hint::Path {
                path: path.clone(),
                what: arrived,
            }],
            &mut set,
        );
        assert!(
            set.trees.contains(&path),
            "it is looked at as a whole, which watches it"
        );
        let mut set = HintSet::default();
        let file = What {
            is_dir: false,
            ..arrived
        };
        collect(vec![Hint::Path { path, what: file }], &mut set);
        assert!(set.trees.is_empty() && set.paths.len() == 1);
    }
}
