//! A directory that may be a root, as it is found: what it is, and where a replica's state is or would be.
//!
//! Owns the two places of a root's state: `.instep` at its top, and the one in the user's state directory
//! that is found by the identity of the root's inode. Invariant: everything here looks only. What makes those
//! places is `home`.

use std::path::{Path, PathBuf};

use instep_core::id::{ReplicaId, ShareId};
use instep_core::policy::Role;
use instep_fs::{Dir, Profile, Stat, place};
use instep_replica::Result;

use super::evidence::Evidence;
use super::files::{INDEX, LOCK, MARKER, reserved};
use super::guard::Guard;
use super::marker::Marker;
use crate::replica::{RootGuard, fs_error};

/// A directory, open, and what is known of its place.
pub(super) struct Site {
    /// Its path without links.
    pub(super) path: PathBuf,
    /// The directory.
    pub(super) root: Dir,
    /// What its file system can do.
    pub(super) profile: Profile,
    stat: Stat,
    /// Where its state is when it is not inside.
    pub(super) outside: PathBuf,
}

impl Site {
    /// Finds the directory at a path.
    pub(super) fn find(path: &Path, state_dir: &Path) -> Result<Self> {
        let path = place::canonical(path).map_err(|e| fs_error("find the root", e))?;
        let root = place::open_root(&path).map_err(|e| fs_error("open the root", e))?;
        Self::examine(path, root, state_dir)
    }

    /// Examines a directory that is open already.
    pub(super) fn examine(path: PathBuf, root: Dir, state_dir: &Path) -> Result<Self> {
        let stat = root
            .stat_self()
            .map_err(|e| fs_error("examine the root", e))?;
        let profile = root
            .profile(None)
            .map_err(|e| fs_error("examine the root", e))?;
        let outside = format!("outside/{:016x}-{}", profile.fs_id, stat.ino);
        Ok(Self {
            path,
            root,
            outside: state_dir.join(outside),
            profile,
            stat,
        })
    }

    /// Our directory in the root, if there is one.
    pub(super) fn inside(&self) -> Option<Dir> {
        self.root.open_dir(reserved()).ok()
    }

    /// The root's place in the user's state directory, if there is one.
    pub(super) fn outside(&self) -> Option<Dir> {
        place::open_root(&self.outside).ok()
    }

    /// What identifies this place, with the root's state in `base`.
    pub(super) fn evidence(&self, base: &Dir) -> Result<Evidence> {
        let state = base
            .stat_self()
            .map_err(|e| fs_error("examine the state directory", e))?;
        Ok(Evidence {
            fs_id: self.profile.fs_id,
            root_ino: self.stat.ino,
            state_ino: state.ino,
            state_btime: (state.btime.secs, state.btime.nanos),
        })
    }

    /// Verifies from now on that this is still the root of a replica.
    pub(super) fn guard(&self, id: ReplicaId, inside: bool) -> Box<dyn RootGuard> {
        Box::new(Guard {
            path: self.path.clone(),
            ino: self.stat.ino,
            dev: self.stat.dev,
            replica: id.to_string(),
            inside,
        })
    }

    /// Our directory in the root and its marker, if it is in this share in a role that takes changes.
    pub(super) fn joined_inside(&self, share: ShareId, role: Role) -> Option<(Dir, Marker)> {
        let base = self.inside()?;
        let marker = Marker::of(&base)?;
        let joined = marker.part(share).is_some();
        (joined && role != Role::Source).then_some((base, marker))
    }

    /// The state of a root that could not be changed when it joined the share, and its marker.
    pub(super) fn kept_outside(&self, share: ShareId) -> Option<(Dir, Marker)> {
        let base = self.outside()?;
        let marker = Marker::of(&base)?;
        let was_changed = !marker.part(share)?.is_source();
        was_changed.then_some((base, marker))
    }

    /// Where the state of a root in a role is now, if it has any.
    pub(super) fn state(&self, role: Role) -> Option<Dir> {
        let inside = match role {
            Role::Source => None,
            Role::Both | Role::Target => self.inside().filter(|d| Marker::of(d).is_some()),
        };
        inside.or_else(|| self.outside())
    }

    /// Whether a root is that of a replica: its marker says so, wherever it is kept.
    pub(super) fn is_of(&self, id: ReplicaId, role: Role) -> bool {
        let base = match self.inside() {
            Some(base) if role != Role::Source => Some(base),
            _ => self.outside(),
        };
        let marker = base.as_ref().and_then(Marker::of);
        marker.is_some_and(|m| m.replica() == id.to_string())
    }
}

/// Something in a directory with our name that is not ours.
pub(super) fn foreign(dir: &Dir) -> Option<String> {
    if Marker::of(dir).is_some() {
        return None;
    }
    let mut other = None;
    let listed = dir.list(&mut |n, _| {
        let known = [
            MARKER,
            LOCK,
            INDEX,
            "staging",
            "trash",
            "versions",
            "shares",
            ".gitignore",
        ];
        let text = String::from_utf8_lossy(n);
        // A death may leave the draft of a small file of ours.
        let text = text.strip_suffix(".new").unwrap_or(&text);
        let is_ours = known.contains(&text)
            || text.starts_with(INDEX)
            || text.starts_with(MARKER)
            || text.starts_with("probe-");
        if !is_ours {
            other = Some(format!("contains \"{}\"", text.escape_debug()));
        }
    });
    if listed.is_err() {
        Some("cannot be listed".into())
    } else {
        other
    }
}
