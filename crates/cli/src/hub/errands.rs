//! What a hub does when it is asked: the answers to orders.
//!
//! Invariants: nothing is done before it is clear who asks and what they may; a change of the book is durable before it is
//! answered, and in force when it is.

use std::collections::BTreeMap;
use std::time::Duration;

use instep_core::id::ShareId;
use instep_hub::{Flaw, What};
use instep_wire::identity::DeviceId;

use super::data::Unchanged;
use super::order::{Answer, FlawLine, MemberLine, Order, ShareLine};
use super::reception::Hub;
use super::rights::{Book, Caller, Grant, Kept, Member, Refusal, Right};
use crate::error::{Exit, Failure};

/// Damaged paths of one answer, which has to fit a message.
const FLAWS_MAX: usize = 100;

impl Hub {
    /// Does what somebody asks, if they may.
    pub(super) fn carry_out(&self, caller: Caller, order: Order) -> Result<Answer, Failure> {
        self.allow(caller, &order)?;
        match order {
            Order::Shares => return Ok(self.list_shares(caller)),
            Order::Members { share } => return Ok(self.list_members(share.as_deref())),
            Order::Invite {
                share,
                right,
                uses,
                seconds,
            } => {
                let grant = share.map_or(Grant::Hub, |share| Grant::Share(share, right));
                let code = self.invite(grant, Duration::from_secs(seconds), uses)?;
                let code = code.to_string();
                return Ok(Answer::Invited { code });
            }
            Order::Verify { share } => return self.verify(&share),
            Order::Add { share, id } => self.add(&share, &id)?,
            Order::Remove { share } => self.remove(&share)?,
            Order::Set {
                share,
                member,
                right,
            } => {
                let who = self.change(|book| {
                    let who = book.find(&member)?;
                    book.set(who, &share, right).map(|()| who)
                })?;
                self.dismiss(who);
            }
            Order::Revoke { member } => {
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

    /// Whether somebody may ask this.
    fn allow(&self, caller: Caller, order: &Order) -> Result<(), Failure> {
        let share = match order {
            Order::Shares => return Ok(()),
            Order::Members { share } | Order::Invite { share, .. } => share.as_deref(),
            Order::Verify { share } | Order::Set { share, .. } => Some(share.as_str()),
            Order::Add { .. } | Order::Remove { .. } | Order::Revoke { .. } => None,
        };
        let Some(share) = share else {
            let is_admin = self.data.ask(|book| book.is_admin(caller));
            return if is_admin { Ok(()) } else { Err(no_right()) };
        };
        match self.data.ask(|book| book.right(caller, share)) {
            Some(Right::Admin) => Ok(()),
            Some(_) => Err(no_right()),
            None => Err(no_share(share)),
        }
    }

    fn change<T>(
        &self,
        change: impl FnOnce(&mut Book) -> Result<T, Refusal>,
    ) -> Result<T, Failure> {
        self.data.change(change).map_err(|e| match e {
            Unchanged::Failed(failure) => failure,
            Unchanged::Refused(refusal) => refused(&refusal),
        })
    }

    fn add(&self, name: &str, id: &str) -> Result<(), Failure> {
        let known: Result<ShareId, _> = id.parse();
        known.map_err(|_| no_share(id))?;
        let kept = Kept::new(id);
        // The copy first: a share that is in the book can be opened.
        self.change(|book| book.clone().add_share(name, kept.clone()))?;
        self.open_share(name, &kept)?;
        self.change(|book| book.add_share(name, kept))
    }

    fn remove(&self, name: &str) -> Result<(), Failure> {
        self.change(|book| book.remove_share(name))?;
        let share = self.running().remove(name);
        share.map_or(Ok(()), |share| share.close())
    }

    fn dismiss(&self, device: DeviceId) {
        let shares: Vec<_> = self.running().values().cloned().collect();
        shares.iter().for_each(|share| share.dismiss(device));
    }

    fn verify(&self, name: &str) -> Result<Answer, Failure> {
        let share = self.running().get(name).cloned();
        let share = share.ok_or_else(|| no_share(name))?;
        let store = share.store().ok_or_else(|| {
            Failure::new(
                1071,
                Exit::Usage,
                format!("{name} is kept in a folder of the hub's user"),
            )
            .remedy("instep verify FOLDER   on the hub's machine")
        })?;
        let verified = store.verify(&|| share.is_over()).map_err(Failure::from)?;
        let line = |flaw: &Flaw| FlawLine {
            path: flaw.path.as_ref().map(ToString::to_string),
            content: flaw.content.to_string(),
            what: match &flaw.what {
                What::Missing => "it is not there".to_owned(),
                What::Decayed => "it has other bytes".to_owned(),
                What::Unreadable(why) => why.clone(),
            },
        };
        Ok(Answer::Verified {
            contents: verified.contents,
            bytes: verified.bytes,
            flaws: verified.flaws.iter().take(FLAWS_MAX).map(line).collect(),
            more: verified.flaws.len().saturating_sub(FLAWS_MAX) as u64,
        })
    }

    fn list_shares(&self, caller: Caller) -> Answer {
        let book = self.data.book();
        let running = self.running().clone();
        let line = |(name, kept): (&str, &Kept)| {
            let right = book.right(caller, name)?;
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
        let running = self.running().clone();
        let takes_part = |rights: &BTreeMap<String, Right>, admin: bool| match share {
            Some(share) => admin || rights.contains_key(share),
            None => true,
        };
        let members = book
            .members()
            .filter(|(_, m)| takes_part(&m.rights, m.admin));
        let line = |(device, m): (&str, &Member)| {
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

/// Whoever may not see a share is not told whether there is one.
pub(crate) fn no_share(name: &str) -> Failure {
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

/// Why the book cannot say something.
pub(crate) fn refused(refusal: &Refusal) -> Failure {
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
