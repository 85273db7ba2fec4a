//! Small files of ours that are read and replaced as a whole.
//!
//! Invariant: whatever happens in between, the name stands for what was written last or for what was there before.

use instep_core::path::Name;
use instep_fs::{Dir, Error, ErrorKind, Result};
use rustix::io::Errno;

/// What goes before a name while its next content is written.
const NEW: &str = ".new";

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
    let open = dir.open_file(name(file)?)?;
    let mut bytes = vec![0; usize::try_from(stat.size).unwrap_or(0)];
    let mut at = 0;
    while at < bytes.len() {
        match open.read_at(at as u64, &mut bytes[at..])? {
            0 => break,
            n => at += n,
        }
    }
    bytes.truncate(at);
    Ok(Some(bytes))
}

/// Puts a content in the place of what was there, durably. One process at a time.
pub(crate) fn replace(dir: &Dir, file: &str, bytes: &[u8]) -> Result<()> {
    let new = format!("{file}{NEW}");
    let (new, file) = (name(&new)?, name(file)?);
    match dir.remove_file(new) {
        Err(e) if e.kind() != ErrorKind::Absent => return Err(e),
        Ok(()) | Err(_) => {}
    }
    let written = dir.create_file(new, 0o600)?;
    written.write_all_at(0, bytes)?;
    written.sync_data()?;
    dir.rename_over(new, dir, file)?;
    dir.sync()
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
