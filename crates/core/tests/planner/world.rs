//! Replicas without a file system: what is on a disk as a map, an index, and users who edit.
//!
//! A user's edit is recorded at once, as a look would. Every event is also written to a log with what its
//! author had seen, in plain sets, so that the slow reference needs nothing of the code under test.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use instep_core::entry::{Context, Entry};
use instep_core::id::{ActorId, ContentId, Dot};
use instep_core::limits::PREVIOUS_MAX;
use instep_core::path::RelPath;
use instep_core::policy::Policies;
use instep_core::row::{Print, Row};
use instep_core::time::Mtime;
use instep_core::version::{Kind, Version};

use crate::act::Kept;
use crate::tree::{self, Plan};

pub(crate) fn p(path: &str) -> RelPath {
    RelPath::new(path.as_bytes()).unwrap()
}

/// What is at a path on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) kind: Kind,
    pub(crate) content: ContentId,
    pub(crate) mtime: Mtime,
    pub(crate) print: Print,
}

/// One change by a user, and which of the path's events its author had seen.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) dot: Dot,
    pub(crate) path: RelPath,
    pub(crate) version: Version,
    pub(crate) seen: BTreeSet<Dot>,
}

#[derive(Debug, Clone)]
pub(crate) struct Replica {
    pub(crate) actor: ActorId,
    pub(crate) rows: BTreeMap<RelPath, Row>,
    pub(crate) disk: BTreeMap<RelPath, Object>,
    /// The events that it has heard of, by path.
    pub(crate) known: BTreeMap<RelPath, BTreeSet<Dot>>,
    /// What was displaced here.
    pub(crate) kept: Vec<Kept>,
    counter: u64,
}

impl Replica {
    /// How many events it minted.
    pub(crate) fn counter(&self) -> u64 {
        self.counter
    }
}

/// What a user puts at a path.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Thing {
    File(u8),
    Link(u8),
    Dir,
}

/// One step of a script.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// Makes something, in place of whatever is there, up to so many seconds ago.
    Put(usize, RelPath, Thing, u8),
    Remove(usize, RelPath),
    /// Renames something, with everything below it.
    Rename(usize, RelPath, RelPath),
    Chmod(usize, RelPath, u16),
    Touch(usize, RelPath),
    /// Two replicas are brought in step.
    Meet(usize, usize),
}

/// What a world does wrong on purpose, to see that it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// What is displaced is gone.
    KeepsNothing,
    /// Whoever is told of a version forgets what it knew besides.
    Forgets,
    /// Counters are drawn twice.
    CountsTwice,
}

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) replicas: Vec<Replica>,
    pub(crate) policies: Policies,
    pub(crate) log: Vec<Rc<Event>>,
    now: i64,
    /// How much later each step is.
    tick: i64,
    /// Paths that were edited and not looked at, while nobody looks.
    unseen: Option<BTreeSet<(usize, RelPath)>>,
    inode: u64,
    pub(crate) flaw: Option<Flaw>,
}

impl World {
    pub(crate) fn new(replicas: u8, policies: Policies) -> Self {
        let replica = |n: u8| Replica {
            actor: ActorId([n + 1; 8]),
            rows: BTreeMap::new(),
            disk: BTreeMap::new(),
            known: BTreeMap::new(),
            kept: Vec::new(),
            counter: 0,
        };
        Self {
            replicas: (0..replicas).map(replica).collect(),
            policies,
            log: Vec::new(),
            now: 1000,
            tick: 10,
            unseen: None,
            inode: 0,
            flaw: None,
        }
    }

    /// One tree on all replicas.
    pub(crate) fn with_tree(replicas: u8, policies: Policies, tree: &[Op]) -> Self {
        let mut world = Self::new(replicas, policies);
        tree.iter().for_each(|op| world.step(op));
        world.settle();
        world
    }

    /// From now on each step is earlier than the one before.
    pub(crate) fn turn_back(&mut self) {
        self.tick = -self.tick;
        self.now += 1000 * 10;
    }

    /// An edit of which the index hears with the next look.
    pub(crate) fn step_unseen(&mut self, op: &Op) {
        self.unseen = Some(BTreeSet::new());
        self.step(op);
    }

    /// Records what was edited unseen.
    pub(crate) fn look(&mut self) {
        for (who, path) in self.unseen.take().unwrap_or_default() {
            let replica = &self.replicas[who];
            let here = replica.disk.get(&path).map(|o| o.print);
            let known = replica.rows.get(&path).and_then(|r| r.print);
            match here {
                Some(_) if here != known => self.record_present(who, &path),
                None if known.is_some() => self.record_absent(who, &path),
                _ => {}
            }
        }
    }

    pub(crate) fn all(&self) -> Vec<usize> {
        (0..self.replicas.len()).collect()
    }

    pub(crate) fn step(&mut self, op: &Op) {
        self.now += self.tick;
        match op {
            Op::Put(who, path, thing, age) => self.put(*who, path, *thing, *age),
            Op::Remove(who, path) => self.remove(*who, path),
            Op::Rename(who, from, to) => self.rename(*who, from, to),
            Op::Chmod(who, path, mode) => self.change(*who, path, Some(*mode)),
            Op::Touch(who, path) => self.change(*who, path, None),
            Op::Meet(a, b) => {
                if a != b {
                    self.settle_some(&[*a, *b]);
                }
            }
        }
    }

    // --- users

    fn put(&mut self, who: usize, path: &RelPath, thing: Thing, age: u8) {
        let Some(parent) = path.parent() else { return };
        if !self.make_parents(who, &parent) {
            return;
        }
        let (kind, content, mode) = match thing {
            Thing::File(c) => (Kind::File, ContentId([c + 1; 32]), 0o644),
            Thing::Link(c) => (Kind::Link, ContentId([c + 101; 32]), 0),
            Thing::Dir => (Kind::Dir, ContentId::NONE, 0o755),
        };
        let here = self.replicas[who].disk.get(path);
        if here.is_some_and(|o| o.kind == Kind::Dir) {
            if kind == Kind::Dir {
                return;
            }
            self.remove_below(who, path);
        }
        let secs = if kind == Kind::Dir {
            0
        } else {
            self.now - i64::from(age)
        };
        let object = self.object(kind, content, mode, Mtime { secs, nanos: 0 });
        self.replicas[who].disk.insert(path.clone(), object);
        self.record_present(who, path);
    }

    fn make_parents(&mut self, who: usize, dir: &RelPath) -> bool {
        if dir.is_root() {
            return true;
        }
        match self.replicas[who].disk.get(dir).map(|o| o.kind) {
            Some(kind) => kind == Kind::Dir,
            None => {
                self.put(who, dir, Thing::Dir, 0);
                self.replicas[who].disk.contains_key(dir)
            }
        }
    }

    pub(crate) fn object(
        &mut self,
        kind: Kind,
        content: ContentId,
        mode: u16,
        mtime: Mtime,
    ) -> Object {
        self.inode += 1;
        let print = Print {
            ino: self.inode,
            hash: self.inode,
            mode,
        };
        Object {
            kind,
            content,
            mtime,
            print,
        }
    }

    fn remove(&mut self, who: usize, path: &RelPath) {
        if self.replicas[who].disk.contains_key(path) {
            self.remove_below(who, path);
            self.replicas[who].disk.remove(path);
            self.record_absent(who, path);
        }
    }

    fn remove_below(&mut self, who: usize, dir: &RelPath) {
        let below: Vec<RelPath> = tree::below(&self.replicas[who].disk, dir)
            .cloned()
            .collect();
        for path in below.iter().rev() {
            self.replicas[who].disk.remove(path);
            self.record_absent(who, path);
        }
    }

    fn rename(&mut self, who: usize, from: &RelPath, to: &RelPath) {
        let disk = &self.replicas[who].disk;
        let there = disk.get(to).map(|o| o.kind);
        let Some(kind) = disk.get(from).map(|o| o.kind) else {
            return;
        };
        let is_in_the_way = there.is_some_and(|k| k == Kind::Dir || kind == Kind::Dir);
        if is_in_the_way || to.is_within(from) {
            return;
        }
        if !to.parent().is_some_and(|dir| self.make_parents(who, &dir)) {
            return;
        }
        let mut moving = vec![from.clone()];
        moving.extend(tree::below(&self.replicas[who].disk, from).cloned());
        let disk = &mut self.replicas[who].disk;
        let objects: Vec<Object> = moving.iter().filter_map(|p| disk.remove(p)).collect();
        moving.iter().rev().for_each(|p| self.record_absent(who, p));
        for (path, object) in moving.iter().zip(objects) {
            let new = path.rebase(from, to).unwrap();
            self.replicas[who].disk.insert(new.clone(), object);
            self.record_present(who, &new);
        }
    }

    fn change(&mut self, who: usize, path: &RelPath, mode: Option<u16>) {
        let Some(old) = self.replicas[who].disk.get(path).cloned() else {
            return;
        };
        let mode = match old.kind {
            Kind::Link => 0,
            _ => mode.unwrap_or(old.print.mode),
        };
        let touched = old.kind != Kind::Dir && mode == old.print.mode;
        let mtime = if touched {
            Mtime {
                secs: self.now,
                nanos: 0,
            }
        } else {
            old.mtime
        };
        let new = self.object(old.kind, old.content, mode, mtime);
        self.replicas[who].disk.insert(path.clone(), new);
        self.record_present(who, path);
    }

    // --- what a look records

    fn mint(&mut self, who: usize, path: &RelPath, version: Version, blind: bool) {
        let replica = &mut self.replicas[who];
        if self.flaw != Some(Flaw::CountsTwice) || replica.counter == 0 {
            replica.counter += 1;
        }
        let dot = Dot {
            actor: replica.actor,
            counter: replica.counter,
        };
        let known = replica.known.entry(path.clone()).or_default();
        let seen = if blind {
            BTreeSet::new()
        } else {
            known.clone()
        };
        known.insert(dot);
        let row = replica.rows.entry(path.clone()).or_default();
        row.entry = if blind {
            row.entry
                .record_beside(&Context::default(), dot, version.clone())
        } else {
            row.entry.record(dot, version.clone())
        };
        row.shown = Some(dot);
        self.log.push(Rc::new(Event {
            dot,
            path: path.clone(),
            version,
            seen,
        }));
    }

    fn record_absent(&mut self, who: usize, path: &RelPath) {
        if let Some(unseen) = &mut self.unseen {
            unseen.insert((who, path.clone()));
            return;
        }
        let row = self.replicas[who].rows.entry(path.clone()).or_default();
        row.print = None;
        let Some(was) = row.present().cloned() else {
            // A directory that stood for its contents: nobody ever said that it is there.
            row.shown = row.shown.or_else(|| tree::settled_tomb(&row.entry));
            return;
        };
        let tomb = Version {
            kind: Kind::Tomb,
            size: 0,
            mode: 0,
            mtime: Mtime::default(),
            te: self.now,
            mode_te: self.now,
            target: Box::default(),
            prev: previous(&was, was.content),
            meta_only: false,
            policy_epoch: self.policies.epoch(),
            ..was
        };
        self.mint(who, path, tomb, false);
    }

    fn record_present(&mut self, who: usize, path: &RelPath) {
        if let Some(unseen) = &mut self.unseen {
            unseen.insert((who, path.clone()));
            return;
        }
        let replica = &mut self.replicas[who];
        let object = replica.disk[path].clone();
        let row = replica.rows.entry(path.clone()).or_default();
        let same = |v: &Version| v.kind == object.kind && v.content == object.content;
        let mode_is_new = row.print.is_none_or(|p| p.mode != object.print.mode);
        let time_is_new = |v: &Version| v.kind != Kind::Dir && v.mtime != object.mtime;
        let print = row.print.replace(object.print);
        if print.is_some()
            && row.present().is_some_and(|v| same(v) && !time_is_new(v))
            && !mode_is_new
        {
            return;
        }
        if row.shown.is_none() {
            let is_it = |(_, v): &&(Dot, Version)| same(v) && v.mode == object.print.mode;
            if let Some((dot, _)) = row.entry.siblings().iter().find(is_it) {
                row.shown = Some(*dot);
                return;
            }
        }
        let (was, blind) = (row.on_disk().cloned(), row.shown.is_none());
        let of_kind = was.as_ref().filter(|v| v.kind == object.kind);
        let te = if object.kind == Kind::Dir {
            self.now
        } else {
            object.mtime.secs
        };
        let mode_te = match of_kind {
            Some(v) if !mode_is_new => v.mode_te,
            Some(_) => self.now,
            None => te,
        };
        let version = Version {
            kind: object.kind,
            content: object.content,
            size: 1,
            mode: object.print.mode,
            mtime: object.mtime,
            te,
            mode_te,
            attributes: None,
            target: link_target(&object),
            prev: was
                .as_ref()
                .map(|v| previous(v, object.content))
                .unwrap_or_default(),
            moved: None,
            meta_only: was.as_ref().is_some_and(same),
            policy_epoch: self.policies.epoch(),
        };
        self.mint(who, path, version, blind);
    }

    // --- bringing in step

    pub(crate) fn plan(&self, who: &[usize]) -> Plan {
        let rows: Vec<_> = who.iter().map(|i| &self.replicas[*i].rows).collect();
        tree::plan(&rows, &self.policies)
    }

    pub(crate) fn settle(&mut self) {
        self.settle_some(&self.all());
    }

    /// Plans and acts until nothing is left to do.
    pub(crate) fn settle_some(&mut self, who: &[usize]) {
        for _ in 0..10 {
            let plan = self.plan(who);
            if plan.actions.is_empty() {
                return;
            }
            self.act(who, &plan);
        }
        let stuck = self.plan(who).actions;
        panic!("it never comes to rest: {stuck:#?}");
    }

    /// Carries out a whole plan in its order.
    pub(crate) fn act(&mut self, who: &[usize], plan: &Plan) {
        if let Err(why) = self.try_act(who, plan) {
            panic!("{why}");
        }
    }

    pub(crate) fn try_act(&mut self, who: &[usize], plan: &Plan) -> Result<(), String> {
        for action in &plan.actions {
            if self.was_pruned(who[action.replica], action) {
                continue;
            }
            self.carry_out(who[action.replica], action, plan)
                .map_err(|why| format!("{why}: {action:#?}"))?;
        }
        self.hear(who, plan);
        Ok(())
    }

    /// Carries out the first actions of a plan that the world may have left behind: what cannot be done
    /// any more is left to the next plan.
    pub(crate) fn act_as_far_as_possible(&mut self, who: &[usize], plan: &Plan, count: usize) {
        let mut told = self.clone();
        told.hear(who, plan);
        for action in &plan.actions[..count] {
            let i = who[action.replica];
            if !self.was_pruned(i, action) && self.carry_out(i, action, plan).is_ok() {
                let known = told.replicas[i].known.get(&action.path).cloned();
                let known = known.unwrap_or_default();
                self.replicas[i].known.insert(action.path.clone(), known);
            }
        }
        let is_new = |e: &&Rc<Event>| {
            let mut all = self.replicas.iter().filter_map(|r| r.known.get(&e.path));
            all.any(|dots| dots.contains(&e.dot))
        };
        let new = told.log[self.log.len()..].iter().filter(is_new);
        self.log.extend(new.cloned().collect::<Vec<_>>());
    }

    /// The events that some replicas know together.
    pub(crate) fn events(&self, who: &[usize]) -> Vec<Event> {
        let is_known = |e: &&Rc<Event>| {
            let known = who
                .iter()
                .filter_map(|i| self.replicas[*i].known.get(&e.path));
            known.into_iter().any(|dots| dots.contains(&e.dot))
        };
        let known = self.log.iter().filter(is_known);
        known.map(|e| e.as_ref().clone()).collect()
    }

    /// Everybody has heard of what the others and the views know.
    pub(crate) fn hear(&mut self, who: &[usize], plan: &Plan) {
        let mut all: BTreeMap<RelPath, BTreeSet<Dot>> = BTreeMap::new();
        for i in who {
            for (path, dots) in &self.replicas[*i].known {
                all.entry(path.clone()).or_default().extend(dots);
            }
        }
        for (path, extra) in &plan.extras {
            let known = all.entry(path.clone()).or_default();
            for (dot, version) in extra.siblings() {
                // A tombstone here ends what is known; anything else was made by nobody who saw anything.
                let seen = if version.is_tomb() {
                    known.clone()
                } else {
                    BTreeSet::new()
                };
                if known.insert(*dot) && !self.log.iter().any(|e| (e.dot, &e.path) == (*dot, path))
                {
                    let (path, version) = (path.clone(), version.clone());
                    self.log.push(Rc::new(Event {
                        dot: *dot,
                        path,
                        version,
                        seen,
                    }));
                }
            }
        }
        for i in who {
            self.replicas[*i].known.clone_from(&all);
        }
    }

    /// What a replica shows: kinds and contents.
    pub(crate) fn shape(&self, i: usize) -> BTreeMap<RelPath, (Kind, ContentId)> {
        let disk = self.replicas[i].disk.iter();
        disk.map(|(path, o)| (path.clone(), (o.kind, o.content)))
            .collect()
    }

    /// Everything that is known at a path, by all.
    pub(crate) fn entry(&self, path: &RelPath) -> Entry {
        let rows = self.replicas.iter().filter_map(|r| r.rows.get(path));
        rows.fold(Entry::default(), |all, row| all.merge(&row.entry))
    }
}

/// Links stay inside: they name something beside them.
fn link_target(object: &Object) -> Box<[u8]> {
    match object.kind {
        Kind::Link => format!("to{}", object.content.0[0]).into_bytes().into(),
        _ => Box::default(),
    }
}

fn previous(was: &Version, content: ContentId) -> Vec<ContentId> {
    let mut out = Vec::new();
    for id in std::iter::once(&was.content).chain(&was.prev) {
        if *id != content && *id != ContentId::NONE && !out.contains(id) && out.len() < PREVIOUS_MAX
        {
            out.push(*id);
        }
    }
    out
}
