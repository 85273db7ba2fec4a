//! The persistent steps of a replica and of a session, by name: the places where a death is worth trying.
//!
//! Owns the names. A step is reached right after its effect (or right before, where its text says so), through
//! [`Env::reach`](crate::env::Env::reach), which does nothing in the program that people use. Invariant: a name
//! means one effect for ever, because trials and their reports are written with it. Nothing is decided here.

macro_rules! steps {
    ($($(#[doc = $doc:literal])+ $step:ident = $name:literal,)+) => {
        /// A persistent step.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Step {
            $($(#[doc = $doc])+ $step,)+
        }

        impl Step {
            /// Every step, in the order of a replica's life.
            pub const ALL: &[Self] = &[$(Self::$step,)+];

            /// Its name in trials.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$step => $name,)+
                }
            }
        }
    };
}

steps! {
    /// `.instep` was made in a root.
    HomeMade = "home-made",
    /// A small file of ours is complete and durable under its second name.
    FileDrafted = "file-drafted",
    /// A small file of ours has its new text.
    FileReplaced = "file-replaced",
    /// The root's lock is taken and says by whom.
    Locked = "locked",
    /// An index that does not fit its root was moved aside.
    IndexAside = "index-aside",
    /// The index is there and open.
    IndexOpened = "index-opened",
    /// The marker says who lives in the root.
    MarkerWritten = "marker-written",
    /// The index knows its new generation, the evidence outside the root does not.
    Generation = "generation",
    /// The evidence outside the root knows the generation.
    Evidence = "evidence",
    /// Staging, trash and version store are there.
    PlacesMade = "places-made",
    /// The index says that a process is at work.
    Begun = "begun",
    /// After a crash: the row of an intended path was brought together with the disk.
    Classified = "classified",
    /// After a crash: something torn was moved to trash, and no record says so.
    SetAside = "set-aside",
    /// After a crash: that record and the path's row were written.
    SetAsideNoted = "set-aside-noted",
    /// After a power cut: a row that may be ahead of the disk was held against it.
    Suspected = "suspected",
    /// After a crash: content that was under way was removed.
    StrayDropped = "stray-dropped",
    /// After a crash: something in the staging directory was moved to trash.
    StrayKept = "stray-kept",
    /// After a crash: what was kept without a record has one.
    Relisted = "relisted",
    /// Recovery is done, its commit is not.
    Recovering = "recovering",
    /// Recovery is done and committed.
    Recovered = "recovered",
    /// Findings are in rows, not committed.
    Found = "found",
    /// A commit is about to happen.
    Committing = "committing",
    /// A commit happened.
    Committed = "committed",
    /// A block of counters is durable.
    Counters = "counters",
    /// A batch's intent is on record.
    Intended = "intended",
    /// A batch's intent would survive a power cut.
    IntentDurable = "intent-durable",
    /// A file for content that is brought ahead was made.
    StageMade = "stage-made",
    /// Content that was brought ahead is complete.
    Staged = "staged",
    /// A file in the staging directory was made.
    DraftMade = "draft-made",
    /// A file in the staging directory has its content.
    DraftFilled = "draft-filled",
    /// A file in the staging directory has its mode, attributes and time.
    DraftDressed = "draft-dressed",
    /// A file without a name was made.
    UnnamedMade = "unnamed-made",
    /// A file without a name has its content.
    UnnamedFilled = "unnamed-filled",
    /// A file without a name has its attributes and time.
    UnnamedDressed = "unnamed-dressed",
    /// A file without a name got one.
    Published = "published",
    /// A link in the staging directory was made.
    LinkDrafted = "link-drafted",
    /// A directory in the staging directory was made.
    DirDrafted = "dir-drafted",
    /// A directory was made.
    DirMade = "dir-made",
    /// A directory was made because something is to be in it.
    ParentMade = "parent-made",
    /// An object of the staging directory got its free name.
    Given = "given",
    /// What is to be displaced is guarded and is what was expected; nothing has happened to it.
    Guarded = "guarded",
    /// The names changed places.
    Exchanged = "exchanged",
    /// Where names cannot change places: the old object is away, the new one is not there.
    Aside = "aside",
    /// An object was taken from its name, to be deleted.
    Taken = "taken",
    /// What was displaced has been looked at.
    Judged = "judged",
    /// What was displaced is in the trash, and no record says so.
    Trashed = "trashed",
    /// What lost a conflict is in the version store, and no record says so.
    Stored = "stored",
    /// A directory that was displaced is gone.
    HuskGone = "husk-gone",
    /// A directory was removed.
    DirRemoved = "dir-removed",
    /// A directory that stood for its contents went with the last of them.
    Pruned = "pruned",
    /// A mode was set where it is.
    ModeSet = "mode-set",
    /// A time was set where it is.
    TimeSet = "time-set",
    /// A directory got the mode that had to wait for its contents.
    DirModeSet = "dir-mode-set",
    /// One object moved to its new path.
    Renamed = "renamed",
    /// A directory moved as a whole, and the index does not know.
    MovedEarly = "moved-early",
    /// The rows of a directory that moved are at its new place, not committed.
    MoveAdopted = "move-adopted",
    /// The rows of a batch are written, not committed.
    RowsWritten = "rows-written",
    /// The file system was told to make everything durable.
    Synced = "synced",
    /// The index says that everything of an epoch is durable.
    EpochDurable = "epoch-durable",
    /// The replica was closed.
    Closed = "closed",
    /// A record of the share, of a conflict, of a hold or of the log was written.
    Record = "record",
    /// What the replicas agree on was written to one of them.
    ShareAgreed = "share-agreed",
    /// A conflict was noted on one replica.
    ConflictNoted = "conflict-noted",
    /// A conflict was settled on one replica.
    ConflictSettled = "conflict-settled",
    /// A hold was opened, changed or closed.
    HoldSaved = "hold-saved",
    /// A hold was decided, what was held is not recorded.
    HoldDecided = "hold-decided",
    /// One replica remembers that nothing is pending, or that something is.
    Settled = "settled",
    /// Something was brought back from the trash, whose record is still there.
    Restored = "restored",
    /// A copy of something in the version store is ready to be given its name.
    RestoreDrafted = "restore-drafted",
    /// An object of the trash was destroyed, whose record is still there.
    Purged = "purged",
    /// A root's part in a share ended.
    Left = "left",
    /// Something of ours in a root that was forgotten was removed.
    StateRemoved = "state-removed",
    /// The evidence of a root that was forgotten is gone.
    EvidenceGone = "evidence-gone",
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn two_steps_have_one_name() {
        let names: BTreeSet<&str> = Step::ALL.iter().map(|s| s.name()).collect();
        assert_eq!(names.len(), Step::ALL.len());
        let plain = |n: &&str| n.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        assert!(names.iter().all(plain));
    }
}
