//! Time, randomness and parallel work, injected, so that one seed replays a whole run.

use std::time::Duration;

use crate::hints::Waker;
use crate::step::Step;

use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

/// What the engine and the replicas may know of the world besides their trees.
pub trait Env: Send + Sync {
    /// The wall clock, nanoseconds since 1970.
    fn wall_ns(&self) -> i64;

    /// A clock that never goes back, nanoseconds since some start.
    fn monotonic_ns(&self) -> u64;

    /// Lets a little time pass.
    fn sleep_ms(&self, ms: u64);

    /// Waits to be woken, at most `timeout`. A simulator moves its clock instead.
    fn wait(&self, waker: &Waker, timeout: Duration) {
        waker.wait(timeout);
    }

    /// Sixteen random bytes.
    fn random(&self) -> [u8; 16];

    /// How many workers share the work of [`for_each`].
    fn workers(&self) -> usize;

    /// Which boot of the machine this is.
    fn boot_id(&self) -> String;

    /// Runs long work aside. A simulator runs it at once.
    fn spawn(&self, name: &str, work: Box<dyn FnOnce() + Send>);

    /// A persistent step was reached. Only trials care, and may let the process die here.
    fn reach(&self, _step: Step) {}
}

/// An environment without surprises, for tests and documentation: the clock moves one millisecond each time
/// it is read, random bytes follow from a seed, and all work runs at once on the thread that asks.
#[derive(Debug)]
pub struct StepEnv {
    wall_ns: AtomicI64,
    drawn: AtomicU64,
}

impl StepEnv {
    /// From a seed; equal seeds give equal runs.
    pub fn new(seed: u64) -> Self {
        let start_ns = 1_750_000_000 * 1_000_000_000;
        Self {
            wall_ns: AtomicI64::new(start_ns),
            drawn: AtomicU64::new(seed << 32),
        }
    }

    /// Lets time pass.
    pub fn advance(&self, ns: i64) {
        self.wall_ns.fetch_add(ns, Ordering::Relaxed);
    }
}

impl Default for StepEnv {
    fn default() -> Self {
        Self::new(1)
    }
}

impl Env for StepEnv {
    fn wall_ns(&self) -> i64 {
        self.wall_ns.fetch_add(1_000_000, Ordering::Relaxed)
    }

    fn monotonic_ns(&self) -> u64 {
        self.wall_ns().cast_unsigned()
    }

    fn random(&self) -> [u8; 16] {
        let draw = || {
            // SplitMix64 (Steele, Lea, Flood 2014).
            let step = self.drawn.fetch_add(1, Ordering::Relaxed);
            let mut x = step.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ (x >> 31)
        };
        (u128::from(draw()) << 64 | u128::from(draw())).to_be_bytes()
    }

    fn sleep_ms(&self, ms: u64) {
        self.advance(
            i64::try_from(ms)
                .unwrap_or(i64::MAX / 1_000_000)
                .saturating_mul(1_000_000),
        );
    }

    fn workers(&self) -> usize {
        1
    }

    fn boot_id(&self) -> String {
        "boot-1".into()
    }

    fn spawn(&self, _: &str, work: Box<dyn FnOnce() + Send>) {
        work();
    }
}

/// Runs `work` for each index below `count` on the workers of `env`, in order when there is one worker.
///
/// A worker takes the next index when it is free, so that one long piece delays nothing else. Each worker
/// makes its own scratch value once.
pub fn for_each<S>(
    env: &dyn Env,
    count: usize,
    scratch: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, usize) + Sync,
) {
    let workers = env.workers().min(count);
    if workers <= 1 {
        let mut s = scratch();
        (0..count).for_each(|i| work(&mut s, i));
        return;
    }
    let next = AtomicUsize::new(0);
    let run = || {
        let mut s = scratch();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= count {
                return;
            }
            work(&mut s, i);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..workers {
            scope.spawn(run);
        }
        run();
    });
}
