//! Values out of bytes, for targets that need more than bytes: every input means something.

use instep_core::attributes::{Account, Attributes, Owner, Xattrs};
use instep_core::codec::{self, Reader};
use instep_core::entry::Entry;
use instep_core::id::{ActorId, ContentId, Dot};
use instep_core::path::RelPath;
use instep_core::row::{Held, Print, Row};
use instep_core::time::Mtime;
use instep_core::version::{Kind, Version};

/// Bytes that are used up from the front; zeros when none are left.
#[derive(Debug, Clone)]
pub struct Feed<'a>(&'a [u8]);

/// Few paths, so that everything meets everything.
const PATHS: [&[u8]; 10] = [
    b"a",
    b"b",
    b"d",
    b"d/a",
    b"d/b",
    b"d/e/a",
    b"a/b",
    b"\xff\x1b",
    b".instep",
    b".instep/x",
];

impl<'a> Feed<'a> {
    /// From the first byte on.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As many of the next bytes as there are, at most `n`.
    pub fn bytes(&mut self, n: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at(n.min(self.0.len()));
        self.0 = tail;
        head
    }

    /// A piece with its length in front, in two bytes.
    pub fn piece(&mut self) -> &'a [u8] {
        let n = self.number(2) as usize;
        self.bytes(n)
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        self.bytes(usize::MAX)
    }

    /// A number of so many bytes.
    pub fn number(&mut self, bytes: usize) -> u64 {
        let taken = self.bytes(bytes).iter();
        taken.rev().fold(0, |n, b| n << 8 | u64::from(*b))
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.number(1) as usize % n
    }

    /// Heads or tails.
    pub fn flip(&mut self) -> bool {
        self.number(1) & 1 == 1
    }

    /// An instant: near zero, near now, near the ends, or anything.
    pub fn instant(&mut self) -> i64 {
        let by = self.number(2).cast_signed();
        match self.below(6) {
            0 => by,
            1 => 1_780_000_000_000_000_000 + by * 1_000_000_000,
            2 => i64::MAX - by,
            3 => i64::MIN + by,
            4 => -by,
            _ => self.number(8).cast_signed(),
        }
    }

    /// A path, from few or from any.
    pub fn path(&mut self) -> RelPath {
        let n = self.below(PATHS.len() + 2);
        let any = |bytes: &[u8]| RelPath::new(bytes).ok();
        let known = PATHS.get(n).and_then(|path| any(path));
        known
            .or_else(|| any(self.piece()))
            .unwrap_or_else(RelPath::root)
    }

    /// A content, one of few.
    pub fn content(&mut self) -> ContentId {
        ContentId([self.number(1) as u8 % 8; 32])
    }

    /// An event, one of few or an extreme one.
    pub fn dot(&mut self) -> Dot {
        let actor = ActorId([self.below(4) as u8; 8]);
        let counter = match self.number(1) {
            255 => u64::MAX,
            254 => u64::MAX - 1,
            n => n,
        };
        Dot { actor, counter }
    }

    /// A modification time.
    pub fn mtime(&mut self) -> Mtime {
        match self.below(3) {
            0 => Mtime::from_nanos(self.instant()),
            1 => Mtime {
                secs: self.instant(),
                nanos: 999_999_999,
            },
            _ => Mtime::default(),
        }
    }

    /// Any version.
    pub fn version(&mut self) -> Version {
        let kind = [Kind::File, Kind::Dir, Kind::Link, Kind::Tomb][self.below(4)];
        let content = if kind == Kind::Dir {
            ContentId::NONE
        } else {
            self.content()
        };
        Version {
            kind,
            content,
            size: if kind == Kind::File {
                self.number(2)
            } else {
                0
            },
            mode: self.number(2) as u16 & 0o777,
            mtime: self.mtime(),
            te: self.instant(),
            mode_te: self.instant(),
            attributes: None,
            target: if kind == Kind::Link {
                self.piece().into()
            } else {
                Box::default()
            },
            prev: (0..self.below(3)).map(|_| self.content()).collect(),
            moved: self
                .flip()
                .then(|| self.path())
                .filter(|p| !p.is_reserved()),
            meta_only: self.flip(),
            policy_epoch: self.number(1) as u32 % 4,
        }
    }

    /// Any entry: decoded, or recorded and merged.
    pub fn entry(&mut self) -> Entry {
        if self.flip() {
            let mut reader = Reader::new(self.piece());
            return codec::entry(&mut reader).unwrap_or_default();
        }
        let mut entry = Entry::default();
        for _ in 0..self.below(4) {
            let (dot, version) = (self.dot(), self.version());
            let one = Entry::first(dot, version.clone());
            entry = if self.flip() {
                entry.merge(&one)
            } else {
                entry.record(dot, version)
            };
        }
        entry
    }

    /// What something looked like.
    pub fn print(&mut self) -> Print {
        Print {
            ino: self.number(1),
            hash: self.number(1),
            mode: self.number(2) as u16,
        }
    }

    /// Attributes of whatever was looked at.
    pub fn attributes(&mut self) -> Attributes {
        let account = |feed: &mut Self| {
            let id = feed.number(4) as u32;
            Account::new(id, feed.piece())
        };
        let (user, group) = (account(self), account(self));
        let name = [Xattrs::PREFIX, self.piece()].concat();
        let all = [(name.into(), self.piece().into())].into();
        Attributes {
            owner: user.zip(group).map(|(user, group)| Owner { user, group }),
            xattrs: Xattrs::new(all),
        }
    }

    /// Any row.
    pub fn row(&mut self) -> Row {
        let entry = self.entry();
        let shown = match self.below(4) {
            0 => None,
            1 => Some(self.dot()),
            _ => entry.siblings().first().map(|(dot, _)| *dot),
        };
        let held = [
            None,
            None,
            None,
            Some(Held::Ignored),
            Some(Held::Special),
            Some(Held::UnsafeLink),
            Some(Held::NameClash),
            Some(Held::Mount),
        ];
        Row {
            entry,
            shown,
            print: self.flip().then(|| self.print()),
            seen: None,
            held: held[self.below(held.len())],
            epoch: self.number(4) as u32,
        }
    }
}
