//! Links over what is there already: the input and output of another program (ssh), or a socket of this machine. Who is
//! at the far end was settled by whoever made it.
//!
//! Whoever is called says one line first; the caller skips everything before it, because a login shell may print what
//! it likes.
//!
//! Invariant: a thread that reads or writes for a link ends when the link has ended and the far end has hung up.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::control::Pace;
use crate::error::LinkError;
use crate::limits;
use crate::link::{self, Link, Peer};
use crate::runtime::{runtime, wait};
use crate::tap::Pipe;

/// What whoever is called says first.
pub const READY: &[u8] = b"instep wire 1 ready\n";

/// Bytes that are read or written at a time.
const CHUNK: usize = 64 * 1024;

/// Who of the two calls. It makes no difference after that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one who started the other.
    Caller,
    /// The one who was started.
    Called,
}

impl Link {
    /// A link over two streams of bytes. The caller waits so long for the far end to be ready.
    pub fn over(
        read: impl Read + Send + 'static,
        write: impl Write + Send + 'static,
        side: Side,
        name: &str,
        patience: Duration,
    ) -> Result<Self, LinkError> {
        let handle = runtime()?.handle().clone();
        let (inward, feed) = tokio::io::duplex(4 * CHUNK);
        let (outward, drain) = tokio::io::duplex(4 * CHUNK);
        let (say, ready) = oneshot::channel();
        let reading = Reading {
            handle: handle.clone(),
            to: feed,
            side,
        };
        start("instep-read", move || reading.run(read, say))?;
        start("instep-write", move || writing(&handle, drain, write, side))?;
        if side == Side::Caller {
            wait_until_ready(ready, name, patience)?;
        }
        establish(tokio::io::join(inward, outward), side, name)
    }

    /// A link over a socket of this machine. Who is at the far end has to be checked before.
    pub fn over_socket(socket: UnixStream, side: Side, name: &str) -> Result<Self, LinkError> {
        let lost = |e: std::io::Error| LinkError::Lost(e.to_string());
        socket.set_nonblocking(true).map_err(lost)?;
        let _inside = runtime()?.enter();
        let socket = tokio::net::UnixStream::from_std(socket).map_err(lost)?;
        establish(socket, side, name)
    }
}

fn establish(io: impl Pipe, side: Side, name: &str) -> Result<Link, LinkError> {
    let peer = Peer {
        device: None,
        address: String::from(name),
    };
    let pace = Pace::default();
    let established = async {
        match side {
            Side::Caller => link::call(io, peer, pace, None).await,
            Side::Called => link::accept(io, peer, pace, |_, _| {}).await,
        }
    };
    wait(async {
        let done = tokio::time::timeout(limits::DIAL_DEADLINE, established).await;
        done.map_err(|_| unreachable(name, "no answer in time"))?
    })
}

fn unreachable(name: &str, why: &str) -> LinkError {
    LinkError::Unreachable {
        address: String::from(name),
        why: String::from(why),
    }
}

fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), LinkError> {
    let started = std::thread::Builder::new()
        .name(String::from(name))
        .spawn(work);
    let failed = |e: std::io::Error| LinkError::Lost(format!("start a thread: {e}"));
    started.map(drop).map_err(failed)
}

fn wait_until_ready(
    ready: oneshot::Receiver<Result<(), String>>,
    name: &str,
    patience: Duration,
) -> Result<(), LinkError> {
    let said = runtime()?.block_on(async { tokio::time::timeout(patience, ready).await });
    match said {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(why))) => Err(unreachable(name, &why)),
        Ok(Err(_)) => Err(unreachable(name, "it ended before it was ready")),
        Err(_) => Err(unreachable(name, "it was not ready in time")),
    }
}

struct Reading {
    handle: Handle,
    to: tokio::io::DuplexStream,
    side: Side,
}

impl Reading {
    fn run(mut self, mut read: impl Read, say: oneshot::Sender<Result<(), String>>) {
        if self.side == Side::Caller {
            let skipped = skip_banner(&mut read);
            let failed = skipped.is_err();
            if say.send(skipped).is_err() || failed {
                return;
            }
        }
        let mut bytes = vec![0; CHUNK];
        loop {
            let n = match read.read(&mut bytes) {
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Ok(0) | Err(_) => return,
                Ok(n) => n,
            };
            if self
                .handle
                .block_on(self.to.write_all(&bytes[..n]))
                .is_err()
            {
                return;
            }
        }
    }
}

fn writing(handle: &Handle, mut from: tokio::io::DuplexStream, mut write: impl Write, side: Side) {
    if side == Side::Called && write.write_all(READY).and_then(|()| write.flush()).is_err() {
        return;
    }
    let mut bytes = vec![0; CHUNK];
    while let Ok(n) = handle.block_on(from.read(&mut bytes)) {
        let done = write.write_all(&bytes[..n]).and_then(|()| write.flush());
        if n == 0 || done.is_err() {
            return;
        }
    }
}

/// Reads up to the line that says that the far end is ready; byte by byte, so that nothing after it is taken.
fn skip_banner(read: &mut impl Read) -> Result<(), String> {
    let mut last = Vec::with_capacity(READY.len());
    for _ in 0..limits::BANNER_BYTES_MAX {
        let mut byte = [0];
        match read.read(&mut byte) {
            Ok(0) => return Err(ended(&last)),
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(e.to_string()),
        }
        if last.len() == READY.len() {
            last.remove(0);
        }
        last.push(byte[0]);
        if last == READY {
            return Ok(());
        }
    }
    Err(String::from("it says too much before it is ready"))
}

/// With the end of what was said, which is often the reason.
fn ended(last: &[u8]) -> String {
    let said = String::from_utf8_lossy(last);
    match said.trim() {
        "" => String::from("it ended before it was ready"),
        said => format!(
            "it ended before it was ready, after \"{}\"",
            said.escape_debug()
        ),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;
    use crate::frame::{Class, Outcome};
    use crate::message::{Hello, Message};
    use crate::want::{Want, Wanted};
    use bytes::Bytes;
    use instep_core::id::{ActorId, ContentId, ReplicaId, ShareId};
    use instep_core::path::RelPath;

    const SOON: Duration = Duration::from_secs(20);

    fn hello() -> Message {
        let hello = Hello::new(ShareId([1; 16]), ReplicaId([2; 16]), ActorId([3; 8]));
        Message::Hello(Box::new(hello))
    }

    /// Greets both ways, and has the caller fetch a content and the called one another.
    fn use_it(caller: Link, called: Link) {
        for (one, other) in [(&caller, &called), (&called, &caller)] {
            one.send(&hello()).unwrap();
            assert_eq!(other.recv(SOON).unwrap(), Some(hello()));
        }
        let content = Bytes::from(vec![9; 700_000]);
        for (asks, answers) in [(&caller, &called), (&called, &caller)] {
            let want = Want {
                content: ContentId([4; 32]),
                path: RelPath::new(b"a").unwrap(),
                size: 700_000,
                part: Wanted::From(0),
                class: Class::File,
            };
            let mut got = Vec::new();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let mut asked = answers.asked(SOON).unwrap().unwrap();
                    asked.write(content.clone()).unwrap();
                    asked.finish(Outcome::Complete);
                });
                asks.ask(want).unwrap().read_to_end(&mut got).unwrap();
            });
            assert!(got == content);
        }
        drop(caller);
        assert!(matches!(called.recv(SOON), Err(LinkError::Closed { .. })));
    }

    #[test]
    fn a_socket_of_this_machine_carries_everything() {
        let (one, two) = UnixStream::pair().unwrap();
        let called = std::thread::spawn(|| Link::over_socket(two, Side::Called, "caller").unwrap());
        let caller = Link::over_socket(one, Side::Caller, "called").unwrap();
        use_it(caller, called.join().unwrap());
    }

    #[test]
    fn pipes_carry_everything_behind_a_banner() {
        let (from_called, to_caller) = std::io::pipe().unwrap();
        let (from_caller, to_called) = std::io::pipe().unwrap();
        let called = std::thread::spawn(|| {
            let mut to_caller = to_caller;
            to_caller
                .write_all(b"Welcome!\r\ninstep wire 1 rea\nLast login: never\n")
                .unwrap();
            Link::over(from_caller, to_caller, Side::Called, "caller", SOON).unwrap()
        });
        let caller = Link::over(from_called, to_called, Side::Caller, "called", SOON).unwrap();
        use_it(caller, called.join().unwrap());
    }

    #[test]
    fn a_program_that_ends_before_it_is_ready_is_reported_with_its_last_words() {
        let said = b"sh: 1: instep: not found\n";
        let failed = Link::over(&said[..], std::io::sink(), Side::Caller, "host", SOON).err();
        let Some(LinkError::Unreachable { address, why }) = failed else {
            panic!("{failed:?}")
        };
        assert_eq!(address, "host");
        assert!(why.contains("not found"), "{why}");
    }

    #[test]
    fn a_program_that_talks_for_ever_is_not_listened_to_for_ever() {
        let failed = Link::over(
            std::io::repeat(b'y'),
            std::io::sink(),
            Side::Caller,
            "h",
            SOON,
        );
        assert!(matches!(failed.err(), Some(LinkError::Unreachable { .. })));
    }
}
