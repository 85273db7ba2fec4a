//! The command line as types: every command, flag and environment variable, and the help text.
//!
//! Owns the grammar only. Invariant: whatever parses here can be carried out without asking a question. It
//! never looks at a file.

mod hub;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use hub::{AtHub, Entry, Invite, Join, Serve, Share, ShareCommand};

use crate::endpoint::{self, Endpoint};
use crate::quantity;

/// The examples that come first in every help text.
pub(crate) const EXAMPLES: &str = "\
Examples:
  instep sync ~/notes /mnt/usb/notes          keep two folders equal, live, until Ctrl-C
  instep sync --once ~/code /mnt/a /mnt/b     make three folders equal, then stop
  instep mirror ~/photos /mnt/backup          copy one way; what it displaces goes to trash";

const MORE: &str = "\
Nothing that a user wrote is ever lost: what is displaced goes to trash or to the version store.
Exit codes: 0 done, 2 usage, 3 some paths failed, 4 conflicts remain, 5 held, 6 root not there,
7 not permitted, 8 in use, 11 damage found, 12 newer format, 13 no room, 130/143 stopped by a signal.";

/// Keeps folders equal, live.
#[derive(Debug, Parser)]
#[command(
    name = "instep",
    version,
    about = "instep keeps any number of folders equal, live.",
    before_help = EXAMPLES,
    after_long_help = MORE,
    after_help = "instep help COMMAND explains a command; instep explain CODE explains an error.",
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = false,
    infer_subcommands = false
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// How to say it.
    #[command(flatten)]
    pub(crate) global: Global,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct Global {
    /// Print JSON: one document, or one object per line from sync and mirror
    #[arg(long, global = true, env = "INSTEP_JSON", hide_env_values = true, value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) json: bool,
    /// Use ASCII symbols and no colour
    #[arg(long, global = true, env = "INSTEP_PLAIN", hide_env_values = true, value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) plain: bool,
    /// Say less: only what needs attention
    #[arg(short, long, global = true, conflicts_with = "verbose", env = "INSTEP_QUIET", hide_env_values = true, value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) quiet: bool,
    /// Say more: every change on a line of its own
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// When to use colour
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        hide_default_value = true,
        env = "INSTEP_COLOR",
        hide_env_values = true
    )]
    pub(crate) color: Color,
    /// Read this configuration file instead of the user's
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "INSTEP_CONFIG",
        hide_env_values = true
    )]
    pub(crate) config: Option<PathBuf>,
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal that has not asked for none
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Keep folders equal, live
    #[command(
        display_order = 1,
        before_help = "\
Examples:
  instep sync ~/notes /mnt/usb/notes
  instep sync --once laptop=~/code usb=/mnt/usb/code
  instep sync -n ~/a ~/b ~/c                  show what would happen, create nothing"
    )]
    Sync(Sync),
    /// Copy one way, exactly; extras and edits at the targets go to trash
    #[command(
        display_order = 2,
        before_help = "\
Examples:
  instep mirror ~/photos /mnt/backup
  instep mirror --once ./public /srv/www1 /srv/www2
  instep mirror -n ~/photos /mnt/backup       show what would happen, create nothing"
    )]
    Mirror(Mirror),
    /// Show what sync would do, and create nothing
    #[command(
        display_order = 3,
        before_help = "\
Examples:
  instep plan ~/notes /mnt/usb/notes
  instep plan --detailed-exitcode ~/a ~/b ~/c"
    )]
    Plan(Plan),
    /// Show how folders stand
    #[command(display_order = 4)]
    Status(Status),
    /// Explain one path: where it is, and why it is not elsewhere
    #[command(display_order = 5)]
    Why(Why),
    /// Show what happened, newest first
    #[command(display_order = 6)]
    Log(Log),
    /// List, show and settle conflicts
    #[command(
        display_order = 7,
        before_help = "\
Examples:
  instep conflicts ~/notes
  instep conflicts resolve 3f2a --keep laptop ~/notes
  instep conflicts resolve --all --keep newest ~/notes"
    )]
    Conflicts(Conflicts),
    /// List what was displaced, bring it back, or destroy it
    #[command(
        display_order = 8,
        before_help = "\
Examples:
  instep trash list --since 2h ~/notes
  instep trash restore drafts/plan.md ~/notes
  instep trash empty --older-than 7d ~/notes"
    )]
    Trash(Trash),
    /// List held deletions, and let them through or undo them
    #[command(
        display_order = 9,
        before_help = "\
Examples:
  instep holds ~/notes
  instep holds approve 7f3a ~/notes           delete on the other replicas too (to trash)
  instep holds reject 7f3a ~/notes            put the files back where they were deleted"
    )]
    Holds(Holds),
    /// Test and list ignore rules
    #[command(display_order = 10)]
    Ignore(Ignore),
    /// Read files again, find those that changed by themselves, and repair them
    #[command(
        display_order = 11,
        before_help = "\
Examples:
  instep verify ~/notes                       every file, and everything in the trash
  instep verify --sample 1% --seed 7 ~/notes  one file of a hundred
  instep verify --repair ~/notes/plan.md      take the good copy"
    )]
    Verify(Verify),
    /// Check the machine and the folders for everything that can be wrong, and say how to mend it
    #[command(
        display_order = 12,
        before_help = "\
Examples:
  instep doctor                 the machine, and the folder around the current directory
  instep doctor --full ~/notes  and every file, as instep verify does
  instep doctor --fix ~/notes   mend what can be mended without deciding anything"
    )]
    Doctor(Doctor),
    /// Take a folder out of its share; its files stay
    #[command(display_order = 13)]
    Forget(Forget),
    /// Run a hub, where folders of many machines meet
    #[command(
        display_order = 14,
        before_help = "\
Examples:
  instep serve                                listen on port 8477, keep everything below the home
  instep serve --data /srv/instep --listen 10.0.0.1:8477"
    )]
    Serve(Serve),
    /// Shares of a hub: add, invite, members, rights
    #[command(
        display_order = 15,
        before_help = "\
Examples:
  instep share add team ~/team --hub hub.example.org
  instep share invite team --role write       prints a code to read to somebody
  instep share members team"
    )]
    Share(Share),
    /// Take part in a share of a hub, with the code of an invitation
    #[command(
        display_order = 16,
        before_help = "\
Examples:
  instep join hub.example.org                 asks for the code, and where the folder is to be
  instep join hub.example.org --to ~/team < code.txt"
    )]
    Join(Join),
    /// Explain an error code
    #[command(display_order = 17)]
    Explain(Explain),
    /// Take part with a folder for whoever is at standard input and output; other machines start this
    #[command(hide = true)]
    Agent,
}

/// Options of commands that run a session.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Session")]
pub(crate) struct Session {
    /// Stop when everything known is done
    #[arg(long, env = "INSTEP_ONCE", hide_env_values = true, value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) once: bool,
    /// Show what would happen and create nothing
    #[arg(short = 'n', long = "dry-run", env = "INSTEP_DRY_RUN", hide_env_values = true, value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) dry_run: bool,
    /// Create roots that do not exist
    #[arg(long, env = "INSTEP_CREATE", hide_env_values = true, value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) create: bool,
    /// Work on so many files at once; as many as the machine has processors unless given
    #[arg(short, long, value_name = "N", env = "INSTEP_JOBS", hide_env_values = true, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) jobs: Option<u16>,
    /// Keep at most so many files open: sets this limit of the process, and works on fewer files at once where
    /// that many would not do
    #[arg(long, value_name = "N", env = "INSTEP_OPEN_FILES", hide_env_values = true, value_parser = clap::value_parser!(u32).range(64..))]
    pub(crate) open_files: Option<u32>,
    /// Look at everything this often instead of relying on events alone: 500ms, 30s, 5m, 1h
    #[arg(long, value_name = "DUR", env = "INSTEP_POLL", hide_env_values = true, value_parser = quantity::duration)]
    pub(crate) poll: Option<Duration>,
    /// Synchronize owner and group too, by name where both sides know it; only root may give files away, and
    /// what cannot be set is listed and left alone
    #[arg(long, env = "INSTEP_OWNER", hide_env_values = true, value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) owner: bool,
    /// Synchronize extended attributes of users too (user.*), up to 64 KiB for each file or directory
    #[arg(long, env = "INSTEP_XATTR", hide_env_values = true, value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) xattr: bool,
    /// Apply .gitignore files too
    #[arg(long, env = "INSTEP_GITIGNORE", hide_env_values = true, value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) gitignore: bool,
}

/// Who wins when versions are concurrent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Policy {
    /// The newest is at the path; every other is kept aside and listed
    Newest,
    /// The newest is at the path; every other becomes a file beside it
    KeepBoth,
    /// Every folder keeps what it has until a person decides
    Manual,
}

/// `sync`.
#[derive(Debug, Args)]
pub(crate) struct Sync {
    /// Folders to keep equal; NAME=PATH gives one a name
    #[arg(value_name = "FOLDER", required = true, num_args = 2.., value_parser = endpoint::parser())]
    pub(crate) roots: Vec<Endpoint>,
    /// Let this folder's version win conflicts that arise from now on
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with = "policy",
        env = "INSTEP_PREFER",
        hide_env_values = true,
        help_heading = "Session"
    )]
    pub(crate) prefer: Option<String>,
    /// Who wins conflicts that arise from now on
    #[arg(
        long,
        env = "INSTEP_POLICY",
        hide_env_values = true,
        help_heading = "Session"
    )]
    pub(crate) policy: Option<Policy>,
    /// Join folders of different shares into one
    #[arg(long, help_heading = "Session")]
    pub(crate) merge_shares: bool,
    /// The rest.
    #[command(flatten)]
    pub(crate) session: Session,
}

/// `mirror`.
#[derive(Debug, Args)]
pub(crate) struct Mirror {
    /// The folder that is copied; nothing in it is created or changed
    #[arg(value_name = "SRC", value_parser = endpoint::parser())]
    pub(crate) source: Endpoint,
    /// Folders that become exact copies
    #[arg(value_name = "DST", required = true, value_parser = endpoint::parser())]
    pub(crate) targets: Vec<Endpoint>,
    /// Go on although SRC is empty and a target is not
    #[arg(long, help_heading = "Session")]
    pub(crate) allow_empty: bool,
    /// The rest.
    #[command(flatten)]
    pub(crate) session: Session,
}

/// `plan`.
#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// Folders to compare; NAME=PATH gives one a name
    #[arg(value_name = "FOLDER", required = true, num_args = 2.., value_parser = endpoint::parser())]
    pub(crate) roots: Vec<Endpoint>,
    /// Exit with 10 when there is something to do
    #[arg(long)]
    pub(crate) detailed_exitcode: bool,
    /// Show at most so many paths; 0 shows all
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub(crate) limit: usize,
    /// Plan as if the shares were joined
    #[arg(long)]
    pub(crate) merge_shares: bool,
    /// Apply .gitignore files too
    #[arg(long, env = "INSTEP_GITIGNORE", hide_env_values = true, value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) gitignore: bool,
}

/// `status`.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Folders; without any, the one around the current directory and all that are in use
    #[arg(value_name = "FOLDER")]
    pub(crate) roots: Vec<PathBuf>,
    /// List every path with a problem
    #[arg(long)]
    pub(crate) problems: bool,
}

/// `why`.
#[derive(Debug, Args)]
pub(crate) struct Why {
    /// A path inside a synchronized folder
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
}

/// `log`.
#[derive(Debug, Args)]
pub(crate) struct Log {
    /// A synchronized folder, or a path inside one
    #[arg(value_name = "PATH")]
    pub(crate) path: Option<PathBuf>,
    /// Only what happened this recently: 30m, 2h, 7d
    #[arg(long, value_name = "DUR", value_parser = quantity::duration)]
    pub(crate) since: Option<Duration>,
    /// Show at most so many lines; 0 shows all
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) limit: usize,
}

/// `conflicts`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Conflicts {
    /// What to do; without it, list.
    #[command(subcommand)]
    pub(crate) what: Option<ConflictsCommand>,
    /// As `list`.
    #[command(flatten)]
    pub(crate) list: ConflictsList,
}

/// What to list.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ConflictsList {
    /// Folders; without any, the one around the current directory
    #[arg(value_name = "FOLDER")]
    pub(crate) roots: Vec<PathBuf>,
    /// Resolved ones too
    #[arg(long)]
    pub(crate) all: bool,
}

/// `conflicts …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConflictsCommand {
    /// List open conflicts
    List(ConflictsList),
    /// Show one conflict
    Show {
        /// Its id, or the start of it
        id: String,
        /// Folders; without any, the one around the current directory
        #[arg(value_name = "FOLDER")]
        roots: Vec<PathBuf>,
    },
    /// Settle one conflict, or all
    Resolve(Resolve),
}

/// `conflicts resolve`.
#[derive(Debug, Args)]
pub(crate) struct Resolve {
    /// Its id or the start of it, then folders; with --all, only folders
    #[arg(value_name = "ID|FOLDER")]
    pub(crate) operands: Vec<OsString>,
    /// Which version to keep at the path: NAME of a folder, newest, or both
    #[arg(long, value_name = "NAME|newest|both")]
    pub(crate) keep: String,
    /// Every open conflict
    #[arg(long)]
    pub(crate) all: bool,
}

/// `trash`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Trash {
    /// What to do; without it, list.
    #[command(subcommand)]
    pub(crate) what: Option<TrashCommand>,
    /// As `list`.
    #[command(flatten)]
    pub(crate) list: TrashList,
}

/// What to list.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TrashList {
    /// Folders; without any, the one around the current directory
    #[arg(value_name = "FOLDER")]
    pub(crate) roots: Vec<PathBuf>,
    /// Only paths that contain this
    #[arg(long = "match", value_name = "TEXT")]
    pub(crate) pattern: Option<String>,
    /// Only what was displaced this recently: 30m, 2h, 7d
    #[arg(long, value_name = "DUR", value_parser = quantity::duration)]
    pub(crate) since: Option<Duration>,
}

/// `trash …`.
#[derive(Debug, Subcommand)]
pub(crate) enum TrashCommand {
    /// List what was displaced, newest first
    List(TrashList),
    /// Bring back what was at a path, with everything below it
    Restore {
        /// The path in the folder, or the id of one object
        #[arg(value_name = "PATH|ID")]
        what: OsString,
        /// Folders; without any, the one around the current directory
        #[arg(value_name = "FOLDER")]
        roots: Vec<PathBuf>,
        /// Only what was displaced this recently: 30m, 2h, 7d
        #[arg(long, value_name = "DUR", value_parser = quantity::duration)]
        since: Option<Duration>,
        /// Put it at this path of the folder instead of where it was
        #[arg(long, value_name = "PATH")]
        to: Option<OsString>,
        /// Show what would be restored
        #[arg(short = 'n', long = "dry-run")]
        dry_run: bool,
    },
    /// Destroy what is in the trash, never the last copy of an open conflict
    Empty {
        /// Folders; at least one, because this cannot be undone
        #[arg(value_name = "FOLDER", required = true)]
        roots: Vec<PathBuf>,
        /// Only what was displaced longer ago than this: 12h, 7d
        #[arg(long, value_name = "DUR", value_parser = quantity::duration)]
        older_than: Option<Duration>,
    },
    /// Show how much is in the trash
    Size {
        /// Folders; without any, the one around the current directory
        #[arg(value_name = "FOLDER")]
        roots: Vec<PathBuf>,
    },
}

/// `holds`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Holds {
    /// What to do; without it, list.
    #[command(subcommand)]
    pub(crate) what: Option<HoldsCommand>,
    /// Folders; without any, the one around the current directory
    #[arg(value_name = "FOLDER")]
    pub(crate) roots: Vec<PathBuf>,
}

/// `holds …`.
#[derive(Debug, Subcommand)]
pub(crate) enum HoldsCommand {
    /// List what is held
    List {
        /// Folders; without any, the one around the current directory
        #[arg(value_name = "FOLDER")]
        roots: Vec<PathBuf>,
    },
    /// Show one hold with its paths
    Show(HoldId),
    /// Let it through: the others delete too, to trash
    Approve(HoldId),
    /// Undo it: put the files back where they were deleted
    Reject(HoldId),
}

/// Which hold.
#[derive(Debug, Clone, Args)]
pub(crate) struct HoldId {
    /// Its id, or the start of it
    pub(crate) id: String,
    /// Folders; without any, the one around the current directory
    #[arg(value_name = "FOLDER")]
    pub(crate) roots: Vec<PathBuf>,
}

/// `ignore`.
#[derive(Debug, Args)]
pub(crate) struct Ignore {
    /// What to do.
    #[command(subcommand)]
    pub(crate) what: IgnoreCommand,
}

/// `ignore …`.
#[derive(Debug, Subcommand)]
pub(crate) enum IgnoreCommand {
    /// Say for each path whether it is ignored, and by which rule
    Test {
        /// Paths inside a folder; they need not exist
        #[arg(value_name = "PATH", required = true)]
        paths: Vec<PathBuf>,
        /// Apply .gitignore files too
        #[arg(long, env = "INSTEP_GITIGNORE", hide_env_values = true, value_parser = clap::builder::FalseyValueParser::new())]
        gitignore: bool,
    },
    /// List the rules that apply everywhere: rule packs and the master list
    List,
}

/// `verify`.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Folders, or paths in them; without any, the folder around the current directory
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Read only so much of all files, the same ones in every folder
    #[arg(long, value_name = "PERCENT", value_parser = crate::quantity::percent)]
    pub(crate) sample: Option<crate::quantity::Percent>,
    /// Draw another sample
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Put back what was recorded, from a good copy; the damaged bytes go to the trash
    #[arg(long, conflicts_with = "accept")]
    pub(crate) repair: bool,
    /// Take the damaged files of the folders named as they are, for a change like any other
    #[arg(long)]
    pub(crate) accept: bool,
}

/// `doctor`.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Folders; without any, the one around the current directory, if there is one
    #[arg(value_name = "FOLDER")]
    pub(crate) roots: Vec<PathBuf>,
    /// Read every file again; without it, one of a hundred
    #[arg(long)]
    pub(crate) full: bool,
    /// Remove dead sockets, and close .instep to other users
    #[arg(long)]
    pub(crate) fix: bool,
}

/// `forget`.
#[derive(Debug, Args)]
pub(crate) struct Forget {
    /// The folder
    #[arg(value_name = "FOLDER")]
    pub(crate) root: PathBuf,
    /// Remove its trash and kept versions too
    #[arg(long)]
    pub(crate) purge: bool,
}

/// `explain`.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// A code such as E1002; without one, all are listed
    #[arg(value_name = "CODE")]
    pub(crate) code: Option<String>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::snapshot;

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_of_every_command_is_as_recorded() {
        let mut all = vec![(
            String::from("help"),
            Cli::command().render_help().to_string(),
        )];
        all.push((
            String::from("help-long"),
            Cli::command().render_long_help().to_string(),
        ));
        let mut cli = Cli::command();
        cli.build();
        for sub in cli.get_subcommands_mut() {
            if sub.get_name() != "help" && !sub.is_hide_set() {
                all.push((
                    format!("help-{}", sub.get_name()),
                    sub.render_help().to_string(),
                ));
                for nested in sub.get_subcommands_mut() {
                    if nested.get_name() != "help" {
                        let name = nested.get_bin_name().unwrap_or_default().replace(' ', "-");
                        all.push((
                            name.replacen("instep", "help", 1),
                            nested.render_help().to_string(),
                        ));
                    }
                }
            }
        }
        for (name, text) in all {
            snapshot::check(&name, &text);
        }
    }

    #[test]
    fn a_root_after_a_listing_command_needs_no_verb() {
        let parsed = Cli::try_parse_from(["instep", "conflicts", "/a"]).unwrap();
        let Command::Conflicts(conflicts) = parsed.command else {
            panic!("another command")
        };
        assert!(conflicts.what.is_none());
        assert_eq!(conflicts.list.roots, [PathBuf::from("/a")]);
        let parsed = Cli::try_parse_from(["instep", "holds", "approve", "7f", "/a"]).unwrap();
        let Command::Holds(holds) = parsed.command else {
            panic!("another command")
        };
        assert!(matches!(holds.what, Some(HoldsCommand::Approve(HoldId { id, .. })) if id == "7f"));
    }

    #[test]
    fn one_folder_is_not_enough_for_sync() {
        assert!(Cli::try_parse_from(["instep", "sync", "/a"]).is_err());
        assert!(Cli::try_parse_from(["instep", "mirror", "/a"]).is_err());
        assert!(Cli::try_parse_from(["instep", "sync", "/a", "/b", "--jobs", "0"]).is_err());
    }
}
