//! The database library takes each path as it is given.
//!
//! Owns one file system of the library: its own for Unix, but for the call that makes a path absolute. That one
//! resolves all links in `/proc/self/fd/N/index.db`, once, and the library then opens and unlinks the log, the journal
//! and the shared memory by what it found: where the directory is renamed meanwhile and a link takes its place, these are
//! files of somebody else. A path that stays as it is leads through the open directory each time.
//!
//! A crate of its own because it needs `unsafe`, which the only crate that knows the database does not allow.
//! **Boundary:** nothing here opens anything.

use std::ffi::{CStr, c_char, c_int};
use std::ptr;
use std::sync::OnceLock;

use rusqlite::ffi;

/// What the library knows this file system by.
const NAME: &CStr = c"instep-as-given";

/// The name to open connections with; none when the library refuses. Their paths have to be absolute, without a link in
/// them that anybody else may change, and have to mean the same for as long as any connection to the file is open.
pub fn as_given() -> Option<&'static CStr> {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    REGISTERED.get_or_init(register).then_some(NAME)
}

#[expect(
    unsafe_code,
    reason = "the library's file systems are tables of C functions"
)]
fn register() -> bool {
    // SAFETY: the call initialises the library and may be made at any time.
    let unix = unsafe { ffi::sqlite3_vfs_find(c"unix".as_ptr()) };
    // SAFETY: what was found is a table that lives and stays the same as long as the process, but for its link to
    // the next one, which changes only in the calls below, and this function runs once.
    let Some(unix) = (unsafe { unix.as_ref() }) else {
        return false;
    };
    let ours = Box::new(ffi::sqlite3_vfs {
        pNext: ptr::null_mut(),
        zName: NAME.as_ptr(),
        xFullPathname: Some(full_path),
        ..*unix
    });
    // SAFETY: the table is never freed or touched again, its name is static, and its other functions expect nothing of
    // the table that they are called with but what was copied: the library has several names for this set itself.
    unsafe { ffi::sqlite3_vfs_register(Box::into_raw(ours), 0) == ffi::SQLITE_OK }
}

/// The path itself, if it is absolute and fits.
#[expect(unsafe_code, reason = "called by the library with pointers")]
unsafe extern "C" fn full_path(
    _: *mut ffi::sqlite3_vfs,
    path: *const c_char,
    room: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: the library hands over a string that ends with a zero and outlives the call.
    let bytes = unsafe { CStr::from_ptr(path) }.to_bytes_with_nul();
    if bytes[0] != b'/' || usize::try_from(room).map_or(true, |room| bytes.len() > room) {
        return ffi::SQLITE_CANTOPEN;
    }
    // SAFETY: `out` has `room` bytes, which is enough, and is the library's own buffer, not the path.
    unsafe { ptr::copy_nonoverlapping(path, out, bytes.len()) };
    ffi::SQLITE_OK
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;
    use rusqlite::{Connection, OpenFlags};
    use std::fs::{self, File};
    use std::os::fd::AsRawFd as _;
    use std::path::Path;

    fn open(path: &Path) -> rusqlite::Result<Connection> {
        Connection::open_with_flags_and_vfs(path, OpenFlags::default(), as_given().unwrap())
    }

    #[test]
    fn a_journal_is_made_where_a_link_took_the_place_of_the_directory() {
        for mode in ["wal", "delete", "truncate"] {
            let temp = tempfile::tempdir().unwrap();
            let [here, moved, other] = ["here", "moved", "other"].map(|n| temp.path().join(n));
            fs::create_dir(&here).unwrap();
            fs::create_dir(&other).unwrap();
            let dir = File::open(&here).unwrap();
            let path = format!("/proc/self/fd/{}/db", dir.as_raw_fd());
            let conn = open(path.as_ref()).unwrap();
            fs::rename(&here, &moved).unwrap();
            std::os::unix::fs::symlink(&other, &here).unwrap();
            for bait in ["db", "db-wal", "db-shm", "db-journal"] {
                fs::write(other.join(bait), "a file of somebody else").unwrap();
            }
            conn.pragma_update_and_check(None, "journal_mode", mode, |_| Ok(()))
                .unwrap();
            conn.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)")
                .unwrap();
            assert_eq!(conn.path(), Some(&path[..]));
            drop(conn);
            let left = fs::read_dir(&other).unwrap().map(|e| e.unwrap().path());
            let left: Vec<_> = left.map(|p| fs::read_to_string(p).unwrap()).collect();
            assert_eq!(left, ["a file of somebody else"; 4], "{mode}");
            assert!(fs::metadata(moved.join("db")).unwrap().len() > 0, "{mode}");
            assert!(!moved.join("db-wal").exists(), "{mode}");
        }
    }

    #[test]
    fn a_path_that_depends_on_where_the_process_stands_is_opened() {
        let path = Path::new("db-of-no-place");
        let opened = open(path);
        // A trial that fails leaves nothing that lets the next one fail.
        let was_made = fs::remove_file(path).is_ok();
        assert!(opened.is_err() && !was_made);
    }

    #[test]
    fn a_path_that_does_not_fit_is_cut() {
        let temp = tempfile::tempdir().unwrap();
        let long = temp.path().join("x".repeat(200)).join("y".repeat(200));
        fs::create_dir_all(&long).unwrap();
        assert!(open(&long.join("z".repeat(200))).is_err());
        assert_eq!(fs::read_dir(&long).unwrap().count(), 0);
    }
}
