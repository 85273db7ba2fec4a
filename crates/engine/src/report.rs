//! What the engine tells the world. Values only: whoever listens renders them for a person or a program.

use instep_core::id::{ContentId, Dot, ReplicaId, ShareId};
use instep_core::path::RelPath;
use instep_core::plan::Problem;
use instep_core::version::Kind;
use instep_replica::{Description, Totals};

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// It appeared.
    Create,
    /// Its content changed.
    Update,
    /// It was deleted.
    Delete,
    /// It was renamed.
    Move,
    /// Only its mode or time changed.
    Metadata,
    /// Only its owner or extended attributes changed, or its mode or time too.
    Attributes,
}

/// One change that reached other replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// What it is.
    pub object: Kind,
    /// Where.
    pub path: RelPath,
    /// Where it was before, for a move.
    pub from_path: Option<RelPath>,
    /// The replica where it happened: its place in the session's list.
    pub from: usize,
    /// The replicas it was brought to.
    pub to: Vec<usize>,
    /// Bytes of the file.
    pub size: u64,
    /// Nanoseconds from noticing to done.
    pub lag_ns: u64,
}

/// What the first meeting of replicas will do, per design: it asks nothing and deletes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meeting {
    /// Per replica: paths that only it has.
    pub only_on: Vec<u64>,
    /// Per replica: entries and bytes that it will receive.
    pub receives: Vec<(u64, u64)>,
    /// Paths whose files differ, as far as they were read.
    pub differ: u64,
    /// Paths that several replicas have, of which a file is still to be read.
    pub unread: u64,
    /// Per pair of replicas (first below second): on how many differing paths the first, and the second, is
    /// newer.
    pub newer: Vec<(usize, usize, u64, u64)>,
    /// Bytes of losers that will be retained.
    pub retained_bytes: u64,
}

/// Work that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Actions that are to be done in this cycle.
    pub actions_total: u64,
    /// Of these, done.
    pub actions_done: u64,
    /// Bytes that are to be brought.
    pub bytes_total: u64,
    /// Of these, brought.
    pub bytes_done: u64,
    /// Entries looked at so far while scanning; the total is not known before the end.
    pub scanned: u64,
}

/// The state of a replica or of the whole session, in the words that users see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Looking at everything.
    Scanning,
    /// Bringing changes.
    Syncing,
    /// Nothing to do, nothing held, nothing failed.
    InSync,
    /// A guard wants a decision.
    Held,
    /// Cannot be written: full or read-only.
    Paused,
    /// Some paths failed.
    Problem,
    /// Not there.
    Offline,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Scanning,
        Self::Syncing,
        Self::InSync,
        Self::Held,
        Self::Paused,
        Self::Problem,
        Self::Offline,
    ];
}

/// Counts of the session as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// Sums over the tree, from the replica that has most.
    pub totals: Totals,
    /// Open conflicts.
    pub conflicts: u64,
    /// Open holds.
    pub holds: u64,
    /// Paths with problems.
    pub problems: u64,
    /// Actions that wait (replica offline, full, busy).
    pub waiting: u64,
    /// Changes carried out since the start, all replicas together.
    pub changes: u64,
    /// Bytes written since the start.
    pub bytes: u64,
    /// Since the start (or the last summary for `--once`), nanoseconds.
    pub took_ns: u64,
}

/// Something happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The replicas are open; in the session's order.
    Opened {
        /// Which share.
        share: ShareId,
        /// Identities and introductions.
        replicas: Vec<(ReplicaId, Description)>,
    },
    /// Another replica takes part, or one that did is back.
    Joined {
        /// Its place in the session.
        replica: usize,
        /// Its identity.
        id: ReplicaId,
        /// Its introduction.
        description: Description,
    },
    /// A replica is looked at as a whole.
    ScanStarted {
        /// Which replica.
        replica: usize,
    },
    /// Replica sums after a full look.
    Scanned {
        /// Which replica.
        replica: usize,
        /// Its sums.
        totals: Totals,
        /// How many paths differ from its index.
        changes: u64,
    },
    /// What the first meeting will do.
    Meeting(Meeting),
    /// A change was carried out.
    Changed(Change),
    /// Work is under way; at most four a second.
    Progress(Progress),
    /// A path has a problem, or none any more.
    Problem {
        /// Which replica.
        replica: usize,
        /// What.
        problem: Problem,
        /// False when it is over.
        open: bool,
    },
    /// A version lost and is kept aside.
    Conflict {
        /// Where.
        path: RelPath,
        /// The loser; also its id in commands.
        loser: Dot,
        /// The winner.
        winner: Option<Dot>,
        /// The loser's content.
        content: ContentId,
    },
    /// A person settled a conflict.
    Resolved {
        /// Where.
        path: RelPath,
        /// The loser; its id in commands.
        loser: Dot,
        /// How.
        keep: crate::command::Keep,
    },
    /// An object was brought back from the trash.
    Restored {
        /// On which replica.
        replica: usize,
        /// Where it is now.
        path: RelPath,
    },
    /// Changes are held back until a person decides.
    Hold {
        /// Its id in commands.
        id: String,
        /// Which replica they came from.
        replica: usize,
        /// How many entries.
        count: u64,
        /// Of how many.
        total: u64,
        /// What is held.
        kind: instep_replica::records::HoldKind,
        /// False when it is over.
        open: bool,
    },
    /// What was displaced long ago was destroyed.
    Purged {
        /// On which replica.
        replica: usize,
        /// How many objects.
        objects: u64,
    },
    /// A replica went away, came back, or takes no writes for now.
    Replica {
        /// Which.
        replica: usize,
        /// Its state now.
        state: State,
        /// Why, with the system's own words.
        why: String,
    },
    /// Something a person should know, with a stable code.
    Notice {
        /// The code, as in `explain`.
        code: u16,
        /// One sentence.
        text: String,
    },
    /// Everything known is done, or waits for somebody else.
    Settled(Summary),
}

/// Whoever listens. Called on the engine's thread: must be quick.
pub trait Monitor: Send {
    /// Something happened.
    fn event(&mut self, event: Event);
}

/// Listens to nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Monitor for Silent {
    fn event(&mut self, _: Event) {}
}
