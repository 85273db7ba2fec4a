//! The store on disk: one `SQLite` database in write-ahead mode, one writing connection.
//!
//! Owns the format of the file. Invariants: a transaction is opened by the first write and closed by
//! [`commit`](crate::IndexStore::commit) or [`rollback`](crate::IndexStore::rollback) alone, and a failed
//! write closes the way to a commit. Never repairs a damaged file, and never takes an empty file for an
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

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use instep_core::path::{Name, RelPath};
use instep_core::row::Row;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, Params};

use crate::check::{Problem, Report, check_rows};
use crate::error::{Result, StoreError};
use crate::{Durability, IndexStore, RecordVisitor, RowVisitor, Table, below, key_of, row_codec};

/// The format this program writes, in the database's `user_version`.
pub const FORMAT: u32 = 1;
/// Marks the file as ours, in the database's `application_id`: "inst".
pub const APPLICATION_ID: u32 = 0x696e_7374;

/// Older versions can corrupt a database when a checkpoint races the restart of its log.
const SQLITE_MIN: (i32, &str) = (3_051_003, "3.51.3");
const BUSY: Duration = Duration::from_secs(5);
/// Pages in the log before they are moved into the database: 16 MiB.
const CHECKPOINT_PAGES: u32 = 4096;

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
}

macro_rules! record_sql {
    ($table:literal) => {
        RecordSql {
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

struct RecordSql {
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

macro_rules! record_table {
    ($table:literal) => {
        concat!(
            "CREATE TABLE ",
            $table,
            "(key BLOB PRIMARY KEY, body BLOB NOT NULL) STRICT, WITHOUT ROWID"
        )
    };
}

/// The tables, exactly as they stand in the file's own description of itself.
const SCHEMA: [&str; 9] = [
    "CREATE TABLE entry(dir BLOB, name BLOB, body BLOB NOT NULL, PRIMARY KEY(dir, name)) \
     STRICT, WITHOUT ROWID",
    "CREATE TABLE digest(dir BLOB PRIMARY KEY, hash BLOB NOT NULL) STRICT, WITHOUT ROWID",
    record_table!("meta"),
    record_table!("intent"),
    record_table!("conflict"),
    record_table!("stored"),
    record_table!("trash"),
    record_table!("hold"),
    record_table!("log"),
];

fn at(attempt: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
    move |e| StoreError::of_sqlite(attempt, e)
}

impl SqliteStore {
    /// Opens the index in the file at `path`.
    ///
    /// A path through a directory's descriptor (`/proc/self/fd/N/index.db`) is resolved once, here; the
    /// file that was opened is then compared with the one that the descriptor names.
    pub fn open(path: &Path, mode: OpenMode) -> Result<Self> {
        let found = rusqlite::version_number();
        if found < SQLITE_MIN.0 {
            return Err(StoreError::OldSqlite {
                found: rusqlite::version(),
                needed: SQLITE_MIN.1,
            });
        }
        prepare_file(path, mode)?;
        let conn = connect(path, mode)?;
        same_file(path, &conn)?;
        if mode == OpenMode::Create && is_blank(&conn)? {
            create(&conn, path)?;
        }
        verify_format(&conn)?;
        let mut store = Self {
            conn,
            mode,
            txn: Txn::None,
            log: None,
            unflushed: true,
            flush_failed: false,
        };
        if mode != OpenMode::ReadOnly {
            store.configure_writer()?;
            let log = File::open(sibling(path, "-wal"));
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
            let row = decode(&path, blob(r, 2, attempt)?)?;
            flow = visit(path, row);
            Ok(flow)
        })?;
        Ok(flow)
    }

    fn scan_records(&self, sql: &'static str, visit: &mut RecordVisitor<'_>) -> Result<()> {
        let attempt = "read records from the index";
        self.scan(sql, [], attempt, |r| {
            Ok(visit(blob(r, 0, attempt)?, blob(r, 1, attempt)?))
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
            found = Some(decode(path, blob(r, 0, attempt)?)?);
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
            visit(name, decode(&name, blob(r, 1, attempt)?)?);
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
        let (dir, name) = key_of(path);
        let mut body = Vec::with_capacity(160);
        row_codec::put_row(&mut body, row);
        let sql = "INSERT OR REPLACE INTO entry(dir, name, body) VALUES (?1, ?2, ?3)";
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
            found = Some(digest_of(blob(r, 0, attempt)?)?);
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    fn put_digest(&mut self, dir: &RelPath, digest: Option<[u8; 16]>) -> Result<()> {
        let attempt = "write a digest to the index";
        match digest {
            Some(hash) => {
                let sql = "INSERT OR REPLACE INTO digest(dir, hash) VALUES (?1, ?2)";
                self.write(sql, (dir.as_bytes(), &hash[..]), attempt)
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
                visit(
                    stored_path(blob(r, 0, attempt)?)?,
                    digest_of(blob(r, 1, attempt)?)?,
                );
                Ok(ControlFlow::Continue(()))
            },
        )
    }

    fn record(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let attempt = "read a record from the index";
        let mut found = None;
        self.scan(record_sql(table).get, (key,), attempt, |r| {
            found = Some(blob(r, 0, attempt)?.to_vec());
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    fn put_record(&mut self, table: Table, key: &[u8], body: &[u8]) -> Result<()> {
        self.write(
            record_sql(table).put,
            (key, body),
            "write a record to the index",
        )
    }

    fn remove_record(&mut self, table: Table, key: &[u8]) -> Result<()> {
        self.write(
            record_sql(table).remove,
            (key,),
            "remove a record from the index",
        )
    }

    fn records(&mut self, table: Table, visit: &mut RecordVisitor<'_>) -> Result<()> {
        self.scan_records(record_sql(table).forward, visit)
    }

    fn records_rev(&mut self, table: Table, visit: &mut RecordVisitor<'_>) -> Result<()> {
        self.scan_records(record_sql(table).backward, visit)
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

fn decode(what: &dyn std::fmt::Display, body: &[u8]) -> Result<Row> {
    row_codec::row(body).map_err(|e| StoreError::corrupt(format!("the row of {what}: {e}")))
}

fn stored_path(bytes: &[u8]) -> Result<RelPath> {
    RelPath::new(bytes).map_err(|e| StoreError::corrupt(format!("a stored path: {e}")))
}

fn digest_of(bytes: &[u8]) -> Result<[u8; 16]> {
    bytes
        .try_into()
        .map_err(|_| StoreError::corrupt("a digest does not have 16 bytes"))
}

fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Sees to it that the file exists, readable by its owner alone, or says that it does not.
fn prepare_file(path: &Path, mode: OpenMode) -> Result<()> {
    let attempt = "open the index";
    if mode == OpenMode::Create {
        match OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
        {
            Ok(_) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(StoreError::of_io(attempt, e)),
        }
    }
    let meta = fs::symlink_metadata(path).map_err(|e| StoreError::of_io(attempt, e))?;
    if !meta.is_file() {
        return Err(StoreError::corrupt("the index is not a regular file"));
    }
    Ok(())
}

fn connect(path: &Path, mode: OpenMode) -> Result<Connection> {
    let attempt = "open the index";
    let flags = match mode {
        OpenMode::ReadOnly => OpenFlags::SQLITE_OPEN_READ_ONLY,
        OpenMode::Create | OpenMode::Existing => OpenFlags::SQLITE_OPEN_READ_WRITE,
    } | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(at(attempt))?;
    match configure(&conn) {
        Ok(()) => Ok(conn),
        // On a medium that cannot be written there is no place for shared memory; but when there is no
        // log either, nobody writes and the database alone is the whole truth.
        Err(e) if mode == OpenMode::ReadOnly && cannot_share(&e) && no_log(path) => {
            drop(conn);
            let flags = flags | OpenFlags::SQLITE_OPEN_URI;
            let conn =
                Connection::open_with_flags(immutable_uri(path), flags).map_err(at(attempt))?;
            configure(&conn).map_err(at(attempt))?;
            Ok(conn)
        }
        Err(e) => Err(StoreError::of_sqlite(attempt, e)),
    }
}

fn cannot_share(e: &rusqlite::Error) -> bool {
    matches!(
        e.sqlite_error_code(),
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly)
    )
}

fn no_log(path: &Path) -> bool {
    fs::symlink_metadata(sibling(path, "-wal")).map_or(true, |m| m.len() == 0)
}

fn immutable_uri(path: &Path) -> String {
    use std::fmt::Write as _;
    let mut uri = String::from("file:");
    for b in path.as_os_str().as_encoded_bytes() {
        match b {
            b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*b)),
            b if b.is_ascii_alphanumeric() => uri.push(char::from(*b)),
            b => write!(uri, "%{b:02x}").expect("writing to a string cannot fail"),
        }
    }
    uri + "?immutable=1"
}

/// What every connection needs, and the first read, which is where most damage shows.
fn configure(conn: &Connection) -> rusqlite::Result<()> {
    conn.busy_timeout(BUSY)?;
    conn.set_prepared_statement_cache_capacity(64);
    // The file may come from somebody else: nothing in it may run.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    conn.execute_batch(
        "PRAGMA mmap_size = 0; PRAGMA cell_size_check = ON; PRAGMA cache_size = -2048;
         PRAGMA temp_store = MEMORY;",
    )?;
    conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
}

/// Refuses when another file took the place between the resolution of the path and the opening.
fn same_file(path: &Path, conn: &Connection) -> Result<()> {
    let attempt = "open the index";
    let stat = |p: &Path| fs::metadata(p).map_err(|e| StoreError::of_io(attempt, e));
    let resolved = conn.path().map_or(path, Path::new);
    let (asked, opened) = (stat(path)?, stat(resolved)?);
    if (asked.dev(), asked.ino()) == (opened.dev(), opened.ino()) {
        Ok(())
    } else {
        let source = io::Error::other("its directory was moved meanwhile");
        Err(StoreError::Io { attempt, source })
    }
}

fn header(conn: &Connection) -> Result<(u32, u32, u32)> {
    let sql = "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_schema) \
               FROM pragma_application_id, pragma_user_version";
    conn.query_row(sql, [], |r| {
        let word = |i| r.get::<_, i64>(i).map(|n| n as u32);
        Ok((word(0)?, word(1)?, word(2)?))
    })
    .map_err(at("read the header of the index"))
}

fn is_blank(conn: &Connection) -> Result<bool> {
    header(conn).map(|h| h == (0, 0, 0))
}

/// Makes the tables, all or none. Durable on return, the file's name included: the rollback journal of the
/// change to write-ahead mode is still written with full flushes.
fn create(conn: &Connection, path: &Path) -> Result<()> {
    let attempt = "create the index";
    conn.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))
        .map_err(at(attempt))?;
    let tables = SCHEMA.join(";");
    let sql = format!(
        "BEGIN IMMEDIATE; {tables}; PRAGMA application_id = {APPLICATION_ID}; \
         PRAGMA user_version = {FORMAT}; COMMIT"
    );
    conn.execute_batch(&sql).map_err(at(attempt))?;
    let dir = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(dir)
        .and_then(|d| d.sync_all())
        .map_err(|e| StoreError::of_io(attempt, e))
}

fn verify_format(conn: &Connection) -> Result<()> {
    let (id, format, objects) = header(conn)?;
    if (id, format, objects) == (0, 0, 0) {
        return Err(StoreError::corrupt("the file is empty"));
    }
    if id != APPLICATION_ID {
        return Err(StoreError::NotAnIndex { found: id });
    }
    if format > FORMAT {
        return Err(StoreError::NewerFormat {
            found: format,
            known: FORMAT,
        });
    }
    let attempt = "read the tables of the index";
    let mut statement = conn
        .prepare("SELECT sql FROM sqlite_schema ORDER BY rowid")
        .map_err(at(attempt))?;
    let tables = statement
        .query_map([], |r| r.get::<_, Option<String>>(0))
        .and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>)
        .map_err(at(attempt))?;
    if format != FORMAT || !tables.iter().map(|t| t.as_deref()).eq(SCHEMA.map(Some)) {
        return Err(StoreError::corrupt("its tables are not those of an index"));
    }
    Ok(())
}
