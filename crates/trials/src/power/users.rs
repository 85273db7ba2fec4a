//! Users at work: they save, move and delete in live folders, in the ways in which programs do that.
//!
//! Owns one thread for each user. Invariant: outside the shared directory a path has one user, who alone knows what
//! belongs there; every version has a number of its own. A user who makes something durable makes the directories
//! above it durable, too.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use instep_testkit::prng::Prng;

use super::content::{Token, content};
use super::history::{At, History, SHARED};

/// The history that all users write.
pub type Log = Arc<Mutex<History>>;

/// The history, whoever panicked with it.
pub fn locked(log: &Log) -> MutexGuard<'_, History> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Users at work; they stop when this is dropped.
#[derive(Debug)]
pub struct Users {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Users {
    /// One in each root; careful ones make durable whatever they do.
    pub fn start(roots: &[PathBuf], log: &Log, careful: bool, prng: &mut Prng) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let start = |(number, root): (usize, &PathBuf)| {
            let user = User {
                name: format!("u{number}"),
                root: root.clone(),
                log: Arc::clone(log),
                prng: prng.fork(),
                careful,
                there: vec![None; NAMES],
            };
            let stop = Arc::clone(&stop);
            thread::spawn(move || user.work(&stop))
        };
        let threads = roots.iter().enumerate().map(start).collect();
        Self { stop, threads }
    }

    /// Ends them; what a user could not do is an error.
    pub fn end(mut self) -> io::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(done) => done?,
                Err(_) => return Err(io::Error::other("a user panicked")),
            }
        }
        Ok(())
    }
}

impl Drop for Users {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// How many names of its own a user has.
const NAMES: usize = 9;
/// How many names all users have together.
const SHARED_NAMES: usize = 4;

struct User {
    name: String,
    root: PathBuf,
    log: Log,
    prng: Prng,
    /// Makes everything durable that it does.
    careful: bool,
    /// What is at each of its names.
    there: Vec<Option<Token>>,
}

impl User {
    fn work(mut self, stop: &AtomicBool) -> io::Result<()> {
        self.make_dirs()?;
        while !stop.load(Ordering::Relaxed) {
            let durable = self.careful || self.prng.chance(1, 2);
            match self.prng.below(10) {
                0..=3 => self.save_aside(durable)?,
                4..=5 => self.save_in_place(durable)?,
                6 => self.delete(durable)?,
                7 => self.rename(durable)?,
                _ => self.share(),
            }
            thread::sleep(Duration::from_millis(self.prng.below(25) as u64));
        }
        Ok(())
    }

    fn make_dirs(&self) -> io::Result<()> {
        for dir in 0..3 {
            fs::create_dir_all(self.root.join(format!("{}/d{dir}", self.name)))?;
        }
        fs::create_dir_all(self.root.join(SHARED))?;
        for dir in ["", SHARED, &self.name] {
            File::open(self.root.join(dir))?.sync_all()?;
        }
        Ok(())
    }

    fn path(&self, name: usize) -> String {
        format!("{}/d{}/n{name}", self.name, name % 3)
    }

    fn begin(&self, path: &str, state: Option<Token>) -> At {
        locked(&self.log).begin(path, state)
    }

    fn version(&mut self) -> (Token, Vec<u8>) {
        let token = locked(&self.log).token();
        let most = [600, 6000, 60_000, 300_000][self.prng.below(4)];
        (token, content(token, self.prng.below(most)))
    }

    /// In two goes, as buffers are flushed.
    fn write(&mut self, path: &str, bytes: &[u8]) -> io::Result<File> {
        let mut file = File::create(self.root.join(path))?;
        let (one, two) = bytes.split_at(self.prng.below(bytes.len()));
        file.write_all(one)?;
        file.write_all(two)?;
        Ok(file)
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        let dir = self.root.join(path);
        File::open(dir.parent().unwrap_or(Path::new("/")))?.sync_all()
    }

    /// Into a new file, which then takes the name.
    fn save_aside(&mut self, durable: bool) -> io::Result<()> {
        let name = self.prng.below(NAMES);
        let path = self.path(name);
        let (token, bytes) = self.version();
        let aside = format!("{path}.new");
        self.begin(&aside, Some(token));
        let file = self.write(&aside, &bytes)?;
        if durable {
            file.sync_all()?;
        }
        drop(file);
        self.begin(&aside, None);
        let at = self.begin(&path, Some(token));
        fs::rename(self.root.join(&aside), self.root.join(&path))?;
        self.there[name] = Some(token);
        if durable {
            self.sync_dir(&path)?;
            locked(&self.log).durable(at);
        }
        Ok(())
    }

    fn save_in_place(&mut self, durable: bool) -> io::Result<()> {
        let name = self.prng.below(NAMES);
        let path = self.path(name);
        let (token, bytes) = self.version();
        let at = self.begin(&path, Some(token));
        let file = self.write(&path, &bytes)?;
        self.there[name] = Some(token);
        if durable {
            file.sync_all()?;
            drop(file);
            self.sync_dir(&path)?;
            locked(&self.log).durable(at);
        }
        Ok(())
    }

    fn delete(&mut self, durable: bool) -> io::Result<()> {
        let name = self.prng.below(NAMES);
        if self.there[name].take().is_none() {
            return Ok(());
        }
        let path = self.path(name);
        let at = self.begin(&path, None);
        fs::remove_file(self.root.join(&path))?;
        if durable {
            self.sync_dir(&path)?;
            locked(&self.log).durable(at);
        }
        Ok(())
    }

    fn rename(&mut self, durable: bool) -> io::Result<()> {
        let (from, to) = (self.prng.below(NAMES), self.prng.below(NAMES));
        if from == to || self.there[from].is_none() {
            return Ok(());
        }
        let token = self.there[from].take();
        let (old, new) = (self.path(from), self.path(to));
        if durable {
            File::open(self.root.join(&old))?.sync_all()?;
        }
        let ats = [self.begin(&old, None), self.begin(&new, token)];
        fs::rename(self.root.join(&old), self.root.join(&new))?;
        self.there[to] = token;
        if durable {
            self.sync_dir(&old)?;
            self.sync_dir(&new)?;
            ats.into_iter().for_each(|at| locked(&self.log).durable(at));
        }
        Ok(())
    }

    /// In the directory that everybody writes, where others are in the way: what fails, fails.
    fn share(&mut self) {
        let path = format!("{SHARED}/s{}", self.prng.below(SHARED_NAMES));
        let (token, bytes) = self.version();
        let aside = self.prng.chance(1, 2);
        let first = if aside {
            format!("{path}.{}", self.name)
        } else {
            path.clone()
        };
        self.begin(&first, Some(token));
        let file = self.write(&first, &bytes);
        let flushed = |file: &File| !self.careful || file.sync_all().is_ok();
        let written = file.as_ref().is_ok_and(flushed);
        if aside && written {
            self.begin(&path, Some(token));
            drop(fs::rename(self.root.join(&first), self.root.join(&path)));
        }
    }
}
