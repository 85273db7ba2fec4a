//! What a replica declares it can do, and how it introduces itself.

use instep_core::attributes::Carried;
use instep_core::policy::Role;

/// What a replica can and cannot do. The conformance suite holds it to exactly this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// It can be changed. Not so a mirror's source or a read-only mount.
    pub writable: bool,
    /// Another process writes it, at the far end of a connection; here it is only watched. Nothing is planned for
    /// it and nothing is recorded on it: what it knows counts, and what it has can be had.
    pub observed: bool,
    /// Users and programs change what is there. Not so of a store that the engine alone writes: a look finds nothing
    /// there but what was brought back or has decayed.
    pub edited: bool,
    /// Hints are complete unless it says otherwise; without this it is polled.
    pub hints: bool,
    /// A file is replaced so that a user's save at the same instant is always kept. Without this there is a
    /// window, and `status` says "weaker".
    pub strong_replace: bool,
    /// Content can be cloned instead of copied.
    pub reflink: bool,
    /// Permission bits are kept.
    pub modes: bool,
    /// Which of owner and extended attributes are carried.
    pub carried: Carried,
    /// Symbolic links are kept.
    pub links: bool,
    /// Names that differ only by case are different names.
    pub case_sensitive: bool,
}

/// How a replica introduces itself to a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The short name in every message: `A`, `B`, or what the user chose.
    pub label: String,
    /// Where it is, as the user wrote it.
    pub location: String,
    /// Its file system, as in the mount table.
    pub fs_type: String,
    /// What it may do in this session.
    pub role: Role,
    /// Whether it joined the share just now.
    pub new: bool,
    /// What a person should know about how it works here: polling, weaker replace.
    pub notes: Vec<String>,
}
