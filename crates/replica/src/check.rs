//! Reading content again, to find out whether it is still what was recorded.
//!
//! Invariant: decay is said only of a file that stood still while it was read, and whose size and modification
//! time are those recorded; anything else is a change, which a look finds. Decides nothing and changes nothing.

use instep_core::plan::Problem;

use crate::look::Found;

/// What reading one object again showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// It has the content that was recorded: so many bytes were read.
    Sound(u64),
    /// There is no content to be read: no file, or none that is recorded as being here.
    Nothing,
    /// It looks different from what was recorded: something for a look to find.
    Changed,
    /// It is being written, or was changed while it was read.
    Busy,
    /// It has other content, although its size and modification time are those recorded.
    Decayed {
        /// What a look would report of it.
        found: Box<Found>,
        /// Something else says that it was touched: nobody can tell decay from a program that puts the time back.
        touched: bool,
    },
    /// It could not be read.
    Unreadable(Problem),
}
