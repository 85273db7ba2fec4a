//! Looking: the disk against the index, in parallel, nothing written.
//!
//! A directory whose names and fingerprints sum to the digest that the index has is unchanged, and no row
//! of it is read. Otherwise its rows and its names are merged in order. Nothing recurses on the stack, and
//! only the directories that still have unvisited children are open.
//!
//! Invariant: a path is absent only if its parent was opened and says so; where that failed there is a
//! problem, and nothing below is reported.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, PoisonError};

use instep_core::path::{Name, RESERVED, RelPath};
use instep_core::plan::{Code, Problem};
use instep_core::reconcile::is_safe_link;
use instep_core::row::{Held, Print, Row};
use instep_core::version::Kind;
use instep_fs::{Dir, ErrorKind, Kind as FsKind, Stat};
use instep_replica::Scope;
use instep_replica::look::{Finding, Found};

use crate::attributes::Object;
use crate::groups;
use crate::print::{Digest, print};
use crate::replica::LocalReplica;
use crate::rules::DirRules;
use crate::spelling::{self, Spelled};
use crate::tree;
use crate::watch::refused;

/// A directory to be walked.
struct Work {
    path: RelPath,
    parent: Option<Dir>,
    rules: DirRules,
}

/// Something that the index has and the disk has not.
#[derive(Debug, Clone)]
pub struct Gone {
    /// Where.
    pub path: RelPath,
    /// What the index has.
    pub row: Row,
}

/// A file whose content must be read to know what it is.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Where.
    pub path: RelPath,
    /// What it looks like.
    pub stat: Stat,
    /// What the index has there.
    pub row: Option<Row>,
}

/// What walking found, before contents are read.
#[derive(Debug, Default)]
pub struct Walked {
    /// What is settled without reading.
    pub findings: Vec<Finding>,
    /// What must be read.
    pub candidates: Vec<Candidate>,
    /// What is not there any more.
    pub gone: Vec<Gone>,
    /// What could not be looked at.
    pub problems: Vec<Problem>,
    /// Sums over the names of each directory that was listed completely.
    pub digests: Vec<(RelPath, Digest)>,
    /// Paths that were seen to be there.
    pub present: Vec<RelPath>,
    /// Names examined.
    pub examined: u64,
    /// Directories to be looked at from above, because they could not be opened.
    retry: Vec<RelPath>,
}

impl Walked {
    fn extend(&mut self, mut other: Self) {
        self.findings.append(&mut other.findings);
        self.candidates.append(&mut other.candidates);
        self.gone.append(&mut other.gone);
        self.problems.append(&mut other.problems);
        self.digests.append(&mut other.digests);
        self.present.append(&mut other.present);
        self.retry.append(&mut other.retry);
        self.examined += other.examined;
    }

    fn problem(&mut self, path: &RelPath, code: Code, detail: impl Into<String>) {
        self.problems.push(Problem {
            path: path.clone(),
            code,
            detail: detail.into(),
        });
    }
}

/// Work that is left, shared by the workers. Last in, first out keeps few directories open.
struct Queue {
    state: Mutex<(Vec<Work>, usize)>,
    changed: Condvar,
}

impl Queue {
    fn new(work: Vec<Work>) -> Self {
        Self {
            state: Mutex::new((work, 0)),
            changed: Condvar::new(),
        }
    }

    /// The next piece; none when nothing is left and nobody can add more.
    fn next(&self) -> Option<Work> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(work) = state.0.pop() {
                state.1 += 1;
                return Some(work);
            }
            if state.1 == 0 {
                self.changed.notify_all();
                return None;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn done(&self, more: Vec<Work>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0.extend(more);
        state.1 -= 1;
        self.changed.notify_all();
    }
}

/// What one worker uses again and again.
#[derive(Default)]
struct Scratch {
    names: Vec<u8>,
    items: Vec<(u32, u32, Stat)>,
    rows: Vec<(Box<[u8]>, Row)>,
}

/// Walks what the scope names.
pub fn walk(replica: &LocalReplica, scope: &Scope) -> Walked {
    let mut out = Walked::default();
    let mut work = Vec::new();
    match scope {
        Scope::Everything => work.push(Work {
            path: RelPath::root(),
            parent: None,
            rules: replica.rules.top(),
        }),
        // Nothing is walked for what a walk left unread.
        Scope::Rest(_) => {}
        Scope::Some { paths, trees } => {
            let mut todo = paths.clone();
            todo.extend(trees.iter().cloned());
            examine_paths(replica, todo, trees, &mut work, &mut out);
        }
    }
    run(replica, work, &mut out);
    // A directory that could not be opened may be gone: its parent tells.
    let retry: BTreeSet<RelPath> = std::mem::take(&mut out.retry).into_iter().collect();
    if !retry.is_empty() {
        let mut work = Vec::new();
        examine_paths(replica, retry, &BTreeSet::new(), &mut work, &mut out);
        run(replica, work, &mut out);
        out.retry.clear();
    }
    out
}

fn run(replica: &LocalReplica, work: Vec<Work>, out: &mut Walked) {
    if work.is_empty() {
        return;
    }
    let queue = Queue::new(work);
    let results = Mutex::new(Walked::default());
    instep_replica::env::for_each(
        replica.env.as_ref(),
        replica.env.workers(),
        || (),
        |(), _| {
            let mut scratch = Scratch::default();
            let mut mine = Walked::default();
            while let Some(work) = queue.next() {
                let mut more = Vec::new();
                walk_dir(replica, work, &mut scratch, &mut more, &mut mine);
                queue.done(more);
            }
            results
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(mine);
        },
    );
    out.extend(results.into_inner().unwrap_or_else(PoisonError::into_inner));
}

/// Examines single paths, grouped by the directory that they are in.
fn examine_paths(
    replica: &LocalReplica,
    mut todo: BTreeSet<RelPath>,
    trees: &BTreeSet<RelPath>,
    work: &mut Vec<Work>,
    out: &mut Walked,
) {
    while let Some(last) = todo.pop_last() {
        let Some(dir_path) = last.parent() else {
            work.push(Work {
                path: RelPath::root(),
                parent: None,
                rules: replica.rules.top(),
            });
            continue;
        };
        let mut group = vec![last];
        while todo
            .last()
            .is_some_and(|p| p.parent().as_ref() == Some(&dir_path))
        {
            group.extend(todo.pop_last());
        }
        if dir_path.is_reserved() || group[0].is_reserved() {
            continue;
        }
        let Some((dir, spelled)) = open_dir_of(replica, &dir_path, &group, &mut todo, out) else {
            continue;
        };
        let rules = replica.rules.of_dir(&dir_path);
        if rules.is_excluded() {
            continue;
        }
        if !is_had(replica, &dir_path) {
            // What is in it is only found with it: otherwise nothing would lead there once both are gone.
            todo.insert(dir_path);
            continue;
        }
        group
            .iter()
            .for_each(|path| replica.rules.touch(&dir, path));
        if let Some(at) = replica.rules.unread(&dir_path) {
            let why = "an ignore file in it cannot be read";
            out.problem(&at, Code::Unreadable, why);
            continue;
        }
        for path in group {
            let Some(name) = path.name().filter(|n| spelled.has(n.as_bytes())) else {
                without_parent(replica, &[path], out);
                continue;
            };
            let whole = trees.contains(&path);
            examine_path(replica, &dir, &path, name, whole, &rules, work, out);
        }
    }
}

/// Whether the index has what is at the path of a directory, or has a reason not to.
fn is_had(replica: &LocalReplica, dir: &RelPath) -> bool {
    let had = |row: Row| row.print.is_some() || row.held.is_some();
    // Where the row cannot be read, the examination of each name says so.
    let row = replica.index().get(dir);
    dir.is_root() || row.map_or(true, |row| row.is_some_and(had))
}

/// Opens the directory that these paths are in, and reads how its names are spelled. Where that cannot be done
/// it says what follows from it.
fn open_dir_of(
    replica: &LocalReplica,
    dir_path: &RelPath,
    group: &[RelPath],
    todo: &mut BTreeSet<RelPath>,
    out: &mut Walked,
) -> Option<(Dir, Spelled)> {
    let opened = tree::open(&replica.root, dir_path);
    if let Err(e) = &opened
        && let ErrorKind::Absent | ErrorKind::OtherKind | ErrorKind::OtherDevice = e.kind()
    {
        // It is gone or no directory any more: look at it instead.
        if e.kind() != ErrorKind::OtherDevice {
            without_parent(replica, group, out);
        }
        todo.insert(dir_path.clone());
        return None;
    }
    let spelled = opened.and_then(|dir| Ok((spelling::within(replica, dir_path, &dir)?, dir)));
    match spelled {
        Ok((Some(spelled), dir)) => return Some((dir, spelled)),
        // Another directory answers to this name.
        Ok((None, _)) => without_parent(replica, group, out),
        Err(e) => out.problem(dir_path, Code::Unreadable, e.to_string()),
    }
    None
}

/// A name that has no place is gone. What is below something that is no directory is gone, also where the index forgot the directory first.
fn without_parent(replica: &LocalReplica, paths: &[RelPath], out: &mut Walked) {
    for path in paths {
        let parent = path.parent().unwrap_or_else(RelPath::root);
        let row = replica.index().get(path);
        match row {
            Ok(row) => absent(replica, path, row, &replica.rules.of_dir(&parent), out),
            Err(e) => out.problem(path, Code::Unreadable, e.chain()),
        }
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "one name of a directory in parts that are borrowed apart"
)]
fn examine_path(
    replica: &LocalReplica,
    dir: &Dir,
    path: &RelPath,
    name: Name<'_>,
    whole: bool,
    rules: &DirRules,
    work: &mut Vec<Work>,
    out: &mut Walked,
) {
    let row = match replica.index().get(path) {
        Ok(row) => row,
        Err(e) => return out.problem(path, Code::Unreadable, e.chain()),
    };
    out.examined += 1;
    match dir.stat(name) {
        Ok(None) => absent(replica, path, row, rules, out),
        Ok(Some(stat)) => {
            // Another directory under a known name says nothing of what was in the one before; it may have
            // that one's inode number, but it does not have its watch.
            let same = |row: &&Row| row.print.is_some_and(|p| p.ino == stat.ino);
            let known_dir = row.as_ref().filter(same).is_some_and(Row::is_dir)
                && !replica.is_watch_missing(path);
            let enter = examine(replica, dir, path, &stat, row, rules, out);
            if enter && (whole || !known_dir) {
                work.push(Work {
                    path: path.clone(),
                    parent: Some(dir.clone()),
                    rules: rules.enter(name),
                });
            }
        }
        Err(e) => out.problem(path, Code::Unreadable, e.to_string()),
    }
}

fn walk_dir(
    replica: &LocalReplica,
    work: Work,
    scratch: &mut Scratch,
    more: &mut Vec<Work>,
    out: &mut Walked,
) {
    let Work {
        path,
        parent,
        mut rules,
    } = work;
    let opened = match (&parent, path.name()) {
        (Some(parent), Some(name)) => parent.open_dir(name),
        _ => tree::open(&replica.root, &path),
    };
    drop(parent);
    let dir = match opened {
        Ok(dir) => dir,
        Err(e) => return unopened(&path, &e, out),
    };
    if let Err(e) = replica.watch_dir(&dir, &path) {
        out.problem(&RelPath::root(), Code::WatchLimit, refused(e.errno));
    }
    if let Err(e) = list(&dir, &path, scratch, out) {
        return out.problem(&path, Code::Unreadable, e.to_string());
    }
    let Listing {
        mut digest,
        own,
        git,
    } = Listing::of(scratch);
    if let Err(e) = replica.rules.listed(&dir, &path, own, git, &mut rules) {
        return out.problem(&path, Code::Unreadable, e.to_string());
    }
    digest.add(b"/", replica.stamp(rules.stamp()));
    out.examined += scratch.items.len() as u64;
    scratch.rows.clear();
    {
        let mut index = replica.index();
        if index.digest(&path) == Some(digest) {
            drop(index);
            enter_known(replica, &dir, &path, scratch, &rules, more, out);
            return;
        }
        let rows = &mut scratch.rows;
        if let Err(e) = index.children(&path, &mut |name, row| {
            rows.push((name.as_bytes().into(), row));
        }) {
            return out.problem(&path, Code::Unreadable, e.chain());
        }
    }
    out.digests.push((path.clone(), digest));
    let names = std::mem::take(&mut scratch.names);
    scratch
        .items
        .sort_by(|a, b| names[a.0 as usize..a.1 as usize].cmp(&names[b.0 as usize..b.1 as usize]));
    merge(replica, &dir, &path, &names, scratch, &rules, more, out);
    scratch.names = names;
}

/// What one pass over a listing tells.
#[derive(Default)]
struct Listing {
    /// The sum over all names and fingerprints.
    digest: Digest,
    /// It has an ignore file of ours.
    own: bool,
    /// It has an ignore file of git's.
    git: bool,
}

impl Listing {
    fn of(scratch: &Scratch) -> Self {
        let mut out = Self::default();
        for (start, end, stat) in &scratch.items {
            let name = &scratch.names[*start as usize..*end as usize];
            out.digest.add(name, print(stat).hash);
            out.own |= name == crate::rules::OWN;
            out.git |= name == crate::rules::GIT;
        }
        out
    }
}

fn unopened(path: &RelPath, e: &instep_fs::Error, out: &mut Walked) {
    match e.kind() {
        ErrorKind::Absent | ErrorKind::OtherKind if !path.is_root() => out.retry.push(path.clone()),
        ErrorKind::OtherDevice => out.problem(path, Code::Mount, e.to_string()),
        _ => out.problem(path, Code::Unreadable, e.to_string()),
    }
}

/// Lists a directory into the scratch space. An entry that cannot be examined becomes a problem, and the
/// listing counts as incomplete, so that nothing in it is taken for absent.
fn list(
    dir: &Dir,
    path: &RelPath,
    scratch: &mut Scratch,
    out: &mut Walked,
) -> instep_fs::Result<()> {
    scratch.names.clear();
    scratch.items.clear();
    let at_top = path.is_root();
    let mut failed = None;
    let (names, items) = (&mut scratch.names, &mut scratch.items);
    dir.list_stat(&mut |name, stat| {
        if at_top && name == RESERVED {
            return;
        }
        match stat {
            Ok(stat) => {
                let start = names.len() as u32;
                names.extend_from_slice(name);
                items.push((start, names.len() as u32, stat));
            }
            Err(e) => failed = Some(e),
        }
    })?;
    match failed {
        Some(e) => Err(e),
        None => {
            // The kernel hands out legal names only; anything else is a broken file system.
            let bad = items
                .iter()
                .find(|i| Name::new(&names[i.0 as usize..i.1 as usize]).is_err());
            if bad.is_some() {
                out.problem(
                    path,
                    Code::Unreadable,
                    "the file system lists an illegal name",
                );
            }
            Ok(())
        }
    }
}

/// Nothing changed here; what is below may have.
fn enter_known(
    replica: &LocalReplica,
    dir: &Dir,
    path: &RelPath,
    scratch: &Scratch,
    rules: &DirRules,
    more: &mut Vec<Work>,
    out: &mut Walked,
) {
    for (start, end, stat) in &scratch.items {
        if stat.kind != FsKind::Dir || stat.mount_root {
            continue;
        }
        let Ok(name) = Name::new(&scratch.names[*start as usize..*end as usize]) else {
            continue;
        };
        if !rules.ignores(name, true) {
            if replica.carried().xattrs {
                examine_xattrs(replica, dir, &path.join(name), stat, out);
            }
            more.push(Work {
                path: path.join(name),
                parent: Some(dir.clone()),
                rules: rules.enter(name),
            });
        }
    }
}

/// A directory's fingerprint tells nothing of its extended attributes.
fn examine_xattrs(
    replica: &LocalReplica,
    dir: &Dir,
    path: &RelPath,
    stat: &Stat,
    out: &mut Walked,
) {
    let Some(name) = path.name() else { return };
    let row = match replica.index().get(path) {
        Ok(row) => row,
        Err(e) => return out.problem(path, Code::Unreadable, e.chain()),
    };
    let object = Object::Named(dir, name, stat.kind);
    let xattrs = || object.xattrs();
    let found = replica.told(path, None, xattrs, stat, row.as_ref(), &mut out.problems);
    out.findings.extend(found.map(|found| Finding {
        path: path.clone(),
        found,
    }));
}

/// Names and rows of one directory, both in order of name.
#[expect(
    clippy::too_many_arguments,
    reason = "one directory's listing in parts that are borrowed apart"
)]
fn merge(
    replica: &LocalReplica,
    dir: &Dir,
    path: &RelPath,
    names: &[u8],
    scratch: &mut Scratch,
    rules: &DirRules,
    more: &mut Vec<Work>,
    out: &mut Walked,
) {
    let mut rows = scratch.rows.drain(..).peekable();
    for (start, end, stat) in &scratch.items {
        let bytes = &names[*start as usize..*end as usize];
        while let Some((name, row)) = rows.next_if(|(n, _)| n.as_ref() < bytes) {
            if let Ok(name) = Name::new(&name) {
                absent(replica, &path.join(name), Some(row), rules, out);
            }
        }
        let row = rows.next_if(|(n, _)| n.as_ref() == bytes).map(|(_, r)| r);
        let Ok(name) = Name::new(bytes) else { continue };
        let child = path.join(name);
        if examine(replica, dir, &child, stat, row, rules, out) {
            more.push(Work {
                path: child,
                parent: Some(dir.clone()),
                rules: rules.enter(name),
            });
        }
    }
    for (name, row) in rows {
        if let Ok(name) = Name::new(&name) {
            absent(replica, &path.join(name), Some(row), rules, out);
        }
    }
}

/// After a change of the rules: what no rule excludes any more, also where no directory leads to it.
pub fn free_rows(replica: &LocalReplica, out: &mut Walked) {
    if !replica.rules.is_changed() {
        return;
    }
    let ignored = |r: &Row| r.held == Some(Held::Ignored);
    let rows = below(replica, &RelPath::root(), out, ignored).unwrap_or_default();
    for g in rows {
        let Some((parent, name)) = g.path.split() else {
            continue;
        };
        let is_there = tree::open(&replica.root, &parent).and_then(|dir| dir.stat(name));
        let nothing = match is_there {
            Ok(stat) => stat.is_none(),
            Err(e) => matches!(e.kind(), ErrorKind::Absent | ErrorKind::OtherKind),
        };
        if nothing && is_free_again(&g.path, &g.row, &replica.rules.of_dir(&parent)) {
            free_again(&g.path, out);
        }
    }
}

/// What kept a path from being synchronized is gone, and nothing is there.
fn free_again(path: &RelPath, out: &mut Walked) {
    let found = Found::Absent { was: Kind::Dir };
    out.findings.push(Finding {
        path: path.clone(),
        found,
    });
}

/// Whether what kept a path from being synchronized is gone: nothing is there, and no rule excludes it.
fn is_free_again(path: &RelPath, row: &Row, rules: &DirRules) -> bool {
    let is_dir = row
        .entry
        .siblings()
        .iter()
        .any(|(_, v)| v.kind == Kind::Dir);
    match (row.held, path.name()) {
        (Some(Held::Ignored), Some(name)) => !rules.ignores(name, is_dir),
        (held, _) => held.is_some(),
    }
}

/// The index has it, the disk has not: it is gone, with everything that was below it. Of what was left
/// alone only the reason is gone.
fn absent(
    replica: &LocalReplica,
    path: &RelPath,
    row: Option<Row>,
    rules: &DirRules,
    out: &mut Walked,
) {
    let Some(row) = row else { return };
    if row.print.is_none() {
        if is_free_again(path, &row, rules) {
            free_again(path, out);
            let held = below(replica, path, out, |r| r.held.is_some()).unwrap_or_default();
            for g in held {
                let parent = g.path.parent().unwrap_or_else(RelPath::root);
                if is_free_again(&g.path, &g.row, &replica.rules.of_dir(&parent)) {
                    free_again(&g.path, out);
                }
            }
        }
        return;
    }
    if row.is_dir() {
        match below(replica, path, out, |r| r.print.is_some()) {
            Some(mut below) => out.gone.append(&mut below),
            None => return,
        }
    }
    out.gone.push(Gone {
        path: path.clone(),
        row,
    });
}

/// Something is at the path. Returns whether it is a directory to be entered.
fn examine(
    replica: &LocalReplica,
    dir: &Dir,
    path: &RelPath,
    stat: &Stat,
    row: Option<Row>,
    rules: &DirRules,
    out: &mut Walked,
) -> bool {
    let Some(name) = path.name() else {
        return false;
    };
    if rules.ignores(name, stat.kind == FsKind::Dir) {
        if let Some(row) = row.filter(|r| r.print.is_some()) {
            leave_alone(replica, path, &row, out);
        }
        return false;
    }
    if stat.mount_root || stat.dev != replica.device() {
        out.problem(
            path,
            Code::Mount,
            "another file system is mounted here; it is left alone",
        );
        held(path, row.as_ref(), Held::Mount, out);
        return false;
    }
    out.present.push(path.clone());
    let seen = print(stat);
    let was_dir = row.as_ref().is_some_and(Row::is_dir);
    if was_dir && stat.kind != FsKind::Dir {
        // What was below the directory is gone, whatever took its name.
        absent_below(replica, path, rules, out);
    }
    if stat.kind != FsKind::Dir && row.as_ref().is_some_and(|r| r.print == Some(seen)) {
        let again = replica.told_again(path, dir, stat, row.as_ref(), &mut out.problems);
        out.findings.extend(again.map(|found| Finding {
            path: path.clone(),
            found,
        }));
    }
    match stat.kind {
        FsKind::Special => {
            out.problem(
                path,
                Code::Special,
                "a FIFO, socket or device is never read or replaced",
            );
            held(path, row.as_ref(), Held::Special, out);
            false
        }
        FsKind::Dir => {
            let found = examine_dir(row.as_ref(), stat, seen);
            let (object, row) = (Object::Named(dir, name, stat.kind), row.as_ref());
            let xattrs = || object.xattrs();
            if let Some(found) = replica.told(path, found, xattrs, stat, row, &mut out.problems) {
                out.findings.push(Finding {
                    path: path.clone(),
                    found,
                });
            }
            true
        }
        FsKind::Link => {
            if row.as_ref().and_then(|r| r.print) != Some(seen) {
                examine_link(replica, dir, path, stat, row.as_ref(), seen, out);
            }
            false
        }
        FsKind::File if groups::is_shared_memory(dir, name) => {
            held(path, row.as_ref(), Held::Ignored, out);
            false
        }
        FsKind::File => {
            if row.as_ref().and_then(|r| r.print) != Some(seen) {
                out.candidates.push(Candidate {
                    path: path.clone(),
                    stat: *stat,
                    row,
                });
            }
            false
        }
    }
}

/// A rule excludes something that was synchronized, with everything below it.
fn leave_alone(replica: &LocalReplica, path: &RelPath, row: &Row, out: &mut Walked) {
    held(path, Some(row), Held::Ignored, out);
    if row.is_dir() {
        let tracked = below(replica, path, out, |r| r.print.is_some()).unwrap_or_default();
        for g in tracked {
            held(&g.path, Some(&g.row), Held::Ignored, out);
        }
    }
}

/// The rows below a directory that count; none when they cannot be read, which is a problem then.
fn below(
    replica: &LocalReplica,
    path: &RelPath,
    out: &mut Walked,
    counts: impl Fn(&Row) -> bool,
) -> Option<Vec<Gone>> {
    let mut below = Vec::new();
    let listed = replica.index().store().subtree(path, &mut |path, row| {
        if counts(&row) {
            below.push(Gone { path, row });
        }
        std::ops::ControlFlow::Continue(())
    });
    match listed {
        Ok(()) => Some(below),
        Err(e) => {
            out.problem(path, Code::Unreadable, e.to_string());
            None
        }
    }
}

/// What is there is left alone, and the index learns why, once.
fn held(path: &RelPath, row: Option<&Row>, why: Held, out: &mut Walked) {
    if row.is_none_or(|r| r.held != Some(why)) {
        out.findings.push(Finding {
            path: path.clone(),
            found: Found::Held(why),
        });
    }
}

fn absent_below(replica: &LocalReplica, path: &RelPath, rules: &DirRules, out: &mut Walked) {
    let before = out.gone.len();
    let row = replica.index().get(path).ok().flatten();
    absent(replica, path, row, rules, out);
    // The path itself is not absent: something else is there.
    if out.gone.len() > before {
        out.gone.pop();
    }
}

fn examine_dir(row: Option<&Row>, stat: &Stat, seen: Print) -> Option<Found> {
    match row {
        // Whoever changes its mode wants it: then it becomes a directory of its own.
        Some(row) if row.is_derived_dir() && row.print.is_some_and(|p| p.mode == seen.mode) => {
            (row.print != Some(seen)).then_some(Found::Refreshed { print: seen })
        }
        Some(row) if row.print == Some(seen) => None,
        Some(row)
            if row.present().is_some_and(|v| v.kind == Kind::Dir)
                && row.print.is_some_and(|p| p.mode == seen.mode) =>
        {
            Some(Found::Refreshed { print: seen })
        }
        _ => Some(present(
            Kind::Dir,
            instep_core::id::ContentId::NONE,
            stat,
            Box::default(),
            false,
        )),
    }
}

fn examine_link(
    replica: &LocalReplica,
    dir: &Dir,
    path: &RelPath,
    stat: &Stat,
    row: Option<&Row>,
    seen: Print,
    out: &mut Walked,
) {
    let target = match path.name().map(|n| dir.read_link(n)) {
        Some(Ok(target)) if target.len() <= instep_core::limits::LINK_TARGET_BYTES_MAX => target,
        Some(Err(e)) => return out.problem(path, Code::Unreadable, e.to_string()),
        _ => return out.problem(path, Code::Unreadable, "the link's target is too long"),
    };
    if !is_safe_link(path, &target) {
        return held(path, row, Held::UnsafeLink, out);
    }
    let content = instep_chunk::hash::content_id(&target);
    let same = row
        .and_then(|r| r.present())
        .is_some_and(|v| v.kind == Kind::Link && v.content == content && v.mtime == stat.mtime);
    let found = if same {
        Found::Refreshed { print: seen }
    } else {
        present(Kind::Link, content, stat, target.into(), false)
    };
    let Some(name) = path.name() else { return };
    let object = Object::Named(dir, name, stat.kind);
    let xattrs = || object.xattrs();
    let found = replica.told(path, Some(found), xattrs, stat, row, &mut out.problems);
    out.findings.extend(found.map(|found| Finding {
        path: path.clone(),
        found,
    }));
}

/// A finding's value for what is on disk.
pub fn present(
    kind: Kind,
    content: instep_core::id::ContentId,
    stat: &Stat,
    target: Box<[u8]>,
    high_entropy: bool,
) -> Found {
    Found::Present {
        kind,
        content,
        size: if kind == Kind::File { stat.size } else { 0 },
        mode: if kind == Kind::Link {
            0
        } else {
            (stat.mode & 0o777) as u16
        },
        mtime: if kind == Kind::Dir {
            instep_core::time::Mtime::default()
        } else {
            stat.mtime
        },
        target,
        print: print(stat),
        attributes: None,
        moved_from: None,
        high_entropy,
    }
}
