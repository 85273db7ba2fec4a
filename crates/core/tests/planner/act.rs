//! Carrying out one action as the contract of a replica demands, and no more: whatever it would have to
//! make up for is an error, so that a plan shows its faults.

use instep_core::entry::Entry;
use instep_core::id::ContentId;
use instep_core::path::RelPath;
use instep_core::plan::{Action, Goal, Keep, Precondition};
use instep_core::row::Row;
use instep_core::time::Mtime;
use instep_core::version::{Kind, Version};
use instep_core::view::Shown;

use crate::tree::{self, Plan};
use crate::world::{Flaw, Object, World};

/// Something that an action took from its path.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) content: ContentId,
    pub(crate) keep: Keep,
}

type Done = Result<(), &'static str>;

impl World {
    /// Carries out one action on replica `i`.
    pub(crate) fn carry_out(&mut self, i: usize, action: &Action, plan: &Plan) -> Done {
        let here = self.replicas[i].disk.get(&action.path).cloned();
        self.check_before(i, action, here.as_ref())?;
        match &action.goal {
            Goal::Record => return self.record_only(i, action, here.as_ref()),
            Goal::File {
                content,
                mode,
                mtime,
                ..
            } => {
                let new = self.object(Kind::File, *content, *mode, *mtime);
                self.replace(i, action, plan, new)?;
            }
            Goal::Link { mtime, .. } => {
                let content = action
                    .shown
                    .and_then(|d| action.entry.get(d))
                    .map(|v| v.content);
                let content = content.ok_or("a link without a version")?;
                let new = self.object(Kind::Link, content, 0, *mtime);
                self.replace(i, action, plan, new)?;
            }
            Goal::Dir { mode } if here.as_ref().is_some_and(|o| o.kind == Kind::Dir) => {
                self.retouch(i, &action.path, *mode, None);
            }
            Goal::Dir { mode } => {
                let new = self.object(Kind::Dir, ContentId::NONE, *mode, Mtime::default());
                self.replace(i, action, plan, new)?;
            }
            Goal::Metadata { mode, mtime } => self.retouch(i, &action.path, *mode, *mtime),
            Goal::Absent => self.displace(i, action)?,
            Goal::Rename { .. } => return Err("nobody plans a rename here"),
        }
        let print = self.replicas[i].disk.get(&action.path).map(|o| o.print);
        let told = action
            .shown
            .and_then(|dot| Some((dot, action.entry.get(dot)?)));
        let entry = match (self.flaw, told) {
            (Some(Flaw::Forgets), Some((dot, version))) => Entry::first(dot, version.clone()),
            _ => action.entry.clone(),
        };
        let row = Row {
            entry,
            shown: action.shown,
            print,
            ..Row::default()
        };
        self.replicas[i].rows.insert(action.path.clone(), row);
        if action.goal == Goal::Absent {
            self.prune_above(i, &action.path);
        }
        Ok(())
    }

    /// A directory that stood for its contents went with the last of them, before something else could take
    /// its place: a replica calls that superseded, and the next plan goes on from there.
    pub(crate) fn was_pruned(&self, i: usize, action: &Action) -> bool {
        let replica = &self.replicas[i];
        let pruned = |r: &Row| r.print.is_none() && r.shown == tree::settled_tomb(&r.entry);
        action.was_dir()
            && !replica.disk.contains_key(&action.path)
            && replica.rows.get(&action.path).is_some_and(pruned)
    }

    fn check_before(&self, i: usize, action: &Action, here: Option<&Object>) -> Done {
        let derived = || {
            self.replicas[i]
                .rows
                .get(&action.path)
                .is_some_and(Row::is_derived_dir)
        };
        let holds = match (action.before, here) {
            (Precondition::Absent, None) => true,
            // Made for what is below it by an earlier action.
            (Precondition::Absent, Some(o)) => {
                o.kind == Kind::Dir
                    && matches!(action.goal, Goal::Dir { .. } | Goal::Record)
                    && derived()
            }
            (Precondition::Unchanged { .. }, None) => false,
            (
                Precondition::Unchanged {
                    kind,
                    print,
                    content,
                },
                Some(o),
            ) => (kind, print, content) == (o.kind, o.print, o.content),
        };
        // That nothing is there now is all that the record of a deletion claims.
        let is_tomb = action
            .shown
            .and_then(|d| action.entry.get(d))
            .is_some_and(Version::is_tomb);
        let gone = is_tomb && action.goal == Goal::Record && here.is_none();
        if holds || gone {
            Ok(())
        } else {
            Err("its precondition does not hold")
        }
    }

    fn record_only(&mut self, i: usize, action: &Action, here: Option<&Object>) -> Done {
        let shown = action.shown.and_then(|d| action.entry.get(d));
        let shows = match (shown, here) {
            (None, _) => true,
            (Some(v), None) => v.is_tomb(),
            (Some(v), Some(o)) => (v.kind, v.content) == (o.kind, o.content),
        };
        if !shows {
            return Err("it records what is not there");
        }
        let row = self.replicas[i]
            .rows
            .entry(action.path.clone())
            .or_default();
        row.entry = action.entry.clone();
        row.shown = action.shown;
        row.print = here
            .map(|o| o.print)
            .filter(|_| shown.is_some() || row.print.is_some());
        Ok(())
    }

    fn replace(&mut self, i: usize, action: &Action, plan: &Plan, new: Object) -> Done {
        self.make_parents_for(i, action, plan)?;
        if self.replicas[i].disk.contains_key(&action.path) {
            self.displace(i, action)?;
        }
        self.replicas[i].disk.insert(action.path.clone(), new);
        Ok(())
    }

    /// Only directories that stand for what is below them may be missing.
    fn make_parents_for(&mut self, i: usize, action: &Action, plan: &Plan) -> Done {
        let mut dir = action.path.parent().filter(|d| !d.is_root());
        let mut missing = Vec::new();
        while let Some(d) = dir {
            match self.replicas[i].disk.get(&d).map(|o| o.kind) {
                Some(Kind::Dir) => break,
                Some(_) => return Err("its parent is no directory"),
                None => missing.push(d.clone()),
            }
            dir = d.parent().filter(|d| !d.is_root());
        }
        for d in missing.into_iter().rev() {
            let may_stand = plan
                .views
                .get(&d)
                .is_none_or(|(entry, view)| match view.shown {
                    Shown::Version { dot, .. } => entry.get(dot).is_some_and(Version::is_tomb),
                    Shown::Standing | Shown::Unknown => true,
                    Shown::Frozen => false,
                });
            if !may_stand {
                return Err("its parent is not there yet");
            }
            let new = self.object(Kind::Dir, ContentId::NONE, 0o755, Mtime::default());
            let row = self.replicas[i].rows.entry(d.clone()).or_default();
            (row.shown, row.print) = (None, Some(new.print));
            self.replicas[i].disk.insert(d, new);
        }
        Ok(())
    }

    fn displace(&mut self, i: usize, action: &Action) -> Done {
        let replica = &mut self.replicas[i];
        if tree::below(&replica.disk, &action.path).next().is_some() {
            return Err("the directory is not empty");
        }
        let gone = replica
            .disk
            .remove(&action.path)
            .ok_or("nothing is there")?;
        if self.flaw != Some(Flaw::KeepsNothing) {
            replica.kept.push(Kept {
                content: gone.content,
                keep: action.keep,
            });
        }
        Ok(())
    }

    fn retouch(&mut self, i: usize, path: &RelPath, mode: u16, mtime: Option<Mtime>) {
        let Some(old) = self.replicas[i].disk.get(path).cloned() else {
            return;
        };
        let new = self.object(old.kind, old.content, mode, mtime.unwrap_or(old.mtime));
        self.replicas[i].disk.insert(path.clone(), new);
    }

    /// Directories that stood only for what has just gone, go too.
    fn prune_above(&mut self, i: usize, path: &RelPath) {
        let replica = &mut self.replicas[i];
        let mut dir = path.parent();
        while let Some(d) = dir.filter(|d| !d.is_root()) {
            let derived = replica.rows.get(&d).is_some_and(Row::is_derived_dir);
            if !derived || tree::below(&replica.disk, &d).next().is_some() {
                return;
            }
            replica.disk.remove(&d);
            let row = replica.rows.entry(d.clone()).or_default();
            row.print = None;
            row.shown = tree::settled_tomb(&row.entry);
            dir = d.parent();
        }
    }
}
