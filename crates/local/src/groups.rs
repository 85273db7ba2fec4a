//! Files that make sense only together, and programs that say when they are done with them.
//!
//! Three kinds: a SQLite database with its `-wal` and `-journal`; a document with a lock beside it
//! (`.~lock.NAME#`); what is in a `.git`, while a lock file is there. What belongs together is recorded in one
//! look, when nobody writes any of it. Invariant: a lock is a file, and counts for ten minutes around its time and
//! no longer, so that one that was left behind holds nothing for ever. Never changes anything on disk.

use std::collections::{BTreeMap, BTreeSet};

use instep_core::group::{companions, database, git_dir, members, without_suffix};
use instep_core::path::{Name, RelPath};
use instep_fs::{Dir, ErrorKind, Kind, Stat};
use instep_replica::{Look, Scope};

use crate::print::print;
use crate::replica::LocalReplica;
use crate::scan::Walked;
use crate::tree;

/// How long a lock is believed, in nanoseconds.
const LOCK_NS: u64 = 600_000_000_000;
/// What a SQLite database begins with.
const MAGIC: &[u8] = b"SQLite format 3\0";
/// What programs share while they have a database open; of no use to anybody else.
const SHARED: &[u8] = b"-shm";
/// The names under which git locks what most commands change.
const GIT_LOCKS: [&str; 5] = [
    "index.lock",
    "HEAD.lock",
    "config.lock",
    "packed-refs.lock",
    "shallow.lock",
];

/// A hint about a lock is a hint about what it locks, and one about a companion about its database.
pub fn widen(scope: Scope) -> Scope {
    let Scope::Some { mut paths, trees } = scope else {
        return scope;
    };
    let unlocked = |p: &RelPath| {
        let (parent, name) = p.split()?;
        let stem = name
            .as_bytes()
            .strip_prefix(b".~lock.")?
            .strip_suffix(b"#")?;
        Some(vec![parent.join(Name::new(stem).ok()?)])
    };
    let whole =
        |p: &RelPath| without_suffix(p, &[b"-wal", b"-journal", SHARED]).map(|b| members(&b));
    let more: Vec<RelPath> = paths
        .iter()
        .filter_map(|p| unlocked(p).or_else(|| whole(p)))
        .flatten()
        .collect();
    paths.extend(more);
    Scope::Some { paths, trees }
}

fn stat(replica: &LocalReplica, path: &RelPath) -> Option<Stat> {
    let (parent, name) = path.split()?;
    tree::open(&replica.root, &parent)
        .and_then(|d| d.stat(name))
        .ok()
        .flatten()
}

/// Whether a program may still have what it locked open. Programs lock with files; of a lock from a clock that
/// is far ahead nobody can tell when it was made.
fn is_believed(replica: &LocalReplica, lock: &Stat) -> bool {
    let made_ns = lock.mtime.nanos_since_epoch().unwrap_or(0);
    lock.kind == Kind::File && replica.env.wall_ns().abs_diff(made_ns) < LOCK_NS
}

/// Whether a program is at work in a `.git`.
pub fn is_git_busy(replica: &LocalReplica, git: &RelPath) -> bool {
    match tree::open(&replica.root, git) {
        Ok(dir) => {
            let mut locks = GIT_LOCKS.iter();
            locks.any(|name| is_held(replica, &dir, tree::ours(name)))
        }
        Err(e) => !matches!(e.kind(), ErrorKind::Absent | ErrorKind::OtherKind),
    }
}

/// Whether a program may be at work under a lock. One that cannot be examined may be there.
fn is_held(replica: &LocalReplica, dir: &Dir, lock: Name<'_>) -> bool {
    let lock = dir.stat(lock);
    lock.map_or(true, |lock| lock.is_some_and(|s| is_believed(replica, &s)))
}

/// Whether somebody writes a database or a companion of it, or has it open for that.
pub fn is_written(replica: &LocalReplica, path: &RelPath) -> bool {
    let Some((parent, name)) = path.split().filter(|_| replica.profile.leases) else {
        return false;
    };
    let opened = tree::open(&replica.root, &parent).and_then(|dir| dir.open_file(name));
    opened.is_ok_and(|file| matches!(file.read_lease(), Ok(None)))
}

fn is_database(dir: &Dir, name: Name<'_>) -> bool {
    let mut head = [0; 16];
    let read = dir.open_file(name).and_then(|f| f.read_at(0, &mut head));
    read.is_ok_and(|n| n == head.len()) && head == MAGIC
}

/// Whether a file is the shared memory of a database beside it, which is never synchronized.
pub fn is_shared_memory(dir: &Dir, name: Name<'_>) -> bool {
    let stem = name
        .as_bytes()
        .strip_suffix(SHARED)
        .and_then(|n| Name::new(n).ok());
    stem.is_some_and(|stem| is_database(dir, stem))
}

/// Takes out of what walking found what must wait; it is looked at again. Returns the absences that need no
/// settling, because they belong to a change that is complete.
pub fn withhold(replica: &LocalReplica, walked: &mut Walked, look: &mut Look) -> BTreeSet<RelPath> {
    let mut waiting: BTreeMap<RelPath, u64> = BTreeMap::new();
    repositories(replica, walked, &mut waiting);
    documents(replica, walked, &mut waiting);
    let complete = databases(replica, walked, &mut waiting);
    if !waiting.is_empty() {
        walked.candidates.retain(|c| !waiting.contains_key(&c.path));
        walked.gone.retain(|g| !waiting.contains_key(&g.path));
        walked.findings.retain(|f| !waiting.contains_key(&f.path));
        look.again.extend(waiting);
    }
    complete
}

/// Paths that walking found to differ.
fn differing(walked: &Walked) -> impl Iterator<Item = &RelPath> {
    let changed = walked.candidates.iter().map(|c| &c.path);
    let gone = walked.gone.iter().map(|g| &g.path);
    changed
        .chain(gone)
        .chain(walked.findings.iter().map(|f| &f.path))
}

fn repositories(replica: &LocalReplica, walked: &Walked, waiting: &mut BTreeMap<RelPath, u64>) {
    let mut busy: BTreeMap<RelPath, Option<u64>> = BTreeMap::new();
    for path in differing(walked) {
        let Some(git) = git_dir(path) else { continue };
        let delay = *busy.entry(git).or_insert_with_key(|git| {
            let locks = walked.candidates.iter().filter(|c| c.path.is_within(git));
            let mut locks = locks.filter(|c| c.path.as_bytes().ends_with(b".lock"));
            let is_busy = locks.any(|c| is_believed(replica, &c.stat)) || is_git_busy(replica, git);
            is_busy.then(|| replica.back_off(git))
        });
        if let Some(delay) = delay {
            waiting.insert(path.clone(), delay);
        }
    }
    for git in busy
        .into_iter()
        .filter(|(_, delay)| delay.is_none())
        .map(|(git, _)| git)
    {
        replica.is_at_rest(&git);
    }
}

fn documents(replica: &LocalReplica, walked: &Walked, waiting: &mut BTreeMap<RelPath, u64>) {
    let mut at: Option<(RelPath, Option<Dir>)> = None;
    let changed = walked.candidates.iter().map(|c| &c.path);
    for path in changed.chain(walked.gone.iter().map(|g| &g.path)) {
        let Some((parent, name)) = path.split() else {
            continue;
        };
        if at.as_ref().is_none_or(|(p, _)| *p != parent) {
            let dir = tree::open(&replica.root, &parent).ok();
            at = Some((parent, dir));
        }
        let lock = [b".~lock.", name.as_bytes(), b"#"].concat();
        let Some((Some(dir), lock)) = at.as_ref().map(|(_, d)| d).zip(Name::new(&lock).ok()) else {
            continue;
        };
        if is_held(replica, dir, lock) {
            waiting.insert(path.clone(), replica.back_off(path));
        }
    }
}

/// A changed file that may be a database: those have whole pages.
fn has_companion(replica: &LocalReplica, path: &RelPath, size: u64) -> bool {
    size >= 512
        && size.is_multiple_of(512)
        && companions(path).any(|p| stat(replica, &p).is_some() || is_known(replica, &p))
}

fn is_known(replica: &LocalReplica, path: &RelPath) -> bool {
    replica
        .index()
        .get(path)
        .ok()
        .flatten()
        .is_some_and(|row| row.print.is_some())
}

fn databases(
    replica: &LocalReplica,
    walked: &Walked,
    waiting: &mut BTreeMap<RelPath, u64>,
) -> BTreeSet<RelPath> {
    let mut bases: BTreeSet<RelPath> = differing(walked).filter_map(database).collect();
    let whole = walked
        .candidates
        .iter()
        .filter(|c| has_companion(replica, &c.path, c.stat.size));
    bases.extend(whole.map(|c| c.path.clone()));
    let mut complete = BTreeSet::new();
    for base in bases {
        let Some((parent, name)) = base.split() else {
            continue;
        };
        let dir = tree::open(&replica.root, &parent);
        if !dir.is_ok_and(|dir| is_database(&dir, name)) {
            continue;
        }
        let members = members(&base);
        let delay = if members.iter().any(|m| is_written(replica, m)) {
            replica.back_off(&base)
        } else if members.iter().all(|m| is_seen(replica, walked, m)) {
            replica.is_at_rest(&base);
            complete.extend(members);
            continue;
        } else {
            2
        };
        waiting.extend(members.into_iter().map(|m| (m, delay)));
    }
    complete
}

/// Whether what is at a path now is what this look found, or what the index has.
fn is_seen(replica: &LocalReplica, walked: &Walked, path: &RelPath) -> bool {
    let row = replica
        .index()
        .get(path)
        .ok()
        .flatten()
        .and_then(|r| r.print);
    match stat(replica, path) {
        None => row.is_none() || walked.gone.iter().any(|g| g.path == *path),
        Some(now) => {
            let found = walked.candidates.iter().find(|c| c.path == *path);
            row == Some(print(&now)) || found.is_some_and(|c| print(&c.stat) == print(&now))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;

    fn p(path: &str) -> RelPath {
        RelPath::new(path.as_bytes()).unwrap()
    }

    #[test]
    fn a_hint_about_a_lock_is_about_the_document() {
        let scope = Scope::Some {
            paths: [p("d/.~lock.a.odt#"), p("x-shm")].into(),
            trees: BTreeSet::new(),
        };
        let Scope::Some { paths, .. } = widen(scope) else {
            unreachable!()
        };
        for path in ["d/a.odt", "x", "x-wal", "x-journal"] {
            assert!(paths.contains(&p(path)), "{path}");
        }
    }
}
