//! Hubs on real directories and on simulated machines, and what they are given.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod real;
pub(crate) mod sim;

use std::collections::BTreeMap;

use instep_chunk::content_id;
use instep_core::id::{ActorId, ContentId, Dot, ShareId};
use instep_core::path::RelPath;
use instep_core::plan::{Action, Goal, Keep, Outcome, Precondition};
use instep_core::row::Row;
use instep_core::time::Mtime;
use instep_core::version::{Kind, Version};
use instep_replica::content::Bytes;
use instep_replica::{Content, Replica, Sources};

/// The share that every test uses.
pub(crate) const SHARE: ShareId = ShareId([7; 16]);

/// A path from a literal.
pub(crate) fn p(path: &str) -> RelPath {
    RelPath::new(path.as_bytes()).unwrap()
}

/// Contents by id, as another replica would give them.
#[derive(Debug, Default)]
pub(crate) struct Given(pub(crate) BTreeMap<ContentId, Vec<u8>>);

impl Sources for Given {
    fn open(&self, _: &Action, content: ContentId) -> Option<Box<dyn Content>> {
        let bytes = self.0.get(&content)?;
        Some(Box::new(Bytes(bytes.clone())))
    }
}

/// A version of another replica's user, the `n`-th that there is.
pub(crate) fn version(n: u64, bytes: Option<&[u8]>) -> (Dot, Version) {
    let mtime = Mtime {
        secs: 1_700_000_000 + n as i64,
        nanos: 0,
    };
    let te = mtime.nanos_since_epoch().unwrap();
    let kind = bytes.map_or(Kind::Tomb, |_| Kind::File);
    let version = Version {
        content: bytes.map_or(ContentId::NONE, content_id),
        size: bytes.map_or(0, |b| b.len() as u64),
        mode: bytes.map_or(0, |_| 0o640),
        mtime: bytes.map_or_else(Mtime::default, |_| mtime),
        te,
        mode_te: te,
        ..Version::bare(kind)
    };
    let actor = ActorId(*b"stranger");
    (Dot { actor, counter: n }, version)
}

/// The action by which the `n`-th version comes to a path: bytes, or their end.
pub(crate) fn action(hub: &dyn Replica, path: &RelPath, n: u64, bytes: Option<&[u8]>) -> Action {
    let row = hub.row(path).unwrap().unwrap_or_default();
    action_over(&row, path, n, bytes)
}

fn action_over(row: &Row, path: &RelPath, n: u64, bytes: Option<&[u8]>) -> Action {
    let (dot, mut version) = version(n, bytes);
    if version.is_tomb() {
        version.content = row.present().map_or(ContentId::NONE, |v| v.content);
    }
    let before = match (row.print, row.present()) {
        (Some(print), v) => Precondition::Unchanged {
            kind: v.map_or(Kind::Dir, |v| v.kind),
            print,
            content: v.map_or(ContentId::NONE, |v| v.content),
        },
        (None, _) => Precondition::Absent,
    };
    Action {
        replica: 0,
        path: path.clone(),
        before,
        goal: Goal::of(&version, version.mode),
        keep: Keep::Trash,
        entry: row.entry.record(dot, version),
        shown: Some(dot),
    }
}

/// Brings the `n`-th version to a path.
pub(crate) fn bring(hub: &dyn Replica, path: &RelPath, n: u64, bytes: Option<&[u8]>) {
    assert_eq!(try_bring(hub, path, n, bytes).unwrap(), [Outcome::Done]);
}

/// The same, where it may fail.
pub(crate) fn try_bring(
    hub: &dyn Replica,
    path: &RelPath,
    n: u64,
    bytes: Option<&[u8]>,
) -> instep_replica::Result<Vec<Outcome>> {
    let given = Given(
        bytes
            .map(|b| (content_id(b), b.to_vec()))
            .into_iter()
            .collect(),
    );
    let row = hub.row(path)?.unwrap_or_default();
    hub.apply(&[action_over(&row, path, n, bytes)], &given)
}

/// Everything of a content, or why it cannot be read.
pub(crate) fn read(hub: &dyn Replica, bytes: &[u8]) -> std::io::Result<Option<Vec<u8>>> {
    let opened = hub.open(&p("anywhere"), content_id(bytes)).unwrap();
    let Some(mut content) = opened else {
        return Ok(None);
    };
    let mut out = Vec::new();
    let mut buf = vec![0; 100_000];
    loop {
        match content.read_at(out.len() as u64, &mut buf)? {
            0 => return Ok(Some(out)),
            n => out.extend_from_slice(&buf[..n]),
        }
    }
}

/// Bytes in which nothing repeats itself.
pub(crate) fn random(seed: u64, count: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(count + 8);
    while out.len() < count {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out.extend_from_slice(&x.to_le_bytes());
    }
    out.truncate(count);
    out
}
