//! The ledger: what users wrote, and whether all of it can still be found.
//!
//! Every version that a user completes carries a token of its own. A version may only vanish when a user who had it
//! replaced or deleted it; whatever else happens, its bytes are in some tree, or kept among the versions or
//! in the trash of some root. The ledger finds tokens by scanning bytes, and asks instep nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::tree::{OWN, at};

const PREFIX: &[u8] = b"<<token ";
const SUFFIX: &[u8] = b">>";
const DIGITS: usize = 16;
const LEN: usize = PREFIX.len() + DIGITS + SUFFIX.len();
/// Where instep keeps what it displaced. Other places of its own (staging, index) do not count as kept.
const KEPT: [&str; 2] = ["versions", "trash"];

/// Marks one version. Its text goes into the content of the file, anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(u64);

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<<token {:016x}>>", self.0)
    }
}

/// A version that nobody gave up and that is nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The version.
    pub token: Token,
    /// Who wrote it.
    pub user: String,
    /// Where it was written.
    pub path: Vec<u8>,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} wrote {} to {}: gone",
            self.user,
            self.token,
            self.path.escape_ascii()
        )
    }
}

/// What the users of a test wrote.
#[derive(Debug, Clone)]
pub struct Ledger {
    next: u64,
    written: BTreeMap<Token, (String, Vec<u8>)>,
    given_up: BTreeSet<Token>,
    /// The version that a user last wrote at a path.
    last: BTreeMap<(String, Vec<u8>), Token>,
}

impl Ledger {
    /// An empty ledger. Two ledgers with different seeds never hand out the same token.
    pub fn new(seed: u32) -> Self {
        Self {
            next: u64::from(seed) << 32,
            written: BTreeMap::new(),
            given_up: BTreeSet::new(),
            last: BTreeMap::new(),
        }
    }

    /// A token for the next version. It counts once it is [`Ledger::wrote`].
    pub fn token(&mut self) -> Token {
        self.next += 1;
        Token(self.next)
    }

    /// Records that the write is complete (closed, or renamed into place), without giving up any other version.
    pub fn wrote(&mut self, user: &str, path: &[u8], token: Token) {
        self.written.insert(token, (user.to_owned(), path.to_vec()));
        self.last.insert((user.to_owned(), path.to_vec()), token);
    }

    /// Records a complete write by which the user gives up what the same user last wrote at the path.
    pub fn replaced(&mut self, user: &str, path: &[u8], token: Token) {
        self.deleted(user, path);
        self.wrote(user, path, token);
    }

    /// Records that the user deleted what the same user last wrote at the path.
    pub fn deleted(&mut self, user: &str, path: &[u8]) {
        self.given_up
            .extend(self.last.remove(&(user.to_owned(), path.to_vec())));
    }

    /// Records that a user gave up this very version, for example after reading it.
    pub fn gave_up(&mut self, token: Token) {
        self.given_up.insert(token);
    }

    /// Records that the user moved a file, so that later writes at its new path replace it.
    pub fn moved(&mut self, user: &str, from: &[u8], to: &[u8]) {
        if let Some(token) = self.last.remove(&(user.to_owned(), from.to_vec())) {
            self.last.insert((user.to_owned(), to.to_vec()), token);
        }
    }

    /// How many versions must still be somewhere.
    pub fn live(&self) -> usize {
        self.written
            .keys()
            .filter(|t| !self.given_up.contains(t))
            .count()
    }

    /// The versions that are in no tree and that no root kept.
    pub fn lost(&self, roots: &[&Path]) -> io::Result<Vec<Lost>> {
        let mut found = BTreeSet::new();
        for root in roots {
            scan_root(root, &mut found)?;
        }
        let lost = self
            .written
            .iter()
            .filter(|(t, _)| !self.given_up.contains(t) && !found.contains(t));
        Ok(lost
            .map(|(token, (user, path))| Lost {
                token: *token,
                user: user.clone(),
                path: path.clone(),
            })
            .collect())
    }

    /// Panics with every lost version.
    #[track_caller]
    pub fn assert_nothing_lost(&self, roots: &[&Path]) {
        let lost = self
            .lost(roots)
            .unwrap_or_else(|e| panic!("cannot search for what users wrote: {e}"));
        let told: Vec<String> = lost.iter().map(ToString::to_string).collect();
        assert!(
            told.is_empty(),
            "{} of {} versions lost\n  {}",
            lost.len(),
            self.live(),
            told.join("\n  ")
        );
    }
}

/// The tokens in one file.
pub fn tokens_in(path: &Path) -> io::Result<BTreeSet<Token>> {
    let mut found = BTreeSet::new();
    scan_file(path, &mut found)?;
    Ok(found)
}

fn scan_root(root: &Path, found: &mut BTreeSet<Token>) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        if path != root.join(OWN) {
            scan(path, found)?;
        }
    }
    for kept in KEPT {
        let path = root.join(OWN).join(kept);
        if path.try_exists()? {
            scan(path, found)?;
        }
    }
    Ok(())
}

fn scan(path: PathBuf, found: &mut BTreeSet<Token>) -> io::Result<()> {
    let mut todo = vec![path];
    while let Some(path) = todo.pop() {
        let kind = fs::symlink_metadata(&path)?.file_type();
        if kind.is_dir() {
            for entry in fs::read_dir(&path)? {
                todo.push(entry?.path());
            }
        } else if kind.is_file() {
            scan_file(&path, found)?;
        }
    }
    Ok(())
}

fn scan_file(path: &Path, found: &mut BTreeSet<Token>) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut buffer = Vec::new();
    loop {
        // A token may lie across two reads: its beginning stays in the buffer.
        buffer.drain(..buffer.len().saturating_sub(LEN - 1));
        if file.by_ref().take(1 << 20).read_to_end(&mut buffer)? == 0 {
            return Ok(());
        }
        found.extend(tokens_among(&buffer));
    }
}

/// The tokens in these bytes.
pub fn tokens_among(bytes: &[u8]) -> impl Iterator<Item = Token> {
    let whole = |w: &&[u8]| w.starts_with(PREFIX) && w.ends_with(SUFFIX);
    bytes.windows(LEN).filter(whole).filter_map(|window| {
        let digits = &window[PREFIX.len()..PREFIX.len() + DIGITS];
        let number = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16);
        number.ok().map(Token)
    })
}

/// Writes a file with a token in it, in one go, as a user's program does.
pub fn write_with(root: &Path, path: &[u8], token: Token, padding: usize) -> io::Result<()> {
    let mut content = vec![b'.'; padding];
    content.extend_from_slice(token.to_string().as_bytes());
    content.push(b'\n');
    fs::write(at(root, path), content)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_version_counts_as_kept_only_where_a_user_can_get_it_back() {
        let scratch = Scratch::new().unwrap();
        let root = scratch.path();
        for (dir, lost) in [
            ("", 0),
            ("sub/dir", 0),
            (".instep/versions/ab", 0),
            (".instep/trash/2026", 0),
            (".instep/staging", 1),
            (".instep", 1),
        ] {
            let place = scratch.dir(dir).unwrap();
            let mut ledger = Ledger::new(1);
            let token = ledger.token();
            ledger.wrote("ada", b"f", token);
            write_with(&place, b"f", token, 10).unwrap();
            assert_eq!(ledger.lost(&[root]).unwrap().len(), lost, "{dir:?}");
            fs::remove_file(place.join("f")).unwrap();
            assert_eq!(
                ledger.lost(&[root]).unwrap().len(),
                1,
                "{dir:?} after removal"
            );
        }
    }

    #[test]
    fn a_user_gives_up_only_what_that_user_wrote() {
        let scratch = Scratch::new().unwrap();
        let mut ledger = Ledger::new(1);
        let (a, b, c) = (ledger.token(), ledger.token(), ledger.token());
        ledger.wrote("ada", b"f", a);
        ledger.wrote("bo", b"f", b);
        ledger.replaced("ada", b"f", c);
        let tokens = |l: Vec<Lost>| l.iter().map(|l| l.token).collect::<Vec<_>>();
        assert_eq!(tokens(ledger.lost(&[scratch.path()]).unwrap()), [b, c]);
        ledger.moved("ada", b"f", b"g");
        ledger.deleted("ada", b"f");
        assert_eq!(ledger.live(), 2);
        ledger.deleted("ada", b"g");
        assert_eq!(tokens(ledger.lost(&[scratch.path()]).unwrap()), [b]);
        ledger.gave_up(b);
        ledger.assert_nothing_lost(&[scratch.path()]);
    }

    #[test]
    fn a_token_is_found_across_the_border_of_two_reads() {
        let scratch = Scratch::new().unwrap();
        let mut ledger = Ledger::new(2);
        for padding in [
            0,
            (1 << 20) - 1,
            (1 << 20) - LEN / 2,
            (1 << 20) - LEN,
            1 << 20,
            3 << 20,
        ] {
            let token = ledger.token();
            ledger.wrote("ada", b"f", token);
            write_with(scratch.path(), b"f", token, padding).unwrap();
            assert_eq!(
                tokens_in(&scratch.path().join("f")).unwrap(),
                BTreeSet::from([token]),
                "{padding}"
            );
        }
        assert_eq!(ledger.lost(&[scratch.path()]).unwrap().len(), 5);
    }
}
