//! Inputs that are kept: the files of a target's directory, and the seeds that are made by code.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::Target;

/// Where the files of a target are.
pub fn folder(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target.name)
}

/// The files of a target, by name.
pub fn files(target: &Target) -> io::Result<Vec<(String, Vec<u8>)>> {
    let entries = match fs::read_dir(folder(target)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut all = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        all.push((name, fs::read(entry.path())?));
    }
    all.sort();
    Ok(all)
}

/// Every input of a target that is known, with its name.
pub fn all(target: &Target) -> io::Result<Vec<(String, Vec<u8>)>> {
    let seeds = (target.seeds)().into_iter().enumerate();
    let mut all: Vec<(String, Vec<u8>)> = seeds
        .map(|(n, bytes)| (format!("seed {n}"), bytes))
        .collect();
    all.extend(files(target)?);
    Ok(all)
}

/// Keeps an input under a name that follows from its bytes; returns the file.
pub fn keep(folder: &Path, input: &[u8]) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let file = folder.join(instep_chunk::content_id(input).short());
    fs::write(&file, input)?;
    Ok(file)
}
