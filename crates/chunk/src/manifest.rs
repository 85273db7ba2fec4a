//! The chunks of a file as a tree of nodes, which two machines compare without sending it all.
//!
//! Owns how chunks are grouped into nodes and what a node's bytes are. A node lists at most 256 entries, each a
//! length and a mark: at level 0 those of chunks, above that those of nodes. Where a node ends is decided by the marks
//! in it, so that a change of one chunk changes one node of each level. Invariant: equal lists give equal trees.
//! Marks are short, so that a list of them travels in little: whatever is put together by them counts only after all of
//! it was hashed and compared with its id. It holds no content, and asks nobody: whoever has the nodes hands them in.
//!
//! Source: the grouping is that of prolly trees (A. Boodman et al., Noms, 2016).

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read};
use std::ops::Range;

use instep_core::codec::{DecodeError, Reader, put_u64};

use crate::cut::{CHUNKS, SCHEME};
use crate::hash::content_id;

/// The first bytes of the BLAKE3 of a chunk, or of a node's bytes.
pub type Mark = [u8; 6];

/// Entries of a node, at least, but for the last one of a level.
const ENTRIES_MIN: usize = 16;
/// Entries of a node, at most.
pub const ENTRIES_MAX: usize = 256;
/// A node ends after an entry whose mark begins with so many zero bits: one of 64.
const END_BITS: u32 = 6;
/// Levels of a tree: enough for any file, since each has at most a sixteenth of the entries below it.
pub const LEVELS_MAX: u8 = 14;
/// Bytes of a node, at most: its head, and for each entry a mark and a varint.
pub const NODE_BYTES_MAX: usize = 2 + ENTRIES_MAX * (size_of::<Mark>() + 10);
/// Bytes of a file that are read at a time to be cut.
const READ_BYTES: usize = 1024 * 1024;

/// A piece of a file, or all that is below a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Piece {
    /// What it is known by.
    pub mark: Mark,
    /// Bytes of the file in it; never zero.
    pub length: u64,
}

/// The mark of a chunk, or of a node's bytes.
pub fn mark(bytes: &[u8]) -> Mark {
    let mut mark = Mark::default();
    mark.copy_from_slice(&content_id(bytes).0[..size_of::<Mark>()]);
    mark
}

/// All nodes over the chunks of one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    /// The chunks, then the nodes over them, and so on; the last level has one node.
    levels: Vec<Vec<Piece>>,
    /// Of each level above the lowest, where in the one below the entries of each node begin.
    firsts: Vec<Vec<usize>>,
    /// Where the node with a mark is: its level, and its number there.
    places: BTreeMap<Mark, (usize, usize)>,
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
    /// The tree lists more than a file of its size can be cut into.
    TooMany,
}

impl std::fmt::Display for NodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes(e) => write!(f, "read a node of a manifest: {e}"),
            Self::Scheme(s) => write!(f, "a manifest of the unknown scheme {s}"),
            Self::Unasked => f.write_str("a node of a manifest that nobody asked for"),
            Self::Other => f.write_str("a node of a manifest is not what the one above says"),
            Self::TooMany => f.write_str("a manifest lists more chunks than its file can have"),
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
        let mut tree = Self {
            levels: vec![chunks],
            ..Self::default()
        };
        while tree.levels.len() == 1 || tree.top_level().len() > 1 {
            let below = tree.top_level();
            let height = tree.firsts.len();
            let (mut first, mut firsts, mut nodes) = (0, Vec::new(), Vec::new());
            for group in groups(below) {
                nodes.push(Piece {
                    mark: mark(&encode(height as u8, group)),
                    length: group.iter().map(|p| p.length).sum(),
                });
                firsts.push(first);
                first += group.len();
            }
            let place = |(number, node): (usize, &Piece)| (node.mark, (height + 1, number));
            tree.places.extend(nodes.iter().enumerate().map(place));
            tree.firsts.push(firsts);
            tree.levels.push(nodes);
        }
        tree
    }

    /// The tree of a file, which is read to its end; `at` is told now and then how far that is, and whether to go on.
    pub fn read(reader: &mut dyn Read, at: &mut dyn FnMut(u64) -> bool) -> std::io::Result<Self> {
        let mut chunks = Vec::new();
        let mut window = vec![0; READ_BYTES + CHUNKS.max()];
        let (mut from, mut to, mut cut) = (0, 0, 0);
        loop {
            let is_end = fill(reader, &mut window, &mut to)?;
            while to - from >= CHUNKS.max() || (is_end && from < to) {
                let length = CHUNKS.first(&window[from..to]);
                chunks.push(Piece {
                    mark: mark(&window[from..from + length]),
                    length: length as u64,
                });
                from += length;
                cut += length as u64;
            }
            if !at(cut) {
                return Err(std::io::Error::other("nobody wants the manifest any more"));
            }
            if is_end {
                return Ok(Self::new(chunks));
            }
            window.copy_within(from..to, 0);
            (from, to) = (0, to - from);
        }
    }

    fn top_level(&self) -> &[Piece] {
        self.levels.last().map_or(&[], Vec::as_slice)
    }

    /// The chunks, in the order of the file.
    pub fn chunks(&self) -> &[Piece] {
        self.levels.first().map_or(&[], Vec::as_slice)
    }

    /// The bytes of the node on top; `None` of an empty file, which has none.
    pub fn top(&self) -> Option<Vec<u8>> {
        let top = self.top_level().first();
        top.and_then(|top| self.node(top.mark))
    }

    /// The bytes of a node of this tree.
    pub fn node(&self, mark: Mark) -> Option<Vec<u8>> {
        let (level, number) = *self.places.get(&mark)?;
        let entries = self.entries(level, number..number + 1);
        let below = level - 1;
        Some(encode(below as u8, &self.levels[below][entries]))
    }

    /// The numbers of the chunks below a node that has this mark, at this level, and of this length.
    fn below(&self, level: u8, node: Piece) -> Option<Range<usize>> {
        let (found, number) = *self.places.get(&node.mark)?;
        let is_it = found == usize::from(level) && self.levels[found][number] == node;
        let descend = |span, level| self.entries(level, span);
        is_it.then(|| (1..=found).rev().fold(number..number + 1, descend))
    }

    /// What nodes of a level list, as numbers of the level below.
    fn entries(&self, level: usize, nodes: Range<usize>) -> Range<usize> {
        let firsts = &self.firsts[level - 1];
        let first = |number| match firsts.get(number) {
            Some(first) => *first,
            None => self.levels[level - 1].len(),
        };
        first(nodes.start)..first(nodes.end)
    }

    /// About how many bytes of memory it takes.
    pub fn memory(&self) -> usize {
        let (chunks, nodes) = (self.chunks().len(), self.places.len());
        chunks * size_of::<Piece>() + nodes * 4 * size_of::<Piece>()
    }
}

/// Reads until the window is full or the file ends; whether it ended.
fn fill(reader: &mut dyn Read, window: &mut [u8], to: &mut usize) -> std::io::Result<bool> {
    while *to < window.len() {
        match reader.read(&mut window[*to..]) {
            Ok(0) => return Ok(true),
            Ok(n) => *to += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(false)
}

/// A part of a file, as far as its tree is known.
#[derive(Debug, Clone)]
enum Part {
    /// Of the base: chunks with these numbers.
    Same(Range<usize>),
    /// A chunk that the base has not.
    New(Piece),
    /// A node that is still to be told, of a level.
    Untold(u8, Piece),
}

/// A tree that is told level by level by somebody else; what `base` has, too, is not asked for.
#[derive(Debug)]
pub struct Descent<'a> {
    base: &'a Tree,
    /// The first chunk of each kind.
    chunks: BTreeMap<Piece, usize>,
    /// Left to right.
    parts: Vec<Part>,
    /// Beyond this many parts it is no tree of such a file.
    parts_max: usize,
}

impl<'a> Descent<'a> {
    /// Begins with the top node of the tree of a file of so many bytes.
    pub fn new(top: &[u8], size: u64, base: &'a Tree) -> Result<Self, NodeError> {
        let mut chunks = BTreeMap::new();
        for (number, piece) in base.chunks().iter().enumerate() {
            chunks.entry(*piece).or_insert(number);
        }
        let (height, _) = decode(top)?;
        let root = Piece {
            mark: mark(top),
            length: size,
        };
        let many = size / CHUNKS.min() as u64 + 2;
        let mut descent = Self {
            base,
            chunks,
            parts: vec![Part::Untold(height + 1, root)],
            parts_max: usize::try_from(many).unwrap_or(usize::MAX),
        };
        descent.take(&[top])?;
        Ok(descent)
    }

    /// The nodes to be asked for now, each once; none when all is known.
    pub fn wanted(&self) -> Vec<Mark> {
        let mut seen = BTreeSet::new();
        let untold = self.parts.iter().filter_map(|part| match part {
            Part::Untold(_, node) => Some(node.mark),
            _ => None,
        });
        untold.filter(|mark| seen.insert(*mark)).collect()
    }

    /// Takes in nodes that were asked for.
    pub fn take(&mut self, nodes: &[impl AsRef<[u8]>]) -> Result<(), NodeError> {
        let mut told = BTreeMap::new();
        for bytes in nodes {
            let bytes = bytes.as_ref();
            let (height, pieces) = decode(bytes)?;
            told.insert(mark(bytes), (height, pieces, false));
        }
        let mut parts = Vec::with_capacity(self.parts.len());
        for part in std::mem::take(&mut self.parts) {
            let untold = match part {
                Part::Untold(level, node) => Some((level, node)),
                _ => None,
            };
            let Some((level, node, (height, pieces, used))) =
                untold.and_then(|(l, n)| Some((l, n, told.get_mut(&n.mark)?)))
            else {
                parts.push(part);
                continue;
            };
            *used = true;
            let length: u64 = pieces.iter().map(|p| p.length).sum();
            if level != *height + 1 || node.length != length {
                return Err(NodeError::Other);
            }
            if parts.len() + pieces.len() > self.parts_max {
                return Err(NodeError::TooMany);
            }
            parts.extend(pieces.iter().map(|piece| self.part(*height, *piece)));
        }
        self.parts = parts;
        if told.values().all(|(_, _, used)| *used) {
            Ok(())
        } else {
            Err(NodeError::Unasked)
        }
    }

    fn part(&self, level: u8, piece: Piece) -> Part {
        if level == 0 {
            let number = self.chunks.get(&piece);
            return number.map_or(Part::New(piece), |n| Part::Same(*n..*n + 1));
        }
        let known = self.base.below(level, piece);
        known.map_or(Part::Untold(level, piece), Part::Same)
    }

    /// How many bytes the base has, too, and how many it has not, of what is known.
    pub fn common(&self) -> (u64, u64) {
        let mut sums = (0, 0);
        for part in &self.parts {
            match part {
                Part::Same(numbers) => {
                    let chunks = &self.base.chunks()[numbers.clone()];
                    sums.0 += chunks.iter().map(|p| p.length).sum::<u64>();
                }
                Part::New(piece) => sums.1 += piece.length,
                Part::Untold(..) => {}
            }
        }
        sums
    }

    /// The file in the words of the base, when nothing more is wanted.
    pub fn finish(self) -> Option<Vec<Run>> {
        let mut out: Vec<Run> = Vec::new();
        for part in self.parts {
            match part {
                Part::Untold(..) => return None,
                Part::New(piece) => match out.last_mut() {
                    Some(Run::New(pieces)) => pieces.push(piece),
                    _ => out.push(Run::New(vec![piece])),
                },
                Part::Same(numbers) => {
                    for number in numbers {
                        same(&mut out, self.base.chunks(), number);
                    }
                }
            }
        }
        Some(out)
    }
}

/// Appends a chunk of the base: as the next one of the run before it, if it is the same.
fn same(out: &mut Vec<Run>, chunks: &[Piece], number: usize) {
    if let Some(Run::Same(run)) = out.last_mut()
        && chunks.get(run.end) == Some(&chunks[number])
    {
        run.end += 1;
        return;
    }
    out.push(Run::Same(number..number + 1));
}

/// A part of a new list of chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Run {
    /// Chunks with these numbers of the old list.
    Same(Range<usize>),
    /// Chunks that the old list has not.
    New(Vec<Piece>),
}

/// The list that is told by runs over an old one.
pub fn list(runs: &[Run], old: &[Piece]) -> Vec<Piece> {
    let pieces = |run: &Run| match run {
        Run::Same(numbers) => old.get(numbers.clone()).unwrap_or_default().to_vec(),
        Run::New(pieces) => pieces.clone(),
    };
    runs.iter().flat_map(pieces).collect()
}

/// Where the nodes of one level end.
fn groups(pieces: &[Piece]) -> Vec<&[Piece]> {
    let mut out = Vec::with_capacity(pieces.len() / ENTRIES_MIN + 1);
    let mut rest = pieces;
    while !rest.is_empty() {
        let end = rest.len().min(ENTRIES_MAX);
        let ends = |p: &Piece| p.mark[0].leading_zeros() >= END_BITS;
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
    let mut bytes = Vec::with_capacity(2 + pieces.len() * 10);
    bytes.extend_from_slice(&[SCHEME, height]);
    for piece in pieces {
        put_u64(&mut bytes, piece.length);
        bytes.extend_from_slice(&piece.mark);
    }
    bytes
}

/// The level of what a node lists, and the list.
fn decode(bytes: &[u8]) -> Result<(u8, Vec<Piece>), NodeError> {
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
        let mark = r.array()?;
        pieces.push(Piece { mark, length });
    }
    if pieces.is_empty() {
        return Err(DecodeError::Invalid.into());
    }
    Ok((height, pieces))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;
    use crate::cut::tests::noise;

    /// The chunks of a file that somebody may have: marks of their numbers.
    fn chunks(numbers: impl IntoIterator<Item = u64>) -> Vec<Piece> {
        let chunk = |n: u64| Piece {
            mark: mark(&n.to_le_bytes()),
            length: 20_000 + n % 50_000,
        };
        numbers.into_iter().map(chunk).collect()
    }

    fn size(tree: &Tree) -> u64 {
        tree.chunks().iter().map(|c| c.length).sum()
    }

    /// What comes over the line to learn the tree of `theirs`: runs, nodes, bytes, rounds.
    fn descend(theirs: &Tree, base: &Tree) -> (Vec<Run>, usize, usize, usize) {
        let top = theirs.top().unwrap();
        let (mut nodes, mut bytes, mut rounds) = (1, top.len(), 1);
        let mut descent = Descent::new(&top, size(theirs), base).unwrap();
        loop {
            let wanted = descent.wanted();
            if wanted.is_empty() {
                break;
            }
            rounds += 1;
            nodes += wanted.len();
            let told: Vec<_> = wanted.iter().map(|m| theirs.node(*m).unwrap()).collect();
            bytes += told.iter().map(Vec::len).sum::<usize>();
            descent.take(&told).unwrap();
        }
        let (common, other) = descent.common();
        assert_eq!(common + other, size(theirs));
        let runs = descent.finish().unwrap();
        assert_eq!(list(&runs, base.chunks()), theirs.chunks());
        (runs, nodes, bytes, rounds)
    }

    #[test]
    fn a_list_of_any_length_is_another_one_after_the_way() {
        assert_eq!(Tree::new(Vec::new()).top(), None);
        for n in [1, 15, 16, 17, 255, 256, 257, 5_000, 20_000] {
            let tree = Tree::new(chunks(0..n));
            let (.., rounds) = descend(&tree, &Tree::default());
            assert!(rounds < 4, "{rounds} rounds of {n} chunks");
            assert_eq!(descend(&tree, &tree).0, [Run::Same(0..n as usize)]);
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
            let (_, nodes, bytes, rounds) = descend(&new, &old);
            assert!(
                nodes <= 2 * rounds && rounds <= 3 && bytes < 5_000,
                "{nodes} nodes with {bytes} bytes in {rounds} rounds"
            );
        }
        let (_, nodes, ..) = descend(&old, &old);
        assert_eq!(nodes, 1, "nothing is new");
    }

    #[test]
    fn a_change_is_told_in_more_than_what_changed() {
        let old = Tree::new(chunks(0..100));
        let told = |new| descend(&Tree::new(new), &old).0;
        let changed = told(chunks((0..40).chain([1000, 1001]).chain(41..100)));
        let expected = [
            Run::Same(0..40),
            Run::New(chunks([1000, 1001])),
            Run::Same(41..100),
        ];
        assert_eq!(changed, expected);
        assert_eq!(told(chunks(500..501)), [Run::New(chunks(500..501))]);
    }

    #[test]
    fn a_list_that_repeats_itself_is_not_found_again() {
        let old = Tree::new(chunks([1, 2, 1, 3]));
        let new = Tree::new(chunks([1, 3, 1, 2, 1, 3, 3]));
        descend(&new, &old);
        let many: Vec<u64> = (0..3000).map(|n| n % 3).collect();
        descend(&Tree::new(chunks(many.clone())), &old);
        descend(&old, &Tree::new(chunks(many)));
    }

    #[test]
    fn a_file_that_is_read_in_pieces_is_cut_elsewhere() {
        let bytes = noise(5 << 20, 9);
        let mut told = 0;
        let mut note = |at| {
            told = at;
            true
        };
        let tree = Tree::read(&mut &bytes[..], &mut note).unwrap();
        let mut from = 0;
        for piece in tree.chunks() {
            let to = from + piece.length as usize;
            assert_eq!(piece.mark, mark(&bytes[from..to]));
            from = to;
        }
        let lengths: Vec<usize> = CHUNKS.lengths(&bytes).collect();
        let found: Vec<usize> = tree.chunks().iter().map(|c| c.length as usize).collect();
        assert_eq!((found, told), (lengths, bytes.len() as u64));
        let empty = Tree::read(&mut &b""[..], &mut |_| true).unwrap();
        assert_eq!(empty.top(), None);
        assert!(Tree::read(&mut &bytes[..], &mut |at| at == 0).is_err());
    }

    #[test]
    fn a_peer_that_lies_about_a_node_is_believed() {
        let tree = Tree::new(chunks(0..2000));
        let none = Tree::default();
        let top = tree.top().unwrap();
        let right = || Descent::new(&top, size(&tree), &none).unwrap();
        let first = right().wanted()[0];
        let bytes = tree.node(first).unwrap();
        assert_eq!(right().take(&[&bytes]), Ok(()));
        assert!(right().take(&[b"something else"]).is_err());
        let mut flipped = bytes.clone();
        *flipped.last_mut().unwrap() ^= 1;
        assert_eq!(right().take(&[flipped]), Err(NodeError::Unasked));
        let longer = Descent::new(&top, size(&tree) + 1, &none);
        assert_eq!(longer.err(), Some(NodeError::Other), "another size");
        let (_, mut listed) = decode(&top).unwrap();
        listed[0].length -= 1;
        listed[1].length += 1;
        let lie = encode(1, &listed);
        let mut descent = Descent::new(&lie, size(&tree), &none).unwrap();
        assert_eq!(descent.take(&[&bytes]), Err(NodeError::Other));
        let lie = encode(2, &decode(&top).unwrap().1);
        let mut descent = Descent::new(&lie, size(&tree), &none).unwrap();
        assert_eq!(descent.take(&[bytes]), Err(NodeError::Other), "its level");
    }

    #[test]
    fn a_tree_that_repeats_one_node_without_end_fills_the_memory() {
        let mut node = encode(
            0,
            &[Piece {
                mark: [7; 6],
                length: 1,
            }; ENTRIES_MAX],
        );
        let mut length = ENTRIES_MAX as u64;
        let mut nodes = Vec::new();
        for height in 1..4 {
            nodes.push(node.clone());
            let piece = Piece {
                mark: mark(&node),
                length,
            };
            node = encode(height, &[piece; ENTRIES_MAX]);
            length *= ENTRIES_MAX as u64;
        }
        let none = Tree::default();
        let mut descent = Descent::new(&node, length, &none).unwrap();
        nodes.reverse();
        let taken = nodes.iter().try_for_each(|node| descent.take(&[node]));
        assert_eq!(taken, Err(NodeError::TooMany));
        assert!(descent.parts.len() <= 1 << 19);
    }

    #[test]
    fn a_node_that_nobody_makes_is_read() {
        let node = |bytes: &[u8]| decode(bytes).unwrap_err();
        let invalid = NodeError::Bytes(DecodeError::Invalid);
        let entry = |length: u8| [&[length][..], &[7; 6]].concat();
        assert_eq!(node(&[]), NodeError::Bytes(DecodeError::Short));
        assert_eq!(node(&[9, 0]), NodeError::Scheme(9));
        assert_eq!(node(&[SCHEME, 0]), invalid, "of nothing");
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
