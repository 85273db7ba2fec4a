//! A root with a replica, a tree outside, and somebody's directory beside them, all on one disk.
//!
//! Owns how all of it is brought back to where it began after each operation. Invariant: when an operation begins, every
//! directory is the one that the replica opened, and in the last one there is nothing but what the operation needs.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use instep_core::id::ShareId;
use instep_core::path::RelPath;
use instep_core::plan::{Outcome, Problem};
use instep_core::policy::Role;
use instep_core::row::Row;
use instep_local::{IgnoreOptions, LocalReplica, OpenOptions, ShareChoice};
use instep_replica::Replica as _;
use instep_replica::env::StepEnv;

use super::Part;
use super::attacker::{Attacker, remove};
use super::canary::{Canary, leaked};
use super::order::{Change, Given, action};

/// The directory in which all operations are.
pub const DIR: &str = "1/2/3";
/// The other user, who owns all directories of the root but ours.
pub const SOMEBODY: u32 = 4711;
/// What is always there: each directory with the names in it.
const STANDING: [(&str, &[&str]); 4] = [
    ("", &["1", ".instep"]),
    ("1", &["2", "anchor"]),
    ("1/2", &["3", "anchor"]),
    ("1/2/3", &["anchor"]),
];
const DIRS: [&str; 7] = [
    "1",
    "1/2",
    "1/2/3",
    ".instep",
    ".instep/staging",
    ".instep/trash",
    ".instep/versions",
];

/// All of it.
#[derive(Debug)]
pub struct Ground {
    at: PathBuf,
    root: PathBuf,
    /// What nothing may touch.
    pub canary: Canary,
    replica: Option<LocalReplica>,
    source: Option<LocalReplica>,
    inodes: Vec<(&'static str, u64)>,
    changes: u64,
}

fn other(e: impl std::fmt::Display) -> io::Error {
    io::Error::other(e.to_string())
}

/// The path of a name in the last directory.
pub(super) fn path(name: &str) -> RelPath {
    RelPath::new(format!("{DIR}/{name}").as_bytes()).expect("a plain path")
}

impl Ground {
    /// Makes it in a directory that is not there yet.
    pub fn new(at: &Path) -> io::Result<Self> {
        let root = at.join("root");
        fs::create_dir_all(root.join(DIR))?;
        fs::create_dir(at.join("aside"))?;
        chown(at.join("aside"), Some(SOMEBODY), Some(SOMEBODY))?;
        for (dir, names) in STANDING {
            chown(root.join(dir), Some(SOMEBODY), Some(SOMEBODY))?;
            if names.contains(&"anchor") {
                fs::write(root.join(dir).join("anchor"), "inside")?;
            }
        }
        let mut ground = Self {
            at: at.to_owned(),
            root,
            canary: Canary::plant(&at.join("canary"))?,
            replica: None,
            source: None,
            inodes: Vec::new(),
            changes: 0,
        };
        ground.open()?;
        for dir in DIRS {
            let inode = fs::symlink_metadata(ground.root.join(dir))?.ino();
            ground.inodes.push((dir, inode));
        }
        Ok(ground)
    }

    /// The root's path.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Opens the replica, if it is not open.
    pub fn open(&mut self) -> io::Result<()> {
        if self.replica.is_none() {
            self.replica = Some(self.reopened("state", Role::Both).map_err(other)?);
        }
        Ok(())
    }

    /// Opens the root in this role.
    pub(super) fn reopened(&self, state: &str, role: Role) -> instep_replica::Result<LocalReplica> {
        let options = OpenOptions {
            label: "root".into(),
            location: self.root.display().to_string(),
            path: self.root.clone(),
            role,
            share: ShareChoice::Existing(ShareId([7; 16])),
            mirror: role == Role::Source,
            create: false,
            preview: false,
            read_only_index: false,
            state_dir: self.at.join(state),
            poll: None,
            ignore: IgnoreOptions::default(),
            trash_days: 30,
            owner: true,
            xattr: true,
            command: "a trial".into(),
        };
        let env = StepEnv::new(self.changes);
        LocalReplica::open(Arc::new(env), options)
    }

    /// Lets the replica go.
    pub(super) fn close(&mut self) {
        self.replica = None;
    }

    /// The replica.
    pub(super) fn replica(&self) -> io::Result<&LocalReplica> {
        self.replica
            .as_ref()
            .ok_or_else(|| other("the replica is not open"))
    }

    /// The root as a mirror's source.
    pub(super) fn source(&mut self) -> io::Result<&LocalReplica> {
        if self.source.is_none() {
            self.source = Some(self.reopened("mirror", Role::Source).map_err(other)?);
        }
        self.source.as_ref().ok_or_else(|| other("no source"))
    }

    /// What the replica knows of a name.
    pub(super) fn row(&self, name: &str) -> io::Result<Row> {
        let row = self.replica()?.row(&path(name)).map_err(other)?;
        Ok(row.unwrap_or_default())
    }

    /// A number that no change had before.
    pub(super) fn fresh(&mut self) -> u64 {
        self.changes += 1;
        self.changes
    }

    /// What an engine asks for a change of a name. A move begins at `f`.
    pub(super) fn order(
        &mut self,
        name: &str,
        change: Change<'_>,
    ) -> io::Result<instep_core::plan::Action> {
        let (n, row, moved) = (self.fresh(), self.row(name)?, self.row("f")?);
        Ok(action(change, &path(name), &row, &moved, n))
    }

    /// Has a change made while nobody races it.
    pub(super) fn make(&mut self, name: &str, change: Change<'_>) -> io::Result<()> {
        let bytes = match change {
            Change::New(bytes) | Change::Replaced(bytes) | Change::Won(bytes) => bytes,
            _ => b"",
        };
        let order = self.order(name, change)?;
        let given = Given(bytes.to_vec());
        let done = self.replica()?.apply(&[order], &given).map_err(other)?;
        match &done[..] {
            [Outcome::Done] => Ok(()),
            [Outcome::Blocked(Problem { detail, .. })] => Err(other(detail)),
            refused => Err(other(format!("{change:?} of {name}: {refused:?}"))),
        }
    }

    /// Who exchanges a part for an operation on this name, as this user.
    pub fn attacker(&self, part: Part, name: &str, user: Option<u32>) -> io::Result<Attacker> {
        // A directory of somebody else can be renamed, but not be taken to another directory.
        let beside = user.is_some() && part == Part::Ours(".instep");
        let aside = if beside { "root" } else { "aside" };
        let at = format!("root/{}", part.path(name));
        Attacker::new(&self.at, &at, aside, user)
    }

    /// Brings everything back to where it began; an error if something is not to be found.
    pub fn put_right(&mut self, attacker: &Attacker) -> io::Result<()> {
        let inode = |path: &Path| fs::symlink_metadata(path).map_or(0, |m| m.ino());
        for (dir, was) in &self.inodes {
            let at = self.root.join(dir);
            if inode(&at) != *was {
                let hidden = attacker.hides().find(|hide| inode(hide) == *was);
                let hidden = hidden.ok_or_else(|| other(format!("{dir} is lost")))?;
                remove(&at)?;
                fs::rename(hidden, &at)?;
            }
        }
        for hide in attacker.hides() {
            remove(&hide)?;
        }
        for (dir, names) in STANDING {
            for entry in fs::read_dir(self.root.join(dir))? {
                let entry = entry?;
                if !names.iter().any(|name| *name == entry.file_name()) {
                    remove(&entry.path())?;
                }
            }
        }
        self.open()
    }

    /// What was displaced by the calls before is of no use.
    pub(super) fn empty_trash(&self) -> io::Result<()> {
        self.replica()?.purge(i64::MAX).map_err(other)?;
        Ok(())
    }

    /// What left the root or came into it, the files of the index apart: they have hashes, and are big.
    pub fn escapes(&mut self) -> io::Result<Vec<String>> {
        let mut found = self.canary.escapes()?;
        let is_index = |path: &Path| {
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            name.starts_with(b"index.db")
        };
        let came_in = leaked(&self.root, &is_index)?.into_iter();
        found.extend(came_in.map(|path| format!("{} has bytes from outside", path.display())));
        Ok(found)
    }
}
