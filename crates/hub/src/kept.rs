//! What was displaced: listed by reference, brought back, or let go of when its time has come.
//!
//! Invariants: the content of an open conflict is never let go of; bringing something back overwrites nothing, and
//! copies nothing. The bytes themselves go when nothing refers to them any more, which is decided in `gc`.

use std::ops::ControlFlow;

use instep_core::id::{ContentId, Dot};
use instep_core::path::RelPath;
use instep_core::plan::{Action, Goal, Keep};
use instep_core::row::Row;
use instep_core::version::Kind;
use instep_replica::Book;
use instep_replica::Result;
use instep_replica::error::{Error, ErrorKind};
use instep_replica::records::{ConflictRecord, ShareRecord, TrashRecord, hex, path_from_hex};
use instep_store::Table;
use serde::{Deserialize, Serialize};

use crate::index::store_error;
use crate::state::{Brought, State};

/// A record of the trash with what it takes to bring the object back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Displaced {
    #[serde(flatten)]
    pub(crate) record: TrashRecord,
    #[serde(default)]
    mode: u16,
    #[serde(default)]
    mtime_secs: i64,
    #[serde(default)]
    mtime_nanos: u32,
    #[serde(default)]
    target: Vec<u8>,
}

impl Displaced {
    /// The content that has to stay for it; a link's target is in the record.
    pub(crate) fn content(&self) -> Option<ContentId> {
        let is_file = self.record.kind == "file";
        self.record.content.parse().ok().filter(|_| is_file)
    }

    /// Where it was.
    pub(crate) fn path(&self) -> Option<RelPath> {
        path_from_hex(&self.record.path_hex)
    }

    fn object(&self) -> Brought {
        Brought {
            kind: self.record.kind.clone(),
            content: self.record.content.clone(),
            size: self.record.size,
            mode: self.mode,
            mtime_secs: self.mtime_secs,
            mtime_nanos: self.mtime_nanos,
            target: self.target.clone(),
        }
    }
}

fn failed(e: instep_store::StoreError) -> Error {
    store_error("read or write the trash", e)
}

impl State {
    /// Lists what is at an action's path, before the action takes it away.
    pub(crate) fn keep(&mut self, action: &Action, row: &Row) -> Result<()> {
        let Some(version) = row.present() else {
            return Ok(());
        };
        let at_ns = self.wall_ns;
        self.kept_count += 1;
        let key = format!("{at_ns:020}-{:08}", self.kept_count);
        let loser = match action.keep {
            Keep::Trash => None,
            Keep::Version(dot) => Some(dot),
        };
        let why = match (loser, &action.goal) {
            (Some(_), _) => "conflict",
            (None, Goal::Absent) => "deleted",
            (None, _) => "overwritten",
        };
        let object = Brought::version(version);
        let by = action.shown.map(|dot| self.label_of(dot)).transpose()?;
        let record = TrashRecord {
            path: action.path.to_string(),
            path_hex: hex(action.path.as_bytes()),
            kind: object.kind,
            size: version.size,
            at_ns,
            why: why.into(),
            by: by.unwrap_or_default(),
            content: object.content,
            loser: loser.map(|dot| dot.to_string()),
            epoch: 0,
            unjudged: false,
        };
        let displaced = Displaced {
            record,
            mode: row.print.map_or(version.mode, |p| p.mode),
            mtime_secs: version.mtime.secs,
            mtime_nanos: version.mtime.nanos,
            target: object.target,
        };
        let body = serde_json::to_vec(&displaced)
            .map_err(|e| Error::because(ErrorKind::Other, "list what was displaced", e))?;
        let table = loser.map_or(Table::Trash, |_| Table::Stored);
        let store = self.index.store();
        store
            .put_record(table, key.as_bytes(), &body)
            .map_err(failed)
    }

    fn label_of(&mut self, dot: Dot) -> Result<String> {
        let body = self.read_book(Book::Share, "share")?;
        let share = body.and_then(|b| serde_json::from_str::<ShareRecord>(&b).ok());
        let label = share.and_then(|s| s.label_of(dot.actor).map(String::from));
        Ok(label.unwrap_or_default())
    }

    /// Everything that is listed, by key, with the table that it is in.
    pub(crate) fn displaced(&mut self) -> Result<Vec<(Table, String, Displaced)>> {
        let mut out = Vec::new();
        for table in [Table::Trash, Table::Stored] {
            let mut read = |key: &[u8], body: &[u8]| {
                if let Ok(displaced) = serde_json::from_slice(body) {
                    let key = String::from_utf8_lossy(key).into_owned();
                    out.push((table, key, displaced));
                }
                ControlFlow::Continue(())
            };
            let read = self.index.store().records(table, &mut read);
            read.map_err(failed)?;
        }
        Ok(out)
    }

    /// What is listed under a key.
    pub(crate) fn kept(&mut self, key: &str) -> Result<Option<(Table, Displaced)>> {
        for table in [Table::Trash, Table::Stored] {
            let body = self.index.store().record(table, key.as_bytes());
            let parsed = body.map_err(failed)?;
            let parsed = parsed.and_then(|b| serde_json::from_slice(&b).ok());
            if let Some(displaced) = parsed {
                return Ok(Some((table, displaced)));
            }
        }
        Ok(None)
    }

    /// Puts something that was displaced at a free path, as a user would; the next look finds it.
    pub(crate) fn restore(&mut self, key: &str, to: Option<&RelPath>) -> Result<RelPath> {
        let refused = |why: &str| Error::new(ErrorKind::Other, format!("restore {key}: {why}"));
        let kept = self.kept(key)?;
        let (table, displaced) = kept.ok_or_else(|| refused("nothing is kept under this key"))?;
        let path = to.cloned().or_else(|| displaced.path());
        let path = path.ok_or_else(|| refused("its old path is not a path"))?;
        if let Some(content) = displaced.content()
            && !self.contents.has(content)?
        {
            return Err(refused("its content is not here"));
        }
        if path.is_root() || path.is_reserved() || self.there(&path)?.is_some() {
            return Err(refused(&format!("{path} is taken")));
        }
        self.bring_parents(&path)?;
        self.bring(&path, Some(displaced.object()))?;
        displaced.content().into_iter().for_each(|c| self.touch(c));
        // A loser stays listed and kept until its conflict is settled.
        if table == Table::Trash {
            let store = self.index.store();
            store.remove_record(table, key.as_bytes()).map_err(failed)?;
        }
        Ok(path)
    }

    /// Directories that have to be there for something that is brought back.
    fn bring_parents(&mut self, path: &RelPath) -> Result<()> {
        let mut missing = Vec::new();
        for dir in std::iter::successors(path.parent(), RelPath::parent) {
            match self.there(&dir)?.map(|t| t.kind) {
                _ if dir.is_root() => break,
                Some(Kind::Dir) => break,
                Some(_) => {
                    let attempt = format!("bring back {path}: {dir} is no directory");
                    return Err(Error::new(ErrorKind::Other, attempt));
                }
                None => missing.push(dir),
            }
        }
        for dir in missing {
            self.bring(&dir, Some(Brought::dir(0o755)))?;
        }
        Ok(())
    }

    /// Brings back what a path showed once. A directory is not replaced.
    pub(crate) fn bring_back(&mut self, path: &RelPath, dot: Dot) -> Result<()> {
        let refused = |why: &str| Error::new(ErrorKind::Other, format!("bring back {path}: {why}"));
        let mut history = self.contents.history_of(path)?.into_iter();
        let shown = history.find(|s| s.dot == dot && !s.version.is_tomb());
        let shown = shown.ok_or_else(|| refused("it never showed that"))?;
        if let Some(content) = shown.content()
            && !self.contents.has(content)?
        {
            return Err(refused("its content is not here"));
        }
        if self.there(path)?.is_some_and(|t| t.kind == Kind::Dir) {
            return Err(refused("a directory has its place"));
        }
        self.bring_parents(path)?;
        shown.content().into_iter().for_each(|c| self.touch(c));
        self.bring(path, Some(Brought::version(&shown.version)))
    }

    /// Lets go of what was displaced, or lost a conflict that was settled, before an instant.
    pub(crate) fn purge(&mut self, before_ns: i64) -> Result<u64> {
        let mut gone = 0;
        for (table, key, displaced) in self.displaced()? {
            let until = self.wanted_until(&displaced.record)?;
            if until.is_some_and(|ns| ns < before_ns) {
                displaced.content().into_iter().for_each(|c| self.touch(c));
                let store = self.index.store();
                store.remove_record(table, key.as_bytes()).map_err(failed)?;
                gone += 1;
            }
        }
        Ok(gone)
    }

    /// Since when nobody needs an object: never while its conflict is open, or one that nobody knows of.
    fn wanted_until(&mut self, record: &TrashRecord) -> Result<Option<i64>> {
        let Some(loser) = &record.loser else {
            return Ok(Some(record.at_ns));
        };
        let body = self
            .index
            .store()
            .record(Table::Conflict, loser.as_bytes())
            .map_err(failed)?;
        let conflict = body.and_then(|b| serde_json::from_slice::<ConflictRecord>(&b).ok());
        Ok(conflict.and_then(|c| c.resolved_ns.filter(|_| c.resolved.is_some())))
    }
}
