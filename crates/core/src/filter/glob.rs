//! Patterns: the wildcard language of `gitignore`, compiled so that matching is bounded.
//!
//! A pattern is a sequence of [`Step`]s, one per path component, so a walker can advance it one name at a
//! time. The set of steps that may come next is one machine word. Matching a name costs at most the length of the
//! component's pattern times the length of the name, whatever a peer wrote into its ignore file. Nothing here
//! knows files, sources or precedence.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use crate::limits;

/// Why a pattern can never match. Git accepts such lines and matches nothing with them; so do we, and say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatternFault {
    /// `[` without its `]`.
    UnclosedBracket,
    /// `[[:name:]]` with a name that is not one of the twelve classes.
    UnknownClass,
    /// A backslash with nothing after it.
    TrailingBackslash,
    /// Nothing is left between two slashes, or of the whole pattern.
    EmptyComponent,
    /// More bytes or more slashes than a pattern may have.
    TooLong,
}

impl fmt::Display for PatternFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnclosedBracket => "bracket is never closed",
            Self::UnknownClass => "unknown character class",
            Self::TrailingBackslash => "backslash at the end",
            Self::EmptyComponent => "empty name in the pattern",
            Self::TooLong => "pattern too long",
        })
    }
}

/// A set of bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ByteSet([u64; 4]);

impl ByteSet {
    fn of(byte: u8) -> Self {
        let mut set = Self::default();
        set.insert(byte);
        set
    }

    fn insert(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    pub(super) fn has(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] & (1 << (byte & 63)) != 0
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (word, more) in self.0.iter_mut().zip(other.0) {
            *word |= more;
        }
    }

    fn invert(&mut self) {
        for word in &mut self.0 {
            *word = !*word;
        }
    }
}

/// One element of a component with wildcards.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    Byte(u8),
    AnyByte,
    Set(Box<ByteSet>),
    Star,
}

impl Item {
    /// The bytes it stands for, where they are few enough to say something about a name.
    fn bytes(&self) -> Option<ByteSet> {
        match self {
            Self::Byte(byte) => Some(ByteSet::of(*byte)),
            Self::Set(set) => Some(ByteSet::clone(set)),
            Self::AnyByte | Self::Star => None,
        }
    }

    fn accepts(&self, byte: u8) -> bool {
        match self {
            Self::Byte(b) => *b == byte,
            Self::AnyByte => true,
            Self::Set(set) => set.has(byte),
            Self::Star => false,
        }
    }
}

/// The pattern of one name. The first three shapes are nearly all patterns that people write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Glob {
    Literal(Box<[u8]>),
    Prefix(Box<[u8]>),
    Suffix(Box<[u8]>),
    Items(Items),
}

/// A component with wildcards in other places than one end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Items(Box<[Item]>);

impl Glob {
    fn new(items: Vec<Item>) -> Self {
        let bytes = |items: &[Item]| -> Option<Box<[u8]>> {
            items
                .iter()
                .map(|i| {
                    if let Item::Byte(b) = i {
                        Some(*b)
                    } else {
                        None
                    }
                })
                .collect()
        };
        if let Some(literal) = bytes(&items) {
            return Self::Literal(literal);
        }
        if let [Item::Star, rest @ ..] = &items[..]
            && let Some(suffix) = bytes(rest)
        {
            return Self::Suffix(suffix);
        }
        if let [rest @ .., Item::Star] = &items[..]
            && let Some(prefix) = bytes(rest)
        {
            return Self::Prefix(prefix);
        }
        Self::Items(Items(items.into()))
    }

    /// Whether the whole of `name` matches.
    pub(super) fn matches(&self, name: &[u8]) -> bool {
        match self {
            Self::Literal(literal) => **literal == *name,
            Self::Prefix(prefix) => name.starts_with(prefix),
            Self::Suffix(suffix) => name.ends_with(suffix),
            Self::Items(Items(items)) => matches_items(items, name),
        }
    }

    /// The bytes with which a matching name begins; nothing where that is open.
    pub(super) fn first_bytes(&self) -> Option<ByteSet> {
        match self {
            Self::Literal(bytes) | Self::Prefix(bytes) => bytes.first().map(|b| ByteSet::of(*b)),
            Self::Suffix(_) => None,
            Self::Items(Items(items)) => items.first()?.bytes(),
        }
    }

    /// The bytes with which a matching name ends; nothing where that is open.
    pub(super) fn last_bytes(&self) -> Option<ByteSet> {
        match self {
            Self::Literal(bytes) | Self::Suffix(bytes) => bytes.last().map(|b| ByteSet::of(*b)),
            Self::Prefix(_) => None,
            Self::Items(Items(items)) => items.last()?.bytes(),
        }
    }
}

/// Only the last star is ever widened: an earlier one can take nothing that the last one could not, which
/// is what keeps the work at the product of the two lengths.
fn matches_items(items: &[Item], name: &[u8]) -> bool {
    let (mut item, mut at) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while at < name.len() {
        match items.get(item) {
            Some(Item::Star) => {
                retry = Some((item, at));
                item += 1;
            }
            Some(single) if single.accepts(name[at]) => {
                item += 1;
                at += 1;
            }
            _ => match retry {
                Some((star, from)) => {
                    retry = Some((star, from + 1));
                    item = star + 1;
                    at = from + 1;
                }
                None => return false,
            },
        }
    }
    items[item..].iter().all(|i| *i == Item::Star)
}

/// What one step of a pattern takes from a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// One name.
    One(Glob),
    /// `**/`: any number of names, also none.
    AnyDepth,
    /// `/**` at the end (or before an escaped slash): one name or more.
    SomeDepth,
}

/// A whole pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(Box<[Step]>);

/// The steps that may come next, one bit each; the bit after the last step means "matched".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress(u64);

impl Progress {
    /// Whether nothing below here can match any more.
    pub(super) fn is_dead(self) -> bool {
        self.0 == 0
    }
}

impl Pattern {
    /// Compiles a pattern without its leading `!`, its leading slash and its trailing slash.
    pub(super) fn new(text: &[u8]) -> Result<Self, PatternFault> {
        if text.len() > limits::RULE_PATTERN_BYTES_MAX {
            return Err(PatternFault::TooLong);
        }
        let steps = Parser {
            text,
            at: 0,
            items: Vec::new(),
            steps: Vec::new(),
        }
        .run()?;
        if steps.len() > limits::RULE_COMPONENTS_MAX {
            return Err(PatternFault::TooLong);
        }
        Ok(Self(steps.into()))
    }

    /// The glob of a pattern without a slash, which matches a name at any depth.
    pub(super) fn into_glob(self) -> Option<Glob> {
        match self.0.into_vec().pop()? {
            Step::One(glob) => Some(glob),
            Step::AnyDepth | Step::SomeDepth => Some(Glob::Suffix(Box::default())),
        }
    }

    /// Nothing consumed yet.
    pub(super) fn start(&self) -> Progress {
        Progress(self.skip_empty(1))
    }

    /// Consumes one directory's name.
    pub(super) fn advance(&self, from: Progress, name: &[u8]) -> Progress {
        // A whole match of the directory says nothing about what is in it.
        Progress(self.step(from.0, name) & !self.matched())
    }

    /// Whether the path that ends with `name` matches.
    pub(super) fn accepts(&self, from: Progress, name: &[u8]) -> bool {
        self.step(from.0, name) & self.matched() != 0
    }

    fn matched(&self) -> u64 {
        1 << self.0.len()
    }

    fn step(&self, mut from: u64, name: &[u8]) -> u64 {
        let mut to = 0;
        while from != 0 {
            let at = from.trailing_zeros() as usize;
            from &= from - 1;
            to |= match self.0.get(at) {
                Some(Step::One(glob)) if glob.matches(name) => 1 << (at + 1),
                Some(Step::AnyDepth) => 1 << at,
                Some(Step::SomeDepth) => 3 << at,
                Some(Step::One(_)) | None => 0,
            };
        }
        self.skip_empty(to)
    }

    fn skip_empty(&self, mut set: u64) -> u64 {
        for (at, step) in self.0.iter().enumerate() {
            if *step == Step::AnyDepth && set & (1 << at) != 0 {
                set |= 1 << (at + 1);
            }
        }
        set
    }
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    items: Vec<Item>,
    steps: Vec<Step>,
}

impl Parser<'_> {
    fn run(mut self) -> Result<Vec<Step>, PatternFault> {
        // An empty component never matches, but a fault further on explains more than that.
        let mut empty = false;
        while let Some(byte) = self.peek(0) {
            self.at += 1;
            match byte {
                b'/' => empty |= !self.end_component(),
                b'?' => self.items.push(Item::AnyByte),
                b'[' => {
                    let set = self.bracket()?;
                    self.items.push(Item::Set(Box::new(set)));
                }
                b'*' => {
                    if self.stars() {
                        return if empty {
                            Err(PatternFault::EmptyComponent)
                        } else {
                            Ok(self.steps)
                        };
                    }
                }
                b'\\' => match self.next().ok_or(PatternFault::TrailingBackslash)? {
                    b'/' => empty |= !self.end_component(),
                    escaped => self.items.push(Item::Byte(escaped)),
                },
                literal => self.items.push(Item::Byte(literal)),
            }
        }
        empty |= !self.end_component();
        if empty {
            Err(PatternFault::EmptyComponent)
        } else {
            Ok(self.steps)
        }
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.text.get(self.at + ahead).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek(0);
        self.at += usize::from(byte.is_some());
        byte
    }

    /// Closes the component; false when there was nothing in it.
    fn end_component(&mut self) -> bool {
        let items = core::mem::take(&mut self.items);
        let some = !items.is_empty();
        self.steps.push(Step::One(Glob::new(items)));
        some
    }

    /// Reads a run of stars whose first was just taken; true when it was a `**` that ends the pattern.
    fn stars(&mut self) -> bool {
        let mut run = 1;
        while self.peek(0) == Some(b'*') {
            self.at += 1;
            run += 1;
        }
        if run > 1 && self.items.is_empty() {
            match (self.peek(0), self.peek(1)) {
                (None, _) => {
                    self.steps.push(Step::SomeDepth);
                    return true;
                }
                (Some(b'/'), _) => {
                    self.at += 1;
                    self.steps.push(Step::AnyDepth);
                    return false;
                }
                (Some(b'\\'), Some(b'/')) => {
                    self.at += 2;
                    self.steps.push(Step::SomeDepth);
                    return false;
                }
                _ => {}
            }
        }
        self.items.push(Item::Star);
        false
    }

    /// Reads a bracket expression whose `[` was just taken.
    fn bracket(&mut self) -> Result<ByteSet, PatternFault> {
        const OPEN: PatternFault = PatternFault::UnclosedBracket;
        let mut set = ByteSet::default();
        let negated = matches!(self.peek(0), Some(b'!' | b'^'));
        self.at += usize::from(negated);
        // The last plain byte, from which a range can start.
        let mut low = None;
        let mut first = true;
        loop {
            let byte = self.next().ok_or(OPEN)?;
            match (byte, low) {
                (b']', _) if !first => break,
                (b'\\', _) => {
                    let escaped = self.next().ok_or(OPEN)?;
                    set.insert(escaped);
                    low = Some(escaped);
                }
                (b'-', Some(from)) if self.peek(0).is_some_and(|b| b != b']') => {
                    let mut to = self.next().ok_or(OPEN)?;
                    if to == b'\\' {
                        to = self.next().ok_or(OPEN)?;
                    }
                    (from..=to).for_each(|b| set.insert(b));
                    low = None;
                }
                (b'[', _) if self.peek(0) == Some(b':') => low = self.class(&mut set)?,
                _ => {
                    set.insert(byte);
                    low = Some(byte);
                }
            }
            first = false;
        }
        if negated {
            set.invert();
        }
        Ok(set)
    }

    /// Reads what may be `[:class:]`, at its colon. Without the `:]` the `[` was a plain byte.
    fn class(&mut self, set: &mut ByteSet) -> Result<Option<u8>, PatternFault> {
        let rest = &self.text[self.at + 1..];
        let end = rest
            .iter()
            .position(|b| *b == b']')
            .ok_or(PatternFault::UnclosedBracket)?;
        let Some(name) = rest[..end].strip_suffix(b":") else {
            set.insert(b'[');
            return Ok(Some(b'['));
        };
        let member = class(name).ok_or(PatternFault::UnknownClass)?;
        (0..=u8::MAX).filter(member).for_each(|b| set.insert(b));
        self.at += 1 + end + 1;
        Ok(None)
    }
}

/// The members of a named class: ASCII only, whatever the locale.
fn class(name: &[u8]) -> Option<fn(&u8) -> bool> {
    Some(match name {
        b"alnum" => u8::is_ascii_alphanumeric,
        b"alpha" => u8::is_ascii_alphabetic,
        b"blank" => |b| matches!(b, b' ' | b'\t'),
        b"cntrl" => u8::is_ascii_control,
        b"digit" => u8::is_ascii_digit,
        b"graph" => u8::is_ascii_graphic,
        b"lower" => u8::is_ascii_lowercase,
        b"print" => |b| matches!(b, b' '..=b'~'),
        b"punct" => u8::is_ascii_punctuation,
        // Git has its own idea of a space: no vertical tab, no form feed.
        b"space" => |b| matches!(b, b' ' | b'\t' | b'\n' | b'\r'),
        b"upper" => u8::is_ascii_uppercase,
        b"xdigit" => u8::is_ascii_hexdigit,
        _ => return None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        let pattern = Pattern::new(pattern.as_bytes()).unwrap();
        let mut progress = pattern.start();
        let (dir, name) = path
            .rsplit_once('/')
            .map_or((None, path), |(d, n)| (Some(d), n));
        for part in dir.into_iter().flat_map(|d| d.split('/')) {
            progress = pattern.advance(progress, part.as_bytes());
        }
        pattern.accepts(progress, name.as_bytes())
    }

    #[test]
    fn wildcards_match_what_git_documents() {
        for (pattern, yes, no) in [
            ("a*c", &["ac", "abc", "abbc"][..], &["ab", "a/c", "acd"][..]),
            ("a?c", &["abc"], &["ac", "abbc", "a/c"]),
            ("*", &["a"], &["a/b"]),
            ("**", &["a", "a/b"], &[]),
            ("**/a", &["a", "b/a", "c/b/a"], &["ab", "a/b"]),
            ("a/**", &["a/b", "a/b/c"], &["a", "b/a"]),
            ("a/**/b", &["a/b", "a/x/b", "a/x/y/b"], &["a", "ab", "a/xb"]),
            ("a/**/**/b", &["a/b", "a/x/b"], &["a/x"]),
            ("a**/b", &["a/b", "ax/b"], &["a/x/b"]),
            ("a/**\\/b", &["a/x/b"], &["a/b"]),
            ("[a-c]x", &["ax", "cx"], &["dx", "-x"]),
            ("[!a-c]x", &["dx"], &["ax"]),
            ("[]-]x", &["]x", "-x"], &["ax"]),
            ("[a-]x", &["-x", "ax"], &["bx"]),
            ("[[:digit:]_]", &["7", "_"], &["a", ":"]),
            ("[[:x]", &["[", ":", "x"], &["]"]),
            ("[\\]]", &["]"], &["\\"]),
            ("\\*", &["*"], &["a", "\\*"]),
            ("*.tar.*", &["a.tar.gz", ".tar."], &["a.tar", "tar.gz"]),
        ] {
            for path in yes {
                assert!(matches(pattern, path), "{pattern} should match {path}");
            }
            for path in no {
                assert!(!matches(pattern, path), "{pattern} should not match {path}");
            }
        }
    }

    #[test]
    fn patterns_that_cannot_match_say_why() {
        for (pattern, why) in [
            ("a[b", PatternFault::UnclosedBracket),
            ("[", PatternFault::UnclosedBracket),
            ("[]", PatternFault::UnclosedBracket),
            ("[!]", PatternFault::UnclosedBracket),
            ("[a\\", PatternFault::UnclosedBracket),
            ("[[:nope:]]", PatternFault::UnknownClass),
            ("a\\", PatternFault::TrailingBackslash),
            ("a//b", PatternFault::EmptyComponent),
            ("a/**//b", PatternFault::EmptyComponent),
            ("", PatternFault::EmptyComponent),
        ] {
            assert_eq!(Pattern::new(pattern.as_bytes()), Err(why), "{pattern}");
        }
        assert_eq!(Pattern::new(&[b'a'; 5000]), Err(PatternFault::TooLong));
        assert_eq!(
            Pattern::new("a/b".repeat(70).as_bytes()),
            Err(PatternFault::TooLong)
        );
    }

    #[test]
    fn a_hostile_pattern_does_not_explode() {
        let stars = "*a".repeat(2000);
        let name = "a".repeat(254) + "b";
        assert!(!matches(&stars, &name));
        let deep = "**/".repeat(60) + "x";
        let path = "y/".repeat(2000) + "z";
        assert!(!matches(&deep, &path));
    }
}
