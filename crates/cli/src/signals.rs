//! SIGINT and SIGTERM: the first asks the session to finish its epoch, the second ends the process at once.
//!
//! Invariant: after the first signal the state on disk is consistent when the process ends, and the exit code
//! is 130 or 143. After the second it is consistent too, because the store survives a kill.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::{Exit, Failure};

/// Which signal came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Caught(Arc<AtomicI32>);

impl Caught {
    /// How the program ends because of it.
    pub(crate) fn exit(&self) -> Option<Exit> {
        match self.0.load(Ordering::SeqCst) {
            SIGINT => Some(Exit::Interrupted),
            SIGTERM => Some(Exit::Terminated),
            _ => None,
        }
    }
}

/// Signals that are taken from now on, although nobody acts on them yet.
///
/// While a handler is being set, the signal that it is for may be lost. So this comes before anything that a user could
/// see of a session, and whoever signals after that is heard.
pub(crate) struct Taken(Signals);

impl Taken {
    /// Takes SIGINT and SIGTERM; a second one ends the process.
    pub(crate) fn begin() -> Result<Self, Failure> {
        let armed = Arc::new(AtomicBool::new(false));
        // First, because from the first registration on a signal that nobody listens to is lost.
        let signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
        for signal in [SIGINT, SIGTERM] {
            // The order matters: a signal ends the process only if an earlier one has armed it.
            signal_hook::flag::register_conditional_shutdown(
                signal,
                128 + signal,
                Arc::clone(&armed),
            )
            .map_err(failed)?;
            signal_hook::flag::register(signal, Arc::clone(&armed)).map_err(failed)?;
        }
        Ok(Self(signals))
    }

    /// Calls `stop` at the first signal, also if it came before.
    pub(crate) fn listen(self, stop: impl Fn() + Send + 'static) -> Result<Caught, Failure> {
        let Self(mut signals) = self;
        let caught = Caught::default();
        let theirs = caught.clone();
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                if let Some(signal) = signals.forever().next() {
                    theirs.0.store(signal, Ordering::SeqCst);
                    stop();
                }
            })
            .map_err(failed)?;
        Ok(caught)
    }
}

fn failed(e: std::io::Error) -> Failure {
    Failure::new(1900, Exit::Failed, "listen for SIGINT and SIGTERM").why(e.to_string())
}
