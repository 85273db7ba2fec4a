//! Three replicas in memory, users who edit all of them, and the plainest engine there can be: look, record,
//! reconcile every path, apply, again, until nothing is left to do. Afterwards all trees are equal and every
//! content that its own user did not overwrite or delete is still somewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use instep_chunk::content_id;
use instep_core::attributes::Carried;
use instep_core::entry::Entry;
use instep_core::id::{ContentId, ShareId};
use instep_core::path::RelPath;
use instep_core::plan::{Action, Outcome};
use instep_core::policy::{ConflictPolicy, Role};
use instep_core::reconcile::{Side, derived, merged, order, reconcile};
use instep_core::row::Row;
use instep_core::view::{Shown, view};
use instep_replica::content::{Content, Sources};
use instep_replica::env::{Env, StepEnv};
use instep_replica::memory::{MemoryReplica, Object};
use instep_replica::records::ShareRecord;
use instep_replica::{Replica, Scope, ShareState};

type Rows = BTreeMap<RelPath, Row>;

struct World {
    replicas: Vec<MemoryReplica>,
    share: ShareState,
    env: Arc<StepEnv>,
    dice: u64,
    /// Contents that users wrote, and where.
    written: BTreeMap<ContentId, String>,
    /// Contents that a user overwrote or deleted on the replica where they were.
    ended: BTreeSet<ContentId>,
}

struct Everybody<'a>(&'a World);

impl Sources for Everybody<'_> {
    fn open(&self, action: &Action, content: ContentId) -> Option<Box<dyn Content>> {
        self.0.find(&action.path, content)
    }
}

impl World {
    fn new(seed: u64, policy: ConflictPolicy) -> Self {
        let id = ShareId([1; 16]);
        let env = Arc::new(StepEnv::new(seed));
        let replica = |label| MemoryReplica::new(label, id, env.clone());
        let mut share = ShareState::new(id, ShareRecord::default());
        share.policies.0.insert(1, policy);
        Self {
            replicas: ["A", "B", "C"].map(replica).into(),
            share,
            env: env.clone(),
            dice: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            written: BTreeMap::new(),
            ended: BTreeSet::new(),
        }
    }

    /// Xorshift64 (Marsaglia 2003).
    fn roll(&mut self, below: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice >> 11) % below
    }

    fn find(&self, path: &RelPath, content: ContentId) -> Option<Box<dyn Content>> {
        for replica in &self.replicas {
            let mut places = vec![path.clone()];
            for (path, row) in rows(replica) {
                if row.present().is_some_and(|v| v.content == content) {
                    places.push(path);
                }
            }
            for place in places {
                if let Some(found) = replica.open(&place, content).expect("it is there") {
                    return Some(found);
                }
            }
        }
        None
    }

    /// A place for a file, or for a directory: users here never put one where the other was.
    fn a_path(&mut self, for_file: bool) -> RelPath {
        let depth = self.roll(3);
        let mut parts: Vec<&str> = (0..depth)
            .map(|_| ["d", "e"][self.roll(2) as usize])
            .collect();
        let last = if for_file { ["a", "b"] } else { ["d", "e"] };
        parts.push(last[self.roll(2) as usize]);
        RelPath::new(parts.join("/").as_bytes()).expect("legal")
    }

    /// What a user does away with, seen from the tree of one replica.
    fn end(&mut self, replica: usize, path: &RelPath) {
        for (p, object) in self.replicas[replica].tree() {
            if p.is_within(path) && matches!(object, Object::File { .. }) {
                self.ended.insert(object.content());
            }
        }
    }

    fn edit(&mut self, step: u64) {
        let who = self.roll(3) as usize;
        let what = self.roll(10);
        let for_file = what < 8 && self.roll(3) > 0 || what <= 4;
        let (path, other) = (self.a_path(for_file), self.a_path(for_file));
        self.env.sleep_ms(5);
        match what {
            0..=4 => {
                let bytes = format!("step {step} by {who}");
                let before = self.replicas[who]
                    .user_read(&path)
                    .ok()
                    .map(|b| content_id(&b));
                if self.replicas[who]
                    .user_write(&path, bytes.as_bytes())
                    .is_ok()
                {
                    self.ended.extend(before);
                    self.written
                        .insert(content_id(bytes.as_bytes()), format!("{path} on {who}"));
                }
            }
            5 | 6 => {
                self.end(who, &path);
                // A path where nothing is cannot be removed; then nothing has ended either.
                drop(self.replicas[who].user_remove(&path));
            }
            7 => {
                let replaced = self.replicas[who].tree().get(&other).cloned();
                if self.replicas[who].user_rename(&path, &other).is_ok()
                    && let Some(replaced) = replaced
                {
                    self.ended.insert(replaced.content());
                }
            }
            8 => drop(self.replicas[who].user_mkdir(&path)),
            _ => drop(self.replicas[who].user_chmod(&path, 0o700)),
        }
    }

    /// One cycle; true when there was nothing to do.
    fn cycle(&self) -> bool {
        for r in &self.replicas {
            let look = r.look(&Scope::Everything).expect("it is there");
            r.record(&look, &self.share).expect("it is there");
        }
        let all: Vec<Rows> = self.replicas.iter().map(rows).collect();
        let mut actions = plan(&all, &self.share);
        if actions.is_empty() {
            return true;
        }
        order(&mut actions);
        for (i, r) in self.replicas.iter().enumerate() {
            let mine: Vec<Action> = actions.iter().filter(|a| a.replica == i).cloned().collect();
            let outcomes = r.apply(&mine, &Everybody(self)).expect("it is there");
            for (action, outcome) in mine.iter().zip(outcomes) {
                assert!(
                    !matches!(outcome, Outcome::Blocked(_)),
                    "{action:?} gave {outcome:?}"
                );
            }
        }
        false
    }

    fn settle(&self) {
        for _ in 0..20 {
            if self.cycle() {
                return;
            }
        }
        let all: Vec<Rows> = self.replicas.iter().map(rows).collect();
        let stuck = plan(&all, &self.share);
        let brief =
            |a: &Action| format!("{} {} {:?} from {:?}", a.replica, a.path, a.goal, a.before);
        let stuck: Vec<String> = stuck.iter().map(brief).collect();
        let trees: Vec<_> = self.replicas.iter().map(MemoryReplica::tree).collect();
        panic!("it never comes to rest: {stuck:#?} on {trees:#?}");
    }

    fn check(&self) {
        let trees: Vec<_> = self.replicas.iter().map(comparable).collect();
        for other in &trees[1..] {
            assert_eq!(trees[0], *other, "trees differ");
        }
        let nowhere = RelPath::new(b"nowhere").expect("legal");
        for (content, written) in &self.written {
            let kept = self.ended.contains(content) || self.find(&nowhere, *content).is_some();
            assert!(kept, "what was written to {written} is nowhere");
        }
    }
}

/// The tree, without the modes of directories that stand only for their contents: no version has one.
fn comparable(replica: &MemoryReplica) -> BTreeMap<RelPath, Object> {
    let rows = rows(replica);
    let mut tree = replica.tree();
    for (path, object) in &mut tree {
        if rows.get(path).is_some_and(Row::is_derived_dir) {
            *object = Object::Dir { mode: 0 };
        }
    }
    tree
}

fn rows(replica: &MemoryReplica) -> Rows {
    let mut out = Rows::new();
    let mut visit = |path, row| {
        out.insert(path, row);
        ControlFlow::Continue(())
    };
    replica
        .subtree(&RelPath::root(), &mut visit)
        .expect("it is there");
    out
}

fn sides<'a>(all: &'a [Rows], path: &RelPath) -> Vec<Side<'a>> {
    let side = |rows: &'a Rows| Side {
        row: rows.get(path),
        role: Role::Both,
        writable: true,
        modes: true,
        covered: false,
        carried: Carried::default(),
    };
    all.iter().map(side).collect()
}

fn plan(all: &[Rows], share: &ShareState) -> Vec<Action> {
    let mut entries: BTreeMap<RelPath, Entry> = BTreeMap::new();
    for path in all.iter().flat_map(BTreeMap::keys) {
        entries.insert(path.clone(), merged(&sides(all, path), &Entry::default()));
    }
    let mut queue: Vec<RelPath> = entries.keys().cloned().collect();
    let mut extras: BTreeMap<RelPath, Entry> = BTreeMap::new();
    while let Some(path) = queue.pop() {
        let entry = &entries[&path];
        for (beside, extra) in derived(&path, entry, &view(entry, &share.policies)) {
            let known = entries.entry(beside.clone()).or_default();
            let both = known.merge(&extra);
            let extra_of = extras.entry(beside.clone()).or_default();
            *extra_of = extra_of.merge(&extra);
            if *known != both {
                *known = both;
                queue.push(beside);
            }
        }
    }
    let alive = |entry: &Entry| match view(entry, &share.policies).shown {
        Shown::Version { dot, .. } => entry.get(dot).is_some_and(|v| !v.is_tomb()),
        Shown::Unknown => false,
        Shown::Standing | Shown::Frozen => true,
    };
    let mut actions = Vec::new();
    for path in entries.keys() {
        let below = entries
            .iter()
            .any(|(p, e)| p != path && p.is_within(path) && alive(e));
        let extra = extras.get(path).cloned().unwrap_or_default();
        let decision = reconcile(path, &sides(all, path), &extra, below, &share.policies);
        assert!(decision.blocked.is_empty(), "{:?}", decision.blocked);
        actions.extend(decision.actions);
    }
    actions
}

fn run(policy: &ConflictPolicy) {
    for seed in 1..=150 {
        let mut world = World::new(seed, policy.clone());
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for step in 0..40 {
                world.edit(step);
                if world.roll(6) == 0 {
                    world.settle();
                    world.check();
                } else if world.roll(3) == 0 {
                    world.cycle();
                }
            }
            world.settle();
            world.check();
        }));
        assert!(outcome.is_ok(), "seed {seed} under {policy:?}");
    }
}

#[test]
fn replicas_diverge_or_lose_content_under_newest() {
    run(&ConflictPolicy::Newest);
}

#[test]
fn replicas_diverge_or_lose_content_under_keep_both() {
    run(&ConflictPolicy::KeepBoth);
}
