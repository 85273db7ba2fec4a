//! Disks in memory that remember what was written since the last flush, so that a power cut may take it.
//!
//! Owns the blocks of each disk: what is durable, and a log of what is not. Invariant: a cut keeps everything before the
//! last flush, and any part of the rest, down to single sectors. Blocks that were never written are zero and take no
//! room. A disk is a file in the only directory; the loop device on it turns block flushes into `fsync`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use instep_testkit::prng::Prng;
use rustix::io::Errno;

use super::Answers;
use super::wire::{Attr, Op, Out, Reply, Request};

const PAGE: usize = 4096;
const SECTOR: usize = 512;

type Page = Arc<[u8; PAGE]>;
type Pages = BTreeMap<u64, Page>;

/// One disk.
#[derive(Debug, Clone, Default)]
struct Disk {
    size: u64,
    /// As it is read.
    now: Pages,
    /// As it was at the last flush.
    durable: Pages,
    /// What was written since, in order.
    log: Vec<(u64, Vec<u8>)>,
}

fn put(pages: &mut Pages, mut at: u64, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let (page, from) = (at / PAGE as u64, (at % PAGE as u64) as usize);
        let len = bytes.len().min(PAGE - from);
        // What was never written is zero already: an XFS log of zeros takes no room.
        let nothing = !pages.contains_key(&page) && bytes[..len].iter().all(|b| *b == 0);
        if !nothing {
            write_page(pages, page, from, &bytes[..len]);
        }
        at += len as u64;
        bytes = &bytes[len..];
    }
}

fn write_page(pages: &mut Pages, page: u64, from: usize, bytes: &[u8]) {
    let whole = pages.entry(page).or_insert_with(|| Arc::new([0; PAGE]));
    Arc::make_mut(whole)[from..from + bytes.len()].copy_from_slice(bytes);
}

impl Disk {
    fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let len = len.min(self.size.saturating_sub(at) as usize);
        let mut out = vec![0; len];
        let mut done = 0;
        while done < len {
            let here = at + done as u64;
            let (page, from) = (here / PAGE as u64, (here % PAGE as u64) as usize);
            let part = (len - done).min(PAGE - from);
            if let Some(page) = self.now.get(&page) {
                out[done..done + part].copy_from_slice(&page[from..from + part]);
            }
            done += part;
        }
        out
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        put(&mut self.now, at, bytes);
        self.log.push((at, bytes.to_vec()));
    }

    fn flush(&mut self) {
        // Only what was written: there are many flushes, and many pages.
        for (at, bytes) in self.log.drain(..) {
            let pages = at / PAGE as u64..(at + bytes.len() as u64).div_ceil(PAGE as u64);
            for page in pages {
                if let Some(now) = self.now.get(&page) {
                    self.durable.insert(page, Arc::clone(now));
                }
            }
        }
    }

    /// What a power cut leaves now.
    fn cut(&self, prng: &mut Prng) -> Self {
        let mut pages = self.durable.clone();
        // How much of the rest came through differs from cut to cut.
        let (kept, of) = (prng.below(5), 4);
        for (at, bytes) in &self.log {
            let torn = prng.chance(1, 8);
            for (i, sector) in bytes.chunks(SECTOR).enumerate() {
                let whole = i == 0 || torn;
                // One decision for the whole write, unless it is torn.
                if whole && !prng.chance(kept, of) {
                    if torn {
                        continue;
                    }
                    break;
                }
                put(&mut pages, at + (i * SECTOR) as u64, sector);
            }
        }
        Self {
            size: self.size,
            now: pages.clone(),
            durable: pages,
            log: Vec::new(),
        }
    }
}

/// All disks of a trial, each a file with a number for a name.
#[derive(Debug, Default)]
pub struct Disks {
    all: Mutex<BTreeMap<u64, Disk>>,
}

const ROOT: u64 = 1;

impl Disks {
    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, Disk>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, disk: Disk) -> u64 {
        let mut all = self.all();
        let number = all.keys().last().map_or(ROOT, |last| *last) + 1;
        all.insert(number, disk);
        number
    }

    /// A new one of so many MiB; its name.
    pub fn make(&self, mib: u64) -> String {
        let size = mib << 20;
        self.add(Disk {
            size,
            ..Disk::default()
        })
        .to_string()
    }

    /// What a power cut leaves of a disk, as another disk.
    pub fn cut(&self, name: &str, prng: &mut Prng) -> Option<String> {
        let cut = self.all().get(&name.parse().ok()?)?.cut(prng);
        Some(self.add(cut).to_string())
    }

    /// The same as another disk.
    pub fn copy(&self, name: &str) -> Option<String> {
        let disk = self.all().get(&name.parse().ok()?)?.clone();
        Some(self.add(disk).to_string())
    }

    /// Forgets one.
    pub fn remove(&self, name: &str) {
        if let Ok(number) = name.parse() {
            self.all().remove(&number);
        }
    }

    fn attr(&self, node: u64) -> Result<Attr, Errno> {
        let size = match self.all().get(&node) {
            Some(disk) => disk.size,
            None if node == ROOT => 0,
            None => return Err(Errno::NOENT),
        };
        let mode = if node == ROOT { 0o040_755 } else { 0o100_600 };
        Ok(Attr {
            ino: node,
            size,
            mode,
            nlink: 1,
            owner: (0, 0),
            times: [(1, 0); 3],
        })
    }

    fn act(&self, request: &Request<'_>) -> Result<Reply, Errno> {
        let node = request.node;
        match request.op {
            Op::Init => Ok(Reply::init()),
            Op::Lookup => {
                let names = request.names(0);
                let name = names.first().and_then(|n| std::str::from_utf8(n).ok());
                let number = name.and_then(|n| n.parse().ok()).ok_or(Errno::NOENT)?;
                Ok(Out::entry(&self.attr(number)?, false))
            }
            Op::Getattr | Op::Setattr => Ok(Out::attributes(&self.attr(node)?)),
            Op::Open => Ok(Reply::open(node != ROOT)),
            Op::Read => {
                let (at, len) = (request.u64(8), request.u32(16) as usize);
                let all = self.all();
                let disk = all.get(&node).ok_or(Errno::NOENT)?;
                Ok(Reply::of(disk.read(at, len)))
            }
            Op::Write => {
                let bytes = request.rest(40);
                let mut all = self.all();
                let disk = all.get_mut(&node).ok_or(Errno::NOENT)?;
                disk.write(request.u64(8), bytes);
                Ok(Reply::written(bytes.len()))
            }
            Op::Fsync => {
                if let Some(disk) = self.all().get_mut(&node) {
                    disk.flush();
                }
                Ok(Reply::done())
            }
            Op::Statfs => Ok(Reply::statfs(1 << 18, 1 << 18)),
            Op::Readdir => Ok(Out::default().listing()),
            Op::Flush | Op::Release | Op::Fsyncdir => Ok(Reply::done()),
            _ => Err(Errno::NOSYS),
        }
    }
}

impl Answers for Disks {
    fn answer(&self, request: &Request<'_>) -> Option<Reply> {
        if request.op == Op::Silent {
            return None;
        }
        Some(self.act(request).unwrap_or_else(Reply::error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_takes_what_was_flushed_or_leaves_all_of_the_rest() {
        let mut disk = Disk {
            size: 1 << 20,
            ..Disk::default()
        };
        disk.write(5000, &[1; 10_000]);
        disk.flush();
        for i in 0..50 {
            disk.write(100_000 + i * 4096, &[2; 4096]);
        }
        let mut whole = 0;
        for seed in 0..20 {
            let cut = disk.cut(&mut Prng::new(seed));
            assert_eq!(cut.read(5000, 10_000), [1; 10_000]);
            let kept = (0..50).filter(|i| cut.read(100_000 + i * 4096, 4096) == [2; 4096]);
            whole += kept.count();
        }
        assert!((100..900).contains(&whole), "{whole} of 1000 writes");
    }
}
