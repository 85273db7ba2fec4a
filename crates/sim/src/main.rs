//! `instep-sim`: runs seeds, and says how to replay the first that fails.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use instep_sim::Counts;

const USAGE: &str = "usage: instep-sim [--seeds N] [--from S] | --seed S";

struct Options {
    from: u64,
    count: u64,
    one: bool,
}

fn options() -> Option<Options> {
    let mut out = Options {
        from: 1,
        count: 1000,
        one: false,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next()?.parse().ok()?;
        match arg.as_str() {
            "--seeds" => out.count = value,
            "--from" => out.from = value,
            "--seed" => (out.from, out.count, out.one) = (value, 1, true),
            _ => return None,
        }
    }
    Some(out)
}

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people who test"
)]
fn main() -> ExitCode {
    let Some(options) = options() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if !options.one {
        // A panic is part of a failure's report.
        std::panic::set_hook(Box::new(|_| {}));
    }
    let (mut failed, mut counts) = (0, Counts::default());
    for seed in options.from..options.from.saturating_add(options.count) {
        match instep_sim::run(seed) {
            Ok(report) if options.one => {
                report.trace.iter().for_each(|line| println!("{line}"));
                println!(
                    "seed {seed} keeps all promises, digest {:016x}",
                    report.digest
                );
            }
            Ok(report) => counts.add(&report.counts),
            Err(failure) => {
                if options.one {
                    failure.trace.iter().for_each(|line| println!("{line}"));
                }
                println!("{failure}");
                failed += 1;
            }
        }
    }
    println!("{counts}");
    println!(
        "{} seeds from {}, {failed} failed",
        options.count, options.from
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
