//! The folders that a command about existing shares works on: those named, or the one around the current
//! directory; and the other members of their shares that can be reached.
//!
//! Invariant: nothing here creates or changes anything.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use instep_core::path::RelPath;
use instep_core::policy::Role;
use instep_replica::Replica;
use instep_replica::env::Env;

use crate::connect::{self, Purpose, Settings};
use crate::control::client::{self, Client};
use crate::error::{Exit, Failure};
use crate::places;
use crate::roots::{self, Choice, Membership, Root};

/// One folder as a member of one share.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The folder.
    pub(crate) root: Root,
    /// What it is in the share.
    pub(crate) member: Membership,
}

impl Target {
    /// The session that holds it, if there is one.
    pub(crate) fn client(&self) -> Result<Option<Client>, Failure> {
        client::connect(&places::runtime_dir(), self.member.replica)
    }

    /// Opens its index for reading.
    pub(crate) fn read(
        &self,
        env: &Arc<dyn Env>,
        settings: &Settings,
    ) -> Result<Arc<dyn Replica>, Failure> {
        self.open(env, settings, Purpose::Read)
    }

    /// Opens it.
    pub(crate) fn open(
        &self,
        env: &Arc<dyn Env>,
        settings: &Settings,
        purpose: Purpose,
    ) -> Result<Arc<dyn Replica>, Failure> {
        let share = self.member.share;
        connect::open(
            env,
            settings,
            &self.root,
            (Choice::Existing(share), share),
            self.member.mirror,
            purpose,
        )
    }
}

/// The folders named, each in every share it is in; without any, the folder around the current directory.
pub(crate) fn named(paths: &[PathBuf]) -> Result<Vec<Target>, Failure> {
    if paths.is_empty() {
        let here = std::env::current_dir().map_err(|e| {
            Failure::new(1019, Exit::Usage, "find the current directory").why(e.to_string())
        })?;
        return Ok(holding(&here)?
            .into_iter()
            .map(|(target, _)| target)
            .collect());
    }
    let mut out = Vec::new();
    for path in paths {
        let found = at(path)?;
        if found.is_empty() {
            return Err(unknown(path));
        }
        out.extend(found);
    }
    Ok(out)
}

/// Why a folder that no share is known of cannot be asked about.
pub(crate) fn unknown(path: &Path) -> Failure {
    let shown = path.display();
    if let Err(unreadable) = connect::inspect(path).and_then(|s| roots::check_readable(path, &s)) {
        unreadable
    } else if path.exists() {
        Failure::new(
            1020,
            Exit::Usage,
            format!("{shown} has never been synchronized"),
        )
        .why("there is no marker of a share in it")
        .remedy(format!("instep sync {shown} OTHER"))
    } else {
        Failure::new(1004, Exit::Usage, format!("{shown} does not exist"))
            .why("there is nothing at this path")
            .remedy("mount it or correct the path")
    }
}

/// A folder in every share that it is in.
pub(crate) fn at(path: &Path) -> Result<Vec<Target>, Failure> {
    let seen = connect::inspect(path)?;
    let target = |m: &Membership| Target {
        root: Root {
            label: m.label.clone(),
            typed: path.to_path_buf(),
            role: m.role,
            seen: seen.clone(),
        },
        member: m.clone(),
    };
    Ok(seen.memberships.iter().map(target).collect())
}

/// The synchronized folder around a path (which need not exist), in each of its shares, and where in it the
/// path is.
pub(crate) fn holding(path: &Path) -> Result<Vec<(Target, RelPath)>, Failure> {
    let full = absolute(path);
    let mut unreadable = None;
    for dir in full.ancestors() {
        let found = at(dir)?;
        if found.is_empty() {
            let of = || roots::check_readable(dir, &connect::inspect(dir)?);
            unreadable = unreadable.or_else(|| of().err());
        } else {
            use std::os::unix::ffi::OsStrExt as _;
            let rest = full.strip_prefix(dir).unwrap_or(Path::new(""));
            let rel = RelPath::new(rest.as_os_str().as_bytes()).map_err(|e| {
                Failure::new(
                    1019,
                    Exit::Usage,
                    format!("{} cannot be synchronized", path.display()),
                )
                .why(e.to_string())
                .remedy("use a path whose names are valid")
            })?;
            return Ok(found.into_iter().map(|t| (t, rel.clone())).collect());
        }
    }
    // What cannot be looked into may be one.
    let none = || {
        let what = format!("{} is not in a synchronized folder", path.display());
        Failure::new(1019, Exit::Usage, what)
            .why("neither it nor a folder above it is in a share")
            .remedy("name a folder that instep sync or instep mirror has been run on")
    };
    Err(unreadable.unwrap_or_else(none))
}

/// Absolute, without dots, links above the last name followed.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    let joined = std::env::current_dir().map_or_else(|_| path.to_path_buf(), |dir| dir.join(path));
    let mut plain = PathBuf::new();
    for part in joined.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    let above = plain.parent().and_then(|p| p.canonicalize().ok());
    match (above, plain.file_name()) {
        (Some(above), Some(name)) => above.join(name),
        _ => plain,
    }
}

/// The targets and every other member of their shares that is there now. A mirror's source comes first, where
/// its engine expects it.
pub(crate) fn with_members(targets: &[Target]) -> Vec<Target> {
    let mut seen: BTreeSet<[u8; 16]> = targets.iter().map(|t| t.member.replica.0).collect();
    let mut out = targets.to_vec();
    for target in targets {
        for (_, location) in &target.member.members {
            // A member that is not there now is offline, which is no mistake of whoever asks.
            let others = at(location).unwrap_or_default();
            for other in others
                .into_iter()
                .filter(|o| o.member.share == target.member.share)
            {
                if seen.insert(other.member.replica.0) {
                    out.push(other);
                }
            }
        }
    }
    out.sort_by_key(|t| t.member.role != Role::Source);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_are_taken_out_without_following_the_last_name() {
        assert_eq!(
            absolute(Path::new("/proc/../proc/./self")),
            Path::new("/proc/self")
        );
        assert_eq!(
            absolute(Path::new("/nonexistent/x/../y")),
            Path::new("/nonexistent/y")
        );
        assert_eq!(absolute(Path::new("/")), Path::new("/"));
    }
}
