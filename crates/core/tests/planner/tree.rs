//! The plan for a whole tree: the pure decisions of one path, put together.
//!
//! What is beside a path must be known before it can be planned, and whether something below is alive
//! depends on both; so views are taken from the bottom up until no new entry appears.

use std::collections::BTreeMap;

use instep_core::entry::Entry;
use instep_core::id::Dot;
use instep_core::path::RelPath;
use instep_core::plan::{Action, Problem};
use instep_core::policy::{Policies, Role};
use instep_core::reconcile::{Side, derived, home, merged, moved_out, order, reconcile};
use instep_core::row::{Held, Row};
use instep_core::version::Kind;
use instep_core::view::{Shown, View, view, view_above};

pub(crate) type Rows = BTreeMap<RelPath, Row>;

/// What is to be done, and what it was concluded from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    /// In the order of [`order`].
    pub(crate) actions: Vec<Action>,
    /// What every path shows afterwards.
    pub(crate) views: BTreeMap<RelPath, (Entry, View)>,
    /// Whether something below a path is alive.
    pub(crate) alive_below: BTreeMap<RelPath, bool>,
    /// Entries that views call into being.
    pub(crate) extras: BTreeMap<RelPath, Entry>,
    pub(crate) blocked: Vec<(usize, Problem)>,
}

pub(crate) fn plan(replicas: &[&Rows], policies: &Policies) -> Plan {
    let mut plan = Plan::default();
    while add_views(replicas, policies, &mut plan) {}
    for path in plan.views.keys() {
        let extra = plan.extras.get(path).cloned().unwrap_or_default();
        let below = plan.alive_below[path];
        let mut sides = sides(replicas, path);
        for (side, rows) in sides.iter_mut().zip(replicas) {
            side.covered = is_covered(rows, path, &plan);
        }
        let decision = reconcile(path, &sides, &extra, below, policies);
        plan.actions.extend(decision.actions);
        plan.blocked.extend(decision.blocked);
    }
    order(&mut plan.actions);
    plan
}

/// Takes the view of every path; true when that called something new into being.
fn add_views(replicas: &[&Rows], policies: &Policies, plan: &mut Plan) -> bool {
    let mut paths: Vec<RelPath> = replicas.iter().flat_map(|r| r.keys().cloned()).collect();
    paths.extend(plan.extras.keys().cloned());
    paths.sort();
    paths.dedup();
    plan.views.clear();
    plan.alive_below.clear();
    let mut more = make_room(replicas, policies, &paths, plan);
    for path in paths.iter().rev() {
        let extra = plan.extras.get(path).cloned().unwrap_or_default();
        let entry = merged(&sides(replicas, path), &extra);
        let alive = below(&plan.views, path).any(|p| is_alive(&plan.views[p]));
        let view = view_above(&entry, alive, policies);
        for (beside, new) in derived(path, &entry, &view) {
            let known = plan.extras.entry(beside).or_default();
            let both = known.merge(&new);
            more |= *known != both;
            *known = both;
        }
        plan.alive_below.insert(path.clone(), alive);
        plan.views.insert(path.clone(), (entry, view));
    }
    more
}

/// Moves everything out of the way of files and links that have the name of a directory.
fn make_room(replicas: &[&Rows], policies: &Policies, paths: &[RelPath], plan: &mut Plan) -> bool {
    let mut more = false;
    for top in paths {
        let known = |path: &RelPath, plan: &Plan| {
            let extra = plan.extras.get(path).cloned().unwrap_or_default();
            merged(&sides(replicas, path), &extra)
        };
        let Some(home) = home(top, &known(top, plan), policies) else {
            continue;
        };
        for path in paths.iter().filter(|p| *p != top && p.is_within(top)) {
            let mut up = std::iter::successors(path.parent(), RelPath::parent);
            let mut between = up.by_ref().take_while(|dir| dir != top);
            if between.any(|dir| view(&known(&dir, plan), policies).shown == Shown::Frozen) {
                continue;
            }
            let entry = known(path, plan);
            let new = path.rebase(top, &home).unwrap();
            let Some((there, here)) = moved_out(path, &new, &entry, policies) else {
                continue;
            };
            let knows = |r: &&Rows| {
                let row = r.get(&new);
                let ctx = row.map(|r| r.entry.ctx());
                ctx.is_some_and(|c| there.siblings().iter().all(|(d, _)| c.covers(*d)))
            };
            let (at, entry) = if replicas.iter().any(knows) {
                (path.clone(), here)
            } else {
                (new, there)
            };
            let extra = plan.extras.entry(at).or_default();
            let both = extra.merge(&entry);
            more |= *extra != both;
            *extra = both;
        }
    }
    more
}

fn sides<'a>(replicas: &[&'a Rows], path: &RelPath) -> Vec<Side<'a>> {
    let side = |rows: &&'a Rows| Side {
        row: rows.get(path),
        role: Role::Both,
        writable: true,
        modes: true,
        covered: false,
        carried: instep_core::attributes::Carried::default(),
    };
    replicas.iter().map(side).collect()
}

/// Whether something above a path that is no directory keeps its name.
fn is_covered(rows: &Rows, path: &RelPath, plan: &Plan) -> bool {
    let mut dir = path.parent();
    while let Some(d) = dir.filter(|d| !d.is_root()) {
        let row = rows.get(&d);
        let is_dir = row.is_some_and(|r| {
            r.is_derived_dir() || r.present().is_some_and(|v| v.kind == Kind::Dir)
        });
        let held = row.and_then(|r| r.held);
        let is_frozen = plan
            .views
            .get(&d)
            .is_some_and(|(_, v)| v.shown == Shown::Frozen);
        if held.is_some_and(|h| h != Held::Ignored) || (is_frozen && !is_dir) {
            return true;
        }
        dir = d.parent();
    }
    false
}

/// Whether something is at the path itself.
pub(crate) fn is_alive((entry, view): &(Entry, View)) -> bool {
    match view.shown {
        Shown::Version { dot, .. } => entry.get(dot).is_some_and(|v| !v.is_tomb()),
        Shown::Unknown => false,
        Shown::Standing | Shown::Frozen => true,
    }
}

/// The paths below a directory.
pub(crate) fn below<'a, T>(
    map: &'a BTreeMap<RelPath, T>,
    dir: &'a RelPath,
) -> impl Iterator<Item = &'a RelPath> {
    let from = map.range(dir.clone()..).map(|(path, _)| path);
    from.skip_while(move |path| *path == dir)
        .take_while(move |path| path.is_within(dir))
}

/// The tombstone that an absent path shows.
pub(crate) fn settled_tomb(entry: &Entry) -> Option<Dot> {
    let siblings = entry.siblings();
    if siblings.iter().any(|(_, v)| !v.is_tomb()) {
        return None;
    }
    let last = siblings.iter().max_by_key(|(d, v)| (v.te, v.content, *d));
    last.map(|(dot, _)| *dot)
}
