//! Time, randomness and parallel work, injected, so that one seed replays a whole run.

use std::sync::atomic::{AtomicUsize, Ordering};

/// What the engine and the replicas may know of the world besides their trees.
pub trait Env: Send + Sync {
    /// The wall clock, nanoseconds since 1970.
    fn wall_ns(&self) -> i64;

    /// A clock that never goes back, nanoseconds since some start.
    fn monotonic_ns(&self) -> u64;

    /// Sixteen random bytes.
    fn random(&self) -> [u8; 16];

    /// How many workers share the work of [`for_each`].
    fn workers(&self) -> usize;

    /// Which boot of the machine this is.
    fn boot_id(&self) -> String;

    /// Runs long work aside. A simulator runs it at once.
    fn spawn(&self, name: &str, work: Box<dyn FnOnce() + Send>);
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
