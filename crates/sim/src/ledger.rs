//! What users wrote, what they gave up, and what must therefore be found in the end.
//!
//! Contents are recognised whole: each save has bytes of its own. A content is given up when a user's
//! operation takes it away from the tree that this user sees; whatever else happens, it must be kept.

use std::collections::{BTreeMap, BTreeSet};

use instep_core::path::RelPath;
use instep_fs::Kind;
use instep_fs::sim::SimFs;

/// The files of one tree as its user sees them.
pub(crate) type Seen = BTreeMap<RelPath, Vec<u8>>;

/// Whether a path is ours and not the users'.
pub(crate) fn is_ours(path: &RelPath) -> bool {
    path.components()
        .next()
        .is_some_and(|n| n.as_bytes() == instep_core::path::RESERVED)
}

/// Whether a path is where contents wait to be shown.
pub(crate) fn is_staged(path: &RelPath) -> bool {
    path.as_bytes().starts_with(b".instep/staging/")
}

/// Whether a path is where superseded and deleted contents are.
pub(crate) fn is_trashed(path: &RelPath) -> bool {
    path.as_bytes().starts_with(b".instep/trash/")
}

/// Whether a path is where contents are that lost a conflict.
pub(crate) fn is_kept_version(path: &RelPath) -> bool {
    path.as_bytes().starts_with(b".instep/versions/")
}

/// The files in a tree, without ours.
pub(crate) fn seen(fs: &SimFs) -> Seen {
    let files = fs
        .snapshot()
        .into_iter()
        .filter(|(p, n)| n.kind == Kind::File && !is_ours(p));
    files.map(|(p, n)| (p, n.content)).collect()
}

/// One content.
#[derive(Debug, Clone, Default)]
struct Token {
    /// Where it was written, for messages.
    path: String,
    given_up: bool,
    /// Machines on whose disks it surely is.
    durable: BTreeSet<usize>,
    /// A process died since, while at most one machine showed this: its successor may have set that aside.
    survived: bool,
    /// More than one machine showed it when a process died: no recovery sets that aside everywhere.
    spread: bool,
    /// A user gave it another name, or wrote it under two at once, or a power cut took such a name back: it may have
    /// both elsewhere, and be given up under one here and under the other there.
    moved: bool,
    /// Users on these machines did something to it besides creating it.
    touched: BTreeSet<usize>,
}

impl Token {
    /// A save by rename wrote it here before it had the name it is for: others may know that name already.
    fn is_unnamed_at(&self, path: &RelPath) -> bool {
        path.as_bytes().ends_with(b".new~")
            && path.as_bytes().escape_ascii().to_string() != self.path
    }
}

/// What the users of one seed wrote.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    next: u64,
    tokens: BTreeMap<Vec<u8>, Token>,
    /// What a user took away from a place, and on which machine.
    dead: BTreeMap<(RelPath, Vec<u8>), usize>,
    /// What an unsynced write left behind after a power cut, or is in a backup; nobody can be blamed for it.
    torn: BTreeSet<Vec<u8>>,
}

impl Ledger {
    /// Bytes that nobody wrote before.
    pub(crate) fn content(&mut self, length: usize) -> Vec<u8> {
        self.next += 1;
        let mark = format!("token {:06};", self.next);
        let mut bytes = mark.clone().into_bytes();
        while bytes.len() < length {
            bytes.extend_from_slice(mark.as_bytes());
        }
        bytes
    }

    /// A user completed a save of this content.
    pub(crate) fn wrote(&mut self, path: &[u8], content: &[u8]) {
        let token = self.tokens.entry(content.to_vec()).or_default();
        token.path = path.escape_ascii().to_string();
    }

    /// A user on `machine` did something that turned one view of the tree into another.
    pub(crate) fn acted(
        &mut self,
        machine: usize,
        before: &Seen,
        after: &Seen,
        handled: &[Vec<u8>],
    ) {
        for content in handled {
            if let Some(token) = self.tokens.get_mut(content) {
                token.touched.insert(machine);
            }
        }
        let left: BTreeSet<&Vec<u8>> = after.values().collect();
        for (path, content) in before {
            if after.get(path) == Some(content) {
                continue;
            }
            self.dead.insert((path.clone(), content.clone()), machine);
            if let Some(token) = self.tokens.get_mut(content) {
                token.given_up |= !left.contains(content);
                token.touched.insert(machine);
            }
        }
        let were: BTreeSet<&Vec<u8>> = before.values().collect();
        let mut new = BTreeSet::new();
        for (path, content) in after {
            if before.get(path) == Some(content) {
                continue;
            }
            let is_second = !new.insert(content);
            self.dead.remove(&(path.clone(), content.clone()));
            if let Some(token) = self.tokens.get_mut(content) {
                token.moved |= is_second || were.contains(content);
            }
        }
    }

    /// Something happened to the root of `machine` that its user answers for: this is what is left everywhere. What a
    /// user had taken away may be there again. A disk that went away made nothing durable for the others.
    pub(crate) fn befell(&mut self, machine: usize, disks: &[SimFs]) {
        self.died(disks);
        let nodes = disks[machine].snapshot();
        let here: BTreeSet<Vec<u8>> = nodes.into_values().map(|n| n.content).collect();
        for (_, token) in self.tokens.iter_mut().filter(|(c, _)| !here.contains(*c)) {
            token.durable.remove(&machine);
        }
        // What a copy of a root shows twice was never brought by anybody.
        self.tokens.values_mut().for_each(|t| t.survived = true);
        let nodes = disks.iter().flat_map(SimFs::snapshot);
        // What somebody was only bringing may be dropped when nobody has it any more.
        let kept = nodes.filter(|(p, _)| !is_staged(p));
        let left: BTreeSet<Vec<u8>> = kept.map(|(_, n)| n.content).collect();
        for (content, token) in &mut self.tokens {
            token.given_up |= !left.contains(content);
        }
    }

    /// One of these machines has this from the other by a copy, and the other has yet to join: whatever one user does
    /// to it, the other has it as a change of its own.
    pub(crate) fn copied(&mut self, machines: [usize; 2], tree: &Seen) {
        for content in tree.values() {
            if let Some(token) = self.tokens.get_mut(content) {
                token.touched.extend(machines);
            }
        }
    }

    /// A user overwrites this content where it is, sooner or later.
    pub(crate) fn gives_up(&mut self, content: &[u8]) {
        if let Some(token) = self.tokens.get_mut(content) {
            token.given_up = true;
        }
    }

    /// This may be seen although nobody completed it.
    pub(crate) fn allows(&mut self, content: &[u8]) {
        self.torn.insert(content.to_vec());
    }

    /// A backup keeps what users wrote also when a power cut takes it from all disks.
    pub(crate) fn backed_up(&mut self, backups: &[SimFs]) {
        let nodes = backups.iter().flat_map(SimFs::snapshot);
        let written = nodes.filter(|(_, n)| self.tokens.contains_key(&n.content));
        let written: Vec<Vec<u8>> = written.map(|(_, n)| n.content).collect();
        self.torn.extend(written);
    }

    /// Whatever a user moved or changed may be seen where it is now.
    pub(crate) fn allow_changed(&mut self, before: &Seen, after: &Seen) {
        let changed = after.iter().filter(|(p, c)| before.get(*p) != Some(*c));
        let unknown = changed.filter(|(_, c)| !self.tokens.contains_key(*c));
        self.torn.extend(unknown.map(|(_, c)| c.clone()));
    }

    /// The process died: what it was doing to places that users emptied meanwhile may be done again.
    pub(crate) fn died(&mut self, disks: &[SimFs]) {
        self.dead.clear();
        let mut shown: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        for tree in disks.iter().map(seen) {
            let once: BTreeSet<Vec<u8>> = tree.into_values().collect();
            once.into_iter()
                .for_each(|c| *shown.entry(c).or_default() += 1);
        }
        for (content, token) in &mut self.tokens {
            token.spread |= shown.get(content).is_some_and(|machines| *machines > 1);
            token.survived |= !token.spread;
        }
    }

    /// Everything that users wrote, and that `machine` has, reached its disk, and this is what is on it. What it is
    /// only bringing from others (`disks`) is theirs until it is shown: it may be dropped at any time.
    pub(crate) fn all_durable(&mut self, machine: usize, on_disk: &SimFs, disks: &[SimFs]) {
        let nodes = on_disk.snapshot().into_iter();
        let written = nodes.filter(|(_, n)| self.tokens.contains_key(&n.content));
        let (staged, kept): (Vec<_>, Vec<_>) = written.partition(|(p, _)| is_staged(p));
        let mut durable: BTreeSet<Vec<u8>> = kept.into_iter().map(|(_, n)| n.content).collect();
        if !staged.is_empty() {
            let nodes = disks.iter().flat_map(SimFs::snapshot);
            let elsewhere = nodes.filter(|(p, _)| !is_staged(p));
            let elsewhere: BTreeSet<Vec<u8>> = elsewhere.map(|(_, n)| n.content).collect();
            // What was displaced there may be the only one.
            let staged = staged.into_iter().map(|(_, n)| n.content);
            durable.extend(staged.filter(|c| !elsewhere.contains(c)));
        }
        for content in durable {
            if let Some(token) = self.tokens.get_mut(&content) {
                token.durable.insert(machine);
            }
        }
    }

    /// The power was cut, and this is what is left. A save that nobody had synced may be gone.
    pub(crate) fn power_cut(&mut self, disks: &[SimFs], unsynced: &[bool]) {
        // What several machines showed, it may have taken from all but one.
        self.tokens.values_mut().for_each(|t| t.spread = false);
        self.died(disks);
        let mut left = BTreeSet::new();
        for (fs, unsynced) in disks.iter().zip(unsynced) {
            for (path, node) in fs.snapshot() {
                match self.tokens.get_mut(&node.content) {
                    Some(token) => token.moved |= token.is_unnamed_at(&path),
                    None if *unsynced && !is_ours(&path) => {
                        self.torn.insert(node.content.clone());
                    }
                    None => {}
                }
                left.insert(node.content);
            }
        }
        self.tokens
            .retain(|content, token| !token.durable.is_empty() || left.contains(content));
    }

    /// Contents that are nowhere although nobody gave them up.
    pub(crate) fn lost(&self, kept: &BTreeSet<Vec<u8>>) -> Vec<String> {
        let missing = self
            .tokens
            .iter()
            .filter(|(c, t)| !t.given_up && !kept.contains(*c));
        missing
            .map(|(c, t)| format!("{} written to {}", name(c), t.path))
            .collect()
    }

    /// Contents that were put away as if somebody had superseded them, and nobody gave them up.
    pub(crate) fn put_away(&self, in_reach: &BTreeSet<Vec<u8>>) -> Vec<String> {
        let wanted = |t: &Token| !t.given_up && !t.survived && !t.moved;
        let wanted = self.tokens.iter().filter(|(_, t)| wanted(t));
        let missing = wanted.filter(|(c, _)| !in_reach.contains(*c));
        missing
            .map(|(c, t)| format!("{} written to {}", name(c), t.path))
            .collect()
    }

    /// Contents at a place that a user had taken them away from, if that user's word counts.
    pub(crate) fn resurrected(&self, tree: &Seen, counts: impl Fn(usize) -> bool) -> Vec<String> {
        let counted = self.dead.iter().filter(|(_, machine)| counts(**machine));
        let back = counted.filter(|((path, content), machine)| {
            let by_others = self
                .tokens
                .get(content)
                .is_none_or(|t| t.touched.iter().any(|m| m != *machine));
            !by_others && tree.get(path) == Some(content)
        });
        back.map(|((path, content), machine)| {
            format!(
                "{} at \"{path}\", which the user of {machine} had taken away",
                name(content)
            )
        })
        .collect()
    }

    /// Whether users wrote exactly this.
    pub(crate) fn is_known(&self, content: &[u8]) -> bool {
        self.tokens.contains_key(content)
            || self.torn.contains(content)
            || content.starts_with(b"shared ")
    }
}

/// A content in messages.
pub(crate) fn name(content: &[u8]) -> String {
    format!(
        "{} bytes \"{}\"",
        content.len(),
        content[..content.len().min(13)].escape_ascii()
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

    use super::*;
    use instep_fs::sim::{Save, SimConfig};

    fn at(path: &str, content: &str) -> (RelPath, Vec<u8>) {
        (RelPath::new(path.as_bytes()).unwrap(), content.into())
    }

    #[test]
    fn what_a_recovery_takes_from_everybody_is_not_seen() {
        let disks: Vec<SimFs> = (0..2)
            .map(|seed| SimFs::new(SimConfig::ext4(seed)))
            .collect();
        let mut ledger = Ledger::default();
        for (content, holders) in [("one", &disks[..1]), ("all", &disks[..])] {
            ledger.wrote(b"f", content.as_bytes());
            for fs in holders {
                fs.write_file(content, content, Save::InPlace).unwrap();
            }
        }
        ledger.died(&disks);
        let away = ledger.put_away(&BTreeSet::new());
        assert!(
            matches!(away.as_slice(), [one] if one.contains("all")),
            "{away:?}"
        );
    }

    #[test]
    fn what_was_durable_on_a_disk_that_went_away_is_asked_of_the_others_after_a_power_cut() {
        for goes in [0, 1] {
            let disks: Vec<SimFs> = (0..2)
                .map(|seed| SimFs::new(SimConfig::ext4(seed)))
                .collect();
            let mut ledger = Ledger::default();
            ledger.wrote(b"f", b"one");
            for fs in &disks {
                fs.write_file("f", b"one", Save::InPlace).unwrap();
            }
            ledger.all_durable(1, &disks[1], &disks);
            disks[goes].remove("f").unwrap();
            ledger.befell(goes, &disks);
            disks[1 - goes].remove("f").unwrap();
            ledger.power_cut(&disks, &[false, false]);
            let lost = ledger.lost(&BTreeSet::new());
            assert_eq!(lost.len(), usize::from(goes == 0), "{lost:?}");
        }
    }

    #[test]
    fn what_a_machine_was_only_bringing_is_asked_of_it_after_a_power_cut_took_it_from_its_owner() {
        for has_owner in [true, false] {
            let disks: Vec<SimFs> = (0..2)
                .map(|seed| SimFs::new(SimConfig::ext4(seed)))
                .collect();
            let mut ledger = Ledger::default();
            ledger.wrote(b"f", b"one");
            disks[1].mkdir_all(".instep/staging").unwrap();
            let staged = ".instep/staging/1";
            disks[1].write_file(staged, b"one", Save::InPlace).unwrap();
            if has_owner {
                disks[0].write_file("f", b"one", Save::InPlace).unwrap();
            }
            ledger.all_durable(1, &disks[1], &disks);
            let empty = [1, 2].map(|seed| SimFs::new(SimConfig::ext4(seed)));
            ledger.power_cut(&empty, &[true, false]);
            let lost = ledger.lost(&BTreeSet::new());
            assert_eq!(lost.len(), usize::from(!has_owner), "{lost:?}");
        }
    }

    #[test]
    fn what_a_joining_machine_shows_is_called_back_from_the_dead_for_the_copy_of_it_that_was_deleted()
     {
        let tree = Seen::from([at("copied", "copied"), at("brought", "brought")]);
        for deletes in [1, 2] {
            let mut ledger = Ledger::default();
            tree.values().for_each(|c| ledger.wrote(b"f", c));
            ledger.copied([1, 2], &Seen::from([at("copied", "copied")]));
            ledger.acted(deletes, &tree, &Seen::new(), &[]);
            let bad = ledger.resurrected(&tree, |_| true);
            assert!(
                matches!(bad.as_slice(), [one] if one.contains("brought")),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn what_a_backup_gives_back_after_a_power_cut_counts_as_bytes_that_nobody_wrote() {
        let fs = SimFs::new(SimConfig::ext4(1));
        fs.write_file("f", b"saved", Save::InPlace).unwrap();
        fs.write_file("g", b"invented", Save::InPlace).unwrap();
        let mut ledger = Ledger::default();
        ledger.wrote(b"f", b"saved");
        ledger.backed_up(&[fs]);
        ledger.power_cut(&[SimFs::new(SimConfig::ext4(2))], &[true]);
        assert!(ledger.is_known(b"saved"));
        assert!(!ledger.is_known(b"invented"), "no user wrote it");
    }

    #[test]
    fn what_users_took_away_under_both_names_that_a_power_cut_left_counts_as_thrown_away() {
        let (named, unnamed) = (at("f", "saved"), at("f.new~", "saved"));
        for cut in [true, false] {
            let fs = SimFs::new(SimConfig::ext4(1));
            fs.write_file("f.new~", b"saved", Save::InPlace).unwrap();
            let mut ledger = Ledger::default();
            ledger.wrote(b"f", b"saved");
            ledger.all_durable(0, &fs, &[]);
            if cut {
                ledger.power_cut(&[fs], &[false]);
            }
            ledger.tokens.values_mut().for_each(|t| t.survived = false);
            let both = Seen::from([named.clone(), unnamed.clone()]);
            ledger.acted(0, &both, &Seen::from([named.clone()]), &[]);
            ledger.acted(1, &both, &Seen::from([unnamed.clone()]), &[]);
            let away = ledger.put_away(&BTreeSet::new());
            assert_eq!(away.is_empty(), cut, "{away:?}");
        }
    }

    #[test]
    fn what_was_thrown_away_although_nobody_superseded_it_is_not_seen() {
        let mut ledger = Ledger::default();
        ledger.wrote(b"f", b"old");
        ledger.died(&[]);
        ledger.wrote(b"f", b"new");
        assert_eq!(
            ledger.put_away(&BTreeSet::new()).len(),
            1,
            "only what came since the death"
        );
        let mut ledger = Ledger::default();
        for content in ["kept", "moved", "over", "mine", "linked"] {
            ledger.wrote(b"f", content.as_bytes());
        }
        let before = Seen::from([at("a", "moved"), at("b", "over")]);
        let linked = [at("d", "linked"), at("e", "linked")];
        let after = Seen::from([at("c", "moved"), at("b", "kept")]);
        let after = after.into_iter().chain(linked).collect();
        ledger.acted(0, &before, &after, &[]);
        let in_reach = BTreeSet::from([b"kept".to_vec()]);
        let away = ledger.put_away(&in_reach);
        assert!(
            matches!(away.as_slice(), [one] if one.contains("mine")),
            "{away:?}"
        );
    }
}
