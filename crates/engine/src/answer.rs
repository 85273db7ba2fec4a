//! Commands: carried out between two cycles, each answered once.

use std::sync::PoisonError;

use instep_core::entry::Entry;
use instep_core::path::RelPath;
use instep_core::policy::Role;
use instep_core::reconcile;
use instep_core::view::{Shown, view};
use instep_replica::Book;
use instep_replica::records::LogRecord;

use crate::command::{Answer, Command, ReplicaStatus, Status};
use crate::report::{Change, ChangeKind, Event, State};
use crate::session::Session;

impl Session {
    /// Carries out what was asked for since the last cycle.
    pub(crate) fn serve_requests(&mut self) {
        loop {
            let next = self
                .inbox
                .requests
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front();
            let Some((command, reply)) = next else { return };
            let answer = self.serve(command);
            // Whoever asked may have gone; what was asked for is done all the same.
            let _gone = reply.send(answer);
        }
    }

    /// The session ends: nobody waits for an answer that cannot come.
    pub(crate) fn refuse_requests(&mut self) {
        let mut requests = self
            .inbox
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (_, reply) in requests.drain(..) {
            let why = "the session is stopping".to_owned();
            let _gone = reply.send(Answer::Refused { code: 1006, why });
        }
    }

    fn serve(&mut self, command: Command) -> Answer {
        match command {
            Command::Status => Answer::Status(self.status()),
            Command::Why(path) => Answer::Why(self.why(&path)),
            Command::Resolve { id, keep } => self.resolve(id.as_deref(), &keep),
            Command::Approve(id) => self.decide_hold(&id, true),
            Command::Reject(id) => self.decide_hold(&id, false),
            Command::Restore { replica, key, to } => self.restore(replica, &key, to.as_ref()),
            Command::EmptyTrash { before_ns } => self.empty_trash(before_ns),
            Command::Check { replica, paths } => self.check(replica, &paths),
            Command::Accept { replica, path } => self.accept(replica, &path),
            Command::Repair { replica, path } => self.repair(replica, &path),
            Command::Rescan => {
                self.slots.iter_mut().for_each(|s| s.look_everywhere = true);
                Answer::Done(self.slots.len() as u64)
            }
            Command::Stop => {
                self.inbox
                    .stop
                    .store(true, std::sync::atomic::Ordering::SeqCst);
                Answer::Done(1)
            }
        }
    }

    /// How everything stands.
    pub fn status(&mut self) -> Status {
        self.refresh_summary();
        let worst = self.worst();
        let busy = !self.is_idle();
        let replicas = (0..self.slots.len())
            .map(|i| {
                let d = self.slots[i].replica.describe();
                let has_problem = self.problems.keys().any(|(r, _)| *r == i);
                let held = self.holds.iter().any(|h| h.replica == i);
                let state = match self.slots[i].state {
                    s @ (State::Offline | State::Paused | State::Scanning) => s,
                    _ if held => State::Held,
                    _ if has_problem => State::Problem,
                    _ if busy => State::Syncing,
                    _ => State::InSync,
                };
                let why = self.slots[i].why.clone();
                ReplicaStatus {
                    label: d.label,
                    location: d.location,
                    state,
                    why,
                    notes: d.notes,
                }
            })
            .collect();
        Status {
            replicas,
            state: worst,
            summary: self.summary.clone(),
            problems: self
                .problems
                .iter()
                .map(|((r, _), p)| (*r, p.clone()))
                .collect(),
        }
    }

    /// Lines that explain a path.
    pub fn why(&mut self, path: &RelPath) -> Vec<String> {
        let rows = self.rows_at(path);
        let known = reconcile::merged(&self.sides(&rows), &Entry::default());
        let shown = view(&known, &self.share.policies);
        let mut lines = Vec::new();
        for (i, row) in rows.iter().enumerate() {
            lines.push(format!(
                "{:<8} {}",
                self.label(i),
                self.why_here(i, row.as_ref())
            ));
        }
        lines.push(match shown.shown {
            Shown::Unknown => "nothing is known about this path".to_owned(),
            Shown::Standing => "a directory, for what is in it".to_owned(),
            Shown::Frozen => "frozen: several versions, and the policy is manual".to_owned(),
            Shown::Version { dot, .. } => {
                let by = self
                    .share
                    .record
                    .label_of(dot.actor)
                    .unwrap_or("a replica that left")
                    .to_owned();
                let what = known
                    .get(dot)
                    .map(|v| instep_core::conflict::kind_word(v.kind))
                    .unwrap_or_default();
                format!("the current version is a {what} by {by} ({dot})")
            }
        });
        for loser in &shown.losers {
            lines.push(format!(
                "a losing version is kept: conflict {}",
                crate::conflicts::short(&loser.to_string())
            ));
        }
        if let Some(later) = self.later.get(path) {
            lines.push(format!(
                "it was tried {} times and is tried again",
                later.tries + 1
            ));
        }
        if shown
            .dot()
            .and_then(|d| known.get(d))
            .is_some_and(|v| self.is_in_flight(v.content))
        {
            lines.push("its content is on the way".to_owned());
        }
        for hold in self.holds.iter().filter(|h| h.paths.contains(path)) {
            lines.push(format!("held: instep holds show {}", hold.id));
        }
        for ((i, _), p) in self.problems.iter().filter(|((_, p), _)| p == path) {
            lines.push(format!(
                "{}: {} ({})",
                self.label(*i),
                p.detail,
                p.code.text()
            ));
        }
        lines
    }

    fn why_here(&self, i: usize, row: Option<&instep_core::row::Row>) -> String {
        let Some(row) = row else {
            return "knows nothing of it".to_owned();
        };
        if let Some(held) = row.held {
            return format!("has it not: {held:?}").to_lowercase();
        }
        match row.present() {
            Some(v) => format!(
                "has it: {} {}",
                instep_core::conflict::kind_word(v.kind),
                v.content.short()
            ),
            None if row.is_derived_dir() => "has it as a directory for what is in it".to_owned(),
            None if row.on_disk().is_some() => "has deleted it".to_owned(),
            None if self.slots[i].role == Role::Source => "does not have it".to_owned(),
            None => "does not have it yet".to_owned(),
        }
    }

    fn restore(&mut self, replica: usize, key: &str, to: Option<&RelPath>) -> Answer {
        let Some(slot) = self.slots.get(replica) else {
            return Answer::Refused {
                code: 1012,
                why: "no such replica".into(),
            };
        };
        match slot.replica.restore(key, to) {
            Ok(path) => {
                self.slots[replica].hints.add_path(path.clone());
                self.monitor.event(Event::Restored { replica, path });
                Answer::Done(1)
            }
            Err(e) => Answer::Refused {
                code: 1013,
                why: e.chain(),
            },
        }
    }

    fn empty_trash(&mut self, before_ns: i64) -> Answer {
        let mut count = 0;
        for i in 0..self.slots.len() {
            if self.slots[i].role == Role::Source || !self.slots[i].is_ours() {
                continue;
            }
            match self.slots[i].replica.purge(before_ns) {
                Ok(objects) => {
                    count += objects;
                    self.monitor.event(Event::Purged {
                        replica: i,
                        objects,
                    });
                }
                Err(e) => self.replica_failed(i, &e),
            }
        }
        Answer::Done(count)
    }

    /// Writes one line of the log on every replica that can be written.
    pub(crate) fn log_change(&mut self, change: &Change, similar: u64) {
        self.seq += 1;
        let at_ns = self.env.wall_ns();
        let record = LogRecord {
            at_ns,
            what: match change.kind {
                ChangeKind::Create => "create",
                ChangeKind::Update => "update",
                ChangeKind::Delete => "delete",
                ChangeKind::Move => "move",
                ChangeKind::Metadata | ChangeKind::Attributes => "metadata",
            }
            .to_owned(),
            path: change.path.to_string(),
            from_path: change.from_path.as_ref().map(ToString::to_string),
            from: self.label(change.from),
            to: change.to.iter().map(|i| self.label(*i)).collect(),
            size: change.size,
            similar,
        };
        let key = format!("{:020}-{:08}", at_ns.max(0), self.seq);
        let Ok(body) = serde_json::to_string(&record) else {
            return;
        };
        for slot in self
            .slots
            .iter()
            .filter(|s| s.is_ours() && s.role != Role::Source)
        {
            // A line of the log is not worth stopping for.
            let _unlogged = slot.replica.write_record(Book::Log, &key, Some(&body));
        }
    }
}
