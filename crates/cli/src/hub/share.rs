//! One share that a hub keeps: a session of the engine, and those who are connected to it.
//!
//! Invariants: a replica is connected once; whoever may only read is told everything and listened to in nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use instep_core::id::{ReplicaId, ShareId};
use instep_core::policy::Role;
use instep_engine::report::Monitor;
use instep_engine::session::{Handle, Session, SessionOptions};
use instep_hub::{HubOptions, HubReplica, Retention};
use instep_remote::published::Published;
use instep_remote::wired;
use instep_replica::env::Env;
use instep_replica::{Error, Replica};
use instep_wire::identity::DeviceId;
use instep_wire::link::Link;

use super::rights::Right;
use crate::connect::{self, Purpose, Settings};
use crate::error::{Exit, Failure};
use crate::far::request::Card;
use crate::far::{self, Met};
use crate::live;
use crate::roots::{Choice, Root};

/// What the hub's own copy is called.
const LABEL: &str = "hub";

/// Who called whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// It called this hub.
    Called,
    /// This hub called it.
    Calls,
}

/// Who is connected.
pub(crate) struct Guest {
    /// Its device.
    pub(crate) device: DeviceId,
    /// What people call it.
    pub(crate) name: String,
    /// The connection.
    pub(crate) link: Arc<Link>,
    /// Who called whom.
    pub(crate) way: Way,
}

/// A share, running.
pub(crate) struct Share {
    device: DeviceId,
    over: AtomicBool,
    /// The hub's own store, unless it is a folder of the user's.
    store: Option<Arc<HubReplica>>,
    published: Arc<Published>,
    handle: Handle,
    running: Mutex<Option<JoinHandle<Result<(), Failure>>>>,
    guests: Mutex<BTreeMap<ReplicaId, Guest>>,
}

/// How a share is opened.
pub(crate) struct Opening<'a> {
    /// The world.
    pub(crate) env: &'a Arc<dyn Env>,
    /// As everywhere.
    pub(crate) settings: &'a Settings,
    /// Its identity.
    pub(crate) id: ShareId,
    /// Where the hub keeps it, unless `folder` is one of the user's in which it is kept instead.
    pub(crate) home: PathBuf,
    /// See `home`.
    pub(crate) folder: Option<PathBuf>,
    /// How its session runs.
    pub(crate) options: SessionOptions,
    /// Who hears of what happens.
    pub(crate) monitor: Box<dyn Monitor>,
    /// The hub's device.
    pub(crate) device: DeviceId,
}

impl Share {
    /// Opens the hub's copy and starts its session.
    pub(crate) fn open(opening: Opening<'_>) -> Result<Self, Failure> {
        let (replica, store) = match &opening.folder {
            Some(folder) => (open_folder(&opening, folder)?, None),
            None => {
                let store = Arc::new(open_store(&opening)?);
                (Arc::clone(&store) as Arc<dyn Replica>, Some(store))
            }
        };
        let published = Arc::new(Published::new(replica));
        let ours = Arc::clone(&published) as Arc<dyn Replica>;
        let env = Arc::clone(opening.env);
        let (options, monitor) = (opening.options, opening.monitor);
        let (send, receive) = channel();
        let run = move || {
            let session = Session::start(env, vec![ours], options, monitor);
            let mut session = match session {
                Ok(session) => session,
                Err(e) => return Err(live::failure(e)),
            };
            // Nobody waits any more only if the hub has ended.
            drop(send.send(session.handle()));
            session.run().map(drop).map_err(live::failure)
        };
        let thread = std::thread::Builder::new().name("share".into()).spawn(run);
        let thread = thread
            .map_err(|e| Failure::new(1900, Exit::Failed, "start a thread").why(e.to_string()))?;
        let Ok(handle) = receive.recv() else {
            return Err(match thread.join() {
                Ok(Err(failure)) => failure,
                Ok(Ok(())) | Err(_) => Failure::new(1900, Exit::Failed, "start a share"),
            });
        };
        Ok(Self {
            device: opening.device,
            over: AtomicBool::new(false),
            store,
            published,
            handle,
            running: Mutex::new(Some(thread)),
            guests: Mutex::default(),
        })
    }

    fn guests(&self) -> MutexGuard<'_, BTreeMap<ReplicaId, Guest>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The replica of the hub's copy.
    pub(crate) fn replica(&self) -> ReplicaId {
        self.published.id()
    }

    /// Nothing is in it yet.
    pub(crate) fn is_empty(&self) -> bool {
        let mut empty = true;
        let listed = self
            .published
            .children(&instep_core::path::RelPath::root(), &mut |_, row| {
                empty &= row.print.is_none();
                std::ops::ControlFlow::Continue(())
            });
        listed.is_ok() && empty
    }

    /// Who is connected, by name.
    pub(crate) fn connected(&self) -> Vec<String> {
        self.guests()
            .values()
            .map(|guest| guest.name.clone())
            .collect()
    }

    /// Whether a device is connected.
    pub(crate) fn has(&self, device: DeviceId) -> bool {
        self.guests().values().any(|guest| guest.device == device)
    }

    /// The share's identity.
    pub(crate) fn id(&self) -> ShareId {
        self.published.share()
    }

    /// How the hub's copy introduces itself.
    pub(crate) fn card(&self) -> Card {
        Card::of(self.published.as_ref())
    }

    /// The hub's own store, unless it is a folder of the user's.
    pub(crate) fn store(&self) -> Option<&Arc<HubReplica>> {
        self.store.as_ref()
    }

    /// It is to end.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Takes somebody in until the link ends; says why it did. `ready` is given the introduction of the hub's copy, before
    /// the first row is told.
    pub(crate) fn receive(
        &self,
        guest: Guest,
        right: Right,
        card: &Card,
        ready: impl FnOnce(Card),
    ) -> Result<Error, Failure> {
        let bad = || {
            Failure::new(1041, Exit::Usage, "the request has no introduction")
                .why("the two programs do not understand each other")
                .remedy("use the same version on both machines")
        };
        let met = card.met(Role::Both).ok_or_else(bad)?;
        let met = Met {
            label: guest.name.clone(),
            ..met
        };
        let link = Arc::clone(&guest.link);
        self.seat(met.replica, guest)?;
        let observed = far::observed(&met, self.published.share(), &self.published);
        let reads_only = right < Right::Write;
        if reads_only {
            observed.listen_to_nothing();
        }
        self.handle.meet(observed.clone());
        ready(Card {
            reads_only,
            ..self.card()
        });
        let end = wired::hold(&link, &self.published, &observed);
        self.leave(met.replica, &link);
        Ok(end)
    }

    /// A replica is here once. Its own device may come again before we noticed that it went; where two hubs call each
    /// other at once, the call of the one with the lower name counts.
    fn seat(&self, replica: ReplicaId, guest: Guest) -> Result<(), Failure> {
        let mut guests = self.guests();
        let twice = replica == self.published.id();
        let old = guests.get(&replica);
        if let Some(there) = old.filter(|g| twice || g.device != guest.device) {
            return Err(cloned(&there.name));
        }
        if twice {
            return Err(cloned("the hub itself"));
        }
        if old.is_some_and(|old| old.way == Way::Calls && guest.way == Way::Called)
            && self.device < guest.device
        {
            return Err(
                Failure::new(1079, Exit::InUse, "this hub is connected already")
                    .why("it was called from here at the same time"),
            );
        }
        if let Some(old) = guests.insert(replica, guest) {
            old.link.close("replaced");
        }
        Ok(())
    }

    /// Whether a device is connected by a call of its own.
    pub(crate) fn was_called_by(&self, device: DeviceId) -> bool {
        let guests = self.guests();
        let mut of_device = guests.values().filter(|g| g.device == device);
        of_device.any(|g| g.way == Way::Called)
    }

    fn leave(&self, replica: ReplicaId, link: &Arc<Link>) {
        let mut guests = self.guests();
        let is_it = guests
            .get(&replica)
            .is_some_and(|g| Arc::ptr_eq(&g.link, link));
        if is_it {
            guests.remove(&replica);
        }
    }

    /// Ends the links of a device: what it may do has changed.
    pub(crate) fn dismiss(&self, device: DeviceId) {
        for guest in self.guests().values().filter(|g| g.device == device) {
            guest.link.close("rights-changed");
        }
    }

    /// Finishes what was begun, and ends.
    pub(crate) fn close(&self) -> Result<(), Failure> {
        self.over.store(true, Ordering::SeqCst);
        for guest in self.guests().values() {
            guest.link.close("done");
        }
        self.handle.stop();
        let running = self.running.lock();
        let running = running.unwrap_or_else(PoisonError::into_inner).take();
        match running.map(JoinHandle::join) {
            Some(Ok(ended)) => ended,
            Some(Err(_)) => Err(Failure::new(
                1900,
                Exit::Failed,
                "a share ended by a defect",
            )),
            None => Ok(()),
        }
    }
}

fn cloned(there: &str) -> Failure {
    let what = format!("this folder is connected already, from {there}");
    Failure::new(1065, Exit::Denied, what)
        .why("its .instep was copied from there, and two folders cannot be one replica")
        .remedy("remove .instep in the copy: it joins as a folder of its own")
}

fn open_store(opening: &Opening<'_>) -> Result<HubReplica, Failure> {
    let options = HubOptions {
        label: LABEL.to_owned(),
        share: opening.id,
        state_dir: opening.settings.state_dir.clone(),
        retention: Retention {
            days: opening.settings.trash_days,
            ..Retention::default()
        },
        command: String::from("instep serve"),
    };
    HubReplica::create(&opening.home, Arc::clone(opening.env), options).map_err(Failure::from)
}

fn open_folder(opening: &Opening<'_>, folder: &Path) -> Result<Arc<dyn Replica>, Failure> {
    let root = Root {
        label: LABEL.to_owned(),
        seen: connect::inspect(folder)?,
        typed: folder.to_owned(),
        role: Role::Both,
    };
    let share = (Choice::Existing(opening.id), opening.id);
    let purpose = Purpose::Change { create: true };
    connect::open(opening.env, opening.settings, &root, share, false, purpose)
}
