//! What makes life hard on a machine for a while: no room, no writing, a root that is away, an index that
//! fails, slowness, lost hints, listings that fail, clocks that jump.
//!
//! Owns when it begins and ends. Invariant: all of it is over before anybody is asked to be in step.

use std::sync::atomic::Ordering;

use super::{State, World};
use crate::faults::{self, Trouble};

/// Trouble that goes on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Running {
    machine: usize,
    what: Trouble,
    until_ns: u64,
}

/// Room that is left on a full disk: a page or so, for names.
const FULL_BYTES: u64 = 2048;
/// What a call takes on a slow machine.
const SLOW_NS: u64 = 9_000_000;
/// `EIO`.
const EIO: i32 = 5;

/// What a call takes longer on this machine now.
pub(super) fn delay(state: &State, machine: usize) -> u64 {
    let slow = |r: &Running| r.machine == machine && r.what == Trouble::Slow;
    if state.troubles.iter().any(slow) {
        SLOW_NS
    } else {
        0
    }
}

fn full(state: &State) -> impl Iterator<Item = usize> + '_ {
    let all = state.troubles.iter().filter(|r| r.what == Trouble::Full);
    all.map(|r| r.machine)
}

/// Users have room of their own: a save that fails for want of it is between them and their disk.
pub(super) fn lift_limits(state: &State) {
    full(state).for_each(|i| state.disks[i].limit_room(None));
}

/// After a user acted the disk is as full as before.
pub(super) fn impose_limits(state: &State) {
    full(state).for_each(|i| state.disks[i].limit_room(Some(FULL_BYTES)));
}

impl World {
    /// Before a call: trouble that is over ends, and new trouble may begin.
    pub(super) fn troubles(&self, state: &mut State) {
        let (kinds, rate) = (state.may_happen.0.len(), state.may_happen.1);
        if kinds == 0 || state.ops == 0 {
            return;
        }
        let now = self.elapsed_ns.load(Ordering::Relaxed);
        if state.troubles.iter().any(|r| r.until_ns <= now) {
            self.end_troubles(state, |r| r.until_ns <= now);
        }
        if !state.rng.chance(rate, 10_000) {
            return;
        }
        let what = state.may_happen.0[state.rng.below(kinds)];
        let machine = state.rng.below(state.disks.len());
        let lasts_ms = [2, 50, 500, 5_000, 30_000][state.rng.below(5)];
        let running = |r: &Running| r.machine == machine && r.what == what;
        if !state.troubles.iter().any(running) {
            state.troubles.push(Running {
                machine,
                what,
                until_ns: now + lasts_ms * 1_000_000,
            });
            state.counts.strike(what.name());
            let line = format!("          {what:?} on {machine} for {lasts_ms} ms");
            state.trace.push(line);
            self.begin(state, machine, what);
        }
    }

    fn begin(&self, state: &mut State, machine: usize, what: Trouble) {
        let fs = &state.disks[machine];
        match what {
            Trouble::Full => fs.limit_room(Some(FULL_BYTES)),
            Trouble::ReadOnly => fs.configure(|c| c.read_only = true),
            Trouble::Away => self.away[machine].store(true, Ordering::Relaxed),
            Trouble::IndexFails => {
                state.indexes[machine].fail_after(1 + state.rng.below(30) as u64);
            }
            Trouble::Slow => {}
            Trouble::ShortQueue => fs.configure(|c| c.event_queue = 2),
            Trouble::Unlistable => fs.inject("list", 300, EIO),
            Trouble::Jump => {
                let ns = faults::jump(&mut state.rng);
                self.jumped_ns[machine].fetch_add(ns, Ordering::Relaxed);
            }
        }
    }

    /// Ends some of the trouble.
    pub(super) fn end_troubles(&self, state: &mut State, over: impl Fn(&Running) -> bool) {
        let (ended, left): (Vec<Running>, Vec<Running>) =
            state.troubles.iter().copied().partition(over);
        state.troubles = left;
        for Running { machine, what, .. } in ended {
            let fs = &state.disks[machine];
            match what {
                Trouble::Full => fs.limit_room(None),
                Trouble::ReadOnly => fs.configure(|c| c.read_only = false),
                Trouble::Away => self.away[machine].store(false, Ordering::Relaxed),
                Trouble::IndexFails => state.indexes[machine].heal(),
                Trouble::ShortQueue => fs.configure(|c| c.event_queue = 16_384),
                Trouble::Unlistable => fs.end_fault("list"),
                Trouble::Slow | Trouble::Jump => {}
            }
        }
    }
}
