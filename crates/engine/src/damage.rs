//! Files whose content changed although nobody wrote them: found by reading again, left alone until a person
//! decides which bytes count.
//!
//! Invariants: such a file is neither passed on nor replaced, whatever the others do, until it is repaired,
//! accepted, or changed by a user in a way that leaves traces; then it is a change like any other. It is noted
//! on its replica, so that a later session knows it too. Which bytes are right is never decided here.

use std::collections::BTreeSet;

use instep_core::id::ContentId;
use instep_core::path::RelPath;
use instep_core::plan::{Action, Code, Goal, Keep, Outcome, Precondition, Problem};
use instep_core::reconcile::Side;
use instep_core::row::Row;
use instep_core::version::Kind;
use instep_replica::records::DamageRecord;
use instep_replica::{Book, Checked, Content, Error, Finding, Found, Look, Sources};

use crate::command::Answer;
use crate::session::Session;
use crate::transfer::Origins;

/// Bytes read at a time.
const BLOCK: usize = 256 * 1024;
const BUSY: &str = "the file is being changed: try again";

impl Session {
    /// Takes in what a replica has noted.
    pub(crate) fn load_damage(&mut self, i: usize) -> Result<(), Error> {
        if !self.slots[i].is_ours() {
            return Ok(());
        }
        for (path, record) in DamageRecord::all(self.slots[i].replica.as_ref())? {
            self.list_damage(i, &path, record);
        }
        Ok(())
    }

    /// Whether a replica's file waits for a decision.
    pub(crate) fn is_damaged(&self, i: usize, path: &RelPath) -> bool {
        !self.damaged.is_empty() && self.damaged.contains_key(&(i, path.clone()))
    }

    /// Nothing is done to what waits for a decision.
    pub(crate) fn hands_off_damage(&self, path: &RelPath, sides: &mut [Side<'_>]) {
        for (i, side) in sides.iter_mut().enumerate() {
            side.writable &= !self.is_damaged(i, path);
        }
    }

    /// Takes out of a look what is only the damage that is known, and follows it where it was moved. What a user
    /// has written, put right or deleted since is passed on.
    pub(crate) fn withhold_damage(&mut self, i: usize, look: &mut Look) {
        if !self.damaged.keys().any(|(r, _)| *r == i) {
            return;
        }
        let followed = self.follow_damage(i, look);
        let mut over = Vec::new();
        look.findings.retain(|f| {
            let Some(record) = self.damaged.get(&(i, f.path.clone())) else {
                return true;
            };
            let row = self.slots[i].replica.row(&f.path).ok().flatten();
            let is_passed = followed.contains(&f.path);
            let is_known = !is_passed && is_only_damage(&f.found, record, row.as_ref());
            if !is_passed && !is_known {
                over.push(f.path.clone());
            }
            !is_known
        });
        for path in over {
            self.end_damage(i, &path);
        }
    }

    /// Under another name a damaged file is the file that it was, and as damaged.
    fn follow_damage(&mut self, i: usize, look: &mut Look) -> BTreeSet<RelPath> {
        let mut followed = BTreeSet::new();
        let known = self.damaged.iter().filter(|((r, _), _)| *r == i);
        let inode = |path: &RelPath| {
            let row = self.slots[i].replica.row(path).ok().flatten();
            row.and_then(|r| r.print).map(|p| p.ino)
        };
        let known: Vec<(u64, RelPath, DamageRecord)> = known
            .filter_map(|((_, path), record)| Some((inode(path)?, path.clone(), record.clone())))
            .collect();
        for finding in &mut look.findings {
            let Found::Present {
                content,
                print,
                moved_from,
                ..
            } = &mut finding.found
            else {
                continue;
            };
            let is_it = |(ino, from, record): &&(u64, RelPath, DamageRecord)| {
                let is_same =
                    content.to_string() == record.found || moved_from.as_ref() == Some(from);
                *ino == print.ino && *from != finding.path && is_same
            };
            let Some((_, from, record)) = known.iter().find(is_it) else {
                continue;
            };
            let Ok(recorded) = record.content.parse::<ContentId>() else {
                continue;
            };
            *content = recorded;
            *moved_from = Some(from.clone());
            let at = record.at(&finding.path);
            self.note_damage(i, &finding.path, at);
            followed.insert(finding.path.clone());
        }
        followed
    }

    /// Reads files of a replica again; how many are damaged.
    pub(crate) fn check(&mut self, i: usize, paths: &[RelPath]) -> Answer {
        if i >= self.slots.len() {
            return refused(1012, "no such replica");
        }
        let mut count = 0;
        for path in paths {
            match self.slots[i].replica.check(path) {
                Ok(Checked::Decayed { found, .. }) => {
                    self.hold_damage(i, path, &found);
                    count += 1;
                }
                Ok(checked) => self.take_checked(i, path, checked),
                Err(e) => {
                    self.replica_failed(i, &e);
                    break;
                }
            }
        }
        Answer::Done(count)
    }

    /// What reading one file again showed, where it is not damage.
    pub(crate) fn take_checked(&mut self, i: usize, path: &RelPath, checked: Checked) {
        match checked {
            Checked::Sound(_) | Checked::Nothing => self.end_damage(i, path),
            // Whatever happened to it, a look finds it, and says what cannot be read.
            Checked::Changed | Checked::Unreadable(_) | Checked::Decayed { .. } => {
                self.slots[i].hints.add_path(path.clone());
            }
            Checked::Busy => {}
        }
    }

    /// From now on a file waits for a decision.
    pub(crate) fn hold_damage(&mut self, i: usize, path: &RelPath, found: &Found) {
        let Found::Present { content, .. } = found else {
            return;
        };
        let row = self.slots[i].replica.row(path).ok().flatten();
        let Some(recorded) = row.as_ref().and_then(Row::present) else {
            return;
        };
        let now = self.env.wall_ns();
        let record = DamageRecord::new(path, recorded.content, *content, now);
        self.note_damage(i, path, record);
    }

    fn note_damage(&mut self, i: usize, path: &RelPath, record: DamageRecord) {
        let key = DamageRecord::key(path);
        let body = serde_json::to_string(&record).unwrap_or_default();
        let replica = &self.slots[i].replica;
        // Where it cannot be noted, this session knows it at least.
        let _unnoted = replica.write_record(Book::Share, &key, Some(&body));
        self.list_damage(i, path, record);
        self.unsettle();
    }

    fn list_damage(&mut self, i: usize, path: &RelPath, record: DamageRecord) {
        let short = |id: &str| id.get(..8).unwrap_or(id).to_owned();
        let detail = format!(
            "its content changed although nobody wrote it (b3:{} was recorded, b3:{} was read); it is neither \
             passed on nor replaced: instep verify --repair or --accept",
            short(&record.content),
            short(&record.found)
        );
        self.damaged.insert((i, path.clone()), record);
        let (path, code) = (path.clone(), Code::Damaged);
        self.open_problem(i, Problem { path, code, detail });
    }

    /// A file does not wait any more.
    fn end_damage(&mut self, i: usize, path: &RelPath) {
        if self.damaged.remove(&(i, path.clone())).is_none() {
            return;
        }
        let key = DamageRecord::key(path);
        // What stays noted is found to be sound when it is read again.
        let _noted = self.slots[i].replica.write_record(Book::Share, &key, None);
        self.end_problem(i, path);
        self.unsettle();
        self.dirty.insert(path.clone());
    }

    /// Takes the bytes of a damaged file for a user's change.
    pub(crate) fn accept(&mut self, i: usize, path: &RelPath) -> Answer {
        let found = match self.damage_at(i, path) {
            Ok(found) => found,
            Err(answer) => return *answer,
        };
        let look = Look {
            findings: vec![Finding {
                path: path.clone(),
                found,
            }],
            ..Look::default()
        };
        if let Err(e) = self.slots[i].replica.record(&look, &self.share) {
            let why = e.chain();
            self.replica_failed(i, &e);
            return refused(2104, &why);
        }
        self.touched(i);
        self.end_damage(i, path);
        self.dirty.insert(path.clone());
        Answer::Done(1)
    }

    /// Puts the recorded content of a damaged file back. What was there goes to the trash.
    pub(crate) fn repair(&mut self, i: usize, path: &RelPath) -> Answer {
        let found = match self.damage_at(i, path) {
            Ok(found) => found,
            Err(answer) => return *answer,
        };
        // A copy that decayed, too, must not be taken for good.
        for other in 0..self.slots.len() {
            if other == i || !self.slots[other].is_ours() {
                continue;
            }
            if let Ok(Checked::Decayed { found, .. }) = self.slots[other].replica.check(path) {
                self.hold_damage(other, path, &found);
            }
        }
        let row = self.slots[i].replica.row(path).ok().flatten();
        let Some(action) = row.and_then(|row| restoring(i, path, &row, &found)) else {
            return refused(1013, "the file is not what it was a moment ago");
        };
        let sources = Verifying(Origins::new(self.origins(), i));
        let replica = self.slots[i].replica.clone();
        match replica.apply(std::slice::from_ref(&action), &sources) {
            Ok(outcomes) => match outcomes.into_iter().next() {
                Some(Outcome::Done) => {
                    self.touched(i);
                    self.end_damage(i, path);
                    Answer::Done(1)
                }
                Some(Outcome::Blocked(problem)) => refused(problem.code as u16, &problem.detail),
                _ => refused(2109, BUSY),
            },
            Err(e) => {
                let why = e.chain();
                self.replica_failed(i, &e);
                refused(2104, &why)
            }
        }
    }

    /// What a damaged file contains now. A file that is sound needs no decision.
    fn damage_at(&mut self, i: usize, path: &RelPath) -> Result<Found, Box<Answer>> {
        if !self.slots.get(i).is_some_and(crate::session::Slot::online) {
            return Err(Box::new(refused(1012, "the replica is not there")));
        }
        match self.slots[i].replica.check(path) {
            Ok(Checked::Decayed { found, .. }) => {
                self.hold_damage(i, path, &found);
                Ok(*found)
            }
            Ok(Checked::Busy) => Err(Box::new(refused(2109, BUSY))),
            Ok(checked) => {
                self.take_checked(i, path, checked);
                Err(Box::new(Answer::Done(0)))
            }
            Err(e) => {
                let why = e.chain();
                self.replica_failed(i, &e);
                Err(Box::new(refused(2201, &why)))
            }
        }
    }
}

fn refused(code: u16, why: &str) -> Answer {
    let why = why.to_owned();
    Answer::Refused { code, why }
}

/// Whether a finding is of the bytes that are known to be damaged, or of more damage to the same file.
fn is_only_damage(found: &Found, record: &DamageRecord, row: Option<&Row>) -> bool {
    let Found::Present {
        kind: Kind::File,
        content,
        size,
        mtime,
        ..
    } = found
    else {
        return false;
    };
    let recorded = row.and_then(Row::present);
    let looks_same = recorded.is_some_and(|v| (*size, *mtime) == (v.size, v.mtime));
    let is_right = content.to_string() == record.content;
    content.to_string() == record.found || looks_same && !is_right
}

/// The action that puts the recorded version in the place of what was found.
fn restoring(i: usize, path: &RelPath, row: &Row, found: &Found) -> Option<Action> {
    let version = row.present()?;
    let Found::Present {
        kind,
        content,
        print,
        ..
    } = found
    else {
        return None;
    };
    Some(Action {
        replica: i,
        path: path.clone(),
        before: Precondition::Unchanged {
            kind: *kind,
            print: *print,
            content: *content,
        },
        goal: Goal::of(version, row.print.map_or(version.mode, |p| p.mode)),
        keep: Keep::Trash,
        entry: row.entry.clone(),
        shown: row.shown,
    })
}

/// Sources of which only those are offered whose bytes were read and found to be right.
struct Verifying(Origins);

impl Sources for Verifying {
    fn open(&self, action: &Action, content: ContentId) -> Option<Box<dyn Content>> {
        let mut from = self.0.open(action, content)?;
        let mut hasher = instep_chunk::Hasher::new();
        let mut buffer = vec![0; BLOCK];
        let mut at = 0;
        loop {
            match from.read_at(at, &mut buffer).ok()? {
                0 => break,
                n => {
                    hasher.update(&buffer[..n]);
                    at += n as u64;
                }
            }
        }
        (hasher.finish() == content).then_some(from)
    }
}
