//! What an engine would ask of the replica: another's change of one name, after seeing ours.

use instep_chunk::content_id;
use instep_core::attributes::{Account, Owner, Sayings, Xattrs};
use instep_core::id::{ActorId, ContentId, Dot};
use instep_core::path::RelPath;
use instep_core::plan::{Action, Goal, Keep, Precondition};
use instep_core::row::Row;
use instep_core::time::Mtime;
use instep_core::version::{Kind, Version};
use instep_replica::content::{Bytes, Content, Sources};

/// Who makes the changes.
const OTHER: ActorId = ActorId(*b"another!");
const MODE: u16 = 0o640;

/// One change.
#[derive(Debug, Clone, Copy)]
pub(super) enum Change<'a> {
    /// A file with these bytes, where nothing is.
    New(&'a [u8]),
    /// A file with these bytes, in the place of another.
    Replaced(&'a [u8]),
    /// The same, and what was there lost a conflict.
    Won(&'a [u8]),
    /// A directory, where nothing is.
    Dir,
    /// A link, where nothing is.
    Link,
    /// Nothing.
    Gone,
    /// Other permissions.
    Mode,
    /// Another time.
    Time,
    /// Another owner, or other attributes; permissions too, so that there is something to be done.
    Attributes { owner: bool },
    /// What has another name.
    Moved(&'a RelPath),
}

/// Content by its id, whoever asks.
pub(super) struct Given(pub(super) Vec<u8>);

impl Sources for Given {
    fn open(&self, _: &Action, content: ContentId) -> Option<Box<dyn Content>> {
        (content_id(&self.0) == content)
            .then(|| Box::new(Bytes(self.0.clone())) as Box<dyn Content>)
    }
}

fn time(n: u64) -> Mtime {
    Mtime {
        secs: 1_600_000_000 + n as i64,
        nanos: 5,
    }
}

fn attributes(owner: bool, n: u64) -> Option<Sayings> {
    let account = || Account::new(4000 + (n % 1000) as u32, b"");
    let (user, group) = (account()?, account()?);
    let note = (b"user.note"[..].into(), n.to_le_bytes()[..].into());
    let xattrs = Xattrs::new([note].into())?;
    Some(Sayings {
        owner: owner.then_some((n as i64, Owner { user, group })),
        xattrs: (!owner).then_some((n as i64, xattrs)),
    })
}

impl Change<'_> {
    fn needs_nothing(self) -> bool {
        matches!(self, Self::New(_) | Self::Dir | Self::Link | Self::Moved(_))
    }

    /// What the path is afterwards. `was` is what it was, or what moves there.
    fn version(self, was: Option<&Version>, n: u64) -> Version {
        let same = was.cloned();
        let kept = |kind| same.clone().unwrap_or_else(|| blank(kind, n));
        match self {
            Self::New(bytes) | Self::Replaced(bytes) | Self::Won(bytes) => Version {
                content: content_id(bytes),
                size: bytes.len() as u64,
                mode: MODE,
                ..blank(Kind::File, n)
            },
            Self::Dir => Version {
                mode: 0o755,
                ..blank(Kind::Dir, n)
            },
            Self::Link => Version {
                content: content_id(b"f"),
                target: b"f"[..].into(),
                ..blank(Kind::Link, n)
            },
            Self::Gone => Version {
                content: was.map_or(ContentId::NONE, |v| v.content),
                mtime: Mtime::default(),
                ..blank(Kind::Tomb, n)
            },
            Self::Mode | Self::Time | Self::Attributes { .. } => {
                let sayings = match self {
                    Self::Attributes { owner } => attributes(owner, n),
                    _ => None,
                };
                Version {
                    mode: if n.is_multiple_of(2) { 0o600 } else { 0o755 },
                    mtime: time(n),
                    te: n as i64,
                    mode_te: n as i64,
                    attributes: sayings.map(Box::new),
                    meta_only: true,
                    ..kept(Kind::File)
                }
            }
            Self::Moved(_) => Version {
                te: n as i64,
                ..kept(Kind::File)
            },
        }
    }

    fn goal(self, to: &Version) -> Goal {
        match self {
            Self::New(_)
            | Self::Replaced(_)
            | Self::Won(_)
            | Self::Dir
            | Self::Link
            | Self::Gone => Goal::of(to, to.mode),
            Self::Mode | Self::Time | Self::Attributes { .. } => Goal::Metadata {
                mode: to.mode,
                mtime: Some(to.mtime),
            },
            Self::Moved(from) => Goal::Rename { from: from.clone() },
        }
    }
}

fn blank(kind: Kind, n: u64) -> Version {
    Version {
        mtime: time(n),
        te: n as i64,
        mode_te: 1,
        ..Version::bare(kind)
    }
}

/// The action for a change at a path. `row` is what the replica knows of the path, `moved` of where a move begins; `n` was
/// used for no change before.
pub(super) fn action(change: Change<'_>, path: &RelPath, row: &Row, moved: &Row, n: u64) -> Action {
    let counter = n;
    let dot = Dot {
        actor: OTHER,
        counter,
    };
    let was = match change {
        Change::Moved(_) => moved.present(),
        _ => row.present(),
    };
    let version = change.version(was, n);
    let before = match (row.print, row.present()) {
        (Some(print), version) if !change.needs_nothing() => Precondition::Unchanged {
            kind: version.map_or(Kind::Dir, |v| v.kind),
            print,
            content: version.map_or(ContentId::NONE, |v| v.content),
        },
        _ => Precondition::Absent,
    };
    let lost = row.shown.filter(|_| matches!(change, Change::Won(_)));
    Action {
        replica: 0,
        path: path.clone(),
        before,
        goal: change.goal(&version),
        keep: lost.map_or(Keep::Trash, Keep::Version),
        entry: row.entry.record(dot, version),
        shown: Some(dot),
    }
}
