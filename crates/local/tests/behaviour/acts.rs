//! What an engine would ask of one replica, built from its rows: another's change, with its content at hand.

use std::collections::BTreeMap;

use instep_chunk::content_id;
use instep_core::id::{ActorId, ContentId, Dot};
use instep_core::path::RelPath;
use instep_core::plan::{Action, Goal, Keep, Precondition};
use instep_core::row::Row;
use instep_core::time::Mtime;
use instep_core::version::{Kind, Version};
use instep_local::LocalReplica;
use instep_replica::content::{Bytes, Content, Sources};
use instep_replica::records::ShareRecord;
use instep_replica::{Look, Replica, Scope, ShareState};

use crate::support::real::SHARE;

const MTIME: Mtime = Mtime {
    secs: 1_600_000_000,
    nanos: 5,
};

/// Who makes the changes that come in.
pub(crate) const OTHER: ActorId = ActorId(*b"another!");

/// Content by id.
#[derive(Default)]
pub(crate) struct Given(BTreeMap<ContentId, Vec<u8>>);

impl Given {
    /// Of these contents.
    pub(crate) fn of(contents: &[&[u8]]) -> Self {
        Self(
            contents
                .iter()
                .map(|c| (content_id(c), c.to_vec()))
                .collect(),
        )
    }
}

impl Sources for Given {
    fn open(&self, _: &Action, content: ContentId) -> Option<Box<dyn Content>> {
        self.0
            .get(&content)
            .map(|b| Box::new(Bytes(b.clone())) as Box<dyn Content>)
    }
}

pub(crate) fn row(replica: &LocalReplica, path: &RelPath) -> Row {
    replica.row(path).unwrap().unwrap_or_default()
}

pub(crate) fn before(row: &Row) -> Precondition {
    match (row.print, row.present()) {
        (None, _) => Precondition::Absent,
        (Some(print), version) => Precondition::Unchanged {
            kind: version.map_or(Kind::Dir, |v| v.kind),
            print,
            content: version.map_or(ContentId::NONE, |v| v.content),
        },
    }
}

/// Another's version of a path, made after seeing ours: a file with these bytes, or nothing.
pub(crate) fn incoming(
    replica: &LocalReplica,
    path: &RelPath,
    bytes: Option<&[u8]>,
    n: u64,
) -> Action {
    let row = row(replica, path);
    let was = row.on_disk().map_or(ContentId::NONE, |v| v.content);
    let dot = Dot {
        actor: OTHER,
        counter: n,
    };
    let version = Version {
        kind: if bytes.is_some() {
            Kind::File
        } else {
            Kind::Tomb
        },
        content: bytes.map_or(was, content_id),
        size: bytes.map_or(0, |b| b.len() as u64),
        mode: if bytes.is_some() { 0o640 } else { 0 },
        mtime: if bytes.is_some() {
            MTIME
        } else {
            Mtime::default()
        },
        te: i64::try_from(n).unwrap(),
        mode_te: 1,
        attributes: None,
        target: Box::default(),
        prev: vec![was]
            .into_iter()
            .filter(|c| *c != ContentId::NONE)
            .collect(),
        moved: None,
        meta_only: false,
        policy_epoch: 0,
    };
    let goal = match bytes {
        None => Goal::Absent,
        Some(b) => Goal::File {
            content: content_id(b),
            size: b.len() as u64,
            mode: 0o640,
            mtime: MTIME,
        },
    };
    Action {
        replica: 0,
        path: path.clone(),
        before: before(&row),
        goal,
        keep: Keep::Trash,
        entry: row.entry.record(dot, version),
        shown: Some(dot),
    }
}

/// Looks everywhere.
pub(crate) fn look(replica: &LocalReplica) -> Look {
    replica.look(&Scope::Everything).unwrap()
}

/// Records a look.
pub(crate) fn record(replica: &LocalReplica, look: &Look) {
    replica
        .record(look, &ShareState::new(SHARE, ShareRecord::default()))
        .unwrap();
}

/// Looks and records until nothing is left to wait for; `pass` lets time go by.
pub(crate) fn observe(replica: &LocalReplica, pass: &dyn Fn(u64)) -> Look {
    for _ in 0..200 {
        let found = look(replica);
        let wait = found.again.iter().map(|(_, ms)| *ms).max();
        record(replica, &found);
        match wait {
            None if found.unhashed.is_empty() => return found,
            _ => pass(wait.unwrap_or(5)),
        }
    }
    panic!("a look never comes to an end");
}
