//! What can be wrong with a whole replica. Difficulties with one path are not errors.

/// What it means to the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The root is missing, unmounted, replaced, or lost its marker: offline until it is back.
    Gone,
    /// Read-only: takes no changes until it is writable again.
    ReadOnly,
    /// No room for the index itself.
    NoSpace,
    /// Not permitted.
    Denied,
    /// Held by another process.
    InUse,
    /// The index is damaged.
    Damaged,
    /// The index was written by a newer version.
    NewerFormat,
    /// The (simulated) machine has crashed.
    Crashed,
    /// Anything else.
    Other,
}

/// Whether trying again may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Not without a person.
    Never,
    /// Later, by itself.
    Later,
}

/// A replica is unusable for now.
#[derive(Debug, thiserror::Error)]
#[error("{attempt}")]
pub struct Error {
    /// What it means.
    pub kind: ErrorKind,
    /// What was attempted on what, lower case.
    pub attempt: String,
    /// What the layer below said.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error without a cause below.
    pub fn new(kind: ErrorKind, attempt: impl Into<String>) -> Self {
        Self {
            kind,
            attempt: attempt.into(),
            source: None,
        }
    }

    /// An error with its cause.
    pub fn because(
        kind: ErrorKind,
        attempt: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            kind,
            attempt: attempt.into(),
            source: Some(source.into()),
        }
    }

    /// Whether trying again may help.
    pub fn retry(&self) -> Retry {
        match self.kind {
            ErrorKind::Gone | ErrorKind::ReadOnly | ErrorKind::NoSpace | ErrorKind::Other => {
                Retry::Later
            }
            ErrorKind::Denied
            | ErrorKind::InUse
            | ErrorKind::Damaged
            | ErrorKind::NewerFormat
            | ErrorKind::Crashed => Retry::Never,
        }
    }

    /// The chain as one line.
    pub fn chain(&self) -> String {
        let mut out = self.attempt.clone();
        let mut next = std::error::Error::source(self);
        while let Some(e) = next {
            out.push_str(": ");
            out.push_str(&e.to_string());
            next = e.source();
        }
        out
    }
}
