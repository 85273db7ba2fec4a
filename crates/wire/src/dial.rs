//! Calling another machine: its address, its key, and one purpose for each connection.

use std::sync::Arc;

use instep_fs::place;
use rustls::sign::CertifiedKey;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::carrier::{AnyPipe, Token};
use crate::control::Pace;
use crate::error::LinkError;
use crate::identity::{DeviceId, DeviceKey};
use crate::limits;
use crate::link::{self, Link, Peer};
use crate::runtime::wait;
use crate::tls::{self, Purpose};

/// Calls one device at one address.
pub(crate) struct Dialer {
    address: String,
    proof: Arc<CertifiedKey>,
    expected: Option<DeviceId>,
}

impl Dialer {
    /// None expected: whoever answers, which is for pairing alone.
    pub(crate) fn new(
        address: &str,
        key: &DeviceKey,
        expected: Option<DeviceId>,
    ) -> Result<Self, LinkError> {
        Ok(Self {
            address: String::from(address),
            proof: tls::proof(key)?,
            expected,
        })
    }

    pub(crate) fn unreachable(&self, why: &str) -> LinkError {
        LinkError::Unreachable {
            address: self.address.clone(),
            why: String::from(why),
        }
    }

    /// An encrypted connection, both keys proved as far as this side can know.
    pub(crate) async fn connect(
        &self,
        purpose: Purpose,
    ) -> Result<TlsStream<TcpStream>, LinkError> {
        let config = tls::client(Arc::clone(&self.proof), self.expected, purpose)?;
        let socket = TcpStream::connect(&self.address).await;
        let socket = socket.map_err(|e| self.unreachable(&e.to_string()))?;
        socket
            .set_nodelay(true)
            .map_err(|e| self.unreachable(&e.to_string()))?;
        let stream = TlsConnector::from(config)
            .connect(tls::no_name(), socket)
            .await;
        let stream = stream.map_err(|e| tls::cause(&e))?;
        if stream.get_ref().1.alpn_protocol() == Some(purpose.alpn()) {
            Ok(stream)
        } else {
            Err(LinkError::Violation(String::from(
                "it agreed to no purpose",
            )))
        }
    }

    /// The connection for contents of the link with this token.
    pub(crate) async fn bulk(&self, token: Token) -> Result<AnyPipe, LinkError> {
        let mut stream = self.connect(Purpose::Bulk).await?;
        let sent = stream.write_all(&token).await;
        sent.map_err(|e| tls::cause(&e))?;
        Ok(Box::new(stream))
    }
}

impl Link {
    /// Calls the device with this identity at `host:port`. Waits until it has answered, at most
    /// [`limits::DIAL_DEADLINE`].
    pub fn dial(address: &str, key: &DeviceKey, expected: DeviceId) -> Result<Self, LinkError> {
        let dialer = Arc::new(Dialer::new(address, key, Some(expected))?);
        wait(async {
            let called = async {
                let stream = dialer.connect(Purpose::Control).await?;
                let peer = Peer {
                    device: Some(expected),
                    address: String::from(address),
                };
                link::call(stream, peer, Pace::default(), Some(Arc::clone(&dialer))).await
            };
            let called = tokio::time::timeout(limits::DIAL_DEADLINE, called).await;
            called.map_err(|_| dialer.unreachable("no answer in time"))?
        })
    }
}

/// A new token.
pub(crate) fn token() -> Result<Token, LinkError> {
    place::random_bytes().map_err(|e| LinkError::Lost(e.to_string()))
}
