//! What one peer may cost, in bytes, counts and seconds.
//!
//! Invariant: nothing that a peer sends raises any of these, and zero never means unlimited. What a limit is about is
//! refused before memory is taken for it; the connection ends where a peer must have known better.

use std::time::Duration;

/// The lowest version of the protocol that is spoken here.
pub const VERSION_MIN: u32 = 1;
/// The highest version of the protocol that is spoken here.
pub const VERSION_MAX: u32 = 1;

/// Sockets of which it is not yet known whose they are.
pub const STRANGERS_MAX: usize = 64;
/// The same, of one address.
pub const STRANGERS_PER_ADDRESS_MAX: usize = 4;
/// So long a stranger has to prove who it is, whatever it sends meanwhile.
pub const STRANGER_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes that a stranger may send.
pub const STRANGER_BYTES_MAX: u64 = 16 * 1024;
/// Failures of one address within [`FAILURE_PERIOD`] after which it is not listened to for a while.
pub const FAILURES_MAX: u32 = 5;
/// How long a failure counts, and how long the first silence lasts; each further one is twice as long.
pub const FAILURE_PERIOD: Duration = Duration::from_mins(1);
/// The longest silence.
pub const SILENCE_MAX: Duration = Duration::from_hours(24);
/// Addresses whose failures are remembered; beyond it the oldest are forgotten.
pub const ADDRESSES_MAX: usize = 4096;
/// Connections of one device at a time: one for each share, and those that are half dead.
pub const LINKS_PER_DEVICE_MAX: usize = 64;
/// Established connections of all devices.
pub const LINKS_MAX: usize = 4096;

/// So long reaching an address may take, encryption included.
pub const DIAL_DEADLINE: Duration = Duration::from_secs(10);
/// So long nothing may come before the far end is asked whether it is there.
pub const KEEPALIVE: Duration = Duration::from_secs(20);
/// So long an answer to that may take.
pub const KEEPALIVE_ANSWER: Duration = Duration::from_secs(10);
/// So long a living peer may take nothing from us, or give nothing that it owes us.
pub const STALL: Duration = Duration::from_mins(2);
/// So long a link that is being closed may go on sending what it was given.
pub const CLOSE_GRACE: Duration = Duration::from_secs(5);

/// Bytes of one message of control.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Rows of one message, and ranges, and actors.
pub const ITEMS_MAX: usize = 4096;
/// Bytes of content that travel inside a row.
pub const INLINE_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a label, a role, or the name of a share.
pub const LABEL_BYTES_MAX: usize = 255;
/// Bytes of the key of a record.
pub const RECORD_KEY_BYTES_MAX: usize = 1024;
/// Bytes of a code: stable words such as `unknown-share`.
pub const CODE_BYTES_MAX: usize = 64;
/// Bytes of a text for people.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Counters above this are forged: nobody observes so many changes.
pub const COUNTER_MAX: u64 = instep_core::limits::COUNTER_MAX;
/// Bytes of messages that arrived and were not yet received by the program.
pub const INBOX_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The same in messages.
pub const INBOX_MESSAGES_MAX: usize = 1024;
/// Messages that wait to be sent; whoever sends more waits.
pub const OUTBOX_MESSAGES_MAX: usize = 64;

/// HTTP/2: bytes on their way in one stream.
pub const STREAM_WINDOW: u32 = 8 * 1024 * 1024;
/// HTTP/2: bytes on their way in one connection.
pub const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// HTTP/2: bytes of one frame.
pub const HTTP_FRAME_BYTES: u32 = 256 * 1024;
/// HTTP/2: calls at a time. One is the exchange, one the bulk, and one may be on its way out.
pub const CALLS_MAX: u32 = 4;
/// HTTP/2: bytes of the headers of a call.
pub const HEADER_BYTES_MAX: u32 = 8 * 1024;
/// HTTP/2: bytes that wait in the send buffer of a call.
pub const SEND_BUFFER_BYTES: usize = 512 * 1024;

/// Contents that may be asked for and are not there yet, and the same of the far end.
pub const WANTS_MAX: usize = 64;
/// Of these, left to those who wait for what they ask for by those who ask ahead.
pub const WANTS_SPARE: usize = 16;
/// Contents that were asked for and are not read to their end yet, those that are there in full included.
pub const FETCHES_MAX: usize = 1024;
/// Bulk: bytes of the payload of one frame.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;
/// Bulk: bytes that a compressed piece may say that it stands for.
pub const PLAIN_BYTES_MAX: u32 = 16 * 1024 * 1024;
/// Bulk: bytes of a content that may come before any is read. A compressed piece is never longer.
pub const WINDOW_BYTES: u64 = 256 * 1024;
/// Bulk: the same, at most, where memory is left and the reader is fast.
pub const WINDOW_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Bulk: bytes of credit for one content beyond which it is nonsense.
pub const CREDIT_BYTES_MAX: u64 = 1 << 30;
/// Bulk: bytes of all links together that windows may be wider than [`WINDOW_BYTES`].
pub const BUDGET_BYTES: u64 = 1024 * 1024 * 1024;
/// Bulk: the same of one link.
pub const LINK_BUDGET_BYTES: u64 = 64 * 1024 * 1024;
/// Bulk: bytes of one content that wait to be sent; whoever writes more waits.
pub const UNSENT_BYTES_MAX: usize = 512 * 1024;
/// Bulk: bytes of one data frame, at least and at most; in between, what the connection carries in [`FRAME_TIME`].
pub const DATA_FRAME_BYTES: (usize, usize) = (16 * 1024, FRAME_BYTES_MAX);
/// Bulk: so long a small content may have to wait behind a frame of a big one.
pub const FRAME_TIME: Duration = Duration::from_millis(2);
/// Bulk: a content that waited so long is served as if it were one class more urgent.
pub const AGING: Duration = Duration::from_secs(30);
/// Pipes: bytes that may come before the far end says who it is: what a login shell prints.
pub const BANNER_BYTES_MAX: usize = 64 * 1024;
/// Manifests: nodes that are asked for at a time.
pub const NODES_MAX: usize = 128;
/// Manifests: bytes of one node.
pub const NODE_BYTES_MAX: usize = 8 * 1024;
/// Manifests: after so many bytes that it had to read, whoever answers shows that it is still at it.
pub const NODE_PATIENCE_BYTES: u64 = 64 * 1024 * 1024;
/// Manifests: how often whoever answers may say in addition that it waits for somebody else who reads it.
pub const NODE_PATIENCES_MAX: usize = 32;
/// Parts of a content that are asked for at a time.
pub const RANGES_MAX: usize = 256;
/// Bytes of a content that are asked for as a delta.
pub const DELTA_BYTES_MAX: u32 = 4 * 1024 * 1024;
/// Fingerprints of old bytes that go with it.
pub const FINGERPRINTS_MAX: usize = 8193;
