//! Which directory is which replica, and where the state of a root is kept.
//!
//! A root that takes changes keeps its state in `.instep` at its top. A root that must not be touched (a
//! mirror's source, a read-only file system) keeps it in the user's state directory, found by the
//! identity of the root's inode. The user's state directory also keeps, for every replica, evidence of
//! where it was last, so that a copy can be told from a move, and a restored index from a current one.
//! A root with state inside that cannot be written now is read with a copy of its index in memory, and
//! opened anew as the same replica when it can be written. Where it has no state inside, its outside
//! identity moves in then.
//!
//! ```text
//! site        a directory as it is found, and where its state is or would be   looks only
//! marker      which replica lives in a root, and which shares it is in
//! written     paths in what is written down
//! evidence    whether a marker belongs where it was found; the memory of replicas
//! lock        who has a root
//! home        the directory of the state, made and locked
//! index_file  the file of the index, opened or moved aside
//! open        all of these in order, to a replica; again: anew, within a session
//! guard       whether an open root is still in place
//! inspect     what can be seen from outside; forget: how a membership ends
//! examine     the state of a root read from end to end
//! ```
//!
//! Invariant: inspecting and previewing create nothing anywhere. This file has no logic of its own.

mod again;
mod evidence;
mod examine;
mod files;
mod forget;
mod guard;
mod home;
mod index_file;
mod inspect;
mod lock;
mod marker;
mod open;
mod site;
mod written;

pub use again::open_again;
pub use evidence::{is_bare_mount_point, known_at};
pub use examine::{Examination, Left, Standing, close_to_others, examine};
pub use forget::forget;
pub(crate) use index_file::fresh_actor;
pub use inspect::{Inspection, inspect};
pub use marker::{Membership, MembershipKind, memberships_in};
pub use open::{OpenOptions, ShareChoice};
