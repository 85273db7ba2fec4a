//! Every input that is known, under the cap of memory; and that no reader is without a target.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use instep_fuzz::allocation::Counting;
use instep_fuzz::mutate::{Dice, mutate};
use instep_fuzz::run::{Failure, attempt};
use instep_fuzz::{TARGETS, Target, corpus};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn fails(target: &Target, name: &str, input: &[u8]) -> Option<String> {
    let failure = attempt(target, input).err()?;
    Some(format!(
        "{}, {name}: {failure}\n  {}",
        target.name,
        input.escape_ascii()
    ))
}

#[test]
fn an_input_of_the_corpus_panics_or_takes_too_much_memory() {
    let mut failed = Vec::new();
    for target in TARGETS {
        let all = corpus::all(target).unwrap();
        assert!(!all.is_empty(), "{} begins with nothing", target.name);
        failed.extend(
            all.iter()
                .filter_map(|(name, input)| fails(target, name, input)),
        );
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Few, and the same in every run; many are `cargo xtask fuzz`.
#[test]
fn an_input_near_the_corpus_panics_or_takes_too_much_memory() {
    let mut failed = Vec::new();
    for target in TARGETS {
        let all: Vec<Vec<u8>> = corpus::all(target)
            .unwrap()
            .into_iter()
            .map(|(_, b)| b)
            .collect();
        let mut dice = Dice::new(1);
        for n in 0..150 {
            let (one, other) = (&all[dice.below(all.len())], &all[dice.below(all.len())]);
            let input = mutate(&mut dice, one, other, target.words, target.longest);
            failed.extend(fails(target, &format!("mutation {n}"), &input));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// The checks can fail: a panic and a greedy reader are failures.
#[test]
fn a_failure_is_taken_for_a_success() {
    let panics = Target {
        read: |bytes| format!("{}", bytes[0]),
        ..TARGETS[0]
    };
    assert!(matches!(attempt(&panics, b""), Err(Failure::Panic(_))));
    let greedy = Target {
        read: |bytes| format!("{}", vec![1_u8; 1 << (20 + bytes.len())].len()),
        ..TARGETS[0]
    };
    assert!(matches!(attempt(&greedy, b"ab"), Err(Failure::Memory(_))));
    assert!(attempt(&TARGETS[0], b"ab").is_ok());
}

/// What makes values out of bytes or text of others, wherever it is written.
const READS: [&str; 9] = [
    "serde_json::from_str",
    "serde_json::from_slice",
    "toml::from_str",
    "= Reader::new(",
    "impl<'a> Reader<'a>",
    "fn from_peer(",
    "fn from_str(",
    "fn decode(",
    "try_parse_from",
];

/// Files that read what is named above, and the targets that get there.
const WHERE: &[(&str, &[&str])] = &[
    ("core/src/codec.rs", &["entry", "attributes"]),
    ("core/src/id.rs", &["identity"]),
    ("core/src/path.rs", &["path"]),
    ("store/src/row_codec.rs", &["row"]),
    ("store/src/sqlite.rs", &["index_file"]),
    ("store/src/memory.rs", &["index_records"]),
    ("replica/src/memory/act.rs", &["memory"]),
    ("replica/src/memory/bin.rs", &["memory"]),
    ("replica/src/records.rs", &["record"]),
    ("local/src/index.rs", &["index_records"]),
    ("local/src/recover/intent.rs", &["intent", "index_records"]),
    ("local/src/check.rs", &["record"]),
    ("local/src/root/examine.rs", &["record"]),
    ("local/src/trash.rs", &["index_records", "machine"]),
    ("local/src/root/marker.rs", &["marker", "root_files"]),
    ("local/src/root/evidence.rs", &["root_files"]),
    ("engine/src/conflicts.rs", &["record"]),
    ("engine/src/holds.rs", &["record"]),
    ("engine/src/session.rs", &["share"]),
    ("cli/src/records.rs", &["record", "share"]),
    ("cli/src/commands/verify/reading.rs", &["record"]),
    ("cli/src/config.rs", &["configuration"]),
    ("cli/src/control/protocol.rs", &["request", "answer"]),
    ("cli/src/usage.rs", &["arguments"]),
    ("cli/src/input.rs", &["far", "hub"]),
    ("cli/src/far/request.rs", &["far"]),
    ("cli/src/far/caller.rs", &["far"]),
    ("cli/src/far/hubs.rs", &["hub"]),
    ("cli/src/hub/reception.rs", &["hub"]),
    ("cli/src/hub/data.rs", &["hub"]),
    ("wire/src/control.rs", &["message"]),
    ("wire/src/proto.rs", &["message"]),
    ("wire/src/identity.rs", &["typed"]),
    ("wire/src/pairing.rs", &["typed"]),
    ("chunk/src/manifest.rs", &["manifest"]),
    ("chunk/src/delta.rs", &["delta"]),
];

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

fn sources(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// The text of a file without its tests.
fn shipped(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or_default()
}

#[test]
fn a_reader_has_no_target() {
    let product = [
        "core", "chunk", "fs", "store", "replica", "local", "engine", "cli", "wire",
    ];
    let mut files = Vec::new();
    product
        .iter()
        .for_each(|name| sources(&crates().join(name).join("src"), &mut files));
    let mut found = BTreeSet::new();
    for file in files {
        let name = file
            .strip_prefix(crates())
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        let reads = READS.iter().any(|what| shipped(&text).contains(what));
        // The kernel's own events, taken apart by a library; and what plays the user.
        let is_of_others = ["fs/src/watch/inotify.rs", "conformance", "/sim"];
        if reads && !is_of_others.iter().any(|what| name.contains(what)) {
            found.insert(name);
        }
    }
    let listed: BTreeSet<String> = WHERE.iter().map(|(file, _)| (*file).to_owned()).collect();
    assert_eq!(
        found, listed,
        "the files that read, and those that are listed with their targets"
    );
    for (file, targets) in WHERE {
        let known = |name: &str| TARGETS.iter().any(|t| t.name == name);
        assert!(
            !targets.is_empty() && targets.iter().all(|name| known(name)),
            "{file}"
        );
    }
}

#[test]
fn a_target_reads_with_something_that_is_not_there() {
    let mut names = BTreeSet::new();
    for target in TARGETS {
        assert!(names.insert(target.name), "{} is there twice", target.name);
        assert!(
            !target.reads.is_empty(),
            "{} reads with nothing",
            target.name
        );
        for what in target.reads {
            let (name, path) = what.split_once("::").unwrap();
            let item = path.rsplit("::").next().unwrap();
            let mut files = Vec::new();
            sources(&crates().join(name).join("src"), &mut files);
            let has = |file: &PathBuf| std::fs::read_to_string(file).unwrap().contains(item);
            assert!(files.iter().any(has), "{what}");
        }
    }
}
