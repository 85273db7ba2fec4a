//! `status`: how folders stand, told by whoever holds them, else from their records.

use instep_engine::command::{Answer, Command, Status};
use instep_engine::report::State;
use serde_json::json;

use super::Context;
use crate::args::{self, Session};
use crate::error::{Exit, Failure};
use crate::quantity::{counted, span};
use crate::targets::{self, Target};
use crate::ui::json::{state_word, status as status_json};
use crate::ui::put::Put as _;
use crate::ui::table::Table;
use crate::ui::{Hue, Output};
use crate::{control, places, records};

/// Carries it out.
pub(crate) fn run(args: &args::Status, context: &Context) -> Result<Exit, Failure> {
    let targets = match targets::named(&args.roots) {
        Err(failure) if args.roots.is_empty() && failure.code == 1019 => {
            return all_sessions(args, context, failure);
        }
        found => found?,
    };
    let mut exits = Vec::new();
    let mut documents = Vec::new();
    for target in targets {
        if let Some(mut client) = target.client()?
            && let Answer::Status(status) = client.ask(&Command::Status)?
        {
            exits.extend(endings(&status));
            tell(&status, args, &context.output, &mut documents);
        } else {
            exits.extend(at_rest(&target, context, &mut documents)?);
        }
    }
    if context.output.style.json {
        context.output.json("status", json!(documents));
    }
    Ok(Exit::first(&exits))
}

/// Outside any folder: every session that runs.
fn all_sessions(args: &args::Status, context: &Context, none: Failure) -> Result<Exit, Failure> {
    let dir = places::runtime_dir();
    let mut exits = Vec::new();
    let mut documents = Vec::new();
    let mut told: Vec<Vec<String>> = Vec::new();
    if control::is_safe(&dir)? {
        let names = std::fs::read_dir(&dir).into_iter().flatten().flatten();
        for name in names.filter_map(|e| e.file_name().into_string().ok()) {
            let Some(Ok(id)) = name.strip_suffix(".sock").map(str::parse) else {
                continue;
            };
            let Some(mut client) = control::client::connect(&dir, id)? else {
                continue;
            };
            let Answer::Status(status) = client.ask(&Command::Status)? else {
                continue;
            };
            let members: Vec<String> = status.replicas.iter().map(|r| r.location.clone()).collect();
            if !told.contains(&members) {
                told.push(members);
                exits.extend(endings(&status));
                tell(&status, args, &context.output, &mut documents);
            }
        }
    }
    if told.is_empty() {
        return Err(none);
    }
    if context.output.style.json {
        context.output.json("status", json!(documents));
    }
    Ok(Exit::first(&exits))
}

fn endings(status: &Status) -> Vec<Exit> {
    let mut all = Vec::new();
    if status.summary.holds > 0 {
        all.push(Exit::Held);
    }
    if status.summary.problems > 0 {
        all.push(Exit::SomeFailed);
    }
    if status.summary.conflicts > 0 {
        all.push(Exit::Conflicts);
    }
    if status.replicas.iter().any(|r| r.state == State::Offline) {
        all.push(Exit::Unreachable);
    }
    all
}

fn tell(
    status: &Status,
    args: &args::Status,
    output: &Output,
    documents: &mut Vec<serde_json::Value>,
) {
    if output.style.json {
        documents.push(status_json(status));
    } else {
        output.result(&render(status, args.problems, output));
    }
}

/// The status of a running session as text.
fn render(status: &Status, all_problems: bool, output: &Output) -> String {
    let style = &output.style;
    let mut table = Table::new(&["NAME", "FOLDER", "STATE", "NOTES"]);
    for r in &status.replicas {
        let hue = match r.state {
            State::InSync => Hue::Good,
            State::Scanning | State::Syncing => Hue::Strong,
            State::Held | State::Paused => Hue::Attention,
            State::Problem | State::Offline => Hue::Bad,
        };
        let mut notes = r.notes.clone();
        if !r.why.is_empty() {
            notes.insert(0, r.why.clone());
        }
        table.row([
            r.label.clone(),
            r.location.clone(),
            style.paint(hue, state_word(r.state)),
            notes.join("; "),
        ]);
    }
    let s = &status.summary;
    let mut out = table.render();
    let mut parts = vec![
        state_word(status.state).to_owned(),
        counted(s.totals.files, "file"),
    ];
    for (n, one) in [
        (s.conflicts, "conflict"),
        (s.holds, "hold"),
        (s.problems, "problem"),
    ] {
        if n > 0 {
            parts.push(counted(n, one));
        }
    }
    if s.waiting > 0 {
        parts.push(format!("{} waiting", s.waiting));
    }
    parts.push(format!("running for {}", span(s.took_ns)));
    out.put(format_args!("{}\n", parts.join(style.dot())));
    const SOME: usize = 5;
    let shown = if all_problems {
        status.problems.len()
    } else {
        SOME
    };
    for (replica, p) in status.problems.iter().take(shown) {
        let label = status
            .replicas
            .get(*replica)
            .map_or("?", |r| r.label.as_str());
        out.put(format_args!(
            "  {label}: {}: {} ({})\n",
            p.path,
            p.detail,
            p.code.text()
        ));
    }
    if status.problems.len() > shown {
        out.put(format_args!(
            "  and {} more (--problems shows all)\n",
            status.problems.len() - shown
        ));
    }
    out.push_str(&next(status));
    out
}

/// The commands that lead on.
fn next(status: &Status) -> String {
    let at = status.replicas.first().map_or("", |r| r.location.as_str());
    let mut steps = Vec::new();
    if status.summary.conflicts > 0 {
        steps.push(format!("instep conflicts {at}"));
    }
    if status.summary.holds > 0 {
        steps.push(format!("instep holds {at}"));
    }
    if let Some((replica, p)) = status.problems.first() {
        let at = status
            .replicas
            .get(*replica)
            .map_or("", |r| r.location.as_str());
        steps.push(format!("instep why {at}/{}", p.path));
    }
    if steps.is_empty() {
        String::new()
    } else {
        format!("next    {}\n", steps.join("\n        "))
    }
}

/// A folder that no session holds.
fn at_rest(
    target: &Target,
    context: &Context,
    documents: &mut Vec<serde_json::Value>,
) -> Result<Vec<Exit>, Failure> {
    let env = Context::env(None)?;
    let replica = target.read(&env, &context.settings(&Session::default()))?;
    let one = std::slice::from_ref(&replica);
    let conflicts = records::conflicts(one, false)?.len() as u64;
    let holds = records::holds(one)?.len() as u64;
    let mut members: Vec<(String, String)> = target
        .member
        .members
        .iter()
        .map(|(label, at)| (label.clone(), at.display().to_string()))
        .collect();
    members.sort();
    let location = target.root.typed.display();
    if context.output.style.json {
        let members: Vec<_> = members
            .iter()
            .map(|(l, at)| json!({ "label": l, "location": at }))
            .collect();
        documents.push(
            json!({ "state": "not running", "location": location.to_string(),
            "share_id": target.member.share.to_string(), "mirror": target.member.mirror,
            "members": members, "summary": { "conflicts": conflicts, "holds": holds } }),
        );
    } else {
        let mut table = Table::new(&["NAME", "FOLDER", "STATE"]);
        for (label, at) in &members {
            table.row([label.clone(), at.clone(), String::from("not running")]);
        }
        let mut out = table.render();
        // A mirror's source comes first, whatever it is called.
        let first = usize::from(target.member.mirror);
        let ordered = target
            .member
            .members
            .iter()
            .map(|(_, at)| at.display().to_string());
        let mut paths: Vec<String> = ordered.collect();
        paths[first.min(members.len())..].sort_unstable();
        if conflicts + holds > 0 {
            out.put(format_args!(
                "{}, {}\n",
                counted(conflicts, "conflict"),
                counted(holds, "hold")
            ));
        }
        let verb = if target.member.mirror {
            "mirror"
        } else {
            "sync"
        };
        out.put(format_args!("next    instep {verb} {}\n", paths.join(" ")));
        if conflicts > 0 {
            out.put(format_args!("        instep conflicts {location}\n"));
        }
        if holds > 0 {
            out.put(format_args!("        instep holds {location}\n"));
        }
        context.output.result(&out);
    }
    let mut exits = Vec::new();
    if holds > 0 {
        exits.push(Exit::Held);
    }
    if conflicts > 0 {
        exits.push(Exit::Conflicts);
    }
    Ok(exits)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use instep_core::path::RelPath;
    use instep_core::plan::{Code, Problem};
    use instep_engine::command::ReplicaStatus;
    use instep_engine::report::Summary;

    use super::*;
    use crate::snapshot;
    use crate::ui::capture;

    #[test]
    fn a_running_session_is_told_as_recorded() {
        let replica = |label: &str, location: &str, state, why: &str| ReplicaStatus {
            label: label.into(),
            location: location.into(),
            state,
            why: why.into(),
            notes: if label == "B" {
                vec!["polled every 2 s".into()]
            } else {
                Vec::new()
            },
        };
        let problem = |i: usize| Problem {
            path: RelPath::new(format!("up/{i}.png").as_bytes()).unwrap(),
            code: Code::Unwritable,
            detail: "create: permission denied (EACCES 13)".into(),
        };
        let status = Status {
            replicas: vec![
                replica("A", "~/notes", State::InSync, ""),
                replica("B", "/mnt/usb/notes", State::Offline, "not mounted"),
            ],
            state: State::Held,
            summary: Summary {
                conflicts: 2,
                holds: 1,
                problems: 7,
                waiting: 41,
                took_ns: 3_600_000_000_000 * 3,
                ..Summary::default()
            },
            problems: (0..7).map(|i| (1, problem(i))).collect(),
        };
        let (output, _, _) = capture::output(capture::style());
        snapshot::check("status", &render(&status, false, &output));
        assert_eq!(render(&status, true, &output).matches("E2104").count(), 7);
        assert_eq!(Exit::first(&endings(&status)), Exit::Unreachable);
    }
}
