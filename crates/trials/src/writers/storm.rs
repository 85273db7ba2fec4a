//! Two roots on one disk, a live session between them, and users who save at the same files on both sides.
//!
//! Owns the threads of a storm: all end with it. Invariant: it ends after a number of acts of the other user, never
//! after a time.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use instep_testkit::compare::{Aspects, compare_in};
use instep_testkit::prng::Prng;
use rustix::process::Signal;

use super::book::{Book, is_whole};
use super::hand::{Habit, Hand, Mapper};
use crate::program::{Live, Program, until};

/// Who saves at the second root.
const OTHER: &str = "bo";
const PATIENCE: Duration = Duration::from_mins(1);
/// Only saved by rename, on both sides: whoever opens it always finds one whole save.
const WATCHED: &str = "d/watched";

/// What a storm came to.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    /// Saves that were completed.
    pub saves: u64,
    /// Saves that no user took away again.
    pub live: u64,
    /// How often a hostile writer found what the other user had written.
    pub met: u64,
    /// How often a reader opened the watched file.
    pub reads: u64,
    /// What must not be.
    pub broken: Vec<String>,
}

/// The two roots and who works in them.
struct World<'a> {
    roots: [PathBuf; 2],
    at: &'a Path,
    habits: &'a [Habit],
    book: Book,
    over: AtomicBool,
    met: AtomicU64,
    reads: AtomicU64,
}

/// `acts` of the user at the second root against these habits at the first, below a directory of the disk on trial.
pub fn storm(at: &Path, habits: &[Habit], seed: u64, acts: u64) -> io::Result<Tally> {
    let world = World {
        roots: [at.join("a"), at.join("b")],
        at,
        habits,
        book: Book::new(seed as u32 | 1 << 31),
        over: AtomicBool::new(false),
        met: AtomicU64::new(0),
        reads: AtomicU64::new(0),
    };
    world.begin(seed)?;
    let program = Program::new(&at.join("home"), &at.join("run"))?;
    let live = program.live(&world.args(&["sync"]))?;
    world.settles(&program, &live)?;
    let mut broken = world.rage(seed, acts);
    if let Err(e) = world.settles(&program, &live) {
        broken.push(format!("{e}: {}", live.said()?));
    }
    live.signal(Signal::INT)?;
    let done = live.ended(PATIENCE)?;
    if done.code != 130 {
        broken.push(format!("exit code {}: {}", done.code, done.stderr));
    }
    let roots = [world.roots[0].as_path(), world.roots[1].as_path()];
    let lost = world.book.lost(&roots)?;
    broken.extend(lost.iter().map(ToString::to_string));
    Ok(Tally {
        saves: world.book.saves(),
        live: world.book.live() as u64,
        met: world.met.into_inner(),
        reads: world.reads.into_inner(),
        broken,
    })
}

impl World<'_> {
    fn args(&self, words: &[&str]) -> Vec<PathBuf> {
        let words = words.iter().map(PathBuf::from);
        words.chain(self.roots.iter().cloned()).collect()
    }

    fn hand(&self, user: &'static str, root: usize, name: &str, seed: u64) -> io::Result<Hand<'_>> {
        let aside = self.at.join("aside").join(format!("{user}-{name}"));
        fs::create_dir_all(&aside)?;
        Ok(Hand {
            user,
            book: &self.book,
            root: &self.roots[root],
            aside,
            prng: Prng::new(seed),
        })
    }

    /// Every file is there before anybody is hostile.
    fn begin(&self, seed: u64) -> io::Result<()> {
        for root in &self.roots {
            fs::create_dir_all(root.join("d"))?;
        }
        let mut hand = self.hand("ada", 0, "begin", seed)?;
        let paths = self.habits.iter().map(|habit| habit.path());
        for path in paths.chain([WATCHED]) {
            hand.by_rename(path)?;
        }
        Ok(())
    }

    /// Waits until both trees are equal and the session says so.
    fn settles(&self, program: &Program, live: &Live) -> io::Result<()> {
        let roots = [self.roots[0].as_path(), self.roots[1].as_path()];
        let aspects = Aspects {
            modes: true,
            mtimes: true,
        };
        let equal = || Ok(compare_in(&roots, aspects).is_empty());
        let told = || -> String {
            let found = compare_in(&roots, aspects);
            let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
            lines.join("; ")
        };
        until("both roots are equal", PATIENCE, equal)
            .map_err(|e| io::Error::other(format!("{e}: {}", told())))?;
        let status = ["status".as_ref(), self.roots[0].as_os_str()];
        let mut said = String::new();
        until("the session is in sync", PATIENCE, || {
            let done = program.call(&status)?;
            said = done.stdout + &done.stderr;
            Ok(said.contains("in sync"))
        })
        .map_err(|e| io::Error::other(format!("{e}: {said}: {:?}", live.said())))
    }

    /// All users at once. What readers saw that must not be, and writers that could not go on.
    fn rage(&self, seed: u64, acts: u64) -> Vec<String> {
        let mut prng = Prng::new(seed);
        thread::scope(|scope| {
            let mut all = Vec::new();
            for habit in self.habits.iter().copied() {
                let seed = prng.next_u64();
                all.push(scope.spawn(move || self.hammer(habit, seed)));
            }
            let seeds = [prng.next_u64(), prng.next_u64()];
            all.push(scope.spawn(move || self.save_watched(seeds[0])));
            all.push(scope.spawn(|| self.read(0)));
            all.push(scope.spawn(|| self.read(1)));
            let other = self.edit(seeds[1], acts);
            self.over.store(true, Ordering::Release);
            let mut broken = Vec::new();
            let ends = all
                .into_iter()
                .map(|t| t.join().unwrap_or_else(|_| panicked()));
            for end in ends.chain([other]) {
                broken.extend(end.err().map(|e| e.to_string()));
            }
            broken
        })
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Saves in bursts: a file that is never left alone is never replaced either.
    fn hammer(&self, habit: Habit, seed: u64) -> io::Result<()> {
        let path = habit.path();
        let mut hand = self.hand("ada", 0, &path.replace('/', "-"), seed)?;
        let mut mapper = match habit {
            Habit::Map => Some(Mapper::new(&self.roots[0].join(path))?),
            _ => None,
        };
        while !self.is_over() {
            for _ in 0..=hand.prng.below(4) {
                let old = match &mut mapper {
                    Some(mapper) => mapper.save(&mut hand, path)?,
                    None => hand.save(habit, path)?,
                };
                self.count(old.as_deref());
            }
            pause(&mut hand.prng, 50);
        }
        Ok(())
    }

    fn count(&self, old: Option<&[u8]>) {
        if old.is_some_and(|old| self.book.is_of(OTHER, old)) {
            self.met.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn save_watched(&self, seed: u64) -> io::Result<()> {
        let mut hand = self.hand("ada", 0, "watched", seed)?;
        while !self.is_over() {
            hand.by_rename(WATCHED)?;
            pause(&mut hand.prng, 60);
        }
        Ok(())
    }

    fn read(&self, root: usize) -> io::Result<()> {
        let path = self.roots[root].join(WATCHED);
        while !self.is_over() {
            let bytes = fs::read(&path)
                .map_err(|e| io::Error::other(format!("a reader in root {root}: {e}")))?;
            if !is_whole(&bytes) {
                let text = bytes.escape_ascii();
                return Err(io::Error::other(format!(
                    "root {root} shows a part: {text}"
                )));
            }
            self.reads.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_micros(300));
        }
        Ok(())
    }

    /// The other user: saves, deletes and renames what the hostile writers write.
    fn edit(&self, seed: u64, acts: u64) -> io::Result<()> {
        let mut hand = self.hand(OTHER, 1, "edits", seed)?;
        for _ in 0..acts {
            let habit = hand.prng.pick(self.habits).copied();
            let path = habit.map_or(WATCHED, Habit::path);
            let moved = format!("{path}.moved");
            match hand.prng.below(12) {
                0 | 1 => drop(hand.delete(path)?),
                2 => drop(hand.rename(path, &moved)),
                3 => drop(hand.rename(&moved, path)),
                4 | 5 => drop(hand.by_rename(WATCHED)?),
                _ => drop(hand.by_rename(path)?),
            }
            pause(&mut hand.prng, 25);
        }
        Ok(())
    }
}

fn panicked() -> io::Result<()> {
    Err(io::Error::other("a user's thread panicked"))
}

fn pause(prng: &mut Prng, millis: usize) {
    thread::sleep(Duration::from_micros(prng.below(millis * 1000) as u64));
}
