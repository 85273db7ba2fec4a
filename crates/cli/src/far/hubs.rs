//! Hubs that this device knows, and how it calls them.
//!
//! Owns the device's key and the list of hubs with their keys. Invariant: a hub is called by the key that was learnt when
//! this device joined; another key at its address ends the call, and nothing is learnt from it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use instep_fs::{Dir, place};
use instep_wire::error::LinkError;
use instep_wire::identity::{DeviceId, DeviceKey};
use instep_wire::link::Link;
use instep_wire::pairing::{self, Code, PairingError};
use serde::{Deserialize, Serialize};

use super::request::{self, Ask, Tell};
use crate::error::{Exit, Failure};
use crate::hub::PORT;
use crate::hub::order::{Answer, Joined, Joining, Order};
use crate::{places, small_file};

const KEY: &str = "device.key";
const HUBS: &str = "hubs.json";
const HUBS_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Where a hub is: a name or an address, and a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Address(String);

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let usual = format!(":{PORT}");
        f.write_str(self.0.strip_suffix(&usual).unwrap_or(&self.0))
    }
}

impl Address {
    /// `HOST`, `HOST:PORT`, `[ADDRESS]` or `[ADDRESS]:PORT`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (host, rest) = match text.strip_prefix('[') {
            Some(inner) => {
                let (address, rest) = inner.split_once(']')?;
                let _checked: std::net::Ipv6Addr = address.parse().ok()?;
                (&text[..address.len() + 2], rest)
            }
            None => {
                let end = text.find(':').unwrap_or(text.len());
                text.split_at(end)
            }
        };
        let port = match rest.strip_prefix(':') {
            Some(port) => port.parse::<u16>().ok().filter(|p| *p > 0)?,
            None if rest.is_empty() => PORT,
            None => return None,
        };
        let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '@' | '\\');
        let fits =
            !host.is_empty() && host.len() <= 255 && !host.starts_with('-') && !host.contains(odd);
        fits.then(|| Self(format!("{host}:{port}")))
    }
}

/// What is known of a hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    /// Its key.
    pub(crate) device: String,
    /// What this device is called there.
    pub(crate) you: String,
}

/// This device, as hubs know it: its key, and the hubs that it joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    at: PathBuf,
}

impl Device {
    /// The user's.
    pub(crate) fn own() -> Self {
        Self::of(places::config_dir())
    }

    /// One that is kept in this directory.
    pub(crate) fn of(at: PathBuf) -> Self {
        Self { at }
    }

    fn failed(&self, what: &str, why: impl std::fmt::Display) -> Failure {
        Failure::new(1072, Exit::Failed, what)
            .why(why.to_string())
            .remedy(format!("look at {}", self.at.display()))
    }

    fn directory(&self) -> Result<Dir, Failure> {
        let opened =
            place::create_dir_all(&self.at, 0o700).and_then(|()| place::open_root(&self.at));
        opened.map_err(|e| self.failed("the configuration directory cannot be used", e))
    }

    /// Its key, made when it is first needed.
    pub(crate) fn key(&self) -> Result<DeviceKey, Failure> {
        DeviceKey::load_or_create(&self.directory()?, KEY)
            .map_err(|e| self.failed("the key of this device cannot be used", e))
    }

    /// The hubs that are known, by address.
    pub(crate) fn known(&self) -> Result<BTreeMap<Address, Known>, Failure> {
        let bad = |e: &dyn std::fmt::Display| self.failed("the list of hubs cannot be read", e);
        let bytes =
            small_file::read(&self.directory()?, HUBS, HUBS_BYTES_MAX).map_err(|e| bad(&e))?;
        let Some(bytes) = bytes else {
            return Ok(BTreeMap::new());
        };
        serde_json::from_slice(&bytes).map_err(|e| bad(&e))
    }

    fn remember(&self, address: &Address, hub: Known) -> Result<(), Failure> {
        let mut all = self.known()?;
        all.insert(address.clone(), hub);
        let bytes = serde_json::to_vec_pretty(&all)
            .map_err(|e| self.failed("the list of hubs cannot be written", e))?;
        small_file::replace(&self.directory()?, HUBS, &bytes)
            .map_err(|e| self.failed("the list of hubs cannot be written", e))
    }

    /// The hub that is meant where none is named: the only one.
    pub(crate) fn only_hub(&self) -> Result<Address, Failure> {
        let all: Vec<Address> = self.known()?.into_keys().collect();
        match &all[..] {
            [one] => Ok(one.clone()),
            [] => Err(Failure::new(1073, Exit::Usage, "this device knows no hub")
                .why("it has joined none")
                .remedy("instep join HOST   asks for the code of an invitation")),
            many => {
                let names: Vec<String> = many.iter().map(Address::to_string).collect();
                Err(
                    Failure::new(1073, Exit::Usage, "this device knows several hubs")
                        .why(format!(
                            "it is not clear which is meant: {}",
                            names.join(", ")
                        ))
                        .remedy("name one: --hub HOST"),
                )
            }
        }
    }

    /// Whether it has joined a hub.
    pub(crate) fn knows(&self, address: &Address) -> Result<bool, Failure> {
        Ok(self.known()?.contains_key(address))
    }

    /// Calls a hub.
    pub(crate) fn call(&self, address: &Address) -> Result<Arc<Link>, Failure> {
        let hub = self.known()?.remove(address).ok_or_else(|| {
            Failure::new(
                1074,
                Exit::Denied,
                format!("this device has not joined {address}"),
            )
            .why("a hub is only spoken to when both know each other's key")
            .remedy(format!(
                "instep join {address}   asks for the code of an invitation"
            ))
        })?;
        let device: Result<DeviceId, _> = hub.device.parse();
        let device = device.map_err(|e| self.failed("the list of hubs cannot be read", e))?;
        let link = Link::dial(&address.0, &self.key()?, device);
        link.map(Arc::new).map_err(|e| unreachable(address, &e))
    }

    /// Asks a hub something.
    pub(crate) fn order(&self, address: &Address, order: Order) -> Result<Answer, Failure> {
        let link = self.call(address)?;
        let at = format!("the hub {address}");
        request::greet(&link, &at)?;
        let told = request::ask(&link, &at, &Ask::Order(order));
        link.close("done");
        match told? {
            Tell::Answered(answer) => Ok(answer),
            _ => Err(odd(&at)),
        }
    }

    /// Joins a hub with the code of an invitation.
    pub(crate) fn join(
        &self,
        address: &Address,
        code: &str,
        name: &str,
    ) -> Result<Joined, Failure> {
        let code: Code = code.trim().parse().map_err(|e: pairing::CodeError| {
            not_in(address, e.to_string()).remedy("a code looks like 7-crossover-clockwork-puzzle")
        })?;
        let joining = Joining {
            name: name.to_owned(),
        };
        let told = serde_json::to_vec(&joining).unwrap_or_default();
        let paired = pairing::join(&address.0, &self.key()?, code, &told);
        let paired = paired.map_err(|e| match &e {
            PairingError::Link(link) => unreachable(address, link),
            _ => not_in(address, e.to_string())
                .remedy("instep share invite NAME   on a machine that may, gives a new code"),
        })?;
        let joined: Result<Joined, _> = serde_json::from_slice(&paired.told);
        let joined = joined.map_err(|_| odd(&format!("the hub {address}")))?;
        if let Some(why) = joined.refused {
            return Err(not_in(address, why));
        }
        let hub = Known {
            device: paired.device.to_string(),
            you: joined.you.clone(),
        };
        self.remember(address, hub)?;
        Ok(joined)
    }
}

fn not_in(address: &Address, why: String) -> Failure {
    let what = format!("{address} does not let this device in");
    Failure::new(1075, Exit::Denied, what).why(why)
}

fn unreachable(address: &Address, e: &LinkError) -> Failure {
    let at = format!("the hub {address}");
    match e {
        LinkError::Refused { .. } => Failure::new(
            1048,
            Exit::Denied,
            format!("{at} does not let this device in"),
        )
        .why(e.to_string())
        .remedy("the device was revoked, or the hub was set up anew: ask for a new invitation"),
        LinkError::WrongKey { .. } => super::unreached::broken(&at, e)
            .remedy("if the hub was set up anew, ask its owner for a new invitation and join again")
            .remedy("otherwise somebody stands between: do not go on over this network"),
        _ => super::unreached::broken(&at, e),
    }
}

/// An answer to something else than was asked.
pub(crate) fn odd(at: &str) -> Failure {
    Failure::new(
        1041,
        Exit::Failed,
        format!("{at} answers something else than was asked"),
    )
    .why("the two programs do not understand each other")
    .remedy("use the same version on both machines")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_with_a_port_or_without() {
        for (text, full) in [
            ("hub.example.org", "hub.example.org:8477"),
            ("hub:9000", "hub:9000"),
            ("10.0.0.1", "10.0.0.1:8477"),
            ("[::1]", "[::1]:8477"),
            ("[fe80::1]:99", "[fe80::1]:99"),
        ] {
            assert_eq!(Address::parse(text), Some(Address(full.into())), "{text}");
        }
        let bad = [
            "", "-oX", "a b", "a:0", "a:b", "a:1:2", "[::1", "[x]", "me@host", "a/b", ":1",
        ];
        for text in bad {
            assert_eq!(Address::parse(text), None, "{text}");
        }
        assert_eq!(Address::parse("hub").unwrap().to_string(), "hub");
    }
}
