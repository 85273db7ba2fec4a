//! The books of replicas, read and joined for listings.
//!
//! Every body is JSON; one that cannot be read is left out, because a newer version may have written it.

use std::collections::BTreeMap;
use std::sync::Arc;

use instep_core::id::Dot;
use instep_core::path::RelPath;
use instep_replica::records::{
    ConflictRecord, DamageRecord, HoldRecord, LogRecord, ShareRecord, TrashRecord,
};
use instep_replica::{Book, Replica};

use crate::error::{Exit, Failure};

/// A record, its key, and the replica that keeps it (its place in the list).
#[derive(Debug, Clone)]
pub(crate) struct Kept<T> {
    /// Which replica.
    pub(crate) replica: usize,
    /// The key.
    pub(crate) key: String,
    /// The record.
    pub(crate) body: T,
}

fn book<T: serde::de::DeserializeOwned>(
    replicas: &[Arc<dyn Replica>],
    book: Book,
) -> Result<Vec<Kept<T>>, Failure> {
    let mut out = Vec::new();
    for (i, replica) in replicas.iter().enumerate() {
        for (key, text) in replica.records(book)? {
            if let Ok(body) = serde_json::from_str(&text) {
                out.push(Kept {
                    replica: i,
                    key,
                    body,
                });
            }
        }
    }
    Ok(out)
}

/// Conflicts, each once, newest first.
pub(crate) fn conflicts(
    replicas: &[Arc<dyn Replica>],
    resolved_too: bool,
) -> Result<Vec<Kept<ConflictRecord>>, Failure> {
    let mut by_key: BTreeMap<String, Kept<ConflictRecord>> = BTreeMap::new();
    for kept in book::<ConflictRecord>(replicas, Book::Conflicts)? {
        let known = by_key
            .entry(kept.key.clone())
            .or_insert_with(|| kept.clone());
        if known.body.resolved.is_none() {
            known.body.resolved.clone_from(&kept.body.resolved);
        }
    }
    let mut out: Vec<_> = by_key
        .into_values()
        .filter(|k| resolved_too || k.body.resolved.is_none())
        .collect();
    out.sort_by_key(|k| std::cmp::Reverse(k.body.noticed_ns));
    Ok(out)
}

/// Holds that wait for a decision, oldest first.
pub(crate) fn holds(replicas: &[Arc<dyn Replica>]) -> Result<Vec<Kept<HoldRecord>>, Failure> {
    let mut out = book::<HoldRecord>(replicas, Book::Holds)?;
    out.retain(|k| k.body.decision.is_none());
    out.sort_by_key(|k| k.body.since_ns);
    Ok(out)
}

/// Files that wait for a decision because their content changed by itself.
pub(crate) fn damage(
    replicas: &[Arc<dyn Replica>],
) -> Result<Vec<(usize, RelPath, DamageRecord)>, Failure> {
    let mut out = Vec::new();
    for (i, replica) in replicas.iter().enumerate() {
        let all = DamageRecord::all(replica.as_ref())?.into_iter();
        out.extend(all.map(|(path, record)| (i, path, record)));
    }
    Ok(out)
}

/// What is in the trash, newest first.
pub(crate) fn trash(replicas: &[Arc<dyn Replica>]) -> Result<Vec<Kept<TrashRecord>>, Failure> {
    let mut out = book::<TrashRecord>(replicas, Book::Trash)?;
    out.sort_by_key(|k| std::cmp::Reverse(k.body.at_ns));
    Ok(out)
}

/// What happened, newest first, as one replica saw it.
pub(crate) fn log(replica: &Arc<dyn Replica>) -> Result<Vec<LogRecord>, Failure> {
    let mut out: Vec<LogRecord> = book(std::slice::from_ref(replica), Book::Log)?
        .into_iter()
        .map(|k| k.body)
        .collect();
    out.sort_by_key(|r: &LogRecord| std::cmp::Reverse(r.at_ns));
    Ok(out)
}

/// The share's settings and members, as far as these replicas know.
pub(crate) fn share(replicas: &[Arc<dyn Replica>]) -> Result<ShareRecord, Failure> {
    let mut out = ShareRecord::default();
    for replica in replicas {
        let text = replica.read_record(Book::Share, "share")?;
        if let Some(theirs) = text.and_then(|t| serde_json::from_str::<ShareRecord>(&t).ok()) {
            out.merge(&theirs);
        }
    }
    Ok(out)
}

/// A conflict's id as people type it: the end of the actor, then the counter. The whole dot works too.
pub(crate) fn short_id(key: &str) -> String {
    key.parse::<Dot>().map_or_else(
        |_| key.chars().take(12).collect(),
        |dot| {
            format!(
                "{:02x}{:02x}{}",
                dot.actor.0[6], dot.actor.0[7], dot.counter
            )
        },
    )
}

/// The one key that a typed id means.
pub(crate) fn find<'a, T>(
    all: &'a [Kept<T>],
    typed: &str,
    what: &str,
) -> Result<&'a Kept<T>, Failure> {
    let exact = all
        .iter()
        .find(|k| k.key == typed || short_id(&k.key) == typed);
    if let Some(kept) = exact {
        return Ok(kept);
    }
    let starts = |k: &&Kept<T>| k.key.starts_with(typed) || short_id(&k.key).starts_with(typed);
    let mut matching: Vec<&Kept<T>> = all.iter().filter(starts).collect();
    matching.dedup_by_key(|k| &k.key);
    match matching.as_slice() {
        [one] => Ok(one),
        [] => Err(
            Failure::new(1013, Exit::Usage, format!("there is no {what} {typed}"))
                .why(format!(
                    "{} open there",
                    crate::quantity::counted(all.len() as u64, what)
                ))
                .remedy(format!(
                    "list them: instep {}",
                    if what == "hold" { "holds" } else { "conflicts" }
                )),
        ),
        many => {
            let ids: Vec<String> = many.iter().take(8).map(|k| short_id(&k.key)).collect();
            Err(Failure::new(
                1014,
                Exit::Usage,
                format!("{typed} can mean more than one {what}"),
            )
            .why(format!("it is the start of {}", ids.join(", ")))
            .remedy("type more of it"))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;
    use crate::snapshot;

    fn kept(keys: &[&str]) -> Vec<Kept<()>> {
        keys.iter()
            .map(|k| Kept {
                replica: 0,
                key: (*k).to_owned(),
                body: (),
            })
            .collect()
    }

    #[test]
    fn an_id_is_found_by_its_start_if_that_says_enough() {
        let holds = kept(&["7f3a", "7f4b", "7f"]);
        assert_eq!(find(&holds, "7f3", "hold").unwrap().key, "7f3a");
        assert_eq!(find(&holds, "7f", "hold").unwrap().key, "7f");
        let unclear = kept(&["7f3a", "7f4b"]);
        snapshot::check(
            "error-E1014",
            &find(&unclear, "7f", "hold").unwrap_err().render(),
        );
        snapshot::check(
            "error-E1013",
            &find(&holds, "9", "hold").unwrap_err().render(),
        );
    }

    #[test]
    fn a_conflict_is_called_by_the_short_form_that_is_printed() {
        let all = kept(&["010203040506aabb:9", "010203040506aabb:12"]);
        assert_eq!(short_id(&all[0].key), "aabb9");
        assert_eq!(
            find(&all, "aabb9", "conflict").unwrap().key,
            "010203040506aabb:9"
        );
        assert_eq!(
            find(&all, "010203040506aabb:12", "conflict").unwrap().key,
            "010203040506aabb:12"
        );
        assert_eq!(find(&all, "aabb", "conflict").unwrap_err().code, 1014);
    }
}
