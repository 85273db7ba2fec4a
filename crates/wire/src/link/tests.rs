//! Links within this process.

use std::time::Duration;

use instep_core::id::{ActorId, ContentId, ReplicaId, ShareId};
use instep_core::path::RelPath;
use tokio::sync::Notify;

use super::*;
use crate::frame::{Class, Outcome};
use crate::message::{Hello, Row, Versions};
use crate::streams::{FetchError, Piece};
use crate::want::{Want, Wanted};

const SOON: Duration = Duration::from_secs(20);

fn hello() -> Message {
    let hello = Hello::new(ShareId([1; 16]), ReplicaId([2; 16]), ActorId([3; 8]));
    Message::Hello(Box::new(hello))
}

fn row(path: &str, inline: &[u8]) -> Row {
    Row {
        path: RelPath::new(path.as_bytes()).unwrap(),
        row: Some(Bytes::from_static(b"a row")),
        inline: Some(Bytes::copy_from_slice(inline)),
    }
}

fn same(n: u64) -> Message {
    let path = RelPath::new(format!("f{n}").as_bytes()).unwrap();
    Message::Same(vec![(path, u128::from(n))])
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
        a.send(&Message::Rows(rows)).unwrap();
        b.send(&same(seq)).unwrap();
    }
    for seq in 0..200 {
        let rows = vec![row("a/b", b"content")];
        let expected = Message::Rows(rows);
        assert_eq!(b.recv(SOON).unwrap(), Some(expected));
        assert_eq!(a.recv(SOON).unwrap(), Some(same(seq)));
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
        a.send(&same(seq)).unwrap();
    }
    a.close("stopped");
    for seq in 0..50 {
        assert_eq!(b.recv(SOON).unwrap(), Some(same(seq)));
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
    a.send(&same(1)).unwrap();
    assert!(matches!(b.recv(SOON), Err(LinkError::Violation(_))));
    let refused = a.recv(SOON);
    assert!(matches!(refused, Err(LinkError::Refused { code, .. }) if code == "violation"));
}

#[test]
fn what_is_beyond_a_limit_is_not_sent_and_the_link_goes_on() {
    let (a, b) = greeted();
    let big = row("a", &vec![0; limits::INLINE_BYTES_MAX + 1]);
    assert!(matches!(
        a.send(&Message::Rows(vec![big])),
        Err(LinkError::Unsendable(_))
    ));
    a.send(&Message::Ping(5)).unwrap();
    assert_eq!(b.recv(SOON).unwrap(), Some(Message::Ping(5)));
}

#[test]
fn whoever_is_not_received_waits_and_uses_no_more_memory() {
    let (a, b) = greeted();
    let rows = vec![row("a", &vec![0; limits::INLINE_BYTES_MAX])];
    let message = Encoded::new(&Message::Rows(rows)).unwrap();
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

fn want(size: u64, offset: u64) -> Want {
    Want {
        content: ContentId([4; 32]),
        path: RelPath::new(b"a/big").unwrap(),
        size,
        part: Wanted::From(offset),
        class: Class::of_size(size),
    }
}

/// Bytes that are nowhere the same.
fn content(size: usize) -> Bytes {
    (0..size).map(|at| (at * 31 + at / 251) as u8).collect()
}

/// Answers wants with a content until the link ends.
fn answering(link: Link, content: Bytes) -> std::thread::JoinHandle<Link> {
    std::thread::spawn(move || {
        loop {
            match link.asked(SOON) {
                Ok(Some(mut asked)) => {
                    let Wanted::From(at) = asked.want.part else {
                        panic!("{:?}", asked.want)
                    };
                    let mut at = at as usize;
                    let all = content.len();
                    while at < all {
                        let to = all.min(at + 100_000);
                        if asked.write(content.slice(at..to)).is_err() {
                            break;
                        }
                        at = to;
                    }
                    asked.finish(Outcome::Complete);
                }
                Ok(None) => panic!("nobody asked"),
                Err(_) => return link,
            }
        }
    })
}

fn read_all(fetch: &mut Fetch) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    std::io::Read::read_to_end(fetch, &mut all)?;
    Ok(all)
}

#[test]
fn ten_megabytes_arrive_whichever_end_asks() {
    let content = content(10_000_000);
    for turned in [false, true] {
        let (mut a, mut b) = greeted();
        if turned {
            std::mem::swap(&mut a, &mut b);
        }
        let answers = answering(b, content.clone());
        let mut fetch = a.ask(want(10_000_000, 0)).unwrap();
        assert!(read_all(&mut fetch).unwrap() == content);
        assert_eq!(fetch.reached(), 10_000_000);
        let mut fetch = a.ask(want(10_000_000, 9_999_000)).unwrap();
        assert!(read_all(&mut fetch).unwrap() == content[9_999_000..]);
        drop(fetch);
        drop(a);
        answers.join().unwrap();
    }
}

#[test]
fn a_content_that_is_not_read_holds_up_no_other() {
    let size = 3_000_000;
    let content = content(size);
    let (a, b) = greeted();
    let b = Arc::new(b);
    let answers: Vec<_> = (0..8)
        .map(|_| {
            let (b, content) = (Arc::clone(&b), content.clone());
            std::thread::spawn(move || {
                let mut asked = b.asked(SOON).unwrap().unwrap();
                for piece in content.chunks(50_000) {
                    if asked.write(Bytes::copy_from_slice(piece)).is_err() {
                        return;
                    }
                }
                asked.finish(Outcome::Complete);
            })
        })
        .collect();
    let mut fetches: Vec<Fetch> = (0..8)
        .map(|_| a.ask(want(size as u64, 0)).unwrap())
        .collect();
    // The last one first, while the seven before it fill their windows.
    while let Some(mut fetch) = fetches.pop() {
        assert!(read_all(&mut fetch).unwrap() == content);
    }
    answers.into_iter().for_each(|a| a.join().unwrap());
}

#[test]
fn how_a_content_ended_is_told() {
    let (a, b) = greeted();
    let answers = std::thread::spawn(move || {
        let next = || b.asked(SOON).unwrap().unwrap();
        next().finish(Outcome::Missing);
        next().finish(Outcome::Changed);
        drop(next());
        let mut short = next();
        short.write(Bytes::from_static(b"abc")).unwrap();
        short.finish(Outcome::Complete);
        b
    });
    for expected in [
        FetchError::Missing,
        FetchError::Changed,
        FetchError::Failed,
        FetchError::Changed,
    ] {
        let mut fetch = a.ask(want(10, 0)).unwrap();
        let end = loop {
            match fetch.next_piece() {
                Ok(Some(_)) => {}
                end => break end,
            }
        };
        assert_eq!(end, Err(expected));
    }
    answers.join().unwrap();
}

#[test]
fn a_content_that_nobody_reads_any_more_is_not_sent_any_more() {
    let (a, b) = greeted();
    let fetch = a.ask(want(1 << 40, 0)).unwrap();
    let mut asked = b.asked(SOON).unwrap().unwrap();
    asked.write(Bytes::from_static(b"abc")).unwrap();
    drop(fetch);
    let piece = Bytes::from(vec![0; 100_000]);
    let end = loop {
        if let Err(e) = asked.write(piece.clone()) {
            break e;
        }
    };
    assert_eq!(end, FetchError::Cancelled);
    drop(asked);
    let mut again = a.ask(want(3, 0)).unwrap();
    let mut asked = b.asked(SOON).unwrap().unwrap();
    asked.write(Bytes::from_static(b"xyz")).unwrap();
    asked.finish(Outcome::Complete);
    assert_eq!(read_all(&mut again).unwrap(), b"xyz");
}

#[test]
fn compressed_pieces_travel_whole_and_count_as_what_they_stand_for() {
    let (a, b) = greeted();
    let piece = Piece {
        bytes: Bytes::from(vec![7; limits::WINDOW_BYTES as usize]),
        packed: Some(1_000_000),
    };
    let mut fetch = a.ask(want(2_000_000, 0)).unwrap();
    let sent = piece.clone();
    let answer = std::thread::spawn(move || {
        let mut asked = b.asked(SOON).unwrap().unwrap();
        asked.write_piece(sent.clone()).unwrap();
        asked.write_piece(sent).unwrap();
        asked.finish(Outcome::Complete);
        b
    });
    assert_eq!(fetch.next_piece(), Ok(Some(piece.clone())));
    assert_eq!(fetch.reached(), 1_000_000);
    assert_eq!(fetch.next_piece(), Ok(Some(piece)));
    assert_eq!(fetch.next_piece(), Ok(None));
    answer.join().unwrap();
}

#[test]
fn a_reader_does_not_wait_for_a_link_that_is_over() {
    let (a, b) = greeted();
    let mut fetch = a.ask(want(1 << 30, 0)).unwrap();
    let mut asked = b.asked(SOON).unwrap().unwrap();
    asked.write(Bytes::from_static(b"abc")).unwrap();
    assert_eq!(fetch.next_piece().unwrap().unwrap().bytes, &b"abc"[..]);
    let reader = std::thread::spawn(move || fetch.next_piece());
    b.close("gone");
    let closed = LinkError::Closed {
        code: String::from("gone"),
    };
    assert_eq!(
        reader.join().unwrap(),
        Err(FetchError::Link(closed.clone()))
    );
    assert_eq!(a.ask(want(1, 0)).err(), Some(closed.clone()));
    assert_eq!(a.asked(SOON).err(), Some(closed));
}

/// Passes bytes on until it is told to freeze; then both ends stay open and nothing passes any more.
async fn relay(near: tokio::io::DuplexStream, far: tokio::io::DuplexStream, freeze: Arc<Notify>) {
    let (mut near, mut far) = (near, far);
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
        () = freeze.notified() => std::future::pending().await,
    }
}

#[test]
fn a_far_end_that_is_silent_for_ever_is_lost_and_no_hang() {
    let pace = Pace {
        keepalive: Duration::from_millis(100),
        answer: Duration::from_millis(100),
    };
    let freeze = Arc::new(Notify::new());
    let stopped = Arc::clone(&freeze);
    let peer = || Peer {
        device: None,
        address: String::from("far"),
    };
    let (a, b) = wait(async {
        let (one, near) = tokio::io::duplex(100_000);
        let (far, two) = tokio::io::duplex(100_000);
        tokio::spawn(relay(near, far, stopped));
        tokio::try_join!(
            call(one, peer(), pace, None),
            accept(two, peer(), pace, |_, _| {})
        )
    })
    .unwrap();
    a.send(&hello()).unwrap();
    b.send(&hello()).unwrap();
    assert!(a.recv(SOON).unwrap().is_some() && b.recv(SOON).unwrap().is_some());
    let mut fetch = a.ask(want(1 << 30, 0)).unwrap();
    let asked = b.asked(SOON).unwrap();
    // Silent for longer than the pace, and yet there.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!((a.ended(), b.ended()), (None, None));
    freeze.notify_one();
    assert!(matches!(a.recv(SOON), Err(LinkError::Lost(_))));
    assert!(matches!(b.recv(SOON), Err(LinkError::Lost(_))));
    assert!(matches!(
        fetch.next_piece(),
        Err(FetchError::Link(LinkError::Lost(_)))
    ));
    assert!(matches!(a.send(&Message::Ping(1)), Err(LinkError::Lost(_))));
    drop(asked);
}
