//! What machines tell each other: messages, frames, names of devices, codes.

use std::str::FromStr;

use instep_wire::identity::DeviceId;
use instep_wire::pairing::Code;
use instep_wire::{message, streams};

/// Bytes of a message: read, written again, and read again.
pub(super) fn message(bytes: &[u8]) -> String {
    let message = match message::Message::from_bytes(bytes) {
        Ok(Some(message)) => message,
        Ok(None) => return "of a later version".into(),
        Err(e) => return e.to_string(),
    };
    let written = message.to_bytes().expect("what was read can be sent");
    let again = message::Message::from_bytes(&written);
    assert_eq!(again, Ok(Some(message.clone())), "a message changes");
    let text = format!("{message:?}");
    text.split(['(', ' ']).next().unwrap_or_default().into()
}

pub(super) fn message_seeds() -> Vec<Vec<u8>> {
    examples(&[
        "hello", "refused", "rows", "same", "digests", "wanted", "complete",
    ])
    .chain(examples(&[
        "moved",
        "record",
        "status",
        "ping",
        "pong",
        "bye",
        "open-bulk",
    ]))
    .collect()
}

/// The bytes of a far end on the connection for contents.
pub(super) fn frames(bytes: &[u8]) -> String {
    match streams::hear(bytes) {
        Ok(frames) => format!("{} frames", frames.min(3)),
        Err(why) => why.into(),
    }
}

pub(super) fn frames_seeds() -> Vec<Vec<u8>> {
    let names = [
        "want",
        "want-nodes",
        "want-ranges",
        "want-delta",
        "data",
        "packed",
        "end-complete",
        "cancel",
        "credit",
        "frame-ping",
    ];
    let mut seeds: Vec<Vec<u8>> = examples(&names).collect();
    seeds.push(seeds.concat());
    seeds
}

/// Text that people type.
pub(super) fn typed(bytes: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return "no text".into();
    };
    let mut read = Vec::new();
    if let Ok(id) = DeviceId::from_str(text) {
        assert_eq!(id.to_string().parse(), Ok(id));
        read.push("device");
    }
    if let Ok(code) = Code::from_str(text) {
        assert_eq!(code.to_string().parse(), Ok(code));
        read.push("code");
    }
    read.join(", ")
}

pub(super) fn typed_seeds() -> Vec<Vec<u8>> {
    let device = DeviceId([0xd1; 32]).to_string();
    let code = Code::draw(7).map(|code| code.to_string());
    [device, code.unwrap_or_default()]
        .map(String::into_bytes)
        .into()
}

/// Examples of the document, which are what an honest program sends.
fn examples(names: &[&str]) -> impl Iterator<Item = Vec<u8>> {
    const DOCUMENT: &str = include_str!("../../../../docs/protocol.md");
    names
        .iter()
        .map(|name| {
            let head = format!("{name}: ");
            let mut lines = DOCUMENT.lines().skip_while(|line| !line.starts_with(&head));
            let first = lines.next().unwrap_or_default().trim_start_matches(&head);
            let rest = lines.take_while(|line| line.starts_with("  "));
            let hex: String = std::iter::once(first).chain(rest.map(str::trim)).collect();
            let digits = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap_or(0);
            (0..hex.len() / 2).map(|at| digits(at * 2)).collect()
        })
        .collect::<Vec<_>>()
        .into_iter()
}
