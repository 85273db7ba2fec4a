//! Giving back the room of what nothing refers to any more.
//!
//! A collection first takes from history what is too old, then forgets contents that no row, no history, no record of
//! what was displaced and nobody at work refers to, and then removes the chunks that no content is made of. Invariants:
//! a content is durably forgotten before its chunks go, so that a death between any two lines leaves garbage and
//! nothing else; whatever anybody refers to while a collection runs stays; a hub that lost its memory collects
//! nothing, and where a manifest cannot be read no chunk is removed.

use std::collections::HashSet;
use std::ops::ControlFlow;

use instep_core::id::ContentId;
use instep_core::path::RelPath;
use instep_core::version::Kind;
use instep_replica::records::ConflictRecord;
use instep_replica::{Book, Replica as _, Result};
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
        self.begin_collecting();
        let mut collected = Collected::default();
        let marked = self.mark(&mut collected);
        let swept = marked.and_then(|live| self.sweep(live, &mut collected));
        self.chunks.end_collecting();
        self.state().touched = None;
        self.intact(swept)?;
        Ok(collected)
    }

    /// From now on, whatever anybody refers to stays.
    fn begin_collecting(&self) {
        self.state().touched = Some(HashSet::new());
        self.chunks.begin_collecting();
    }

    /// Forgets what is not needed, and says which chunks are; none where that cannot be said.
    fn mark(&self, collected: &mut Collected) -> Result<Option<Vec<u64>>> {
        // What rows do not refer to any more must be durably so.
        self.barrier()?;
        let mut state = self.state();
        let now_ns = state.wall_ns;
        for shown in self.expired(&mut state, now_ns)? {
            state.contents.forget_shown(&shown)?;
            collected.versions += 1;
        }
        collected.contents = state.forget_unwanted()?;
        state.contents.commit(Durability::Power)?;
        drop(state);
        self.live_chunks()
    }

    /// Removes the chunks that are not needed.
    fn sweep(&self, live: Option<Vec<u64>>, collected: &mut Collected) -> Result<()> {
        let Some(live) = live else {
            collected.is_held_back = true;
            return Ok(());
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
        swept.map_err(|e| fs_error("remove a chunk", e))
    }

    /// What history has to let go of now.
    fn expired(&self, state: &mut State, now_ns: i64) -> Result<Vec<Shown>> {
        let mut expired = Vec::new();
        let mut of_path: Vec<Shown> = Vec::new();
        let mut end = |of_path: &mut Vec<Shown>| {
            let gone = self.retention.expired(of_path, now_ns);
            expired.extend(gone.into_iter().cloned());
            of_path.clear();
        };
        state.contents.each_shown(&mut |shown| {
            if of_path.first().is_some_and(|s| s.path != shown.path) {
                end(&mut of_path);
            }
            of_path.push(shown);
        })?;
        end(&mut of_path);
        Ok(expired)
    }

    /// What every content is made of, in order; none where that cannot be said of one.
    fn live_chunks(&self) -> Result<Option<Vec<u64>>> {
        let begun = self.begun.chunks().into_iter();
        let mut live: Vec<u64> = begun.map(fingerprint).collect();
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
        let mut past = |shown: Shown| wanted.extend(shown.content());
        self.contents.each_shown(&mut past)?;
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use std::sync::Arc;

    use instep_chunk::content_id;
    use instep_core::id::{ReplicaId, ShareId};
    use instep_fs::sim::{SimConfig, SimFs};
    use instep_replica::content::Bytes;
    use instep_replica::env::StepEnv;
    use instep_store::MemoryDisk;

    use super::*;
    use crate::{Parts, Retention};

    fn hub() -> HubReplica {
        let parts = Parts {
            id: ReplicaId([1; 16]),
            share: ShareId([1; 16]),
            label: "hub".into(),
            location: "here".into(),
            home: SimFs::new(SimConfig::ext4(1)).root(),
            index: Box::new(MemoryDisk::new().open()),
            contents: Box::new(MemoryDisk::new().open()),
            is_new: true,
            is_rejoining: false,
            is_unsure: false,
            retention: Retention::default(),
            guard: Box::new(|| Ok(())),
        };
        let hub = HubReplica::assemble(Arc::new(StepEnv::default()), parts).unwrap();
        hub.begin().unwrap();
        hub
    }

    fn stage(hub: &HubReplica, bytes: &[u8]) {
        let from = &mut Bytes(bytes.to_vec());
        hub.stage(&RelPath::root(), content_id(bytes), from)
            .unwrap();
        hub.barrier().unwrap();
    }

    /// It came after it was said what is needed, and before anything was removed.
    #[test]
    fn what_came_during_a_collection_loses_chunks_that_were_there_before() {
        let hub = hub();
        let bytes = b"garbage, and then not";
        stage(&hub, bytes);
        hub.state().staged.clear();
        hub.begin_collecting();
        let mut collected = Collected::default();
        let live = hub.mark(&mut collected).unwrap();
        assert_eq!((collected.contents, live.as_deref()), (1, Some(&[][..])));
        stage(&hub, bytes);
        hub.sweep(live, &mut collected).unwrap();
        assert_eq!(collected.chunks, 0);
        assert!(hub.chunks.has(content_id(bytes)));
        hub.chunks.end_collecting();
        hub.state().staged.clear();
        assert_eq!(hub.collect().unwrap().chunks, 1, "and now it is garbage");
    }

    /// A version was brought back to a path while it was looked for what is needed.
    #[test]
    fn what_is_referred_to_anew_during_a_collection_is_forgotten() {
        let hub = hub();
        let bytes = b"garbage, and then not";
        stage(&hub, bytes);
        hub.state().staged.clear();
        hub.begin_collecting();
        hub.state().touch(content_id(bytes));
        let mut collected = Collected::default();
        hub.mark(&mut collected).unwrap();
        assert_eq!(collected.contents, 0);
    }
}
