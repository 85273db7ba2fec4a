//! The end of a membership, and of a replica that is in no share any more.
//!
//! This is the one place that destroys our directory with its trash and version store, and only when a
//! person asked for just that. Invariant: nothing is ended while another process holds the root.

use std::path::Path;

use instep_core::id::ShareId;
use instep_core::path::Name;
use instep_fs::{Dir, Kind};
use instep_replica::env::Env;
use instep_replica::{Result, Step};

use super::evidence::unregister;
use super::files::reserved;
use super::lock;
use super::marker::Marker;
use super::site::Site;
use crate::replica::fs_error;

/// Takes a root out of a share. With `purge` everything of ours in it is destroyed, which includes its
/// trash and version store; without, the state stays in place and only the membership ends.
pub fn forget(
    env: &dyn Env,
    path: &Path,
    state_dir: &Path,
    share: ShareId,
    purge: bool,
) -> Result<()> {
    let site = Site::find(path, state_dir)?;
    let places = [(site.inside(), true), (site.outside(), false)];
    for (base, is_inside) in places {
        let Some(base) = base else { continue };
        let Some(mut marker) = Marker::of(&base) else {
            continue;
        };
        if !marker.leave(share) {
            continue;
        }
        let _lock = lock::take_briefly(&base, &site.path)?;
        if purge && marker.is_in_no_share() {
            empty(env, &base).map_err(|e| fs_error("remove .instep", e))?;
            unregister(state_dir, marker.replica());
            env.reach(Step::EvidenceGone);
            if is_inside {
                site.root
                    .remove_dir(reserved())
                    .map_err(|e| fs_error("remove .instep", e))?;
            }
        } else {
            marker.write(env, &base)?;
            env.reach(Step::Left);
        }
    }
    Ok(())
}

/// Empties a directory of ours: two levels, which is all that we make.
fn empty(env: &dyn Env, dir: &Dir) -> instep_fs::Result<()> {
    let mut all: Vec<(Vec<u8>, bool)> = Vec::new();
    dir.list_stat(&mut |n, s| {
        all.push((n.to_vec(), s.is_ok_and(|s| s.kind == Kind::Dir)));
    })?;
    for (entry, is_dir) in all {
        let Ok(entry) = Name::new(&entry) else {
            continue;
        };
        if is_dir {
            empty(env, &dir.open_dir(entry)?)?;
            dir.remove_dir(entry)?;
        } else {
            dir.remove_file(entry)?;
        }
        env.reach(Step::StateRemoved);
    }
    Ok(())
}
