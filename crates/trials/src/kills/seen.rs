//! What is on a disk, seen without instep: trees, what is kept, and what of it may not be there.
//!
//! Owns the way contents are told apart: by length and a hash. Invariant: reads only, and follows no link.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Instep's own directory at the top of a root.
const OWN: &str = ".instep";

/// Stands for the bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Content(u64, u64);

impl Content {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        Self(bytes.len() as u64, hasher.finish())
    }
}

/// What is at a path, as far as two runs of one scene must agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A file: its content, mode, and time of the content.
    File(Content, u32, i64),
    /// A directory and its mode.
    Dir(u32),
    /// A link and its target.
    Link(PathBuf),
}

/// A tree without instep's own directory. Dates and dots in the names of conflict copies differ from run to run, and are
/// left out.
pub type Tree = BTreeMap<PathBuf, What>;

/// Every object of a tree as the kernel sees it: two looks are equal only if nobody touched anything in between.
pub type Audit = BTreeMap<PathBuf, (u64, u64, u32, i64, i64, i64, i64)>;

/// Visits everything below a directory that is there, the directory itself left out.
fn walk(
    top: &Path,
    visit: &mut dyn FnMut(&Path, &fs::Metadata) -> io::Result<()>,
) -> io::Result<()> {
    for entry in fs::read_dir(top)? {
        let path = entry?.path();
        let meta = fs::symlink_metadata(&path)?;
        visit(&path, &meta)?;
        if meta.is_dir() {
            walk(&path, visit)?;
        }
    }
    Ok(())
}

/// As [`walk`], without instep's own directory.
fn walk_tree(
    root: &Path,
    visit: &mut dyn FnMut(&Path, &fs::Metadata) -> io::Result<()>,
) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        if path == root.join(OWN) {
            continue;
        }
        let meta = fs::symlink_metadata(&path)?;
        visit(&path, &meta)?;
        if meta.is_dir() {
            walk(&path, visit)?;
        }
    }
    Ok(())
}

/// The tree below a root.
pub fn tree(root: &Path) -> io::Result<Tree> {
    let mut all = Tree::new();
    walk_tree(root, &mut |path, meta| {
        let what = if meta.is_dir() {
            What::Dir(meta.mode() & 0o7777)
        } else if meta.is_symlink() {
            What::Link(fs::read_link(path)?)
        } else {
            What::File(
                Content::of(&fs::read(path)?),
                meta.mode() & 0o7777,
                meta.mtime(),
            )
        };
        let path = path.strip_prefix(root).unwrap_or(path);
        all.insert(plain(path), what);
        Ok(())
    })?;
    Ok(all)
}

/// A path without what makes the name of a conflict copy unique.
fn plain(path: &Path) -> PathBuf {
    const MARK: &str = ".conflict-";
    // YYYYMMDD-aaaaaa-hhhhhh
    const LENGTH: usize = 22;
    let text = path.to_string_lossy();
    match text.find(MARK).map(|at| at + MARK.len()) {
        Some(at) if text.len() >= at + LENGTH => {
            PathBuf::from(format!("{}{}", &text[..at], &text[at + LENGTH..]))
        }
        _ => path.to_owned(),
    }
}

/// Everything below a root but our own directory, as the kernel sees it.
pub fn audit(root: &Path) -> io::Result<Audit> {
    let mut all = Audit::new();
    walk_tree(root, &mut |path, m| {
        let seen = (
            m.ino(),
            m.size(),
            m.mode(),
            m.mtime(),
            m.mtime_nsec(),
            m.ctime(),
            m.ctime_nsec(),
        );
        all.insert(path.to_owned(), seen);
        Ok(())
    })?;
    Ok(all)
}

/// Where contents are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Within {
    /// In trees.
    Trees,
    /// In trees, and in trash and version stores.
    Kept,
    /// In those, and where something is on its way: while a process is dead.
    Anywhere,
}

/// The contents of all files of roots that are there.
pub fn contents(roots: &[PathBuf], within: Within) -> io::Result<BTreeSet<Content>> {
    let mut all = BTreeSet::new();
    let mut add = |path: &Path, meta: &fs::Metadata| {
        if meta.is_file() {
            all.insert(Content::of(&fs::read(path)?));
        }
        Ok(())
    };
    let places: &[&str] = match within {
        Within::Trees => &[],
        Within::Kept => &["trash", "versions"],
        Within::Anywhere => &["trash", "versions", "staging"],
    };
    for root in roots {
        walk_tree(root, &mut add)?;
        for place in places {
            let place = root.join(OWN).join(place);
            if place.is_dir() {
                walk(&place, &mut add)?;
            }
        }
    }
    Ok(all)
}

/// The files that are kept in a root: in its trash and its version store.
pub fn kept_files(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for place in ["trash", "versions"] {
        let place = root.join(OWN).join(place);
        if place.is_dir() {
            walk(&place, &mut |path, meta| {
                if meta.is_file() {
                    all.push(path.to_owned());
                }
                Ok(())
            })?;
        }
    }
    Ok(all)
}

/// What is left in the staging directory of a root.
pub fn staged(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    let staging = root.join(OWN).join("staging");
    if staging.is_dir() {
        walk(&staging, &mut |path, _| {
            all.push(path.to_owned());
            Ok(())
        })?;
    }
    Ok(all)
}

/// How two trees differ, a few paths of it.
pub fn difference(one: &Tree, other: &Tree) -> Option<String> {
    let paths: BTreeSet<&PathBuf> = one.keys().chain(other.keys()).collect();
    let differ = paths.into_iter().filter(|p| one.get(*p) != other.get(*p));
    let told: Vec<String> = differ
        .take(5)
        .map(|p| format!("{}: {:?} and {:?}", p.display(), one.get(p), other.get(p)))
        .collect();
    (!told.is_empty()).then(|| told.join("; "))
}
