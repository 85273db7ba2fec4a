//! What the far end has, as far as it differs from what the replica here has.
//!
//! Where both are in step nothing is kept: what the far end has is what we have. Owns the differences that it told, and
//! the paths that changed here and were not heard of since. Invariant: what is said to be the far end's row was told by
//! it, or is equal to ours by the digests that both compared; where neither is so, nothing is said. Nothing here
//! outlives a connection.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use instep_core::path::RelPath;
use instep_core::policy::Role;
use instep_core::row::Row;
use instep_replica::{Replica, Result, RowVisitor};

use crate::told::{self, told};

/// A path in the order in which rows are listed: by the bytes of its directory, then by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Listed(RelPath);

impl Ord for Listed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.split_bytes().cmp(&other.0.split_bytes())
    }
}

impl PartialOrd for Listed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// What is known of the far end's row where it is not ours.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Far {
    /// It told this; nothing, where it has no row.
    Told {
        /// What it told.
        row: Option<Row>,
        /// It is to become what we have, or we what it has: nothing keeps the path from being synchronized.
        pending: bool,
    },
    /// Ours changed; what the far end has now it has not said.
    Unheard,
}

impl Far {
    fn row(&self) -> Option<&Row> {
        match self {
            Self::Told { row, .. } => row.as_ref(),
            Self::Unheard => None,
        }
    }
}

/// The rows of the far end.
pub struct Mirror {
    ours: Arc<dyn Replica>,
    role: Role,
    differing: BTreeMap<Listed, Far>,
    pending: usize,
}

impl std::fmt::Debug for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} rows differ", self.differing.len())
    }
}

impl Mirror {
    /// Of somebody who has what `ours` has, until it says otherwise.
    pub fn new(ours: Arc<dyn Replica>, role: Role) -> Self {
        Self {
            ours,
            role,
            differing: BTreeMap::new(),
            pending: 0,
        }
    }

    /// The replica here.
    pub fn ours(&self) -> &Arc<dyn Replica> {
        &self.ours
    }

    /// Forgets what was told: a connection begins.
    pub fn begin(&mut self) {
        self.differing.clear();
        self.pending = 0;
    }

    /// A row here is about to change. A mirror's source does not follow its targets: it keeps what both had.
    pub fn ours_changes(&mut self, path: &RelPath) -> Result<()> {
        if self.role == Role::Source && self.is_alike(path) {
            let row = self.ours.row(path)?.map(|row| told(&row));
            let pending = false;
            self.set(path, Some(Far::Told { row, pending }));
        }
        Ok(())
    }

    /// A row here changed: what the far end has of it now it must say.
    pub fn ours_changed(&mut self, path: &RelPath) {
        if self.is_alike(path) {
            self.set(path, Some(Far::Unheard));
        }
    }

    fn set(&mut self, path: &RelPath, far: Option<Far>) {
        let follows = self.role != Role::Source;
        let is_pending = |far: &Far| match far {
            Far::Told { pending, .. } => *pending,
            Far::Unheard => follows,
        };
        let at = Listed(path.clone());
        self.pending += usize::from(far.as_ref().is_some_and(is_pending));
        let old = match far {
            Some(far) => self.differing.insert(at, far),
            None => self.differing.remove(&at),
        };
        self.pending -= usize::from(old.as_ref().is_some_and(is_pending));
    }

    /// How many paths are still to be put in step.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// The far end has heard of a row of ours and has the same. Ours may be another one by now.
    pub fn alike(&mut self, path: &RelPath, digest: u128) -> Result<()> {
        let ours = self.ours.row(path)?.and_then(|row| told::encode(&row));
        if ours.is_some_and(|bytes| told::digest(path, &bytes) == digest) {
            self.set(path, None);
        }
        Ok(())
    }

    /// Whether what is told of a path is what we have.
    pub fn is_ours(&self, path: &RelPath, row: Option<&Row>) -> Result<bool> {
        let ours = self.ours.row(path)?.map(|row| told(&row));
        Ok(ours.as_ref() == row)
    }

    /// Takes in what is told of a path; nothing, where the far end has no row. Returns whether it is what we have.
    pub fn put(&mut self, path: &RelPath, row: Option<Row>) -> Result<bool> {
        let ours = self.ours.row(path)?.map(|row| told(&row));
        if ours == row {
            self.set(path, None);
            return Ok(true);
        }
        let pending = self.is_to_change(ours.as_ref(), row.as_ref());
        self.set(path, Some(Far::Told { row, pending }));
        Ok(false)
    }

    /// Whether the far end will have another row, if ours stays as it is.
    fn is_to_change(&self, ours: Option<&Row>, theirs: Option<&Row>) -> bool {
        // What a rule or a file system keeps from being synchronized somewhere stays known differently there.
        let both = || ours.iter().chain(&theirs);
        if both().any(|r| r.held.is_some()) {
            return false;
        }
        let shown = |row: Option<&Row>| row.and_then(Row::present).cloned();
        match self.role {
            Role::Both => both().any(|r| !r.entry.is_empty()),
            Role::Source => false,
            // It remembers what it had seen, and shows what the source shows.
            Role::Target => match (shown(ours), shown(theirs)) {
                (Some(ours), Some(theirs)) => !ours.same_content(&theirs),
                (ours, theirs) => ours.is_some() || theirs.is_some(),
            },
        }
    }

    /// Whether the far end has the same of a path, as far as is known.
    pub fn is_alike(&self, path: &RelPath) -> bool {
        !self.differing.contains_key(&Listed(path.clone()))
    }

    /// What differs below a directory.
    pub fn each_differing(&self, dir: &RelPath, visit: RowVisitor<'_>) {
        let below = self.differing.iter().map(|(at, far)| (&at.0, far));
        for (path, far) in below.filter(|(path, _)| path.is_within(dir) && *path != dir) {
            let row = far.row().cloned().unwrap_or_default();
            if visit(path.clone(), row).is_break() {
                return;
            }
        }
    }

    /// What the far end has of a path.
    pub fn row(&self, path: &RelPath) -> Result<Option<Row>> {
        match self.differing.get(&Listed(path.clone())) {
            Some(far) => Ok(far.row().cloned()),
            None => Ok(self.ours.row(path)?.map(|row| told(&row))),
        }
    }

    /// The rows directly in a directory, by name.
    pub fn children(&self, dir: &RelPath, visit: RowVisitor<'_>) -> Result<()> {
        let is_child = |p: &RelPath| p.split_bytes().map(|(d, _)| d) == Some(dir.as_bytes());
        let mut differing = self.differing_below(dir, is_child);
        let read = self
            .ours
            .children(dir, &mut |path, row| differing.merge(path, &row, visit));
        read.map(|()| differing.finish(visit))
    }

    /// The rows below a directory, in the order of a replica's.
    pub fn subtree(&self, dir: &RelPath, visit: RowVisitor<'_>) -> Result<()> {
        let is_below = |p: &RelPath| p.is_within(dir) && p != dir;
        let mut differing = self.differing_below(dir, is_below);
        let read = self
            .ours
            .subtree(dir, &mut |path, row| differing.merge(path, &row, visit));
        read.map(|()| differing.finish(visit))
    }

    fn differing_below<'a>(
        &'a self,
        dir: &'a RelPath,
        counts: impl Fn(&RelPath) -> bool + 'a,
    ) -> Merging<'a> {
        // A directory's rows come no earlier than its own name's, and what is below it not before that.
        let from = Listed(dir.clone());
        let rows = self.differing.range(from..);
        let rows = rows.map(|(at, far)| (&at.0, far));
        Merging {
            rows: Box::new(rows.filter(move |(path, _)| counts(path))),
            next: None,
            over: false,
        }
    }

    /// Paths that we have below some nodes, and that are not known to differ: the far end did not tell of them.
    pub fn untold(&self, is_wanted: &dyn Fn(&RelPath) -> bool) -> Result<Vec<RelPath>> {
        let mut out = Vec::new();
        self.ours.subtree(&RelPath::root(), &mut |path, row| {
            let is_told = told::encode(&row).is_some();
            if is_told && is_wanted(&path) {
                out.push(path);
            }
            ControlFlow::Continue(())
        })?;
        Ok(out)
    }
}

/// Our rows and those that differ, as one list.
struct Merging<'a> {
    rows: Box<dyn Iterator<Item = (&'a RelPath, &'a Far)> + 'a>,
    next: Option<(&'a RelPath, &'a Far)>,
    over: bool,
}

impl Merging<'_> {
    /// Visits what comes before one of our rows, then it or what the far end has instead.
    fn merge(&mut self, path: RelPath, ours: &Row, visit: RowVisitor<'_>) -> ControlFlow<()> {
        let ours_at = path.split_bytes();
        let mut instead = None;
        while let Some((at, far)) = self.next.take().or_else(|| self.rows.next()) {
            match at.split_bytes().cmp(&ours_at) {
                std::cmp::Ordering::Less => self.visit(at, far.row(), visit)?,
                std::cmp::Ordering::Equal => {
                    instead = Some(far);
                    break;
                }
                std::cmp::Ordering::Greater => {
                    self.next = Some((at, far));
                    break;
                }
            }
        }
        match instead {
            Some(far) => self.visit(&path, far.row(), visit),
            None => self.visit(&path, Some(&told(ours)), visit),
        }
    }

    fn visit(
        &mut self,
        path: &RelPath,
        row: Option<&Row>,
        visit: RowVisitor<'_>,
    ) -> ControlFlow<()> {
        let Some(row) = row else {
            return ControlFlow::Continue(());
        };
        let flow = visit(path.clone(), row.clone());
        self.over = flow.is_break();
        flow
    }

    /// Visits what comes after all of our rows.
    fn finish(mut self, visit: RowVisitor<'_>) {
        while !self.over
            && let Some((at, far)) = self.next.take().or_else(|| self.rows.next())
        {
            if self.visit(at, far.row(), visit).is_break() {
                return;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use std::collections::BTreeSet;

    use instep_core::id::{ActorId, Dot, ShareId};
    use instep_replica::env::StepEnv;
    use instep_replica::memory::MemoryReplica;
    use instep_replica::records::ShareRecord;
    use instep_replica::{Scope, ShareState};

    use super::*;

    fn p(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).unwrap()
    }

    fn replica(files: &[&str]) -> Arc<MemoryReplica> {
        let share = ShareId([1; 16]);
        let replica = MemoryReplica::new("A", share, Arc::new(StepEnv::default()));
        for file in files {
            replica.user_write(&p(file), file.as_bytes()).unwrap();
        }
        let look = replica.look(&Scope::Everything).unwrap();
        let state = ShareState::new(share, ShareRecord::default());
        replica.record(&look, &state).unwrap();
        Arc::new(replica)
    }

    fn listed(mirror: &Mirror, dir: &str) -> Vec<String> {
        let mut out = Vec::new();
        let dir = RelPath::new(dir.as_bytes()).unwrap();
        mirror
            .subtree(&dir, &mut |path, _| {
                out.push(path.to_string());
                ControlFlow::Continue(())
            })
            .unwrap();
        out
    }

    fn other() -> Row {
        let dot = Dot {
            actor: ActorId([9; 8]),
            counter: 1,
        };
        Row {
            shown: Some(dot),
            ..Row::default()
        }
    }

    #[test]
    fn what_the_far_end_told_stands_beside_what_we_have_in_the_order_of_a_listing() {
        let ours = replica(&["a/x", "a/z", "b"]);
        let mut mirror = Mirror::new(ours.clone(), Role::Both);
        let all = listed(&mirror, "");
        assert_eq!(all.len(), 4, "the directory, too: {all:?}");
        assert!(!mirror.put(&p("a/y"), Some(other())).unwrap());
        assert!(!mirror.put(&p("b"), None).unwrap());
        assert!(!mirror.put(&p("c"), Some(other())).unwrap());
        assert_eq!(listed(&mirror, ""), ["a", "c", "a/x", "a/y", "a/z"]);
        assert_eq!(listed(&mirror, "a"), ["a/x", "a/y", "a/z"]);
        let mut names = BTreeSet::new();
        mirror
            .children(&RelPath::root(), &mut |path, _| {
                names.insert(path.to_string());
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(mirror.row(&p("b")).unwrap(), None);
    }

    #[test]
    fn a_source_is_taken_to_follow_its_target() {
        let ours = replica(&["a"]);
        let mut mirror = Mirror::new(ours.clone(), Role::Source);
        let row = mirror.row(&p("a")).unwrap();
        ours.user_write(&p("a"), b"changed").unwrap();
        let look = ours.look(&Scope::Everything).unwrap();
        for path in ["a", "b"] {
            mirror.ours_changes(&p(path)).unwrap();
        }
        let state = ShareState::new(ShareId([1; 16]), ShareRecord::default());
        ours.record(&look, &state).unwrap();
        for path in ["a", "b", "c"] {
            mirror.ours_changed(&p(path));
        }
        assert!(row.is_some());
        assert_eq!(mirror.row(&p("a")).unwrap(), row);
        assert_eq!(mirror.row(&p("b")).unwrap(), None);
        assert_eq!(mirror.pending(), 0, "it will not change because of us");
    }

    #[test]
    fn what_changed_here_counts_as_unknown_there_until_the_far_end_says_the_same() {
        let ours = replica(&["a"]);
        let mut mirror = Mirror::new(ours.clone(), Role::Both);
        let row = mirror.row(&p("a")).unwrap();
        assert!(row.is_some());
        mirror.ours_changed(&p("a"));
        assert_eq!(mirror.row(&p("a")).unwrap(), None);
        assert!(mirror.put(&p("a"), row.clone()).unwrap());
        assert_eq!(mirror.row(&p("a")).unwrap(), row);
        assert_eq!(mirror.pending(), 0);
        mirror.put(&p("a"), Some(other())).unwrap();
        mirror.ours_changed(&p("a"));
        assert_eq!(mirror.row(&p("a")).unwrap(), Some(other()), "it said so");
    }
}
