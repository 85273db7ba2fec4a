//! Ignore rules: which paths take part, and which line of which file says that one does not.
//!
//! The syntax is that of `gitignore`, byte for byte: the tests compare with Git itself. Within a source the
//! last rule that matches decides. Between sources, from weak to strong: the packs, the master list of the
//! configuration, `.gitignore` files (where a share asks for them), `.instepignore` files; among files of one kind
//! the deeper one. Whatever is below an ignored directory is ignored, and no `!` below can take it back.
//! `.instep` at the top of a root is always ignored.
//!
//! Verdicts say nothing about what to do: an entry that becomes ignored is left alone, never deleted.
//! Rules are a snapshot: when an ignore file changes, its owner builds new ones and looks again.
//!
//! A walker goes `rules.root()`, [`DirState::with_source`] for an ignore file it finds, [`DirState::verdict`]
//! for each name, [`DirState::enter`] for each directory. Hostile rules cost time in proportion to
//! their length, no more, and what exceeds the limits is reported and has no effect.

mod glob;
mod packs;
mod rules;
mod source;
#[cfg(test)]
mod tests;

pub use glob::PatternFault;
pub use packs::Pack;
pub use rules::{DirState, Rules, RulesBuilder, Verdict};
pub use source::{Layer, RuleFault, RuleId, RuleProblem, RuleSource, Source};
