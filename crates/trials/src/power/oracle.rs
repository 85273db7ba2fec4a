//! What may be on the disks after a power cut and a recovery, decided without instep.
//!
//! Three things are compared: what users did, what was on the disks when the power came back, and what is there after
//! the recovery. Invariant: a file system may lose what nobody made durable; whatever it kept, instep may not lose,
//! and nothing that no user wrote may take the place of something that one did.

use std::collections::{BTreeMap, BTreeSet};

use super::content::{Seen, Token};
use super::disk::Disk;
use super::history::{Op, SHARED};

/// What is wrong, in words.
pub type Violation = String;

/// Compares. `before` and `after` have one disk for each root. Of the paths `nowhere` only this is asked: that nothing
/// is lost that is there.
pub fn judge(
    history: &BTreeMap<String, Vec<Op>>,
    before: &[Disk],
    after: &[Disk],
    nowhere: &BTreeSet<String>,
) -> Vec<Violation> {
    let mut found = lost(before, after);
    let Some(last) = after.first() else {
        return found;
    };
    for disk in &after[1..] {
        if disk.files != last.files {
            let mut all = disk.files.keys().chain(last.files.keys());
            let differs = |p: &&String| disk.files.get(*p) != last.files.get(*p);
            if let Some(path) = all.find(|p| differs(p) && !nowhere.contains(*p)) {
                found.push(format!("roots differ, first at {path}"));
            }
        }
    }
    for (path, seen) in &last.files {
        if !history.contains_key(path) {
            found.push(format!("{path}: nobody made that name ({seen:?})"));
        }
    }
    for (path, ops) in history.iter().filter(|(path, _)| !nowhere.contains(*path)) {
        let then = before.iter().filter_map(|d| d.files.get(path)).copied();
        let then: Vec<Seen> = then.collect();
        let case = Case {
            path,
            ops,
            then: &then,
            now: last.files.get(path).copied(),
        };
        found.extend(case.judge());
    }
    found
}

/// Whatever was whole somewhere is still whole somewhere.
fn lost(before: &[Disk], after: &[Disk]) -> Vec<Violation> {
    let union = |disks: &[Disk]| -> BTreeSet<Token> {
        disks.iter().flat_map(|d| d.whole.iter().copied()).collect()
    };
    let (then, now) = (union(before), union(after));
    let lost = then.difference(&now);
    lost.map(|token| format!("version {token} was on a disk before the recovery, and is gone"))
        .collect()
}

/// One path.
struct Case<'a> {
    path: &'a str,
    ops: &'a [Op],
    /// What the roots that had it, had before the recovery.
    then: &'a [Seen],
    /// What all have now.
    now: Option<Seen>,
}

impl Case<'_> {
    fn judge(&self) -> Option<Violation> {
        let told = if self.path.starts_with(SHARED) {
            self.judge_shared()
        } else {
            self.judge_own()
        }?;
        let ops: Vec<_> = self.ops.iter().rev().take(4).rev().collect();
        let (then, now) = (self.then, self.now);
        Some(format!(
            "{}: {told}; before {then:?}, now {now:?}, last of {} operations {ops:?}",
            self.path,
            self.ops.len()
        ))
    }

    /// What many users write: a version that one of them wrote there, or one that broke in a user's hands.
    fn judge_shared(&self) -> Option<&'static str> {
        match self.now {
            None => None,
            Some(Seen::Whole(token)) => {
                let written = self.ops.iter().any(|op| op.state == Some(token));
                (!written).then_some("has what nobody wrote there")
            }
            Some(torn) => self.judge_torn(torn, self.first_loose()),
        }
    }

    /// What one user writes: its versions have an order, and nothing goes back in it.
    fn judge_own(&self) -> Option<&'static str> {
        let floor = self.then.iter().filter_map(|seen| self.earliest(*seen));
        let floor = floor.chain(self.durable()).max();
        match self.now {
            None => {
                let floor = floor?;
                let gone = self.ops.iter().skip(floor).any(|op| op.state.is_none());
                (!gone).then_some("is gone, and nobody deleted it")
            }
            Some(Seen::Whole(token)) => {
                let at = self.ops.iter().rposition(|op| op.state == Some(token));
                match (at, floor) {
                    (None, _) => Some("has what nobody wrote there"),
                    (Some(at), Some(floor)) if at < floor && self.ops[floor].state.is_some() => {
                        Some("went back to an older version")
                    }
                    _ => None,
                }
            }
            Some(torn) => self.judge_torn(torn, floor.map_or(0, |f| f + 1)),
        }
    }

    /// Something that is not whole may be there only because a user had written it and not made it durable, later than
    /// everything that is whole or durable.
    fn judge_torn(&self, torn: Seen, from: usize) -> Option<&'static str> {
        let mut later = self.ops.iter().skip(from);
        let broken = later.any(|op| op.state.is_some() && op.durable.is_none());
        let good = self.then.iter().any(|s| matches!(s, Seen::Whole(_)));
        if good && matches!(torn, Seen::Empty | Seen::Zeros) {
            return Some("nothing took the place of a version");
        }
        let there = self.then.contains(&torn);
        (!broken || !there).then_some("has what no user wrote")
    }

    /// The first operation after everything that is durable.
    fn first_loose(&self) -> usize {
        self.durable().map_or(0, |at| at + 1)
    }

    /// The last operation that a power cut could not take.
    fn durable(&self) -> Option<usize> {
        self.ops.iter().rposition(|op| op.durable.is_some())
    }

    /// The first operation that could have left this.
    fn earliest(&self, seen: Seen) -> Option<usize> {
        let Seen::Whole(token) = seen else {
            return None;
        };
        self.ops.iter().position(|op| op.state == Some(token))
    }
}
