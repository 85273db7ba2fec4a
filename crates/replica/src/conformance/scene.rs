//! The stage on which promises are checked: what one says about paths, versions and actions in one line.
//!
//! Changes of other replicas are made up here: versions of a foreign actor, each with a dot of its own, so
//! that a subject is tested without a second replica or an engine.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

use instep_chunk::content_id;
use instep_core::entry::Entry;
use instep_core::id::{ActorId, ContentId, Dot, ShareId};
use instep_core::path::RelPath;
use instep_core::plan::{Action, Goal, Keep, Outcome, Precondition};
use instep_core::policy::ConflictPolicy;
use instep_core::row::Row;
use instep_core::time::Mtime;
use instep_core::version::{Kind, Version};

use super::{Fault, Stop, Subject, User, Verdict};
use crate::content::{Bytes, Content, Sources};
use crate::look::{Finding, Found, Look, Scope};
use crate::memory::Object;
use crate::records::{ShareRecord, ShareState};
use crate::{Book, Replica};

/// Time enough for any file system's timestamps to differ.
const TICK_MS: u64 = 20;
/// How often an unfinished look is repeated before that counts as broken.
const PATIENCE: u32 = 50;

/// The mode of every file and directory that a foreign actor makes; unusual, so that a default is noticed.
pub(super) const FOREIGN_MODE: u16 = 0o750;
/// The modification time of every file that a foreign actor makes: old, and with nanoseconds.
pub(super) const FOREIGN_MTIME: Mtime = Mtime {
    secs: 1_600_000_000,
    nanos: 123_456_789,
};

/// What is wanted at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Nothing.
    Nothing,
    /// A file with these bytes.
    File(&'static [u8]),
    /// A directory.
    Dir,
    /// A link to this target.
    Link(&'static [u8]),
}

impl Want {
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Nothing => Kind::Tomb,
            Self::File(_) => Kind::File,
            Self::Dir => Kind::Dir,
            Self::Link(_) => Kind::Link,
        }
    }

    pub(super) fn bytes(self) -> &'static [u8] {
        match self {
            Self::File(bytes) | Self::Link(bytes) => bytes,
            Self::Nothing | Self::Dir => &[],
        }
    }

    fn content(self, was: Option<&Version>) -> ContentId {
        match self {
            Self::File(bytes) | Self::Link(bytes) => content_id(bytes),
            Self::Dir => ContentId::NONE,
            Self::Nothing => was.map_or(ContentId::NONE, |v| v.content),
        }
    }

    pub(super) fn goal(self) -> Goal {
        match self {
            Self::Nothing => Goal::Absent,
            Self::File(bytes) => Goal::File {
                content: content_id(bytes),
                size: bytes.len() as u64,
                mode: FOREIGN_MODE,
                mtime: FOREIGN_MTIME,
            },
            Self::Dir => Goal::Dir { mode: FOREIGN_MODE },
            Self::Link(target) => Goal::Link {
                target: target.into(),
                mtime: FOREIGN_MTIME,
            },
        }
    }

    /// Whether this is what a user sees.
    pub(super) fn is(self, seen: Option<&Object>) -> bool {
        match (self, seen) {
            (Self::Nothing, None) | (Self::Dir, Some(Object::Dir { .. })) => true,
            (Self::File(bytes), Some(Object::File { bytes: seen, .. })) => bytes == seen,
            (Self::Link(target), Some(Object::Link { target: seen, .. })) => target == seen,
            _ => false,
        }
    }
}

/// Content by id, as another replica would give it.
#[derive(Debug, Default)]
pub(super) struct Given(pub(super) BTreeMap<ContentId, Vec<u8>>);

impl Sources for Given {
    fn open(&self, _: &Action, content: ContentId) -> Option<Box<dyn Content>> {
        self.0
            .get(&content)
            .map(|b| Box::new(Bytes(b.clone())) as Box<dyn Content>)
    }
}

/// What another replica's user made of a path.
pub(super) fn foreign_version(want: Want, was: Option<&Version>) -> Version {
    let is_file = matches!(want, Want::File(_));
    let te = FOREIGN_MTIME.nanos_since_epoch().unwrap_or_default();
    Version {
        content: want.content(was),
        size: if is_file {
            want.bytes().len() as u64
        } else {
            0
        },
        mode: if is_file || want == Want::Dir {
            FOREIGN_MODE
        } else {
            0
        },
        mtime: if matches!(want, Want::File(_) | Want::Link(_)) {
            FOREIGN_MTIME
        } else {
            Mtime::default()
        },
        te,
        mode_te: te,
        target: if let Want::Link(target) = want {
            target.into()
        } else {
            Box::default()
        },
        ..Version::bare(want.kind())
    }
}

/// A path from a literal.
pub(super) fn p(path: &str) -> Result<RelPath, Stop> {
    Ok(RelPath::new(path.as_bytes())?)
}

/// A subject, and the changes that others make.
pub struct Scene<'a> {
    subject: &'a mut dyn Subject,
    share: ShareState,
    foreign: Cell<u64>,
}

impl<'a> Scene<'a> {
    /// A stage for one subject.
    pub fn new(subject: &'a mut dyn Subject) -> Self {
        let id: ShareId = subject.replica().share();
        let mut share = ShareState::new(id, ShareRecord::default());
        share.policies.0.insert(3, ConflictPolicy::Newest);
        Self {
            subject,
            share,
            foreign: Cell::new(0),
        }
    }

    pub(super) fn replica(&self) -> &dyn Replica {
        self.subject.replica()
    }

    pub(super) fn user(&self) -> &dyn User {
        self.subject.user()
    }

    pub(super) fn share(&self) -> &ShareState {
        &self.share
    }

    pub(super) fn pass_ms(&self, ms: u64) {
        self.subject.pass_ms(ms);
    }

    /// Starts or ends a fault, or says that this cannot be checked.
    pub(super) fn inject(&self, fault: &Fault, on: bool) -> Verdict {
        if self.subject.inject(fault, on) {
            return Ok(());
        }
        Err(Stop::Inapplicable(format!(
            "the harness cannot arrange {fault:?}"
        )))
    }

    pub(super) fn reopen(&mut self) -> Verdict {
        if self.subject.reopen() {
            return Ok(());
        }
        Err(Stop::Inapplicable("the harness cannot restart it".into()))
    }

    /// What a user sees at a path.
    pub(super) fn seen(&self, path: &RelPath) -> Result<Option<Object>, Stop> {
        Ok(self.user().tree()?.remove(path))
    }

    /// Makes a path what is wanted, as a user would.
    pub(super) fn edit(&self, path: &RelPath, want: Want) -> Verdict {
        self.pass_ms(TICK_MS);
        let there = self.seen(path)?;
        let in_place = matches!((want, &there), (Want::File(_), Some(Object::File { .. })));
        if there.is_some() && !in_place {
            self.user().remove(path)?;
        }
        match want {
            Want::Nothing => {}
            Want::File(bytes) => self.user().write(path, bytes)?,
            Want::Dir => self.user().mkdir(path)?,
            Want::Link(target) => self.user().symlink(path, target)?,
        }
        Ok(())
    }

    pub(super) fn file(&self, path: &str, bytes: &[u8]) -> Result<RelPath, Stop> {
        let path = p(path)?;
        self.pass_ms(TICK_MS);
        self.user().write(&path, bytes)?;
        Ok(path)
    }

    /// Looks everywhere until nothing is left to wait for.
    pub(super) fn look(&self) -> Result<Look, Stop> {
        self.look_at(&Scope::Everything)
    }

    pub(super) fn look_at(&self, scope: &Scope) -> Result<Look, Stop> {
        for _ in 0..PATIENCE {
            let look = self.replica().look(scope)?;
            let wait = look.again.iter().map(|(_, ms)| *ms).max();
            if wait.is_none() && look.unhashed.is_empty() {
                return Ok(look);
            }
            self.pass_ms(wait.unwrap_or(0).max(TICK_MS));
        }
        Err(Stop::Broken(
            "a look never comes to an end: paths are to be looked at again for ever".into(),
        ))
    }

    /// Looks and records, as the engine does before it plans.
    pub(super) fn observe(&self) -> Result<Look, Stop> {
        let look = self.look()?;
        self.replica().record(&look, &self.share)?;
        Ok(look)
    }

    /// Nothing differs and nothing is wrong.
    pub(super) fn quiet(&self) -> Verdict {
        let look = self.look()?;
        ensure!(
            look.findings.is_empty(),
            "the look should find nothing: {:?}",
            look.findings
        );
        ensure!(
            look.problems.is_empty(),
            "the look should have no problems: {:?}",
            look.problems
        );
        Ok(())
    }

    pub(super) fn row(&self, path: &RelPath) -> Result<Row, Stop> {
        Ok(self.replica().row(path)?.unwrap_or_default())
    }

    /// The version on disk, tombstones included.
    pub(super) fn shown(&self, path: &RelPath) -> Result<Version, Stop> {
        let row = self.row(path)?;
        row.on_disk()
            .cloned()
            .ok_or_else(|| Stop::Broken(format!("{path} shows no version: {row:?}")))
    }

    pub(super) fn rows(&self) -> Result<Vec<(RelPath, Row)>, Stop> {
        let mut rows = Vec::new();
        self.replica().subtree(&RelPath::root(), &mut |path, row| {
            rows.push((path, row));
            ControlFlow::Continue(())
        })?;
        Ok(rows)
    }

    pub(super) fn foreign_dot(&self) -> Dot {
        self.foreign.set(self.foreign.get() + 1);
        Dot {
            actor: ActorId(*b"foreign!"),
            counter: self.foreign.get(),
        }
    }

    /// What must be at a path, as the index has it.
    pub(super) fn before(&self, path: &RelPath) -> Result<Precondition, Stop> {
        let row = self.row(path)?;
        Ok(match (row.print, row.present()) {
            (None, _) => Precondition::Absent,
            (Some(print), version) => Precondition::Unchanged {
                kind: version.map_or(Kind::Dir, |v| v.kind),
                print,
                content: version.map_or(ContentId::NONE, |v| v.content),
            },
        })
    }

    /// The action by which a change that another made after seeing ours comes here.
    pub(super) fn incoming(&self, path: &RelPath, want: Want) -> Result<Action, Stop> {
        let row = self.row(path)?;
        let dot = self.foreign_dot();
        Ok(Action {
            replica: 0,
            path: path.clone(),
            before: self.before(path)?,
            goal: want.goal(),
            keep: Keep::Trash,
            entry: row.entry.record(dot, foreign_version(want, row.on_disk())),
            shown: Some(dot),
        })
    }

    /// An action that only tells the index something.
    pub(super) fn telling(
        &self,
        path: &RelPath,
        entry: Entry,
        shown: Option<Dot>,
    ) -> Result<Action, Stop> {
        Ok(Action {
            replica: 0,
            path: path.clone(),
            before: self.before(path)?,
            goal: Goal::Record,
            keep: Keep::Trash,
            entry,
            shown,
        })
    }

    /// Applies actions with their content at hand.
    pub(super) fn apply(
        &self,
        actions: &[Action],
        contents: &[&[u8]],
    ) -> Result<Vec<Outcome>, Stop> {
        let given = Given(
            contents
                .iter()
                .map(|b| (content_id(b), b.to_vec()))
                .collect(),
        );
        let outcomes = self.replica().apply(actions, &given)?;
        ensure!(
            outcomes.len() == actions.len(),
            "{} actions gave {outcomes:?}",
            actions.len()
        );
        Ok(outcomes)
    }

    /// Applies one action that must succeed.
    pub(super) fn done(&self, action: &Action, contents: &[&[u8]]) -> Verdict {
        let outcomes = self.apply(std::slice::from_ref(action), contents)?;
        ensure!(
            outcomes[0] == Outcome::Done,
            "{:?} at {} gave {outcomes:?}",
            action.goal,
            action.path
        );
        Ok(())
    }

    /// Brings another's change here.
    pub(super) fn receive(&self, path: &RelPath, want: Want) -> Result<Action, Stop> {
        let action = self.incoming(path, want)?;
        self.done(&action, &[want.bytes()])?;
        Ok(action)
    }

    /// All bytes of content that the replica should have.
    pub(super) fn content(&self, path: &RelPath, bytes: &[u8]) -> Verdict {
        let Some(mut content) = self.replica().open(path, content_id(bytes))? else {
            return Err(Stop::Broken(format!(
                "the content of {path} cannot be opened"
            )));
        };
        let got = read_all(content.as_mut())?;
        ensure!(got == bytes, "{path} opens with {} other bytes", got.len());
        Ok(())
    }

    /// The bodies of the trash book.
    pub(super) fn trash_records(&self) -> Result<Vec<String>, Stop> {
        Ok(self
            .replica()
            .records(Book::Trash)?
            .into_iter()
            .map(|(_, body)| body)
            .collect())
    }
}

/// Everything from the start to the end.
pub(super) fn read_all(content: &mut dyn Content) -> Result<Vec<u8>, Stop> {
    let mut out = Vec::new();
    let mut buf = vec![0; 64 * 1024];
    loop {
        match content.read_at(out.len() as u64, &mut buf)? {
            0 => return Ok(out),
            n => out.extend_from_slice(&buf[..n]),
        }
    }
}

/// What a look found at a path.
pub(super) fn found<'a>(look: &'a Look, path: &RelPath) -> Option<&'a Found> {
    look.findings
        .iter()
        .find(|f: &&Finding| f.path == *path)
        .map(|f| &f.found)
}
