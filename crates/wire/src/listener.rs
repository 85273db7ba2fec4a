//! Being called: sockets whose owner is not known yet, and what becomes of those that prove who they are.
//!
//! Invariants: a stranger costs a socket, a little memory and ten seconds at most; whatever it does, the others notice
//! nothing; a device that is not admitted learns nothing but that.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use instep_fs::place;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::carrier::{AnyPipe, Token};
use crate::control::Pace;
use crate::error::LinkError;
use crate::gate::Gate;
use crate::identity::{DeviceId, DeviceKey};
use crate::limits;
use crate::link::{self, End, Link, Peer};
use crate::pairing::Visit;
use crate::runtime::{runtime, wait_at_most};
use crate::tls::{self, Admission, Purpose};

/// Somebody who called and proved who it is.
pub enum Visitor {
    /// A device that is admitted.
    Link(Link),
    /// A device that wants to become known.
    Pairing(Visit),
}

/// Listens at one address.
pub struct Listener {
    address: SocketAddr,
    arrivals: tokio::sync::Mutex<mpsc::Receiver<Visitor>>,
    shared: Arc<Shared>,
    listening: tokio::task::JoinHandle<()>,
}

/// The links of all devices, for those who have to end or complete them.
#[derive(Default)]
struct Guests {
    links: Vec<(DeviceId, End)>,
    bulk: BTreeMap<(DeviceId, Token), mpsc::Sender<AnyPipe>>,
}

struct Shared {
    gate: Mutex<Gate>,
    guests: Mutex<Guests>,
    registered: Notify,
    configs: Vec<(Purpose, Arc<rustls::ServerConfig>)>,
    arrive: mpsc::Sender<Visitor>,
    deadline: Duration,
    failures: std::sync::atomic::AtomicU64,
}

/// Those who proved who they are and wait to be received.
const ARRIVALS_MAX: usize = 64;
/// So long a refused stranger may take to hang up by itself.
const LINGER: Duration = Duration::from_secs(2);

impl Listener {
    /// Listens. A port of zero takes any; [`Listener::address`] says which.
    pub fn bind(
        address: SocketAddr,
        key: &DeviceKey,
        admission: Arc<dyn Admission>,
    ) -> Result<Self, LinkError> {
        Self::bind_within(limits::STRANGER_DEADLINE, address, key, admission)
    }

    /// With another deadline for strangers.
    fn bind_within(
        deadline: Duration,
        address: SocketAddr,
        key: &DeviceKey,
        admission: Arc<dyn Admission>,
    ) -> Result<Self, LinkError> {
        let proof = tls::proof(key)?;
        let config = |purpose| {
            let config = tls::server(Arc::clone(&proof), Arc::clone(&admission), purpose)?;
            Ok::<_, LinkError>((purpose, config))
        };
        let configs = Purpose::ALL
            .into_iter()
            .map(config)
            .collect::<Result<_, _>>()?;
        let failed = |e: std::io::Error| LinkError::Unreachable {
            address: address.to_string(),
            why: e.to_string(),
        };
        let runtime = runtime()?;
        let socket = runtime
            .block_on(TcpListener::bind(address))
            .map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        let (arrive, arrivals) = mpsc::channel(ARRIVALS_MAX);
        let shared = Arc::new(Shared {
            gate: Mutex::default(),
            guests: Mutex::default(),
            registered: Notify::new(),
            configs,
            arrive,
            deadline,
            failures: std::sync::atomic::AtomicU64::new(0),
        });
        Ok(Self {
            address,
            arrivals: tokio::sync::Mutex::new(arrivals),
            listening: runtime.spawn(listen(socket, Arc::clone(&shared))),
            shared,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next visitor; none if none came in this time.
    pub fn accept(&self, timeout: Duration) -> Result<Option<Visitor>, LinkError> {
        wait_at_most(timeout, async {
            let arrived = self.arrivals.lock().await.recv().await;
            arrived.ok_or_else(|| LinkError::Lost(String::from("not listening any more")))
        })
    }

    /// Ends all connections of a device: it is not admitted any more.
    pub fn expel(&self, device: DeviceId) {
        let mut guests = self.shared.guests();
        for (_, end) in guests.links.iter().filter(|(of, _)| *of == device) {
            end.with(LinkError::Closed {
                code: String::from("revoked"),
            });
        }
        guests.bulk.retain(|(of, _), _| *of != device);
    }

    /// How many strangers failed to prove who they are.
    pub fn failures(&self) -> u64 {
        self.shared
            .failures
            .load(std::sync::atomic::Ordering::Relaxed)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn listen(socket: TcpListener, shared: Arc<Shared>) {
    loop {
        match socket.accept().await {
            Ok((stream, from)) => {
                if shared.gate().enter(from.ip(), place::monotonic()) {
                    tokio::spawn(receive(Arc::clone(&shared), stream, from));
                }
            }
            // Out of descriptors, most likely: others have to close some first.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Leaves the gate, however the stranger is got rid of.
struct Stay {
    shared: Arc<Shared>,
    from: IpAddr,
    failed: bool,
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.shared
            .gate()
            .leave(self.from, place::monotonic(), self.failed);
    }
}

async fn receive(shared: Arc<Shared>, stream: TcpStream, from: SocketAddr) {
    let mut stay = Stay {
        shared: Arc::clone(&shared),
        from: from.ip(),
        failed: false,
    };
    let known = async {
        let (stream, device, purpose) = shared.know(stream).await?;
        shared.welcome(stream, device, purpose, from).await
    };
    let done = match tokio::time::timeout(shared.deadline, known).await {
        Ok(done) => done,
        Err(_) => Err(LinkError::Violation(String::from("took too long"))),
    };
    match done {
        // Anybody may want to be paired, so whoever does stays a stranger until that is over.
        Ok(Some(Visitor::Pairing(visit))) => {
            let visit = visit.with_stay(stay);
            let _full = shared.arrive.try_send(Visitor::Pairing(visit));
        }
        Ok(Some(visitor)) => {
            drop(stay);
            // Those who wait here are known, and as many as the admission allows.
            let _closed = shared.arrive.send(visitor).await;
        }
        Ok(None) | Err(LinkError::Lost(_)) => {}
        Err(_) => {
            stay.failed = true;
            shared
                .failures
                .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
}

/// Hears a refused stranger out: hanging up while it talks would take back the alert that tells it why.
async fn linger(mut stream: Metered<TcpStream>) {
    let rest = async {
        let _gone = stream.shutdown().await;
        let mut ignored = [0; 1024];
        while stream.read(&mut ignored).await.is_ok_and(|n| n > 0) {}
    };
    let _in_time = tokio::time::timeout(LINGER, rest).await;
}

type Known = TlsStream<Metered<TcpStream>>;

impl Shared {
    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the stranger prove who it is, for the purpose that it names.
    async fn know(&self, stream: TcpStream) -> Result<(Known, DeviceId, Purpose), LinkError> {
        let lost = |e: std::io::Error| tls::cause(&e);
        stream.set_nodelay(true).map_err(lost)?;
        let metered = Metered {
            inner: stream,
            left: Some(limits::STRANGER_BYTES_MAX),
        };
        let acceptor = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), metered);
        let start = acceptor.await.map_err(lost)?;
        let offered: Vec<Vec<u8>> = {
            let hello = start.client_hello();
            let offered = hello.alpn().into_iter().flatten();
            offered.map(<[u8]>::to_vec).collect()
        };
        let asked = |(purpose, _): &&(Purpose, _)| offered.iter().any(|o| o == purpose.alpn());
        let none = || LinkError::Violation(String::from("it names no purpose"));
        let (purpose, config) = self.configs.iter().find(asked).ok_or_else(none)?;
        let accepted = start.into_stream(Arc::clone(config)).into_fallible();
        let mut stream = accepted.await.map_err(|(e, stream)| {
            tokio::spawn(linger(stream));
            tls::cause(&e)
        })?;
        let nobody = || LinkError::Violation(String::from("it shows no key"));
        let certificates = stream.get_ref().1.peer_certificates();
        let shown = certificates.and_then(<[_]>::first).ok_or_else(nobody)?;
        let device = tls::device_of(shown).map_err(|e| LinkError::Violation(e.to_string()))?;
        stream.get_mut().0.left = None;
        Ok((stream, device, *purpose))
    }

    /// What becomes of it now that it is known.
    async fn welcome(
        self: &Arc<Self>,
        mut stream: Known,
        device: DeviceId,
        purpose: Purpose,
        from: SocketAddr,
    ) -> Result<Option<Visitor>, LinkError> {
        let peer = Peer {
            device: Some(device),
            address: from.to_string(),
        };
        match purpose {
            Purpose::Control => {
                let shared = Arc::clone(self);
                let register = move |token, to| shared.register(device, token, to);
                let link = link::accept(stream, peer, Pace::default(), register).await?;
                if let Err(full) = self.admit(device, &link) {
                    link.refuse("too-many", full);
                    return Ok(None);
                }
                Ok(Some(Visitor::Link(link)))
            }
            Purpose::Bulk => {
                let mut token = Token::default();
                let read = stream.read_exact(&mut token).await;
                read.map_err(|e| tls::cause(&e))?;
                self.hand_over(device, token, stream).await?;
                Ok(None)
            }
            Purpose::Pairing => {
                let shared = Arc::clone(self);
                let failed = move || shared.gate().fail(from.ip(), place::monotonic());
                let visit = Visit::new(stream, device, from, Box::new(failed));
                Ok(Some(Visitor::Pairing(visit)))
            }
        }
    }

    fn admit(&self, device: DeviceId, link: &Link) -> Result<(), &'static str> {
        let mut guests = self.guests();
        guests.links.retain(|(_, end)| end.cause().is_none());
        let own = guests.links.iter().filter(|(of, _)| *of == device).count();
        if guests.links.len() >= limits::LINKS_MAX {
            return Err("too many connections");
        }
        if own >= limits::LINKS_PER_DEVICE_MAX {
            return Err("too many connections of this device");
        }
        guests.links.push((device, link.end().clone()));
        Ok(())
    }

    fn register(&self, device: DeviceId, token: Token, to: mpsc::Sender<AnyPipe>) {
        let mut guests = self.guests();
        guests.bulk.retain(|_, to| !to.is_closed());
        guests.bulk.insert((device, token), to);
        drop(guests);
        self.registered.notify_waiters();
    }

    /// Gives a bulk connection to its link, which may be a moment later than it.
    async fn hand_over(
        &self,
        device: DeviceId,
        token: Token,
        stream: Known,
    ) -> Result<(), LinkError> {
        loop {
            let registered = self.registered.notified();
            let to = self.guests().bulk.get(&(device, token)).cloned();
            if let Some(to) = to {
                let gone = |_| LinkError::Lost(String::from("its link is over"));
                return to.send(Box::new(stream)).await.map_err(gone);
            }
            registered.await;
        }
    }
}

/// A stranger's socket: it may send so many bytes until it is known.
pub(crate) struct Metered<S> {
    inner: S,
    left: Option<u64>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let done = Pin::new(&mut self.inner).poll_read(cx, buf);
        let read = (buf.filled().len() - before) as u64;
        if let Some(left) = &mut self.left {
            match left.checked_sub(read) {
                Some(rest) => *left = rest,
                None => {
                    let text = "a stranger says too much";
                    return Poll::Ready(Err(std::io::Error::other(text)));
                }
            }
        }
        done
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests;
