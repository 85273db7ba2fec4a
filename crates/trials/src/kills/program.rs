//! The program that dies where it is asked to, run away from the user's files.
//!
//! Owns the home that a program runs in and what it printed. Invariant: a run ends, by itself, by the step that it was
//! to die at, or because it took too long, which is a failure.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a run may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// The program and a home for it.
#[derive(Debug)]
pub struct Program {
    exe: PathBuf,
    home: PathBuf,
}

/// How a run ended, and what it printed.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; none when it was killed.
    pub code: Option<i32>,
    /// What it printed, results first.
    pub said: String,
}

/// A run that goes on. Killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    home: PathBuf,
}

impl Program {
    /// With a new home below a directory.
    pub fn new(exe: &Path, within: &Path) -> io::Result<Self> {
        let home = within.join("home");
        fs::create_dir(&home)?;
        fs::create_dir(home.join("run"))?;
        fs::set_permissions(home.join("run"), Permissions::from_mode(0o700))?;
        let exe = exe.to_owned();
        Ok(Self { exe, home })
    }

    /// Where it runs.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Runs to its end.
    pub fn run(&self, args: &[String], env: &[(&str, String)]) -> io::Result<Ended> {
        self.start(args, env)?.wait()
    }

    /// Starts without waiting.
    pub fn start(&self, args: &[String], env: &[(&str, String)]) -> io::Result<Running> {
        let mut command = Command::new(&self.exe);
        command.args(args).current_dir(&self.home).env_clear();
        command.env("HOME", &self.home);
        command.env("XDG_RUNTIME_DIR", self.home.join("run"));
        command.env("TZ", "UTC").env("TERM", "dumb");
        command.envs(env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command.stdout(File::create(self.home.join("said"))?);
        command.stderr(File::create(self.home.join("complained"))?);
        let home = self.home.clone();
        Ok(Running {
            child: command.spawn()?,
            home,
        })
    }
}

impl Running {
    /// Whether it has ended.
    pub fn is_over(&mut self) -> io::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Asks it to stop, as Ctrl-C does.
    pub fn interrupt(&self) -> io::Result<()> {
        let pid = self.child.id().to_string();
        // The shell's own: a minimal system has no program of that name.
        let mut kill = Command::new("sh");
        kill.args(["-c", "kill -s INT \"$1\"", "sh", &pid])
            .stderr(Stdio::null());
        // One that has ended meanwhile needs no asking.
        kill.status().map(drop)
    }

    /// Waits for its end.
    pub fn wait(mut self) -> io::Result<Ended> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return self.ended(status);
            }
            if Instant::now() > deadline {
                let said = self.said();
                return Err(io::Error::other(format!("does not end\n{said}")));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn ended(&self, status: ExitStatus) -> io::Result<Ended> {
        let said = self.said();
        match status.signal() {
            None | Some(9) => Ok(Ended {
                code: status.code(),
                said,
            }),
            Some(signal) => Err(io::Error::other(format!("died of signal {signal}\n{said}"))),
        }
    }

    fn said(&self) -> String {
        let read = |name| fs::read_to_string(self.home.join(name)).unwrap_or_default();
        read("said") + &read("complained")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}
