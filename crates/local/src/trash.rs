//! What was displaced, and where it is kept until nobody can want it any more.
//!
//! Owns the names below `.instep/trash` and `.instep/versions` and their records. An object in the version
//! store lost a conflict; it is purged only after the conflict was resolved. Nothing else in this crate
//! unlinks what a user wrote.

use std::collections::HashMap;
use std::ops::ControlFlow;

use instep_core::id::{ContentId, Dot};
use instep_core::path::{Name, RelPath};
use instep_core::plan::Keep;
use instep_core::version::Kind;
use instep_fs::{Dir, ErrorKind, File, Stat};
use instep_replica::records::{ConflictRecord, TrashRecord, hex, path_from_hex};
use instep_replica::{Found, Step};
use instep_store::Table;

use crate::index::Index;
use crate::replica::{LocalReplica, locked};
use crate::tree::{self, ours};
use crate::unjudged;

/// Bytes copied in one piece.
const COPY_BYTES: usize = 256 * 1024;

/// What is known about a displaced object.
#[derive(Debug, Clone)]
pub struct Displaced {
    /// Where it was.
    pub path: RelPath,
    /// What it is.
    pub kind: Kind,
    /// Its content, if known.
    pub content: ContentId,
    /// Its bytes.
    pub size: u64,
    /// Why it was displaced.
    pub why: &'static str,
    /// Who superseded it.
    pub by: String,
    /// Where it goes.
    pub keep: Keep,
    /// Whether it is known to be that.
    pub judged: Judged,
}

/// Whether somebody has looked at what was displaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    /// It is what its record says.
    Yes,
    /// It could not be looked at yet, or somebody writes to it.
    NotYet,
    /// It is kept for ever, because it may be anything.
    Never,
}

/// What was displaced and has not reached where it is kept: it is in the staging directory.
#[derive(Debug)]
pub(crate) struct Left {
    /// Its name there, which is its key.
    pub(crate) key: String,
    /// What is known of it.
    pub(crate) what: Displaced,
    /// Since when, on the clock that never goes back.
    pub(crate) since_ns: u64,
}

impl Displaced {
    /// What a crash left where nobody would look for it; `path` is that of the intent that displaced it.
    pub(crate) fn interrupted(
        path: Option<&RelPath>,
        kind: Kind,
        content: ContentId,
        size: u64,
    ) -> Self {
        Self {
            path: path.cloned().unwrap_or_else(RelPath::root),
            kind,
            content,
            size,
            why: "interrupted",
            by: String::new(),
            keep: Keep::Trash,
            judged: Judged::Yes,
        }
    }

    /// The table that lists it.
    pub(crate) fn table(&self) -> Table {
        match (self.judged, self.keep) {
            (Judged::Yes | Judged::NotYet, Keep::Trash) => Table::Trash,
            (Judged::Never, _) | (_, Keep::Version(_)) => Table::Stored,
        }
    }

    /// It was not what was expected: a user had saved it, and it is known under a dot of its own.
    pub(crate) fn was_saved(&mut self, found: &Found, dot: Dot) {
        (self.keep, self.why) = (Keep::Version(dot), "conflict");
        if let Found::Present {
            kind,
            content,
            size,
            ..
        } = found
        {
            (self.kind, self.content, self.size) = (*kind, *content, *size);
        }
    }

    fn loser(&self) -> Option<Dot> {
        match self.keep {
            Keep::Version(dot) => Some(dot),
            Keep::Trash => None,
        }
    }
}

/// Why something was displaced, from a record of it.
pub(crate) fn why(said: &str) -> &'static str {
    let known = ["deleted", "overwritten", "moved", "conflict"];
    let known = known.into_iter().find(|why| *why == said);
    known.unwrap_or("interrupted")
}

/// A name that sorts by age and cannot clash.
pub fn fresh_name(replica: &LocalReplica) -> String {
    let random = replica.env.random();
    format!("{:020}-{}", replica.env.wall_ns().max(0), hex(&random[..6]))
}

/// The directory that objects of this kind go to.
pub fn place(replica: &LocalReplica, keep: Keep) -> Option<&Dir> {
    let ours = replica.ours()?;
    Some(match keep {
        Keep::Trash => &ours.trash,
        Keep::Version(_) => &ours.versions,
    })
}

/// Records an object that was moved to its place under `name`.
pub fn note(
    replica: &LocalReplica,
    index: &mut Index,
    name: &str,
    what: &Displaced,
) -> instep_replica::Result<()> {
    note_in(replica, index, what.table(), name, what)
}

/// Records an object that is kept under `name` in the place that belongs to a table.
pub(crate) fn note_in(
    replica: &LocalReplica,
    index: &mut Index,
    table: Table,
    name: &str,
    what: &Displaced,
) -> instep_replica::Result<()> {
    let record = TrashRecord {
        path: what.path.to_string(),
        path_hex: hex(what.path.as_bytes()),
        kind: instep_core::conflict::kind_word(what.kind),
        size: what.size,
        at_ns: replica.env.wall_ns(),
        why: what.why.to_owned(),
        by: what.by.clone(),
        content: what.content.to_string(),
        loser: what.loser().map(|d| d.to_string()),
        epoch: index.epoch(),
        unjudged: what.judged == Judged::NotYet,
    };
    let body = serde_json::to_vec(&record).map_err(|e| {
        instep_replica::Error::because(instep_replica::ErrorKind::Other, "write a trash record", e)
    })?;
    locked(&replica.by_content).remember(what, table, name);
    index
        .store()
        .put_record(table, name.as_bytes(), &body)
        .map_err(|e| crate::index::store_error("write a trash record", e))
}

/// Every record of a table with its key.
pub fn records(
    index: &mut Index,
    table: Table,
) -> instep_replica::Result<Vec<(String, TrashRecord)>> {
    let mut out = Vec::new();
    index
        .store()
        .records(table, &mut |key, body| {
            // A key names an object of ours: one that is no name was not written here.
            let key = std::str::from_utf8(key).ok();
            let key = key.filter(|k| Name::new(k.as_bytes()).is_ok());
            if let (Some(key), Ok(record)) = (key, serde_json::from_slice(body)) {
                out.push((key.to_owned(), record));
            }
            ControlFlow::Continue(())
        })
        .map_err(|e| crate::index::store_error("read the trash", e))?;
    Ok(out)
}

/// Where contents are kept, by content: made when it is first asked for, and kept up to date from then on.
#[derive(Debug, Default)]
pub(crate) struct ByContent(Option<HashMap<ContentId, Vec<(Table, String)>>>);

impl ByContent {
    fn remember(&mut self, what: &Displaced, table: Table, key: &str) {
        if let Some(known) = self
            .0
            .as_mut()
            .filter(|_| what.kind == Kind::File && what.judged == Judged::Yes)
        {
            let places = known.entry(what.content).or_default();
            places.push((table, key.to_owned()));
        }
    }

    /// Something was taken out: what is where must be found out again.
    fn forget(&mut self) {
        self.0 = None;
    }
}

/// Objects with this content in the version store or the trash, as far as records tell: a power cut may have
/// taken one and left another.
pub fn find(replica: &LocalReplica, content: ContentId) -> Vec<(Dir, String)> {
    let Some(ours) = replica.ours() else {
        return Vec::new();
    };
    // The index first, as whoever notes something has it already.
    let mut index = replica.index();
    let mut by_content = locked(&replica.by_content);
    if by_content.0.is_none() {
        let mut known: HashMap<ContentId, Vec<(Table, String)>> = HashMap::new();
        for table in [Table::Stored, Table::Trash] {
            let Ok(records) = records(&mut index, table) else {
                return Vec::new();
            };
            for (key, record) in records
                .into_iter()
                .filter(|(_, r)| r.kind == "file" && !r.unjudged)
            {
                if let Ok(id) = record.content.parse() {
                    known.entry(id).or_default().push((table, key));
                }
            }
        }
        by_content.0 = Some(known);
    }
    let places = by_content.0.as_ref().and_then(|known| known.get(&content));
    let left = locked(&replica.left);
    let dir = |table, key: &String| match table {
        _ if left.iter().any(|left| left.key == *key) => &ours.staging,
        Table::Stored => &ours.versions,
        _ => &ours.trash,
    };
    let open = |(table, key): &(Table, String)| (dir(*table, key).clone(), key.clone());
    places.into_iter().flatten().map(open).collect()
}

/// Destroys what was displaced, or lost a conflict that was settled, before an instant; returns how many
/// objects.
pub fn purge(replica: &LocalReplica, before_ns: i64) -> instep_replica::Result<u64> {
    let Some(ours) = replica.ours() else {
        return Ok(0);
    };
    locked(&replica.by_content).forget();
    put_left(replica);
    let mut count = 0;
    for (table, dir) in [(Table::Trash, &ours.trash), (Table::Stored, &ours.versions)] {
        let unwanted = unwanted(&mut replica.index(), table, before_ns)?;
        for key in unwanted {
            if remove(dir, &key).is_ok() {
                replica.env.reach(Step::Purged);
                let mut index = replica.index();
                index
                    .store()
                    .remove_record(table, key.as_bytes())
                    .map_err(|e| crate::index::store_error("write the trash", e))?;
                count += 1;
            }
        }
    }
    replica.index().commit(instep_store::Durability::Process)?;
    Ok(count)
}

/// What nobody needs since before an instant. A loser whose conflict is open, or unknown, is needed.
fn unwanted(
    index: &mut Index,
    table: Table,
    before_ns: i64,
) -> instep_replica::Result<Vec<String>> {
    let mut out = Vec::new();
    for (key, record) in records(index, table)?
        .into_iter()
        .filter(|(_, r)| !r.unjudged)
    {
        let since_ns = match &record.loser {
            Some(loser) => settled_ns(index, loser)?,
            None => (table == Table::Trash).then_some(record.at_ns),
        };
        if since_ns.is_some_and(|ns| ns < before_ns) {
            out.push(key);
        }
    }
    Ok(out)
}

/// When a conflict was settled, if it was.
fn settled_ns(index: &mut Index, loser: &str) -> instep_replica::Result<Option<i64>> {
    let body = index
        .store()
        .record(Table::Conflict, loser.as_bytes())
        .map_err(|e| crate::index::store_error("read a conflict", e))?;
    let conflict = body.and_then(|b| serde_json::from_slice::<ConflictRecord>(&b).ok());
    Ok(conflict
        .filter(|c| c.resolved.is_some())
        .and_then(|c| c.resolved_ns))
}

/// As what a content lost a conflict that nobody has settled, if it did.
pub(crate) fn open_loser(
    index: &mut Index,
    content: ContentId,
) -> instep_replica::Result<Option<Dot>> {
    let content = content.to_string();
    let mut loser = None;
    let read = index.store().records(Table::Conflict, &mut |_, body| {
        let record = serde_json::from_slice::<ConflictRecord>(body).ok();
        let open = record.filter(|c| c.resolved.is_none() && c.content == content);
        loser = open.and_then(|c| c.loser.parse().ok());
        if loser.is_some() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    read.map_err(|e| crate::index::store_error("read the conflicts", e))?;
    Ok(loser)
}

/// Removes one object of ours; trash holds files, links and empty directories only.
fn remove(dir: &Dir, key: &str) -> instep_fs::Result<()> {
    match dir.stat(ours(key))? {
        None => Ok(()),
        Some(Stat {
            kind: instep_fs::Kind::Dir,
            ..
        }) => dir.remove_dir(ours(key)),
        Some(_) => dir.remove_file(ours(key)),
    }
}

/// Moves an object of ours from the staging directory (or the tree) to where it is kept.
pub fn put(
    replica: &LocalReplica,
    from: &Dir,
    name: instep_core::path::Name<'_>,
    keep: Keep,
) -> instep_fs::Result<String> {
    let Some(to) = place(replica, keep) else {
        return Err(instep_fs::Error::new("find the trash", 30));
    };
    loop {
        let key = fresh_name(replica);
        match tree::take(from, name, to, ours(&key)) {
            Ok(()) => return Ok(key),
            Err(e) if e.kind() == ErrorKind::Taken => {}
            Err(e) => return Err(e),
        }
    }
}

/// What could not be moved to where it is kept stays in the staging directory for a while, and is listed under the name
/// that it has there; returns that name.
pub(crate) fn leave(replica: &LocalReplica, name: Name<'_>, what: &Displaced) -> String {
    let key = String::from_utf8_lossy(name.as_bytes()).into_owned();
    locked(&replica.left).push(Left {
        key: key.clone(),
        what: what.clone(),
        since_ns: replica.env.monotonic_ns(),
    });
    key
}

/// Moves what was left in the staging directory to where it is kept, if it can be judged.
pub(crate) fn put_left(replica: &LocalReplica) {
    unjudged::look(replica);
    move_judged(replica);
}

/// Moves what was left in the staging directory, and was judged, to where it is kept.
pub(crate) fn move_judged(replica: &LocalReplica) {
    let Some(dirs) = replica.ours() else { return };
    locked(&replica.left).retain(|Left { key, what, .. }| {
        let to = match what.table() {
            Table::Stored => &dirs.versions,
            _ => &dirs.trash,
        };
        let take = || tree::take(&dirs.staging, ours(key), to, ours(key));
        what.judged == Judged::NotYet || take().is_err_and(|e| e.kind() != ErrorKind::Absent)
    });
}

/// What the record says that lists an object which was left in the staging directory, and the table that it is in.
pub(crate) fn listed(
    index: &mut Index,
    name: Name<'_>,
) -> instep_replica::Result<Option<(Table, TrashRecord)>> {
    for table in [Table::Stored, Table::Trash] {
        let body = index.store().record(table, name.as_bytes());
        let body = body.map_err(|e| crate::index::store_error("read the trash", e))?;
        let record = body.and_then(|b| serde_json::from_slice(&b).ok());
        if let Some(record) = record {
            return Ok(Some((table, record)));
        }
    }
    Ok(None)
}

/// Brings an object back under a free path, as a user would. The loser of an open conflict stays where it is,
/// too: the conflict is still to be settled.
pub fn restore(
    replica: &LocalReplica,
    key: &str,
    to: Option<&RelPath>,
) -> instep_replica::Result<RelPath> {
    let fail = |why: String| instep_replica::Error::new(instep_replica::ErrorKind::Other, why);
    let missing = || fail(format!("find {key} in the trash"));
    locked(&replica.by_content).forget();
    put_left(replica);
    let dirs = replica.ours().ok_or_else(missing)?;
    let (table, dir, record) = {
        let mut index = replica.index();
        let mut found = None;
        for (table, dir) in [(Table::Trash, &dirs.trash), (Table::Stored, &dirs.versions)] {
            let all = records(&mut index, table)?;
            if let Some((_, record)) = all.into_iter().find(|(k, _)| k == key) {
                found = Some((table, dir, record));
                break;
            }
        }
        found.ok_or_else(missing)?
    };
    let stays = match &record.loser {
        Some(loser) => settled_ns(&mut replica.index(), loser)?.is_none(),
        None => false,
    };
    let path = to
        .cloned()
        .or_else(|| path_from_hex(&record.path_hex))
        .ok_or_else(missing)?;
    let (parent, name) = path.split().ok_or_else(missing)?;
    let put_back = || -> instep_fs::Result<()> {
        let into = match tree::open(&replica.root, &parent) {
            Err(e) if e.kind() == ErrorKind::Absent => replica.make_parents(&parent)?,
            other => other?,
        };
        if stays {
            copy_out(replica, &dirs.staging, dir, key, (&into, name))
        } else {
            tree::give(dir, ours(key), &into, name)
        }
    };
    put_back().map_err(|e| {
        let attempt = format!("restore to \"{path}\"");
        instep_replica::Error::because(instep_replica::ErrorKind::Other, attempt, e)
    })?;
    replica.env.reach(Step::Restored);
    if !stays {
        let mut index = replica.index();
        index
            .store()
            .remove_record(table, key.as_bytes())
            .map_err(|e| crate::index::store_error("write the trash", e))?;
        index.commit(instep_store::Durability::Process)?;
    }
    replica.hint(path.clone());
    Ok(path)
}

/// Gives the tree a copy of an object of ours, complete before it has its name.
fn copy_out(
    replica: &LocalReplica,
    staging: &Dir,
    dir: &Dir,
    key: &str,
    (into, name): (&Dir, Name<'_>),
) -> instep_fs::Result<()> {
    let from = match dir.stat(ours(key))? {
        Some(stat) if stat.kind == instep_fs::Kind::Link => {
            return into.make_link(name, &dir.read_link(ours(key))?);
        }
        _ => dir.open_file(ours(key))?,
    };
    let stat = from.stat()?;
    let draft = fresh_name(replica);
    let made = staging.create_file(ours(&draft), 0o600)?;
    let copied = copy_data(&from, &made, stat.size)
        .and_then(|()| made.set_mode(stat.mode & 0o777))
        .and_then(|()| made.set_mtime(stat.mtime))
        .inspect(|()| replica.env.reach(Step::RestoreDrafted))
        .and_then(|()| tree::give(staging, ours(&draft), into, name));
    if copied.is_err() {
        // What stays behind is swept out of staging when the root is opened next.
        let _left = staging.remove_file(ours(&draft));
    }
    copied
}

fn copy_data(from: &File, into: &File, size: u64) -> instep_fs::Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    let mut at = 0;
    while let Some((start, end)) = from.next_data(at)? {
        at = start;
        while at < end {
            let piece = (end - at).min(COPY_BYTES as u64) as usize;
            let got = from.read_at(at, &mut buffer[..piece])?;
            if got == 0 {
                return into.set_len(size);
            }
            into.write_all_at(at, &buffer[..got])?;
            at += got as u64;
        }
    }
    into.set_len(size)
}
