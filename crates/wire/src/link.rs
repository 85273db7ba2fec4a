//! A connection to another machine, for threads: messages in order, both ways, until it is over.
//!
//! Invariants: what arrived before the end is received before the end is reported; the end has one cause, which every
//! further call returns; nobody waits for a connection that is over. A thread that sends waits while the far end does
//! not receive, so whoever receives must not wait for its own sending.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use crate::bulk::{Asked, Bulk, Fetch};
use crate::carrier::{AnyPipe, Carrier, Token, pipe_of};
use crate::control::{self, Call, Connection, Method, Pace};
use crate::dial::{self, Dialer};
use crate::error::LinkError;
use crate::identity::DeviceId;
use crate::limits;
use crate::message::Message;
use crate::proto;
use crate::pump::{Arrived, Pump};
use crate::runtime::{wait, wait_at_most};
use crate::tap::{Pipe, Seen, Tap};
use crate::want::Want;

type Result<T> = std::result::Result<T, LinkError>;

/// Who is at the far end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The device, proved by its key; none where the connection itself is the proof (ssh, a socket of this user).
    pub device: Option<DeviceId>,
    /// Where it is, for people.
    pub address: String,
}

/// A message in the form in which it travels: encoded once for any number of links.
#[derive(Debug, Clone)]
pub struct Encoded(Bytes);

impl Encoded {
    /// Encodes it; refused is what the far end would refuse.
    pub fn new(message: &Message) -> Result<Self> {
        proto::encode(message)
            .map(Self)
            .map_err(LinkError::Unsendable)
    }

    /// How many bytes it is.
    pub fn bytes(&self) -> usize {
        self.0.len()
    }
}

/// A connection to another machine.
pub struct Link {
    peer: Peer,
    outbox: Mutex<Option<mpsc::Sender<Bytes>>>,
    inbox: tokio::sync::Mutex<mpsc::Receiver<Arrived>>,
    bulk: Arc<Bulk>,
    end: End,
    seen: Arc<Seen>,
}

/// The end of a link: none while it lasts, then its one cause.
#[derive(Debug, Clone)]
pub(crate) struct End(watch::Sender<Option<LinkError>>);

impl End {
    pub(crate) fn new() -> Self {
        Self(watch::channel(None).0)
    }

    /// Ends it, unless it has ended already.
    pub(crate) fn with(&self, cause: LinkError) {
        self.0.send_if_modified(|end| {
            let first = end.is_none();
            if first {
                *end = Some(cause);
            }
            first
        });
    }

    /// Why it ended, if it did.
    pub(crate) fn cause(&self) -> Option<LinkError> {
        self.0.borrow().clone()
    }

    /// Waits for it.
    pub(crate) async fn wait(&self) -> LinkError {
        let mut end = self.0.subscribe();
        let cause = end
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|c| c.clone());
        cause.unwrap_or_else(|| LinkError::Lost(String::from("the connection is gone")))
    }
}

impl Link {
    /// Two ends of one connection within this process: everything but the network is the same.
    pub fn pair() -> Result<(Self, Self)> {
        wait(async {
            let (one, two) = tokio::io::duplex(256 * 1024);
            let peer = |name: &str| Peer {
                device: None,
                address: String::from(name),
            };
            let called = accept(two, peer("pair: caller"), Pace::default(), |_, _| {});
            let calling = call(one, peer("pair: called"), Pace::default(), None);
            tokio::try_join!(calling, called)
        })
    }

    /// Who is at the far end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Sends a message, after all that were sent before. Waits while too many are on their way.
    pub fn send(&self, message: &Message) -> Result<()> {
        self.send_encoded(&Encoded::new(message)?)
    }

    /// As [`Link::send`].
    pub fn send_encoded(&self, message: &Encoded) -> Result<()> {
        let outbox = self.outbox()?;
        let message = message.0.clone();
        wait(async {
            tokio::select! {
                biased;
                sent = outbox.send(message) => sent.map_err(|_| self.gone()),
                cause = self.end.wait() => Err(cause),
                () = tokio::time::sleep(limits::STALL) => {
                    self.end.with(LinkError::Lost(String::from("the far end takes nothing")));
                    Err(self.gone())
                }
            }
        })
    }

    /// Sends it if that takes no waiting; false if it would.
    pub fn try_send(&self, message: &Encoded) -> Result<bool> {
        match self.outbox()?.try_send(message.0.clone()) {
            Ok(()) => Ok(true),
            Err(mpsc::error::TrySendError::Full(_)) => Ok(false),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(self.gone()),
        }
    }

    /// The next message; none if none came in this time. [`Message::Refused`] and [`Message::Bye`] are received as the
    /// errors that they are, and a ping is answered before it is received.
    pub fn recv(&self, timeout: Duration) -> Result<Option<Message>> {
        wait_at_most(timeout, async {
            let mut inbox = self.inbox.lock().await;
            let arrived = inbox.recv().await;
            arrived.map(|a| a.message).ok_or_else(|| self.gone())
        })
    }

    /// Asks for a content, to be read in order. Waits while [`limits::WANTS_MAX`] are on their way, or while too much
    /// that came was not read: whoever asks for many reads them by other threads, or uses [`Link::try_ask`].
    pub fn ask(&self, want: Want) -> Result<Fetch> {
        self.bulk.ask(want)
    }

    /// As [`Link::ask`], after so many bytes of the answer are there. What cannot be wanted in part is wanted anew.
    pub fn ask_after(&self, want: Want, bytes: u64) -> Result<Fetch> {
        self.bulk.ask_after(want, bytes)
    }

    /// As [`Link::ask`], for later; none where it, or somebody who asks for something now, would wait.
    pub fn try_ask(&self, want: Want) -> Result<Option<Fetch>> {
        self.bulk.try_ask(want)
    }

    /// The most urgent of the contents that the far end asks for; none if it asked for none in this time.
    pub fn asked(&self, timeout: Duration) -> Result<Option<Asked>> {
        self.bulk.asked(timeout)
    }

    /// Why the connection ended; none while it lasts.
    pub fn ended(&self) -> Option<LinkError> {
        self.end.cause()
    }

    /// Bytes of control that were read and written, before encryption.
    pub fn traffic(&self) -> (u64, u64) {
        self.seen.bytes()
    }

    /// Says goodbye and ends the connection. What was sent before still goes out.
    pub fn close(&self, code: &str) {
        let known = self.end.cause();
        let code = match &known {
            // Whoever ended it has said why.
            Some(LinkError::Closed { code }) => code,
            _ => code,
        };
        self.leave(&Message::Bye {
            code: String::from(code),
        });
        self.end.with(LinkError::Closed {
            code: String::from(code),
        });
    }

    /// Tells the far end why there is nothing for it here, and ends the connection.
    pub fn refuse(&self, code: &str, detail: &str) {
        self.leave(&Message::Refused {
            code: String::from(code),
            detail: String::from(detail),
        });
        self.end.with(LinkError::Closed {
            code: String::from(code),
        });
    }

    /// Puts the last message, if there is room for it, and takes no more.
    fn leave(&self, last: &Message) {
        let mut outbox = self.outbox.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(outbox), Ok(last)) = (outbox.take(), Encoded::new(last)) {
            // A full queue means that the far end takes nothing: it will notice the end by itself.
            let _full = outbox.try_send(last.0);
        }
    }

    fn outbox(&self) -> Result<mpsc::Sender<Bytes>> {
        if let Some(cause) = self.end.cause() {
            return Err(cause);
        }
        let outbox = self.outbox.lock().unwrap_or_else(PoisonError::into_inner);
        outbox.clone().ok_or_else(|| self.gone())
    }

    pub(crate) fn end(&self) -> &End {
        &self.end
    }

    /// The cause of the end, which has come or is about to.
    fn gone(&self) -> LinkError {
        let lost = || LinkError::Lost(String::from("the connection is gone"));
        self.end
            .cause()
            .or_else(|| self.seen.broken())
            .unwrap_or_else(lost)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.close("done");
    }
}

/// Opens a link as the one who calls. Contents get a connection of their own where there is somewhere to dial.
pub(crate) async fn call(
    io: impl Pipe,
    peer: Peer,
    pace: Pace,
    dialer: Option<Arc<Dialer>>,
) -> Result<Link> {
    let seen = Arc::new(Seen::default());
    let begun = control::begin(Tap::new(io, Arc::clone(&seen)), pace).await;
    let (caller, connection) = begun.map_err(|e| broken(&seen, &e))?;
    let end = End::new();
    tokio::spawn(drive(connection, end.clone(), Arc::clone(&seen)));
    let token = dial::token()?;
    let (outgoing, rest) = mpsc::channel(limits::OUTBOX_MESSAGES_MAX);
    let announced = dialer.is_some().then_some(token);
    let incoming = match caller.call(Method::Exchange, rest, announced).await {
        Ok(incoming) => incoming,
        Err(status) => {
            // The connection knows better than the call why there was no answer, a moment later.
            let known = tokio::time::timeout(Duration::from_secs(1), end.wait()).await;
            let lost = || LinkError::Lost(String::from(status.message()));
            return Err(known.ok().or_else(|| seen.broken()).unwrap_or_else(lost));
        }
    };
    let carrier = match dialer {
        Some(dialer) => Carrier::Dials(dialer, token),
        None => Carrier::Calls(caller),
    };
    let token = None;
    let call = Call {
        incoming,
        outgoing,
        token,
    };
    Ok(open(call, (carrier, true), peer, pace, (end, seen)))
}

/// Opens a link as the one who is called. Where the caller announces a bulk connection, `register` learns to whom it
/// has to be given.
pub(crate) async fn accept(
    io: impl Pipe,
    peer: Peer,
    pace: Pace,
    register: impl FnOnce(Token, mpsc::Sender<AnyPipe>),
) -> Result<Link> {
    let seen = Arc::new(Seen::default());
    let (mut calls, connection) = control::serve(Tap::new(io, Arc::clone(&seen)), pace);
    let end = End::new();
    tokio::spawn(drive(connection, end.clone(), Arc::clone(&seen)));
    let first = tokio::select! {
        first = calls.recv() => first,
        cause = end.wait() => return Err(cause),
    };
    let call = match first {
        Some((Method::Exchange, call)) => call,
        Some((Method::Bulk, _)) => {
            return Err(LinkError::Violation(String::from("bulk before control")));
        }
        None => return Err(LinkError::Lost(String::from("closed before it began"))),
    };
    let (give, came) = mpsc::channel(1);
    if let Some(token) = call.token {
        register(token, give.clone());
    }
    tokio::spawn(async move {
        while let Some((method, call)) = calls.recv().await {
            if method == Method::Bulk && give.send(Box::new(pipe_of(call))).await.is_err() {
                break;
            }
        }
    });
    let ask = call.outgoing.downgrade();
    let carrier = Carrier::Waits { came, ask };
    Ok(open(call, (carrier, false), peer, pace, (end, seen)))
}

fn open(
    call: Call,
    (carrier, calls): (Carrier, bool),
    peer: Peer,
    pace: Pace,
    (end, seen): (End, Arc<Seen>),
) -> Link {
    let (arrive, inbox) = mpsc::channel(limits::INBOX_MESSAGES_MAX);
    let bulk = Bulk::new(calls, end.clone());
    tokio::spawn(Arc::clone(&bulk).run(carrier, pace));
    let back = call.outgoing.downgrade();
    let pump = Pump::new(
        arrive,
        back,
        end.clone(),
        Arc::clone(&seen),
        Arc::clone(&bulk),
    );
    tokio::spawn(pump.run(call.incoming));
    Link {
        peer,
        outbox: Mutex::new(Some(call.outgoing)),
        inbox: tokio::sync::Mutex::new(inbox),
        bulk,
        end,
        seen,
    }
}

/// Keeps a connection going until it breaks, or until it is to end and has sent what there was to send.
async fn drive(mut connection: Connection, end: End, seen: Arc<Seen>) {
    let done = tokio::select! {
        done = &mut connection => Some(done),
        _ = end.wait() => None,
    };
    match done {
        Some(Err(e)) => end.with(broken(&seen, &e)),
        Some(Ok(())) => {}
        None => {
            // Whatever comes of it: the end has its cause already.
            let _in_time = tokio::time::timeout(limits::CLOSE_GRACE, connection).await;
        }
    }
}

fn broken(seen: &Seen, e: &hyper::Error) -> LinkError {
    seen.broken().unwrap_or_else(|| {
        let mut text = e.to_string();
        let mut source = std::error::Error::source(e);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        LinkError::Lost(text)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests;
