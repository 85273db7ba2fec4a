//! Opening the database file: the right file, the right kind, the right format, nothing in it trusted.
//!
//! Owns the tables' definition. Never writes to a file that is not blank, and takes a blank one for damage
//! unless it was asked to create.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::home::Home;
use super::{OpenMode, at};
use crate::error::{Result, StoreError};

/// The format this program writes, in the database's `user_version`.
pub const FORMAT: u32 = 1;
/// Marks the file as ours, in the database's `application_id`: "inst".
pub const APPLICATION_ID: u32 = 0x696e_7374;

const BUSY: Duration = Duration::from_secs(5);

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

/// A connection to the index at a path, which `home` gave out, of a format that this program knows.
pub(super) fn open(home: &Home, path: &Path, mode: OpenMode) -> Result<Connection> {
    prepare_file(path, mode)?;
    let conn = connect(path, mode)?;
    if mode == OpenMode::Create && is_blank(&conn)? {
        create(&conn, home)?;
    }
    verify_format(&conn)?;
    Ok(conn)
}

pub(super) fn sibling(path: &Path, suffix: &str) -> PathBuf {
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
    // Whoever has the index open has a log. Without one, reading must not make one that stays behind.
    // RACE: a process that opens it now may move pages while they are read; the read then fails.
    if mode == OpenMode::ReadOnly && fs::symlink_metadata(sibling(path, "-wal")).is_err() {
        return connect_alone(path, flags);
    }
    let conn = as_given(path, flags)?;
    match configure(&conn) {
        Ok(()) => Ok(conn),
        // On a medium that cannot be written there is no place for shared memory; but when there is no
        // log either, nobody writes and the database alone is the whole truth.
        Err(e) if mode == OpenMode::ReadOnly && cannot_share(&e) && no_log(path) => {
            drop(conn);
            connect_alone(path, flags)
        }
        Err(e) => Err(StoreError::of_sqlite(attempt, e)),
    }
}

/// Reads the database file and nothing beside it, and creates nothing.
fn connect_alone(path: &Path, flags: OpenFlags) -> Result<Connection> {
    let flags = flags | OpenFlags::SQLITE_OPEN_URI;
    let conn = as_given(immutable_uri(path), flags)?;
    configure(&conn).map_err(at("open the index"))?;
    Ok(conn)
}

/// A connection that goes by this path for as long as it lives, and resolves nothing in it beforehand.
fn as_given(path: impl AsRef<Path>, flags: OpenFlags) -> Result<Connection> {
    let attempt = "open the index";
    let Some(vfs) = instep_vfs::as_given() else {
        let source = io::Error::other("the database library takes no file system");
        return Err(StoreError::Io { attempt, source });
    };
    Connection::open_with_flags_and_vfs(path, flags, vfs).map_err(at(attempt))
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
    // A plan that depends on bound values is made anew with each of them.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    conn.execute_batch(
        "PRAGMA mmap_size = 0; PRAGMA cell_size_check = ON; PRAGMA cache_size = -2048;
         PRAGMA temp_store = MEMORY;",
    )?;
    conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
}

/// Which file a path names now: device and inode.
pub(super) fn identity(path: &Path) -> Result<(u64, u64)> {
    let meta = fs::metadata(path).map_err(|e| StoreError::of_io("look at the index", e))?;
    Ok((meta.dev(), meta.ino()))
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
fn create(conn: &Connection, home: &Home) -> Result<()> {
    let attempt = "create the index";
    conn.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))
        .map_err(at(attempt))?;
    let tables = SCHEMA.join(";");
    let sql = format!(
        "BEGIN IMMEDIATE; {tables}; PRAGMA application_id = {APPLICATION_ID}; \
         PRAGMA user_version = {FORMAT}; COMMIT"
    );
    conn.execute_batch(&sql).map_err(at(attempt))?;
    home.sync().map_err(|e| StoreError::of_io(attempt, e))
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn a_medium_that_cannot_be_written_is_read_whatever_its_path_contains() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a b%41?x=1#\u{e4}.db");
        let home = Home::of(&file).unwrap();
        drop(open(&home, &home.path(&file), OpenMode::Create).unwrap());
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        let conn = Connection::open_with_flags(immutable_uri(&file), flags).unwrap();
        configure(&conn).unwrap();
        verify_format(&conn).unwrap();
        assert_eq!(
            identity(Path::new(conn.path().unwrap())).unwrap(),
            identity(&file).unwrap()
        );
        assert!(no_log(&file));
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "nothing was created"
        );
    }
}
