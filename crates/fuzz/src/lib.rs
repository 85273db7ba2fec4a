//! Hostile bytes for everything that reads bytes or text of others.
//!
//! A target is a plain function from bytes to a word for what became of them; what must hold whatever the bytes
//! are is asserted in it. [`run::attempt`] runs one input under a cap of memory. The corpus is replayed by the
//! tests; `cargo xtask fuzz` mutates it for as long as it is given.
//!
//! Invariant: [`TARGETS`] names every reader of bytes or text that comes from outside the process, beside the
//! target that reads with it; a test compares that with the sources. Nothing of the product is decided here.
//!
//! The only unsafe code outside `instep-fs` is the allocator in [`allocation`]: allocations are counted by
//! whoever makes them, or not at all.

pub mod allocation;
pub mod corpus;
pub mod drive;
pub mod feed;
pub mod mutate;
pub mod run;
pub mod targets;

pub use targets::TARGETS;

/// One reader of hostile bytes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// What it is called.
    pub name: &'static str,
    /// The functions of the product that read, as `crate::function` or `crate::Type::function`.
    pub reads: &'static [&'static str],
    /// Reads the bytes, asserts what must hold, and says in a word what they were taken for.
    pub read: fn(&[u8]) -> String,
    /// Inputs that are worth mutating.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Pieces that mutations put into inputs.
    pub words: &'static [&'static str],
    /// Bytes that may be allocated for each byte of an input, and for an empty one.
    pub memory: (u64, u64),
    /// Inputs longer than this are not made.
    pub longest: usize,
}
