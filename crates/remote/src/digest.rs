//! Digests of everything that a replica tells, so that two sides find what differs without sending what does not.
//!
//! Paths fall into leaves by a hash; a leaf's digest is the sum of the digests of what is told of its paths, modulo
//! 2^128, and a branch's is the sum of its sixteen children. A change of one row is one subtraction and one addition,
//! in any order, and the digest of everything is at hand at any time.
//!
//! A sum of hashes is no proof against somebody who chooses the rows: whoever lies here about its own rows misleads
//! nobody but about itself, which it could do in plain words.

use instep_core::path::RelPath;

use crate::told;

/// Levels below the root; each divides by sixteen.
pub const DEPTH: u8 = 4;
const LEAVES: usize = 1 << (4 * DEPTH);
/// Children of a branch.
pub const FAN: usize = 16;

/// A node: the first `depth` hexadecimal digits of the hashes of its paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    digits: u16,
    depth: u8,
}

impl Prefix {
    /// The node of everything.
    pub const ROOT: Self = Self {
        digits: 0,
        depth: 0,
    };

    /// From what was sent: digits above the depth, or a depth beyond [`DEPTH`], are refused.
    pub fn new(digits: u16, depth: u8) -> Option<Self> {
        let fits = depth <= DEPTH && u32::from(digits) < 1 << (4 * u32::from(depth));
        fits.then_some(Self { digits, depth })
    }

    /// The leaf that a path falls into.
    pub fn of(path: &RelPath) -> Self {
        let hash = blake3::hash(path.as_bytes());
        let bytes = hash.as_bytes();
        Self {
            digits: u16::from_be_bytes([bytes[0], bytes[1]]),
            depth: DEPTH,
        }
    }

    /// The digits as a number.
    pub fn digits(self) -> u16 {
        self.digits
    }

    /// How many digits.
    pub fn depth(self) -> u8 {
        self.depth
    }

    /// Whether it has no children.
    pub fn is_leaf(self) -> bool {
        self.depth == DEPTH
    }

    /// The children of a branch, in order.
    pub fn children(self) -> impl Iterator<Item = Self> {
        let fan = if self.is_leaf() { 0 } else { FAN as u16 };
        (0..fan).map(move |n| Self {
            digits: self.digits << 4 | n,
            depth: self.depth + 1,
        })
    }

    /// Whether a leaf is below (or is) this node.
    pub fn covers(self, leaf: Self) -> bool {
        let shift = 4 * u32::from(leaf.depth.saturating_sub(self.depth));
        u32::from(leaf.digits) >> shift == u32::from(self.digits)
    }

    fn leaves(self) -> std::ops::Range<usize> {
        let shift = 4 * (DEPTH - self.depth);
        let first = usize::from(self.digits) << shift;
        first..first + (1 << shift)
    }
}

/// The digests of everything that one replica tells.
#[derive(Clone)]
pub struct Digests {
    leaves: Vec<u128>,
    rows: u64,
}

impl std::fmt::Debug for Digests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} rows, {:032x}", self.rows, self.total())
    }
}

impl Default for Digests {
    fn default() -> Self {
        Self {
            leaves: vec![0; LEAVES],
            rows: 0,
        }
    }
}

impl Digests {
    /// Counts a row in.
    pub fn add(&mut self, path: &RelPath, bytes: &[u8]) {
        let leaf = &mut self.leaves[usize::from(Prefix::of(path).digits)];
        *leaf = leaf.wrapping_add(told::digest(path, bytes));
        self.rows += 1;
    }

    /// Counts a row out that was counted in.
    pub fn remove(&mut self, path: &RelPath, bytes: &[u8]) {
        let leaf = &mut self.leaves[usize::from(Prefix::of(path).digits)];
        *leaf = leaf.wrapping_sub(told::digest(path, bytes));
        self.rows = self.rows.saturating_sub(1);
    }

    /// The digest of everything.
    pub fn total(&self) -> u128 {
        self.of(Prefix::ROOT)
    }

    /// How many rows were counted in.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The digest of a node.
    pub fn of(&self, node: Prefix) -> u128 {
        let leaves = &self.leaves[node.leaves()];
        leaves.iter().fold(0, |sum, leaf| sum.wrapping_add(*leaf))
    }

    /// The digests of a branch's children.
    pub fn children(&self, node: Prefix) -> Vec<u128> {
        node.children().map(|child| self.of(child)).collect()
    }

    /// The children of a branch whose digests are not those that somebody else has.
    pub fn differing(&self, node: Prefix, theirs: &[u128]) -> Vec<Prefix> {
        let pairs = node.children().zip(theirs);
        pairs
            .filter(|(child, sum)| self.of(*child) != **sum)
            .map(|(child, _)| child)
            .collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;

    fn path(n: u32) -> RelPath {
        RelPath::new(format!("d{}/f{n}", n % 7).as_bytes()).unwrap()
    }

    #[test]
    fn a_row_that_differs_is_found_by_descending_and_nothing_else_is() {
        let (mut ours, mut theirs) = (Digests::default(), Digests::default());
        for n in 0..2000 {
            ours.add(&path(n), b"same");
            theirs.add(&path(n), if n == 77 { b"other" } else { b"same" });
        }
        assert_ne!(ours.total(), theirs.total());
        let mut nodes = vec![Prefix::ROOT];
        while let Some(node) = nodes.iter().position(|n| !n.is_leaf()) {
            let node = nodes.remove(node);
            nodes.extend(ours.differing(node, &theirs.children(node)));
        }
        assert_eq!(nodes, [Prefix::of(&path(77))]);
        ours.remove(&path(77), b"same");
        ours.add(&path(77), b"other");
        assert_eq!(ours.total(), theirs.total());
    }

    #[test]
    fn order_does_not_matter_and_what_was_removed_leaves_no_trace() {
        let (mut one, mut two) = (Digests::default(), Digests::default());
        for n in 0..100 {
            one.add(&path(n), b"x");
            two.add(&path(99 - n), b"x");
        }
        assert_eq!(one.total(), two.total());
        (0..100).for_each(|n| one.remove(&path(n), b"x"));
        assert_eq!(one.total(), 0);
        assert_eq!(one.rows(), 0);
    }

    #[test]
    fn a_node_that_nobody_has_is_refused() {
        assert!(Prefix::new(0, 0).is_some());
        assert!(Prefix::new(16, 1).is_none());
        assert!(Prefix::new(0xffff, 4).is_some());
        assert!(Prefix::new(0, 5).is_none());
        let leaf = Prefix::of(&path(3));
        let covering: Vec<_> = Prefix::ROOT.children().filter(|c| c.covers(leaf)).collect();
        assert_eq!(covering.len(), 1);
    }
}
