//! After a death or a power cut, or with another store than the last one: rows are held against what is here.
//!
//! A death loses nothing that was committed. A power cut may leave contents listed whose chunks were never flushed, and
//! rows that show contents of which nothing is known; and a store that came from a backup may say anything. Invariant:
//! afterwards every row shows only what is here, and nothing is concluded from what is not: it is to be brought again.

use std::collections::BTreeSet;

use instep_chunk::content_id;
use instep_core::id::ContentId;
use instep_core::path::RelPath;
use instep_core::row::Row;
use instep_replica::Result;

use crate::chunks::Chunks;
use crate::contents::{Lack, Listed};
use crate::manifest::Piece;
use crate::state::State;

impl State {
    /// Checks everything that may be ahead of what is here, or all there is.
    pub(crate) fn recover(&mut self, chunks: &Chunks, is_all: bool) -> Result<()> {
        let durable = self.index.durable_epoch();
        let is_suspect = |epoch: u32| is_all || epoch > durable;
        for content in self.contents.ids()? {
            let listed = self.contents.get(content)?;
            let suspect = listed.filter(|l| is_suspect(l.epoch));
            if suspect.is_some_and(|l| !is_here(content, &l, chunks)) {
                self.contents.forget(content)?;
            }
        }
        for (path, content) in self.index.files(|row| is_suspect(row.epoch))? {
            self.doubt(&path, content, chunks)?;
        }
        let mut suspects = Vec::new();
        self.contents.each_shown(&mut |shown| {
            let content = shown.content().filter(|_| is_suspect(shown.epoch));
            suspects.extend(content.map(|content| (content, shown)));
        })?;
        for (content, shown) in suspects {
            if self.contents.get(content)?.is_none() {
                self.contents.forget_shown(&shown)?;
            }
        }
        Ok(())
    }

    /// What a row shows and is not here is forgotten as shown; what is known of it stays known.
    fn doubt(&mut self, path: &RelPath, content: ContentId, chunks: &Chunks) -> Result<()> {
        if self.contents.get(content)?.is_some() || self.is_one_object(content, chunks)? {
            return Ok(());
        }
        let row = self.index.get(path)?;
        let new = Row {
            shown: None,
            print: None,
            ..row.clone()
        };
        self.put(path, &row, new)
    }

    /// A small content needs no record to be found again.
    fn is_one_object(&mut self, content: ContentId, chunks: &Chunks) -> Result<bool> {
        let is_empty = content == content_id(b"");
        let size = is_empty.then_some(0).or_else(|| chunks.size(content));
        let Some(size) = size else {
            return Ok(false);
        };
        let listed = Listed {
            size,
            epoch: self.index.epoch(),
            top: Vec::new(),
        };
        self.contents.put(content, &listed)?;
        Ok(true)
    }
}

/// Whether all chunks of a content are here, by their names.
fn is_here(content: ContentId, listed: &Listed, chunks: &Chunks) -> bool {
    let mut seen = BTreeSet::new();
    let mut has = |piece: &Piece| !seen.insert(piece.id) || chunks.has(piece.id);
    match listed.made(content, chunks) {
        Ok(made) => made.pieces.iter().all(&mut has),
        // What cannot be read now may be readable later.
        Err(Lack::Unreadable(..)) => true,
        Err(Lack::Missing(_) | Lack::Damaged(_)) => false,
    }
}
