//! Recording: findings become dots and rows, as the one mint of the contract says.
//!
//! Invariant: nothing is recorded below what is no directory any more. A piece of a large look may have been read
//! before its directory went.

use std::collections::HashMap;

use instep_core::id::{ActorId, Dot};
use instep_core::path::RelPath;
use instep_core::policy::Role;
use instep_core::row::Row;
use instep_core::time::Hlc;
use instep_core::version::Version;
use instep_replica::look::{Finding, Found};
use instep_replica::mint::{self, Event};
use instep_replica::{Error, Look, Result, ShareState, Step};
use instep_store::Durability;

use crate::index::Index;
use crate::prune;
use crate::recover;
use crate::replica::LocalReplica;

/// Records a look's findings; returns the paths whose rows changed in a way that others may care about.
pub fn record(replica: &LocalReplica, look: &Look, share: &ShareState) -> Result<Vec<RelPath>> {
    let mut index = replica.index();
    index.reserve(look.findings.len() as u64)?;
    let mut reworked = index.take_reworked();
    let doubt = recover::Doubt::of(&mut index)?;
    let wall_ns = replica.env.wall_ns();
    let policy_epoch = share.policies.epoch();
    let mut dirty = Vec::with_capacity(look.findings.len());
    let mut rows = Rows::default();
    let mut astray = Vec::new();
    for (at, finding) in look.findings.iter().enumerate() {
        let path = &finding.path;
        let old = rows.get(&mut index, &look.findings[at..])?;
        let row = old.clone().unwrap_or_default();
        if row.print.is_none() && rows.is_astray(&mut index, finding)? {
            astray.push(path.clone());
            continue;
        }
        let moved_to = mint::moved_to(&look.moves, path);
        let mut failed = None;
        let mut next = || Event {
            dot: minted_dot(&mut index, &mut failed),
            hlc: index.now(wall_ns),
            policy_epoch,
        };
        let basis = doubt.map(|d| d.basis(replica, &row, &finding.found));
        let basis = basis.as_ref().unwrap_or(&row);
        let mut new = minted(replica, basis, finding, moved_to.as_ref(), share, &mut next);
        if let Some(e) = failed {
            return Err(e);
        }
        if let Some(doubt) = doubt {
            doubt.age(path, basis, &finding.found, &mut new);
        }
        replica.forget_uncarried(&mut new);
        if new != row {
            new.epoch = index.epoch();
            index.put(path, old.as_ref(), &new)?;
        }
        if !matches!(finding.found, Found::Refreshed { .. }) {
            dirty.push(path.clone());
        }
    }
    reworked.extend(astray.iter().filter_map(RelPath::parent));
    if replica.settle_digests(&mut index, look, reworked) && doubt.is_some() {
        recover::looked(&mut index)?;
    }
    // What was recorded is as it was listed.
    index.take_reworked();
    replica.env.reach(Step::Found);
    index.commit(Durability::Process)?;
    drop(index);
    astray.into_iter().for_each(|path| replica.hint(path));
    recorded(replica, look)?;
    Ok(dirty)
}

/// The next dot of this replica; where there is none, why, and one that counts for nothing.
fn minted_dot(index: &mut Index, failed: &mut Option<Error>) -> Dot {
    index.mint().unwrap_or_else(|e| {
        *failed = Some(e);
        Dot {
            actor: ActorId([0; 8]),
            counter: 0,
        }
    })
}

/// What follows when a look is on record.
fn recorded(replica: &LocalReplica, look: &Look) -> Result<()> {
    if look.rules_changed {
        replica.rules.heard_changed();
    }
    let gone = look.findings.iter();
    let gone = gone.filter(|f| matches!(f.found, Found::Absent { .. }));
    prune::above(replica, gone.map(|f| &f.path), |_| false)
}

/// What a finding makes of a row; a mirror's source decides alone what is shown.
fn minted(
    replica: &LocalReplica,
    row: &Row,
    finding: &Finding,
    moved_to: Option<&RelPath>,
    share: &ShareState,
    next: &mut dyn FnMut() -> Event,
) -> Row {
    match replica.settings.role {
        Role::Both => mint::after_unseen(row, &finding.found, moved_to, &share.policies, next),
        Role::Source => mint::after_at_source(row, &finding.found, moved_to, next),
        Role::Target => mint::after(row, &finding.found, moved_to, next),
    }
}

/// Rows of one directory, read together where several of its paths are recorded.
#[derive(Default)]
pub(crate) struct Rows {
    dir: Option<RelPath>,
    of_dir: HashMap<RelPath, Row>,
    /// The last directory that was asked for, if the index has it.
    on_record: Option<RelPath>,
}

impl Rows {
    /// The row of the first of the findings, which are in tree order.
    pub(crate) fn get(&mut self, index: &mut Index, findings: &[Finding]) -> Result<Option<Row>> {
        const TOGETHER: usize = 8;
        let path = &findings[0].path;
        let dir = path.parent();
        if self.dir.is_some() && self.dir == dir {
            return Ok(self.of_dir.get(path).cloned());
        }
        let many = findings
            .get(TOGETHER)
            .is_some_and(|f| f.path.parent() == dir);
        let Some(dir) = dir.filter(|_| many) else {
            return index.get(path);
        };
        self.of_dir.clear();
        let rows = &mut self.of_dir;
        index.children(&dir, &mut |name, row| {
            rows.insert(dir.join(name), row);
        })?;
        self.dir = Some(dir);
        Ok(self.of_dir.get(path).cloned())
    }

    /// Whether the index has no directory where something new was found: that went after this was read, or it is not
    /// on record yet, and only it leads a look there.
    fn is_astray(&mut self, index: &mut Index, finding: &Finding) -> Result<bool> {
        let is_there = matches!(
            finding.found,
            Found::Present { .. } | Found::Ancestor { .. }
        );
        let dir = finding.path.parent().filter(|d| is_there && !d.is_root());
        let Some(dir) = dir.filter(|d| self.on_record.as_ref() != Some(d)) else {
            return Ok(false);
        };
        let row = index.get(&dir)?;
        let is_had = row.is_some_and(|r| r.is_dir() || r.held.is_some());
        self.on_record = Some(dir).filter(|_| is_had);
        Ok(!is_had)
    }
}

/// The version of bytes that were displaced at the very moment of a user's save; `row` is what the index
/// had at the path.
pub fn saved_version(found: &Found, row: &Row, hlc: Hlc) -> Option<Version> {
    let policy_epoch = row.on_disk().map_or(0, |v| v.policy_epoch);
    // The dot is a placeholder: only the version is taken.
    let dot = Dot {
        actor: ActorId([0; 8]),
        counter: 1,
    };
    let alone = Row {
        print: None,
        ..row.clone()
    };
    let after = mint::after(&alone, found, None, &mut || Event {
        dot,
        hlc,
        policy_epoch,
    });
    after.on_disk().cloned()
}
