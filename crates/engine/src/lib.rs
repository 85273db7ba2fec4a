//! One cycle for any number of replicas.
//!
//! ```text
//! hints ─┐
//! look ──┴─> record (dots minted) ─> reconcile (pure) ─> stage, apply ─> barrier ─> settled
//! ```
//!
//! The engine names no implementation of [`instep_replica::Replica`], does no I/O of its own and prints
//! nothing: it reports [`report::Event`]s to whoever listens and takes [`command::Command`]s from whoever
//! may give them. Time, randomness and threads come from [`instep_replica::env::Env`].
//!
//! Invariants: an action is planned only from rows; whatever was not done is planned again; a replica that
//! fails stops nobody else.
//!
//! Start with [`session`]; one turn of the wheel is in `cycle`.
#![forbid(unsafe_code)]

mod answer;
mod burst;
pub mod checks;
pub mod command;
mod conflicts;
mod cycle;
mod damage;
pub mod drift;
mod holds;
mod lost;
mod meeting;
mod moves;
mod newcomers;
mod plan;
mod presence;
pub mod preview;
mod problems;
mod rejoin;
pub mod report;
mod repositories;
mod room;
pub mod session;
mod settlement;
pub mod sizes;
mod transfer;
mod upkeep;

pub use session::{Handle, Session, SessionError, SessionOptions};
