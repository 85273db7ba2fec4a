//! What the first meeting of replicas will do, said before it is done.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use instep_core::id::ContentId;
use instep_core::path::RelPath;
use instep_core::policy::Role;
use instep_core::time::Mtime;
use instep_core::version::Kind;
use instep_replica::{Found, Look};

use crate::report::{Event, Meeting};
use crate::session::{Session, SessionError};

/// One path as the replicas have it.
#[derive(Default)]
struct Met {
    on: u64,
    size: u64,
    kind: Option<Kind>,
    /// A file there was seen and is still to be read: nothing can be said of its content.
    unread: bool,
    versions: Vec<(usize, ContentId, Mtime, u64)>,
}

impl Met {
    fn add(&mut self, i: usize, kind: Kind, version: (ContentId, Mtime, u64)) {
        let (content, mtime, size) = version;
        self.on |= 1 << i;
        self.size = self.size.max(size);
        self.kind = Some(kind);
        if kind != Kind::Dir {
            self.versions.push((i, content, mtime, size));
        }
    }

    fn add_unread(&mut self, i: usize, size: u64) {
        self.on |= 1 << i;
        self.size = self.size.max(size);
        self.unread = true;
    }
}

impl Session {
    /// Says what will happen when a replica is new; refuses an empty mirror source.
    pub(crate) fn first_meeting(&mut self, looks: &[(usize, Look)]) -> Result<(), SessionError> {
        if self.options.mirror && !self.options.allow_empty {
            self.refuse_empty_source(looks)?;
        }
        if !self.slots.iter().any(|s| s.replica.describe().new) {
            return Ok(());
        }
        let meeting = self.meeting(looks);
        self.warn_one_sided(&meeting);
        self.monitor.event(Event::Meeting(meeting));
        Ok(())
    }

    fn refuse_empty_source(&self, looks: &[(usize, Look)]) -> Result<(), SessionError> {
        let entries = |i: usize| {
            looks
                .iter()
                .find(|(n, _)| *n == i)
                .map_or(0, |(_, l)| l.totals.entries())
        };
        let source = self
            .slots
            .iter()
            .position(|s| s.role == Role::Source)
            .unwrap_or(0);
        // Whoever is there looks at it, and refuses it there.
        if self.slots[source].is_observed() {
            return Ok(());
        }
        // What has just gone has not settled yet; for this question it is gone.
        let unsettled = looks
            .iter()
            .any(|(n, l)| *n == source && !l.again.is_empty());
        if unsettled {
            let look = self.settled_look(source, &instep_replica::Scope::Everything)?;
            let full = (0..self.slots.len()).any(|i| i != source && entries(i) > 0);
            let empty = look.totals.entries() == 0;
            return if empty && full {
                Err(SessionError::EmptySource)
            } else {
                Ok(())
            };
        }
        let full = (0..self.slots.len()).any(|i| i != source && entries(i) > 0);
        if entries(source) == 0 && full {
            Err(SessionError::EmptySource)
        } else {
            Ok(())
        }
    }

    pub(crate) fn meeting(&self, looks: &[(usize, Look)]) -> Meeting {
        let n = self.slots.len();
        let mut met: BTreeMap<Cow<'_, RelPath>, Met> = BTreeMap::new();
        for (i, look) in looks {
            for f in &look.findings {
                let Found::Present {
                    kind,
                    content,
                    size,
                    mtime,
                    ..
                } = &f.found
                else {
                    continue;
                };
                let m = met.entry(Cow::Borrowed(&f.path)).or_default();
                m.add(*i, *kind, (*content, *mtime, *size));
            }
            for (path, size) in &look.unread {
                let m = met.entry(Cow::Borrowed(path)).or_default();
                m.add_unread(*i, *size);
            }
            self.add_known(*i, look, &mut met);
        }
        let mut out = Meeting {
            only_on: vec![0; n],
            receives: vec![(0, 0); n],
            ..Meeting::default()
        };
        let mut newer: BTreeMap<(usize, usize), (u64, u64)> = BTreeMap::new();
        for m in met.values() {
            self.meet(m, &mut out, &mut newer);
        }
        out.newer = newer
            .into_iter()
            .map(|((a, b), (x, y))| (a, b, x, y))
            .collect();
        out
    }

    /// What a replica has had since earlier meetings is in its index, not in its look.
    fn add_known(&self, i: usize, look: &Look, met: &mut BTreeMap<Cow<'_, RelPath>, Met>) {
        let replica = &self.slots[i].replica;
        let unread = look.unread.iter().map(|(path, _)| path);
        let found: BTreeSet<&RelPath> = look
            .findings
            .iter()
            .map(|f| &f.path)
            .chain(unread)
            .collect();
        let read = replica.subtree(&RelPath::root(), &mut |path, row| {
            if let Some(v) = row.present().filter(|_| !found.contains(&path)) {
                let version = (v.content, v.mtime, v.size);
                met.entry(Cow::Owned(path))
                    .or_default()
                    .add(i, v.kind, version);
            }
            ControlFlow::Continue(())
        });
        // What cannot be read is not foretold; the merge itself reads it again and says so.
        let _less_is_said = read;
    }

    fn meet(&self, m: &Met, out: &mut Meeting, newer: &mut BTreeMap<(usize, usize), (u64, u64)>) {
        let n = self.slots.len();
        if m.on.is_power_of_two() {
            out.only_on[m.on.trailing_zeros() as usize] += 1;
        } else if m.unread {
            out.unread += 1;
        }
        for i in (0..n).filter(|i| m.on & (1 << i) == 0) {
            let slot = &self.slots[i];
            let takes = slot.role != Role::Source && slot.replica.capabilities().writable;
            if takes && slot.replica.describe().new {
                out.receives[i].0 += 1;
                out.receives[i].1 += m.size;
            }
        }
        let winner = m.versions.iter().max_by_key(|v| (v.2, v.1));
        let mut differs = false;
        for v in &m.versions {
            if let Some(w) = winner.filter(|w| w.1 != v.1) {
                differs = true;
                out.retained_bytes += v.3;
                out.receives[v.0].0 += 1;
                out.receives[v.0].1 += w.3;
            }
        }
        out.differ += u64::from(differs);
        for (x, a) in m.versions.iter().enumerate() {
            for b in m.versions.iter().skip(x + 1).filter(|b| b.1 != a.1) {
                let counts = newer.entry((a.0.min(b.0), a.0.max(b.0))).or_default();
                let first_is_newer = if a.0 < b.0 { a.2 > b.2 } else { b.2 > a.2 };
                if first_is_newer {
                    counts.0 += 1;
                } else {
                    counts.1 += 1;
                }
            }
        }
    }

    /// A fresh clone or an unpacked archive has new times: then one side wins nearly everything.
    fn warn_one_sided(&mut self, meeting: &Meeting) {
        for (a, b, first, second) in &meeting.newer {
            let all = first + second;
            let most = *first.max(second);
            if all >= 20 && most * 10 > all * 9 {
                let (winner, loser) = if first > second { (a, b) } else { (b, a) };
                let (winner, loser) = (self.label(*winner), self.label(*loser));
                self.monitor.event(Event::Notice {
                    code: 2302,
                    text: format!(
                        "{winner} is newer on {most} of {all} differing files; if it was copied or unpacked \
                         just now, its times mislead. To reverse: instep conflicts resolve --all --keep {loser}"
                    ),
                });
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use std::sync::Arc;

    use instep_core::id::ShareId;
    use instep_replica::Replica;
    use instep_replica::env::{Env, StepEnv};
    use instep_replica::memory::MemoryReplica;

    use super::*;
    use crate::report::Silent;
    use crate::session::SessionOptions;

    #[test]
    fn a_big_folder_is_foretold_by_the_first_piece_of_it_that_was_read() {
        let env: Arc<dyn Env> = Arc::new(StepEnv::default());
        let open = |label| MemoryReplica::new(label, ShareId([1; 16]), Arc::clone(&env));
        let replicas = ["A", "B"].map(|label| Arc::new(open(label)) as Arc<dyn Replica>);
        let options = SessionOptions::default();
        let session = Session::start(env, replicas.to_vec(), options, Box::new(Silent)).unwrap();
        let look = |unread: &[(&str, u64)]| Look {
            unread: unread
                .iter()
                .map(|(path, size)| (RelPath::new(path.as_bytes()).unwrap(), *size))
                .collect(),
            ..Look::default()
        };
        let looks = [
            (0, look(&[("a", 10), ("both", 5)])),
            (1, look(&[("both", 7)])),
        ];
        let meeting = session.meeting(&looks);
        assert_eq!(meeting.only_on, [1, 0]);
        assert_eq!(meeting.receives[1], (1, 10));
        assert_eq!((meeting.unread, meeting.differ), (1, 0));
    }
}
