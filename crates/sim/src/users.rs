//! What people and their programs do to a tree, chosen by the seed, with the ledger kept.
//!
//! Acts between two calls of the engine, by path. Never looks at anything but the tree.

mod hands;
mod scripts;

use std::collections::VecDeque;

use instep_fs::sim::{Save, SimFs};
use instep_testkit::prng::Prng;

use crate::counts::Counts;
use crate::ledger::{Ledger, Seen, seen};
use hands::Slow;
use scripts::{Step, Target};

/// Few names, so that users meet.
const PATHS: [&str; 12] = [
    "a", "b", "c.txt", "d", "d/a", "d/b", "d/e", "d/e/a", "f", "f/a", "f/e", "f/e/b",
];
const DIRS: [&str; 6] = ["d", "d/e", "f", "f/e", "d/e/g", "h"];

/// All users of one seed.
#[derive(Debug, Default)]
pub(crate) struct Users {
    /// What programs on machines still have to do.
    scripts: VecDeque<(usize, Step)>,
    slow: Vec<Slow>,
    /// On this machine something was written that no sync followed.
    pub(crate) unsynced: Vec<bool>,
    /// Leases may fail, so that nothing tells that somebody is writing.
    weak: bool,
    /// Some file got a second name in this session.
    pub(crate) linked: bool,
}

impl Users {
    /// Users of machines whose leases may fail, or not.
    pub(crate) fn new(weak: bool) -> Self {
        Self {
            weak,
            ..Self::default()
        }
    }

    /// Nobody has a file open any more: the machines were switched off.
    pub(crate) fn forget(&mut self, ledger: &mut Ledger) {
        self.scripts.clear();
        for slow in self.slow.drain(..) {
            ledger.allows(&slow.half);
        }
    }

    /// Everybody makes a backup: what is there now, written or half written, may be there again once it is restored.
    pub(crate) fn backed_up(&self, backups: &[SimFs], ledger: &mut Ledger) {
        for slow in &self.slow {
            ledger.allows(&slow.half);
        }
        ledger.backed_up(backups);
    }

    /// Programs that are saving finish, and nobody leaves a lock behind: what it guards would wait.
    pub(crate) fn finish(&mut self, disks: &[SimFs], ledger: &mut Ledger) {
        while let Some(slow) = self.slow.pop() {
            self.close(slow, disks, ledger);
        }
        for (machine, fs) in disks.iter().enumerate() {
            hands::unlock(machine, fs, ledger);
        }
    }

    fn close(&mut self, slow: Slow, disks: &[SimFs], ledger: &mut Ledger) -> String {
        let machine = slow.machine;
        self.unsynced.resize(disks.len(), false);
        self.unsynced[machine] = true;
        hands::close(slow, &disks[machine], ledger)
    }

    /// A program that has had its file open for long enough closes it.
    fn close_one(&mut self, disks: &[SimFs], ledger: &mut Ledger) -> Option<String> {
        self.slow
            .iter_mut()
            .for_each(|s| s.patience = s.patience.saturating_sub(1));
        let due = self.slow.iter().rposition(|s| s.patience == 0)?;
        let slow = self.slow.remove(due);
        Some(self.close(slow, disks, ledger))
    }

    /// One operation of one user. Returns what it was.
    pub(crate) fn act(
        &mut self,
        disks: &[SimFs],
        sync: bool,
        ledger: &mut Ledger,
        counts: &mut Counts,
        rng: &mut Prng,
    ) -> String {
        counts.acts += 1;
        if !self.slow.is_empty()
            && rng.chance(1, 2)
            && let Some(done) = self.close_one(disks, ledger)
        {
            counts.effects += 1;
            return done;
        }
        let next = (!self.scripts.is_empty() && rng.chance(2, 3)).then(|| self.scripts.pop_front());
        let next = next.flatten();
        let machine = next
            .as_ref()
            .map_or_else(|| rng.below(disks.len()), |n| n.0);
        let fs = &disks[machine];
        let before = seen(fs);
        self.unsynced.resize(disks.len(), false);
        self.unsynced[machine] = true;
        let (what, handled) = self.work((machine, fs), next.map(|n| n.1), &before, ledger, rng);
        let after = seen(fs);
        counts.effects += u64::from(before != after);
        ledger.acted(machine, &before, &after, &handled);
        if sync {
            fs.settle();
            // What an earlier sync failed to write is clean by now, and no later one brings it to the disk.
            let on_disk = fs.image(0);
            ledger.all_durable(machine, &on_disk, disks);
            self.unsynced[machine] = seen(&on_disk) != after;
        }
        format!("{machine}: {what}")
    }
}

impl Users {
    /// Does the next step of a script, or something else. Returns what it was, and the contents that were moved
    /// or dressed.
    fn work(
        &mut self,
        (machine, fs): (usize, &SimFs),
        next: Option<Step>,
        before: &Seen,
        ledger: &mut Ledger,
        rng: &mut Prng,
    ) -> (String, Vec<Vec<u8>>) {
        let mut hands = hands::Hands {
            machine,
            fs,
            before,
            handled: Vec::new(),
            slow: &mut self.slow,
            weak: self.weak,
            linked: &mut self.linked,
            ledger,
            rng,
        };
        if let Some(step) = next {
            return (format!("script: {}", hands.perform(step)), hands.handled);
        }
        match choose(before, hands.rng) {
            Choice::One(steps) => {
                let done: Vec<String> = steps.into_iter().map(|s| hands.perform(s)).collect();
                (done.join(", "), hands.handled)
            }
            Choice::Script(name, steps) => {
                // Nothing is done yet: the first step is an act of its own.
                let what = format!("begins {name}: {:?}", steps.first());
                self.scripts.extend(steps.into_iter().map(|s| (machine, s)));
                (what, Vec::new())
            }
        }
    }
}

/// What a user does next.
enum Choice {
    /// At once, all of it.
    One(Vec<Step>),
    /// Step by step.
    Script(&'static str, Vec<Step>),
}

/// A path: more often than not one where something is.
fn a_path(before: &Seen, rng: &mut Prng) -> String {
    if !before.is_empty() && rng.chance(3, 5) {
        let at = rng.below(before.len());
        if let Some(path) = before.keys().nth(at) {
            let path = path.to_string();
            // What a person would not touch, and names that would grow without end.
            if !path.contains(".conflict-") && path.len() < 24 {
                return path;
            }
        }
    }
    PATHS[rng.below(PATHS.len())].to_owned()
}

fn choose(before: &Seen, rng: &mut Prng) -> Choice {
    let (path, other) = (a_path(before, rng), a_path(before, rng));
    let dir = DIRS[rng.below(DIRS.len())].to_owned();
    let how = if rng.chance(1, 2) {
        Save::InPlace
    } else {
        Save::ByRename
    };
    let step = match rng.below(100) {
        0..7 => {
            let target = Target {
                path: &path,
                other: &other,
                dir: &dir,
            };
            let (name, steps) = scripts::any(&target, rng);
            return Choice::Script(name, steps);
        }
        7..38 => Step::Save(path, how),
        38..44 => Step::Mkdir(dir),
        44..58 => {
            let from = if rng.chance(1, 3) { dir.clone() } else { path };
            let to = if rng.chance(1, 4) { dir } else { other };
            Step::Rename(from, to)
        }
        58..66 => Step::Remove(path),
        66..70 => Step::RemoveAll(dir),
        70..76 => {
            let mode = [0o600, 0o644, 0o755, 0o700][rng.below(4)];
            let is_dir = DIRS.contains(&path.as_str());
            Step::Chmod(path, if is_dir { mode | 0o700 } else { mode })
        }
        76..80 => Step::Symlink(["a", "x", "no/such"][rng.below(3)], path),
        80..87 => {
            let then = match rng.below(4) {
                0 | 1 => Step::Save(path.clone(), how),
                2 => Step::Mkdir(path.clone()),
                _ => Step::Symlink("a", path.clone()),
            };
            return Choice::One(vec![Step::RemoveAll(path), then]);
        }
        87..90 => Step::Touch(path, 1_700_000_000 + rng.below(5) as i64),
        90..92 => Step::Append(path),
        92..93 => Step::HardLink(path, other),
        93..96 => Step::Swap(path, other),
        _ => Step::Open(path, rng.below(3) as u32),
    };
    Choice::One(vec![step])
}
