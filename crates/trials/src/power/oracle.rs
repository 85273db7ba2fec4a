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

/// What the program says, which is believed only where it admits something.
#[derive(Debug, Default)]
pub struct Admitted {
    /// Paths whose content nobody has. Of them only this is asked: that nothing is lost that is there.
    pub nowhere: BTreeSet<String>,
    /// Paths with conflicts. The version that was written last is at such a path, and it may have come there before
    /// another that was written earlier and moved there: what a user sees goes back, and the other is kept and listed.
    pub contested: BTreeSet<String>,
}

/// Compares. `before` and `after` have one disk for each root.
pub fn judge(
    history: &BTreeMap<String, Vec<Op>>,
    before: &[Disk],
    after: &[Disk],
    admitted: &Admitted,
) -> Vec<Violation> {
    let nowhere = &admitted.nowhere;
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
            is_contested: admitted.contested.contains(path),
        };
        found.extend(case.judge());
    }
    found
}

fn union(disks: &[Disk]) -> BTreeSet<Token> {
    disks.iter().flat_map(|d| d.whole.iter().copied()).collect()
}

/// Whatever was whole somewhere is still whole somewhere.
fn lost(before: &[Disk], after: &[Disk]) -> Vec<Violation> {
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
    /// Whether the program lists a conflict there.
    is_contested: bool,
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
                    (None, _) if !self.is_of_disk(token) => Some("has what nobody wrote there"),
                    (Some(at), Some(floor)) if at < floor => self.judge_older(token, floor),
                    _ => None,
                }
            }
            Some(torn) => self.judge_torn(torn, floor.map_or(0, |f| f + 1)),
        }
    }

    /// Numbers of versions are in the order in which they were written.
    fn judge_older(&self, now: Token, floor: usize) -> Option<&'static str> {
        let there = self.ops[floor].state?;
        let is_decided = self.is_contested && now > there;
        (!is_decided).then_some("went back to an older version")
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
        // A name without bytes that no index tells of: nobody can know that it was brought and then deleted elsewhere.
        let deleted = self
            .durable()
            .is_some_and(|at| self.ops[at].state.is_none());
        let is_husk = deleted && matches!(torn, Seen::Empty | Seen::Zeros);
        (!(broken || is_husk) || !there).then_some("has what no user wrote")
    }

    /// The first operation after everything that is durable.
    fn first_loose(&self) -> usize {
        self.durable().map_or(0, |at| at + 1)
    }

    /// A file that was moved before its bytes were durable may have those that it had before, once the power is back.
    fn is_of_disk(&self, token: Token) -> bool {
        let loose = self.ops.last().is_some_and(|op| op.durable.is_none());
        loose && self.then.contains(&Seen::Whole(token))
    }

    /// The last operation that a power cut could not take, unless a user did so: who saves again in place or moves the
    /// file away, and does not make that durable, has neither version there.
    fn durable(&self) -> Option<usize> {
        let at = self.ops.iter().rposition(|op| op.durable.is_some())?;
        let is_last = at + 1 == self.ops.len();
        let is_there = self.ops[at]
            .state
            .is_none_or(|token| self.then.contains(&Seen::Whole(token)));
        (is_last || is_there).then_some(at)
    }

    /// The first operation that could have left this.
    fn earliest(&self, seen: Seen) -> Option<usize> {
        let Seen::Whole(token) = seen else {
            return None;
        };
        self.ops.iter().position(|op| op.state == Some(token))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const PATH: &str = "u0/d0/n0";

    fn op(state: Option<Token>, durable: bool) -> Op {
        let now = Instant::now();
        Op {
            path: PATH.to_owned(),
            state,
            begun: now,
            durable: durable.then_some(now),
        }
    }

    fn disk(seen: Option<Seen>, kept: &[Token]) -> Disk {
        let mut disk = Disk::default();
        disk.whole.extend(kept);
        if let Some(Seen::Whole(token)) = seen {
            disk.whole.insert(token);
        }
        disk.files.extend(seen.map(|seen| (PATH.to_owned(), seen)));
        disk
    }

    /// What is found when users did this and roots went from one state to the other.
    fn found(ops: &[Op], before: &[Disk], after: Disk, contested: bool) -> Vec<Violation> {
        let history = BTreeMap::from([(PATH.to_owned(), ops.to_vec())]);
        let mut admitted = Admitted::default();
        if contested {
            admitted.contested.insert(PATH.to_owned());
        }
        let after = vec![after; before.len()];
        judge(&history, before, &after, &admitted)
    }

    #[test]
    fn an_older_version_or_nothing_in_place_of_a_durable_one_is_not_seen() {
        let ops = [op(Some(1), true), op(Some(2), true)];
        let whole = |token| Some(Seen::Whole(token));
        let before = [disk(whole(1), &[]), disk(whole(2), &[])];
        assert_eq!(found(&ops, &before, disk(whole(2), &[1]), false).len(), 0);
        assert_eq!(found(&ops, &before, disk(whole(1), &[2]), false).len(), 1);
        assert_eq!(found(&ops, &before, disk(whole(1), &[2]), true).len(), 1);
        assert_eq!(found(&ops, &before, disk(None, &[1, 2]), false).len(), 1);
        // And the other version is lost.
        assert_eq!(found(&ops, &before, disk(whole(1), &[]), false).len(), 2);
    }

    #[test]
    fn what_only_a_conflict_or_a_user_can_have_done_is_excused_for_others() {
        let whole = |token| Some(Seen::Whole(token));
        // The newer save is at the path because the program lists a conflict.
        let moved = [op(Some(2), true), op(None, true), op(Some(1), true)];
        let before = [disk(whole(2), &[]), disk(whole(1), &[])];
        assert_eq!(found(&moved, &before, disk(whole(2), &[1]), true).len(), 0);
        assert_eq!(found(&moved, &before, disk(whole(2), &[1]), false).len(), 1);
        // The user truncated the durable version, and nobody has it.
        let truncated = [op(Some(1), true), op(Some(2), true), op(Some(3), false)];
        let before = [disk(whole(1), &[]), disk(Some(Seen::Empty), &[])];
        assert_eq!(
            found(&truncated, &before, disk(whole(1), &[]), false).len(),
            0
        );
        // A file was brought, deleted where it came from, and a cut took its bytes and every trace of it.
        let deleted = [op(Some(1), true), op(None, true)];
        let empty = || disk(Some(Seen::Empty), &[]);
        assert_eq!(found(&deleted, &[empty()], empty(), false).len(), 0);
        assert_eq!(found(&deleted, &[disk(None, &[])], empty(), false).len(), 1);
        assert_eq!(found(&deleted[..1], &[empty()], empty(), false).len(), 1);
        // The move is on the disk, and what was written into the file before it is not.
        let loose = [op(Some(2), false)];
        let before = [disk(whole(1), &[])];
        assert_eq!(found(&loose, &before, disk(whole(1), &[]), false).len(), 0);
        let before = [disk(None, &[1])];
        assert_eq!(found(&loose, &before, disk(whole(1), &[]), false).len(), 1);
    }
}
