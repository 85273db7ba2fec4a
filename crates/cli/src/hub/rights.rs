//! Who may do what at a hub: its shares, its members and their rights, as a value.
//!
//! How it is kept is the business of [`super::data`]. Invariant: whoever is not in it may do nothing; a name stands for
//! one share and for one member.

use std::collections::{BTreeMap, BTreeSet};

use instep_core::id::ShareId;
use instep_wire::identity::DeviceId;
use serde::{Deserialize, Serialize};

use crate::far::hubs::Address;

/// What a member may do with a share. Each includes those before it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Right {
    /// Receive what others change
    Read,
    /// Change, too
    Write,
    /// Invite others, and take their rights away
    Admin,
}

impl Right {
    /// As people write it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

/// A device that is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// What people call it.
    pub(crate) name: String,
    /// It may do everything at this hub.
    pub(crate) admin: bool,
    /// What it may do, by share.
    pub(crate) rights: BTreeMap<String, Right>,
}

/// Who asks something of a hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// The user whose hub it is, at its own machine.
    Owner,
    /// A device that has proved who it is.
    Device(DeviceId),
}

/// What an invitation gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Grant {
    /// Everything at this hub.
    Hub,
    /// A right to a share.
    Share(String, Right),
}

/// A share that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// Its identity.
    pub(crate) id: String,
    /// The folder that is the hub's copy, where that is one of the user's: its path's bytes in hexadecimal.
    #[serde(default)]
    pub(crate) folder: Option<String>,
    /// Other hubs that keep it, too, and are called from here.
    #[serde(default)]
    pub(crate) follows: BTreeSet<Address>,
}

impl Kept {
    /// A share of which the hub's copy is in the hub's own directory.
    pub(crate) fn new(id: impl ToString) -> Self {
        Self {
            id: id.to_string(),
            folder: None,
            follows: BTreeSet::new(),
        }
    }
}

/// Why something cannot be written in the book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Another share has the name.
    Taken,
    /// The share is kept here under another name.
    KeptAs(String),
    /// It cannot be a name.
    BadName,
    /// There is no such share.
    NoShare,
    /// There is no such member.
    NoMember,
    /// Nobody would be left who may do everything.
    LastAdmin,
}

/// Everything that a hub knows of shares and members.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Book {
    members: BTreeMap<String, Member>,
    shares: BTreeMap<String, Kept>,
}

/// The longest name of a share or a member.
const NAME_MAX: usize = 64;

/// Whether a text can be the name of a share: it is part of addresses and of file names.
pub(crate) fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    let begins = text.chars().next().is_some_and(char::is_alphanumeric);
    begins && text.chars().all(plain) && text.len() <= NAME_MAX
}

impl Book {
    /// Whether every identity in it is one. What a person may have edited is checked before it is gone by.
    pub(crate) fn is_sound(&self) -> bool {
        let devices = self.members.keys().all(|d| d.parse::<DeviceId>().is_ok());
        let id = |kept: &Kept| kept.id.parse::<ShareId>().is_ok();
        devices
            && self
                .shares
                .iter()
                .all(|(name, kept)| is_name(name) && id(kept))
    }

    /// The shares, by name.
    pub(crate) fn shares(&self) -> impl Iterator<Item = (&str, &Kept)> {
        self.shares.iter().map(|(name, kept)| (name.as_str(), kept))
    }

    /// The members, by device.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&str, &Member)> {
        let members = self.members.iter();
        members.map(|(device, member)| (device.as_str(), member))
    }

    /// A share.
    pub(crate) fn share(&self, name: &str) -> Option<&Kept> {
        self.shares.get(name)
    }

    /// A member.
    pub(crate) fn member(&self, device: DeviceId) -> Option<&Member> {
        self.members.get(&device.to_string())
    }

    /// Whether somebody may do everything.
    pub(crate) fn has_admin(&self) -> bool {
        self.members.values().any(|m| m.admin)
    }

    /// What somebody may do with a share.
    pub(crate) fn right(&self, caller: Caller, share: &str) -> Option<Right> {
        let Caller::Device(device) = caller else {
            return Some(Right::Admin);
        };
        let member = self.member(device)?;
        let own = member.rights.get(share).copied();
        if member.admin {
            Some(Right::Admin)
        } else {
            own
        }
    }

    /// Whether somebody may do everything.
    pub(crate) fn is_admin(&self, caller: Caller) -> bool {
        match caller {
            Caller::Owner => true,
            Caller::Device(device) => self.member(device).is_some_and(|m| m.admin),
        }
    }

    /// Has a share be kept with another hub, too.
    pub(crate) fn follow(&mut self, share: &str, address: Address) -> Result<(), Refusal> {
        let kept = self.shares.get_mut(share).ok_or(Refusal::NoShare)?;
        kept.follows.insert(address);
        Ok(())
    }

    /// Adds a share.
    pub(crate) fn add_share(&mut self, name: &str, kept: Kept) -> Result<(), Refusal> {
        if !is_name(name) {
            return Err(Refusal::BadName);
        }
        if let Some(known) = self.shares.get(name) {
            let same = known.id == kept.id;
            return if same { Ok(()) } else { Err(Refusal::Taken) };
        }
        if let Some((other, _)) = self.shares.iter().find(|(_, s)| s.id == kept.id) {
            return Err(Refusal::KeptAs(other.clone()));
        }
        self.shares.insert(name.to_owned(), kept);
        Ok(())
    }

    /// Takes a share out, and everybody's rights to it.
    pub(crate) fn remove_share(&mut self, name: &str) -> Result<Kept, Refusal> {
        let kept = self.shares.remove(name).ok_or(Refusal::NoShare)?;
        for member in self.members.values_mut() {
            member.rights.remove(name);
        }
        Ok(kept)
    }

    /// Gives a device what it was invited to. A new one gets the name that it asks for, or one like it.
    pub(crate) fn give(
        &mut self,
        device: DeviceId,
        name: &str,
        grant: &Grant,
    ) -> Result<String, Refusal> {
        if let Grant::Share(share, _) = grant
            && !self.shares.contains_key(share)
        {
            return Err(Refusal::NoShare);
        }
        let id = device.to_string();
        let named = self.free_name(&id, name);
        let member = self.members.entry(id).or_insert_with(|| Member {
            name: named,
            admin: false,
            rights: BTreeMap::new(),
        });
        match grant {
            Grant::Hub => member.admin = true,
            Grant::Share(share, right) => {
                let known = member.rights.entry(share.clone()).or_insert(*right);
                *known = (*known).max(*right);
            }
        }
        Ok(member.name.clone())
    }

    fn free_name(&self, device: &str, wish: &str) -> String {
        let shown = |c: &char| !c.is_control() && !c.is_whitespace();
        let wish: String = wish.chars().filter(shown).take(NAME_MAX).collect();
        let wish = if wish.is_empty() {
            "device".into()
        } else {
            wish
        };
        let mut names = (1u32..).map(|n| match n {
            1 => wish.clone(),
            n => format!("{wish}-{n}"),
        });
        let is_free = |name: &String| {
            let mut others = self.members.iter().filter(|(d, _)| *d != device);
            others.all(|(_, m)| m.name != *name)
        };
        names.find(is_free).unwrap_or(wish)
    }

    /// The device that a person means: by name, or by its identity.
    pub(crate) fn find(&self, text: &str) -> Result<DeviceId, Refusal> {
        let named = self
            .members
            .iter()
            .find(|(d, m)| m.name == text || *d == text);
        let device = named.and_then(|(device, _)| device.parse().ok());
        device.ok_or(Refusal::NoMember)
    }

    /// Sets a member's right to a share; none takes it away.
    pub(crate) fn set(
        &mut self,
        device: DeviceId,
        share: &str,
        right: Option<Right>,
    ) -> Result<(), Refusal> {
        if !self.shares.contains_key(share) {
            return Err(Refusal::NoShare);
        }
        let member = self.members.get_mut(&device.to_string());
        let member = member.ok_or(Refusal::NoMember)?;
        match right {
            Some(right) => member.rights.insert(share.to_owned(), right),
            None => member.rights.remove(share),
        };
        Ok(())
    }

    /// Forgets a device: it may do nothing any more.
    pub(crate) fn revoke(&mut self, device: DeviceId) -> Result<(), Refusal> {
        let id = device.to_string();
        let member = self.members.get(&id).ok_or(Refusal::NoMember)?;
        let mut others = self.members.iter().filter(|(d, _)| **d != id);
        if member.admin && !others.any(|(_, m)| m.admin) {
            return Err(Refusal::LastAdmin);
        }
        self.members.remove(&id);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;

    fn kept(n: u8) -> Kept {
        Kept::new(ShareId([n; 16]))
    }

    fn right(book: &Book, n: u8, share: &str) -> Option<Right> {
        book.right(Caller::Device(device(n)), share)
    }

    fn device(n: u8) -> DeviceId {
        DeviceId([n; 32])
    }

    fn book() -> Book {
        let mut book = Book::default();
        book.add_share("team", kept(1)).unwrap();
        let admin = book.give(device(1), "ada@laptop", &Grant::Hub);
        assert_eq!(admin.unwrap(), "ada@laptop");
        book
    }

    #[test]
    fn whoever_is_not_in_the_book_may_do_nothing() {
        let mut book = book();
        assert_eq!(right(&book, 2, "team"), None);
        let grant = Grant::Share("team".into(), Right::Write);
        book.give(device(2), "bo@desk", &grant).unwrap();
        assert_eq!(right(&book, 2, "team"), Some(Right::Write));
        assert_eq!(right(&book, 2, "other"), None);
        assert_eq!(right(&book, 1, "other"), Some(Right::Admin));
        book.revoke(device(2)).unwrap();
        assert_eq!(right(&book, 2, "team"), None);
    }

    #[test]
    fn an_invitation_never_takes_a_right_away() {
        let mut book = book();
        for right in [Right::Admin, Right::Read] {
            let grant = Grant::Share("team".into(), right);
            book.give(device(2), "bo", &grant).unwrap();
        }
        assert_eq!(right(&book, 2, "team"), Some(Right::Admin));
        book.set(device(2), "team", Some(Right::Read)).unwrap();
        assert_eq!(right(&book, 2, "team"), Some(Right::Read));
    }

    #[test]
    fn two_devices_with_one_name_can_be_told_apart() {
        let mut book = book();
        let grant = Grant::Share("team".into(), Right::Read);
        let second = book.give(device(2), "ada@laptop", &grant).unwrap();
        assert_eq!(second, "ada@laptop-2");
        let again = book.give(device(2), "ada@laptop", &grant).unwrap();
        assert_eq!(again, second, "it keeps the name that it has");
        assert_eq!(book.find(&second), Ok(device(2)));
        assert_eq!(book.find(&device(1).to_string()), Ok(device(1)));
    }

    #[test]
    fn a_name_stands_for_one_share_and_a_share_has_one_name() {
        let mut book = book();
        assert_eq!(book.add_share("team", kept(1)), Ok(()), "added twice");
        assert_eq!(book.add_share("team", kept(2)), Err(Refusal::Taken));
        let other = Refusal::KeptAs("team".into());
        assert_eq!(book.add_share("crew", kept(1)), Err(other));
        for name in ["", ".x", "a/b", "a b", "-n"] {
            assert_eq!(
                book.add_share(name, kept(3)),
                Err(Refusal::BadName),
                "{name}"
            );
        }
    }

    #[test]
    fn the_last_who_may_do_everything_stays() {
        let mut book = book();
        assert_eq!(book.revoke(device(1)), Err(Refusal::LastAdmin));
        book.give(device(2), "bo", &Grant::Hub).unwrap();
        assert_eq!(book.revoke(device(1)), Ok(()));
    }

    #[test]
    fn a_share_that_went_leaves_no_right_to_the_next_of_its_name() {
        let mut book = book();
        let grant = Grant::Share("team".into(), Right::Write);
        book.give(device(2), "bo", &grant).unwrap();
        book.remove_share("team").unwrap();
        book.add_share("team", kept(2)).unwrap();
        assert_eq!(right(&book, 2, "team"), None);
    }
}
