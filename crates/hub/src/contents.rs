//! What is known of contents: of which chunks each is made, and which of them are known to be damaged.
//!
//! Owns the second store of a hub, `contents.db`, and the form of a content's record. Invariants: a content is listed
//! only after all its chunks are here; it is forgotten before any of them goes. History is kept in the same store, by
//! `history`. Whether anybody still needs a content is not decided here.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use instep_chunk::content_id;

use instep_core::codec::{self, DecodeError, Reader};
use instep_core::id::ContentId;
use instep_replica::Result;
use instep_replica::error::{Error, ErrorKind};
use instep_store::{Durability, IndexStore, Table};

use crate::chunks::{Chunk, Chunks};
use crate::index::store_error;
use crate::manifest::{Piece, decode};

const FORMAT: u8 = 1;

/// Contents by id.
const CONTENTS: Table = Table::Stored;
/// Contents of which something was found to be missing or to have decayed.
const DAMAGED: Table = Table::Hold;

/// What is recorded of one content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Bytes.
    pub(crate) size: u64,
    /// The epoch in which it was brought; above the last durable one it is suspect after a power cut.
    pub(crate) epoch: u32,
    /// The top node of its manifest; empty for a content that is one chunk, or none.
    pub(crate) top: Vec<u8>,
}

/// What a content lacks.
#[derive(Debug)]
pub(crate) enum Lack {
    /// This chunk or node is not there.
    Missing(ContentId),
    /// This chunk or node has other bytes.
    Damaged(ContentId),
    /// This chunk or node could not be read now.
    Unreadable(ContentId, instep_fs::Error),
}

/// Everything that a content is made of.
#[derive(Debug, Default)]
pub(crate) struct Made {
    /// Its chunks, in order.
    pub(crate) pieces: Vec<Piece>,
    /// The nodes of its manifest that are kept as chunks are.
    pub(crate) nodes: Vec<ContentId>,
}

impl Listed {
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        codec::put_u64(&mut out, u64::from(self.epoch));
        codec::put_u64(&mut out, self.size);
        out.extend_from_slice(&self.top);
        out
    }

    fn from_bytes(bytes: &[u8]) -> core::result::Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        if r.u8()? != FORMAT {
            return Err(DecodeError::Invalid);
        }
        let epoch = u32::try_from(r.u64()?).map_err(|_| DecodeError::TooBig)?;
        let size = r.u64()?;
        let mut top = Vec::new();
        while !r.is_empty() {
            top.push(r.u8()?);
        }
        Ok(Self { size, epoch, top })
    }

    /// Of what it is made, as far as its nodes can be read.
    pub(crate) fn made(
        &self,
        content: ContentId,
        chunks: &Chunks,
    ) -> core::result::Result<Made, Lack> {
        let mut made = Made::default();
        if self.top.is_empty() {
            let one = Piece {
                id: content,
                length: self.size,
            };
            made.pieces.extend((self.size > 0).then_some(one));
            return Ok(made);
        }
        let id = content_id(&self.top);
        let size = descend(id, &self.top, None, chunks, &mut made)?;
        if size != self.size {
            return Err(Lack::Damaged(id));
        }
        Ok(made)
    }
}

/// Takes in what is below a node of a manifest; the bytes of the file in it.
fn descend(
    id: ContentId,
    bytes: &[u8],
    level: Option<u8>,
    chunks: &Chunks,
    made: &mut Made,
) -> core::result::Result<u64, Lack> {
    let (height, pieces) = decode(bytes).map_err(|_| Lack::Damaged(id))?;
    // Each level is one lower than the one above, so that this ends whatever the nodes say.
    if level.is_some_and(|l| l != height) {
        return Err(Lack::Damaged(id));
    }
    let size = pieces.iter().map(|p| p.length).sum();
    if height == 0 {
        made.pieces.extend(pieces);
        return Ok(size);
    }
    for piece in pieces {
        made.nodes.push(piece.id);
        let below = read(chunks, piece.id)?;
        let length = descend(piece.id, &below, Some(height - 1), chunks, made)?;
        if length != piece.length {
            return Err(Lack::Damaged(piece.id));
        }
    }
    Ok(size)
}

/// The bytes of a chunk or node.
pub(crate) fn read(chunks: &Chunks, id: ContentId) -> core::result::Result<Vec<u8>, Lack> {
    match chunks.read(id) {
        Chunk::Sound(bytes) => Ok(bytes),
        Chunk::Missing => Err(Lack::Missing(id)),
        Chunk::Damaged => Err(Lack::Damaged(id)),
        Chunk::Unreadable(e) => Err(Lack::Unreadable(id, e)),
    }
}

/// The contents of a share.
pub(crate) struct Contents {
    pub(crate) store: Box<dyn IndexStore>,
    damaged: BTreeSet<ContentId>,
}

fn failed(e: instep_store::StoreError) -> Error {
    store_error("read or write what is known of contents", e)
}

impl Contents {
    /// Takes a store into use.
    pub(crate) fn open(store: Box<dyn IndexStore>) -> Result<Self> {
        let damaged = BTreeSet::new();
        let mut contents = Self { store, damaged };
        contents.reload()?;
        Ok(contents)
    }

    /// Takes in again what is kept in memory.
    pub(crate) fn reload(&mut self) -> Result<()> {
        let mut damaged = BTreeSet::new();
        let mut read = |key: &[u8], _: &[u8]| {
            damaged.extend(<[u8; 32]>::try_from(key).ok().map(ContentId));
            ControlFlow::Continue(())
        };
        self.store.records(DAMAGED, &mut read).map_err(failed)?;
        self.damaged = damaged;
        Ok(())
    }

    /// Whether a content is here, whole as far as is known.
    pub(crate) fn has(&mut self, content: ContentId) -> Result<bool> {
        Ok(!self.damaged.contains(&content) && self.get(content)?.is_some())
    }

    /// What is recorded of a content, whole or damaged.
    pub(crate) fn get(&mut self, content: ContentId) -> Result<Option<Listed>> {
        let body = self.store.record(CONTENTS, &content.0).map_err(failed)?;
        body.map(|b| listed(&b)).transpose()
    }

    /// Lists a content, all chunks of which are here.
    pub(crate) fn put(&mut self, content: ContentId, listed: &Listed) -> Result<()> {
        let put = self
            .store
            .put_record(CONTENTS, &content.0, &listed.to_bytes());
        put.map_err(failed)?;
        self.set_damaged(content, false)
    }

    /// Forgets a content.
    pub(crate) fn forget(&mut self, content: ContentId) -> Result<()> {
        self.store
            .remove_record(CONTENTS, &content.0)
            .map_err(failed)?;
        self.set_damaged(content, false)
    }

    /// Notes that a content is not whole, or is again.
    pub(crate) fn set_damaged(&mut self, content: ContentId, is_damaged: bool) -> Result<()> {
        let changed = if is_damaged {
            self.damaged.insert(content)
        } else {
            self.damaged.remove(&content)
        };
        if !changed {
            return Ok(());
        }
        let noted = if is_damaged {
            self.store.put_record(DAMAGED, &content.0, b"")
        } else {
            self.store.remove_record(DAMAGED, &content.0)
        };
        noted.map_err(failed)
    }

    /// Those that are known not to be whole.
    pub(crate) fn damaged(&self) -> &BTreeSet<ContentId> {
        &self.damaged
    }

    /// Every content.
    pub(crate) fn ids(&mut self) -> Result<Vec<ContentId>> {
        let mut out = Vec::new();
        let mut read = |key: &[u8], _: &[u8]| {
            out.extend(<[u8; 32]>::try_from(key).ok().map(ContentId));
            ControlFlow::Continue(())
        };
        self.store.records(CONTENTS, &mut read).map_err(failed)?;
        Ok(out)
    }

    /// Commits what is pending; a failed commit undoes it all.
    pub(crate) fn commit(&mut self, durability: Durability) -> Result<()> {
        self.store.commit(durability).map_err(|e| {
            let _ignored = self.store.rollback();
            failed(e)
        })
    }
}

fn listed(bytes: &[u8]) -> Result<Listed> {
    Listed::from_bytes(bytes)
        .map_err(|e| Error::because(ErrorKind::Damaged, "read what a content is made of", e))
}
