//! Trials alone: the process tells which persistent steps it reaches, and dies at the one that it is asked to die at.
//!
//! Compiled with the feature `steps` only, which no program for people has. Invariant: dying is a SIGKILL of the
//! process by itself, after which the thread that reached the step does nothing more.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::sync::{Mutex, OnceLock, PoisonError};

use instep_replica::Step;
use rustix::process::{Signal, getpid, kill_process};

/// `NAME:N`: die when the step is reached for the Nth time.
const STOP_AT: &str = "INSTEP_STOP_AT";
/// A file that gets the name of each step on a line of its own.
const TELL: &str = "INSTEP_STEPS_TO";
/// The boot that the machine is to be taken for.
const BOOT: &str = "INSTEP_BOOT";

/// What was asked for, and what was reached so far in this process.
struct Steps {
    stop: Option<(Step, u64)>,
    tell: Option<File>,
    reached: Mutex<BTreeMap<Step, u64>>,
}

static STEPS: OnceLock<Steps> = OnceLock::new();

impl Steps {
    fn asked() -> Self {
        let stop = std::env::var(STOP_AT).ok();
        let tell = std::env::var_os(TELL);
        let open = |path: &OsString| OpenOptions::new().append(true).create(true).open(path);
        Self {
            stop: stop.map(|text| {
                parse(&text).unwrap_or_else(|| panic!("{STOP_AT}={text} names no step"))
            }),
            tell: tell.map(|path| {
                open(&path).unwrap_or_else(|e| panic!("cannot open {}: {e}", path.display()))
            }),
            reached: Mutex::default(),
        }
    }
}

fn parse(text: &str) -> Option<(Step, u64)> {
    let (name, times) = text.split_once(':')?;
    let step = Step::ALL.iter().find(|s| s.name() == name)?;
    Some((*step, times.parse().ok()?))
}

/// A step was reached.
pub(crate) fn reach(step: Step) {
    let steps = STEPS.get_or_init(Steps::asked);
    let mut reached = steps.reached.lock().unwrap_or_else(PoisonError::into_inner);
    let times = reached.entry(step).or_default();
    *times += 1;
    if let Some(mut file) = steps.tell.as_ref() {
        let line = format!("{}\n", step.name());
        file.write_all(line.as_bytes())
            .unwrap_or_else(|e| panic!("cannot tell of a step: {e}"));
    }
    if steps.stop == Some((step, *times)) {
        kill_process(getpid(), Signal::KILL).unwrap_or_else(|e| panic!("cannot die: {e}"));
    }
}

/// The boot that was asked for.
pub(crate) fn boot() -> Option<String> {
    std::env::var(BOOT).ok()
}
