//! File systems of the trials' own: the few requests of the FUSE protocol that they need, in safe code.
//!
//! Owns the mount and the threads that answer. Invariant: the mount is gone when it is dropped, and nobody waits for an
//! answer for ever then. What is answered is decided by an [`Answers`].
//!
//! ```text
//! wire     requests and replies as bytes
//! memory   a tree in memory, with faults as a script      disk   one file, with a log of what was written to it
//! ```

pub mod disk;
pub mod memory;
pub mod wire;

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use wire::{Reply, Request};

/// Whoever answers requests, from several threads at a time.
pub trait Answers: Send + Sync + 'static {
    /// The answer; none where the protocol wants none.
    fn answer(&self, request: &Request<'_>) -> Option<Reply>;

    /// Nobody is to be kept waiting any more.
    fn let_go(&self) {}
}

/// So many requests are answered at a time: one that hangs does not hold up the others.
const THREADS: usize = 8;
/// The most that the kernel sends at once, with room for its head.
const REQUEST: usize = (1 << 20) + 4096;

/// Where file systems of this process are mounted.
static MOUNTS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Before the process ends with file systems mounted: whoever waits for an answer is told that there is none. A thread
/// that waits cannot end, and would keep the process from ending, and so the kernel from noticing.
pub fn abandon() {
    let mounts = MOUNTS.lock().unwrap_or_else(PoisonError::into_inner);
    for at in mounts.iter() {
        let flags = UnmountFlags::DETACH | UnmountFlags::FORCE;
        let _gone = unmount(at.as_os_str().as_bytes(), flags);
    }
}

/// A mounted file system.
pub struct Mounted<A: Answers> {
    at: PathBuf,
    answers: Arc<A>,
    threads: Vec<JoinHandle<()>>,
    is_there: bool,
}

impl<A: Answers> Mounted<A> {
    /// Mounts it.
    pub fn new(at: &Path, answers: Arc<A>) -> io::Result<Self> {
        std::fs::create_dir_all(at)?;
        let device = File::options().read(true).write(true).open("/dev/fuse")?;
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions",
            device.as_raw_fd()
        );
        let options = CString::new(options)?;
        mount("trial", at, "fuse", MountFlags::empty(), options.as_c_str())?;
        let mut mounts = MOUNTS.lock().unwrap_or_else(PoisonError::into_inner);
        mounts.push(at.to_owned());
        drop(mounts);
        let device = Arc::new(device);
        let serve = |_| {
            let (device, answers) = (Arc::clone(&device), Arc::clone(&answers));
            thread::spawn(move || serve(&device, answers.as_ref()))
        };
        Ok(Self {
            at: at.to_owned(),
            threads: (0..THREADS).map(serve).collect(),
            answers,
            is_there: true,
        })
    }

    /// Where it is mounted.
    pub fn at(&self) -> &Path {
        &self.at
    }

    /// Takes it away, also while somebody uses it.
    pub fn unmount(&mut self) {
        if std::mem::take(&mut self.is_there) {
            self.answers.let_go();
            let flags = UnmountFlags::DETACH | UnmountFlags::FORCE;
            let _gone = unmount(self.at.as_os_str().as_bytes(), flags);
        }
    }
}

impl<A: Answers> Drop for Mounted<A> {
    fn drop(&mut self) {
        self.unmount();
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

fn serve(mut device: &File, answers: &dyn Answers) {
    let mut buffer = vec![0; REQUEST];
    loop {
        let len = match device.read(&mut buffer) {
            Ok(len) => len,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            // A request that its sender gave up before it was read.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            // Unmounted.
            Err(_) => return,
        };
        let Some(request) = Request::parse(&buffer[..len]) else {
            return;
        };
        if let Some(reply) = answers.answer(&request) {
            // Whoever asked may be gone.
            drop(device.write_all(&reply.bytes(request.unique)));
        }
    }
}
