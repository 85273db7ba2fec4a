//! A cut that went wrong, kept so that it can be recovered again.
//!
//! Owns a directory with the images as they were when the power came back, what users had done, and where the disks
//! were mounted, because a root that is somewhere else is another case.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::history::Op;
use crate::image::{Kind, run};

/// Everything that a recovery starts from.
#[derive(Debug)]
pub struct Kept {
    /// Where the machine was.
    pub place: PathBuf,
    /// What is in its disks.
    pub kinds: Vec<Kind>,
    /// The disks.
    pub files: Vec<PathBuf>,
    /// What users did.
    pub history: BTreeMap<String, Vec<Op>>,
}

impl Kept {
    /// Writes all of it into a new directory.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        for (i, file) in self.files.iter().enumerate() {
            let to = dir.join(format!("{i}.img"));
            run(
                "cp",
                ["--sparse=always".as_ref(), file.as_os_str(), to.as_os_str()],
            )?;
        }
        let kinds: Vec<&str> = self.kinds.iter().map(|k| k.name()).collect();
        fs::write(dir.join("kinds"), kinds.join(" "))?;
        fs::write(dir.join("place"), self.place.to_string_lossy().as_bytes())?;
        let mut text = String::new();
        for op in self.history.values().flatten() {
            let state = op.state.map_or_else(|| "-".to_owned(), |t| t.to_string());
            let durable = op.durable.is_some();
            let _infallible = writeln!(text, "{}\t{state}\t{durable}", op.path);
        }
        fs::write(dir.join("history"), text)
    }

    /// Reads it.
    pub fn read(dir: &Path) -> io::Result<Self> {
        let kinds = fs::read_to_string(dir.join("kinds"))?;
        let kind = |name: &str| Kind::ALL.into_iter().find(|k| k.name() == name);
        let kinds: Vec<Kind> = kinds.split(' ').filter_map(kind).collect();
        let mut history: BTreeMap<String, Vec<Op>> = BTreeMap::new();
        for line in fs::read_to_string(dir.join("history"))?.lines() {
            let op = op(line).ok_or_else(|| io::Error::other(format!("no operation: {line}")))?;
            history.entry(op.path.clone()).or_default().push(op);
        }
        Ok(Self {
            place: fs::read_to_string(dir.join("place"))?.into(),
            files: (0..kinds.len())
                .map(|i| dir.join(format!("{i}.img")))
                .collect(),
            kinds,
            history,
        })
    }
}

fn op(line: &str) -> Option<Op> {
    let mut fields = line.split('\t');
    let now = Instant::now();
    Some(Op {
        path: fields.next()?.to_owned(),
        state: fields.next()?.parse().ok(),
        begun: now,
        durable: (fields.next()? == "true").then_some(now),
    })
}
