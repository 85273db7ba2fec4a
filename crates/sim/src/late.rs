//! What is written into a file after it was put away, through another of its names.
//!
//! Replacing a file detaches it from its other hard links (design, decision 24), but the file that was put away is the
//! one that they name: what a user writes there from then on is at that other name, and in the trash by chance, where
//! nobody looks for it. Owns which files of ours are such. Invariant: only what is newer than its record, and is not
//! what that says; a record that was wrong from the start excuses nothing.

use std::collections::BTreeMap;

use instep_core::id::ContentId;
use instep_core::path::RelPath;
use instep_fs::sim::NodeView;
use instep_replica::records::TrashRecord;
use instep_replica::{Book, Replica};

/// What an index says of what was put away, by the name that it has there.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct PutAway(BTreeMap<String, (String, i64)>);

impl PutAway {
    /// Reads it.
    pub(crate) fn of(replica: &dyn Replica) -> Self {
        let all = replica.records(Book::Trash).unwrap_or_default();
        let said = all.into_iter().filter_map(|(name, body)| {
            let record: TrashRecord = serde_json::from_str(&body).ok()?;
            Some((name, (record.content, record.at_ns)))
        });
        Self(said.collect())
    }

    /// Whether somebody wrote this into a file of ours after it had been put away.
    pub(crate) fn is_late(&self, path: &RelPath, node: &NodeView, content: ContentId) -> bool {
        let name = path.split().map(|(_, name)| name.as_bytes());
        let said = name.and_then(|n| self.0.get(std::str::from_utf8(n).ok()?));
        let written_ns = node.mtime.nanos_since_epoch().unwrap_or(0);
        said.is_some_and(|(was, at_ns)| *was != content.to_string() && written_ns > *at_ns)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

    use instep_fs::sim::{Save, SimConfig, SimFs};

    use super::*;

    #[test]
    fn what_was_put_away_under_a_wrong_content_is_excused() {
        let fs = SimFs::new(SimConfig::ext4(1));
        fs.write_file("a", b"late", Save::InPlace).unwrap();
        let (path, node) = fs.snapshot().pop_last().unwrap();
        let written_ns = node.mtime.nanos_since_epoch().unwrap();
        let [late, other] = [b"late", b"else"].map(|b| instep_chunk::hash::content_id(b));
        let said = |content: ContentId, at_ns| {
            let record = (content.to_string(), at_ns);
            PutAway(BTreeMap::from([("a".to_owned(), record)]))
        };
        assert!(said(other, written_ns - 1).is_late(&path, &node, late));
        assert!(!said(other, written_ns).is_late(&path, &node, late));
        assert!(!said(late, written_ns - 1).is_late(&path, &node, late));
        assert!(!PutAway::default().is_late(&path, &node, late));
    }
}
