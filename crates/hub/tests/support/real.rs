//! A hub in a real directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use instep_fs::place;
use instep_hub::{HubOptions, HubReplica, Retention};
use instep_replica::Waker;
use instep_replica::env::Env;
use instep_testkit::scratch::Scratch;

use super::SHARE;

/// The machine, with a clock that can be moved forward.
pub(crate) struct RealEnv {
    ahead_ns: AtomicI64,
}

impl Env for RealEnv {
    fn wall_ns(&self) -> i64 {
        place::wall_clock_ns() + self.ahead_ns.load(Ordering::SeqCst)
    }

    fn monotonic_ns(&self) -> u64 {
        place::monotonic().as_nanos() as u64 + self.ahead_ns.load(Ordering::SeqCst) as u64
    }

    fn sleep_ms(&self, ms: u64) {
        self.ahead_ns
            .fetch_add(ms as i64 * 1_000_000, Ordering::SeqCst);
    }

    /// Nobody writes while a session waits, so that nothing is missed by what is not waited for.
    fn wait(&self, waker: &Waker, timeout: Duration) {
        if !waker.wait(timeout.min(Duration::from_millis(1))) {
            self.sleep_ms(timeout.as_millis() as u64);
        }
    }

    fn random(&self) -> [u8; 16] {
        place::random_bytes().unwrap()
    }

    fn workers(&self) -> usize {
        1
    }

    fn boot_id(&self) -> String {
        "boot-1".to_owned()
    }

    fn spawn(&self, _: &str, work: Box<dyn FnOnce() + Send>) {
        work();
    }
}

/// A place for a hub, and the hub while it is open.
pub(crate) struct Real {
    pub(crate) scratch: Scratch,
    pub(crate) env: Arc<RealEnv>,
    hub: Option<Arc<HubReplica>>,
}

impl Real {
    pub(crate) fn new() -> Self {
        let scratch = Scratch::new().unwrap();
        let env = Arc::new(RealEnv {
            ahead_ns: AtomicI64::new(0),
        });
        let mut real = Self {
            scratch,
            env,
            hub: None,
        };
        real.hub = Some(Arc::new(
            HubReplica::create(&real.home(), real.env.clone(), real.options()).unwrap(),
        ));
        real
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.scratch.path().join("data/shares/one")
    }

    pub(crate) fn options(&self) -> HubOptions {
        HubOptions {
            label: "hub".into(),
            share: SHARE,
            state_dir: self.scratch.path().join("state"),
            retention: Retention::default(),
            command: "a test".into(),
        }
    }

    pub(crate) fn hub(&self) -> &Arc<HubReplica> {
        self.hub.as_ref().unwrap()
    }

    /// Lets go of the hub without closing it, as when its process dies.
    pub(crate) fn kill(&mut self) {
        self.hub = None;
    }

    pub(crate) fn try_open(&self) -> instep_replica::Result<HubReplica> {
        HubReplica::open(&self.home(), self.env.clone(), self.options())
    }

    pub(crate) fn open(&mut self) {
        self.hub = None;
        self.hub = Some(Arc::new(self.try_open().unwrap()));
    }

    /// The files of all chunks that have their place, with their sizes.
    pub(crate) fn chunks(&self) -> Vec<(PathBuf, u64)> {
        let mut out = Vec::new();
        for shelf in entries(&self.home().join("chunks")) {
            for file in entries(&shelf) {
                let size = std::fs::metadata(&file).unwrap().len();
                out.push((file, size));
            }
        }
        out
    }

    /// Bytes of all chunks that have their place.
    pub(crate) fn chunk_bytes(&self) -> u64 {
        self.chunks().iter().map(|(_, size)| size).sum()
    }
}

/// The files in a directory, by name.
pub(crate) fn entries(dir: &Path) -> Vec<PathBuf> {
    let read = std::fs::read_dir(dir).unwrap();
    let mut out: Vec<PathBuf> = read.map(|e| e.unwrap().path()).collect();
    out.sort();
    out
}

/// Copies a directory with everything below it.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in entries(from) {
        let target = to.join(entry.file_name().unwrap());
        if entry.is_dir() {
            copy(&entry, &target);
        } else {
            std::fs::copy(&entry, &target).unwrap();
        }
    }
}
