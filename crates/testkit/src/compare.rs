//! An independent comparison of directories: what instep should have made equal, seen without instep.
//!
//! Names are compared as bytes, contents by reading them. The modification time of a directory is not compared, because
//! whoever writes into it changes it. Instep's own directory at the top is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use crate::tree::{OWN, at};

/// What is compared besides names, kinds, contents and link targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aspects {
    /// Permission bits (`0o777`) of files and directories.
    pub modes: bool,
    /// Modification times of files and links, to the nanosecond.
    pub mtimes: bool,
}

impl Default for Aspects {
    fn default() -> Self {
        Self {
            modes: true,
            mtimes: true,
        }
    }
}

/// One way in which a directory differs from the first one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The path below both; empty for the directories themselves.
    pub path: Vec<u8>,
    /// Which directory, by its position.
    pub root: usize,
    /// What differs, in words.
    pub what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (0 and {}): {}",
            self.path.escape_ascii(),
            self.root,
            self.what
        )
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    File { size: u64 },
    Dir,
    Link(OsString),
    Special(&'static str),
    Unreadable(String),
}

#[derive(Debug, Clone)]
struct Seen {
    kind: Kind,
    mode: u32,
    mtime: (i64, i64),
}

/// Compares every directory with the first, in every aspect.
pub fn compare(roots: &[&Path]) -> Vec<Difference> {
    compare_in(roots, Aspects::default())
}

/// Compares every directory with the first.
pub fn compare_in(roots: &[&Path], aspects: Aspects) -> Vec<Difference> {
    let mut out = Vec::new();
    let listings: Vec<_> = roots.iter().map(|r| list(r)).collect();
    let Some((first, others)) = listings.split_first() else {
        return out;
    };
    for (root, other) in (1..).zip(others) {
        let paths: BTreeSet<&Vec<u8>> = first.keys().chain(other.keys()).collect();
        for path in paths {
            let what = match (first.get(path), other.get(path)) {
                (Some(a), Some(b)) => {
                    let same = || same_content(&at(roots[0], path), &at(roots[root], path));
                    differences(a, b, aspects, same)
                }
                (Some(a), None) => vec![format!("only in 0 ({})", a.kind)],
                (None, Some(b)) => vec![format!("only in {root} ({})", b.kind)],
                (None, None) => Vec::new(),
            };
            out.extend(what.into_iter().map(|what| Difference {
                path: path.clone(),
                root,
                what,
            }));
        }
    }
    out
}

/// Panics with all differences unless the directories are equal in every aspect.
#[track_caller]
pub fn assert_same(roots: &[&Path]) {
    assert_same_in(roots, Aspects::default());
}

/// Panics with all differences unless the directories are equal.
#[track_caller]
pub fn assert_same_in(roots: &[&Path], aspects: Aspects) {
    let found: Vec<String> = compare_in(roots, aspects)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(
        found.is_empty(),
        "directories differ: {roots:?}\n  {}",
        found.join("\n  ")
    );
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { size } => write!(f, "file of {size} bytes"),
            Self::Dir => f.write_str("directory"),
            Self::Link(target) => write!(f, "link to {}", target.as_encoded_bytes().escape_ascii()),
            Self::Special(what) => f.write_str(what),
            Self::Unreadable(why) => write!(f, "unreadable: {why}"),
        }
    }
}

fn differences(
    a: &Seen,
    b: &Seen,
    aspects: Aspects,
    same_content: impl FnOnce() -> io::Result<Option<u64>>,
) -> Vec<String> {
    let unreadable = |s: &Seen| matches!(s.kind, Kind::Unreadable(_));
    if a.kind != b.kind || unreadable(a) || unreadable(b) {
        return vec![format!("{}, {}", a.kind, b.kind)];
    }
    let mut out = Vec::new();
    if matches!(a.kind, Kind::File { .. }) {
        match same_content() {
            Ok(None) => {}
            Ok(Some(offset)) => out.push(format!("contents differ from byte {offset}")),
            Err(e) => out.push(format!("cannot be read: {e}")),
        }
    }
    let link = matches!(a.kind, Kind::Link(_));
    if aspects.modes && !link && a.mode != b.mode {
        out.push(format!("mode {:04o}, {:04o}", a.mode, b.mode));
    }
    if aspects.mtimes && a.kind != Kind::Dir && a.mtime != b.mtime {
        let show = |(secs, nanos)| format!("{secs}.{nanos:09}");
        out.push(format!("modified {}, {}", show(a.mtime), show(b.mtime)));
    }
    out
}

/// Everything below a directory. What cannot be read is an entry too, so that it is never taken for absent.
fn list(root: &Path) -> BTreeMap<Vec<u8>, Seen> {
    let mut out = BTreeMap::new();
    let mut todo = vec![Vec::new()];
    while let Some(dir) = todo.pop() {
        let entries =
            match fs::read_dir(at(root, &dir)).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
                Ok(entries) => entries,
                Err(e) => {
                    let kind = Kind::Unreadable(e.to_string());
                    out.insert(
                        dir,
                        Seen {
                            kind,
                            mode: 0,
                            mtime: (0, 0),
                        },
                    );
                    continue;
                }
            };
        for entry in entries {
            let name = entry.file_name().into_vec();
            if dir.is_empty() && name == OWN.as_bytes() {
                continue;
            }
            let path = if dir.is_empty() {
                name
            } else {
                [&dir, &b"/"[..], &name].concat()
            };
            let seen = look(&at(root, &path)).unwrap_or_else(|e| Seen {
                kind: Kind::Unreadable(e.to_string()),
                mode: 0,
                mtime: (0, 0),
            });
            if seen.kind == Kind::Dir {
                todo.push(path.clone());
            }
            out.insert(path, seen);
        }
    }
    out
}

fn look(path: &Path) -> io::Result<Seen> {
    let meta = fs::symlink_metadata(path)?;
    let kind = match meta.file_type() {
        t if t.is_file() => Kind::File { size: meta.len() },
        t if t.is_dir() => Kind::Dir,
        t if t.is_symlink() => Kind::Link(fs::read_link(path)?.into_os_string()),
        t if t.is_fifo() => Kind::Special("fifo"),
        t if t.is_socket() => Kind::Special("socket"),
        _ => Kind::Special("device"),
    };
    Ok(Seen {
        kind,
        mode: meta.mode() & 0o777,
        mtime: (meta.mtime(), meta.mtime_nsec()),
    })
}

/// The first byte at which two files differ.
fn same_content(a: &Path, b: &Path) -> io::Result<Option<u64>> {
    let (mut a, mut b) = (
        BufReader::new(File::open(a)?),
        BufReader::new(File::open(b)?),
    );
    let mut offset = 0;
    loop {
        let (x, y) = (a.fill_buf()?, b.fill_buf()?);
        let len = x.len().min(y.len());
        if let Some(at) = x.iter().zip(y).position(|(x, y)| x != y) {
            return Ok(Some(offset + at as u64));
        }
        if len == 0 {
            return Ok((x.len() != y.len()).then_some(offset));
        }
        a.consume(len);
        b.consume(len);
        offset += len as u64;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use crate::tree::build;

    const TREE: &str = "
        @1700000000.25 d/a = one
        @1700000000.25 0755 big := 100000 3
        0700 empty/
        d/link -> a
        @1700000000.25 odd\\xff\\n = x
    ";

    fn two() -> (Scratch, std::path::PathBuf, std::path::PathBuf) {
        let scratch = Scratch::new().unwrap();
        let (a, b) = (scratch.dir("a").unwrap(), scratch.dir("b").unwrap());
        build(&a, TREE);
        build(&b, TREE);
        (scratch, a, b)
    }

    fn told(a: &Path, b: &Path) -> Vec<String> {
        let aspects = Aspects {
            mtimes: false,
            ..Aspects::default()
        };
        compare_in(&[a, b], aspects)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn equal_trees_have_no_difference_and_the_own_directory_does_not_count() {
        let (_scratch, a, b) = two();
        build(&a, ".instep/index.db = x");
        assert_eq!(told(&a, &b), Vec::<String>::new());
        fs::create_dir(b.join("d/.instep")).unwrap();
        assert_eq!(told(&a, &b), ["d/.instep (0 and 1): only in 1 (directory)"]);
    }

    #[test]
    fn each_kind_of_difference_is_told() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_scratch, a, b) = two();
        let mut big = fs::read(b.join("big")).unwrap();
        big[70_000] ^= 1;
        fs::write(b.join("big"), big).unwrap();
        fs::set_permissions(b.join("empty"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::remove_file(b.join("d/link")).unwrap();
        std::os::unix::fs::symlink("b", b.join("d/link")).unwrap();
        fs::write(b.join("d/a"), "three").unwrap();
        fs::remove_file(at(&a, b"odd\xff\n")).unwrap();
        assert_eq!(
            told(&a, &b),
            [
                "big (0 and 1): contents differ from byte 70000",
                "d/a (0 and 1): file of 3 bytes, file of 5 bytes",
                "d/link (0 and 1): link to a, link to b",
                "empty (0 and 1): mode 0700, 0755",
                "odd\\xff\\n (0 and 1): only in 1 (file of 1 bytes)",
            ]
        );
    }

    #[test]
    fn a_nanosecond_is_a_difference() {
        let scratch = Scratch::new().unwrap();
        let (a, b) = (scratch.dir("a").unwrap(), scratch.dir("b").unwrap());
        build(&a, "@1700000000.000000001 f = x");
        build(&b, "@1700000000.000000002 f = x");
        let found = compare(&[&a, &b]);
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].what,
            "modified 1700000000.000000001, 1700000000.000000002"
        );
    }

    #[test]
    fn a_root_that_is_not_there_is_a_difference() {
        let scratch = Scratch::new().unwrap();
        let here = scratch.dir("here").unwrap();
        assert_eq!(compare(&[&here, &scratch.path().join("gone")]).len(), 1);
    }
}
