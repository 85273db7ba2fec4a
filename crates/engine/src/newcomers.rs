//! Replicas that join while a session runs: a machine that connects to a hub, or comes back to it.
//!
//! Owns how one takes its place among the others. Invariant: whoever joins is observed, so that nothing that is under
//! way changes its meaning; a replica that was here before gets the place that it had.

use std::sync::{Arc, PoisonError};

use instep_replica::Replica;

use crate::report::Event;
use crate::session::{Handle, Session, slot};

impl Handle {
    /// Brings another replica of the share to the session. It must be observed.
    pub fn meet(&self, replica: Arc<dyn Replica>) {
        let mut newcomers = self
            .inbox
            .newcomers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        newcomers.push(replica);
        drop(newcomers);
        self.waker.wake();
    }
}

impl Session {
    /// Gives newcomers their places.
    pub(crate) fn seat_newcomers(&mut self) {
        let newcomers = {
            let waiting = self.inbox.newcomers.lock();
            std::mem::take(&mut *waiting.unwrap_or_else(PoisonError::into_inner))
        };
        for replica in newcomers {
            let is_observed = replica.capabilities().observed;
            if replica.share() == self.share.id && is_observed {
                self.seat(replica);
            }
        }
    }

    fn seat(&mut self, replica: Arc<dyn Replica>) {
        let id = replica.id();
        let known = |s: &crate::session::Slot| s.is_observed() && s.replica.id() == id;
        let i = match self.slots.iter().position(known) {
            Some(i) => {
                self.slots[i].replica = replica;
                i
            }
            None => {
                self.slots.push(slot(replica));
                self.slots.len() - 1
            }
        };
        let description = self.slots[i].replica.describe();
        self.monitor.event(Event::Joined {
            replica: i,
            id,
            description,
        });
        self.watch(i);
        self.join_books(i);
    }
}
