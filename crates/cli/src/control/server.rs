//! The holder's end: takes requests and hands them to the engine.
//!
//! Each connection has a thread; a connection that misbehaves is closed and concerns nobody else.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use instep_core::id::ReplicaId;
use instep_engine::command::{Answer, Command};

use super::{Place, is_ours, protocol};
use crate::error::{Exit, Failure};
use crate::far::guests::{self, Guests};

/// More than any request needs.
const LINE_MAX: u64 = 1 << 20;

/// The sockets of a session; removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    /// Through `place`, which is open as long as they are used.
    paths: Vec<PathBuf>,
    place: Place,
    over: Arc<AtomicBool>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        for path in &self.paths {
            // A connection of our own wakes the thread that waits for one; it sees that this is the end.
            drop(UnixStream::connect(path));
            // A socket that stays behind counts as no session.
            drop(std::fs::remove_file(path));
        }
    }
}

/// Listens for every replica of a session. `answer` gives nothing when the session is over; `guests` take callers in.
pub(crate) fn serve(
    dir: &Path,
    replicas: &[ReplicaId],
    answer: impl Fn(Command) -> Option<Answer> + Send + Sync + 'static,
    guests: Option<Arc<Guests>>,
) -> Result<Server, Failure> {
    let answer = Arc::new(answer);
    let mut server = Server {
        place: Place::prepare(dir)?,
        paths: Vec::new(),
        over: Arc::default(),
    };
    for id in replicas {
        let path = server.place.socket(*id);
        let failed = |e: std::io::Error| {
            Failure::new(1900, Exit::Failed, format!("listen in {}", dir.display()))
                .why(e.to_string())
        };
        // The lock of the root is held: whatever is at this name belonged to a process that has ended.
        drop(std::fs::remove_file(&path));
        let listener = UnixListener::bind(&path).map_err(failed)?;
        server.paths.push(path.clone());
        let (answer, over) = (Arc::clone(&answer), Arc::clone(&server.over));
        let door = guests.clone().filter(|g| g.has(*id)).map(|g| (*id, g));
        std::thread::Builder::new()
            .name("control".into())
            .spawn(move || accept(&listener, &answer, door.as_ref(), &over))
            .map_err(failed)?;
    }
    Ok(server)
}

/// Who lets callers in, and to which replica.
type Door = (ReplicaId, Arc<Guests>);

fn accept<F>(listener: &UnixListener, answer: &Arc<F>, door: Option<&Door>, over: &AtomicBool)
where
    F: Fn(Command) -> Option<Answer> + Send + Sync + 'static,
{
    for stream in listener.incoming() {
        if over.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        if !is_ours(&stream) {
            continue;
        }
        let answer = Arc::clone(answer);
        let door = door.cloned();
        // Without a thread the connection is closed, and the other end says that nobody answered.
        drop(
            std::thread::Builder::new()
                .name("control".into())
                .spawn(move || converse(stream, &*answer, door.as_ref())),
        );
    }
}

/// Answers until the other end has no more to ask.
fn converse(stream: UnixStream, answer: &dyn Fn(Command) -> Option<Answer>, door: Option<&Door>) {
    let Ok(mut writer) = stream.try_clone() else {
        return;
    };
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        match reader.by_ref().take(LINE_MAX).read_line(&mut line) {
            Ok(n) if n > 0 => {}
            _ => return,
        }
        if line == protocol::ATTACH {
            return attach(reader, writer, door);
        }
        let reply = match protocol::command(&line) {
            Ok(command) => match answer(command) {
                Some(reply) => reply,
                None => return,
            },
            Err(why) => Answer::Refused { code: 1024, why },
        };
        if writer
            .write_all(protocol::answer_line(&reply).as_bytes())
            .is_err()
        {
            return;
        }
    }
}

/// Answers whoever brings a caller, and lets it in.
fn attach(reader: BufReader<UnixStream>, mut writer: UnixStream, door: Option<&Door>) {
    let reply = match door {
        Some(_) => Answer::Done(0),
        None => guests::closed(),
    };
    let said = writer.write_all(protocol::answer_line(&reply).as_bytes());
    // Nothing is said before the answer came.
    if let Some((replica, guests)) = door.filter(|_| said.is_ok() && reader.buffer().is_empty()) {
        guests.receive(*replica, writer);
    }
}
