//! `instep-sim`: runs seeds, and says of each that fails how to replay it.

#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people who test"
)]

use std::io::IsTerminal;
use std::io::Write;
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use instep_sim::{Campaign, Failure, Tally};

const USAGE: &str = "\
usage: instep-sim [--seeds N] [--from S] [--threads T]   run many seeds
       instep-sim --seed S                               replay one, with its trace";

struct Options {
    campaign: Campaign,
    one: Option<u64>,
}

fn options(mut args: impl Iterator<Item = String>) -> Option<Options> {
    let mut out = Options {
        campaign: Campaign {
            from: 1,
            count: 1000,
            threads: 2,
        },
        one: None,
    };
    while let Some(arg) = args.next() {
        let value: u64 = args.next()?.parse().ok()?;
        match arg.as_str() {
            "--seeds" => out.campaign.count = value,
            "--from" => out.campaign.from = value,
            "--threads" => out.campaign.threads = usize::try_from(value).ok()?,
            "--seed" => out.one = Some(value),
            _ => return None,
        }
    }
    Some(out)
}

/// The commit that is being tested: as whoever built this says, else as the repository says now.
fn commit() -> String {
    if let Some(known) = option_env!("INSTEP_COMMIT") {
        return known.to_owned();
    }
    let git = Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=12"])
        .output();
    let said = git.ok().filter(|done| done.status.success());
    let said = said.and_then(|done| String::from_utf8(done.stdout).ok());
    let said = said.map(|text| text.trim().to_owned());
    said.unwrap_or_else(|| "unknown".to_owned())
}

fn build() -> &'static str {
    if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    }
}

fn tell(failure: &Failure, commit: &str) {
    let release = if cfg!(debug_assertions) {
        ""
    } else {
        " --release"
    };
    println!("seed {} at commit {commit}, {}", failure.seed, build());
    println!("on {}", failure.profile);
    failure.broken.iter().for_each(|line| println!("  {line}"));
    println!(
        "replay: cargo run{release} -p instep-sim -- --seed {}",
        failure.seed
    );
}

/// Replays one seed, with everything that happens.
fn replay(seed: u64) -> ExitCode {
    match instep_sim::run(seed) {
        Ok(report) => {
            report.trace.iter().for_each(|line| println!("{line}"));
            let digest = report.digest;
            println!("seed {seed} keeps all promises, digest {digest:016x}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            failure.trace.iter().for_each(|line| println!("{line}"));
            tell(&failure, &commit());
            ExitCode::FAILURE
        }
    }
}

/// Rewrites one line on a terminal, a few times a second at the most.
struct Progress {
    started: Instant,
    told: Mutex<Option<Instant>>,
    total: u64,
}

impl Progress {
    fn new(total: u64) -> Self {
        let shows = std::io::stderr().is_terminal();
        let started = Instant::now();
        Self {
            started,
            told: Mutex::new(shows.then_some(started)),
            total,
        }
    }

    fn tell(&self, seeds: u64, failed: u64) {
        let Ok(mut told) = self.told.try_lock() else {
            return;
        };
        if told.is_none_or(|at| at.elapsed() < Duration::from_millis(200)) {
            return;
        }
        *told = Some(Instant::now());
        let rate = per(seeds, self.started.elapsed(), 60);
        eprint!(
            "\r\x1b[K{seeds} of {} seeds, {failed} failed, {rate}/min",
            self.total
        );
        std::io::stderr().flush().unwrap_or_default();
    }

    fn end(&self) {
        if self.told.lock().is_ok_and(|told| told.is_some()) {
            eprint!("\r\x1b[K");
        }
    }
}

/// How many in so many seconds, rounded down.
fn per(count: u64, in_all: Duration, seconds: u64) -> u64 {
    let ms = u64::try_from(in_all.as_millis()).unwrap_or(u64::MAX).max(1);
    count.saturating_mul(seconds * 1000) / ms
}

fn summary(tally: &Tally, options: &Options, took: Duration) {
    for (promise, (count, seeds)) in tally.by_promise() {
        let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
        println!("{promise}: {count} seeds, first {}", seeds.join(" "));
    }
    println!("{}", tally.counts);
    println!(
        "{} seeds from {}, {} run twice, {} failed; {} seeds/min, {} engine calls/s",
        tally.seeds,
        options.campaign.from,
        tally.twice,
        tally.failures.len(),
        per(tally.seeds, took, 60),
        per(tally.counts.calls, took, 1)
    );
}

fn main() -> ExitCode {
    let Some(options) = options(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if let Some(seed) = options.one {
        return replay(seed);
    }
    // A panic is part of a failure's report.
    std::panic::set_hook(Box::new(|_| {}));
    let started = Instant::now();
    let progress = Progress::new(options.campaign.count);
    let tally = options
        .campaign
        .run(&|seeds, failed| progress.tell(seeds, failed));
    progress.end();
    let commit = commit();
    tally.failures.iter().for_each(|f| tell(f, &commit));
    summary(&tally, &options, started.elapsed());
    if tally.failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
