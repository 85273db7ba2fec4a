//! What a command says when it cannot do what was asked: five parts, always the same five.
//!
//! Owns the exit codes and their order. Invariant: every [`Failure`] carries a code that has a page in
//! `docs/errors`. It never prints; [`crate::ui::Output`] does.

use crate::ui::put::Put as _;
use std::fmt;

/// How the program ends. The numbers are documented and never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Exit {
    /// Done, in sync, or nothing to do.
    Done = 0,
    /// Failed, not otherwise classified.
    Failed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// Finished, but some paths failed.
    SomeFailed = 3,
    /// Finished, conflicts remain.
    Conflicts = 4,
    /// A guard wants a decision.
    Held = 5,
    /// A root cannot be reached now.
    Unreachable = 6,
    /// Not permitted; trying again will not help.
    Denied = 7,
    /// In use by another instance.
    InUse = 8,
    /// Changes are pending.
    Pending = 10,
    /// Verification found damage.
    Damage = 11,
    /// Written by a version that this one does not understand.
    Incompatible = 12,
    /// No room left.
    NoSpace = 13,
    /// Stopped by SIGINT, state consistent.
    Interrupted = 130,
    /// Stopped by SIGTERM, state consistent.
    Terminated = 143,
}

impl Exit {
    /// The number.
    pub(crate) fn number(self) -> u8 {
        self as u8
    }

    /// Where it stands when several apply; lower comes first.
    fn rank(self) -> u8 {
        match self {
            Self::Interrupted | Self::Terminated => 0,
            Self::Damage => 1,
            Self::NoSpace => 2,
            Self::Incompatible => 3,
            Self::Denied => 4,
            Self::Unreachable => 5,
            Self::Held => 6,
            Self::SomeFailed => 7,
            Self::Conflicts => 8,
            Self::InUse | Self::Usage | Self::Failed => 9,
            Self::Pending => 10,
            Self::Done => 11,
        }
    }

    /// The one that is returned when several apply.
    pub(crate) fn first(all: &[Self]) -> Self {
        all.iter()
            .copied()
            .min_by_key(|e| e.rank())
            .unwrap_or(Self::Done)
    }
}

/// Why a command ends without having done what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The stable code: 1002 is shown as `E1002`.
    pub(crate) code: u16,
    /// One sentence, with what it concerns first.
    pub(crate) what: String,
    /// The cause, with the system's own words.
    pub(crate) why: String,
    /// What still holds.
    pub(crate) effect: String,
    /// What to do, most useful first; commands where there are any.
    pub(crate) remedy: Vec<String>,
    /// How the program ends.
    pub(crate) exit: Exit,
}

impl Failure {
    /// A failure that left everything as it was.
    pub(crate) fn new(code: u16, exit: Exit, what: impl Into<String>) -> Self {
        Self {
            code,
            what: what.into(),
            why: String::new(),
            effect: String::from("nothing was changed"),
            remedy: Vec::new(),
            exit,
        }
    }

    /// With its cause.
    pub(crate) fn why(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    /// With what still holds, where that is not "nothing was changed".
    pub(crate) fn effect(mut self, effect: impl Into<String>) -> Self {
        self.effect = effect.into();
        self
    }

    /// With one more thing to do.
    pub(crate) fn remedy(mut self, step: impl Into<String>) -> Self {
        self.remedy.push(step.into());
        self
    }

    /// The code as users see it.
    pub(crate) fn code_text(&self) -> String {
        format!("E{:04}", self.code)
    }

    /// The five parts as text, each on lines of its own.
    pub(crate) fn render(&self) -> String {
        let mut out = format!("error[{}]: {}\n", self.code_text(), harmless(&self.what));
        let mut part = |name: &str, body: &str| {
            let mut lines = body.lines().map(harmless);
            if let Some(first) = lines.next() {
                out.put(format_args!("  {name:<7} {first}\n"));
            }
            for line in lines {
                out.put(format_args!("          {line}\n"));
            }
        };
        part("why", &self.why);
        part("effect", &self.effect);
        part("do", &self.remedy.join("\n"));
        part("more", &format!("instep explain {}", self.code_text()));
        out
    }
}

/// A line with nothing in it that could act on a terminal: names may have any bytes.
pub(crate) fn harmless(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    for c in line.chars() {
        if instep_core::path::acts(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Failure {}

/// What went wrong below, said by a replica.
impl From<instep_replica::Error> for Failure {
    fn from(error: instep_replica::Error) -> Self {
        use instep_replica::ErrorKind as Kind;
        let (code, exit, step) = match error.kind {
            Kind::Gone => (
                2201,
                Exit::Unreachable,
                "mount it or put it back, then run the command again",
            ),
            Kind::ReadOnly => (2107, Exit::SomeFailed, "remount it read-write"),
            Kind::NoSpace => (2108, Exit::NoSpace, "make room on that file system"),
            Kind::Denied => (
                1005,
                Exit::Denied,
                "give this user read and write access to it",
            ),
            Kind::InUse => (
                1006,
                Exit::InUse,
                "use the instance that is running, or stop it first",
            ),
            Kind::Damaged => (
                1010,
                Exit::Damage,
                "run instep sync on it: the index is rebuilt",
            ),
            Kind::NewerFormat => (
                1011,
                Exit::Incompatible,
                "install the newer instep here too",
            ),
            Kind::Crashed | Kind::Other => (1900, Exit::Failed, "run the command again with -v"),
        };
        let mut below = Vec::new();
        let mut next = std::error::Error::source(&error);
        while let Some(e) = next {
            below.push(e.to_string());
            next = e.source();
        }
        Self::new(code, exit, error.attempt.clone())
            .why(below.join(": "))
            .remedy(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_urgent_of_several_endings_wins() {
        let all = [Exit::Conflicts, Exit::Held, Exit::SomeFailed];
        assert_eq!(Exit::first(&all), Exit::Held);
        assert_eq!(Exit::first(&[Exit::Damage, Exit::NoSpace]), Exit::Damage);
        assert_eq!(
            Exit::first(&[Exit::Unreachable, Exit::Denied]),
            Exit::Denied
        );
        assert_eq!(Exit::first(&[]), Exit::Done);
        assert_eq!(
            Exit::first(&[Exit::Held, Exit::Interrupted]),
            Exit::Interrupted
        );
    }

    #[test]
    fn all_five_parts_are_shown_and_empty_ones_are_not() {
        let full = Failure::new(1002, Exit::Usage, "b is inside a")
            .why("first\nsecond")
            .remedy("one");
        assert_eq!(
            full.render(),
            "error[E1002]: b is inside a\n  why     first\n          second\n  \
             effect  nothing was changed\n  do      one\n  more    instep explain E1002\n"
        );
        assert!(!Failure::new(1, Exit::Failed, "x").render().contains("why"));
    }
}
