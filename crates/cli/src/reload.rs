//! The ignore rules of the configuration take effect while a session runs.
//!
//! The file is looked at each second. Invariant: a file that cannot be used changes nothing: the rules that
//! were read before stay in force, and that is said. Only the ignore rules are exchanged; every other setting
//! takes effect with the next session.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::args;
use crate::commands::Context;
use crate::config::{self, Config};
use crate::connect::{IgnoreRules, Settings};
use crate::error::{Exit, Failure};

/// Between two looks at the file.
const EVERY: Duration = Duration::from_secs(1);

/// A configuration that was read again and is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Applied {
    /// How many times it was exchanged in this session.
    pub(crate) generation: u64,
    /// The file.
    pub(crate) file: String,
    /// Something besides the ignore rules differs, which waits for the next session.
    pub(crate) more: bool,
}

/// The thread that looks at the file; ends when this is dropped.
pub(crate) struct Reload {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Reload {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed, and concerns nobody else.
            drop(thread.join());
        }
    }
}

impl Reload {
    /// Starts to look at the file that the context was read from.
    pub(crate) fn start(
        context: &Context,
        session: &args::Session,
        rules: IgnoreRules,
        say: impl Fn(Result<Applied, Failure>) + Send + 'static,
    ) -> Result<Self, Failure> {
        let mut watched = Watched {
            named: context.named.clone(),
            session: session.clone(),
            config: context.config.clone(),
            rules,
            seen: context.stamp,
            generation: 0,
        };
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("config".into())
            .spawn(move || {
                while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                    watched.look().into_iter().for_each(&say);
                }
            })
            .map_err(|e| {
                Failure::new(
                    1900,
                    Exit::Failed,
                    "start the thread that reads the configuration",
                )
                .why(e.to_string())
            })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

/// The file as it was read last.
struct Watched {
    named: Option<std::path::PathBuf>,
    session: args::Session,
    config: Config,
    rules: IgnoreRules,
    seen: config::Stamp,
    generation: u64,
}

impl Watched {
    /// Reads the file if it changed; what came of it.
    fn look(&mut self) -> Option<Result<Applied, Failure>> {
        let stamp = config::stamp(self.named.as_deref());
        if stamp == self.seen {
            return None;
        }
        self.seen = stamp;
        let read = Config::load(self.named.as_deref());
        Some(read.map(|config| self.apply(config)).map_err(|failure| {
            failure.effect("the ignore rules that were read before stay in force")
        }))
    }

    fn apply(&mut self, config: Config) -> Applied {
        self.rules.replace(&Settings::new(&config, &self.session));
        self.generation += 1;
        let only_rules = Config {
            defaults: config::Defaults {
                ignore: config.defaults.ignore.clone(),
                ..self.config.defaults.clone()
            },
            ..self.config.clone()
        };
        let more = only_rules != config;
        self.config.defaults.ignore = config.defaults.ignore;
        let file = config::file(self.named.as_deref()).display().to_string();
        Applied {
            generation: self.generation,
            file,
            more,
        }
    }
}
