//! Reading a content back, chunk by chunk.
//!
//! Owns [`Kept`], which holds one chunk in memory at a time. Invariant: no byte is handed out whose chunk does not have
//! the hash of its name; what is found to be damaged or missing is an error, and is reported once.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use instep_core::id::ContentId;
use instep_core::path::RelPath;
use instep_core::plan::{Code, Problem};
use instep_replica::{Checked, Content, Result, Waker};

use crate::chunks::Chunks;
use crate::contents::{Lack, read};
use crate::manifest::Piece;
use crate::replica::HubReplica;

/// What readers found to be damaged and nobody has looked at.
#[derive(Debug, Default)]
pub(crate) struct Damage {
    found: Mutex<Vec<(ContentId, Lack)>>,
    pub(crate) waker: OnceLock<Waker>,
}

impl Damage {
    fn lock(&self) -> MutexGuard<'_, Vec<(ContentId, Lack)>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A content lacks something.
    pub(crate) fn report(&self, content: ContentId, lack: Lack) {
        self.lock().push((content, lack));
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }

    /// What was reported since this was asked last.
    pub(crate) fn take(&self) -> Vec<(ContentId, Lack)> {
        std::mem::take(&mut *self.lock())
    }
}

/// A content of a hub.
pub(crate) struct Kept {
    chunks: Arc<Chunks>,
    damage: Arc<Damage>,
    content: ContentId,
    size: u64,
    /// With the offset at which each begins.
    pieces: Vec<(u64, Piece)>,
    at_hand: Option<(usize, Vec<u8>)>,
}

impl Kept {
    /// Of these pieces. A content of one chunk is read at once.
    pub(crate) fn new(
        chunks: &Arc<Chunks>,
        damage: &Arc<Damage>,
        content: ContentId,
        pieces: Vec<Piece>,
    ) -> Self {
        let mut size = 0;
        let place = |piece: Piece| {
            let start = size;
            size += piece.length;
            (start, piece)
        };
        let pieces: Vec<(u64, Piece)> = pieces.into_iter().map(place).collect();
        let mut kept = Self {
            chunks: Arc::clone(chunks),
            damage: Arc::clone(damage),
            content,
            size,
            pieces,
            at_hand: None,
        };
        if kept.pieces.len() == 1 {
            // Whoever reads is told if that failed.
            let _told_later = kept.load(0);
        }
        kept
    }

    fn load(&mut self, n: usize) -> io::Result<&[u8]> {
        if self.at_hand.as_ref().is_none_or(|(at, _)| *at != n) {
            let piece = self.pieces[n].1;
            let bytes = match read(&self.chunks, piece.id) {
                Ok(bytes) if bytes.len() as u64 == piece.length => bytes,
                Ok(_) => return Err(self.lacks(Lack::Damaged(piece.id))),
                Err(lack) => return Err(self.lacks(lack)),
            };
            self.at_hand = Some((n, bytes));
        }
        let bytes = self.at_hand.as_ref().map(|(_, bytes)| bytes.as_slice());
        Ok(bytes.unwrap_or_default())
    }

    fn lacks(&self, lack: Lack) -> io::Error {
        let text = match &lack {
            Lack::Missing(id) => format!("chunk {id} of content {} is missing", self.content),
            Lack::Damaged(id) => format!("chunk {id} of content {} has decayed", self.content),
            Lack::Unreadable(id, e) => format!("read chunk {id} of content {}: {e}", self.content),
        };
        self.damage.report(self.content, lack);
        io::Error::new(io::ErrorKind::InvalidData, text)
    }
}

impl Content for Kept {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        if offset >= self.size {
            return Ok(0);
        }
        let n = self.pieces.partition_point(|(start, _)| *start <= offset) - 1;
        let within = (offset - self.pieces[n].0) as usize;
        let rest = &self.load(n)?[within..];
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn verified(&self) -> Option<(ContentId, &[u8])> {
        let is_one = self.pieces.len() <= 1;
        let bytes = self.at_hand.as_ref().map(|(_, bytes)| bytes.as_slice());
        let bytes = if self.pieces.is_empty() {
            Some(&[][..])
        } else {
            bytes.filter(|_| is_one)
        };
        bytes.map(|bytes| (self.content, bytes))
    }
}

impl HubReplica {
    /// All chunks of a content, read and compared with their names.
    pub(crate) fn read_through(&self, path: &RelPath, content: ContentId) -> Result<Checked> {
        let listed = self.state().contents.get(content)?;
        let lacks = |lack: Lack| {
            self.damage.report(content, lack);
            Checked::Unreadable(Problem {
                path: path.clone(),
                code: Code::Damaged,
                detail: format!("content {content} is not whole: it is brought again"),
            })
        };
        let Some(listed) = listed else {
            return Ok(Checked::Nothing);
        };
        let made = match listed.made(content, &self.chunks) {
            Ok(made) => made,
            Err(lack) => return Ok(lacks(lack)),
        };
        for piece in made.pieces {
            if let Err(lack) = read(&self.chunks, piece.id) {
                return Ok(lacks(lack));
            }
        }
        Ok(Checked::Sound(listed.size))
    }

    /// Opens a content if it is here, whole as far as is known.
    pub fn open_content(&self, content: ContentId) -> Result<Option<Box<dyn Content>>> {
        let listed = {
            let mut state = self.state();
            if !state.contents.has(content)? {
                return Ok(None);
            }
            state.contents.get(content)?
        };
        let Some(listed) = listed else {
            return Ok(None);
        };
        match listed.made(content, &self.chunks) {
            Ok(made) => {
                let kept = Kept::new(&self.chunks, &self.damage, content, made.pieces);
                Ok(Some(Box::new(kept)))
            }
            Err(lack) => {
                self.damage.report(content, lack);
                Ok(None)
            }
        }
    }
}
