//! Directories that stand only because of what is in them are alike everywhere.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use instep_core::attributes::Carried;
use instep_core::entry::Entry;
use instep_core::id::{ActorId, Dot};
use instep_core::path::RelPath;
use instep_core::plan::Goal;
use instep_core::policy::{Policies, Role};
use instep_core::reconcile::{Side, reconcile};
use instep_core::row::{Print, Row};
use instep_core::version::{Kind, Version};

fn tomb() -> Entry {
    let dot = Dot {
        actor: ActorId([1; 8]),
        counter: 1,
    };
    let version = Version {
        te: 1,
        mode_te: 1,
        ..Version::bare(Kind::Tomb)
    };
    Entry::first(dot, version)
}

fn standing(mode: u16) -> Row {
    let print = Print {
        ino: 1,
        hash: u64::from(mode),
        mode,
    };
    Row {
        entry: tomb(),
        print: Some(print),
        ..Row::default()
    }
}

#[test]
fn directories_that_stand_for_their_contents_keep_different_modes() {
    let path = RelPath::new(b"d").unwrap();
    let (plain, private) = (standing(0o755), standing(0o700));
    let side = |row| Side {
        row: Some(row),
        role: Role::Both,
        writable: true,
        modes: true,
        covered: false,
        carried: Carried::default(),
    };
    let sides = [side(&plain), side(&private)];
    let decision = reconcile(&path, &sides, &Entry::default(), true, &Policies::default());
    let done: Vec<_> = decision
        .actions
        .iter()
        .map(|a| (a.replica, &a.goal, a.shown))
        .collect();
    assert_eq!(
        done,
        [(
            1,
            &Goal::Metadata {
                mode: 0o755,
                mtime: None
            },
            None
        )]
    );
}
