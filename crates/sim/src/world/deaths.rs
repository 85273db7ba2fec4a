//! Processes are killed, and the power goes.
//!
//! All machines die together. Invariant: what a death leaves is decided by the seed alone.

use instep_fs::sim::SimFs;
use instep_replica::Step;

use super::State;
use crate::faults::Death;

/// What a death leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// The process runs.
    Alive,
    /// Its index is dead already; its next call finds the disk so too.
    IndexDead,
    /// It is dead.
    Dead,
}

/// The death that the round has in store comes before this call.
pub(super) fn strike(state: &mut State, call: &str) {
    let Some(crash) = state.crash else { return };
    state
        .trace
        .push(format!("          death before {call}: {crash:?}"));
    state.counts.strike(match crash.how {
        Death::Kill => "kill",
        Death::PowerCut => "power cut",
    });
    kill_indexes(state);
    if crash.index_first {
        state.life = Life::IndexDead;
    } else {
        kill_disks(state);
    }
}

/// A process reaches a step: the death that the round has in store may come right here.
pub(super) fn reach(state: &mut State, step: Step) {
    if state.life != Life::Alive {
        return;
    }
    state.counts.steps.entry(step).or_default().0 += 1;
    let Some((at, left)) = state.crash.as_mut().and_then(|c| c.at.as_mut()) else {
        return;
    };
    if *at != step {
        return;
    }
    *left = left.saturating_sub(1);
    if *left == 0 {
        state.counts.steps.entry(step).or_default().1 += 1;
        strike(state, step.name());
    }
}

/// After the session: what its death meant for the disks.
pub(super) fn bury(state: &mut State) {
    state.died = true;
    match state.crash.map(|c| c.how) {
        Some(Death::PowerCut) => start_again(state),
        _ => died(state),
    }
}

/// The ledger hears of a death.
pub(super) fn died(state: &mut State) {
    let State { ledger, disks, .. } = state;
    ledger.died(disks);
}

fn kill_indexes(state: &mut State) {
    let how = state.crash.map(|c| c.how);
    for disk in &state.indexes {
        match how {
            Some(Death::PowerCut) => disk.power_cut(state.rng.next_u64()),
            _ => disk.kill(),
        }
    }
}

pub(super) fn kill_disks(state: &mut State) {
    state.life = Life::Dead;
    match state.crash.map(|c| c.how) {
        Some(Death::PowerCut) => {
            let State { disks, counts, .. } = &mut *state;
            disks.iter().for_each(|fs| counts.collect(fs));
            state.disks = {
                let State { disks, rng, .. } = &mut *state;
                disks
                    .iter()
                    .map(|fs| {
                        let image = fs.crash(rng.next_u64());
                        fs.clear_hook();
                        image
                    })
                    .collect()
            }
        }
        _ => state.disks.iter().for_each(SimFs::kill),
    }
    if let Some(handle) = &state.handle {
        handle.stop();
    }
}

/// The machines start again after a power cut.
fn start_again(state: &mut State) {
    (state.boot, state.dark) = (state.boot + 1, true);
    let State { users, ledger, .. } = &mut *state;
    users.forget(ledger);
    let unsynced = std::mem::take(&mut state.users.unsynced);
    let unsynced: Vec<bool> = (0..state.disks.len())
        .map(|i| unsynced.get(i) == Some(&true))
        .collect();
    state.ledger.power_cut(&state.disks, &unsynced);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use instep_testkit::prng::Prng;

    use super::*;
    use crate::eye::Eye;
    use crate::faults::{Crash, Plan, Round};
    use crate::mask::Mask;
    use crate::world::World;

    #[test]
    fn a_process_that_a_power_cut_killed_does_not_see_what_is_left_of_its_disks() {
        for index_first in [false, true] {
            let mut rng = Prng::new(1);
            let plan = Plan::new(&mut rng);
            let world = World::new(1, &plan, &Mask::default(), Eye::default(), &mut rng);
            let crash = Crash {
                after_calls: u64::MAX,
                at: None,
                how: Death::PowerCut,
                index_first,
            };
            world.begin_round(
                Round {
                    crash: Some(crash),
                    ..Round::PEACE
                },
                false,
            );
            world.reopen(0).unwrap();
            strike(&mut world.state(), "a call");
            let why = world.reopen(0).map(drop).unwrap_err();
            assert!(why.contains("the process is dead"), "{why}");
            world.end_round();
            assert_eq!(world.boot(), 2, "the machines start again");
            world.reopen(0).unwrap();
        }
    }
}
