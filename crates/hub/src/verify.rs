//! Reading every chunk again, and saying which paths suffer from what has decayed.
//!
//! Invariant: a chunk is called sound only after it was read and hashed. What is found to be damaged is brought again
//! by whoever has it, as if a reader had met it; nothing else changes.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use instep_core::id::ContentId;
use instep_core::path::RelPath;
use instep_core::row::Row;
use instep_replica::Result;

use crate::contents::{Lack, Made, read};
use crate::replica::HubReplica;
use crate::state::State;

/// What is wrong with a chunk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// It is not there.
    Missing,
    /// It has other bytes.
    Decayed,
    /// It could not be read, for this reason.
    Unreadable(String),
}

/// A chunk that is not sound, and a path that suffers from it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flaw {
    /// A path that shows the content, showed it once, or from which it was displaced; none if it is only staged.
    pub path: Option<RelPath>,
    /// The content that is not whole.
    pub content: ContentId,
    /// The chunk, or the node of its manifest.
    pub chunk: ContentId,
    /// What is wrong with it.
    pub what: What,
}

/// What reading everything again showed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verified {
    /// Contents that were looked at.
    pub contents: u64,
    /// Different chunks that were read.
    pub chunks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Everything that is not sound, by path.
    pub flaws: Vec<Flaw>,
}

/// What is wrong, by content and then by chunk.
type Flawed = BTreeMap<ContentId, BTreeMap<ContentId, What>>;

/// A verification under way.
#[derive(Default)]
struct Reading {
    verified: Verified,
    /// Chunks that were read: half of an id is enough to tell them apart, and takes half the room.
    sound: HashSet<[u8; 16]>,
    flawed: Flawed,
}

impl HubReplica {
    /// Reads and hashes every chunk. `is_enough` is asked after each content.
    pub fn verify(&self, is_enough: &dyn Fn() -> bool) -> Result<Verified> {
        let mut reading = Reading::default();
        let contents = self.state().contents.ids()?;
        for content in contents {
            if is_enough() {
                break;
            }
            self.verify_one(content, &mut reading)?;
        }
        let mut state = self.state();
        for (path, content) in state.lacking()? {
            let flaws = reading.flawed.entry(content).or_default();
            flaws.entry(content).or_insert(What::Missing);
            state.contents.set_damaged(content, true)?;
            let flaws = flaws_at(Some(&path), content, flaws);
            reading.verified.flaws.extend(flaws);
        }
        state.commit_contents()?;
        let flawed = &reading.flawed;
        let suffering = state.suffering(flawed)?;
        drop(state);
        let mut flaws: BTreeSet<Flaw> = reading.verified.flaws.drain(..).collect();
        for (content, chunks) in flawed {
            let paths = suffering.get(content).into_iter().flatten();
            flaws.extend(paths.flat_map(|path| flaws_at(Some(path), *content, chunks)));
            if !suffering.contains_key(content) {
                flaws.extend(flaws_at(None, *content, chunks));
            }
        }
        reading.verified.flaws = flaws.into_iter().collect();
        Ok(reading.verified)
    }

    fn verify_one(&self, content: ContentId, reading: &mut Reading) -> Result<()> {
        let Some(listed) = self.state().contents.get(content)? else {
            // Forgotten meanwhile.
            return Ok(());
        };
        reading.verified.contents += 1;
        let made = listed.made(content, &self.chunks);
        let Made { pieces, nodes } = match made {
            Ok(made) => made,
            Err(lack) => {
                self.note(content, lack, reading);
                return Ok(());
            }
        };
        for id in pieces.iter().map(|p| p.id).chain(nodes) {
            let half: [u8; 16] = core::array::from_fn(|i| id.0[i]);
            if reading.sound.contains(&half) {
                continue;
            }
            match read(&self.chunks, id) {
                Ok(bytes) => {
                    reading.sound.insert(half);
                    reading.verified.chunks += 1;
                    reading.verified.bytes += bytes.len() as u64;
                }
                Err(lack) => self.note(content, lack, reading),
            }
        }
        Ok(())
    }

    fn note(&self, content: ContentId, lack: Lack, reading: &mut Reading) {
        // A collection may have forgotten it while it was read; then it lacks nothing.
        if !matches!(self.state().contents.get(content), Ok(Some(_))) {
            return;
        }
        let (chunk, what) = match &lack {
            Lack::Missing(id) => (*id, What::Missing),
            Lack::Damaged(id) => (*id, What::Decayed),
            Lack::Unreadable(id, e) => (*id, What::Unreadable(e.to_string())),
        };
        let flaws = reading.flawed.entry(content).or_default();
        flaws.insert(chunk, what);
        self.damage.report(content, lack);
    }
}

fn flaws_at<'a>(
    path: Option<&'a RelPath>,
    content: ContentId,
    chunks: &'a BTreeMap<ContentId, What>,
) -> impl Iterator<Item = Flaw> + 'a {
    chunks.iter().map(move |(chunk, what)| Flaw {
        path: path.cloned(),
        content,
        chunk: *chunk,
        what: what.clone(),
    })
}

impl State {
    /// Paths that show contents of which nothing is known.
    fn lacking(&mut self) -> Result<Vec<(RelPath, ContentId)>> {
        let mut out = self.index.files(|_| true)?;
        let mut failed = None;
        out.retain(|(_, content)| match self.contents.get(*content) {
            Ok(listed) => listed.is_none(),
            Err(e) => {
                failed = Some(e);
                false
            }
        });
        failed.map_or(Ok(out), Err)
    }

    /// Which paths suffer from contents that are not whole.
    fn suffering(&mut self, flawed: &Flawed) -> Result<BTreeMap<ContentId, BTreeSet<RelPath>>> {
        let mut out: BTreeMap<ContentId, BTreeSet<RelPath>> = BTreeMap::new();
        if flawed.is_empty() {
            return Ok(out);
        }
        let mut add = |content: ContentId, path: RelPath| {
            if flawed.contains_key(&content) {
                out.entry(content).or_default().insert(path);
            }
        };
        let is_flawed = |row: &Row| {
            let content = row.present().map(|v| v.content);
            content.is_some_and(|c| flawed.contains_key(&c))
        };
        for (path, content) in self.index.files(is_flawed)? {
            add(content, path);
        }
        self.contents.each_shown(&mut |shown| {
            if let Some(content) = shown.content() {
                add(content, shown.path);
            }
        })?;
        for (_, _, displaced) in self.displaced()? {
            if let (Some(content), Some(path)) = (displaced.content(), displaced.path()) {
                add(content, path);
            }
        }
        Ok(out)
    }
}
