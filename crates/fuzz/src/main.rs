//! `instep-fuzz`: runs targets for as long as it is told, and replays an input that failed.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people who test"
)]

use std::fs::File;
use std::process::ExitCode;

use instep_fuzz::allocation::Counting;
use instep_fuzz::drive::{self, Options};
use instep_fuzz::run::attempt;
use instep_fuzz::{TARGETS, Target};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const USAGE: &str = "\
usage: instep-fuzz [TARGET...] [--seconds N] [--seed N] [--keep]   60 seconds for each target, or for these
       instep-fuzz TARGET --replay FILE                            one input
       instep-fuzz --list";

#[derive(Default)]
struct Asked {
    targets: Vec<&'static Target>,
    options: Option<Options>,
    replay: Option<String>,
    worker: bool,
    list: bool,
}

fn asked() -> Option<Asked> {
    let mut out = Asked::default();
    let mut options = Options {
        seconds: 60,
        seed: 1,
        keep: false,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--seconds" => options.seconds = args.next()?.parse().ok()?,
            "--seed" => options.seed = args.next()?.parse().ok()?,
            "--keep" => options.keep = true,
            "--replay" => out.replay = Some(args.next()?),
            "--worker" => out.worker = true,
            "--list" => out.list = true,
            name => out.targets.push(TARGETS.iter().find(|t| t.name == name)?),
        }
    }
    out.options = Some(options);
    Some(out)
}

fn main() -> ExitCode {
    let Some(asked) = asked() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let Some(options) = &asked.options else {
        return ExitCode::from(2);
    };
    if asked.list {
        TARGETS
            .iter()
            .for_each(|t| println!("{:14} {}", t.name, t.reads.join(", ")));
        return ExitCode::SUCCESS;
    }
    let chosen = if asked.targets.is_empty() {
        TARGETS.iter().collect()
    } else {
        asked.targets.clone()
    };
    let done = match (&asked.replay, chosen.as_slice()) {
        (Some(file), [target]) => replay(target, file),
        (Some(_), _) => Err("a replay needs one target".into()),
        (None, [target]) if asked.worker => work(target, options),
        (None, all) => run(all, options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

/// Each target in a process of its own.
fn run(targets: &[&Target], options: &Options) -> Result<(), String> {
    let mut failed = Vec::new();
    for target in targets {
        let found =
            drive::watch(target, options).map_err(|e| format!("run {}: {e}", target.name))?;
        if let Some(file) = found {
            let (name, file) = (target.name, file.display());
            failed.push(format!(
                "{name} failed; replay: cargo xtask fuzz {name} --replay {file}"
            ));
        }
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(failed.join("\n"))
    }
}

/// One target, in this process.
fn work(target: &Target, options: &Options) -> Result<(), String> {
    // A panic is told with its input.
    std::panic::set_hook(Box::new(|_| {}));
    let failed = |e: std::io::Error| format!("run {}: {e}", target.name);
    let noted = File::create(drive::current(target)).map_err(failed)?;
    match drive::explore(target, options, &noted).map_err(failed)? {
        Ok(summary) => {
            let each = summary.inputs / options.seconds.max(1);
            println!(
                "{:14} {:>10} inputs, {each:>7} a second, {:>4} kinds, at most {} bytes in {} pieces",
                target.name,
                summary.inputs,
                summary.kinds.len(),
                summary.most.bytes,
                summary.most.count,
            );
            Ok(())
        }
        Err((input, failure)) => {
            let file = drive::report(target, &input).map_err(failed)?;
            Err(format!(
                "{} fails: {failure}\n  {}",
                target.name,
                file.display()
            ))
        }
    }
}

/// One input, with everything that is said of it.
fn replay(target: &Target, file: &str) -> Result<(), String> {
    let input = std::fs::read(file).map_err(|e| format!("read {file}: {e}"))?;
    let (kind, taken) = attempt(target, &input).map_err(|failure| failure.to_string())?;
    println!("{kind}; {taken:?}");
    Ok(())
}
