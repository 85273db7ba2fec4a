//! What was displaced: brought back by its user, or destroyed when its time has come.
//!
//! Invariant: the content of an open conflict is never destroyed, and bringing something back overwrites
//! nothing.

use instep_core::path::RelPath;

use super::State;
use super::tree::Object;
use crate::error::{Error, ErrorKind};
use crate::records::{Book, ConflictRecord, TrashRecord, path_from_hex};

impl State {
    /// Puts an object from the trash or the version store at a free path, as a user would.
    pub(super) fn restore(&mut self, key: &str, to: Option<&RelPath>) -> crate::Result<RelPath> {
        let failed = |why: &str| Error::new(ErrorKind::Other, format!("restore {key}: {why}"));
        let record = self
            .trash_record(key)
            .ok_or_else(|| failed("nothing is kept under this key"))?;
        let was = path_from_hex(&record.path_hex);
        let path = to
            .cloned()
            .or(was)
            .ok_or_else(|| failed("its old path is not a path"))?;
        let object = self
            .kept_object(key, &record)
            .ok_or_else(|| failed("its content is not here"))?;
        if self.tree.get(&path).is_some() {
            return Err(failed(&format!("{path} is taken")));
        }
        let mut parents: Vec<RelPath> =
            std::iter::successors(path.parent(), RelPath::parent).collect();
        parents.retain(|p| !p.is_root() && self.tree.get(p).is_none());
        for dir in parents.iter().rev() {
            self.tree
                .create(dir, Object::Dir { mode: 0o755 })
                .map_err(|e| failed(&e.to_string()))?;
        }
        self.tree
            .create(&path, object)
            .map_err(|e| failed(&e.to_string()))?;
        // A loser stays listed and kept until its conflict is settled.
        if self.trash.remove(key).is_some() {
            self.records.remove(&(Book::Trash, key.into()));
        }
        self.hints.add_path(path.clone());
        self.wake();
        Ok(path)
    }

    /// Destroys what was displaced, or lost a conflict that was settled, before an instant.
    pub(super) fn purge(&mut self, before_ns: i64) -> u64 {
        let keys: Vec<String> = self
            .records
            .keys()
            .filter(|(b, _)| *b == Book::Trash)
            .map(|(_, k)| k.clone())
            .collect();
        let mut destroyed = 0;
        for key in keys {
            let Some(record) = self.trash_record(&key) else {
                continue;
            };
            if self.wanted_until(&record).is_none_or(|ns| ns >= before_ns) {
                continue;
            }
            self.trash.remove(&key);
            if let Some(dot) = record.loser.and_then(|d| d.parse().ok()) {
                self.versions.remove(&dot);
            }
            self.records.remove(&(Book::Trash, key));
            destroyed += 1;
        }
        destroyed
    }

    fn trash_record(&self, key: &str) -> Option<TrashRecord> {
        serde_json::from_str(self.records.get(&(Book::Trash, key.into()))?).ok()
    }

    fn kept_object(&self, key: &str, record: &TrashRecord) -> Option<Object> {
        let loser = record.loser.as_ref().and_then(|d| d.parse().ok());
        let node = self.trash.get(key).or_else(|| self.versions.get(&loser?));
        node.map(|n| n.object.clone())
    }

    /// Since when nobody needs an object: never while its conflict is open, or one that nobody knows of.
    fn wanted_until(&self, record: &TrashRecord) -> Option<i64> {
        let Some(loser) = &record.loser else {
            return Some(record.at_ns);
        };
        let body = self.records.get(&(Book::Conflicts, loser.clone()))?;
        let conflict: ConflictRecord = serde_json::from_str(body).ok()?;
        conflict.resolved_ns.filter(|_| conflict.resolved.is_some())
    }
}
