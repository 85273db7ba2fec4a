//! The house's own commands: checks that are too particular for a lint, and thin runners of long tests.
//!
//! Owns no behaviour of the product, and nothing here is linked into it. Start with [`tidy`]; each check is a
//! function from text to [`finding::Finding`]s, so that it can be tested without a repository.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line for developers"
)]

mod bans;
mod deny;
mod edges;
mod finding;
mod manifest;
mod markdown;
mod metadata;
mod mutants;
mod names;
mod promises;
mod ratchet;
mod run;
mod source;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask tidy [--record]                   check the house's rules; --record writes the sizes of today
cargo xtask deny                              licences, bans and sources of dependencies, as deny.toml says
cargo xtask sim --seeds N [--seed S]          the simulator; --seed replays one
cargo xtask mutants [--seeds N] [NAME-PART]   deliberate bugs, each of which a seed has to notice
cargo xtask exhaust [--ops N]                 every script of N edits and every order of meetings, on the planner
cargo xtask fuzz [TARGET] [--seconds N]       hostile bytes into every decoder; keeps and names what fails
cargo xtask soak [--seconds N]                the real program under random edits and kills
cargo xtask interop                           editors, git, tar and cargo in a live folder
cargo xtask accept NAME... | all | list       scenarios against the real program
cargo xtask trials NAME [--OPTION VALUE]...   long trials on real file systems: kills, writers, races";

/// The commands after `cargo xtask`; Markdown may name these and no others.
const COMMANDS: [&str; 10] = [
    "tidy", "deny", "sim", "mutants", "exhaust", "fuzz", "soak", "interop", "accept", "trials",
];

/// The top of the repository.
fn top() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let rest = args.get(1..).unwrap_or_default();
    let done = match args.first().map(String::as_str) {
        Some("tidy") => tidy::command(&top(), rest),
        Some("deny") => deny::command(&top()),
        Some("sim") => run::sim(&top(), rest),
        Some("mutants") => mutants::command(&top(), rest),
        Some("exhaust") => run::exhaust(&top(), rest),
        Some("fuzz") => run::fuzz(&top(), rest),
        Some("soak") => run::acceptance(&top(), "s3_chaos", rest),
        Some("interop") => run::acceptance(&top(), "s4_editors", rest),
        Some("accept") => run::accept(&top(), rest),
        Some("trials") => run::trials(&top(), rest),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}
