//! Paths and rows for the tests of the store: few names, chosen to sort around each other awkwardly.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use instep_core::attributes::{Attributes, Seen, Xattrs};
use instep_core::entry::Entry;
use instep_core::id::{ActorId, ContentId, Dot};
use instep_core::path::RelPath;
use instep_core::row::{Held, Print, Row};
use instep_core::time::Mtime;
use instep_core::version::{Kind, Version};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

pub(crate) fn path(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).unwrap()
}

pub(crate) fn dot(actor: u8, counter: u64) -> Dot {
    Dot {
        actor: ActorId([actor; 8]),
        counter,
    }
}

pub(crate) fn file(content: u8, te: i64) -> Version {
    Version {
        content: ContentId([content; 32]),
        size: 12_345,
        mode: 0o644,
        mtime: Mtime::from_nanos(te),
        te,
        mode_te: te,
        ..Version::bare(Kind::File)
    }
}

/// A row as a scan of an ordinary tree writes it.
pub(crate) fn scanned(n: u64) -> Row {
    let te = 1_780_000_000_000_000_000 + n as i64 * 977_123;
    let mut version = file(0, te);
    version.content = ContentId(std::array::from_fn(|i| (n >> (i % 8)) as u8 ^ i as u8));
    version.size = n * 31 % 200_000;
    let print = Print {
        ino: 1_000_000 + n,
        hash: n.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        mode: 0o644,
    };
    let dot = dot(7, n + 1);
    Row {
        entry: Entry::first(dot, version),
        shown: Some(dot),
        print: Some(print),
        seen: None,
        held: None,
        epoch: 3,
    }
}

pub(crate) fn any_path() -> impl Strategy<Value = RelPath> {
    let names: [&[u8]; 7] = [b"d", b"d.x", b"d0", b"d-", b"e", b"\x01", b"\xff\xfe"];
    let name = prop::sample::select(names.to_vec());
    vec(name, 0..4).prop_map(|names| RelPath::new(&names.join(&b'/')).unwrap())
}

pub(crate) fn any_row() -> impl Strategy<Value = Row> {
    let held = prop_oneof![
        Just(Held::Ignored),
        Just(Held::Special),
        Just(Held::UnsafeLink),
        Just(Held::NameClash),
        Just(Held::Mount),
    ];
    let print = (any::<u64>(), any::<u64>(), any::<u16>()).prop_map(|(ino, hash, mode)| Print {
        ino,
        hash,
        mode,
    });
    let siblings = vec((0..4_u8, 1..u64::MAX, any::<u8>(), any::<i64>()), 0..4);
    (
        siblings,
        0..6_usize,
        option::of(print),
        option::of(held),
        any::<u32>(),
        option::of((any::<bool>(), option::of(any::<u32>()))),
    )
        .prop_map(|(siblings, shown, print, held, epoch, seen)| {
            let entry = siblings
                .iter()
                .fold(Entry::default(), |e, (actor, counter, c, te)| {
                    e.merge(&Entry::first(dot(*actor, *counter), file(*c, *te)))
                });
            let shown = match shown {
                5 => Some(dot(9, 9)),
                i => entry.siblings().get(i).map(|(d, _)| *d),
            };
            Row {
                entry,
                shown,
                print,
                seen: seen.map(|(has_xattrs, refused_to)| {
                    let xattrs = has_xattrs.then(Xattrs::default);
                    let owner = None;
                    Box::new(Seen {
                        attributes: Attributes { owner, xattrs },
                        refused_to,
                    })
                }),
                held,
                epoch,
            }
        })
}
