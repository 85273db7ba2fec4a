//! Reading: files at their paths and objects in the trash and the version store, of every folder.
//!
//! Invariant: which files belong to a sample follows from their paths and the seed alone, so that the same files
//! are read in every folder, and again by the same command. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use instep_core::id::{ContentId, ReplicaId};
use instep_core::path::RelPath;
use instep_core::version::Kind;
use instep_replica::records::{DamageRecord, TrashRecord, path_from_hex};
use instep_replica::{Book, Checked, Found, Replica, Scope};

use super::super::{Context, Opened};
use crate::error::Failure;
use crate::quantity::Percent;
use crate::targets::Target;

/// A file whose content is not what was recorded, or that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::commands) struct Finding {
    pub(in crate::commands) replica: ReplicaId,
    pub(in crate::commands) label: String,
    pub(in crate::commands) path: RelPath,
    pub(in crate::commands) what: &'static str,
    /// What was recorded.
    pub(in crate::commands) content: ContentId,
    /// What was read, where it was.
    pub(in crate::commands) found: ContentId,
    /// Who has the recorded content at the path, and was read without fault.
    pub(in crate::commands) good_on: Vec<String>,
    /// Where it is kept, by label and key, and was read without fault.
    pub(in crate::commands) good_kept: Vec<(String, String)>,
    /// It was noted before.
    pub(in crate::commands) noted: bool,
}

/// Something kept in the trash or the version store whose content is not what was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::commands) struct KeptFinding {
    pub(in crate::commands) label: String,
    pub(in crate::commands) key: String,
    pub(in crate::commands) record: TrashRecord,
    pub(in crate::commands) good_on: Vec<String>,
    pub(in crate::commands) good_kept: Vec<(String, String)>,
}

/// What was read, and what it showed.
#[derive(Debug, Default)]
pub(in crate::commands) struct Report {
    pub(in crate::commands) files: u64,
    pub(in crate::commands) files_of: u64,
    pub(in crate::commands) bytes: u64,
    pub(in crate::commands) kept_read: u64,
    pub(in crate::commands) damage: Vec<Finding>,
    pub(in crate::commands) unreadable: Vec<Finding>,
    pub(in crate::commands) kept: Vec<KeptFinding>,
    pub(in crate::commands) pending: u64,
    pub(in crate::commands) differing: BTreeSet<RelPath>,
}

/// What is to be read.
pub(in crate::commands) struct Reading<'a> {
    pub(in crate::commands) opened: &'a Opened,
    /// The folders that were named, and where in them.
    pub(in crate::commands) below: &'a [(Target, RelPath)],
    pub(in crate::commands) sample: Option<Percent>,
    pub(in crate::commands) seed: u64,
}

/// An object that is kept, and whether it was found to be sound.
struct Kept {
    label: String,
    key: String,
    record: TrashRecord,
    is_sound: bool,
}

/// Who has a content at a path and was read without fault.
type Good = BTreeMap<(RelPath, ContentId), Vec<String>>;

impl Report {
    /// Takes in what reading one file showed; whether it is sound.
    fn take(&mut self, mut finding: Finding, checked: Checked) -> bool {
        self.files += 1;
        match checked {
            Checked::Sound(bytes) => {
                self.bytes += bytes;
                return true;
            }
            Checked::Decayed { found, .. } => {
                if let Found::Present { content, size, .. } = *found {
                    finding.found = content;
                    self.bytes += size;
                }
                self.damage.push(finding);
            }
            Checked::Unreadable(_) => {
                finding.what = "cannot be read";
                self.unreadable.push(finding);
            }
            Checked::Changed | Checked::Busy | Checked::Nothing => {}
        }
        false
    }
}

impl Reading<'_> {
    /// Reads everything that belongs to it.
    pub(in crate::commands) fn run(&self, context: &Context) -> Result<Report, Failure> {
        let mut report = Report::default();
        let mut have: BTreeMap<RelPath, Vec<ContentId>> = BTreeMap::new();
        let mut good: Good = BTreeMap::new();
        let mut kept = Vec::new();
        for i in 0..self.opened.replicas.len() {
            let shown = self.opened.targets[i].root.typed.display();
            context.output.note(&format!("reading {shown}"));
            self.files(i, &mut report, &mut have, &mut good)?;
            self.kept(i, &mut report, &mut kept)?;
        }
        let kept_good = self.good_kept(&report, &kept)?;
        for f in report.damage.iter_mut().chain(&mut report.unreadable) {
            let key = (f.path.clone(), f.content);
            f.good_on = good.get(&key).cloned().unwrap_or_default();
            let copies = kept_good.get(&f.content.to_string());
            f.good_kept = copies.cloned().unwrap_or_default();
        }
        for f in &mut report.kept {
            let path = path_from_hex(&f.record.path_hex);
            let key = path.zip(f.record.content.parse::<ContentId>().ok());
            let at_path = key.and_then(|key| good.get(&key));
            f.good_on = at_path.cloned().unwrap_or_default();
            let copies = kept_good.get(&f.record.content);
            f.good_kept = copies.cloned().unwrap_or_default();
        }
        let n = self.opened.replicas.len();
        let differ = |ids: &Vec<ContentId>| ids.len() < n || ids.iter().any(|id| *id != ids[0]);
        report.differing = have
            .into_iter()
            .filter(|(_, ids)| differ(ids))
            .map(|(path, _)| path)
            .collect();
        Ok(report)
    }

    /// Whether it is at or below what was named in its share.
    fn is_asked(&self, i: usize, path: &RelPath) -> bool {
        let share = self.opened.targets[i].member.share;
        let mut asked = self.below.iter();
        asked.any(|(target, top)| target.member.share == share && path.is_within(top))
    }

    /// Whether it belongs to the sample.
    fn is_drawn(&self, name: &[u8]) -> bool {
        let Some(percent) = self.sample else {
            return true;
        };
        let drawn = instep_chunk::content_id(&[&self.seed.to_le_bytes(), name].concat());
        let mut first = [0; 8];
        first.copy_from_slice(&drawn.0[..8]);
        percent.takes(u64::from_le_bytes(first))
    }

    /// Reads the files of one folder. One that was changed since the index was written is pending, not damaged.
    fn files(
        &self,
        i: usize,
        report: &mut Report,
        have: &mut BTreeMap<RelPath, Vec<ContentId>>,
        good: &mut Good,
    ) -> Result<(), Failure> {
        let replica = &self.opened.replicas[i];
        let noted = DamageRecord::all(replica.as_ref())?;
        let mut changed = self.changed(replica, i)?;
        let mut files = Vec::new();
        replica.subtree(&RelPath::root(), &mut |path, row| {
            if self.is_asked(i, &path)
                && let Some(v) = row.present().filter(|v| v.kind == Kind::File)
            {
                files.push((path, v.content));
            }
            ControlFlow::Continue(())
        })?;
        report.files_of += files.len() as u64;
        for (path, content) in files {
            if !noted.contains_key(&path) && !self.is_drawn(path.as_bytes()) {
                continue;
            }
            let finding = Finding {
                replica: self.opened.targets[i].member.replica,
                label: self.opened.label(i).to_owned(),
                path: path.clone(),
                what: "has other content than was recorded",
                content,
                found: ContentId::NONE,
                good_on: Vec::new(),
                good_kept: Vec::new(),
                noted: noted.contains_key(&path),
            };
            let checked = replica.check(&path)?;
            if matches!(checked, Checked::Changed | Checked::Busy) {
                changed.insert(path);
                continue;
            }
            have.entry(path.clone()).or_default().push(content);
            changed.remove(&path);
            if report.take(finding, checked) {
                let of_path = good.entry((path, content)).or_default();
                of_path.push(self.opened.label(i).to_owned());
            }
        }
        report.pending += changed.len() as u64;
        Ok(())
    }

    /// What a look finds to be different from the index.
    fn changed(&self, replica: &Arc<dyn Replica>, i: usize) -> Result<BTreeSet<RelPath>, Failure> {
        let look = replica.look(&Scope::Everything)?;
        let findings = look.findings.into_iter();
        let real = findings.filter(|f| !matches!(f.found, Found::Refreshed { .. }));
        Ok(real
            .map(|f| f.path)
            .filter(|p| self.is_asked(i, p))
            .collect())
    }

    /// Reads what one folder keeps.
    fn kept(&self, i: usize, report: &mut Report, kept: &mut Vec<Kept>) -> Result<(), Failure> {
        let replica = &self.opened.replicas[i];
        for (key, body) in replica.records(Book::Trash)? {
            let Ok(record) = serde_json::from_str::<TrashRecord>(&body) else {
                continue;
            };
            let path = path_from_hex(&record.path_hex);
            if record.kind != "file" || !path.is_some_and(|p| self.is_asked(i, &p)) {
                continue;
            }
            let mut one = Kept {
                label: self.opened.label(i).to_owned(),
                key,
                record,
                is_sound: false,
            };
            if self.is_drawn(one.key.as_bytes()) {
                match replica.check_kept(&one.key)? {
                    Checked::Sound(bytes) => {
                        report.kept_read += 1;
                        report.bytes += bytes;
                        one.is_sound = true;
                    }
                    Checked::Decayed { .. } | Checked::Unreadable(_) => {
                        report.kept_read += 1;
                        report.kept.push(KeptFinding {
                            label: one.label.clone(),
                            key: one.key.clone(),
                            record: one.record.clone(),
                            good_on: Vec::new(),
                            good_kept: Vec::new(),
                        });
                    }
                    Checked::Nothing | Checked::Changed | Checked::Busy => {}
                }
            }
            kept.push(one);
        }
        Ok(())
    }

    /// Sound copies in the trash and the version stores of what is damaged, by content.
    fn good_kept(
        &self,
        report: &Report,
        kept: &[Kept],
    ) -> Result<BTreeMap<String, Vec<(String, String)>>, Failure> {
        let files = report.damage.iter().chain(&report.unreadable);
        let mut wanted: BTreeSet<String> = files.map(|f| f.content.to_string()).collect();
        wanted.extend(report.kept.iter().map(|k| k.record.content.clone()));
        let mut out: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
        for one in kept.iter().filter(|k| wanted.contains(&k.record.content)) {
            let of_label = |i: &usize| self.opened.label(*i) == one.label;
            let Some(i) = (0..self.opened.replicas.len()).find(of_label) else {
                continue;
            };
            let is_bad = report
                .kept
                .iter()
                .any(|k| k.key == one.key && k.label == one.label);
            let is_sound = one.is_sound
                || !is_bad
                    && matches!(
                        self.opened.replicas[i].check_kept(&one.key)?,
                        Checked::Sound(_)
                    );
            if is_sound {
                let copies = out.entry(one.record.content.clone()).or_default();
                copies.push((one.label.clone(), one.key.clone()));
            }
        }
        Ok(out)
    }
}
