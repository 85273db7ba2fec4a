//! The program, run as a user would run it, away from the user's files.
//!
//! Every run has a home of its own: no configuration, key, socket or cache of the machine is seen or touched.
//! The environment is empty but for what is set here. A program that does not end is killed and is a failure.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::scratch::Scratch;
use crate::snapshot::Filters;

/// A program and a home for it.
#[derive(Debug)]
pub struct Cli {
    program: PathBuf,
    home: Scratch,
    env: Vec<(OsString, OsString)>,
    timeout: Duration,
}

/// What a run left behind.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

/// A program that is still running. Killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: Option<JoinHandle<io::Result<String>>>,
    stderr: Option<JoinHandle<io::Result<String>>>,
    timeout: Duration,
}

impl Cli {
    /// The program that Cargo built for the test: `CARGO_BIN_EXE_instep`.
    pub fn new() -> io::Result<Self> {
        let program = std::env::var_os("CARGO_BIN_EXE_instep").ok_or_else(|| {
            io::Error::other("CARGO_BIN_EXE_instep is not set: pass env!() of it to Cli::at")
        })?;
        Self::at(program)
    }

    /// This program. In an integration test: `Cli::at(env!("CARGO_BIN_EXE_instep"))`.
    pub fn at(program: impl Into<PathBuf>) -> io::Result<Self> {
        let home = Scratch::new()?;
        for dir in XDG {
            home.dir(dir.1)?;
        }
        Ok(Self {
            program: program.into(),
            home,
            env: Vec::new(),
            timeout: Duration::from_mins(1),
        })
    }

    /// Sets a variable for every run.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// How long a run may take before it is killed and the test fails. 60 s unless set.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The home directory, which is also the working directory.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Filters that also replace the home directory.
    pub fn filters(&self) -> Filters {
        Filters::new().replace(&self.home().to_string_lossy(), "[HOME]")
    }

    /// Runs to the end. Panics if it cannot be started or does not end.
    #[track_caller]
    pub fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Output {
        self.run_with(args, b"")
    }

    /// As [`Cli::run`], with something to read.
    #[track_caller]
    pub fn run_with<S: AsRef<OsStr>>(&self, args: &[S], stdin: &[u8]) -> Output {
        let mut running = self.spawn(args);
        if let Some(mut pipe) = running.child.stdin.take() {
            // A program need not read all of it, or any.
            if let Err(e) = pipe.write_all(stdin)
                && e.kind() != io::ErrorKind::BrokenPipe
            {
                panic!("cannot write to the program: {e}");
            }
        }
        running.wait()
    }

    /// Starts without waiting.
    #[track_caller]
    pub fn spawn<S: AsRef<OsStr>>(&self, args: &[S]) -> Running {
        let mut command = Command::new(&self.program);
        command.args(args).current_dir(self.home()).env_clear();
        command
            .env("HOME", self.home())
            .env("USER", "ada")
            .env("LANG", "C.UTF-8");
        command
            .env("TZ", "UTC")
            .env("COLUMNS", "100")
            .env("TERM", "dumb");
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        for (name, dir) in XDG {
            command.env(name, self.home().join(dir));
        }
        command.envs(self.env.iter().map(|(n, v)| (n, v)));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {}: {e}", self.program.display()));
        let stdout = child.stdout.take().map(reader);
        let stderr = child.stderr.take().map(reader);
        Running {
            child,
            stdout,
            stderr,
            timeout: self.timeout,
        }
    }
}

/// Where programs keep their files, below the home of a test.
const XDG: [(&str, &str); 5] = [
    ("XDG_CONFIG_HOME", ".config"),
    ("XDG_DATA_HOME", ".local/share"),
    ("XDG_STATE_HOME", ".local/state"),
    ("XDG_CACHE_HOME", ".cache"),
    ("XDG_RUNTIME_DIR", "run"),
];

/// Reads a pipe in the background, so that a program which prints much is never blocked.
fn reader(mut pipe: impl Read + Send + 'static) -> JoinHandle<io::Result<String>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    })
}

impl Running {
    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name: `INT`, `TERM`, `STOP`, `KILL`.
    #[track_caller]
    pub fn signal(&self, name: &str) {
        // The shell's own: a minimal system has no program of that name.
        let status = Command::new("sh")
            .args(["-c", "kill -s \"$1\" \"$2\"", "sh", name])
            .arg(self.id().to_string())
            .status();
        assert!(
            status.is_ok_and(|s| s.success()),
            "cannot send {name} to the program"
        );
    }

    /// Waits for its end. Panics if it takes too long.
    #[track_caller]
    pub fn wait(mut self) -> Output {
        drop(self.child.stdin.take());
        let deadline = Instant::now() + self.timeout;
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(2)),
                Ok(None) => {
                    self.stop();
                    let (stdout, stderr) = (text(self.stdout.take()), text(self.stderr.take()));
                    panic!("did not end in {:?}\n{stdout}\n{stderr}", self.timeout);
                }
                Err(e) => panic!("cannot wait for the program: {e}"),
            }
        };
        Output {
            status,
            stdout: text(self.stdout.take()),
            stderr: text(self.stderr.take()),
        }
    }

    fn stop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn text(reader: Option<JoinHandle<io::Result<String>>>) -> String {
    match reader.map(JoinHandle::join) {
        Some(Ok(Ok(text))) => text,
        Some(Ok(Err(e))) => panic!("cannot read what the program printed: {e}"),
        Some(Err(_)) | None => panic!("what the program printed was not read"),
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.stop();
        }
    }
}

impl Output {
    /// The exit code; -1 for an end by a signal.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// Panics with all it printed unless it ended with this code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code(),
            code,
            "exit code, then the expected one\n{self}"
        );
        self
    }

    /// The run as it goes into a snapshot.
    pub fn snapshot(&self, filters: &Filters) -> String {
        filters.apply(&self.to_string())
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "exit {}\n--- stdout\n{}--- stderr\n{}",
            self.code(),
            self.stdout,
            self.stderr
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn a_run_sees_its_own_home_and_nothing_of_the_user() {
        let cli = Cli::at("/bin/sh").unwrap().env("EXTRA", "yes");
        let script = "echo $HOME; echo $XDG_RUNTIME_DIR; echo $CARGO_MANIFEST_DIR$EXTRA; pwd; cat; echo bad >&2; exit 3";
        let out = cli.run_with(&["-c", script], b"input\n").expect(3);
        assert!(cli.home().join(".config").is_dir());
        assert_eq!(
            out.snapshot(&cli.filters()),
            "exit 3\n--- stdout\n[HOME]\n[HOME]/run\nyes\n[HOME]\ninput\n--- stderr\nbad\n"
        );
    }

    #[test]
    fn much_output_does_not_block_the_program() {
        let cli = Cli::at("/bin/sh").unwrap();
        let out = cli.run(&[
            "-c",
            "head -c 3000000 /dev/zero | tr '\\0' x; head -c 3000000 /dev/zero >&2",
        ]);
        assert_eq!(
            (out.code(), out.stdout.len(), out.stderr.len()),
            (0, 3_000_000, 3_000_000)
        );
    }

    #[test]
    fn a_running_program_takes_signals() {
        let cli = Cli::at("/bin/sh").unwrap();
        let running = cli.spawn(&[
            "-c",
            "trap 'echo stopped; exit 7' INT; kill -s INT $$; exit 1",
        ]);
        let out = running.wait().expect(7);
        assert_eq!(out.stdout, "stopped\n");
        let running = cli.spawn(&["-c", "exec sleep 1000"]);
        running.signal("TERM");
        assert_eq!(running.wait().code(), -1);
    }

    #[test]
    #[should_panic(expected = "did not end in")]
    fn a_program_that_does_not_end_is_a_failure() {
        let cli = Cli::at("/bin/sh")
            .unwrap()
            .timeout(Duration::from_millis(50));
        cli.run(&["-c", "exec sleep 1000"]);
    }
}
