//! A directory on this machine as a replica.
//!
//! ```text
//! look    scan.rs   disk against index, in parallel, nothing written
//! record  record.rs findings become dots and rows
//! apply   apply.rs  actions, each after its precondition; replace.rs is the one place where user data
//!                   is displaced
//!         attributes.rs  owner and extended attributes, where they are carried: read by a look, given by
//!                   an action
//! barrier replica.rs  data, names, then the index survive a power cut
//! ```
//!
//! Invariants: nothing a user wrote is ever unlinked, only renamed into our own directory; the index is
//! committed after the disk; a counter is used only after its block is durable; below the root everything
//! goes through open directories.
//!
//! Start with [`replica::LocalReplica`]. [`root`] decides which directory is which replica.
#![forbid(unsafe_code)]

mod adopt;
pub mod apply;
mod attributes;
mod begun;
mod below;
mod check;
pub mod content;
mod draft;
pub mod groups;
pub mod index;
mod judge;
mod lately;
pub mod moves;
mod observe;
pub mod print;
mod prune;
mod reading;
pub mod record;
pub mod recover;
mod relist;
pub mod replace;
pub mod replica;
pub mod root;
pub mod rules;
pub mod scan;
mod settle;
mod spelling;
mod touched;
pub mod trash;
pub mod tree;
mod unjudged;
pub mod watch;

pub use replica::{LocalReplica, Parts, Settings};
pub use root::{Inspection, OpenOptions, ShareChoice};
pub use rules::IgnoreOptions;
