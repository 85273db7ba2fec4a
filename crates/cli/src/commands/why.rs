//! `why`: explains one path, told by whoever holds the folder, else from the rows.

use std::collections::BTreeSet;
use std::sync::Arc;

use instep_core::conflict::kind_word;
use instep_core::path::RelPath;
use instep_core::plan::Code;
use instep_core::row::{Held, Row};
use instep_core::time::Mtime;
use instep_engine::command::{Answer, Command};
use instep_replica::Replica;
use instep_replica::records::DamageRecord;
use serde_json::json;

use super::Context;
use crate::args::{self, Session};
use crate::error::{Exit, Failure};
use crate::quantity::{bytes, date_time, shown_path};
use crate::targets::{holding, with_members};
use crate::ui::Style;

/// Carries it out.
pub(crate) fn run(args: &args::Why, context: &Context) -> Result<Exit, Failure> {
    let mut documents = Vec::new();
    for (target, path) in holding(&args.path)? {
        let lines = match target.client()? {
            Some(mut client) => match client.ask(&Command::Why(path.clone()))? {
                Answer::Why(lines) => lines,
                other => super::change::accepted(other).map(|_| Vec::new())?,
            },
            None => {
                let env = Context::env(None)?;
                let settings = context.settings(&Session::default());
                let members = with_members(std::slice::from_ref(&target));
                let open = members
                    .iter()
                    .map(|m| Ok((m.member.label.clone(), m.read(&env, &settings)?)));
                let replicas: Vec<(String, Arc<dyn Replica>)> =
                    open.collect::<Result<_, Failure>>()?;
                explain(&replicas, &path, &context.output.style)?
            }
        };
        if context.output.style.json {
            documents.push(json!({ "share_id": target.member.share.to_string(), "lines": lines }));
        } else {
            context.output.line(&shown_path(&args.path));
            for line in &lines {
                context.output.line(&format!("  {line}"));
            }
        }
    }
    if context.output.style.json {
        context.output.json("why", json!(documents));
    }
    Ok(Exit::Done)
}

/// What each replica has at a path, and why not what it should have.
fn explain(
    replicas: &[(String, Arc<dyn Replica>)],
    path: &RelPath,
    style: &Style,
) -> Result<Vec<String>, Failure> {
    let mut lines = Vec::new();
    if path.is_root() {
        lines.push(String::from("the top of a synchronized folder"));
        lines.push(String::from("instep status   says how it stands"));
        return Ok(lines);
    }
    let mut rows = Vec::new();
    for (label, replica) in replicas {
        rows.push((label, replica.row(path)?));
    }
    if rows.iter().all(|(_, row)| row.is_none()) {
        lines.push(String::from(
            "never synchronized: no folder has recorded it",
        ));
        lines.push(format!(
            "instep ignore test {path}   says whether a rule excludes it"
        ));
        return Ok(lines);
    }
    lines.push(verdict(rows.iter().map(|(_, row)| row.as_ref())).to_owned());
    for (label, row) in &rows {
        lines.push(format!("{label:<10} {}", describe(row.as_ref(), style)));
    }
    let counts = rows
        .iter()
        .filter_map(|(_, row)| row.as_ref())
        .map(versions);
    if let Some(count) = counts.max().filter(|n| *n > 1) {
        lines.push(format!(
            "{count} versions stand beside each other: instep conflicts"
        ));
    }
    for (label, replica) in replicas {
        if let Some(record) = DamageRecord::all(replica.as_ref())?.get(path) {
            let seen = date_time(record.since_ns, &style.zone);
            lines.push(format!(
                "{label}: its content changed although nobody wrote it, found {seen} ({})",
                Code::Damaged.text()
            ));
            lines.push(String::from(
                "it is neither passed on nor replaced: instep verify --repair or --accept",
            ));
        }
    }
    Ok(lines)
}

/// How many contents stand beside each other.
fn versions(row: &Row) -> usize {
    let siblings = row.entry.siblings().iter();
    let contents: BTreeSet<_> = siblings.map(|(_, v)| (v.kind as u8, v.content)).collect();
    contents.len()
}

/// How a path stands on all folders together.
fn verdict<'a>(rows: impl Iterator<Item = Option<&'a Row>> + Clone) -> &'static str {
    let mut shown = rows.clone().map(|row| row.and_then(Row::materialised));
    let first = shown.next().flatten();
    if first.is_some() && shown.all(|s| s == first) {
        return "the same on all folders that are there, when they were last looked at";
    }
    // What is held somewhere differs until its cause is gone; no pass changes that.
    if rows.clone().flatten().any(|row| row.held.is_some()) {
        return "not synchronized where it is held";
    }
    // Everybody knows every version and shows its own: only a person can decide.
    let mut entries = rows.clone().flatten().map(|row| &row.entry);
    let known = entries.next();
    let is_known = |row: Option<&Row>| row.is_some_and(|row| Some(&row.entry) == known);
    if rows.clone().all(is_known) && rows.clone().flatten().any(|row| versions(row) > 1) {
        return "each folder keeps its own until one is chosen";
    }
    "differs between folders; the next sync brings them together"
}

fn describe(row: Option<&Row>, style: &Style) -> String {
    let Some(row) = row else {
        return String::from("has never heard of it");
    };
    if let Some(held) = row.held {
        return String::from(match held {
            Held::Ignored => "ignored by a rule: instep ignore test PATH",
            Held::Special => "a special file: not synchronized (E2110)",
            Held::UnsafeLink => "a link that leaves the folder: not synchronized (E2111)",
            Held::NameClash => "another name has its place on this file system (E2114)",
            Held::Mount => "another file system is mounted there (E2113)",
        });
    }
    match row.on_disk() {
        Some(v) if v.is_tomb() => String::from("deleted"),
        Some(v) => {
            let size = if v.size > 0 {
                format!("   {}", bytes(v.size))
            } else {
                String::new()
            };
            let hash = if v.content == instep_core::id::ContentId::NONE {
                String::new()
            } else {
                format!("   b3:{}", v.content.short())
            };
            format!(
                "{}{size}   mode {:04o}   {}{hash}",
                kind_word(v.kind),
                v.mode,
                when(v.mtime, style)
            )
        }
        None if row.is_derived_dir() => {
            String::from("a directory that stands because of what is in it")
        }
        None => String::from("waits for it"),
    }
}

fn when(mtime: Mtime, style: &Style) -> String {
    mtime.nanos_since_epoch().map_or_else(
        || String::from("(a time out of range)"),
        |ns| date_time(ns, &style.zone),
    )
}
