//! Every bound in the system, named, with its reason. No peer and no setting can switch one off.

/// Bytes of one path component: what every Linux file system accepts.
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes of a whole path: far beyond `PATH_MAX`, because trees are walked by directory descriptors.
pub const PATH_BYTES_MAX: usize = 64 * 1024;
/// Components of a path.
pub const PATH_DEPTH_MAX: usize = 4096;
/// Bytes of a symbolic link's target.
pub const LINK_TARGET_BYTES_MAX: usize = 4096;
/// Bytes of the extended attributes of one object, names and values together.
pub const XATTR_BYTES_MAX: usize = 64 * 1024;
/// Bytes of the name of a user or group: more than any system's.
pub const ACCOUNT_NAME_BYTES_MAX: usize = 255;
/// Siblings of one entry; more are never dropped, the path is held instead.
pub const SIBLINGS_MAX: usize = 32;
/// Actors of one causal context.
pub const ACTORS_MAX: usize = 4096;
/// Earlier content ids that a version remembers, to recognise edits that changed no content.
pub const PREVIOUS_MAX: usize = 2;
/// How far ahead of our clock a modification time or a peer's clock may be and still count: two minutes.
pub const CLOCK_AHEAD_MAX_NS: i64 = 120 * 1_000_000_000;
/// Counters reserved durably at a time, so that a crash can never make one appear twice.
pub const COUNTER_BLOCK: u64 = 4096;
/// Counters above this are forged: nobody observes so many changes.
pub const COUNTER_MAX: u64 = 1 << 48;
/// A burst that deletes no more than this many entries is never held.
pub const BRAKE_ENTRIES: u64 = 50;
/// A burst is held only when it deletes more than this share of the entries.
pub const BRAKE_PERCENT: u64 = 25;
/// A burst is held when more than this share of the files turns from structured to high-entropy.
pub const BRAKE_ENTROPY_PERCENT: u64 = 30;
/// Bytes of a file that is copied in one go by the worker that found it; larger ones are staged aside.
pub const SMALL_FILE_BYTES: u64 = 1024 * 1024;
/// Actions carried out between two durability barriers.
pub const EPOCH_ACTIONS_MAX: usize = 4000;
/// Bytes carried out between two durability barriers.
pub const EPOCH_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Open files by default, all workers together.
pub const OPEN_FILES: usize = 512;
/// Days that displaced content stays in the trash.
pub const TRASH_DAYS: u64 = 30;
/// How long something displaced waits until it can be judged; then it is kept for ever, whatever it is.
pub const UNJUDGED_MS: u64 = 10 * 60 * 1000;
/// Bytes of one ignore file or list of rules; what follows is not read, and that is reported.
pub const RULE_SOURCE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of one ignore pattern: as long as the longest path a program can name.
pub const RULE_PATTERN_BYTES_MAX: usize = 4096;
/// Components of one ignore pattern: what fits a machine word of matching state.
pub const RULE_COMPONENTS_MAX: usize = 63;
