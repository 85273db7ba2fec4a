//! The replica's index in use: the store, and what must be kept in memory with it.
//!
//! Owns counters, the hybrid clock, the epoch, the sums and the directory digests. Invariant: a dot leaves
//! [`Index::mint`] only after the block that its counter lies in is durable.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use instep_core::codec::{self, Reader};
use instep_core::id::{ActorId, Dot};
use instep_core::limits::COUNTER_BLOCK;
use instep_core::path::{Name, RelPath};
use instep_core::row::Row;
use instep_core::time::{self, Hlc};
use instep_replica::env::Env;
use instep_replica::error::{Error, ErrorKind};
use instep_replica::{Step, Totals};
use instep_store::{Durability, IndexStore, StoreError, Table};

use crate::lately::Lately;
use crate::print::{Digest, hash_bytes};

type Result<T> = core::result::Result<T, Error>;

const KEY_ACTOR: &[u8] = b"actor";
const KEY_FORMER: &[u8] = b"former";
const KEY_COUNTER: &[u8] = b"counter";
const KEY_CLOCK: &[u8] = b"clock";
const KEY_EPOCH: &[u8] = b"epoch";
const KEY_REJOINING: &[u8] = b"rejoining";
const KEY_TOTALS: &[u8] = b"totals";

/// What a store's failure means to the session.
pub fn store_error(attempt: &str, e: StoreError) -> Error {
    let kind = match e.kind() {
        instep_store::ErrorKind::Corrupt => ErrorKind::Damaged,
        instep_store::ErrorKind::Newer => ErrorKind::NewerFormat,
        instep_store::ErrorKind::NoSpace => ErrorKind::NoSpace,
        instep_store::ErrorKind::ReadOnly => ErrorKind::ReadOnly,
        _ => ErrorKind::Other,
    };
    Error::because(kind, attempt.to_owned(), e)
}

/// The index in use.
pub struct Index {
    store: Box<dyn IndexStore>,
    actor: ActorId,
    counter: u64,
    reserved: u64,
    clock: Hlc,
    epoch: u32,
    durable_epoch: u32,
    lately: Lately,
    totals: Totals,
    digests: HashMap<RelPath, Digest>,
    /// Directories whose digest in memory is ahead of the store's.
    redigested: HashSet<RelPath>,
    /// Directories in which what is said to be on disk has changed since [`Index::take_reworked`].
    reworked: HashSet<RelPath>,
    touched: bool,
    /// Who is told of steps, if anybody.
    env: Option<Arc<dyn Env>>,
    block: u64,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index")
            .field("actor", &self.actor)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// A number that was written down, zero if none was. One that cannot be read, or is so great that it was never
/// counted up to, is damage: to begin again at zero would use dots twice.
fn number(bytes: Option<Vec<u8>>, max: u64) -> Result<u64> {
    let Some(bytes) = bytes else { return Ok(0) };
    let read = Reader::new(&bytes).u64().ok().filter(|n| *n <= max);
    read.ok_or_else(|| Error::new(ErrorKind::Damaged, "read a number of the index"))
}

fn number_bytes(n: u64) -> Vec<u8> {
    let mut out = Vec::new();
    codec::put_u64(&mut out, n);
    out
}

impl Index {
    /// Takes a store into use. A store without an actor gets `fresh`.
    pub fn open(mut store: Box<dyn IndexStore>, fresh: ActorId) -> Result<Self> {
        let read = |store: &mut Box<dyn IndexStore>, key: &[u8]| {
            store
                .record(Table::Meta, key)
                .map_err(|e| store_error("read the index", e))
        };
        let actor = match read(&mut store, KEY_ACTOR)?.and_then(|b| <[u8; 8]>::try_from(b).ok()) {
            Some(id) => ActorId(id),
            None => {
                store
                    .put_record(Table::Meta, KEY_ACTOR, &fresh.0)
                    .map_err(|e| store_error("write the index", e))?;
                fresh
            }
        };
        let reserved = number(read(&mut store, KEY_COUNTER)?, u64::MAX / 2)?;
        let clock = number(read(&mut store, KEY_CLOCK)?, i64::MAX as u64)? as i64;
        let durable_epoch = number(read(&mut store, KEY_EPOCH)?, u64::from(u32::MAX / 2))? as u32;
        let totals = totals_from(read(&mut store, KEY_TOTALS)?);
        let lately = Lately::read(store.as_mut())?;
        let mut digests = HashMap::new();
        store
            .digests(&mut |dir, bytes| {
                digests.insert(dir, Digest::from_bytes(bytes));
            })
            .map_err(|e| store_error("read the index", e))?;
        Ok(Self {
            store,
            actor,
            counter: reserved,
            reserved,
            clock,
            epoch: durable_epoch + 1,
            durable_epoch,
            lately,
            totals,
            digests,
            redigested: HashSet::new(),
            reworked: HashSet::new(),
            touched: false,
            env: None,
            block: COUNTER_BLOCK,
        })
    }

    /// Tells an environment of its steps from now on.
    pub fn tell(&mut self, env: &Arc<dyn Env>) {
        self.env = Some(Arc::clone(env));
    }

    fn reach(&self, step: Step) {
        if let Some(env) = &self.env {
            env.reach(step);
        }
    }

    /// From now on so many counters are reserved at a time, at least one: fewer mean more durable writes.
    #[must_use]
    pub fn with_blocks_of(mut self, counters: u64) -> Self {
        self.block = counters.max(1);
        self
    }

    /// The actor that mints here.
    pub fn actor(&self) -> ActorId {
        self.actor
    }

    /// Whether this actor minted here: the present one, or one before the last power cuts.
    pub(crate) fn has_minted_as(&mut self, actor: ActorId) -> Result<bool> {
        Ok(actor == self.actor || self.former()?.contains(&actor.0))
    }

    fn former(&mut self) -> Result<Vec<[u8; 8]>> {
        let former = self.meta(KEY_FORMER)?.unwrap_or_default();
        Ok(former.as_chunks().0.to_vec())
    }

    /// As [`Index::renew`], on the same disk: who minted until now is remembered.
    pub(crate) fn succeed(&mut self, actor: ActorId) -> Result<()> {
        // So many power cuts without a whole recovery between them.
        const FORMER_MAX: usize = 8;
        let mut former = self.former()?;
        former.insert(0, self.actor.0);
        former.truncate(FORMER_MAX);
        self.put_meta(KEY_FORMER, former.as_flattened())?;
        self.renew(actor)
    }

    /// Starts a new stretch of history: another actor, counting from one.
    pub fn renew(&mut self, actor: ActorId) -> Result<()> {
        self.actor = actor;
        self.counter = 0;
        self.reserved = 0;
        self.put_meta(KEY_ACTOR, &actor.0)?;
        self.put_meta(KEY_COUNTER, &number_bytes(0))?;
        self.commit(Durability::Power)
    }

    /// The highest counter that may have been used.
    pub fn high_water(&self) -> u64 {
        self.reserved
    }

    /// The epoch that is open now.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The last epoch known to have survived.
    pub fn durable_epoch(&self) -> u32 {
        self.durable_epoch
    }

    /// What was at paths since the last barrier, and their versions do not remember.
    pub(crate) fn lately(&self) -> &Lately {
        &self.lately
    }

    /// Sums over what is materialised.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Whether anything was written since the last barrier.
    pub fn needs_barrier(&self) -> bool {
        self.touched
    }

    /// Whoever wrote before died without a barrier: the next one is also for that.
    pub fn inherit_unsettled(&mut self) {
        self.touched = true;
    }

    /// Makes sure that `count` dots can be minted without another durable write.
    pub fn reserve(&mut self, count: u64) -> Result<()> {
        if self.counter + count <= self.reserved {
            return Ok(());
        }
        // What is pending belongs to the disk as it is; committing it together with the block is right.
        let upto = self.counter + count.div_ceil(self.block) * self.block;
        self.put_meta(KEY_COUNTER, &number_bytes(upto))?;
        self.commit(Durability::Power)?;
        self.reserved = upto;
        self.reach(Step::Counters);
        Ok(())
    }

    /// The next dot.
    pub fn mint(&mut self) -> Result<Dot> {
        self.reserve(1)?;
        self.counter += 1;
        Ok(Dot {
            actor: self.actor,
            counter: self.counter,
        })
    }

    /// The next instant of the clock.
    pub fn now(&mut self, wall_ns: i64) -> Hlc {
        self.clock = time::tick(self.clock, wall_ns);
        self.clock
    }

    /// Hears of a remote instant.
    pub fn heard(&mut self, remote: Hlc, wall_ns: i64) {
        self.clock = time::adopt(self.clock, remote, wall_ns);
    }

    /// The row at a path.
    pub fn get(&mut self, path: &RelPath) -> Result<Option<Row>> {
        self.store
            .get(path)
            .map_err(|e| store_error("read the index", e))
    }

    /// The rows directly in a directory, by name.
    pub fn children(&mut self, dir: &RelPath, visit: &mut dyn FnMut(Name<'_>, Row)) -> Result<()> {
        self.store
            .children(dir, visit)
            .map_err(|e| store_error("read the index", e))
    }

    /// The store itself, for what needs no bookkeeping.
    pub fn store(&mut self) -> &mut dyn IndexStore {
        self.store.as_mut()
    }

    /// Writes a row, with the sums and the digest of its directory. `old` is the row it replaces.
    pub fn put(&mut self, path: &RelPath, old: Option<&Row>, row: &Row) -> Result<()> {
        self.account(old, false);
        self.account(Some(row), true);
        self.redigest(path, old, Some(row));
        self.touched = true;
        let open = old.filter(|r| r.epoch > self.durable_epoch);
        let versions = open.and_then(Row::on_disk).zip(row.on_disk());
        if let Some((was, now)) = versions.filter(|(was, now)| was.content != now.content) {
            let at_ns = self.env.as_ref().map_or(i64::MAX, |env| env.wall_ns());
            let store = self.store.as_mut();
            self.lately.note(store, path, was, now, at_ns)?;
        }
        let result = if row.entry.is_empty() && row.print.is_none() && row.held.is_none() {
            self.store.remove(path)
        } else {
            self.store.put(path, row)
        };
        result.map_err(|e| store_error("write the index", e))
    }

    fn account(&mut self, row: Option<&Row>, add: bool) {
        let Some(v) = row.and_then(|r| r.present()) else {
            return;
        };
        if add {
            self.totals.add(v.kind, v.size);
        } else {
            self.totals.remove(v.kind, v.size);
        }
    }

    /// A digest stays right when one name in it changes; where there was none there is none.
    fn redigest(&mut self, path: &RelPath, old: Option<&Row>, new: Option<&Row>) {
        let prints = |r: Option<&Row>| r.and_then(|r| r.print).map(|p| p.hash);
        let (before, after) = (prints(old), prints(new));
        if before == after {
            return;
        }
        let Some((dir, name)) = path.split() else {
            return;
        };
        self.reworked.insert(dir.clone());
        let Some(digest) = self.digests.get_mut(&dir) else {
            return;
        };
        if let Some(p) = before {
            digest.remove(name.as_bytes(), p);
        }
        if let Some(p) = after {
            digest.add(name.as_bytes(), p);
        }
        self.redigested.insert(dir);
    }

    /// The digest of a directory as of when it was last known to be recorded completely.
    pub fn digest(&self, dir: &RelPath) -> Option<Digest> {
        self.digests.get(dir).copied()
    }

    /// The directories at or below a path that have a digest.
    pub fn digest_dirs(&self, below: &RelPath) -> Vec<RelPath> {
        self.digests
            .keys()
            .filter(|d| d.is_within(below))
            .cloned()
            .collect()
    }

    /// One of the directories that have a digest: another for another seed, each for some seed.
    pub fn some_dir(&self, seed: u64) -> Option<RelPath> {
        // The least of all does not depend on the order in which the table has them.
        let rank = |d: &&RelPath| (hash_bytes(d.as_bytes(), seed), d.as_bytes().len());
        self.digests.keys().min_by_key(rank).cloned()
    }

    /// Sets or forgets a directory's digest.
    pub fn set_digest(&mut self, dir: &RelPath, digest: Option<Digest>) {
        let changed = match digest {
            Some(d) => self.digests.insert(dir.clone(), d) != Some(d),
            None => self.digests.remove(dir).is_some(),
        };
        if changed {
            self.redigested.insert(dir.clone());
        }
    }

    /// Directories in which what is said to be on disk has changed since this was asked last.
    pub fn take_reworked(&mut self) -> HashSet<RelPath> {
        std::mem::take(&mut self.reworked)
    }

    /// Writes the digests that changed since the last commit, each once.
    fn put_digests(&mut self) -> Result<()> {
        for dir in self.redigested.drain() {
            let bytes = self.digests.get(&dir).copied().map(Digest::to_bytes);
            self.store
                .put_digest(&dir, bytes)
                .map_err(|e| store_error("write the index", e))?;
        }
        Ok(())
    }

    /// Whether the replica has lost its memory and has not learnt everything again.
    pub fn is_rejoining(&mut self) -> Result<bool> {
        Ok(self.meta(KEY_REJOINING)?.is_some())
    }

    /// Notes that the replica has lost its memory, or has it back.
    pub fn set_rejoining(&mut self, on: bool) -> Result<()> {
        if on {
            return self.put_meta(KEY_REJOINING, b"1");
        }
        let removed = self.store.remove_record(Table::Meta, KEY_REJOINING);
        removed.map_err(|e| store_error("write the index", e))
    }

    /// The memory is complete again; so it stays after the end of this process.
    pub fn rejoined(&mut self) -> Result<()> {
        self.set_rejoining(false)?;
        self.commit(Durability::Process)
    }

    /// Reads one value of the replica's own.
    pub fn meta(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.store
            .record(Table::Meta, key)
            .map_err(|e| store_error("read the index", e))
    }

    /// Writes one value of the replica's own.
    pub fn put_meta(&mut self, key: &[u8], body: &[u8]) -> Result<()> {
        self.store
            .put_record(Table::Meta, key, body)
            .map_err(|e| store_error("write the index", e))
    }

    /// Commits what is pending; a failed commit undoes it all.
    pub fn commit(&mut self, durability: Durability) -> Result<()> {
        self.put_digests()?;
        let is_dirty = self.store.is_dirty();
        if is_dirty {
            self.put_meta(KEY_CLOCK, &number_bytes(self.clock.max(0) as u64))?;
            self.put_meta(KEY_TOTALS, &totals_bytes(&self.totals))?;
            self.reach(Step::Committing);
        }
        self.store.commit(durability).map_err(|e| {
            let _ignored = self.store.rollback();
            store_error("commit the index", e)
        })?;
        if is_dirty {
            self.reach(Step::Committed);
        }
        Ok(())
    }

    /// The disk holds everything of the open epoch: says so durably, and opens the next.
    pub fn epoch_is_durable(&mut self) -> Result<()> {
        self.put_meta(KEY_EPOCH, &number_bytes(u64::from(self.epoch)))?;
        self.lately.forget(self.store.as_mut())?;
        self.commit(Durability::Power)?;
        self.reach(Step::EpochDurable);
        self.durable_epoch = self.epoch;
        self.epoch += 1;
        self.touched = false;
        Ok(())
    }
}

fn totals_bytes(t: &Totals) -> Vec<u8> {
    let mut out = Vec::new();
    [t.files, t.dirs, t.links, t.bytes]
        .into_iter()
        .for_each(|n| codec::put_u64(&mut out, n));
    out
}

fn totals_from(bytes: Option<Vec<u8>>) -> Totals {
    let bytes = bytes.unwrap_or_default();
    let mut r = Reader::new(&bytes);
    let mut next = || r.u64().unwrap_or(0);
    Totals {
        files: next(),
        dirs: next(),
        links: next(),
        bytes: next(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use instep_store::MemoryDisk;

    use super::*;

    fn opened(key: &[u8], body: &[u8]) -> Result<Index> {
        let mut store = MemoryDisk::new().open();
        store.put_record(Table::Meta, key, body).unwrap();
        store.commit(Durability::Power).unwrap();
        Index::open(Box::new(store), ActorId([1; 8]))
    }

    #[test]
    fn a_counter_that_cannot_be_read_begins_again_at_zero() {
        assert_eq!(
            opened(KEY_COUNTER, &number_bytes(7)).unwrap().high_water(),
            7
        );
        let endless = number_bytes(u64::MAX);
        for (key, body) in [
            (KEY_COUNTER, &b"\x80"[..]),
            (KEY_COUNTER, b""),
            (KEY_COUNTER, &endless),
            (KEY_EPOCH, &endless),
            (KEY_CLOCK, &endless),
        ] {
            let e = opened(key, body).unwrap_err();
            assert_eq!(e.kind, ErrorKind::Damaged, "{}", body.escape_ascii());
        }
    }

    #[test]
    fn who_minted_before_the_last_two_power_cuts_is_a_stranger() {
        let [first, second, third, other] = [1, 2, 3, 4].map(|n| ActorId([n; 8]));
        let mut index = Index::open(Box::new(MemoryDisk::new().open()), first).unwrap();
        index.succeed(second).unwrap();
        index.succeed(third).unwrap();
        for actor in [first, second, third] {
            assert!(index.has_minted_as(actor).unwrap(), "{actor:?}");
        }
        assert!(!index.has_minted_as(other).unwrap());
    }
}
