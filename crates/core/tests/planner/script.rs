//! Random trees and edit scripts over few names and few contents, so that everything meets everything.

use instep_core::id::ActorId;
use instep_core::path::RelPath;
use instep_core::policy::{ConflictPolicy, Policies};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::world::{Op, Thing, World, p};

const PATHS: [&str; 10] = [
    "a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "a/b", "a/b/d", "e/a",
];

/// The same cases each time; a failure is shrunk and printed with its script.
pub(crate) fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0x0012_57e9),
        ..ProptestConfig::default()
    }
}

/// One of the few paths.
pub(crate) fn path() -> impl Strategy<Value = RelPath> {
    prop::sample::select(&PATHS[..]).prop_map(p)
}

fn thing() -> impl Strategy<Value = Thing> {
    prop_oneof![
        5 => (0..6_u8).prop_map(Thing::File),
        2 => (0..3_u8).prop_map(Thing::Link),
        3 => Just(Thing::Dir),
    ]
}

/// An edit by one of the first `users` replicas.
fn edit(users: usize) -> impl Strategy<Value = Op> {
    let who = move || 0..users;
    let mode = prop::sample::select(&[0o600_u16, 0o644, 0o755][..]);
    prop_oneof![
        10 => (who(), path(), thing(), 0..30_u8).prop_map(|(w, p, t, age)| Op::Put(w, p, t, age)),
        5 => (who(), path()).prop_map(|(w, p)| Op::Remove(w, p)),
        2 => (who(), path(), path()).prop_map(|(w, a, b)| Op::Rename(w, a, b)),
        2 => (who(), path(), mode).prop_map(|(w, p, m)| Op::Chmod(w, p, m)),
        1 => (who(), path()).prop_map(|(w, p)| Op::Touch(w, p)),
    ]
}

/// What one user made before anybody else was there.
pub(crate) fn tree() -> impl Strategy<Value = Vec<Op>> {
    vec(edit(1), 0..8)
}

/// Edits by all, without a meeting.
pub(crate) fn edits(users: usize) -> impl Strategy<Value = Vec<Op>> {
    vec(edit(users), 1..10)
}

/// Edits by all, and meetings of some.
pub(crate) fn script(users: usize) -> impl Strategy<Value = Vec<Op>> {
    let meet = (0..users, 0..users).prop_map(|(a, b)| Op::Meet(a, b));
    vec(prop_oneof![6 => edit(users), 1 => meet], 1..16)
}

pub(crate) fn of(policy: ConflictPolicy) -> Policies {
    Policies([(0, policy)].into())
}

pub(crate) fn prefer(replica: u8) -> Policies {
    of(ConflictPolicy::Prefer([ActorId([replica + 1; 8])].into()))
}

/// Policies that decide by themselves.
pub(crate) fn deciding() -> impl Strategy<Value = Policies> {
    prop_oneof![
        Just(of(ConflictPolicy::Newest)),
        Just(of(ConflictPolicy::KeepBoth)),
        (0..3_u8).prop_map(prefer),
    ]
}

/// Also the one that asks.
pub(crate) fn any_policy() -> impl Strategy<Value = Policies> {
    prop_oneof![3 => deciding(), 1 => Just(of(ConflictPolicy::Manual))]
}

/// One tree, given to everybody, and what became of it.
pub(crate) fn run(users: u8, policies: Policies, tree: &[Op], script: &[Op]) -> World {
    let mut world = World::with_tree(users, policies, tree);
    script.iter().for_each(|op| world.step(op));
    world
}
