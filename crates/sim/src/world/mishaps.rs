//! What happens to a root while no process runs: it is restored, copied, or loses what is ours.

use instep_fs::Kind;
use instep_fs::sim::{Save, SimFs};
use instep_store::MemoryDisk;

use super::machines::make_ours;
use super::{State, World, finish};
use crate::faults::Mishap;
use crate::ledger::{Seen, is_ours, seen};

impl World {
    /// Everybody makes a backup.
    pub(crate) fn back_up(&self) {
        let mut state = self.state();
        state.disks.iter().for_each(SimFs::settle);
        state.backups = state.disks.iter().map(|fs| fs.image(1)).collect();
        let State {
            users,
            ledger,
            backups,
            ..
        } = &mut *state;
        users.backed_up(backups, ledger);
    }

    /// Something happens to a root while nobody runs. What only it had is given up.
    pub(crate) fn befall(&self, machine: usize, what: Mishap) {
        let mut state = self.state();
        self.set_clocks(&state);
        finish(&mut state);
        let line = format!("          {what:?} befalls {machine}");
        state.trace.push(line);
        let from = (machine + 1) % state.disks.len();
        let new_disk = match what {
            Mishap::IndexLost => None,
            Mishap::Restored => state.backups.get(machine).map(|b| b.image(2)),
            Mishap::StateDeleted => {
                let gone = state.disks[machine].remove_all(instep_core::path::RESERVED);
                gone.expect("nobody uses it");
                make_ours(&state.disks[machine]);
                None
            }
            Mishap::Copied => {
                let mut config = None;
                state.disks[machine].configure(|c| config = Some(c.clone()));
                let fs = SimFs::new(config.expect("it was called"));
                fs.set_now(self.wall_ns(machine));
                make_ours(&fs);
                copy(&state.disks[from], &fs);
                Some(fs)
            }
        };
        state.counts.strike("mishap");
        if let Some(fs) = new_disk {
            fs.set_now(self.wall_ns(machine));
            fs.settle();
            let old = std::mem::replace(&mut state.disks[machine], fs);
            state.counts.collect(&old);
        }
        state.indexes[machine] = MemoryDisk::new();
        state.last_tag += 1;
        let tag = state.last_tag;
        let who = &mut state.identities[machine];
        who.actor = tag;
        who.follows = what == Mishap::StateDeleted;
        who.rejoins = !who.follows;
        if matches!(what, Mishap::StateDeleted | Mishap::Copied) {
            who.id = tag;
        }
        state.forgetful = true;
        let State {
            disks,
            identities,
            ledger,
            dark,
            ..
        } = &mut *state;
        if *dark {
            // With the index went the only one who could tell what a power cut had torn.
            ledger.allow_changed(&Seen::new(), &seen(&disks[machine]));
        }
        ledger.befell(machine, disks);
        if what == Mishap::Copied && !identities[from].joined {
            ledger.copied([machine, from], &seen(&disks[machine]));
        }
    }

    /// Everybody has learnt everything.
    pub(crate) fn remembers(&self) {
        self.state().forgetful = false;
    }
}

/// As `cp -a` does it.
fn copy(from: &SimFs, to: &SimFs) {
    let nodes = from.snapshot();
    let users = nodes.iter().filter(|(p, _)| !is_ours(p));
    for (path, node) in users {
        let path = path.as_bytes();
        let made = match node.kind {
            Kind::Dir => to.mkdir_all(path),
            Kind::Link => to.symlink(&node.target, path),
            Kind::File | Kind::Special => to.write_file(path, &node.content, Save::InPlace),
        };
        let dressed = made.and_then(|()| match node.kind {
            Kind::Link => Ok(()),
            _ => to.chmod(path, node.mode),
        });
        let dressed = dressed.and_then(|()| match node.kind {
            Kind::Dir => Ok(()),
            _ => to.touch(path, node.mtime),
        });
        dressed.expect("nothing fails while nobody runs");
    }
}
