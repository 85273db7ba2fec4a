//! `verify`: reads every file again and compares it with the index and with the other replicas. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use instep_chunk::Hasher;
use instep_core::id::ContentId;
use instep_core::path::RelPath;
use instep_core::version::{Kind, Version};
use instep_replica::{Found, Replica, Scope};
use serde_json::json;

use super::Context;
use crate::args;
use crate::error::{Exit, Failure};
use crate::quantity::{bytes, counted};
use crate::ui::json::put_path;

/// What is wrong with a path.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    label: String,
    path: RelPath,
    what: &'static str,
    /// What was recorded.
    content: ContentId,
    /// Who has that, and was read without fault.
    good_on: Vec<String>,
}

/// What was read.
#[derive(Debug, Default)]
struct Report {
    files: u64,
    bytes: u64,
    damage: Vec<Finding>,
    pending: u64,
    unreadable: Vec<Finding>,
    differing: BTreeSet<RelPath>,
}

/// Carries it out.
pub(crate) fn run(args: &args::Verify, context: &Context) -> Result<Exit, Failure> {
    let opened = context.read(&args.roots)?;
    let mut report = Report::default();
    let mut have: Contents = BTreeMap::new();
    let mut good: Good = BTreeMap::new();
    for (i, replica) in opened.replicas.iter().enumerate() {
        context.output.note(&format!(
            "reading {}",
            opened.targets[i].root.typed.display()
        ));
        verify(opened.label(i), replica, &mut report, &mut have, &mut good)?;
    }
    for finding in report.damage.iter_mut().chain(&mut report.unreadable) {
        let key = (finding.path.clone(), finding.content);
        finding.good_on = good.get(&key).cloned().unwrap_or_default();
    }
    let replicas = opened.replicas.len();
    let differ = |ids: &Vec<ContentId>| ids.len() < replicas || ids.iter().any(|id| *id != ids[0]);
    report.differing = have
        .into_iter()
        .filter(|(_, ids)| differ(ids))
        .map(|(path, _)| path)
        .collect();
    tell(&report, context);
    let mut exits = Vec::new();
    if !report.damage.is_empty() {
        exits.push(Exit::Damage);
    }
    if !report.unreadable.is_empty() {
        exits.push(Exit::SomeFailed);
    }
    Ok(Exit::first(&exits))
}

/// What the replicas have at each path.
type Contents = BTreeMap<RelPath, Vec<ContentId>>;
/// Who has a content at a path and was read without fault.
type Good = BTreeMap<(RelPath, ContentId), Vec<String>>;

/// Reads one replica. A file that was changed since the index was written is pending, not damaged; but nobody
/// changes what is in a file and neither its size nor its time.
fn verify(
    label: &str,
    replica: &Arc<dyn Replica>,
    report: &mut Report,
    have: &mut Contents,
    good: &mut Good,
) -> Result<(), Failure> {
    let look = replica.look(&Scope::Everything)?;
    let changed: BTreeMap<RelPath, Found> = look
        .findings
        .into_iter()
        .map(|f| (f.path, f.found))
        .collect();
    let mut pending = changed.len() as u64;
    let mut files = Vec::new();
    replica.subtree(&RelPath::root(), &mut |path, row| {
        if let Some(v) = row.present().filter(|v| v.kind == Kind::File) {
            let found = changed.get(&path);
            let decayed = found.is_some_and(|found| is_decay(found, v));
            pending -= u64::from(decayed);
            if found.is_none() || decayed {
                files.push((path, v.content, v.size, decayed));
            }
        }
        ControlFlow::Continue(())
    })?;
    report.pending += pending;
    let mut buffer = vec![0; 1 << 20];
    for (path, content, size, decayed) in files {
        have.entry(path.clone()).or_default().push(content);
        report.files += 1;
        report.bytes += size;
        let finding = |what| Finding {
            label: label.to_owned(),
            path: path.clone(),
            what,
            content,
            good_on: Vec::new(),
        };
        // The look has read what is there instead.
        let read = if decayed {
            Read::Other
        } else {
            read(replica, &path, content, &mut buffer)?
        };
        match read {
            Read::Same => {
                let key = (path.clone(), content);
                good.entry(key).or_default().push(label.to_owned());
            }
            Read::Other => report
                .damage
                .push(finding("has other content than was recorded")),
            Read::Failed => report.unreadable.push(finding("cannot be read")),
        }
    }
    Ok(())
}

/// Whether a file has other content than was recorded although its size and time are those recorded.
fn is_decay(found: &Found, recorded: &Version) -> bool {
    match found {
        Found::Present {
            kind,
            content,
            size,
            mtime,
            moved_from: None,
            ..
        } => {
            *kind == Kind::File
                && *content != recorded.content
                && (*size, *mtime) == (recorded.size, recorded.mtime)
        }
        _ => false,
    }
}

enum Read {
    Same,
    Other,
    Failed,
}

fn read(
    replica: &Arc<dyn Replica>,
    path: &RelPath,
    content: ContentId,
    buffer: &mut [u8],
) -> Result<Read, Failure> {
    let Some(mut file) = replica.open(path, content)? else {
        return Ok(Read::Failed);
    };
    let mut hasher = Hasher::new();
    let mut offset = 0;
    loop {
        match file.read_at(offset, buffer) {
            Ok(0) => break,
            Ok(n) => {
                hasher.update(&buffer[..n]);
                offset += n as u64;
            }
            Err(_) => return Ok(Read::Failed),
        }
    }
    Ok(if hasher.finish() == content {
        Read::Same
    } else {
        Read::Other
    })
}

fn tell(report: &Report, context: &Context) {
    let output = &context.output;
    if output.style.json {
        let all = |findings: &[Finding]| -> Vec<serde_json::Value> {
            findings
                .iter()
                .map(|f| {
                    let mut body =
                        json!({ "replica": f.label, "what": f.what, "good_on": f.good_on });
                    put_path(&mut body, "path", &f.path);
                    body
                })
                .collect()
        };
        output.json(
            "verify",
            json!({ "files": report.files, "bytes": report.bytes, "damage": all(&report.damage),
                "unreadable": all(&report.unreadable), "pending": report.pending,
                "differing": report.differing.len() }),
        );
        return;
    }
    for f in report.damage.iter().chain(&report.unreadable) {
        let good = match f.good_on.as_slice() {
            [] => String::from("no good copy was found"),
            labels => format!("good copy on {}", labels.join(" ")),
        };
        output.line(&format!("{}: {} {}; {good}", f.label, f.path, f.what));
    }
    let mut parts = vec![format!(
        "{} read ({})",
        counted(report.files, "file"),
        bytes(report.bytes)
    )];
    parts.push(format!("{} damaged", report.damage.len()));
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
    output.line(&parts.join(output.style.dot()));
}
