//! Edits: what users do to a tree, at random and repeatable.
//!
//! An edit is drawn against a model of the tree ([`Tree`]), then carried out on a disk. While a synchronizer works
//! in the same directory, the disk may have moved on; the edit then fails as the user's command would.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::prng::Prng;
use crate::tree::{Node, Shape, Tree, What, at, is_within, random_content, random_node};

/// One thing that a user does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Creates a file, directory or link where nothing is.
    Create(Vec<u8>, Node),
    /// Writes a file in place: truncates it and writes anew.
    Overwrite(Vec<u8>, Vec<u8>),
    /// Writes a file as careful editors do: a temporary name, then a rename over the old.
    Save(Vec<u8>, Vec<u8>),
    /// Adds to the end of a file.
    Append(Vec<u8>, Vec<u8>),
    /// Changes the permissions of a file.
    Chmod(Vec<u8>, u32),
    /// Moves an entry, with all that is below it, to where nothing is.
    Rename(Vec<u8>, Vec<u8>),
    /// Deletes an entry and all that is below it.
    Remove(Vec<u8>),
}

impl Edit {
    /// Draws an edit that is possible in `tree`.
    pub fn random(prng: &mut Prng, tree: &Tree, shape: &Shape) -> Self {
        let files: Vec<&Vec<u8>> = tree
            .nodes
            .iter()
            .filter(|(_, n)| matches!(n.what, What::File(_)))
            .map(|(p, _)| p)
            .collect();
        let all: Vec<&Vec<u8>> = tree.nodes.keys().collect();
        let file = prng.pick(&files).map(|p| (*p).clone());
        let any = prng.pick(&all).map(|p| (*p).clone());
        let fresh = tree.new_path(prng, shape);
        match (prng.below(12), file, any) {
            (0 | 1, Some(path), _) => Self::Overwrite(path, random_content(prng, shape)),
            (2 | 3, Some(path), _) => Self::Save(path, random_content(prng, shape)),
            (4, Some(path), _) => Self::Append(path, random_content(prng, shape)),
            (5, Some(path), _) => {
                Self::Chmod(path, *prng.pick(&[0o600, 0o644, 0o755]).unwrap_or(&0o644))
            }
            (6 | 7, _, Some(path)) if !is_within(&fresh, &path) => Self::Rename(path, fresh),
            (8 | 9, _, Some(path)) => Self::Remove(path),
            _ => Self::Create(fresh, random_node(prng, shape)),
        }
    }

    /// Draws a script of edits, each possible after the ones before, and leaves `tree` as they leave it.
    pub fn script(prng: &mut Prng, tree: &mut Tree, shape: &Shape, count: usize) -> Vec<Self> {
        (0..count)
            .map(|_| {
                let edit = Self::random(prng, tree, shape);
                edit.apply_to(tree);
                edit
            })
            .collect()
    }

    /// Carries the edit out on the model.
    pub fn apply_to(&self, tree: &mut Tree) {
        match self {
            Self::Create(path, node) => tree.insert(path, node.clone()),
            Self::Overwrite(path, content) => {
                if let Some(node) = tree.nodes.get_mut(path) {
                    node.what = What::File(content.clone());
                }
            }
            Self::Save(path, content) => tree.insert(path, What::File(content.clone()).into()),
            Self::Append(path, more) => {
                if let Some(Node {
                    what: What::File(content),
                    ..
                }) = tree.nodes.get_mut(path)
                {
                    content.extend_from_slice(more);
                }
            }
            Self::Chmod(path, mode) => {
                if let Some(node) = tree.nodes.get_mut(path) {
                    node.mode = Some(*mode);
                }
            }
            Self::Rename(from, to) => {
                let moved: Vec<(Vec<u8>, Node)> = tree
                    .nodes
                    .iter()
                    .filter(|(p, _)| is_within(p, from))
                    .map(|(p, n)| ([to, &p[from.len()..]].concat(), n.clone()))
                    .collect();
                tree.remove(from);
                tree.nodes.extend(moved);
            }
            Self::Remove(path) => tree.remove(path),
        }
    }

    /// Carries the edit out below `root`.
    pub fn apply(&self, root: &Path) -> io::Result<()> {
        match self {
            Self::Create(path, node) => {
                let mut tree = Tree::default();
                tree.nodes.insert(path.clone(), node.clone());
                tree.write_to(root)
            }
            Self::Overwrite(path, content) => File::options()
                .write(true)
                .truncate(true)
                .open(at(root, path))?
                .write_all(content),
            Self::Save(path, content) => {
                let to = at(root, path);
                let aside = to.with_file_name(".save.swp");
                fs::write(&aside, content)?;
                fs::rename(aside, to)
            }
            Self::Append(path, more) => File::options()
                .append(true)
                .open(at(root, path))?
                .write_all(more),
            Self::Chmod(path, mode) => {
                fs::set_permissions(at(root, path), Permissions::from_mode(*mode))
            }
            Self::Rename(from, to) => fs::rename(at(root, from), at(root, to)),
            Self::Remove(path) => {
                let path = at(root, path);
                if fs::symlink_metadata(&path)?.is_dir() {
                    fs::remove_dir_all(path)
                } else {
                    fs::remove_file(path)
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_script_does_to_the_disk_what_it_does_to_the_model() {
        let shape = Shape::default();
        for seed in 0..20 {
            let mut prng = Prng::new(seed);
            let mut tree = Tree::random(&mut prng, &shape);
            let scratch = Scratch::new().unwrap();
            tree.write_to(scratch.path()).unwrap();
            let script = Edit::script(&mut prng, &mut tree, &shape, 60);
            for edit in &script {
                edit.apply(scratch.path())
                    .unwrap_or_else(|e| panic!("seed {seed}: {edit:?}: {e}"));
            }
            let disk = Tree::read(scratch.path()).unwrap();
            for (path, node) in &tree.nodes {
                if let (What::File(_), Some(mode)) = (&node.what, node.mode) {
                    assert_eq!(disk.nodes[path].mode, Some(mode), "seed {seed}: {path:?}");
                }
            }
            assert_eq!(disk.contents(), tree.contents(), "seed {seed}");
        }
    }

    #[test]
    fn a_script_contains_every_kind_of_edit() {
        let mut prng = Prng::new(1);
        let mut tree = Tree::random(&mut prng, &Shape::default());
        let script = Edit::script(&mut prng, &mut tree, &Shape::default(), 400);
        let kinds: std::collections::HashSet<_> =
            script.iter().map(std::mem::discriminant).collect();
        assert_eq!(kinds.len(), 7);
    }
}
