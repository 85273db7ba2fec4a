//! Carrying out: contents are brought, actions done, findings recorded, each batch committed as one.
//!
//! Owns what happens between asking a source for a content and committing the rows that show it. Invariant: no lock is
//! held while a source is read. What an action means is known in `act`, what a finding means in the contract's mint.

use instep_core::id::{ContentId, Dot};
use instep_core::path::RelPath;
use instep_core::plan::{Action, Code, Goal, Outcome};
use instep_fs::ErrorKind as FsErrorKind;
use instep_replica::mint::{self, Event};
use instep_replica::{Content, Found, Look, Result, ShareState, Sources, Step};
use instep_store::Durability;

use crate::act::blocked;
use crate::contents::Listed;
use crate::identity::fs_error;
use crate::intake::{self, Refusal};
use crate::replica::HubReplica;

impl HubReplica {
    /// Brings a content here and lists it; what stood in the way otherwise.
    pub(crate) fn bring(
        &self,
        path: &RelPath,
        content: ContentId,
        from: &mut dyn Content,
    ) -> Result<core::result::Result<(), Outcome>> {
        let is_doubtful = self.state().contents.damaged().contains(&content);
        let taken = match intake::take(&self.chunks, content, from, is_doubtful) {
            Ok(taken) => taken,
            Err(refusal) => return self.refused(path, content, refusal).map(Err),
        };
        self.begun.forget(content);
        let mut state = self.state();
        let listed = Listed {
            size: taken.size,
            epoch: state.index.epoch(),
            top: taken.top,
        };
        state.staged.insert(content);
        state.contents.put(content, &listed)?;
        // Only now do its chunks belong to something.
        drop(taken.pins);
        Ok(Ok(()))
    }

    fn refused(&self, path: &RelPath, content: ContentId, refusal: Refusal) -> Result<Outcome> {
        Ok(match refusal {
            Refusal::Other => {
                self.begun.forget(content);
                Outcome::Busy
            }
            Refusal::Source(e, pieces) => {
                self.begun.keep(content, pieces);
                let detail = format!("read the source: {e}");
                blocked(path, Code::Unreadable, &detail)
            }
            Refusal::Disk(e) => {
                let code = match e.kind() {
                    FsErrorKind::NoSpace => Code::NoSpace,
                    FsErrorKind::ReadOnly => Code::ReadOnly,
                    FsErrorKind::Crashed => return Err(fs_error("write a chunk", e)),
                    _ => Code::Unwritable,
                };
                blocked(path, code, &e.to_string())
            }
        })
    }

    /// Brings what an action needs from whoever has it.
    fn fetch(
        &self,
        action: &Action,
        content: ContentId,
        sources: &dyn Sources,
    ) -> Result<core::result::Result<(), Outcome>> {
        let mut source = sources.open(action, content);
        let mut tried = 0;
        while let Some(mut from) = source {
            match self.bring(&action.path, content, from.as_mut())? {
                Err(Outcome::Busy) => {}
                other => return Ok(other),
            }
            tried += 1;
            source = sources.open_other(action, content, tried);
        }
        if tried > 0 {
            return Ok(Err(Outcome::Busy));
        }
        let detail = "no reachable replica has the content";
        Ok(Err(blocked(&action.path, Code::ContentMissing, detail)))
    }

    fn carry_out(&self, action: &Action, sources: &dyn Sources) -> Result<Outcome> {
        let mut state = self.state();
        if let Some(outcome) = state.verdict(action)? {
            return Ok(outcome);
        }
        let Goal::File { content, .. } = action.goal else {
            return state.act(action);
        };
        if !state.contents.has(content)? {
            drop(state);
            if let Err(outcome) = self.fetch(action, content, sources)? {
                return Ok(outcome);
            }
            state = self.state();
            if let Some(outcome) = state.verdict(action)? {
                return Ok(outcome);
            }
        }
        state.act(action)
    }

    pub(crate) fn carry_out_all(
        &self,
        actions: &[Action],
        sources: &dyn Sources,
    ) -> Result<Vec<Outcome>> {
        // Whatever was promised to be elsewhere: it is not, if anything else is done first.
        self.state().moving.clear();
        let outcomes = actions
            .iter()
            .map(|action| self.carry_out(action, sources))
            .collect::<Result<Vec<_>>>()?;
        self.env.reach(Step::RowsWritten);
        let mut state = self.state();
        for (action, outcome) in actions.iter().zip(&outcomes) {
            if let (Goal::File { content, .. }, Outcome::Done) = (&action.goal, outcome) {
                state.staged.remove(content);
            }
        }
        state.commit(Durability::Process)?;
        drop(state);
        self.env.reach(Step::Committed);
        Ok(outcomes)
    }

    pub(crate) fn record_all(&self, look: &Look, share: &ShareState) -> Result<Vec<RelPath>> {
        let mut guard = self.state();
        let state = &mut *guard;
        let wall_ns = state.wall_ns;
        state.index.reserve(look.findings.len() as u64)?;
        let mut changed = Vec::new();
        for finding in &look.findings {
            let path = &finding.path;
            let row = state.index.get(path)?;
            let moved_to = mint::moved_to(&look.moves, path);
            // Reserved above, so that this does not fail halfway.
            let mut failed = None;
            let index = &mut state.index;
            let mut next = || {
                let dot = index.mint().unwrap_or_else(|e| {
                    failed = Some(e);
                    Dot::before(index.actor())
                });
                Event {
                    dot,
                    hlc: index.now(wall_ns),
                    policy_epoch: share.policies.epoch(),
                }
            };
            let (found, to) = (&finding.found, moved_to.as_ref());
            let new = mint::after_unseen(&row, found, to, &share.policies, &mut next);
            if let Some(e) = failed {
                return Err(e);
            }
            state.bring(path, None)?;
            if new != row {
                state.put(path, &row, new)?;
                changed.push(path.clone());
            }
            if matches!(found, Found::Absent { .. }) {
                state.prune_above(path)?;
            }
        }
        // What was found to have moved is recorded by that; the index waits to be told of the rest.
        let found = |from: &RelPath| look.moves.iter().any(|m| m.from == *from);
        state.moving.retain(|(from, _)| !found(from));
        state.commit(Durability::Process)?;
        Ok(changed)
    }
}
