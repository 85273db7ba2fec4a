//! A replica on the simulated file system, with its index in memory.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use instep_core::id::{ActorId, ReplicaId};
use instep_core::path::RelPath;
use instep_core::policy::Role;
use instep_fs::sim::{NodeView, Save, SimConfig, SimFs};
use instep_fs::{ErrorKind, Kind};
use instep_local::index::Index;
use instep_local::replica::RootGuard;
use instep_local::rules::Rules;
use instep_local::tree::{Ours, ours};
use instep_local::{LocalReplica, Parts, Settings};
use instep_replica::conformance::User;
use instep_replica::env::Env;
use instep_replica::memory::Object;
use instep_store::{Durability, MemoryDisk};

use super::from_fs;
use super::real::SHARE;

/// The simulated machine: time moves when somebody sleeps, and all work runs at once.
pub(crate) struct SimEnv {
    fs: Mutex<SimFs>,
    drawn: AtomicU64,
    boot: AtomicU64,
}

impl SimEnv {
    fn fs(&self) -> SimFs {
        self.fs.lock().unwrap().clone()
    }
}

impl Env for SimEnv {
    fn wall_ns(&self) -> i64 {
        let fs = self.fs();
        fs.advance(1000);
        fs.now()
    }

    fn monotonic_ns(&self) -> u64 {
        self.wall_ns().cast_unsigned()
    }

    fn sleep_ms(&self, ms: u64) {
        self.fs().advance(ms.cast_signed() * 1_000_000);
    }

    fn random(&self) -> [u8; 16] {
        let n = self.drawn.fetch_add(1, Ordering::SeqCst);
        let mut out = [0; 16];
        out[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        out[8..].copy_from_slice(&n.to_be_bytes());
        out
    }

    fn workers(&self) -> usize {
        1
    }

    fn boot_id(&self) -> String {
        format!("boot-{}", self.boot.load(Ordering::SeqCst))
    }

    fn spawn(&self, _: &str, work: Box<dyn FnOnce() + Send>) {
        work();
    }
}

/// A root that can go away.
#[derive(Debug, Default)]
struct SimGuard(Arc<AtomicBool>);

impl RootGuard for SimGuard {
    fn check(&self) -> Result<(), String> {
        if self.0.load(Ordering::SeqCst) {
            Err("the root is not there".into())
        } else {
            Ok(())
        }
    }
}

/// A simulated machine with one replica at its root.
pub(crate) struct Sim {
    /// The clock.
    pub(crate) env: Arc<SimEnv>,
    /// Where the index is.
    pub(crate) disk: MemoryDisk,
    /// The root is away.
    pub(crate) gone: Arc<AtomicBool>,
    /// The replica; none while it is closed.
    pub(crate) replica: Option<LocalReplica>,
    /// Watches, and so gives hints.
    pub(crate) watches: bool,
    /// What it is told apart by from other machines.
    pub(crate) tag: u8,
    /// A mirror's source has nothing of ours.
    pub(crate) role: Role,
    /// Carries owners.
    pub(crate) owner: bool,
    /// Carries extended attributes.
    pub(crate) xattrs: bool,
}

impl Sim {
    /// A machine whose replica looks by itself, because nothing here waits for an event.
    pub(crate) fn new(config: SimConfig) -> Self {
        Self::with_watch(config, false)
    }

    /// A machine whose replica gives hints, when asked for them, if `watches`.
    pub(crate) fn with_watch(config: SimConfig, watches: bool) -> Self {
        Self::tagged(config, watches, 1)
    }

    /// One of several machines, told apart by `tag`.
    pub(crate) fn tagged(config: SimConfig, watches: bool, tag: u8) -> Self {
        let env = SimEnv {
            fs: Mutex::new(SimFs::new(config)),
            drawn: AtomicU64::new(1),
            boot: AtomicU64::new(1),
        };
        let mut sim = Self {
            env: Arc::new(env),
            disk: MemoryDisk::new(),
            gone: Arc::default(),
            replica: None,
            watches,
            tag,
            role: Role::Both,
            owner: false,
            xattrs: false,
        };
        sim.open();
        sim
    }

    /// The machine's file system as it is now.
    pub(crate) fn fs(&self) -> SimFs {
        self.env.fs()
    }

    /// The replica.
    pub(crate) fn replica(&self) -> &LocalReplica {
        self.replica.as_ref().unwrap()
    }

    /// Opens the replica.
    pub(crate) fn open(&mut self) {
        self.try_open().unwrap();
    }

    /// Opens the replica, if its index can be read and written.
    pub(crate) fn try_open(&mut self) -> instep_replica::Result<()> {
        self.replica = None;
        let fs = self.fs();
        let root = fs.root();
        match root.make_dir(ours(".instep"), 0o700) {
            Err(e) if e.kind() != ErrorKind::Taken => panic!("make .instep: {e}"),
            _ => {}
        }
        let dirs = Ours::open(root.open_dir(ours(".instep")).unwrap()).unwrap();
        let profile = root.profile(Some(&dirs.base)).unwrap();
        let index = Index::open(Box::new(self.disk.open()), self.actor())?;
        let parts = Parts {
            id: ReplicaId([self.tag; 16]),
            share: SHARE,
            root,
            ours: (self.role != Role::Source).then_some(dirs),
            profile,
            index,
            rules: Rules::default(),
            settings: Settings {
                poll: !self.watches,
                role: self.role,
                owner: self.owner,
                xattrs: self.xattrs,
                ..Settings::default()
            },
            new: true,
            guard: Box::new(SimGuard(self.gone.clone())),
            watcher: Box::new(move || Ok(fs.watcher())),
            threaded: false,
        };
        let replica = LocalReplica::assemble(self.env.clone(), parts)?;
        replica.begin()?;
        self.replica = Some(replica);
        Ok(())
    }

    /// Whose changes its are.
    fn actor(&self) -> ActorId {
        if self.tag == 1 {
            ActorId(*b"simulate")
        } else {
            ActorId([self.tag; 8])
        }
    }

    /// Kills the process, and starts another.
    pub(crate) fn kill(&mut self) {
        self.fs().kill();
        self.disk.kill();
        self.open();
    }

    /// Loses the index while nothing runs, and starts again with an empty one that knows it.
    pub(crate) fn lose_index(&mut self) {
        self.replica = None;
        self.disk = MemoryDisk::new();
        let mut index = Index::open(Box::new(self.disk.open()), self.actor()).unwrap();
        index.set_rejoining(true).unwrap();
        index.commit(Durability::Power).unwrap();
        drop(index);
        self.open();
    }

    /// Cuts the power, of the file system and of the index alike, and starts again.
    pub(crate) fn power_cut(&mut self, seed: u64) {
        self.power_cut_and(seed, |_| {});
    }

    /// As [`Sim::power_cut`]; something befalls the file system before it is used again.
    pub(crate) fn power_cut_and(&mut self, seed: u64, befalls: impl FnOnce(&SimFs)) {
        let after = self.fs().crash(seed);
        befalls(&after);
        self.disk.power_cut(seed);
        *self.env.fs.lock().unwrap() = after;
        self.env.boot.fetch_add(1, Ordering::SeqCst);
        self.open();
    }
}

fn object(view: NodeView) -> Object {
    let mode = (view.mode & 0o777) as u16;
    match view.kind {
        Kind::File => Object::File {
            bytes: view.content,
            mode,
            mtime: view.mtime,
        },
        Kind::Dir => Object::Dir { mode },
        Kind::Link => Object::Link {
            target: view.target,
            mtime: view.mtime,
        },
        Kind::Special => Object::Special,
    }
}

impl User for Sim {
    fn write(&self, path: &RelPath, bytes: &[u8]) -> io::Result<()> {
        if let Some(parent) = path.parent().filter(|p| !p.is_root()) {
            self.fs().mkdir_all(parent.as_bytes()).map_err(from_fs)?;
        }
        self.fs()
            .write_file(path.as_bytes(), bytes, Save::InPlace)
            .map_err(from_fs)
    }

    fn remove(&self, path: &RelPath) -> io::Result<()> {
        self.fs().remove_all(path.as_bytes()).map_err(from_fs)
    }

    fn rename(&self, from: &RelPath, to: &RelPath) -> io::Result<()> {
        self.fs()
            .rename(from.as_bytes(), to.as_bytes())
            .map_err(from_fs)
    }

    fn mkdir(&self, path: &RelPath) -> io::Result<()> {
        self.fs().mkdir_all(path.as_bytes()).map_err(from_fs)
    }

    fn symlink(&self, path: &RelPath, target: &[u8]) -> io::Result<()> {
        if let Some(parent) = path.parent().filter(|p| !p.is_root()) {
            self.fs().mkdir_all(parent.as_bytes()).map_err(from_fs)?;
        }
        self.fs().symlink(target, path.as_bytes()).map_err(from_fs)
    }

    fn chmod(&self, path: &RelPath, mode: u16) -> io::Result<()> {
        self.fs()
            .chmod(path.as_bytes(), u32::from(mode))
            .map_err(from_fs)
    }

    fn read(&self, path: &RelPath) -> io::Result<Vec<u8>> {
        self.fs().read(path.as_bytes()).map_err(from_fs)
    }

    fn tree(&self) -> io::Result<BTreeMap<RelPath, Object>> {
        let all = self.fs().snapshot().into_iter();
        let shown = all.filter(|(path, _)| !path.is_root() && !path.is_reserved());
        Ok(shown.map(|(path, view)| (path, object(view))).collect())
    }
}
