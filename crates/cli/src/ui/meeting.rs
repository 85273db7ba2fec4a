//! What is said when replicas meet for the first time: what will be copied, what differs and who is newer,
//! and the one command that reverses it.
//!
//! Pure: values in, lines out.

use instep_engine::report::Meeting;

use super::Style;
use crate::quantity::{bytes, count, counted};

/// Above this share of the differing files won by one side, its times are probably all new.
const LOPSIDED_PERCENT: u64 = 90;

/// Fewer differing files than this say nothing about either side.
const LOPSIDED_MIN: u64 = 20;

/// The lines, without a newline at the end.
pub(crate) fn lines(
    meeting: &Meeting,
    labels: &[String],
    locations: &[String],
    style: &Style,
) -> Vec<String> {
    let mut out = vec![String::from(
        "First meeting of these folders. Nothing will be deleted.",
    )];
    let arrow = style.arrow();
    if meeting.only_on.iter().any(|n| *n > 0) {
        let only: Vec<String> = meeting
            .only_on
            .iter()
            .zip(labels)
            .map(|(n, label)| format!("{} only on {label}", count(*n)))
            .collect();
        out.push(format!(
            "  {:<44} {arrow} copied to the others",
            only.join(", ")
        ));
    }
    for ((entries, size), label) in meeting.receives.iter().zip(labels) {
        if *entries > 0 {
            let what = format!("{} to {label}", counted(*entries, "entry"));
            out.push(format!("  {what:<44} {arrow} {}", bytes(*size)));
        }
    }
    if meeting.differ > 0 {
        differing(meeting, labels, locations, style, &mut out);
    }
    if meeting.unread > 0 {
        let what = format!("{} on several", counted(meeting.unread, "more file"));
        out.push(format!(
            "  {what:<44} {arrow} read and compared as this goes on"
        ));
    }
    out
}

/// As [`lines`], for a mirror: only the targets change.
pub(crate) fn mirror_lines(meeting: &Meeting, labels: &[String], style: &Style) -> Vec<String> {
    let source = labels.first().map_or("?", String::as_str);
    let mut out = vec![format!(
        "First copy from {source}. What only a target has, or has otherwise, goes to its trash."
    )];
    for ((entries, size), label) in meeting.receives.iter().zip(labels).skip(1) {
        if *entries > 0 {
            let what = format!("{} to {label}", counted(*entries, "entry"));
            out.push(format!("  {what:<44} {} {}", style.arrow(), bytes(*size)));
        }
    }
    out
}

fn differing(
    meeting: &Meeting,
    labels: &[String],
    locations: &[String],
    style: &Style,
    out: &mut Vec<String>,
) {
    let arrow = style.arrow();
    let what = format!(
        "{} between them",
        counted(meeting.differ, "file").replace(" file", " differing file")
    );
    out.push(format!(
        "  {what:<44} {arrow} newest at the path, the others kept ({}) and listed",
        bytes(meeting.retained_bytes)
    ));
    let mut lopsided = None;
    for (a, b, newer_a, newer_b) in meeting.newer.iter().filter(|(_, _, a, b)| a + b > 0) {
        let (first, second) = (label(labels, *a), label(labels, *b));
        out.push(format!(
            "    {first} and {second}: {} newer on {first}, {} newer on {second}",
            count(*newer_a),
            count(*newer_b)
        ));
        let total = newer_a + newer_b;
        let (most, winner, loser) = if newer_a >= newer_b {
            (*newer_a, *a, *b)
        } else {
            (*newer_b, *b, *a)
        };
        if total >= LOPSIDED_MIN && most * 100 > total * LOPSIDED_PERCENT {
            lopsided = lopsided.or(Some((most * 100 / total, winner, loser)));
        }
    }
    if let Some((percent, winner, loser)) = lopsided {
        out.push(format!(
            "  warning: {percent} % are newer on {}. A fresh clone or unpacked archive has new times and old content.",
            label(labels, winner)
        ));
        out.push(format!(
            "  to let {} win instead:  instep conflicts resolve --all --keep {} {}",
            label(labels, loser),
            label(labels, loser),
            locations.get(loser).map_or("", String::as_str)
        ));
    } else if let Some(first) = labels.first() {
        out.push(format!(
            "  to let one side win:  instep conflicts resolve --all --keep {first} {}",
            locations.first().map_or("", String::as_str)
        ));
    }
}

fn label(labels: &[String], replica: usize) -> &str {
    labels.get(replica).map_or("?", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot;
    use crate::ui::capture;

    fn text(meeting: &Meeting) -> String {
        let own = |all: &[&str]| all.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let labels = own(&["A", "B", "C"]);
        let locations = own(&["~/notes", "/mnt/usb/notes", "/srv/notes"]);
        lines(meeting, &labels, &locations, &capture::style()).join("\n")
    }

    #[test]
    fn a_meeting_is_told_as_recorded() {
        let even = Meeting {
            only_on: vec![17, 0, 0],
            receives: vec![(0, 0), (17, 12_000), (1_204, 40_000_000)],
            differ: 2,
            newer: vec![(0, 1, 1, 1), (0, 2, 0, 0), (1, 2, 0, 0)],
            retained_bytes: 9_000,
            unread: 0,
        };
        snapshot::check("meeting", &text(&even));
        let much = Meeting {
            unread: 18_110,
            ..even
        };
        let said = text(&much);
        let last = said.lines().last().unwrap_or_default();
        assert!(last.contains("18,110 more files on several"), "{said}");
    }

    #[test]
    fn a_mirror_does_not_promise_that_nothing_is_deleted() {
        let labels = ["A", "B"].map(String::from);
        let first = Meeting {
            receives: vec![(0, 0), (3, 2048)],
            ..Meeting::default()
        };
        let said = mirror_lines(&first, &labels, &capture::style()).join("\n");
        assert!(
            said.contains("trash") && said.contains("3 entries to B"),
            "{said}"
        );
        assert!(!said.contains("Nothing will be deleted"), "{said}");
    }

    #[test]
    fn a_fresh_clone_that_wins_everywhere_is_warned_about() {
        let lopsided = Meeting {
            differ: 100,
            newer: vec![(0, 1, 4, 96)],
            retained_bytes: 1 << 20,
            ..Meeting::default()
        };
        let said = text(&lopsided);
        assert!(said.contains("96 % are newer on B"), "{said}");
        assert!(said.contains("--keep A ~/notes"), "{said}");
        let few = Meeting {
            differ: 3,
            newer: vec![(0, 1, 0, 3)],
            ..Meeting::default()
        };
        assert!(!text(&few).contains("warning"));
    }
}
