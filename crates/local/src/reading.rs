//! Reading what a walk could not judge by its looks: the contents of new and changed files.
//!
//! Owns the order and the size of what is read at once. After a first walk of a large tree the files are
//! read in pieces, each while the one before it is passed on, and the small contents of a piece are kept in
//! memory until they have been passed on, so that no byte is read twice. Where a save within one tick of the
//! clock leaves the stamps as they were, what was saved just now is read once more after that. Invariant:
//! content counts only if the file stood still while it was read and nobody had it open for writing.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use instep_core::id::ContentId;
use instep_core::path::RelPath;
use instep_core::plan::{Code, Problem};
use instep_core::row::Print;
use instep_core::version::Kind;
use instep_fs::{Dir, ErrorKind as FsErrorKind, File, Kind as FsKind, Stat};
use instep_replica::env::Env;
use instep_replica::look::Found;
use instep_replica::{Content, Look};

use crate::attributes::ReadXattrs;
use crate::content::{Hashed, hash_file};
use crate::print::{print, unlike, unstamped_ms, vouched};
use crate::replica::{HashedAside, LocalReplica, locked};
use crate::scan::{self, Candidate};
use crate::tree;

/// Bytes read in one piece, as long as it is more than one file.
const PIECE_BYTES: u64 = 12 * 1024 * 1024;
/// The longest that a file which is being written is left alone between two tries; it is a problem then.
const BUSY_MS_MAX: u64 = 1000;
/// A file of at most this size is kept until it was passed on.
const KEPT_FILE_BYTES: u64 = 64 * 1024;
/// All kept files together.
const KEPT_BYTES: usize = 12 * 1024 * 1024;

/// Contents of small files that were read a moment ago.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    contents: HashMap<ContentId, Arc<Vec<u8>>>,
    bytes: usize,
}

/// Bytes that were hashed when they were read.
#[derive(Debug)]
pub(crate) struct KeptContent {
    id: ContentId,
    bytes: Arc<Vec<u8>>,
}

impl KeptContent {
    /// These bytes, hashed now.
    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        Self {
            id: instep_chunk::content_id(&bytes),
            bytes: Arc::new(bytes),
        }
    }

    /// Whether it is this content.
    pub(crate) fn is(&self, id: ContentId) -> bool {
        self.id == id
    }
}

/// What reading a candidate gave.
#[derive(Debug)]
enum Reading {
    /// What it holds; small contents are kept.
    Content {
        id: ContentId,
        high_entropy: bool,
        bytes: Option<Arc<Vec<u8>>>,
        /// Where they are carried.
        xattrs: Option<ReadXattrs>,
        /// For how many milliseconds a change may leave the stamps as they are.
        unstamped_ms: Option<u64>,
    },
    /// It is too large to be read twice: it is read when a change would show, after so many milliseconds.
    Unstamped(u64),
    /// Somebody writes it.
    Busy,
    /// It was there a moment ago.
    Missing,
    /// It is being hashed aside.
    Aside,
    /// It could not be read.
    Failed(instep_fs::Error),
}

/// Whether a file's content is hashed here and now.
enum Aside {
    No,
    Pending,
    Unstamped(u64),
    Done(Hashed),
}

/// A piece that is read while the one before it is passed on.
#[derive(Debug)]
pub(crate) struct Ahead {
    piece: Arc<Vec<Candidate>>,
    readings: mpsc::Receiver<Vec<Reading>>,
}

/// What reading files takes, on any thread.
#[derive(Clone)]
struct Reader {
    env: Arc<dyn Env>,
    root: Dir,
    leases: bool,
    /// Extended attributes are carried.
    xattrs: bool,
    /// How long a stamp is in use.
    tick_ns: u32,
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
    fn add(&mut self, id: ContentId, bytes: Arc<Vec<u8>>) {
        if self.bytes + bytes.len() <= KEPT_BYTES && !self.contents.contains_key(&id) {
            self.bytes += bytes.len();
            self.contents.insert(id, bytes);
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

/// What a walk left to be read, in the order of the tree.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    queue: VecDeque<Candidate>,
    /// How many files of each directory have not been taken in.
    dirs: HashMap<RelPath, u64>,
}

impl Unread {
    /// Adds files after those that wait already.
    pub(crate) fn add(&mut self, candidates: Vec<Candidate>) {
        for c in &candidates {
            let dir = c.path.parent().unwrap_or_else(RelPath::root);
            *self.dirs.entry(dir).or_default() += 1;
        }
        self.queue.extend(candidates);
    }

    /// Takes the next piece, of at most so many files.
    pub(crate) fn next_piece(&mut self, files: usize) -> Vec<Candidate> {
        let mut piece = Vec::new();
        let mut bytes = 0;
        while let Some(c) = self.queue.pop_front() {
            bytes += c.stat.size;
            if bytes > PIECE_BYTES && !piece.is_empty() {
                self.queue.push_front(c);
                break;
            }
            piece.push(c);
            if piece.len() >= files {
                break;
            }
        }
        piece
    }

    /// A piece has been taken in.
    pub(crate) fn done(&mut self, piece: &[Candidate]) {
        for c in piece {
            let dir = c.path.parent().unwrap_or_else(RelPath::root);
            if let Some(left) = self.dirs.get_mut(&dir) {
                *left -= 1;
                if *left == 0 {
                    self.dirs.remove(&dir);
                }
            }
        }
    }

    /// Whether files of a directory have not been taken in.
    pub(crate) fn has(&self, dir: &RelPath) -> bool {
        self.dirs.contains_key(dir)
    }

    /// Whether anything has not been taken in.
    pub(crate) fn is_empty(&self) -> bool {
        self.dirs.is_empty()
    }

    /// Paths and sizes of what waits.
    pub(crate) fn waiting(&self) -> Vec<(RelPath, u64)> {
        let waiting = self.queue.iter();
        waiting.map(|c| (c.path.clone(), c.stat.size)).collect()
    }
}

/// Makes the next look read a file whose stamps do not tell of every change yet.
fn read_again(found: &mut Found) {
    if let Found::Present { print, .. } | Found::Refreshed { print } = found {
        *print = unlike(*print, print.mode);
    }
}

/// Whether so much is to be read that it is better done in pieces of so many files.
pub(crate) fn is_much(unread: &[Candidate], files: usize) -> bool {
    unread.len() > files || unread.iter().map(|c| c.stat.size).sum::<u64>() > PIECE_BYTES
}

impl Reader {
    /// Reads candidates, those of one directory together; in their order.
    fn read(
        &self,
        candidates: &[Candidate],
        aside: &(dyn Fn(&File, &Candidate) -> Aside + Sync),
    ) -> Vec<Reading> {
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
        let results = Mutex::new(Vec::with_capacity(candidates.len()));
        instep_replica::env::for_each(self.env.as_ref(), groups.len(), Vec::new, |buffer, g| {
            let group = &candidates[groups[g].clone()];
            let parent = group[0].path.parent().unwrap_or_else(RelPath::root);
            let dir = tree::open(&self.root, &parent);
            let read = group.iter().map(|c| match &dir {
                Ok(dir) => self.read_one(dir, c, aside, buffer),
                Err(_) => Reading::Missing,
            });
            let read: Vec<(usize, Reading)> = groups[g].clone().zip(read).collect();
            locked(&results).extend(read);
        });
        let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        results.sort_by_key(|(i, _)| *i);
        results.into_iter().map(|(_, reading)| reading).collect()
    }

    fn read_one(
        &self,
        dir: &Dir,
        c: &Candidate,
        aside: &(dyn Fn(&File, &Candidate) -> Aside + Sync),
        buffer: &mut Vec<u8>,
    ) -> Reading {
        let Some(name) = c.path.name() else {
            return Reading::Missing;
        };
        let file = match dir.open_file(name) {
            Ok(file) => file,
            Err(e) if matches!(e.kind(), FsErrorKind::Absent | FsErrorKind::OtherKind) => {
                return Reading::Missing;
            }
            Err(e) => return Reading::Failed(e),
        };
        // A lease is refused while anybody has the file open for writing, or mapped writable.
        let is_written = || self.leases && matches!(file.read_lease(), Ok(None));
        if is_written() {
            return Reading::Busy;
        }
        // What is read now was there at this instant at the earliest.
        let unstamped_ms = unstamped_ms(&c.stat, self.env.wall_ns(), self.tick_ns);
        let mut reading = match aside(&file, c) {
            Aside::Pending => return Reading::Aside,
            Aside::Unstamped(ms) => return Reading::Unstamped(ms),
            Aside::Done(hashed) => return self.hashed_as(&file, c, hashed, None),
            Aside::No => self.read_through(&file, c, buffer),
        };
        if let Reading::Content {
            unstamped_ms: ms, ..
        } = &mut reading
        {
            // Its stamps do not tell of whoever opened it while it was read, and has not written all of it yet.
            if unstamped_ms.is_some() && is_written() {
                return Reading::Busy;
            }
            *ms = unstamped_ms;
        }
        reading
    }

    fn read_through(&self, file: &File, c: &Candidate, buffer: &mut Vec<u8>) -> Reading {
        // The brake asks of what was there before whether it looks random now.
        let probe = c.row.is_some();
        // What the walk saw is what must still be there when all has been read.
        if c.stat.size > KEPT_FILE_BYTES {
            return match hash_file(file, &c.stat, probe, buffer) {
                Ok(hashed) => self.hashed_as(file, c, hashed, None),
                Err(e) => Reading::Failed(e),
            };
        }
        let size = c.stat.size as usize;
        let mut bytes = Vec::with_capacity(size + 1);
        match hash_file(file, &c.stat, probe, &mut bytes) {
            Ok(hashed) => {
                bytes.truncate(size);
                let is_whole = bytes.len() == size;
                self.hashed_as(file, c, hashed, is_whole.then_some(bytes))
            }
            Err(e) => Reading::Failed(e),
        }
    }

    /// Content, with the extended attributes where they are carried, if these stood still too.
    fn hashed_as(
        &self,
        file: &File,
        c: &Candidate,
        hashed: Hashed,
        bytes: Option<Vec<u8>>,
    ) -> Reading {
        let Hashed::Content { id, high_entropy } = hashed else {
            return Reading::Busy;
        };
        let xattrs = self.xattrs.then(|| file.xattrs());
        let stands_still = || file.stat().is_ok_and(|now| now.ctime == c.stat.ctime);
        if xattrs.is_some() && !stands_still() {
            return Reading::Busy;
        }
        Reading::Content {
            id,
            high_entropy,
            bytes: bytes.map(Arc::new),
            xattrs,
            unstamped_ms: None,
        }
    }
}

impl LocalReplica {
    fn reader(&self) -> Reader {
        Reader {
            env: self.env.clone(),
            root: self.root.clone(),
            leases: self.profile.leases,
            xattrs: self.carried().xattrs,
            tick_ns: self.profile.tick_ns,
        }
    }

    /// Reads the contents of candidates; each becomes a finding, or is looked at again.
    pub(crate) fn read_candidates(&self, candidates: &[Candidate], hinted: bool, look: &mut Look) {
        let live = hinted && self.waker.get().is_some();
        let aside = |file: &File, c: &Candidate| {
            if !live || c.stat.size <= self.settings.hash_aside_bytes {
                return Aside::No;
            }
            if let Some(ms) = self.unstamped_ms(&c.stat) {
                return Aside::Unstamped(ms);
            }
            self.hashed_aside(file, c)
                .map_or(Aside::Pending, Aside::Done)
        };
        let readings = self.reader().read(candidates, &aside);
        self.take_readings(candidates, readings, look);
    }

    /// Begins to read the next piece of what is unread.
    pub(crate) fn read_ahead(&self) {
        if locked(&self.ahead).is_some() {
            return;
        }
        let piece = locked(&self.unread).next_piece(self.settings.piece_files);
        if piece.is_empty() {
            return;
        }
        let piece = Arc::new(piece);
        let (send, readings) = mpsc::channel();
        let (reader, mine) = (self.reader(), piece.clone());
        self.env.spawn(
            "read",
            Box::new(move || {
                let read = reader.read(&mine, &|_, _| Aside::No);
                // Nobody waits for it when everything is looked at anew.
                let _unwanted = send.send(read);
            }),
        );
        *locked(&self.ahead) = Some(Ahead { piece, readings });
    }

    /// Takes in the piece that was read ahead, while the next one is read.
    pub(crate) fn take_ahead(&self, look: &mut Look) {
        let Some(ahead) = locked(&self.ahead).take() else {
            return;
        };
        let read = ahead.readings.recv();
        self.read_ahead();
        // A reader that died read nothing: all of it is looked at again.
        let read = read.unwrap_or_else(|_| ahead.piece.iter().map(|_| Reading::Missing).collect());
        self.take_readings(&ahead.piece, read, look);
        locked(&self.unread).done(&ahead.piece);
    }

    fn take_readings(&self, candidates: &[Candidate], readings: Vec<Reading>, look: &mut Look) {
        for (c, reading) in candidates.iter().zip(readings) {
            match reading {
                Reading::Content {
                    id,
                    high_entropy,
                    bytes,
                    xattrs,
                    unstamped_ms,
                } => {
                    locked(&self.busy).remove(&c.path);
                    if let Some(bytes) = bytes {
                        locked(&self.kept).add(id, bytes);
                    }
                    let found = Some(self.judge(c, id, high_entropy));
                    let xattrs = || xattrs.unwrap_or(Ok(None));
                    let (row, problems) = (c.row.as_ref(), &mut look.problems);
                    let mut found = self.told(&c.path, found, xattrs, &c.stat, row, problems);
                    if let Some(ms) = unstamped_ms {
                        found.iter_mut().for_each(read_again);
                        look.again.push((c.path.clone(), ms));
                    }
                    let found = found.map(|found| instep_replica::Finding {
                        path: c.path.clone(),
                        found,
                    });
                    look.findings.extend(found);
                }
                Reading::Busy => {
                    let delay_ms = self.back_off(&c.path);
                    if delay_ms >= BUSY_MS_MAX {
                        let detail = "a program writes it or has it open for writing".into();
                        look.problems.push(Problem {
                            path: c.path.clone(),
                            code: Code::Changing,
                            detail,
                        });
                    }
                    look.again.push((c.path.clone(), delay_ms));
                }
                Reading::Unstamped(ms) => look.again.push((c.path.clone(), ms)),
                Reading::Missing => look.again.push((c.path.clone(), 2)),
                Reading::Aside => look.unhashed.push(c.path.clone()),
                Reading::Failed(e) => look.problems.push(Problem {
                    path: c.path.clone(),
                    code: Code::Unreadable,
                    detail: e.to_string(),
                }),
            }
        }
    }

    /// For how long a change of an object may still leave its stamps as they are.
    fn unstamped_ms(&self, stat: &Stat) -> Option<u64> {
        unstamped_ms(stat, self.env.wall_ns(), self.profile.tick_ns)
    }

    /// What may be recorded of an object that we put at a path, as [`vouched`]. Where a user's change of it
    /// may not show in its stamps, it is read after that time.
    pub(crate) fn vouched(&self, path: &RelPath, ours: &Stat, now: Option<&Stat>) -> Print {
        let print = vouched(ours, now);
        // Any change sets the modification time, so an older one shows it.
        let given = Stat {
            ctime: ours.mtime,
            ..*ours
        };
        if ours.kind == FsKind::File
            && self.unstamped_ms(ours).is_some()
            && self.unstamped_ms(&given).is_some()
        {
            self.hint(path.clone());
            return unlike(print, print.mode);
        }
        print
    }

    /// How long to leave a file alone that is being written: longer each time.
    pub(crate) fn back_off(&self, path: &RelPath) -> u64 {
        let mut busy = locked(&self.busy);
        let next = busy.get(path).map_or(2, |ms| (ms * 2).min(BUSY_MS_MAX));
        busy.insert(path.clone(), next);
        next
    }

    fn judge(&self, c: &Candidate, id: ContentId, high_entropy: bool) -> Found {
        let here = c.row.as_ref().and_then(|r| r.present());
        let mode = (c.stat.mode & 0o777) as u16;
        let mode_here = c.row.as_ref().and_then(|r| r.print).map(|p| p.mode);
        let same = here
            .is_some_and(|v| v.kind == Kind::File && v.content == id && v.mtime == c.stat.mtime);
        if same && (mode_here == Some(mode) || !self.profile.modes) {
            return Found::Refreshed {
                print: print(&c.stat),
            };
        }
        scan::present(Kind::File, id, &c.stat, Box::default(), high_entropy)
    }

    /// The content of a big file, hashed on a thread of its own: `None` while that is under way.
    fn hashed_aside(&self, file: &File, c: &Candidate) -> Option<Hashed> {
        let looks = print(&c.stat).hash;
        let mut aside = locked(&self.hashed_aside);
        match aside.get(&c.path) {
            Some(known) if known.looks == looks => {
                let result = known.result?;
                aside.remove(&c.path);
                return Some(result);
            }
            // An older state is being hashed: its end brings us here again.
            Some(HashedAside { result: None, .. }) => return None,
            _ => {}
        }
        let mut entry = HashedAside {
            looks,
            result: None,
            told: false,
        };
        aside.insert(c.path.clone(), entry);
        drop(aside);
        let (file, stat, path) = (file.clone(), c.stat, c.path.clone());
        let probe = c.row.is_some();
        let (results, waker) = (self.hashed_aside.clone(), self.waker.get().cloned());
        self.env.spawn(
            "hash",
            Box::new(move || {
                // What cannot be read now is looked at again, and then says why.
                let hashed = hash_file(&file, &stat, probe, &mut Vec::new());
                let hashed = hashed.unwrap_or(Hashed::Changing);
                entry.result = Some(hashed);
                locked(&results).insert(path, entry);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }),
        );
        None
    }
}
