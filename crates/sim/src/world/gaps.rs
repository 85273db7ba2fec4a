//! The instant in which a file system that cannot keep a taken name from being given again may lose a file.
//!
//! Owns which files users made in it. Without `RENAME_NOREPLACE` and hard links the engine asks whether a name
//! is free and then takes it; what is saved there in between is overwritten (semantics, F46: the documented
//! window of "weaker replace").
//! Invariant: only what was really overwritten in that instant is excused.

use instep_core::path::RelPath;
use instep_fs::sim::SimFs;

use crate::ledger::{Ledger, Seen};

/// The call that takes a name whatever it refers to.
const TAKES: &str = "rename_over";

/// What was made where the engine had just been told that a name is free, and what its call may do to it.
#[derive(Debug, Default)]
pub(super) struct Gap(Vec<(usize, RelPath, Vec<u8>)>);

impl Gap {
    /// Whether the call that is about to be made on a disk leaves users no way to be noticed.
    pub(super) fn is_open(fs: &SimFs, op: &str) -> bool {
        let mut open = op == TAKES;
        fs.configure(|c| open &= !c.noreplace && !c.hard_links);
        open
    }

    /// A user acted in the gap.
    pub(super) fn acted(&mut self, machine: usize, before: &Seen, after: Seen) {
        let made = after.into_iter().filter(|(p, _)| !before.contains_key(p));
        self.0
            .extend(made.map(|(path, content)| (machine, path, content)));
    }

    /// The call was made: whatever it overwrote is nobody's fault.
    pub(super) fn close(&mut self, disks: &[SimFs], ledger: &mut Ledger) {
        for (machine, path, content) in self.0.drain(..) {
            let fs = &disks[machine];
            // A link that took the name has no content, and has overwritten the file all the same.
            let is_taken = fs.exists(path.as_bytes());
            if is_taken && fs.read(path.as_bytes()).ok().as_ref() != Some(&content) {
                ledger.gives_up(&content);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

    use std::collections::BTreeSet;

    use super::*;
    use crate::ledger::seen;
    use instep_core::path::Name;
    use instep_fs::sim::{Save, SimConfig};

    #[test]
    fn what_is_lost_outside_the_window_is_excused() {
        let fs = SimFs::new(SimConfig::poor(1));
        assert!(Gap::is_open(&fs, "rename_over") && !Gap::is_open(&fs, "stat"));
        assert!(!Gap::is_open(
            &SimFs::new(SimConfig::ext4(1)),
            "rename_over"
        ));
        let (mut gap, mut ledger) = (Gap::default(), Ledger::default());
        let before = seen(&fs);
        fs.write_file("staged", b"ours", Save::InPlace).unwrap();
        fs.symlink("b", "link").unwrap();
        for path in ["a", "b", "c"] {
            fs.write_file(path, path, Save::InPlace).unwrap();
            ledger.wrote(path.as_bytes(), path.as_bytes());
        }
        gap.acted(0, &before, seen(&fs));
        let root = fs.root();
        for (from, to) in [("staged", "a"), ("link", "c")] {
            let [from, to] = [from, to].map(|n| Name::new(n.as_bytes()).unwrap());
            root.rename_over(from, &root, to).unwrap();
        }
        gap.close(std::slice::from_ref(&fs), &mut ledger);
        fs.remove("b").unwrap();
        gap.close(std::slice::from_ref(&fs), &mut ledger);
        let lost = ledger.lost(&BTreeSet::new());
        assert!(
            matches!(lost.as_slice(), [one] if one.ends_with("written to b")),
            "{lost:?}"
        );
    }
}
