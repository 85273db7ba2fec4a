//! Every promise, incident and fault has a test, and every test that a document names exists.
//!
//! Reads the tables of `docs/testing.md` whose first column is an id. Invariant: an id that has no row, a row without a
//! test or a reason, and a name that no test has are findings.

use std::collections::{BTreeMap, BTreeSet};

use crate::finding::Finding;
use crate::source::Source;

/// The document.
pub(crate) const DOCUMENT: &str = "docs/testing.md";
/// The list of tests that may be left out where a machine lacks something.
pub(crate) const SKIPS: &str = "crates/testkit/skips.txt";
/// Begins a cell that says why there is no test.
const REASON: &str = "does not apply:";
/// Letters bare of meaning make no reason.
const REASON_CHARS_MIN: usize = 30;
/// Each family of ids: its letter, and the first and last number of each range.
const FAMILIES: &[(char, &[(u32, u32)])] = &[
    ('I', &[(1, 18)]),
    ('L', &[(1, 20)]),
    ('F', &[(1, 49), (57, 62)]),
];

/// The names of all tests and of the promises that suites hold others to.
pub(crate) fn tests(sources: &[Source], scripts: &[String]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for source in sources {
        let suite = source.path.contains("/conformance/") || source.path.starts_with("crates/sim/");
        for (line, test) in source.code.iter().zip(&source.test) {
            if suite || *test {
                names.extend(named(line, "fn "));
            }
        }
    }
    let lines = scripts.iter().flat_map(|text| text.lines());
    names.extend(lines.filter_map(|line| named(line, "def ")));
    names
}

fn named(line: &str, keyword: &str) -> Option<String> {
    let (before, after) = line.split_once(keyword)?;
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if before.ends_with(is_word) {
        return None;
    }
    let name: String = after.chars().take_while(|c| is_word(*c)).collect();
    (!name.is_empty()).then_some(name)
}

/// Checks the document, and the list of skips, against the names of tests.
pub(crate) fn check(text: &str, tests: &BTreeSet<String>, skips: &str) -> Vec<Finding> {
    let mut found: Vec<Finding> = unknown_skips(skips, tests).collect();
    let mut rows: BTreeMap<(char, u32), usize> = BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        let Some((id, cells)) = row(line) else {
            continue;
        };
        let mut say = |what: String| found.push(Finding::new(DOCUMENT, at + 1, what));
        if let Some(first) = rows.insert(id, at + 1) {
            say(format!(
                "{}{} has a row in line {first} already",
                id.0, id.1
            ));
        }
        let names = names_in(cells);
        let reason = cells.split_once(REASON).map(|(_, why)| why.trim().len());
        match reason {
            Some(length) if length < REASON_CHARS_MIN => {
                say(format!("{}{}: say why it does not apply", id.0, id.1));
            }
            None if names.is_empty() => {
                say(format!(
                    "{}{}: name a test, or say \"{REASON} ...\"",
                    id.0, id.1
                ));
            }
            _ => {}
        }
        for name in names.iter().filter(|name| !tests.contains(**name)) {
            say(format!("`{name}` is no test: mend the name"));
        }
    }
    for id in required().filter(|id| !rows.contains_key(id)) {
        found.push(Finding::new(
            DOCUMENT,
            1,
            format!("{}{} has no row", id.0, id.1),
        ));
    }
    found
}

/// Lines of the list that name no test.
fn unknown_skips(skips: &str, tests: &BTreeSet<String>) -> impl Iterator<Item = Finding> {
    let lines = skips.lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.starts_with('#') && !line.trim().is_empty());
    lines.filter_map(|(at, line)| {
        let test = line.split_whitespace().next()?;
        let name = test.rsplit("::").next()?;
        let text = || format!("`{test}` is no test: mend the name");
        (!tests.contains(name)).then(|| Finding::new(SKIPS, at + 1, text()))
    })
}

fn required() -> impl Iterator<Item = (char, u32)> {
    FAMILIES.iter().flat_map(|(letter, ranges)| {
        let numbers = ranges.iter().flat_map(|(first, last)| *first..=*last);
        numbers.map(|number| (*letter, number))
    })
}

/// A row whose first cell is an id, and everything after that cell.
fn row(line: &str) -> Option<((char, u32), &str)> {
    let (id, cells) = line.strip_prefix('|')?.split_once('|')?;
    let id = id.trim().trim_matches('*');
    let letter = id.chars().next()?;
    FAMILIES.iter().find(|(known, _)| *known == letter)?;
    let number = id.get(1..)?.parse().ok()?;
    Some(((letter, number), cells))
}

/// Words in backquotes that are written like the names of tests.
fn names_in(cells: &str) -> Vec<&str> {
    let words = cells.split('`').skip(1).step_by(2);
    let is_name = |word: &&str| {
        word.contains('_')
            && word
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    words.filter(is_name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(change: impl Fn((char, u32), &str) -> String) -> String {
        let rows =
            required().map(|id| change(id, &format!("| {}{} | text | `a_test` |", id.0, id.1)));
        rows.collect::<Vec<_>>().join("\n")
    }

    fn messages(text: &str) -> Vec<String> {
        let tests = BTreeSet::from(["a_test".to_owned()]);
        let found = check(text, &tests, "# head\nx::a_test loop\n");
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_table_with_a_test_for_each_id_is_right() {
        assert_eq!(
            messages(&whole(|_, row| row.to_owned())),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_missing_row_a_missing_test_and_a_wrong_name_are_found() {
        let is = |id, letter, number| id == (letter, number);
        let text = whole(|id, row| match id {
            _ if is(id, 'L', 3) => String::new(),
            _ if is(id, 'F', 7) => "| F7 | text | |".to_owned(),
            _ if is(id, 'I', 2) => row.replace("a_test", "no_such_test"),
            _ if is(id, 'F', 8) => "| F8 | text | does not apply: no. |".to_owned(),
            _ => row.to_owned(),
        });
        let found = messages(&text).join("\n");
        for part in [
            "L3 has no row",
            "F7: name a test",
            "`no_such_test`",
            "F8: say why",
        ] {
            assert!(found.contains(part), "{part} is not in {found}");
        }
    }

    #[test]
    fn a_skip_of_no_test_is_found() {
        let tests = BTreeSet::from(["a_test".to_owned()]);
        let found: Vec<Finding> = unknown_skips("x::gone loop\nx::a_test loop\n", &tests).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].line, 1);
    }

    #[test]
    fn a_function_that_is_no_test_does_not_count() {
        let source = Source::new("crates/x/src/lib.rs", "fn product_code() {}\n", false);
        let test = Source::new("crates/x/tests/a.rs", "fn a_test() {}\n", true);
        let scripts = ["def a_scenario(work):\n".to_owned()];
        let names = tests(&[source, test], &scripts);
        assert_eq!(
            names,
            BTreeSet::from(["a_test".to_owned(), "a_scenario".to_owned()])
        );
    }
}
