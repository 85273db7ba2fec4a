//! A share: who is missing, what a running session says, whether its folders know the same, and a sample of what
//! they have.

use std::sync::Arc;

use instep_core::path::RelPath;
use instep_engine::command::{Answer, Command};
use instep_engine::drift;
use instep_engine::report::State;
use instep_replica::{Book, Replica};

use super::super::verify::reading::{self, Reading};
use super::super::{Context, Opened};
use super::finding::Finding;
use crate::connect;
use crate::error::{Exit, Failure};
use crate::explain::advice;
use crate::quantity::{bytes, counted, percent};
use crate::targets::Target;

/// So many of one kind are told one by one.
const SOME: usize = 20;
/// What is read again unless all of it is asked for.
const SAMPLE: &str = "1%";

/// Members that are not there now.
pub(super) fn missing(target: &Target, members: &[Target]) -> Vec<Finding> {
    let is_there = |path: &std::path::Path| {
        let full = connect::full(path);
        members.iter().any(|m| m.root.seen.path == full)
    };
    let away = target.member.members.iter().filter(|(_, at)| !is_there(at));
    away.filter(|(_, at)| !connect::known_at(at).is_empty())
        .map(|(label, at)| {
            let at = at.display();
            Finding::fail(
                2201,
                Exit::Unreachable,
                format!("{label}: {at} is not there"),
            )
            .why("it is missing, not mounted, or without its marker")
            .effect("the others go on, and nothing is deleted because of it")
            .remedy(format!("mount it or put it back, or: instep forget {at}"))
        })
        .collect()
}

/// What the session that holds these folders says.
pub(super) fn running(opened: &Opened) -> Vec<Finding> {
    let sessions = opened
        .targets
        .iter()
        .filter_map(|t| t.client().ok().flatten());
    let answer = sessions
        .into_iter()
        .find_map(|mut client| client.ask(&Command::Status).ok());
    let Some(Answer::Status(status)) = answer else {
        return Vec::new();
    };
    let mut out = Vec::new();
    for r in &status.replicas {
        if matches!(r.state, State::Offline | State::Paused) {
            let what = format!("{}: {} takes no part", r.label, r.location);
            out.push(
                Finding::fail(2201, Exit::Unreachable, what)
                    .why(r.why.clone())
                    .effect("the others go on")
                    .remedy(format!("instep status {}", r.location)),
            );
        }
    }
    for (i, p) in status.problems.iter().take(SOME) {
        let (label, at) = status
            .replicas
            .get(*i)
            .map_or(("?", ""), |r| (r.label.as_str(), r.location.as_str()));
        out.push(
            Finding::warn(p.code as u16, format!("{label}: {}", p.path))
                .why(p.detail.clone())
                .effect("all other paths go on")
                .remedy(advice(p.code))
                .remedy(format!("instep why {at}/{}", p.path)),
        );
    }
    if status.problems.len() > SOME {
        let more = counted((status.problems.len() - SOME) as u64, "path");
        out.push(
            Finding::warn(2101, format!("{more} more have a problem"))
                .remedy("instep status --problems"),
        );
    }
    if out.is_empty() {
        out.push(Finding::good("a session runs, and has no problem"));
    }
    out
}

/// Whether folders that say that they are in step know the same.
pub(super) fn compare(opened: &Opened) -> Result<Vec<Finding>, Failure> {
    let replicas: Vec<&dyn Replica> = opened.replicas.iter().map(Arc::as_ref).collect();
    let is_mirror = opened.targets.iter().any(|t| t.member.mirror);
    if replicas.len() < 2 || is_mirror {
        return Ok(Vec::new());
    }
    let before = marks(&opened.replicas)?;
    if before.first().is_none_or(Option::is_none) || before.iter().any(|m| *m != before[0]) {
        let text = "the folders are not in step now: what they know is compared when they are";
        return Ok(vec![Finding::good(text)]);
    }
    let mut left = vec![RelPath::root()];
    let (mut rows, mut differing) = (0, Vec::new());
    while let Some(dir) = left.pop() {
        let compared = drift::compare(&replicas, &dir)?;
        rows += compared.rows;
        differing.extend(compared.differing);
        left.extend(compared.dirs);
    }
    // A session may have gone on meanwhile.
    if differing.is_empty() || marks(&opened.replicas)? != before {
        let text = format!(
            "the folders know the same ({} compared)",
            counted(rows, "row")
        );
        return Ok(vec![Finding::good(text)]);
    }
    let n = counted(differing.len() as u64, "path");
    let shown: Vec<String> = differing
        .iter()
        .take(SOME)
        .map(ToString::to_string)
        .collect();
    Ok(vec![
        Finding::fail(
            2304,
            Exit::Damage,
            format!("the folders know different things of {n}"),
        )
        .why(format!(
            "they say that they are in step: {}",
            shown.join(", ")
        ))
        .effect("these paths may differ and stay so; all others go on")
        .remedy("instep verify, and report it"),
    ])
}

fn marks(replicas: &[Arc<dyn Replica>]) -> Result<Vec<Option<String>>, Failure> {
    let marks = replicas
        .iter()
        .map(|r| r.read_record(Book::Share, "settled"));
    Ok(marks.collect::<Result<_, _>>()?)
}

/// Reads files again, a sample or all.
pub(super) fn read_again(
    full: bool,
    opened: &Opened,
    context: &Context,
) -> Result<Vec<Finding>, Failure> {
    let everywhere: Vec<_> = opened
        .targets
        .iter()
        .map(|t| (t.clone(), RelPath::root()))
        .collect();
    let reading = Reading {
        opened,
        below: &everywhere,
        sample: if full { None } else { Some(percent(SAMPLE)?) },
        seed: 0,
    };
    let report = reading.run(context)?;
    let mut out: Vec<Finding> = Vec::new();
    let new = report.damage.iter().filter(|f| !f.noted);
    out.extend(new.take(SOME).map(|f| decayed(f, opened)));
    out.extend(report.kept.iter().take(SOME).map(|k| {
        let what = format!(
            "{}: {} in the trash ({}) is damaged",
            k.label, k.record.path, k.key
        );
        Finding::fail(2303, Exit::Damage, what)
            .why("it was read again, and has other content than was recorded")
            .effect("restoring it would bring other bytes back")
            .remedy("instep verify   says who has a good copy")
    }));
    out.extend(report.unreadable.iter().take(SOME).map(|f| {
        Finding::warn(2101, format!("{}: {} {}", f.label, f.path, f.what))
            .effect("it is not passed on; all other files go on")
            .remedy("give this user read access to it, or check the disk")
    }));
    if out.is_empty() {
        out.push(Finding::good(format!(
            "{} of {} read again ({}), none damaged",
            counted(report.files, "file"),
            counted(report.files_of, "file"),
            bytes(report.bytes)
        )));
    }
    Ok(out)
}

fn decayed(f: &reading::Finding, opened: &Opened) -> Finding {
    let at = opened
        .targets
        .iter()
        .find(|t| t.member.replica == f.replica);
    let at = at.map_or_else(String::new, |t| t.root.typed.display().to_string());
    let good = f
        .good_on
        .first()
        .map_or("no good copy was found", String::as_str);
    let what = format!("{}: {} {}", f.label, f.path, f.what);
    Finding::fail(2303, Exit::Damage, what)
        .why(format!("it was read again; good copy: {good}"))
        .effect("it may be passed on to the others until it is noted")
        .remedy(format!("instep verify {at}/{}", f.path))
}
