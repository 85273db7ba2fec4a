//! What a finding makes of a row: the one place where versions are minted.
//!
//! Pure, so that every implementation of [`crate::Replica::record`] mints the same version for the same
//! finding. Invariants: at most one dot is taken per finding, and none when nothing changed that users care
//! about; a change made while the row was materialised supersedes all siblings, one made while it was not is
//! concurrent with them, and one made while another version was to take the place of what is shown supersedes
//! what is shown alone. Nothing here writes anything.

use instep_core::attributes::{self, Attributes, Said, Sayings, Since};
use instep_core::entry::{Context, Entry};
use instep_core::id::{ContentId, Dot};
use instep_core::limits::PREVIOUS_MAX;
use instep_core::path::RelPath;
use instep_core::policy::Policies;
use instep_core::reconcile::said_by_source;
use instep_core::row::{Held, Print, Row};
use instep_core::time::{Hlc, Mtime, effective_time};
use instep_core::version::{Kind, Version};
use instep_core::view::view;

use crate::look::{Found, Move};

/// The event under which a version is minted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Its dot, never used before.
    pub dot: Dot,
    /// The replica's hybrid clock, later than at every earlier event.
    pub hlc: Hlc,
    /// The newest epoch of the share's policies.
    pub policy_epoch: u32,
}

/// The row after a finding was recorded; equal to `row` when nothing changed. `next` is called when a dot is
/// needed, at most once. `moved_to` says where something absent went.
pub fn after(
    row: &Row,
    found: &Found,
    moved_to: Option<&RelPath>,
    next: &mut dyn FnMut() -> Event,
) -> Row {
    match found {
        Found::Absent { .. } => gone(row, moved_to, next),
        Found::Refreshed { print } => Row {
            print: Some(*print),
            held: None,
            ..row.clone()
        },
        Found::Forgotten => Row {
            shown: None,
            print: None,
            seen: None,
            ..row.clone()
        },
        Found::Ancestor { dot, seen } => ancestor(row, seen, *dot),
        Found::Held(held) => Row {
            // What a rule excludes is written by nobody but its user: that it was this is remembered.
            shown: row.shown.filter(|_| *held == Held::Ignored),
            print: None,
            seen: None,
            held: Some(*held),
            ..row.clone()
        },
        Found::Present {
            kind,
            content,
            size,
            mode,
            mtime,
            target,
            print,
            attributes,
            moved_from,
            ..
        } => {
            let seen = Seen {
                kind: *kind,
                content: *content,
                size: *size,
                mode: *mode,
                mtime: *mtime,
                target,
                print: *print,
                attributes: attributes.as_deref(),
                moved_from: moved_from.as_ref(),
            };
            seen.record(row, next)
        }
    }
}

/// As [`after`], where another version was to take the place of what is shown: nobody here has seen that one, so that
/// a change of what is shown supersedes that alone. A mirror has no such versions: its source decides.
pub fn after_unseen(
    row: &Row,
    found: &Found,
    moved_to: Option<&RelPath>,
    policies: &Policies,
    next: &mut dyn FnMut() -> Event,
) -> Row {
    let new = after(row, found, moved_to, next);
    let minted = new.shown.filter(|dot| row.entry.get(*dot).is_none());
    let (Some(was), Some(dot)) = (row.shown, minted) else {
        return new;
    };
    let awaited = row.entry.get_shown(view(&row.entry, policies).dot());
    let (Some(awaited), Some(before)) = (awaited, row.entry.get(was)) else {
        return new;
    };
    let Some(version) = new.entry.get(dot).filter(|_| !awaited.same_content(before)) else {
        return new;
    };
    let seen = Context::from_iter([was]);
    Row {
        entry: row.entry.record_beside(&seen, dot, version.clone()),
        ..new
    }
}

/// As [`after`], at a mirror's source, which alone decides: what else is known of a path has no part in what is minted
/// there, because nobody will ever bring it to the source's disk.
pub fn after_at_source(
    row: &Row,
    found: &Found,
    moved_to: Option<&RelPath>,
    next: &mut dyn FnMut() -> Event,
) -> Row {
    let alone = Row {
        entry: said_by_source(row).into_owned(),
        ..row.clone()
    };
    after(&alone, found, moved_to, next)
}

/// Mints nothing: the version gets a dot that is superseded by whatever the others know, and no instant, so
/// that it also loses against what it does not know.
fn ancestor(row: &Row, seen: &Found, dot: Dot) -> Row {
    let event = Event {
        dot,
        hlc: 0,
        policy_epoch: 0,
    };
    let alone = after(&Row::default(), seen, None, &mut || event);
    Row {
        epoch: row.epoch,
        ..alone
    }
}

/// Where the object at `path` went, as far as a look's moves tell.
pub fn moved_to(moves: &[Move], path: &RelPath) -> Option<RelPath> {
    moves.iter().find_map(|m| path.rebase(&m.from, &m.to))
}

/// The tombstone that an absent path shows, when nothing alive is known there.
pub fn settled_tomb(entry: &Entry) -> Option<Dot> {
    let siblings = entry.siblings();
    if siblings.iter().any(|(_, v)| !v.is_tomb()) {
        return None;
    }
    siblings
        .iter()
        .max_by_key(|(d, v)| (v.te, v.content, *d))
        .map(|(d, _)| *d)
}

fn gone(row: &Row, moved_to: Option<&RelPath>, next: &mut dyn FnMut() -> Event) -> Row {
    let Some((was, dot)) = row.present().zip(row.shown) else {
        let shown = row.materialised().or_else(|| settled_tomb(&row.entry));
        return Row {
            shown,
            print: None,
            seen: None,
            held: None,
            ..row.clone()
        };
    };
    let event = next();
    let tomb = Version {
        kind: Kind::Tomb,
        content: was.content,
        size: 0,
        mode: 0,
        mtime: Mtime::default(),
        te: event.hlc,
        mode_te: event.hlc,
        attributes: None,
        target: Box::default(),
        prev: previous(was, was.content),
        moved: moved_to.cloned(),
        meta_only: false,
        policy_epoch: event.policy_epoch,
    };
    Row {
        entry: row.entry.record_over(dot, event.dot, tomb),
        shown: Some(event.dot),
        print: None,
        seen: None,
        held: None,
        epoch: row.epoch,
    }
}

/// The contents before `content`, newest first.
fn previous(was: &Version, content: ContentId) -> Vec<ContentId> {
    let mut out = Vec::with_capacity(PREVIOUS_MAX);
    for id in core::iter::once(&was.content).chain(&was.prev) {
        if *id != content && *id != ContentId::NONE && !out.contains(id) && out.len() < PREVIOUS_MAX
        {
            out.push(*id);
        }
    }
    out
}

/// Since when there are no extended attributes where there never were any: less than anything else.
const NOTHING: Hlc = 0;
/// Since when what we once brought to a disk is as it is there: less than what its maker says.
const BROUGHT: Hlc = 1;

/// What counts of one part, given what is here and since when, what was here before, and what was said of it.
fn counts<'a, T: PartialEq>(
    here: Option<&'a T>,
    was: Option<&T>,
    said: Since<'a, T>,
    came: Hlc,
    now: Hlc,
) -> Since<'a, T> {
    match (here, was) {
        (Some(here), Some(was)) if here != was => Some((now, here)),
        _ => said.or(here.map(|here| (came, here))),
    }
}

/// [`Found::Present`], borrowed.
struct Seen<'a> {
    kind: Kind,
    content: ContentId,
    size: u64,
    mode: u16,
    mtime: Mtime,
    target: &'a [u8],
    print: Print,
    attributes: Option<&'a Attributes>,
    moved_from: Option<&'a RelPath>,
}

impl Seen<'_> {
    fn record(&self, row: &Row, next: &mut dyn FnMut() -> Event) -> Row {
        let (entry, shown) = if self.is_shown_by(row) {
            (row.entry.clone(), row.shown)
        } else if let Some(dot) = self.adopted(row) {
            (row.entry.clone(), Some(dot))
        } else {
            let event = next();
            // What a rule excluded was changed by its user: as if it had been tracked all the time.
            let was = Row {
                held: None,
                ..row.clone()
            };
            let version = self.version(&was, event);
            let entry = match row.shown {
                None => row
                    .entry
                    .record_beside(&Context::default(), event.dot, version),
                Some(shown) => row.entry.record_over(shown, event.dot, version),
            };
            (entry, Some(event.dot))
        };
        Row {
            entry,
            shown,
            print: Some(self.print),
            seen: self.attributes.map(|here| {
                let had = row.seen.as_deref().filter(|had| had.attributes == *here);
                Box::new(attributes::Seen {
                    attributes: here.clone(),
                    refused_to: had.and_then(|had| had.refused_to),
                })
            }),
            held: None,
            epoch: row.epoch,
        }
    }

    fn same_content(&self, version: &Version) -> bool {
        version.kind == self.kind && version.content == self.content
    }

    /// Nothing differs but the fingerprint.
    fn is_shown_by(&self, row: &Row) -> bool {
        row.present().is_some_and(|v| {
            self.same_content(v)
                && row.print.is_some_and(|p| p.mode == self.mode)
                && (self.kind == Kind::Dir || v.mtime == self.mtime)
                && !self.says_more(row)
        })
    }

    /// Whether a user changed an attribute, or nobody ever said what is there.
    fn says_more(&self, row: &Row) -> bool {
        let said = attributes::said(&row.entry, self.kind);
        self.changes_attributes(row)
            || self.attributes.is_some_and(|here| {
                said.owner.is_none() && here.owner.is_some()
                    || said.xattrs.is_none() && here.xattrs.is_some()
            })
    }

    /// Whether an attribute is other than when it was last looked at. One that was not looked at before was
    /// not changed.
    fn changes_attributes(&self, row: &Row) -> bool {
        let (Some(here), Some(seen)) = (self.attributes, row.seen.as_deref()) else {
            return false;
        };
        let was = &seen.attributes;
        (was.owner.is_some() && here.owner.is_some() && was.owner != here.owner)
            || (was.xattrs.is_some() && here.xattrs.is_some() && was.xattrs != here.xattrs)
    }

    /// What the version says of attributes, part by part: what a user changed here, since now; else what was
    /// said of it (also where this disk could not be given that, or does not carry it); else what is here.
    ///
    /// What is here came with the version, if it was made here. Where it was only brought here before anybody
    /// asked for attributes, what its maker says counts; and that there are none counts least.
    fn said(&self, row: &Row, te: Hlc, event: Event) -> Option<Box<Sayings>> {
        let is_same_object = row.present().is_some_and(|v| v.kind == self.kind);
        let said = if is_same_object {
            attributes::said(&row.entry, self.kind)
        } else {
            Said::default()
        };
        let was = row.seen.as_deref().filter(|_| is_same_object);
        let was = was.map(|seen| &seen.attributes);
        let here = self.attributes;
        let owner = here.and_then(|a| a.owner.as_ref());
        let xattrs = here.and_then(|a| a.xattrs.as_ref());
        let had_owner = was.and_then(|a| a.owner.as_ref());
        let had_xattrs = was.and_then(|a| a.xattrs.as_ref());
        let is_brought = |shown: Dot| is_same_object && shown.actor != event.dot.actor;
        let came = if row.shown.is_some_and(is_brought) {
            BROUGHT
        } else {
            te
        };
        let came_xattrs = match xattrs {
            Some(xattrs) if xattrs.iter().len() > 0 => came,
            _ => NOTHING,
        };
        Said {
            owner: counts(owner, had_owner, said.owner, came, event.hlc),
            xattrs: counts(xattrs, had_xattrs, said.xattrs, came_xattrs, event.hlc),
        }
        .to_sayings()
    }

    /// The sibling that was not materialised here and turns out to be what is on disk.
    fn adopted(&self, row: &Row) -> Option<Dot> {
        if row.materialised().is_some() {
            return None;
        }
        let same = |v: &Version| self.same_content(v) && v.mode == self.mode;
        row.entry
            .siblings()
            .iter()
            .find(|(_, v)| same(v))
            .map(|(d, _)| *d)
    }

    fn version(&self, row: &Row, event: Event) -> Version {
        let was = row.on_disk();
        let mtime = if self.kind == Kind::Dir {
            Mtime::default()
        } else {
            self.mtime
        };
        let te = effective_time(mtime, event.hlc);
        let (mode, mode_te) = self.dated_mode(row, te, event.hlc);
        Version {
            kind: self.kind,
            content: self.content,
            size: self.size,
            mode,
            mtime,
            te,
            mode_te,
            attributes: self.said(row, te, event),
            target: self.target.into(),
            prev: was.map(|v| previous(v, self.content)).unwrap_or_default(),
            moved: self.moved_from.cloned(),
            meta_only: was.is_some_and(|v| self.same_content(v)),
            policy_epoch: event.policy_epoch,
        }
    }

    /// The mode, and when it was set. Whoever did not touch the mode leaves the one that counts, which a disk
    /// without modes does not have, and one that has not got it yet shows another. A changed one is of now; it
    /// is as old as the version when something new is there, because then the mode came with it.
    fn dated_mode(&self, row: &Row, te: Hlc, now: Hlc) -> (u16, Hlc) {
        let alike = |v: &Version| v.kind == self.kind;
        if !row.present().is_some_and(alike) {
            return (self.mode, te);
        }
        if row.print.is_none_or(|p| p.mode != self.mode) {
            return (self.mode, now);
        }
        let of_kind = row.entry.siblings().iter().filter(|(_, v)| alike(v));
        let counts = of_kind.max_by_key(|(dot, v)| (v.mode_te, *dot));
        counts.map_or((self.mode, te), |(_, v)| (v.mode, v.mode_te))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use std::collections::BTreeMap;

    use instep_core::id::ActorId;
    use instep_core::policy::ConflictPolicy;

    use super::*;

    const NOW: Hlc = 1_800_000_000 * 1_000_000_000;

    fn dot(actor: u8, counter: u64) -> Dot {
        Dot {
            actor: ActorId([actor; 8]),
            counter,
        }
    }

    fn print(hash: u64, mode: u16) -> Print {
        Print { ino: 1, hash, mode }
    }

    fn file(content: u8, mode: u16, secs: i64) -> Found {
        Found::Present {
            kind: Kind::File,
            content: ContentId([content; 32]),
            size: 3,
            mode,
            mtime: Mtime { secs, nanos: 0 },
            target: Box::default(),
            print: print(u64::from(content) + u64::from(mode) + secs as u64, mode),
            attributes: None,
            moved_from: None,
            high_entropy: false,
        }
    }

    /// Records a sequence of findings, each under the next dot of one actor.
    fn history(start: Row, found: &[Found]) -> Row {
        let mut counter = 0;
        found.iter().fold(start, |row, f| {
            after(&row, f, None, &mut || {
                counter += 1;
                let hlc = NOW + counter as i64;
                Event {
                    dot: dot(1, counter),
                    hlc,
                    policy_epoch: 4,
                }
            })
        })
    }

    fn shown(row: &Row) -> &Version {
        row.on_disk().unwrap()
    }

    #[test]
    fn an_edit_remembers_two_earlier_contents_without_repeating_itself() {
        let f = |c| file(c, 0o644, 1_700_000_000);
        let row = history(Row::default(), &[f(1), f(2), f(3), f(2)]);
        let v = shown(&row);
        assert_eq!(v.prev, [ContentId([3; 32]), ContentId([1; 32])]);
        assert_eq!((v.te, v.policy_epoch), (1_700_000_000 * 1_000_000_000, 4));
        assert_eq!(row.entry.siblings().len(), 1);
        assert!(!v.meta_only);
    }

    #[test]
    fn an_edit_where_modes_are_not_kept_takes_the_mode_of_the_disk_for_the_users() {
        let mut row = history(Row::default(), &[file(1, 0o600, 1_700_000_000)]);
        // The disk says 0755 of everything.
        row.print = Some(print(9, 0o755));
        let before = shown(&row).mode_te;
        let row = history(row, &[file(2, 0o755, 1_700_000_001)]);
        assert_eq!((shown(&row).mode, shown(&row).mode_te), (0o600, before));
        let row = history(row, &[file(2, 0o700, 1_700_000_001)]);
        assert_eq!(shown(&row).mode, 0o700, "a change of it counts");
    }

    #[test]
    fn a_chmod_and_a_touch_are_metadata_only() {
        let row = history(
            Row::default(),
            &[file(1, 0o644, 1_700_000_000), file(1, 0o600, 1_700_000_000)],
        );
        assert!(shown(&row).meta_only);
        assert_eq!(
            shown(&row).mode_te,
            NOW + 2,
            "a change of mode is dated when it was seen"
        );
        let row = history(
            Row::default(),
            &[file(1, 0o644, 1_700_000_000), file(1, 0o644, 1_700_000_009)],
        );
        assert!(shown(&row).meta_only);
        assert_eq!(
            shown(&row).mode_te,
            1_700_000_000 * 1_000_000_000,
            "the mode was not changed"
        );
    }

    #[test]
    fn a_fingerprint_alone_takes_no_dot() {
        let row = history(Row::default(), &[file(1, 0o644, 1_700_000_000)]);
        let Found::Present {
            kind,
            content,
            size,
            mode,
            mtime,
            target,
            ..
        } = file(1, 0o644, 1_700_000_000)
        else {
            unreachable!()
        };
        let again = Found::Present {
            kind,
            content,
            size,
            mode,
            mtime,
            target,
            print: print(77, 0o644),
            attributes: None,
            moved_from: None,
            high_entropy: false,
        };
        let after = after(&row, &again, None, &mut || {
            unreachable!("nothing was changed")
        });
        assert_eq!(after.entry, row.entry);
        assert_eq!(after.print, Some(print(77, 0o644)));
    }

    #[test]
    fn a_deletion_names_the_content_it_removed_and_is_minted_once() {
        let absent = Found::Absent { was: Kind::File };
        let row = history(Row::default(), &[file(1, 0o644, 5), absent.clone(), absent]);
        assert!(shown(&row).is_tomb());
        assert_eq!(shown(&row).content, ContentId([1; 32]));
        assert_eq!(row.shown, Some(dot(1, 2)));
        assert_eq!(row.print, None);
    }

    #[test]
    fn what_was_never_shown_here_is_adopted_or_stays_beside() {
        let there = history(Row::default(), &[file(1, 0o644, 1_700_000_000)]);
        let waiting = Row {
            shown: None,
            print: None,
            held: Some(Held::Ignored),
            ..there.clone()
        };
        let same = after(
            &waiting,
            &file(1, 0o644, 1_700_000_500),
            None,
            &mut || unreachable!(),
        );
        assert_eq!(same.shown, there.shown);
        assert_eq!(same.held, None);
        let mut event = || Event {
            dot: dot(2, 1),
            hlc: NOW,
            policy_epoch: 0,
        };
        let other = after(&waiting, &file(2, 0o644, 1_700_000_500), None, &mut event);
        assert_eq!(
            other.entry.siblings().len(),
            2,
            "unseen content is not superseded"
        );
        assert!(!shown(&other).meta_only);
    }

    /// What is left of two siblings, the later of which is not shown yet or is, after a change of what is shown.
    fn left(found: &Found, shows_later: bool, policy: ConflictPolicy) -> Vec<Dot> {
        let mut row = history(Row::default(), &[file(1, 0o644, 1_700_000_000)]);
        let mut theirs = || Event {
            dot: dot(2, 1),
            hlc: NOW,
            policy_epoch: 0,
        };
        let later = file(2, 0o644, 1_700_000_100);
        let later = after(&Row::default(), &later, None, &mut theirs);
        row.entry = row.entry.merge(&later.entry);
        if shows_later {
            row.shown = later.shown;
        }
        let policies = Policies(BTreeMap::from([(0, policy)]));
        let mut event = || Event {
            dot: dot(3, 1),
            hlc: NOW + 1,
            policy_epoch: 0,
        };
        let new = after_unseen(&row, found, None, &policies, &mut event);
        assert_eq!(new.shown, Some(dot(3, 1)));
        assert!(
            row.entry
                .siblings()
                .iter()
                .all(|(d, _)| new.entry.ctx().covers(*d))
        );
        new.entry.siblings().iter().map(|(d, _)| *d).collect()
    }

    #[test]
    fn what_waits_to_be_shown_is_superseded_by_a_user_who_never_saw_it() {
        let edit = file(3, 0o644, 1_700_000_500);
        let touch = file(1, 0o600, 1_700_000_000);
        let absent = Found::Absent { was: Kind::File };
        for found in [&edit, &touch, &absent] {
            let unseen = left(found, false, ConflictPolicy::Newest);
            assert_eq!(unseen, [dot(2, 1), dot(3, 1)], "{found:?}");
            let seen = left(found, true, ConflictPolicy::Newest);
            assert_eq!(seen, [dot(3, 1)], "a loser is kept, and does not come back");
            let asked = left(found, false, ConflictPolicy::Manual);
            assert_eq!(
                asked,
                [dot(3, 1)],
                "all that a person is asked about is kept"
            );
        }
    }

    #[test]
    fn a_mirrors_source_gives_an_edit_the_mode_of_a_file_that_it_lost() {
        let lost = history(Row::default(), &[file(1, 0o664, 1_700_000_500)]);
        let wanting = Row {
            shown: None,
            print: None,
            ..lost
        };
        let mut counter = 1;
        let mut next = || {
            counter += 1;
            let dot = dot(1, counter);
            Event {
                dot,
                hlc: NOW + counter as i64,
                policy_epoch: 0,
            }
        };
        let mut row = wanting;
        for found in [file(2, 0o644, 1_700_000_000), file(3, 0o644, 1_700_000_900)] {
            row = after_at_source(&row, &found, None, &mut next);
        }
        assert_eq!(
            (shown(&row).content, shown(&row).mode),
            (ContentId([3; 32]), 0o644)
        );
    }

    #[test]
    fn an_edit_made_while_a_rule_excluded_the_file_supersedes_what_was_there() {
        let seen = [
            file(1, 0o644, 1_700_000_000),
            Found::Held(Held::Ignored),
            Found::Held(Held::Ignored),
        ];
        let ignored = history(Row::default(), &seen);
        assert_eq!((ignored.present(), ignored.print), (None, None));
        let same = after(
            &ignored,
            &file(1, 0o644, 1_700_000_500),
            None,
            &mut || unreachable!(),
        );
        assert_eq!(
            (same.entry.clone(), same.held),
            (ignored.entry.clone(), None)
        );
        assert_eq!(same.shown, ignored.shown);
        let mut event = || Event {
            dot: dot(1, 2),
            hlc: NOW,
            policy_epoch: 0,
        };
        let edited = after(&ignored, &file(2, 0o644, 1_700_000_500), None, &mut event);
        assert_eq!(edited.entry.siblings().len(), 1, "a conflict with itself");
        assert_eq!(shown(&edited).prev, [ContentId([1; 32])]);
    }

    #[test]
    fn absence_of_something_held_deletes_nothing() {
        let ignored = history(
            Row::default(),
            &[file(1, 0o644, 5), Found::Held(Held::Ignored)],
        );
        assert_eq!(ignored.on_disk(), None);
        let absent = Found::Absent { was: Kind::File };
        let gone = after(&ignored, &absent, None, &mut || unreachable!());
        assert_eq!((gone.shown, gone.held), (None, None));
        let row = history(
            Row::default(),
            &[file(1, 0o644, 5), Found::Held(Held::Special)],
        );
        assert_eq!(
            (row.shown, row.print, row.held),
            (None, None, Some(Held::Special))
        );
        let gone = after(
            &row,
            &Found::Absent { was: Kind::File },
            None,
            &mut || unreachable!(),
        );
        assert_eq!(gone.entry, row.entry);
        assert_eq!(gone.held, None);
    }
}
