//! Messages to and from the bytes of the schema. Everything that arrives is validated here, once.
//!
//! Invariant: bytes are screened before anything is made of them: one envelope never makes more than
//! [`limits::ITEMS_MAX`] items. What this program does not know (fields, kinds) is skipped, never refused.

use bytes::Bytes;
use instep_core::id::{ActorId, Dot, ReplicaId, ShareId};
use instep_core::path::RelPath;
use prost::Message as _;

use crate::limits;
use crate::message::{Digests, Hello, Message, Moved, Node, Part, Record, Row, Versions};

#[expect(
    clippy::derive_partial_eq_without_eq,
    clippy::struct_field_names,
    unreachable_pub,
    reason = "made from the schema"
)]
mod v1 {
    include!(concat!(env!("OUT_DIR"), "/instep.v1.rs"));
}
use v1::envelope::Kind;

/// Why bytes are not a message, or a message cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtoError {
    /// Not the bytes of any message.
    #[error("not a message")]
    Garbled,
    /// More items, or longer ones, than are allowed.
    #[error("message beyond the limit: {0}")]
    TooBig(&'static str),
    /// A field with a value that nobody sends.
    #[error("message with an impossible {0}")]
    Invalid(&'static str),
}

/// What an envelope holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// A message.
    Message(Message),
    /// The far end wants the bulk connection opened.
    OpenBulk,
    /// Something that a later version says.
    Unknown,
}

type Result<T> = std::result::Result<T, ProtoError>;

/// The bytes of a message. Refused are those that the far end would refuse.
pub(crate) fn encode(message: &Message) -> Result<Bytes> {
    let kind = Some(kind(message)?);
    let envelope = v1::Envelope { kind };
    if envelope.encoded_len() > limits::MESSAGE_BYTES_MAX {
        return Err(ProtoError::TooBig("bytes of a message"));
    }
    Ok(Bytes::from(envelope.encode_to_vec()))
}

/// The bytes that ask for the bulk connection.
pub(crate) fn encode_open_bulk() -> Bytes {
    let kind = Some(Kind::OpenBulk(v1::OpenBulk {}));
    Bytes::from(v1::Envelope { kind }.encode_to_vec())
}

/// A stretch of the bulk connection, as a message of a call.
pub(crate) fn encode_piece(bytes: Bytes) -> Bytes {
    Bytes::from(v1::Piece { bytes }.encode_to_vec())
}

/// The stretch in such a message.
pub(crate) fn decode_piece(bytes: Bytes) -> Result<Bytes> {
    let piece = v1::Piece::decode(bytes).map_err(|_| ProtoError::Garbled)?;
    Ok(piece.bytes)
}

/// The message in these bytes.
pub(crate) fn decode(bytes: Bytes) -> Result<Arrival> {
    if bytes.len() > limits::MESSAGE_BYTES_MAX {
        return Err(ProtoError::TooBig("bytes of a message"));
    }
    screen(&bytes)?;
    let envelope = v1::Envelope::decode(bytes).map_err(|_| ProtoError::Garbled)?;
    let Some(kind) = envelope.kind else {
        return Ok(Arrival::Unknown);
    };
    Ok(Arrival::Message(match kind {
        Kind::Hello(hello) => Message::Hello(Box::new(take_hello(hello)?)),
        Kind::Refused(r) => Message::Refused {
            code: text(r.code, limits::CODE_BYTES_MAX, "code")?,
            detail: text(r.detail, limits::TEXT_BYTES_MAX, "detail")?,
        },
        Kind::Rows(rows) => Message::Rows(all(rows.rows, take_row)?),
        Kind::Same(same) => Message::Same(all(same.rows, |r| take_alike(&r))?),
        Kind::Digests(digests) => Message::Digests(take_digests(&digests)?),
        Kind::Wanted(wanted) => Message::Wanted(all(wanted.parts, |p| take_part(&p))?),
        Kind::Complete(complete) => Message::Complete(all(complete.nodes, take_node)?),
        Kind::Rest(rest) => Message::Rest { heard: rest.heard },
        Kind::Moved(moved) => Message::Moved(take_moved(&moved)?),
        Kind::Record(record) => Message::Record(take_record(record)?),
        Kind::Status(s) => Message::Status(text(s.json, limits::TEXT_BYTES_MAX, "status")?),
        Kind::Ping(ping) => Message::Ping(ping.n),
        Kind::Pong(pong) => Message::Pong(pong.n),
        Kind::Bye(bye) => Message::Bye {
            code: text(bye.code, limits::CODE_BYTES_MAX, "code")?,
        },
        Kind::OpenBulk(_) => return Ok(Arrival::OpenBulk),
    }))
}

/// Refuses an envelope of which too many items would be made, without making any: two bytes on the wire can stand for
/// a row of two hundred in memory.
fn screen(envelope: &[u8]) -> Result<()> {
    let mut items = 0;
    fields(envelope, &mut |kind| {
        // What is garbled is found when it is decoded; what is not known here is not decoded, and may be anything.
        let _garbled = fields(kind, &mut |_| {
            items += 1;
            Ok(())
        });
        if items > limits::ITEMS_MAX + 32 {
            return Err(ProtoError::TooBig("items of a message"));
        }
        Ok(())
    })
}

/// Visits the fields that have a length, in order.
fn fields(bytes: &[u8], visit: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        let skipped = match tag & 7 {
            0 => varint(&mut rest).map(|_| 0)?,
            1 => 8,
            5 => 4,
            2 => varint(&mut rest)?,
            _ => return Err(ProtoError::Garbled),
        };
        let skipped = usize::try_from(skipped).map_err(|_| ProtoError::Garbled)?;
        let (field, after) = rest.split_at_checked(skipped).ok_or(ProtoError::Garbled)?;
        rest = after;
        if tag & 7 == 2 {
            visit(field)?;
        }
    }
    Ok(())
}

fn varint(rest: &mut &[u8]) -> Result<u64> {
    let mut n = 0;
    for shift in (0..70).step_by(7) {
        let (first, after) = rest.split_first().ok_or(ProtoError::Garbled)?;
        *rest = after;
        n |= u64::from(first & 0x7f).checked_shl(shift).unwrap_or(0);
        if first & 0x80 == 0 {
            return Ok(n);
        }
    }
    Err(ProtoError::Garbled)
}

fn all<A, B>(items: Vec<A>, take: impl Fn(A) -> Result<B>) -> Result<Vec<B>> {
    if items.len() > limits::ITEMS_MAX {
        return Err(ProtoError::TooBig("items of a message"));
    }
    items.into_iter().map(take).collect()
}

fn count(n: usize) -> Result<()> {
    if n > limits::ITEMS_MAX {
        return Err(ProtoError::TooBig("items of a message"));
    }
    Ok(())
}

fn text(text: String, max: usize, what: &'static str) -> Result<String> {
    if text.len() > max {
        return Err(ProtoError::TooBig(what));
    }
    Ok(text)
}

/// Exactly `N` bytes, or none for zeros.
fn array<const N: usize>(bytes: &[u8], what: &'static str) -> Result<[u8; N]> {
    if bytes.is_empty() {
        return Ok([0; N]);
    }
    bytes.try_into().map_err(|_| ProtoError::Invalid(what))
}

/// The bytes, or nothing for zeros.
fn lean<const N: usize>(bytes: &[u8; N]) -> Bytes {
    if *bytes == [0; N] {
        Bytes::new()
    } else {
        Bytes::copy_from_slice(bytes)
    }
}

fn path(bytes: &[u8]) -> Result<RelPath> {
    RelPath::from_peer(bytes).map_err(|_| ProtoError::Invalid("path"))
}

fn put_path(path: &RelPath) -> Bytes {
    Bytes::copy_from_slice(path.as_bytes())
}

fn counter(n: u64) -> Result<u64> {
    if n > limits::COUNTER_MAX {
        return Err(ProtoError::Invalid("counter"));
    }
    Ok(n)
}

fn put_dot(dot: Dot) -> v1::Dot {
    v1::Dot {
        actor: Bytes::copy_from_slice(&dot.actor.0),
        counter: dot.counter,
    }
}

fn take_dot(dot: &v1::Dot) -> Result<Dot> {
    Ok(Dot {
        actor: ActorId(array(&dot.actor, "actor")?),
        counter: counter(dot.counter)?,
    })
}

fn kind(message: &Message) -> Result<Kind> {
    Ok(match message {
        Message::Hello(hello) => Kind::Hello(put_hello(hello)?),
        Message::Refused { code, detail } => Kind::Refused(v1::Refused {
            code: text(code.clone(), limits::CODE_BYTES_MAX, "code")?,
            detail: text(detail.clone(), limits::TEXT_BYTES_MAX, "detail")?,
        }),
        Message::Rows(rows) => {
            count(rows.len())?;
            let rows = rows.iter().map(put_row).collect::<Result<_>>()?;
            Kind::Rows(v1::Rows { rows })
        }
        Message::Same(rows) => {
            count(rows.len())?;
            let rows = rows.iter().map(|(path, digest)| v1::Alike {
                path: put_path(path),
                digest: Bytes::copy_from_slice(&digest.to_be_bytes()),
            });
            Kind::Same(v1::Same {
                rows: rows.collect(),
            })
        }
        Message::Digests(digests) => Kind::Digests(put_digests(digests)),
        Message::Wanted(parts) => {
            count(parts.len())?;
            let parts = parts.iter().map(|part| v1::Part {
                node: Some(put_node(part.node)),
                rows: part.rows,
            });
            Kind::Wanted(v1::Wanted {
                parts: parts.collect(),
            })
        }
        Message::Complete(nodes) => {
            count(nodes.len())?;
            let nodes = nodes.iter().map(|node| put_node(*node)).collect();
            Kind::Complete(v1::Complete { nodes })
        }
        Message::Rest { heard } => Kind::Rest(v1::Rest { heard: *heard }),
        Message::Moved(moved) => Kind::Moved(put_moved(moved)),
        Message::Record(record) => Kind::Record(v1::Record {
            book: u32::from(record.book),
            key: text(record.key.clone(), limits::RECORD_KEY_BYTES_MAX, "key")?,
            body: record.body.clone(),
        }),
        Message::Status(json) => Kind::Status(v1::Status {
            json: text(json.clone(), limits::TEXT_BYTES_MAX, "status")?,
        }),
        Message::Ping(n) => Kind::Ping(v1::Ping { n: *n }),
        Message::Pong(n) => Kind::Pong(v1::Pong { n: *n }),
        Message::Bye { code } => Kind::Bye(v1::Bye {
            code: text(code.clone(), limits::CODE_BYTES_MAX, "code")?,
        }),
    })
}

fn put_hello(hello: &Hello) -> Result<v1::Hello> {
    count(hello.knows.len())?;
    let label = |of: &String, what| text(of.clone(), limits::LABEL_BYTES_MAX, what);
    Ok(v1::Hello {
        version_min: hello.versions.min,
        version_max: hello.versions.max,
        share: lean(&hello.share.0),
        share_name: label(&hello.share_name, "name of a share")?,
        replica: lean(&hello.replica.0),
        actor: lean(&hello.actor.0),
        counter: hello.counter,
        head: lean(&hello.head),
        label: label(&hello.label, "label")?,
        role: label(&hello.role, "role")?,
        machine: label(&hello.machine, "machine")?,
        mirror: lean(&hello.mirror),
        knows: hello.knows.iter().map(|d| put_dot(*d)).collect(),
    })
}

fn take_hello(hello: v1::Hello) -> Result<Hello> {
    let label = |of, what| text(of, limits::LABEL_BYTES_MAX, what);
    Ok(Hello {
        versions: Versions {
            min: hello.version_min,
            max: hello.version_max,
        },
        share: ShareId(array(&hello.share, "share")?),
        share_name: label(hello.share_name, "name of a share")?,
        replica: ReplicaId(array(&hello.replica, "replica")?),
        actor: ActorId(array(&hello.actor, "actor")?),
        counter: counter(hello.counter)?,
        head: array(&hello.head, "head")?,
        label: label(hello.label, "label")?,
        role: label(hello.role, "role")?,
        machine: label(hello.machine, "machine")?,
        mirror: array(&hello.mirror, "mirror")?,
        knows: all(hello.knows, |d| take_dot(&d))?,
    })
}

fn inline(bytes: Option<Bytes>) -> Result<Option<Bytes>> {
    if bytes
        .as_ref()
        .is_some_and(|b| b.len() > limits::INLINE_BYTES_MAX)
    {
        return Err(ProtoError::TooBig("inline content"));
    }
    Ok(bytes)
}

fn put_row(row: &Row) -> Result<v1::Row> {
    Ok(v1::Row {
        path: put_path(&row.path),
        row: row.row.clone(),
        inline: inline(row.inline.clone())?,
    })
}

fn take_row(row: v1::Row) -> Result<Row> {
    Ok(Row {
        path: path(&row.path)?,
        row: row.row,
        inline: inline(row.inline)?,
    })
}

fn take_alike(alike: &v1::Alike) -> Result<(RelPath, u128)> {
    let digest = u128::from_be_bytes(array(&alike.digest, "digest")?);
    Ok((path(&alike.path)?, digest))
}

fn put_node(node: Node) -> v1::Node {
    v1::Node {
        depth: u32::from(node.depth),
        digits: u32::from(node.digits),
    }
}

fn take_node(node: v1::Node) -> Result<Node> {
    let invalid = |_| ProtoError::Invalid("part");
    Ok(Node {
        depth: u8::try_from(node.depth).map_err(invalid)?,
        digits: u16::try_from(node.digits).map_err(invalid)?,
    })
}

fn take_part(part: &v1::Part) -> Result<Part> {
    Ok(Part {
        node: take_node(part.node.unwrap_or_default())?,
        rows: part.rows,
    })
}

fn put_digests(digests: &Digests) -> v1::Digests {
    let children = digests.children.iter().flat_map(|d| d.to_be_bytes());
    v1::Digests {
        node: Some(put_node(digests.node)),
        children: children.collect(),
        rows: digests.rows,
    }
}

fn take_digests(digests: &v1::Digests) -> Result<Digests> {
    let (children, rest) = digests.children.as_chunks::<16>();
    if children.len() != 16 || !rest.is_empty() {
        return Err(ProtoError::Invalid("number of digests"));
    }
    Ok(Digests {
        node: take_node(digests.node.unwrap_or_default())?,
        children: children.iter().map(|d| u128::from_be_bytes(*d)).collect(),
        rows: digests.rows,
    })
}

fn put_moved(moved: &Moved) -> v1::Moved {
    v1::Moved {
        from: put_path(&moved.from),
        to: put_path(&moved.to),
        actor: lean(&moved.actor.0),
        first_counter: moved.first_counter,
        count: moved.count,
        digest: lean(&moved.digest),
    }
}

fn take_moved(moved: &v1::Moved) -> Result<Moved> {
    let last = moved.first_counter.checked_add(moved.count);
    counter(last.ok_or(ProtoError::Invalid("counter"))?)?;
    Ok(Moved {
        from: path(&moved.from)?,
        to: path(&moved.to)?,
        actor: ActorId(array(&moved.actor, "actor")?),
        first_counter: moved.first_counter,
        count: moved.count,
        digest: array(&moved.digest, "digest")?,
    })
}

fn take_record(record: v1::Record) -> Result<Record> {
    Ok(Record {
        book: u8::try_from(record.book).map_err(|_| ProtoError::Invalid("book"))?,
        key: text(record.key, limits::RECORD_KEY_BYTES_MAX, "key")?,
        body: record.body,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests;
