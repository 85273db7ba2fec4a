//! Everything that is printed goes through [`Output`]: results to standard output, the rest to standard
//! error.
//!
//! Invariant: a reader that has gone away (a closed pipe) ends printing, never the work. Nothing here decides
//! what is said.

pub(crate) mod json;
pub(crate) mod meeting;
pub(crate) mod plan_table;
pub(crate) mod progress;
pub(crate) mod put;
pub(crate) mod table;
pub(crate) mod text;

use std::io::{IsTerminal as _, Write};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::args::{Color, Global};
use crate::error::Failure;
use crate::{quantity, system_env};

/// How things are said.
#[derive(Debug, Clone)]
pub(crate) struct Style {
    /// JSON instead of text.
    pub(crate) json: bool,
    /// ASCII symbols.
    pub(crate) plain: bool,
    /// Only what needs attention.
    pub(crate) quiet: bool,
    /// Every change on a line.
    pub(crate) verbose: bool,
    /// Escape sequences for colour on standard output.
    pub(crate) color: bool,
    /// Standard error is a terminal: progress may be drawn over.
    pub(crate) live: bool,
    /// The zone of times that people read.
    pub(crate) zone: TimeZone,
}

impl Style {
    /// From the options and what the streams are.
    pub(crate) fn new(global: &Global) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let asked_for_none = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        let color = match global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && !asked_for_none && !dumb,
        };
        Self {
            json: global.json,
            plain: global.plain,
            quiet: global.quiet,
            verbose: global.verbose > 0,
            color: color && !global.plain && !global.json,
            live: std::io::stderr().is_terminal() && !global.quiet && !global.json && !dumb,
            zone: TimeZone::system(),
        }
    }

    /// A separator between parts of a line.
    pub(crate) fn dot(&self) -> &'static str {
        if self.plain { " | " } else { "  ·  " }
    }

    /// An arrow between names.
    pub(crate) fn arrow(&self) -> &'static str {
        if self.plain { "->" } else { "→" }
    }

    /// Text in a colour, where there is any.
    pub(crate) fn paint(&self, hue: Hue, text: &str) -> String {
        if !self.color {
            return text.to_owned();
        }
        let code = match hue {
            Hue::Good => "32",
            Hue::Attention => "33",
            Hue::Bad => "31",
            Hue::Faint => "2",
            Hue::Strong => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// What a colour means. It is never the only sign of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hue {
    /// As it should be.
    Good,
    /// Wants a look.
    Attention,
    /// Failed.
    Bad,
    /// Beside the point.
    Faint,
    /// The point.
    Strong,
}

type Stream = Arc<Mutex<Option<Box<dyn Write + Send>>>>;

/// Where everything is printed. Clones print to the same place.
#[derive(Clone)]
pub(crate) struct Output {
    /// How.
    pub(crate) style: Style,
    out: Stream,
    err: Stream,
    bar: progress::Bar,
}

impl Output {
    /// To the streams of the process.
    pub(crate) fn system(style: Style) -> Self {
        let bar = progress::Bar::new(style.live);
        Self::to(
            style,
            Box::new(std::io::stdout()),
            Box::new(std::io::stderr()),
            bar,
        )
    }

    fn to(
        style: Style,
        out: Box<dyn Write + Send>,
        err: Box<dyn Write + Send>,
        bar: progress::Bar,
    ) -> Self {
        let wrap = |w| Arc::new(Mutex::new(Some(w)));
        Self {
            style,
            out: wrap(out),
            err: wrap(err),
            bar,
        }
    }

    /// Prints a result.
    pub(crate) fn result(&self, text: &str) {
        self.bar.aside(|| write(&self.out, text));
    }

    /// Prints a line of a result.
    pub(crate) fn line(&self, text: &str) {
        self.result(&format!("{text}\n"));
    }

    /// Prints something that is not a result: progress, hints, notices.
    pub(crate) fn note(&self, text: &str) {
        if !self.style.quiet && !self.style.json {
            self.bar.aside(|| write(&self.err, &format!("{text}\n")));
        }
    }

    /// Prints why a command failed.
    pub(crate) fn failure(&self, failure: &Failure) {
        let text = if self.style.json {
            let document = document("error", json::failure(failure));
            format!("{document}\n")
        } else {
            failure.render()
        };
        self.bar.aside(|| write(&self.err, &text));
    }

    /// Prints one JSON document.
    pub(crate) fn json(&self, kind: &str, data: Value) {
        self.line(&document(kind, data).to_string());
    }

    /// The progress bar.
    pub(crate) fn bar(&self) -> &progress::Bar {
        &self.bar
    }
}

/// One JSON document.
fn document(kind: &str, data: Value) -> Value {
    let at = quantity::rfc3339(system_env::wall_ns());
    json!({ "v": 1, "kind": kind, "generated_at": at, "data": data })
}

/// Writes and flushes; a stream that refuses is closed.
fn write(stream: &Stream, text: &str) {
    let mut slot = stream.lock().unwrap_or_else(PoisonError::into_inner);
    let failed = slot.as_mut().is_some_and(|w| {
        w.write_all(text.as_bytes())
            .and_then(|()| w.flush())
            .is_err()
    });
    if failed {
        *slot = None;
    }
}

#[cfg(test)]
pub(crate) mod capture {
    //! Output into memory, for tests.
    use super::*;

    /// What was written so far.
    #[derive(Clone, Default)]
    pub(crate) struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Captured {
        /// As text, and forgets it.
        pub(crate) fn take(&self) -> String {
            let mut bytes = self.0.lock().expect("no test panics while printing");
            String::from_utf8(std::mem::take(&mut *bytes)).expect("only text is printed")
        }
    }

    impl Write for Captured {
        fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
            self.0
                .lock()
                .expect("no test panics while printing")
                .extend_from_slice(buf);
            Ok(buf.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// A style without colour, in UTC.
    pub(crate) fn style() -> Style {
        Style {
            json: false,
            plain: false,
            quiet: false,
            verbose: false,
            color: false,
            live: false,
            zone: TimeZone::UTC,
        }
    }

    /// An output and what is written to its two streams.
    pub(crate) fn output(style: Style) -> (Output, Captured, Captured) {
        let (out, err) = (Captured::default(), Captured::default());
        let bar = progress::Bar::new(false);
        (
            Output::to(style, Box::new(out.clone()), Box::new(err.clone()), bar),
            out,
            err,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_went_away_does_not_stop_the_work() {
        let output = Output::to(
            capture::style(),
            Box::new(Closed),
            Box::new(Closed),
            progress::Bar::new(false),
        );
        output.line("one");
        output.line("two");
        assert!(output.out.lock().is_ok_and(|slot| slot.is_none()));
    }

    #[test]
    fn colour_is_never_the_only_sign() {
        let mut style = capture::style();
        assert_eq!(style.paint(Hue::Bad, "failed"), "failed");
        style.color = true;
        assert_eq!(style.paint(Hue::Bad, "failed"), "\x1b[31mfailed\x1b[0m");
    }
}
