//! What `ssh`, and whatever it started, says on standard error: passed on to the user, and kept as the reason of a
//! failure.
//!
//! Invariant: nothing of it can act on a terminal, and only its end is kept.

use std::io::{Read, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::harmless;

/// Bytes of it that are kept.
const KEPT: usize = 8 * 1024;

/// Whether the user is to see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Voice {
    /// The user started it and may have to answer.
    Aloud,
    /// It is one of many attempts to come back.
    Quiet,
}

/// Somebody who listens.
pub(crate) struct Heard {
    kept: Arc<Mutex<String>>,
    thread: Option<JoinHandle<()>>,
}

impl Heard {
    /// Listens until the other end is closed.
    pub(crate) fn listen(from: Option<impl Read + Send + 'static>, voice: Voice) -> Self {
        let kept: Arc<Mutex<String>> = Arc::default();
        let keeps = Arc::clone(&kept);
        let work = move || {
            if let Some(from) = from {
                listen(from, voice, &keeps);
            }
        };
        // Without it nothing is shown, and a failure has fewer words.
        let thread = std::thread::Builder::new()
            .name("ssh".into())
            .spawn(work)
            .ok();
        Self { kept, thread }
    }

    /// What was said, when whoever said it has ended. A program in the background may hold the other end open.
    pub(crate) fn said(&self) -> String {
        for _ in 0..20 {
            if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.clone()
    }
}

fn listen(mut from: impl Read, voice: Voice, keeps: &Mutex<String>) {
    let mut bytes = vec![0; 4096];
    loop {
        let n = match from.read(&mut bytes) {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => return,
            Ok(n) => n,
        };
        let text = shown(&String::from_utf8_lossy(&bytes[..n]));
        let mut kept = keeps.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_str(&text);
        let surplus = kept.len().saturating_sub(KEPT);
        let cut = (surplus..=kept.len()).find(|at| kept.is_char_boundary(*at));
        kept.drain(..cut.unwrap_or(0));
        drop(kept);
        if voice == Voice::Aloud {
            // A question must be seen before its line has ended.
            let _unseen = std::io::stderr().write_all(text.as_bytes());
        }
    }
}

/// Its lines, with nothing in them that acts on a terminal.
fn shown(text: &str) -> String {
    let lines = text
        .split('\n')
        .map(|line| harmless(line.trim_end_matches('\r')));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_is_shown_and_does_not_act() {
        let said = b"Permission denied\r\n\x1b[2Jgone\n";
        let heard = Heard::listen(Some(&said[..]), Voice::Quiet);
        assert_eq!(heard.said(), "Permission denied\n\\u{1b}[2Jgone\n");
    }

    #[test]
    fn only_the_end_of_a_flood_is_kept() {
        let mut flood = "é".repeat(KEPT);
        flood.push_str("the reason");
        let from = std::io::Cursor::new(flood.into_bytes());
        let said = Heard::listen(Some(from), Voice::Quiet).said();
        assert!(said.len() <= KEPT && said.ends_with("the reason"));
    }
}
