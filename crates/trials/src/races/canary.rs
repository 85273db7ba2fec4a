//! A tree outside of the root that nothing may touch.
//!
//! Owns what is known of it. Invariant: it has a copy of every path that an operation uses, so that whoever is led there
//! finds what they look for. Its disk keeps times of access strictly.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

/// In each file outside, and nowhere else.
pub const TOKEN: &str = "canary-that-no-root-may-have";
const DIRS: [&str; 7] = [
    "1/2/3/old",
    "1/2/3/deep",
    ".instep/staging",
    ".instep/trash",
    ".instep/versions",
    ".instep/shares",
    "1/2/3/e",
];
const FILES: [&str; 10] = [
    "1/2/3/f",
    "1/2/3/anchor",
    "1/2/anchor",
    "1/anchor",
    ".instep/marker.json",
    ".instep/lock",
    ".instep/index.db",
    ".instep/index.db-wal",
    ".instep/index.db-shm",
    ".instep/staging/stray",
];

/// Everything that the system says of an object.
type Seen = [i64; 12];

/// The tree.
#[derive(Debug)]
pub struct Canary {
    top: PathBuf,
    known: BTreeMap<PathBuf, Seen>,
}

fn seen(path: &Path) -> io::Result<Seen> {
    let meta = fs::symlink_metadata(path)?;
    Ok([
        meta.atime(),
        meta.atime_nsec(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec(),
        meta.ino() as i64,
        meta.nlink() as i64,
        meta.size() as i64,
        meta.mode().into(),
        meta.uid().into(),
        meta.gid().into(),
    ])
}

impl Canary {
    /// Makes it in a directory that is not there yet.
    pub fn plant(top: &Path) -> io::Result<Self> {
        for dir in DIRS {
            fs::create_dir_all(top.join(dir))?;
        }
        for file in FILES {
            fs::write(top.join(file), TOKEN)?;
        }
        symlink(TOKEN, top.join("1/2/3/l"))?;
        let mut canary = Self {
            top: top.to_owned(),
            known: BTreeMap::new(),
        };
        canary.remember()?;
        Ok(canary)
    }

    /// Where it is.
    pub fn top(&self) -> &Path {
        &self.top
    }

    /// One more file of a name that an operation is about to use.
    pub fn add(&mut self, path: &str) -> io::Result<()> {
        fs::write(self.top.join(path), TOKEN)?;
        self.remember()
    }

    /// Everything as it is now. Reading it changes its times, which come last.
    fn remember(&mut self) -> io::Result<()> {
        let all = listed(&self.top)?;
        for path in &all {
            if fs::symlink_metadata(path)?.is_file() {
                drop(fs::read(path)?);
            }
        }
        let known = all.into_iter().map(|path| Ok((path.clone(), seen(&path)?)));
        self.known = known.collect::<io::Result<_>>()?;
        Ok(())
    }

    /// What is different; nothing, if nobody was here. Looks at times first, then at names and content.
    pub fn escapes(&mut self) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        for (path, was) in &self.known {
            match seen(path) {
                Ok(now) if now == *was => {}
                Ok(now) => found.push(format!("{}: {was:?} is {now:?}", path.display())),
                Err(e) => found.push(format!("{}: {e}", path.display())),
            }
        }
        for path in listed(&self.top)? {
            let is_file = fs::symlink_metadata(&path)?.is_file();
            if !self.known.contains_key(&path) {
                found.push(format!("{} was made", path.display()));
            } else if is_file && fs::read(&path)? != TOKEN.as_bytes() {
                found.push(format!("{} was written", path.display()));
            }
        }
        self.remember()?;
        Ok(found)
    }
}

/// Everything below a directory, and itself. Links are not followed.
fn listed(top: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut found, mut at) = (vec![top.to_owned()], 0);
    while let Some(path) = found.get(at).cloned() {
        at += 1;
        if fs::symlink_metadata(&path)?.is_dir() {
            for entry in fs::read_dir(&path)? {
                found.push(entry?.path());
            }
        }
    }
    Ok(found)
}

/// The files of a root that have a byte from outside, but for those that are not asked about. Links are not followed.
pub fn leaked(root: &Path, but: &dyn Fn(&Path) -> bool) -> io::Result<Vec<PathBuf>> {
    let mut found = listed(root)?;
    found.retain(|path| !but(path));
    let has = |path: &Path| -> io::Result<bool> {
        let is_file = fs::symlink_metadata(path)?.is_file();
        let bytes = if is_file { fs::read(path)? } else { Vec::new() };
        Ok(holds(&bytes))
    };
    let mut failed = None;
    found.retain(|path| has(path).unwrap_or_else(|e| failed.replace(e).is_some()));
    failed.map_or(Ok(found), Err)
}

/// Whether bytes are from outside.
pub fn holds(bytes: &[u8]) -> bool {
    let token = TOKEN.as_bytes();
    bytes.windows(token.len()).any(|w| w == token)
}
