//! What a hub knows, under one lock: rows, contents, and what is neither yet.
//!
//! Owns the one way to write a row, so that history sees every version that is shown. A hub has no disk that users
//! edit: what its rows say is there, is there. The exceptions are listed here: what was brought back from the trash and
//! is not recorded, and a rename that the index has not been told of. Invariant: contents are committed before the rows
//! that show them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::ControlFlow;

use instep_chunk::content_id;
use instep_core::entry::Entry;
use instep_core::id::{ContentId, Dot};
use instep_core::path::RelPath;
use instep_core::row::{Print, Row};
use instep_core::time::Mtime;
use instep_core::version::{Kind, Version};
use instep_replica::Found;
use instep_replica::Result;
use instep_store::{Durability, Table};
use serde::{Deserialize, Serialize};

use crate::contents::Contents;
use crate::index::{Index, store_error};

/// Where what was brought back is noted until it is recorded.
const BROUGHT: Table = Table::Intent;

/// Under this key it is noted that nobody knows what a flush that failed has lost.
pub(crate) const UNSURE: &[u8] = b"unsure";

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct There {
    pub(crate) kind: Kind,
    pub(crate) content: ContentId,
    pub(crate) print: Print,
}

/// Something that is there and not recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Brought {
    /// `file`, `directory` or `link`.
    pub(crate) kind: String,
    /// The content id in hex.
    pub(crate) content: String,
    pub(crate) size: u64,
    pub(crate) mode: u16,
    pub(crate) mtime_secs: i64,
    pub(crate) mtime_nanos: u32,
    /// A link's target.
    #[serde(default)]
    pub(crate) target: Vec<u8>,
}

impl Brought {
    /// A directory that is there for something else.
    pub(crate) fn dir(mode: u16) -> Self {
        Self {
            kind: "directory".into(),
            content: ContentId::NONE.to_string(),
            size: 0,
            mode,
            mtime_secs: 0,
            mtime_nanos: 0,
            target: Vec::new(),
        }
    }

    /// A file or link as a version says it.
    pub(crate) fn version(version: &Version) -> Self {
        let is_link = version.kind == Kind::Link;
        Self {
            kind: if is_link { "link" } else { "file" }.into(),
            content: version.content.to_string(),
            size: version.size,
            mode: version.mode,
            mtime_secs: version.mtime.secs,
            mtime_nanos: version.mtime.nanos,
            target: version.target.to_vec(),
        }
    }

    fn kind(&self) -> Kind {
        match self.kind.as_str() {
            "directory" => Kind::Dir,
            "link" => Kind::Link,
            _ => Kind::File,
        }
    }

    pub(crate) fn content(&self) -> ContentId {
        self.content.parse().unwrap_or(ContentId::NONE)
    }

    fn mtime(&self) -> Mtime {
        Mtime {
            secs: self.mtime_secs,
            nanos: self.mtime_nanos,
        }
    }

    fn there(&self) -> There {
        let (kind, content) = (self.kind(), self.content());
        There {
            kind,
            content,
            print: print(kind, content, self.mode, self.mtime()),
        }
    }

    /// What a look says of it.
    pub(crate) fn found(&self) -> Found {
        Found::Present {
            kind: self.kind(),
            content: self.content(),
            size: self.size,
            mode: self.mode,
            mtime: self.mtime(),
            target: self.target.clone().into(),
            print: self.there().print,
            attributes: None,
            moved_from: None,
            high_entropy: false,
        }
    }
}

/// What an object would look like if there were a disk: another one for whatever a user would notice.
pub(crate) fn print(kind: Kind, content: ContentId, mode: u16, mtime: Mtime) -> Print {
    let mode = if kind == Kind::Link { 0 } else { mode };
    let mut bytes = vec![kind as u8];
    bytes.extend_from_slice(&content.0);
    bytes.extend_from_slice(&mode.to_le_bytes());
    if kind != Kind::Dir {
        bytes.extend_from_slice(&mtime.secs.to_le_bytes());
        bytes.extend_from_slice(&mtime.nanos.to_le_bytes());
    }
    let mut hash = [0; 8];
    hash.copy_from_slice(&content_id(&bytes).0[..8]);
    Print {
        ino: 0,
        hash: u64::from_le_bytes(hash),
        mode,
    }
}

/// What is at the path of a row.
pub(crate) fn shown_by(row: &Row) -> Option<There> {
    let print = row.print?;
    let version = row.present();
    Some(There {
        kind: version.map_or(Kind::Dir, |v| v.kind),
        content: version.map_or(ContentId::NONE, |v| v.content),
        print,
    })
}

/// Everything that changes.
pub(crate) struct State {
    pub(crate) index: Index,
    pub(crate) contents: Contents,
    /// There, and not recorded.
    pub(crate) brought: BTreeMap<RelPath, Brought>,
    /// Renamed, and the index was not told.
    pub(crate) moving: Vec<(RelPath, RelPath)>,
    /// Brought here for an action that has not come.
    pub(crate) staged: BTreeSet<ContentId>,
    /// Contents that were referred to since a collection began, while one runs.
    pub(crate) touched: Option<HashSet<ContentId>>,
    /// The clock as of the call that is under way.
    pub(crate) wall_ns: i64,
    /// Something was committed since the last barrier.
    pub(crate) is_unsettled: bool,
    /// Counts what was displaced, so that two objects of one instant have two keys.
    pub(crate) kept_count: u64,
}

impl State {
    /// Takes two stores into use.
    pub(crate) fn open(index: Index, contents: Contents) -> Result<Self> {
        let mut state = Self {
            index,
            contents,
            brought: BTreeMap::new(),
            moving: Vec::new(),
            staged: BTreeSet::new(),
            touched: None,
            wall_ns: 0,
            is_unsettled: false,
            kept_count: 0,
        };
        state.read_brought()?;
        Ok(state)
    }

    fn read_brought(&mut self) -> Result<()> {
        let mut brought = BTreeMap::new();
        let mut read = |key: &[u8], body: &[u8]| {
            if let (Ok(path), Ok(object)) = (RelPath::new(key), serde_json::from_slice(body)) {
                brought.insert(path, object);
            }
            ControlFlow::Continue(())
        };
        let records = self.index.store().records(BROUGHT, &mut read);
        records.map_err(|e| store_error("read what was brought back", e))?;
        self.brought = brought;
        Ok(())
    }

    /// Notes something that is there and not recorded, or (`None`) that it is recorded.
    pub(crate) fn bring(&mut self, path: &RelPath, object: Option<Brought>) -> Result<()> {
        let store = self.index.store();
        let noted = if let Some(object) = object {
            let body = serde_json::to_vec(&object).unwrap_or_default();
            self.brought.insert(path.clone(), object);
            store.put_record(BROUGHT, path.as_bytes(), &body)
        } else if self.brought.remove(path).is_some() {
            store.remove_record(BROUGHT, path.as_bytes())
        } else {
            Ok(())
        };
        noted.map_err(|e| store_error("note what was brought back", e))
    }

    /// What is at a path, recorded or not.
    pub(crate) fn there(&mut self, path: &RelPath) -> Result<Option<There>> {
        if let Some(object) = self.brought.get(path) {
            return Ok(Some(object.there()));
        }
        Ok(shown_by(&self.index.get(path)?))
    }

    /// Writes a row; history learns what it shows. `old` is the row it replaces.
    pub(crate) fn put(&mut self, path: &RelPath, old: &Row, new: Row) -> Result<()> {
        for version in [old.present(), new.present()].into_iter().flatten() {
            self.touch(version.content);
        }
        if let (Some(version), Some(dot)) = (new.on_disk(), new.materialised())
            && new.materialised() != old.materialised()
            && (new.is_file_or_link() || version.is_tomb() && self.had_object(path, old)?)
            && !self.is_shown_again(path, old, dot)?
        {
            let (at_ns, epoch) = (self.wall_ns, self.index.epoch());
            self.contents.note(path, (dot, version), at_ns, epoch)?;
        }
        self.index.put(path, old, new)
    }

    /// Whether a deletion is news at a path: what was never there has no history.
    fn had_object(&mut self, path: &RelPath, old: &Row) -> Result<bool> {
        Ok(old.is_file_or_link() || !self.contents.history_of(path)?.is_empty())
    }

    /// Whether what is shown is what was shown last, and had only to be brought again.
    fn is_shown_again(&mut self, path: &RelPath, old: &Row, dot: Dot) -> Result<bool> {
        if old.materialised().is_some() {
            return Ok(false);
        }
        let history = self.contents.history_of(path)?;
        Ok(history.last().is_some_and(|s| s.dot == dot))
    }

    /// Somebody refers to a content from now on, or did until now.
    pub(crate) fn touch(&mut self, content: ContentId) {
        if let Some(touched) = &mut self.touched {
            touched.insert(content);
        }
    }

    /// Nothing that is done later may seem earlier than what is known now.
    pub(crate) fn hear(&mut self, entry: &Entry) {
        for (_, version) in entry.siblings() {
            self.index.heard(version.te, self.wall_ns);
        }
    }

    /// Commits what is pending, contents first.
    pub(crate) fn commit(&mut self, durability: Durability) -> Result<()> {
        self.is_unsettled |= self.contents.store.is_dirty() || self.index.store().is_dirty();
        self.contents.commit(durability)?;
        self.index.commit(durability)
    }

    /// A flush failed: the next opening holds what is not sure to last against what is here.
    pub(crate) fn is_unsure(&mut self) -> Result<()> {
        self.is_unsettled = true;
        self.index.put_meta(UNSURE, b"1")?;
        self.commit(Durability::Process)
    }

    /// Commits what is pending of contents alone, which may be ahead of the rows.
    pub(crate) fn commit_contents(&mut self) -> Result<()> {
        self.is_unsettled |= self.contents.store.is_dirty();
        self.contents.commit(Durability::Process)
    }

    /// Takes back what is pending, after something could not be written.
    pub(crate) fn undo(&mut self) -> Result<()> {
        let undone = self.contents.store.rollback();
        undone.map_err(|e| store_error("undo what was not written", e))?;
        self.contents.reload()?;
        self.index.undo()?;
        for content in self.staged.clone() {
            if !self.contents.has(content)? {
                self.staged.remove(&content);
            }
        }
        self.read_brought()
    }
}
