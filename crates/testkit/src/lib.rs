//! What tests share: trees from text, random edits, an independent comparison, a ledger of what users wrote, and
//! the program run in isolation.
//!
//! Invariant: nothing here looks at a tree through instep's own code. Everything goes through `std::fs`, so a
//! defect of instep cannot hide itself from the tests. Nothing here decides what is right; tests do.
//! Randomness comes from a seed and from nowhere else, so that a failure can be repeated.
#![forbid(unsafe_code)]

pub mod cli;
pub mod compare;
pub mod edit;
pub mod ledger;
pub mod needs;
pub mod prng;
pub mod scratch;
pub mod snapshot;
pub mod tree;
