//! `log`: what happened, newest first.

use instep_replica::records::LogRecord;
use serde_json::json;

use super::Context;
use crate::args::{self, Session};
use crate::error::{Exit, Failure};
use crate::quantity::{bytes, count, date_time};
use crate::records;
use crate::system_env::wall_ns;
use crate::targets::{holding, named};
use crate::ui::Style;
use crate::ui::table::Table;

/// Carries it out.
pub(crate) fn run(args: &args::Log, context: &Context) -> Result<Exit, Failure> {
    let targets = match &args.path {
        Some(path) => holding(path)?,
        None => named(&[])?
            .into_iter()
            .map(|t| (t, instep_core::path::RelPath::root()))
            .collect(),
    };
    let env = Context::env(None)?;
    let settings = context.settings(&Session::default());
    let since = args
        .since
        .map(|d| wall_ns().saturating_sub(i64::try_from(d.as_nanos()).unwrap_or(i64::MAX)));
    let mut all = Vec::new();
    for (target, path) in targets {
        let replica = target.read(&env, &settings)?;
        let below = if path.is_root() {
            String::new()
        } else {
            path.to_string()
        };
        all.extend(records::log(&replica)?.into_iter().filter(|r| {
            since.is_none_or(|s| r.at_ns >= s)
                && (touches(&r.path, &below)
                    || r.from_path.as_deref().is_some_and(|p| touches(p, &below)))
        }));
    }
    all.sort_by_key(|r| std::cmp::Reverse(r.at_ns));
    let shown = if args.limit == 0 {
        all.len()
    } else {
        args.limit.min(all.len())
    };
    if context.output.style.json {
        context.output.json("log", json!(&all[..shown]));
        return Ok(Exit::Done);
    }
    context
        .output
        .result(&render(&all[..shown], &context.output.style));
    if shown < all.len() {
        context.output.note(&format!(
            "and {} more (--limit 0 shows all)",
            count((all.len() - shown) as u64)
        ));
    }
    Ok(Exit::Done)
}

/// Whether a path is another one or below it.
fn touches(path: &str, below: &str) -> bool {
    below.is_empty()
        || path
            .strip_prefix(below)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn render(all: &[LogRecord], style: &Style) -> String {
    let mut table = Table::new(&[]);
    for r in all {
        let path = match &r.from_path {
            Some(from) => format!("{from} {} {}", style.arrow(), r.path),
            None => r.path.clone(),
        };
        let similar = if r.similar > 0 {
            format!("+ {} similar", count(r.similar))
        } else {
            String::new()
        };
        let size = if r.size > 0 {
            bytes(r.size)
        } else {
            String::new()
        };
        let route = format!("{} {} {}", r.from, style.arrow(), r.to.join(" "));
        table.row([
            date_time(r.at_ns, &style.zone),
            route,
            r.what.clone(),
            path,
            size,
            similar,
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot;
    use crate::ui::capture;

    #[test]
    fn the_log_is_told_as_recorded() {
        let record = |what: &str, path: &str, similar| LogRecord {
            at_ns: 1_772_373_731_000_000_000,
            what: what.into(),
            path: path.into(),
            from_path: (what == "move").then(|| "old.txt".into()),
            from: "A".into(),
            to: vec!["B".into(), "C".into()],
            size: 90_112,
            similar,
        };
        let all = [
            record("update", "reports/q1.odt", 41),
            record("move", "new.txt", 0),
        ];
        snapshot::check("log", &render(&all, &capture::style()));
    }

    #[test]
    fn a_path_stands_for_itself_and_what_is_below() {
        assert!(touches("a/b", "a") && touches("a", "a") && touches("x", ""));
        assert!(!touches("ab", "a"));
    }
}
