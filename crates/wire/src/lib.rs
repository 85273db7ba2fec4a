//! The protocol between machines: identities, encryption, messages, frames, connections.
//!
//! The only crate that knows gRPC, TLS and a runtime. Whoever uses it calls blocking functions on threads and sees
//! plain values: [`link::Link`] for messages and contents, [`message`] for what is said, [`identity`] for who says it.
//!
//! Invariants: there is no connection without both keys pinned and proved, or an operating system that vouches for the
//! far end; nothing that a peer sends raises a limit; nobody waits for ever.

#![forbid(unsafe_code)]

pub mod bulk;
pub mod error;
pub mod frame;
pub mod identity;
pub mod limits;
pub mod link;
pub mod listener;
pub mod message;
pub mod pairing;
pub mod pipe;
pub mod proto;
pub mod streams;
pub mod tls;
pub mod want;

mod carrier;
mod control;
mod dial;
mod gate;
mod lanes;
mod pump;
mod runtime;
mod tap;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod golden;
