//! What a crash left in the staging directory: content under way, and what had just been displaced.
//!
//! Owns the cleaning of that directory. Invariant: only what an intent was bringing, and therefore exists
//! elsewhere, is removed, and only while nothing of that can have been lost; anything else may be a user's only copy.
//! It goes to trash, or where it lost a conflict, to the version store.

use instep_core::id::{ContentId, Dot};
use instep_core::path::{Name, RelPath};
use instep_core::plan::Keep;
use instep_core::version::{Kind, Version};
use instep_fs::{Dir, Stat};
use instep_replica::{Result, Step};

use super::intent::Intended;
use super::on_disk::content;
use crate::index::Index;
use crate::replica::LocalReplica;
use crate::trash::{self, Displaced};
use crate::unjudged;

/// Clears the staging directory: a displaced file that had not reached its place is kept, the rest was
/// never anybody's.
pub(crate) fn sweep(replica: &LocalReplica, intents: &[Intended], other_boot: bool) -> Result<()> {
    let Some(dirs) = replica.ours() else {
        return Ok(());
    };
    for name in names(&dirs.staging).unwrap_or_default() {
        let Ok(name) = Name::new(&name) else {
            continue;
        };
        // What cannot be looked up is not taken for something that no record lists.
        let listed = trash::listed(&mut replica.index(), name)?;
        if let Some((table, record)) = listed {
            unjudged::recall(replica, name, table, &record, !other_boot);
            continue;
        }
        match dirs.staging.stat(name) {
            Ok(Some(stat)) if stat.kind == instep_fs::Kind::Dir => {
                keep_below(replica, &dirs.staging, name, intents)?;
            }
            Ok(Some(stat)) => {
                keep_or_drop(replica, &dirs.staging, name, &stat, intents, other_boot)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Something that was displaced is still here, and no record says so: the process died before it had given the name to
/// what takes its place, or soon after. What an intent was bringing is nothing of that kind. What is judged by this is on
/// record before the sweep takes anything away.
pub(super) fn is_any_aside(replica: &LocalReplica, intents: &[Intended]) -> Result<bool> {
    let Some(dirs) = replica.ours() else {
        return Ok(false);
    };
    let Some(names) = names(&dirs.staging) else {
        return Ok(true);
    };
    for name in names {
        let Ok(name) = Name::new(&name) else {
            continue;
        };
        let is_listed = trash::listed(&mut replica.index(), name)?.is_some();
        if !is_listed && !is_only_brought(&dirs.staging, name, intents) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What is there is what an intent was bringing. What cannot be read is not.
fn is_only_brought(dir: &Dir, name: Name<'_>, intents: &[Intended]) -> bool {
    let stat = dir.stat(name).ok().flatten();
    let seen = stat.and_then(|stat| content(dir, name, &stat).ok().flatten());
    seen.is_some_and(|(_, id)| is_brought(intents, id))
}

/// Some intent was bringing this content, and none was taking it away.
fn is_brought(intents: &[Intended], id: ContentId) -> bool {
    let brings = |i: &Intended| {
        let version = i.entry.get_shown(i.shown);
        version.is_some_and(|v| v.content == id)
    };
    intents.iter().any(brings) && !intents.iter().any(|i| i.old == Some(id))
}

/// All names in a directory, if it can be listed to its end.
fn names(dir: &Dir) -> Option<Vec<Vec<u8>>> {
    let mut names: Vec<Vec<u8>> = Vec::new();
    let listed = dir.list(&mut |name, _| names.push(name.to_vec()));
    listed.is_ok().then_some(names)
}

/// A directory that was displaced with something in it, and could not be given back: files and links are
/// kept, the directories go.
fn keep_below(
    replica: &LocalReplica,
    parent: &Dir,
    name: Name<'_>,
    intents: &[Intended],
) -> Result<()> {
    let Ok(dir) = parent.open_dir(name) else {
        return Ok(());
    };
    let Some(names) = names(&dir) else {
        return Ok(());
    };
    for child in names {
        let Ok(child) = Name::new(&child) else {
            continue;
        };
        match dir.stat(child) {
            Ok(Some(stat)) if stat.kind == instep_fs::Kind::Dir => {
                keep_below(replica, &dir, child, intents)?;
            }
            Ok(Some(stat)) => {
                if let Ok(Some(seen)) = content(&dir, child, &stat) {
                    keep(replica, (&dir, child), seen, stat.size, intents)?;
                }
            }
            _ => {}
        }
    }
    // Whatever could not be moved keeps it standing until the next start.
    let _left_if_full = parent.remove_dir(name);
    Ok(())
}

fn keep_or_drop(
    replica: &LocalReplica,
    staging: &Dir,
    name: Name<'_>,
    stat: &Stat,
    intents: &[Intended],
    other_boot: bool,
) -> Result<()> {
    let Ok(Some((kind, id))) = content(staging, name, stat) else {
        return Ok(());
    };
    // Content that some intent was bringing exists elsewhere; anything else may be a user's only copy. After a power
    // cut the copy under way may be the last one, whoever had it before.
    if is_brought(intents, id) && !other_boot {
        let _litter = staging.remove_file(name);
        replica.env.reach(Step::StrayDropped);
        return Ok(());
    }
    keep(replica, (staging, name), (kind, id), stat.size, intents)
}

/// Moves what is nobody's litter to where it is kept, with a record.
fn keep(
    replica: &LocalReplica,
    (from, name): (&Dir, Name<'_>),
    (kind, id): (Kind, ContentId),
    size: u64,
    intents: &[Intended],
) -> Result<()> {
    let (path, keep) = {
        let mut index = replica.index();
        let (path, lost) = displaced_by(&mut index, intents, id)?;
        // The trash is emptied some day; what a person has yet to decide about is not.
        let open = trash::open_loser(&mut index, id)?;
        (path, lost.or(open).map_or(Keep::Trash, Keep::Version))
    };
    let what = Displaced {
        keep,
        ..Displaced::interrupted(path, kind, id, size)
    };
    if let Ok(key) = trash::put(replica, from, name, keep) {
        replica.env.reach(Step::StrayKept);
        trash::note(replica, &mut replica.index(), &key, &what)?;
    }
    Ok(())
}

/// The path of the intent that displaced a content, and as what it lost a conflict, if it did.
pub(crate) fn displaced_by<'a>(
    index: &mut Index,
    intents: &'a [Intended],
    id: ContentId,
) -> Result<(Option<&'a RelPath>, Option<Dot>)> {
    let mut path = None;
    for intended in intents.iter().filter(|i| i.old == Some(id)) {
        path = path.or(Some(&intended.path));
        if let Some(loser) = lost_to(index, intended)? {
            return Ok((Some(&intended.path), Some(loser)));
        }
    }
    Ok((path, None))
}

/// As what the content that an intent displaces lost to what it brings, or where it had to make room, goes to the new
/// place.
fn lost_to(index: &mut Index, intended: &Intended) -> Result<Option<Dot>> {
    let is_it = |v: &Version| !v.is_tomb() && Some(v.content) == intended.old;
    let siblings = intended.entry.siblings();
    let mut lost = siblings
        .iter()
        .filter(|(dot, v)| Some(*dot) != intended.shown && is_it(v));
    if let Some((dot, _)) = lost.next() {
        return Ok(Some(*dot));
    }
    let ends = siblings.iter().filter(|(_, v)| v.is_tomb());
    for to in ends.filter_map(|(_, end)| end.moved.as_ref()) {
        let there = index.get(to)?.unwrap_or_default();
        let from_here = |v: &Version| is_it(v) && v.moved.as_ref() == Some(&intended.path);
        let mut went = there.entry.siblings().iter();
        if let Some((dot, _)) = went.find(|(_, v)| from_here(v)) {
            return Ok(Some(*dot));
        }
    }
    Ok(None)
}
