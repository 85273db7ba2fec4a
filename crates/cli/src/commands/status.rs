//! `status`: how folders stand, told by whoever holds them, else from their records.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use instep_core::id::{ReplicaId, ShareId};
use instep_core::plan::Code;
use instep_engine::command::{Answer, Command, Status};
use instep_engine::report::State;
use serde_json::json;

use super::Context;
use crate::args::{self, Session};
use crate::connect;
use crate::control::client::{self, Client};
use crate::error::{Exit, Failure};
use crate::quantity::{counted, span};
use crate::targets::{self, Target};
use crate::ui::json::{state_word, status as status_json};
use crate::ui::put::Put as _;
use crate::ui::table::Table;
use crate::ui::{Hue, Output, Style};
use crate::{control, places, records, roots};

/// Carries it out.
pub(crate) fn run(args: &args::Status, context: &Context) -> Result<Exit, Failure> {
    let mut teller = Teller {
        args,
        context,
        exits: Vec::new(),
        documents: Vec::new(),
        sessions: Vec::new(),
        at_rest: BTreeSet::new(),
    };
    if args.roots.is_empty() {
        match targets::named(&[]) {
            Ok(targets) => teller.targets(&targets)?,
            Err(none) if none.code == 1019 => teller.all_sessions(none)?,
            Err(failure) => return Err(failure),
        }
    } else {
        teller.named()?;
    }
    if context.output.style.json {
        context.output.json("status", json!(teller.documents));
    }
    Ok(Exit::first(&teller.exits))
}

/// What was told so far: a session or a share is told once, however many of its folders were named.
struct Teller<'a> {
    args: &'a args::Status,
    context: &'a Context,
    exits: Vec<Exit>,
    documents: Vec<serde_json::Value>,
    /// The folders of each session.
    sessions: Vec<Vec<String>>,
    /// Shares that no session was found for.
    at_rest: BTreeSet<ShareId>,
}

impl Teller<'_> {
    fn named(&mut self) -> Result<(), Failure> {
        let mut missing = Vec::new();
        for path in &self.args.roots {
            let found = targets::at(path)?;
            if found.is_empty() {
                roots::check_readable(path, &connect::inspect(path)?)?;
                missing.push((path, connect::known_at(path)));
            }
            self.targets(&found)?;
        }
        for (path, ids) in missing {
            if ids.is_empty() {
                return Err(targets::unknown(path));
            }
            self.missing(path, &ids)?;
        }
        Ok(())
    }

    fn targets(&mut self, targets: &[Target]) -> Result<(), Failure> {
        for target in targets {
            let client = target.client()?;
            if !self.session(client)? && self.at_rest.insert(target.member.share) {
                let exits = at_rest(target, self.context, &mut self.documents)?;
                self.exits.extend(exits);
            }
        }
        Ok(())
    }

    /// A folder that was synchronized and is not there now, or has lost its marker.
    fn missing(&mut self, path: &Path, ids: &[ReplicaId]) -> Result<(), Failure> {
        self.exits.push(Exit::Unreachable);
        let mut is_held = false;
        for id in ids {
            let client = client::connect(&places::runtime_dir(), *id)?;
            is_held |= self.session(client)?;
        }
        if is_held {
            return Ok(());
        }
        let shown = path.display().to_string();
        if self.context.output.style.json {
            self.documents
                .push(json!({ "state": state_word(State::Offline), "location": shown }));
        } else {
            let word = state_word(State::Offline);
            let line = format!("{shown}  {word}: it is not there, or without its marker");
            self.context.output.line(&line);
        }
        Ok(())
    }

    /// What a session says of itself; false when there is none.
    fn session(&mut self, client: Option<Client>) -> Result<bool, Failure> {
        let Some(mut client) = client else {
            return Ok(false);
        };
        let Answer::Status(status) = client.ask(&Command::Status)? else {
            return Ok(false);
        };
        let folders = status.replicas.iter().map(|r| r.location.clone()).collect();
        if !self.sessions.contains(&folders) {
            self.sessions.push(folders);
            self.exits.extend(endings(&status));
            let output = &self.context.output;
            if output.style.json {
                self.documents.push(status_json(&status));
            } else {
                output.result(&render(&status, self.args.problems, output));
            }
        }
        Ok(true)
    }

    /// Outside any folder: every session that runs.
    fn all_sessions(&mut self, none: Failure) -> Result<(), Failure> {
        let dir = places::runtime_dir();
        if control::Place::open(&dir)?.is_some() {
            let names = std::fs::read_dir(&dir).into_iter().flatten().flatten();
            for name in names.filter_map(|e| e.file_name().into_string().ok()) {
                if let Some(Ok(id)) = name.strip_suffix(".sock").map(str::parse) {
                    let client = client::connect(&dir, id)?;
                    self.session(client)?;
                }
            }
        }
        if self.sessions.is_empty() {
            return Err(none);
        }
        Ok(())
    }
}

fn endings(status: &Status) -> Vec<Exit> {
    let mut all = Vec::new();
    if status.summary.holds > 0 {
        all.push(Exit::Held);
    }
    let is_paused = status.replicas.iter().any(|r| r.state == State::Paused);
    if status.summary.problems > 0 || is_paused {
        all.push(Exit::SomeFailed);
    }
    if status.problems.iter().any(|(_, p)| p.code == Code::Damaged) {
        all.push(Exit::Damage);
    }
    if status.summary.conflicts > 0 {
        all.push(Exit::Conflicts);
    }
    if status.replicas.iter().any(|r| r.state == State::Offline) {
        all.push(Exit::Unreachable);
    }
    all
}

/// The status of a running session as text.
fn render(status: &Status, all_problems: bool, output: &Output) -> String {
    let mut out = replicas(status, &output.style);
    out.put(format_args!("{}\n", counts(status, &output.style)));
    problems(status, all_problems, &mut out);
    out.push_str(&next(status));
    out
}

fn replicas(status: &Status, style: &Style) -> String {
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
    table.render()
}

fn counts(status: &Status, style: &Style) -> String {
    let s = &status.summary;
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
    parts.join(style.dot())
}

fn problems(status: &Status, all: bool, out: &mut String) {
    const SOME: usize = 5;
    let shown = if all { status.problems.len() } else { SOME };
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

/// A share that no session holds, as one of its folders knows it.
struct Rest<'a> {
    target: &'a Target,
    /// Label, folder and state of each member.
    members: Vec<(String, String, &'static str)>,
    conflicts: u64,
    holds: u64,
    damaged: u64,
}

/// A folder that no session holds.
fn at_rest(
    target: &Target,
    context: &Context,
    documents: &mut Vec<serde_json::Value>,
) -> Result<Vec<Exit>, Failure> {
    let rest = Rest::of(target, context)?;
    if context.output.style.json {
        documents.push(rest.document());
    } else {
        context.output.result(&rest.render());
    }
    Ok(rest.endings())
}

impl<'a> Rest<'a> {
    fn of(target: &'a Target, context: &Context) -> Result<Self, Failure> {
        let env = Context::env(None)?;
        let replica = target.read(&env, &context.settings(&Session::default()))?;
        let one = std::slice::from_ref(&replica);
        let known = &target.member.members;
        let member = |(label, at): &(String, PathBuf)| {
            let state = member_state(at, target.member.share);
            (label.clone(), at.display().to_string(), state)
        };
        let mut members: Vec<_> = known.iter().map(member).collect();
        members.sort();
        Ok(Self {
            target,
            members,
            conflicts: records::conflicts(one, false)?.len() as u64,
            holds: records::holds(one)?.len() as u64,
            damaged: records::damage(one)?.len() as u64,
        })
    }

    fn document(&self) -> serde_json::Value {
        let member = |(l, at, state): &(String, String, &str)| json!({ "label": l, "location": at, "state": state });
        let members: Vec<_> = self.members.iter().map(member).collect();
        let of = &self.target.member;
        json!({ "state": "not running",
            "location": self.target.root.typed.display().to_string(),
            "share_id": of.share.to_string(), "mirror": of.mirror, "members": members,
            "summary": { "conflicts": self.conflicts, "holds": self.holds,
                "damaged": self.damaged } })
    }

    fn render(&self) -> String {
        let mut table = Table::new(&["NAME", "FOLDER", "STATE"]);
        for (label, at, state) in &self.members {
            table.row([label.clone(), at.clone(), (*state).to_owned()]);
        }
        let mut out = table.render();
        if self.conflicts + self.holds > 0 {
            out.put(format_args!(
                "{}, {}\n",
                counted(self.conflicts, "conflict"),
                counted(self.holds, "hold")
            ));
        }
        if self.damaged > 0 {
            out.put(format_args!(
                "{} damaged ({})\n",
                counted(self.damaged, "file"),
                Code::Damaged.text()
            ));
        }
        let location = self.target.root.typed.display();
        out.put(format_args!("next    {}\n", self.again()));
        for (n, command) in [
            (self.conflicts, "conflicts"),
            (self.holds, "holds"),
            (self.damaged, "verify"),
        ] {
            if n > 0 {
                out.put(format_args!("        instep {command} {location}\n"));
            }
        }
        out
    }

    /// The command that keeps these folders equal.
    fn again(&self) -> String {
        let of = &self.target.member;
        let mut paths: Vec<String> = of
            .members
            .iter()
            .map(|(_, at)| at.display().to_string())
            .collect();
        // A mirror's source comes first, whatever it is called.
        let first = usize::from(of.mirror);
        paths[first.min(self.members.len())..].sort_unstable();
        let verb = if of.mirror { "mirror" } else { "sync" };
        format!("instep {verb} {}", paths.join(" "))
    }

    fn endings(&self) -> Vec<Exit> {
        let offline = state_word(State::Offline);
        let away = self.members.iter().any(|(_, _, state)| *state == offline);
        [
            (away, Exit::Unreachable),
            (self.damaged > 0, Exit::Damage),
            (self.holds > 0, Exit::Held),
            (self.conflicts > 0, Exit::Conflicts),
        ]
        .into_iter()
        .filter_map(|(is_so, exit)| is_so.then_some(exit))
        .collect()
    }
}

/// How a member stands that no session holds.
fn member_state(at: &Path, share: ShareId) -> &'static str {
    let found = targets::at(at).unwrap_or_default();
    if found.iter().any(|t| t.member.share == share) {
        "not running"
    } else if connect::known_at(at).is_empty() {
        "forgotten"
    } else {
        state_word(State::Offline)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use instep_core::path::RelPath;
    use instep_core::plan::Problem;
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
