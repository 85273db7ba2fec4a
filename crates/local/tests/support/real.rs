//! A replica on a real directory, and a user who edits that directory through `std::fs`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use instep_core::id::ShareId;
use instep_core::path::{Name, RESERVED, RelPath};
use instep_core::policy::Role;
use instep_core::time::Mtime;
use instep_fs::place;
use instep_local::{IgnoreOptions, LocalReplica, OpenOptions, ShareChoice};
use instep_replica::conformance::User;
use instep_replica::env::Env;
use instep_replica::memory::Object;
use instep_testkit::scratch::Scratch;

/// The share that every test uses.
pub(crate) const SHARE: ShareId = ShareId([7; 16]);

/// Time that passes in one go, at most; the rest is added to the clock.
const REAL_MS: u64 = 25;

/// The machine, with a monotonic clock that can be moved forward.
pub(crate) struct RealEnv {
    ahead_ns: AtomicU64,
    boot: String,
}

impl RealEnv {
    /// As the machine is.
    pub(crate) fn new() -> Arc<Self> {
        Self::booted("boot-1")
    }

    /// After another boot.
    pub(crate) fn booted(boot: &str) -> Arc<Self> {
        place::ignore_lease_signals();
        Arc::new(Self {
            ahead_ns: AtomicU64::new(0),
            boot: boot.to_owned(),
        })
    }

    /// Lets time pass: really, as far as a file system's clock may need it.
    pub(crate) fn pass_ms(&self, ms: u64) {
        std::thread::sleep(Duration::from_millis(ms.min(REAL_MS)));
        self.ahead_ns
            .fetch_add(ms.saturating_sub(REAL_MS) * 1_000_000, Ordering::SeqCst);
    }
}

impl Env for RealEnv {
    fn wall_ns(&self) -> i64 {
        place::wall_clock_ns()
    }

    fn monotonic_ns(&self) -> u64 {
        place::monotonic().as_nanos() as u64 + self.ahead_ns.load(Ordering::SeqCst)
    }

    fn sleep_ms(&self, ms: u64) {
        std::thread::sleep(Duration::from_millis(ms));
    }

    fn random(&self) -> [u8; 16] {
        place::random_bytes().unwrap()
    }

    fn workers(&self) -> usize {
        2
    }

    fn boot_id(&self) -> String {
        self.boot.clone()
    }

    fn spawn(&self, name: &str, work: Box<dyn FnOnce() + Send>) {
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(work)
            .unwrap();
    }
}

/// How a root is opened unless a test wants it otherwise.
pub(crate) fn options(root: &Path, state_dir: &Path) -> OpenOptions {
    OpenOptions {
        label: root
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default(),
        location: root.display().to_string(),
        path: root.to_path_buf(),
        role: Role::Both,
        share: ShareChoice::Existing(SHARE),
        mirror: false,
        create: true,
        preview: false,
        read_only_index: false,
        state_dir: state_dir.to_path_buf(),
        poll: None,
        ignore: IgnoreOptions::default(),
        trash_days: 30,
        owner: false,
        xattr: false,
        command: "a test".into(),
    }
}

/// A user with a directory of their own.
#[derive(Debug, Clone)]
pub(crate) struct RealUser {
    root: PathBuf,
}

/// Reaches a name below an open directory, at any depth.
fn below(dir: &File, name: Name<'_>) -> PathBuf {
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    path.push(OsStr::from_bytes(name.as_bytes()));
    path
}

impl RealUser {
    /// Of a root.
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
        }
    }

    /// The open parent directory, made where it is missing, and the path by which the name is reached.
    fn reach(&self, path: &RelPath, make: bool) -> io::Result<(File, PathBuf)> {
        let (parent, name) = path.split().ok_or(io::ErrorKind::InvalidInput)?;
        let mut dir = File::open(&self.root)?;
        for step in parent.components() {
            let at = below(&dir, step);
            if make && !at.exists() {
                fs::create_dir(&at)?;
            }
            dir = File::open(at)?;
        }
        let at = below(&dir, name);
        Ok((dir, at))
    }

    fn collect(dir: &File, at: &RelPath, out: &mut BTreeMap<RelPath, Object>) -> io::Result<()> {
        for entry in fs::read_dir(format!("/proc/self/fd/{}", dir.as_raw_fd()))? {
            let name = entry?.file_name();
            if at.is_root() && name.as_bytes() == RESERVED {
                continue;
            }
            let name = Name::new(name.as_bytes()).map_err(io::Error::other)?;
            let (path, here) = (at.join(name), below(dir, name));
            let meta = fs::symlink_metadata(&here)?;
            let mode = (meta.permissions().mode() & 0o777) as u16;
            let mtime = Mtime {
                secs: meta.mtime(),
                nanos: meta.mtime_nsec() as u32,
            };
            let object = if meta.is_dir() {
                Self::collect(&File::open(&here)?, &path, out)?;
                Object::Dir { mode }
            } else if meta.is_symlink() {
                let target = fs::read_link(&here)?.into_os_string().into_encoded_bytes();
                Object::Link { target, mtime }
            } else {
                Object::File {
                    bytes: fs::read(&here)?,
                    mode,
                    mtime,
                }
            };
            out.insert(path, object);
        }
        Ok(())
    }
}

impl User for RealUser {
    fn write(&self, path: &RelPath, bytes: &[u8]) -> io::Result<()> {
        let (_dir, at) = self.reach(path, true)?;
        fs::write(at, bytes)
    }

    fn remove(&self, path: &RelPath) -> io::Result<()> {
        let (_dir, at) = self.reach(path, false)?;
        if fs::symlink_metadata(&at)?.is_dir() {
            fs::remove_dir_all(at)
        } else {
            fs::remove_file(at)
        }
    }

    fn rename(&self, from: &RelPath, to: &RelPath) -> io::Result<()> {
        let ((_from_dir, from), (_to_dir, to)) = (self.reach(from, false)?, self.reach(to, true)?);
        fs::rename(from, to)
    }

    fn mkdir(&self, path: &RelPath) -> io::Result<()> {
        let (_dir, at) = self.reach(path, true)?;
        fs::create_dir(at)
    }

    fn symlink(&self, path: &RelPath, target: &[u8]) -> io::Result<()> {
        let (_dir, at) = self.reach(path, true)?;
        std::os::unix::fs::symlink(OsStr::from_bytes(target), at)
    }

    fn chmod(&self, path: &RelPath, mode: u16) -> io::Result<()> {
        let (_dir, at) = self.reach(path, false)?;
        fs::set_permissions(at, fs::Permissions::from_mode(u32::from(mode)))
    }

    fn read(&self, path: &RelPath) -> io::Result<Vec<u8>> {
        let (_dir, at) = self.reach(path, false)?;
        fs::read(at)
    }

    fn tree(&self) -> io::Result<BTreeMap<RelPath, Object>> {
        let mut out = BTreeMap::new();
        Self::collect(&File::open(&self.root)?, &RelPath::root(), &mut out)?;
        Ok(out)
    }
}

/// A real directory with a replica, and everything around it.
pub(crate) struct Real {
    /// Gone when the test ends.
    pub(crate) scratch: Scratch,
    /// The clock.
    pub(crate) env: Arc<RealEnv>,
    /// The root.
    pub(crate) root: PathBuf,
    /// The replica; none while it is closed.
    pub(crate) replica: Option<LocalReplica>,
    /// Its user.
    pub(crate) user: RealUser,
}

impl Real {
    /// A fresh, empty root below a directory, which decides the file system.
    pub(crate) fn below(parent: &Path) -> Self {
        let scratch = Scratch::new_in(parent).unwrap();
        let root = scratch.dir("root").unwrap();
        let mut real = Self {
            env: RealEnv::new(),
            user: RealUser::new(&root),
            replica: None,
            root,
            scratch,
        };
        real.open();
        real
    }

    /// A fresh, empty root among the temporary files.
    pub(crate) fn new() -> Self {
        Self::below(&std::env::temp_dir())
    }

    /// Where the user's state is.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.scratch.path().join("state")
    }

    /// How the root is opened.
    pub(crate) fn options(&self) -> OpenOptions {
        options(&self.root, &self.state_dir())
    }

    /// Opens the replica.
    pub(crate) fn open(&mut self) {
        self.replica = Some(LocalReplica::open(self.env.clone(), self.options()).unwrap());
    }

    /// The replica.
    pub(crate) fn replica(&self) -> &LocalReplica {
        self.replica.as_ref().unwrap()
    }
}
