//! Displaced objects that could not be judged when they were displaced: a look failed, or somebody writes to them.
//!
//! Each waits in the staging directory, listed as what is expected of it, and is looked at before each look at its
//! path, which is not in sync until then. What it turns out to be decides where it goes, as if it had been judged at
//! once. Owns that wait. Invariant: what may be a user's is never put away as superseded: after a power cut, or where
//! it cannot be judged for long, it is kept for ever, and listed.

use instep_core::entry::Context;
use instep_core::id::Dot;
use instep_core::limits;
use instep_core::path::{Name, RelPath};
use instep_core::plan::Keep;
use instep_core::row::Row;
use instep_core::version::{Kind, Version};
use instep_replica::records::{TrashRecord, path_from_hex};
use instep_replica::{Found, Result};
use instep_store::{Durability, Table};

use crate::index::{Index, store_error};
use crate::judge::{Patience, Verdict, judge};
use crate::record::saved_version;
use crate::replica::{LocalReplica, locked};
use crate::trash::{self, Displaced, Judged, Left};
use crate::tree::ours;

/// When a path is looked at again because of what was displaced there.
pub(crate) const AGAIN_MS: u64 = 100;

/// Where something waits.
pub(crate) fn paths(replica: &LocalReplica) -> Vec<RelPath> {
    let left = locked(&replica.left);
    let waits = left.iter().filter(|l| l.what.judged == Judged::NotYet);
    waits.map(|l| l.what.path.clone()).collect()
}

/// Looks at everything that waits.
pub(crate) fn look(replica: &LocalReplica) {
    let waits: Vec<Left> = {
        let mut left = locked(&replica.left);
        let waits = |l: &mut Left| l.what.judged == Judged::NotYet;
        left.extract_if(.., waits).collect()
    };
    for left in waits {
        let after = look_at(replica, left, true);
        locked(&replica.left).extend(after);
    }
}

/// A record lists what is still in the staging directory when the root is opened: it is moved to where it is kept, or
/// goes on waiting. After a power cut it may be less than what a user saved, so that only what is expected counts.
pub(crate) fn recall(
    replica: &LocalReplica,
    name: Name<'_>,
    table: Table,
    record: &TrashRecord,
    is_whole: bool,
) {
    let Some(left) = of_record(replica, name, table, record) else {
        return;
    };
    let after = if left.what.judged == Judged::NotYet {
        look_at(replica, left, is_whole)
    } else {
        Some(left)
    };
    locked(&replica.left).extend(after);
    trash::move_judged(replica);
}

fn of_record(
    replica: &LocalReplica,
    name: Name<'_>,
    table: Table,
    record: &TrashRecord,
) -> Option<Left> {
    let loser = record.loser.as_ref().and_then(|dot| dot.parse().ok());
    let kind = match record.kind.as_str() {
        "link" => Kind::Link,
        "directory" => Kind::Dir,
        _ => Kind::File,
    };
    let judged = match (record.unjudged, table, loser) {
        (true, _, _) => Judged::NotYet,
        (false, Table::Stored, None) => Judged::Never,
        (false, _, _) => Judged::Yes,
    };
    let what = Displaced {
        path: path_from_hex(&record.path_hex)?,
        kind,
        content: record.content.parse().ok()?,
        size: record.size,
        why: trash::why(&record.why),
        by: record.by.clone(),
        keep: loser.map_or(Keep::Trash, Keep::Version),
        judged,
    };
    let key = std::str::from_utf8(name.as_bytes()).ok()?.to_owned();
    let since_ns = replica.env.monotonic_ns();
    Some(Left {
        key,
        what,
        since_ns,
    })
}

fn is_given_up(replica: &LocalReplica, left: &Left) -> bool {
    let since_ms = replica.env.monotonic_ns().saturating_sub(left.since_ns) / 1_000_000;
    since_ms >= limits::UNJUDGED_MS
}

/// Looks at one of them; what of it is still in the staging directory.
fn look_at(replica: &LocalReplica, left: Left, is_whole: bool) -> Option<Left> {
    let dirs = replica.ours()?;
    let Left { key, what, .. } = &left;
    let verdict = judge(
        replica,
        &dirs.staging,
        ours(key),
        what.content,
        Patience::None,
    );
    let after = match verdict {
        Verdict::Gone => None,
        Verdict::Unknown if is_whole && !is_given_up(replica, &left) => return Some(left),
        Verdict::Expected => Some((Judged::Yes, None)),
        Verdict::Saved(found) if is_whole => Some((Judged::Yes, Some(found))),
        Verdict::Unknown | Verdict::Foreign | Verdict::Saved(_) => Some((Judged::Never, None)),
    };
    let written = replica.intact(write(replica, key, what, after));
    replica.hint(what.path.clone());
    match written {
        Ok(after) => after.map(|what| Left { what, ..left }),
        // Its record is as it was.
        Err(_) => Some(left),
    }
}

/// Writes down what became of it: nothing is left of it, or it is judged, and where a user saved it, known.
fn write(
    replica: &LocalReplica,
    key: &str,
    was: &Displaced,
    after: Option<(Judged, Option<Found>)>,
) -> Result<Option<Displaced>> {
    let mut index = replica.index();
    // A new block of counters is committed at once, and nothing of what follows may be without the rest.
    let dot = match &after {
        Some((_, Some(_))) => Some(index.mint()?),
        _ => None,
    };
    let removed = index.store().remove_record(was.table(), key.as_bytes());
    removed.map_err(|e| store_error("write a trash record", e))?;
    let what = after.map(|(judged, saved)| {
        let mut what = Displaced {
            judged,
            ..was.clone()
        };
        if let Some((found, dot)) = saved.zip(dot) {
            save(replica, &mut index, was, &found, dot)?;
            what.was_saved(&found, dot);
        }
        trash::note(replica, &mut index, key, &what)?;
        Ok(what)
    });
    let what = what.transpose()?;
    index.commit(Durability::Process)?;
    Ok(what)
}

/// Makes it known as a version beside whatever is known now; of that, it supersedes what it was taken for.
fn save(
    replica: &LocalReplica,
    index: &mut Index,
    was: &Displaced,
    found: &Found,
    dot: Dot,
) -> Result<()> {
    let old = index.get(&was.path)?;
    let row = old.clone().unwrap_or_default();
    let now = index.now(replica.env.wall_ns());
    let version = saved_version(found, &row, now).map(|v| Version {
        prev: vec![was.content],
        ..v
    });
    let Some(version) = version else {
        return Ok(());
    };
    let seen = match was.keep {
        Keep::Version(loser) if row.shown != Some(loser) => Context::from_iter([loser]),
        Keep::Version(_) | Keep::Trash => Context::default(),
    };
    let new = Row {
        entry: row.entry.record_beside(&seen, dot, version),
        epoch: index.epoch(),
        ..row
    };
    index.put(&was.path, old.as_ref(), &new)
}
