//! Trials that mount run in namespaces of their own, so that nothing they mount or start outlives them.
//!
//! Owns how a test or a program starts itself again there. Invariant: when a trial ends, also by a panic or by a
//! signal, the kernel takes its mounts and its processes with it, and its scratch directory is removed.

use std::env;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

use instep_testkit::needs::{Need, met};
use instep_testkit::scratch::Scratch;
use rustix::thread::UnshareFlags;

use crate::program;

/// Set for who runs inside.
const INSIDE: &str = "INSTEP_TRIAL_INSIDE";

/// Runs the test's body in namespaces of its own, if the machine has what it needs. `test` is `program::function`; `exe`
/// is the program on trial, unless the environment names another.
///
/// # Panics
/// When the body does, with all that it printed.
#[track_caller]
pub fn alone(test: &str, exe: &str, needs: &[Need], body: impl FnOnce()) {
    if env::var_os(INSIDE).is_some() {
        follow();
        body();
        return;
    }
    if !met(test, needs) {
        return;
    }
    let name = test.split_once("::").map_or(test, |(_, name)| name);
    let args = [
        "--exact",
        name,
        "--nocapture",
        "--test-threads=1",
        "--include-ignored",
    ];
    let inside = enter(exe, &args).unwrap_or_else(|e| panic!("cannot prepare {test}: {e}"));
    let aloud = env::args().any(|arg| arg == "--nocapture");
    let (status, said) = if aloud {
        inside.aloud()
    } else {
        inside.heard()
    }
    .unwrap_or_else(|e| panic!("cannot start {test} again: {e}"));
    let ran = status.success() && (aloud || said.contains("1 passed"));
    assert!(ran, "{test} ended with {status}\n{said}");
}

/// The program inside, and where it may leave files.
struct Inside {
    command: Command,
    scratch: Scratch,
}

impl Inside {
    /// It lives as long as the other end of its standard input.
    fn run(mut self) -> io::Result<ExitStatus> {
        let mut child = self.command.spawn()?;
        let held = child.stdin.take();
        let status = child.wait();
        drop(held);
        status
    }

    /// To the end; what it prints is seen at once.
    fn aloud(self) -> io::Result<(ExitStatus, String)> {
        Ok((self.run()?, String::new()))
    }

    /// To the end, with what it printed.
    fn heard(mut self) -> io::Result<(ExitStatus, String)> {
        let path = self.scratch.path().join("said");
        let said = File::create_new(&path)?;
        self.command.stdout(said.try_clone()?).stderr(said);
        let mut read = File::open(&path)?;
        let status = self.run()?;
        let mut bytes = Vec::new();
        read.read_to_end(&mut bytes)?;
        Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
    }
}

fn enter(exe: &str, args: &[&str]) -> io::Result<Inside> {
    // Images are quickest in memory.
    let memory = Path::new("/dev/shm");
    let scratch = if memory.is_dir() {
        Scratch::new_in(memory)?
    } else {
        Scratch::new()?
    };
    let exe = env::var_os(program::NAME).unwrap_or_else(|| exe.into());
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "--pid", "--fork"])
        .args(["--kill-child", "--mount-proc", "--"])
        .arg(env::current_exe()?)
        .args(args)
        .env(INSIDE, "1")
        .env(program::NAME, exe)
        .env("TMPDIR", scratch.path())
        .stdin(Stdio::piped());
    Ok(Inside { command, scratch })
}

/// From now on, what this thread and the programs that it starts mount is seen by them alone. To be called while none of
/// the disks of other threads is mounted: a copy of a mount keeps its file system.
pub fn own_mounts() -> io::Result<()> {
    #[expect(
        deprecated,
        reason = "open files stay shared, which is all that made it unsound; `unsafe` is of `fs` alone"
    )]
    Ok(rustix::thread::unshare(UnshareFlags::NEWNS)?)
}

/// Ends this process, and with it all others inside, when the one that started it is gone.
fn follow() {
    thread::spawn(|| {
        let mut byte = [0];
        while matches!(io::stdin().read(&mut byte), Ok(n) if n > 0) {}
        crate::fuse::abandon();
        #[expect(clippy::exit, reason = "whoever would wait for this process is gone")]
        std::process::exit(1);
    });
}
