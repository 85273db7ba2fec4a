//! What a displaced object is: the look that tells a version which was superseded from a user's save.
//!
//! | what is seen of it | verdict |
//! |---|---|
//! | it is not there | gone: there is nothing to keep |
//! | the content that the index had | expected |
//! | other content | saved: a version of its own, which no other supersedes |
//! | a directory, or nothing that is synchronized | foreign: it goes back to its name |
//! | the look failed, or somebody writes to it | unknown |
//!
//! Owns that table. Invariant: what was not seen is never expected. Moves nothing and mints nothing.

use instep_core::id::ContentId;
use instep_core::path::Name;
use instep_core::version::Kind;
use instep_fs::{Dir, Stat};
use instep_replica::Found;

use crate::content::{Hashed, hash_file};
use crate::replica::LocalReplica;
use crate::scan;

/// How long a writer that we made wait gets to finish before its file is looked at later instead, in milliseconds.
const LATE_WRITER_MS: u64 = 250;

/// What a displaced object turned out to be.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Nothing is there any more.
    Gone,
    /// What the index had.
    Expected,
    /// Something else.
    Saved(Found),
    /// Something that is nobody's version, and is not kept aside.
    Foreign,
    /// Nobody can say now.
    Unknown,
}

/// How long a writer is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// One look.
    None,
    /// It gets the time to finish.
    Some,
    /// It asked to write just now, and needs a moment to begin, too.
    More,
}

/// Looks at what is under a name, in the staging directory or where it was changed in place, where the index had
/// `expected`.
pub(crate) fn judge(
    replica: &LocalReplica,
    staging: &Dir,
    name: Name<'_>,
    expected: ContentId,
    patience: Patience,
) -> Verdict {
    let seen = match staging.stat(name) {
        Ok(None) => return Verdict::Gone,
        Ok(Some(stat)) if is_foreign(stat.kind) => return Verdict::Foreign,
        Ok(Some(stat)) => look(replica, staging, name, &stat, patience),
        Err(e) => Err(e),
    };
    match seen {
        Ok(Some((id, _))) if id == expected => Verdict::Expected,
        Ok(Some((_, found))) => Verdict::Saved(found),
        Ok(None) | Err(_) => Verdict::Unknown,
    }
}

fn is_foreign(kind: instep_fs::Kind) -> bool {
    matches!(kind, instep_fs::Kind::Dir | instep_fs::Kind::Special)
}

/// The content of a file or link that nobody writes.
fn look(
    replica: &LocalReplica,
    staging: &Dir,
    name: Name<'_>,
    stat: &Stat,
    patience: Patience,
) -> instep_fs::Result<Option<(ContentId, Found)>> {
    match stat.kind {
        instep_fs::Kind::Link => {
            let target = staging.read_link(name)?;
            let id = instep_chunk::hash::content_id(&target);
            let found = scan::present(Kind::Link, id, stat, target.into(), false);
            Ok(Some((id, found)))
        }
        instep_fs::Kind::File => settle(replica, staging, name, patience),
        instep_fs::Kind::Dir | instep_fs::Kind::Special => Ok(None),
    }
}

/// Hashes a displaced file when nobody writes it.
fn settle(
    replica: &LocalReplica,
    staging: &Dir,
    name: Name<'_>,
    patience: Patience,
) -> instep_fs::Result<Option<(ContentId, Found)>> {
    let file = staging.open_file(name)?;
    let mut buffer = Vec::new();
    let mut waited = 0;
    if patience == Patience::More {
        // The writer that we woke needs a moment to get its descriptor.
        replica.env.sleep_ms(5);
        waited += 5;
    }
    loop {
        let free = !replica.profile.leases || !matches!(file.read_lease(), Ok(None));
        let stat = file.stat()?;
        if free
            && let Hashed::Content { id, high_entropy } =
                hash_file(&file, &stat, true, &mut buffer)?
        {
            let found = scan::present(Kind::File, id, &stat, Box::default(), high_entropy);
            return Ok(Some((id, found)));
        }
        if patience == Patience::None || waited >= LATE_WRITER_MS {
            return Ok(None);
        }
        replica.env.sleep_ms(2);
        waited += 2;
    }
}
