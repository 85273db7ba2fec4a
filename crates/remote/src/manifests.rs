//! Manifests of contents that are here, as long as there is memory for them.
//!
//! Owns which are remembered: those that were used last, up to [`BYTES_MAX`]. Invariant: a content is cut by one thread
//! at a time, however many ask for it; what is remembered was cut here, or came out right when it was put together.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use instep_chunk::manifest::Tree;
use instep_core::id::ContentId;
use instep_replica::Content;

/// Bytes of all manifests together.
pub const BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of a content of which a manifest is made: that of a longer one takes too much memory.
pub const CONTENT_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;

/// What is remembered.
#[derive(Default)]
pub struct Manifests {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    trees: BTreeMap<ContentId, Kept>,
    bytes: usize,
    /// Those that are being cut.
    making: BTreeSet<ContentId>,
    uses: u64,
}

struct Kept {
    tree: Arc<Tree>,
    /// The higher, the later it was used.
    used: u64,
}

impl std::fmt::Debug for Manifests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} manifests", self.lock().trees.len())
    }
}

/// How it stands with a manifest.
#[derive(Debug)]
pub enum Known<'a> {
    /// It is known.
    Is(Arc<Tree>),
    /// Nobody else is at it: whoever asked makes it.
    Not(Making<'a>),
    /// Somebody else is still at it.
    Soon,
}

/// The right to make a manifest; others wait until it is dropped.
#[derive(Debug)]
pub struct Making<'a> {
    manifests: &'a Manifests,
    content: ContentId,
}

impl Manifests {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The manifest of a content, waiting at most so long for somebody else who makes it.
    pub fn get(&self, content: ContentId, patience: Duration) -> Known<'_> {
        let mut state = self.lock();
        for is_last in [false, true] {
            if let Some(tree) = state.find(content) {
                return Known::Is(tree);
            }
            if state.making.insert(content) {
                let manifests = self;
                return Known::Not(Making { manifests, content });
            }
            if !is_last {
                let is_made = |state: &mut State| state.making.contains(&content);
                let waited = self.changed.wait_timeout_while(state, patience, is_made);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        Known::Soon
    }

    /// The manifest of a content that is open here, cut if need be; none, where it changed meanwhile.
    pub fn of(&self, id: ContentId, content: &mut dyn Content) -> io::Result<Option<Arc<Tree>>> {
        loop {
            match self.get(id, Duration::from_mins(1)) {
                Known::Is(tree) => return Ok(Some(tree)),
                Known::Not(making) => {
                    let tree = cut(content, &mut |_| true)?;
                    return Ok(tree.map(|tree| making.done(tree)));
                }
                Known::Soon => {}
            }
        }
    }

    /// Remembers a manifest.
    pub fn keep(&self, content: ContentId, tree: Arc<Tree>) {
        let mut state = self.lock();
        let bytes = tree.memory();
        if bytes > BYTES_MAX || state.find(content).is_some() {
            return;
        }
        state.uses += 1;
        let used = state.uses;
        state.bytes += bytes;
        state.trees.insert(content, Kept { tree, used });
        while state.bytes > BYTES_MAX {
            let oldest = state.trees.iter().min_by_key(|(_, kept)| kept.used);
            let Some(oldest) = oldest.map(|(content, _)| *content) else {
                return;
            };
            let gone = state.trees.remove(&oldest);
            state.bytes -= gone.map_or(0, |kept| kept.tree.memory());
        }
    }
}

impl State {
    fn find(&mut self, content: ContentId) -> Option<Arc<Tree>> {
        self.uses += 1;
        let kept = self.trees.get_mut(&content)?;
        kept.used = self.uses;
        Some(Arc::clone(&kept.tree))
    }
}

impl Making<'_> {
    /// It is made.
    pub fn done(self, tree: Tree) -> Arc<Tree> {
        let tree = Arc::new(tree);
        self.manifests.keep(self.content, Arc::clone(&tree));
        tree
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.manifests.lock().making.remove(&self.content);
        self.manifests.changed.notify_all();
    }
}

/// Cuts a content; `at` is told now and then how far that is, and whether to go on. None, where it changed meanwhile.
pub fn cut(content: &mut dyn Content, at: &mut dyn FnMut(u64) -> bool) -> io::Result<Option<Tree>> {
    let mut cut = 0;
    let mut progress = |now| {
        cut = now;
        at(now)
    };
    let mut reader = InOrder { content, at: 0 };
    let tree = Tree::read(&mut reader, &mut progress)?;
    let content = reader.content;
    Ok((cut == content.size() && content.unchanged()).then_some(tree))
}

/// A content from its beginning to its end.
struct InOrder<'a> {
    content: &'a mut dyn Content,
    at: u64,
}

impl Read for InOrder<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.content.read_at(self.at, into)?;
        self.at += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use instep_chunk::manifest::Piece;
    use instep_replica::content::Bytes;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn id(n: u8) -> ContentId {
        ContentId([n; 32])
    }

    #[test]
    fn a_content_that_many_ask_for_is_cut_once() {
        let manifests = Manifests::default();
        let Known::Not(making) = manifests.get(id(1), SOON) else {
            panic!("known before it was made")
        };
        assert!(matches!(manifests.get(id(1), Duration::ZERO), Known::Soon));
        assert!(matches!(manifests.get(id(2), SOON), Known::Not(_)));
        std::thread::scope(|threads| {
            let waits = threads.spawn(|| match manifests.get(id(1), SOON) {
                Known::Is(tree) => tree.chunks().len(),
                other => panic!("{other:?}"),
            });
            let tree = cut(&mut Bytes(vec![7; 300_000]), &mut |_| true).unwrap();
            making.done(tree.unwrap());
            assert_eq!(waits.join().unwrap(), 2);
        });
    }

    #[test]
    fn whoever_waits_for_one_that_fails_makes_it_itself() {
        let manifests = Manifests::default();
        let making = manifests.get(id(1), SOON);
        std::thread::scope(|threads| {
            let waits = threads.spawn(|| matches!(manifests.get(id(1), SOON), Known::Not(_)));
            drop(making);
            assert!(waits.join().unwrap());
        });
    }

    #[test]
    fn manifests_without_number_fill_the_memory() {
        let manifests = Manifests::default();
        let chunk = Piece {
            mark: [1; 6],
            length: 65_536,
        };
        let tree = Arc::new(Tree::new(vec![chunk; 1 << 19]));
        let many = BYTES_MAX / tree.memory();
        for n in 0..200 {
            manifests.keep(id(n), Arc::clone(&tree));
            assert!(matches!(manifests.get(id(0), SOON), Known::Is(_)), "used");
        }
        let kept = manifests.lock().trees.len();
        assert_eq!(kept, many);
        assert!(manifests.lock().bytes <= BYTES_MAX);
    }

    #[test]
    fn a_content_that_changes_while_it_is_cut_has_a_manifest() {
        struct Changing(Bytes);
        impl Content for Changing {
            fn size(&self) -> u64 {
                self.0.size()
            }
            fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
                self.0.read_at(offset, buf)
            }
            fn unchanged(&self) -> bool {
                false
            }
        }
        let mut changing = Changing(Bytes(vec![7; 300_000]));
        assert_eq!(cut(&mut changing, &mut |_| true).unwrap(), None);
    }
}
