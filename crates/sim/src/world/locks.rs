//! Locks that programs left beside their documents: for ten minutes nobody may expect such a document to travel.
//!
//! Owns which of them still count, and lets the time pass that they may take (semantics, §3.10). Invariant: no lock
//! is removed, and nothing is excused: once the time is over, the document must be in step like any other.

use instep_core::path::RelPath;
use instep_fs::Kind;
use instep_fs::sim::SimFs;

use super::{State, World};
use crate::ledger::is_ours;

/// How long a lock may hold its document.
const LOCK_NS: u64 = 600_000_000_000;

impl World {
    /// Lets the time pass that locks may take, if there is one that counts. Returns whether there was.
    pub(super) fn outlive_locks(&self, state: &State) -> bool {
        let all = state.disks.iter().enumerate();
        let mut held = all.filter(|(i, fs)| is_held(fs, self.wall_ns(*i)));
        let holds = held.next().is_some();
        if holds {
            self.pass(LOCK_NS);
            self.set_clocks(state);
        }
        holds
    }

    /// Before everybody must be in step: no lock that was left behind counts any more.
    pub(crate) fn let_locks_expire(&self) {
        let state = self.state();
        // One from a clock that is ahead may count for twice as long.
        while self.outlive_locks(&state) {}
    }
}

/// Whether a lock that counts stands beside a document, or where one may come.
fn is_held(fs: &SimFs, now_ns: i64) -> bool {
    let counts = |(path, node): (RelPath, instep_fs::sim::NodeView)| {
        let made_ns = node.mtime.nanos_since_epoch().unwrap_or(0);
        let is_lock = is_lock(&path) && !is_ours(&path) && node.kind == Kind::File;
        is_lock && now_ns.abs_diff(made_ns) < LOCK_NS
    };
    fs.snapshot().into_iter().any(counts)
}

fn is_lock(path: &RelPath) -> bool {
    let name = path.split().map(|(_, name)| name.as_bytes());
    name.is_some_and(|n| n.starts_with(b".~lock.") && n.ends_with(b"#"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

    use instep_fs::sim::{Save, SimConfig};

    use super::*;

    #[test]
    fn a_lock_is_waited_for_longer_than_it_counts() {
        let fs = SimFs::new(SimConfig::ext4(1));
        let start_ns = super::super::START_NS;
        fs.set_now(start_ns);
        fs.write_file(".~lock.a", b"no lock", Save::InPlace)
            .unwrap();
        fs.mkdir_all(".~lock.d#").unwrap();
        assert!(!is_held(&fs, start_ns));
        fs.write_file(".~lock.a#", b"a lock", Save::InPlace)
            .unwrap();
        let ten_minutes_ns = LOCK_NS as i64;
        for (after_ns, held) in [
            (0, true),
            (ten_minutes_ns - 1, true),
            (ten_minutes_ns, false),
            (-ten_minutes_ns, false),
        ] {
            assert_eq!(is_held(&fs, start_ns + after_ns), held, "{after_ns}");
        }
    }
}
