//! Progress of the work that is under way: a line that is drawn over on a terminal, nothing elsewhere.
//!
//! Totals are honest: while the tree is still being looked at, the number of entries so far is shown and no
//! percentage.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use instep_engine::report::Progress;

use crate::quantity;
use crate::ui::put::Put as _;

/// The line at the bottom of the terminal. Clones are the same line.
#[derive(Clone)]
pub(crate) struct Bar {
    line: Option<ProgressBar>,
    /// It is on the terminal now; one that never was is not drawn only to be removed.
    drawn: Arc<AtomicBool>,
}

impl Bar {
    /// A line on standard error, where that is a terminal.
    pub(crate) fn new(live: bool) -> Self {
        let line = live.then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self {
            line,
            drawn: Arc::default(),
        }
    }

    fn drawn(&self) -> Option<&ProgressBar> {
        let drawn = self.drawn.load(Ordering::SeqCst);
        self.line.as_ref().filter(|_| drawn)
    }

    /// Prints something above the line.
    pub(crate) fn aside(&self, print: impl FnOnce()) {
        match self.drawn() {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Shows how far the work is.
    pub(crate) fn show(&self, text: &str) {
        if let Some(bar) = &self.line {
            if !self.drawn.swap(true, Ordering::SeqCst) {
                bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(4));
                bar.reset();
            }
            bar.set_message(text.to_owned());
            bar.tick();
        }
    }

    /// Removes the line until there is something to show again.
    pub(crate) fn clear(&self) {
        if let Some(bar) = self.drawn() {
            bar.finish_and_clear();
            bar.set_draw_target(ProgressDrawTarget::hidden());
            self.drawn.store(false, Ordering::SeqCst);
        }
    }
}

/// How far the work is, in one line.
pub(crate) fn line(p: &Progress, elapsed: Duration) -> String {
    if p.actions_total == 0 {
        return format!("scanning   {}", quantity::counted(p.scanned, "entry"));
    }
    let mut out = format!(
        "syncing    {} of {}",
        quantity::count(p.actions_done),
        quantity::counted(p.actions_total, "change")
    );
    if p.bytes_total > 0 {
        out.put(format_args!(
            "   {} of {}",
            quantity::bytes(p.bytes_done),
            quantity::bytes(p.bytes_total)
        ));
    }
    let percent = percent(p);
    out.put(format_args!("   {percent} %"));
    if let Some(left) = remaining(p, elapsed) {
        out.put(format_args!("   about {} left", quantity::span(left)));
    }
    out
}

/// Done, of a hundred, counting each action as much as 16 KiB: small files cost time too.
fn percent(p: &Progress) -> u64 {
    const ACTION_BYTES: u64 = 16 * 1024;
    let weigh =
        |actions: u64, bytes: u64| actions.saturating_mul(ACTION_BYTES).saturating_add(bytes);
    let total = weigh(p.actions_total, p.bytes_total).max(1);
    (weigh(p.actions_done, p.bytes_done).min(total) as f64 / total as f64 * 100.0) as u64
}

/// Nanoseconds that are left, once there is enough to judge by.
fn remaining(p: &Progress, elapsed: Duration) -> Option<u64> {
    let done = percent(p);
    if !(5..100).contains(&done) || elapsed < Duration::from_secs(2) {
        return None;
    }
    Some((elapsed.as_nanos() as f64 * (100 - done) as f64 / done as f64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_percentage_is_shown_before_the_total_is_known() {
        let p = Progress {
            scanned: 12_000,
            ..Progress::default()
        };
        assert_eq!(line(&p, Duration::ZERO), "scanning   12,000 entries");
    }

    #[test]
    fn small_files_count_and_the_rest_of_the_time_is_shown_late() {
        let mut p = Progress {
            actions_total: 100,
            actions_done: 50,
            bytes_total: 1_000_000,
            bytes_done: 500_000,
            scanned: 0,
        };
        let early = line(&p, Duration::from_secs(1));
        assert_eq!(
            early,
            "syncing    50 of 100 changes   488.3 KiB of 976.6 KiB   50 %"
        );
        assert_eq!(
            line(&p, Duration::from_secs(3)),
            format!("{early}   about 3.0 s left")
        );
        p.actions_done = 100;
        p.bytes_done = 2_000_000;
        assert!(line(&p, Duration::from_secs(3)).ends_with("100 %"));
    }
}
