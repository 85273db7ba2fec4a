//! Frames of the bulk connection: eight bytes of header, then the payload.
//!
//! ```text
//! length u24 | class u4, type u4 | stream u32      big-endian
//! ```
//!
//! Pure. Invariant: a header is judged before memory is taken for its payload; types that are not known are skipped.

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::limits;
use crate::want::{self, Want};

/// How urgent a content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// What everything else waits for.
    Urgent,
    /// Small, or just touched by a user.
    Interactive,
    /// Files of ordinary size.
    File,
    /// Everything big.
    Bulk,
}

impl Class {
    pub(crate) const ALL: [Self; 4] = [Self::Urgent, Self::Interactive, Self::File, Self::Bulk];

    /// By how much is to be sent.
    pub fn of_size(bytes: u64) -> Self {
        match bytes {
            0..=0x1_0000 => Self::Interactive,
            0x1_0001..=0x7f_ffff => Self::File,
            _ => Self::Bulk,
        }
    }
}

/// How a content ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All of it was sent.
    Complete,
    /// It is not there.
    Missing,
    /// Something else is there by now.
    Changed,
    /// It could not be read.
    Failed,
}

/// One frame's payload, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    Want(Want),
    Data(Bytes),
    Packed { plain: u32, bytes: Bytes },
    End(Outcome),
    Cancel,
    Credit(u32),
    Ping,
    Pong,
}

/// What stands before a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) len: u32,
    pub(crate) class: u8,
    pub(crate) kind: u8,
    pub(crate) stream: u32,
}

pub(crate) const HEADER_BYTES: usize = 8;

pub(crate) const DATA: u8 = 2;
pub(crate) const PACKED: u8 = 3;
const END: u8 = 4;
const CANCEL: u8 = 5;
const CREDIT: u8 = 6;
const PING: u8 = 7;
const PONG: u8 = 8;

impl Header {
    pub(crate) fn read(bytes: [u8; HEADER_BYTES]) -> Self {
        let [high, middle, low, kinds, stream @ ..] = bytes;
        Self {
            len: u32::from_be_bytes([0, high, middle, low]),
            class: kinds >> 4,
            kind: kinds & 15,
            stream: u32::from_be_bytes(stream),
        }
    }

    pub(crate) fn bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..3].copy_from_slice(&self.len.to_be_bytes()[1..]);
        bytes[3] = self.class << 4 | self.kind & 15;
        bytes[4..].copy_from_slice(&self.stream.to_be_bytes());
        bytes
    }

    /// Whether a payload of this length can belong to it; asked before any memory is taken.
    pub(crate) fn check(self) -> Result<Self, &'static str> {
        let len = self.len as usize;
        let fits = match self.kind {
            DATA => (1..=limits::FRAME_BYTES_MAX).contains(&len),
            PACKED => (5..=4 + limits::WINDOW_BYTES as usize).contains(&len),
            END => len == 1,
            CREDIT => len == 4,
            CANCEL | PING | PONG => len == 0,
            kind => match want::lengths(kind) {
                Some(lengths) => lengths.contains(&len),
                None => len <= limits::FRAME_BYTES_MAX,
            },
        };
        if fits {
            Ok(self)
        } else {
            Err("a frame of an impossible length")
        }
    }
}

impl Frame {
    /// From a payload; none for a type that is not known.
    pub(crate) fn read(header: Header, payload: Bytes) -> Result<Option<Self>, &'static str> {
        header.check()?;
        if payload.len() != header.len as usize {
            return Err("a frame of another length than it says");
        }
        Ok(Some(match header.kind {
            DATA => Self::Data(payload),
            PACKED => {
                let plain = u32::from_be_bytes(fixed(&payload[..4])?);
                if plain == 0 || plain > limits::PLAIN_BYTES_MAX {
                    return Err("a piece that claims an impossible length");
                }
                let bytes = payload.slice(4..);
                Self::Packed { plain, bytes }
            }
            END => Self::End(match payload[0] {
                0 => Outcome::Complete,
                1 => Outcome::Missing,
                2 => Outcome::Changed,
                _ => Outcome::Failed,
            }),
            CANCEL => Self::Cancel,
            CREDIT => Self::Credit(u32::from_be_bytes(fixed(&payload)?)),
            PING => Self::Ping,
            PONG => Self::Pong,
            kind if want::lengths(kind).is_some() => {
                Self::Want(Want::read(kind, header.class, &payload)?)
            }
            _ => return Ok(None),
        }))
    }

    /// Appends header and payload.
    pub(crate) fn write(&self, stream: u32, class: Class, out: &mut BytesMut) {
        let (kind, len) = match self {
            Self::Want(want) => (want.kind(), want.len()),
            Self::Data(bytes) => (DATA, bytes.len()),
            Self::Packed { bytes, .. } => (PACKED, 4 + bytes.len()),
            Self::End(_) => (END, 1),
            Self::Cancel => (CANCEL, 0),
            Self::Credit(_) => (CREDIT, 4),
            Self::Ping => (PING, 0),
            Self::Pong => (PONG, 0),
        };
        let header = Header {
            len: len as u32,
            class: class as u8,
            kind,
            stream,
        };
        out.reserve(HEADER_BYTES + len);
        out.put_slice(&header.bytes());
        match self {
            Self::Want(want) => want.write(out),
            Self::Data(bytes) => out.put_slice(bytes),
            Self::Packed { plain, bytes } => {
                out.put_u32(*plain);
                out.put_slice(bytes);
            }
            Self::End(outcome) => out.put_u8(match outcome {
                Outcome::Complete => 0,
                Outcome::Missing => 1,
                Outcome::Changed => 2,
                Outcome::Failed => 3,
            }),
            Self::Credit(bytes) => out.put_u32(*bytes),
            Self::Cancel | Self::Ping | Self::Pong => {}
        }
    }
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], &'static str> {
    bytes
        .try_into()
        .map_err(|_| "a frame of an impossible length")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use instep_core::id::ContentId;
    use instep_core::path::RelPath;
    use proptest::prelude::*;

    use super::*;
    use crate::want::{FROM, RANGES, Wanted};

    const WANT_BYTES: usize = 32 + 8 + 8;

    fn want() -> Want {
        Want {
            content: ContentId([5; 32]),
            path: RelPath::new(b"a/b").unwrap(),
            size: 1 << 40,
            part: Wanted::From(77),
            class: Class::File,
        }
    }

    fn read(bytes: &[u8]) -> Result<(u32, Option<Frame>), &'static str> {
        let header = Header::read(*bytes.first_chunk().unwrap()).check()?;
        let payload = Bytes::copy_from_slice(&bytes[HEADER_BYTES..]);
        Ok((header.stream, Frame::read(header, payload)?))
    }

    #[test]
    fn frames_survive_their_bytes() {
        let frames = [
            Frame::Want(want()),
            Frame::Data(Bytes::from_static(b"abc")),
            Frame::Packed {
                plain: 9,
                bytes: Bytes::from_static(b"x"),
            },
            Frame::End(Outcome::Complete),
            Frame::End(Outcome::Missing),
            Frame::End(Outcome::Changed),
            Frame::End(Outcome::Failed),
            Frame::Cancel,
            Frame::Credit(65_536),
            Frame::Ping,
            Frame::Pong,
        ];
        for frame in frames {
            let mut out = BytesMut::new();
            frame.write(0x0102_0304, Class::File, &mut out);
            assert_eq!(read(&out), Ok((0x0102_0304, Some(frame))));
        }
    }

    #[test]
    fn absurd_lengths_are_refused_by_the_header_alone() {
        for (kind, len) in [
            (FROM, 47),
            (FROM, 0x00ff_ffff),
            (RANGES, 57),
            (RANGES, 0x0002_0000),
            (DATA, 0),
            (DATA, 0x0010_0001),
            (PACKED, 4),
            (PACKED, 0x0010_0000),
            (END, 2),
            (CREDIT, 3),
            (CANCEL, 1),
            (15, 0x00ff_ffff),
        ] {
            let header = Header {
                len,
                class: 0,
                kind,
                stream: 1,
            };
            assert!(
                Header::read(header.bytes()).check().is_err(),
                "{kind} {len}"
            );
        }
    }

    #[test]
    fn a_want_outside_the_tree_or_beyond_its_end_is_refused() {
        let mut out = BytesMut::new();
        Frame::Want(want()).write(1, Class::File, &mut out);
        for path in [&b"../b"[..], b"/ab", b"a\0b", b"a//", b".instep/x"] {
            let mut bytes = out[..HEADER_BYTES + WANT_BYTES].to_vec();
            bytes.extend_from_slice(path);
            bytes[..3].copy_from_slice(&((WANT_BYTES + path.len()) as u32).to_be_bytes()[1..]);
            assert!(read(&bytes).is_err(), "{path:?}");
        }
        let mut beyond = out.to_vec();
        beyond[HEADER_BYTES + 40] = 0xff;
        assert!(read(&beyond).is_err());
        let mut classless = out.to_vec();
        classless[3] = 0x71;
        assert!(read(&classless).is_err());
    }

    #[test]
    fn a_frame_of_a_later_version_is_skipped() {
        let header = Header {
            len: 3,
            class: 0,
            kind: 12,
            stream: 1,
        };
        let skipped = Frame::read(header, Bytes::from_static(b"abc"));
        assert_eq!(skipped, Ok(None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_frame_or_an_error(kind in 0..16u8, class in 0..16u8, payload: Vec<u8>) {
            let header = Header { len: payload.len() as u32, class, kind, stream: 3 };
            if let Ok(Some(frame)) = Frame::read(header, Bytes::from(payload.clone()))
                && !matches!(frame, Frame::End(_))
            {
                let mut out = BytesMut::new();
                let class = Class::ALL.get(usize::from(class)).copied().unwrap_or(Class::Bulk);
                frame.write(3, class, &mut out);
                prop_assert_eq!(&out[HEADER_BYTES..], &payload[..]);
            }
        }
    }
}
