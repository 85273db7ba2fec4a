//! What can be seen of a root without touching it: for questions, and before anything is decided.
//!
//! Invariant: nothing is made anywhere, and a root that is missing or cannot be opened is an answer, not an
//! error.

use std::path::{Path, PathBuf};

use instep_fs::{Dir, Kind, place};
use instep_replica::Result;

use super::files::reserved;
use super::lock;
use super::marker::{Marker, Membership};
use super::site::{Site, foreign};

/// What can be seen of a root without touching it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// Its path without links.
    pub path: PathBuf,
    /// Something is there.
    pub exists: bool,
    /// It is a directory.
    pub is_dir: bool,
    /// A name of ours in it was made by someone else; what exactly.
    pub foreign: Option<String>,
    /// Its shares.
    pub memberships: Vec<Membership>,
    /// Who holds it: `pid 123: instep sync a b`.
    pub holder: Option<String>,
}

/// Looks at a root and at what is recorded about it. Creates nothing.
pub fn inspect(path: &Path, state_dir: &Path) -> Result<Inspection> {
    let full = place::canonical(path).ok();
    let mut out = Inspection {
        exists: full.is_some() || path.symlink_metadata().is_ok(),
        is_dir: full.as_ref().is_some_and(|p| p.is_dir()),
        path: full.clone().unwrap_or_else(|| path.to_path_buf()),
        foreign: None,
        memberships: Vec::new(),
        holder: None,
    };
    let Some(root) = full.and_then(|p| place::open_root(&p).ok()) else {
        return Ok(out);
    };
    let site = Site::examine(out.path.clone(), root, state_dir)?;
    match site.root.stat(reserved()) {
        Ok(Some(stat)) if stat.kind != Kind::Dir => {
            out.foreign = Some("is not a directory".into());
        }
        Ok(Some(_)) => {
            if let Some(dir) = site.inside() {
                out.foreign = foreign(&dir);
                add_memberships(&dir, &mut out);
            }
        }
        _ => {}
    }
    if let Some(dir) = site.outside() {
        add_memberships(&dir, &mut out);
    }
    Ok(out)
}

fn add_memberships(dir: &Dir, out: &mut Inspection) {
    let Some(marker) = Marker::of(dir) else {
        return;
    };
    let Some(replica) = marker.id() else { return };
    out.memberships.extend(marker.memberships(replica));
    if out.holder.is_none() {
        out.holder = lock::holder(dir);
    }
}
