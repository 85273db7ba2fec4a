//! The brake: bursts that look like a disaster wait for a person.

use crate::limits::{BRAKE_ENTRIES, BRAKE_ENTROPY_PERCENT, BRAKE_PERCENT};

/// Whether a burst of deletions must be held: net of creations, more than a fixed number of entries and
/// more than a share of all. `total` counts the entries before the burst.
pub fn holds_deletes(deletes: u64, creates: u64, total: u64) -> bool {
    let net = deletes.saturating_sub(creates);
    net > BRAKE_ENTRIES.max(total.saturating_mul(BRAKE_PERCENT) / 100)
}

/// Whether a burst of rewrites must be held: more than a share of all files turned from structured into
/// high-entropy content, as a program that encrypts everything does.
pub fn holds_rewrites(turned_random: u64, files: u64) -> bool {
    turned_random > BRAKE_ENTRIES.max(files.saturating_mul(BRAKE_ENTROPY_PERCENT) / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_bursts_and_renames_pass() {
        for (deletes, creates, total, held) in [
            (50, 0, 60, false),
            (51, 0, 60, true),
            (51, 1, 60, false),
            (250, 0, 1000, false),
            (251, 0, 1000, true),
            (1000, 1000, 1000, false),
            (51, 0, 0, true),
        ] {
            assert_eq!(
                holds_deletes(deletes, creates, total),
                held,
                "{deletes} {creates} {total}"
            );
        }
        assert!(!holds_rewrites(300, 1000));
        assert!(holds_rewrites(301, 1000));
    }
}
