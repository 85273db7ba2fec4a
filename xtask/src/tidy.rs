//! Runs every check over the repository.
//!
//! Never changes anything but `xtask/ratchet.txt`, and that only when told to record.

use std::fs;
use std::path::Path;

use crate::finding::Finding;
use crate::ratchet::Sizes;
use crate::source::Source;
use crate::{
    COMMANDS, bans, edges, manifest, markdown, metadata, mutants, names, promises, ratchet,
};

const RATCHET: &str = "xtask/ratchet.txt";

/// Folders that hold nothing of ours, or nothing that is written by hand.
const SKIPPED: [&str; 3] = ["target", ".git", ".instep"];

/// The command: prints what it finds.
pub(crate) fn command(top: &Path, args: &[String]) -> Result<(), String> {
    if args == ["--record"] {
        let text = ratchet::render(&sizes(&sources(top)?));
        return fs::write(top.join(RATCHET), text).map_err(|e| format!("write {RATCHET}: {e}"));
    }
    let found = check(top)?;
    for finding in &found {
        println!("{finding}");
    }
    match found.len() {
        0 => Ok(()),
        n => Err(format!("tidy: {n} findings")),
    }
}

/// Everything that is not tidy, in order of place.
pub(crate) fn check(top: &Path) -> Result<Vec<Finding>, String> {
    let sources = sources(top)?;
    let mut found = edges::check(&metadata::read(top, false)?);
    for source in &sources {
        found.extend(names::check(source));
        found.extend(bans::check(source));
    }
    found.extend(mutants::check(top)?);
    found.extend(promises::check(
        &read(top, promises::DOCUMENT)?,
        &promises::tests(&sources, &scripts(top)?),
        &read(top, promises::SKIPS)?,
    ));
    let recorded = fs::read_to_string(top.join(RATCHET)).unwrap_or_default();
    found.extend(ratchet::compare(
        &sizes(&sources),
        &ratchet::parse(&recorded),
    ));
    found.extend(manifest::check_root(
        "Cargo.toml",
        &read(top, "Cargo.toml")?,
    ));
    let mut files = Vec::new();
    list(top, "", &mut files)?;
    for file in files {
        if file.ends_with("/Cargo.toml") {
            found.extend(manifest::check_member(&file, &read(top, &file)?));
        } else if has_ending(&file, "md") {
            let exists = |path: &str| top.join(path).exists();
            found.extend(markdown::check(
                &file,
                &read(top, &file)?,
                &COMMANDS,
                &exists,
            ));
        }
    }
    found.sort();
    Ok(found)
}

/// The scenarios in Python.
fn scripts(top: &Path) -> Result<Vec<String>, String> {
    let mut files = Vec::new();
    list(top, "acceptance", &mut files)?;
    files.retain(|file| has_ending(file, "py"));
    files.iter().map(|file| read(top, file)).collect()
}

fn sizes(sources: &[Source]) -> Sizes {
    sources.iter().flat_map(ratchet::measure).collect()
}

/// All Rust files, taken apart.
fn sources(top: &Path) -> Result<Vec<Source>, String> {
    let mut files = Vec::new();
    list(top, "", &mut files)?;
    files.retain(|file| has_ending(file, "rs"));
    // These play the user, the machine and whoever means harm, as tests do.
    let all_test = |file: &str| {
        ["testkit", "trials", "fuzz"]
            .iter()
            .any(|name| file.starts_with(&format!("crates/{name}/")))
            || file.contains("/tests/")
            || file.contains("/benches/")
    };
    let mut sources = Vec::new();
    for file in &files {
        sources.push(Source::new(file, &read(top, file)?, all_test(file)));
    }
    // A module that is declared for tests alone is a file of tests, with everything below it.
    let mut test_modules: Vec<String> = Vec::new();
    for source in &sources {
        let folder = match source.path.rsplit_once('/') {
            Some((folder, "lib.rs" | "main.rs" | "mod.rs")) => folder.to_owned(),
            _ => source.path.trim_end_matches(".rs").to_owned(),
        };
        test_modules.extend(
            source
                .test_modules()
                .iter()
                .map(|name| format!("{folder}/{name}")),
        );
    }
    for source in &mut sources {
        let stem = source.path.trim_end_matches(".rs").trim_end_matches("/mod");
        let within = |module: &String| stem == module || stem.starts_with(&format!("{module}/"));
        if test_modules.iter().any(within) {
            source.test.fill(true);
        }
    }
    Ok(sources)
}

fn has_ending(file: &str, ending: &str) -> bool {
    Path::new(file)
        .extension()
        .is_some_and(|found| found == ending)
}

fn read(top: &Path, file: &str) -> Result<String, String> {
    fs::read_to_string(top.join(file)).map_err(|e| format!("read {file}: {e}"))
}

/// All files below a folder, as paths from the top, in order.
fn list(top: &Path, folder: &str, files: &mut Vec<String>) -> Result<(), String> {
    let at = top.join(folder);
    let entries = fs::read_dir(&at).map_err(|e| format!("list {}: {e}", at.display()))?;
    let mut names: Vec<(String, bool)> = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| format!("list {}: {e}", at.display()))?;
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        names.push((entry.file_name().to_string_lossy().into_owned(), is_dir));
    }
    names.sort();
    for (name, is_dir) in names {
        let path = if folder.is_empty() {
            name.clone()
        } else {
            format!("{folder}/{name}")
        };
        let build = name.starts_with("target-");
        match is_dir {
            true if !SKIPPED.contains(&name.as_str()) && !build => list(top, &path, files)?,
            true => {}
            false => files.push(path),
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_tidy() {
        let found = check(&crate::top()).unwrap();
        let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert!(lines.is_empty(), "cargo xtask tidy:\n{}", lines.join("\n"));
    }
}
