//! What a user types for a folder: `PATH` or `NAME=PATH`, and the names of those without one.
//!
//! Invariant: labels within one command are distinct and never look like an option, a path or a keyword.
//! Nothing here looks at the disk.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::error::{Exit, Failure};
use crate::far::caller::{Machine, Place};
use crate::far::hubs::Address;
use crate::far::ssh::Host;

/// One folder as it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// The name given with `NAME=`.
    pub(crate) name: Option<String>,
    /// The folder; as it was typed where it is on another machine.
    pub(crate) path: PathBuf,
    /// Where, if it is on another machine.
    pub(crate) far: Option<Place>,
}

/// Parses an [`Endpoint`] from any bytes.
pub(crate) fn parser() -> impl TypedValueParser<Value = Endpoint> {
    OsStringValueParser::new().try_map(|typed| parse(&typed))
}

/// Whether a text can be a name: a letter or digit first, then letters, digits, `-`, `_` and `.`.
fn is_label(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(char::is_alphanumeric)
        && chars.all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && text.len() <= 64
}

/// Parses what was typed.
pub(crate) fn parse(typed: &OsStr) -> Result<Endpoint, Failure> {
    let bytes = typed.as_bytes();
    if bytes.is_empty() {
        return Err(
            Failure::new(1000, Exit::Usage, "the name of a folder is empty")
                .why("a variable of the shell may be unset")
                .remedy("write . for the current directory"),
        );
    }
    let slash = bytes.iter().position(|b| *b == b'/').unwrap_or(bytes.len());
    if let Some(at) = bytes[..slash].iter().position(|b| *b == b'=') {
        let name = String::from_utf8_lossy(&bytes[..at]).into_owned();
        if !is_label(&name) || matches!(name.as_str(), "newest" | "both") {
            return Err(Failure::new(1025, Exit::Usage, format!("{name:?} cannot be the name of a folder"))
                .why("a name starts with a letter or digit, has letters, digits, - _ . and is not newest or both")
                .remedy(format!("write ./{} if = is part of the path", typed.to_string_lossy())));
        }
        let path = home(OsStr::from_bytes(&bytes[at + 1..]));
        let far = far(&path)?;
        let name = Some(name);
        return Ok(Endpoint { name, path, far });
    }
    let path = PathBuf::from(typed);
    let far = far(&path)?;
    let name = None;
    Ok(Endpoint { name, path, far })
}

/// `NAME=~/x` is not expanded by every shell.
fn home(path: &OsStr) -> PathBuf {
    match (path.as_bytes(), std::env::var_os("HOME")) {
        (b"~", Some(home)) => PathBuf::from(home),
        ([b'~', b'/', rest @ ..], Some(home)) => {
            PathBuf::from(home).join(OsString::from_vec(rest.to_vec()))
        }
        _ => PathBuf::from(path),
    }
}

/// A colon before the first slash means another machine or a cloud store.
fn far(path: &std::path::Path) -> Result<Option<Place>, Failure> {
    let bytes = path.as_os_str().as_bytes();
    let slash = bytes.iter().position(|b| *b == b'/').unwrap_or(bytes.len());
    let Some(colon) = bytes[..slash].iter().position(|b| *b == b':') else {
        return Ok(None);
    };
    let shown = path.display();
    let refused = |why: &str| {
        Failure::new(
            1026,
            Exit::Usage,
            format!("{shown} is not a folder that can be reached"),
        )
        .why(why)
        .remedy("HOST:PATH is a folder on a machine that ssh reaches")
        .remedy(format!("write ./{shown} if the colon is part of the name"))
    };
    if let Some(rest) = bytes[colon + 1..].strip_prefix(b"//") {
        return match &bytes[..colon] {
            b"sync" => share(rest).map(Some).ok_or_else(|| {
                refused("a share of a hub is written sync://HOST/SHARE or sync://HOST:PORT/SHARE")
            }),
            _ => Err(refused(
                "this version knows folders here, on machines that ssh reaches, and shares of hubs",
            )),
        };
    }
    let place = &bytes[colon + 1..];
    let at = bytes[..colon].iter().rposition(|b| *b == b'@');
    let (user, host) = match at {
        Some(at) => (Some(&bytes[..at]), &bytes[at + 1..colon]),
        None => (None, &bytes[..colon]),
    };
    let word = |bytes: &[u8], what: &str| {
        let text = std::str::from_utf8(bytes).ok();
        let plain = |t: &&str| {
            let odd = |c: char| c.is_whitespace() || c.is_control();
            !t.is_empty() && !t.starts_with('-') && !t.contains(odd)
        };
        let text = text.filter(plain).map(str::to_owned);
        text.ok_or_else(|| refused(&format!("the {what} before the colon cannot be one")))
    };
    if place.is_empty() {
        return Err(refused(
            "no folder is named after the colon; . is the home directory",
        ));
    }
    Ok(Some(Place {
        machine: Machine::Ssh(Host {
            user: user.map(|u| word(u, "user")).transpose()?,
            name: word(host, "host")?,
            port: None,
        }),
        path: PathBuf::from(OsStr::from_bytes(place)),
    }))
}

/// What comes after `sync://`.
fn share(rest: &[u8]) -> Option<Place> {
    let text = std::str::from_utf8(rest).ok()?;
    let (address, share) = text.split_once('/')?;
    let share = share.strip_suffix('/').unwrap_or(share);
    crate::hub::rights::is_name(share).then_some(())?;
    Some(Place {
        machine: Machine::Hub(Address::parse(address)?),
        path: PathBuf::from(share),
    })
}

/// Refuses folders on other machines, for commands that do not reach them.
pub(crate) fn refuse_far(endpoints: &[Endpoint]) -> Result<(), Failure> {
    let Some(far) = endpoints.iter().find(|e| e.far.is_some()) else {
        return Ok(());
    };
    let shown = far.path.display();
    Err(
        Failure::new(1026, Exit::Usage, format!("{shown} is on another machine"))
            .why("this command looks at folders on this machine alone")
            .remedy("run it there"),
    )
}

/// Refuses shares of hubs, for commands that create nothing: who is in one is known to the hub.
pub(crate) fn refuse_hubs(endpoints: &[Endpoint]) -> Result<(), Failure> {
    let is_hub = |e: &&Endpoint| {
        let machine = e.far.as_ref().map(|place| &place.machine);
        matches!(machine, Some(Machine::Hub(_)))
    };
    match endpoints.iter().find(is_hub) {
        Some(hub) => refuse_far(std::slice::from_ref(hub)),
        None => Ok(()),
    }
}

/// Gives every folder a label: the one that was typed, else the one it had (`kept`), else the next free of
/// `A`, `B`, …, `Z`, `A2`, …; free is what no member of the share has (`taken`).
pub(crate) fn labels(
    endpoints: &[Endpoint],
    kept: &[Option<String>],
    taken: &[String],
) -> Result<Vec<String>, Failure> {
    let given: Vec<&String> = endpoints.iter().filter_map(|e| e.name.as_ref()).collect();
    for (i, name) in given.iter().enumerate() {
        if given[..i].contains(name) {
            return Err(
                Failure::new(1025, Exit::Usage, format!("two folders are called {name}"))
                    .why("every message and --keep use the name to say which folder is meant")
                    .remedy("give each folder a name of its own"),
            );
        }
    }
    let mut out: Vec<Option<String>> = endpoints.iter().map(|e| e.name.clone()).collect();
    for (i, label) in kept.iter().enumerate() {
        if out.get(i) == Some(&None) && label.is_some() && !out.contains(label) {
            out[i].clone_from(label);
        }
    }
    let used: BTreeSet<String> = out.iter().flatten().chain(taken).cloned().collect();
    let mut free = letters().filter(|label| !used.contains(label));
    Ok(out
        .into_iter()
        .map(|label| label.or_else(|| free.next()).unwrap_or_default())
        .collect())
}

fn letters() -> impl Iterator<Item = String> {
    (0u32..).map(|n| {
        let letter = char::from(b'A' + (n % 26) as u8);
        if n < 26 {
            letter.to_string()
        } else {
            format!("{letter}{}", n / 26 + 1)
        }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;

    fn typed(text: &str) -> Result<Endpoint, u16> {
        parse(OsStr::new(text)).map_err(|f| f.code)
    }

    #[test]
    fn names_are_taken_off_and_paths_with_equal_signs_are_kept() {
        let named = typed("laptop=/a/b").unwrap();
        assert_eq!(
            (named.name.as_deref(), named.path),
            (Some("laptop"), PathBuf::from("/a/b"))
        );
        assert_eq!(typed("./x=y").unwrap().name, None);
        assert_eq!(typed("/a/x=y").unwrap().path, PathBuf::from("/a/x=y"));
        assert_eq!(typed("=y"), Err(1025));
        assert_eq!(typed("newest=/a"), Err(1025));
    }

    fn ssh(user: Option<&str>, host: &str) -> Machine {
        Machine::Ssh(Host {
            user: user.map(str::to_owned),
            name: host.into(),
            port: None,
        })
    }

    #[test]
    fn a_share_of_a_hub_is_told_from_a_folder() {
        let far = typed("sync://hub.example.org/team").unwrap().far.unwrap();
        let address = Address::parse("hub.example.org").unwrap();
        assert_eq!(
            (far.machine, far.path),
            (Machine::Hub(address), PathBuf::from("team"))
        );
        for text in [
            "sync://hub",
            "sync:///x",
            "sync://hub/",
            "sync://hub/a/b",
            "sync://u@h/x",
        ] {
            assert_eq!(typed(text).map(|_| ()), Err(1026), "{text}");
        }
    }

    #[test]
    fn a_machine_and_a_folder_are_told_from_a_path() {
        let far = |text: &str| typed(text).unwrap().far.unwrap();
        let nas = far("nas:notes");
        assert_eq!(
            (nas.machine, nas.path),
            (ssh(None, "nas"), PathBuf::from("notes"))
        );
        let named = typed("b=ada@nas:/x:y").unwrap();
        assert_eq!(named.name.as_deref(), Some("b"));
        let place = named.far.unwrap();
        assert_eq!(place.machine, ssh(Some("ada"), "nas"));
        assert_eq!(place.path, PathBuf::from("/x:y"));
    }

    #[test]
    fn what_is_neither_a_folder_nor_a_machine_is_refused() {
        assert_eq!(typed("s3://bucket/x"), Err(1026));
        assert_eq!(typed("-oProxyCommand=x:y").map(|_| ()), Err(1025));
        assert_eq!(typed("a@-x:y"), Err(1026));
        assert_eq!(typed("nas:"), Err(1026));
        assert_eq!(typed("a b:y"), Err(1026));
        assert!(typed("./nas:notes").unwrap().far.is_none());
    }

    #[test]
    fn unnamed_folders_get_the_letters_that_are_free() {
        let all: Vec<_> = ["/x", "A=/y", "/z"]
            .iter()
            .map(|t| typed(t).unwrap())
            .collect();
        assert_eq!(labels(&all, &[], &[]).unwrap(), ["B", "A", "C"]);
        let twice: Vec<_> = ["A=/x", "A=/y"].iter().map(|t| typed(t).unwrap()).collect();
        assert_eq!(labels(&twice, &[], &[]).unwrap_err().code, 1025);
        let many = vec![typed("/x").unwrap(); 28];
        assert_eq!(labels(&many, &[], &[]).unwrap()[25..], ["Z", "A2", "B2"]);
    }

    #[test]
    fn a_folder_keeps_the_label_it_had_unless_it_is_given_another() {
        let all: Vec<_> = ["/b", "/c"].iter().map(|t| typed(t).unwrap()).collect();
        let kept = [Some(String::from("B")), None];
        let taken = [String::from("A"), String::from("B")];
        assert_eq!(labels(&all, &kept, &taken).unwrap(), ["B", "C"]);
        let renamed: Vec<_> = ["usb=/b", "/c"].iter().map(|t| typed(t).unwrap()).collect();
        assert_eq!(labels(&renamed, &kept, &taken).unwrap(), ["usb", "C"]);
        let clash = [Some(String::from("B")), Some(String::from("B"))];
        assert_eq!(labels(&all, &clash, &taken).unwrap(), ["B", "C"]);
    }
}
