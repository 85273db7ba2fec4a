//! Folders on other machines: reached, opened by the program there, and seen from here.
//!
//! ```text
//! request    what one side asks the other before rows are told
//! caller     the side that starts the other, and comes back     agent   the side that is started
//! ssh        starts the program on another machine              agents  how it is kept there
//! unreached  why it could not be started                        heard   what was said meanwhile
//! hubs       hubs that this device knows, and how it calls them
//! relay      leads a caller to the session that runs there      guests  callers of a session that runs here
//! news       what is shown of the other side while both take part
//! ```
//!
//! Invariant: each side writes only its own folders.

pub(crate) mod agent;
mod agents;
pub(crate) mod caller;
pub(crate) mod guests;
pub(crate) mod heard;
pub(crate) mod hubs;
mod news;
mod relay;
pub(crate) mod request;
pub(crate) mod ssh;
mod unreached;

use std::sync::Arc;

use instep_core::attributes::Carried;
use instep_core::id::{ActorId, ReplicaId, ShareId};
use instep_core::policy::Role;
use instep_remote::observed::{Introduction, Observed};
use instep_remote::published::Published;
use instep_replica::{Capabilities, Description, Replica};

/// What was learnt of a replica at the far end.
#[derive(Debug, Clone)]
pub(crate) struct Met {
    pub(crate) replica: ReplicaId,
    pub(crate) actor: ActorId,
    pub(crate) label: String,
    pub(crate) location: String,
    pub(crate) fs_type: String,
    pub(crate) role: Role,
    pub(crate) new: bool,
    /// What is worth knowing before anything happens.
    pub(crate) notes: Vec<String>,
}

/// A replica at the far end as the engine here sees it, beside the one whose changes it is told.
pub(crate) fn observed(met: &Met, share: ShareId, ours: &Arc<Published>) -> Arc<Observed> {
    let introduction = Introduction {
        id: met.replica,
        actor: met.actor,
        share,
        description: Description {
            label: met.label.clone(),
            location: met.location.clone(),
            fs_type: met.fs_type.clone(),
            role: met.role,
            new: met.new,
            notes: met.notes.clone(),
        },
        capabilities: Capabilities {
            writable: false,
            observed: true,
            edited: true,
            hints: true,
            strong_replace: true,
            reflink: false,
            modes: true,
            carried: Carried::default(),
            links: true,
            case_sensitive: true,
        },
    };
    let ours = Arc::clone(ours) as Arc<dyn Replica>;
    Arc::new(Observed::new(introduction, ours))
}
