//! Commands to a session that is running, over a Unix socket named by replica id.
//!
//! One JSON object per line each way. Invariants: the directory belongs to this user alone, and so does the
//! process at the other end; a socket without a process behind it counts as no session.

pub(crate) mod client;
pub(crate) mod protocol;
pub(crate) mod server;

use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use instep_core::id::ReplicaId;
use instep_core::path::Name;
use instep_fs::{Dir, ErrorKind, place};

use crate::error::{Exit, Failure};

/// The directory of the sockets, open and known to be this user's alone.
#[derive(Debug)]
pub(crate) struct Place(Dir);

impl Place {
    /// Opens the directory; nothing when there is none.
    pub(crate) fn open(dir: &Path) -> Result<Option<Self>, Failure> {
        let refused = |why: String| {
            let what = format!("{} cannot be used for sockets", dir.display());
            Failure::new(1023, Exit::Denied, what)
                .why(why)
                .remedy("remove it, or set XDG_RUNTIME_DIR to a directory of your own")
        };
        let opened = match place::open_root(dir) {
            Ok(opened) => opened,
            Err(e) => {
                return match e.kind() {
                    ErrorKind::Absent => Ok(None),
                    ErrorKind::OtherKind => Err(refused(String::from("it is not a directory"))),
                    _ => Err(refused(e.to_string())),
                };
            }
        };
        let stat = opened.stat_self().map_err(|e| refused(e.to_string()))?;
        if stat.uid != rustix::process::geteuid().as_raw() {
            return Err(refused(format!("it belongs to user {}", stat.uid)));
        }
        if stat.mode & 0o077 != 0 {
            let mode = stat.mode;
            return Err(refused(format!("it is open to others (mode {mode:04o})")));
        }
        Ok(Some(Self(opened)))
    }

    /// Opens the directory, and makes it first where there is none.
    pub(crate) fn prepare(dir: &Path) -> Result<Self, Failure> {
        if let Some(place) = Self::open(dir)? {
            return Ok(place);
        }
        let failed = |why: String| {
            Failure::new(
                1023,
                Exit::Denied,
                format!("create {} for sockets", dir.display()),
            )
            .why(why)
            .remedy("set XDG_RUNTIME_DIR to a directory of your own")
        };
        match std::fs::DirBuilder::new().mode(0o700).create(dir) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(failed(e.to_string()));
            }
            _ => {}
        }
        Self::open(dir)?.ok_or_else(|| failed(String::from("it is gone again")))
    }

    /// The socket of a replica's session. The path goes through the open directory, because the path of a
    /// socket must be short and that of the directory need not be.
    pub(crate) fn socket(&self, replica: ReplicaId) -> PathBuf {
        self.path_of(&format!("{replica}.sock"))
    }

    /// A path of a name in it, good for as long as it is open.
    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        place::fd_path(&self.0, name)
    }

    /// The names of all sockets of replicas; those that cannot be listed are none.
    pub(crate) fn sockets(&self) -> Vec<String> {
        let mut out = Vec::new();
        let listed = self.0.list(&mut |name, _| {
            let name = String::from_utf8_lossy(name).into_owned();
            let id = name.strip_suffix(".sock").map(str::parse::<ReplicaId>);
            out.extend(matches!(id, Some(Ok(_))).then_some(name));
        });
        if listed.is_err() {
            out.clear();
        }
        out.sort_unstable();
        out
    }
}

/// Removes sockets of processes that are dead.
pub(crate) fn remove(dir: &Path, names: &[String]) -> Result<(), Failure> {
    let Some(place) = Place::open(dir)? else {
        return Ok(());
    };
    for name in names {
        let removed = Name::new(name.as_bytes())
            .map_err(|e| e.to_string())
            .and_then(|name| place.0.remove_file(name).map_err(|e| e.to_string()));
        removed.map_err(|why| {
            Failure::new(1023, Exit::Failed, format!("remove the socket {name}")).why(why)
        })?;
    }
    Ok(())
}

/// Whether the process at the other end is this user's.
pub(crate) fn is_ours(stream: &UnixStream) -> bool {
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
        drop(Place::prepare(&dir).unwrap());
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
        let server = server::serve(&dir, &[a, b], answer, None).unwrap();
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
        let socket = dir.join(format!("{id}.sock"));
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        assert!(socket.exists());
        assert!(client::connect(&dir, id).unwrap().is_none());
        let _server = server::serve(&dir, &[id], |_| Some(Answer::Done(1)), None).unwrap();
        assert!(client::connect(&dir, id).unwrap().is_some());
    }

    #[test]
    fn a_session_that_is_over_is_told_apart_from_an_answer() {
        let (_top, dir) = dir();
        let id = ReplicaId([4; 16]);
        let _server = server::serve(&dir, &[id], |_| None, None).unwrap();
        let mut client = client::connect(&dir, id).unwrap().unwrap();
        assert_eq!(client.ask(&Command::Status).unwrap_err().code, 1024);
    }

    #[test]
    fn nonsense_is_refused_and_does_not_end_the_session() {
        use std::io::{BufRead as _, Write as _};
        let (_top, dir) = dir();
        let id = ReplicaId([5; 16]);
        let _server = server::serve(&dir, &[id], |_| Some(Answer::Done(1)), None).unwrap();
        let mut stream = UnixStream::connect(dir.join(format!("{id}.sock"))).unwrap();
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
        assert_eq!(Place::open(&dir).unwrap_err().code, 1023);
        assert_eq!(
            client::connect(&dir, ReplicaId([1; 16]))
                .err()
                .map(|f| f.code),
            Some(1023)
        );
        assert!(
            Place::open(Path::new("/nonexistent/instep"))
                .unwrap()
                .is_none()
        );
        let link = dir.with_file_name("link");
        std::os::unix::fs::symlink(&dir, &link).unwrap();
        assert_eq!(Place::open(&link).unwrap_err().code, 1023);
    }

    #[test]
    fn a_directory_whose_path_is_longer_than_a_socket_path_may_be_is_used_all_the_same() {
        let top = tempfile::tempdir().unwrap();
        let long = top.path().join("x".repeat(200));
        std::fs::create_dir(&long).unwrap();
        let dir = long.join("instep");
        let id = ReplicaId([6; 16]);
        let server = server::serve(&dir, &[id], |_| Some(Answer::Done(5)), None).unwrap();
        let mut client = client::connect(&dir, id).unwrap().unwrap();
        assert_eq!(client.ask(&Command::Rescan).unwrap(), Answer::Done(5));
        drop(server);
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
    }
}
