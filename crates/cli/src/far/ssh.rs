//! Starts the program on another machine through the user's own `ssh`, and brings it there when it is missing.
//!
//! Owns the child process. Invariant: what the user typed is never part of a command that a shell reads: the host is an
//! argument of its own after `--`, and everything else travels in the link.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use instep_chunk::hash::Hasher;
use instep_wire::link::Link;
use instep_wire::pipe::Side;

use crate::error::{Exit, Failure};

/// How long the far machine may take to ask for a password, wake, and start the program.
const PATIENCE: Duration = Duration::from_mins(2);
/// With this the command there says that the program is missing.
const MISSING: i32 = 66;

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

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

/// The program on another machine, started and linked.
pub(crate) struct Started {
    child: Child,
    pub(crate) link: Arc<Link>,
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

/// Starts the program there, and brings it there first if it is missing or another version.
pub(crate) fn start(host: &Host) -> Result<Started, Failure> {
    let program = own_program()?;
    let name = name_of(&program);
    match try_start(host, &name)? {
        Some(started) => Ok(started),
        None => {
            bring(host, &program, &name)?;
            try_start(host, &name)?.ok_or_else(|| {
                Failure::new(
                    1043,
                    Exit::Unreachable,
                    format!("{host} does not keep the program"),
                )
                .why("it was brought there, and it was not found a moment later")
                .remedy(format!(
                    "ssh {host} ls -l .cache/instep   shows what is there"
                ))
            })
        }
    }
}

fn own_program() -> Result<Vec<u8>, Failure> {
    std::fs::read("/proc/self/exe")
        .map_err(|e| Failure::new(1044, Exit::Failed, "read the program itself").why(e.to_string()))
}

/// The program's name there says which it is, so that two versions never meet in one file.
fn name_of(program: &[u8]) -> String {
    let mut hasher = Hasher::new();
    hasher.update(program);
    format!("agent-{}", hasher.finish().short())
}

/// Only letters, digits and dashes: `name` comes from here and is part of a command.
fn start_command(name: &str) -> String {
    format!(
        "exec sh -c 'a=\"${{XDG_CACHE_HOME:-$HOME/.cache}}/instep/{name}\"; \
         if [ -x \"$a\" ]; then exec \"$a\" agent; fi; exit {MISSING}'"
    )
}

fn bring_command(name: &str, bytes: usize) -> String {
    format!(
        "exec sh -c 'umask 077; d=\"${{XDG_CACHE_HOME:-$HOME/.cache}}/instep\"; t=\"$d/.{name}.$$\"; \
         mkdir -p \"$d\" && cat > \"$t\" && [ \"$(wc -c < \"$t\")\" -eq {bytes} ] && chmod 700 \"$t\" && \
         mv \"$t\" \"$d/{name}\" || {{ rm -f \"$t\"; exit 1; }}'"
    )
}

fn ssh(host: &Host, command: &str) -> Command {
    let program = std::env::var_os("INSTEP_SSH").unwrap_or_else(|| "ssh".into());
    let mut ssh = Command::new(program);
    // Compression and multiplexing are as the user configured them; a terminal would spoil the bytes.
    ssh.arg("-T");
    if let Some(port) = host.port {
        ssh.arg("-p").arg(port.to_string());
    }
    if let Some(user) = &host.user {
        ssh.arg("-l").arg(user);
    }
    ssh.arg("--").arg(&host.name).arg(command);
    ssh.stdin(Stdio::piped()).stdout(Stdio::piped());
    ssh
}

fn spawn(host: &Host, command: &str) -> Result<Child, Failure> {
    ssh(host, command).spawn().map_err(|e| {
        Failure::new(1045, Exit::Failed, "start ssh")
            .why(e.to_string())
            .remedy("install an ssh client: apt install openssh-client")
    })
}

/// Starts the program there; nothing, where it is missing.
fn try_start(host: &Host, name: &str) -> Result<Option<Started>, Failure> {
    let mut child = spawn(host, &start_command(name))?;
    let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(Failure::new(1045, Exit::Failed, "start ssh").why("it has no input or output"));
    };
    match Link::over(output, input, Side::Caller, &host.name, PATIENCE) {
        Ok(link) => Ok(Some(Started {
            child,
            link: Arc::new(link),
        })),
        Err(e) => {
            let ended = end(&mut child);
            match ended {
                Some(MISSING) => Ok(None),
                ended => Err(unreachable(host, ended, &e.to_string())),
            }
        }
    }
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

fn unreachable(host: &Host, ended: Option<i32>, why: &str) -> Failure {
    let how = match ended {
        Some(255) => "ssh could not reach it, or was refused: it says above why".to_owned(),
        Some(code) => format!("{why}; the command there ended with {code}"),
        None => why.to_owned(),
    };
    Failure::new(1046, Exit::Unreachable, format!("{host} cannot be reached"))
        .why(how)
        .remedy(format!("ssh {host} true   must work without a question"))
}

fn bring(host: &Host, program: &[u8], name: &str) -> Result<(), Failure> {
    let mut child = spawn(host, &bring_command(name, program.len()))?;
    let written = match child.stdin.take() {
        Some(mut input) => input.write_all(program),
        None => Ok(()),
    };
    let mut said = String::new();
    if let Some(output) = child.stdout.take() {
        // What it says is for people; it may say anything.
        let _any = output.take(4096).read_to_string(&mut said);
    }
    let status = child.wait();
    match (written, status) {
        (Ok(()), Ok(status)) if status.success() => Ok(()),
        (written, status) => {
            let why = match (written.err(), status) {
                (_, Ok(status)) => format!("the command there ended with {status}"),
                (Some(e), _) => e.to_string(),
                (None, Err(e)) => e.to_string(),
            };
            Err(Failure::new(1047, Exit::Unreachable, format!("bring the program to {host}"))
                .why(why)
                .remedy(format!("ssh {host} df -h .cache   shows whether there is room"))
                .remedy("a home directory that forbids programs (noexec) needs another place: set XDG_CACHE_HOME there"))
        }
    }
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
        let ssh = ssh(&host, &start_command("agent-0123abcd"));
        let args: Vec<_> = ssh
            .get_args()
            .map(|a| a.to_string_lossy().into_owned())
            .collect();
        assert_eq!(
            args[..6],
            ["-T", "-p", "22", "-l", "-oProxyCommand=x", "--"]
        );
        assert_eq!(args[6], host.name, "it stands after the end of the options");
    }
}
