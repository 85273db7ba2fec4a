//! Tells the far end what a replica here knows: what differs when they meet, then every change.
//!
//! Owns what was said and has to be said. Rows are read when they are said, so that what is said last is what is so.
//! Invariant: a change that happens after the digests were taken is told by itself, whatever the digests led to.

use std::ops::ControlFlow;
use std::sync::Arc;

use instep_core::id::ActorId;
use instep_core::path::RelPath;
use instep_core::row::Row;
use instep_core::version::Kind;
use instep_replica::{Book, Content, Error, Replica, Result};

use crate::digest::{Digests, Prefix};
use crate::published::{Changes, Published, is_told};
use crate::say::{BYTES_MAX, INLINE_MAX, Part, ROWS_MAX, Said, Say};
use crate::told;

/// So many files at once are taken for somebody's edits, and their contents go along.
const INLINE_FILES: usize = 64;

/// Where messages go: an error ends the conversation.
pub type Mouth<'a> = &'a mut dyn FnMut(Say) -> Result<()>;

/// Tells one listener.
pub struct Teller {
    local: Arc<Published>,
    /// Whoever listens mints under this one: it has its own contents.
    listener: ActorId,
    digests: Digests,
}

impl std::fmt::Debug for Teller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Teller({:?})", self.digests)
    }
}

/// Rows on their way into messages of bounded size.
#[derive(Default)]
struct Batch {
    rows: Vec<Said>,
    bytes: usize,
}

impl Batch {
    fn add(&mut self, said: Said) {
        let len = |b: &Option<Vec<u8>>| b.as_ref().map_or(0, Vec::len);
        self.bytes += said.path.as_bytes().len() + len(&said.row) + len(&said.inline) + 16;
        self.rows.push(said);
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= ROWS_MAX || self.bytes >= BYTES_MAX
    }

    /// Says what it has.
    fn flush(&mut self, say: Mouth<'_>) -> Result<()> {
        let batch = std::mem::take(self);
        if batch.rows.is_empty() {
            return Ok(());
        }
        say(Say::Rows(batch.rows))
    }
}

impl Teller {
    /// Begins to tell a listener what a replica knows.
    pub fn new(local: Arc<Published>, listener: ActorId) -> Self {
        Self {
            local,
            listener,
            digests: Digests::default(),
        }
    }

    /// The first words: what is written in the books, and the digests of everything.
    pub fn greet(&mut self, say: Mouth<'_>) -> Result<()> {
        for book in [Book::Share, Book::Conflicts] {
            for (key, body) in self.local.records(book)? {
                if is_told(book, &key) {
                    let body = Some(body);
                    say(Say::Record { book, key, body })?;
                }
            }
        }
        self.digests = self.digests_now()?;
        self.tell_digests(Prefix::ROOT, say)
    }

    fn digests_now(&self) -> Result<Digests> {
        let note = |path: &RelPath, row: &Row| self.local.note(path, row);
        digests_of(self.local.as_ref(), &note)
    }

    fn tell_digests(&self, node: Prefix, say: Mouth<'_>) -> Result<()> {
        say(Say::Digests {
            node,
            children: self.digests.children(node),
            rows: self.digests.rows(),
        })
    }

    /// Answers what is wanted.
    pub fn answer(&mut self, parts: &[Part], say: Mouth<'_>) -> Result<()> {
        for part in parts.iter().filter(|p| !p.rows) {
            self.tell_digests(part.node, say)?;
        }
        let nodes: Vec<Prefix> = parts.iter().filter(|p| p.rows).map(|p| p.node).collect();
        if nodes.is_empty() {
            return Ok(());
        }
        self.tell_rows_of(&nodes, say)?;
        say(Say::Complete(nodes))
    }

    fn tell_rows_of(&mut self, nodes: &[Prefix], say: Mouth<'_>) -> Result<()> {
        let (mut batch, mut failed) = (Batch::default(), None);
        let local = self.local.clone();
        let everything = nodes.contains(&Prefix::ROOT);
        local.subtree(&RelPath::root(), &mut |path, row| {
            let is_wanted = || {
                let leaf = Prefix::of(&path);
                nodes.iter().any(|node| node.covers(leaf))
            };
            if everything || is_wanted() {
                let row = told::encode(&row);
                let inline = None;
                batch.add(Said { path, row, inline });
            }
            if batch.is_full()
                && let Err(e) = batch.flush(say)
            {
                failed = Some(e);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        failed.map_or(Ok(()), Err)?;
        batch.flush(say)
    }

    /// Tells what has changed.
    pub fn changed(&mut self, changes: &Changes, say: Mouth<'_>) -> Result<()> {
        for (book, key) in &changes.records {
            let body = self.local.read_record(*book, key)?;
            let (book, key) = (*book, key.clone());
            say(Say::Record { book, key, body })?;
        }
        let with_contents = changes.paths.len() <= INLINE_FILES;
        let mut batch = Batch::default();
        for path in &changes.paths {
            let row = self.local.row(path)?;
            if let Some(row) = &row {
                self.local.note(path, row);
            }
            let inline = row
                .as_ref()
                .filter(|_| with_contents)
                .and_then(|row| self.inline(path, row));
            batch.add(Said {
                path: path.clone(),
                row: row.as_ref().and_then(told::encode),
                inline,
            });
            if batch.is_full() {
                batch.flush(say)?;
            }
        }
        batch.flush(say)?;
        if changes.lost {
            self.digests = self.digests_now()?;
            self.tell_digests(Prefix::ROOT, say)?;
        }
        Ok(())
    }

    /// The content of what is shown, if it is small and not the listener's own. A file that changes just now is left
    /// out: whoever asks for it gets what it is then.
    fn inline(&self, path: &RelPath, row: &Row) -> Option<Vec<u8>> {
        let version = row.present().filter(|v| v.kind == Kind::File)?;
        let is_theirs = row.shown.is_some_and(|dot| dot.actor == self.listener);
        if is_theirs || version.size == 0 || version.size > INLINE_MAX {
            return None;
        }
        let mut content = self.local.open(path, version.content).ok()??;
        whole(content.as_mut(), version.size)
    }
}

/// All bytes of a small content, if there are as many as its version says.
fn whole(content: &mut dyn Content, size: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(size).ok()?];
    let mut at = 0;
    while at < bytes.len() {
        match content.read_at(at as u64, &mut bytes[at..]).ok()? {
            0 => return None,
            n => at += n,
        }
    }
    Some(bytes)
}

/// The digests of what a replica tells. Of each row note is taken.
pub(crate) fn digests_of(
    replica: &dyn Replica,
    note: &dyn Fn(&RelPath, &Row),
) -> core::result::Result<Digests, Error> {
    let mut digests = Digests::default();
    replica.subtree(&RelPath::root(), &mut |path, row| {
        note(&path, &row);
        if let Some(bytes) = told::encode(&row) {
            digests.add(&path, &bytes);
        }
        ControlFlow::Continue(())
    })?;
    Ok(digests)
}
