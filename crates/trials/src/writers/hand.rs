//! The ways in which programs save a file, each exact about what it destroys.
//!
//! Owns no state but a directory outside of all roots. Invariant: whatever a user takes out of a root or overwrites is
//! read first, so that the book knows whose bytes are gone by a user's own hand.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use instep_testkit::prng::Prng;
use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::book::Book;

/// How one writer saves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    /// A new file takes the old one's name.
    Rename,
    /// Emptied and written, in one go.
    InPlace,
    /// Opened with `O_TRUNC`, and written in many pieces.
    Truncate,
    /// A copy is put beside it, then it is written over.
    CopyBack,
    /// Opened, and written long after: the name may be another file's by then.
    Keep,
    /// Another line at the end.
    Append,
    /// Through a mapping.
    Map,
}

impl Habit {
    /// All habits.
    pub const ALL: [Self; 7] = [
        Self::Rename,
        Self::InPlace,
        Self::Truncate,
        Self::CopyBack,
        Self::Keep,
        Self::Append,
        Self::Map,
    ];

    /// The file on which it is tried.
    pub fn path(self) -> &'static str {
        match self {
            Self::Rename => "rename",
            Self::InPlace => "place",
            Self::Truncate => "d/truncate",
            Self::CopyBack => "d/copy",
            Self::Keep => "keep",
            Self::Append => "append",
            Self::Map => "d/map",
        }
    }
}

/// One user's program at one file.
#[derive(Debug)]
pub struct Hand<'a> {
    /// Whose saves these are.
    pub user: &'static str,
    /// Where the saves are written down.
    pub book: &'a Book,
    /// The user's root.
    pub root: &'a Path,
    /// On the same disk, outside of all roots; nobody else's.
    pub aside: PathBuf,
    /// Chooses sizes and pauses.
    pub prng: Prng,
}

impl Hand<'_> {
    /// Saves once. What was there before, if something was.
    pub fn save(&mut self, habit: Habit, path: &str) -> io::Result<Option<Vec<u8>>> {
        match habit {
            Habit::Rename => self.by_rename(path),
            Habit::Append => self.append(path),
            Habit::InPlace | Habit::Truncate | Habit::CopyBack | Habit::Keep => {
                self.over(habit, path)
            }
            Habit::Map => Err(io::Error::other("a mapping needs a program of its own")),
        }
    }

    /// Swaps a complete file into place.
    pub fn by_rename(&mut self, path: &str) -> io::Result<Option<Vec<u8>>> {
        let (token, text) = self.book.save(self.user, path, self.prng.below(6000));
        let (at, new) = (self.root.join(path), self.aside.join("new"));
        fs::write(&new, text)?;
        loop {
            match renameat_with(CWD, &new, CWD, &at, RenameFlags::NOREPLACE) {
                Ok(()) => return Ok(None),
                Err(Errno::EXIST) => {}
                Err(_) => {
                    // Its directory is gone, or is none.
                    self.book.failed(token);
                    fs::remove_file(&new)?;
                    return Ok(None);
                }
            }
            match renameat_with(CWD, &new, CWD, &at, RenameFlags::EXCHANGE) {
                Ok(()) => return self.drop_aside(&new).map(Some),
                Err(Errno::NOENT) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Takes a file away. Whether there was one.
    pub fn delete(&mut self, path: &str) -> io::Result<bool> {
        let gone = self.aside.join("gone");
        if fs::rename(self.root.join(path), &gone).is_err() {
            return Ok(false);
        }
        self.drop_aside(&gone)?;
        Ok(true)
    }

    /// Gives a file another name, never one that is taken.
    pub fn rename(&self, path: &str, to: &str) -> bool {
        let (from, to) = (self.root.join(path), self.root.join(to));
        renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE).is_ok()
    }

    fn drop_aside(&self, file: &Path) -> io::Result<Vec<u8>> {
        let bytes = fs::read(file)?;
        self.book.destroyed(&bytes);
        fs::remove_file(file)?;
        Ok(bytes)
    }

    fn open(&self, path: &str) -> io::Result<Option<File>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        options.custom_flags(OFlags::NOFOLLOW.bits() as i32);
        match options.open(self.root.join(path)) {
            Ok(file) => Ok(Some(file)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Reads what is in the file that has the name now, and writes over it, whatever its name is by then.
    fn over(&mut self, habit: Habit, path: &str) -> io::Result<Option<Vec<u8>>> {
        let Some(mut file) = self.open(path)? else {
            return Ok(None);
        };
        if habit == Habit::Keep {
            thread::sleep(Duration::from_millis(self.prng.below(120) as u64));
        }
        let mut old = Vec::new();
        file.read_to_end(&mut old)?;
        if habit == Habit::CopyBack {
            fs::write(self.aside.join("backup"), &old)?;
        }
        let (_, text) = self.book.save(self.user, path, self.prng.below(6000));
        self.book.destroyed(&old);
        if habit == Habit::Truncate {
            let again = format!("/proc/self/fd/{}", file.as_raw_fd());
            file = OpenOptions::new().write(true).truncate(true).open(again)?;
            for piece in text.as_bytes().chunks(700) {
                file.write_all(piece)?;
            }
        } else {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(text.as_bytes())?;
        }
        Ok(Some(old))
    }

    /// Destroys nothing.
    fn append(&mut self, path: &str) -> io::Result<Option<Vec<u8>>> {
        let (token, text) = self.book.save(self.user, path, self.prng.below(60));
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(self.root.join(path));
        let Ok(mut file) = file else {
            self.book.failed(token);
            return Ok(None);
        };
        let mut old = Vec::new();
        file.read_to_end(&mut old)?;
        file.write_all(text.as_bytes())?;
        Ok(Some(old))
    }
}

/// Reads a line, maps the file, writes the line over its first bytes and spaces over the rest, and answers with what
/// it read before, in hexadecimal.
const MAPS: &str = "
import mmap, os, sys
for line in sys.stdin:
    text, old = line.rstrip('\\n').encode(), b''
    try:
        fd = os.open(sys.argv[1], os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        print('-', flush=True)
        continue
    if os.fstat(fd).st_size >= len(text):
        with mmap.mmap(fd, 0) as m:
            os.close(fd)
            old = m[:]
            m[:] = text + b' ' * (len(m) - len(text))
        print('+' + old.hex(), flush=True)
    else:
        old = os.read(fd, 65536)
        os.ftruncate(fd, 0)
        os.pwrite(fd, text, 0)
        os.close(fd)
        print('+' + old.hex(), flush=True)
";

/// A program that saves through mappings: those are beyond safe Rust. Ends when dropped.
#[derive(Debug)]
pub struct Mapper {
    child: Child,
    asks: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Mapper {
    /// For one file.
    pub fn new(file: &Path) -> io::Result<Self> {
        let mut child = Command::new("python3")
            .args(["-c", MAPS])
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let missing = || io::Error::other("a pipe of the mapper is missing");
        Ok(Self {
            asks: child.stdin.take(),
            answers: BufReader::new(child.stdout.take().ok_or_else(missing)?),
            child,
        })
    }

    /// Saves once. What was there before.
    pub fn save(&mut self, hand: &mut Hand<'_>, path: &str) -> io::Result<Option<Vec<u8>>> {
        let (token, text) = hand.book.save(hand.user, path, hand.prng.below(600));
        let asks = self.asks.as_mut();
        writeln!(asks.ok_or(io::ErrorKind::BrokenPipe)?, "{text}")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        let Some(digits) = answer.trim_end().strip_prefix('+') else {
            hand.book.failed(token);
            return if answer.starts_with('-') {
                Ok(None)
            } else {
                Err(io::Error::other("the mapper ended"))
            };
        };
        let old = from_hex(digits);
        hand.book.destroyed(&old);
        Ok(Some(old))
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        self.asks = None;
        drop(self.child.wait());
    }
}

fn from_hex(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks(2);
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.filter_map(byte).collect()
}
