//! The real program, in a home that the trial chooses.
//!
//! Owns its processes: each is killed when dropped. Invariant: the user's own settings are neither seen nor touched.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Names the program.
pub(crate) const NAME: &str = "INSTEP_TRIALS_BIN";

/// The program: what the environment names, which is set for every trial that is alone.
fn path() -> io::Result<PathBuf> {
    let path = std::env::var_os(NAME);
    path.map(PathBuf::from)
        .ok_or_else(|| io::Error::other(format!("{NAME} names no program")))
}

/// The program and a home for it.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    home: PathBuf,
    run: PathBuf,
    largest: Option<u64>,
    trace: Option<PathBuf>,
}

/// What a run that ended left behind.
#[derive(Debug, Clone)]
pub struct Done {
    /// Its exit code; -1 after a signal.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Program {
    /// With a home that lasts and a directory for sockets that need not.
    pub fn new(home: &Path, run: &Path) -> io::Result<Self> {
        for dir in XDG {
            fs::create_dir_all(home.join(dir.1))?;
        }
        fs::create_dir_all(run)?;
        Ok(Self {
            path: path()?,
            home: home.to_owned(),
            run: run.to_owned(),
            largest: None,
            trace: None,
        })
    }

    /// The same, but none of its files may grow beyond so many bytes.
    pub fn limited(&self, bytes: u64) -> Self {
        Self {
            largest: Some(bytes),
            ..self.clone()
        }
    }

    /// The same, with every call that names a file written down by `strace`.
    pub fn traced(&self, to: &Path) -> Self {
        Self {
            trace: Some(to.to_owned()),
            ..self.clone()
        }
    }

    fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = match (self.largest, &self.trace) {
            (None, None) => Command::new(&self.path),
            (None, Some(to)) => {
                let mut command = Command::new("strace");
                command.args(["-f", "-s", "4096", "-e", "signal=none", "-e", "trace=%file"]);
                command.arg("-o").arg(to).arg(&self.path);
                command
            }
            (Some(bytes), _) => {
                let mut command = Command::new("sh");
                // Blocks of 512 bytes; as a signal where the program does not ignore that.
                let script = format!("ulimit -f {}; exec \"$0\" \"$@\"", bytes / 512);
                command.arg("-c").arg(script).arg(&self.path);
                command
            }
        };
        command.args(args).env_clear().current_dir("/");
        command.env("HOME", &self.home).env("TZ", "UTC");
        command.env("LANG", "C.UTF-8").env("RUST_BACKTRACE", "1");
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("XDG_RUNTIME_DIR", &self.run);
        for (name, dir) in XDG {
            command.env(name, self.home.join(dir));
        }
        command.stdin(Stdio::null());
        command
    }

    /// Runs to the end; killed and an error when that takes longer than a minute.
    pub fn call<S: AsRef<OsStr>>(&self, args: &[S]) -> io::Result<Done> {
        self.live(args)?.ended(Duration::from_mins(1))
    }

    /// Starts without waiting.
    pub fn live<S: AsRef<OsStr>>(&self, args: &[S]) -> io::Result<Live> {
        let (out, err) = (self.run.join("stdout"), self.run.join("stderr"));
        let mut command = self.command(args);
        // Where several run at a time, each has files of its own: the names are gone at once.
        let (stdout, stderr) = (open_unnamed(&out)?, open_unnamed(&err)?);
        command.stdout(stdout.try_clone()?);
        command.stderr(stderr.try_clone()?);
        Ok(Live {
            child: command.spawn()?,
            stdout,
            stderr,
        })
    }
}

fn open_unnamed(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).truncate(true);
    let file = file.open(path)?;
    fs::remove_file(path)?;
    Ok(file)
}

/// Where programs keep their files, below the home.
const XDG: [(&str, &str); 4] = [
    ("XDG_CONFIG_HOME", "config"),
    ("XDG_DATA_HOME", "data"),
    ("XDG_STATE_HOME", "state"),
    ("XDG_CACHE_HOME", "cache"),
];

/// A program that is running. Killed when dropped.
#[derive(Debug)]
pub struct Live {
    child: Child,
    stdout: File,
    stderr: File,
}

impl Live {
    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Sends a signal to what it runs: who is traced has a tracer before it.
    pub fn signal_traced(&self, signal: Signal) -> io::Result<()> {
        let id = self.child.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        for child in children.split_whitespace() {
            let child = child.parse().ok().and_then(Pid::from_raw);
            kill_process(child.ok_or(io::ErrorKind::InvalidData)?, signal)?;
        }
        Ok(())
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Stops it where it is, until [`Live::go_on`].
    pub fn freeze(&self) -> io::Result<()> {
        self.signal(Signal::STOP)?;
        let stat = format!("/proc/{}/stat", self.child.id());
        until("the program is stopped", Duration::from_secs(20), || {
            let text = fs::read_to_string(&stat)?;
            Ok(text.rsplit(')').next().is_some_and(|s| s.starts_with(" T")))
        })
    }

    /// Lets it go on.
    pub fn go_on(&self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> io::Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// What it said so far.
    pub fn said(&self) -> io::Result<String> {
        Ok(read(&self.stdout)? + &read(&self.stderr)?)
    }

    /// Waits for its end.
    pub fn ended(mut self, limit: Duration) -> io::Result<Done> {
        let mut status = None;
        let waited = until("the program ends", limit, || {
            status = self.child.try_wait()?;
            Ok(status.is_some())
        });
        let (stdout, stderr) = (read(&self.stdout)?, read(&self.stderr)?);
        waited.map_err(|e| io::Error::other(format!("{e}\n{stdout}\n{stderr}")))?;
        Ok(Done {
            code: status.and_then(|s| s.code()).unwrap_or(-1),
            stdout,
            stderr,
        })
    }
}

fn read(file: &File) -> io::Result<String> {
    use std::os::unix::fs::FileExt as _;
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).unwrap_or(0)];
    let n = file.read_at(&mut bytes, 0)?;
    bytes.truncate(n);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

impl Drop for Live {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Waits for a condition, never for a time.
pub fn until(
    what: &str,
    limit: Duration,
    mut holds: impl FnMut() -> io::Result<bool>,
) -> io::Result<()> {
    let end = Instant::now() + limit;
    while !holds()? {
        if Instant::now() > end {
            return Err(io::Error::other(format!("{what}: not within {limit:?}")));
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
