//! Who a device is: an Ed25519 key, and the hash of its public half as its name.
//!
//! Invariant: a private key is in a file that its owner alone can read, and is never replaced, printed or sent.
//! The certificate is a container that TLS asks for; nothing in it but the key means anything, and it is made anew
//! whenever the key is loaded.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use instep_core::path::Name;
use instep_fs::{Dir, Kind, Stat, place};
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519, PublicKeyData as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// Bytes of a key file; every key that is ever written is far smaller.
const KEY_FILE_BYTES_MAX: u64 = 1024;

/// A device's name: SHA-256 of its public key, in the form that certificates have it in (SPKI).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(pub [u8; 32]);

/// Digits of the text form: letters and figures that nobody confuses.
const DIGITS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// Digits of an identity without the check characters: 260 bits, of which the last four are zero.
const DIGITS_OF_ID: usize = 52;
/// Digits that have a check character in common.
const CHECKED: usize = 13;
/// Characters between two dashes.
const GROUP: usize = 7;

impl DeviceId {
    /// Of a public key in the form of certificates.
    pub fn of_spki(spki: &[u8]) -> Self {
        let mut id = [0; 32];
        id.copy_from_slice(digest(&SHA256, spki).as_ref());
        Self(id)
    }

    /// The first eight bytes, for two people who compare: `3f:9a:…`.
    pub fn fingerprint(&self) -> String {
        let bytes: Vec<String> = self.0[..8].iter().map(|b| format!("{b:02x}")).collect();
        bytes.join(":")
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(DIGITS_OF_ID + DIGITS_OF_ID / CHECKED);
        for block in values(&self.0).chunks(CHECKED) {
            text.extend(block.iter().map(|v| DIGITS[usize::from(*v)]));
            text.push(DIGITS[usize::from(check(block))]);
        }
        for (at, group) in text.chunks(GROUP).enumerate() {
            if at > 0 {
                f.write_str("-")?;
            }
            group.iter().try_for_each(|c| write!(f, "{}", *c as char))?;
        }
        Ok(())
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fingerprint())
    }
}

/// Why a text is not a device's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeviceIdError {
    /// Too few or too many characters.
    #[error("a device id has 56 letters and figures, not {0}")]
    Length(usize),
    /// A character that none of them is.
    #[error("\"{}\" is in no device id", .0.escape_debug())]
    Character(char),
    /// A group was mistyped.
    #[error("characters {} to {} of the device id are mistyped", .0 * 14 + 1, .0 * 14 + 14)]
    Check(usize),
    /// Right in each group, and yet the text of no device.
    #[error("not the text of a device id")]
    Ending,
}

impl FromStr for DeviceId {
    type Err = DeviceIdError;

    fn from_str(text: &str) -> Result<Self, DeviceIdError> {
        let typed: Vec<char> = text
            .chars()
            .filter(|c| *c != '-' && !c.is_whitespace())
            .take(2 * DIGITS_OF_ID)
            .collect();
        let all = DIGITS_OF_ID + DIGITS_OF_ID / CHECKED;
        if typed.len() != all {
            return Err(DeviceIdError::Length(typed.len()));
        }
        let values = typed
            .iter()
            .map(|c| value(*c))
            .collect::<Result<Vec<u8>, _>>()?;
        let mut bits = Vec::with_capacity(DIGITS_OF_ID);
        for (at, block) in values.chunks(CHECKED + 1).enumerate() {
            let (said, checked) = block.split_last().ok_or(DeviceIdError::Ending)?;
            if check(checked) != *said {
                return Err(DeviceIdError::Check(at));
            }
            bits.extend_from_slice(checked);
        }
        let id = Self(bytes(&bits));
        if self::values(&id.0) == bits {
            Ok(id)
        } else {
            Err(DeviceIdError::Ending)
        }
    }
}

/// The five bits of a character; figures that look like a letter are taken for it.
fn value(c: char) -> Result<u8, DeviceIdError> {
    let meant = match c.to_ascii_uppercase() {
        '0' => 'O',
        '1' => 'I',
        '8' => 'B',
        other => other,
    };
    let at = DIGITS.iter().position(|d| *d as char == meant);
    at.map(|v| v as u8).ok_or(DeviceIdError::Character(c))
}

/// The identity in fives of bits.
fn values(id: &[u8; 32]) -> Vec<u8> {
    let bit = |at: usize| id.get(at / 8).map_or(0, |b| b >> (7 - at % 8) & 1);
    (0..DIGITS_OF_ID)
        .map(|digit| (0..5).fold(0, |v, i| v << 1 | bit(digit * 5 + i)))
        .collect()
}

fn bytes(values: &[u8]) -> [u8; 32] {
    let mut id = [0; 32];
    for at in 0..256 {
        let bit = values[at / 5] >> (4 - at % 5) & 1;
        id[at / 8] |= bit << (7 - at % 8);
    }
    id
}

/// The check character of a block: a polynomial over the field of 32 elements, which notices every wrong character
/// and every two that changed places.
fn check(block: &[u8]) -> u8 {
    let double = |v: u8| (v << 1 ^ (if v & 16 == 0 { 0 } else { 0b10_0101 })) & 31;
    block.iter().fold(0, |sum, v| double(sum ^ v))
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] instep_fs::Error),
    /// Others could have read or written it: it proves nothing any more.
    #[error(
        "key file \"{name}\" {what}; make a new key, or mend it if you know that nobody copied it"
    )]
    Exposed {
        /// The file.
        name: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The file holds no key.
    #[error("key file \"{0}\" holds no Ed25519 key")]
    Damaged(String),
    /// The library refused to make one.
    #[error("make a device key: {0}")]
    Make(String),
}

/// A device's private key with its certificate.
pub struct DeviceKey {
    id: DeviceId,
    certificate: CertificateDer<'static>,
    secret: PrivatePkcs8KeyDer<'static>,
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceKey({:?})", self.id)
    }
}

impl DeviceKey {
    /// A new key, in memory alone.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = KeyPair::generate_for(&PKCS_ED25519).map_err(made)?;
        Self::of_pair(&pair)
    }

    /// From its file's bytes.
    pub fn from_pkcs8(bytes: &[u8]) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from(bytes.to_vec());
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519)
            .map_err(|_| KeyError::Damaged(String::from("in memory")))?;
        Self::of_pair(&pair)
    }

    fn of_pair(pair: &KeyPair) -> Result<Self, KeyError> {
        let params = CertificateParams::new(vec![String::from("instep")]).map_err(made)?;
        let certificate = params.self_signed(pair).map_err(made)?;
        Ok(Self {
            id: DeviceId::of_spki(&pair.subject_public_key_info()),
            certificate: certificate.der().clone(),
            secret: PrivatePkcs8KeyDer::from(pair.serialize_der()),
        })
    }

    /// The key in this file. Refused where anybody else could have read it.
    pub fn load(dir: &Dir, name: &str) -> Result<Self, KeyError> {
        let file = dir.open_file(file_name(name)?)?;
        let stat = file.stat()?;
        if let Some(what) = exposure(&stat, dir.acting_user()) {
            let name = String::from(name);
            return Err(KeyError::Exposed { name, what });
        }
        let damaged = || KeyError::Damaged(String::from(name));
        if stat.size > KEY_FILE_BYTES_MAX {
            return Err(damaged());
        }
        let mut bytes = vec![0; stat.size as usize];
        let read = file.read_at(0, &mut bytes)?;
        bytes.truncate(read);
        Self::from_pkcs8(&bytes).map_err(|_| damaged())
    }

    /// The key in this file, which is made when it is not there. A file that is there is never replaced, whatever it
    /// holds: the name of this device hangs on it.
    pub fn load_or_create(dir: &Dir, name: &str) -> Result<Self, KeyError> {
        if dir.stat(file_name(name)?)?.is_some() {
            return Self::load(dir, name);
        }
        let key = Self::generate()?;
        match key.save(dir, name) {
            // Somebody else was first: theirs counts.
            Err(KeyError::File(e)) if e.kind() == instep_fs::ErrorKind::Taken => {
                Self::load(dir, name)
            }
            saved => saved.map(|()| key),
        }
    }

    /// Writes it to a file that must not be there, complete or not at all.
    pub fn save(&self, dir: &Dir, name: &str) -> Result<(), KeyError> {
        let file = dir.create_unnamed(0o600)?;
        file.write_all_at(0, self.secret.secret_pkcs8_der())?;
        file.sync_data()?;
        dir.publish(&file, file_name(name)?)?;
        dir.sync()?;
        Ok(())
    }

    /// The device's name.
    pub fn id(&self) -> DeviceId {
        self.id
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    pub(crate) fn secret(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.secret.clone_key())
    }
}

fn made(e: rcgen::Error) -> KeyError {
    KeyError::Make(e.to_string())
}

fn file_name(name: &str) -> Result<Name<'_>, KeyError> {
    Name::new(name.as_bytes()).map_err(|_| KeyError::Damaged(String::from(name)))
}

/// What makes a key file unfit, if anything does.
fn exposure(stat: &Stat, user: u32) -> Option<&'static str> {
    if stat.kind != Kind::File {
        Some("is not a regular file")
    } else if stat.uid != user {
        Some("belongs to another user")
    } else if stat.mode & 0o077 != 0 {
        Some("can be read or written by others")
    } else if stat.nlink != 1 {
        Some("has a second name")
    } else {
        None
    }
}

/// A directory for keys, opened by the path that an operator gave.
pub fn open_key_dir(path: &std::path::Path) -> Result<Dir, KeyError> {
    Ok(place::open_root(path)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dir() -> (tempfile::TempDir, Dir) {
        let at = tempfile::tempdir().unwrap();
        let dir = open_key_dir(at.path()).unwrap();
        (at, dir)
    }

    #[test]
    fn a_key_is_the_same_device_after_it_was_loaded_again() {
        let (at, dir) = dir();
        let made = DeviceKey::load_or_create(&dir, "device.key").unwrap();
        let again = DeviceKey::load_or_create(&dir, "device.key").unwrap();
        assert_eq!(made.id(), again.id());
        assert_ne!(made.id(), DeviceKey::generate().unwrap().id());
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(at.path().join("device.key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o600);
    }

    #[test]
    fn a_key_that_others_can_read_or_link_to_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let (at, dir) = dir();
        DeviceKey::load_or_create(&dir, "device.key").unwrap();
        let file = at.path().join("device.key");
        for mode in [0o640, 0o604, 0o620] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            let refused = DeviceKey::load(&dir, "device.key");
            assert!(matches!(refused, Err(KeyError::Exposed { .. })), "{mode:o}");
        }
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        DeviceKey::load(&dir, "device.key").unwrap();
        std::fs::hard_link(&file, at.path().join("second")).unwrap();
        assert!(DeviceKey::load(&dir, "device.key").is_err());
        std::os::unix::fs::symlink(&file, at.path().join("link")).unwrap();
        assert!(DeviceKey::load(&dir, "link").is_err());
    }

    #[test]
    fn a_foreign_or_special_key_file_is_refused() {
        let (at, dir) = dir();
        std::fs::write(at.path().join("k"), b"").unwrap();
        let mut stat = dir
            .open_file(Name::new(b"k").unwrap())
            .unwrap()
            .stat()
            .unwrap();
        stat.mode = 0o600;
        assert_eq!(exposure(&stat, stat.uid), None);
        assert!(exposure(&stat, stat.uid + 1).is_some());
        stat.kind = Kind::Special;
        assert!(exposure(&stat, stat.uid).is_some());
    }

    #[test]
    fn a_damaged_key_file_is_refused_and_left_alone() {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let (at, dir) = dir();
        let path = at.path().join("device.key");
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .unwrap();
        file.write_all(b"half a key").unwrap();
        let refused = DeviceKey::load_or_create(&dir, "device.key");
        assert!(matches!(refused, Err(KeyError::Damaged(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"half a key");
    }

    #[test]
    fn the_text_of_a_device_is_grouped_and_is_read_as_people_type_it() {
        let id = DeviceId::of_spki(b"a key");
        let text = id.to_string();
        assert_eq!(text.len(), 56 + 7);
        assert!(text.split('-').all(|g| g.len() == 7));
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(text.to_lowercase().replace('-', " ").parse(), Ok(id));
        assert_eq!(text.replace('O', "0").replace('B', "8").parse(), Ok(id));
        assert_eq!("abc".parse::<DeviceId>(), Err(DeviceIdError::Length(3)));
        let bad = text.replacen(&text[..1], "%", 1);
        assert_eq!(bad.parse::<DeviceId>(), Err(DeviceIdError::Character('%')));
        assert_eq!(id.fingerprint().len(), 23);
    }

    #[test]
    fn bits_that_no_id_has_are_refused_although_each_group_is_right() {
        let mut v = values(&[0; 32]);
        v[DIGITS_OF_ID - 1] = 1;
        let mut text = String::new();
        for block in v.chunks(CHECKED) {
            text.extend(block.iter().map(|v| DIGITS[usize::from(*v)] as char));
            text.push(DIGITS[usize::from(check(block))] as char);
        }
        assert_eq!(text.parse::<DeviceId>(), Err(DeviceIdError::Ending));
    }

    proptest! {
        #[test]
        fn ids_survive_their_text(id: [u8; 32]) {
            prop_assert_eq!(DeviceId(id).to_string().parse(), Ok(DeviceId(id)));
        }

        #[test]
        fn one_wrong_character_is_noticed(id: [u8; 32], at in 0..63usize, to in 0..32usize) {
            let mut text = DeviceId(id).to_string().into_bytes();
            if text[at] != b'-' && text[at] != DIGITS[to] {
                text[at] = DIGITS[to];
                let text = String::from_utf8(text).unwrap();
                prop_assert_eq!(text.parse::<DeviceId>(), Err(DeviceIdError::Check(at / 16)));
            }
        }

        #[test]
        fn two_characters_that_changed_places_are_noticed(id: [u8; 32], at in 0..62usize) {
            let mut text = DeviceId(id).to_string().into_bytes();
            let next = if text[at + 1] == b'-' { at + 2 } else { at + 1 };
            if text[at] != b'-' && text[at] != text[next] {
                text.swap(at, next);
                let text = String::from_utf8(text).unwrap();
                prop_assert!(text.parse::<DeviceId>().is_err());
            }
        }

        #[test]
        fn any_text_is_an_id_or_an_error(text: String) {
            if let Ok(id) = text.parse::<DeviceId>() {
                prop_assert_eq!(id.to_string().parse(), Ok(id));
            }
        }
    }
}
