//! One run of the program: what the process inherits, one command, and the code that it ends with.
//!
//! Invariant: nothing ends the process but the return from [`run`]. What a command does is not decided here.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::{commands, ui, usage};

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

/// From the arguments to the code.
pub(crate) fn run() -> ExitCode {
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
