//! I17: a root whose past came back takes nothing from the others.
//!
//! Owns what the others showed when it happened, and what they knew of the time before: each replica remembers
//! the last contents of a path, and what is older than that is new to it. Looks at disks only after a session
//! in which no user did anything, so that whatever changed was changed by the engine.

use std::collections::{BTreeMap, BTreeSet};

use instep_chunk::hash::content_id;
use instep_core::conflict::room_path;
use instep_core::id::ContentId;
use instep_core::path::RelPath;
use instep_fs::Kind;
use instep_fs::sim::SimFs;

use crate::checkers::Known;
use crate::ledger::{Seen, is_kept_version, name, seen};

/// What each replica knows to have been at a path before what is there.
#[derive(Debug, Default)]
pub(crate) struct Past(Vec<BTreeSet<(RelPath, ContentId)>>);

/// What all others showed alike when something befell a root.
#[derive(Debug)]
pub(crate) struct Present {
    struck: usize,
    shown: Seen,
}

impl Past {
    /// From what all replicas of a session knew at its end, in the order of machines.
    pub(crate) fn of(all: &[Known]) -> Self {
        let past = |known: &Known| {
            let versions = known.entries.iter().flat_map(|(path, entry)| {
                let siblings = entry.siblings().iter();
                siblings.flat_map(move |(_, v)| v.prev.iter().map(|id| (path.clone(), *id)))
            });
            versions.collect()
        };
        Self(all.iter().map(past).collect())
    }

    /// It is of so many machines.
    pub(crate) fn is_of(&self, machines: usize) -> bool {
        self.0.len() == machines
    }

    /// Somebody other than `struck` knows that this was at a path before.
    fn knows(&self, struck: usize, path: &RelPath, content: &[u8]) -> bool {
        let was = (path.clone(), content_id(content));
        let others = self.0.iter().enumerate().filter(|(i, _)| *i != struck);
        others.into_iter().any(|(_, past)| past.contains(&was))
    }

    /// What the others of `struck` show alike; none when it is alone.
    pub(crate) fn present(disks: &[SimFs], struck: usize) -> Option<Present> {
        let others = disks.iter().enumerate().filter(|(i, _)| *i != struck);
        let mut others = others.map(|(_, fs)| seen(fs));
        let mut shown = others.next()?;
        for other in others {
            shown.retain(|path, content| other.get(path) == Some(content));
        }
        Some(Present { struck, shown })
    }

    /// What was taken from the others.
    pub(crate) fn taken(&self, before: &Present, disks: &[SimFs]) -> Vec<String> {
        let trees: Vec<Seen> = disks.iter().map(seen).collect();
        let nodes = disks.iter().flat_map(|fs| fs.snapshot().into_values());
        let kept: BTreeSet<Vec<u8>> = nodes.map(|n| n.content).collect();
        let mut bad = Vec::new();
        for (i, (fs, tree)) in disks.iter().zip(&trees).enumerate() {
            if i != before.struck {
                bad.extend(
                    self.changed(before, tree, fs)
                        .map(|w| format!("I17: {w} on {i}")),
                );
            }
        }
        let lost = before.shown.iter().filter(|(_, c)| !kept.contains(*c));
        let lost: BTreeMap<&RelPath, &Vec<u8>> = lost.collect();
        bad.extend(
            lost.iter()
                .map(|(p, c)| format!("I17: {} of \"{p}\" is lost", name(c))),
        );
        bad
    }

    /// Something that the others never knew has the name of a directory above, and everything below has moved
    /// beside it (semantics 3.3, table C: the kind of a preferred replica keeps the name).
    fn made_room(
        &self,
        struck: usize,
        path: &RelPath,
        content: &Vec<u8>,
        tree: &Seen,
        fs: &SimFs,
    ) -> bool {
        let mut above = std::iter::successors(path.parent(), RelPath::parent);
        let taken = above.find_map(|at| {
            let taken = fs.snapshot().remove(&at)?;
            (taken.kind != Kind::Dir).then_some((at, taken))
        });
        let Some((at, taken)) = taken else {
            return false;
        };
        let bytes = match taken.kind {
            Kind::Link => &taken.target,
            _ => &taken.content,
        };
        let below = path.components().skip(at.components().count());
        let moved = room_path(&at).map(|room| below.fold(room, |dir, name| dir.join(name)));
        let there = moved.and_then(|p| tree.get(&p));
        // What lost to it goes along, and where it goes nobody is preferred: the newest wins there (table C), and
        // what it was preferred to may be that.
        let has_lost = |won: &Vec<u8>| !self.knows(struck, path, won) && is_kept(fs, content);
        let is_there = there.is_some_and(|now| now == content || has_lost(now));
        !self.knows(struck, &at, bytes) && is_there
    }

    fn changed<'a>(
        &'a self,
        before: &'a Present,
        tree: &'a Seen,
        fs: &'a SimFs,
    ) -> impl Iterator<Item = String> + 'a {
        let change = |(path, content): (&RelPath, &Vec<u8>)| match tree.get(path) {
            Some(now) if now == content => None,
            Some(now) => {
                let old = self.knows(before.struck, path, now);
                // These are written again and again.
                let own = !now.starts_with(b"shared ");
                (old && own).then(|| format!("\"{path}\" is {} again", name(now)))
            }
            None if fs.exists(path.as_bytes()) => None,
            None if self.made_room(before.struck, path, content, tree, fs) => None,
            None => Some(format!("\"{path}\" is deleted")),
        };
        before.shown.iter().filter_map(change)
    }
}

/// Whether a content is kept as one that lost a conflict.
fn is_kept(fs: &SimFs, content: &[u8]) -> bool {
    let nodes = fs.snapshot().into_iter();
    let mut kept = nodes.filter(|(path, _)| is_kept_version(path));
    kept.any(|(_, node)| node.content == content)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

    use super::*;
    use instep_fs::sim::{Save, SimConfig};

    fn machines() -> Vec<SimFs> {
        let new = |seed| SimFs::new(SimConfig::adversarial(seed));
        (0..3).map(new).collect()
    }

    /// The last of three knows what was at a path.
    fn past() -> Past {
        let old = (RelPath::new(b"a").unwrap(), content_id(b"old"));
        Past(vec![
            BTreeSet::new(),
            BTreeSet::new(),
            BTreeSet::from([old]),
        ])
    }

    fn write(fs: &SimFs, path: &str, content: &str) {
        fs.write_file(path, content, Save::InPlace).unwrap();
    }

    #[test]
    fn what_a_restored_root_does_to_the_others_is_not_seen() {
        let disks = machines();
        disks.iter().for_each(|fs| write(fs, "a", "old"));
        let past = past();
        disks[1..].iter().for_each(|fs| write(fs, "a", "new"));
        disks[1..].iter().for_each(|fs| write(fs, "b", "more"));
        let before = Past::present(&disks, 0).unwrap();
        assert!(past.taken(&before, &disks).is_empty());
        write(&disks[1], "a", "old");
        disks[2].remove("b").unwrap();
        let bad = past.taken(&before, &disks);
        assert_eq!(bad.len(), 2, "{bad:?}");
        write(&disks[2], "a", "else");
        disks[1].remove("b").unwrap();
        let bad = past.taken(&before, &disks);
        let lost = bad.iter().filter(|b| b.ends_with("is lost")).count();
        assert_eq!(lost, 2, "{bad:?}");
    }

    #[test]
    fn what_moved_beside_a_file_of_the_past_counts_as_moved_beside_a_new_one() {
        let disks = machines();
        let (mut past, dir) = (past(), RelPath::new(b"d").unwrap());
        disks[1..].iter().for_each(|fs| {
            fs.mkdir_all("d").unwrap();
            write(fs, "d/e", "kept");
        });
        let before = Past::present(&disks, 0).unwrap();
        let room = room_path(&dir).unwrap().to_string();
        for fs in &disks[1..] {
            fs.rename("d", &room).unwrap();
            write(fs, "d", "new");
        }
        assert!(past.taken(&before, &disks).is_empty());
        past.0[1].insert((dir, content_id(b"new")));
        assert_eq!(past.taken(&before, &disks).len(), 2);
        past.0[1].clear();
        write(&disks[1], format!("{room}/e").as_str(), "else");
        let bad = past.taken(&before, &disks);
        assert!(
            matches!(bad.as_slice(), [one] if one.ends_with("is deleted on 1")),
            "{bad:?}"
        );
    }

    #[test]
    fn what_lost_where_it_had_to_make_room_counts_as_deleted() {
        let disks = machines();
        let (mut past, path) = (past(), RelPath::new(b"d/e").unwrap());
        disks[1..].iter().for_each(|fs| {
            fs.mkdir_all("d").unwrap();
            write(fs, "d/e", "preferred");
        });
        let before = Past::present(&disks, 0).unwrap();
        let room = room_path(&RelPath::new(b"d").unwrap()).unwrap();
        for fs in &disks[1..] {
            fs.rename("d", room.as_bytes()).unwrap();
            write(fs, "d", "new");
            write(fs, format!("{room}/e").as_str(), "newer");
            fs.mkdir_all(".instep/versions").unwrap();
            write(fs, ".instep/versions/1", "preferred");
        }
        assert_eq!(past.taken(&before, &disks), [""; 0]);
        past.0[1].insert((path, content_id(b"newer")));
        assert_eq!(past.taken(&before, &disks).len(), 2);
        past.0[1].clear();
        disks[2]
            .rename(".instep/versions", ".instep/trash")
            .unwrap();
        let bad = past.taken(&before, &disks);
        assert!(
            matches!(bad.as_slice(), [one] if one.ends_with("is deleted on 2")),
            "{bad:?}"
        );
    }

    #[test]
    fn what_a_root_has_of_its_own_is_taken_for_the_past() {
        let disks = machines();
        disks.iter().for_each(|fs| write(fs, "a", "old"));
        let past = past();
        let before = Past::present(&disks, 0).unwrap();
        write(&disks[1], "a", "edited");
        disks[2].mkdir_all(".instep/versions").unwrap();
        write(&disks[2], ".instep/versions/1", "old");
        write(&disks[2], "a", "edited");
        assert!(past.taken(&before, &disks).is_empty());
    }
}
