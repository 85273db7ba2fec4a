//! `trash`: lists what was displaced, brings it back, destroys it on request.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use instep_core::path::RelPath;
use instep_engine::command::{Answer, Command};
use instep_replica::records::TrashRecord;
use serde_json::json;

use super::change::carry_out;
use super::conflicts::one_per_share;
use super::{Context, Opened};
use crate::args::{self, TrashCommand, TrashList};
use crate::control::protocol::path;
use crate::error::{Exit, Failure};
use crate::quantity::{bytes, counted, date_time};
use crate::records::{self, Kept};
use crate::system_env::wall_ns;
use crate::targets::{Target, named, with_members};
use crate::ui::Style;
use crate::ui::table::Table;

/// Carries it out.
pub(crate) fn run(args: args::Trash, context: &Context) -> Result<Exit, Failure> {
    match args.what {
        None => list(&args.list, context),
        Some(TrashCommand::List(args)) => list(&args, context),
        Some(TrashCommand::Restore {
            what,
            roots,
            since,
            to,
            dry_run,
        }) => restore(&Wanted { what, since, to }, &roots, dry_run, context),
        Some(TrashCommand::Empty { roots, older_than }) => empty(&roots, older_than, context),
        Some(TrashCommand::Size { roots }) => size(&roots, context),
    }
}

/// The instant so long ago.
fn ago(duration: Duration) -> i64 {
    wall_ns().saturating_sub(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
}

fn list(args: &TrashList, context: &Context) -> Result<Exit, Failure> {
    let opened = context.read(&args.roots)?;
    let mut all = records::trash(&opened.replicas)?;
    let share = records::share(&opened.replicas)?;
    for kept in &mut all {
        // The record may name who superseded it by actor, which means nothing to a person.
        let label = kept
            .body
            .by
            .parse()
            .ok()
            .and_then(|actor| share.label_of(actor));
        if let Some(label) = label {
            label.clone_into(&mut kept.body.by);
        }
    }
    let since = args.since.map(ago);
    all.retain(|k| since.is_none_or(|s| k.body.at_ns >= s));
    if let Some(pattern) = &args.pattern {
        all.retain(|k| k.body.path.contains(pattern.as_str()));
    }
    if context.output.style.json {
        let all: Vec<_> = all
            .iter()
            .map(|k| json!({ "id": k.key, "replica": opened.label(k.replica), "record": k.body }))
            .collect();
        context.output.json("trash", json!(all));
    } else if all.is_empty() {
        context.output.note("the trash is empty");
    } else {
        let rows: Vec<(&str, &Kept<TrashRecord>)> =
            all.iter().map(|k| (opened.label(k.replica), k)).collect();
        context.output.result(&render(&rows, &context.output.style));
    }
    Ok(Exit::Done)
}

fn render(rows: &[(&str, &Kept<TrashRecord>)], style: &Style) -> String {
    let mut table = Table::new(&["WHEN", "IN", "PATH", "WHY", "BY", "SIZE", "ID"]).right(5);
    for (label, k) in rows {
        let path = if k.body.kind == "directory" {
            format!("{}/", k.body.path)
        } else {
            k.body.path.clone()
        };
        table.row([
            date_time(k.body.at_ns, &style.zone),
            (*label).to_owned(),
            path,
            k.body.why.clone(),
            k.body.by.clone(),
            bytes(k.body.size),
            k.key.clone(),
        ]);
    }
    table.render()
}

/// What is to be brought back.
struct Wanted {
    what: OsString,
    since: Option<Duration>,
    to: Option<OsString>,
}

/// The newest object of each path that was asked for; an object whose directory is brought back comes with it.
fn select<'a>(
    all: &'a [Kept<TrashRecord>],
    what: &OsStr,
    since: Option<i64>,
) -> Vec<(&'a Kept<TrashRecord>, RelPath)> {
    let typed = what.to_string_lossy();
    let by_id = all.iter().find(|k| k.key == *typed);
    if let Some(kept) = by_id {
        return path(&kept.body.path_hex)
            .map(|p| (kept, p))
            .into_iter()
            .collect();
    }
    let bytes = what.as_bytes();
    let trimmed = bytes.strip_suffix(b"/").unwrap_or(bytes);
    let Ok(wanted) = RelPath::new(trimmed.strip_prefix(b"./").unwrap_or(trimmed)) else {
        return Vec::new();
    };
    let mut taken = BTreeSet::new();
    let mut out = Vec::new();
    for kept in all
        .iter()
        .filter(|k| since.is_none_or(|s| k.body.at_ns >= s))
    {
        let Ok(path) = path(&kept.body.path_hex) else {
            continue;
        };
        if path.is_within(&wanted) && taken.insert(path.as_bytes().to_vec()) {
            out.push((kept, path));
        }
    }
    out.sort_by(|(_, a), (_, b)| a.cmp(b));
    out
}

fn restore(
    wanted: &Wanted,
    roots: &[PathBuf],
    dry_run: bool,
    context: &Context,
) -> Result<Exit, Failure> {
    let Some(target) = one_per_share(named(roots)?).into_iter().next() else {
        return Err(nothing(&wanted.what));
    };
    let (members, requests) = {
        let opened = context.read_share(&target)?;
        let all = records::trash(&opened.replicas)?;
        let chosen = select(&all, &wanted.what, wanted.since.map(ago));
        if chosen.is_empty() {
            return Err(nothing(&wanted.what));
        }
        let sum = chosen.iter().map(|(k, _)| k.body.size).sum();
        tell(chosen.len() as u64, sum, dry_run, context);
        if dry_run {
            return Ok(Exit::Done);
        }
        (members(&opened, &target)?, requests(&chosen, wanted)?)
    };
    let requests: Vec<Command> = requests
        .into_iter()
        .map(|(replica, key, to)| Command::Restore {
            replica: members[replica],
            key,
            to,
        })
        .collect();
    let count = carry_out(&target, &requests, context)?;
    if target.member.mirror {
        let text =
            "note  the next mirror takes it for an extra and displaces it again; copy it away";
        context.output.note(text);
    }
    if !context.output.style.json {
        context
            .output
            .line(&format!("{} restored", counted(count, "object")));
    }
    Ok(Exit::Done)
}

fn tell(count: u64, sum: u64, dry_run: bool, context: &Context) {
    if context.output.style.json {
        context.output.json(
            "restore",
            json!({ "count": count, "bytes": sum, "dry_run": dry_run }),
        );
    } else if dry_run {
        context.output.line(&format!(
            "would restore {}, {}",
            counted(count, "object"),
            bytes(sum)
        ));
    }
}

fn nothing(what: &OsStr) -> Failure {
    let what = what.to_string_lossy();
    Failure::new(
        1013,
        Exit::Usage,
        format!("there is nothing of {what} in the trash"),
    )
    .why("no object has this id, and none was displaced at or below this path")
    .remedy("instep trash list")
}

/// For each of our replicas, its place in the session that will carry the request out.
pub(super) fn members(opened: &Opened, target: &Target) -> Result<Vec<usize>, Failure> {
    let all = with_members(std::slice::from_ref(target));
    for member in &all {
        if let Some(mut client) = member.client()?
            && let Answer::Status(status) = client.ask(&Command::Status)?
        {
            let place = |label: &str| status.replicas.iter().position(|r| r.label == label);
            return opened
                .targets
                .iter()
                .map(|t| {
                    place(&t.member.label).ok_or_else(|| {
                        Failure::new(
                            1029,
                            Exit::Failed,
                            format!("{} is not in the running session", t.member.label),
                        )
                        .why("it can be changed when no session runs")
                        .remedy("stop the session, or name another copy by its id")
                    })
                })
                .collect();
        }
    }
    Ok((0..opened.targets.len()).collect())
}

type Request = (usize, String, Option<RelPath>);

fn requests(
    chosen: &[(&Kept<TrashRecord>, RelPath)],
    wanted: &Wanted,
) -> Result<Vec<Request>, Failure> {
    let Some(to) = &wanted.to else {
        return Ok(chosen
            .iter()
            .map(|(k, _)| (k.replica, k.key.clone(), None))
            .collect());
    };
    let bad = |e: instep_core::path::NameError| {
        Failure::new(
            1000,
            Exit::Usage,
            format!("{} is not a path inside the folder", to.to_string_lossy()),
        )
        .why(e.to_string())
        .remedy("write it relative to the top of the folder")
    };
    let to = RelPath::new(to.as_bytes()).map_err(bad)?;
    let top = RelPath::new(
        wanted
            .what
            .as_bytes()
            .strip_suffix(b"/")
            .unwrap_or(wanted.what.as_bytes()),
    );
    chosen
        .iter()
        .map(|(k, path)| {
            let moved = top
                .as_ref()
                .ok()
                .and_then(|top| path.rebase(top, &to))
                .unwrap_or_else(|| to.clone());
            Ok((k.replica, k.key.clone(), Some(moved)))
        })
        .collect()
}

fn empty(
    roots: &[PathBuf],
    older_than: Option<Duration>,
    context: &Context,
) -> Result<Exit, Failure> {
    let before_ns = older_than.map_or_else(wall_ns, ago);
    let mut count = 0;
    for target in one_per_share(named(roots)?) {
        count += carry_out(&target, &[Command::EmptyTrash { before_ns }], context)?;
    }
    if context.output.style.json {
        context.output.json("emptied", json!({ "count": count }));
    } else {
        context
            .output
            .line(&format!("{} destroyed", counted(count, "object")));
    }
    Ok(Exit::Done)
}

fn size(roots: &[PathBuf], context: &Context) -> Result<Exit, Failure> {
    let opened = context.read(roots)?;
    let all = records::trash(&opened.replicas)?;
    let mut table = Table::new(&["IN", "OBJECTS", "SIZE", "OLDEST"])
        .right(1)
        .right(2);
    let mut documents = Vec::new();
    for (i, target) in opened.targets.iter().enumerate() {
        let own: Vec<&TrashRecord> = all
            .iter()
            .filter(|k| k.replica == i)
            .map(|k| &k.body)
            .collect();
        let sum: u64 = own.iter().map(|r| r.size).sum();
        let oldest = own.iter().map(|r| r.at_ns).min();
        let label = &target.member.label;
        documents.push(
            json!({ "replica": label, "objects": own.len(), "bytes": sum, "oldest_ns": oldest }),
        );
        let oldest =
            oldest.map_or_else(String::new, |ns| date_time(ns, &context.output.style.zone));
        table.row([label.clone(), own.len().to_string(), bytes(sum), oldest]);
    }
    if context.output.style.json {
        context.output.json("trash-size", json!(documents));
    } else {
        context.output.result(&table.render());
    }
    Ok(Exit::Done)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;
    use crate::snapshot;
    use crate::ui::capture;

    fn kept(key: &str, path: &str, at_s: i64) -> Kept<TrashRecord> {
        let body = TrashRecord {
            path: path.into(),
            path_hex: crate::control::protocol::hex(path.as_bytes()),
            kind: if path == "reports" {
                "directory".into()
            } else {
                "file".into()
            },
            size: 90_112,
            at_ns: at_s * 1_000_000_000,
            why: "deleted".into(),
            by: "usb".into(),
            content: String::new(),
            loser: None,
            epoch: 0,
            unjudged: false,
        };
        Kept {
            replica: 0,
            key: key.into(),
            body,
        }
    }

    #[test]
    fn the_newest_of_each_path_is_chosen_and_neighbours_are_not() {
        let all = [
            kept("k3", "a/x", 30),
            kept("k2", "a/x", 20),
            kept("k1", "a", 10),
            kept("k0", "ab", 5),
        ];
        let keys = |what: &str, since| {
            let chosen = select(&all, OsStr::new(what), since);
            chosen
                .iter()
                .map(|(k, _)| k.key.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(keys("a/", None), ["k1", "k3"]);
        assert_eq!(keys("./a/x", None), ["k3"]);
        assert_eq!(keys("k2", None), ["k2"]);
        assert_eq!(keys("a", Some(15_000_000_000)), ["k3"]);
        assert!(keys("b", None).is_empty() && keys("../a", None).is_empty());
        snapshot::check("error-E1013-trash", &nothing(OsStr::new("b")).render());
    }

    #[test]
    fn what_is_below_goes_below_the_new_place() {
        let all = [kept("k3", "a/x", 30)];
        let wanted = Wanted {
            what: "a/".into(),
            since: None,
            to: Some("old/a".into()),
        };
        let chosen = select(&all, &wanted.what, None);
        let to = requests(&chosen, &wanted).unwrap()[0].2.clone().unwrap();
        assert_eq!(to.to_string(), "old/a/x");
    }

    #[test]
    fn the_trash_is_told_as_recorded() {
        let all = [
            kept("00ff-1", "reports", 1_772_373_731),
            kept("00ff-2", "q1.odt", 1_772_373_700),
        ];
        let rows: Vec<_> = all.iter().map(|k| ("A", k)).collect();
        snapshot::check("trash", &render(&rows, &capture::style()));
    }
}
