//! The promises that hold at every step: functions from what was done to a tree to what breaks them.
//!
//! Owns nothing and looks at no disk. Each is given the deeds of one call of the engine on one machine, in
//! order, with what users did in between.

use std::collections::BTreeSet;

use instep_core::path::RelPath;
use instep_fs::Kind;
use instep_fs::sim::{Deed, NameChange};

use crate::ledger::is_ours;

/// What the names of ignored files end with, in every seed that has any.
pub(crate) const IGNORED: &[u8] = b".ign";

/// Whether the rules of a seed ignore a path, itself or for the sake of a directory above it.
pub(crate) fn is_ignored(path: &RelPath) -> bool {
    path.components().any(|n| n.as_bytes().ends_with(IGNORED))
}

fn is_users(path: &RelPath) -> bool {
    !path.is_root() && !is_ours(path)
}

fn by_engine(deed: &Deed) -> Option<(&'static str, &[NameChange])> {
    match deed {
        Deed::Names {
            by: Some(by),
            changes,
        } => Some((by, changes)),
        _ => None,
    }
}

/// Paths that users changed the names of, and after which deed.
fn by_users(deeds: &[Deed]) -> impl Iterator<Item = (usize, &RelPath)> {
    deeds.iter().enumerate().flat_map(|(at, deed)| {
        let changes: &[NameChange] = match deed {
            Deed::Names { by: None, changes } => changes,
            _ => &[],
        };
        let paths = changes.iter().filter_map(|c| c.path.as_ref());
        paths.map(move |path| (at, path))
    })
}

/// I9: everything that the engine changes or lists is below the root.
pub(crate) fn confined(deeds: &[Deed]) -> Vec<String> {
    let outside = |deed: &Deed| match deed {
        Deed::Names {
            by: Some(by),
            changes,
        } => changes.iter().any(|c| c.path.is_none()).then_some(*by),
        Deed::Names { by: None, .. } => None,
        Deed::InPlace { by, paths, .. } => paths.iter().any(Option::is_none).then_some(*by),
        // A directory that was removed while it was open is nowhere, and listing it says so.
        Deed::Listed { dir, complete } => (dir.is_none() && *complete).then_some("list"),
        Deed::Missed { .. } | Deed::NoDir { .. } => None,
    };
    let bad = deeds.iter().filter_map(outside);
    bad.map(|by| format!("I9: {by} outside the root")).collect()
}

/// I6: no file that a user can see is written where it is, and what is replaced is never missing in between.
///
/// `replaced` are the paths that have something before and after the call; where names cannot be exchanged
/// there are none. What a user took away in between is nobody's fault.
pub(crate) fn whole(deeds: &[Deed], replaced: &BTreeSet<RelPath>) -> Vec<String> {
    let mut bad = Vec::new();
    for (at, deed) in deeds.iter().enumerate() {
        if let Deed::InPlace {
            by,
            bytes: true,
            paths,
            ..
        } = deed
        {
            let seen = paths.iter().flatten().find(|p| is_users(p));
            bad.extend(seen.map(|p| format!("I6: {by} writes \"{p}\" where users see it")));
        }
        let Some((by, changes)) = by_engine(deed) else {
            continue;
        };
        for path in changes
            .iter()
            .filter(|c| c.now.is_none())
            .filter_map(|c| c.path.as_ref())
        {
            let excused = || by_users(deeds).any(|(when, p)| when < at && path.is_within(p));
            if replaced.contains(path) && !excused() {
                bad.push(format!(
                    "I6: {by} leaves nothing at \"{path}\", which is replaced"
                ));
            }
        }
    }
    bad
}

/// I14: special and ignored objects stay where and as they are, and what a program has open for writing is
/// not changed in place, where leases tell. Something that took a name while the engine was about it may be
/// moved aside.
pub(crate) fn hands_off(deeds: &[Deed], leases: bool) -> Vec<String> {
    let mut bad = Vec::new();
    for (at, deed) in deeds.iter().enumerate() {
        if let Some((by, changes)) = by_engine(deed) {
            let kept = |c: &&NameChange| {
                let path = c.path.as_ref().filter(|p| is_users(p));
                let special = c.was.is_some_and(|o| o.kind == Kind::Special);
                path.is_some_and(|p| special || is_ignored(p))
            };
            for change in changes.iter().filter(kept) {
                let path = change.path.as_ref();
                let taken = |(when, p): (usize, &RelPath)| {
                    when < at && path.is_some_and(|path| path.is_within(p))
                };
                if !by_users(deeds).any(taken) {
                    bad.push(format!(
                        "I14: {by} changes what is not ours to change: {change:?}"
                    ));
                }
            }
        }
        if let Deed::InPlace {
            by,
            object,
            paths,
            open,
            ..
        } = deed
        {
            let hands_off = |p: &&RelPath| {
                is_users(p) && (*open && leases || object.kind == Kind::Special || is_ignored(p))
            };
            let touched = paths.iter().flatten().find(hands_off);
            bad.extend(touched.map(|p| format!("I14: {by} on \"{p}\", open {open}, in place")));
        }
    }
    bad
}

/// Every path whose name was changed by anybody.
pub(crate) fn moved(deeds: &[Deed]) -> impl Iterator<Item = &RelPath> {
    let changes = deeds.iter().flat_map(|deed| match deed {
        Deed::Names { changes, .. } => changes.as_slice(),
        _ => &[],
    });
    changes.filter_map(|c| c.path.as_ref())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

    use super::*;
    use instep_fs::sim::Object;

    fn path(p: &str) -> RelPath {
        RelPath::new(p.as_bytes()).unwrap()
    }

    fn object(id: u64, kind: Kind) -> Object {
        Object { id, kind }
    }

    fn name(p: &str, was: impl Into<Option<Object>>, now: impl Into<Option<Object>>) -> NameChange {
        NameChange {
            path: Some(path(p)),
            was: was.into(),
            now: now.into(),
        }
    }

    fn names(by: Option<&'static str>, changes: &[NameChange]) -> Deed {
        Deed::Names {
            by,
            changes: changes.to_vec(),
        }
    }

    fn in_place(p: &str, kind: Kind, bytes: bool, open: bool) -> Deed {
        Deed::InPlace {
            by: "write_all_at",
            bytes,
            object: object(7, kind),
            paths: vec![Some(path(p))],
            open,
        }
    }

    #[test]
    fn what_is_done_outside_the_root_is_not_seen() {
        let nowhere = NameChange {
            path: None,
            was: None,
            now: Some(object(1, Kind::File)),
        };
        let escape = [names(Some("publish"), std::slice::from_ref(&nowhere))];
        assert_eq!(confined(&escape).len(), 1);
        let listed = Deed::Listed {
            dir: None,
            complete: true,
        };
        assert_eq!(confined(&[listed]).len(), 1);
        let by_user = [names(None, &[nowhere])];
        let inside = [names(
            Some("publish"),
            &[name("a", None, object(1, Kind::File))],
        )];
        assert!(confined(&by_user).is_empty() && confined(&inside).is_empty());
    }

    #[test]
    fn a_name_that_is_free_for_an_instant_is_not_seen() {
        let replaced = BTreeSet::from([path("d/a")]);
        let away = || {
            names(
                Some("rename_noreplace"),
                &[
                    name("d/a", object(1, Kind::File), None),
                    name(".instep/trash/x", None, object(1, Kind::File)),
                ],
            )
        };
        assert_eq!(whole(&[away()], &replaced).len(), 1);
        assert!(whole(&[away()], &BTreeSet::new()).is_empty());
        let by_user = names(None, &[name("d", object(2, Kind::Dir), None)]);
        assert!(whole(&[by_user, away()], &replaced).is_empty());
        let exchange = names(
            Some("exchange"),
            &[name("d/a", object(1, Kind::File), object(3, Kind::Link))],
        );
        assert!(whole(&[exchange], &replaced).is_empty());
    }

    #[test]
    fn half_a_file_that_a_user_sees_is_not_seen() {
        let none = BTreeSet::new();
        assert_eq!(
            whole(&[in_place("a", Kind::File, true, false)], &none).len(),
            1
        );
        let staged = in_place(".instep/staging/x", Kind::File, true, false);
        let mode = in_place("a", Kind::File, false, false);
        assert!(whole(&[staged, mode], &none).is_empty());
    }

    #[test]
    fn a_special_an_ignored_or_an_open_file_is_changed_unseen() {
        let fifo = name("p", object(1, Kind::Special), None);
        let ignored = name("d/x.ign", object(2, Kind::File), None);
        for change in [&fifo, &ignored] {
            let alone = [names(Some("exchange"), std::slice::from_ref(change))];
            assert_eq!(hands_off(&alone, true).len(), 1, "{change:?}");
        }
        let just_made = names(None, &[name("p", None, object(1, Kind::Special))]);
        assert!(hands_off(&[just_made, names(Some("exchange"), &[fifo])], true).is_empty());
        for deed in [
            in_place("p", Kind::Special, false, false),
            in_place("x.ign", Kind::File, false, false),
            in_place("a", Kind::File, false, true),
        ] {
            assert_eq!(
                hands_off(std::slice::from_ref(&deed), true).len(),
                1,
                "{deed:?}"
            );
        }
        assert!(hands_off(&[in_place("a", Kind::File, false, false)], true).is_empty());
        assert!(hands_off(&[in_place("a", Kind::File, false, true)], false).is_empty());
    }
}
