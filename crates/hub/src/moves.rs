//! Renames of whole directories: an operation on rows, and nothing else.
//!
//! A rename is only promised until the index is told of it: then the rows change places. Until then a look says what a
//! disk would show, and after the death of this process nothing was renamed. Invariant: a row says of the new place
//! only what the old row vouched for.

use std::collections::BTreeMap;

use instep_core::path::RelPath;
use instep_core::plan::Outcome;
use instep_core::row::Row;
use instep_core::version::Kind;
use instep_replica::Result;

use crate::state::{State, There, shown_by};

impl State {
    fn rows(&mut self, top: &RelPath) -> Result<BTreeMap<RelPath, Row>> {
        let mut rows: BTreeMap<_, _> = self.index.below(top)?.into_iter().collect();
        let row = self.index.get(top)?;
        if row != Row::default() {
            rows.insert(top.clone(), row);
        }
        Ok(rows)
    }

    /// Promises that `from` is at `to` from now on.
    pub(crate) fn rename(&mut self, from: &RelPath, to: &RelPath) -> Result<Outcome> {
        if let Some(outcome) = self.rename_verdict(from, to)? {
            return Ok(outcome);
        }
        let parent = to.parent().filter(|dir| !dir.is_root());
        if let Some(dir) = parent
            && self.there(&dir)?.map(|t| t.kind) != Some(Kind::Dir)
        {
            return Ok(Outcome::Busy);
        }
        self.moving.push((from.clone(), to.clone()));
        Ok(Outcome::Done)
    }

    /// What a look finds of renames that the index was not told of: gone here, there now.
    pub(crate) fn moved(&mut self) -> Result<Vec<(RelPath, RelPath, Row)>> {
        let mut out = Vec::new();
        for (from, to) in self.moving.clone() {
            for (path, row) in self.rows(&from)? {
                if let Some(new) = path.rebase(&from, &to).filter(|_| row.print.is_some()) {
                    out.push((path, new, row));
                }
            }
        }
        Ok(out)
    }

    /// Gives the rows of what was renamed, and of its old place, what `entries` say of both.
    pub(crate) fn adopt_move(
        &mut self,
        from: &RelPath,
        to: &RelPath,
        entries: &[(RelPath, Row)],
    ) -> Result<()> {
        let promise = |(f, t): &(RelPath, RelPath)| (f, t) == (from, to);
        let is_promised = self.moving.iter().any(promise);
        self.moving.retain(|m| !promise(m));
        let moved = self.rows(from)?;
        let mut left: BTreeMap<&RelPath, &Row> = moved.iter().collect();
        for (path, theirs) in entries {
            let source = path.rebase(to, from);
            let row = self.index.get(path)?;
            let there = if path.is_within(from) {
                left.remove(path);
                shown_by(&row).filter(|_| !is_promised)
            } else if path.is_within(to) {
                let came = source.and_then(|p| moved.get(&p)).filter(|_| is_promised);
                came.and_then(shown_by).or_else(|| shown_by(&row))
            } else {
                continue;
            };
            self.adopt(path, &row, theirs, there)?;
        }
        // What nobody told of stays where it was, and what is above it with it.
        let stays: Vec<RelPath> = left
            .into_iter()
            .filter(|(_, row)| row.print.is_some())
            .map(|(path, _)| path.clone())
            .collect();
        for path in stays {
            let _in_place = self.make_parents(&path)?;
        }
        let _in_place = self.make_parents(to)?;
        Ok(())
    }

    fn adopt(
        &mut self,
        path: &RelPath,
        row: &Row,
        theirs: &Row,
        there: Option<There>,
    ) -> Result<()> {
        let entry = self.merged(row, &theirs.entry);
        let version = theirs.materialised().and_then(|dot| entry.get(dot));
        let is_so = match (version, there) {
            (Some(v), None) => v.is_tomb(),
            (Some(v), Some(t)) => v.kind == t.kind && v.content == t.content,
            (None, _) => false,
        };
        let stands = theirs.is_derived_dir();
        let new = Row {
            shown: theirs.materialised().filter(|_| is_so),
            print: there.map(|t| t.print).filter(|_| is_so || stands),
            seen: None,
            held: None,
            entry,
            epoch: row.epoch,
        };
        self.put(path, row, new)
    }
}
