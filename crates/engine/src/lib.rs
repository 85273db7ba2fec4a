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
//! Start with [`session`].
#![forbid(unsafe_code)]

pub mod command;
pub mod report;
