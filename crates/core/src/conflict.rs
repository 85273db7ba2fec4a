//! Losers that become visible: their deterministic names and dots.
//!
//! Every replica that sees the same loser creates the identical entry, with the identical dot, and only if
//! that dot is not yet in the entry's context: so a copy that a user deleted is not created again.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::fnv;
use crate::id::{ActorId, ContentId, Dot};
use crate::limits::NAME_BYTES_MAX;
use crate::path::RelPath;
use crate::time::Mtime;
use crate::version::{Kind, Version};

/// Digits of the date, the actor and the content in the name of a loser's copy.
const DATE: usize = 8;
const ACTOR: usize = 6;
const HASH: usize = 6;

/// The dot of the entry that shows a loser beside its path.
pub fn derived_dot(loser: Dot) -> Dot {
    mixed(loser, 0)
}

/// The dot of a version at the place that it goes to when it has to make room. The same version may have to go
/// to two places, when directories above and below one another give way, and each is an event of its own.
pub fn moved_dot(version: Dot, to: &RelPath) -> Dot {
    mixed(version, fnv::hash(to.as_bytes()) & !3)
}

/// The dot of the tombstone that a version leaves behind when it goes there.
pub fn end_dot(version: Dot, to: &RelPath) -> Dot {
    mixed(version, fnv::hash(to.as_bytes()) & !3 | 1)
}

/// The dot of a version whose own was used twice.
pub fn reused_dot(dot: Dot, version: &Version) -> Dot {
    let content = version.content.0.first_chunk().copied().unwrap_or_default();
    mixed(dot, u64::from_be_bytes(content) | 2)
}

fn mixed(dot: Dot, use_for: u64) -> Dot {
    // SplitMix64 (Steele, Lea, Flood 2014) over actor and counter: well mixed, and the same everywhere.
    let mix = |mut x: u64| {
        x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    let actor = mix(mix(u64::from_be_bytes(dot.actor.0)) ^ dot.counter).wrapping_add(use_for);
    Dot {
        actor: ActorId(actor.to_be_bytes()),
        counter: 1,
    }
}

/// Where a loser is shown beside its path: `name.conflict-<YYYYMMDD>-<actor6>-<hash6>.ext`, the date in UTC
/// from the version's effective time, the stem cut so that the name stays within 255 bytes. A copy of a
/// copy replaces the old suffix, so names stop growing.
pub fn copy_path(path: &RelPath, dot: Dot, version: &Version) -> Option<RelPath> {
    let (y, m, d) = civil(version.te.div_euclid(86_400 * 1_000_000_000));
    let actor = format!("{}", dot.actor);
    let hash = format!("{}", version.content);
    let of = format!(
        "{y:04}{m:02}{d:02}-{}-{}",
        &actor[actor.len() - ACTOR..],
        &hash[..HASH]
    );
    beside(path, &of)
}

/// Whether a path is that of a loser's copy, and its name tells of another content than this: somebody edited the
/// copy, or it is not whole.
pub fn is_copy_of_other(path: &RelPath, content: ContentId) -> bool {
    let stem = path
        .split()
        .map(|(_, name)| split_extension(name.as_bytes()).0);
    let of = stem.and_then(loser).map(|(_, of)| of);
    let hash = format!("{content}");
    of.is_some_and(|of| !of.ends_with(&hash.as_bytes()[..HASH]))
}

/// Where everything goes that is alive below a path whose name a file or link of a preferred replica takes:
/// `name.conflict-dir-<hash8>`. The name tells nothing of that file, because the next version of it, or another
/// file, must find the same place; and it is never that of a loser beside the path.
pub fn room_path(path: &RelPath) -> Option<RelPath> {
    let (_, name) = path.split()?;
    let hash = fnv::hash(name.as_bytes()) as u32;
    let at = |hash: u32| beside(path, &format!("dir-{hash:08x}"));
    at(hash).filter(|room| room != path).or_else(|| at(!hash))
}

/// A path with the name of a conflict in place of the one that an earlier conflict gave it.
fn beside(path: &RelPath, of: &str) -> Option<RelPath> {
    let (dir, name) = path.split()?;
    let (stem, ext) = split_extension(name.as_bytes());
    let stem = strip_suffix(stem);
    let suffix = format!(".conflict-{of}");
    let room = NAME_BYTES_MAX.saturating_sub(suffix.len() + ext.len());
    let mut out: Vec<u8> = cut(stem, room).to_vec();
    out.extend_from_slice(suffix.as_bytes());
    out.extend_from_slice(ext);
    crate::path::Name::new(&out).ok().map(|n| dir.join(n))
}

/// What is minted at [`copy_path`]: the loser itself, as an ordinary version.
pub fn copy_version(version: &Version) -> Version {
    Version {
        prev: Vec::new(),
        moved: None,
        meta_only: false,
        ..version.clone()
    }
}

/// What is minted at the path of a version that had to make room.
pub fn end_version(version: &Version, to: &RelPath) -> Version {
    Version {
        moved: Some(to.clone()),
        kind: Kind::Tomb,
        size: 0,
        mode: 0,
        mtime: Mtime::default(),
        target: Box::default(),
        ..copy_version(version)
    }
}

/// A name in two parts; the extension keeps its dot and is at most 16 bytes long.
fn split_extension(name: &[u8]) -> (&[u8], &[u8]) {
    match name.iter().rposition(|b| *b == b'.') {
        Some(at) if at > 0 && name.len() - at <= 16 && !name[at..].starts_with(b".conflict-") => {
            name.split_at(at)
        }
        _ => (name, &[]),
    }
}

/// A stem without the suffix that an earlier conflict gave it.
fn strip_suffix(stem: &[u8]) -> &[u8] {
    const ROOM: &[u8] = b"dir-";
    let is_room = |of: &[u8]| of.strip_prefix(ROOM).is_some_and(is_digits);
    let room = || suffix(stem, ROOM.len() + 8).filter(|(_, of)| is_room(of));
    loser(stem).or_else(room).map_or(stem, |(name, _)| name)
}

/// A stem in the name that a loser was shown beside, and what tells of the loser.
fn loser(stem: &[u8]) -> Option<(&[u8], &[u8])> {
    suffix(stem, DATE + 1 + ACTOR + 1 + HASH).filter(|(_, of)| is_digits(of))
}

/// A stem in two parts, of which the second follows the mark of a conflict and is `tail` bytes long.
fn suffix(stem: &[u8], tail: usize) -> Option<(&[u8], &[u8])> {
    const MARK: &[u8] = b".conflict-";
    let at = stem.len().checked_sub(MARK.len() + tail)?;
    let rest = stem[at..].strip_prefix(MARK).filter(|_| at > 0)?;
    Some((&stem[..at], rest))
}

fn is_digits(s: &[u8]) -> bool {
    s.iter().all(|b| b.is_ascii_hexdigit() || *b == b'-')
}

/// At most `room` bytes, not in the middle of a UTF-8 character.
fn cut(stem: &[u8], room: usize) -> &[u8] {
    if stem.len() <= room {
        return stem;
    }
    let mut at = room;
    while at > 0 && room - at < 3 && stem[at] & 0xc0 == 0x80 {
        at -= 1;
    }
    &stem[..if stem[at] & 0xc0 == 0x80 { room } else { at }]
}

/// Year, month, day from days since 1970 (Howard Hinnant, "chrono-compatible low-level date algorithms").
pub fn civil(days: i64) -> (i64, u32, u32) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = (doy - (153 * mp + 2) / 5 + 1) as u32;
    let month = if mp < 10 { mp + 3 } else { mp - 9 } as u32;
    (yoe + era * 400 + i64::from(month <= 2), month, day)
}

/// A few words for a kind, for people.
pub fn kind_word(kind: Kind) -> String {
    String::from(match kind {
        Kind::File => "file",
        Kind::Dir => "directory",
        Kind::Link => "link",
        Kind::Tomb => "deletion",
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;

    fn version(te: i64) -> Version {
        Version {
            content: ContentId([0xab; 32]),
            size: 1,
            mode: 0o644,
            te,
            mode_te: te,
            ..Version::bare(Kind::File)
        }
    }

    fn named(path: &[u8]) -> RelPath {
        let dot = Dot {
            actor: ActorId([1, 2, 3, 4, 5, 0xaa, 0xbb, 0xcc]),
            counter: 5,
        };
        copy_path(
            &RelPath::new(path).unwrap(),
            dot,
            &version(1_709_251_200 * 1_000_000_000),
        )
        .unwrap()
    }

    #[test]
    fn copies_are_named_by_date_actor_and_content() {
        assert_eq!(
            named(b"d/a.txt").to_string(),
            "d/a.conflict-20240301-aabbcc-ababab.txt"
        );
        assert_eq!(
            named(b".profile").to_string(),
            ".profile.conflict-20240301-aabbcc-ababab"
        );
    }

    #[test]
    fn a_copy_of_a_copy_does_not_grow() {
        let once = named(b"d/a.txt");
        assert_eq!(named(once.as_bytes()), once);
        let bare = named(b"a");
        assert_eq!(named(bare.as_bytes()), bare);
    }

    #[test]
    fn a_copy_that_is_not_what_its_name_says_is_found_out() {
        let (whole, other) = (ContentId([0xab; 32]), ContentId([0xac; 32]));
        for path in [&b"d/a.txt"[..], b"a", b".profile", &[b'x'; 255]] {
            let copy = named(path);
            assert!(!is_copy_of_other(&copy, whole), "{copy}");
            assert!(is_copy_of_other(&copy, other), "{copy}");
            let plain = RelPath::new(path).unwrap();
            assert!(!is_copy_of_other(&plain, other), "{plain}");
            let room = room_path(&plain).unwrap();
            assert!(!is_copy_of_other(&room, other), "{room}");
        }
        assert!(!is_copy_of_other(&RelPath::root(), other));
    }

    #[test]
    fn room_is_made_elsewhere_for_every_version_of_a_file() {
        let room = |path: &[u8]| room_path(&RelPath::new(path).unwrap()).unwrap();
        let once = room(b"d/e");
        assert!(once.to_string().starts_with("d/e.conflict-dir-"), "{once}");
        assert_eq!(once.to_string().len(), "d/e.conflict-dir-01234567".len());
        // A directory that made room may have to make room itself.
        let twice = room(once.as_bytes());
        assert_ne!(twice, once);
        assert_eq!(twice.as_bytes().len(), once.as_bytes().len());
        assert_eq!(
            named(once.as_bytes()).to_string(),
            "d/e.conflict-20240301-aabbcc-ababab"
        );
        assert_ne!(room(&[b'x'; 255]), room(&[b'x'; 254]), "names that are cut");
    }

    #[test]
    fn long_names_are_cut_to_255_bytes_between_characters() {
        let long = [&"ä".repeat(125).into_bytes()[..], b".html"].concat();
        let name = named(&long);
        assert!(name.as_bytes().len() <= 255);
        assert!(core::str::from_utf8(name.as_bytes()).is_ok());
        assert!(named(&[0x80; 255]).as_bytes().len() <= 255);
    }

    #[test]
    fn derived_dots_are_distinct_and_stable() {
        let dot = |c| {
            derived_dot(Dot {
                actor: ActorId([9; 8]),
                counter: c,
            })
        };
        assert_ne!(dot(1), dot(2));
        assert_eq!(dot(1), dot(1));
        let loser = Dot {
            actor: ActorId([9; 8]),
            counter: 1,
        };
        let to = |path: &str| RelPath::new(path.as_bytes()).unwrap();
        assert_ne!(end_dot(loser, &to("a")), moved_dot(loser, &to("a")));
        assert_ne!(moved_dot(loser, &to("a")), moved_dot(loser, &to("b")));
        assert_ne!(moved_dot(loser, &to("a")), dot(1));
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(-1), (1969, 12, 31));
    }
}
