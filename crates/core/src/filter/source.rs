//! Sources: one ignore file, pack or list of rules, parsed.
//!
//! Parsing never fails. A line that can never match is left out and reported, as Git leaves it without
//! effect. Lines keep their numbers, so that every verdict can name the line that caused it.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::glob::{ByteSet, Glob, Pattern, PatternFault};
use crate::limits;
use crate::path::{RelPath, escape};

/// What kind of source a rule comes from; a later kind overrides an earlier one at any depth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// A pack that comes with instep.
    Pack,
    /// The master list of the configuration.
    Config,
    /// A `.gitignore` in the tree, where the share asks for them.
    GitIgnore,
    /// An `.instepignore` in the tree.
    InstepIgnore,
    /// What instep needs for itself. Cannot be overridden.
    BuiltIn,
}

/// The text of a source, not yet parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSource {
    /// What reports call it: `packs/os-litter`, `config`, `a/b/.gitignore`.
    pub name: String,
    /// Which sources it overrides.
    pub layer: Layer,
    /// The directory below which it rules, and to which its patterns with a slash are relative.
    pub base: RelPath,
    /// Rules in the syntax of `gitignore`, one on each line.
    pub text: Vec<u8>,
}

/// Why a line, or the rest of a source, is without effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleFault {
    /// The pattern can never match.
    Pattern(PatternFault),
    /// The pattern is cut at its NUL byte.
    Nul,
    /// The source is larger than a source may be; this line and what follows is not read.
    SourceTooLong,
}

impl fmt::Display for RuleFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pattern(fault) => write!(f, "never matches: {fault}"),
            Self::Nul => f.write_str("cut at a NUL byte"),
            Self::SourceTooLong => f.write_str("not read: too many rules in one source"),
        }
    }
}

/// A line that does not do what its author may think.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleProblem {
    /// The name of the source.
    pub source: String,
    /// The line, from 1.
    pub line: u32,
    /// What is wrong with it.
    pub why: RuleFault,
}

impl fmt::Display for RuleProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(self.source.as_bytes(), f)?;
        write!(f, ":{}: {}", self.line, self.why)
    }
}

/// A parsed source. Cheap to clone, so a walker can keep it from one scan to the next.
#[derive(Clone)]
pub struct Source(Arc<Parsed>);

struct Parsed {
    name: String,
    layer: Layer,
    base: RelPath,
    rules: Vec<Rule>,
    /// Indices of the rules without a slash, last first: they apply to a name at any depth.
    floating: Vec<u32>,
    /// Indices of the rules with a slash, last first: they apply to a path below the base.
    anchored: Vec<u32>,
    wanted: Wanted,
}

pub(super) struct Rule {
    line: u32,
    text: Box<[u8]>,
    negated: bool,
    directories_only: bool,
    matcher: Matcher,
}

enum Matcher {
    Name(Glob),
    Path(Pattern),
}

/// Which names a floating rule could match, judged by one byte at either end. Most names are settled by it.
#[derive(Default)]
struct Wanted {
    first: ByteSet,
    last: ByteSet,
    any: bool,
}

impl Wanted {
    fn add(&mut self, glob: &Glob) {
        if let Some(bytes) = glob.first_bytes() {
            self.first.add(&bytes);
        } else if let Some(bytes) = glob.last_bytes() {
            self.last.add(&bytes);
        } else {
            self.any = true;
        }
    }

    fn admits(&self, name: &[u8]) -> bool {
        self.any
            || name.first().is_some_and(|b| self.first.has(*b))
            || name.last().is_some_and(|b| self.last.has(*b))
    }
}

impl RuleSource {
    /// Parses the text. The problems are for the user; the source is usable whatever they are.
    pub fn compile(self) -> (Source, Vec<RuleProblem>) {
        let mut rules = Vec::new();
        let mut problems = Vec::new();
        let mut report = |line, why| {
            problems.push(RuleProblem {
                source: self.name.clone(),
                line,
                why,
            });
        };
        let text = self
            .text
            .strip_prefix(b"\xef\xbb\xbf")
            .unwrap_or(&self.text);
        let mut read = 0;
        for (line, bytes) in (1..).zip(text.split(|b| *b == b'\n')) {
            read += bytes.len() + 1;
            if read > limits::RULE_SOURCE_BYTES_MAX + 1 {
                report(line, RuleFault::SourceTooLong);
                break;
            }
            let Some(text) = rule_text(bytes) else {
                continue;
            };
            if bytes.contains(&0) {
                report(line, RuleFault::Nul);
            }
            match Rule::new(line, text) {
                Ok(rule) => rules.push(rule),
                Err(fault) => report(line, RuleFault::Pattern(fault)),
            }
        }
        (
            Source::new(self.name, self.layer, self.base, rules),
            problems,
        )
    }
}

/// The rule in a line, or nothing where it is blank or a comment.
fn rule_text(line: &[u8]) -> Option<&[u8]> {
    if line.first() == Some(&b'#') {
        return None;
    }
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let line = line.split(|b| *b == 0).next().unwrap_or(line);
    let line = trim_spaces(line);
    (!line.is_empty()).then_some(line)
}

/// Removes the spaces at the end, up to the last one that is escaped. Tabs stay.
fn trim_spaces(line: &[u8]) -> &[u8] {
    let mut end = 0;
    let mut at = 0;
    while let Some(byte) = line.get(at) {
        at += 1;
        if *byte == b'\\' {
            at = line.len().min(at + 1);
        }
        if *byte != b' ' {
            end = at;
        }
    }
    &line[..end]
}

impl Rule {
    fn new(line: u32, text: &[u8]) -> Result<Self, PatternFault> {
        let (negated, pattern) = text.strip_prefix(b"!").map_or((false, text), |p| (true, p));
        let (directories_only, pattern) = pattern
            .strip_suffix(b"/")
            .map_or((false, pattern), |p| (true, p));
        let matcher = if pattern.contains(&b'/') {
            Matcher::Path(Pattern::new(pattern.strip_prefix(b"/").unwrap_or(pattern))?)
        } else {
            let glob = Pattern::new(pattern)?
                .into_glob()
                .ok_or(PatternFault::EmptyComponent)?;
            Matcher::Name(glob)
        };
        Ok(Self {
            line,
            text: text.into(),
            negated,
            directories_only,
            matcher,
        })
    }
}

impl Source {
    fn new(name: String, layer: Layer, base: RelPath, rules: Vec<Rule>) -> Self {
        let mut wanted = Wanted::default();
        let (mut floating, mut anchored) = (Vec::new(), Vec::new());
        for (index, rule) in rules.iter().enumerate().rev() {
            let index = index as u32;
            match &rule.matcher {
                Matcher::Name(glob) => {
                    wanted.add(glob);
                    floating.push(index);
                }
                Matcher::Path(_) => anchored.push(index),
            }
        }
        Self(Arc::new(Parsed {
            name,
            layer,
            base,
            rules,
            floating,
            anchored,
            wanted,
        }))
    }

    /// What reports call it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Which sources it overrides.
    pub fn layer(&self) -> Layer {
        self.0.layer
    }

    /// The directory below which it rules.
    pub fn base(&self) -> &RelPath {
        &self.0.base
    }

    /// Whether it has no rule that could match anything.
    pub fn is_empty(&self) -> bool {
        self.0.rules.is_empty()
    }

    pub(super) fn has_floating(&self) -> bool {
        !self.0.floating.is_empty()
    }

    /// The rules with a slash, last first.
    pub(super) fn anchored(&self) -> impl Iterator<Item = (u32, &Pattern)> {
        self.0
            .anchored
            .iter()
            .filter_map(|i| Some((*i, self.pattern(*i)?)))
    }

    /// The pattern of a rule with a slash.
    pub(super) fn pattern(&self, rule: u32) -> Option<&Pattern> {
        match &self.0.rules.get(rule as usize)?.matcher {
            Matcher::Path(pattern) => Some(pattern),
            Matcher::Name(_) => None,
        }
    }

    /// The last rule without a slash that matches the name.
    pub(super) fn last_floating(&self, name: &[u8], is_dir: bool) -> Option<u32> {
        if !self.0.wanted.admits(name) {
            return None;
        }
        self.0.floating.iter().copied().find(|i| {
            let rule = &self.0.rules[*i as usize];
            rule.applies(is_dir) && matches!(&rule.matcher, Matcher::Name(g) if g.matches(name))
        })
    }

    /// Whether a rule can apply to this kind of entry at all.
    pub(super) fn applies(&self, rule: u32, is_dir: bool) -> bool {
        self.0.rules[rule as usize].applies(is_dir)
    }

    pub(super) fn id(&self, rule: u32) -> RuleId {
        RuleId {
            source: self.clone(),
            rule,
        }
    }

    /// Appends what the source means, without comments, blank lines and rules that cannot match.
    pub(super) fn digest_into(&self, out: &mut Vec<u8>) {
        let part = |out: &mut Vec<u8>, bytes: &[u8]| {
            out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            out.extend_from_slice(bytes);
        };
        out.push(self.0.layer as u8);
        part(out, self.0.base.as_bytes());
        out.extend_from_slice(&(self.0.rules.len() as u64).to_le_bytes());
        for rule in &self.0.rules {
            part(out, &rule.text);
        }
    }
}

impl Rule {
    fn applies(&self, is_dir: bool) -> bool {
        is_dir || !self.directories_only
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} rules)", self.0.name, self.0.rules.len())
    }
}

/// Names one rule: its source and its line.
#[derive(Clone)]
pub struct RuleId {
    source: Source,
    rule: u32,
}

impl RuleId {
    fn rule(&self) -> &Rule {
        &self.source.0.rules[self.rule as usize]
    }

    /// The name of the source.
    pub fn source(&self) -> &str {
        self.source.name()
    }

    /// The kind of the source.
    pub fn layer(&self) -> Layer {
        self.source.layer()
    }

    /// The line in the source, from 1.
    pub fn line(&self) -> u32 {
        self.rule().line
    }

    /// The rule as it is written, without spaces at its end.
    pub fn pattern(&self) -> &[u8] {
        &self.rule().text
    }

    /// Whether the rule takes entries back (`!`) instead of ignoring them.
    pub fn is_negated(&self) -> bool {
        self.rule().negated
    }
}

impl PartialEq for RuleId {
    fn eq(&self, other: &Self) -> bool {
        (self.source(), self.line(), self.pattern())
            == (other.source(), other.line(), other.pattern())
    }
}

impl Eq for RuleId {}

/// `source:line pattern`, escaped for a terminal.
impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(self.source().as_bytes(), f)?;
        write!(f, ":{} ", self.line())?;
        escape(self.pattern(), f)
    }
}

impl fmt::Debug for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn spaces_at_the_end_go_unless_escaped() {
        for (line, text) in [
            (&b"a  "[..], Some(&b"a"[..])),
            (b"a\\ ", Some(b"a\\ ")),
            (b"a\\  ", Some(b"a\\ ")),
            (b"a\\\\ ", Some(b"a\\\\")),
            (b"a\t", Some(b"a\t")),
            (b"a\r", Some(b"a")),
            (b"a\r\r", Some(b"a\r")),
            (b"a \r", Some(b"a")),
            (b"   ", None),
            (b"", None),
            (b"\r", None),
            (b"# a", None),
            (b"\\# a", Some(b"\\# a")),
            (b" # a", Some(b" # a")),
        ] {
            assert_eq!(rule_text(line), text, "{line:?}");
        }
    }

    fn compile(text: &[u8]) -> (Source, Vec<RuleProblem>) {
        let base = RelPath::root();
        RuleSource {
            name: "list".into(),
            layer: Layer::Config,
            base,
            text: text.into(),
        }
        .compile()
    }

    #[test]
    fn bad_lines_are_reported_with_their_number_and_the_rest_is_kept() {
        let (source, problems) = compile(b"\xef\xbb\xbfa[\n\n# x\nb\n/\n!\nc\\\nd\0e");
        let shown: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "list:1: never matches: bracket is never closed",
                "list:5: never matches: empty name in the pattern",
                "list:6: never matches: empty name in the pattern",
                "list:7: never matches: backslash at the end",
                "list:8: cut at a NUL byte",
            ]
        );
        assert_eq!(source.last_floating(b"b", false), Some(0));
        assert_eq!(source.id(0).to_string(), "list:4 b");
        assert_eq!(source.last_floating(b"d", false), Some(1));
    }

    #[test]
    fn an_endless_source_is_cut_and_the_cut_is_reported() {
        let text = "name\n".repeat(limits::RULE_SOURCE_BYTES_MAX / 5 + 10);
        let (source, problems) = compile(text.as_bytes());
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].why, RuleFault::SourceTooLong);
        assert_eq!(source.0.rules.len() as u32, problems[0].line - 1);
        let exact = vec![b'a'; limits::RULE_SOURCE_BYTES_MAX];
        assert_ne!(compile(&exact).1[0].why, RuleFault::SourceTooLong);
    }
}
