//! Users who save without rest while the program changes the same files from the other side.
//!
//! Owns the book of what was saved and the ways in which programs save. Invariant: a save counts as lost only if no
//! user displaced or overwrote it with knowledge of its bytes, and no place where a user would look has it.

pub mod book;
pub mod hand;
pub mod storm;
