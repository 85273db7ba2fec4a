//! The chunks of a file as a tree of nodes, which two machines compare without sending it all.
//!
//! Owns how chunks are grouped into nodes and what a node's bytes are. A node lists at most 256 entries, each a
//! length and an id: at level 0 those of chunks, above that those of nodes. Where a node ends is decided by the ids in
//! it, so that a change of one chunk changes one node of each level. Invariant: equal lists give equal trees; a node
//! is what its id says, or it is refused. It holds no content, and asks nobody: whoever has the nodes hands them in.
//!
//! Source: the grouping is that of prolly trees (A. Boodman et al., Noms, 2016).

use std::collections::HashMap;

use instep_core::codec::{DecodeError, Reader, put_u64};
use instep_core::id::ContentId;

use crate::cut::{CHUNKS, SCHEME};
use crate::hash::content_id;

/// Entries of a node, at least, but for the last one of a level.
const ENTRIES_MIN: usize = 16;
/// Entries of a node, at most.
pub const ENTRIES_MAX: usize = 256;
/// A node ends after an entry whose id begins with so many zero bits: one of 64.
const END_BITS: u32 = 6;
/// Levels of a tree: enough for any file, since each has at most a sixteenth of the entries below it.
pub const LEVELS_MAX: u8 = 14;
/// Bytes of a node, at most: its head, and for each entry an id and a varint.
pub const NODE_BYTES_MAX: usize = 2 + ENTRIES_MAX * (32 + 10);

/// A piece of a file, or all that is below a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Piece {
    /// BLAKE3 of the chunk, or of the node's bytes.
    pub id: ContentId,
    /// Bytes of the file in it; never zero.
    pub length: u64,
}

/// All nodes over the chunks of one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    chunks: Vec<Piece>,
    root: Option<Piece>,
    nodes: HashMap<ContentId, Vec<u8>>,
}

/// Why bytes are no node of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeError {
    /// They cannot be read.
    Bytes(DecodeError),
    /// They were made by a scheme of cutting that is not known here.
    Scheme(u8),
    /// Nobody asked for a node with these bytes.
    Unasked,
    /// It is not of the level or of the length that the node above said.
    Other,
}

impl std::fmt::Display for NodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes(e) => write!(f, "read a node of a manifest: {e}"),
            Self::Scheme(s) => write!(f, "a manifest of the unknown scheme {s}"),
            Self::Unasked => f.write_str("a node of a manifest that nobody asked for"),
            Self::Other => f.write_str("a node of a manifest is not what the one above says"),
        }
    }
}

impl std::error::Error for NodeError {}

impl From<DecodeError> for NodeError {
    fn from(e: DecodeError) -> Self {
        Self::Bytes(e)
    }
}

impl Tree {
    /// The tree over these chunks. No chunks are an empty file, which has no nodes.
    pub fn new(chunks: Vec<Piece>) -> Self {
        let mut nodes = HashMap::new();
        let mut level = chunks.clone();
        for height in 0.. {
            let groups = groups(&level);
            let add = |group: &[Piece]| {
                let bytes = encode(height, group);
                let id = content_id(&bytes);
                let length = group.iter().map(|p| p.length).sum();
                nodes.insert(id, bytes);
                Piece { id, length }
            };
            level = groups.into_iter().map(add).collect();
            if level.len() <= 1 {
                break;
            }
        }
        let root = level.first().copied();
        Self {
            chunks,
            root,
            nodes,
        }
    }

    /// The chunks, in the order of the file.
    pub fn chunks(&self) -> &[Piece] {
        &self.chunks
    }

    /// The node on top, with the size of the file; `None` of an empty one.
    pub fn root(&self) -> Option<Piece> {
        self.root
    }

    /// The bytes of a node of this tree.
    pub fn node(&self, id: ContentId) -> Option<&[u8]> {
        self.nodes.get(&id).map(Vec::as_slice)
    }
}

/// A tree whose nodes come from elsewhere, level by level; those that `base` has, too, are not asked for.
#[derive(Debug)]
pub struct Descent<'a> {
    base: &'a Tree,
    /// What is known of the file, left to right: at which level, and what.
    front: Vec<(u8, Piece)>,
}

impl<'a> Descent<'a> {
    /// Begins with the root that somebody named, of a tree of so many levels.
    pub fn new(root: Option<Piece>, levels: u8, base: &'a Tree) -> Result<Self, NodeError> {
        if levels > LEVELS_MAX {
            return Err(DecodeError::TooBig.into());
        }
        let mut descent = Self {
            base,
            front: root.map(|r| (levels.max(1), r)).into_iter().collect(),
        };
        descent.expand_known()?;
        Ok(descent)
    }

    /// The nodes to be asked for now, each once; none when it is done.
    pub fn wanted(&self) -> Vec<ContentId> {
        let mut seen = std::collections::HashSet::new();
        let nodes = self.front.iter().filter(|(level, _)| *level > 0);
        nodes
            .map(|(_, p)| p.id)
            .filter(|id| seen.insert(*id))
            .collect()
    }

    /// Takes in a node that was asked for.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), NodeError> {
        let id = content_id(bytes);
        if !self.front.iter().any(|(level, p)| *level > 0 && p.id == id) {
            return Err(NodeError::Unasked);
        }
        self.expand(id, bytes)?;
        self.expand_known()
    }

    /// The chunks, when nothing more is wanted.
    pub fn finish(self) -> Option<Vec<Piece>> {
        let chunk = |(level, piece)| (level == 0).then_some(piece);
        self.front.into_iter().map(chunk).collect()
    }

    fn expand_known(&mut self) -> Result<(), NodeError> {
        let base = self.base;
        while let Some((id, bytes)) = self
            .front
            .iter()
            .filter(|(level, _)| *level > 0)
            .find_map(|(_, p)| base.node(p.id).map(|bytes| (p.id, bytes)))
        {
            self.expand(id, bytes)?;
        }
        Ok(())
    }

    fn expand(&mut self, id: ContentId, bytes: &[u8]) -> Result<(), NodeError> {
        let (height, pieces) = decode(bytes)?;
        let length: u64 = pieces.iter().map(|p| p.length).sum();
        let mut front = Vec::with_capacity(self.front.len() + pieces.len());
        for (level, piece) in std::mem::take(&mut self.front) {
            if level == 0 || piece.id != id {
                front.push((level, piece));
                continue;
            }
            if level != height + 1 || piece.length != length {
                return Err(NodeError::Other);
            }
            front.extend(pieces.iter().map(|p| (height, *p)));
        }
        self.front = front;
        Ok(())
    }
}

/// A part of a new list of chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Run {
    /// As many chunks as `count` from number `from` of the old list on.
    Same {
        /// The first.
        from: usize,
        /// How many.
        count: usize,
    },
    /// Chunks that the old list has not.
    New(Vec<Piece>),
}

/// A new list of chunks in the words of an old one.
pub fn runs(old: &[Piece], new: &[Piece]) -> Vec<Run> {
    let mut at = HashMap::with_capacity(old.len());
    for (i, piece) in old.iter().enumerate() {
        at.entry(*piece).or_insert(i);
    }
    let mut out: Vec<Run> = Vec::new();
    for piece in new {
        match (out.last_mut(), at.get(piece)) {
            (Some(Run::Same { from, count }), Some(_))
                if old.get(*from + *count) == Some(piece) =>
            {
                *count += 1;
            }
            (_, Some(from)) => out.push(Run::Same {
                from: *from,
                count: 1,
            }),
            (Some(Run::New(pieces)), None) => pieces.push(*piece),
            (_, None) => out.push(Run::New(vec![*piece])),
        }
    }
    out
}

/// Where the nodes of one level end.
fn groups(pieces: &[Piece]) -> Vec<&[Piece]> {
    let mut out = Vec::with_capacity(pieces.len() / ENTRIES_MIN + 1);
    let mut rest = pieces;
    while !rest.is_empty() {
        let end = rest.len().min(ENTRIES_MAX);
        let ends = |p: &Piece| p.id.0[0].leading_zeros() >= END_BITS;
        let after_least = rest.get(ENTRIES_MIN - 1..end).unwrap_or(&[]);
        let n = after_least
            .iter()
            .position(ends)
            .map_or(end, |i| i + ENTRIES_MIN);
        let (group, others) = rest.split_at(n);
        out.push(group);
        rest = others;
    }
    out
}

fn encode(height: u8, pieces: &[Piece]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2 + pieces.len() * 36);
    bytes.extend_from_slice(&[SCHEME, height]);
    for piece in pieces {
        put_u64(&mut bytes, piece.length);
        bytes.extend_from_slice(&piece.id.0);
    }
    bytes
}

/// The level of a node and what it lists.
pub fn decode(bytes: &[u8]) -> Result<(u8, Vec<Piece>), NodeError> {
    if bytes.len() > NODE_BYTES_MAX {
        return Err(DecodeError::TooBig.into());
    }
    let mut r = Reader::new(bytes);
    let scheme = r.u8()?;
    if scheme != SCHEME {
        return Err(NodeError::Scheme(scheme));
    }
    let height = r.u8()?;
    let mut pieces = Vec::new();
    while !r.is_empty() {
        let length = r.u64()?;
        let is_possible = match height {
            0 => (1..=CHUNKS.max() as u64).contains(&length),
            _ => (1..=i64::MAX as u64 / ENTRIES_MAX as u64).contains(&length),
        };
        if height >= LEVELS_MAX || pieces.len() == ENTRIES_MAX || !is_possible {
            return Err(DecodeError::Invalid.into());
        }
        pieces.push(Piece {
            id: ContentId(r.array()?),
            length,
        });
    }
    Ok((height, pieces))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;

    /// The chunks of a file that somebody may have: ids of their numbers.
    fn chunks(numbers: impl IntoIterator<Item = u64>) -> Vec<Piece> {
        let chunk = |n: u64| Piece {
            id: content_id(&n.to_le_bytes()),
            length: 20_000 + n % 50_000,
        };
        numbers.into_iter().map(chunk).collect()
    }

    /// What comes over the line to learn the tree of `theirs`, as nodes, and in how many rounds.
    fn descend(theirs: &Tree, base: &Tree) -> (usize, usize) {
        let levels = levels(theirs);
        let mut descent = Descent::new(theirs.root(), levels, base).unwrap();
        let (mut nodes, mut rounds) = (0, 0);
        loop {
            let wanted = descent.wanted();
            if wanted.is_empty() {
                break;
            }
            rounds += 1;
            for id in wanted {
                nodes += 1;
                descent.take(theirs.node(id).unwrap()).unwrap();
            }
        }
        assert_eq!(descent.finish().unwrap(), theirs.chunks());
        (nodes, rounds)
    }

    fn levels(tree: &Tree) -> u8 {
        let top = tree.root().and_then(|r| tree.node(r.id));
        top.map_or(0, |bytes| bytes[1] + 1)
    }

    #[test]
    fn a_list_of_any_length_is_another_one_after_the_way() {
        for n in [0, 1, 15, 16, 17, 255, 256, 257, 5_000, 20_000] {
            let tree = Tree::new(chunks(0..n));
            let (_, rounds) = descend(&tree, &Tree::default());
            assert_eq!(rounds, usize::from(levels(&tree)), "of {n} chunks");
            let size: u64 = tree.chunks().iter().map(|c| c.length).sum();
            assert_eq!(tree.root().map_or(0, |r| r.length), size);
        }
    }

    #[test]
    fn one_changed_chunk_of_a_gibibyte_brings_more_than_a_node_of_each_level() {
        let old = Tree::new(chunks(0..13_000));
        for new in [
            chunks((0..6_000).chain([99_999]).chain(6_001..13_000)),
            chunks((0..6_000).chain([99_999]).chain(6_000..13_000)),
            chunks((0..6_000).chain(6_001..13_000)),
        ] {
            let new = Tree::new(new);
            let (nodes, rounds) = descend(&new, &old);
            assert!(
                nodes <= 2 * rounds && rounds <= 3,
                "{nodes} nodes in {rounds} rounds"
            );
        }
        assert_eq!(descend(&old, &old), (0, 0), "nothing is new");
    }

    #[test]
    fn a_change_is_told_in_more_than_what_changed() {
        let old = chunks(0..100);
        let new = chunks((0..40).chain([1000, 1001]).chain(41..100));
        let told = [
            Run::Same { from: 0, count: 40 },
            Run::New(chunks([1000, 1001])),
            Run::Same {
                from: 41,
                count: 59,
            },
        ];
        assert_eq!(runs(&old, &new), told);
        assert_eq!(
            runs(&old, &old),
            [Run::Same {
                from: 0,
                count: 100
            }]
        );
        assert_eq!(runs(&[], &old), [Run::New(old.clone())]);
        assert_eq!(runs(&old, &[]), []);
    }

    #[test]
    fn a_list_that_repeats_itself_is_not_found_again() {
        let old = chunks([1, 2, 1, 3]);
        let new = chunks([1, 3, 1, 2, 1, 3, 3]);
        let mut again = Vec::new();
        for run in runs(&old, &new) {
            match run {
                Run::Same { from, count } => again.extend_from_slice(&old[from..from + count]),
                Run::New(pieces) => again.extend(pieces),
            }
        }
        assert_eq!(again, new);
    }

    #[test]
    fn a_peer_that_lies_about_a_node_is_believed() {
        let tree = Tree::new(chunks(0..600));
        let none = Tree::default();
        let root = tree.root();
        let mut descent = Descent::new(root, 2, &none).unwrap();
        let bytes = tree.node(root.unwrap().id).unwrap();
        assert_eq!(descent.take(b"something else"), Err(NodeError::Unasked));
        let mut flipped = bytes.to_vec();
        *flipped.last_mut().unwrap() ^= 1;
        assert_eq!(descent.take(&flipped), Err(NodeError::Unasked));
        let longer = root.map(|r| Piece {
            length: r.length + 1,
            ..r
        });
        let mut descent = Descent::new(longer, 2, &none).unwrap();
        assert_eq!(descent.take(bytes), Err(NodeError::Other), "another size");
        let mut descent = Descent::new(root, 3, &none).unwrap();
        assert_eq!(descent.take(bytes), Err(NodeError::Other), "another level");
        assert!(Descent::new(root, LEVELS_MAX + 1, &none).is_err());
    }

    #[test]
    fn a_node_that_nobody_makes_is_read() {
        let node = |bytes: &[u8]| decode(bytes).unwrap_err();
        let invalid = NodeError::Bytes(DecodeError::Invalid);
        let entry = |length: u8| [&[length][..], &[7; 32]].concat();
        assert_eq!(node(&[]), NodeError::Bytes(DecodeError::Short));
        assert_eq!(node(&[9, 0]), NodeError::Scheme(9));
        assert_eq!(
            node(&[&[SCHEME, 0][..], &entry(0)].concat()),
            invalid,
            "an empty chunk"
        );
        assert_eq!(
            node(&[&[SCHEME, LEVELS_MAX][..], &entry(1)].concat()),
            invalid
        );
        let many = entry(1).repeat(ENTRIES_MAX + 1);
        assert_eq!(
            node(&[&[SCHEME, 0][..], &many].concat()),
            invalid,
            "too many"
        );
        let huge = vec![0; NODE_BYTES_MAX + 1];
        assert_eq!(node(&huge), NodeError::Bytes(DecodeError::TooBig));
    }
}
