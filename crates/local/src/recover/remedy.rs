//! What recovery can do about one path, once it was decided.
//!
//! Owns the only displacement that recovery makes. Invariant: nothing is unlinked, and a path whose object
//! was set aside is brought again from others: no dot is minted for what was there.

use instep_core::plan::Keep;
use instep_core::policy::Role;
use instep_core::row::{Print, Row};
use instep_core::version::{Kind, Version};
use instep_replica::{Result, Step};

use super::intent::Intended;
use super::on_disk::OnDisk;
use crate::print::unlike_any;
use crate::replica::LocalReplica;
use crate::trash::{self, Displaced};
use crate::tree;

/// What is to be done about a path.
#[derive(Debug)]
pub(super) enum Remedy {
    /// Nothing: the next look and the next plan find what there is to do.
    Leave,
    /// What was wanted is there, and looks like this.
    InPlace(Option<Print>),
    /// The row forgets what it saw: what is there is read anew, what is missing is brought again.
    Unseen,
    /// What is there goes to trash, and the path is brought again.
    SetAside,
    /// What is there came before what the row tells of, and is whole: it stays until that can take its place.
    Ancestor(Box<Version>, Print),
}

/// A row that knows as much as before, but has seen nothing at its path.
pub(super) fn unseen(row: &Row) -> Row {
    Row {
        shown: None,
        print: None,
        seen: None,
        ..row.clone()
    }
}

/// A row that says that an earlier file is there, and knows as much as before. At a mirror's source, which alone
/// decides, what is there is read anew.
pub(super) fn ancestor(replica: &LocalReplica, row: &Row, file: Version, print: Print) -> Row {
    let Some(later) = row.shown.filter(|_| replica.settings.role != Role::Source) else {
        return unknown(replica, row);
    };
    let (entry, shown) = row.entry.with_ancestor(later, file);
    Row {
        entry,
        shown: Some(shown),
        print: Some(print),
        seen: None,
        held: None,
        epoch: row.epoch,
    }
}

/// A row that makes the next look read what is there. What it finds stands beside what is known, except at a
/// mirror's source, which alone decides.
pub(super) fn unknown(replica: &LocalReplica, row: &Row) -> Row {
    if replica.settings.role == Role::Source {
        return Row {
            print: row.print.map(unlike_any),
            ..row.clone()
        };
    }
    unseen(row)
}

/// Moves what is at a path, and was seen there, to trash and leaves the path to be fetched again.
pub(super) fn set_aside(replica: &LocalReplica, intended: &Intended, seen: OnDisk) -> Result<()> {
    let path = &intended.path;
    let OnDisk::Something {
        kind,
        content,
        size,
        print,
        ..
    } = seen
    else {
        return Ok(());
    };
    if kind == Kind::Dir && replica.settings.role != Role::Source {
        // It stands for what is in it; whether it may stand is decided as for any other. At a mirror's source
        // nobody decides that but its user.
        return await_anew(replica, intended, Some(print));
    }
    let Some((parent, name)) = path.split() else {
        return Ok(());
    };
    let put = tree::open(&replica.root, &parent)
        .and_then(|dir| trash::put(replica, &dir, name, Keep::Trash));
    let Ok(key) = put else {
        // It stays (in a root that is never written it must), and the next look reads it.
        let mut index = replica.index();
        let Some(old) = index.get(path)? else {
            return Ok(());
        };
        return index.put(path, Some(&old), &unknown(replica, &old));
    };
    replica.env.reach(Step::SetAside);
    let what = Displaced::interrupted(Some(path), kind, content, size);
    trash::note(replica, &mut replica.index(), &key, &what)?;
    await_anew(replica, intended, None)?;
    replica.env.reach(Step::SetAsideNoted);
    Ok(())
}

/// Everything that was intended is known, and nothing of it is there.
fn await_anew(replica: &LocalReplica, intended: &Intended, print: Option<Print>) -> Result<()> {
    let mut index = replica.index();
    let old = index.get(&intended.path)?;
    let row = Row {
        entry: intended.entry.clone(),
        shown: None,
        print,
        seen: None,
        held: None,
        epoch: index.epoch(),
    };
    index.put(&intended.path, old.as_ref(), &row)
}
