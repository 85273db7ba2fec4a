//! Answers what the far end wants of contents: the rest of one, ranges, what changed in a stretch, its manifest.
//!
//! Owns nothing. Invariant: what is sent as complete was read from a content that stood still meanwhile.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use instep_chunk::delta::delta;
use instep_replica::{Content, Replica as _};
use instep_wire::bulk::Asked;
use instep_wire::frame::Outcome;
use instep_wire::limits;
use instep_wire::link::Link;
use instep_wire::want::{Fingerprint, Mark, Wanted};

use crate::manifests::{CONTENT_BYTES_MAX, Known, Making, cut};
use crate::published::Published;

/// How long a thread waits before it sees whether the link is over.
const PATIENCE: Duration = Duration::from_secs(1);
/// After so many times of patience with somebody else who is at a manifest the far end is told that we wait for it.
const TOLD: usize = 30;
/// Bytes that are read at a time.
const BLOCK: usize = 128 * 1024;
/// What stands for a node while the content is still being read.
const STILL_READING: &[u8] = &[0, 0];

/// How an answer ended before its end: with this, or with nobody who wants it any more.
type Ended = Option<Outcome>;
type Sent = std::result::Result<(), Ended>;

const FAILED: Ended = Some(Outcome::Failed);

/// Sends contents that the far end asks for, until the link is over.
pub(crate) fn send_contents(link: &Link, local: &Published) {
    loop {
        let mut asked = match link.asked(PATIENCE) {
            Ok(Some(asked)) => asked,
            Ok(None) => continue,
            Err(_) => return,
        };
        let outcome = match answer(link, &mut asked, local) {
            Ok(()) => Some(Outcome::Complete),
            Err(ended) => ended,
        };
        // Nobody is told whose interest has ended.
        if let Some(outcome) = outcome {
            asked.finish(outcome);
        }
    }
}

fn answer(link: &Link, asked: &mut Asked, local: &Published) -> Sent {
    let opened = local.open(&asked.want.path, asked.want.content);
    let content = opened.map_err(|_| FAILED)?;
    let mut content = content.ok_or(Some(Outcome::Missing))?;
    let content = content.as_mut();
    let size = content.size();
    if size != asked.want.size {
        return Err(Some(Outcome::Changed));
    }
    match asked.want.part.clone() {
        Wanted::From(offset) => send(asked, content, offset..size)?,
        Wanted::Ranges(ranges) => {
            for range in ranges {
                send(asked, content, range)?;
            }
        }
        Wanted::Nodes(marks) => return send_nodes(link, asked, content, local, &marks),
        Wanted::Delta { stretch, old } => send_delta(asked, content, stretch, &old)?,
    }
    if content.unchanged() {
        Ok(())
    } else {
        Err(Some(Outcome::Changed))
    }
}

fn write(asked: &mut Asked, bytes: Vec<u8>) -> Sent {
    asked.write(Bytes::from(bytes)).map_err(|_| None)
}

/// Sends a range.
fn send(asked: &mut Asked, content: &mut dyn Content, range: Range<u64>) -> Sent {
    let mut at = range.start;
    while at < range.end {
        let left = range.end - at;
        let mut block = vec![0; BLOCK.min(usize::try_from(left).unwrap_or(BLOCK))];
        match content.read_at(at, &mut block).map_err(|_| FAILED)? {
            0 => return Err(Some(Outcome::Changed)),
            n => block.truncate(n),
        }
        at += block.len() as u64;
        write(asked, block)?;
    }
    Ok(())
}

/// Sends what is new in a stretch.
fn send_delta(
    asked: &mut Asked,
    content: &mut dyn Content,
    stretch: Range<u64>,
    old: &[Fingerprint],
) -> Sent {
    let mut new = vec![0; (stretch.end - stretch.start) as usize];
    let mut at = 0;
    while at < new.len() {
        let from = stretch.start + at as u64;
        match content.read_at(from, &mut new[at..]).map_err(|_| FAILED)? {
            0 => return Err(Some(Outcome::Changed)),
            n => at += n,
        }
    }
    write(asked, delta(&new, old))
}

/// Sends nodes of a manifest, which is made where it is not known.
fn send_nodes(
    link: &Link,
    asked: &mut Asked,
    content: &mut dyn Content,
    local: &Published,
    marks: &[Mark],
) -> Sent {
    if content.size() > CONTENT_BYTES_MAX {
        return Err(FAILED);
    }
    let mut waited = 0;
    let tree = loop {
        match local.manifests().get(asked.want.content, PATIENCE) {
            Known::Is(tree) => break tree,
            Known::Not(making) => break make(asked, content, making)?,
            Known::Soon if link.ended().is_some() => return Err(None),
            Known::Soon if waited >= TOLD * limits::NODE_PATIENCES_MAX => return Err(FAILED),
            Known::Soon => {
                waited += 1;
                if waited % TOLD == 0 {
                    write(asked, STILL_READING.to_vec())?;
                }
            }
        }
    };
    let nodes: Vec<Option<Vec<u8>>> = if marks.is_empty() {
        vec![tree.top()]
    } else {
        marks.iter().map(|mark| tree.node(*mark)).collect()
    };
    let mut out = Vec::new();
    for node in nodes {
        let node = node.ok_or(FAILED)?;
        out.extend_from_slice(&(node.len() as u16).to_be_bytes());
        out.extend_from_slice(&node);
    }
    write(asked, out)
}

fn make(
    asked: &mut Asked,
    content: &mut dyn Content,
    making: Making<'_>,
) -> std::result::Result<std::sync::Arc<instep_chunk::manifest::Tree>, Ended> {
    let mut told = 0;
    let mut is_wanted = true;
    let tree = cut(content, &mut |at| {
        let due = at / limits::NODE_PATIENCE_BYTES;
        while is_wanted && told < due {
            told += 1;
            is_wanted = asked.write(Bytes::from_static(STILL_READING)).is_ok();
        }
        is_wanted
    });
    let tree = tree.map_err(|_| is_wanted.then_some(Outcome::Failed))?;
    Ok(making.done(tree.ok_or(Some(Outcome::Changed))?))
}
