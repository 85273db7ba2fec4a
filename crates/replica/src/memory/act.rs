//! Acting: one action, its precondition, what it displaces and what the index knows afterwards.
//!
//! Invariants: nothing is touched unless the precondition holds; what is displaced goes to trash or to the
//! version store before anything takes its place; the row changes with the tree or not at all.

use instep_core::entry::Entry;
use instep_core::id::{ContentId, Dot};
use instep_core::path::RelPath;
use instep_core::plan::{Action, Code, Goal, Keep, Outcome, Precondition, Problem};
use instep_core::row::{Held, Row};
use instep_core::time;
use instep_core::version::{Kind, Version};

use super::tree::{Node, Object};
use super::{State, readable};
use crate::mint;
use crate::records::{Book, ShareRecord, TrashRecord, hex};

/// Permission bits of a directory that stands only because something below it is alive.
const DERIVED_DIR_MODE: u16 = 0o755;

impl State {
    /// What becomes of an action without doing it; `None` when it can be carried out now.
    pub(super) fn verdict(&self, action: &Action) -> Option<Outcome> {
        if action.path.is_root() || action.path.is_reserved() {
            return Some(blocked(
                &action.path,
                Code::Unwritable,
                "this name belongs to instep",
            ));
        }
        if self.is_ignored(&action.path) {
            return None;
        }
        if self.is_done(action) {
            return Some(Outcome::Done);
        }
        let held = self
            .index
            .get(&action.path)
            .is_some_and(|r| r.held.is_some());
        if held && action.goal == Goal::Record {
            return None;
        }
        // Whatever was there before: that nothing is there now is all that is claimed.
        let tomb = action
            .shown
            .and_then(|d| action.entry.get(d))
            .is_some_and(Version::is_tomb);
        if tomb && action.goal == Goal::Record && self.shows(action) {
            return None;
        }
        if !self.holds(action) {
            return Some(Outcome::Superseded);
        }
        match &action.goal {
            Goal::Record if !self.shows(action) => Some(Outcome::Superseded),
            Goal::Rename { from } => self.rename_verdict(from, &action.path),
            _ => None,
        }
    }

    /// Whether the action was carried out before and nothing happened since.
    fn is_done(&self, action: &Action) -> bool {
        let Some(row) = self.index.get(&action.path) else {
            return false;
        };
        let node = self.tree.get(&action.path);
        row.entry == action.entry
            && row.shown == action.shown
            && row.held.is_none()
            && row.print == node.map(Node::print)
            && match &action.goal {
                Goal::File { content, .. }
                    if node.is_none_or(|n| n.object.content() != *content) =>
                {
                    false
                }
                Goal::Dir { mode } | Goal::File { mode, .. } | Goal::Metadata { mode, .. } => node
                    .is_some_and(|n| {
                        n.object.mode() == *mode || n.object.kind() == Some(Kind::Link)
                    }),
                Goal::Absent => node.is_none(),
                Goal::Link { .. } | Goal::Record | Goal::Rename { .. } => true,
            }
    }

    fn holds(&self, action: &Action) -> bool {
        let node = self.tree.get(&action.path);
        match action.before {
            // A directory that stands for its contents counts as absent for whoever makes it properly.
            Precondition::Absent => node.is_none_or(|n| {
                let row = self.index.get(&action.path);
                matches!(action.goal, Goal::Dir { .. })
                    && n.object.is_dir()
                    && row.is_some_and(|r| r.is_derived_dir() && r.print == Some(n.print()))
            }),
            Precondition::Unchanged {
                kind,
                print,
                content,
            } => node.is_some_and(|n| {
                n.print() == print && n.object.kind() == Some(kind) && n.object.content() == content
            }),
        }
    }

    /// Whether what is on disk is what the action says is shown.
    fn shows(&self, action: &Action) -> bool {
        let node = self.tree.get(&action.path);
        match action.shown.and_then(|d| action.entry.get(d)) {
            None => action.shown.is_none(),
            Some(v) if v.is_tomb() => node.is_none(),
            Some(v) => node.is_some_and(|n| is_object(&n.object, v)),
        }
    }

    /// Carries out an action whose verdict was to go on. `bytes` is the content of a file's goal.
    pub(super) fn act(&mut self, action: &Action, bytes: Vec<u8>) -> Outcome {
        self.hear(&action.entry);
        if self.is_ignored(&action.path) {
            self.put(&action.path, |row| {
                *row = Row {
                    entry: action.entry.clone(),
                    held: Some(Held::Ignored),
                    ..Row::default()
                };
            });
            return Outcome::Done;
        }
        let done = match &action.goal {
            Goal::Record => {
                self.record_only(action);
                return Outcome::Done;
            }
            Goal::File { mode, mtime, .. } => self.replace(
                action,
                Object::File {
                    bytes,
                    mode: *mode,
                    mtime: *mtime,
                },
            ),
            Goal::Link { target, mtime } => self.replace(
                action,
                Object::Link {
                    target: target.to_vec(),
                    mtime: *mtime,
                },
            ),
            Goal::Dir { mode } => self.make_dir(action, *mode),
            Goal::Metadata { mode, mtime } => self.change(&action.path, *mode, *mtime),
            Goal::Absent => self.displace(action),
            Goal::Rename { from } => self.move_here(from, action),
        };
        if let Err(outcome) = done {
            return outcome;
        }
        let print = self.tree.get(&action.path).map(Node::print);
        self.put(&action.path, |row| {
            *row = Row {
                entry: action.entry.clone(),
                shown: action.shown,
                print,
                seen: None,
                held: None,
                epoch: 0,
            };
        });
        if action.goal == Goal::Absent {
            self.prune_above(&action.path);
        }
        Outcome::Done
    }

    fn record_only(&mut self, action: &Action) {
        let print = self.tree.get(&action.path).map(Node::print);
        let lives = action
            .shown
            .and_then(|d| action.entry.get(d))
            .map(|v| !v.is_tomb());
        self.put(&action.path, |row| {
            row.entry = action.entry.clone();
            row.shown = action.shown;
            row.print = match lives {
                _ if row.held.is_some() => None,
                Some(true) => print,
                Some(false) => None,
                None => row.print.and(print),
            };
        });
    }

    fn replace(&mut self, action: &Action, object: Object) -> Result<(), Outcome> {
        self.make_parents(&action.path)?;
        if self.tree.get(&action.path).is_some() {
            self.displace(action)?;
        }
        self.create(&action.path, object)
    }

    fn make_dir(&mut self, action: &Action, mode: u16) -> Result<(), Outcome> {
        if self
            .tree
            .get(&action.path)
            .is_some_and(|n| n.object.is_dir())
        {
            return self.change(&action.path, mode, None);
        }
        self.replace(action, Object::Dir { mode })
    }

    fn create(&mut self, path: &RelPath, object: Object) -> Result<(), Outcome> {
        self.tree
            .create(path, object)
            .map_err(|e| blocked(path, Code::Unwritable, &e.to_string()))
    }

    fn change(
        &mut self,
        path: &RelPath,
        new_mode: u16,
        new_mtime: Option<time::Mtime>,
    ) -> Result<(), Outcome> {
        let changed = self.tree.change(path, |object| match object {
            Object::File { mode, mtime, .. } => {
                *mode = new_mode;
                *mtime = new_mtime.unwrap_or(*mtime);
            }
            Object::Link { mtime, .. } => *mtime = new_mtime.unwrap_or(*mtime),
            Object::Dir { mode } => *mode = new_mode,
            Object::Special => {}
        });
        changed.map_err(|_| Outcome::Superseded)
    }

    /// Directories that are missing above a path stand because of it, whatever is known about them; but none where a
    /// file is missing and no look has told of that.
    fn make_parents(&mut self, path: &RelPath) -> Result<(), Outcome> {
        let mut missing = Vec::new();
        let mut dir = path.parent();
        while let Some(d) = dir.filter(|d| !d.is_root()) {
            match self.tree.get(&d).map(|n| n.object.is_dir()) {
                Some(true) => break,
                Some(false) => return Err(Outcome::Busy),
                None if self.is_missed(&d) => return Err(Outcome::Superseded),
                None => missing.push(d.clone()),
            }
            dir = d.parent();
        }
        for dir in missing.iter().rev() {
            self.create(
                dir,
                Object::Dir {
                    mode: DERIVED_DIR_MODE,
                },
            )?;
            let print = self.tree.get(dir).map(Node::print);
            self.put(dir, |row| {
                row.shown = None;
                row.print = print;
            });
        }
        Ok(())
    }

    fn is_missed(&self, path: &RelPath) -> bool {
        self.index.get(path).is_some_and(Row::is_file_or_link)
    }

    /// Takes what is at the action's path away and keeps it; nothing there is fine.
    fn displace(&mut self, action: &Action) -> Result<(), Outcome> {
        if self.tree.get(&action.path).is_none() {
            return Ok(());
        }
        self.check_empty(&action.path)?;
        let node = self.tree.take(&action.path).map_err(|_| Outcome::Busy)?;
        if !node.object.is_dir() {
            self.keep(action, node);
        }
        Ok(())
    }

    /// Why a directory cannot go: known things below it wait for their own actions, unknown ones for a look,
    /// held ones for a person.
    fn check_empty(&self, dir: &RelPath) -> Result<(), Outcome> {
        let mut husk = false;
        let mut tracked = false;
        for (path, node) in self.tree.below(dir) {
            match (self.held(path, node), node.object.is_dir()) {
                (Some(_), _) => husk = true,
                (None, true) => {}
                (None, false) if self.index.get(path).is_some_and(|r| r.print.is_some()) => {
                    tracked = true;
                }
                (None, false) => return Err(Outcome::Superseded),
            }
        }
        if husk && !tracked {
            return Err(blocked(
                dir,
                Code::Husk,
                "it still holds files that are not synchronized",
            ));
        }
        if self.tree.below(dir).next().is_some() {
            Err(Outcome::Busy)
        } else {
            Ok(())
        }
    }

    fn keep(&mut self, action: &Action, node: Node) {
        let at_ns = self.wall_ns;
        self.kept_count += 1;
        let key = format!("{at_ns:020}-{:08}", self.kept_count);
        let loser = match action.keep {
            Keep::Trash => None,
            Keep::Version(dot) => Some(dot),
        };
        let record = TrashRecord {
            path: action.path.to_string(),
            path_hex: hex(action.path.as_bytes()),
            kind: if node.object.kind() == Some(Kind::Link) {
                "link"
            } else {
                "file"
            }
            .into(),
            size: node.object.bytes().len() as u64,
            at_ns,
            why: match (loser, &action.goal) {
                (Some(_), _) => "conflict",
                (None, Goal::Absent) => "deleted",
                (None, _) => "overwritten",
            }
            .into(),
            by: action
                .shown
                .map(|dot| self.label_of(dot))
                .unwrap_or_default(),
            content: node.object.content().to_string(),
            loser: loser.map(|dot| dot.to_string()),
            epoch: 0,
            unjudged: false,
        };
        // Infallible: the record has no map with keys that are not text.
        let body = serde_json::to_string(&record).unwrap_or_default();
        self.records.insert((Book::Trash, key.clone()), body);
        match loser {
            Some(dot) => self.versions.insert(dot, node),
            None => self.trash.insert(key, node),
        };
    }

    fn label_of(&self, dot: Dot) -> String {
        let body = self.records.get(&(Book::Share, "share".into()));
        let share = body.and_then(|b| serde_json::from_str::<ShareRecord>(b).ok());
        share
            .and_then(|s| s.label_of(dot.actor).map(String::from))
            .unwrap_or_default()
    }

    /// Directories that stood only because of what has just gone, go too.
    fn prune_above(&mut self, path: &RelPath) {
        let mut dir = path.parent();
        while let Some(d) = dir.filter(|d| !d.is_root()) {
            let derived = self.index.get(&d).is_some_and(Row::is_derived_dir);
            if !derived || self.tree.below(&d).next().is_some() {
                return;
            }
            // A user may have put something else in its place: then there is nothing of ours to remove.
            if self.tree.get(&d).is_some_and(|n| n.object.is_dir()) && self.tree.take(&d).is_err() {
                return;
            }
            self.put(&d, |row| {
                row.print = None;
                row.shown = mint::settled_tomb(&row.entry);
            });
            dir = d.parent();
        }
    }

    pub(super) fn rename_verdict(&self, from: &RelPath, to: &RelPath) -> Option<Outcome> {
        if to.is_within(from) || from.is_within(to) || to.is_reserved() || from.is_reserved() {
            return Some(blocked(
                to,
                Code::Unwritable,
                "a directory cannot move into itself",
            ));
        }
        let unchanged = |path: &RelPath| {
            let row = self.index.get(path);
            row.and_then(|r| r.print) == self.tree.get(path).map(Node::print)
        };
        let tracked = |row: &Row| row.print.is_some();
        let below_unchanged = self
            .rows_below(from)
            .filter(|(_, r)| tracked(r))
            .all(|(p, _)| unchanged(p));
        if self.tree.get(from).is_none() || !unchanged(from) || !below_unchanged {
            return Some(Outcome::Superseded);
        }
        if self.tree.get(to).is_some() {
            return Some(Outcome::Superseded);
        }
        None
    }

    pub(super) fn rename(&mut self, from: &RelPath, to: &RelPath) -> Outcome {
        if let Some(outcome) = self.rename_verdict(from, to) {
            return outcome;
        }
        match self.tree.rename(from, to) {
            Ok(()) => Outcome::Done,
            Err(_) => Outcome::Busy,
        }
    }

    /// As [`State::rename`], and neither path claims to show what has moved: the actions that follow say it.
    fn move_here(&mut self, from: &RelPath, action: &Action) -> Result<(), Outcome> {
        self.make_parents(&action.path)?;
        match self.rename(from, &action.path) {
            Outcome::Done => {}
            other => return Err(other),
        }
        if let Some(v) = action
            .shown
            .and_then(|d| action.entry.get(d))
            .filter(|v| !v.is_tomb())
        {
            self.change(&action.path, v.mode, Some(v.mtime))?;
        }
        let old: Vec<RelPath> = self.rows_below(from).map(|(p, _)| p.clone()).collect();
        for path in old.iter().chain([from]) {
            self.put(path, |row| {
                row.shown = mint::settled_tomb(&row.entry);
                row.print = None;
            });
        }
        Ok(())
    }

    pub(super) fn adopt_move(&mut self, from: &RelPath, to: &RelPath, entries: &[(RelPath, Row)]) {
        for (path, theirs) in entries {
            if !path.is_within(from) && !path.is_within(to) {
                continue;
            }
            self.hear(&theirs.entry);
            let node = self.tree.get(path);
            let print = node.map(Node::print);
            let object = node.map(|n| n.object.clone());
            self.put(path, |row| {
                row.entry = row.entry.merge(&theirs.entry);
                let version = theirs.shown.and_then(|d| row.entry.get(d));
                let is_so = match (version, &object) {
                    (Some(v), None) => v.is_tomb(),
                    (Some(v), Some(object)) => is_object(object, v),
                    (None, _) => false,
                };
                row.shown = theirs.shown.filter(|_| is_so);
                row.print = print.filter(|_| is_so || theirs.is_derived_dir());
                row.held = None;
            });
        }
    }

    /// Nothing that is done later may seem earlier than what is known now.
    fn hear(&mut self, entry: &Entry) {
        for (_, version) in entry.siblings() {
            self.hlc = time::adopt(self.hlc, version.te, self.wall_ns);
        }
    }

    /// Changes a row, and forgets it when nothing is left to know.
    pub(super) fn put(&mut self, path: &RelPath, with: impl FnOnce(&mut Row)) {
        let mut row = self.index.remove(path).unwrap_or_default();
        with(&mut row);
        row.epoch = self.epoch;
        let blank = Row {
            epoch: row.epoch,
            ..Row::default()
        };
        if row != blank {
            self.index.insert(path.clone(), row);
        }
    }

    /// Content that is here but not at its path.
    pub(super) fn kept(&self, content: ContentId) -> Option<Vec<u8>> {
        if let Some(bytes) = self.staged.get(&content) {
            return Some(bytes.clone());
        }
        let nodes = self.versions.values().chain(self.trash.values());
        nodes
            .map(|n| &n.object)
            .find(|o| o.content() == content)
            .map(readable)
    }
}

fn is_object(object: &Object, version: &Version) -> bool {
    object.kind() == Some(version.kind) && object.content() == version.content
}

pub(super) fn blocked(path: &RelPath, code: Code, detail: &str) -> Outcome {
    Outcome::Blocked(Problem {
        path: path.clone(),
        code,
        detail: detail.into(),
    })
}
