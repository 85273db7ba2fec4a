//! Giving back the room of what nothing refers to any more.
//!
//! A collection first takes from history what is too old, then forgets contents that no row, no history, no record of
//! what was displaced and nobody at work refers to, and then removes the chunks that no content is made of. Invariants:
//! a content is durably forgotten before its chunks go, so that a death between any two lines leaves garbage and
//! nothing else; whatever anybody refers to while a collection runs stays; a hub that lost its memory collects
//! nothing, and where a manifest cannot be read no chunk is removed.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;

use instep_core::id::ContentId;
use instep_core::path::RelPath;
use instep_core::version::Kind;
use instep_replica::records::ConflictRecord;
use instep_replica::{Book, Replica as _, Result, Step};
use instep_store::Durability;

use crate::history::Shown;
use crate::identity::fs_error;
use crate::replica::HubReplica;
use crate::state::State;

/// What a collection gave back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    /// Versions that history does not have any more.
    pub versions: u64,
    /// Contents that nothing referred to.
    pub contents: u64,
    /// Chunks that were removed.
    pub chunks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Chunks were left where they are, because a manifest could not be read.
    pub is_held_back: bool,
}

impl HubReplica {
    /// Gives back the room of what nothing refers to any more. May run while anything else goes on.
    pub fn collect(&self) -> Result<Collected> {
        if self.is_rejoining() {
            return Ok(Collected::default());
        }
        self.state().touched = Some(HashSet::new());
        self.chunks.begin_collecting();
        let collected = self.collect_now();
        self.chunks.end_collecting();
        self.state().touched = None;
        self.intact(collected)
    }

    fn collect_now(&self) -> Result<Collected> {
        let mut collected = Collected::default();
        // What rows do not refer to any more must be durably so.
        self.barrier()?;
        {
            let mut state = self.state();
            let now_ns = state.wall_ns;
            for shown in self.expired(&mut state, now_ns)? {
                state.contents.forget_shown(&shown)?;
                collected.versions += 1;
            }
            collected.contents = state.forget_unwanted()?;
            state.contents.commit(Durability::Power)?;
        }
        self.env.reach(Step::Purged);
        let Some(live) = self.live_chunks()? else {
            collected.is_held_back = true;
            return Ok(collected);
        };
        let mut sweep = |id: ContentId| {
            if live.binary_search(&fingerprint(id)).is_err()
                && let Some(bytes) = self.chunks.remove(id)?
            {
                collected.chunks += 1;
                collected.bytes += bytes;
            }
            Ok(())
        };
        let swept = self.chunks.each(&mut sweep);
        swept.map_err(|e| fs_error("remove a chunk", e))?;
        Ok(collected)
    }

    fn expired(&self, state: &mut State, now_ns: i64) -> Result<Vec<Shown>> {
        let mut by_path: BTreeMap<RelPath, Vec<Shown>> = BTreeMap::new();
        for shown in state.contents.history()? {
            by_path.entry(shown.path.clone()).or_default().push(shown);
        }
        let expired = by_path
            .values()
            .flat_map(|history| self.retention.expired(history, now_ns));
        Ok(expired.cloned().collect())
    }

    /// What every content is made of, in order; none where that cannot be said of one.
    fn live_chunks(&self) -> Result<Option<Vec<u64>>> {
        let mut live = Vec::new();
        let ids = self.state().contents.ids()?;
        for content in ids {
            let listed = self.state().contents.get(content)?;
            match listed.map(|l| l.made(content, &self.chunks)) {
                Some(Ok(made)) => {
                    live.extend(made.pieces.iter().map(|p| fingerprint(p.id)));
                    live.extend(made.nodes.into_iter().map(fingerprint));
                }
                Some(Err(_)) => return Ok(None),
                None => {}
            }
        }
        live.sort_unstable();
        live.dedup();
        Ok(Some(live))
    }
}

/// Part of an id. Where two ids share it, a chunk too many is kept.
fn fingerprint(id: ContentId) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&id.0[..8]);
    u64::from_le_bytes(bytes)
}

impl State {
    /// Forgets every content that nothing refers to; how many.
    fn forget_unwanted(&mut self) -> Result<u64> {
        let wanted = self.wanted()?;
        let mut count = 0;
        for content in self.contents.ids()? {
            let is_touched = self.touched.as_ref().is_some_and(|t| t.contains(&content));
            if !wanted.contains(&content) && !is_touched {
                self.contents.forget(content)?;
                count += 1;
            }
        }
        Ok(count)
    }

    /// Every content that something refers to.
    fn wanted(&mut self) -> Result<HashSet<ContentId>> {
        let mut wanted: HashSet<ContentId> = self.staged.iter().copied().collect();
        // What is known of a path and not shown may be shown next.
        self.index.subtree(&RelPath::root(), &mut |_, row| {
            let files = row.entry.siblings().iter().map(|(_, v)| v);
            let files = files.filter(|v| v.kind == Kind::File);
            wanted.extend(files.map(|v| v.content));
            ControlFlow::Continue(())
        })?;
        let history = self.contents.history()?;
        wanted.extend(history.iter().filter_map(Shown::content));
        let displaced = self.displaced()?;
        wanted.extend(displaced.iter().filter_map(|(_, _, d)| d.content()));
        wanted.extend(self.brought.values().map(crate::state::Brought::content));
        for (_, body) in self.book(Book::Conflicts)? {
            let conflict = serde_json::from_str::<ConflictRecord>(&body).ok();
            let open = conflict.filter(|c| c.resolved.is_none());
            wanted.extend(open.and_then(|c| c.content.parse::<ContentId>().ok()));
        }
        Ok(wanted)
    }
}
