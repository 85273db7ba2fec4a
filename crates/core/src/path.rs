//! Names and paths below a root: validated byte strings, never normalised, never a host path.
//!
//! Invariant: a [`Name`] is one legal component (1 to 255 bytes, no `/`, no NUL, not `.` or `..`), and a
//! [`RelPath`] is a `/`-joined sequence of names; the empty path is the root itself. Whatever is printed
//! goes through [`Display`](fmt::Display), which escapes control characters and bidirectional overrides,
//! so that a hostile name cannot attack a terminal or a log.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::fmt;

use crate::limits;

/// The directory at the top of each root that belongs to instep. No peer may send this name.
pub const RESERVED: &[u8] = b".instep";

/// Why a byte string is not a name or a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameError {
    /// The name, or one component of the path, is empty.
    Empty,
    /// Longer than the limit on a component, on a path, or on its depth.
    TooLong,
    /// Contains a NUL or, in a single name, a slash.
    Forbidden,
    /// `.` or `..`.
    Dots,
    /// `.instep` at the top of a root.
    Reserved,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "empty name",
            Self::TooLong => "name or path too long",
            Self::Forbidden => "name contains a slash or NUL",
            Self::Dots => "name is . or ..",
            Self::Reserved => ".instep is reserved",
        })
    }
}

impl core::error::Error for NameError {}

/// One component of a path, borrowed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name<'a>(&'a [u8]);

impl<'a> Name<'a> {
    /// Validates one component.
    pub fn new(bytes: &'a [u8]) -> Result<Self, NameError> {
        match bytes {
            [] => Err(NameError::Empty),
            b"." | b".." => Err(NameError::Dots),
            _ if bytes.len() > limits::NAME_BYTES_MAX => Err(NameError::TooLong),
            _ if bytes.iter().any(|b| matches!(b, b'/' | 0)) => Err(NameError::Forbidden),
            _ => Ok(Self(bytes)),
        }
    }

    /// The bytes, exactly as the file system has them.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(self.0, f)
    }
}

impl fmt::Debug for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// A path below a root. Cheap to clone. The empty path is the root.
///
/// Ordered as a tree walk: a directory, then everything below it, before its next sibling.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RelPath(Arc<[u8]>);

impl RelPath {
    /// The root itself.
    pub fn root() -> Self {
        Self(Arc::from(&[][..]))
    }

    /// Validates a `/`-joined path. The empty string is the root.
    pub fn new(bytes: &[u8]) -> Result<Self, NameError> {
        if bytes.is_empty() {
            return Ok(Self::root());
        }
        if bytes.len() > limits::PATH_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        let mut depth = 0;
        for part in bytes.split(|b| *b == b'/') {
            Name::new(part)?;
            depth += 1;
        }
        if depth > limits::PATH_DEPTH_MAX {
            return Err(NameError::TooLong);
        }
        Ok(Self(Arc::from(bytes)))
    }

    /// As [`RelPath::new`], and refuses anything inside instep's own directory: for paths from a peer.
    pub fn from_peer(bytes: &[u8]) -> Result<Self, NameError> {
        let path = Self::new(bytes)?;
        if path.is_reserved() {
            Err(NameError::Reserved)
        } else {
            Ok(path)
        }
    }

    /// The bytes, components joined by `/`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the path is instep's own directory or below it.
    pub fn is_reserved(&self) -> bool {
        self.components()
            .next()
            .is_some_and(|n| n.as_bytes() == RESERVED)
    }

    /// The components from the top; none for the root.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = Name<'_>> {
        self.0
            .split(|b| *b == b'/')
            .filter(|p| !p.is_empty())
            .map(Name)
    }

    /// The number of components.
    pub fn depth(&self) -> usize {
        self.components().count()
    }

    /// The path of `name` in this directory.
    pub fn join(&self, name: Name<'_>) -> Self {
        if self.is_root() {
            return Self(Arc::from(name.0));
        }
        let mut out = Vec::with_capacity(self.0.len() + 1 + name.0.len());
        out.extend_from_slice(&self.0);
        out.push(b'/');
        out.extend_from_slice(name.0);
        Self(Arc::from(out))
    }

    /// The directory and the last component; `None` for the root.
    pub fn split(&self) -> Option<(Self, Name<'_>)> {
        let (dir, name) = self.split_bytes()?;
        Some((Self(Arc::from(dir)), Name(name)))
    }

    /// As [`RelPath::split`] without building the parent.
    pub fn split_bytes(&self) -> Option<(&[u8], &[u8])> {
        if self.is_root() {
            return None;
        }
        Some(match self.0.iter().rposition(|b| *b == b'/') {
            Some(at) => (&self.0[..at], &self.0[at + 1..]),
            None => (&[], &self.0),
        })
    }

    /// The directory that contains this path; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        self.split_bytes().map(|(dir, _)| Self(Arc::from(dir)))
    }

    /// The last component; `None` for the root.
    pub fn name(&self) -> Option<Name<'_>> {
        self.split_bytes().map(|(_, name)| Name(name))
    }

    /// Whether `self` is `dir` or lies below it.
    pub fn is_within(&self, dir: &Self) -> bool {
        dir.is_root()
            || (self.0.starts_with(&dir.0)
                && (self.0.len() == dir.0.len() || self.0[dir.0.len()] == b'/'))
    }

    /// `self` with the leading `from` replaced by `to`; `None` when it is not within `from`.
    pub fn rebase(&self, from: &Self, to: &Self) -> Option<Self> {
        if !self.is_within(from) {
            return None;
        }
        let mut tail = &self.0[from.0.len()..];
        if tail.first() == Some(&b'/') {
            tail = &tail[1..];
        }
        let mut out = to.0.to_vec();
        if !out.is_empty() && !tail.is_empty() {
            out.push(b'/');
        }
        out.extend_from_slice(tail);
        Some(Self(Arc::from(out)))
    }
}

impl Ord for RelPath {
    fn cmp(&self, other: &Self) -> Ordering {
        // A slash sorts before every byte that a name can contain, so a directory's contents follow it.
        let key = |b: &u8| if *b == b'/' { 0 } else { *b };
        let at = common_prefix(&self.0, &other.0);
        self.0.get(at).map(key).cmp(&other.0.get(at).map(key))
    }
}

/// How many bytes two paths begin with in common. Neighbours in a tree share most of theirs, so eight are
/// compared at a time.
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let (chunks_a, _) = a.as_chunks::<8>();
    let (chunks_b, _) = b.as_chunks::<8>();
    let mut at = 0;
    for (x, y) in chunks_a.iter().zip(chunks_b) {
        let differ = u64::from_le_bytes(*x) ^ u64::from_le_bytes(*y);
        if differ != 0 {
            return at + differ.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let rest = a[at..].iter().zip(&b[at..]);
    at + rest.take_while(|(x, y)| x == y).count()
}

impl PartialOrd for RelPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            f.write_str(".")
        } else {
            escape(&self.0, f)
        }
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Whether a character acts on a terminal instead of being shown: control characters, what ends a line, and
/// what turns the direction of the text beside it.
pub fn acts(c: char) -> bool {
    let turns = matches!(
        c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') || turns
}

/// Writes bytes so that nothing in them can act on a terminal: invalid UTF-8 as `\xNN`, what [`acts`] as
/// `\u{N}`, a backslash doubled.
pub fn escape(bytes: &[u8], f: &mut dyn fmt::Write) -> fmt::Result {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                _ if acts(c) => write!(f, "\\u{{{:x}}}", c as u32)?,
                _ => f.write_char(c)?,
            }
        }
        for b in chunk.invalid() {
            write!(f, "\\x{b:02x}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;

    fn p(s: &str) -> RelPath {
        RelPath::new(s.as_bytes()).unwrap()
    }

    #[test]
    fn long_paths_sort_otherwise_than_byte_by_byte() {
        let slow = |a: &RelPath, b: &RelPath| {
            let key = |b: &u8| if *b == b'/' { 0 } else { *b };
            let (a, b) = (a.as_bytes(), b.as_bytes());
            a.iter().map(key).cmp(b.iter().map(key))
        };
        let stem = b"directory/with-a-long-name/file";
        let mut paths = alloc::vec![RelPath::root()];
        for n in 1..stem.len() {
            for end in [&b""[..], b"/", b"!", b"-", b"x/y", b"\xff"] {
                let bytes = [&stem[..n], end].concat();
                paths.extend(RelPath::new(&bytes));
            }
        }
        for a in &paths {
            for b in &paths {
                assert_eq!(a.cmp(b), slow(a, b), "{a} {b}");
            }
        }
    }

    #[test]
    fn illegal_names_are_refused() {
        for (bytes, why) in [
            (&b""[..], NameError::Empty),
            (b".", NameError::Dots),
            (b"..", NameError::Dots),
            (b"a/b", NameError::Forbidden),
            (b"a\0", NameError::Forbidden),
            (&[b'x'; 256], NameError::TooLong),
        ] {
            assert_eq!(Name::new(bytes), Err(why), "{bytes:?}");
        }
        assert!(Name::new(&[0xff; 255]).is_ok());
        assert_eq!(RelPath::new(b"a//b"), Err(NameError::Empty));
        assert_eq!(RelPath::new(b"a/../b"), Err(NameError::Dots));
        assert_eq!(RelPath::from_peer(b".instep/x"), Err(NameError::Reserved));
        assert!(RelPath::from_peer(b"a/.instep").is_ok());
    }

    #[test]
    fn a_directory_sorts_just_before_its_contents() {
        let mut v = [p("a.b"), p("a/z"), p("a"), p("a b"), p("a/b/c"), p("a/b")];
        v.sort();
        assert_eq!(
            v.each_ref().map(ToString::to_string),
            ["a", "a/b", "a/b/c", "a/z", "a b", "a.b"]
        );
    }

    #[test]
    fn joining_and_splitting_are_inverse() {
        let path = p("a/b/c");
        let (dir, name) = path.split().unwrap();
        assert_eq!(dir.join(name), path);
        assert_eq!(p("a").parent(), Some(RelPath::root()));
        assert_eq!(RelPath::root().split(), None);
        assert_eq!(path.rebase(&p("a"), &p("x/y")), Some(p("x/y/b/c")));
        assert_eq!(p("a").rebase(&p("a"), &p("x")), Some(p("x")));
        assert_eq!(p("ab").rebase(&p("a"), &p("x")), None);
    }

    #[test]
    fn hostile_names_are_shown_escaped() {
        let path = RelPath::new(b"a\x1b[31m\xff\n\xe2\x80\xae").unwrap();
        assert_eq!(path.to_string(), "a\\u{1b}[31m\\xff\\n\\u{202e}");
        assert_eq!(p("\u{61c}\u{2028}").to_string(), "\\u{61c}\\u{2028}");
    }
}
