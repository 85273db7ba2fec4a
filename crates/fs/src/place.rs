//! Operator paths: the only path strings in this crate. Opening a root, the user's state directory, the
//! runtime directory; mount table; boot id.
