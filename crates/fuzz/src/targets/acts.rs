//! Sequences: a user edits, a replica looks and records, and somebody sends it actions, moves and records that
//! no honest engine would send.
//!
//! What must hold whatever they are: no call panics, no content that was on the disk before a call of the
//! engine is gone after it, and after a look is recorded the next one finds nothing.

use std::collections::BTreeSet;

use instep_chunk::content_id;
use instep_core::id::ContentId;
use instep_core::path::RelPath;
use instep_core::plan::{Action, Goal, Keep, Precondition};
use instep_core::row::Row;
use instep_replica::content::{Bytes, Content, Sources};
use instep_replica::look::Finding;
use instep_replica::mint::{self, Event};
use instep_replica::records::ShareRecord;
use instep_replica::{Book, Found, Look, Replica, Scope, ShareState};

use crate::feed::Feed;

/// What a user of a replica can do to its tree, whatever it is.
pub(super) trait Hands {
    /// The replica.
    fn replica(&self) -> &dyn Replica;
    /// Writes a file.
    fn write(&self, path: &RelPath, bytes: &[u8]);
    /// Makes a directory.
    fn mkdir(&self, path: &RelPath);
    /// Makes a link.
    fn link(&self, path: &RelPath, target: &[u8]);
    /// Removes something.
    fn remove(&self, path: &RelPath);
    /// Renames something.
    fn rename(&self, from: &RelPath, to: &RelPath);
    /// The contents of all files and links at their places.
    fn contents(&self) -> BTreeSet<ContentId>;
    /// The contents of all that was displaced.
    fn kept(&self) -> BTreeSet<ContentId>;
    /// Starts anew after the process died, where that means something.
    fn die(&mut self) {}
}

/// Contents of which everybody has a copy.
struct Anybody;

fn content(n: u8) -> Vec<u8> {
    format!("content {n}").into_bytes()
}

impl Sources for Anybody {
    fn open(&self, _: &Action, wanted: ContentId) -> Option<Box<dyn Content>> {
        let bytes = (0..8)
            .map(content)
            .find(|bytes| content_id(bytes) == wanted)?;
        Some(Box::new(Bytes(bytes)))
    }
}

fn action(feed: &mut Feed<'_>, replica: &dyn Replica) -> Action {
    let path = feed.path();
    let row = replica.row(&path).ok().flatten().unwrap_or_default();
    let bytes = content(feed.number(1) as u8 % 8);
    let goal = match feed.below(7) {
        0 => Goal::Dir {
            mode: feed.number(2) as u16,
        },
        1 => Goal::Link {
            target: feed.piece().into(),
            mtime: feed.mtime(),
        },
        2 => Goal::Absent,
        3 => Goal::Metadata {
            mode: feed.number(2) as u16,
            mtime: feed.flip().then(|| feed.mtime()),
        },
        4 => Goal::Record,
        5 => Goal::Rename { from: feed.path() },
        _ => Goal::File {
            content: content_id(&bytes),
            size: bytes.len() as u64,
            mode: feed.number(2) as u16,
            mtime: feed.mtime(),
        },
    };
    let entry = if feed.flip() {
        row.entry.clone()
    } else {
        feed.entry()
    };
    let first = entry.siblings().first().map(|(dot, _)| *dot);
    Action {
        replica: 0,
        before: before(feed, &row),
        goal,
        keep: if feed.flip() {
            Keep::Trash
        } else {
            Keep::Version(feed.dot())
        },
        shown: match feed.below(3) {
            0 => None,
            1 => Some(feed.dot()),
            _ => first,
        },
        entry,
        path,
    }
}

/// Usually what the row says, so that actions get somewhere.
fn before(feed: &mut Feed<'_>, row: &Row) -> Precondition {
    match (feed.below(4), row.print, row.present()) {
        (0, ..) => Precondition::Absent,
        (1, ..) => Precondition::Unchanged {
            kind: feed.version().kind,
            print: feed.print(),
            content: feed.content(),
        },
        (_, Some(print), Some(v)) => Precondition::Unchanged {
            kind: v.kind,
            print,
            content: v.content,
        },
        (_, Some(print), None) => Precondition::Unchanged {
            kind: instep_core::version::Kind::Dir,
            print,
            content: ContentId::NONE,
        },
        (_, None, _) => Precondition::Absent,
    }
}

/// One step by the user; what they do away with is theirs to do away with.
fn by_user(feed: &mut Feed<'_>, hands: &dyn Hands) {
    let path = feed.path();
    match feed.below(5) {
        0 => hands.mkdir(&path),
        1 => hands.link(&path, feed.piece()),
        2 => hands.remove(&path),
        3 => hands.rename(&path, &feed.path()),
        _ => hands.write(&path, &content(feed.number(1) as u8 % 8)),
    }
}

/// One call of the engine, honest or not.
fn by_engine(feed: &mut Feed<'_>, hands: &dyn Hands, share: &ShareState) -> &'static str {
    let replica = hands.replica();
    match feed.below(9) {
        0 | 1 => {
            settle(replica, share);
            "look"
        }
        2 => {
            let (from, to) = (feed.path(), feed.path());
            drop(replica.rename(&from, &to));
            let rows: Vec<(RelPath, Row)> = (0..feed.below(3))
                .map(|_| (feed.path(), feed.row()))
                .collect();
            drop(replica.adopt_move(&from, &to, &rows));
            "move"
        }
        3 => {
            // A look that nobody took.
            let found = |feed: &mut Feed<'_>| Finding {
                path: feed.path(),
                found: found(feed),
            };
            let findings = (0..feed.below(3)).map(|_| found(feed)).collect();
            drop(replica.record(
                &Look {
                    findings,
                    ..Look::default()
                },
                share,
            ));
            "record"
        }
        4 => {
            let book = [
                Book::Share,
                Book::Conflicts,
                Book::Holds,
                Book::Trash,
                Book::Log,
            ][feed.below(5)];
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let (key, body) = (text(feed.piece()), text(feed.piece()));
            drop(replica.write_record(book, &key, Some(&body)));
            drop(replica.records(book));
            "book"
        }
        5 => {
            let key = String::from_utf8_lossy(feed.piece()).into_owned();
            let to = feed.flip().then(|| feed.path());
            drop(replica.check_kept(&key));
            drop(to.as_ref().map(|path| replica.check(path)));
            drop(replica.restore(&key, to.as_ref()));
            "restore"
        }
        6 => {
            drop(replica.barrier());
            "barrier"
        }
        _ => {
            let actions: Vec<Action> = (0..=feed.below(3)).map(|_| action(feed, replica)).collect();
            if let Ok(outcomes) = replica.apply(&actions, &Anybody) {
                assert_eq!(
                    outcomes.len(),
                    actions.len(),
                    "an action without an outcome"
                );
            }
            "apply"
        }
    }
}

/// Looks and records until nothing is found; more than a few times is too often.
fn settle(replica: &dyn Replica, share: &ShareState) {
    for _ in 0..4 {
        let Ok(look) = replica.look(&Scope::Everything) else {
            return;
        };
        let waits = !look.again.is_empty() || !look.unhashed.is_empty() || look.rest.is_some();
        if look.findings.is_empty() || waits || replica.record(&look, share).is_err() {
            return;
        }
    }
    let look = replica
        .look(&Scope::Everything)
        .map(|l| l.findings)
        .unwrap_or_default();
    assert!(
        look.is_empty(),
        "a look finds again what was recorded: {look:?}"
    );
}

/// Any finding.
fn found(feed: &mut Feed<'_>) -> Found {
    let version = feed.version();
    let present = |feed: &mut Feed<'_>| Found::Present {
        kind: version.kind,
        content: version.content,
        size: version.size,
        mode: version.mode,
        mtime: version.mtime,
        target: version.target.clone(),
        print: feed.print(),
        attributes: feed.flip().then(|| Box::new(feed.attributes())),
        moved_from: version.moved.clone(),
        high_entropy: false,
    };
    match feed.below(6) {
        0 => Found::Absent { was: version.kind },
        1 => Found::Refreshed {
            print: feed.print(),
        },
        2 => Found::Held(feed.row().held.unwrap_or(instep_core::row::Held::Special)),
        3 => Found::Forgotten,
        4 => Found::Ancestor {
            dot: feed.dot(),
            seen: Box::new(present(feed)),
        },
        _ => present(feed),
    }
}

/// A user and an engine, in turns.
pub(super) fn turns(bytes: &[u8], hands: &mut dyn Hands) -> String {
    let mut feed = Feed::new(bytes);
    let share = ShareState::new(hands.replica().share(), ShareRecord::default());
    let mut done: BTreeSet<&str> = BTreeSet::new();
    for _ in 0..24 {
        if feed.is_empty() {
            break;
        }
        match feed.below(8) {
            0..=2 => by_user(&mut feed, hands),
            3 => {
                hands.die();
                done.insert("die");
            }
            _ => {
                let before: BTreeSet<ContentId> = &hands.contents() | &hands.kept();
                done.insert(by_engine(&mut feed, hands, &share));
                let after: BTreeSet<ContentId> = &hands.contents() | &hands.kept();
                let lost: Vec<&ContentId> = before.difference(&after).collect();
                assert!(lost.is_empty(), "gone: {lost:?}, after {done:?}");
            }
        }
    }
    let done: Vec<&str> = done.into_iter().collect();
    done.join(" ")
}

/// A row, and whatever was found there: what is minted.
pub(super) fn mint(bytes: &[u8]) -> String {
    let mut feed = Feed::new(bytes);
    let (mut row, hlc) = (feed.row(), feed.instant());
    let (mut minted, mut dots) = (0, 0);
    for _ in 0..3 {
        let (found, dot) = (found(&mut feed), feed.dot());
        dots = 0;
        let after = mint::after(&row, &found, None, &mut || {
            dots += 1;
            Event {
                dot,
                hlc,
                policy_epoch: 1,
            }
        });
        assert!(dots <= 1, "two dots for one finding");
        minted += dots;
        row = after;
    }
    format!("{minted} minted, shown {}", row.shown.is_some() && dots > 0)
}

/// Sequences to begin with.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = super::vocabulary::any_seeds();
    // Write, look, then a file, a deletion and a directory in its place.
    seeds.push([0, 0, 4, 1, 4, 0, 7, 0, 0, 0, 2, 1, 1, 6, 0, 1, 4, 0].repeat(4));
    seeds.push([1, 3, 4, 2, 5, 0, 6, 8, 1, 3, 2, 2, 0, 1, 2, 3, 0].repeat(5));
    seeds.push([0, 3, 0, 4, 0, 7, 0, 3, 0, 2, 0, 1, 5, 7, 2, 4, 2].repeat(5));
    seeds
}
