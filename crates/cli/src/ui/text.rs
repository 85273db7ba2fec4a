//! Events for people: who takes part, what the first meeting will do, a line per change, how things stand.
//!
//! A burst of changes becomes a few lines and a count. Invariant: what needs attention (conflicts, holds,
//! problems, a replica that goes away) is always shown, also with `--quiet`.

use std::collections::BTreeMap;
use std::time::Duration;

use instep_core::plan::Problem;
use instep_core::policy::Role;
use instep_engine::report::{Change, ChangeKind, Event, Progress, State, Summary};
use instep_replica::{Description, Totals};

use super::json::{change_word, hold_word, state_word};
use super::table::Table;
use super::{Hue, Output, meeting, progress};
use crate::error::Failure;
use crate::quantity::{bytes, count, counted, span, time_of_day};
use crate::reload::Applied;

/// Changes shown one by one within a second; the rest of that second becomes a count.
const LINES_PER_SECOND: u32 = 8;
const SECOND_NS: i64 = 1_000_000_000;
/// Without a terminal, how far the work is is said this often.
const SUMMARY_EVERY_NS: i64 = 10 * SECOND_NS;

/// What a burst hid, by where it came from, where it went, and what it was.
type Hidden = BTreeMap<(usize, Vec<usize>, ChangeKind), (u64, u64)>;

/// Prints events as they come.
pub(crate) struct Lines {
    output: Output,
    once: bool,
    replicas: Vec<Description>,
    totals: Vec<Option<Totals>>,
    introduced: bool,
    /// The first pass of a first meeting: changes are counted, not listed.
    first: bool,
    /// Replicas that are not there, or cannot be written.
    away: BTreeMap<usize, State>,
    /// What was said before everybody was introduced.
    early: Vec<(Event, i64)>,
    settled: Option<Summary>,
    window: (i64, u32),
    hidden: Hidden,
    progress: Option<(Progress, i64)>,
    said_ns: i64,
}

impl Lines {
    /// To an output; `once` when the program stops as soon as everything is settled.
    pub(crate) fn new(output: Output, once: bool) -> Self {
        Self {
            output,
            once,
            replicas: Vec::new(),
            totals: Vec::new(),
            introduced: false,
            first: false,
            away: BTreeMap::new(),
            early: Vec::new(),
            settled: None,
            window: (0, 0),
            hidden: Hidden::new(),
            progress: None,
            said_ns: 0,
        }
    }

    /// Prints one event.
    pub(crate) fn event(&mut self, event: &Event, now_ns: i64) {
        if let Event::Replica { replica, state, .. } = event {
            match state {
                State::Offline | State::Paused => self.away.insert(*replica, *state),
                _ => self.away.remove(replica),
            };
            if !self.introduced && *state == State::Paused {
                self.early.push((event.clone(), now_ns));
                return;
            }
        }
        match event {
            Event::Opened { replicas, .. } => {
                self.replicas = replicas.iter().map(|(_, d)| d.clone()).collect();
                self.totals = vec![None; replicas.len()];
                self.said_ns = now_ns;
            }
            Event::Joined {
                replica,
                description,
                ..
            } => self.join(*replica, description),
            Event::Scanned {
                replica, totals, ..
            } => {
                if let Some(slot) = self.totals.get_mut(*replica) {
                    *slot = Some(*totals);
                }
                if self.totals.iter().all(Option::is_some) {
                    self.introduce();
                }
            }
            Event::Meeting(m) => self.meet(m),
            Event::Changed(change) => self.change(change, now_ns),
            Event::Progress(p) => self.under_way(p, now_ns),
            Event::Settled(summary) => self.settle(summary, now_ns),
            other => self.attention(other, now_ns),
        }
    }

    /// Another replica takes part; one that was here before has its place.
    fn join(&mut self, replica: usize, description: &Description) {
        if let Some(known) = self.replicas.get_mut(replica) {
            known.clone_from(description);
        } else {
            self.replicas.push(description.clone());
            self.totals.push(Some(Totals::default()));
        }
    }

    /// The configuration was read again.
    pub(crate) fn config(&mut self, result: Result<&Applied, &Failure>) {
        self.introduce();
        match result {
            Ok(applied) => {
                let more = if applied.more {
                    "; its other settings take effect when the session starts again"
                } else {
                    ""
                };
                let file = &applied.file;
                let text = format!("note  the ignore rules of {file} are in force now{more}");
                self.output.note(&text);
            }
            Err(failure) => self.output.failure(failure),
        }
    }

    /// Time has passed: what a burst hid is told, and without a terminal how far the work is.
    pub(crate) fn tick(&mut self, now_ns: i64) {
        if now_ns - self.window.0 >= SECOND_NS {
            self.tell_hidden(now_ns);
        }
        if !self.output.style.live && now_ns - self.said_ns >= SUMMARY_EVERY_NS {
            self.said_ns = now_ns;
            if let Some((p, since)) = self.progress.filter(|(p, _)| !is_complete(p)) {
                self.output
                    .note(&progress::line(&p, elapsed(since, now_ns)));
            }
        }
    }

    /// The session is over.
    pub(crate) fn finish(&mut self, now_ns: i64) {
        self.tell_hidden(now_ns);
        self.output.bar().clear();
    }

    fn label(&self, replica: usize) -> &str {
        self.replicas.get(replica).map_or("?", |d| d.label.as_str())
    }

    fn labels(&self) -> Vec<String> {
        self.replicas.iter().map(|d| d.label.clone()).collect()
    }

    /// `14:02:11  A → B C`
    fn route(&self, from: usize, to: &[usize], now_ns: i64) -> String {
        let style = &self.output.style;
        let to: Vec<&str> = to.iter().map(|r| self.label(*r)).collect();
        let time = style.paint(Hue::Faint, &time_of_day(now_ns, &style.zone));
        format!(
            "{time}  {} {} {}",
            self.label(from),
            style.arrow(),
            to.join(" ")
        )
    }

    fn introduce(&mut self) {
        if self.introduced || self.replicas.is_empty() {
            return;
        }
        self.introduced = true;
        if !self.output.style.quiet {
            self.table();
        }
        for (event, at_ns) in std::mem::take(&mut self.early) {
            self.attention(&event, at_ns);
        }
    }

    fn table(&self) {
        let mut table = Table::new(&[]).right(2).right(3);
        for (d, totals) in self.replicas.iter().zip(&self.totals) {
            let (files, size) = match totals {
                Some(t) => (counted(t.files, "file"), bytes(t.bytes)),
                None => (String::from("?"), String::new()),
            };
            let notes = if d.notes.is_empty() {
                String::new()
            } else {
                format!("({})", d.notes.join("; "))
            };
            let name = self.output.style.paint(Hue::Strong, &d.label);
            table.row([
                name,
                d.location.clone(),
                files,
                size,
                d.fs_type.clone(),
                notes,
            ]);
        }
        self.output.result(&table.render());
    }

    fn meet(&mut self, m: &instep_engine::report::Meeting) {
        self.introduce();
        self.first = true;
        if !self.output.style.quiet {
            let locations: Vec<String> = self.replicas.iter().map(|d| d.location.clone()).collect();
            let mirror = self.replicas.iter().any(|d| d.role == Role::Source);
            let lines = if mirror {
                meeting::mirror_lines(m, &self.labels(), &self.output.style)
            } else {
                meeting::lines(m, &self.labels(), &locations, &self.output.style)
            };
            self.output.result(&format!("\n{}\n\n", lines.join("\n")));
        }
    }

    fn change(&mut self, change: &Change, now_ns: i64) {
        self.introduce();
        if self.output.style.quiet || (self.first && !self.output.style.verbose) {
            return;
        }
        if now_ns - self.window.0 >= SECOND_NS {
            self.tell_hidden(now_ns);
            self.window = (now_ns, 0);
        }
        if self.window.1 >= LINES_PER_SECOND && !self.output.style.verbose {
            let key = (change.from, change.to.clone(), change.kind);
            let sums = self.hidden.entry(key).or_default();
            sums.0 += 1;
            sums.1 += change.size;
            return;
        }
        self.window.1 += 1;
        self.output.line(&self.change_line(change, now_ns));
    }

    fn change_line(&self, change: &Change, now_ns: i64) -> String {
        let arrow = self.output.style.arrow();
        let path = match &change.from_path {
            Some(from) => format!("{from} {arrow} {}", change.path),
            None => change.path.to_string(),
        };
        let what = match change.kind {
            ChangeKind::Create | ChangeKind::Update
                if change.object == instep_core::version::Kind::File =>
            {
                bytes(change.size)
            }
            ChangeKind::Create => instep_core::conflict::kind_word(change.object),
            ChangeKind::Update => format!(
                "{} changed",
                instep_core::conflict::kind_word(change.object)
            ),
            ChangeKind::Delete => String::from("deleted, kept in trash"),
            ChangeKind::Move => String::from("renamed"),
            ChangeKind::Metadata => String::from("mode or time"),
            ChangeKind::Attributes => String::from("mode, time, owner or attributes"),
        };
        let route = self.route(change.from, &change.to, now_ns);
        format!("{route}   {path:<30}   {what}   {}", span(change.lag_ns))
    }

    fn tell_hidden(&mut self, now_ns: i64) {
        for ((from, to, kind), (n, size)) in std::mem::take(&mut self.hidden) {
            let route = self.route(from, &to, now_ns);
            let word = change_word(kind);
            let size = if size > 0 {
                format!("   {}", bytes(size))
            } else {
                String::new()
            };
            self.output
                .line(&format!("{route}   + {} similar ({word}){size}", count(n)));
        }
    }

    fn under_way(&mut self, p: &Progress, now_ns: i64) {
        let since = match self.progress {
            Some((before, since)) if before.actions_done <= p.actions_done => since,
            _ => now_ns,
        };
        self.progress = Some((*p, since));
        self.output
            .bar()
            .show(&progress::line(p, elapsed(since, now_ns)));
    }

    fn settle(&mut self, summary: &Summary, now_ns: i64) {
        self.introduce();
        self.tell_hidden(now_ns);
        self.output.bar().clear();
        self.progress = None;
        let before = self.settled.replace(summary.clone());
        let attention = |s: &Summary| (s.conflicts, s.holds, s.problems, s.waiting);
        let news = before
            .as_ref()
            .is_none_or(|b| attention(b) != attention(summary));
        let quiet = self.output.style.quiet && attention(summary) == (0, 0, 0, 0);
        if news && !quiet {
            let line = self.summary_line(summary, before.is_none());
            self.output.line(&line);
        }
        if self.first && !self.once {
            self.tip();
        }
        self.first = false;
    }

    /// What whoever keeps folders equal for the first time may want to know.
    fn tip(&self) {
        let place = self.replicas.last().map_or("", |d| d.location.as_str());
        let text = format!("tip: what is deleted or replaced is kept:  instep trash list {place}");
        self.output
            .note(&self.output.style.paint(Hue::Faint, &text));
    }

    fn summary_line(&self, s: &Summary, first: bool) -> String {
        let style = &self.output.style;
        let place = self
            .replicas
            .first()
            .map_or(String::new(), |d| format!(" {}", d.location));
        let state = match s {
            s if s.holds > 0 => style.paint(Hue::Bad, "HELD"),
            s if s.problems > 0 => style.paint(Hue::Bad, "problem"),
            s if s.waiting > 0 => style.paint(Hue::Attention, "waiting"),
            _ => style.paint(Hue::Good, "in sync"),
        };
        let mut parts = vec![state];
        let all = counted(self.replicas.len() as u64, "replica");
        if self.away.is_empty() {
            parts.push(all);
        } else {
            let here = self.replicas.len() - self.away.len();
            let away = self.away.iter();
            let away: Vec<String> = away
                .map(|(i, state)| format!("{} {}", self.label(*i), state_word(*state)))
                .collect();
            parts.push(format!("{here} of {all} ({})", away.join(", ")));
        }
        parts.push(counted(s.totals.files, "file"));
        if first && s.changes > 0 {
            parts.push(format!(
                "{} ({})",
                counted(s.changes, "change"),
                bytes(s.bytes)
            ));
        }
        for (n, one, command) in [
            (s.conflicts, "conflict", "conflicts"),
            (s.holds, "hold", "holds"),
            (s.problems, "problem", "status --problems"),
        ] {
            if n > 0 {
                parts.push(format!("{} (instep {command}{place})", counted(n, one)));
            }
        }
        if s.waiting > 0 {
            parts.push(format!("{} waiting", count(s.waiting)));
        }
        if first {
            parts.push(span(s.took_ns));
        }
        if !self.once {
            parts.push(String::from("watching, Ctrl-C to stop"));
        }
        parts.join(style.dot())
    }

    fn attention(&mut self, event: &Event, now_ns: i64) {
        // The lines about the first meeting have said it.
        if let Event::Notice { code, text } = event {
            if *code != 2302 {
                self.output
                    .note(&format!("note  {text} (instep explain E{code:04})"));
            }
            return;
        }
        let Some(line) = self.attention_line(event) else {
            return;
        };
        self.introduce();
        let style = &self.output.style;
        let time = style.paint(Hue::Faint, &time_of_day(now_ns, &style.zone));
        self.output.line(&format!("{time}  {line}"));
    }

    /// What of an event wants attention.
    fn attention_line(&self, event: &Event) -> Option<String> {
        let style = &self.output.style;
        match event {
            Event::Problem {
                replica,
                problem,
                open,
            } => Some(self.problem_line(*replica, problem, *open)),
            // The count is in the summary; a thousand lines would hide it.
            Event::Conflict { .. } if self.first && !style.verbose => None,
            Event::Conflict {
                path,
                loser,
                winner,
                ..
            } => {
                let how = if winner.is_some() {
                    "the newest is at the path, the other is kept"
                } else {
                    "each folder keeps its own until one is chosen"
                };
                Some(format!(
                    "{}  {path}: {how} ({})",
                    style.paint(Hue::Attention, "conflict"),
                    crate::records::short_id(&loser.to_string())
                ))
            }
            Event::Hold { open: true, .. } => self.hold_lines(event),
            Event::Hold { id, .. } => Some(format!("over  hold {id}")),
            Event::Replica {
                replica,
                state,
                why,
            } => Some(self.replica_line(*replica, *state, why)),
            _ => None,
        }
    }

    fn problem_line(&self, replica: usize, problem: &Problem, open: bool) -> String {
        let head = if open {
            self.output.style.paint(Hue::Bad, "problem")
        } else {
            String::from("over")
        };
        let (label, code) = (self.label(replica), problem.code.text());
        format!(
            "{head}  {label}: {}: {} ({code})",
            problem.path, problem.detail
        )
    }

    /// A hold that begins, and the two ways out of it.
    fn hold_lines(&self, event: &Event) -> Option<String> {
        let Event::Hold {
            id,
            replica,
            count: n,
            total,
            kind,
            ..
        } = event
        else {
            return None;
        };
        let head = self.output.style.paint(Hue::Bad, "HELD");
        let percent = (n * 100).checked_div(*total).unwrap_or(0);
        let at = self
            .replicas
            .get(*replica)
            .map_or("", |d| d.location.as_str());
        Some(format!(
            "{head}  {} {} on {} ({percent} %); nothing is deleted, edits go on\n          \
             let it through:  instep holds approve {id} {at}\n          \
             undo it:         instep holds reject {id} {at}",
            count(*n),
            hold_word(*kind),
            self.label(*replica),
        ))
    }

    fn replica_line(&self, replica: usize, state: State, why: &str) -> String {
        let (hue, word) = if state == State::InSync {
            (Hue::Good, "back")
        } else {
            (Hue::Attention, state_word(state))
        };
        let why = if why.is_empty() {
            String::new()
        } else {
            format!(": {why}")
        };
        let word = self.output.style.paint(hue, word);
        format!("{word}  {}{why}", self.label(replica))
    }
}

fn elapsed(since_ns: i64, now_ns: i64) -> Duration {
    Duration::from_nanos(u64::try_from(now_ns - since_ns).unwrap_or(0))
}

fn is_complete(p: &Progress) -> bool {
    p.actions_total > 0 && p.actions_done >= p.actions_total
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
pub(crate) mod sample {
    //! Events as an engine would send them, for the tests of all renderers.
    use instep_core::id::{ActorId, ContentId, Dot, ReplicaId, ShareId};
    use instep_core::path::RelPath;
    use instep_core::plan::{Code, Problem};
    use instep_core::policy::Role;
    use instep_core::version::Kind;
    use instep_engine::report::Meeting;
    use instep_replica::records::HoldKind;

    use super::*;

    /// A path.
    pub(crate) fn path(text: &[u8]) -> RelPath {
        RelPath::new(text).unwrap()
    }

    /// Three replicas introduce themselves and have been looked at.
    pub(crate) fn opening() -> Vec<Event> {
        let one = |i: u8, label: &str, location: &str, fs: &str, note: &str| {
            (
                ReplicaId([i; 16]),
                Description {
                    label: label.into(),
                    location: location.into(),
                    fs_type: fs.into(),
                    role: Role::Both,
                    new: true,
                    notes: if note.is_empty() {
                        Vec::new()
                    } else {
                        vec![note.into()]
                    },
                },
            )
        };
        let mut all = vec![Event::Opened {
            share: ShareId([7; 16]),
            replicas: vec![
                one(1, "A", "~/notes", "ext4", ""),
                one(
                    2,
                    "B",
                    "/mnt/usb/notes",
                    "exfat",
                    "no modes: kept in the index",
                ),
                one(3, "C", "/srv/notes", "btrfs", ""),
            ],
        }];
        for (replica, files, bytes) in [(0, 1_204, 39_950_000), (1, 1_187, 39_740_000), (2, 0, 0)] {
            let totals = Totals {
                files,
                dirs: 12,
                links: 1,
                bytes,
            };
            all.push(Event::Scanned {
                replica,
                totals,
                changes: files,
            });
        }
        all
    }

    /// A change on A that reached B and C.
    pub(crate) fn change(kind: ChangeKind, at: &[u8], from_path: Option<&[u8]>) -> Event {
        Event::Changed(Change {
            kind,
            object: Kind::File,
            path: path(at),
            from_path: from_path.map(path),
            from: 0,
            to: vec![1, 2],
            size: 12_697,
            lag_ns: 41_000_000,
        })
    }

    /// Counts.
    pub(crate) fn summary() -> Summary {
        Summary {
            totals: Totals {
                files: 1_204,
                dirs: 12,
                links: 1,
                bytes: 39_950_000,
            },
            conflicts: 2,
            changes: 1_223,
            bytes: 40_000_000,
            took_ns: 4_100_000_000,
            ..Summary::default()
        }
    }

    /// One of everything.
    pub(crate) fn everything() -> Vec<Event> {
        let dot = |counter| Dot {
            actor: ActorId(*b"\x01\x02\x03\x04\x05\x06\xaa\xbb"),
            counter,
        };
        let problem = Problem {
            path: path(b"up/x.png"),
            code: Code::Unwritable,
            detail: "create up/x.png: permission denied (errno 13)".into(),
        };
        let hold = |open| Event::Hold {
            id: "7f3a".into(),
            replica: 0,
            count: 1_380,
            total: 1_437,
            kind: HoldKind::Deletes,
            open,
        };
        let mut all = opening();
        all.push(Event::Meeting(Meeting {
            only_on: vec![17, 0, 0],
            receives: vec![(0, 0), (17, 12_000), (1_204, 39_950_000)],
            differ: 2,
            newer: vec![(0, 1, 1, 1)],
            retained_bytes: 9_000,
            unread: 0,
        }));
        all.push(Event::Progress(Progress {
            actions_total: 1_223,
            actions_done: 600,
            bytes_total: 40_000_000,
            bytes_done: 20_000_000,
            scanned: 2_391,
        }));
        all.push(Event::Settled(summary()));
        all.push(change(ChangeKind::Update, b"drafts/plan.md", None));
        all.push(change(
            ChangeKind::Move,
            b"src/core.rs",
            Some(b"src/lib.rs"),
        ));
        all.push(change(ChangeKind::Delete, b"odd \xff name", None));
        all.push(change(ChangeKind::Metadata, b"run.sh", None));
        all.push(Event::ScanStarted { replica: 1 });
        all.push(Event::Resolved {
            path: path(b"budget.ods"),
            loser: dot(9),
            keep: instep_engine::command::Keep::Both,
        });
        all.push(Event::Restored {
            replica: 1,
            path: path(b"old \xff"),
        });
        all.push(Event::Purged {
            replica: 2,
            objects: 12,
        });
        all.push(Event::Conflict {
            path: path(b"budget.ods"),
            loser: dot(9),
            winner: Some(dot(11)),
            content: ContentId([0xab; 32]),
        });
        all.push(Event::Problem {
            replica: 2,
            problem: problem.clone(),
            open: true,
        });
        all.push(Event::Problem {
            replica: 2,
            problem,
            open: false,
        });
        all.push(hold(true));
        all.push(hold(false));
        let why = String::from("/mnt/usb/notes: not mounted");
        all.push(Event::Replica {
            replica: 1,
            state: State::Offline,
            why,
        });
        all.push(Event::Replica {
            replica: 1,
            state: State::InSync,
            why: String::new(),
        });
        all.push(Event::Notice {
            code: 2117,
            text: "B is polled every 30 s".into(),
        });
        all.push(Event::Settled(Summary {
            holds: 1,
            conflicts: 3,
            problems: 1,
            waiting: 40,
            ..summary()
        }));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot;
    use crate::ui::{Style, capture};

    const NOON: i64 = 1_772_373_731_000_000_000;

    fn told(style: Style, once: bool, events: &[Event]) -> (String, String) {
        let (output, out, err) = capture::output(style);
        let mut lines = Lines::new(output, once);
        for (i, event) in events.iter().enumerate() {
            let now = NOON + i as i64 * SECOND_NS;
            lines.event(event, now);
            lines.tick(now);
        }
        lines.finish(NOON + 100 * SECOND_NS);
        (out.take(), err.take())
    }

    #[test]
    fn a_live_session_is_told_as_recorded() {
        let (out, err) = told(capture::style(), false, &sample::everything());
        snapshot::check("events-text", &out);
        snapshot::check("events-text-notes", &err);
        let plain = Style {
            plain: true,
            ..capture::style()
        };
        let (out, _) = told(plain, false, &sample::everything());
        assert!(out.is_ascii(), "{out}");
        snapshot::check("events-plain", &out);
    }

    #[test]
    fn quiet_tells_only_what_needs_attention() {
        let quiet = Style {
            quiet: true,
            ..capture::style()
        };
        let (out, err) = told(quiet.clone(), false, &sample::everything());
        assert!(
            out.contains("HELD") && out.contains("problem") && out.contains("offline"),
            "{out}"
        );
        assert!(
            !out.contains("drafts/plan.md") && !out.contains("First meeting"),
            "{out}"
        );
        assert_eq!(err, "");
        let clean = Summary {
            conflicts: 0,
            ..sample::summary()
        };
        let calm = [sample::opening(), vec![Event::Settled(clean)]].concat();
        assert_eq!(told(quiet, true, &calm).0, "");
    }

    #[test]
    fn a_burst_becomes_a_few_lines_and_a_count() {
        let (output, out, _) = capture::output(capture::style());
        let mut lines = Lines::new(output, false);
        for event in sample::opening() {
            lines.event(&event, NOON);
        }
        drop(out.take());
        for i in 0..100 {
            let name = format!("f{i}");
            let change = sample::change(ChangeKind::Create, name.as_bytes(), None);
            lines.event(&change, NOON + i * 1_000_000);
        }
        lines.tick(NOON + 2 * SECOND_NS);
        let text = out.take();
        assert_eq!(
            text.lines().count(),
            LINES_PER_SECOND as usize + 1,
            "{text}"
        );
        assert!(text.contains("+ 92 similar (create)"), "{text}");
    }

    #[test]
    fn the_first_pass_is_counted_and_not_listed_unless_asked() {
        let events = [
            sample::opening(),
            vec![Event::Meeting(instep_engine::report::Meeting::default())],
            vec![
                sample::change(ChangeKind::Create, b"new.txt", None),
                Event::Settled(sample::summary()),
            ],
        ]
        .concat();
        assert!(!told(capture::style(), true, &events).0.contains("new.txt"));
        let verbose = Style {
            verbose: true,
            ..capture::style()
        };
        assert!(told(verbose, true, &events).0.contains("new.txt"));
    }

    #[test]
    fn without_a_terminal_progress_is_told_every_ten_seconds() {
        let (output, out, err) = capture::output(capture::style());
        let mut lines = Lines::new(output, true);
        for event in sample::opening() {
            lines.event(&event, NOON);
        }
        let p = Progress {
            actions_total: 10,
            actions_done: 5,
            ..Progress::default()
        };
        lines.event(&Event::Progress(p), NOON);
        for second in 0..=25 {
            lines.tick(NOON + second * SECOND_NS);
        }
        assert_eq!(err.take().lines().count(), 2);
        assert!(!out.take().contains("syncing"), "progress is not a result");
    }
}
