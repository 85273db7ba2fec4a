//! Requests and replies of the FUSE protocol, version 7.31, as bytes.
//!
//! Invariant: nothing is read beyond what the kernel sent; a field that is missing is zero.

use rustix::io::Errno;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// A name in a directory.
    Lookup,
    /// Requests that want no answer.
    Silent,
    /// What an object is.
    Getattr,
    /// To change that.
    Setattr,
    /// A link's target.
    Readlink,
    /// To make a link.
    Symlink,
    /// To make a file.
    Mknod,
    /// To make a directory.
    Mkdir,
    /// To remove a name.
    Unlink,
    /// To remove a directory.
    Rmdir,
    /// To rename, with or without flags.
    Rename,
    /// To give another name.
    Link,
    /// To open a file.
    Open,
    /// Bytes of a file.
    Read,
    /// To write some.
    Write,
    /// How full it is.
    Statfs,
    /// To make a file durable.
    Fsync,
    /// Somebody closed a file.
    Flush,
    /// To begin.
    Init,
    /// Names in a directory.
    Readdir,
    /// To make a directory durable.
    Fsyncdir,
    /// To make and open a file.
    Create,
    /// The end of an open file or directory.
    Release,
    /// Anything else.
    Other,
}

/// One request.
#[derive(Debug)]
pub struct Request<'a> {
    /// What.
    pub op: Op,
    /// Which request.
    pub unique: u64,
    /// Of which object.
    pub node: u64,
    /// By whom.
    pub uid: u32,
    /// Of which group.
    pub gid: u32,
    /// With flags: the newer request for renaming.
    pub has_flags: bool,
    body: &'a [u8],
}

impl<'a> Request<'a> {
    /// From what the kernel sent.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let head = Self {
            op: Op::Other,
            unique: 0,
            node: 0,
            uid: 0,
            gid: 0,
            has_flags: false,
            body: bytes,
        };
        let code = head.u32(4);
        Some(Self {
            op: op(code),
            unique: head.u64(8),
            node: head.u64(16),
            uid: head.u32(24),
            gid: head.u32(28),
            has_flags: code == 45,
            body: bytes.get(40..)?,
        })
    }

    /// A number in the body.
    pub fn u32(&self, at: usize) -> u32 {
        let bytes = self.body.get(at..at + 4).and_then(|b| b.try_into().ok());
        u32::from_le_bytes(bytes.unwrap_or_default())
    }

    /// A longer number in the body.
    pub fn u64(&self, at: usize) -> u64 {
        let bytes = self.body.get(at..at + 8).and_then(|b| b.try_into().ok());
        u64::from_le_bytes(bytes.unwrap_or_default())
    }

    /// Everything in the body from there.
    pub fn rest(&self, at: usize) -> &'a [u8] {
        self.body.get(at..).unwrap_or_default()
    }

    /// The names in the body from there; each ends with a zero.
    pub fn names(&self, at: usize) -> Vec<&'a [u8]> {
        self.rest(at).split(|b| *b == 0).collect()
    }
}

fn op(code: u32) -> Op {
    match code {
        1 => Op::Lookup,
        2 | 36 | 42 => Op::Silent,
        3 => Op::Getattr,
        4 => Op::Setattr,
        5 => Op::Readlink,
        6 => Op::Symlink,
        8 => Op::Mknod,
        9 => Op::Mkdir,
        10 => Op::Unlink,
        11 => Op::Rmdir,
        12 | 45 => Op::Rename,
        13 => Op::Link,
        14 | 27 => Op::Open,
        15 => Op::Read,
        16 => Op::Write,
        17 => Op::Statfs,
        18 | 29 => Op::Release,
        20 => Op::Fsync,
        25 => Op::Flush,
        26 => Op::Init,
        28 => Op::Readdir,
        30 => Op::Fsyncdir,
        35 => Op::Create,
        _ => Op::Other,
    }
}

/// An answer.
#[derive(Debug, Default)]
pub struct Reply {
    error: i32,
    body: Vec<u8>,
}

impl Reply {
    /// It could not be done.
    pub fn error(errno: Errno) -> Self {
        Self {
            error: -errno.raw_os_error(),
            body: Vec::new(),
        }
    }

    /// It is done, and this belongs to it.
    pub fn of(body: Vec<u8>) -> Self {
        Self { error: 0, body }
    }

    /// It is done.
    pub fn done() -> Self {
        Self::default()
    }

    /// To the request for beginning.
    pub fn init() -> Self {
        const BIG_WRITES: u32 = 1 << 5;
        const MAX_PAGES: u32 = 1 << 22;
        const MOST: u32 = 1 << 20;
        let mut out = Out::default();
        out.u32s(&[7, 31, MOST, BIG_WRITES | MAX_PAGES]);
        // Requests in the background, twice; the most to write; the granularity of times; pages of a request.
        out.u32s(&[16 | 12 << 16, MOST, 1, 256, 0]);
        out.u32s(&[0; 7]);
        Self::of(out.bytes)
    }

    /// To the request for opening; `directly` keeps the kernel from caching.
    pub fn open(directly: bool) -> Self {
        let mut out = Out::default();
        out.opened(directly);
        Self::of(out.bytes)
    }

    /// As many bytes were written.
    pub fn written(len: usize) -> Self {
        let mut out = Out::default();
        out.u32s(&[len as u32, 0]);
        Self::of(out.bytes)
    }

    /// How many blocks of 4 KiB and inodes are free.
    pub fn statfs(free: u64, inodes: u64) -> Self {
        let mut out = Out::default();
        out.u64s(&[1 << 20, free, free, 1 << 20, inodes]);
        out.u32s(&[4096, 255, 4096, 0]);
        out.u32s(&[0; 6]);
        Self::of(out.bytes)
    }

    /// As the kernel reads it.
    pub fn bytes(&self, unique: u64) -> Vec<u8> {
        let mut out = Out::default();
        out.u32s(&[16 + self.body.len() as u32, self.error as u32]);
        out.u64s(&[unique]);
        out.bytes.extend_from_slice(&self.body);
        out.bytes
    }
}

/// What an object is.
#[derive(Debug, Clone, Copy)]
pub struct Attr {
    /// Its number.
    pub ino: u64,
    /// Bytes.
    pub size: u64,
    /// Kind and permissions.
    pub mode: u32,
    /// How many names.
    pub nlink: u32,
    /// Whose.
    pub owner: (u32, u32),
    /// Access, modification and change, as seconds and nanoseconds.
    pub times: [(u64, u32); 3],
}

/// The body of a reply.
#[derive(Debug, Default)]
pub struct Out {
    bytes: Vec<u8>,
}

impl Out {
    fn u32s(&mut self, values: &[u32]) {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes());
        self.bytes.extend(bytes);
    }

    fn u64s(&mut self, values: &[u64]) {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes());
        self.bytes.extend(bytes);
    }

    fn attr(&mut self, attr: &Attr) {
        self.u64s(&[attr.ino, attr.size, attr.size.div_ceil(512)]);
        self.u64s(&attr.times.map(|t| t.0));
        self.u32s(&attr.times.map(|t| t.1));
        self.u32s(&[
            attr.mode,
            attr.nlink,
            attr.owner.0,
            attr.owner.1,
            0,
            4096,
            0,
        ]);
    }

    fn opened(&mut self, directly: bool) {
        self.u64s(&[0]);
        self.u32s(&[u32::from(directly), 0]);
    }

    /// An object that was looked up or made. The kernel is to ask again each time.
    pub fn entry(attr: &Attr, opened: bool) -> Reply {
        let mut out = Self::default();
        out.u64s(&[attr.ino, 0, 0, 0, 0]);
        out.attr(attr);
        if opened {
            out.opened(false);
        }
        Reply::of(out.bytes)
    }

    /// What an object is.
    pub fn attributes(attr: &Attr) -> Reply {
        let mut out = Self::default();
        out.u64s(&[0, 0]);
        out.attr(attr);
        Reply::of(out.bytes)
    }

    /// A name in a listing, if there is room. `next` is where the listing goes on behind it.
    pub fn name(&mut self, room: usize, ino: u64, next: u64, name: &[u8], kind: u32) -> bool {
        let len = (24 + name.len()).next_multiple_of(8);
        if self.bytes.len() + len > room {
            return false;
        }
        let end = self.bytes.len() + len;
        self.u64s(&[ino, next]);
        self.u32s(&[name.len() as u32, kind]);
        self.bytes.extend_from_slice(name);
        self.bytes.resize(end, 0);
        true
    }

    /// A listing.
    pub fn listing(self) -> Reply {
        Reply::of(self.bytes)
    }
}
