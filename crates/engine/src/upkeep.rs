//! What is done now and then, and not because something changed: what is too old leaves the trash.
//!
//! Invariant: nothing is destroyed because of one reading of the clock. An object's age counts up to the check
//! before this one, which is noted on each replica: a clock that jumped ahead and is put right destroys nothing.
//! A preview never comes here.

use instep_core::policy::Role;
use instep_replica::{Book, Error};

use crate::report::Event;
use crate::session::Session;

/// Between two checks while a session is live.
const CHECK_NS: u64 = 24 * 3_600_000_000_000;
/// What is in the trash stays at least so long, whatever was chosen.
const KEEP_MIN_NS: i64 = 24 * 3_600_000_000_000;
/// The record of the last check: what the clock said then.
const KEY: &str = "trash-checked";

impl Session {
    /// The first settling is when upkeep begins: before, the trash may still be needed.
    pub(crate) fn begin_upkeep(&mut self) {
        self.next_upkeep_ns.get_or_insert(0);
        self.upkeep_when_due();
    }

    /// Does what is due.
    pub(crate) fn upkeep_when_due(&mut self) {
        let now = self.env.monotonic_ns();
        if self.next_upkeep_ns.is_none_or(|due| due > now) {
            return;
        }
        self.next_upkeep_ns = Some(now + CHECK_NS);
        let Some(keep) = self.options.keep_trash else {
            return;
        };
        let keep_ns = i64::try_from(keep.as_nanos()).unwrap_or(i64::MAX);
        for i in 0..self.slots.len() {
            let slot = &self.slots[i];
            if slot.role == Role::Source || !slot.is_ours() || slot.only_read() {
                continue;
            }
            match self.purge_old(i, keep_ns.max(KEEP_MIN_NS)) {
                Ok(0) => {}
                Ok(objects) => self.monitor.event(Event::Purged {
                    replica: i,
                    objects,
                }),
                Err(e) => self.replica_failed(i, &e),
            }
        }
    }

    fn purge_old(&self, i: usize, keep_ns: i64) -> Result<u64, Error> {
        let replica = &self.slots[i].replica;
        let now = self.env.wall_ns();
        let noted = replica.read_record(Book::Share, KEY)?;
        replica.write_record(Book::Share, KEY, Some(&now.to_string()))?;
        match noted.and_then(|text| text.parse::<i64>().ok()) {
            Some(before) => replica.purge(now.min(before).saturating_sub(keep_ns)),
            None => Ok(0),
        }
    }
}
