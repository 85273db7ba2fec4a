//! What is done about a path, cell by cell: how two entries relate (A), what is there against what comes (B),
//! directories that are alive (D), and what is in the way (E). Conflicts (C) are in `view_tables.rs`.
//!
//! Three replicas: `L` is the first, where the cell is tried; `R` has what `L` lacks; `S` stands by and knows
//! what `L` knows. Each row reads: what `L` shows, what comes, what `L` does.
//!
//! Decided elsewhere: what is on a disk and in no index (B, last row) is refused by the replica, whose
//! precondition fails (`an_unseen_file_is_overwritten` in the conformance suite); husks and `ENOTEMPTY` (D, E)
//! are found when a directory is removed (`a_directory_goes_with_an_unseen_file`,
//! `a_directory_goes_with_ignored_files`, in the same suite); what a moved directory takes along is the
//! replica's rename (`crates/replica/src/conformance/rename.rs`); that a rule makes no tombstone is decided
//! where versions are minted (`crates/replica/src/mint.rs`). Patterns marked `deletable` do not exist.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use instep_core::entry::{Context, Entry};
use instep_core::id::{ActorId, ContentId, Dot};
use instep_core::path::RelPath;
use instep_core::plan::{Action, Code, Goal, Keep, Precondition};
use instep_core::policy::{ConflictPolicy, Policies, Role};
use instep_core::reconcile::{Decision, Side, moved_out, order, reconcile};
use instep_core::row::{Held, Print, Row};
use instep_core::time::Mtime;
use instep_core::version::{Kind, Version};
use instep_core::view::{Shown, view};

const L: u8 = 1;
const R: u8 = 2;

fn p(path: &str) -> RelPath {
    RelPath::new(path.as_bytes()).unwrap()
}

fn dot(actor: u8, counter: u64) -> Dot {
    Dot {
        actor: ActorId([actor; 8]),
        counter,
    }
}

/// `f` file, `d` directory, `l` link, `t` tombstone, with the letter of its content.
fn version(text: &str, te: i64) -> Version {
    let mut letters = text.bytes();
    let kind = match letters.next().unwrap() {
        b'f' => Kind::File,
        b'd' => Kind::Dir,
        b'l' => Kind::Link,
        b't' => Kind::Tomb,
        other => panic!("no kind {other}"),
    };
    let content = letters
        .next()
        .map_or(ContentId::NONE, |c| ContentId([c; 32]));
    Version {
        kind,
        content,
        size: u64::from(kind == Kind::File),
        mode: match kind {
            Kind::File => 0o644,
            Kind::Dir => 0o755,
            Kind::Link | Kind::Tomb => 0,
        },
        mtime: Mtime::from_nanos(if kind == Kind::Dir { 0 } else { te }),
        te,
        mode_te: te,
        attributes: None,
        target: if kind == Kind::Link {
            b"to"[..].into()
        } else {
            Box::default()
        },
        prev: Vec::new(),
        moved: None,
        meta_only: false,
        policy_epoch: 0,
    }
}

fn print(version: &Version) -> Print {
    Print {
        ino: 7,
        hash: u64::from(version.content.0[0]),
        mode: version.mode,
    }
}

/// A row that shows its newest event.
fn row(entry: &Entry, shown: Dot) -> Row {
    let version = entry.get(shown).unwrap();
    Row {
        entry: entry.clone(),
        shown: Some(shown),
        print: (!version.is_tomb()).then(|| print(version)),
        ..Row::default()
    }
}

fn first(actor: u8, text: &str, te: i64) -> Row {
    row(
        &Entry::first(dot(actor, 1), version(text, te)),
        dot(actor, 1),
    )
}

/// The same after its owner was followed by somebody.
fn then(row_before: &Row, actor: u8, text: &str, te: i64) -> Row {
    let entry = row_before.entry.record(dot(actor, 2), version(text, te));
    row(&entry, dot(actor, 2))
}

fn of(policy: ConflictPolicy) -> Policies {
    Policies([(0, policy)].into())
}

fn every_policy() -> [Policies; 5] {
    let prefer = |actor| ConflictPolicy::Prefer([ActorId([actor; 8])].into());
    [
        ConflictPolicy::Newest,
        ConflictPolicy::KeepBoth,
        prefer(L),
        prefer(R),
        ConflictPolicy::Manual,
    ]
    .map(of)
}

fn side(row: Option<&Row>) -> Side<'_> {
    Side {
        row,
        role: Role::Both,
        writable: true,
        modes: true,
        covered: false,
        carried: instep_core::attributes::Carried::default(),
    }
}

fn decide(rows: &[Option<&Row>], alive_below: bool, policies: &Policies) -> Decision {
    let sides: Vec<_> = rows.iter().map(|r| side(*r)).collect();
    reconcile(&p("x"), &sides, &Entry::default(), alive_below, policies)
}

/// What an action does, in a word: the goal, and `>trash` or `>kept` where something is displaced.
fn told(action: &Action) -> String {
    let goal = match &action.goal {
        Goal::File { content, .. } => format!("file {}", char::from(content.0[0])),
        Goal::Dir { mode } => format!("dir {mode:o}"),
        Goal::Link { target, .. } => format!("link {}", String::from_utf8_lossy(target)),
        Goal::Absent => "absent".into(),
        Goal::Metadata { mode, .. } => format!("mode {mode:o}"),
        Goal::Record => "record".into(),
        Goal::Rename { from } => format!("from {from}"),
    };
    let is_moved = !matches!(action.goal, Goal::Record | Goal::Metadata { .. });
    match (action.before, action.keep) {
        (Precondition::Unchanged { .. }, Keep::Trash) if is_moved => format!("{goal} >trash"),
        (Precondition::Unchanged { .. }, Keep::Version(_)) if is_moved => format!("{goal} >kept"),
        _ => goal,
    }
}

/// What a replica does; `-` for nothing.
fn at(decision: &Decision, replica: usize) -> String {
    let mut mine = decision.actions.iter().filter(|a| a.replica == replica);
    let told = mine.next().map_or("-".into(), told);
    assert!(mine.next().is_none(), "one action for each replica");
    let mut blocked = decision.blocked.iter().filter(|(i, _)| *i == replica);
    match blocked.next() {
        Some((_, problem)) if told == "-" => format!("blocked {}", problem.code.text()),
        Some(_) => panic!("it acts although it is blocked"),
        None => told,
    }
}

/// An action demands what its row says is there, and leaves what everybody knows.
#[track_caller]
fn check(decision: &Decision, rows: &[Option<&Row>]) {
    for action in &decision.actions {
        let here = rows[action.replica].cloned().unwrap_or_default();
        let before = match (here.print, here.present()) {
            (None, _) => Precondition::Absent,
            (Some(print), v) => Precondition::Unchanged {
                kind: v.map_or(Kind::Dir, |v| v.kind),
                print,
                content: v.map_or(ContentId::NONE, |v| v.content),
            },
        };
        assert_eq!(action.before, before, "{action:?}");
        assert_eq!(action.entry, decision.entry, "{action:?}");
        assert!(
            action.shown.is_none_or(|d| decision.entry.get(d).is_some()),
            "{action:?}"
        );
    }
}

// --- A: how the local and the remote entry relate

#[test]
fn a_equal_nothing_is_done() {
    for text in ["fA", "d", "lA", "tA"] {
        let here = first(L, text, 1);
        for policies in every_policy() {
            let decision = decide(&[Some(&here), Some(&here), Some(&here)], false, &policies);
            assert_eq!(decision.actions, [], "{text}");
            assert!(decision.view.losers.is_empty() && decision.blocked.is_empty());
        }
    }
}

#[test]
fn a_the_remote_is_an_ancestor_and_gets_ours() {
    let old = first(R, "fA", 1);
    let ours = then(&old, L, "fB", 2);
    for policies in every_policy() {
        let rows = [Some(&ours), Some(&old), Some(&old)];
        let decision = decide(&rows, false, &policies);
        check(&decision, &rows);
        let all = [0, 1, 2].map(|i| at(&decision, i));
        assert_eq!(all, ["-", "file B >trash", "file B >trash"]);
        assert!(decision.view.losers.is_empty());
    }
}

#[test]
fn a_the_remote_is_a_descendant_and_no_policy_is_asked() {
    let old = first(L, "fA", 9);
    let theirs = then(&old, R, "fB", 2);
    for policies in every_policy() {
        let rows = [Some(&old), Some(&theirs), Some(&old)];
        let decision = decide(&rows, false, &policies);
        check(&decision, &rows);
        let all = [0, 1, 2].map(|i| at(&decision, i));
        assert_eq!(all, ["file B >trash", "-", "file B >trash"]);
        assert!(decision.view.losers.is_empty());
    }
}

#[test]
fn a_concurrent_changes_fall_under_the_policy() {
    let (ours, theirs) = (first(L, "fA", 1), first(R, "fB", 2));
    let told: Vec<_> = every_policy()
        .iter()
        .map(|policies| {
            let rows = [Some(&ours), Some(&theirs), None];
            let decision = decide(&rows, false, policies);
            check(&decision, &rows);
            let beside = decision.derived.len();
            ([0, 1, 2].map(|i| at(&decision, i)).join(", "), beside)
        })
        .collect();
    let want = [
        ("file B >kept, record, file B", 0),
        ("file B >kept, record, file B", 1),
        ("record, file A >kept, file A", 0),
        ("file B >kept, record, file B", 0),
        ("record, record, record", 0),
    ];
    assert_eq!(told, want.map(|(text, n)| (text.to_owned(), n)));
}

#[test]
fn a_one_event_with_two_contents_keeps_both() {
    let (ours, theirs) = (first(L, "fA", 1), first(L, "fB", 2));
    let rows = [Some(&ours), Some(&theirs), None];
    let decision = decide(&rows, false, &Policies::default());
    check(&decision, &rows);
    let all = [0, 1, 2].map(|i| at(&decision, i));
    assert_eq!(all, ["file B >kept", "record", "file B"]);
    assert_eq!(decision.view.losers.len(), 1);
}

// --- B: what is there against what comes

/// A row of the table: what comes for a file, a directory, a link and a tombstone.
#[track_caller]
fn b(local: Option<&str>, want: [&str; 4]) {
    for (coming, want) in ["fN", "d", "lN", "tN"].into_iter().zip(want) {
        let before = local.map(|text| first(L, text, 1));
        let theirs = match &before {
            Some(before) => then(before, R, coming, 2),
            None => first(R, coming, 2),
        };
        for policies in every_policy() {
            let rows = [before.as_ref(), Some(&theirs), before.as_ref()];
            let decision = decide(&rows, false, &policies);
            check(&decision, &rows);
            assert_eq!(at(&decision, 0), want, "{coming} over {local:?}");
            assert_eq!(at(&decision, 2), want, "{coming} over {local:?}");
            assert_eq!(at(&decision, 1), "-", "who has it already does nothing");
            assert!(decision.view.losers.is_empty(), "{coming} over {local:?}");
            let shown = decision.actions.iter().all(|a| a.shown == theirs.shown);
            assert!(shown, "{coming} over {local:?}");
        }
    }
}

#[test]
fn b_over_nothing() {
    b(None, ["file N", "dir 755", "link to", "record"]);
}

#[test]
fn b_over_a_file() {
    b(
        Some("fA"),
        [
            "file N >trash",
            "dir 755 >trash",
            "link to >trash",
            "absent >trash",
        ],
    );
}

#[test]
fn b_over_a_directory_in_which_nothing_is_alive() {
    // The same directory again is a matter of metadata.
    b(
        Some("d"),
        ["file N >trash", "record", "link to >trash", "absent >trash"],
    );
}

#[test]
fn b_over_a_directory_with_another_mode() {
    let old = first(L, "d", 1);
    let chmod = Version {
        mode: 0o700,
        ..version("d", 2)
    };
    let theirs = row(&old.entry.record(dot(R, 2), chmod), dot(R, 2));
    let decision = decide(&[Some(&old), Some(&theirs)], true, &Policies::default());
    assert_eq!(at(&decision, 0), "mode 700");
}

#[test]
fn b_over_a_directory_in_which_something_is_alive() {
    let old = first(L, "d", 1);
    for (coming, beside) in [("fN", 1), ("lN", 1), ("tN", 0)] {
        let theirs = then(&old, R, coming, 2);
        for policies in [ConflictPolicy::Newest, ConflictPolicy::KeepBoth].map(of) {
            let rows = [Some(&old), Some(&theirs), None];
            let decision = decide(&rows, true, &policies);
            check(&decision, &rows);
            // The directory stays, and stands for what is in it; the file or link goes beside it.
            assert_eq!(at(&decision, 0), "record", "{coming}");
            assert_eq!(
                at(&decision, 1),
                if beside == 1 {
                    "dir 755 >kept"
                } else {
                    "record"
                }
            );
            assert_eq!(decision.derived.len(), beside, "{coming}");
            assert!(decision.actions.iter().all(|a| a.shown.is_none()));
        }
    }
}

#[test]
fn b_over_a_link() {
    b(
        Some("lA"),
        [
            "file N >trash",
            "dir 755 >trash",
            "link to >trash",
            "absent >trash",
        ],
    );
}

#[test]
fn b_over_a_tombstone() {
    b(Some("tA"), ["file N", "dir 755", "link to", "record"]);
}

#[test]
fn b_over_a_special_file_everything_is_held() {
    let special = Row {
        held: Some(Held::Special),
        ..Row::default()
    };
    for (coming, want) in [
        ("fN", "blocked E2110"),
        ("d", "blocked E2110"),
        ("lN", "blocked E2110"),
        ("tN", "record"),
    ] {
        let theirs = first(R, coming, 2);
        let rows = [Some(&special), Some(&theirs), None];
        let decision = decide(&rows, false, &Policies::default());
        check(&decision, &rows);
        assert_eq!(at(&decision, 0), want);
        assert_ne!(at(&decision, 2), "-", "the others go on");
    }
}

#[test]
fn b_over_what_is_in_no_index_it_is_demanded_that_nothing_is_there() {
    for coming in ["fN", "d", "lN"] {
        let theirs = first(R, coming, 2);
        let decision = decide(&[None, Some(&theirs)], false, &Policies::default());
        assert_eq!(decision.actions[0].before, Precondition::Absent);
    }
}

// --- D: directories that are alive

#[test]
fn d_nothing_alive_children_go_before_their_directory() {
    let (dir, file) = (first(L, "d", 1), first(L, "fA", 1));
    let mut actions = Vec::new();
    for (path, old) in [("x", &dir), ("x/a", &file), ("x/e", &dir), ("x/e/b", &file)] {
        let gone = then(old, R, "tA", 2);
        let sides = [side(Some(old)), side(Some(&gone))];
        let decision = reconcile(
            &p(path),
            &sides,
            &Entry::default(),
            false,
            &Policies::default(),
        );
        assert_eq!(at(&decision, 0), "absent >trash");
        actions.extend(decision.actions);
    }
    order(&mut actions);
    let order: Vec<_> = actions.iter().map(|a| a.path.to_string()).collect();
    assert_eq!(order, ["x/e/b", "x/e", "x/a", "x"]);
}

#[test]
fn d_a_living_descendant_keeps_its_ancestors_and_no_event_is_minted() {
    let old = first(L, "d", 1);
    let gone = then(&old, R, "tD", 2);
    for policies in every_policy() {
        // L made something below; R has deleted the directory, and never had what is below.
        let rows = [Some(&old), Some(&gone), None];
        let decision = decide(&rows, true, &policies);
        check(&decision, &rows);
        assert_eq!(
            [0, 1, 2].map(|i| at(&decision, i)).join(", "),
            "record, record, record"
        );
        assert!(decision.actions.iter().all(|a| a.shown.is_none()));
        assert_eq!(
            decision.entry, gone.entry,
            "the deletion stands; the directory does, too"
        );
    }
}

#[test]
fn d_a_file_where_a_directory_must_stand_gives_way_at_once() {
    let old = first(L, "fA", 1);
    let gone = then(&old, R, "tA", 2);
    let decision = decide(&[Some(&old), Some(&gone)], true, &Policies::default());
    assert_eq!(at(&decision, 0), "dir 755 >trash");
    assert_eq!(decision.actions[0].shown, None);
}

#[test]
fn d_an_edit_beats_the_deletion_for_that_file_only() {
    let base = first(L, "fA", 1);
    let edited = then(&base, L, "fB", 2);
    let gone = then(&base, R, "tA", 3);
    let newest = Policies::default();
    let decision = decide(&[Some(&edited), Some(&gone), Some(&base)], false, &newest);
    let all = [0, 1, 2].map(|i| at(&decision, i));
    assert_eq!(all, ["record", "file B", "file B >trash"]);
    let covered = decide(&[Some(&base), Some(&gone)], false, &newest);
    assert_eq!(at(&covered, 0), "absent >trash");
}

#[test]
fn d_a_directory_that_stood_alone_goes_with_what_it_stood_for() {
    let gone = first(R, "tD", 2);
    let mut standing = gone.clone();
    (standing.shown, standing.print) = (None, Some(print(&version("d", 1))));
    let newest = Policies::default();
    assert_eq!(
        at(&decide(&[Some(&standing), Some(&gone)], true, &newest), 0),
        "-"
    );
    assert_eq!(
        at(&decide(&[Some(&standing), Some(&gone)], false, &newest), 0),
        "absent >trash"
    );
}

#[test]
fn d_a_directory_that_was_made_for_what_never_came_goes() {
    let standing = Row {
        print: Some(print(&version("d", 1))),
        ..Row::default()
    };
    let newest = Policies::default();
    let rows = [Some(&standing), None];
    assert_eq!(at(&decide(&rows, true, &newest), 0), "-");
    assert_eq!(at(&decide(&rows, false, &newest), 0), "absent >trash");
    let held = held(&standing, Held::Mount);
    assert_eq!(at(&decide(&[Some(&held), None], false, &newest), 0), "-");
}

#[test]
fn d_what_made_room_may_lose_where_it_goes_so_it_is_kept() {
    let prefer_r = of(ConflictPolicy::Prefer([ActorId([R; 8])].into()));
    let ours = first(L, "fA", 1);
    let (there, here) = moved_out(&p("x"), &p("y"), &ours.entry, &prefer_r).unwrap();
    let decision = reconcile(&p("x"), &[side(Some(&ours))], &here, false, &prefer_r);
    assert_eq!(at(&decision, 0), "absent >kept");
    let [(copy, version)] = there.siblings() else {
        panic!("one version, one copy")
    };
    assert_eq!(decision.actions[0].keep, Keep::Version(*copy));
    assert_eq!(version.moved, Some(p("x")));
}

#[test]
fn d_what_lost_to_what_made_room_is_forgotten_when_both_are_ended() {
    let prefer_other = of(ConflictPolicy::Prefer([ActorId([3; 8])].into()));
    let (loser, winner) = (first(L, "fA", 1), first(R, "fB", 2));
    let known = loser.entry.merge(&winner.entry);
    let (there, here) = moved_out(&p("x"), &p("y"), &known, &prefer_other).unwrap();
    assert_eq!(there.siblings().len(), 2);
    let [lost] = view(&there, &prefer_other).losers[..] else {
        panic!("one of them loses there, too")
    };
    assert!(
        there
            .get(lost)
            .unwrap()
            .same_content(loser.present().unwrap())
    );
    let sides = [side(Some(&loser)), side(Some(&winner))];
    let decision = reconcile(&p("x"), &sides, &here, false, &prefer_other);
    assert_eq!(at(&decision, 0), "absent >kept");
    assert_eq!(decision.actions[0].keep, Keep::Version(lost));
    // Whoever met the winner first, and the loser only when that had gone, knows the same in the end.
    let (first_there, first_here) =
        moved_out(&p("x"), &p("y"), &winner.entry, &prefer_other).unwrap();
    let late = loser.entry.merge(&first_here);
    let (late_there, _) = moved_out(&p("x"), &p("y"), &late, &prefer_other).unwrap();
    assert_eq!(first_there.merge(&late_there), there);
}

/// Who comes later meets no preference at the new place either, and all must see the same in the end.
#[test]
fn d_what_was_preferred_wins_where_it_goes_only_for_who_knew_both_at_once() {
    let prefer_l = of(ConflictPolicy::Prefer([ActorId([L; 8])].into()));
    let (chosen, newer) = (first(L, "fA", 1), first(R, "fB", 2));
    let known = chosen.entry.merge(&newer.entry);
    let (at_once, _) = moved_out(&p("x"), &p("y"), &known, &prefer_l).unwrap();
    let (there, here) = moved_out(&p("x"), &p("y"), &chosen.entry, &prefer_l).unwrap();
    let late = newer.entry.merge(&here);
    let (late, _) = moved_out(&p("x"), &p("y"), &late, &prefer_l).unwrap();
    assert_eq!(there.merge(&late), at_once);
    let seen = view(&at_once, &prefer_l);
    let shows = |dot| at_once.get(dot).map(|v| v.content);
    assert_eq!(
        seen.dot().and_then(shows),
        Some(newer.present().unwrap().content)
    );
    let lost: Vec<_> = seen.losers.iter().filter_map(|d| shows(*d)).collect();
    assert_eq!(lost, [chosen.present().unwrap().content]);
}

#[test]
fn d_what_lost_to_a_deletion_comes_to_life_where_others_made_room() {
    let prefer_r = of(ConflictPolicy::Prefer([ActorId([R; 8])].into()));
    let old = first(3, "fO", 1);
    let (edit, gone) = (then(&old, L, "fA", 2), then(&old, R, "tO", 3));
    let known = edit.entry.merge(&gone.entry);
    assert_eq!(view(&known, &prefer_r).losers.len(), 1);
    assert_eq!(moved_out(&p("x"), &p("y"), &known, &prefer_r), None);
}

#[test]
fn d_what_waits_for_a_person_goes_away_to_make_room() {
    let asked = of(ConflictPolicy::Manual);
    let (ours, theirs) = (first(L, "fA", 1), first(R, "d", 2));
    let known = ours.entry.merge(&theirs.entry);
    assert_eq!(view(&known, &asked).shown, Shown::Frozen);
    assert_eq!(moved_out(&p("x"), &p("y"), &known, &asked), None);
}

// --- E: what is in the way

fn held(old: &Row, why: Held) -> Row {
    Row {
        shown: None,
        print: None,
        held: Some(why),
        ..old.clone()
    }
}

#[test]
fn e_what_is_ignored_here_is_left_alone() {
    let old = first(L, "fA", 1);
    let ignored = held(&old, Held::Ignored);
    for coming in ["fN", "d", "lN", "tN"] {
        let theirs = then(&old, R, coming, 2);
        let decision = decide(
            &[Some(&ignored), Some(&theirs)],
            false,
            &Policies::default(),
        );
        assert_eq!(at(&decision, 0), "-", "{coming}");
    }
    // And it says nothing to the others: they keep what they have.
    let decision = decide(
        &[Some(&ignored), Some(&old), Some(&old)],
        false,
        &Policies::default(),
    );
    assert_eq!(decision.actions, []);
}

#[test]
fn e_what_is_held_is_never_written_and_deletes_nothing() {
    let old = first(L, "fA", 1);
    for (why, code) in [
        (Held::Special, Code::Special),
        (Held::UnsafeLink, Code::UnsafeLink),
        (Held::NameClash, Code::NameClash),
        (Held::Mount, Code::Mount),
    ] {
        let here = held(&old, why);
        let rows = [Some(&here), Some(&old), Some(&old)];
        let decision = decide(&rows, false, &Policies::default());
        assert_eq!(decision.actions, [], "{why:?}");
        assert_eq!(at(&decision, 0), format!("blocked {}", code.text()));
        let decision = decide(&rows, true, &Policies::default());
        assert_eq!(
            at(&decision, 0),
            format!("blocked {}", code.text()),
            "also as a directory"
        );
        // A deletion only has to be known.
        let gone = then(&old, R, "tA", 2);
        let decision = decide(&[Some(&here), Some(&gone)], false, &Policies::default());
        assert_eq!(at(&decision, 0), "record", "{why:?}");
    }
}

#[test]
fn e_nothing_is_put_below_a_name_that_is_held() {
    let theirs = first(R, "fN", 2);
    for (coming, want) in [("fN", "-"), ("d", "-"), ("lN", "-"), ("tN", "record")] {
        let theirs = then(&theirs, R, coming, 3);
        let mut sides = [side(None), side(Some(&theirs))];
        sides[0].covered = true;
        let decision = reconcile(
            &p("x/y"),
            &sides,
            &Entry::default(),
            false,
            &Policies::default(),
        );
        assert_eq!(at(&decision, 0), want, "{coming}");
    }
}

#[test]
fn e_a_link_that_leaves_the_root_is_held_where_it_would_be_made() {
    let outside = Version {
        target: b"../../etc"[..].into(),
        ..version("lN", 2)
    };
    let theirs = row(&Entry::first(dot(R, 1), outside), dot(R, 1));
    let decision = decide(&[None, Some(&theirs)], false, &Policies::default());
    assert_eq!(at(&decision, 0), "blocked E2111");
}

// --- mirrors

#[test]
fn a_mirror_gets_what_its_source_does_not_show() {
    let old = first(L, "d", 9);
    let beside = |text| {
        let entry = old
            .entry
            .record_beside(&Context::default(), dot(L, 2), version(text, 1));
        row(&entry, dot(L, 2))
    };
    for (text, want) in [
        ("fN", "file N >trash"),
        ("lN", "link to >trash"),
        ("tN", "absent >trash"),
    ] {
        // A power cut took a directory from the source, and then its user made something else of the name.
        let source = beside(text);
        for target in [&old, &source] {
            let target = row(&target.entry, dot(L, 1));
            let sides = [
                Side {
                    role: Role::Source,
                    ..side(Some(&source))
                },
                Side {
                    role: Role::Target,
                    ..side(Some(&target))
                },
            ];
            for policies in every_policy() {
                let decision = reconcile(&p("x"), &sides, &Entry::default(), false, &policies);
                assert_eq!(at(&decision, 1), want, "{policies:?}");
                assert_eq!(decision.derived, []);
            }
        }
    }
}
