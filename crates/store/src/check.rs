//! The full check of a store: everything is read and tested, not only what is asked for.
//!
//! Read-only: reports damage, never repairs it. An index that fails is moved aside and rebuilt by a rejoin.

use std::fmt;
use std::ops::ControlFlow;

use instep_core::path::RelPath;
use instep_core::row::Row;

use crate::error::Result;
use crate::{IndexStore, StoreError, Table};

/// Findings beyond this many are only counted.
const PROBLEMS_MAX: usize = 100;

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The database's own structure, or a record that cannot be read.
    Damaged(String),
    /// A row says that a sibling is on disk which its entry does not have.
    ShownUnknown(RelPath),
    /// A row for a name that belongs to instep itself.
    Reserved(RelPath),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(what) => f.write_str(what),
            Self::ShownUnknown(path) => write!(f, "{path}: the version on disk is not a known one"),
            Self::Reserved(path) => write!(f, "{path}: the name is reserved"),
        }
    }
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Rows that were read.
    pub rows: u64,
    /// The first findings.
    pub problems: Vec<Problem>,
    /// Findings that are not in the list.
    pub more: u64,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    pub(crate) fn add(&mut self, problem: Problem) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem);
        } else {
            self.more += 1;
        }
    }

    fn row(&mut self, path: &RelPath, row: &Row) {
        self.rows += 1;
        if row.shown.is_some_and(|dot| row.entry.get(dot).is_none()) {
            self.add(Problem::ShownUnknown(path.clone()));
        }
        if path.is_reserved() {
            self.add(Problem::Reserved(path.clone()));
        }
    }
}

/// Reads every row, digest and record of any store. Damage becomes a finding; other errors are errors.
pub fn check_rows(store: &mut dyn IndexStore) -> Result<Report> {
    let mut report = Report::default();
    let root = RelPath::root();
    let walked = store.get(&root).and_then(|found| {
        if let Some(row) = found {
            report.row(&root, &row);
        }
        store.subtree(&root, &mut |path, row| {
            report.row(&path, &row);
            ControlFlow::Continue(())
        })
    });
    note(&mut report, walked)?;
    note(&mut report, store.digests(&mut |_, _| {}))?;
    for table in Table::ALL {
        note(
            &mut report,
            store.records(table, &mut |_, _| ControlFlow::Continue(())),
        )?;
    }
    Ok(report)
}

fn note(report: &mut Report, outcome: Result<()>) -> Result<()> {
    match outcome {
        Err(StoreError::Corrupt { what }) => report.add(Problem::Damaged(what)),
        other => other?,
    }
    Ok(())
}
