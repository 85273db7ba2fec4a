//! The only owner of file system calls.
//!
//! Everything below a root goes through [`Dir`], an open directory: no call takes a path string, none
//! follows a symbolic link, none crosses a mount unless asked. Two implementations stand behind the same
//! types: Linux (`os`), and an in-memory file system with a page cache and a durable image (`sim`, feature
//! `sim`) in which every call can fail, crash or be preceded by a user's action.
//!
//! Invariants: no function replaces a name that the caller did not name together with what it expects there
//! (plain replacing renames do not exist here, but for small files of ours); an incomplete listing is an error, never a short list;
//! unsafe code lives in this crate only.
//!
//! Start with [`dir`]; [`api`] holds the plain values.

pub mod api;
pub mod dir;
mod os;
pub mod place;
#[cfg(feature = "sim")]
pub mod sim;
pub mod small_file;
pub mod watch;

pub use api::{Error, ErrorKind, Kind, ListItem, Party, Profile, Result, Stat};
pub use dir::{Dir, File, Lease, LockFile, Space};
