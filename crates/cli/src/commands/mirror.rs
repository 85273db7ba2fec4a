//! `mirror`: makes folders exact copies of one; what that displaces goes to trash.

use std::collections::BTreeMap;

use instep_core::policy::Role;
use instep_engine::session::{SessionError, SessionOptions};

use super::sync::{self, Want};
use super::{Context, plan};
use crate::args;
use crate::connect::{self, Purpose, Settings};
use crate::endpoint;
use crate::error::{Exit, Failure};
use crate::far::caller::Reached;
use crate::roots::Root;
use crate::signals::Taken;
use crate::{live, roots};

/// Carries it out.
pub(crate) fn run(args: args::Mirror, context: &Context) -> Result<Exit, Failure> {
    let mut typed = vec![args.source];
    typed.extend(args.targets);
    endpoint::refuse_far(&typed[..1])?;
    if args.session.dry_run {
        endpoint::refuse_hubs(&typed)?;
    }
    let role = |i| if i == 0 { Role::Source } else { Role::Target };
    let (roots, far) = sync::look_far(&typed, role)?;
    // Only targets are ever made: a source that is missing is a mistake or a disk that is not mounted.
    roots::check(&roots[..1], false)?;
    roots::check(&roots, args.session.create)?;
    roots::check_roles(&roots)?;
    if !args.allow_empty {
        refuse_empty(&roots, &far, &context.settings(&args.session))?;
    }
    let mut want = Want {
        roots,
        far,
        mirror: true,
        allow_empty: args.allow_empty,
        merge: false,
        session: args.session,
    };
    if want.session.dry_run {
        let limit = if context.output.style.verbose {
            0
        } else {
            plan::LIMIT
        };
        return plan::show(&mut want, limit, context).map(|_| Exit::Done);
    }
    roots::check_free(&want.roots)?;
    let purpose = Purpose::Change {
        create: want.session.create,
    };
    let signals = Taken::begin()?;
    let opened = sync::open(&mut want, context, purpose)?;
    let options = SessionOptions {
        once: want.session.once,
        mirror: true,
        allow_empty: args.allow_empty,
        poll: want.session.poll,
        keep_trash: Some(context.keep_trash()),
        ..SessionOptions::default()
    };
    live::run(opened, options, &want.session, context, signals)
}

/// An empty source would empty its targets. The engine refuses it too, but only after it has opened them.
fn refuse_empty(
    roots: &[Root],
    far: &BTreeMap<usize, Reached>,
    settings: &Settings,
) -> Result<(), Failure> {
    let is_empty = |(i, root): (usize, &Root)| match far.get(&i) {
        Some(reached) => reached.is_empty,
        None => connect::is_empty(&root.seen.path, settings),
    };
    let mut all = roots.iter().enumerate();
    let is_source_empty = all.next().is_some_and(is_empty);
    if is_source_empty && !all.all(is_empty) {
        return Err(live::failure(SessionError::EmptySource));
    }
    Ok(())
}
