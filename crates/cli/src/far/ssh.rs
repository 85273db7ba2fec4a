//! Starts the program on another machine through the user's own `ssh`, and brings it there when it is missing.
//!
//! Owns the child process, and what it says on standard error. Invariant: what the user typed is never part of a command
//! that a shell reads: the host is an argument of its own after `--`, and everything else travels in the link.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use instep_wire::link::Link;
use instep_wire::pipe::Side;

use super::agents::{self, INSTALLED, MISSING, NONE, Own};
use super::heard::{Heard, Voice};
use super::request;
use super::unreached;
use crate::error::{Exit, Failure};

/// How long the far machine may take to ask for a password, wake, and start the program.
const PATIENCE: Duration = Duration::from_mins(2);

/// A machine that `ssh` reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    /// What comes before `@`.
    pub(crate) user: Option<String>,
    /// A name of `ssh_config`, a host name, or an address.
    pub(crate) name: String,
    /// Where another one than the usual.
    pub(crate) port: Option<u16>,
}

impl Host {
    /// The command with which a person reaches it.
    pub(crate) fn command(&self) -> String {
        let port = self.port.map_or(String::new(), |p| format!("-p {p} "));
        let user = self
            .user
            .as_ref()
            .map_or(String::new(), |u| format!("{u}@"));
        format!("ssh {port}{user}{}", self.name)
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

/// The program on another machine, started and linked.
pub(crate) struct Started {
    child: Child,
    pub(crate) link: Arc<Link>,
    /// It was not there before.
    pub(crate) brought: bool,
}

impl Drop for Started {
    fn drop(&mut self) {
        self.link.close("done");
        // It finishes what it began; whoever waits longer is not told more.
        for _ in 0..100 {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(100)),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// An attempt that came to nothing.
pub(crate) struct Ended {
    /// The code with which `ssh` ended, which is that of the command there; 255 is its own.
    pub(crate) code: Option<i32>,
    /// What the link says.
    pub(crate) why: String,
    /// What was said on standard error.
    pub(crate) said: String,
}

/// Starts the program there, and brings it there first if it is missing or another version.
pub(crate) fn start(host: &Host, path: &Path, voice: Voice) -> Result<Started, Failure> {
    let own = Own::find()?;
    let first = request::put_path(path) + "\n";
    let attempt = |command: &str| attempt(host, command, &first, voice);
    let ended = match attempt(&own.start())? {
        Ok(started) => return Ok(started),
        Err(ended) => ended,
    };
    match ended.code {
        Some(MISSING) => start_brought(host, &own, voice, &attempt),
        Some(NONE) => Err(unreached::other_kind(host, own.kind(), &ended)),
        _ => Err(unreached::failure(host, &ended)),
    }
}

fn start_brought(
    host: &Host,
    own: &Own,
    voice: Voice,
    attempt: &dyn Fn(&str) -> Attempt,
) -> Result<Started, Failure> {
    let failure = match bring(host, own, voice) {
        Ok(()) => match attempt(&own.start())? {
            Ok(mut started) => {
                started.brought = true;
                return Ok(started);
            }
            Err(ended) => unreached::not_kept(host, &ended),
        },
        Err(failure) => failure,
    };
    // From some homes nothing can be started, or there is no room: the program may be installed.
    match attempt(INSTALLED)? {
        Ok(started) => Ok(started),
        Err(_) => Err(failure),
    }
}

fn ssh(host: &Host, command: &str, voice: Voice) -> Command {
    let program = std::env::var_os("INSTEP_SSH").unwrap_or_else(|| "ssh".into());
    let mut ssh = Command::new(program);
    // Everything else is as the user configured it; a terminal would spoil the bytes.
    ssh.arg("-T");
    if voice == Voice::Quiet {
        // Nobody waits for a question that comes out of nowhere.
        ssh.args(["-o", "BatchMode=yes"]);
    }
    if let Some(port) = host.port {
        ssh.arg("-p").arg(port.to_string());
    }
    if let Some(user) = &host.user {
        ssh.arg("-l").arg(user);
    }
    ssh.arg("--").arg(&host.name).arg(command);
    ssh.stdin(Stdio::piped()).stdout(Stdio::piped());
    ssh.stderr(Stdio::piped());
    ssh
}

fn spawn(host: &Host, command: &str, voice: Voice) -> Result<(Child, Heard), Failure> {
    let mut child = ssh(host, command, voice).spawn().map_err(|e| {
        Failure::new(1045, Exit::Failed, "start ssh")
            .why(e.to_string())
            .remedy("install an ssh client: apt install openssh-client")
    })?;
    let heard = Heard::listen(child.stderr.take(), voice);
    Ok((child, heard))
}

/// What came of starting a command there.
type Attempt = Result<Result<Started, Ended>, Failure>;

/// Starts a command there that is a program of ours, tells it what it is asked for first, and links with it.
fn attempt(host: &Host, command: &str, first: &str, voice: Voice) -> Attempt {
    let (mut child, heard) = spawn(host, command, voice)?;
    let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(Failure::new(1045, Exit::Failed, "start ssh").why("it has no input or output"));
    };
    // Whoever does not take it says why.
    let _gone = input.write_all(first.as_bytes());
    Ok(
        match Link::over(output, input, Side::Caller, &host.name, PATIENCE) {
            Ok(link) => Ok(Started {
                child,
                link: Arc::new(link),
                brought: false,
            }),
            Err(e) => Err(Ended {
                code: end(&mut child),
                why: e.to_string(),
                said: heard.said(),
            }),
        },
    )
}

/// The code with which it ended by itself, shortly after its output did; else it is ended.
fn end(child: &mut Child) -> Option<i32> {
    for _ in 0..50 {
        if let Ok(Some(status)) = child.try_wait() {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ended = child.kill();
    let _reaped = child.wait();
    None
}

fn bring(host: &Host, own: &Own, voice: Voice) -> Result<(), Failure> {
    let program = agents::bytes()?;
    let (mut child, heard) = spawn(host, &own.bring(program.len()), voice)?;
    let written = match child.stdin.take() {
        Some(mut input) => input.write_all(&program),
        None => Ok(()),
    };
    if let Some(output) = child.stdout.take() {
        // What it says is for people; it may say anything.
        let _any = output.take(64 * 1024).read_to_end(&mut Vec::new());
    }
    let why = match (child.wait(), written) {
        (Ok(status), Ok(())) if status.success() => return Ok(()),
        (Ok(status), _) => format!("the command there ended with {status}"),
        (Err(e), _) => e.to_string(),
    };
    Err(unreached::not_brought(host, &why, &heard.said()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_was_typed_is_part_of_a_command() {
        let host = Host {
            user: Some("-oProxyCommand=x".into()),
            name: "-oProxyCommand=touch /tmp/x".into(),
            port: Some(22),
        };
        let ssh = ssh(&host, "fixed", Voice::Aloud);
        let args: Vec<_> = ssh
            .get_args()
            .map(|a| a.to_string_lossy().into_owned())
            .collect();
        assert_eq!(
            args[..6],
            ["-T", "-p", "22", "-l", "-oProxyCommand=x", "--"]
        );
        assert_eq!(args[6], host.name, "it stands after the end of the options");
        assert_eq!(args[7..], ["fixed"]);
    }
}
