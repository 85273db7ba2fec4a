//! Death and loss of power at every call of a hub's life.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use instep_core::entry::Entry;
use instep_core::path::RelPath;
use instep_core::row::Row;
use instep_core::version::{Kind, Version};
use instep_fs::sim::SimConfig;
use instep_hub::HubReplica;
use instep_replica::env::Env as _;
use instep_replica::{Replica, Result};

use support::sim::Sim;
use support::{p, random, read, try_bring, version};

const DAY_MS: u64 = 24 * 3600 * 1000;

/// What was acknowledged.
#[derive(Debug, Default, Clone)]
struct Known {
    shown: BTreeMap<RelPath, Vec<u8>>,
    past: BTreeSet<Vec<u8>>,
}

/// What a life was to be: what is known when each call returned, and what was sure to last.
#[derive(Debug, Default)]
struct Account {
    known: Known,
    durable: Known,
    /// What the call that is under way may have changed.
    under_way: Option<(RelPath, Option<Vec<u8>>)>,
    n: u64,
}

impl Account {
    fn bring(&mut self, hub: &HubReplica, path: &str, bytes: Option<&[u8]>) -> Result<()> {
        let path = p(path);
        self.n += 1;
        self.under_way = Some((path.clone(), bytes.map(<[u8]>::to_vec)));
        try_bring(hub, &path, self.n, bytes)?;
        self.under_way = None;
        self.known.shown.remove(&path);
        if let Some(bytes) = bytes {
            self.known.shown.insert(path, bytes.to_vec());
            self.known.past.insert(bytes.to_vec());
        }
        Ok(())
    }

    fn barrier(&mut self, hub: &HubReplica) -> Result<()> {
        hub.barrier()?;
        self.durable = self.known.clone();
        Ok(())
    }

    /// The past may go from now on.
    fn collect(&mut self, hub: &HubReplica) -> Result<()> {
        let shown = |known: &Known| known.shown.values().cloned().collect();
        self.known.past = shown(&self.known);
        self.durable.past = shown(&self.durable);
        self.durable.past.retain(|b| self.known.past.contains(b));
        hub.collect().map(drop)
    }

    fn rename(&mut self, hub: &HubReplica, from: &str, to: &str) -> Result<()> {
        let (from, to) = (p(from), p(to));
        let mut entries = Vec::new();
        let mut rows = vec![(from.clone(), hub.row(&from)?.unwrap_or_default())];
        hub.subtree(&from, &mut |path, row| {
            rows.push((path, row));
            ControlFlow::Continue(())
        })?;
        for (path, row) in rows {
            let new = path.rebase(&from, &to).unwrap();
            entries.extend(self.moved(&path, &new, &row));
        }
        hub.rename(&from, &to)?;
        hub.adopt_move(&from, &to, &entries)?;
        let paths: Vec<_> = self.known.shown.keys().cloned().collect();
        for path in paths {
            if let Some(new) = path.rebase(&from, &to) {
                let bytes = self.known.shown.remove(&path).unwrap();
                self.known.shown.insert(new, bytes);
            }
        }
        Ok(())
    }

    /// What the mover's rows say of both ends.
    fn moved(&mut self, path: &RelPath, new: &RelPath, row: &Row) -> Vec<(RelPath, Row)> {
        let Some(was) = row.on_disk().cloned() else {
            return vec![(
                new.clone(),
                Row {
                    entry: Entry::default(),
                    ..row.clone()
                },
            )];
        };
        let tomb = Version {
            kind: Kind::Tomb,
            size: 0,
            mode: 0,
            ..was.clone()
        };
        let mut told = |entry: &Entry, version: Version, is_there: bool| {
            self.n += 1;
            let dot = version_dot(self.n);
            Row {
                entry: entry.record(dot, version),
                shown: Some(dot),
                print: row.print.filter(|_| is_there),
                ..Row::default()
            }
        };
        vec![
            (path.clone(), told(&row.entry, tomb, false)),
            (new.clone(), told(&Entry::default(), was, true)),
        ]
    }
}

fn version_dot(n: u64) -> instep_core::id::Dot {
    version(n, None).0
}

/// A life in which everything happens that a hub does; ends where something fails.
fn live(sim: &Sim, account: &mut Account) -> Result<()> {
    let hub = sim.hub().clone();
    let hub = hub.as_ref();
    let (big, other) = (random(1, 200_000), random(2, 150_000));
    account.bring(hub, "d/small", Some(b"one"))?;
    account.bring(hub, "d/big", Some(&big))?;
    account.barrier(hub)?;
    account.bring(hub, "d/small", Some(b"two"))?;
    account.bring(hub, "d/again", Some(&big))?;
    account.rename(hub, "d", "e")?;
    account.bring(hub, "e/big", Some(&other))?;
    account.bring(hub, "e/again", None)?;
    account.barrier(hub)?;
    sim.env.sleep_ms(40 * DAY_MS);
    hub.purge(i64::MAX)?;
    account.bring(hub, "e/big", None)?;
    sim.env.sleep_ms(40 * DAY_MS);
    hub.purge(i64::MAX)?;
    account.collect(hub)?;
    account.bring(hub, "f", Some(&big))?;
    account.barrier(hub)?;
    hub.close()
}

/// What every row shows is here, and so is what was acknowledged.
fn check(sim: &Sim, known: &Known, may: Option<&(RelPath, Option<Vec<u8>>)>, what: &str) {
    let hub = sim.hub();
    let mut rows = BTreeMap::new();
    hub.subtree(&RelPath::root(), &mut |path, row| {
        rows.insert(path, row);
        ControlFlow::Continue(())
    })
    .unwrap();
    let flaws = hub.verify(&|| false).unwrap().flaws;
    assert!(flaws.is_empty(), "{what}: {flaws:?}");
    check_history(sim, what);
    for (path, bytes) in &known.shown {
        let version = rows.get(path).and_then(Row::present);
        let content = version.map(|v| v.content);
        let under_way = may.filter(|(p, _)| p == path);
        let after = under_way.map(|(_, b)| b.as_deref().map(instep_chunk::content_id));
        let is_so = content == Some(instep_chunk::content_id(bytes)) || Some(content) == after;
        assert!(is_so, "{what}: {path} shows {content:?}");
    }
    for bytes in &known.past {
        let got = read(hub.as_ref(), bytes).unwrap();
        assert!(
            got.as_ref() == Some(bytes),
            "{what}: {} bytes are lost",
            bytes.len()
        );
    }
}

/// Whatever history says was shown can be read.
fn check_history(sim: &Sim, what: &str) {
    let hub = sim.hub();
    for path in [
        "d/small", "d/big", "d/again", "e/small", "e/big", "e/again", "f",
    ] {
        for shown in hub.history(&p(path)).unwrap() {
            let content = shown.version.content;
            if !shown.version.is_tomb() {
                let opened = hub.open(&shown.path, content).unwrap();
                assert!(opened.is_some(), "{what}: {path} once showed {content}");
            }
        }
    }
}

/// The hub still takes changes, and a collection harms nothing.
fn goes_on(sim: &Sim, what: &str) {
    let hub = sim.hub();
    let row = hub.row(&p("d/small")).unwrap().unwrap_or_default();
    let n = 1000 + row.entry.ctx().iter().len() as u64;
    try_bring(hub.as_ref(), &p("after"), n, Some(&random(1, 200_000))).unwrap();
    hub.barrier().unwrap();
    hub.collect().unwrap();
    let verified = hub.verify(&|| false).unwrap();
    assert!(verified.flaws.is_empty(), "{what}: {:?}", verified.flaws);
}

/// How a life ends.
#[derive(Debug, Clone, Copy)]
enum End {
    /// The process dies before this call of the file system.
    Call(u64),
    /// It dies before this call of the rows' store.
    Index(u64),
    /// It dies before this call of the contents' store.
    Contents(u64),
}

impl End {
    fn arrange(self, sim: &Sim) {
        match self {
            Self::Call(at) => {
                let mut left = at;
                sim.fs().set_hook(Box::new(move |fs, _| {
                    left = left.saturating_sub(1);
                    if left == 0 {
                        fs.kill();
                    }
                }));
            }
            Self::Index(at) => sim.index.fail_after(at),
            Self::Contents(at) => sim.contents.fail_after(at),
        }
    }
}

fn die(end: End) -> bool {
    let mut sim = Sim::new(SimConfig::ext4(1));
    let mut account = Account::default();
    end.arrange(&sim);
    let ended = live(&sim, &mut account).is_err();
    sim.fs().clear_hook();
    sim.index.heal();
    sim.contents.heal();
    sim.kill();
    let what = format!("{end:?}");
    if account.under_way.is_some() || ended {
        check(
            &sim,
            &account.durable_or_known(),
            account.under_way.as_ref(),
            &what,
        );
    }
    goes_on(&sim, &what);
    ended
}

impl Account {
    /// A death takes nothing that was acknowledged; a rename that was under way may be at either end.
    fn durable_or_known(&self) -> Known {
        self.known.clone()
    }
}

#[test]
fn a_death_between_two_calls_loses_something() {
    let mut deaths = 0;
    for make in [End::Call as fn(u64) -> End, End::Index, End::Contents] {
        let mut at = 1;
        while die(make(at)) {
            deaths += 1;
            at += 1 + at / 40;
        }
    }
    assert!(deaths > 100, "{deaths}");
}

#[test]
fn a_power_cut_leaves_rows_without_their_contents() {
    let mut cuts = 0;
    for (seed, config) in [
        SimConfig::adversarial(1),
        SimConfig::ext4(2),
        SimConfig::btrfs(3),
    ]
    .into_iter()
    .enumerate()
    {
        let mut at = 1;
        loop {
            let mut sim = Sim::new(config.clone());
            let mut account = Account::default();
            sim.fs().crash_after(at);
            let ended = live(&sim, &mut account).is_err();
            sim.power_cut(at * 31 + seed as u64);
            let what = format!("cut before call {at} on file system {seed}");
            check(&sim, &account.sure(), account.under_way.as_ref(), &what);
            goes_on(&sim, &what);
            if !ended {
                break;
            }
            cuts += 1;
            at += 1 + at / 20;
        }
    }
    assert!(cuts > 100, "{cuts}");
}

#[test]
fn a_flush_that_failed_is_forgotten() {
    const EIO: i32 = 5;
    for (op, size) in [("sync_data", 1000), ("sync", 1000), ("sync_fs", 9_000_000)] {
        let mut sim = Sim::new(SimConfig::ext4(1));
        let mut account = Account::default();
        account
            .bring(sim.hub(), "a", Some(&random(1, size)))
            .unwrap();
        sim.fs().fail_next(op, 1, EIO);
        assert!(sim.hub().barrier().is_err(), "{op}");
        assert!(sim.hub().barrier().is_err(), "the next {op} did not fail");
        assert!(sim.hub().guard().is_err(), "nobody is told");
        sim.kill();
        sim.hub().guard().unwrap();
        check(&sim, &account.known, None, op);
        goes_on(&sim, op);
        sim.power_cut(3);
        check(&sim, &account.known, None, op);
    }
}

impl Account {
    /// What a power cut may not take: what was sure to last. What a path showed then may have changed since.
    fn sure(&self) -> Known {
        let mut sure = self.durable.clone();
        sure.shown
            .retain(|path, bytes| self.known.shown.get(path) == Some(bytes));
        sure
    }
}
