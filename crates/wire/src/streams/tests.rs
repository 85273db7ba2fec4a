//! Two ends in one thread, and far ends that keep no rule.

use proptest::prelude::*;

use super::*;
use crate::frame::HEADER_BYTES;

const NOW: Duration = Duration::ZERO;

fn want(size: u64) -> Want {
    Want {
        content: ContentId([4; 32]),
        path: RelPath::new(b"a").unwrap(),
        size,
        part: Wanted::From(0),
        class: Class::of_size(size),
    }
}

fn plain(len: usize) -> Piece {
    Piece {
        bytes: Bytes::from(vec![1; len]),
        packed: None,
    }
}

/// One frame from one end to the other; false when there was none.
fn pass(from: &mut Streams, to: &mut Streams) -> bool {
    let mut out = BytesMut::new();
    if !from.next(NOW, 100_000, &mut out) {
        return false;
    }
    let header = Header::read(*out.first_chunk().unwrap());
    to.expects(header).unwrap();
    let frame = Frame::read(header, out.freeze().slice(HEADER_BYTES..)).unwrap();
    to.take(header.stream, frame.unwrap(), NOW).unwrap();
    true
}

/// A content of this size that is on its way from `b` to `a`.
fn asked(size: u64) -> (Streams, Streams, u32) {
    let (mut a, mut b) = (Streams::new(true), Streams::new(false));
    let stream = a.ask(want(size)).unwrap();
    while pass(&mut a, &mut b) {}
    assert_eq!(b.answer().unwrap().0, stream);
    (a, b, stream)
}

#[test]
fn no_more_is_sent_than_there_is_credit_for_and_reading_gives_more() {
    let (mut a, mut b, stream) = asked(10_000_000);
    let mut sent = 0;
    while b.write(stream, plain(100_000)).unwrap().is_none() {
        sent += 100_000;
    }
    assert_eq!(sent, 600_000);
    while pass(&mut b, &mut a) {}
    let arrived =
        |a: &Streams| -> u64 { a.incoming[&stream].pieces.iter().map(Piece::plain).sum() };
    assert_eq!(arrived(&a), limits::WINDOW_BYTES);
    while let Some(Ok(Some(_))) = a.read(stream) {}
    while pass(&mut a, &mut b) {}
    while pass(&mut b, &mut a) {}
    assert!(
        arrived(&a) > limits::WINDOW_BYTES,
        "a fast reader gets a wider window"
    );
}

#[test]
fn windows_stay_within_the_budget_of_a_link_and_give_it_back() {
    let (mut a, mut b) = (Streams::new(true), Streams::new(false));
    let before = BUDGET.load(Ordering::Relaxed);
    let streams: Vec<u32> = (0..20).map(|_| a.ask(want(1 << 40)).unwrap()).collect();
    while pass(&mut a, &mut b) {}
    for _ in 0..400 {
        for stream in &streams {
            while b.write(*stream, plain(100_000)).unwrap().is_none() {}
        }
        while pass(&mut b, &mut a) {
            for stream in &streams {
                while let Some(Ok(Some(_))) = a.read(*stream) {}
            }
            while pass(&mut a, &mut b) {}
        }
    }
    assert!(a.extra > limits::LINK_BUDGET_BYTES / 2);
    assert!(a.extra <= limits::LINK_BUDGET_BYTES);
    streams.iter().for_each(|stream| a.leave(*stream));
    assert_eq!(a.extra, 0);
    drop(a);
    // Other tests use the same budget, and give back what they took as well.
    assert!(BUDGET.load(Ordering::Relaxed) + limits::LINK_BUDGET_BYTES >= before);
}

#[test]
fn data_without_credit_is_noticed_by_the_header_alone() {
    let (a, _, stream) = asked(10_000_000);
    let header = |len| Header {
        len,
        class: 2,
        kind: DATA,
        stream,
    };
    assert_eq!(a.expects(header(limits::WINDOW_BYTES as u32)), Ok(()));
    assert!(
        a.expects(header(limits::WINDOW_BYTES as u32 + 100))
            .is_err()
    );
}

#[test]
fn what_no_honest_program_sends_is_noticed() {
    let data = |n: usize| Frame::Data(Bytes::from(vec![0; n]));
    let take = |frames: Vec<(u32, Frame)>| -> Judged<()> {
        let (mut a, _, _) = asked(1000);
        frames.into_iter().try_for_each(|(s, f)| a.take(s, f, NOW))
    };
    assert_eq!(
        take(vec![(1, data(1000)), (1, Frame::End(Outcome::Complete))]),
        Ok(())
    );
    assert!(take(vec![(1, data(1001))]).is_err(), "more than was wanted");
    assert!(take(vec![(3, data(1))]).is_err(), "never asked for");
    assert!(take(vec![(2, data(1))]).is_err(), "its own number");
    let end = || (1, Frame::End(Outcome::Failed));
    assert!(take(vec![end(), end()]).is_err(), "two ends");
    assert!(
        take(vec![end(), (1, data(1))]).is_err(),
        "data after the end"
    );
    assert!(
        take(vec![(9, Frame::End(Outcome::Complete))]).is_err(),
        "the end of nothing"
    );
    let packed = Frame::Packed {
        plain: 2000,
        bytes: Bytes::from_static(b"x"),
    };
    assert!(
        take(vec![(1, packed)]).is_err(),
        "stands for more than was wanted"
    );
    assert!(take(vec![(3, Frame::Want(want(1)))]).is_err(), "our number");
    let wants = |numbers: &[u32]| {
        let all = numbers.iter().map(|n| (*n, Frame::Want(want(1))));
        take(all.collect())
    };
    assert_eq!(wants(&[2, 4, 8]), Ok(()));
    assert!(wants(&[4, 2]).is_err(), "a number twice");
    let many: Vec<u32> = (1..=limits::WANTS_MAX as u32 + 1).map(|n| n * 2).collect();
    assert_eq!(wants(&many[1..]), Ok(()));
    assert!(wants(&many).is_err(), "too many at a time");
    let credit = |n| (2, Frame::Credit(n));
    let first = (2, Frame::Want(want(1)));
    assert!(
        take(vec![first, credit(1 << 30), credit(1 << 30)]).is_err(),
        "absurd credit"
    );
}

#[test]
fn an_answer_of_no_certain_length_ends_anywhere_up_to_its_most() {
    let ask = |part| {
        let mut a = Streams::new(true);
        let want = Want {
            part,
            ..want(1_000_000)
        };
        let most = want.bytes_max();
        (a.ask(want).unwrap(), a, most as usize)
    };
    let data = |n: usize| Frame::Data(Bytes::from(vec![0; n]));
    let ended = |part, bytes| {
        let (stream, mut a, _) = ask(part);
        a.take(stream, data(bytes), NOW).unwrap();
        a.take(stream, Frame::End(Outcome::Complete), NOW).unwrap();
        while let Some(Ok(Some(_))) = a.read(stream) {}
        a.read(stream)
    };
    let (nodes, ranges) = (Wanted::Nodes(vec![]), Wanted::Ranges(vec![3..5, 7..8]));
    assert_eq!(ended(nodes.clone(), 10), Some(Ok(None)));
    assert_eq!(ended(ranges.clone(), 3), Some(Ok(None)));
    assert_eq!(ended(ranges.clone(), 2), Some(Err(FetchError::Changed)));
    for part in [nodes, ranges] {
        let (stream, mut a, most) = ask(part);
        assert_eq!(a.take(stream, data(most), NOW), Ok(()));
        assert!(a.take(stream, data(1), NOW).is_err());
    }
}

#[test]
fn frames_for_what_was_left_are_no_offence() {
    let (mut a, mut b, stream) = asked(1000);
    assert_eq!(b.write(stream, plain(1000)), Ok(None));
    a.leave(stream);
    while pass(&mut b, &mut a) {}
    while pass(&mut a, &mut b) {}
    assert_eq!(b.write(stream, plain(1)), Err(FetchError::Cancelled));
    b.finish(stream, Outcome::Complete);
    assert!(!pass(&mut b, &mut a));
}

#[test]
fn pings_are_answered_once_however_many_there_are() {
    let (mut a, mut b) = (Streams::new(true), Streams::new(false));
    for _ in 0..1000 {
        b.take(0, Frame::Ping, NOW).unwrap();
    }
    assert!(pass(&mut b, &mut a));
    assert!(!pass(&mut b, &mut a));
}

#[test]
fn a_want_that_was_cancelled_before_it_was_taken_up_is_not_taken_up() {
    let (mut a, mut b) = (Streams::new(true), Streams::new(false));
    let stream = a.ask(want(5)).unwrap();
    a.leave(stream);
    while pass(&mut a, &mut b) {}
    assert_eq!(b.answer(), None);
}

#[test]
fn whoever_asks_ahead_leaves_no_room_to_those_who_wait() {
    let mut a = Streams::new(true);
    while a.has_room_to_spare() {
        a.ask(want(1000)).unwrap();
    }
    assert_eq!(a.coming, limits::WANTS_MAX - limits::WANTS_SPARE);
    assert!(a.has_room());
}

#[test]
fn the_most_urgent_and_then_the_smallest_is_taken_up_first() {
    let (mut a, mut b) = (Streams::new(true), Streams::new(false));
    for size in [1 << 30, 3_000_000, 2_000_000, 100] {
        a.ask(want(size)).unwrap();
    }
    while pass(&mut a, &mut b) {}
    let order: Vec<u64> = std::iter::from_fn(|| b.answer().map(|(_, w)| w.size)).collect();
    assert_eq!(order, [100, 2_000_000, 3_000_000, 1 << 30]);
}

#[test]
fn contents_that_are_there_in_full_keep_no_other_from_being_asked_for() {
    let (mut a, mut b) = (Streams::new(true), Streams::new(false));
    let mut asked = 0;
    while a.has_room() {
        a.ask(want(1000)).unwrap();
        asked += 1;
    }
    assert_eq!(asked, limits::WANTS_MAX);
    let mut streams = Vec::new();
    while asked < limits::FETCHES_MAX {
        while pass(&mut a, &mut b) {}
        let (stream, _) = b.answer().unwrap();
        assert_eq!(b.write(stream, plain(1000)), Ok(None));
        b.finish(stream, Outcome::Complete);
        while pass(&mut b, &mut a) {}
        assert!(a.has_room(), "after {asked}");
        a.ask(want(1000)).unwrap();
        asked += 1;
        streams.push(stream);
    }
    assert!(!a.has_room());
    assert_eq!(a.unread, 1000 * streams.len() as u64);
    assert_eq!(a.read(streams[0]), Some(Ok(Some(plain(1000)))));
    streams.iter().for_each(|stream| a.leave(*stream));
    assert_eq!((a.unread, a.coming), (0, limits::WANTS_MAX));
}

#[test]
fn after_a_loss_numbers_are_not_used_again_and_what_had_arrived_can_be_read() {
    let (mut a, mut b, stream) = asked(1000);
    assert_eq!(b.write(stream, plain(10)), Ok(None));
    while pass(&mut b, &mut a) {}
    let lost = LinkError::Lost(String::from("x"));
    a.lose(&lost);
    b.lose(&lost);
    assert_eq!(a.read(stream), Some(Ok(Some(plain(10)))));
    assert_eq!(a.read(stream), Some(Err(FetchError::Link(lost))));
    assert_eq!(b.write(stream, plain(10)), Err(FetchError::Cancelled));
    let next = a.ask(want(7)).unwrap();
    assert!(next > stream);
    while pass(&mut a, &mut b) {}
    assert_eq!(b.answer().map(|(s, _)| s), Some(next));
}

proptest! {
    #[test]
    fn every_content_arrives_whole_whatever_the_order(
        sizes in prop::collection::vec(1..900_000u64, 1..8),
        steps in prop::collection::vec((0..4u8, any::<prop::sample::Index>(), 1..200_000usize), 0..400),
    ) {
        let (mut a, mut b) = (Streams::new(true), Streams::new(false));
        let streams: Vec<u32> = sizes.iter().map(|s| a.ask(want(*s)).unwrap()).collect();
        let mut written = vec![0u64; sizes.len()];
        let mut read = vec![0u64; sizes.len()];
        let mut turn = |kind: u8, at: usize, len: usize, a: &mut Streams, b: &mut Streams| {
            match kind {
                0 => { pass(a, b); }
                1 => { pass(b, a); }
                2 => {
                    let left = sizes[at] - written[at];
                    let piece = plain((len as u64).min(left) as usize);
                    let len = piece.plain();
                    if len > 0 && b.write(streams[at], piece) == Ok(None) {
                        written[at] += len;
                        if written[at] == sizes[at] {
                            b.finish(streams[at], Outcome::Complete);
                        }
                    }
                }
                _ => {
                    if let Some(Ok(Some(piece))) = a.read(streams[at]) {
                        read[at] += piece.plain();
                    }
                }
            }
            read.iter().sum::<u64>()
        };
        for (kind, at, len) in &steps {
            turn(*kind, at.index(sizes.len()), *len, &mut a, &mut b);
        }
        let all: u64 = sizes.iter().sum();
        let mut rounds = 0;
        loop {
            let mut done = 0;
            for at in 0..sizes.len() {
                for kind in [0, 2, 1, 1, 3] {
                    done = turn(kind, at, 150_000, &mut a, &mut b);
                }
            }
            if done == all {
                break;
            }
            rounds += 1;
            prop_assert!(rounds < 10_000, "stuck at {} of {}", done, all);
        }
        while pass(&mut b, &mut a) {}
        for stream in streams {
            prop_assert_eq!(a.read(stream), Some(Ok(None)));
        }
    }
}
