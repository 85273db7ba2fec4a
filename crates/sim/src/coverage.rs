//! Which cells of the decision tables a seed hits: how two entries relate (A), what is there against what comes
//! (B), concurrent versions under each policy (C), directories that are alive (D), what is in the way (E).
//!
//! Owns counters and nothing else. Looks at indexes and disks as they are before an action and after a session,
//! never at what the engine thought. Cells that cannot be hit here are in [`EXCUSED`], each with its reason.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;

use instep_core::entry::{Entry, Relation};
use instep_core::path::RelPath;
use instep_core::plan::{Action, Code, Goal, Outcome};
use instep_core::policy::{ConflictPolicy, Policies};
use instep_core::row::{Held, Row};
use instep_core::version::{Kind, Version};
use instep_fs::Kind as FsKind;
use instep_fs::sim::SimFs;
use instep_replica::records::ShareRecord;
use instep_replica::{Book, Replica};

use crate::steps::is_ignored;

/// Cells that no seed can hit, and why.
pub const EXCUSED: [(&str, &str); 2] = [
    (
        "A equal contexts, other content",
        "honest replicas never mint one dot twice; `merge_algebra.rs` of core forges it",
    ),
    ("E deletable", "patterns marked `deletable` do not exist"),
];

const LOCAL: [&str; 7] = [
    "absent",
    "File",
    "Dir",
    "Link",
    "Tomb",
    "special",
    "not in index",
];
const REMOTE: [&str; 4] = ["File", "Dir", "Link", "Tomb"];
const POLICIES: [&str; 4] = ["newest", "keep-both", "prefer", "manual"];
const SIBLINGS: [&str; 13] = [
    "File/File same",
    "File/File",
    "File/Tomb",
    "Link/Link",
    "Link/Tomb",
    "File/Link",
    "Dir/Dir",
    "Dir/Tomb",
    "File/Dir",
    "Link/Dir",
    "Tomb/Tomb",
    "three or more",
    "on a conflict copy",
];

/// Cells and how often each was hit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cells(BTreeMap<String, u64>);

impl Default for Cells {
    fn default() -> Self {
        let mut names: Vec<String> = ["equal", "ancestor", "descendant", "concurrent"]
            .map(|r| format!("A {r}"))
            .to_vec();
        let b = LOCAL
            .iter()
            .flat_map(|l| REMOTE.iter().map(move |r| format!("B {l} <- {r}")));
        names.extend(b);
        let c = SIBLINGS
            .iter()
            .flat_map(|s| POLICIES.iter().map(move |p| format!("C {s}, {p}")));
        names.extend(c);
        let rest = [
            "D nothing alive",
            "D unknown file on disk",
            "D descendant concurrent",
            "D descendant edited",
            "D only ignored files",
            "E deleted with ignored files",
            "E renamed with ignored files",
            "E becomes ignored",
            "E held",
        ];
        names.extend(rest.map(str::to_owned));
        Self(names.into_iter().map(|name| (name, 0)).collect())
    }
}

impl Cells {
    fn hit(&mut self, cell: String) {
        *self.0.entry(cell).or_default() += 1;
    }

    /// Adds those of another seed.
    pub fn add(&mut self, other: &Self) {
        for (cell, n) in &other.0 {
            *self.0.entry(cell.clone()).or_default() += n;
        }
    }

    /// Cells that were never hit.
    pub fn unreached(&self) -> Vec<&str> {
        let never = self.0.iter().filter(|(_, n)| **n == 0);
        never.map(|(cell, _)| cell.as_str()).collect()
    }

    /// Before and after an action on one machine: what was there, what came, and what became of it.
    pub(crate) fn action(&mut self, scene: &Scene, action: &Action, outcome: &Outcome) {
        let remote = match &action.goal {
            Goal::File { .. } => "File",
            Goal::Dir { .. } => "Dir",
            Goal::Link { .. } => "Link",
            Goal::Absent => "Tomb",
            Goal::Metadata { .. } | Goal::Record => {
                let shown = action.entry.get_shown(action.shown);
                let Some(shown) = shown else { return };
                kind_name(shown.kind)
            }
            Goal::Rename { .. } => return,
        };
        if scene
            .known
            .siblings()
            .iter()
            .all(|(d, _)| action.entry.get(*d).is_none())
        {
            self.hit(format!("B {} <- {remote}", scene.local));
        }
        if action.goal == Goal::Absent && scene.local == "Dir" {
            if *outcome == Outcome::Done && scene.below.is_empty() {
                self.hit("D nothing alive".into());
            }
            if scene.below.iter().any(is_ignored) && is_husk(outcome) {
                self.hit("D only ignored files".into());
                self.hit("E deleted with ignored files".into());
            } else if *outcome != Outcome::Done && !scene.below.is_empty() {
                self.hit("D unknown file on disk".into());
            }
        }
    }

    /// A directory is about to be renamed on a machine.
    pub(crate) fn rename(&mut self, fs: &SimFs, from: &RelPath) {
        if below(fs, from).iter().any(is_ignored) {
            self.hit("E renamed with ignored files".into());
        }
    }

    /// What all replicas of a session know at its end, and what their disks show.
    pub(crate) fn survey(&mut self, all: &[(SimFs, Survey)]) {
        for (at, (fs, one)) in all.iter().enumerate() {
            one.rows
                .iter()
                .for_each(|(path, row)| self.row(path, row, one));
            let others = all.iter().enumerate().filter(|(i, _)| *i != at);
            for (_, (_, other)) in others {
                self.pair(fs, one, other);
            }
        }
    }

    fn pair(&mut self, fs: &SimFs, one: &Survey, other: &Survey) {
        for (path, theirs) in &other.rows {
            let none = Row::default();
            let ours = one.rows.get(path).unwrap_or(&none);
            self.hit(match ours.entry.relation(&theirs.entry) {
                Relation::Equal => "A equal".into(),
                Relation::Before => "A descendant".into(),
                Relation::After => "A ancestor".into(),
                Relation::Concurrent => "A concurrent".into(),
            });
            let is_special = || {
                fs.stat(path.as_bytes())
                    .is_ok_and(|s| s.kind == FsKind::Special)
            };
            if let Some(shown) = theirs.on_disk().filter(|_| is_special()) {
                self.hit(format!("B special <- {}", kind_name(shown.kind)));
            }
        }
    }

    fn row(&mut self, path: &RelPath, row: &Row, all: &Survey) {
        let siblings = row.entry.siblings();
        let has = |kind: Kind| siblings.iter().any(|(_, v)| v.kind == kind);
        if siblings.len() > 1 {
            let policy = policy_name(&row.entry, &all.policies);
            for what in kinds_of(path, siblings) {
                self.hit(format!("C {what}, {policy}"));
            }
        }
        if row.is_derived_dir() && has(Kind::Tomb) {
            self.hit("D descendant concurrent".into());
        }
        let gone = |dir: &RelPath| all.rows.get(dir).is_some_and(Row::is_derived_dir);
        if has(Kind::File) && has(Kind::Tomb) && path.parent().is_some_and(|dir| gone(&dir)) {
            self.hit("D descendant edited".into());
        }
        match row.held {
            Some(Held::Ignored) if !siblings.is_empty() => self.hit("E becomes ignored".into()),
            Some(Held::Ignored) | None => {}
            Some(_) => self.hit("E held".into()),
        }
    }
}

impl fmt::Display for Cells {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|(cell, n)| writeln!(f, "{n:>9} {cell}"))?;
        EXCUSED
            .iter()
            .try_for_each(|(cell, why)| writeln!(f, "        - {cell}: {why}"))
    }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "File",
        Kind::Dir => "Dir",
        Kind::Link => "Link",
        Kind::Tomb => "Tomb",
    }
}

fn policy_name(entry: &Entry, policies: &Policies) -> &'static str {
    let epochs = entry.siblings().iter().map(|(_, v)| v.policy_epoch);
    match policies.at(epochs.max().unwrap_or(0)) {
        ConflictPolicy::Newest => "newest",
        ConflictPolicy::KeepBoth => "keep-both",
        ConflictPolicy::Prefer(_) => "prefer",
        ConflictPolicy::Manual => "manual",
    }
}

/// The rows of table C that a set of siblings is in.
fn kinds_of<D>(path: &RelPath, siblings: &[(D, Version)]) -> Vec<&'static str> {
    let mut out = Vec::new();
    if siblings.len() > 2 {
        out.push("three or more");
    }
    if path.to_string().contains(".conflict-") {
        out.push("on a conflict copy");
    }
    for (i, (_, a)) in siblings.iter().enumerate() {
        for (_, b) in &siblings[i + 1..] {
            let (low, high) = if a.kind <= b.kind { (a, b) } else { (b, a) };
            out.extend(match (low.kind, high.kind) {
                (Kind::File, Kind::File) if low.content == high.content => Some("File/File same"),
                (Kind::File, Kind::File) => Some("File/File"),
                (Kind::File, Kind::Dir) => Some("File/Dir"),
                (Kind::File, Kind::Link) => Some("File/Link"),
                (Kind::File, Kind::Tomb) => Some("File/Tomb"),
                (Kind::Dir, Kind::Dir) => Some("Dir/Dir"),
                (Kind::Dir, Kind::Link) => Some("Link/Dir"),
                (Kind::Dir, Kind::Tomb) => Some("Dir/Tomb"),
                (Kind::Link, Kind::Link) => (low.content != high.content).then_some("Link/Link"),
                (Kind::Link, Kind::Tomb) => Some("Link/Tomb"),
                (Kind::Tomb, Kind::Tomb) => Some("Tomb/Tomb"),
                _ => None,
            });
        }
    }
    out
}

fn is_husk(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Blocked(problem) if problem.code == Code::Husk)
}

fn below(fs: &SimFs, dir: &RelPath) -> Vec<RelPath> {
    let all = fs.snapshot().into_keys();
    all.filter(|p| p.is_within(dir) && p != dir).collect()
}

/// What one replica knows.
#[derive(Debug)]
pub(crate) struct Survey {
    rows: BTreeMap<RelPath, Row>,
    policies: Policies,
}

impl Survey {
    pub(crate) fn of(replica: &dyn Replica) -> Self {
        let share = replica.read_record(Book::Share, "share").ok().flatten();
        let share = share.and_then(|text| serde_json::from_str::<ShareRecord>(&text).ok());
        let mut rows = BTreeMap::new();
        let read = replica.subtree(&RelPath::root(), &mut |path, row| {
            rows.insert(path, row);
            ControlFlow::Continue(())
        });
        // What a dead process did not get to say is not counted.
        Self {
            rows: read.map(|()| rows).unwrap_or_default(),
            policies: share.unwrap_or_default().policies(),
        }
    }
}

/// What is at a path before an action.
#[derive(Debug)]
pub(crate) struct Scene {
    known: Entry,
    local: &'static str,
    below: Vec<RelPath>,
}

impl Scene {
    pub(crate) fn of(replica: &dyn Replica, fs: &SimFs, path: &RelPath) -> Self {
        let row = replica.row(path).ok().flatten().unwrap_or_default();
        let there = fs.stat(path.as_bytes()).ok().map(|s| s.kind);
        let local = match there {
            Some(FsKind::Special) => "special",
            Some(_) if row.print.is_none() => "not in index",
            Some(FsKind::File) => "File",
            Some(FsKind::Dir) => "Dir",
            Some(FsKind::Link) => "Link",
            None if row.entry.is_empty() => "absent",
            None => "Tomb",
        };
        Self {
            known: row.entry,
            local,
            below: below(fs, path),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

    use super::*;

    #[test]
    fn a_cell_that_was_never_hit_is_not_named() {
        let mut cells = Cells::default();
        assert_eq!(cells.unreached().len(), 4 + 28 + 52 + 9);
        cells.hit("A equal".into());
        let mut sum = Cells::default();
        sum.add(&cells);
        sum.add(&cells);
        assert_eq!(sum.unreached().len(), 92);
        assert!(sum.to_string().contains("        2 A equal\n"));
    }
}
