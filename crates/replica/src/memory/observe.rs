//! Looking: the tree compared with the index, path by path.
//!
//! Invariant: after its findings are recorded, the same look finds nothing. Never changes anything.

use std::collections::{BTreeMap, BTreeSet};

use instep_chunk::Entropy;
use instep_core::path::RelPath;
use instep_core::plan::{Code, Problem};
use instep_core::reconcile::is_safe_link;
use instep_core::row::{Held, Row};
use instep_core::version::Kind;

use super::State;
use super::tree::{Node, Object};
use crate::check::Checked;
use crate::look::{Finding, Found, Look, Move, Scope, Totals};

impl State {
    pub(super) fn look(&self, scope: &Scope) -> Look {
        let mut look = Look::default();
        for path in self.candidates(scope) {
            if path.is_root() || path.is_reserved() || self.is_below_unreadable(&path) {
                continue;
            }
            if self.unreadable.contains(&path) {
                let detail = String::from("could not read: permission denied");
                look.problems.push(Problem {
                    path: path.clone(),
                    code: Code::Unreadable,
                    detail,
                });
                if self.tree.get(&path).is_some_and(|n| !n.object.is_dir()) {
                    continue;
                }
            }
            let node = self.tree.get(&path);
            count(
                &mut look.totals,
                node.filter(|n| self.held(&path, n).is_none()),
            );
            if let Some(found) = self.compare(&path, node) {
                look.findings.push(Finding { path, found });
            }
        }
        for version in self.index.values().filter_map(Row::present) {
            look.known.add(version.kind, version.size);
        }
        self.find_moves(&mut look);
        look
    }

    fn candidates(&self, scope: &Scope) -> BTreeSet<RelPath> {
        match scope {
            Scope::Everything => self.everything_below(&RelPath::root()).collect(),
            // Everything is read at once here.
            Scope::Rest(_) => BTreeSet::new(),
            Scope::Some { paths, trees } => {
                let mut out = BTreeSet::new();
                for path in paths {
                    // Becoming or ceasing to be a directory concerns everything below.
                    let is_dir =
                        path.is_root() || self.tree.get(path).is_some_and(|n| n.object.is_dir());
                    if path.is_root() || is_dir != self.is_indexed_dir(path) {
                        out.extend(self.everything_below(path));
                    }
                    out.insert(path.clone());
                }
                for dir in trees {
                    out.insert(dir.clone());
                    out.extend(self.everything_below(dir));
                }
                out
            }
        }
    }

    fn everything_below<'a>(&'a self, dir: &'a RelPath) -> impl Iterator<Item = RelPath> + 'a {
        let on_disk = self.tree.below(dir).map(|(p, _)| p.clone());
        on_disk.chain(self.rows_below(dir).map(|(p, _)| p.clone()))
    }

    fn is_indexed_dir(&self, path: &RelPath) -> bool {
        self.index.get(path).is_some_and(Row::is_dir)
    }

    fn is_below_unreadable(&self, path: &RelPath) -> bool {
        self.unreadable
            .iter()
            .any(|dir| path != dir && path.is_within(dir))
    }

    pub(super) fn is_ignored(&self, path: &RelPath) -> bool {
        self.ignored.iter().any(|dir| path.is_within(dir))
    }

    /// Why what is there is not synchronized, if it is not.
    pub(super) fn held(&self, path: &RelPath, node: &Node) -> Option<Held> {
        match &node.object {
            _ if self.is_ignored(path) => Some(Held::Ignored),
            Object::Special => Some(Held::Special),
            Object::Link { target, .. } if !is_safe_link(path, target) => Some(Held::UnsafeLink),
            Object::File { .. } | Object::Dir { .. } | Object::Link { .. } => None,
        }
    }

    fn compare(&self, path: &RelPath, node: Option<&Node>) -> Option<Found> {
        let blank = Row::default();
        let row = self.index.get(path).unwrap_or(&blank);
        if self.is_ignored(path) {
            let untracked = row.held == Some(Held::Ignored) || row.print.is_none();
            return (!untracked).then_some(Found::Held(Held::Ignored));
        }
        let Some(node) = node else {
            let was = row.present().map_or(Kind::Dir, |v| v.kind);
            return (row.print.is_some() || row.held.is_some()).then_some(Found::Absent { was });
        };
        if let Some(held) = self.held(path, node) {
            return (row.held != Some(held)).then_some(Found::Held(held));
        }
        if row.held.is_none() && row.print == Some(node.print()) {
            return None;
        }
        if is_only_print(row, node) {
            return Some(Found::Refreshed {
                print: node.print(),
            });
        }
        Some(Self::present(node))
    }

    fn present(node: &Node) -> Found {
        let object = &node.object;
        let is_file = matches!(object, Object::File { .. });
        let is_link = matches!(object, Object::Link { .. });
        let bytes = object.bytes();
        Found::Present {
            kind: object.kind().unwrap_or(Kind::File),
            content: object.content(),
            size: if is_file { bytes.len() as u64 } else { 0 },
            mode: object.mode(),
            mtime: object.mtime(),
            target: if is_link {
                bytes.into()
            } else {
                Box::default()
            },
            print: node.print(),
            attributes: None,
            moved_from: None,
            high_entropy: is_file && Entropy::of(bytes).is_high(),
        }
    }

    /// The object at a path read again.
    pub(super) fn check(&self, path: &RelPath) -> Checked {
        let row = self.index.get(path);
        let recorded = row.and_then(Row::present).filter(|v| v.kind == Kind::File);
        let Some((row, recorded)) = row.zip(recorded) else {
            return Checked::Nothing;
        };
        let Some(node) = self.tree.get(path) else {
            return Checked::Changed;
        };
        let touched = row.print != Some(node.print());
        let found = Self::present(node);
        match &found {
            Found::Present {
                kind: Kind::File,
                content,
                size,
                mtime,
                ..
            } if (*size, *mtime) == (recorded.size, recorded.mtime) => {
                if *content == recorded.content {
                    return Checked::Sound(*size);
                }
                let found = Box::new(found);
                Checked::Decayed { found, touched }
            }
            _ => Checked::Changed,
        }
    }

    /// Pairs what is gone with what is new by inode, kind and content.
    fn find_moves(&self, look: &mut Look) {
        let gone: BTreeMap<u64, &RelPath> = look
            .findings
            .iter()
            .filter(|f| matches!(f.found, Found::Absent { .. }))
            .filter_map(|f| {
                let (path, row) = self.index.get_key_value(&f.path)?;
                Some((row.print?.ino, path))
            })
            .collect();
        let mut pairs = BTreeMap::new();
        for finding in &mut look.findings {
            let Found::Present {
                kind,
                content,
                print,
                moved_from,
                ..
            } = &mut finding.found
            else {
                continue;
            };
            let Some(from) = gone.get(&print.ino) else {
                continue;
            };
            let was = self.index.get(*from).and_then(Row::present);
            if was.is_some_and(|v| v.kind == *kind && v.content == *content) {
                *moved_from = Some((*from).clone());
                pairs.insert((*from).clone(), finding.path.clone());
            }
        }
        for (from, to) in &pairs {
            let follows = from.parent().is_some_and(|dir| {
                pairs
                    .get(&dir)
                    .is_some_and(|new| from.rebase(&dir, new).as_ref() == Some(to))
            });
            if !follows {
                let whole = self.is_whole(from, to, &pairs);
                look.moves.push(Move {
                    from: from.clone(),
                    to: to.clone(),
                    whole,
                });
            }
        }
    }

    /// Everything that was below `from` is unchanged below `to`, and nothing else is there.
    fn is_whole(&self, from: &RelPath, to: &RelPath, pairs: &BTreeMap<RelPath, RelPath>) -> bool {
        let mut moved = 0;
        let all_there = self
            .rows_below(from)
            .filter(|(_, row)| row.print.is_some())
            .inspect(|_| moved += 1)
            .all(|(path, row)| {
                let Some(new) = path.rebase(from, to) else {
                    return false;
                };
                pairs.get(path) == Some(&new)
                    && self
                        .tree
                        .get(&new)
                        .is_some_and(|n| Some(n.print()) == row.print)
            });
        let there = self
            .tree
            .below(to)
            .filter(|(p, n)| self.held(p, n).is_none())
            .count();
        let same_top =
            self.tree.get(to).map(Node::print) == self.index.get(from).and_then(|r| r.print);
        all_there && same_top && there == moved
    }
}

/// Whether a version that differs from the row's only in its fingerprint is there.
fn is_only_print(row: &Row, node: &Node) -> bool {
    let object = &node.object;
    if row.is_derived_dir() {
        // Whoever changes its mode wants it: then it becomes a directory of its own.
        return object.is_dir() && row.print.is_some_and(|p| p.mode == object.mode());
    }
    row.present().is_some_and(|v| {
        Some(v.kind) == object.kind()
            && v.content == object.content()
            && row.print.is_some_and(|p| p.mode == object.mode())
            && (object.is_dir() || v.mtime == object.mtime())
    })
}

fn count(totals: &mut Totals, node: Option<&Node>) {
    match node.map(|n| &n.object) {
        Some(Object::File { bytes, .. }) => {
            totals.files += 1;
            totals.bytes += bytes.len() as u64;
        }
        Some(Object::Dir { .. }) => totals.dirs += 1,
        Some(Object::Link { .. }) => totals.links += 1,
        Some(Object::Special) | None => {}
    }
}
