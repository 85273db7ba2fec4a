//! The long run: inputs are mutated for as long as there is time, and one that is taken for something new joins
//! those that are mutated.
//!
//! Each target is run by a process of its own, so that an abort or an endless loop is a failure with an input
//! like any other: the process notes each input before it reads it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use crate::allocation::Taken;
use crate::mutate::{Dice, mutate};
use crate::run::{Failure, attempt};
use crate::{Target, corpus};

/// One input may take this long, and is far from taking it.
const PATIENCE: Duration = Duration::from_secs(20);
/// More inputs of one kind are not kept to be mutated.
const OF_ONE_KIND: usize = 12;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// For how long each target.
    pub seconds: u64,
    /// What the dice begin with.
    pub seed: u64,
    /// Whether the first input of each new kind joins the corpus.
    pub keep: bool,
}

/// What came of a run.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// How many inputs were read.
    pub inputs: u64,
    /// Words for what they were taken for, with how often.
    pub kinds: BTreeMap<String, u64>,
    /// The most memory that one took, by bytes of all allocations.
    pub most: Taken,
}

/// Where the inputs that fail are written.
fn failures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("failures")
}

/// Where a process notes the input that it reads now.
pub fn current(target: &Target) -> PathBuf {
    std::env::temp_dir().join(format!(
        "instep-fuzz-{}-{}",
        target.name,
        std::process::id()
    ))
}

/// Runs a target until its time is over. Returns the input that failed, if one did, and why.
pub fn explore(
    target: &Target,
    options: &Options,
    noted: &File,
) -> io::Result<Result<Summary, (Vec<u8>, Failure)>> {
    let mut dice = Dice::new(options.seed);
    let mut inputs: Vec<Vec<u8>> = corpus::all(target)?.into_iter().map(|(_, b)| b).collect();
    inputs.push(Vec::new());
    let mut known = inputs.len();
    let mut summary = Summary::default();
    let began = Instant::now();
    let mut next = 0;
    while began.elapsed().as_secs() < options.seconds || next < known {
        let input = if next < known {
            inputs[next].clone()
        } else {
            let (one, other) = (dice.below(inputs.len()), dice.below(inputs.len()));
            mutate(
                &mut dice,
                &inputs[one],
                &inputs[other],
                target.words,
                target.longest,
            )
        };
        next += 1;
        note(noted, &input)?;
        match attempt(target, &input) {
            Ok((kind, taken)) => {
                summary.inputs += 1;
                if taken.bytes > summary.most.bytes {
                    summary.most = taken;
                }
                let seen = summary.kinds.entry(kind).or_default();
                *seen += 1;
                if next > known && *seen as usize <= OF_ONE_KIND {
                    if options.keep && *seen == 1 && input.len() <= 512 {
                        drop(corpus::keep(&corpus::folder(target), &input)?);
                    }
                    inputs.push(input);
                    known += 1;
                    next += 1;
                }
            }
            Err(failure) => return Ok(Err((shrunk(target, input), failure))),
        }
    }
    Ok(Ok(summary))
}

/// The input, with its length in front.
fn note(noted: &File, input: &[u8]) -> io::Result<()> {
    let mut text = (input.len() as u64).to_le_bytes().to_vec();
    text.extend_from_slice(input);
    noted.write_all_at(&text, 0)
}

/// The input that a process noted last.
fn noted(file: &Path) -> io::Result<Vec<u8>> {
    let text = fs::read(file)?;
    let (length, input) = text.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(0);
    Ok(input[..length.min(input.len())].to_vec())
}

/// A shorter input that fails, too: pieces are left out as long as that is so.
fn shrunk(target: &Target, mut input: Vec<u8>) -> Vec<u8> {
    let mut piece = input.len() / 2;
    while piece > 0 {
        let mut at = 0;
        while at < input.len() {
            let mut shorter = input.clone();
            drop(shorter.drain(at..(at + piece).min(input.len())));
            if attempt(target, &shorter).is_err() {
                input = shorter;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    input
}

/// Runs a target in a process of its own; returns where the input that failed is, if one did.
pub fn watch(target: &Target, options: &Options) -> io::Result<Option<PathBuf>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--worker", target.name]);
    command.args(["--seconds", &options.seconds.to_string()]);
    command.args(["--seed", &options.seed.to_string()]);
    if options.keep {
        command.arg("--keep");
    }
    let mut child = command.spawn()?;
    let file = std::env::temp_dir().join(format!("instep-fuzz-{}-{}", target.name, child.id()));
    let deadline = Instant::now() + Duration::from_secs(options.seconds) + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let failed = !status.is_some_and(|s: ExitStatus| s.success());
    let input = noted(&file);
    // Gone already where the process never came to note anything.
    let _gone = fs::remove_file(&file);
    if !failed {
        return Ok(None);
    }
    // A process that told why has written a shorter input itself.
    if status.and_then(|s| s.code()) == Some(1) {
        return newest(&failures().join(target.name)).map(Some);
    }
    corpus::keep(&failures().join(target.name), &input?).map(Some)
}

/// The file of a directory that was written last.
fn newest(dir: &Path) -> io::Result<PathBuf> {
    let files = fs::read_dir(dir)?.flatten().map(|entry| entry.path());
    let written = |file: &PathBuf| file.metadata().and_then(|m| m.modified()).ok();
    let newest = files.max_by_key(written);
    newest.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

/// Writes an input that failed where it can be replayed from.
pub fn report(target: &Target, input: &[u8]) -> io::Result<PathBuf> {
    corpus::keep(&failures().join(target.name), input)
}
