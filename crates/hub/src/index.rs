//! The rows of a hub in use: the store, and what must be kept in memory with it.
//!
//! Owns counters, the hybrid clock, the epoch and the sums. Invariant: a dot leaves [`Index::mint`] only after the
//! block that its counter lies in is durable. Knows nothing of contents.

use std::ops::ControlFlow;

use instep_core::codec::{self, Reader};
use instep_core::id::{ActorId, ContentId, Dot};
use instep_core::limits::COUNTER_BLOCK;
use instep_core::path::RelPath;
use instep_core::row::Row;
use instep_core::time::{self, Hlc};
use instep_core::version::Kind;
use instep_replica::Result;
use instep_replica::Totals;
use instep_replica::error::{Error, ErrorKind};
use instep_store::{Durability, IndexStore, StoreError, Table};

const KEY_ACTOR: &[u8] = b"actor";
const KEY_COUNTER: &[u8] = b"counter";
const KEY_CLOCK: &[u8] = b"clock";
const KEY_EPOCH: &[u8] = b"epoch";
const KEY_REJOINING: &[u8] = b"rejoining";
const KEY_TOTALS: &[u8] = b"totals";

/// What a store's failure means to the session.
pub(crate) fn store_error(attempt: &str, e: StoreError) -> Error {
    let kind = match e.kind() {
        instep_store::ErrorKind::Corrupt => ErrorKind::Damaged,
        instep_store::ErrorKind::Newer => ErrorKind::NewerFormat,
        instep_store::ErrorKind::NoSpace => ErrorKind::NoSpace,
        instep_store::ErrorKind::ReadOnly => ErrorKind::ReadOnly,
        _ => ErrorKind::Other,
    };
    Error::because(kind, attempt.to_owned(), e)
}

/// The rows in use.
pub(crate) struct Index {
    store: Box<dyn IndexStore>,
    actor: ActorId,
    counter: u64,
    reserved: u64,
    clock: Hlc,
    epoch: u32,
    durable_epoch: u32,
    totals: Totals,
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
    pub(crate) fn open(mut store: Box<dyn IndexStore>, fresh: ActorId) -> Result<Self> {
        let mut read = |key: &[u8]| {
            let body = store.record(Table::Meta, key);
            body.map_err(|e| store_error("read the index", e))
        };
        let actor = read(KEY_ACTOR)?.and_then(|b| <[u8; 8]>::try_from(b).ok());
        let reserved = number(read(KEY_COUNTER)?, u64::MAX / 2)?;
        let clock = number(read(KEY_CLOCK)?, i64::MAX as u64)? as i64;
        let durable_epoch = number(read(KEY_EPOCH)?, u64::from(u32::MAX / 2))? as u32;
        let totals = totals_from(read(KEY_TOTALS)?);
        let mut index = Self {
            store,
            actor: actor.map_or(fresh, ActorId),
            counter: reserved,
            reserved,
            clock,
            epoch: durable_epoch + 1,
            durable_epoch,
            totals,
        };
        if actor.is_none() {
            index.put_meta(KEY_ACTOR, &fresh.0)?;
        }
        Ok(index)
    }

    /// The actor that mints here.
    pub(crate) fn actor(&self) -> ActorId {
        self.actor
    }

    /// Starts a new stretch of history: another actor, counting from one.
    pub(crate) fn renew(&mut self, actor: ActorId) -> Result<()> {
        self.actor = actor;
        self.counter = 0;
        self.reserved = 0;
        self.put_meta(KEY_ACTOR, &actor.0)?;
        self.put_meta(KEY_COUNTER, &number_bytes(0))?;
        self.commit(Durability::Power)
    }

    /// The epoch that is open now.
    pub(crate) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The last epoch known to have survived.
    pub(crate) fn durable_epoch(&self) -> u32 {
        self.durable_epoch
    }

    /// Sums over what is shown.
    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    /// Makes sure that `count` dots can be minted without another durable write.
    pub(crate) fn reserve(&mut self, count: u64) -> Result<()> {
        if self.counter + count <= self.reserved {
            return Ok(());
        }
        let upto = self.counter + count.div_ceil(COUNTER_BLOCK) * COUNTER_BLOCK;
        self.put_meta(KEY_COUNTER, &number_bytes(upto))?;
        self.commit(Durability::Power)?;
        self.reserved = upto;
        Ok(())
    }

    /// The next dot.
    pub(crate) fn mint(&mut self) -> Result<Dot> {
        self.reserve(1)?;
        self.counter += 1;
        Ok(Dot {
            actor: self.actor,
            counter: self.counter,
        })
    }

    /// The next instant of the clock.
    pub(crate) fn now(&mut self, wall_ns: i64) -> Hlc {
        self.clock = time::tick(self.clock, wall_ns);
        self.clock
    }

    /// Hears of a remote instant.
    pub(crate) fn heard(&mut self, remote: Hlc, wall_ns: i64) {
        self.clock = time::adopt(self.clock, remote, wall_ns);
    }

    /// The row at a path; an empty one if nothing is known.
    pub(crate) fn get(&mut self, path: &RelPath) -> Result<Row> {
        let row = self.store.get(path);
        Ok(row
            .map_err(|e| store_error("read the index", e))?
            .unwrap_or_default())
    }

    /// The rows directly in a directory, by name.
    pub(crate) fn children(&mut self, dir: &RelPath) -> Result<Vec<(RelPath, Row)>> {
        let mut rows = Vec::new();
        let read = self.store.children(dir, &mut |name, row| {
            rows.push((dir.join(name), row));
        });
        read.map_err(|e| store_error("read the index", e))?;
        Ok(rows)
    }

    /// Some paths of files, found by going down at random: as many ways as paths are wanted.
    pub(crate) fn sample(&mut self, seed: u64, count: usize) -> Result<Vec<RelPath>> {
        let mut out = Vec::new();
        let mut chosen = seed;
        for _ in 0..count {
            let mut dir = RelPath::root();
            loop {
                let mut rows = self.children(&dir)?;
                if rows.is_empty() {
                    break;
                }
                chosen = chosen.wrapping_mul(6_364_136_223_846_793_005);
                chosen = chosen.wrapping_add(1_442_695_040_888_963_407);
                let (path, row) = rows.swap_remove((chosen >> 33) as usize % rows.len());
                if !row.is_dir() {
                    out.push(path);
                    break;
                }
                dir = path;
            }
        }
        Ok(out)
    }

    /// The rows below a directory, not the directory itself.
    pub(crate) fn below(&mut self, dir: &RelPath) -> Result<Vec<(RelPath, Row)>> {
        let mut rows = Vec::new();
        self.subtree(dir, &mut |path, row| {
            rows.push((path, row));
            ControlFlow::Continue(())
        })?;
        Ok(rows)
    }

    /// Every path whose row is wanted and shows a file, with its content.
    pub(crate) fn files(
        &mut self,
        wanted: impl Fn(&Row) -> bool,
    ) -> Result<Vec<(RelPath, ContentId)>> {
        let mut out = Vec::new();
        self.subtree(&RelPath::root(), &mut |path, row| {
            let file = row.present().filter(|v| v.kind == Kind::File);
            let content = file.filter(|_| wanted(&row)).map(|v| v.content);
            out.extend(content.map(|content| (path, content)));
            ControlFlow::Continue(())
        })?;
        Ok(out)
    }

    /// Visits the rows below a directory, in the order of the contract.
    pub(crate) fn subtree(
        &mut self,
        dir: &RelPath,
        visit: &mut instep_store::RowVisitor<'_>,
    ) -> Result<()> {
        let read = self.store.subtree(dir, visit);
        read.map_err(|e| store_error("read the index", e))
    }

    /// The store itself, for what needs no bookkeeping.
    pub(crate) fn store(&mut self) -> &mut dyn IndexStore {
        self.store.as_mut()
    }

    /// Writes a row with the open epoch, and the sums with it. `old` is the row it replaces. A row that says nothing is
    /// forgotten.
    pub(crate) fn put(&mut self, path: &RelPath, old: &Row, mut row: Row) -> Result<()> {
        row.epoch = self.epoch;
        if let Some(v) = old.present() {
            self.totals.remove(v.kind, v.size);
        }
        if let Some(v) = row.present() {
            self.totals.add(v.kind, v.size);
        }
        let written = if row.entry.is_empty() && row.print.is_none() && row.held.is_none() {
            self.store.remove(path)
        } else {
            self.store.put(path, &row)
        };
        written.map_err(|e| store_error("write the index", e))
    }

    /// Whether the replica has lost its memory and has not learnt everything again.
    pub(crate) fn is_rejoining(&mut self) -> Result<bool> {
        Ok(self.meta(KEY_REJOINING)?.is_some())
    }

    /// Notes that the replica has lost its memory, or has it back.
    pub(crate) fn set_rejoining(&mut self, on: bool) -> Result<()> {
        if on {
            return self.put_meta(KEY_REJOINING, b"1");
        }
        self.forget_meta(KEY_REJOINING)
    }

    /// Reads one value of the replica's own.
    pub(crate) fn meta(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let body = self.store.record(Table::Meta, key);
        body.map_err(|e| store_error("read the index", e))
    }

    /// Writes one value of the replica's own.
    pub(crate) fn put_meta(&mut self, key: &[u8], body: &[u8]) -> Result<()> {
        let put = self.store.put_record(Table::Meta, key, body);
        put.map_err(|e| store_error("write the index", e))
    }

    /// Forgets one value of the replica's own.
    pub(crate) fn forget_meta(&mut self, key: &[u8]) -> Result<()> {
        let removed = self.store.remove_record(Table::Meta, key);
        removed.map_err(|e| store_error("write the index", e))
    }

    /// Commits what is pending; a failed commit undoes it all.
    pub(crate) fn commit(&mut self, durability: Durability) -> Result<()> {
        if self.store.is_dirty() {
            self.put_meta(KEY_CLOCK, &number_bytes(self.clock.max(0) as u64))?;
            self.put_meta(KEY_TOTALS, &totals_bytes(&self.totals))?;
        }
        self.store.commit(durability).map_err(|e| {
            let _ignored = self.store.rollback();
            store_error("commit the index", e)
        })
    }

    /// Begins another epoch; what is written from now on is not part of the one that ends. Returns that one.
    pub(crate) fn end_epoch(&mut self) -> u32 {
        self.epoch += 1;
        self.epoch - 1
    }

    /// Everything of an epoch would survive a power cut: says so durably.
    pub(crate) fn epoch_is_durable(&mut self, epoch: u32) -> Result<()> {
        self.put_meta(KEY_EPOCH, &number_bytes(u64::from(epoch)))?;
        self.commit(Durability::Power)?;
        self.durable_epoch = epoch;
        Ok(())
    }

    /// The numbers in memory as they were committed last, after something could not be written.
    pub(crate) fn undo(&mut self) -> Result<()> {
        let undone = self.store.rollback();
        undone.map_err(|e| store_error("undo what was not written", e))?;
        self.totals = totals_from(self.meta(KEY_TOTALS)?);
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
