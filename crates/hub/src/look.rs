//! Looking at what has no disk: what was brought back, what was renamed, and what has decayed.
//!
//! Invariant: nothing else is ever found, because nobody else writes here; after its findings are recorded, the same
//! look finds nothing. What has decayed is found as forgotten: it is to be brought again by whoever has it. Changes
//! nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use instep_core::id::ContentId;
use instep_core::path::RelPath;
use instep_core::row::Row;
use instep_core::version::Kind;
use instep_replica::Result;
use instep_replica::look::Move;
use instep_replica::{Finding, Found, Look, Scope};

use crate::state::State;

fn is_in(scope: &Scope, path: &RelPath) -> bool {
    match scope {
        Scope::Everything => true,
        Scope::Rest(_) => false,
        Scope::Some { paths, trees } => {
            let above = || paths.iter().any(|p| path.is_within(p));
            paths.contains(path) || trees.iter().any(|t| path.is_within(t)) || above()
        }
    }
}

impl State {
    /// Compares what is there with the rows.
    pub(crate) fn look(&mut self, scope: &Scope) -> Result<Look> {
        let mut found: BTreeMap<RelPath, Found> = self
            .forgotten(scope)?
            .into_iter()
            .map(|path| (path, Found::Forgotten))
            .collect();
        for (from, to, row) in self.moved()? {
            let was = row.present().map_or(Kind::Dir, |v| v.kind);
            found.insert(from.clone(), Found::Absent { was });
            found.extend(moved_here(&row, from).map(|f| (to, f)));
        }
        for (path, object) in &self.brought {
            found.insert(path.clone(), object.found());
        }
        found.retain(|path, _| is_in(scope, path));
        let moves = self.moving.iter().filter(|(from, _)| is_in(scope, from));
        let moves = moves.map(|(from, to)| Move {
            from: from.clone(),
            to: to.clone(),
            whole: true,
        });
        let known = self.index.totals();
        let mut look = Look {
            moves: moves.collect(),
            totals: known,
            known,
            ..Look::default()
        };
        for (path, found) in found {
            if let (Found::Present { kind, size, .. }, true) = (&found, self.moving.is_empty()) {
                look.totals.add(*kind, *size);
            }
            look.findings.push(Finding { path, found });
        }
        Ok(look)
    }

    /// Paths whose content is known not to be whole.
    fn forgotten(&mut self, scope: &Scope) -> Result<Vec<RelPath>> {
        if self.contents.damaged().is_empty() {
            return Ok(Vec::new());
        }
        let mut out = Vec::new();
        match scope {
            Scope::Everything => out = self.showing_damage(&RelPath::root())?,
            Scope::Rest(_) => {}
            Scope::Some { paths, trees } => {
                for path in paths.iter().chain(trees) {
                    let row = self.index.get(path)?;
                    out.extend(shows(&row, self.contents.damaged()).then(|| path.clone()));
                }
                for dir in trees {
                    out.extend(self.showing_damage(dir)?);
                }
            }
        }
        Ok(out)
    }

    /// Every path below a directory that shows a content that is known not to be whole.
    pub(crate) fn showing_damage(&mut self, dir: &RelPath) -> Result<Vec<RelPath>> {
        let damaged = self.contents.damaged().clone();
        let mut out = Vec::new();
        let mut visit = |path: RelPath, row: Row| {
            out.extend(shows(&row, &damaged).then_some(path));
            ControlFlow::Continue(())
        };
        self.index.subtree(dir, &mut visit)?;
        Ok(out)
    }
}

/// Whether a row shows one of these contents.
fn shows(row: &Row, contents: &BTreeSet<ContentId>) -> bool {
    let file = row.present().filter(|v| v.kind == Kind::File);
    file.is_some_and(|v| contents.contains(&v.content))
}

/// What a look says of something that was renamed.
fn moved_here(row: &Row, from: RelPath) -> Option<Found> {
    let print = row.print?;
    let version = row.present();
    Some(Found::Present {
        kind: version.map_or(Kind::Dir, |v| v.kind),
        content: version.map_or(ContentId::NONE, |v| v.content),
        size: version.map_or(0, |v| v.size),
        mode: print.mode,
        mtime: version.map_or_else(Default::default, |v| v.mtime),
        target: version.map_or_else(Box::default, |v| v.target.clone()),
        print,
        attributes: None,
        moved_from: Some(from),
        high_entropy: false,
    })
}
