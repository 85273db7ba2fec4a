//! One file per command: parse nothing, decide nothing about files, only connect arguments, replicas and
//! output.

mod explain;

use crate::args::{Cli, Command};
use crate::error::{Exit, Failure};
use crate::ui::Output;

/// Carries out a command.
pub(crate) fn run(cli: Cli, output: &Output) -> Result<Exit, Failure> {
    match cli.command {
        Command::Explain(args) => explain::run(&args, output),
        _ => Err(Failure::new(1900, Exit::Failed, "open the folders")),
    }
}
