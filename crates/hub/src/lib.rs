//! A share's copy without a working directory, where many replicas meet.
//!
//! [`HubReplica`] is a [`instep_replica::Replica`] that only an engine writes. What it shows is what its rows say, and
//! what they show lies in a directory of chunks. Everything that it ever showed stays reachable until retention takes
//! it.
//!
//! ```text
//! DATA/shares/<share>/
//!   hub.json      the marker: which replica of which share lives here     identity
//!   lock          who has it                                              open
//!   index.db      rows, books, counters                                   index, state, books
//!   contents.db   of which chunks each content is made; history           contents, history
//!   chunks/ab/    bytes under their hash                                  chunks, intake, reader, begun
//!   staging/      chunks that wait for a flush
//!   damaged/      chunks that decayed, for a person
//! ```
//!
//! Carrying out: `carry`, `act`, `moves`, `kept`, `look`. After a death: `recover`. In the long run: `retention`, `gc`, `verify`.
//!
//! Invariants: a chunk is durable before the row that shows it is; a content is listed after its chunks came and
//! forgotten before they go; nothing that is read has another hash than its name; nothing displaced is copied or lost.
#![forbid(unsafe_code)]

mod act;
mod begun;
mod books;
mod carry;
mod chunks;
mod contents;
mod gc;
mod history;
mod identity;
mod index;
mod intake;
mod kept;
mod look;
mod manifest;
mod moves;
mod open;
mod reader;
mod recover;
mod replica;
mod retention;
mod state;
mod verify;

pub use gc::Collected;
pub use history::Shown;
pub use open::HubOptions;
pub use replica::{Guard, HubReplica, Parts};
pub use retention::Retention;
pub use verify::{Flaw, Verified, What};
