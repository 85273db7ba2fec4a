//! Appending formatted text to a string, which cannot fail.

use std::fmt::{Arguments, Write as _};

/// A string that takes formatted text.
pub(crate) trait Put {
    /// Appends.
    fn put(&mut self, text: Arguments<'_>);
}

impl Put for String {
    fn put(&mut self, text: Arguments<'_>) {
        self.write_fmt(text)
            .expect("a string takes everything, and our own types can be shown");
    }
}
