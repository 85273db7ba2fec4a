//! A tree in memory, behind the kernel's file system calls, that fails as a script wants it.
//!
//! Owns the objects, and the faults that are to come. Invariant: without a fault it is an ordinary file system; what is
//! in it survives its being unmounted. Objects are never forgotten: a trial is short.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::io::Errno;

use super::Answers;
use super::wire::{Attr, Op, Out, Reply, Request};

/// How an operation goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails.
    Error(Errno),
    /// It takes so long.
    Slow(Duration),
    /// It does not answer.
    Hang,
}

/// Which operations go wrong, and how often.
#[derive(Debug, Clone)]
struct Rule {
    op: Op,
    name: Option<String>,
    fault: Fault,
    left: u32,
}

/// What kind of file system it is.
#[derive(Debug, Clone, Copy)]
pub struct Nature {
    /// Times are kept to this many seconds; nanoseconds where it is zero.
    pub granularity: u64,
    /// Names that differ in case alone are one.
    pub folds_case: bool,
    /// Names can be exchanged, and renamed without replacing.
    pub renames_with_flags: bool,
}

impl Default for Nature {
    fn default() -> Self {
        Self {
            granularity: 0,
            folds_case: false,
            renames_with_flags: true,
        }
    }
}

type Name = Vec<u8>;
type Time = (u64, u32);

enum What {
    Dir(BTreeMap<Name, u64>),
    File(Vec<u8>),
    Link(Vec<u8>),
}

struct Node {
    what: What,
    /// The last name that it got, for the script.
    name: Name,
    mode: u32,
    nlink: u32,
    owner: (u32, u32),
    times: [Time; 3],
}

struct State {
    nodes: BTreeMap<u64, Node>,
    rules: Vec<Rule>,
    /// What hangs may go on.
    released: bool,
    hit: u32,
}

/// The file system.
pub struct Memory {
    nature: Nature,
    state: Mutex<State>,
    release: Condvar,
}

const ROOT: u64 = 1;
const DIR: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
/// A listing that is to fail fails after so many names.
const BEFORE_FAULT: u64 = 3;

type Answer = Result<Reply, Errno>;

impl Memory {
    /// An empty one.
    pub fn new(nature: Nature) -> Self {
        let now = now(nature);
        let root = Node {
            what: What::Dir(BTreeMap::new()),
            name: Vec::new(),
            mode: 0o755,
            nlink: 2,
            owner: (0, 0),
            times: [now; 3],
        };
        Self {
            nature,
            state: Mutex::new(State {
                nodes: BTreeMap::from([(ROOT, root)]),
                rules: Vec::new(),
                released: false,
                hit: 0,
            }),
            release: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this operation goes wrong so many times, on objects of that name or on all.
    pub fn fault(&self, op: Op, name: Option<&str>, fault: Fault, times: u32) {
        self.state().rules.push(Rule {
            op,
            name: name.map(str::to_owned),
            fault,
            left: times,
        });
    }

    /// Nothing goes wrong any more, and what hung goes on. Says how often something went wrong.
    pub fn heal(&self) -> u32 {
        let mut state = self.state();
        state.rules.clear();
        state.released = true;
        self.release.notify_all();
        std::mem::take(&mut state.hit)
    }

    /// How often something went wrong since [`Memory::heal`].
    pub fn hits(&self) -> u32 {
        self.state().hit
    }

    /// What is to go wrong with this request.
    fn faulty(&self, request: &Request<'_>) -> Option<Fault> {
        let mut state = self.state();
        if request.op == Op::Readdir && request.u64(8) < BEFORE_FAULT {
            return None;
        }
        let name = state.nodes.get(&request.node).map(|n| n.name.clone());
        let name = name.unwrap_or_default();
        let rule = state.rules.iter_mut().find(|r| {
            let named = r.name.as_ref().is_none_or(|n| n.as_bytes() == name);
            r.op == request.op && r.left > 0 && named
        })?;
        rule.left -= 1;
        let fault = rule.fault;
        state.hit += 1;
        if fault == Fault::Hang {
            state.released = false;
        }
        Some(fault)
    }

    fn is_faulty(&self, op: Op) -> bool {
        self.state().rules.iter().any(|r| r.op == op && r.left > 0)
    }

    fn act(&self, request: &Request<'_>) -> Answer {
        let limit = self.is_faulty(Op::Readdir).then_some(BEFORE_FAULT);
        let mut state = self.state();
        let now = now(self.nature);
        let mut at = At {
            fs: &mut state,
            nature: self.nature,
            now,
            request,
        };
        match request.op {
            Op::Init => Ok(Reply::init()),
            Op::Lookup => at.lookup(),
            Op::Getattr => at.attributes(request.node),
            Op::Setattr => at.set(),
            Op::Readlink => at.target(),
            Op::Symlink => at.link(),
            Op::Mknod => at.file(request.u32(0), 16, false),
            Op::Create => at.file(request.u32(4), 16, true),
            Op::Mkdir => at.dir(),
            Op::Unlink | Op::Rmdir => at.remove(),
            Op::Rename => at.rename(),
            Op::Link => at.name_again(),
            Op::Open => Ok(Reply::open(false)),
            Op::Read => at.read(),
            Op::Write => at.write(),
            Op::Readdir => at.list(limit),
            Op::Statfs => Ok(Reply::statfs(1 << 18, 1 << 18)),
            Op::Fsync | Op::Fsyncdir | Op::Flush | Op::Release => Ok(Reply::done()),
            Op::Silent | Op::Other => Err(Errno::NOSYS),
        }
    }
}

impl Answers for Memory {
    fn answer(&self, request: &Request<'_>) -> Option<Reply> {
        if request.op == Op::Silent {
            return None;
        }
        match self.faulty(request) {
            Some(Fault::Error(errno)) => return Some(Reply::error(errno)),
            Some(Fault::Slow(time)) => std::thread::sleep(time),
            Some(Fault::Hang) => {
                let state = self.state();
                let held = self.release.wait_while(state, |s| !s.released);
                drop(held);
            }
            None => {}
        }
        Some(self.act(request).unwrap_or_else(Reply::error))
    }

    fn let_go(&self) {
        self.heal();
    }
}

fn now(nature: Nature) -> Time {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default();
    rounded(nature, (now.as_secs(), now.subsec_nanos()))
}

fn rounded(nature: Nature, time: Time) -> Time {
    if nature.granularity == 0 {
        return time;
    }
    (time.0 - time.0 % nature.granularity, 0)
}

/// One request on the tree.
struct At<'a> {
    fs: &'a mut State,
    nature: Nature,
    now: Time,
    request: &'a Request<'a>,
}

impl At<'_> {
    fn node(&mut self, ino: u64) -> Result<&mut Node, Errno> {
        self.fs.nodes.get_mut(&ino).ok_or(Errno::NOENT)
    }

    fn entries(&mut self, dir: u64) -> Result<&mut BTreeMap<Name, u64>, Errno> {
        match &mut self.node(dir)?.what {
            What::Dir(entries) => Ok(entries),
            What::File(_) | What::Link(_) => Err(Errno::NOTDIR),
        }
    }

    /// The name as it is in the directory, and what it names.
    fn find(&mut self, dir: u64, name: &[u8]) -> Result<Option<(Name, u64)>, Errno> {
        let folds = self.nature.folds_case;
        let same = |n: &Name| n == name || (folds && n.eq_ignore_ascii_case(name));
        let entries = self.entries(dir)?;
        let found = entries.iter().find(|(n, _)| same(n));
        Ok(found.map(|(n, ino)| (n.clone(), *ino)))
    }

    fn attr(&mut self, ino: u64) -> Result<Attr, Errno> {
        let node = self.node(ino)?;
        let (kind, size) = match &node.what {
            What::Dir(entries) => (DIR, entries.len()),
            What::File(bytes) => (FILE, bytes.len()),
            What::Link(target) => (LINK, target.len()),
        };
        Ok(Attr {
            ino,
            size: size as u64,
            mode: kind | node.mode,
            nlink: node.nlink,
            owner: node.owner,
            times: node.times,
        })
    }

    fn attributes(&mut self, ino: u64) -> Answer {
        Ok(Out::attributes(&self.attr(ino)?))
    }

    fn first_name(&self, at: usize) -> Name {
        let names = self.request.names(at);
        names.first().map(|n| n.to_vec()).unwrap_or_default()
    }

    fn lookup(&mut self) -> Answer {
        let name = self.first_name(0);
        let (_, ino) = self.find(self.request.node, &name)?.ok_or(Errno::NOENT)?;
        Ok(Out::entry(&self.attr(ino)?, false))
    }

    fn set(&mut self) -> Answer {
        let (request, now, nature) = (self.request, self.now, self.nature);
        let valid = request.u32(0);
        let node = self.node(request.node)?;
        if valid & 1 != 0 {
            node.mode = request.u32(68) & 0o7777;
        }
        if valid & 2 != 0 {
            node.owner.0 = request.u32(76);
        }
        if valid & 4 != 0 {
            node.owner.1 = request.u32(80);
        }
        if valid & 8 != 0
            && let What::File(bytes) = &mut node.what
        {
            bytes.resize(request.u64(16) as usize, 0);
            node.times[1] = now;
        }
        for (i, (set, at_once)) in [(16, 128), (32, 256)].into_iter().enumerate() {
            if valid & at_once != 0 {
                node.times[i] = now;
            } else if valid & set != 0 {
                let time = (request.u64(32 + 8 * i), request.u32(56 + 4 * i));
                node.times[i] = rounded(nature, time);
            }
        }
        node.times[2] = now;
        self.attributes(request.node)
    }

    fn target(&mut self) -> Answer {
        match &self.node(self.request.node)?.what {
            What::Link(target) => Ok(Reply::of(target.clone())),
            What::Dir(_) | What::File(_) => Err(Errno::INVAL),
        }
    }

    fn add(&mut self, name: Name, what: What, mode: u32, opened: bool) -> Answer {
        let dir = self.request.node;
        if self.find(dir, &name)?.is_some() {
            return Err(Errno::EXIST);
        }
        let ino = self.fs.nodes.len() as u64 + 1;
        let node = Node {
            what,
            name: name.clone(),
            mode: mode & 0o7777,
            nlink: 1,
            owner: (self.request.uid, self.request.gid),
            times: [self.now; 3],
        };
        self.fs.nodes.insert(ino, node);
        self.entries(dir)?.insert(name, ino);
        self.touch(dir)?;
        Ok(Out::entry(&self.attr(ino)?, opened))
    }

    fn touch(&mut self, dir: u64) -> Result<(), Errno> {
        let now = self.now;
        let node = self.node(dir)?;
        (node.times[1], node.times[2]) = (now, now);
        Ok(())
    }

    fn file(&mut self, mode: u32, names: usize, opened: bool) -> Answer {
        self.add(self.first_name(names), What::File(Vec::new()), mode, opened)
    }

    fn dir(&mut self) -> Answer {
        let what = What::Dir(BTreeMap::new());
        self.add(self.first_name(8), what, self.request.u32(0), false)
    }

    fn link(&mut self) -> Answer {
        let names = self.request.names(0);
        let target = names.get(1).map(|t| t.to_vec()).unwrap_or_default();
        self.add(self.first_name(0), What::Link(target), 0o777, false)
    }

    fn remove(&mut self) -> Answer {
        let dir = self.request.node;
        let name = self.first_name(0);
        let (name, ino) = self.find(dir, &name)?.ok_or(Errno::NOENT)?;
        let op = self.request.op;
        let node = self.node(ino)?;
        match (&node.what, op) {
            (What::Dir(entries), Op::Rmdir) if !entries.is_empty() => return Err(Errno::NOTEMPTY),
            (What::Dir(_), Op::Unlink) => return Err(Errno::ISDIR),
            (What::File(_) | What::Link(_), Op::Rmdir) => return Err(Errno::NOTDIR),
            _ => {}
        }
        node.nlink -= 1;
        self.entries(dir)?.remove(&name);
        self.touch(dir)?;
        Ok(Reply::done())
    }

    fn rename(&mut self) -> Answer {
        const NOREPLACE: u32 = 1;
        const EXCHANGE: u32 = 2;
        let request = self.request;
        let (flags, at) = if request.has_flags {
            (request.u32(8), 16)
        } else {
            (0, 8)
        };
        if flags != 0 && !self.nature.renames_with_flags {
            return Err(Errno::INVAL);
        }
        let (from, to) = (request.node, request.u64(0));
        let names = request.names(at);
        let [old, new, ..] = names[..] else {
            return Err(Errno::INVAL);
        };
        let (old, moved) = self.find(from, old)?.ok_or(Errno::NOENT)?;
        let there = self.find(to, new)?;
        if flags & NOREPLACE != 0 && there.is_some() {
            return Err(Errno::EXIST);
        }
        if flags & EXCHANGE != 0 {
            let (new, other) = there.ok_or(Errno::NOENT)?;
            self.entries(from)?.insert(old.clone(), other);
            self.node(other)?.name = old;
            self.entries(to)?.insert(new.clone(), moved);
            self.node(moved)?.name = new;
        } else {
            if let Some((name, other)) = there.filter(|(_, other)| *other != moved) {
                if matches!(&self.node(other)?.what, What::Dir(e) if !e.is_empty()) {
                    return Err(Errno::NOTEMPTY);
                }
                self.node(other)?.nlink -= 1;
                self.entries(to)?.remove(&name);
            }
            self.entries(from)?.remove(&old);
            self.entries(to)?.insert(new.to_vec(), moved);
            self.node(moved)?.name = new.to_vec();
        }
        self.touch(from)?;
        self.touch(to)?;
        let now = self.now;
        self.node(moved)?.times[2] = now;
        Ok(Reply::done())
    }

    fn name_again(&mut self) -> Answer {
        let (dir, ino) = (self.request.node, self.request.u64(0));
        let name = self.first_name(8);
        if self.find(dir, &name)?.is_some() {
            return Err(Errno::EXIST);
        }
        self.entries(dir)?.insert(name.clone(), ino);
        let node = self.node(ino)?;
        node.nlink += 1;
        node.name = name;
        self.touch(dir)?;
        Ok(Out::entry(&self.attr(ino)?, false))
    }

    fn read(&mut self) -> Answer {
        let (offset, len) = (self.request.u64(8) as usize, self.request.u32(16) as usize);
        match &self.node(self.request.node)?.what {
            What::File(bytes) => {
                let from = offset.min(bytes.len());
                let to = (offset + len).min(bytes.len());
                Ok(Reply::of(bytes[from..to].to_vec()))
            }
            What::Dir(_) | What::Link(_) => Err(Errno::ISDIR),
        }
    }

    fn write(&mut self) -> Answer {
        let (request, now) = (self.request, self.now);
        let (offset, len) = (request.u64(8) as usize, request.u32(16) as usize);
        let new = request.rest(40);
        let new = &new[..len.min(new.len())];
        let node = self.node(request.node)?;
        let What::File(bytes) = &mut node.what else {
            return Err(Errno::ISDIR);
        };
        let end = offset + new.len();
        bytes.resize(bytes.len().max(end), 0);
        bytes[offset..end].copy_from_slice(new);
        (node.times[1], node.times[2]) = (now, now);
        Ok(Reply::written(new.len()))
    }

    /// A listing ends early only to be asked for the rest, which then fails.
    fn list(&mut self, limit: Option<u64>) -> Answer {
        let (offset, room) = (self.request.u64(8), self.request.u32(16) as usize);
        let entries = self.entries(self.request.node)?.clone();
        let mut out = Out::default();
        let last = limit.map_or(u64::MAX, |l| offset + l);
        for (next, (name, ino)) in (1_u64..).zip(&entries) {
            if next <= offset || next > last {
                continue;
            }
            let kind = match self.node(*ino)?.what {
                What::Dir(_) => DIR,
                What::File(_) => FILE,
                What::Link(_) => LINK,
            };
            if !out.name(room, *ino, next, name, kind >> 12) {
                break;
            }
        }
        Ok(out.listing())
    }
}
