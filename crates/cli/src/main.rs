//! The `instep` program: the composition root, and the only place that knows every part.
//!
//! Reads the command line, carries out one command, prints what it says, and ends with a documented code.
//! All output goes through [`ui::Output`]; nothing else prints, and nothing ends the process but the return
//! from `main`.
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

fn main() -> ExitCode {
    program::run()
}
