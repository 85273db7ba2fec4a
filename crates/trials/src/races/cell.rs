//! One cell of the matrix: so many calls of one kind, while one part is exchanged in one way by one user.
//!
//! Owns the counting. Invariant: calls are counted, not timed, and what is outside is looked at after each cell.

use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use super::Part;
use super::attacker::{Flip, signals};
use super::ground::Ground;
use super::operation::{Call, Came};

/// What happens in a cell.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    /// What is exchanged.
    pub part: Part,
    /// For what.
    pub flip: Flip,
    /// By whom, if by another user.
    pub user: Option<u32>,
    /// The name in the last directory that the calls are about.
    pub name: &'static str,
    /// How many calls.
    pub times: u64,
    /// When exchanges happen.
    pub seed: u64,
}

/// How it went.
#[derive(Debug, Clone, Default)]
pub struct Count {
    /// Calls.
    pub tried: u64,
    /// Calls that did what they were to do.
    pub done: u64,
    /// Exchanges.
    pub flips: u64,
    /// How often everything had to be made anew.
    pub renewed: u64,
    /// What left the root or came into it.
    pub escapes: Vec<String>,
}

impl Count {
    /// Both together.
    pub fn add(&mut self, other: Self) {
        self.tried += other.tried;
        self.done += other.done;
        self.flips += other.flips;
        self.renewed += other.renewed;
        self.escapes.extend(other.escapes);
    }
}

/// Grounds, one after another: one that cannot be put right is left behind.
#[derive(Debug)]
pub struct Grounds {
    at: PathBuf,
    made: u64,
    ground: Option<Ground>,
}

impl Grounds {
    /// In a directory of a disk.
    pub fn new(at: &Path) -> Self {
        Self {
            at: at.to_owned(),
            made: 0,
            ground: None,
        }
    }

    /// One that is in order.
    pub fn ground(&mut self) -> io::Result<&mut Ground> {
        if self.ground.is_none() {
            self.made += 1;
            let place = self.at.join(self.made.to_string());
            std::fs::create_dir(&place)?;
            self.ground = Some(Ground::new(&place)?);
        }
        self.ground
            .as_mut()
            .ok_or_else(|| io::Error::other("no ground"))
    }

    /// Leaves it behind, with everything in it.
    pub fn leave(&mut self) -> io::Result<()> {
        self.ground = None;
        std::fs::remove_dir_all(self.at.join(self.made.to_string()))
    }

    /// Goes through a cell; `prepare` makes what each call needs.
    pub fn play(
        &mut self,
        cell: Cell,
        prepare: &dyn Fn(&mut Ground) -> io::Result<Call>,
    ) -> io::Result<Count> {
        let mut count = Count::default();
        while count.tried < cell.times {
            let ground = self.ground()?;
            let played = play(ground, cell, prepare, &mut count);
            count.escapes.extend(ground.escapes()?);
            if let Err(e) = played {
                if count.renewed > cell.times {
                    return Err(e);
                }
                count.renewed += 1;
                self.leave()?;
            }
        }
        Ok(count)
    }
}

/// Until all calls were made, or the ground cannot be put right.
fn play(
    ground: &mut Ground,
    cell: Cell,
    prepare: &dyn Fn(&mut Ground) -> io::Result<Call>,
    count: &mut Count,
) -> io::Result<()> {
    let attacker = ground.attacker(cell.part, cell.name, cell.user)?;
    let leads_to = ground.canary.top().join(cell.part.path(cell.name));
    let is_dir = cell.part != Part::Last || ["sub", "old"].contains(&cell.name);
    let (signals, told) = signals();
    thread::scope(|scope| {
        let attacker = &attacker;
        scope.spawn(move || attacker.run(cell.flip, &told, cell.seed));
        let mut calls = || -> io::Result<()> {
            ground.empty_trash()?;
            while count.tried < cell.times {
                ground.put_right(attacker)?;
                let call = prepare(ground)?;
                attacker.arm(&leads_to, is_dir)?;
                let came = signals.during(|| call.make(ground))??;
                count.tried += 1;
                count.done += u64::from(came == Came::Done);
                if let Came::Led(to) = came {
                    count.escapes.push(to);
                }
            }
            ground.put_right(attacker)
        };
        let done = calls();
        count.flips += signals.flips();
        drop(signals);
        done
    })
}
