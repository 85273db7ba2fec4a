//! The byte form of entries: compact, versioned, canonical, and safe to decode from anyone.
//!
//! Integers are LEB128 varints (signed ones zigzag), lists are counted, every count is bounded before
//! anything is allocated. Decoding what encoding wrote gives the same value; anything else is refused.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;

use crate::attributes::{Account, Attributes, Owner, Sayings, Xattrs};
use crate::entry::{Context, Entry};
use crate::id::{ActorId, ContentId, Dot};
use crate::limits;
use crate::path::RelPath;
use crate::time::{Hlc, Mtime};
use crate::version::{Kind, Version};

/// Why bytes are not an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// The bytes end too early.
    Short,
    /// Bytes are left over.
    Trailing,
    /// A count or length is beyond its limit.
    TooBig,
    /// A value that nobody encodes.
    Invalid,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Short => "bytes end too early",
            Self::Trailing => "bytes left over",
            Self::TooBig => "a count is beyond its limit",
            Self::Invalid => "a value that nobody encodes",
        })
    }
}

impl core::error::Error for DecodeError {}

const FORMAT: u8 = 1;

/// Appends an unsigned varint.
pub fn put_u64(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Appends a signed varint.
pub fn put_i64(out: &mut Vec<u8>, n: i64) {
    put_u64(out, ((n << 1) ^ (n >> 63)) as u64);
}

/// Appends a counted byte string.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads what the `put_` functions wrote.
#[derive(Debug, Clone)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Fails unless everything was read.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Trailing)
        }
    }

    /// Everything was read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.0.split_at_checked(n).ok_or(DecodeError::Short)?;
        self.0 = tail;
        Ok(head)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.take(1)?[0])
    }

    /// An unsigned varint.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        let mut n = 0;
        for shift in (0..70).step_by(7) {
            let b = self.u8()?;
            if shift == 63 && b > 1 {
                return Err(DecodeError::Invalid);
            }
            n |= u64::from(b & 0x7f) << shift;
            if b & 0x80 == 0 {
                // A last byte of zero adds nothing, and encoding never writes one.
                return if b == 0 && shift > 0 {
                    Err(DecodeError::Invalid)
                } else {
                    Ok(n)
                };
            }
        }
        Err(DecodeError::Invalid)
    }

    /// A signed varint.
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        let n = self.u64()?;
        Ok((n >> 1) as i64 ^ -((n & 1) as i64))
    }

    /// A count of at most `max`.
    pub fn count(&mut self, max: usize) -> Result<usize, DecodeError> {
        usize::try_from(self.u64()?)
            .ok()
            .filter(|n| *n <= max)
            .ok_or(DecodeError::TooBig)
    }

    /// A counted byte string of at most `max` bytes.
    pub fn bytes(&mut self, max: usize) -> Result<&'a [u8], DecodeError> {
        let n = self.count(max)?;
        self.take(n)
    }
}

fn put_dot(out: &mut Vec<u8>, dot: Dot) {
    out.extend_from_slice(&dot.actor.0);
    put_u64(out, dot.counter);
}

fn dot(r: &mut Reader<'_>) -> Result<Dot, DecodeError> {
    Ok(Dot {
        actor: ActorId(r.array()?),
        counter: r.u64()?,
    })
}

/// Appends an entry.
pub fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    out.push(FORMAT);
    put_u64(out, entry.siblings().len() as u64);
    for (d, v) in entry.siblings() {
        put_dot(out, *d);
        put_version(out, v);
    }
    // The common context, exactly the siblings' own dots, takes one byte.
    let own: Context = entry.siblings().iter().map(|(d, _)| *d).collect();
    if own == *entry.ctx() {
        put_u64(out, 0);
        return;
    }
    put_u64(out, entry.ctx().iter().len() as u64);
    entry.ctx().iter().for_each(|d| put_dot(out, d));
}

/// Reads an entry.
pub fn entry(r: &mut Reader<'_>) -> Result<Entry, DecodeError> {
    if r.u8()? != FORMAT {
        return Err(DecodeError::Invalid);
    }
    let n = r.count(limits::SIBLINGS_MAX * 2)?;
    let siblings = (0..n)
        .map(|_| Ok((dot(r)?, version(r)?)))
        .collect::<Result<Vec<_>, DecodeError>>()?;
    if !siblings.is_sorted_by(|(a, _), (b, _)| a < b) {
        return Err(DecodeError::Invalid);
    }
    let own: Context = siblings.iter().map(|(d, _)| *d).collect();
    let ctx = match r.count(limits::ACTORS_MAX)? {
        0 => own,
        n => {
            let dots = (0..n)
                .map(|_| dot(r))
                .collect::<Result<Vec<_>, DecodeError>>()?;
            let ctx: Context = dots.iter().copied().collect();
            let sorted = dots.is_sorted_by(|a, b| a.actor < b.actor);
            if !sorted || ctx == own || !ctx.includes(&own) {
                return Err(DecodeError::Invalid);
            }
            ctx
        }
    };
    Entry::from_parts(ctx, siblings).ok_or(DecodeError::Invalid)
}

const HAS_TARGET: u8 = 1 << 2;
const HAS_PREV: u8 = 1 << 3;
const HAS_MOVED: u8 = 1 << 4;
const META_ONLY: u8 = 1 << 5;
const HAS_EPOCH: u8 = 1 << 6;
const MODE_OLDER: u8 = 1 << 7;
/// Beside the permission bits, so that versions without attributes keep the form that they always had.
const HAS_ATTRIBUTES: u16 = 1 << 9;
const HAS_OWNER: u8 = 1;
const HAS_XATTRS: u8 = 1 << 1;

/// Appends a version.
pub fn put_version(out: &mut Vec<u8>, v: &Version) {
    let kind = match v.kind {
        Kind::File => 0,
        Kind::Dir => 1,
        Kind::Link => 2,
        Kind::Tomb => 3,
    };
    let flag = |on: bool, bit: u8| if on { bit } else { 0 };
    out.push(
        kind | flag(!v.target.is_empty(), HAS_TARGET)
            | flag(!v.prev.is_empty(), HAS_PREV)
            | flag(v.moved.is_some(), HAS_MOVED)
            | flag(v.meta_only, META_ONLY)
            | flag(v.policy_epoch != 0, HAS_EPOCH)
            | flag(v.mode_te != v.te, MODE_OLDER),
    );
    let also = if v.attributes.is_some() {
        HAS_ATTRIBUTES
    } else {
        0
    };
    put_u64(out, u64::from(v.mode | also));
    put_i64(out, v.te);
    put_i64(out, v.mtime.secs);
    put_u64(out, u64::from(v.mtime.nanos));
    if v.kind != Kind::Dir {
        out.extend_from_slice(&v.content.0);
    }
    if v.kind == Kind::File {
        put_u64(out, v.size);
    }
    if !v.target.is_empty() {
        put_bytes(out, &v.target);
    }
    if !v.prev.is_empty() {
        put_u64(out, v.prev.len() as u64);
        v.prev.iter().for_each(|c| out.extend_from_slice(&c.0));
    }
    if let Some(path) = &v.moved {
        put_bytes(out, path.as_bytes());
    }
    if v.policy_epoch != 0 {
        put_u64(out, u64::from(v.policy_epoch));
    }
    if v.mode_te != v.te {
        put_i64(out, v.mode_te);
    }
    if let Some(sayings) = &v.attributes {
        put_sayings(out, sayings);
    }
}

/// As [`put_attributes`], each part with its instant.
fn put_sayings(out: &mut Vec<u8>, sayings: &Sayings) {
    put_parts(
        out,
        sayings.owner.as_ref().map(|(at, owner)| (Some(*at), owner)),
        sayings
            .xattrs
            .as_ref()
            .map(|(at, xattrs)| (Some(*at), xattrs)),
    );
}

/// Appends attributes.
pub fn put_attributes(out: &mut Vec<u8>, attributes: &Attributes) {
    put_parts(
        out,
        attributes.owner.as_ref().map(|owner| (None, owner)),
        attributes.xattrs.as_ref().map(|xattrs| (None, xattrs)),
    );
}

fn put_parts(
    out: &mut Vec<u8>,
    owner: Option<(Option<Hlc>, &Owner)>,
    xattrs: Option<(Option<Hlc>, &Xattrs)>,
) {
    let flag = |on: bool, bit: u8| if on { bit } else { 0 };
    out.push(flag(owner.is_some(), HAS_OWNER) | flag(xattrs.is_some(), HAS_XATTRS));
    if let Some((at, owner)) = owner {
        at.into_iter().for_each(|at| put_i64(out, at));
        for account in [&owner.user, &owner.group] {
            put_u64(out, u64::from(account.id()));
            put_bytes(out, account.name());
        }
    }
    if let Some((at, xattrs)) = xattrs {
        at.into_iter().for_each(|at| put_i64(out, at));
        put_u64(out, xattrs.iter().len() as u64);
        for (name, value) in xattrs.iter() {
            put_bytes(out, name);
            put_bytes(out, value);
        }
    }
}

fn account(r: &mut Reader<'_>) -> Result<Account, DecodeError> {
    let id = u32::try_from(r.u64()?).map_err(|_| DecodeError::Invalid)?;
    Account::new(id, r.bytes(limits::ACCOUNT_NAME_BYTES_MAX)?).ok_or(DecodeError::Invalid)
}

fn xattrs(r: &mut Reader<'_>) -> Result<Xattrs, DecodeError> {
    // Each takes at least one byte of the limit.
    let n = r.count(limits::XATTR_BYTES_MAX)?;
    let mut all = BTreeMap::new();
    let mut last: &[u8] = &[];
    for _ in 0..n {
        let name = r.bytes(limits::NAME_BYTES_MAX)?;
        let value = r.bytes(limits::XATTR_BYTES_MAX)?;
        if name <= last {
            return Err(DecodeError::Invalid);
        }
        last = name;
        all.insert(name.into(), value.into());
    }
    Xattrs::new(all).ok_or(DecodeError::Invalid)
}

fn owner(r: &mut Reader<'_>) -> Result<Owner, DecodeError> {
    Ok(Owner {
        user: account(r)?,
        group: account(r)?,
    })
}

/// Which parts follow.
fn parts(r: &mut Reader<'_>) -> Result<(bool, bool), DecodeError> {
    let parts = r.u8()?;
    if parts & !(HAS_OWNER | HAS_XATTRS) != 0 {
        return Err(DecodeError::Invalid);
    }
    Ok((parts & HAS_OWNER != 0, parts & HAS_XATTRS != 0))
}

fn sayings(r: &mut Reader<'_>) -> Result<Sayings, DecodeError> {
    let (has_owner, has_xattrs) = parts(r)?;
    let owner = if has_owner {
        Some((r.i64()?, owner(r)?))
    } else {
        None
    };
    let xattrs = if has_xattrs {
        Some((r.i64()?, xattrs(r)?))
    } else {
        None
    };
    Ok(Sayings { owner, xattrs })
}

/// Reads attributes.
pub fn attributes(r: &mut Reader<'_>) -> Result<Attributes, DecodeError> {
    let (has_owner, has_xattrs) = parts(r)?;
    let owner = if has_owner { Some(owner(r)?) } else { None };
    let xattrs = if has_xattrs { Some(xattrs(r)?) } else { None };
    Ok(Attributes { owner, xattrs })
}

fn nonempty(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    if bytes.is_empty() {
        Err(DecodeError::Invalid)
    } else {
        Ok(bytes)
    }
}

fn nonzero(n: u64) -> Result<u64, DecodeError> {
    if n == 0 {
        Err(DecodeError::Invalid)
    } else {
        Ok(n)
    }
}

/// Permission bits, and whether attributes follow at the end.
fn mode(r: &mut Reader<'_>) -> Result<(u16, bool), DecodeError> {
    let bits = u16::try_from(r.u64()?).map_err(|_| DecodeError::Invalid)?;
    let mode = bits & !HAS_ATTRIBUTES;
    if mode > 0o777 {
        return Err(DecodeError::Invalid);
    }
    Ok((mode, bits & HAS_ATTRIBUTES != 0))
}

/// Reads a version.
pub fn version(r: &mut Reader<'_>) -> Result<Version, DecodeError> {
    let flags = r.u8()?;
    let kind = match flags & 3 {
        0 => Kind::File,
        1 => Kind::Dir,
        2 => Kind::Link,
        _ => Kind::Tomb,
    };
    let (mode, has_attributes) = mode(r)?;
    let te = r.i64()?;
    let secs = r.i64()?;
    let nanos = u32::try_from(r.u64()?)
        .ok()
        .filter(|n| *n < 1_000_000_000)
        .ok_or(DecodeError::Invalid)?;
    let content = if kind == Kind::Dir {
        ContentId::NONE
    } else {
        ContentId(r.array()?)
    };
    let size = if kind == Kind::File { r.u64()? } else { 0 };
    let target: Box<[u8]> = match flags & HAS_TARGET {
        0 => Box::default(),
        _ => nonempty(r.bytes(limits::LINK_TARGET_BYTES_MAX)?)?.into(),
    };
    let prev = match flags & HAS_PREV {
        0 => Vec::new(),
        _ => {
            let n = nonzero(r.count(limits::PREVIOUS_MAX)? as u64)?;
            (0..n)
                .map(|_| r.array().map(ContentId))
                .collect::<Result<_, _>>()?
        }
    };
    let moved = match flags & HAS_MOVED {
        0 => None,
        _ => {
            let bytes = r.bytes(limits::PATH_BYTES_MAX)?;
            Some(RelPath::from_peer(bytes).map_err(|_| DecodeError::Invalid)?)
        }
    };
    let policy_epoch = match flags & HAS_EPOCH {
        0 => 0,
        _ => u32::try_from(nonzero(r.u64()?)?).map_err(|_| DecodeError::Invalid)?,
    };
    let mode_te = match flags & MODE_OLDER {
        0 => te,
        _ => Some(r.i64()?)
            .filter(|at| *at != te)
            .ok_or(DecodeError::Invalid)?,
    };
    let attributes = has_attributes.then(|| sayings(r).map(Box::new));
    Ok(Version {
        kind,
        content,
        size,
        mode,
        mtime: Mtime { secs, nanos },
        te,
        mode_te,
        attributes: attributes.transpose()?,
        target,
        prev,
        moved,
        meta_only: flags & META_ONLY != 0,
        policy_epoch,
    })
}
