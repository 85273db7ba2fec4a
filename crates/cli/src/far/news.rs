//! What one side tells the other's user while it takes part: how much it has, and what it has difficulties with.
//!
//! Owns how that travels. Invariant: telling never keeps the engine waiting; what arrives is shown and decides nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use instep_core::path::RelPath;
use instep_core::plan::{Code, Problem};
use instep_engine::report::{Event, Monitor};
use instep_remote::observed::Observed;
use instep_replica::records::{hex, path_from_hex};
use instep_replica::{Replica, Totals};
use serde::{Deserialize, Serialize};

/// Characters of a difficulty's explanation.
const DETAIL_MAX: usize = 2000;

/// One piece of news.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "news", rename_all = "kebab-case")]
pub(crate) enum News {
    /// How much there is.
    Has {
        files: u64,
        dirs: u64,
        links: u64,
        bytes: u64,
    },
    /// A path has a difficulty, or none any more.
    Trouble {
        path: String,
        code: u16,
        detail: String,
        open: bool,
    },
}

impl News {
    /// How much there is.
    pub(super) fn has(totals: Totals) -> Self {
        Self::Has {
            files: totals.files,
            dirs: totals.dirs,
            links: totals.links,
            bytes: totals.bytes,
        }
    }

    /// A difficulty, or its end.
    pub(super) fn trouble(problem: &Problem, open: bool) -> Self {
        Self::Trouble {
            path: hex(problem.path.as_bytes()),
            code: problem.code as u16,
            detail: problem.detail.chars().take(DETAIL_MAX).collect(),
            open,
        }
    }

    /// Has the far replica show it. What cannot be understood is not shown.
    pub(crate) fn show(self, on: &Observed) {
        match self {
            Self::Has {
                files,
                dirs,
                links,
                bytes,
            } => on.has(Totals {
                files,
                dirs,
                links,
                bytes,
            }),
            Self::Trouble {
                path,
                code,
                detail,
                open,
            } => {
                let path =
                    path_from_hex(&path).filter(|p| RelPath::from_peer(p.as_bytes()).is_ok());
                let code = Code::ALL.into_iter().find(|c| *c as u16 == code);
                if let (Some(path), Some(code)) = (path, code) {
                    let detail = detail.chars().take(DETAIL_MAX).collect();
                    on.troubled(Problem { path, code, detail }, open);
                }
            }
        }
    }
}

/// Listens to an engine for what is news elsewhere.
pub(crate) struct Reporter {
    /// The place of our own replica in the session.
    ours: usize,
    replica: Arc<dyn Replica>,
    tell: Sender<News>,
    told: Totals,
    settled: Arc<AtomicBool>,
}

impl Reporter {
    /// For a replica at a place in a session; also what it will have to tell, and whether all was looked at.
    pub(crate) fn new(
        ours: usize,
        replica: Arc<dyn Replica>,
    ) -> (Self, Receiver<News>, Arc<AtomicBool>) {
        let (tell, news) = channel();
        let settled = Arc::new(AtomicBool::new(false));
        let reporter = Self {
            ours,
            replica,
            tell,
            told: Totals::default(),
            settled: Arc::clone(&settled),
        };
        (reporter, news, settled)
    }

    fn say(&self, news: News) {
        // Nobody listens any more when the link is over.
        drop(self.tell.send(news));
    }

    fn has(&mut self, totals: Totals) {
        if totals != self.told {
            self.told = totals;
            self.say(News::has(totals));
        }
    }
}

impl Monitor for Reporter {
    fn event(&mut self, event: Event) {
        match event {
            Event::Scanned {
                replica, totals, ..
            } if replica == self.ours => self.has(totals),
            Event::Problem {
                replica,
                problem,
                open,
            } if replica == self.ours => self.say(News::trouble(&problem, open)),
            Event::Settled(_) => {
                if let Some(totals) = self.replica.sums() {
                    self.has(totals);
                }
                self.settled.store(true, Ordering::SeqCst);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use instep_core::id::ShareId;
    use instep_remote::published::Published;
    use instep_replica::Scope;
    use instep_replica::env::StepEnv;
    use instep_replica::memory::MemoryReplica;

    use super::*;

    #[test]
    fn a_difficulty_there_is_listed_here_until_it_is_over_there() {
        let env = Arc::new(StepEnv::default());
        let memory = Arc::new(MemoryReplica::new("A", ShareId([1; 16]), env));
        let card = crate::far::request::Card::of(memory.as_ref());
        let published = Arc::new(Published::new(memory));
        let met = card.met(instep_core::policy::Role::Both).unwrap();
        let far = crate::far::observed(&met, ShareId([1; 16]), &published);
        struct Nobody;
        impl instep_remote::observed::Bringer for Nobody {
            fn open(
                &self,
                _: &RelPath,
                _: instep_core::id::ContentId,
                _: u64,
            ) -> instep_replica::Result<Option<Box<dyn instep_replica::Content>>> {
                Ok(None)
            }
        }
        far.caught_up(Arc::new(Nobody));
        let problem = Problem {
            path: RelPath::new(b"d/x").unwrap(),
            code: Code::NoSpace,
            detail: "no room".into(),
        };
        let travelled = |news: &News| {
            let text = serde_json::to_string(news).unwrap();
            serde_json::from_str::<News>(&text).unwrap()
        };
        travelled(&News::trouble(&problem, true)).show(&far);
        let totals = Totals {
            files: 7,
            ..Totals::default()
        };
        travelled(&News::has(totals)).show(&far);
        let look = far.look(&Scope::Everything).unwrap();
        assert_eq!(
            (look.problems, look.totals),
            (vec![problem.clone()], totals)
        );
        assert!(far.take_hints().paths.contains(&problem.path));
        for path in ["2e2e2f78", "zz"] {
            let news = News::Trouble {
                path: path.into(),
                code: 2108,
                detail: String::new(),
                open: true,
            };
            news.show(&far);
        }
        assert_eq!(far.look(&Scope::Everything).unwrap().problems.len(), 1);
        travelled(&News::trouble(&problem, false)).show(&far);
        assert!(far.look(&Scope::Everything).unwrap().problems.is_empty());
    }
}
