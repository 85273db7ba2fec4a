//! Mutations: bits, numbers, lengths, pieces of other inputs, and words that mean something.
//!
//! Everything follows from the dice; a run with the same seed makes the same inputs of the same corpus.

/// Pseudo-random numbers (`SplitMix64`; Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `n`, which is not zero.
    pub fn below(&mut self, n: usize) -> usize {
        (self.roll() % n as u64) as usize
    }
}

/// Numbers at which something happens.
const EDGES: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];

/// Another input, made of one or two.
pub fn mutate(
    dice: &mut Dice,
    input: &[u8],
    other: &[u8],
    words: &[&str],
    longest: usize,
) -> Vec<u8> {
    let mut out = input.to_vec();
    for _ in 0..=dice.below(4) {
        step(dice, &mut out, other, words);
    }
    out.truncate(longest);
    out
}

fn step(dice: &mut Dice, out: &mut Vec<u8>, other: &[u8], words: &[&str]) {
    let at = dice.below(out.len() + 1);
    match dice.below(10) {
        0 | 1 if at < out.len() => out[at] ^= 1 << dice.below(8),
        2 if at < out.len() => out[at] = dice.roll() as u8,
        3 => {
            let edge = EDGES[dice.below(EDGES.len())].to_le_bytes();
            let width = [1, 2, 4, 8][dice.below(4)];
            splice(out, at, width * dice.below(2), &edge[..width]);
        }
        4 => {
            let count = dice.below(9).min(out.len() - at);
            splice(out, at, count, &[]);
        }
        5 => {
            let (from, count) = (dice.below(other.len() + 1), dice.below(64));
            let piece = &other[from..(from + count).min(other.len())];
            splice(out, at, dice.below(2) * piece.len(), piece);
        }
        6 => {
            let (from, count) = (dice.below(out.len() + 1), dice.below(16));
            let piece = out[from..(from + count).min(out.len())].to_vec();
            let times = 1 + dice.below(8);
            splice(out, at, 0, &piece.repeat(times));
        }
        7 if !words.is_empty() => {
            let word = words[dice.below(words.len())].as_bytes();
            splice(out, at, dice.below(2) * word.len(), word);
        }
        8 => out.truncate(at),
        _ => {
            // The greatest number that an integer of variable length can have, and one byte more.
            let mut length = vec![0xff; 1 + dice.below(10)];
            length.push(dice.below(3) as u8);
            splice(out, at, dice.below(3), &length);
        }
    }
}

/// Puts a piece in place of `count` bytes at a place.
fn splice(out: &mut Vec<u8>, at: usize, count: usize, piece: &[u8]) {
    let end = (at + count).min(out.len());
    drop(out.splice(at..end, piece.iter().copied()));
}
