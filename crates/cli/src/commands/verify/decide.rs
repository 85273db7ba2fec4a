//! What is done about damage: it is noted, and on request repaired or accepted.
//!
//! Invariant: whoever holds a folder does all of it; where nobody does, the folder's lock is taken for it.

use std::collections::BTreeMap;

use instep_core::id::ReplicaId;
use instep_core::path::RelPath;
use instep_engine::command::Command;
use instep_replica::Book;
use instep_replica::records::DamageRecord;

use super::super::Context;
use super::super::change::{accepted, carry_out};
use super::super::conflicts::one_per_share;
use super::super::trash::members;
use super::reading::{Finding, Report};
use crate::args::{self, Session};
use crate::connect::Purpose;
use crate::error::Failure;
use crate::system_env::wall_ns;
use crate::targets::{Target, with_members};

/// What became of it.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// Repaired or accepted: label and path.
    pub(super) settled: Vec<(String, RelPath)>,
    /// What could not be done, and why.
    pub(super) failed: Vec<String>,
}

/// Notes what was found, and decides about it as was asked.
pub(super) fn run(
    args: &args::Verify,
    named: &[Target],
    report: &Report,
    context: &Context,
) -> Result<Done, Failure> {
    let mut done = Done::default();
    for target in one_per_share(named.to_vec()) {
        let all = with_members(std::slice::from_ref(&target));
        for member in &all {
            let of = |f: &&Finding| f.replica == member.member.replica;
            let new: Vec<&Finding> = report.damage.iter().filter(of).collect();
            if new.iter().any(|f| !f.noted)
                && let Err(why) = note(member, &target, &new, context)
            {
                let label = &member.member.label;
                let text = format!("note  {label}: the damage could not be noted: {why}");
                context.output.note(&text);
            }
        }
        if args.repair || args.accept {
            let is_member = |f: &&Finding| all.iter().any(|t| t.member.replica == f.replica);
            let damage: Vec<&Finding> = report.damage.iter().filter(is_member).collect();
            settle(args, &target, named, &damage, context, &mut done)?;
        }
    }
    Ok(done)
}

/// From now on nobody passes these files on, or replaces them.
fn note(
    member: &Target,
    target: &Target,
    damage: &[&Finding],
    context: &Context,
) -> Result<(), Failure> {
    if let Some(mut client) = member.client()? {
        let place = places(target, context)?.remove(&member.member.replica);
        let paths = damage.iter().map(|f| f.path.clone()).collect();
        if let Some(replica) = place {
            accepted(client.ask(&Command::Check { replica, paths })?)?;
        }
        return Ok(());
    }
    let env = Context::env(None)?;
    let settings = context.settings(&Session::default());
    let replica = member.open(&env, &settings, Purpose::Change { create: false })?;
    for f in damage.iter().filter(|f| !f.noted) {
        let record = DamageRecord::new(&f.path, f.content, f.found, wall_ns());
        let body = serde_json::to_string(&record).unwrap_or_default();
        replica.write_record(Book::Share, &DamageRecord::key(&f.path), Some(&body))?;
    }
    Ok(replica.close()?)
}

/// Where each member is in the session that carries requests out.
fn places(target: &Target, context: &Context) -> Result<BTreeMap<ReplicaId, usize>, Failure> {
    let opened = context.read_share(target)?;
    let ids = opened.targets.iter().map(|t| t.member.replica);
    Ok(ids.zip(members(&opened, target)?).collect())
}

fn settle(
    args: &args::Verify,
    target: &Target,
    named: &[Target],
    damage: &[&Finding],
    context: &Context,
    done: &mut Done,
) -> Result<(), Failure> {
    if damage.is_empty() {
        return Ok(());
    }
    let places = places(target, context)?;
    for f in damage {
        let Some(replica) = places.get(&f.replica).copied() else {
            continue;
        };
        let path = f.path.clone();
        let request = if args.repair {
            Command::Repair { replica, path }
        } else if named.iter().any(|t| t.member.replica == f.replica) {
            Command::Accept { replica, path }
        } else {
            continue;
        };
        match carry_out(target, &[request], context) {
            Ok(_) => done.settled.push((f.label.clone(), f.path.clone())),
            Err(why) => done.failed.push(format!("{}: {}: {why}", f.label, f.path)),
        }
    }
    Ok(())
}
