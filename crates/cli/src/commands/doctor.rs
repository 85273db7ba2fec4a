//! `doctor`: everything that can be checked, once: the machine, each folder and its state, and what the folders
//! of a share know and have.
//!
//! Gathering and judging are apart: what was gathered are plain facts, and a judgement of facts can be tested.
//! Invariant: without `--fix` nothing is changed; with it only what [`finding::Fix`] lists.

mod finding;
mod folder;
mod machine;
mod share;

use std::collections::BTreeSet;
use std::sync::Arc;

use instep_core::id::ShareId;
use instep_replica::Replica;
use instep_replica::env::Env;
use serde_json::json;

use super::{Context, Opened};
use crate::args::{self, Session};
use crate::error::{Exit, Failure};
use crate::targets::{self, Target, with_members};
use finding::{Finding, Level};

/// Carries it out.
pub(crate) fn run(args: &args::Doctor, context: &Context) -> Result<Exit, Failure> {
    let named = match targets::named(&args.roots) {
        Ok(named) => named,
        // Outside any folder there is still the machine.
        Err(none) if none.code == 1019 && args.roots.is_empty() => Vec::new(),
        Err(failure) => return Err(failure),
    };
    let mut findings = Vec::new();
    let dirs = folders(args, &named, context, &mut findings)?;
    let mut all = machine::judge(&machine::Facts::gather(dirs, with_members(&named).len()));
    all.append(&mut findings);
    if args.fix {
        all.iter_mut().for_each(Finding::mend);
    }
    tell(&all, context);
    let bad = all.iter().filter(|f| f.level == Level::Fail && !f.mended);
    Ok(Exit::first(&bad.map(|f| f.exit).collect::<Vec<_>>()))
}

/// Everything about folders; how many directories they have together.
fn folders(
    args: &args::Doctor,
    named: &[Target],
    context: &Context,
    findings: &mut Vec<Finding>,
) -> Result<u64, Failure> {
    let env = Context::env(None)?;
    let mut dirs = 0;
    let mut shares: BTreeSet<ShareId> = BTreeSet::new();
    for target in named {
        if !shares.insert(target.member.share) {
            continue;
        }
        let members = with_members(std::slice::from_ref(target));
        findings.extend(share::missing(target, &members));
        let mut opened = Opened {
            targets: Vec::new(),
            replicas: Vec::new(),
        };
        for member in members {
            let replica = open(&env, &member, context);
            let facts = folder::Facts::gather(&member, replica.as_ref().ok());
            dirs += facts.dirs;
            findings.extend(folder::judge(&facts));
            match replica {
                Ok(replica) => {
                    opened.targets.push(member);
                    opened.replicas.push(replica);
                }
                // An index that is damaged has been told of.
                Err(why) if why.code == 1010 => {}
                Err(why) => findings.push(Finding::of(&member.member.label, &why)),
            }
        }
        findings.extend(share::running(&opened));
        findings.extend(share::compare(&opened)?);
        findings.extend(share::read_again(args.full, &opened, context)?);
    }
    Ok(dirs)
}

fn open(
    env: &Arc<dyn Env>,
    member: &Target,
    context: &Context,
) -> Result<Arc<dyn Replica>, Failure> {
    member.read(env, &context.settings(&Session::default()))
}

fn tell(all: &[Finding], context: &Context) {
    let output = &context.output;
    if output.style.json {
        let all: Vec<_> = all.iter().map(Finding::document).collect();
        return output.json("doctor", json!({ "findings": all }));
    }
    for f in all
        .iter()
        .filter(|f| f.level != Level::Good || !output.style.quiet)
    {
        output.result(&f.render(&output.style));
    }
    let count = |level| all.iter().filter(|f| f.level == level && !f.mended).count();
    let mended = all.iter().filter(|f| f.mended).count();
    let mut parts = vec![
        format!("{} ok", count(Level::Good)),
        format!("{} to look at", count(Level::Warn)),
        format!("{} wrong", count(Level::Fail)),
    ];
    if mended > 0 {
        parts.push(format!("{mended} mended"));
    }
    output.line(&parts.join(output.style.dot()));
}
