//! The fixed seeds that every change must keep.

#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use instep_sim::{Campaign, Open};

#[test]
fn users_crashes_and_errors_break_no_promise() {
    let campaign = Campaign {
        from: 1,
        count: 100,
        threads: 2,
    };
    let tally = campaign.run(&|_, _| ());
    let open = Open::parse(include_str!("../open.txt")).unwrap();
    let failed: Vec<String> = tally.failures.iter().map(ToString::to_string).collect();
    let news = open.judge(&campaign, &tally);
    assert!(
        news.is_empty(),
        "{}\n{}",
        news.join("\n"),
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
