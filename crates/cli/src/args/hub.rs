//! Arguments of the commands that speak to hubs, and of the one that runs one.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::Session;
use crate::commands::serve::Wanted;
use crate::far::hubs::Address;
use crate::hub::rights::Right;
use crate::quantity;

/// `serve`.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Keep everything in this directory
    #[arg(long, value_name = "DIR", env = "INSTEP_DATA", hide_env_values = true)]
    pub(crate) data: Option<PathBuf>,
    /// Listen at this address and port
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "0.0.0.0:8477",
        env = "INSTEP_LISTEN",
        hide_env_values = true
    )]
    pub(crate) listen: std::net::SocketAddr,
    /// Keep a share in a folder of yours instead of the hub's directory: NAME=FOLDER
    #[arg(long, value_name = "NAME=FOLDER", value_parser = Wanted::parse)]
    pub(crate) folder: Vec<Wanted>,
    /// Keep what another hub invites to together with it: asks for the code
    #[arg(long, value_name = "HOST", value_parser = hub)]
    pub(crate) join: Vec<Address>,
    /// How this hub gets in there.
    #[command(flatten)]
    pub(crate) entry: Entry,
}

/// `share`.
#[derive(Debug, Args)]
pub(crate) struct Share {
    /// What to do
    #[command(subcommand)]
    pub(crate) what: ShareCommand,
}

/// Which hub is meant.
#[derive(Debug, Clone, Args)]
pub(crate) struct AtHub {
    /// The hub; the only one that this device knows unless given
    #[arg(long, value_name = "HOST", value_parser = hub)]
    pub(crate) hub: Option<Address>,
    /// The hub that runs on this machine with this directory
    #[arg(
        long,
        value_name = "DIR",
        conflicts_with = "hub",
        env = "INSTEP_DATA",
        hide_env_values = true
    )]
    pub(crate) data: Option<PathBuf>,
}

/// Where a code comes from, and what this device is to be called.
#[derive(Debug, Clone, Args)]
pub(crate) struct Entry {
    /// Read the code of the invitation from this file instead of asking for it
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// What this device is to be called at the hub; USER@MACHINE unless given
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
}

/// `share …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ShareCommand {
    /// Have the hub keep a folder as a share, and keep the folder equal to it, live
    Add {
        /// What the share is called
        #[arg(value_name = "NAME")]
        share: String,
        /// The folder
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
        /// Which hub.
        #[command(flatten)]
        at: AtHub,
        /// How this device gets in, where the hub does not know it.
        #[command(flatten)]
        entry: Entry,
        /// The rest.
        #[command(flatten)]
        session: Session,
    },
    /// Print a code with which somebody may join
    Invite(Invite),
    /// List the shares that this device may see
    Ls {
        /// Which hub.
        #[command(flatten)]
        at: AtHub,
    },
    /// List who takes part
    Members {
        /// In which share; without one, everybody at the hub
        #[arg(value_name = "NAME")]
        share: Option<String>,
        /// Which hub.
        #[command(flatten)]
        at: AtHub,
    },
    /// Give a member another role
    Set {
        /// In which share
        #[arg(value_name = "NAME")]
        share: String,
        /// Who, by name or device
        #[arg(value_name = "MEMBER")]
        member: String,
        /// Which role
        #[arg(long, value_name = "ROLE")]
        role: Right,
        /// Which hub.
        #[command(flatten)]
        at: AtHub,
    },
    /// Take a member out of a share
    Evict {
        /// Out of which share
        #[arg(value_name = "NAME")]
        share: String,
        /// Who, by name or device
        #[arg(value_name = "MEMBER")]
        member: String,
        /// Which hub.
        #[command(flatten)]
        at: AtHub,
    },
    /// Have the hub read everything that it keeps of a share again, and say what is damaged
    Verify {
        /// Which share
        #[arg(value_name = "NAME")]
        share: String,
        /// Which hub.
        #[command(flatten)]
        at: AtHub,
    },
    /// Have the hub forget a device: its sessions end at once
    Revoke {
        /// Who, by name or device
        #[arg(value_name = "MEMBER")]
        member: String,
        /// Which hub.
        #[command(flatten)]
        at: AtHub,
    },
    /// Have the hub keep a share no longer; its files stay on the hub's disk and in every folder
    Rm {
        /// Which share
        #[arg(value_name = "NAME")]
        share: String,
        /// Which hub.
        #[command(flatten)]
        at: AtHub,
    },
}

/// `share invite`.
#[derive(Debug, Args)]
pub(crate) struct Invite {
    /// Into which share
    #[arg(value_name = "NAME", required_unless_present = "admin")]
    pub(crate) share: Option<String>,
    /// What they may do
    #[arg(long, value_name = "ROLE", default_value = "write")]
    pub(crate) role: Right,
    /// Invite somebody who may do everything at the hub
    #[arg(long, conflicts_with_all = ["share", "role"])]
    pub(crate) admin: bool,
    /// How often the code can be used; a wrong guess is a use
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) uses: u32,
    /// How long the code holds: 10m, 24h, at most 720h
    #[arg(long, value_name = "DUR", default_value = "10m", value_parser = quantity::duration)]
    pub(crate) expires: Duration,
    /// Write the code to this file, which must not exist, instead of printing it
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Which hub.
    #[command(flatten)]
    pub(crate) at: AtHub,
}

/// `join`.
#[derive(Debug, Args)]
pub(crate) struct Join {
    /// The hub
    #[arg(value_name = "HOST", value_parser = hub)]
    pub(crate) hub: Address,
    /// The folder that is to take part; it is made where it is missing
    #[arg(long, value_name = "FOLDER")]
    pub(crate) to: Option<PathBuf>,
    /// How this device gets in.
    #[command(flatten)]
    pub(crate) entry: Entry,
    /// The rest.
    #[command(flatten)]
    pub(crate) session: Session,
}

fn hub(text: &str) -> Result<Address, String> {
    let bare = text.strip_prefix("sync://").unwrap_or(text);
    let bare = bare.strip_suffix('/').unwrap_or(bare);
    Address::parse(bare).ok_or_else(|| "a hub is HOST or HOST:PORT".to_owned())
}
