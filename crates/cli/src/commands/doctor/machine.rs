//! The machine: limits of the kernel, the place of the sockets, what is built in.

use std::io;
use std::os::unix::net::UnixStream;

use instep_fs::place;

use super::finding::{Finding, Fix};
use crate::error::{Exit, Failure};
use crate::quantity::{count, counted};
use crate::{control, places};

/// Files that a session may have open besides one for each of its directories.
const OPEN_FILES: u64 = 1024;

/// What was found of the machine.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// Directories that are to be watched, and folders.
    pub(super) dirs: u64,
    pub(super) roots: u64,
    /// The limits of inotify; zero where the system does not say.
    pub(super) watches: u64,
    pub(super) watchers: u64,
    /// Why no watcher can be made now.
    pub(super) no_watcher: Option<String>,
    pub(super) open_files: u64,
    /// The directory of the sockets, why it cannot be used, and those in it that nobody listens on.
    pub(super) sockets: String,
    pub(super) no_sockets: Option<Failure>,
    pub(super) stale: Vec<String>,
    /// The directory with what is remembered of all folders, and why nothing can be written there.
    pub(super) state: String,
    pub(super) no_state: Option<String>,
    /// `SQLite`: what is built in, and what is needed.
    pub(super) sqlite: (&'static str, &'static str),
    pub(super) sqlite_is_old: bool,
}

impl Facts {
    /// Looks; creates nothing.
    pub(super) fn gather(dirs: u64, roots: usize) -> Self {
        let runtime = places::runtime_dir();
        let (stale, no_sockets) = match control::Place::open(&runtime) {
            Ok(Some(place)) => (stale(&place), None),
            Ok(None) => (Vec::new(), None),
            Err(why) => (Vec::new(), Some(why)),
        };
        let state = places::state_dir();
        // What is not there yet is made where the first folder is opened.
        let existing = state.ancestors().find(|dir| dir.is_dir());
        let sqlite = instep_store::sqlite_versions();
        Self {
            dirs,
            roots: roots as u64,
            watches: place::watch_limit(),
            watchers: place::watcher_limit(),
            no_watcher: instep_fs::watch::Watcher::new()
                .err()
                .map(|e| e.to_string()),
            open_files: place::open_files_limit(),
            sockets: runtime.display().to_string(),
            no_sockets,
            stale,
            no_state: existing.and_then(|dir| place::may_write(dir).err().map(|e| e.to_string())),
            state: state.display().to_string(),
            sqlite_is_old: numbers(sqlite.0) < numbers(sqlite.1),
            sqlite,
        }
    }
}

fn numbers(version: &str) -> Vec<u32> {
    version.split('.').map(|n| n.parse().unwrap_or(0)).collect()
}

/// Sockets behind which no process is.
fn stale(place: &control::Place) -> Vec<String> {
    let is_dead = |name: &String| {
        let refused = UnixStream::connect(place.path_of(name)).err();
        refused.is_some_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
    };
    place.sockets().into_iter().filter(is_dead).collect()
}

/// What it means.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut out = vec![watches(facts), watchers(facts)];
    out.push(if facts.open_files < OPEN_FILES {
        let n = count(facts.open_files);
        Finding::warn(2403, format!("at most {n} files may be open at once"))
            .why(format!(
                "the limit of open files is {n}, a session may need {OPEN_FILES}"
            ))
            .effect("a session with many folders works on fewer files at a time")
            .remedy(format!("ulimit -Hn {}", OPEN_FILES * 4))
    } else {
        Finding::good(format!("open files: up to {}", limit(facts.open_files)))
    });
    out.push(match &facts.no_sockets {
        Some(why) => Finding {
            effect: String::from("sessions cannot be reached by commands"),
            ..Finding::of("sockets", why)
        },
        None if facts.stale.is_empty() => Finding::good(format!("sockets in {}", facts.sockets)),
        None => sockets(facts),
    });
    out.push(match &facts.no_state {
        Some(why) => Finding::fail(
            1005,
            Exit::Denied,
            format!("{} cannot be written", facts.state),
        )
        .why(why.clone())
        .effect("no folder can be opened to be changed")
        .remedy(format!("sudo chown -R $(id -u) {}", facts.state)),
        None => Finding::good(format!("state in {}", facts.state)),
    });
    let (found, needed) = facts.sqlite;
    out.push(if facts.sqlite_is_old {
        Finding::fail(
            2412,
            Exit::Failed,
            format!("SQLite {found} is older than {needed}"),
        )
        .why("the program was built with another SQLite than the one it brings")
        .effect("an older one can damage an index when two processes use it")
        .remedy("cargo install --path crates/cli --locked")
    } else {
        Finding::good(format!("SQLite {found}"))
    });
    out
}

fn limit(n: u64) -> String {
    if n > u64::from(u32::MAX) {
        String::from("any number")
    } else {
        count(n)
    }
}

fn watches(facts: &Facts) -> Finding {
    let have = limit(facts.watches);
    let dirs = counted(facts.dirs, "directory");
    if facts.watches >= facts.dirs || facts.watches == 0 {
        return Finding::good(format!("inotify watches: {have} for {dirs}"));
    }
    let wanted = (facts.dirs * 2).next_power_of_two().max(524_288);
    Finding::warn(2401, format!("inotify watches: {have} for {dirs}"))
        .why("each directory takes one, and other programs of this user take from the same number")
        .effect("directories without one are looked at every few seconds: changes there come later")
        .remedy(format!("sudo sysctl fs.inotify.max_user_watches={wanted}"))
        .remedy(format!(
            "echo fs.inotify.max_user_watches={wanted} | sudo tee /etc/sysctl.d/60-instep.conf"
        ))
}

fn watchers(facts: &Facts) -> Finding {
    let Some(why) = &facts.no_watcher else {
        return Finding::good(format!(
            "inotify instances: {} for {}",
            limit(facts.watchers),
            counted(facts.roots, "folder")
        ));
    };
    let wanted = (facts.watchers * 2).max(512);
    Finding::warn(2402, "no further inotify instance can be had")
        .why(format!("{why}; the limit is {}", limit(facts.watchers)))
        .effect("folders are looked at every few seconds instead of watched")
        .remedy(format!(
            "sudo sysctl fs.inotify.max_user_instances={wanted}"
        ))
}

fn sockets(facts: &Facts) -> Finding {
    let n = counted(facts.stale.len() as u64, "socket");
    let rm = facts.stale.iter().map(|s| format!("{}/{s}", facts.sockets));
    let rm: Vec<String> = rm.collect();
    Finding::warn(
        2405,
        format!("{n} in {} of sessions that died", facts.sockets),
    )
    .why("nobody listens on them")
    .effect("none: the next session of the folder replaces its own")
    .remedy(String::from("instep doctor --fix"))
    .remedy(format!("rm {}", rm.join(" ")))
    .fix(Fix::Sockets(facts.stale.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot;
    use crate::ui::capture;

    fn text(facts: &Facts) -> String {
        let style = capture::style();
        judge(facts).iter().map(|f| f.render(&style)).collect()
    }

    fn well() -> Facts {
        Facts {
            dirs: 61_204,
            roots: 3,
            watches: 524_288,
            watchers: 128,
            no_watcher: None,
            open_files: 1_048_576,
            sockets: "/run/user/1000/instep".into(),
            no_sockets: None,
            stale: Vec::new(),
            state: "/home/ada/.local/state/instep".into(),
            no_state: None,
            sqlite: ("3.51.3", "3.51.3"),
            sqlite_is_old: false,
        }
    }

    #[test]
    fn a_machine_is_told_as_recorded() {
        snapshot::check("doctor-machine", &text(&well()));
    }

    #[test]
    fn what_a_machine_lacks_is_told_with_the_command_that_mends_it() {
        let facts = Facts {
            watches: 8_192,
            no_watcher: Some("make a watcher: too many open files (errno 24)".into()),
            open_files: 256,
            stale: vec!["0f3a.sock".into()],
            no_state: Some("write in \"/home/ada\": permission denied (errno 13)".into()),
            sqlite: ("3.46.0", "3.51.3"),
            sqlite_is_old: numbers("3.46.0") < numbers("3.51.3"),
            ..well()
        };
        snapshot::check("doctor-machine-lacks", &text(&facts));
    }
}
