//! The books of the contract in the tables of the index.
//!
//! Owns where each book is kept. Invariant: what the hub knows about itself, which is kept in the same table as the
//! share's settings, is not part of any book.

use std::ops::ControlFlow;

use instep_replica::Book;
use instep_replica::Result;
use instep_store::Table;

use crate::index::store_error;
use crate::state::State;

/// What keys of the share's book begin with, among what the hub knows about itself.
const SHARE: &str = "book-";

fn table(book: Book) -> Table {
    match book {
        Book::Share => Table::Meta,
        Book::Conflicts => Table::Conflict,
        Book::Holds => Table::Hold,
        Book::Trash => Table::Trash,
        Book::Log => Table::Log,
    }
}

fn key_of(book: Book, key: &str) -> String {
    let prefix = if book == Book::Share { SHARE } else { "" };
    format!("{prefix}{key}")
}

impl State {
    /// One record.
    pub(crate) fn read_book(&mut self, book: Book, key: &str) -> Result<Option<String>> {
        let key = key_of(book, key);
        let body = self.index.store().record(table(book), key.as_bytes());
        let body = body.map_err(|e| store_error("read a record", e))?;
        Ok(body.and_then(|b| String::from_utf8(b).ok()))
    }

    /// Writes or removes one record.
    pub(crate) fn write_book(&mut self, book: Book, key: &str, body: Option<&str>) -> Result<()> {
        let key = key_of(book, key);
        let store = self.index.store();
        let written = match body {
            Some(body) => store.put_record(table(book), key.as_bytes(), body.as_bytes()),
            None => store.remove_record(table(book), key.as_bytes()),
        };
        written.map_err(|e| store_error("write a record", e))
    }

    /// All records of a book, by key. What lost a conflict is listed with what is in the trash.
    pub(crate) fn book(&mut self, book: Book) -> Result<Vec<(String, String)>> {
        let mut out = Vec::new();
        let stored = (book == Book::Trash).then_some(Table::Stored);
        for table in std::iter::once(table(book)).chain(stored) {
            let mut read = |key: &[u8], body: &[u8]| {
                let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
                let key = text(key);
                let key = if book == Book::Share {
                    key.strip_prefix(SHARE).map(String::from)
                } else {
                    Some(key)
                };
                out.extend(key.map(|key| (key, text(body))));
                ControlFlow::Continue(())
            };
            let read = self.index.store().records(table, &mut read);
            read.map_err(|e| store_error("read records", e))?;
        }
        Ok(out)
    }
}
