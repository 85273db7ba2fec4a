//! How two devices come to know each other: a short code that one person reads to another, and one guess at it.
//!
//! The code is the password of a SPAKE2 exchange over an encrypted connection on which neither key is known yet. Both
//! keys, the connection itself and what both say are bound into the confirmation, so that whoever sits in between gets
//! one guess and no more, and learns nothing to guess by later.
//!
//! Invariants: a code is used up before an answer to a guess is given; neither side believes the other before its
//! confirmation was verified, the joiner's first.

mod words;

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use instep_fs::place;
use spake2::{Ed25519Group, Identity, Password, Spake2};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::carrier::AnyPipe;
use crate::dial::Dialer;
use crate::error::LinkError;
use crate::identity::{DeviceId, DeviceKey};
use crate::limits;
use crate::runtime::runtime;
use crate::tls::{self, Purpose};
use words::WORDS;

/// Words of a code: 24 bits, for one guess.
const CODE_WORDS: usize = 3;
/// What either side may tell the other, once it is believed.
const TOLD_BYTES_MAX: usize = 8 * 1024;
/// Bytes of one message of the exchange.
const MESSAGE_BYTES_MAX: usize = TOLD_BYTES_MAX + 64;
/// The form of the exchange.
const FORM: u8 = 1;
/// The label under which the connection gives a secret of its own.
const EXPORT: &[u8] = b"EXPORTER-instep-pairing";

/// What one person reads to another: which invitation, and its words.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Code {
    number: u16,
    words: [u8; CODE_WORDS],
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code({}-…)", self.number)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number)?;
        self.words
            .iter()
            .try_for_each(|w| write!(f, "-{}", WORDS[usize::from(*w)]))
    }
}

/// Why a text is not a code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// Not a number and three words.
    #[error("a code is a number and three words, such as 7-{}-{}-{}", WORDS[3], WORDS[99], WORDS[200])]
    Form,
    /// A word that is in no code.
    #[error("\"{}\" is in no code", .0.escape_debug())]
    Word(String),
}

impl FromStr for Code {
    type Err = CodeError;

    fn from_str(text: &str) -> Result<Self, CodeError> {
        let parts = text.split(|c: char| c == '-' || c.is_whitespace());
        let mut parts = parts.filter(|p| !p.is_empty());
        let number = parts
            .next()
            .and_then(|n| n.parse().ok())
            .ok_or(CodeError::Form)?;
        let mut words = [0; CODE_WORDS];
        for word in &mut words {
            let typed = parts.next().ok_or(CodeError::Form)?.to_lowercase();
            let at = WORDS.iter().position(|w| *w == typed);
            *word = at.ok_or(CodeError::Word(typed))? as u8;
        }
        match parts.next() {
            None => Ok(Self { number, words }),
            Some(_) => Err(CodeError::Form),
        }
    }
}

impl Code {
    /// A new one for this invitation.
    pub fn draw(number: u16) -> Result<Self, instep_fs::Error> {
        let words = place::random_bytes()?;
        Ok(Self { number, words })
    }

    /// Which invitation it is for.
    pub fn number(&self) -> u16 {
        self.number
    }
}

/// The open invitations.
pub trait Invitations: Send + Sync {
    /// Uses up one use of the invitation with this number, durably, and gives its code; none where there is none, or it
    /// expired, or was used up.
    fn take(&self, number: u16) -> Option<Code>;
}

/// An invitation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// What to read to whoever is invited.
    pub code: Code,
    /// Until when it holds, on the clock of whoever keeps it.
    pub until: Duration,
    /// How many guesses are left, right or wrong.
    pub uses: u32,
}

/// The highest number of an invitation, and the most invitations there are at a time.
pub const INVITATIONS_MAX: u16 = 999;

/// Invitations in memory; whoever keeps them longer writes them down with what this says. Time is given.
#[derive(Debug, Clone, Default)]
pub struct InvitationBook(Vec<Invitation>);

impl InvitationBook {
    /// A new invitation under the lowest number that is free; none when all are taken.
    pub fn add(
        &mut self,
        now: Duration,
        life: Duration,
        uses: u32,
    ) -> Result<Option<Invitation>, instep_fs::Error> {
        self.0.retain(|i| now < i.until);
        let is_free = |n: &u16| self.0.iter().all(|i| i.code.number != *n);
        let Some(number) = (1..=INVITATIONS_MAX).find(is_free) else {
            return Ok(None);
        };
        let invitation = Invitation {
            code: Code::draw(number)?,
            until: now.saturating_add(life),
            uses: uses.max(1),
        };
        self.0.push(invitation.clone());
        Ok(Some(invitation))
    }

    /// One use of an invitation; see [`Invitations::take`].
    pub fn take(&mut self, number: u16, now: Duration) -> Option<Code> {
        self.0.retain(|i| now < i.until);
        let at = self.0.iter().position(|i| i.code.number == number)?;
        let code = self.0[at].code;
        self.0[at].uses -= 1;
        if self.0[at].uses == 0 {
            self.0.remove(at);
        }
        Some(code)
    }

    /// Those that hold.
    pub fn open(&self, now: Duration) -> impl Iterator<Item = &Invitation> {
        self.0.iter().filter(move |i| now < i.until)
    }
}

/// Why two devices do not know each other now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PairingError {
    /// No such invitation, or none any more.
    #[error("there is no such invitation, or it expired or was used; ask for a new one")]
    Unknown,
    /// The code is wrong, and used up by that.
    #[error("the code is wrong, and is used up by this attempt; ask for a new one")]
    WrongCode,
    /// What comes is not this exchange.
    #[error("pairing: {0}")]
    Garbled(&'static str),
    /// No connection, or none any more.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// The other device, and what it told us once it was believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paired {
    /// Who it is.
    pub device: DeviceId,
    /// Which invitation was used.
    pub number: u16,
    /// What it said.
    pub told: Vec<u8>,
}

type Result<T, E = PairingError> = std::result::Result<T, E>;

/// A password-authenticated key exchange. Messages that are not of the exchange make none.
trait Pake: Sized {
    /// Begins as joiner or inviter; gives the message for the other.
    fn begin(joins: bool, code: Code, joiner: DeviceId, inviter: DeviceId) -> (Self, Vec<u8>);
    /// The key that both have if they had the same code.
    fn key(self, message: &[u8]) -> Option<Vec<u8>>;
}

impl Pake for Spake2<Ed25519Group> {
    fn begin(joins: bool, code: Code, joiner: DeviceId, inviter: DeviceId) -> (Self, Vec<u8>) {
        let password = Password::new(code.to_string().as_bytes());
        let (a, b) = (Identity::new(&joiner.0), Identity::new(&inviter.0));
        if joins {
            Self::start_a(&password, &a, &b)
        } else {
            Self::start_b(&password, &a, &b)
        }
    }

    fn key(self, message: &[u8]) -> Option<Vec<u8>> {
        self.finish(message).ok()
    }
}

/// What both sides have to agree on.
struct Transcript {
    key: hmac::Key,
    seen: Vec<u8>,
}

impl Transcript {
    fn new(key: &[u8], parts: [&[u8]; 5]) -> Self {
        let mut seen = Vec::new();
        for part in parts {
            seen.extend_from_slice(digest(&SHA256, part).as_ref());
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        Self { key, seen }
    }

    fn text(&self, who: &str, told: &[u8]) -> Vec<u8> {
        let mut text = format!("instep pairing {who}").into_bytes();
        text.extend_from_slice(&self.seen);
        text.extend_from_slice(digest(&SHA256, told).as_ref());
        text
    }

    /// The proof that `who` had the code, with what it tells.
    fn confirm(&self, who: &str, told: &[u8]) -> Vec<u8> {
        let tag = hmac::sign(&self.key, &self.text(who, told));
        [tag.as_ref(), told].concat()
    }

    /// What `who` tells, if the proof is right.
    fn check(&self, who: &str, message: &[u8]) -> Option<Vec<u8>> {
        let (tag, told) = message.split_at_checked(32)?;
        let verified = hmac::verify(&self.key, &self.text(who, told), tag);
        verified.is_ok().then(|| told.to_vec())
    }
}

/// The secret of a connection that both of its ends have and nobody else.
fn exported<T>(connection: &rustls::ConnectionCommon<T>) -> Result<[u8; 32], LinkError> {
    let exported = connection.export_keying_material([0; 32], EXPORT, None);
    exported.map_err(|e| LinkError::Lost(format!("bind pairing to the connection: {e}")))
}

async fn send(pipe: &mut AnyPipe, message: &[u8]) -> Result<(), LinkError> {
    let mut framed = (message.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    let sent = async {
        pipe.write_all(&framed).await?;
        pipe.flush().await
    };
    sent.await.map_err(|e| tls::cause(&e))
}

async fn receive(pipe: &mut AnyPipe) -> Result<Vec<u8>> {
    let mut length = [0; 2];
    let read = pipe.read_exact(&mut length).await;
    read.map_err(|e| tls::cause(&e))?;
    let length = usize::from(u16::from_be_bytes(length));
    if length > MESSAGE_BYTES_MAX {
        return Err(PairingError::Garbled("a message of an impossible length"));
    }
    let mut message = vec![0; length];
    let read = pipe.read_exact(&mut message).await;
    read.map_err(|e| tls::cause(&e))?;
    Ok(message)
}

/// All of it takes no longer than a stranger may.
fn in_time<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    runtime()?.block_on(async {
        let done = tokio::time::timeout(limits::STRANGER_DEADLINE, work).await;
        done.map_err(|_| LinkError::Lost(String::from("pairing took too long")))?
    })
}

/// Joins with a code: calls whoever listens at `host:port`, and tells it `told` once it is believed.
pub fn join(address: &str, key: &DeviceKey, code: Code, told: &[u8]) -> Result<Paired> {
    if told.len() > TOLD_BYTES_MAX {
        return Err(PairingError::Garbled("too much to tell"));
    }
    let dialer = Dialer::new(address, key, None)?;
    in_time(async {
        let stream = dialer.connect(Purpose::Pairing).await?;
        let connection = stream.get_ref().1;
        let channel = exported(connection)?;
        let shown = connection.peer_certificates().and_then(<[_]>::first);
        let shown = shown.ok_or(PairingError::Garbled("it shows no key"))?;
        let inviter = tls::device_of(shown);
        let inviter = inviter.map_err(|_| PairingError::Garbled("it shows no key"))?;
        joining(Box::new(stream), (key.id(), inviter), channel, code, told).await
    })
}

async fn joining(
    mut pipe: AnyPipe,
    (joiner, inviter): (DeviceId, DeviceId),
    channel: [u8; 32],
    code: Code,
    told: &[u8],
) -> Result<Paired> {
    let (pake, ours) = Spake2::<Ed25519Group>::begin(true, code, joiner, inviter);
    let mut knock = vec![FORM];
    knock.extend_from_slice(&code.number.to_be_bytes());
    knock.extend_from_slice(&ours);
    send(&mut pipe, &knock).await?;
    let answer = receive(&mut pipe).await?;
    let theirs = match answer.split_first() {
        Some((1, theirs)) => theirs,
        Some((0, _)) => return Err(PairingError::Unknown),
        _ => return Err(PairingError::Garbled("an answer that is none")),
    };
    let key = pake.key(theirs).ok_or(PairingError::WrongCode)?;
    let parts = [&joiner.0[..], &inviter.0, &channel, &ours, theirs];
    let transcript = Transcript::new(&key, parts);
    send(&mut pipe, &transcript.confirm("joiner", told)).await?;
    let last = receive(&mut pipe).await?;
    let confirmed = match last.split_first() {
        Some((1, confirmed)) => transcript.check("inviter", confirmed),
        _ => None,
    };
    Ok(Paired {
        device: inviter,
        number: code.number,
        told: confirmed.ok_or(PairingError::WrongCode)?,
    })
}

/// A device that wants to join, connected and not believed yet.
pub struct Visit {
    pipe: AnyPipe,
    joiner: DeviceId,
    channel: Result<[u8; 32], LinkError>,
    from: SocketAddr,
    on_failure: Box<dyn Fn() + Send>,
    /// Its place among the strangers, until this is over.
    stay: Option<Box<dyn Send>>,
}

impl Visit {
    pub(crate) fn new<S: crate::tap::Pipe>(
        stream: tokio_rustls::server::TlsStream<S>,
        joiner: DeviceId,
        from: SocketAddr,
        on_failure: Box<dyn Fn() + Send>,
    ) -> Self {
        let channel = exported(stream.get_ref().1);
        Self {
            pipe: Box::new(stream),
            joiner,
            channel,
            from,
            on_failure,
            stay: None,
        }
    }

    pub(crate) fn with_stay(mut self, stay: impl Send + 'static) -> Self {
        self.stay = Some(Box::new(stay));
        self
    }

    /// Where it calls from.
    pub fn from(&self) -> SocketAddr {
        self.from
    }

    /// Takes its guess. `grant` is asked when the guess was right: it writes down what has to be known of the device,
    /// and gives what the device is told.
    pub fn answer(
        mut self,
        us: DeviceId,
        invitations: &dyn Invitations,
        grant: impl FnOnce(&Paired) -> Vec<u8> + Send,
    ) -> Result<Paired> {
        let answered = in_time(self.inviting(us, invitations, grant));
        if answered.is_err() {
            (self.on_failure)();
        }
        answered
    }

    async fn inviting(
        &mut self,
        us: DeviceId,
        invitations: &dyn Invitations,
        grant: impl FnOnce(&Paired) -> Vec<u8> + Send,
    ) -> Result<Paired> {
        let channel = self.channel.clone()?;
        let knock = receive(&mut self.pipe).await?;
        let Some(([FORM, high, low], theirs)) = knock.split_first_chunk::<3>() else {
            return Err(PairingError::Garbled("a knock that is none"));
        };
        let number = u16::from_be_bytes([*high, *low]);
        let Some(code) = invitations.take(number) else {
            send(&mut self.pipe, &[0]).await?;
            return Err(PairingError::Unknown);
        };
        let (pake, ours) = Spake2::<Ed25519Group>::begin(false, code, self.joiner, us);
        let key = pake
            .key(theirs)
            .ok_or(PairingError::Garbled("a knock that is none"))?;
        send(&mut self.pipe, &[&[1][..], &ours].concat()).await?;
        let parts = [&self.joiner.0[..], &us.0, &channel, theirs, &ours];
        let transcript = Transcript::new(&key, parts);
        let proof = receive(&mut self.pipe).await?;
        let Some(told) = transcript.check("joiner", &proof) else {
            send(&mut self.pipe, &[0]).await?;
            return Err(PairingError::WrongCode);
        };
        let device = self.joiner;
        let paired = Paired {
            device,
            number,
            told,
        };
        let granted = grant(&paired);
        if granted.len() > TOLD_BYTES_MAX {
            return Err(PairingError::Garbled("too much to tell"));
        }
        let confirmed = transcript.confirm("inviter", &granted);
        send(&mut self.pipe, &[&[1][..], &confirmed].concat()).await?;
        let _gone = self.pipe.shutdown().await;
        Ok(paired)
    }
}

/// The confirmations of both sides in the example of docs/protocol.md.
#[cfg(test)]
pub(crate) fn example() -> (Vec<u8>, Vec<u8>) {
    let parts: [&[u8]; 5] = [&[1; 32], &[2; 32], &[3; 32], b"joiner's", b"inviter's"];
    let transcript = Transcript::new(&[4; 32], parts);
    let confirm = |who, told: &[u8]| transcript.confirm(who, told);
    (confirm("joiner", b"laptop"), confirm("inviter", b"photos"))
}
