//! Reaching directories below the root, one component at a time, and our own directory at its top.

use instep_core::path::{Name, RelPath};
use instep_fs::{Dir, ErrorKind, Result};

/// The error number that says that a name is taken.
const EEXIST: i32 = 17;

/// The directories of ours that belong to one root.
#[derive(Debug, Clone)]
pub struct Ours {
    /// `.instep` itself, or the root's place in the user's state directory.
    pub base: Dir,
    /// Files under way. Never seen by a user.
    pub staging: Dir,
    /// What was displaced.
    pub trash: Dir,
    /// Losers of conflicts.
    pub versions: Dir,
}

/// A name that is known to be legal because we chose it.
pub fn ours(name: &str) -> Name<'_> {
    Name::new(name.as_bytes()).expect("names of ours are short and plain")
}

impl Ours {
    /// Opens the directories as they are, making none.
    pub fn existing(base: Dir) -> Result<Self> {
        let sub = |name: &str| base.open_dir(ours(name));
        Ok(Self {
            staging: sub("staging")?,
            trash: sub("trash")?,
            versions: sub("versions")?,
            base,
        })
    }

    /// Opens the directories, making those that are missing.
    pub fn open(base: Dir) -> Result<Self> {
        let sub = |name: &str| match base.make_dir(ours(name), 0o700) {
            Err(e) if e.kind() != ErrorKind::Taken => Err(e),
            _ => base.open_dir(ours(name)),
        };
        Ok(Self {
            staging: sub("staging")?,
            trash: sub("trash")?,
            versions: sub("versions")?,
            base,
        })
    }
}

/// Takes an object from a user's directory into one of ours, under a name that nobody else uses.
pub fn take(from: &Dir, name: Name<'_>, to: &Dir, fresh: Name<'_>) -> Result<()> {
    match from.rename_noreplace(name, to, fresh) {
        Err(e) if e.kind() == ErrorKind::Unsupported => from.rename_over(name, to, fresh),
        result => result,
    }
}

/// Gives an object of ours a free name in a user's directory. A name that is taken stays as it is.
pub fn give(from: &Dir, name: Name<'_>, to: &Dir, free: Name<'_>) -> Result<()> {
    match from.rename_noreplace(name, to, free) {
        Err(e) if e.kind() == ErrorKind::Unsupported => {}
        result => return result,
    }
    // A second name is given only where the name is free, and the first is ours to remove.
    match from.hard_link(name, to, free) {
        Ok(()) => from.remove_file(name),
        Err(e)
            if matches!(
                e.kind(),
                ErrorKind::Taken | ErrorKind::NoSpace | ErrorKind::Crashed
            ) =>
        {
            Err(e)
        }
        Err(_) => shift(from, name, to, free),
    }
}

/// Moves an object between a user's own names. The new one must be free.
pub fn shift(from: &Dir, name: Name<'_>, to: &Dir, free: Name<'_>) -> Result<()> {
    match from.rename_noreplace(name, to, free) {
        Err(e) if e.kind() == ErrorKind::Unsupported => {}
        result => return result,
    }
    if to.stat(free)?.is_some() {
        return Err(instep_fs::Error::new("rename to a free name", EEXIST));
    }
    // RACE: a user may make the name now, and would lose what they made. Declared as "weaker replace".
    from.rename_over(name, to, free)
}

/// Opens the directory at a path, never through a link, never across a mount.
pub fn open(root: &Dir, path: &RelPath) -> Result<Dir> {
    path.components()
        .try_fold(root.clone(), |dir, name| dir.open_dir(name))
}
