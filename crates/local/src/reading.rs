//! Reading what a walk could not judge by its looks: the contents of new and changed files.
//!
//! Owns the order and the size of what is read at once. After a first walk of a large tree the files are
//! read in pieces, and the small contents of a piece are kept in memory until they have been passed on, so
//! that no byte is read twice. Invariant: content counts only if the file stood still while it was read
//! and nobody had it open for writing.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use instep_core::id::ContentId;
use instep_core::path::RelPath;
use instep_core::plan::{Code, Problem};
use instep_core::version::Kind;
use instep_fs::{Dir, ErrorKind as FsErrorKind};
use instep_replica::{Content, Look};

use crate::content::{Hashed, hash_file};
use crate::print::print;
use crate::replica::{LocalReplica, locked};
use crate::scan::{self, Candidate};
use crate::tree;

/// Files read in one piece.
const PIECE_FILES: usize = 2000;
/// Bytes read in one piece, as long as it is more than one file.
const PIECE_BYTES: u64 = 24 * 1024 * 1024;
/// A file of at most this size is kept until it was passed on.
const KEPT_FILE_BYTES: u64 = 64 * 1024;
/// All kept files together.
const KEPT_BYTES: usize = 24 * 1024 * 1024;

/// Contents of small files that were read a moment ago.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    contents: HashMap<ContentId, Arc<[u8]>>,
    bytes: usize,
}

/// Bytes that were hashed when they were read.
#[derive(Debug)]
struct KeptContent {
    id: ContentId,
    bytes: Arc<[u8]>,
}

impl Content for KeptContent {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
        let tail = self
            .bytes
            .get(usize::try_from(offset).unwrap_or(usize::MAX)..)
            .unwrap_or(&[]);
        let n = tail.len().min(buf.len());
        buf[..n].copy_from_slice(&tail[..n]);
        Ok(n)
    }

    fn verified(&self) -> Option<(ContentId, &[u8])> {
        Some((self.id, &self.bytes))
    }
}

impl Kept {
    fn add(&mut self, id: ContentId, bytes: &[u8]) {
        if self.bytes + bytes.len() <= KEPT_BYTES && !self.contents.contains_key(&id) {
            self.bytes += bytes.len();
            self.contents.insert(id, bytes.into());
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Content that is at hand.
    pub(crate) fn get(&self, id: ContentId) -> Option<Box<dyn Content>> {
        let bytes = self.contents.get(&id)?.clone();
        Some(Box::new(KeptContent { id, bytes }))
    }
}

/// Takes the next piece from what is to be read.
pub(crate) fn next_piece(unread: &mut VecDeque<Candidate>) -> Vec<Candidate> {
    let mut piece = Vec::new();
    let mut bytes = 0;
    while let Some(c) = unread.pop_front() {
        bytes += c.stat.size;
        if bytes > PIECE_BYTES && !piece.is_empty() {
            unread.push_front(c);
            break;
        }
        piece.push(c);
        if piece.len() >= PIECE_FILES {
            break;
        }
    }
    piece
}

/// Whether so much is to be read that it is better done in pieces.
pub(crate) fn is_much(unread: &[Candidate]) -> bool {
    unread.len() > PIECE_FILES || unread.iter().map(|c| c.stat.size).sum::<u64>() > PIECE_BYTES
}

impl LocalReplica {
    /// Reads the contents of candidates; each becomes a finding, or is looked at again.
    pub(crate) fn read_candidates(&self, candidates: &[Candidate], hinted: bool, look: &mut Look) {
        let mut groups: Vec<std::ops::Range<usize>> = Vec::new();
        for (i, c) in candidates.iter().enumerate() {
            let dir = c.path.split_bytes().map(|(d, _)| d);
            match groups.last_mut() {
                Some(g)
                    if g.len() < 128
                        && candidates[g.start].path.split_bytes().map(|(d, _)| d) == dir =>
                {
                    g.end = i + 1;
                }
                _ => groups.push(i..i + 1),
            }
        }
        let results = Mutex::new(Look::default());
        instep_replica::env::for_each(self.env.as_ref(), groups.len(), Vec::new, |buffer, g| {
            let mut mine = Look::default();
            let range = groups[g].clone();
            let parent = candidates[range.start]
                .path
                .parent()
                .unwrap_or_else(RelPath::root);
            match tree::open(&self.root, &parent) {
                Ok(dir) => {
                    for c in &candidates[range] {
                        self.read_candidate(&dir, c, hinted, buffer, &mut mine);
                    }
                }
                // It was there a moment ago: look again.
                Err(_) => mine
                    .again
                    .extend(candidates[range].iter().map(|c| (c.path.clone(), 2))),
            }
            let mut all = locked(&results);
            all.findings.append(&mut mine.findings);
            all.again.append(&mut mine.again);
            all.problems.append(&mut mine.problems);
            all.unhashed.append(&mut mine.unhashed);
        });
        let mut all = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        look.findings.append(&mut all.findings);
        look.again.append(&mut all.again);
        look.problems.append(&mut all.problems);
        look.unhashed.append(&mut all.unhashed);
    }

    /// How long to leave a file alone that is being written: longer each time.
    pub(crate) fn back_off(&self, path: &RelPath) -> u64 {
        let mut busy = locked(&self.busy);
        let next = busy.get(path).map_or(2, |ms| (ms * 2).min(1000));
        busy.insert(path.clone(), next);
        next
    }

    fn read_candidate(
        &self,
        dir: &Dir,
        c: &Candidate,
        hinted: bool,
        buffer: &mut Vec<u8>,
        look: &mut Look,
    ) {
        let Some(name) = c.path.name() else { return };
        let file = match dir.open_file(name) {
            Ok(file) => file,
            Err(e) if matches!(e.kind(), FsErrorKind::Absent | FsErrorKind::OtherKind) => {
                return look.again.push((c.path.clone(), 2));
            }
            Err(e) => {
                return look.problems.push(Problem {
                    path: c.path.clone(),
                    code: Code::Unreadable,
                    detail: e.to_string(),
                });
            }
        };
        // A lease is refused while anybody has the file open for writing, or mapped writable.
        if self.profile.leases && matches!(file.read_lease(), Ok(None)) {
            return look.again.push((c.path.clone(), self.back_off(&c.path)));
        }
        let live = hinted && self.waker.get().is_some();
        let hashed = if live && c.stat.size > self.settings.hash_aside_bytes {
            match self.hashed_aside(&file, c) {
                Some(hashed) => Ok(hashed),
                None => return look.unhashed.push(c.path.clone()),
            }
        } else {
            // What the walk saw is what must still be there when all has been read.
            hash_file(&file, &c.stat, buffer)
        };
        match hashed {
            Ok(Hashed::Content { id, high_entropy }) => {
                locked(&self.busy).remove(&c.path);
                let whole = buffer.get(..c.stat.size as usize);
                if let Some(bytes) = whole.filter(|b| b.len() as u64 <= KEPT_FILE_BYTES) {
                    locked(&self.kept).add(id, bytes);
                }
                let found = self.judge(c, id, high_entropy);
                look.findings.push(instep_replica::Finding {
                    path: c.path.clone(),
                    found,
                });
            }
            Ok(Hashed::Changing) => look.again.push((c.path.clone(), self.back_off(&c.path))),
            Err(e) => look.problems.push(Problem {
                path: c.path.clone(),
                code: Code::Unreadable,
                detail: e.to_string(),
            }),
        }
    }

    fn judge(&self, c: &Candidate, id: ContentId, high_entropy: bool) -> instep_replica::Found {
        let here = c.row.as_ref().and_then(|r| r.present());
        let mode = (c.stat.mode & 0o777) as u16;
        let mode_here = c.row.as_ref().and_then(|r| r.print).map(|p| p.mode);
        let same = here
            .is_some_and(|v| v.kind == Kind::File && v.content == id && v.mtime == c.stat.mtime);
        if same && (mode_here == Some(mode) || !self.profile.modes) {
            return instep_replica::Found::Refreshed {
                print: print(&c.stat),
            };
        }
        scan::present(Kind::File, id, &c.stat, Box::default(), high_entropy)
    }

    /// The content of a big file, hashed on a thread of its own: `None` while that is under way.
    fn hashed_aside(&self, file: &instep_fs::File, c: &Candidate) -> Option<Hashed> {
        let looks = print(&c.stat).hash;
        let mut aside = locked(&self.hashed_aside);
        match aside.get(&c.path) {
            Some((of, result)) if *of == looks => {
                let result = (*result)?;
                aside.remove(&c.path);
                return Some(result);
            }
            // An older state is being hashed: its end brings us here again.
            Some((_, None)) => return None,
            _ => {}
        }
        aside.insert(c.path.clone(), (looks, None));
        drop(aside);
        let (file, stat, path) = (file.clone(), c.stat, c.path.clone());
        let (results, waker) = (self.hashed_aside.clone(), self.waker.get().cloned());
        self.env.spawn(
            "hash",
            Box::new(move || {
                // What cannot be read now is looked at again, and then says why.
                let hashed = hash_file(&file, &stat, &mut Vec::new()).unwrap_or(Hashed::Changing);
                locked(&results).insert(path, (looks, Some(hashed)));
                if let Some(waker) = waker {
                    waker.wake();
                }
            }),
        );
        None
    }
}
