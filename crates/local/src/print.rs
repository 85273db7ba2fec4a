//! Fingerprints: what an object looks like to `stat`, and what a whole directory looks like.
//!
//! A fingerprint is compared for equality with an earlier one of the same place and nothing else. It covers
//! the change time, which no program can set back. A directory's own fingerprint covers only its identity,
//! mode and owner: its times change with its contents, and those are looked at anyway.

use instep_core::row::Print;
use instep_fs::{Kind, Stat};

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(a: u64, b: u64) -> u64 {
    // Folded multiplication, as in wyhash (Wang Yi): every input bit reaches every output bit.
    let product = u128::from(a ^ SEED) * u128::from(b ^ 0xe703_7ed1_a0b4_28db);
    (product as u64) ^ (product >> 64) as u64
}

/// A hash of bytes, for tables and stamps; never for content.
pub fn hash_bytes(bytes: &[u8], seed: u64) -> u64 {
    let mut h = seed ^ bytes.len() as u64;
    let (chunks, rest) = bytes.as_chunks::<8>();
    for chunk in chunks {
        h = mix(h, u64::from_le_bytes(*chunk));
    }
    let mut tail = [0; 8];
    tail[..rest.len()].copy_from_slice(rest);
    mix(h, u64::from_le_bytes(tail))
}

/// What an object looks like.
pub fn print(stat: &Stat) -> Print {
    let kind = match stat.kind {
        Kind::File => 1,
        Kind::Dir => 2,
        Kind::Link => 3,
        Kind::Special => 4,
    };
    let mut h = mix(stat.ino, kind << 32 | u64::from(stat.mode));
    if stat.kind != Kind::Dir {
        h = mix(h, stat.size);
        h = mix(h ^ stat.mtime.secs as u64, u64::from(stat.mtime.nanos));
        h = mix(h ^ stat.ctime.secs as u64, u64::from(stat.ctime.nanos));
    } else {
        h = mix(h, u64::from(stat.uid) << 32 | u64::from(stat.gid));
    }
    Print {
        ino: stat.ino,
        hash: h,
        mode: (stat.mode & 0o777) as u16,
    }
}

/// What may be recorded of an object that we put in place, given what it looked like when it was surely ours
/// and what has its name now. If a user touched it since, the older look is recorded, which nothing has any
/// more: the next look then reads what is there.
pub fn vouched(ours: &Stat, now: Option<&Stat>) -> Print {
    let same = |s: &&Stat| {
        s.ino == ours.ino
            && s.kind == ours.kind
            && s.mode == ours.mode
            && (s.uid, s.gid) == (ours.uid, ours.gid)
            && (s.kind == Kind::Dir || s.size == ours.size && s.mtime == ours.mtime)
    };
    now.filter(same).map_or_else(|| print(ours), print)
}

/// For how many milliseconds a change of an object may still leave its stamps as they are, given what it looks
/// like, the time, and how long a stamp is in use; none when any change shows.
pub fn unstamped_ms(stat: &Stat, now_ns: i64, tick_ns: u32) -> Option<u64> {
    if tick_ns == 0 {
        return None;
    }
    let age = now_ns.checked_sub(stat.ctime.nanos_since_epoch()?)?;
    let left = i64::from(tick_ns).checked_sub(age)?;
    // A stamp of the future is one of another clock: what changes now gets another.
    (age >= 0 && left > 0).then(|| left as u64 / 1_000_000 + 1)
}

/// What nothing looks like: recorded with these permission bits, it makes the next look examine the object.
pub fn unlike(seen: Print, mode: u16) -> Print {
    Print {
        mode,
        hash: !seen.hash,
        ..seen
    }
}

/// As [`unlike`], of what is on record: nothing of that is left, because it may have been made unlike something before.
pub fn unlike_any(recorded: Print) -> Print {
    Print {
        hash: 0,
        ..recorded
    }
}

/// What a directory looks like: the sum over its names, so that one name can be exchanged in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest(u128);

impl Digest {
    /// From its stored form.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_le_bytes(bytes))
    }

    /// Its stored form.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }

    fn of(name: &[u8], print: u64) -> u128 {
        let low = mix(hash_bytes(name, 1), print);
        let high = mix(hash_bytes(name, 2), print.rotate_left(32));
        u128::from(high) << 64 | u128::from(low)
    }

    /// Adds a name.
    pub fn add(&mut self, name: &[u8], print: u64) {
        self.0 = self.0.wrapping_add(Self::of(name, print));
    }

    /// Takes a name away.
    pub fn remove(&mut self, name: &[u8], print: u64) {
        self.0 = self.0.wrapping_sub(Self::of(name, print));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_does_not_depend_on_order_and_forgets_what_left() {
        let mut a = Digest::default();
        a.add(b"x", 1);
        a.add(b"y", 2);
        let mut b = Digest::default();
        b.add(b"y", 2);
        b.add(b"z", 9);
        b.add(b"x", 1);
        assert_ne!(a, b);
        b.remove(b"z", 9);
        assert_eq!(a, b);
        let mut swapped = Digest::default();
        swapped.add(b"x", 2);
        swapped.add(b"y", 1);
        assert_ne!(a, swapped);
    }
}
