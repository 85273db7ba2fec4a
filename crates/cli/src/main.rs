//! The `instep` program: the composition root, and the only place that knows every part.
//!
//! Reads the command line, carries out one command, prints what it says, and ends with a documented code.
//! All output goes through [`ui::Output`]; nothing else prints, and nothing ends the process but the return
//! from `main`.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod config;
mod connect;
mod control;
mod endpoint;
mod error;
mod explain;
mod live;
mod places;
mod quantity;
mod records;
mod reload;
mod roots;
mod signals;
#[cfg(test)]
mod snapshot;
#[cfg(feature = "steps")]
mod steps;
mod system_env;
mod targets;
mod ui;
mod usage;

use std::ffi::OsString;
use std::process::ExitCode;

/// What the process inherits is made what the work below relies on, before any thread starts.
fn settle_into_the_process() {
    // Modes are kept as they are; everything of our own names its mode.
    instep_fs::place::set_umask(0);
    // Without this, a user who opens a file that we hold a lease on would end the program.
    instep_fs::place::ignore_lease_signals();
    // Without this, one file above the limit of sizes would end the program.
    instep_fs::place::ignore_size_signals();
    // With fewer open files than could be had everything still works.
    let _fewer = instep_fs::place::raise_open_files();
}

fn main() -> ExitCode {
    settle_into_the_process();
    let typed: Vec<OsString> = std::env::args_os().collect();
    let exit = match usage::parse(typed) {
        Ok(cli) => {
            let output = ui::Output::system(ui::Style::new(&cli.global));
            commands::run(cli, &output).unwrap_or_else(|failure| {
                output.failure(&failure);
                failure.exit
            })
        }
        Err(said) => said.print(),
    };
    ExitCode::from(exit.number())
}
