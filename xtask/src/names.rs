//! What files are called, and how they begin.

use crate::finding::Finding;
use crate::source::Source;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 8] = [
    "util", "utils", "misc", "common", "helper", "helpers", "manager", "managers",
];

/// Crates whose head does not forbid unsafe code: the one that owns it, the one with a table of functions for the
/// database library, and the one that counts allocations.
const UNSAFE_CRATES: [&str; 3] = ["fs", "vfs", "fuzz"];

/// Checks one file's name and head.
pub(crate) fn check(source: &Source) -> Vec<Finding> {
    let mut found = Vec::new();
    let parts = source.path.trim_end_matches(".rs").split('/');
    for part in parts {
        if EMPTY_NAMES.contains(&part) {
            let text = format!("`{part}` says nothing: name the file after what it owns");
            found.push(Finding::new(&source.path, 0, text));
        }
    }
    if !source.text.starts_with("//!") {
        let text =
            "starts without `//!`: say what it owns, the invariant it keeps, what it never does";
        found.push(Finding::new(&source.path, 1, text));
    }
    let head = source.path.ends_with("src/lib.rs") || source.path.ends_with("src/main.rs");
    if head
        && !UNSAFE_CRATES.contains(&source.package())
        && !source.text.contains("#![forbid(unsafe_code)]")
    {
        let text = "a crate's head has `#![forbid(unsafe_code)]`";
        found.push(Finding::new(&source.path, 0, text));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(path: &str, text: &str) -> usize {
        check(&Source::new(path, text, false)).len()
    }

    #[test]
    fn every_file_says_what_it_is_for() {
        assert_eq!(count("crates/core/src/a.rs", "//! Paths."), 0);
        assert_eq!(count("crates/core/src/a.rs", "use x;"), 1);
    }

    #[test]
    fn empty_names_are_refused_for_files_and_folders() {
        assert_eq!(count("crates/core/src/util.rs", "//! x"), 1);
        assert_eq!(count("crates/core/src/helpers/a.rs", "//! x"), 1);
        assert_eq!(count("crates/core/src/utility_bills.rs", "//! x"), 0);
    }

    #[test]
    fn heads_forbid_unsafe_code() {
        assert_eq!(count("crates/core/src/lib.rs", "//! x"), 1);
        assert_eq!(
            count("crates/core/src/lib.rs", "//! x\n#![forbid(unsafe_code)]"),
            0
        );
        assert_eq!(count("crates/fs/src/lib.rs", "//! x"), 0);
    }
}
