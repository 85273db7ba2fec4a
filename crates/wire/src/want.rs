//! What somebody wants of a content: the rest of it, some ranges, what changed in a stretch, or its manifest.
//!
//! Owns the byte form of a want. Pure. Invariant: a want that was read can be answered within its limits; how much an
//! answer may be at most follows from the want alone.

use std::ops::Range;

use bytes::{BufMut as _, BytesMut};
use instep_core::id::ContentId;
use instep_core::limits::PATH_BYTES_MAX;
use instep_core::path::RelPath;

use crate::frame::Class;
use crate::limits;

/// The name of a node of a manifest.
pub type Mark = [u8; 6];
/// The name of a small piece of old bytes.
pub type Fingerprint = [u8; 8];

/// A content of which somebody wants a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// Which.
    pub content: ContentId,
    /// Where it is expected.
    pub path: RelPath,
    /// How long it is.
    pub size: u64,
    /// What of it.
    pub part: Wanted,
    /// How urgent it is.
    pub class: Class,
}

/// What is wanted of a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// All from an offset on.
    From(u64),
    /// Nodes of its manifest; none named is the one on top. Each comes after its length in two bytes; a length of zero
    /// means that whoever answers is still reading the content.
    Nodes(Vec<Mark>),
    /// Ranges of it, rising, one after the other.
    Ranges(Vec<Range<u64>>),
    /// How a stretch of it is made of old bytes that the asker has.
    Delta {
        /// The stretch.
        stretch: Range<u64>,
        /// What the old bytes are made of.
        old: Vec<Fingerprint>,
    },
}

pub(crate) const FROM: u8 = 1;
pub(crate) const NODES: u8 = 9;
pub(crate) const RANGES: u8 = 10;
pub(crate) const DELTA: u8 = 11;

/// Bytes of any want: content and size.
const HEAD_BYTES: usize = 32 + 8;
const RANGE_BYTES: usize = 16;
const MARK_BYTES: usize = size_of::<Mark>();
const FINGERPRINT_BYTES: usize = size_of::<Fingerprint>();

type Read<T> = Result<T, &'static str>;

const SHORT: &str = "a want of an impossible length";

/// How long the payload of a want of this kind may be; none, where it is no want.
pub(crate) fn lengths(kind: u8) -> Option<std::ops::RangeInclusive<usize>> {
    let (least, most) = match kind {
        FROM => (8, 8),
        NODES => (1, 1 + limits::NODES_MAX * MARK_BYTES),
        RANGES => (2 + RANGE_BYTES, 2 + limits::RANGES_MAX * RANGE_BYTES),
        DELTA => {
            let head = 8 + 4 + 2;
            let most = limits::FINGERPRINTS_MAX * FINGERPRINT_BYTES;
            (head, head + most)
        }
        _ => return None,
    };
    Some(HEAD_BYTES + least..=HEAD_BYTES + most + PATH_BYTES_MAX)
}

impl Want {
    /// Bytes of an answer, at most; exactly so many where [`Want::is_exact`].
    pub fn bytes_max(&self) -> u64 {
        match &self.part {
            Wanted::From(offset) => self.size.saturating_sub(*offset),
            Wanted::Nodes(marks) => {
                let nodes = marks.len().max(1) * (2 + limits::NODE_BYTES_MAX);
                let patiences = limits::NODE_PATIENCES_MAX as u64;
                nodes as u64 + 2 * (self.size / limits::NODE_PATIENCE_BYTES + patiences)
            }
            Wanted::Ranges(ranges) => ranges.iter().map(length).sum(),
            // Words between the pieces, each of which has half a KiB.
            Wanted::Delta { stretch, .. } => length(stretch) + length(stretch) / 32 + 32,
        }
    }

    /// Whether a complete answer has exactly the bytes that are wanted.
    pub fn is_exact(&self) -> bool {
        matches!(self.part, Wanted::From(_) | Wanted::Ranges(_))
    }

    /// What is still wanted after so many bytes of the answer; none, where it has to be wanted anew as a whole.
    pub fn after(&self, mut bytes: u64) -> Option<Self> {
        let part = match &self.part {
            part if bytes == 0 => part.clone(),
            Wanted::From(offset) => Wanted::From((offset + bytes).min(self.size)),
            Wanted::Ranges(ranges) => {
                let mut rest = Vec::new();
                for range in ranges {
                    let skipped = bytes.min(length(range));
                    bytes -= skipped;
                    if skipped < length(range) {
                        rest.push(range.start + skipped..range.end);
                    }
                }
                Wanted::Ranges(rest)
            }
            Wanted::Nodes(_) | Wanted::Delta { .. } => return None,
        };
        Some(Self {
            part,
            ..self.clone()
        })
    }

    pub(crate) fn kind(&self) -> u8 {
        match self.part {
            Wanted::From(_) => FROM,
            Wanted::Nodes(_) => NODES,
            Wanted::Ranges(_) => RANGES,
            Wanted::Delta { .. } => DELTA,
        }
    }

    /// Bytes of the payload.
    pub(crate) fn len(&self) -> usize {
        let part = match &self.part {
            Wanted::From(_) => 8,
            Wanted::Nodes(marks) => 1 + marks.len() * MARK_BYTES,
            Wanted::Ranges(ranges) => 2 + ranges.len() * RANGE_BYTES,
            Wanted::Delta { old, .. } => 8 + 4 + 2 + old.len() * FINGERPRINT_BYTES,
        };
        HEAD_BYTES + part + self.path.as_bytes().len()
    }

    pub(crate) fn write(&self, out: &mut BytesMut) {
        out.put_slice(&self.content.0);
        out.put_u64(self.size);
        match &self.part {
            Wanted::From(offset) => out.put_u64(*offset),
            Wanted::Nodes(marks) => {
                out.put_u8(marks.len() as u8);
                marks.iter().for_each(|mark| out.put_slice(mark));
            }
            Wanted::Ranges(ranges) => {
                out.put_u16(ranges.len() as u16);
                for range in ranges {
                    out.put_u64(range.start);
                    out.put_u64(length(range));
                }
            }
            Wanted::Delta { stretch, old } => {
                out.put_u64(stretch.start);
                out.put_u32(length(stretch) as u32);
                out.put_u16(old.len() as u16);
                old.iter().for_each(|print| out.put_slice(print));
            }
        }
        out.put_slice(self.path.as_bytes());
    }

    pub(crate) fn read(kind: u8, class: u8, payload: &[u8]) -> Read<Self> {
        let class = Class::ALL.get(usize::from(class)).copied();
        let mut rest = payload;
        let content = ContentId(take(&mut rest)?);
        let size = u64::from_be_bytes(take(&mut rest)?);
        let part = match kind {
            NODES => read_nodes(&mut rest)?,
            RANGES => read_ranges(&mut rest, size)?,
            DELTA => read_delta(&mut rest, size)?,
            _ => Wanted::From(u64::from_be_bytes(take(&mut rest)?)),
        };
        if matches!(part, Wanted::From(offset) if offset > size) {
            return Err("a want from beyond its end");
        }
        Ok(Self {
            content,
            path: RelPath::from_peer(rest).map_err(|_| "a want with an impossible path")?,
            size,
            part,
            class: class.ok_or("a want of no class")?,
        })
    }
}

fn length(range: &Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

/// The next bytes.
fn take<const N: usize>(rest: &mut &[u8]) -> Read<[u8; N]> {
    let (head, tail) = rest.split_first_chunk().ok_or(SHORT)?;
    *rest = tail;
    Ok(*head)
}

/// So many of the same.
fn take_all<const N: usize>(rest: &mut &[u8], count: usize, most: usize) -> Read<Vec<[u8; N]>> {
    if count > most {
        return Err("a want of too much at a time");
    }
    let (all, tail) = rest.split_at_checked(count * N).ok_or(SHORT)?;
    *rest = tail;
    Ok(all.as_chunks().0.to_vec())
}

fn read_nodes(rest: &mut &[u8]) -> Read<Wanted> {
    let [count] = take(rest)?;
    let marks = take_all(rest, usize::from(count), limits::NODES_MAX)?;
    Ok(Wanted::Nodes(marks))
}

fn read_ranges(rest: &mut &[u8], size: u64) -> Read<Wanted> {
    let count = u16::from_be_bytes(take(rest)?);
    if count == 0 {
        return Err("a want of nothing");
    }
    let mut ranges = Vec::new();
    let mut end = 0;
    for words in take_all::<RANGE_BYTES>(rest, usize::from(count), limits::RANGES_MAX)? {
        let mut words = &words[..];
        let from = u64::from_be_bytes(take(&mut words)?);
        let range = within(from, u64::from_be_bytes(take(&mut words)?), size)?;
        if range.start < end {
            return Err("a want of ranges that do not rise");
        }
        end = range.end;
        ranges.push(range);
    }
    Ok(Wanted::Ranges(ranges))
}

fn read_delta(rest: &mut &[u8], size: u64) -> Read<Wanted> {
    let from = u64::from_be_bytes(take(rest)?);
    let length = u32::from_be_bytes(take(rest)?);
    let count = u16::from_be_bytes(take(rest)?);
    if length > limits::DELTA_BYTES_MAX {
        return Err("a want of too much at a time");
    }
    let stretch = within(from, u64::from(length), size)?;
    let old = take_all(rest, usize::from(count), limits::FINGERPRINTS_MAX)?;
    Ok(Wanted::Delta { stretch, old })
}

/// A range with something in it, inside the content.
fn within(from: u64, length: u64, size: u64) -> Read<Range<u64>> {
    let end = from.checked_add(length).filter(|end| *end <= size);
    match end {
        Some(end) if end > from => Ok(from..end),
        _ => Err("a want from beyond its end"),
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::single_range_in_vec_init,
    reason = "a failed assumption is a failed test; lists of ranges are what is looked at"
)]
mod tests {
    use super::*;

    fn want(part: Wanted) -> Want {
        Want {
            content: ContentId([5; 32]),
            path: RelPath::new(b"a/b").unwrap(),
            size: 1000,
            part,
            class: Class::File,
        }
    }

    fn read_again(want: &Want) -> Read<Want> {
        let mut out = BytesMut::new();
        want.write(&mut out);
        assert_eq!(out.len(), want.len());
        assert!(lengths(want.kind()).unwrap().contains(&out.len()) || want.len() < 60);
        Want::read(want.kind(), want.class as u8, &out)
    }

    #[test]
    fn wants_of_every_part_survive_their_bytes() {
        for part in [
            Wanted::From(77),
            Wanted::Nodes(vec![]),
            Wanted::Nodes(vec![[7; 6]; limits::NODES_MAX]),
            Wanted::Ranges(vec![0..1, 1..999, 999..1000]),
            Wanted::Delta {
                stretch: 10..1000,
                old: vec![],
            },
            Wanted::Delta {
                stretch: 0..1,
                old: vec![[8; 8]; limits::FINGERPRINTS_MAX],
            },
        ] {
            let want = want(part);
            assert_eq!(read_again(&want), Ok(want));
        }
    }

    #[test]
    fn a_want_beyond_a_limit_or_outside_the_content_is_refused() {
        let delta = |stretch, prints| Wanted::Delta {
            stretch,
            old: vec![[0; 8]; prints],
        };
        for part in [
            Wanted::From(1001),
            Wanted::Nodes(vec![[7; 6]; limits::NODES_MAX + 1]),
            Wanted::Ranges(vec![]),
            Wanted::Ranges(vec![0..1001]),
            Wanted::Ranges(vec![5..5]),
            Wanted::Ranges(vec![5..9, 8..10]),
            Wanted::Ranges((0..257).map(|n| n..n + 1).collect()),
            Wanted::Ranges(vec![u64::MAX - 1..u64::MAX]),
            delta(0..1001, 0),
            delta(7..7, 0),
            delta(0..9, limits::FINGERPRINTS_MAX + 1),
        ] {
            let want = want(part);
            assert!(read_again(&want).is_err(), "{want:?}");
        }
        let big = Want {
            size: 1 << 30,
            ..want(delta(0..u64::from(limits::DELTA_BYTES_MAX) + 1, 0))
        };
        assert!(read_again(&big).is_err());
    }

    #[test]
    fn what_came_already_is_wanted_again() {
        let rest = |part, bytes| want(part).after(bytes).map(|w| w.part);
        assert_eq!(rest(Wanted::From(10), 7), Some(Wanted::From(17)));
        let ranges = || Wanted::Ranges(vec![0..10, 20..30, 40..50]);
        assert_eq!(rest(ranges(), 0), Some(ranges()));
        assert_eq!(
            rest(ranges(), 13),
            Some(Wanted::Ranges(vec![23..30, 40..50]))
        );
        assert_eq!(rest(ranges(), 20), Some(Wanted::Ranges(vec![40..50])));
        assert_eq!(rest(Wanted::Nodes(vec![]), 0), Some(Wanted::Nodes(vec![])));
        assert_eq!(rest(Wanted::Nodes(vec![]), 1), None);
    }
}
