//! The pages of all codes, compiled in: `docs/errors/E####.md`.
//!
//! Invariant: every code that the program can say has a page, and every page is of a code in this list.

use crate::error::{Exit, Failure};

/// A code and its page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Page {
    /// The number.
    pub(crate) code: u16,
    /// Markdown; the first line is the title.
    pub(crate) text: &'static str,
}

impl Page {
    /// The title without its code.
    pub(crate) fn title(&self) -> &'static str {
        let first = self.text.lines().next().unwrap_or_default();
        first.split_once(": ").map_or(first, |(_, title)| title)
    }

    /// The first paragraph of what to do, on one line.
    pub(crate) fn advice(&self) -> String {
        let (_, below) = self.text.split_once("## What to do").unwrap_or_default();
        let paragraph = below.trim_start().split("\n\n").next().unwrap_or_default();
        paragraph.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

macro_rules! page {
    ($code:literal) => {
        Page {
            code: $code,
            text: include_str!(concat!("../../../docs/errors/E", stringify!($code), ".md")),
        }
    };
}

/// All pages, by code.
pub(crate) const PAGES: &[Page] = &[
    page!(1000),
    page!(1001),
    page!(1002),
    page!(1003),
    page!(1004),
    page!(1005),
    page!(1006),
    page!(1007),
    page!(1008),
    page!(1009),
    page!(1010),
    page!(1011),
    page!(1012),
    page!(1013),
    page!(1014),
    page!(1015),
    page!(1017),
    page!(1018),
    page!(1019),
    page!(1020),
    page!(1022),
    page!(1023),
    page!(1024),
    page!(1025),
    page!(1026),
    page!(1027),
    page!(1029),
    page!(1031),
    page!(1040),
    page!(1041),
    page!(1042),
    page!(1043),
    page!(1044),
    page!(1045),
    page!(1046),
    page!(1047),
    page!(1048),
    page!(1049),
    page!(1050),
    page!(1051),
    page!(1052),
    page!(1053),
    page!(1060),
    page!(1061),
    page!(1062),
    page!(1063),
    page!(1064),
    page!(1065),
    page!(1066),
    page!(1067),
    page!(1068),
    page!(1069),
    page!(1070),
    page!(1071),
    page!(1072),
    page!(1073),
    page!(1074),
    page!(1075),
    page!(1076),
    page!(1077),
    page!(1078),
    page!(1079),
    page!(1900),
    page!(2101),
    page!(2104),
    page!(2107),
    page!(2108),
    page!(2109),
    page!(2110),
    page!(2111),
    page!(2112),
    page!(2113),
    page!(2114),
    page!(2115),
    page!(2116),
    page!(2117),
    page!(2118),
    page!(2119),
    page!(2120),
    page!(2121),
    page!(2201),
    page!(2301),
    page!(2302),
    page!(2303),
    page!(2304),
    page!(2305),
    page!(2401),
    page!(2402),
    page!(2403),
    page!(2404),
    page!(2405),
    page!(2406),
    page!(2407),
    page!(2408),
    page!(2409),
    page!(2410),
    page!(2411),
    page!(2412),
];

/// What can be done about a difficulty of a path.
pub(crate) fn advice(code: instep_core::plan::Code) -> String {
    let page = PAGES.iter().find(|p| p.code == code as u16);
    page.map(Page::advice).unwrap_or_default()
}

/// The page of a code: `E1002`, `e1002`, `1002`.
pub(crate) fn page(code: &str) -> Result<Page, Failure> {
    let digits = code.trim_start_matches(['E', 'e']);
    let number: Option<u16> = digits.parse().ok();
    number
        .and_then(|n| PAGES.iter().find(|p| p.code == n))
        .copied()
        .ok_or_else(|| {
            Failure::new(
                1022,
                Exit::Usage,
                format!("{code} is not a code that instep knows"),
            )
            .why("codes look like E1002")
            .remedy("instep explain")
        })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use instep_core::plan::Code;

    use super::*;

    /// The match makes the compiler ask for a new one, which is then to be listed.
    #[test]
    fn every_code_of_core_is_listed() {
        use Code::{
            Changing, ContentMissing, Contradiction, Damaged, DotReused, Drifted, Husk,
            IgnoreSyntax, Mount, NameClash, NoSpace, NotKept, ReadOnly, RootGone, Special,
            TooManyAttributes, TooManySiblings, Unreadable, UnsafeLink, Unwritable, WatchLimit,
        };
        let mut numbers = BTreeSet::new();
        for code in Code::ALL {
            match code {
                Unreadable | Unwritable | ReadOnly | NoSpace | Changing | Special | UnsafeLink
                | Husk | Mount | NameClash | ContentMissing | TooManySiblings | WatchLimit
                | IgnoreSyntax | NotKept | TooManyAttributes | RootGone | DotReused | Damaged
                | Drifted | Contradiction => numbers.insert(code as u16),
            };
        }
        assert_eq!(numbers.len(), 21);
    }

    /// The codes in `Failure::new(NNNN` and in pairs of code and ending, anywhere in the sources.
    fn codes_in(text: &str) -> BTreeSet<u16> {
        let mut found = BTreeSet::new();
        for (at, _) in text.match_indices("Exit::") {
            let before: String = text[..at]
                .trim_end()
                .trim_end_matches(',')
                .chars()
                .rev()
                .take(4)
                .collect();
            let digits: String = before.chars().rev().collect();
            if let Ok(code) = digits.parse::<u16>() {
                found.insert(code);
            }
        }
        found
    }

    fn sources(dir: &Path, visit: &mut dyn FnMut(&str)) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, visit);
            } else if path.file_name().is_some_and(|n| n != "error.rs") {
                visit(&std::fs::read_to_string(&path).unwrap());
            }
        }
    }

    #[test]
    fn every_code_that_is_used_has_a_page() {
        let known: BTreeSet<u16> = PAGES.iter().map(|p| p.code).collect();
        assert_eq!(known.len(), PAGES.len(), "a code is listed twice");
        for code in Code::ALL {
            assert!(known.contains(&(code as u16)), "{code:?}");
        }
        let mut used = BTreeSet::new();
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        sources(&src, &mut |text| used.extend(codes_in(text)));
        assert!(used.len() > 5, "the search for codes finds none: {used:?}");
        assert!(
            used.is_subset(&known),
            "without a page: {:?}",
            used.difference(&known)
        );
    }

    #[test]
    fn every_page_is_of_a_code() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors");
        let mut files = 0;
        for entry in std::fs::read_dir(dir).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let page = page(name.trim_end_matches(".md")).unwrap();
            assert!(
                page.text.starts_with(&format!("# E{}: ", page.code)),
                "{name}"
            );
            assert!(page.text.contains("\n## What to do\n"), "{name}");
            files += 1;
        }
        assert_eq!(files, PAGES.len());
    }

    #[test]
    fn codes_are_found_however_they_are_written() {
        assert_eq!(page("e1002").unwrap().code, 1002);
        assert_eq!(
            page("1002").unwrap().title(),
            "one folder is inside another"
        );
        assert_eq!(page("E9").unwrap_err().code, 1022);
        assert_eq!(page("zebra").unwrap_err().exit, Exit::Usage);
    }
}
