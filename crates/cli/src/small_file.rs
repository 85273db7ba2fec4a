//! Small files of the front end's own, by names that are constants of this program.
//!
//! Invariant: one that is longer than any of ours is refused, and never read in part.

use instep_core::path::Name;
use instep_fs::{Dir, Error, Result, small_file};
use rustix::io::Errno;

fn name(text: &str) -> Result<Name<'_>> {
    // Names are constants of this program.
    Name::new(text.as_bytes())
        .map_err(|_| Error::new(format!("use {text} as a name"), Errno::INVAL.raw_os_error()))
}

/// The content of a file of at most so many bytes; `None` where there is none.
pub(crate) fn read(dir: &Dir, file: &str, most: u64) -> Result<Option<Vec<u8>>> {
    let Some(stat) = dir.stat(name(file)?)? else {
        return Ok(None);
    };
    if stat.size > most {
        let attempt = format!("read {} bytes of {file}", stat.size);
        return Err(Error::new(attempt, Errno::FBIG.raw_os_error()));
    }
    small_file::read(dir, name(file)?, most).map(Some)
}

/// Puts a content in the place of what was there, durably. One process at a time.
pub(crate) fn replace(dir: &Dir, file: &str, bytes: &[u8]) -> Result<()> {
    let draft = format!("{file}.new");
    small_file::replace(dir, name(file)?, name(&draft)?, bytes, |_| ())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn what_a_crash_left_half_written_is_in_nobodys_way() {
        let at = tempfile::tempdir().unwrap();
        let dir = instep_fs::place::open_root(at.path()).unwrap();
        assert_eq!(read(&dir, "book", 100).unwrap(), None);
        std::fs::write(at.path().join("book.new"), "half").unwrap();
        replace(&dir, "book", b"one").unwrap();
        replace(&dir, "book", b"two").unwrap();
        assert_eq!(read(&dir, "book", 100).unwrap(), Some(b"two".to_vec()));
        assert!(read(&dir, "book", 2).is_err(), "longer than any of ours");
    }
}
