//! Bringing a content in: cut, hashed, written, and held against the id that was asked for.
//!
//! Owns how bytes become chunks and a manifest. Invariant: what is returned is the content of that id, whole, with all
//! its chunks here. It lists nothing: whoever asked does, and until then the chunks are pinned.

use std::io;

use instep_chunk::cut::CHUNKS;

use instep_chunk::{Hasher, content_id};
use instep_core::id::ContentId;
use instep_replica::Content;

use crate::chunks::{Chunks, Pins};
use crate::manifest::{Piece, Tree, decode};

/// Bytes of a content that is kept as one object.
const SMALL_BYTES: usize = 64 * 1024;
/// Bytes read at a time.
const BLOCK: usize = 128 * 1024;

/// Why nothing was brought in.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The bytes are not those of the content: somebody is writing at the source, or lies.
    Other,
    /// They could not be read to the end: these came before.
    Source(io::Error, Vec<Piece>),
    /// They could not be written here.
    Disk(instep_fs::Error),
}

impl Refusal {
    fn after(self, pieces: Vec<Piece>) -> Self {
        match self {
            Self::Source(e, _) => Self::Source(e, pieces),
            other => other,
        }
    }
}

impl From<instep_fs::Error> for Refusal {
    fn from(e: instep_fs::Error) -> Self {
        Self::Disk(e)
    }
}

/// A content that is here and not listed.
#[derive(Debug)]
pub(crate) struct Taken<'a> {
    /// Bytes.
    pub(crate) size: u64,
    /// The top node of its manifest; empty for one object, or none.
    pub(crate) top: Vec<u8>,
    /// Its chunks, to be let go of when it is listed.
    pub(crate) pins: Pins<'a>,
}

/// The bytes of a source, as far as they were read and not yet used.
struct Bytes<'a> {
    from: &'a mut dyn Content,
    at: u64,
    ahead: Vec<u8>,
    hasher: Hasher,
    is_over: bool,
}

impl Bytes<'_> {
    /// Reads until so many bytes are at hand, or no more come.
    fn fill(&mut self, count: usize) -> Result<(), Refusal> {
        let mut block = vec![0; BLOCK.min(count + 1)];
        while !self.is_over && self.ahead.len() < count {
            match self.from.read_at(self.at, &mut block) {
                Ok(0) => self.is_over = true,
                Ok(n) => {
                    self.hasher.update(&block[..n]);
                    self.ahead.extend_from_slice(&block[..n]);
                    self.at += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Refusal::Source(e, Vec::new())),
            }
            if self.at > self.from.size() {
                return Err(Refusal::Other);
            }
        }
        Ok(())
    }

    /// Whether everything that was read is this content.
    fn are(&self, content: ContentId) -> bool {
        self.hasher.finish() == content && self.from.unchanged()
    }
}

/// Brings in the content of an id; `is_doubtful` says that it was here and had decayed.
pub(crate) fn take<'a>(
    chunks: &'a Chunks,
    content: ContentId,
    from: &mut dyn Content,
    is_doubtful: bool,
) -> Result<Taken<'a>, Refusal> {
    let mut bytes = Bytes {
        from,
        at: 0,
        ahead: Vec::new(),
        hasher: Hasher::new(),
        is_over: false,
    };
    bytes.fill(SMALL_BYTES + 1)?;
    let mut pins = chunks.pins(is_doubtful);
    if bytes.is_over {
        if !bytes.are(content) {
            return Err(Refusal::Other);
        }
        if !bytes.ahead.is_empty() {
            pins.put(content, &bytes.ahead)?;
        }
        let (size, top) = (bytes.at, Vec::new());
        return Ok(Taken { size, top, pins });
    }
    let pieces = cut(chunks, &mut bytes, &mut pins)?;
    if !bytes.are(content) {
        return Err(Refusal::Other);
    }
    let size = bytes.at;
    let top = put_nodes(&Tree::new(pieces), &mut pins)?;
    Ok(Taken { size, top, pins })
}

/// Cuts a big content and writes its chunks.
fn cut(chunks: &Chunks, bytes: &mut Bytes<'_>, pins: &mut Pins<'_>) -> Result<Vec<Piece>, Refusal> {
    let mut pieces = Vec::new();
    let mut used = 0;
    loop {
        if bytes.ahead.len() - used < CHUNKS.max() {
            bytes.ahead.drain(..used);
            used = 0;
            // More than one chunk at a time, so that little is moved about.
            if let Err(refusal) = bytes.fill(4 * CHUNKS.max()) {
                return Err(refusal.after(pieces));
            }
        }
        let length = CHUNKS.first(&bytes.ahead[used..]);
        if length == 0 {
            return Ok(pieces);
        }
        let chunk = &bytes.ahead[used..used + length];
        let id = content_id(chunk);
        pins.put(id, chunk)?;
        pieces.push(Piece {
            id,
            length: length as u64,
        });
        used += length;
        if chunks.is_due() {
            chunks.settle()?;
        }
    }
}

/// Writes all nodes of a manifest but the one on top, whose bytes are returned.
fn put_nodes(tree: &Tree, pins: &mut Pins<'_>) -> Result<Vec<u8>, Refusal> {
    let node = |id| tree.node(id).unwrap_or_default();
    let Some(root) = tree.root() else {
        return Ok(Vec::new());
    };
    let mut below = vec![root.id];
    while let Some(id) = below.pop() {
        if id != root.id {
            pins.put(id, node(id))?;
        }
        if let Ok((1.., pieces)) = decode(node(id)) {
            below.extend(pieces.iter().map(|p| p.id));
        }
    }
    Ok(node(root.id).to_vec())
}
