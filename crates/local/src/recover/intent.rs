//! Intents: what a batch is about to do, written down before the first name exists.
//!
//! An intent names, for each path of a batch, the content that is being put there and everything the index
//! will know. Owns their format and their table. Invariant: an intent is on record before the first change of
//! its batch, and survives a power cut before the first user file is displaced and before the first new file has a
//! name; it is forgotten only when a barrier made what it announced durable, or recovery is done with it. What an
//! intent means after a crash is decided in `classify`.

use std::ops::ControlFlow;

use instep_core::codec::{self, DecodeError, Reader};
use instep_core::entry::Entry;
use instep_core::id::{ActorId, ContentId, Dot};
use instep_core::limits;
use instep_core::path::RelPath;
use instep_core::plan::{Action, Goal, Precondition};
use instep_replica::{Result, Step};
use instep_store::{Durability, Table};

use crate::index::{Index, store_error};
use crate::replica::LocalReplica;
use crate::trash;

/// One path of an intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intended {
    /// Where.
    pub path: RelPath,
    /// What was there; none means nothing.
    pub old: Option<ContentId>,
    /// What the index will know.
    pub entry: Entry,
    /// What is to be there.
    pub shown: Option<Dot>,
}

fn changes_names(action: &Action) -> bool {
    matches!(
        action.goal,
        Goal::File { .. }
            | Goal::Link { .. }
            | Goal::Dir { .. }
            | Goal::Absent
            | Goal::Rename { .. }
    )
}

/// What a power cut leaves of it can be told from what a user did by its intent alone: a user file is displaced, or a
/// file gets a name before its bytes are sure to last, and may be found with some of them.
fn must_outlive_power(index: &mut Index, action: &Action) -> Result<bool> {
    let brings_bytes = match &action.goal {
        Goal::File { size, .. } => *size > 0,
        Goal::Rename { from } => {
            let durable = index.durable_epoch();
            index.get(from)?.is_none_or(|row| row.epoch > durable)
        }
        _ => false,
    };
    Ok(brings_bytes || action.before != Precondition::Absent)
}

/// Writes down what a batch is about to do.
pub fn intend(replica: &LocalReplica, actions: &[Action]) -> Result<()> {
    let intended: Vec<&Action> = actions
        .iter()
        .filter(|a| changes_names(a) || replica.changes_attributes(a))
        .collect();
    if intended.is_empty() {
        return Ok(());
    }
    let body = encode(&intended);
    let mut index = replica.index();
    let mut outlives_power = false;
    for action in &intended {
        outlives_power = outlives_power || must_outlive_power(&mut index, action)?;
    }
    let key = trash::fresh_name(replica);
    index
        .store()
        .put_record(Table::Intent, key.as_bytes(), &body)
        .map_err(|e| store_error("write an intent", e))?;
    index.commit(if outlives_power {
        Durability::Power
    } else {
        Durability::Process
    })?;
    replica.env.reach(if outlives_power {
        Step::IntentDurable
    } else {
        Step::Intended
    });
    Ok(())
}

fn encode(actions: &[&Action]) -> Vec<u8> {
    let mut out = Vec::with_capacity(actions.len() * 160);
    codec::put_u64(&mut out, actions.len() as u64);
    for a in actions {
        codec::put_bytes(&mut out, a.path.as_bytes());
        match a.before {
            Precondition::Absent => out.push(0),
            Precondition::Unchanged { content, .. } => {
                out.push(1);
                out.extend_from_slice(&content.0);
            }
        }
        codec::put_entry(&mut out, &a.entry);
        match a.shown {
            None => out.push(0),
            Some(dot) => {
                out.push(1);
                out.extend_from_slice(&dot.actor.0);
                codec::put_u64(&mut out, dot.counter);
            }
        }
    }
    out
}

/// Reads an intent.
pub fn decode(bytes: &[u8]) -> core::result::Result<Vec<Intended>, DecodeError> {
    let mut r = Reader::new(bytes);
    let n = r.count(bytes.len())?;
    let mut out = Vec::with_capacity(n.min(1024));
    for _ in 0..n {
        let path =
            RelPath::new(r.bytes(limits::PATH_BYTES_MAX)?).map_err(|_| DecodeError::Invalid)?;
        let old = match r.u8()? {
            0 => None,
            _ => Some(ContentId(r.array()?)),
        };
        let entry = codec::entry(&mut r)?;
        let shown = match r.u8()? {
            0 => None,
            _ => Some(Dot {
                actor: ActorId(r.array()?),
                counter: r.u64()?,
            }),
        };
        out.push(Intended {
            path,
            old,
            entry,
            shown,
        });
    }
    r.finish()?;
    Ok(out)
}

/// All paths of all intents; one that cannot be read is none.
pub(super) fn pending(index: &mut Index) -> Result<Vec<Intended>> {
    let mut all = Vec::new();
    index
        .store()
        .records(Table::Intent, &mut |_, body| {
            all.extend(decode(body).unwrap_or_default());
            ControlFlow::Continue(())
        })
        .map_err(|e| store_error("read intents", e))?;
    Ok(all)
}

/// Whether anything at or below a path was to change since the last barrier.
pub fn is_intended_within(index: &mut Index, top: &RelPath) -> Result<bool> {
    let all = pending(index)?;
    Ok(all.iter().any(|i| i.path.is_within(top)))
}

/// Forgets all intents: the barrier has made what they announced durable.
pub fn fulfilled(index: &mut Index) -> Result<()> {
    let mut keys = Vec::new();
    index
        .store()
        .records(Table::Intent, &mut |key, _| {
            keys.push(key.to_vec());
            ControlFlow::Continue(())
        })
        .map_err(|e| store_error("read intents", e))?;
    for key in keys {
        index
            .store()
            .remove_record(Table::Intent, &key)
            .map_err(|e| store_error("forget an intent", e))?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use instep_core::plan::Keep;

    use super::*;

    fn deletion(path: &[u8]) -> Action {
        Action {
            replica: 0,
            path: RelPath::new(path).unwrap(),
            before: Precondition::Unchanged {
                kind: instep_core::version::Kind::File,
                print: instep_core::row::Print {
                    ino: 1,
                    hash: 2,
                    mode: 0o644,
                },
                content: ContentId([7; 32]),
            },
            goal: Goal::Absent,
            keep: Keep::Trash,
            entry: Entry::default(),
            shown: Some(Dot {
                actor: ActorId(*b"another!"),
                counter: 3,
            }),
        }
    }

    #[test]
    fn an_intent_is_read_back_otherwise_than_it_was_written() {
        let creation = Action {
            before: Precondition::Absent,
            shown: None,
            ..deletion(b"dir/made")
        };
        let actions = [deletion(b"gone"), creation];
        let read = decode(&encode(&actions.iter().collect::<Vec<_>>())).unwrap();
        let old = [Some(ContentId([7; 32])), None];
        assert_eq!(read.len(), actions.len());
        for ((read, action), old) in read.iter().zip(&actions).zip(old) {
            assert_eq!((&read.path, read.old), (&action.path, old));
            assert_eq!((&read.entry, read.shown), (&action.entry, action.shown));
        }
    }

    #[test]
    fn half_an_intent_is_taken_for_a_whole_one() {
        let bytes = encode(&[&deletion(b"gone"), &deletion(b"too")]);
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end]).is_err(), "{end} of {}", bytes.len());
        }
    }
}
