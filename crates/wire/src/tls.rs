//! Encryption: TLS 1.3 and nothing else, both sides proved by their keys, and the keys pinned.
//!
//! Names, dates and authorities in certificates mean nothing here, on purpose: a certificate is a container for a key,
//! and who a key belongs to was settled by pairing. That the far end *has* the key is never taken for granted: the
//! signature over the handshake is verified by the library on both sides.
//!
//! Invariants: no session tickets, no early data, no older version, no connection without a client's certificate. A
//! connection has one purpose, which it names before it is admitted.

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName,
    Error, OtherError, ServerConfig, SignatureScheme,
};

use crate::error::LinkError;
use crate::identity::{DeviceId, DeviceKey};

/// What a connection is for. It has one purpose, said in the first packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Messages.
    Control,
    /// Contents; belongs to a connection of messages of the same device.
    Bulk,
    /// Two devices that do not know each other yet, and people who have a code.
    Pairing,
}

impl Purpose {
    pub(crate) const ALL: [Self; 3] = [Self::Control, Self::Bulk, Self::Pairing];

    pub(crate) fn alpn(self) -> &'static [u8] {
        match self {
            Self::Control => b"instep/1",
            Self::Bulk => b"instep-bulk/1",
            Self::Pairing => b"instep-pair/1",
        }
    }
}

/// Who may connect. Asked once for each connection, after the far end has shown its key and before it has proved it,
/// so the answer gives nothing away but itself.
pub trait Admission: Send + Sync {
    /// Whether this device may connect for this purpose. For pairing it need not be known.
    fn admits(&self, device: DeviceId, purpose: Purpose) -> bool;
}

/// Which keys a verifier lets pass.
enum Pin {
    /// This one alone.
    One(DeviceId),
    /// Those that are admitted.
    Admitted(Arc<dyn Admission>, Purpose),
    /// Any: something above proves who it is.
    Any,
}

/// Pins keys, and has the handshake's signature verified.
struct Verifier(Pin);

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier")
    }
}

/// A key that is not the expected one.
#[derive(Debug, thiserror::Error)]
#[error("another key than expected")]
struct WrongKey {
    expected: DeviceId,
    found: DeviceId,
}

impl Verifier {
    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let found = device_of(certificate)?;
        match &self.0 {
            Pin::One(expected) if found != *expected => {
                let expected = *expected;
                let wrong = OtherError(Arc::new(WrongKey { expected, found }));
                Err(Error::InvalidCertificate(CertificateError::Other(wrong)))
            }
            Pin::Admitted(admission, purpose) if !admission.admits(found, *purpose) => Err(
                Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure),
            ),
            _ => Ok(()),
        }
    }
}

/// Whose certificate it is, if its holder has the key.
pub(crate) fn device_of(certificate: &CertificateDer<'_>) -> Result<DeviceId, Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    Ok(DeviceId::of_spki(&parsed.subject_public_key_info()))
}

fn signed(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let algorithms = &provider().signature_verification_algorithms;
    verify_tls13_signature(message, certificate, signature, algorithms)
}

const SCHEMES: [SignatureScheme; 1] = [SignatureScheme::ED25519];

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(
            rustls::PeerIncompatible::Tls12NotOffered,
        ))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signed(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity)
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(
            rustls::PeerIncompatible::Tls12NotOffered,
        ))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signed(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

/// The cryptography, given explicitly: no process-wide default decides. Elliptic curves alone in the key exchange: the
/// hybrid ones would cost more bytes than everything else that a reconnection says.
fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| {
        let mut provider = aws_lc_rs::default_provider();
        provider.kx_groups = vec![aws_lc_rs::kx_group::X25519, aws_lc_rs::kx_group::SECP256R1];
        Arc::new(provider)
    })
}

/// A key with its certificate, as the library wants it.
pub(crate) fn proof(key: &DeviceKey) -> Result<Arc<CertifiedKey>, LinkError> {
    let loaded = provider().key_provider.load_private_key(key.secret());
    let signer = loaded.map_err(|e| LinkError::Lost(format!("use the device key: {e}")))?;
    Ok(Arc::new(CertifiedKey::new(vec![key.certificate()], signer)))
}

/// What it takes to call: this device with its proof, whom it calls (none: whoever answers), and for what.
pub(crate) fn client(
    proof: Arc<CertifiedKey>,
    expected: Option<DeviceId>,
    purpose: Purpose,
) -> Result<Arc<ClientConfig>, LinkError> {
    let pin = expected.map_or(Pin::Any, Pin::One);
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| LinkError::Lost(format!("prepare encryption: {e}")))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier(pin)))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(proof)));
    config.alpn_protocols = vec![purpose.alpn().to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// What it takes to be called for one purpose.
pub(crate) fn server(
    proof: Arc<CertifiedKey>,
    admission: Arc<dyn Admission>,
    purpose: Purpose,
) -> Result<Arc<ServerConfig>, LinkError> {
    let verifier = Arc::new(Verifier(Pin::Admitted(admission, purpose)));
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| LinkError::Lost(format!("prepare encryption: {e}")))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(proof)));
    config.alpn_protocols = vec![purpose.alpn().to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// The name that the library wants of a server; nobody sends or checks it.
pub(crate) fn no_name() -> ServerName<'static> {
    ServerName::IpAddress(rustls::pki_types::IpAddr::V4(
        std::net::Ipv4Addr::UNSPECIFIED.into(),
    ))
}

/// What broke a connection.
pub(crate) fn cause(e: &io::Error) -> LinkError {
    let tls = e.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match tls {
        Some(tls) => tls_cause(tls),
        // A process that was killed, and a cable that was pulled, say no goodbye.
        None if e.kind() == io::ErrorKind::UnexpectedEof => {
            LinkError::Lost(String::from("the far end went away without a word"))
        }
        None => LinkError::Lost(e.to_string()),
    }
}

fn tls_cause(e: &Error) -> LinkError {
    let refused = |code: &str, detail: &str| LinkError::Refused {
        code: String::from(code),
        detail: String::from(detail),
    };
    match e {
        Error::InvalidCertificate(CertificateError::Other(OtherError(other))) => {
            match other.downcast_ref::<WrongKey>() {
                Some(wrong) => LinkError::WrongKey {
                    expected: wrong.expected,
                    found: wrong.found,
                },
                None => LinkError::Violation(e.to_string()),
            }
        }
        Error::AlertReceived(
            AlertDescription::AccessDenied
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRevoked
            | AlertDescription::UnknownCA,
        ) => refused("key", "it does not admit this device's key"),
        Error::AlertReceived(AlertDescription::NoApplicationProtocol)
        | Error::NoApplicationProtocol => {
            refused("purpose", "it does not take connections of this kind")
        }
        Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            refused("tls", "it does not speak TLS 1.3")
        }
        Error::AlertReceived(alert) => LinkError::Lost(format!("ended with the alert {alert:?}")),
        Error::InvalidCertificate(CertificateError::BadSignature) => {
            LinkError::Violation(String::from("it does not have the key that it shows"))
        }
        other => LinkError::Violation(other.to_string()),
    }
}
