//! Commands to a session that is running, over a Unix socket named by replica id.
//!
//! One JSON object per line each way. Invariants: the directory belongs to this user alone, and so does the
//! process at the other end; a socket without a process behind it counts as no session.

pub(crate) mod client;
pub(crate) mod protocol;
pub(crate) mod server;

use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use instep_core::id::ReplicaId;

use crate::error::{Exit, Failure};

/// The socket of a replica's session.
pub(crate) fn socket(dir: &Path, replica: ReplicaId) -> PathBuf {
    dir.join(format!("{replica}.sock"))
}

/// Whether the directory may be trusted; false when there is none.
pub(crate) fn is_safe(dir: &Path) -> Result<bool, Failure> {
    let unsafe_because = |why: String| {
        Failure::new(
            1023,
            Exit::Denied,
            format!("{} cannot be used for sockets", dir.display()),
        )
        .why(why)
        .remedy("remove it, or set XDG_RUNTIME_DIR to a directory of your own")
    };
    match std::fs::symlink_metadata(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(unsafe_because(e.to_string())),
        Ok(m) if !m.is_dir() => Err(unsafe_because(String::from("it is not a directory"))),
        Ok(m) if m.uid() != rustix::process::geteuid().as_raw() => {
            Err(unsafe_because(format!("it belongs to user {}", m.uid())))
        }
        Ok(m) if m.mode() & 0o077 != 0 => Err(unsafe_because(format!(
            "it is open to others (mode {:04o})",
            m.mode() & 0o7777
        ))),
        Ok(_) => Ok(true),
    }
}

/// Makes the directory, open to this user alone.
pub(crate) fn prepare(dir: &Path) -> Result<(), Failure> {
    if !is_safe(dir)? {
        let made = std::fs::DirBuilder::new().mode(0o700).create(dir);
        if let Err(e) = made.as_ref()
            && e.kind() != std::io::ErrorKind::AlreadyExists
        {
            return Err(Failure::new(
                1023,
                Exit::Denied,
                format!("create {} for sockets", dir.display()),
            )
            .why(e.to_string())
            .remedy("set XDG_RUNTIME_DIR to a directory of your own"));
        }
        is_safe(dir)?;
    }
    Ok(())
}

/// Whether the process at the other end is this user's.
fn is_ours(stream: &UnixStream) -> bool {
    rustix::net::sockopt::socket_peercred(stream)
        .is_ok_and(|peer| peer.uid == rustix::process::geteuid())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::{Arc, Mutex};

    use instep_engine::command::{Answer, Command, Keep};

    use super::*;

    fn dir() -> (tempfile::TempDir, PathBuf) {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("instep");
        prepare(&dir).unwrap();
        (top, dir)
    }

    #[test]
    fn a_command_reaches_the_session_and_its_answer_comes_back() {
        let (_top, dir) = dir();
        let asked: Arc<Mutex<Vec<Command>>> = Arc::default();
        let seen = Arc::clone(&asked);
        let (a, b) = (ReplicaId([1; 16]), ReplicaId([2; 16]));
        let answer = move |command: Command| {
            seen.lock().unwrap().push(command);
            Some(Answer::Done(3))
        };
        let server = server::serve(&dir, &[a, b], answer).unwrap();
        let command = Command::Resolve {
            id: None,
            keep: Keep::Replica("A".into()),
        };
        let mut client = client::connect(&dir, b).unwrap().unwrap();
        assert_eq!(client.ask(&command).unwrap(), Answer::Done(3));
        assert_eq!(client.ask(&Command::Rescan).unwrap(), Answer::Done(3));
        assert_eq!(*asked.lock().unwrap(), [command, Command::Rescan]);
        drop(server);
        assert!(client::connect(&dir, a).unwrap().is_none());
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
    }

    #[test]
    fn the_socket_of_a_dead_process_counts_as_no_session_and_is_replaced() {
        let (_top, dir) = dir();
        let id = ReplicaId([3; 16]);
        drop(std::os::unix::net::UnixListener::bind(socket(&dir, id)).unwrap());
        assert!(socket(&dir, id).exists());
        assert!(client::connect(&dir, id).unwrap().is_none());
        let _server = server::serve(&dir, &[id], |_| Some(Answer::Done(1))).unwrap();
        assert!(client::connect(&dir, id).unwrap().is_some());
    }

    #[test]
    fn a_session_that_is_over_is_told_apart_from_an_answer() {
        let (_top, dir) = dir();
        let id = ReplicaId([4; 16]);
        let _server = server::serve(&dir, &[id], |_| None).unwrap();
        let mut client = client::connect(&dir, id).unwrap().unwrap();
        assert_eq!(client.ask(&Command::Status).unwrap_err().code, 1024);
    }

    #[test]
    fn nonsense_is_refused_and_does_not_end_the_session() {
        use std::io::{BufRead as _, Write as _};
        let (_top, dir) = dir();
        let id = ReplicaId([5; 16]);
        let _server = server::serve(&dir, &[id], |_| Some(Answer::Done(1))).unwrap();
        let mut stream = UnixStream::connect(socket(&dir, id)).unwrap();
        stream.write_all(b"{nonsense\n").unwrap();
        let mut line = String::new();
        std::io::BufReader::new(&stream)
            .read_line(&mut line)
            .unwrap();
        assert!(line.contains("refused"), "{line}");
        let mut client = client::connect(&dir, id).unwrap().unwrap();
        assert_eq!(client.ask(&Command::Rescan).unwrap(), Answer::Done(1));
    }

    #[test]
    fn a_directory_that_is_open_to_others_is_refused() {
        let (_top, dir) = dir();
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(is_safe(&dir).unwrap_err().code, 1023);
        assert_eq!(
            client::connect(&dir, ReplicaId([1; 16]))
                .err()
                .map(|f| f.code),
            Some(1023)
        );
        assert!(!is_safe(Path::new("/nonexistent/instep")).unwrap());
    }
}
