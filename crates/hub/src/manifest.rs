//! Of which chunks a content is made, as a tree of nodes that are kept like chunks.
//!
//! Owns how chunks are grouped into nodes and what a node's bytes are. A node lists at most 256 entries, each a
//! length and an id: at level 0 those of chunks, above that those of nodes. Where a node ends is decided by the ids in
//! it, so that two versions of a file share all nodes but one of each level for each change. Invariant: equal lists give
//! equal trees; a node is what its id says. What travels is another tree, with shorter marks
//! ([`instep_chunk::manifest`]), because what is put together by that is hashed as a whole.
//!
//! Source: the grouping is that of prolly trees (A. Boodman et al., Noms, 2016).

use std::collections::HashMap;

use instep_chunk::cut::{CHUNKS, SCHEME};
use instep_chunk::hash::content_id;
use instep_core::codec::{DecodeError, Reader, put_u64};
use instep_core::id::ContentId;

/// Entries of a node, at least, but for the last one of a level.
const ENTRIES_MIN: usize = 16;
/// Entries of a node, at most.
const ENTRIES_MAX: usize = 256;
/// A node ends after an entry whose id begins with so many zero bits: one of 64.
const END_BITS: u32 = 6;
/// Levels of a tree: enough for any file, since each has at most a sixteenth of the entries below it.
const LEVELS_MAX: u8 = 14;
/// Bytes of a node, at most: its head, and for each entry an id and a varint.
const NODE_BYTES_MAX: usize = 2 + ENTRIES_MAX * (32 + 10);

/// A piece of a file, or all that is below a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Piece {
    /// BLAKE3 of the chunk, or of the node's bytes.
    pub(crate) id: ContentId,
    /// Bytes of the file in it; never zero.
    pub(crate) length: u64,
}

/// All nodes over the chunks of one file.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    root: Option<Piece>,
    nodes: HashMap<ContentId, Vec<u8>>,
}

impl Tree {
    /// The tree over these chunks. No chunks are an empty file, which has no nodes.
    pub(crate) fn new(chunks: Vec<Piece>) -> Self {
        let mut nodes = HashMap::new();
        let mut level = chunks;
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
        Self { root, nodes }
    }

    /// The node on top, with the size of the file; `None` of an empty one.
    pub(crate) fn root(&self) -> Option<Piece> {
        self.root
    }

    /// The bytes of a node of this tree.
    pub(crate) fn node(&self, id: ContentId) -> Option<&[u8]> {
        self.nodes.get(&id).map(Vec::as_slice)
    }
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
pub(crate) fn decode(bytes: &[u8]) -> Result<(u8, Vec<Piece>), DecodeError> {
    if bytes.len() > NODE_BYTES_MAX {
        return Err(DecodeError::TooBig);
    }
    let mut r = Reader::new(bytes);
    // A scheme of cutting that is not known here.
    if r.u8()? != SCHEME {
        return Err(DecodeError::Invalid);
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
            return Err(DecodeError::Invalid);
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

    fn chunks(n: u64, other: Option<u64>) -> Vec<Piece> {
        let chunk = |i: u64| Piece {
            id: content_id(&if other == Some(i) { i + n } else { i }.to_le_bytes()),
            length: 20_000 + i % 40_000,
        };
        (0..n).map(chunk).collect()
    }

    /// The chunks below a node, in order.
    fn below(tree: &Tree, id: ContentId) -> Vec<Piece> {
        match decode(tree.node(id).unwrap()).unwrap() {
            (0, pieces) => pieces,
            (_, nodes) => nodes.into_iter().flat_map(|n| below(tree, n.id)).collect(),
        }
    }

    #[test]
    fn a_changed_chunk_changes_one_node_of_each_level() {
        let (old, new) = (chunks(10_000, None), chunks(10_000, Some(5_000)));
        let (one, other) = (Tree::new(old.clone()), Tree::new(new.clone()));
        assert_eq!(below(&one, one.root().unwrap().id), old);
        assert_eq!(below(&other, other.root().unwrap().id), new);
        let fresh = other
            .nodes
            .keys()
            .filter(|id| one.node(**id).is_none())
            .count();
        assert!((2..=6).contains(&fresh), "{fresh} of {}", other.nodes.len());
        assert_eq!(Tree::new(Vec::new()).root(), None);
    }

    #[test]
    fn bytes_that_are_no_node_are_refused() {
        let tree = Tree::new(chunks(100, None));
        let node = tree.node(tree.root().unwrap().id).unwrap();
        assert!(decode(&node[..node.len() - 1]).is_err());
        let mut other = node.to_vec();
        other[0] = SCHEME + 1;
        assert!(decode(&other).is_err(), "another scheme");
        assert!(decode(&vec![0; NODE_BYTES_MAX + 1]).is_err());
    }
}
