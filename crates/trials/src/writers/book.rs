//! What users saved, told by many threads at a time.
//!
//! Owns the ledger. Invariant: a save is in it before anybody else can see it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use instep_testkit::ledger::{Ledger, Lost, Token, tokens_among};

/// The ledger of one storm.
#[derive(Debug)]
pub struct Book(Mutex<Inside>);

#[derive(Debug)]
struct Inside {
    ledger: Ledger,
    saves: u64,
    by: BTreeMap<Token, String>,
}

impl Book {
    /// An empty one.
    pub fn new(seed: u32) -> Self {
        Self(Mutex::new(Inside {
            ledger: Ledger::new(seed),
            saves: 0,
            by: BTreeMap::new(),
        }))
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        // A writer that panicked fails the trial by itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Text for the next save at a path, which counts from now on: a token at both ends of so many bytes.
    pub fn save(&self, user: &str, path: &str, padding: usize) -> (Token, String) {
        let mut inside = self.inside();
        let token = inside.ledger.token();
        inside.ledger.wrote(user, path.as_bytes(), token);
        inside.saves += 1;
        inside.by.insert(token, user.to_owned());
        (token, format!("{token}{}{token}", ".".repeat(padding)))
    }

    /// The save did not come to be.
    pub fn failed(&self, token: Token) {
        let mut inside = self.inside();
        inside.saves -= 1;
        inside.ledger.gave_up(token);
    }

    /// A user read this and then destroyed it.
    pub fn destroyed(&self, bytes: &[u8]) {
        let mut inside = self.inside();
        for token in tokens_among(bytes) {
            inside.ledger.gave_up(token);
        }
    }

    /// Whether some of these bytes are a save of this user.
    pub fn is_of(&self, user: &str, bytes: &[u8]) -> bool {
        let inside = self.inside();
        tokens_among(bytes).any(|t| inside.by.get(&t).is_some_and(|by| by == user))
    }

    /// How many saves were completed.
    pub fn saves(&self) -> u64 {
        self.inside().saves
    }

    /// How many of them nobody gave up.
    pub fn live(&self) -> usize {
        self.inside().ledger.live()
    }

    /// Those that are nowhere.
    pub fn lost(&self, roots: &[&Path]) -> io::Result<Vec<Lost>> {
        self.inside().ledger.lost(roots)
    }
}

/// Whether the bytes are one save and all of it.
pub fn is_whole(bytes: &[u8]) -> bool {
    let tokens: Vec<Token> = tokens_among(bytes).collect();
    let [first, last] = tokens[..] else {
        return false;
    };
    let text = first.to_string();
    first == last && bytes.starts_with(text.as_bytes()) && bytes.ends_with(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_save_counts_as_whole() {
        let book = Book::new(1);
        let (_, a) = book.save("ada", "f", 40);
        let (_, b) = book.save("ada", "f", 40);
        assert!(is_whole(a.as_bytes()));
        assert!(!is_whole(b""));
        assert!(!is_whole(&a.as_bytes()[..50]));
        assert!(!is_whole(format!("{}{}", &a[..30], &b[30..]).as_bytes()));
    }
}
