//! The contents of one link that are on their way, both ways: what is asked for, what is answered, who has credit.
//!
//! No I/O: frames come in and go out as values, and time is given. Invariants: nothing is taken in that was not asked
//! for or for which there was no credit; a content that is not read holds up no other; memory is bounded by windows,
//! and windows grow only out of a budget.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use instep_core::id::ContentId;
use instep_core::path::RelPath;

use crate::error::LinkError;
use crate::frame::{Class, DATA, Frame, Header, Outcome, PACKED};
use crate::lanes::{Candidate, Lanes};
use crate::limits;
use crate::want::{Want, Wanted};

/// Memory for windows beyond the least, of all links together.
static BUDGET: AtomicU64 = AtomicU64::new(limits::BUDGET_BYTES);

/// A stretch of a content as it travelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The bytes, or what they were compressed to.
    pub bytes: Bytes,
    /// How many bytes they stand for, where they are compressed.
    pub packed: Option<u32>,
}

impl Piece {
    /// How far it takes whoever reads the content.
    pub fn plain(&self) -> u64 {
        self.packed.map_or(self.bytes.len() as u64, u64::from)
    }
}

/// Why a content that is asked for does not come, or one that is answered is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The far end does not have it.
    #[error("the far end does not have the content")]
    Missing,
    /// Something else is there by now.
    #[error("the content changed at the far end")]
    Changed,
    /// The far end could not read it.
    #[error("the far end could not read the content")]
    Failed,
    /// It is not wanted any more.
    #[error("the content is not wanted any more")]
    Cancelled,
    /// Compressed, and read by somebody who did not expect that.
    #[error("the content came compressed")]
    Packed,
    /// Neither now nor on this connection.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// A content that we asked for.
#[derive(Debug)]
struct Incoming {
    class: Class,
    pieces: VecDeque<Piece>,
    /// What the far end may still send.
    credit: u64,
    window: u64,
    /// Read since credit was last given.
    read: u64,
    /// Plain bytes that are still to come, at most.
    missing: u64,
    /// Exactly so many.
    exact: bool,
    end: Option<Result<(), FetchError>>,
}

/// A content that we answer.
#[derive(Debug)]
struct Outgoing {
    class: Class,
    pieces: VecDeque<Piece>,
    unsent: usize,
    credit: u64,
    remaining: u64,
    since: Duration,
    end: Option<Outcome>,
}

/// Everything that is on its way.
#[derive(Debug)]
pub(crate) struct Streams {
    incoming: BTreeMap<u32, Incoming>,
    outgoing: BTreeMap<u32, Outgoing>,
    fresh: Vec<(u32, Want)>,
    express: VecDeque<(u32, Class, Frame)>,
    lanes: Lanes,
    next: u32,
    /// The highest that the far end used.
    theirs: u32,
    extra: u64,
    /// How many of `incoming` have not ended.
    coming: usize,
    /// Bytes that arrived and were not read.
    unread: u64,
    pong: bool,
}

type Judged<T> = Result<T, &'static str>;

impl Streams {
    /// Whoever called counts with odd numbers.
    pub(crate) fn new(caller: bool) -> Self {
        Self {
            incoming: BTreeMap::new(),
            outgoing: BTreeMap::new(),
            fresh: Vec::new(),
            express: VecDeque::new(),
            lanes: Lanes::default(),
            next: if caller { 1 } else { 2 },
            theirs: 0,
            extra: 0,
            coming: 0,
            unread: 0,
            pong: false,
        }
    }

    /// Whether another content can be asked for: not too many are on their way, and not too much waits to be read.
    pub(crate) fn has_room(&self) -> bool {
        self.coming < limits::WANTS_MAX
            && self.incoming.len() < limits::FETCHES_MAX
            && self.unread < limits::LINK_BUDGET_BYTES
    }

    /// The same for somebody who does not need it now, and leaves room to those who do.
    pub(crate) fn has_room_to_spare(&self) -> bool {
        self.has_room()
            && self.coming < limits::WANTS_MAX - limits::WANTS_SPARE
            && self.incoming.len() < limits::FETCHES_MAX - limits::WANTS_SPARE
            && self.unread < limits::LINK_BUDGET_BYTES / 2
    }

    /// Asks for a content; none when all numbers of this connection are used up.
    pub(crate) fn ask(&mut self, want: Want) -> Option<u32> {
        let stream = self.next;
        self.next = stream.checked_add(2)?;
        let incoming = Incoming {
            class: want.class,
            pieces: VecDeque::new(),
            credit: limits::WINDOW_BYTES,
            window: limits::WINDOW_BYTES,
            read: 0,
            missing: want.bytes_max(),
            exact: want.is_exact(),
            end: None,
        };
        self.incoming.insert(stream, incoming);
        self.coming += 1;
        self.express
            .push_back((stream, want.class, Frame::Want(want)));
        Some(stream)
    }

    /// The next piece of a content that we asked for: none while there is none, and at the end an end.
    pub(crate) fn read(&mut self, stream: u32) -> Option<Result<Option<Piece>, FetchError>> {
        let Some(incoming) = self.incoming.get_mut(&stream) else {
            return Some(Err(FetchError::Cancelled));
        };
        let Some(piece) = incoming.pieces.pop_front() else {
            return incoming.end.clone().map(|end| end.map(|()| None));
        };
        incoming.read += piece.bytes.len() as u64;
        self.unread -= piece.bytes.len() as u64;
        if incoming.read >= incoming.window / 2 && incoming.end.is_none() {
            let mut more = incoming.read;
            let wider = incoming.window;
            // What arrived and waits; where that is little, it is the window that holds up the far end.
            let waits = incoming.window - incoming.credit - incoming.read;
            let may = waits <= incoming.window / 4
                && incoming.window < limits::WINDOW_BYTES_MAX
                && self.extra + wider <= limits::LINK_BUDGET_BYTES;
            if may && take_budget(wider) {
                incoming.window += wider;
                self.extra += wider;
                more += wider;
            }
            incoming.credit += more;
            incoming.read = 0;
            let credit = Frame::Credit(u32::try_from(more).unwrap_or(u32::MAX));
            self.express.push_back((stream, incoming.class, credit));
        }
        Some(Ok(Some(piece)))
    }

    /// A content that nobody reads any more.
    pub(crate) fn leave(&mut self, stream: u32) {
        if let Some(incoming) = self.incoming.remove(&stream) {
            let extra = incoming.window - limits::WINDOW_BYTES;
            self.extra -= extra;
            give_budget(extra);
            let unread: usize = incoming.pieces.iter().map(|p| p.bytes.len()).sum();
            self.unread -= unread as u64;
            if incoming.end.is_none() {
                self.coming -= 1;
                self.express
                    .push_back((stream, incoming.class, Frame::Cancel));
            }
        }
    }

    /// The most urgent want that nobody answers yet, and of those the smallest.
    pub(crate) fn answer(&mut self) -> Option<(u32, Want)> {
        let urgency =
            |(_, (stream, want)): &(usize, &(u32, Want))| (want.class, want.bytes_max(), *stream);
        let at = self.fresh.iter().enumerate().min_by_key(urgency)?.0;
        Some(self.fresh.swap_remove(at))
    }

    /// Takes a piece of an answer; gives it back while too much waits to be sent.
    pub(crate) fn write(&mut self, stream: u32, piece: Piece) -> Result<Option<Piece>, FetchError> {
        let outgoing = self
            .outgoing
            .get_mut(&stream)
            .ok_or(FetchError::Cancelled)?;
        if outgoing.unsent >= limits::UNSENT_BYTES_MAX {
            return Ok(Some(piece));
        }
        outgoing.unsent += piece.bytes.len();
        outgoing.pieces.push_back(piece);
        Ok(None)
    }

    /// Ends an answer, after all that was written.
    pub(crate) fn finish(&mut self, stream: u32, outcome: Outcome) {
        if let Some(outgoing) = self.outgoing.get_mut(&stream) {
            outgoing.end.get_or_insert(outcome);
            if outgoing.pieces.is_empty() {
                self.end(stream);
            }
        }
    }

    fn end(&mut self, stream: u32) {
        if let Some(outgoing) = self.outgoing.remove(&stream) {
            let outcome = outgoing.end.unwrap_or(Outcome::Failed);
            self.express
                .push_back((stream, outgoing.class, Frame::End(outcome)));
        }
    }

    /// Asks whether the far end is there.
    pub(crate) fn ping(&mut self) {
        self.express.push_back((0, Class::Urgent, Frame::Ping));
    }

    /// Appends the next frame, of at most so many bytes of data; false when there is nothing to send.
    pub(crate) fn next(&mut self, now: Duration, frame_bytes: usize, out: &mut BytesMut) -> bool {
        if std::mem::take(&mut self.pong) {
            Frame::Pong.write(0, Class::Urgent, out);
            return true;
        }
        if let Some((stream, class, frame)) = self.express.pop_front() {
            frame.write(stream, class, out);
            return true;
        }
        let candidates: Vec<Candidate> = self.outgoing.iter().filter_map(candidate).collect();
        let Some((stream, lane)) = self.lanes.pick(&candidates, now) else {
            return false;
        };
        let Some(outgoing) = self.outgoing.get_mut(&stream) else {
            return false;
        };
        let (frame, class) = (outgoing.cut(frame_bytes), outgoing.class);
        outgoing.since = now;
        let done = outgoing.pieces.is_empty() && outgoing.end.is_some();
        let before = out.len();
        frame.write(stream, class, out);
        self.lanes.spent(lane, class, out.len() - before);
        if done {
            self.end(stream);
        }
        true
    }

    /// Whether the payload of this header may come; asked before any memory is taken for it.
    pub(crate) fn expects(&self, header: Header) -> Judged<()> {
        header.check()?;
        let data = matches!(header.kind, DATA | PACKED);
        let credit = self.incoming.get(&header.stream).map(|i| i.credit);
        if data && credit.is_some_and(|credit| u64::from(header.len) > credit + 4) {
            return Err("more data than it had credit for");
        }
        Ok(())
    }

    /// Takes in a frame. An error is what no honest program sends.
    pub(crate) fn take(&mut self, stream: u32, frame: Frame, now: Duration) -> Judged<()> {
        match frame {
            Frame::Want(want) => self.wanted(stream, want, now),
            Frame::Data(bytes) => self.data(
                stream,
                Piece {
                    bytes,
                    packed: None,
                },
            ),
            Frame::Packed { plain, bytes } => {
                let packed = Some(plain);
                self.data(stream, Piece { bytes, packed })
            }
            Frame::End(outcome) => self.ended(stream, outcome),
            Frame::Cancel => {
                self.fresh.retain(|(fresh, _)| *fresh != stream);
                self.outgoing.remove(&stream);
                Ok(())
            }
            Frame::Credit(bytes) => self.credit(stream, u64::from(bytes)),
            Frame::Ping => {
                self.pong = true;
                Ok(())
            }
            Frame::Pong => Ok(()),
        }
    }

    fn wanted(&mut self, stream: u32, want: Want, now: Duration) -> Judged<()> {
        if stream <= self.theirs || stream % 2 == self.next % 2 {
            return Err("a want with a number that was used");
        }
        if self.outgoing.len() >= limits::WANTS_MAX {
            return Err("too many wants at a time");
        }
        self.theirs = stream;
        let outgoing = Outgoing {
            class: want.class,
            pieces: VecDeque::new(),
            unsent: 0,
            credit: limits::WINDOW_BYTES,
            remaining: want.bytes_max(),
            since: now,
            end: None,
        };
        self.outgoing.insert(stream, outgoing);
        self.fresh.push((stream, want));
        Ok(())
    }

    /// Whether it is, or was, one of ours.
    fn is_ours(&self, stream: u32) -> bool {
        stream < self.next && stream % 2 == self.next % 2
    }

    fn data(&mut self, stream: u32, piece: Piece) -> Judged<()> {
        let Some(incoming) = self.incoming.get_mut(&stream) else {
            // It was on its way when we left.
            return if self.is_ours(stream) {
                Ok(())
            } else {
                Err("data that nobody asked for")
            };
        };
        if incoming.end.is_some() {
            return Err("data after its end");
        }
        let left = incoming.credit.checked_sub(piece.bytes.len() as u64);
        incoming.credit = left.ok_or("more data than it had credit for")?;
        let missing = incoming.missing.checked_sub(piece.plain());
        incoming.missing = missing.ok_or("more data than was wanted")?;
        self.unread += piece.bytes.len() as u64;
        incoming.pieces.push_back(piece);
        Ok(())
    }

    fn ended(&mut self, stream: u32, outcome: Outcome) -> Judged<()> {
        let Some(incoming) = self.incoming.get_mut(&stream) else {
            return if self.is_ours(stream) {
                Ok(())
            } else {
                Err("the end of nothing")
            };
        };
        if incoming.end.is_some() {
            return Err("a second end");
        }
        self.coming -= 1;
        incoming.end = Some(match outcome {
            Outcome::Complete if incoming.missing == 0 || !incoming.exact => Ok(()),
            // Shorter than it was: something else is there.
            Outcome::Complete | Outcome::Changed => Err(FetchError::Changed),
            Outcome::Missing => Err(FetchError::Missing),
            Outcome::Failed => Err(FetchError::Failed),
        });
        Ok(())
    }

    fn credit(&mut self, stream: u32, bytes: u64) -> Judged<()> {
        if let Some(outgoing) = self.outgoing.get_mut(&stream) {
            outgoing.credit += bytes;
            if outgoing.credit > limits::CREDIT_BYTES_MAX {
                return Err("an absurd credit");
            }
        }
        Ok(())
    }

    /// The connection is gone: everything on its way has ended, and numbers begin anew.
    pub(crate) fn lose(&mut self, cause: &LinkError) {
        for incoming in self.incoming.values_mut() {
            let lost = || Err(FetchError::Link(cause.clone()));
            incoming.end.get_or_insert_with(lost);
        }
        self.coming = 0;
        self.outgoing.clear();
        self.fresh.clear();
        self.express.clear();
        self.theirs = 0;
        self.pong = false;
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        give_budget(self.extra);
    }
}

impl Outgoing {
    /// The next frame: a compressed piece whole, others as long as is allowed.
    fn cut(&mut self, frame_bytes: usize) -> Frame {
        let Some(mut piece) = self.pieces.pop_front() else {
            return Frame::Cancel;
        };
        self.remaining = self.remaining.saturating_sub(piece.plain());
        if piece.packed.is_none() {
            let credit = usize::try_from(self.credit).unwrap_or(usize::MAX);
            let most = frame_bytes.min(credit).min(piece.bytes.len());
            let rest = piece.bytes.split_off(most);
            if !rest.is_empty() {
                self.remaining += rest.len() as u64;
                let packed = None;
                self.pieces.push_front(Piece {
                    bytes: rest,
                    packed,
                });
            }
        }
        self.unsent -= piece.bytes.len();
        self.credit -= piece.bytes.len() as u64;
        let bytes = piece.bytes;
        match piece.packed {
            None => Frame::Data(bytes),
            Some(plain) => Frame::Packed { plain, bytes },
        }
    }
}

/// Whether it could send now.
fn candidate((stream, outgoing): (&u32, &Outgoing)) -> Option<Candidate> {
    let first = outgoing.pieces.front()?;
    let least = match first.packed {
        Some(_) => first.bytes.len() as u64,
        None => 1,
    };
    (outgoing.credit >= least).then_some(Candidate {
        stream: *stream,
        class: outgoing.class,
        remaining: outgoing.remaining,
        since: outgoing.since,
    })
}

/// Takes in the bytes of a far end as a connection does that has asked it for one content, without a connection. How
/// many frames they were, or what no honest program sends.
pub fn hear(mut bytes: &[u8]) -> Result<usize, &'static str> {
    let mut streams = Streams::new(true);
    let _asked = streams.ask(Want {
        content: ContentId([0xc0; 32]),
        path: RelPath::root(),
        size: 100,
        part: Wanted::From(0),
        class: Class::File,
    });
    let mut frames = 0;
    while let Some((header, rest)) = bytes.split_first_chunk() {
        let header = Header::read(*header);
        streams.expects(header)?;
        let cut = rest.split_at_checked(header.len as usize);
        let (payload, rest) = cut.ok_or("bytes that end within a frame")?;
        bytes = rest;
        if let Some(frame) = Frame::read(header, Bytes::copy_from_slice(payload))? {
            streams.take(header.stream, frame, Duration::ZERO)?;
        }
        frames += 1;
    }
    Ok(frames)
}

fn take_budget(bytes: u64) -> bool {
    let taken = BUDGET.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| {
        left.checked_sub(bytes)
    });
    taken.is_ok()
}

fn give_budget(bytes: u64) {
    BUDGET.fetch_add(bytes, Ordering::AcqRel);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests;
