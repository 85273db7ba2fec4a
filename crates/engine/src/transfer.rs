//! Where content comes from, and bringing big content aside.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use instep_core::conflict;
use instep_core::id::ContentId;
use instep_core::path::RelPath;
use instep_core::plan::{Action, Code, Goal, Outcome, Problem};
use instep_replica::content::Bytes;
use instep_replica::{Content, Replica, Sources};

use crate::session::{Session, Slot};

/// A replica that may have content.
#[derive(Clone)]
pub(crate) struct Origin {
    pub(crate) index: usize,
    pub(crate) replica: Arc<dyn Replica>,
}

/// All replicas as sources for one target: itself first (what it kept needs no transfer), then the rest.
pub(crate) struct Origins(Vec<Origin>);

impl Origins {
    pub(crate) fn new(mut all: Vec<Origin>, target: usize) -> Self {
        // Its own stores are asked last: most content is at its path on somebody else.
        all.sort_by_key(|o| (o.index == target, o.index));
        Self(all)
    }

    /// The content from everybody who has it. Where it was moved from it may still be, and where it was put
    /// beside its path when it had lost.
    fn all<'a>(
        &'a self,
        action: &'a Action,
        content: ContentId,
    ) -> impl Iterator<Item = Box<dyn Content>> + 'a {
        let at = move |path: RelPath| {
            let open = move |o: &Origin| o.replica.open(&path, content).ok().flatten();
            self.0.iter().filter_map(open)
        };
        // What somebody far away has may have been put together wrong: it knows better when it is asked again.
        let far = self.0.iter().filter(|o| o.replica.capabilities().observed);
        let again = far.filter_map(move |o| o.replica.open(&action.path, content).ok().flatten());
        let elsewhere = || {
            let dot = action.shown?;
            let version = action.entry.get(dot)?;
            let beside = conflict::copy_path(&action.path, dot, version);
            Some(version.moved.clone().into_iter().chain(beside))
        };
        let elsewhere = std::iter::once_with(elsewhere).flatten().flatten();
        // What is empty is never lost.
        let is_empty = matches!(action.goal, Goal::File { size: 0, .. });
        let empty = is_empty.then(|| Box::new(Bytes(Vec::new())) as Box<dyn Content>);
        let brought = at(action.path.clone()).chain(elsewhere.flat_map(at));
        empty.into_iter().chain(brought).chain(again)
    }
}

impl Sources for Origins {
    fn open(&self, action: &Action, content: ContentId) -> Option<Box<dyn Content>> {
        self.all(action, content).next()
    }

    fn open_other(
        &self,
        action: &Action,
        content: ContentId,
        tried: usize,
    ) -> Option<Box<dyn Content>> {
        self.all(action, content).nth(tried)
    }
}

impl Session {
    /// A big file is staged while other changes go on; its action follows when it is here.
    pub(crate) fn send_aside(&mut self, action: &Action) -> bool {
        let Goal::File { content, size, .. } = action.goal else {
            return false;
        };
        let i = action.replica;
        let reflink = self.slots[i].replica.capabilities().reflink;
        if self.options.once
            || size < self.options.sizes.aside_bytes
            || reflink
            || self.slots[i].replica.is_staged(content)
        {
            return false;
        }
        let waiting = self.in_flight.entry((i, content)).or_default();
        let is_first = waiting.is_empty();
        waiting.insert(action.path.clone());
        if is_first {
            self.transfer(i, action.clone(), content);
        }
        true
    }

    pub(crate) fn origins(&self) -> Vec<Origin> {
        self.slots
            .iter()
            .enumerate()
            .filter(|(_, s)| s.online())
            .map(|(i, s)| Origin {
                index: i,
                replica: s.replica.clone(),
            })
            .collect()
    }

    /// Tells those who are far which contents will be wanted, so that one need not arrive before the next is asked for.
    pub(crate) fn ask_ahead(&self, target: usize, actions: &[Action]) {
        if !self.slots.iter().any(Slot::is_observed) {
            return;
        }
        let mut wanted: BTreeMap<usize, Vec<(RelPath, ContentId, u64)>> = BTreeMap::new();
        for action in actions {
            let Goal::File { content, size, .. } = action.goal else {
                continue;
            };
            if size > 0
                && !self.slots[target].replica.is_staged(content)
                && let Some(from) = self.nearest(&action.path, content)
                && self.slots[from].is_observed()
            {
                let one = (action.path.clone(), content, size);
                wanted.entry(from).or_default().push(one);
            }
        }
        for (from, wanted) in wanted {
            self.slots[from].replica.prefetch(&wanted);
        }
    }

    /// Who shows a content at a path: one of ours, if any does.
    fn nearest(&self, path: &RelPath, content: ContentId) -> Option<usize> {
        let shows = |slot: &Slot| {
            let row = slot.replica.row(path).ok().flatten();
            row.is_some_and(|r| r.present().is_some_and(|v| v.content == content))
        };
        let all = self.slots.iter().enumerate().filter(|(_, s)| s.online());
        let showing = all.filter(|(_, s)| shows(s));
        showing
            .min_by_key(|(i, s)| (s.is_observed(), *i))
            .map(|(i, _)| i)
    }

    /// Contents that arrived: their paths are planned again.
    pub(crate) fn collect_arrivals(&mut self) {
        let arrived = {
            let mut arrived = self
                .inbox
                .arrived
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *arrived)
        };
        for (i, content, outcome) in arrived {
            for path in self.in_flight.remove(&(i, content)).unwrap_or_default() {
                match outcome.clone() {
                    Outcome::Done => {
                        self.dirty.insert(path);
                    }
                    Outcome::Superseded | Outcome::Busy => self.retry(path, None, 50),
                    Outcome::Blocked(problem) => {
                        let problem = Problem {
                            path: path.clone(),
                            ..problem
                        };
                        self.blocked(i, &path, Some(content), problem);
                    }
                }
            }
        }
    }

    /// Transfers of a content in flight, for `why`.
    pub(crate) fn is_in_flight(&self, content: ContentId) -> bool {
        self.in_flight.keys().any(|(_, c)| *c == content)
    }

    /// Brings content to a replica's staging on a thread of its own.
    fn transfer(&mut self, i: usize, action: Action, content: ContentId) {
        let origins = Origins::new(self.origins(), i);
        let target = self.slots[i].replica.clone();
        let (inbox, waker) = (self.inbox.clone(), self.waker.clone());
        self.env.spawn(
            "transfer",
            Box::new(move || {
                let mut outcome = Outcome::Blocked(Problem {
                    path: action.path.clone(),
                    code: Code::ContentMissing,
                    detail: "no reachable replica has the content of this version".into(),
                });
                for mut from in origins.all(&action, content) {
                    let staged = target.stage(&action.path, content, from.as_mut());
                    outcome = staged.unwrap_or(Outcome::Busy);
                    let bad = |p: &Problem| p.code == Code::ContentMissing;
                    if !matches!(&outcome, Outcome::Blocked(p) if bad(p)) {
                        break;
                    }
                }
                let mut arrived = inbox.arrived.lock().unwrap_or_else(PoisonError::into_inner);
                arrived.push((i, content, outcome));
                drop(arrived);
                waker.wake();
            }),
        );
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use instep_core::entry::Entry;
    use instep_core::id::ShareId;
    use instep_core::plan::{Keep, Precondition};
    use instep_replica::env::StepEnv;
    use instep_replica::memory::MemoryReplica;
    use instep_replica::{Capabilities, Result};

    use super::*;

    /// Somebody far away whose first answer is wrong.
    struct Far {
        inner: MemoryReplica,
        capabilities: Capabilities,
        opened: AtomicUsize,
    }

    impl Replica for Far {
        instep_replica::hand_on!(
            inner:
            id actor share describe guard watch take_hints look record row children subtree stage is_staged
            adopt_move mint restore purge barrier read_record write_record records
        );

        fn capabilities(&self) -> &Capabilities {
            &self.capabilities
        }

        fn apply(&self, actions: &[Action], sources: &dyn Sources) -> Result<Vec<Outcome>> {
            self.inner.apply(actions, sources)
        }

        fn rename(&self, from: &RelPath, to: &RelPath) -> Result<Outcome> {
            self.inner.rename(from, to)
        }

        fn open(&self, _: &RelPath, _: ContentId) -> Result<Option<Box<dyn Content>>> {
            let n = self.opened.fetch_add(1, Ordering::SeqCst);
            Ok(Some(Box::new(Bytes(vec![n as u8]))))
        }
    }

    #[test]
    fn somebody_far_away_who_was_wrong_once_is_not_asked_again() {
        let open = |observed| {
            let env = Arc::new(StepEnv::default());
            let inner = MemoryReplica::new("far", ShareId([1; 16]), env);
            let capabilities = Capabilities {
                observed,
                ..inner.capabilities().clone()
            };
            let opened = AtomicUsize::new(0);
            let far = Arc::new(Far {
                inner,
                capabilities,
                opened,
            });
            let origin = Origin {
                index: 0,
                replica: far,
            };
            Origins::new(vec![origin], 1)
        };
        let action = Action {
            replica: 1,
            path: RelPath::new(b"a").unwrap(),
            before: Precondition::Absent,
            goal: Goal::Absent,
            keep: Keep::Trash,
            entry: Entry::default(),
            shown: None,
        };
        let content = ContentId([1; 32]);
        assert_eq!(open(true).all(&action, content).count(), 2);
        assert_eq!(open(false).all(&action, content).count(), 1);
    }
}
