//! The deterministic simulator: the real engine over real local replicas on simulated machines.
//!
//! ```text
//! campaign.rs many seeds on a few threads, some of them twice, and what failed by promise
//! seed.rs     one seed from start to verdict: rounds under faults, then peace, then the checkers
//! world.rs    machines and clocks; below it opening, dying, mishaps, and trouble for a while
//! link.rs     the lines between the engine and the machines
//! users.rs    what people do, between any two calls of the engine
//! faults.rs   what a seed switches on, and when processes and power go
//! checkers.rs the promises: convergence, nothing lost, nothing resurrected, nothing invented, stability
//! eye.rs      every call of the engine on a replica, watched
//! steps.rs    the promises that hold at every step, from what a call did to a machine
//! mask.rs     what is left out of a seed; shrink.rs finds how much can be; scenario.rs keeps it
//! coverage.rs which decisions of the tables are met; rare.rs does what few people do to meet the rest
//! open.rs     seeds whose failures are known and not mended yet
//! rollback.rs what a root whose past came back does to the others
//! ledger.rs   what users wrote and gave up
//! counts.rs   what really happened
//! ```
//!
//! Invariants: everything follows from the seed; one thread; no wall clock; no real file. Asks the code
//! under test nothing that it can read from the disks itself.
#![forbid(unsafe_code)]

mod campaign;
mod checkers;
mod counts;
mod coverage;
mod eye;
mod faults;
mod late;
mod ledger;
mod link;
mod mask;
mod open;
mod rare;
mod rollback;
mod scenario;
mod seed;
mod shrink;
mod steps;
mod users;
mod world;

pub use campaign::{Campaign, Tally};
pub use counts::Counts;
pub use coverage::{Cells, EXCUSED};
pub use mask::{Mask, MaskError};
pub use open::Open;
pub use scenario::Scenario;
pub use seed::{Failure, Report, cover, run, run_masked};
pub use shrink::{Shrunk, shrink};
