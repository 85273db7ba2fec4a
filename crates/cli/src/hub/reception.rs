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
use super::order::{Answer, Joined, Joining, MemberLine, Order, ShareLine};
use super::rights::{Grant, Kept, Refusal, Right};
use super::share::{Opening, Share};
use crate::connect::Settings;
use crate::error::{Exit, Failure};
use crate::far::request::{self, Ask, Seen, Tell, Trouble};

/// How long one wait for callers takes before it is seen whether the hub is to end.
const PATIENCE: Duration = Duration::from_millis(500);
/// The longest that an invitation may hold.
const INVITED_MAX: Duration = Duration::from_hours(24 * 30);
/// The most uses of an invitation.
const USES_MAX: u32 = 10_000;

/// A hub, as it runs.
pub(crate) struct Hub {
    data: Arc<Data>,
    listener: Listener,
    open: Mutex<Open>,
    shares: Mutex<BTreeMap<String, Arc<Share>>>,
    env: Arc<dyn Env>,
    settings: Settings,
    keep_trash: Duration,
    say: Box<dyn Fn(&str) + Send + Sync>,
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
    pub(crate) say: Box<dyn Fn(&str) + Send + Sync>,
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

    fn shares(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Share>>> {
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
        self.data.ask(super::rights::Book::has_admin)
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
        let shares = std::mem::take(&mut *self.shares());
        let ended = shares.values().map(|share| share.close());
        ended.fold(Ok(()), Result::and)
    }

    fn open_share(&self, name: &str, kept: &Kept) -> Result<Arc<Share>, Failure> {
        let mut shares = self.shares();
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
        let folder = match &kept.folder {
            Some(folder) => request::take_path(folder).unwrap_or_default(),
            None => self.data.share(&kept.id),
        };
        let share = Arc::new(Share::open(Opening {
            env: &self.env,
            settings: &self.settings,
            id,
            folder,
            options: SessionOptions {
                keep_trash: Some(self.keep_trash),
                ..SessionOptions::default()
            },
            monitor: Box::new(Silent),
        })?);
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
    fn converse(&self, link: &Arc<Link>) {
        let Some(device) = link.peer().device else {
            return;
        };
        if request::greet(link, "the caller").is_err() {
            return;
        }
        while let Some(ask) = request::asked(link) {
            let answer = match ask {
                Ask::Look { path } => self
                    .look(device, &path)
                    .map(|seen| Tell::Seen(Box::new(seen))),
                Ask::Order(order) => self.carry_out(device, order).map(Tell::Answered),
                Ask::Open(opening) => {
                    if let Err(failure) = self.take_part(link, device, &opening) {
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
    fn find(&self, device: DeviceId, path: &str) -> Result<(String, Kept, Right), Failure> {
        let name = request::take_path(path).map(|p| p.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        let found = self.data.ask(|book| {
            let right = book.right(device, &name)?;
            Some((book.share(&name)?.clone(), right))
        });
        // Whoever may not see a share is not told whether there is one.
        let (kept, right) = found.ok_or_else(|| no_share(&name))?;
        Ok((name, kept, right))
    }

    fn look(&self, device: DeviceId, path: &str) -> Result<Seen, Failure> {
        let (name, kept, _) = self.find(device, path)?;
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
        device: DeviceId,
        opening: &request::Opening,
    ) -> Result<(), Failure> {
        let (name, kept, right) = self.find(device, &opening.path)?;
        if kept.id != opening.share {
            let what = format!("{name} is another share than the folder is in");
            return Err(Failure::new(1068, Exit::Denied, what)
                .why("a folder that belongs to one share is never mixed with another")
                .remedy("instep forget FOLDER   takes it out of the share that it is in"));
        }
        let share = self.open_share(&name, &kept)?;
        let member = self
            .data
            .ask(|book| book.member(device).map(|m| m.name.clone()));
        let member = member.unwrap_or_default();
        let ready = || {
            (self.say)(&format!("here    {member} in {name}"));
            request::tell(link, &Tell::Opened(share.card()));
        };
        let end = share.receive(link, (device, &member, right), &opening.caller, ready)?;
        (self.say)(&format!("gone    {member} from {name}: {}", end.chain()));
        Ok(())
    }

    fn carry_out(&self, device: DeviceId, order: Order) -> Result<Answer, Failure> {
        let is_admin = self
            .data
            .ask(|book| book.member(device).is_some_and(|m| m.admin));
        let may = |share: &str| {
            let right = self.data.ask(|book| book.right(device, share));
            match right {
                Some(Right::Admin) => Ok(()),
                Some(_) => Err(no_right()),
                None => Err(no_share(share)),
            }
        };
        let whole = || if is_admin { Ok(()) } else { Err(no_right()) };
        match order {
            Order::Shares => return Ok(self.list_shares(device)),
            Order::Members { share } => {
                share.as_deref().map_or_else(whole, may)?;
                return Ok(self.list_members(share.as_deref()));
            }
            Order::Invite {
                share,
                right,
                uses,
                seconds,
            } => {
                share.as_deref().map_or_else(whole, may)?;
                let grant = share.map_or(Grant::Hub, |share| Grant::Share(share, right));
                let code = self.invite(grant, Duration::from_secs(seconds), uses)?;
                let code = code.to_string();
                return Ok(Answer::Invited { code });
            }
            Order::Add { share, id } => {
                whole()?;
                self.add(&share, &id)?;
            }
            Order::Remove { share } => {
                whole()?;
                self.remove(&share)?;
            }
            Order::Set {
                share,
                member,
                right,
            } => {
                may(&share)?;
                let who = self.change(|book| {
                    let who = book.find(&member)?;
                    book.set(who, &share, right).map(|()| who)
                })?;
                self.dismiss(who);
            }
            Order::Revoke { member } => {
                whole()?;
                let who = self.change(|book| {
                    let who = book.find(&member)?;
                    book.revoke(who).map(|()| who)
                })?;
                self.listener.expel(who);
                (self.say)(&format!("revoked {member}"));
            }
        }
        Ok(Answer::Done)
    }

    fn change<T>(
        &self,
        change: impl FnOnce(&mut super::rights::Book) -> Result<T, Refusal>,
    ) -> Result<T, Failure> {
        self.data.change(change).map_err(|e| match e {
            Unchanged::Failed(failure) => failure,
            Unchanged::Refused(refusal) => refused(&refusal),
        })
    }

    fn add(&self, name: &str, id: &str) -> Result<(), Failure> {
        let known: Result<ShareId, _> = id.parse();
        known.map_err(|_| no_share(id))?;
        let kept = Kept {
            id: id.to_owned(),
            folder: None,
        };
        // The copy first: a share that is in the book can be opened.
        self.change(|book| book.clone().add_share(name, kept.clone()))?;
        self.open_share(name, &kept)?;
        self.change(|book| book.add_share(name, kept))
    }

    fn remove(&self, name: &str) -> Result<(), Failure> {
        self.change(|book| book.remove_share(name))?;
        let share = self.shares().remove(name);
        share.map_or(Ok(()), |share| share.close())
    }

    fn dismiss(&self, device: DeviceId) {
        let shares: Vec<_> = self.shares().values().cloned().collect();
        shares.iter().for_each(|share| share.dismiss(device));
    }

    fn list_shares(&self, device: DeviceId) -> Answer {
        let book = self.data.book();
        let running = self.shares().clone();
        let line = |(name, kept): (&str, &Kept)| {
            let right = book.right(device, name)?;
            let share = running.get(name);
            Some(ShareLine {
                name: name.to_owned(),
                id: kept.id.clone(),
                right,
                connected: share.map(|s| s.connected()).unwrap_or_default(),
            })
        };
        Answer::Shares {
            shares: book.shares().filter_map(line).collect(),
        }
    }

    fn list_members(&self, share: Option<&str>) -> Answer {
        let book = self.data.book();
        let running = self.shares().clone();
        let takes_part = |rights: &BTreeMap<String, Right>, admin: bool| match share {
            Some(share) => admin || rights.contains_key(share),
            None => true,
        };
        let members = book
            .members()
            .filter(|(_, m)| takes_part(&m.rights, m.admin));
        let line = |(device, m): (&str, &super::rights::Member)| {
            let id: Option<DeviceId> = device.parse().ok();
            MemberLine {
                name: m.name.clone(),
                device: device.to_owned(),
                admin: m.admin,
                rights: m.rights.iter().map(|(s, r)| (s.clone(), *r)).collect(),
                connected: id.is_some_and(|id| running.values().any(|share| share.has(id))),
            }
        };
        Answer::Members {
            members: members.map(line).collect(),
        }
    }
}

fn no_share(name: &str) -> Failure {
    Failure::new(
        1069,
        Exit::Usage,
        format!("there is no share {name:?} for this device"),
    )
    .why("the hub keeps none of that name, or this device may not see it")
    .remedy("instep share ls   lists those that it may see")
}

fn no_right() -> Failure {
    Failure::new(1070, Exit::Denied, "this device may not do that")
        .why("only whoever administers the share, or the hub, may")
        .remedy("instep share members NAME   lists who does")
}

fn refused(refusal: &Refusal) -> Failure {
    let failure = |what: &str| Failure::new(1071, Exit::Usage, what);
    match refusal {
        Refusal::Taken => failure("another share has this name").remedy("choose another name"),
        Refusal::KeptAs(name) => failure(&format!("the share is kept here already, as {name}")),
        Refusal::BadName => failure("this cannot be the name of a share")
            .why("a name has up to 64 letters, digits, - _ . and begins with a letter or a digit"),
        Refusal::NoShare => {
            failure("there is no such share").remedy("instep share ls   lists them")
        }
        Refusal::NoMember => {
            failure("there is no such member").remedy("instep share members   lists them")
        }
        Refusal::LastAdmin => failure("nobody else may do everything at this hub")
            .remedy("invite another administrator first: instep share invite --admin"),
    }
}
