//! Sizes: what is big may stay, and may not grow.
//!
//! `xtask/ratchet.txt` records every file and function past the limit with its size. A new one, or a bigger
//! one, is a finding; `tidy --record` writes the file anew, so that growth is a line in a review.

use std::collections::BTreeMap;

use crate::finding::Finding;
use crate::source::{Source, item_end};

/// Code lines of a file, without tests, comments and blank lines.
const FILE_LINES_MAX: usize = 500;
/// Code lines of a function.
const FUNCTION_LINES_MAX: usize = 60;

/// Sizes past the limit by what they are of: `path` or `path::function`.
pub(crate) type Sizes = BTreeMap<String, usize>;

/// What in this file is past the limit.
pub(crate) fn measure(source: &Source) -> Sizes {
    let mut sizes = Sizes::new();
    let is_code = |line: &str| !line.trim().is_empty();
    let lines = source.shipped().filter(|(_, line)| is_code(line)).count();
    if lines > FILE_LINES_MAX {
        sizes.insert(source.path.clone(), lines);
    }
    for (number, line) in source.shipped() {
        let Some(name) = function_name(line) else {
            continue;
        };
        let last = item_end(&source.code, number - 1);
        let lines = source.code[number - 1..=last]
            .iter()
            .filter(|line| is_code(line))
            .count();
        if lines > FUNCTION_LINES_MAX {
            let size = sizes.entry(format!("{}::{name}", source.path)).or_default();
            *size = lines.max(*size);
        }
    }
    sizes
}

/// The function that is declared on this line.
fn function_name(line: &str) -> Option<&str> {
    let at = line
        .find("fn ")
        .filter(|at| *at == 0 || line[..*at].ends_with([' ', '(']))?;
    let name = line[at + 3..]
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .next()?;
    (!name.is_empty()).then_some(name)
}

/// Compares what is with what was recorded.
pub(crate) fn compare(now: &Sizes, recorded: &Sizes) -> Vec<Finding> {
    let mut found = Vec::new();
    for (what, lines) in now {
        let limit = recorded.get(what).copied().unwrap_or(0);
        if *lines > limit {
            let before = if limit == 0 {
                "was within the limit".into()
            } else {
                format!("was {limit}")
            };
            let text = format!(
                "{lines} code lines, {before}; take a part out, or record it with `cargo xtask tidy --record`"
            );
            found.push(Finding::new(what, 0, text));
        }
    }
    found
}

/// Reads the record.
pub(crate) fn parse(text: &str) -> Sizes {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let (size, what) = line.trim().split_once(' ')?;
            Some((what.to_owned(), size.parse().ok()?))
        })
        .collect()
}

/// Writes the record.
pub(crate) fn render(sizes: &Sizes) -> String {
    let mut text = format!(
        "# Files over {FILE_LINES_MAX} and functions over {FUNCTION_LINES_MAX} code lines: they may shrink, \
         not grow. Written by `cargo xtask tidy --record`.\n"
    );
    for (what, lines) in sizes {
        text.extend([lines.to_string().as_str(), " ", what, "\n"]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(lines: usize) -> Source {
        let text = format!(
            "//! x\npub fn long() {{\n{}}}\n",
            "    a();\n".repeat(lines)
        );
        Source::new("crates/core/src/a.rs", &text, false)
    }

    #[test]
    fn a_long_function_is_measured_with_its_braces() {
        assert!(measure(&function(FUNCTION_LINES_MAX - 2)).is_empty());
        let sizes = measure(&function(FUNCTION_LINES_MAX));
        assert_eq!(sizes["crates/core/src/a.rs::long"], FUNCTION_LINES_MAX + 2);
    }

    #[test]
    fn tests_do_not_count() {
        let body = "    a();\n".repeat(FILE_LINES_MAX * 2);
        let text = format!("//! x\n#[cfg(test)]\nmod tests {{\nfn f() {{\n{body}}}\n}}\n");
        assert!(measure(&Source::new("crates/core/src/a.rs", &text, false)).is_empty());
    }

    #[test]
    fn growth_is_found_and_shrinking_is_not() {
        let recorded = parse("# head\n80 a.rs::f\n600 b.rs\n");
        let now = |lines| Sizes::from([("a.rs::f".to_owned(), lines)]);
        assert!(compare(&now(80), &recorded).is_empty());
        assert!(compare(&now(70), &recorded).is_empty());
        assert_eq!(compare(&now(81), &recorded).len(), 1);
        let new = Sizes::from([("c.rs".to_owned(), 501)]);
        assert_eq!(compare(&new, &recorded).len(), 1);
    }

    #[test]
    fn what_is_recorded_is_read_back() {
        let sizes = Sizes::from([("a.rs".to_owned(), 600), ("a.rs::f".to_owned(), 80)]);
        assert_eq!(parse(&render(&sizes)), sizes);
    }
}
