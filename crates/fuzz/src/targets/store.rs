//! The store: rows, and a database file that somebody damaged.

use std::cell::RefCell;
use std::fs;
use std::ops::ControlFlow;

use instep_core::path::RelPath;
use instep_core::row::Row;
use instep_store::{ErrorKind, IndexStore as _, OpenMode, SqliteStore, Table, row_codec};
use tempfile::TempDir;

use crate::feed::Feed;

/// Bytes of a row.
pub(super) fn row(bytes: &[u8]) -> String {
    let row = match row_codec::row(bytes) {
        Ok(row) => row,
        Err(e) => return super::vocabulary::refused(e),
    };
    let mut out = Vec::new();
    row_codec::put_row(&mut out, &row);
    assert_eq!(out, bytes, "a row has one form");
    assert!(row_codec::fits(&row), "what was read can be read again");
    assert_eq!(
        row.present().is_some(),
        row.on_disk().is_some_and(|v| !v.is_tomb())
    );
    format!("held {:?}, shown {}", row.held, row.shown.is_some())
}

/// Rows to begin with.
pub(super) fn row_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for n in 0..12_u8 {
        let script: Vec<u8> = (0..140)
            .map(|i: u8| i.wrapping_mul(29).wrapping_add(n * 11))
            .collect();
        let mut feed = Feed::new(&script);
        let mut out = Vec::new();
        row_codec::put_row(&mut out, &feed.row());
        seeds.push(out);
    }
    seeds
}

/// A sound database, and a directory for damaged copies of it.
struct Sound {
    dir: TempDir,
    bytes: Vec<u8>,
    rows: Vec<(RelPath, Row)>,
}

thread_local! {
    static SOUND: RefCell<Option<Sound>> = const { RefCell::new(None) };
}

const ROWS: usize = 60;

fn sound() -> Sound {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let file = dir.path().join("sound.db");
    let mut store = SqliteStore::open(&file, OpenMode::Create).expect("a new index opens");
    let mut rows = Vec::new();
    for n in 0..ROWS {
        let script: Vec<u8> = (0..80).map(|i| (i * 7 + n * 13) as u8).collect();
        let path = RelPath::new(format!("d/file-{n:03}").as_bytes()).expect("legal");
        let row = Feed::new(&script).row();
        store.put(&path, &row).expect("it can be written");
        rows.push((path, row));
    }
    for table in Table::ALL {
        store
            .put_record(table, b"key", &[7; 300])
            .expect("it can be written");
    }
    store
        .commit(instep_store::Durability::Power)
        .expect("it can be committed");
    drop(store);
    let bytes = fs::read(&file).expect("it is there");
    Sound { dir, bytes, rows }
}

/// Damages the file as the bytes say: where, how, with what.
fn damaged(sound: &[u8], feed: &mut Feed<'_>) -> Vec<u8> {
    let mut file = sound.to_vec();
    while !feed.is_empty() && !file.is_empty() {
        // Half of all damage is to the pages' heads, where the structure is.
        let (page, at) = (feed.number(1) as usize * 4096, feed.number(2) as usize);
        let at = (page + if feed.flip() { at % 128 } else { at % 4096 }) % file.len();
        match feed.below(5) {
            0 => file[at] ^= 1 << feed.below(8),
            1 => file[at] = feed.number(1) as u8,
            2 => {
                let piece = feed.bytes(4);
                let end = (at + piece.len()).min(file.len());
                file[at..end].copy_from_slice(&piece[..end - at]);
            }
            3 => {
                let (from, to) = (at / 4096 * 4096, feed.below(64) * 4096);
                if to + 4096 <= file.len() && from + 4096 <= file.len() {
                    file.copy_within(from..from + 4096, to);
                }
            }
            _ => file.truncate(at),
        }
    }
    file
}

/// A database file with damage: whatever is said of it is right, or an error that says "damaged".
pub(super) fn index_file(bytes: &[u8]) -> String {
    SOUND.with_borrow_mut(|slot| {
        let sound = slot.get_or_insert_with(sound);
        let mut feed = Feed::new(bytes);
        let mode = [OpenMode::Existing, OpenMode::ReadOnly, OpenMode::Create][feed.below(3)];
        let log = if feed.flip() {
            Some(feed.piece())
        } else {
            None
        };
        let file = sound.dir.path().join("damaged.db");
        for suffix in ["-wal", "-shm"] {
            // Nothing is there where the last input left nothing.
            let _absent = fs::remove_file(sound.dir.path().join(format!("damaged.db{suffix}")));
        }
        if let Some(log) = log {
            fs::write(sound.dir.path().join("damaged.db-wal"), log).expect("it can be written");
        }
        fs::write(&file, damaged(&sound.bytes, &mut feed)).expect("it can be written");
        let read = SqliteStore::open(&file, mode).and_then(|mut store| everything(&mut store));
        match read {
            Ok((rows, is_clean)) => {
                let known = |row: &(RelPath, Row)| sound.rows.contains(row);
                assert!(rows.iter().all(known), "a row that nobody wrote");
                let is_new = mode == OpenMode::Create && rows.is_empty();
                assert!(
                    !is_clean || is_new || rows.len() == ROWS,
                    "a row is missing unnoticed"
                );
                format!("{mode:?}, {} rows, clean {is_clean}", rows.len().min(1))
            }
            Err(e) => {
                let kind = e.kind();
                let told = matches!(
                    kind,
                    ErrorKind::Corrupt | ErrorKind::Newer | ErrorKind::ReadOnly
                );
                assert!(told, "{kind:?}: {e}");
                format!("{mode:?}, {kind:?}")
            }
        }
    })
}

type Read = (Vec<(RelPath, Row)>, bool);

fn everything(store: &mut SqliteStore) -> instep_store::Result<Read> {
    let mut rows = Vec::new();
    store.subtree(&RelPath::root(), &mut |path, row| {
        rows.push((path, row));
        ControlFlow::Continue(())
    })?;
    for table in Table::ALL {
        store.records(table, &mut |_, body| {
            assert_eq!(body, [7; 300], "a record that nobody wrote");
            ControlFlow::Continue(())
        })?;
    }
    let report = store.check()?;
    Ok((rows, report.is_clean()))
}

/// Damage to begin with.
pub(super) fn damage_seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![Vec::new(), vec![0], vec![1], vec![2]];
    for page in 0..14_u8 {
        seeds.push(vec![0, 0, page, 3, 0, 1, 1, 0]);
        seeds.push(vec![1, 0, page, 0, 2, 0, 0, 3]);
        seeds.push(vec![2, 1, 4, 0, 1, 2, 3, 4, page, 9, 0, 1, 4]);
    }
    seeds
}
