//! What users see of a local replica: identities, rejoining, saves at the wrong moment, crashes, absences,
//! moves and ignore rules; on real directories where a kernel matters, simulated where a crash does.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

#[path = "../support/mod.rs"]
mod support;

mod acts;
mod aftermath;
mod attributes;
mod below;
mod check;
mod elsewhere;
mod groups;
mod hints;
mod identity;
mod ignore;
mod modes;
mod moves;
mod names;
mod pieces;
mod recovery;
mod rejoin;
mod renew;
mod replace;
mod settling;
mod sources;
mod storm;
mod ticks;
mod torn;
mod unjudged;
