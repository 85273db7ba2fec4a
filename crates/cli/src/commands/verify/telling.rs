//! What `verify` says.

use std::path::Path;

use instep_core::plan::Code;
use serde_json::json;

use super::super::Context;
use super::decide::Done;
use super::reading::{Finding, KeptFinding, Report};
use crate::args;
use crate::quantity::{bytes, counted};
use crate::ui::Output;
use crate::ui::json::put_path;

/// Says it.
pub(super) fn tell(args: &args::Verify, report: &Report, done: &Done, context: &Context) {
    let output = &context.output;
    if output.style.json {
        return output.json("verify", document(args, report, done));
    }
    for f in report.damage.iter().chain(&report.unreadable) {
        output.line(&line(f, done));
    }
    for k in &report.kept {
        output.line(&kept_line(k));
    }
    for why in &done.failed {
        output.line(why);
    }
    output.line(&sums(args, report, output));
    let open = report.damage.len() - done.settled.len();
    if open > 0 {
        output.line(&next(args));
    }
}

fn copies(good_on: &[String], good_kept: &[(String, String)]) -> String {
    if !good_on.is_empty() {
        return format!("good copy on {}", good_on.join(" "));
    }
    match good_kept.first() {
        Some((label, key)) => format!("good copy in the trash of {label} ({key})"),
        None => String::from("no good copy was found"),
    }
}

fn line(f: &Finding, done: &Done) -> String {
    let is_settled = done.settled.contains(&(f.label.clone(), f.path.clone()));
    let end = if is_settled {
        String::from("settled")
    } else {
        copies(&f.good_on, &f.good_kept)
    };
    format!("{}: {} {}; {end}", f.label, f.path, f.what)
}

fn kept_line(k: &KeptFinding) -> String {
    let what = if k.record.loser.is_some() {
        "the loser of a conflict, kept"
    } else {
        "kept in the trash"
    };
    format!(
        "{}: {} ({}), {what}, has other content than was recorded; {}",
        k.label,
        k.record.path,
        k.key,
        copies(&k.good_on, &k.good_kept)
    )
}

fn sums(args: &args::Verify, report: &Report, output: &Output) -> String {
    let mut parts = vec![format!(
        "{} read ({})",
        counted(report.files, "file"),
        bytes(report.bytes)
    )];
    if let Some(percent) = args.sample {
        let of = counted(report.files_of, "file");
        parts.push(format!("a sample of {percent} of {of}, seed {}", args.seed));
    }
    if report.kept_read > 0 {
        parts.push(format!("{} in the trash read", report.kept_read));
    }
    parts.push(format!(
        "{} damaged",
        report.damage.len() + report.kept.len()
    ));
    if !report.unreadable.is_empty() {
        parts.push(format!("{} unreadable", report.unreadable.len()));
    }
    if report.pending > 0 {
        parts.push(format!("{} changed since the last sync", report.pending));
    }
    if !report.differing.is_empty() {
        parts.push(format!(
            "{} not the same on all folders",
            report.differing.len()
        ));
    }
    parts.join(output.style.dot())
}

fn next(args: &args::Verify) -> String {
    let shown = |p: &Path| p.display().to_string();
    let at: Vec<String> = args.paths.iter().map(|p| shown(p)).collect();
    let at = at.join(" ");
    format!(
        "damaged files are neither passed on nor replaced ({})\n\
         next    instep verify --repair {at}   takes the good copy; the bad bytes go to the trash\n\
         \x20       instep verify --accept {at}   takes the bytes as they are for a change",
        Code::Damaged.text()
    )
}

fn document(args: &args::Verify, report: &Report, done: &Done) -> serde_json::Value {
    let kept = |copies: &[(String, String)]| -> Vec<serde_json::Value> {
        let one = |(label, key): &(String, String)| json!({ "replica": label, "id": key });
        copies.iter().map(one).collect()
    };
    let all = |findings: &[Finding]| -> Vec<serde_json::Value> {
        let one = |f: &Finding| {
            let is_settled = done.settled.contains(&(f.label.clone(), f.path.clone()));
            let mut body = json!({ "replica": f.label, "what": f.what, "good_on": f.good_on,
                "good_kept": kept(&f.good_kept), "settled": is_settled,
                "code": Code::Damaged.text() });
            put_path(&mut body, "path", &f.path);
            body
        };
        findings.iter().map(one).collect()
    };
    let decayed: Vec<serde_json::Value> = report
        .kept
        .iter()
        .map(|k| {
            json!({ "replica": k.label, "id": k.key, "path": k.record.path, "path_hex": k.record.path_hex,
                "loser": k.record.loser, "good_on": k.good_on, "good_kept": kept(&k.good_kept) })
        })
        .collect();
    json!({ "files": report.files, "files_of": report.files_of, "bytes": report.bytes,
        "kept_read": report.kept_read, "sample": args.sample.map(|p| p.to_string()), "seed": args.seed,
        "damage": all(&report.damage), "kept_damage": decayed,
        "unreadable": all(&report.unreadable), "pending": report.pending,
        "differing": report.differing.len(), "failed": done.failed })
}
