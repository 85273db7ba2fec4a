//! One conversation about one share: both sides tell and listen until the connection ends.
//!
//! Owns the two threads of a connection: one listens and never speaks, so that it always listens; one speaks, and
//! everything that is said here goes through it. Were both to wait until the far end listens, neither would.
//! Invariant: when it ends, for whatever reason, the far replica is away before anything else is done.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use instep_replica::{Error, Replica, Result, Waker};

use crate::listener::Listener;
use crate::observed::{Bringer, Observed};
use crate::published::{Published, Subscription};
use crate::say::{Part, Say};
use crate::shelf::Shelf;
use crate::teller::Teller;

/// How long a thread waits before it sees whether the conversation is over.
const PATIENCE: Duration = Duration::from_secs(1);

/// What carries messages: in order, each way, until it ends.
pub trait Line: Send + Sync {
    /// Sends one message; may wait for the far end to listen.
    fn say(&self, what: Say) -> Result<()>;

    /// The next message; `None` when none came in time.
    fn hear(&self, patience: Duration) -> Result<Option<Say>>;

    /// Ends it, so that both calls fail from now on.
    fn end(&self, why: &str);
}

/// Who takes part, once both sides have introduced themselves.
#[derive(Clone)]
pub struct Conversation {
    /// What carries the messages.
    pub line: Arc<dyn Line>,
    /// Who is told of.
    pub local: Arc<Published>,
    /// Who is listened to.
    pub observed: Arc<Observed>,
    /// Who brings contents.
    pub bringer: Arc<dyn Bringer>,
}

impl std::fmt::Debug for Conversation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Conversation({:?}, {:?})", self.local, self.observed)
    }
}

/// What the listener wants said.
#[derive(Default)]
struct Errands {
    replies: Vec<Say>,
    wanted: Vec<Part>,
}

/// What both threads of a conversation share.
struct Both {
    errands: Mutex<Errands>,
    waker: Waker,
    over: AtomicBool,
}

impl Both {
    fn errands(&self) -> MutexGuard<'_, Errands> {
        self.errands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Conversation {
    /// Holds it until the line ends; says why it did.
    pub fn hold(&self) -> Error {
        let both = Both {
            errands: Mutex::default(),
            waker: Waker::default(),
            over: AtomicBool::new(false),
        };
        // What changes from now on is told by itself; what was so before is compared.
        let changes = self.local.subscribe(both.waker.clone(), &self.observed);
        let end = std::thread::scope(|threads| {
            let speaking = threads.spawn(|| {
                let spoken = self.speak(&both, &changes);
                if let Err(e) = &spoken {
                    self.line.end(&e.chain());
                }
                spoken
            });
            let heard = self.listen(&both);
            self.observed.lost(&heard.chain());
            both.over.store(true, Ordering::SeqCst);
            self.line.end(&heard.chain());
            both.waker.wake();
            match speaking.join() {
                // What broke first says more than what broke because of it.
                Ok(Err(e)) => e,
                Ok(Ok(())) | Err(_) => heard,
            }
        });
        self.observed.lost(&end.chain());
        end
    }

    fn speak(&self, both: &Both, changes: &Subscription) -> Result<()> {
        let mut teller = Teller::new(Arc::clone(&self.local), self.observed.actor());
        let mut say = |what| {
            if matches!(what, Say::Rows(_)) {
                self.observed.say_rows();
            }
            self.line.say(what)
        };
        teller.greet(&mut say)?;
        while !both.over.load(Ordering::SeqCst) {
            // Asked first: what led to it is listed already.
            let rest = self.observed.take_rest();
            let errands = std::mem::take(&mut *both.errands());
            let changes = changes.take();
            let is_silent = errands.replies.is_empty() && errands.wanted.is_empty();
            if is_silent && changes.is_empty() && rest.is_none() {
                both.waker.wait(PATIENCE);
                continue;
            }
            errands.replies.into_iter().try_for_each(&mut say)?;
            teller.changed(&changes, &mut say)?;
            teller.answer(&errands.wanted, &mut say)?;
            // Only after what it led to was told.
            if let Some(heard) = rest {
                say(Say::Rest { heard })?;
            }
        }
        Ok(())
    }

    fn listen(&self, both: &Both) -> Error {
        let shelf = Arc::new(Shelf::new(Arc::clone(&self.bringer)));
        let mut listener = Listener::new(
            Arc::clone(&self.observed),
            Arc::clone(&self.local) as Arc<dyn Replica>,
        );
        let mut is_caught_up = false;
        loop {
            let said = match self.line.hear(PATIENCE) {
                Ok(Some(said)) => said,
                Ok(None) => continue,
                Err(e) => return e,
            };
            match said {
                Say::Wanted(parts) => both.errands().wanted.extend(parts),
                other => {
                    let keep = &mut |id, bytes| shelf.keep(id, bytes);
                    let heard = match listener.hear(other, keep) {
                        Ok(heard) => heard,
                        Err(e) => return e,
                    };
                    both.errands().replies.extend(heard.replies);
                    if heard.caught_up && !is_caught_up {
                        is_caught_up = true;
                        let bringer = Arc::clone(&shelf) as Arc<dyn Bringer>;
                        self.observed.caught_up(bringer);
                    }
                }
            }
            both.waker.wake();
        }
    }
}
