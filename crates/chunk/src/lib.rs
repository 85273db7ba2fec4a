//! Bytes in, content ids out: hashing, and what is learned from the bytes on the way.
//!
//! Owns the one definition of a content id ([`hash`]) and the guess whether content looks random
//! ([`entropy`]). Invariant: equal bytes give equal ids, however they were cut into pieces. It never opens a
//! file, reads a clock or draws randomness; whoever has bytes hands them in.
#![forbid(unsafe_code)]

pub mod cut;
pub mod delta;
pub mod entropy;
pub mod hash;
pub mod manifest;

pub use entropy::Entropy;
pub use hash::{Hashed, Hasher, content_id, hash_reader};
