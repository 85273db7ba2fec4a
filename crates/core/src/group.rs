//! Paths that belong together, judged by their names alone: a SQLite database and what is beside it, and
//! what is in a `.git`. Never looks at a disk.

use alloc::vec::Vec;

use crate::path::{Name, RelPath};

/// What is beside a database while it is changed.
const COMPANIONS: [&[u8]; 2] = [b"-wal", b"-journal"];

/// The path without a suffix of its name, if it has one of these.
pub fn without_suffix(path: &RelPath, suffixes: &[&[u8]]) -> Option<RelPath> {
    let (parent, name) = path.split()?;
    let stem = suffixes
        .iter()
        .find_map(|s| name.as_bytes().strip_suffix(*s))?;
    Some(parent.join(Name::new(stem).ok()?))
}

/// The database that a path would be a companion of.
pub fn database(path: &RelPath) -> Option<RelPath> {
    without_suffix(path, &COMPANIONS)
}

/// What would be beside a database.
pub fn companions(database: &RelPath) -> impl Iterator<Item = RelPath> {
    COMPANIONS.iter().filter_map(|suffix| {
        let (parent, name) = database.split()?;
        let name = [name.as_bytes(), suffix].concat();
        Some(parent.join(Name::new(&name).ok()?))
    })
}

/// A database with everything that would be beside it.
pub fn members(database: &RelPath) -> Vec<RelPath> {
    core::iter::once(database.clone())
        .chain(companions(database))
        .collect()
}

/// The `.git` that a path is inside of; the outermost, where there are several.
pub fn git_dir(path: &RelPath) -> Option<RelPath> {
    let mut at = RelPath::root();
    for name in path.components() {
        if at.name().is_some_and(|n| n.as_bytes() == b".git") {
            return Some(at);
        }
        at = at.join(name);
    }
    None
}

/// Whether a path is in the object store of a `.git`: nothing there ever changes, and nobody looks for it
/// before something else names it.
pub fn is_git_object(git: &RelPath, path: &RelPath) -> bool {
    let inside = path.rebase(git, &RelPath::root());
    inside.is_some_and(|p| {
        p.components()
            .next()
            .is_some_and(|n| n.as_bytes() == b"objects")
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;

    fn p(path: &str) -> RelPath {
        RelPath::new(path.as_bytes()).unwrap()
    }

    #[test]
    fn a_path_knows_what_it_belongs_to() {
        assert_eq!(database(&p("a/x.db-wal")), Some(p("a/x.db")));
        assert_eq!(database(&p("a/x.db-journal")), Some(p("a/x.db")));
        assert_eq!(database(&p("a/x.db")), None);
        assert_eq!(database(&p("-wal")), None);
        assert_eq!(
            members(&p("d/x")),
            [p("d/x"), p("d/x-wal"), p("d/x-journal")]
        );
        assert_eq!(git_dir(&p("r/.git/refs/x")), Some(p("r/.git")));
        assert_eq!(git_dir(&p("r/.git")), None);
        assert_eq!(git_dir(&p("r/x.git/y")), None);
        assert!(is_git_object(&p("r/.git"), &p("r/.git/objects/00/x")));
        assert!(!is_git_object(&p("r/.git"), &p("r/.git/HEAD")));
    }
}
