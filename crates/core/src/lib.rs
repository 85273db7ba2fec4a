//! The vocabulary of instep and every decision it takes.
//!
//! Nothing here performs I/O, reads a clock, draws randomness or depends on hash order: each function
//! takes values and returns values, so that every decision can be tested by the million and replayed.
//!
//! Three invariants hold for everything in this crate:
//! 1. Merging is associative, commutative and idempotent: order and repetition of messages are irrelevant.
//! 2. What a path shows is a pure function of its sibling set and the policy; looking never mints a dot.
//! 3. Unknown is not absent: only a tombstone deletes.
//!
//! Start with [`entry`] (what is known about a path), then [`view`] (what it shows), then [`reconcile`]
//! (what must be done so that every replica shows it).
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod attributes;
pub mod codec;
pub mod conflict;
pub mod entry;
pub mod filter;
pub mod fnv;
pub mod group;
pub mod id;
pub mod limits;
pub mod path;
pub mod plan;
pub mod policy;
pub mod reconcile;
pub mod row;
pub mod safety;
pub mod time;
pub mod version;
pub mod view;
