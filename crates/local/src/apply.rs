//! Carrying out actions: each after its precondition was verified on disk, none unlinking anything.
//!
//! A batch runs in stages, because names depend on each other: what must make room; new directories,
//! parents first; files, links and renames in parallel; what only the index learns; deletions, children
//! first; at last the modes of directories. Rows are written after the disk, in one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, OnceLock, PoisonError};

use instep_core::attributes::Seen;
use instep_core::group;
use instep_core::id::ContentId;
use instep_core::path::RelPath;
use instep_core::plan::{Action, Code, Goal, Keep, Outcome, Precondition, Problem};
use instep_core::row::{Held, Print, Row};
use instep_core::version::Kind;
use instep_fs::{Dir, ErrorKind, Lease, Stat};
use instep_replica::{Content, Result, Sources, Step};
use instep_store::Durability;

use crate::attributes::Object;
use crate::below;
use crate::content::{self, Failed};
use crate::draft;
use crate::groups;
use crate::print::print;
use crate::prune;
use crate::recover;
use crate::replace;
use crate::replica::LocalReplica;
use crate::rules::DirRules;
use crate::spelling::SpelledDirs;
use crate::touched;
use crate::trash::{self, Displaced, Judged};
use crate::tree::{self, ours};

/// `ENOENT`.
const ENOENT: i32 = 2;

/// What became of an action, with what the index must learn.
#[derive(Debug)]
pub struct Done {
    /// For the engine.
    pub outcome: Outcome,
    /// What is on disk now and what it looks like; none leaves the row as it was.
    pub print: Option<Option<Print>>,
    /// What is on disk now of owner and extended attributes, where they are carried.
    pub seen: Option<Box<Seen>>,
    /// What the index knows of the path, if more than the action said.
    pub entry: Option<instep_core::entry::Entry>,
    /// What was displaced, by its key.
    pub displaced: Vec<(String, Displaced)>,
    /// A rule excludes the path here: the index learns of it, and nothing else happened.
    pub is_ignored: bool,
}

impl Done {
    /// It did not happen, and the disk is as it was.
    pub fn not(outcome: Outcome) -> Self {
        Self {
            outcome,
            print: None,
            seen: None,
            entry: None,
            displaced: Vec::new(),
            is_ignored: false,
        }
    }

    /// A rule excludes the path here.
    fn ignored() -> Self {
        Self {
            is_ignored: true,
            ..Self::with(None)
        }
    }

    /// It happened to an object with these attributes.
    fn wearing(self, seen: Option<Box<Seen>>) -> Self {
        Self { seen, ..self }
    }

    /// It happened, and this is what is there now.
    pub fn with(print: Option<Print>) -> Self {
        Self {
            outcome: Outcome::Done,
            print: Some(print),
            seen: None,
            entry: None,
            displaced: Vec::new(),
            is_ignored: false,
        }
    }
}

/// What a failed call means for one action.
pub fn failed(path: &RelPath, e: &instep_fs::Error) -> Outcome {
    let code = match e.kind() {
        ErrorKind::Absent | ErrorKind::Taken | ErrorKind::OtherKind => return Outcome::Superseded,
        ErrorKind::Busy | ErrorKind::TooMany => return Outcome::Busy,
        ErrorKind::NoSpace => Code::NoSpace,
        ErrorKind::ReadOnly => Code::ReadOnly,
        ErrorKind::OtherDevice => Code::Mount,
        ErrorKind::Denied | ErrorKind::Unsupported | ErrorKind::Crashed | ErrorKind::Io => {
            Code::Unwritable
        }
    };
    Outcome::Blocked(Problem {
        path: path.clone(),
        code,
        detail: e.to_string(),
    })
}

/// Carries out a batch.
pub fn apply(
    replica: &LocalReplica,
    actions: &[Action],
    sources: &dyn Sources,
) -> Result<Vec<Outcome>> {
    recover::intend(replica, actions)?;
    let slots = left_alone(replica, actions);
    let worker = Worker {
        replica,
        actions,
        sources,
        slots: &slots,
        spelled: SpelledDirs::default(),
        places: OnceLock::new(),
    };
    worker.run();
    let done: Vec<Done> = slots
        .into_iter()
        .map(|s| {
            let done = s.into_inner().unwrap_or_else(PoisonError::into_inner);
            done.unwrap_or_else(|| Done::not(Outcome::Busy))
        })
        .collect();
    let outcomes = write_rows(replica, actions, done)?;
    prune(replica, actions, &outcomes)?;
    look_at_rules(replica, actions, &outcomes);
    Ok(outcomes)
}

/// An ignore file that was brought here is in force from the next look on, also where nobody watches.
fn look_at_rules(replica: &LocalReplica, actions: &[Action], outcomes: &[Outcome]) {
    let done = actions.iter().zip(outcomes);
    let done = done.filter(|(a, o)| **o == Outcome::Done && a.goal != Goal::Record);
    for (action, _) in done {
        if let Some((_, name)) = action.path.split()
            && replica.rules.is_rule_file(name.as_bytes())
        {
            replica.hint(action.path.clone());
        }
    }
}

/// A place for what becomes of each action; of those that a rule excludes here it is known already.
fn left_alone(replica: &LocalReplica, actions: &[Action]) -> Vec<Mutex<Option<Done>>> {
    let mut last: Option<(RelPath, DirRules)> = None;
    let mut is_ignored = |action: &Action| {
        let Some((parent, name)) = action.path.split() else {
            return false;
        };
        if action.path.is_reserved() {
            return false;
        }
        let known = last.take().filter(|(dir, _)| *dir == parent);
        let (_, rules) = last.insert(known.unwrap_or_else(|| {
            let rules = replica.rules.of_dir(&parent);
            (parent, rules)
        }));
        let is_dir = match action.goal {
            Goal::Dir { .. } => true,
            Goal::File { .. } | Goal::Link { .. } | Goal::Rename { .. } => false,
            Goal::Absent | Goal::Metadata { .. } | Goal::Record => action.was_dir(),
        };
        rules.ignores(name, is_dir)
    };
    let done = actions.iter().map(|a| is_ignored(a).then(Done::ignored));
    done.map(Mutex::new).collect()
}

/// Directories that stood only for their contents go with the last of them.
fn prune(replica: &LocalReplica, actions: &[Action], outcomes: &[Outcome]) -> Result<()> {
    let left = actions.iter().zip(outcomes);
    let left = left.filter(|(a, o)| a.goal == Goal::Absent && **o == Outcome::Done);
    // What could not be replaced now stays as it was.
    let replaces = |a: &&Action| matches!(a.goal, Goal::File { .. } | Goal::Link { .. });
    let replaced: BTreeSet<&RelPath> = actions.iter().filter(replaces).map(|a| &a.path).collect();
    prune::above(replica, left.map(|(a, _)| &a.path), |dir| {
        replaced.contains(dir)
    })
}

/// What the index learns from a batch.
fn write_rows(replica: &LocalReplica, actions: &[Action], done: Vec<Done>) -> Result<Vec<Outcome>> {
    let mut index = replica.index();
    let mut outcomes = Vec::with_capacity(done.len());
    for (action, done) in actions.iter().zip(done) {
        for (key, what) in &done.displaced {
            trash::note(replica, &mut index, key, what)?;
        }
        if let Some(seen) = done.print {
            let only_told = action.goal == Goal::Record;
            // A path that was absent has no fingerprint and no part in any sum.
            let old = match action.before {
                Precondition::Absent if !only_told && !done.is_ignored => None,
                _ => index.get(&action.path)?,
            };
            let held = match old.as_ref() {
                _ if done.is_ignored => Some(Held::Ignored),
                Some(old) if only_told => old.held,
                _ => None,
            };
            // What the batch brought below a path that was absent made a directory of it.
            let is_made = only_told && action.before == Precondition::Absent;
            let made = old.as_ref().filter(|old| is_made && old.is_derived_dir());
            // What could not be put there, and what was there before, are both known.
            let shown = action.shown.filter(|_| done.outcome == Outcome::Done);
            let row = Row {
                entry: done.entry.unwrap_or_else(|| action.entry.clone()),
                shown: shown.filter(|_| !done.is_ignored && made.is_none()),
                print: seen.or(made.and_then(|made| made.print)),
                seen: if only_told {
                    old.as_ref().and_then(|old| old.seen.clone())
                } else {
                    done.seen.filter(|_| seen.is_some())
                },
                held,
                epoch: index.epoch(),
            };
            index.put(&action.path, old.as_ref(), &row)?;
        }
        outcomes.push(done.outcome);
    }
    replica.env.reach(Step::RowsWritten);
    index.commit(Durability::Process)?;
    Ok(outcomes)
}

struct Worker<'a> {
    replica: &'a LocalReplica,
    actions: &'a [Action],
    sources: &'a dyn Sources,
    slots: &'a [Mutex<Option<Done>>],
    /// How the directories of the batch are spelled.
    spelled: SpelledDirs,
    /// Where in the batch each path is.
    places: OnceLock<BTreeMap<&'a RelPath, usize>>,
}

/// The order of stages within a batch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    MakeRoom,
    Dirs,
    Files,
    /// What is beside a database: taken away before the database changes, and given after.
    Companions,
    /// After the renames that empty the places of which they speak.
    Records,
    DeleteFiles,
    DeleteDirs,
    DirModes,
}

impl Worker<'_> {
    fn run(&self) {
        let mut stages: BTreeMap<Stage, Vec<usize>> = BTreeMap::new();
        let mut seen_other = false;
        let known = |i: &usize| self.slots[*i].lock().is_ok_and(|s| s.is_some());
        for (i, action) in self.actions.iter().enumerate().filter(|(i, _)| !known(i)) {
            // Deletions that come before anything else make room for what replaces their parent.
            let stage = match stage(action) {
                Stage::DeleteFiles | Stage::DeleteDirs if !seen_other => Stage::MakeRoom,
                stage => {
                    seen_other |= !matches!(stage, Stage::MakeRoom);
                    stage
                }
            };
            stages.entry(stage).or_default().push(i);
        }
        for (stage, indices) in stages {
            match stage {
                Stage::Files | Stage::Companions | Stage::Records | Stage::DeleteFiles => {
                    self.parallel(&indices);
                }
                Stage::MakeRoom | Stage::Dirs | Stage::DeleteDirs | Stage::DirModes => {
                    let mut buffer = Vec::new();
                    indices.iter().for_each(|i| self.one(*i, None, &mut buffer));
                }
            }
        }
    }

    /// Groups of one directory each, so that a directory is opened once and never contended.
    fn parallel(&self, indices: &[usize]) {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for i in indices {
            let dir = self.actions[*i].path.split_bytes().map(|(d, _)| d);
            match groups.last_mut() {
                Some(g)
                    if g.len() < 64
                        && self.actions[g[0]].path.split_bytes().map(|(d, _)| d) == dir =>
                {
                    g.push(*i);
                }
                _ => groups.push(vec![*i]),
            }
        }
        instep_replica::env::for_each(
            self.replica.env.as_ref(),
            groups.len(),
            Vec::new,
            |buffer, g| {
                let first = &self.actions[groups[g][0]];
                let parent = first.path.parent().unwrap_or_else(RelPath::root);
                let dir = tree::open(&self.replica.root, &parent).ok();
                groups[g]
                    .iter()
                    .for_each(|i| self.one(*i, dir.as_ref(), buffer));
            },
        );
    }

    fn reach(&self, step: Step) {
        self.replica.env.reach(step);
    }

    fn one(&self, i: usize, dir: Option<&Dir>, buffer: &mut Vec<u8>) {
        let done = self.carry_out(&self.actions[i], dir, buffer);
        *self.slots[i].lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
    }

    fn carry_out(&self, action: &Action, dir: Option<&Dir>, buffer: &mut Vec<u8>) -> Done {
        if action.path.is_root() || action.path.is_reserved() {
            return Done::not(Outcome::Superseded);
        }
        if matches!(action.goal, Goal::Record) {
            return self.record(action, dir);
        }
        if self.must_wait(action) {
            return Done::not(Outcome::Busy);
        }
        let opened = match dir {
            Some(dir) => Ok(dir.clone()),
            None => self.parent(action),
        };
        let dir = match opened {
            Ok(dir) => dir,
            Err(outcome) => return Done::not(outcome),
        };
        match self.spelled.is_clash(self.replica, &action.path, &dir) {
            Ok(false) => {}
            Ok(true) => return Done::not(clash(action)),
            Err(e) => return Done::not(failed(&action.path, &e)),
        }
        if action.ends_dir() && self.is_left_in(&action.path) {
            return Done::not(Outcome::Busy);
        }
        match &action.goal {
            Goal::File { .. } => self.file(action, &dir, buffer),
            Goal::Dir { mode } => self.dir(action, &dir, *mode),
            Goal::Link { .. } => self.link(action, &dir),
            Goal::Absent => self.delete(action, &dir),
            Goal::Metadata { mode, mtime } => self.metadata(action, &dir, *mode, *mtime),
            Goal::Rename { from } => self.rename(action, &dir, from),
            Goal::Record => unreachable!("handled above"),
        }
    }

    /// Whether a program is at work on what the path belongs to, or that has not changed as it should have.
    fn must_wait(&self, action: &Action) -> bool {
        let path = &action.path;
        if let Some(git) = group::git_dir(path) {
            return !group::is_git_object(&git, path) && groups::is_git_busy(self.replica, &git);
        }
        let Some(base) = group::database(path) else {
            return false;
        };
        let failed = self.actions.iter().zip(self.slots).any(|(a, slot)| {
            let done = slot.lock().unwrap_or_else(PoisonError::into_inner);
            a.path == base && done.as_ref().is_some_and(|d| d.outcome != Outcome::Done)
        });
        failed || groups::is_written(self.replica, &base)
    }

    /// Whether the index has something in a directory that this batch did not take away.
    fn is_left_in(&self, dir: &RelPath) -> bool {
        let places = self.places.get_or_init(|| {
            let actions = self.actions.iter().enumerate();
            actions.map(|(i, a)| (&a.path, i)).collect()
        });
        let went = |path: &RelPath| {
            places.get(path).is_some_and(|i| {
                let done = self.slots[*i]
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                done.as_ref().is_some_and(|d| d.print == Some(None))
            })
        };
        below::is_left(self.replica, dir, went).unwrap_or(true)
    }

    /// The directory that the action's path is in; made, for its contents' sake, where it is missing and
    /// the action brings something.
    fn parent(&self, action: &Action) -> core::result::Result<Dir, Outcome> {
        let path = action.path.parent().unwrap_or_else(RelPath::root);
        match tree::open(&self.replica.root, &path) {
            Ok(dir) => Ok(dir),
            Err(e) if e.kind() == ErrorKind::Absent => {
                if matches!(action.goal, Goal::Absent | Goal::Metadata { .. }) {
                    return Err(Outcome::Superseded);
                }
                self.replica
                    .make_parents(&path)
                    .map_err(|e| failed(&action.path, &e))
            }
            Err(e) => Err(failed(&action.path, &e)),
        }
    }

    /// Only the index learns something, of what is there; and it never says "deleted" of something that is.
    fn record(&self, action: &Action, dir: Option<&Dir>) -> Done {
        let Precondition::Unchanged {
            print: expected, ..
        } = action.before
        else {
            return Done::with(None);
        };
        let Some((parent, name)) = action.path.split() else {
            return Done::not(Outcome::Superseded);
        };
        let opened = dir.map_or_else(
            || tree::open(&self.replica.root, &parent),
            |dir| Ok(dir.clone()),
        );
        let stat = match opened.and_then(|dir| dir.stat(name)) {
            Ok(stat) => stat,
            Err(e) if matches!(e.kind(), ErrorKind::Absent | ErrorKind::OtherKind) => None,
            Err(e) => return Done::not(failed(&action.path, &e)),
        };
        let is_tomb = action
            .entry
            .get_shown(action.shown)
            .is_some_and(instep_core::version::Version::is_tomb);
        match stat {
            None if is_tomb => Done::with(None),
            Some(stat) if !is_tomb && matches(&action.before, &stat) => Done::with(Some(expected)),
            _ => Done::not(Outcome::Superseded),
        }
    }

    fn file(&self, action: &Action, dir: &Dir, buffer: &mut Vec<u8>) -> Done {
        let Goal::File {
            content,
            size,
            mode,
            mtime,
        } = action.goal
        else {
            unreachable!("called for files only")
        };
        match action.before {
            Precondition::Absent => {
                match self.new_file(action, dir, content, size, mode, mtime, buffer) {
                    Ok((print, seen)) => Done::with(Some(print)).wearing(seen),
                    Err(outcome) => Done::not(outcome),
                }
            }
            Precondition::Unchanged { .. } => {
                match self.staged_file(action, content, size, mode, mtime, buffer) {
                    Ok((name, seen)) => {
                        replace::exchange(self.replica, action, dir, &name).wearing(seen)
                    }
                    Err(outcome) => Done::not(outcome),
                }
            }
        }
    }

    /// A file that appears complete under its name, or not at all.
    #[expect(
        clippy::too_many_arguments,
        reason = "the goal's parts, taken apart once"
    )]
    fn new_file(
        &self,
        action: &Action,
        dir: &Dir,
        content: ContentId,
        size: u64,
        mode: u16,
        mtime: instep_core::time::Mtime,
        buffer: &mut Vec<u8>,
    ) -> core::result::Result<(Print, Option<Box<Seen>>), Outcome> {
        let path = &action.path;
        let name = path.name().ok_or(Outcome::Superseded)?;
        let fail = |e: instep_fs::Error| failed(path, &e);
        if self.replica.is_staged_file(content) || !self.replica.profile.unnamed_files {
            let (staged, seen) = self.staged_file(action, content, size, mode, mtime, buffer)?;
            let from = &self.replica.ours().ok_or(Outcome::Superseded)?.staging;
            let given = self
                .give(path, from, &staged, dir, name)
                .map_err(|e| failed(path, &e))?;
            return Ok((given, seen));
        }
        let (from, tried) = self.source(action, content, size)?;
        let profile = &self.replica.profile;
        let file = dir
            .create_unnamed(draft::mode(profile, mode))
            .map_err(fail)?;
        self.reach(Step::UnnamedMade);
        self.fill(action, &file, (from, tried), content, size, buffer)?;
        self.reach(Step::UnnamedFilled);
        let seen = self
            .replica
            .give_attributes(action, Object::File(&file))
            .map_err(fail)?;
        file.set_mtime(mtime).map_err(fail)?;
        draft::complete(profile, &file, mode).map_err(fail)?;
        let before = file.stat().map_err(fail)?;
        self.reach(Step::UnnamedDressed);
        dir.publish(&file, name).map_err(fail)?;
        self.reach(Step::Published);
        let now = file.stat().ok();
        Ok((self.replica.vouched(path, &before, now.as_ref()), seen))
    }

    /// Gives a staged object its free name.
    fn give(
        &self,
        path: &RelPath,
        staging: &Dir,
        staged: &str,
        dir: &Dir,
        name: instep_core::path::Name<'_>,
    ) -> instep_fs::Result<Print> {
        let given = || {
            let before = staging.stat(ours(staged))?;
            tree::give(staging, ours(staged), dir, name)?;
            self.reach(Step::Given);
            Ok(before)
        };
        match given() {
            Ok(Some(before)) => {
                let now = dir.stat(name).ok().flatten();
                Ok(self.replica.vouched(path, &before, now.as_ref()))
            }
            Ok(None) => Err(instep_fs::Error::new("examine a staged object", ENOENT)),
            Err(e) => {
                let _stale = staging.remove_file(ours(staged));
                Err(e)
            }
        }
    }

    /// The content of a version, and how many sources had none. Little of it is proven before anything is made
    /// for it; of much that is seen when it was written.
    fn source(
        &self,
        action: &Action,
        content: ContentId,
        size: u64,
    ) -> core::result::Result<(Box<dyn Content>, usize), Outcome> {
        let first = self.sources.open(action, content);
        let mut from = first.ok_or_else(|| missing(action))?;
        for tried in 0.. {
            let why = match content::proven(from, content, size) {
                Ok(from) => return Ok((from, tried)),
                Err(why) => why,
            };
            let other = self.sources.open_other(action, content, tried + 1);
            from = other.ok_or_else(|| bad_source(&action.path, &why))?;
        }
        Err(missing(action))
    }

    /// Brings a version's content into an empty file, from the first source whose bytes are those.
    fn fill(
        &self,
        action: &Action,
        file: &instep_fs::File,
        (mut from, mut tried): (Box<dyn Content>, usize),
        content: ContentId,
        size: u64,
        buffer: &mut Vec<u8>,
    ) -> core::result::Result<(), Outcome> {
        let fail = |e: instep_fs::Error| failed(&action.path, &e);
        let reflink = self.replica.profile.reflink;
        loop {
            let why = match content::fill(file, from.as_mut(), content, size, reflink, buffer) {
                Ok(()) => return Ok(()),
                Err(Failed::Write(e)) => return Err(fail(e)),
                Err(why) => why,
            };
            tried += 1;
            from = match self.sources.open_other(action, content, tried) {
                Some(other) => other,
                None => return Err(bad_source(&action.path, &why)),
            };
            file.set_len(0).map_err(fail)?;
        }
    }

    /// The name in the staging directory of a complete file with the goal's content and metadata.
    fn staged_file(
        &self,
        action: &Action,
        content: ContentId,
        size: u64,
        mode: u16,
        mtime: instep_core::time::Mtime,
        buffer: &mut Vec<u8>,
    ) -> core::result::Result<(String, Option<Box<Seen>>), Outcome> {
        let staging = &self.replica.ours().ok_or(Outcome::Superseded)?.staging;
        let fail = |e: instep_fs::Error| failed(&action.path, &e);
        if let Some(name) = self.replica.take_staged(content) {
            let dress = || {
                let object = Object::Named(staging, ours(&name), instep_fs::Kind::File);
                let seen = self.replica.give_attributes(action, object)?;
                staging.set_mtime(ours(&name), mtime)?;
                staging.set_mode(ours(&name), u32::from(mode))?;
                Ok(seen)
            };
            let seen = dress().map_err(fail)?;
            self.reach(Step::DraftDressed);
            return Ok((name, seen));
        }
        let (from, tried) = self.source(action, content, size)?;
        let name = trash::fresh_name(self.replica);
        let profile = &self.replica.profile;
        let file = staging
            .create_file(ours(&name), draft::mode(profile, mode))
            .map_err(fail)?;
        self.reach(Step::DraftMade);
        let filled = self
            .fill(action, &file, (from, tried), content, size, buffer)
            .and_then(|()| {
                self.reach(Step::DraftFilled);
                let seen = self
                    .replica
                    .give_attributes(action, Object::File(&file))
                    .map_err(fail)?;
                file.set_mtime(mtime).map_err(fail)?;
                draft::complete(profile, &file, mode).map_err(fail)?;
                self.reach(Step::DraftDressed);
                Ok(seen)
            });
        match filled {
            Ok(seen) => Ok((name, seen)),
            Err(outcome) => {
                let _stale = staging.remove_file(ours(&name));
                Err(outcome)
            }
        }
    }

    fn dir(&self, action: &Action, dir: &Dir, mode: u16) -> Done {
        let path = &action.path;
        let Some(name) = path.name() else {
            return Done::not(Outcome::Superseded);
        };
        // Its contents must get in; the mode proper follows when they are.
        let open_mode = u32::from(mode) | 0o700;
        let wear = |dir: &Dir, name| {
            let object = Object::Named(dir, name, instep_fs::Kind::Dir);
            self.replica.give_attributes(action, object)
        };
        let made = match action.before {
            Precondition::Absent => dir
                .make_dir(name, open_mode)
                .and_then(|()| Ok((None, wear(dir, name)?)))
                .inspect(|_| self.reach(Step::DirMade)),
            Precondition::Unchanged { .. } => {
                let Some(ours_dirs) = self.replica.ours() else {
                    return Done::not(Outcome::Superseded);
                };
                let staged = trash::fresh_name(self.replica);
                let staging = &ours_dirs.staging;
                staging
                    .make_dir(ours(&staged), open_mode)
                    .and_then(|()| wear(staging, ours(&staged)))
                    .inspect(|_| self.reach(Step::DirDrafted))
                    .map(|seen| (Some(staged), seen))
            }
        };
        let mut done = match made {
            Err(e) => return Done::not(failed(path, &e)),
            Ok((None, seen)) => Done::with(None).wearing(seen),
            Ok((Some(staged), seen)) => {
                replace::exchange(self.replica, action, dir, &staged).wearing(seen)
            }
        };
        if done.outcome != Outcome::Done {
            return done;
        }
        if open_mode != u32::from(mode) {
            self.replica.mode_later(path, mode);
        }
        if done.print == Some(None) {
            match dir.stat(name) {
                Ok(Some(stat)) if stat.kind == instep_fs::Kind::Dir => {
                    let made = self.replica.as_made(dir, &stat, open_mode);
                    done.print = Some(Some(made));
                }
                _ => return Done::not(Outcome::Superseded),
            }
        }
        self.replica.made_dir(path);
        done
    }

    fn link(&self, action: &Action, dir: &Dir) -> Done {
        let Goal::Link { target, mtime } = &action.goal else {
            unreachable!("called for links only")
        };
        let path = &action.path;
        let Some(name) = path.name() else {
            return Done::not(Outcome::Superseded);
        };
        let Some(ours_dirs) = self.replica.ours() else {
            return Done::not(Outcome::Superseded);
        };
        let staged = trash::fresh_name(self.replica);
        let make = || {
            ours_dirs.staging.make_link(ours(&staged), target)?;
            let object = Object::Named(&ours_dirs.staging, ours(&staged), instep_fs::Kind::Link);
            let seen = self.replica.give_attributes(action, object)?;
            ours_dirs.staging.set_mtime(ours(&staged), *mtime)?;
            self.reach(Step::LinkDrafted);
            Ok(seen)
        };
        match make() {
            Ok(seen) if action.before == Precondition::Absent => {
                match self.give(path, &ours_dirs.staging, &staged, dir, name) {
                    Ok(print) => Done::with(Some(print)).wearing(seen),
                    Err(e) => Done::not(failed(path, &e)),
                }
            }
            Ok(seen) => replace::exchange(self.replica, action, dir, &staged).wearing(seen),
            Err(e) => Done::not(failed(path, &e)),
        }
    }

    fn delete(&self, action: &Action, dir: &Dir) -> Done {
        let Some(name) = action.path.name() else {
            return Done::not(Outcome::Superseded);
        };
        let Precondition::Unchanged {
            kind,
            print: expected,
            ..
        } = action.before
        else {
            return match dir.stat(name) {
                Ok(None) => Done::with(None),
                Ok(Some(_)) => Done::not(Outcome::Superseded),
                Err(e) => Done::not(failed(&action.path, &e)),
            };
        };
        if kind != Kind::Dir {
            return replace::displace(self.replica, action, dir);
        }
        match dir.stat(name) {
            Ok(Some(stat)) if stat.kind == instep_fs::Kind::Dir && stat.ino == expected.ino => {}
            Ok(None) => return Done::with(None),
            Ok(_) => return Done::not(Outcome::Superseded),
            Err(e) => return Done::not(failed(&action.path, &e)),
        }
        match dir.remove_dir(name) {
            Ok(()) => {
                self.reach(Step::DirRemoved);
                self.replica.unwatch(&action.path);
                Done::with(None)
            }
            Err(e) if e.kind() == ErrorKind::Taken => {
                Done::not(not_empty(self.replica, action, dir))
            }
            Err(e) => Done::not(failed(&action.path, &e)),
        }
    }

    fn metadata(
        &self,
        action: &Action,
        dir: &Dir,
        mode: u16,
        mtime: Option<instep_core::time::Mtime>,
    ) -> Done {
        let path = &action.path;
        let Some(name) = path.name() else {
            return Done::not(Outcome::Superseded);
        };
        let mut seen = None;
        let mut set = || -> instep_fs::Result<core::result::Result<Print, Outcome>> {
            let guarded = match replace::hold(self.replica, action, dir, name)? {
                Ok(guarded) => guarded,
                Err(outcome) => return Ok(Err(outcome)),
            };
            let mut stat = guarded.stat;
            // What is held is changed, not what a user saves over the name meanwhile.
            // RACE: where it cannot be held, that gets our time, mode or owner; it is another inode, so it is
            // read again.
            let object = match &guarded.file {
                Some(file) => Object::File(file),
                None => Object::Named(dir, name, stat.kind),
            };
            match self
                .replica
                .give_in_place(action, object, (dir, name), &mut stat)?
            {
                Ok(given) => seen = given,
                Err(outcome) => return Ok(Err(outcome)),
            }
            if guarded.is_wanted() {
                self.replica.doubt_attributes(path);
                return Ok(Err(Outcome::Busy));
            }
            if stat.kind != instep_fs::Kind::Link && (stat.mode & 0o777) != u32::from(mode) {
                object.set_mode(stat.mode & 0o7000 | u32::from(mode))?;
                self.reach(Step::ModeSet);
            }
            // Whoever writes to it now gives it a time of its own, which would tell of that.
            let given = mtime.filter(|m| *m != stat.mtime && !guarded.is_wanted());
            if let Some(mtime) = given {
                object.set_mtime(mtime)?;
                self.reach(Step::TimeSet);
            }
            let given = (given.is_some(), guarded.lease);
            touched::told(self.replica, action, (dir, name), &stat, given).map(Ok)
        };
        match set() {
            Ok(Ok(print)) => Done::with(Some(print)).wearing(seen),
            Ok(Err(outcome)) => Done::not(outcome),
            Err(e) => {
                self.replica.doubt_attributes(path);
                Done::not(failed(path, &e))
            }
        }
    }

    /// One object of this replica moves to the action's path.
    fn rename(&self, action: &Action, dir: &Dir, from: &RelPath) -> Done {
        let mut seen = None;
        let mut move_it = || -> instep_fs::Result<core::result::Result<Print, Outcome>> {
            let (Some(name), Some((parent, old))) = (action.path.name(), from.split()) else {
                return Ok(Err(Outcome::Superseded));
            };
            let source = tree::open(&self.replica.root, &parent)?;
            let expected = self
                .replica
                .index()
                .get(from)
                .ok()
                .flatten()
                .and_then(|r| r.print);
            let lease = match source.open_file(old) {
                Ok(file) if self.replica.profile.leases => replace::lease(&file)?,
                _ => None,
            };
            let before = match source.stat(old)? {
                Some(stat) if Some(print(&stat)) == expected => stat,
                _ => return Ok(Err(Outcome::Superseded)),
            };
            // RACE: a user may save over the old name now; the save moves along and is read there.
            tree::shift(&source, old, dir, name)?;
            self.reach(Step::Renamed);
            let (mode, mtime) = match &action.entry.get_shown(action.shown) {
                Some(v) => (v.mode, v.mtime),
                None => return Ok(Err(Outcome::Superseded)),
            };
            let ours = |s: &Stat| s.ino == before.ino && s.size == before.size;
            let stat = dir
                .stat(name)?
                .filter(|s| ours(s) && s.mtime == before.mtime);
            let is_wanted = || lease.as_ref().is_some_and(Lease::broken);
            let mut given = false;
            let is_ours = |s: &Stat| s.kind == instep_fs::Kind::File && !is_wanted();
            if let Some(s) = stat.filter(is_ours) {
                let object = Object::Named(dir, name, s.kind);
                seen = self.replica.give_attributes(action, object)?;
                if (s.mode & 0o777) != u32::from(mode) && !is_wanted() {
                    dir.set_mode(name, u32::from(mode))?;
                }
                if s.mtime != mtime && !is_wanted() {
                    dir.set_mtime(name, mtime)?;
                    given = true;
                }
            }
            if stat.is_none() {
                return Ok(Ok(print(&before)));
            }
            touched::told(self.replica, action, (dir, name), &before, (given, lease)).map(Ok)
        };
        match move_it() {
            Ok(Ok(print)) => Done::with(Some(print)).wearing(seen),
            Ok(Err(outcome)) => Done::not(outcome),
            Err(e) => Done::not(failed(&action.path, &e)),
        }
    }
}

/// A directory that should go still has something in it: tracked things come first, unknown ones are
/// looked at, and ignored ones keep it standing.
pub fn not_empty(replica: &LocalReplica, action: &Action, dir: &Dir) -> Outcome {
    let Some(name) = action.path.name() else {
        return Outcome::Superseded;
    };
    let rules = replica.rules.of_dir(&action.path);
    let mut others = false;
    let listed = dir.open_dir(name).and_then(|d| {
        d.list_stat(&mut |child, stat| {
            let Ok(child) = instep_core::path::Name::new(child) else {
                return;
            };
            let kind = stat.map(|s| s.kind);
            let is_special = kind == Ok(instep_fs::Kind::Special);
            others |= !is_special && !rules.ignores(child, kind == Ok(instep_fs::Kind::Dir));
            if others {
                replica.hint(action.path.join(child));
            }
        })
    });
    match listed {
        Ok(()) if !others => Outcome::Blocked(Problem {
            path: action.path.clone(),
            code: Code::Husk,
            detail: "ignored or special files are left in it".into(),
        }),
        Ok(()) => Outcome::Busy,
        Err(e) => failed(&action.path, &e),
    }
}

fn stage(action: &Action) -> Stage {
    let was_dir = action.was_dir();
    match action.goal {
        Goal::Dir { .. } => Stage::Dirs,
        Goal::Absent if was_dir => Stage::DeleteDirs,
        Goal::Absent if group::database(&action.path).is_some() => Stage::MakeRoom,
        Goal::File { .. } if group::database(&action.path).is_some() => Stage::Companions,
        Goal::Absent => Stage::DeleteFiles,
        Goal::Metadata { mtime: None, .. } => Stage::DirModes,
        Goal::File { .. } | Goal::Link { .. } | Goal::Metadata { .. } | Goal::Rename { .. } => {
            Stage::Files
        }
        Goal::Record => Stage::Records,
    }
}

fn clash(action: &Action) -> Outcome {
    Outcome::Blocked(Problem {
        path: action.path.clone(),
        code: Code::NameClash,
        detail: "this file system takes it for a name that differs in case or form".into(),
    })
}

/// No source has the bytes of a version whose content it should have. It changes just now, or it is damaged.
pub fn bad_source(path: &RelPath, why: &Failed) -> Outcome {
    Outcome::Blocked(Problem {
        path: path.clone(),
        code: Code::ContentMissing,
        detail: match why {
            Failed::Read(e) => format!("read the source: {e}"),
            Failed::Changed | Failed::Write(_) => {
                "the bytes at the source are not those of this version".into()
            }
        },
    })
}

fn missing(action: &Action) -> Outcome {
    Outcome::Blocked(Problem {
        path: action.path.clone(),
        code: Code::ContentMissing,
        detail: "no reachable replica has the content of this version".into(),
    })
}

/// Whether what is there is what the precondition expects.
pub fn matches(before: &Precondition, stat: &Stat) -> bool {
    match before {
        Precondition::Absent => false,
        Precondition::Unchanged {
            kind: Kind::Dir,
            print: expected,
            ..
        } => stat.kind == instep_fs::Kind::Dir && stat.ino == expected.ino,
        Precondition::Unchanged {
            print: expected, ..
        } => print(stat) == *expected,
    }
}

/// What a displaced object is, for its record.
pub fn displaced(action: &Action, why: &'static str, size: u64) -> Displaced {
    let (kind, content) = match action.before {
        Precondition::Unchanged { kind, content, .. } => (kind, content),
        Precondition::Absent => (Kind::File, ContentId::NONE),
    };
    Displaced {
        path: action.path.clone(),
        kind,
        content,
        size,
        why: if matches!(action.keep, Keep::Version(_)) {
            "conflict"
        } else {
            why
        },
        by: action
            .shown
            .map(|d| d.actor.to_string())
            .unwrap_or_default(),
        keep: action.keep,
        judged: Judged::Yes,
    }
}
