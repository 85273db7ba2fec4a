//! A hub on a simulated machine, with its stores in memory.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use instep_core::id::ReplicaId;
use instep_fs::sim::{SimConfig, SimFs};
use instep_hub::{HubReplica, Parts, Retention};
use instep_replica::env::Env;
use instep_store::MemoryDisk;

use super::SHARE;

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

/// A simulated machine with one hub at its root.
pub(crate) struct Sim {
    pub(crate) env: Arc<SimEnv>,
    pub(crate) index: MemoryDisk,
    pub(crate) contents: MemoryDisk,
    pub(crate) gone: Arc<AtomicBool>,
    hub: Option<Arc<HubReplica>>,
}

impl Sim {
    pub(crate) fn new(config: SimConfig) -> Self {
        let env = SimEnv {
            fs: Mutex::new(SimFs::new(config)),
            drawn: AtomicU64::new(1),
            boot: AtomicU64::new(1),
        };
        let mut sim = Self {
            env: Arc::new(env),
            index: MemoryDisk::new(),
            contents: MemoryDisk::new(),
            gone: Arc::default(),
            hub: None,
        };
        sim.open();
        sim
    }

    pub(crate) fn fs(&self) -> SimFs {
        self.env.fs()
    }

    pub(crate) fn hub(&self) -> &Arc<HubReplica> {
        self.hub.as_ref().unwrap()
    }

    pub(crate) fn try_open(&mut self) -> instep_replica::Result<()> {
        self.hub = None;
        let gone = self.gone.clone();
        let parts = Parts {
            id: ReplicaId([9; 16]),
            share: SHARE,
            label: "hub".into(),
            location: "here".into(),
            home: self.fs().root(),
            index: Box::new(self.index.open()),
            contents: Box::new(self.contents.open()),
            is_new: true,
            is_rejoining: false,
            is_unsure: false,
            retention: Retention::default(),
            guard: Box::new(move || {
                if gone.load(Ordering::SeqCst) {
                    Err("it is not there".into())
                } else {
                    Ok(())
                }
            }),
        };
        let hub = HubReplica::assemble(self.env.clone(), parts)?;
        hub.begin()?;
        self.hub = Some(Arc::new(hub));
        Ok(())
    }

    pub(crate) fn open(&mut self) {
        self.try_open().unwrap();
    }

    /// Kills the process, and starts another.
    pub(crate) fn kill(&mut self) {
        self.fs().kill();
        self.index.kill();
        self.contents.kill();
        self.open();
    }

    /// Cuts the power, of the file system and of the stores, which keep what each of them likes; and starts again.
    pub(crate) fn power_cut(&mut self, seed: u64) {
        let after = self.fs().crash(seed);
        self.index.power_cut(seed / 7);
        self.contents.power_cut(seed / 3);
        *self.env.fs.lock().unwrap() = after;
        self.env.boot.fetch_add(1, Ordering::SeqCst);
        self.open();
    }
}
