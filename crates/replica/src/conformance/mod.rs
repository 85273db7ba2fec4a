//! The suite that every implementation of [`Replica`] passes, chosen by what it declares it can do.
//!
//! A [`Subject`] is a fresh, empty replica with a user who edits its tree from outside. Each [`Promise`] is
//! one short function named by the symptom that a user would report if it were broken. [`run_all`] checks
//! each on a subject of its own and returns what was kept, broken and not applicable: nothing is skipped
//! without being named. The suite knows no implementation and asserts nothing about how something is done.

/// Ends a check with a sentence unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($why:tt)+) => {
        if !$condition {
            return Err($crate::conformance::Stop::Broken(format!($($why)+)));
        }
    };
}

mod apply;
mod content;
mod elsewhere;
mod faults;
mod look;
mod record;
mod rename;
mod scene;

use std::collections::BTreeMap;
use std::io;

use instep_core::path::RelPath;

use crate::Replica;
use crate::memory::{MemoryReplica, Object};

pub use elsewhere::Elsewhere;
pub use scene::{Scene, Want};

/// One who edits a replica's tree without asking the replica.
pub trait User {
    /// Writes a file in place, making it and its parents if needed.
    fn write(&self, path: &RelPath, bytes: &[u8]) -> io::Result<()>;
    /// Removes an object with everything below it.
    fn remove(&self, path: &RelPath) -> io::Result<()>;
    /// Renames an object with everything below it.
    fn rename(&self, from: &RelPath, to: &RelPath) -> io::Result<()>;
    /// Makes a directory, and its parents if needed.
    fn mkdir(&self, path: &RelPath) -> io::Result<()>;
    /// Makes a symbolic link.
    fn symlink(&self, path: &RelPath, target: &[u8]) -> io::Result<()>;
    /// Sets the permission bits of a file or directory.
    fn chmod(&self, path: &RelPath, mode: u16) -> io::Result<()>;
    /// The bytes of a file.
    fn read(&self, path: &RelPath) -> io::Result<Vec<u8>>;
    /// Everything that is there now, except what belongs to instep.
    fn tree(&self) -> io::Result<BTreeMap<RelPath, Object>>;
}

/// Something that goes wrong, or a circumstance that only the harness can arrange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The root goes away, as when it is unmounted.
    Gone,
    /// A file or a directory's listing cannot be read.
    Unreadable(RelPath),
    /// The replica becomes read-only.
    ReadOnly,
    /// Content of more than a few bytes no longer fits.
    Full,
    /// The watcher overflows.
    HintsLost,
    /// A rule excludes the path with everything below it. Not a fault, but it comes from outside.
    Ignored(RelPath),
}

/// A fresh, empty replica and the world around it. Where nobody edits what it has, its user is [`Elsewhere`].
pub trait Subject {
    /// The replica under test.
    fn replica(&self) -> &dyn Replica;
    /// Its user.
    fn user(&self) -> &dyn User;
    /// Lets time pass, real or simulated.
    fn pass_ms(&self, ms: u64);
    /// Starts (`true`) or ends a fault; returns whether the harness can do that.
    fn inject(&self, fault: &Fault, on: bool) -> bool;
    /// Closes the replica and opens it again, as after a restart of the process; returns whether the
    /// harness can do that.
    fn reopen(&mut self) -> bool;
}

/// Why a check ended early.
#[derive(Debug)]
pub enum Stop {
    /// The promise does not hold.
    Broken(String),
    /// It cannot be checked on this subject.
    Inapplicable(String),
}

impl<E: std::error::Error> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Broken(format!("unexpected error: {error}"))
    }
}

/// What a check returns.
pub type Verdict = Result<(), Stop>;

/// What a promise presupposes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Any replica keeps it.
    Nothing,
    /// It can be changed.
    Writable,
    /// It can be changed and keeps symbolic links.
    Links,
    /// It can be changed and keeps permission bits.
    Modes,
    /// It gives hints.
    Hints,
    /// Users change what is there.
    Edited,
}

impl Needs {
    fn met_by(self, replica: &dyn Replica) -> bool {
        let can = replica.capabilities();
        match self {
            Self::Nothing => true,
            Self::Writable => can.writable,
            Self::Links => can.writable && can.links,
            Self::Modes => can.writable && can.modes,
            Self::Hints => can.hints,
            Self::Edited => can.edited,
        }
    }
}

/// One thing that every replica must do.
#[derive(Clone, Copy)]
pub struct Promise {
    /// What a user would see if it were broken.
    pub symptom: &'static str,
    /// What it presupposes, all of it.
    pub needs: &'static [Needs],
    check: fn(&mut Scene<'_>) -> Verdict,
}

/// A promise named after the function that checks it.
macro_rules! list_promises {
    ($($needs:ident $(+ $also:ident)* $check:ident,)+) => {
        pub(super) const PROMISES: &[$crate::conformance::Promise] = &[$(
            $crate::conformance::Promise {
                symptom: stringify!($check),
                needs: &[
                    $crate::conformance::Needs::$needs,
                    $($crate::conformance::Needs::$also,)*
                ],
                check: $check,
            },
        )+];
    };
}
use list_promises;

/// Every promise, in an order that puts the simple ones first.
pub fn promises() -> impl Iterator<Item = &'static Promise> {
    [
        look::PROMISES,
        record::PROMISES,
        content::PROMISES,
        apply::PROMISES,
        rename::PROMISES,
        faults::PROMISES,
    ]
    .into_iter()
    .flatten()
}

/// What became of each promise.
#[derive(Debug, Default)]
pub struct Report {
    /// Promises that hold.
    pub kept: Vec<&'static str>,
    /// Promises that do not, and what was seen instead.
    pub broken: Vec<(&'static str, String)>,
    /// Promises that could not be checked, and why.
    pub inapplicable: Vec<(&'static str, String)>,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (kept, broken) = (self.kept.len(), self.broken.len());
        writeln!(
            f,
            "{kept} kept, {broken} broken, {} not applicable",
            self.inapplicable.len()
        )?;
        for (symptom, why) in &self.broken {
            writeln!(f, "  broken: {symptom}: {why}")?;
        }
        for (symptom, why) in &self.inapplicable {
            writeln!(f, "  not applicable: {symptom}: {why}")?;
        }
        Ok(())
    }
}

/// Checks every promise, each on a fresh subject.
pub fn run_all(new: &dyn Fn() -> Box<dyn Subject>) -> Report {
    run_some(new, &|_| true)
}

/// Checks the promises that are wanted, each on a fresh subject.
pub fn run_some(new: &dyn Fn() -> Box<dyn Subject>, wanted: &dyn Fn(&Promise) -> bool) -> Report {
    let mut report = Report::default();
    for promise in promises().filter(|p| wanted(p)) {
        let mut subject = new();
        let lacks = |needs: &&Needs| !needs.met_by(subject.replica());
        if let Some(lacking) = promise.needs.iter().find(lacks) {
            let why = format!("it declares that it lacks: {lacking:?}");
            report.inapplicable.push((promise.symptom, why));
            continue;
        }
        match (promise.check)(&mut Scene::new(subject.as_mut())) {
            Ok(()) => report.kept.push(promise.symptom),
            Err(Stop::Broken(why)) => report.broken.push((promise.symptom, why)),
            Err(Stop::Inapplicable(why)) => report.inapplicable.push((promise.symptom, why)),
        }
    }
    report
}

/// The reference implementation's user.
impl User for MemoryReplica {
    fn write(&self, path: &RelPath, bytes: &[u8]) -> io::Result<()> {
        self.user_write(path, bytes)
    }

    fn remove(&self, path: &RelPath) -> io::Result<()> {
        self.user_remove(path)
    }

    fn rename(&self, from: &RelPath, to: &RelPath) -> io::Result<()> {
        self.user_rename(from, to)
    }

    fn mkdir(&self, path: &RelPath) -> io::Result<()> {
        self.user_mkdir(path)
    }

    fn symlink(&self, path: &RelPath, target: &[u8]) -> io::Result<()> {
        self.user_link(path, target)
    }

    fn chmod(&self, path: &RelPath, mode: u16) -> io::Result<()> {
        self.user_chmod(path, mode)
    }

    fn read(&self, path: &RelPath) -> io::Result<Vec<u8>> {
        self.user_read(path)
    }

    fn tree(&self) -> io::Result<BTreeMap<RelPath, Object>> {
        Ok(Self::tree(self))
    }
}
