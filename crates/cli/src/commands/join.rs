//! `join`: this device becomes known to a hub, and takes part in the share that it was invited to.

use std::ffi::OsString;
use std::io::BufRead as _;
use std::path::{Path, PathBuf};

use super::{Context, sync};
use crate::args::{self, Entry};
use crate::error::{Exit, Failure};
use crate::far::hubs::{Address, Device};
use crate::hub::order::Joined;
use crate::{code_file, endpoint};

/// Carries it out.
pub(crate) fn run(args: args::Join, context: &Context) -> Result<Exit, Failure> {
    let joined = enter(&args.hub, &args.entry, context)?;
    let Some(share) = joined.share else {
        context.output.note(&format!(
            "next    instep share add NAME FOLDER --hub {}",
            args.hub
        ));
        return Ok(Exit::Done);
    };
    let folder = match args.to {
        Some(folder) => folder,
        None => ask_where(&share, context)?,
    };
    let session = args::Session {
        create: true,
        ..args.session
    };
    follow(&folder, &args.hub, &share, session, context)
}

/// Joins a hub with a code, which is asked for where no file has it.
pub(crate) fn enter(hub: &Address, entry: &Entry, context: &Context) -> Result<Joined, Failure> {
    enter_as(&Device::own(), hub, entry, context)
}

/// As [`enter`], as another device than the user's.
pub(crate) fn enter_as(
    device: &Device,
    hub: &Address,
    entry: &Entry,
    context: &Context,
) -> Result<Joined, Failure> {
    let code = match &entry.token_file {
        Some(file) => code_file::read(file)?,
        None => {
            context
                .output
                .note(&format!("The code of the invitation to {hub}:"));
            line()?
        }
    };
    let name = entry.name.clone().unwrap_or_else(own_name);
    let joined = device.join(hub, &code, &name)?;
    let what = match &joined.share {
        Some(share) => format!("the share {share}, {}", joined.right.word()),
        None => "everything at the hub".to_owned(),
    };
    context
        .output
        .note(&format!("joined  {hub} as {}: {what}", joined.you));
    Ok(joined)
}

/// Keeps a folder equal to a share of a hub.
pub(crate) fn follow(
    folder: &Path,
    hub: &Address,
    share: &str,
    session: args::Session,
    context: &Context,
) -> Result<Exit, Failure> {
    let far = OsString::from(format!("sync://{hub}/{share}"));
    // A folder is never taken for something else because of how it is written.
    let here = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let roots = vec![endpoint::parse(here.as_os_str())?, endpoint::parse(&far)?];
    let args = args::Sync {
        roots,
        prefer: None,
        policy: None,
        merge_shares: false,
        session,
    };
    sync::run(args, context)
}

/// One line of standard input. A code is never an argument: others on the machine can read those.
fn line() -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().lock().read_line(&mut text);
    match read {
        Ok(n) if n > 0 => Ok(text),
        read => {
            let why = read.err().map_or_else(
                || "standard input is at its end".to_owned(),
                |e| e.to_string(),
            );
            Err(Failure::new(1076, Exit::Usage, "no code was given")
                .why(why)
                .remedy("type it when it is asked for, or name a file: --token-file FILE"))
        }
    }
}

fn ask_where(share: &str, context: &Context) -> Result<PathBuf, Failure> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let usual = home.map(|home| home.join(share));
    let shown = usual
        .as_ref()
        .map_or_else(String::new, |p| format!(" [{}]", p.display()));
    context
        .output
        .note(&format!("Where is the share {share} to be?{shown}"));
    let typed = line().unwrap_or_default();
    let typed = typed.trim_end_matches(['\n', '\r']);
    match (typed.is_empty(), usual) {
        (true, Some(usual)) => Ok(usual),
        (true, None) => Err(Failure::new(1000, Exit::Usage, "no folder was named")
            .why("there is no home directory to make one in")
            .remedy("name one: --to FOLDER")),
        (false, _) => endpoint::parse(std::ffi::OsStr::new(typed)).map(|e| e.path),
    }
}

fn own_name() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
    let machine = instep_fs::place::machine_name();
    match (user, machine.as_str()) {
        (Ok(user), "") => user,
        (Ok(user), machine) => format!("{user}@{machine}"),
        (Err(_), machine) => machine.to_owned(),
    }
}
