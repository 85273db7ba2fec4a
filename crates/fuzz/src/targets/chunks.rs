//! What a far end says of how a content is made: nodes of its manifest, deltas.

use instep_chunk::delta::{fingerprints, patch};
use instep_chunk::manifest::{Descent, Piece, Tree, list, mark};

/// What both ends have: the same bytes in every run.
fn old(count: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// Another node after each two bytes of length: the first is the one on top.
pub(super) fn manifest(bytes: &[u8]) -> String {
    let mut nodes = Vec::new();
    let mut rest = bytes;
    while let Some((length, others)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes(*length)).min(others.len());
        let (node, others) = others.split_at(length);
        nodes.push(node);
        rest = others;
    }
    let Some((top, others)) = nodes.split_first() else {
        return "no node".into();
    };
    let base = tree();
    let size: u64 = base.chunks().iter().map(|piece| piece.length).sum();
    let mut descent = match Descent::new(top, size, &base) {
        Ok(descent) => descent,
        Err(e) => return e.to_string(),
    };
    for node in others {
        let is_wanted = descent.wanted().contains(&mark(node));
        let taken = descent.take(&[node]);
        assert!(taken.is_err() || is_wanted, "a node that nobody wanted");
        if let Err(e) = taken {
            return e.to_string();
        }
    }
    let (common, other) = descent.common();
    assert!(common + other <= size, "more than the file has");
    match descent.finish() {
        Some(runs) => {
            let pieces = list(&runs, base.chunks());
            let sum: u64 = pieces.iter().map(|piece| piece.length).sum();
            assert_eq!(sum, size, "another size than was said");
            "all of it".into()
        }
        None => "not all of it".into(),
    }
}

fn tree() -> Tree {
    let piece = |n: u64| Piece {
        mark: mark(&n.to_le_bytes()),
        length: 20_000 + n,
    };
    Tree::new((0..100).map(piece).collect())
}

pub(super) fn manifest_seeds() -> Vec<Vec<u8>> {
    let tree = tree();
    // Another tree than the one that it is compared with.
    let other = Tree::new(tree.chunks().iter().rev().copied().collect());
    let told = |tree: &Tree| {
        let top = tree.top().unwrap_or_default();
        let none = Tree::default();
        let all = Descent::new(&top, 2_004_950, &none);
        let below = all.map_or(Vec::new(), |descent| descent.wanted());
        let below = below.into_iter().filter_map(|mark| tree.node(mark));
        let framed = |node: Vec<u8>| [&(node.len() as u16).to_be_bytes()[..], &node].concat();
        std::iter::once(top).chain(below).flat_map(framed).collect()
    };
    vec![told(&tree), told(&other)]
}

/// A delta against bytes that are known.
pub(super) fn delta(bytes: &[u8]) -> String {
    let old = old(20_000);
    match patch(&old, bytes, old.len()) {
        Ok(new) => {
            assert_eq!(new.len(), old.len());
            "bytes".into()
        }
        Err(e) => e.to_string(),
    }
}

pub(super) fn delta_seeds() -> Vec<Vec<u8>> {
    let old = old(20_000);
    let mut new = old.clone();
    new[10_000] ^= 1;
    let prints = fingerprints(&old);
    vec![
        instep_chunk::delta::delta(&old, &prints),
        instep_chunk::delta::delta(&new, &prints),
    ]
}
