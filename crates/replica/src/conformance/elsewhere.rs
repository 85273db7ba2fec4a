//! The user of a replica that nobody edits: every change is made elsewhere, and arrives.
//!
//! Owns how an edit becomes an action. What such a user sees is what the replica's rows say is there, and what a look
//! would find beyond them. Invariant: it knows the replica by its contract alone.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use instep_chunk::content_id;
use instep_core::id::{ActorId, ContentId, Dot};
use instep_core::path::RelPath;
use instep_core::plan::{Action, Goal, Keep, Outcome, Precondition};
use instep_core::row::Row;
use instep_core::time::Mtime;
use instep_core::version::{Kind, Version};

use super::User;
use super::scene::{Given, read_all};
use crate::look::{Found, Scope};
use crate::memory::Object;
use crate::records::{ShareRecord, ShareState};
use crate::{Error, Replica};

/// Who edits where the replica under test is not.
pub struct Elsewhere {
    replica: Arc<dyn Replica>,
    counter: Cell<u64>,
}

fn failed(e: Error) -> io::Error {
    io::Error::other(e.chain())
}

fn refused(outcome: &Outcome) -> io::Error {
    io::Error::other(format!("the change did not arrive: {outcome:?}"))
}

impl Elsewhere {
    /// Whose changes arrive at a replica. `life` tells the users of one replica apart, one after the other.
    pub fn new(replica: Arc<dyn Replica>, life: u64) -> Self {
        Self {
            replica,
            counter: Cell::new(life << 32),
        }
    }

    fn dot(&self) -> Dot {
        self.counter.set(self.counter.get() + 1);
        Dot {
            actor: ActorId(*b"far-away"),
            counter: self.counter.get(),
        }
    }

    fn row(&self, path: &RelPath) -> io::Result<Row> {
        let row = self.replica.row(path).map_err(failed)?;
        Ok(row.unwrap_or_default())
    }

    /// Brings one change, on top of everything that is known of the path.
    fn send(&self, path: &RelPath, goal: Goal, version: Version, bytes: &[u8]) -> io::Result<()> {
        let row = self.row(path)?;
        let dot = self.dot();
        let before = match (row.print, row.present()) {
            (None, _) => Precondition::Absent,
            (Some(print), v) => Precondition::Unchanged {
                kind: v.map_or(Kind::Dir, |v| v.kind),
                print,
                content: v.map_or(ContentId::NONE, |v| v.content),
            },
        };
        let action = Action {
            replica: 0,
            path: path.clone(),
            before,
            goal,
            keep: Keep::Trash,
            entry: row.entry.record(dot, version),
            shown: Some(dot),
        };
        let given = Given([(content_id(bytes), bytes.to_vec())].into());
        let outcomes = self.replica.apply(&[action], &given).map_err(failed)?;
        match &outcomes[..] {
            [Outcome::Done] => Ok(()),
            [other] => Err(refused(other)),
            _ => Err(io::Error::other("another number of outcomes")),
        }
    }

    /// A version of now, of a kind.
    fn version(&self, kind: Kind) -> Version {
        let mtime = Mtime {
            secs: 1_700_000_000 + self.counter.get().cast_signed() % 1_000_000,
            nanos: 5,
        };
        let te = mtime.nanos_since_epoch().unwrap_or_default();
        Version {
            mode: match kind {
                Kind::File => 0o644,
                Kind::Dir => 0o755,
                Kind::Link | Kind::Tomb => 0,
            },
            mtime: if matches!(kind, Kind::File | Kind::Link) {
                mtime
            } else {
                Mtime::default()
            },
            te,
            mode_te: te,
            ..Version::bare(kind)
        }
    }

    /// What was brought back and is not recorded becomes recorded, as an engine sees to.
    fn observe(&self) -> io::Result<()> {
        let look = self.replica.look(&Scope::Everything).map_err(failed)?;
        let share = ShareState::new(self.replica.share(), ShareRecord::default());
        let recorded = self.replica.record(&look, &share);
        recorded.map(drop).map_err(failed)
    }

    fn make_parents(&self, path: &RelPath) -> io::Result<()> {
        match path.parent().filter(|dir| !dir.is_root()) {
            Some(dir) if self.row(&dir)?.print.is_none() => self.mkdir(&dir),
            _ => Ok(()),
        }
    }

    fn bytes(&self, path: &RelPath, content: ContentId) -> io::Result<Vec<u8>> {
        let opened = self.replica.open(path, content).map_err(failed)?;
        let mut opened = opened.ok_or_else(|| io::Error::other("the content is not there"))?;
        read_all(opened.as_mut()).map_err(|e| io::Error::other(format!("{e:?}")))
    }

    fn object(&self, path: &RelPath, version: &Version) -> io::Result<Object> {
        let (mode, mtime) = (version.mode, version.mtime);
        Ok(match version.kind {
            Kind::File => Object::File {
                bytes: self.bytes(path, version.content)?,
                mode,
                mtime,
            },
            Kind::Link => Object::Link {
                target: version.target.to_vec(),
                mtime,
            },
            Kind::Dir | Kind::Tomb => Object::Dir { mode },
        })
    }

    /// What is at each path, as the rows and a look say.
    fn versions(&self) -> io::Result<BTreeMap<RelPath, Version>> {
        let mut all = BTreeMap::new();
        let read = self.replica.subtree(&RelPath::root(), &mut |path, row| {
            if let Some(print) = row.print {
                let dir = Version::bare(Kind::Dir);
                let shown = row.present().unwrap_or(&dir);
                let mode = print.mode;
                let version = Version {
                    mode,
                    ..shown.clone()
                };
                all.insert(path, version);
            }
            ControlFlow::Continue(())
        });
        read.map_err(failed)?;
        let look = self.replica.look(&Scope::Everything).map_err(failed)?;
        for finding in look.findings {
            match finding.found {
                Found::Present {
                    kind,
                    content,
                    mode,
                    mtime,
                    target,
                    ..
                } => {
                    let version = Version {
                        content,
                        mode,
                        mtime,
                        target,
                        ..Version::bare(kind)
                    };
                    all.insert(finding.path, version);
                }
                _ => drop(all.remove(&finding.path)),
            }
        }
        Ok(all)
    }
}

impl User for Elsewhere {
    fn write(&self, path: &RelPath, bytes: &[u8]) -> io::Result<()> {
        self.observe()?;
        self.make_parents(path)?;
        let was = self.row(path)?;
        let mut version = Version {
            content: content_id(bytes),
            size: bytes.len() as u64,
            ..self.version(Kind::File)
        };
        version.mode = was.print.map_or(version.mode, |p| p.mode);
        let goal = Goal::of(&version, version.mode);
        self.send(path, goal, version, bytes)
    }

    fn remove(&self, path: &RelPath) -> io::Result<()> {
        self.observe()?;
        let mut paths: Vec<RelPath> = self.versions()?.into_keys().collect();
        paths.retain(|p| p.is_within(path));
        for path in paths.iter().rev() {
            // What stood only for its contents went with them.
            let row = self.row(path)?;
            if row.print.is_none() {
                continue;
            }
            let tomb = Version {
                content: row.present().map_or(ContentId::NONE, |v| v.content),
                ..self.version(Kind::Tomb)
            };
            self.send(path, Goal::Absent, tomb, b"")?;
        }
        Ok(())
    }

    fn rename(&self, from: &RelPath, to: &RelPath) -> io::Result<()> {
        let moving: Vec<_> = self.versions()?.into_iter().collect();
        for (path, version) in moving {
            let Some(new) = path.rebase(from, to) else {
                continue;
            };
            match self.object(&path, &version)? {
                Object::File { bytes, .. } => self.write(&new, &bytes)?,
                Object::Link { target, .. } => self.symlink(&new, &target)?,
                Object::Dir { .. } | Object::Special => self.mkdir(&new)?,
            }
        }
        self.remove(from)
    }

    fn mkdir(&self, path: &RelPath) -> io::Result<()> {
        self.observe()?;
        self.make_parents(path)?;
        let version = self.version(Kind::Dir);
        self.send(path, Goal::of(&version, version.mode), version, b"")
    }

    fn symlink(&self, path: &RelPath, target: &[u8]) -> io::Result<()> {
        self.observe()?;
        self.make_parents(path)?;
        let version = Version {
            content: content_id(target),
            target: target.into(),
            ..self.version(Kind::Link)
        };
        self.send(path, Goal::of(&version, 0), version, b"")
    }

    fn chmod(&self, path: &RelPath, mode: u16) -> io::Result<()> {
        self.observe()?;
        let row = self.row(path)?;
        let is_dir = row.is_dir();
        let was = row.present().cloned();
        let was = was.unwrap_or_else(|| self.version(Kind::Dir));
        let mtime = (!is_dir).then_some(was.mtime);
        let version = Version {
            mode,
            meta_only: true,
            ..was
        };
        self.send(path, Goal::Metadata { mode, mtime }, version, b"")
    }

    fn read(&self, path: &RelPath) -> io::Result<Vec<u8>> {
        let version = self.versions()?.remove(path);
        let version = version.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        self.bytes(path, version.content)
    }

    fn tree(&self) -> io::Result<BTreeMap<RelPath, Object>> {
        let versions = self.versions()?.into_iter();
        versions
            .map(|(path, version)| Ok((path.clone(), self.object(&path, &version)?)))
            .collect()
    }
}
