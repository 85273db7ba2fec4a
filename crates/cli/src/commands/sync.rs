//! `sync`: keeps folders equal, live or once; and what `mirror` and `plan` share with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use instep_core::id::{ReplicaId, ShareId};
use instep_core::policy::Role;
use instep_engine::session::SessionOptions;
use instep_remote::published::Published;
use instep_replica::Replica;
use instep_replica::env::Env;
use instep_replica::records::PolicyRecord;

use super::{Context, plan};
use crate::args::{self, Policy};
use crate::connect::{self, IgnoreRules, Purpose};
use crate::endpoint::{self, Endpoint};
use crate::error::{Exit, Failure};
use crate::far::caller::{Far, Reached, Terms};
use crate::far::heard::Voice;
use crate::live;
use crate::roots::{self, Choice, Root};
use crate::signals::Taken;
use crate::system_env::SystemEnv;

/// How many changes of one cycle the log lists one by one.
const LOG_LINES: usize = 50;

/// Carries it out.
pub(crate) fn run(args: args::Sync, context: &Context) -> Result<Exit, Failure> {
    if args.session.dry_run {
        endpoint::refuse_hubs(&args.roots)?;
    }
    let (roots, far) = look_far(&args.roots, |_| Role::Both)?;
    roots::check(&roots, args.session.create)?;
    let labels: Vec<&str> = roots.iter().map(|r| r.label.as_str()).collect();
    let prefer = args
        .prefer
        .as_deref()
        .map(|name| index_of(&labels, name))
        .transpose()?;
    let mut want = Want {
        roots,
        far,
        mirror: false,
        allow_empty: false,
        merge: args.merge_shares,
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
    let signals = Taken::begin()?;
    let create = want.session.create;
    let opened = open(&mut want, context, Purpose::Change { create })?;
    let policy = policy(
        args.policy,
        prefer.and_then(|i| opened.replicas.get(i)).map(|r| r.id()),
    );
    let options = SessionOptions {
        once: want.session.once,
        policy,
        poll: want.session.poll,
        log_lines: LOG_LINES,
        keep_trash: Some(context.keep_trash()),
        ..SessionOptions::default()
    };
    live::run(opened, options, &want.session, context, signals)
}

/// The policy as the share records it.
fn policy(chosen: Option<Policy>, prefer: Option<ReplicaId>) -> Option<PolicyRecord> {
    match (prefer, chosen) {
        (Some(id), _) => Some(PolicyRecord::Prefer(id.to_string())),
        (None, Some(Policy::Newest)) => Some(PolicyRecord::Newest),
        (None, Some(Policy::KeepBoth)) => Some(PolicyRecord::KeepBoth),
        (None, Some(Policy::Manual)) => Some(PolicyRecord::Manual),
        (None, None) => None,
    }
}

/// The folder with a name.
pub(crate) fn index_of(labels: &[&str], name: &str) -> Result<usize, Failure> {
    labels.iter().position(|l| *l == name).ok_or_else(|| {
        let mut failure = Failure::new(1012, Exit::Usage, format!("no folder is called {name}"))
            .why(format!("the folders are called {}", labels.join(", ")));
        if let Some(nearest) = crate::config::nearest(name, labels) {
            failure = failure.remedy(format!("did you mean {nearest}?"));
        }
        failure.remedy("give a folder a name with NAME=PATH")
    })
}

/// What a session is asked for.
pub(crate) struct Want {
    /// The folders.
    pub(crate) roots: Vec<Root>,
    /// Those of them that are on other machines, by their places among all.
    pub(crate) far: BTreeMap<usize, Reached>,
    /// One way.
    pub(crate) mirror: bool,
    /// A mirror may empty its targets.
    pub(crate) allow_empty: bool,
    /// Shares may be joined.
    pub(crate) merge: bool,
    /// The rest.
    pub(crate) session: args::Session,
}

/// Looks at the folders that were typed, also on other machines. A member of a share keeps its label unless it is given
/// another.
pub(crate) fn look_far(
    typed: &[Endpoint],
    role: impl Fn(usize) -> Role,
) -> Result<(Vec<Root>, BTreeMap<usize, Reached>), Failure> {
    let mut far = BTreeMap::new();
    let mut out = Vec::new();
    for (i, endpoint) in typed.iter().enumerate() {
        let seen = match &endpoint.far {
            None => connect::inspect(&endpoint.path)?,
            Some(place) => {
                let (reached, seen) = Reached::reach(place, Voice::Aloud)?;
                far.insert(i, reached);
                seen.inspection(&endpoint.path).ok_or_else(|| {
                    let what = format!("{} answers something odd", endpoint.path.display());
                    Failure::new(1041, Exit::Failed, what)
                        .why("the two programs do not understand each other")
                        .remedy("use the same version on both machines")
                })?
            }
        };
        out.push(Root {
            label: String::new(),
            typed: endpoint.path.clone(),
            role: role(i),
            seen,
        });
    }
    if far.len() == typed.len() {
        return Err(Failure::new(1052, Exit::Usage, "no folder is on this machine")
            .why("what is read on one machine is written by the program there, and one of them is this one")
            .remedy("run the command on one of the machines"));
    }
    let (kept, taken) = roots::known_labels(&out);
    for (root, label) in out.iter_mut().zip(endpoint::labels(typed, &kept, &taken)?) {
        root.label = label;
    }
    Ok((out, far))
}

/// Open folders, and the world as their engine sees it.
pub(crate) struct Opened {
    /// The world.
    pub(crate) env: Arc<dyn Env>,
    /// The folders.
    pub(crate) replicas: Vec<Arc<dyn Replica>>,
    /// Their ignore rules.
    pub(crate) rules: IgnoreRules,
    /// Those on this machine with which callers can take part.
    pub(crate) published: Vec<Arc<Published>>,
    /// Those on other machines; they take part as long as this is kept.
    pub(crate) far: Vec<Far>,
}

/// Opens the folders in the share that they are in, or in a new one.
pub(crate) fn open(
    want: &mut Want,
    context: &Context,
    purpose: Purpose,
) -> Result<Opened, Failure> {
    let env = world(&want.session, want.roots.len())?;
    let choice = roots::choose(&want.roots, want.mirror, want.merge)?;
    let fresh = ShareId(env.random());
    let settings = context.settings(&want.session);
    let is_here = |(i, _): &(usize, &Root)| !want.far.contains_key(i);
    let here = want.roots.iter().enumerate().filter(is_here);
    let here: Vec<Root> = here.map(|(_, root)| root.clone()).collect();
    let (mut replicas, rules) = connect::open_all(
        &env,
        &settings,
        &here,
        (choice, fresh),
        want.mirror,
        purpose,
    )?;
    let published = publish(&mut replicas);
    let far = open_far(want, choice, published.first(), &mut replicas)?;
    let published = if want.mirror { Vec::new() } else { published };
    Ok(Opened {
        env,
        replicas,
        rules,
        published,
        far,
    })
}

/// What changes on them can be told to others.
fn publish(replicas: &mut [Arc<dyn Replica>]) -> Vec<Arc<Published>> {
    let mut all = Vec::new();
    for replica in replicas {
        let published = Arc::new(Published::new(Arc::clone(replica)));
        *replica = Arc::clone(&published) as Arc<dyn Replica>;
        all.push(published);
    }
    all
}

/// Has the folders on other machines take part beside the first one here.
fn open_far(
    want: &mut Want,
    choice: Choice,
    first: Option<&Arc<Published>>,
    replicas: &mut Vec<Arc<dyn Replica>>,
) -> Result<Vec<Far>, Failure> {
    let Some(published) = first.filter(|_| !want.far.is_empty()) else {
        return Ok(Vec::new());
    };
    let mut far = Vec::new();
    for (i, reached) in std::mem::take(&mut want.far) {
        let root = &want.roots[i];
        let terms = Terms {
            share: published.share(),
            new: choice == Choice::New || root.seen.memberships.is_empty(),
            label: root.label.clone(),
            mirror: want.mirror,
            allow_empty: want.allow_empty,
            create: want.session.create,
            preview: want.session.dry_run,
        };
        let mut opened = reached.open(terms, published)?;
        if !want.session.dry_run {
            opened.begin()?;
        }
        replicas.insert(i, opened.observed.clone());
        far.push(opened);
    }
    Ok(far)
}

/// Open files of a session that depend neither on its folders nor on how much is done at once.
const SESSION_FILES: u32 = 16;
/// Open files of each folder: itself, its state, its index and lock, its watch and its socket.
const FOLDER_FILES: u32 = 14;
/// The most that one worker has open at once.
const WORKER_FILES: u32 = 8;

/// The world with so many workers as were asked for, but no more than the limit of open files allows.
fn world(session: &args::Session, folders: usize) -> Result<Arc<dyn Env>, Failure> {
    let Some(most) = session.open_files else {
        return Context::env(session.jobs);
    };
    let folders = u32::try_from(folders).unwrap_or(u32::MAX);
    let standing = FOLDER_FILES
        .saturating_mul(folders)
        .saturating_add(SESSION_FILES);
    let least = standing.saturating_add(WORKER_FILES);
    if most < least {
        let what = format!("{most} open files are too few for {folders} folders");
        return Err(Failure::new(1000, Exit::Usage, what)
            .why("each folder keeps some open as long as it is synchronized")
            .remedy(format!("--open-files {least} or more")));
    }
    instep_fs::place::limit_open_files(u64::from(most)).map_err(|e| {
        Failure::new(1900, Exit::Failed, "limit the number of open files").why(e.to_string())
    })?;
    let fit = u16::try_from((most - standing) / WORKER_FILES).unwrap_or(u16::MAX);
    let jobs = session.jobs.unwrap_or_else(SystemEnv::fitting_workers);
    Context::env(Some(jobs.min(fit)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;
    use crate::snapshot;

    #[test]
    fn a_policy_is_recorded_by_replica_and_not_by_name() {
        let id = ReplicaId([9; 16]);
        assert_eq!(
            policy(None, Some(id)),
            Some(PolicyRecord::Prefer("09".repeat(16)))
        );
        assert_eq!(
            policy(Some(Policy::Manual), None),
            Some(PolicyRecord::Manual)
        );
        assert_eq!(policy(None, None), None);
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        assert_eq!(index_of(&["A", "usb"], "usb").unwrap(), 1);
        snapshot::check(
            "error-E1012",
            &index_of(&["laptop", "usb"], "laptpo").unwrap_err().render(),
        );
    }
}
