//! Deliberate bugs, and whether the simulator notices them.
//!
//! Owns a copy of the sources below `target/mutants`, in which each bug of the list is put by itself; the tree that it
//! is copied from is never changed. A bug that no seed notices is a failure; a seed that fails without it, too, has not
//! noticed it. A bug changes the course of every seed, so that seeds may fail of defects that are not mended yet: it counts
//! as noticed when so many fail that chance would not bring that about once in a hundred times.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::finding::Finding;
use crate::run;

/// The list.
pub(crate) const LIST: &str = "crates/sim/mutants.toml";
/// Seeds within which a bug has to be noticed.
const SEEDS: u64 = 10_000;
/// Among how many seeds one may fail of something else.
const OTHERWISE: u64 = 15_000;
/// How many thousandths of that have to be tried for a chance of one in a hundred that so many fail of something else: the
/// first number is for one failure, the next for two (the tail of a Poisson distribution).
const BY_CHANCE: [u64; 10] = [10, 148, 436, 823, 1279, 1785, 2330, 2906, 3507, 4130];
/// What a build needs.
const SOURCES: [&str; 5] = [
    "Cargo.toml",
    "Cargo.lock",
    "rust-toolchain.toml",
    "crates",
    "xtask",
];

const USAGE: &str = "cargo xtask mutants [--seeds N] [NAME-PART...]";

#[derive(Debug)]
struct Mutant {
    name: String,
    file: String,
    find: String,
    replace: String,
}

/// What became of a mutant: the seeds that failed, and the first line of why.
#[derive(Debug, Default)]
struct Trial {
    seeds: Vec<u64>,
    why: String,
}

impl Trial {
    /// So many seeds failed so early that it was no chance.
    fn is_noticed(&self) -> bool {
        let early = |(seed, limit): (&u64, &u64)| *seed <= limit * OTHERWISE / 1_000;
        self.seeds.iter().zip(&BY_CHANCE).any(early)
    }
}

/// The command: applies each mutant whose name has one of the parts, and prints what noticed it.
pub(crate) fn command(top: &Path, args: &[String]) -> Result<(), String> {
    let (seeds, parts) = options(args)?;
    let chosen = |m: &Mutant| parts.is_empty() || parts.iter().any(|p| m.name.contains(p.as_str()));
    let text = fs::read_to_string(top.join(LIST)).map_err(|e| format!("read {LIST}: {e}"))?;
    let mutants: Vec<Mutant> = parse(&text)?.into_iter().filter(chosen).collect();
    if mutants.is_empty() {
        return Err(format!("no mutant has that in its name\n{USAGE}"));
    }
    let tree = top.join("target/mutants/tree");
    copy_sources(top, &tree)?;
    build(&tree)?;
    let sound = tree.with_file_name("sound");
    fs::copy(simulator(&tree), &sound).map_err(|e| format!("keep the simulator: {e}"))?;
    let mut missed = Vec::new();
    for mutant in &mutants {
        let trial = with_mutant(&tree, mutant, seeds, &sound)?;
        let (failed, why) = (&trial.seeds, &trial.why);
        if trial.is_noticed() {
            println!("noticed: {}; seeds {failed:?} ({why})", mutant.name);
        } else {
            println!("NOT NOTICED: {}; seeds {failed:?}", mutant.name);
            missed.push(mutant.name.clone());
        }
    }
    println!(
        "{} of {} noticed",
        mutants.len() - missed.len(),
        mutants.len()
    );
    if missed.is_empty() {
        Ok(())
    } else {
        Err(format!("not noticed: {}", missed.join("; ")))
    }
}

/// Entries that do not fit the sources any more.
pub(crate) fn check(top: &Path) -> Result<Vec<Finding>, String> {
    let text = fs::read_to_string(top.join(LIST)).map_err(|e| format!("read {LIST}: {e}"))?;
    let stale = parse(&text)?.into_iter().filter_map(|mutant| {
        let source = fs::read_to_string(top.join(&mutant.file)).unwrap_or_default();
        let message = match source.matches(&mutant.find).count() {
            1 => return None,
            n => format!(
                "\"{}\" fits {} {n} times instead of once: mend the entry",
                mutant.name, mutant.file
            ),
        };
        Some(Finding::new(LIST, 1, message))
    });
    Ok(stale.collect())
}

fn options(args: &[String]) -> Result<(u64, Vec<String>), String> {
    let (mut seeds, mut parts) = (SEEDS, Vec::new());
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--seeds" => {
                let number = args.next().and_then(|n| n.parse().ok());
                seeds = number.ok_or_else(|| USAGE.to_owned())?;
            }
            part if !part.starts_with('-') => parts.push(part.to_owned()),
            _ => return Err(USAGE.to_owned()),
        }
    }
    Ok((seeds, parts))
}

fn parse(text: &str) -> Result<Vec<Mutant>, String> {
    let table: toml::Table = text.parse().map_err(|e| format!("read {LIST}: {e}"))?;
    let all = table.get("mutant").and_then(|m| m.as_array());
    let all = all.ok_or_else(|| format!("{LIST} has no mutants"))?;
    let parsed = all.iter().map(|m| {
        let field = |key: &str| {
            let value = m.get(key).and_then(|v| v.as_str());
            let text = value.ok_or_else(|| format!("{LIST}: a mutant lacks \"{key}\""));
            text.map(str::to_owned)
        };
        Ok(Mutant {
            name: field("name")?,
            file: field("file")?,
            find: field("find")?,
            replace: field("replace")?,
        })
    });
    parsed.collect()
}

fn with_mutant(tree: &Path, mutant: &Mutant, seeds: u64, sound: &Path) -> Result<Trial, String> {
    let failed = |what: &str, e: std::io::Error| format!("{what} {}: {e}", mutant.file);
    let place = tree.join(&mutant.file);
    let whole = fs::read_to_string(&place).map_err(|e| failed("read", e))?;
    if whole.matches(&mutant.find).count() != 1 {
        return Err(format!("\"{}\" does not fit {}", mutant.name, mutant.file));
    }
    let broken = whole.replacen(&mutant.find, &mutant.replace, 1);
    fs::write(&place, broken).map_err(|e| failed("write", e))?;
    let caught = build(tree).and_then(|()| simulate(tree, seeds, sound));
    fs::write(&place, whole).map_err(|e| failed("write", e))?;
    caught.map_err(|e| format!("{}: {e}", mutant.name))
}

/// Builds the simulator in a tree.
fn build(tree: &Path) -> Result<(), String> {
    let mut build = run::cargo(tree);
    build.args(["build", "--release", "--locked", "--quiet"]);
    build.args(["--package", "instep-sim", "--target-dir"]);
    // A mutant leaves things unused, which is not what is tried here; and most of the time goes into building.
    build.arg(target(tree)).env("RUSTFLAGS", "-Awarnings");
    build.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
    build.env("CARGO_INCREMENTAL", "1");
    run::succeed(&mut build, "build the simulator")
}

fn target(tree: &Path) -> PathBuf {
    tree.with_file_name("build")
}

fn simulator(tree: &Path) -> PathBuf {
    target(tree).join("release/instep-sim")
}

/// Seeds that fail in a tree and not in a simulator without the mutant, until there are enough.
fn simulate(tree: &Path, seeds: u64, sound: &Path) -> Result<Trial, String> {
    let mut child = Command::new(simulator(tree))
        .args(["--from", "1", "--seeds", &seeds.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("start the simulator: {e}"))?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?)
        .lines()
        .map_while(Result::ok);
    let mut trial = Trial::default();
    while let Some(line) = lines.next() {
        let Some(seed) = failing(&line) else { continue };
        if !keeps_all(sound, seed)? {
            continue;
        }
        if trial.seeds.is_empty() {
            lines
                .next()
                .unwrap_or_default()
                .trim()
                .clone_into(&mut trial.why);
        }
        trial.seeds.push(seed);
        trial.seeds.sort_unstable();
        if trial.is_noticed() || trial.seeds.len() >= BY_CHANCE.len() {
            let _over = child.kill();
            let _ended = child.wait();
            return Ok(trial);
        }
    }
    let ended = child.wait();
    match ended.map_err(|e| format!("run the simulator: {e}"))?.code() {
        Some(0 | 1) => Ok(trial),
        code => Err(format!("the simulator ended with {code:?}")),
    }
}

/// Whether a simulator finds nothing wrong with a seed.
fn keeps_all(simulator: &Path, seed: u64) -> Result<bool, String> {
    let mut one = Command::new(simulator);
    one.args(["--seed", &seed.to_string()]);
    one.stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let ended = one
        .status()
        .map_err(|e| format!("replay seed {seed}: {e}"))?;
    Ok(ended.success())
}

/// The seed of a line that tells of a failure.
fn failing(line: &str) -> Option<u64> {
    let (seed, rest) = line.strip_prefix("seed ")?.split_once(' ')?;
    rest.starts_with("breaks ").then(|| seed.parse().ok())?
}

/// Brings the copy up to date; what is the same is not written, so that little is built again.
fn copy_sources(top: &Path, tree: &Path) -> Result<(), String> {
    let mut todo: Vec<PathBuf> = SOURCES.iter().map(PathBuf::from).collect();
    while let Some(path) = todo.pop() {
        let failed = |e: std::io::Error| format!("copy {}: {e}", path.display());
        let (from, to) = (top.join(&path), tree.join(&path));
        if from.is_dir() {
            fs::create_dir_all(&to).map_err(failed)?;
            for entry in fs::read_dir(&from).map_err(failed)? {
                todo.push(path.join(entry.map_err(failed)?.file_name()));
            }
        } else {
            let bytes = fs::read(&from).map_err(failed)?;
            if fs::read(&to).ok().as_ref() != Some(&bytes) {
                fs::create_dir_all(to.parent().unwrap_or(tree)).map_err(failed)?;
                fs::write(&to, bytes).map_err(failed)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn a_mutant_without_a_part_is_refused() {
        let whole = "[[mutant]]\nname = 'n'\nfile = 'f'\nfind = 'a'\nreplace = ''\n";
        assert_eq!(parse(whole).unwrap().len(), 1);
        assert!(parse("[[mutant]]\nname = 'n'\n").is_err());
        assert!(parse("").is_err());
    }

    #[test]
    fn what_fails_by_chance_counts_as_noticed() {
        let trial = |seeds: &[u64]| Trial {
            seeds: seeds.to_vec(),
            ..Trial::default()
        };
        assert!(trial(&[7]).is_noticed() && trial(&[90, 140]).is_noticed());
        assert!(trial(&[200, 300, 400]).is_noticed());
        for chance in [&[][..], &[159], &[700, 2_300], &[2_300, 5_000, 6_600]] {
            assert!(!trial(chance).is_noticed(), "{chance:?}");
        }
    }

    #[test]
    fn a_line_that_tells_of_no_failure_is_taken_for_one() {
        assert_eq!(failing("seed 12 breaks I2 at commit x"), Some(12));
        for other in [
            "seed 12 keeps all promises",
            "replay: seed 1 breaks",
            "I2: 3 seeds, first 1",
        ] {
            assert_eq!(failing(other), None, "{other}");
        }
    }

    #[test]
    fn every_mutant_fits_the_sources_once() {
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let stale: Vec<String> = check(top)
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert!(stale.is_empty(), "{stale:?}");
        let text = fs::read_to_string(top.join(LIST)).unwrap();
        assert!(parse(&text).unwrap().len() >= 20);
    }
}
