//! `holds`: lists and shows what is held, and carries decisions out.

use std::path::PathBuf;

use instep_engine::command::Command;
use instep_replica::records::HoldRecord;
use serde_json::json;

use super::change::carry_out;
use super::conflicts::one_per_share;
use super::{Context, Opened};
use crate::args::{self, HoldId, HoldsCommand};
use crate::control::protocol::path;
use crate::error::{Exit, Failure};
use crate::quantity::{age, count, counted, date_time};
use crate::records::{self, Kept, find};
use crate::system_env::wall_ns;
use crate::targets::named;
use crate::ui::json::hold_word;
use crate::ui::put::Put as _;
use crate::ui::table::Table;

/// Carries it out.
pub(crate) fn run(args: args::Holds, context: &Context) -> Result<Exit, Failure> {
    match args.what {
        None => list(&args.roots, context),
        Some(HoldsCommand::List { roots }) => list(&roots, context),
        Some(HoldsCommand::Show(hold)) => show(&hold, context),
        Some(HoldsCommand::Approve(hold)) => {
            decide(&hold, Command::Approve, "let through", context)
        }
        Some(HoldsCommand::Reject(hold)) => decide(&hold, Command::Reject, "undone", context),
    }
}

fn percent(hold: &HoldRecord) -> u64 {
    (hold.count * 100).checked_div(hold.total).unwrap_or(0)
}

fn list(roots: &[PathBuf], context: &Context) -> Result<Exit, Failure> {
    let opened = context.read(roots)?;
    let all = records::holds(&opened.replicas)?;
    if context.output.style.json {
        let all: Vec<_> = all.iter().map(|k| document(k, &opened)).collect();
        context.output.json("holds", json!(all));
    } else if all.is_empty() {
        context.output.note("nothing is held");
    } else {
        let mut table = Table::new(&["ID", "HELD", "OF", "ON", "AGE"]);
        for k in &all {
            let held = format!("{} {}", count(k.body.count), hold_word(k.body.kind));
            let of = format!("{} ({} %)", count(k.body.total), percent(&k.body));
            let on = opened.label(k.replica).to_owned();
            table.row([k.key.clone(), held, of, on, age(wall_ns(), k.body.since_ns)]);
        }
        context.output.result(&table.render());
    }
    Ok(if all.is_empty() {
        Exit::Done
    } else {
        Exit::Held
    })
}

fn document(kept: &Kept<HoldRecord>, opened: &Opened) -> serde_json::Value {
    let h = &kept.body;
    json!({ "id": kept.key, "replica": opened.label(kept.replica), "kind": hold_word(h.kind),
        "count": h.count, "total": h.total, "since_ns": h.since_ns, "paths_hex": h.paths_hex })
}

fn show(hold: &HoldId, context: &Context) -> Result<Exit, Failure> {
    let opened = context.read(&hold.roots)?;
    let all = records::holds(&opened.replicas)?;
    let kept = find(&all, &hold.id, "hold")?;
    if context.output.style.json {
        context.output.json("hold", document(kept, &opened));
    } else {
        let at = opened
            .targets
            .get(kept.replica)
            .map_or(String::new(), |t| t.root.typed.display().to_string());
        let seen = date_time(kept.body.since_ns, &context.output.style.zone);
        context.output.result(&detail(
            kept,
            opened.label(kept.replica),
            &at,
            &seen,
            context.output.style.verbose,
        ));
    }
    Ok(Exit::Held)
}

fn detail(kept: &Kept<HoldRecord>, label: &str, at: &str, seen: &str, all: bool) -> String {
    const SOME: usize = 20;
    let (h, id) = (&kept.body, &kept.key);
    let mut out = format!(
        "HOLD {id}   {} {} ({} %)   seen on {label} {seen}\n",
        count(h.count),
        hold_word(h.kind),
        percent(h)
    );
    out.push_str(
        "  meanwhile    edits and new files keep flowing; nothing has been deleted anywhere else\n",
    );
    out.push_str("  it ends by itself if the files come back\n");
    out.put(format_args!(
        "  you can      instep holds approve {id} {at}   the others do the same (to trash)\n"
    ));
    out.put(format_args!(
        "               instep holds reject {id} {at}   put them back on {label}\n"
    ));
    let shown = if all {
        h.paths_hex.len()
    } else {
        SOME.min(h.paths_hex.len())
    };
    for hex in &h.paths_hex[..shown] {
        out.put(format_args!(
            "    {}\n",
            path(hex).map_or_else(|_| hex.clone(), |p| p.to_string())
        ));
    }
    if shown < h.paths_hex.len() {
        let rest = counted((h.paths_hex.len() - shown) as u64, "path");
        out.put(format_args!("    and {rest} more (-v shows all)\n"));
    }
    out
}

fn decide(
    hold: &HoldId,
    request: impl Fn(String) -> Command,
    done: &str,
    context: &Context,
) -> Result<Exit, Failure> {
    let id = {
        let opened = context.read(&hold.roots)?;
        find(&records::holds(&opened.replicas)?, &hold.id, "hold")?
            .key
            .clone()
    };
    let mut concerned = 0;
    for target in one_per_share(named(&hold.roots)?) {
        concerned += carry_out(&target, &[request(id.clone())], context)?;
    }
    if context.output.style.json {
        context.output.json(
            "hold",
            json!({ "id": id, "decision": done, "count": concerned }),
        );
    } else {
        context
            .output
            .line(&format!("hold {id} {done}: {}", counted(concerned, "path")));
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use instep_replica::records::HoldKind;

    use super::*;
    use crate::snapshot;

    #[test]
    fn a_hold_is_told_as_recorded() {
        let paths = (0..22).map(|i| format!("612f{:02x}", 0x61 + i)).collect();
        let body = HoldRecord {
            kind: HoldKind::Deletes,
            replica: String::new(),
            since_ns: 0,
            count: 1_380,
            total: 1_437,
            paths_hex: paths,
            decision: None,
        };
        let kept = Kept {
            replica: 0,
            key: "7f3a".into(),
            body,
        };
        snapshot::check(
            "holds-show",
            &detail(&kept, "laptop", "~/code", "10:04:11", false),
        );
        assert_eq!(
            detail(&kept, "laptop", "~/code", "", true)
                .matches("    a/")
                .count(),
            22
        );
        let none = HoldRecord {
            total: 0,
            ..kept.body
        };
        assert_eq!(percent(&none), 0);
    }
}
