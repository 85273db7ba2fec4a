//! The program as it is kept on another machine: which one is started there, and how it comes there.
//!
//! Owns every command that a shell on another machine reads. Invariant: they are made of fixed text, of our own hash and
//! of the kind of this machine; nothing that anybody typed is ever part of one.
//!
//! It is kept by its hash in a directory of that user alone, so that two versions never meet in one file, and whoever
//! starts it knows what it starts. An instep that is installed there serves where ours cannot run.

use std::io::Read as _;

use instep_chunk::hash::Hasher;

use crate::error::{Exit, Failure};

/// With this the command there says that the program is not there, and that ours would run.
pub(crate) const MISSING: i32 = 66;
/// With this, that ours cannot run there, and that none is installed. What the machine is was said before.
pub(crate) const NONE: i32 = 67;
/// Before the kind of a machine on which ours cannot run.
pub(crate) const KIND: &str = "instep needs ";

/// Where the programs are kept there; what does not begin with a slash is no directory that XDG means.
const PLACE: &str = "a=\"${XDG_DATA_HOME:-}\"; \
    case \"$a\" in /*) ;; *) a=\"${HOME:?}/.local/share\" ;; esac; a=\"$a/instep/agents\"; ";

/// This program, as other machines know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Own {
    hash: String,
    /// As `uname -sm` says it.
    kind: String,
}

impl Own {
    /// Looks at the program that runs, even if its file was replaced since it started.
    pub(crate) fn find() -> Result<Self, Failure> {
        let mut hasher = Hasher::new();
        let mut file = std::fs::File::open("/proc/self/exe").map_err(|e| unread(&e))?;
        let mut block = vec![0; instep_chunk::hash::READ_BYTES];
        loop {
            match file.read(&mut block).map_err(|e| unread(&e))? {
                0 => break,
                n => hasher.update(&block[..n]),
            }
        }
        let uname = rustix::system::uname();
        let (system, machine) = (uname.sysname(), uname.machine());
        Ok(Self {
            hash: hasher.finish().to_string(),
            kind: kind(&system.to_string_lossy(), &machine.to_string_lossy()),
        })
    }

    /// What this machine is.
    pub(crate) fn kind(&self) -> &str {
        &self.kind
    }

    /// Starts ours; where it cannot run, the one that is installed there.
    pub(crate) fn start(&self) -> String {
        let Self { hash, kind } = self;
        format!(
            "exec sh -c '{PLACE}\
             if [ -x \"$a/{hash}/instep\" ]; then exec \"$a/{hash}/instep\" agent; fi; \
             k=\"$(uname -sm)\"; if [ \"$k\" = \"{kind}\" ]; then exit {MISSING}; fi; \
             if command -v instep >/dev/null 2>&1; then exec instep agent; fi; \
             echo \"{KIND}$k\" >&2; exit {NONE}'"
        )
    }

    /// Takes ours from standard input. Programs that nobody has brought or started for a month are removed.
    pub(crate) fn bring(&self, bytes: usize) -> String {
        let Self { hash, .. } = self;
        format!(
            "exec sh -c 'umask 077; {PLACE}d=\"$a/{hash}\"; t=\"$d/.$$\"; \
             mkdir -p \"$d\" && chmod 700 \"$a\" \"$d\" && cat > \"$t\" && \
             [ \"$(wc -c < \"$t\")\" -eq {bytes} ] && chmod 700 \"$t\" && mv -f \"$t\" \"$d/instep\" || \
             {{ rm -f \"$t\"; exit 1; }}; \
             find \"$a\" -mindepth 1 -maxdepth 1 -mtime +30 ! -name {hash} -exec rm -rf {{}} + >/dev/null 2>&1; \
             exit 0'"
        )
    }
}

/// Starts the program that is installed there.
pub(crate) const INSTALLED: &str =
    "exec sh -c 'command -v instep >/dev/null 2>&1 && exec instep agent; exit 67'";

/// The bytes of the program that runs.
pub(crate) fn bytes() -> Result<Vec<u8>, Failure> {
    std::fs::read("/proc/self/exe").map_err(|e| unread(&e))
}

fn unread(e: &std::io::Error) -> Failure {
    Failure::new(1044, Exit::Failed, "read the program itself")
        .why(e.to_string())
        .remedy("mount /proc, or run instep where it is mounted")
}

/// The kind of a machine in words that are safe between quotes, whatever a system says of itself.
fn kind(system: &str, machine: &str) -> String {
    let safe = |word: &str| -> String {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        word.chars().filter(|c| plain(*c)).collect()
    };
    format!("{} {}", safe(system), safe(machine))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;
    use std::process::{Command, Output};

    use super::*;

    fn own(kind: &str) -> Own {
        let hash = "ab".repeat(32);
        let kind = kind.to_owned();
        Own { hash, kind }
    }

    /// The kind of this machine as a shell says it.
    fn here() -> String {
        let said = Command::new("uname").arg("-sm").output().unwrap();
        String::from_utf8(said.stdout).unwrap().trim().to_owned()
    }

    /// As sshd has a login shell run it.
    fn shell(home: &Path, command: &str, input: &[u8]) -> Output {
        use std::io::Write as _;
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).env_clear().env("HOME", home);
        let path = format!("{}:/usr/bin:/bin", home.join("bin").display());
        shell.env("PATH", path);
        shell.stdin(std::process::Stdio::piped());
        shell.stdout(std::process::Stdio::piped());
        shell.stderr(std::process::Stdio::piped());
        let mut child = shell.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    }

    fn program(at: &Path, says: &str) {
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        std::fs::write(at, format!("#!/bin/sh\necho \"{says} $*\"\n")).unwrap();
        std::fs::set_permissions(at, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn a_program_that_was_brought_is_started_from_a_directory_of_the_user_alone() {
        let home = tempfile::tempdir().unwrap();
        let own = own(&here());
        assert_eq!(
            shell(home.path(), &own.start(), b"").status.code(),
            Some(MISSING)
        );
        let script = b"#!/bin/sh\necho \"brought $*\"\n";
        let said = shell(home.path(), &own.bring(script.len()), script);
        assert!(said.status.success(), "{said:?}");
        let said = shell(home.path(), &own.start(), b"");
        assert_eq!(said.stdout, b"brought agent\n", "{said:?}");
        let agents = home.path().join(".local/share/instep/agents");
        for dir in [agents.clone(), agents.join(&own.hash)] {
            let mode = std::fs::metadata(dir).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700);
        }
    }

    #[test]
    fn a_program_of_which_a_part_is_missing_is_not_kept() {
        let home = tempfile::tempdir().unwrap();
        let own = own(&here());
        let said = shell(home.path(), &own.bring(100), b"#!/bin/sh\n");
        assert_eq!(said.status.code(), Some(1));
        let kept = home
            .path()
            .join(".local/share/instep/agents")
            .join(&own.hash);
        assert_eq!(std::fs::read_dir(kept).unwrap().count(), 0);
    }

    #[test]
    fn programs_that_nobody_brought_for_a_month_are_removed() {
        let home = tempfile::tempdir().unwrap();
        let agents = home.path().join(".local/share/instep/agents");
        for (name, days) in [("old", 40), ("young", 20)] {
            program(&agents.join(name).join("instep"), name);
            let dir = std::fs::File::open(agents.join(name)).unwrap();
            let ago = std::time::Duration::from_hours(24 * days);
            dir.set_modified(std::time::SystemTime::now() - ago)
                .unwrap();
        }
        let own = own(&here());
        assert!(shell(home.path(), &own.bring(2), b"ab").status.success());
        assert!(agents.join("young/instep").exists());
        assert!(!agents.join("old").exists());
    }

    #[test]
    fn where_ours_cannot_run_the_installed_one_is_started_or_what_it_is_is_said() {
        let home = tempfile::tempdir().unwrap();
        let own = own("Plan9 mips");
        let said = shell(home.path(), &own.start(), b"");
        assert_eq!(said.status.code(), Some(NONE));
        let kind = String::from_utf8(said.stderr).unwrap();
        assert_eq!(kind, format!("{KIND}{}\n", here()));
        assert_eq!(shell(home.path(), INSTALLED, b"").status.code(), Some(NONE));
        program(&home.path().join("bin/instep"), "installed");
        for command in [own.start(), INSTALLED.to_owned()] {
            let said = shell(home.path(), &command, b"");
            assert_eq!(said.stdout, b"installed agent\n", "{said:?}");
        }
    }

    #[test]
    fn whatever_a_system_calls_itself_is_no_part_of_a_command() {
        assert_eq!(kind("Lin'ux; rm -rf /", "x86_64\""), "Linuxrm-rf x86_64");
        assert_eq!(Own::find().unwrap().kind(), here());
    }
}
