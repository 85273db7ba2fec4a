//! What a hub showed once: reachable until retention takes it, and no longer.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};

use instep_chunk::content_id;
use instep_core::plan::{Action, Keep, Outcome};
use instep_hub::{Collected, HubReplica};
use instep_replica::content::Bytes;
use instep_replica::env::Env;
use instep_replica::{Content, Replica};

use support::real::{Real, copy};
use support::{Given, action, bring, p, random, read};

const DAY_MS: u64 = 24 * 3600 * 1000;

#[test]
fn a_version_is_lost_when_the_trash_is_emptied() {
    let real = Real::new();
    let hub = real.hub();
    let versions: Vec<_> = (0..6).map(|n| random(n, 90_000)).collect();
    for (n, bytes) in versions.iter().enumerate() {
        bring(hub.as_ref(), &p("d/a"), 1 + n as u64, Some(bytes));
    }
    bring(hub.as_ref(), &p("d/a"), 9, None);
    assert_eq!(hub.purge(i64::MAX).unwrap(), 6);
    let collected = hub.collect().unwrap();
    assert_eq!(collected, Collected::default(), "something was given up");
    let history = hub.history(&p("d/a")).unwrap();
    let shown: Vec<_> = history.iter().map(|s| s.version.content).collect();
    let mut want: Vec<_> = versions.iter().map(|b| content_id(b)).collect();
    // The end of the last one says which content it removed.
    want.push(*want.last().unwrap());
    assert_eq!(shown, want);
    assert!(history.last().unwrap().version.is_tomb());
    assert!(history.is_sorted_by_key(|s| s.at_ns));
    assert_eq!(history[3].dot.counter, 4, "who made it");
    for bytes in versions {
        assert_eq!(read(hub.as_ref(), &bytes).unwrap(), Some(bytes));
    }
    assert!(hub.history(&p("d")).unwrap().is_empty(), "of another path");
}

#[test]
fn old_versions_fill_the_disk() {
    let real = Real::new();
    let hub = real.hub();
    let versions: Vec<_> = (0..6).map(|n| random(n, 90_000)).collect();
    for (n, bytes) in versions.iter().enumerate() {
        bring(hub.as_ref(), &p("a"), 1 + n as u64, Some(bytes));
        bring(
            hub.as_ref(),
            &p("gone"),
            11 + n as u64,
            Some(&random(50 + n as u64, 70_000)),
        );
    }
    bring(hub.as_ref(), &p("gone"), 20, None);
    hub.barrier().unwrap();
    let before = real.chunk_bytes();
    real.env.sleep_ms(31 * DAY_MS);
    hub.purge(i64::MAX).unwrap();
    let collected = hub.collect().unwrap();
    assert_eq!((collected.versions, collected.contents), (2 + 7, 2 + 6));
    assert_eq!(before - real.chunk_bytes(), collected.bytes);
    let kept = real.chunk_bytes();
    assert!((360_000..362_000).contains(&kept), "{kept} bytes are left");
    for (n, bytes) in versions.iter().enumerate() {
        let there = read(hub.as_ref(), bytes).unwrap().is_some();
        assert_eq!(there, n >= 2, "the last three stay, and what is shown");
    }
    assert!(hub.history(&p("gone")).unwrap().is_empty());
    assert!(hub.verify(&|| false).unwrap().flaws.is_empty());
    assert_eq!(hub.collect().unwrap(), Collected::default());
}

#[test]
fn the_loser_of_an_open_conflict_is_collected() {
    let real = Real::new();
    let hub = real.hub();
    let (ours, theirs) = (random(1, 90_000), random(2, 90_000));
    bring(hub.as_ref(), &p("a"), 1, Some(&ours));
    let loser = hub.row(&p("a")).unwrap().unwrap().shown.unwrap();
    let winning = Action {
        keep: Keep::Version(loser),
        ..action(hub.as_ref(), &p("a"), 2, Some(&theirs))
    };
    let given = Given([(content_id(&theirs), theirs.clone())].into());
    assert_eq!(hub.apply(&[winning], &given).unwrap(), [Outcome::Done]);
    // Five more, so that it is not among the last either.
    for n in 3..8 {
        bring(hub.as_ref(), &p("a"), n, Some(&random(n, 1000)));
    }
    real.env.sleep_ms(400 * DAY_MS);
    hub.purge(i64::MAX).unwrap();
    let collected = hub.collect().unwrap();
    assert!(collected.versions >= 2, "{collected:?}");
    assert_eq!(read(hub.as_ref(), &theirs).unwrap(), None);
    assert_eq!(read(hub.as_ref(), &ours).unwrap(), Some(ours));
}

#[test]
fn what_is_staged_is_collected() {
    let mut real = Real::new();
    let bytes = random(1, 200_000);
    let id = content_id(&bytes);
    let outcome = real.hub().stage(&p("a"), id, &mut Bytes(bytes.clone()));
    assert_eq!(outcome.unwrap(), Outcome::Done);
    assert_eq!(real.hub().collect().unwrap(), Collected::default());
    assert_eq!(read(real.hub().as_ref(), &bytes).unwrap(), Some(bytes));
    // Nobody remembers what for.
    real.hub().close().unwrap();
    real.open();
    let collected = real.hub().collect().unwrap();
    assert_eq!((collected.contents, real.chunk_bytes()), (1, 0));
}

/// A source that lets a collection run when half of it was read.
struct Meanwhile<'a> {
    hub: &'a HubReplica,
    bytes: Vec<u8>,
    collected: Option<Collected>,
}

impl Content for Meanwhile<'_> {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
        if offset as usize >= self.bytes.len() && self.collected.is_none() {
            self.collected = Some(self.hub.collect().unwrap());
        }
        Bytes(self.bytes.clone()).read_at(offset, buf)
    }
}

/// A content comes that is made of chunks that nothing refers to, while these are collected.
#[test]
fn a_collection_takes_the_chunks_of_what_is_just_coming() {
    let real = Real::new();
    let hub = real.hub();
    let old = random(1, 4_000_000);
    bring(hub.as_ref(), &p("a"), 1, Some(&old));
    bring(hub.as_ref(), &p("a"), 2, None);
    real.env.sleep_ms(31 * DAY_MS);
    hub.purge(i64::MAX).unwrap();
    let mut coming = Meanwhile {
        hub,
        bytes: old[..3_000_000].to_vec(),
        collected: None,
    };
    let new = content_id(&coming.bytes);
    let staged = hub.stage(&p("b"), new, &mut coming);
    assert_eq!(staged.unwrap(), Outcome::Done);
    let collected = coming.collected.unwrap();
    assert_eq!(collected.contents, 1, "there was nothing to be collected");
    assert!(
        collected.bytes > 500_000,
        "not what it needs: {collected:?}"
    );
    assert_eq!(
        read(hub.as_ref(), &coming.bytes).unwrap(),
        Some(coming.bytes)
    );
}

/// Says that it is over, also when a test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// The same again and again, at any moment.
#[test]
fn a_collection_that_never_ends_harms_what_comes() {
    let real = Real::new();
    let hub = real.hub();
    let base = random(1, 1_000_000);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                hub.collect().unwrap();
            }
        });
        let _ends = Ends(&done);
        for n in 0..20 {
            let bytes = &base[..500_000 + n * 20_000];
            let staged = hub.stage(&p("a"), content_id(bytes), &mut Bytes(bytes.to_vec()));
            assert_eq!(staged.unwrap(), Outcome::Done);
            let got = read(hub.as_ref(), bytes).unwrap();
            assert!(got.as_deref() == Some(bytes), "{n} lost something");
            bring(hub.as_ref(), &p("a"), 2 * n as u64 + 1, Some(bytes));
            bring(hub.as_ref(), &p("a"), 2 * n as u64 + 2, None);
            hub.purge(i64::MAX).unwrap();
            real.env.sleep_ms(31 * DAY_MS);
        }
    });
    assert!(hub.verify(&|| false).unwrap().flaws.is_empty());
}

#[test]
fn a_hub_that_lost_its_memory_collects_what_it_forgot() {
    let mut real = Real::new();
    let bytes = random(1, 200_000);
    real.hub().close().unwrap();
    real.kill();
    let yesterday = real.scratch.path().join("yesterday");
    copy(&real.home(), &yesterday);
    real.open();
    bring(real.hub().as_ref(), &p("a"), 1, Some(&bytes));
    real.hub().close().unwrap();
    real.kill();
    std::fs::copy(yesterday.join("index.db"), real.home().join("index.db")).unwrap();
    real.open();
    assert!(real.hub().is_rejoining());
    real.env.sleep_ms(100 * DAY_MS);
    assert_eq!(real.hub().collect().unwrap(), Collected::default());
    assert_eq!(read(real.hub().as_ref(), &bytes).unwrap(), Some(bytes));
}
