//! Contents over a connection of their own, for threads: asked for and read, taken up and answered.
//!
//! The connection is opened when the first content is asked for, and again after it broke; what was on its way then
//! has ended with the cause, and is asked for anew from the offset that was reached.
//!
//! Invariants: a thread waits for a content no longer than the link lasts, or [`limits::STALL`] without any progress;
//! a content that is not read any more is not sent any more.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use instep_fs::place;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;

use crate::carrier::Carrier;
use crate::control::Pace;
use crate::error::LinkError;
use crate::frame::{Frame, HEADER_BYTES, Header, Outcome};
use crate::limits;
use crate::link::End;
use crate::streams::{FetchError, Piece, Streams};
use crate::tap::Pipe;
use crate::want::{Want, Wanted};

/// The contents of a link.
pub(crate) struct Bulk {
    streams: Mutex<Streams>,
    /// Something changed for a thread that waits.
    changed: Condvar,
    /// Something is to be sent.
    work: Notify,
    /// The connection is needed.
    need: Notify,
    end: End,
}

impl Bulk {
    pub(crate) fn new(caller: bool, end: End) -> Arc<Self> {
        Arc::new(Self {
            streams: Mutex::new(Streams::new(caller)),
            changed: Condvar::new(),
            work: Notify::new(),
            need: Notify::new(),
            end,
        })
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is something, at most so long; none then. Ends with the link.
    fn wait<T>(
        &self,
        time: Duration,
        mut get: impl FnMut(&mut Streams) -> Option<T>,
    ) -> Result<Option<T>, LinkError> {
        let until = place::monotonic().saturating_add(time);
        let mut streams = self.streams();
        loop {
            if let Some(got) = get(&mut streams) {
                return Ok(Some(got));
            }
            if let Some(cause) = self.end.cause() {
                return Err(cause);
            }
            let left = until.saturating_sub(place::monotonic());
            if left.is_zero() {
                return Ok(None);
            }
            let waited = self.changed.wait_timeout(streams, left);
            streams = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// As [`Bulk::wait`], for what the far end owes.
    fn wait_for_far_end<T>(
        &self,
        get: impl FnMut(&mut Streams) -> Option<T>,
    ) -> Result<T, LinkError> {
        let stalled = || LinkError::Lost(String::from("the far end makes no progress"));
        self.wait(limits::STALL, get)?.ok_or_else(stalled)
    }

    /// Asks for a content; waits while too many are on their way.
    pub(crate) fn ask(self: &Arc<Self>, want: Want) -> Result<Fetch, LinkError> {
        let stream = self.wait_for_far_end(|s| s.has_room().then(|| s.ask(want.clone())));
        self.fetch(want, stream)
    }

    /// Asks for a content if that takes no waiting, and nobody else has to wait for it.
    pub(crate) fn try_ask(self: &Arc<Self>, want: Want) -> Result<Option<Fetch>, LinkError> {
        let asked = {
            let mut streams = self.streams();
            let room = streams.has_room_to_spare();
            room.then(|| streams.ask(want.clone()))
        };
        asked.map(|stream| self.fetch(want, Ok(stream))).transpose()
    }

    /// As [`Bulk::ask`], after so many bytes of the answer are there. What cannot be wanted in part is wanted anew.
    pub(crate) fn ask_after(self: &Arc<Self>, want: Want, bytes: u64) -> Result<Fetch, LinkError> {
        let Some(rest) = want.after(bytes) else {
            return self.ask(want);
        };
        let mut fetch = self.ask(rest)?;
        fetch.want = want;
        fetch.reached = bytes;
        Ok(fetch)
    }

    fn fetch(
        self: &Arc<Self>,
        want: Want,
        stream: Result<Option<u32>, LinkError>,
    ) -> Result<Fetch, LinkError> {
        if let Some(cause) = self.end.cause() {
            return Err(cause);
        }
        let used_up = || LinkError::Lost(String::from("all numbers of contents are used"));
        let stream = stream?.ok_or_else(used_up)?;
        self.need.notify_one();
        self.work.notify_one();
        Ok(Fetch {
            bulk: Arc::clone(self),
            stream,
            reached: 0,
            want,
            resumed: None,
            rest: Bytes::new(),
        })
    }

    /// The most urgent content that the far end asks for.
    pub(crate) fn asked(self: &Arc<Self>, time: Duration) -> Result<Option<Asked>, LinkError> {
        let found = self.wait(time, Streams::answer)?;
        Ok(found.map(|(stream, want)| Asked {
            want,
            bulk: Arc::clone(self),
            stream,
            outcome: Outcome::Failed,
        }))
    }

    /// The far end asks for the connection.
    pub(crate) fn needed(&self) {
        self.need.notify_one();
    }

    /// Opens the connection whenever it is needed, and keeps it going, until the link ends.
    pub(crate) async fn run(self: Arc<Self>, mut carrier: Carrier, pace: Pace) {
        let over = self.end.clone();
        let cause = tokio::select! {
            cause = over.wait() => cause,
            cause = self.serve(&mut carrier, pace) => cause,
        };
        self.end.with(cause.clone());
        self.lose(&cause);
    }

    /// Until the far end breaks a rule.
    async fn serve(&self, carrier: &mut Carrier, pace: Pace) -> LinkError {
        let mut next = None;
        loop {
            let opened = match next.take() {
                Some(pipe) => Ok(pipe),
                None => tokio::select! {
                    came = carrier.came() => Ok(came),
                    () = self.need.notified() => carrier.open().await,
                },
            };
            let lost = match opened {
                Ok(pipe) => tokio::select! {
                    lost = self.carry(pipe, pace) => lost,
                    // The far end opens another only when it gave up the one before.
                    came = carrier.came() => {
                        next = Some(came);
                        LinkError::Lost(String::from("bulk connection replaced"))
                    }
                },
                Err(cause) => cause,
            };
            if matches!(lost, LinkError::Violation(_)) {
                return lost;
            }
            // If the link itself is about to end, that is the cause.
            let ending = tokio::time::timeout(Duration::from_millis(500), self.end.wait());
            if let Ok(cause) = ending.await {
                return cause;
            }
            self.lose(&lost);
        }
    }

    fn lose(&self, cause: &LinkError) {
        self.streams().lose(cause);
        self.changed.notify_all();
    }

    /// Until it breaks.
    async fn carry(&self, pipe: impl Pipe, pace: Pace) -> LinkError {
        let (mut read, mut write) = tokio::io::split(pipe);
        let broken = |e: io::Error| crate::tls::cause(&e);
        let reading = async {
            loop {
                if let Err(cause) = self.receive(&mut read, pace).await {
                    return cause;
                }
            }
        };
        let writing = async {
            loop {
                if let Err(e) = self.transmit(&mut write).await {
                    return broken(e);
                }
                self.work.notified().await;
            }
        };
        tokio::select! {
            cause = reading => cause,
            cause = writing => cause,
        }
    }

    /// One frame.
    async fn receive(
        &self,
        read: &mut (impl tokio::io::AsyncRead + Unpin),
        pace: Pace,
    ) -> Result<(), LinkError> {
        let violation = |what: &str| LinkError::Violation(String::from(what));
        let mut header = [0; HEADER_BYTES];
        self.fill(read, &mut header, pace).await?;
        let header = Header::read(header);
        self.streams().expects(header).map_err(violation)?;
        let mut payload = BytesMut::zeroed(header.len as usize);
        self.fill(read, &mut payload, pace).await?;
        let frame = Frame::read(header, payload.freeze()).map_err(violation)?;
        if let Some(frame) = frame {
            let now = place::monotonic();
            let taken = self.streams().take(header.stream, frame, now);
            taken.map_err(violation)?;
            self.changed.notify_all();
            self.work.notify_one();
        }
        Ok(())
    }

    /// Everything that can be sent now.
    async fn transmit(&self, write: &mut (impl tokio::io::AsyncWrite + Unpin)) -> io::Result<()> {
        let mut frame_bytes = limits::DATA_FRAME_BYTES.0;
        let mut out = BytesMut::new();
        loop {
            let before = place::monotonic();
            while out.len() < frame_bytes && self.streams().next(before, frame_bytes, &mut out) {}
            if out.is_empty() {
                return write.flush().await;
            }
            self.changed.notify_all();
            write.write_all(&out).await?;
            let took = place::monotonic().saturating_sub(before);
            frame_bytes = next_frame(out.len(), took);
            out.clear();
        }
    }

    /// Reads, and asks the far end whether it is there when nothing comes.
    async fn fill(
        &self,
        read: &mut (impl tokio::io::AsyncRead + Unpin),
        into: &mut [u8],
        pace: Pace,
    ) -> Result<(), LinkError> {
        let lost = |what: &str| LinkError::Lost(String::from(what));
        let mut filled = 0;
        while filled < into.len() {
            let more = read.read(&mut into[filled..]);
            tokio::pin!(more);
            let got = match tokio::time::timeout(pace.keepalive, &mut more).await {
                Ok(got) => got,
                Err(_) => {
                    self.streams().ping();
                    self.work.notify_one();
                    let answer = tokio::time::timeout(pace.answer, more).await;
                    answer.map_err(|_| lost("no answer on the bulk connection"))?
                }
            };
            match got {
                Ok(0) => return Err(lost("bulk connection closed")),
                Ok(n) => filled += n,
                Err(e) => return Err(crate::tls::cause(&e)),
            }
        }
        Ok(())
    }
}

/// What the connection carries in [`limits::FRAME_TIME`], judged by the last write.
fn next_frame(bytes: usize, took: Duration) -> usize {
    let (least, most) = limits::DATA_FRAME_BYTES;
    let fits = bytes as u128 * limits::FRAME_TIME.as_nanos() / took.as_nanos().max(1);
    usize::try_from(fits).unwrap_or(most).clamp(least, most)
}

/// A content that was asked for, read in order. Dropped, it is not sent any more.
pub struct Fetch {
    bulk: Arc<Bulk>,
    want: Want,
    stream: u32,
    /// Bytes of the answer that were taken.
    reached: u64,
    /// After how many it was last asked for anew.
    resumed: Option<u64>,
    rest: Bytes,
}

impl Fetch {
    /// The next piece as it travelled; none at the end of the content. Waits for it. Where the connection for contents
    /// broke and the link goes on, the rest is asked for anew, as long as that brings it on.
    pub fn next_piece(&mut self) -> Result<Option<Piece>, FetchError> {
        loop {
            let stream = self.stream;
            let read = self.bulk.wait_for_far_end(|streams| streams.read(stream))?;
            self.bulk.work.notify_one();
            match read {
                Err(FetchError::Link(LinkError::Lost(_))) if self.may_go_on() => {
                    self.go_on()?;
                }
                read => {
                    let piece = read?;
                    self.reached += piece.as_ref().map_or(0, Piece::plain);
                    return Ok(piece);
                }
            }
        }
    }

    fn may_go_on(&self) -> bool {
        let can = self.reached == 0 || self.want.is_exact();
        can && self.bulk.end.cause().is_none() && self.resumed != Some(self.reached)
    }

    fn go_on(&mut self) -> Result<(), LinkError> {
        let mut anew = self.bulk.ask_after(self.want.clone(), self.reached)?;
        anew.resumed = Some(self.reached);
        anew.rest = std::mem::take(&mut self.rest);
        // What was the old one is dropped, and with that left.
        *self = anew;
        Ok(())
    }

    /// How many bytes of the answer were read; what is wanted from an offset on counts from the content's beginning.
    pub fn reached(&self) -> u64 {
        let from = match self.want.part {
            Wanted::From(offset) => offset,
            _ => 0,
        };
        from + self.reached - self.rest.len() as u64
    }
}

impl io::Read for Fetch {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.next_piece().map_err(io::Error::other)? {
                None => return Ok(0),
                Some(piece) if piece.packed.is_some() => {
                    return Err(io::Error::other(FetchError::Packed));
                }
                Some(piece) => self.rest = piece.bytes,
            }
        }
        let n = self.rest.len().min(into.len());
        self.rest.copy_to_slice(&mut into[..n]);
        Ok(n)
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.bulk.streams().leave(self.stream);
        self.bulk.changed.notify_all();
        self.bulk.work.notify_one();
    }
}

/// A content that the far end asks for. Dropped without [`Asked::finish`], the far end is told that it failed.
pub struct Asked {
    /// What is wanted.
    pub want: Want,
    bulk: Arc<Bulk>,
    stream: u32,
    outcome: Outcome,
}

impl Asked {
    /// Sends the next bytes. Waits while too many are on their way; fails when it is not wanted any more.
    pub fn write(&mut self, bytes: Bytes) -> Result<(), FetchError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.write_piece(Piece {
            bytes,
            packed: None,
        })
    }

    /// As [`Asked::write`], for a piece that may be compressed. A compressed one travels whole.
    pub fn write_piece(&mut self, piece: Piece) -> Result<(), FetchError> {
        let whole = piece.packed.is_some();
        if whole && piece.bytes.len() as u64 > limits::WINDOW_BYTES {
            return Err(FetchError::Failed);
        }
        let mut piece = Some(piece);
        let stream = self.stream;
        let taken = self.bulk.wait_for_far_end(|streams| match piece.take() {
            None => Some(Ok(())),
            Some(next) => match streams.write(stream, next) {
                Ok(None) => Some(Ok(())),
                Ok(back) => {
                    piece = back;
                    None
                }
                Err(e) => Some(Err(e)),
            },
        })?;
        self.bulk.work.notify_one();
        taken
    }

    /// Says how it ended, after everything that was written.
    pub fn finish(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl io::Write for Asked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = Self::write(self, Bytes::copy_from_slice(bytes));
        sent.map(|()| bytes.len()).map_err(io::Error::other)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.bulk.streams().finish(self.stream, self.outcome);
        self.bulk.work.notify_one();
    }
}
