//! Hints that something may have changed. They may repeat, lie or be lost; if any may have been lost the
//! watcher says so once, and whoever listens looks again everywhere.

mod inotify;
pub(crate) mod table;

use std::time::Duration;

use instep_core::path::RelPath;

use crate::api::Result;
use crate::dir::Dir;
#[cfg(feature = "sim")]
use crate::sim;

/// What happened at a path, as far as the system told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct What {
    /// The name appeared.
    pub created: bool,
    /// Bytes were written.
    pub modified: bool,
    /// A writer closed it.
    pub closed: bool,
    /// It left this name; both ends of a rename carry the same number.
    pub moved_from: Option<u32>,
    /// It took this name.
    pub moved_to: Option<u32>,
    /// The name went.
    pub deleted: bool,
    /// Its metadata changed.
    pub attrib: bool,
    /// It is a directory.
    pub is_dir: bool,
}

/// One hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// Something happened at a path.
    Path {
        /// Where.
        path: RelPath,
        /// What.
        what: What,
    },
    /// Hints were lost.
    Overflow,
    /// The root itself was deleted, moved or unmounted.
    RootGone,
}

#[derive(Debug)]
enum WatcherImpl {
    Os(Box<inotify::Inotify>),
    #[cfg(feature = "sim")]
    Sim(sim::SimWatcher),
}

/// Watches directories below one root.
#[derive(Debug)]
pub struct Watcher(WatcherImpl);

impl Watcher {
    /// A watcher for directories on this machine.
    pub fn new() -> Result<Self> {
        inotify::Inotify::new().map(|w| Self(WatcherImpl::Os(Box::new(w))))
    }

    /// A watcher of the simulator.
    #[cfg(feature = "sim")]
    pub fn from_sim(watcher: sim::SimWatcher) -> Self {
        Self(WatcherImpl::Sim(watcher))
    }

    /// Watches one directory; again is fine. `NoSpace` means that the user's limit on watches is reached.
    pub fn add(&self, dir: &Dir, path: &RelPath) -> Result<()> {
        match &self.0 {
            WatcherImpl::Os(w) => w.add(dir, path).map(drop),
            #[cfg(feature = "sim")]
            WatcherImpl::Sim(w) => match dir.as_sim() {
                Some(dir) => w.add(dir, path).map(drop),
                None => Err(crate::api::Error::new(
                    "watch a directory of another kind",
                    libc::EXDEV,
                )),
            },
        }
    }

    /// Stops watching a directory and everything below it.
    pub fn remove_tree(&self, path: &RelPath) {
        match &self.0 {
            WatcherImpl::Os(w) => w.remove_tree(path),
            #[cfg(feature = "sim")]
            WatcherImpl::Sim(w) => {
                // A watch that cannot be removed only gives more hints.
                let _more_hints = w.remove_tree(path);
            }
        }
    }

    /// Whether a directory is watched under a path, as far as events that were read tell.
    pub fn is_watched(&self, path: &RelPath) -> bool {
        match &self.0 {
            WatcherImpl::Os(w) => w.is_watched(path),
            #[cfg(feature = "sim")]
            WatcherImpl::Sim(w) => w.is_watched(path),
        }
    }

    /// Waits for hints: at most `timeout`, for ever when none is given. Empty when nothing came, or when
    /// woken.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Vec<Hint>> {
        match &self.0 {
            WatcherImpl::Os(w) => w.wait(timeout),
            #[cfg(feature = "sim")]
            WatcherImpl::Sim(w) => w.wait(timeout),
        }
    }

    /// Makes the current or next wait return.
    pub fn wake(&self) {
        match &self.0 {
            WatcherImpl::Os(w) => w.wake(),
            #[cfg(feature = "sim")]
            WatcherImpl::Sim(w) => w.wake(),
        }
    }

    /// How many watches are set here, and the user's limit.
    pub fn limits(&self) -> (u64, u64) {
        match &self.0 {
            WatcherImpl::Os(w) => (w.count(), crate::place::watch_limit()),
            #[cfg(feature = "sim")]
            WatcherImpl::Sim(w) => w.limits(),
        }
    }
}
