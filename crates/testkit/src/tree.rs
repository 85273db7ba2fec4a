//! Trees: written as text, drawn at random, put on a disk, read back.
//!
//! A [`Tree`] is a value, so it is also the model that a test compares a directory with. In the text there is one
//! entry on each line; directories above it need no line of their own.
//!
//! ```text
//! docs/                        a directory
//! docs/a.txt = hello\n         a file; \n \t \s \\ \xNN are understood in names and contents
//! docs/empty                   an empty file
//! photo.jpg := 4096 7          4096 random bytes from the seed 7
//! latest -> docs/a.txt         a symbolic link
//! 0755 run.sh = exit           a mode
//! @1700000000.5 old = x        a modification time, in seconds
//! # a comment
//! ```

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, FileTimes, Permissions};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::prng::Prng;

/// Instep's own directory at the top of a root: never part of a tree.
pub const OWN: &str = ".instep";

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A directory.
    Dir,
    /// A file with this content.
    File(Vec<u8>),
    /// A symbolic link with this target.
    Link(Vec<u8>),
}

/// An entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub what: What,
    /// Permission bits, where they matter. A link has none.
    pub mode: Option<u32>,
    /// Seconds and nanoseconds of the modification time, where they matter.
    pub mtime: Option<(u64, u32)>,
}

impl From<What> for Node {
    fn from(what: What) -> Self {
        Self {
            what,
            mode: None,
            mtime: None,
        }
    }
}

/// A directory's contents by path relative to it. A directory sorts before what it contains.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    /// The entries.
    pub nodes: BTreeMap<Vec<u8>, Node>,
}

/// The bounds of a random tree.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// How many entries, about.
    pub entries: usize,
    /// How many directories above an entry, at most.
    pub depth: usize,
    /// Bytes of a file, at most.
    pub file_bytes: usize,
    /// Also names that are awkward: spaces, line ends, invalid UTF-8, a leading dash.
    pub odd_names: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            entries: 30,
            depth: 4,
            file_bytes: 2000,
            odd_names: true,
        }
    }
}

/// The path below a root.
pub fn at(root: &Path, path: &[u8]) -> PathBuf {
    root.join(OsStr::from_bytes(path))
}

/// Creates what the text describes below `root`. Panics with the line at fault.
pub fn build(root: &Path, text: &str) {
    let tree = Tree::parse(text).unwrap_or_else(|e| panic!("tree text: {e}"));
    tree.write_to(root)
        .unwrap_or_else(|e| panic!("cannot write a tree to {}: {e}", root.display()));
}

impl Tree {
    /// Reads the text form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut tree = Self::default();
        for line in text
            .lines()
            .map(str::trim)
            .filter(|l| !l.is_empty() && !l.starts_with("# "))
        {
            let (path, node) = parse_line(line).ok_or_else(|| format!("not an entry: {line}"))?;
            tree.insert(&path, node);
        }
        Ok(tree)
    }

    /// Puts an entry, and the directories above it.
    pub fn insert(&mut self, path: &[u8], node: Node) {
        for (end, _) in path.iter().enumerate().filter(|(_, b)| **b == b'/') {
            self.nodes
                .entry(path[..end].to_vec())
                .or_insert_with(|| What::Dir.into());
        }
        self.nodes.insert(path.to_vec(), node);
    }

    /// Takes an entry and all that is below it.
    pub fn remove(&mut self, path: &[u8]) {
        self.nodes.retain(|p, _| !is_within(p, path));
    }

    /// Draws a tree.
    pub fn random(prng: &mut Prng, shape: &Shape) -> Self {
        let mut tree = Self::default();
        for _ in 0..shape.entries {
            let path = tree.new_path(prng, shape);
            let node = random_node(prng, shape);
            tree.insert(&path, node);
        }
        tree
    }

    /// A path that is free, in a directory that is there or the root.
    pub fn new_path(&self, prng: &mut Prng, shape: &Shape) -> Vec<u8> {
        let deep = |p: &[u8]| p.split(|b| *b == b'/').count() >= shape.depth;
        let dirs: Vec<&Vec<u8>> = self
            .nodes
            .iter()
            .filter(|(p, n)| n.what == What::Dir && !deep(p))
            .map(|(p, _)| p)
            .collect();
        loop {
            let parent = if prng.chance(1, 4) {
                None
            } else {
                prng.pick(&dirs)
            };
            let name = random_name(prng, shape.odd_names);
            let path = match parent {
                Some(dir) => [dir, &b"/"[..], &name].concat(),
                None => name,
            };
            if !self.nodes.contains_key(&path) {
                return path;
            }
        }
    }

    /// Writes the tree below `root`, which is there and has none of its entries yet.
    pub fn write_to(&self, root: &Path) -> io::Result<()> {
        for (path, node) in &self.nodes {
            let to = at(root, path);
            match &node.what {
                What::Dir => fs::create_dir(to)?,
                What::File(content) => fs::write(to, content)?,
                What::Link(target) => std::os::unix::fs::symlink(OsStr::from_bytes(target), to)?,
            }
        }
        // Backwards, so that a directory is closed and dated after its contents.
        for (path, node) in self
            .nodes
            .iter()
            .rev()
            .filter(|(_, n)| !matches!(n.what, What::Link(_)))
        {
            let to = at(root, path);
            if let Some((secs, nanos)) = node.mtime {
                let time = SystemTime::UNIX_EPOCH + Duration::new(secs, nanos);
                File::open(&to)?.set_times(FileTimes::new().set_modified(time))?;
            }
            if let Some(mode) = node.mode {
                fs::set_permissions(to, Permissions::from_mode(mode))?;
            }
        }
        Ok(())
    }

    /// Reads a directory without instep's own, modes and times of files included.
    pub fn read(root: &Path) -> io::Result<Self> {
        let mut tree = Self::default();
        let mut todo = vec![Vec::new()];
        while let Some(dir) = todo.pop() {
            for entry in fs::read_dir(at(root, &dir))? {
                let name = entry?.file_name().into_vec();
                if dir.is_empty() && name == OWN.as_bytes() {
                    continue;
                }
                let path = if dir.is_empty() {
                    name
                } else {
                    [&dir, &b"/"[..], &name].concat()
                };
                let node = read_node(&at(root, &path))?;
                if node.what == What::Dir {
                    todo.push(path.clone());
                }
                tree.nodes.insert(path, node);
            }
        }
        Ok(tree)
    }

    /// The same tree without modes and times.
    pub fn contents(mut self) -> Self {
        for node in self.nodes.values_mut() {
            (node.mode, node.mtime) = (None, None);
        }
        self
    }
}

/// Whether `path` is `dir` or below it.
pub(crate) fn is_within(path: &[u8], dir: &[u8]) -> bool {
    path.strip_prefix(dir)
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
}

fn read_node(path: &Path) -> io::Result<Node> {
    let meta = fs::symlink_metadata(path)?;
    if meta.is_symlink() {
        return Ok(What::Link(fs::read_link(path)?.into_os_string().into_vec()).into());
    }
    let mode = Some(meta.mode() & 0o777);
    if meta.is_dir() {
        return Ok(Node {
            what: What::Dir,
            mode,
            mtime: None,
        });
    }
    if !meta.is_file() {
        return Err(io::Error::other(format!(
            "{} is no file, directory or link",
            path.display()
        )));
    }
    let mtime = Some((meta.mtime().max(0) as u64, meta.mtime_nsec() as u32));
    Ok(Node {
        what: What::File(fs::read(path)?),
        mode,
        mtime,
    })
}

fn parse_line(mut line: &str) -> Option<(Vec<u8>, Node)> {
    let mut mtime = None;
    if let Some(rest) = line.strip_prefix('@') {
        let (time, rest) = rest.split_once(' ')?;
        let (secs, fraction) = time.split_once('.').unwrap_or((time, ""));
        let nanos = format!("{fraction:0<9}").parse().ok()?;
        (mtime, line) = (Some((secs.parse().ok()?, nanos)), rest.trim_start());
    }
    let mut mode = None;
    if let Some((digits, rest)) = line.split_once(' ')
        && digits.len() == 4
        && digits.starts_with('0')
        && let Ok(bits) = u32::from_str_radix(digits, 8)
    {
        (mode, line) = (Some(bits), rest.trim_start());
    }
    let (path, what) = if let Some((path, size)) = line.split_once(" := ") {
        let (len, seed) = size.trim().split_once(' ')?;
        let content = Prng::new(seed.trim().parse().ok()?).bytes(len.parse().ok()?);
        (path, What::File(content))
    } else if let Some((path, content)) = line.split_once(" = ") {
        (path, What::File(unescape(content)?))
    } else if let Some((path, target)) = line.split_once(" -> ") {
        (path, What::Link(unescape(target.trim())?))
    } else if let Some(path) = line.strip_suffix('/') {
        (path, What::Dir)
    } else {
        (line, What::File(Vec::new()))
    };
    let path = unescape(path.trim())?;
    let legal = path
        .split(|b| *b == b'/')
        .all(|n| !matches!(n, b"" | b"." | b".."));
    legal.then_some((path, Node { what, mode, mtime }))
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        out.push(match bytes.next()? {
            b'n' => b'\n',
            b't' => b'\t',
            b's' => b' ',
            b'\\' => b'\\',
            b'x' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            _ => return None,
        });
    }
    Some(out)
}

pub(crate) fn random_node(prng: &mut Prng, shape: &Shape) -> Node {
    match prng.below(10) {
        0..=2 => What::Dir.into(),
        3 => What::Link(random_name(prng, shape.odd_names)).into(),
        _ => Node {
            what: What::File(random_content(prng, shape)),
            mode: prng
                .chance(1, 4)
                .then(|| *prng.pick(&[0o600, 0o644, 0o755]).unwrap_or(&0o644)),
            mtime: None,
        },
    }
}

pub(crate) fn random_content(prng: &mut Prng, shape: &Shape) -> Vec<u8> {
    match prng.below(4) {
        0 => Vec::new(),
        1 => format!("line {}\n", prng.below(5))
            .repeat(1 + prng.below(9))
            .into_bytes(),
        _ => {
            let len = prng.below(shape.file_bytes + 1);
            prng.bytes(len)
        }
    }
}

fn random_name(prng: &mut Prng, odd: bool) -> Vec<u8> {
    const ODD: &[&[u8]] = &[
        b"a b",
        b"-rf",
        b"\xff\xfe",
        b"new\nline",
        b"tab\t",
        "\u{e9}".as_bytes(),
        "e\u{301}".as_bytes(),
        b"A",
        b"~",
        b"*",
    ];
    // Few names, so that several users meet at the same path.
    let plain = [b'a' + prng.below(8) as u8];
    match prng.below(if odd { 8 } else { 7 }) {
        7 => prng
            .pick(ODD)
            .map_or_else(|| b"odd".to_vec(), |n| n.to_vec()),
        5..7 => [&plain[..], format!("{}", prng.below(100)).as_bytes()].concat(),
        _ => plain.to_vec(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_tree_from_text_is_on_the_disk_as_written() {
        let scratch = Scratch::new().unwrap();
        build(
            scratch.path(),
            "
            # a comment
            docs/
            docs/deep/a.txt = hello\\n
            docs/empty
            photo\\s1.jpg := 4096 7
            latest -> docs/a.txt
            0755 run.sh = exit
            @1700000000.000000005 0600 old = x
            bad\\xff
            ",
        );
        let tree = Tree::read(scratch.path()).unwrap();
        let names: Vec<_> = tree
            .nodes
            .keys()
            .map(|p| p.escape_ascii().to_string())
            .collect();
        let expected = [
            "bad\\xff",
            "docs",
            "docs/deep",
            "docs/deep/a.txt",
            "docs/empty",
            "latest",
            "old",
            "photo 1.jpg",
            "run.sh",
        ];
        assert_eq!(names, expected);
        assert_eq!(
            tree.nodes[&b"docs/deep/a.txt"[..]].what,
            What::File(b"hello\n".to_vec())
        );
        assert_eq!(
            tree.nodes[&b"latest"[..]].what,
            What::Link(b"docs/a.txt".to_vec())
        );
        assert_eq!(tree.nodes[&b"run.sh"[..]].mode, Some(0o755));
        let old = &tree.nodes[&b"old"[..]];
        assert_eq!(
            (old.mode, old.mtime),
            (Some(0o600), Some((1_700_000_000, 5)))
        );
        assert_eq!(
            tree.nodes[&b"photo 1.jpg"[..]].what,
            What::File(Prng::new(7).bytes(4096))
        );
    }

    #[test]
    fn a_line_that_is_no_entry_is_refused() {
        for line in ["a//b", "../x", "a = \\q", "b := many 1", "@soon a"] {
            assert!(Tree::parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_random_tree_is_the_same_for_the_same_seed_and_can_be_written() {
        for seed in 0..20 {
            let tree = Tree::random(&mut Prng::new(seed), &Shape::default());
            assert_eq!(tree, Tree::random(&mut Prng::new(seed), &Shape::default()));
            let scratch = Scratch::new().unwrap();
            tree.write_to(scratch.path()).unwrap();
            assert_eq!(
                Tree::read(scratch.path()).unwrap().contents(),
                tree.contents(),
                "seed {seed}"
            );
        }
    }
}
