//! Trials of the real program on real file systems: images that are cut off, processes that are killed at every step,
//! disks that fail, and people who race it.
//!
//! Invariant: everything that a trial mounts, it mounts on images and directories of its own, and takes away again
//! when it is dropped, also after a panic. Never looks at a tree through instep's own code.
#![forbid(unsafe_code)]

pub mod boot;
pub mod confined;
pub mod fuse;
pub mod image;
pub mod kills;
pub mod namespace;
pub mod power;
pub mod program;
pub mod races;
pub mod writers;
