//! Every replica of a session behind a pair of eyes: each call of the engine goes through, and what it did to
//! the machine is held against the promises that hold at every step.
//!
//! Owns what must be remembered between two calls, and what was found to be broken. Changes nothing: neither
//! what is asked nor what is answered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use instep_core::codec::Reader;
use instep_core::entry::Entry;
use instep_core::id::{ActorId, ContentId, Dot};
use instep_core::path::RelPath;
use instep_core::plan::{Action, Goal, Outcome, Precondition, Problem};
use instep_core::row::Row;
use instep_fs::sim::{Deed, SimFs};
use instep_replica::{
    Book, Checked, Content, Finding, Found, HintSet, Look, Replica, Result, Scope, ShareState,
    Sources, Waker,
};
use instep_store::{MemoryDisk, Table};

use crate::coverage::{Cells, Scene};
use crate::steps;

/// Lines about one session; a broken promise breaks at every step that follows.
const LINES_MAX: usize = 20;

/// What all machines are watched by.
#[derive(Debug, Default)]
pub(crate) struct Eye {
    broken: Mutex<Vec<String>>,
    /// The actors so far, each with the medium that its counters are on.
    minters: Mutex<BTreeMap<ActorId, MemoryDisk>>,
    /// Counters that are durable.
    durable: Mutex<BTreeMap<ActorId, u64>>,
    /// Decisions that were met, where somebody wants to know.
    cells: Option<Mutex<Cells>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Eye {
    /// One that counts decisions, too.
    pub(crate) fn counting() -> Self {
        Self {
            cells: Some(Mutex::default()),
            ..Self::default()
        }
    }

    /// The decisions that were met; none where nobody wants to know.
    pub(crate) fn cells(&self) -> Option<MutexGuard<'_, Cells>> {
        self.cells.as_ref().map(locked)
    }

    /// What was found.
    pub(crate) fn broken(&self) -> Vec<String> {
        locked(&self.broken).clone()
    }

    fn say(&self, machine: usize, lines: Vec<String>) {
        let mut broken = locked(&self.broken);
        for line in lines {
            if broken.len() < LINES_MAX {
                broken.push(format!("{line} (machine {machine})"));
            }
        }
    }

    /// I8: no counter leaves before the block that it lies in is durable where it was minted.
    fn announced(&self, entry: &Entry) -> Vec<String> {
        let mut bad = Vec::new();
        let mut durable = locked(&self.durable);
        for dot in entry.ctx().iter() {
            if durable.get(&dot.actor).is_some_and(|n| dot.counter <= *n) {
                continue;
            }
            let minter = locked(&self.minters).get(&dot.actor).cloned();
            // Whoever has another actor by now counted up to where it was durable then.
            let Some(sure) = minter.and_then(|medium| durable_counter(&medium, dot.actor)) else {
                continue;
            };
            durable.insert(dot.actor, sure);
            if dot.counter > sure {
                bad.push(format!("I8: {dot} is known elsewhere, durable is {sure}"));
            }
        }
        bad
    }
}

/// Up to where an actor's counters are taken, as a power cut now would leave it; none where another has its place.
fn durable_counter(medium: &MemoryDisk, actor: ActorId) -> Option<u64> {
    let whose = medium.durable_record(Table::Meta, b"actor");
    if whose.is_some_and(|a| a != actor.0) {
        return None;
    }
    let counter = medium.durable_record(Table::Meta, b"counter");
    let counter = counter.and_then(|b| Reader::new(&b).u64().ok());
    Some(counter.unwrap_or(0))
}

/// What is remembered between two calls on one machine.
#[derive(Debug, Default)]
struct Memory {
    /// Directories that were listed since the last look began, and whether once to their end.
    listed: BTreeMap<RelPath, bool>,
    /// Names that anybody changed since then.
    moved: BTreeSet<RelPath>,
    /// Names that an open directory was asked for since then and did not have.
    missed: BTreeSet<RelPath>,
    /// Names that were no directories when it was asked for them since then.
    no_dirs: BTreeSet<RelPath>,
    /// Paths that were here and that a look missed.
    absent: BTreeSet<RelPath>,
    /// The highest counter of a tombstone that was accounted for, or of any dot before this session.
    tombs: u64,
}

/// One replica, watched.
#[derive(Debug)]
pub(crate) struct Watched<R> {
    inner: Arc<R>,
    machine: usize,
    fs: SimFs,
    exchanges: bool,
    leases: bool,
    eye: Arc<Eye>,
    memory: Mutex<Memory>,
}

impl<R: Replica> Watched<R> {
    /// Watches a replica, and what has happened to its machine since the account was begun.
    pub(crate) fn new(
        inner: Arc<R>,
        machine: usize,
        fs: SimFs,
        index: MemoryDisk,
        eye: Arc<Eye>,
    ) -> Self {
        let (mut exchanges, mut leases) = (true, true);
        fs.configure(|c| (exchanges, leases) = (c.exchange, c.leases));
        let actor = inner.actor();
        let memory = Memory {
            tombs: durable_counter(&index, actor).unwrap_or(0),
            ..Memory::default()
        };
        locked(&eye.minters).insert(actor, index);
        Self {
            inner,
            machine,
            fs,
            exchanges,
            leases,
            eye,
            memory: Mutex::new(memory),
        }
    }

    /// The replica itself.
    pub(crate) fn watched(&self) -> &R {
        &self.inner
    }

    /// Holds what was done since the last call against what holds always.
    fn judge(&self, replaced: &BTreeSet<RelPath>) {
        let deeds = self.fs.take_deeds();
        if deeds.is_empty() {
            return;
        }
        let mut bad = steps::confined(&deeds);
        bad.extend(steps::whole(&deeds, replaced));
        bad.extend(steps::hands_off(&deeds, self.leases));
        self.remember(&deeds);
        self.eye.say(self.machine, bad);
    }

    fn remember(&self, deeds: &[Deed]) {
        let mut memory = locked(&self.memory);
        memory.moved.extend(steps::moved(deeds).cloned());
        for deed in deeds {
            match deed {
                Deed::Listed {
                    dir: Some(dir),
                    complete,
                } => *memory.listed.entry(dir.clone()).or_default() |= complete,
                Deed::Missed { path: Some(path) } => drop(memory.missed.insert(path.clone())),
                Deed::NoDir { path: Some(path) } => drop(memory.no_dirs.insert(path.clone())),
                _ => {}
            }
        }
    }

    /// A call that may change something.
    fn through<T>(&self, call: impl FnOnce(&R) -> T) -> T {
        let answer = call(&self.inner);
        self.judge(&BTreeSet::new());
        answer
    }

    /// I5: what a look reports as absent is, or was while it looked, and an open directory said so.
    fn unproven(&self, path: &RelPath) -> Option<String> {
        let memory = locked(&self.memory);
        if memory.moved.iter().any(|p| path.is_within(p)) {
            return None;
        }
        if self.fs.exists(path.as_bytes()) {
            return Some(format!("I5: \"{path}\" is said to be absent and is there"));
        }
        if memory.missed.iter().any(|p| path.is_within(p)) {
            return None;
        }
        let mut above = path.parent();
        while let Some(dir) = above {
            match memory.listed.get(&dir) {
                Some(true) => return None,
                // Nothing is below what is no directory.
                _ if memory.no_dirs.contains(&dir) => return None,
                Some(false) if self.fs.exists(dir.as_bytes()) => {
                    return Some(format!(
                        "I5: \"{path}\" absent, but \"{dir}\" was not listed"
                    ));
                }
                _ => {}
            }
            above = dir.parent();
        }
        Some(format!(
            "I5: \"{path}\" absent, and nothing above it was listed"
        ))
    }

    fn check_look(&self, look: &Look) {
        let absent = |f: &&Finding| matches!(f.found, Found::Absent { .. });
        let mut bad = Vec::new();
        for Finding { path, .. } in look.findings.iter().filter(absent) {
            bad.extend(self.unproven(path));
            // The index may have died under the look.
            let Ok(row) = self.inner.row(path) else {
                continue;
            };
            if row.is_some_and(|r| r.present().is_some() || r.is_derived_dir()) {
                locked(&self.memory).absent.insert(path.clone());
            } else {
                bad.push(format!("I5: \"{path}\" is missed, and was never here"));
            }
        }
        self.eye.say(self.machine, bad);
    }

    /// I5: every new tombstone stands for something that is not there; I17: without a memory there is none.
    fn check_tombs(&self, changed: &[RelPath], rejoining: bool) {
        let actor = self.inner.actor();
        let mut bad = Vec::new();
        let known = locked(&self.memory).tombs;
        let mut last = known;
        for path in changed {
            let Ok(Some(row)) = self.inner.row(path) else {
                continue;
            };
            let siblings = row.entry.siblings().iter();
            let new = |d: &Dot| d.actor == actor && d.counter > known;
            for (dot, _) in siblings.filter(|(d, v)| v.is_tomb() && new(d)) {
                last = last.max(dot.counter);
                let memory = locked(&self.memory);
                let moved = memory.moved.iter().any(|p| path.is_within(p));
                if !moved && self.fs.exists(path.as_bytes()) {
                    bad.push(format!("I5: {dot} deletes \"{path}\", which is there"));
                }
                if rejoining && !memory.absent.contains(path) {
                    bad.push(format!(
                        "I17: {dot} deletes \"{path}\" without a memory of it"
                    ));
                }
            }
        }
        locked(&self.memory).tombs = last;
        self.eye.say(self.machine, bad);
    }

    /// What is where the actions are to be done, if anybody wants to know.
    fn scenes(&self, actions: &[Action]) -> Vec<Scene> {
        let wanted = actions.iter().filter(|_| self.eye.cells.is_some());
        wanted
            .map(|a| Scene::of(&*self.inner, &self.fs, &a.path))
            .collect()
    }

    /// Paths that have something before and after, so that nobody may see nothing there.
    fn replaced(&self, actions: &[Action]) -> BTreeSet<RelPath> {
        let replaces = |a: &&Action| {
            matches!(a.before, Precondition::Unchanged { .. })
                && !matches!(a.goal, Goal::Absent | Goal::Rename { .. })
        };
        let replaced = actions.iter().filter(|_| self.exchanges).filter(replaces);
        replaced.map(|a| a.path.clone()).collect()
    }
}

impl<R: Replica> Replica for Watched<R> {
    instep_replica::hand_on!(
        inner:
        id actor share describe capabilities is_rejoining sums row children subtree sample
        take_problems read_record records
    );

    fn guard(&self) -> Result<()> {
        self.through(Replica::guard)
    }

    fn renew(&self) -> Result<Option<Arc<dyn Replica>>> {
        self.through(Replica::renew)
    }

    fn rejoined(&self) -> Result<()> {
        self.through(Replica::rejoined)
    }

    fn watch(&self, waker: Waker) -> Result<Vec<Problem>> {
        self.through(|r| r.watch(waker))
    }

    fn take_hints(&self) -> HintSet {
        self.through(Replica::take_hints)
    }

    fn look(&self, scope: &Scope) -> Result<Look> {
        self.judge(&BTreeSet::new());
        // A further piece of a walk has its evidence from there.
        if !matches!(scope, Scope::Rest(_)) {
            let mut memory = locked(&self.memory);
            memory.listed.clear();
            memory.moved.clear();
            memory.missed.clear();
            memory.no_dirs.clear();
        }
        let look = self.through(|r| r.look(scope));
        if let Ok(look) = &look {
            self.check_look(look);
        }
        look
    }

    fn record(&self, look: &Look, share: &ShareState) -> Result<Vec<RelPath>> {
        let rejoining = self.inner.is_rejoining();
        let recorded = self.through(|r| r.record(look, share));
        if let Ok(changed) = &recorded {
            self.check_tombs(changed, rejoining);
        }
        recorded
    }

    fn open(&self, path: &RelPath, content: ContentId) -> Result<Option<Box<dyn Content>>> {
        self.through(|r| r.open(path, content))
    }

    fn stage(&self, path: &RelPath, content: ContentId, from: &mut dyn Content) -> Result<Outcome> {
        self.through(|r| r.stage(path, content, from))
    }

    fn is_staged(&self, content: ContentId) -> bool {
        self.inner.is_staged(content)
    }

    fn check(&self, path: &RelPath) -> Result<Checked> {
        self.through(|r| r.check(path))
    }

    fn check_kept(&self, key: &str) -> Result<Checked> {
        self.through(|r| r.check_kept(key))
    }

    fn apply(&self, actions: &[Action], sources: &dyn Sources) -> Result<Vec<Outcome>> {
        let none = BTreeSet::new();
        self.judge(&none);
        let replaced = self.replaced(actions);
        let learnt = actions.iter().flat_map(|a| self.eye.announced(&a.entry));
        self.eye.say(self.machine, learnt.collect());
        let errors = self.fs.misfortunes().errors;
        let scenes = self.scenes(actions);
        let done = self.inner.apply(actions, sources);
        if let (Some(mut cells), Ok(outcomes)) = (self.eye.cells(), &done) {
            for ((scene, action), outcome) in scenes.iter().zip(actions).zip(outcomes) {
                cells.action(scene, action, outcome);
            }
        }
        // Where a call failed, the next best way may be taken.
        let smooth = self.fs.misfortunes().errors == errors;
        self.judge(if smooth { &replaced } else { &none });
        done
    }

    fn rename(&self, from: &RelPath, to: &RelPath) -> Result<Outcome> {
        if let Some(mut cells) = self.eye.cells() {
            cells.rename(&self.fs, from);
        }
        self.through(|r| r.rename(from, to))
    }

    fn adopt_move(&self, from: &RelPath, to: &RelPath, entries: &[(RelPath, Row)]) -> Result<()> {
        let learnt = entries
            .iter()
            .flat_map(|(_, r)| self.eye.announced(&r.entry));
        self.eye.say(self.machine, learnt.collect());
        self.through(|r| r.adopt_move(from, to, entries))
    }

    fn mint(&self) -> Result<Dot> {
        self.through(Replica::mint)
    }

    fn restore(&self, key: &str, to: Option<&RelPath>) -> Result<RelPath> {
        self.through(|r| r.restore(key, to))
    }

    fn purge(&self, before_ns: i64) -> Result<u64> {
        self.through(|r| r.purge(before_ns))
    }

    fn barrier(&self) -> Result<()> {
        self.through(Replica::barrier)
    }

    fn close(&self) -> Result<()> {
        self.through(Replica::close)
    }

    fn write_record(&self, book: Book, key: &str, body: Option<&str>) -> Result<()> {
        self.through(|r| r.write_record(book, key, body))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

    use super::*;
    use instep_core::id::ShareId;
    use instep_core::path::Name;
    use instep_fs::sim::{Save, SimConfig};
    use instep_replica::content::NoSources;
    use instep_replica::env::StepEnv;
    use instep_replica::memory::MemoryReplica;
    use instep_replica::records::ShareRecord;

    /// A replica that says what it likes of a machine, whatever its listings tell.
    struct Liar {
        inner: MemoryReplica,
        fs: SimFs,
        /// How often a look lists the machine's root, and which of the listings fail.
        listings: Mutex<Vec<bool>>,
    }

    impl Replica for Liar {
        instep_replica::hand_on!(
            inner:
            id actor share describe capabilities guard is_rejoining watch take_hints record sums row children
            subtree open sample stage is_staged take_problems adopt_move mint restore purge barrier
            read_record write_record records
        );

        fn apply(&self, actions: &[Action], sources: &dyn Sources) -> Result<Vec<Outcome>> {
            self.inner.apply(actions, sources)
        }

        fn rename(&self, from: &RelPath, to: &RelPath) -> Result<Outcome> {
            self.inner.rename(from, to)
        }

        fn look(&self, scope: &Scope) -> Result<Look> {
            for fails in locked(&self.listings).drain(..) {
                self.fs.fail_next("list", u64::from(fails), 5);
                assert_eq!(self.fs.root().list(&mut |_, _| ()).is_err(), fails);
            }
            self.inner.look(scope)
        }
    }

    /// A machine that such a replica is on.
    struct Scene {
        fs: SimFs,
        eye: Arc<Eye>,
        watched: Watched<Liar>,
    }

    fn path(p: &str) -> RelPath {
        RelPath::new(p.as_bytes()).unwrap()
    }

    impl Scene {
        /// It has recorded a file; the machine has it too.
        fn new() -> Self {
            let fs = SimFs::new(SimConfig::adversarial(1));
            fs.write_file("a", b"1", Save::InPlace).unwrap();
            fs.keep_account();
            let share = ShareId([1; 16]);
            let liar = MemoryReplica::new("A", share, Arc::new(StepEnv::default()));
            liar.user_write(&path("a"), b"1").unwrap();
            let look = liar.look(&Scope::Everything).unwrap();
            let state = ShareState::new(share, ShareRecord::default());
            liar.record(&look, &state).unwrap();
            let eye = Arc::new(Eye::default());
            let disk = MemoryDisk::new();
            let liar = Liar {
                inner: liar,
                fs: fs.clone(),
                listings: Mutex::default(),
            };
            let watched = Watched::new(Arc::new(liar), 0, fs.clone(), disk, eye.clone());
            Self { fs, eye, watched }
        }

        /// It says that the file is gone, and records that.
        fn deletes(&self) -> Vec<String> {
            let inner = &self.watched.watched().inner;
            inner.user_remove(&path("a")).unwrap();
            let look = self.watched.look(&Scope::Everything).unwrap();
            let state = ShareState::new(self.watched.share(), ShareRecord::default());
            self.watched.record(&look, &state).unwrap();
            self.eye.broken()
        }
    }

    #[test]
    fn a_deletion_of_what_is_there_is_not_seen() {
        let bad = Scene::new().deletes();
        assert_eq!(bad.len(), 2, "{bad:?}");
        assert!(
            bad[0].starts_with("I5: \"a\" is said to be absent"),
            "{bad:?}"
        );
        assert!(bad[1].contains("deletes \"a\", which is there"), "{bad:?}");
    }

    #[test]
    fn a_deletion_that_no_listing_showed_is_not_seen() {
        let scene = Scene::new();
        scene.fs.remove("a").unwrap();
        scene.watched.judge(&BTreeSet::new());
        let bad = scene.deletes();
        assert_eq!(bad.len(), 1, "{bad:?}");
        assert!(bad[0].contains("nothing above it was listed"), "{bad:?}");
    }

    /// What is wrong with a deletion that was found by a look with these listings, each of which may fail.
    fn after(listings: &[bool]) -> Vec<String> {
        let scene = Scene::new();
        scene.fs.remove("a").unwrap();
        // What was listed before the look began is no evidence.
        scene.fs.root().list(&mut |_, _| ()).unwrap();
        locked(&scene.watched.watched().listings).extend(listings);
        scene.deletes()
    }

    #[test]
    fn a_deletion_after_a_listing_that_failed_is_not_seen() {
        for failed in [[true].as_slice(), &[true, true]] {
            let bad = after(failed);
            assert!(bad[0].contains("\".\" was not listed"), "{bad:?}");
        }
        for proven in [[false].as_slice(), &[false, true], &[true, false]] {
            assert_eq!(after(proven), [""; 0], "{proven:?}");
        }
        let bad = after(&[]);
        assert!(bad[0].contains("nothing above it was listed"), "{bad:?}");
    }

    #[test]
    fn a_directory_that_could_not_be_opened_for_it_is_none_proves_nothing_absent_below() {
        let scene = Scene::new();
        let root = scene.fs.root();
        for asked in ["a", "b"] {
            assert!(root.open_dir(Name::new(asked.as_bytes()).unwrap()).is_err());
        }
        scene.watched.judge(&BTreeSet::new());
        // What was told then is told, also by a machine that died over it.
        scene.fs.kill();
        for below in ["a/x", "b/x"] {
            assert_eq!(scene.watched.unproven(&path(below)), None);
        }
        let bad = scene.watched.unproven(&path("c/x")).unwrap();
        assert!(bad.contains("nothing above it was listed"), "{bad:?}");
        // The next look has to ask again.
        scene.watched.look(&Scope::Everything).unwrap();
        assert!(scene.watched.unproven(&path("a/x")).is_some());
    }

    #[test]
    fn a_counter_leaves_before_it_is_durable_and_nobody_sees_it() {
        let scene = Scene::new();
        let row = scene.watched.row(&path("a")).unwrap().unwrap();
        let action = Action {
            replica: 0,
            path: path("a"),
            before: Precondition::Absent,
            goal: Goal::Record,
            keep: instep_core::plan::Keep::Trash,
            entry: row.entry,
            shown: None,
        };
        scene.watched.apply(&[action], &NoSources).unwrap();
        let bad = scene.eye.broken();
        assert!(bad.len() == 1 && bad[0].starts_with("I8: "), "{bad:?}");
    }

    #[test]
    fn what_a_call_does_to_the_machine_is_not_judged() {
        let scene = Scene::new();
        scene.fs.special("p").unwrap();
        scene.watched.judge(&BTreeSet::new());
        let root = scene.fs.root();
        let (p, q) = (Name::new(b"p").unwrap(), Name::new(b"q").unwrap());
        root.rename_noreplace(p, &root, q).unwrap();
        scene.watched.guard().unwrap();
        let bad = scene.eye.broken();
        assert!(bad.len() == 1 && bad[0].starts_with("I14: "), "{bad:?}");
    }
}
