//! Those who call a hub: known devices, those who have a code, and what becomes of them.
//!
//! Invariants: a device that is not in the book gets nowhere but to the exchange of a code; whatever one caller does, the
//! others notice nothing; who is revoked is out within a second.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use instep_core::id::ShareId;
use instep_engine::report::Silent;
use instep_engine::session::SessionOptions;
use instep_fs::place;
use instep_replica::env::Env;
use instep_wire::identity::DeviceId;
use instep_wire::link::Link;
use instep_wire::listener::{Listener, Visitor};
use instep_wire::pairing::{Code, InvitationBook, Invitations, Paired, PairingError, Visit};
use instep_wire::tls::{Admission, Purpose};

use super::data::{Data, Unchanged};
use super::errands::no_share;
use super::follow::{self, Follower};
use super::order::{Joined, Joining};
use super::rights::{Book, Caller, Grant, Kept, Refusal, Right};
use super::share::{Guest, Opening, Share, Way};
use crate::connect::Settings;
use crate::error::{Exit, Failure};
use crate::far::hubs::Device;
use crate::far::request::{self, Ask, Seen, Tell, Trouble};
use crate::quantity;

/// How long one wait for callers takes before it is seen whether the hub is to end.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often room is given back.
const TIDY_EVERY: Duration = Duration::from_hours(6);
/// The longest that an invitation may hold.
const INVITED_MAX: Duration = Duration::from_hours(24 * 30);
/// The most uses of an invitation.
const USES_MAX: u32 = 10_000;

/// Where a line about what happens goes.
pub(crate) type Say = Arc<dyn Fn(&str) + Send + Sync>;

/// A hub, as it runs.
pub(crate) struct Hub {
    pub(super) data: Arc<Data>,
    pub(super) listener: Listener,
    open: Mutex<Open>,
    shares: Mutex<BTreeMap<String, Arc<Share>>>,
    env: Arc<dyn Env>,
    settings: Settings,
    keep_trash: Duration,
    pub(super) say: Say,
}

/// The invitations that hold, and what each gives.
#[derive(Default)]
struct Open {
    book: InvitationBook,
    grants: BTreeMap<u16, Grant>,
}

/// What a hub needs of the world.
pub(crate) struct World {
    /// Time, randomness, threads.
    pub(crate) env: Arc<dyn Env>,
    /// As everywhere.
    pub(crate) settings: Settings,
    /// How long what was displaced is kept.
    pub(crate) keep_trash: Duration,
    /// Where a line about what happens goes.
    pub(crate) say: Say,
}

/// Lets in whom the book knows, and those who may have a code.
struct Door(Arc<Data>);

impl Admission for Door {
    fn admits(&self, device: DeviceId, purpose: Purpose) -> bool {
        purpose == Purpose::Pairing || self.0.ask(|book| book.member(device).is_some())
    }
}

impl Invitations for Hub {
    fn take(&self, number: u16) -> Option<Code> {
        self.open().book.take(number, place::monotonic())
    }
}

impl Hub {
    /// Opens all shares and listens.
    pub(crate) fn start(
        data: Data,
        address: SocketAddr,
        world: World,
    ) -> Result<Arc<Self>, Failure> {
        let data = Arc::new(data);
        let door = Arc::new(Door(Arc::clone(&data)));
        let listener = Listener::bind(address, data.key(), door).map_err(|e| {
            Failure::new(1066, Exit::Failed, format!("cannot listen at {address}"))
                .why(e.to_string())
                .remedy("another program may listen there: ss -ltnp")
                .remedy("listen somewhere else: --listen ADDRESS:PORT")
        })?;
        let hub = Arc::new(Self {
            data,
            listener,
            open: Mutex::default(),
            shares: Mutex::default(),
            env: world.env,
            settings: world.settings,
            keep_trash: world.keep_trash,
            say: world.say,
        });
        for (name, kept) in hub.data.book().shares() {
            hub.open_share(name, kept)?;
        }
        Ok(hub)
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn running(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Share>>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Who it is.
    pub(crate) fn device(&self) -> DeviceId {
        self.data.key().id()
    }

    /// Whether somebody may do everything.
    pub(crate) fn has_admin(&self) -> bool {
        self.data.ask(Book::has_admin)
    }

    /// A code that gives something.
    pub(crate) fn invite(&self, grant: Grant, life: Duration, uses: u32) -> Result<Code, Failure> {
        let mut open = self.open();
        let life = life.min(INVITED_MAX);
        let uses = uses.clamp(1, USES_MAX);
        let failed =
            |why: String| Failure::new(1067, Exit::Failed, "nobody can be invited now").why(why);
        let added = open.book.add(place::monotonic(), life, uses);
        let added = added.map_err(|e| failed(e.to_string()))?;
        let invitation = added.ok_or_else(|| {
            failed("there are 999 invitations already; the first of them expires by itself".into())
        })?;
        open.grants.insert(invitation.code.number(), grant);
        Ok(invitation.code)
    }

    /// Gives back the room of what nobody can ask for any more, again and again, until told to stop.
    pub(crate) fn tidy(&self, is_over: impl Fn() -> bool) {
        let mut since: Option<Duration> = None;
        while !is_over() {
            if since.is_none_or(|at| place::monotonic().saturating_sub(at) >= TIDY_EVERY) {
                let shares: Vec<_> = self.running().clone().into_iter().collect();
                for (name, share) in shares {
                    self.tidy_share(&name, &share);
                }
                since = Some(place::monotonic());
            }
            std::thread::sleep(PATIENCE);
        }
    }

    fn tidy_share(&self, name: &str, share: &Share) {
        let Some(store) = share.store() else { return };
        match store.collect() {
            Ok(gone) if gone.chunks > 0 => {
                let size = quantity::bytes(gone.bytes);
                (self.say)(&format!("tidied  {name}: {size} of old versions"));
            }
            Ok(_) => {}
            Err(e) => (self.say)(&format!("untidy  {name}: {}", e.chain())),
        }
    }

    /// Receives whoever calls until told to stop.
    pub(crate) fn run(self: &Arc<Self>, is_over: impl Fn() -> bool) -> Result<(), Failure> {
        while !is_over() {
            let visitor = self.listener.accept(PATIENCE).map_err(|e| {
                Failure::new(1066, Exit::Failed, "the hub does not listen any more")
                    .why(e.to_string())
            })?;
            let Some(visitor) = visitor else { continue };
            let hub = Arc::clone(self);
            let work = move || match visitor {
                Visitor::Link(link) => hub.converse(&Arc::new(link)),
                Visitor::Pairing(visit) => hub.pair(visit),
            };
            let started = std::thread::Builder::new()
                .name("caller".into())
                .spawn(work);
            if let Err(e) = started {
                (self.say)(&format!("a caller was turned away: {e}"));
            }
        }
        let shares = std::mem::take(&mut *self.running());
        let ended = shares.values().map(|share| share.close());
        ended.fold(Ok(()), Result::and)
    }

    pub(super) fn open_share(&self, name: &str, kept: &Kept) -> Result<Arc<Share>, Failure> {
        let mut shares = self.running();
        if let Some(share) = shares.get(name) {
            return Ok(Arc::clone(share));
        }
        let id: ShareId = kept.id.parse().map_err(|_| {
            Failure::new(
                1064,
                Exit::Damage,
                format!("the share {name} has no identity"),
            )
        })?;
        let share = Arc::new(Share::open(Opening {
            env: &self.env,
            settings: &self.settings,
            id,
            home: self.data.share(&kept.id),
            folder: kept.folder.as_deref().and_then(request::take_path),
            options: SessionOptions {
                keep_trash: Some(self.keep_trash),
                ..SessionOptions::default()
            },
            monitor: Box::new(Silent),
            device: self.device(),
        })?);
        for address in &kept.follows {
            follow::begin(Follower {
                share: Arc::clone(&share),
                name: name.to_owned(),
                device: Device::of(self.data.path().to_owned()),
                address: address.clone(),
                say: Arc::clone(&self.say),
            })?;
        }
        shares.insert(name.to_owned(), Arc::clone(&share));
        Ok(share)
    }

    /// Has a stranger show that it knows a code.
    fn pair(&self, visit: Visit) {
        let from = visit.from();
        let answered = visit.answer(self.device(), self, |paired| self.admit(paired));
        let said = match answered {
            Ok(paired) => {
                let name = self
                    .data
                    .ask(|book| book.member(paired.device).map(|m| m.name.clone()));
                format!("joined  {} from {from}", name.unwrap_or_default())
            }
            // Whoever hangs up before a guess has tried nothing.
            Err(PairingError::Link(_)) => return,
            Err(e) => format!("refused {from}: {e}"),
        };
        (self.say)(&said);
    }

    /// Writes down what a believed device was invited to; what it is told.
    fn admit(&self, paired: &Paired) -> Vec<u8> {
        let grant = self.open().grants.get(&paired.number).cloned();
        let joining: Option<Joining> = serde_json::from_slice(&paired.told).ok();
        let name = joining.map_or_else(String::new, |j| j.name);
        let (share, right) = match &grant {
            Some(Grant::Share(share, right)) => (Some(share.clone()), *right),
            Some(Grant::Hub) | None => (None, Right::Admin),
        };
        let given = match grant {
            Some(grant) => self
                .data
                .change(|book| book.give(paired.device, &name, &grant)),
            None => Err(Unchanged::Refused(Refusal::NoShare)),
        };
        let (you, refused) = match given {
            Ok(name) => (name, None),
            Err(Unchanged::Failed(failure)) => (String::new(), Some(failure.why)),
            Err(Unchanged::Refused(_)) => (
                String::new(),
                Some("the share is not kept here any more".into()),
            ),
        };
        let joined = Joined {
            you,
            share,
            right,
            refused,
        };
        serde_json::to_vec(&joined).unwrap_or_default()
    }

    /// Answers a known device until it takes part in a share or hangs up.
    pub(crate) fn converse(&self, link: &Arc<Link>) {
        let caller = link.peer().device.map_or(Caller::Owner, Caller::Device);
        if request::greet(link, "the caller").is_err() {
            return;
        }
        while let Some(ask) = request::asked(link) {
            let answer = match ask {
                Ask::Look { path } => self
                    .look(caller, &path)
                    .map(|seen| Tell::Seen(Box::new(seen))),
                Ask::Order(order) => self.carry_out(caller, order).map(Tell::Answered),
                Ask::Open(opening) => {
                    if let Err(failure) = self.take_part(link, caller, &opening) {
                        request::tell(link, &Tell::Failed(Box::new(Trouble::of(&failure))));
                        continue;
                    }
                    return;
                }
            };
            let told = answer.unwrap_or_else(|f| Tell::Failed(Box::new(Trouble::of(&f))));
            request::tell(link, &told);
        }
    }

    /// A share that a device may see, by the name in a request.
    fn find(&self, caller: Caller, path: &str) -> Result<(String, Kept, Right), Failure> {
        let name = request::take_path(path).map(|p| p.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        let found = self.data.ask(|book| {
            let right = book.right(caller, &name)?;
            Some((book.share(&name)?.clone(), right))
        });
        // Whoever may not see a share is not told whether there is one.
        let (kept, right) = found.ok_or_else(|| no_share(&name))?;
        Ok((name, kept, right))
    }

    fn look(&self, caller: Caller, path: &str) -> Result<Seen, Failure> {
        let (name, kept, _) = self.find(caller, path)?;
        let share = self.open_share(&name, &kept)?;
        Ok(Seen::share(
            &name,
            &kept.id,
            share.replica(),
            share.is_empty(),
        ))
    }

    fn take_part(
        &self,
        link: &Arc<Link>,
        caller: Caller,
        opening: &request::Opening,
    ) -> Result<(), Failure> {
        let (name, kept, right) = self.find(caller, &opening.path)?;
        if kept.id != opening.share {
            return Err(another_share(&name));
        }
        let Caller::Device(device) = caller else {
            return Err(no_share(&name));
        };
        let share = self.open_share(&name, &kept)?;
        let member = self
            .data
            .ask(|book| book.member(device).map(|m| m.name.clone()));
        let guest = Guest {
            device,
            name: member.unwrap_or_default(),
            link: Arc::clone(link),
            way: Way::Called,
        };
        let member = guest.name.clone();
        let ready = |card| {
            (self.say)(&format!("here    {member} in {name}"));
            request::tell(link, &Tell::Opened(card));
        };
        let end = share.receive(guest, right, &opening.caller, ready)?;
        (self.say)(&format!("gone    {member} from {name}: {}", end.chain()));
        Ok(())
    }
}

/// A share of this name is another one.
pub(super) fn another_share(name: &str) -> Failure {
    let what = format!("{name} is another share than the folder is in");
    Failure::new(1068, Exit::Denied, what)
        .why("a folder that belongs to one share is never mixed with another")
        .remedy("instep forget FOLDER   takes it out of the share that it is in")
}
