//! One step of one user's program, done, with what the ledger must know of it.

use std::collections::BTreeSet;

use instep_core::path::RelPath;
use instep_core::time::Mtime;
use instep_fs::sim::{Save, SimFs, UserFd};
use instep_testkit::prng::Prng;

use super::scripts::Step;
use crate::ledger::{Ledger, Seen, name, seen};

/// A program that takes its time to save.
#[derive(Debug)]
pub(super) struct Slow {
    pub(super) machine: usize,
    fd: UserFd,
    path: String,
    content: Vec<u8>,
    /// What the file holds until it closes it.
    pub(super) half: Vec<u8>,
    /// Acts of users before it closes the file.
    pub(super) patience: u32,
}

/// A user at work on one machine.
pub(super) struct Hands<'a> {
    pub(super) machine: usize,
    pub(super) fs: &'a SimFs,
    pub(super) before: &'a Seen,
    /// Contents that were moved or dressed, and not written.
    pub(super) handled: Vec<Vec<u8>>,
    pub(super) slow: &'a mut Vec<Slow>,
    pub(super) weak: bool,
    /// A file got a second name.
    pub(super) linked: &'a mut bool,
    pub(super) ledger: &'a mut Ledger,
    pub(super) rng: &'a mut Prng,
}

impl Hands<'_> {
    /// Does a step; says what it was and whether it worked.
    pub(super) fn perform(&mut self, step: Step) -> String {
        let fs = self.fs;
        match step {
            Step::Save(path, how) => self.save(&path, how),
            Step::Append(path) => self.append(&path),
            Step::Copy(from, to) => self.copy(&from, &to),
            Step::Rename(from, to) => {
                self.touch(&from);
                format!("rename {from} {to} {}", fs.rename(&from, &to).is_ok())
            }
            Step::Swap(one, other) => {
                self.touch(&one);
                self.touch(&other);
                format!("swap {one} {other} {}", fs.swap(&one, &other).is_ok())
            }
            Step::Remove(path) => format!("remove {path} {}", fs.remove(&path).is_ok()),
            Step::RemoveAll(path) => format!("remove all {path} {}", fs.remove_all(&path).is_ok()),
            Step::Mkdir(path) => format!("mkdir {path} {}", fs.mkdir_all(&path).is_ok()),
            Step::HardLink(from, to) => {
                self.touch(&from);
                let linked = fs.hard_link(&from, &to).is_ok();
                *self.linked |= linked;
                format!("hard link {from} {to} {linked}")
            }
            Step::Symlink(target, path) => {
                format!("link {path} {}", fs.symlink(target, &path).is_ok())
            }
            Step::Chmod(path, mode) => {
                self.touch(&path);
                format!("chmod {path} {mode:o} {}", fs.chmod(&path, mode).is_ok())
            }
            Step::Touch(path, secs) => {
                self.touch(&path);
                let mtime = Mtime { secs, nanos: 0 };
                format!("touch {path} {}", fs.touch(&path, mtime).is_ok())
            }
            Step::Open(path, patience) => self.open(&path, patience),
            Step::Map(path, patience) => self.map(&path, patience),
        }
    }

    /// What is at a path and below it is this user's concern from now on.
    fn touch(&mut self, path: &str) {
        if let Ok(top) = RelPath::new(path.as_bytes()) {
            let within = self.before.iter().filter(|(p, _)| p.is_within(&top));
            self.handled.extend(within.map(|(_, c)| c.clone()));
        }
    }

    /// Writes a file in one go; what it held is given up.
    fn put(&mut self, path: &str, content: &[u8], how: Save) -> bool {
        let old = self.fs.read(path).ok();
        let saved = self.fs.write_file(path, content, how).is_ok();
        if saved && !content.starts_with(b"shared ") {
            self.ledger.wrote(path.as_bytes(), content);
        }
        if let Some(old) = old.filter(|_| saved) {
            self.ledger.gives_up(&old);
        }
        saved
    }

    fn save(&mut self, path: &str, how: Save) -> String {
        if let Some((parent, _)) = path.rsplit_once('/')
            && self.rng.chance(2, 3)
        {
            let _exists = self.fs.mkdir_all(parent);
        }
        let content = match self.rng.below(10) {
            0 => format!("shared {}", self.rng.below(2)).into_bytes(),
            1 => self.ledger.content(3000),
            _ => self.ledger.content(12 + self.rng.below(60)),
        };
        let saved = self.put(path, &content, how);
        format!("save {path} {how:?} {} {saved}", name(&content))
    }

    fn append(&mut self, path: &str) -> String {
        let mut content = self.fs.read(path).unwrap_or_default();
        // A log that is not cut now and then grows without end.
        content.truncate(2000);
        content.extend(self.ledger.content(13));
        let saved = self.put(path, &content, Save::InPlace);
        format!("append to {path}, now {} bytes, {saved}", content.len())
    }

    fn copy(&mut self, from: &str, to: &str) -> String {
        let Ok(content) = self.fs.read(from) else {
            return format!("copy {from} {to} false");
        };
        self.touch(from);
        let old = self.fs.read(to).ok();
        let copied = self.fs.write_file(to, &content, Save::InPlace).is_ok();
        if copied && self.slow.iter().any(|s| s.half == content) {
            // What a program has not finished writing is a finished file where another copied it to.
            self.ledger.allows(&content);
        }
        if let Some(old) = old.filter(|_| copied) {
            self.ledger.gives_up(&old);
        }
        format!("copy {from} {to} {copied}")
    }

    fn has_leases(&self) -> bool {
        let mut leases = true;
        self.fs.configure(|c| leases = c.leases);
        leases && !self.weak
    }

    fn open(&mut self, path: &str, patience: u32) -> String {
        let old = self.fs.read(path).ok();
        let content = self.ledger.content(20 + self.rng.below(40));
        let Ok(fd) = self.fs.user_open_write(path) else {
            return format!("open {path} false");
        };
        if let Some(old) = old {
            self.ledger.gives_up(&old);
        }
        let half = content[..content.len() / 2].to_vec();
        let cut = self.fs.user_truncate(&fd, 0);
        let _half = cut.and_then(|()| self.fs.user_write(&fd, 0, &half));
        if !self.has_leases() {
            // Nothing tells that somebody is still writing: what is there may be taken for complete.
            self.ledger.allows(&half);
        }
        let what = format!("open {path} {}", name(&content));
        self.slow.push(Slow {
            machine: self.machine,
            fd,
            path: path.to_owned(),
            content,
            half,
            patience,
        });
        what
    }

    /// Without a lease nothing at all would tell of the second store, and the file would be as its time says.
    fn map(&mut self, path: &str, patience: u32) -> String {
        let Some(old) = self.fs.read(path).ok().filter(|_| self.has_leases()) else {
            return format!("map {path} false");
        };
        let content = self.ledger.content(old.len());
        if content.len() != old.len() {
            return format!("map {path} false");
        }
        let Ok(fd) = self.fs.user_map(path) else {
            return format!("map {path} false");
        };
        self.ledger.gives_up(&old);
        let at = content.len() / 2;
        let mut half = old;
        half[..at].copy_from_slice(&content[..at]);
        let _half = self.fs.user_write(&fd, 0, &content[..at]);
        let what = format!("map {path} {}", name(&content));
        self.slow.push(Slow {
            machine: self.machine,
            fd,
            path: path.to_owned(),
            content,
            half,
            patience,
        });
        what
    }
}

/// All contents on a machine, ours too.
fn contents(fs: &SimFs) -> BTreeSet<Vec<u8>> {
    fs.snapshot().into_values().map(|n| n.content).collect()
}

/// A program writes the rest and closes its file.
pub(super) fn close(slow: Slow, fs: &SimFs, ledger: &mut Ledger) -> String {
    let (before, all_before) = (seen(fs), contents(fs));
    let half = slow.content.len() / 2;
    let wrote = fs.user_write(&slow.fd, half as u64, &slow.content[half..]);
    if wrote.is_err() {
        // The disk takes no changes: what is there is all that there will be.
        ledger.allows(&slow.half);
    }
    let closed = fs.user_close(slow.fd);
    // Where it was taken away meanwhile, it was completed in our hands.
    ledger.allows(&slow.content);
    // We may have set the file aside with what somebody saved there since: the writer overwrites that, too.
    let all_after = contents(fs);
    all_before
        .difference(&all_after)
        .for_each(|c| ledger.gives_up(c));
    all_after
        .difference(&all_before)
        .for_each(|c| ledger.allows(c));
    // A file that somebody unlinked meanwhile is nobody's; one that somebody else wrote too is as it is.
    let after = seen(fs);
    let old: BTreeSet<&Vec<u8>> = before.values().collect();
    for content in after.values().filter(|c| !old.contains(c)) {
        ledger.wrote(slow.path.as_bytes(), content);
    }
    ledger.acted(slow.machine, &before, &after, &[]);
    format!("{}: close {} {}", slow.machine, slow.path, closed.is_ok())
}

/// A person clears away the locks of programs that died.
pub(super) fn unlock(machine: usize, fs: &SimFs, ledger: &mut Ledger) {
    let before = seen(fs);
    let is_lock = |p: &RelPath| p.to_string().contains(".~lock.");
    let locks: Vec<&RelPath> = before.keys().filter(|p| is_lock(p)).collect();
    if locks.is_empty() {
        return;
    }
    for lock in locks {
        let _gone = fs.remove(lock.as_bytes());
    }
    ledger.acted(machine, &before, &seen(fs), &[]);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

    use instep_fs::sim::SimConfig;

    use super::*;

    #[test]
    fn a_copy_of_a_file_that_is_half_written_counts_as_bytes_that_nobody_wrote() {
        let fs = SimFs::new(SimConfig::ext4(1));
        fs.write_file("a", b"invented", Save::InPlace).unwrap();
        fs.write_file("b", b"old", Save::InPlace).unwrap();
        let (mut ledger, mut rng) = (Ledger::default(), Prng::new(1));
        let (mut slow, mut linked) = (Vec::new(), false);
        let mut hands = Hands {
            machine: 0,
            fs: &fs,
            before: &seen(&fs),
            handled: Vec::new(),
            slow: &mut slow,
            weak: false,
            linked: &mut linked,
            ledger: &mut ledger,
            rng: &mut rng,
        };
        hands.perform(Step::Open("b".into(), 1));
        hands.perform(Step::Copy("a".into(), "c".into()));
        let half = fs.read("b").unwrap();
        assert!(!hands.ledger.is_known(&half), "only its writer has it");
        hands.perform(Step::Copy("b".into(), "d".into()));
        assert_eq!(fs.read("d").unwrap(), half);
        assert!(hands.ledger.is_known(&half));
        assert!(!hands.ledger.is_known(&fs.read("c").unwrap()));
    }
}
