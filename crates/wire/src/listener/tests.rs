//! Machines that call each other over loopback, honest ones and others.

use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use instep_core::id::{ActorId, ContentId, ReplicaId, ShareId};
use instep_core::path::RelPath;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsConnector;

use super::*;
use crate::frame::{Class, Outcome};
use crate::message::{Hello, Message};
use crate::pairing::{self, Code, Invitations, PairingError};
use crate::streams::FetchError;
use crate::want::{Want, Wanted};

const SOON: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(20);

/// Admits one device, and whoever wants to be paired.
struct Knows {
    device: DeviceId,
    revoked: AtomicBool,
}

impl Admission for Knows {
    fn admits(&self, device: DeviceId, purpose: Purpose) -> bool {
        let known = device == self.device && !self.revoked.load(Ordering::Relaxed);
        known || purpose == Purpose::Pairing
    }
}

struct Place {
    hub: DeviceKey,
    client: DeviceKey,
    knows: Arc<Knows>,
    listener: Listener,
    address: String,
}

fn place() -> Place {
    place_within(limits::STRANGER_DEADLINE)
}

fn place_within(deadline: Duration) -> Place {
    let (hub, client) = (
        DeviceKey::generate().unwrap(),
        DeviceKey::generate().unwrap(),
    );
    let knows = Arc::new(Knows {
        device: client.id(),
        revoked: AtomicBool::new(false),
    });
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let admission = Arc::clone(&knows) as Arc<dyn Admission>;
    let listener = Listener::bind_within(deadline, any, &hub, admission).unwrap();
    let address = listener.address().to_string();
    Place {
        hub,
        client,
        knows,
        listener,
        address,
    }
}

impl Place {
    fn dial(&self) -> Result<Link, LinkError> {
        Link::dial(&self.address, &self.client, self.hub.id())
    }

    fn accept(&self) -> Link {
        match self.listener.accept(SOON).unwrap() {
            Some(Visitor::Link(link)) => link,
            _ => panic!("no link came"),
        }
    }

    /// Waits until so many strangers have failed.
    fn has_failed(&self, times: u64) {
        while self.listener.failures() < times {
            std::thread::sleep(SHORT);
        }
        assert_eq!(self.listener.failures(), times);
    }

    /// A link that has greeted.
    fn linked(&self) -> (Link, Link) {
        let (a, b) = (self.dial().unwrap(), self.accept());
        a.send(&hello()).unwrap();
        b.send(&hello()).unwrap();
        assert_eq!(a.recv(SOON).unwrap(), Some(hello()));
        assert_eq!(b.recv(SOON).unwrap(), Some(hello()));
        (a, b)
    }
}

fn hello() -> Message {
    let hello = Hello::new(ShareId([1; 16]), ReplicaId([2; 16]), ActorId([3; 8]));
    Message::Hello(Box::new(hello))
}

fn want(size: u64) -> Want {
    Want {
        content: ContentId([4; 32]),
        path: RelPath::new(b"a/big").unwrap(),
        size,
        part: Wanted::From(0),
        class: Class::Bulk,
    }
}

fn fetch(from: &Link, to: Link, size: usize) {
    let content: Bytes = (0..size).map(|at| (at * 7 + at / 253) as u8).collect();
    let expected = content.clone();
    let answer = std::thread::spawn(move || {
        let mut asked = to.asked(SOON).unwrap().unwrap();
        content
            .chunks(99_999)
            .for_each(|piece| asked.write(content.slice_ref(piece)).unwrap());
        asked.finish(Outcome::Complete);
        to
    });
    let mut got = Vec::new();
    from.ask(want(size as u64))
        .unwrap()
        .read_to_end(&mut got)
        .unwrap();
    assert!(got == expected);
    answer.join().unwrap();
}

#[test]
fn two_machines_greet_and_content_travels_both_ways() {
    for turned in [false, true] {
        let place = place();
        let (mut a, mut b) = place.linked();
        assert_eq!(a.peer().device, Some(place.hub.id()));
        assert_eq!(b.peer().device, Some(place.client.id()));
        if turned {
            std::mem::swap(&mut a, &mut b);
        }
        fetch(&a, b, 10_000_000);
    }
}

#[test]
fn a_device_that_is_not_admitted_is_told_so() {
    let place = place();
    let stranger = DeviceKey::generate().unwrap();
    let refused = Link::dial(&place.address, &stranger, place.hub.id()).err();
    let Some(LinkError::Refused { code, .. }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(code, "key");
    place.has_failed(1);
    place.dial().unwrap();
}

#[test]
fn a_hub_with_another_key_is_not_talked_to() {
    let place = place();
    let other = DeviceKey::generate().unwrap().id();
    let refused = Link::dial(&place.address, &place.client, other).err();
    let (expected, found) = (other, place.hub.id());
    assert_eq!(refused, Some(LinkError::WrongKey { expected, found }));
}

/// The certificate of one device with the key of another.
fn stolen(certificate: &DeviceKey, key: &DeviceKey) -> Arc<CertifiedKey> {
    let own = tls::proof(key).unwrap();
    let shown: Vec<CertificateDer<'static>> = vec![certificate.certificate()];
    Arc::new(CertifiedKey::new(shown, Arc::clone(&own.key)))
}

#[test]
fn a_thief_with_a_clients_certificate_and_not_its_key_is_refused() {
    let place = place();
    let thief = DeviceKey::generate().unwrap();
    let proof = stolen(&place.client, &thief);
    let config = tls::client(proof, Some(place.hub.id()), Purpose::Control).unwrap();
    let end = runtime().unwrap().block_on(async {
        let socket = TcpStream::connect(&place.address).await.unwrap();
        let connector = TlsConnector::from(config);
        // The client's side is content before the server has judged it: the first read tells.
        match connector.connect(tls::no_name(), socket).await {
            Ok(mut stream) => stream.read_u8().await.unwrap_err(),
            Err(e) => e,
        }
    });
    assert!(!matches!(tls::cause(&end), LinkError::WrongKey { .. }));
    assert!(
        place
            .listener
            .accept(Duration::from_millis(300))
            .unwrap()
            .is_none()
    );
    place.has_failed(1);
}

#[test]
fn a_thief_with_the_hubs_certificate_and_not_its_key_is_refused() {
    let (hub, client) = (
        DeviceKey::generate().unwrap(),
        DeviceKey::generate().unwrap(),
    );
    let thief = DeviceKey::generate().unwrap();
    let knows = Arc::new(Knows {
        device: client.id(),
        revoked: AtomicBool::new(false),
    });
    let config = tls::server(stolen(&hub, &thief), knows, Purpose::Control).unwrap();
    let runtime = runtime().unwrap();
    let socket = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    runtime.spawn(async move {
        let (stream, _) = socket.accept().await.unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(config);
        assert!(acceptor.accept(stream).await.is_err());
    });
    let refused = Link::dial(&address, &client, hub.id()).err();
    let expected = "it does not have the key that it shows";
    assert_eq!(refused, Some(LinkError::Violation(String::from(expected))));
}

#[test]
fn a_client_without_a_certificate_or_with_an_older_tls_is_refused() {
    let place = place();
    let nobody = place.hub.id();
    let proof = tls::proof(&place.client).unwrap();
    let config = tls::client(proof, Some(nobody), Purpose::Control).unwrap();
    let mut without = (*config).clone();
    without.client_auth_cert_resolver = Arc::new(NoCertificate);
    let end = runtime().unwrap().block_on(async {
        let socket = TcpStream::connect(&place.address).await.unwrap();
        let connector = TlsConnector::from(Arc::new(without));
        match connector.connect(tls::no_name(), socket).await {
            Ok(mut stream) => stream.read_u8().await.unwrap_err(),
            Err(e) => e,
        }
    });
    assert!(end.to_string().contains("CertificateRequired"), "{end}");
    // A greeting as TLS 1.2 has it: no supported_versions, so no 1.3.
    let mut hello = vec![0x16, 3, 1, 0, 47, 1, 0, 0, 43, 3, 3];
    hello.extend_from_slice(&[7; 32]);
    hello.extend_from_slice(&[0, 0, 2, 0xc0, 0x2f, 1, 0, 0, 0]);
    let mut socket = std::net::TcpStream::connect(&place.address).unwrap();
    socket.write_all(&hello).unwrap();
    let mut answer = Vec::new();
    let _reset = socket.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
    assert!(
        place
            .listener
            .accept(Duration::from_millis(300))
            .unwrap()
            .is_none()
    );
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[test]
fn garbage_on_the_port_disturbs_nobody_and_silences_its_sender() {
    let place = place();
    let (a, b) = place.linked();
    for n in 0..5 {
        let mut socket = std::net::TcpStream::connect(&place.address).unwrap();
        let garbage = [b"GET / HTTP/1.1\r\n\r\n".repeat(50), vec![n; 4000]].concat();
        let _refused = socket.write_all(&garbage);
        let mut answer = Vec::new();
        let _reset = socket.read_to_end(&mut answer);
        assert!(answer.len() < 100);
    }
    place.has_failed(5);
    // Whoever failed so often is not listened to, and is not told why.
    assert!(place.dial().is_err());
    a.send(&Message::Ping(3)).unwrap();
    assert_eq!(b.recv(SOON).unwrap(), Some(Message::Ping(3)));
}

#[test]
fn a_revoked_device_is_disconnected_and_does_not_come_back() {
    let place = place();
    let (a, b) = place.linked();
    place.knows.revoked.store(true, Ordering::Relaxed);
    place.listener.expel(place.client.id());
    assert!(matches!(b.recv(SOON), Err(LinkError::Closed { .. })));
    assert!(a.recv(SOON).is_err());
    let refused = place.dial().err();
    assert!(matches!(refused, Some(LinkError::Refused { .. })));
}

#[test]
fn nobody_at_the_address_is_told_apart_from_a_refusal() {
    let place = place();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let gone = Link::dial(&address, &place.client, place.hub.id()).err();
    assert!(
        matches!(gone, Some(LinkError::Unreachable { .. })),
        "{gone:?}"
    );
    let unknown = Link::dial("no-such-host.invalid:1", &place.client, place.hub.id()).err();
    assert!(matches!(unknown, Some(LinkError::Unreachable { .. })));
}

#[test]
fn a_peer_that_breaks_off_is_lost_and_what_was_fetched_is_kept() {
    let place = place();
    let (a, b) = place.linked();
    let mut fetch = a.ask(want(1 << 30)).unwrap();
    let mut asked = b.asked(SOON).unwrap().unwrap();
    asked.write(Bytes::from_static(b"the beginning")).unwrap();
    let first = fetch.next_piece().unwrap().unwrap();
    assert_eq!(first.bytes, &b"the beginning"[..]);
    drop(asked);
    b.close("stopped");
    assert!(matches!(
        fetch.next_piece(),
        Err(FetchError::Failed | FetchError::Link(_))
    ));
    assert_eq!(fetch.reached(), 13);
    assert!(a.recv(SOON).is_err());
}

#[test]
fn a_bulk_connection_without_a_link_reaches_nothing() {
    let place = place();
    let proof = tls::proof(&place.client).unwrap();
    let config = tls::client(proof, Some(place.hub.id()), Purpose::Bulk).unwrap();
    runtime().unwrap().block_on(async {
        let socket = TcpStream::connect(&place.address).await.unwrap();
        let mut stream = TlsConnector::from(config)
            .connect(tls::no_name(), socket)
            .await
            .unwrap();
        stream.write_all(&[7; 16]).await.unwrap();
        stream.write_all(&[0xff; 100]).await.unwrap();
    });
    assert!(
        place
            .listener
            .accept(Duration::from_millis(300))
            .unwrap()
            .is_none()
    );
    let (a, b) = place.linked();
    fetch(&a, b, 1000);
}

/// Passes bytes on between whoever connects and an address, and can cut.
struct Relay {
    address: String,
    connections: Arc<Mutex<Vec<[std::net::TcpStream; 2]>>>,
}

impl Relay {
    /// Each connection is cut after so many bytes from the far end, if at all.
    fn new(to: &str, cut_after: Option<u64>) -> Self {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap().to_string();
        let connections: Arc<Mutex<Vec<[std::net::TcpStream; 2]>>> = Arc::default();
        let (all, to) = (Arc::clone(&connections), String::from(to));
        std::thread::spawn(move || {
            for near in socket.incoming() {
                let (near, far) = (near.unwrap(), std::net::TcpStream::connect(&to).unwrap());
                let pair = || [near.try_clone().unwrap(), far.try_clone().unwrap()];
                all.lock().unwrap().push(pair());
                let [mut from, mut into] = pair();
                std::thread::spawn(move || {
                    let _cut = std::io::copy(&mut from, &mut into);
                    let _gone = into.shutdown(std::net::Shutdown::Write);
                });
                let [mut into, from] = pair();
                std::thread::spawn(move || {
                    let _cut =
                        std::io::copy(&mut from.take(cut_after.unwrap_or(u64::MAX)), &mut into);
                    let _gone = into.shutdown(std::net::Shutdown::Both);
                });
            }
        });
        Self {
            address,
            connections,
        }
    }

    fn cut(&self, which: usize) {
        let connections = self.connections.lock().unwrap();
        for socket in &connections[which] {
            // The first that is cut may have taken the second with it.
            let _gone = socket.shutdown(std::net::Shutdown::Both);
        }
    }
}

#[test]
fn a_content_goes_on_where_it_was_when_its_connection_is_cut() {
    let place = place();
    let relay = Relay::new(&place.address, None);
    let a = Link::dial(&relay.address, &place.client, place.hub.id()).unwrap();
    let b = place.accept();
    a.send(&hello()).unwrap();
    b.send(&hello()).unwrap();
    assert!(a.recv(SOON).unwrap().is_some() && b.recv(SOON).unwrap().is_some());
    let serve = |link: &Link, part: Wanted, byte: u8, count: usize| {
        let mut asked = link.asked(SOON).unwrap().unwrap();
        assert_eq!(asked.want.part, part);
        asked.write(Bytes::from(vec![byte; count])).unwrap();
        asked
    };
    let ranges = |from| Wanted::Ranges(vec![from..250_000, 10_000_000..12_750_000]);
    let turns = [
        (&a, &b, Wanted::From(0), Wanted::From(200_000)),
        (&b, &a, Wanted::From(0), Wanted::From(200_000)),
        (&a, &b, ranges(0), ranges(200_000)),
    ];
    for (turn, (asks, answers, part, rest)) in turns.into_iter().enumerate() {
        let size = match part {
            Wanted::From(_) => 3_000_000,
            _ => 20_000_000,
        };
        let asked = Want {
            part: part.clone(),
            ..want(size)
        };
        let mut fetch = asks.ask(asked).unwrap();
        let first = serve(answers, part, 1, 200_000);
        let mut got = vec![0; 200_000];
        fetch.read_exact(&mut got).unwrap();
        // The connection of control is the first.
        relay.cut(turn + 1);
        std::thread::scope(|scope| {
            scope.spawn(|| serve(answers, rest, 2, 2_800_000).finish(Outcome::Complete));
            fetch.read_to_end(&mut got).unwrap();
        });
        assert_eq!(got.len(), 3_000_000);
        assert_eq!((got[199_999], got[200_000]), (1, 2));
        drop(first);
    }
    a.send(&Message::Ping(6)).unwrap();
    assert_eq!(b.recv(SOON).unwrap(), Some(Message::Ping(6)));
}

#[test]
fn a_connection_that_is_cut_anywhere_is_an_error_and_no_hang() {
    let place = place();
    let mut served = Vec::new();
    for cut_after in (0..1600).step_by(100) {
        let relay = Relay::new(&place.address, Some(cut_after));
        let dialed = Link::dial(&relay.address, &place.client, place.hub.id());
        let end = dialed.and_then(|link| {
            link.send(&hello())?;
            for _ in 0..1000 {
                // Some are of connections that were cut before; whichever is ours says enough to be cut.
                if let Some(Visitor::Link(link)) = place.listener.accept(SHORT).unwrap() {
                    let _over = link.send(&hello());
                    let _over = link.send(&Message::Status("x".repeat(2000)));
                    served.push(link);
                }
                link.recv(SHORT)?;
            }
            Ok(())
        });
        assert!(
            matches!(end, Err(LinkError::Lost(_))),
            "{cut_after}: {end:?}"
        );
    }
}

#[test]
fn a_stranger_that_takes_its_time_is_hung_up_on() {
    let place = place_within(Duration::from_millis(300));
    let mut slow: Vec<_> = (0..4)
        .map(|_| std::net::TcpStream::connect(&place.address).unwrap())
        .collect();
    for socket in &mut slow {
        socket.write_all(&[0x16, 3, 1]).unwrap();
    }
    for socket in &mut slow {
        let mut rest = Vec::new();
        let _reset = socket.read_to_end(&mut rest);
    }
    place.dial().unwrap();
    place.has_failed(4);
}

#[test]
fn one_address_has_no_more_than_four_strangers() {
    let place = place();
    let connect = || std::net::TcpStream::connect(&place.address).unwrap();
    let mut four: Vec<_> = (0..4).map(|_| connect()).collect();
    let mut fifth = connect();
    let mut rest = Vec::new();
    let _reset = fifth.read_to_end(&mut rest);
    assert_eq!(rest, b"");
    drop(four.pop());
    // Room again as soon as the one that left was noticed.
    while place.dial().is_err() {}
}

#[test]
fn whoever_wants_to_be_paired_stays_a_stranger_until_that_is_over() {
    let place = place();
    let key = DeviceKey::generate().unwrap();
    let connect = || {
        let config = tls::client(tls::proof(&key).unwrap(), None, Purpose::Pairing).unwrap();
        runtime().unwrap().block_on(async {
            let socket = TcpStream::connect(&place.address).await.unwrap();
            TlsConnector::from(config)
                .connect(tls::no_name(), socket)
                .await
        })
    };
    let mut four: Vec<_> = (0..4).map(|_| connect().unwrap()).collect();
    let visits: Vec<_> = (0..4)
        .map(|_| place.listener.accept(SOON).unwrap().unwrap())
        .collect();
    assert!(connect().is_err());
    drop(visits);
    four.push(connect().unwrap());
}

/// One invitation.
struct Invites(Mutex<Option<Code>>);

impl Invites {
    fn new(code: Code) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Some(code))))
    }
}

impl Invitations for Invites {
    fn take(&self, number: u16) -> Option<Code> {
        let mut code = self.0.lock().unwrap();
        code.take_if(|code| code.number() == number)
    }
}

/// Has a visitor guess, and gives what both sides made of it.
fn pair(
    place: &Place,
    invites: Arc<Invites>,
    typed: Code,
) -> [Result<pairing::Paired, PairingError>; 2] {
    std::thread::scope(|scope| {
        let inviting = scope.spawn(|| match place.listener.accept(SOON).unwrap() {
            Some(Visitor::Pairing(visit)) => visit.answer(place.hub.id(), &*invites, |paired| {
                assert_eq!(paired.told, b"laptop");
                b"share photos".to_vec()
            }),
            _ => panic!("nobody wanted to be paired"),
        });
        let joiner = DeviceKey::generate().unwrap();
        let joined = pairing::join(&place.address, &joiner, typed, b"laptop");
        let invited = inviting.join().unwrap();
        if let Ok(paired) = &invited {
            assert_eq!(paired.device, joiner.id());
        }
        [joined, invited]
    })
}

#[test]
fn a_right_code_makes_two_devices_know_each_other_once() {
    let place = place();
    let code = Code::draw(7).unwrap();
    let invites = Invites::new(code);
    let typed: Code = code.to_string().to_uppercase().parse().unwrap();
    let [joined, invited] = pair(&place, Arc::clone(&invites), typed);
    let joined = joined.unwrap();
    assert_eq!(joined.device, place.hub.id());
    assert_eq!(joined.told, b"share photos");
    assert_eq!(invited.unwrap().number, 7);
    let again = pair(&place, invites, typed);
    assert_eq!(
        again,
        [Err(PairingError::Unknown), Err(PairingError::Unknown)]
    );
}

#[test]
fn a_wrong_code_says_so_and_is_used_up() {
    let place = place();
    let code = Code::draw(7).unwrap();
    let wrong = loop {
        let wrong = Code::draw(7).unwrap();
        if wrong != code {
            break wrong;
        }
    };
    let invites = Invites::new(code);
    let guessed = pair(&place, Arc::clone(&invites), wrong);
    assert_eq!(
        guessed,
        [Err(PairingError::WrongCode), Err(PairingError::WrongCode)]
    );
    let right = pair(&place, invites, code);
    assert_eq!(
        right,
        [Err(PairingError::Unknown), Err(PairingError::Unknown)]
    );
}

#[test]
fn somebody_between_two_devices_gains_nothing_by_passing_messages_on() {
    // Two connections, each with the key of whoever is in between, the same messages on both.
    let place = place();
    let between = DeviceKey::generate().unwrap();
    let knows = Arc::new(Knows {
        device: place.client.id(),
        revoked: AtomicBool::new(false),
    });
    let proof = tls::proof(&between).unwrap();
    let server = tls::server(proof, knows, Purpose::Pairing).unwrap();
    let client = tls::client(tls::proof(&between).unwrap(), None, Purpose::Pairing).unwrap();
    let runtime = runtime().unwrap();
    let socket = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let hub = place.address.clone();
    runtime.spawn(async move {
        let (stream, _) = socket.accept().await.unwrap();
        let mut near = tokio_rustls::TlsAcceptor::from(server)
            .accept(stream)
            .await
            .unwrap();
        let far = TcpStream::connect(hub).await.unwrap();
        let mut far = TlsConnector::from(client)
            .connect(tls::no_name(), far)
            .await
            .unwrap();
        let _over = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    });
    let code = Code::draw(7).unwrap();
    let invites = Invites::new(code);
    std::thread::scope(|scope| {
        let inviting = scope.spawn(|| match place.listener.accept(SOON).unwrap() {
            Some(Visitor::Pairing(visit)) => {
                visit.answer(place.hub.id(), &*invites, |_| Vec::new())
            }
            _ => panic!("nobody wanted to be paired"),
        });
        let joined = pairing::join(&address, &place.client, code, b"laptop");
        assert_eq!(joined, Err(PairingError::WrongCode));
        assert_eq!(inviting.join().unwrap(), Err(PairingError::WrongCode));
    });
}
