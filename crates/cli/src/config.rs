//! The user's configuration: one TOML file, read once at the start of a command.
//!
//! Invariant: a key that is not known is an error with its line and column, never silently without effect.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Exit, Failure};
use crate::places;

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The format of the file; 1.
    pub(crate) version: Option<u32>,
    /// Settings of every share.
    pub(crate) defaults: Defaults,
}

/// Settings of every share.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Defaults {
    /// What happens to what is displaced.
    pub(crate) trash: Trash,
    /// Rules that apply in every folder, in gitignore syntax; `@name` is a rule pack.
    pub(crate) ignore: Option<Vec<String>>,
    /// How symbolic links are treated.
    pub(crate) symlinks: Symlinks,
    /// Which metadata is kept.
    pub(crate) metadata: Metadata,
}

/// What happens to what is displaced.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Trash {
    /// For how long it is kept.
    pub(crate) days: u32,
}

impl Default for Trash {
    fn default() -> Self {
        Self { days: 30 }
    }
}

/// How symbolic links are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Symlinks {
    /// As links, where they stay inside the folder.
    #[default]
    Safe,
}

/// Which metadata is kept besides mode and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Metadata {
    /// Owner and group.
    pub(crate) owner: bool,
    /// Extended attributes.
    pub(crate) xattr: bool,
}

/// Every key, for suggestions.
const KEYS: [&str; 9] = [
    "version", "defaults", "trash", "days", "ignore", "symlinks", "metadata", "owner", "xattr",
];

/// When a file was changed, how long it is and which one it is; nothing when it is not there.
pub(crate) type Stamp = Option<(i64, i64, u64, u64)>;

/// The file that was named, or the user's.
pub(crate) fn file(named: Option<&Path>) -> PathBuf {
    named.map_or_else(places::config_file, Path::to_path_buf)
}

/// What the file looks like now.
pub(crate) fn stamp(named: Option<&Path>) -> Stamp {
    use std::os::unix::fs::MetadataExt as _;
    let m = std::fs::metadata(file(named)).ok()?;
    Some((m.mtime(), m.mtime_nsec(), m.size(), m.ino()))
}

impl Config {
    /// Reads the file that was named, or the user's; without one, the built-in settings.
    pub(crate) fn load(named: Option<&Path>) -> Result<Self, Failure> {
        let file = file(named);
        match std::fs::read_to_string(&file) {
            Ok(text) => Self::parse(&text, &file),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && named.is_none() => {
                Ok(Self::default())
            }
            Err(e) => Err(Failure::new(
                1018,
                Exit::Usage,
                format!("{} cannot be read", file.display()),
            )
            .why(e.to_string())
            .remedy("correct the file, or name another with --config FILE")),
        }
    }

    /// Reads the text of a file.
    pub(crate) fn parse(text: &str, file: &Path) -> Result<Self, Failure> {
        let config: Self = toml::from_str(text).map_err(|e| wrong(&e, text, file))?;
        if let Some(version) = config.version.filter(|v| *v != 1) {
            return Err(Failure::new(
                1017,
                Exit::Usage,
                format!("{}: version {version}", file.display()),
            )
            .why("this instep knows version 1 of the configuration")
            .remedy("use the newer instep, or write version = 1"));
        }
        for name in config.defaults.packs() {
            if instep_core::filter::Pack::by_name(name).is_none() {
                let known: Vec<String> = instep_core::filter::Pack::ALL
                    .iter()
                    .map(|p| format!("@{}", p.name()))
                    .collect();
                let what = format!("{}: there is no rule pack @{name}", file.display());
                return Err(Failure::new(1017, Exit::Usage, what)
                    .why(format!("rule packs are {}", known.join(", ")))
                    .remedy("correct defaults.ignore"));
            }
        }
        Ok(config)
    }
}

impl Defaults {
    /// The names of the rule packs; all that come with instep when no list is given.
    pub(crate) fn packs(&self) -> Vec<&str> {
        match &self.ignore {
            Some(list) => list.iter().filter_map(|l| l.strip_prefix('@')).collect(),
            None => instep_core::filter::Pack::DEFAULT
                .iter()
                .map(|p| p.name())
                .collect(),
        }
    }

    /// The rules of the master list.
    pub(crate) fn master(&self) -> Vec<String> {
        let lines = self.ignore.iter().flatten();
        lines.filter(|l| !l.starts_with('@')).cloned().collect()
    }
}

fn wrong(error: &toml::de::Error, text: &str, file: &Path) -> Failure {
    let (line, column) = error
        .span()
        .map_or((1, 1), |span| position(text, span.start));
    let message = error.message().replace('`', "");
    let what = format!("{}:{line}:{column}: {message}", file.display());
    let is_syntax = !message.contains("unknown field") && !message.contains("invalid");
    let mut out = Failure::new(if is_syntax { 1018 } else { 1017 }, Exit::Usage, what)
        .why("the file is read strictly, so that no setting is silently without effect");
    if let Some(key) = message
        .strip_prefix("unknown field ")
        .and_then(|m| m.split(',').next())
        && let Some(nearest) = nearest(key, &KEYS)
    {
        out = out.remedy(format!("did you mean {nearest}?"));
    }
    out.remedy("correct the file; it is read again by the next command")
}

/// Line and column, from 1, of a byte.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..at.min(text.len())];
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    (line, column)
}

/// The word at the smallest edit distance, if that is small.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|k| (distance(word, k), *k))
        .filter(|(d, k)| *d <= 1 + k.len() / 3)
        .min_by_key(|(d, _)| *d)
        .map(|(_, k)| k)
}

/// Levenshtein distance over characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;
    use crate::snapshot;

    fn parse(text: &str) -> Result<Config, Failure> {
        Config::parse(text, Path::new("config.toml"))
    }

    #[test]
    fn everything_that_can_be_set_is_read() {
        let text = "version = 1\n[defaults]\ntrash.days = 7\nignore = [\"@os-litter\", \"*.iso\"]\n\
                    symlinks = \"safe\"\nmetadata = { owner = true, xattr = true }\n";
        let config = parse(text).unwrap();
        assert_eq!(config.defaults.trash.days, 7);
        assert_eq!(config.defaults.packs(), ["os-litter"]);
        assert_eq!(config.defaults.master(), ["*.iso"]);
        assert!(config.defaults.metadata.owner && config.defaults.metadata.xattr);
        assert_eq!(parse("").unwrap(), Config::default());
        assert_eq!(Config::default().defaults.packs().len(), 2);
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        snapshot::check(
            "error-E1017-key",
            &parse("[defaults]\ntrsh.days = 3\n").unwrap_err().render(),
        );
        snapshot::check(
            "error-E1017-pack",
            &parse("defaults.ignore = [\"@osjunk\"]")
                .unwrap_err()
                .render(),
        );
        snapshot::check(
            "error-E1017-type",
            &parse("defaults.trash.days = \"x\"").unwrap_err().render(),
        );
        snapshot::check(
            "error-E1017-version",
            &parse("version = 2").unwrap_err().render(),
        );
        snapshot::check("error-E1018", &parse("[defaults\n").unwrap_err().render());
    }

    #[test]
    fn a_file_that_was_named_must_exist() {
        let failure = Config::load(Some(Path::new("/nonexistent/instep.toml"))).unwrap_err();
        assert_eq!((failure.code, failure.exit), (1018, Exit::Usage));
    }

    #[test]
    fn suggestions_are_near() {
        assert_eq!(nearest("trsh", &KEYS), Some("trash"));
        assert_eq!(nearest("bandwidth", &KEYS), None);
    }
}
