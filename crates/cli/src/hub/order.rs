//! What people ask of a hub, and what it answers: values that travel as JSON.
//!
//! Invariant: whether somebody may ask it is decided by the hub alone, from its book and the device that asked.

use serde::{Deserialize, Serialize};

use super::rights::Right;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "kebab-case")]
pub(crate) enum Order {
    /// The shares that the device may see.
    Shares,
    /// To keep another share.
    Add {
        /// Its name at the hub.
        share: String,
        /// Its identity.
        id: String,
    },
    /// To keep a share no longer. What the hub had stays on its disk.
    Remove {
        /// Which.
        share: String,
    },
    /// A code for somebody who is to take part.
    Invite {
        /// In which share; none for the whole hub.
        share: Option<String>,
        /// What they may do.
        right: Right,
        /// How often the code can be used.
        uses: u32,
        /// For how many seconds.
        seconds: u64,
    },
    /// Who takes part in a share.
    Members {
        /// Which; none for everybody.
        share: Option<String>,
    },
    /// To give a member another right.
    Set {
        /// To which share.
        share: String,
        /// Who, by name or device.
        member: String,
        /// Which; none takes it away.
        right: Option<Right>,
    },
    /// To read everything that the hub keeps of a share again, and to say what is damaged.
    Verify {
        /// Which.
        share: String,
    },
    /// To forget a device.
    Revoke {
        /// Who, by name or device.
        member: String,
    },
}

/// A share, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShareLine {
    /// Its name.
    pub(crate) name: String,
    /// Its identity.
    pub(crate) id: String,
    /// What whoever asks may do.
    pub(crate) right: Right,
    /// Who is connected now, by name.
    pub(crate) connected: Vec<String>,
}

/// A member, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MemberLine {
    /// What people call it.
    pub(crate) name: String,
    /// Its identity.
    pub(crate) device: String,
    /// It may do everything at the hub.
    pub(crate) admin: bool,
    /// Its rights, by share.
    pub(crate) rights: Vec<(String, Right)>,
    /// It is connected now.
    pub(crate) connected: bool,
}

/// A path of which the hub's copy is damaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FlawLine {
    /// Where; nothing, for what is in no version of a path.
    pub(crate) path: Option<String>,
    /// The content.
    pub(crate) content: String,
    /// What is wrong.
    pub(crate) what: String,
}

/// What a hub answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// Shares.
    Shares {
        /// By name.
        shares: Vec<ShareLine>,
    },
    /// Members.
    Members {
        /// By name.
        members: Vec<MemberLine>,
    },
    /// An invitation.
    Invited {
        /// The code, as it is read to somebody.
        code: String,
    },
    /// What reading everything again showed.
    Verified {
        /// Contents that were read.
        contents: u64,
        /// Bytes that were read.
        bytes: u64,
        /// What is damaged; at most so many as fit.
        flaws: Vec<FlawLine>,
        /// More than that.
        more: u64,
    },
    /// It is done, durably.
    Done,
}

/// What a device says of itself when it joins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Joining {
    /// What it would like to be called.
    pub(crate) name: String,
}

/// What it is told when it was believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Joined {
    /// What it is called.
    pub(crate) you: String,
    /// The share that it may take part in; none for the whole hub.
    pub(crate) share: Option<String>,
    /// What it may do there.
    pub(crate) right: Right,
    /// Why it may do nothing after all.
    pub(crate) refused: Option<String>,
}
