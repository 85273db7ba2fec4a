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
mod roots;
mod signals;
#[cfg(test)]
mod snapshot;
mod system_env;
mod targets;
mod ui;
mod usage;

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
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
