//! Takes in what the far end tells, and asks for what is missing.
//!
//! Owns what was asked for and has not come yet. Invariant: the far replica counts as caught up only when nothing that
//! was asked for is missing any more. Whatever no honest end says is refused, and ends the conversation.

use std::collections::BTreeSet;
use std::sync::Arc;

use instep_core::id::ContentId;
use instep_core::path::RelPath;
use instep_replica::{Error, ErrorKind, Replica, Result};

use crate::digest::{Digests, FAN, Prefix};
use crate::observed::Observed;
use crate::say::{INLINE_MAX, Part, Said, Say};
use crate::teller::digests_of;
use crate::told;

/// Below so many rows it is cheaper to send them than to compare further.
const ROWS_CHEAP: u64 = 64;

/// Where contents go that came along with their rows.
pub type Keep<'a> = &'a mut dyn FnMut(ContentId, Vec<u8>);

/// Listens to one teller.
pub struct Listener {
    observed: Arc<Observed>,
    /// What we have: where the far end has the same, nothing need be told.
    ours: Arc<dyn Replica>,
    digests: Digests,
    /// Nodes whose digests or rows were asked for.
    digests_due: BTreeSet<Prefix>,
    rows_due: BTreeSet<Prefix>,
    /// What was told since rows were asked for: what is complete and not among these is not there.
    told: BTreeSet<RelPath>,
    begun: bool,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Listener to {:?}", self.observed)
    }
}

/// What follows from a message.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// What to say.
    pub replies: Vec<Say>,
    /// Everything that the far end has is known now.
    pub caught_up: bool,
}

impl Listener {
    /// Begins to listen to the far replica, which is compared with ours.
    pub fn new(observed: Arc<Observed>, ours: Arc<dyn Replica>) -> Self {
        Self {
            observed,
            ours,
            digests: Digests::default(),
            digests_due: BTreeSet::new(),
            rows_due: BTreeSet::new(),
            told: BTreeSet::new(),
            begun: false,
        }
    }

    /// Takes in one message. What is wanted from us is for the teller.
    pub fn hear(&mut self, said: Say, keep: Keep<'_>) -> Result<Heard> {
        let mut heard = Heard::default();
        match said {
            Say::Rows(rows) => {
                let same = self.take_rows(rows, keep)?;
                if !same.is_empty() {
                    heard.replies.push(Say::Same(same));
                }
            }
            Say::Same(rows) => self.observed.alike(rows)?,
            Say::Record { book, key, body } => self.observed.write(book, &key, body),
            Say::Digests {
                node,
                children,
                rows,
            } => {
                let wanted = self.compare(node, &children, rows)?;
                if !wanted.is_empty() {
                    heard.replies.push(Say::Wanted(wanted));
                }
            }
            Say::Complete(nodes) => self.complete(&nodes)?,
            Say::Rest { heard } => self.observed.rests(heard),
            Say::Wanted(_) => return Err(refused("it asks whoever listens")),
        }
        heard.caught_up = self.begun && self.digests_due.is_empty() && self.rows_due.is_empty();
        Ok(heard)
    }

    /// Takes in rows; returns those that are the same as ours, with their digests.
    fn take_rows(&mut self, rows: Vec<Said>, keep: Keep<'_>) -> Result<Vec<(RelPath, u128)>> {
        let mut decoded = Vec::with_capacity(rows.len());
        for said in rows {
            if said.path.is_root() || said.path.is_reserved() {
                return Err(refused("a path that is never synchronized"));
            }
            let row = said.row.as_deref().map(told::decode).transpose();
            let row = row.map_err(|e| {
                let attempt = "the far end tells a row that nobody tells";
                Error::because(ErrorKind::Denied, attempt, e)
            })?;
            if let Some(bytes) = said.inline {
                let version = row.as_ref().and_then(|r| r.present());
                match version {
                    Some(v) if bytes.len() as u64 <= INLINE_MAX => keep(v.content, bytes),
                    _ => {
                        return Err(refused(
                            "a content without a row, or too large to come along",
                        ));
                    }
                }
            }
            if !self.rows_due.is_empty() {
                self.told.insert(said.path.clone());
            }
            decoded.push((said.path, row));
        }
        let digest = |path: RelPath| {
            let row = self.ours.row(&path)?;
            let bytes = row.and_then(|row| told::encode(&row));
            Ok(bytes.map(|bytes| (told::digest(&path, &bytes), path)))
        };
        let same = self.observed.tell(decoded)?.into_iter().map(digest);
        let same: Result<Vec<_>> = same.filter_map(Result::transpose).collect();
        Ok(same?
            .into_iter()
            .map(|(digest, path)| (path, digest))
            .collect())
    }

    /// What to ask for, by the digests of a node's children.
    fn compare(&mut self, node: Prefix, children: &[u128], rows: u64) -> Result<Vec<Part>> {
        let is_due = self.digests_due.remove(&node) || node == Prefix::ROOT;
        if !is_due || node.is_leaf() || children.len() != FAN {
            return Err(refused("digests that nobody asked for"));
        }
        if node == Prefix::ROOT {
            self.begun = true;
            self.digests = digests_of(self.ours.as_ref(), &|_, _| {})?;
        }
        let known = self.digests.rows();
        if known == 0 && rows > 0 {
            let node = Prefix::ROOT;
            self.rows_due.insert(node);
            return Ok(vec![Part { node, rows: true }]);
        }
        let below = rows.max(known) >> (4 * (u32::from(node.depth()) + 1));
        let mut wanted = Vec::new();
        for node in self.digests.differing(node, children) {
            let rows = node.is_leaf() || below <= ROWS_CHEAP;
            let due = if rows {
                &mut self.rows_due
            } else {
                &mut self.digests_due
            };
            due.insert(node);
            wanted.push(Part { node, rows });
        }
        Ok(wanted)
    }

    fn complete(&mut self, nodes: &[Prefix]) -> Result<()> {
        if !nodes.iter().all(|node| self.rows_due.remove(node)) {
            return Err(refused("rows that nobody asked for"));
        }
        self.observed.only(nodes, &self.told)?;
        if self.rows_due.is_empty() {
            self.told.clear();
        }
        Ok(())
    }

    /// What people call the replica that is listened to.
    pub fn label(&self) -> String {
        self.observed.describe().label
    }
}

fn refused(what: &str) -> Error {
    Error::new(
        ErrorKind::Denied,
        format!("the far end says what no end says: {what}"),
    )
}
