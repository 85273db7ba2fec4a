//! Operator paths: the only path strings in this crate. Opening a root, the user's state directory, the
//! runtime directory; mount table; boot id; the process's own limits.
//!
//! Never used below a root: there, everything goes through [`Dir`].

use std::ffi::OsString;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{Access, AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};

use crate::api::{Error, Result};
use crate::dir::{Dir, DirImpl};
use crate::os::OsDir;

/// One line of the mount table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it is mounted.
    pub path: PathBuf,
    /// The type: `ext4`, `fuse.sshfs`.
    pub fs_type: String,
    /// The device number that [`crate::Stat`] shows there.
    pub dev: u64,
}

fn failed(attempt: &str, path: &Path, e: &std::io::Error) -> Error {
    let errno = e.raw_os_error().unwrap_or(Errno::IO.raw_os_error());
    Error::new(
        format!(
            "{attempt} \"{}\"",
            path.as_os_str().to_string_lossy().escape_debug()
        ),
        errno,
    )
}

/// Opens a root. Links on the way are followed, the last component must be a directory itself.
pub fn open_root(path: &Path) -> Result<Dir> {
    let place = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => {
            let parent = if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            };
            canonical(parent)?.join(name)
        }
        _ => canonical(path)?,
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(&place, flags, Mode::empty())
        .map(|fd| Dir::from(OsDir::from(fd)))
        .map_err(|e| {
            Error::new(
                format!(
                    "open directory \"{}\"",
                    path.to_string_lossy().escape_debug()
                ),
                e.raw_os_error(),
            )
        })
}

/// Whether names may be made in a directory: an error says why not.
pub fn may_write(path: &Path) -> Result<()> {
    let access = Access::WRITE_OK | Access::EXEC_OK;
    rustix::fs::accessat(rustix::fs::CWD, path, access, AtFlags::EACCESS)
        .map_err(|e| failed("write in", path, &std::io::Error::from(e)))
}

/// The path without links and dots.
pub fn canonical(path: &Path) -> Result<PathBuf> {
    std::fs::canonicalize(path).map_err(|e| failed("resolve", path, &e))
}

/// Creates one directory.
pub fn create_dir(path: &Path, mode: u32) -> Result<()> {
    let made = std::fs::DirBuilder::new().mode(mode).create(path);
    made.map_err(|e| failed("create directory", path, &e))
}

/// Creates a directory and what is missing above it, all with this mode; fine when it is there.
pub fn create_dir_all(path: &Path, mode: u32) -> Result<()> {
    let made = std::fs::DirBuilder::new()
        .mode(mode)
        .recursive(true)
        .create(path);
    made.map_err(|e| failed("create directory", path, &e))
}

/// Which boot of the machine this is; empty where the system does not say.
pub fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    text.map(|t| t.trim().to_owned()).unwrap_or_default()
}

/// Which machine this is, where the system says.
pub fn machine_id() -> Option<String> {
    let text = std::fs::read_to_string("/etc/machine-id").ok()?;
    Some(text.trim().to_owned()).filter(|t| !t.is_empty())
}

/// What people call this machine; empty where the system does not say.
pub fn machine_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// The mount table of this process.
pub fn mounts() -> Result<Vec<Mount>> {
    let table = Path::new("/proc/self/mountinfo");
    let text = std::fs::read(table).map_err(|e| failed("read", table, &e))?;
    Ok(text.split(|b| *b == b'\n').filter_map(mount).collect())
}

/// `36 35 98:0 /root /mnt/point rw shared:1 - ext4 /dev/sda1 rw`, with any number of tags before the dash.
fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|b| *b == b' ');
    let (major, minor) = core::str::from_utf8(fields.nth(2)?).ok()?.split_once(':')?;
    let path = PathBuf::from(OsString::from_vec(unescaped(fields.nth(1)?)));
    fields.find(|f| *f == b"-")?;
    let fs_type = String::from_utf8_lossy(fields.next()?).into_owned();
    let dev = rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?);
    Some(Mount { path, fs_type, dev })
}

/// Undoes the `\040` of the mount table.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        match tail {
            [
                a @ b'0'..=b'3',
                b @ b'0'..=b'7',
                c @ b'0'..=b'7',
                after @ ..,
            ] if *first == b'\\' => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => out.push(*first),
        }
    }
    out
}

/// The wall clock, in nanoseconds since 1970.
pub fn wall_clock_ns() -> i64 {
    let nanos = |d: Duration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
    match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => nanos(since),
        Err(before) => -nanos(before.duration()),
    }
}

/// Waits: for opening roots, where another process may hold a lock for a moment.
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Time that never goes back, since the first call in this process.
pub fn monotonic() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// Unpredictable bytes.
pub fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut done = 0;
    while done < N {
        let flags = rustix::rand::GetRandomFlags::empty();
        match rustix::rand::getrandom(&mut bytes[done..], flags) {
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(e) => return Err(Error::new("draw random bytes", e.raw_os_error())),
        }
    }
    Ok(bytes)
}

/// Raises the limit of open files to the most that is allowed, and returns it.
pub fn raise_open_files() -> Result<u64> {
    let now = rustix::process::getrlimit(Resource::Nofile);
    if now.current != now.maximum {
        let most = Rlimit {
            current: now.maximum,
            maximum: now.maximum,
        };
        rustix::process::setrlimit(Resource::Nofile, most)
            .map_err(|e| Error::new("raise the limit of open files", e.raw_os_error()))?;
    }
    Ok(now.maximum.unwrap_or(u64::MAX))
}

/// Lowers the limit of open files to this many, or to the most that is allowed.
pub fn limit_open_files(most: u64) -> Result<()> {
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    let current = Some(maximum.map_or(most, |m| most.min(m)));
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current, maximum })
        .map_err(|e| Error::new("lower the limit of open files", e.raw_os_error()))
}

/// How many directories this user may watch in all; 0 where the system does not say.
pub fn watch_limit() -> u64 {
    inotify_limit("max_user_watches")
}

/// How many watchers this user may have in all; 0 where the system does not say.
pub fn watcher_limit() -> u64 {
    inotify_limit("max_user_instances")
}

fn inotify_limit(name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/sys/fs/inotify/{name}"));
    text.ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0)
}

/// How many files this process may ever have open.
pub fn open_files_limit() -> u64 {
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    maximum.unwrap_or(u64::MAX)
}

/// Sets the mode bits that this process never gives to what it creates.
pub fn set_umask(mask: u32) {
    rustix::process::umask(Mode::from_raw_mode(mask));
}

/// Ignores the signal by which the kernel asks for a lease back, which would end the process.
pub fn ignore_lease_signals() {
    #[expect(unsafe_code, reason = "rustix does not set signal dispositions")]
    // SAFETY: SIG_IGN runs no code of ours, and SIGIO has no other use in this process.
    unsafe {
        libc::signal(libc::SIGIO, libc::SIG_IGN);
    }
}

/// Ignores the signal that a write beyond the limit of file sizes raises, which would end the process: the
/// write fails, and concerns its file alone.
pub fn ignore_size_signals() {
    #[expect(unsafe_code, reason = "rustix does not set signal dispositions")]
    // SAFETY: SIG_IGN runs no code of ours, and SIGXFSZ has no other use in this process.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// A path of a name in an open directory, for libraries that take nothing but paths. Valid as long as the
/// directory is open. A simulated directory has none, and gets a path that cannot exist.
pub fn fd_path(dir: &Dir, name: &str) -> PathBuf {
    let number = match &dir.0 {
        DirImpl::Os(dir) => dir.fd().as_raw_fd(),
        #[cfg(feature = "sim")]
        DirImpl::Sim(_) => -1,
    };
    PathBuf::from(format!("/proc/self/fd/{number}/{name}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn a_mount_point_with_a_space_is_found() {
        let line = br"36 35 98:2 / /mnt/a\040b rw,noatime shared:1 master:2 - fuse.sshfs x rw";
        let found = mount(line).unwrap();
        assert_eq!(found.path, Path::new("/mnt/a b"));
        assert_eq!(found.fs_type, "fuse.sshfs");
        assert_eq!(found.dev, rustix::fs::makedev(98, 2));
        assert_eq!(mount(b""), None);
        assert!(
            mounts()
                .unwrap()
                .iter()
                .any(|m| m.path == Path::new("/proc"))
        );
    }

    #[test]
    fn a_root_that_is_a_link_or_a_file_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        create_dir(&at("d"), 0o700).unwrap();
        std::fs::write(at("f"), b"").unwrap();
        std::os::unix::fs::symlink("d", at("l")).unwrap();
        create_dir(&at("d/e"), 0o700).unwrap();
        assert!(open_root(&at("d")).is_ok());
        assert!(
            open_root(&at("l/e")).is_ok(),
            "a link on the way is the operator's business"
        );
        assert_eq!(
            open_root(&at("l")).unwrap_err().kind(),
            ErrorKind::OtherKind
        );
        assert_eq!(
            open_root(&at("f")).unwrap_err().kind(),
            ErrorKind::OtherKind
        );
        assert_eq!(
            open_root(&at("none")).unwrap_err().kind(),
            ErrorKind::Absent
        );
        assert_eq!(
            create_dir(&at("d"), 0o700).unwrap_err().kind(),
            ErrorKind::Taken
        );
        create_dir_all(&at("x/y/z"), 0o700).unwrap();
        create_dir_all(&at("x/y/z"), 0o700).unwrap();
        assert!(open_root(Path::new("/")).is_ok());
        assert!(open_root(Path::new(".")).is_ok());
    }

    #[test]
    fn a_library_can_open_a_file_through_the_directory() {
        let temp = tempfile::tempdir().unwrap();
        let dir = open_root(temp.path()).unwrap();
        std::fs::write(fd_path(&dir, "db"), b"x").unwrap();
        assert_eq!(std::fs::read(temp.path().join("db")).unwrap(), b"x");
    }

    #[test]
    fn the_process_knows_its_surroundings() {
        assert_eq!(boot_id().len(), 36);
        assert!(machine_id().is_none_or(|id| !id.contains('\n')));
        assert!(wall_clock_ns() > 1_700_000_000 * 1_000_000_000);
        let (first, second) = (monotonic(), monotonic());
        assert!(second >= first);
        assert_ne!(random_bytes::<16>().unwrap(), random_bytes::<16>().unwrap());
        let limit = raise_open_files().unwrap();
        let now = rustix::process::getrlimit(Resource::Nofile)
            .current
            .unwrap_or(u64::MAX);
        assert_eq!(now, limit);
    }
}
