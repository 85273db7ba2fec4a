//! Kills at every labelled step: the program dies, is started again, may die again, and then everything is looked at.
//!
//! ```text
//! program   the program that dies          stage      roots and users
//! scenes    what users did                 seen       disks, without instep
//! trial     one scene with its deaths      campaign   which deaths are tried, and what came of them
//! ```
//!
//! Invariant: a verdict comes from what is on the disks and from nothing that the program says, but for its exit code and
//! the number of its conflicts.

pub mod campaign;
pub mod program;
pub mod scenes;
pub mod seen;
pub mod stage;
pub mod trial;
