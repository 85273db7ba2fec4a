//! How much a session does in one go. Decides speed, never what is done.

/// How much a session does in one go: nobody sees a difference but in speed. Tests make everything tiny, so
/// that what happens between two pieces happens all the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Actions carried out between two durability barriers; at least one.
    pub actions: usize,
    /// From this many dirty paths on directories are read as a whole.
    pub bulk: usize,
    /// Files of at least this many bytes are staged aside while the session is live.
    pub aside_bytes: u64,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            actions: instep_core::limits::EPOCH_ACTIONS_MAX,
            bulk: 1000,
            aside_bytes: 8 * 1024 * 1024,
        }
    }
}
