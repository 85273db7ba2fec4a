//! `plan`: what `sync` would do, from the same planner; creates nothing anywhere.

use instep_core::path::RelPath;
use instep_core::plan::{Action, Goal, Precondition};
use instep_core::policy::Role;
use instep_engine::preview::{self, Line, Preview};
use instep_engine::report::Silent;
use instep_engine::session::{Session, SessionOptions};
use serde_json::json;

use super::Context;
use super::sync::{self, Want};
use crate::args;
use crate::connect::Purpose;
use crate::endpoint;
use crate::error::{Exit, Failure};
use crate::far::caller::Far;
use crate::quantity::count;
use crate::ui::json::{meeting, put_path};
use crate::ui::plan_table::{Cell, PlanRow, PlanView, render};
use crate::{live, roots};

/// How many paths are shown when nothing else is said.
pub(crate) const LIMIT: usize = 200;

/// Carries it out.
pub(crate) fn run(args: args::Plan, context: &Context) -> Result<Exit, Failure> {
    endpoint::refuse_hubs(&args.roots)?;
    let (roots, far) = sync::look_far(&args.roots, |_| Role::Both)?;
    roots::check(&roots, false)?;
    let session = args::Session {
        gitignore: args.gitignore,
        dry_run: true,
        ..args::Session::default()
    };
    let mut want = Want {
        roots,
        far,
        allow_empty: false,
        mirror: false,
        merge: args.merge_shares,
        session,
    };
    let pending = show(&mut want, args.limit, context)?;
    Ok(if pending && args.detailed_exitcode {
        Exit::Pending
    } else {
        Exit::Done
    })
}

/// Shows the plan of a session; whether there is anything to do.
pub(crate) fn show(want: &mut Want, limit: usize, context: &Context) -> Result<bool, Failure> {
    if let Some(missing) = want.roots.iter().find(|r| !r.seen.exists) {
        let typed = missing.typed.display();
        return Err(Failure::new(1004, Exit::Usage, format!("{typed} does not exist"))
            .why("showing what would happen creates nothing, and there is nothing to look at yet")
            .remedy(format!("mkdir {typed}")));
    }
    let mut opened = sync::open(want, context, Purpose::Preview)?;
    let options = SessionOptions {
        once: true,
        mirror: want.mirror,
        allow_empty: true,
        ..SessionOptions::default()
    };
    let mut session = Session::start(opened.env, opened.replicas, options, Box::new(Silent))
        .map_err(live::failure)?;
    let mut begun = Ok(());
    let meet = || begun = opened.far.iter_mut().try_for_each(Far::hear);
    let preview = session.preview_with(meet).map_err(live::failure)?;
    begun?;
    let view = view(want, &preview);
    if context.output.style.json {
        context.output.json("plan", document(&view, &preview));
    } else {
        if let Some(m) = &preview.meeting {
            let locations: Vec<String> = want
                .roots
                .iter()
                .map(|r| r.typed.display().to_string())
                .collect();
            let style = &context.output.style;
            let lines = if want.mirror {
                crate::ui::meeting::mirror_lines(m, &view.labels, style)
            } else {
                crate::ui::meeting::lines(m, &view.labels, &locations, style)
            };
            context.output.result(&format!("{}\n\n", lines.join("\n")));
        }
        context
            .output
            .result(&render(&view, limit, &context.output.style));
    }
    Ok(!preview.lines.is_empty())
}

fn view(want: &mut Want, preview: &Preview) -> PlanView {
    let labels: Vec<String> = want.roots.iter().map(|r| r.label.clone()).collect();
    let guard = |(n, total): (u64, u64)| {
        let percent = (n * 100).checked_div(total).unwrap_or(0);
        format!(
            "{} of {} deleted ({percent} %): will be held, edits go on",
            count(n),
            count(total)
        )
    };
    PlanView {
        rows: preview
            .lines
            .iter()
            .map(|line| row(line, &labels))
            .collect(),
        labels,
        locations: want
            .roots
            .iter()
            .map(|r| r.typed.display().to_string())
            .collect(),
        guards: preview.held.map(guard).into_iter().collect(),
    }
}

fn row(line: &Line, labels: &[String]) -> PlanRow {
    let renamed = renamed_from(line);
    let cell = |(i, has): (usize, &preview::Cell)| match has {
        preview::Cell::Has if renamed.is_some() && i == line.origin => Cell::Renamed,
        preview::Cell::Has => Cell::Wanted,
        preview::Cell::Older => Cell::Older,
        preview::Cell::Absent => Cell::Absent,
        preview::Cell::Deleted => Cell::Deleted,
        preview::Cell::Diverged => Cell::Diverged,
        preview::Cell::Cannot => Cell::Cannot,
    };
    let (class, words) = class(line);
    let mut targets: Vec<usize> = line
        .actions
        .iter()
        .filter(|a| a.goal != Goal::Record)
        .map(|a| a.replica)
        .collect();
    targets.sort_unstable();
    targets.dedup();
    let names: Vec<&str> = targets
        .iter()
        .filter_map(|i| labels.get(*i))
        .map(String::as_str)
        .collect();
    let names = names.join(" ");
    let from = labels.get(line.origin).map_or("?", String::as_str);
    let action = match class {
        "copy" | "update" => format!("{words} {from} to {names}"),
        "cannot" => words.to_owned(),
        _ => format!("{words} on {names}"),
    };
    PlanRow {
        cells: line.cells.iter().enumerate().map(cell).collect(),
        path: renamed.map_or_else(
            || line.path.to_string(),
            |old| format!("{old} to {}", line.path),
        ),
        class: if line.held { "held" } else { class }.to_owned(),
        action: if line.held {
            format!("{action}, held")
        } else {
            action
        },
        bytes: line
            .actions
            .iter()
            .map(|a| {
                if let Goal::File { size, .. } = a.goal {
                    size
                } else {
                    0
                }
            })
            .sum(),
    }
}

fn renamed_from(line: &Line) -> Option<&RelPath> {
    line.actions.iter().find_map(|a| {
        if let Goal::Rename { from } = &a.goal {
            Some(from)
        } else {
            None
        }
    })
}

/// What a line is counted under, and what is done in words.
fn class(line: &Line) -> (&'static str, &'static str) {
    let Some(action) = line.actions.iter().find(|a| a.goal != Goal::Record) else {
        return ("cannot", "cannot be brought: instep why says the reason");
    };
    match (&action.goal, action.before) {
        _ if line.conflict => ("conflict", "newest at the path, the other kept,"),
        (Goal::Rename { .. }, _) => ("rename", "rename"),
        (Goal::Absent, _) => ("trash", "trash"),
        (Goal::Metadata { .. }, _) if has_attributes(action) => {
            ("mode", "mode, time, owner or attributes")
        }
        (Goal::Metadata { .. } | Goal::Record, _) => ("mode", "mode or time"),
        (_, Precondition::Absent) => ("copy", "copy"),
        (_, Precondition::Unchanged { .. }) => ("update", "update"),
    }
}

fn has_attributes(action: &Action) -> bool {
    let shown = action.entry.get_shown(action.shown);
    shown.is_some_and(|v| v.attributes.is_some())
}

fn document(view: &PlanView, preview: &Preview) -> serde_json::Value {
    let rows: Vec<_> = preview
        .lines
        .iter()
        .zip(&view.rows)
        .map(|(line, shown)| {
            let have: Vec<String> = line.cells.iter().map(|c| format!("{c:?}").to_lowercase()).collect();
            let mut body =
                json!({ "class": shown.class, "action": shown.action, "bytes": shown.bytes, "have": have });
            put_path(&mut body, "path", &line.path);
            if let Some(from) = renamed_from(line) {
                put_path(&mut body, "from_path", from);
            }
            body
        })
        .collect();
    let meeting = preview.meeting.as_ref().map(|m| meeting(m, &view.labels));
    json!({ "replicas": view.labels, "locations": view.locations, "rows": rows, "guards": view.guards,
        "meeting": meeting })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use instep_core::entry::Entry;
    use instep_core::id::ContentId;
    use instep_core::plan::{Action, Keep};
    use instep_core::time::Mtime;

    use super::*;

    fn line(goals: &[(usize, Goal)], cells: &[preview::Cell]) -> Line {
        let action = |(replica, goal): &(usize, Goal)| Action {
            replica: *replica,
            path: RelPath::new(b"a/b").unwrap(),
            before: Precondition::Absent,
            goal: goal.clone(),
            keep: Keep::Trash,
            entry: Entry::default(),
            shown: None,
        };
        Line {
            path: RelPath::new(b"a/b").unwrap(),
            cells: cells.to_vec(),
            actions: goals.iter().map(action).collect(),
            origin: 0,
            conflict: false,
            held: false,
        }
    }

    #[test]
    fn lines_are_told_by_what_is_done() {
        use preview::Cell::{Absent, Cannot, Has};
        let labels: Vec<String> = ["A", "B", "C"].map(String::from).to_vec();
        let file = Goal::File {
            content: ContentId::NONE,
            size: 10,
            mode: 0o644,
            mtime: Mtime::default(),
        };
        let copy = row(
            &line(
                &[(0, Goal::Record), (1, file.clone()), (2, file)],
                &[Has, Absent, Absent],
            ),
            &labels,
        );
        assert_eq!(
            (copy.class.as_str(), copy.action.as_str(), copy.bytes),
            ("copy", "copy A to B C", 20)
        );
        let from = RelPath::new(b"old").unwrap();
        let moved = row(
            &line(&[(1, Goal::Rename { from })], &[Has, Absent, Absent]),
            &labels,
        );
        assert_eq!(
            (moved.path.as_str(), moved.cells[0]),
            ("old to a/b", Cell::Renamed)
        );
        let mut held = line(&[(1, Goal::Absent)], &[Absent, Has, Has]);
        held.held = true;
        let held = row(&held, &labels);
        assert_eq!(
            (held.class.as_str(), held.action.as_str()),
            ("held", "trash on B, held")
        );
        assert_eq!(
            row(&line(&[], &[Has, Cannot, Has]), &labels).class,
            "cannot"
        );
    }
}
