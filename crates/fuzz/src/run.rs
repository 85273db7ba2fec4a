//! One input: read by its target, under a cap of memory, and never with a panic.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::Target;
use crate::allocation::{self, Taken};

/// What no input may exceed, whatever its length.
pub const PEAK_MAX: u64 = 64 << 20;

/// Why an input failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The target panicked, with these words.
    Panic(String),
    /// It took more memory than it may.
    Memory(Taken),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panic(words) => write!(f, "panic: {words}"),
            Self::Memory(taken) => write!(
                f,
                "too much memory: {} bytes in {} pieces, {} at one time",
                taken.bytes, taken.count, taken.peak
            ),
        }
    }
}

/// Lets a target read an input; returns the word for what the input was taken for.
pub fn attempt(target: &Target, input: &[u8]) -> Result<(String, Taken), Failure> {
    allocation::begin();
    let read = catch_unwind(AssertUnwindSafe(|| (target.read)(input)));
    let taken = allocation::taken();
    let word = read.map_err(|panic| Failure::Panic(words(panic.as_ref())))?;
    let (each, empty) = target.memory;
    if taken.bytes > empty + each * input.len() as u64 || taken.peak > PEAK_MAX {
        return Err(Failure::Memory(taken));
    }
    Ok((word, taken))
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("without words").to_owned()
}
