//! Several trials at a time, because each of them waits for disks most of its time.
//!
//! Owns the threads and the grounds that they share. Invariant: each thread has mounts of its own, and with them boots
//! of its own; a trial that cannot go on, as one in which the program hangs, is a violation and stops no other.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Barrier, Mutex, PoisonError};
use std::thread;

use instep_testkit::scratch::Scratch;

use super::ground::{Ground, How};
use super::{Plan, Tally, trial};
use crate::namespace::own_mounts;

/// What a crew does.
#[derive(Debug, Clone)]
pub struct Orders {
    /// So many trials at a time.
    pub hands: usize,
    /// No trial begins after so many images.
    pub images: u64,
    /// Where cuts that went wrong are kept.
    pub keep: Option<PathBuf>,
}

/// One trial.
pub type Task = (u64, How, Plan);

/// The trials that are to do, and what was seen so far.
struct Board<T> {
    tasks: T,
    tally: Tally,
}

/// Works through the tasks, with all disks below a directory; `told` hears after each trial what it saw, and what all
/// did.
pub fn work<T: Iterator<Item = Task> + Send>(
    dir: &Path,
    orders: &Orders,
    tasks: T,
    told: impl Fn(u64, &Tally, &Tally) + Sync,
) -> io::Result<Tally> {
    let grounds = [How::Copies, How::Log].map(|how| Ground::new(dir, how));
    let [copies, log] = grounds;
    let (copies, log) = (copies?, log?);
    let board = Mutex::new(Board {
        tasks,
        tally: Tally::default(),
    });
    let all_alone = Barrier::new(orders.hands);
    let hand = || {
        let alone = own_mounts();
        // What is mounted before this would stay mounted for the others.
        all_alone.wait();
        alone?;
        while let Some((seed, how, plan)) = next(&board, orders.images) {
            let ground = match how {
                How::Copies => &copies,
                How::Log => &log,
            };
            let seen = one(dir, ground, seed, plan, orders);
            let mut board = board.lock().unwrap_or_else(PoisonError::into_inner);
            board.tally.add(seen.clone());
            told(seed, &seen, &board.tally);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let hands: Vec<_> = (0..orders.hands).map(|_| scope.spawn(hand)).collect();
        let panicked = |_| Err(io::Error::other("a trial panicked"));
        hands
            .into_iter()
            .try_for_each(|hand| hand.join().unwrap_or_else(panicked))
    })?;
    let board = board.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(board.tally)
}

fn next<T: Iterator<Item = Task>>(board: &Mutex<Board<T>>, images: u64) -> Option<Task> {
    let mut board = board.lock().unwrap_or_else(PoisonError::into_inner);
    if board.tally.all_images() >= images {
        return None;
    }
    board.tasks.next()
}

fn one(dir: &Path, ground: &Ground, seed: u64, plan: Plan, orders: &Orders) -> Tally {
    let done = Scratch::new_in(dir)
        .and_then(|scratch| trial(scratch.path(), ground, seed, plan, orders.keep.as_deref()));
    done.unwrap_or_else(|e| Tally {
        violations: vec![format!("seed{seed} ({:?}) did not end: {e}", ground.how())],
        ..Tally::default()
    })
}
