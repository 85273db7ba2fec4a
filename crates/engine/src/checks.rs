//! Checks that are always on while a session is live and nothing else is to be done: some files are read again,
//! and what the replicas know is compared, directory by directory.
//!
//! Invariants: what is read in a minute is bounded, whatever the size of the share; files are read on a thread of
//! their own; nothing is concluded from a difference that planning the path again ends. Decides nothing about
//! the files that it finds: see `damage`.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::Duration;

use instep_core::path::RelPath;
use instep_core::plan::{Code, Problem};
use instep_replica::{Checked, Replica};

use crate::drift;
use crate::report::Event;
use crate::session::Session;

const MINUTE_NS: u64 = 60_000_000_000;
const HOUR_NS: u64 = 60 * MINUTE_NS;
/// Of so many files one is read again every hour.
const ONE_OF: u64 = 1000;
/// Files that are read again in one go, at most.
const FILES_MAX: u64 = 64;
/// Bytes that are read again in a minute, on average.
const BYTES_A_MINUTE: u64 = 64 * 1024 * 1024;
/// The longest between two files of one replica.
const WEEK_NS: u64 = 7 * 24 * HOUR_NS;
/// Rows that are compared in one go, at least.
const ROWS_MIN: u64 = 1000;

/// How often; by the size of the share where nothing is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CheckOptions {
    /// Between two files of a replica that are read again.
    pub audit_every: Option<Duration>,
    /// Between two comparisons of what the replicas know.
    pub compare_every: Option<Duration>,
}

/// What is remembered between two turns.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    /// When files of each replica are read again; empty before the first settling.
    audit_ns: Vec<u64>,
    /// When the next comparison begins; the one that is under way is `left`.
    compare_ns: u64,
    next_step_ns: u64,
    left: Vec<RelPath>,
    /// Paths of which the replicas did not know the same, and that were planned again.
    suspects: BTreeSet<RelPath>,
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Session {
    /// Does what is due, where nothing else is to be done.
    pub(crate) fn check_when_due(&mut self) {
        if self.options.once || !self.settled || !self.is_idle() {
            return;
        }
        self.audit_when_due();
        if !self.options.mirror && !self.asks_persons() {
            self.judge_suspects();
            self.compare_when_due();
        }
    }

    /// Reads some files again.
    fn audit_when_due(&mut self) {
        let now = self.env.monotonic_ns();
        if self.checks.audit_ns.len() != self.slots.len() {
            let first = |i: usize| now + self.audit_pause(i).0;
            self.checks.audit_ns = (0..self.slots.len()).map(first).collect();
        }
        for i in 0..self.slots.len() {
            if self.checks.audit_ns[i] > now || !self.slots[i].is_ours() {
                continue;
            }
            let (pause_ns, files) = self.audit_pause(i);
            let bytes = self.audit(i, files);
            let rest_ns = bytes / BYTES_A_MINUTE * MINUTE_NS;
            self.checks.audit_ns[i] = now + pause_ns.max(rest_ns);
        }
    }

    /// How long between two turns of reading, and how many files are read in one.
    fn audit_pause(&self, i: usize) -> (u64, usize) {
        if let Some(every) = self.options.checks.audit_every {
            return (nanos(every), 1);
        }
        let slot = &self.slots[i];
        let files = slot.replica.sums().unwrap_or(slot.totals).files.max(1);
        let at_once = files.div_ceil(60 * ONE_OF).min(FILES_MAX);
        let pause_ns = (at_once * ONE_OF).saturating_mul(HOUR_NS) / files;
        (pause_ns.clamp(MINUTE_NS, WEEK_NS), at_once as usize)
    }

    /// Has files of a replica read again; how many bytes they have.
    fn audit(&mut self, i: usize, files: usize) -> u64 {
        let random = self.env.random();
        let seed = random.iter().take(8).fold(0, |n, b| n << 8 | u64::from(*b));
        let replica = self.slots[i].replica.clone();
        let paths = match replica.sample(seed, files) {
            Ok(paths) => paths,
            Err(e) => {
                self.replica_failed(i, &e);
                return 0;
            }
        };
        let size = |path: &RelPath| {
            let row = replica.row(path).ok().flatten();
            row.and_then(|r| r.present().map(|v| v.size)).unwrap_or(0)
        };
        let bytes = paths.iter().map(size).sum();
        let (inbox, waker) = (self.inbox.clone(), self.waker.clone());
        let read = move || {
            let mut odd = Vec::new();
            for path in paths {
                match replica.check(&path) {
                    Ok(Checked::Sound(_) | Checked::Nothing | Checked::Busy) | Err(_) => {}
                    Ok(checked) => odd.push((i, path, checked)),
                }
            }
            if !odd.is_empty() {
                let found = inbox.checked.lock();
                found
                    .unwrap_or_else(PoisonError::into_inner)
                    .append(&mut odd);
                waker.wake();
            }
        };
        self.env.spawn("check", Box::new(read));
        bytes
    }

    /// What reading again showed: a change that nobody told of, or damage.
    pub(crate) fn collect_checked(&mut self) {
        let found = {
            let found = self.inbox.checked.lock();
            std::mem::take(&mut *found.unwrap_or_else(PoisonError::into_inner))
        };
        for (i, path, checked) in found {
            match checked {
                // Much may have happened since: what is noted is what is there now.
                Checked::Decayed { touched: false, .. } => drop(self.check(i, &[path])),
                checked => self.take_checked(i, &path, checked),
            }
        }
    }

    /// Compares what the replicas know, some directories at a time.
    fn compare_when_due(&mut self) {
        let now = self.env.monotonic_ns();
        if self.checks.next_step_ns > now {
            return;
        }
        let every_ns = self.options.checks.compare_every.map_or(HOUR_NS, nanos);
        if self.checks.left.is_empty() {
            if self.checks.compare_ns > now {
                return;
            }
            self.checks.compare_ns = now + every_ns;
            self.checks.left.push(RelPath::root());
        }
        self.checks.next_step_ns = now + MINUTE_NS.min(every_ns);
        let learnt = |i: &usize| {
            let slot = &self.slots[*i];
            slot.is_ours() && !slot.only_read() && !slot.replica.is_rejoining()
        };
        let all: Vec<usize> = (0..self.slots.len()).filter(learnt).collect();
        let entries = self
            .summary
            .totals
            .entries()
            .saturating_mul(all.len() as u64);
        let rows_max = ROWS_MIN.max(entries / 60);
        let mut rows = 0;
        while rows < rows_max
            && let Some(dir) = self.checks.left.pop()
        {
            let replicas: Vec<&dyn Replica> = all
                .iter()
                .map(|i| self.slots[*i].replica.as_ref())
                .collect();
            // A replica that cannot be read is found by its guard, or by whoever needs the row.
            let Ok(compared) = drift::compare(&replicas, &dir) else {
                return self.checks.left.clear();
            };
            rows += compared.rows.max(1);
            self.checks.left.extend(compared.dirs);
            let real: Vec<RelPath> = compared
                .differing
                .into_iter()
                .filter(|path| !self.is_told(path))
                .collect();
            self.dirty.extend(real.iter().cloned());
            self.checks.suspects.extend(real);
        }
    }

    /// Whether it is known, and listed, that a path differs, or one above it.
    fn is_told(&self, path: &RelPath) -> bool {
        let above = |q: &RelPath| path.is_within(q);
        self.problems.keys().any(|(_, q)| above(q))
            || self.covered.iter().any(above)
            || self.holds.iter().any(|h| h.paths.iter().any(above))
    }

    /// What planning a path again did not end is told; what it did end is told once.
    fn judge_suspects(&mut self) {
        let mut suspects = std::mem::take(&mut self.checks.suspects);
        let drifted = |(_, p): &(&(usize, RelPath), &Problem)| p.code == Code::Drifted;
        let told: Vec<(usize, RelPath)> = self
            .problems
            .iter()
            .filter(drifted)
            .map(|(key, _)| key.clone())
            .collect();
        suspects.retain(|path| !told.iter().any(|(_, p)| p == path));
        for (i, path) in told {
            if self.disagrees(&path).is_none() {
                self.end_problem(i, &path);
            }
        }
        for path in suspects {
            if let Some(i) = self.disagrees(&path) {
                let (label, first) = (self.label(i), self.label(0));
                let detail = format!(
                    "{label} and {first} know different things of it although nothing is pending; \
                     planning it again did not help"
                );
                let code = Code::Drifted;
                self.open_problem(i, Problem { path, code, detail });
            } else {
                let code = Code::Drifted as u16;
                let text = format!("{path} was known differently by two folders; that is mended");
                self.monitor.event(Event::Notice { code, text });
            }
        }
    }

    /// A replica that does not know the same of a path as the first one does.
    fn disagrees(&mut self, path: &RelPath) -> Option<usize> {
        let rows = self.rows_at(path);
        let here = |i: &usize| self.slots[*i].is_ours() && !self.slots[*i].only_read();
        if rows.iter().flatten().any(|row| row.held.is_some()) {
            return None;
        }
        let entry = |i: usize| rows[i].as_ref().map(|row| &row.entry);
        let mut all = (0..rows.len()).filter(here);
        let first = all.next()?;
        all.find(|i| entry(*i) != entry(first))
    }
}
