//! Everything that reads text or bytes of others, or shows them to people and programs: for tests that hand it
//! hostile ones.
//!
//! Owns nothing: each function is the reader that the program itself uses, with what it understood in a form
//! that can be compared. A refusal is its code. Nothing here touches a disk.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use instep_core::path::RelPath;
use jiff::tz::TimeZone;

use crate::error::{Exit, Failure};
use crate::{config, control, endpoint, explain, far, hub, quantity, records, ui, usage};

/// The configuration file: for how many days trash is kept, which packs and which rules are in force.
pub fn configuration(text: &str) -> Result<(u32, Vec<String>, Vec<String>), u16> {
    let read = config::Config::parse(text, Path::new("config.toml"));
    let defaults = read.map_err(|failure| shown(&failure))?.defaults;
    let packs = defaults.packs().into_iter().map(str::to_owned).collect();
    Ok((defaults.trash.days, packs, defaults.master()))
}

/// A folder as it is typed: the name it was given, and where it is.
pub fn folder(typed: &OsStr) -> Result<(Option<String>, PathBuf), u16> {
    let folder = endpoint::parse(typed).map_err(|failure| shown(&failure))?;
    Ok((folder.name, folder.path))
}

/// A stretch of time as it is typed.
pub fn duration(text: &str) -> Result<Duration, u16> {
    quantity::duration(text).map_err(|failure| shown(&failure))
}

/// The arguments of the program. What is wrong with them is put in words, too.
pub fn arguments(typed: Vec<OsString>) -> Result<(), u16> {
    match usage::parse(typed) {
        Ok(_) => Ok(()),
        Err(usage::Said::Help(_)) => Err(0),
        Err(usage::Said::Wrong(failure, _)) => Err(shown(&failure)),
    }
}

/// A request on the control socket, as it would be written.
pub fn request(line: &str) -> Result<String, String> {
    control::protocol::command(line).map(|command| control::protocol::command_line(&command))
}

/// An answer on the control socket, as it would be written.
pub fn answer(line: &str) -> Result<String, String> {
    control::protocol::answer(line).map(|answer| control::protocol::answer_line(&answer))
}

/// What a machine asks of another, as it would be written.
pub fn asked(text: &str) -> Result<String, String> {
    line::<far::request::Ask>(text)
}

/// What a machine tells another, as it would be written.
pub fn told(text: &str) -> Result<String, String> {
    line::<far::request::Tell>(text)
}

/// What a device says when it joins a hub, or else what it is told, as it would be written.
pub fn joining(text: &str) -> Result<String, String> {
    line::<hub::order::Joining>(text).or_else(|_| line::<hub::order::Joined>(text))
}

/// The list of hubs that a device knows, as it would be written.
pub fn hubs(text: &str) -> Result<String, String> {
    line::<BTreeMap<far::hubs::Address, far::hubs::Known>>(text)
}

/// The book of a hub, as it would be written; refused where an identity in it is none.
pub fn book(text: &str) -> Result<String, String> {
    let book: hub::rights::Book = serde_json::from_str(text).map_err(|e| e.to_string())?;
    if !book.is_sound() {
        return Err("unsound".into());
    }
    line::<hub::rights::Book>(text)
}

/// What was understood, as one line.
fn line<T: serde::Serialize + serde::de::DeserializeOwned>(text: &str) -> Result<String, String> {
    let read: T = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let line = serde_json::to_string(&read).map_err(|e| e.to_string())?;
    Ok(line + "\n")
}

/// The page behind a code.
pub fn page(code: &str) -> Result<(), u16> {
    explain::page(code)
        .map(drop)
        .map_err(|failure| shown(&failure))
}

/// The short form of a record's key.
pub fn short_id(key: &str) -> String {
    records::short_id(key)
}

/// A path for programs: one JSON object.
pub fn json_path(path: &RelPath) -> String {
    let mut body = serde_json::json!({});
    ui::json::put_path(&mut body, "path", path);
    body.to_string()
}

/// A path that was typed, for people.
pub fn typed_path(path: &Path) -> String {
    quantity::shown_path(path)
}

/// A failure that names something of others, for people: its five parts.
pub fn failure(what: &str, why: &str) -> String {
    let failure = Failure::new(1000, Exit::Usage, what);
    failure.why(why).remedy(what).render()
}

/// A number as bytes, a count, a stretch of time, an age and an instant.
pub fn quantities(n: u64, ns: i64) -> [String; 6] {
    [
        quantity::bytes(n),
        quantity::counted(n, "entry"),
        quantity::span(n),
        quantity::age(ns, n.cast_signed()),
        quantity::date_time(ns, &TimeZone::UTC),
        quantity::rfc3339(ns),
    ]
}

/// Its code; that it can be rendered is part of being refused.
fn shown(failure: &Failure) -> u16 {
    drop(failure.render());
    failure.code
}
