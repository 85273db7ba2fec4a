//! Messages that survive, and bytes that nobody honest sends.

use proptest::prelude::*;

use super::*;

fn dot(counter: u64) -> Dot {
    Dot {
        actor: ActorId([7; 8]),
        counter,
    }
}

fn path(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).unwrap()
}

fn row(at: &str) -> Row {
    Row {
        path: path(at),
        row: Some(Bytes::from_static(b"as in the index")),
        inline: Some(Bytes::from_static(b"abc")),
    }
}

fn every_kind() -> Vec<Message> {
    let mut hello = Hello::new(ShareId([1; 16]), ReplicaId([2; 16]), ActorId([3; 8]));
    hello.counter = 99;
    hello.head = [4; 32];
    hello.label = String::from("laptop");
    hello.role = String::from("give-and-take");
    hello.machine = String::from("ABC");
    hello.mirror = [5; 32];
    hello.share_name = String::from("photos");
    hello.knows = vec![dot(1), dot(2)];
    let node = Node {
        depth: 2,
        digits: 0xab,
    };
    let part = |rows| Part { node, rows };
    vec![
        Message::Hello(Box::new(hello)),
        Message::Refused {
            code: String::from("unknown-share"),
            detail: String::from("no such share"),
        },
        Message::Rows(vec![
            row("a/b"),
            Row {
                row: None,
                inline: None,
                ..row("é")
            },
            Row {
                row: Some(Bytes::new()),
                inline: Some(Bytes::new()),
                ..row("empty")
            },
        ]),
        Message::Same(vec![(path("a"), 5), (path("b"), u128::MAX)]),
        Message::Digests(Digests {
            node,
            children: (0..16).collect(),
            rows: 200_000,
        }),
        Message::Wanted(vec![part(true), part(false)]),
        Message::Complete(vec![node]),
        Message::Rest { heard: 7 },
        Message::Moved(Moved {
            from: path("old"),
            to: path("new/name"),
            actor: ActorId([1; 8]),
            first_counter: 5,
            count: 6,
            digest: [2; 32],
        }),
        Message::Record(Record {
            book: 2,
            key: String::from("k"),
            body: Some(String::from("{}")),
        }),
        Message::Record(Record {
            book: 0,
            key: String::new(),
            body: None,
        }),
        Message::Status(String::from("{\"problems\":0}")),
        Message::Ping(1),
        Message::Pong(u64::MAX),
        Message::Bye {
            code: String::from("done"),
        },
    ]
}

#[test]
fn every_message_survives_its_bytes() {
    for message in every_kind() {
        let bytes = encode(&message).unwrap();
        assert_eq!(decode(bytes), Ok(Arrival::Message(message)));
    }
    assert_eq!(decode(encode_open_bulk()), Ok(Arrival::OpenBulk));
}

fn sent(kind: Kind) -> Result<Arrival> {
    let kind = Some(kind);
    decode(Bytes::from(v1::Envelope { kind }.encode_to_vec()))
}

fn raw_row(path: &'static [u8]) -> v1::Row {
    let mut row = put_row(&row("x")).unwrap();
    row.path = Bytes::from_static(path);
    row
}

#[test]
fn names_that_lead_out_of_the_tree_are_refused() {
    for bad in [
        &b"../etc"[..],
        b"a/../../b",
        b"/etc/passwd",
        b"a//b",
        b"a/",
        b"a\0b",
        b".",
        b".instep/index.db",
    ] {
        let rows = vec![raw_row(bad)];
        let rows = sent(Kind::Rows(v1::Rows { rows }));
        assert_eq!(rows, Err(ProtoError::Invalid("path")), "{bad:?}");
        let moved = put_moved(&Moved {
            from: path("a"),
            to: path("b"),
            actor: ActorId([1; 8]),
            first_counter: 1,
            count: 1,
            digest: [0; 32],
        });
        let to = Bytes::from_static(bad);
        let moved = sent(Kind::Moved(v1::Moved { to, ..moved }));
        assert_eq!(moved, Err(ProtoError::Invalid("path")), "{bad:?}");
    }
    let deep = Bytes::from(b"a/".repeat(5000));
    let row = v1::Row {
        path: deep,
        ..raw_row(b"")
    };
    let rows = sent(Kind::Rows(v1::Rows { rows: vec![row] }));
    assert_eq!(rows, Err(ProtoError::Invalid("path")));
}

#[test]
fn a_flood_of_tiny_items_is_refused_before_any_is_made() {
    // Two bytes each on the wire.
    let rows = [0x0a, 0].repeat(500_000);
    let mut envelope = vec![0x1a];
    prost::encode_length_delimiter(rows.len(), &mut envelope).unwrap();
    envelope.extend_from_slice(&rows);
    let refused = Err(ProtoError::TooBig("items of a message"));
    assert_eq!(screen(&envelope), refused);
    assert_eq!(decode(Bytes::from(envelope)).map(|_| ()), refused);
    // The same as many messages of one envelope, which add up.
    let few = [&[0x1a, 0x80, 0x01][..], &[0x0a, 0].repeat(64)]
        .concat()
        .repeat(100);
    assert_eq!(screen(&few), refused);
    // Fields that no kind has so often.
    let mut bye = vec![0x62];
    let codes = [0x0a, 0].repeat(10_000);
    prost::encode_length_delimiter(codes.len(), &mut bye).unwrap();
    bye.extend_from_slice(&codes);
    assert_eq!(decode(Bytes::from(bye)).map(|_| ()), refused);
    let many = vec![dot(1); limits::ITEMS_MAX + 1];
    let hello = Hello {
        knows: many,
        ..Hello::new(ShareId([1; 16]), ReplicaId([2; 16]), ActorId([3; 8]))
    };
    assert!(encode(&Message::Hello(Box::new(hello))).is_err());
}

#[test]
fn as_many_items_as_are_allowed_arrive() {
    let rows = (0..limits::ITEMS_MAX).map(|n| (path(&format!("{n:05}")), n as u128));
    let message = Message::Same(rows.collect());
    let bytes = encode(&message).unwrap();
    assert_eq!(decode(bytes), Ok(Arrival::Message(message)));
}

#[test]
fn forged_counters_are_refused() {
    let hello = v1::Hello {
        counter: u64::MAX,
        ..v1::Hello::default()
    };
    assert_eq!(
        sent(Kind::Hello(hello)),
        Err(ProtoError::Invalid("counter"))
    );
    let moved = v1::Moved {
        first_counter: 2,
        count: u64::MAX,
        ..v1::Moved::default()
    };
    assert_eq!(
        sent(Kind::Moved(moved)),
        Err(ProtoError::Invalid("counter"))
    );
}

#[test]
fn identities_of_a_wrong_length_are_refused() {
    let hello = v1::Hello {
        actor: Bytes::from_static(b"seven.."),
        ..v1::Hello::default()
    };
    assert_eq!(sent(Kind::Hello(hello)), Err(ProtoError::Invalid("actor")));
}

#[test]
fn another_number_of_digests_than_sixteen_is_refused() {
    for bytes in [0, 15, 240, 255, 257, 272] {
        let digests = v1::Digests {
            children: Bytes::from(vec![7; bytes]),
            ..v1::Digests::default()
        };
        let refused = sent(Kind::Digests(digests));
        assert_eq!(refused, Err(ProtoError::Invalid("number of digests")));
    }
}

#[test]
fn what_a_later_version_says_is_skipped() {
    // A kind with number 99, and a field with number 15 inside a ping.
    let unknown = Bytes::from_static(&[0x9a, 0x06, 2, 1, 2]);
    assert_eq!(decode(unknown), Ok(Arrival::Unknown));
    let ping = Bytes::from_static(&[0x52, 4, 0x08, 5, 0x78, 9]);
    assert_eq!(decode(ping), Ok(Arrival::Message(Message::Ping(5))));
}

#[test]
fn more_bytes_than_a_message_may_have_are_neither_sent_nor_taken() {
    let big = Bytes::from(vec![0; limits::INLINE_BYTES_MAX]);
    let rows = (0..17).map(|n| Row {
        inline: Some(big.clone()),
        ..row(&n.to_string())
    });
    let rows = Message::Rows(rows.collect());
    assert_eq!(encode(&rows), Err(ProtoError::TooBig("bytes of a message")));
    let long = Bytes::from(vec![0; limits::MESSAGE_BYTES_MAX + 1]);
    assert_eq!(decode(long), Err(ProtoError::TooBig("bytes of a message")));
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes: Vec<u8>) {
        if let Ok(Arrival::Message(message)) = decode(Bytes::from(bytes)) {
            let again = decode(encode(&message).unwrap());
            prop_assert_eq!(again, Ok(Arrival::Message(message)));
        }
    }

    #[test]
    fn a_damaged_message_is_a_message_or_an_error(
        which in 0..15usize, at: prop::sample::Index, to: u8, cut: prop::sample::Index
    ) {
        let mut bytes = encode(&every_kind()[which]).unwrap().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = to;
        bytes.truncate(cut.index(bytes.len()) + 1);
        if let Ok(Arrival::Message(message)) = decode(Bytes::from(bytes)) {
            prop_assert!(encode(&message).is_ok());
        }
    }
}
