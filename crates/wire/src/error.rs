//! Why there is no connection, or no more of it.
//!
//! Invariant: whoever uses a connection that is over gets one of these, at the latest after
//! [`KEEPALIVE`](crate::limits::KEEPALIVE) and [`KEEPALIVE_ANSWER`](crate::limits::KEEPALIVE_ANSWER); never a hang.

use crate::identity::DeviceId;
use crate::message::Versions;
use crate::proto::ProtoError;

/// Why there is no connection, or no more of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The far end is there and will have nothing to do with us. Trying again changes nothing.
    #[error("refused by the far end ({code}): {detail}")]
    Refused {
        /// Why, in stable words; `key` where it does not know or does not want our key.
        code: String,
        /// Why, for people.
        detail: String,
    },
    /// The far end has another key than it should have. Nothing was told it.
    #[error(
        "the far end has another key: expected {expected} ({}), found {found} ({})",
        expected.fingerprint(), found.fingerprint()
    )]
    WrongKey {
        /// The device that was called.
        expected: DeviceId,
        /// The device that answered.
        found: DeviceId,
    },
    /// Nobody answered there.
    #[error("reach {address}: {why}")]
    Unreachable {
        /// Where.
        address: String,
        /// What the system said.
        why: String,
    },
    /// The connection broke. Trying again is right.
    #[error("connection lost: {0}")]
    Lost(String),
    /// No version of the protocol that both speak.
    #[error("the far end speaks protocol {theirs}, this program {ours}")]
    Incompatible {
        /// What we speak.
        ours: Versions,
        /// What it speaks.
        theirs: Versions,
    },
    /// The far end did what no honest program does; the connection was closed.
    #[error("protocol violated by the far end: {0}")]
    Violation(String),
    /// One of both said goodbye.
    #[error("connection closed ({code})")]
    Closed {
        /// Why, in stable words.
        code: String,
    },
    /// What was to be sent is beyond a limit. It was not sent, and the connection goes on.
    #[error("not sent: {0}")]
    Unsendable(ProtoError),
}

impl LinkError {
    /// Whether the same attempt may succeed later without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Lost(_) | Self::Closed { .. }
        )
    }
}
