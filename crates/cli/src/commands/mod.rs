//! One file per command: parse nothing, decide nothing about files, only connect arguments, replicas and
//! output.

mod change;
mod conflicts;
mod doctor;
mod explain;
mod forget;
mod holds;
mod ignore;
mod join;
mod log;
mod mirror;
mod plan;
pub(crate) mod serve;
mod share;
mod status;
pub(crate) mod sync;
mod trash;
mod verify;
mod why;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use instep_replica::Replica;
use instep_replica::env::Env;

use crate::args::{Cli, Command, Session};
use crate::config::{self, Config};
use crate::connect::Settings;
use crate::error::{Exit, Failure};
use crate::system_env::SystemEnv;
use crate::targets::{self, Target};
use crate::ui::Output;

/// What every command needs.
pub(crate) struct Context {
    /// Where it prints.
    pub(crate) output: Output,
    /// The user's configuration.
    pub(crate) config: Config,
    /// The configuration file, where one was named.
    pub(crate) named: Option<PathBuf>,
    /// What the configuration file looked like before it was read.
    pub(crate) stamp: config::Stamp,
}

impl Context {
    pub(crate) fn env(jobs: Option<u16>) -> Result<Arc<dyn Env>, Failure> {
        Ok(Arc::new(SystemEnv::new(jobs)?))
    }

    /// How long what was displaced is kept.
    pub(crate) fn keep_trash(&self) -> Duration {
        Duration::from_hours(24 * u64::from(self.config.defaults.trash.days))
    }

    pub(crate) fn settings(&self, session: &Session) -> Settings {
        Settings::new(&self.config, session)
    }

    /// Opens folders for reading, and the other members of their shares that are there.
    fn read(&self, roots: &[PathBuf]) -> Result<Opened, Failure> {
        self.open_to_read(targets::with_members(&targets::named(roots)?))
    }

    /// As [`Self::read`], of one share only.
    fn read_share(&self, target: &Target) -> Result<Opened, Failure> {
        self.open_to_read(targets::with_members(std::slice::from_ref(target)))
    }

    fn open_to_read(&self, targets: Vec<Target>) -> Result<Opened, Failure> {
        let env = Self::env(None)?;
        let settings = self.settings(&Session::default());
        let replicas = targets
            .iter()
            .map(|t| t.read(&env, &settings))
            .collect::<Result<_, _>>()?;
        Ok(Opened { targets, replicas })
    }
}

/// Folders that are open for reading.
pub(crate) struct Opened {
    /// The folders.
    pub(crate) targets: Vec<Target>,
    /// Their replicas, in the same order.
    pub(crate) replicas: Vec<Arc<dyn Replica>>,
}

impl Opened {
    /// The label of a replica.
    pub(crate) fn label(&self, replica: usize) -> &str {
        self.targets
            .get(replica)
            .map_or("?", |t| t.member.label.as_str())
    }
}

/// Carries out a command.
pub(crate) fn run(cli: Cli, output: &Output) -> Result<Exit, Failure> {
    if let Command::Explain(args) = &cli.command {
        return explain::run(args, output);
    }
    let named = cli.global.config;
    let stamp = config::stamp(named.as_deref());
    let context = Context {
        output: output.clone(),
        config: Config::load(named.as_deref())?,
        named,
        stamp,
    };
    match cli.command {
        Command::Sync(args) => sync::run(args, &context),
        Command::Mirror(args) => mirror::run(args, &context),
        Command::Plan(args) => plan::run(args, &context),
        Command::Status(args) => status::run(&args, &context),
        Command::Why(args) => why::run(&args, &context),
        Command::Log(args) => log::run(&args, &context),
        Command::Conflicts(args) => conflicts::run(args, &context),
        Command::Trash(args) => trash::run(args, &context),
        Command::Holds(args) => holds::run(args, &context),
        Command::Ignore(args) => ignore::run(args, &context),
        Command::Verify(args) => verify::run(&args, &context),
        Command::Doctor(args) => doctor::run(&args, &context),
        Command::Forget(args) => forget::run(&args, &context),
        Command::Serve(args) => serve::run(&args, &context),
        Command::Share(args) => share::run(args.what, &context),
        Command::Join(args) => join::run(args, &context),
        Command::Explain(args) => explain::run(&args, output),
        Command::Agent => crate::far::agent::run(&context),
    }
}
