//! The real world as the engine may know it: clocks, randomness, threads.
//!
//! The only place in the program where the engine's time and randomness come from.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use instep_replica::env::Env;

use crate::error::{Exit, Failure};

/// The machine that this process runs on.
#[derive(Debug)]
pub(crate) struct SystemEnv {
    start: Instant,
    workers: usize,
    boot: String,
}

impl SystemEnv {
    /// With so many workers, or as many as fit the machine. Fails where there is no randomness.
    pub(crate) fn new(jobs: Option<u16>) -> Result<Self, Failure> {
        draw()?;
        Ok(Self {
            start: Instant::now(),
            workers: usize::from(jobs.unwrap_or_else(Self::fitting_workers)),
            boot: boot(),
        })
    }

    /// As many workers as fit the machine.
    pub(crate) fn fitting_workers() -> u16 {
        let there = std::thread::available_parallelism().map_or(2, usize::from);
        u16::try_from(there.clamp(2, 16)).unwrap_or(2)
    }
}

/// Which boot of the machine this is.
#[cfg(not(feature = "steps"))]
fn boot() -> String {
    instep_fs::place::boot_id()
}

/// Which boot of the machine this is, or is to be taken for.
#[cfg(feature = "steps")]
fn boot() -> String {
    crate::steps::boot().unwrap_or_else(instep_fs::place::boot_id)
}

fn draw() -> Result<[u8; 16], Failure> {
    instep_fs::place::random_bytes::<16>().map_err(|error| {
        Failure::new(1900, Exit::Failed, "draw random bytes for new identities")
            .why(error.to_string())
    })
}

/// Nanoseconds since 1970 by the wall clock.
pub(crate) fn wall_ns() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |ns| -ns),
    }
}

impl Env for SystemEnv {
    fn wall_ns(&self) -> i64 {
        wall_ns()
    }

    fn monotonic_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn random(&self) -> [u8; 16] {
        draw().expect(
            "the source of randomness answered when this was made, and Linux never closes it",
        )
    }

    fn workers(&self) -> usize {
        self.workers
    }

    fn boot_id(&self) -> String {
        self.boot.clone()
    }

    fn sleep_ms(&self, ms: u64) {
        std::thread::sleep(std::time::Duration::from_millis(ms));
    }

    fn spawn(&self, name: &str, work: Box<dyn FnOnce() + Send>) {
        // Where no thread can be had, the work is done here: slower, never lost.
        let slot = std::sync::Arc::new(std::sync::Mutex::new(Some(work)));
        let run = move |slot: &std::sync::Mutex<Option<Box<dyn FnOnce() + Send>>>| {
            let work = slot.lock().map(|mut w| w.take()).unwrap_or_default();
            if let Some(work) = work {
                work();
            }
        };
        let theirs = std::sync::Arc::clone(&slot);
        let started = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(&theirs));
        if started.is_err() {
            run(&slot);
        }
    }

    #[cfg(feature = "steps")]
    fn reach(&self, step: instep_replica::Step) {
        crate::steps::reach(step);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn work_is_carried_out_aside_and_identities_differ() {
        let env = SystemEnv::new(Some(3)).unwrap();
        assert_eq!(env.workers(), 3);
        assert_ne!(env.random(), env.random());
        let (tell, told) = std::sync::mpsc::channel();
        env.spawn("test", Box::new(move || tell.send(7).unwrap()));
        assert_eq!(told.recv().unwrap(), 7);
    }
}
