//! The hub's directory: its key, its book, and a directory for each share.
//!
//! Invariants: one process has it open; the book on the disk is one that was written whole, and it is durable before a
//! change of it counts.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use instep_core::path::Name;
use instep_fs::{Dir, ErrorKind, LockFile, place};
use instep_wire::identity::DeviceKey;

use super::rights::{Book, Refusal};
use crate::error::{Exit, Failure};
use crate::small_file;

const BOOK: &str = "hub.json";
const KEY: &str = "device.key";
const LOCK: &str = "lock";
const SHARES: &str = "shares";
/// A book of so many bytes has some hundred thousand members.
const BOOK_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The directory, open.
pub(crate) struct Data {
    path: PathBuf,
    dir: Dir,
    key: DeviceKey,
    book: Mutex<Book>,
    _lock: LockFile,
}

fn name(text: &str) -> Result<Name<'_>, Failure> {
    Name::new(text.as_bytes())
        .map_err(|_| Failure::new(1900, Exit::Failed, format!("{text} is no file name")))
}

impl Data {
    /// Opens it, and makes what is missing.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let failed = |e: instep_fs::Error| {
            let what = format!("{} cannot be the directory of a hub", path.display());
            Failure::new(1060, Exit::Failed, what)
                .why(e.to_string())
                .remedy("name a directory that this user may write: --data DIR")
        };
        place::create_dir_all(path, 0o700).map_err(failed)?;
        let path = place::canonical(path).map_err(failed)?;
        let dir = place::open_root(&path).map_err(failed)?;
        let lock = dir.try_lock(name(LOCK)?).map_err(failed)?;
        let lock = lock.ok_or_else(|| {
            Failure::new(1061, Exit::InUse, format!("{} is in use", path.display()))
                .why("another hub runs with this directory")
                .remedy("stop it, or name another directory: --data DIR")
        })?;
        match dir.make_dir(name(SHARES)?, 0o700) {
            Err(e) if e.kind() != ErrorKind::Taken => return Err(failed(e)),
            Ok(()) | Err(_) => {}
        }
        let key = DeviceKey::load_or_create(&dir, KEY).map_err(|e| {
            Failure::new(1062, Exit::Denied, "the key of the hub cannot be used")
                .why(e.to_string())
                .remedy(format!("chmod 600 {}", path.join(KEY).display()))
        })?;
        let book = read(&dir, &path)?;
        Ok(Self {
            path,
            dir,
            key,
            book: Mutex::new(book),
            _lock: lock,
        })
    }

    /// The hub's key.
    pub(crate) fn key(&self) -> &DeviceKey {
        &self.key
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of a share.
    pub(crate) fn share(&self, id: &str) -> PathBuf {
        self.path.join(SHARES).join(id)
    }

    /// What is written in the book now.
    pub(crate) fn book(&self) -> Book {
        self.lock().clone()
    }

    /// Asks the book something.
    pub(crate) fn ask<T>(&self, ask: impl FnOnce(&Book) -> T) -> T {
        ask(&self.lock())
    }

    /// Changes the book, durably or not at all.
    pub(crate) fn change<T>(
        &self,
        change: impl FnOnce(&mut Book) -> Result<T, Refusal>,
    ) -> Result<T, Unchanged> {
        let mut book = self.lock();
        let mut next = book.clone();
        let done = change(&mut next).map_err(Unchanged::Refused)?;
        if next != *book {
            self.write(&next).map_err(Unchanged::Failed)?;
            *book = next;
        }
        Ok(done)
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, book: &Book) -> Result<(), Failure> {
        let failed = |e: instep_fs::Error| {
            Failure::new(1063, Exit::Failed, "the book of the hub cannot be written")
                .why(e.to_string())
                .effect("who may do what is as it was")
        };
        let bytes = serde_json::to_vec_pretty(book)
            .map_err(|e| Failure::new(1900, Exit::Failed, "write JSON").why(e.to_string()))?;
        small_file::replace(&self.dir, BOOK, &bytes).map_err(failed)
    }
}

/// Why the book is as it was.
#[derive(Debug)]
pub(crate) enum Unchanged {
    /// It cannot say that.
    Refused(Refusal),
    /// The disk did not take it.
    Failed(Failure),
}

fn read(dir: &Dir, path: &Path) -> Result<Book, Failure> {
    let at = path.join(BOOK);
    let damaged = |why: String| {
        let what = format!("{} cannot be read", at.display());
        Failure::new(1064, Exit::Damage, what)
            .why(why)
            .effect("the hub does not start: nobody could be told who may do what")
            .remedy("bring the file back from a backup of the directory")
            .remedy("or move it away: all members have to join again")
    };
    let text = small_file::read(dir, BOOK, BOOK_BYTES_MAX).map_err(|e| damaged(e.to_string()))?;
    let Some(text) = text else {
        return Ok(Book::default());
    };
    let book: Book = serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
    if book.is_sound() {
        Ok(book)
    } else {
        Err(damaged("a name or an identity in it is none".into()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use instep_core::id::ShareId;
    use instep_wire::identity::DeviceId;

    use super::super::rights::{Caller, Grant, Kept, Right};
    use super::*;

    #[test]
    fn what_was_granted_is_granted_after_a_restart() {
        let at = tempfile::tempdir().unwrap();
        let data = Data::open(at.path()).unwrap();
        let device = DeviceId([4; 32]);
        let key = data.key().id();
        let kept = Kept::new(ShareId([1; 16]));
        data.change(|book| {
            book.add_share("team", kept)?;
            book.give(device, "bo", &Grant::Share("team".into(), Right::Write))
        })
        .unwrap();
        assert_eq!(Data::open(at.path()).unwrap_err_code(), 1061, "one process");
        drop(data);
        let again = Data::open(at.path()).unwrap();
        assert_eq!(again.key().id(), key);
        let right = again.ask(|book| book.right(Caller::Device(device), "team"));
        assert_eq!(right, Some(Right::Write));
    }

    #[test]
    fn a_book_that_is_damaged_admits_nobody_and_is_left_as_it_is() {
        let at = tempfile::tempdir().unwrap();
        drop(Data::open(at.path()).unwrap());
        for text in [
            "{",
            r#"{"members":{"x":{"name":"a","admin":true,"rights":{}}},"shares":{}}"#,
        ] {
            std::fs::write(at.path().join(BOOK), text).unwrap();
            assert_eq!(Data::open(at.path()).unwrap_err_code(), 1064, "{text}");
            assert_eq!(std::fs::read_to_string(at.path().join(BOOK)).unwrap(), text);
        }
    }

    trait Code {
        fn unwrap_err_code(self) -> u16;
    }

    impl Code for Result<Data, Failure> {
        fn unwrap_err_code(self) -> u16 {
            self.err().unwrap().code
        }
    }
}
