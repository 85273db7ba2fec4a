//! The fixed seeds that every change must keep, and the ones that taught us something.

#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use instep_sim::Campaign;

fn failures(from: u64, count: u64) -> Vec<String> {
    let campaign = Campaign {
        from,
        count,
        threads: 2,
    };
    let tally = campaign.run(&|_, _| ());
    tally.failures.iter().map(ToString::to_string).collect()
}

#[test]
fn users_crashes_and_errors_break_no_promise() {
    let failed = failures(1, 100);
    assert!(
        failed.is_empty(),
        "{} seeds failed:\n{}",
        failed.len(),
        failed.join("\n")
    );
}

#[test]
fn a_seed_takes_the_same_course_every_time() {
    for seed in 1..=40 {
        let digest = |seed| {
            instep_sim::run(seed)
                .map(|r| r.digest)
                .map_err(|f| f.to_string())
        };
        assert_eq!(digest(seed), digest(seed), "seed {seed}");
    }
}

#[test]
fn a_file_that_was_half_saved_in_a_backup_may_come_back() {
    let failed: Vec<String> = [6794, 13859]
        .into_iter()
        .flat_map(|s| failures(s, 1))
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
