//! The one contract between the engine and any copy of a tree.
//!
//! A [`Replica`] is one copy of the tree with an identity and an index of its own. The engine knows nothing
//! else: a directory on this machine, a replica at the far end of a connection, a cloud store and the
//! in-memory reference are all just this trait, held to it by one conformance suite.
//!
//! The contract in three sentences. *An `Err` means that the replica is unusable for now and the session
//! goes on without it; anything about one path is a [`Problem`] or an [`Outcome`], never an `Err`. Every
//! action carries a precondition that the replica verifies immediately before acting, and nothing that an
//! action displaces is ever unlinked. Hints may repeat, lie or be lost; if any may have been lost the
//! replica says so once and the engine looks everywhere.*
//!
//! Calls block. The engine calls one replica from one thread at a time, except for [`Replica::open`],
//! [`Replica::stage`] and the reading methods, which may be called from any thread at any time.

#![forbid(unsafe_code)]

pub mod capability;
pub mod check;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod content;
pub mod env;
pub mod error;
mod hand_on;
pub mod hints;
pub mod look;
pub mod memory;
pub mod mint;
pub mod records;
pub mod step;

use std::ops::ControlFlow;

use instep_core::id::{ActorId, ContentId, Dot, ReplicaId, ShareId};
use instep_core::path::RelPath;
use instep_core::plan::{Action, Outcome, Problem};
use instep_core::row::Row;

pub use capability::{Capabilities, Description};
pub use check::Checked;
pub use content::{Content, Sources};
pub use error::{Error, ErrorKind, Retry};
pub use hints::{HintSet, Waker};
pub use look::{Finding, Found, Look, Move, Scope, Totals};
pub use records::{Book, ShareState};
pub use step::Step;

/// The result of a call that concerns the whole replica.
pub type Result<T> = core::result::Result<T, Error>;

/// Called for each row of a listing; break to stop early.
pub type RowVisitor<'a> = &'a mut dyn FnMut(RelPath, Row) -> ControlFlow<()>;

/// One copy of the tree.
pub trait Replica: Send + Sync {
    /// Its identity.
    fn id(&self) -> ReplicaId;

    /// The actor under which it mints dots now.
    fn actor(&self) -> ActorId;

    /// The share it takes part in.
    fn share(&self) -> ShareId;

    /// What a person is told about it.
    fn describe(&self) -> Description;

    /// What it can and cannot do.
    fn capabilities(&self) -> &Capabilities;

    /// Verifies that the root is still the one that was opened: mounted, in place, with its marker.
    ///
    /// `Err` of kind [`ErrorKind::Gone`] when it is not, of kind [`ErrorKind::ReadOnly`] when it takes no
    /// changes for now although it can be changed; the same call succeeds again when that is over. Cheap
    /// enough to be called every second.
    fn guard(&self) -> Result<()>;

    /// This replica opened anew, to take its place: where the root is back but not the same to the system
    /// (another device, another descriptor), or can be changed now and could not before. `None` while
    /// nothing is gained by that. After an `Err` this one may have let go of everything; it can still be asked
    /// for this again.
    fn renew(&self) -> Result<Option<std::sync::Arc<dyn Replica>>> {
        Ok(None)
    }

    /// Whether it lost its memory: its index is gone, older than what it once said, or of another root.
    /// Then what the others know counts for more than what is on its disk.
    fn is_rejoining(&self) -> bool {
        false
    }

    /// It has learnt everything that all others know.
    fn rejoined(&self) -> Result<()> {
        Ok(())
    }

    /// Starts to collect hints and to wake the engine when there are some.
    ///
    /// Each directory is watched from the next look that lists it on, and the watch is set before the
    /// listing, so that a change between the two is never missed. Returns problems for directories that
    /// cannot be watched; these are to be looked at by polling.
    fn watch(&self, waker: Waker) -> Result<Vec<Problem>>;

    /// The hints collected since the last call. Never blocks.
    fn take_hints(&self) -> HintSet;

    /// Looks at what is there and compares it with the index. Changes nothing.
    ///
    /// Everything that the look reports as absent was missing from a complete, error-free listing of its
    /// parent; where a listing failed there is a problem instead, and nothing below it is reported.
    fn look(&self, scope: &Scope) -> Result<Look>;

    /// Mints a dot for each finding and records it, durable against the end of this process. Returns the
    /// paths whose rows changed.
    ///
    /// A finding that is no longer true is recorded all the same: the next look corrects it.
    fn record(&self, look: &Look, share: &ShareState) -> Result<Vec<RelPath>>;

    /// Sums over what the index has now, where they are at hand.
    fn sums(&self) -> Option<Totals> {
        None
    }

    /// What the index has at a path.
    fn row(&self, path: &RelPath) -> Result<Option<Row>>;

    /// The rows directly in a directory, by name.
    fn children(&self, dir: &RelPath, visit: RowVisitor<'_>) -> Result<()>;

    /// The rows below a directory, directory by directory in the order of their bytes, the names of each in
    /// theirs: the same order on every replica, and a directory before what is in it.
    fn subtree(&self, dir: &RelPath, visit: RowVisitor<'_>) -> Result<()>;

    /// Of an observed replica: it is known to have the same of a path as the replica beside which it is observed. Then
    /// nothing follows from its row.
    fn is_alike(&self, _path: &RelPath) -> bool {
        false
    }

    /// Of an observed replica: how many paths its own engine has still to put in step with ours.
    fn pending(&self) -> usize {
        0
    }

    /// Of an observed replica: we have nothing left to do for what it has told; it is told so.
    fn rest(&self) {}

    /// Of an observed replica: its own engine has nothing left to do for what it was told, as far as it has said.
    fn is_at_rest(&self) -> bool {
        true
    }

    /// The rows below a directory that are not known to be alike, in any order.
    fn differing(&self, dir: &RelPath, visit: RowVisitor<'_>) -> Result<()> {
        self.subtree(dir, visit)
    }

    /// Opens content that this replica has: at `path` if the index says so, else in its version store,
    /// trash or staging. `None` when it is not here.
    /// What is listed as damaged ([`records::DamageRecord`]) is not offered.
    fn open(&self, path: &RelPath, content: ContentId) -> Result<Option<Box<dyn Content>>>;

    /// Where this content is shown, if that is at hand. It may be there no more.
    fn whereabouts(&self, _content: ContentId) -> Option<RelPath> {
        None
    }

    /// These contents will be opened soon, in this order, with their sizes. Only those to whom it is far care.
    fn prefetch(&self, _wanted: &[(RelPath, ContentId, u64)]) {}

    /// Reads the file at a path again and compares it with what the index says of it. Changes nothing.
    fn check(&self, _path: &RelPath) -> Result<Checked> {
        Ok(Checked::Nothing)
    }

    /// As [`Replica::check`], of an object in the trash or the version store, by its record's key.
    fn check_kept(&self, _key: &str) -> Result<Checked> {
        Ok(Checked::Nothing)
    }

    /// Some paths of the index that [`Replica::check`] may be asked about: others for another seed, each path
    /// for some seed, at most `count`. Costs little, however large the index is.
    fn sample(&self, _seed: u64, _count: usize) -> Result<Vec<RelPath>> {
        Ok(Vec::new())
    }

    /// Brings content here without showing it: verified, complete, ready for an action. May be called while
    /// actions run. Idempotent by content id.
    fn stage(&self, path: &RelPath, content: ContentId, from: &mut dyn Content) -> Result<Outcome>;

    /// The beginning of a content of which the transfer broke off, not verified. Kept for a while, as far as there is
    /// room.
    fn begun(&self, _content: ContentId) -> Option<Box<dyn Content>> {
        None
    }

    /// Whether the content is staged here.
    fn is_staged(&self, content: ContentId) -> bool;

    /// Carries out actions and records them, in order where one depends on another; one outcome for each.
    ///
    /// Content that is not staged is taken from `sources`.
    fn apply(&self, actions: &[Action], sources: &dyn Sources) -> Result<Vec<Outcome>>;

    /// Difficulties that actions met although they were carried out, since the last call or look.
    fn take_problems(&self) -> Vec<Problem> {
        Vec::new()
    }

    /// Renames `from` with everything below it to `to`, if `from` is unchanged and `to` is free. Only the
    /// disk changes; [`Replica::adopt_move`] tells the index.
    fn rename(&self, from: &RelPath, to: &RelPath) -> Result<Outcome>;

    /// After [`Replica::rename`]: the rows below `from` become rows below `to` with the entries that the
    /// mover recorded. `entries` are the mover's rows, old and new paths alike. Told twice it is as told once.
    fn adopt_move(&self, from: &RelPath, to: &RelPath, entries: &[(RelPath, Row)]) -> Result<()>;

    /// A dot for a decision that a person took here.
    fn mint(&self) -> Result<Dot>;

    /// Brings an object back from the trash (or the version store) under a free path, as a user would;
    /// returns the path. The next look finds it.
    fn restore(&self, key: &str, to: Option<&RelPath>) -> Result<RelPath>;

    /// Destroys what was displaced before an instant (nanoseconds since 1970); returns how many objects.
    /// Never the content of an open conflict.
    fn purge(&self, before_ns: i64) -> Result<u64>;

    /// Makes everything since the last barrier survive a power cut: data, then names, then the index.
    fn barrier(&self) -> Result<()>;

    /// The session is over: everything survives a power cut, and the next opening has nothing to recover.
    fn close(&self) -> Result<()> {
        self.barrier()
    }

    /// Reads one record of a book.
    fn read_record(&self, book: Book, key: &str) -> Result<Option<String>>;

    /// Writes (`Some`) or removes (`None`) one record of a book; durable with the next call that records.
    fn write_record(&self, book: Book, key: &str, body: Option<&str>) -> Result<()>;

    /// All records of a book, by key.
    fn records(&self, book: Book) -> Result<Vec<(String, String)>>;
}
