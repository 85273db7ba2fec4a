//! Which replicas can be used now: they go away, take no changes, and come back by themselves.
//!
//! Owns what is known of each replica's place. A replica that failed is neither looked at nor changed, and the
//! others go on; nothing is concluded from what it does not show. When it is back everything on it is looked
//! at and everything is compared, so nothing has to be remembered for it meanwhile.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use instep_core::path::RelPath;
use instep_core::policy::Role;
use instep_replica::{Error, ErrorKind, Replica, RowVisitor};

use crate::problems::is_unseen;
use crate::report::{Event, State};
use crate::session::{Session, Slot};

/// Between two questions whether a replica is still in its place: the kernel tells nobody about an unmount.
const GUARD_NS: u64 = 1_000_000_000;
/// Between two tries to reach a replica that went away.
pub(crate) const RETRY_NS: u64 = 1_000_000_000;
/// Between two tries whether a replica takes changes again: such a try may write.
const WRITABLE_NS: u64 = 2_000_000_000;

impl Slot {
    /// It can be looked at, what is found can be recorded, and what it knows counts.
    pub(crate) fn online(&self) -> bool {
        !self.failed
    }

    /// It is another process's to change: this one only watches it.
    pub(crate) fn is_observed(&self) -> bool {
        self.replica.capabilities().observed
    }

    /// The paths directly in a directory of which it has something that its neighbour has not.
    pub(crate) fn children_of(
        &self,
        dir: &RelPath,
        visit: &mut dyn FnMut(RelPath),
    ) -> Result<(), Error> {
        if !self.is_echo() {
            return self.replica.children(dir, &mut |path, _| {
                visit(path);
                ControlFlow::Continue(())
            });
        }
        self.replica.differing(dir, &mut |path, _| {
            let mut up = path;
            while let Some(parent) = up.parent().filter(|p| p != dir) {
                up = parent;
            }
            visit(up);
            ControlFlow::Continue(())
        })
    }

    /// Where it has the same as the replica beside which it is observed, nothing follows from it. A mirror's source is
    /// heard all the same: its targets have no say.
    pub(crate) fn is_echo(&self) -> bool {
        self.is_observed() && self.role == Role::Both
    }

    /// Whether nothing follows from what it has at a path.
    pub(crate) fn says_nothing_new(&self, path: &RelPath) -> bool {
        self.is_echo() && self.replica.is_alike(path)
    }

    /// The rows below a directory from which something follows.
    pub(crate) fn rows_below(&self, dir: &RelPath, visit: RowVisitor<'_>) -> Result<(), Error> {
        if self.is_echo() {
            self.replica.differing(dir, visit)
        } else {
            self.replica.subtree(dir, visit)
        }
    }

    /// This session writes it, and can be told something.
    pub(crate) fn is_ours(&self) -> bool {
        self.online() && !self.is_observed()
    }

    /// It should take changes and cannot, although nothing failed: read-only from the start.
    pub(crate) fn only_read(&self) -> bool {
        let can = self.replica.capabilities();
        !self.failed && self.role != Role::Source && !can.writable && !can.observed
    }

    /// Nothing on it waits to be looked at, as far as it can be.
    pub(crate) fn is_looked_at(&self) -> bool {
        !self.online() || (self.hints.is_empty() && !self.look_everywhere && self.rest.is_none())
    }

    /// Whoever writes it has not put it in step yet.
    pub(crate) fn is_behind(&self) -> bool {
        self.online() && self.replica.pending() > 0
    }

    /// Whoever writes it has nothing left to do, as far as it has said.
    pub(crate) fn is_resting(&self) -> bool {
        !self.online() || self.replica.is_at_rest()
    }

    /// When its place is to be seen to.
    pub(crate) fn attention_ns(&self) -> u64 {
        if self.failed || self.only_read() {
            self.next_try_ns
        } else {
            self.next_guard_ns
        }
    }
}

impl Session {
    /// It is behind, and not only at paths with which somebody has a difficulty.
    pub(crate) fn is_hopefully_behind(&self, slot: &Slot) -> bool {
        if !slot.is_behind() || self.problems.is_empty() {
            return slot.is_behind();
        }
        let troubled: BTreeSet<&RelPath> = self.problems.keys().map(|(_, path)| path).collect();
        let mut hopeless = 0;
        let read = slot.replica.differing(&RelPath::root(), &mut |path, _| {
            let mut up = Some(path);
            while let Some(at) = up {
                if troubled.contains(&at) {
                    hopeless += 1;
                    break;
                }
                up = at.parent();
            }
            ControlFlow::Continue(())
        });
        read.is_err() || slot.replica.pending() > hopeless
    }

    /// A replica cannot be used for now; the others go on.
    pub(crate) fn replica_failed(&mut self, i: usize, e: &Error) {
        let now = self.env.monotonic_ns();
        let (state, pause) = match e.kind {
            ErrorKind::ReadOnly | ErrorKind::NoSpace => (State::Paused, WRITABLE_NS),
            _ => (State::Offline, RETRY_NS),
        };
        let slot = &mut self.slots[i];
        slot.next_try_ns = now + pause;
        slot.failed = true;
        self.enter(i, state, e.chain());
    }

    /// A first look has ended: it is in step, or it can only be read.
    pub(crate) fn scanned(&mut self, i: usize) {
        if self.slots[i].state != State::Scanning {
            return;
        }
        if self.slots[i].only_read() {
            self.slots[i].next_try_ns = self.env.monotonic_ns() + WRITABLE_NS;
            self.enter(i, State::Paused, "it can only be read".to_owned());
        } else {
            self.slots[i].state = State::InSync;
        }
    }

    fn enter(&mut self, replica: usize, state: State, why: String) {
        let slot = &mut self.slots[replica];
        slot.why.clone_from(&why);
        if slot.state != state {
            slot.state = state;
            self.settled = false;
            self.monitor.event(Event::Replica {
                replica,
                state,
                why,
            });
        }
    }

    /// Asks replicas whether they are in place, and tries those that were not.
    pub(crate) fn see_to_places(&mut self) {
        let now = self.env.monotonic_ns();
        for i in 0..self.slots.len() {
            // Who says that something happened to its place need not be waited for.
            if self.slots[i].failed && self.slots[i].is_observed() {
                let fresh = self.slots[i].replica.take_hints();
                if fresh.root {
                    self.slots[i].next_try_ns = 0;
                }
                self.slots[i].hints.extend(fresh);
            }
            if self.slots[i].attention_ns() > now {
                continue;
            }
            if self.slots[i].failed {
                self.revive(i);
            } else if self.slots[i].only_read() {
                self.slots[i].next_try_ns = now + WRITABLE_NS;
                self.renew(i);
            } else {
                self.slots[i].next_guard_ns = now + GUARD_NS;
                if let Err(e) = self.slots[i].replica.guard() {
                    self.replica_failed(i, &e);
                }
            }
        }
    }

    /// Whether a mirror's source may have something that it does not show: it is away, it could not look
    /// there, or it is about to look again. Then nothing that a target has there is an extra.
    pub(crate) fn may_be_at_source(&self, path: &RelPath) -> bool {
        let later = self.later.get(path).filter(|l| l.due_ns != u64::MAX);
        let sources = self.slots.iter().enumerate();
        sources
            .filter(|(_, slot)| slot.role == Role::Source)
            .any(|(i, slot)| {
                slot.failed
                    || later.is_some_and(|l| l.replica.is_none_or(|r| r == i))
                    || self.is_unseen_at(i, path)
            })
    }

    /// Whether a replica could not look at a path, or at a directory above it.
    fn is_unseen_at(&self, i: usize, path: &RelPath) -> bool {
        let mut up = Some(path.clone());
        while let Some(at) = up {
            up = at.parent();
            if self.problems.get(&(i, at)).is_some_and(is_unseen) {
                return true;
            }
        }
        false
    }

    fn revive(&mut self, i: usize) {
        match self.slots[i].replica.guard() {
            Ok(()) => self.is_back(i),
            Err(e) => {
                self.replica_failed(i, &e);
                self.renew(i);
            }
        }
    }

    /// A replica that cannot come back as it is may do so opened anew.
    fn renew(&mut self, i: usize) {
        let old = &self.slots[i].replica;
        let (id, share) = (old.id(), old.share());
        let anew = match old.renew() {
            Ok(Some(anew)) if anew.id() == id && anew.share() == share => anew,
            Ok(_) => return,
            Err(e) => {
                // It has let go of what it held: until it is opened it is no use even for reading.
                return self.replica_failed(i, &e);
            }
        };
        self.take_over(i, anew);
    }

    fn take_over(&mut self, i: usize, anew: Arc<dyn Replica>) {
        self.slots[i].replica = anew;
        self.is_back(i);
        if let Err(e) = self.agree(self.share.id) {
            return self.replica_failed(i, &e);
        }
        self.compare_all = true;
    }

    fn is_back(&mut self, i: usize) {
        let now = self.env.monotonic_ns();
        let slot = &mut self.slots[i];
        slot.failed = false;
        slot.look_everywhere = true;
        slot.next_guard_ns = now + GUARD_NS;
        // What it did before it failed may not be durable.
        slot.touched_ns.get_or_insert(now);
        // Whoever is observed says itself of which paths it has something else; but what a mirror's source has not is
        // an extra only once it is heard.
        self.compare_all |= !self.slots[i].is_echo();
        self.enter(i, State::Scanning, "it is back".to_owned());
        self.slots[i].why.clear();
        if !self.options.once {
            // It may have gone away before it was watched at all.
            self.watch(i);
        }
        if let Err((j, e)) = self.load_conflicts() {
            self.replica_failed(j, &e);
        }
        if let Err(e) = self.load_damage(i) {
            self.replica_failed(i, &e);
        }
    }
}
