//! One thing that was checked: how it stands, and what to do where it is not well.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::error::{Exit, Failure};
use crate::ui::put::Put as _;
use crate::ui::{Hue, Style};
use crate::{control, places};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// It is as it should be.
    Good,
    /// It works, and could work better, or soon will not.
    Warn,
    /// It does not work, or something is damaged.
    Fail,
}

/// What `--fix` may do: nothing that a user wrote is concerned, and nothing is decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fix {
    /// Remove sockets that no process listens on.
    Sockets(Vec<String>),
    /// Take the permissions of others from the `.instep` of this folder.
    Close(PathBuf),
}

/// One thing that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) level: Level,
    /// The stable code; none where all is well.
    pub(super) code: Option<u16>,
    /// One sentence, with what it concerns first.
    pub(super) what: String,
    pub(super) why: String,
    pub(super) effect: String,
    /// Commands to paste, or what to do in words.
    pub(super) remedy: Vec<String>,
    /// How the program ends if it is wrong.
    pub(super) exit: Exit,
    pub(super) fix: Option<Fix>,
    /// `--fix` has seen to it.
    pub(super) mended: bool,
}

impl Finding {
    /// Something that is as it should be.
    pub(super) fn good(what: impl Into<String>) -> Self {
        Self {
            level: Level::Good,
            code: None,
            what: what.into(),
            why: String::new(),
            effect: String::new(),
            remedy: Vec::new(),
            exit: Exit::Done,
            fix: None,
            mended: false,
        }
    }

    /// Something that wants a look.
    pub(super) fn warn(code: u16, what: impl Into<String>) -> Self {
        Self {
            level: Level::Warn,
            code: Some(code),
            ..Self::good(what)
        }
    }

    /// Something that is wrong.
    pub(super) fn fail(code: u16, exit: Exit, what: impl Into<String>) -> Self {
        Self {
            level: Level::Fail,
            exit,
            ..Self::warn(code, what)
        }
    }

    /// What a command would have failed with, of a folder.
    pub(super) fn of(label: &str, failure: &Failure) -> Self {
        let what = format!("{label}: {}", failure.what);
        Self {
            why: failure.why.clone(),
            effect: String::from("it takes no part until that is mended"),
            remedy: failure.remedy.clone(),
            ..Self::fail(failure.code, failure.exit, what)
        }
    }

    /// With its cause.
    pub(super) fn why(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    /// With what follows from it.
    pub(super) fn effect(mut self, effect: impl Into<String>) -> Self {
        self.effect = effect.into();
        self
    }

    /// With one more thing to do.
    pub(super) fn remedy(mut self, step: impl Into<String>) -> Self {
        self.remedy.push(step.into());
        self
    }

    /// With what `--fix` may do.
    pub(super) fn fix(mut self, fix: Fix) -> Self {
        self.fix = Some(fix);
        self
    }

    /// Mends it, where that is safe.
    pub(super) fn mend(&mut self) {
        let mended = match &self.fix {
            None => return,
            Some(Fix::Sockets(names)) => {
                control::remove(&places::runtime_dir(), names).map_err(|failure| failure.why)
            }
            Some(Fix::Close(root)) => {
                instep_local::root::close_to_others(root).map_err(|e| e.chain())
            }
        };
        match mended {
            Ok(()) => self.mended = true,
            Err(why) => self
                .why
                .put(format_args!("; it could not be mended: {why}")),
        }
    }

    /// As text: one line where all is well, else its five parts.
    pub(super) fn render(&self, style: &Style) -> String {
        let (word, hue) = match self.level {
            _ if self.mended => ("mended", Hue::Good),
            Level::Good => ("ok", Hue::Good),
            Level::Warn => ("warn", Hue::Attention),
            Level::Fail => ("fail", Hue::Bad),
        };
        let word = style.paint(hue, word);
        let Some(code) = self.code else {
            return format!("{word}    {}\n", self.what);
        };
        let mut out = format!("{word}[E{code}]: {}\n", self.what);
        let steps = self.remedy.join("\n          ");
        for (name, body) in [("why", &self.why), ("effect", &self.effect), ("do", &steps)] {
            if !body.is_empty() && !self.mended {
                out.put(format_args!("  {name:<7} {body}\n"));
            }
        }
        out
    }

    /// As JSON.
    pub(super) fn document(&self) -> Value {
        let level = match self.level {
            Level::Good => "ok",
            Level::Warn => "warn",
            Level::Fail => "fail",
        };
        json!({ "level": level, "code": self.code.map(|c| format!("E{c}")), "what": self.what,
            "why": self.why, "effect": self.effect, "do": self.remedy,
            "fixable": self.fix.is_some(), "fixed": self.mended })
    }
}
