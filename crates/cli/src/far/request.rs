//! What the two sides settle before rows are told: which folder, which share, who takes part.
//!
//! One JSON object each, in a status message. Invariant: whatever arrives is data; no path and no name of it is ever
//! part of a command.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use instep_core::id::{ActorId, ReplicaId, ShareId};
use instep_core::policy::Role;
use instep_replica::records::hex;
use instep_wire::link::Link;
use instep_wire::message::{Hello, Message};
use serde::{Deserialize, Serialize};

use super::Met;
use super::news::News;
use crate::error::{Exit, Failure};
use crate::hub::order::{Answer, Order};
use crate::roots::{Inspection, Membership};

/// How long an answer may take: a folder may be on a disk that has to wake.
const PATIENCE: Duration = Duration::from_mins(2);

/// What the caller asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub(crate) enum Ask {
    /// What is at a path.
    Look {
        /// The path's bytes in hexadecimal; relative to the home directory.
        path: String,
    },
    /// To take part with a folder from now on.
    Open(Box<Opening>),
    /// Something of a hub.
    Order(Order),
}

/// How a folder takes part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Opening {
    /// The path's bytes in hexadecimal.
    pub(crate) path: String,
    /// The share.
    pub(crate) share: String,
    /// It is a new one.
    pub(crate) new: bool,
    /// What people call the folder.
    pub(crate) label: String,
    /// Where it is, as the user typed it.
    pub(crate) location: String,
    /// It is the target of a mirror.
    pub(crate) mirror: bool,
    /// The mirror may empty it.
    pub(crate) allow_empty: bool,
    /// It is made where it is missing.
    pub(crate) create: bool,
    /// It is only shown what would happen.
    #[serde(default)]
    pub(crate) preview: bool,
    /// Who asks.
    pub(crate) caller: Card,
}

/// One replica's introduction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Card {
    pub(crate) replica: String,
    pub(crate) actor: String,
    pub(crate) label: String,
    pub(crate) location: String,
    pub(crate) fs_type: String,
    pub(crate) new: bool,
    /// Nothing that the other says is taken in.
    #[serde(default)]
    pub(crate) reads_only: bool,
}

/// What the side that was started answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "tell", rename_all = "kebab-case")]
pub(crate) enum Tell {
    /// What is at the path.
    Seen(Box<Seen>),
    /// The folder takes part.
    Opened(Card),
    /// What a hub was asked.
    Answered(Answer),
    /// It cannot.
    Failed(Box<Trouble>),
    /// What the other side's user is shown.
    News(News),
}

/// What one look at a folder said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    path: String,
    exists: bool,
    is_dir: bool,
    unreadable: Option<String>,
    unwritable: Option<String>,
    foreign: Option<String>,
    holder: Option<String>,
    bare: bool,
    empty: bool,
    memberships: Vec<Part>,
}

/// That a folder is in a share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    share: String,
    replica: String,
    role: String,
    mirror: bool,
    label: String,
    members: Vec<(String, String)>,
}

/// A failure as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trouble {
    code: u16,
    exit: u8,
    what: String,
    why: String,
    effect: String,
    remedy: Vec<String>,
}

fn role_word(role: Role) -> &'static str {
    match role {
        Role::Both => "both",
        Role::Source => "source",
        Role::Target => "target",
    }
}

fn role(word: &str) -> Role {
    match word {
        "source" => Role::Source,
        "target" => Role::Target,
        _ => Role::Both,
    }
}

/// A path as it travels.
pub(crate) fn put_path(path: &Path) -> String {
    hex(path.as_os_str().as_bytes())
}

/// A path that came; nothing, where it is none.
pub(crate) fn take_path(text: &str) -> Option<PathBuf> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || digits.is_empty() || digits.len() > 16 * 1024 {
        return None;
    }
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
    let bytes = bytes.filter(|b| !b.contains(&0))?;
    Some(PathBuf::from(OsString::from_vec(bytes)))
}

impl Seen {
    /// As seen by whoever holds it.
    pub(crate) fn free(self) -> Self {
        let holder = None;
        Self { holder, ..self }
    }

    /// Of a look.
    pub(crate) fn of(seen: &Inspection, empty: bool) -> Self {
        let part = |m: &Membership| Part {
            share: m.share.to_string(),
            replica: m.replica.to_string(),
            role: role_word(m.role).into(),
            mirror: m.mirror,
            label: m.label.clone(),
            members: m
                .members
                .iter()
                .map(|(label, at)| (label.clone(), put_path(at)))
                .collect(),
        };
        Self {
            path: put_path(&seen.path),
            exists: seen.exists,
            is_dir: seen.is_dir,
            unreadable: seen.unreadable.clone(),
            unwritable: seen.unwritable.clone(),
            foreign: seen.foreign.clone(),
            holder: seen.holder.clone(),
            bare: seen.bare,
            empty,
            memberships: seen.memberships.iter().map(part).collect(),
        }
    }

    /// Of a share that a hub keeps.
    pub(crate) fn share(name: &str, share: &str, replica: ReplicaId, empty: bool) -> Self {
        let part = Part {
            share: share.to_owned(),
            replica: replica.to_string(),
            role: role_word(Role::Both).into(),
            mirror: false,
            label: String::from("hub"),
            members: Vec::new(),
        };
        Self {
            path: put_path(Path::new(name)),
            exists: true,
            is_dir: true,
            unreadable: None,
            unwritable: None,
            foreign: None,
            holder: None,
            bare: false,
            empty,
            memberships: vec![part],
        }
    }

    /// It is in this share.
    pub(crate) fn is_in(&self, share: ShareId) -> bool {
        let share = share.to_string();
        self.memberships
            .iter()
            .any(|m| !m.mirror && m.share == share)
    }

    /// Nothing that would be synchronized is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.empty
    }

    /// As if it were a look here, of what the user typed.
    pub(crate) fn inspection(self, typed: &Path) -> Option<Inspection> {
        let part = |p: Part| {
            let at = |(label, at): (String, String)| Some((label, take_path(&at)?));
            Some(Membership {
                share: p.share.parse().ok()?,
                replica: p.replica.parse().ok()?,
                role: role(&p.role),
                mirror: p.mirror,
                label: p.label,
                members: p.members.into_iter().filter_map(at).collect(),
            })
        };
        let memberships: Option<Vec<_>> = self.memberships.into_iter().map(part).collect();
        Some(Inspection {
            path: typed.to_owned(),
            exists: self.exists,
            is_dir: self.is_dir,
            identity: None,
            unreadable: self.unreadable,
            unwritable: self.unwritable,
            foreign: self.foreign,
            memberships: memberships?,
            holder: self.holder,
            bare: self.bare,
        })
    }
}

impl Card {
    /// Of a replica here.
    pub(crate) fn of(replica: &dyn instep_replica::Replica) -> Self {
        let described = replica.describe();
        Self {
            replica: replica.id().to_string(),
            actor: replica.actor().to_string(),
            label: described.label,
            location: described.location,
            fs_type: described.fs_type,
            new: described.new,
            reads_only: false,
        }
    }

    /// What it says, if that can be.
    pub(crate) fn met(&self, role: Role) -> Option<Met> {
        let replica: ReplicaId = self.replica.parse().ok()?;
        let actor: ActorId = self.actor.parse().ok()?;
        Some(Met {
            replica,
            actor,
            label: self.label.clone(),
            location: self.location.clone(),
            fs_type: self.fs_type.clone(),
            role,
            new: self.new,
            notes: self
                .reads_only
                .then(|| "this device may read only: what is changed here stays here".to_owned())
                .into_iter()
                .collect(),
        })
    }
}

impl Trouble {
    /// Of a failure here.
    pub(crate) fn of(failure: &Failure) -> Self {
        Self {
            code: failure.code,
            exit: failure.exit.number(),
            what: failure.what.clone(),
            why: failure.why.clone(),
            effect: failure.effect.clone(),
            remedy: failure.remedy.clone(),
        }
    }

    /// As a failure here, of a folder there.
    pub(crate) fn failure(self, at: &str) -> Failure {
        let exits = [
            Exit::Usage,
            Exit::Unreachable,
            Exit::Denied,
            Exit::InUse,
            Exit::Damage,
            Exit::Incompatible,
            Exit::NoSpace,
        ];
        let exit = exits.into_iter().find(|e| e.number() == self.exit);
        let exit = exit.unwrap_or(Exit::Failed);
        let mut failure = Failure::new(self.code, exit, format!("{at}: {}", self.what))
            .why(self.why)
            .effect(self.effect);
        for step in self.remedy {
            failure = failure.remedy(step);
        }
        failure
    }
}

/// Greets, and is greeted: the versions are known to fit after this.
pub(crate) fn greet(link: &Link, at: &str) -> Result<(), Failure> {
    let none = Hello::new(ShareId([0; 16]), ReplicaId([0; 16]), ActorId([0; 8]));
    let said = link.send(&Message::Hello(Box::new(none)));
    said.map_err(|e| super::unreached::broken(at, &e))?;
    match link.recv(PATIENCE) {
        Ok(Some(Message::Hello(_))) => Ok(()),
        Ok(_) => Err(silent(at)),
        Err(e) => Err(super::unreached::broken(at, &e)),
    }
}

fn silent(at: &str) -> Failure {
    Failure::new(1040, Exit::Unreachable, format!("{at} does not answer"))
        .why("the program there was started and says nothing")
        .remedy("try again")
}

/// Asks, and waits for the answer.
pub(crate) fn ask(link: &Link, at: &str, ask: &Ask) -> Result<Tell, Failure> {
    let text = serde_json::to_string(ask).unwrap_or_default();
    let sent = link.send(&Message::Status(text));
    sent.map_err(|e| super::unreached::broken(at, &e))?;
    match link.recv(PATIENCE) {
        Ok(Some(Message::Status(text))) => match serde_json::from_str(&text) {
            Ok(Tell::Failed(trouble)) => Err(trouble.failure(at)),
            Ok(told) => Ok(told),
            Err(_) => Err(silent(at)),
        },
        Ok(_) => Err(silent(at)),
        Err(e) => Err(super::unreached::broken(at, &e)),
    }
}

/// What is asked next; nothing, when the caller has hung up.
pub(crate) fn asked(link: &Link) -> Option<Ask> {
    loop {
        match link.recv(Duration::from_mins(10)) {
            Ok(Some(Message::Status(text))) => return serde_json::from_str(&text).ok(),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return None,
        }
    }
}

/// Answers.
pub(crate) fn tell(link: &Link, tell: &Tell) {
    let text = serde_json::to_string(tell).unwrap_or_default();
    // Whoever asked and hung up is not told.
    let _gone = link.send(&Message::Status(text));
}
