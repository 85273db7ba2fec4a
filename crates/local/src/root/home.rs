//! Where the state of a root that is in use lives: made if it is missing, and locked.
//!
//! Owns the making of `.instep` in a root and of its stand-in in the user's state directory. A root that must
//! not be touched (a mirror's source, a read-only file system) is left as it is. Invariant: nothing is made
//! in a directory with our name that someone else made, and nobody has a [`Home`] without its lock.

use instep_core::policy::Role;
use instep_fs::{Dir, ErrorKind as FsErrorKind, LockFile, place};
use instep_replica::env::Env;
use instep_replica::{Error, ErrorKind, Result, Step};

use super::files::{reserved, write_text};
use super::lock;
use super::site::{Site, foreign};
use crate::replica::fs_error;
use crate::tree::ours;

/// The directory that has a root's state, locked.
pub(super) struct Home {
    /// The directory.
    pub(super) base: Dir,
    /// It is in the root.
    pub(super) inside: bool,
    /// Held for as long as the root is used.
    pub(super) lock: LockFile,
}

impl Home {
    /// The home of a root in a role. `command` is what others are told who find it locked.
    pub(super) fn take(env: &dyn Env, site: &Site, role: Role, command: &str) -> Result<Self> {
        if role == Role::Source || site.profile.read_only {
            return Self::outside(env, site, command);
        }
        match site.root.make_dir(reserved(), 0o700) {
            Ok(()) => env.reach(Step::HomeMade),
            Err(e) if e.kind() == FsErrorKind::Taken => {}
            Err(e) if e.kind() == FsErrorKind::ReadOnly => {
                return Self::outside(env, site, command);
            }
            Err(e) => return Err(fs_error("make .instep in the root", e)),
        }
        let base = site
            .root
            .open_dir(reserved())
            .map_err(|e| fs_error("open .instep", e))?;
        if let Some(what) = foreign(&base) {
            let at = site.path.display();
            let attempt = format!("{at}/.instep was made by someone else: it {what}");
            return Err(Error::new(ErrorKind::Denied, attempt));
        }
        if base.stat(ours(".gitignore")).is_ok_and(|s| s.is_none()) {
            write_text(env, &base, ".gitignore", "*\n")
                .map_err(|e| fs_error("write .instep/.gitignore", e))?;
        }
        Self::locked(env, site, base, true, command)
    }

    /// The home of a root in which nothing may be made.
    pub(super) fn outside(env: &dyn Env, site: &Site, command: &str) -> Result<Self> {
        place::create_dir_all(&site.outside, 0o700)
            .map_err(|e| fs_error("make the state directory", e))?;
        let base =
            place::open_root(&site.outside).map_err(|e| fs_error("open the state directory", e))?;
        Self::locked(env, site, base, false, command)
    }

    fn locked(env: &dyn Env, site: &Site, base: Dir, inside: bool, command: &str) -> Result<Self> {
        let lock = lock::take(&base, &site.path, command)?;
        env.reach(Step::Locked);
        Ok(Self { base, inside, lock })
    }
}
