//! A plan for people: one column per replica, one line per path, totals and guards.
//!
//! Pure: rows in, text out. Up to eight replicas have a column each; beyond that a fraction stands for them.

use super::table::Table;
use super::{Hue, Style};
use crate::quantity::{bytes, count, counted};
use crate::ui::put::Put as _;

/// More replicas than this become a fraction.
const COLUMNS_MAX: usize = 8;

/// What a replica has at a path, compared with what it should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cell {
    /// The wanted version.
    Wanted,
    /// An older version.
    Older,
    /// Nothing.
    Absent,
    /// It was deleted here.
    Deleted,
    /// It was renamed here.
    Renamed,
    /// A version that competes with another.
    Diverged,
    /// It cannot have it.
    Cannot,
}

impl Cell {
    fn symbol(self, plain: bool) -> &'static str {
        match (self, plain) {
            (Self::Wanted, false) => "●",
            (Self::Wanted, true) => "*",
            (Self::Older, _) => "~",
            (Self::Absent, false) => "·",
            (Self::Absent, true) => ".",
            (Self::Deleted, false) => "✕",
            (Self::Deleted, true) => "x",
            (Self::Renamed, false) => "↷",
            (Self::Renamed, true) => ">",
            (Self::Diverged, _) => "!",
            (Self::Cannot, false) => "▢",
            (Self::Cannot, true) => "-",
        }
    }
}

/// One path of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlanRow {
    /// What each replica has now.
    pub(crate) cells: Vec<Cell>,
    /// The path, and the old one for a rename.
    pub(crate) path: String,
    /// The class it is counted under: `copy`, `update`, `trash`, `rename`, `conflict`, `mode`, `hold`.
    pub(crate) class: String,
    /// What will be done, in a few words.
    pub(crate) action: String,
    /// Bytes that will be brought.
    pub(crate) bytes: u64,
}

/// Everything that is shown of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PlanView {
    /// Labels, in the order of the columns.
    pub(crate) labels: Vec<String>,
    /// Where each is.
    pub(crate) locations: Vec<String>,
    /// By path.
    pub(crate) rows: Vec<PlanRow>,
    /// What guards would do, one sentence each.
    pub(crate) guards: Vec<String>,
}

/// The plan as text; at most `limit` paths, all when it is zero.
pub(crate) fn render(view: &PlanView, limit: usize, style: &Style) -> String {
    let mut out = String::from("Plan for");
    for (label, location) in view.labels.iter().zip(&view.locations) {
        out.put(format_args!(
            "   {} {location}",
            style.paint(Hue::Strong, label)
        ));
    }
    out.push('\n');
    if view.rows.is_empty() {
        out.push_str("Nothing to do.\n");
    } else {
        out.push_str(&table(view, limit, style));
        out.push_str(&totals(&view.rows, style));
    }
    for guard in &view.guards {
        out.put(format_args!("Guards  {guard}\n"));
    }
    out
}

fn table(view: &PlanView, limit: usize, style: &Style) -> String {
    let shown = if limit == 0 {
        view.rows.len()
    } else {
        limit.min(view.rows.len())
    };
    let wide = view.labels.len() > COLUMNS_MAX;
    let head = if wide {
        String::from("have")
    } else {
        view.labels.join(" ")
    };
    let mut table = Table::new(&["", &head, "path", "action", ""]).right(4);
    for row in &view.rows[..shown] {
        let size = if row.bytes > 0 {
            bytes(row.bytes)
        } else {
            String::new()
        };
        table.row([
            String::new(),
            cells(view, row, wide, style),
            row.path.clone(),
            row.action.clone(),
            size,
        ]);
    }
    let mut out = table.render();
    let rest = view.rows.len() - shown;
    if rest > 0 {
        out.put(format_args!(
            "    and {} more (--limit 0 shows all)\n",
            counted(rest as u64, "path")
        ));
    }
    out
}

/// The symbols of one row, each under its label.
fn cells(view: &PlanView, row: &PlanRow, wide: bool, style: &Style) -> String {
    if wide {
        let have = row.cells.iter().filter(|c| **c == Cell::Wanted).count();
        return format!("{have}/{}", row.cells.len());
    }
    let mut out = String::new();
    for (cell, label) in row.cells.iter().zip(&view.labels) {
        out.push_str(cell.symbol(style.plain));
        out.push_str(&" ".repeat(label.chars().count()));
    }
    out.trim_end().to_owned()
}

fn totals(rows: &[PlanRow], style: &Style) -> String {
    let mut classes: Vec<(&str, u64)> = Vec::new();
    for row in rows {
        match classes.iter_mut().find(|(c, _)| *c == row.class) {
            Some((_, n)) => *n += 1,
            None => classes.push((&row.class, 1)),
        }
    }
    let mut parts: Vec<String> = classes
        .iter()
        .map(|(c, n)| format!("{c} {}", count(*n)))
        .collect();
    parts.push(format!(
        "move {}",
        bytes(rows.iter().map(|r| r.bytes).sum())
    ));
    format!("Totals  {}\n", parts.join(style.dot()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot;
    use crate::ui::capture;

    fn view() -> PlanView {
        use Cell::{Absent, Cannot, Deleted, Diverged, Older, Renamed, Wanted};
        let row = |cells: [Cell; 3], path: &str, class: &str, action: &str, bytes| PlanRow {
            cells: cells.to_vec(),
            path: path.into(),
            class: class.into(),
            action: action.into(),
            bytes,
        };
        PlanView {
            labels: vec!["A".into(), "usb".into(), "C".into()],
            locations: vec![
                "~/notes".into(),
                "/mnt/usb/notes".into(),
                "/srv/notes".into(),
            ],
            rows: vec![
                row(
                    [Wanted, Absent, Absent],
                    "drafts/plan.md",
                    "copy",
                    "copy A to usb C",
                    12_697,
                ),
                row(
                    [Older, Wanted, Older],
                    "photos/cat.jpg",
                    "update",
                    "update usb to A C",
                    4_299_161,
                ),
                row(
                    [Deleted, Wanted, Wanted],
                    "old",
                    "trash",
                    "trash on usb C",
                    0,
                ),
                row(
                    [Renamed, Wanted, Wanted],
                    "src/lib.rs to src/core.rs",
                    "rename",
                    "rename on usb C",
                    0,
                ),
                row(
                    [Diverged, Diverged, Wanted],
                    "budget.ods",
                    "conflict",
                    "newest at the path",
                    900,
                ),
                row(
                    [Cannot, Wanted, Wanted],
                    "fifo",
                    "copy",
                    "cannot: special file",
                    0,
                ),
            ],
            guards: vec!["214 of 1,421 deletions (15 %): will be held".into()],
        }
    }

    #[test]
    fn a_plan_for_three_is_as_recorded() {
        snapshot::check("plan", &render(&view(), 0, &capture::style()));
        let plain = Style {
            plain: true,
            ..capture::style()
        };
        let text = render(&view(), 0, &plain);
        assert!(text.is_ascii(), "{text}");
        snapshot::check("plan-plain", &text);
    }

    #[test]
    fn long_plans_are_cut_and_say_so_and_totals_count_everything() {
        let text = render(&view(), 2, &capture::style());
        assert!(text.contains("and 4 paths more"), "{text}");
        assert!(text.contains("copy 2"), "{text}");
        assert!(render(&PlanView::default(), 0, &capture::style()).contains("Nothing to do."));
    }

    #[test]
    fn many_replicas_become_a_fraction() {
        let mut view = view();
        view.labels = (0..12).map(|i| format!("R{i}")).collect();
        for row in &mut view.rows {
            row.cells = vec![Cell::Wanted; 12];
        }
        assert!(render(&view, 0, &capture::style()).contains("12/12"));
    }
}
