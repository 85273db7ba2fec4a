//! Files with the code of an invitation, where their user wants them.
//!
//! Invariant: nobody else can read one that was written here, and one that is there is never replaced.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::error::{Exit, Failure};

/// The code in a file.
pub(crate) fn read(file: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(file).map_err(|e| {
        Failure::new(1076, Exit::Usage, format!("{} has no code", file.display()))
            .why(e.to_string())
            .remedy("instep share invite NAME --token-file FILE   writes one")
    })
}

/// A file for a code, which nobody else can read. It is made before there is a code that could be lost.
pub(crate) struct CodeFile<'a> {
    path: &'a Path,
    file: std::fs::File,
}

impl<'a> CodeFile<'a> {
    /// Makes it.
    pub(crate) fn create(path: &'a Path) -> Result<Self, Failure> {
        let mut open = std::fs::OpenOptions::new();
        let file = open.write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|e| {
            no_file(path, &e).remedy("name a file that does not exist yet, in a folder that does")
        })?;
        Ok(Self { path, file })
    }

    /// Writes the code.
    pub(crate) fn write(mut self, code: &str) -> Result<(), Failure> {
        let written = writeln!(self.file, "{code}").and_then(|()| self.file.sync_all());
        written.map_err(|e| {
            no_file(self.path, &e)
                .effect("the invitation stands, and nobody knows its code; it expires by itself")
        })
    }

    /// There is no code after all.
    pub(crate) fn remove(self) {
        // An empty file in the way is told of when it is.
        drop(std::fs::remove_file(self.path));
    }
}

fn no_file(path: &Path, e: &std::io::Error) -> Failure {
    let what = format!("the code cannot be written to {}", path.display());
    Failure::new(1077, Exit::Failed, what).why(e.to_string())
}
