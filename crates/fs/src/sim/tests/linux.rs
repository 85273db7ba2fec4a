//! The same random calls on the simulator and on the real file system: same results, same tree.

#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use rustix::fs::{self as real, AtFlags, Mode, OFlags, RenameFlags, ResolveFlags};

use super::super::watch::{Event, Signal};
use super::*;

/// What a call did, in terms that both sides share.
type Outcome = core::result::Result<String, ErrorKind>;

/// A directory on both sides.
struct Twin {
    sim: SimDir,
    os: OwnedFd,
}

fn told<T>(r: Result<T>, show: impl FnOnce(T) -> String) -> Outcome {
    r.map(show).map_err(|e| e.kind())
}

fn told_os<T>(r: rustix::io::Result<T>, show: impl FnOnce(T) -> String) -> Outcome {
    told(r.map_err(|e| Error::new("real", e.raw_os_error())), show)
}

fn quiet<T>(_: T) -> String {
    String::new()
}

impl Twin {
    fn open_dir(&self, name: &str) -> (Outcome, Outcome) {
        let how = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let os = real::openat2(&self.os, name, how, Mode::empty(), within);
        (told(self.sim.open_dir(n(name)), quiet), told_os(os, quiet))
    }

    fn create(&self, name: &str, bytes: &[u8]) -> (Outcome, Outcome) {
        let sim = self
            .sim
            .create_file(n(name), 0o640)
            .and_then(|f| f.write_all_at(0, bytes));
        let how = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW;
        let os = real::openat(&self.os, name, how, Mode::from_raw_mode(0o640))
            .and_then(|f| rustix::io::pwrite(f, bytes, 0));
        (told(sim, quiet), told_os(os, quiet))
    }

    fn read(&self, name: &str) -> (Outcome, Outcome) {
        let sim = self.sim.open_file(n(name)).and_then(|f| {
            let mut buf = [0; 64];
            let count = f.read_at(0, &mut buf)?;
            Ok(buf[..count].to_vec())
        });
        let os = real::openat(&self.os, name, OFlags::NOFOLLOW, Mode::empty()).and_then(|f| {
            let mut buf = [0; 64];
            let count = rustix::io::pread(f, &mut buf, 0)?;
            Ok(buf[..count].to_vec())
        });
        (
            told(sim, |b| format!("{b:?}")),
            told_os(os, |b| format!("{b:?}")),
        )
    }

    fn make_dir(&self, name: &str) -> (Outcome, Outcome) {
        let os = real::mkdirat(&self.os, name, Mode::from_raw_mode(0o750));
        (
            told(self.sim.make_dir(n(name), 0o750), quiet),
            told_os(os, quiet),
        )
    }

    fn make_link(&self, name: &str) -> (Outcome, Outcome) {
        let os = real::symlinkat("target", &self.os, name);
        (
            told(self.sim.make_link(n(name), b"target"), quiet),
            told_os(os, quiet),
        )
    }

    fn read_link(&self, name: &str) -> (Outcome, Outcome) {
        let os = real::readlinkat(&self.os, name, Vec::new());
        let sim = self.sim.read_link(n(name));
        (
            told(sim, |t| format!("{t:?}")),
            told_os(os, |t| format!("{:?}", t.into_bytes())),
        )
    }

    fn remove(&self, name: &str, dir: bool) -> (Outcome, Outcome) {
        let flags = if dir {
            AtFlags::REMOVEDIR
        } else {
            AtFlags::empty()
        };
        let os = real::unlinkat(&self.os, name, flags);
        let sim = if dir {
            self.sim.remove_dir(n(name))
        } else {
            self.sim.remove_file(n(name))
        };
        (told(sim, quiet), told_os(os, quiet))
    }

    fn rename(&self, name: &str, to: &Self, to_name: &str, how: u64) -> (Outcome, Outcome) {
        let flags = [
            RenameFlags::NOREPLACE,
            RenameFlags::EXCHANGE,
            RenameFlags::empty(),
        ][how as usize];
        let os = real::renameat_with(&self.os, name, &to.os, to_name, flags);
        let (from, to_name) = (n(name), n(to_name));
        let sim = match how {
            0 => self.sim.rename_noreplace(from, &to.sim, to_name),
            1 => self.sim.exchange(from, &to.sim, to_name),
            _ => self.sim.rename_over(from, &to.sim, to_name),
        };
        (told(sim, quiet), told_os(os, quiet))
    }

    fn hard_link(&self, name: &str, to: &Self, to_name: &str) -> (Outcome, Outcome) {
        let os = real::linkat(&self.os, name, &to.os, to_name, AtFlags::empty());
        (
            told(self.sim.hard_link(n(name), &to.sim, n(to_name)), quiet),
            told_os(os, quiet),
        )
    }

    /// Names with kind, links and size, or why they cannot be listed.
    fn listing(&self) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
        // The umask may take other bits, and not every file system counts the links of a directory.
        let show = |is_dir: bool, mode: u32, nlink: u64, size: u64| {
            let mode = mode & 0o700;
            if is_dir {
                format!("directory {mode:o}")
            } else {
                format!("{mode:o} {nlink} {size}")
            }
        };
        let mut sim = BTreeMap::new();
        let listed = self.sim.list_stat(&mut |name, stat| {
            let s = stat.unwrap();
            let name = String::from_utf8(name.to_vec()).unwrap();
            sim.insert(
                name,
                show(s.kind == Kind::Dir, s.mode, u64::from(s.nlink), s.size),
            );
        });
        if let Err(e) = listed {
            sim.insert("/error".to_owned(), format!("{:?}", e.kind()));
        }
        let mut os = BTreeMap::new();
        real::seek(&self.os, real::SeekFrom::Start(0)).unwrap();
        let mut buf = [core::mem::MaybeUninit::uninit(); 4096];
        let mut entries = real::RawDir::new(&self.os, &mut buf);
        while let Some(entry) = entries.next() {
            let name = match entry {
                Ok(entry) => entry.file_name().to_str().unwrap().to_owned(),
                Err(e) => {
                    let kind = Error::new("list", e.raw_os_error()).kind();
                    os.insert("/error".to_owned(), format!("{kind:?}"));
                    break;
                }
            };
            if name != "." && name != ".." {
                let s = real::statat(&self.os, &name, AtFlags::SYMLINK_NOFOLLOW).unwrap();
                let is_dir = real::FileType::from_raw_mode(s.st_mode).is_dir();
                os.insert(name, show(is_dir, s.st_mode, s.st_nlink, s.st_size as u64));
            }
        }
        (sim, os)
    }
}

/// One random call on both sides.
fn step(rng: &mut Rng, dirs: &[Twin]) -> (String, (Outcome, Outcome)) {
    let names = ["a", "b", "c", "d", "e"];
    let pick = |rng: &mut Rng, count: usize| rng.below(count as u64) as usize;
    let (one, two) = (pick(rng, dirs.len()), pick(rng, dirs.len()));
    let (dir, to) = (&dirs[one], &dirs[two]);
    let (name, to_name) = (names[pick(rng, names.len())], names[pick(rng, names.len())]);
    let op = rng.below(12);
    let shown = format!("op {op}: {one}/{name} {two}/{to_name}");
    let done = match op {
        0 => dir.open_dir(name),
        1 | 2 => dir.create(name, &[name.as_bytes()[0], one as u8]),
        3 => dir.read(name),
        4 => dir.make_dir(name),
        5 => dir.make_link(name),
        6 => dir.read_link(name),
        7 => dir.remove(name, rng.chance(500)),
        8 => dir.hard_link(name, to, to_name),
        _ => dir.rename(name, to, to_name, op - 9),
    };
    (shown, done)
}

/// A few nested directories, on both sides.
fn twins() -> (tempfile::TempDir, SimFs, Vec<Twin>) {
    let temp = tempfile::tempdir().unwrap();
    let (fs, root) = machine();
    let os = real::open(temp.path(), OFlags::DIRECTORY, Mode::empty()).unwrap();
    let mut dirs = vec![Twin { sim: root, os }];
    for (at, name) in [(0, "d"), (1, "e"), (0, "e")] {
        let made = dirs[at].make_dir(name);
        assert!(made.0.is_ok() && made.1.is_ok());
        let os = real::openat(&dirs[at].os, name, OFlags::DIRECTORY, Mode::empty()).unwrap();
        dirs.push(Twin {
            sim: dirs[at].sim.open_dir(n(name)).unwrap(),
            os,
        });
    }
    (temp, fs, dirs)
}

#[test]
fn linux_gives_the_same_answers() {
    for seed in 0..40 {
        let (_temp, _fs, dirs) = twins();
        let mut rng = Rng::new(seed);
        let mut history = Vec::new();
        for _ in 0..250 {
            let (shown, (sim, os)) = step(&mut rng, &dirs);
            history.push(shown);
            assert_eq!(
                sim,
                os,
                "seed {seed}: {:?}",
                &history[history.len().saturating_sub(12)..]
            );
        }
        for (at, dir) in dirs.iter().enumerate() {
            let (sim, os) = dir.listing();
            assert_eq!(sim, os, "seed {seed}: directory {at}");
        }
    }
}

/// The directories' events so far, cookies numbered as they first appear.
fn heard_os(inotify: &OwnedFd, watches: &[i32]) -> Vec<String> {
    use real::inotify::{ReadFlags as R, Reader};
    let mut buf = [core::mem::MaybeUninit::uninit(); 4096];
    let mut reader = Reader::new(inotify, &mut buf);
    let mut out = Vec::new();
    let mut cookies = Vec::new();
    while let Ok(event) = reader.next() {
        let known = [
            (R::CREATE, Signal::Create),
            (R::MODIFY, Signal::Modify),
            (R::CLOSE_WRITE, Signal::CloseWrite),
            (R::MOVED_FROM, Signal::MovedFrom),
            (R::MOVED_TO, Signal::MovedTo),
            (R::DELETE, Signal::Delete),
            (R::MOVE_SELF, Signal::MoveSelf),
        ];
        let flags = event.events();
        let Some((_, signal)) = known.iter().find(|(flag, _)| flags.contains(*flag)) else {
            continue;
        };
        let at = watches.iter().position(|w| *w == event.wd()).unwrap();
        let name = event
            .file_name()
            .map(|n| n.to_str().unwrap())
            .unwrap_or_default();
        let is_dir = flags.contains(R::ISDIR) || *signal == Signal::MoveSelf;
        out.push(shown(
            at,
            name,
            *signal,
            is_dir,
            event.cookie(),
            &mut cookies,
        ));
    }
    out
}

fn heard_sim(fs: &SimFs, watcher: u64, dirs: &[Twin]) -> Vec<String> {
    let mut cookies = Vec::new();
    let events = fs.lock().watchers.get_mut(&watcher).unwrap().take(i64::MAX);
    let mut show = |e: &Event| {
        let at = dirs
            .iter()
            .position(|d| d.sim.handle().id == e.dir)
            .unwrap();
        shown(
            at,
            std::str::from_utf8(&e.name).unwrap(),
            e.signal,
            e.is_dir,
            e.cookie,
            &mut cookies,
        )
    };
    events.iter().map(|q| show(&q.event)).collect()
}

fn shown(
    at: usize,
    name: &str,
    signal: Signal,
    is_dir: bool,
    cookie: u32,
    seen: &mut Vec<u32>,
) -> String {
    if cookie != 0 && !seen.contains(&cookie) {
        seen.push(cookie);
    }
    let pair = seen.iter().position(|c| *c == cookie);
    format!(
        "{at}/{name} {signal:?} {} {pair:?}",
        if is_dir { "dir" } else { "" }
    )
}

#[test]
fn linux_reports_the_same_events() {
    use real::inotify::{self, CreateFlags, WatchFlags as W};
    let mut count = 0;
    for seed in 100..130 {
        let (_temp, fs, dirs) = twins();
        let inotify = inotify::init(CreateFlags::NONBLOCK).unwrap();
        let mask = W::CREATE
            | W::MODIFY
            | W::CLOSE_WRITE
            | W::MOVED_FROM
            | W::MOVED_TO
            | W::DELETE
            | W::MOVE_SELF;
        let watch = |dir: &Twin| {
            let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&dir.os));
            inotify::add_watch(&inotify, path, mask | W::ONLYDIR | W::EXCL_UNLINK).unwrap()
        };
        let watches: Vec<i32> = dirs.iter().map(watch).collect();
        let watcher = fs.new_watcher();
        for (at, dir) in dirs.iter().enumerate() {
            watcher.add(&dir.sim, &p(&format!("d{at}"))).unwrap();
        }
        let mut rng = Rng::new(seed);
        for _ in 0..200 {
            let (call, _) = step(&mut rng, &dirs);
            let (sim, os) = (
                heard_sim(&fs, watcher.id(), &dirs),
                heard_os(&inotify, &watches),
            );
            assert_eq!(sim, os, "seed {seed}: {call}");
            count += sim.len();
        }
    }
    assert!(count > 1000, "{count}");
}
