//! What a crash left in the staging directory: content under way, and what had just been displaced.
//!
//! Owns the cleaning of that directory. Invariant: only what an intent was bringing, and therefore exists
//! elsewhere, is removed; anything else may be a user's only copy and goes to trash.

use instep_core::path::Name;
use instep_core::plan::Keep;
use instep_fs::{Dir, Stat};
use instep_replica::Step;

use super::intent::Intended;
use super::on_disk::content;
use crate::replica::LocalReplica;
use crate::trash::{self, Displaced};
use crate::unjudged;

/// Clears the staging directory: a displaced file that had not reached its place is kept, the rest was
/// never anybody's.
pub(crate) fn sweep(replica: &LocalReplica, intents: &[Intended], other_boot: bool) {
    let Some(dirs) = replica.ours() else { return };
    for name in names(&dirs.staging).unwrap_or_default() {
        let Ok(name) = Name::new(&name) else {
            continue;
        };
        if let Some((table, record)) = trash::listed(replica, name) {
            unjudged::recall(replica, name, table, &record, !other_boot);
            continue;
        }
        match dirs.staging.stat(name) {
            Ok(Some(stat)) if stat.kind == instep_fs::Kind::Dir => {
                keep_below(replica, &dirs.staging, name);
            }
            Ok(Some(stat)) => keep_or_drop(replica, &dirs.staging, name, &stat, intents),
            _ => {}
        }
    }
}

/// All names in a directory, if it can be listed to its end.
fn names(dir: &Dir) -> Option<Vec<Vec<u8>>> {
    let mut names: Vec<Vec<u8>> = Vec::new();
    let listed = dir.list(&mut |name, _| names.push(name.to_vec()));
    listed.is_ok().then_some(names)
}

/// A directory that was displaced with something in it, and could not be given back: files and links are
/// kept, the directories go.
fn keep_below(replica: &LocalReplica, parent: &Dir, name: Name<'_>) {
    let Ok(dir) = parent.open_dir(name) else {
        return;
    };
    let Some(names) = names(&dir) else { return };
    for child in names {
        let Ok(child) = Name::new(&child) else {
            continue;
        };
        match dir.stat(child) {
            Ok(Some(stat)) if stat.kind == instep_fs::Kind::Dir => keep_below(replica, &dir, child),
            // Without a record the object is still in the trash directory, only unlisted.
            Ok(Some(_)) => drop(trash::put(replica, &dir, child, Keep::Trash)),
            _ => {}
        }
    }
    // Whatever could not be moved keeps it standing until the next start.
    let _left_if_full = parent.remove_dir(name);
}

fn keep_or_drop(
    replica: &LocalReplica,
    staging: &Dir,
    name: Name<'_>,
    stat: &Stat,
    intents: &[Intended],
) {
    let Ok(Some((kind, id))) = content(staging, name, stat) else {
        return;
    };
    // Content that some intent was bringing exists elsewhere; anything else may be a user's only copy.
    let was_brought = intents
        .iter()
        .any(|i| i.entry.siblings().iter().any(|(_, v)| v.content == id));
    let displaced = intents.iter().find(|i| i.old == Some(id));
    if was_brought && displaced.is_none() {
        let _litter = staging.remove_file(name);
        replica.env.reach(Step::StrayDropped);
        return;
    }
    // The trash is emptied some day; what a person has yet to decide about is not.
    let loser = trash::open_loser(&mut replica.index(), id);
    let keep = loser.map_or(Keep::Trash, Keep::Version);
    let what = Displaced {
        keep,
        ..Displaced::interrupted(displaced.map(|i| &i.path), kind, id, stat.size)
    };
    if let Ok(key) = trash::put(replica, staging, name, keep) {
        replica.env.reach(Step::StrayKept);
        let mut index = replica.index();
        // Without its record the object is still in the trash directory, only unlisted.
        let _unlisted = trash::note(replica, &mut index, &key, &what);
    }
}
