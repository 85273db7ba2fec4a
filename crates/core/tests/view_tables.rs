//! What concurrent siblings amount to, cell by cell: kinds of siblings against policies.
//!
//! Sibling `n` is by actor `n`, and a greater number is newer. The preferred replica is actor 1, which is
//! always the oldest, so that preferring it never looks like `newest` by accident.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use instep_core::entry::Entry;
use instep_core::id::{ActorId, ContentId, Dot};
use instep_core::policy::{ConflictPolicy, Policies};
use instep_core::time::Mtime;
use instep_core::version::{Kind, Version};
use instep_core::view::{Shown, View, view};
use proptest::collection::vec;
use proptest::prelude::*;

fn dot(actor: u8) -> Dot {
    Dot {
        actor: ActorId([actor; 8]),
        counter: 1,
    }
}

fn version(kind: Kind, content: u8, te: i64) -> Version {
    let has_mode = matches!(kind, Kind::File | Kind::Dir);
    Version {
        content: ContentId([content; 32]),
        size: 1,
        mode: if has_mode { 0o644 } else { 0 },
        mtime: Mtime::from_nanos(te),
        te,
        mode_te: te,
        ..Version::bare(kind)
    }
}

/// One sibling: `f` file, `l` link, `d` directory, `t` tombstone (of the content), each with the letter of
/// its content; `fA!` changed metadata only; `fB<A` was made from A.
fn sibling(text: &str, te: i64) -> Version {
    let mut letters = text.chars();
    let kind = match letters.next().unwrap() {
        'f' => Kind::File,
        'l' => Kind::Link,
        'd' => Kind::Dir,
        't' => Kind::Tomb,
        other => panic!("no kind {other}"),
    };
    let content = if kind == Kind::Dir {
        0
    } else {
        letters.next().unwrap() as u8
    };
    let mut v = version(kind, content, te);
    while let Some(mark) = letters.next() {
        match mark {
            '!' => v.meta_only = true,
            '<' => v.prev.push(ContentId([letters.next().unwrap() as u8; 32])),
            other => panic!("no mark {other}"),
        }
    }
    v
}

fn entry(siblings: &str) -> Entry {
    siblings
        .split_whitespace()
        .zip(1..)
        .fold(Entry::default(), |e, (text, n)| {
            e.merge(&Entry::first(dot(n), sibling(text, i64::from(n))))
        })
}

fn under(policy: ConflictPolicy) -> Policies {
    Policies([(0, policy)].into())
}

/// `winner|losers|beside`, by actor.
fn told(view: &View) -> String {
    let actors = |dots: &[Dot]| {
        let mut actors: Vec<_> = dots.iter().map(|d| d.actor.0[0].to_string()).collect();
        actors.sort();
        actors.join(" ")
    };
    let at = match view.shown {
        Shown::Version { dot, .. } => dot.actor.0[0].to_string(),
        Shown::Frozen => "frozen".into(),
        Shown::Standing => "standing".into(),
        Shown::Unknown => "unknown".into(),
    };
    format!("{at}|{}|{}", actors(&view.losers), actors(&view.beside))
}

/// A row of the table: the siblings, then `newest`, `keep-both`, `prefer 1`, `manual`.
#[track_caller]
fn row(siblings: &str, newest: &str, keep_both: &str, prefer: &str, manual: &str) {
    let entry = entry(siblings);
    let prefer_of = |actor| ConflictPolicy::Prefer([ActorId([actor; 8])].into());
    for (policy, want) in [
        (ConflictPolicy::Newest, newest),
        (ConflictPolicy::KeepBoth, keep_both),
        (prefer_of(1), prefer),
        (prefer_of(99), newest),
        (ConflictPolicy::Manual, manual),
    ] {
        let got = told(&view(&entry, &under(policy.clone())));
        assert_eq!(got, want, "{siblings} under {policy:?}");
    }
}

#[track_caller]
fn row_of_all(siblings: &str, want: &str) {
    row(siblings, want, want, want, want);
}

#[test]
fn nothing_known_shows_nothing_and_one_sibling_shows_itself() {
    row_of_all("", "unknown||");
    for one in ["fA", "lA", "d", "tA", "fA!"] {
        row_of_all(one, "1||");
    }
}

#[test]
fn the_same_content_is_no_conflict() {
    row_of_all("fA fA", "2||");
    row_of_all("lA lA", "2||");
    row_of_all("fA fA fA", "3||");
}

#[test]
fn two_files_of_different_content() {
    row("fA fB", "2|1|", "2|1|1", "1|2|", "frozen|1 2|");
}

#[test]
fn an_edit_beats_a_deletion_unless_the_preferred_replica_deleted() {
    row("fA tB", "1||", "1||", "1||", "frozen|1|");
    row("tB fA", "2||", "2||", "1|2|", "frozen|2|");
    // The same content as was removed, but saved again on purpose.
    row("fA tA", "1||", "1||", "1||", "frozen|1|");
}

#[test]
fn a_deletion_beats_a_change_of_metadata_of_what_it_deleted() {
    row_of_all("fA! tA", "2||");
    row_of_all("tA fA!", "1||");
    row_of_all("lA! tA", "2||");
    // Of what it had edited before.
    row_of_all("fA! tB<A", "2||");
    row_of_all("tB<A fA!", "1||");
    // Of something else than it deleted.
    row("fA! tB", "1||", "1||", "1||", "frozen|1|");
}

#[test]
fn links_conflict_like_files() {
    row("lA lB", "2|1|", "2|1|1", "1|2|", "frozen|1 2|");
    row("fA lB", "2|1|", "2|1|1", "1|2|", "frozen|1 2|");
    row("lA fB", "2|1|", "2|1|1", "1|2|", "frozen|1 2|");
    row("lA tB", "1||", "1||", "1||", "frozen|1|");
    row("tA lB", "2||", "2||", "1|2|", "frozen|2|");
    // The same bytes, once as content and once as target, are two different things.
    row("fA lA", "2|1|", "2|1|1", "1|2|", "frozen|1 2|");
}

#[test]
fn directories_merge_and_survive_a_deletion_unless_it_is_preferred() {
    row_of_all("d d", "2||");
    row_of_all("d tA", "1||");
    row("tA d", "2||", "2||", "1||", "2||");
}

#[test]
fn a_directory_keeps_the_name_unless_a_file_is_preferred() {
    row("d fA", "1|2|2", "1|2|2", "1|2|2", "frozen|2|");
    row("fA d", "2|1|1", "2|1|1", "1||", "frozen|1|");
    row("d lA", "1|2|2", "1|2|2", "1|2|2", "frozen|2|");
    row("lA d", "2|1|1", "2|1|1", "1||", "frozen|1|");
}

#[test]
fn deletions_merge() {
    // Whose deletion counts makes no difference on disk.
    row("tA tB", "2||", "2||", "1||", "2||");
    row_of_all("tA tA", "2||");
}

#[test]
fn three_siblings() {
    row("fA fB tC", "2|1|", "2|1|1", "1|2|", "frozen|1 2|");
    row("fA fB fC", "3|1 2|", "3|1 2|1 2", "1|2 3|", "frozen|1 2 3|");
    row("tA fB fC", "3|2|", "3|2|2", "1|2 3|", "frozen|2 3|");
    row("fA d lB", "2|1 3|1 3", "2|1 3|1 3", "1|3|", "frozen|1 3|");
    row("tA d fB", "2|3|3", "2|3|3", "1|3|", "frozen|3|");
    row("tA tB d", "3||", "3||", "1||", "3||");
    // Two losers of the same content are one.
    row("fA fA fB", "3|2|", "3|2|2", "1|3|", "frozen|1 2 3|");
    // A loser of the winner's content is none.
    row("fA fB fA", "3|2|", "3|2|2", "1|2|", "frozen|1 2 3|");
}

#[test]
fn a_change_of_metadata_gives_way_to_a_change_of_content() {
    row_of_all("fA! fB<A", "2||");
    row_of_all("fB<A fA!", "1||");
    row_of_all("lA! lB<A", "2||");
    row_of_all("fA! d<A", "2||");
    // Not made from that content: both are kept.
    row("fA! fB<C", "2|1|", "2|1|1", "1|2|", "frozen|1 2|");
    // Each was made from the other: neither gives way.
    row("fA!<B fB<A", "2|1|", "2|1|1", "1|2|", "frozen|1 2|");
    row("fA!<B fB!<A", "2|1|", "2|1|1", "1|2|", "frozen|1 2|");
}

#[test]
fn a_circle_of_changes_of_metadata_does_not_make_the_path_unknown() {
    row(
        "fA!<C fB!<A fC!<B",
        "3|1 2|",
        "3|1 2|1 2",
        "1|2 3|",
        "frozen|1 2 3|",
    );
}

#[test]
fn the_newest_of_equal_times_is_chosen_by_content_and_then_by_dot() {
    let at = |actor, content| Entry::first(dot(actor), version(Kind::File, content, 5));
    let shown = |a: Entry, b: Entry| told(&view(&a.merge(&b), &Policies::default()));
    assert_eq!(shown(at(1, 9), at(2, 3)), "1|2|");
    assert_eq!(shown(at(1, 3), at(2, 3)), "2||");
}

#[test]
fn a_newer_chmod_survives_a_concurrent_edit() {
    let mut chmod = sibling("fA!", 10);
    (chmod.mode, chmod.mode_te) = (0o700, 10);
    let mut edit = sibling("fB<A", 20);
    edit.mode_te = 1;
    let both = Entry::first(dot(1), chmod).merge(&Entry::first(dot(2), edit.clone()));
    let shown = view(&both, &Policies::default()).shown;
    assert_eq!(
        shown,
        Shown::Version {
            dot: dot(2),
            mode: 0o700
        }
    );
    edit.mode_te = 11;
    let later = Entry::first(dot(1), sibling("fA!", 10)).merge(&Entry::first(dot(2), edit));
    let shown = view(&later, &Policies::default()).shown;
    assert_eq!(
        shown,
        Shown::Version {
            dot: dot(2),
            mode: 0o644
        }
    );
    // A link has no bits of its own, and takes none from a file.
    let mut link = sibling("lC", 30);
    link.mode_te = 0;
    let link = Entry::first(dot(3), link).merge(&both);
    let shown = view(&link, &Policies::default()).shown;
    assert_eq!(
        shown,
        Shown::Version {
            dot: dot(3),
            mode: 0
        }
    );
}

#[test]
fn a_conflict_falls_under_the_newest_policy_that_its_versions_know() {
    let policies = Policies([(0, ConflictPolicy::Newest), (3, ConflictPolicy::KeepBoth)].into());
    let of_epochs = |one, two| {
        let at = |n: u8, content, policy_epoch| {
            let v = version(Kind::File, content, i64::from(n));
            Entry::first(dot(n), Version { policy_epoch, ..v })
        };
        told(&view(&at(1, 1, one).merge(&at(2, 2, two)), &policies))
    };
    assert_eq!(of_epochs(0, 2), "2|1|");
    assert_eq!(of_epochs(3, 0), "2|1|1");
    assert_eq!(of_epochs(7, 1), "2|1|1");
}

#[test]
fn an_old_conflict_is_decided_anew_when_a_later_version_joins_it_under_another_policy() {
    let prefer = ConflictPolicy::Prefer([ActorId([1; 8])].into());
    let of = |policies: [ConflictPolicy; 2], siblings: [(&str, u32); 3]| {
        let entries = siblings.into_iter().zip(1..);
        let entries = entries.map(|((text, policy_epoch), n)| {
            let v = sibling(text, i64::from(n));
            Entry::first(dot(n), Version { policy_epoch, ..v })
        });
        let all = entries.fold(Entry::default(), |all, one| all.merge(&one));
        told(&view(&all, &Policies((0..).zip(policies).collect())))
    };
    let newest_then =
        |policy: &ConflictPolicy, siblings| of([ConflictPolicy::Newest, policy.clone()], siblings);
    // The deletion had lost, and so had the version: what is preferred now must be newer than that.
    assert_eq!(
        newest_then(&prefer, [("tA", 0), ("fB", 0), ("fC", 1)]),
        "3|2|"
    );
    assert_eq!(
        newest_then(&prefer, [("fA", 0), ("fB", 0), ("fC", 1)]),
        "3|1 2|"
    );
    assert_eq!(
        newest_then(&prefer, [("tA", 1), ("fB", 0), ("fC", 0)]),
        "1|2 3|"
    );
    // Alone it had lost against nobody.
    assert_eq!(
        newest_then(&prefer, [("tA", 0), ("fB", 1), ("fC", 1)]),
        "1|2 3|"
    );
    let manual = ConflictPolicy::Manual;
    assert_eq!(
        newest_then(&manual, [("fA", 0), ("fB", 0), ("fB", 1)]),
        "3|1|"
    );
    assert_eq!(
        newest_then(&manual, [("fA", 0), ("fB", 0), ("fC", 1)]),
        "frozen|1 2 3|"
    );
    // Nobody has decided the old one: what comes later decides it with itself.
    let siblings = [("fA", 0), ("fB", 0), ("fC", 1)];
    assert_eq!(of([manual, prefer], siblings), "1|2 3|");
}

fn any_sibling() -> impl Strategy<Value = Version> {
    let kind = prop::sample::select(vec![Kind::File, Kind::Dir, Kind::Link, Kind::Tomb]);
    let prev = vec((0..3_u8).prop_map(|c| ContentId([c; 32])), 0..3);
    (
        kind,
        0..3_u8,
        0..3_i64,
        0..3_i64,
        prev,
        any::<bool>(),
        0..2_u32,
        0..2_u16,
    )
        .prop_map(
            |(kind, content, te, mode_te, prev, meta_only, policy_epoch, mode)| {
                let content = if kind == Kind::Dir { 0 } else { content };
                Version {
                    mode_te,
                    attributes: None,
                    prev,
                    meta_only,
                    policy_epoch,
                    mode,
                    ..version(kind, content, te)
                }
            },
        )
}

fn any_policies() -> impl Strategy<Value = Policies> {
    let policy = prop_oneof![
        Just(ConflictPolicy::Newest),
        Just(ConflictPolicy::KeepBoth),
        vec(0..6_u8, 0..3).prop_map(|actors| {
            ConflictPolicy::Prefer(actors.into_iter().map(|a| ActorId([a; 8])).collect())
        }),
        Just(ConflictPolicy::Manual),
    ];
    vec(policy, 1..3).prop_map(|p| Policies((0..).zip(p).collect()))
}

/// Bytes that a power cut may have torn, and ancestors, have no instant.
#[test]
fn what_was_minted_without_an_instant_is_preferred_or_asked_about() {
    let known = |te| {
        let theirs = Entry::first(dot(1), version(Kind::File, b'a', te));
        theirs.merge(&Entry::first(dot(2), version(Kind::File, b'b', 5)))
    };
    let policies = |policy| Policies([(0, policy)].into());
    let prefer = policies(ConflictPolicy::Prefer([ActorId([1; 8])].into()));
    assert_eq!(view(&known(4), &prefer).dot(), Some(dot(1)));
    assert_eq!(view(&known(0), &prefer).dot(), Some(dot(2)));
    let manual = policies(ConflictPolicy::Manual);
    assert_eq!(view(&known(4), &manual).shown, Shown::Frozen);
    assert_eq!(view(&known(0), &manual).dot(), Some(dot(2)));
    assert_eq!(view(&known(0), &manual).losers, [dot(1)]);
}

#[test]
fn a_deletion_is_undone_by_bytes_that_a_power_cut_may_have_torn() {
    let known = |kind, te| {
        let found = Entry::first(dot(1), version(kind, b'a', te));
        found.merge(&Entry::first(dot(2), version(Kind::Tomb, b'b', 5)))
    };
    let told_all = |entry: &Entry| {
        [
            ConflictPolicy::Newest,
            ConflictPolicy::KeepBoth,
            ConflictPolicy::Manual,
        ]
        .map(|policy| told(&view(entry, &under(policy))))
    };
    assert_eq!(told_all(&known(Kind::File, 4)), ["1||", "1||", "frozen|1|"]);
    // It is kept, as the loser that it is.
    assert_eq!(told_all(&known(Kind::File, 0)), ["2|1|"; 3]);
    assert_eq!(told_all(&known(Kind::Dir, 0)), ["2||"; 3]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_in_which_siblings_arrive_does_not_matter(
        siblings in vec(any_sibling(), 1..6).prop_flat_map(|s| {
            let numbered: Vec<_> = s.into_iter().zip(0..).collect();
            (Just(numbered.clone()), Just(numbered).prop_shuffle())
        }),
        policies in any_policies(),
    ) {
        let build = |order: &[(Version, u8)]| order.iter().fold(Entry::default(), |e, (v, n)| {
            e.merge(&Entry::first(dot(*n), v.clone()))
        });
        let (one, two) = (build(&siblings.0), build(&siblings.1));
        prop_assert_eq!(view(&one, &policies), view(&two, &policies));
    }

    /// What is shown is a sibling, and no content of a sibling disappears without a word: it is shown, it
    /// lost, or it gave way as a mere change of metadata.
    #[test]
    fn no_content_disappears(siblings in vec(any_sibling(), 1..6), policies in any_policies()) {
        let entry = siblings.into_iter().zip(0..).fold(Entry::default(), |e, (v, n)| {
            e.merge(&Entry::first(dot(n), v))
        });
        let view = view(&entry, &policies);
        prop_assert_ne!(view.shown, Shown::Unknown);
        let shown = view.dot().map(|d| entry.get(d).unwrap());
        let lost: Vec<_> = view.losers.iter().map(|d| entry.get(*d).unwrap()).collect();
        for (_, v) in entry.siblings() {
            let accounted = shown.is_some_and(|s| s.same_content(v))
                || lost.iter().any(|l| l.same_content(v))
                || v.meta_only;
            prop_assert!(accounted || !matches!(v.kind, Kind::File | Kind::Link), "{v:?}");
        }
        for d in &view.beside {
            prop_assert!(view.losers.contains(d));
        }
    }
}
