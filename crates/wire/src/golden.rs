//! The examples of docs/protocol.md, byte for byte: what is written there is what is sent, in every release.
//!
//! An example that changed is a protocol that changed. New ones are added; none is altered.

use std::fmt::Write as _;

use bytes::{Bytes, BytesMut};
use instep_core::id::{ActorId, ContentId, Dot, ReplicaId, ShareId};
use instep_core::path::RelPath;

use crate::frame::{Class, Frame, HEADER_BYTES, Header, Outcome};
use crate::identity::DeviceId;
use crate::message::{Digests, Hello, Message, Moved, Node, Part, Record, Row, Versions};
use crate::proto::{self, Arrival};
use crate::tls::Purpose;
use crate::want::{Want, Wanted};

const DOCUMENT: &str = include_str!("../../../docs/protocol.md");

/// The example with this name, as it is in the document: lines of `name: hex`, continued where they are indented.
fn example(name: &str) -> Option<String> {
    let head = format!("{name}: ");
    let mut lines = DOCUMENT.lines().skip_while(|line| !line.starts_with(&head));
    let mut hex = String::from(lines.next()?.strip_prefix(&head)?);
    for line in lines.take_while(|line| line.starts_with("  ")) {
        hex.push_str(line);
    }
    hex.retain(|c| !c.is_whitespace());
    Some(hex)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, b| {
        let _infallible = write!(text, "{b:02x}");
        text
    })
}

/// How an example has to be written down.
fn written(name: &str, hex: &str) -> String {
    let mut lines = format!("{name}: ");
    for (at, part) in hex.as_bytes().chunks(96).enumerate() {
        let part = std::str::from_utf8(part).unwrap();
        lines.push_str(if at == 0 { "" } else { "\n  " });
        lines.push_str(part);
    }
    lines
}

fn compare(all: &[(&str, String)]) {
    let differ = |(name, hex): &&(&str, String)| example(name).as_ref() != Some(hex);
    let lines: Vec<String> = all
        .iter()
        .filter(differ)
        .map(|(n, h)| written(n, h))
        .collect();
    assert!(
        lines.is_empty(),
        "not as in docs/protocol.md:\n{}",
        lines.join("\n")
    );
}

fn path(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).unwrap()
}

fn hello() -> Hello {
    Hello {
        versions: Versions { min: 1, max: 1 },
        share: ShareId([0x51; 16]),
        share_name: String::from("photos"),
        replica: ReplicaId([0x52; 16]),
        actor: ActorId(*b"actor--1"),
        counter: 4096,
        head: [0x53; 32],
        label: String::from("laptop"),
        role: String::from("both"),
        machine: String::from("m"),
        mirror: [0x54; 32],
        knows: vec![Dot {
            actor: ActorId(*b"actor--2"),
            counter: 300,
        }],
    }
}

fn messages() -> Vec<(&'static str, Message)> {
    let code = String::from("unknown-share");
    let detail = String::from("no such share");
    let row = Row {
        path: path("a/b.txt"),
        row: Some(Bytes::from_static(b"as in the index")),
        inline: Some(Bytes::from_static(b"abc")),
    };
    let gone = Row {
        path: path("gone"),
        row: None,
        inline: None,
    };
    let node = Node {
        depth: 2,
        digits: 0xab,
    };
    let digests = Digests {
        node,
        children: (1..=16).collect(),
        rows: 200_000,
    };
    let part = |rows| Part { node, rows };
    vec![
        ("hello", Message::Hello(Box::new(hello()))),
        ("refused", Message::Refused { code, detail }),
        ("rows", Message::Rows(vec![row, gone])),
        ("same", Message::Same(vec![(path("a"), 5)])),
        ("digests", Message::Digests(digests)),
        ("wanted", Message::Wanted(vec![part(true), part(false)])),
        ("complete", Message::Complete(vec![node])),
        ("rest", Message::Rest { heard: 300 }),
        (
            "moved",
            Message::Moved(Moved {
                from: path("old"),
                to: path("new"),
                actor: ActorId(*b"actor--1"),
                first_counter: 8,
                count: 20,
                digest: [0x56; 32],
            }),
        ),
        (
            "record",
            Message::Record(Record {
                book: 1,
                key: String::from("k"),
                body: Some(String::from("{}")),
            }),
        ),
        ("status", Message::Status(String::from("{\"done\":true}"))),
        ("ping", Message::Ping(5)),
        ("pong", Message::Pong(5)),
        (
            "bye",
            Message::Bye {
                code: String::from("done"),
            },
        ),
    ]
}

#[test]
fn messages_are_as_written_down() {
    let encoded =
        |(name, message): (&'static str, Message)| (name, hex(&proto::encode(&message).unwrap()));
    let mut all: Vec<(&str, String)> = messages().into_iter().map(encoded).collect();
    all.push(("open-bulk", hex(&proto::encode_open_bulk())));
    let piece = proto::encode_piece(Bytes::from_static(b"abc"));
    all.push(("piece", hex(&piece)));
    compare(&all);
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digits).collect()
}

#[test]
fn written_messages_are_understood() {
    for (name, message) in messages() {
        let bytes = Bytes::from(unhex(&example(name).unwrap()));
        assert_eq!(
            proto::decode(bytes),
            Ok(Arrival::Message(message)),
            "{name}"
        );
    }
}

#[test]
fn frames_are_as_written_down_and_are_understood() {
    let want = |part| {
        Frame::Want(Want {
            content: ContentId([0xc0; 32]),
            path: path("a/b.bin"),
            size: 10_000_000,
            part,
            class: Class::Bulk,
        })
    };
    let packed = Frame::Packed {
        plain: 1000,
        bytes: Bytes::from_static(b"xyz"),
    };
    let nodes = Wanted::Nodes(vec![[0xa1; 6], [0xa2; 6]]);
    let ranges = Wanted::Ranges(vec![0..65_536, 9_000_000..10_000_000]);
    let delta = Wanted::Delta {
        stretch: 65_536..165_536,
        old: vec![[0xf1; 8], [0xf2; 8]],
    };
    let frames = [
        ("want", Class::Bulk, want(Wanted::From(65_536))),
        ("want-top", Class::Bulk, want(Wanted::Nodes(Vec::new()))),
        ("want-nodes", Class::Bulk, want(nodes)),
        ("want-ranges", Class::Bulk, want(ranges)),
        ("want-delta", Class::Bulk, want(delta)),
        ("data", Class::Bulk, Frame::Data(Bytes::from_static(b"abc"))),
        ("packed", Class::File, packed),
        ("end-complete", Class::Bulk, Frame::End(Outcome::Complete)),
        ("end-missing", Class::Bulk, Frame::End(Outcome::Missing)),
        ("end-changed", Class::Bulk, Frame::End(Outcome::Changed)),
        ("end-failed", Class::Bulk, Frame::End(Outcome::Failed)),
        ("cancel", Class::Interactive, Frame::Cancel),
        ("credit", Class::Urgent, Frame::Credit(131_072)),
        ("frame-ping", Class::Urgent, Frame::Ping),
        ("frame-pong", Class::Urgent, Frame::Pong),
    ];
    let mut all = Vec::new();
    for (name, class, frame) in frames {
        let mut out = BytesMut::new();
        let stream = if name.starts_with("frame") { 0 } else { 3 };
        frame.write(stream, class, &mut out);
        let header = Header::read(*out.first_chunk().unwrap());
        let payload = Bytes::copy_from_slice(&out[HEADER_BYTES..]);
        assert_eq!(Frame::read(header, payload), Ok(Some(frame)));
        all.push((name, hex(&out)));
    }
    compare(&all);
}

#[test]
fn names_of_devices_and_purposes_are_as_written_down() {
    let id = DeviceId([0xd1; 32]);
    assert!(DOCUMENT.contains(&format!("`{id}`")), "{id}");
    assert!(DOCUMENT.contains(&format!("`{}`", id.fingerprint())));
    for purpose in Purpose::ALL {
        let alpn = std::str::from_utf8(purpose.alpn()).unwrap();
        assert!(DOCUMENT.contains(&format!("`{alpn}`")), "{alpn}");
    }
    let ready = std::str::from_utf8(crate::pipe::READY).unwrap().trim_end();
    assert!(DOCUMENT.contains(&format!("`{ready}`")), "{ready}");
}

#[test]
fn confirmations_of_pairing_are_as_written_down() {
    let (joiner, inviter) = crate::pairing::example();
    compare(&[
        ("confirm-joiner", hex(&joiner)),
        ("confirm-inviter", hex(&inviter)),
    ]);
}

#[test]
fn the_schema_is_the_one_that_is_written_down() {
    let schema = include_str!("../proto/instep/v1/sync.proto");
    for line in schema.lines().filter(|line| line.contains(" = ")) {
        let field = line
            .split('=')
            .next()
            .and_then(|f| f.split_whitespace().last());
        let field = field.unwrap();
        if !line.starts_with("syntax") {
            assert!(DOCUMENT.contains(&format!("`{field}`")), "field {field}");
        }
    }
}
