//! The promises, each as a function from disks and indexes to what breaks it.
//!
//! | promise | checked by | when |
//! |---|---|---|
//! | I1 no silent loss | [`kept`] | in the end: nothing is gone, and nothing is in the trash alone that nobody gave up |
//! | I2 convergence | [`converged`] | whenever a live session says "in sync", and in the end |
//! | I3 dot uniqueness | [`Dots::check`] | after each session, over all of a seed |
//! | I4 no resurrection | [`kept`] | in the end |
//! | I5 evidence for deletions | `Watched::unproven`, `Watched::check_tombs` | after each look and record |
//! | I6 atomic visibility | [`crate::steps::whole`] | at every change of a name or an inode |
//! | I7 no phantom edits | [`kept`] | in the end: no bytes that nobody wrote, after any number of deaths |
//! | I8 announce after durable | `Eye::announced` | before each call that tells a replica something |
//! | I9 confinement | [`crate::steps::confined`] | at every change and listing; hostile users are for the race harness, because a simulated call cannot follow a link |
//! | I10 authorisation | nothing | it is about peers on a network, and there is none yet |
//! | I11 bounded resources | [`let_go`], and the fuel in `world.rs` | after each session; memory for hostile input is for the fuzz targets |
//! | I12 liveness | `Course::in_step`, `Course::in_peace` | after a quiet while, and in the end |
//! | I13 stability | `Course::in_peace` | in the end: sessions without work change no index and no disk |
//! | I14 hands off | [`crate::steps::hands_off`] | at every change of a name or an inode |
//! | I15 honest status | [`honest`], `Course::in_step` | whenever a live session says "in sync", and in the end |
//! | I16 bulk brake | nothing here | no user of a seed has fifty files; `crates/engine/src/holds.rs` and the command line's tests delete that many |
//! | I17 rollback safety | [`crate::rollback::Past::taken`], `Watched::check_tombs` | after each mishap, and at each record |
//! | I18 modes | [`changes`] on a mirror's source | after each session |

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use instep_core::entry::Entry;
use instep_core::id::{ContentId, Dot};
use instep_core::path::RelPath;
use instep_core::policy::Policies;
use instep_core::row::Print;
use instep_core::version::{Kind, Version};
use instep_core::view::{Shown, view};
use instep_fs::Kind as FsKind;
use instep_fs::sim::{Holdings, NodeView, SimFs};
use instep_replica::records::ShareRecord;
use instep_replica::{Book, Replica};

use crate::late::PutAway;
use crate::ledger::{Ledger, is_ours, is_staged, is_trashed, name, seen};

/// Calls that change a disk.
const CHANGES: [&str; 14] = [
    "create_file",
    "create_unnamed",
    "publish",
    "make_dir",
    "make_link",
    "rename",
    "rename_noreplace",
    "exchange",
    "remove_file",
    "remove_dir",
    "set_mode",
    "set_mtime",
    "set_len",
    "write_all_at",
];

/// What one replica knows, by path; directories that stand for their contents apart.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) entries: BTreeMap<RelPath, Entry>,
    pub(crate) derived: BTreeSet<RelPath>,
    pub(crate) prints: BTreeMap<RelPath, Print>,
    /// Paths that wait for a person, as far as this one knows.
    pub(crate) frozen: BTreeSet<RelPath>,
    /// How conflicts are decided.
    policies: Policies,
    /// Whose index it is.
    id: String,
    /// Everybody who takes part in the share.
    members: BTreeSet<String>,
    /// Under which names they mint.
    actors: BTreeSet<String>,
    put_away: PutAway,
}

impl Known {
    /// What should be there and is not, and what is above it.
    fn wanting(&self) -> BTreeSet<RelPath> {
        let alive = |e: &Entry| e.siblings().iter().any(|(_, v)| !v.is_tomb());
        let wanting = self
            .entries
            .iter()
            .filter(|(path, e)| alive(e) && !self.prints.contains_key(*path));
        let mut out = BTreeSet::new();
        for (path, _) in wanting {
            add_upwards(path, &mut out);
        }
        out
    }
}

/// Paths that wait for a person, by what all know together. Whoever shows what has been superseded learns nothing
/// while a path waits, or would not recognise what it shows (`Target::frozen`), so nobody alone may know all of them.
fn frozen(all: &[Known]) -> BTreeSet<RelPath> {
    let mut known: BTreeMap<&RelPath, Entry> = BTreeMap::new();
    for (path, entry) in all.iter().flat_map(|k| &k.entries) {
        let merged = known.entry(path).or_default();
        *merged = merged.merge(entry);
    }
    let waits = |e: &Entry| {
        let mut all = all.iter();
        all.any(|k| view(e, &k.policies).shown == Shown::Frozen)
    };
    let together = known.iter().filter(|(_, e)| waits(e));
    let alone = all.iter().flat_map(|k| &k.frozen);
    together
        .map(|(path, _)| *path)
        .chain(alone)
        .cloned()
        .collect()
}

fn add_upwards(path: &RelPath, out: &mut BTreeSet<RelPath>) {
    let mut up = Some(path.clone());
    while let Some(at) = up.filter(|p| !p.is_root()) {
        up = at.parent();
        out.insert(at);
    }
}

/// Reads an index.
pub(crate) fn known(replica: &dyn Replica) -> Known {
    let mut out = Known::default();
    let share = replica.read_record(Book::Share, "share").ok().flatten();
    let share = share.and_then(|text| serde_json::from_str::<ShareRecord>(&text).ok());
    let share = share.unwrap_or_default();
    let actors = share
        .members
        .values()
        .flat_map(|m| m.actors.iter().cloned());
    out.actors = actors.collect();
    let members = share.members.iter().filter(|(_, m)| !m.gone);
    out.members = members.map(|(id, _)| id.clone()).collect();
    out.id = replica.id().to_string();
    out.put_away = PutAway::of(replica);
    let policies = share.policies();
    let read = replica.subtree(&RelPath::root(), &mut |path, row| {
        if row.is_derived_dir() {
            out.derived.insert(path.clone());
        }
        out.prints.extend(row.print.map(|p| (path.clone(), p)));
        if view(&row.entry, &policies).shown == Shown::Frozen {
            out.frozen.insert(path.clone());
        }
        if !row.entry.is_empty() {
            out.entries.insert(path, row.entry);
        }
        ControlFlow::Continue(())
    });
    out.policies = policies;
    // A dead process has nothing to say; the next one is asked again.
    read.map(|()| out).unwrap_or_default()
}

/// The dots seen so far and what they stand for.
#[derive(Debug, Default)]
pub(crate) struct Dots(BTreeMap<Dot, (Option<RelPath>, Kind, ContentId)>);

impl Dots {
    /// Takes note of all dots in an index; says which stood for something else.
    pub(crate) fn check(&mut self, known: &Known) -> Vec<String> {
        let mut bad = Vec::new();
        for (path, entry) in &known.entries {
            // Ancestors share the dot before the first: it says only that everybody has seen more.
            for (dot, v) in entry.siblings().iter().filter(|(d, _)| d.counter > 0) {
                // A copy's dot is made from what it is a copy of, so two copies of one loser share it. The promise
                // is about what a dot stands for, and both stand for the same (semantics, I3).
                let is_copy = path.to_string().contains(".conflict-");
                let new = ((!is_copy).then(|| path.clone()), v.kind, v.content);
                let old = self.0.entry(*dot).or_insert_with(|| new.clone());
                if *old != new {
                    bad.push(format!("I3: {dot} is {old:?} and {new:?}"));
                }
            }
        }
        bad
    }
}

fn look(node: &NodeView, mode: bool) -> String {
    let mode = if mode && node.target.is_empty() {
        format!(" {:o}", node.mode & 0o777)
    } else {
        String::new()
    };
    format!(
        "{:?} {}{}{mode}",
        node.kind,
        name(&node.content),
        node.target.escape_ascii()
    )
}

fn tree(fs: &SimFs, derived: &BTreeSet<RelPath>) -> BTreeMap<RelPath, String> {
    let nodes = fs
        .snapshot()
        .into_iter()
        .filter(|(p, _)| !p.is_root() && !is_ours(p));
    nodes
        .map(|(p, n)| (p.clone(), look(&n, !derived.contains(&p))))
        .collect()
}

/// What a seed had that changes what can be asked of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// It is a mirror.
    pub(crate) mirror: bool,
    /// Conflicts may wait for a person.
    pub(crate) manual: bool,
    /// The power was cut.
    pub(crate) cut: bool,
}

/// Everybody has the same tree and knows the same.
///
/// Whoever shows what waits for a person need not know yet what else there is, so that where a policy asks a
/// person only trees are compared.
///
/// In a mirror the targets show what the source has; what they know is their own affair, because they have
/// seen more; what a power cut took from the source they keep, because nobody deleted it. Where a path waits for a person every replica goes on showing what it did, at the path, below it
/// and in the directories that stand for that.
pub(crate) fn converged(disks: &[SimFs], all: &[Known], terms: Terms) -> Vec<String> {
    let Terms {
        mirror,
        manual,
        cut,
    } = terms;
    let mut bad = Vec::new();
    let derived: BTreeSet<RelPath> = all.iter().flat_map(|k| k.derived.iter().cloned()).collect();
    let mut gone = gone(disks, all, mirror);
    if mirror {
        gone.extend(all[0].wanting());
    }
    let frozen = frozen(all);
    let waits = |p: &RelPath| frozen.iter().any(|f| p.is_within(f) || f.is_within(p));
    let first = tree(&disks[0], &derived);
    for (i, fs) in disks.iter().enumerate().skip(1) {
        let other = tree(fs, &derived);
        differences(&first, &other, &gone, cut, |p, a, b| {
            if waits(p) {
                return;
            }
            bad.push(format!(
                "I2: trees 0 and {i} differ at \"{p}\": {a:?} and {b:?}"
            ));
        });
    }
    for (i, k) in all
        .iter()
        .enumerate()
        .skip(1)
        .filter(|_| !mirror && !manual)
    {
        differences(&all[0].entries, &k.entries, &gone, cut, |p, a, b| {
            bad.push(format!(
                "I2: indexes 0 and {i} differ at \"{p}\": {a:?} and {b:?}"
            ));
        });
    }
    bad
}

fn differences<T: PartialEq>(
    one: &BTreeMap<RelPath, T>,
    two: &BTreeMap<RelPath, T>,
    except: &BTreeSet<RelPath>,
    cut: bool,
    mut say: impl FnMut(&RelPath, Option<&T>, Option<&T>),
) {
    for path in one
        .keys()
        .chain(two.keys().filter(|p| !one.contains_key(*p)))
    {
        let (a, b) = (one.get(path), two.get(path));
        // A copy whose bytes are kept without a record, because a power cut took that, cannot be brought.
        let is_copy = path.to_string().contains(".conflict-");
        let unlisted = cut && is_copy && (a.is_none() || b.is_none());
        if a != b && !except.contains(path) && !unlisted {
            say(path, a, b);
        }
    }
}

/// Some file in a tree has two names.
pub(crate) fn has_hard_links(fs: &SimFs) -> bool {
    let nodes = fs.snapshot();
    let mut all = nodes
        .iter()
        .filter(|(p, n)| !is_ours(p) && n.kind != FsKind::Dir);
    all.any(|(_, n)| n.nlink > 1)
}

/// Every index says of its disk what is so.
pub(crate) fn honest(disks: &[SimFs], all: &[Known]) -> Vec<String> {
    let mut bad = Vec::new();
    for (i, (fs, known)) in disks.iter().zip(all).enumerate() {
        let nodes = fs
            .snapshot()
            .into_keys()
            .filter(|p| !p.is_root() && !is_ours(p));
        let there: BTreeSet<RelPath> = nodes.collect();
        for path in there.iter().chain(known.prints.keys()) {
            let now = fs
                .stat(path.as_bytes())
                .ok()
                .map(|s| instep_local::print::print(&s));
            let said = known.prints.get(path).copied();
            if now != said {
                bad.push(format!(
                    "I15: index {i} says {said:?} of \"{path}\", the disk {now:?}"
                ));
            }
        }
    }
    bad
}

/// Nothing is lost, nothing came back, nothing was invented.
///
/// In a mirror only what the source's user deletes must stay away: what a target's user deletes comes back.
pub(crate) fn kept(disks: &[SimFs], all: &[Known], ledger: &Ledger, mirror: bool) -> Vec<String> {
    let (gone, doubted) = (gone(disks, all, mirror), doubted(all));
    let frozen = frozen(all);
    let (mut kept, mut in_reach) = (BTreeSet::new(), BTreeSet::new());
    let mut bad = Vec::new();
    for (i, fs) in disks.iter().enumerate() {
        for (path, node) in fs.snapshot() {
            if !is_staged(&path) && !is_trashed(&path) {
                in_reach.insert(node.content.clone());
            }
            if !is_staged(&path) {
                kept.insert(node.content);
            }
        }
        let mut tree = seen(fs);
        for (path, content) in &tree {
            let left = content.iter().all(|b| *b == 0) && doubted.contains(path);
            if !ledger.is_known(content) && !gone.contains(path) && !left {
                bad.push(format!(
                    "I7: machine {i} shows at \"{path}\" what nobody wrote: {}",
                    name(content)
                ));
            }
        }
        // What waits for a person is shown as it was, also where another user took it away.
        tree.retain(|path, _| !frozen.contains(path));
        bad.extend(
            ledger
                .resurrected(&tree, |machine| !mirror || machine == 0)
                .into_iter()
                .map(|r| format!("I4: machine {i} shows {r}")),
        );
    }
    let lost = ledger.lost(&kept);
    // A loser is in the version store until a person settles its conflict; a mirror's extras are not.
    if lost.is_empty() && !mirror {
        let away = ledger.put_away(&in_reach).into_iter();
        bad.extend(away.map(|l| format!("I1: only in the trash: {l}")));
    }
    bad.extend(lost.into_iter().map(|l| format!("I1: lost {l}")));
    bad
}

/// Paths with a version whose content nobody has at the path or keeps: a power cut took it before it was
/// durable anywhere. What is above them may stand for them on one machine and not on another.
///
/// Such a version is given up when all members of the share are there. It stays where one is away for ever (a root that
/// got another identity), because that one may have it, where it is a copy or made room, and in a mirror, because nobody but the source's user says what
/// is there instead.
pub(crate) fn gone(disks: &[SimFs], all: &[Known], mirror: bool) -> BTreeSet<RelPath> {
    let here: BTreeSet<&String> = all.iter().map(|k| &k.id).collect();
    let mut members = all.iter().flat_map(|k| &k.members);
    let all_here = !mirror && members.all(|id| here.contains(id));
    let actors: BTreeSet<&String> = all.iter().flat_map(|k| &k.actors).collect();
    let waits = |dot: &Dot| !all_here || !actors.contains(&dot.actor.to_string());
    let mut stored: BTreeSet<ContentId> = BTreeSet::new();
    let mut shown: BTreeSet<(RelPath, ContentId)> = BTreeSet::new();
    for (i, fs) in disks.iter().enumerate() {
        for (path, node) in fs.snapshot() {
            let id = instep_chunk::hash::content_id(&node.content);
            let is_late = || {
                all.get(i)
                    .is_some_and(|k| k.put_away.is_late(&path, &node, id))
            };
            if !is_ours(&path) {
                shown.insert((path, id));
            } else if !is_late() {
                stored.insert(id);
            }
        }
    }
    let lacks = |path: &RelPath, v: &Version| {
        let here = || shown.contains(&(path.clone(), v.content));
        v.kind == Kind::File && !stored.contains(&v.content) && !here()
    };
    let mut out = BTreeSet::new();
    for (path, entry) in all.iter().flat_map(|k| &k.entries) {
        let missed = entry.siblings().iter().filter(|(_, v)| lacks(path, v));
        for (dot, version) in missed.filter(|(dot, _)| waits(dot)) {
            add_upwards(path, &mut out);
            // Its copy waits with it.
            out.extend(instep_core::conflict::copy_path(path, *dot, version));
        }
    }
    out
}

/// Versions that the engine itself minted in doubt: after a power cut a file that is all zeros and that nobody
/// knows may be what is left of one that it was bringing. It stays where it is the only one of its path, and where
/// the path waits for a person, because there every replica goes on showing what it shows.
fn doubted(all: &[Known]) -> BTreeSet<&RelPath> {
    let frozen = frozen(all);
    let stays = |path: &RelPath, e: &Entry| e.siblings().len() == 1 || frozen.contains(path);
    let entries = all.iter().flat_map(|k| &k.entries);
    let doubted =
        entries.filter(|(p, e)| stays(p, e) && e.siblings().iter().any(|(_, v)| v.te == 0));
    doubted.map(|(path, _)| path).collect()
}

/// I11: what a session had open it has let go of, and where it left nothing undone nothing is staged.
pub(crate) fn let_go(disks: &[SimFs], tidy: bool) -> Vec<String> {
    let mut bad = Vec::new();
    for (i, fs) in disks.iter().enumerate() {
        let holdings = fs.holdings();
        if holdings != Holdings::default() {
            bad.push(format!("I11: machine {i} still holds {holdings:?}"));
        }
        let staged = |p: &RelPath| p.as_bytes().starts_with(b".instep/staging/");
        let left = if tidy {
            fs.snapshot().into_keys().filter(staged).count()
        } else {
            0
        };
        if left > 0 {
            bad.push(format!("I11: machine {i} still has {left} staged files"));
        }
    }
    bad
}

/// How many calls changed a disk since counting began.
pub(crate) fn changes(fs: &SimFs) -> Vec<(&'static str, u64)> {
    let calls = fs.count_calls();
    calls
        .into_iter()
        .filter(|(op, n)| CHANGES.contains(op) && *n > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

    use super::*;
    use instep_core::id::ActorId;
    use instep_core::policy::ConflictPolicy;
    use instep_core::time::Mtime;

    fn alone(n: u8) -> Known {
        alone_at(n, 1)
    }

    fn alone_at(n: u8, te: i64) -> Known {
        let dot = Dot {
            actor: ActorId([n; 8]),
            counter: 1,
        };
        let version = Version {
            kind: Kind::File,
            content: ContentId([n; 32]),
            size: 1,
            mode: 0o644,
            mtime: Mtime::default(),
            te,
            mode_te: te,
            attributes: None,
            target: Box::default(),
            prev: Vec::new(),
            moved: None,
            meta_only: false,
            policy_epoch: 1,
        };
        let path = RelPath::new(b"f").unwrap();
        Known {
            entries: BTreeMap::from([(path, Entry::first(dot, version))]),
            policies: Policies(BTreeMap::from([(1, ConflictPolicy::Manual)])),
            ..Known::default()
        }
    }

    #[test]
    fn what_nobody_alone_knows_to_wait_for_a_person_has_to_be_alike() {
        let all = [alone(1), alone(2)];
        assert!(frozen(&all[..1]).is_empty());
        assert_eq!(frozen(&all).len(), 1);
    }

    #[test]
    fn what_a_power_cut_left_empty_is_excused_where_something_else_takes_its_place() {
        let path = RelPath::new(b"f").unwrap();
        let is_excused = |all: &[Known]| {
            let each = all.iter().map(|k| &k.entries[&path]);
            let entry = each.fold(Entry::default(), |sum, e| sum.merge(e));
            let mut known = alone(1);
            known.entries.insert(path.clone(), entry);
            !doubted(&[known]).is_empty()
        };
        let (left, user) = (alone_at(1, 0), alone(2));
        assert!(is_excused(&[left]));
        assert!(!is_excused(&[alone_at(1, 0), user]), "it has to give way");
        assert!(
            is_excused(&[alone_at(1, 0), alone(2), alone(3)]),
            "to which?"
        );
        assert!(!is_excused(&[alone(1)]), "a user wrote it");
    }
}
