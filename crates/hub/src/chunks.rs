//! The directory of chunks: bytes under the name of their hash.
//!
//! Owns `chunks/ab/abcd...` and `staging/`, and who may remove what. A chunk is written to a name in `staging`, and
//! gets its place in `chunks` after one flush for the whole group. Invariants: what has a place in `chunks` was durable
//! before it got it; bytes that are handed out have the hash of their name; what somebody is about to refer to, or came
//! to refer to since a collection began, is not removed. It does not know what the chunks belong to.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use instep_chunk::content_id;
use instep_chunk::cut::CHUNKS;
use instep_core::id::ContentId;
use instep_core::path::Name;
use instep_fs::{Dir, Error, ErrorKind, Result, small_file};

/// Bytes that wait for a flush, at most: whoever brings more makes them durable first.
const GROUP_BYTES: u64 = 256 * 1024 * 1024;

/// Chunks that are flushed one by one; more are flushed with everything else that the file system has not written.
const SYNC_ONE_BY_ONE_MAX: usize = 32;

/// A name that is known to be legal because we chose it.
pub(crate) fn ours(name: &str) -> Name<'_> {
    Name::new(name.as_bytes()).expect("names of ours are short and plain")
}

/// Opens a directory of ours, making it if it is missing.
pub(crate) fn sub(base: &Dir, name: &str) -> Result<Dir> {
    match base.make_dir(ours(name), 0o700) {
        Err(e) if e.kind() != ErrorKind::Taken => Err(e),
        _ => base.open_dir(ours(name)),
    }
}

/// What reading a chunk gave.
#[derive(Debug)]
pub(crate) enum Chunk {
    /// Its bytes, which have its hash.
    Sound(Vec<u8>),
    /// It is not there.
    Missing,
    /// Its bytes have another hash.
    Damaged,
    /// The system could not say.
    Unreadable(Error),
}

/// A chunk that waits for a flush.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Waiting {
    /// Its name in `staging`.
    name: String,
    bytes: u64,
}

/// What is under way with chunks.
#[derive(Debug, Default)]
struct Under {
    /// Complete in `staging`.
    pending: HashMap<ContentId, Waiting>,
    /// Somebody is about to refer to these.
    pinned: HashMap<ContentId, u32>,
    /// Referred to since a collection began, while one runs.
    recent: Option<HashSet<ContentId>>,
    next: u64,
    /// A flush failed: nobody knows what it lost.
    failed: Option<Error>,
}

/// The chunks of one share.
#[derive(Debug)]
pub(crate) struct Chunks {
    home: Dir,
    shelves: Dir,
    staging: Dir,
    under: Mutex<Under>,
    /// Held by whoever makes chunks durable.
    settling: Mutex<()>,
}

/// What one reader of contents is about to refer to; let go of when dropped.
#[derive(Debug)]
pub(crate) struct Pins<'a> {
    of: &'a Chunks,
    /// What is here already is read before it is relied on.
    is_doubtful: bool,
    held: Vec<ContentId>,
}

impl Drop for Pins<'_> {
    fn drop(&mut self) {
        let mut under = self.of.lock();
        for id in &self.held {
            under.unpin(*id);
        }
    }
}

impl Under {
    fn pin(&mut self, id: ContentId) {
        *self.pinned.entry(id).or_default() += 1;
        if let Some(recent) = &mut self.recent {
            recent.insert(id);
        }
    }

    fn unpin(&mut self, id: ContentId) {
        let count = self.pinned.get(&id).copied().unwrap_or(0);
        if count > 1 {
            self.pinned.insert(id, count - 1);
        } else {
            self.pinned.remove(&id);
        }
    }

    fn is_wanted(&self, id: ContentId) -> bool {
        let is_recent = self.recent.as_ref().is_some_and(|r| r.contains(&id));
        is_recent || self.pinned.contains_key(&id) || self.pending.contains_key(&id)
    }
}

impl Chunks {
    /// Opens the directories below `home`, and takes in what an earlier process left in `staging`: what is whole
    /// is kept, anything else goes.
    pub(crate) fn open(home: &Dir) -> Result<Self> {
        let chunks = Self {
            home: home.clone(),
            shelves: sub(home, "chunks")?,
            staging: sub(home, "staging")?,
            under: Mutex::default(),
            settling: Mutex::default(),
        };
        chunks.take_in()?;
        // From now on only what is in these directories has to be flushed.
        home.sync_fs()?;
        Ok(chunks)
    }

    fn lock(&self) -> MutexGuard<'_, Under> {
        self.under.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_in(&self) -> Result<()> {
        let mut names = Vec::new();
        self.staging
            .list(&mut |name, _| names.push(String::from_utf8_lossy(name).into_owned()))?;
        // No new name may be one that is still there.
        let number = |name: &String| Some(u64::from(name.rsplit('-').next()?.parse::<u32>().ok()?));
        self.lock().next = names.iter().filter_map(number).max().unwrap_or(0);
        for name in names {
            let id = name.get(..64).and_then(|hex| hex.parse::<ContentId>().ok());
            let left = id.map(|id| (id, read(&self.staging, &name, id)));
            match left {
                // It is written anew: after a flush that failed the system may take for written what never was.
                Some((id, Chunk::Sound(bytes))) if !self.has(id) => self.write(id, &bytes)?,
                Some((_, Chunk::Unreadable(e))) => return Err(e),
                _ => {}
            }
            self.staging.remove_file(ours(&name))?;
        }
        Ok(())
    }

    /// Begins to bring something in. Where it is brought again because something of it had decayed, perhaps more of
    /// it has: that is `doubtful`.
    pub(crate) fn pins(&self, is_doubtful: bool) -> Pins<'_> {
        Pins {
            of: self,
            is_doubtful,
            held: Vec::new(),
        }
    }

    /// Whether a chunk is here.
    pub(crate) fn has(&self, id: ContentId) -> bool {
        self.size(id).is_some()
    }

    /// Bytes of a chunk that is here.
    pub(crate) fn size(&self, id: ContentId) -> Option<u64> {
        let waiting = self.lock().pending.get(&id).cloned();
        let staged = waiting.and_then(|w| self.staging.stat(ours(&w.name)).ok().flatten());
        let stat = staged.or_else(|| {
            let dir = self.shelf(id).ok()?;
            dir.stat(ours(&id.to_string())).ok().flatten()
        });
        stat.map(|s| s.size)
    }

    fn shelf(&self, id: ContentId) -> Result<Dir> {
        self.shelves.open_dir(ours(&prefix(id)))
    }

    /// The bytes of a chunk.
    pub(crate) fn read(&self, id: ContentId) -> Chunk {
        let waiting = self.lock().pending.get(&id).cloned();
        if let Some(waiting) = waiting {
            match read(&self.staging, &waiting.name, id) {
                // It got its place meanwhile.
                Chunk::Missing => {}
                other => return other,
            }
        }
        match self.shelf(id) {
            Ok(dir) => read(&dir, &id.to_string(), id),
            Err(e) if e.kind() == ErrorKind::Absent => Chunk::Missing,
            Err(e) => Chunk::Unreadable(e),
        }
    }

    fn write(&self, id: ContentId, bytes: &[u8]) -> Result<()> {
        let name = {
            let mut under = self.lock();
            under.next += 1;
            format!("{id}-{}", under.next)
        };
        let file = self.staging.create_file(ours(&name), 0o600)?;
        if let Err(e) = file.write_all_at(0, bytes) {
            // What stays is found and removed at the next opening.
            let _stays = self.staging.remove_file(ours(&name));
            return Err(e);
        }
        let bytes = bytes.len() as u64;
        let first = self.lock().pending.insert(id, Waiting { name, bytes });
        // Somebody else brought the same at the same time.
        first.map_or(Ok(()), |w| self.staging.remove_file(ours(&w.name)))
    }

    /// Whether something waits for a flush.
    pub(crate) fn is_pending(&self) -> bool {
        !self.lock().pending.is_empty()
    }

    /// Whether so much waits for a flush that it is time for one.
    pub(crate) fn is_due(&self) -> bool {
        let under = self.lock();
        under.pending.values().map(|w| w.bytes).sum::<u64>() >= GROUP_BYTES
    }

    /// Makes everything that was brought in durable, and gives it its place.
    pub(crate) fn settle(&self) -> Result<()> {
        // Whoever finds nothing that waits must not go on while another has not flushed it.
        let _one = self.settling.lock().unwrap_or_else(PoisonError::into_inner);
        let group: Vec<(ContentId, Waiting)> = {
            let under = self.lock();
            if let Some(e) = &under.failed {
                return Err(e.clone());
            }
            let pending = under.pending.iter();
            pending.map(|(id, w)| (*id, w.clone())).collect()
        };
        if group.len() > SYNC_ONE_BY_ONE_MAX {
            self.settle_together(&group)
        } else {
            self.settle_one_by_one(&group)
        }
    }

    /// A flush that failed may have lost what another one afterwards will not complain of.
    fn flushed(&self, flushed: Result<()>) -> Result<()> {
        if let Err(e) = &flushed {
            self.lock().failed = Some(e.clone());
        }
        flushed
    }

    /// Why nothing can be made durable any more, if so: the chunks have to be opened anew.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.lock().failed.clone()
    }

    /// A new name that a power cut takes leaves the old one, which is durable, and from which the next opening takes
    /// the chunk in.
    fn settle_together(&self, group: &[(ContentId, Waiting)]) -> Result<()> {
        self.flushed(self.home.sync_fs())?;
        let mut place = |(id, waiting): &(ContentId, Waiting)| self.place(*id, waiting).map(drop);
        group.iter().try_for_each(&mut place)
    }

    /// What others have written on the same file system is not waited for. Here it is the new names that are durable.
    fn settle_one_by_one(&self, group: &[(ContentId, Waiting)]) -> Result<()> {
        for (_, waiting) in group {
            match self.staging.open_file(ours(&waiting.name)) {
                // It was damaged, and taken away.
                Err(e) if e.kind() == ErrorKind::Absent => {}
                file => self.flushed(file?.sync_data())?,
            }
        }
        let mut shelves = BTreeMap::new();
        for (id, waiting) in group {
            shelves.insert(prefix(*id), self.place(*id, waiting)?);
        }
        shelves
            .values()
            .try_for_each(|dir| self.flushed(dir.sync()))
    }

    /// Gives a chunk that was flushed its place; the directory that this is in.
    fn place(&self, id: ContentId, waiting: &Waiting) -> Result<Dir> {
        let dir = match self.shelf(id) {
            Err(e) if e.kind() == ErrorKind::Absent => {
                let made = sub(&self.shelves, &prefix(id))?;
                self.flushed(self.shelves.sync())?;
                made
            }
            dir => dir?,
        };
        let mut under = self.lock();
        // It was damaged and taken away, or brought once more, which was not flushed.
        if under.pending.get(&id) == Some(waiting) {
            let name = id.to_string();
            self.staging
                .rename_over(ours(&waiting.name), &dir, ours(&name))?;
            under.pending.remove(&id);
        }
        Ok(dir)
    }

    /// Every chunk that has its place.
    pub(crate) fn each(&self, visit: &mut dyn FnMut(ContentId) -> Result<()>) -> Result<()> {
        let mut shelves = Vec::new();
        self.shelves.list(&mut |name, _| {
            shelves.push(String::from_utf8_lossy(name).into_owned());
        })?;
        shelves.sort();
        for shelf in shelves.iter().filter(|s| s.len() == 2) {
            let mut ids = Vec::new();
            let dir = self.shelves.open_dir(ours(shelf))?;
            dir.list(&mut |name, _| {
                let text = std::str::from_utf8(name).ok();
                ids.extend(text.and_then(|t| t.parse::<ContentId>().ok()));
            })?;
            ids.sort();
            ids.into_iter().try_for_each(&mut *visit)?;
        }
        Ok(())
    }

    /// From now on, what anybody refers to stays.
    pub(crate) fn begin_collecting(&self) {
        let mut under = self.lock();
        under.recent = Some(under.pinned.keys().copied().collect());
    }

    /// Nothing is removed any more.
    pub(crate) fn end_collecting(&self) {
        self.lock().recent = None;
    }

    /// Removes a chunk unless somebody has come to want it; its size if it is gone.
    pub(crate) fn remove(&self, id: ContentId) -> Result<Option<u64>> {
        // Whoever is about to refer to it asks for this lock first.
        let under = self.lock();
        if under.is_wanted(id) {
            return Ok(None);
        }
        let dir = self.shelf(id)?;
        let name = id.to_string();
        let size = dir.stat(ours(&name))?.map(|s| s.size);
        dir.remove_file(ours(&name))?;
        drop(under);
        Ok(size)
    }

    /// Takes a chunk that is still damaged from its place, so that it can be brought anew: it stays aside until a person
    /// deletes it, because it may be all that is left. Whether it is sound after all.
    pub(crate) fn discard(&self, id: ContentId) -> Result<bool> {
        match self.read(id) {
            Chunk::Sound(_) => return Ok(true),
            Chunk::Missing => return Ok(false),
            Chunk::Unreadable(e) => return Err(e),
            Chunk::Damaged => {}
        }
        // Nobody gives another its place meanwhile.
        let mut under = self.lock();
        let (name, aside) = (id.to_string(), sub(&self.home, "damaged")?);
        let gone = match under.pending.remove(&id) {
            Some(waiting) => self
                .staging
                .rename_over(ours(&waiting.name), &aside, ours(&name)),
            None => self
                .shelf(id)?
                .rename_over(ours(&name), &aside, ours(&name)),
        };
        match gone {
            Err(e) if e.kind() != ErrorKind::Absent => Err(e),
            _ => Ok(false),
        }
    }
}

impl Pins<'_> {
    /// Makes sure that a chunk is here; it stays at least until this is dropped.
    pub(crate) fn put(&mut self, id: ContentId, bytes: &[u8]) -> Result<()> {
        self.of.lock().pin(id);
        self.held.push(id);
        let is_here = if self.is_doubtful {
            matches!(self.of.read(id), Chunk::Sound(_))
        } else {
            self.of.size(id) == Some(bytes.len() as u64)
        };
        if is_here {
            return Ok(());
        }
        self.of.write(id, bytes)
    }
}

/// The directory that a chunk is in.
fn prefix(id: ContentId) -> String {
    id.to_string()[..2].to_owned()
}

fn read(dir: &Dir, name: &str, id: ContentId) -> Chunk {
    match small_file::read(dir, ours(name), CHUNKS.max() as u64 + 1) {
        Ok(bytes) if content_id(&bytes) == id => Chunk::Sound(bytes),
        Ok(_) => Chunk::Damaged,
        Err(e) if e.kind() == ErrorKind::Absent => Chunk::Missing,
        Err(e) => Chunk::Unreadable(e),
    }
}
