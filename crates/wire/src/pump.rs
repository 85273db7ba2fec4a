//! Takes in what the far end says: decodes it, keeps the rules of the exchange, and hands it on.
//!
//! Invariant: memory for what arrived and was not received yet is bounded; a far end that says more waits, and one that
//! breaks a rule is heard no further.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use instep_core::id::{ActorId, ReplicaId, ShareId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::Streaming;

use crate::bulk::Bulk;
use crate::error::LinkError;
use crate::limits;
use crate::link::End;
use crate::message::{Hello, Message, Versions};
use crate::proto::{self, Arrival};
use crate::tap::Seen;

/// A message that waits to be received, with its share of the memory.
pub(crate) struct Arrived {
    pub(crate) message: Message,
    _room: OwnedSemaphorePermit,
}

/// What takes in the messages of one link.
pub(crate) struct Pump {
    to: mpsc::Sender<Arrived>,
    back: mpsc::WeakSender<Bytes>,
    end: End,
    seen: Arc<Seen>,
    room: Arc<Semaphore>,
    bulk: Arc<Bulk>,
    greeted: bool,
}

impl Pump {
    pub(crate) fn new(
        to: mpsc::Sender<Arrived>,
        back: mpsc::WeakSender<Bytes>,
        end: End,
        seen: Arc<Seen>,
        bulk: Arc<Bulk>,
    ) -> Self {
        Self {
            bulk,
            to,
            back,
            end,
            seen,
            room: Arc::new(Semaphore::new(limits::INBOX_BYTES_MAX)),
            greeted: false,
        }
    }

    /// Until the end.
    pub(crate) async fn run(mut self, mut incoming: Streaming<Bytes>) {
        let cause = loop {
            let next = tokio::select! {
                next = incoming.message() => next,
                cause = self.end.wait() => break cause,
            };
            match next {
                Ok(Some(bytes)) => {
                    if let Err(cause) = self.take(bytes).await {
                        break cause;
                    }
                }
                Ok(None) => break self.silent(String::from("the far end hung up")).await,
                Err(status) if status.code() == tonic::Code::OutOfRange => {
                    break LinkError::Violation(String::from(status.message()));
                }
                Err(status) => break self.silent(String::from(status.message())).await,
            }
        };
        let code = match cause {
            LinkError::Violation(_) => Some("violation"),
            LinkError::Incompatible { .. } => Some("incompatible"),
            _ => None,
        };
        if let Some(code) = code {
            self.say(&Message::Refused {
                code: String::from(code),
                detail: cause.to_string(),
            });
        }
        self.end.with(cause);
        drop(self);
        // Hanging up now would take back what is still on its way to the far end.
        let rest = async { while let Ok(Some(_)) = incoming.message().await {} };
        let _in_time = tokio::time::timeout(limits::CLOSE_GRACE, rest).await;
    }

    /// The connection itself knows better why it ended, if it did, a moment later.
    async fn silent(&self, said: String) -> LinkError {
        let known = tokio::time::timeout(Duration::from_millis(500), self.end.wait()).await;
        let lost = || LinkError::Lost(said);
        known
            .ok()
            .or_else(|| self.seen.broken())
            .unwrap_or_else(lost)
    }

    async fn take(&mut self, bytes: Bytes) -> Result<(), LinkError> {
        let size = bytes.len().max(256) as u32;
        let room = Arc::clone(&self.room).acquire_many_owned(size);
        let room = tokio::select! {
            room = room => room.map_err(|_| LinkError::Lost(String::from("closed")))?,
            cause = self.end.wait() => return Err(cause),
        };
        let decoded = proto::decode(bytes);
        let message = match decoded.map_err(|e| LinkError::Violation(e.to_string()))? {
            Arrival::Message(message) => message,
            Arrival::OpenBulk => {
                self.bulk.needed();
                return Ok(());
            }
            Arrival::Unknown => return Ok(()),
        };
        self.obey(&message)?;
        let arrived = Arrived {
            message,
            _room: room,
        };
        tokio::select! {
            // Nobody receives any more: the far end may go on talking until the end.
            _ = self.to.send(arrived) => Ok(()),
            cause = self.end.wait() => Err(cause),
        }
    }

    /// The rules: a greeting first and only once, and what ends the link ends it.
    fn obey(&mut self, message: &Message) -> Result<(), LinkError> {
        match message {
            Message::Refused { code, detail } => {
                return Err(LinkError::Refused {
                    code: code.clone(),
                    detail: detail.clone(),
                });
            }
            Message::Bye { code } => return Err(LinkError::Closed { code: code.clone() }),
            Message::Hello(hello) if !self.greeted => {
                self.greeted = true;
                return self.agree(hello.versions);
            }
            _ if !self.greeted => {
                return Err(LinkError::Violation(String::from("no greeting")));
            }
            Message::Hello(_) => {
                return Err(LinkError::Violation(String::from("a second greeting")));
            }
            Message::Ping(n) => self.say(&Message::Pong(*n)),
            _ => {}
        }
        Ok(())
    }

    /// Where there is no version that both speak, the far end learns ours, so that both can name both.
    fn agree(&self, theirs: Versions) -> Result<(), LinkError> {
        let ours = Versions::OURS;
        if ours.common(theirs).is_some() {
            return Ok(());
        }
        let nobody = Hello::new(ShareId([0; 16]), ReplicaId([0; 16]), ActorId([0; 8]));
        self.say(&Message::Hello(Box::new(nobody)));
        Err(LinkError::Incompatible { ours, theirs })
    }

    /// Says something if there is room for it.
    fn say(&self, message: &Message) {
        if let (Some(back), Ok(bytes)) = (self.back.upgrade(), proto::encode(message)) {
            let _full = back.try_send(bytes);
        }
    }
}
