//! The byte form of a row: what a path's record looks like on disk.
//!
//! Layout: format, flags, entry, shown, print, epoch, seen. Canonical: every row has exactly one form, and bytes
//! that encoding does not write are refused, so that damage inside a record is noticed.

use instep_core::attributes::Seen;
use instep_core::codec::{
    DecodeError, Reader, attributes, entry, put_attributes, put_entry, put_u64,
};
use instep_core::entry::Entry;
use instep_core::id::{ActorId, Dot};
use instep_core::limits;
use instep_core::row::{Held, Print, Row};

const FORMAT: u8 = 1;

const SHOWN: u8 = 0b11;
const SHOWN_NONE: u8 = 0;
/// The first sibling, which is nearly always the only one: needs no further byte.
const SHOWN_FIRST: u8 = 1;
const SHOWN_INDEX: u8 = 2;
/// A dot that is no longer among the siblings.
const SHOWN_DOT: u8 = 3;
const HAS_PRINT: u8 = 1 << 2;
const HELD_SHIFT: u8 = 3;
const HELD: u8 = 0b111 << HELD_SHIFT;
const HAS_EPOCH: u8 = 1 << 6;
const HAS_SEEN: u8 = 1 << 7;

fn held_code(held: Option<Held>) -> u8 {
    match held {
        None => 0,
        Some(Held::Ignored) => 1,
        Some(Held::Special) => 2,
        Some(Held::UnsafeLink) => 3,
        Some(Held::NameClash) => 4,
        Some(Held::Mount) => 5,
    }
}

fn held_of(code: u8) -> Result<Option<Held>, DecodeError> {
    Ok(match code {
        0 => None,
        1 => Some(Held::Ignored),
        2 => Some(Held::Special),
        3 => Some(Held::UnsafeLink),
        4 => Some(Held::NameClash),
        5 => Some(Held::Mount),
        _ => return Err(DecodeError::Invalid),
    })
}

fn sibling_index(entry: &Entry, dot: Dot) -> Option<usize> {
    entry.siblings().iter().position(|(d, _)| *d == dot)
}

/// Whether the row can be read back once it is written: reading has bounds that writing has not.
pub fn fits(row: &Row) -> bool {
    row.entry.siblings().len() <= 2 * limits::SIBLINGS_MAX
        && row.entry.ctx().iter().len() <= limits::ACTORS_MAX
}

/// Appends a row.
pub fn put_row(out: &mut Vec<u8>, row: &Row) {
    let index = row.shown.map(|dot| sibling_index(&row.entry, dot));
    let shown = match index {
        None => SHOWN_NONE,
        Some(Some(0)) => SHOWN_FIRST,
        Some(Some(_)) => SHOWN_INDEX,
        Some(None) => SHOWN_DOT,
    };
    let flag = |on: bool, bit: u8| if on { bit } else { 0 };
    out.push(FORMAT);
    out.push(
        shown
            | flag(row.print.is_some(), HAS_PRINT)
            | held_code(row.held) << HELD_SHIFT
            | flag(row.epoch != 0, HAS_EPOCH)
            | flag(row.seen.is_some(), HAS_SEEN),
    );
    put_entry(out, &row.entry);
    match (index, row.shown) {
        (Some(Some(i)), _) if i > 0 => put_u64(out, i as u64),
        (Some(None), Some(dot)) => {
            out.extend_from_slice(&dot.actor.0);
            put_u64(out, dot.counter);
        }
        _ => {}
    }
    if let Some(print) = &row.print {
        put_u64(out, print.ino);
        out.extend_from_slice(&print.hash.to_le_bytes());
        put_u64(out, u64::from(print.mode));
    }
    if row.epoch != 0 {
        put_u64(out, u64::from(row.epoch));
    }
    if let Some(seen) = &row.seen {
        put_attributes(out, &seen.attributes);
        // One more than the user id, so that nobody takes one byte.
        put_u64(out, seen.refused_to.map_or(0, |id| u64::from(id) + 1));
    }
}

/// Reads a row, and nothing after it.
pub fn row(bytes: &[u8]) -> Result<Row, DecodeError> {
    let mut r = Reader::new(bytes);
    if r.u8()? != FORMAT {
        return Err(DecodeError::Invalid);
    }
    let flags = r.u8()?;
    let held = held_of((flags & HELD) >> HELD_SHIFT)?;
    let entry = entry(&mut r)?;
    let shown = shown(&mut r, flags & SHOWN, &entry)?;
    let print = if flags & HAS_PRINT == 0 {
        None
    } else {
        Some(print(&mut r)?)
    };
    let epoch = if flags & HAS_EPOCH == 0 {
        0
    } else {
        nonzero_u32(&mut r)?
    };
    let seen = if flags & HAS_SEEN == 0 {
        None
    } else {
        Some(Box::new(seen(&mut r)?))
    };
    r.finish()?;
    Ok(Row {
        entry,
        shown,
        print,
        seen,
        held,
        epoch,
    })
}

fn shown(r: &mut Reader<'_>, how: u8, entry: &Entry) -> Result<Option<Dot>, DecodeError> {
    let at = |i: usize| {
        entry
            .siblings()
            .get(i)
            .map(|(d, _)| *d)
            .ok_or(DecodeError::Invalid)
    };
    match how {
        SHOWN_NONE => Ok(None),
        SHOWN_FIRST => at(0).map(Some),
        SHOWN_INDEX => match r.count(entry.siblings().len())? {
            0 => Err(DecodeError::Invalid),
            i => at(i).map(Some),
        },
        _ => {
            let dot = Dot {
                actor: ActorId(r.array()?),
                counter: r.u64()?,
            };
            if sibling_index(entry, dot).is_some() {
                return Err(DecodeError::Invalid);
            }
            Ok(Some(dot))
        }
    }
}

fn print(r: &mut Reader<'_>) -> Result<Print, DecodeError> {
    let ino = r.u64()?;
    let hash = u64::from_le_bytes(r.array()?);
    let mode = u16::try_from(r.u64()?).map_err(|_| DecodeError::Invalid)?;
    Ok(Print { ino, hash, mode })
}

fn seen(r: &mut Reader<'_>) -> Result<Seen, DecodeError> {
    let attributes = attributes(r)?;
    let refused_to = match r.u64()? {
        0 => None,
        n => Some(u32::try_from(n - 1).map_err(|_| DecodeError::Invalid)?),
    };
    Ok(Seen {
        attributes,
        refused_to,
    })
}

fn nonzero_u32(r: &mut Reader<'_>) -> Result<u32, DecodeError> {
    u32::try_from(r.u64()?)
        .ok()
        .filter(|n| *n != 0)
        .ok_or(DecodeError::Invalid)
}
