//! An account of what was done to the tree, call by call, for a simulator that checks that nothing else was.
//!
//! Owns the account and nothing of the tree. Invariant: what the engine did names the call that did it, and what
//! users did names none. Nothing is noted before [`SimFs::keep_account`].

use instep_core::path::RelPath;

use super::SimFs;
use super::durable::{Assign, NodeId, Write};
use super::tree::{Holder, Sys, World};
use crate::api::Kind;

/// An inode: its number is never given to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Object {
    /// Which.
    pub id: u64,
    /// What it is.
    pub kind: Kind,
}

/// One name that refers to something else than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameChange {
    /// Where; none when that is not below the root.
    pub path: Option<RelPath>,
    /// What was there.
    pub was: Option<Object>,
    /// What is there.
    pub now: Option<Object>,
}

/// One thing that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// Names changed, all at one instant.
    Names {
        /// The engine's call; none for users.
        by: Option<&'static str>,
        /// Which names.
        changes: Vec<NameChange>,
    },
    /// The engine changed an inode where it is.
    InPlace {
        /// The engine's call.
        by: &'static str,
        /// Its bytes, and not only what is said of them.
        bytes: bool,
        /// Which.
        object: Object,
        /// Where it is named; none for a name that is not below the root.
        paths: Vec<Option<RelPath>>,
        /// A user's program has it open for writing, and does not wait for a lease.
        open: bool,
    },
    /// The engine read a directory to its end, or failed to.
    Listed {
        /// Which; none when it is not below the root.
        dir: Option<RelPath>,
        /// To its end.
        complete: bool,
    },
    /// The engine asked for a name in an open directory, and was told that there is none.
    Missed {
        /// Where; none when it is not below the root.
        path: Option<RelPath>,
    },
    /// The engine asked for a name in an open directory, and was told that it is no directory.
    NoDir {
        /// Where; none when it is not below the root.
        path: Option<RelPath>,
    },
}

/// What a process has open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Holdings {
    /// Open directories and files.
    pub handles: u64,
    /// Read leases.
    pub leases: u64,
    /// Advisory locks.
    pub locks: u64,
    /// Watchers.
    pub watchers: u64,
}

/// The account of a machine.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// What was done since it was taken last; none while nobody wants to know.
    deeds: Option<Vec<Deed>>,
    /// The call of the engine that is being carried out.
    pub(super) by: Option<&'static str>,
}

impl World {
    /// Where an inode is, by the first of its names.
    fn path_of(&self, id: NodeId) -> Option<RelPath> {
        if id == self.root {
            return Some(RelPath::root());
        }
        let mut names: Vec<&[u8]> = Vec::new();
        let mut at = id;
        while at != self.root {
            let (dir, name) = self.nodes.get(&at)?.names.first()?;
            names.push(name);
            at = *dir;
        }
        names.reverse();
        RelPath::new(&names.join(&b'/')).ok()
    }

    fn path_at(&self, dir: NodeId, name: &[u8]) -> Option<RelPath> {
        let name = instep_core::path::Name::new(name).ok()?;
        Some(self.path_of(dir)?.join(name))
    }

    fn object(&self, id: NodeId) -> Option<Object> {
        let kind = self.nodes.get(&id)?.kind();
        Some(Object { id, kind })
    }

    /// Called before the names change.
    pub(super) fn account_names(&mut self, assigns: &[Assign]) {
        if self.account.deeds.is_none() {
            return;
        }
        let change = |a: &Assign| NameChange {
            path: self.path_at(a.dir, &a.name),
            was: a.was.and_then(|id| self.object(id)),
            now: a.now.and_then(|id| self.object(id)),
        };
        let changes = assigns.iter().map(change).collect();
        let by = self.account.by;
        self.note_deed(Deed::Names { by, changes });
    }

    pub(super) fn account_change(&mut self, id: NodeId, write: &Write) {
        let (Some(by), true) = (self.account.by, self.account.deeds.is_some()) else {
            return;
        };
        let (Some(object), Some(node)) = (self.object(id), self.nodes.get(&id)) else {
            return;
        };
        let names = node.names.iter();
        // Who holds a lease can ask whether somebody broke it, except between the question and this very call:
        // there the kernel makes the other wait.
        let now = self.faults.total();
        let just_broken = |at: &Option<u64>| at.is_some_and(|calls| calls + 1 == now);
        let waits = node.leases.values().any(just_broken);
        let deed = Deed::InPlace {
            by,
            bytes: !matches!(write, Write::Meta),
            object,
            paths: names.map(|(dir, name)| self.path_at(*dir, name)).collect(),
            open: node.user_writers > 0 && !waits,
        };
        self.note_deed(deed);
    }

    pub(super) fn account_listing(&mut self, dir: NodeId, complete: bool) {
        if self.account.deeds.is_some() {
            let dir = self.path_of(dir);
            self.note_deed(Deed::Listed { dir, complete });
        }
    }

    /// As [`World::find`], for the engine. That a name is a directory is not noted: it proves nothing absent.
    pub(super) fn ask(&mut self, dir: NodeId, name: &[u8]) -> Sys<Option<NodeId>> {
        let found = self.find(dir, name)?;
        let kind = found.and_then(|id| self.object(id)).map(|o| o.kind);
        if self.account.deeds.is_some() && kind != Some(Kind::Dir) {
            let path = self.path_at(dir, name);
            self.note_deed(match kind {
                Some(_) => Deed::NoDir { path },
                None => Deed::Missed { path },
            });
        }
        Ok(found)
    }

    fn note_deed(&mut self, deed: Deed) {
        if let Some(deeds) = &mut self.account.deeds {
            deeds.push(deed);
        }
    }
}

impl SimFs {
    /// From now on, or again from the beginning, everything that is done is noted.
    pub fn keep_account(&self) {
        self.lock().account.deeds = Some(Vec::new());
    }

    /// What was done since this was asked last.
    pub fn take_deeds(&self) -> Vec<Deed> {
        let mut world = self.lock();
        let deeds = world.account.deeds.as_mut();
        deeds.map(std::mem::take).unwrap_or_default()
    }

    /// What the process under test has open now.
    pub fn holdings(&self) -> Holdings {
        let world = self.lock();
        let mut out = Holdings {
            watchers: world.watchers.len() as u64,
            ..Holdings::default()
        };
        for node in world.nodes.values() {
            out.handles += u64::from(node.opens);
            out.leases += node.leases.len() as u64;
            out.locks += u64::from(matches!(node.lock, Some(Holder::Engine(_))));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

    use super::*;
    use crate::sim::{Save, SimConfig};
    use instep_core::path::Name;

    #[test]
    fn what_the_engine_does_is_taken_for_a_users_deed() {
        let fs = SimFs::new(SimConfig::adversarial(1));
        fs.write_file("a", b"1", Save::InPlace).unwrap();
        fs.keep_account();
        fs.write_file("b", b"2", Save::InPlace).unwrap();
        let root = fs.root();
        root.exchange(Name::new(b"a").unwrap(), &root, Name::new(b"b").unwrap())
            .unwrap();
        root.list(&mut |_, _| ()).unwrap();
        fs.fail_next("list", 1, 5);
        assert!(root.list(&mut |_, _| ()).is_err());
        let deeds = fs.take_deeds();
        let by: Vec<Option<&str>> = deeds
            .iter()
            .map(|d| match d {
                Deed::Names { by, .. } => *by,
                Deed::InPlace { by, .. } => Some(*by),
                Deed::Listed { complete, .. } => complete.then_some("listed"),
                Deed::Missed { .. } => Some("missed"),
                Deed::NoDir { .. } => Some("no directory"),
            })
            .collect();
        assert_eq!(by, [None, Some("exchange"), Some("listed"), None]);
        let Deed::Names { changes, .. } = &deeds[1] else {
            panic!("{deeds:?}");
        };
        assert_eq!(changes[0].was, changes[1].now);
        assert_eq!(changes[0].path, RelPath::new(b"a").ok());
        assert_eq!(fs.holdings().handles, 1);
        drop(root);
        assert_eq!(fs.holdings(), Holdings::default());
    }

    #[test]
    fn what_opening_a_directory_tells_of_its_name_is_not_on_the_account() {
        let fs = SimFs::new(SimConfig::adversarial(1));
        fs.write_file("a", b"1", Save::InPlace).unwrap();
        fs.mkdir_all("d").unwrap();
        fs.keep_account();
        let root = fs.root();
        let name = |n: &'static str| Name::new(n.as_bytes()).unwrap();
        for asked in ["a", "b", "d"] {
            assert_eq!(root.open_dir(name(asked)).is_ok(), asked == "d");
            root.stat(name(asked)).unwrap();
        }
        // Who is told nothing knows nothing.
        fs.fail_next("open_dir", 2, 5);
        for asked in ["a", "b"] {
            assert!(root.open_dir(name(asked)).is_err());
        }
        let path = |n: &str| RelPath::new(n.as_bytes()).ok();
        let no_dir = Deed::NoDir { path: path("a") };
        let missed = Deed::Missed { path: path("b") };
        let told = [no_dir.clone(), no_dir, missed.clone(), missed];
        assert_eq!(fs.take_deeds(), told);
    }
}
