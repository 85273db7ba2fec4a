//! What to make of a disk after a crash.
//!
//! What a batch is about to do is written down first, as an intent. After a crash the disk is classified by
//! content:
//!
//! | disk has | meaning | action |
//! |---|---|---|
//! | the new content | done, commit lost | the row is written; no dot is minted |
//! | the new content, other permissions, or in the same boot another time | a user's chmod or touch | the row is written; the next look mints it |
//! | the old content | not done, or where the row says otherwise in the same boot, a user's edit | nothing; it is planned again, or the next look mints it |
//! | what was there before that, other boot | a power cut went further back | it stays until the new content takes its place |
//! | anything else, same boot, and what was there is among what we displaced | done, then a user's change | the row is written; the next look mints the change |
//! | neither, same boot | a user's edit | the next look mints it |
//! | neither, other boot | torn by a power cut | kept in trash, fetched again; no dot is minted |
//! | neither, other boot, but of another kind or time than what we brought | a user's edit | the next look mints it, beside ours |
//! | no name, same boot | a user's deletion | the next look mints it |
//! | no name, other boot | a creation that was lost | fetched again; no dot is minted |
//!
//! Where the row has moved on since the intent, the row is right, and the intent is of the past. Where names
//! cannot be exchanged, a missing name is a creation that was lost in the same boot, too, unless nothing is aside.
//!
//! ```text
//! intent    what a batch is about to do, on record
//! on_disk   what is at a path, by content
//! classify  what became of an intent        suspect  rows that are ahead of the disk
//! remedy    what can be done about a path   doubt    what a file without a row may be after a power cut
//! staging   what was under way              earlier  what was at a path before
//! taken     what had been displaced
//! ```
//!
//! Invariant: nothing that we did is taken for something that a user did, and nothing that a user wrote is
//! unlinked; and an intent is forgotten when what became of it is durable. This file owns the order.

mod classify;
mod doubt;
mod earlier;
mod intent;
mod on_disk;
mod remedy;
mod staging;
mod suspect;
mod taken;

use instep_replica::{Result, Step};
use instep_store::{Durability, Table};

use crate::index::store_error;
use crate::prune;
use crate::replica::LocalReplica;
use classify::Death;
use earlier::Earlier;
use taken::Taken;

pub use doubt::{Doubt, begin_blind, is_unsure, looked, unsure};
pub use intent::{Intended, decode, fulfilled, intend, is_intended_within};
pub(crate) use on_disk::content;
pub(crate) use staging::{displaced_by, sweep};

/// Brings index and disk together after the process or the machine died. `other_boot` tells which.
pub fn after_crash(replica: &LocalReplica, other_boot: bool) -> Result<()> {
    let all = intent::pending(&mut replica.index())?;
    let earlier = if other_boot {
        Earlier::of(&all, replica.index().lately())
    } else {
        Earlier::default()
    };
    let taken = if other_boot {
        Taken::default()
    } else {
        Taken::of(replica, &all)?
    };
    let may_be_aside = !other_boot && !replica.profile.exchange;
    let aside = may_be_aside && staging::is_any_aside(replica, &all)?;
    for intended in &all {
        let death = Death {
            other_boot,
            aside,
            taken: taken.has(intended),
        };
        classify::classify(replica, intended, &earlier, death)?;
        replica.env.reach(Step::Classified);
    }
    // This puts on record what was decided: from here on the staging directory tells less.
    prune::above(replica, all.iter().map(|i| &i.path), |_| false)?;
    if other_boot {
        let durable = doubt::sure_epoch(&mut replica.index())?;
        crate::relist::ahead(replica, durable)?;
        suspect::suspects(replica, &earlier)?;
        doubt::begin(&mut replica.index(), replica.env.wall_ns())?;
    }
    suspect::orphans(replica)?;
    sweep(replica, &all, other_boot)?;
    crate::relist::unlisted(replica, &all)?;
    if other_boot || !all.is_empty() {
        // Without intents nobody could tell what the next power cut leaves of all that.
        replica.sync()?;
    }
    let mut index = replica.index();
    fulfilled(&mut index)?;
    // Rows may say less than before: nobody may rely on all replicas being in step.
    index
        .store()
        .remove_record(Table::Meta, b"settled")
        .map_err(|e| store_error("write a record", e))?;
    replica.env.reach(Step::Recovering);
    index.commit(Durability::Process)?;
    replica.env.reach(Step::Recovered);
    Ok(())
}
