//! A hub: a machine where the replicas of shares meet.
//!
//! ```text
//! rights     who may do what, as a value          order      what people ask of a hub, and what it answers
//! data       the hub's directory                  share      one share that is kept here, and who is connected to it
//! reception  those who call: known devices, those who have a code, and what becomes of them
//! desk       where people at the hub's own machine ask it       follow     shares that are kept with another hub, too
//! ```
//!
//! Invariants: what is not written in the hub's book is not allowed, and the book is durable before anybody is told; each
//! share is a session of the same engine that keeps folders equal, with its clients as replicas that are observed.

pub(crate) mod data;
pub(crate) mod desk;
pub(crate) mod errands;
pub(crate) mod follow;
pub(crate) mod order;
pub(crate) mod reception;
pub(crate) mod rights;
pub(crate) mod share;

/// Where a hub listens unless it is told otherwise.
pub(crate) const PORT: u16 = 8477;
