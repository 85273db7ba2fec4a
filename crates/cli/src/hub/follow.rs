//! A share that is kept with another hub, too: this one calls it, and comes back whenever the call ends.
//!
//! Invariant: only the share that was joined is followed; another one under its name ends the attempt, not what is here.

use std::sync::Arc;
use std::time::Duration;

use instep_wire::identity::DeviceId;

use super::reception::{Say, another_share};
use super::rights::Right;
use super::share::{Guest, Share, Way};
use crate::error::{Exit, Failure};
use crate::far::hubs::{Address, Device, odd};
use crate::far::request::{self, Ask, Opening, Tell};

/// Between two calls: the first pause, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// How long one step of a pause is.
const STEP: Duration = Duration::from_millis(100);

/// What calls another hub.
pub(crate) struct Follower {
    /// The share here.
    pub(crate) share: Arc<Share>,
    /// Its name at both hubs.
    pub(crate) name: String,
    /// As whom it calls.
    pub(crate) device: Device,
    /// The other hub.
    pub(crate) address: Address,
    /// Where a line about what happens goes.
    pub(crate) say: Say,
}

/// Begins to follow, until the share ends.
pub(crate) fn begin(follower: Follower) -> Result<(), Failure> {
    let work = move || follower.stay();
    let started = std::thread::Builder::new()
        .name("follow".into())
        .spawn(work);
    started
        .map(drop)
        .map_err(|e| Failure::new(1900, Exit::Failed, "start a thread").why(e.to_string()))
}

impl Follower {
    fn stay(&self) {
        let mut pause = PAUSE.0;
        let mut said = String::new();
        while !self.share.is_over() {
            match self.call() {
                Ok(()) => {
                    pause = PAUSE.0;
                    said.clear();
                }
                Err(failure) => {
                    let text = format!("{}: {}", failure.what, failure.why);
                    // What goes on is said once.
                    if text != said {
                        (self.say)(&format!(
                            "away    {} for {}: {text}",
                            self.address, self.name
                        ));
                        said = text;
                    }
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
            self.rest(pause);
        }
    }

    fn rest(&self, pause: Duration) {
        let mut left = pause;
        while !left.is_zero() && !self.share.is_over() {
            let step = left.min(STEP);
            std::thread::sleep(step);
            left -= step;
        }
    }

    /// Calls once, unless the other has called; returns when that is over.
    fn call(&self) -> Result<(), Failure> {
        let known = self.device.known()?;
        let device: Option<DeviceId> = known.get(&self.address).and_then(|k| k.device.parse().ok());
        if device.is_some_and(|device| self.share.was_called_by(device)) {
            return Ok(());
        }
        let link = self.device.call(&self.address)?;
        let at = format!("sync://{}/{}", self.address, self.name);
        request::greet(&link, &at)?;
        let path = request::put_path(self.name.as_ref());
        let Tell::Seen(seen) = request::ask(&link, &at, &Ask::Look { path: path.clone() })? else {
            return Err(odd(&at));
        };
        if !seen.is_in(self.share.id()) {
            return Err(another_share(&self.name));
        }
        let opening = Opening {
            path,
            share: self.share.id().to_string(),
            new: false,
            label: String::from("hub"),
            location: at.clone(),
            mirror: false,
            allow_empty: false,
            create: false,
            preview: false,
            caller: self.share.card(),
        };
        let Tell::Opened(card) = request::ask(&link, &at, &Ask::Open(Box::new(opening)))? else {
            return Err(odd(&at));
        };
        let guest = Guest {
            device: device.ok_or_else(|| odd(&at))?,
            name: self.address.to_string(),
            link,
            way: Way::Calls,
        };
        let ready = |_| (self.say)(&format!("here    {} for {}", self.address, self.name));
        let end = self.share.receive(guest, Right::Write, &card, ready)?;
        (self.say)(&format!(
            "gone    {} for {}: {}",
            self.address,
            self.name,
            end.chain()
        ));
        Ok(())
    }
}
