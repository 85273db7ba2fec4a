//! Conflicts that a person decided: closed in the books once what was decided is in an index.
//!
//! Owns the time between a decision and its record. Invariant: a conflict is not closed before some replica knows
//! the version that closes it, so that a death in between leaves it open, to be decided again.

use instep_core::entry::Entry;
use instep_core::id::Dot;
use instep_core::path::RelPath;
use instep_replica::records::ConflictRecord;
use instep_replica::{Book, Step};

use crate::command::Keep;
use crate::report::Event;
use crate::session::Session;

/// A decision that is not in the books yet.
pub(crate) struct Settlement {
    path: RelPath,
    loser: Dot,
    keep: Keep,
    record: ConflictRecord,
    /// Where something was decided.
    decided: Vec<RelPath>,
}

impl Session {
    /// A conflict was decided by what was just resolved; nobody decides it a second time meanwhile.
    pub(crate) fn settle_when_known(
        &mut self,
        path: RelPath,
        loser: Dot,
        record: &ConflictRecord,
        keep: &Keep,
    ) {
        self.open_conflicts.remove(&loser.to_string());
        self.dirty.insert(path.clone());
        let decided = self.resolutions.keys().cloned().collect();
        self.settlements.push(Settlement {
            path,
            loser,
            keep: keep.clone(),
            record: record.clone(),
            decided,
        });
    }

    /// Closes the conflicts whose decisions have arrived; the others are tried again.
    pub(crate) fn settle_conflicts(&mut self) {
        let mut resolutions = std::mem::take(&mut self.resolutions);
        resolutions.retain(|path, entry| !self.is_known(path, entry));
        for path in resolutions.keys() {
            if !self.later.contains_key(path) {
                self.retry(path.clone(), None, 100);
            }
        }
        self.resolutions = resolutions;
        for settlement in std::mem::take(&mut self.settlements) {
            let is_open = |path: &RelPath| self.resolutions.contains_key(path);
            if settlement.decided.iter().any(is_open) {
                self.settlements.push(settlement);
            } else {
                self.close_conflict(settlement);
            }
        }
    }

    /// Whether some replica knows all that an entry says.
    fn is_known(&self, path: &RelPath, entry: &Entry) -> bool {
        let mut rows = self.slots.iter().filter(|s| s.online());
        rows.any(|s| {
            let row = s.replica.row(path).ok().flatten();
            row.is_some_and(|row| row.entry.merge(entry) == row.entry)
        })
    }

    fn close_conflict(&mut self, settlement: Settlement) {
        let mut record = settlement.record;
        record.resolved = Some(settlement.keep.word().to_owned());
        record.resolved_ns = Some(self.env.wall_ns());
        let body = serde_json::to_string(&record).unwrap_or_default();
        let key = settlement.loser.to_string();
        for i in 0..self.slots.len() {
            if !self.slots[i].is_ours() {
                continue;
            }
            let written = self.slots[i]
                .replica
                .write_record(Book::Conflicts, &key, Some(&body));
            if let Err(e) = written {
                self.replica_failed(i, &e);
            }
            self.env.reach(Step::ConflictSettled);
        }
        self.monitor.event(Event::Resolved {
            path: settlement.path,
            loser: settlement.loser,
            keep: settlement.keep,
        });
    }
}
