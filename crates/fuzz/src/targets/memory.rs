//! The reference replica in memory under hostile calls.

use std::collections::BTreeSet;
use std::sync::Arc;

use instep_core::id::{ContentId, ShareId};
use instep_core::path::RelPath;
use instep_replica::Replica;
use instep_replica::env::StepEnv;
use instep_replica::memory::{MemoryReplica, Object};

use super::acts::{Hands, turns};

struct Memory(MemoryReplica);

impl Hands for Memory {
    fn replica(&self) -> &dyn Replica {
        &self.0
    }

    fn write(&self, path: &RelPath, bytes: &[u8]) {
        drop(self.0.user_write(path, bytes));
    }

    fn mkdir(&self, path: &RelPath) {
        drop(self.0.user_mkdir(path));
    }

    fn link(&self, path: &RelPath, target: &[u8]) {
        drop(self.0.user_link(path, target));
    }

    fn remove(&self, path: &RelPath) {
        drop(self.0.user_remove(path));
    }

    fn rename(&self, from: &RelPath, to: &RelPath) {
        drop(self.0.user_rename(from, to));
    }

    fn contents(&self) -> BTreeSet<ContentId> {
        let tree = self.0.tree();
        let contents = tree.values().filter(|o| !o.is_dir()).map(Object::content);
        contents.filter(|c| *c != ContentId::NONE).collect()
    }

    fn kept(&self) -> BTreeSet<ContentId> {
        self.0.displaced().into_iter().collect()
    }
}

/// A sequence of calls.
pub(super) fn memory(bytes: &[u8]) -> String {
    let replica = MemoryReplica::new("A", ShareId([1; 16]), Arc::new(StepEnv::default()));
    turns(bytes, &mut Memory(replica))
}
