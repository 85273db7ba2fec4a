//! A seed is as big as it claims to be.

#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

#[test]
fn a_seed_is_too_small() {
    let reports: Vec<_> = (1..=12).filter_map(|s| instep_sim::run(s).ok()).collect();
    assert!(!reports.is_empty());
    for counts in reports.iter().map(|r| &r.counts) {
        assert!(counts.acts >= 100, "{counts}");
        assert!(counts.struck() >= 5, "{counts}");
        assert!(counts.calls >= 500, "{counts}");
    }
}

#[test]
fn a_class_of_faults_never_strikes() {
    let mut all = instep_sim::Counts::default();
    for seed in 1..=60 {
        if let Ok(report) = instep_sim::run(seed) {
            all.add(&report.counts);
        }
    }
    let classes = [
        "kill",
        "power cut",
        "mishap",
        "error",
        "overflow",
        "full",
        "read-only",
        "away",
        "index",
        "slow",
        "queue",
        "listing",
        "jump",
        "line refused",
        "reply lost",
        "sent twice",
        "delay",
        "partition",
    ];
    let missing: Vec<_> = classes
        .iter()
        .filter(|c| !all.faults.contains_key(**c))
        .collect();
    assert!(missing.is_empty(), "{missing:?} never struck: {all}");
}
