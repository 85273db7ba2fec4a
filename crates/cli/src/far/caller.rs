//! The side that starts the other: it opens a folder there, sees it as a replica, and comes back when the link breaks.
//!
//! Invariant: only what was met the first time is met again: another replica at the far end ends the attempt.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use instep_core::id::ShareId;
use instep_core::policy::Role;
use instep_fs::place;
use instep_remote::observed::Observed;
use instep_remote::published::Published;
use instep_remote::wired;
use instep_replica::Replica as _;
use instep_wire::link::Link;

use super::Met;
use super::heard::Voice;
use super::hubs::{Address, Device};
use super::request::{self, Ask, Card, Opening, Seen, Tell};
use super::ssh::{self, Host};
use crate::error::{Exit, Failure};

/// Between two attempts to reach a machine that went away: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// How long the session waits to hear what is there before it begins without.
const HEARD: Duration = Duration::from_secs(10);

/// How a machine is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Machine {
    /// Through the user's `ssh`, which starts the program there.
    Ssh(Host),
    /// A hub that runs, at this address.
    Hub(Address),
}

/// A folder on another machine, as it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The machine.
    pub(crate) machine: Machine,
    /// The folder there, relative to the home directory; of a hub, the name of a share.
    pub(crate) path: PathBuf,
}

impl Place {
    fn text(&self) -> String {
        let path = self.path.display();
        match &self.machine {
            Machine::Ssh(host) => format!("{host}:{path}"),
            Machine::Hub(address) => format!("sync://{address}/{path}"),
        }
    }

    fn start(&self, voice: Voice) -> Result<Started, Failure> {
        match &self.machine {
            Machine::Ssh(host) => ssh::start(host, &self.path, voice).map(Started::Program),
            Machine::Hub(address) => Device::own().call(address).map(Started::Hub),
        }
    }
}

/// Whoever answers at the other end.
enum Started {
    /// The program, started for this.
    Program(ssh::Started),
    /// A hub.
    Hub(Arc<Link>),
}

impl Started {
    fn link(&self) -> &Arc<Link> {
        match self {
            Self::Program(started) => &started.link,
            Self::Hub(link) => link,
        }
    }

    /// The program was missing there.
    fn is_brought(&self) -> bool {
        matches!(self, Self::Program(started) if started.brought)
    }
}

/// A folder there that was looked at and not opened yet.
pub(crate) struct Reached {
    place: Place,
    started: Started,
    /// Nothing that would be synchronized is in the folder.
    pub(crate) is_empty: bool,
}

/// What is agreed for a folder there.
pub(crate) struct Terms {
    pub(crate) share: ShareId,
    pub(crate) new: bool,
    pub(crate) label: String,
    pub(crate) mirror: bool,
    pub(crate) allow_empty: bool,
    pub(crate) create: bool,
    /// Only what would happen is asked.
    pub(crate) preview: bool,
}

impl Reached {
    /// Reaches a machine and looks at a folder there.
    pub(crate) fn reach(place: &Place, voice: Voice) -> Result<(Self, Seen), Failure> {
        let started = place.start(voice)?;
        let at = place.text();
        request::greet(started.link(), &at)?;
        let path = request::put_path(&place.path);
        let Tell::Seen(seen) = request::ask(started.link(), &at, &Ask::Look { path })? else {
            return Err(odd(&at));
        };
        let reached = Self {
            place: place.clone(),
            started,
            is_empty: seen.is_empty(),
        };
        Ok((reached, *seen))
    }

    /// Opens the folder there beside one of ours.
    pub(crate) fn open(self, terms: Terms, ours: &Arc<Published>) -> Result<Far, Failure> {
        let card = ask_to_open(&self.started, &self.place, &terms, ours)?;
        let role = if terms.mirror {
            Role::Target
        } else {
            Role::Both
        };
        let at = self.place.text();
        let met = card.met(role).ok_or_else(|| odd(&at))?;
        let mut notes = met.notes;
        if self.started.is_brought() {
            notes.push(String::from("instep was brought there"));
        }
        let met = Met {
            location: at,
            notes,
            ..met
        };
        let observed = super::observed(&met, terms.share, ours);
        let stop = Arc::new(AtomicBool::new(false));
        let visit = Visit {
            place: self.place,
            terms: Terms {
                new: false,
                create: false,
                ..terms
            },
            ours: Arc::clone(ours),
            observed: Arc::clone(&observed),
            stop: Arc::clone(&stop),
        };
        Ok(Far {
            observed,
            stop,
            waiting: Some((visit, self.started)),
            talking: None,
        })
    }
}

/// What is there is heard before the session begins, if that does not take long: it is introduced with it.
fn wait_until_heard(observed: &Observed) {
    let began = place::monotonic();
    while observed.guard().is_err() && place::monotonic().saturating_sub(began) < HEARD {
        place::pause(Duration::from_millis(2));
    }
}

fn odd(at: &str) -> Failure {
    Failure::new(
        1041,
        Exit::Failed,
        format!("{at} answers something else than was asked"),
    )
    .why("the two programs do not understand each other")
    .remedy("use the same version on both machines")
}

fn ask_to_open(
    started: &Started,
    place: &Place,
    terms: &Terms,
    ours: &Arc<Published>,
) -> Result<Card, Failure> {
    let at = place.text();
    let opening = Opening {
        path: request::put_path(&place.path),
        share: terms.share.to_string(),
        new: terms.new,
        label: terms.label.clone(),
        location: at.clone(),
        mirror: terms.mirror,
        allow_empty: terms.allow_empty,
        create: terms.create,
        preview: terms.preview,
        caller: Card::of(ours.as_ref()),
    };
    match request::ask(started.link(), &at, &Ask::Open(Box::new(opening)))? {
        Tell::Opened(card) => Ok(card),
        _ => Err(odd(&at)),
    }
}

/// A folder there that takes part. Dropped, the program there finishes and ends.
pub(crate) struct Far {
    pub(crate) observed: Arc<Observed>,
    stop: Arc<AtomicBool>,
    /// Who is there and was told nothing yet.
    waiting: Option<(Visit, Started)>,
    talking: Option<std::thread::JoinHandle<()>>,
}

impl Far {
    /// Tells and is told from now on, and keeps to it until dropped. What is there is heard when this returns, if that
    /// did not take long.
    pub(crate) fn begin(&mut self) -> Result<(), Failure> {
        let Some((visit, started)) = self.waiting.take() else {
            return Ok(());
        };
        let talking = std::thread::Builder::new()
            .name("far".into())
            .spawn(move || visit.stay(started))
            .map_err(|e| Failure::new(1900, Exit::Failed, "start a thread").why(e.to_string()))?;
        self.talking = Some(talking);
        wait_until_heard(&self.observed);
        Ok(())
    }

    /// As [`Far::begin`]; fails where it was not heard.
    pub(crate) fn hear(&mut self) -> Result<(), Failure> {
        self.begin()?;
        self.observed.guard().map_err(|e| {
            let at = self.observed.describe().location;
            Failure::new(1040, Exit::Unreachable, format!("{at} does not answer"))
                .why(e.to_string())
                .remedy("try again")
        })
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(talking) = self.talking.take() {
            // What it was about is over.
            let _ended = talking.join();
        }
    }
}

struct Visit {
    place: Place,
    terms: Terms,
    ours: Arc<Published>,
    observed: Arc<Observed>,
    stop: Arc<AtomicBool>,
}

impl Visit {
    /// Talks until told to stop; comes back whenever the link breaks.
    fn stay(self, first: Started) {
        let mut started = Some(first);
        let mut pause = PAUSE.0;
        while !self.stop.load(Ordering::SeqCst) {
            match started.take() {
                Some(there) => {
                    self.talk(there);
                    pause = PAUSE.0;
                }
                None => {
                    self.rest(pause);
                    pause = (pause * 2).min(PAUSE.1);
                    match self.come_back() {
                        Ok(there) => started = Some(there),
                        Err(e) => self.observed.lost(&format!("{}: {}", e.what, e.why)),
                    }
                }
            }
        }
    }

    fn talk(&self, there: Started) {
        let link = Arc::clone(there.link());
        let over = AtomicBool::new(false);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    if self.stop.load(Ordering::SeqCst) {
                        link.close("done");
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
            let observed = Arc::clone(&self.observed);
            let aside = Arc::new(move |text: String| {
                if let Ok(Tell::News(news)) = serde_json::from_str(&text) {
                    news.show(&observed);
                }
            });
            let _why = wired::hold_with(&link, &self.ours, &self.observed, aside);
            over.store(true, Ordering::SeqCst);
        });
    }

    fn rest(&self, pause: Duration) {
        let mut left = pause;
        while !left.is_zero() && !self.stop.load(Ordering::SeqCst) {
            let step = left.min(Duration::from_millis(50));
            std::thread::sleep(step);
            left -= step;
        }
    }

    fn come_back(&self) -> Result<Started, Failure> {
        let (reached, _) = Reached::reach(&self.place, Voice::Quiet)?;
        let card = ask_to_open(&reached.started, &self.place, &self.terms, &self.ours)?;
        let met = card
            .met(Role::Both)
            .ok_or_else(|| odd(&self.place.text()))?;
        if met.replica != self.observed.id() {
            let what = format!("{} is another folder now", self.place.text());
            return Err(Failure::new(1051, Exit::Denied, what)
                .why("its marker names another replica than the one that was met first")
                .remedy(
                    "put the folder back, or stop this session and start it with the new one",
                ));
        }
        self.observed.set_actor(met.actor);
        Ok(reached.started)
    }
}
