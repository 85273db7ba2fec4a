//! Replicas at the far end of a connection.
//!
//! Every machine writes only its own replicas. What crosses a connection is what each side's replica knows (its rows),
//! what is written in its books, and contents that somebody asks for:
//!
//! ```text
//!  this machine                                            that machine
//!  engine ── Published(local) ──> Teller ══ rows ══> Listener ──> mirror ── Observed ── engine
//!        └── Observed <── mirror <── Listener <══ rows ══ Teller <── Published(local)
//! ```
//!
//! [`Published`] wraps a local replica and notes what changes; [`Observed`] is the far one as a
//! [`instep_replica::Replica`] that is never written here. Both sides run the same engine with the same rules, so that
//! both come to the same end by themselves.
//!
//! Invariants: what the mirror says was said by the far end; nothing is concluded from what it does not say before it
//! has caught up; whatever is lost with a connection is found again by comparing digests.
#![forbid(unsafe_code)]

pub mod conversation;
pub mod digest;
pub mod listener;
pub mod manifests;
pub mod mirror;
pub mod observed;
pub mod published;
mod report;
pub mod say;
pub mod shelf;
pub mod teller;
pub mod told;
pub mod whereabouts;
#[cfg(feature = "wire")]
pub mod wired;

mod judged;
#[cfg(feature = "wire")]
mod manifest;
#[cfg(feature = "wire")]
mod sending;
#[cfg(feature = "wire")]
mod splice;

pub use conversation::{Conversation, Line};
pub use digest::{Digests, Prefix};
pub use listener::Listener;
pub use mirror::Mirror;
pub use observed::Observed;
pub use published::Published;
pub use say::Say;
pub use teller::Teller;
