//! From what every replica knows about a path to what each must do: pure, and the same for any number.
//!
//! Known on entry: each side's row is the truth about its index, and its `shown` about its disk as of the
//! last look. The merge over all sides is what everybody will know afterwards; the view of that merge is
//! what everybody will show. An action is planned only where a disk or an index differs from that.
//!
//! In a mirror the source alone decides: targets know afterwards what the source knows, joined with what
//! they had seen, and what they had of their own goes to trash.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use crate::attributes::{self, Carried};
use crate::conflict;
use crate::entry::Entry;
use crate::id::Dot;
use crate::path::RelPath;
use crate::plan::{Action, Code, Goal, Keep, Precondition, Problem};
use crate::policy::{Policies, Role};
use crate::row::{Held, Row};
use crate::version::{Kind, Version};
use crate::view::{Shown, View, has_content, is_preferred, view, view_above};

/// What a directory is made with when no version says how.
const STANDING_MODE: u16 = 0o755;

/// One replica's part in a reconciliation.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    /// What its index has at the path.
    pub row: Option<&'a Row>,
    /// What it may do.
    pub role: Role,
    /// It can be written now: online, not read-only, not excluded.
    pub writable: bool,
    /// It keeps permission bits.
    pub modes: bool,
    /// Something above the path that is no directory keeps its name here: it is held, or waits for a person.
    /// Then nothing can be put at the path, and whatever is above says why.
    pub covered: bool,
    /// Which attributes it carries.
    pub carried: Carried,
}

/// What is to be done about one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What everybody knows afterwards.
    pub entry: Entry,
    /// What everybody shows afterwards.
    pub view: View,
    /// What must be done, by replica.
    pub actions: Vec<Action>,
    /// Entries beside the path that the view calls into being.
    pub derived: Vec<(RelPath, Entry)>,
    /// What stands in the way, by replica.
    pub blocked: Vec<(usize, Problem)>,
}

/// Decides about one path. `extra` is what is known beyond the sides' rows (a derived entry, a resolution);
/// `alive_below` says whether anything below the path is alive.
pub fn reconcile(
    path: &RelPath,
    sides: &[Side<'_>],
    extra: &Entry,
    alive_below: bool,
    policies: &Policies,
) -> Decision {
    let entry = merged(sides, extra);
    let view = view_above(&entry, alive_below, policies);
    let mut decision = Decision {
        derived: derived(path, &entry, &view),
        actions: Vec::new(),
        blocked: Vec::new(),
        entry,
        view,
    };
    let empty = Row::default();
    for (replica, side) in sides.iter().enumerate() {
        if !side.writable || side.role == Role::Source {
            continue;
        }
        let target = Target {
            path,
            replica,
            row: side.row.unwrap_or(&empty),
            modes: side.modes,
            covered: side.covered,
            carried: side.carried,
            alive_below,
            mirror: side.role == Role::Target,
        };
        match target.action(&decision.entry, &decision.view) {
            Ok(action) => decision.actions.extend(action),
            Err(problem) => decision.blocked.push((replica, problem)),
        }
    }
    decision
}

/// What all sides that may speak know together.
pub fn merged(sides: &[Side<'_>], extra: &Entry) -> Entry {
    let said = sides.iter().filter_map(|s| match (s.role, s.row?) {
        (Role::Target, _) => None,
        (Role::Both, row) => Some(Cow::Borrowed(&row.entry)),
        (Role::Source, row) => Some(said_by_source(row)),
    });
    said.fold(extra.clone(), |all, entry| all.merge(&entry))
}

/// A mirror's source alone decides, and by what it has: it is never changed to show another sibling, so that what
/// it shows supersedes whatever else it knows.
pub fn said_by_source(row: &Row) -> Cow<'_, Entry> {
    let others = row.entry.siblings().len() > 1;
    let shown = row.materialised().filter(|_| others);
    match shown.and_then(|d| Some((d, row.entry.get(d)?.clone()))) {
        Some((dot, version)) => Cow::Owned(row.entry.record(dot, version)),
        None => Cow::Borrowed(&row.entry),
    }
}

/// The entries that show losers beside the path.
pub fn derived(path: &RelPath, entry: &Entry, view: &View) -> Vec<(RelPath, Entry)> {
    let of = |loser: &Dot| {
        let version = entry.get(*loser)?;
        let beside = conflict::copy_path(path, *loser, version)?;
        let mut copy = conflict::copy_version(version);
        copy.moved = Some(path.clone());
        Some((beside, Entry::first(conflict::derived_dot(*loser), copy)))
    };
    let files = view.beside.iter().filter_map(of);
    files.chain(displaced_dir(path, entry, view)).collect()
}

/// The directory that gave its name to a preferred file or link.
fn displaced_dir(path: &RelPath, entry: &Entry, view: &View) -> Option<(RelPath, Entry)> {
    entry.get(view.dot()?).filter(|v| has_content(v))?;
    let dirs = entry.siblings().iter().filter(|(_, v)| v.kind == Kind::Dir);
    let (dot, version) = dirs.max_by_key(|(d, v)| (v.te, *d))?;
    let room = conflict::room_path(path)?;
    let dot = conflict::moved_dot(*dot, &room);
    Some((room, Entry::first(dot, conflict::copy_version(version))))
}

/// Where everything that is alive below a path goes, because a file or link of a preferred replica has the
/// name; `None` where a directory keeps its name.
pub fn home(path: &RelPath, entry: &Entry, policies: &Policies) -> Option<RelPath> {
    let dot = view(entry, policies).dot()?;
    entry.get(dot).filter(|v| has_content(v))?;
    if is_preferred(entry, dot, policies) {
        conflict::room_path(path)
    } else {
        None
    }
}

/// What moving out of the way makes of one path: the entry at its new place, and the one that ends it at
/// `from`, where it was. What lost to what goes there goes along, and loses there again, just as if it had come
/// later: nobody is preferred there, so that it wins if it lost to a preferred version and is newer. What lost to a
/// deletion has nothing to go along with. What waits for a person stays where everybody shows what
/// they have of it, and what would have its room waits, too. Everybody who knows the same makes the same of it, with
/// the same dots. It must not be ended before somebody has it at its new place.
pub fn moved_out(
    from: &RelPath,
    to: &RelPath,
    entry: &Entry,
    policies: &Policies,
) -> Option<(Entry, Entry)> {
    let view = view(entry, policies);
    let is_gone = |d: &Dot| entry.get(*d).is_none_or(Version::is_tomb);
    let goes_along = |d: &Dot| view.losers.contains(d) && !view.beside.contains(d);
    let lives = |d: &Dot| match view.shown {
        Shown::Version { dot, .. } => dot == *d || goes_along(d) && !is_gone(&dot),
        Shown::Unknown | Shown::Standing | Shown::Frozen => false,
    };
    let alive = entry.siblings().iter().filter(|(_, v)| !v.is_tomb());
    let mut out: Option<(Entry, Entry)> = None;
    for (dot, version) in alive.filter(|(d, _)| lives(d)) {
        let mut copy = conflict::copy_version(version);
        copy.moved = Some(from.clone());
        let there = Entry::first(conflict::moved_dot(*dot, to), copy);
        let end = conflict::end_dot(*dot, to);
        let here = entry.record(end, conflict::end_version(version, to));
        out = Some(match out {
            Some((t, h)) => (t.merge(&there), h.merge(&here)),
            None => (there, here),
        });
    }
    out
}

/// One replica that is to show the view.
struct Target<'a> {
    path: &'a RelPath,
    replica: usize,
    row: &'a Row,
    modes: bool,
    covered: bool,
    carried: Carried,
    alive_below: bool,
    mirror: bool,
}

impl Target<'_> {
    fn action(&self, entry: &Entry, view: &View) -> Result<Option<Action>, Problem> {
        if self.row.held == Some(Held::Ignored) {
            return Ok(None);
        }
        let known = self.known_after(entry);
        match view.shown {
            Shown::Unknown if self.mirror => Ok(self.remove_extra(known)),
            Shown::Unknown => Ok(self.let_go(known)),
            Shown::Frozen => Ok(self.frozen(known)),
            Shown::Standing if self.covered => Ok(None),
            Shown::Standing => self.standing(known, view),
            Shown::Version { dot, mode } => {
                let Some(version) = entry.get(dot) else {
                    return Ok(None);
                };
                if version.is_tomb() {
                    return Ok(self.absent(known, dot, view));
                }
                if self.covered {
                    return Ok(None);
                }
                if let Some(held) = self.row.held {
                    return Err(self.held(held));
                }
                self.present(known, dot, version, mode, view)
            }
        }
    }

    /// What it shows stays, and with it what is known of that: a version that others have superseded
    /// meanwhile would not be recognised in an entry that has forgotten it.
    fn frozen(&self, known: Entry) -> Option<Action> {
        let is_forgotten = self.row.shown.is_some_and(|d| known.get(d).is_none());
        if is_forgotten {
            return None;
        }
        self.record(known, self.row.shown)
    }

    /// A mirror's target remembers what it had seen, so that its own versions count as superseded.
    fn known_after(&self, entry: &Entry) -> Entry {
        if !self.mirror || entry.is_empty() {
            return entry.clone();
        }
        let mut ctx = entry.ctx().clone();
        ctx.join(self.row.entry.ctx());
        Entry::from_parts(ctx, entry.siblings().to_vec()).unwrap_or_else(|| entry.clone())
    }

    fn held(&self, held: Held) -> Problem {
        let (code, detail) = match held {
            Held::Special => (Code::Special, "a FIFO, socket or device has this name here"),
            Held::UnsafeLink => (Code::UnsafeLink, "the link is absolute or leaves the root"),
            Held::NameClash => (
                Code::NameClash,
                "another name has this place on this file system",
            ),
            Held::Mount | Held::Ignored => (Code::Mount, "another file system is mounted here"),
        };
        Problem {
            path: self.path.clone(),
            code,
            detail: detail.into(),
        }
    }

    /// An extra at a mirror's target: nobody at the source ever knew it.
    fn remove_extra(&self, known: Entry) -> Option<Action> {
        self.row.print?;
        Some(self.acting(Goal::Absent, known, None, Keep::Trash))
    }

    /// A directory of which nobody knows anything was made for something that never came, or has gone.
    fn let_go(&self, known: Entry) -> Option<Action> {
        let stands = self.row.is_derived_dir() && self.row.held.is_none();
        let is_vain = stands && !self.alive_below;
        is_vain.then(|| self.acting(Goal::Absent, known, None, Keep::Trash))
    }

    /// A directory for what is below it, whatever else has the name.
    fn standing(&self, known: Entry, view: &View) -> Result<Option<Action>, Problem> {
        if let Some(held) = self.row.held {
            return Err(self.held(held));
        }
        if self.row.is_dir() {
            return Ok(self.stand_on(known));
        }
        Ok(Some(self.make_standing(known, view)))
    }

    fn make_standing(&self, known: Entry, view: &View) -> Action {
        let goal = Goal::Dir {
            mode: STANDING_MODE,
        };
        let keep = self.keep(&known, view);
        self.acting(goal, known, None, keep)
    }

    /// What is there stands for its contents from now on, with the mode that all such directories have.
    fn stand_on(&self, known: Entry) -> Option<Action> {
        if self.modes && self.row.print.is_some_and(|p| p.mode != STANDING_MODE) {
            let goal = Goal::Metadata {
                mode: STANDING_MODE,
                mtime: None,
            };
            return Some(self.acting(goal, known, None, Keep::Trash));
        }
        self.record(known, None)
    }

    fn absent(&self, known: Entry, tomb: Dot, view: &View) -> Option<Action> {
        let is_dir = self.row.is_dir();
        if is_dir && self.alive_below {
            return self.stand_on(known);
        }
        if self.row.print.is_some() && self.alive_below {
            // What is below needs the name at once, not after the next look.
            return Some(self.make_standing(known, view));
        }
        if self.row.print.is_some() {
            let keep = self.keep(&known, view);
            return Some(self.acting(Goal::Absent, known, Some(tomb), keep));
        }
        self.record(known, if self.alive_below { None } else { Some(tomb) })
    }

    fn present(
        &self,
        known: Entry,
        dot: Dot,
        version: &Version,
        mode: u16,
        view: &View,
    ) -> Result<Option<Action>, Problem> {
        if version.kind == Kind::Link && !is_safe_link(self.path, &version.target) {
            return Err(self.held(Held::UnsafeLink));
        }
        if let Some(here) = self.row.present().filter(|v| v.same_content(version)) {
            let mode_differs = self.modes
                && version.kind != Kind::Link
                && self.row.print.is_some_and(|p| p.mode != mode);
            let time_differs = version.kind != Kind::Dir && here.mtime != version.mtime;
            let is_due = attributes::is_due(self.row, &known, version.kind, self.carried);
            if !mode_differs && !time_differs && !is_due {
                return Ok(self.record(known, Some(dot)));
            }
            let mtime = (version.kind != Kind::Dir).then_some(version.mtime);
            return Ok(Some(self.acting(
                Goal::Metadata { mode, mtime },
                known,
                Some(dot),
                Keep::Trash,
            )));
        }
        if self.row.is_derived_dir() && version.kind == Kind::Dir {
            let goal = Goal::Metadata { mode, mtime: None };
            return Ok(Some(self.acting(goal, known, Some(dot), Keep::Trash)));
        }
        let keep = self.keep(&known, view);
        let goal = Goal::of(version, mode);
        Ok(Some(self.acting(goal, known, Some(dot), keep)))
    }

    /// What is displaced lost a conflict, had to make room (and may lose where it goes), or is superseded.
    fn keep(&self, known: &Entry, view: &View) -> Keep {
        let Some((here, dot)) = self.row.present().zip(self.row.shown) else {
            return Keep::Trash;
        };
        if let Some(to) = made_room(known, dot) {
            return Keep::Version(conflict::moved_dot(dot, to));
        }
        let is_here = |d: &&Dot| known.get(**d).is_some_and(|l| l.same_content(here));
        let mut lost = view.losers.iter().filter(is_here);
        let own = lost.clone().find(|d| **d == dot);
        own.or_else(|| lost.next())
            .map_or(Keep::Trash, |d| Keep::Version(*d))
    }

    fn record(&self, known: Entry, shown: Option<Dot>) -> Option<Action> {
        if self.row.entry == known && self.row.shown == shown {
            return None;
        }
        Some(Action {
            replica: self.replica,
            path: self.path.clone(),
            before: self.before(),
            goal: Goal::Record,
            keep: Keep::Trash,
            entry: known,
            shown,
        })
    }

    fn acting(&self, goal: Goal, entry: Entry, shown: Option<Dot>, keep: Keep) -> Action {
        Action {
            replica: self.replica,
            path: self.path.clone(),
            before: self.before(),
            goal,
            keep,
            entry,
            shown,
        }
    }

    fn before(&self) -> Precondition {
        match (self.row.print, self.row.present()) {
            (Some(print), Some(v)) => Precondition::Unchanged {
                kind: v.kind,
                print,
                content: v.content,
            },
            (Some(print), None) => Precondition::Unchanged {
                kind: Kind::Dir,
                print,
                content: crate::id::ContentId::NONE,
            },
            (None, _) => Precondition::Absent,
        }
    }
}

/// Where a version went when it had to make room, if it did.
fn made_room(known: &Entry, version: Dot) -> Option<&RelPath> {
    let ends = known.siblings().iter().filter(|(_, v)| v.is_tomb());
    let mut went = ends.filter_map(|(end, v)| Some((end, v.moved.as_ref()?)));
    went.find(|(end, to)| **end == conflict::end_dot(version, to))
        .map(|(_, to)| to)
}

/// Whether a link stays inside the root, judged by its text alone: relative, and never above the top.
/// Nothing is ever resolved to decide this.
pub fn is_safe_link(path: &RelPath, target: &[u8]) -> bool {
    if target.is_empty() || target.first() == Some(&b'/') {
        return false;
    }
    let mut depth = path.depth().saturating_sub(1) as i64;
    for part in target.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            return false;
        }
    }
    true
}

/// Puts actions in an order that one replica can carry out: deletions below something that stops
/// being a directory; everything that creates or changes, parents first; deletions, children first; at last
/// the modes of directories, which might forbid the rest.
pub fn order(actions: &mut Vec<Action>) {
    let replaced: alloc::collections::BTreeSet<(usize, RelPath)> = actions
        .iter()
        .filter(|a| a.replaces_dir())
        .map(|a| (a.replica, a.path.clone()))
        .collect();
    let below_replaced = |a: &Action| {
        let mut up = a.path.parent();
        while let Some(dir) = up {
            if replaced.contains(&(a.replica, dir.clone())) {
                return true;
            }
            up = dir.parent();
        }
        false
    };
    let rank = |a: &Action| match &a.goal {
        Goal::Absent if !replaced.is_empty() && below_replaced(a) => 1,
        Goal::Absent => 3,
        Goal::Metadata { mtime: None, .. } => 4,
        Goal::File { .. }
        | Goal::Dir { .. }
        | Goal::Link { .. }
        | Goal::Metadata { .. }
        | Goal::Rename { .. }
        | Goal::Record => 2,
    };
    let mut ranked: Vec<(u8, Action)> = actions.drain(..).map(|a| (rank(&a), a)).collect();
    ranked.sort_by(|(ra, a), (rb, b)| {
        let by_path = a.path.cmp(&b.path);
        ra.cmp(rb).then(if matches!(ra, 1 | 3) {
            by_path.reverse()
        } else {
            by_path
        })
    });
    actions.extend(ranked.into_iter().map(|(_, a)| a));
}
