//! Links within this process.

use std::time::Duration;

use instep_core::entry::Entry;
use instep_core::id::{ActorId, ContentId, Dot, ReplicaId, ShareId};
use instep_core::path::RelPath;
use instep_core::time::Mtime;
use instep_core::version::{Kind, Version};

use super::*;
use crate::message::{Hello, Row, Rows, Versions};

const SOON: Duration = Duration::from_secs(20);

fn hello() -> Message {
    let hello = Hello::new(ShareId([1; 16]), ReplicaId([2; 16]), ActorId([3; 8]));
    Message::Hello(Box::new(hello))
}

fn row(path: &str, inline: &[u8]) -> Row {
    let dot = Dot {
        actor: ActorId([7; 8]),
        counter: 3,
    };
    let version = Version {
        kind: Kind::File,
        content: ContentId([9; 32]),
        size: inline.len() as u64,
        mode: 0o644,
        mtime: Mtime { secs: 5, nanos: 6 },
        te: 7,
        mode_te: 7,
        attributes: None,
        target: Box::default(),
        prev: Vec::new(),
        moved: None,
        meta_only: false,
        policy_epoch: 0,
    };
    Row {
        path: RelPath::new(path.as_bytes()).unwrap(),
        entry: Entry::first(dot, version),
        shown: Some(dot),
        held: 0,
        inline: Some(Bytes::copy_from_slice(inline)),
    }
}

/// A pair that has greeted.
fn greeted() -> (Link, Link) {
    let (a, b) = Link::pair().unwrap();
    a.send(&hello()).unwrap();
    b.send(&hello()).unwrap();
    assert_eq!(a.recv(SOON).unwrap(), Some(hello()));
    assert_eq!(b.recv(SOON).unwrap(), Some(hello()));
    (a, b)
}

#[test]
fn messages_arrive_in_order_on_both_ends() {
    let (a, b) = greeted();
    for seq in 0..200 {
        let rows = vec![row("a/b", b"content")];
        a.send(&Message::Rows(Rows { rows, seq })).unwrap();
        b.send(&Message::Seen { seq }).unwrap();
    }
    for seq in 0..200 {
        let rows = vec![row("a/b", b"content")];
        let expected = Message::Rows(Rows { rows, seq });
        assert_eq!(b.recv(SOON).unwrap(), Some(expected));
        assert_eq!(a.recv(SOON).unwrap(), Some(Message::Seen { seq }));
    }
}

#[test]
fn nothing_within_the_time_is_no_end() {
    let (a, b) = greeted();
    assert_eq!(a.recv(Duration::from_millis(1)).unwrap(), None);
    b.send(&Message::Ping(4)).unwrap();
    assert_eq!(a.recv(SOON).unwrap(), Some(Message::Ping(4)));
    assert_eq!(b.recv(SOON).unwrap(), Some(Message::Pong(4)));
}

#[test]
fn what_was_sent_before_a_goodbye_is_received_before_it() {
    let (a, b) = greeted();
    for seq in 0..50 {
        a.send(&Message::Seen { seq }).unwrap();
    }
    a.close("stopped");
    for seq in 0..50 {
        assert_eq!(b.recv(SOON).unwrap(), Some(Message::Seen { seq }));
    }
    let closed = LinkError::Closed {
        code: String::from("stopped"),
    };
    assert_eq!(b.recv(SOON), Err(closed.clone()));
    assert_eq!(b.recv(SOON), Err(closed.clone()));
    assert_eq!(b.send(&Message::Ping(1)), Err(closed.clone()));
    assert_eq!(a.send(&Message::Ping(1)), Err(closed));
}

#[test]
fn a_link_that_is_dropped_ends_the_other() {
    let (a, b) = greeted();
    drop(b);
    assert!(matches!(a.recv(SOON), Err(LinkError::Closed { .. })));
}

#[test]
fn a_refusal_is_received_with_its_reason() {
    let (a, b) = Link::pair().unwrap();
    a.send(&hello()).unwrap();
    assert_eq!(b.recv(SOON).unwrap(), Some(hello()));
    b.refuse("unknown-share", "there is no share \"x\" here");
    let refused = LinkError::Refused {
        code: String::from("unknown-share"),
        detail: String::from("there is no share \"x\" here"),
    };
    assert_eq!(a.recv(SOON), Err(refused));
}

#[test]
fn versions_that_do_not_meet_are_named_on_both_ends() {
    let (a, b) = Link::pair().unwrap();
    let newer = Versions { min: 7, max: 9 };
    let Message::Hello(mut hello) = hello() else {
        unreachable!()
    };
    hello.versions = newer;
    a.send(&Message::Hello(hello)).unwrap();
    let ours = Versions::OURS;
    let expected = LinkError::Incompatible {
        ours,
        theirs: newer,
    };
    assert_eq!(b.recv(SOON), Err(expected));
    // In the place of the program of the future, which knows what it said.
    let expected = Err(LinkError::Refused {
        code: String::from("incompatible"),
        detail: String::from("the far end speaks protocol 7 to 9, this program 1"),
    });
    let first = a.recv(SOON).unwrap();
    assert!(matches!(first, Some(Message::Hello(h)) if h.versions == ours));
    assert_eq!(a.recv(SOON), expected);
}

#[test]
fn rows_without_a_greeting_end_the_link() {
    let (a, b) = Link::pair().unwrap();
    a.send(&Message::Seen { seq: 1 }).unwrap();
    assert!(matches!(b.recv(SOON), Err(LinkError::Violation(_))));
    let refused = a.recv(SOON);
    assert!(matches!(refused, Err(LinkError::Refused { code, .. }) if code == "violation"));
}

#[test]
fn what_is_beyond_a_limit_is_not_sent_and_the_link_goes_on() {
    let (a, b) = greeted();
    let big = row("a", &vec![0; limits::INLINE_BYTES_MAX + 1]);
    let rows = Rows {
        rows: vec![big],
        seq: 1,
    };
    assert!(matches!(
        a.send(&Message::Rows(rows)),
        Err(LinkError::Unsendable(_))
    ));
    a.send(&Message::Ping(5)).unwrap();
    assert_eq!(b.recv(SOON).unwrap(), Some(Message::Ping(5)));
}

#[test]
fn whoever_is_not_received_waits_and_uses_no_more_memory() {
    let (a, b) = greeted();
    let rows = vec![row("a", &vec![0; limits::INLINE_BYTES_MAX])];
    let message = Encoded::new(&Message::Rows(Rows { rows, seq: 0 })).unwrap();
    let mut sent = 0;
    while a.try_send(&message).unwrap() || {
        // The queue may be full only until the tasks have moved on.
        std::thread::sleep(Duration::from_millis(100));
        a.try_send(&message).unwrap()
    } {
        sent += message.bytes();
    }
    let most = limits::INBOX_BYTES_MAX
        + limits::STREAM_WINDOW as usize
        + limits::SEND_BUFFER_BYTES
        + (limits::OUTBOX_MESSAGES_MAX + 8) * message.bytes();
    assert!(sent < most, "{sent} of at most {most}");
    assert!(b.recv(SOON).unwrap().is_some());
}
