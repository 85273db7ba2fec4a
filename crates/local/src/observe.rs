//! One look from its parts: walking, reading, settling absences, recognising moves, and what the record that
//! follows must know.
//!
//! Owns which directories may count as unchanged: a digest is taken over only when everything that the look
//! found in the directory was recorded and nothing in it is outstanding, also of earlier pieces of a large
//! look, and no row in it was written since it was listed but by recording that. Writes nothing to the index but
//! digests.

use std::collections::{BTreeSet, HashMap, HashSet};

use instep_core::path::RelPath;
use instep_core::row::Row;
use instep_core::version::Kind;
use instep_replica::{Look, Scope, Totals};

use crate::index::Index;
use crate::print::Digest;
use crate::reading::Unread;
use crate::replica::{LocalReplica, locked};
use crate::{groups, record, scan, unjudged};

/// What a look leaves for the record that follows it.
#[derive(Debug, Default)]
pub(crate) struct LastLook {
    digests: Vec<(RelPath, Digest)>,
    reported: BTreeSet<RelPath>,
    unsettled: BTreeSet<RelPath>,
    /// Of directories with files that have not been read yet.
    later: Vec<(RelPath, Digest)>,
    /// Directories in which an earlier piece left something outstanding.
    open: BTreeSet<RelPath>,
    /// It was a look at everything.
    everything: bool,
}

/// The last piece of a walk's rest that was read, and its number; numbers are never used again.
#[derive(Debug, Default)]
pub(crate) struct Piece {
    number: u64,
    look: Option<Look>,
}

/// Directories that were listed more than once and had changed in between: what was found by one listing may
/// be gone by another.
fn listed_differently(digests: &[(RelPath, Digest)]) -> Vec<RelPath> {
    let mut seen: HashMap<&RelPath, Digest> = HashMap::with_capacity(digests.len());
    let mut differing = Vec::new();
    for (dir, digest) in digests {
        if *seen.entry(dir).or_insert(*digest) != *digest {
            differing.push(dir.clone());
        }
    }
    differing
}

/// Whether a path is one of these or lies below one.
fn is_at_or_below(path: &RelPath, tops: &BTreeSet<RelPath>) -> bool {
    let mut up = Some(path.clone());
    while let Some(at) = up {
        if tops.contains(&at) {
            return true;
        }
        up = at.parent();
    }
    false
}

/// Adds what walking found to a look; contents are read and moves matched by the caller.
fn into_look(walked: &mut scan::Walked, look: &mut Look) {
    look.findings.append(&mut walked.findings);
    look.problems.append(&mut walked.problems);
}

impl LocalReplica {
    /// Takes over the digests of the last look's directories, except where something is outstanding. Whether it
    /// was a look at everything, and nothing is.
    ///
    /// `reworked` are directories in which rows were written since the look.
    pub(crate) fn settle_digests(
        &self,
        index: &mut Index,
        look: &Look,
        reworked: HashSet<RelPath>,
    ) -> bool {
        let last = std::mem::take(&mut *locked(&self.last));
        let recorded: BTreeSet<&RelPath> = look.findings.iter().map(|f| &f.path).collect();
        let outstanding =
            look.rest.is_some() || !look.problems.is_empty() || !last.unsettled.is_empty();
        let is_whole =
            last.everything && !outstanding && last.reported.iter().all(|p| recorded.contains(p));
        if last.digests.is_empty() && last.later.is_empty() {
            return is_whole;
        }
        let here = last.reported.iter().filter(|p| !recorded.contains(p));
        let here = here.chain(&last.unsettled);
        let here = here.chain(look.problems.iter().map(|p| &p.path));
        let mut open = last.open;
        open.extend(here.filter_map(RelPath::parent));
        open.extend(reworked);
        open.extend(listed_differently(&last.digests));
        for (dir, digest) in last.digests {
            let settled = !open.contains(&dir)
                && !is_at_or_below(&dir, &last.unsettled)
                && !look.problems.iter().any(|p| p.path == dir);
            index.set_digest(&dir, settled.then_some(digest));
        }
        // What one piece left open is open until the last.
        if !last.later.is_empty() {
            let mut next = locked(&self.last);
            next.later = last.later;
            next.open = open;
        }
        is_whole
    }

    pub(crate) fn observe(&self, scope: &Scope) -> Look {
        if let Scope::Rest(piece) = *scope {
            return self.observe_rest(piece);
        }
        let mut look = Look::default();
        let hinted = *scope != Scope::Everything;
        if !hinted {
            *locked(&self.unread) = Unread::default();
            *locked(&self.last) = LastLook {
                everything: true,
                ..LastLook::default()
            };
            locked(&self.ahead).take();
        }
        self.begin_listing();
        self.await_judgement(scope, &mut look);
        let (scope, sees_all_missed) = self.with_missed(scope);
        let mut walked = scan::walk(self, &groups::widen(scope));
        scan::free_rows(self, &mut walked);
        self.order_missed(&mut walked, &mut look);
        // What was in a directory that was missed and is there again is still to be missed.
        let back = locked(&self.missed).are_back(&walked.present);
        let back = back.into_iter().filter(|p| self.had_dir(p));
        back.for_each(|p| self.hint_tree(p));
        let complete = groups::withhold(self, &mut walked, &mut look);
        let gone = std::mem::take(&mut walked.gone);
        let by_ino = crate::moves::by_inode(&gone);
        let (known, mut unknown) =
            crate::moves::split(&gone, &by_ino, std::mem::take(&mut walked.candidates));
        into_look(&mut walked, &mut look);
        look.findings.extend(known);
        // Moves and the brake need to see everything at once; without absences there are neither.
        let files = self.settings.piece_files;
        if gone.is_empty() && crate::reading::is_much(&unknown, files) {
            unknown.sort_by(|a, b| a.path.cmp(&b.path));
            let mut unread = locked(&self.unread);
            unread.add(unknown);
            unknown = unread.next_piece(files);
            look.unread = unread.waiting();
            unread.done(&unknown);
        }
        self.read_candidates(&unknown, hinted, &mut look);
        self.read_ahead();
        let mut certain = crate::moves::detect(&gone, &by_ino, &mut look);
        certain.extend(complete);
        let kept = self.settled_absences(gone, &certain, sees_all_missed, &mut look);
        self.withhold_big_moves(&kept, &mut look);
        self.withhold_replaced_dirs(&mut look);
        for g in kept {
            let was = match g.row.present() {
                Some(v) => v.kind,
                None => Kind::Dir,
            };
            let found = instep_replica::Found::Absent { was };
            look.findings.push(instep_replica::Finding {
                path: g.path,
                found,
            });
        }
        look.problems.append(&mut locked(&self.noted));
        look.known = self.index().totals();
        look.rules_changed = self.rules.tell_changed();
        let digests = std::mem::take(&mut walked.digests);
        self.finish_look(look, digests, hinted)
    }

    /// A path is not in sync while something that was displaced there waits to be judged.
    fn await_judgement(&self, scope: &Scope, look: &mut Look) {
        let mut waits = unjudged::paths(self);
        if let Scope::Some { paths, trees } = scope {
            waits.retain(|p| paths.contains(p) || is_at_or_below(p, trees));
        }
        let again = waits.into_iter().map(|p| (p, unjudged::AGAIN_MS));
        look.again.extend(again);
    }

    /// What only concerned the look before this one is let go of. Where no listing waits to be settled, rows that
    /// were written until now are no concern of the next.
    fn begin_listing(&self) {
        locked(&self.kept).clear();
        locked(&self.piece).look = None;
        let mut index = self.index();
        let last = locked(&self.last);
        if last.digests.is_empty() && last.later.is_empty() {
            index.take_reworked();
        }
    }

    fn had_dir(&self, path: &RelPath) -> bool {
        let row = self.index().get(path);
        row.map_or(true, |row| row.is_some_and(|r| r.is_dir()))
    }

    /// A piece of what the last walk left to be read: the next one, or the last one once more.
    fn observe_rest(&self, number: u64) -> Look {
        let mut piece = locked(&self.piece);
        if let Some(look) = piece.look.as_ref().filter(|_| piece.number == number) {
            return look.clone();
        }
        if number == piece.number + 1 {
            piece.number = number;
            drop(piece);
            let look = self.next_piece();
            locked(&self.piece).look = Some(look.clone());
            return look;
        }
        drop(piece);
        // Of a walk that another one has overtaken nothing is left to be read.
        let known = self.index().totals();
        let look = Look {
            known,
            ..Look::default()
        };
        self.finish_look(look, Vec::new(), true)
    }

    fn next_piece(&self) -> Look {
        locked(&self.kept).clear();
        let mut look = Look::default();
        self.take_ahead(&mut look);
        look.known = self.index().totals();
        // The directories of files that are still unread stay open until their last piece.
        let digests = std::mem::take(&mut locked(&self.last).later);
        self.finish_look(look, digests, false)
    }

    /// Orders the findings, and keeps what the record that follows needs.
    fn finish_look(&self, mut look: Look, digests: Vec<(RelPath, Digest)>, partial: bool) -> Look {
        look.findings.sort_by(|a, b| a.path.cmp(&b.path));
        look.findings.dedup_by(|a, b| a.path == b.path);
        look.totals = if partial {
            look.known
        } else {
            self.totals(&look.findings)
        };
        for (_, size) in &look.unread {
            look.totals.add(Kind::File, *size);
        }
        let unread = locked(&self.unread);
        look.rest = (!unread.is_empty()).then(|| locked(&self.piece).number + 1);
        let (later, digests): (Vec<_>, Vec<_>) =
            digests.into_iter().partition(|(dir, _)| unread.has(dir));
        drop(unread);
        // Several looks may be recorded together.
        let mut last = locked(&self.last);
        if partial && !last.later.is_empty() {
            // What this look found is newer than the listings of the walk whose pieces are still being read.
            let listed = digests.iter().map(|(dir, _)| dir.clone());
            let found = look.findings.iter().filter_map(|f| f.path.parent());
            last.open.extend(listed.chain(found));
        }
        last.digests.extend(digests);
        last.later.extend(later);
        last.reported
            .extend(look.findings.iter().map(|f| f.path.clone()));
        last.unsettled
            .extend(look.again.iter().map(|(p, _)| p.clone()));
        last.unsettled.extend(look.unhashed.iter().cloned());
        drop(last);
        look
    }

    /// Sums over what is there: what the index has, and what a look found to differ from it.
    fn totals(&self, findings: &[instep_replica::Finding]) -> Totals {
        use instep_replica::Found;
        let mut index = self.index();
        let mut totals = index.totals();
        let had_any = totals != Totals::default();
        let mut rows = record::Rows::default();
        for (at, finding) in findings.iter().enumerate() {
            let now = match &finding.found {
                Found::Refreshed { .. } => continue,
                Found::Present { kind, size, .. } => Some((*kind, *size)),
                _ => None,
            };
            if had_any {
                // A row that cannot be read makes a sum that is only shown a little wrong.
                let row = rows.get(&mut index, &findings[at..]).ok().flatten();
                let was = row
                    .as_ref()
                    .and_then(Row::present)
                    .map(|v| (v.kind, v.size));
                if let Some((kind, size)) = was {
                    totals.remove(kind, size);
                }
            }
            if let Some((kind, size)) = now {
                totals.add(kind, size);
            }
        }
        totals
    }
}
