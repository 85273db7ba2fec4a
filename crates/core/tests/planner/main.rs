//! Properties of the planner, without any I/O: one tree is given to several replicas, random scripts edit
//! them, some meet on the way so that what they know overlaps, and then everything is planned and done.
//!
//! P1 is in `merge_algebra.rs`; the rest of P9, where listings are, in `crates/engine/tests/evidence.rs`.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

mod act;
mod canon;
mod exhaust;
mod reference;
mod script;
mod tree;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use instep_core::id::{ActorId, ContentId};
use instep_core::path::RelPath;
use instep_core::plan::{Action, Goal, Keep};
use instep_core::policy::{ConflictPolicy, Policies};
use instep_core::row::Held;
use instep_core::version::{Kind, Version};
use instep_core::view::{Shown, View};
use proptest::prelude::*;

use script::{any_policy, config, deciding, of, prefer, run};
use tree::Plan;
use world::World;

fn rules(policies: &Policies) -> reference::Rules {
    let policy = policies.current();
    reference::Rules {
        prefer: match &policy {
            ConflictPolicy::Prefer(actors) => actors.first().copied(),
            _ => None,
        },
        keep_both: policy == ConflictPolicy::KeepBoth,
    }
}

/// The losers of all views.
fn losers(plan: &Plan) -> BTreeSet<(RelPath, ContentId)> {
    let of = |(path, (entry, view)): (&RelPath, &(_, View))| {
        let entry: &instep_core::entry::Entry = entry;
        let content = |d: &_| (path.clone(), entry.get(*d).unwrap().content);
        view.losers.iter().map(content).collect::<Vec<_>>()
    };
    plan.views.iter().flat_map(of).collect()
}

fn by_place(plan: &Plan, who: &[usize]) -> BTreeMap<(usize, RelPath), Action> {
    let place = |a: &Action| {
        (
            (who[a.replica], a.path.clone()),
            Action {
                replica: 0,
                ..a.clone()
            },
        )
    };
    plan.actions.iter().map(place).collect()
}

/// What a replica shows and knows, without inodes.
fn state(world: &World, i: usize) -> impl PartialEq + std::fmt::Debug + use<> {
    let rows: Vec<_> = world.replicas[i]
        .rows
        .iter()
        .map(|(p, r)| (p.clone(), r.entry.clone(), r.shown, r.print.map(|p| p.mode)))
        .collect();
    (world.shape(i), rows)
}

fn is_deletion(action: &Action) -> bool {
    action.goal == Goal::Absent
}

/// Another order of actions; where `within` says so, deletions stay behind everything else and related
/// paths in their order.
fn shuffled(actions: &[Action], mut dice: u64, within: bool) -> Vec<Action> {
    let mut left: Vec<Action> = actions.to_vec();
    let mut out = Vec::new();
    while !left.is_empty() {
        let bound = |n: usize| {
            left[..n].iter().any(|before| {
                let (a, b) = (&before.path, &left[n].path);
                let related = a.is_within(b) || b.is_within(a);
                before.replica == left[n].replica
                    && (related || is_deletion(before) != is_deletion(&left[n]))
            })
        };
        let free: Vec<usize> = (0..left.len()).filter(|n| !within || !bound(*n)).collect();
        // Xorshift64 (Marsaglia 2003).
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        out.push(left.remove(free[(dice >> 11) as usize % free.len()]));
    }
    out
}

proptest! {
    #![proptest_config(config(250))]

    /// P2 and P4: planning ends, at a state in which there is nothing to do and all trees are equal. On the
    /// way each action finds what the ones before it left: its parent, an empty directory, its precondition.
    #[test]
    fn replicas_never_come_to_rest_or_differ(
        tree in script::tree(), script in script::script(3), policies in deciding(),
    ) {
        let mut world = run(3, policies, &tree, &script);
        world.settle();
        let first = world.shape(0);
        for i in world.all() {
            prop_assert_eq!(&world.shape(i), &first);
        }
    }

    /// P3: unrelated actions of one batch may be carried out in any order.
    #[test]
    fn the_order_of_unrelated_actions_matters(
        tree in script::tree(), script in script::script(3), policies in deciding(), dice in 1..u64::MAX,
    ) {
        let build = || run(3, policies.clone(), &tree, &script);
        let (mut one, mut two) = (build(), build());
        let all = one.all();
        let mut plan = one.plan(&all);
        one.act(&all, &plan);
        plan.actions = shuffled(&plan.actions, dice, true);
        two.act(&all, &plan);
        for i in all {
            prop_assert_eq!(state(&one, i), state(&two, i));
        }
    }

    /// P3: in a wrong order some actions find their precondition broken; what is planned afterwards ends
    /// where the right order would have.
    #[test]
    fn a_batch_in_the_wrong_order_ends_elsewhere(
        tree in script::tree(), script in script::script(3), policies in deciding(), dice in 1..u64::MAX,
    ) {
        let build = || run(3, policies.clone(), &tree, &script);
        let (mut one, mut two) = (build(), build());
        one.settle();
        let all = two.all();
        let plan = two.plan(&all);
        for action in shuffled(&plan.actions, dice, false) {
            let _superseded = two.carry_out(action.replica, &action, &plan);
        }
        two.hear(&all, &plan);
        two.settle();
        for i in all {
            prop_assert_eq!(one.shape(i), two.shape(i));
        }
    }

    /// P5: a content that was on a disk, in a version that nothing superseded, is on a disk or in a version
    /// store afterwards; only a mere change of metadata goes to trash with what it changed.
    #[test]
    fn a_version_that_nobody_superseded_is_gone(
        tree in script::tree(), script in script::script(3), policies in deciding(),
    ) {
        let mut world = run(3, policies, &tree, &script);
        let mut must_stay = Vec::new();
        for replica in &world.replicas {
            for (path, row) in &replica.rows {
                let Some((dot, version)) = row.shown.zip(row.present()) else { continue };
                let is_alive = world.entry(path).get(dot).is_some();
                if is_alive && version.kind != Kind::Dir && !version.meta_only {
                    must_stay.push((path.clone(), version.content));
                }
            }
        }
        let before: Vec<usize> = world.replicas.iter().map(|r| r.kept.len()).collect();
        world.settle();
        for (path, content) in must_stay {
            let is_kept = world.replicas.iter().zip(&before).any(|(r, n)| {
                let mut kept = r.kept[*n..].iter();
                kept.any(|k| k.content == content && matches!(k.keep, Keep::Version(_)))
            });
            let shown = world.shape(0).into_values().any(|(_, c)| c == content);
            prop_assert!(is_kept || shown, "{path}");
        }
    }

    /// P6: actions touch only paths at which something was changed, what goes beside them, and the
    /// directories above.
    #[test]
    fn a_path_that_nobody_changed_is_touched(
        tree in script::tree(), script in script::edits(3), policies in deciding(),
    ) {
        let mut world = World::with_tree(3, policies, &tree);
        prop_assert!(world.plan(&world.all()).actions.is_empty());
        let before = world.log.len();
        script.iter().for_each(|op| world.step(op));
        let plan = world.plan(&world.all());
        let changed = world.log[before..].iter().map(|e| &e.path);
        let changed: BTreeSet<&RelPath> = changed.chain(plan.extras.keys()).collect();
        for action in &plan.actions {
            prop_assert!(changed.iter().any(|p| p.is_within(&action.path)), "{:?}", action);
        }
    }

    /// P7: whose turn it is makes no difference: the same replicas in another order get the same plan.
    #[test]
    fn the_order_of_replicas_changes_the_plan(
        tree in script::tree(), script in script::script(3), policies in any_policy(),
        order in Just(vec![0, 1, 2]).prop_shuffle(),
    ) {
        let world = run(3, policies, &tree, &script);
        let all = world.all();
        prop_assert_eq!(by_place(&world.plan(&all), &all), by_place(&world.plan(&order), &order));
    }

    /// P8 (Csirmaz): two users change one tree; the outcome is the tree with the changes of both, less
    /// some that are rolled back; and what was rolled back and has content is what is reported.
    #[test]
    fn a_change_is_rolled_back_without_a_report(
        tree in script::tree(), script in script::edits(2),
    ) {
        let mut world = World::with_tree(2, of(ConflictPolicy::Newest), &tree);
        let (base, before) = (world.shape(0), world.log.len());
        script.iter().for_each(|op| world.step(op));
        let shapes = [world.shape(0), world.shape(1)];
        let plan = world.plan(&[0, 1]);
        let reported = losers(&plan);
        let news: Vec<_> = world.log[before..].iter().filter(|e| !e.version.meta_only || e.version.kind == Kind::Dir).cloned().collect();
        let changed_by = |i: usize, path: &RelPath| {
            news.iter().any(|e| e.path == *path && e.dot.actor == ActorId([i as u8 + 1; 8]))
        };
        world.settle();
        let end = world.shape(0);
        let mut rolled_back = BTreeSet::new();
        let paths: BTreeSet<&RelPath> = base.keys().chain(news.iter().map(|e| &e.path)).collect();
        for path in paths {
            let shown = end.get(path);
            let wanted = [0, 1].map(|i| changed_by(i, path).then(|| shapes[i].get(path)));
            let below = |p: &&RelPath| *p != path && p.is_within(path) && end.contains_key(*p);
            let stands = shown.is_some_and(|s| s.0 == Kind::Dir)
                && news.iter().map(|e| &e.path).any(|p| below(&p));
            let of_somebody = wanted.iter().flatten().any(|w| *w == shown);
            let of_nobody = wanted.iter().all(Option::is_none) && shown == base.get(path);
            prop_assert!(of_somebody || of_nobody || stands, "{path}: {shown:?} of {wanted:?}");
            for lost in wanted.iter().flatten().filter(|w| **w != shown) {
                rolled_back.extend(lost.filter(|l| l.0 != Kind::Dir).map(|l| (path.clone(), l.1)));
            }
        }
        prop_assert_eq!(rolled_back, reported);
    }

    /// P9, as far as it is decided here: a replica that has not said what it has at and below a path causes
    /// no deletion there.
    #[test]
    fn a_path_without_a_row_is_taken_for_a_deletion(
        tree in script::tree(), script in script::script(3), policies in any_policy(),
        who in 0..3_usize, at in script::path(),
    ) {
        let mut world = run(3, policies, &tree, &script);
        world.replicas[who].rows.retain(|path, _| !path.is_within(&at));
        let plan = world.plan(&world.all());
        for action in plan.actions.iter().filter(|a| is_deletion(a)) {
            let is_tomb = action.shown.and_then(|d| action.entry.get(d)).is_some_and(Version::is_tomb);
            prop_assert!(is_tomb, "{action:?}");
            let known = world.replicas.iter().filter_map(|r| r.rows.get(&action.path));
            let said = known.into_iter().any(|r| r.entry.siblings().iter().any(|(_, v)| v.is_tomb()));
            prop_assert!(said || plan.extras.contains_key(&action.path), "{action:?}");
        }
    }

    /// P10: where something else has the name, nothing is done, and that is said.
    #[test]
    fn something_is_done_to_a_name_that_is_held(
        tree in script::tree(), script in script::script(3), policies in any_policy(),
        who in 0..3_usize, at in script::path(),
        why in prop::sample::select(&[
            Held::Ignored, Held::Special, Held::UnsafeLink, Held::NameClash, Held::Mount,
        ][..]),
    ) {
        let mut world = run(3, policies, &tree, &script);
        let row = world.replicas[who].rows.entry(at.clone()).or_default();
        (row.shown, row.print, row.held) = (None, None, Some(why));
        let plan = world.plan(&world.all());
        let here: Vec<_> = plan.actions.iter().filter(|a| a.replica == who && a.path == at).collect();
        prop_assert!(here.iter().all(|a| a.goal == Goal::Record && why != Held::Ignored), "{here:?}");
        let mut below = plan.actions.iter().filter(|a| a.replica == who && a.path.is_within(&at));
        prop_assert!(why == Held::Ignored || below.all(|a| matches!(a.goal, Goal::Record | Goal::Absent)));
        let (entry, view) = &plan.views[&at];
        let is_wanted = match view.dot().and_then(|d| entry.get(d)) {
            Some(version) => !version.is_tomb(),
            None => view.shown == Shown::Standing,
        };
        let waits = |(p, (_, v)): (&RelPath, &(_, View))| {
            at.is_within(p) && *p != at && v.shown == Shown::Frozen
        };
        let is_said = plan.blocked.iter().any(|(i, p)| *i == who && p.path == at);
        let is_listed = is_said || why == Held::Ignored || plan.views.iter().any(waits);
        prop_assert!(is_listed || !is_wanted, "{:?}", view);
        prop_assert!(is_wanted || !is_said);
    }

    /// P11: wherever the preferred replica changed something and nobody has changed that since, everybody
    /// has what it has; only a directory that it deleted stands while somebody else's file is in it.
    #[test]
    fn the_preferred_replica_does_not_get_its_way(
        tree in script::tree(), script in script::script(3),
    ) {
        let mut world = run(3, prefer(0), &tree, &script);
        let own = ActorId([1; 8]);
        let paths: BTreeSet<RelPath> = world.log.iter().map(|e| e.path.clone()).collect();
        let wanted: Vec<_> = paths
            .iter()
            .filter_map(|path| {
                let entry = world.entry(path);
                let mine = entry.siblings().iter().filter(|(d, _)| d.actor == own);
                let (_, v) = mine.max_by_key(|(d, v)| (v.te, v.content, *d))?;
                // A mere change of metadata gives way to a change of content.
                (!v.meta_only).then(|| (path.clone(), v.kind, v.content))
            })
            .collect();
        world.settle();
        let end = world.shape(1);
        for (path, kind, content) in wanted {
            let is_full = end.keys().any(|p| *p != path && p.is_within(&path));
            match end.get(&path) {
                Some(shown) if kind == Kind::Tomb => prop_assert!(shown.0 == Kind::Dir && is_full, "{path}"),
                shown => prop_assert_eq!(shown.copied(), (kind != Kind::Tomb).then_some((kind, content)), "{}", path),
            }
        }
    }

    /// P12: a plan has at most one action for each path on each replica, and a few plans are enough.
    #[test]
    fn a_plan_grows_beyond_its_tree(
        tree in script::tree(), script in script::script(3), policies in deciding(),
    ) {
        let mut world = run(3, policies, &tree, &script);
        let all = world.all();
        let mut total = 0;
        for _ in 0..4 {
            let plan = world.plan(&all);
            prop_assert_eq!(by_place(&plan, &all).len(), plan.actions.len());
            let known: BTreeSet<&RelPath> = world.replicas.iter().flat_map(|r| r.rows.keys()).collect();
            prop_assert!(plan.views.len() <= known.len() + plan.extras.len());
            total += plan.actions.len();
            world.act(&all, &plan);
        }
        prop_assert!(world.plan(&all).actions.is_empty());
        prop_assert!(total <= 10 * 3 * world.replicas[0].rows.len());
    }

    /// Differential: what is shown, and what is reported, is what the tables say, read slowly.
    #[test]
    fn the_outcome_is_not_what_the_tables_say(
        tree in script::tree(), script in script::script(3), policies in deciding(),
    ) {
        let mut world = run(3, policies.clone(), &tree, &script);
        let all = world.all();
        let want = reference::outcome(&world.events(&all), rules(&policies));
        world.settle();
        prop_assert_eq!(losers(&world.plan(&all)), want.losers);
        for i in all {
            prop_assert_eq!(&world.shape(i), &want.tree);
        }
    }

    /// P4 under `manual`: nothing is done at a path that waits for a person.
    #[test]
    fn a_frozen_path_changes(tree in script::tree(), script in script::edits(3)) {
        let world = run(3, of(ConflictPolicy::Manual), &tree, &script);
        let plan = world.plan(&world.all());
        for action in &plan.actions {
            let is_frozen = plan.views[&action.path].1.shown == Shown::Frozen;
            prop_assert!(!is_frozen || action.goal == Goal::Record, "{action:?}");
        }
    }
}
