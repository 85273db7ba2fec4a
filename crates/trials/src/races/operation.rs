//! The kinds of operations: what each needs, and what is called while parts of its path are exchanged.
//!
//! Owns the list. Invariant: what an operation needs is made by the replica itself while nobody races it, so that the index
//! and the disk agree when it begins.

use std::fs;
use std::io;
use std::path::Path;

use instep_chunk::content_id;
use instep_core::id::{ContentId, ShareId};
use instep_core::plan::{Action, Outcome};
use instep_core::policy::Role;
use instep_local::LocalReplica;
use instep_replica::content::Bytes;
use instep_replica::look::Found;
use instep_replica::records::ShareRecord;
use instep_replica::{Book, Checked, Replica as _, Scope, ShareState};

use super::canary::{TOKEN, holds};
use super::ground::{Ground, path};
use super::order::{Change, Given};

/// A kind of operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Operation {
    Create,
    Replace,
    KeepVersion,
    Delete,
    MakeDir,
    RemoveDir,
    MakeLink,
    SetMode,
    SetTime,
    SetOwner,
    SetAttribute,
    RenameEarly,
    RenameAsAction,
    Read,
    Check,
    LookAndRecord,
    Stage,
    PutStaged,
    Restore,
    Purge,
    OpenAndSweep,
    MirrorSource,
}

/// What is called.
#[expect(missing_docs, reason = "as the operations")]
pub enum Call {
    Apply(Box<Action>, Vec<u8>),
    Rename,
    Read(ContentId),
    Check,
    Look,
    Stage(Vec<u8>),
    Restore(String),
    Purge,
    Open,
    Mirror,
    /// What no operation does: it goes by path. A trial that does not find this out finds nothing.
    ByPath(fn(&Path) -> io::Result<()>),
}

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Came {
    /// It was done.
    Done,
    /// It was not done, and says so.
    Refused,
    /// It handed over something from outside.
    Led(String),
}

impl Operation {
    /// All kinds.
    pub const ALL: [Self; 22] = [
        Self::Create,
        Self::Replace,
        Self::KeepVersion,
        Self::Delete,
        Self::MakeDir,
        Self::RemoveDir,
        Self::MakeLink,
        Self::SetMode,
        Self::SetTime,
        Self::SetOwner,
        Self::SetAttribute,
        Self::RenameEarly,
        Self::RenameAsAction,
        Self::Read,
        Self::Check,
        Self::LookAndRecord,
        Self::Stage,
        Self::PutStaged,
        Self::Restore,
        Self::Purge,
        Self::OpenAndSweep,
        Self::MirrorSource,
    ];

    /// The name in the last directory that it is about.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create | Self::PutStaged | Self::Stage => "new",
            Self::MakeDir => "sub",
            Self::RemoveDir => "old",
            Self::MakeLink => "link",
            Self::RenameAsAction => "to",
            _ => "f",
        }
    }

    /// Makes what it needs.
    pub fn prepare(self, ground: &mut Ground) -> io::Result<Call> {
        let bytes = format!("inside, number {}", ground.fresh()).into_bytes();
        let name = self.name();
        let file = Change::New(b"what was there");
        let change = match self {
            Self::Create | Self::PutStaged => Change::New(&bytes),
            Self::Replace => Change::Replaced(&bytes),
            Self::KeepVersion => Change::Won(&bytes),
            Self::Delete | Self::RemoveDir => Change::Gone,
            Self::MakeDir => Change::Dir,
            Self::MakeLink => Change::Link,
            Self::SetMode => Change::Mode,
            Self::SetTime => Change::Time,
            Self::SetOwner => Change::Attributes { owner: true },
            Self::SetAttribute => Change::Attributes { owner: false },
            Self::RenameAsAction => Change::Moved(&path("f")),
            Self::Stage => return Ok(Call::Stage(bytes)),
            Self::OpenAndSweep => {
                fs::write(ground.root().join(".instep/staging/stray"), &bytes)?;
                ground.close();
                return Ok(Call::Open);
            }
            _ => {
                ground.make("f", Change::New(&bytes))?;
                return self.without_action(ground, &bytes);
            }
        };
        match self {
            Self::Create | Self::MakeDir | Self::MakeLink => {}
            Self::PutStaged => {
                let (at, mut from) = (path(name), Bytes(bytes.clone()));
                let done = ground.replica()?.stage(&at, content_id(&bytes), &mut from);
                done.map_err(|e| io::Error::other(e.to_string()))?;
            }
            Self::RemoveDir => ground.make(name, Change::Dir)?,
            _ => ground.make("f", file)?,
        }
        let action = ground.order(name, change)?;
        Ok(Call::Apply(Box::new(action), bytes))
    }

    fn without_action(self, ground: &mut Ground, bytes: &[u8]) -> io::Result<Call> {
        Ok(match self {
            Self::RenameEarly => Call::Rename,
            Self::Read => Call::Read(content_id(bytes)),
            Self::Check => Call::Check,
            Self::Restore | Self::Purge => {
                ground.make("f", Change::Gone)?;
                let kept = ground.replica()?.records(Book::Trash);
                let kept = kept.map_err(|e| io::Error::other(e.to_string()))?;
                let key = kept.last().map(|(key, _)| key.clone()).unwrap_or_default();
                ground.canary.add(&format!(".instep/trash/{key}"))?;
                if self == Self::Purge {
                    Call::Purge
                } else {
                    Call::Restore(key)
                }
            }
            Self::MirrorSource => {
                ground.source()?;
                Call::Mirror
            }
            _ => Call::Look,
        })
    }
}

fn came<T>(result: instep_replica::Result<T>, then: impl FnOnce(T) -> Came) -> Came {
    result.map_or(Came::Refused, then)
}

fn outcome(outcome: &Outcome) -> Came {
    match outcome {
        Outcome::Done => Came::Done,
        _ => Came::Refused,
    }
}

impl Call {
    /// Makes the call.
    pub fn make(self, ground: &mut Ground) -> io::Result<Came> {
        let at = path("f");
        match self {
            Self::ByPath(act) => {
                return Ok(act(ground.root()).map_or(Came::Refused, |()| Came::Done));
            }
            Self::Open => {
                let opened = ground.reopened("state", Role::Both);
                return Ok(came(opened, |_| Came::Done));
            }
            Self::Mirror => return Ok(look(ground.source()?)),
            _ => {}
        }
        let replica = ground.replica()?;
        Ok(match self {
            Self::Apply(action, bytes) => came(replica.apply(&[*action], &Given(bytes)), |all| {
                outcome(&all[0])
            }),
            Self::Rename => came(replica.rename(&at, &path("to")), |o| outcome(&o)),
            Self::Read(content) => read(replica, content),
            Self::Check => came(replica.check(&at), |checked| match checked {
                Checked::Sound(_) => Came::Done,
                Checked::Decayed { found, .. } => judge(&found),
                _ => Came::Refused,
            }),
            Self::Stage(bytes) => {
                let (content, mut from) = (content_id(&bytes), Bytes(bytes));
                came(replica.stage(&at, content, &mut from), |o| outcome(&o))
            }
            Self::Restore(key) => came(replica.restore(&key, None), |_| Came::Done),
            Self::Purge => came(replica.purge(i64::MAX), |_| Came::Done),
            _ => look(replica),
        })
    }
}

fn read(replica: &LocalReplica, content: ContentId) -> Came {
    came(replica.open(&path("f"), content), |opened| {
        let Some(mut opened) = opened else {
            return Came::Refused;
        };
        let mut bytes = [0; 256];
        let count = opened.read_at(0, &mut bytes).unwrap_or_default();
        if holds(&bytes[..count]) {
            return Came::Led("content from outside was read".into());
        }
        Came::Done
    })
}

fn look(replica: &LocalReplica) -> Came {
    came(replica.look(&Scope::Everything), |look| {
        let share = ShareState::new(ShareId([7; 16]), ShareRecord::default());
        let led = look.findings.iter().map(|finding| judge(&finding.found));
        let led = led.into_iter().find(|came| matches!(came, Came::Led(_)));
        let recorded = came(replica.record(&look, &share), |_| Came::Done);
        led.unwrap_or(recorded)
    })
}

/// Whether a finding is of something outside.
fn judge(found: &Found) -> Came {
    match found {
        Found::Present { content, .. } if *content == content_id(TOKEN.as_bytes()) => {
            Came::Led("content from outside was found".into())
        }
        Found::Ancestor { seen, .. } => judge(seen),
        _ => Came::Done,
    }
}
