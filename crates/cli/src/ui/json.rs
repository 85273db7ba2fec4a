//! Events and answers for programs: NDJSON, one object per line, flushed; additive within `"v":1`.
//!
//! Invariant: every object of a stream has `v`, `ts`, `seq` and `type`. A path that is not UTF-8 is shown
//! escaped and has its exact bytes in `path_b64`.

use instep_core::id::{ReplicaId, ShareId};
use instep_core::path::RelPath;
use instep_core::plan::Problem;
use instep_core::version::Kind;
use instep_engine::command::Status;
use instep_engine::report::{Change, ChangeKind, Event, Meeting, Progress, State, Summary};
use instep_replica::records::HoldKind;
use instep_replica::{Description, Totals};
use serde_json::{Map, Value, json};

use super::Output;
use crate::error::{Exit, Failure};
use crate::quantity;
use crate::reload::Applied;

/// Prints events as they come.
pub(crate) struct Stream {
    output: Output,
    labels: Vec<String>,
    share: String,
    seq: u64,
}

impl Stream {
    /// To an output.
    pub(crate) fn new(output: Output) -> Self {
        Self {
            output,
            labels: Vec::new(),
            share: String::new(),
            seq: 0,
        }
    }

    /// Prints one event.
    pub(crate) fn event(&mut self, event: &Event, now_ns: i64) {
        if let Event::Opened { share, replicas } = event {
            self.share = share.short();
            self.labels = replicas.iter().map(|(_, d)| d.label.clone()).collect();
        }
        if let Event::Joined {
            replica,
            description,
            ..
        } = event
        {
            let places = self.labels.len().max(replica + 1);
            self.labels.resize(places, String::new());
            self.labels[*replica].clone_from(&description.label);
        }
        let (kind, body) = self.body(event);
        self.emit(kind, body, now_ns);
    }

    /// The configuration was read again.
    pub(crate) fn config(&mut self, result: Result<&Applied, &Failure>, now_ns: i64) {
        let body = match result {
            Ok(applied) => json!({ "generation": applied.generation, "file": applied.file,
                "restart_for_more": applied.more }),
            Err(why) => json!({ "error": failure(why) }),
        };
        self.emit("config.generation", body, now_ns);
    }

    /// Prints how the program ends, with every code that applies.
    pub(crate) fn exit(&mut self, code: Exit, all: &[Exit], now_ns: i64) {
        let all: Vec<u8> = all.iter().map(|e| e.number()).collect();
        self.emit("exit", json!({ "code": code.number(), "all": all }), now_ns);
    }

    fn emit(&mut self, kind: &str, body: Value, now_ns: i64) {
        let mut object = Map::new();
        object.insert("v".into(), json!(1));
        object.insert("ts".into(), json!(quantity::rfc3339(now_ns)));
        object.insert("seq".into(), json!(self.seq));
        object.insert("type".into(), json!(kind));
        object.insert("share".into(), json!(self.share));
        if let Value::Object(fields) = body {
            object.extend(fields);
        }
        self.seq += 1;
        self.output.line(&Value::Object(object).to_string());
    }

    fn label(&self, replica: usize) -> &str {
        self.labels.get(replica).map_or("?", String::as_str)
    }

    fn body(&self, event: &Event) -> (&'static str, Value) {
        match event {
            Event::Opened { share, replicas } => ("share.opened", opened(*share, replicas)),
            Event::Joined {
                replica,
                id,
                description,
            } => (
                "replica.joined",
                self.on(*replica, introduced(*id, description)),
            ),
            Event::ScanStarted { replica } => ("scan.started", self.on(*replica, json!({}))),
            Event::Scanned {
                replica,
                totals,
                changes,
            } => ("scan.finished", self.on(*replica, sums(totals, *changes))),
            Event::Meeting(m) => ("meeting", meeting(m, &self.labels)),
            Event::Changed(c) => ("change.applied", self.change(c)),
            Event::Progress(p) => ("transfer.progress", progress(p)),
            Event::Problem {
                replica,
                problem: p,
                open: true,
            } => ("problem.opened", self.on(*replica, advised(p))),
            Event::Problem {
                replica,
                problem: p,
                ..
            } => ("problem.closed", self.on(*replica, problem(p))),
            Event::Conflict { .. } | Event::Resolved { .. } => of_conflict(event),
            Event::Hold { .. } => self.hold(event),
            Event::Restored { replica, path } => {
                ("trash.restored", self.on(*replica, at_path(path)))
            }
            Event::Purged { replica, objects } => (
                "trash.purged",
                self.on(*replica, json!({ "objects": objects })),
            ),
            Event::Replica {
                replica,
                state,
                why,
            } => (
                if *state == State::Offline {
                    "replica.offline"
                } else {
                    "replica.online"
                },
                self.on(*replica, json!({ "state": state_word(*state), "why": why })),
            ),
            Event::Notice { code, text } => (
                "notice",
                json!({ "code": format!("E{code:04}"), "text": text }),
            ),
            Event::Settled(s) => ("settled", summary(s)),
        }
    }

    /// What concerns one replica says which.
    fn on(&self, replica: usize, mut body: Value) -> Value {
        if let Value::Object(fields) = &mut body {
            fields.insert("replica".to_owned(), json!(self.label(replica)));
        }
        body
    }

    fn hold(&self, event: &Event) -> (&'static str, Value) {
        let Event::Hold {
            id,
            replica,
            count,
            total,
            kind,
            open,
        } = event
        else {
            return ("hold", json!({}));
        };
        let percent = (count * 100).checked_div(*total).unwrap_or(0);
        let body = json!({ "hold": id, "count": count, "total": total, "percent": percent,
            "kind": hold_word(*kind) });
        let word = if *open { "hold.opened" } else { "hold.closed" };
        (word, self.on(*replica, body))
    }

    fn change(&self, c: &Change) -> Value {
        let to: Vec<&str> = c.to.iter().map(|r| self.label(*r)).collect();
        let mut body = json!({ "kind": change_word(c.kind), "object": kind_word(c.object),
            "from": self.label(c.from), "to": to, "size": c.size,
            "lag_ms": c.lag_ns as f64 / 1e6 });
        put_path(&mut body, "path", &c.path);
        if let Some(from) = &c.from_path {
            put_path(&mut body, "from_path", from);
        }
        body
    }
}

fn introduced(id: ReplicaId, d: &Description) -> Value {
    json!({ "id": id.to_string(), "label": d.label, "location": d.location,
        "fs_type": d.fs_type, "new": d.new, "notes": d.notes })
}

fn opened(share: ShareId, replicas: &[(ReplicaId, Description)]) -> Value {
    let all: Vec<Value> = replicas.iter().map(|(id, d)| introduced(*id, d)).collect();
    json!({ "share_id": share.to_string(), "replicas": all })
}

fn sums(totals: &Totals, changes: u64) -> Value {
    json!({ "files": totals.files, "dirs": totals.dirs, "links": totals.links,
        "bytes": totals.bytes, "changes": changes })
}

fn progress(p: &Progress) -> Value {
    json!({ "actions_total": p.actions_total, "actions_done": p.actions_done,
        "bytes_total": p.bytes_total, "bytes_done": p.bytes_done, "scanned": p.scanned })
}

/// A difficulty of a path, and what can be done.
fn advised(p: &Problem) -> Value {
    let mut body = problem(p);
    if let Value::Object(fields) = &mut body {
        fields.insert("do".to_owned(), json!(crate::explain::advice(p.code)));
    }
    body
}

/// A difficulty of a path: what it is, and what the system said.
fn problem(p: &Problem) -> Value {
    let mut body = at_path(&p.path);
    if let Value::Object(fields) = &mut body {
        fields.insert("code".to_owned(), json!(p.code.text()));
        fields.insert("detail".to_owned(), json!(p.detail));
        if let Some(errno) = errno(&p.detail) {
            fields.insert("errno".to_owned(), json!(errno));
        }
    }
    body
}

/// The system's number of an error, from the words that told it.
fn errno(detail: &str) -> Option<i32> {
    let (_, rest) = detail.rsplit_once("(errno ")?;
    rest.split_once(')')?.0.parse().ok()
}

fn of_conflict(event: &Event) -> (&'static str, Value) {
    let (word, path, fields) = match event {
        Event::Conflict {
            path,
            loser,
            winner,
            content,
        } => (
            "conflict.opened",
            path,
            json!({ "id": loser.to_string(), "winner": winner.map(|w| w.to_string()),
                "hash": format!("b3:{content}") }),
        ),
        Event::Resolved { path, loser, keep } => (
            "conflict.resolved",
            path,
            json!({ "id": loser.to_string(), "keep": keep.word() }),
        ),
        _ => return ("conflict", json!({})),
    };
    let mut body = fields;
    put_path(&mut body, "path", path);
    (word, body)
}

fn at_path(path: &RelPath) -> Value {
    let mut body = json!({});
    put_path(&mut body, "path", path);
    body
}

/// A path as text, and its bytes where text does not say it all.
pub(crate) fn put_path(body: &mut Value, key: &str, path: &RelPath) {
    let Value::Object(fields) = body else { return };
    match std::str::from_utf8(path.as_bytes()) {
        Ok(text) => fields.insert(key.to_owned(), json!(text)),
        Err(_) => {
            fields.insert(format!("{key}_b64"), json!(base64(path.as_bytes())));
            fields.insert(key.to_owned(), json!(path.to_string()))
        }
    };
}

/// RFC 4648 with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let digit = DIGITS[(group >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= chunk.len() {
                char::from(digit)
            } else {
                '='
            });
        }
    }
    out
}

/// What the first meeting will do.
pub(crate) fn meeting(m: &Meeting, labels: &[String]) -> Value {
    let label = |i: usize| labels.get(i).map_or("?", String::as_str);
    let replicas: Vec<Value> = labels
        .iter()
        .enumerate()
        .map(|(i, l)| {
            let (entries, bytes) = m.receives.get(i).copied().unwrap_or_default();
            json!({ "label": l, "only_here": m.only_on.get(i).copied().unwrap_or(0),
                "receives": entries, "receives_bytes": bytes })
        })
        .collect();
    let newer: Vec<Value> = m
        .newer
        .iter()
        .map(|(a, b, first, second)| {
            json!({ "replicas": [label(*a), label(*b)], "newer": [first, second] })
        })
        .collect();
    json!({ "replicas": replicas, "differ": m.differ, "unread": m.unread, "newer": newer, "retained_bytes": m.retained_bytes })
}

/// Counts.
pub(crate) fn summary(s: &Summary) -> Value {
    json!({ "files": s.totals.files, "dirs": s.totals.dirs, "links": s.totals.links,
        "bytes": s.totals.bytes, "conflicts": s.conflicts, "holds": s.holds, "problems": s.problems,
        "waiting": s.waiting, "changes": s.changes, "bytes_written": s.bytes,
        "took_ms": s.took_ns as f64 / 1e6 })
}

/// How everything stands.
pub(crate) fn status(s: &Status) -> Value {
    let replicas: Vec<Value> = s
        .replicas
        .iter()
        .map(|r| {
            json!({ "label": r.label, "location": r.location, "state": state_word(r.state),
                "why": r.why, "notes": r.notes })
        })
        .collect();
    let problems: Vec<Value> = s
        .problems
        .iter()
        .map(|(replica, p)| {
            let label = s.replicas.get(*replica).map_or("?", |r| r.label.as_str());
            let mut body = advised(p);
            if let Value::Object(fields) = &mut body {
                fields.insert("replica".to_owned(), json!(label));
            }
            body
        })
        .collect();
    json!({ "state": state_word(s.state), "replicas": replicas, "summary": summary(&s.summary),
        "problems": problems })
}

/// Why a command failed.
pub(crate) fn failure(f: &Failure) -> Value {
    json!({ "code": f.code_text(), "what": f.what, "why": f.why, "effect": f.effect, "do": f.remedy,
        "exit": f.exit.number() })
}

/// A state in the words that users see.
pub(crate) fn state_word(state: State) -> &'static str {
    match state {
        State::Scanning => "scanning",
        State::Syncing => "syncing",
        State::InSync => "in sync",
        State::Held => "held",
        State::Paused => "paused",
        State::Problem => "problem",
        State::Offline => "offline",
    }
}

/// A change in one word.
pub(crate) fn change_word(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Create => "create",
        ChangeKind::Update => "update",
        ChangeKind::Delete => "delete",
        ChangeKind::Move => "move",
        ChangeKind::Metadata | ChangeKind::Attributes => "metadata",
    }
}

/// What a hold keeps back, in one word.
pub(crate) fn hold_word(kind: HoldKind) -> &'static str {
    match kind {
        HoldKind::Deletes => "deletes",
        HoldKind::Rewrites => "rewrites",
    }
}

fn kind_word(kind: Kind) -> String {
    instep_core::conflict::kind_word(kind)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;
    use crate::snapshot;
    use crate::ui::capture;
    use crate::ui::text::sample;

    #[test]
    fn a_stream_is_as_recorded() {
        let (output, out, _) = capture::output(capture::style());
        let mut stream = Stream::new(output);
        for (i, event) in sample::everything().iter().enumerate() {
            stream.event(event, 1_772_373_731_482_000_000 + i as i64 * 1_000_000);
        }
        stream.exit(
            Exit::Held,
            &[Exit::Held, Exit::Conflicts],
            1_772_373_800_000_000_000,
        );
        let text = out.take();
        for (i, line) in text.lines().enumerate() {
            let value: Value = serde_json::from_str(line).unwrap();
            assert_eq!(value["v"], 1);
            assert_eq!(value["seq"], i);
            assert!(
                value["type"].is_string() && value["ts"].is_string(),
                "{line}"
            );
        }
        snapshot::check("events-json", &text);
    }

    #[test]
    fn bytes_that_are_not_text_are_kept_exactly() {
        for (bytes, want) in [
            (&b""[..], ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"\xff\xfe", "//4="),
        ] {
            assert_eq!(base64(bytes), want);
        }
        let mut body = json!({});
        put_path(&mut body, "path", &RelPath::new(b"a\xff").unwrap());
        assert_eq!(body, json!({ "path": "a\\xff", "path_b64": "Yf8=" }));
    }
}
