//! A content that is put together from another one that is here and from what the far end has of it.
//!
//! Owns the order in which the parts are asked for. Invariant: what it gives is a proposal: whoever reads it to the end
//! hashes it, and so does it itself, so that a content that came out wrong is not spliced a second time.

use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::iter;
use std::ops::Range;
use std::sync::Arc;

use instep_chunk::delta::{Fingerprint, fingerprints, patch};
use instep_chunk::manifest::{Piece, Run, Tree, mark};
use instep_chunk::{Hasher, delta};
use instep_replica::Content;
use instep_wire::bulk::Fetch;
use instep_wire::limits::{DELTA_BYTES_MAX, RANGES_MAX};
use instep_wire::link::Link;
use instep_wire::want::{Want, Wanted};

use crate::judged::Wrong;
use crate::manifests::Manifests;

/// Requests that are on their way at a time.
const AHEAD: usize = 16;
/// Where much is gone from the old bytes, so many of each end are compared with what is there now.
const END_BYTES: u64 = 512 * 1024;

/// A part of the content.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Segment {
    /// Where in the content.
    at: Range<u64>,
    source: Source,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    /// Of what arrived before, at the same place.
    Begun,
    /// From an offset of the base on.
    Base(u64),
    /// From an offset of what answers a request on.
    Far { request: usize, offset: u64 },
}

/// What is asked of the far end at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Request {
    Ranges(Vec<Range<u64>>),
    Delta {
        stretch: Range<u64>,
        pieces: Vec<Piece>,
        /// Where in the base the bytes are that it replaces.
        old: Vec<Range<u64>>,
    },
}

/// Which parts come from where.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    segments: Vec<Segment>,
    requests: Vec<Request>,
    at: u64,
}

impl Plan {
    pub(crate) fn new(runs: &[Run], base: &[Piece]) -> Self {
        let mut plan = Self::default();
        let mut starts = Vec::with_capacity(base.len() + 1);
        starts.push(0);
        starts.extend(base.iter().scan(0, |end, piece| {
            *end += piece.length;
            Some(*end)
        }));
        let start = |number: usize| starts.get(number).copied().unwrap_or(0);
        for (i, run) in runs.iter().enumerate() {
            match run {
                Run::Same(numbers) => {
                    let from = start(numbers.start);
                    plan.segment(start(numbers.end) - from, Source::Base(from));
                }
                Run::New(pieces) => {
                    let before = i.checked_sub(1).and_then(|i| runs.get(i));
                    let from = before.map_or(0, |run| same(run).map_or(0, |n| n.end));
                    let to = runs.get(i + 1).and_then(same);
                    let to = to.map_or(base.len(), |n| n.start);
                    plan.stretch(pieces, start(from)..start(to));
                }
            }
        }
        plan
    }

    /// All of it from the far end.
    pub(crate) fn whole(size: u64) -> Self {
        let mut plan = Self::default();
        plan.requests
            .push(Request::Ranges(iter::once(0..size).collect()));
        let (request, offset) = (0, 0);
        plan.segment(size, Source::Far { request, offset });
        plan
    }

    /// The first bytes are here already.
    pub(crate) fn begin(&mut self, bytes: u64) {
        self.segments.retain(|segment| segment.at.end > bytes);
        if let Some(first) = self.segments.first_mut() {
            let cut = bytes.saturating_sub(first.at.start);
            first.at.start += cut;
            match &mut first.source {
                Source::Base(from) => *from += cut,
                Source::Far { offset, .. } => *offset += cut,
                Source::Begun => {}
            }
        }
        let begun = Segment {
            at: 0..bytes.min(self.at),
            source: Source::Begun,
        };
        self.segments.insert(0, begun);
    }

    /// The first request that is needed, and from where on.
    fn first(&self) -> (usize, u64) {
        let far = self
            .segments
            .iter()
            .find_map(|segment| match segment.source {
                Source::Far { request, offset } => Some((request, offset)),
                _ => None,
            });
        far.unwrap_or((self.requests.len(), 0))
    }

    fn segment(&mut self, length: u64, source: Source) {
        let at = self.at..self.at + length;
        self.at = at.end;
        self.segments.push(Segment { at, source });
    }

    /// Bytes that the base has not as they are, but instead of some that it has.
    fn stretch(&mut self, pieces: &[Piece], gap: Range<u64>) {
        let length = pieces.iter().map(|p| p.length).sum();
        let stretch = self.at..self.at + length;
        let old = ends(gap);
        let mut offset = 0;
        if length <= u64::from(DELTA_BYTES_MAX) && !old.is_empty() {
            self.requests.push(Request::Delta {
                stretch,
                pieces: pieces.to_vec(),
                old,
            });
        } else if let Some(Request::Ranges(ranges)) = self.requests.last_mut()
            && ranges.len() < RANGES_MAX
        {
            offset = ranges.iter().map(|r| r.end - r.start).sum();
            ranges.push(stretch);
        } else {
            self.requests
                .push(Request::Ranges(iter::once(stretch).collect()));
        }
        let request = self.requests.len() - 1;
        self.segment(length, Source::Far { request, offset });
    }
}

fn same(run: &Run) -> Option<&Range<usize>> {
    match run {
        Run::Same(numbers) => Some(numbers),
        Run::New(_) => None,
    }
}

/// What of a gap is worth comparing: where it is too long, both of its ends.
fn ends(gap: Range<u64>) -> Vec<Range<u64>> {
    let length = gap.end.saturating_sub(gap.start);
    match length {
        0 => Vec::new(),
        _ if length <= delta::BASE_BYTES_MAX as u64 => vec![gap],
        _ => vec![
            gap.start..gap.start + END_BYTES,
            gap.end - END_BYTES..gap.end,
        ],
    }
}

/// How it stands with a request.
enum State {
    Idle,
    Asked(Fetch),
    /// Put together, in memory.
    Here(Vec<u8>),
    /// A delta that came out wrong is asked for as it is.
    Plain(Option<Fetch>),
}

/// Where a content comes from, and who learns how it came out.
pub(crate) struct Ground {
    pub(crate) link: Arc<Link>,
    /// The whole content, from its beginning.
    pub(crate) want: Want,
    pub(crate) base: Box<dyn Content>,
    /// Its first bytes.
    pub(crate) begun: Option<Box<dyn Content>>,
    pub(crate) wrong: Arc<Wrong>,
    pub(crate) manifests: Arc<Manifests>,
}

/// The content.
pub(crate) struct Spliced {
    ground: Ground,
    plan: Plan,
    chunks: Vec<Piece>,
    states: VecDeque<State>,
    /// The number of the first of `states`; those before it were read.
    first: usize,
    hasher: Hasher,
    hashed: u64,
    /// Where it was last asked for again.
    resumed: Option<u64>,
}

impl Spliced {
    /// `chunks` are what it is made of, where that is known.
    pub(crate) fn new(ground: Ground, mut plan: Plan, chunks: Vec<Piece>) -> Self {
        if let Some(begun) = &ground.begun {
            plan.begin(begun.size());
        }
        let (first, offset) = plan.first();
        let needed = plan.requests[first..].iter();
        let mut states: VecDeque<State> = needed.map(|_| State::Idle).collect();
        if offset > 0
            && let Some(begun) = states.front_mut()
        {
            // Only its rest is asked for, when it is needed.
            *begun = State::Plain(None);
        }
        let mut spliced = Self {
            states,
            plan,
            chunks,
            ground,
            first,
            hasher: Hasher::new(),
            hashed: 0,
            resumed: None,
        };
        spliced.ask_ahead();
        spliced
    }

    /// Asks for what is needed next, as far as that takes no waiting.
    fn ask_ahead(&mut self) {
        for n in 0..self.states.len().min(AHEAD) {
            if !matches!(self.states[n], State::Idle) {
                continue;
            }
            let Ok(want) = self.want(self.first + n) else {
                return;
            };
            match self.ground.link.try_ask(want) {
                Ok(Some(fetch)) => self.states[n] = State::Asked(fetch),
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// What a request asks for.
    fn want(&mut self, number: usize) -> io::Result<Want> {
        let part = match &self.plan.requests[number] {
            Request::Ranges(ranges) => Wanted::Ranges(ranges.clone()),
            Request::Delta { stretch, old, .. } => {
                let (stretch, old) = (stretch.clone(), old.clone());
                let old: Vec<Fingerprint> = fingerprints(&self.old(&old)?);
                Wanted::Delta { stretch, old }
            }
        };
        Ok(self.part(part))
    }

    fn part(&self, part: Wanted) -> Want {
        Want {
            part,
            ..self.ground.want.clone()
        }
    }

    /// Bytes of the base.
    fn old(&mut self, ranges: &[Range<u64>]) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        for range in ranges {
            let mut at = range.start;
            while at < range.end {
                let from = all.len();
                all.resize(from + (range.end - at) as usize, 0);
                let n = self.ground.base.read_at(at, &mut all[from..])?;
                if n == 0 {
                    return Err(ended());
                }
                all.truncate(from + n);
                at += n as u64;
            }
        }
        Ok(all)
    }

    /// Reads from the answer to a request.
    fn far(&mut self, number: usize, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        if number < self.first {
            // It goes back: whoever does so may have to wait again.
            self.first = number;
            let requests = self.plan.requests[number..].iter();
            self.states = requests.map(|_| State::Idle).collect();
        }
        while self.first < number {
            self.states.pop_front();
            self.first += 1;
        }
        self.ask_ahead();
        if matches!(self.plan.requests[number], Request::Delta { .. }) {
            self.apply(number)?;
        }
        if let State::Here(bytes) = &self.states[0] {
            let rest = usize::try_from(offset).ok().and_then(|at| bytes.get(at..));
            let rest = rest.unwrap_or_default();
            let n = rest.len().min(into.len());
            into[..n].copy_from_slice(&rest[..n]);
            return Ok(n);
        }
        self.stream(number, offset, into)
    }

    /// Puts a stretch together from old bytes and the delta, unless it did not come or came out wrong.
    fn apply(&mut self, number: usize) -> io::Result<()> {
        let is_new = matches!(self.states[0], State::Idle | State::Asked(_));
        if !is_new {
            return Ok(());
        }
        let Request::Delta {
            stretch,
            pieces,
            old,
        } = self.plan.requests[number].clone()
        else {
            return Ok(());
        };
        let mut fetch = match std::mem::replace(&mut self.states[0], State::Plain(None)) {
            State::Asked(fetch) => fetch,
            _ => {
                let want = self.want(number)?;
                self.ground.link.ask(want).map_err(io::Error::other)?
            }
        };
        let mut delta = Vec::new();
        if fetch.read_to_end(&mut delta).is_err() {
            return Ok(());
        }
        let size = (stretch.end - stretch.start) as usize;
        let patched = patch(&self.old(&old)?, &delta, size);
        if let Ok(bytes) = patched
            && is_made_of(&bytes, &pieces)
        {
            self.states[0] = State::Here(bytes);
        }
        Ok(())
    }

    /// Reads bytes as they come; asks for them where they are not on their way.
    fn stream(&mut self, number: usize, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let (State::Asked(fetch) | State::Plain(Some(fetch))) = &mut self.states[0] else {
                self.ask_from(number, offset)?;
                continue;
            };
            if fetch.reached() != offset {
                self.ask_from(number, offset)?;
                continue;
            }
            match fetch.read(into) {
                Ok(0) => return Err(ended()),
                Ok(n) => return Ok(n),
                Err(e) => {
                    // The far end waits for a reader only so long, and this one may have been copying.
                    let here = Some(self.hashed);
                    if self.ground.link.ended().is_some() || self.resumed == here {
                        return Err(e);
                    }
                    self.resumed = here;
                    self.ask_from(number, offset)?;
                }
            }
        }
    }

    fn ask_from(&mut self, number: usize, offset: u64) -> io::Result<()> {
        let ranges = match &self.plan.requests[number] {
            Request::Ranges(ranges) => ranges.clone(),
            Request::Delta { stretch, .. } => vec![stretch.clone()],
        };
        let whole = self.part(Wanted::Ranges(ranges));
        // Whoever waits for room must not take it from others who wait: what was on its way makes room.
        self.states
            .iter_mut()
            .for_each(|state| *state = State::Idle);
        self.states[0] = State::Plain(None);
        let fetch = self.ground.link.ask_after(whole, offset);
        self.states[0] = State::Plain(Some(fetch.map_err(io::Error::other)?));
        Ok(())
    }

    /// Hashes what is given in order; at the end it shows how it came out.
    fn note(&mut self, offset: u64, bytes: &[u8]) {
        if offset != self.hashed || bytes.is_empty() {
            return;
        }
        self.hasher.update(bytes);
        self.hashed += bytes.len() as u64;
        let want = &self.ground.want;
        if self.hashed < want.size {
            return;
        }
        if self.hasher.finish() != want.content {
            self.ground.wrong.add(want.content);
        } else if !self.chunks.is_empty() {
            let tree = Tree::new(std::mem::take(&mut self.chunks));
            self.ground.manifests.keep(want.content, Arc::new(tree));
        }
    }
}

fn is_made_of(bytes: &[u8], pieces: &[Piece]) -> bool {
    let mut rest = bytes;
    let is_next = |piece: &Piece| {
        let cut = usize::try_from(piece.length).ok();
        let Some((chunk, others)) = cut.and_then(|at| rest.split_at_checked(at)) else {
            return false;
        };
        rest = others;
        mark(chunk) == piece.mark
    };
    pieces.iter().all(is_next) && rest.is_empty()
}

fn ended() -> io::Error {
    let why = "a part of the content ends before it should";
    io::Error::new(io::ErrorKind::UnexpectedEof, why)
}

impl Content for Spliced {
    fn size(&self) -> u64 {
        self.ground.want.size
    }

    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let next = self.plan.segments.partition_point(|s| s.at.end <= offset);
        let Some(segment) = self.plan.segments.get(next).cloned() else {
            return Ok(0);
        };
        let left = usize::try_from(segment.at.end - offset).unwrap_or(usize::MAX);
        let most = into.len().min(left);
        let into = &mut into[..most];
        let within = offset - segment.at.start;
        let n = match segment.source {
            Source::Begun => match &mut self.ground.begun {
                Some(begun) => begun.read_at(offset, into)?,
                None => 0,
            },
            Source::Base(from) => self.ground.base.read_at(from + within, into)?,
            Source::Far {
                request,
                offset: from,
            } => self.far(request, from + within, into)?,
        };
        if n == 0 && !into.is_empty() {
            return Err(ended());
        }
        self.note(offset, &into[..n]);
        Ok(n)
    }
}

#[cfg(test)]
#[allow(
    clippy::single_range_in_vec_init,
    reason = "lists of ranges are what is looked at"
)]
mod tests {
    use super::*;

    fn pieces(lengths: &[u64]) -> Vec<Piece> {
        let piece = |(n, length): (usize, &u64)| Piece {
            mark: [n as u8; 6],
            length: *length,
        };
        lengths.iter().enumerate().map(piece).collect()
    }

    fn ground(plan: &Plan) -> Vec<(Range<u64>, Source)> {
        let segments = plan.segments.iter();
        segments.map(|s| (s.at.clone(), s.source.clone())).collect()
    }

    #[test]
    fn what_changed_is_compared_with_what_was_between_its_neighbours() {
        let base = pieces(&[100, 200, 300, 400]);
        let new = pieces(&[150]);
        let runs = [
            Run::Same(0..1),
            Run::New(new.clone()),
            Run::Same(2..4),
            Run::New(new.clone()),
        ];
        let plan = Plan::new(&runs, &base);
        let far = |request| Source::Far { request, offset: 0 };
        let expected = [
            (0..100, Source::Base(0)),
            (100..250, far(0)),
            (250..950, Source::Base(300)),
            (950..1100, far(1)),
        ];
        assert_eq!(ground(&plan), expected);
        let asked = [
            Request::Delta {
                stretch: 100..250,
                pieces: new,
                old: vec![100..300],
            },
            Request::Ranges(vec![950..1100]),
        ];
        assert_eq!(plan.requests, asked);
    }

    #[test]
    fn stretches_with_nothing_to_compare_are_asked_for_one_by_one() {
        let base = pieces(&[100; 600]);
        let new = pieces(&[50]);
        let inserted = |n| [Run::New(new.clone()), Run::Same(n..n + 1)];
        let runs: Vec<Run> = (0..600).flat_map(inserted).collect();
        let plan = Plan::new(&runs, &base);
        assert_eq!(plan.requests.len(), 3);
        let Source::Far { request, offset } = &plan.segments[2 * 300].source else {
            panic!("{:?}", plan.segments[600])
        };
        assert_eq!((*request, *offset), (1, (300 - 256) * 50));
    }

    #[test]
    fn what_arrived_before_is_asked_for_again() {
        let base = pieces(&[100, 200, 300]);
        let runs = [
            Run::New(pieces(&[50])),
            Run::Same(0..2),
            Run::New(pieces(&[60])),
        ];
        let rest = |bytes| {
            let mut plan = Plan::new(&runs, &base);
            plan.begin(bytes);
            let second = plan
                .segments
                .get(1)
                .map(|s| (s.at.clone(), s.source.clone()));
            (plan.first(), second)
        };
        let far = |request, offset| Source::Far { request, offset };
        assert_eq!(rest(20), ((0, 20), Some((20..50, far(0, 20)))));
        assert_eq!(rest(50), ((1, 0), Some((50..350, Source::Base(0)))));
        assert_eq!(rest(80), ((1, 0), Some((80..350, Source::Base(30)))));
        assert_eq!(rest(351), ((1, 1), Some((351..410, far(1, 1)))));
        assert_eq!(rest(410), ((2, 0), None));
        let mut plan = Plan::whole(1000);
        plan.begin(2000);
        assert_eq!(ground(&plan), [(0..1000, Source::Begun)]);
    }

    #[test]
    fn of_a_long_gap_both_ends_are_compared_and_of_a_gap_backwards_nothing() {
        let mib = 1024 * 1024;
        assert_eq!(ends(7..9), [7..9]);
        assert_eq!(ends(Range { start: 5, end: 1 }), []);
        let both = [mib..mib + END_BYTES, 99 * mib - END_BYTES..99 * mib];
        assert_eq!(ends(mib..99 * mib), both);
        let base = pieces(&[mib, 98 * mib]);
        let plan = Plan::new(&[Run::Same(0..1), Run::New(pieces(&[5 * mib]))], &base);
        assert!(
            matches!(&plan.requests[..], [Request::Ranges(_)]),
            "too long"
        );
    }
}
