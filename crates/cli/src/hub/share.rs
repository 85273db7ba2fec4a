//! One share that a hub keeps: a session of the engine, and those who are connected to it.
//!
//! Invariants: a replica is connected once; whoever may only read is told everything and listened to in nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use instep_core::id::{ReplicaId, ShareId};
use instep_core::policy::Role;
use instep_engine::report::Monitor;
use instep_engine::session::{Handle, Session, SessionOptions};
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

/// Who is connected.
struct Guest {
    device: DeviceId,
    name: String,
    link: Arc<Link>,
}

/// A share, running.
pub(crate) struct Share {
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
    /// Where its files are.
    pub(crate) folder: PathBuf,
    /// How its session runs.
    pub(crate) options: SessionOptions,
    /// Who hears of what happens.
    pub(crate) monitor: Box<dyn Monitor>,
}

impl Share {
    /// Opens the hub's copy and starts its session.
    pub(crate) fn open(opening: Opening<'_>) -> Result<Self, Failure> {
        let replica = open_folder(&opening, &opening.folder)?;
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
            published,
            handle,
            running: Mutex::new(Some(thread)),
            guests: Mutex::default(),
        })
    }

    fn guests(&self) -> MutexGuard<'_, BTreeMap<ReplicaId, Guest>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the hub's copy introduces itself.
    pub(crate) fn card(&self) -> Card {
        Card::of(self.published.as_ref())
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

    /// Takes somebody in until the link ends; says why it did. `ready` is called before the first row is told.
    pub(crate) fn receive(
        &self,
        link: &Arc<Link>,
        (device, name, right): (DeviceId, &str, Right),
        card: &Card,
        ready: impl FnOnce(),
    ) -> Result<Error, Failure> {
        let bad = || {
            Failure::new(1041, Exit::Usage, "the request has no introduction")
                .why("the two programs do not understand each other")
                .remedy("use the same version on both machines")
        };
        let met = card.met(Role::Both).ok_or_else(bad)?;
        let met = Met {
            label: name.to_owned(),
            ..met
        };
        self.seat(link, device, name, met.replica)?;
        let observed = far::observed(&met, self.published.share(), &self.published);
        if right < Right::Write {
            observed.listen_to_nothing();
        }
        self.handle.meet(observed.clone());
        ready();
        let end = wired::hold(link, &self.published, &observed);
        self.leave(met.replica, link);
        Ok(end)
    }

    /// A replica is here once. Its own device may come again before we noticed that it went.
    fn seat(
        &self,
        link: &Arc<Link>,
        device: DeviceId,
        name: &str,
        replica: ReplicaId,
    ) -> Result<(), Failure> {
        let mut guests = self.guests();
        let twice = replica == self.published.id();
        if let Some(there) = guests.get(&replica).filter(|g| twice || g.device != device) {
            let what = format!("this folder is connected already, from {}", there.name);
            return Err(Failure::new(1065, Exit::Denied, what)
                .why("its .instep was copied from there, and two folders cannot be one replica")
                .remedy("remove .instep in the copy: it joins as a folder of its own"));
        }
        let guest = Guest {
            device,
            name: name.to_owned(),
            link: Arc::clone(link),
        };
        if let Some(old) = guests.insert(replica, guest) {
            old.link.close("replaced");
        }
        Ok(())
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
