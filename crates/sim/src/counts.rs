//! What really happened in a seed, counted: acts of users, calls of the engine, sessions, and faults as they
//! struck. Decides nothing.

use std::collections::BTreeMap;
use std::fmt;

use instep_fs::sim::SimFs;
use instep_replica::Step;

/// What happened in one seed, or in many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Operations of users.
    pub acts: u64,
    /// Of these, how many changed a tree.
    pub effects: u64,
    /// System calls of the engine.
    pub calls: u64,
    /// Sessions.
    pub sessions: u64,
    /// Faults that struck, by what they were.
    pub faults: BTreeMap<&'static str, u64>,
    /// Persistent steps that were reached, and how many processes died right there.
    pub steps: BTreeMap<Step, (u64, u64)>,
}

impl Counts {
    /// A fault struck.
    pub(crate) fn strike(&mut self, what: &'static str) {
        *self.faults.entry(what).or_default() += 1;
    }

    /// All faults that struck, without lost events: a single script can lose dozens.
    pub fn struck(&self) -> u64 {
        let all = self.faults.iter().filter(|(what, _)| **what != "event");
        all.map(|(_, n)| n).sum()
    }

    /// Adds those of another seed.
    pub fn add(&mut self, other: &Self) {
        self.acts += other.acts;
        self.effects += other.effects;
        self.calls += other.calls;
        self.sessions += other.sessions;
        for (what, n) in &other.faults {
            *self.faults.entry(what).or_default() += n;
        }
        for (step, (reached, died)) in &other.steps {
            let (all, dead) = self.steps.entry(*step).or_default();
            *all += reached;
            *dead += died;
        }
    }

    /// Takes over what a machine counted, before it goes or when all is over.
    pub(crate) fn collect(&mut self, fs: &SimFs) {
        let met = fs.misfortunes();
        self.calls += fs.total_calls();
        for (what, n) in [
            ("error", met.errors),
            ("event", met.lost),
            ("overflow", met.overflows),
        ] {
            if n > 0 {
                *self.faults.entry(what).or_default() += n;
            }
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            acts,
            effects,
            calls,
            sessions,
            faults,
            steps,
        } = self;
        write!(
            f,
            "{acts} acts of users ({effects} with effect), {calls} calls, {sessions} sessions, faults"
        )?;
        faults
            .iter()
            .try_for_each(|(what, n)| write!(f, " {what} {n}"))?;
        let died: u64 = steps.values().map(|(_, died)| died).sum();
        write!(f, ", {} steps reached, {died} deaths at them", steps.len())
    }
}
