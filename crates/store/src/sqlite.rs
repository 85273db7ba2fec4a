//! The store on disk: one `SQLite` database in write-ahead mode, one writing connection.
//!
//! Owns the format of the file. Invariants: a transaction is opened by the first write and closed by
//! [`commit`](crate::IndexStore::commit) or [`rollback`](crate::IndexStore::rollback) alone, and a failed
//! write closes the way to a commit. Every body carries a check value that is tested at each read. Never repairs a damaged file, and never takes an empty file for an
//! empty index unless it was asked to create one.
//!
//! **Durability.** Connections run with `synchronous = NORMAL`: a commit appends its pages to the
//! write-ahead log without a flush, which survives the death of the process because the kernel has the
//! bytes. For [`Durability::Power`] the log is then flushed through a descriptor of its own. That is as
//! good as `synchronous = FULL`, which does the same `fsync` at the same place, because:
//! - a flush covers the file, whoever wrote it: every frame of this and of all earlier commits;
//! - when the log starts over, `SQLite` has already flushed the log, copied it into the database and
//!   flushed that, and it flushes the new header, with its new salt, before any frame that relies on it.
//!   It does both at `NORMAL`. So earlier commits are either in the flushed database or in this log;
//! - frames carry chained checksums, so whatever part of later frames reaches the disk, recovery ends with
//!   the last whole commit: a committed prefix;
//! - the log is the same file while a connection is open: only the last connection to close removes it;
//! - closing a second descriptor of a file drops this process' POSIX locks on it, but `SQLite` locks only
//!   the database and the shared memory file, never the log.

mod home;
mod open;

use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use instep_core::path::{Name, RelPath};
use instep_core::row::Row;
use rusqlite::{Connection, OptionalExtension as _, Params};

use home::Home;
pub use open::{APPLICATION_ID, FORMAT};

use crate::check::{Problem, Report, check_rows};
use crate::error::{Result, StoreError};
use crate::{
    Durability, IndexStore, RecordVisitor, RowVisitor, Table, below, key_of, row_codec, seal,
};

/// Older versions can corrupt a database when a checkpoint races the restart of its log.
const SQLITE_MIN: (i32, &str) = (3_051_003, "3.51.3");
/// Pages in the log before they are moved into the database: 16 MiB.
const CHECKPOINT_PAGES: u32 = 4096;

/// The version of `SQLite` that is built in, and the oldest that is good enough.
pub fn sqlite_versions() -> (&'static str, &'static str) {
    (rusqlite::version(), SQLITE_MIN.1)
}

/// How to open an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// For writing; made if it does not exist.
    Create,
    /// For writing; must exist and must not be empty.
    Existing,
    /// For reading, possibly while another process writes. Changes nothing in the index.
    ReadOnly,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Txn {
    None,
    Open,
    /// A write failed; the database may have undone the whole transaction by itself.
    Broken,
}

/// An index in a database file.
#[derive(Debug)]
pub struct SqliteStore {
    conn: Connection,
    mode: OpenMode,
    txn: Txn,
    /// The write-ahead log, to flush it; none when reading only.
    log: Option<File>,
    /// Something may be committed and not flushed. True at first: another process may have left it so.
    unflushed: bool,
    flush_failed: bool,
    /// Device and inode of the file when it was opened.
    identity: (u64, u64),
    /// Goes last: the connection's paths lead through it.
    _home: Arc<Home>,
}

macro_rules! record_sql {
    ($table:literal) => {
        RecordSql {
            name: $table,
            get: concat!("SELECT body FROM ", $table, " WHERE key = ?1"),
            put: concat!(
                "INSERT OR REPLACE INTO ",
                $table,
                "(key, body) VALUES (?1, ?2)"
            ),
            remove: concat!("DELETE FROM ", $table, " WHERE key = ?1"),
            forward: concat!("SELECT key, body FROM ", $table, " ORDER BY key"),
            backward: concat!("SELECT key, body FROM ", $table, " ORDER BY key DESC"),
        }
    };
}

/// What seals of digests begin with, as those of records begin with their table.
const DIGEST: &[u8] = b"digest";

struct RecordSql {
    name: &'static str,
    get: &'static str,
    put: &'static str,
    remove: &'static str,
    forward: &'static str,
    backward: &'static str,
}

const fn record_sql(table: Table) -> &'static RecordSql {
    match table {
        Table::Meta => &record_sql!("meta"),
        Table::Intent => &record_sql!("intent"),
        Table::Conflict => &record_sql!("conflict"),
        Table::Stored => &record_sql!("stored"),
        Table::Trash => &record_sql!("trash"),
        Table::Hold => &record_sql!("hold"),
        Table::Log => &record_sql!("log"),
    }
}

fn at(attempt: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
    move |e| StoreError::of_sqlite(attempt, e)
}

impl SqliteStore {
    /// Opens the index in the file at `path`.
    ///
    /// Of the path, all but the last name is resolved once, here. From then on everything goes through the
    /// directory that was found, wherever it is moved to and whatever takes its place.
    pub fn open(path: &Path, mode: OpenMode) -> Result<Self> {
        let found = rusqlite::version_number();
        if found < SQLITE_MIN.0 {
            return Err(StoreError::OldSqlite {
                found: rusqlite::version(),
                needed: SQLITE_MIN.1,
            });
        }
        let home = Home::of(path).map_err(|e| StoreError::of_io("open the index", e))?;
        let path = &home.path(path);
        let conn = open::open(&home, path, mode)?;
        let mut store = Self {
            conn,
            mode,
            txn: Txn::None,
            log: None,
            unflushed: true,
            flush_failed: false,
            identity: open::identity(path)?,
            _home: Arc::clone(&home),
        };
        if mode != OpenMode::ReadOnly {
            store.configure_writer()?;
            let log = File::open(open::sibling(path, "-wal"));
            store.log = Some(log.map_err(|e| StoreError::of_io("open the index log", e))?);
        }
        Ok(store)
    }

    fn configure_writer(&self) -> Result<()> {
        let attempt = "configure the index";
        let journal: String = self
            .conn
            .pragma_query_value(None, "journal_mode", |r| r.get(0))
            .map_err(at(attempt))?;
        if journal != "wal" {
            return Err(StoreError::corrupt(format!(
                "journal mode {journal} instead of wal"
            )));
        }
        for (name, value) in [
            ("synchronous", 1),
            ("wal_autocheckpoint", CHECKPOINT_PAGES),
            ("journal_size_limit", CHECKPOINT_PAGES * 4096),
        ] {
            // Some of these answer with a row, some do not.
            self.conn
                .pragma_update_and_check(None, name, value, |_| Ok(()))
                .optional()
                .map_err(at(attempt))?;
        }
        Ok(())
    }

    /// Checks the whole file: its structure, then every row. Slow; for a person who asks.
    pub fn check(&mut self) -> Result<Report> {
        let mut findings = Vec::new();
        let structure = self.scan("PRAGMA integrity_check(100)", [], "check the index", |r| {
            let text: String = r.get(0).map_err(at("check the index"))?;
            if text != "ok" {
                findings.push(Problem::Damaged(text));
            }
            Ok(ControlFlow::Continue(()))
        });
        match structure {
            Err(StoreError::Corrupt { what }) => findings.push(Problem::Damaged(what)),
            other => other?,
        }
        let mut report = check_rows(self)?;
        for problem in findings {
            report.add(problem);
        }
        Ok(report)
    }

    /// How long to wait for another writer before [`StoreError::Busy`]; five seconds unless set.
    pub fn set_patience(&mut self, patience: Duration) -> Result<()> {
        self.conn
            .busy_timeout(patience)
            .map_err(at("configure the index"))
    }

    /// Bounds the file to this many pages of 4096 bytes: what does not fit is [`StoreError::NoSpace`].
    pub fn limit_pages(&mut self, pages: u32) -> Result<()> {
        self.conn
            .pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
            .map_err(at("configure the index"))
    }

    /// Whether the path still names the file that was opened. A database whose file was removed or
    /// replaced goes on without an error, and everything written to it is lost.
    pub fn is_still_at(&self, path: &Path) -> bool {
        open::identity(path).is_ok_and(|found| found == self.identity)
    }

    /// Whether something is committed that a power cut could still take.
    pub fn is_unflushed(&self) -> bool {
        self.unflushed
    }

    fn ready(&self, attempt: &'static str) -> Result<()> {
        match self.txn {
            Txn::Broken => Err(StoreError::RollbackNeeded { attempt }),
            Txn::None | Txn::Open => Ok(()),
        }
    }

    fn begin(&mut self, attempt: &'static str) -> Result<()> {
        self.ready(attempt)?;
        if self.txn == Txn::None {
            if self.mode == OpenMode::ReadOnly {
                return Err(StoreError::ReadOnly { attempt });
            }
            execute(&self.conn, "BEGIN IMMEDIATE", []).map_err(at(attempt))?;
            self.txn = Txn::Open;
        }
        Ok(())
    }

    fn write(
        &mut self,
        sql: &'static str,
        params: impl Params,
        attempt: &'static str,
    ) -> Result<()> {
        self.begin(attempt)?;
        execute(&self.conn, sql, params).map_err(|e| {
            self.txn = Txn::Broken;
            StoreError::of_sqlite(attempt, e)
        })
    }

    /// Runs a query and hands each of its rows over, until `each` breaks or fails.
    fn scan(
        &self,
        sql: &'static str,
        params: impl Params,
        attempt: &'static str,
        mut each: impl FnMut(&rusqlite::Row<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        self.ready(attempt)?;
        let mut statement = self.conn.prepare_cached(sql).map_err(at(attempt))?;
        let mut rows = statement.query(params).map_err(at(attempt))?;
        while let Some(row) = rows.next().map_err(at(attempt))? {
            if each(row)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn scan_paths(
        &self,
        sql: &'static str,
        params: impl Params,
        visit: &mut RowVisitor<'_>,
    ) -> Result<ControlFlow<()>> {
        let attempt = "read a subtree from the index";
        let mut flow = ControlFlow::Continue(());
        self.scan(sql, params, attempt, |r| {
            let dir = blob(r, 0, attempt)?;
            let name = Name::new(blob(r, 1, attempt)?)
                .map_err(|e| StoreError::corrupt(format!("a stored name: {e}")))?;
            let path = stored_path(dir)?.join(name);
            let row = decode(&path, key_of(&path), blob(r, 2, attempt)?)?;
            flow = visit(path, row);
            Ok(flow)
        })?;
        Ok(flow)
    }

    fn scan_records(
        &self,
        sql: &'static str,
        table: &[u8],
        visit: &mut RecordVisitor<'_>,
    ) -> Result<()> {
        let attempt = "read records from the index";
        self.scan(sql, [], attempt, |r| {
            let key = blob(r, 0, attempt)?;
            Ok(visit(key, unseal((table, key), blob(r, 1, attempt)?)?))
        })
    }

    fn flush(&mut self) -> Result<()> {
        let attempt = "flush the index";
        if self.flush_failed {
            return Err(StoreError::FlushFailed { attempt });
        }
        let Some(log) = &self.log else { return Ok(()) };
        // After a failed flush the kernel calls the pages clean, so a second try would lie.
        log.sync_data().map_err(|e| {
            self.flush_failed = true;
            StoreError::of_io(attempt, e)
        })?;
        self.unflushed = false;
        Ok(())
    }
}

impl IndexStore for SqliteStore {
    fn get(&mut self, path: &RelPath) -> Result<Option<Row>> {
        let attempt = "read a row from the index";
        let (dir, name) = key_of(path);
        let mut found = None;
        let sql = "SELECT body FROM entry WHERE dir = ?1 AND name = ?2";
        self.scan(sql, (dir, name), attempt, |r| {
            found = Some(decode(path, (dir, name), blob(r, 0, attempt)?)?);
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    fn children(&mut self, dir: &RelPath, visit: &mut dyn FnMut(Name<'_>, Row)) -> Result<()> {
        let attempt = "read a directory from the index";
        let sql = "SELECT name, body FROM entry WHERE dir = ?1 AND name > x'' ORDER BY name";
        self.scan(sql, (dir.as_bytes(),), attempt, |r| {
            let name = Name::new(blob(r, 0, attempt)?)
                .map_err(|e| StoreError::corrupt(format!("a stored name in {dir}: {e}")))?;
            let key = (dir.as_bytes(), name.as_bytes());
            visit(name, decode(&name, key, blob(r, 1, attempt)?)?);
            Ok(ControlFlow::Continue(()))
        })
    }

    fn subtree(&mut self, dir: &RelPath, visit: &mut RowVisitor<'_>) -> Result<()> {
        let Some((from, to)) = below(dir) else {
            let sql = "SELECT dir, name, body FROM entry WHERE (dir, name) > (x'', x'') \
                       ORDER BY dir, name";
            return self.scan_paths(sql, [], visit).map(|_| ());
        };
        // Other directories lie between a directory's own key and those below it ("d", "d.x", "d/x").
        let own = "SELECT dir, name, body FROM entry WHERE dir = ?1 ORDER BY name";
        if self.scan_paths(own, (dir.as_bytes(),), visit)?.is_break() {
            return Ok(());
        }
        let deeper = "SELECT dir, name, body FROM entry WHERE dir >= ?1 AND dir < ?2 \
                      ORDER BY dir, name";
        self.scan_paths(deeper, (from, to), visit).map(|_| ())
    }

    fn put(&mut self, path: &RelPath, row: &Row) -> Result<()> {
        if !row_codec::fits(row) {
            return Err(StoreError::TooBig { path: path.clone() });
        }
        let (dir, name) = key_of(path);
        let mut body = Vec::with_capacity(160);
        row_codec::put_row(&mut body, row);
        let sql = "INSERT OR REPLACE INTO entry(dir, name, body) VALUES (?1, ?2, ?3)";
        let body = seal::close(body, (dir, name));
        self.write(sql, (dir, name, body), "write a row to the index")
    }

    fn remove(&mut self, path: &RelPath) -> Result<()> {
        let sql = "DELETE FROM entry WHERE dir = ?1 AND name = ?2";
        self.write(sql, key_of(path), "remove a row from the index")
    }

    fn digest(&mut self, dir: &RelPath) -> Result<Option<[u8; 16]>> {
        let attempt = "read a digest from the index";
        let mut found = None;
        let sql = "SELECT hash FROM digest WHERE dir = ?1";
        self.scan(sql, (dir.as_bytes(),), attempt, |r| {
            found = Some(digest_of(dir.as_bytes(), blob(r, 0, attempt)?)?);
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    fn put_digest(&mut self, dir: &RelPath, digest: Option<[u8; 16]>) -> Result<()> {
        let attempt = "write a digest to the index";
        match digest {
            Some(hash) => {
                let sql = "INSERT OR REPLACE INTO digest(dir, hash) VALUES (?1, ?2)";
                let hash = seal::close(hash.to_vec(), (DIGEST, dir.as_bytes()));
                self.write(sql, (dir.as_bytes(), hash), attempt)
            }
            None => self.write(
                "DELETE FROM digest WHERE dir = ?1",
                (dir.as_bytes(),),
                attempt,
            ),
        }
    }

    fn digests(&mut self, visit: &mut dyn FnMut(RelPath, [u8; 16])) -> Result<()> {
        let attempt = "read the digests from the index";
        self.scan(
            "SELECT dir, hash FROM digest ORDER BY dir",
            [],
            attempt,
            |r| {
                let dir = blob(r, 0, attempt)?;
                visit(stored_path(dir)?, digest_of(dir, blob(r, 1, attempt)?)?);
                Ok(ControlFlow::Continue(()))
            },
        )
    }

    fn record(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let attempt = "read a record from the index";
        let mut found = None;
        let sql = record_sql(table);
        self.scan(sql.get, (key,), attempt, |r| {
            found = Some(unseal((sql.name.as_bytes(), key), blob(r, 0, attempt)?)?.to_vec());
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    fn put_record(&mut self, table: Table, key: &[u8], body: &[u8]) -> Result<()> {
        let sql = record_sql(table);
        let body = seal::close(body.to_vec(), (sql.name.as_bytes(), key));
        self.write(sql.put, (key, body), "write a record to the index")
    }

    fn remove_record(&mut self, table: Table, key: &[u8]) -> Result<()> {
        self.write(
            record_sql(table).remove,
            (key,),
            "remove a record from the index",
        )
    }

    fn records(&mut self, table: Table, visit: &mut RecordVisitor<'_>) -> Result<()> {
        let sql = record_sql(table);
        self.scan_records(sql.forward, sql.name.as_bytes(), visit)
    }

    fn records_rev(&mut self, table: Table, visit: &mut RecordVisitor<'_>) -> Result<()> {
        let sql = record_sql(table);
        self.scan_records(sql.backward, sql.name.as_bytes(), visit)
    }

    fn commit(&mut self, durability: Durability) -> Result<()> {
        let attempt = "commit to the index";
        self.ready(attempt)?;
        if self.txn == Txn::Open {
            // Set before the attempt: a commit that reports an error may still have reached the log.
            self.unflushed = true;
            execute(&self.conn, "COMMIT", []).map_err(|e| {
                self.txn = Txn::Broken;
                StoreError::of_sqlite(attempt, e)
            })?;
            self.txn = Txn::None;
        }
        if durability == Durability::Power && self.unflushed {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn rollback(&mut self) -> Result<()> {
        // After some errors the database has already rolled back by itself.
        if !self.conn.is_autocommit() {
            execute(&self.conn, "ROLLBACK", []).map_err(at("roll back the index"))?;
        }
        self.txn = Txn::None;
        Ok(())
    }

    fn is_dirty(&self) -> bool {
        self.txn != Txn::None
    }
}

fn execute(conn: &Connection, sql: &'static str, params: impl Params) -> rusqlite::Result<()> {
    conn.prepare_cached(sql)?.execute(params).map(|_| ())
}

fn blob<'r>(row: &'r rusqlite::Row<'_>, column: usize, attempt: &'static str) -> Result<&'r [u8]> {
    row.get_ref(column)
        .map_err(at(attempt))?
        .as_blob()
        .map_err(|e| StoreError::corrupt(format!("{attempt}: {e}")))
}

fn unseal<'b>(key: (&[u8], &[u8]), sealed: &'b [u8]) -> Result<&'b [u8]> {
    seal::open(sealed, key).ok_or_else(|| {
        let (table, key) = (String::from_utf8_lossy(key.0), key.1.escape_ascii());
        StoreError::corrupt(format!(
            "the record {table} {key} does not match its check value"
        ))
    })
}

fn decode(what: &dyn std::fmt::Display, key: (&[u8], &[u8]), sealed: &[u8]) -> Result<Row> {
    let body = seal::open(sealed, key).ok_or_else(|| {
        StoreError::corrupt(format!("the row of {what} does not match its check value"))
    })?;
    row_codec::row(body).map_err(|e| StoreError::corrupt(format!("the row of {what}: {e}")))
}

fn stored_path(bytes: &[u8]) -> Result<RelPath> {
    RelPath::new(bytes).map_err(|e| StoreError::corrupt(format!("a stored path: {e}")))
}

fn digest_of(dir: &[u8], sealed: &[u8]) -> Result<[u8; 16]> {
    unseal((DIGEST, dir), sealed)?
        .try_into()
        .map_err(|_| StoreError::corrupt("a digest does not have 16 bytes"))
}
