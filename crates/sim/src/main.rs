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
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use instep_sim::{Campaign, Failure, Mask, Open, Tally};

const USAGE: &str = "\
usage: instep-sim [--seeds N] [--from S] [--threads T]   run many seeds
                  [--open FILE]                          only failures that this list does not have are failures
       instep-sim --seed S [--without MASK] [--rounds R] replay one, or what is left of it, with its trace
       instep-sim --coverage [--seeds N] [--from S]      count the decisions that seeds meet; none may be missed
       instep-sim --seed S --shrink                      find how much of a failing seed can be left out";

struct Options {
    campaign: Campaign,
    one: Option<u64>,
    mask: Mask,
    shrink: bool,
    coverage: bool,
    open: Open,
}

fn options(mut args: impl Iterator<Item = String>) -> Option<Options> {
    let mut out = Options {
        campaign: Campaign {
            from: 1,
            count: 1000,
            threads: 2,
        },
        one: None,
        mask: Mask::default(),
        shrink: false,
        coverage: false,
        open: Open::default(),
    };
    let mut rounds = None;
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--seeds" => out.campaign.count = args.next()?.parse().ok()?,
            "--from" => out.campaign.from = args.next()?.parse().ok()?,
            "--threads" => out.campaign.threads = args.next()?.parse().ok()?,
            "--seed" => out.one = Some(args.next()?.parse().ok()?),
            "--without" => out.mask = args.next()?.parse().ok()?,
            "--rounds" => rounds = Some(args.next()?.parse().ok()?),
            "--open" => out.open = known(&args.next()?)?,
            "--shrink" => out.shrink = true,
            "--coverage" => out.coverage = true,
            _ => return None,
        }
    }
    out.mask.rounds = rounds;
    let of_one = out.shrink || out.mask != Mask::default();
    (out.one.is_some() || !of_one).then_some(out)
}

/// The list of what is known and not mended.
fn known(file: &str) -> Option<Open> {
    let text = std::fs::read_to_string(file).map_err(|e| e.to_string());
    let open = text.and_then(|text| Open::parse(&text));
    open.map_err(|why| eprintln!("{file}: {why}")).ok()
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

fn tell(failure: &Failure, mask: &Mask, commit: &str) {
    let release = if cfg!(debug_assertions) {
        ""
    } else {
        " --release"
    };
    let (seed, promise) = (failure.seed, failure.promise());
    println!(
        "seed {seed} breaks {promise} at commit {commit}, {}",
        build()
    );
    failure.broken.iter().for_each(|line| println!("  {line}"));
    println!("  on {}", failure.profile);
    println!(
        "replay: cargo run{release} -p instep-sim -- --seed {}{}",
        failure.seed,
        mask.arguments()
    );
}

/// Replays one seed, with everything that happens.
fn replay(seed: u64, mask: &Mask) -> ExitCode {
    match instep_sim::run_masked(seed, mask) {
        Ok(report) => {
            report.trace.iter().for_each(|line| println!("{line}"));
            let digest = report.digest;
            println!("seed {seed} keeps all promises, digest {digest:016x}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            failure.trace.iter().for_each(|line| println!("{line}"));
            tell(&failure, mask, &commit());
            ExitCode::FAILURE
        }
    }
}

/// Makes one seed small.
fn shrink(seed: u64, mask: &Mask) -> ExitCode {
    let Some(shrunk) = instep_sim::shrink(seed, mask) else {
        println!("seed {seed} keeps all promises");
        return ExitCode::SUCCESS;
    };
    let trace = &shrunk.failure.trace;
    trace.iter().for_each(|line| println!("{line}"));
    println!("{} acts are left after {} runs", shrunk.acts, shrunk.runs);
    tell(&shrunk.failure, &shrunk.mask, &commit());
    ExitCode::FAILURE
}

/// Counts decisions.
fn coverage(campaign: &Campaign) -> ExitCode {
    let cells = campaign.cover();
    print!("{cells}");
    let unreached = cells.unreached();
    println!(
        "{} seeds, {} cells unreached",
        campaign.count,
        unreached.len()
    );
    unreached.iter().for_each(|cell| println!("  {cell}"));
    if unreached.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Rewrites one line on a terminal, a few times a second at the most.
struct Progress {
    started: Instant,
    told: Mutex<Option<Instant>>,
    failed: AtomicU64,
    total: u64,
}

impl Progress {
    fn new(total: u64) -> Self {
        let shows = std::io::stderr().is_terminal();
        let started = Instant::now();
        Self {
            started,
            told: Mutex::new(shows.then_some(started)),
            failed: AtomicU64::new(0),
            total,
        }
    }

    fn tell(&self, seeds: u64, failed: bool) {
        let failed =
            self.failed.fetch_add(u64::from(failed), Ordering::Relaxed) + u64::from(failed);
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
    // A panic is part of a failure's report.
    let quiet = options.one.is_none() || options.shrink;
    if quiet {
        std::panic::set_hook(Box::new(|_| {}));
    }
    if options.coverage {
        return coverage(&options.campaign);
    }
    if let Some(seed) = options.one {
        let one = if options.shrink { shrink } else { replay };
        return one(seed, &options.mask);
    }
    let started = Instant::now();
    let progress = Progress::new(options.campaign.count);
    let (commit, whole) = (commit(), Mask::default());
    let tally = options.campaign.run(&|seeds, failure| {
        if let Some(failure) = failure {
            progress.end();
            tell(failure, &whole, &commit);
        }
        progress.tell(seeds, failure.is_some());
    });
    progress.end();
    summary(&tally, &options, started.elapsed());
    let news = options.open.judge(&options.campaign, &tally);
    news.iter()
        .for_each(|line| println!("not as the list of open defects says: {line}"));
    if news.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
