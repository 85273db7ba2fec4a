//! The reference implementation keeps every promise of the contract.

use std::sync::Arc;

use instep_core::id::ShareId;
use instep_core::policy::Role;
use instep_replica::Replica;
use instep_replica::conformance::{Fault, Subject, User, promises, run_all};
use instep_replica::env::{Env, StepEnv};
use instep_replica::memory::MemoryReplica;

struct InMemory {
    replica: MemoryReplica,
    env: Arc<StepEnv>,
}

impl InMemory {
    fn new() -> Self {
        let env = Arc::new(StepEnv::default());
        Self {
            replica: MemoryReplica::new("A", ShareId([1; 16]), env.clone()),
            env,
        }
    }
}

impl Subject for InMemory {
    fn replica(&self) -> &dyn Replica {
        &self.replica
    }

    fn user(&self) -> &dyn User {
        &self.replica
    }

    fn pass_ms(&self, ms: u64) {
        self.env.sleep_ms(ms);
    }

    fn inject(&self, fault: &Fault, on: bool) -> bool {
        match fault {
            Fault::Gone => self.replica.set_gone(on),
            Fault::Unreadable(path) => self.replica.set_unreadable(path, on),
            Fault::ReadOnly => self.replica.set_read_only(on),
            Fault::Full => self.replica.set_room(on.then_some(0)),
            Fault::HintsLost => self.replica.lose_hints(),
            Fault::Ignored(path) => self.replica.set_ignored(path, on),
        }
        true
    }

    fn reopen(&mut self) -> bool {
        false
    }
}

#[test]
fn every_promise_is_kept() {
    let report = run_all(&|| Box::new(InMemory::new()));
    assert!(report.broken.is_empty(), "{report}");
    let skipped: Vec<_> = report
        .inapplicable
        .iter()
        .map(|(symptom, _)| *symptom)
        .collect();
    let restarts = [
        "a_dot_is_used_twice_after_a_restart",
        "a_restart_forgets_what_was_recorded",
    ];
    assert_eq!(
        skipped, restarts,
        "memory does not outlive a process, and that is all: {report}"
    );
    assert_eq!(report.kept.len() + skipped.len(), promises().count());
}

#[test]
fn a_source_takes_no_changes() {
    let env = Arc::new(StepEnv::default());
    let source = MemoryReplica::new("A", ShareId([1; 16]), env).with_role(Role::Source);
    let error = source.apply(&[], &instep_replica::content::NoSources);
    assert_eq!(error.expect("no action, no error"), []);
    assert!(!source.capabilities().writable);
}
