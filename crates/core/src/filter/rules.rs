//! Verdicts: what a set of sources says about a path.
//!
//! Invariant: [`DirState`] is a pure function of the rules and of the path that was entered, and
//! [`Rules::verdict`] is nothing but entering one directory after the other; so a walker and a question
//! about one path cannot disagree. Nothing here reads an ignore file: whoever walks hands them in.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::glob::Progress;
use super::packs::Pack;
use super::source::{Layer, RuleId, RuleProblem, RuleSource, Source};
use crate::path::{Name, RelPath};

/// Whether an entry takes part in synchronization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Included,
    /// It does not, because of this rule.
    Ignored(RuleId),
}

impl Verdict {
    /// Whether the entry is ignored.
    pub fn is_ignored(&self) -> bool {
        matches!(self, Self::Ignored(_))
    }

    fn of(rule: Option<RuleId>) -> Self {
        match rule {
            Some(rule) if !rule.is_negated() => Self::Ignored(rule),
            _ => Self::Included,
        }
    }
}

/// An immutable set of rules. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Rules(Arc<Set>);

#[derive(Debug)]
struct Set {
    /// In the order in which they were added, packs first.
    sources: Vec<Source>,
    by_base: BTreeMap<RelPath, Vec<Source>>,
}

/// Collects sources.
#[derive(Debug, Default)]
pub struct RulesBuilder {
    packs: Vec<Pack>,
    sources: Vec<Source>,
    problems: Vec<RuleProblem>,
}

impl RulesBuilder {
    /// Adds a built-in pack. A pack that is already there is not added twice.
    pub fn pack(mut self, pack: Pack) -> Self {
        if !self.packs.contains(&pack) {
            self.packs.push(pack);
            self = self.add_source(RuleSource {
                name: pack.source_name().into(),
                layer: Layer::Pack,
                base: RelPath::root(),
                text: pack.text().into(),
            });
        }
        self
    }

    /// Parses and adds a source. Among sources of the same layer and base, a later one overrides.
    pub fn add_source(mut self, source: RuleSource) -> Self {
        let (source, problems) = source.compile();
        self.problems.extend(problems);
        self.add_parsed(source)
    }

    /// As [`RulesBuilder::add_source`], for a source that was parsed before.
    pub fn add_parsed(mut self, source: Source) -> Self {
        self.sources.push(source);
        self
    }

    /// The rules, which are usable in any case, and the lines in them that have no effect.
    pub fn build(self) -> (Rules, Vec<RuleProblem>) {
        let mut sources = self.sources;
        sources.push(own_rules());
        // Stable: sources of one layer and depth keep the order in which they were added.
        sources.sort_by_key(|s| (s.layer(), s.base().depth()));
        let mut by_base: BTreeMap<RelPath, Vec<Source>> = BTreeMap::new();
        for source in sources.iter().filter(|s| !s.is_empty()) {
            by_base
                .entry(source.base().clone())
                .or_default()
                .push(source.clone());
        }
        (Rules(Arc::new(Set { sources, by_base })), self.problems)
    }
}

/// Instep's own directory is no part of what it synchronizes.
fn own_rules() -> Source {
    let source = RuleSource {
        name: "built-in".into(),
        layer: Layer::BuiltIn,
        base: RelPath::root(),
        text: b"/.instep\n".to_vec(),
    };
    source.compile().0
}

impl Rules {
    /// Starts with no rule but the one for instep's own directory.
    pub fn builder() -> RulesBuilder {
        RulesBuilder::default()
    }

    /// The packs that are on by default, and nothing else.
    pub fn defaults() -> Self {
        Pack::DEFAULT
            .iter()
            .fold(Self::builder(), |b, pack| b.pack(*pack))
            .build()
            .0
    }

    /// Where a walk starts.
    pub fn root(&self) -> DirState {
        self.arrive(RelPath::root(), Vec::new())
    }

    /// Whether the entry at `path` takes part. The root itself always does.
    pub fn verdict(&self, path: &RelPath, is_dir: bool) -> Verdict {
        Verdict::of(self.last_match(path, is_dir))
    }

    /// The rule that decides about `path`, also where it is one that takes the entry back.
    pub fn last_match(&self, path: &RelPath, is_dir: bool) -> Option<RuleId> {
        let name = path.name()?;
        let mut dir = self.root();
        for parent in path
            .components()
            .rev()
            .skip(1)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
        {
            dir = dir.enter(parent);
            if let Some(rule) = &dir.0.ignored {
                return Some(rule.clone());
            }
        }
        dir.last_match(name, is_dir)
    }

    /// Canonical bytes of what the rules mean: two sets with equal bytes give equal verdicts. Comments, blank
    /// lines and the names of sources do not count.
    pub fn digest_input(&self) -> Vec<u8> {
        let mut out = b"instep rules 1\0".to_vec();
        for source in self.0.sources.iter().filter(|s| !s.is_empty()) {
            source.digest_into(&mut out);
        }
        out
    }

    /// The state in a directory where `active` rules come from above.
    fn arrive(&self, path: RelPath, mut active: Vec<Active>) -> DirState {
        if let Some(sources) = self.0.by_base.get(&path) {
            active.extend(sources.iter().map(Active::start));
            active.sort_by_key(Active::strength);
        }
        DirState(Arc::new(State {
            rules: self.clone(),
            path,
            ignored: None,
            active: active.into(),
        }))
    }
}

/// What the rules have to say inside one directory. Cheap to clone.
///
/// Rules that cannot match anything in this directory or below it are already gone, so the work for a name
/// does not grow with the rules of other places.
#[derive(Debug, Clone)]
pub struct DirState(Arc<State>);

#[derive(Debug)]
struct State {
    rules: Rules,
    path: RelPath,
    /// The rule that ignores the directory or one above it.
    ignored: Option<RuleId>,
    /// Weakest first.
    active: Arc<[Active]>,
}

/// A source together with how far its patterns with a slash have come.
#[derive(Debug, Clone)]
struct Active {
    source: Source,
    /// Last rule first.
    anchored: Arc<[(u32, Progress)]>,
}

impl Active {
    fn start(source: &Source) -> Self {
        let anchored = source
            .anchored()
            .map(|(rule, pattern)| (rule, pattern.start()))
            .collect();
        Self {
            source: source.clone(),
            anchored,
        }
    }

    fn strength(&self) -> (Layer, usize) {
        (self.source.layer(), self.source.base().depth())
    }

    /// What is left of it inside the directory `name`; nothing, if nothing can match there.
    fn enter(&self, name: Name<'_>) -> Option<Self> {
        let mut next = self.clone();
        if !self.anchored.is_empty() {
            let advance = |(rule, progress): &(u32, Progress)| {
                let to = self
                    .source
                    .pattern(*rule)?
                    .advance(*progress, name.as_bytes());
                (!to.is_dead()).then_some((*rule, to))
            };
            next.anchored = self.anchored.iter().filter_map(advance).collect();
        }
        (self.source.has_floating() || !next.anchored.is_empty()).then_some(next)
    }

    fn last_match(&self, name: &[u8], is_dir: bool) -> Option<RuleId> {
        let floating = self.source.last_floating(name, is_dir);
        let anchored = self.anchored.iter().find(|(rule, progress)| {
            Some(*rule) > floating
                && self.source.applies(*rule, is_dir)
                && self
                    .source
                    .pattern(*rule)
                    .is_some_and(|p| p.accepts(*progress, name))
        });
        let rule = anchored.map(|(rule, _)| *rule).or(floating)?;
        Some(self.source.id(rule))
    }
}

impl DirState {
    /// The directory.
    pub fn path(&self) -> &RelPath {
        &self.0.path
    }

    /// The rule that ignores this directory or one above it.
    pub fn ignored_by(&self) -> Option<&RuleId> {
        self.0.ignored.as_ref()
    }

    /// The state in a directory of this directory. Everything below an ignored one is ignored.
    pub fn enter(&self, name: Name<'_>) -> Self {
        let path = self.0.path.join(name);
        let ignored = match self.verdict(name, true) {
            Verdict::Ignored(rule) => Some(rule),
            Verdict::Included => None,
        };
        if ignored.is_some() {
            let rules = self.0.rules.clone();
            return Self(Arc::new(State {
                rules,
                path,
                ignored,
                active: Arc::default(),
            }));
        }
        let active = self.0.active.iter().filter_map(|a| a.enter(name)).collect();
        self.0.rules.arrive(path, active)
    }

    /// Adds a source that was found while walking: an ignore file of this directory. A source of another
    /// base rules here only if its base is above; elsewhere it changes nothing.
    pub fn with_source(&self, source: &Source) -> Self {
        let here = &self.0.path;
        if self.0.ignored.is_some() || source.is_empty() || !here.is_within(source.base()) {
            return self.clone();
        }
        let mut below = here.components().skip(source.base().depth());
        let added = below.try_fold(Active::start(source), |active, name| active.enter(name));
        let mut active = self.0.active.to_vec();
        active.extend(added);
        active.sort_by_key(Active::strength);
        Self(Arc::new(State {
            rules: self.0.rules.clone(),
            path: here.clone(),
            ignored: None,
            active: active.into(),
        }))
    }

    /// Whether the entry `name` of this directory takes part.
    pub fn verdict(&self, name: Name<'_>, is_dir: bool) -> Verdict {
        Verdict::of(self.last_match(name, is_dir))
    }

    /// The rule that decides about `name`, also where it is one that takes the entry back.
    pub fn last_match(&self, name: Name<'_>, is_dir: bool) -> Option<RuleId> {
        if let Some(rule) = &self.0.ignored {
            return Some(rule.clone());
        }
        self.0
            .active
            .iter()
            .rev()
            .find_map(|a| a.last_match(name.as_bytes(), is_dir))
    }
}
