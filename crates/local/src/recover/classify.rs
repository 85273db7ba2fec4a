//! What became of an intent: the disk is classified by content, and the row follows.
//!
//! Invariant: no dot is minted here, and what a user did after an intent counts more than the intent. The
//! decision takes values and gives a value; the table of it is in the head of `recover`.

use instep_core::entry::Relation;
use instep_core::id::ContentId;
use instep_core::path::RelPath;
use instep_core::row::{Print, Row};
use instep_core::time::Mtime;
use instep_core::version::{Kind, Version};
use instep_replica::Result;

use super::doubt::zeros;
use super::earlier::Earlier;
use super::intent::Intended;
use super::on_disk::{OnDisk, on_disk};
use super::remedy::{Remedy, ancestor, set_aside, unseen};
use crate::print::{unlike, unlike_any};
use crate::replica::LocalReplica;
use crate::tree;

/// How the replica died, as far as it matters to what may be found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Death {
    /// With the machine: names and data may be gone that had been there.
    pub(super) other_boot: bool,
    /// While a name that is replaced may have been missing: what had it is aside.
    pub(super) aside: bool,
    /// What had the name is among what we displaced: what was brought has been there.
    pub(super) taken: bool,
}

/// Brings the row of an intended path together with the disk.
pub(super) fn classify(
    replica: &LocalReplica,
    intended: &Intended,
    earlier: &Earlier,
    death: Death,
) -> Result<()> {
    let path = &intended.path;
    let want = intended.entry.get_shown(intended.shown);
    let want = want.filter(|v| !v.is_tomb()).map(|v| v.content);
    if intended.old.is_some() && intended.old == want {
        // Names stay as they are: only metadata was to change.
        replica.doubt_attributes(path);
        return Ok(());
    }
    let old = replica.index().get(path)?;
    if old.as_ref().is_some_and(|row| has_moved_on(row, intended)) {
        return Ok(());
    }
    let seen = on_disk(replica, path);
    let had = |content, ctime| earlier.had(path, content, ctime);
    let is_part = earlier.has_part(replica, path, old.as_ref(), &seen);
    let new = match decide(seen, intended, old.as_ref(), had, is_part, death) {
        Remedy::Leave => return Ok(()),
        Remedy::SetAside => return set_aside(replica, intended, seen),
        Remedy::Unseen => unseen(&old.clone().unwrap_or_default()),
        Remedy::Ancestor(file, print) => {
            ancestor(replica, &old.clone().unwrap_or_default(), *file, print)
        }
        Remedy::InPlace(print) => Row {
            entry: intended.entry.clone(),
            shown: intended.shown.filter(|_| !is_still_open(intended, print)),
            print: match intended.entry.get_shown(intended.shown) {
                // A power cut may have taken the time.
                Some(v) if !death.other_boot && was_touched(replica, v, &seen) => {
                    print.map(unlike_any)
                }
                _ => print,
            },
            seen: None,
            held: None,
            epoch: replica.index().epoch(),
        },
    };
    if new.print.is_some() {
        on_the_way(replica, path)?;
    }
    let mut index = replica.index();
    replica.look_at_attributes(&mut index, path);
    index.put(path, old.as_ref(), &new)
}

/// What is there has directories above it, whose rows may have been lost although they were made on the way: only
/// they lead a look to it.
fn on_the_way(replica: &LocalReplica, path: &RelPath) -> Result<()> {
    let above = std::iter::successors(path.parent(), RelPath::parent);
    let above: Vec<RelPath> = above.take_while(|dir| !dir.is_root()).collect();
    for at in above.into_iter().rev() {
        let row = replica.index().get(&at)?;
        let Some((parent, name)) = at.split().filter(|_| row.is_none_or(|r| r.print.is_none()))
        else {
            continue;
        };
        let seen = tree::open(&replica.root, &parent).and_then(|dir| Ok((dir.stat(name)?, dir)));
        // What cannot be seen now is found as something new.
        if let Ok((Some(stat), dir)) = seen
            && stat.kind == instep_fs::Kind::Dir
        {
            replica.derived(&at, replica.as_made(&dir, &stat, 0o755));
        }
    }
    Ok(())
}

/// A directory that is still open for what was to come into it: it stands for its contents, and the next plan gives
/// it the mode that is its own, after them.
fn is_still_open(intended: &Intended, seen: Option<Print>) -> bool {
    let want = intended.entry.get_shown(intended.shown);
    want.zip(seen)
        .is_some_and(|(v, seen)| v.kind == Kind::Dir && seen.mode != v.mode)
}

/// The row has moved on since: the intent was carried out, and what a user did after it counts.
pub(super) fn has_moved_on(row: &Row, intended: &Intended) -> bool {
    let relation = row.entry.relation(&intended.entry);
    matches!(relation, Relation::After | Relation::Concurrent)
}

fn decide(
    seen: OnDisk,
    intended: &Intended,
    old: Option<&Row>,
    had: impl Fn(ContentId, Mtime) -> bool,
    is_part: bool,
    death: Death,
) -> Remedy {
    let want = intended.entry.get_shown(intended.shown);
    let file = seen.file().filter(|_| !want.is_none_or(Version::is_tomb));
    match seen {
        OnDisk::Something {
            kind,
            content,
            print,
            ..
        } if want.is_some_and(|v| v.kind == kind && v.content == content) => {
            Remedy::InPlace(want.map(|v| installed(v, print)))
        }
        // What is there now, or is missing, is what a user made of what was brought: the next look says so.
        _ if death.taken => {
            let brought = want.filter(|v| !v.is_tomb());
            let was = old.and_then(|r| r.print);
            let look = |v: &Version, was: Print| {
                unlike_any(Print {
                    mode: v.mode,
                    ..was
                })
            };
            Remedy::InPlace(brought.zip(was).map(|(v, was)| look(v, was)))
        }
        OnDisk::Unknown => Remedy::Leave,
        OnDisk::Nothing if want.is_none_or(Version::is_tomb) => Remedy::InPlace(None),
        // A name does not go away when a process dies: a user took it away, and the next look says so.
        // Only where names cannot be exchanged there is a moment without one, and what had it is aside then.
        OnDisk::Nothing if !death.other_boot && !death.aside => Remedy::Leave,
        OnDisk::Nothing => Remedy::Unseen,
        OnDisk::Something { content, .. } if intended.old == Some(content) => {
            // The row may have been committed although a power cut took the name: what is there is the old version.
            // No other death takes it, and a user put that there again.
            let says_new = |r: &Row| r.entry == intended.entry && r.shown == intended.shown;
            let is_ahead = death.other_boot && old.is_some_and(says_new);
            match file.filter(|_| is_ahead) {
                Some((file, print)) => Remedy::Ancestor(file, print),
                None if is_ahead => Remedy::SetAside,
                None => Remedy::Leave,
            }
        }
        OnDisk::Something { content, ctime, .. } if death.other_boot && had(content, ctime) => file
            .map_or(Remedy::SetAside, |(file, print)| {
                Remedy::Ancestor(file, print)
            }),
        OnDisk::Something {
            kind,
            content,
            size,
            mtime,
            ..
        } if death.other_boot && !is_part && !may_be_torn(want, kind, content, size, mtime) => {
            Remedy::Unseen
        }
        OnDisk::Something { .. } if death.other_boot => Remedy::SetAside,
        OnDisk::Something { .. } => Remedy::Leave,
    }
}

/// What is there may be what a power cut left of what was brought: of a file, which has its time before it has a name.
/// A file with another time was saved or moved there later, and nobody had seen it yet; a link comes whole or not at
/// all; and what is in a directory is judged by itself.
fn may_be_torn(
    want: Option<&Version>,
    kind: Kind,
    content: ContentId,
    size: u64,
    mtime: Mtime,
) -> bool {
    match kind {
        Kind::Dir => true,
        Kind::Link | Kind::Tomb => false,
        Kind::File if content == zeros(size) => true,
        Kind::File => want.is_some_and(|v| v.kind == Kind::File && is_time_of(mtime, v.mtime)),
    }
}

/// Whether a file that was given a time has it, where a file system may keep it less exactly.
pub(super) fn is_time_of(seen: Mtime, given: Mtime) -> bool {
    const COARSE_SECS: i64 = 2;
    seen <= given && given.secs.saturating_sub(seen.secs) <= COARSE_SECS
}

/// The fingerprint to record of a version that was being installed, given what it looks like. Other
/// permissions than its own are a user's change, which the next look must find; but a directory is open for
/// its owner until its contents are in.
fn installed(version: &Version, seen: Print) -> Print {
    let as_made = match version.kind {
        Kind::Link => true,
        Kind::Dir => seen.mode == version.mode || seen.mode == version.mode | 0o700,
        Kind::File | Kind::Tomb => seen.mode == version.mode,
    };
    if as_made {
        return seen;
    }
    unlike(seen, version.mode)
}

/// Whether a file that was given its time before it had a name has another: a user touched it since, which the next
/// look must find. What moved here is given its time when it has the name, and may not have got it; and not every file
/// system keeps every time.
fn was_touched(replica: &LocalReplica, version: &Version, seen: &OnDisk) -> bool {
    const KEPT_SECS: core::ops::Range<i64> = 315_532_800..1 << 31;
    let OnDisk::Something {
        kind: Kind::File,
        mtime,
        ..
    } = seen
    else {
        return false;
    };
    let granularity_ns = replica.profile.mtime_granularity_ns;
    version.moved.is_none()
        && KEPT_SECS.contains(&version.mtime.secs)
        && !is_kept_time(granularity_ns, version.mtime, *mtime)
}

/// Whether what was given a time has it, as far as this file system keeps it.
pub(super) fn is_kept_time(granularity_ns: u32, given: Mtime, seen: Mtime) -> bool {
    let times = given.nanos_since_epoch().zip(seen.nanos_since_epoch());
    let lost = times.and_then(|(given, seen)| given.checked_sub(seen));
    let is_cut = lost.is_some_and(|ns| (0..i64::from(granularity_ns)).contains(&ns));
    is_cut || seen == given
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: Mtime = Mtime {
        secs: 1_600_000_000,
        nanos: 500,
    };

    fn version(kind: Kind) -> Version {
        Version {
            content: ContentId([1; 32]),
            size: 9,
            mode: 0o644,
            mtime: GIVEN,
            te: 1,
            mode_te: 1,
            ..Version::bare(kind)
        }
    }

    #[test]
    fn what_a_user_put_there_is_taken_for_what_is_left_of_what_was_brought() {
        let [file, link, tomb] = [Kind::File, Kind::Link, Kind::Tomb].map(version);
        let other = ContentId([2; 32]);
        let at = |secs, nanos| Mtime { secs, nanos };
        let (same, coarse) = (GIVEN, at(GIVEN.secs - 1, 0));
        let (older, newer) = (at(GIVEN.secs - 3, 500), at(GIVEN.secs, 501));
        let table = [
            (Some(&file), Kind::File, other, same, true),
            (Some(&file), Kind::File, other, coarse, true),
            (Some(&file), Kind::File, other, older, false),
            (Some(&file), Kind::File, other, newer, false),
            (Some(&file), Kind::File, zeros(5), newer, true),
            (Some(&file), Kind::Link, other, same, false),
            (Some(&link), Kind::File, other, same, false),
            (Some(&link), Kind::Link, other, same, false),
            (Some(&link), Kind::File, zeros(5), same, true),
            (Some(&tomb), Kind::File, other, same, false),
            (None, Kind::File, other, same, false),
            (Some(&file), Kind::Dir, ContentId::NONE, same, true),
        ];
        for (line, (want, kind, content, mtime, torn)) in table.into_iter().enumerate() {
            let judged = may_be_torn(want, kind, content, 5, mtime);
            assert_eq!(judged, torn, "line {line}");
        }
    }
}
