//! Snapshots: what a program printed, compared with a file that people review.
//!
//! Whatever differs between two runs is replaced first by [`Filters`]: times, durations, rates, identities, and the
//! places that a test names. `UPDATE_SNAPSHOTS=1` writes the files anew; the difference is then for the
//! reviewer of the change.

use std::fs;
use std::path::Path;

/// Replaces what differs from run to run.
#[derive(Debug, Clone, Default)]
pub struct Filters {
    literal: Vec<(String, String)>,
}

impl Filters {
    /// Replaces nothing but times, durations, rates and identities.
    pub fn new() -> Self {
        Self::default()
    }

    /// Also replaces this text, before anything else; longer texts first, whatever the order of the calls.
    pub fn replace(mut self, text: &str, with: &str) -> Self {
        self.literal.push((text.to_owned(), with.to_owned()));
        self.literal
            .sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        self
    }

    /// The text as it goes into a snapshot.
    pub fn apply(&self, text: &str) -> String {
        let text = self
            .literal
            .iter()
            .fold(text.to_owned(), |t, (from, to)| t.replace(from, to));
        let mut out = String::with_capacity(text.len());
        let mut rest = &text[..];
        let mut before = None;
        while let Some(c) = rest.chars().next() {
            let inside =
                before.is_some_and(|b: char| b.is_ascii_alphanumeric() || b == '_' || b == '.');
            let (len, with) = match variable(rest) {
                Some(found) if !inside => found,
                _ => (c.len_utf8(), &rest[..c.len_utf8()]),
            };
            out.push_str(with);
            before = rest[..len].chars().next_back();
            rest = &rest[len..];
        }
        out
    }
}

/// What varies at the beginning of the text: its length and what stands for it.
fn variable(text: &str) -> Option<(usize, &'static str)> {
    let word = text
        .find(|c: char| !c.is_ascii_alphanumeric())
        .unwrap_or(text.len());
    if word >= 12
        && text[..word]
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    {
        return Some((word, "[ID]"));
    }
    if let Some(len) = shape(text, "0000-00-00") {
        return Some((len, "[DATE]"));
    }
    if let Some(mut len) = shape(text, "00:00:00") {
        len += fraction(&text[len..]);
        return ends_word(&text[len..]).then_some((len, "[TIME]"));
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 {
        return None;
    }
    let number = digits + fraction(&text[digits..]);
    let space = usize::from(text[number..].starts_with(' '));
    let after = &text[number + space..];
    let unit = |units: &[&str]| {
        let fits = |u: &&&str| after.strip_prefix(**u).is_some_and(ends_word);
        units.iter().find(fits).map(|u| number + space + u.len())
    };
    if let Some(len) = unit(&["B/s", "KiB/s", "MiB/s", "GiB/s"]) {
        return Some((len, "[RATE]"));
    }
    Some((unit(&["ns", "\u{b5}s", "us", "ms", "s"])?, "[DURATION]"))
}

/// The length of a text in which every `0` of the shape is a digit and all else is as in the shape.
fn shape(text: &str, shape: &str) -> Option<usize> {
    let start = text.as_bytes().get(..shape.len())?;
    let fits = |(b, s): (&u8, u8)| {
        if s == b'0' {
            b.is_ascii_digit()
        } else {
            *b == s
        }
    };
    let whole = start.iter().zip(shape.bytes()).all(fits);
    let next = text.as_bytes().get(shape.len());
    (whole && !next.is_some_and(u8::is_ascii_digit)).then_some(shape.len())
}

/// The length of a decimal fraction with its point.
fn fraction(text: &str) -> usize {
    let digits = text.bytes().skip(1).take_while(u8::is_ascii_digit).count();
    if text.starts_with('.') && digits > 0 {
        digits + 1
    } else {
        0
    }
}

fn ends_word(rest: &str) -> bool {
    // A `Z` is the zone of a time.
    let rest = rest.strip_prefix('Z').unwrap_or(rest);
    !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '/')
}

/// Compares text with the file `name.txt` in `folder`. Panics with the lines that differ.
#[track_caller]
pub fn assert_snapshot(folder: &Path, name: &str, text: &str) {
    let update = std::env::var_os("UPDATE_SNAPSHOTS").is_some_and(|v| v == "1");
    if let Err(report) = check(folder, name, text, update) {
        panic!("{report}");
    }
}

fn check(folder: &Path, name: &str, text: &str, update: bool) -> Result<(), String> {
    let path = folder.join(format!("{name}.txt"));
    let told = match fs::read_to_string(&path) {
        Ok(expected) if expected == text => return Ok(()),
        Ok(expected) => difference(&expected, text),
        Err(e) => format!("cannot be read: {e}\n{text}"),
    };
    if update {
        let write = || {
            fs::create_dir_all(folder)?;
            fs::write(&path, text)
        };
        return write().map_err(|e| format!("cannot write {}: {e}", path.display()));
    }
    Err(format!(
        "{}: {told}\nUPDATE_SNAPSHOTS=1 accepts the new text",
        path.display()
    ))
}

/// The lines between the common beginning and the common end, removed ones with `-`, new ones with `+`.
fn difference(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.split('\n').collect(), new.split('\n').collect());
    let start = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[start..], &new[start..]);
    let end = old
        .iter()
        .rev()
        .zip(new.iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    let mut out = format!("differs from line {}", start + 1);
    for (sign, lines) in [
        ('-', &old[..old.len() - end]),
        ('+', &new[..new.len() - end]),
    ] {
        for line in lines {
            out.extend(['\n', sign]);
            out.push_str(line);
        }
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn what_varies_is_replaced_and_nothing_else() {
        let filters = Filters::new()
            .replace("/tmp/x", "[DIR]")
            .replace("/tmp/x/home", "[HOME]");
        for (text, expected) in [
            (
                "14:02:11  A -> B   12.4 KiB   41 ms",
                "[TIME]  A -> B   12.4 KiB   [DURATION]",
            ),
            ("2026-03-01 22:10:07.25", "[DATE] [TIME]"),
            ("2026-03-01T22:10:07Z", "[DATE]T22:10:07Z"),
            ("at /tmp/x/home/a in /tmp/x", "at [HOME]/a in [DIR]"),
            (
                "replica 0123456789abcdef, code E1203",
                "replica [ID], code E1203",
            ),
            (
                "1.5s, 12ms, 3 s. 812 MiB at 38.1 MiB/s",
                "[DURATION], [DURATION], [DURATION]. 812 MiB at [RATE]",
            ),
            (
                "30 days, 2 symlinks, 214 files, v1.2.3",
                "30 days, 2 symlinks, 214 files, v1.2.3",
            ),
            ("facade deadbeef", "facade deadbeef"),
            (
                "\u{e4}1 ms \u{201e}2 s\u{201c}",
                "\u{e4}[DURATION] \u{201e}[DURATION]\u{201c}",
            ),
        ] {
            assert_eq!(filters.apply(text), expected, "{text}");
        }
    }

    #[test]
    fn a_snapshot_is_written_on_request_and_guards_from_then_on() {
        let scratch = Scratch::new().unwrap();
        let folder = scratch.path().join("snapshots");
        assert!(
            check(&folder, "help", "a\nb\n", false)
                .unwrap_err()
                .contains("UPDATE_SNAPSHOTS=1")
        );
        check(&folder, "help", "a\nb\nc\n", true).unwrap();
        check(&folder, "help", "a\nb\nc\n", false).unwrap();
        let report = check(&folder, "help", "a\nx\nc\n", false).unwrap_err();
        assert!(report.contains("differs from line 2\n-b\n+x\n"), "{report}");
    }
}
