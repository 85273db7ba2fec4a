//! Both stores against a plain map: whatever the operations, reads, order and rollback are the same.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

mod support;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use instep_core::path::RelPath;
use instep_core::row::Row;
use instep_store::{
    Durability, IndexStore, MemoryDisk, OpenMode, SqliteStore, StoreError, Table, check_rows,
};
use proptest::collection::vec;
use proptest::prelude::*;
use support::{any_path, any_row, path, scanned};

#[derive(Debug, Clone)]
enum Op {
    Put(RelPath, Box<Row>),
    Remove(RelPath),
    Digest(RelPath, Option<[u8; 16]>),
    Record(Table, Vec<u8>, Option<Vec<u8>>),
    Commit(Durability),
    Rollback,
    Reopen,
}

fn any_op() -> impl Strategy<Value = Op> {
    let table = prop::sample::select(Table::ALL.to_vec());
    let key = vec(0..3_u8, 0..3);
    prop_oneof![
        6 => (any_path(), any_row()).prop_map(|(p, r)| Op::Put(p, Box::new(r))),
        2 => any_path().prop_map(Op::Remove),
        2 => (any_path(), any::<Option<[u8; 16]>>()).prop_map(|(p, d)| Op::Digest(p, d)),
        3 => (table, key, prop::option::weighted(0.7, vec(any::<u8>(), 0..4)))
            .prop_map(|(t, k, b)| Op::Record(t, k, b)),
        2 => prop_oneof![Just(Durability::Process), Just(Durability::Power)].prop_map(Op::Commit),
        1 => Just(Op::Rollback),
        1 => Just(Op::Reopen),
    ]
}

/// What a store must hold, as plainly as it can be said.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    rows: BTreeMap<(Vec<u8>, Vec<u8>), (RelPath, Row)>,
    digests: BTreeMap<Vec<u8>, [u8; 16]>,
    records: BTreeMap<(Table, Vec<u8>), Vec<u8>>,
}

fn key(p: &RelPath) -> (Vec<u8>, Vec<u8>) {
    p.split_bytes()
        .map_or_else(Default::default, |(d, n)| (d.to_vec(), n.to_vec()))
}

impl Model {
    fn apply(&mut self, op: &Op) {
        match op {
            Op::Put(p, r) => drop(self.rows.insert(key(p), (p.clone(), (**r).clone()))),
            Op::Remove(p) => drop(self.rows.remove(&key(p))),
            Op::Digest(p, Some(d)) => drop(self.digests.insert(p.as_bytes().to_vec(), *d)),
            Op::Digest(p, None) => drop(self.digests.remove(p.as_bytes())),
            Op::Record(t, k, Some(b)) => drop(self.records.insert((*t, k.clone()), b.clone())),
            Op::Record(t, k, None) => drop(self.records.remove(&(*t, k.clone()))),
            Op::Commit(_) | Op::Rollback | Op::Reopen => {}
        }
    }

    /// In the order that the contract promises, which is the order of the keys.
    fn below(&self, dir: &RelPath) -> Vec<(RelPath, Row)> {
        self.rows
            .values()
            .filter(|(p, _)| p != dir && p.is_within(dir))
            .cloned()
            .collect()
    }
}

fn write(store: &mut dyn IndexStore, op: &Op) {
    match op {
        Op::Put(p, r) => store.put(p, r).unwrap(),
        Op::Remove(p) => store.remove(p).unwrap(),
        Op::Digest(p, d) => store.put_digest(p, *d).unwrap(),
        Op::Record(t, k, Some(b)) => store.put_record(*t, k, b).unwrap(),
        Op::Record(t, k, None) => store.remove_record(*t, k).unwrap(),
        Op::Commit(d) => store.commit(*d).unwrap(),
        Op::Rollback => store.rollback().unwrap(),
        Op::Reopen => {}
    }
}

fn subtree(store: &mut dyn IndexStore, dir: &RelPath, limit: usize) -> Vec<(RelPath, Row)> {
    let mut found = Vec::new();
    store
        .subtree(dir, &mut |p, r| {
            found.push((p, r));
            if found.len() == limit {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
        .unwrap();
    found
}

fn records(store: &mut dyn IndexStore, table: Table, reverse: bool) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let mut visit = |k: &[u8], b: &[u8]| {
        found.push((k.to_vec(), b.to_vec()));
        ControlFlow::Continue(())
    };
    if reverse {
        store.records_rev(table, &mut visit).unwrap();
    } else {
        store.records(table, &mut visit).unwrap();
    }
    found
}

fn agree(store: &mut dyn IndexStore, model: &Model, about: &RelPath) {
    let want = model.rows.get(&key(about)).map(|(_, r)| r.clone());
    assert_eq!(store.get(about).unwrap(), want);
    assert_eq!(
        store.digest(about).unwrap(),
        model.digests.get(about.as_bytes()).copied()
    );
    let below = model.below(about);
    assert_eq!(subtree(store, about, usize::MAX), below);
    assert_eq!(subtree(store, about, 2), below[..below.len().min(2)]);
    let mut children = Vec::new();
    store
        .children(about, &mut |n, r| children.push((about.join(n), r)))
        .unwrap();
    let direct = below
        .into_iter()
        .filter(|(p, _)| p.parent().as_ref() == Some(about));
    assert_eq!(children, direct.collect::<Vec<_>>());
}

fn agree_on_everything(store: &mut dyn IndexStore, model: &Model) {
    agree(store, model, &RelPath::root());
    let mut digests = Vec::new();
    store
        .digests(&mut |p, d| digests.push((p.as_bytes().to_vec(), d)))
        .unwrap();
    assert_eq!(
        digests,
        model.digests.clone().into_iter().collect::<Vec<_>>()
    );
    for table in Table::ALL {
        let of_table = model.records.iter().filter(|((t, _), _)| *t == table);
        let mut want: Vec<_> = of_table.map(|((_, k), b)| (k.clone(), b.clone())).collect();
        assert_eq!(records(store, table, false), want);
        for (k, b) in &want {
            assert_eq!(store.record(table, k).unwrap().as_ref(), Some(b));
        }
        want.reverse();
        assert_eq!(records(store, table, true), want);
    }
}

fn run<S: IndexStore>(mut open: impl FnMut() -> S, ops: &[(Op, RelPath)]) {
    let mut store = Some(open());
    let (mut now, mut committed) = (Model::default(), Model::default());
    for (op, about) in ops {
        match op {
            Op::Commit(_) => committed = now.clone(),
            Op::Rollback => now = committed.clone(),
            Op::Reopen => {
                store = None;
                now = committed.clone();
            }
            _ => now.apply(op),
        }
        let store = store.get_or_insert_with(&mut open);
        write(store, op);
        if matches!(op, Op::Commit(_) | Op::Rollback | Op::Reopen) {
            assert!(!store.is_dirty());
        } else {
            assert!(store.is_dirty());
        }
        agree(store, &now, about);
    }
    agree_on_everything(store.get_or_insert_with(&mut open), &now);
}

fn ops() -> impl Strategy<Value = Vec<(Op, RelPath)>> {
    vec((any_op(), any_path()), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_memory_store_behaves_like_a_map(ops in ops()) {
        let disk = MemoryDisk::new();
        run(|| disk.open(), &ops);
    }

    #[test]
    fn the_database_behaves_like_a_map(ops in ops()) {
        let dir = tempfile::tempdir().unwrap();
        run(|| SqliteStore::open(&dir.path().join("index.db"), OpenMode::Create).unwrap(), &ops);
    }

    /// A process death and a power cut after any sequence of commits.
    #[test]
    fn a_power_cut_leaves_a_committed_prefix(
        commits in vec((any_path(), any_row(), any::<bool>()), 0..12), seed: u64,
    ) {
        let disk = MemoryDisk::new();
        let mut store = disk.open();
        let mut states = vec![Model::default()];
        let mut durable = 0;
        for (p, r, power) in commits {
            let mut next = states[states.len() - 1].clone();
            next.apply(&Op::Put(p.clone(), Box::new(r.clone())));
            store.put(&p, &r).unwrap();
            store.commit(if power { Durability::Power } else { Durability::Process }).unwrap();
            states.push(next);
            if power {
                durable = states.len() - 1;
            }
        }
        store.put(&path("lost"), &scanned(1)).unwrap();
        disk.kill();
        agree_on_everything(&mut disk.open(), &states[states.len() - 1]);
        prop_assert_eq!(disk.undurable_commits(), states.len() - 1 - durable);
        let kept = durable + (seed % (states.len() - durable) as u64) as usize;
        disk.power_cut(seed);
        agree_on_everything(&mut disk.open(), &states[kept]);
        let dead = matches!(store.get(&path("lost")), Err(StoreError::Dead { .. }));
        prop_assert!(dead);
    }

    #[test]
    fn a_row_survives_its_bytes(row in any_row()) {
        let mut bytes = Vec::new();
        instep_store::row_codec::put_row(&mut bytes, &row);
        prop_assert_eq!(instep_store::row_codec::row(&bytes).unwrap(), row);
    }

    /// Nothing but what encoding writes is taken for a row: damage in a record is seen.
    #[test]
    fn bytes_that_nobody_wrote_are_refused(row in any_row(), at: prop::sample::Index, xor in 1..=255_u8, cut: bool) {
        let mut bytes = Vec::new();
        instep_store::row_codec::put_row(&mut bytes, &row);
        let i = at.index(bytes.len());
        if cut {
            bytes.truncate(i);
        } else {
            bytes[i] ^= xor;
        }
        if let Ok(other) = instep_store::row_codec::row(&bytes) {
            let mut again = Vec::new();
            instep_store::row_codec::put_row(&mut again, &other);
            prop_assert_eq!(again, bytes);
        }
    }
}

fn both(test: impl Fn(&mut dyn IndexStore, &mut dyn FnMut() -> Box<dyn IndexStore>)) {
    let disk = MemoryDisk::new();
    test(&mut disk.open(), &mut || Box::new(disk.open()));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("index.db");
    let mut store = SqliteStore::open(&file, OpenMode::Create).unwrap();
    let mut again = || -> Box<dyn IndexStore> {
        Box::new(SqliteStore::open(&file, OpenMode::ReadOnly).unwrap())
    };
    test(&mut store, &mut again);
}

#[test]
fn another_handle_sees_commits_and_nothing_else() {
    both(|store, open| {
        let mut reader = open();
        store.put(&path("a"), &scanned(1)).unwrap();
        assert_eq!(reader.get(&path("a")).unwrap(), None);
        store.commit(Durability::Process).unwrap();
        assert_eq!(reader.get(&path("a")).unwrap(), Some(scanned(1)));
    });
}

#[test]
fn an_entry_that_could_not_be_read_back_is_not_written() {
    use instep_core::entry::Entry;
    both(|store, _| {
        let entry = (1..=65).fold(Entry::default(), |e, n| {
            e.merge(&Entry::first(support::dot(n, 1), support::file(n, 1)))
        });
        let row = Row {
            entry,
            ..Row::default()
        };
        assert!(matches!(
            store.put(&path("a"), &row),
            Err(StoreError::TooBig { .. })
        ));
        store.put(&path("b"), &scanned(1)).unwrap();
        store.commit(Durability::Process).unwrap();
        assert_eq!(store.get(&path("a")).unwrap(), None);
    });
}

#[test]
fn a_check_counts_rows_and_names_what_is_wrong() {
    both(|store, _| {
        store.put(&RelPath::root(), &Row::default()).unwrap();
        store.put(&path("a/b"), &scanned(1)).unwrap();
        let clean = check_rows(store).unwrap();
        assert!(clean.is_clean());
        assert_eq!(clean.rows, 2);
        store
            .put(
                &path("c"),
                &Row {
                    shown: Some(support::dot(9, 9)),
                    ..scanned(2)
                },
            )
            .unwrap();
        store.put(&path(".instep/x"), &scanned(3)).unwrap();
        let report = check_rows(store).unwrap();
        let texts: Vec<_> = report.problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "c: the version on disk is not a known one",
                ".instep/x: the name is reserved"
            ]
        );
    });
}

#[test]
fn half_of_a_group_of_changes_is_never_committed() {
    let disk = MemoryDisk::new();
    let mut store = disk.open();
    store.put(&path("a"), &scanned(1)).unwrap();
    disk.fail_after(1);
    assert!(matches!(
        store.put(&path("b"), &scanned(2)),
        Err(StoreError::Arranged { .. })
    ));
    disk.heal();
    assert!(matches!(
        store.commit(Durability::Process),
        Err(StoreError::RollbackNeeded { .. })
    ));
    store.rollback().unwrap();
    store.put(&path("c"), &scanned(3)).unwrap();
    store.commit(Durability::Process).unwrap();
    assert_eq!(
        subtree(&mut disk.open(), &RelPath::root(), 9),
        [(path("c"), scanned(3))]
    );
}

#[test]
fn arranged_failures_begin_at_the_call_that_was_named() {
    let disk = MemoryDisk::new();
    let mut store = disk.open();
    disk.fail_after(3);
    assert!(store.get(&path("a")).is_ok());
    assert!(store.put(&path("a"), &scanned(1)).is_ok());
    for _ in 0..2 {
        assert!(matches!(
            store.commit(Durability::Power),
            Err(StoreError::Arranged { .. })
        ));
    }
}

#[test]
fn a_restored_copy_is_older_and_kills_its_readers() {
    let disk = MemoryDisk::new();
    let mut store = disk.open();
    store.put(&path("a"), &scanned(1)).unwrap();
    store.commit(Durability::Power).unwrap();
    let yesterday = disk.snapshot();
    store.put(&path("a"), &scanned(2)).unwrap();
    store.commit(Durability::Power).unwrap();
    disk.restore(&yesterday);
    assert!(store.put(&path("a"), &scanned(3)).is_err());
    assert_eq!(disk.open().get(&path("a")).unwrap(), Some(scanned(1)));
    disk.power_cut(0);
    assert_eq!(disk.open().get(&path("a")).unwrap(), Some(scanned(1)));
}

#[test]
fn two_writers_do_not_mix() {
    let disk = MemoryDisk::new();
    let (mut one, mut two) = (disk.open(), disk.open());
    one.put(&path("a"), &scanned(1)).unwrap();
    assert!(matches!(
        two.put(&path("b"), &scanned(2)),
        Err(StoreError::Busy { .. })
    ));
    drop(one);
    two.put(&path("b"), &scanned(2)).unwrap();
    two.commit(Durability::Process).unwrap();
    assert_eq!(
        subtree(&mut disk.open(), &RelPath::root(), 9),
        [(path("b"), scanned(2))]
    );
}
