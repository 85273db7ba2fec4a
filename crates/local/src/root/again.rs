//! A root that is opened anew within a session, because it is back or has changed what it allows.
//!
//! Invariant: what is opened is the root of the same replica, and the old one has let go of its lock and its
//! index before. Nothing is made where the root is missing.

use std::sync::Arc;

use instep_core::policy::Role;
use instep_fs::place;
use instep_replica::{Replica, Result};

use super::open::OpenOptions;
use crate::replica::{LocalReplica, locked};

/// The replica of the same root, opened anew where that gains something: the root is back in its place on
/// another device, its index could not be written, or it can be changed now and could not before.
pub fn open_again(old: &LocalReplica) -> Result<Option<Arc<dyn Replica>>> {
    let options = locked(&old.again).clone();
    let Some(options) = options.map(|o| OpenOptions { create: false, ..o }) else {
        return Ok(None);
    };
    let Ok(root) = place::open_root(&options.path) else {
        return Ok(None);
    };
    let is_same = old.in_place().is_ok();
    let can_change = !root.is_read_only().unwrap_or(true);
    let gains = !is_same || old.is_broken() || (!old.is_writable() && can_change);
    let useful = gains && (options.role != Role::Source || !is_same || old.is_broken());
    if !useful || !LocalReplica::is_root_of(&old.env, &options, old.id()) {
        return Ok(None);
    }
    // A process cannot lock a file twice, nor write one index through two hands.
    old.let_go()?;
    let env = Arc::clone(&old.env);
    let anew = Arc::new(LocalReplica::open_as(env, options, Some(old.id()))?);
    let _only_once = old.successor.set(Arc::clone(&anew));
    Ok(Some(anew))
}
