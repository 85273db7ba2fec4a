//! The ignore rules in force at this root, and the nested ignore files they come from.
//!
//! The master list and the packs are compiled once and can be exchanged while everything runs. Nested
//! files are read when a walk meets them and kept until they change. [`DirRules`] is the part that matters
//! in one directory; its stamp changes with every rule that could matter there, so that a directory whose
//! rules changed is never taken for unchanged.
//!
//! Invariant: an ignore file that cannot be read rules as it did when it was read last. Where it never was,
//! nobody knows what may be touched in its directory.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use instep_core::filter::{self, DirState, Layer, Pack, RuleProblem, RuleSource, Source};
use instep_core::path::{Name, RelPath};
use instep_fs::{Dir, Kind, Result};

use crate::print::{hash_bytes, print};

/// The name of our nested ignore files.
pub const OWN: &[u8] = b".instepignore";
/// The name of git's, read when asked for.
pub const GIT: &[u8] = b".gitignore";
/// Bytes read of one ignore file.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What a user chose.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IgnoreOptions {
    /// The master list, one pattern each.
    pub master: Vec<String>,
    /// Names of rule packs.
    pub packs: Vec<String>,
    /// Read `.gitignore` too.
    pub gitignore: bool,
}

#[derive(Debug)]
struct Nested {
    look: u64,
    source: Source,
    stamp: u64,
}

/// How often rules have changed: so far, as told last, and as somebody has heard.
#[derive(Debug, Default)]
struct Changes {
    made: AtomicU64,
    told: AtomicU64,
    heard: AtomicU64,
}

/// The rules of one root.
#[derive(Debug)]
pub struct Rules {
    top: RwLock<(DirState, u64)>,
    gitignore: AtomicBool,
    nested: Mutex<HashMap<(RelPath, bool), Nested>>,
    /// Ignore files that are there, and that nobody has been able to read.
    unread: Mutex<HashSet<(RelPath, bool)>>,
    changes: Changes,
    problems: Mutex<Vec<RuleProblem>>,
}

impl Default for Rules {
    fn default() -> Self {
        Self::new(&IgnoreOptions::default())
    }
}

fn compile(options: &IgnoreOptions) -> (DirState, u64, Vec<RuleProblem>) {
    let mut builder = filter::Rules::builder();
    for pack in options.packs.iter().filter_map(|name| Pack::by_name(name)) {
        builder = builder.pack(pack);
    }
    let text = options.master.join("\n").into_bytes();
    let master = RuleSource {
        name: "config".into(),
        layer: Layer::Config,
        base: RelPath::root(),
        text,
    };
    let (rules, problems) = builder.add_source(master).build();
    let stamp = hash_bytes(&rules.digest_input(), 3);
    (rules.root(), stamp, problems)
}

impl Rules {
    /// Compiles what the user chose.
    pub fn new(options: &IgnoreOptions) -> Self {
        let (state, stamp, problems) = compile(options);
        Self {
            top: RwLock::new((state, stamp)),
            gitignore: AtomicBool::new(options.gitignore),
            nested: Mutex::default(),
            unread: Mutex::default(),
            changes: Changes::default(),
            problems: Mutex::new(problems),
        }
    }

    /// Exchanges the master list and the packs; whether anything changed.
    pub fn replace(&self, options: &IgnoreOptions) -> bool {
        let (state, stamp, problems) = compile(options);
        let mut top = self.top.write().unwrap_or_else(PoisonError::into_inner);
        let git = self.gitignore.swap(options.gitignore, Ordering::SeqCst) != options.gitignore;
        if top.1 == stamp && !git {
            return false;
        }
        *top = (state, stamp);
        drop(top);
        *self.problems.lock().unwrap_or_else(PoisonError::into_inner) = problems;
        self.changes.made.fetch_add(1, Ordering::SeqCst);
        true
    }

    /// Whether a rule changed and nobody has heard of it yet.
    pub fn is_changed(&self) -> bool {
        let heard = self.changes.heard.load(Ordering::SeqCst);
        self.changes.made.load(Ordering::SeqCst) != heard
    }

    /// Tells whether a rule changed, until somebody has heard it: what is told may be lost on its way.
    pub fn tell_changed(&self) -> bool {
        let made = self.changes.made.load(Ordering::SeqCst);
        self.changes.told.store(made, Ordering::SeqCst);
        made != self.changes.heard.load(Ordering::SeqCst)
    }

    /// What was told last was heard. Another change since then was not.
    pub fn heard_changed(&self) {
        let told = self.changes.told.load(Ordering::SeqCst);
        self.changes.heard.store(told, Ordering::SeqCst);
    }

    /// Bad lines, since this was asked last.
    pub fn take_problems(&self) -> Vec<RuleProblem> {
        std::mem::take(&mut *self.problems.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// At the top of the root.
    pub fn top(&self) -> DirRules {
        let top = self.top.read().unwrap_or_else(PoisonError::into_inner);
        DirRules {
            state: top.0.clone(),
            stamp: top.1,
            excluded: false,
        }
    }

    /// In a directory, with the ignore files of all directories above it, as far as they have been met.
    pub fn of_dir(&self, path: &RelPath) -> DirRules {
        let mut rules = self.top();
        let mut at = RelPath::root();
        self.add_nested(&at, &mut rules);
        for name in path.components() {
            rules = rules.enter(name);
            at = at.join(name);
            self.add_nested(&at, &mut rules);
        }
        rules
    }

    fn add_nested(&self, dir: &RelPath, rules: &mut DirRules) {
        let nested = self.nested.lock().unwrap_or_else(PoisonError::into_inner);
        for own in [false, true] {
            if let Some(n) = nested.get(&(dir.clone(), own)) {
                rules.state = rules.state.with_source(&n.source);
                rules.stamp = rules.stamp.rotate_left(7) ^ n.stamp;
            }
        }
    }

    /// Whether a file of this name has rules for the directory it is in.
    pub fn is_rule_file(&self, name: &[u8]) -> bool {
        name == OWN || (name == GIT && self.gitignore.load(Ordering::Relaxed))
    }

    /// The directory of an ignore file that nobody has been able to read, at a directory or above it.
    pub fn unread(&self, dir: &RelPath) -> Option<RelPath> {
        let unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        let dirs = unread.iter().map(|(at, _)| at);
        dirs.filter(|at| dir.is_within(at)).min().cloned()
    }

    /// A name was seen, or missed, on its own: if it is an ignore file, it is read again.
    pub fn touch(&self, dir: &Dir, path: &RelPath) {
        let Some((parent, name)) = path.split() else {
            return;
        };
        if self.is_rule_file(name.as_bytes()) && self.load(dir, &parent, name) == Ok(true) {
            self.changes.made.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A directory was listed: its ignore files are read, and apply from here on.
    ///
    /// # Errors
    ///
    /// One of them cannot be read, and never could.
    pub fn listed(
        &self,
        dir: &Dir,
        path: &RelPath,
        has_own: bool,
        has_git: bool,
        rules: &mut DirRules,
    ) -> Result<()> {
        let git = has_git && self.gitignore.load(Ordering::Relaxed);
        for (own, has, text) in [(false, git, GIT), (true, has_own, OWN)] {
            let Ok(name) = Name::new(text) else { continue };
            if has {
                self.load(dir, path, name)?;
            } else {
                self.forget(path, own);
            }
        }
        if has_own || git {
            self.add_nested(path, rules);
        }
        Ok(())
    }

    fn forget(&self, dir: &RelPath, own: bool) {
        let mut nested = self.nested.lock().unwrap_or_else(PoisonError::into_inner);
        if !nested.is_empty() {
            nested.remove(&(dir.clone(), own));
        }
        drop(nested);
        self.is_unread(dir, own, false);
    }

    fn is_unread(&self, dir: &RelPath, own: bool, is: bool) {
        let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        if is {
            unread.insert((dir.clone(), own));
        } else if !unread.is_empty() {
            unread.remove(&(dir.clone(), own));
        }
    }

    /// Reads one ignore file unless it is known; whether the rules changed.
    fn load(&self, dir: &Dir, path: &RelPath, name: Name<'_>) -> Result<bool> {
        let own = name.as_bytes() == OWN;
        let key = (path.clone(), own);
        let lock = || self.nested.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().get(&key).map(|n| n.look);
        let read = match dir.stat(name) {
            Ok(Some(stat)) if stat.kind == Kind::File => {
                let look = print(&stat).hash;
                if known == Some(look) {
                    return Ok(false);
                }
                instep_fs::small_file::read(dir, name, FILE_BYTES_MAX)
                    .map(|text| Some((look, text)))
            }
            nothing => nothing.map(|_| None),
        };
        self.is_unread(path, own, read.is_err() && known.is_none());
        let (look, text) = match read {
            Ok(Some(read)) => read,
            Ok(None) => return Ok(lock().remove(&key).is_some()),
            // It is looked at as a file, too, and then it is read again.
            Err(_) if known.is_some() => return Ok(false),
            Err(e) => return Err(e),
        };
        let stamp = hash_bytes(&text, 5);
        let source = RuleSource {
            name: path.join(name).to_string(),
            layer: if own {
                Layer::InstepIgnore
            } else {
                Layer::GitIgnore
            },
            base: path.clone(),
            text,
        };
        let (source, mut bad) = source.compile();
        self.problems
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .append(&mut bad);
        let old = lock().insert(
            key,
            Nested {
                look,
                source,
                stamp,
            },
        );
        Ok(old.is_none_or(|o| o.stamp != stamp))
    }
}

/// The rules that apply in one directory.
#[derive(Debug, Clone)]
pub struct DirRules {
    state: DirState,
    stamp: u64,
    excluded: bool,
}

impl DirRules {
    /// Whether this directory itself is excluded, with everything below it.
    pub fn is_excluded(&self) -> bool {
        self.excluded
    }

    /// Whether a name in this directory is excluded.
    pub fn ignores(&self, name: Name<'_>, is_dir: bool) -> bool {
        self.excluded || self.state.verdict(name, is_dir).is_ignored()
    }

    /// The rules in a directory of this one.
    pub fn enter(&self, name: Name<'_>) -> Self {
        let excluded = self.ignores(name, true);
        Self {
            state: self.state.enter(name),
            stamp: self.stamp,
            excluded,
        }
    }

    /// Changes with every rule that could matter here.
    pub fn stamp(&self) -> u64 {
        self.stamp
    }
}
