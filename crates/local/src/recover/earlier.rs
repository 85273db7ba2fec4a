//! What was at a path since the last barrier: a power cut may bring back any of it.
//!
//! A version names only the last few contents before it. Owns what else is known of that: what intents tell, and what
//! was written down when versions forgot it. Invariant: all of it was here before what the row of its path tells of.

use std::collections::HashMap;

use instep_core::id::ContentId;
use instep_core::path::RelPath;

use super::intent::Intended;
use crate::lately::Lately;

/// The contents that were at paths before their rows became what they are.
#[derive(Debug, Default)]
pub(super) struct Earlier(HashMap<RelPath, Vec<ContentId>>);

impl Earlier {
    /// What the intents of the open epoch took from paths and brought to them, and what versions forgot in it.
    pub(super) fn of(intents: &[Intended], lately: &Lately) -> Self {
        let lists = lately.all();
        let mut all: HashMap<RelPath, Vec<ContentId>> = lists
            .map(|(path, ids)| (path.clone(), ids.to_vec()))
            .collect();
        for intended in intents {
            let brought = intended.entry.get_shown(intended.shown);
            let brought = brought.filter(|v| !v.is_tomb()).map(|v| v.content);
            let there = all.entry(intended.path.clone()).or_default();
            there.extend(intended.old.into_iter().chain(brought));
        }
        Self(all)
    }

    /// Whether this was at the path.
    pub(super) fn had(&self, path: &RelPath, content: ContentId) -> bool {
        self.0.get(path).is_some_and(|all| all.contains(&content))
    }
}
