//! Acting: one action, its precondition, what it displaces and what is known afterwards.
//!
//! Invariants: nothing changes unless the precondition holds; what is displaced is listed in the trash or the version
//! store, and in history, before anything takes its place; no row shows a content that is not here. Where contents come
//! from is not known here.

use instep_core::entry::Entry;
use instep_core::path::RelPath;
use instep_core::plan::{Action, Code, Goal, Outcome, Precondition, Problem};
use instep_core::row::{Print, Row};
use instep_core::time::Mtime;
use instep_core::version::{Kind, Version};
use instep_replica::Result;
use instep_replica::mint;

use crate::history;
use crate::state::{State, There, print, shown_by};

/// Permission bits of a directory that stands only because something below it is alive.
const DERIVED_DIR_MODE: u16 = 0o755;

/// What became of a part of an action: nothing stands in its way, or this.
type Step = Result<core::result::Result<(), Outcome>>;

/// Something that a person should see.
pub(crate) fn blocked(path: &RelPath, code: Code, detail: &str) -> Outcome {
    Outcome::Blocked(Problem {
        path: path.clone(),
        code,
        detail: detail.into(),
    })
}

/// Goes on with the outcome of a step that was in the way.
macro_rules! pass {
    ($step:expr) => {
        if let Err(outcome) = $step {
            return Ok(Err(outcome));
        }
    };
}

/// What an action says is shown, if it is not a deletion.
fn told(action: &Action) -> Option<&Version> {
    action.shown.and_then(|dot| action.entry.get(dot))
}

fn tells_of_a_deletion(action: &Action) -> bool {
    action.goal == Goal::Record && told(action).is_some_and(Version::is_tomb)
}

impl State {
    /// What becomes of an action without doing it; `None` when it can be carried out now.
    pub(crate) fn verdict(&mut self, action: &Action) -> Result<Option<Outcome>> {
        let path = &action.path;
        if path.is_root() || path.is_reserved() {
            let detail = "this name belongs to instep";
            return Ok(Some(blocked(path, Code::Unwritable, detail)));
        }
        if !history::fits(path) {
            let detail = "the path is too long for its history";
            return Ok(Some(blocked(path, Code::Unwritable, detail)));
        }
        let row = self.index.get(path)?;
        let there = self.there(path)?;
        if is_done(action, &row, there) {
            return Ok(Some(Outcome::Done));
        }
        // Whatever was there before: that nothing is there now is all that is claimed.
        if tells_of_a_deletion(action) && shows(action, there) {
            return Ok(None);
        }
        if !holds(action, &row, there) {
            return Ok(Some(Outcome::Superseded));
        }
        match &action.goal {
            Goal::Record if !shows(action, there) => Ok(Some(Outcome::Superseded)),
            Goal::Rename { from } => self.rename_verdict(from, path),
            _ => Ok(None),
        }
    }

    /// Carries out an action whose verdict was to go on, and whose content is here.
    pub(crate) fn act(&mut self, action: &Action) -> Result<Outcome> {
        self.hear(&action.entry);
        let path = &action.path;
        let row = self.index.get(path)?;
        if action.goal == Goal::Record {
            let shown_print = match told(action).map(Version::is_tomb) {
                _ if row.held.is_some() => None,
                Some(true) => None,
                Some(false) | None => row.print,
            };
            let new = Row {
                entry: action.entry.clone(),
                shown: action.shown,
                print: shown_print,
                ..row.clone()
            };
            self.put(path, &row, new)?;
            return Ok(Outcome::Done);
        }
        let new_print = match self.make_way(action, &row)? {
            Ok(new_print) => new_print,
            Err(outcome) => return Ok(outcome),
        };
        // The old place of a rename is cleared on the way, and its row may be the parent of this one.
        let old = self.index.get(path)?;
        let new = Row {
            entry: action.entry.clone(),
            shown: action.shown,
            print: new_print,
            ..Row::default()
        };
        self.put(path, &old, new)?;
        if action.goal == Goal::Absent {
            self.prune_above(path)?;
        }
        Ok(Outcome::Done)
    }

    /// Puts away what the goal takes the place of, and says what the new object looks like.
    fn make_way(
        &mut self,
        action: &Action,
        row: &Row,
    ) -> Result<core::result::Result<Option<Print>, Outcome>> {
        let there = shown_by(row);
        let is_dir = there.is_some_and(|t| t.kind == Kind::Dir);
        let step = match &action.goal {
            Goal::Dir { .. } if is_dir => Ok(()),
            Goal::File { .. } | Goal::Link { .. } | Goal::Dir { .. } => {
                self.replace(action, row)?
            }
            Goal::Absent => self.displace(action, row)?,
            Goal::Rename { from } => self.move_here(from, action)?,
            Goal::Metadata { .. } | Goal::Record => Ok(()),
        };
        let none = Mtime::default();
        Ok(step.map(|()| match &action.goal {
            Goal::File {
                content,
                mode,
                mtime,
                ..
            } => Some(print(Kind::File, *content, *mode, *mtime)),
            Goal::Link { target, mtime } => {
                let content = instep_chunk::content_id(target);
                Some(print(Kind::Link, content, 0, *mtime))
            }
            Goal::Dir { mode } => Some(dir_print(*mode)),
            Goal::Metadata { mode, mtime } => there.map(|t| {
                let had = row.present().map_or(none, |v| v.mtime);
                print(t.kind, t.content, *mode, mtime.unwrap_or(had))
            }),
            Goal::Rename { .. } => told(action).map(|v| print(v.kind, v.content, v.mode, v.mtime)),
            Goal::Absent | Goal::Record => None,
        }))
    }

    fn replace(&mut self, action: &Action, row: &Row) -> Step {
        pass!(self.make_parents(&action.path)?);
        self.displace(action, row)
    }

    /// Directories that are missing above a path stand because of it, whatever is known about them.
    pub(crate) fn make_parents(&mut self, path: &RelPath) -> Step {
        let mut missing = Vec::new();
        let mut dir = path.parent();
        while let Some(d) = dir.filter(|d| !d.is_root()) {
            match self.there(&d)?.map(|t| t.kind) {
                Some(Kind::Dir) => break,
                Some(_) => return Ok(Err(Outcome::Busy)),
                None => missing.push(d.clone()),
            }
            dir = d.parent();
        }
        for dir in missing.iter().rev() {
            let old = self.index.get(dir)?;
            let new = Row {
                shown: None,
                print: Some(dir_print(DERIVED_DIR_MODE)),
                seen: None,
                ..old.clone()
            };
            self.put(dir, &old, new)?;
        }
        Ok(Ok(()))
    }

    /// Lists what is at the action's path among what is kept; nothing there is fine.
    fn displace(&mut self, action: &Action, row: &Row) -> Step {
        let Some(there) = shown_by(row) else {
            return Ok(Ok(()));
        };
        if there.kind != Kind::Dir {
            self.keep(action, row)?;
        } else if self.is_anything_below(&action.path)? {
            return Ok(Err(Outcome::Busy));
        }
        Ok(Ok(()))
    }

    fn is_anything_below(&mut self, dir: &RelPath) -> Result<bool> {
        let mut found = self.brought.keys().any(|p| p != dir && p.is_within(dir));
        self.index.subtree(dir, &mut |_, row| {
            found |= row.print.is_some();
            if found {
                core::ops::ControlFlow::Break(())
            } else {
                core::ops::ControlFlow::Continue(())
            }
        })?;
        Ok(found)
    }

    /// Directories that stood only because of what has just gone, go too.
    pub(crate) fn prune_above(&mut self, path: &RelPath) -> Result<()> {
        let mut dir = path.parent();
        while let Some(d) = dir.filter(|d| !d.is_root()) {
            let row = self.index.get(&d)?;
            if !row.is_derived_dir() || self.is_anything_below(&d)? {
                return Ok(());
            }
            let new = Row {
                print: None,
                shown: mint::settled_tomb(&row.entry),
                ..row.clone()
            };
            self.put(&d, &row, new)?;
            dir = d.parent();
        }
        Ok(())
    }

    /// One file or link moves; neither path claims to show it before the actions that follow say so.
    fn move_here(&mut self, from: &RelPath, action: &Action) -> Step {
        pass!(self.make_parents(&action.path)?);
        let row = self.index.get(from)?;
        let is_told = shown_by(&row).zip(told(action));
        let is_it = is_told.is_some_and(|(t, v)| t.kind == v.kind && t.content == v.content);
        if !is_it || !row.is_file_or_link() {
            return Ok(Err(Outcome::Superseded));
        }
        let new = Row {
            shown: mint::settled_tomb(&row.entry),
            print: None,
            seen: None,
            ..row.clone()
        };
        self.put(from, &row, new)?;
        Ok(Ok(()))
    }

    /// Whether something else than going on follows from what is at both ends of a rename.
    pub(crate) fn rename_verdict(
        &mut self,
        from: &RelPath,
        to: &RelPath,
    ) -> Result<Option<Outcome>> {
        let is_within = to.is_within(from) || from.is_within(to);
        if is_within || to.is_reserved() || from.is_reserved() || !history::fits(to) {
            let detail = "it cannot be moved there";
            return Ok(Some(blocked(to, Code::Unwritable, detail)));
        }
        let is_recorded = !self.brought.keys().any(|p| p.is_within(from));
        let can = is_recorded && self.there(from)?.is_some() && self.there(to)?.is_none();
        Ok((!can).then_some(Outcome::Superseded))
    }

    /// What everybody knows of a path becomes part of what is known here.
    pub(crate) fn merged(&mut self, row: &Row, entry: &Entry) -> Entry {
        self.hear(entry);
        row.entry.merge(entry)
    }
}

/// What a directory looks like.
pub(crate) fn dir_print(mode: u16) -> Print {
    let none = instep_core::id::ContentId::NONE;
    print(Kind::Dir, none, mode, Mtime::default())
}

/// Whether the action was carried out before and nothing happened since.
fn is_done(action: &Action, row: &Row, there: Option<There>) -> bool {
    let is_known = row.entry == action.entry && row.shown == action.shown && row.held.is_none();
    let is_as_recorded = shown_by(row) == there && !(row.entry.is_empty() && there.is_none());
    is_known
        && is_as_recorded
        && match &action.goal {
            Goal::File { content, mode, .. } => {
                there.is_some_and(|t| t.content == *content && t.print.mode == *mode)
            }
            Goal::Dir { mode } | Goal::Metadata { mode, .. } => {
                there.is_some_and(|t| t.print.mode == *mode || t.kind == Kind::Link)
            }
            Goal::Absent => there.is_none(),
            Goal::Link { .. } | Goal::Record | Goal::Rename { .. } => true,
        }
}

fn holds(action: &Action, row: &Row, there: Option<There>) -> bool {
    match action.before {
        // A directory that stands for its contents counts as absent for whoever makes it properly.
        Precondition::Absent => {
            let is_proper = matches!(action.goal, Goal::Dir { .. });
            there.is_none() || is_proper && row.is_derived_dir() && shown_by(row) == there
        }
        Precondition::Unchanged {
            kind,
            print,
            content,
        } => {
            there
                == Some(There {
                    kind,
                    content,
                    print,
                })
        }
    }
}

/// Whether what is there is what the action says is shown.
fn shows(action: &Action, there: Option<There>) -> bool {
    match told(action) {
        None => action.shown.is_none(),
        Some(v) if v.is_tomb() => there.is_none(),
        Some(v) => there.is_some_and(|t| t.kind == v.kind && t.content == v.content),
    }
}
