//! `conflicts`: lists, shows and settles what lost and is kept.

use std::path::PathBuf;

use instep_engine::command::{Command, Keep};
use instep_replica::records::{ConflictRecord, ShareRecord};
use serde_json::json;

use super::change::carry_out;
use super::{Context, Opened};
use crate::args::{self, ConflictsCommand, ConflictsList, Resolve};
use crate::error::{Exit, Failure};
use crate::quantity::{age, bytes, counted, date_time};
use crate::records::{self, Kept, find, short_id};
use crate::system_env::wall_ns;
use crate::targets::named;
use crate::ui::Style;
use crate::ui::put::Put as _;
use crate::ui::table::Table;

/// Carries it out.
pub(crate) fn run(args: args::Conflicts, context: &Context) -> Result<Exit, Failure> {
    match args.what {
        None => list(&args.list, context),
        Some(ConflictsCommand::List(args)) => list(&args, context),
        Some(ConflictsCommand::Show { id, roots }) => show(&id, &roots, context),
        Some(ConflictsCommand::Resolve(args)) => resolve(args, context),
    }
}

fn list(args: &ConflictsList, context: &Context) -> Result<Exit, Failure> {
    let opened = context.read(&args.roots)?;
    let all = records::conflicts(&opened.replicas, args.all)?;
    let share = records::share(&opened.replicas)?;
    if context.output.style.json {
        let all: Vec<_> = all.iter().map(|k| document(k, &share)).collect();
        context.output.json("conflicts", json!(all));
    } else if all.is_empty() {
        context.output.note("no open conflicts");
    } else {
        context.output.result(&render(&all, &share, wall_ns()));
    }
    let open = all.iter().any(|k| k.body.resolved.is_none());
    Ok(if open { Exit::Conflicts } else { Exit::Done })
}

/// The name of the replica that a dot's actor belongs to; where nothing has won, each shows its own.
fn author(share: &ShareRecord, dot: &str) -> String {
    if dot.is_empty() {
        return String::from("its own");
    }
    let actor = dot.split(':').next().and_then(|a| a.parse().ok());
    actor
        .and_then(|a| share.label_of(a))
        .unwrap_or("?")
        .to_owned()
}

fn document(kept: &Kept<ConflictRecord>, share: &ShareRecord) -> serde_json::Value {
    json!({ "id": short_id(&kept.key), "dot": kept.key, "record": kept.body,
        "loser_by": author(share, &kept.body.loser), "winner_by": author(share, &kept.body.winner) })
}

fn render(all: &[Kept<ConflictRecord>], share: &ShareRecord, now_ns: i64) -> String {
    let mut table = Table::new(&["ID", "PATH", "AT THE PATH", "KEPT ASIDE", "SIZE", "AGE", ""]);
    for k in all {
        table.row([
            short_id(&k.key),
            k.body.path.clone(),
            author(share, &k.body.winner),
            author(share, &k.body.loser),
            bytes(k.body.size),
            age(now_ns, k.body.noticed_ns),
            k.body
                .resolved
                .as_ref()
                .map_or_else(String::new, |how| format!("resolved: {how}")),
        ]);
    }
    table.render()
}

fn show(id: &str, roots: &[PathBuf], context: &Context) -> Result<Exit, Failure> {
    let opened = context.read(roots)?;
    let all = records::conflicts(&opened.replicas, true)?;
    let share = records::share(&opened.replicas)?;
    let kept = find(&all, id, "conflict")?;
    if context.output.style.json {
        context.output.json("conflict", document(kept, &share));
    } else {
        let at = opened
            .targets
            .first()
            .map_or(String::new(), |t| t.root.typed.display().to_string());
        context
            .output
            .result(&detail(kept, &share, &at, &context.output.style));
    }
    Ok(Exit::Done)
}

fn detail(kept: &Kept<ConflictRecord>, share: &ShareRecord, at: &str, style: &Style) -> String {
    let c = &kept.body;
    let (id, winner, loser) = (
        short_id(&kept.key),
        author(share, &c.winner),
        author(share, &c.loser),
    );
    let mut out = format!(
        "{}   conflict {id}, decided by policy {}\n",
        c.path, c.policy
    );
    let hash: String = c.content.chars().take(12).collect();
    let what = format!("{} {}   b3:{hash}", c.kind, bytes(c.size));
    let mut sides = Table::new(&[]);
    sides.row([
        "  at the path ",
        &winner,
        &date_time(c.winner_te, &style.zone),
    ]);
    sides.row([
        "  kept aside ",
        &loser,
        &date_time(c.te, &style.zone),
        &what,
    ]);
    out.put(format_args!("{}", sides.render()));
    match &c.resolved {
        Some(how) => out.put(format_args!("  resolved: {how}\n")),
        None => {
            let mut ways = Table::new(&[]);
            for (keep, effect) in [
                (winner.as_str(), "leave it as it is"),
                (loser.as_str(), "put the other at the path"),
                ("both", "put the other beside it"),
            ] {
                if keep == winner && c.winner.is_empty() {
                    continue;
                }
                let command = format!("instep conflicts resolve {id} --keep {keep} {at}");
                let head = if ways.is_empty() { "  you can " } else { "" };
                ways.row([head, &command, effect]);
            }
            out.put(format_args!("{}", ways.render()));
        }
    }
    out
}

fn resolve(args: Resolve, context: &Context) -> Result<Exit, Failure> {
    let mut operands = args.operands;
    let id = if args.all || operands.is_empty() {
        None
    } else {
        Some(operands.remove(0))
    };
    let roots: Vec<PathBuf> = operands.into_iter().map(PathBuf::from).collect();
    if id.is_none() && !args.all {
        return Err(
            Failure::new(1000, Exit::Usage, "it is not said which conflict")
                .why("an id, or --all for every open conflict, is needed")
                .remedy("instep conflicts resolve ID --keep NAME FOLDER")
                .remedy("instep conflicts resolve --all --keep NAME FOLDER"),
        );
    }
    let how = Keep::from_word(&args.keep);
    let id = {
        let opened = context.read(&roots)?;
        check_name(&how, &opened)?;
        match id {
            None => None,
            Some(typed) => {
                let all = records::conflicts(&opened.replicas, false)?;
                Some(
                    find(&all, &typed.to_string_lossy(), "conflict")?
                        .key
                        .clone(),
                )
            }
        }
    };
    let mut count = 0;
    for target in one_per_share(named(&roots)?) {
        let request = Command::Resolve {
            id: id.clone(),
            keep: how.clone(),
        };
        count += carry_out(&target, &[request], context)?;
    }
    if context.output.style.json {
        context.output.json("resolved", json!({ "count": count }));
    } else {
        context.output.line(&format!(
            "{} settled; what is not at the path is in trash",
            counted(count, "conflict")
        ));
    }
    Ok(Exit::Done)
}

/// A name must be of a member of the share.
fn check_name(how: &Keep, opened: &Opened) -> Result<(), Failure> {
    let Keep::Replica(name) = how else {
        return Ok(());
    };
    let share = records::share(&opened.replicas)?;
    let is_id = share.members.contains_key(name);
    let labels: Vec<&str> = share.members.values().map(|m| m.label.as_str()).collect();
    if is_id {
        Ok(())
    } else {
        super::sync::index_of(&labels, name).map(drop)
    }
}

/// A request to a share is carried out once, however many of its folders were named.
pub(crate) fn one_per_share(targets: Vec<crate::targets::Target>) -> Vec<crate::targets::Target> {
    let mut out: Vec<crate::targets::Target> = Vec::new();
    for target in targets {
        if out.iter().all(|t| t.member.share != target.member.share) {
            out.push(target);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use instep_replica::records::Member;

    use super::*;
    use crate::snapshot;
    use crate::ui::capture;

    #[test]
    fn conflicts_are_told_as_recorded() {
        let member = |label: &str, actor: &str| Member {
            label: label.into(),
            location: String::new(),
            actors: vec![actor.into()],
            gone: false,
        };
        let members = [
            ("01", member("laptop", "0000000000000001")),
            ("02", member("usb", "0000000000000002")),
        ];
        let share = ShareRecord {
            policies: BTreeMap::new(),
            members: members
                .into_iter()
                .map(|(k, m)| (k.to_owned(), m))
                .collect(),
        };
        let noon = 1_772_373_731_000_000_000;
        let body = ConflictRecord {
            path: "budget.ods".into(),
            path_hex: String::new(),
            loser: "0000000000000002:9".into(),
            winner: "0000000000000001:4".into(),
            content: "ab".repeat(32),
            kind: "file".into(),
            size: 12_697,
            mode: 0o644,
            te: noon - 240_000_000_000,
            winner_te: noon,
            policy: "newest".into(),
            noticed_ns: noon,
            resolved: None,
            resolved_ns: None,
        };
        let kept = Kept {
            replica: 0,
            key: body.loser.clone(),
            body,
        };
        let all = [kept.clone()];
        snapshot::check(
            "conflicts",
            &render(&all, &share, noon + 4 * 3_600_000_000_000),
        );
        snapshot::check(
            "conflicts-show",
            &detail(&kept, &share, "~/notes", &capture::style()),
        );
    }
}
