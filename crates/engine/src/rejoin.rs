//! A replica that lost its memory comes back: what it has is compared with what the others know.
//!
//! Its index is new, so it mints no tombstones; what is missing there is brought again. What it has is either
//! content that the others have or had (then they know better: it is recorded as an ancestor of all that they
//! know), or something that nobody ever saw (then it is a version of its own, concurrent with theirs).
//! Decides only how findings are recorded; touches nothing.

use instep_core::entry::Entry;
use instep_core::id::{ContentId, Dot};
use instep_core::policy::Role;
use instep_core::row::Row;
use instep_core::version::{Kind, Version};
use instep_replica::{Found, Look};

use crate::session::Session;

impl Session {
    /// Whoever lost its memory is heard after all others, so that nothing is known later than needed. What it has is
    /// compared before that, too: a version remembers only the last few contents before it, and what the others found
    /// may push one out.
    pub(crate) fn rejoining_last(&mut self, looks: &mut [(usize, Look)]) {
        looks.sort_by_key(|(i, _)| self.slots[*i].replica.is_rejoining());
        for (i, look) in looks {
            self.recognise(*i, look);
        }
    }

    /// Marks what a rejoining replica has and the others know.
    pub(crate) fn recognise(&mut self, i: usize, look: &mut Look) {
        let slot = &self.slots[i];
        if slot.role != Role::Both || !slot.replica.is_rejoining() {
            return;
        }
        for finding in &mut look.findings {
            let Found::Present { kind, content, .. } = &finding.found else {
                continue;
            };
            let mut rows = self.rows_at(&finding.path);
            if rows[i].take().is_some_and(|r| !r.entry.is_empty()) {
                continue;
            }
            let others = rows.into_iter().zip(&self.slots);
            let others = others.filter(|(_, s)| s.role != Role::Target);
            let others: Vec<Row> = others.filter_map(|(row, _)| row).collect();
            if let Some(dot) = ancestor(&others, *kind, *content) {
                let seen = Box::new(std::mem::replace(&mut finding.found, Found::Forgotten));
                finding.found = Found::Ancestor { dot, seen };
            }
        }
        if !self.slots[i].online() {
            // Without its rows nothing is news; it is looked at again when it is back.
            look.findings.clear();
        }
    }

    /// Everybody knows everything: what happens from now on is news.
    pub(crate) fn end_rejoining(&self) {
        for slot in self.slots.iter().filter(|s| s.replica.is_rejoining()) {
            // If this is not remembered, the next session compares once more.
            let _again = slot.replica.rejoined();
        }
    }
}

/// The dot of what came before, if these contents are or were known at a path.
fn ancestor(rows: &[Row], kind: Kind, content: ContentId) -> Option<Dot> {
    let all = rows.iter().map(|row| &row.entry);
    let known = all.fold(Entry::default(), |all, entry| all.merge(entry));
    // It stands there for its contents, whatever else has its name: nobody made it.
    let stands = kind == Kind::Dir && rows.iter().any(Row::is_derived_dir);
    let had = |v: &Version| {
        let now = v.content == content && (v.kind == kind || v.is_tomb());
        stands || now || (kind != Kind::Dir && v.prev.contains(&content))
    };
    known
        .siblings()
        .iter()
        .find(|(_, v)| had(v))
        .map(|(dot, _)| Dot::before(dot.actor))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;
    use instep_core::id::ActorId;
    use instep_core::row::Print;

    fn version(kind: Kind, content: u8, prev: &[u8]) -> Version {
        Version {
            content: ContentId([content; 32]),
            size: 1,
            mode: 0o644,
            te: 5,
            mode_te: 5,
            prev: prev.iter().map(|c| ContentId([*c; 32])).collect(),
            ..Version::bare(kind)
        }
    }

    fn known(version: Version) -> Entry {
        Entry::first(
            Dot {
                actor: ActorId([1; 8]),
                counter: 7,
            },
            version,
        )
    }

    #[test]
    fn what_was_known_once_is_superseded_and_what_was_not_stays_beside() {
        let of = |entry: &Entry, kind, content| {
            let row = Row {
                entry: entry.clone(),
                ..Row::default()
            };
            ancestor(&[row], kind, ContentId([content; 32]))
        };
        let at = |entry: &Entry, content| of(entry, Kind::File, content);
        let file = known(version(Kind::File, 3, &[2, 1]));
        for content in [1, 2, 3] {
            let dot = at(&file, content).unwrap();
            let theirs = Entry::first(dot, version(Kind::File, content, &[]));
            assert_eq!(file.merge(&theirs), file);
            assert_eq!(theirs.merge(&file), file);
        }
        assert_eq!(at(&file, 4), None);
        assert!(at(&known(version(Kind::Tomb, 3, &[2])), 3).is_some());
        assert_eq!(
            at(&known(version(Kind::Dir, 0, &[])), 0),
            None,
            "another kind of thing"
        );
        assert_eq!(at(&Entry::default(), 1), None);
        assert_eq!(of(&file, Kind::Dir, 0), None, "a new directory");
    }

    #[test]
    fn a_directory_that_a_file_gave_its_name_up_to_is_news_of_who_lost_its_memory() {
        let print = Print {
            ino: 1,
            hash: 1,
            mode: 0o755,
        };
        let row = Row {
            entry: known(version(Kind::File, 3, &[])),
            print: Some(print),
            ..Row::default()
        };
        let dir = ancestor(&[Row::default(), row.clone()], Kind::Dir, ContentId::NONE).unwrap();
        let theirs = Entry::first(dir, version(Kind::Dir, 0, &[]));
        assert_eq!(row.entry.merge(&theirs), row.entry);
        let file = ancestor(&[row], Kind::File, ContentId([4; 32]));
        assert_eq!(file, None, "what it has as a file is another matter");
    }

    #[test]
    fn an_ancestor_survives_the_index() {
        let dot = Dot::before(ActorId([1; 8]));
        let entry = Entry::first(dot, version(Kind::File, 3, &[]));
        let mut bytes = Vec::new();
        instep_core::codec::put_entry(&mut bytes, &entry);
        let mut reader = instep_core::codec::Reader::new(&bytes);
        assert_eq!(instep_core::codec::entry(&mut reader).unwrap(), entry);
    }
}
