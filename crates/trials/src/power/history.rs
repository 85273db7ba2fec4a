//! What users did, when, and since when a power cut cannot take it.
//!
//! Invariant: an operation is on record before its first system call, and called durable only after the last `fsync`
//! that makes it so has returned. All of one path's operations are in the order in which they were done.

use std::collections::BTreeMap;
use std::time::Instant;

use super::content::Token;

/// The directory in which all users write; every other top directory has one user.
pub const SHARED: &str = "shared";

/// One path, changed by one user.
#[derive(Debug, Clone)]
pub struct Op {
    /// Below the root.
    pub path: String,
    /// What is there afterwards.
    pub state: Option<Token>,
    /// When it began.
    pub begun: Instant,
    /// Since when it is durable, if it ever was.
    pub durable: Option<Instant>,
}

/// A place in the history.
pub type At = usize;

/// All operations of a trial.
#[derive(Debug, Default)]
pub struct History {
    ops: Vec<Op>,
    tokens: Token,
}

impl History {
    /// The number of the next version.
    pub fn token(&mut self) -> Token {
        self.tokens += 1;
        self.tokens
    }

    /// An operation that begins now.
    pub fn begin(&mut self, path: &str, state: Option<Token>) -> At {
        self.ops.push(Op {
            path: path.to_owned(),
            state,
            begun: Instant::now(),
            durable: None,
        });
        self.ops.len() - 1
    }

    /// From now on it is durable.
    pub fn durable(&mut self, at: At) {
        self.ops[at].durable = Some(Instant::now());
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether nobody did anything.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// What had begun when a cut was complete, by path; durable is what was so before it began.
    pub fn until(&self, cut: (Instant, Instant)) -> BTreeMap<String, Vec<Op>> {
        let mut paths: BTreeMap<String, Vec<Op>> = BTreeMap::new();
        for op in self.ops.iter().filter(|op| op.begun <= cut.1) {
            let mut op = op.clone();
            op.durable = op.durable.filter(|at| *at < cut.0);
            paths.entry(op.path.clone()).or_default().push(op);
        }
        paths
    }
}
