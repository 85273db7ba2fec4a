//! Every scenario under `scenarios/` is replayed, and none of them can be passed over for a slip of the pen.

#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::path::Path;

use instep_sim::{Scenario, run_masked};

fn all() -> Vec<(String, Scenario)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut out = Vec::new();
    for file in std::fs::read_dir(&dir).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let is_text = path.extension().is_some_and(|e| e == "txt");
        assert!(is_text, "{name} is no scenario");
        let text = std::fs::read_to_string(&path).unwrap();
        let scenario = Scenario::parse(&text).unwrap_or_else(|why| panic!("{name}: {why}"));
        out.push((name, scenario));
    }
    out.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(!out.is_empty(), "no scenario in {}", dir.display());
    out
}

#[test]
fn what_was_learnt_is_forgotten() {
    let mut failed = Vec::new();
    for (name, scenario) in all() {
        if let Err(failure) = run_masked(scenario.seed, &scenario.mask) {
            let (taught, left) = (&scenario.taught, scenario.mask.arguments());
            failed.push(format!("{name}: {taught}\n{failure}{left}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
