//! Documents name things that exist: files, crates' folders and commands of this program.

use crate::finding::Finding;

/// Endings of names that are files of this repository when they stand in a document with a folder.
const ENDINGS: [&str; 5] = [".rs", ".md", ".toml", ".py", ".txt"];

/// Checks one document. `exists` says whether a path from the top of the repository is there.
pub(crate) fn check(
    file: &str,
    text: &str,
    commands: &[&str],
    exists: &dyn Fn(&str) -> bool,
) -> Vec<Finding> {
    let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
    // Pages for users show the user's files, in code and in blocks; only their links are ours.
    let for_users = file.starts_with("docs/errors/") || file.starts_with("crates/");
    let mut found = Vec::new();
    let mut block = false;
    for (at, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            block = !block;
            continue;
        }
        let mut missing = |what: &str| {
            found.push(Finding::new(
                file,
                at + 1,
                format!("`{what}` does not exist: mend the name"),
            ));
        };
        if !block {
            for target in links(line).filter(|t| !t.contains(':') && !t.starts_with('#')) {
                let target = target.split('#').next().unwrap_or(target);
                if !exists(&join(folder, target)) {
                    missing(target);
                }
            }
        }
        for code in inline_code(line).filter(|_| !block && !for_users) {
            let known =
                exists(code) || exists(&join(folder, code)) || exists(&join("crates", code));
            if is_path(code) && !known {
                missing(code);
            }
        }
        for command in line.split("cargo xtask ").skip(1) {
            let name = command
                .split(|c: char| !c.is_ascii_lowercase())
                .next()
                .unwrap_or("");
            if !name.is_empty() && !commands.contains(&name) {
                missing(&format!("cargo xtask {name}"));
            }
        }
    }
    found
}

fn join(folder: &str, path: &str) -> String {
    if folder.is_empty() {
        path.to_owned()
    } else {
        format!("{folder}/{path}")
    }
}

/// The targets of `[text](target)`.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
}

/// What stands between back quotes.
fn inline_code(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Whether this is meant as a file or folder of the repository.
fn is_path(code: &str) -> bool {
    let plain = code
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c));
    let ours = ["crates/", "xtask/", "docs/", "acceptance/"]
        .iter()
        .any(|p| code.starts_with(p));
    let file = ENDINGS.iter().any(|ending| code.ends_with(ending)) && code.contains('/');
    plain && !code.starts_with(['/', '.']) && (ours || file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(file: &str, text: &str) -> Vec<String> {
        let there = [
            "README.md",
            "docs/a.md",
            "crates/core/src/path.rs",
            "acceptance/",
        ];
        let exists = |path: &str| there.contains(&path);
        check(file, text, &["tidy"], &exists)
            .into_iter()
            .map(|f| f.text)
            .collect()
    }

    #[test]
    fn files_that_are_named_exist() {
        assert!(missing("README.md", "see `core/src/path.rs` and `docs/a.md`").is_empty());
        assert_eq!(missing("README.md", "see `core/src/gone.rs`").len(), 1);
        assert!(
            missing(
                "README.md",
                "`a/b.txt.bak`, `/etc/x.toml` and `*.rs` are not ours"
            )
            .is_empty()
        );
    }

    #[test]
    fn links_lead_somewhere() {
        assert!(
            missing(
                "docs/b.md",
                "[a](a.md#part), [web](https://x.y), [here](#z)"
            )
            .is_empty()
        );
        assert_eq!(missing("docs/b.md", "[a](gone.md)").len(), 1);
    }

    #[test]
    fn pages_for_users_show_the_users_files() {
        assert!(missing("docs/errors/E1001.md", "say `notes/plan.md`").is_empty());
    }

    #[test]
    fn commands_that_are_named_exist() {
        assert!(missing("README.md", "```\ncargo xtask tidy\n```").is_empty());
        assert_eq!(missing("README.md", "```\ncargo xtask dust\n```").len(), 1);
    }
}
