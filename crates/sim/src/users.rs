//! What people and their programs do to a tree, chosen by the seed, with the ledger kept.
//!
//! Acts between two calls of the engine, by path. Never looks at anything but the tree.

use std::collections::{BTreeSet, VecDeque};

use instep_core::path::RelPath;
use instep_core::time::Mtime;
use instep_fs::sim::{Save, SimFs, UserFd};
use instep_testkit::prng::Prng;

use crate::counts::Counts;
use crate::ledger::{Ledger, seen};

/// Few names, so that users meet.
const PATHS: [&str; 12] = [
    "a", "b", "c.txt", "d", "d/a", "d/b", "d/e", "d/e/a", "f", "f/a", "f/e", "f/e/b",
];
const DIRS: [&str; 6] = ["d", "d/e", "f", "f/e", "d/e/g", "h"];

/// A program that takes its time to save.
#[derive(Debug)]
struct Slow {
    machine: usize,
    fd: UserFd,
    path: String,
    content: Vec<u8>,
}

/// One step of a program that does several things in a row; anything may happen between two.
#[derive(Debug)]
enum Step {
    Rename(String, String),
    Save(String),
    Remove(String),
    Mkdir(String),
}

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
            ledger.allows(&slow.content[..slow.content.len() / 2]);
        }
    }

    /// Everybody makes a backup: what is half written now may be there again once it is restored.
    pub(crate) fn backed_up(&self, ledger: &mut Ledger) {
        for slow in &self.slow {
            ledger.allows(&slow.content[..slow.content.len() / 2]);
        }
    }

    /// Programs that are saving finish.
    pub(crate) fn finish(&mut self, disks: &[SimFs], ledger: &mut Ledger) {
        while !self.slow.is_empty() {
            self.close(disks, ledger);
        }
    }

    fn close(&mut self, disks: &[SimFs], ledger: &mut Ledger) -> Option<String> {
        let slow = self.slow.pop()?;
        let fs = &disks[slow.machine];
        let before = seen(fs);
        let half = slow.content.len() / 2;
        self.unsynced.resize(disks.len(), false);
        self.unsynced[slow.machine] = true;
        let wrote = fs.user_write(&slow.fd, half as u64, &slow.content[half..]);
        if wrote.is_err() {
            // The disk takes no changes: what is there is all that there will be.
            ledger.allows(&slow.content[..half]);
        }
        let closed = fs.user_close(slow.fd);
        // Where it was taken away meanwhile, it was completed in our hands.
        ledger.allows(&slow.content);
        // A file that somebody unlinked meanwhile is nobody's; one that somebody else wrote too is as it is.
        let after = seen(fs);
        let old: BTreeSet<&Vec<u8>> = before.values().collect();
        for content in after.values().filter(|c| !old.contains(c)) {
            ledger.wrote(slow.path.as_bytes(), content, false);
        }
        ledger.acted(slow.machine, &before, &after, &[]);
        Some(format!(
            "{}: close {} {:?}",
            slow.machine,
            slow.path,
            closed.is_ok()
        ))
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
            && let Some(done) = self.close(disks, ledger)
        {
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
        let mut handled = Vec::new();
        let mut touch = |path: &str| {
            if let Ok(top) = RelPath::new(path.as_bytes()) {
                handled.extend(
                    before
                        .iter()
                        .filter(|(p, _)| p.is_within(&top))
                        .map(|(_, c)| c.clone()),
                );
            }
        };
        let (path, dir) = (PATHS[rng.below(PATHS.len())], DIRS[rng.below(DIRS.len())]);
        let chosen = if next.is_some() { 100 } else { rng.below(100) };
        let what = match chosen {
            100 => match next.map(|(_, step)| step) {
                Some(Step::Rename(from, to)) => {
                    touch(&from);
                    format!(
                        "script: rename {from} {to} {}",
                        fs.rename(&from, &to).is_ok()
                    )
                }
                Some(Step::Save(path)) => format!("script: {}", Self::save(fs, &path, ledger, rng)),
                Some(Step::Remove(path)) => {
                    format!("script: remove {path} {}", fs.remove_all(&path).is_ok())
                }
                Some(Step::Mkdir(path)) => {
                    format!("script: mkdir {path} {}", fs.mkdir_all(&path).is_ok())
                }
                None => String::new(),
            },
            0..3 => self.begin_script(machine, path, dir, rng),
            3..34 => Self::save(fs, path, ledger, rng),
            34..42 => format!("mkdir {dir} {}", fs.mkdir_all(dir).is_ok()),
            42..56 => {
                let other = PATHS[rng.below(PATHS.len())];
                let other = if rng.chance(1, 4) {
                    DIRS[rng.below(DIRS.len())]
                } else {
                    other
                };
                let from = if rng.chance(1, 3) { dir } else { path };
                touch(from);
                format!("rename {from} {other} {}", fs.rename(from, other).is_ok())
            }
            56..66 => format!("remove {path} {}", fs.remove(path).is_ok()),
            66..72 => format!("remove all {dir} {}", fs.remove_all(dir).is_ok()),
            72..78 => {
                touch(path);
                let mode = [0o600, 0o644, 0o755, 0o700][rng.below(4)];
                let mode = if DIRS.contains(&path) {
                    mode | 0o700
                } else {
                    mode
                };
                format!("chmod {path} {mode:o} {}", fs.chmod(path, mode).is_ok())
            }
            78..83 => format!(
                "link {path} {}",
                fs.symlink(["a", "x", "no/such"][rng.below(3)], path)
                    .is_ok()
            ),
            83..90 => Self::change_kind(fs, path, ledger, rng),
            90..93 => {
                touch(path);
                let mtime = Mtime {
                    secs: 1_700_000_000 + rng.below(5) as i64,
                    nanos: 0,
                };
                format!("touch {path} {}", fs.touch(path, mtime).is_ok())
            }
            93..96 => {
                let other = PATHS[rng.below(PATHS.len())];
                touch(path);
                touch(other);
                format!("swap {path} {other} {}", fs.swap(path, other).is_ok())
            }
            _ => self.open(machine, fs, path, ledger, rng),
        };
        let after = seen(fs);
        counts.effects += u64::from(before != after);
        ledger.acted(machine, &before, &after, &handled);
        if sync {
            fs.settle();
            ledger.all_durable(fs);
            self.unsynced[machine] = false;
        }
        format!("{machine}: {what}")
    }

    /// What editors and build programs do in several steps: set the old file aside and write a new one, set a
    /// directory aside and fill a new one, make a directory anew.
    fn begin_script(&mut self, machine: usize, path: &str, dir: &str, rng: &mut Prng) -> String {
        let own = str::to_owned;
        let aside = format!("{path}.bak");
        let (name, steps) = match rng.below(3) {
            0 => (
                "editor",
                vec![
                    Step::Rename(own(path), aside.clone()),
                    Step::Save(own(path)),
                    Step::Remove(aside),
                ],
            ),
            1 => (
                "rotate",
                vec![
                    Step::Remove(own("h")),
                    Step::Rename(own(dir), own("h")),
                    Step::Mkdir(own(dir)),
                    Step::Save(format!("{dir}/a")),
                ],
            ),
            _ => (
                "rebuild",
                vec![
                    Step::Remove(own(dir)),
                    Step::Mkdir(own(dir)),
                    Step::Save(format!("{dir}/b")),
                ],
            ),
        };
        self.scripts.extend(steps.into_iter().map(|s| (machine, s)));
        format!("begins {name} at {path}, {dir}")
    }

    fn save(fs: &SimFs, path: &str, ledger: &mut Ledger, rng: &mut Prng) -> String {
        if let Some((parent, _)) = path.rsplit_once('/')
            && rng.chance(2, 3)
        {
            let _exists = fs.mkdir_all(parent);
        }
        let how = if rng.chance(1, 2) {
            Save::InPlace
        } else {
            Save::ByRename
        };
        let content = match rng.below(10) {
            0 => format!("shared {}", rng.below(2)).into_bytes(),
            1 => ledger.content(3000),
            _ => ledger.content(12 + rng.below(60)),
        };
        let old = fs.read(path).ok();
        let saved = fs.write_file(path, &content, how).is_ok();
        if saved && !content.starts_with(b"shared ") {
            ledger.wrote(path.as_bytes(), &content, false);
        }
        if let Some(old) = old.filter(|_| saved) {
            ledger.gives_up(&old);
        }
        format!(
            "save {path} {how:?} {} {saved}",
            crate::ledger::name(&content)
        )
    }

    fn change_kind(fs: &SimFs, path: &str, ledger: &mut Ledger, rng: &mut Prng) -> String {
        let gone = fs.remove_all(path).is_ok();
        let then = match rng.below(4) {
            0 | 1 => Self::save(fs, path, ledger, rng),
            2 => format!("mkdir {}", fs.mkdir_all(path).is_ok()),
            _ => format!("link {}", fs.symlink("a", path).is_ok()),
        };
        format!("replace {path} {gone} by {then}")
    }

    fn open(
        &mut self,
        machine: usize,
        fs: &SimFs,
        path: &str,
        ledger: &mut Ledger,
        rng: &mut Prng,
    ) -> String {
        let old = fs.read(path).ok();
        let content = ledger.content(20 + rng.below(40));
        let Ok(fd) = fs.user_open_write(path) else {
            return format!("open {path} false");
        };
        if let Some(old) = old {
            ledger.gives_up(&old);
        }
        let _half = fs
            .user_truncate(&fd, 0)
            .and_then(|()| fs.user_write(&fd, 0, &content[..content.len() / 2]));
        let mut leases = true;
        fs.configure(|c| leases = c.leases);
        if !leases || self.weak {
            // Nothing tells that somebody is still writing: what is there may be taken for complete.
            ledger.allows(&content[..content.len() / 2]);
        }
        let what = format!("open {path} {}", crate::ledger::name(&content));
        self.slow.push(Slow {
            machine,
            fd,
            path: path.to_owned(),
            content,
        });
        what
    }
}
