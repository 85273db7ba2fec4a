//! `forget`: takes a folder out of its shares. Its files stay.

use std::sync::Arc;

use instep_replica::Replica;
use serde_json::json;

use super::Context;
use crate::args::{self, Session};
use crate::connect;
use crate::error::{Exit, Failure};
use crate::targets::{Target, named, with_members};
use crate::{records, roots};

/// Carries it out.
pub(crate) fn run(args: &args::Forget, context: &Context) -> Result<Exit, Failure> {
    let targets = named(std::slice::from_ref(&args.root))?;
    for target in &targets {
        if target.client()?.is_some() {
            let holder = target
                .root
                .seen
                .holder
                .as_deref()
                .unwrap_or("a running session");
            return Err(roots::in_use(&args.root, holder));
        }
        check_last_copies(target, context)?;
    }
    let env = Context::env(None)?;
    let mut forgotten = Vec::new();
    for target in targets {
        connect::forget(env.as_ref(), &target.root, target.member.share, args.purge)?;
        forgotten.push(target.member.share.to_string());
    }
    let shown = args.root.display();
    if context.output.style.json {
        context.output.json(
            "forgotten",
            json!({ "location": shown.to_string(), "shares": forgotten }),
        );
    } else {
        let kept = if args.purge {
            "its trash and kept versions are gone"
        } else {
            "its trash stays in .instep"
        };
        context.output.line(&format!(
            "{shown} is in no share any more; its files stay, {kept}"
        ));
    }
    Ok(Exit::Done)
}

/// A folder that alone keeps the loser of an open conflict stays.
fn check_last_copies(target: &Target, context: &Context) -> Result<(), Failure> {
    let env = Context::env(None)?;
    let settings = context.settings(&Session::default());
    let own = target.read(&env, &settings)?;
    let open = records::conflicts(std::slice::from_ref(&own), false)?;
    if open.is_empty() {
        return Ok(());
    }
    let members = with_members(std::slice::from_ref(target));
    let others: Vec<Arc<dyn Replica>> = members
        .iter()
        .filter(|m| m.member.replica != target.member.replica)
        .map(|m| m.read(&env, &settings))
        .collect::<Result<_, _>>()?;
    for kept in open {
        let (Ok(path), Ok(content)) = (
            crate::control::protocol::path(&kept.body.path_hex),
            kept.body.content.parse(),
        ) else {
            continue;
        };
        let mut elsewhere = false;
        for other in &others {
            elsewhere |= other.open(&path, content)?.is_some();
        }
        if !elsewhere {
            let at = target.root.typed.display();
            return Err(Failure::new(
                1031,
                Exit::Conflicts,
                format!("{at} has the last copy of a conflict"),
            )
            .why(format!(
                "{} lost against another version and is kept only here",
                kept.body.path
            ))
            .remedy(format!("instep conflicts {at}")));
        }
    }
    Ok(())
}
