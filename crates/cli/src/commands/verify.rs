//! `verify`: reads files again, and what is kept of earlier ones, and compares them with what was recorded.
//!
//! Owns which of the files are read, and what is done about damage: it is noted where it was found, so that
//! nobody passes it on or replaces it until it is repaired or accepted. Without `--repair` or `--accept` no file
//! is changed.

mod decide;
pub(super) mod reading;
mod telling;

use std::path::{Path, PathBuf};

use instep_core::path::RelPath;

use super::Context;
use crate::args;
use crate::error::{Exit, Failure};
use crate::targets::{self, Target, with_members};

/// Carries it out.
pub(crate) fn run(args: &args::Verify, context: &Context) -> Result<Exit, Failure> {
    let asked = asked(&args.paths)?;
    let named: Vec<Target> = asked.iter().map(|(target, _)| target.clone()).collect();
    let report = {
        let opened = context.open_to_read(with_members(&named))?;
        let reading = reading::Reading {
            opened: &opened,
            below: &asked,
            sample: args.sample,
            seed: args.seed,
        };
        reading.run(context)?
    };
    let done = decide::run(args, &named, &report, context)?;
    telling::tell(args, &report, &done, context);
    let mut exits = Vec::new();
    if report.damage.len() > done.settled.len() || !report.kept.is_empty() {
        exits.push(Exit::Damage);
    }
    if !report.unreadable.is_empty() || !done.failed.is_empty() {
        exits.push(Exit::SomeFailed);
    }
    Ok(Exit::first(&exits))
}

/// The folders that hold what was named, each with the place in it; without names, the one around the current
/// directory.
fn asked(paths: &[PathBuf]) -> Result<Vec<(Target, RelPath)>, Failure> {
    if paths.is_empty() {
        let here = targets::named(&[])?;
        return Ok(here.into_iter().map(|t| (t, RelPath::root())).collect());
    }
    let mut out = Vec::new();
    for path in paths {
        let found = at(path)?;
        out.extend(found);
    }
    Ok(out)
}

fn at(path: &Path) -> Result<Vec<(Target, RelPath)>, Failure> {
    let found = targets::at(path)?;
    if !found.is_empty() {
        return Ok(found.into_iter().map(|t| (t, RelPath::root())).collect());
    }
    let inside = targets::holding(path).map_err(|_| targets::unknown(path))?;
    Ok(inside)
}
