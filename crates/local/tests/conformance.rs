//! A directory on this machine keeps every promise of the contract: on the file system of temporary files,
//! on tmpfs, and on simulated file systems, good and poor.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

mod support;

use std::path::Path;
use std::sync::atomic::Ordering;

use instep_core::path::RelPath;
use instep_fs::sim::SimConfig;
use instep_local::IgnoreOptions;
use instep_replica::Replica;
use instep_replica::conformance::{Fault, Report, Subject, User, promises, run_all};

use support::real::Real;
use support::sim::Sim;

/// The rule that excludes one path and everything below it.
fn excluding(path: &RelPath, on: bool) -> IgnoreOptions {
    let master = if on {
        vec![format!("/{path}")]
    } else {
        Vec::new()
    };
    IgnoreOptions {
        master,
        ..IgnoreOptions::default()
    }
}

impl Subject for Real {
    fn replica(&self) -> &dyn Replica {
        Self::replica(self)
    }

    fn user(&self) -> &dyn User {
        &self.user
    }

    fn pass_ms(&self, ms: u64) {
        self.env.pass_ms(ms);
    }

    fn inject(&self, fault: &Fault, on: bool) -> bool {
        let aside = self.scratch.path().join("aside");
        match fault {
            Fault::Gone if on => std::fs::rename(&self.root, aside).unwrap(),
            Fault::Gone => std::fs::rename(aside, &self.root).unwrap(),
            Fault::Ignored(path) => Self::replica(self).set_ignore(&excluding(path, on)),
            // These need another user than the superuser, or a mount of our own.
            Fault::Unreadable(_) | Fault::ReadOnly | Fault::Full | Fault::HintsLost => {
                return false;
            }
        }
        true
    }

    fn reopen(&mut self) -> bool {
        Self::replica(self).close().unwrap();
        self.replica = None;
        self.open();
        true
    }
}

impl Subject for Sim {
    fn replica(&self) -> &dyn Replica {
        Self::replica(self)
    }

    fn user(&self) -> &dyn User {
        self
    }

    fn pass_ms(&self, ms: u64) {
        self.fs().advance(ms.cast_signed() * 1_000_000);
    }

    fn inject(&self, fault: &Fault, on: bool) -> bool {
        match fault {
            Fault::Gone => self.gone.store(on, Ordering::SeqCst),
            Fault::Ignored(path) => Self::replica(self).set_ignore(&excluding(path, on)),
            Fault::Unreadable(path) => self.fs().deny(path.as_bytes(), on).unwrap(),
            Fault::ReadOnly => self.fs().configure(|c| c.read_only = on),
            Fault::Full => self
                .fs()
                .configure(|c| c.capacity_bytes = if on { 1 << 16 } else { 1 << 40 }),
            Fault::HintsLost => return false,
        }
        true
    }

    fn reopen(&mut self) -> bool {
        self.kill();
        true
    }
}

/// Nothing is broken, and exactly this could not be checked.
fn assert_kept(report: &Report, inapplicable: &[&str]) {
    assert!(report.broken.is_empty(), "{report}");
    let skipped: Vec<_> = report
        .inapplicable
        .iter()
        .map(|(symptom, _)| *symptom)
        .collect();
    assert_eq!(skipped, inapplicable, "{report}");
    assert_eq!(report.kept.len() + skipped.len(), promises().count());
}

fn on_a_real_directory(parent: &Path) {
    let report = run_all(&|| Box::new(Real::below(parent)));
    let unarranged = [
        "an_unreadable_directory_counts_as_emptied",
        "a_read_only_replica_is_changed",
        "a_full_disk_loses_a_file",
        "lost_hints_are_not_mentioned",
    ];
    assert_kept(&report, &unarranged);
}

const HINTS: [&str; 4] = [
    "a_user_edit_gives_no_hint",
    "a_new_directory_hides_what_is_written_into_it",
    "hints_come_twice",
    "lost_hints_are_not_mentioned",
];

#[test]
fn a_directory_keeps_every_promise() {
    on_a_real_directory(&std::env::temp_dir());
}

#[test]
fn a_directory_in_memory_keeps_every_promise() {
    on_a_real_directory(Path::new("/dev/shm"));
}

#[test]
fn a_simulated_directory_keeps_every_promise() {
    for config in [SimConfig::ext4(1), SimConfig::xfs(2), SimConfig::btrfs(3)] {
        assert_kept(&run_all(&|| Box::new(Sim::new(config.clone()))), &HINTS);
    }
}

/// No leases, no exchange, no renames that spare what is there, no unnamed files, with hard links and without.
#[test]
fn a_poor_simulated_directory_keeps_every_promise() {
    for hard_links in [true, false] {
        let config = SimConfig {
            hard_links,
            modes: true,
            case_sensitive: true,
            mtime_granularity_ns: 1,
            tick_ns: 0,
            multigrain: true,
            ..SimConfig::poor(4)
        };
        assert_kept(&run_all(&|| Box::new(Sim::new(config.clone()))), &HINTS);
    }
}
