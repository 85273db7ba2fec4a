//! A machine whose disks are image files, so that its power can be cut and both halves of the story kept.
//!
//! Owns the mounts of all roots and the program on them. Root `i` is `r<i>/tree` on image `i`; the user's home, with
//! what instep keeps there, is on the first. Invariant: after a cut the disks are at the same places as before.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use instep_testkit::prng::Prng;
use rustix::fs::syncfs;

use super::disk::{Disk, audit};
use super::ground::Ground;
use crate::boot::Boot;
use crate::image::{Image, Kind};
use crate::program::{Done, Live, Program, until};

/// What the power cut left: one image file for each root, and when it happened.
#[derive(Debug)]
pub struct Cut {
    /// The images.
    pub files: Vec<PathBuf>,
    /// From the stop of the program to the last copy.
    pub when: (Instant, Instant),
    /// In words, for a report.
    pub how: String,
}

/// The disks and the program.
#[derive(Debug)]
pub struct Machine {
    dir: PathBuf,
    kinds: Vec<Kind>,
    // Before the images: the program goes first.
    live: Option<Live>,
    boot: Option<Boot>,
    disks: Vec<Image>,
    boots: u32,
}

impl Machine {
    /// New disks.
    pub fn new(dir: &Path, ground: &Ground, kinds: &[Kind]) -> io::Result<Self> {
        let mut machine = Self::empty(dir, kinds);
        for (i, kind) in kinds.iter().enumerate() {
            let file = ground.make(*kind)?;
            let disk = Image::of(&file, &machine.place(i), *kind)?;
            fs::create_dir(disk.at().join("tree"))?;
            File::open(disk.at())?.sync_all()?;
            machine.disks.push(disk);
        }
        fs::create_dir(machine.place(0).join("home"))?;
        syncfs(File::open(machine.place(0))?)?;
        Ok(machine)
    }

    /// Without its disks: they come with [`Machine::power_on`].
    pub fn empty(dir: &Path, kinds: &[Kind]) -> Self {
        Self {
            dir: dir.to_owned(),
            kinds: kinds.to_vec(),
            live: None,
            boot: None,
            disks: Vec::new(),
            boots: 0,
        }
    }

    fn place(&self, i: usize) -> PathBuf {
        self.dir.join(format!("r{i}"))
    }

    /// The roots.
    pub fn roots(&self) -> Vec<PathBuf> {
        let places = (0..self.kinds.len()).map(|i| self.place(i).join("tree"));
        places.collect()
    }

    /// The files that its disks are in, while they are mounted.
    pub fn files(&self) -> Vec<PathBuf> {
        let files = self.disks.iter().map(|disk| disk.file().to_owned());
        files.collect()
    }

    /// What is in each of its disks.
    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// The power comes back: these disks, and a boot that there never was.
    pub fn power_on(&mut self, files: &[PathBuf]) -> io::Result<()> {
        for (i, file) in files.iter().enumerate() {
            let disk = Image::of(file, &self.place(i), self.kinds[i])?;
            self.disks.push(disk);
        }
        self.boots += 1;
        self.boot = Some(Boot::another(&self.dir)?);
        Ok(())
    }

    /// Everything ends; nothing is asked.
    pub fn power_off(&mut self) -> io::Result<()> {
        self.live = None;
        self.boot = None;
        for mut disk in self.disks.drain(..) {
            // Who was killed a moment ago may still hold it.
            until("the disks are free", Duration::from_secs(20), || {
                Ok(disk.unmount(false).is_ok())
            })?;
        }
        Ok(())
    }

    fn program(&self) -> io::Result<Program> {
        // Sockets are gone after a boot.
        let run = self.dir.join(format!("run{}", self.boots));
        Program::new(&self.place(0).join("home"), &run)
    }

    fn args(&self, words: &[&str]) -> Vec<PathBuf> {
        let words = words.iter().map(PathBuf::from);
        words.chain(self.roots()).collect()
    }

    /// One pass of the program over all roots.
    pub fn pass(&self) -> io::Result<Done> {
        self.program()?.call(&self.args(&["sync", "--once"]))
    }

    /// The paths of conflicts, of which the program says that both versions are kept.
    pub fn contested(&self) -> io::Result<BTreeSet<String>> {
        let words = ["conflicts", "list", "--all", "--plain"].map(PathBuf::from);
        let root = self.place(0).join("tree");
        let done = self.program()?.call(&[&words[..], &[root]].concat())?;
        let second = |line: &str| line.split_whitespace().nth(1).map(str::to_owned);
        Ok(done.stdout.lines().skip(1).filter_map(second).collect())
    }

    /// Starts a session.
    pub fn start(&mut self) -> io::Result<()> {
        let live = self.program()?.live(&self.args(&["sync"]))?;
        self.live = Some(live);
        Ok(())
    }

    /// Starts one pass without waiting for its end.
    pub fn start_pass(&mut self) -> io::Result<()> {
        let live = self.program()?.live(&self.args(&["sync", "--once"]))?;
        self.live = Some(live);
        Ok(())
    }

    /// What went wrong if the session ended by itself.
    pub fn is_alive(&mut self) -> io::Result<bool> {
        self.live.as_mut().map_or(Ok(false), Live::is_alive)
    }

    /// What the session said.
    pub fn said(&self) -> io::Result<String> {
        self.live.as_ref().map_or(Ok(String::new()), Live::said)
    }

    /// The power is cut for whoever looks at the copies; the session goes on. The caches of some disks were written
    /// just before, those of others were not.
    pub fn cut(&mut self, ground: &Ground, prng: &mut Prng) -> io::Result<Cut> {
        let begun = Instant::now();
        if let Some(live) = &mut self.live
            && live.is_alive()?
        {
            live.freeze()?;
        }
        let mut files = Vec::new();
        let mut how = String::new();
        for disk in &self.disks {
            let flushed = prng.chance(1, 4);
            if flushed {
                syncfs(File::open(disk.at())?)?;
            }
            let file = ground.cut(disk.file(), prng)?;
            how += if flushed { " flushed" } else { " cut" };
            files.push(file);
        }
        let when = (begun, Instant::now());
        if let Some(live) = &mut self.live
            && live.is_alive()?
        {
            live.go_on()?;
        }
        Ok(Cut { files, when, how })
    }

    /// What is on the disks now.
    pub fn look(&self) -> io::Result<Vec<Disk>> {
        self.roots().iter().map(|root| Disk::read(root)).collect()
    }

    /// What a program that does nothing leaves alone.
    pub fn audit(&self) -> io::Result<Vec<impl PartialEq + use<>>> {
        self.roots().iter().map(|root| audit(root)).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.power_off());
    }
}
