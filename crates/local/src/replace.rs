//! The one place where user data is displaced: a new object takes a name, and what had it is kept.
//!
//! The protocol, for a file that has the name: take a read lease (refused while anybody writes or maps it
//! writable); verify the fingerprint under the lease, so that the bytes are known to be those that the
//! index hashed; exchange the names atomically; release the lease, which lets a blocked writer go on, in
//! the displaced file; look at what was displaced. If it is not what was expected, a user saved at that
//! very moment: those bytes are a version of their own, concurrent with the one just installed.
//!
//! Where there are no leases, the displaced file is hashed instead, and the replica says "weaker".

use instep_core::id::ContentId;
use instep_core::path::Name;
use instep_core::plan::{Action, Keep, Outcome, Precondition};
use instep_core::version::Kind;
use instep_fs::{Dir, ErrorKind, File, Lease, Stat};
use instep_replica::Step;

use crate::apply::{self, Done, displaced, failed, matches};
use crate::content::{Hashed, hash_file};
use crate::replica::LocalReplica;
use crate::scan;
use crate::trash;
use crate::tree::{self, ours};

/// How long a writer that we made wait gets to finish before its file is looked at, in milliseconds.
const LATE_WRITER_MS: u64 = 250;

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
    let (mut lease, mut held) = (None, None);
    if is_file && replica.profile.leases {
        let file = dir.open_file(name).map_err(fail)?;
        match file.read_lease() {
            Ok(None) => return Err(Outcome::Busy),
            Ok(Some(l)) => lease = Some(l),
            // Not ours to lease: the weaker check below has to do.
            Err(_) => {}
        }
        held = Some(file);
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
        lease,
        file: held,
    })
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
            let late = release(guarded.lease);
            let mut done = away(action, dir, name, &e);
            let (aside, expected) = (ours(&aside), &guarded.stat);
            keep(
                replica,
                action,
                staging,
                aside,
                expected,
                late,
                "interrupted",
                &mut done,
            );
            return done;
        }
    };
    replica.env.reach(Step::Exchanged);
    let late = release(guarded.lease);
    let now = dir.stat(name).ok().flatten();
    let mut done = Done::with(before.map(|b| replica.vouched(&action.path, &b, now.as_ref())));
    keep(
        replica,
        action,
        staging,
        ours(&displaced),
        &guarded.stat,
        late,
        "overwritten",
        &mut done,
    );
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
    let late = release(guarded.lease);
    let mut done = Done::with(None);
    keep(
        replica,
        action,
        &ours_dirs.staging,
        ours(&staged),
        &guarded.stat,
        late,
        "deleted",
        &mut done,
    );
    done
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
#[expect(
    clippy::too_many_arguments,
    reason = "the end of both protocols, with what each knows"
)]
fn keep(
    replica: &LocalReplica,
    action: &Action,
    staging: &Dir,
    name: Name<'_>,
    expected: &Stat,
    late: bool,
    why: &'static str,
    done: &mut Done,
) {
    if expected.kind == instep_fs::Kind::Dir {
        return husk(replica, action, staging, name, done);
    }
    let surprise = surprise(replica, action, staging, name, expected, late);
    let keep = match &surprise {
        Some(found) => {
            let Some(dot) = sibling(replica, action, found, done) else {
                return;
            };
            Keep::Version(dot)
        }
        None => action.keep,
    };
    replica.env.reach(Step::Judged);
    let key = trash::put(replica, staging, name, keep).unwrap_or_else(|e| {
        replica.note_problem(&action.path, &e);
        trash::leave(replica, name, keep)
    });
    replica.env.reach(match keep {
        Keep::Trash => Step::Trashed,
        Keep::Version(_) => Step::Stored,
    });
    let mut what = displaced(action, why, expected.size);
    what.keep = keep;
    if let Some(scan_found) = surprise {
        what.why = "conflict";
        if let instep_replica::Found::Present {
            kind,
            content,
            size,
            ..
        } = scan_found
        {
            (what.kind, what.content, what.size) = (kind, content, size);
        }
    }
    done.displaced.push((key, what));
}

/// What was displaced, if it is not what was expected: a user's save of that very moment.
fn surprise(
    replica: &LocalReplica,
    action: &Action,
    staging: &Dir,
    name: Name<'_>,
    expected: &Stat,
    late: bool,
) -> Option<instep_replica::Found> {
    let Precondition::Unchanged { content, .. } = action.before else {
        return None;
    };
    let stat = staging.stat(name).ok().flatten()?;
    let same = |s: &Stat| {
        s.ino == expected.ino
            && s.size == expected.size
            && s.mtime == expected.mtime
            && s.kind == expected.kind
    };
    if stat.kind == instep_fs::Kind::Link {
        let target = staging.read_link(name).ok()?;
        let id = instep_chunk::hash::content_id(&target);
        let found = || scan::present(Kind::Link, id, &stat, target.into(), false);
        return (id != content).then(found);
    }
    if stat.kind != instep_fs::Kind::File {
        return None;
    }
    if same(&stat) && !late && replica.profile.leases {
        return None;
    }
    let (id, stat, high) = settle(replica, staging, name, late)?;
    (id != content).then(|| scan::present(Kind::File, id, &stat, Box::default(), high))
}

/// Waits until nobody writes the displaced file any more, then hashes it.
fn settle(
    replica: &LocalReplica,
    staging: &Dir,
    name: Name<'_>,
    late: bool,
) -> Option<(ContentId, Stat, bool)> {
    let file = staging.open_file(name).ok()?;
    let mut buffer = Vec::new();
    let mut waited = 0;
    if late {
        // The writer that we woke needs a moment to get its descriptor.
        replica.env.sleep_ms(5);
        waited += 5;
    }
    loop {
        let free = !replica.profile.leases || !matches!(file.read_lease(), Ok(None));
        let stat = file.stat().ok()?;
        if (free || waited >= LATE_WRITER_MS)
            && let Ok(Hashed::Content { id, high_entropy }) =
                hash_file(&file, &stat, true, &mut buffer)
        {
            return Some((id, stat, high_entropy));
        }
        if waited >= 4 * LATE_WRITER_MS {
            // Written without end: what is there stays in our hands and is not lost.
            return None;
        }
        replica.env.sleep_ms(2);
        waited += 2;
    }
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
    match staging.remove_dir(name) {
        Ok(()) => {
            replica.env.reach(Step::HuskGone);
            replica.unwatch(&action.path);
        }
        Err(_) => {
            // Something is still in it (an ignored file, or one made just now): undo.
            let Some((dirs, parent)) = replica.ours().zip(action.path.parent()) else {
                return;
            };
            let Some(at) = action.path.name() else { return };
            let staged = std::str::from_utf8(name.as_bytes()).unwrap_or_default();
            *done = match tree::open(&replica.root, &parent) {
                Err(e) => Done::not(failed(&action.path, &e)),
                Ok(dir) => match swap(replica, &dir, at, &dirs.staging, staged) {
                    Ok(brought) => {
                        discard(replica, &brought);
                        Done::not(apply::not_empty(replica, action, &dir))
                    }
                    Err(Unswapped::Undone(e)) => Done::not(failed(&action.path, &e)),
                    Err(Unswapped::Away(e, brought)) => {
                        discard(replica, &brought);
                        away(action, &dir, at, &e)
                    }
                },
            };
        }
    }
}
