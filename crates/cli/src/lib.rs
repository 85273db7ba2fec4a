//! The front end as a library, for tests alone: so that they can hand hostile text to what reads it.
//!
//! Owns nothing: the modules are those of the program, whose head is in `main.rs` and which does not use this. Start with
//! [`input`].
#![forbid(unsafe_code)]

mod args;
mod code_file;
mod commands;
mod config;
mod connect;
mod control;
mod endpoint;
mod error;
mod explain;
mod far;
mod hub;
pub mod input;
mod live;
mod places;
mod program;
mod quantity;
mod records;
mod reload;
mod roots;
mod signals;
mod small_file;
#[cfg(test)]
mod snapshot;
#[cfg(feature = "steps")]
mod steps;
mod system_env;
mod targets;
mod ui;
mod usage;

use std::process::ExitCode;

/// The program, from its arguments to the code that it ends with.
pub fn run() -> ExitCode {
    program::run()
}
