//! Power cuts: the real program at work on disks in image files, which are copied at random instants and recovered.
//!
//! Owns the course of a trial. Invariant: what is judged after a cut comes from the disks and from the users' own
//! history, never from instep.
//!
//! ```text
//! content   what users write      users    who write it      history  when, and what was durable
//! ground    where disks come from, and what a cut leaves of them
//! machine   disks and program     disk     what is on them   oracle   what may be there after a cut
//! kept      a cut that went wrong, to be recovered again
//! crew      several trials at a time
//! ```

pub mod content;
pub mod crew;
pub mod disk;
pub mod ground;
pub mod history;
pub mod kept;
pub mod machine;
pub mod oracle;
pub mod users;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use instep_testkit::prng::Prng;

use crate::image::Kind;
use crate::program::{Done, until};
use ground::{Ground, How};
use kept::Kept;
use machine::{Cut, Machine};
use oracle::Admitted;
use users::{Log, Users, locked};

/// What a trial saw.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// How many images of each file system were mounted and judged.
    pub images: BTreeMap<&'static str, u64>,
    /// How often a recovery was cut, too.
    pub nested: u64,
    /// How many cuts.
    pub cuts: u64,
    /// How many cuts left a disk that its file system cannot read, as a torn superblock of btrfs.
    pub unreadable: u64,
    /// Paths whose newest version the cut took from everybody, and which the program left without content (E2115).
    pub nowhere: u64,
    /// What users did.
    pub operations: usize,
    /// What was wrong.
    pub violations: Vec<String>,
}

impl Tally {
    /// Adds what another trial saw.
    pub fn add(&mut self, other: Self) {
        for (kind, count) in other.images {
            *self.images.entry(kind).or_default() += count;
        }
        self.nested += other.nested;
        self.cuts += other.cuts;
        self.nowhere += other.nowhere;
        self.unreadable += other.unreadable;
        self.operations += other.operations;
        self.violations.extend(other.violations);
    }

    /// In one line.
    pub fn told(&self) -> String {
        format!(
            "{} cuts, and {} of recoveries, {} beyond reading; images {:?}; {} operations of users; {} paths \
             without content; {} violations",
            self.cuts,
            self.nested,
            self.unreadable,
            self.images,
            self.operations,
            self.nowhere,
            self.violations.len()
        )
    }

    /// All images.
    pub fn all_images(&self) -> u64 {
        self.images.values().sum()
    }
}

/// What a trial is like.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How often the power is cut.
    pub cuts: usize,
    /// Whether users make durable whatever they do.
    pub careful: bool,
}

/// The exit codes that mean that a pass came to its end: nothing open, or conflicts for a person to look at.
const ENDED: [i32; 2] = [0, 4];

/// So often at most is a recovery cut.
const RECOVERY_CUTS: usize = 3;

/// A trial: one session, so many cuts of it. `dir` must be empty and is left full; cuts that went wrong are copied
/// below `keep`. To be called where nobody else pretends another boot: [`crew`] sees to that.
pub fn trial(
    dir: &Path,
    ground: &Ground,
    seed: u64,
    plan: Plan,
    keep: Option<&Path>,
) -> io::Result<Tally> {
    let mut prng = Prng::new(seed);
    let kinds = kinds(&mut prng);
    let mut machine = Machine::new(dir, ground, &kinds)?;
    let disks = machine.files();
    let log = Log::default();
    let done = at_work(&mut machine, ground, &log, plan, &mut prng)?;
    remove(ground, &disks)?;
    let mut tally = Tally {
        operations: locked(&log).len(),
        ..Tally::default()
    };
    for (number, cut) in done.into_iter().enumerate() {
        let name = format!("seed{seed}-cut{number}");
        let kept = Kept {
            place: dir.to_owned(),
            kinds: kinds.clone(),
            files: cut.files,
            history: locked(&log).until(cut.when),
        };
        let found = recover(&mut machine, ground, &kept, &mut prng, &mut tally)?;
        tally.cuts += 1;
        if let Some(keep) = keep.filter(|_| !found.is_empty()) {
            kept.write(&keep.join(&name))?;
        }
        remove(ground, &kept.files)?;
        let case = format!("{name} ({:?} {kinds:?}:{})", ground.how(), cut.how);
        let found = found.into_iter().map(|v| format!("{case}: {v}"));
        tally.violations.extend(found);
    }
    Ok(tally)
}

/// Recovers a cut that was kept; what is wrong, and what the program said. The images are changed.
pub fn again(dir: &Path) -> io::Result<Vec<String>> {
    let kept = Kept::read(dir)?;
    fs::create_dir_all(&kept.place)?;
    let mut machine = Machine::empty(&kept.place, &kept.kinds);
    machine.power_on(&kept.files)?;
    let before = machine.look()?;
    let first = machine.pass()?;
    let mut found = vec![format!(
        "exit {}: {}{}",
        first.code, first.stdout, first.stderr
    )];
    let admitted = admitted(&machine, &first)?;
    found.extend(oracle::judge(
        &kept.history,
        &before,
        &machine.look()?,
        &admitted,
    ));
    Ok(found)
}

/// Two or three disks of any kinds.
fn kinds(prng: &mut Prng) -> Vec<Kind> {
    let count = 2 + prng.below(2);
    let any = |prng: &mut Prng| Kind::ALL[prng.below(Kind::ALL.len())];
    (0..count).map(|_| any(prng)).collect()
}

/// Users at work in a live session, and cuts of it.
fn at_work(
    machine: &mut Machine,
    ground: &Ground,
    log: &Log,
    plan: Plan,
    prng: &mut Prng,
) -> io::Result<Vec<Cut>> {
    machine.start()?;
    // A cut before there is a session is no trial of it.
    until("the session is live", Duration::from_mins(1), || {
        Ok(machine.said()?.contains("in sync"))
    })?;
    let users = Users::start(&machine.roots(), &Arc::clone(log), plan.careful, prng);
    let mut done = Vec::new();
    for _ in 0..plan.cuts {
        thread::sleep(Duration::from_millis(10 + prng.below(250) as u64));
        done.push(machine.cut(ground, prng)?);
        if !machine.is_alive()? {
            return Err(io::Error::other(format!(
                "the session ended by itself: {}",
                machine.said()?
            )));
        }
    }
    users.end()?;
    machine.power_off()?;
    Ok(done)
}

/// The power comes back.
fn recover(
    machine: &mut Machine,
    ground: &Ground,
    kept: &Kept,
    prng: &mut Prng,
    tally: &mut Tally,
) -> io::Result<Vec<String>> {
    let copies = kept.files.iter().map(|file| ground.copy(file));
    let mut files = copies.collect::<io::Result<Vec<_>>>()?;
    if !comes_on(machine, ground, &files)? {
        tally.unreadable += 1;
        return Ok(Vec::new());
    }
    let before = machine.look()?;
    count(machine, tally);
    for _ in 0..RECOVERY_CUTS {
        if !prng.chance(1, 3) {
            break;
        }
        let again = cut_recovery(machine, ground, prng)?;
        machine.power_off()?;
        remove(ground, &files)?;
        files = again.files;
        tally.nested += 1;
        if !comes_on(machine, ground, &files)? {
            tally.unreadable += 1;
            return Ok(Vec::new());
        }
        count(machine, tally);
    }
    let first = machine.pass()?;
    let mut found = Vec::new();
    let admitted = admitted(machine, &first)?;
    tally.nowhere += admitted.nowhere.len() as u64;
    if !ENDED.contains(&first.code) && admitted.nowhere.is_empty() {
        found.push(format!(
            "exit {}: {}{}",
            first.code, first.stdout, first.stderr
        ));
    }
    found.extend(oracle::judge(
        &kept.history,
        &before,
        &machine.look()?,
        &admitted,
    ));
    // Whoever looks for content that nobody has, looks as long again.
    if admitted.nowhere.is_empty() {
        found.extend(second_pass(machine, first.code)?);
    }
    machine.power_off()?;
    remove(ground, &files)?;
    Ok(found)
}

/// The power comes back, unless a file system lost itself: where single sectors of one block may be missing, some do.
fn comes_on(machine: &mut Machine, ground: &Ground, files: &[PathBuf]) -> io::Result<bool> {
    let on = machine.power_on(files);
    if on.is_ok() || ground.how() == How::Copies {
        return on.map(|()| true);
    }
    machine.power_off()?;
    remove(ground, files)?;
    Ok(false)
}

/// After a pass that came to its end, another one has nothing to do.
fn second_pass(machine: &Machine, first: i32) -> io::Result<Option<String>> {
    let still = machine.audit()?;
    let second = machine.pass()?;
    let idle = second.code == first && machine.audit()? == still;
    Ok((!idle).then(|| {
        format!(
            "a second pass did something: exit {} after {first}\n{}{}",
            second.code, second.stdout, second.stderr
        )
    }))
}

fn admitted(machine: &Machine, done: &Done) -> io::Result<Admitted> {
    Ok(Admitted {
        nowhere: nowhere(done),
        contested: machine.contested()?,
    })
}

/// Paths of which the program says that nobody has the content any more (E2115): the version was announced, and the
/// power cut took it from everybody.
fn nowhere(done: &Done) -> BTreeSet<String> {
    let lines = done.stdout.lines().filter(|l| l.contains("(E2115)"));
    let path = |line: &str| {
        let (_, told) = line.split_once("problem  ")?;
        let (_, told) = told.split_once(": ")?;
        let (path, _) = told.split_once(": ")?;
        Some(path.to_owned())
    };
    lines.filter_map(path).collect()
}

fn count(machine: &Machine, tally: &mut Tally) {
    for kind in machine.kinds() {
        *tally.images.entry(kind.name()).or_default() += 1;
    }
}

/// The power is cut again while the program recovers.
fn cut_recovery(machine: &mut Machine, ground: &Ground, prng: &mut Prng) -> io::Result<Cut> {
    let started = Instant::now();
    machine.start_pass()?;
    let wait = Duration::from_millis(prng.below(120) as u64);
    until("its time has come", Duration::from_secs(5), || {
        Ok(started.elapsed() > wait || !machine.is_alive()?)
    })?;
    machine.cut(ground, prng)
}

fn remove(ground: &Ground, files: &[PathBuf]) -> io::Result<()> {
    files.iter().try_for_each(|file| ground.remove(file))
}
