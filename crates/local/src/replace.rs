//! The one place where user data is displaced: a new object takes a name, and what had it is kept.
//!
//! The protocol, for a file that has the name: take a read lease (refused while anybody writes or maps it
//! writable); verify the fingerprint under the lease, so that the bytes are known to be those that the
//! index hashed; exchange the names atomically; release the lease, which lets a blocked writer go on, in
//! the displaced file; look at what was displaced. If it is not what was expected, a user saved at that
//! very moment: those bytes are a version of their own, concurrent with the one just installed. What cannot
//! be judged now may be such bytes, and waits (`unjudged`).
//!
//! Where there is no lease, the displaced file is hashed instead; where there never are any, the replica says
//! "weaker".

use instep_core::path::Name;
use instep_core::plan::{Action, Keep, Outcome, Precondition};
use instep_core::version::Kind;
use instep_fs::{Dir, ErrorKind, File, Lease, Stat};
use instep_replica::Step;

use crate::apply::{self, Done, displaced, failed, matches};
use crate::judge::{Patience, Verdict, judge};
use crate::replica::LocalReplica;
use crate::trash::{self, Displaced, Judged};
use crate::tree::{self, ours};

/// `EAGAIN`.
const EAGAIN: i32 = 11;

/// A hold on what has the name: nobody can open it for writing without our knowing.
pub(crate) struct Guarded {
    pub(crate) stat: Stat,
    pub(crate) lease: Option<Lease>,
    /// The file itself, where there can be a lease.
    pub(crate) file: Option<File>,
}

impl Guarded {
    /// Somebody asks to write to it: it is not to be touched any more.
    pub(crate) fn is_wanted(&self) -> bool {
        self.lease.as_ref().is_some_and(Lease::broken)
    }
}

/// Verifies the precondition, under a lease where there can be one.
pub(crate) fn guard(
    replica: &LocalReplica,
    action: &Action,
    dir: &Dir,
    name: Name<'_>,
) -> Result<Guarded, Outcome> {
    let fail = |e: instep_fs::Error| failed(&action.path, &e);
    let is_file = matches!(
        action.before,
        Precondition::Unchanged {
            kind: Kind::File,
            ..
        }
    );
    let (mut held, mut file) = (None, None);
    if is_file && replica.profile.leases {
        let opened = dir.open_file(name).map_err(fail)?;
        held = lease(&opened).map_err(fail)?;
        file = Some(opened);
    }
    let stat = dir.stat(name).map_err(fail)?.ok_or(Outcome::Superseded)?;
    if !matches(&action.before, &stat) {
        return Err(Outcome::Superseded);
    }
    if stat.kind == instep_fs::Kind::Dir {
        let mut is_empty = true;
        dir.open_dir(name)
            .and_then(|d| d.list(&mut |_, _| is_empty = false))
            .map_err(fail)?;
        if !is_empty {
            return Err(apply::not_empty(replica, action, dir));
        }
    }
    Ok(Guarded {
        stat,
        lease: held,
        file,
    })
}

/// A lease; an error while the file is being written. None of a file that is not ours to lease: there the weaker check
/// has to do. Any other failure says nothing of who writes.
pub(crate) fn lease(file: &File) -> instep_fs::Result<Option<Lease>> {
    match file.read_lease() {
        Ok(Some(lease)) => Ok(Some(lease)),
        Ok(None) => Err(instep_fs::Error::new("take a read lease", EAGAIN)),
        Err(e) if matches!(e.kind(), ErrorKind::Denied | ErrorKind::Unsupported) => Ok(None),
        Err(e) => Err(e),
    }
}

/// As [`guard`], for what stays where it is: a directory may have something in it.
pub(crate) fn hold(
    replica: &LocalReplica,
    action: &Action,
    dir: &Dir,
    name: Name<'_>,
) -> instep_fs::Result<Result<Guarded, Outcome>> {
    let Precondition::Unchanged { kind, .. } = action.before else {
        return Ok(Err(Outcome::Superseded));
    };
    if kind == Kind::File {
        return Ok(guard(replica, action, dir, name));
    }
    let stat = dir.stat(name)?.filter(|s| matches(&action.before, s));
    Ok(stat.ok_or(Outcome::Superseded).map(|stat| Guarded {
        stat,
        lease: None,
        file: None,
    }))
}

/// Puts the staged object at the action's path and keeps what was there.
pub fn exchange(replica: &LocalReplica, action: &Action, dir: &Dir, staged: &str) -> Done {
    let Some((ours_dirs, name)) = replica.ours().zip(action.path.name()) else {
        return Done::not(Outcome::Superseded);
    };
    let staging = &ours_dirs.staging;
    let guarded = match guard(replica, action, dir, name) {
        Ok(g) => g,
        Err(outcome) => {
            discard(replica, staged);
            return Done::not(outcome);
        }
    };
    replica.env.reach(Step::Guarded);
    let swapped = staging.stat(ours(staged)).map_err(Unswapped::from);
    let swapped =
        swapped.and_then(|before| Ok((before, swap(replica, dir, name, staging, staged)?)));
    let (before, displaced) = match swapped {
        Ok(done) => done,
        Err(Unswapped::Undone(e)) => {
            discard(replica, staged);
            return Done::not(failed(&action.path, &e));
        }
        Err(Unswapped::Away(e, aside)) => {
            discard(replica, staged);
            let held = Before::let_go(guarded);
            let mut done = away(action, dir, name, &e);
            keep(
                replica,
                action,
                (staging, ours(&aside)),
                held,
                "interrupted",
                &mut done,
            );
            return done;
        }
    };
    replica.env.reach(Step::Exchanged);
    let held = Before::let_go(guarded);
    if is_elsewhere(replica, action, dir)
        && let Some(done) = not_here(replica, action, (dir, name), staging, &displaced)
    {
        return done;
    }
    let now = dir.stat(name).ok().flatten();
    let mut done = Done::with(before.map(|b| replica.vouched(&action.path, &b, now.as_ref())));
    let displaced = (staging, ours(&displaced));
    keep(replica, action, displaced, held, "overwritten", &mut done);
    done
}

/// Takes what is at the action's path away and keeps it.
pub fn displace(replica: &LocalReplica, action: &Action, dir: &Dir) -> Done {
    let Some((ours_dirs, name)) = replica.ours().zip(action.path.name()) else {
        return Done::not(Outcome::Superseded);
    };
    let guarded = match guard(replica, action, dir, name) {
        Ok(g) => g,
        Err(outcome) => return Done::not(outcome),
    };
    replica.env.reach(Step::Guarded);
    let staged = trash::fresh_name(replica);
    if let Err(e) = tree::take(dir, name, &ours_dirs.staging, ours(&staged)) {
        return Done::not(failed(&action.path, &e));
    }
    replica.env.reach(Step::Taken);
    if is_elsewhere(replica, action, dir)
        && tree::give(&ours_dirs.staging, ours(&staged), dir, name).is_ok()
    {
        replica.hint(action.path.clone());
        return Done::not(Outcome::Superseded);
    }
    let held = Before::let_go(guarded);
    let mut done = Done::with(None);
    let displaced = (&ours_dirs.staging, ours(&staged));
    keep(replica, action, displaced, held, "deleted", &mut done);
    done
}

/// Whether the directory in which something was done has left its path, by a user's rename: what was done there was not
/// done at the path, and the row must not say that it was. What cannot be looked up now has not left.
fn is_elsewhere(replica: &LocalReplica, action: &Action, dir: &Dir) -> bool {
    let Some(parent) = action.path.parent().filter(|p| !p.is_root()) else {
        return false;
    };
    match tree::open(&replica.root, &parent) {
        Ok(now) => {
            let both = (now.stat_self(), dir.stat_self());
            matches!(both, (Ok(now), Ok(then)) if now.ino != then.ino)
        }
        Err(e) => matches!(e.kind(), ErrorKind::Absent | ErrorKind::OtherKind),
    }
}

/// Names were exchanged in a directory that a user has renamed: it is theirs as it was. None where that cannot be,
/// as in a directory that is gone with what was put there.
fn not_here(
    replica: &LocalReplica,
    action: &Action,
    (dir, at): (&Dir, Name<'_>),
    staging: &Dir,
    displaced: &str,
) -> Option<Done> {
    let brought = match swap(replica, dir, at, staging, displaced) {
        Ok(brought) | Err(Unswapped::Away(_, brought)) => brought,
        Err(Unswapped::Undone(_)) => return None,
    };
    replica.hint(action.path.clone());
    let done = Done::not(Outcome::Superseded);
    Some(came_out(replica, action, staging, &brought, done))
}

/// Why names did not change places.
enum Unswapped {
    /// All is as it was.
    Undone(instep_fs::Error),
    /// What had the name could not be given back: it is in the staging directory, under this name.
    Away(instep_fs::Error, String),
}

impl From<instep_fs::Error> for Unswapped {
    fn from(e: instep_fs::Error) -> Self {
        Self::Undone(e)
    }
}

/// Nothing was put there, and what was there is not: that is known, and not for the next look to take for a
/// deletion. Where a user made something there meanwhile, the row stays, and they changed what it tells of.
fn away(action: &Action, dir: &Dir, name: Name<'_>, e: &instep_fs::Error) -> Done {
    let is_taken = matches!(dir.stat(name), Ok(Some(_)));
    Done {
        print: (!is_taken).then_some(None),
        ..Done::not(failed(&action.path, e))
    }
}

/// The names change places; where the file system cannot do that, the old object is moved away first.
/// Returns the name in the staging directory of what was displaced.
fn swap(
    replica: &LocalReplica,
    dir: &Dir,
    name: Name<'_>,
    staging: &Dir,
    staged: &str,
) -> core::result::Result<String, Unswapped> {
    if replica.profile.exchange {
        match staging.exchange(ours(staged), dir, name) {
            Err(e) if matches!(e.kind(), ErrorKind::Unsupported | ErrorKind::OtherDevice) => {}
            result => return Ok(result.map(|()| staged.to_owned())?),
        }
    }
    // RACE: between the two renames the name is absent. Declared as "weaker replace"; a crash here is
    // healed from the intent.
    let aside = trash::fresh_name(replica);
    tree::take(dir, name, staging, ours(&aside))?;
    replica.env.reach(Step::Aside);
    if let Err(e) = tree::give(staging, ours(staged), dir, name) {
        // The user gets it back; where that fails, too, it is kept as any displaced object.
        return match tree::give(staging, ours(&aside), dir, name) {
            Ok(()) => Err(Unswapped::Undone(e)),
            Err(_) => Err(Unswapped::Away(e, aside)),
        };
    }
    Ok(aside)
}

/// What was displaced, and how it was held until then.
#[derive(Debug, Clone, Copy)]
struct Before {
    stat: Stat,
    grip: Grip,
}

/// How a file was held while it was displaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grip {
    /// Nobody wrote to it.
    Firm,
    /// Somebody asked to write to it, and goes on now.
    Wanted,
    /// There was no lease.
    None,
}

impl Before {
    /// Lets a blocked writer go on.
    fn let_go(guarded: Guarded) -> Self {
        let had_lease = guarded.lease.is_some();
        let grip = match release(guarded.lease) {
            true => Grip::Wanted,
            false if had_lease => Grip::Firm,
            false => Grip::None,
        };
        let stat = guarded.stat;
        Self { stat, grip }
    }

    /// What is there now is that very object, and nobody wrote to it.
    fn is_still(self, staging: &Dir, name: Name<'_>) -> bool {
        let same = |s: Stat| {
            s.ino == self.stat.ino
                && s.size == self.stat.size
                && s.mtime == self.stat.mtime
                && s.kind == self.stat.kind
        };
        self.grip == Grip::Firm && matches!(staging.stat(name), Ok(Some(s)) if same(s))
    }
}

/// Lets a blocked writer go on; whether there was one.
pub(crate) fn release(lease: Option<Lease>) -> bool {
    let Some(lease) = lease else { return false };
    let broken = lease.broken();
    drop(lease);
    broken
}

fn discard(replica: &LocalReplica, staged: &str) {
    let Some(dirs) = replica.ours() else { return };
    let name = ours(staged);
    // It never was anything but ours; a failure leaves litter that the next start sweeps.
    let _litter = match dirs.staging.stat(name) {
        Ok(Some(s)) if s.kind == instep_fs::Kind::Dir => dirs.staging.remove_dir(name),
        _ => dirs.staging.remove_file(name),
    };
}

/// Looks at what was displaced into the staging directory, and moves it to where it is kept.
fn keep(
    replica: &LocalReplica,
    action: &Action,
    (staging, name): (&Dir, Name<'_>),
    held: Before,
    why: &'static str,
    done: &mut Done,
) {
    if held.stat.kind == instep_fs::Kind::Dir {
        return husk(replica, action, staging, name, done);
    }
    let mut what = displaced(action, why, held.stat.size);
    let verdict = if held.is_still(staging, name) {
        Verdict::Expected
    } else {
        let patience = match held.grip {
            Grip::Wanted => Patience::More,
            Grip::Firm | Grip::None => Patience::Some,
        };
        judge(replica, staging, name, what.content, patience)
    };
    what.judged = match &verdict {
        Verdict::Gone => return,
        Verdict::Foreign => return give_back(replica, action, name, done),
        Verdict::Expected => Judged::Yes,
        Verdict::Unknown => Judged::NotYet,
        Verdict::Saved(found) => match sibling(replica, action, found, done) {
            Some(dot) => {
                what.was_saved(found, dot);
                Judged::Yes
            }
            None => Judged::NotYet,
        },
    };
    replica.env.reach(Step::Judged);
    let key = if what.judged == Judged::Yes {
        put(replica, staging, name, &what)
    } else {
        replica.hint(action.path.clone());
        trash::leave(replica, name, &what)
    };
    done.displaced.push((key, what));
}

/// Moves what was judged to where it is kept; its key there.
fn put(replica: &LocalReplica, staging: &Dir, name: Name<'_>, what: &Displaced) -> String {
    let key = trash::put(replica, staging, name, what.keep).unwrap_or_else(|e| {
        replica.note_problem(&what.path, &e);
        trash::leave(replica, name, what)
    });
    replica.env.reach(match what.keep {
        Keep::Trash => Step::Trashed,
        Keep::Version(_) => Step::Stored,
    });
    key
}

/// Registers bytes that were at the path when it was taken, as a sibling of what was put there.
fn sibling(
    replica: &LocalReplica,
    action: &Action,
    found: &instep_replica::Found,
    done: &mut Done,
) -> Option<instep_core::id::Dot> {
    let mut index = replica.index();
    let old = index.get(&action.path).ok().flatten().unwrap_or_default();
    let now = index.now(replica.env.wall_ns());
    let version = crate::record::saved_version(found, &old, now)?;
    let dot = index.mint().ok()?;
    drop(index);
    // A mirror puts back what its target had superseded: it is what is on disk all the same.
    let seen = old.entry.ctx();
    let entry = action
        .entry
        .record_beneath(action.shown, seen, dot, version);
    done.entry = Some(entry);
    replica.hint(action.path.clone());
    Some(dot)
}

/// A directory was displaced: it is empty, or what is in it goes back to the user.
fn husk(replica: &LocalReplica, action: &Action, staging: &Dir, name: Name<'_>, done: &mut Done) {
    if staging.remove_dir(name).is_ok() {
        replica.env.reach(Step::HuskGone);
        replica.unwatch(&action.path);
        return;
    }
    // Something is still in it (an ignored file, or one made just now).
    give_back(replica, action, name, done);
}

/// What was displaced goes back to its name, and what we put there comes out again.
fn give_back(replica: &LocalReplica, action: &Action, name: Name<'_>, done: &mut Done) {
    let Some((dirs, (parent, at))) = replica.ours().zip(action.path.split()) else {
        return;
    };
    let staged = std::str::from_utf8(name.as_bytes()).unwrap_or_default();
    *done = match tree::open(&replica.root, &parent) {
        Err(e) => Done::not(failed(&action.path, &e)),
        Ok(dir) => match tree::give(&dirs.staging, name, &dir, at) {
            Ok(()) => Done::not(Outcome::Superseded),
            Err(e) if e.kind() != ErrorKind::Taken => Done::not(failed(&action.path, &e)),
            Err(_) => swap_back(replica, action, (&dir, at), &dirs.staging, staged),
        },
    };
    replica.hint(action.path.clone());
}

/// As [`give_back`], where something has the name.
fn swap_back(
    replica: &LocalReplica,
    action: &Action,
    (dir, at): (&Dir, Name<'_>),
    staging: &Dir,
    staged: &str,
) -> Done {
    let (done, brought) = match swap(replica, dir, at, staging, staged) {
        Ok(brought) => (Done::not(apply::not_empty(replica, action, dir)), brought),
        Err(Unswapped::Undone(e)) => return Done::not(failed(&action.path, &e)),
        Err(Unswapped::Away(e, brought)) => (away(action, dir, at, &e), brought),
    };
    came_out(replica, action, staging, &brought, done)
}

/// What we had put there is aside again. It was in a user's reach: only what is still ours goes.
fn came_out(
    replica: &LocalReplica,
    action: &Action,
    staging: &Dir,
    brought: &str,
    mut done: Done,
) -> Done {
    let Some(put) = action.entry.get_shown(action.shown) else {
        return done;
    };
    let name = ours(brought);
    let verdict = judge(replica, staging, name, put.content, Patience::Some);
    if matches!(verdict, Verdict::Expected) || put.kind == Kind::Dir {
        discard(replica, brought);
        return done;
    }
    let what = Displaced {
        path: action.path.clone(),
        kind: put.kind,
        content: put.content,
        size: put.size,
        why: "overwritten",
        by: String::new(),
        keep: Keep::Trash,
        judged: Judged::NotYet,
    };
    let key = trash::leave(replica, name, &what);
    done.displaced.push((key, what));
    done
}
