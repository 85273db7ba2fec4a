//! Callers who take part in a session that runs here already: its sockets let them in.
//!
//! Owns who is here. Invariant: a guest is observed and writes nothing here; what the session was begun for goes on
//! without it.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use instep_core::id::ReplicaId;
use instep_core::policy::Role;
use instep_engine::command::{Answer, Command};
use instep_engine::session::Handle;
use instep_remote::published::Published;
use instep_remote::wired;
use instep_replica::Replica as _;
use instep_wire::link::Link;
use instep_wire::pipe::Side;

use super::agent::{CALLER, bad_request, look, refuse};
use super::news::News;
use super::request::{self, Ask, Card, Opening, Tell};
use crate::connect::Settings;
use crate::error::{Exit, Failure};
use crate::roots;

/// Who lets callers in.
pub(crate) struct Guests {
    handle: Handle,
    /// Our replicas, and their places in the session.
    ours: Vec<(usize, Arc<Published>)>,
    settings: Settings,
    here: AtomicUsize,
    /// The session is there for them alone.
    ends: bool,
}

/// Somebody is here as long as this is kept.
pub(crate) struct Stay(Arc<Guests>);

impl Drop for Stay {
    fn drop(&mut self) {
        let left = self.0.here.fetch_sub(1, Ordering::SeqCst);
        if left == 1 && self.0.ends {
            self.0.handle.stop();
        }
    }
}

impl Guests {
    /// Of a session; `ends` when it is over with its last guest.
    pub(crate) fn of(
        handle: Handle,
        ours: Vec<(usize, Arc<Published>)>,
        settings: Settings,
        ends: bool,
    ) -> Arc<Self> {
        let here = AtomicUsize::new(0);
        Arc::new(Self {
            handle,
            ours,
            settings,
            here,
            ends,
        })
    }

    /// Somebody comes.
    pub(crate) fn stay(self: &Arc<Self>) -> Stay {
        self.here.fetch_add(1, Ordering::SeqCst);
        Stay(Arc::clone(self))
    }

    /// Whether a replica can be taken part with.
    pub(crate) fn has(&self, replica: ReplicaId) -> bool {
        self.ours.iter().any(|(_, p)| p.id() == replica)
    }

    /// Serves whoever came through the socket of a replica, until the link ends.
    pub(crate) fn receive(self: &Arc<Self>, replica: ReplicaId, socket: UnixStream) {
        let Some((place, published)) = self.ours.iter().find(|(_, p)| p.id() == replica) else {
            return;
        };
        let Ok(write) = socket.try_clone() else {
            return;
        };
        let patience = Duration::from_secs(30);
        let Ok(link) = Link::over(socket, write, Side::Called, CALLER, patience) else {
            return;
        };
        let link = Arc::new(link);
        if request::greet(&link, CALLER).is_err() {
            return;
        }
        while let Some(ask) = request::asked(&link) {
            match ask {
                Ask::Look { path } => match look(&path, &self.settings) {
                    // It is held, but by those who answer.
                    Ok(seen) => request::tell(&link, &Tell::Seen(Box::new(seen.free()))),
                    Err(failure) => refuse(&link, &failure),
                },
                Ask::Order(_) => refuse(&link, &bad_request("an order, and no hub runs here")),
                Ask::Open(opening) => {
                    let stay = self.stay();
                    match self.take_in(&link, &opening, *place, published) {
                        Ok(()) => return,
                        Err(failure) => refuse(&link, &failure),
                    }
                    drop(stay);
                }
            }
        }
    }

    fn take_in(
        &self,
        link: &Arc<Link>,
        opening: &Opening,
        place: usize,
        published: &Arc<Published>,
    ) -> Result<(), Failure> {
        let share = published.share();
        let fits = !opening.new && opening.share == share.to_string() && !opening.mirror;
        let met = opening.caller.met(Role::Both);
        let met = met.ok_or_else(|| bad_request("no introduction"))?;
        if !fits || self.has(met.replica) {
            let typed = published.describe().location;
            return Err(roots::in_use(typed.as_ref(), "a session of its own"));
        }
        let observed = super::observed(&met, share, published);
        if !opening.preview {
            self.handle.meet(observed.clone());
        }
        request::tell(link, &Tell::Opened(Card::of(published.as_ref())));
        for news in self.news(place, published) {
            request::tell(link, &Tell::News(news));
        }
        let _over = wired::hold(link, published, &observed);
        Ok(())
    }

    /// How things stand with a replica of ours.
    fn news(&self, place: usize, published: &Published) -> Vec<News> {
        let mut all: Vec<News> = published.sums().map(News::has).into_iter().collect();
        if let Some(Answer::Status(status)) = self.handle.request(Command::Status) {
            let of_ours = status.problems.iter().filter(|(i, _)| *i == place);
            all.extend(of_ours.map(|(_, problem)| News::trouble(problem, true)));
        }
        all
    }
}

/// Why a caller cannot be let in through a socket.
pub(crate) fn closed() -> Answer {
    let failure = Failure::new(1006, Exit::InUse, "this session takes nobody in");
    Answer::Refused {
        code: failure.code,
        why: failure.what,
    }
}
