//! What is said when the command line is not understood, in the same five parts as every other failure.
//!
//! Help and version are results, not failures.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, Parser as _};

use crate::args::{Cli, Color, Global};
use crate::error::{Exit, Failure};
use crate::ui::{Output, Style};

/// What is printed instead of carrying out a command.
pub(crate) enum Said {
    /// Help or the version, on standard output.
    Help(String),
    /// The command line is wrong.
    Wrong(Failure, Style),
}

impl Said {
    /// Prints it.
    pub(crate) fn print(self) -> Exit {
        match self {
            Self::Help(text) => {
                Output::system(Style::new(&plain_options())).result(&text);
                Exit::Done
            }
            Self::Wrong(failure, style) => {
                Output::system(style).failure(&failure);
                failure.exit
            }
        }
    }
}

fn plain_options() -> Global {
    Global {
        json: false,
        plain: false,
        quiet: false,
        verbose: 0,
        color: Color::Auto,
        config: None,
    }
}

/// Parses the command line.
pub(crate) fn parse(typed: Vec<OsString>) -> Result<Cli, Said> {
    let wants_json = typed.iter().any(|t| t == "--json");
    Cli::try_parse_from(typed).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Said::Help(error.to_string()),
        _ => {
            let style = Style::new(&Global {
                json: wants_json,
                ..plain_options()
            });
            Said::Wrong(failure(&error), style)
        }
    })
}

/// A parser's error in our words.
pub(crate) fn failure(error: &clap::Error) -> Failure {
    if let Some(ours) = std::error::Error::source(error).and_then(|e| e.downcast_ref::<Failure>()) {
        return ours.clone();
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Failure::new(1000, Exit::Usage, "a command is missing")
            .why(commands())
            .remedy("instep --help");
    }
    let text = error.to_string();
    let what = text
        .lines()
        .next()
        .unwrap_or_default()
        .trim_start_matches("error: ");
    let usage = text.lines().find_map(|l| l.trim().strip_prefix("Usage: "));
    let mut missing: Vec<&str> = text
        .lines()
        .skip(1)
        .take_while(|l| !l.is_empty())
        .map(|l| l.trim().trim_start_matches('[').trim_end_matches(']'))
        .filter(|l| !l.is_empty())
        .collect();
    missing.dedup();
    let mut out =
        Failure::new(1000, Exit::Usage, what.trim_end_matches(':')).why(missing.join("\n"));
    for tip in suggestions(error) {
        out = out.remedy(format!("did you mean {tip}?"));
    }
    if let Some(usage) = usage {
        out = out.remedy(usage);
    }
    out.remedy(format!("instep help{}", help_topic(usage)))
}

/// The nearest known words.
fn suggestions(error: &clap::Error) -> Vec<String> {
    let of = |kind| match error.get(kind) {
        Some(ContextValue::String(one)) => vec![one.clone()],
        Some(ContextValue::Strings(many)) => many.clone(),
        _ => Vec::new(),
    };
    let mut all = of(ContextKind::SuggestedSubcommand);
    all.extend(of(ContextKind::SuggestedArg));
    all.extend(of(ContextKind::SuggestedValue));
    all
}

fn help_topic(usage: Option<&str>) -> String {
    let word = usage
        .and_then(|u| u.split_whitespace().nth(1))
        .unwrap_or_default();
    if word.starts_with(|c: char| c.is_ascii_lowercase()) {
        format!(" {word}")
    } else {
        String::new()
    }
}

fn commands() -> String {
    let cli = Cli::command();
    let shown = cli.get_subcommands().filter(|c| !c.is_hide_set());
    let names: Vec<&str> = shown.map(clap::Command::get_name).collect();
    format!("commands are {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot;

    fn said(typed: &[&str]) -> String {
        match parse(typed.iter().map(OsString::from).collect()) {
            Ok(_) => String::from("understood"),
            Err(Said::Help(text)) => text,
            Err(Said::Wrong(failure, _)) => failure.render(),
        }
    }

    #[test]
    fn mistakes_are_answered_as_recorded() {
        for (name, typed) in [
            ("usage-nothing", &["instep"][..]),
            ("usage-unknown-verb", &["instep", "synk", "/a", "/b"]),
            (
                "usage-unknown-option",
                &["instep", "sync", "/a", "/b", "--onec"],
            ),
            ("usage-one-folder", &["instep", "sync", "/a"]),
            (
                "usage-bad-policy",
                &["instep", "sync", "/a", "/b", "--policy", "newset"],
            ),
            (
                "usage-bad-duration",
                &["instep", "sync", "/a", "/b", "--poll", "often"],
            ),
            (
                "usage-bad-jobs",
                &["instep", "sync", "/a", "/b", "--jobs", "0"],
            ),
            (
                "usage-remote",
                &["instep", "sync", "/a", "s3://bucket/notes"],
            ),
            ("usage-bad-name", &["instep", "sync", "/a", "newest=/b"]),
            (
                "usage-prefer-and-policy",
                &[
                    "instep", "sync", "/a", "/b", "--prefer", "A", "--policy", "manual",
                ],
            ),
            ("usage-no-keep", &["instep", "conflicts", "resolve", "c41"]),
        ] {
            snapshot::check(name, &said(typed));
        }
    }

    #[test]
    fn help_begins_with_examples() {
        assert!(said(&["instep", "--help"]).starts_with("Examples:\n  instep sync"));
        assert!(said(&["instep", "sync", "-h"]).starts_with("Examples:\n  instep sync"));
    }
}
