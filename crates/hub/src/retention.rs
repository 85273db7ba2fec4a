//! How long what was shown stays reachable.
//!
//! Pure. A version's age counts from when another took its place; what is shown now has none. Invariant: what is shown
//! now is never taken.

use crate::history::Shown;

const DAY_NS: i64 = 24 * 3600 * 1_000_000_000;

/// What to keep: a version that is young enough, or among the last few of a path that still has something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Days after another version took its place.
    pub days: u32,
    /// So many versions of a path, besides the one that is shown, whatever their age, unless the path was deleted.
    pub last: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self { days: 30, last: 3 }
    }
}

impl Retention {
    /// Which entries of one path's history have to go now; `history` is oldest first.
    pub(crate) fn expired(self, history: &[Shown], now_ns: i64) -> Vec<&Shown> {
        let Some(newest) = history.last() else {
            return Vec::new();
        };
        let is_deleted = newest.version.is_tomb();
        let keep_ns = i64::from(self.days).saturating_mul(DAY_NS);
        let mut out: Vec<&Shown> = Vec::new();
        for (i, shown) in history.iter().enumerate() {
            let newer = history.len() - 1 - i;
            let Some(next) = history.get(i + 1) else {
                break;
            };
            let is_old = next.at_ns < now_ns.saturating_sub(keep_ns);
            let is_last = !is_deleted && newer <= self.last as usize;
            if is_old && !is_last {
                out.push(shown);
            }
        }
        // Of a deletion nothing is left to be told when everything before it has gone.
        let is_all = is_deleted && out.len() + 1 == history.len();
        if is_all && newest.at_ns < now_ns.saturating_sub(keep_ns) {
            out.push(newest);
        }
        out
    }
}
