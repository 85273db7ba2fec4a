//! The one place that knows what a folder on this machine is made of.
//!
//! Everything else sees [`Inspection`]s and [`Replica`]s.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use instep_core::id::{ReplicaId, ShareId};
use instep_core::path::{Name, RESERVED};
use instep_fs::{Dir, ErrorKind, place};
use instep_local::root::MembershipKind;
use instep_local::{IgnoreOptions, LocalReplica, OpenOptions, ShareChoice};
use instep_replica::Replica;
use instep_replica::env::Env;

use crate::args::Session;
use crate::config::Config;
use crate::error::{Exit, Failure};
use crate::places;
use crate::roots::{Choice, Inspection, Membership, Root};

/// What is chosen for all folders of a command.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) state_dir: PathBuf,
    poll: Option<Duration>,
    ignore: IgnoreOptions,
    pub(crate) trash_days: u32,
    owner: bool,
    xattr: bool,
}

impl Settings {
    /// From the configuration and the options of the command.
    pub(crate) fn new(config: &Config, session: &Session) -> Self {
        let defaults = &config.defaults;
        Self {
            state_dir: places::state_dir(),
            poll: session.poll,
            ignore: IgnoreOptions {
                master: defaults.master(),
                packs: defaults.packs().into_iter().map(str::to_owned).collect(),
                gitignore: session.gitignore,
            },
            trash_days: defaults.trash.days,
            owner: session.owner || defaults.metadata.owner,
            xattr: session.xattr || defaults.metadata.xattr,
        }
    }
}

/// What an opened folder is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To be kept equal; held while it is open.
    Change {
        /// A folder that is missing is made.
        create: bool,
    },
    /// To be looked at; nothing is created anywhere.
    Preview,
    /// Only its records are read, also while another process holds it.
    Read,
}

/// Looks at a folder and at what is recorded about it.
pub(crate) fn inspect(path: &Path) -> Result<Inspection, Failure> {
    let seen = instep_local::root::inspect(path, &places::state_dir())?;
    let memberships: Vec<_> = seen
        .memberships
        .iter()
        .map(|m| Membership {
            share: m.share,
            replica: m.replica,
            role: m.role,
            mirror: m.kind == MembershipKind::Mirror,
            label: m.label.clone(),
            members: m.members.clone(),
        })
        .collect();
    let hidden = hidden(path);
    let unreadable = seen.is_dir.then(|| unreadable(&seen.path)).flatten();
    let bare = seen.is_dir
        && memberships.is_empty()
        && instep_local::root::is_bare_mount_point(&seen.path, &places::state_dir());
    Ok(Inspection {
        // What cannot be reached is there as far as anybody knows.
        exists: seen.exists || hidden.is_some(),
        is_dir: seen.is_dir || hidden.is_some(),
        identity: identity(&seen.path),
        unreadable: hidden.or(unreadable),
        unwritable: unwritable(&seen.path),
        foreign: seen.foreign,
        holder: seen.holder,
        memberships,
        bare,
        path: if seen.exists { seen.path } else { full(path) },
    })
}

/// The path without links and dots as far as it exists, so that folders that are still to be made can be told
/// apart too.
pub(crate) fn full(path: &Path) -> PathBuf {
    let plain = crate::targets::absolute(path);
    for above in plain.ancestors() {
        if let (Ok(real), Ok(rest)) = (above.canonicalize(), plain.strip_prefix(above)) {
            return if rest.as_os_str().is_empty() {
                real
            } else {
                real.join(rest)
            };
        }
    }
    plain
}

/// The replicas that were last seen at a path that is not there now, or has lost its marker.
pub(crate) fn known_at(path: &Path) -> Vec<ReplicaId> {
    let path = full(path);
    let has_state = top(&path).is_some_and(|(root, ours)| matches!(root.stat(ours), Ok(Some(_))));
    if has_state {
        return Vec::new();
    }
    instep_local::root::known_at(&path, &places::state_dir())
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()))
}

/// Why it cannot even be said whether something is at a path.
fn hidden(path: &Path) -> Option<String> {
    let error = std::fs::metadata(path).err()?;
    let denied = error.kind() == std::io::ErrorKind::PermissionDenied;
    denied.then(|| failed("look at", path, &error))
}

/// Why a folder, or what is ours in it, cannot be listed.
fn unreadable(path: &Path) -> Option<String> {
    if let Err(error) = std::fs::read_dir(path) {
        return Some(failed("list", path, &error));
    }
    let (root, ours) = top(path)?;
    let error = root.open_dir(ours).err()?;
    let attempt = format!("list {}", path.join(".instep").display());
    match error.kind() {
        // What is wrong with something else by that name is said where it is found foreign.
        ErrorKind::Absent | ErrorKind::OtherKind => None,
        _ => Some(instep_fs::Error::new(attempt, error.errno).to_string()),
    }
}

/// A folder, open, and the name of what is ours in it: whoever may write there may have made a link of that name.
fn top(path: &Path) -> Option<(Dir, Name<'static>)> {
    let root = place::open_root(&place::canonical(path).ok()?).ok()?;
    Some((root, Name::new(RESERVED).ok()?))
}

/// Why this user may make nothing in a folder; a file system that is read-only now is another matter.
fn unwritable(path: &Path) -> Option<String> {
    let error = place::may_write(path).err()?;
    (error.kind() == ErrorKind::Denied).then(|| error.to_string())
}

/// A call that failed, in the words of all others.
fn failed(attempt: &str, path: &Path, error: &std::io::Error) -> String {
    let attempt = format!("{attempt} {}", path.display());
    match error.raw_os_error() {
        Some(errno) => instep_fs::Error::new(attempt, errno).to_string(),
        None => format!("{attempt}: {error}"),
    }
}

/// Whether nothing that would be synchronized is directly in a folder; so too when it is not there.
pub(crate) fn is_empty(path: &Path, settings: &Settings) -> bool {
    use std::os::unix::ffi::OsStrExt as _;
    let rules = instep_local::rules::Rules::new(&settings.ignore).top();
    let counts = |entry: &std::fs::DirEntry| {
        let file_name = entry.file_name();
        let is_dir = entry.file_type().is_ok_and(|t| t.is_dir());
        Name::new(file_name.as_bytes())
            .is_ok_and(|name| name.as_bytes() != RESERVED && !rules.ignores(name, is_dir))
    };
    match std::fs::read_dir(path) {
        Ok(mut all) => !all.any(|entry| entry.is_ok_and(|e| counts(&e))),
        Err(e) => e.kind() == std::io::ErrorKind::NotFound,
    }
}

/// Exchanges the ignore rules of open folders.
#[derive(Clone)]
pub(crate) struct IgnoreRules(Vec<Arc<LocalReplica>>);

impl IgnoreRules {
    /// Puts rules in force. What they newly leave alone is not deleted anywhere.
    pub(crate) fn replace(&self, settings: &Settings) {
        for replica in &self.0 {
            replica.set_ignore(&settings.ignore);
        }
    }
}

/// Opens folders as replicas of one share; each remembers where the others are.
pub(crate) fn open_all(
    env: &Arc<dyn Env>,
    settings: &Settings,
    roots: &[Root],
    share: (Choice, ShareId),
    mirror: bool,
    purpose: Purpose,
) -> Result<(Vec<Arc<dyn Replica>>, IgnoreRules), Failure> {
    let open = |root: &Root| open_local(env, settings, root, share, mirror, purpose);
    // Those with a history first: if one of them cannot be opened, nothing was made in the others.
    let mut order: Vec<usize> = (0..roots.len()).collect();
    order.sort_by_key(|i| roots[*i].seen.memberships.is_empty());
    let mut opened = order
        .into_iter()
        .map(|i| open(&roots[i]).map(|replica| (i, Arc::new(replica))))
        .collect::<Result<Vec<_>, _>>()?;
    opened.sort_by_key(|(i, _)| *i);
    let opened: Vec<Arc<LocalReplica>> = opened.into_iter().map(|(_, replica)| replica).collect();
    if matches!(purpose, Purpose::Change { .. }) {
        let id = opened.first().map(|r| r.share());
        let members = members(roots, id);
        for replica in &opened {
            replica.note_members(&members)?;
        }
    }
    let replicas = opened
        .iter()
        .map(|replica| Arc::clone(replica) as Arc<dyn Replica>)
        .collect();
    Ok((replicas, IgnoreRules(opened)))
}

/// Opens one folder as a replica.
pub(crate) fn open(
    env: &Arc<dyn Env>,
    settings: &Settings,
    root: &Root,
    share: (Choice, ShareId),
    mirror: bool,
    purpose: Purpose,
) -> Result<Arc<dyn Replica>, Failure> {
    let replica = open_local(env, settings, root, share, mirror, purpose)?;
    Ok(Arc::new(replica))
}

/// The members of a share: those of this session, and those that are known from earlier ones.
fn members(roots: &[Root], share: Option<ShareId>) -> Vec<(String, PathBuf)> {
    // A folder that is made only now was inspected before it existed.
    let place = |r: &Root| {
        r.typed
            .canonicalize()
            .unwrap_or_else(|_| r.seen.path.clone())
    };
    let mut out: Vec<(String, PathBuf)> =
        roots.iter().map(|r| (r.label.clone(), place(r))).collect();
    let known = roots
        .iter()
        .flat_map(|r| &r.seen.memberships)
        .filter(|m| Some(m.share) == share);
    for (label, at) in known.flat_map(|m| &m.members) {
        if out.iter().all(|(_, known)| known != at) {
            out.push((label.clone(), at.clone()));
        }
    }
    out
}

/// How this process was started, on one line.
fn command_line() -> String {
    let typed = std::env::args_os().skip(1);
    let words: Vec<String> = std::iter::once(String::from("instep"))
        .chain(typed.map(|word| word.to_string_lossy().escape_debug().to_string()))
        .collect();
    words.join(" ")
}

fn open_local(
    env: &Arc<dyn Env>,
    settings: &Settings,
    root: &Root,
    share: (Choice, ShareId),
    mirror: bool,
    purpose: Purpose,
) -> Result<LocalReplica, Failure> {
    let options = OpenOptions {
        label: root.label.clone(),
        location: root.typed.display().to_string(),
        path: root.seen.path.clone(),
        role: root.role,
        share: match share {
            (Choice::Existing(id), _) => ShareChoice::Existing(id),
            (Choice::New, fresh) => ShareChoice::New(fresh),
        },
        mirror,
        create: purpose == Purpose::Change { create: true },
        preview: purpose == Purpose::Preview,
        read_only_index: purpose == Purpose::Read,
        state_dir: settings.state_dir.clone(),
        poll: settings.poll,
        ignore: settings.ignore.clone(),
        trash_days: settings.trash_days,
        owner: settings.owner,
        xattr: settings.xattr,
        command: command_line(),
    };
    LocalReplica::open(Arc::clone(env), options).map_err(|error| {
        match (error.kind, &root.seen.holder) {
            (instep_replica::ErrorKind::InUse, Some(holder)) => {
                crate::roots::in_use(&root.typed, holder)
            }
            _ => {
                let failure = Failure::from(error);
                let what = format!("{}: {}", root.typed.display(), failure.what);
                Failure { what, ..failure }
            }
        }
    })
}

/// Takes a folder out of a share.
pub(crate) fn forget(
    env: &dyn Env,
    root: &Root,
    share: ShareId,
    purge: bool,
) -> Result<(), Failure> {
    instep_local::root::forget(env, &root.seen.path, &places::state_dir(), share, purge).map_err(
        |error| {
            let failure = Failure::from(error);
            if failure.exit == Exit::InUse {
                crate::roots::in_use(&root.typed, &failure.why)
            } else {
                failure
            }
        },
    )
}
