//! Where a link's connection for contents comes from: a second one of its own, or a second call in the same.
//!
//! Only a caller can open either, so whoever was called asks for it and waits.

use std::future::pending;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;

use crate::control::{Call, Caller, Method};
use crate::dial::Dialer;
use crate::error::LinkError;
use crate::limits;
use crate::proto;
use crate::tap::Pipe;

/// A connection of whatever kind.
pub(crate) type AnyPipe = Box<dyn Pipe>;

/// Says to which link a bulk connection belongs; drawn by the caller, worth nothing without its key.
pub(crate) type Token = [u8; 16];

/// Where the connection comes from.
pub(crate) enum Carrier {
    /// From here, to the same address.
    Dials(Arc<Dialer>, Token),
    /// From here, inside the connection of control.
    Calls(Caller),
    /// From there: it came, or has to be asked for.
    Waits {
        came: mpsc::Receiver<AnyPipe>,
        ask: mpsc::WeakSender<Bytes>,
    },
}

impl Carrier {
    /// A connection that the far end opened.
    pub(crate) async fn came(&mut self) -> AnyPipe {
        match self {
            Self::Waits { came, .. } => match came.recv().await {
                Some(pipe) => pipe,
                None => pending().await,
            },
            _ => pending().await,
        }
    }

    /// Opens one, or has it opened.
    pub(crate) async fn open(&mut self) -> Result<AnyPipe, LinkError> {
        match self {
            Self::Dials(dialer, token) => {
                let pipe = tokio::time::timeout(limits::DIAL_DEADLINE, dialer.bulk(*token)).await;
                pipe.map_err(|_| dialer.unreachable("no answer in time"))?
            }
            Self::Calls(caller) => {
                let (outgoing, rest) = mpsc::channel(limits::OUTBOX_MESSAGES_MAX);
                let called = caller.call(Method::Bulk, rest, None).await;
                let lost = |status: tonic::Status| LinkError::Lost(String::from(status.message()));
                let incoming = called.map_err(lost)?;
                let token = None;
                Ok(Box::new(pipe_of(Call {
                    incoming,
                    outgoing,
                    token,
                })))
            }
            Self::Waits { came, ask } => {
                if let Some(ask) = ask.upgrade() {
                    let _over = ask.send(proto::encode_open_bulk()).await;
                }
                let lost = || LinkError::Lost(String::from("the far end opens no bulk connection"));
                let opened = tokio::time::timeout(limits::DIAL_DEADLINE, came.recv()).await;
                opened.ok().flatten().ok_or_else(lost)
            }
        }
    }
}

/// A call as a connection.
pub(crate) fn pipe_of(call: Call) -> DuplexStream {
    let Call {
        mut incoming,
        outgoing,
        ..
    } = call;
    let (near, far) = tokio::io::duplex(limits::WINDOW_BYTES as usize);
    let (mut read, mut write) = tokio::io::split(far);
    tokio::spawn(async move {
        while let Ok(Some(bytes)) = incoming.message().await {
            let Ok(bytes) = proto::decode_piece(bytes) else {
                break;
            };
            if write.write_all(&bytes).await.is_err() {
                break;
            }
        }
        let _gone = write.shutdown().await;
    });
    tokio::spawn(async move {
        loop {
            let mut bytes = BytesMut::with_capacity(64 * 1024);
            match read.read_buf(&mut bytes).await {
                Ok(n) if n > 0 => {}
                _ => break,
            }
            if outgoing
                .send(proto::encode_piece(bytes.freeze()))
                .await
                .is_err()
            {
                break;
            }
        }
    });
    near
}
