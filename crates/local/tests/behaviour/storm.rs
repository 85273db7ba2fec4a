//! Many deaths, one after the other, with a user and another replica between them: bytes that nobody wrote are never
//! minted, what a user had made durable is kept, and rows tell of what is there.

use std::collections::{BTreeMap, BTreeSet};

use instep_chunk::content_id;
use instep_core::id::ContentId;
use instep_core::path::RelPath;
use instep_core::version::{Kind, Version};
use instep_fs::sim::{Save, SimConfig};
use instep_replica::Replica as _;
use instep_replica::content::Bytes;

use super::acts::{Given, OTHER, incoming, observe, row};
use crate::support::p;
use crate::support::sim::Sim;

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n
    }
}

struct Storm {
    sim: Sim,
    rng: Rng,
    paths: [RelPath; 4],
    /// What anybody wrote.
    known: BTreeMap<ContentId, Vec<u8>>,
    /// What a user saved last, durably, where they did not remove it.
    mine: BTreeMap<RelPath, Vec<u8>>,
    written: u64,
}

impl Storm {
    fn new(seed: u64) -> Self {
        let weak = SimConfig {
            exchange: false,
            leases: false,
            unnamed_files: false,
            ..SimConfig::adversarial(seed)
        };
        let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let config = match rng.below(5) {
            0 => SimConfig::ext4(seed),
            1 => SimConfig::xfs(seed),
            2 => SimConfig::btrfs(seed),
            3 => SimConfig::adversarial(seed),
            _ => weak,
        };
        Self {
            sim: Sim::new(config),
            rng,
            paths: ["f", "g", "d/f", "d/e/h"].map(p),
            known: BTreeMap::new(),
            mine: BTreeMap::new(),
            written: 0,
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        self.written += 1;
        let text = format!("content {} ", self.written).into_bytes();
        let len = [100, 3003, 80_000][self.rng.below(3)];
        let bytes: Vec<u8> = text.into_iter().cycle().take(len).collect();
        self.known.insert(content_id(&bytes), bytes.clone());
        bytes
    }

    fn rest(&self) {
        let fs = self.sim.fs();
        observe(self.sim.replica(), &|ms| {
            fs.advance(ms.cast_signed() * 1_000_000);
        });
    }

    fn power_cut(&mut self) {
        self.sim.power_cut(self.rng.below(1000) as u64);
        self.written += 1;
        let later = self.written.cast_signed() * 10_000_000_000;
        self.sim.fs().advance(later);
    }

    /// A user saves, and waits until it is durable.
    fn save(&mut self, path: &RelPath) {
        let (fs, bytes) = (self.sim.fs(), self.bytes());
        let dirs: Vec<RelPath> = std::iter::successors(path.parent(), RelPath::parent).collect();
        let into = dirs.first().filter(|d| !d.is_root());
        let made = into.map_or(Ok(()), |dir| fs.mkdir_all(dir.as_bytes()));
        let saved = made.and_then(|()| fs.write_file(path.as_bytes(), &bytes, Save::ByRename));
        if saved.is_err() {
            return;
        }
        fs.user_sync(path.as_bytes()).unwrap();
        for dir in dirs {
            fs.user_sync(dir.as_bytes()).unwrap();
        }
        self.mine.insert(path.clone(), bytes);
    }

    /// Another's version comes, or its deletion; now and then there is a death on the way.
    fn bring(&mut self, path: &RelPath) {
        let bytes = (self.rng.below(4) != 0).then(|| self.bytes());
        let known = row(self.sim.replica(), path);
        if known.is_dir() || (bytes.is_none() && known.print.is_none()) {
            return;
        }
        self.written += 1;
        let action = incoming(self.sim.replica(), path, bytes.as_deref(), self.written);
        if let Some(bytes) = bytes.filter(|_| self.rng.below(3) == 0) {
            let id = content_id(&bytes);
            let _staged = self.sim.replica().stage(path, id, &mut Bytes(bytes));
        }
        let (dies, power) = (self.rng.below(4) == 0, self.rng.below(2) == 0);
        let (disk, mut left) = (self.sim.disk.clone(), 1 + self.rng.below(30));
        if dies {
            self.sim.fs().set_hook(Box::new(move |fs, _| {
                left = left.saturating_sub(1);
                if left == 0 {
                    disk.kill();
                    if power { fs.crash_after(1) } else { fs.kill() }
                }
            }));
        }
        let all: Vec<&[u8]> = self.known.values().map(Vec::as_slice).collect();
        let _dead = self.sim.replica().apply(&[action], &Given::of(&all));
        self.sim.fs().clear_hook();
        match dies {
            true if power => self.power_cut(),
            true => self.sim.kill(),
            false => {}
        }
    }

    fn step(&mut self) {
        let path = self.paths[self.rng.below(4)].clone();
        match self.rng.below(14) {
            0..=2 => self.save(&path),
            3 if self.sim.fs().remove(path.as_bytes()).is_ok() => {
                self.mine.remove(&path);
            }
            3..=7 => self.bring(&path),
            8 => self.rest(),
            9 => {
                if self.rng.below(3) == 0 {
                    self.sim.fs().fail_next("sync_fs", 1, 5);
                }
                let _lost = self.sim.replica().barrier();
                self.sim.fs().clear_faults();
            }
            10 => self.sim.kill(),
            11 | 12 => self.power_cut(),
            _ => {
                self.sim.replica().close().unwrap();
                self.sim.open();
            }
        }
    }

    /// Content that is minted was written by somebody, or is what is left where there is nothing.
    fn check_minted(&self, seed: u64) {
        let zeros = |v: &Version| content_id(&vec![0; v.size as usize]) == v.content;
        for path in &self.paths {
            let row = row(self.sim.replica(), path);
            let files = row.entry.siblings().iter();
            let mut minted = files.filter(|(d, v)| d.actor != OTHER && v.kind == Kind::File);
            let invented = minted.find(|(_, v)| !self.known.contains_key(&v.content) && !zeros(v));
            assert!(invented.is_none(), "seed {seed}: {path}: {invented:?}");
        }
    }

    fn check_end(&self, seed: u64) {
        let there = self.sim.fs().snapshot();
        let ids: BTreeSet<ContentId> = there.values().map(|v| content_id(&v.content)).collect();
        for path in &self.paths {
            let row = row(self.sim.replica(), path);
            let says = row.present().filter(|v| v.kind == Kind::File);
            let seen = there.get(path);
            let seen = seen.filter(|v| v.kind == instep_fs::Kind::File);
            let seen = seen.map(|v| content_id(&v.content));
            assert_eq!(
                says.map(|v| v.content),
                seen,
                "seed {seed}: {path}: {row:?}"
            );
        }
        for (path, bytes) in &self.mine {
            let id = content_id(bytes);
            let kept = || self.sim.replica().open(path, id).unwrap().is_some();
            assert!(ids.contains(&id) || kept(), "seed {seed}: {path} is lost");
        }
    }
}

#[test]
fn several_deaths_in_a_row_lose_or_invent_something() {
    for seed in 1..600 {
        let mut storm = Storm::new(seed);
        for _ in 0..6 + storm.rng.below(20) {
            storm.step();
            storm.check_minted(seed);
        }
        storm.rest();
        storm.check_minted(seed);
        storm.check_end(seed);
    }
}
