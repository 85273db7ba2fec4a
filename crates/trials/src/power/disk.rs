//! What is on a root's disk, read without instep: the tree, and what instep keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use instep_testkit::tree::OWN;

use super::content::{Seen, Token, classify};

/// Where instep keeps what it displaced.
const KEPT: [&str; 2] = ["trash", "versions"];

/// One root.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    /// The files of the tree.
    pub files: BTreeMap<String, Seen>,
    /// Every version that is whole in the tree or kept.
    pub whole: BTreeSet<Token>,
}

impl Disk {
    /// Reads all of it.
    pub fn read(root: &Path) -> io::Result<Self> {
        let mut disk = Self::default();
        for (path, file) in files(root)? {
            let seen = classify(&fs::read(&file)?);
            let mut parts = path.split('/');
            let own = parts.next() == Some(OWN);
            if own && !parts.next().is_some_and(|dir| KEPT.contains(&dir)) {
                continue;
            }
            if let Seen::Whole(token) = seen {
                disk.whole.insert(token);
            }
            if !own {
                disk.files.insert(path, seen);
            }
        }
        Ok(disk)
    }
}

/// What changes when anybody does anything to a tree: inode, size, and both times of each file and directory.
pub fn audit(root: &Path) -> io::Result<BTreeMap<String, [i64; 6]>> {
    let mut seen = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            if path == root.join(OWN) {
                continue;
            }
            let meta = fs::symlink_metadata(&path)?;
            let facts = [
                meta.ino() as i64,
                meta.size() as i64,
                meta.mtime(),
                meta.mtime_nsec(),
                meta.ctime(),
                meta.ctime_nsec(),
            ];
            seen.insert(path.to_string_lossy().into_owned(), facts);
            if meta.is_dir() {
                todo.push(path);
            }
        }
    }
    Ok(seen)
}

fn files(root: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            let kind = fs::symlink_metadata(&path)?.file_type();
            if kind.is_dir() {
                todo.push(path);
            } else if kind.is_file() {
                let below = path.strip_prefix(root).map_err(io::Error::other)?;
                found.push((below.to_string_lossy().into_owned(), path));
            }
        }
    }
    Ok(found)
}
