//! What was given permissions and a time where it is, or moved: what may be recorded of it.
//!
//! A save in place is told by its time and size. Owns what is done where our own time took the place of that time.
//! Invariant: what a user may have changed is recorded with a look that nothing has.

use instep_core::path::Name;
use instep_core::plan::{Action, Goal};
use instep_core::row::Print;
use instep_fs::{Dir, Kind, Lease, Stat};

use crate::judge::{Patience, Verdict, judge};
use crate::print::{print, unlike, unlike_any};
use crate::replace;
use crate::replica::LocalReplica;

/// What may be recorded of what has the action's name, looked like `before`, and may have been given a time; the lease
/// held off whoever wanted to write until now.
pub(crate) fn told(
    replica: &LocalReplica,
    action: &Action,
    (dir, name): (&Dir, Name<'_>),
    before: &Stat,
    (has_our_time, lease): (bool, Option<Lease>),
) -> instep_fs::Result<Print> {
    let is_dir = before.kind == Kind::Dir;
    let same = |s: &Stat| {
        let is_as_old = has_our_time || is_dir || s.mtime == before.mtime;
        s.ino == before.ino && s.size == before.size && is_as_old
    };
    let now = dir.stat(name)?.filter(same);
    let is_hidden = has_our_time && lease.is_none() && !is_dir;
    let written = replace::release(lease);
    // Written meanwhile: the look from before is recorded, which nothing has any more.
    let Some(now) = now.filter(|_| !written) else {
        return Ok(print(before));
    };
    let seen = as_set(replica, action, &now);
    // Nobody was kept from writing. Whoever writes from now on gives it another time than ours.
    if is_hidden && !is_what_it_should_be(replica, action, dir, name) {
        replica.hint(action.path.clone());
        return Ok(unlike_any(seen));
    }
    Ok(seen)
}

/// It was read, and has the content of the version that it shows.
fn is_what_it_should_be(
    replica: &LocalReplica,
    action: &Action,
    dir: &Dir,
    name: Name<'_>,
) -> bool {
    let version = action.entry.get_shown(action.shown);
    version.is_some_and(|v| {
        let verdict = judge(replica, dir, name, v.content, Patience::None);
        matches!(verdict, Verdict::Expected)
    })
}

/// What may be recorded of something whose permissions were just set. Others are a user's change, which the next look
/// must find.
fn as_set(replica: &LocalReplica, action: &Action, stat: &Stat) -> Print {
    let seen = print(stat);
    let wanted = match action.goal {
        Goal::Metadata { mode, .. } => Some(mode),
        _ => action.entry.get_shown(action.shown).map(|v| v.mode),
    };
    let is_link = stat.kind == Kind::Link;
    match wanted.filter(|mode| *mode != seen.mode) {
        Some(mode) if !is_link && replica.profile.modes => unlike(seen, mode),
        _ => seen,
    }
}
