//! Where people at the hub's own machine ask it things: a socket in its directory.
//!
//! Invariant: only the user whose hub it is gets an answer; whoever does may do everything, as that user may with the
//! files themselves.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use instep_wire::link::Link;
use instep_wire::pipe::Side;

use super::order::{Answer, Order};
use super::reception::Hub;
use crate::control::{Place, is_ours};
use crate::error::{Exit, Failure};
use crate::far::hubs::odd;
use crate::far::request::{self, Ask, Tell};

const SOCKET: &str = "hub.sock";
const AT: &str = "the hub on this machine";

/// The socket, as long as the hub runs.
pub(crate) struct Desk {
    /// Through `place`, which is open as long as it is used.
    path: PathBuf,
    _place: Place,
    over: Arc<AtomicBool>,
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // A connection of our own wakes the thread that waits for one.
        drop(UnixStream::connect(&self.path));
        // A socket that stays behind counts as no hub.
        drop(std::fs::remove_file(&self.path));
    }
}

/// Begins to answer.
pub(crate) fn open(hub: &Arc<Hub>, data: &Path) -> Result<Desk, Failure> {
    let place = Place::prepare(data)?;
    let path = place.path_of(SOCKET);
    let failed = |e: std::io::Error| {
        Failure::new(1900, Exit::Failed, format!("listen in {}", data.display())).why(e.to_string())
    };
    // The directory is locked: whatever is at this name belonged to a hub that has ended.
    drop(std::fs::remove_file(&path));
    let listener = UnixListener::bind(&path).map_err(failed)?;
    let over = Arc::new(AtomicBool::new(false));
    let (hub, ended) = (Arc::clone(hub), Arc::clone(&over));
    let answer = move || {
        for stream in listener.incoming() {
            if ended.load(Ordering::SeqCst) {
                return;
            }
            let Some(stream) = stream.ok().filter(is_ours) else {
                continue;
            };
            let hub = Arc::clone(&hub);
            let receive = move || {
                if let Ok(link) = Link::over_socket(stream, Side::Called, "this machine") {
                    hub.converse(&Arc::new(link));
                }
            };
            // Without a thread the connection is closed, and the other end says that nobody answered.
            drop(
                std::thread::Builder::new()
                    .name("desk".into())
                    .spawn(receive),
            );
        }
    };
    std::thread::Builder::new()
        .name("desk".into())
        .spawn(answer)
        .map_err(failed)?;
    Ok(Desk {
        path,
        _place: place,
        over,
    })
}

/// Asks the hub that has this directory.
pub(crate) fn ask(data: &Path, order: Order) -> Result<Answer, Failure> {
    let silent = |why: String| {
        Failure::new(
            1078,
            Exit::Unreachable,
            format!("no hub runs with {}", data.display()),
        )
        .why(why)
        .remedy("start it: instep serve --data DIR")
        .remedy("or name one that this device has joined: --hub HOST")
    };
    let none = || silent("the directory is not there".into());
    let place = Place::open(data)?.ok_or_else(none)?;
    let stream = UnixStream::connect(place.path_of(SOCKET)).map_err(|e| silent(e.to_string()))?;
    if !is_ours(&stream) {
        return Err(silent(
            "the process that listens there is another user's".into(),
        ));
    }
    let link = Link::over_socket(stream, Side::Caller, AT).map_err(|e| silent(e.to_string()))?;
    request::greet(&link, AT)?;
    let told = request::ask(&link, AT, &Ask::Order(order));
    link.close("done");
    match told? {
        Tell::Answered(answer) => Ok(answer),
        _ => Err(odd(AT)),
    }
}

/// Whether a hub runs with this directory.
pub(crate) fn is_open(data: &Path) -> bool {
    let place = Place::open(data).ok().flatten();
    place.is_some_and(|place| UnixStream::connect(place.path_of(SOCKET)).is_ok())
}
