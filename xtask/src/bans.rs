//! Calls and words that do not belong where they stand, each with what to use instead.
//!
//! A rule names the crates in which it holds and the files that are excepted, with the reason in the rule.
//! Tests may do what they like: they play the user and the machine.

use crate::finding::Finding;
use crate::source::{Source, has_word};

/// Where a rule holds.
enum In {
    /// In these crates.
    Only(&'static [&'static str]),
    /// Everywhere but in these crates, and files that begin like this.
    AllBut(&'static [&'static str]),
}

struct Ban {
    words: &'static [&'static str],
    place: In,
    instead: &'static str,
}

const BANS: &[Ban] = &[
    Ban {
        words: &["std::fs", "File::open", "File::create", "OpenOptions::new"],
        // The front end's own files (configuration, sockets) are in no root; roots are looked at as they were
        // typed before they are opened; `ignore test` works in folders that are none.
        place: In::AllBut(&[
            "fs",
            "xtask",
            // SQLite opens by path: the one path string that there is.
            "crates/store/src/sqlite",
            "crates/cli/src/config.rs",
            "crates/cli/src/control",
            "crates/cli/src/hub/desk.rs",
            // A file with a code, where its user wants it.
            "crates/cli/src/code_file.rs",
            "crates/cli/src/commands/status.rs",
            "crates/cli/src/connect.rs",
            // The program's own file, which it brings to other machines.
            "crates/cli/src/far/agents.rs",
            "crates/cli/src/commands/ignore.rs",
            // Never in the program that people use.
            "crates/cli/src/steps.rs",
            // Reads its own list of open defects.
            "crates/sim/src/main.rs",
        ]),
        instead: "file system calls belong to instep-fs: use its Dir, File or place",
    },
    Ban {
        words: &["SystemTime::now", "Instant::now"],
        place: In::AllBut(&[
            "crates/fs/src/place.rs",
            "crates/cli/src/system_env.rs",
            // Says how many seeds a minute; the simulator itself has no clock.
            "crates/sim/src/main.rs",
            "xtask",
        ]),
        instead: "time is injected: use Env",
    },
    Ban {
        words: &["HashMap", "HashSet", "RandomState"],
        place: In::Only(&["core", "chunk", "engine"]),
        instead: "hash order is not reproducible: use BTreeMap or BTreeSet",
    },
    Ban {
        words: &["process::exit", "process::abort"],
        place: In::AllBut(&[
            "crates/cli/src/main.rs",
            "crates/cli/src/signals.rs",
            // A trial whose starter is gone has nobody to return to.
            "crates/trials/src/namespace.rs",
            "xtask",
        ]),
        instead: "only the front end ends the process: return an error",
    },
    Ban {
        words: &["rename_over", "fs::rename", "renameat"],
        // Below a hub's directory there is nothing that a user wrote.
        place: In::AllBut(&["fs", "local", "hub"]),
        instead: "a plain rename destroys what is at the target: use Dir::exchange or Dir::rename_noreplace",
    },
    Ban {
        words: &["remove_dir_all"],
        place: In::AllBut(&["xtask"]),
        instead: "it deletes what nobody looked at: move to trash, or remove name by name",
    },
    Ban {
        words: &["thread::sleep"],
        place: In::Only(&["core", "chunk", "store", "replica", "local", "engine"]),
        instead: "waiting is injected: use Env, or wait for a condition",
    },
    Ban {
        words: &["thread::spawn", "thread::Builder"],
        place: In::Only(&["core", "chunk", "store", "replica", "engine"]),
        instead: "threads are injected: use Env",
    },
    Ban {
        words: &["std::env", "env::var"],
        place: In::Only(&["core", "chunk", "fs", "store", "replica", "local", "engine"]),
        instead: "libraries take options, not the environment: pass it from the front end",
    },
    Ban {
        words: &["process::Command", "Command::new"],
        // A failing seed names its commit, which git knows.
        place: In::AllBut(&["xtask", "cli", "crates/sim/src/main.rs"]),
        instead: "instep starts no other programs",
    },
    Ban {
        words: &["rustix::fs"],
        place: In::AllBut(&["fs"]),
        instead: "file system calls belong to instep-fs: use its Dir, File or place",
    },
    Ban {
        words: &["libc"],
        place: In::AllBut(&["fs", "xtask"]),
        instead: "use rustix: safe bindings",
    },
];

/// Words that must not be in a comment.
const UNFINISHED: [&str; 4] = ["FIXME", "TODO", "XXX", "HACK"];

/// Checks one file.
pub(crate) fn check(source: &Source) -> Vec<Finding> {
    let mut found = Vec::new();
    for ban in BANS.iter().filter(|ban| holds_in(&ban.place, source)) {
        for (number, line) in source.shipped() {
            if let Some(word) = ban.words.iter().find(|word| has_word(line, word)) {
                let text = format!("`{word}` is not used here; {}", ban.instead);
                found.push(Finding::new(&source.path, number, text));
            }
        }
    }
    found.extend(nested_imports(source));
    for (at, comment) in source.comments.iter().enumerate() {
        if let Some(word) = UNFINISHED.iter().find(|word| has_word(comment, word)) {
            let text = format!("{word} in a comment; finish it, or open an issue and say why here");
            found.push(Finding::new(&source.path, at + 1, text));
        }
    }
    found
}

/// `use std::{fs, …}` would slip past the words above.
fn nested_imports(source: &Source) -> Vec<Finding> {
    let nested = |line: &str| line.trim_start().starts_with("use std::{");
    let lines = source.shipped().filter(|(_, line)| nested(line));
    lines
        .map(|(number, _)| {
            let text = "one `use` per module of std, so that the checks and readers see it";
            Finding::new(&source.path, number, text)
        })
        .collect()
}

fn holds_in(place: &In, source: &Source) -> bool {
    match place {
        In::Only(crates) => crates.contains(&source.package()),
        In::AllBut(excepted) => {
            let here = |place: &&str| source.package() == *place || source.path.starts_with(place);
            !excepted.iter().any(here)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<usize> {
        check(&Source::new(path, text, false))
            .iter()
            .map(|f| f.line)
            .collect()
    }

    #[test]
    fn files_are_opened_in_fs_alone() {
        assert_eq!(found("crates/engine/src/a.rs", "\nstd::fs::read(p);"), [2]);
        assert_eq!(found("crates/engine/src/a.rs", "\nuse std::{fs, io};"), [2]);
        assert_eq!(found("crates/fs/src/a.rs", "std::fs::read(p);"), [0; 0]);
        let in_test = "#[cfg(test)]\nmod tests {\n  std::fs::read(p);\n}";
        assert_eq!(found("crates/engine/src/a.rs", in_test), [0; 0]);
    }

    #[test]
    fn hash_maps_are_kept_out_of_decisions() {
        assert_eq!(
            found("crates/core/src/a.rs", "let m = HashMap::new();"),
            [1]
        );
        assert_eq!(
            found("crates/cli/src/a.rs", "let m = HashMap::new();"),
            [0; 0]
        );
    }

    #[test]
    fn clocks_are_read_in_one_place() {
        assert_eq!(found("crates/cli/src/a.rs", "let t = Instant::now();"), [1]);
        assert_eq!(
            found("crates/cli/src/system_env.rs", "let t = Instant::now();"),
            [0; 0]
        );
    }

    #[test]
    fn plain_renames_and_exits_have_replacements() {
        let text = "d.rename_over(a, b);\nstd::process::exit(1);";
        let all = check(&Source::new("crates/engine/src/a.rs", text, false));
        assert!(all.iter().any(|f| f.text.contains("exchange")));
        assert!(all.iter().any(|f| f.text.contains("return an error")));
    }

    #[test]
    fn unfinished_work_is_in_no_comment_but_may_be_in_a_text() {
        assert_eq!(found("crates/core/src/a.rs", "// FIXME later"), [1]);
        assert_eq!(found("crates/core/src/a.rs", "let x = \"FIXME\";"), [0; 0]);
    }
}
