//! A hub's copy keeps every promise of the contract that does not need users who edit it.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

mod support;

use std::sync::atomic::Ordering;

use instep_fs::sim::SimConfig;
use instep_replica::Replica;
use instep_replica::conformance::{Elsewhere, Fault, Report, Subject, User, promises, run_all};
use instep_replica::env::Env as _;

use support::real::Real;
use support::sim::Sim;

struct OnDisk {
    real: Real,
    user: Option<Elsewhere>,
    life: u64,
}

impl OnDisk {
    fn new() -> Self {
        let real = Real::new();
        let user = Some(Elsewhere::new(real.hub().clone(), 0));
        Self {
            real,
            user,
            life: 0,
        }
    }
}

impl Subject for OnDisk {
    fn replica(&self) -> &dyn Replica {
        self.real.hub().as_ref()
    }

    fn user(&self) -> &dyn User {
        self.user.as_ref().unwrap()
    }

    fn pass_ms(&self, ms: u64) {
        self.real.env.sleep_ms(ms);
    }

    fn inject(&self, fault: &Fault, on: bool) -> bool {
        let (home, aside) = (self.real.home(), self.real.scratch.path().join("aside"));
        match fault {
            Fault::Gone if on => std::fs::rename(home, aside).unwrap(),
            Fault::Gone => std::fs::rename(aside, home).unwrap(),
            _ => return false,
        }
        true
    }

    fn reopen(&mut self) -> bool {
        self.real.hub().close().unwrap();
        self.user = None;
        self.real.open();
        self.life += 1;
        self.user = Some(Elsewhere::new(self.real.hub().clone(), self.life));
        true
    }
}

struct Simulated {
    sim: Sim,
    user: Option<Elsewhere>,
    life: u64,
}

impl Simulated {
    fn new(config: SimConfig) -> Self {
        let sim = Sim::new(config);
        let user = Some(Elsewhere::new(sim.hub().clone(), 0));
        Self { sim, user, life: 0 }
    }
}

impl Subject for Simulated {
    fn replica(&self) -> &dyn Replica {
        self.sim.hub().as_ref()
    }

    fn user(&self) -> &dyn User {
        self.user.as_ref().unwrap()
    }

    fn pass_ms(&self, ms: u64) {
        self.sim.env.sleep_ms(ms);
    }

    fn inject(&self, fault: &Fault, on: bool) -> bool {
        let fs = self.sim.fs();
        match fault {
            Fault::Gone => self.sim.gone.store(on, Ordering::SeqCst),
            Fault::ReadOnly => fs.configure(|c| c.read_only = on),
            Fault::Full => fs.configure(|c| c.capacity_bytes = if on { 1 << 16 } else { 1 << 40 }),
            Fault::Unreadable(_) | Fault::Ignored(_) | Fault::HintsLost => return false,
        }
        true
    }

    fn reopen(&mut self) -> bool {
        self.user = None;
        self.sim.kill();
        self.life += 1;
        self.user = Some(Elsewhere::new(self.sim.hub().clone(), self.life));
        true
    }
}

/// Nothing is broken, and of what needs no users who edit exactly this could not be checked.
fn assert_kept(report: &Report, unarranged: &[&str]) {
    assert!(report.broken.is_empty(), "{report}");
    let is_of_users = |why: &str| why.ends_with("Edited");
    let skipped: Vec<_> = report
        .inapplicable
        .iter()
        .filter(|(_, why)| !is_of_users(why))
        .map(|(symptom, _)| *symptom)
        .collect();
    assert_eq!(skipped, unarranged, "{report}");
    assert!(report.kept.len() * 2 > promises().count(), "{report}");
}

#[test]
fn a_hub_keeps_every_promise() {
    let unarranged = [
        "a_directory_goes_with_ignored_files",
        "ignored_files_stay_behind_in_a_move",
        "a_read_only_replica_is_changed",
        "a_full_disk_loses_a_file",
        "an_ignored_file_counts_as_deleted",
        "lost_hints_are_not_mentioned",
    ];
    assert_kept(&run_all(&|| Box::new(OnDisk::new())), &unarranged);
}

#[test]
fn a_simulated_hub_keeps_every_promise() {
    let unarranged = [
        "a_directory_goes_with_ignored_files",
        "ignored_files_stay_behind_in_a_move",
        "an_ignored_file_counts_as_deleted",
        "lost_hints_are_not_mentioned",
    ];
    for config in [SimConfig::ext4(1), SimConfig::xfs(2), SimConfig::poor(3)] {
        let report = run_all(&|| Box::new(Simulated::new(config.clone())));
        assert_kept(&report, &unarranged);
    }
}
